"""The tables of findings on real and semi-real lakes."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean

from page import state_of_code
from real_judge import ABLATIONS, SetResult
from real_lakes import Outcome

_SETS = """\
Logs of other people's accounts (`TRAILSIFT_REAL_LOGS`, not in this repository), each as a lake of its own.

- active days: days with events; callers: everyone whom the lake tells apart.
- findings: as `trailsift detect` lists them (at most ten a day), by severity: high / medium / low.
- named: labelled kinds of action that a finding names: its call, or in its text, within an hour; in brackets those
  among the first five and the first twenty findings of the list.
- other: findings that name no labelled action. In a set without an attack (marked *) all are, and all are false. In the
  others they may be true: nobody labelled everything.
- per day: other findings per active day; per 1,000: the same per 1,000 callers."""
_LEVELS = "With one level left out: labelled actions named / other findings."
_INVENTED = """\
Attacks written by us after public reports (none of their records is genuine), moved in the same way:"""
_LAKES = """\
Genuine attack records (of the sets above) in genuine benign lakes and in generated ones: the background's account, a
victim's identity, new ids, the day after the background's last. Which of them is drawn from a seed: {draws} lakes of
{kinds} kinds of attack in {backgrounds} backgrounds, cut to 1, 2, 3 or 5 days with events or whole; the victim is the
busiest caller, another or a new user; at its usual hour or far from it; with a third of the attack's calls, all of
them, or everything that was done meanwhile. Found: a finding that names the victim or what only the attack touched,
within an hour of it. Every other finding of the lake is false, also one about the background."""


_COLUMNS = ("set", "events", "active days", "callers", "findings", "named (first 5, 20)", "other", "per day",
    "per day and 1,000", "seconds")  # fmt: skip


def _note() -> str:
    machine = f"{os.cpu_count()} cores (load {os.getloadavg()[0]:.0f})"
    return f"{state_of_code()}, {machine}. To repeat it: `python bench/real_findings.py`."


def sets_table(results: Sequence[SetResult]) -> str:
    """Return the section on real sets."""
    lines = [
        _SETS,
        "",
        _note(),
        "",
        _line(_COLUMNS),
        _rule(len(_COLUMNS)),
    ]
    for result in results:
        content, found, other = result.content, result.severities(), len(result.false["all"])
        per_day = other / content.days if content.days else 0.0
        cells = (
            f"{result.set.name}{' *' if result.set.benign else ''}",
            f"{content.events:,}",
            content.days,
            content.callers,
            " / ".join(str(found[severity]) for severity in ("high", "medium", "low")),
            _named(result, "all"),
            other,
            f"{per_day:.2f}",
            f"{1000 * per_day / max(1, content.callers):.1f}",
            f"{result.seconds:.1f}",
        )
        lines.append(_line(cells))
    benign = [result for result in results if result.set.benign]
    if days := sum(result.content.days for result in benign):
        false = [finding for result in benign for finding in result.false["all"]]
        above = sum(finding.severity != "low" for finding in false)
        lines += [
            "",
            f"Sets without an attack: {len(false)} findings in {days} active days, {above} of them above low.",
        ]
    labelled = [result for result in results if result.set.labels]
    for result in labelled:
        ranks = ", ".join(f"{name} {rank or 'missed'}" for name, rank in result.ranks["all"].items())
        lines += ["", f"Ranks in {result.set.name}: {ranks}."]
    lines += ["", _LEVELS, "", _line(("set", *_headings())), _rule(len(ABLATIONS) + 1)]
    for result in results:
        by_level = (f"{_found(result.ranks[a])} / {len(result.false[a])}" for a in ABLATIONS)
        lines.append(_line((result.set.name, *by_level)))
    return "\n".join(lines)


def _headings() -> list[str]:
    return ["all levels", *(f"without {level}" for level in ABLATIONS[1:])]


def _found(ranks: dict[str, int | None], most: int = 1_000_000) -> int:
    return sum(rank is not None and rank <= most for rank in ranks.values())


def _named(result: SetResult, ablation: str) -> str:
    ranks = result.ranks[ablation]
    if not ranks:
        return ""
    return f"{_found(ranks)} of {len(ranks)} ({_found(ranks, 5)}, {_found(ranks, 20)})"


def lakes_table(outcomes: Sequence[Outcome]) -> str:
    """Return the section on semi-real lakes."""
    short = [outcome for outcome in outcomes if outcome.draw.days is not None]
    about = _LAKES.format(
        draws=len(outcomes),
        kinds=len({outcome.draw.kind for outcome in outcomes}),
        backgrounds=len({outcome.draw.background for outcome in outcomes}),
    )
    parts: list[tuple[str, Sequence[Outcome]]] = [("all", outcomes), ("**short (1 to 5 days)**", short)]
    columns: tuple[tuple[str, Callable[[Outcome], str]], ...] = (
        ("", lambda outcome: outcome.draw.kind.name),
        ("days: ", lambda outcome: str(outcome.draw.days or "all")),
        ("", lambda outcome: outcome.draw.background),
        ("victim: ", lambda outcome: outcome.draw.victim),
        ("hour: ", lambda outcome: outcome.draw.hour),
        ("size: ", lambda outcome: outcome.draw.size),
    )
    for prefix, key in columns:
        groups: dict[str, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            groups[key(outcome)].append(outcome)
        parts += [(prefix + value, group) for value, group in groups.items()]
    if not outcomes[0].draw.kind.genuine:
        about = _INVENTED + about.partition("drawn from a seed:")[2]
    lines = [about, "", _note(), "", _line(("lakes", "count", *_RECALL)), _rule(6)]
    lines += [_line((name, len(group), *_recall(group, "all"))) for name, group in parts]
    whole = [outcome for outcome in outcomes if outcome.draw.days is None]
    for title, part in (("Short lakes, by level:", short), ("Whole lakes, by level:", whole)):
        lines += ["", title, "", _line(("levels", *_RECALL)), _rule(5)]
        lines += [
            _line((heading, *_recall(part, ablation))) for heading, ablation in zip(_headings(), ABLATIONS, strict=True)
        ]
    severities = Counter(finding.severity for outcome in short for finding in outcome.false["all"])
    shown = ", ".join(f"{severities[severity]} {severity}" for severity in ("high", "medium", "low"))
    return "\n".join([*lines, "", f"False findings of the short lakes: {shown}."])


_RECALL = ("rank 1", "first 5", "first 20", "false findings a lake")


def _recall(outcomes: Sequence[Outcome], ablation: str) -> Iterable[str]:
    if not outcomes:
        return ["", "", "", ""]
    ranks = [outcome.ranks[ablation] for outcome in outcomes]
    shares = (mean(rank is not None and rank <= most for rank in ranks) for most in (1, 5, 20))
    false = mean(len(outcome.false[ablation]) for outcome in outcomes)
    return [*(f"{share:.0%}" for share in shares), f"{false:.2f}"]


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns


def put_sections(page: Path, sections: dict[str, str]) -> None:
    """Replace sections of a Markdown page by their second-level headings, or append them; keep all others."""
    text = page.read_text("utf-8") if page.exists() else ""
    first, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    kept = {part.partition("\n")[0]: part.partition("\n")[2].strip("\n") for part in parts} | sections
    chunks = [first.strip("\n"), *(f"## {heading}\n\n{body}" for heading, body in kept.items())]
    page.write_text("\n\n".join(chunk for chunk in chunks if chunk) + "\n", "utf-8")
