"""The lake's SQLite file: opened for reading without writing anything, and trusted no more than other data.

Before the first question its schema is checked: tables and indexes of plain columns, of our names. So there is no view
to wait for, no trigger, no expression, and no other code of the file's own.

A reader needs no right to write. As long as no writer has the lake open, there is no ``-wal`` file beside the database
and nothing but the file itself has to be read: it is opened as immutable, and what was read counts only if the file is
the same afterwards. Otherwise SQLite reads it by the shared memory that the writer made. What a writer left that died
(a log, and nobody who may put it in order) is read from a private copy.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from trailsift.errors import LakeError
from trailsift.lake.home import mirror_of
from trailsift.lake.settings import CATALOG_FILE
from trailsift.storage.local import make_file

T = TypeVar("T")

#: Tables and indexes that a catalog may have: ours, and those of PyIceberg's ``SqlCatalog``.
KNOWN_NAMES = frozenset(
    {
        "commit_log", "file", "file_time", "log_object", "log_object_day", "seen_file", "object_file",
        "file_digest", "row_digest",
        "iceberg_tables", "iceberg_namespace_properties",
        "sqlite_stat1", "sqlite_sequence",
    }
)  # fmt: skip

#: What follows the name of a column of ours.
_OWN_COLUMNS = frozenset(
    {
        "TEXT", "TEXT NOT NULL", "TEXT PRIMARY KEY", "INTEGER", "INTEGER NOT NULL", "INTEGER PRIMARY KEY", "BLOB",
        "BLOB NOT NULL", "VARCHAR(255) NOT NULL", "VARCHAR(1000)", "VARCHAR(1000) NOT NULL", "VARCHAR(5)",
    }
)  # fmt: skip
#: Any column as it stands in CREATE TABLE. It takes long to compile, which ``re`` does at first use.
_COLUMN = (
    r'(?ai)"?[A-Z_][A-Z0-9_]*"?(?: (?:TEXT|INTEGER|BIGINT|REAL|BLOB|VARCHAR ?\( ?[0-9]+ ?\)))?(?: NOT NULL)?'
    r"(?: DEFAULT (?:NULL|-?[0-9]{1,18}|'[A-Z0-9_ ]*'))?(?: PRIMARY KEY)?(?: NOT NULL)?"
)
#: A comma that is not in parentheses.
_COMMA = re.compile(r",(?![^()]*\))")
_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master"
_MAX_OBJECTS = 100
_MAX_SQL = 20_000

#: The longest value in bytes, the seconds that a question may take, and steps between two looks at the clock.
_MAX_VALUE = 1 << 26
_SECONDS = 30.0
_STEPS = 200_000
#: The beginning of the last bytes of a rollback journal that names another file, which SQLite would read and delete.
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")

_SUFFIXES = ("", "-journal", "-wal", "-shm")
_ATTEMPTS = 20


class _Files(NamedTuple):
    """The database and the files beside it: (device, inode, size, time of change) of each, None for a missing one."""

    main: tuple[int, int, int, int] | None
    journal: tuple[int, int, int, int] | None
    log: tuple[int, int, int, int] | None
    shared: tuple[int, int, int, int] | None


def connect(root: Path, *, create: bool = False, check_same_thread: bool = True) -> sqlite3.Connection:
    """Return a connection for a writer. Writers wait up to a minute for each other.

    ``create``: make the file if it is missing. LakeError if the file is not what trailsift makes; raise
    sqlite3's errors if it cannot be opened.
    """
    _files(root)
    if create:
        _make(root / CATALOG_FILE)
    db = sqlite3.connect(
        _uri(root, "mode=rw"), timeout=60, isolation_level=None, check_same_thread=check_same_thread, uri=True
    )
    try:
        _confine(db)
        if mirror_of(root) is not None:
            # What is deleted would be sent with every commit.
            db.execute("PRAGMA secure_delete = ON")
        check_schema(root, db)
    except BaseException:
        db.close()
        raise
    return db


def read(root: Path, question: Callable[[sqlite3.Connection], T], *, checked: bool = True) -> T:
    """Return what ``question`` reads; nothing in the lake is written. It is asked again if a writer was faster.

    Without ``checked`` the question has to look at the schema itself (``schema_problems``) before anything else.

    LakeError if the file cannot be read, or is not what trailsift makes.
    """
    try:
        return _read(root, question, checked=checked)
    except LakeError as error:
        mirror = mirror_of(root)
        if mirror is None or not isinstance(error.__cause__, sqlite3.Error) or not mirror.renew():
            raise
        # The copy of a lake in S3 was damaged, which may be sound itself.
        return _read(root, question, checked=checked)


def _read(root: Path, question: Callable[[sqlite3.Connection], T], *, checked: bool) -> T:
    path = root / CATALOG_FILE
    ask = partial(_ask, question=question, checked=checked)
    try:
        for _ in range(_ATTEMPTS):
            before = _files(root)
            if before.main is None:
                raise LakeError(f"{path} is missing: the lake is incomplete")
            if _size(before.journal) or _size(before.log):
                return _read_beside(root, before, ask)
            is_sound = _sound.get(path) == before.main
            try:
                answer = _ask(root, "immutable=1", question, checked=checked and not is_sound)
            except (sqlite3.Error, LakeError):
                if _files(root).main == before.main:
                    raise
                continue
            if _files(root).main == before.main:
                if checked and not is_sound:
                    _remember(path, before.main)
                return answer
        return ask(root, "mode=ro")
    except (sqlite3.Error, OSError, UnicodeError, OverflowError, MemoryError, RecursionError) as error:
        raise _unreadable(path, error) from error


#: Catalogs whose schema was found sound by this process, and the state of the file then: a session asks the same lake
#: again and again, and the check takes longer than most questions.
_sound: dict[Path, tuple[int, int, int, int]] = {}
_MOST_SOUND = 100


def _remember(path: Path, state: tuple[int, int, int, int]) -> None:
    if len(_sound) >= _MOST_SOUND:
        _sound.clear()
    _sound[path] = state


def copy(root: Path, target: Path) -> None:
    """Copy the file of the lake at ``root`` into the folder ``target``, as it is at one moment."""

    def back_up(original: sqlite3.Connection) -> None:
        with closing(sqlite3.connect(target / CATALOG_FILE)) as into:
            original.backup(into)

    read(root, back_up)


def _read_beside(root: Path, before: _Files, ask: Callable[[Path, str], T]) -> T:
    """Read while a writer has the lake open, or after one died."""
    if _size(before.journal) or before.shared is not None:
        try:
            return ask(root, "mode=ro")
        except sqlite3.OperationalError as error:
            # Somebody who may write would have to put the log in order.
            if _code(error).split("_")[1] not in ("READONLY", "CANTOPEN", "PERM", "IOERR", "PROTOCOL"):
                raise
    return _ask_copy(root, ask)


def _ask_copy(root: Path, ask: Callable[[Path, str], T]) -> T:
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory(prefix="trailsift-catalog-") as folder:
        for _ in range(_ATTEMPTS):
            before = _files(root)
            for suffix in _SUFFIXES[:3]:
                copied = Path(folder) / f"{CATALOG_FILE}{suffix}"
                copied.unlink(missing_ok=True)
                with suppress(FileNotFoundError):
                    shutil.copyfile(root / copied.name, copied, follow_symlinks=False)
            if _files(root)[:3] == before[:3]:
                return ask(Path(folder), "mode=rw")
    raise LakeError(f"the catalog {root / CATALOG_FILE} changes all the time: try again")


def _ask(root: Path, how: str, question: Callable[[sqlite3.Connection], T], *, checked: bool) -> T:
    with closing(sqlite3.connect(_uri(root, how), timeout=60, isolation_level=None, uri=True)) as db:
        _confine(db)
        end = time.monotonic() + _SECONDS
        db.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        if checked:
            check_schema(root, db)
        return question(db)


def _uri(root: Path, how: str) -> str:
    return f"file:{quote(os.fsencode((root / CATALOG_FILE).absolute()))}?{how}"


def _confine(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA trusted_schema = OFF")
    db.execute("PRAGMA cell_size_check = ON")
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
    db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)


def check_schema(root: Path, db: sqlite3.Connection) -> None:
    """Raise LakeError if the database has anything but plain tables and indexes of our names."""
    for problem in schema_problems(db):
        raise LakeError(
            f"the catalog {root / CATALOG_FILE} {problem}: trailsift writes no such thing, and nothing else of it was "
            "read. `trailsift verify` lists all that is wrong with a lake"
        )


def has_types(db: sqlite3.Connection) -> bool:
    """Return whether the catalog says of each table that it is a table: catalogs of PyIceberg's first form do not."""
    return any(row[1] == "iceberg_type" for row in db.execute("PRAGMA table_info(iceberg_tables)").fetchall())


