"""Commands about sampling and what it is worth: estimate, suggest, bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from trailsift.cli.options import (
    ForceOption,
    JsonOption,
    LakeOption,
    LimitOption,
    NoFindingsOption,
    PricesOption,
    QuietOption,
    SinceOption,
    UntilOption,
    ZoneOption,
)
from trailsift.cli.session import open_lake, output_file
from trailsift.errors import UsageError
from trailsift.terminal.output import say


def estimate_command(
    lake: LakeOption,
    *,
    by: Annotated[
        str,
        Parameter(
            show_default=False, help="Columns of events, separated by commas; also hour and date. Default: one total."
        ),
    ] = "",
    where: Annotated[str | None, Parameter(help="An SQL condition on the columns of events.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> int:
    """Estimate counts and bytes of a sampled lake with 95 % confidence intervals.

    Values from summaries are exact and marked so.

    Example: `trailsift estimate --by user_agent --where "service = 's3'" --lake lake`
    """
    from trailsift.terminal.estimate import show_estimate
    from trailsift.terminal.output import print_json

    handle = open_lake(lake, timezone)
    period = handle.period(since, until)
    columns = [name.strip() for name in by.split(",") if name.strip()]
    default = 0 if as_json else 20
    estimate = handle.estimate(
        columns,
        where=where,
        since=period.since,
        until=period.until,
        limit=default if limit is None else limit,
    )
    if as_json:
        print_json(estimate.as_dict())
    else:
        show_estimate(estimate, period)
    return 0


def suggest_command(
    lake: LakeOption,
    *,
    prices: PricesOption = None,
    limit: LimitOption = None,
    rules: Annotated[bool, Parameter(show_default=False, help="Print only the rules, as a rules file.")] = False,
    no_findings: NoFindingsOption = False,
    as_json: JsonOption = False,
) -> int:
    """Suggest rules for large, steady volume, and show which findings each would affect.

    Examples: `trailsift suggest --lake lake`, `trailsift suggest --lake lake --rules > my.toml`
    """
    from trailsift.rules import parse
    from trailsift.terminal.output import print_json, print_script
    from trailsift.terminal.rules import show_losses, show_suggestions

    handle = open_lake(lake)
    suggestions = handle.suggest(10 if limit is None else limit, prices=prices)
    if rules:
        print_script(suggestions.toml)
        return 0
    losses = None
    if suggestions.lines and not no_findings:
        losses = handle.rule_impact(parse(suggestions.toml, "suggestions"))
    if as_json:
        affected = {} if losses is None else {"findings": [loss._asdict() for loss in losses]}
        print_json(suggestions.as_dict() | affected)
    else:
        show_suggestions(suggestions)
        if suggestions.lines:
            show_losses(losses, "leave out --no-findings")
    return 0


def bench_command(
    *paths: Annotated[str, Parameter(name="PATH", help="Your own log files. Default: generated ones.")],
    events: Annotated[int, Parameter(help="Number of events to generate if no logs are named.")] = 300_000,
    days: Annotated[float, Parameter(help="Length of the generated period.")] = 7,
    seed: Annotated[int, Parameter(help="Seed of all random choices.")] = 1,
    rounds: Annotated[int, Parameter(help="Measurements of each technique, taken in turn.")] = 3,
    folder: Annotated[
        Path | None,
        Parameter(name="--dir", help="A new folder for all forms of the logs; kept. Default: a temporary folder."),
    ] = None,
    svg: Annotated[Path | None, Parameter(help="Also write a chart of the gains to this file (SVG).")] = None,
    force: ForceOption = False,
    prices: PricesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Measure what partitioning, filtering, columnar storage and sampling gain, each alone and all together.

    Everything is measured in one run against DuckDB on the raw log files, and shown beside the gains that were expected
    before anything was measured.

    Examples: `trailsift bench`, `trailsift bench logs/AWSLogs --svg gains.svg`
    """
    import shutil
    import tempfile

    from trailsift.benchmark import measure
    from trailsift.prices import load_prices
    from trailsift.storage.output_file import new_file
    from trailsift.terminal.benchmark import picture, show_gains
    from trailsift.terminal.output import print_json

    if rounds < 1:
        raise UsageError(f"--rounds {rounds} is not valid: use 1 or more")
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty: name a new or empty folder")
    if svg is not None:
        output_file(svg, force)
    price_list = load_prices(prices)
    home = folder or Path(tempfile.mkdtemp(prefix="trailsift-bench-"))

    def report_step(text: str) -> None:
        if not quiet:
            say(text)

    try:
        inputs = list(paths)
        if not inputs:
            from trailsift.generate import Options, generate

            report_step(f"generating {events:,} events")
            generate(home / "logs", Options(events=events, days=days, seed=seed))
            inputs = [str(home / "logs" / "AWSLogs")]
        gains = measure(inputs, home / "forms", price_list, rounds=rounds, generated=not paths, step=report_step)
    finally:
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)
    if svg is not None:
        with new_file(svg, "w", private=False, encoding="utf-8") as file:
            file.write(picture(gains))
    if as_json:
        print_json(gains.as_dict())
    else:
        show_gains(gains)
    return 0
