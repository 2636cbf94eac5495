"""The output of `roles --need-data-events` and `selectors`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from trailsift.analysis.caller_names import told_apart
from trailsift.safe_text import safe
from trailsift.terminal.console import console, hanging, plural

if TYPE_CHECKING:
    from trailsift.analysis.trail_coverage import Need, SelectionCost


def show_needs(needs: Sequence[Need]) -> None:
    """Show the callers worth switching data events on for: a line each, and the reasons below it."""
    out = console()
    names = told_apart(need.caller for need in needs)
    out.print(Text("Callers worth switching data events on for", style="bold"))
    for need in needs:
        services = safe(", ".join(need.services) or "s3")
        logged = f", {plural(need.logged, 'data event')} in this lake so far" if need.logged else ""
        out.print()
        out.print(hanging(out, Text(safe(names[need.caller])), 2))
        out.print(Text(f"  score {need.score}, {services}{logged}", style="dim"))
        out.print(Text("  ").append_text(hanging(out, Text(safe("; ".join(need.reasons))), 2)))


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
        f"at the rates of the lake's last {cost.days:.1f} days: {known}{unknown}"
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
