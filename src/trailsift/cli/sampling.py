"""Commands about what is kept, sampled and dropped, and about what that is worth: estimate, suggest, bench."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from trailsift.cli.options import (
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
from trailsift.errors import UsageError


def estimate(
    *,
    lake: LakeOption,
    by: Annotated[
        str, Parameter(help="Columns of events, separated by commas; also hour and date. Default: all in one.")
    ] = "",
    where: Annotated[str | None, Parameter(help="An SQL condition on the columns of events.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> int:
    """Counts and bytes of a sampled lake with their 95 % intervals; exact, and said so, where a summary knows.

    Example: `trailsift estimate --by user_agent --where "service = 's3'" --lake lake`
    """
    from trailsift.analysis.estimate import estimate as ask
    from trailsift.analysis.time_range import period as period_of
    from trailsift.cli.session import engine_of
    from trailsift.terminal.console import print_json
    from trailsift.terminal.estimate import show_estimate

    period = period_of(since, until, timezone)
    columns = [name.strip() for name in by.split(",") if name.strip()]
    found = ask(engine_of(lake), columns, where, period, limit if limit is not None else 0 if as_json else 20)
    if as_json:
        print_json(found.as_dict())
    else:
        show_estimate(found, period)
    return 0


def suggest(
    *,
    lake: LakeOption,
    prices: PricesOption = None,
    limit: LimitOption = None,
    rules: Annotated[bool, Parameter(show_default=False, help="Print only the rules, as a rules file.")] = False,
    no_findings: NoFindingsOption = False,
    as_json: JsonOption = False,
) -> int:
    """What makes most of the volume and changes least, each as a rule ready to be used, and what findings would lose.

    Examples: `trailsift suggest --lake lake`, `trailsift suggest --lake lake --rules > my.toml`
    """
    from trailsift.analysis.suggest import suggest as ask
    from trailsift.cli.rules import losses_of
    from trailsift.cli.session import engine_of
    from trailsift.prices import load_prices
    from trailsift.rules import parse
    from trailsift.terminal.console import print_json
    from trailsift.terminal.rules import show_losses, show_suggestions

    found = ask(engine_of(lake), load_prices(prices), 10 if limit is None else limit)
    if rules:
        print(found.toml, end="")
        return 0
    lost = losses_of(lake, parse(found.toml, "suggestions")) if found.lines and not no_findings else None
    if as_json:
        print_json(found.as_dict() | ({} if lost is None else {"findings": [one._asdict() for one in lost]}))
    else:
        show_suggestions(found)
        if found.lines:
            show_losses(lost, "without --no-findings")
    return 0


def bench(
    *paths: Annotated[str, Parameter(name="PATH", help="Your own log objects. Default: generated ones.")],
    events: Annotated[int, Parameter(help="Events to generate, where no logs are named.")] = 300_000,
    days: Annotated[float, Parameter(help="Days that they cover.")] = 7,
    seed: Annotated[int, Parameter(help="Another seed, other logs.")] = 1,
    rounds: Annotated[int, Parameter(help="How often every way is measured, in turns.")] = 3,
    folder: Annotated[
        Path | None,
        Parameter(name="--dir", help="A new folder for all forms of the logs, kept. Default: a temporary one."),
    ] = None,
    svg: Annotated[Path | None, Parameter(help="Also write a picture of the gains to this file.")] = None,
    prices: PricesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Measure what partitioning, filtering, columnar storage and sampling are worth, each alone and all together.

    In one run, against DuckDB on the raw log files, beside what was once claimed without a measurement.

    Examples: `trailsift bench`, `trailsift bench logs/AWSLogs --svg gains.svg`
    """
    import shutil
    import tempfile

    from trailsift.benchmark import measure
    from trailsift.prices import load_prices
    from trailsift.terminal.benchmark import picture, show_gains
    from trailsift.terminal.console import print_json

    if rounds < 1:
        raise UsageError(f"--rounds {rounds}: ask for 1 or more")
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty: name a new or an empty folder")
    known = load_prices(prices)
    home = folder or Path(tempfile.mkdtemp(prefix="trailsift-bench-"))

    def step(told: str) -> None:
        if not quiet:
            print(f"trailsift: {told}", file=sys.stderr, flush=True)

    try:
        inputs = list(paths)
        if not inputs:
            from trailsift.generate import Options, generate

            step(f"generating {events:,} events")
            generate(home / "logs", Options(events=events, days=days, seed=seed))
            inputs = [str(home / "logs" / "AWSLogs")]
        work = home / "forms"
        found = measure(inputs, work, known, rounds=rounds, generated=not paths, step=step)
    finally:
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)
    if svg is not None:
        svg.write_text(picture(found), "utf-8")
    if as_json:
        print_json(found.as_dict())
    else:
        show_gains(found)
    return 0
