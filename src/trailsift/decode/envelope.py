"""Bytes of a log object -> the JSON text of each CloudTrail record in it.

Forms are told by content, never by name: archives are opened (``archive``), then a text is a ``Records`` object, an
array, records one a line, records joined without anything between, one object over several lines, or a table
(``tables``). Whatever is inside may be wrapped again (``unwrap``): down to a bounded depth, each layer is opened.
Nothing raises: what cannot be read is named in ``malformed``, and what holds no CloudTrail record in ``foreign``.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import msgspec

from trailsift.decode import tabular
from trailsift.decode.compression import gunzip, gunzip_one, unpack
from trailsift.decode.json_text import INVALID, bytes_of, dump, dump_bytes, parse, text_of
from trailsift.decode.outcome import RAW_LIMIT, Malformed, Outcome, Rejects
from trailsift.decode.unwrap import foreign_kind, looks_like_record, unwrap

__all__ = [
    "INVALID",
    "RAW_LIMIT",
    "Malformed",
    "Outcome",
    "Rejects",
    "dump",
    "dump_bytes",
    "find_records",
    "looks_like_record",
    "parse",
    "text_of",
]

#: Layers of archives and envelopes around a record, at most. The deepest form known is gzip in Kinesis in Firehose ...
#: with six.
DEPTH_LIMIT = 12
#: After damage in a list, places at which reading is tried again.
_RESUME_LIMIT = 1_000


def find_records(data: bytes, *, cut: bool = True, damage: str | None = None) -> Outcome:
    """All records of one log object. Never raises. ``cut=False`` reads every text with a full parser.

    ``damage``: what is wrong with the end of ``data``, where that is known already.
    """
    found = Outcome()
    depth = DEPTH_LIMIT
    if damage is None and data[:2] == b"\x1f\x8b":
        # What CloudTrail delivers takes the shortest way.
        data, damage = gunzip(data, found)
        if cut and damage is None and data.isascii() and _split_records(data, found):
            return found
        depth -= 1
    reading = _Reading(found, cut)
    reading.unpacked(data, depth, damage, whole=True)
    if found.strange and not found.records and not found.malformed:
        found.others.append("JSON, but no CloudTrail record")
    else:
        for one in found.strange:
            found.malformed.keep(one)
    if not found.records and not found.malformed:
        if not reading.texts:
            found.others.append("an empty archive")
        found.foreign = "; ".join(dict.fromkeys(found.others)) or None
    return found


def one_record(data: bytes) -> bytes | None:
    """What may be one record by itself, plain or gzip, as AWS writes it: told by its ends, so that a stream of such
    need not be looked at in every other way. None, and what is no regular record, is for ``find_records``."""
    text = gunzip_one(data) if data[:2] == b"\x1f\x8b" else data
    if text is None or not text.startswith(b'{"eventVersion":"') or not text.endswith(b"}") or not text.isascii():
        return None
    return text


# -- CloudTrail's own form, uncut by parsers ---------------------------------------------------------------------------

_HEAD = b'{"Records":['
_SPLIT = b'},{"eventVersion":'


def _split_records(text: bytes, found: Outcome) -> bool:
    """CloudTrail's own form, cut at record boundaries without parsing it.

    A cut in the wrong place (the same bytes deeper inside a record) cannot pass unnoticed: the piece before it has an
    open bracket or string, so it is no complete JSON object, and whoever parses the pieces sees that and asks for
    ``find_records(data, cut=False)``. So it is with pieces that are no records: S3's notifications begin alike.
    """
    if not text.startswith(_HEAD):
        return False
    body = text.rstrip()
    if body == b'{"Records":[]}':
        return True
    if not body.endswith(b"}]}") or not body.startswith(_SPLIT[2:], len(_HEAD)):
        return False
    view = memoryview(body)
    start = len(_HEAD)
    end = body.find(_SPLIT, start)
    while end >= 0:
        found.records.append(view[start : end + 1])
        start = end + 2
        end = body.find(_SPLIT, start)
    found.records.append(view[start:-2])
    found.cut = True
    return True


# -- everything else ---------------------------------------------------------------------------------------------------


class _Records(msgspec.Struct):
    Records: list[msgspec.Raw]


class _Record(msgspec.Struct):
    """What an object must have to be taken for a record without a closer look."""

    eventSource: str
    eventName: str
    eventTime: str
    eventCategory: str = ""


class _LogEvent(msgspec.Struct):
    message: str


class _LogBatch(msgspec.Struct):
    """What a subscription of CloudWatch Logs delivers."""

    logEvents: list[_LogEvent]


_LOG_BATCH = b'{"messageType":"DATA_MESSAGE"'
_decode_log_batch = msgspec.json.Decoder(_LogBatch).decode
_decode_records = msgspec.json.Decoder(_Records).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_record = msgspec.json.Decoder(_Record).decode
_decoder = json.JSONDecoder()

#: What JSON begins with: what does not is not copied to be parsed, however large.
_BEGINS = frozenset(bytes([sign]) for sign in b'{["-0123456789tfnNI')
_BLANKS = frozenset((b" ", b"\t", b"\r", b"\n"))
_BLANK = re.compile(r"[\s,]*")
#: CloudWatch Logs puts the time before each message where it exports to S3.
_EXPORTED = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z (\{.*)", re.DOTALL)
#: The list in an envelope that is cut short or damaged.
_LIST = re.compile(r'"(?:Records|records|Events|Messages|logEvents|events)"\s*:\s*\[')
_LIST_WITHIN = 4096
_RESUME = re.compile(r'\}\s*,\s*(?=\{\s*")')


def _certain(raw: bytes | msgspec.Raw) -> bool:
    """Whether a text is a record for certain, told in a microsecond."""
    try:
        record = _decode_record(raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return record.eventSource.endswith(".amazonaws.com") and record.eventCategory != "Aggregated"


def _compact(raw: bytes) -> bytes:
    """A record without blanks between its parts, as CloudTrail writes it.

    Whoever reads many records knows what repeats by its bytes: of two spellings of one record, only one is known.
    """
    at = raw.find(b'":') + 2
    # One writer spaces all members alike: the first tells.
    if raw[1:2] == b'"' and raw[at : at + 1] not in _BLANKS:
        return raw
    try:
        return msgspec.json.format(raw, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        return raw


class _Reading:
    """One log object being read: everything ends in ``found``."""

    def __init__(self, found: Outcome, cut: bool) -> None:
        self.found = found
        self.cut = cut
        self.texts = 0
        #: The text at hand ends in the middle of a line, for all that is known.
        self.unsure = False

    def unpacked(self, data: bytes, depth: int, damage: str | None = None, whole: bool = False) -> None:
        """Bytes that may be packed. ``whole``: they are the log object itself, not something in it."""
        for text, broken in unpack(data, self.found, depth, damage):
            self.texts += 1
            before = self.found.malformed.parts
            self._text(text, depth, -1 if whole else None, broken)
            if broken is not None:
                self._damaged(broken, text, before)

    def _damaged(self, damage: str, text: bytes, before: int) -> None:
        """Counts the damage once: with the piece at the end of the text that it left, if there is one."""
        found = self.found
        last = found.malformed[-1] if found.malformed.parts > before else None
        tail = (
            last is not None
            and not found.malformed.folded
            and (len(last.raw) >= RAW_LIMIT or text_of(text[-4096:]).rstrip().endswith(last.raw[-64:].rstrip()))
        )
        if last is not None and tail:
            found.malformed[-1] = Malformed(last.position, damage, last.raw, last.parts)
        else:
            found.reject(damage, b"", -1)

    def _text(self, text: bytes, depth: int, position: int | None, damage: str | None = None) -> None:
        """The records of one plain text. The form is told by its first bytes and confirmed by reading it whole."""
        text = _decoded(text)
        self.unsure = damage is not None and not text.endswith(b"\n")
        if self.cut and _split_records(text, self.found):
            return
        stripped = text.strip(b" \t\r\n\0") if damage else text.strip()
        if not stripped:
            self.found.reject("empty", b"", position)
            return
        if depth <= 0:
            self.found.reject("wrapped too deeply", stripped, position)
            return
        for read in self._READERS:
            if read(self, stripped, depth):
                return
        self._salvage(text_of(stripped), depth, position)

    # -- one value -----------------------------------------------------------------------------------------------------

    def _raw(self, raw: msgspec.Raw, depth: int) -> None:
        """An element of a list."""
        text = bytes(raw).strip()
        if _certain(text):
            self.found.records.append(_compact(text))
        else:
            self._value(parse(text), depth, text)

    def _value(self, value: Any, depth: int, raw: bytes | None = None) -> None:
        """A parsed value: a record, an envelope, something known that is neither, or nothing of use."""
        if isinstance(value, dict):
            try:
                self._object(value, depth, raw)
            except RecursionError:
                # What could just be read may be too deep to be written again.
                self.found.reject("nested too deeply", raw or b"")
        elif depth <= 0:
            self.found.reject("wrapped too deeply", raw or b"")
        elif isinstance(value, bytes):
            self.unpacked(value, depth - 1)
        elif isinstance(value, str):
            text = bytes_of(value)
            if depth > 1 and text[:1] == b"{" and _certain(text):
                # A message as services write it: nothing else has to be tried.
                self.found.records.append(_compact(text))
            else:
                self._text(text, depth - 1, None)
        elif value is INVALID:
            self.found.reject("not JSON", raw or b"")
        else:
            self.found.reject("not a JSON object", dump_bytes(value) if raw is None else raw)

    def _object(self, value: dict[str, Any], depth: int, raw: bytes | None) -> None:
        found = self.found
        kind = foreign_kind(value)
        if kind is not None:
            found.others.append(kind)
            return
        if looks_like_record(value):
            found.records.append(dump_bytes(value) if raw is None else _compact(raw))
            return
        inner = unwrap(value)
        if inner is None:
            found.strange.keep(found.named("not a CloudTrail record", dump_bytes(value) if raw is None else raw))
        elif depth <= 0:
            found.reject("wrapped too deeply", dump_bytes(value) if raw is None else raw)
        else:
            if not inner and value.keys() != {"Records"}:
                found.others.append("an envelope with nothing in it")
            for item in inner:
                self._value(item, depth - 1)

    # -- forms of text -------------------------------------------------------------------------------------------------

    def _read_log_batch(self, text: bytes, depth: int) -> bool:
        """A batch of CloudWatch Logs as it writes it: ``unwrap`` does the same for any other spelling."""
        if not text.startswith(_LOG_BATCH):
            return False
        try:
            events = _decode_log_batch(text).logEvents
        except (msgspec.DecodeError, RecursionError):
            return False
        for event in events:
            self._value(event.message, depth - 1)
        return bool(events)

    def _read_records(self, text: bytes, depth: int) -> bool:
        """``{"Records": [...]}`` in any spacing and order of keys."""
        try:
            records = _decode_records(text).Records
        except (msgspec.DecodeError, RecursionError):
            return False
        for raw in records:
            self._raw(raw, depth)
        return True

    def _read_array(self, text: bytes, depth: int) -> bool:
        """A bare array of records or envelopes."""
        if text[:1] != b"[":
            return False
        try:
            records = _decode_array(text)
        except (msgspec.DecodeError, RecursionError):
            return False
        if not records:
            self.found.others.append("an empty list")
        for raw in records:
            self._raw(raw, depth)
        return True

    def _read_table(self, text: bytes, depth: int) -> bool:
        """A table with a header. Only where no JSON begins: the header's cells may be quoted."""
        if text[:1] in (b"{", b"[") or not tabular.has_header(text_of(text[: tabular.HEADER_LIMIT])):
            return False
        rows = tabular.read_csv(text_of(text))
        if rows is None:
            return False
        unsure, empty = self.unsure, True
        for row in rows:
            empty = False
            if row.record is None or (unsure and row.last):
                self.found.reject(row.reason or "a row cut short", bytes_of(row.text))
            else:
                self._value(row.record, depth)
        if empty:
            self.found.others.append("a table without rows")
        return True

    def _read_lines(self, text: bytes, depth: int) -> bool:
        """One JSON value a line, several joined at most; a line that is none is named, the others are used."""
        if not any(_is_json(line) for line in islice(_lines_of(text), 2)):
            return False
        self._lines(text, depth)
        return True

    def _lines(self, text: bytes, depth: int) -> None:
        for stripped in _lines_of(text):
            if _certain(stripped):
                self.found.records.append(_compact(stripped))
                continue
            match = _EXPORTED.fullmatch(stripped)
            stripped = match[1] if match else stripped
            value = parse(stripped)
            if value is not INVALID or not self._read_joined(stripped, depth):
                self._value(value, depth, stripped)

    def _read_value(self, text: bytes, depth: int) -> bool:
        """One JSON value, over several lines perhaps."""
        value = parse(text) if text[:1] in _BEGINS else INVALID
        if value is INVALID:
            return False
        if isinstance(value, list):
            for item in value:
                self._value(item, depth - 1)
        else:
            self._value(value, depth, text)
        return True

    def _read_joined(self, text: bytes, depth: int) -> bool:
        """Objects one after the other with nothing, blanks or line ends between, as Firehose joins them."""
        if text[:1] != b"{":
            return False
        string = text_of(text)
        value, end = _next_object(string, 0)
        if value is INVALID:
            return False
        start = 0
        while value is not INVALID:
            self._value(value, depth, bytes_of(string[start:end]))
            start = _skip(string, end)
            value, end = _next_object(string, start)
        if start < len(string):
            self._salvage(string[start:], depth, None)
        return True

    def _read_some_lines(self, text: bytes, depth: int) -> bool:
        """Lines of which some are records, whatever the first ones are."""
        if _list_start(text_of(text[:_LIST_WITHIN])) is not None:
            return False
        if not any(_certain(line) or _EXPORTED.match(line) for line in _lines_of(text)):
            return False
        self._lines(text, depth)
        return True

    #: Tried in this order: the cheap and exact ones first; those that put up with damage last.
    _READERS: tuple[Callable[[_Reading, bytes, int], bool], ...] = (
        _read_log_batch,
        _read_records,
        _read_array,
        # Before lines: a table's header may be a line of one quoted word, which is JSON too.
        _read_table,
        # Before one value: what is one line is both, and lines name the broken ones.
        _read_lines,
        _read_value,
        _read_joined,
        _read_some_lines,
    )

    # -- damage --------------------------------------------------------------------------------------------------------

    def _salvage(self, string: str, depth: int, position: int | None) -> None:
        """A text that is cut or damaged: every complete record around the damage, and a malformed count for each."""
        start = _list_start(string)
        if start is not None:
            self._list(string, start, depth)
        else:
            self.found.reject("not valid JSON" if string[:1] in ("{", "[") else "not JSON", bytes_of(string), position)

    def _list(self, string: str, at: int, depth: int) -> None:
        """The elements of a list from ``at`` on; of each damaged stretch a malformed count."""
        damaged, trials = False, 0
        at = _skip(string, at)
        while at < len(string) and string[at] != "]":
            value, end = _next_object(string, at)
            if value is INVALID:
                end, trials = _resume(string, at, trials)
                self.found.reject("JSON cut short or damaged", bytes_of(string[at:end]))
                damaged = True
            else:
                self._value(value, depth)
            at = _skip(string, end)
        if not damaged:
            # Every element is whole: the damage is behind them.
            self.found.reject("JSON cut short or damaged", bytes_of(string[at:]))


