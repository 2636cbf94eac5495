"""The list of findings, one line each, and the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from trailsift.analysis.shell import quoted
from trailsift.analysis.time_range import Period
from trailsift.detect.finding import Finding
from trailsift.detect.texts import TEXTS, Language
from trailsift.safe_text import safe
from trailsift.terminal.console import console, grid, plural, show, unicode_fits
from trailsift.times import moment

if TYPE_CHECKING:
    from trailsift.detect.experiment import ExperimentReport

STYLES = {"high": "bold red", "medium": "yellow", "low": "dim"}
_GAP = "  "
#: Columns of a terminal from which on ranks and ids are both shown.
_WIDE = 100
#: Width of the sentence below which times are left out, and its least width.
_LEAST, _NARROWEST = 24, 8


def show_findings(
    findings: Sequence[Finding],
    period: Period,
    lake: Path | str,
    language: Language = "en",
    *,
    ranked: bool = True,
    details: bool = True,
) -> None:
    """Show findings in rank order, one line each, as wide as the terminal.

    ``ranked``: the ranks are those by which `trailsift finding` knows them; else each has its id. ``details``:
    `trailsift finding` knows them at all.
    """
    out = console()
    labels = TEXTS[language].labels
    number = len(findings)
    title = labels["finding" if number == 1 else "findings"].format(n=f"{number:,}", zone=period.zone.key)
    out.print(Text(title, style="bold"))
    names = [str(rank) if ranked else finding.id for rank, finding in enumerate(findings, 1)]
    ids = [finding.id for finding in findings] if ranked and out.width >= _WIDE else []
    when = _times(findings, period)
    who, what = [safe(finding.who) for finding in findings], [safe(finding.what) for finding in findings]
    words = [labels[finding.severity] for finding in findings]
    # The words say themselves what they are.
    columns = [("#" if ranked else "id", names), ("", words), (labels["when"], when)]
    columns += [("id", ids)] if ids else []
    columns += [(labels["who"], who)]
    widths = [max(map(cell_len, [heading, *cells])) for heading, cells in columns]
    widths[-1] = min(widths[-1], max(14, out.width // (4 if out.width >= _WIDE else 5)))
    if out.width - sum(widths) - len(_GAP) * len(widths) < _LEAST:
        del columns[2], widths[2]
    rest = max(out.width - sum(widths) - len(_GAP) * len(widths), _NARROWEST)
    cut = "…" if unicode_fits(out) else "..."
    headings = [fitted(heading, width, cut) for (heading, _), width in zip(columns, widths, strict=True)]
    out.print(Text(_GAP.join([*headings, labels["what"]]), style="dim"), soft_wrap=True)
    has_cut = False
    for place, finding in enumerate(findings):
        line = Text()
        for (heading, cells), width in zip(columns, widths, strict=True):
            has_cut = has_cut or cell_len(cells[place]) > width
            style = STYLES[finding.severity] if not heading else "dim" if heading == "id" else ""
            # Names that begin alike differ at their end.
            line.append(fitted(cells[place], width, cut, middle=heading == labels["who"]) + _GAP, style)
        has_cut = has_cut or cell_len(what[place]) > rest
        line.append(fitted(what[place], rest, cut).rstrip())
        out.print(line, soft_wrap=True)
    out.print()
    meanings = "; ".join(f"{labels[name]}: {text}" for name, text in TEXTS[language].severity.items())
    out.print(Text(meanings + ("" if not has_cut else f". {labels['cut'].format(cut=cut)}"), style="dim"))
    if details:
        shown = names[0] if ranked else findings[0].id
        rest_of_one = labels["rest"].format(command=f"trailsift finding {shown} --lake {quoted(lake)}")
        out.print(Text(rest_of_one, style="dim"), soft_wrap=True)


def show_finding_line(finding: Finding) -> None:
    """Show one finding on one line of its own, at once."""
    console().print(Text(str(finding)), soft_wrap=True)


def fitted(text: str, width: int, cut: str, *, middle: bool = False) -> str:
    """Return a text in exactly ``width`` columns, padded, or with ``cut`` for its end or ``middle``.

    Korean letters take two columns.
    """
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    end = _end_of(text, width // 3) if middle else ""
    begin = set_cell_size(text, max(width - len(cut) - cell_len(end), 0)).rstrip()
    return set_cell_size(begin + cut + end, width)


def _end_of(text: str, width: int) -> str:
    """Return the end of a text, at most ``width`` columns of it."""
    end = ""
    for letter in reversed(text):
        if cell_len(letter + end) > width:
            break
        end = letter + end
    return end


def _times(findings: Sequence[Finding], period: Period) -> list[str]:
    """Return when findings begin: without the year if it is the same for all."""
    times = [moment(finding.first_time).astimezone(period.zone) for finding in findings]
    form = "%m-%d %H:%M" if len({time.year for time in times}) == 1 else "%Y-%m-%d"
    return [time.strftime(form) for time in times]


def show_evaluation(table: ExperimentReport) -> None:
    """Show the evaluation: by strength and level left out, then by kind of incident."""
    out = console()
    report = table.as_dict()
    setup = f"{plural(report['seeds'], 'seed')}: {report['events']:,} events, {report['days']:g} days, "
    setup += plural(report["roles"], "role")
    for strength in report["strengths"]:
        columns = [("levels", "text"), ("found", "text"), ("in the day's top 10", "text"), ("false per day", "text")]
        columns.append(("per 1,000 roles", "text"))
        rows: list[Sequence[object]] = [
            (
                f"without {level['without']}" if level["without"] else "all",
                f"{level['found']:.0%}",
                f"{level['in_top_10']:.0%}",
                f"{level['false_per_day']:.2f}",
                f"{level['false_per_day_and_1000_roles']:.1f}",
            )
            for level in strength["levels"]
        ]
        show(out, grid(out, f"Incidents of strength {strength['strength']}, {setup}", columns, rows))
        kinds = strength["kinds"]
        levels = list(kinds[0]["found_without"]) if kinds else []
        columns = [("incident", "text"), ("planted", "number"), ("found", "text"), ("hours", "text")]
        columns += [(level, "text") for level in levels]
        rows = [
            [kind["kind"], kind["planted"], f"{kind['found']:.0%}", f"{kind['hours_to_detect']:.1f}"]
            + [f"{kind['found_without'][level]:.0%}" for level in levels]
            for kind in kinds
        ]
        note = "hours: from the first event to the finding. Columns on the right: found without that level."
        show(out, grid(out, f"By kind, strength {strength['strength']}", columns, rows, note))
    out.print(f"Without incidents: {report['quiet_false_per_day']:.2f} findings per day.")
