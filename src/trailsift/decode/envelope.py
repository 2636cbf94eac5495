"""Bytes of a log object -> the JSON text of each record in it.

Forms are told by content, never by name: gzip (several members, cut short), zip (of anything), plain; a byte order
mark; then a ``Records`` object, an array of records, records one a line, or one record. Nothing raises: what cannot
be read is named in ``malformed``, and JSON that is no CloudTrail record in ``foreign``.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from isal import isal_zlib

#: One member of an archive may not grow beyond this many bytes (CloudTrail writes at most 50 MB before gzip).
MEMBER_LIMIT = 1 << 30
#: Raw text kept of something malformed, in bytes.
RAW_LIMIT = 256 * 1024
#: Archives inside archives, at most.
DEPTH_LIMIT = 4


@dataclass(frozen=True, slots=True)
class Malformed:
    """What could not be used: its position among the object's records (-1: the object itself), why, and its text."""

    position: int
    reason: str
    raw: str


@dataclass(slots=True)
class Found:
    """What one log object holds. ``records`` are JSON texts of objects, not yet looked into."""

    records: list[bytes | memoryview] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)
    #: What the object is, where it is JSON but holds no CloudTrail record.
    foreign: str | None = None
    #: The records were cut out without parsing: if one of them is no JSON object, read again with ``cut=False``.
    cut: bool = False

    def reject(self, reason: str, raw: bytes, position: int | None = None) -> None:
        """Names something malformed at the current position."""
        where = len(self.records) + len(self.malformed) if position is None else position
        self.malformed.append(Malformed(where, reason, text_of(raw[:RAW_LIMIT])))


def text_of(raw: bytes) -> str:
    """UTF-8 text; what is not UTF-8 becomes U+FFFD."""
    return raw.decode("utf-8", "replace")


def find_records(data: bytes, *, cut: bool = True) -> Found:
    """All records of one log object. Never raises. ``cut=False`` reads every text with a full parser."""
    found = Found()
    seen_text = False
    for text in _unpack(data, found, DEPTH_LIMIT):
        seen_text = True
        _find_in_text(text, found, cut)
    if not seen_text and not found.malformed:
        found.foreign = "an empty archive"
    if found.records:
        found.foreign = None
    return found


# -- archives --------------------------------------------------------------------------------------------------------


def _unpack(data: bytes, found: Found, depth: int) -> Iterator[bytes]:
    """The plain texts inside ``data``, archives opened by their first bytes."""
    if depth == 0:
        found.reject(f"archives nested deeper than {DEPTH_LIMIT}", data, -1)
    elif data[:2] == b"\x1f\x8b":
        yield from _unpack(gunzip(data, found), found, depth - 1)
    elif data[:4] == b"PK\x03\x04":
        yield from _unzip(data, found, depth - 1)
    else:
        yield data


def gunzip(data: bytes, found: Found) -> bytes:
    """Every member of a gzip file; of a damaged one, what comes before the damage, and a malformed count."""
    parts: list[bytes] = []
    total = 0
    rest = data
    while rest[:2] == b"\x1f\x8b":
        inflate = isal_zlib.decompressobj(wbits=31)
        try:
            # One call in the common case; the limit keeps a bomb from filling the memory.
            part = inflate.decompress(rest, MEMBER_LIMIT - total)
        except (isal_zlib.IsalError, zlib.error):
            part = _inflate_until_damage(rest)
            parts.append(part)
            found.reject("damaged gzip: the data after the damage is lost", b"", -1)
            break
        parts.append(part)
        total += len(part)
        if not inflate.eof:
            reason = (
                f"larger than {MEMBER_LIMIT} bytes" if total >= MEMBER_LIMIT else "truncated gzip: the end is missing"
            )
            found.reject(reason, b"", -1)
            break
        rest = inflate.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _inflate_until_damage(data: bytes) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    parts: list[bytes] = []
    for start in range(0, len(data), 1024):
        try:
            parts.append(inflate.decompress(data[start : start + 1024], MEMBER_LIMIT))
        except zlib.error:
            break
    return b"".join(parts)


def _unzip(data: bytes, found: Found, depth: int) -> Iterator[bytes]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.file_size > MEMBER_LIMIT:
                found.reject(f"{info.filename} in the archive is larger than {MEMBER_LIMIT} bytes", b"", -1)
                continue
            try:
                with archive.open(info) as member:
                    content = member.read(MEMBER_LIMIT)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
                found.reject(f"{info.filename} in the archive cannot be read: {error}", b"", -1)
                continue
            yield from _unpack(content, found, depth)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        found.reject(f"damaged zip: {error}", b"", -1)


# -- texts -----------------------------------------------------------------------------------------------------------

_HEAD = b'{"Records":['
_SPLIT = b'},{"eventVersion":'


class _Records(msgspec.Struct):
    Records: list[msgspec.Raw]


_decode_records = msgspec.json.Decoder(_Records).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _find_in_text(text: bytes, found: Found, cut: bool) -> None:
    """The records of one plain text. The form is told by its first bytes and confirmed by reading it whole."""
    if text[:3] == b"\xef\xbb\xbf":
        text = text[3:]
    if not text.isascii():
        text = _utf8(text)
    if cut and text.startswith(_HEAD) and _split_records(text, found):
        return
    stripped = text.strip()
    if not stripped:
        if not found.malformed:
            found.reject("empty file", b"", -1)
        return
    for read in _READERS:
        if read(stripped, found):
            return
    _salvage(stripped, found)


def _utf8(text: bytes) -> bytes:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("utf-8", "replace").encode("utf-8")
    return text


