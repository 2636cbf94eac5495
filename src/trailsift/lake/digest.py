"""Digests of everything on disk that a lake depends on, by which ``verify`` finds damage.

Each commit adds the SHA-256 of the files it wrote (Parquet, event ids, Iceberg's metadata), and digests of the rows it
changed in the catalog's database, in the same SQLite transaction. They stand in tables of their own: a version of
trailsift without digests reads and writes the lake as before, and the next compaction adds what it left out.

They find damage, not a forger: who can write the lake can write its digests. Queries do not check them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from trailsift.errors import LakeError
from trailsift.lake import forms, index, log_objects
from trailsift.lake.home import fetch
from trailsift.lake.settings import NAMESPACE
from trailsift.storage import LocalStorage, folder_storage
from trailsift.times import now_text

_BUFFER = 1 << 18
#: Files hashed between two writes of what was found.
_AT_ONCE = 1000

_FILE = (
    "SELECT table_name, path, rows, bytes, min_time, max_time, service, min_role, max_role, added, removed FROM file"
)
_OBJECTS = "SELECT 'objects', path, objects, day, added, removed FROM object_file"
_SEEN = "SELECT 'seen', path, ids, min_time, max_time, added, removed FROM seen_file"
_POINTER = "SELECT catalog_name, table_namespace, table_name, metadata_location, previous_metadata_location"
_POINTER += " FROM iceberg_tables WHERE table_namespace = ?"
_COMMIT = "SELECT seq, committed_at, kind, counts, locations FROM commit_log"
_OBJECT = "SELECT seq, delivered_on, name, version FROM log_object"
#: The "table" of SQLite's ``user_version``: the newest commit that removed a file which the index has forgotten.
VERSION = "user_version"


class FileDigest(NamedTuple):
    """The size and SHA-256 of a file."""

    size: int
    sha256: bytes


def of_file(path: Path) -> FileDigest:
    """Return the digest of a file. OSError if it cannot be read."""
    # 1.66 GB/s on one core with the CPU's own instructions: twice as fast as BLAKE2b, and every system has `sha256sum`.
    digest = hashlib.sha256()
    buffer = bytearray(min(_BUFFER, max(path.stat().st_size, 1)))
    view = memoryview(buffer)
    size = 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
            size += count
    return FileDigest(size, digest.digest())


def of_files(storage: LocalStorage, paths: Iterable[str]) -> dict[str, FileDigest]:
    """Return the digests of files, on all cores. OSError if one cannot be read."""
    from concurrent.futures import ThreadPoolExecutor

    names = list(paths)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return dict(zip(names, threads.map(lambda path: of_file(storage.local_path(path)), names), strict=True))


def of_row(values: Sequence[Any]) -> bytes:
    """Return the digest of a row of the catalog's database."""
    return hashlib.blake2b(_text(values), digest_size=8).digest()


def _text(values: Sequence[Any]) -> bytes:
    # A damaged row may hold other types than ours, such as bytes.
    return json.dumps(list(values), default=repr, separators=(",", ":")).encode()


def seal(
    db: sqlite3.Connection,
    seq: int,
    written: Mapping[str, FileDigest],
    changed: Iterable[str],
) -> None:
    """Add the digests of commit ``seq``, as the last step of its SQLite transaction.

    ``written``: the new files; ``changed``: the paths whose rows in the index are new or changed.
    """
    _seal_files(db, written, changed)
    seal_commit(db, seq)
    pointers = db.execute(_POINTER, (NAMESPACE,)).fetchall()
    _add_rows(db, [("iceberg_tables", row[2], 1, of_row(row)) for row in pointers])
    if seq == 0:
        seal_version(db)


