"""What is fuzzed: each target draws an input, runs it through C and Python, and describes the first difference."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import json
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from fuzz import lakes as hostile_lakes
from fuzz import landing, rule_files, spellings, statements
from fuzz.archives import mutated_archive
from fuzz.mutate import Mutator, refuse
from support.records import JSON_COLUMNS
from trailsift import _native
from trailsift.cloudtrail.key_patterns import key_pattern, word_pattern
from trailsift.columns.group_by import DictionaryColumn, grouped, smallest_text, text_buffers
from trailsift.decode.envelope import find_records
from trailsift.decode.json_text import parse
from trailsift.decode.limits import LIMITS, Budget, Limits
from trailsift.decode.stream import parts_of
from trailsift.ingest.chunk_builder import ChunkBuilder
from trailsift.lake import dedup, parquet


class Finding(NamedTuple):
    """A difference, and the log objects or keys that show it."""

    reason: str
    data: list[bytes]


#: Counts what was tried.
Tally = Counter[str]
Target = Callable[[random.Random, Tally], Finding | None]


def exact(data: bytes) -> memoryview:
    """A copy in memory of exactly this size, so that a sanitizer sees the first byte that is read behind it."""
    return memoryview((ctypes.c_char * len(data)).from_buffer_copy(data)).cast("B") if data else memoryview(b"")


# -- log objects -----------------------------------------------------------------------------------------------------


def records(rng: random.Random, tally: Tally) -> Finding | None:
    return compare_log_objects(Mutator(rng).log_objects(), tally)


def compare_log_objects(data: list[bytes], tally: Tally) -> Finding | None:
    """Read log objects with and without the scanner: the same rows, checksums and errors must come out."""
    tally["log objects"] += len(data)
    scanned, reference = (_rows(data, scan, tally) for scan in (True, False))
    for part, mine, other in zip(("tallies", "rows"), scanned, reference, strict=True):
        if mine != other:
            only = [item for item in mine if item not in other][:1], [item for item in other if item not in mine][:1]
            return Finding(f"{part} differ: only C has {only[0]}, only Python has {only[1]}", data)
    return None


def _rows(data: list[bytes], scan: bool, tally: Tally) -> tuple[list[str], list[str]]:
    builder = ChunkBuilder(scan=scan)
    tallies = []
    for number, log_object in enumerate(data):
        # The scanner reads any buffer; Python's way into it is by bytes.
        stats = builder.add(f"object-{number}", exact(log_object) if scan else log_object)  # type: ignore[arg-type]
        unforeseen = [rejected.reason for rejected in stats.malformed if rejected.reason.startswith("unforeseen")]
        assert not unforeseen, unforeseen
        tallies.append(f"{number}: {stats.records} records, {stats.malformed.parts} malformed, {stats.foreign}")
        if scan:
            tally["records"] += stats.records
    if scan and builder._scanner is not None:
        tally["records cut by C"] += builder._scanner.rows
    chunk = builder.finish()
    table = chunk.table.to_pylist()
    rows = [
        repr((sorted(_comparable(row).items()), id.hex())) for row, id in zip(table, map(bytes, chunk.ids), strict=True)
    ]
    return tallies, sorted(rows)


def _comparable(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _parsed(value) if name in JSON_COLUMNS and value else value for name, value in row.items()}


def _parsed(text: str) -> object:
    value = parse(text.encode("utf-8", "surrogatepass"))
    return _in_order(value) if isinstance(value, dict | list | str | int | float | bool | None) else text


def _in_order(value: Any) -> Any:
    """Return a value with sorted members: a row has them in the order of the record that a template was made from."""
    if isinstance(value, dict):
        return {name: _in_order(value[name]) for name in sorted(value)}
    return [_in_order(inner) for inner in value] if isinstance(value, list) else value


def _count(data: bytes) -> int | None:
    """How many records Python reads; None if the text is not strict JSON. Numbers may be of any length."""
    try:
        value = json.loads(data.decode(), parse_int=float, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    return len(value["Records"]) if isinstance(value, dict) else None


class _Numbering:
    """Stands for an InternTable: a number for each name, and now and then another answer."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.count = rng, 0

    def scan_who(self, *_: object) -> int:
        self.count += 1
        return self.rng.choice([-1, -2]) if self.rng.random() < 0.05 else 8 * self.count + self.rng.choice([0, 1, 1, 5])

    scan_place = scan_what = scan_who


