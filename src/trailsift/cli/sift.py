"""Commands about what is kept, sampled and dropped: estimate."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from trailsift.cli.options import JsonOption, LakeOption, LimitOption, SinceOption, UntilOption, ZoneOption


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
