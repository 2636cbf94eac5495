"""Commands that ask: summary, roles, role, query, export."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from trailsift.analysis.time_range import period as period_of
from trailsift.cli.options import (
    STDIN,
    JsonOption,
    LakeOption,
    LimitOption,
    OptionalLakeOption,
    OutputOption,
    PricesOption,
    SinceOption,
    UntilOption,
    ZoneOption,
)
from trailsift.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from trailsift.analysis.time_range import Period
    from trailsift.query import DuckDBEngine


def summary(
    *,
    lake: LakeOption,
    by: Annotated[
        Literal["event", "role", "resource", "hour", "service", "account", "region", "error"] | None,
        Parameter(help="One table of this kind. Default: an overview."),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> int:
    """Exact numbers, whatever was dropped or sampled: an overview, or one table.

    Examples: `trailsift summary --lake lake`, `trailsift summary --lake lake --by role --since -7d`
    """
    from trailsift.analysis import summary as ask
    from trailsift.cli.session import engine_of
    from trailsift.terminal import summary as report
    from trailsift.terminal.console import print_json

    period = period_of(since, until, timezone)
    engine = engine_of(lake)
    if by is None:
        seen = ask.overview(engine, period, 8 if limit is None else limit)
        if as_json:
            print_json(seen.as_dict())
        elif seen.total:
            report.show_overview(seen)
        if seen.total is not None and not as_json:
            _say_without_data_events(engine, lake)
        return _said_if_empty(engine, seen.total is None, period)
    # A terminal gets a screenful; JSON and hours are whole unless a limit is given.
    shown = limit if limit is not None else 0 if as_json or by == "hour" else 20
    found = ask.summary(engine, by, period, shown)
    if as_json:
        print_json(found.as_dict())
    elif found.lines:
        report.show_summary(found)
    return _said_if_empty(engine, not found.lines, period)


def roles(
    *,
    lake: LakeOption,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    need_data_events: Annotated[
        bool, Parameter(show_default=False, help="Which roles are worth switching data events on for, and why.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """All roles: how busy, what they touched, what they were denied.

    With `--need-data-events`: told from their management events alone, the most telling first.

    Example: `trailsift roles --lake lake --since 2026-03-02 --until 2026-03-09`
    """
    if need_data_events:
        return _needs(lake, period_of(since, until, timezone), as_json)
    from trailsift.analysis.base import plain
    from trailsift.analysis.roles import roles as ask
    from trailsift.cli.session import engine_of
    from trailsift.terminal import role as view
    from trailsift.terminal.console import print_json

    period = period_of(since, until, timezone)
    engine = engine_of(lake)
    found = ask(engine, period)
    if as_json:
        print_json({"period": period.as_dict(), "roles": plain(found)})
    elif found:
        view.show_roles(found, period)
    return _said_if_empty(engine, not found, period)


def _say_without_data_events(engine: DuckDBEngine, lake: Path) -> None:
    """Where there are none, a trail was not asked for them: how to switch them on."""
    from trailsift.analysis.shell import quoted
    from trailsift.analysis.trail_coverage import has_data_events

    if not has_data_events(engine):
        told = "no data events are in this lake: a trail logs them where its selectors ask for them"
        print(f"trailsift: {told}. Whose: trailsift roles --need-data-events --lake {quoted(lake)}", file=sys.stderr)


def _needs(lake: Path, period: Period, as_json: bool) -> int:
    from dataclasses import asdict

    from trailsift.analysis.shell import quoted
    from trailsift.analysis.trail_coverage import needs
    from trailsift.cli.session import engine_of
    from trailsift.terminal import aws as view
    from trailsift.terminal.console import print_json

    engine = engine_of(lake)
    found = needs(engine, period)
    if as_json:
        print_json({"period": period.as_dict(), "roles": [asdict(need) for need in found]})
    elif found:
        view.show_needs(found)
        role = found[0].role_arn
        service = ",".join(found[0].services) or "s3"
        print(f"Next: trailsift selectors --role {role} --service {service} --lake {quoted(lake)}")
    else:
        print("trailsift: no management event speaks for data events of any role", file=sys.stderr)
    return 0


def role(
    name: Annotated[str, Parameter(name="ROLE", help="An ARN, a name, or a part of one that only one role has.")],
    /,
    *,
    lake: LakeOption,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> int:
    """One role: what it did, where, when, from where, and what it was denied.

    Example: `trailsift role orders-etl-batch --lake lake --timezone Asia/Seoul`
    """
    from trailsift.analysis.roles import role as ask
    from trailsift.cli.session import engine_of
    from trailsift.terminal import role as view
    from trailsift.terminal.console import print_json

    period = period_of(since, until, timezone)
    engine = engine_of(lake)
    found = ask(engine, name, period)
    if as_json:
        print_json(found.as_dict())
    elif found.events:
        view.show_role(found, 10 if limit is None else limit)
    return _said_if_empty(engine, not found.events, period)


def query(
    sql: Annotated[str, Parameter(name="SQL", help="One read-only statement; `-` reads it from standard input.")],
    /,
    *,
    lake: OptionalLakeOption = None,
    form: Annotated[Literal["table", "json", "csv", "parquet", "arrow"], Parameter(name=["--format", "-f"])] = "table",
    output: OutputOption = None,
    explain: Annotated[bool, Parameter(show_default=False, help="Tell what would be read, and read nothing.")] = False,
    engine: Annotated[Literal["duckdb", "athena"], Parameter(help="Where the SQL runs.")] = "duckdb",
    timezone: ZoneOption = "UTC",
    ttl: Annotated[float | None, Parameter(help="Seconds for which an answer that reads the clock is kept.")] = None,
    no_cache: Annotated[bool, Parameter(show_default=False, help="Ask again, even where the answer is known.")] = False,
    workgroup: Annotated[str, Parameter(help="For Athena: the workgroup, whose limits hold.")] = "primary",
    database: Annotated[str, Parameter(help="For Athena: the database of our tables.")] = "trailsift",
    prices: PricesOption = None,
) -> int:
    """Ask in SQL: tables events, hourly, usage, profile, rejects (`trailsift columns` lists them).

    Example: `trailsift query "SELECT event_name, count(*) FROM events GROUP BY 1 ORDER BY 2 DESC" --lake lake`
    """
    if engine == "athena":
        from trailsift.cli.query import run_on_athena

        reuse = 0 if no_cache else max(round((ttl or 3600) / 60), 1)
        text = _from_stdin(sql)
        where = {"workgroup": workgroup, "database": database}
        return run_on_athena(text, form, output, explain, timezone, **where, reuse=reuse, prices=prices)
    if lake is None:
        raise UsageError("which lake? Name its folder with --lake, or set TRAILSIFT_LAKE")
    from trailsift.cli.query import run

    return run(_from_stdin(sql), lake, form, output, explain=explain, timezone=timezone, ttl=ttl, cache=not no_cache)


def export(
    *,
    lake: LakeOption,
    where: Annotated[str | None, Parameter(help="An SQL condition on the columns of events.")] = None,
    form: Annotated[
        Literal["ndjson", "records"],
        Parameter(name=["--format", "-f"], help='A record a line, or one {"Records":[...]} document.'),
    ] = "ndjson",
    output: OutputOption = None,
) -> int:
    """The stored records as CloudTrail wrote them.

    Example: `trailsift export --lake lake --where "event_name = 'DeleteObject'" > deleted.ndjson`
    """
    from trailsift.analysis.export import export as run
    from trailsift.analysis.status import omitted
    from trailsift.cli.output import text_output
    from trailsift.cli.session import engine_of

    source = engine_of(lake)
    left_out = omitted(source.snapshot.root)
    if left_out:
        told = f"rules have left out {', '.join(left_out)} of some events"
        print(f"trailsift: the export is not lossless: {told}", file=sys.stderr)
    with text_output(output) as out:
        count = run(source, out, where, form)
    if not count:
        return _said_if_empty(source, True, period_of(None, None))
    if output is not None:
        print(f"trailsift: {count:,} records written to {output}", file=sys.stderr)
    return 0


def _from_stdin(sql: str) -> str:
    return sys.stdin.read() if sql == STDIN else sql


def _said_if_empty(engine: DuckDBEngine, empty: bool, period: Period) -> int:
    """Says on standard error why there is no answer; that is no failure."""
    if empty:
        from trailsift.analysis.base import why_nothing

        print(f"trailsift: {why_nothing(engine.snapshot, period)}", file=sys.stderr)
    return 0
