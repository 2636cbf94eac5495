"""The fast path: records split into the values of their own and the parts that many records share.

Most records have known members of known types, and the parts that are expensive to decode repeat: the caller, the
origin, and the form of the request. So a record is split into a row and three *signatures*: its texts without the parts
that vary from call to call (time, ids, object key, byte counts). Only a new signature is decoded, by the functions of
the slow path (``decode.record``); every other record that has it refers to the result by number. The C scanner
(optional) splits records much faster than ``InternTable.take``, and asks ``InternTable`` about new signatures; the rows
are the same.
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

from trailsift.cloudtrail.callers import Identity, identity_of
from trailsift.cloudtrail.categories import category_of
from trailsift.cloudtrail.services import service_of
from trailsift.decode.json_text import dump, has_escaped_name, has_long_number, is_spaced, is_too_deep, parse
from trailsift.decode.outcome import NotARecord
from trailsift.decode.record import PLAIN, canonical_time, row

#: The default of a member that may be absent. Its type is not optional: msgspec would accept a null for it then, and
#: a record must be restored with null and absent distinct.
_NONE: Any = None
_NO_RAW = msgspec.Raw(b"")


class _FastRecord(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The members that the fast path handles. A null, another type or another member needs the slow path."""

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


_decode = msgspec.json.Decoder(_FastRecord).decode

#: Stands for the object key while a request template is parsed; no real key has this text.
_SLOT = "\u2e28trailsift key\u2e29"
_SLOT_ITEM = '{"' + _SLOT + '":"' + _SLOT + '"}'

_PREFIX = re.compile(rb'"prefix":"([^"\\]+)"')
_TEXT_KEY = re.compile(rb'"key":"([^"\\]+)"')
_ITEM_KEY = re.compile(rb'"key":(\{"[^"\\]*":"[^"\\]*"(?:,"[^"\\]*":"[^"\\]*")*\})')
_ITEM_NAME = re.compile(rb'"([^"\\]*)":')
#: Other members whose values vary from call to call and do not affect the resource, by action.
_PART = re.compile(rb'(?<=")(?:uploadId|partNumber|versionId)":"[^"\\]*"')
_LIST = re.compile(rb'(?<=")(?:prefix|marker|start-after|continuation-token|max-keys)":"[^"\\]*"')
_FLAT = rb'\{"[^"\\]*":"[^"\\]*"(?:,"[^"\\]*":"[^"\\]*")*\}'
_ITEMS = re.compile(rb'(?<="key":)' + _FLAT + rb'|(?<="keys":\[)' + _FLAT + rb"(?:," + _FLAT + rb")*(?=\])")
#: The text after the stream's ARN; the text after the bucket that a copy reads.
_ITERATOR = re.compile(rb'(?<="shardIterator":")([^"\\]*\|)[A-Za-z0-9+/=]+(?=")')
_COPY = re.compile(_PART.pattern + rb'|(?<="x-amz-copy-source":")([a-z0-9.-]+/)[^"\\]*(?=")')
#: A source that is not ``bucket/...``: the ARN of an access point, or percent-encoded.
_POINT_SOURCE = re.compile(rb'"(?:x-amz-copy-source|copySource)":"/*[^"/]*[:%\\]')
_SESSION = re.compile(rb'(?<=")roleSessionName":"[^"\\]*"')
_SEGMENT = re.compile(rb'(?<=")segment":[0-9]+')
#: String literals in a PartiQL statement (``_without_literals``).
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

#: A table with more entries than this is cleared and built again, unless most of it is in use.
_CACHE_LIMIT = 4_000
#: A table with more entries than this is cleared in any case.
_CACHE_MOST = 50_000


class RequestTemplate(NamedTuple):
    """The columns that ``requestParameters`` and ``resources`` give when the object key is cut out of them."""

    resource_type: str | None
    resource_arn: str | None
    resource_arns: tuple[str, ...]
    resource_account: str | None
    has_key: bool
    #: An object key that is the same for every record of the template.
    fixed_key: str | None
    request_parameters: str | None
    #: JSON of ``resources``, split where the key was cut out; None if the typed columns imply it.
    resources: tuple[str, ...] | None
    #: The part of ``rest`` that the request causes.
    rest: str | None
    #: What a copy reads; the key of that object differs per row.
    source_resource_arn: str | None


