"""The state of a lake, and whether its counts reconcile. Reads only the catalog's SQLite file, no Parquet."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from trailsift import schema
from trailsift.lake import forms, index
from trailsift.lake.home import home
from trailsift.lake.open import open_snapshot
from trailsift.query.json_objects import JsonObject
from trailsift.times import DAY, iso

#: Number of commits shown.
LATEST = 5
#: The largest number of days in a file whose times are known.
_SPAN = 366


@dataclass(frozen=True, slots=True)
class TableState:
    """One table by its live files; times in microseconds since 1970 (UTC), None for an empty table."""

    name: str
    rows: int
    files: int
    bytes: int
    first_time: int | None
    last_time: int | None


@dataclass(frozen=True, slots=True)
class Status(JsonObject):
    """A lake at one commit. ``totals`` sums the counts of all commits; ``dropped`` is by rule."""

    lake: str
    seq: int
    committed_at: str
    commits: int
    tables: tuple[TableState, ...]
    totals: dict[str, int]
    dropped: dict[str, int]
    latest: tuple[dict[str, Any], ...]
    #: Rules files that commits applied, as the commits record them: file, digest, names, omit.
    rules: tuple[dict[str, Any], ...] = ()
    #: Whether every user of the machine may enter the lake's folder.
    world_readable: bool = False
    format_version: int = schema.FORMAT_VERSION
    #: The days (ISO 8601, UTC) whose summary lines are those of format version 1: their category is `unknown`.
    version_1_days: tuple[str, ...] = ()

    JSON: ClassVar[dict[str, str]] = {
        "lake": "lake",
        "commit": "seq",
        "committed_at": "committed_at",
        "commits": "commits",
        "events": "events.rows",
        "first_time": "events.first_time",
        "last_time": "events.last_time",
        "bytes": "bytes",
        "totals": "totals_with_dropped",
        "reconciled": "reconciled",
        "tables": "tables",
        "latest_commits": "latest",
        "rules": "rules",
        "world_readable": "world_readable",
        "format_version": "format_version",
        "version_1_days": "version_1_days",
    }

    @property
    def reconciled(self) -> bool:
        """True if records = stored + duplicates + dropped + malformed over all commits."""
        parts = self.totals["stored"] + self.totals["duplicates"] + self.totals["malformed"]
        return self.totals["records"] == parts + sum(self.dropped.values())

    @property
    def events(self) -> TableState:
        """The state of the events table."""
        return next(table for table in self.tables if table.name == schema.EVENTS.name)

    @property
    def bytes(self) -> int:
        """Bytes of all tables."""
        return sum(table.bytes for table in self.tables)

    @property
    def totals_with_dropped(self) -> dict[str, Any]:
        """The totals, and the dropped events by rule."""
        return {**self.totals, "dropped": self.dropped}


def status(lake: Path) -> Status:
    """Return the newest committed state of ``lake``. Raise LakeError if there is no lake."""
    snapshot = open_snapshot(lake)
    log = _ask(
        snapshot.root,
        "SELECT seq, committed_at, kind, counts FROM commit_log WHERE seq <= ? ORDER BY seq",
        (snapshot.seq,),
    )
    totals: Counter[str] = Counter(dict.fromkeys(("log_objects", "records", "stored", "duplicates", "malformed"), 0))
    dropped: Counter[str] = Counter()
    commits = []
    rules: dict[str, dict[str, Any]] = {}
    kept: set[str] = set()
    for seq, committed_at, kind, text in log:
        counts = forms.counts(text)
        by_rule = counts.pop("dropped", None) or {}
        dropped.update(by_rule)
        if counts.get("rules"):
            rules[counts["rules"]["digest"]] = counts["rules"]
        kept.update(counts.get("days_kept", ()))
        totals.update({name: counts.get(name, 0) for name in totals})
        forms.commit_time(committed_at)
        commits.append({"commit": seq, "committed_at": committed_at, "kind": kind, **counts, "dropped": by_rule})
    return Status(
        lake=home(snapshot.root),
        seq=snapshot.seq,
        committed_at=snapshot.committed_at,
        commits=sum(commit.get("commits", 1) for commit in commits if commit["kind"] != "create"),
        tables=tuple(_state(snapshot, name) for name in snapshot.locations if name in schema.TABLES),
        totals=dict(totals),
        dropped=dict(dropped),
        latest=tuple(commit for commit in reversed(commits[-LATEST:]) if commit["kind"] != "create"),
        rules=tuple(rules.values()),
        world_readable=bool(snapshot.root.stat().st_mode & 0o001),
        format_version=snapshot.format_version,
        version_1_days=tuple(sorted(kept)) if snapshot.format_version > 1 else _days(snapshot, schema.HOURLY.name),
    )


def dropped_whole(lake: Path) -> dict[str, int]:
    """Return the events that rules dropped without sampling, by rule: no weight accounts for these."""
    log = _ask(lake, "SELECT counts FROM commit_log WHERE counts LIKE '%\"actions\"%'")
    dropped: Counter[str] = Counter()
    for (text,) in log:
        counts = forms.counts(text)
        actions = _actions(counts)
        for name, number in (counts.get("dropped") or {}).items():
            dropped[name] += number if actions.get(name) == "drop" else 0
    return {name: number for name, number in dropped.items() if number}


def thinned(lake: Path) -> bool:
    """Return whether rules ever sampled away an event of the lake, here or in a stream whose files it ingested."""
    log = _ask(lake, 'SELECT counts FROM commit_log WHERE counts LIKE \'%"dropped": {"%\'')
    for (text,) in log:
        counts = forms.counts(text)
        actions = _actions(counts)
        if any(actions.get(name) != "drop" for name in counts.get("dropped") or {}):
            return True
    return False


def omitted(lake: Path) -> tuple[str, ...]:
    """Return the columns that rules left empty in some events: these events cannot be exported unchanged."""
    log = _ask(lake, "SELECT counts FROM commit_log WHERE counts LIKE '%\"omit\"%' ORDER BY seq")
    columns = [name for (text,) in log for name in (forms.counts(text).get("rules") or {}).get("omit", ())]
    return tuple(dict.fromkeys(columns))


def _ask(lake: Path, sql: str, values: tuple[int, ...] = ()) -> list[tuple[Any, ...]]:
    return index.read(lake, lambda db: db.execute(sql, values).fetchall())


def _actions(counts: dict[str, Any]) -> dict[str, str]:
    """Return the action of each rule that a commit applied."""
    rules = counts.get("rules") or {}
    return dict(zip(rules.get("names", ()), rules.get("actions", ()), strict=False))


def _days(snapshot: index.Snapshot, name: str) -> tuple[str, ...]:
    """Return the days of a table's files (ISO 8601); those whose times another engine left open count for none."""
    spans = [(file.min_time // DAY, file.max_time // DAY) for file in snapshot.files(name)]
    days = {day for first, last in spans if last - first < _SPAN for day in range(first, last + 1)}
    return tuple((iso(day * DAY) or "")[:10] for day in sorted(days))


def _state(snapshot: index.Snapshot, name: str) -> TableState:
    files = snapshot.files(name)
    return TableState(
        name,
        sum(file.rows for file in files),
        len(files),
        sum(file.bytes for file in files),
        min((file.min_time for file in files), default=None),
        max((file.max_time for file in files), default=None),
    )
