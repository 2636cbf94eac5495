"""What the commands of the AWS side print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from trailsift.terminal.console import console, grid, short_role, show

if TYPE_CHECKING:
    from trailsift.analysis.trail_coverage import Need, SelectionCost


def show_needs(needs: Sequence[Need]) -> None:
    """Roles worth switching data events on for."""
    out = console()
    columns = [("role", "id"), ("score", "number"), ("services", "text"), ("logged", "?number"), ("why", "prose")]
    rows = [
        (short_role(need.role_arn), need.score, ", ".join(need.services) or "s3", need.logged, "; ".join(need.reasons))
        for need in needs
    ]
    show(out, grid(out, "Roles worth switching data events on for", columns, rows, "`logged`: data events seen so far"))


def cost_text(cost: SelectionCost) -> str:
    """One line on what the selection costs."""
    if not cost.days:
        return "the lake holds no events to estimate the cost from"
    return (
        f"at the rates of the lake's {cost.days:.1f} days: {cost.events:,.0f} events a month, ${cost.usd:,.2f}; "
        f"all data events that it saw: {cost.all_events:,.0f}, ${cost.all_usd:,.2f}"
    )


def show_change(before: Sequence[str], after: Sequence[str]) -> None:
    """The lines of two JSON documents that differ."""
    import difflib

    out = console()
    styles = {"+": "green", "-": "red", "@": "dim"}
    for line in difflib.unified_diff(before, after, "now", "then", lineterm="", n=2):
        out.print(Text(line, style=styles.get(line[:1], "")), soft_wrap=True)
