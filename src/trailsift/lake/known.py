"""What a lake knows of log objects that were ingested before: for a source that lists only what it does not know."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from trailsift.lake import index
from trailsift.lake.commit import Listed
from trailsift.lake.settings import read_settings

#: Notes on what was listed that are looked at, newest first.
_NOTES = 200
_AT_ONCE = 400


class KnownObjects:
    """The names of log objects in a lake, and the notes on places of which everything was ingested.

    It sees the lake as the last commit left it, and may be used by any thread. ``close`` it before others are forked.
    """

    def __init__(self, root: Path) -> None:
        # Imported lazily: an ingest of local files does without numpy, which it imports, if nothing is new.
        from trailsift.lake.expire import seen_days

        self._db = index.connect(root, check_same_thread=False)
        self._lock = threading.Lock()
        self.names_kept_days = seen_days(read_settings(root))
        self._any = bool(self._ask("SELECT 1 FROM sqlite_master WHERE name = 'log_object'")) and bool(
            self._ask("SELECT 1 FROM log_object LIMIT 1")
        )

    def _ask(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close the catalog's database."""
        self._db.close()

    def unknown(self, log_objects: Sequence[tuple[str, str]]) -> list[bool]:
        """Return for each (name, version) whether it was not ingested before."""
        if not self._any:
            return [True] * len(log_objects)
        known: set[tuple[object, ...]] = set()
        for start in range(0, len(log_objects), _AT_ONCE):
            part = log_objects[start : start + _AT_ONCE]
            marks = ",".join(["(?,?)"] * len(part))
            # A lookup by key for each: `(name, version) IN (VALUES ...)` reads the whole table each time.
            sql = (
                f"WITH asked (n, v) AS (VALUES {marks}) SELECT n, v FROM asked"
                " WHERE EXISTS (SELECT 1 FROM log_object WHERE name = n AND version = v)"
            )
            known.update(self._ask(sql, [value for pair in part for value in pair]))
        return [pair not in known for pair in log_objects]

    def newest_known(self, folders: Sequence[str]) -> dict[str, str]:
        """Return the last name, in their order, of each folder of which a name is known. A folder ends in ``/``."""
        found = {}
        if self._any:
            for folder in folders:
                # The sign after the slash ends the names of the folder.
                rows = self._ask(
                    "SELECT max(name) FROM log_object WHERE name >= ? AND name < ?", (folder, folder[:-1] + "0")
                )
                if rows and isinstance(rows[0][0], str):
                    found[folder] = rows[0][0]
        return found

    def listed(self) -> list[Listed]:
        """Return the newest notes on places of which everything was ingested, newest first."""
        if not self._any:
            return []
        sql = "SELECT counts FROM commit_log WHERE counts LIKE '%\"listed\"%' ORDER BY seq DESC LIMIT ?"
        return [note for (text,) in self._ask(sql, (_NOTES,)) for note in _notes(text)]


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
