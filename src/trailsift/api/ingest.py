"""Bring logs into the lake: once, to see what it would take, and as they arrive."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.api.handle import Handle, rules_of
from trailsift.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from trailsift.api.handle import StrPath, Time
    from trailsift.ingest.counts import Counts, Progress
    from trailsift.ingest.survey import Survey
    from trailsift.ingest.watch import Committed, WatchStatus
    from trailsift.rules import Rules
    from trailsift.sources.base import Found, Wanted


class IngestMethods(Handle):
    """Methods that bring logs in."""

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
        chosen = None if rules is None else rules_of(rules)
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
            prices: Your own prices (TOML). Default: list prices, by region.
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
            rules=None if rules is None else rules_of(rules),
            workers=workers,
            compact=compact,
            hourly_partitions=hourly_partitions,
            group_readable=group_readable,
        )


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
