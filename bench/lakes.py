"""Time queries on a large lake made in one ingest, and on the same lake made in many; write a Markdown page.

    python bench/lakes.py --events 10000000 --days 60 --commits 2000 --data /somewhere/logs --out bench/LAKES.md

Each query also runs in DuckDB on the log files, with a schema of only the fields that it needs, and on a chDB table of
the same records (PyPI `chdb`, the extra `bench`; without it that column says so). All must return the same number of
rows; otherwise nothing is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import trailsift
from page import Data, parser, say, write_page
from process import Run, python, run
from trailsift.query.relations import text

TASKS = str(Path(__file__).with_name("lake_tasks.py"))
CLI = ("-m", "trailsift.cli")
LIMITS = {"one role's day": 50, "an hourly chart of all days": 100, "one event by its id": 300, "one object key": 300}


@dataclass(frozen=True)
class Question:
    """One query in three forms. ``fields``: the record fields that DuckDB needs for it on the files."""

    name: str
    lake: str
    fields: str
    raw: str
    chdb: str


@dataclass
class Measured:
    """All measurements, by lake, then by query."""

    ingest: dict[str, float] = field(default_factory=dict)
    commits: dict[str, Any] = field(default_factory=dict)
    compact: dict[str, Any] = field(default_factory=dict)
    lakes: dict[str, dict[str, Any]] = field(default_factory=dict)
    cold: dict[str, float] = field(default_factory=dict)
    raw: dict[str, float] = field(default_factory=dict)
    chdb: dict[str, Any] | str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; return 1 if the sides disagree or a step fails."""
    arguments = parser(__doc__, events=10_000_000, days=60, repeat=11, cold=5)
    arguments.add_argument("--commits", type=int, default=2000, help="number of ingests for the second lake")
    options = arguments.parse_args(argv)
    return write_page(options, lambda data, work: report(data, measure(data, work, options), options))


def measure(data: Data, work: Path, options: argparse.Namespace) -> Measured:
    """Measure both lakes, the files and chDB."""
    out = Measured()
    env = os.environ | {"XDG_CACHE_HOME": str(work / "cache")}
    lakes = {"in one ingest": work / "whole", f"in {options.commits:,} commits": work / "commits"}
    first, second = lakes
    say("one ingest")
    logs = str(data.folder / "AWSLogs")
    command = python(*CLI, "ingest", logs, "--lake", str(lakes[first]), "--json", "--quiet")
    out.ingest[first] = run([*command, "--workers", str(options.threads)], env=env).seconds
    say(f"the same {second}")
    ran = _task("commits", env, lake=lakes[second], files=data.files, commits=options.commits)
    out.ingest[second], out.commits = ran.seconds, ran.answer
    for name, lake in lakes.items():
        say(f"compact the lake made {name}")
        out.compact[name] = run(python(*CLI, "compact", "--lake", str(lake), "--json", "--quiet"), env=env).answer
    queries = _questions(data, _task("pick", env, lake=lakes[first]).answer)
    sql = {question.name: question.lake for question in queries}
    for name, lake in lakes.items():
        say(f"queries on the lake made {name}")
        out.lakes[name] = _task("questions", env, lake=lake, repeat=options.repeat, questions=sql).answer
        cold = python(*CLI, "query", queries[0].lake, "--lake", str(lake), "--format", "json", "--no-cache")
        out.cold[name] = median(run(cold, env=env).seconds for _ in range(options.cold))
    rows = {name: timed["rows"] for name, timed in out.lakes[first]["questions"].items()}
    assert rows == {name: timed["rows"] for name, timed in out.lakes[second]["questions"].items()}, "the lakes differ"
    for question in queries:
        say(f"{question.name}, on the files")
        args = {"files": data.files, "fields": question.fields, "sql": question.raw, "threads": options.threads}
        ran = _task("raw", env, **args)
        assert ran.answer["rows"] == rows[question.name], f"{question.name}: {ran.answer} from the files, {rows}"
        out.raw[question.name] = ran.answer["seconds"]
    if find_spec("chdb") is None:
        out.chdb = "not installed"
        say("chDB is not installed (the extra `bench`): its column stays empty")
        return out
    say("the same records in chDB")
    sql = {question.name: question.chdb for question in queries}
    shutil.rmtree(lakes[second])
    args = {"folder": work / "chdb", "logs": logs, "repeat": options.repeat, "questions": sql}
    answer = _task("chdb", env, **args, threads=options.threads).answer
    assert {name: timed["rows"] for name, timed in answer["questions"].items()} == rows, f"chDB differs: {answer}"
    out.chdb = answer
    return out


def _task(name: str, env: dict[str, str], **arguments: Any) -> Run:
    return run(python(TASKS, name), text=json.dumps(arguments, default=str), env=env)