def schema_problems(db: sqlite3.Connection) -> list[str]:
    """Return what the database has that is neither a plain table nor a plain index of ours."""
    problems = []
    rows = db.execute(f"{_SCHEMA} LIMIT {_MAX_OBJECTS + 1}").fetchall()
    if len(rows) > _MAX_OBJECTS:
        problems.append("has too many tables")
    for kind, name, table, sql in rows[:_MAX_OBJECTS]:
        if kind not in ("table", "index"):
            problems.append(f"has the {kind} {name!r}")
        elif kind == "index" and sql is None and str(name).startswith("sqlite_autoindex_"):
            continue
        elif name not in KNOWN_NAMES or table not in KNOWN_NAMES:
            problems.append(f"has the {kind} {name!r}")
        elif not _is_plain(kind, sql):
            problems.append(f"has the {kind} {name!r} with more than plain columns")
    return problems


def _is_plain(kind: str, sql: object) -> bool:
    """Return whether the SQL creates a table of plain columns or an index of plain columns.

    Not by one expression for a whole statement: every command would wait milliseconds for its compilation.
    """
    if not isinstance(sql, str) or len(sql) > _MAX_SQL:
        return False
    head, _, rest = " ".join(sql.split()).partition("(")
    body, closed, tail = rest.rpartition(")")
    words = head.split()
    upper = [word.upper() for word in words]
    if kind == "index" and upper[1:2] == ["UNIQUE"]:
        del words[1], upper[1]
    if not closed or upper[:2] != ["CREATE", kind.upper()]:
        return False
    skipped = 5 if upper[2:5] == ["IF", "NOT", "EXISTS"] else 2
    names = words[skipped:]
    if kind == "index":
        return (
            len(names) == 3 and upper[-2] == "ON" and _are_names([names[0], names[2]]) and not tail and _is_list(body)
        )
    return (
        len(names) == 1
        and _are_names(names)
        and tail.strip().upper() in ("", "WITHOUT ROWID")
        and all(_is_column(part.strip()) for part in _COMMA.split(body))
    )


