"""The output of `roles --need-data-events` and `selectors`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from trailsift.analysis.caller_names import short_caller
from trailsift.safe_text import safe
from trailsift.terminal.console import console, grid, show

if TYPE_CHECKING:
    from trailsift.analysis.trail_coverage import Need, SelectionCost


def show_needs(needs: Sequence[Need]) -> None:
    """Show the roles worth switching data events on for."""
    out = console()
    columns = [("role", "id"), ("score", "number"), ("services", "text"), ("logged", "?number"), ("why", "prose")]
    rows = [
        (short_caller(need.caller), need.score, ", ".join(need.services) or "s3", need.logged, "; ".join(need.reasons))
        for need in needs
    ]
    show(
        out,
        grid(out, "Roles worth switching data events on for", columns, rows, "logged: data events in this lake so far"),
    )


def cost_text(cost: SelectionCost) -> str:
    """Return one line on the cost of a selection."""
    if not cost.days:
        return "the lake holds no events to estimate the cost from"
    kinds = ", ".join(map(safe, cost.unknown))
    unknown = f"the cost of {kinds} is not known, because the lake holds no data events of it; " if cost.unknown else ""
    known = "" if cost.events is None else f"{cost.events:,.0f} events per month, {_dollars(cost.usd)}; "
    left = ", ".join(map(safe, cost.unpriced))
    unpriced = f"; without {left}, whose price is not known (--prices)" if cost.unpriced else ""
    return (
        f"at the rates of the lake's {cost.days:.1f} days: {known}{unknown}"
        f"all data events in the lake: {cost.all_events:,.0f} per month, {_dollars(cost.all_usd)}{unpriced}"
    )


def _dollars(usd: float | None) -> str:
    return "price not known" if usd is None else f"${usd:,.2f}"


def show_change(before: Sequence[str], after: Sequence[str]) -> None:
    """Show the lines in which two JSON documents differ."""
    import difflib

    out = console()
    styles = {"+": "green", "-": "red", "@": "dim"}
    for line in difflib.unified_diff(before, after, "present", "new", lineterm="", n=2):
        out.print(Text(line, style=styles.get(line[:1], "")), soft_wrap=True)
