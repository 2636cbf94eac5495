"""What commits have brought since one that a reader has seen."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import NamedTuple

from trailsift.lake import forms
from trailsift.lake.index import File, Snapshot, read

#: Commits that are looked at, the newest: who was away for longer has missed more than anybody reads.
MOST_COMMITS = 100
#: What stores events; all else rewrites files or removes them.
_STORES = "ingest"


class Commit(NamedTuple):
    """One commit that stored events: its number, its time (ISO 8601) and how many it read and stored."""

    seq: int
    committed_at: str
    records: int
    stored: int


def commits_after(snapshot: Snapshot, seq: int) -> list[Commit]:
    """Return the commits after ``seq`` that stored events, the newest first."""
    sql = (
        "SELECT seq, committed_at, counts FROM commit_log WHERE kind = ? AND seq > ? AND seq <= ? "
        f"ORDER BY seq DESC LIMIT {MOST_COMMITS}"
    )
    found = []
    for number, time, text in read(snapshot.root, lambda db: db.execute(sql, (_STORES, seq, snapshot.seq)).fetchall()):
        counts = forms.counts(text)
        numbers = (counts.get("records") or 0, counts.get("stored") or 0)
        found.append(Commit(forms.commit_number(number), forms.commit_time(time), *numbers))
    return found


def with_files_of(snapshot: Snapshot, commits: list[Commit]) -> Snapshot:
    """Return a state that has nothing but the events of some commits, those included whose files were merged since."""
    numbers = [commit.seq for commit in commits]
    sql = (
        "SELECT table_name, path, rows, bytes, min_time, max_time, service, min_role, max_role, added FROM file "
        f"WHERE table_name = 'events' AND added IN ({','.join('?' * len(numbers))})"
    )

    def rows(db: sqlite3.Connection) -> list[tuple[File, int]]:
        return [(File._make(row[:-1]), row[-1]) for row in db.execute(sql, numbers)]

    files = read(snapshot.root, rows)
    forms.check_files("events", [file for file, _ in files])
    present = [(file, seq) for file, seq in files if (snapshot.root / file.path).exists() or _is_remote(snapshot)]
    return replace(snapshot, rebuilt=tuple(present))


def _is_remote(snapshot: Snapshot) -> bool:
    from trailsift.lake.home import mirror_of

    return mirror_of(snapshot.root) is not None
