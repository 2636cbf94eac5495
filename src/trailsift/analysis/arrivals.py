"""The events that commits have brought since one that a reader has seen: the live tail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trailsift.errors import UsageError
from trailsift.lake.news import commits_after, with_files_of
from trailsift.query.json_objects import JsonObject
from trailsift.schema import EVENTS

if TYPE_CHECKING:
    from trailsift.lake.news import Commit
    from trailsift.query import DuckDBEngine

#: Rows of one answer, unless a limit is given, and the most that are given.
ROWS, MOST_ROWS = 50, 1_000
#: Characters of a text: who calls AWS writes user agents and keys of any length.
LONGEST = 300
#: Columns of a row.
COLUMNS = (
    "event_time",
    "event_id",
    "service",
    "event_name",
    "caller",
    "account_id",
    "aws_region",
    "resource_arn",
    "object_key",
    "source_ip",
    "user_agent",
    "error_code",
    "bytes_out",
)
_TEXTS = frozenset(column.name for column in EVENTS.columns if column.type == "string")


@dataclass(frozen=True, slots=True)
class Arrivals(JsonObject):
    """What commits after ``after`` have brought, up to ``seq``; ``committed_at``: time of the newest commit.

    ``stored``: events of these commits in the lake; ``rows``: the newest of them by event time.
    """

    after: int
    seq: int
    committed_at: str
    commits: tuple[Commit, ...]
    stored: int
    rows: tuple[dict[str, Any], ...]

    JSON: ClassVar[dict[str, str]] = {
        "after": "after",
        "commit": "seq",
        "committed_at": "committed_at",
        "commits": "commits",
        "stored": "stored",
        "rows": "rows",
    }


def arrivals(engine: DuckDBEngine, after: int | None = None, limit: int = ROWS) -> Arrivals:
    """Return what commits after ``after`` have brought; None: the newest commit alone.

    Raise UsageError for a limit that is negative or above ``MOST_ROWS``.
    """
    if not 0 <= limit <= MOST_ROWS:
        raise UsageError(f"a limit of {limit} rows: use 0 to {MOST_ROWS:,}")
    snapshot = engine.snapshot
    commits = commits_after(snapshot, -1 if after is None else after)
    if after is None:
        commits = commits[:1]
    rows: tuple[dict[str, Any], ...] = ()
    # Another engine's commits are not in our log: the next of ours brings the index up to date.
    if limit and any(commit.stored for commit in commits) and snapshot.rebuilt is None:
        columns = ", ".join(f"left({name}, {LONGEST}) AS {name}" if name in _TEXTS else name for name in COLUMNS)
        sql = f"SELECT {columns} FROM events ORDER BY events.event_time DESC, events.event_id LIMIT {limit}"
        found = engine.at(with_files_of(snapshot, commits)).sql(sql).dicts()
        rows = tuple({**row, "event_time": row["event_time"].isoformat().replace("+00:00", "Z")} for row in found)
    first = commits[-1].seq - 1 if commits else snapshot.seq
    return Arrivals(
        first if after is None else after,
        snapshot.seq,
        snapshot.committed_at,
        tuple(commits),
        sum(commit.stored for commit in commits),
        rows,
    )