@dataclass(eq=False)
class Caller:
    """A ``userIdentity``: its columns and its text."""

    number: int
    text: str | None

    @cached_property
    def identity(self) -> Identity:
        """Its columns, derived on first use: sessions are many, and short-lived."""
        return identity_of(json.loads(self.text) if self.text is not None else None)


class Origin(NamedTuple):
    """The source of calls, and the text of ``tlsDetails``, which varies with it."""

    number: int
    source_ip: str | None
    user_agent: str | None
    vpc_endpoint_id: str | None
    tls: str | None


class CallTemplate(NamedTuple):
    """Everything else that records share: all but caller, origin, time, ids, object key and byte counts."""

    number: int
    #: Values of WHAT_MEMBERS, in that order. Not the record: its raw members would keep the whole object in memory.
    members: tuple[str | None, ...]
    service: str
    read_only: bool | None
    request: RequestTemplate
    category: str
    account: str | None
    #: ``rest`` without ``userIdentity`` and ``tlsDetails``.
    rest: str | None


class Row(NamedTuple):
    """The values that belong to one record only, and the numbers of its caller, origin and call template."""

    who: int
    place: int
    what: int
    event_time: int
    event_id: str
    request_id: str | None
    error_message: str | None
    shared_event_id: str | None
    object_key: bytes | None
    #: None if the call template has them.
    request_parameters: str | None
    additional_event_data: bytes | None
    response_elements: bytes | None
    bytes_in: int | None
    bytes_out: int | None


#: Members that ``CallTemplate`` holds, and their columns.
WHAT_MEMBERS = {
    member: column
    for member, column in PLAIN.items()
    if column not in (*Row._fields, *Origin._fields, "event_category", "account_id")
}
_what_members = attrgetter(*WHAT_MEMBERS)


class _Cut(NamedTuple):
    """A record's texts, split into the parts of its signature and the parts that vary."""

    key: bytes | None
    before: bytes
    after: bytes
    resources: bytes
    #: The request parameters without the key, if more than the key varies in them.
    kept: str | None
    additional: bytes
    bytes_in: int | None
    bytes_out: int | None
    #: Which byte counts were written as floats: 1 in, 2 out.
    floats: int

    @property
    def key_is_item(self) -> bool:
        """True if the key is an object, as DynamoDB's keys are."""
        return self.key is not None and self.key[:1] == b"{"


#: The slow path reads longer statements only in part (``cloudtrail.resources``), so cutting would change the result.
_STATEMENT_BYTES = 8192
_STATEMENT = re.compile(rb'(?<="statement":")(?:[^"\\]|\\[^u])*(?=")')


def _fixed(varying: re.Pattern[bytes], text: bytes) -> bytes:
    """Return request parameters without the parts that vary."""
    if varying is _LITERAL:
        return _STATEMENT.sub(lambda statement: _without_literals(statement[0]), text, count=1)
    return varying.sub(rb"\1" if varying in (_ITERATOR, _COPY) else b"", text)


def _without_literals(statement: bytes) -> bytes:
    """Return a statement without its string literals, which never name a table; unchanged if they are ambiguous."""
    cut = _LITERAL.sub(b"\0", statement)
    return statement if len(statement) > _STATEMENT_BYTES or b"'" in cut else cut


def _key_of(parameters: bytes, varying: re.Pattern[bytes] | None) -> re.Match[bytes] | None:
    """Find the object key; for a listing it is the prefix."""
    if varying is _ITEMS:
        return None
    if varying is _LIST:
        return _PREFIX.search(parameters)
    return _TEXT_KEY.search(parameters) or _ITEM_KEY.search(parameters)


def _is_plain_key(key: bytes) -> bool:
    """Return whether a key in a request is stored as it is written: a text, or an object that has each name once."""
    if key[:1] != b"{":
        return True
    names = _ITEM_NAME.findall(key)
    return len(names) == len(set(names))


