"""DuckDB's client, without the Python package around it.

``import duckdb`` reads its own package metadata and opens a default database, which nothing here uses: half of the
start-up time of a query. The extension module below it has every name that the engine needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb
else:
    try:
        import _duckdb as duckdb
    except ImportError:
        import duckdb

__all__ = ["duckdb"]
