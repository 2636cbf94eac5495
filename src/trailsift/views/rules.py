"""What the `rules` commands show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trailsift.analysis.shell import quoted
from trailsift.views.console import console, grid, plural, show

if TYPE_CHECKING:
    from trailsift.sift import Rules


def show_ready(ready: Mapping[str, str]) -> None:
    """The rules files that come with trailsift."""
    out = console()
    note = "`trailsift rules show NAME > my.toml` writes one down to be changed"
    show(out, grid(out, "Ready rules files", [("name", "text"), ("what it does", "prose")], ready.items(), note))


def show_checked(rules: Rules) -> None:
    """A rules file that is in order, rule by rule."""
    out = console()
    rows = []
    for rule in rules.rules:
        rates = sorted(set(rule.rates), reverse=True)
        share = ", ".join(f"{rate:g}" for rate in rates) if rates else "-"
        rows.append((rule.line, rule.name, rule.action, share))
    columns = [("line", "number"), ("rule", "prose"), ("action", "text"), ("share kept", "text")]
    note = f"Hours and weekdays in {rules.timezone}. What no rule matches is kept."
    if rules.omit:
        note += f" Left empty: {', '.join(rules.omit)}."
    show(out, grid(out, f"{rules.name}: {plural(len(rules.rules), 'rule')}, in order", columns, rows, note))
    out.print(f"Next: trailsift rules try {quoted(rules.name)} LOGS", style="bold", soft_wrap=True)
