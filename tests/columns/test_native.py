"""The C modules give what their Python twins give, and survive what no log should contain."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import mmap
import os
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.paths import examples
from support.records import sample, text
from trailsift import _native
from trailsift.cloudtrail import key_patterns as pattern
from trailsift.cloudtrail.key_patterns import key_pattern
from trailsift.columns import summarize
from trailsift.columns.group_by import DictionaryColumn, Ints, grouped, smallest_text, text_buffers
from trailsift.columns.summarize import key_patterns
from trailsift.decode.fast_path import InternTable
from trailsift.lake import dedup, parquet

if not _native.available():
    pytest.skip("the C modules are not built: no C compiler at hand", allow_module_level=True)

_NUMBERS = st.one_of(
    st.integers(0, 10**6).map(str),
    st.from_regex(r"[0-9]{1,18}", fullmatch=True),
    st.from_regex(r"(19|20)[0-9]{2}[01][0-9][0-3][0-9]([0-2][0-9][0-6][0-9]([0-6][0-9]([0-9]{3})?)?)?", fullmatch=True),
    st.sampled_from(["2024", "1999", "2099", "12", "13", "00", "31", "32", "24", "60", "61", "255", "256", "20240115"]),
)
_WORDS = """
    logs part data T t Z us-east-1 eu-west-3a us-gov-west-1 us-isob-east-1 il-central-1 ap-northeast ca-east-1x ip
    ip-10-0-0-1 db2 sha256 v12 v2beta1 v1234 CustomerOrderHistory aGhWkRtLpQzXcVbN x264 3d 7z MP4 a@b.co
    alpha@example.org me-- iso cn-north-9 deadbeef 0afe 12ab34 AKIA4X7TQ 64x64 page7 é 한글 {date} {n} %20 %2F %zz
    20240115T0830Z_Ab12Cd34 20240115T0830Z_Ab12Cd34.json.gz 20240115T0830Z_ 20240115T2461Z_Ab12Cd34.gz T08 8a4f-12-3e4
