"""The command that stores what keeps arriving: watch."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from trailsift.cli.options import LakeOption, QuietOption, SinceOption, ZoneOption
from trailsift.cli.session import open_lake
from trailsift.errors import UsageError
from trailsift.terminal.output import say

if TYPE_CHECKING:
    from trailsift.ingest.watch import Committed, WatchStatus

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "": 1}


def watch_command(
    place: Annotated[
        str, Parameter(name="PLACE", help="A folder, `s3://bucket/prefix`, or the URL or ARN of an SQS queue.")
    ],
    /,
    *,
    lake: LakeOption,
    every: Annotated[
        float, Parameter(help="Seconds for which arrivals are gathered for one commit; more where commits take long.")
    ] = 1.0,
    poll: Annotated[float, Parameter(help="Of S3: seconds between two searches, which cost LIST requests.")] = 60.0,
    since: SinceOption = None,
    timezone: ZoneOption = "UTC",
    account: Annotated[list[str] | None, Parameter(help="Of S3: only log objects of this account. Repeatable.")] = None,
    region: Annotated[list[str] | None, Parameter(help="Of S3: only log objects of this region. Repeatable.")] = None,
    bucket: Annotated[
        list[str] | None,
        Parameter(help="Of a queue: read objects of this bucket only. Repeatable. Default: those of its policy."),
    ] = None,
    max_receives: Annotated[
        int,
        Parameter(
            help="Of a queue without a redrive policy: receives after which a message that fails is written to "
            "`rejects` and deleted."
        ),
    ] = 5,
    requester_pays: Annotated[
        bool,
        Parameter(show_default=False, help="Pay for the requests to somebody else's bucket, if its owner does not."),
    ] = False,
    rules: Annotated[
        str | None, Parameter(help="Rules file (TOML) or preset that says what to keep, sample and drop.")
    ] = None,
    workers: Annotated[
        int | None, Parameter(help="Worker processes. Default: one per core for large groups, else none.")
    ] = None,
    hourly_partitions: Annotated[
        bool, Parameter(show_default=False, help="Partition a new lake by hour instead of by day.")
    ] = False,
    group_readable: Annotated[
        bool, Parameter(show_default=False, help="Let the group of a new lake's folder read it. Default: only you.")
    ] = False,
    no_compact: Annotated[bool, Parameter(show_default=False, help="Do not merge small files meanwhile.")] = False,
    detect: Annotated[
        bool, Parameter(show_default=False, help="Also report new findings as they come, and post them.")
    ] = False,
    detect_every: Annotated[float, Parameter(help="With --detect: seconds between two looks.")] = 10.0,
    webhook: Annotated[
        str | None,
        Parameter(env_var="TRAILSIFT_WEBHOOK", help="With --detect: post findings that are new or grew to this URL."),
    ] = None,
    webhook_format: Annotated[
        Literal["json", "slack"],
        Parameter(env_var="TRAILSIFT_WEBHOOK_FORM", help="Format of what is posted."),
    ] = "json",
    once: Annotated[bool, Parameter(show_default=False, help="Stop when all that is there is stored.")] = False,
    for_: Annotated[
        str | None, Parameter(name="--for", help="Stop after this time: 90s, 10m, 2h. Default: run until stopped.")
    ] = None,
    as_json: Annotated[
        bool, Parameter(name="--json", show_default=False, help="Print one line of JSON per commit.")
    ] = False,
    quiet: QuietOption = False,
) -> int:
    """Store logs as they arrive, each event once, and compact the lake meanwhile. The lake is created if it is missing.

    What arrived while no watch was running is stored first. Stop it with Ctrl-C or SIGTERM: the commit at work is
    finished. Messages of a queue are deleted when their log objects are stored, and not before. Several watches may
    share a lake, and a queue. Watching a folder takes the extra `watch`, S3 and queues the extra `aws`.

    Exit code with `--once` or `--for`: 3 if some input was malformed or set aside.

    Examples: `trailsift watch logs --lake lake`, `trailsift watch s3://bucket/AWSLogs --lake lake --since -1d`,
    `trailsift watch https://sqs.eu-west-1.amazonaws.com/111122223333/logs --lake lake --detect`
    """
    from trailsift.runtime import spare_memory
    from trailsift.terminal.watch import WatchScreen, show_watched

    limit = None if for_ is None else _seconds(for_)
    handle = open_lake(lake, timezone)
    spare_memory()
    stop = threading.Event()
    with WatchScreen(str(lake), quiet=quiet, as_json=as_json) as screen, _stopping(stop) as asked:
        finder = None
        if detect:
            from trailsift.cli.findings_beside import FindingsBeside

            finder = FindingsBeside(handle, detect_every, webhook, webhook_format, screen)

        def committed(done: Committed) -> None:
            screen.committed(done)
            if finder is not None:
                finder.note_commit()

        try:
            status: WatchStatus = handle.watch(
                place,
                every=every,
                poll=poll,
                since=since,
                accounts=account or (),
                regions=region or (),
                buckets=bucket or (),
                max_receives=max_receives,
                requester_pays=requester_pays,
                rules=rules,
                workers=workers,
                compact=not no_compact,
                hourly_partitions=hourly_partitions or None,
                group_readable=group_readable,
                once=once,
                seconds=limit,
                stop=stop,
                on_start=screen.started,
                on_commit=committed,
                on_status=screen.status,
                on_trouble=screen.trouble,
            )
        finally:
            if finder is not None:
                finder.close(finish=not asked)
    show_watched(status, lake, as_json)
    return 3 if (once or limit is not None) and not status.complete else 0


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if not match:
        raise UsageError(f"--for {text[:50]!r} is not a time: use a form such as 90s, 10m or 2h")
    return float(match[1]) * _UNITS[match[2]]


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[list[int]]:
    """Set ``stop`` when the process is asked to end; yield the list of those signals. A second Ctrl-C ends at once."""
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        stop.set()
        if len(asked) > 1 and number == signal.SIGINT:
            raise KeyboardInterrupt
        say("stopping: the commit at work is finished first")

    before = {}
    # Only the main thread gets signals.
    with suppress(ValueError):
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
