"""Regular records, fast and with nothing but the standard library and msgspec: record text -> columns of an event.

A record is regular when it has known members of known types and nothing else, as nearly all have. For it one typed
decode is enough, because what is expensive to derive repeats: the same session, the same shape of request. What
records have in common is looked up by its bytes, with the object key cut out; what was never seen before goes once
through ``decode.record``, and so does everything that is not regular. Both give the same columns.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from trailsift import event
from trailsift.decode import record as careful
from trailsift.decode.found import dump, parse

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

#: A cache that has grown beyond this many entries is dropped and starts anew.
_CACHE_LIMIT = 20_000


class User(NamedTuple):
    """Who made a call: the columns that ``userIdentity`` gives, and its JSON as it was written, if there is any."""

    columns: dict[str, Any]
    text: str | None


class Line(NamedTuple):
    """What many records have in common whoever made the call, as columns."""

    columns: dict[str, Any]
    #: ``rest`` without ``userIdentity``.
    rest: str | None
    #: Whether the object key varies.
    has_key: bool
    #: JSON of ``resources`` cut where the key stands; None where it holds no key.
    resources: tuple[str, ...] | None


class Own(msgspec.Struct, omit_defaults=True, gc=False):
    """The columns that a record has for itself; None where the line says it."""

    event_time: int
    event_id: str
    request_id: str | None = None
    source_ip: str | None = None
    user_agent: str | None = None
    error_message: str | None = None
    shared_event_id: str | None = None
    object_key: str | None = None
    request_parameters: str | None = None
    additional_event_data: str | None = None
    response_elements: str | None = None
    resources: str | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None


#: Columns that only ``Own`` has.
_OWN = frozenset(Own.__struct_fields__) - {"object_key", "request_parameters", "resources"}
_NOT_OF_LINE = _OWN | {*careful.Identity._fields, "rest", "log_object", "weight"}


_NOTHING = {column.name: None for column in event.EVENTS.columns if column.name not in ("year", "month", "day")}


def columns_of(user: User, line: Line, own: Own) -> dict[str, Any]:
    """The three parts of a record's columns as one row, as ``decode.record.row`` gives it but for ``log_object``."""
    row = _NOTHING | user.columns | line.columns
    row.update((name, value) for name, value in msgspec.structs.asdict(own).items() if value is not None)
    row["rest"] = careful.compose_rest(user.text, None, line.rest)
    return row


