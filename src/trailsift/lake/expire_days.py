"""Remove the events and summaries of a lake that are older than they are to be kept, and keep that as a setting.

One commit removes the files of all tables, so a reader sees all of it or nothing. The files stay on disk for readers
that planned before, until ``expire.clean`` deletes them: ten minutes and three commits later, or after a day.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trailsift.errors import UsageError
from trailsift.lake import expire, index, retention
from trailsift.lake.disk import write_errors
from trailsift.lake.home import home, others_first
from trailsift.lake.open import open_snapshot
from trailsift.lake.retention import Cut, Plan, RemovedDays, Retention, TableDays
from trailsift.lake.saved_settings import change_settings
from trailsift.lake.settings import read_settings
from trailsift.lake.writer import LakeWriter
from trailsift.schema import HOURLY
from trailsift.times import iso, micros


@dataclass(frozen=True, slots=True)
class Expired:
    """What retention removed, or would remove (``dry_run``).

    Events before the day ``events_before`` go, and summaries before ``summaries_before`` (ISO 8601, UTC; None: no
    limit). ``straddling``: files that stay because they hold later days, too. ``commit``: the number of the commit,
    None if there was nothing to remove. ``files_deleted`` and ``bytes_deleted``: what earlier commits had removed or
    replaced, and is now gone from the disk. ``deleted_from``: the time from which on any ``compact`` or ``expire``
    deletes the files that were removed now.
    """

    lake: str
    dry_run: bool
    events_before: str | None
    summaries_before: str | None
    tables: tuple[TableDays, ...]
    straddling: int
    commit: int | None = None
    deleted_from: str | None = None
    files_deleted: int = 0
    bytes_deleted: int = 0
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """Rows of all tables that go."""
        return sum(table.rows for table in self.tables)

    @property
    def files(self) -> int:
        """Files of all tables that go."""
        return sum(table.files for table in self.tables)

    @property
    def bytes(self) -> int:
        """Bytes of all tables that go."""
        return sum(table.bytes for table in self.tables)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        values = {name: getattr(self, name) for name in self.__slots__}
        tables = [{name: getattr(table, name) for name in table.__slots__} for table in self.tables]
        return values | {"tables": tables, "rows": self.rows, "files": self.files, "bytes": self.bytes}


def expire_days(
    root: Path, keep: Retention | None = None, *, dry_run: bool = False, now: datetime | None = None
) -> Expired:
    """Remove what is older than ``keep`` (None: what the lake's settings keep), by the clock.

    ``dry_run``: only return what would go. UsageError if nothing says what to keep, LakeError if the lake cannot be
    read or written.
    """
    started = time.monotonic()
    moment = now or datetime.now(UTC)
    keep = keep or _of_settings(root)
    if dry_run:
        snapshot = open_snapshot(root)
        found = retention.plan_of(snapshot, retention.cut_of(keep, moment))
        return _expired(snapshot.root, found, True, None, started)
    lake = LakeWriter(root)
    lake.expect_current()
    with write_errors(lake.root):
        found, commit = _remove(lake, retention.cut_of(keep, moment))
        deleted: Counter[str] = Counter()
        with others_first(lake.root):
            deleted = expire.clean(lake, moment)
    return _expired(
        lake.root, found, False, commit, started, moment, deleted["files_deleted"], deleted["bytes_deleted"]
    )


def apply_settings(lake: LakeWriter, now: datetime) -> Plan | None:
    """Remove what the lake's settings do not keep, for a compaction; return what went, None if nothing had to.

    Age is measured from the newest event if that is earlier than the present (``retention.reference``). LakeError if
    the settings are not valid; then nothing is removed. The lock must be free.
    """
    keep = retention.applied(read_settings(lake.root))
    if keep is None:
        return None
    with closing(index.connect(lake.root)) as db:
        cut = retention.cut_of(keep, retention.reference(retention.newest_event(db), now))
        if not retention.has_old_files(db, cut):
            return None
    found, commit = _remove(lake, cut)
    return found if commit is not None else None


def _remove(lake: LakeWriter, cut: Cut) -> tuple[Plan, int | None]:
    """Remove what is before the cut, in one commit; return what went, and the number of the commit if there is one."""
    with lake.begin() as transaction:
        files = [file for name in lake.tables for file in lake.live_files(name)]
        found = retention.plan(files, cut)
        with closing(index.connect(lake.root)) as db:
            before = retention.read_removed(db)
            spans = db.execute("SELECT min_time, max_time FROM seen_file WHERE removed IS NULL").fetchall()
        hourly = [file for file in files if file.table == HOURLY.name]
        removed = RemovedDays(
            _later(before.events, cut.events if found.files else None),
            _later(before.summaries, cut.summaries if found.files else None),
        )
        closed = retention.closed_days(hourly, spans, removed.events)
        closed -= {day for first, last in before.closed for day in range(first, last + 1) if day in closed}
        if not found.files and not closed:
            return found, None
        transaction.replace(found.files, ())
        state = RemovedDays(removed.events, removed.summaries, retention.runs((day, day) for day in closed))
        counts = {
            "files_removed": len(found.files),
            "rows_removed": {table.table: table.rows for table in found.tables},
            "bytes_removed": sum(file.bytes for file in found.files),
            **retention.as_counts(state),
        }
        return found, transaction.commit(counts, retention.KIND)


def _later(known: int | None, time: int | None) -> int | None:
    return known if time is None else time if known is None else max(known, time)


def _expired(
    root: Path,
    found: Plan,
    dry_run: bool,
    commit: int | None,
    started: float,
    moment: datetime | None = None,
    files_deleted: int = 0,
    bytes_deleted: int = 0,
) -> Expired:
    def day(time: int | None) -> str | None:
        return None if time is None else retention.day_text(time)

    gone = (
        None if commit is None or moment is None else iso(micros(moment + expire.LONG_GRACE) // 1_000_000 * 1_000_000)
    )
    return Expired(
        home(root),
        dry_run,
        day(found.cut.events),
        day(found.cut.summaries),
        found.tables,
        found.straddling,
        commit,
        gone,
        files_deleted,
        bytes_deleted,
        round(time.monotonic() - started, 3),
    )


# -- settings ----------------------------------------------------------------------------------------------------------


def _of_settings(root: Path) -> Retention:
    settings = read_settings(root)
    keep = retention.saved(settings)
    if keep is None:
        raise UsageError(
            "say how long to keep events, as with --events 90d: the lake has no setting for it (--save makes one)"
        )
    if retention.applied(settings) is None:
        raise UsageError(
            f"the settings in lake.json were saved for the lake at {keep.place}, and not for this one: nothing was "
            f"removed. If they are meant for it, say so: `trailsift expire {keep.options()} --save`"
        )
    return keep


def save(root: Path, keep: Retention | None) -> Retention | None:
    """Keep retention as a setting of the lake, which compaction applies from now on; None takes the setting out.

    Return what is saved. UsageError if it goes below the floor of settings, LakeError if the lake cannot be written.
    """
    if keep is not None and keep.events is None:
        raise UsageError("say how long to keep events, as with --events 90d")
    if keep is not None and keep.at_least < retention.FLOOR_DAYS:
        raise UsageError(
            f"settings of a lake keep at least {retention.FLOOR_DAYS}d, so that no file of a lake removes what is "
            "younger: leave out --save, and run the command itself as often as you need it"
        )
    lake = LakeWriter(root)
    lake.expect_current()

    def change(settings: dict[str, object]) -> dict[str, object]:
        settings.pop(retention.SETTING, None)
        if keep is not None:
            values = {"events": keep.events, "summaries": keep.summaries, "at_least": keep.at_least}
            written = {name: value for name, value in values.items() if value is not None}
            settings[retention.SETTING] = {**written, "place": settings["location"]}
            retention.saved(settings)
        return settings

    with write_errors(lake.root), lake.lock():
        _, settings = change_settings(lake, change)
    return retention.saved(settings)