def damage(rng: random.Random, tally: Tally) -> Finding | None:
    """Log objects damaged byte by byte: read or refused, and what is read is what Python's JSON reads."""
    mutator = Mutator(rng)
    scanner = _native.scan.Scanner(_Numbering(rng), zlib.crc32)
    for log_object in mutator.log_objects():
        for _ in range(30):
            data = mutator.damaged(log_object)
            before = scanner.rows
            answer = scanner.scan(exact(data), 0)
            tally["damaged log objects"] += 1
            if answer is None and scanner.rows == before:
                continue
            count = _count(data)
            if answer is None or answer[0] != count or scanner.rows - before != count - len(answer[1]):
                return Finding(f"C read {answer} of {count} records, {scanner.rows - before} as rows", [data])
        scanner.take() if rng.random() < 0.5 else scanner.keep(1)
    return None


# -- spellings -------------------------------------------------------------------------------------------------------


def spelled(rng: random.Random, tally: Tally) -> Finding | None:
    data = spellings.drawn_texts(rng)
    tally["texts in many spellings"] += len(data)
    reason = spellings.check_spellings(data)
    return None if reason is None else Finding(reason, data)


# -- keys ------------------------------------------------------------------------------------------------------------

_PARTS = [
    "logs",
    "part",
    "data",
    "T",
    "t",
    "Z",
    "us-east-1",
    "eu-west-3a",
    "us-gov-west-1",
    "us-isob-east-1",
    "us-iso",
    "il-central-1",
    "ap-northeast-",
    "ca-east-1x",
    "ip-",
    "ip-10-0-0-1",
    "eusc-de-east-1",
    "us-isof-south-1",
    "cn-north-9",
    "db2",
    "sha256",
    "v12",
    "v2beta1",
    "V999",
    "v1234",
    "CustomerOrderHistory",
    "aGhWkRtLpQzXcVbN",
    "deadbeef",
    "0afe",
    "AKIA4X7TQ",
    "é",
    "한글",
    "{date}",
    "{n}",
    "%20",
    "%2F",
    "%zz",
    "%",
    "%2",
    "20240115T0830Z_Ab12Cd34",
    "20240115T0830Z_Ab12Cd34.",
    "2024-01-15",
    "2024/01/15",
    "2024.01.15T",
    "20240115",
    "20240115083000",
    "20240115-083000",
    "20240115_083000x",
    "1999-12",
    "2100-01-01",
    "10.0.0.1",
    "12:30:00",
    "8f14e45f-ceea-4672-9d4b-0e3b1c2d3e4f",
    "8f14e45f-ceea-4672-9d4b-0e3b1c2d3e4",
    "@",
    "{",
    "}",
    '{"',
    '"',
    ":",
    ",",
    "[",
    "]",
    "\\",
    "/",
    "-",
    "_",
    ".",
    "+",
    "~",
    "!",
    "(",
    ")",
    "'",
    "=",
    "1",
    "12",
    "123",
    "1234",
    "12345",
    "a1b2c3d4e5f6a7b8",
]


def _key(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.6:
        return "".join(rng.choice(_PARTS) + rng.choice(["", "", "/", "-", "_", "."]) for _ in range(rng.randint(0, 12)))
    if draw < 0.7:
        pairs = (f'"{rng.choice(_PARTS)}":"{rng.choice(_PARTS)}"' for _ in range(rng.randint(0, 3)))
        return "{" + ",".join(pairs) + "}" + rng.choice(["", "", "x", " ", "}"])
    if draw < 0.8:
        return rng.choice(_PARTS) * rng.choice([1, 20, 60, 100, 383, 384, 385, 512, 513])
    if draw < 0.9:
        ranges = [(32, 127), (0, 0x250), (0x10000, 0x10400)]
        return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randint(0, 60)))
    return "".join(rng.choice(_PARTS) for _ in range(60))[: rng.choice([380, 383, 384, 385, 386, 400, 512])]


def keys(rng: random.Random, tally: Tally) -> Finding | None:
    return compare_keys([_key(rng).encode() for _ in range(rng.choice([1, 3, 20, 200]))], tally)


def compare_keys(data: list[bytes], tally: Tally) -> Finding | None:
    """The patterns and the hashes of keys."""
    tally["keys"] += len(data)
    offsets, text = text_buffers(pa.array(["", *(key.decode() for key in data)], pa.string()))
    buffers = exact(bytes(offsets)).cast("i"), exact(bytes(text))
    places, patterns = _native.keys.patterns(*buffers, word_pattern, key_pattern)
    hashes = np.frombuffer(_native.keys.hashes(*buffers), np.int64)[1:].tolist()
    for key, place, value in zip(data, np.frombuffer(places, np.int32)[1:].tolist(), hashes, strict=True):
        if patterns[place] != key_pattern(key.decode()):
            return Finding(f"C has pattern {patterns[place]!r}, Python {key_pattern(key.decode())!r}", [key])
        if value != int.from_bytes(hashlib.md5(key, usedforsecurity=False).digest()[:8], "big", signed=True):
            return Finding("another hash", [key])
    return None


