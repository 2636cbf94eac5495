"""Commands that bring logs in: generate, ingest, demo."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from trailsift.cli import STDIN
from trailsift.cli.options import (
    JsonOption,
    LakeOption,
    PricesOption,
    QuietOption,
    SinceOption,
    UntilOption,
    ZoneOption,
)
from trailsift.cli.session import open_lake
from trailsift.errors import UsageError
from trailsift.terminal.output import say


def generate_command(
    target: Annotated[Path, Parameter(name="DIR", help="A new or empty folder.")],
    /,
    *,
    events: Annotated[int, Parameter(help="Number of distinct events, planted incidents included.")] = 200_000,
    days: Annotated[float, Parameter(help="Length of the period; fractions are allowed.")] = 7,
    seed: Annotated[int, Parameter(help="Seed of all random choices; the same seed gives the same bytes.")] = 1,
    start: Annotated[str | None, Parameter(help="Start of the period, ISO 8601. Default: Monday 2026-03-02.")] = None,
    timezone: Annotated[
        str, Parameter(name=["--timezone", "--tz"], help="Time zone of the people whose work is simulated.")
    ] = "Asia/Seoul",
    roles: Annotated[int, Parameter(help="Number of active identities, 1 to 5,000.")] = 12,
    tiny_objects: Annotated[
        bool, Parameter(show_default=False, help="About 5 records per log object, as quiet trails deliver.")
    ] = False,
    two_trails: Annotated[
        bool, Parameter(show_default=False, help="Add a second trail that delivers nearly everything again.")
    ] = False,
    no_incidents: Annotated[bool, Parameter(show_default=False, help="Plant no incidents.")] = False,
    strength: Annotated[
        Literal["standard", "weak", "stealthy"],
        Parameter(help="Strength of the incidents: as commonly seen, an eighth of that, or barely visible."),
    ] = "standard",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Generate realistic CloudTrail logs with planted incidents and their ground truth (truth.json).

    Example: `trailsift generate logs --events 200000 --days 7 --seed 1`
    """
    from trailsift.generate import Options, generate
    from trailsift.terminal.ingest import show_generated
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
        generated = generate(target, options, bar.update)
    show_generated(generated, target, as_json)
    return 0


def _start(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"--start {text!r} is not a valid time: use a form such as 2026-03-02 or 2026-03-02T09:00+09:00"
        ) from error


