"""What a lake knows of log objects that were ingested before: for a source that lists only what it does not know."""

from __future__ import annotations

import json
import re
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from trailsift.lake import index, log_objects
from trailsift.lake.commit import IngestedObject, Listed
from trailsift.lake.settings import read_settings
from trailsift.storage import folder_storage

#: Notes on what was listed that are looked at, newest first.
_NOTES = 200
#: The date at the end of the folder of a year, a month or a day.
_DATE = re.compile(r"/(\d{4})/(?:(\d\d)/(?:(\d\d)/)?)?\Z", re.ASCII)


class KnownObjects:
    """The names of log objects in a lake, and the notes on places of which everything was ingested.

    It sees the lake as the last commit left it, and may be used by any thread.
    """

    def __init__(self, root: Path) -> None:
        # Imported lazily: an ingest of local files does without numpy, which it imports, if nothing is new.
        from trailsift.lake.expire_seen import seen_days

        self._db = index.connect(root, check_same_thread=False)
        # Polls make many, and nobody closes those.
        weakref.finalize(self, self._db.close)
        self._storage = folder_storage(root)
        self._lock = threading.Lock()
        self.names_kept_days = seen_days(read_settings(root))
        #: By delivery day: the last name in each folder.
        self._newest: dict[str, dict[str, str]] = {}
        #: The digests of the files that were looked at last.
        self._digests: dict[str, bytes] = {}
        self._in_catalog = log_objects.are_in_catalog(self._db)
        self._days = sorted({file.day for file in log_objects.files(self._db)})
        self._any = self._in_catalog or bool(self._days)

    def close(self) -> None:
        """Close the catalog's database."""
        self._db.close()

    def unknown(self, found: Sequence[IngestedObject]) -> list[bool]:
        """Return for each log object whether it was not ingested before."""
        if not self._any:
            return [True] * len(found)
        with self._lock:
            known = log_objects.known(self._storage, self._db, found, self._digests)
        return [(o.name, o.version) not in known for o in found]

    def newest_known(self, folders: Sequence[str]) -> dict[str, str]:
        """Return the last name, in their order, of each folder of which a name is known. A folder ends in ``/``."""
        found: dict[str, str] = {}
        for folder in folders if self._any else ():
            date = _DATE.search(folder)
            begins = "-".join(part for part in date.groups() if part) if date else ""
            names = [
                name
                for day in self._days
                if day.startswith(begins)
                for place, name in self._newest_of(day).items()
                if place.startswith(folder)
            ]
            if self._in_catalog:
                # The sign after the slash ends the names of the folder.
                bounds = folder, folder[:-1] + "0"
                with self._lock:
                    sql = "SELECT max(name) FROM log_object WHERE name >= ? AND name < ?"
                    rows = self._db.execute(sql, bounds).fetchall()
                names += [str(name) for (name,) in rows if isinstance(name, str)]
            if names:
                found[folder] = max(names)
        return found

    def _newest_of(self, day: str) -> dict[str, str]:
        """Return the last name in each folder, of the log objects that were delivered on a day."""
        with self._lock:
            if day not in self._newest:
                newest: dict[str, str] = {}
                for file in log_objects.files(self._db, [day]):
                    for name, _ in log_objects.names(self._storage, file):
                        folder = name[: name.rfind("/") + 1]
                        newest[folder] = max(newest.get(folder, ""), name)
                self._newest[day] = newest
            return self._newest[day]

    def listed(self) -> list[Listed]:
        """Return the newest notes on places of which everything was ingested, newest first."""
        if not self._any:
            return []
        sql = "SELECT counts FROM commit_log WHERE counts LIKE '%\"listed\"%' ORDER BY seq DESC LIMIT ?"
        with self._lock:
            rows = self._db.execute(sql, (_NOTES,)).fetchall()
        return [note for (text,) in rows for note in _notes(text)]


def as_counts(notes: Iterable[Listed]) -> dict[str, object]:
    """Return notes in the form in which a commit's counts hold them."""
    listed = [asdict(note) for note in notes]
    return {"listed": listed} if listed else {}


_MINUTE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:00\+00:00", re.ASCII)


def _notes(text: object) -> Iterator[Listed]:
    """Yield the notes in a commit's counts. One that no commit of ours makes is passed over: more is listed then."""
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return
    notes = found.get("listed") if isinstance(found, dict) else None
    for note in notes if isinstance(notes, list) else ():
        if not isinstance(note, dict) or note.keys() != {"place", "accounts", "regions", "since", "through"}:
            continue
        place, accounts, regions, since, through = (note[name] for name in Listed.__slots__)
        if (
            isinstance(place, str)
            and all(
                isinstance(part, list) and all(isinstance(name, str) for name in part) for part in (accounts, regions)
            )
            and (since is None or _is_minute(since))
            and _is_minute(through)
        ):
            yield Listed(place, tuple(accounts), tuple(regions), since, through)


def _is_minute(value: object) -> bool:
    return isinstance(value, str) and _MINUTE.fullmatch(value) is not None
