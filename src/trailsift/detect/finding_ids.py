"""Stable finding ids, kept in the lake: a finding keeps the id under which it was first reported.

A later run may see the same finding begin earlier, end later or be led by another caller, so findings are recognized by
their callers and time. If two findings merge, the older id stays and the other becomes an alias.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trailsift.detect.correlate import finding_id
from trailsift.detect.finding import Finding
from trailsift.detect.stored_json import is_count, is_text, parse_json
from trailsift.errors import LakeError
from trailsift.storage import Location, open_storage, update

_FILE = "findings/ids.json"
#: Findings whose ids are remembered; the newest are kept.
KEPT = 10_000


@dataclass
class KnownFinding:
    """An id, and the callers and first and last time of the finding that has it."""

    id: str
    callers: list[str | None]
    first: int
    last: int


def named(lake: Location, findings: Sequence[Finding], *, remember: bool = True) -> list[Finding]:
    """Return the findings with their known ids; ids of new findings are stored unless ``remember`` is false.

    In a read-only lake, known ids are used and new ones are not stored. Raise LakeError if the file of ids is damaged.
    """
    storage = open_storage(lake)
    out: list[Finding] | None = None

    def assign(data: bytes | None) -> bytes | None:
        nonlocal out
        known = _parse(data, storage.describe(_FILE))
        out, names = give(findings, known)
        return _text(names[-KEPT:]) if remember and names != known else None

    try:
        # If another run updates the ids at the same time, they are assigned again, with the other run's ids known.
        update(storage, _FILE, assign)
    except OSError as error:
        if out is None:
            raise LakeError(f"cannot read {storage.describe(_FILE)}: {error}") from error
    assert out is not None
    return out


def give(findings: Sequence[Finding], known: Sequence[KnownFinding]) -> tuple[list[Finding], list[KnownFinding]]:
    """Return the findings with their ids, and all known findings afterwards; older ones keep their place."""
    by_caller: dict[str | None, list[int]] = {}
    for place, finding in enumerate(findings):
        for caller in _names(finding):
            by_caller.setdefault(caller, []).append(place)
    fits = []
    for age, name in enumerate(known):
        places = {place for caller in name.callers for place in by_caller.get(caller, ())}
        near = [place for place in places if _overlap(name, findings[place]) >= 0]
        same = [place for place in near if _same(name, findings[place])]
        if near:
            fits.append((not same, len(near), age, same or near))
    own: dict[int, list[int]] = {}
    # Unchanged findings first, then ids with few candidates: if a finding splits in two, each part keeps its own id.
    for _, _, age, choice in sorted(fits):
        best = max(choice, key=lambda place: (place not in own, *_nearness(known[age], findings[place]), -place))
        own.setdefault(best, []).append(age)
    names = list(known)
    for place, ages in own.items():
        names[min(ages)] = _grown(known[min(ages)], findings[place])
    taken = {name.id for name in names}
    out = []
    for place, finding in enumerate(findings):
        first, *aliases = [known[age].id for age in sorted(own.get(place, ()))] or [_free(finding, taken)]
        taken.add(first)
        if place not in own:
            names.append(_grown(KnownFinding(first, [], finding.span[0], finding.span[1]), finding))
        out.append(replace(finding, id=first, also=tuple(aliases)))
    return out, names


def _names(finding: Finding) -> set[str | None]:
    """Return the callers of a finding, and what they were called in a lake of format version 1."""
    return {*(finding.callers or (finding.caller,)), *finding.role_arns}


def _grown(name: KnownFinding, finding: Finding) -> KnownFinding:
    return KnownFinding(name.id, list(finding.callers or (finding.caller,)), finding.span[0], finding.span[1])


def _overlap(name: KnownFinding, finding: Finding) -> int:
    """Return the microseconds that both share; negative: the gap between them."""
    return min(name.last, finding.span[1]) - max(name.first, finding.span[0])


def _same(name: KnownFinding, finding: Finding) -> bool:
    same_callers = set(name.callers) in (set(finding.callers), set(finding.role_arns))
    return (name.first, name.last) == finding.span and same_callers


def _nearness(name: KnownFinding, finding: Finding) -> tuple[int, int]:
    return len(set(name.callers) & _names(finding)), _overlap(name, finding)


def _free(finding: Finding, taken: set[str]) -> str:
    candidate, number = finding.id, 0
    while candidate in taken:
        number += 1
        candidate = finding_id(finding.caller, finding.span[0], str(number))
    return candidate


def _parse(data: bytes | None, path: str) -> list[KnownFinding]:
    try:
        rows: list[list[Any]] = parse_json(data) if data is not None else []
        return [_known(*row) for row in rows]
    except (ValueError, TypeError) as error:
        raise LakeError(f"{path} is damaged: {error}; delete it, and findings get new ids") from error


def _known(name: object, callers: object, first: object, last: object) -> KnownFinding:
    if not (isinstance(name, str) and isinstance(callers, list) and all(map(is_text, callers))):
        raise ValueError("an id or a caller is not a text")
    if not (is_count(first) and is_count(last)):
        raise ValueError("a time is not a number")
    return KnownFinding(name, callers, first, last)  # type: ignore[arg-type]


def _text(names: Sequence[KnownFinding]) -> bytes:
    return json.dumps([[name.id, name.callers, name.first, name.last] for name in names]).encode()
