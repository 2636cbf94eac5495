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
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Raw

from trailsift import schema
from trailsift.cloudtrail.callers import caller_of_columns, identity_of, text_of
from trailsift.cloudtrail.categories import category_of
from trailsift.cloudtrail.copies import COPIES
from trailsift.cloudtrail.resources import touched_resources
from trailsift.cloudtrail.services import ALPHABET, folder_of, is_service, known_service_of, service_of
from trailsift.decode.json_text import INVALID, parse
from trailsift.decode.outcome import NotARecord
from trailsift.times import is_usable

#: The partition of dropped lines, in place of a service.
DROPPED = "_dropped"
#: Columns that summaries need and that many events share.
SHARED = (
    "event_source",
    "event_name",
    "service",
    "aws_region",
    "account_id",
    "event_category",
    "caller",
    "role_arn",
    "session_name",
    "principal_account",
    "source_ip",
    "user_agent",
    "vpc_endpoint_id",
    "error_code",
    "read_only",
    "resource_arn",
    "source_resource_arn",
)
#: Columns that summaries need and that differ per event.
EACH = ("event_time", "event_id", "object_key", "bytes_in", "bytes_out", "shared_event_id", "source_object_key")
#: Key in ``rest`` of an event that was dropped before it was ingested: the name of the rule.
DROPPED_BY = "(dropped)"
#: Keys in ``rest`` with which ``decode.record`` corrects what the other columns imply; each has a list of names.
ABSENT = "(absent)"
FLOAT = "(float)"
#: How many events one event can represent, at most. Rules sample no less.
MAX_WEIGHT = 1e9
#: Longest name of a rule, in characters.
RULE_NAME_LIMIT = 100

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DERIVED = ("year", "month", "day", "hour")
_encode = msgspec.json.Encoder().encode


class LandingPartition(NamedTuple):
    """The folder in which a line lands: zero-padded strings of the event time in UTC, and ``services.folder_of``."""

    year: str
    month: str
    day: str
    hour: str
    service: str


def time_text(micros: int) -> str:
    """Return a time as ``2024-01-15 08:30:00``, with six more digits if there is a fraction of a second."""
    text = (_EPOCH + timedelta(microseconds=micros)).isoformat(" ")
    return text.removesuffix("+00:00")


_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,9})?", re.ASCII)


