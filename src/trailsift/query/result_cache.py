"""Results kept on disk, by statement and snapshot.

A committed snapshot never changes, so a result stays correct as long as its key (statement, snapshot, zone, versions)
is the same. Results of statements that read the clock or use random numbers are kept only if the caller accepts an
age (``ttl``). The files belong to the user: mode 0600, under the user's cache folder, never in the lake.
"""

from __future__ import annotations

import contextlib
import json
import time
import zlib
from pathlib import Path
from typing import NamedTuple

from trailsift.query.types import ColumnType, Row
from trailsift.storage import LocalStorage, StoredObject
from trailsift.storage.local import user_cache

#: Increased when the content of the files changes; files of another version are not used.
_VERSION = 1
_SUFFIX = ".answer"
#: A result whose JSON is larger is not kept (bytes).
MAX_ANSWER = 16 * 2**20
#: Limit of all results together (bytes); the least recently used are deleted first.
MAX_TOTAL = 256 * 2**20


class CachedResult(NamedTuple):
    """A kept result: columns, fetched rows (see ``types``) and when it was computed (seconds since 1970)."""

    columns: list[ColumnType]
    rows: list[Row]
    computed_at: float


def default_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/trailsift/answers``, by default under ``~/.cache``."""
    return user_cache() / "answers"


def key_of(*parts: object) -> str:
    """Return the name under which the result for all of ``parts`` is kept."""
    import hashlib  # loads OpenSSL, which a query without a cache does not need

    text = json.dumps([_VERSION, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Cache:
    """A folder of results. If anything goes wrong with it (full disk, broken files), a query is only slower."""

    def __init__(self, folder: Path | None = None, *, max_total: int = MAX_TOTAL, max_answer: int = MAX_ANSWER) -> None:
        self.folder = folder or default_folder()
        # A result that is lost in a power cut is computed again.
        self._storage = LocalStorage(self.folder, private=True, sync=False)
        self.max_total = max_total
        self.max_answer = max_answer
        #: Bytes that may be written until the folder is listed again: with thousands of answers that is slower than a
        #: query. Other processes write too, so it is never more than a sixteenth of all.
        self._room = 0

    def get(self, key: str, ttl: float | None = None) -> CachedResult | None:
        """Return the result kept under ``key``; one that can age only if it is at most ``ttl`` seconds old."""
        path = _path(key)
        try:
            kept = json.loads(zlib.decompress(self._storage.read(path)))
            if kept["key"] != key:
                return None
            age = time.time() - kept["made"]
            if kept["ages"] and (ttl is None or not 0 <= age <= ttl):
                return None
            columns = [(str(name), str(kind)) for name, kind in kept["columns"]]
            rows = [tuple(row) for row in kept["rows"]]
            if any(len(row) != len(columns) for row in rows):
                raise ValueError("rows and columns differ")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, zlib.error, RecursionError):
            with contextlib.suppress(OSError):
                self._storage.delete(path)
            return None
        with contextlib.suppress(OSError):
            self._storage.touch(path)
        return CachedResult(columns, rows, kept["made"])

    def put(self, key: str, columns: list[ColumnType], chunks: list[str], *, ages: bool) -> None:
        """Keep a result given as JSON texts of lists of rows (see ``Recorder``)."""
        rows = ",".join(chunk[1:-1] for chunk in chunks if chunk != "[]")
        head = json.dumps({"key": key, "made": time.time(), "ages": ages, "columns": columns})
        packed = zlib.compress(f'{head[:-1]}, "rows": [{rows}]}}'.encode("utf-8", "surrogatepass"), 1)
        if len(packed) > self.max_total:
            return
        with contextlib.suppress(OSError):
            self._storage.write(_path(key), packed)
            self._room -= len(packed)
            if self._room < 0:
                self._room = min(self.max_total - self._trim(), self.max_total // 16)

    def clear(self) -> None:
        """Delete all results."""
        with contextlib.suppress(OSError):
            for stored in self._answers():
                self._storage.delete(stored.path)

    def _answers(self) -> list[StoredObject]:
        return [stored for stored in self._storage.list() if stored.path.endswith(_SUFFIX)]

    def _trim(self) -> int:
        """Delete what was not used for longest until the rest is small enough; return its bytes."""
        answers = self._answers()
        total = sum(answer.size for answer in answers)
        if total > self.max_total:
            self._storage.tidy()
        for answer in sorted(answers, key=lambda answer: answer.modified):
            if total <= self.max_total:
                break
            self._storage.delete(answer.path)
            total -= answer.size
        return total


def _path(key: str) -> str:
    return key + _SUFFIX


class Recorder:
    """Collects a result while it streams; gives up, and frees its memory, once it is too large."""

    def __init__(self, limit: int = MAX_ANSWER) -> None:
        self.chunks: list[str] | None = []
        self._left = limit

    def add(self, rows: list[Row]) -> None:
        """Record more rows."""
        if self.chunks is None:
            return
        # A row takes at least two characters: do not encode what cannot fit.
        text = json.dumps(rows) if 2 * len(rows) <= self._left else None
        self._left -= len(text) if text is not None else self._left + 1
        if text is None or self._left < 0:
            self.chunks = None
        else:
            self.chunks.append(text)
