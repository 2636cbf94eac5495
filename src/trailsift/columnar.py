"""Records -> Arrow columns of ``events``: the fast path over ``decode``.

Most records are regular: known members of known types. For them one typed decode per record is enough, because what
is expensive to derive repeats: the same session, the same shape of request. ``userIdentity`` and friends are looked up
by their bytes, ``requestParameters`` and ``resources`` by their bytes with the object key cut out; only a shape never
seen before is parsed, by the very functions of the careful path (``decode.record``). Everything that is not regular
takes the careful path. Both give the same rows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from isal import isal_zlib

from trailsift import event
from trailsift.decode import record as careful
from trailsift.decode.envelope import (
    Malformed,
    Rejects,
    dump,
    dump_bytes,
    find_records,
    looks_like_record,
    parse,
    text_of,
)

_ARROW: dict[str, pa.DataType] = {
    "timestamp": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "list<string>": pa.list_(pa.string()),
    "list<int64>": pa.list_(pa.int64()),
}

#: Columns whose values repeat little; the others are dictionary-encoded in memory.
_VARIED = frozenset(
    {
        "event_id",
        "error_message",
        "object_key",
        "request_id",
        "shared_event_id",
        "request_parameters",
        "response_elements",
        "additional_event_data",
        "resources",
    }
)

#: Partition columns are derived from event_time when a file is written.
_DERIVED = frozenset({"year", "month", "day", "hour"})


def arrow_schema(table: event.Table, *, partitions: bool = True) -> pa.Schema:
    """The Arrow schema of one of our tables, derived from ``event``."""
    columns = [c for c in table.columns if partitions or table is not event.EVENTS or c.name not in _DERIVED]
    return pa.schema([pa.field(c.name, _ARROW[c.type]) for c in columns])


def _chunk_type(column: event.Column) -> pa.DataType:
    if column.type == "string" and column.name not in _VARIED:
        return pa.dictionary(pa.int32(), pa.string())
    return _ARROW[column.type]


#: A chunk of events in memory: without the partition columns that event_time gives, low cardinality encoded.
CHUNK_SCHEMA = pa.schema([pa.field(c.name, _chunk_type(c)) for c in event.EVENTS.columns if c.name not in _DERIVED])


#: The default of a member that may be absent. Its type is not optional: msgspec would take a null for it then, and
#: null told from absent is part of "nothing lost".
_NONE: Any = None
_NO_RAW = msgspec.Raw(b"")


class _Record(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The members of a regular record. A null, another type or another member sends it down the careful path."""

    eventVersion: str
    eventTime: str
    eventSource: str
    eventName: str
    eventID: str
    userIdentity: msgspec.Raw = _NO_RAW
    awsRegion: str = _NONE
    sourceIPAddress: str = _NONE
    userAgent: str = _NONE
    errorCode: str = _NONE
    errorMessage: str = _NONE
    requestParameters: msgspec.Raw = _NO_RAW
    responseElements: msgspec.Raw = _NO_RAW
    additionalEventData: msgspec.Raw = _NO_RAW
    requestID: str = _NONE
    readOnly: bool = _NONE
    resources: msgspec.Raw = _NO_RAW
    eventType: str = _NONE
    apiVersion: str = _NONE
    managementEvent: bool = _NONE
    recipientAccountId: str = _NONE
    sharedEventID: str = _NONE
    vpcEndpointId: str = _NONE
    vpcEndpointAccountId: str = _NONE
    eventCategory: str = _NONE
    tlsDetails: msgspec.Raw = _NO_RAW
    sessionCredentialFromConsole: str = _NONE


_decode = msgspec.json.Decoder(_Record).decode

#: Stands for the object key while a shape is parsed; no real key is this.
_HOLE = "\u2e28trailsift key\u2e29"
_HOLE_ITEM = '{"' + _HOLE + '":"' + _HOLE + '"}'