def parse_time(text: object) -> int:
    """Return the microseconds since 1970 of ``time_text``. Raise ValueError for anything else."""
    if not isinstance(text, str) or _TIME.fullmatch(text) is None:
        raise ValueError(f"{_shown(text)} is not a time of a landing line")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text} is not a time: there is no such day or hour") from None
    micros = (moment.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
    if not is_usable(micros):
        raise ValueError(f"{text} is not a time that CloudTrail can have written")
    return micros


def partition_of(micros: int, service: str) -> LandingPartition:
    """Return the partition of an event. Raise NotARecord if the service cannot name a folder."""
    if not is_service(service) and service != DROPPED:
        raise NotARecord(f"{_shown(service)} is not the name of a service")
    text = time_text(micros)
    folder = service if service == DROPPED else folder_of(service)
    return LandingPartition(text[:4], text[5:7], text[8:10], text[11:13], folder)


# -- writing ---------------------------------------------------------------------------------------------------------


class Dropped:
    """Collects dropped events and writes them in few lines."""

    #: Events and bytes per line, at most: a stream accepts records of 1,000 KiB.
    LIMIT = 2_000
    BYTES = 900 << 10

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
                lines += [(where, line) for line in self._packed(head, events[start : start + self.LIMIT])]
        self._groups.clear()
        return lines

    def _packed(self, head: dict[str, Any], events: list[list[Any]]) -> list[bytes]:
        """Return lines of these events: one, unless object keys make it too long."""
        line = _encode(head | {"dropped": events}) + b"\n"
        if len(line) <= self.BYTES or len(events) == 1:
            return [line]
        middle = len(events) // 2
        return self._packed(head, events[:middle]) + self._packed(head, events[middle:])


# -- what a line may hold --------------------------------------------------------------------------------------------
#
# Anybody who can write a file, or into the stream, can write a line. A line is accepted if ``decode.record`` could have
# written it, so that every other part of the tool can rely on its values. The types follow from the schema; the tables
# below say what else holds for some columns.

_COUNT = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_NAME = Annotated[str, Meta(min_length=1)]
#: The types of the schema.
_TYPES: dict[str, Any] = {
    "timestamp": str,
    "string": str,
    "bool": bool,
    "int64": _COUNT,
    "double": float,
    "list<string>": list[str],
}
#: Columns of which more is demanded than a type.
_NARROWER: dict[str, Any] = {
    "event_id": _NAME,
    "service": Annotated[str, Meta(pattern=rf"^{ALPHABET}\Z")],
    "dropped_by": Annotated[str, Meta(min_length=1, max_length=RULE_NAME_LIMIT)],
}
_EXPECTED: dict[str, str] = {
    "timestamp": "a time",
    "string": "a text",
    "bool": "true or false",
    "int64": "a count, a whole number from 0 to 2^63 - 1",
    "double": "a number",
    "list<string>": "a list of texts",
}
_EXPECTED_IN: dict[str, str] = {
    "event_id": "a text that is not empty",
    "service": f"the name of a service ({ALPHABET})",
    "weight": f"0 or a number from 1 to {MAX_WEIGHT:,.0f}",
    "rest": "a JSON object as text, with lists of names in its marks",
    "dropped_by": f"the name of a rule, one line of at most {RULE_NAME_LIMIT} characters",
    **dict.fromkeys(("request_parameters", "response_elements", "additional_event_data", "resources"), "JSON as text"),
}
_NEEDED = ("event_time", "event_id", "weight")
#: Beside the columns of ``events``: partitions that only a stream has, and the rule that dropped the event.
_EXTRA = {"hour": "string", "dropped_by": "string"}
_KINDS = {column.name: column.type for column in schema.EVENTS.columns if column.name != "log_object"} | _EXTRA


def _struct(name: str, fields: dict[str, Any], needed: tuple[str, ...], **options: Any) -> type[msgspec.Struct]:
    members = [(field, kind) if field in needed else (field, kind | None, None) for field, kind in fields.items()]
    return msgspec.defstruct(name, members, frozen=True, kw_only=not options.get("array_like"), **options)


_FIELDS = {name: _NARROWER.get(name, _TYPES[kind]) for name, kind in _KINDS.items()}
_EventLine = _struct("_EventLine", _FIELDS, _NEEDED)
#: The same for a whole dropped line.
_DroppedEvent = _struct(
    "_DroppedEvent", {name: _FIELDS[name] for name in EACH}, EACH[:2], array_like=True, forbid_unknown_fields=True
)
_DroppedLine = _struct(
    "_DroppedLine",
    {
        "dropped_by": _NARROWER["dropped_by"],
        "dropped": Annotated[list[_DroppedEvent], Meta(min_length=1, max_length=Dropped.LIMIT)],  # type: ignore[valid-type]
        **dict.fromkeys(_DERIVED, str),
        **{name: _FIELDS[name] for name in SHARED},
    },
    ("dropped_by", "dropped", *_DERIVED),
    forbid_unknown_fields=True,
)
#: Texts up to this length are checked by the faster parser: in longer ones the two may differ (digits of a number).
_FAST_CHECK = 4_000
_skip = msgspec.json.Decoder(Raw).decode
_outer = msgspec.json.Decoder(dict[str, Raw]).decode


def _is_json(text: str) -> bool:
    if len(text) <= _FAST_CHECK:
        try:
            _skip(text)
        except (msgspec.DecodeError, RecursionError):
            pass  # NaN and half surrogate pairs are JSON to Python.
        else:
            return True
    return parse(text) is not INVALID


def _is_rest(text: str) -> bool:
    """Return whether ``decode.record.restore`` can use a ``rest``."""
    members: Any = None
    if len(text) <= _FAST_CHECK:
        try:
            members = _outer(text)
        except (msgspec.DecodeError, RecursionError):
            members = None
    if members is None or ABSENT in members or FLOAT in members:
        members = parse(text)
    return isinstance(members, dict) and all(_is_list_of_names(members.get(mark, [])) for mark in (ABSENT, FLOAT))


def _is_list_of_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_weight(value: float) -> bool:
    return value == 0 or 1 <= value <= MAX_WEIGHT


#: What holds for the value of a column, beyond its type.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "weight": _is_weight,
    "request_parameters": _is_json,
    "response_elements": _is_json,
    "additional_event_data": _is_json,
    "resources": _is_json,
    "rest": _is_rest,
    "dropped_by": str.isprintable,
}

_COLUMN = re.compile(r"`\$\.(\w+)")


def _invalid(value: Mapping[str, Any], name: str) -> NotARecord:
    expected = _EXPECTED_IN.get(name) or _EXPECTED[_KINDS[name]]
    return NotARecord(f"a landing line with {name} {_shown(value.get(name))}, which is not {expected}")