def ingest_command(
    *paths: Annotated[
        str,
        Parameter(name="PATH", help="Files, folders, globs, archives; `-` is standard input. Or `s3://bucket/prefix`."),
    ],
    lake: LakeOption,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    account: Annotated[
        list[str] | None, Parameter(help="Only log objects of this account, by their names or folders. Repeatable.")
    ] = None,
    region: Annotated[list[str] | None, Parameter(help="Only log objects of this region. Repeatable.")] = None,
    rules: Annotated[
        str | None, Parameter(help="Rules file (TOML) or preset that says what to keep, sample and drop.")
    ] = None,
    workers: Annotated[int | None, Parameter(help="Worker processes. Default: one per core.")] = None,
    again: Annotated[
        bool, Parameter(show_default=False, help="Read log objects again that were ingested before.")
    ] = False,
    dry_run: Annotated[
        bool,
        Parameter(
            show_default=False,
            help="Say what would be read (log objects, bytes, days, time, cost of requests), and stop there.",
        ),
    ] = False,
    requester_pays: Annotated[
        bool,
        Parameter(show_default=False, help="Pay for the requests to somebody else's bucket, if its owner does not."),
    ] = False,
    prices: PricesOption = None,
    hourly_partitions: Annotated[
        bool,
        Parameter(
            show_default=False,
            help="Partition a new lake by hour instead of by day (for millions of events a day).",
        ),
    ] = False,
    group_readable: Annotated[
        bool,
        Parameter(
            show_default=False,
            help="Let the group of a new lake's folder read it (0750, 0640). Default: only you (0700, 0600).",
        ),
    ] = False,
    no_compact: Annotated[bool, Parameter(show_default=False, help="Do not merge small files afterwards.")] = False,
    detect: Annotated[
        bool,
        Parameter(show_default=False, help="Then look for findings and list the new ones on standard error."),
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Store logs in a lake, each event once. The lake is created if it is missing.

    Ends with counts that add up: records = stored + duplicates + dropped + malformed. Exit code 3: some input was
    malformed, or neither a CloudTrail log nor another file of AWS. `--since` and `--until` select log objects by
    delivery time. From S3, only the folders that can hold the wanted delivery times are listed, and of folders that
    were ingested before, only the last hour; keys, profile, region and endpoint come from AWS's standard environment
    (AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL ...). With `--rules`, events are dropped or sampled; summaries stay
    exact. If closed days have many small
    files, they are merged at the end, which takes some seconds.

    Examples: `trailsift ingest logs/AWSLogs --lake lake`, `trailsift ingest logs --lake lake --since -7d`,
    `trailsift ingest s3://bucket/AWSLogs --lake lake --since -7d`
    """
    from trailsift.runtime import spare_memory
    from trailsift.terminal.ingest import incomplete, links_passed_over, not_fetched, show_counts, show_survey
    from trailsift.terminal.progress import IngestProgress

    handle = open_lake(lake, timezone)
    spare_memory()
    if dry_run:
        with IngestProgress(quiet) as live:
            survey = handle.survey(
                *paths,
                since=since,
                until=until,
                accounts=account or (),
                regions=region or (),
                again=again,
                requester_pays=requester_pays,
                prices=prices,
                progress=live.update,
            )
        show_survey(survey, as_json)
        return 0
    try:
        with IngestProgress(quiet) as live:
            counts = handle.ingest(
                *("-" if path == STDIN else path for path in paths),
                workers=workers,
                since=since,
                until=until,
                accounts=account or (),
                regions=region or (),
                again=again,
                requester_pays=requester_pays,
                rules=rules,
                compact=not no_compact,
                hourly_partitions=hourly_partitions or None,
                group_readable=group_readable,
                progress=live.update,
                announce=None if quiet else live.announce,
            )
    except KeyboardInterrupt:
        say("committed data is in the lake; run the same command again to continue")
        raise
    show_counts(counts, lake, as_json)
    if counts.links_passed_over:
        say(links_passed_over(counts))
    if counts.not_fetched:
        say(not_fetched(counts))
    if not counts.complete:
        say(incomplete(counts, lake))
    if detect:
        from trailsift.cli.detect import after_ingest

        sys.stdout.flush()
        after_ingest(handle)
    return 0 if counts.complete else 3


def demo_command(
    *,
    events: Annotated[int, Parameter(help="Number of events to generate.")] = 200_000,
    days: Annotated[float, Parameter(help="Length of the generated period.")] = 7,
    seed: Annotated[int, Parameter(help="Seed of all random choices.")] = 1,
    folder: Annotated[
        Path | None, Parameter(name="--dir", help="A new or empty folder to work in. Default: a temporary folder.")
    ] = None,
    serve: Annotated[
        bool, Parameter(show_default=False, help="Afterwards serve the dashboard of it (the extra `serve`).")
    ] = False,
    port: Annotated[int, Parameter(help="With --serve: the port to listen on.")] = 8080,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Generate logs, ingest them, show what is in them, and suggest what to try next.

    Examples: `trailsift demo`, `trailsift demo --serve`
    """
    if serve:
        from trailsift.cli.serve import check_server

        check_server()
    from trailsift import demo
    from trailsift.terminal.progress import CountProgress, IngestProgress

    with CountProgress("events generated", events, quiet) as bar:
        logs = demo.generate_logs(events, days, seed, folder, bar.update)
    with IngestProgress(quiet) as live:
        counts = demo.ingest_logs(logs, live.update)
    report = demo.ask_lake(logs, counts)
    if as_json:
        from trailsift.terminal.output import print_json

        print_json(report.as_dict())
    else:
        from trailsift.terminal.demo import show_demo

        show_demo(report)
    if serve:
        from trailsift.cli.serve import run_server

        sys.stdout.flush()
        run_server(lake=str(report.lake), port=port, timezone="Asia/Seoul")
    return 0
