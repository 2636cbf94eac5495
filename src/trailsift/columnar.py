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
from isal import isal_zlib

from trailsift import event
from trailsift.decode import record as careful
from trailsift.decode.envelope import INVALID, Malformed, dump_bytes, find_records, looks_like_record, parse, text_of

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


class _Record(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The members of a regular record. A null, another type or another member sends it down the careful path."""

    eventVersion: str
    eventTime: str
    eventSource: str
    eventName: str
    eventID: str
    userIdentity: msgspec.Raw = msgspec.Raw(b"")
    awsRegion: str | None = None
    sourceIPAddress: str | None = None
    userAgent: str | None = None
    errorCode: str | None = None
    errorMessage: str | None = None
    requestParameters: msgspec.Raw = msgspec.Raw(b"")
    responseElements: msgspec.Raw = msgspec.Raw(b"")
    additionalEventData: msgspec.Raw = msgspec.Raw(b"")
    requestID: str | None = None
    readOnly: bool | None = None
    resources: msgspec.Raw = msgspec.Raw(b"")
    eventType: str | None = None
    apiVersion: msgspec.Raw = msgspec.Raw(b"")
    managementEvent: bool | None = None
    recipientAccountId: str | None = None
    sharedEventID: str | None = None
    vpcEndpointId: str | None = None
    vpcEndpointAccountId: msgspec.Raw = msgspec.Raw(b"")
    eventCategory: str | None = None
    tlsDetails: msgspec.Raw = msgspec.Raw(b"")
    sessionCredentialFromConsole: msgspec.Raw = msgspec.Raw(b"")


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
_COUNT = re.compile(rb',?"bytesTransferred(In|Out)":(\d{1,15})(\.0)?(?=[,}])')

_UNKNOWN = object()

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
    number: int


class _Who(NamedTuple):
    columns: careful.Identity
    number: int


class _Derived(NamedTuple):
    """What a regular record gives beyond its plain members."""

    micros: int
    who: _Who
    shape: _Shape
    object_key: bytes | None
    parameters: str | None
    additional: bytes | None
    bytes_in: int | None
    bytes_out: int | None
    response: bytes | None
    rest: str | None
    category: str
    account: str | None


@dataclass(slots=True)
class Tally:
    """What became of one log object's records on the way to columns."""

    records: int = 0
    malformed: list[Malformed] = field(default_factory=list)
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
        self._who: dict[bytes, _Who] = {}
        self._shapes: dict[tuple[Any, ...], _Shape | None] = {}
        self._rests: dict[tuple[Any, ...], Any] = {}
        self._times: dict[str, int | None] = {}
        self._numbered = 0
        self._tables: list[pa.Table] = []
        self._ids: list[np.ndarray[Any, np.dtype[np.void]]] = []
        self._checks: list[int] = []
        self._derived: list[_Derived] = []
        self._objects: list[str] = []
        self._records: list[_Record] = []
        self._slow: list[dict[str, Any]] = []
        self._slow_checks: list[int] = []

    def add(self, log_object: str, data: bytes) -> Tally:
        """Decodes one log object. Nothing raises; what cannot be used is in the tally."""
        found = find_records(data)
        irregular = self._add_fast(log_object, found.records)
        if found.cut and any(parse(found.records[at]) is INVALID for at in irregular):
            # The text was cut in the wrong place somewhere: forget what was taken and read it whole.
            self._forget(len(found.records) - len(irregular))
            found = find_records(data, cut=False)
            irregular = self._add_fast(log_object, found.records)
        tally = Tally(len(found.records) + len(found.malformed), found.malformed, found.foreign)
        self._add_slow(log_object, found.records, irregular, tally)
        if len(self._records) + len(self._slow) >= self.step:
            self.flush()
        return tally

    def _forget(self, count: int) -> None:
        if count:
            del self._records[-count:], self._derived[-count:], self._objects[-count:], self._checks[-count:]
            self.rows -= count

    # -- fast --------------------------------------------------------------------------------------------------------

    def _add_fast(self, log_object: str, raws: list[bytes]) -> list[int]:
        """Takes every regular record; the positions of the others."""
        irregular: list[int] = []
        records, all_derived, checks = self._records, self._derived, self._checks
        crc = isal_zlib.crc32
        for at, raw in enumerate(raws):
            try:
                record = _decode(raw)
                derived = self._derive(record, raw)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                irregular.append(at)
                continue
            if derived is None:
                irregular.append(at)
                continue
            records.append(record)
            all_derived.append(derived)
            checks.append(crc(raw))
        regular = len(raws) - len(irregular)
        self._objects += [log_object] * regular
        self.rows += regular
        return irregular

    def _derive(self, record: _Record, raw: bytes) -> _Derived | None:
        """Everything that is no plain member; None sends the record down the careful path."""
        micros = self._time(record.eventTime)
        if micros is None or not record.eventID:
            return None
        user = bytes(record.userIdentity)
        who = self._who.get(user) or self._new_who(user)
        category = record.eventCategory or careful.category(
            {
                "eventType": record.eventType,
                "managementEvent": record.managementEvent,
                "eventSource": record.eventSource,
                "eventName": record.eventName,
            }
        )
        account = record.recipientAccountId or who.columns.principal_account
        found = self._shape(record, account, category)
        counted = _split_counts(bytes(record.additionalEventData))
        if found is None or counted is None:
            return None
        shape, key, parameters = found
        additional, bytes_in, bytes_out, floats = counted
        response = bytes(record.responseElements)
        name = (
            user,
            shape.rest,
            record.eventCategory,
            record.managementEvent,
            record.recipientAccountId or record.recipientAccountId is None,
            category,
            floats,
            not additional,
            not response,
            bytes(record.tlsDetails),
            bytes(record.apiVersion),
            bytes(record.vpcEndpointAccountId),
            bytes(record.sessionCredentialFromConsole),
        )
        rest = self._rests.get(name, _UNKNOWN)
        if rest is _UNKNOWN:
            rest = self._new_rest(name, raw)
        if rest is _UNKNOWN:
            return None
        return _Derived(
            micros,
            who,
            shape,
            key if shape.has_key else None,
            parameters,
            additional or None,
            bytes_in,
            bytes_out,
            None if response == b"null" or not response else response,
            rest,
            category,
            account,
        )

    def _time(self, text: str) -> int | None:
        """Microseconds of a time in CloudTrail's own form; None for any other."""
        try:
            return self._times[text]
        except KeyError:
            if len(self._times) > _CACHE_LIMIT:
                self._times.clear()
            micros = self._times[text] = _canonical_time(text)
            return micros

    def _shape(self, record: _Record, account: str | None, category: str) -> tuple[_Shape, bytes, str | None] | None:
        """The shape of the request, the key that fills it, and the column ``request_parameters``."""
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
        name = (
            record.eventSource,
            record.eventName,
            record.awsRegion,
            account,
            category,
            kept is None,
            match and key[:1] == b"{",
            before,
            after,
            resources,
        )
        try:
            shape = self._shapes[name]
        except KeyError:
            if len(self._shapes) > _CACHE_LIMIT:
                self._shapes.clear()
            self._numbered += 1
            shape = self._shapes[name] = _parse_shape(record, account, category, match, self._numbered)
        if shape is None:
            return None
        return shape, key, shape.request_parameters if kept is None else kept

    def _new_rest(self, name: tuple[Any, ...], raw: bytes) -> Any:
        value = parse(raw)
        if not isinstance(value, dict):
            return _UNKNOWN
        if len(self._rests) > _CACHE_LIMIT:
            self._rests.clear()
        try:
            rest = self._rests[name] = careful.row(value, "")["rest"]
        except careful.NotARecord:
            return _UNKNOWN
        return rest

    def _new_who(self, user: bytes) -> _Who:
        if len(self._who) > _CACHE_LIMIT:
            self._who.clear()
        self._numbered += 1
        who = self._who[user] = _Who(careful.identity(json.loads(user) if user else None), self._numbered)
        return who

    # -- careful -----------------------------------------------------------------------------------------------------

    def _add_slow(self, log_object: str, raws: list[bytes], positions: list[int], tally: Tally) -> None:
        regular = len(raws) - len(positions)
        strange: list[tuple[int, bytes]] = []
        for at in positions:
            value = parse(raws[at])
            if not isinstance(value, dict):
                reason = "not JSON" if value is INVALID else "not a JSON object"
                tally.malformed.append(Malformed(at, reason, text_of(raws[at])))
            elif not looks_like_record(value):
                strange.append((at, raws[at]))
            else:
                self._take_slow(log_object, at, value, raws[at], tally)
                regular += 1
        if strange and not regular and not tally.malformed:
            tally.foreign = "JSON, but no CloudTrail record"
            tally.records -= len(strange)
            return
        tally.malformed += [Malformed(at, "not a CloudTrail record", text_of(raw)) for at, raw in strange]

    def _take_slow(self, log_object: str, at: int, value: dict[str, Any], raw: bytes, tally: Tally) -> None:
        try:
            row = careful.row(value, log_object)
        except careful.NotARecord as error:
            tally.malformed.append(Malformed(at, str(error), text_of(raw)))
            return
        self._slow.append(row)
        self._slow_checks.append(isal_zlib.crc32(dump_bytes(value)))
        self.rows += 1

    # -- Arrow -------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Turns what was collected into Arrow columns and lets the Python objects go."""
        if self._records:
            self._tables.append(_fast_table(self._records, self._derived, self._objects))
            self._ids.append(identities([record.eventID for record in self._records]))
            self._records, self._derived, self._objects = [], [], []
        if self._slow:
            self._tables.append(_slow_table(self._slow))
            self._ids.append(identities([row["event_id"] for row in self._slow]))
            self._checks += self._slow_checks
            self._slow, self._slow_checks = [], []

    def finish(self) -> Chunk:
        """The rows so far; the builder is empty afterwards and keeps its caches."""
        self.flush()
        table = pa.concat_tables(self._tables).combine_chunks() if self._tables else CHUNK_SCHEMA.empty_table()
        ids = np.concatenate(self._ids) if self._ids else np.empty(0, "V16")
        chunk = Chunk(table, ids, np.array(self._checks, np.uint32))
        self._tables, self._ids, self._checks, self.rows = [], [], [], 0
        return chunk


def _canonical_time(text: str) -> int | None:
    """Microseconds of ``2024-01-15T08:30:00Z``; None for every other way to write a time."""
    if len(text) != 20 or text[4:17:3] != "--T::" or text[19] != "Z":
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp()) * 1_000_000
    except ValueError:
        return None


