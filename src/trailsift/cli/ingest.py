"""Commands that bring logs in: generate, ingest, demo."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from trailsift.cli.options import (
    STDIN,
    JsonOption,
    LakeOption,
    QuietOption,
    SinceOption,
    UntilOption,
    ZoneOption,
)
from trailsift.errors import UsageError


def generate(
    target: Annotated[Path, Parameter(name="DIR", help="A new or an empty folder.")],
    /,
    *,
    events: Annotated[int, Parameter(help="Distinct events, planted incidents included: exactly this many.")] = 200_000,
    days: Annotated[float, Parameter(help="Length of the period; may be a fraction.")] = 7,
    seed: Annotated[int, Parameter(help="Changes every id, name and draw; the same seed gives the same bytes.")] = 1,
    start: Annotated[str | None, Parameter(help="First moment, ISO 8601. Default: Monday 2026-03-02.")] = None,
    timezone: Annotated[
        str, Parameter(name=["--timezone", "--tz"], help="Where people work and sleep.")
    ] = "Asia/Seoul",
    roles: Annotated[int, Parameter(help="Identities at work, 1 to 5,000.")] = 12,
    tiny_objects: Annotated[
        bool, Parameter(show_default=False, help="About 5 records a log object, as quiet trails do.")
    ] = False,
    two_trails: Annotated[
        bool, Parameter(show_default=False, help="A second trail delivers nearly everything again.")
    ] = False,
    no_incidents: Annotated[bool, Parameter(show_default=False, help="Plant nothing.")] = False,
    strength: Annotated[
        Literal["standard", "weak", "stealthy"],
        Parameter(help="How much incidents show: as commonly seen, an eighth of it, or hardly anything."),
    ] = "standard",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Make realistic CloudTrail logs with planted incidents, and truth.json which tells of them.

    Example: `trailsift generate logs --events 200000 --days 7 --seed 1`
    """
    from trailsift.generate import Options
    from trailsift.generate import generate as run
    from trailsift.terminal.progress import CountProgress

    options = Options(
        events=events,
        days=days,
        seed=seed,
        start=None if start is None else _start(start),
        timezone=timezone,
        roles=roles,
        tiny_objects=tiny_objects,
        two_trails=two_trails,
        incidents=not no_incidents,
        strength=strength,
    )
    with CountProgress("events", events, quiet) as bar:
        made = run(target, options, bar.update)
    from trailsift.terminal import ingest as load

    load.show_generated(made, target, as_json)
    return 0


def _start(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--start {text!r} is no time: write it like 2026-03-02 or 2026-03-02T09:00+09:00") from error


def ingest(
    *paths: Annotated[str, Parameter(name="PATH", help="Files, folders or archives; `-` reads standard input.")],
    lake: LakeOption,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    again: Annotated[
        bool, Parameter(show_default=False, help="Also read log objects that were ingested before.")
    ] = False,
    rules: Annotated[
        str | None, Parameter(name="--rules", help="A rules file, or the name of a ready one: what is stored.")
    ] = None,
    workers: Annotated[int | None, Parameter(help="Processes at work. Default: one a core.")] = None,
    no_compact: Annotated[
        bool, Parameter(show_default=False, help="Leave many small files to a later `compact`.")
    ] = False,
    hourly_partitions: Annotated[
        bool,
        Parameter(show_default=False, help="A folder an hour, not a day, in a new lake: for millions of events a day."),
    ] = False,
    detect: Annotated[
        bool,
        Parameter(show_default=False, help="Look for findings afterwards; what is new goes to standard error."),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Store logs in a lake, each event once; the lake is made if it is missing.

    Ends with counts that add up: records = stored + duplicates + dropped + malformed. Exit code 3 says that
    something was malformed or was no CloudTrail log. `--since` and `--until` choose log objects by the time of
    their delivery. With `--rules` events are dropped or sampled; the summaries stay exact all the same. Where closed
    days have many small files, some seconds at the end go into making few of them.

    Examples: `trailsift ingest logs/AWSLogs --lake lake`, `trailsift ingest logs --lake lake --since -7d`
    """
    inputs = ["-" if path == STDIN else path for path in paths]
    _check_inputs(inputs, workers)
    chosen = None
    if rules is not None:
        from trailsift.rules.presets import open_rules

        chosen = open_rules(rules)
    from trailsift.analysis.time_range import period
    from trailsift.ingest import ingest as run
    from trailsift.runtime import spare_memory
    from trailsift.terminal import ingest as load
    from trailsift.terminal.progress import IngestProgress
    from trailsift.times import moment

    times = period(since, until, timezone)
    first, end = (None if micros is None else moment(micros) for micros in (times.since, times.until))
    spare_memory()
    try:
        with IngestProgress(quiet) as live:
            counts = run(
                inputs,
                lake,
                workers=workers,
                since=first,
                until=end,
                again=again,
                rules=chosen,
                compact=not no_compact,
                hourly_partitions=hourly_partitions or None,
                progress=live.update,
            )
    except KeyboardInterrupt:
        print("trailsift: what was committed is in the lake; the same command goes on from there", file=sys.stderr)
        raise
    load.show_counts(counts, lake, as_json)
    if not counts.complete:
        print(f"trailsift: {load.incomplete(counts, lake)}", file=sys.stderr)
    if detect:
        from trailsift.cli.detect import after_ingest

        sys.stdout.flush()
        after_ingest(lake)
    return 0 if counts.complete else 3


def _check_inputs(paths: Sequence[str], workers: int | None) -> None:
    if not paths:
        raise UsageError("nothing to ingest: name files or folders, or `-` for standard input")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: ask for 1 or more")


def demo(
    *,
    events: Annotated[int, Parameter(help="Events to generate.")] = 200_000,
    days: Annotated[float, Parameter(help="Days that they cover.")] = 7,
    seed: Annotated[int, Parameter(help="Another seed, other logs.")] = 1,
    folder: Annotated[
        Path | None, Parameter(name="--dir", help="A new or an empty folder to work in. Default: a temporary one.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Generate logs, ingest them, show what is in them, and say what to try next.

    Example: `trailsift demo`
    """
    from trailsift import demo as steps
    from trailsift.terminal.progress import CountProgress, IngestProgress

    with CountProgress("events generated", events, quiet) as making:
        made = steps.make(events, days, seed, folder, making.update)
    with IngestProgress(quiet) as live:
        counts = steps.load(made, live.update)
    result = steps.ask(made, counts)
    from trailsift.terminal.console import print_json
    from trailsift.terminal.demo import show_demo

    if as_json:
        print_json(result.as_dict())
    else:
        show_demo(result)
    return 0
