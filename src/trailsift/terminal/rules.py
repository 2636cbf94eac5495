"""The output of `rules` and `suggest`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from trailsift.analysis.caller_names import short_caller
from trailsift.analysis.shell import program, quoted
from trailsift.terminal.console import console, grid, plural, short_resource, show, size

if TYPE_CHECKING:
    from trailsift.analysis.suggest import Suggestions
    from trailsift.detect.rule_impact import Loss
    from trailsift.ingest.dry_run import DryRun
    from trailsift.rules import Rules


#: Findings that are shown.
_LOSSES = 20


def dollars(amount: float) -> str:
    """Return US dollars, small amounts with the digits that they need."""
    if amount >= 0.1 or not amount:
        return f"{amount:,.2f}"
    # Not 1e-05.
    return f"{amount:.2g}" if amount >= 1e-4 else f"{amount:.6f}"


def show_presets(presets: Mapping[str, str]) -> None:
    """Show the rules files that come with trailsift."""
    out = console()
    note = "`trailsift rules show NAME > my.toml` copies one for you to change"
    show(out, grid(out, "Presets", [("name", "text"), ("what it does", "prose")], presets.items(), note))


def show_checked(rules: Rules) -> None:
    """Show a valid rules file, rule by rule."""
    out = console()
    rows = []
    for rule in rules.rules:
        rates = sorted(set(rule.rates), reverse=True)
        share = ", ".join(f"{rate:g}" for rate in rates) if rates else "-"
        rows.append((rule.line, rule.name, rule.action, share))
    columns = [("line", "number"), ("rule", "prose"), ("action", "text"), ("kept", "text")]
    note = f"Hours and weekdays in {rules.timezone}. Events that match no rule are kept."
    if rules.omit:
        note += f" Left empty: {', '.join(rules.omit)}."
    show(out, grid(out, f"{rules.name}: {plural(len(rules.rules), 'rule')}", columns, rows, note))
    out.print(f"Next: {program()} rules try {quoted(rules.name)} LOGS", style="bold", soft_wrap=True)


def show_rehearsal(result: DryRun) -> None:
    """Show what a rules file would do."""
    out = console()
    rows = []
    for effect in result.effects:
        rows.append(
            (
                effect.rule or "(no rule)",
                effect.action,
                effect.events,
                effect.stored,
                effect.events - effect.stored,
                size(effect.bytes - effect.bytes_stored),
                dollars(effect.usd_trail),
                dollars(effect.usd_kept),
                dollars(effect.usd_stored),
            )
        )
    columns = [("rule", "prose"), ("action", "text"), ("events", "number"), ("stored", "number")]
    columns += [("not stored", "number"), ("bytes saved", "?number"), ("trail $", "number"), ("kept $", "?number")]
    columns += [("after $", "number")]
    share = result.stored / result.events
    note = (
        f"{result.stored:,} of {result.events:,} events of {result.days:.1f} days would be stored ({share:.1%}). "
        "Dollars per month at these rates: trail $ is what the trail charges (only its selectors can lower it), kept $ "
        "is the cost of storing everything, after $ the cost with these rules."
    )
    show(out, grid(out, f"{result.rules} on {result.source}", columns, rows, note))
    unseen = [
        (kind.replace("_", " "), value.value, value.events)
        for kind, values in result.unseen.items()
        for value in values
    ]
    if unseen:
        counts = ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind, n in result.unseen_count.items() if n)
        title = "Not in any stored event any more"
        note = f"In total: {counts}. The summaries still count them."
        show(out, grid(out, title, [("kind", "text"), ("value", "prose"), ("events", "number")], unseen, note))
    else:
        out.print("Every role, resource, network and client would still appear in a stored event.")
    out.print(
        f"{plural(result.denied, 'denied call')}; {result.denied_stored:,} would be stored."
        if result.denied
        else "There are no denied calls."
    )


def show_losses(losses: Sequence[Loss] | None, how: str) -> None:
    """Show what becomes of findings; ``how`` says how to find out if it was not computed (None)."""
    out = console()
    if losses is None:
        out.print(f"To see the effect on findings, {how}.")
        return
    affected = [loss for loss in losses if loss.fate != "as before"]
    if not affected:
        count = plural(len(losses), "finding")
        out.print(f"{count}: all stay, with all their events." if losses else "There are no findings to affect.")
        return
    rows = [
        (
            loss.fate,
            loss.id,
            f"{loss.score:.2f}",
            f"{loss.score_after:.2f}",
            loss.events,
            loss.events_after,
            loss.title,
        )
        for loss in affected[:_LOSSES]
    ]
    columns = [("outcome", "text"), ("finding", "id"), ("score", "number"), ("after", "number")]
    columns += [("events", "number"), ("left", "number"), ("what", "prose")]
    counts = ", ".join(f"{n:,} {fate}" for fate, n in Counter(loss.fate for loss in losses).items())
    note = (
        f"In total: {counts}. Findings come from summaries, which count every event, except detections that query "
        "single events. left: events of the finding that can still be inspected."
    )
    show(out, grid(out, "Effect on findings", columns, rows, note))


def show_suggestions(suggestions: Suggestions) -> None:
    """Show what could be sampled, and the rules for it."""
    out = console()
    if not suggestions.lines:
        out.print("Nothing to suggest: no activity makes up 0.1 % of the events.")
        return
    rows = []
    for number, line in enumerate(suggestions.lines, 1):
        variation = "-" if line.variation is None else f"{line.variation:.2f}"
        kind = "writes" if line.writes else "reads"
        rows.append(
            (
                number,
                short_caller(line.caller),
                f"{line.service} {line.event_name}",
                short_resource(line.resource_arn),
                line.key_pattern,
                line.events,
                f"{line.share:.1%}",
                dollars(line.usd_trail),
                variation,
                f"{kind}, {plural(line.keys, 'key')}" if line.keys else kind,
            )
        )
    columns = [
        ("#", "number"),
        ("caller", "prose"),
        ("action", "prose"),
        ("resource", "prose"),
        ("key pattern", "prose"),
    ]
    columns += [("events", "number"), ("share", "?number"), ("trail $", "number"), ("varies", "?number")]
    columns += [("single events lost", "??prose")]
    note = (
        f"Sampling these at 1 % would remove {suggestions.saved / suggestions.total:.1%} of {suggestions.total:,} "
        "events from the lake. Only single events are lost: who read which key at which second. Counts by hour, "
        "caller, resource and key pattern stay exact, failed calls stay. varies: standard deviation of daily events, "
        "divided by their mean. trail $: what the trail charges per month; only an event selector can save that."
    )
    show(out, grid(out, "High volume, low novelty", columns, rows, note))
    show(out, Text("As rules (`trailsift rules try` shows their effect):", style="bold"))
    out.print(Text(suggestions.toml), soft_wrap=True)