"""
_SIGNS = st.sampled_from(list("/-_.: +,=~!()'\"\\{}[]@%\n\0T"))
_UUIDS = st.uuids().map(str)
_HEXES = st.from_regex(r"[0-9a-f]{3,40}|[0-9A-F]{7,9}|[0-9A-Za-z]{4,24}", fullmatch=True)
_PARTS = st.one_of(_NUMBERS, st.sampled_from(_WORDS.split()), _SIGNS, _SIGNS, _UUIDS, _HEXES)
_KEYS = st.lists(_PARTS, max_size=12).map("".join)
_ITEMS = st.dictionaries(_KEYS, _KEYS, min_size=1, max_size=3).map(
    lambda item: "{" + ",".join(f'"{name}":"{value}"' for name, value in item.items()) + "}"
)


@settings(max_examples=examples(300))
@given(st.lists(st.one_of(_KEYS, _ITEMS, st.text(max_size=40)), max_size=8))
@example(["logs/2024/01/15/part-0007.gz", "2024-01-15-08-30", "2024-01-15abc", "2024/01", "20240115-083000", "1" * 400])
@example([f"logs/20240115T0830Z_{tail}" for tail in ("Ab12Cd3.", "Ab12Cd34", "10.0.0.1_Ab12Cd34.", "A" * 17 + ".")])
@example(
    ['{"pk":"order#12"}', '{"pk":"a","n":12}', '{"a":"b"', '{"a":"b" }', '{"pk":"x\\"y"}', "", "{", '{"', "ip-1", "us-"]
)
def test_patterns_in_bulk_are_those_of_each_key(keys: list[str]) -> None:
    assert patterns(keys, pattern.word_pattern, key_pattern) == [key_pattern(key) for key in keys]
    column = pa.array(["", *keys], pa.string()).slice(1)
    assert key_patterns(column).to_pylist() == without_accelerators(key_patterns, column).to_pylist()


def patterns(keys: list[str], word: Callable[[str], str], fallback: Callable[[str], str]) -> list[str]:
    """The pattern of each key; no pattern is listed twice."""
    places, found = _native.keys.patterns(*text_buffers(pa.array(["", *keys], pa.string())), word, fallback)
    assert len(set(found)) == len(found)
    return [found[place] for place in np.frombuffer(places, np.int32)[1:]]


def test_many_patterns_are_each_found_again() -> None:
    folders = map("".join, itertools.product("abcdefgh", repeat=4))
    keys = [f"folder-{folder}/page{at}" for folder in folders for at in range(3)]
    assert patterns(keys, pattern.word_pattern, key_pattern) == [key_pattern(key) for key in keys]


def test_no_word_with_digits_reads_as_a_hash() -> None:
    # _keys recognizes hashes by their form before it asks for words.
    assert not [word for word in pattern.WORDS_WITH_DIGITS if pattern._HEX.fullmatch(word)]


def test_common_keys_need_no_second_look() -> None:
    keys = [
        "AWSLogs/111122223333/us-east-1/2024/01/15/part-00007.snappy.parquet",
        "exports/2024-01-15/8f14e45f-ceea-4672-9d4b-0e3b1c2d3e4f/manifest.json",
        '{"pk":"order#8f14e45f-ceea-4672-9d4b-0e3b1c2d3e4f","sk":"v0"}',
    ]

    def refuse(key: str) -> str:
        raise AssertionError(key)

    assert patterns(keys, refuse, refuse) == [key_pattern(key) for key in keys]


@given(st.lists(st.text(max_size=300)))
@example(["x" * size for size in (0, 1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 121, 128)])
@example(["x" * (size * 7 % 1500) for size in range(1500)])
def test_hashes_are_the_first_bytes_of_the_md5(texts: list[str]) -> None:
    wanted = [
        int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[:8], "big", signed=True)
        for text in texts
    ]
    column = pa.array(["", *texts], pa.string()).slice(1)
    assert summarize.hashes64(column).tolist() == wanted
    assert without_accelerators(summarize.hashes64, column).tolist() == wanted


@given(st.lists(st.integers(0, 1200), min_size=1, max_size=6))
@example([*range(130)])
def test_checksums_are_those_of_zlib(sizes: list[int]) -> None:
    """For records of every size: the checksum is computed 64 bytes at a time, then 16, then one."""
    records = [
        f'{{"eventVersion":"1.11","eventTime":"2026-03-02T01:02:03Z","eventSource":"s3.amazonaws.com",'
        f'"eventName":"GetObject","eventID":"{uuid.UUID(int=at)}","requestID":"{"x" * size}"}}'
        for at, size in enumerate(sizes)
    ]
    scanner = new_scanner()
    assert scanner.scan(('{"Records":[' + ",".join(records) + "]}").encode(), 0) == (len(records), [])
    checks = scanner.take()["check"]
    assert isinstance(checks, bytes)
    wanted = [zlib.crc32(record.encode()) for record in records]
    assert np.frombuffer(checks, np.uint32).tolist() == wanted


_NUMBERS_OF_ALL_SIZES = st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1)


@given(st.lists(_NUMBERS_OF_ALL_SIZES, max_size=300))
@example([*range(2000), *range(1000)])
def test_groups_are_those_of_numpy(keys: list[int]) -> None:
    def runs(parts: tuple[Ints, Ints, Ints]) -> dict[int, list[int]]:
        order, starts, group = parts
        found = [rows.tolist() for rows in np.split(order, starts[1:])] if len(order) else []
        assert [group[rows].tolist() for rows in found] == [[at] * len(rows) for at, rows in enumerate(found)]
        return {keys[rows[0]]: sorted(rows) for rows in found}

    given = np.array(keys, np.int64)
    assert runs(grouped(given)) == runs(without_accelerators(grouped, given))


@given(
    st.lists(st.tuples(st.integers(0, 4), *[st.integers(0, 2**62)] * 2, st.integers(-(2**62), 2**62)), max_size=60),
    st.integers(5, 6),
)
def test_totals_are_those_of_numpy(rows: list[tuple[int, int, int, int]], groups: int) -> None:
    """A group may have no rows."""
    columns = [np.array([row[at] for row in rows], np.int64) for at in range(4)]

    def found() -> dict[str, list[int]]:
        totals = summarize._totals(columns[0], groups, *columns[1:])
        return {name: values.tolist() for name, values in totals.items()}

    assert found() == without_accelerators(found)
    assert sum(found()["events"]) == len(rows)


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | st.text("ab\0é", max_size=3)), max_size=40), st.integers(0, 2))
def test_smallest_texts_are_those_of_arrow(rows: list[tuple[int, str | None]], skipped: int) -> None:
    """The column may be a slice of another one."""
    column = pa.array([text for _, text in rows], pa.string()).dictionary_encode().slice(skipped)
    column = pa.DictionaryArray.from_arrays(column.indices, column.dictionary)
    group = np.array([number for number, _ in rows[skipped:]], np.int64)

    def found() -> list[str | None]:
        return smallest_text(DictionaryColumn(column), group, 4).to_pylist()

    assert found() == without_accelerators(found)


@given(st.lists(st.integers(-1, 9), max_size=50), st.integers(10, 12))
@example([0, 1, 2], 3)
@example([], 0)
def test_trimmed_codes_are_those_of_numpy(codes: list[int], size: int) -> None:
    given = np.array(codes, np.int32)

    def found() -> tuple[list[int], list[int]] | None:
        parts = parquet._trimmed_codes(given, size)
        return parts and (parts[0].tolist(), parts[1].tolist())

    assert found() == without_accelerators(found)
    parts = found()
    if parts is not None:
        assert [parts[1][new] for new, code in zip(parts[0], codes, strict=True) if code >= 0] == [
            code for code in codes if code >= 0
        ]


_WORDS_OF_IDS = st.integers(0, 3) | st.integers(0, 2**64 - 1)
_IDS = st.lists(st.tuples(_WORDS_OF_IDS, _WORDS_OF_IDS), max_size=60).map(sorted)


@given(_IDS, _IDS, st.booleans())
def test_places_of_ids_are_those_of_numpy(mine: list[Any], other: list[Any], more: bool) -> None:
    """The first place of an id that occurs more than once."""
    known, asked = (
        dedup.Ids(*(np.array([id[word] for id in ids], np.uint64) for word in (0, 1)), np.zeros(len(ids), np.uint32))
        for ids in (mine, sorted([*other, *mine[::2]]) if more else other)
    )
    assert known.find(asked).tolist() == without_accelerators(known.find, asked).tolist()


@given(st.lists(_IDS, min_size=1, max_size=5))
def test_merged_ids_are_those_of_numpy(lists: list[list[Any]]) -> None:
    parts = [
        dedup.Ids(*(np.array([id[word] for id in ids], np.uint64) for word in (0, 1)), np.arange(len(ids), dtype="u4"))
        for ids in lists
    ]

    def merged() -> list[tuple[int, int, int]]:
        ids = dedup.merge(parts)
        return list(zip(ids.high.tolist(), ids.low.tolist(), ids.check.tolist(), strict=True))

    assert [entry[:2] for entry in merged()] == sorted(itertools.chain.from_iterable(lists))
    assert sorted(merged()) == sorted(without_accelerators(merged))


@given(st.lists(st.tuples(st.integers(0, 4), _NUMBERS_OF_ALL_SIZES), max_size=60))
def test_sketches_are_those_of_numpy(pairs: list[tuple[int, int]]) -> None:
    group, values = (np.array([pair[at] for pair in pairs], np.int64) for at in (0, 1))
    wanted = [sorted({value for number, value in pairs if number == at}) for at in range(5)]
    assert summarize._smallest(group, values, 5).to_pylist() == wanted
    assert without_accelerators(summarize._smallest, group, values, 5).to_pylist() == wanted


def without_accelerators(function: Callable[..., Any], *args: Any) -> Any:
    """The result of a function without the C modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_native, "groups", None)
        patch.setattr(_native, "keys", None)
        return function(*args)


