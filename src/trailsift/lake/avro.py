"""Avro files of Iceberg (manifests and lists of them), looked through before PyIceberg's decoder sees them.

That decoder is compiled, and believes what it reads: a text that claims to be longer than its file is read on behind
it, which shows other memory of the process, or ends it. So each value is measured here first. Besides, compression is
undone within a limit, and no type may take up no bytes or hold itself: a list could claim any number of values.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

#: The largest manifest when it is unpacked, in bytes.
MAX_UNPACKED = 256 << 20
_MAGIC = b"Obj\x01"
_MAX_DEPTH = 20
_SYNC = 16
#: A number takes so many bytes at most.
_MAX_LONG = 10

#: Returns the place behind the value at a place. IndexError or ValueError if it does not end within the data.
_Skip = Callable[[bytes, int], int]


def check_avro(data: bytes) -> None:
    """Raise ValueError, TypeError, LookupError or zlib.error for an Avro file that must not reach a decoder."""
    if data[:4] != _MAGIC:
        raise ValueError("it is not an Avro file")
    header: dict[bytes, bytes] = {}
    at = 4
    while True:
        count, at = _long(data, at)
        if count == 0:
            break
        if count < 0:
            _, at = _long(data, at)
        if abs(count) > 1000:
            raise ValueError("its header has too many entries")
        for _ in range(abs(count)):
            name, at = _bytes(data, at)
            header[name], at = _bytes(data, at)
    codec = header.get(b"avro.codec", b"null")
    if codec not in (b"null", b"deflate"):
        raise ValueError(f"it is compressed by {codec[:20]!r}: trailsift and other writers of Iceberg use deflate")
    skip = _skipper(json.loads(header.get(b"avro.schema", b"null")), 0)
    sync = data[at : at + _SYNC]
    if len(sync) < _SYNC:
        raise ValueError("it is cut off")
    _check_blocks(data, at + _SYNC, sync, skip, packed=codec == b"deflate")


def _check_blocks(data: bytes, at: int, sync: bytes, skip: _Skip, *, packed: bool) -> None:
    total = 0
    while at < len(data):
        records, at = _long(data, at)
        block, at = _bytes(data, at)
        values = _unpacked(block, MAX_UNPACKED - total) if packed else block
        total += len(values)
        if not 0 <= records <= len(values):
            raise ValueError(f"a block of {len(values)} bytes has {records} entries")
        place = 0
        for _ in range(records):
            place = skip(values, place)
        if place > len(values):
            raise ValueError("its last value is cut off")
        if data[at : at + _SYNC] != sync:
            raise ValueError("a block does not end where it says")
        at += _SYNC


def _unpacked(block: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(-15)
    values = unpacker.decompress(block, limit + 1)
    if len(values) > limit:
        raise ValueError(f"it is larger than {MAX_UNPACKED >> 20} MB when unpacked")
    return values


# -- values ------------------------------------------------------------------------------------------------------------


def _skipper(kind: Any, depth: int) -> _Skip:
    """Return what measures the values of a type. ValueError unless it is one that Iceberg's own files have."""
    if depth > _MAX_DEPTH:
        raise ValueError("its types are nested too deeply")
    if isinstance(kind, list):
        if len(kind) != 2 or kind[0] != "null":
            raise ValueError("a value has more than one type")
        return _optional(_skipper(kind[1], depth + 1))
    if isinstance(kind, str):
        kind = {"type": kind}
    if not isinstance(kind, dict):
        raise ValueError("it has no types")
    name, logical = kind.get("type"), kind.get("logicalType")
    if not isinstance(name, str) or (logical is not None and (name, logical) not in _LOGICAL):
        raise ValueError(f"it has values of the type {name!r:.40} ({logical!r:.40})")
    if name in _PRIMITIVE:
        return _PRIMITIVE[name]
    if name == "record":
        return _record([_skipper(field["type"], depth + 1) for field in _fields(kind)])
    if name == "array":
        if logical == "map" and [field["name"] for field in _fields(kind["items"])] != ["key", "value"]:
            raise ValueError("a map has other fields than key and value")
        return _array(_skipper(kind["items"], depth + 1))
    if name == "map":
        return _array(_record([_skip_bytes, _skipper(kind["values"], depth + 1)]))
    if name == "fixed":
        size = kind["size"]
        if type(size) is not int or not 0 < size <= 1000 or (logical == "uuid" and size != 16):
            raise ValueError("values of a fixed size have none, or another")
        return _fixed(size)
    raise ValueError(f"it has values of the type {name[:40]!r}")


def _fields(kind: Any) -> list[Any]:
    fields = kind["fields"]
    if not isinstance(fields, list) or not 0 < len(fields) <= 1000:
        raise ValueError("a record has no fields, or too many")
    return fields


def _skip_long(data: bytes, at: int) -> int:
    end = at + _MAX_LONG
    while data[at] > 0x7F:
        at += 1
        if at == end:
            raise ValueError("a number is too long")
    return at + 1


def _skip_bytes(data: bytes, at: int) -> int:
    size = data[at]
    if size < 0x80 and not size & 1:
        return at + 1 + (size >> 1)
    size, at = _long(data, at)
    if size < 0:
        raise ValueError("a text has less than no bytes")
    return at + size


def _fixed(size: int) -> _Skip:
    return lambda data, at: at + size


def _optional(skip: _Skip) -> _Skip:
    def skip_optional(data: bytes, at: int) -> int:
        choice = data[at]
        if choice == 0:
            return at + 1
        if choice != 2:
            raise ValueError("a value has none of its types")
        return skip(data, at + 1)

    return skip_optional


def _record(skips: list[_Skip]) -> _Skip:
    if len(skips) == 2:
        first, second = skips
        return lambda data, at: second(data, first(data, at))

    def skip_record(data: bytes, at: int) -> int:
        for skip in skips:
            at = skip(data, at)
        return at

    return skip_record


def _array(skip: _Skip) -> _Skip:
    def skip_array(data: bytes, at: int) -> int:
        while True:
            count, at = _long(data, at)
            if count == 0:
                return at
            if count < 0:
                count = -count
                at = _skip_long(data, at)
            # Each value takes a byte at least.
            if count > len(data) - at:
                raise ValueError("a list has more values than there are bytes")
            for _ in range(count):
                at = skip(data, at)

    return skip_array


_PRIMITIVE: dict[str, _Skip] = {
    "boolean": _fixed(1),
    "int": _skip_long,
    "long": _skip_long,
    "float": _fixed(4),
    "double": _fixed(8),
    "bytes": _skip_bytes,
    "string": _skip_bytes,
}
#: Types with a meaning that the decoder reads as what they are stored as.
_LOGICAL = frozenset(
    {
        ("int", "date"), ("long", "time-micros"), ("long", "timestamp-micros"), ("long", "timestamp-nanos"),
        ("fixed", "uuid"), ("array", "map"),
    }
)  # fmt: skip


def _long(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at a place, and the place behind it."""
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("it is cut off")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return (number >> 1) ^ -(number & 1), at


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _long(data, at)
    if not 0 <= size <= len(data) - at:
        raise ValueError("it is cut off")
    return data[at : at + size], at + size
