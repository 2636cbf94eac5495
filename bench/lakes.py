"""A large lake made in one go, and the same in many commits: what questions to it take; writes a Markdown page.

    python bench/lakes.py --events 10000000 --days 60 --commits 2000 --data /somewhere/logs --out bench/LAKES.md

Beside each question stands the same one put by DuckDB to the log files, with a schema of just the fields that it needs,
and to a chDB table of the same records (PyPI `chdb`, the extra `bench`; without it that column says so). All must give
the same number of rows, else nothing is reported.
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

TASKS = str(Path(__file__).with_name("lake_tasks.py"))
CLI = ("-m", "trailsift.cli")
LIMITS = {"one role's day": 50, "an hourly chart of all days": 100, "one event by its id": 300, "one object key": 300}


@dataclass(frozen=True)
class Question:
    """One question in three languages. ``fields``: those of a record that DuckDB needs to answer it from the files."""

    name: str
    lake: str
    fields: str
    raw: str
    chdb: str


@dataclass
class Measured:
    """Everything that was measured; by lake, then by question."""

    ingest: dict[str, float] = field(default_factory=dict)
    commits: dict[str, Any] = field(default_factory=dict)
    compact: dict[str, Any] = field(default_factory=dict)
    lakes: dict[str, dict[str, Any]] = field(default_factory=dict)
    cold: dict[str, float] = field(default_factory=dict)
    raw: dict[str, float] = field(default_factory=dict)
    chdb: dict[str, Any] | str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and reports; exit code 1 where the sides disagree or a step fails."""
    known = parser(__doc__, events=10_000_000, days=60, repeat=11, cold=5)
    known.add_argument("--commits", type=int, default=2000, help="ingests that make the second lake")
    options = known.parse_args(argv)
    return write_page(options, lambda data, work: report(data, measure(data, work, options), options))


def measure(data: Data, work: Path, options: argparse.Namespace) -> Measured:
    """Both lakes, the files and chDB."""
    out = Measured()
    env = os.environ | {"XDG_CACHE_HOME": str(work / "cache")}
    lakes = {"in one go": work / "whole", f"in {options.commits:,} commits": work / "commits"}
    first, second = lakes
    say("ingest in one go")
    logs = str(data.folder / "AWSLogs")
    command = python(*CLI, "ingest", logs, "--lake", str(lakes[first]), "--json", "--quiet")
    out.ingest[first] = run([*command, "--workers", str(options.threads)], env=env).seconds
    say(f"the same {second}")
    made = _task("commits", env, lake=lakes[second], files=data.files, commits=options.commits)
    out.ingest[second], out.commits = made.seconds, made.answer
    for name, lake in lakes.items():
        say(f"compact the lake made {name}")
        out.compact[name] = run(python(*CLI, "compact", "--lake", str(lake), "--json", "--quiet"), env=env).answer
    asked = _questions(data, _task("pick", env, lake=lakes[first]).answer)
    sql = {question.name: question.lake for question in asked}
    for name, lake in lakes.items():
        say(f"questions to the lake made {name}")
        out.lakes[name] = _task("questions", env, lake=lake, repeat=options.repeat, questions=sql).answer
        cold = python(*CLI, "query", asked[0].lake, "--lake", str(lake), "--format", "json", "--no-cache")
        out.cold[name] = median(run(cold, env=env).seconds for _ in range(options.cold))
    rows = {name: one["rows"] for name, one in out.lakes[first]["questions"].items()}
    assert rows == {name: one["rows"] for name, one in out.lakes[second]["questions"].items()}, "the lakes differ"
    for question in asked:
        say(f"{question.name}, from the files")
        args = {"files": data.files, "fields": question.fields, "sql": question.raw, "threads": options.threads}
        ran = _task("raw", env, **args)
        assert ran.answer["rows"] == rows[question.name], f"{question.name}: {ran.answer} from the files, {rows}"
        out.raw[question.name] = ran.answer["seconds"]
    if find_spec("chdb") is None:
        out.chdb = "not installed"
        say("chDB is not installed (the extra `bench`): its column stays empty")
        return out
    say("the same records in chDB")
    sql = {question.name: question.chdb for question in asked}
    shutil.rmtree(lakes[second])
    args = {"folder": work / "chdb", "logs": logs, "repeat": options.repeat, "questions": sql}
    answer = _task("chdb", env, **args, threads=options.threads).answer
    assert {name: one["rows"] for name, one in answer["questions"].items()} == rows, f"chDB differs: {answer}"
    out.chdb = answer
    return out


def _task(name: str, env: dict[str, str], **arguments: Any) -> Run:
    return run(python(TASKS, name), text=json.dumps(arguments, default=str), env=env)


def _questions(data: Data, picked: dict[str, str]) -> list[Question]:
    role, day, until = data.role, data.day, data.next_day
    event_id, key = picked["event_id"], picked["object_key"].replace("'", "''")
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
            f"SELECT event_time, event_name, role_arn FROM events WHERE object_key = '{key}'",
            f"eventTime VARCHAR, eventName VARCHAR, {parameters}",
            f"SELECT r.eventTime, r.eventName FROM r WHERE json_extract_string(r.requestParameters.key, '$') = '{key}'",
            f"SELECT event_time, event_name, role_arn FROM events WHERE object_key = '{key}'",
        ),
    ]


def report(data: Data, seen: Measured, options: argparse.Namespace) -> str:
    """The page."""
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
        " the page cache. Lakes were compacted before they were asked.",
        "",
        f"| the lake, made | {' | '.join(names)} |",
        "|---|" + "---|" * len(names),
        _row("ingest", [f"{seen.ingest[name]:,.0f} s" for name in names]),
        _row("`compact` afterwards", [f"{seen.compact[name]['seconds']:,.1f} s" for name in names]),
        _row("size, of the gzip", [f"{seen.lakes[name]['bytes'] / data.gz_bytes:.2f}" for name in names]),
        _row(
            "the same with what awaits deletion",
            [f"{seen.lakes[name]['bytes_on_disk'] / data.gz_bytes:.2f}" for name in names],
        ),
        _row("files of `events`", [f"{seen.lakes[name]['files']:,}" for name in names]),
        _row("cold `trailsift query`, one role's day", [f"{seen.cold[name] * 1000:,.0f} ms" for name in names]),
        _row("planning without a filter", [f"{seen.lakes[name]['planning'] * 1000:.1f} ms" for name in names]),
        "",
        f"{seen.commits['commits']:,} commits in a row, tidying up included: median of the first 100"
        f" {seen.commits['first'] * 1000:.0f} ms, of the last 100 {seen.commits['last'] * 1000:.0f} ms, mean of all"
        f" {seen.commits['mean'] * 1000:.0f} ms, longest {seen.commits['longest']:.1f} s.",
        "",
        "Medians of questions to an open engine; the files are asked once:",
        "",
        f"| question | {' | '.join(f'lake made {name}' for name in names)} | aim | DuckDB on the files | chDB |",
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
        f" On disk: {seen['bytes'] / data.gz_bytes:.2f} of the gzip."
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
