"""The query engine: SQL over a lake, on DuckDB.

::

    from trailsift.query import Engine, explain, why_empty, write
    from trailsift.lake.open import open_snapshot

    with Engine(open_snapshot(root)) as engine:
        result = engine.query("SELECT event_name, count(*) AS n FROM events GROUP BY ALL")
        result.rows()                               # list of tuples
        write(result, "json", sys.stdout.buffer)    # one of FORMATS
        if result.count == 0:
            print(why_empty(engine, result))
        print(explain(engine, "SELECT ..."))        # files, bytes, what Athena would charge

Importing this package loads DuckDB and nothing heavier; pyarrow and rich load when a format needs them.
"""

from __future__ import annotations

from trailsift.query.duckdb import DuckDBEngine
from trailsift.query.empty_result import why_empty
from trailsift.query.explanation import Explanation, explain
from trailsift.query.formats import FORMATS, write
from trailsift.query.planner import Plan, Scan
from trailsift.query.result import Result
from trailsift.query.result_cache import Cache

__all__ = [
    "FORMATS",
    "Cache",
    "DuckDBEngine",
    "Explanation",
    "Plan",
    "Result",
    "Scan",
    "explain",
    "why_empty",
    "write",
]