_TEXT_KEY = re.compile(rb'"key":"([^"\\]+)"')
_ITEM_KEY = re.compile(rb'"key":(\{"[^"\\]*":"[^"\\]*"(?:,"[^"\\]*":"[^"\\]*")*\})')
#: Other members whose values vary from call to call and say nothing about the resource, by action.
_PART = re.compile(rb'(?<=")(?:uploadId|partNumber|versionId)":"[^"\\]*"')
_LIST = re.compile(rb'(?<=")(?:prefix|marker|start-after|continuation-token|max-keys)":"[^"\\]*"')
_ITEMS = re.compile(rb'(?<="key":)\{"[^"\\]*":"[^"\\]*"(?:,"[^"\\]*":"[^"\\]*")*\}')
_VARYING: dict[str, re.Pattern[bytes]] = {
    **dict.fromkeys(
        ("UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload", "ListParts", "GetObject", "HeadObject"), _PART
    ),
    **dict.fromkeys(("ListObjects", "ListObjectVersions", "ListMultipartUploads"), _LIST),
    **dict.fromkeys(("BatchGetItem", "BatchWriteItem", "TransactGetItems", "TransactWriteItems"), _ITEMS),
}

#: A cache that has grown beyond this many shapes is dropped and starts anew.
_CACHE_LIMIT = 50_000


class _Shape(NamedTuple):
    """What ``requestParameters`` and ``resources`` of one shape give, whatever the key in it is."""

    resource_type: str | None
    resource_arn: str | None
    resource_arns: tuple[str, ...]
    resource_account: str | None
    has_key: bool
    #: An object key that is the same for every record of the shape.
    fixed_key: str | None
    request_parameters: str | None
    #: JSON of ``resources`` cut where the key stands; None where the typed columns say the same.
    resources: tuple[str, ...] | None
    #: What the shape makes ``rest`` say.
    rest: str | None


class _Line(NamedTuple):
    """What many records have in common: all but the time, the ids, the key and the counts."""

    number: int
    #: Values of _LINE_MEMBERS, in that order. Not the record: its raw members would keep the whole object in memory.
    members: tuple[str | None, ...]
    service: str
    read_only: bool | None
    who: careful.Identity
    shape: _Shape
    category: str
    account: str | None
    rest: str | None


class _Row(NamedTuple):
    """What a regular record has for itself."""

    line: int
    event_time: int
    event_id: str
    request_id: str | None
    error_message: str | None
    shared_event_id: str | None
    object_key: bytes | None
    #: Only where the line's own do not say it.
    request_parameters: str | None
    additional_event_data: bytes | None
    response_elements: bytes | None
    bytes_in: int | None
    bytes_out: int | None


@dataclass(slots=True)
class Tally:
    """What became of one log object's records on the way to columns."""

    records: int = 0
    malformed: Rejects = field(default_factory=Rejects)
    foreign: str | None = None


class Chunk(NamedTuple):
    """A table of events without partition columns, and per row the 16-byte identity and a CRC of the record."""

    table: pa.Table
    ids: np.ndarray[Any, np.dtype[np.void]]
    checks: np.ndarray[Any, np.dtype[np.uint32]]