class Reader:
    """Reads regular records; keeps what they have in common from one call to the next, within bounds."""

    def __init__(self) -> None:
        self._users: dict[bytes, User] = {}
        self._lines: dict[tuple[Any, ...], Line | None] = {}
        self._times: dict[str, int | None] = {}

    def read(self, raw: bytes | memoryview) -> tuple[User, Line, Own] | None:
        """The three parts of a record's columns, or None: then it is for ``decode.record.row``."""
        try:
            record = _decode(raw)
            return self._take(record, raw)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return None

    def _take(self, record: _Record, raw: bytes | memoryview) -> tuple[User, Line, Own] | None:
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
        counted = split_counts(additional)
        if counted is None:
            return None
        additional, bytes_in, bytes_out, floats = counted
        who = bytes(record.userIdentity)
        user = self._users.get(who) or self._user(who)
        name = (
            record.recipientAccountId or user.columns["principal_account"],
            bool(who),
            before,
            after,
            resources,
            bytes(record.tlsDetails),
            record.eventSource,
            record.eventName,
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
            line = self._line(name, match, raw)
        if line is None or micros is None or not record.eventID:
            return None
        if kept is not None and match is None and line.columns.get("object_key") is not None:
            # A key that could not be cut out (escapes in it) stands in `kept`.
            return None
        object_key = key.decode() if line.has_key else None
        own = Own(
            micros,
            record.eventID,
            record.requestID,
            record.sourceIPAddress,
            record.userAgent,
            record.errorMessage,
            record.sharedEventID,
            object_key,
            kept,
            additional.decode() or None,
            None if response == b"null" else response.decode() or None,
            None if line.resources is None else (object_key or "").join(line.resources),
            bytes_in,
            bytes_out,
        )
        return user, line, own

    def _time(self, text: str) -> int | None:
        if len(self._times) > _CACHE_LIMIT:
            self._times.clear()
        micros = self._times[text] = _canonical_time(text)
        return micros

    def _user(self, text: bytes) -> User:
        if len(self._users) > _CACHE_LIMIT:
            self._users.clear()
        who = careful.identity(json.loads(text) if text else None)
        made = self._users[text] = User(who._asdict(), text.decode() or None)
        return made

    def _line(self, name: tuple[Any, ...], match: re.Match[bytes] | None, raw: bytes | memoryview) -> Line | None:
        if len(self._lines) > _CACHE_LIMIT:
            self._lines.clear()
        line = self._lines[name] = _parse_line(bytes(raw), name, match)
        return line


def _parse_line(raw: bytes, name: tuple[Any, ...], match: re.Match[bytes] | None) -> Line | None:
    """Parses one record with a stand-in for the key. None where the key cannot be told from the rest."""
    value = parse(raw)
    if not isinstance(value, dict) or _HOLE.encode() in raw:
        return None
    if "userIdentity" in value:
        # Nothing here depends on who it is, only on the account.
        value["userIdentity"] = {} if name[0] is None else {"accountId": name[0]}
    hole = None
    if match is not None:
        hole = _HOLE_ITEM if match[1][:1] == b"{" else _HOLE
        put = hole.encode() if hole is _HOLE_ITEM else b'"' + hole.encode() + b'"'
        before, after = match.string[: match.start()], match.string[match.end() :]
        value["requestParameters"] = json.loads(before + b'"key":' + put + after)
        if hole is _HOLE and value.get("resources"):
            value["resources"] = _with_hole(value["resources"], f"/{match[1].decode()}")
    try:
        columns = careful.row(value, "")
    except careful.NotARecord:
        return None
    has_key = hole is not None and columns["object_key"] == hole
    parts = None
    if has_key:
        del columns["object_key"]
        if columns["resources"] is not None and _HOLE in columns["resources"]:
            if hole is _HOLE_ITEM:
                return None
            parts = tuple(columns.pop("resources").split(_HOLE))
    if not name[20]:
        # The varying members stand in each record's own text.
        columns["request_parameters"] = None
    rest = json.loads(columns["rest"]) if columns["rest"] else {}
    rest.pop("userIdentity", None)
    others = dump(rest) if rest else None
    kept = {
        column: content
        for column, content in columns.items()
        if content is not None and column not in _NOT_OF_LINE
    }
    if _HOLE in json.dumps([kept, others], ensure_ascii=False):
        return None
    return Line(kept, others, has_key, parts)


def _with_hole(resources: Any, ending: str) -> Any:
    """``resources`` with the key at the end of each text replaced, as the bytes of it are."""
    text = json.dumps(resources, ensure_ascii=False)
    return json.loads(text.replace(ending + '"', f'/{_HOLE}"'))


def _canonical_time(text: str) -> int | None:
    """Microseconds of ``2024-01-15T08:30:00Z``; None for every other way to write a time."""
    if len(text) != 20 or text[4:17:3] != "--T::" or text[19] != "Z" or text[11:13] == "24":
        return None
    try:
        micros = int(datetime.fromisoformat(text).timestamp()) * 1_000_000
    except ValueError:
        return None
    return micros if careful.usable(micros) else None


def _join(before: bytes, after: bytes) -> str:
    """An object without the member that stood between ``before`` and ``after``."""
    if before.endswith(b","):
        before = before[:-1]
    elif after.startswith(b","):
        after = after[1:]
    return (before + after).decode()


_IN, _OUT = b'"bytesTransferredIn":', b'"bytesTransferredOut":'


def split_counts(text: bytes) -> tuple[bytes, int | None, int | None, int] | None:
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
