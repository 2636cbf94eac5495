"""Regular records: what each has for itself, and what it shares with many others.

Most records have known members of known types, and what is expensive to derive from them repeats: who calls, from
where, and the shape of the request. So a record is cut into a row and three *names*, which are its texts without what
varies from call to call (time, ids, object key, byte counts). Only a name never seen before is worked out, by the very
functions of the slow path (``decode.record``). The C scanner (optional) cuts records much faster than
``InternTable.take``, and asks ``InternTable`` what a new name stands for; the rows are the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from trailsift.decode import record as careful
from trailsift.decode.envelope import dump, parse
from trailsift.decode.outcome import NotARecord

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
_SLOT = "\u2e28trailsift key\u2e29"
_HOLE_ITEM = '{"' + _SLOT + '":"' + _SLOT + '"}'

_PREFIX = re.compile(rb'"prefix":"([^"\\]+)"')
_TEXT_KEY = re.compile(rb'"key":"([^"\\]+)"')
_ITEM_KEY = re.compile(rb'"key":(\{"[^"\\]*":"[^"\\]*"(?:,"[^"\\]*":"[^"\\]*")*\})')
#: Other members whose values vary from call to call and say nothing about the resource, by action.
_PART = re.compile(rb'(?<=")(?:uploadId|partNumber|versionId)":"[^"\\]*"')
_LIST = re.compile(rb'(?<=")(?:prefix|marker|start-after|continuation-token|max-keys)":"[^"\\]*"')
_FLAT = rb'\{"[^"\\]*":"[^"\\]*"(?:,"[^"\\]*":"[^"\\]*")*\}'
_ITEMS = re.compile(rb'(?<="key":)' + _FLAT + rb'|(?<="keys":\[)' + _FLAT + rb"(?:," + _FLAT + rb")*(?=\])")
#: What follows the stream's ARN; what follows the bucket that a copy reads.
_ITERATOR = re.compile(rb'(?<="shardIterator":")([^"\\]*\|)[A-Za-z0-9+/=]+(?=")')
_COPY = re.compile(_PART.pattern + rb'|(?<="x-amz-copy-source":")([a-z0-9.-]+/)[^"\\]*(?=")')
_SESSION = re.compile(rb'(?<=")roleSessionName":"[^"\\]*"')
_SEGMENT = re.compile(rb'(?<=")segment":[0-9]+')
#: Texts in a PartiQL statement (``_without_literals``).
_LITERAL = re.compile(rb"'[^'\\]*'")
_VARYING: dict[str, re.Pattern[bytes]] = {
    **dict.fromkeys(
        ("UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload", "ListParts", "GetObject", "HeadObject"), _PART
    ),
    **dict.fromkeys(("ListObjects", "ListObjectVersions", "ListMultipartUploads"), _LIST),
    **dict.fromkeys(("BatchGetItem", "BatchWriteItem", "TransactGetItems", "TransactWriteItems"), _ITEMS),
    "GetRecords": _ITERATOR,
    **dict.fromkeys(("CopyObject", "UploadPartCopy"), _COPY),
    **dict.fromkeys(("AssumeRole", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity"), _SESSION),
    "Scan": _SEGMENT,
    "ExecuteStatement": _LITERAL,
}

#: What is known beyond this many is dropped and learnt anew, unless most of it is in use.
_CACHE_LIMIT = 4_000
#: Beyond this many it is dropped in any case.
_CACHE_MOST = 50_000


class RequestTemplate(NamedTuple):
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


@dataclass(eq=False)
class Caller:
    """A ``userIdentity``: its columns and its text."""

    number: int
    text: str | None

    @cached_property
    def identity(self) -> careful.Identity:
        """Its columns, worked out when they are asked for: sessions are many, and short."""
        return careful.caller_of(json.loads(self.text) if self.text is not None else None)


class Origin(NamedTuple):
    """Where calls come from, and the text of ``tlsDetails``, which varies with it."""

    number: int
    source_ip: str | None
    user_agent: str | None
    vpc_endpoint_id: str | None
    tls: str | None


class CallTemplate(NamedTuple):
    """What records have in common besides: all but who, the place, the time, the ids, the key and the counts."""

    number: int
    #: Values of WHAT_MEMBERS, in that order. Not the record: its raw members would keep the whole object in memory.
    members: tuple[str | None, ...]
    service: str
    read_only: bool | None
    shape: RequestTemplate
    category: str
    account: str | None
    #: ``rest`` without ``userIdentity`` and ``tlsDetails``.
    rest: str | None


class Row(NamedTuple):
    """What a regular record has for itself, and the numbers of what it shares."""

    who: int
    place: int
    what: int
    event_time: int
    event_id: str
    request_id: str | None
    error_message: str | None
    shared_event_id: str | None
    object_key: bytes | None
    #: Only where ``what`` does not say it.
    request_parameters: str | None
    additional_event_data: bytes | None
    response_elements: bytes | None
    bytes_in: int | None
    bytes_out: int | None


#: Columns that ``CallTemplate`` gives, by member.
WHAT_MEMBERS = {
    member: column
    for member, column in careful.PLAIN.items()
    if column not in (*Row._fields, *Origin._fields, "event_category", "account_id")
}
_what_members = attrgetter(*WHAT_MEMBERS)


class _Cut(NamedTuple):
    """A record's texts, taken apart into what its name has and what varies."""

    key: bytes | None
    before: bytes
    after: bytes
    resources: bytes
    #: The request parameters without the key, where more than the key varies in them.
    kept: str | None
    additional: bytes
    bytes_in: int | None
    bytes_out: int | None
    #: Which byte counts were written as floats: 1 in, 2 out.
    floats: int

    @property
    def key_is_item(self) -> bool:
        """Whether the key is an object, as DynamoDB's are."""
        return self.key is not None and self.key[:1] == b"{"


