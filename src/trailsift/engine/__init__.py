"""The query engine: SQL over a lake, on DuckDB.

::

    from trailsift.engine import Engine, explain, why_empty, write
    from trailsift.lake.index import open_snapshot

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

from trailsift.engine.cache import Cache
from trailsift.engine.duck import Engine
from trailsift.engine.empty import why_empty
from trailsift.engine.explanation import Explanation, explain
from trailsift.engine.plan import Plan, Scan
from trailsift.engine.render import FORMATS, write
from trailsift.engine.result import Result

__all__ = [
    "FORMATS",
    "Cache",
    "Engine",
    "Explanation",
    "Plan",
    "Result",
    "Scan",
    "explain",
    "why_empty",
    "write",
]
