"""Compare a lake with the digests that its commits recorded, and say what is damaged and what to do.

A lake from somebody else is checked for what no lake may have (``check_lake``) before anything of it is used. Then come
the catalog's database and its rows, and the content of every file that the lake's states need. Nothing is written.

Another process may write meanwhile. Files never change after their commit, and all rows are read in one transaction;
what looks wrong is looked at again with the newest rows before it is reported.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from trailsift.errors import LakeError, shown
from trailsift.lake import digest, forms, index
from trailsift.lake.catalog_db import read
from trailsift.lake.check import check_lake
from trailsift.lake.digest import FileDigest
from trailsift.lake.home import home, mirror_of
from trailsift.lake.settings import CATALOG_FILE, KNOWN_SETTINGS, LAKE_FILE, MARKER_FILE, read_settings
from trailsift.schema import TABLES
from trailsift.storage import LocalStorage, folder_storage
from trailsift.times import iso

Kind = Literal["strange", "moved", "catalog", "changed", "missing", "foreign"]
_FOLDERS = (
    *(f"{table}/{part}" for table in TABLES for part in ("data", "metadata")),
    forms.SEEN_FOLDER,
    forms.OBJECTS_FOLDER,
)
_ANY_ROOT = Path("/lake")
_ATTEMPTS = 4
#: Files that are hashed before the next are begun.
_AT_ONCE = 500

_RESTORE = "Restore it from a copy of the lake"
_AGAIN = "ingest the logs into a new lake"
_ADVICE = {
    "data": f"{_RESTORE}, or {_AGAIN}. Until then, answers about that time are wrong or fail",
    "seen": f"{_RESTORE}, or {_AGAIN}. Until then, ingest nothing: events could be stored twice",
    "objects": f"{_RESTORE}, or {_AGAIN}. Until then, ingests fail; no answer is wrong",
    "metadata": f"{_RESTORE}, or {_AGAIN}. trailsift's queries do not read it; ingest, compact and other engines do",
    "catalog": f"Restore {CATALOG_FILE} from a copy of the lake that is as new as its files, or {_AGAIN}",
    "strange": "Do not use the lake if you do not know how this came about: trailsift writes no such thing",
    "moved": "Once nothing else is wrong: run `trailsift relocate`, and verify again",
    "setting": "Correct the name: a setting that is not recognized has no effect",
    "foreign": "trailsift never reads it. Move it out of the lake",
}


class LakeProblem(NamedTuple):
    """One thing that is wrong with a lake: the object, what was found, and what to do."""

    kind: Kind
    where: str
    what: str
    advice: str


@dataclass(slots=True)
class Verification:
    """The outcome of ``verify``. ``undigested``: files that have no digest yet, of which only the size is compared."""

    lake: str
    quick: bool
    files: int = 0
    bytes: int = 0
    rows: int = 0
    undigested: int = 0
    problems: list[LakeProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "problems"}
        return {"is_sound": self.is_sound, **values, "problems": [problem._asdict() for problem in self.problems]}


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What the catalog says about a file: its digest (``sha256`` may be missing), and its row in the index."""

    size: int | None
    sha256: bytes | None
    row: tuple[Any, ...] | None
    is_live: bool


@dataclass(slots=True)
class _State:
    """The catalog at one moment."""

    seq: int
    files: dict[str, _Recorded]
    locations: dict[str, str]
    problems: list[LakeProblem]
    rows: int
    #: Commits of versions without digests.
    unsealed: set[int]


@dataclass(frozen=True, slots=True)
class _Needed:
    """The files that Iceberg's snapshots name."""

    metadata: frozenset[str]
    data: frozenset[str]
    is_stale: bool


def verify(root: Path, *, quick: bool = False) -> Verification:
    """Look for damage in the lake at ``root``; ``quick`` compares the sizes of files, and not their content.

    Of a lake that was moved here, what its Iceberg metadata names is not checked. LakeError if there is no lake.
    """
    started = time.monotonic()
    place = root.resolve()
    mirror = mirror_of(place)
    if mirror is not None:
        mirror.open()
        mirror.distrust()
    for _ in range(_ATTEMPTS):
        before = _last(place)
        found = _verify(place, quick=quick)
        # What looks wrong may be the work of a writer that committed, and deleted files, meanwhile.
        if found.is_sound or _last(place) == before:
            break
    found.seconds = round(time.monotonic() - started, 3)
    return found


