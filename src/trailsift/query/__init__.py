"""Query engines: SQL over a lake with DuckDB, or over the same tables in AWS with Athena.

::

    from trailsift.lake.open import open_snapshot
    from trailsift.query import DuckDBEngine, explain, why_empty, write

    with DuckDBEngine(open_snapshot(root)) as engine:
        result = engine.query("SELECT event_name, count(*) AS n FROM events GROUP BY ALL")
        result.rows()                               # list of tuples
        write(result, "json", sys.stdout.buffer)    # one of FORMATS
        if result.count == 0:
            print(why_empty(engine, result))
        print(explain(engine, "SELECT ..."))        # files, bytes, what Athena would charge

A statement passes sandbox -> planner (pruning) -> views -> execution -> result. Each name below is imported on first
use, so that a query loads DuckDB and nothing that it does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trailsift.query.duckdb import DuckDBEngine
    from trailsift.query.empty_result import why_empty
    from trailsift.query.engine import Engine, QueryEngine
    from trailsift.query.explanation import Explanation, explain
    from trailsift.query.formats import FORMATS, write
    from trailsift.query.planner import Plan, Scan
    from trailsift.query.result import Result
    from trailsift.query.result_cache import Cache

__all__ = [
    "FORMATS",
    "Cache",
    "DuckDBEngine",
    "Engine",
    "Explanation",
    "Plan",
    "QueryEngine",
    "Result",
    "Scan",
    "explain",
    "why_empty",
    "write",
]

_MODULES = {
    "FORMATS": "formats",
    "Cache": "result_cache",
    "DuckDBEngine": "duckdb",
    "Engine": "engine",
    "Explanation": "explanation",
    "Plan": "planner",
    "QueryEngine": "engine",
    "Result": "result",
    "Scan": "planner",
    "explain": "explanation",
    "why_empty": "empty_result",
    "write": "formats",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