class Builder:
    """Collects the records of many log objects and turns them into one Arrow table.

    Memory is bounded by ``flush`` every ``step`` records: Python objects live only until then.
    """

    def __init__(self, step: int = 8_192) -> None:
        self.step = step
        self.rows = 0
        self._lines: dict[tuple[Any, ...], _Line | None] = {}
        self._all_lines: list[_Line] = []
        self._who: dict[bytes, careful.Identity] = {}
        self._shapes: dict[tuple[Any, ...], _Shape | None] = {}
        self._rests: dict[tuple[Any, ...], str | None] = {}
        self._times: dict[str, int | None] = {}
        self._start()

    def _start(self) -> None:
        self._rows: list[_Row] = []
        self._objects: list[str] = []
        self._checks: list[int] = []
        self._parts: list[pa.Table] = []
        self._ids: list[np.ndarray[Any, np.dtype[np.void]]] = []
        self._slow: list[dict[str, Any]] = []
        self._slow_checks: list[int] = []
        self._slow_parts: list[pa.Table] = []
        self._slow_ids: list[np.ndarray[Any, np.dtype[np.void]]] = []
        self.rows = 0
        if len(self._lines) > _CACHE_LIMIT:
            self._lines.clear()
            self._all_lines.clear()
        for cache in (self._who, self._shapes, self._rests):
            if len(cache) > _CACHE_LIMIT:
                cache.clear()

    def add(self, log_object: str, data: bytes) -> Tally:
        """Decodes one log object. Nothing raises; what cannot be used is in the tally."""
        found = find_records(data)
        irregular = self._add_fast(log_object, found.records)
        if found.cut and not all(_is_record(found.records[at]) for at in irregular):
            # The text was cut in the wrong place somewhere, or holds what begins like records but is none (S3's
            # notifications): forget what was taken and read it whole.
            self._forget(len(found.records) - len(irregular))
            found = find_records(data, cut=False)
            irregular = self._add_fast(log_object, found.records)
        tally = Tally(len(found.records) + found.malformed.parts, found.malformed, found.foreign)
        self._add_slow(log_object, found.records, irregular, tally)
        if len(self._rows) + len(self._slow) >= self.step:
            self.flush()
        return tally

    def _forget(self, count: int) -> None:
        if count:
            del self._rows[-count:], self._objects[-count:], self._checks[-count:]
            self.rows -= count

    # -- fast --------------------------------------------------------------------------------------------------------

    def _add_fast(self, log_object: str, raws: Sequence[bytes | memoryview]) -> list[int]:
        """Takes every regular record; the positions of the others."""
        irregular: list[int] = []
        rows, checks = self._rows, self._checks
        crc, take = isal_zlib.crc32, self._take
        for at, raw in enumerate(raws):
            try:
                row = take(_decode(raw), raw)
            except (msgspec.DecodeError, RecursionError, ValueError):
                row = None
            if row is None:
                irregular.append(at)
            else:
                rows.append(row)
                checks.append(crc(raw))
        regular = len(raws) - len(irregular)
        self._objects += [log_object] * regular
        self.rows += regular
        return irregular

    def _take(self, record: _Record, raw: bytes | memoryview) -> _Row | None:
        """One regular record; None sends it down the careful path."""
        when = record.eventTime
        micros = self._times.get(when) or self._time(when)
        parameters, resources = bytes(record.requestParameters), bytes(record.resources)
        varying = _VARYING.get(record.eventName)
        match = None if varying is _ITEMS else _TEXT_KEY.search(parameters) or _ITEM_KEY.search(parameters)
        if match is None:
            key, before, after = b"", parameters, b""
        else:
            key, before, after = match[1], parameters[: match.start()], parameters[match.end() :]
            if key[:1] != b"{":
                resources = resources.replace(b"/" + key + b'"', b'/"')
        kept = None
        if varying is not None:
            fixed = varying.sub(b"", before), varying.sub(b"", after)
            if fixed != (before, after):
                kept = _join(before, after)
                before, after = fixed
        additional, response = bytes(record.additionalEventData), bytes(record.responseElements)
        bytes_in = bytes_out = None
        floats = 0
        if additional:
            counted = _split_counts(additional)
            if counted is None:
                return None
            additional, bytes_in, bytes_out, floats = counted
        name = (
            bytes(record.userIdentity),
            before,
            after,
            resources,
            bytes(record.tlsDetails),
            record.eventSource,
            record.eventName,
            record.userAgent,
            record.sourceIPAddress,
            record.awsRegion,
            record.errorCode,
            record.readOnly,
            record.eventCategory,
            record.managementEvent,
            record.recipientAccountId,
            record.eventVersion,
            record.eventType,
            record.apiVersion,
            record.vpcEndpointId,
            record.vpcEndpointAccountId,
            record.sessionCredentialFromConsole,
            kept is None,
            match is not None and key[:1] == b"{",
            floats,
            not additional,
            not response,
        )
        try:
            line = self._lines[name]
        except KeyError:
            line = self._lines[name] = self._new_line(record, name, match, raw)
        if line is None or micros is None or not record.eventID:
            return None
        if kept is not None and match is None and line.shape.fixed_key is not None:
            # A key that could not be cut out (escapes in it) stands in `kept`.
            return None
        return _Row(
            line.number,
            micros,
            record.eventID,
            record.requestID,
            record.errorMessage,
            record.sharedEventID,
            key if line.shape.has_key else None,
            kept,
            additional or None,
            None if response == b"null" else response or None,
            bytes_in,
            bytes_out,
        )

    def _time(self, text: str) -> int | None:
        """Microseconds of a time in CloudTrail's own form; None for any other."""
        if len(self._times) > _CACHE_LIMIT:
            self._times.clear()
        micros = self._times[text] = _canonical_time(text)
        return micros

    def _new_line(
        self, record: _Record, name: tuple[Any, ...], match: re.Match[bytes] | None, raw: bytes | memoryview
    ) -> _Line | None:
        """Works out, by the careful path, what all records of this name have in common."""
        user = name[0]
        if user not in self._who:
            self._who[user] = careful.identity(json.loads(user) if user else None)
        who = self._who[user]
        category = careful.category(
            {
                "eventCategory": record.eventCategory,
                "eventType": record.eventType,
                "managementEvent": record.managementEvent,
                "eventSource": record.eventSource,
                "eventName": record.eventName,
            }
        )
        account = record.recipientAccountId or who.principal_account
        shape_name = *name[1:4], record.eventSource, record.eventName, record.awsRegion, account, category, *name[21:23]
        if shape_name not in self._shapes:
            self._shapes[shape_name] = _parse_shape(record, account, category, match)
        shape = self._shapes[shape_name]
        if shape is None:
            return None
        # Nothing here depends on who it is, only on whether there is somebody.
        somebody = bool(user), who.principal_account is None
        rest_name = somebody, name[4], shape.rest, category, *name[12:15], *name[17:18], *name[19:21], *name[23:]
        if rest_name not in self._rests:
            value = parse(bytes(raw))
            if not isinstance(value, dict):
                return None
            if user:
                value["userIdentity"] = {"accountId": account} if account and not somebody[1] else {}
            try:
                rest = careful.row(value, "")["rest"]
            except careful.NotARecord:
                return None
            self._rests[rest_name] = _without_user(rest)
        others = self._rests[rest_name]
        rest = careful.compose_rest(user.decode() if user else None, others)
        line = _Line(
            len(self._all_lines),
            _line_members(record),
            careful.service_of(record.eventSource),
            record.readOnly,
            who,
            shape,
            category,
            account,
            rest,
        )
        self._all_lines.append(line)
        return line

    # -- careful -----------------------------------------------------------------------------------------------------

    def _add_slow(
        self, log_object: str, raws: Sequence[bytes | memoryview], positions: list[int], tally: Tally
    ) -> None:
        for at in positions:
            raw = bytes(raws[at])
            value = parse(raw)
            if isinstance(value, dict):
                self._take_slow(log_object, at, value, raw, tally)
            else:
                tally.malformed.keep(Malformed(at, "not JSON", text_of(raw)))

    def _take_slow(self, log_object: str, at: int, value: dict[str, Any], raw: bytes, tally: Tally) -> None:
        try:
            row = careful.row(value, log_object)
            check = isal_zlib.crc32(dump_bytes(value))
        except careful.NotARecord as error:
            tally.malformed.keep(Malformed(at, str(error), text_of(raw)))
            return
        except Exception as error:
            # One record that we did not foresee must not end the ingest of all others; it is kept whole in `rejects`.
            tally.malformed.keep(Malformed(at, f"unforeseen: {type(error).__name__}: {error}", text_of(raw)))
            return
        self._slow.append(row)
        self._slow_checks.append(check)
        self.rows += 1

    # -- Arrow -------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Turns what was collected into Arrow columns and lets the Python objects go."""
        if self._rows:
            self._parts.append(_row_table(self._rows, self._objects))
            self._ids.append(identities([row.event_id for row in self._rows]))
            self._rows, self._objects = [], []
        if self._slow:
            self._slow_parts.append(_slow_table(self._slow))
            self._slow_ids.append(identities([row["event_id"] for row in self._slow]))
            self._slow = []

    def finish(self) -> Chunk:
        """The rows so far; the builder is empty afterwards and keeps its caches."""
        self.flush()
        tables = list(self._slow_parts)
        if self._parts:
            tables.insert(0, _fast_table(pa.concat_tables(self._parts).combine_chunks(), self._all_lines))
        whole = pa.concat_tables(tables).combine_chunks() if len(tables) > 1 else None
        ids = [np.empty(0, "V16"), *self._ids, *self._slow_ids]
        checks = np.array(self._checks + self._slow_checks, np.uint32)
        # One table alone is not copied again.
        table = whole if whole is not None else tables[0] if tables else CHUNK_SCHEMA.empty_table()
        chunk = Chunk(table, np.concatenate(ids), checks)
        self._start()
        return chunk


