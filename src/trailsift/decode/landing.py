"""The landing form: the lines that the transformation in a stream writes, and that ``ingest`` reads from landing files.

Two kinds of JSON objects, one per line:

- an **event line** is a row of ``events`` under our column names; columns without a value are left out, times are
  written ``2024-01-15 08:30:00`` (UTC), the form that JSON readers of Hive, Athena and Firehose take for a timestamp;
- a **dropped line** counts events that a rule dropped or sampled away: ``dropped_by`` names the rule, the columns that
  the events share are written once, and ``dropped`` has a list for each event with the columns ``EACH``. So every
  summary stays exact, and each event is recognized by its id, however often a stream delivers it.

Dropped lines land under ``service=_dropped``, which is not a service: a reader of a service's events never sees them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from trailsift import schema
from trailsift.decode.outcome import NotARecord

#: The partition of dropped lines, in place of a service.
DROPPED = "_dropped"
#: Columns that summaries need and that many events share.
SHARED = (
    "event_source",
    "event_name",
    "service",
    "aws_region",
    "account_id",
    "role_arn",
    "session_name",
    "principal_account",
    "source_ip",
    "user_agent",
    "vpc_endpoint_id",
    "error_code",
    "read_only",
    "resource_arn",
)
#: Columns that summaries need and that differ per event.
EACH = ("event_time", "event_id", "object_key", "bytes_in", "bytes_out")
#: Key in ``rest`` of an event that was dropped before it was ingested: the name of the rule.
DROPPED_BY = "(dropped)"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DERIVED = ("year", "month", "day", "hour")
_encode = msgspec.json.Encoder().encode


class LandingPartition(NamedTuple):
    """The folder in which a line lands: zero-padded strings of the event time in UTC, and the service."""

    year: str
    month: str
    day: str
    hour: str
    service: str


def time_text(micros: int) -> str:
    """Return a time as ``2024-01-15 08:30:00``, with six more digits if there is a fraction of a second."""
    text = (_EPOCH + timedelta(microseconds=micros)).isoformat(" ")
    return text.removesuffix("+00:00")


def parse_time(text: object) -> int:
    """Return the microseconds since 1970 of ``time_text``. Raise ValueError for anything else."""
    if not isinstance(text, str) or text[10:11] != " " or text[-3:-2] in ("+", "-"):
        raise ValueError(f"{text!r} is not a time of a landing line")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        raise ValueError(f"{text!r} is not a time of a landing line")
    return (moment.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def partition_of(micros: int, service: str) -> LandingPartition:
    """Return the partition of an event."""
    text = time_text(micros)
    return LandingPartition(text[:4], text[5:7], text[8:10], text[11:13], service)


# -- writing ---------------------------------------------------------------------------------------------------------


class Dropped:
    """Collects dropped events and writes them in few lines."""

    #: Events per line, at most: a line stays far below the size limit of a stream's record.
    LIMIT = 2_000

    def __init__(self) -> None:
        self._groups: dict[tuple[Any, ...], list[list[Any]]] = {}

    def add(self, columns: Mapping[str, Any], rule: str) -> LandingPartition:
        """Add an event; return where its line will land."""
        where = partition_of(columns["event_time"], DROPPED)
        group = (where, rule, *(columns.get(column) for column in SHARED))
        # Minutes and seconds only: the line itself has the hour.
        own = [time_text(columns["event_time"])[14:], *(columns.get(column) for column in EACH[1:])]
        while own[-1] is None:
            own.pop()
        self._groups.setdefault(group, []).append(own)
        return where

    def lines(self) -> list[tuple[LandingPartition, bytes]]:
        """Return the lines and where they land, and forget them."""
        lines = []
        for (where, rule, *shared), events in self._groups.items():
            head = {"dropped_by": rule, **dict(zip(_DERIVED, where, strict=False))}
            head |= {name: value for name, value in zip(SHARED, shared, strict=True) if value is not None}
            for start in range(0, len(events), self.LIMIT):
                lines.append((where, _encode(head | {"dropped": events[start : start + self.LIMIT]}) + b"\n"))
        self._groups.clear()
        return lines


# -- reading ---------------------------------------------------------------------------------------------------------

_EVENT_MEMBERS = frozenset(("event_time", "event_id", "service", "weight"))
_DROPPED_MEMBERS = frozenset(("dropped_by", "dropped", *_DERIVED))

_TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "bool": (bool,), "int64": (int,), "double": (float, int)}
_COLUMNS = {column.name: column.type for column in schema.EVENTS.columns}


def is_event(value: Mapping[str, Any]) -> bool:
    """Return whether an object is an event line."""
    return value.keys() >= _EVENT_MEMBERS


def is_dropped(value: Mapping[str, Any]) -> bool:
    """Return whether an object is a dropped line."""
    return value.keys() >= _DROPPED_MEMBERS


def events_of(value: Mapping[str, Any]) -> list[Any] | None:
    """Return the events of a dropped line as event lines of weight 0, or None if the object is not a dropped line."""
    if not is_dropped(value) or not isinstance(value["dropped"], list):
        return None
    hour = f"{value['year']}-{value['month']}-{value['day']} {value['hour']}:"
    shared = {name: value[name] for name in SHARED if name in value}
    shared |= {"service": shared.get("service"), "weight": 0.0, "dropped_by": value["dropped_by"]}
    return [_event_line(hour, shared, own) for own in value["dropped"]]


def _event_line(hour: str, shared: dict[str, Any], own: Any) -> Any:
    if not isinstance(own, list) or not 2 <= len(own) <= len(EACH):
        return own
    each = dict(zip(EACH, own, strict=False))
    return {**each, "event_time": f"{hour}{own[0]}", **shared}


def row(value: Mapping[str, Any], log_object: str) -> dict[str, Any]:
    """Return the columns of an event line as ``decode.record.row`` does. Raise NotARecord if a value does not fit."""
    columns: dict[str, Any] = {}
    for name, kind in _COLUMNS.items():
        cell = value.get(name)
        if cell is not None and not _fits(cell, kind):
            raise NotARecord(f"a landing line with {name} {str(cell)[:64]!r}, which is not of type {kind}")
        columns[name] = cell
    try:
        columns["event_time"] = parse_time(value["event_time"])
    except ValueError as error:
        raise NotARecord(str(error)) from None
    if not columns["event_id"]:
        raise NotARecord("a landing line without event_id")
    columns["resource_arns"] = columns["resource_arns"] or []
    columns["log_object"] = log_object
    columns["weight"] = float(value["weight"])
    if not columns["weight"] >= 0:
        raise NotARecord(f"a landing line with weight {value['weight']}")
    if columns["weight"] == 0:
        columns["rest"] = json.dumps({DROPPED_BY: str(value.get("dropped_by", ""))}, separators=(",", ":"))
    for name in _DERIVED:
        columns.pop(name, None)
    columns["service"] = columns["service"] or "unknown"
    return columns


def _fits(value: object, kind: str) -> bool:
    if kind == "timestamp":
        return isinstance(value, str)
    if kind == "list<string>":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if kind != "bool" and isinstance(value, bool):
        return False
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return False
    return isinstance(value, _TYPES[kind])
