"""Tasks of a measured child of ``lakes``: ``python bench/lake_tasks.py TASK``, JSON on standard input and output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

from tasks import largest

Arguments = dict[str, Any]


def commits(arguments: Arguments) -> Arguments:
    """Run many ingests in a row. ``lake``; ``files``: log objects in delivery order; ``commits``: their number."""
    from trailsift.ingest import ingest

    files: list[str] = sorted(arguments["files"], key=lambda file: Path(file).name.split("_")[3])
    number = min(arguments["commits"], len(files))
    bounds = [len(files) * at // number for at in range(number + 1)]
    times = []
    for at in range(number):
        started = perf_counter()
        ingest(files[bounds[at] : bounds[at + 1]], Path(arguments["lake"]))
        times.append(perf_counter() - started)
    first, last = median(times[:100]), median(times[-100:])
    return {"commits": number, "first": first, "last": last, "mean": mean(times), "longest": max(times)}


def pick(arguments: Arguments) -> Arguments:
    """Pick an event id and a rarely used object key. ``lake``."""
    from trailsift.lake.open import open_snapshot
    from trailsift.query import DuckDBEngine

    with DuckDBEngine(open_snapshot(Path(arguments["lake"]))) as engine:
        sql = (
            "SELECT max(event_id) AS event_id, object_key FROM events WHERE service = 's3' AND object_key IS NOT NULL"
            " GROUP BY object_key ORDER BY abs(count(*) - 3), object_key LIMIT 1"
        )
        event_id, key = engine.query(sql, cache=False).rows()[0]
    return {"event_id": event_id, "object_key": key}


def questions(arguments: Arguments) -> Arguments:
    """Time queries on an open engine, and planning. ``lake``; ``repeat``; ``questions``: SQL by name."""
    from trailsift.lake import index
    from trailsift.lake.open import open_snapshot
    from trailsift.query import DuckDBEngine
    from trailsift.schema import TABLES

    lake = Path(arguments["lake"])
    snapshot = open_snapshot(lake)
    with DuckDBEngine(snapshot) as engine:

        def ask(sql: str) -> int:
            return len(engine.query(sql, cache=False).rows())

        timed = {name: _timed(partial(ask, sql), arguments["repeat"]) for name, sql in arguments["questions"].items()}
        plan = _timed(lambda: len(engine.plan("SELECT count(weight) FROM events").files), arguments["repeat"])
    on_disk = {file.relative_to(lake).as_posix(): file.stat().st_size for file in lake.rglob("*") if file.is_file()}
    # Replaced files stay for ten minutes, for readers that planned before.
    live = {file.path for name in TABLES for file in snapshot.files(name)}
    with closing(index.connect(lake)) as db:
        replaced = {path for (path,) in db.execute("SELECT path FROM seen_file WHERE removed IS NOT NULL")}
    kept = [path for path in on_disk if ("/data/" not in path or path in live) and path not in replaced]
    size = sum(map(on_disk.__getitem__, kept))
    sizes = {"bytes": size, "bytes_on_disk": sum(on_disk.values()), "files": len(snapshot.files("events"))}
    return {"questions": timed, "planning": plan["median"], **sizes}


def _timed(ask: Callable[[], int], repeat: int) -> Arguments:
    """Return the number of rows, and the median time after a first run."""
    rows = ask()
    times = []
    for _ in range(repeat):
        started = perf_counter()
        ask()
        times.append(perf_counter() - started)
    return {"rows": rows, "median": median(times)}


def raw(arguments: Arguments) -> Arguments:
    """Query the log files once. ``files``; ``fields``: of a record; ``sql``: over ``r``; ``threads``."""
    import duckdb

    files: list[str] = arguments["files"]
    db = duckdb.connect(config={"threads": arguments["threads"]})
    db.execute("SET preserve_insertion_order = false")
    source = (
        "read_json($files, format = 'newline_delimited', records = 'true',"
        f" columns = {{Records: 'STRUCT({arguments['fields']})[]'}}, maximum_object_size = {largest(files)})"
    )
    started = perf_counter()
    with_records = f"WITH r AS (SELECT unnest(Records) AS r FROM {source})"
    rows = db.execute(f"{with_records} {arguments['sql']}", {"files": files}).fetchall()
    total = sum(row[-1] for row in rows if isinstance(row[-1], int))
    return {"rows": len(rows), "rows_total": total, "seconds": perf_counter() - started}


_CHDB_TABLE = """
CREATE TABLE events (
    event_time DateTime('UTC'), event_id String CODEC(ZSTD(1)), event_name LowCardinality(String),
    role_arn LowCardinality(String), resource_arn LowCardinality(String), object_key String CODEC(ZSTD(1)),
    record String CODEC(ZSTD(1)),
    INDEX by_id event_id TYPE bloom_filter GRANULARITY 4, INDEX by_key object_key TYPE bloom_filter GRANULARITY 4
) ENGINE = MergeTree PARTITION BY toYYYYMM(event_time) ORDER BY (role_arn, event_time)
"""
_CHDB_LOAD = """
INSERT INTO events SELECT
    parseDateTimeBestEffort(JSONExtractString(r, 'eventTime'), 'UTC'), JSONExtractString(r, 'eventID'),
    JSONExtractString(r, 'eventName'), JSONExtractString(r, 'userIdentity', 'sessionContext', 'sessionIssuer', 'arn'),
    JSONExtractString(JSONExtractArrayRaw(r, 'resources')[1], 'ARN'),
    if(JSONType(r, 'requestParameters', 'key') = 'String', JSONExtractString(r, 'requestParameters', 'key'),
       JSONExtractRaw(r, 'requestParameters', 'key')), r
FROM (SELECT arrayJoin(JSONExtractArrayRaw(json, 'Records')) AS r FROM file('{logs}/**/*.json.gz', 'JSONAsString'))
"""


def chdb(arguments: Arguments) -> Arguments:
    """Query the same records in a chDB table. ``folder``; ``logs``; ``repeat``; ``questions``; ``threads``."""
    from chdb import session

    folder = Path(arguments["folder"])
    db = session.Session(str(folder))

    def ask(sql: str) -> int:
        return len(json.loads(str(db.query(sql, "JSONCompact")) or '{"data": []}')["data"])

    db.query("CREATE DATABASE IF NOT EXISTS lake")
    db.query("USE lake")
    db.query(f"SET max_threads = {arguments['threads']}")
    db.query(_CHDB_TABLE)
    started = perf_counter()
    db.query(_CHDB_LOAD.format(logs=arguments["logs"]))
    db.query("OPTIMIZE TABLE events FINAL")
    load = perf_counter() - started
    asked = {name: _timed(partial(ask, sql), arguments["repeat"]) for name, sql in arguments["questions"].items()}
    # Merged parts stay on disk for a while; the active parts are the table.
    size = json.loads(
        str(
            db.query(
                "SELECT sum(bytes_on_disk) AS n FROM system.parts WHERE active AND table = 'events'", "JSONCompact"
            )
        )
    )["data"][0][0]
    return {"load": load, "bytes": int(size), "questions": asked}


TASKS: dict[str, Callable[[Arguments], Arguments]] = {
    "commits": commits,
    "pick": pick,
    "questions": questions,
    "raw": raw,
    "chdb": chdb,
}

if __name__ == "__main__":
    json.dump(TASKS[sys.argv[1]](json.load(sys.stdin)), sys.stdout, default=str)