def _is_column(part: str) -> bool:
    if part[:11].upper() == "PRIMARY KEY":
        names = part[11:].strip()
        return names[:1] == "(" and names[-1:] == ")" and _is_list(names[1:-1])
    name, _, rest = part.partition(" ")
    return (rest in _OWN_COLUMNS and _are_names([name])) or re.fullmatch(_COLUMN, part) is not None


def _is_list(text: str) -> bool:
    """Return whether the text is a list of columns, with ASC or DESC or without."""
    parts = [part.split() for part in text.split(",")]
    orders = all(len(part) == 1 or (len(part) == 2 and part[1].upper() in ("ASC", "DESC")) for part in parts)
    return orders and _are_names([part[0] for part in parts])


def _are_names(words: list[str]) -> bool:
    bare = [word[1:-1] if len(word) > 1 and word[0] == word[-1] == '"' else word for word in words]
    return all(name.isascii() and name.isidentifier() for name in bare)


def _files(root: Path) -> _Files:
    """Return the database and the files beside it. LakeError if one is a link, or names files of others."""
    found: list[tuple[int, int, int, int] | None] = []
    for suffix in _SUFFIXES:
        path = root / f"{CATALOG_FILE}{suffix}"
        try:
            state = path.lstat()
        except FileNotFoundError:
            found.append(None)
            continue
        except OSError as error:
            raise LakeError(f"the catalog {path} cannot be read: {error.strerror or error}") from error
        if not stat.S_ISREG(state.st_mode):
            raise LakeError(f"{path} is not a plain file: trailsift opens no catalog that is a link or a device")
        found.append((state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))
    files = _Files(*found)
    if _size(files.journal) and _names_another(root / f"{CATALOG_FILE}-journal"):
        raise LakeError(
            f"{root / CATALOG_FILE}-journal names another file, which SQLite would read and delete: trailsift writes "
            "no such journal. Do not open this catalog with anything"
        )
    return files


def _size(state: tuple[int, int, int, int] | None) -> int:
    return state[2] if state is not None else 0


def _names_another(path: Path) -> bool:
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(file.tell() - len(_NAMES_ANOTHER), 0))
        return file.read() == _NAMES_ANOTHER
    return False


def _make(path: Path) -> None:
    """Make an empty file with the permissions of the lake; SQLite gives the files beside it the same."""
    with suppress(FileExistsError):
        make_file(path)


def _code(error: Exception) -> str:
    """Return the name of SQLite's error; Python's own, as for text that is not UTF-8, has none."""
    return str(getattr(error, "sqlite_errorname", "SQLITE_ERROR"))


def _unreadable(path: Path, error: Exception) -> LakeError:
    if _code(error) == "SQLITE_INTERRUPT":
        return LakeError(f"the catalog {path} cannot be read: it took more than {_SECONDS:.0f} s; it may be damaged")
    return LakeError(f"the catalog {path} cannot be read: {error}")