def _shown(value: object) -> str:
    """Return a short text of a value of any kind."""
    if isinstance(value, list | dict):
        return f"of type {'list' if isinstance(value, list) else 'object'}"
    return repr(value[:64]) if isinstance(value, str) else repr(value)[:64]


# -- reading ---------------------------------------------------------------------------------------------------------

_EVENT_MEMBERS = frozenset(("event_time", "event_id", "service", "weight"))
_DROPPED_MEMBERS = frozenset(("dropped_by", "dropped", *_DERIVED))


def is_event(value: Mapping[str, Any]) -> bool:
    """Return whether an object is an event line."""
    return value.keys() >= _EVENT_MEMBERS


def is_dropped(value: Mapping[str, Any]) -> bool:
    """Return whether an object is a dropped line."""
    return value.keys() >= _DROPPED_MEMBERS


def events_of(value: Mapping[str, Any]) -> list[Any] | None:
    """Return the events of a dropped line as event lines of weight 0, or None if the object is not a dropped line.

    Raise NotARecord if what its events share is not usable; an unusable event is returned as it is.
    """
    if not is_dropped(value) or not isinstance(value["dropped"], list):
        return None
    hour = [value[name] for name in _DERIVED]
    if not all(isinstance(part, str) and len(part) <= 4 for part in hour):
        raise NotARecord("a line of dropped events with an hour that is not a time")
    begin = "{}-{}-{} {}:".format(*hour)
    shared = {name: value[name] for name in SHARED if name in value}
    shared |= {"service": shared.get("service"), "weight": 0.0, "dropped_by": value["dropped_by"]}
    return [_event_line(begin, shared, own) for own in value["dropped"]]


def shared_bytes(value: Mapping[str, Any]) -> int:
    """Return about how many bytes of text each event of a dropped line repeats."""
    return sum(len(value[name]) for name in (*SHARED, "dropped_by") if isinstance(value.get(name), str | list | dict))


def _event_line(hour: str, shared: dict[str, Any], own: Any) -> Any:
    if not isinstance(own, list) or not 2 <= len(own) <= len(EACH) or not isinstance(own[0], str):
        return own
    each = dict(zip(EACH, own, strict=False))
    return {**each, "event_time": f"{hour}{own[0][:16]}", **shared}


def row(value: Mapping[str, Any], log_object: str) -> dict[str, Any]:
    """Return the columns of an event line as ``decode.record.row`` does. Raise NotARecord if a value does not fit."""
    columns = _checked(value)
    rule = columns.pop("dropped_by")
    del columns["hour"]
    for name in _DERIVED[:3]:
        del columns[name]
    columns["resource_arns"] = columns["resource_arns"] or []
    columns["log_object"] = log_object
    _complete(columns)
    if columns["weight"] == 0:
        if rule is None:
            raise NotARecord("a landing line of weight 0 that does not name the rule that dropped the event")
        columns["rest"] = json.dumps({DROPPED_BY: rule}, separators=(",", ":"))
    return columns


def _complete(columns: dict[str, Any]) -> None:
    """Add the columns that streams of earlier versions did not write, and those that a line may not choose."""
    if columns["event_category"] is None:
        members = {"eventSource": columns["event_source"], "eventName": columns["event_name"]}
        columns["event_category"] = category_of(members | {"eventType": columns["event_type"]})
    user = parse(columns["rest"].encode()).get("userIdentity") if columns["rest"] else None
    if isinstance(user, dict):
        identity = identity_of(user)
        columns["caller"], columns["principal_id"] = identity.caller, identity.principal_id
        columns["role_arn"], columns["session_name"] = identity.role_arn, identity.session_name
    else:
        columns["caller"] = caller_of_columns(columns)
    if columns["event_name"] in COPIES and columns["source_resource_arn"] is None and columns["request_parameters"]:
        touched = touched_resources(
            columns["event_source"],
            columns["event_name"],
            parse(columns["request_parameters"].encode()),
            parse(columns["resources"].encode()) if columns["resources"] else None,
            columns["aws_region"],
            columns["account_id"],
            columns["event_category"] == "Data",
        )
        columns["source_resource_arn"] = text_of(touched.source_arn)
        columns["source_object_key"] = text_of(touched.source_key)


