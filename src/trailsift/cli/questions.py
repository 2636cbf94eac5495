"""Commands that answer one question each: resource, object, search, compare, cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from trailsift.cli.options import (
    CsvOption,
    JsonOption,
    LakeOption,
    LimitOption,
    PricesOption,
    SinceOption,
    UntilOption,
    ZoneOption,
)
from trailsift.cli.session import open_lake, say_why_empty
from trailsift.errors import UsageError

#: Rows of each table on a terminal, without --limit.
_ROWS = 10
#: Touches of an object on a terminal, without --limit.
_TOUCHES = 20


def resource_command(
    name: Annotated[
        str, Parameter(name="NAME", help="An ARN, a bucket, table, function ..., or a part that no other has.")
    ],
    /,
    *,
    lake: LakeOption,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    limit: LimitOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> int:
    """Show who reads, writes, deletes and lists a bucket, table, function ..., from where, and what is new.

    Counts are of the whole UTC days that the period touches. They include what rules dropped or sampled.

    Examples: `trailsift resource kelp-orders-media --lake lake --since -7d`,
    `trailsift resource table/orders --lake lake --json`
    """
    _one_of(as_json, as_csv)
    handle = open_lake(lake, timezone)
    period = handle.period(since, until)
    report = handle.resource(name, since=period.since, until=period.until)

    def show() -> None:
        from trailsift.terminal.resource import show_resource

        show_resource(report, _ROWS if limit is None else limit, handle.path)

    _print(report, as_json, as_csv, limit, show if report.kinds else None)
    if not report.kinds:
        say_why_empty(handle, period)
    return 0


def object_command(
    name: Annotated[str, Parameter(name="BUCKET/KEY", help="Also s3://BUCKET/KEY; * stands for any text.")],
    /,
    *,
    lake: LakeOption,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    limit: LimitOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> int:
    """Show every call that touched an object, the last one first; copies and access points included.

    A call that several accounts logged is one line. What rules dropped or sampled is missing, and how much that is, is
    said.

    Examples: `trailsift object my-bucket/reports/q1.xlsx --lake lake`,
    `trailsift object "my-bucket/reports/*" --lake lake --since -36h`
    """
    _one_of(as_json, as_csv)
    handle = open_lake(lake, timezone)
    period = handle.period(since, until)
    default = 0 if as_json or as_csv else _TOUCHES
    report = handle.object(name, since=period.since, until=period.until, limit=default if limit is None else limit)

    def show() -> None:
        from trailsift.terminal.resource import show_object

        show_object(report, handle.path)

    _print(report, as_json, as_csv, None, show)
    if not report.touches:
        from trailsift.terminal.output import say

        where = "in this period" if not period.whole else "in the lake"
        say(f"no stored event {where} touches {report.key} in {report.resource_arn}")
    return 0


def search_command(
    term: Annotated[
        str,
        Parameter(
            name="TERM",
            help="An address, range, access key, ARN, account, object key, user agent, id, session, or part of a name.",
        ),
    ],
    /,
    *,
    lake: LakeOption,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    limit: LimitOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> int:
    """Look for a term wherever it can be: its shape says where.

    Addresses, access keys, ARNs, ids and object keys are looked up in the stored events, names and parts of names in
    the summaries, which count every event. The answer says where it looked and what it could not look through.

    Examples: `trailsift search 203.0.113.0/24 --lake lake`, `trailsift search orders-etl --lake lake --since -7d`
    """
    _one_of(as_json, as_csv)
    handle = open_lake(lake, timezone)
    period = handle.period(since, until)
    report = handle.search(term, since=period.since, until=period.until, limit=_ROWS if limit is None else limit)

    def show() -> None:
        from trailsift.terminal.search import show_search

        show_search(report, handle.path)

    _print(report, as_json, as_csv, None, show)
    if not report.counted:
        say_why_empty(handle, period)
    return 0


def compare_command(
    *,
    lake: LakeOption,
    since: SinceOption = None,
    until: UntilOption = None,
    other: Annotated[
        str,
        Parameter(
            name="--with",
            allow_leading_hyphen=True,
            help="`previous` (as many days just before), or START..END, in the forms of --since.",
        ),
    ] = "previous",
    timezone: ZoneOption = "UTC",
    limit: LimitOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> int:
    """Show what is new, gone, more or less in a period than in another one, those that matter most first.

    By caller, resource, action, key pattern and network; by events per day of the whole UTC days that the periods
    touch.

    Examples: `trailsift compare --since -7d --lake lake`,
    `trailsift compare --since 2026-03-09 --until 2026-03-16 --with 2026-03-02..2026-03-09 --lake lake`
    """
    _one_of(as_json, as_csv)
    if since is None:
        raise UsageError("say which period to compare: name its start with --since, such as --since -7d")
    handle = open_lake(lake, timezone)
    period = handle.period(since, until)
    second: tuple[int | None, int | None] | None = None
    if other != "previous":
        start, dots, end = other.partition("..")
        if not dots or not start or not end:
            raise UsageError(f"--with {other!r} is not a period: use previous, or START..END such as -14d..-7d")
        named = handle.period(start, end)
        second = (named.since, named.until)
    default = 0 if as_csv else 20
    comparison = handle.compare(
        since=period.since, until=period.until, other=second, limit=default if limit is None else limit
    )

    def show() -> None:
        from trailsift.terminal.compare import show_comparison

        show_comparison(comparison, handle.path)

    _print(comparison, as_json, as_csv, None, show if comparison.events or comparison.other_events else None)
    if not comparison.events and not comparison.other_events:
        say_why_empty(handle, period)
    return 0


def cost_command(
    lake: LakeOption,
    *,
    by: Annotated[
        Literal["caller", "resource", "event", "pattern"] | None,
        Parameter(help="Show one table, grouped by this. Default: all of them."),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    limit: LimitOption = None,
    prices: PricesOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> int:
    """Show what fills the log, in dollars a month, what is paid twice, and what could be left out.

    A trail charges for each data and network-activity event that it delivers, whatever rules store of it. Counts are of
    the whole UTC days that the period touches.

    Examples: `trailsift cost lake`, `trailsift cost --lake lake --by pattern --since -30d --limit 0 --csv`
    """
    _one_of(as_json, as_csv)
    handle = open_lake(lake, timezone)
    period = handle.period(since, until)
    default = 0 if as_csv else 20 if by else 8
    report = handle.cost(
        by, since=period.since, until=period.until, limit=default if limit is None else limit, prices=prices
    )

    def show() -> None:
        from trailsift.terminal.cost import show_cost

        show_cost(report, handle.path)

    _print(report, as_json, as_csv, None, show if report.days else None)
    if not report.days:
        say_why_empty(handle, period)
    return 0


def _one_of(as_json: bool, as_csv: bool) -> None:
    if as_json and as_csv:
        raise UsageError("use one of --json and --csv")


def _print(report: Any, as_json: bool, as_csv: bool, limit: int | None, show: Callable[[], None] | None) -> None:
    """Print a report as JSON, its main table as CSV, or show it."""
    from trailsift.terminal.output import print_csv, print_json

    if as_json:
        print_json(report.as_dict())
    elif as_csv:
        names, rows = report.table
        print_csv(names, _plain(names, rows[: limit or None]))
    elif show is not None:
        show()


def _plain(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterable[Sequence[Any]]:
    """Yield rows with their times as ISO 8601."""
    from trailsift.times import iso

    times = {place for place, name in enumerate(names) if name.endswith("_time")}
    for row in rows:
        yield [iso(value) if place in times and value is not None else value for place, value in enumerate(row)]