#: Longer statements are not looked at to their ends (``resource``), so what is cut out would matter.
_STATEMENT_BYTES = 8192
_STATEMENT = re.compile(rb'(?<="statement":")(?:[^"\\]|\\[^u])*(?=")')


def _fixed(varying: re.Pattern[bytes], text: bytes) -> bytes:
    """Request parameters without what varies in them."""
    if varying is _LITERAL:
        return _STATEMENT.sub(lambda statement: _without_literals(statement[0]), text, count=1)
    return varying.sub(rb"\1" if varying in (_ITERATOR, _COPY) else b"", text)


def _without_literals(statement: bytes) -> bytes:
    """A statement without its texts, where it is sure which they are: they never say which table it is about."""
    left = _LITERAL.sub(b"\0", statement)
    return statement if len(statement) > _STATEMENT_BYTES or b"'" in left else left


def _key_of(parameters: bytes, varying: re.Pattern[bytes] | None) -> re.Match[bytes] | None:
    """Where the object key stands; for a listing it is the prefix."""
    if varying is _ITEMS:
        return None
    if varying is _LIST:
        return _PREFIX.search(parameters)
    return _TEXT_KEY.search(parameters) or _ITEM_KEY.search(parameters)


def _cut(record: _Record) -> tuple[_Cut, re.Match[bytes] | None] | None:
    """Takes a record apart; None where it cannot be done for sure."""
    parameters, resources = bytes(record.requestParameters), bytes(record.resources)
    varying = _VARYING.get(record.eventName)
    if varying is _LIST and b'"key":' in parameters:
        # Two keys.
        return None
    match = _key_of(parameters, varying)
    key = None
    before, after = parameters, b""
    if match is not None:
        key, before, after = match[1], parameters[: match.start()], parameters[match.end() :]
        if key[:1] != b"{":
            # A mark that no JSON has: an ARN that ends in "/" is not one that was cut.
            resources = resources.replace(b"/" + key + b'"', b'/\0"')
    kept = None
    if varying is not None:
        fixed = _fixed(varying, before), _fixed(varying, after)
        if varying is _LIST and match is not None:
            kept = parameters.decode()
        elif fixed != (before, after):
            kept = _join(before, after)
        before, after = fixed
    additional = bytes(record.additionalEventData)
    counted = None if additional == b"null" else _split_counts(additional)
    if counted is None:
        return None
    return _Cut(key, before, after, resources, kept, *counted), match


