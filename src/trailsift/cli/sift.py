"""Commands about what is kept, sampled and dropped: estimate, suggest."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from trailsift.cli.options import (
    JsonOption,
    LakeOption,
    LimitOption,
    PricesOption,
    SinceOption,
    UntilOption,
    ZoneOption,
)


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
    from trailsift.analysis.period import period as period_of
    from trailsift.cli.lake import engine_of
    from trailsift.views.console import print_json
    from trailsift.views.estimate import show_estimate

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
    as_json: JsonOption = False,
) -> int:
    """What makes most of the volume and changes least from day to day, each as a rule ready to be used.

    Examples: `trailsift suggest --lake lake`, `trailsift suggest --lake lake --rules > my.toml`
    """
    from trailsift.analysis.prices import prices as load_prices
    from trailsift.analysis.suggest import suggest as ask
    from trailsift.cli.lake import engine_of
    from trailsift.views.console import print_json
    from trailsift.views.rules import show_suggestions

    found = ask(engine_of(lake), load_prices(prices), 10 if limit is None else limit)
    if as_json:
        print_json(found.as_dict())
    elif rules:
        print(found.toml, end="")
    else:
        show_suggestions(found)
    return 0
