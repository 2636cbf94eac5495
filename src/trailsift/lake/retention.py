"""How long a lake keeps events and summaries, and which days retention has removed from it.

What goes is decided by the time of the events, in whole days (UTC): an event goes when the day on which it turned too
old is over. A file goes as a whole, once all of its rows are too old; every file that trailsift writes holds one day.

Retention removes files in a commit of the kind ``retention``, which says from which day on events and summaries are
kept. Later ingests store nothing older than that. ``lake.expire_days`` does the work; nothing here writes.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from trailsift.errors import LakeError, UsageError
from trailsift.lake import forms
from trailsift.lake.index import File, Snapshot, read
from trailsift.schema import EVENTS, HOURLY, REJECTS, TABLES
from trailsift.times import DAY, EPOCH, micros, moment

#: The kind of a commit that removes days, its member with them, and the name under which later events are dropped.
KIND = RULE = "retention"
#: The number of such events in the counts of an ingest's commit: a rule may have that name, too.
DROPPED_BY_RETENTION = "dropped_by_retention"
#: The member of ``lake.json``.
SETTING = "retention"
#: Days below which nothing is removed unless a command says so; settings of a lake never go below.
FLOOR_DAYS = 30
MAX_DAYS = 36_500
#: A file that spans more days has times that nobody knows.
_LONGEST = 400

_UNITS = {"d": 1, "w": 7, "y": 365}
_PERIOD = re.compile(r"(\d{1,6})([dwy])", re.ASCII)
#: Tables whose rows are about single records, and go with the events.
_RECORDS = (EVENTS.name, REJECTS.name)
_MEMBERS = frozenset({"events", "summaries", "at_least", "place"})


def days_of(text: str, name: str) -> int:
    """Return a period in days: ``90d``, ``12w`` or ``2y`` (of 365 days). UsageError for anything else.

    ``name``: the option that it was given by.
    """
    match = _PERIOD.fullmatch(text.strip().lower())
    days = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= days <= MAX_DAYS:
        raise UsageError(
            f"{name} {text!r:.60} is not a period: use a number of days, weeks or years, such as 90d, 26w or 2y, "
            f"from 1d to {MAX_DAYS // 365}y"
        )
    return days


def period_of(days: int) -> str:
    """Return days as ``--events`` takes them."""
    return f"{days // 365}y" if days % 365 == 0 else f"{days}d"


@dataclass(frozen=True, slots=True)
class Retention:
    """Days for which events and summaries are kept; None: without limit. Nothing younger than ``at_least`` goes.

    ``place``: the lake that it was saved for, if it comes from ``lake.json``.
    """

    events: int | None = None
    summaries: int | None = None
    at_least: int = FLOOR_DAYS
    place: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``: days."""
        return {"events_days": self.events, "summaries_days": self.summaries, "at_least_days": self.at_least}

    def options(self) -> str:
        """Return the options of ``trailsift expire`` that give these periods."""
        words = [] if self.events is None else [f"--events {period_of(self.events)}"]
        words += [] if self.summaries is None else [f"--summaries {period_of(self.summaries)}"]
        words += [] if self.at_least == FLOOR_DAYS else [f"--at-least {period_of(self.at_least)}"]
        return " ".join(words)


def asked(events: str | None, summaries: str | None, at_least: str | None = None) -> Retention:
    """Return what a command asks for.

    UsageError if a period is not one, is below the floor, or if summaries would go before events.
    """
    keep = Retention(
        None if events is None else days_of(events, "--events"),
        None if summaries is None else days_of(summaries, "--summaries"),
        FLOOR_DAYS if at_least is None else days_of(at_least, "--at-least"),
    )
    if keep.events is None and keep.summaries is None:
        raise UsageError("say how long to keep events, as with --events 90d")
    for name, days in (("--events", keep.events), ("--summaries", keep.summaries)):
        if days is not None and days < keep.at_least:
            raise UsageError(
                f"{name} {period_of(days)} is below the floor of {period_of(keep.at_least)}: nothing was removed. If "
                f"you mean it, add --at-least {period_of(days)}"
            )
    if keep.summaries is not None and (keep.events is None or keep.events > keep.summaries):
        raise UsageError(
            f"--summaries {period_of(keep.summaries)} would remove the counts of events that stay: give --events "
            f"{period_of(keep.summaries)} or less, too"
        )
    return keep


