"""The state of a lake, whether its counts reconcile, and what to do about it.

All but the gaps (``analysis.feed``) comes from the catalog's SQLite file; no Parquet is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from trailsift import schema
from trailsift.analysis.feed import Gap, Gaps
from trailsift.analysis.shell import quoted
from trailsift.errors import LakeError
from trailsift.lake import forms, glue_setting, index, retention
from trailsift.lake.glue_setting import Target
from trailsift.lake.home import home
from trailsift.lake.open import open_snapshot
from trailsift.lake.retention import NOTHING_REMOVED, RemovedDays, Retention, TableDays, day_text
from trailsift.query.json_objects import JsonObject
from trailsift.times import DAY, HOUR, iso, micros

#: Number of commits shown.
LATEST = 5
#: Seconds after which a newest delivery is late: CloudTrail delivers within a quarter of an hour, quiet accounts later.
LATE = 3600
#: Files of a past day, table and service from which on `compact` is worth it.
MANY_FILES = 64
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
class Delivery(JsonObject):
    """How far the lake is behind: ``newest`` delivery of a log object and newest event (microseconds since 1970).

    ``delivery_time`` is None if no log object was named as CloudTrail names them. ``lag``: seconds since then, or
    since the event if no delivery is known; None for an empty lake.
    """

    delivery_time: int | None
    event_time: int | None
    lag: int | None

    JSON: ClassVar[dict[str, str]] = {
        "newest_delivery_time": "delivery_time",
        "newest_event_time": "event_time",
        "lag_seconds": "lag",
    }


@dataclass(frozen=True, slots=True)
class Keeping(JsonObject):
    """What retention does to the lake.

    ``setting``: what ``lake.json`` says, None if nothing; ``applies``: whether it was saved for the lake at this place;
    ``problem``: why it cannot be used. ``gone``: what it has removed. ``next``: what the next compaction removes, by
    table. ``next_on``: the day (ISO 8601, UTC) on which the next day of events becomes too old, if that is to come.
    """

    setting: Retention | None = None
    applies: bool = False
    problem: str | None = None
    gone: RemovedDays = NOTHING_REMOVED
    next: tuple[TableDays, ...] = ()
    next_on: str | None = None

    JSON: ClassVar[dict[str, str]] = {
        "setting": "days",
        "applies": "applies",
        "problem": "problem",
        "events_removed_before": "events_before",
        "summaries_removed_before": "summaries_before",
        "next": "next",
        "next_on": "next_on",
    }

    @property
    def days(self) -> dict[str, Any] | None:
        """The setting in days."""
        return None if self.setting is None else self.setting.as_dict()

    @property
    def events_before(self) -> str | None:
        """The day before which events were removed."""
        return None if self.gone.events is None else day_text(self.gone.events)

    @property
    def summaries_before(self) -> str | None:
        """The day before which summaries were removed."""
        return None if self.gone.summaries is None else day_text(self.gone.summaries)


@dataclass(frozen=True, slots=True)
class Connection(JsonObject):
    """The Glue database that ``lake.json`` names; None if it names none that is valid.

    ``applies``: whether it was saved for the lake at this place, so that the tables there follow each commit;
    ``problem``: why the setting cannot be used.
    """

    target: Target | None = None
    applies: bool = False
    problem: str | None = None

    JSON: ClassVar[dict[str, str]] = {"database": "names", "applies": "applies", "problem": "problem"}

    @property
    def names(self) -> dict[str, str | None] | None:
        """The database, its region and its account."""
        return None if self.target is None else self.target.as_dict()


class ToDo(NamedTuple):
    """Something to do about a lake: why, and the command."""

    why: str
    command: str


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
    delivery: Delivery = Delivery(None, None, None)
    #: Time of the newest compaction (ISO 8601), and the most files that a past day of a table and service has.
    last_compaction: str | None = None
    most_files: int = 0
    keeping: Keeping = Keeping()
    #: The Glue database that follows the lake; None if none was ever asked to.
    glue: Connection | None = None
    #: Hours in which an account and region that normally delivers did not; None if they were not looked for.
    gaps: Gaps | None = None

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
        "delivery": "delivery",
        "gaps": "listed_gaps",
        "gaps_total": "total_gaps",
        "last_compaction": "last_compaction",
        "most_files_of_a_day": "most_files",
        "retention": "keeping",
        "glue": "glue",
        "to_do": "to_do",
    }

    @property
    def listed_gaps(self) -> tuple[Gap, ...] | None:
        """The newest gaps."""
        return None if self.gaps is None else self.gaps.listed

    @property
    def total_gaps(self) -> int | None:
        """The number of gaps."""
        return None if self.gaps is None else self.gaps.total

    @property
    def to_do(self) -> tuple[ToDo, ...]:
        """Things to do, the most urgent first; the commands are for a shell."""
        return tuple(_to_do(self))

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


def status(lake: Path, now: datetime | None = None) -> Status:
    """Return the newest committed state of ``lake``. Raise LakeError if there is no lake."""
    present = now or datetime.now(UTC)
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
    delivered: int | None = None
    compacted: str | None = None
    for seq, committed_at, kind, text in log:
        counts = forms.counts(text)
        by_rule = counts.pop("dropped", None) or {}
        # By this a commit in S3 is recognized, and nothing else.
        counts.pop("id", None)
        dropped.update(by_rule)
        if counts.get("rules"):
            rules[counts["rules"]["digest"]] = counts["rules"]
        kept.update(counts.get("days_kept", ()))
        totals.update({name: counts.get(name, 0) for name in totals})
        forms.commit_time(committed_at)
        delivered = _newest(delivered, counts.get("delivered_to"), present)
        compacted = committed_at if kind == "compact" else compacted
        commits.append({"commit": seq, "committed_at": committed_at, "kind": kind, **counts, "dropped": by_rule})
    tables = tuple(_state(snapshot, name) for name in snapshot.locations if name in schema.TABLES)
    return Status(
        lake=home(snapshot.root),
        seq=snapshot.seq,
        committed_at=snapshot.committed_at,
        commits=sum(commit.get("commits", 1) for commit in commits if commit["kind"] != "create"),
        tables=tables,
        totals=dict(totals),
        dropped=dict(dropped),
        latest=tuple(commit for commit in reversed(commits[-LATEST:]) if commit["kind"] != "create"),
        rules=tuple(rules.values()),
        world_readable=bool(snapshot.root.stat().st_mode & 0o001),
        format_version=snapshot.format_version,
        version_1_days=tuple(sorted(kept)) if snapshot.format_version > 1 else _days(snapshot, schema.HOURLY.name),
        delivery=_delivery(tables, delivered, present),
        last_compaction=compacted,
        most_files=_most_files(snapshot, present),
        keeping=_keeping(snapshot, tables, present),
        glue=_connection(snapshot.settings),
    )


def _newest(known: int | None, text: object, now: datetime) -> int | None:
    """Return the later of a known delivery and that of a commit; one in the future is not believed."""
    if not isinstance(text, str):
        return known
    time = micros(datetime.fromisoformat(forms.commit_time(text)))
    return known if time > micros(now) else time if known is None else max(known, time)


def _delivery(tables: Sequence[TableState], delivered: int | None, now: datetime) -> Delivery:
    present = micros(now)
    times = [table.last_time for table in tables if table.name in (schema.EVENTS.name, schema.HOURLY.name)]
    event = max((time for time in times if time is not None and time <= present), default=None)
    newest = event if delivered is None else delivered
    return Delivery(delivered, event, None if newest is None else (present - newest) // 1_000_000)


def _most_files(snapshot: index.Snapshot, now: datetime) -> int:
    """Return the most files that a day before today has, of one table and service."""
    today = micros(now) // DAY
    number: Counter[tuple[str, int, str | None]] = Counter()
    for name in schema.TABLES:
        days = ((file.min_time // DAY, file.service) for file in snapshot.files(name))
        number.update((name, day, service) for day, service in days if day < today)
    return max(number.values(), default=0)


def _keeping(snapshot: index.Snapshot, tables: Sequence[TableState], now: datetime) -> Keeping:
    gone = retention.removed_days(snapshot)
    try:
        setting = retention.saved(snapshot.settings)
    except LakeError as error:
        return Keeping(problem=str(error), gone=gone)
    if setting is None or retention.applied(snapshot.settings) is None:
        return Keeping(setting, gone=gone)
    last = [table.last_time for table in tables if table.name in (schema.EVENTS.name, schema.HOURLY.name)]
    newest = max((time for time in last if time is not None and time <= forms.MAX_TIME), default=None)
    plan = retention.plan_of(snapshot, retention.cut_of(setting, retention.reference(newest, now)))
    first = next(table.first_time for table in tables if table.name == schema.EVENTS.name)
    # The first day that stays goes when it is as old as that, and over.
    due = None if plan.files or first is None or setting.events is None else first // DAY + setting.events + 1
    return Keeping(setting, True, None, gone, plan.tables, None if due is None else day_text(due * DAY))


def _connection(settings: Mapping[str, object]) -> Connection | None:
    """Return what the settings say of Glue, which is not asked."""
    try:
        target = glue_setting.saved(settings)
    except LakeError as error:
        return Connection(problem=str(error))
    return None if target is None else Connection(target, glue_setting.applied(settings) is not None)


def _to_do(status: Status) -> Iterator[ToDo]:
    """Yield what to do about a lake."""
    lake = f"--lake {quoted(status.lake)}"
    source = "PATH" if status.gaps is None or status.gaps.source is None else quoted(status.gaps.source)
    lag = status.delivery.lag
    if lag is not None and lag > LATE:
        since = iso((status.delivery.delivery_time or status.delivery.event_time or 0) // HOUR * HOUR)
        yield ToDo("the newest log object is old", f"trailsift ingest {source} --since {since} {lake}")
    if status.gaps is not None and status.gaps.listed:
        since = iso(min(gap.first_time for gap in status.gaps.listed))
        yield ToDo("hours are missing", f"trailsift ingest {source} --since {since} {lake}")
    if status.most_files > MANY_FILES:
        yield ToDo(f"a day has {status.most_files:,} files", f"trailsift compact {lake}")
    keeping = status.keeping
    if keeping.problem is not None:
        yield ToDo("the retention in lake.json cannot be used", f"trailsift expire --forget {lake}")
    elif keeping.setting is not None and not keeping.applies:
        again = f"trailsift expire {keeping.setting.options()} --save {lake}"
        yield ToDo("the retention in lake.json was saved for another place", again)
    elif keeping.next:
        yield ToDo("retention has days to remove", f"trailsift compact {lake}")
    glue = status.glue
    if glue is not None and glue.target is None:
        yield ToDo("the Glue database in lake.json cannot be used", f"trailsift connect --no-glue {lake}")
    elif glue is not None and glue.target is not None and not glue.applies:
        again = f"trailsift connect {glue.target.options()} {lake}"
        yield ToDo("the Glue database in lake.json was saved for another place", again)


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
        by_rule = dict(counts.get("dropped") or {})
        if by_rule.get(retention.RULE) == counts.get(retention.DROPPED_BY_RETENTION):
            by_rule.pop(retention.RULE, None)
        if any(actions.get(name) != "drop" for name in by_rule):
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
