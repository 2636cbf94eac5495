"""The names of the log objects that a lake has read, in files that never change: one for each commit and delivery day.

A file holds the 16-byte digests of its log objects (name and version) in order, by which an ingest finds those that it
need not read again, and behind them the names themselves, compressed. The index names the files by day, so an ingest of
a week opens those of a week, whatever else the lake has read. They are merged and expire as the files of event ids do.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from trailsift.errors import LakeError
from trailsift.lake import forms
from trailsift.lake.commit import IngestedObject
from trailsift.storage import LocalStorage

#: Bytes of a digest.
_DIGEST = 16
#: Files of a day above which they are merged.
MANY = 4
#: The largest file that is read, and the largest that its names unpack to, in bytes.
_MAX_FILE, _MAX_NAMES = 1 << 30, 4 << 30
#: Of a file with at most so many log objects per one that is asked for, all digests are put into a set.
_FEW = 8
_ASKED_AT_ONCE = 400
#: Bytes of digests that are kept in memory.
_KEPT = 64 << 20


class ObjectFile(NamedTuple):
    """A file of log objects that were delivered on ``day`` (UTC, ISO 8601); ``added``: the commit of its newest one."""

    path: str
    objects: int
    day: str
    added: int


SCHEMA = """
CREATE TABLE IF NOT EXISTS object_file (
    path TEXT PRIMARY KEY,
    objects INTEGER NOT NULL,
    day TEXT NOT NULL,
    added INTEGER NOT NULL,
    removed INTEGER
);
"""
_FILES = "SELECT path, objects, day, added FROM object_file WHERE removed IS NULL"


def digest_of(name: str, version: str) -> bytes:
    """Return the digest by which a log object is found."""
    return hashlib.blake2b(f"{name}\0{version}".encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()


def has_files(db: sqlite3.Connection) -> bool:
    """Return whether the catalog has a table of these files: earlier ones keep the names in the catalog itself."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'object_file'").fetchone() is not None


def files(db: sqlite3.Connection, days: Iterable[str] | None = None) -> list[ObjectFile]:
    """Return the files of some delivery days, or of all. LakeError if a row is not what a commit writes."""
    if not has_files(db):
        return []
    rows = db.execute(_FILES).fetchall() if days is None else _of_days(db, days)
    return [_checked(row) for row in rows]


def _of_days(db: sqlite3.Connection, days: Iterable[str]) -> list[tuple[object, ...]]:
    return [row for day in sorted(set(days)) for row in db.execute(f"{_FILES} AND day = ?", (day,))]


def _checked(row: Sequence[object]) -> ObjectFile:
    path, count, day, added = row
    return ObjectFile(forms.objects_path(path), forms.commit_number(count), forms.day(day), forms.commit_number(added))


def write(storage: LocalStorage, objects: Iterable[IngestedObject]) -> list[ObjectFile]:
    """Write a file for each delivery day of some log objects; return them, as of no commit yet."""
    unique = {(o.delivered_on, digest_of(o.name, o.version)): o for o in objects}
    written = []
    for day, group in groupby(sorted(unique.items()), key=lambda item: item[0][0]):
        entries = [(digest, o.name, o.version) for (_, digest), o in group]
        written.append(_write(storage, day, entries))
    return written


def _write(storage: LocalStorage, day: str, entries: Sequence[tuple[bytes, str, str]]) -> ObjectFile:
    """Write a file of entries, which are in the order of their digests."""
    path = f"{forms.OBJECTS_FOLDER}/{uuid.uuid4().hex}.objects"
    names = json.dumps([[name, version] for _, name, version in entries], separators=(",", ":"))
    storage.write_new(path, b"".join(digest for digest, _, _ in entries) + zlib.compress(names.encode(), 6))
    return ObjectFile(path, len(entries), day, 0)


def known(
    storage: LocalStorage,
    db: sqlite3.Connection,
    objects: Sequence[IngestedObject],
    digests: dict[str, bytes] | None = None,
) -> set[tuple[str, str]]:
    """Return which of these log objects the lake has read already, as (name, version).

    ``digests``: keeps those of the files that were read, for the next call.
    """
    if not objects:
        return set()
    by_day: dict[str, dict[bytes, tuple[str, str]]] = {}
    for o in objects:
        by_day.setdefault(o.delivered_on, {})[digest_of(o.name, o.version)] = o.name, o.version
    found: set[tuple[str, str]] = set()
    for file in files(db, by_day):
        asked = by_day[file.day]
        data = _digests(storage, file, {} if digests is None else digests)
        found.update(asked[digest] for digest in _present(data, file.objects, asked))
    return found | _in_catalog(db, objects) if are_in_catalog(db) else found


def are_in_catalog(db: sqlite3.Connection) -> bool:
    """Return whether the catalog itself has names, as earlier versions kept them, until the next compaction."""
    has_table = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'log_object'").fetchone() is not None
    return has_table and db.execute("SELECT 1 FROM log_object LIMIT 1").fetchone() is not None


