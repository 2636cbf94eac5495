"""Signals, which the levels produce, and findings, which people see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trailsift.detect.callers import condition_of, role_of
from trailsift.detect.techniques import TECHNIQUES
from trailsift.query.relations import text
from trailsift.safe_text import safe
from trailsift.times import iso


class Signal(NamedTuple):
    """One unusual observation about one caller.

    ``kind`` is a key of KINDS. ``rarity``: log10 of how rare it is (2 is once in a hundred days like this one).
    ``value`` is what is new or what grew, ``events`` the number of calls, ``usual`` the expected number or None. Times
    are microseconds since 1970. For a detection, ``value`` is its title, ``value_ko`` the Korean one, ``rule`` its id,
    and ``goes_on`` the last time of what continued after ``last_time``. ``parts``: for the kind ``unlike_itself``, per
    feature (name, amount, expected amount, share of the whole from 0 to 1); for a low-and-slow kind, one row ("over",
    excess, days, days above expectation); for ``burst`` and ``unlike_peers``, per measure (name as in ``FEATURES``,
    amount, usual amount, callers compared with), the first also in ``events`` and ``usual``; for ``split_session``, per
    place (network and client, calls, 0, 0), the usual place first; for a detection, per kind of call (name, calls, 0,
    0), those with most first; for ``newcomer``, one row (network, calls, 0, 0).

    ``past`` is the number of days with events that were known of the caller before; None if that does not matter.
    ``basis`` is what ``usual`` and ``rarity`` rest on, one of BASES.
    """

    kind: str
    caller: str | None
    rarity: float
    first_time: int
    last_time: int
    value: str
    events: int
    usual: float | None = None
    event_name: str | None = None
    resource_arn: str | None = None
    value_ko: str | None = None
    rule: str | None = None
    mitre: tuple[str, ...] = ()
    goes_on: int | None = None
    parts: tuple[tuple[str, float, float, float], ...] = ()
    past: int | None = None
    basis: str = "own"


#: What a signal is compared with: the caller's own past, other callers of its kind, the rest of the same day, or what
#: is typical of such a caller anywhere (``priors``).
BASES = ("own", "peers", "day", "prior")


class Link(NamedTuple):
    """A caller came from an origin (network, endpoint) that hardly any caller came from before."""

    caller: str | None
    value: str
    first_time: int
    last_time: int


#: Kind of signal -> MITRE ATT&CK technique (Enterprise, cloud); None if the kind alone says too little.
KINDS: dict[str, str | None] = {
    "first_service": None,
    "first_action": None,
    "first_resource": None,
    "first_pattern": None,
    "first_network": "T1078.004",
    "first_agent": None,
    "first_endpoint": "T1078.004",
    "first_account": "T1078.004",
    "first_hour": "T1078.004",
    "more_calls": None,
    "more_reads": "T1530",
    "more_deletes": "T1485",
    "more_bytes": "T1530",
    "more_denied": "T1580",
    "many_resources": "T1619",
    "over_threshold": None,
    "detection": None,
    "unlike_itself": "T1078.004",
    "drip_bytes": "T1530",
    "drip_reads": "T1530",
    "burst": None,
    "unlike_peers": None,
    "split_session": "T1078.004",
    "newcomer": "T1530",
}

#: Kinds that last for days: such a signal is reported from its ``last_time`` on, and lasts until ``goes_on``.
LOW_AND_SLOW = ("drip_bytes", "drip_reads")

#: Level of each kind: `--levels`, and `evaluate` with one level left out.
LEVELS: dict[str, str] = {
    kind: "detections"
    if kind == "detection"
    else "learned"
    if kind == "unlike_itself"
    else "novel"
    if kind.startswith("first_") and kind != "first_hour"
    else "shapes"
    if kind in ("more_denied", "many_resources", "more_deletes", "first_hour", *LOW_AND_SLOW)
    else "peers"
    if kind in ("burst", "unlike_peers", "split_session", "newcomer")
    else "volume"
    for kind in KINDS
}

#: Kinds that name one call as an example, or none.
_OF_ALL_CALLS = ("detection", "unlike_itself", "burst", "unlike_peers", "split_session", "newcomer")

#: Calls that return content; other reads list what exists.
CONTENT_READS = ("GetObject", "GetItem", "BatchGetItem", "Scan", "Query", "Select", "GetRecords")

#: Kinds that are more informative than their rarity suggests come first.
_PROMINENCE = {"first_network": 1.6, "first_service": 1.6, "first_account": 1.6, "first_hour": 1.6, "first_action": 1.3}

#: Least score of each severity, the highest first; what is below all is low.
SEVERITIES = ((0.75, "high"), (0.6, "medium"))


@dataclass(frozen=True)
class Finding:
    """Signals that belong together, the strongest first.

    ``caller`` is the leading caller, ``callers`` all of them, the leading one first. ``span`` is the time of the
    signals, without what continued afterwards. ``also``: ids of findings that were merged into this one. ``title`` is
    the first line of a note, of which ``who`` and ``what`` are parts.
    """

    id: str
    caller: str | None
    score: float
    first_time: int
    last_time: int
    signals: tuple[Signal, ...]
    title: str = ""
    reasons: tuple[str, ...] = field(default=())
    callers: tuple[str | None, ...] = field(default=())
    span: tuple[int, int] = (0, 0)
    also: tuple[str, ...] = field(default=())
    who: str = ""
    what: str = ""

    def __str__(self) -> str:
        """Return one line: severity, id and title."""
        return safe(f"{self.severity} {self.id} {self.title}")

    @property
    def severity(self) -> str:
        """``high``, ``medium`` or ``low``."""
        return next((name for least, name in SEVERITIES if self.score >= least), "low")

    @property
    def leading_signals(self) -> list[Signal]:
        """The best signal of each kind and detection, the one that names the finding first."""
        best: dict[str, Signal] = {}
        for signal in self.signals:
            best.setdefault(signal.rule or signal.kind, signal)
        return sorted(best.values(), key=lambda signal: -signal.rarity * _PROMINENCE.get(signal.kind, 1.0))

    @property
    def event_names(self) -> list[str]:
        """The calls of its signals, the strongest first."""
        return list(dict.fromkeys(name for signal in self.signals for name in calls_of(signal)))

    @property
    def resource_arn(self) -> str | None:
        """The resource of the strongest signal that has one."""
        return next((s.resource_arn for s in self.signals if s.resource_arn), None)

    @property
    def rules(self) -> list[str]:
        """Ids of the detections among its signals, the strongest first."""
        return list(dict.fromkeys(signal.rule for signal in self.signals if signal.rule))

    @property
    def techniques(self) -> list[str]:
        """MITRE ATT&CK techniques, without repetition."""
        own = [technique for signal in self.signals for technique in signal.mitre]
        return list(dict.fromkeys([*own, *(t for s in self.signals if (t := _technique(s)))]))

    @property
    def role_arn(self) -> str | None:
        """The leading caller if it is an ARN, or the name of a service; None if it is neither."""
        return role_of(self.caller)

    @property
    def role_arns(self) -> tuple[str | None, ...]:
        """``role_arn`` of each caller."""
        return tuple(map(role_of, self.callers or (self.caller,)))

    @property
    def by_callers(self) -> str:
        """SQL condition for the callers of the finding."""
        return condition_of(self.callers or (self.caller,))

    @property
    def condition(self) -> str:
        """SQL condition on ``events`` for the events behind the finding."""
        # A detection or an outlier names only one of its calls, as an example; of a caller without signals, no call is
        # known.
        silent = len({signal.caller for signal in self.signals}) < len(self.callers)
        all_calls = silent or any(signal.kind in _OF_ALL_CALLS for signal in self.signals)
        names = "" if all_calls else ", ".join(text(name) for name in self.event_names)
        calls = f" AND event_name IN ({names})" if names else ""
        slow = [signal for signal in self.signals if signal.kind in LOW_AND_SLOW]
        if slow and slow[0] is self.signals[0] and not silent:
            # Whole days of a caller are too much: only the calls and resources of the low-and-slow signals.
            parts = [sorted({text(str(value)) for value in column}) for column in zip(*map(_call, slow), strict=True)]
            calls = " AND event_name IN ({}) AND resource_arn IN ({})".format(*map(", ".join, parts))
        return (
            f"event_time BETWEEN TIMESTAMPTZ '{iso(self.first_time)}' AND TIMESTAMPTZ '{iso(self.last_time)}'"
            f" AND {condition_of(self.callers or (self.caller,), addresses=True)}{calls}"
        )

    @property
    def query(self) -> str:
        """SQL query for the events behind the finding."""
        return (
            "SELECT event_time, event_name, resource_arn, object_key, source_ip, user_agent, error_code, bytes_out, "
            f"event_id FROM events WHERE {self.condition} ORDER BY event_time"
        )

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "id": self.id,
            "title": self.title,
            "who": self.who,
            "what": self.what,
            "caller": self.caller,
            "callers": list(self.callers or (self.caller,)),
            "role_arn": self.role_arn,
            "role_arns": list(self.role_arns),
            "event_names": self.event_names,
            "resource_arn": self.resource_arn,
            "first_time": iso(self.first_time),
            "last_time": iso(self.last_time),
            "score": round(self.score, 4),
            "severity": self.severity,
            "techniques": self.techniques,
            "rules": self.rules,
            "technique_names": {name: TECHNIQUES[name] for name in self.techniques if name in TECHNIQUES},
            "reasons": list(self.reasons),
            "query": self.query,
        }


def calls_of(signal: Signal) -> list[str]:
    """Return the calls that a signal names: that of the example, then others of a detection."""
    others = [name for name, *_ in signal.parts] if signal.kind == "detection" else []
    return list(dict.fromkeys([*([signal.event_name] if signal.event_name else []), *others]))


def _call(signal: Signal) -> tuple[str | None, str | None]:
    return signal.event_name, signal.resource_arn


#: What a burst of each measure is a sign of.
_OF_MEASURE = {"keys": "T1530", "bytes_out": "T1530", "kinds": "T1580", "refused": "T1580", "resources": "T1619",
    "deletes": "T1485"}  # fmt: skip


def _technique(signal: Signal) -> str | None:
    if signal.kind == "more_reads" and not (signal.event_name or "").startswith(CONTENT_READS):
        return "T1619"
    if signal.kind in ("burst", "unlike_peers") and signal.parts:
        return _OF_MEASURE.get(signal.parts[0][0])
    return KINDS[signal.kind]
