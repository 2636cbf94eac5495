"""One finding as a note: what happened, why it is unusual, what surrounds it, what to do, and the evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from trailsift.analysis.shell import double_quoted, quoted
from trailsift.analysis.time_range import Period
from trailsift.detect.context import AROUND, Act
from trailsift.detect.next_steps import Step
from trailsift.detect.pipeline import FindingDetail
from trailsift.detect.techniques import named
from trailsift.detect.texts import TEXTS, Language
from trailsift.detect.writer import clipped
from trailsift.safe_text import safe
from trailsift.terminal import console as pieces
from trailsift.terminal.console import console, grid, hanging, show, size
from trailsift.terminal.findings import STYLES
from trailsift.times import moment

#: Rows of the hourly summary that are shown; `--json` has more.
_LINES = 10


def show_finding(detail: FindingDetail, period: Period, lake: Path | str, language: Language = "en") -> None:
    """Show one finding as a note, then its summary rows, events, and the query for all of them."""
    out, finding, texts = console(), detail.finding, TEXTS[language]
    labels = texts.labels
    head = Text(f"{labels[finding.severity]} {finding.score:.2f}", style=STYLES[finding.severity])
    head.append(f"  {texts.severity[finding.severity]}  {finding.id}", style="dim")
    out.print(head)
    out.print(hanging(out, Text(safe(finding.title), style="bold"), 2))
    if finding.techniques:
        out.print(hanging(out, Text(labels["technique"].format(names=", ".join(named(finding.techniques)))), 2))
    out.print()
    _section(out, labels["why"], finding.reasons)
    if detail.meaning:
        _section(out, labels["meaning"], [detail.meaning])
    _section(out, labels["around"], list(_around(detail, period, language)))
    _steps(out, labels["do"], detail.next)
    _steps(out, labels["aws"], detail.in_aws)
    _sessions(out, detail, period, language)
    _evidence(out, detail, period, language)
    command = f"trailsift query {double_quoted(finding.query)} --lake {quoted(lake)}"
    out.print(Text(safe(labels["all events"].format(command=command)), style="dim"), soft_wrap=True)


def _section(out: Console, title: str, lines: Sequence[str]) -> None:
    out.print(Text(title, style="bold"))
    show(out, Text("\n").join(hanging(out, Text(f"- {safe(line)}"), 2) for line in lines))


def _steps(out: Console, title: str, steps: Sequence[Step]) -> None:
    if not steps:
        return
    out.print(Text(title, style="bold"))
    for step in steps:
        out.print(hanging(out, Text(f"- {safe(step.does)}"), 2))
        if step.command:
            # Never folded: a command must survive copying.
            out.print(Text(f"    {safe(step.command)}", style="cyan"), soft_wrap=True)
    out.print()


def _around(detail: FindingDetail, period: Period, language: Language) -> Iterator[str]:
    """Yield what the callers did before and after, and who else came from their networks."""
    context, labels = detail.context, TEXTS[language].labels
    for word, acts in (("before", context.before), ("after", context.after)):
        for act in acts:
            yield f"{_clock(act.first_time, period)} {labels[word]}: {_act(act, detail)}"
    for other in context.neighbours:
        span = _span(other.first_time, other.last_time, period)
        place = labels["same network"].format(network=clipped(other.source_network or "?"))
        who, calls = detail.writer.caller(other.caller), _calls(other.events, detail)
        yield f"{span} {place}: {who}, {calls}"
    if not (context.before or context.after or context.neighbours):
        yield labels["no context"].format(n=AROUND)
    if context.incomplete:
        yield labels["sampled"]


def _act(act: Act, detail: FindingDetail) -> str:
    writer = detail.writer
    on = writer.phrase("on", resource=writer.resource(act.resource_arn)) if act.resource_arn else ""
    error = f" ({writer.word(act.error_code)})" if act.error_code else ""
    return f"{writer.word(act.event_name or '?')}{on}, {_calls(act.events, detail)}{error}"


def _calls(number: int, detail: FindingDetail) -> str:
    return detail.writer.count("call", "calls", number)


def _clock(time: int, period: Period) -> str:
    return f"{moment(time).astimezone(period.zone):%m-%d %H:%M}"


def _span(first_time: int, last_time: int, period: Period) -> str:
    first, last = _clock(first_time, period), _clock(last_time, period)
    return first if first == last else f"{first} ~ {last.removeprefix(first[:6])}"


def _sessions(out: Console, detail: FindingDetail, period: Period, language: Language) -> None:
    labels, uses = TEXTS[language].labels, detail.context.sessions
    if not uses:
        return
    # Users and root have no sessions by name.
    named_ones = any(use.session_name for use in uses)
    columns = [(labels["session"], "id")] if named_ones else []
    columns += [(labels["network"], "id"), (labels["client"], "id"), (labels["calls"], "number")]
    columns += [(labels["time"], "?text")]
    rows = [
        (
            *([use.session_name] if named_ones else []),
            use.source_network,
            use.user_agent,
            use.events,
            _span(use.first_time, use.last_time, period),
        )
        for use in uses
    ]
    show(out, grid(out, labels["sessions"], columns, rows, hidden_text=labels["hidden"]))


def _evidence(out: Console, detail: FindingDetail, period: Period, language: Language) -> None:
    labels = TEXTS[language].labels
    columns = [(labels["hour"], "text"), (labels["event"], "text"), (labels["resource"], "id")]
    columns += [(labels["error"], "?text"), (labels["events"], "number"), (labels["out"], "?number")]
    rows: list[Sequence[object]] = [
        (
            f"{hour.astimezone(period.zone):%Y-%m-%d %H:%M}",
            name,
            pieces.short_resource(resource),
            error,
            events,
            size(bytes_out),
        )
        for hour, _, name, resource, error, events, bytes_out in detail.lines[:_LINES]
    ]
    show(out, grid(out, labels["summary"].format(zone=period.zone.key), columns, rows, hidden_text=labels["hidden"]))
    columns = [(labels["time"], "text"), (labels["event"], "text"), (labels["key"], "prose")]
    columns += [(labels["source"], "text"), (labels["error"], "?text")]
    rows = [
        (
            f"{event['event_time'].astimezone(period.zone):%m-%d %H:%M:%S}",
            event["event_name"],
            event["object_key"] or pieces.short_resource(event["resource_arn"]),
            event["source_ip"],
            event["error_code"],
        )
        for event in detail.events
    ]
    gone = detail.removed_before
    note = labels["removed"].format(day=gone) if gone else ""
    title = labels["first event" if len(rows) == 1 else "first events"].format(n=f"{len(rows):,}")
    show(out, grid(out, title, columns, rows, note, labels["hidden"]))
