"""The ids under which findings were told, kept in the lake: an id stays, whatever else becomes known.

A finding that is found again has begun earlier or ended later, or another role leads it; so it is known by its roles
and its time. Where two findings have become one, it has the id that is older, and the other one means it as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trailsift.detect.correlate import finding_id
from trailsift.detect.finding import Finding
from trailsift.errors import LakeError
from trailsift.storage import Location, open_storage, update

_FILE = "findings/ids.json"
#: Findings whose ids are remembered, the newest.
KEPT = 10_000


@dataclass
class Name:
    """One id, and what it was given to: roles, and first and last time."""

    id: str
    roles: list[str | None]
    first: int
    last: int


def named(lake: Location, found: Sequence[Finding], *, remember: bool = True) -> list[Finding]:
    """Findings with the ids under which they were told before; new ones are remembered, unless that is not wanted.

    In a lake that cannot be written, ids are those of before as well, and new ones are not remembered. LakeError
    where the file of ids is damaged.
    """
    storage = open_storage(lake)
    out: list[Finding] | None = None

    def give_ids(data: bytes | None) -> bytes | None:
        nonlocal out
        known = _parse(data, storage.describe(_FILE))
        out, names = give(found, known)
        return _text(names[-KEPT:]) if remember and names != known else None

    try:
        # Of two runs at the same time, the later one gives ids again, and sees those of the other.
        update(storage, _FILE, give_ids)
    except OSError as error:
        if out is None:
            raise LakeError(f"cannot read {storage.describe(_FILE)}: {error}") from error
    assert out is not None
    return out


def give(found: Sequence[Finding], known: Sequence[Name]) -> tuple[list[Finding], list[Name]]:
    """The findings with their ids, and all names after that: older ones keep their place."""
    by_role: dict[str | None, list[int]] = {}
    for place, one in enumerate(found):
        for role in one.role_arns or (one.role_arn,):
            by_role.setdefault(role, []).append(place)
    fits = []
    for age, name in enumerate(known):
        places = {place for role in name.roles for place in by_role.get(role, ())}
        near = [place for place in places if _overlap(name, found[place]) >= 0]
        same = [place for place in near if _same(name, found[place])]
        if near:
            fits.append((not same, len(near), age, same or near))
    own: dict[int, list[int]] = {}
    # What has not changed, then names with little choice: of a finding that became two, each gets what was its own.
    for _, _, age, choice in sorted(fits):
        best = max(choice, key=lambda place: (place not in own, *_nearness(known[age], found[place]), -place))
        own.setdefault(best, []).append(age)
    names = list(known)
    for place, ages in own.items():
        names[min(ages)] = _grown(known[min(ages)], found[place])
    taken = {name.id for name in names}
    out = []
    for place, one in enumerate(found):
        first, *also = [known[age].id for age in sorted(own.get(place, ()))] or [_free(one, taken)]
        taken.add(first)
        if place not in own:
            names.append(_grown(Name(first, [], one.span[0], one.span[1]), one))
        out.append(replace(one, id=first, also=tuple(also)))
    return out, names


def _grown(name: Name, one: Finding) -> Name:
    return Name(name.id, list(one.role_arns or (one.role_arn,)), one.span[0], one.span[1])


def _overlap(name: Name, one: Finding) -> int:
    """Microseconds that both last; negative: between them."""
    return min(name.last, one.span[1]) - max(name.first, one.span[0])


def _same(name: Name, one: Finding) -> bool:
    return (name.first, name.last) == one.span and set(name.roles) == set(one.role_arns)


def _nearness(name: Name, one: Finding) -> tuple[int, int]:
    return len(set(name.roles) & set(one.role_arns)), _overlap(name, one)


def _free(one: Finding, taken: set[str]) -> str:
    found, number = one.id, 0
    while found in taken:
        number += 1
        found = finding_id(one.role_arn, one.span[0], str(number))
    return found


def _parse(data: bytes | None, path: str) -> list[Name]:
    try:
        given: list[list[Any]] = json.loads(data) if data is not None else []
        return [Name(str(name), list(roles), int(first), int(last)) for name, roles, first, last in given]
    except (ValueError, TypeError) as error:
        raise LakeError(f"{path} is damaged: {error}; delete it, and findings get ids anew") from error


def _text(names: Sequence[Name]) -> bytes:
    return json.dumps([[name.id, name.roles, name.first, name.last] for name in names]).encode()
