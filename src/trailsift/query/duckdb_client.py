"""DuckDB's client, without the Python package around it.

``import duckdb`` reads its own package metadata and opens a default database, neither of which is used here, and takes
twice as long as the extension module below it (about 100 instead of 50 ms). That module has every name that the engine
needs.
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