def _without_user(rest: str | None) -> str | None:
    """``rest`` without the userIdentity it starts with."""
    members = json.loads(rest) if rest else {}
    members.pop("userIdentity", None)
    return dump(members) if members else None


def _canonical_time(text: str) -> int | None:
    """Microseconds of ``2024-01-15T08:30:00Z``; None for every other way to write a time."""
    if len(text) != 20 or text[4:17:3] != "--T::" or text[19] != "Z":
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp()) * 1_000_000
    except ValueError:
        return None


def _is_record(raw: bytes | memoryview) -> bool:
    value = parse(bytes(raw))
    return isinstance(value, dict) and looks_like_record(value)


def _join(before: bytes, after: bytes) -> str:
    """An object without the member that stood between ``before`` and ``after``."""
    if before.endswith(b","):
        before = before[:-1]
    elif after.startswith(b","):
        after = after[1:]
    return (before + after).decode()


_IN, _OUT = b'"bytesTransferredIn":', b'"bytesTransferredOut":'


def _split_counts(text: bytes) -> tuple[bytes, int | None, int | None, int] | None:
    """Cuts the byte counts out of ``additionalEventData``: the rest, bytes in, bytes out, which were floats (1, 2).

    None where they cannot be told for sure by looking at the text.
    """
    if b"bytesTransferred" not in text:
        return text, None, None, 0
    if text.count(b"{") != 1 or text[:1] != b"{":
        return None
    counts: list[int | None] = [None, None]
    floats = 0
    for at, name in enumerate((_IN, _OUT)):
        start = text.find(name)
        if start < 0:
            continue
        digits = start + len(name)
        end = text.find(b",", digits)
        if end < 0:
            end = len(text) - 1
        number = text[digits:end]
        if number[-2:] == b".0":
            number = number[:-2]
            floats |= 1 << at
        if not number.isdigit() or len(number) > 15:
            return None
        counts[at] = int(number)
        text = text[: start - 1] + text[end:] if text[start - 1] == 44 else text[:start] + text[end:].lstrip(b",")
    if b"bytesTransferred" in text:
        return None
    return text, counts[0], counts[1], floats


