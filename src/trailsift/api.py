"""The library: one handle per lake, with a method for each command that works on a lake.

The command line and the dashboard call nothing else. Nothing heavy is imported at the top: a method imports what it
needs, so that a cold query pays for DuckDB only.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from trailsift.errors import EngineError, LakeError, QueryError, TrailsiftError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Literal, Self, TextIO, TypeAlias
    from zoneinfo import ZoneInfo

    from trailsift.analysis.estimate import Estimate
    from trailsift.analysis.export import Skipped
    from trailsift.analysis.rejects import RejectReport
    from trailsift.analysis.roles import RoleReport, RoleSummary
    from trailsift.analysis.status import Status
    from trailsift.analysis.suggest import Suggestions
    from trailsift.analysis.summary import Overview, Summary
    from trailsift.analysis.time_range import Period
    from trailsift.analysis.trail_coverage import Need, SelectionCost
    from trailsift.aws.selectors import SelectorRequest
    from trailsift.detect.describe import Language
    from trailsift.detect.detection_rules import Detection, Problem
    from trailsift.detect.finding import Finding
    from trailsift.detect.notify import Form
    from trailsift.detect.pipeline import DetectionResult, FindingDetail
    from trailsift.detect.rule_impact import Loss
    from trailsift.detect.triage import Verdict
    from trailsift.ingest.counts import Counts, Progress
    from trailsift.ingest.dry_run import DryRun
    from trailsift.ingest.survey import Survey
    from trailsift.ingest.watch import Committed, WatchStatus
    from trailsift.lake.compact import Compacted, CompactionProgress
    from trailsift.lake.expire_days import Expired
    from trailsift.lake.glue import Target
    from trailsift.lake.register import Registered
    from trailsift.lake.relocate import Relocated
    from trailsift.lake.retention import Retention
    from trailsift.lake.verify import Verification
    from trailsift.query import DuckDBEngine, Explanation
    from trailsift.query.query_result import QueryResult
    from trailsift.rules import Rules
    from trailsift.sources.base import Found, Wanted

    StrPath: TypeAlias = str | os.PathLike[str]
    #: A time: a datetime (without a zone: in the lake's), ISO 8601 or relative text (``-7d``), or microseconds since
    #: 1970 (UTC), as results have them.
    Time: TypeAlias = datetime | str | int | None
    Group: TypeAlias = Literal["event", "caller", "role", "resource", "hour", "service", "account", "region", "error"]
    Level: TypeAlias = Literal["novel", "volume", "shapes", "peers", "learned", "detections"]

T = TypeVar("T")


class Lake:
    """A handle on a lake: cheap to create, no input or output before the first question.

    It keeps one DuckDB engine open and moves it to the newest commit for each question, so a notebook sees what another
    process ingests. It may be shared between threads. Close it, or use it in a ``with`` statement.

    Every method raises LakeError if there is no lake at ``path`` (`ingest` creates it) or if it cannot be read.

    Args:
        path: Folder of the lake, or ``s3://bucket/prefix`` of one in S3 (with the extra ``aws``).
        timezone: IANA name of the time zone in which times without an offset are read and times are shown.
        threads: Threads that queries may use. Default: one per core.
        memory_limit: Memory that queries may use, such as ``2GB``. Default: 60 % of the memory.
        spill_limit: Disk that queries may use for what does not fit into the memory, such as ``20GB``. Default: half of
            what is free.

    Raises:
        UsageError: There is no such time zone.

    Example:
        >>> import trailsift
        >>> with trailsift.Lake("my.lake", timezone="Asia/Seoul") as lake:
        ...     lake.query("SELECT count(*) FROM events").value()
        2000
    """

    def __init__(
        self,
        path: StrPath,
        *,
        timezone: str = "UTC",
        threads: int | None = None,
        memory_limit: str | None = None,
        spill_limit: str | None = None,
    ) -> None:
        #: The folder of the lake, or its URL in S3 (``s3://bucket/prefix``).
        self.path: Path | str = _place(path)
        self.timezone = timezone
        if timezone != "UTC":
            self._zone()  # a wrong name fails at once
        self._threads = threads
        self._memory_limit = memory_limit
        self._spill_limit = spill_limit
        self._engines: dict[str, DuckDBEngine] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show the folder, and the time zone unless it is UTC."""
        zone = "" if self.timezone == "UTC" else f", timezone={self.timezone!r}"
        return f"Lake({str(self.path)!r}{zone})"

    def __enter__(self) -> Self:
        """Return the handle."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the handle."""
        self.close()

    def close(self) -> None:
        """Free the engine; results that are still streaming end. A later question opens a new one."""
        with self._lock:
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()

    def period(self, since: Time = None, until: Time = None) -> Period:
        """Return the period between two times, as every method with ``since`` and ``until`` reads them.

        Args:
            since: The first moment, included. None: no limit.
            until: The first moment after the period. None: no limit.

        Raises:
            UsageError: A text is not a time, or the period is empty.

        Example:
            >>> lake.period("2026-03-02", "2026-03-03T09:30+09:00").as_dict()
            {'since': '2026-03-02T00:00:00Z', 'until': '2026-03-03T00:30:00Z', 'timezone': 'UTC'}
        """
        from datetime import UTC, datetime

        from trailsift.analysis.time_range import Period
        from trailsift.times import iso

        now = datetime.now(UTC)
        start, end = self._micros(since, now, "since"), self._micros(until, now, "until")
        if start is not None and end is not None and start >= end:
            raise UsageError(f"since {since} ({iso(start)}) is not before until {until} ({iso(end)})")
        return Period(start, end, self._zone())

    def _hours(self, since: Time, until: Time) -> Period:
        """Return a report's period, in full hours where retention has left summaries only."""
        from trailsift.analysis.base import in_full_hours

        period = self.period(since, until)
        return in_full_hours(self._engine().snapshot, period)

    def _zone(self) -> ZoneInfo:
        from trailsift.analysis.time_range import zone_of

        return zone_of(self.timezone)

    def _micros(self, value: Time, now: datetime, name: str) -> int | None:
        if value is None or isinstance(value, int):
            return value
        if isinstance(value, str):
            from trailsift.analysis.time_range import parse

            return parse(value, self._zone(), now, name)
        from trailsift.times import micros

        return micros(value if value.tzinfo else value.replace(tzinfo=self._zone()))

    def _root(self, use: Literal["read", "write"] = "read") -> Path:
        """Return the folder of the lake: of one in S3, that of its copy here."""
        if isinstance(self.path, Path):
            return self.path
        from trailsift.lake.mirror import open_mirror

        mirror = open_mirror(self.path, use)
        if use == "write":
            mirror.open()
        return mirror.root

    def _engine(self, timezone: str = "UTC") -> DuckDBEngine:
        """Return the engine of a time zone at the newest commit: UTC for reports, the lake's zone for a user's SQL."""
        with self._lock:
            engine = self._engines.get(timezone)
            if engine is not None:
                engine.refresh()
                return engine
            from trailsift.lake.open import open_snapshot

            snapshot = open_snapshot(self._root())
            from trailsift.query import DuckDBEngine

            engine = DuckDBEngine(
                snapshot,
                timezone=timezone,
                threads=self._threads,
                memory_limit=self._memory_limit,
                spill_limit=self._spill_limit,
            )
            self._engines[timezone] = engine
            return engine

    # -- bring logs in ---------------------------------------------------------------------------------------------

    def ingest(
        self,
        *inputs: StrPath,
        workers: int | None = None,
        since: Time = None,
        until: Time = None,
        accounts: Iterable[str] = (),
        regions: Iterable[str] = (),
        again: bool = False,
        requester_pays: bool = False,
        rules: Rules | StrPath | None = None,
        compact: bool = True,
        hourly_partitions: bool | None = None,
        group_readable: bool = False,
        progress: Callable[[Progress], None] | None = None,
        announce: Callable[[Survey], None] | None = None,
    ) -> Counts:
        """Store logs, each event once. The lake is created if it is missing.

        Args:
            inputs: Files, folders, globs and archives; ``-`` is standard input; or ``s3://bucket/prefix``.
            workers: Worker processes. Default: one per core, none for small inputs.
            since: Only log objects delivered at or after this time.
            until: Only log objects delivered before this time.
            accounts: Only log objects of these accounts, by their names or folders. Default: all.
            regions: Only log objects of these regions. Default: all.
            again: Also read log objects that were ingested before; of S3, list whole folders.
            requester_pays: Pay for the requests to a bucket of S3 that is somebody else's.
            rules: Which new events to store, to sample and to drop: rules, a rules file or the name of a preset.
                Summaries count every event all the same.
            compact: Tidy up afterwards, for some seconds, if many small files ask for it.
            hourly_partitions: Partition a new lake by hour instead of by day; an existing lake must match.
            group_readable: Let the group of a new lake's folder read it. Default: only the user, whatever the umask.
            progress: Called with how far the ingest is.
            announce: Called with what was found in S3, before anything is read.

        Returns:
            Counts that add up: records = stored + duplicates + dropped + malformed.

        Raises:
            SourceError: An input does not exist or holds no CloudTrail records.
            S3Error: S3 refuses or fails.
            LakeError: The lake cannot be written.
            RulesError: The rules file cannot be used.

        Example:
            >>> counts = lake.ingest("logs/AWSLogs")  # a second time: nothing is stored twice
            >>> counts.stored, counts.complete
            (0, True)
        """
        places = _places(inputs)
        if workers is not None and workers < 1:
            raise UsageError(f"{workers} workers cannot ingest: use 1 or more")
        wanted = _wanted(*self._moments(since, until), list(accounts), list(regions), again)
        chosen = None if rules is None else _rules(rules)
        from trailsift.ingest import ingest
        from trailsift.ingest.survey import survey_of
        from trailsift.prices import load_prices

        def found(what: Found) -> None:
            if announce is not None:
                announce(survey_of(what, ", ".join(places), load_prices(), workers))

        return ingest(
            places,
            self._root("write"),
            workers=workers,
            wanted=wanted,
            requester_pays=requester_pays,
            rules=chosen,
            compact=compact,
            hourly_partitions=hourly_partitions,
            group_readable=group_readable,
            progress=progress,
            announce=found,
        )

    def survey(
        self,
        *inputs: StrPath,
        since: Time = None,
        until: Time = None,
        accounts: Iterable[str] = (),
        regions: Iterable[str] = (),
        again: bool = False,
        requester_pays: bool = False,
        prices: StrPath | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Survey:
        """Return what `ingest` would read: objects, bytes, days, expected time, cost of requests. Nothing is written.

        The lake need not exist.

        Args:
            inputs: As for `ingest`.
            since: Only log objects delivered at or after this time.
            until: Only log objects delivered before this time.
            accounts: Only log objects of these accounts, by their names or folders. Default: all.
            regions: Only log objects of these regions. Default: all.
            again: Count log objects that were ingested before, too.
            requester_pays: Pay for the requests to a bucket of S3 that is somebody else's.
            prices: Your own prices (TOML). Default: list prices of us-east-1.
            progress: Called with how far the search is.

        Raises:
            SourceError: An input does not exist, or holds no log object.
            S3Error: S3 refuses or fails.

        Example:
            >>> survey = lake.survey("logs/AWSLogs", again=True)
            >>> survey.log_objects > 0, survey.log_objects_known
            (True, 0)
        """
        places = _places(inputs)
        first, end = self._moments(since, until)
        from trailsift.ingest.pipeline import survey
        from trailsift.ingest.survey import survey_of
        from trailsift.prices import load_prices

        wanted = _wanted(first, end, list(accounts), list(regions), again)
        known_prices = load_prices(None if prices is None else Path(prices))
        found = survey(places, self._root("write"), wanted, requester_pays=requester_pays, progress=progress)
        return survey_of(found, ", ".join(places), known_prices)

    def watch(
        self,
        place: StrPath,
        *,
        every: float = 1.0,
        poll: float = 60.0,
        since: Time = None,
        accounts: Iterable[str] = (),
        regions: Iterable[str] = (),
        buckets: Iterable[str] = (),
        max_receives: int = 5,
        requester_pays: bool = False,
        rules: Rules | StrPath | None = None,
        workers: int | None = None,
        compact: bool = True,
        hourly_partitions: bool | None = None,
        group_readable: bool = False,
        once: bool = False,
        seconds: float | None = None,
        stop: threading.Event | None = None,
        on_start: Callable[[str], None] | None = None,
        on_commit: Callable[[Committed], None] | None = None,
        on_status: Callable[[WatchStatus], None] | None = None,
        on_trouble: Callable[[str], None] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> WatchStatus:
        """Store logs as they arrive, each event once, until it is stopped. The lake is created if it is missing.

        What arrived while no watch was running is stored first. Several watches may share a lake and a queue.

        Args:
            place: A folder; ``s3://bucket/prefix``; or the URL or the ARN of an SQS queue that gets the bucket's
                notifications, from S3 itself, through SNS, or through EventBridge.
            every: Seconds for which arrivals are gathered for one commit; longer where commits take long.
            poll: Seconds between two searches of a prefix of S3.
            since: Of a prefix of S3, only log objects delivered at or after this time.
            accounts: Of a prefix of S3, only log objects of these accounts. Default: all.
            regions: Of a prefix of S3, only log objects of these regions. Default: all.
            buckets: The only buckets that messages of a queue may name. Default: those that the queue's policy names.
            max_receives: Receives after which a message that fails is written to `rejects` and deleted, if the queue
                has no redrive policy of its own.
            requester_pays: Pay for the requests to a bucket of S3 that is somebody else's.
            rules: Which new events to store, to sample and to drop, as for `ingest`.
            workers: Worker processes. Default: one per core for large groups, none for small ones.
            compact: Merge small files beside the watch, in a process of its own.
            hourly_partitions: Partition a new lake by hour instead of by day; an existing lake must match.
            group_readable: Let the group of a new lake's folder read it. Default: only the user, whatever the umask.
            once: Stop when all that is there is stored.
            seconds: Stop after this time.
            stop: Set it from another thread to stop: the commit at work is finished.
            on_start: Called with what is watched, in words, and what that costs.
            on_commit: Called after each commit.
            on_status: Called with the totals so far, about once per second.
            on_trouble: Called with what goes wrong and does not end the watch.
            progress: Called with how far a group is.

        Returns:
            The totals.

        Raises:
            SourceError: The folder does not exist, or the queue holds other messages.
            S3Error: S3 refuses or fails at the start.
            TrailsiftError: The queue cannot be used.
            UsageError: A package is missing; the message says which extra to install.
            LakeError: The lake cannot be made.

        Example:
            >>> status = lake.watch("logs/AWSLogs", once=True)  # nothing is stored twice
            >>> status.stored
            0
        """
        if every < 0 or poll < 1 or max_receives < 1 or (workers is not None and workers < 1):
            raise UsageError(
                "every must be 0 s or more, poll 1 s or more, and max_receives and workers must be 1 or more"
            )
        from trailsift.ingest.watch import Hooks, Pace
        from trailsift.ingest.watching import watch
        from trailsift.sources import WatchOptions

        wanted = _wanted(*self._moments(since, None), list(accounts), list(regions), False)
        options = WatchOptions(poll, tuple(buckets), max_receives, requester_pays=requester_pays, wanted=wanted)
        hooks = Hooks(
            committed=on_commit or (lambda committed: None),
            status=on_status or (lambda status: None),
            trouble=on_trouble or (lambda text: None),
            started=on_start or (lambda text: None),
            progress=progress,
        )
        return watch(
            os.fspath(place),
            self._root("write"),
            options,
            hooks,
            Pace(every, seconds, once),
            stop or threading.Event(),
            rules=None if rules is None else _rules(rules),
            workers=workers,
            compact=compact,
            hourly_partitions=hourly_partitions,
            group_readable=group_readable,
        )

    def _moments(self, since: Time, until: Time) -> tuple[datetime | None, datetime | None]:
        """Return both ends of a period as aware datetimes."""
        from trailsift.times import moment

        period = self.period(since, until)
        first, end = (None if limit is None else moment(limit) for limit in (period.since, period.until))
        return first, end

    # -- query and report ------------------------------------------------------------------------------------------

    def query(
        self,
        sql: str,
        *,
        cache: bool = True,
        ttl: float | None = None,
        timeout: float | None = None,
        arrow: bool = False,
    ) -> QueryResult:
        """Run one read-only SQL statement over the tables of the lake.

        Args:
            sql: A statement over events, hourly, usage, profile, access, sessions and rejects.
            cache: Use the cached result of the same statement on the same commit.
            ttl: Seconds for which the result of a statement that uses the present time may come from the cache.
            timeout: Seconds after which the statement is stopped, planning and reading the result included. A single
                function over one huge text cannot be interrupted: then this method raises all the same, and the
                function ends in the background. `trailsift query --timeout` ends its process instead.
            arrow: The result will be read as Arrow, pandas or Polars (saves running the statement twice).

        Returns:
            The result; a large one streams.

        Raises:
            QueryError: The SQL cannot run; the message names the position and the nearest known name.
            QueryTimeoutError: The statement took longer than ``timeout``.
            QueryMemoryError: The statement needs more memory or disk than it may use.

        Example:
            >>> lake.query("SELECT count(*) AS events FROM events").dicts()
            [{'events': 2000}]
        """
        engine = self._engine(self.timezone)
        from trailsift.query.query_result import QueryResult

        return QueryResult(engine.query(sql, cache=cache, ttl=ttl, timeout=timeout, arrow=arrow), engine)

    def explain(self, sql: str, *, timeout: float | None = None) -> Explanation:
        """Return which files a statement would read, without running it. Print it to read it.

        Args:
            sql: The statement.
            timeout: Seconds after which planning is stopped: it computes the statement's constants.

        Raises:
            QueryError: The SQL cannot run.
            QueryTimeoutError: Planning took longer than ``timeout``.

        Example:
            >>> "files" in str(lake.explain("SELECT * FROM events WHERE service = 's3'"))
            True
        """
        from trailsift.query import explain

        return explain(self._engine(self.timezone), sql, timeout=timeout)

    @overload
    def summary(
        self, by: None = None, *, since: Time = None, until: Time = None, limit: int | None = None
    ) -> Overview: ...

    @overload
    def summary(self, by: Group, *, since: Time = None, until: Time = None, limit: int | None = None) -> Summary: ...

    def summary(
        self, by: Group | None = None, *, since: Time = None, until: Time = None, limit: int | None = None
    ) -> Overview | Summary:
        """Return exact numbers, whatever was dropped or sampled: an overview, or the totals of one kind of group.

        Args:
            by: event, caller (or role, which is the same), resource, hour, service, account, region or error. None: an
                overview.
            since: Start of the period.
            until: End of the period, not included.
            limit: Groups at most, the largest ones; 0 is all. Default: 8 in each list of an overview, else all.

        Returns:
            An Overview or a Summary; ``total`` is None if the period holds no events.

        Raises:
            UsageError: An unknown group, an invalid time or a negative limit.

        Example:
            >>> summary = lake.summary("service")
            >>> summary.total.events == sum(line.measures.events for line in summary.lines) == 2000
            True
        """
        from trailsift.analysis import summary

        period = self._hours(since, until)
        if by is None:
            return summary.overview(self._engine(), period, 8 if limit is None else limit)
        return summary.summary(self._engine(), by, period, limit or 0)

    def roles(self, *, since: Time = None, until: Time = None) -> list[RoleSummary]:
        """Return all callers with their totals, the busiest first: roles, users, services, other accounts.

        Args:
            since: Start of the period.
            until: End of the period, not included.

        Raises:
            UsageError: An invalid time.

        Example:
            >>> roles = lake.roles()
            >>> sum(role.events for role in roles)
            2000
        """
        from trailsift.analysis.roles import roles

        period = self._hours(since, until)
        return roles(self._engine(), period)

    def role(self, name: str, *, since: Time = None, until: Time = None) -> RoleReport:
        """Return one caller's actions, resources, key patterns, hours, origins and denied calls.

        Args:
            name: An ARN, a role's name, the ``caller`` of somebody without an ARN, or a part that no other has.
            since: Start of the period.
            until: End of the period, not included.

        Raises:
            UsageError: No caller or several match the name, or a time is invalid.

        Example:
            >>> lake.role("orders-etl-batch").role_arn
            'arn:aws:iam::400011112201:role/orders-etl-batch'
        """
        from trailsift.analysis.roles import role

        period = self._hours(since, until)
        return role(self._engine(), name, period)

    def why_empty(self, *, since: Time = None, until: Time = None) -> str:
        """Return why a report on a period has no lines: an empty lake, or events of other times only.

        Args:
            since: Start of the period.
            until: End of the period, not included.

        Example:
            >>> lake.why_empty(since="2030-01-01").startswith("nothing from 2030-01-01")
            True
        """
        from trailsift.analysis.base import why_nothing

        period = self.period(since, until)
        return why_nothing(self._engine().snapshot, period)

    # -- detect ----------------------------------------------------------------------------------------------------

    def detect(
        self,
        *,
        since: Time = None,
        until: Time = None,
        budget: int = 10,
        levels: Iterable[Level] | None = None,
        threshold: int | None = None,
        detections: StrPath | None = None,
        muted: bool = False,
        full_refresh: bool = False,
        language: Language = "en",
        clean: Callable[[str], str] = str,
    ) -> DetectionResult:
        """Detect unusual activity: first-time behaviour, volume far above the baseline, odd hours, known attacks.

        Baselines are learned from the whole lake, whatever the period. What was computed is kept in the lake, so that
        the next run reads only what changed.

        Args:
            since: Only findings that end at or after this time.
            until: Only findings that begin before this time.
            budget: Findings per day at most; 0 is all.
            levels: novel, volume, shapes, peers, learned, detections. Default: all.
            threshold: Instead of everything else: hours with more than this many events of one name.
            detections: A folder of your own detections (TOML), beside those that come with trailsift.
            muted: Also return muted findings.
            full_refresh: Read the whole lake, whatever earlier runs have kept.
            language: Language of the sentences, ``en`` or ``ko``.
            clean: Applied to every string taken from a log before it becomes part of a sentence.

        Returns:
            The findings in rank order, and the problems of detections that could not run.

        Raises:
            UsageError: An invalid time or threshold, or a folder without detections.

        Example:
            >>> result = lake.detect(since="2026-03-02")
            >>> len(result.findings) > 0, result.problems
            (True, ())
        """
        from trailsift.detect import pipeline

        chosen = frozenset[str](levels) if levels else pipeline.ALL_LEVELS
        options = pipeline.DetectOptions(
            self.period(since, until),
            budget,
            language=language,
            muted=muted,
            afresh=full_refresh,
            clean=clean,
            levels=chosen,
        )
        if threshold is not None:
            return pipeline.DetectionResult(pipeline.over_threshold(self._engine(), threshold, options), (), 0)
        rules, problems = _detections(detections)
        result = pipeline.detect(self._engine(), options, rules)
        return pipeline.DetectionResult(result.findings, (*problems, *result.problems), result.days)

    def findings(
        self,
        *,
        since: Time = None,
        until: Time = None,
        budget: int = 10,
        levels: Iterable[Level] | None = None,
        muted: bool = False,
        language: Language = "en",
    ) -> list[Finding]:
        """Return the findings of the lake in rank order; `detect` has more options.

        Args:
            since: Only findings that end at or after this time.
            until: Only findings that begin before this time.
            budget: Findings per day at most; 0 is all.
            levels: novel, volume, shapes, peers, learned, detections. Default: all.
            muted: Also return muted findings.
            language: Language of the sentences, ``en`` or ``ko``.

        Raises:
            UsageError: An invalid time.

        Example:
            >>> first = lake.findings()[0]
            >>> first.severity in ("high", "medium", "low") and bool(first.title)
            True
        """
        result = self.detect(since=since, until=until, budget=budget, levels=levels, muted=muted, language=language)
        return result.findings

    def find(
        self,
        name: str,
        *,
        detections: StrPath | None = None,
        language: Language = "en",
        clean: Callable[[str], str] = str,
    ) -> Finding:
        """Return a finding without its events.

        Args:
            name: Its id, a unique prefix of it, or its rank in the list (from 1).
            detections: A folder of your own detections, as for `detect`.
            language: Language of the sentences, ``en`` or ``ko``.
            clean: Applied to every string taken from a log.

        Raises:
            UsageError: No finding or several findings match.

        Example:
            >>> finding = lake.find("1")
            >>> lake.find(finding.id[:6]).id == finding.id
            True
        """
        from trailsift.detect import pipeline

        options = pipeline.DetectOptions(self.period(), language=language, clean=clean)
        return pipeline.find(self._engine(), name, options, _detections(detections)[0])

    def finding(
        self,
        name: str | Finding,
        *,
        limit: int = 10,
        detections: StrPath | None = None,
        language: Language = "en",
        clean: Callable[[str], str] = str,
    ) -> FindingDetail:
        """Return a finding with its rows of the hourly summary and its events.

        Args:
            name: Its id, a unique prefix of it, its rank in the list (from 1), or the finding itself.
            limit: Events at most, the first ones; 0 is all.
            detections: A folder of your own detections, as for `detect`.
            language: Language of the sentences, ``en`` or ``ko``.
            clean: Applied to every string taken from a log.

        Raises:
            UsageError: No finding or several findings match.

        Example:
            >>> detail = lake.finding("1", limit=3)
            >>> detail.finding.reasons != () and len(detail.events) <= 3
            True
        """
        from trailsift.detect.pipeline import drill

        finding = (
            self.find(name, detections=detections, language=language, clean=clean) if isinstance(name, str) else name
        )
        return drill(self._engine(), finding, limit)

    def mute(self, name: str | Finding, reason: str) -> Verdict:
        """Mark a finding as benign: it and similar findings are hidden until they grow by 50 %.

        Args:
            name: Its id, a unique prefix of it, its rank in the list, or the finding itself.
            reason: Why; kept in the lake.

        Raises:
            UsageError: No finding or several findings match, or the reason is empty.

        Example:
            >>> finding = lake.find("1")
            >>> lake.mute(finding, "the yearly audit").word
            'mute'
            >>> finding.id in [finding.id for finding in lake.findings()]
            False
        """
        return self._mark(name, "mute", reason)

    def confirm(self, name: str | Finding, reason: str) -> Verdict:
        """Mark a finding as a real incident; it stays in the list.

        Args:
            name: Its id, a unique prefix of it, its rank in the list, or the finding itself.
            reason: Why; kept in the lake.

        Raises:
            UsageError: No finding or several findings match, or the reason is empty.

        Example:
            >>> lake.confirm("1", "keys were stolen").word
            'confirm'
        """
        return self._mark(name, "confirm", reason)

    def _mark(self, name: str | Finding, word: Literal["mute", "confirm"], reason: str) -> Verdict:
        from trailsift.detect.triage import mark

        finding = self.find(name) if isinstance(name, str) else name
        return mark(self._root(), finding, word, reason)

    def unreported(self, findings: Sequence[Finding], destination: str = "new") -> list[Finding]:
        """Return the findings that were not reported to a destination yet, or have grown by 50 % since.

        Args:
            findings: Findings of this lake.
            destination: Any name: each has its own list of what was reported. `trailsift detect --new` uses ``new``,
                `--follow` ``follow``, and `trailsift ingest --detect` ``ingest``.

        Example:
            >>> findings = lake.findings()
            >>> lake.mark_reported(findings)
            >>> lake.unreported(findings)
            []
        """
        from trailsift.detect.notify import news

        return news(self._root(), findings, destination)

    def mark_reported(self, findings: Sequence[Finding], destination: str = "new") -> None:
        """Record in the lake that findings were reported to a destination.

        Args:
            findings: Findings of this lake.
            destination: The same name as for `unreported`.
        """
        from trailsift.detect.notify import remember

        remember(self._root(), findings, destination)

    def notify(self, findings: Sequence[Finding], url: str, form: Form = "json") -> tuple[int, list[str]]:
        """Post findings to a webhook that were not posted to it yet, and record each that it accepted.

        Redirects are not followed, and only an answer of 200 to 299 counts as accepted.

        Args:
            findings: Findings of this lake.
            url: The webhook, http or https.
            form: ``json`` or ``slack``.

        Returns:
            How many were delivered, and what went wrong with the others.

        Raises:
            UsageError: The URL is not valid.
        """
        from trailsift.detect.notify import alert

        return alert(self._root(), findings, url, form)

    def follow(
        self,
        run: Callable[[Lake], T],
        *,
        interval: float = 10,
        on_error: Callable[[TrailsiftError], None] = lambda error: None,
    ) -> Iterator[T]:
        """Call a function now and after each commit, without end.

        Args:
            run: Called with a handle at the new commit.
            interval: Seconds between two checks for a commit.
            on_error: Called if the lake cannot be read for a while; then it is tried again.

        Yields:
            What ``run`` returns.

        Raises:
            UsageError: The interval is not positive.

        Example:
            >>> next(lake.follow(lambda lake: lake.status().events.rows))
            2000
        """
        if interval <= 0:
            raise UsageError(f"the interval of {interval:g} s is not valid: use more than 0 seconds")
        from trailsift.detect.follow import follow

        return follow(self._root(), lambda engine: run(self._bound(engine)), interval, trouble=on_error)

    def _bound(self, engine: DuckDBEngine) -> Lake:
        """Return a handle that uses an engine of the caller."""
        lake = Lake(
            self.path,
            timezone=self.timezone,
            threads=self._threads,
            memory_limit=self._memory_limit,
            spill_limit=self._spill_limit,
        )
        lake._engines[engine.timezone] = engine
        return lake

    # -- filter and sample -----------------------------------------------------------------------------------------

    def estimate(
        self,
        by: Sequence[str] = (),
        *,
        where: str | None = None,
        since: Time = None,
        until: Time = None,
        limit: int = 0,
    ) -> Estimate:
        """Estimate events and bytes of a sampled lake with 95 % confidence intervals.

        Values from a summary table are exact and marked so.

        Args:
            by: Columns of events to group by; also ``hour`` and ``date``.
            where: An SQL condition on the columns of events.
            since: Start of the period.
            until: End of the period, not included.
            limit: Groups at most, the largest ones; 0 is all.

        Raises:
            QueryError: The condition cannot run.
            UsageError: An unknown column or an invalid time.

        Example:
            >>> estimate = lake.estimate(["service"])
            >>> estimate.exact, sum(group.events.estimate for group in estimate.groups)
            (True, 2000)
        """
        from trailsift.analysis.estimate import estimate

        period = self.period(since, until)
        return estimate(self._engine(), by, where, period, limit)

    def suggest(self, limit: int = 10, *, prices: StrPath | None = None) -> Suggestions:
        """Suggest rules for large, steady volume.

        Args:
            limit: Suggestions at most; 0 is all.
            prices: Your own prices (TOML). Default: list prices of us-east-1.

        Raises:
            UsageError: A negative limit, or prices that cannot be read.

        Example:
            >>> suggestions = lake.suggest(3)
            >>> len(suggestions.lines) <= 3, suggestions.toml.startswith("[[rule]]")
            (True, True)
        """
        from trailsift.analysis.suggest import suggest
        from trailsift.prices import load_prices

        return suggest(self._engine(), load_prices(None if prices is None else Path(prices)), limit)

    def try_rules(self, rules: Rules | StrPath, *, prices: StrPath | None = None) -> DryRun:
        """Apply rules to the stored events without changing anything: what they would keep, sample and drop.

        Args:
            rules: Rules, a rules file, or the name of a preset.
            prices: Your own prices (TOML). Default: list prices of us-east-1.

        Raises:
            RulesError: The rules file cannot be used.
            SourceError: The lake holds no events.

        Example:
            >>> lake.try_rules("important-events").events
            2000
        """
        chosen = _rules(rules)
        from trailsift.ingest.dry_run import dry_run
        from trailsift.prices import load_prices

        return dry_run(chosen, load_prices(None if prices is None else Path(prices)), (), self._root())

    def rule_impact(self, rules: Rules | StrPath) -> list[Loss]:
        """Return what becomes of each finding under rules, the worst first. Nothing is changed.

        Args:
            rules: Rules, a rules file, or the name of a preset.

        Raises:
            RulesError: The rules file cannot be used.

        Example:
            >>> {loss.fate for loss in lake.rule_impact("important-events")} <= {
            ...     "lost", "without events", "weaker", "with fewer events", "as before"
            ... }
            True
        """
        chosen = _rules(rules)
        from trailsift.detect.detection_rules import builtin_rules
        from trailsift.detect.rule_impact import losses
        from trailsift.ingest.what_if import filtered_lake
        from trailsift.lake.open import open_snapshot
        from trailsift.query import DuckDBEngine

        with filtered_lake(self._root(), chosen) as folder, DuckDBEngine(open_snapshot(folder)) as sampled:
            return losses(self._engine(), sampled, builtin_rules()[0])

    def data_event_candidates(self, *, since: Time = None, until: Time = None) -> list[Need]:
        """Return the callers whose management events call for data events, the strongest first, with the reasons.

        Args:
            since: Start of the period.
            until: End of the period, not included.

        Raises:
            UsageError: An invalid time.

        Example:
            >>> lake.data_event_candidates()[0].reasons[0]
            'uses keys (25 calls): reads or writes encrypted data without data events'
        """
        from trailsift.analysis.trail_coverage import needs

        period = self._hours(since, until)
        return needs(self._engine(), period)

    def has_data_events(self) -> bool:
        """Return whether the lake has seen any data event, whatever rules left of them.

        Example:
            >>> lake.has_data_events()
            True
        """
        from trailsift.analysis.trail_coverage import has_data_events

        return has_data_events(self._engine())

    def selector_cost(self, request: SelectorRequest) -> SelectionCost:
        """Estimate what event selectors cost per month at the rates of this lake.

        Args:
            request: The roles, services and buckets that the selectors ask for.
        """
        from trailsift.analysis.trail_coverage import cost

        return cost(self._engine(), self.period(), request)

    # -- maintain --------------------------------------------------------------------------------------------------

    def status(self, *, gaps: bool = True) -> Status:
        """Return what the lake holds, how far it is behind, and what to do about it.

        That is: time range, tables, commits, whether the counts reconcile, the newest delivery, hours that are missing,
        the last compaction, and what retention removes next.

        Args:
            gaps: Look for hours in which an account and region that normally delivers did not, which takes a query.

        Example:
            >>> status = lake.status()
            >>> status.events.rows, status.reconciled
            (2000, True)
        """
        from dataclasses import replace

        from trailsift.analysis import feed
        from trailsift.analysis.status import status

        state = status(self._root())
        try:
            return replace(state, gaps=feed.gaps(self._engine())) if gaps else state
        except (EngineError, LakeError, QueryError):
            # A summary file is damaged or missing: all else is known, and `verify` names the file.
            return state

    def rejects(self, limit: int = 0, *, reason: str = "") -> RejectReport:
        """Return what could not be stored, where it is, and why.

        Args:
            limit: Records at most, the newest ones; 0 is all.
            reason: Only reasons that contain this text, such as ``conflicting-time``.

        Example:
            >>> lake.rejects().total
            0
        """
        from trailsift.analysis.rejects import rejects

        return rejects(self._engine(), limit, reason)

    def records(
        self, where: str | None = None, *, on_skipped: Callable[[Skipped], None] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Return the stored records as CloudTrail wrote them, one after the other.

        Args:
            where: An SQL condition on the columns of events.
            on_skipped: Called with each event that cannot be restored, and is left out.

        Raises:
            QueryError: The condition cannot run.

        Example:
            >>> next(lake.records("event_name = 'PutObject'"))["eventName"]
            'PutObject'
        """
        from trailsift.analysis.export import records

        return records(self._engine(), where, on_skipped)

    def export(
        self,
        target: StrPath | TextIO,
        *,
        where: str | None = None,
        form: Literal["ndjson", "records"] = "ndjson",
        on_skipped: Callable[[Skipped], None] | None = None,
    ) -> int:
        """Write the stored records as CloudTrail wrote them.

        Args:
            target: A file, which appears only when it is complete, or a text stream.
            where: An SQL condition on the columns of events.
            form: ``ndjson``: one record per line; ``records``: one document as in a log file.
            on_skipped: Called with each event that cannot be restored, and is left out.

        Returns:
            The number of records.

        Raises:
            QueryError: The condition cannot run.

        Example:
            >>> lake.export("everything.ndjson")
            2000
        """
        from trailsift.analysis.export import export
        from trailsift.storage.output_file import new_file

        engine = self._engine()
        if isinstance(target, str | os.PathLike):
            with new_file(Path(target), "w", encoding="utf-8", newline="\n") as out:
                return export(engine, out, where, form, on_skipped)
        return export(engine, target, where, form, on_skipped)

    def omitted_columns(self) -> tuple[str, ...]:
        """Return the columns that rules have left empty in some events: their export is not lossless.

        Example:
            >>> lake.omitted_columns()
            ()
        """
        from trailsift.analysis.status import omitted

        return omitted(self._engine().snapshot.root)

    def compact(
        self, *, everything: bool = False, progress: Callable[[CompactionProgress], None] | None = None
    ) -> Compacted:
        """Merge small files of closed days into few large ones, and delete files that are no longer needed.

        Answers stay the same. Replaced files are deleted by the next run, ten minutes later at the earliest. A lake of
        format version 1 is upgraded first. If the lake's settings say for how long it keeps events (`set_retention`),
        older ones are removed.

        Args:
            everything: Also compact days that still receive events.
            progress: Called with how far the compaction is.

        Raises:
            LakeError: The lake cannot be written.

        Example:
            >>> compacted = lake.compact(everything=True)
            >>> compacted.files_after <= compacted.files_before
            True
        """
        from trailsift.lake.compact import compact
        from trailsift.lake.upgrade import needs_upgrade

        upgraded = None
        if needs_upgrade(self._root("write")):
            from trailsift.ingest.upgrade import upgrade

            upgraded = upgrade(self._root("write"), progress)
        compacted = compact(self._root("write"), everything=everything, progress=progress)
        compacted.upgraded = upgraded
        return compacted

    def expire(
        self,
        *,
        events: str | None = None,
        summaries: str | None = None,
        at_least: str | None = None,
        dry_run: bool = False,
    ) -> Expired:
        """Remove events, and their counts, that are older than you want to keep them, in whole days (UTC).

        All of it is one commit. The files are deleted by the next `expire` or `compact` that runs a day later.

        Args:
            events: Keep events for this long: ``90d``, ``26w``, ``2y``. Default: what the lake's settings say.
            summaries: Keep the summary tables for this long. Default: without limit, or as the settings say if
                ``events`` is not given.
            at_least: Never remove what is younger. Default: ``30d``.
            dry_run: Only return what would go.

        Raises:
            UsageError: A period is not valid or below the floor, or nothing says what to keep.
            LakeError: The lake cannot be written.

        Example:
            >>> lake.expire(events="100y", dry_run=True).rows
            0
        """
        from trailsift.lake.expire_days import expire_days
        from trailsift.lake.retention import asked

        given = events is not None or summaries is not None or at_least is not None
        return expire_days(self._root("write"), asked(events, summaries, at_least) if given else None, dry_run=dry_run)

    def retention(self) -> Retention | None:
        """Return what the lake's settings keep, which `compact` applies; None if they say nothing.

        Raises:
            LakeError: The settings are not valid.

        Example:
            >>> lake.retention() is None
            True
        """
        from trailsift.lake.retention import saved
        from trailsift.lake.settings import read_settings

        return saved(read_settings(self._root("write")))

    def set_retention(
        self, events: str | None, summaries: str | None = None, *, at_least: str | None = None
    ) -> Retention | None:
        """Keep retention as a setting of the lake. Nothing is removed now: `compact`, and ingests, do it from now on.

        Args:
            events: Keep events for this long, at least ``30d``; None takes the setting out.
            summaries: Keep the summary tables for this long. None: without limit.
            at_least: Never remove what is younger. Default: ``30d``.

        Raises:
            UsageError: A period is not valid or below the floor.
            LakeError: The lake cannot be written.

        Example:
            >>> lake.set_retention("10y").events
            3650
            >>> lake.set_retention(None) is None
            True
        """
        from trailsift.lake.expire_days import save
        from trailsift.lake.retention import asked

        return save(self._root("write"), None if events is None else asked(events, summaries, at_least))

    def verify(self, *, quick: bool = False) -> Verification:
        """Look for damage: changed or missing files, changed rows of the catalog, and what trailsift does not write.

        Nothing is written. It finds what disks and mistakes do, not a skilled forger; queries do not look for damage.

        Args:
            quick: Compare the sizes of files, and not their content.

        Raises:
            LakeError: There is no lake.

        Example:
            >>> lake.verify().is_sound
            True
        """
        from trailsift.lake.verify import verify

        return verify(self._root(), quick=quick)

    def relocate(self) -> Relocated:
        """Repair the lake after it was moved or copied to its present folder. The original is not touched.

        Example:
            >>> lake.relocate().tables  # it was not moved
            0
        """
        from trailsift.lake.relocate import relocate

        self.close()
        return relocate(self._root("write"))

    def connect_script(self) -> str:
        """Return SQL that gives any DuckDB client the tables of the newest commit as views.

        Example:
            >>> "CREATE OR REPLACE VIEW events" in lake.connect_script()
            True
        """
        from trailsift.lake.open import open_snapshot
        from trailsift.query.connect import script

        return script(open_snapshot(self._root()))

    def connect_database(self, target: StrPath) -> None:
        """Write a DuckDB database that has the tables of the newest commit as views.

        Args:
            target: The database file; an existing one is replaced.

        Raises:
            EngineError: It cannot be written.

        Example:
            >>> lake.connect_database("lake.duckdb")
        """
        from trailsift.lake.open import open_snapshot
        from trailsift.query.connect import write_database

        write_database(Path(target), open_snapshot(self._root()))

    def register(
        self, database: str, *, region: str | None = None, catalog_id: str | None = None, replace: bool = False
    ) -> Registered:
        """Register the tables of a lake in S3 in a Glue database, for Athena, Spark and Trino, and keep that up.

        From now on each commit moves the tables' pointers in Glue. Only this makes tables there.

        Args:
            database: A Glue database that exists.
            region: Its region. Default: that of the environment.
            catalog_id: The account that it is in, if it is another one.
            replace: Also take back tables of this lake that another engine has changed.

        Raises:
            GlueError: There is no such database, it has tables of these names that are not of this lake, or Glue
                refuses.
            UsageError: The lake is in a folder, or a name cannot be one.

        Example:
            >>> lake.register("cloudtrail", region="eu-west-1")
            Traceback (most recent call last):
            trailsift.errors.UsageError: ...
        """
        from trailsift.lake.glue import target_of
        from trailsift.lake.register import check_place, register

        check_place(self.path)
        return register(self._root("write"), target_of(database, region, catalog_id), replace=replace)

    def unregister(self) -> Target | None:
        """Move no pointers in Glue any longer; return the database that followed the lake, None if none did.

        The tables stay in Glue as they are, and queries through them fail once the lake has replaced what they name.

        Raises:
            UsageError: The lake is in a folder.

        Example:
            >>> lake.unregister()
            Traceback (most recent call last):
            trailsift.errors.UsageError: ...
        """
        from trailsift.lake.register import check_place, unregister

        check_place(self.path)
        return unregister(self._root("write"))

    def registration(self) -> Target | None:
        """Return the Glue database that follows the lake; None if none does.

        Raises:
            LakeError: The setting is not valid.

        Example:
            >>> lake.registration() is None
            True
        """
        from trailsift.lake.register import registration

        return registration(self._root("write"))


def _place(path: StrPath) -> Path | str:
    """Return a lake's URL in S3 as a text, and any other place as a path."""
    text = os.fspath(path)
    return text[:5] + text[5:].rstrip("/") if text[:5].lower() == "s3://" else Path(text)


def _places(inputs: Sequence[StrPath]) -> list[str]:
    if not inputs:
        raise UsageError("nothing to ingest: name files or folders, `s3://bucket/prefix`, or `-` for standard input")
    return [os.fspath(path) for path in inputs]


def _wanted(
    since: datetime | None, until: datetime | None, accounts: Iterable[str], regions: Iterable[str], again: bool
) -> Wanted:
    """Return which log objects are asked for. UsageError if an account or a region cannot be one."""
    from trailsift.sources.base import Wanted
    from trailsift.sources.cloudtrail_layout import check_names

    check_names(accounts, regions)
    return Wanted(since, until, frozenset(accounts), frozenset(regions), again)


def _rules(rules: Rules | StrPath) -> Rules:
    from trailsift.rules import Rules
    from trailsift.rules.presets import open_rules

    return rules if isinstance(rules, Rules) else open_rules(os.fspath(rules))


def _detections(folder: StrPath | None) -> tuple[list[Detection], list[Problem]]:
    """Return the detections that come with trailsift and those of a folder, and the problems of their files."""
    from trailsift.detect import detection_rules

    rules, problems = detection_rules.builtin_rules()
    if folder is not None:
        own, wrong = detection_rules.load_rules(Path(folder))
        rules, problems = [*rules, *own], [*problems, *wrong]
    return rules, problems
