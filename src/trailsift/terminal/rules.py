"""What the `rules` commands show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trailsift.analysis.shell import quoted
from trailsift.terminal.console import console, grid, plural, short_resource, short_role, show, size

if TYPE_CHECKING:
    from trailsift.analysis.suggest import Suggestions
    from trailsift.detect.rule_impact import Loss
    from trailsift.ingest.dry_run import DryRun
    from trailsift.rules import Rules


_LOSSES = 20  # findings that are shown


def dollars(amount: float) -> str:
    """US dollars, with the digits that small ones need."""
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.2g}"


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


def show_rehearsal(found: DryRun) -> None:
    """What a rules file would do."""
    out = console()
    rows = []
    for effect in found.effects:
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
    columns += [("not stored", "number"), ("bytes", "?number"), ("trail $", "number"), ("kept $", "?number")]
    columns += [("after $", "number")]
    share = found.stored / found.events
    note = (
        f"{found.stored:,} of {found.events:,} events of {found.days:.1f} days would be stored, {share:.1%}. "
        "Dollars are a month at this pace: what the trail charges for these events (only its selectors can lower "
        "that), what keeping all costs, and what is left of it."
    )
    show(out, grid(out, f"{found.rules} on {found.source}", columns, rows, note))
    gone = [(kind.replace("_", " "), one.value, one.events) for kind, values in found.unseen.items() for one in values]
    if gone:
        counts = ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind, n in found.unseen_count.items() if n)
        title = "No longer seen in any stored event"
        told = f"In all: {counts}. The summaries still count them."
        show(out, grid(out, title, [("what", "text"), ("value", "prose"), ("events", "number")], gone, told))
    else:
        out.print("Every role, resource, network and client would still be seen in a stored event.")
    out.print(
        f"{plural(found.denied, 'denied call')}, of which {found.denied_stored:,} would be stored."
        if found.denied
        else "There are no denied calls."
    )


def show_losses(lost: Sequence[Loss] | None, else_by: str) -> None:
    """What becomes of findings; ``else_by``: how to learn it, where it was not looked at."""
    out = console()
    if lost is None:
        out.print(f"What findings would lose: {else_by}.")
        return
    hurt = [one for one in lost if one.fate != "as before"]
    if not hurt:
        told = plural(len(lost), "finding")
        out.print(f"{told}: each stays, with all its events." if lost else "There are no findings to lose.")
        return
    rows = [
        (one.fate, one.id, f"{one.score:.2f}", f"{one.score_after:.2f}", one.events, one.events_after, one.title)
        for one in hurt[:_LOSSES]
    ]
    columns = [("becomes", "text"), ("finding", "id"), ("score", "number"), ("after", "number")]
    columns += [("events", "number"), ("left", "number"), ("what", "prose")]
    counts = ", ".join(f"{n:,} {fate}" for fate, n in Counter(one.fate for one in lost).items())
    note = (
        f"In all: {counts}. Findings come from summaries, which count every event, but for detections that ask single "
        "events; what is left of a finding's events is what can still be looked into."
    )
    show(out, grid(out, "What findings would lose", columns, rows, note))


def show_suggestions(found: Suggestions) -> None:
    """What could be sampled, and the rules for it."""
    out = console()
    if not found.lines:
        out.print("Nothing to suggest: no line makes a thousandth of the events.")
        return
    rows = []
    for number, line in enumerate(found.lines, 1):
        steady = "-" if line.variation is None else f"{line.variation:.2f}"
        what = "writes" if line.writes else "reads"
        rows.append(
            (
                number,
                short_role(line.role_arn),
                f"{line.service} {line.event_name}",
                short_resource(line.resource_arn),
                line.key_pattern,
                line.events,
                f"{line.share:.1%}",
                steady,
                dollars(line.usd_trail),
                f"{what}, {line.keys:,} keys" if line.keys else what,
            )
        )
    columns = [("#", "number"), ("role", "prose"), ("action", "prose"), ("resource", "prose"), ("key pattern", "prose")]
    columns += [("events", "number"), ("share", "number"), ("varies", "number"), ("trail $", "??number")]
    columns += [("single events lost", "?prose")]
    note = (
        f"Sampled at 1 %, these would take {found.saved / found.total:.1%} of {found.total:,} events out of the lake. "
        "Lost are the single events: who exactly read which key in which second. Counts by hour, role, resource and "
        "key pattern stay exact, failed calls stay. `varies`: standard deviation over mean of the events a day. "
        "`trail $`: what the trail charges a month for the line; leaving it out there takes an event selector."
    )
    show(out, grid(out, "Much volume, little news", columns, rows, note))
    out.print("As rules (`trailsift rules try` rehearses them):\n", style="bold")
    out.print(found.toml, soft_wrap=True)