def _questions(data: Data, picked: dict[str, str]) -> list[Question]:
    role, day, until = data.role, data.day, data.next_day
    event_id, key = picked["event_id"], text(picked["object_key"])
    issuer = "userIdentity STRUCT(sessionContext STRUCT(sessionIssuer STRUCT(arn VARCHAR)))"
    parameters = 'requestParameters STRUCT("key" JSON)'
    return [
        Question(
            "one role's day",
            f"SELECT event_name, count(*) FROM events WHERE role_arn = '{role}' AND event_time >= '{day}'"
            f" AND event_time < '{until}' GROUP BY event_name",
            f"eventName VARCHAR, eventTime VARCHAR, {issuer}",
            f"SELECT r.eventName, count(*) FROM r WHERE r.userIdentity.sessionContext.sessionIssuer.arn = '{role}'"
            f" AND r.eventTime >= '{day}' AND r.eventTime < '{until}' GROUP BY 1",
            f"SELECT event_name, count() FROM events WHERE role_arn = '{role}' AND event_time >= '{day} 00:00:00'"
            f" AND event_time < '{until} 00:00:00' GROUP BY 1",
        ),
        Question(
            "an hourly chart of all days",
            "SELECT hour, sum(events) FROM hourly GROUP BY hour",
            "eventTime VARCHAR",
            "SELECT r.eventTime[1:13], count(*) FROM r GROUP BY 1",
            "SELECT toStartOfHour(event_time), count() FROM events GROUP BY 1",
        ),
        Question(
            "one event by its id",
            f"SELECT event_time, event_name, role_arn FROM events WHERE event_id = '{event_id}'",
            f"eventID VARCHAR, eventTime VARCHAR, eventName VARCHAR, {issuer}",
            f"SELECT r.eventTime, r.eventName FROM r WHERE r.eventID = '{event_id}'",
            f"SELECT event_time, event_name, role_arn FROM events WHERE event_id = '{event_id}'",
        ),
        Question(
            "one object key",
            f"SELECT event_time, event_name, role_arn FROM events WHERE object_key = {key}",
            f"eventTime VARCHAR, eventName VARCHAR, {parameters}",
            f"SELECT r.eventTime, r.eventName FROM r WHERE json_extract_string(r.requestParameters.key, '$') = {key}",
            f"SELECT event_time, event_name, role_arn FROM events WHERE object_key = {key}",
        ),
    ]


def report(data: Data, seen: Measured, options: argparse.Namespace) -> str:
    """Return the page."""
    names = list(seen.lakes)
    lines = [
        "# A large lake",
        "",
        f"Made by `make bench-lakes` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.system()}"
        f" {platform.machine()}, Python {platform.python_version()}, trailsift {trailsift.__version__},"
        f" duckdb {version('duckdb')}, chDB {_chdb_version()}.",
        "",
        f"{data.events:,} generated events of {data.days:g} days in {len(data.files):,} log objects,"
        f" {data.gz_bytes / 1e6:,.0f} MB as gzip (seed {data.seed}); {options.threads} threads on all sides; files in"
        " the page cache. Lakes were compacted before the queries.",
        "",
        f"| the lake, made | {' | '.join(names)} |",
        "|---|" + "---|" * len(names),
        _row("ingest", [f"{seen.ingest[name]:,.0f} s" for name in names]),
        _row("`compact` afterwards", [f"{seen.compact[name]['seconds']:,.1f} s" for name in names]),
        _row("size / gzip size", [f"{seen.lakes[name]['bytes'] / data.gz_bytes:.2f}" for name in names]),
        _row(
            "the same, including files awaiting deletion",
            [f"{seen.lakes[name]['bytes_on_disk'] / data.gz_bytes:.2f}" for name in names],
        ),
        _row("files of `events`", [f"{seen.lakes[name]['files']:,}" for name in names]),
        _row("cold `trailsift query`, one role's day", [f"{seen.cold[name] * 1000:,.0f} ms" for name in names]),
        _row("planning without a filter", [f"{seen.lakes[name]['planning'] * 1000:.1f} ms" for name in names]),
        "",
        f"{seen.commits['commits']:,} commits in a row, including maintenance: median of the first 100"
        f" {seen.commits['first'] * 1000:.0f} ms, of the last 100 {seen.commits['last'] * 1000:.0f} ms, mean of all"
        f" {seen.commits['mean'] * 1000:.0f} ms, longest {seen.commits['longest']:.1f} s.",
        "",
        "Medians of queries on an open engine; the files are queried once:",
        "",
        f"| query | {' | '.join(f'lake made {name}' for name in names)} | target | DuckDB on the files | chDB |",
        "|---|" + "---|" * (len(names) + 3),
    ]
    for question, limit in LIMITS.items():
        times = [f"{seen.lakes[name]['questions'][question]['median'] * 1000:.1f} ms" for name in names]
        other = "-" if isinstance(seen.chdb, str) else f"{seen.chdb['questions'][question]['median'] * 1000:.1f} ms"
        lines.append(_row(question, [*times, f"{limit} ms", f"{seen.raw[question]:.1f} s", other]))
    lines += ["", _about_chdb(data, seen.chdb)]
    return "\n".join(lines) + "\n"


def _about_chdb(data: Data, seen: dict[str, Any] | str) -> str:
    if isinstance(seen, str):
        return f"chDB: {seen}."
    return (
        f"chDB took {seen['load']:,.0f} s to load the same records: six typed columns and the record as text (ZSTD),"
        " sorted by role and time, partitioned by month, Bloom filters on id and key; no deduplication, no summaries."
        f" Size on disk / gzip size: {seen['bytes'] / data.gz_bytes:.2f}."
    )


def _row(name: str, values: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(values)} |"


def _chdb_version() -> str:
    try:
        return version("chdb")
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
