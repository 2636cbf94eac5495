"""The body of ``trailsift query``: on the lake by DuckDB, or on Athena."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trailsift import cli
from trailsift.errors import EngineError, TrailsiftError, UsageError
from trailsift.terminal.output import is_terminal, print_lines, say

if TYPE_CHECKING:
    from trailsift.api import Lake
    from trailsift.query.athena import Athena
    from trailsift.query.query_result import QueryResult
    from trailsift.query.scan_estimate import ScanEstimate

#: Formats that a terminal cannot show.
BINARY = ("parquet", "arrow")


class AthenaOptions(NamedTuple):
    """Where and how Athena runs; ``reuse``: minutes for which it may reuse a result."""

    workgroup: str
    database: str
    reuse: int
    prices: Path | None


class OutputOptions(NamedTuple):
    """Where a result goes and how; ``formulas``: whether csv may hold texts that a spreadsheet takes for formulas."""

    form: str
    path: Path | None = None
    formulas: bool = True


class RunOptions(NamedTuple):
    """How a statement runs: ``ttl`` and ``cache`` of its result, seconds that it may take, memory that it may use."""

    ttl: float | None = None
    cache: bool = True
    timeout: float | None = None
    memory: str | None = None


def format_of(output: Path | None) -> str:
    """Return the format of an output for which none was named: by the end of its name, else a table."""
    if output is None:
        return "table"
    from trailsift.query.formats import SUFFIXES

    return SUFFIXES.get(output.suffix.lower(), "table")


def run(lake: Lake, sql: str, output: OutputOptions, *, explain: bool, options: RunOptions) -> int:
    """Run one statement, write its result, and say on standard error why it is empty. Return the exit code."""
    from trailsift.query.limits import bound_process

    form = output.form
    if form in BINARY and output.path is None and is_terminal(sys.stdout) and not explain:
        raise UsageError(f"--format {form} cannot be shown on a terminal: name a file with --output, or use a pipe")
    if cli.is_own_process:
        bound_process(options.memory)
    with lake:
        if explain:
            print_lines(lake.explain(sql, timeout=options.timeout))
            return 0
        result = lake.query(sql, cache=options.cache, ttl=options.ttl, timeout=options.timeout, arrow=form in BINARY)
        if not write_result(result, output):
            say(result.why_empty())
    return 0


def run_on_athena(sql: str, output: OutputOptions, explain: bool, timezone: str, options: AthenaOptions) -> int:
    """Run one statement on Athena; say on standard error what it will cost and what it cost. Return the exit code."""
    from trailsift.aws.glue_catalog import GlueCatalog
    from trailsift.prices import load_prices
    from trailsift.query.athena import Athena
    from trailsift.query.query_result import QueryResult
    from trailsift.query.trino_sql import translate

    if output.form in BINARY:
        raise UsageError(f"results of Athena come as table, line, json or csv, not as {output.form}")
    # SQL that Athena cannot run is refused before any credentials are needed.
    translate(sql, options.database, timezone)
    # Opened when the estimate needs it, so that a lack of credentials only prevents the estimate.
    catalog = functools.cache(lambda: GlueCatalog(options.database))
    athena = Athena(
        options.workgroup,
        options.database,
        reuse=options.reuse,
        timezone=timezone,
        price_list=load_prices(options.prices),
        files_of=lambda table: catalog().files(table),
        registered=lambda table: catalog().is_registered(table),
    )
    estimate = _estimate(athena, sql)
    if explain:
        print_lines(athena.explained(sql, estimate))
        return 0
    _warn_without_cutoff(athena)
    result = QueryResult(athena.query(sql))
    count = write_result(result, output)
    if athena.cost is not None:
        age = f" from a result at most {options.reuse} minutes old (--no-cache runs it again)"
        reused = age if athena.cost.reused else ""
        say(f"Athena read {athena.cost.bytes:,} bytes{reused}: {athena.cost.text()}")
    if not count:
        say(result.why_empty())
    return 0


def _warn_without_cutoff(athena: Athena) -> None:
    """Say on standard error if nothing limits what the statement may cost."""
    try:
        cutoff = athena.cutoff()
    except EngineError:
        raise
    except TrailsiftError:
        # The query itself needs no GetWorkGroup.
        return
    if cutoff is None:
        say(f"the workgroup {athena.workgroup} has no limit of bytes per query: this one costs whatever it reads")


def _estimate(athena: Athena, sql: str) -> ScanEstimate | None:
    """Say on standard error how much the statement will read, or why that is unknown (then return None)."""
    from trailsift.query.athena import cost_of
    from trailsift.query.explanation import size

    try:
        estimate = athena.estimate(sql)
    except TrailsiftError as error:
        say(f"how much it will read is unknown: {error}")
        return None
    cost = cost_of(estimate.bytes, price_list=athena.prices)
    files = f"{estimate.files:,} of {estimate.of_files:,} files"
    say(f"Athena will read up to {size(estimate.bytes)} in {files}: about {cost.text()}")
    return estimate


def write_result(result: QueryResult, output: OutputOptions) -> int:
    """Write a result to a file or to standard output, where a terminal gets a table's first rows only."""
    from trailsift.query.formats import TABLE_ROWS

    form, path, formulas = output
    if path is not None:
        return result.write(path, form, formulas=formulas)
    sys.stdout.flush()
    terminal = is_terminal(sys.stdout)
    limit = TABLE_ROWS if terminal else None
    count = result.write(sys.stdout.buffer, form, max_rows=limit, terminal=terminal, formulas=formulas)
    sys.stdout.buffer.flush()
    return count