def _cut(record: _FastRecord) -> tuple[_Cut, re.Match[bytes] | None] | None:
    """Split a record; return None if that is not certain to be correct."""
    parameters, resources = bytes(record.requestParameters), bytes(record.resources)
    additional = bytes(record.additionalEventData)
    if b'"' in (parameters[:1], resources[:1], additional[:1]):
        # A text where an object belongs.
        return None
    if is_spaced(parameters) or is_spaced(resources) or is_spaced(additional):
        return None
    if has_escaped_name(parameters) or has_escaped_name(additional):
        return None
    varying = _VARYING.get(record.eventName)
    if varying is _LIST and b'"key":' in parameters:
        # Two keys.
        return None
    match = _key_of(parameters, varying)
    key = None
    before, after = parameters, b""
    if match is not None:
        key, before, after = match[1], parameters[: match.start()], parameters[match.end() :]
        if b"\\" in resources or (key[:1] == b"{") != (match.re is _ITEM_KEY) or not _is_plain_key(key):
            # An ARN may spell the key in another way, and a text that begins like an object is not one.
            return None
        if varying is _COPY and _POINT_SOURCE.search(parameters):
            # What lies behind an access point is found by its key in `resources`, which is cut out there.
            return None
        if b'"key":' in before or b'"key":' in after:
            # A duplicate, of which the last counts, or a nested key.
            return None
        if key[:1] != b"{":
            # A character that JSON cannot contain marks the cut: an ARN that just ends in "/" differs from it.
            resources = resources.replace(b"/" + key + b'"', b'/\0"')
    kept = None
    if varying is not None:
        fixed = _fixed(varying, before), _fixed(varying, after)
        if varying is _LIST and match is not None:
            kept = parameters.decode()
        elif fixed != (before, after):
            kept = _join(before, after)
        before, after = fixed
    counted = None if additional == b"null" else _split_counts(additional)
    if counted is None:
        return None
    return _Cut(key, before, after, resources, kept, *counted), match


