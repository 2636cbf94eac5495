"""A DuckDB database file, for clients that open files and run no script."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import duckdb

from trailsift.errors import EngineError


def write_database(path: Path, script: str) -> None:
    """Makes a database that has run ``script``; one that is there is replaced whole, or stays as it was.

    EngineError where it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        with duckdb.connect(str(partial)) as db:
            db.execute(script)
        partial.replace(path)
    except (OSError, duckdb.Error) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise EngineError(f"the database {path} cannot be written: {error}") from error
