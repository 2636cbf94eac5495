"""The ids of all events ever seen, which make "exactly once" hold across runs.

Each commit has one immutable file: 128-bit ids in order, a CRC of each record, so that a second copy with other content
is noticed, and the day of each event, so that a query for one event opens the files of that day only. Files are read by
memory map; a lookup is a binary search.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trailsift import _native
from trailsift.errors import LakeError
from trailsift.lake.forms import ID_BYTES, ID_BYTES_1
from trailsift.storage import LocalStorage
from trailsift.storage.local import make_file, make_folders
from trailsift.times import DAY

Words = np.ndarray[Any, np.dtype[np.uint64]]
Checks = np.ndarray[Any, np.dtype[np.uint32]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Days = np.ndarray[Any, np.dtype[np.uint16]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

#: The day of an id from a file of format version 1, which has none, and of events after the year 2148.
UNKNOWN_DAY = 0xFFFF

#: Ids merged at a time when several lists become one file: 22 bytes each, several times over in memory.
SLICE = 200_000


@dataclass(frozen=True, slots=True)
class Ids:
    """Ids as two 64-bit words each, the CRC of each record, and its day since 1970; sorted by (high, low).

    ``day`` is None if no day is known.
    """

    high: Words
    low: Words
    check: Checks
    day: Days | None = None

    def __len__(self) -> int:
        return len(self.high)

    def find(self, other: Ids) -> Ints:
        """Return for each of ``other``'s ids, which are in order, its place here, or -1."""
        if not len(self) or not len(other):
            return np.full(len(other), -1, np.int64)
        if _native.groups is not None:
            return np.frombuffer(_native.groups.places(self.high, self.low, other.high, other.low), np.int64)
        place = np.searchsorted(self.high, other.high)
        last = len(self) - 1
        while True:
            at = np.minimum(place, last)
            behind = (place <= last) & (self.high[at] == other.high) & (self.low[at] < other.low)
            if not behind.any():
                break
            place = place + behind
        hit = (place <= last) & (self.high[at] == other.high) & (self.low[at] == other.low)
        return np.where(hit, at, -1)

    def release_pages(self) -> None:
        """Drop what was read of a file from the process's memory; it stays in the system's cache."""
        if isinstance(self.high, np.memmap):
            for words in (self.high, self.low, self.check, self.day):
                mapped = getattr(words, "_mmap", None)
                if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
                    mapped.madvise(mmap.MADV_DONTNEED)

    def take(self, rows: Any) -> Ids:
        """Return the entries at some rows."""
        return Ids(self.high[rows], self.low[rows], self.check[rows], None if self.day is None else self.day[rows])

    def known_days(self) -> Days:
        """Return the day of each id, ``UNKNOWN_DAY`` where it is not known."""
        return np.full(len(self), UNKNOWN_DAY, np.uint16) if self.day is None else self.day


def ids_of(raw: np.ndarray[Any, np.dtype[np.void]], checks: Checks, days: Days | None = None) -> Ids:
    """Return ids in the order given, not sorted, from 16-byte identities."""
    words = np.frombuffer(raw.tobytes(), ">u8").astype(np.uint64)
    return Ids(words[0::2], words[1::2], checks, days)


def days_of(micros: Ints) -> Days:
    """Return the days of times (microseconds since 1970)."""
    days = micros // DAY
    known: Days = np.where((days >= 0) & (days < UNKNOWN_DAY), days, UNKNOWN_DAY).astype(np.uint16)
    return known


def sort(ids: Ids) -> tuple[Ids, Ints]:
    """Sort by id, equal ids in their order; return them and the row that each came from."""
    # High words are almost never equal, and sorting by one key is eight times as fast as by two.
    order = np.argsort(ids.high)
    high = ids.high[order]
    if (high[1:] == high[:-1]).any():
        order = np.lexsort((ids.low, ids.high))
    return ids.take(order), order


def repeated(ordered: Ids) -> Mask:
    """Return which entries of a sorted list equal the one before."""
    mask = np.zeros(len(ordered), bool)
    mask[1:] = (ordered.high[1:] == ordered.high[:-1]) & (ordered.low[1:] == ordered.low[:-1])
    return mask


def merge(parts: Sequence[Ids]) -> Ids:
    """Return all entries of several sorted lists, sorted."""
    lists = list(parts)
    while len(lists) > 1:
        # Neighbours, so that each entry is moved few times.
        pairs = [_merge_two(*lists[at : at + 2]) for at in range(0, len(lists) - 1, 2)]
        lists = pairs + lists[len(pairs) * 2 :]
    return lists[0]


def _merge_two(left: Ids, right: Ids) -> Ids:
    days = None
    if left.day is not None or right.day is not None:
        days = left.known_days(), right.known_days()
    if _native.groups is None:
        fields = ("high", "low", "check")
        both = Ids(*(np.concatenate([getattr(left, field), getattr(right, field)]) for field in fields))
        return sort(replace(both, day=None if days is None else np.concatenate(days)))[0]
    high, low, check = _native.groups.merged(left.high, left.low, left.check, right.high, right.low, right.check)
    merged = Ids(np.frombuffer(high, np.uint64), np.frombuffer(low, np.uint64), np.frombuffer(check, np.uint32))
    if days is None:
        return merged
    # The same merge, with the days in place of the CRCs.
    parts = [part.astype(np.uint32) for part in days]
    _, _, day = _native.groups.merged(left.high, left.low, parts[0], right.high, right.low, parts[1])
    return replace(merged, day=np.frombuffer(day, np.uint32).astype(np.uint16))


