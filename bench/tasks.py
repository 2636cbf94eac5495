"""Tasks of a measured child process: ``python bench/tasks.py TASK``, with JSON on standard input and output."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

Arguments = dict[str, Any]


def raw_question(arguments: Arguments) -> Arguments:
    """Query the log files directly with DuckDB, with a schema of only the fields that the query needs.

    ``files``: paths; ``role``, ``since``, ``until``: the query; ``threads``; ``auto``: let DuckDB infer the schema.
    """
    import duckdb

    files: list[str] = arguments["files"]
    db = duckdb.connect(config={"threads": arguments["threads"]})
    db.execute("SET preserve_insertion_order = false")
    identity = "STRUCT(sessionContext STRUCT(sessionIssuer STRUCT(arn VARCHAR)))"
    record = f"STRUCT(eventName VARCHAR, eventTime VARCHAR, userIdentity {identity})"
    if arguments.get("auto"):
        source = f"read_json_auto($files, maximum_object_size = {largest(files)})"
    else:
        source = (
            f"read_json($files, format = 'newline_delimited', records = 'true', columns = {{Records: '{record}[]'}},"
            f" maximum_object_size = {largest(files)})"
        )
    started = perf_counter()
    rows = db.execute(
        f"""
        SELECT r.eventName, count(*) FROM (SELECT unnest(Records) AS r FROM {source})
        WHERE r.userIdentity.sessionContext.sessionIssuer.arn = $role
          AND CAST(r.eventTime AS VARCHAR) >= $since AND CAST(r.eventTime AS VARCHAR) < $until
        GROUP BY ALL ORDER BY ALL
        """,
        {"files": files, **{name: arguments[name] for name in ("role", "since", "until")}},
    ).fetchall()
    return {"answer": dict(rows), "seconds": perf_counter() - started}


def largest(files: list[str]) -> int:
    """Return the size of the largest decompressed file, with a margin; gzip stores it in its last four bytes."""
    largest = 0
    for file in files:
        with Path(file).open("rb") as handle:
            handle.seek(-4, 2)
            largest = max(largest, struct.unpack("<I", handle.read(4))[0])
    return int(largest * 1.05) + (1 << 20)


def questions(arguments: Arguments) -> Arguments:
    """Time queries on an open engine, without cached results. ``lake``; ``repeat``; ``questions``: SQL by name."""
    from trailsift.lake.open import open_snapshot
    from trailsift.query import DuckDBEngine

    out: Arguments = {}
    started = perf_counter()
    with DuckDBEngine(open_snapshot(Path(arguments["lake"]))) as engine:
        out["open"] = perf_counter() - started
        for name, sql in arguments["questions"].items():
            times = []
            for _ in range(arguments["repeat"] + 1):
                started = perf_counter()
                rows = list(engine.query(sql, cache=False).rows())
                times.append(perf_counter() - started)
            out[name] = {"first": times[0], "median": median(times[1:]), "worst": max(times[1:]), "rows": rows}
    return out


def plain(arguments: Arguments) -> Arguments:
    """Read and parse every log object in ``folder`` with the standard library, and count the records."""
    import gzip

    files = Path(arguments["folder"]).rglob("*.json.gz")
    return {"records": sum(len(json.loads(gzip.decompress(file.read_bytes()))["Records"]) for file in files)}


TASKS: dict[str, Callable[[Arguments], Arguments]] = {
    "raw_question": raw_question,
    "questions": questions,
    "plain": plain,
}

if __name__ == "__main__":
    json.dump(TASKS[sys.argv[1]](json.load(sys.stdin)), sys.stdout, default=str)