def saved(settings: Mapping[str, object]) -> Retention | None:
    """Return the retention that ``lake.json`` sets; None if it sets none. LakeError if it is not what is written there.

    A lake may come from somebody else, so its settings never go below the floor.
    """
    found = settings.get(SETTING)
    if found is None:
        return None
    if not isinstance(found, dict) or not found.keys() <= _MEMBERS or not isinstance(found.get("place"), str):
        raise _wrong(found, f"it must have the members {', '.join(sorted(_MEMBERS))}")
    days = {name: found.get(name) for name in ("events", "summaries", "at_least")}
    for name, value in days.items():
        if value is not None and (type(value) is not int or not FLOOR_DAYS <= value <= MAX_DAYS):
            raise _wrong(found, f"{name} must be a number of days, from {FLOOR_DAYS} to {MAX_DAYS:,}")
    keep = Retention(days["events"], days["summaries"], days["at_least"] or FLOOR_DAYS, found["place"])
    if min(keep.events or MAX_DAYS, keep.summaries or MAX_DAYS) < keep.at_least:
        raise _wrong(found, f"events and summaries must be at_least ({keep.at_least} days)")
    if keep.events is None or (keep.summaries or MAX_DAYS) < keep.events:
        raise _wrong(found, "events must have a number of days, and summaries at least as many")
    return keep


def _wrong(found: object, what: str) -> LakeError:
    return LakeError(
        f"{SETTING} in lake.json is {found!r:.200}: {what}. Nothing was removed; `trailsift expire --forget` takes it "
        "out, and `trailsift expire --events 90d --save` writes another"
    )


def applied(settings: Mapping[str, object]) -> Retention | None:
    """Return the retention that compaction applies: that of ``lake.json``, if it was saved for the lake at this place.

    A lake that was copied or moved here, as one from somebody else was, removes nothing by itself.
    """
    keep = saved(settings)
    return keep if keep is not None and keep.place == settings.get("location") else None


# -- what goes ---------------------------------------------------------------------------------------------------------


class Cut(NamedTuple):
    """Times (microseconds since 1970, starts of days in UTC) before which rows go; None: no limit."""

    events: int | None = None
    summaries: int | None = None

    def of(self, table: str) -> int | None:
        """Return the time for a table."""
        return self.events if table in _RECORDS else self.summaries


def cut_of(keep: Retention, now: datetime) -> Cut:
    """Return before which times rows are too old: the day on which they turn that is over."""
    today = micros(now) // DAY

    def before(days: int | None) -> int | None:
        # What is asked for is checked before; this holds whatever a caller makes up.
        return None if days is None else (today - max(days, keep.at_least)) * DAY

    return Cut(before(keep.events), before(keep.summaries))


@dataclass(frozen=True, slots=True)
class TableDays:
    """What goes of a table: files, and their rows, bytes, number of days, and first and last day (ISO 8601)."""

    table: str
    days: int
    first_day: str
    last_day: str
    rows: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The files that go. ``straddling``: files that stay because they also hold later days."""

    cut: Cut
    files: tuple[File, ...]
    straddling: int

    @property
    def tables(self) -> tuple[TableDays, ...]:
        """The part of each table that goes, of those alone of which anything goes."""
        return tuple(
            _days_of_table(name, mine)
            for name in TABLES
            if (mine := [file for file in self.files if file.table == name])
        )


def plan(files: Iterable[File], cut: Cut) -> Plan:
    """Return which of a lake's live files go."""
    gone, straddling = [], 0
    for file in files:
        before = cut.of(file.table)
        if before is None or file.min_time >= before:
            continue
        if file.max_time < before and file.max_time // DAY - file.min_time // DAY <= _LONGEST:
            gone.append(file)
        else:
            straddling += 1
    return Plan(cut, tuple(gone), straddling)


def plan_of(snapshot: Snapshot, cut: Cut) -> Plan:
    """Return which files of a committed state go."""
    names = [name for name in TABLES if name in snapshot.locations]
    return plan((file for name in names for file in snapshot.files(name)), cut)