def write(parts: Sequence[Ids], path: Path) -> None:
    """Write sorted lists of ids as one: all high words, all low words, all CRCs, all days, little-endian.

    One range of ids at a time, so that memory does not grow with their number.
    """
    make_folders(path.parent)
    make_file(path)
    total = sum(map(len, parts))
    slices = total // SLICE + 1
    # Ids are random, so equal ranges of their first word hold about equal numbers.
    edges = np.array([number * (1 << 64) // slices for number in range(slices)], np.uint64)
    bounds = [[*np.searchsorted(part.high, edges).tolist(), len(part)] for part in parts]
    done = 0
    with path.open("wb") as file:
        for number in range(slices if total else 0):
            ids = merge([part.take(slice(at[number], at[number + 1])) for part, at in zip(parts, bounds, strict=True)])
            places: tuple[tuple[int, Any, str], ...] = (
                (8 * done, ids.high, "<u8"),
                (8 * (total + done), ids.low, "<u8"),
            )
            places += ((16 * total + 4 * done, ids.check, "<u4"), (20 * total + 2 * done, ids.known_days(), "<u2"))
            for offset, words, kind in places:
                file.seek(offset)
                file.write(words.astype(kind, copy=False).data)
            done += len(ids)


def read(path: Path, count: int) -> Ids:
    """Return a file's ``count`` sorted ids, by memory map. LakeError if the file has another size."""
    size = path.stat().st_size
    if size not in (count * ID_BYTES, count * ID_BYTES_1):
        raise damaged(path, f"has {size:,} bytes, and not those of {count:,} ids")
    if not count:
        empty = np.empty(0, np.uint64)
        return Ids(empty, empty, np.empty(0, np.uint32))
    return Ids(
        np.memmap(path, "<u8", "r", 0, (count,)),
        np.memmap(path, "<u8", "r", 8 * count, (count,)),
        np.memmap(path, "<u4", "r", 16 * count, (count,)),
        # Format version 1 had no days. Such files stay until their ids are too old.
        np.memmap(path, "<u2", "r", 20 * count, (count,)) if size == count * ID_BYTES else None,
    )


def damaged(path: Path, what: str) -> LakeError:
    """Return the error for a file of ids that is damaged: without its ids, events would be stored again."""
    return LakeError(
        f"the event ids in {path} are damaged: the file {what}. Nothing was stored, because events could be stored "
        "twice. Restore the file from a copy of the lake, or ingest the logs into a new lake; `trailsift verify` lists "
        "all damage"
    )


class DedupIndex:
    """The ids seen so far: those of the lake and those of the open batch."""

    def __init__(self) -> None:
        self._files: dict[str, Ids] = {}
        self._batch: list[Ids] = []

    def has(self, path: str) -> bool:
        """Return whether a file's ids are loaded."""
        return path in self._files

    def load(self, storage: LocalStorage, files: Mapping[str, int]) -> None:
        """Let the lake's part be the ids of these files, of which each has so many. LakeError if one is damaged."""
        self._files = {path: ids for path, ids in self._files.items() if path in files}
        for path, count in files.items():
            if path not in self._files:
                place = storage.checked_path(path)
                try:
                    self._files[path] = read(place, count)
                except FileNotFoundError as error:
                    raise damaged(place, "is missing") from error

    def offer(self, ids: Ids) -> tuple[Mask, Ints]:
        """Take the new ones of a chunk's ids into the batch.

        Return for each row of the chunk whether it is new, and the rows that repeat a known id with another checksum.
        """
        ordered, origin = sort(ids)
        repeats = repeated(ordered)
        known = repeats.copy()
        differs = np.zeros(len(ordered), bool)
        if repeats.any():
            # The first of a run of equal ids is the original of all of them.
            head = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(ordered))))
            differs |= repeats & (ordered.check != ordered.check[head])
        for part in (*self._files.values(), *self._batch):
            place = part.find(ordered)
            part.release_pages()
            hit = (place >= 0) & ~known
            differs |= (place >= 0) & (part.check[np.maximum(place, 0)] != ordered.check) if len(part) else False
            known |= hit
        fresh = np.empty(len(ids), bool)
        fresh[origin] = ~known
        if (~known).any():
            self._batch.append(ordered.take(~known))
            # Lists of similar size become one, so that few have to be searched.
            while len(self._batch) > 1 and len(self._batch[-2]) < 2 * len(self._batch[-1]):
                self._batch[-2:] = [_merge_two(*self._batch[-2:])]
        return fresh, np.sort(origin[differs & known])

    def has_any(self, batch: Iterable[Ids]) -> bool:
        """Return whether the lake has an id of these lists, which are in order."""
        return any((part.find(ids) >= 0).any() for ids in batch for part in self._files.values())

    def batch(self) -> list[Ids]:
        """Return the ids taken since the last commit, in sorted lists."""
        return list(self._batch)

    def clear_batch(self) -> None:
        """Forget the batch: it is committed, or given up."""
        self._batch.clear()
