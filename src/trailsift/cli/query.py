"""``trailsift query``, apart from its options."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trailsift.cli.output import binary_output
from trailsift.errors import UsageError

if TYPE_CHECKING:
    from trailsift.query.athena import Athena
    from trailsift.query.scan_estimate import ScanEstimate

#: Formats that a terminal cannot show.
BINARY = ("parquet", "arrow")


def run(
    sql: str,
    lake: Path,
    form: str,
    output: Path | None,
    *,
    explain: bool,
    timezone: str,
    ttl: float | None,
    cache: bool,
) -> int:
    """Runs one statement and writes its answer; says on standard error why it is empty. The exit code."""
    if form in BINARY and output is None and sys.stdout.isatty() and not explain:
        raise UsageError(f"--format {form} is not for a terminal: name a file with --output, or pipe it")
    from trailsift.lake.open import open_snapshot
    from trailsift.query.duckdb import DuckDBEngine
    from trailsift.query.formats import write

    with DuckDBEngine(open_snapshot(lake), timezone=timezone) as engine:
        if explain:
            print(engine.explain(sql))
            return 0
        result = engine.query(sql, cache=cache, ttl=ttl, arrow=form in BINARY)
        with binary_output(output) as out:
            count = write(result, form, out, **_shape(form, out, output))
        if not count:
            from trailsift.query.empty_result import why_empty

            print(f"trailsift: {why_empty(engine, result)}", file=sys.stderr)
    return 0


def run_on_athena(
    sql: str,
    form: str,
    output: Path | None,
    explain: bool,
    timezone: str,
    *,
    workgroup: str,
    database: str,
    reuse: int,
    prices: Path | None,
) -> int:
    """Runs one statement on Athena and says on standard error what it will cost and what it did. The exit code."""
    from trailsift.aws.glue_catalog import GlueCatalog
    from trailsift.prices import load_prices
    from trailsift.query.athena import Athena
    from trailsift.query.formats import write
    from trailsift.query.trino_sql import translate

    if form in BINARY:
        raise UsageError(f"answers of Athena come as table, json or csv, not {form}")
    # What Athena cannot run needs no credentials to be refused.
    translate(sql, database)
    # Opened when the estimate needs it, so that a lack of credentials only prevents the estimate.
    catalog = cache(lambda: GlueCatalog(database))
    athena = Athena(
        workgroup,
        database,
        reuse=reuse,
        timezone=timezone,
        price_list=load_prices(prices),
        files_of=lambda table: catalog().files(table),
    )
    estimate = _estimate(athena, sql)
    if explain:
        print(athena.explained(sql, estimate))
        return 0
    result = athena.query(sql)
    with binary_output(output) as out:
        count = write(result, form, out, **_shape(form, out, output))
    if athena.cost is not None:
        known = " from an earlier answer" if athena.cost.reused else ""
        print(f"trailsift: Athena read {athena.cost.bytes:,} bytes{known}: ${athena.cost.usd:.6f}", file=sys.stderr)
    if not count:
        print("trailsift: nothing matched", file=sys.stderr)
    return 0


def _estimate(athena: Athena, sql: str) -> ScanEstimate | None:
    """Return what the statement will read and print it on standard error; None, with the reason, if it is unknown."""
    from trailsift.errors import TrailsiftError
    from trailsift.query.athena import cost_of
    from trailsift.query.explanation import size

    try:
        estimate = athena.estimate(sql)
    except TrailsiftError as error:
        print(f"trailsift: cannot estimate what Athena will read: {error}", file=sys.stderr)
        return None
    usd = cost_of(estimate.bytes, price_list=athena.prices).usd
    print(
        f"trailsift: Athena will read up to {size(estimate.bytes)} in {estimate.files:,} of {estimate.of_files:,} "
        f"files: about ${usd:.6f}",
        file=sys.stderr,
    )
    return estimate


def _shape(form: str, out: IO[Any], output: Path | None) -> dict[str, Any]:
    """A table in a file or a pipe has no terminal's width and no end."""
    if form != "table" or (output is None and sys.stdout.isatty()):
        return {}
    return {"max_rows": None}