def _verify(root: Path, *, quick: bool) -> Verification:
    found = Verification(home(root), quick)
    found.problems += [_strange(problem) for problem in check_lake(root)]
    for name in sorted(read_settings(root).keys() - KNOWN_SETTINGS):
        what = f"has the setting {name!r:.100}, which does not exist"
        found.problems.append(LakeProblem("strange", LAKE_FILE, what, _ADVICE["setting"]))
    if all(problem.where != CATALOG_FILE for problem in found.problems):
        try:
            _compare(root, found)
        except LakeError as error:
            found.problems.append(_catalog(str(error)))
    return found


def _last(root: Path) -> int | None:
    """Return the number of the newest commit; None if the catalog cannot be read."""
    with suppress(LakeError):
        return read(root, lambda db: int(db.execute("SELECT max(seq) FROM commit_log").fetchone()[0] or 0))
    return None


def _strange(problem: forms.Problem) -> LakeProblem:
    """Return a problem of ``check_lake``: damage of these looks like the work of somebody else."""
    if problem.where == CATALOG_FILE:
        return LakeProblem("catalog", problem.where, problem.what, _ADVICE["catalog"])
    if problem.where == LAKE_FILE:
        return LakeProblem("moved", problem.where, problem.what, _ADVICE["moved"])
    if problem.where.endswith("/metadata"):
        return LakeProblem("strange", problem.where, problem.what, _ADVICE["metadata"])
    return LakeProblem("strange", problem.where, problem.what, _ADVICE["strange"])


def _compare(root: Path, found: Verification) -> None:
    storage = folder_storage(root)
    present = set(_listed(storage))
    state = read(root, _state)
    found.problems += state.problems
    found.rows = state.rows
    needed = _needed(root, state.locations)
    suspects = _check_files(storage, state, needed, found)
    problems = dict(suspects)
    is_writing = os.path.lexists(root / MARKER_FILE)
    strangers = sorted(path for path in present if not _is_expected(path, state, needed))
    if problems or strangers:
        # A commit, or the end of a file that nothing needs any longer, may have come between.
        newest = read(root, _state)
        needed = _needed(root, newest.locations)
        problems = _check_files(storage, newest, needed, Verification("", found.quick), set(problems))
        strangers = [path for path in strangers if storage.exists(path) and not _is_expected(path, newest, needed)]
        if is_writing:
            # The files of a writer at work, or of one that died, which the next one removes.
            strangers = [path for path in strangers if not forms.is_own(path)]
    found.problems += [problem for _, problem in sorted(problems.items())]
    what = "no commit names this file"
    found.problems += [LakeProblem("foreign", path, what, _ADVICE["foreign"]) for path in strangers]
    if needed.is_stale:
        found.notes.append("Another engine has committed to the lake; the next ingest records what it wrote.")
    if found.undigested or state.unsealed:
        found.notes.append(
            f"An earlier version or another engine wrote to the lake: {len(state.unsealed):,} of its commits and "
            f"{found.undigested:,} of {found.files:,} files have no digest. `trailsift compact` adds them."
        )
    if is_writing:
        found.notes.append("A writer is at work, or died: files that no commit names yet were passed over.")


def _listed(storage: LocalStorage) -> Iterator[str]:
    for folder in _FOLDERS:
        yield from storage.paths(folder)


def _is_expected(path: str, state: _State, needed: _Needed) -> bool:
    recorded = state.files.get(path)
    # Iceberg's own files of failed commits and expired snapshots stay until they are deleted.
    return (
        (recorded is not None and (recorded.row is not None or path in needed.metadata))
        or path in needed.metadata
        or path in needed.data
        or forms.is_own_metadata(path)
    )


def _needed(root: Path, locations: dict[str, str]) -> _Needed:
    """Return what the tables' snapshots name, as far as their metadata can be read."""
    from trailsift.lake.iceberg import LakeReader

    reader = LakeReader(root)
    paths: set[str] = set()
    for name, location in locations.items():
        # What cannot be read is named by ``check_lake``, or by its digest.
        with suppress(LakeError, OSError):
            paths.update(reader.needed(name, location))
    metadata = frozenset(path for path in paths if "/metadata/" in path)
    return _Needed(metadata, frozenset(paths) - metadata, read(root, index.is_stale))


# -- the catalog -------------------------------------------------------------------------------------------------------


