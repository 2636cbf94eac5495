"""Ingest what keeps arriving: gather it into groups, commit each, and tell the source what is safe.

A group is ingested as any other input is (``session``), so events are stored once whatever comes twice. The larger the
load, the larger the groups: what arrives during a commit is the next group.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from trailsift.errors import LakeError, S3Error, TrailsiftError
from trailsift.ingest.counts import SIZES, Counts, Progress, Sizes
from trailsift.ingest.pipeline import only_new
from trailsift.ingest.session import Session
from trailsift.lake.disk import write_errors
from trailsift.lake.writer import LakeWriter
from trailsift.sources.arrivals import Arrival, Arrivals, Key
from trailsift.sources.base import Found, LogObject, NotFetchedError

if TYPE_CHECKING:
    from trailsift.lake.beside import Beside
    from trailsift.rules import Rules

#: Seconds for which arrivals are gathered, and log objects and bytes (as stored) of a group at most.
EVERY, GROUP_OBJECTS, GROUP_BYTES = 1.0, 5000, 64 << 20
#: Commits take half of the time at most: where one takes long, groups become larger.
_SHARE = 2
#: Seconds between two looks at whether to stop, and between two reports while nothing arrives.
_SLICE, REPORT_EVERY = 0.25, 1.0
#: Seconds until the next try after a failure, at first and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
#: Commits whose durations decide the size of the next groups.
_RECENT = 5


@dataclass(slots=True)
class Committed:
    """One commit of a watch. ``commit`` is its number in the lake, None if nothing was new.

    ``lag`` is the time from the delivery of what waited longest to the end of the commit, ``seconds`` that of the
    commit alone, ``waiting`` the number of log objects or messages that are known to wait.
    """

    commit: int | None
    time: datetime
    counts: Counts
    lag: float
    seconds: float
    waiting: int
    log_objects_gone: dict[str, str] = field(default_factory=dict)
    log_objects_again: dict[str, str] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)

    @property
    def is_news(self) -> bool:
        """False if everything was in the lake already."""
        return self.commit is not None or bool(self.log_objects_gone or self.log_objects_again or self.set_aside)

    def as_dict(self) -> dict[str, Any]:
        """Return the object that ``watch --json`` prints as one line."""
        counts = self.counts
        return {
            "commit": self.commit,
            "time": self.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "log_objects": counts.log_objects,
            "log_objects_skipped": counts.log_objects_skipped,
            "records": counts.records,
            "stored": counts.stored,
            "duplicates": counts.duplicates,
            "dropped": counts.dropped,
            "malformed": counts.malformed,
            "log_objects_gone": self.log_objects_gone,
            "log_objects_again": self.log_objects_again,
            "set_aside": self.set_aside,
            "waiting": self.waiting,
            "lag_seconds": round(self.lag, 3),
            "seconds": round(self.seconds, 3),
        }


@dataclass(slots=True)
class WatchStatus:
    """The totals of a watch so far; ``received`` is the sum of the four counts that follow it."""

    log_objects: int = 0
    log_objects_skipped: int = 0
    log_objects_gone: int = 0
    received: int = 0
    stored: int = 0
    duplicates: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    malformed: int = 0
    #: Messages that were set aside because they failed again and again.
    set_aside: int = 0
    commits: int = 0
    errors: int = 0
    last_error: str = ""
    last_commit: datetime | None = None
    #: Seconds from delivery to commit: of the last commit, and the longest.
    lag: float = 0.0
    longest_lag: float = 0.0
    waiting: int = 0
    seconds: float = 0.0

    def add(self, committed: Committed) -> None:
        """Add one commit."""
        counts = committed.counts
        self.log_objects += counts.log_objects
        self.log_objects_skipped += counts.log_objects_skipped
        self.log_objects_gone += len(committed.log_objects_gone)
        self.received += counts.records
        self.stored += counts.stored
        self.duplicates += counts.duplicates
        self.dropped = dict(Counter(self.dropped) + Counter(counts.dropped))
        self.malformed += counts.malformed
        self.set_aside += len(committed.set_aside)
        self.waiting = committed.waiting
        if committed.commit is not None:
            self.commits += 1
            self.last_commit = committed.time
            self.lag = committed.lag
            self.longest_lag = max(self.longest_lag, committed.lag)

    @property
    def complete(self) -> bool:
        """True if nothing was malformed or set aside."""
        return not self.malformed and not self.set_aside

    def as_dict(self) -> dict[str, Any]:
        """Return the totals for ``--json``."""
        values = {name: getattr(self, name) for name in self.__slots__}
        last = self.last_commit
        values["last_commit"] = None if last is None else last.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return values | {name: round(values[name], 3) for name in ("lag", "longest_lag", "seconds")}


@dataclass(slots=True)
class Hooks:
    """What a watch calls: at the start, with each commit, with its totals about once per second, and with what goes
    wrong."""

    started: Callable[[str], None] = lambda text: None
    committed: Callable[[Committed], None] = lambda committed: None
    status: Callable[[WatchStatus], None] = lambda status: None
    trouble: Callable[[str], None] = lambda text: None
    progress: Callable[[Progress], None] | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """How a watch works: ``every`` is the time (seconds) for which arrivals are gathered.

    ``seconds`` is how long it runs (None: until it is stopped); ``once``: until it has caught up.
    """

    every: float = EVERY
    seconds: float | None = None
    once: bool = False


class Watch:
    """Commits what arrives until it is stopped."""

    def __init__(
        self,
        arrivals: Arrivals,
        lake: LakeWriter,
        hooks: Hooks,
        pace: Pace = Pace(),
        *,
        rules: Rules | None = None,
        workers: int | None = None,
        sizes: Sizes = SIZES,
        beside: Beside | None = None,
    ) -> None:
        """``beside`` compacts the lake between commits."""
        self.status = WatchStatus()
        self._arrivals = arrivals
        self._lake = lake
        self._hooks = hooks
        self._pace = pace
        self._sizes = sizes
        self._beside = beside
        self._session = Session(lake, rules, sizes, workers)
        self._durations: deque[float] = deque(maxlen=_RECENT)
        self._started = time.monotonic()
        self._reported = 0.0
        self._failures = 0
        self._is_warm = False

    def run(self, stop: threading.Event) -> WatchStatus:
        """Watch until ``stop`` is set, the time is over, or all is done; the commit at work is finished.

        Raise TrailsiftError if the place fails for good; what was committed is safe.
        """
        self._report(at_once=True)
        try:
            while not self._is_over(stop):
                group = self._collect(stop)
                if group:
                    self._commit_until_done(group, stop)
                elif self._pace.once and self._arrivals.caught_up:
                    break
                self._maintain()
                self._report()
        finally:
            gc.unfreeze()
            self._session.close()
            self._arrivals.close()
            if self._beside is not None:
                self._beside.close()
        self._report(at_once=True)
        return self.status

    def _is_over(self, stop: threading.Event) -> bool:
        limit = self._pace.seconds
        return stop.is_set() or (limit is not None and time.monotonic() - self._started >= limit)

    # -- groups ----------------------------------------------------------------------------------------------------

    def _window(self) -> float:
        """Return for how many seconds arrivals are gathered: longer where commits take long."""
        recent = sorted(self._durations)
        return max(self._pace.every, (_SHARE - 1) * recent[len(recent) // 2] if recent else 0.0)

    def _collect(self, stop: threading.Event) -> list[Arrival]:
        """Return the next group: what arrives within the window after the first of it. Empty if nothing arrives."""
        group = list(self._take(_SLICE))
        if not group:
            return group
        window = self._window()
        while not self._is_full(group) and not self._is_over(stop):
            left = group[0].at + window - time.monotonic()
            if left <= 0 or (self._pace.once and self._arrivals.caught_up):
                break
            group += self._take(min(left, _SLICE))
            self._report()
        return group

    def _take(self, seconds: float) -> Sequence[Arrival]:
        return self._arrivals.take(seconds)

    @staticmethod
    def _is_full(group: Sequence[Arrival]) -> bool:
        return (
            any(arrival.found is not None for arrival in group)
            or sum(arrival.objects for arrival in group) >= GROUP_OBJECTS
            or sum(arrival.bytes for arrival in group) >= GROUP_BYTES
        )

    # -- commits ---------------------------------------------------------------------------------------------------

    def _commit_until_done(self, group: list[Arrival], stop: threading.Event) -> None:
        """Commit a group. If that fails, try again later: nothing of it is lost meanwhile."""
        pause = _FIRST_PAUSE
        while True:
            try:
                self._commit(group)
                self._failures = 0
                return
            except TrailsiftError as error:
                if not isinstance(error, LakeError | S3Error):
                    self._arrivals.give_back(group)
                    raise
                self._fail(error, pause)
            if stop.wait(pause) or self._is_over(stop):
                self._arrivals.give_back(group)
                return
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _fail(self, error: TrailsiftError, pause: float) -> None:
        """Say what failed, once for each outage."""
        self.status.errors += 1
        self.status.last_error = str(error)
        self._failures += 1
        if self._failures == 1:
            self._hooks.trouble(f"{error}. The watch goes on: it tries again in {pause:.0f} s, and then less often")
        self._report(at_once=True)

    def _commit(self, group: list[Arrival]) -> None:
        began = time.monotonic()
        missed: dict[Key, NotFetchedError] = {}

        def note(item: LogObject, error: NotFetchedError) -> None:
            missed[item.name, item.version] = error

        commits, counts = [], Counts()
        with write_errors(self._lake.root):
            for found in self._found(group):
                counts.log_objects_known += found.known
                counts.log_objects_skipped += found.known
                if found.spans:
                    again = partial(self._found_again, group)
                    commits += self._session.ingest(found, counts, self._hooks.progress, began, note, again)
        ended = time.monotonic()
        counts.seconds = round(ended - began, 3)
        if commits:
            self._durations.append(ended - began)
        settled = self._arrivals.settle(group, missed)
        moment = datetime.now(UTC)
        committed = Committed(
            commits[-1] if commits else None,
            moment,
            counts,
            max((moment - arrival.delivered_at).total_seconds() for arrival in group),
            ended - began,
            self._arrivals.waiting,
            settled.gone,
            settled.again,
            settled.set_aside,
        )
        self.status.add(committed)
        if committed.is_news:
            self._hooks.committed(committed)
        if self._beside is not None and commits:
            self._beside.note_commits(len(commits))
        if commits and not self._is_warm:
            # Everything is imported. To walk over all of that now and then would stall a commit for 0.2 s.
            self._is_warm = True
            gc.collect()
            gc.freeze()

    def _found(self, group: Sequence[Arrival]) -> list[Found]:
        """Return what of a group is not in the lake: as the source has found it, or looked up here."""
        searched = [arrival.found for arrival in group if arrival.found is not None]
        named = {(item.name, item.version): item for arrival in group for item in arrival.log_objects}
        files = sorted(named.values(), key=lambda item: (item.delivered_at, item.name))
        return [*searched, *([only_new(self._lake, files, self._sizes)] if files else [])]

    def _found_again(self, group: Sequence[Arrival]) -> Found:
        """Return what of a group is still not in the lake, since another writer was first with some of it."""
        items = [
            item for arrival in group for span in (arrival.found.spans if arrival.found else ()) for item in span.load()
        ]
        items += [item for arrival in group for item in arrival.log_objects]
        named = {(item.name, item.version): item for item in items}
        return only_new(self._lake, sorted(named.values(), key=lambda i: (i.delivered_at, i.name)), self._sizes)

    # -- beside ----------------------------------------------------------------------------------------------------

    def _maintain(self) -> None:
        """Take a short step of maintenance. Everything is stored, so nothing is raised."""
        if self._beside is None:
            return
        try:
            self._beside.step()
        except Exception as error:  # any: disk, catalog, Parquet, memory
            text = str(error) if isinstance(error, TrailsiftError) else f"{type(error).__name__}: {error}"
            self._hooks.trouble(f"everything was stored, but the lake could not be compacted: {text}")

    def _report(self, *, at_once: bool = False) -> None:
        moment = time.monotonic()
        if at_once or moment - self._reported >= REPORT_EVERY:
            self._reported = moment
            self.status.seconds = moment - self._started
            self.status.waiting = self._arrivals.waiting
            self._hooks.status(self.status)