def _in_catalog(db: sqlite3.Connection, objects: Sequence[IngestedObject]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for start in range(0, len(objects), _ASKED_AT_ONCE):
        part = objects[start : start + _ASKED_AT_ONCE]
        marks = ",".join(["(?,?)"] * len(part))
        values = [value for o in part for value in (o.name, o.version)]
        # A lookup by key for each: `(name, version) IN (VALUES ...)` reads the whole table each time.
        sql = (
            f"WITH asked (n, v) AS (VALUES {marks}) SELECT n, v FROM asked"
            " WHERE EXISTS (SELECT 1 FROM log_object WHERE name = n AND version = v)"
        )
        found.update(db.execute(sql, values))
    return found


def _digests(storage: LocalStorage, file: ObjectFile, kept: dict[str, bytes]) -> bytes:
    """Return the digests of a file, from ``kept`` if they are there."""
    data = kept.get(file.path)
    if data is None:
        data = _read(storage, file, names=False)
        while kept and sum(map(len, kept.values())) + len(data) > _KEPT:
            del kept[next(iter(kept))]
        kept[file.path] = data
    return data


def _present(data: bytes, count: int, asked: Mapping[bytes, object]) -> Iterator[bytes]:
    """Yield the digests that are among the first ``count`` of a file, which are in order."""
    if count <= _FEW * len(asked):
        yield from {data[at : at + _DIGEST] for at in range(0, count * _DIGEST, _DIGEST)} & asked.keys()
        return
    digests = _Digests(data, count)
    for digest in asked:
        at = bisect_left(digests, digest)
        if at < count and digests[at] == digest:
            yield digest


class _Digests(Sequence[bytes]):
    """The digests of a file, in order."""

    def __init__(self, data: bytes, count: int) -> None:
        self._data = data
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at):  # type: ignore[no-untyped-def]
        return self._data[at * _DIGEST : (at + 1) * _DIGEST]


def names(storage: LocalStorage, file: ObjectFile) -> list[tuple[str, str]]:
    """Return names and versions of a file, in the order of their digests. LakeError if it is not what was written."""
    data = _read(storage, file, names=True)[file.objects * _DIGEST :]
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(data, _MAX_NAMES)
        entries = json.loads(text) if unpacker.eof else None
    except (zlib.error, ValueError, RecursionError) as error:
        raise _damaged(storage, file) from error
    if not isinstance(entries, list) or len(entries) != file.objects or not all(map(_is_entry, entries)):
        raise _damaged(storage, file)
    return [(name, version) for name, version in entries]


def _is_entry(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(text, str) for text in entry)


def _read(storage: LocalStorage, file: ObjectFile, *, names: bool) -> bytes:
    size = file.objects * _DIGEST
    try:
        data = storage.read_range(file.path, 0, _MAX_FILE if names else size)
    except FileNotFoundError as error:
        raise _damaged(storage, file, "is missing") from error
    if len(data) < size:
        raise _damaged(storage, file)
    return data


def _damaged(storage: LocalStorage, file: ObjectFile, what: str = "is damaged") -> LakeError:
    return LakeError(
        f"{storage.describe(file.path)} {what}, which names {file.objects:,} log objects of {file.day}: restore it "
        "from a copy of the lake. Without it, they would be read again; no event would be stored twice"
    )


def mergeable(found: Sequence[ObjectFile]) -> list[list[ObjectFile]]:
    """Return groups of files of one day that are worth a merge: similar in size, so no large one is often rewritten."""
    groups = []
    for _, day in groupby(sorted(found, key=lambda file: (file.day, file.objects, file.path)), key=lambda f: f.day):
        of_day = list(day)
        if len(of_day) <= MANY:
            continue
        group: list[ObjectFile] = []
        total = 0
        for file in of_day:
            if len(group) >= 2 and file.objects > 2 * total:
                break
            group.append(file)
            total += file.objects
        if len(group) > 1:
            groups.append(group)
    return groups


def merge(storage: LocalStorage, group: Sequence[ObjectFile], into: LocalStorage | None = None) -> ObjectFile:
    """Write one file of several of the same day, into another storage if one is named."""
    entries = {digest_of(name, version): (name, version) for file in group for name, version in names(storage, file)}
    ordered = [(digest, *entry) for digest, entry in sorted(entries.items())]
    return _write(into or storage, group[0].day, ordered)._replace(added=max(file.added for file in group))


def record(db: sqlite3.Connection, seq: int, written: Iterable[ObjectFile]) -> None:
    """Write a commit's new files into the index; called in its SQLite transaction."""
    rows = [(file.path, file.objects, file.day, file.added or seq) for file in written]
    db.executemany("INSERT INTO object_file VALUES (?, ?, ?, ?, NULL)", rows)