def _state(db: sqlite3.Connection) -> _State:
    """Read all of the catalog in one transaction, and compare its rows with their digests."""
    db.execute("BEGIN")
    problems = [_catalog(f"the database is damaged: {text}") for text in _integrity(db)]
    (seq,) = db.execute("SELECT max(seq) FROM commit_log").fetchone()
    locations = index.live_locations(db)
    rows = {row[1]: row for row in digest.index_rows(db)}
    if not digest.has_digests(db):
        files = {path: _Recorded(_size(row), None, row, row[-1] is None) for path, row in rows.items()}
        unsealed = {number for (number,) in db.execute("SELECT seq FROM commit_log")}
        return _State(seq, files, locations, problems, len(rows), unsealed)
    unsealed = digest.unsealed(db)
    found = db.execute("SELECT path, bytes, sha256, row_digest FROM file_digest").fetchall()
    # In a damaged database even the columns that are NOT NULL may be.
    sealed = {row[0]: row[1:] for row in found if isinstance(row[0], str)}
    if len(sealed) != len(found):
        problems.append(_catalog("the digest of a file has no path, or there are two"))
    files = {}
    for path in dict.fromkeys((*rows, *sealed)):
        row = rows.get(path)
        size, sha256, own = sealed.get(path, (None, None, None))
        problems += _check_row(path, row, (size, sha256, own), unsealed)
        is_live = row is not None and row[-1] is None
        files[path] = _Recorded(_size(row) if size is None else size, sha256, row, is_live)
    checked = digest.row_digests(db)
    problems += _check_rows(db, checked, unsealed)
    return _State(seq, files, locations, problems, len(files) + len(checked), unsealed)


def _integrity(db: sqlite3.Connection) -> list[str]:
    try:
        found = [text for (text,) in db.execute("PRAGMA integrity_check(20)")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def _catalog(what: str) -> LakeProblem:
    return LakeProblem("catalog", CATALOG_FILE, what, _ADVICE["catalog"])


def _size(row: tuple[Any, ...] | None) -> int | None:
    """Return the size of a file by its row in the index."""
    if row is None:
        return None
    if row[0] == forms.OBJECTS_FOLDER:
        return None
    return forms.ID_BYTES * int(row[2]) if row[0] == forms.SEEN_FOLDER else int(row[3])


def _has_size(recorded: _Recorded, size: int) -> bool:
    """Return whether a file has the size that the catalog records."""
    if recorded.size is None or size == recorded.size:
        return True
    # Of files without digests, those of ids may be of format version 1.
    row = recorded.row
    is_ids = recorded.sha256 is None and row is not None and row[0] == forms.SEEN_FOLDER
    return is_ids and row is not None and size == forms.ID_BYTES_1 * int(row[2])


def _check_row(
    path: str, row: tuple[Any, ...] | None, sealed: tuple[Any, Any, Any], unsealed: set[int]
) -> Iterator[LakeProblem]:
    size, sha256, own = sealed
    is_metadata = "/metadata/" in path
    if row is not None and (row[-1] in unsealed or row[-2] in unsealed):
        return  # an earlier version wrote it
    if row is None and not is_metadata and unsealed:
        return  # an earlier version forgot it
    if own is None:
        yield _catalog(f"the digest of {path} is missing, which its commit recorded")
    elif digest.of_file_row(row or (), path, size, sha256) != own:
        yield _catalog(f"the row about {path} is not what its commit wrote" if row else f"the row of {path} is damaged")
    elif row is None and not is_metadata:
        yield _catalog(f"the row about {path} is missing")


def _check_rows(
    db: sqlite3.Connection, found: dict[tuple[str, str], tuple[int, bytes]], unsealed: set[int]
) -> Iterator[LakeProblem]:
    """Yield what differs between the digests of rows that are recorded, and those of the rows that are there."""
    recorded = {
        (str(table), str(key)): (rows, own)
        for table, key, rows, own in db.execute("SELECT * FROM row_digest ORDER BY 1, 2")
    }
    is_stale = index.is_stale(db)
    for table, key in dict.fromkeys((*recorded, *found)):
        is_other = (table, key) not in recorded or recorded[table, key] != found.get((table, key))
        number = key.partition(" ")[0]
        is_old = number.isascii() and number.isdigit() and int(number) in unsealed
        # What another engine commits, and what an earlier version does, changes rows without their digests.
        if (
            is_other
            and not is_old
            and not (table == "iceberg_tables" and (is_stale or unsealed))
            and not (unsealed and table in ("log_object", digest.VERSION))
        ):
            yield _catalog(f"{_ROWS[table].format(key=key)}" if table in _ROWS else f"unknown rows of {table!r:.100}")


_ROWS = {
    "commit_log": "the row of commit {key} is damaged or missing",
    "iceberg_tables": "the row about the Iceberg table {key} is damaged or missing",
    "log_object": "the list of log objects (commit and day: {key}) is damaged or incomplete",
    digest.VERSION: "the number of the newest state that the index has forgotten is damaged",
}


# -- files -------------------------------------------------------------------------------------------------------------


def _check_files(
    storage: LocalStorage, state: _State, needed: _Needed, counts: Verification, only: set[str] | None = None
) -> dict[str, LakeProblem]:
    """Return what is wrong with the files that the catalog or Iceberg's metadata names; add to ``counts``."""
    paths = sorted({*state.files, *needed.metadata, *needed.data} if only is None else only)
    check = partial(_check_file, storage, state, needed, quick=counts.quick)
    problems = {}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(paths), _AT_ONCE):
            part = paths[start : start + _AT_ONCE]
            for path, (problem, size, has_digest) in zip(part, threads.map(check, part), strict=True):
                if problem is not None:
                    problems[path] = problem
                if size is not None:
                    counts.files += 1
                    counts.bytes += size
                    counts.undigested += not has_digest
    return problems