class InternTable:
    """What records share, as far as it is known.

    ``thin`` tells of which records nothing will be stored: `_scan` takes them without their texts.
    """

    def __init__(self, thin: Callable[[CallTemplate], bool] | None = None) -> None:
        self._thin = thin
        self.who: list[Caller] = []
        self.place: list[Origin] = []
        self.what: list[CallTemplate] = []
        self._who: dict[bytes, Caller] = {}
        self._place: dict[tuple[Any, ...], Origin] = {}
        self._what: dict[tuple[Any, ...], CallTemplate | None] = {}
        self._shapes: dict[tuple[Any, ...], RequestTemplate | None] = {}
        self._rests: dict[tuple[Any, ...], str | None] = {}
        self._times: dict[str, int | None] = {}

    def trim(self, in_use: int = 0) -> bool:
        """Drops what has grown too large; True where numbers mean nothing any more.

        ``in_use``: how many of one kind the rows of late have named. Sessions come and go, so old ones are seldom asked
        for again.
        """
        if len(self._times) > _CACHE_MOST:
            self._times.clear()
        known = max(len(self.who), len(self.place), len(self._what), len(self._shapes), len(self._rests))
        if known <= max(_CACHE_LIMIT, min(2 * in_use, _CACHE_MOST)):
            return False
        self.__init__(self._thin)  # type: ignore[misc]
        return True

    def take(self, raw: bytes | memoryview) -> Row | None:
        """One regular record; None sends it down the careful path."""
        try:
            record = _decode(raw)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return None
        micros = self._times.get(record.eventTime) or self._time(record.eventTime)
        found = _cut(record)
        if found is None or micros is None or not record.eventID:
            return None
        cut, match = found
        try:
            who = self._who_with(bytes(record.userIdentity))
        except (RecursionError, ValueError):
            return None
        what = self._what_of(record, who, cut, match, raw)
        if what is None:
            return None
        if cut.kept is not None and match is None and what.shape.fixed_key is not None:
            # A key that could not be cut out (escapes in it) stands in `kept`.
            return None
        response = bytes(record.responseElements)
        return Row(
            who.number,
            self._place_of(record).number,
            what.number,
            micros,
            record.eventID,
            record.requestID,
            record.errorMessage,
            record.sharedEventID,
            cut.key if what.shape.has_key else None,
            cut.kept,
            cut.additional or None,
            None if response == b"null" else response or None,
            cut.bytes_in,
            cut.bytes_out,
        )

    # What `_scan` asks of a name that it does not know; see Scanner.

    def scan_who(self, user: bytes, named: int) -> int:
        """Number * 2, + 1 where no account is named; ``named``: one is for sure, and the text can be read."""
        if named:
            return self._who_with(user, read=False).number * 2
        try:
            who = self._who_with(user)
        except (RecursionError, ValueError):
            return -2
        return who.number * 2 + (who.identity.principal_account is None)

    def scan_place(self, raw: bytes) -> int:
        """The number."""
        try:
            return self._place_of(_decode(raw)).number
        except (msgspec.DecodeError, RecursionError, ValueError):
            return -2

    def scan_what(self, raw: bytes, key: bytes, key_is_item: int, kept: int) -> int:
        """Number * 8, + 1 where the key belongs to the row, + 2 where there is a key for all, + 4 where it is thin."""
        try:
            record = _decode(raw)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return -2
        found = _cut(record)
        if found is None:
            return -2
        cut, match = found
        if (cut.key or b"", cut.key_is_item, cut.kept is not None) != (key, bool(key_is_item), bool(kept)):
            # Cut in another place: which one is right, the careful path says.
            return -2
        what = self._what_of(record, self._who_with(bytes(record.userIdentity)), cut, match, raw)
        if what is None:
            return -1
        thin = self._thin is not None and self._thin(what)
        return what.number * 8 + what.shape.has_key + 2 * (what.shape.fixed_key is not None) + 4 * thin

    def _time(self, text: str) -> int | None:
        """Microseconds of a time in CloudTrail's own form; None for any other."""
        micros = self._times[text] = careful.canonical_time(text)
        return micros

    def _who_with(self, user: bytes, *, read: bool = True) -> Caller:
        """Who has this ``userIdentity`` (empty: none). ValueError, RecursionError where its text cannot be read."""
        who = self._who.get(user)
        if who is None:
            who = Caller(len(self.who), user.decode() if user else None)
            if read:
                _ = who.identity
            self._who[user] = who
            self.who.append(who)
        return who

    def _place_of(self, record: _Record) -> Origin:
        name = record.sourceIPAddress, record.userAgent, record.vpcEndpointId, bytes(record.tlsDetails)
        place = self._place.get(name)
        if place is None:
            place = self._place[name] = Origin(len(self.place), *name[:3], name[3].decode() if name[3] else None)
            self.place.append(place)
        return place

    def _what_of(
        self, record: _Record, who: Caller, cut: _Cut, match: re.Match[bytes] | None, raw: bytes | memoryview
    ) -> CallTemplate | None:
        name = (
            # Whose account it is matters where the record does not say.
            who.text if record.recipientAccountId is None else None,
            who.text is not None,
            who.identity.principal_account is None,
            cut.before,
            cut.after,
            cut.resources,
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
            record.vpcEndpointAccountId,
            record.sessionCredentialFromConsole,
            cut.kept is None,
            cut.key is None,
            cut.key_is_item,
            cut.floats,
            not cut.additional,
            not bytes(record.responseElements),
        )
        try:
            return self._what[name]
        except KeyError:
            what = self._what[name] = self._new_what(record, who, cut, match, raw)
            return what

    def _new_what(
        self, record: _Record, who: Caller, cut: _Cut, match: re.Match[bytes] | None, raw: bytes | memoryview
    ) -> CallTemplate | None:
        """Works out, by the careful path, what all records of this name have in common."""
        category = careful.category(
            {
                "eventCategory": record.eventCategory,
                "eventType": record.eventType,
                "managementEvent": record.managementEvent,
                "eventSource": record.eventSource,
                "eventName": record.eventName,
            }
        )
        account = record.recipientAccountId or who.identity.principal_account
        cuts = cut.before, cut.after, cut.resources, cut.kept is None, cut.key is None, cut.key_is_item
        shape_name = *cuts, record.eventSource, record.eventName, record.awsRegion, account, category
        if shape_name not in self._shapes:
            self._shapes[shape_name] = _parse_shape(record, account, category, match)
        shape = self._shapes[shape_name]
        if shape is None:
            return None
        try:
            rest = self._rest(record, who, cut, shape, account, category, raw)
        except NotARecord:
            return None
        service = careful.service_of(record.eventSource)
        members = _what_members(record)
        what = CallTemplate(len(self.what), members, service, record.readOnly, shape, category, account, rest)
        self.what.append(what)
        return what

    def _rest(
        self,
        record: _Record,
        who: Caller,
        cut: _Cut,
        shape: RequestTemplate,
        account: str | None,
        category: str,
        raw: bytes | memoryview,
    ) -> str | None:
        """``rest`` without who and the place: it depends on who it is only in whether there is somebody."""
        nobody = who.identity.principal_account is None
        name = (
            who.text is None,
            nobody,
            shape.rest,
            category,
            record.eventCategory,
            record.managementEvent,
            record.recipientAccountId,
            record.apiVersion,
            record.vpcEndpointAccountId,
            record.sessionCredentialFromConsole,
            cut.floats,
            not cut.additional,
            not bytes(record.responseElements),
        )
        if name not in self._rests:
            value = parse(bytes(raw))
            if not isinstance(value, dict):
                raise NotARecord("not a JSON object")
            if who.text is not None:
                value["userIdentity"] = {"accountId": account} if account and not nobody else {}
            value.pop("tlsDetails", None)
            self._rests[name] = _without_user(careful.row(value, "")["rest"])
        return self._rests[name]