def _decoded(text: bytes) -> bytes:
    """UTF-8 without a byte order mark; what is not UTF-8 becomes U+FFFD. UTF-16 is read where its mark says so."""
    if text.isascii():
        return text
    if text[:3] == codecs.BOM_UTF8:
        text = text[3:]
    elif text[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return text.decode("utf-16", "replace").encode("utf-8", "replace")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("utf-8", "replace").encode("utf-8")
    return text


def _lines_of(text: bytes) -> Iterator[bytes]:
    """Lines that hold something, one at a time: a text may be nothing but line ends."""
    return filter(None, map(bytes.strip, io.BytesIO(text)))


def _is_json(text: bytes) -> bool:
    return _certain(text) or (text.lstrip()[:1] in _BEGINS and parse(text) is not INVALID)


def _list_start(string: str) -> int | None:
    """Where the elements of the outermost list begin, in a text that cannot be parsed."""
    if string.startswith("["):
        return 1
    match = _LIST.search(string, 0, _LIST_WITHIN) if string.startswith("{") else None
    # A list of that name inside an inner object says nothing.
    return match.end() if match and "{" not in string[1 : match.start()] else None


def _skip(string: str, at: int) -> int:
    """After the blanks and commas at ``at``."""
    match = _BLANK.match(string, at)
    return match.end() if match else at


def _next_object(string: str, at: int) -> tuple[Any, int]:
    """The object at ``at`` and its end, or INVALID."""
    at = _skip(string, at)
    if not string.startswith("{", at):
        return INVALID, at
    try:
        return _decoder.raw_decode(string, at)
    except (ValueError, RecursionError):
        return INVALID, at


def _resume(string: str, at: int, trials: int) -> tuple[int, int]:
    """Where the next record after damage at ``at`` begins, and how many places were tried so far."""
    for match in _RESUME.finditer(string, at):
        trials += 1
        if trials > _RESUME_LIMIT:
            break
        value, _ = _next_object(string, match.end())
        # Objects inside the damaged record are passed over.
        if isinstance(value, dict) and looks_like_record(value):
            return match.end(), trials
    return len(string), trials