# -- groups and ids --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _python_only() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_native, "groups", None)
        yield


def groups(rng: random.Random, tally: Tally) -> Finding | None:
    """Grouping, smallest texts, trimmed codes, and ids."""
    count = rng.choice([0, 1, 5, 63, 64, 65, 500, 3000])
    tally["rows grouped"] += count
    numbers = np.random.default_rng(rng.getrandbits(64))
    widest = rng.choice([3, count + 1, 2**62])
    values = numbers.integers(-widest, widest, count)
    texts = pa.array([rng.choice([None, "", "a", "ab", "\0", "é"]) for _ in range(count)], pa.string())
    column = DictionaryColumn(texts.dictionary_encode())
    group = numbers.integers(0, 5, count)
    codes = numbers.integers(-1, 9, count).astype(np.int32)
    mine, other = _ids(rng, numbers), _ids(rng, numbers)

    def run() -> list[Any]:
        order, starts, groups = grouped(values)
        parts = [sorted(rows.tolist()) for rows in np.split(order, starts[1:])] if count else []
        trimmed = parquet._trimmed_codes(codes, rng_size)
        merged = dedup.merge([mine, other])
        return [
            sorted(parts),
            len(set(groups.tolist())),
            smallest_text(column, group, 5).to_pylist(),
            trimmed and [part.tolist() for part in trimmed],
            mine.find(other).tolist(),
            sorted(zip(merged.high.tolist(), merged.low.tolist(), merged.check.tolist(), strict=True)),
        ]

    rng_size = 9 + rng.randrange(3)
    in_c = run()
    with _python_only():
        in_python = run()
    for at, (first, second) in enumerate(zip(in_c, in_python, strict=True)):
        # What a code below zero becomes is never read.
        if first != second and at != 3:
            return Finding(f"part {at} differs: C has {first!r:.200}, Python {second!r:.200}", [])
    return None


def _ids(rng: random.Random, numbers: np.random.Generator) -> dedup.Ids:
    count = rng.choice([0, 1, 7, 200])
    high = numbers.integers(0, rng.choice([2, 2**63]), count).astype(np.uint64) * np.uint64(rng.choice([1, 2]))
    low = numbers.integers(0, rng.choice([2, 2**63]), count).astype(np.uint64)
    order = np.lexsort((low, high))
    return dedup.Ids(high[order], low[order], np.arange(count, dtype=np.uint32))


def hostile(rng: random.Random, tally: Tally) -> Finding | None:
    """Buffers that no caller of ours hands over: refused or read, but never outside of them."""
    tally["hostile buffers"] += 1

    def array(kind: type[np.signedinteger[Any]]) -> Any:
        ends = [0, 0, 1, 2, 3, -1, 5, 9, 2**31 - 1, -(2**31)]
        values = np.array([rng.choice(ends) for _ in range(rng.choice([0, 1, 2, 4, 4, 4]))], kind).tobytes()
        return exact(values[: len(values) - rng.choice([0, 0, 0, 0, 1, 4])] if values else values)

    i4, i8 = (lambda: array(np.int32)), (lambda: array(np.int64))
    data = exact(rng.randbytes(rng.choice([0, 1, 5, 40])))
    size = rng.choice([0, 1, 2, 5, 10, -1, 2**62])
    calls: list[Callable[[], Any]] = [
        lambda: _native.keys.hashes(i4(), data),
        lambda: _native.keys.patterns(i4(), data, word_pattern, key_pattern),
        lambda: _native.groups.groups(i8()),
        lambda: _native.groups.by_group(i8(), size),
        lambda: _native.groups.totals(i8(), size, i8(), i8(), i8()),
        lambda: _native.groups.smallest(i4(), data, i8(), i8(), size),
        lambda: _native.groups.trimmed(i4(), size),
        lambda: _native.groups.places(i8(), i8(), i8(), i8()),
        lambda: _native.groups.merged(i8(), i8(), i4(), i8(), i8(), i4()),
        lambda: _native.scan.only_at_end(data, size),
    ]
    with contextlib.suppress(ValueError):
        rng.choice(calls)()
    return None