def _without_user(rest: str | None) -> str | None:
    """``rest`` without the userIdentity it starts with."""
    members = json.loads(rest) if rest else {}
    members.pop("userIdentity", None)
    return dump(members) if members else None


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


def _parse_shape(
    record: _Record, account: str | None, category: str, match: re.Match[bytes] | None
) -> RequestTemplate | None:
    """Parses one shape with a stand-in for the key. None where the key cannot be told from the rest."""
    parameters, resources = bytes(record.requestParameters), bytes(record.resources)
    hole = None
    if match is not None:
        hole = _HOLE_ITEM if match[1][:1] == b"{" else _SLOT
        if _SLOT.encode() in parameters or _SLOT.encode() in resources:
            return None
        put = hole.encode() if hole is _HOLE_ITEM else b'"' + hole.encode() + b'"'
        member = match[0][: match[0].index(b":") + 1]
        parameters = parameters[: match.start()] + member + put + parameters[match.end() :]
        if hole is _SLOT:
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
    row = careful.row(value, "")
    if match is not None and match.re is _PREFIX:
        # Every row has its own, with the prefix in it.
        row["request_parameters"] = None
    return _shape_from(row, hole)


def _shape_from(row: dict[str, Any], hole: str | None) -> RequestTemplate | None:
    has_key = hole is not None and row["object_key"] == hole
    fixed = [row["resource_type"], row["resource_arn"], *row["resource_arns"], row["resource_account"]]
    fixed.append(row["request_parameters"])
    if not has_key:
        fixed += [row["object_key"], row["resources"]]
    if any(text is not None and _SLOT in text for text in fixed):
        return None
    resources = row["resources"]
    parts: tuple[str, ...] | None = None
    if resources is not None:
        parts = tuple(resources.split(_SLOT)) if has_key else (resources,)
        if has_key and hole is _HOLE_ITEM and len(parts) > 1:
            return None
    return RequestTemplate(
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
