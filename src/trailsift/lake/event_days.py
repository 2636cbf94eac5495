"""The day of an event by its id, so that a query for one event opens the files of that day only.

The files of event ids (``lake.dedup``) hold ids in order, and the day of each. A lookup reads some twenty words of each
file, without numpy: a query does not import it.
"""

from __future__ import annotations

import json
import mmap
import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from trailsift.cloudtrail.event_ids import event_key
from trailsift.lake import forms, index
from trailsift.lake.index import Snapshot
from trailsift.storage import folder_storage
from trailsift.times import DAY

#: Ids that are looked up one by one; for more, the files are read as for any other condition.
MOST_IDS = 100
_UNKNOWN = 0xFFFF


class EventDays(NamedTuple):
    """The days (since 1970) of events that were looked up.

    ``forgotten``: the last day of which ids are too old to be kept, -1 if none are. On it, and before, there may be an
    event with the same id: it was stored again after its id was forgotten.
    """

    days: frozenset[int]
    forgotten: int

    def may_be_on(self, first: int, last: int) -> bool:
        """Return whether one of the events may be between two days, both included."""
        return first <= self.forgotten or any(first <= day <= last for day in self.days)


def event_days(snapshot: Snapshot, event_ids: Collection[str]) -> EventDays | None:
    """Return the days of events; None if that of one is not known.

    It is not known of ids that are too old, were stored by format version 1, or never existed, nor if a file of ids
    cannot be read: ``verify`` names such a file.
    """
    if not event_ids or len(event_ids) > MOST_IDS or snapshot.rebuilt is not None:
        return None
    rows, forgotten = index.read(snapshot.root, _files)
    if forgotten is None:
        return None
    left = {_words(event_id) for event_id in event_ids}
    days: set[int] = set()
    for path, count in rows:
        if type(count) is not int or count <= 0:
            continue
        with suppress(OSError, ValueError):
            for words, day in _found(folder_storage(snapshot.root).checked_path(forms.ids_path(path)), count, left):
                left.discard(words)
                days.add(day)
        if not left:
            break
    return None if left or _UNKNOWN in days else EventDays(frozenset(days), forgotten)


def _files(db: sqlite3.Connection) -> tuple[list[tuple[Any, Any]], int | None]:
    """Return the files of ids, and the last day of which ids have expired; None if that is not recorded."""
    rows = db.execute("SELECT path, ids FROM seen_file WHERE removed IS NULL").fetchall()
    forgotten = -1
    for (text,) in db.execute("SELECT counts FROM commit_log WHERE kind = 'seen'"):
        with suppress(ValueError, TypeError, AttributeError):
            counts = json.loads(text)
            if counts.get("seen_files_expired"):
                last = counts.get("expired_to")
                if type(last) is not int:
                    # An earlier version did not record it.
                    return rows, None
                forgotten = max(forgotten, last // DAY)
    return rows, forgotten


def _words(event_id: str) -> tuple[int, int]:
    """Return the two words by which files of ids are sorted."""
    high, low = (int.from_bytes(word.to_bytes(8, "little"), "big") for word in event_key(event_id))
    return high, low


def _found(path: Path, count: int, wanted: Collection[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield those of the wanted ids that a file of ``count`` ids holds, and their days."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != count * forms.ID_BYTES:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for words in list(wanted):
                at = _place(data, count, *words)
                if at is not None:
                    yield words, int.from_bytes(data[20 * count + 2 * at : 20 * count + 2 * at + 2], "little")


def _place(data: mmap.mmap, count: int, high: int, low: int) -> int | None:
    """Return the place of an id in a file, by binary search."""
    first, last = 0, count
    while first < last:
        middle = (first + last) // 2
        here = int.from_bytes(data[8 * middle : 8 * middle + 8], "little")
        if here < high or (here == high and _low(data, count, middle) < low):
            first = middle + 1
        else:
            last = middle
    if first == count or int.from_bytes(data[8 * first : 8 * first + 8], "little") != high:
        return None
    return first if _low(data, count, first) == low else None


def _low(data: mmap.mmap, count: int, place: int) -> int:
    return int.from_bytes(data[8 * (count + place) : 8 * (count + place) + 8], "little")
