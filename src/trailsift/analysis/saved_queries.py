"""Queries that are kept in the lake under names: ``queries/NAME.sql``, one file each.

Whoever made the lake may have written them. They are texts of bounded size that run behind the same wall as any other
statement, and only when somebody names them.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from trailsift.errors import ConflictError, LakeError, UsageError
from trailsift.storage import Location, open_storage

FOLDER = "queries"
#: Bytes of the longest query that is kept, and the number of queries that are listed at most.
LONGEST, MOST = 100_000, 1000
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?", re.ASCII)
_END = ".sql"


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """A query by name; ``saved``: when, in UTC. ``problem``: why it cannot be read; then ``sql`` is empty."""

    name: str
    sql: str
    saved: datetime | None
    problem: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """Return it as a JSON object."""
        saved = None if self.saved is None else self.saved.isoformat(timespec="seconds").replace("+00:00", "Z")
        return {"name": self.name, "sql": self.sql, "saved": saved, "problem": self.problem}


def check_name(name: str) -> str:
    """Return a name without its ``@``. UsageError if no query can have it."""
    bare = name.removeprefix("@")
    if not _NAME.fullmatch(bare):
        raise UsageError(
            f"{name!r:.100} cannot be the name of a query: use up to 64 letters a-z, digits, - and _, as in daily-reads"
        )
    return bare


def saved_query(lake: Location, name: str) -> SavedQuery:
    """Return a query. UsageError if there is none of that name, LakeError if it is damaged or too long."""
    storage = open_storage(lake)
    path = _path(check_name(name))
    try:
        stored = storage.stat(path)
        if stored is None:
            raise FileNotFoundError
        if stored.size > LONGEST:
            raise LakeError(f"{storage.describe(path)} has {stored.size:,} bytes; the limit is {LONGEST:,}")
        sql = storage.read(path).decode()
    except FileNotFoundError:
        raise UsageError(_unknown(lake, name)) from None
    except UnicodeDecodeError as error:
        raise LakeError(f"{storage.describe(path)} is not valid UTF-8: {error}. Delete it, or save it again") from None
    except OSError as error:
        raise LakeError(f"cannot read {storage.describe(path)}: {error}") from error
    return SavedQuery(check_name(name), sql, datetime.fromtimestamp(stored.modified, UTC))


def saved_queries(lake: Location) -> list[SavedQuery]:
    """Return all queries by name; those that cannot be read with the reason."""
    found = []
    for name in saved_names(lake):
        try:
            found.append(saved_query(lake, name))
        except (LakeError, UsageError) as error:
            found.append(SavedQuery(name, "", None, str(error)))
    return found


def saved_names(lake: Location) -> list[str]:
    """Return the names of the queries, at most ``MOST``, in order. Files of other forms are not among them."""
    storage = open_storage(lake)
    names = []
    try:
        for path in storage.paths(FOLDER):
            folder, _, file = path.rpartition("/")
            name = file.removesuffix(_END)
            if folder == FOLDER and file.endswith(_END) and _NAME.fullmatch(name):
                names.append(name)
                if len(names) >= MOST:
                    break
    except OSError as error:
        raise LakeError(f"cannot list {storage.describe(FOLDER)}: {error}") from error
    return sorted(names)


def save_query(lake: Location, name: str, sql: str, *, replace: bool = False) -> SavedQuery:
    """Keep a query; the caller has checked that it can run. UsageError if the name is taken and ``replace`` not set."""
    bare = check_name(name)
    data = sql.strip().encode()
    if len(data) > LONGEST:
        raise UsageError(f"the query has {len(data):,} bytes; the limit is {LONGEST:,}")
    storage = open_storage(lake)
    path = _path(bare)
    try:
        if replace:
            storage.write(path, data)
        elif storage.exists(path):
            raise UsageError(_taken(bare))
        else:
            storage.put_if_match(path, data, None)
    except ConflictError:
        # The answer to the first of two requests can be lost on the way: then the query is what was sent.
        if storage.read(path) != data:
            raise UsageError(_taken(bare)) from None
    except OSError as error:
        raise LakeError(f"cannot write {storage.describe(path)}: {error}") from error
    return SavedQuery(bare, data.decode(), datetime.now(UTC))


def delete_query(lake: Location, name: str) -> None:
    """Delete a query. UsageError if there is none of that name."""
    storage = open_storage(lake)
    path = _path(check_name(name))
    try:
        if not storage.exists(path):
            raise UsageError(_unknown(lake, name))
        storage.delete(path)
    except OSError as error:
        raise LakeError(f"cannot delete {storage.describe(path)}: {error}") from error


def _path(name: str) -> str:
    return f"{FOLDER}/{name}{_END}"


def _taken(name: str) -> str:
    return f"there is a query @{name} already: use another name, or replace it with --force"


def _unknown(lake: Location, name: str) -> str:
    bare, names = check_name(name), saved_names(lake)
    if not names:
        return f"no query @{bare} is saved in this lake, nor any other"
    near = difflib.get_close_matches(bare, names, 1)
    hint = f"did you mean @{near[0]}?" if near else f"there are {', '.join('@' + name for name in names[:10])}"
    return f"no query @{bare} is saved in this lake: {hint}"