def test_errors_of_callbacks_are_passed_on() -> None:
    def fail(text: str) -> str:
        raise KeyError(text)

    with pytest.raises(KeyError):
        patterns(["page7"], fail, key_pattern)
    with pytest.raises(KeyError):
        patterns(["a@b"], pattern.word_pattern, fail)


def test_offsets_outside_of_the_texts() -> None:
    for ends in ([0, 3], [2, 1], [-1, 1]):
        offsets = np.array(ends, np.int32)
        with pytest.raises(ValueError, match="outside of the texts"):
            _native.keys.hashes(offsets, b"ab")
        with pytest.raises(ValueError, match="outside of the texts"):
            _native.keys.patterns(offsets, b"ab", pattern.word_pattern, key_pattern)


# -- what the scanner reads, and nothing else ------------------------------------------------------------------------


def new_scanner(shared: Any = None) -> Any:
    return _native.scan.Scanner(shared or InternTable(), zlib.crc32)


def log_of(*records: dict[str, Any]) -> bytes:
    return text({"Records": list(records)})


_VALUES = {"key": {"pk": "1"}, "n": [1, -2.5e-7, 0, True, None, "x" * 70, "\u20ac \U0001f600"], "e": {}, "l": []}
#: Every kind of value, name and end: five records, of which three are regular.
_LOG = (
    log_of(
        sample(),
        sample(eventID="11111111-2222-4333-8444-666666666666", requestParameters=_VALUES, apiVersion="2012-08-10"),
        sample(eventID="11111111-2222-4333-8444-777777777777", eventName="ListObjects", unknown=[{"a": "\\"}]),
        sample(eventID="11111111-2222-4333-8444-888888888888", userIdentity=None),
        sample(eventID="11111111-2222-4333-8444-999999999999", errorCode="E", errorMessage='no "a\\b"\n'),
    )
    + b" \r\n"
)


