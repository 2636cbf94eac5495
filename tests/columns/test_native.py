"""The C parts give what Python gives."""

from __future__ import annotations

import hashlib
import itertools
import uuid
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trailsift import _native
from trailsift.cloudtrail import key_patterns as pattern
from trailsift.cloudtrail.key_patterns import key_pattern
from trailsift.columns import summarize
from trailsift.columns.group_by import DictionaryColumn, Ints, grouped, smallest_text, text_buffers
from trailsift.columns.summarize import key_patterns
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


@settings(max_examples=300)
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
    """The pattern of each key; each of them is given once."""
    places, found = _native.keys.patterns(*text_buffers(pa.array(["", *keys], pa.string())), word, fallback)
    assert len(set(found)) == len(found)
    return [found[place] for place in np.frombuffer(places, np.int32)[1:]]


def test_many_patterns_are_each_found_again() -> None:
    folders = map("".join, itertools.product("abcdefgh", repeat=4))
    keys = [f"folder-{folder}/page{at}" for folder in folders for at in range(3)]
    assert patterns(keys, pattern.word_pattern, key_pattern) == [key_pattern(key) for key in keys]


def test_no_word_with_digits_reads_as_a_hash() -> None:
    # _keys tells hashes by their form before it asks for words.
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
    """Of records of every size: the checksum is taken 64 bytes at a time, then 16, then one."""
    from trailsift.decode.fast_path import InternTable

    assert _native.scan is not None

    records = [
        f'{{"eventVersion":"1.11","eventTime":"2026-03-02T01:02:03Z","eventSource":"s3.amazonaws.com",'
        f'"eventName":"GetObject","eventID":"{uuid.UUID(int=at)}","requestID":"{"x" * size}"}}'
        for at, size in enumerate(sizes)
    ]
    scanner = _native.scan.Scanner(InternTable(), zlib.crc32)
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
    """Also of a group that has no row."""
    columns = [np.array([row[at] for row in rows], np.int64) for at in range(4)]

    def found() -> dict[str, list[int]]:
        totals = summarize._totals(columns[0], groups, *columns[1:])
        return {name: values.tolist() for name, values in totals.items()}

    assert found() == without_accelerators(found)
    assert sum(found()["events"]) == len(rows)


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | st.text("ab\0é", max_size=3)), max_size=40), st.integers(0, 2))
def test_smallest_texts_are_those_of_arrow(rows: list[tuple[int, str | None]], skipped: int) -> None:
    """Also of a column that is a part of another one."""
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
    """Of an id that stands in several places the first one."""
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
    """What a function gives where there is no C compiler."""
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


def test_texts_that_there_are_not() -> None:
    for ends in ([0, 3], [2, 1], [-1, 1]):
        offsets = np.array(ends, np.int32)
        with pytest.raises(ValueError, match="a text that there is not"):
            _native.keys.hashes(offsets, b"ab")
        with pytest.raises(ValueError, match="a text that there is not"):
            _native.keys.patterns(offsets, b"ab", pattern.word_pattern, key_pattern)