def _checked(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an event line, ``event_time`` in microseconds. Raise NotARecord if a value does not fit."""
    try:
        columns = msgspec.structs.asdict(msgspec.convert(value, _EventLine))
    except msgspec.ValidationError as error:
        match = _COLUMN.search(str(error))
        raise (_invalid(value, match[1]) if match else NotARecord(f"a landing line: {error}")) from None
    except UnicodeEncodeError:
        raise NotARecord("a landing line with half a surrogate pair") from None
    _check_encodable(columns)
    for name, check in _CHECKS.items():
        cell = columns[name]
        if cell is not None and not check(cell):
            raise _invalid(value, name)
    time, source, service = columns["event_time"], columns["event_source"], columns["service"]
    try:
        columns["event_time"] = parse_time(time)
    except ValueError as error:
        raise NotARecord(str(error)) from None
    for name, place in _PLACES.items():
        if columns[name] is not None and columns[name] != time[place]:
            raise NotARecord(f"a landing line with {name} {_shown(columns[name])} and event_time {time}")
    if service is None:
        columns["service"] = service_of(source)
    elif source is not None and service != known_service_of(source):
        raise NotARecord(f"a landing line with service {service!r} and event_source {_shown(source)}")
    return columns


#: Where the partition columns stand in the text of a time.
_PLACES = {"year": slice(4), "month": slice(5, 7), "day": slice(8, 10), "hour": slice(11, 13)}


_TEXTS = [name for name, kind in _KINDS.items() if kind == "string"]


def _check_encodable(columns: Mapping[str, Any]) -> None:
    """Raise NotARecord if a text cannot be written as UTF-8."""
    try:
        "".join(filter(None, map(columns.get, _TEXTS))).encode()
        if columns["resource_arns"]:
            "".join(columns["resource_arns"]).encode()
    except UnicodeEncodeError:
        for name, cell in columns.items():
            try:
                str(cell if type(cell) is str else "".join(cell) if type(cell) is list else "").encode()
            except UnicodeEncodeError:
                reason = f"a landing line with {name} {ascii(cell)[:64]}, which has half a surrogate pair"
                raise NotARecord(reason) from None


# -- passing through -------------------------------------------------------------------------------------------------


class _Doubtful(ValueError):
    """A text that readers may understand in different ways."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Doubtful("a member occurs twice")
    return members


def _no_constant(name: str) -> Any:
    raise _Doubtful(f"{name} is not JSON")


_strict = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_constant).decode


def partition_of_line(text: bytes) -> LandingPartition | None:
    """Return the partition of a line that can land as it is: as our writers write it, to every reader.

    None for anything else: such a line is read, checked and written again.
    """
    try:
        value = _strict(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    try:
        if is_dropped(value):
            return _partition_of_dropped(value)
        if value.keys() <= _KINDS.keys() and value.get("dropped_by") is None and is_event(value):
            columns = _checked(value)
            is_whole = value["service"] is not None and all(value.get(name) for name in _DERIVED)
            if columns["weight"] and is_whole and _is_complete(columns):
                return partition_of(columns["event_time"], columns["service"])
    except (NotARecord, msgspec.ValidationError, UnicodeEncodeError):
        pass
    return None


def _is_complete(columns: Mapping[str, Any]) -> bool:
    """Return whether a line has what ``_complete`` would give it; ``principal_id`` may be left out by rules."""
    whole = dict(columns)
    _complete(whole)
    if columns["principal_id"] is None:
        whole["principal_id"] = None
    return whole == columns


def _partition_of_dropped(value: dict[str, Any]) -> LandingPartition:
    """Return the partition of a dropped line. Raise NotARecord or ValidationError if a value does not fit."""
    line: Any = msgspec.convert(value, _DroppedLine)
    hour = "{}-{}-{} {}:".format(*(value[name] for name in _DERIVED))
    # The first event is checked with all that the events share; of the others only what is their own.
    shared = {name: value.get(name) for name in SHARED}
    first = {**shared, **msgspec.structs.asdict(line.dropped[0]), "weight": 0.0, "dropped_by": line.dropped_by}
    columns = _checked({**first, "event_time": f"{hour}{line.dropped[0].event_time}"})
    for own in line.dropped[1:]:
        if _TIME_IN_HOUR.fullmatch(own.event_time) is None:
            raise NotARecord("not a time")
        texts = {
            name: getattr(own, name) for name in ("event_id", "object_key", "shared_event_id", "source_object_key")
        }
        if not "".join(filter(None, texts.values())).isascii():
            _check_encodable({**texts, "resource_arns": None})
    if not _is_complete(columns):
        raise NotARecord("not the caller that the other columns give")
    return partition_of(columns["event_time"], DROPPED)


_TIME_IN_HOUR = re.compile(r"[0-5]\d:[0-5]\d(\.\d{1,6})?", re.ASCII)