def _parse_shape(record: _Record, account: str | None, category: str, match: re.Match[bytes] | None) -> _Shape | None:
    """Parses one shape with a stand-in for the key. None where the key cannot be told from the rest."""
    parameters, resources = bytes(record.requestParameters), bytes(record.resources)
    hole = None
    if match is not None:
        hole = _HOLE_ITEM if match[1][:1] == b"{" else _HOLE
        if _HOLE.encode() in parameters or _HOLE.encode() in resources:
            return None
        put = hole.encode() if hole is _HOLE_ITEM else b'"' + hole.encode() + b'"'
        parameters = parameters[: match.start()] + b'"key":' + put + parameters[match.end() :]
        if hole is _HOLE:
            resources = resources.replace(b"/" + match[1] + b'"', b"/" + hole.encode() + b'"')
    value: dict[str, Any] = {
        "eventTime": record.eventTime,
        "eventSource": record.eventSource,
        "eventName": record.eventName,
        "awsRegion": record.awsRegion,
        "recipientAccountId": account,
        "eventCategory": category,
    }
    try:
        if parameters:
            value["requestParameters"] = json.loads(parameters)
        if resources:
            value["resources"] = json.loads(resources)
    except ValueError:
        return None
    return _shape_from(careful.row(value, ""), hole)