def _split_records(text: bytes, found: Found) -> bool:
    """CloudTrail's own form, cut at record boundaries without parsing it.

    A cut in the wrong place (the same bytes deeper inside a record) cannot pass unnoticed: the piece before it has an
    open bracket or string, so it is no complete JSON object, and whoever parses the pieces sees that and asks for
    ``find_records(data, cut=False)``.
    """
    body = text.rstrip()
    if body == b'{"Records":[]}':
        return True
    if not body.endswith(b"}]}") or not body.startswith(_HEAD + b'{"eventVersion":'):
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


def _read_records(text: bytes, found: Found) -> bool:
    """``{"Records": [...]}`` in any spacing and order of keys."""
    try:
        records = _decode_records(text).Records
    except (msgspec.DecodeError, RecursionError):
        return False
    _take(records, found)
    return True


def _read_array(text: bytes, found: Found) -> bool:
    """A bare array of records."""
    if text[:1] != b"[":
        return False
    try:
        records = _decode_array(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    _take(records, found)
    return True


def _take(records: list[msgspec.Raw], found: Found) -> None:
    for raw in records:
        text = bytes(raw).strip()
        if text[:1] == b"{":
            found.records.append(text)
        else:
            found.reject("not a JSON object", text)


def _read_lines(text: bytes, found: Found) -> bool:
    """One JSON value a line; a line that is none is named, the others are used."""
    lines = [line for line in text.split(b"\n") if line.strip()]
    if not (_is_json(lines[0]) or (len(lines) > 1 and _is_json(lines[1]))):
        return False
    for line in lines:
        stripped = line.strip()
        value = parse(stripped)
        if isinstance(value, dict):
            _take_value(value, stripped, found)
        elif value is INVALID:
            found.reject("not JSON", stripped)
        else:
            found.reject("not a JSON object", stripped)
    return True


def _read_value(text: bytes, found: Found) -> bool:
    """One JSON value, over several lines perhaps."""
    value = parse(text)
    if value is INVALID:
        return False
    if isinstance(value, dict):
        _take_value(value, text, found)
    elif isinstance(value, list):
        for item in value:
            raw = dump(item).encode("utf-8", "surrogatepass") if not isinstance(item, dict) else dump_bytes(item)
            if isinstance(item, dict):
                _take_value(item, raw, found)
            else:
                found.reject("not a JSON object", raw)
    else:
        found.foreign = "JSON that is no object"
    return True


#: Tried in this order: the cheap and exact ones first.
_READERS: tuple[Callable[[bytes, Found], bool], ...] = (_read_records, _read_array, _read_lines, _read_value)

#: Where envelopes other than files are opened: from a parsed object to the values inside it, or None.
_UNWRAP: tuple[Callable[[dict[str, Any]], list[Any] | None], ...] = ()

_RECORD_KEYS = frozenset(
    {"eventSource", "eventName", "eventTime", "eventVersion", "userIdentity", "eventID", "eventType"}
)


def looks_like_record(value: dict[str, Any]) -> bool:
    """Whether an object is a CloudTrail record: two of the keys that only they have together, and no notification's."""
    if "s3" in value or "kinesis" in value or "Sns" in value or "awslogs" in value:
        return False
    return len(_RECORD_KEYS & value.keys()) >= 2


def _take_value(value: dict[str, Any], raw: bytes, found: Found) -> None:
    """One parsed object: a record, an envelope, or something foreign."""
    inner = value.get("Records")
    if isinstance(inner, list):
        for item in inner:
            if isinstance(item, dict):
                _take_value(item, dump_bytes(item), found)
            else:
                found.reject("not a JSON object", dump_bytes(item))
        return
    for unwrap in _UNWRAP:
        values = unwrap(value)
        if values is not None:
            for item in values:
                _take_value(item, dump_bytes(item), found)
            return
    found.records.append(raw)


# -- JSON ------------------------------------------------------------------------------------------------------------

INVALID = object()


def parse(text: bytes | str) -> Any:
    """The value of a JSON text as Python's ``json`` reads it, or INVALID."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return INVALID


def _is_json(text: bytes) -> bool:
    return parse(text) is not INVALID


def dump(value: Any) -> str:
    """Compact JSON text that reads back as the same value; lone surrogates stay escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def dump_bytes(value: Any) -> bytes:
    """``dump`` as UTF-8."""
    return dump(value).encode("utf-8")


_OBJECT_START = re.compile(r"\{")
_decoder = json.JSONDecoder()


def _salvage(text: bytes, found: Found) -> None:
    """A text that is cut or damaged: every complete record before the damage, and one malformed count."""
    string = text_of(text)
    start = string.find("[", 0, 4096) if string.lstrip().startswith(("{", "[")) else -1
    position = start + 1
    if start >= 0 and (string.startswith("[") or '"Records"' in string[:start]):
        while True:
            match = _OBJECT_START.search(string, position)
            if match is None or string[position : match.start()].strip(" \t\r\n,"):
                break
            try:
                value, position = _decoder.raw_decode(string, match.start())
            except (ValueError, RecursionError):
                position = match.start()
                break
            found.records.append(dump_bytes(value))
        remainder = string[position:].strip(" \t\r\n,]}")
        if remainder or not found.malformed:
            if found.malformed and found.malformed[-1].position == -1:
                # The archive's damage is already counted once; keep the text with it.
                last = found.malformed.pop()
                found.malformed.append(Malformed(last.position, last.reason, remainder[:RAW_LIMIT]))
            else:
                found.reject("JSON cut short or damaged", remainder.encode())
        return
    if string[:1] in "{[":
        found.reject("not valid JSON", text, -1)
    else:
        found.reject("not JSON", text, -1)