# -- archives --------------------------------------------------------------------------------------------------------

#: So small that archives of a few kilobytes reach them.
_SMALL = Limits(
    small=100, whole=5_000, piece=2_000, document=20_000, free=50_000, growth=1, log_object=60_000, members=40
)
#: CPU seconds that an archive of a few kilobytes may take, under a sanitizer too.
_SECONDS = 20


def archives(rng: random.Random, tally: Tally) -> Finding | None:
    tally["archives"] += 1
    return compare_archive([mutated_archive(rng)], tally)


def compare_archive(data: list[bytes], tally: Tally) -> Finding | None:
    """Read an archive as a file in pieces and as bytes in memory, with tiny limits and with ours.

    Nothing raises; no more comes out than is allowed; and where both ways name no damage, they find the same records.
    """
    (archive,) = data
    start = time.process_time()
    found = []
    for limits in (_SMALL, LIMITS):
        try:
            read, rejected, unpacked = _read_in_pieces(archive, limits)
            outcome = find_records(archive, budget=Budget(limits, len(archive)))
        except Exception as error:  # any: that is what is looked for
            return Finding(f"{type(error).__name__}: {error}", data)
        tally["records in archives"] += read
        found += [(read, rejected), (len(outcome.records), outcome.malformed.parts)]
        allowed = max(limits.free, limits.growth * len(archive)) + len(archive) + limits.whole
        if unpacked > allowed:
            return Finding(f"{unpacked} bytes came out of {len(archive)}", data)
    whole = {records for records, rejected in found if not rejected}
    if len(whole) > 1:
        return Finding(f"records and rejects differ, with none where records are missing: {found}", data)
    if time.process_time() - start > _SECONDS:
        return Finding(f"{time.process_time() - start:.0f} seconds for {len(archive)} bytes", data)
    return None


def _read_in_pieces(archive: bytes, limits: Limits) -> tuple[int, int, int]:
    """Return the number of records and of rejects in an archive read as a file, and the bytes that came out of it."""
    budget = Budget(limits)
    read = rejected = unpacked = 0
    for part in parts_of(io.BytesIO(archive), budget):
        if part.data is None:
            rejected += part.damage is not None
            continue
        unpacked += len(part.data)
        outcome = find_records(bytes(part.data), damage=part.damage, budget=budget)
        read, rejected = read + len(outcome.records), rejected + outcome.malformed.parts
    return read, rejected, unpacked


# -- landing lines and batches of a stream ---------------------------------------------------------------------------


def landing_lines(rng: random.Random, tally: Tally) -> Finding | None:
    data = landing.drawn_lines(rng)
    tally["landing lines"] += len(data)
    reason = landing.check_lines(data)
    return None if reason is None else Finding(reason, data)


def batches(rng: random.Random, tally: Tally) -> Finding | None:
    data = landing.drawn_batch(rng)
    tally["Firehose batches"] += 1
    reason = landing.check_batch(data)
    return None if reason is None else Finding(reason, [json.dumps(data).encode()])


# -- rules, statements, lakes ----------------------------------------------------------------------------------------


def rules(rng: random.Random, tally: Tally) -> Finding | None:
    text = rule_files.draw(rng)
    tally["rules files"] += 1
    reason = rule_files.check(text, rng)
    return None if reason is None else Finding(reason, [text.encode("utf-8", "surrogatepass")])


def sql(rng: random.Random, tally: Tally) -> Finding | None:
    text = statements.draw(rng)
    tally["statements"] += 1
    reason = statements.check(text)
    return None if reason is None else Finding(reason, [text.encode("utf-8", "surrogatepass")])


def lakes(rng: random.Random, tally: Tally) -> Finding | None:
    changes, command = hostile_lakes.draw(rng)
    tally["commands on hostile lakes"] += 1
    reason = hostile_lakes.check(changes, command)
    return None if reason is None else Finding(f"{command[0]}: {reason}", hostile_lakes.packed(changes, command))


#: By how often they are drawn.
TARGETS: dict[str, tuple[Target, int]] = {
    "records": (records, 60),
    "damage": (damage, 30),
    "spellings": (spelled, 30),
    "keys": (keys, 5),
    "groups": (groups, 5),
    "hostile": (hostile, 20),
    "archives": (archives, 15),
    "landing": (landing_lines, 10),
    "batches": (batches, 10),
    "rules": (rules, 10),
    "statements": (sql, 10),
    # A round runs a whole command: as much work as hundreds of others.
    "lakes": (lakes, 1),
}
