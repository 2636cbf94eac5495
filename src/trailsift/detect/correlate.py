"""Correlate signals into findings, rank the findings and apply the daily budget.

Signals of one caller within hours of each other form one group. Groups of several callers are merged if the callers
came from the same rare origin within hours, if they belong to one other account, or if severe detections name the same
resource within hours. Supporting signals join a group that is there without them: they strengthen it, and change
neither its time nor its id.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from trailsift.detect.finding import LOW_AND_SLOW, Finding, Link, Signal
from trailsift.times import DAY, HOUR

#: Findings with a lower score are not reported.
MIN_SCORE = 0.4
#: Maximum number of findings reported per day (UTC).
DAILY_BUDGET = 10

_APART = 3 * HOUR  # signals further apart than this are two groups
_LONGEST = 2 * DAY
_LONGEST_MERGED = 3 * DAY  # of several callers
_HALF = 3.0  # rarity that makes a score of 0.5
_DISCOUNT = 0.5  # each further signal of a group counts less than the one before by this factor
_COMPANY, _COMPANY_MOST = 0.5, 3  # rarity that each further caller from the same origin adds, and how many count
_SEVERE = 5.0  # rarity of a detection that merges callers by the resource
#: Rarity up to which a detection only strengthens other evidence, however many there are.
SUPPORTING = 0.6
_SUPPORT_MOST = 0.5  # of the strength that a group has by itself


def correlate_signals(
    signals: Iterable[Signal], least: float = MIN_SCORE, budget: int = DAILY_BUDGET, links: Iterable[Link] = ()
) -> list[Finding]:
    """Return the findings of signals, strongest first. ``budget``: maximum per day; 0 for all."""
    findings = [_finding(group) for group in group_signals(signals, links)]
    return apply_budget(rank_findings(finding for finding in findings if finding.score >= least), budget)


def rank_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, strongest first."""
    return sorted(findings, key=lambda finding: (-finding.score, finding.first_time, finding.id))


@dataclass
class SignalGroup:
    """Signals that belong together, the links of their callers, and the supporting signals."""

    signals: list[Signal]
    links: list[Link] = field(default_factory=list)
    support: list[Signal] = field(default_factory=list)

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
        """Score of its finding, 0 to 1."""
        return _finding(self).score


def group_signals(signals: Iterable[Signal], links: Iterable[Link] = ()) -> list[SignalGroup]:
    """Group signals that belong together, with the links that merge callers."""
    of_caller: dict[str | None, list[Signal]] = defaultdict(list)
    support: dict[str | None, list[Signal]] = defaultdict(list)
    for signal in sorted(signals, key=_in_time):
        (support if is_supporting(signal) else of_caller)[signal.caller].append(signal)
    groups = {
        caller: [SignalGroup(part) for part in _split(of_caller[caller])] for caller in sorted(of_caller, key=str)
    }
    for caller, own in groups.items():
        _add_support(own, support[caller])
    all_groups = [group for own in groups.values() for group in own]
    found = [*_by_origin(groups, links), *_by_resource(all_groups), *_by_account(groups)]
    ties = sorted(found, key=lambda tie: tie.first_time)
    return _merged(all_groups, ties)


def is_supporting(signal: Signal) -> bool:
    """Return whether a signal only strengthens other evidence: alone, or with its like, it is not a finding."""
    return signal.kind == "detection" and signal.rarity <= SUPPORTING


def _add_support(groups: Sequence[SignalGroup], support: Iterable[Signal]) -> None:
    """Add each supporting signal of one caller to the first group that it is near to, if there is one."""
    for signal in support:
        for group in groups:
            if signal.first_time <= group.end + _APART and signal.last_time >= group.begin - _APART:
                group.support.append(signal)
                break