def _shape_from(row: dict[str, Any], hole: str | None) -> _Shape | None:
    has_key = hole is not None and row["object_key"] == hole
    fixed = [row["resource_type"], row["resource_arn"], *row["resource_arns"], row["resource_account"]]
    fixed.append(row["request_parameters"])
    if not has_key:
        fixed += [row["object_key"], row["resources"]]
    if any(text is not None and _HOLE in text for text in fixed):
        return None
    resources = row["resources"]
    parts: tuple[str, ...] | None = None
    if resources is not None:
        parts = tuple(resources.split(_HOLE)) if has_key else (resources,)
        if has_key and hole is _HOLE_ITEM and len(parts) > 1:
            return None
    return _Shape(
        row["resource_type"],
        row["resource_arn"],
        tuple(row["resource_arns"]),
        row["resource_account"],
        has_key,
        None if has_key else row["object_key"],
        row["request_parameters"],
        parts,
        row["rest"],
    )


# -- Arrow -----------------------------------------------------------------------------------------------------------


def _encoded(values: Sequence[Any]) -> pa.DictionaryArray:
    return pa.array(values, pa.string()).dictionary_encode()


def _spread(values: Sequence[str | None], codes: pa.Array) -> pa.DictionaryArray:
    """A dictionary column from one value a code; equal values share one dictionary entry."""
    encoded = _encoded(values)
    return pa.DictionaryArray.from_arrays(encoded.indices.take(codes), encoded.dictionary)


_ROW_TYPES: dict[str, pa.DataType] = {
    "line": pa.int32(),
    "event_time": pa.int64(),
    "bytes_in": pa.int64(),
    "bytes_out": pa.int64(),
}


def _row_table(rows: list[_Row], objects: list[str]) -> pa.Table:
    """What the rows have for themselves, a column each field of _Row, and the log object."""
    columns = {
        name: pa.array(values, _ROW_TYPES.get(name, pa.string()))
        for name, values in zip(_Row._fields, zip(*rows, strict=True), strict=True)
    }
    columns["log_object"] = _encoded(objects)
    return pa.table(columns)


#: Columns that a line's record gives, by member.
_LINE_MEMBERS = {
    member: column
    for member, column in careful.PLAIN.items()
    if column not in (*_Row._fields, "event_category", "account_id")
}
_line_members = attrgetter(*_LINE_MEMBERS)