def _join(before: bytes, after: bytes) -> str:
    """An object without the member that stood between ``before`` and ``after``."""
    if before.endswith(b","):
        before = before[:-1]
    elif after.startswith(b","):
        after = after[1:]
    return (before + after).decode()


def _split_counts(text: bytes) -> tuple[bytes, int | None, int | None, int] | None:
    """Cuts the byte counts out of ``additionalEventData``: the rest, bytes in, bytes out, which were floats (1, 2)."""
    if not text:
        return b"", None, None, 0
    if text.count(b"{") != 1 or text[:1] != b"{":
        return None
    bytes_in = bytes_out = None
    floats = 0
    counts = _COUNT.findall(text)
    for which, digits, point in counts:
        if which == b"In" and bytes_in is None:
            bytes_in = int(digits)
            floats |= 1 if point else 0
        elif which == b"Out" and bytes_out is None:
            bytes_out = int(digits)
            floats |= 2 if point else 0
        else:
            return None
    if counts:
        text = _COUNT.sub(b"", text)
        if text[1:2] == b",":
            text = b"{" + text[2:]
    if b"bytesTransferred" in text:
        return None
    return text, bytes_in, bytes_out, floats


def _parse_shape(
    record: _Record, account: str | None, category: str, match: re.Match[bytes] | None, number: int
) -> _Shape | None:
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
    return _shape_from(careful.row(value, ""), hole, number)