def _split(signals: Sequence[Signal]) -> list[list[Signal]]:
    """Split the signals of one caller by time; a low-and-slow signal absorbs the groups it explains."""
    out = _split_by_time([signal for signal in signals if signal.kind not in LOW_AND_SLOW])
    for slow in (signal for signal in signals if signal.kind in LOW_AND_SLOW):
        parts = [group for group in out if any(_part_of(signal, slow) for signal in group)]
        out = [group for group in out if group not in parts]
        out.append(sorted([*(signal for group in parts for signal in group), slow], key=_in_time))
    return sorted(out, key=lambda group: _in_time(group[0]))


def _part_of(signal: Signal, slow: Signal) -> bool:
    """Return whether a signal is an early sign of a low-and-slow one; two of these at a time are one."""
    if signal.first_time > slow.last_time or signal.last_time < slow.first_time:
        return False
    same_call = signal.event_name == slow.event_name and signal.resource_arn is None
    return signal.kind in LOW_AND_SLOW or same_call or signal.resource_arn == slow.resource_arn


def _split_by_time(signals: Sequence[Signal]) -> list[list[Signal]]:
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
    # A detection is ordered by its id, not its title: wording must not change findings.
    return signal.first_time, signal.kind, signal.rule or signal.value, str(signal.event_name)


@dataclass
class _Tie:
    first_time: int
    groups: list[SignalGroup]
    links: list[Link] = field(default_factory=list)