def commit_nothing(root: Path, kind: str, counts: Mapping[str, object]) -> None:
    """Make a commit that changes no table. Raise what ``index.commit`` does; nothing happens without a commit before.

    In S3, whoever prepares a commit on the one before cannot make it then, and readers fetch the catalog again.
    """
    with closing(index.connect(root)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'commit_log'").fetchone():
            return
        db.execute("BEGIN IMMEDIATE")
        try:
            if db.execute(index.LAST_COMMIT).fetchone() is None:
                return
            seq, locations = index.next_number(db), index.last_commit_row(db)[1]
            commit_id = uuid.uuid4().hex
            row = (seq, now_text(), kind, json.dumps({"id": commit_id, **counts}), locations)
            db.execute("INSERT INTO commit_log VALUES (?, ?, ?, ?, ?)", row)
            seal(db, seq, {}, ())
            index.commit(root, db, commit_id)
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


def _seal_files(db: sqlite3.Connection, written: Mapping[str, FileDigest], changed: Iterable[str]) -> None:
    """Write the digests of files, and of the rows that name them."""
    sealed = []
    for path in dict.fromkeys((*written, *changed)):
        known = written.get(path)
        if known is None:
            row = db.execute("SELECT bytes, sha256 FROM file_digest WHERE path = ?", (path,)).fetchone()
            known = FileDigest(*row) if row and row[1] is not None else None
        size, sha256 = known or (None, None)
        sealed.append((path, size, sha256, of_file_row(_index_row(db, path), path, size, sha256)))
    db.executemany("INSERT OR REPLACE INTO file_digest VALUES (?, ?, ?, ?)", sealed)


def _index_row(db: sqlite3.Connection, path: str) -> tuple[Any, ...]:
    """Return the index's row about a file; it is empty for Iceberg's own files."""
    table = path.partition("/")[0]
    if table in (forms.SEEN_FOLDER, forms.OBJECTS_FOLDER):
        sql = _SEEN if table == forms.SEEN_FOLDER else _OBJECTS
        row = db.execute(f"{sql} WHERE path = ?", (path,)).fetchone()
    else:
        row = db.execute(f"{_FILE} WHERE table_name = ? AND path = ?", (table, path)).fetchone()
    return row or ()


def of_file_row(row: Sequence[Any], path: str, size: object, sha256: object) -> bytes:
    """Return the digest of all that the catalog says about a file: its row, its size and its digest."""
    return of_row([*row, path, size, sha256.hex() if isinstance(sha256, bytes) else sha256])


def object_groups(rows: Iterable[tuple[Any, ...]]) -> list[tuple[str, str, int, bytes]]:
    """Return the rows of ``row_digest`` about log objects, one for each commit and delivery day.

    ``rows``: (commit, delivery day, name, version), in the order of name and version.
    """
    groups: dict[str, list[Any]] = {}
    for row in rows:
        group = groups.setdefault(f"{row[0]} {row[1]}", [0, hashlib.blake2b(digest_size=8)])
        group[0] += 1
        group[1].update(_text(row))
    return [("log_object", key, number, digest.digest()) for key, (number, digest) in groups.items()]


def _add_rows(db: sqlite3.Connection, rows: Iterable[tuple[str, str, int, bytes]]) -> None:
    db.executemany("INSERT OR REPLACE INTO row_digest VALUES (?, ?, ?, ?)", rows)


def seal_version(db: sqlite3.Connection) -> None:
    """Add the digest of ``user_version``; called in the SQLite transaction that changes it."""
    _add_rows(db, [_version_row(db)])


def _version_row(db: sqlite3.Connection) -> tuple[str, str, int, bytes]:
    return VERSION, "", 1, of_row(db.execute("PRAGMA user_version").fetchone())


def index_rows(db: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the index about files: table (or folder), path, ..., commits that added and removed it."""
    for sql in (_FILE, _SEEN, *([_OBJECTS] if log_objects.has_files(db) else [])):
        yield from db.execute(sql)


def row_digests(db: sqlite3.Connection) -> dict[tuple[str, str], tuple[int, bytes]]:
    """Return what ``row_digest`` should hold for the rows that are there: by table and key, their number and digest."""
    rows = [("commit_log", str(row[0]), 1, of_row(row)) for row in db.execute(_COMMIT)]
    rows += [("iceberg_tables", str(row[2]), 1, of_row(row)) for row in db.execute(_POINTER, (NAMESPACE,))]
    rows += object_groups(db.execute(f"{_OBJECT} ORDER BY name, version"))
    rows.append(_version_row(db))
    return {(table, key): (number, own) for table, key, number, own in rows}


def forget(db: sqlite3.Connection, paths: Iterable[str]) -> None:
    """Remove the digests of files that are deleted, and that nothing names."""
    db.executemany("DELETE FROM file_digest WHERE path = ?", ((path,) for path in paths))


def forget_commits(db: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Remove the digests of rows of the commit log that are gone."""
    keys = [(str(number),) for number in numbers]
    db.executemany("DELETE FROM row_digest WHERE table_name = 'commit_log' AND key = ?", keys)


def seal_commit(db: sqlite3.Connection, seq: int) -> None:
    """Add the digest of a row of the commit log."""
    _add_rows(db, [("commit_log", str(seq), 1, of_row(row)) for row in db.execute(f"{_COMMIT} WHERE seq = ?", (seq,))])


def forget_metadata(root: Path, needed: Collection[str], storage: LocalStorage) -> None:
    """Remove the digests of Iceberg's own files that are deleted, and that no table needs."""
    with closing(index.connect(root)) as db:
        known = [path for (path,) in db.execute("SELECT path FROM file_digest WHERE path LIKE '%/metadata/%'")]
        folders = {path.rpartition("/")[0] for path in known if path not in needed}
        # A listing of each: in S3, a question about each file would be a request.
        present = {path for folder in folders for path in storage.paths(folder)}
        gone = [path for path in known if path not in needed and path not in present]
        if gone:
            db.execute("BEGIN IMMEDIATE")
            forget(db, gone)
            index.commit(root, db)


def check(root: Path, paths: Collection[str]) -> None:
    """Raise LakeError if a file is not what its commit wrote: a rewrite would make the damage look sound."""
    storage = folder_storage(root)
    fetch(root, paths)
    known = digests(root, paths)
    # A file may have grown to any size: only those of the right one are read.
    sizes = {path: storage.local_path(path).stat().st_size for path in known}
    found = of_files(storage, [path for path, recorded in known.items() if recorded.size == sizes[path]])
    wrong = [path for path, recorded in known.items() if found.get(path) != recorded]
    with closing(index.connect(root)) as db:
        lost = _lost(db, paths) if has_digests(db) else []
    if lost:
        raise LakeError(
            f"the catalog has lost the digest of {lost[0]}: it is damaged, and whether the file is sound is unknown. "
            f"Nothing was changed; `trailsift verify --lake {root}` names all damage and says what to do"
        )
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise LakeError(
            f"{storage.describe(wrong[0])}{more} is damaged: its content is not what was written. It was left as it "
            f"is; `trailsift verify --lake {root}` names all damage and says what to do"
        )


def digests(root: Path, paths: Iterable[str]) -> dict[str, FileDigest]:
    """Return the recorded digests of those files that have one."""
    with closing(index.connect(root)) as db:
        if not has_digests(db):
            return {}
        sql = "SELECT bytes, sha256 FROM file_digest WHERE path = ? AND sha256 IS NOT NULL"
        rows = ((path, db.execute(sql, (path,)).fetchone()) for path in paths)
        return {path: FileDigest(*row) for path, row in rows if row}


def _lost(db: sqlite3.Connection, paths: Collection[str]) -> list[str]:
    """Return the files whose digests are lost: their commits recorded some."""
    sql = "SELECT 1 FROM file_digest WHERE path = ?"
    unrecorded = [path for path in paths if not db.execute(sql, (path,)).fetchone()]
    if not unrecorded:
        return []
    old = unsealed(db)
    added = {row[1]: row[-2] for row in index_rows(db)}
    return [path for path in unrecorded if path in added and added[path] not in old]


def has_digests(db: sqlite3.Connection) -> bool:
    """Return whether the catalog has tables of digests: lakes of earlier versions have none."""
    sql = "SELECT count(*) FROM sqlite_master WHERE name IN ('file_digest', 'row_digest')"
    return bool(db.execute(sql).fetchone()[0] == 2)


def unsealed(db: sqlite3.Connection) -> set[int]:
    """Return the commits of versions without digests."""
    sealed = {key for (key,) in db.execute("SELECT key FROM row_digest WHERE table_name = 'commit_log'")}
    return {seq for (seq,) in db.execute("SELECT seq FROM commit_log") if str(seq) not in sealed}


def complete(root: Path, needed: Iterable[str], is_over: Callable[[], bool] = lambda: False) -> int:
    """Add the digests that are missing, as those of an earlier version's files are; return the number of files.

    ``needed``: Iceberg's own files; ``is_over``: called now and then, returns whether to leave the rest for later.
    """
    storage = folder_storage(root)
    with closing(index.connect(root)) as db:
        if not has_digests(db):
            return 0
        has = {path for (path,) in db.execute("SELECT path FROM file_digest WHERE sha256 IS NOT NULL")}
        named = [row[1] for row in index_rows(db)]
        missing = [path for path in dict.fromkeys((*named, *needed)) if path not in has and storage.exists(path)]
        lost = set(_lost(db, missing))
        missing = [path for path in missing if path not in lost]
        done = 0
        while done < len(missing) and not is_over():
            part = missing[done : done + _AT_ONCE]
            fetch(root, part)
            found = of_files(storage, part)
            db.execute("BEGIN IMMEDIATE")
            _seal_files(db, found, ())
            index.commit(root, db)
            done += len(part)
        if done == len(missing):
            _seal_commits(root, db)
        return done


def _seal_commits(root: Path, db: sqlite3.Connection) -> None:
    """Add the digests of rows that commits of versions without digests wrote or changed."""
    old = unsealed(db)
    if not old:
        return
    db.execute("BEGIN IMMEDIATE")
    paths = {row[1]: row[-1] in old or row[-2] in old for row in index_rows(db)}
    _seal_files(db, {}, [path for path, is_old in paths.items() if is_old])
    sealed = [path for (path,) in db.execute("SELECT path FROM file_digest WHERE path NOT LIKE '%/metadata/%'")]
    forget(db, [path for path in sealed if path not in paths])
    _add_rows(db, [("commit_log", str(row[0]), 1, of_row(row)) for row in db.execute(_COMMIT) if row[0] in old])
    pointers = db.execute(_POINTER, (NAMESPACE,)).fetchall()
    _add_rows(db, [("iceberg_tables", row[2], 1, of_row(row)) for row in pointers])
    objects = db.execute(f"{_OBJECT} ORDER BY name, version")
    _add_rows(db, object_groups(row for row in objects if row[0] in old))
    # What such a version expired, it left the digests of.
    groups = {f"{seq} {day}" for seq, day in db.execute("SELECT DISTINCT seq, delivered_on FROM log_object")}
    keys = db.execute("SELECT key FROM row_digest WHERE table_name = 'log_object'").fetchall()
    gone = [(key,) for (key,) in keys if key not in groups]
    db.executemany("DELETE FROM row_digest WHERE table_name = 'log_object' AND key = ?", gone)
    seal_version(db)
    index.commit(root, db)