@pytest.fixture
def at_page_end() -> Iterator[Callable[[bytes], memoryview]]:
    """A function that puts bytes right before a page that must not be touched."""
    if sys.platform != "linux":
        pytest.skip("pages are protected as Linux does it")
    size = -(-len(_LOG) // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, size + mmap.PAGESIZE)
    anchor = ctypes.c_char.from_buffer(pages)
    page = ctypes.c_void_p(ctypes.addressof(anchor) + size)
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    assert mprotect(page, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0

    def put(data: bytes) -> memoryview:
        pages[size - len(data) : size] = data
        return memoryview(pages)[size - len(data) : size]

    yield put
    assert mprotect(page, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_WRITE) == 0
    del anchor


def test_no_scan_reads_behind_its_end(at_page_end: Callable[[bytes], memoryview]) -> None:
    """A log object cut at every byte, right before memory that may not be read: what is cut is not taken."""
    scanner = new_scanner()
    good = _LOG.rstrip()
    for end in range(len(_LOG) + 1):
        with at_page_end(_LOG[:end]) as piece:
            counted = scanner.scan(piece, 0)
        assert (counted is None) == (end < len(good)), end
    records, others = counted
    assert records == 5 and [at for at, _, _ in others] == [1, 2]
    assert scanner.rows == 3 * (len(_LOG) + 1 - len(good))


def test_no_search_reads_behind_its_end(at_page_end: Callable[[bytes], memoryview]) -> None:
    for size in range(1, 70):
        with at_page_end(b"ab" * size) as piece:
            assert not _native.scan.only_at_end(piece, 1 if size == 1 else 2) or size == 1
            assert _native.scan.only_at_end(piece, len(piece))
            assert not _native.scan.only_at_end(piece, len(piece) + 1)


def test_a_part_of_a_buffer_is_read_like_all_of_it() -> None:
    full = new_scanner()
    part = new_scanner()
    assert full.scan(_LOG, 3) == part.scan(memoryview(b"{" + _LOG + b"]}]}")[1 : 1 + len(_LOG)], 3)
    assert full.take() == part.take()


def test_a_text_is_locked_while_it_is_read() -> None:
    """Python code that the scanner calls cannot resize the text."""
    data = bytearray(_LOG)

    class Resizing(InternTable):
        def scan_place(self, raw: bytes) -> int:
            data.extend(bytes(1 << 20))
            return super().scan_place(raw)

    scanner = new_scanner(Resizing())
    with pytest.raises(BufferError):
        scanner.scan(data, 0)
    assert (scanner.rows, scanner.size, len(data)) == (0, 0, len(_LOG))
    data.extend(b"\n")
    assert new_scanner().scan(data, 0)[0] == 5


@pytest.mark.parametrize("method", ["scan", "take", "keep", "forget_names"])
def test_a_scanner_at_work_is_not_used_again(method: str) -> None:
    arguments = {"scan": (_LOG, 0), "keep": (0,)}.get(method, ())

    class Meddling(InternTable):
        def scan_what(self, *args: Any) -> int:
            getattr(scanner, method)(*arguments)
            return super().scan_what(*args)

    scanner = new_scanner(Meddling())
    with pytest.raises(RuntimeError, match="reading a log object"):
        scanner.scan(_LOG, 0)
    assert scanner.rows == 0
    with pytest.raises(RuntimeError, match="initialized"):
        scanner.__init__(InternTable(), zlib.crc32)
    with pytest.raises(RuntimeError, match="not initialized"):
        getattr(_native.scan.Scanner.__new__(_native.scan.Scanner), method)(*arguments)


def test_texts_of_other_types_are_refused() -> None:
    for data in ("{}", None, 7, memoryview(_LOG)[::2]):
        with pytest.raises((TypeError, BufferError)):
            new_scanner().scan(data, 0)


_PRINT_ROWS = """
import hashlib, sys, zlib
from trailsift import _native
from trailsift.decode.fast_path import InternTable
scanner = _native.scan.Scanner(InternTable(), zlib.crc32)
for _ in range(2):
    print(scanner.scan(sys.stdin.buffer.read() or b"", 0))
print(hashlib.sha256(repr(sorted(scanner.take().items())).encode()).hexdigest())
"""


def test_rows_do_not_depend_on_the_processor() -> None:
    """With the instructions of newer processors and without, and with a function of Python for the checksum."""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _PRINT_ROWS], input=_LOG, capture_output=True, check=True, env=os.environ | simd
        ).stdout
        for simd in ({}, {"TRAILSIFT_SIMD": "0"}, {"TRAILSIFT_SIMD": "1"})
    ]
    assert outputs[0] == outputs[1] == outputs[2]
    assert outputs[0].startswith(b"(5, ")