def _shape_from(row: dict[str, Any], hole: str | None, number: int) -> _Shape | None:
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
        number,
    )


# -- Arrow -----------------------------------------------------------------------------------------------------------


def _encoded(values: Sequence[Any]) -> pa.DictionaryArray:
    return pa.array(values, pa.string()).dictionary_encode()


def _spread(values: Sequence[str | None], codes: pa.Array) -> pa.DictionaryArray:
    """A dictionary column from one value a code; equal values share one dictionary entry."""
    encoded = _encoded(values)
    return pa.DictionaryArray.from_arrays(encoded.indices.take(codes), encoded.dictionary)


def _codes(numbers: list[int]) -> tuple[list[int], pa.Array]:
    """The position of the first row of each distinct number, and each row's place among them."""
    _, first, inverse = np.unique(np.array(numbers, np.int64), return_index=True, return_inverse=True)
    return first.tolist(), pa.array(inverse.astype(np.int32))


def _fast_table(records: list[_Record], derived: list[_Derived], objects: list[str]) -> pa.Table:
    """Columns of regular records, in CHUNK_SCHEMA."""
    columns: dict[str, Any] = {}
    for member, column in careful.PLAIN.items():
        if member not in ("eventCategory", "recipientAccountId"):
            columns[column] = list(map(attrgetter(member), records))
    columns["read_only"] = [record.readOnly for record in records]
    first, whose = _codes([d.who.number for d in derived])
    for name in careful.Identity._fields:
        columns[name] = _spread([getattr(derived[at].who.columns, name) for at in first], whose)
    first, which = _codes([d.shape.number for d in derived])
    shapes = [derived[at].shape for at in first]
    for name in ("resource_type", "resource_arn", "resource_account"):
        columns[name] = _spread([getattr(shape, name) for shape in shapes], which)
    columns["resource_arns"] = pa.array([shape.resource_arns for shape in shapes], _ARROW["list<string>"]).take(which)
    columns["request_parameters"] = [d.parameters for d in derived]
    columns["resources"] = [None if d.shape.resources is None else _resources(d) for d in derived]
    columns["object_key"] = [d.object_key if d.shape.has_key else d.shape.fixed_key for d in derived]
    columns["event_time"] = pa.array(np.array([d.micros for d in derived], "datetime64[us]"), _ARROW["timestamp"])
    columns["event_category"] = [d.category for d in derived]
    columns["account_id"] = [d.account for d in derived]
    columns["bytes_in"] = [d.bytes_in for d in derived]
    columns["bytes_out"] = [d.bytes_out for d in derived]
    columns["additional_event_data"] = [d.additional for d in derived]
    columns["response_elements"] = [d.response for d in derived]
    columns["rest"] = [d.rest for d in derived]
    columns["weight"] = pa.array(np.ones(len(records)))
    columns["log_object"] = objects
    sources = _encoded(columns["event_source"])
    services = [careful.service_of(source) for source in sources.dictionary.to_pylist()]
    columns["service"] = _spread(services, sources.indices)
    return _table(columns)


def _resources(derived: _Derived) -> str:
    parts = derived.shape.resources
    assert parts is not None
    return parts[0] if len(parts) == 1 else (derived.object_key or b"").decode().join(parts)


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


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def identities(event_ids: list[str]) -> np.ndarray[Any, np.dtype[np.void]]:
    """16 bytes for each event id: those of a UUID in its usual form, else the MD5 of the text."""
    is_uuid = _UUID.fullmatch
    digest = hashlib.md5
    parts = [
        bytes.fromhex(text.replace("-", "")) if is_uuid(text) else digest(text.encode(), usedforsecurity=False).digest()
        for text in event_ids
    ]
    return np.frombuffer(b"".join(parts), "V16")
