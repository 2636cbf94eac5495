"""``trailsift query``, apart from its options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any

from trailsift.cli.output import binary_output
from trailsift.errors import UsageError

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
    from trailsift.engine import Engine, why_empty, write
    from trailsift.engine import explain as explained
    from trailsift.store.index import open_snapshot

    with Engine(open_snapshot(lake), timezone=timezone) as engine:
        if explain:
            print(explained(engine, sql))
            return 0
        result = engine.query(sql, cache=cache, ttl=ttl, arrow=form in BINARY)
        with binary_output(output) as out:
            count = write(result, form, out, **_shape(form, out, output))
        if not count:
            print(f"trailsift: {why_empty(engine, result)}", file=sys.stderr)
    return 0


def _shape(form: str, out: IO[Any], output: Path | None) -> dict[str, Any]:
    """A table in a file or a pipe has no terminal's width and no end."""
    if form != "table" or (output is None and sys.stdout.isatty()):
        return {}
    return {"max_rows": None}