class InternTable:
    """The parts that records share, each stored once and numbered: callers, origins and call templates.

    ``projected`` decides whether nothing will be stored of a template's records: the C scanner then takes only the
    columns that summaries need (projected rows).
    """

    def __init__(self, projected: Callable[[CallTemplate], bool] | None = None) -> None:
        self._projected = projected
        self._times: dict[str, int | None] = {}
        self._start()

    def _start(self) -> None:
        #: By number: a row refers to its caller, origin and call template as ``who``, ``place`` and ``what``.
        self.who: list[Caller] = []
        self.place: list[Origin] = []
        self.what: list[CallTemplate] = []
        #: By signature; None: records with this signature need the slow path.
        self._callers: dict[bytes, Caller] = {}
        self._origins: dict[tuple[Any, ...], Origin] = {}
        self._calls: dict[tuple[Any, ...], CallTemplate | None] = {}
        self._requests: dict[tuple[Any, ...], RequestTemplate | None] = {}
        self._rests: dict[tuple[Any, ...], str | None] = {}

    def trim(self, in_use: int = 0) -> bool:
        """Clear the table if it has grown too large; return True if it did, which makes all numbers invalid.

        ``in_use``: how many entries of one kind recent rows refer to. Sessions come and go, so old entries are rarely
        needed again.
        """
        if len(self._times) > _CACHE_MOST:
            self._times.clear()
        entries = max(len(self.who), len(self.place), len(self._calls), len(self._requests), len(self._rests))
        if entries <= max(_CACHE_LIMIT, min(2 * in_use, _CACHE_MOST)):
            return False
        self._start()
        return True

    def take(self, raw: bytes | memoryview) -> Row | None:
        """Split one record; return None if it needs the slow path."""
        try:
            record = _decode(raw)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return None
        text = bytes(raw)
        if has_long_number(text) or is_too_deep(text):
            return None
        if record.recipientAccountId == "":
            return None
        micros = self._times.get(record.eventTime) or self._time(record.eventTime)
        split = _cut(record)
        if split is None or micros is None or not record.eventID:
            return None
        cut, match = split
        user = bytes(record.userIdentity)
        if user[:1] == b'"':
            return None
        try:
            caller = self._caller(user)
        except (RecursionError, ValueError):
            return None
        call = self._call(record, caller, cut, match, raw)
        if call is None:
            return None
        if cut.kept is not None and match is None and call.request.fixed_key is not None:
            # `kept` still contains a key that could not be cut out because of its escapes.
            return None
        response = bytes(record.responseElements)
        return Row(
            caller.number,
            self._origin(record).number,
            call.number,
            micros,
            record.eventID,
            record.requestID,
            record.errorMessage,
            record.sharedEventID,
            cut.key if call.request.has_key else None,
            cut.kept,
            cut.additional or None,
            None if response == b"null" else response or None,
            cut.bytes_in,
            cut.bytes_out,
        )

    # The C scanner (``_native._scan.Scanner``) calls these three for a signature that is new to it. They return -2 if
    # only this record needs the slow path, and -1 if every record with this signature does.

    def scan_who(self, user: bytes, has_account: int) -> int:
        """Return the caller's number * 2, + 1 if it has no account.

        ``has_account``: the scanner has seen an account for certain, and the text is valid.
        """
        if has_account:
            return self._caller(user, parsed=False).number * 2
        try:
            caller = self._caller(user)
        except (RecursionError, ValueError):
            return -2
        return caller.number * 2 + (caller.identity.account is None)

    def scan_place(self, raw: bytes) -> int:
        """Return the origin's number."""
        try:
            return self._origin(_decode(raw)).number
        except (msgspec.DecodeError, RecursionError, ValueError):
            return -2

    def scan_what(self, raw: bytes, key: bytes, key_is_item: int, kept: int) -> int:
        """Return the call template's number * 8, + 1 if rows have a key, + 2 if all share one, + 4 if projected."""
        try:
            record = _decode(raw)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return -2
        if record.recipientAccountId == "":
            # The account is the caller's, which is not part of the signature.
            return -1
        split = _cut(record)
        if split is None:
            return -2
        cut, match = split
        if (cut.key or b"", cut.key_is_item, cut.kept is not None) != (key, bool(key_is_item), bool(kept)):
            # The scanner has cut in another place: the slow path decides.
            return -2
        call = self._call(record, self._caller(bytes(record.userIdentity)), cut, match, raw)
        if call is None:
            return -1
        # The key of what a copy reads is in the parameters, which projected rows do not have.
        is_copy = call.request.source_resource_arn is not None
        projected = self._projected is not None and not is_copy and self._projected(call)
        return call.number * 8 + call.request.has_key + 2 * (call.request.fixed_key is not None) + 4 * projected

    def _time(self, text: str) -> int | None:
        """Return the microseconds of a time in CloudTrail's own form; None for any other."""
        micros = self._times[text] = canonical_time(text)
        return micros

    def _caller(self, user: bytes, *, parsed: bool = True) -> Caller:
        """Return the caller with this ``userIdentity`` (empty: none).

        Raise ValueError or RecursionError if its text cannot be parsed, unless ``parsed`` is False.
        """
        caller = self._callers.get(user)
        if caller is None:
            caller = Caller(len(self.who), user.decode() if user else None)
            if parsed:
                _ = caller.identity
            self._callers[user] = caller
            self.who.append(caller)
        return caller

    def _origin(self, record: _FastRecord) -> Origin:
        signature = record.sourceIPAddress, record.userAgent, record.vpcEndpointId, bytes(record.tlsDetails)
        origin = self._origins.get(signature)
        if origin is None:
            tls = signature[3].decode() if signature[3] else None
            origin = self._origins[signature] = Origin(len(self.place), *signature[:3], tls)
            self.place.append(origin)
        return origin

    def _call(
        self, record: _FastRecord, caller: Caller, cut: _Cut, match: re.Match[bytes] | None, raw: bytes | memoryview
    ) -> CallTemplate | None:
        signature = (
            # The caller's account matters if the record does not name one.
            caller.text if record.recipientAccountId is None else None,
            caller.text is not None,
            caller.identity.account is None,
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
            return self._calls[signature]
        except KeyError:
            call = self._calls[signature] = self._new_call(record, caller, cut, match, raw)
            return call

    def _new_call(
        self, record: _FastRecord, caller: Caller, cut: _Cut, match: re.Match[bytes] | None, raw: bytes | memoryview
    ) -> CallTemplate | None:
        """Decode, by the slow path, what all records with this signature share."""
        category = category_of(
            {
                "eventCategory": record.eventCategory,
                "eventType": record.eventType,
                "managementEvent": record.managementEvent,
                "eventSource": record.eventSource,
                "eventName": record.eventName,
            }
        )
        account = record.recipientAccountId or caller.identity.account
        cuts = cut.before, cut.after, cut.resources, cut.kept is None, cut.key is None, cut.key_is_item
        signature = *cuts, record.eventSource, record.eventName, record.awsRegion, account, category
        if signature not in self._requests:
            self._requests[signature] = _request_template(record, account, category, match)
        request = self._requests[signature]
        if request is None:
            return None
        try:
            rest = self._rest(record, caller, cut, request, account, category, raw)
        except NotARecord:
            return None
        service = service_of(record.eventSource)
        members = _what_members(record)
        call = CallTemplate(len(self.what), members, service, record.readOnly, request, category, account, rest)
        self.what.append(call)
        return call

    def _rest(
        self,
        record: _FastRecord,
        caller: Caller,
        cut: _Cut,
        request: RequestTemplate,
        account: str | None,
        category: str,
        raw: bytes | memoryview,
    ) -> str | None:
        """Return ``rest`` without caller and origin: of the caller it depends only on whether there is one."""
        no_account = caller.identity.account is None
        signature = (
            caller.text is None,
            no_account,
            request.rest,
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
        if signature not in self._rests:
            value = parse(bytes(raw))
            if not isinstance(value, dict):
                raise NotARecord("not a JSON object")
            if caller.text is not None:
                value["userIdentity"] = {"accountId": account} if account and not no_account else {}
            value.pop("tlsDetails", None)
            self._rests[signature] = _without_user(row(value, "")["rest"])
        return self._rests[signature]


def _without_user(rest: str | None) -> str | None:
    """Return ``rest`` without the userIdentity it starts with."""
    members = json.loads(rest) if rest else {}
    members.pop("userIdentity", None)
    return dump(members) if members else None


def _join(before: bytes, after: bytes) -> str:
    """Return an object without the member that was between ``before`` and ``after``."""
    if before.endswith(b","):
        before = before[:-1]
    elif after.startswith(b","):
        after = after[1:]
    return (before + after).decode()


_IN, _OUT = b'"bytesTransferredIn":', b'"bytesTransferredOut":'


def _split_counts(text: bytes) -> tuple[bytes, int | None, int | None, int] | None:
    """Cut the byte counts out of ``additionalEventData``: (other members, bytes in, bytes out, floats as in ``_Cut``).

    Return None if the text alone does not determine them.
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


def _request_template(
    record: _FastRecord, account: str | None, category: str, match: re.Match[bytes] | None
) -> RequestTemplate | None:
    """Parse a request with a slot in place of the key. Return None if the key cannot be separated from the rest."""
    parameters, resources = bytes(record.requestParameters), bytes(record.resources)
    slot = None
    if match is not None:
        slot = _SLOT_ITEM if match[1][:1] == b"{" else _SLOT
        if _SLOT.encode() in parameters or _SLOT.encode() in resources:
            return None
        put = slot.encode() if slot is _SLOT_ITEM else b'"' + slot.encode() + b'"'
        member = match[0][: match[0].index(b":") + 1]
        parameters = parameters[: match.start()] + member + put + parameters[match.end() :]
        if slot is _SLOT:
            resources = resources.replace(b"/" + match[1] + b'"', b"/" + slot.encode() + b'"')
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
    columns = row(value, "")
    if match is not None and match.re is _PREFIX:
        # Every row has its own, which include the prefix.
        columns["request_parameters"] = None
    return _template_of(columns, slot)


def _template_of(columns: dict[str, Any], slot: str | None) -> RequestTemplate | None:
    """Return the template; None if the slot has got into a column other than the key and ``resources``."""
    has_key = slot is not None and columns["object_key"] == slot
    fixed = [columns["resource_type"], columns["resource_arn"], *columns["resource_arns"], columns["resource_account"]]
    fixed.append(columns["request_parameters"])
    if not has_key:
        fixed += [columns["object_key"], columns["resources"]]
    if any(text is not None and _SLOT in text for text in fixed):
        return None
    resources = columns["resources"]
    parts: tuple[str, ...] | None = None
    if resources is not None:
        parts = tuple(resources.split(_SLOT)) if has_key else (resources,)
        if has_key and slot is _SLOT_ITEM and len(parts) > 1:
            return None
    return RequestTemplate(
        columns["resource_type"],
        columns["resource_arn"],
        tuple(columns["resource_arns"]),
        columns["resource_account"],
        has_key,
        None if has_key else columns["object_key"],
        columns["request_parameters"],
        parts,
        columns["rest"],
        columns["source_resource_arn"],
    )