# -- keys that were chosen to collide --------------------------------------------------------------------------------


def seconds(function: Callable[..., Any], *args: Any) -> float:
    """CPU time of the fastest of three calls."""

    def once() -> float:
        start = time.process_time()
        function(*args)
        return time.process_time() - start

    return min(once() for _ in range(3))


def test_keys_that_collide_without_a_secret_are_grouped_as_fast_as_others() -> None:
    """These were all in one slot while the hash was a product with a constant: 40,000 of them took seconds."""
    inverse = pow(0x9E3779B97F4A7C15, -1, 1 << 64)
    numbers = np.arange(1, 40_001, dtype=np.uint64) << np.uint64(20)
    with np.errstate(over="ignore"):
        flood = ((numbers << np.uint64(32) | numbers) * np.uint64(inverse)).view(np.int64)
    others = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, len(flood))
    assert len(np.unique(flood)) == len(flood)
    assert seconds(_native.groups.groups, flood) < 20 * seconds(_native.groups.groups, others) + 0.05


def colliding_agents(count: int) -> list[str]:
    """User agents that had the same hash while it had no secret: each step of it could be turned back."""
    factor, half = np.uint64(0xD6E8FEB86659FD93), np.uint64(32)

    def step(state: Any, word: Any) -> Any:
        mixed = (state ^ word) * factor
        return mixed ^ (mixed >> half)

    address = b"10.0.0.1"
    # What came before the user agent: a mark, and twice a mark, a size and a text.
    before = b"\7" + b"\0" + len(address).to_bytes(4, "little") + address + b"\0" + (120).to_bytes(4, "little")
    agent = bytearray(b"A" * 120)
    row = before + bytes(agent)
    first = -(-len(before) // 32) * 32
    rng = np.random.default_rng(1)
    signs = np.array([sign for sign in range(0x23, 0x7F) if sign != 0x5C], np.uint8)
    agents: list[str] = []
    with np.errstate(over="ignore"):
        state = np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(len(row))
        for at in range(0, first, 32):
            state = step(state, np.frombuffer(row[at : at + 8], np.uint64)[0])
        target = step(state, np.uint64(0x4141414141414141)) ^ np.uint64(0x4242424242424242)
        while len(agents) < count:
            words = np.frombuffer(signs[rng.integers(0, len(signs), (500_000, 8), np.uint8)].tobytes(), np.uint64)
            answers = step(state, words) ^ target
            octets = answers.view(np.uint8).reshape(-1, 8)
            good = ((octets >= 0x23) & (octets < 0x7F) & (octets != 0x5C)).all(1)
            for word, answer in zip(words[good].tolist(), answers[good].tolist(), strict=True):
                at = first - len(before)
                agent[at : at + 8], agent[at + 32 : at + 40] = word.to_bytes(8, "little"), answer.to_bytes(8, "little")
                agents.append(agent.decode())
    return agents[:count]


def test_user_agents_that_collide_without_a_secret_are_found_as_directly_as_others() -> None:
    """6,000 of them took seven times as long as others, and the factor grew with their number."""

    class Counting:
        """Numbers names, and does nothing else."""

        def __init__(self) -> None:
            self.count = 0

        def scan_place(self, *_: Any) -> int:
            self.count += 1
            return self.count * 8

        scan_who = scan_what = scan_place

    def log_object(agents: list[str]) -> bytes:
        one = sample(sourceIPAddress="10.0.0.1", userAgent="AGENT", tlsDetails=None)
        head, tail = text(one).decode().split("AGENT")
        ids = [str(uuid.UUID(int=at + 1)) for at in range(len(agents))]
        records = [head + agent + tail.replace(one["eventID"], id) for agent, id in zip(agents, ids, strict=True)]
        return ('{"Records":[' + ",".join(records) + "]}").encode()

    flood = colliding_agents(6_000)
    rng = np.random.default_rng(2)
    others = ["".join(map(chr, rng.integers(0x30, 0x5B, 120))) for _ in flood]

    for agents in (flood, others):
        scanner = new_scanner(Counting())
        assert scanner.scan(log_object(agents), 0) == (len(agents), [])
        # A few for each name, where names that collide would pass over thousands.
        assert scanner.passed < 10 * len(agents)


# -- buffers that do not fit ------------------------------------------------------------------------------------------


def int64(*values: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(values, np.int64)


def int32(*values: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array(values, np.int32)


_PAIR = int32(0, 1, 2), b"ab"
_WRONG: dict[str, tuple[str, tuple[Any, ...]]] = {
    "a code above the texts": ("smallest", (*_PAIR, int64(3), int64(0), 1)),
    "a code below zero": ("smallest", (*_PAIR, int64(-1), int64(0), 1)),
    "a group that is too large": ("smallest", (*_PAIR, int64(1), int64(1), 1)),
    "a group below zero": ("smallest", (*_PAIR, int64(1), int64(-1), 1)),
    "fewer groups than codes": ("smallest", (*_PAIR, int64(1, 2), int64(0), 1)),
    "offsets outside of the texts": ("smallest", (int32(0, 9), b"ab", int64(1), int64(0), 1)),
    "offsets that fall": ("smallest", (int32(2, 1), b"ab", int64(1), int64(0), 1)),
    "no offsets": ("smallest", (int32(), b"", int64(), int64(), 0)),
    "half a number": ("groups", (b"1234",)),
    "numbers that are not aligned": ("groups", (memoryview(bytes(17))[1:],)),
    "groups out of order": ("by_group", (int64(0, 2), 2)),
    "less than no groups": ("by_group", (int64(), -1)),
    "many groups": ("by_group", (int64(), 2**62)),
    "less than no totals": ("totals", (int64(), -3, int64(), int64(), int64())),
    "a total of another group": ("totals", (int64(1), 1, int64(1), int64(1), int64(1))),
    "totals of fewer rows": ("totals", (int64(0), 1, int64(1), int64(), int64(1))),
    "a code that is too large": ("trimmed", (int32(5), 5)),
    "less than no codes": ("trimmed", (int32(), -1)),
    "half an id": ("places", (int64(1, 2), int64(1), int64(), int64())),
    "half an id to look for": ("places", (int64(), int64(), int64(1), int64())),
    "an id without a checksum": ("merged", (int64(1), int64(1), int32(), int64(), int64(), int32())),
    "another id without a checksum": ("merged", (int64(), int64(), int32(), int64(1), int64(1), int32())),
}


@pytest.mark.parametrize("case", _WRONG)
def test_buffers_that_do_not_fit_are_refused(case: str) -> None:
    function, arguments = _WRONG[case]
    with pytest.raises(ValueError):
        getattr(_native.groups, function)(*arguments)


@pytest.mark.parametrize("offsets", [b"", b"abc", b"abcde", memoryview(bytes(9))[1:]])
def test_offsets_that_are_none_are_refused(offsets: Any) -> None:
    with pytest.raises(ValueError):
        _native.keys.hashes(offsets, b"ab")
    with pytest.raises(ValueError):
        _native.keys.patterns(offsets, b"ab", pattern.word_pattern, key_pattern)