def _by_origin(groups: dict[str | None, list[SignalGroup]], links: Iterable[Link]) -> Iterator[_Tie]:
    of_value: dict[str, list[Link]] = defaultdict(list)
    for link in links:
        of_value[link.value].append(link)
    for same_origin in of_value.values():
        for near in _near(sorted(same_origin, key=lambda link: (link.first_time, str(link.caller)))):
            if len({link.caller for link in near}) < 2:
                continue
            touched = [
                group
                for link in near
                for group in groups.get(link.caller, ())
                if group.begin <= link.last_time + _APART and group.end >= link.first_time - _APART
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


def _by_resource(groups: Sequence[SignalGroup]) -> Iterator[_Tie]:
    severe: dict[str, list[tuple[Signal, SignalGroup]]] = defaultdict(list)
    for group in groups:
        for signal in group.signals:
            if signal.kind == "detection" and signal.rarity >= _SEVERE and signal.resource_arn:
                severe[signal.resource_arn].append((signal, group))
    for pairs in severe.values():
        pairs.sort(key=lambda pair: _in_time(pair[0]))
        for (before, group), (after, other) in pairwise(pairs):
            if group is not other and after.first_time <= before.last_time + _APART:
                yield _Tie(after.first_time, [group, other])


def _by_account(groups: Mapping[str | None, Sequence[SignalGroup]]) -> Iterator[_Tie]:
    """Yield ties between the principals of one other account: they are one stranger, or one partner."""
    of_account: dict[str, list[SignalGroup]] = defaultdict(list)
    for caller, own in groups.items():
        if caller is not None and caller.startswith("account:"):
            of_account[caller.partition("/")[0]] += own
    for same_account in of_account.values():
        same_account.sort(key=lambda group: group.begin)
        for before, after in pairwise(same_account):
            if after.begin <= before.begin + _LONGEST:
                yield _Tie(after.begin, [before, after])


def _merged(groups: Sequence[SignalGroup], ties: Iterable[_Tie]) -> list[SignalGroup]:
    """Merge the groups that ties connect; no merged group lasts longer than a few days."""
    merged_into = {id(group): group for group in groups}

    def root(group: SignalGroup) -> SignalGroup:
        while merged_into[id(group)] is not group:
            group = merged_into[id(group)]
        return group

    for tie in ties:
        # Groups that are already too long (low-and-slow) come last, so that they do not prevent others from merging.
        first, *others = sorted(tie.groups, key=lambda group: group.end - group.begin > _LONGEST_MERGED)
        kept = root(first)
        for part in others:
            other = root(part)
            if other is kept or max(kept.end, other.end) - min(kept.begin, other.begin) > _LONGEST_MERGED:
                continue
            kept.signals += other.signals
            kept.support += other.support
            kept.links += other.links
            merged_into[id(other)] = kept
        kept.links += tie.links
    return [group for group in groups if merged_into[id(group)] is group]


def _finding(group: SignalGroup) -> Finding:
    of_caller: dict[str | None, list[Signal]] = defaultdict(list)
    for signal in sorted(group.signals, key=lambda s: (-s.rarity, s.kind, s.rule or s.value, str(s.event_name))):
        of_caller[signal.caller].append(signal)
    callers = sorted(of_caller, key=lambda caller: (-_strength(of_caller[caller]), str(caller)))
    # The leading caller's signals come first: they name the finding.
    order = [signal for caller in callers for signal in of_caller[caller]]
    company = list(dict.fromkeys(link.caller for link in group.links if link.caller not in of_caller))
    spans = [_span(of_caller[caller]) for caller in callers]
    spans += [(link.first_time, link.last_time) for link in group.links if link.caller in company]
    linked = len({link.caller for link in group.links})
    strength = _strength([*group.signals, *group.support]) + _COMPANY * min(_COMPANY_MOST, max(0, linked - 1))
    return Finding(
        finding_id(callers[0], group.begin),
        callers[0],
        strength / (strength + _HALF),
        min(first for first, _ in spans),
        max(last for _, last in spans),
        (*order, *sorted(group.support, key=lambda s: (-s.rarity, *_in_time(s)))),
        callers=(*callers, *company),
        span=(group.begin, group.end),
    )


def score(signals: Sequence[Signal]) -> float:
    """Return the score of a finding of these signals alone."""
    return _strength(signals) / (_strength(signals) + _HALF)


def _strength(signals: Sequence[Signal]) -> float:
    """Return the rarity of the strongest signal of each kind, summed; each further one counts less.

    Supporting signals add a share of what there is without them, at most.
    """
    own = _sum([signal for signal in signals if not is_supporting(signal)])
    return own + min(_sum(list(filter(is_supporting, signals))), _SUPPORT_MOST * own)


def _sum(signals: Sequence[Signal]) -> float:
    best: dict[tuple[str, str | None], float] = {}
    for signal in signals:
        # Bytes and calls of a low-and-slow run are the same thing twice.
        key = ("drip" if signal.kind in LOW_AND_SLOW else signal.kind, signal.rule)
        best[key] = max(signal.rarity, best.get(key, 0.0))
    return sum(rarity * _DISCOUNT**place for place, rarity in enumerate(sorted(best.values(), reverse=True)))


def _span(signals: Sequence[Signal]) -> tuple[int, int]:
    """Return the time of the relevant signals of one caller; firsts and detections know theirs to the second."""
    bad = [signal for signal in signals if signal.kind == "detection"]
    exact = [
        signal
        for signal in signals
        if signal.kind in LOW_AND_SLOW or (signal.kind.startswith("first_") and signal.kind != "first_hour")
    ]
    others = exact or ([] if bad else list(signals))
    strong = bad + [signal for signal in others if signal.rarity >= 0.3 * others[0].rarity]
    last = max(max(signal.last_time, signal.goes_on or 0) for signal in strong)
    return min(signal.first_time for signal in strong), last


def finding_id(caller: str | None, first_time: int, more: str = "") -> str:
    """Return the id of what a caller began in an hour, unless it was reported under another (``finding_ids``)."""
    text = "\0".join([str(caller), str(first_time // HOUR), more])
    return "f" + hashlib.sha256(text.encode()).hexdigest()[:9]


def apply_budget(findings: Sequence[Finding], budget: int) -> list[Finding]:
    """Return the first ``budget`` findings of each day (UTC); 0 for all."""
    if not budget:
        return list(findings)
    count: dict[int, int] = defaultdict(int)
    out = []
    for finding in findings:
        count[finding.first_time // DAY] += 1
        if count[finding.first_time // DAY] <= budget:
            out.append(finding)
    return out