def _days_of_table(name: str, files: Sequence[File]) -> TableDays:
    days = {day for file in files for day in range(file.min_time // DAY, file.max_time // DAY + 1)}
    numbers = (sum(file.rows for file in files), len(files), sum(file.bytes for file in files))
    return TableDays(name, len(days), day_text(min(days) * DAY), day_text(max(days) * DAY), *numbers)


def day_text(time: int) -> str:
    """Return the day of a time as ISO 8601, in UTC."""
    return f"{moment(time):%Y-%m-%d}" if forms.MIN_TIME <= time <= forms.MAX_TIME else "?"


# -- what went ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RemovedDays:
    """What retention has removed: events and summaries before these times (microseconds since 1970; None: nothing).

    ``closed``: first and last day (since 1970) of stretches whose event ids are forgotten, too: whether an event of
    such a day is a new one is not known, so the summaries of these days do not change any longer.
    """

    events: int | None = None
    summaries: int | None = None
    closed: tuple[tuple[int, int], ...] = ()

    def __bool__(self) -> bool:
        return self.events is not None or self.summaries is not None


NOTHING_REMOVED = RemovedDays()


def as_counts(removed: RemovedDays) -> dict[str, Any]:
    """Return what a commit records of the days that are removed."""
    named = {"events": removed.events, "summaries": removed.summaries}
    days = {name: day_text(time) for name, time in named.items() if time is not None}
    return {KIND: {**days, "closed": [[day_text(day * DAY) for day in pair] for pair in removed.closed]}}


def removed_days(snapshot: Snapshot) -> RemovedDays:
    """Return what retention had removed from a lake when it was in this state. LakeError as for ``read_removed``."""
    return read(snapshot.root, lambda db: read_removed(db, last=snapshot.seq))


def read_removed(
    db: sqlite3.Connection, after: int = -1, before: RemovedDays = NOTHING_REMOVED, last: int = forms.MAX_NUMBER
) -> RemovedDays:
    """Return what the commits after number ``after``, up to ``last``, have removed, and what was removed ``before``.

    LakeError if they are not what a commit writes.
    """
    sql = "SELECT counts FROM commit_log WHERE kind = ? AND seq > ? AND seq <= ? ORDER BY seq"
    for (text,) in db.execute(sql, (KIND, after, last)).fetchall():
        found = forms.counts(text).get(KIND) or {}
        before = RemovedDays(
            _later(before.events, found.get("events")),
            _later(before.summaries, found.get("summaries")),
            runs([*before.closed, *(_numbers(pair) for pair in found.get("closed", ()))]),
        )
    return before


def _later(known: int | None, text: str | None) -> int | None:
    if text is None:
        return known
    time = _number(text) * DAY
    return time if known is None else max(known, time)


def _number(text: str) -> int:
    """Return a day in days since 1970."""
    return (date.fromisoformat(text) - EPOCH.date()).days


def _numbers(pair: Sequence[str]) -> tuple[int, int]:
    return _number(pair[0]), _number(pair[1])


def runs(stretches: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return stretches of days, each by its first and last day, in order and without those that touch each other."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(stretches):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return tuple(found)


def closed_days(hourly: Iterable[File], ids: Iterable[tuple[int, int]], before: int | None) -> set[int]:
    """Return the days before a time that have summaries, and of whose events the ids are forgotten.

    ``hourly``: files of that table; ``ids``: first and last time of the events of each file of ids (microseconds).
    """
    if before is None:
        return set()
    spans = [(file.min_time // DAY, file.max_time // DAY) for file in hourly if file.max_time < before]
    counted = {day for low, high in spans if high - low <= _LONGEST for day in range(low, high + 1)}
    for low, high in ids:
        counted -= {day for day in counted if low // DAY <= day <= high // DAY}
    return counted


def reference(newest: int | None, now: datetime) -> datetime:
    """Return the time from which compaction measures age: the present, or the end of the newest event's day if earlier.

    ``newest``: the time of the newest event that the lake has stored or counted, None if there is none. So a clock that
    is wrong, or logs that stay away, never let a lake remove what it has by itself.
    """
    if newest is None or newest > forms.MAX_TIME - DAY:
        return now
    return min(now.astimezone(UTC), moment((newest // DAY + 1) * DAY))


def newest_event(db: sqlite3.Connection) -> int | None:
    """Return the time of the newest event that is stored or counted, by the index; None if there is none."""
    sql = "SELECT max(max_time) FROM file WHERE table_name IN (?, ?) AND removed IS NULL AND max_time <= ?"
    (newest,) = db.execute(sql, (EVENTS.name, HOURLY.name, forms.MAX_TIME)).fetchone()
    return newest if type(newest) is int else None


def has_old_files(db: sqlite3.Connection, cut: Cut) -> bool:
    """Return whether a live file may be before the cut. It takes no time in a lake that has none."""
    sql = "SELECT 1 FROM file WHERE table_name = ? AND removed IS NULL AND min_time < ? AND max_time < ? LIMIT 1"
    cuts = ((name, cut.of(name)) for name in TABLES)
    return any(db.execute(sql, (name, time, time)).fetchone() for name, time in cuts if time is not None)
