"""Signals that belong together become one finding; findings are ranked and kept to a budget.

Signals of one role within hours of each other are one happening. Happenings of several roles are one as well where
the roles came from the same place within hours, one that hardly anybody came from before, or where strong detections
name the same resource within hours.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from trailsift.detect.finding import DRIPS, Finding, Link, Signal
from trailsift.times import DAY, HOUR

#: Findings with less are not told.
LEAST = 0.4
#: Findings of one day (UTC) that are told at most.
BUDGET = 10

_APART = 3 * HOUR  # signals further apart than this are two happenings
_LONGEST = 2 * DAY
_LONGEST_OF_ALL = 3 * DAY  # of several roles
_HALF = 3.0  # decades that make a score of 0.5
_LESS = 0.5  # each further signal of a happening counts so much less than the one before
_COMPANY, _COMPANY_MOST = 0.5, 3  # decades that each further role from the same place adds; so many roles count
_GRAVE = 5.0  # decades of a detection that ties roles together by what they touch


def join(
    signals: Iterable[Signal], least: float = LEAST, budget: int = BUDGET, links: Iterable[Link] = ()
) -> list[Finding]:
    """Findings of signals, the strongest first. ``budget``: at most so many of each day; 0 for all."""
    found = [_finding(happening) for happening in happenings(signals, links)]
    return budgeted(ranked(one for one in found if one.score >= least), budget)


def ranked(found: Iterable[Finding]) -> list[Finding]:
    """The strongest first."""
    return sorted(found, key=lambda one: (-one.score, one.first_time, one.id))


@dataclass
class Happening:
    """Signals that belong together, and the links of its roles."""

    signals: list[Signal]
    links: list[Link] = field(default_factory=list)

    @property
    def begin(self) -> int:
        """First time of its signals."""
        return min(signal.first_time for signal in self.signals)

    @property
    def end(self) -> int:
        """Last time of its signals."""
        return max(signal.last_time for signal in self.signals)

    @property
    def score(self) -> float:
        """0 to 1."""
        return _finding(self).score


def happenings(signals: Iterable[Signal], links: Iterable[Link] = ()) -> list[Happening]:
    """Signals by what they belong to, with those links that tie roles together."""
    of_role: dict[str | None, list[Signal]] = defaultdict(list)
    for signal in sorted(signals, key=_in_time):
        of_role[signal.role_arn].append(signal)
    groups = {role: [Happening(group) for group in _happened(of_role[role])] for role in sorted(of_role, key=str)}
    everything = [one for own in groups.values() for one in own]
    ties = sorted([*_by_place(groups, links), *_by_resource(everything)], key=lambda tie: tie.first_time)
    return _tied(everything, ties)


def _happened(signals: Sequence[Signal]) -> list[list[Signal]]:
    """Signals of one role: those within hours together, and a drip with what it is made of."""
    out = _groups([signal for signal in signals if signal.kind not in DRIPS])
    for drip in (signal for signal in signals if signal.kind in DRIPS):
        parts = [group for group in out if any(_part_of(signal, drip) for signal in group)]
        out = [group for group in out if group not in parts]
        out.append(sorted([*(signal for group in parts for signal in group), drip], key=_in_time))
    return sorted(out, key=lambda group: _in_time(group[0]))


def _part_of(signal: Signal, drip: Signal) -> bool:
    """Whether a signal is about a drip in the days before it was known as one; two at a time are one."""
    if signal.first_time > drip.last_time or signal.last_time < drip.first_time:
        return False
    same_call = signal.event_name == drip.event_name and signal.resource_arn is None
    return signal.kind in DRIPS or same_call or signal.resource_arn == drip.resource_arn


def _groups(signals: Sequence[Signal]) -> list[list[Signal]]:
    out: list[list[Signal]] = []
    end = 0
    for signal in signals:
        if out and signal.first_time <= end + _APART and signal.first_time - out[-1][0].first_time < _LONGEST:
            out[-1].append(signal)
            end = max(end, signal.last_time)
        else:
            out.append([signal])
            end = signal.last_time
    return out


def _in_time(signal: Signal) -> tuple[int, str, str, str]:
    return signal.first_time, signal.kind, signal.value, str(signal.event_name)


@dataclass
class _Tie:
    first_time: int
    happenings: list[Happening]
    links: list[Link] = field(default_factory=list)


def _by_place(groups: dict[str | None, list[Happening]], links: Iterable[Link]) -> Iterator[_Tie]:
    of_value: dict[str, list[Link]] = defaultdict(list)
    for link in links:
        of_value[link.value].append(link)
    for own in of_value.values():
        for near in _near(sorted(own, key=lambda link: (link.first_time, str(link.role_arn)))):
            if len({link.role_arn for link in near}) < 2:
                continue
            touched = [
                one
                for link in near
                for one in groups.get(link.role_arn, ())
                if one.begin <= link.last_time + _APART and one.end >= link.first_time - _APART
            ]
            if touched:
                yield _Tie(near[0].first_time, touched, near)


def _near(links: Sequence[Link]) -> Iterator[list[Link]]:
    group: list[Link] = []
    end = 0
    for link in links:
        if group and (link.first_time > end + _APART or link.first_time - group[0].first_time >= _LONGEST):
            yield group
            group = []
        end = max(end, link.last_time) if group else link.last_time
        group.append(link)
    if group:
        yield group


def _by_resource(everything: Sequence[Happening]) -> Iterator[_Tie]:
    grave: dict[str, list[tuple[Signal, Happening]]] = defaultdict(list)
    for one in everything:
        for signal in one.signals:
            if signal.kind == "detection" and signal.decades >= _GRAVE and signal.resource_arn:
                grave[signal.resource_arn].append((signal, one))
    for found in grave.values():
        found.sort(key=lambda pair: _in_time(pair[0]))
        for (before, one), (after, other) in pairwise(found):
            if one is not other and after.first_time <= before.last_time + _APART:
                yield _Tie(after.first_time, [one, other])


def _tied(everything: Sequence[Happening], ties: Iterable[_Tie]) -> list[Happening]:
    """Happenings with those that ties hold together made one, none of them longer than some days."""
    part_of = {id(one): one for one in everything}

    def whole(one: Happening) -> Happening:
        while part_of[id(one)] is not one:
            one = part_of[id(one)]
        return one

    for tie in ties:
        # What is longer than a happening of several roles may be (a drip) keeps the others from nothing.
        first, *others = sorted(tie.happenings, key=lambda one: one.end - one.begin > _LONGEST_OF_ALL)
        kept = whole(first)
        for part in others:
            other = whole(part)
            if other is kept or max(kept.end, other.end) - min(kept.begin, other.begin) > _LONGEST_OF_ALL:
                continue
            kept.signals += other.signals
            kept.links += other.links
            part_of[id(other)] = kept
        kept.links += tie.links
    return [one for one in everything if part_of[id(one)] is one]


def _finding(happening: Happening) -> Finding:
    of_role: dict[str | None, list[Signal]] = defaultdict(list)
    for signal in sorted(happening.signals, key=lambda one: (-one.decades, one.kind, one.value, str(one.event_name))):
        of_role[signal.role_arn].append(signal)
    roles = sorted(of_role, key=lambda role: (-_strength(of_role[role]), str(role)))
    # The leading role's signals come first: they name the finding.
    order = [signal for role in roles for signal in of_role[role]]
    company = list(dict.fromkeys(link.role_arn for link in happening.links if link.role_arn not in of_role))
    spans = [_span(of_role[role]) for role in roles]
    spans += [(link.first_time, link.last_time) for link in happening.links if link.role_arn in company]
    places = len({link.role_arn for link in happening.links})
    strength = _strength(happening.signals) + _COMPANY * min(_COMPANY_MOST, max(0, places - 1))
    return Finding(
        finding_id(roles[0], happening.begin),
        roles[0],
        strength / (strength + _HALF),
        min(first for first, _ in spans),
        max(last for _, last in spans),
        tuple(order),
        role_arns=(*roles, *company),
        span=(happening.begin, happening.end),
    )


def score(signals: Sequence[Signal]) -> float:
    """The score of a finding of these signals alone."""
    return _strength(signals) / (_strength(signals) + _HALF)


def _strength(signals: Sequence[Signal]) -> float:
    """Decades of the strongest signal of each kind, each further one counting less."""
    best: dict[tuple[str, str | None], float] = {}
    for signal in signals:
        # Bytes and calls of a drip are the same twice.
        key = ("drip" if signal.kind in DRIPS else signal.kind, signal.rule)
        best[key] = max(signal.decades, best.get(key, 0.0))
    return sum(decades * _LESS**place for place, decades in enumerate(sorted(best.values(), reverse=True)))


def _span(signals: Sequence[Signal]) -> tuple[int, int]:
    """The time of what matters of one role; firsts and detections know theirs to the second."""
    bad = [signal for signal in signals if signal.kind == "detection"]
    exact = [
        signal
        for signal in signals
        if signal.kind in DRIPS or (signal.kind.startswith("first_") and signal.kind != "first_hour")
    ]
    others = exact or ([] if bad else list(signals))
    strong = bad + [signal for signal in others if signal.decades >= 0.3 * others[0].decades]
    last = max(max(signal.last_time, signal.goes_on or 0) for signal in strong)
    return min(signal.first_time for signal in strong), last


def finding_id(role_arn: str | None, first_time: int, more: str = "") -> str:
    """The id of what a role began in an hour, as long as nobody was told of it under another one (``names``)."""
    text = "\0".join([str(role_arn), str(first_time // HOUR), more])
    return "f" + hashlib.sha256(text.encode()).hexdigest()[:9]


def budgeted(found: Sequence[Finding], budget: int) -> list[Finding]:
    """The first ``budget`` findings of each day (UTC); 0 for all."""
    if not budget:
        return list(found)
    told: dict[int, int] = defaultdict(int)
    out = []
    for one in found:
        told[one.first_time // DAY] += 1
        if told[one.first_time // DAY] <= budget:
            out.append(one)
    return out
