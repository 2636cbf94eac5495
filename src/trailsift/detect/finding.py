"""Signals and findings: what the levels give, and what a person gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trailsift.analysis.period import iso


class Signal(NamedTuple):
    """One unusual thing about one role.

    ``kind`` is a key of KINDS; ``decades`` says how rare it is (2 is once in a hundred days like this one). ``value``
    is what is new or what grew, ``events`` how many calls it is, ``usual`` what was to be expected of them, None where
    nothing was. Times are microseconds since 1970. ``parts``, of the kind ``unlike_itself``: feature, how much it was,
    how much is usual, and its part (0 to 1) in the whole.
    """

    kind: str
    role_arn: str | None
    decades: float
    first_time: int
    last_time: int
    value: str
    events: int
    usual: float | None = None
    event_name: str | None = None
    resource_arn: str | None = None
    parts: tuple[tuple[str, float, float, float], ...] = ()


#: Kinds of signals -> MITRE ATT&CK technique (Enterprise, cloud), None where the kind alone says too little.
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
}

#: Level of each kind, for `evaluate` with one level off.
LEVELS: dict[str, str] = {
    kind: "detections"
    if kind == "detection"
    else "learned"
    if kind == "unlike_itself"
    else "novel"
    if kind.startswith("first_") and kind != "first_hour"
    else "shapes"
    if kind in ("more_denied", "many_resources", "more_deletes", "first_hour")
    else "volume"
    for kind in KINDS
}

#: Calls that hand out content; other calls that read tell what there is.
_READS = ("GetObject", "GetItem", "BatchGetItem", "Scan", "Query", "Select", "GetRecords")

_SEVERITIES = ((0.75, "high"), (0.6, "medium"))


@dataclass(frozen=True)
class Finding:
    """One happening: the signals of one role that belong together, the strongest first."""

    id: str
    role_arn: str | None
    score: float
    first_time: int
    last_time: int
    signals: tuple[Signal, ...]
    title: str = ""
    reasons: tuple[str, ...] = field(default=())
    mitre: tuple[str, ...] = field(default=())

    @property
    def severity(self) -> str:
        """``high``, ``medium`` or ``low``."""
        return next((name for least, name in _SEVERITIES if self.score >= least), "low")

    @property
    def event_names(self) -> list[str]:
        """The calls that stand out, the strongest first."""
        return list(dict.fromkeys(s.event_name for s in self.signals if s.event_name))

    @property
    def resource_arn(self) -> str | None:
        """The resource that stands out most."""
        return next((s.resource_arn for s in self.signals if s.resource_arn), None)

    @property
    def techniques(self) -> list[str]:
        """MITRE ATT&CK techniques that fit, without repetition."""
        return list(dict.fromkeys([*self.mitre, *(t for s in self.signals if (t := _technique(s)))]))

    @property
    def condition(self) -> str:
        """An SQL condition on ``events``: the events behind the finding."""
        role = "role_arn IS NULL" if self.role_arn is None else f"role_arn = {_text(self.role_arn)}"
        # A detection names one of its calls only, as an example, and so does an odd hour.
        whole = any(signal.kind in ("detection", "unlike_itself") for signal in self.signals)
        names = "" if whole else ", ".join(_text(name) for name in self.event_names)
        also = f" AND event_name IN ({names})" if names else ""
        return (
            f"event_time BETWEEN TIMESTAMPTZ '{iso(self.first_time)}' AND TIMESTAMPTZ '{iso(self.last_time)}'"
            f" AND {role}{also}"
        )

    @property
    def query(self) -> str:
        """SQL that shows the events behind the finding."""
        return (
            "SELECT event_time, event_name, resource_arn, object_key, source_ip, user_agent, error_code, bytes_out, "
            f"event_id FROM events WHERE {self.condition} ORDER BY event_time"
        )

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "id": self.id,
            "title": self.title,
            "role_arn": self.role_arn,
            "event_names": self.event_names,
            "resource_arn": self.resource_arn,
            "first_time": iso(self.first_time),
            "last_time": iso(self.last_time),
            "score": round(self.score, 4),
            "severity": self.severity,
            "techniques": self.techniques,
            "reasons": list(self.reasons),
            "query": self.query,
        }


def _technique(signal: Signal) -> str | None:
    if signal.kind == "more_reads" and not (signal.event_name or "").startswith(_READS):
        return "T1619"
    return KINDS[signal.kind]


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