def _fast_table(rows: pa.Table, lines: list[_Line]) -> pa.Table:
    """Columns of regular records, in CHUNK_SCHEMA."""
    numbers, inverse = np.unique(np.asarray(_whole(rows, "line")), return_inverse=True)
    which = pa.array(inverse.astype(np.int32))
    used = [lines[number] for number in numbers.tolist()]
    shapes = [line.shape for line in used]
    columns: dict[str, Any] = {
        column: _spread([line.members[at] for line in used], which)
        for at, column in enumerate(_LINE_MEMBERS.values())
    }
    for name in careful.Identity._fields:
        columns[name] = _spread([getattr(line.who, name) for line in used], which)
    for name in ("resource_type", "resource_arn", "resource_account"):
        columns[name] = _spread([getattr(shape, name) for shape in shapes], which)
    columns["event_category"] = _spread([line.category for line in used], which)
    columns["account_id"] = _spread([line.account for line in used], which)
    columns["rest"] = _spread([line.rest for line in used], which)
    columns["service"] = _spread([line.service for line in used], which)
    columns["read_only"] = pa.array([line.read_only for line in used], pa.bool_()).take(which)
    columns["resource_arns"] = pa.array([shape.resource_arns for shape in shapes], _ARROW["list<string>"]).take(which)
    of_line = pa.array([shape.request_parameters for shape in shapes], pa.string()).take(which)
    columns["request_parameters"] = pc.coalesce(_whole(rows, "request_parameters"), of_line)
    of_line = pa.array([shape.fixed_key for shape in shapes], pa.string()).take(which)
    columns["object_key"] = pc.coalesce(_whole(rows, "object_key"), of_line)
    columns["resources"] = _resources(shapes, inverse, columns["object_key"])
    columns["event_time"] = _whole(rows, "event_time").cast(_ARROW["timestamp"])
    columns["weight"] = pa.array(np.ones(len(rows)))
    for column in CHUNK_SCHEMA:
        if column.name not in columns:
            columns[column.name] = _whole(rows, column.name)
    return _table(columns)


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _resources(shapes: list[_Shape], which: np.ndarray[Any, Any], keys: pa.Array) -> pa.Array:
    """The column ``resources``: null where the typed columns say it, else the shape's text with the key put in."""
    texts = [None if shape.resources is None else shape.resources[0] for shape in shapes]
    open_shapes = [at for at, shape in enumerate(shapes) if shape.resources is not None and len(shape.resources) > 1]
    column = pa.array(texts, pa.string()).take(pa.array(which.astype(np.int32)))
    if not open_shapes:
        return column
    values = column.to_pylist()
    for row in np.flatnonzero(np.isin(which, open_shapes)).tolist():
        values[row] = keys[row].as_py().join(shapes[which[row]].resources or ())
    return pa.array(values, pa.string())


def _slow_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Columns of careful rows, in CHUNK_SCHEMA."""
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in CHUNK_SCHEMA.names}
    return _table(columns)


def _table(columns: dict[str, Any]) -> pa.Table:
    arrays = []
    for column in CHUNK_SCHEMA:
        values = columns[column.name]
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            encode = pa.types.is_dictionary(column.type)
            values = _encoded(values) if encode else pa.array(values, column.type)
        arrays.append(values)
    return pa.Table.from_arrays(arrays, schema=CHUNK_SCHEMA)


_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
_DASHES = (8, 13, 18, 23)
_DIGITS = [at for at in range(36) if at not in _DASHES]


def identities(event_ids: list[str]) -> np.ndarray[Any, np.dtype[np.void]]:
    """16 bytes for each event id: those of a UUID in its usual form, else the MD5 of the text."""
    # One byte more than a UUID has: longer ids are seen to be longer.
    texts = np.array([text.encode() for text in event_ids], "S37")
    letters = texts.view(np.uint8).reshape(len(texts), 37)
    nibbles = _NIBBLE[letters[:, _DIGITS]]
    good = (nibbles < 16).all(axis=1) & (letters[:, _DASHES] == 45).all(axis=1) & (letters[:, 36] == 0)
    packed = ((nibbles[:, 0::2] << 4) | (nibbles[:, 1::2] & 15)).astype(np.uint8)
    for row in np.flatnonzero(~good).tolist():
        digest = hashlib.md5(event_ids[row].encode(), usedforsecurity=False).digest()
        packed[row] = np.frombuffer(digest, np.uint8)
    return np.ascontiguousarray(packed).view("V16").reshape(len(texts))