def _check_file(
    storage: LocalStorage, state: _State, needed: _Needed, path: str, *, quick: bool
) -> tuple[LakeProblem | None, int | None, bool]:
    """Return what is wrong with a file, its size, and whether it has a digest."""
    recorded = state.files.get(path) or _Recorded(None, None, None, False)
    has_digest = recorded.sha256 is not None
    try:
        _check_form(path)
        place = storage.checked_path(path)
        size = place.stat().st_size
        if not _has_size(recorded, size):
            what = f"has {size:,} bytes instead of {recorded.size or 0:,}{_content(recorded.row)}"
            return _problem("changed", path, what), size, has_digest
        if quick or recorded.sha256 is None:
            return None, size, has_digest
        if digest.of_file(place) != FileDigest(size, recorded.sha256):
            return _problem("changed", path, f"is not what was written{_content(recorded.row)}"), size, has_digest
        return None, size, has_digest
    except FileNotFoundError:
        is_live = recorded.is_live and not needed.is_stale
        if not is_live and path not in needed.data and path not in needed.metadata:
            return None, None, has_digest
        what = f"is missing{_content(recorded.row)}" if recorded.is_live else "is missing (older snapshots need it)"
        return _problem("missing", path, what if "/metadata/" not in path else "is missing"), None, has_digest
    except (OSError, LakeError) as error:
        return _problem("changed", path, f"cannot be read: {shown(str(error))}"), None, has_digest


def _check_form(path: str) -> None:
    """Raise LakeError for a path that no lake has: a strange catalog must not have other files read."""
    table, _, rest = path.partition("/")
    if table == forms.SEEN_FOLDER:
        forms.ids_path(path)
    elif table == forms.OBJECTS_FOLDER:
        forms.objects_path(path)
    elif rest.startswith("metadata/"):
        forms.metadata_path(_ANY_ROOT, table, f"{_ANY_ROOT}/{path}")
    else:
        forms.data_path(table, path)


def _problem(kind: Kind, path: str, what: str) -> LakeProblem:
    folder = path.partition("/")[0]
    part = folder if folder in _ADVICE else "metadata" if "/metadata/" in path else "data"
    return LakeProblem(kind, path, what, _ADVICE[part])


def _content(row: tuple[Any, ...] | None) -> str:
    """Return in words what a file holds."""
    if row is None:
        return ""
    if row[0] == forms.SEEN_FOLDER:
        return f" ({row[2]:,} event ids)"
    if row[0] == forms.OBJECTS_FOLDER:
        return f" ({row[2]:,} names of log objects of {row[3]})"
    return f" ({row[2]:,} rows of {row[0]}, {_time(row[4])} to {_time(row[5])})"


def _time(micros: int) -> str:
    """Return a time of the index in words: another engine may have left it open."""
    return iso(micros) or "" if forms.MIN_TIME <= micros <= forms.MAX_TIME else "any time"


def count_kinds(problems: Iterable[LakeProblem]) -> Counter[str]:
    """Return the number of problems of each kind."""
    return Counter(problem.kind for problem in problems)
