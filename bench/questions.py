"""Measure resource, object, search, compare and cost in process, beside the same questions on the raw files.

    python bench/questions.py --events 10000000 --days 60 --data /somewhere/logs --out bench/QUESTIONS.md

Each question is asked of many resources, objects, terms and periods, chosen by a rule from what the lake holds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import trailsift
from page import Data, parser, say, state_of_code, write_page
from process import python, run

_RECORD = "userIdentity STRUCT(arn VARCHAR), eventName VARCHAR"
_BUCKET = 'requestParameters STRUCT(bucketName VARCHAR, "key" VARCHAR)'
#: Milliseconds that p50 and p95 should stay below.
TARGETS = {"resource": (150, 500), "object": (150, 500), "search": (150, 500), "compare": (300, 0), "cost": (200, 0)}


@dataclass
class Question:
    """A question: its calls in process, what each counts, and the same on the raw files for the first of them."""

    name: str
    about: str
    calls: list[Callable[[], int]]
    fields: str
    raw: str
    times: list[float] = field(default_factory=list)
    first: float = 0.0
    count: int = 0
    raw_seconds: float = 0.0
    raw_count: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; return 1 if a step fails."""
    arguments = parser(__doc__, events=10_000_000, days=60, repeat=5, cold=0)
    arguments.add_argument("--lake", type=Path, help="a lake of these logs, or where to keep it")
    arguments.add_argument("--no-raw", action="store_true", help="leave the raw files out")
    options = arguments.parse_args(argv)
    return write_page(options, lambda data, work: measure(data, work, options))


def measure(data: Data, work: Path, options: argparse.Namespace) -> str:
    """Return the page."""
    place = options.lake or work / "lake"
    if not (place / "lake.json").exists():
        say("ingesting")
        words = [
            "ingest",
            str(data.folder / "AWSLogs"),
            "--lake",
            str(place),
            "--workers",
            str(options.threads),
            "-q",
            "--json",
        ]
        run(python("-m", "trailsift.cli", *words), env=dict(os.environ))
    with trailsift.Lake(place, threads=options.threads) as lake:
        listed = questions(lake, data)
        for question in listed:
            started = perf_counter()
            question.count = question.calls[0]()
            question.first = perf_counter() - started
            for _ in range(options.repeat):
                for call in question.calls:
                    started = perf_counter()
                    call()
                    question.times.append(perf_counter() - started)
            say(f"{question.name}: p50 {_part(question.times, 0.5) * 1000:.0f} ms of {len(question.times)}")
    for question in [] if options.no_raw else listed:
        tasks = str(Path(__file__).with_name("lake_tasks.py"))
        given = {"files": data.files, "fields": question.fields, "sql": question.raw, "threads": options.threads}
        answer = run(python(tasks, "raw"), text=json.dumps(given)).answer
        question.raw_seconds = answer["seconds"]
        say(f"{question.name} on the raw files: {answer['seconds']:.1f} s")
        question.raw_count = answer["rows_total"]
    return page(listed, data, options)


def questions(lake: trailsift.Lake, data: Data) -> list[Question]:
    """Return the questions, with names that the lake has: the busiest, the rarest, and some between."""

    def spread(sql: str, number: int) -> list[Any]:
        rows = [row[0] for row in lake.query(sql, cache=False).rows()]
        step = max(len(rows) // number, 1)
        return rows[::step][:number]

    by_events = "SELECT {0} FROM {1} WHERE {2} GROUP BY {0} ORDER BY sum(events) DESC, {0}"
    buckets = spread(
        by_events.format("resource_arn", "usage", "service = 's3' AND resource_arn LIKE 'arn:aws:s3:::%'"), 9
    )
    resources = [
        *buckets,
        *spread(by_events.format("resource_arn", "usage", "service <> 's3' AND resource_arn <> ''"), 5),
    ]
    objects = spread(
        "SELECT resource_arn || '/' || object_key FROM events WHERE object_key IS NOT NULL AND service = 's3' "
        "AND resource_arn LIKE 'arn:aws:s3:::%' AND NOT contains(object_key, '*') AND hash(event_id) % 500 = 0 "
        "GROUP BY 1 ORDER BY count(*) DESC, 1", 20,
    )  # fmt: skip
    addresses = spread("SELECT source_ip FROM events WHERE contains(source_ip, '.') AND NOT contains(source_ip, 'aws') "
                       "GROUP BY 1 ORDER BY count(*) DESC, 1", 6)  # fmt: skip
    some = "SELECT max({0}) FROM events WHERE {0} IS NOT NULL AND day = '{1}'"
    one = [lake.query(some.format(name, data.day[-2:]), cache=False).value()
           for name in ("event_id", "request_id", "access_key_id", "session_name")]  # fmt: skip
    key = objects[len(objects) // 2].partition(":::")[2].partition("/")[2]
    terms = [
        *addresses,
        "10.0.0.0/8",
        *filter(None, one),
        "orders",
        "etl-batch",
        "aws-sdk-java",
        key,
        resources[3],
        "nothing-has-this",
    ]
    bucket, _, object_key = objects[0].removeprefix("arn:aws:s3:::").partition("/")
    end = datetime.fromisoformat(data.day) + timedelta(days=min(data.days / 2, 28) - 1)
    weeks = [end - timedelta(days=back) for back in (0, 3, 7)]
    spans = [(day - timedelta(days=14), day) for day in weeks]
    since, until = spans[0]
    in_span = f"r.eventTime >= '{since:%Y-%m-%dT00:00:00Z}' AND r.eventTime < '{until:%Y-%m-%dT00:00:00Z}'"
    return [
        Question(
            "resource", f"{len(resources)} buckets, tables and functions, the busiest first",
            [partial(lambda name: lake.resource(name).events, name) for name in resources],
            f"{_RECORD}, {_BUCKET}, resources STRUCT(ARN VARCHAR)[]",
            "SELECT r.userIdentity.arn, r.eventName, count(*) FROM r WHERE r.requestParameters.bucketName = "
            f"'{resources[0].removeprefix('arn:aws:s3:::')}' GROUP BY ALL",
        ),
        Question(
            "object", f"{len(objects)} objects, the busiest first",
            [partial(lambda name: lake.object(name).total, name.removeprefix("arn:aws:s3:::")) for name in objects],
            f"{_BUCKET}, eventID VARCHAR, sharedEventID VARCHAR",
            "SELECT count(DISTINCT coalesce(nullif(r.sharedEventID, ''), r.eventID)) FROM r "
            f"WHERE r.requestParameters.bucketName = '{bucket}' AND r.requestParameters.key = '{object_key}'",
        ),
        Question(
            "search", f"{len(terms)} terms: addresses, a range, ids, an access key, a session, parts of names, a key",
            [partial(lambda term: lake.search(term).event_counts.get("source_ip", 0), term) for term in terms],
            "sourceIPAddress VARCHAR, userIdentity STRUCT(arn VARCHAR)",
            f"SELECT r.userIdentity.arn, count(*) FROM r WHERE r.sourceIPAddress = '{terms[0]}' GROUP BY 1",
        ),
        Question(
            "compare", "two weeks with the two before, at three places of the period",
            [partial(lambda a, b: lake.compare(since=f"{a:%Y-%m-%d}", until=f"{b:%Y-%m-%d}").events, *span)
             for span in spans],
            f"{_RECORD}, eventTime VARCHAR",
            f"SELECT r.userIdentity.arn, r.eventName, count(*) FROM r WHERE {in_span} GROUP BY ALL",
        ),
        Question(
            "cost", "the whole lake, and by each kind of group",
            [partial(lambda by: lake.cost(by).events, by) for by in (None, "caller", "resource", "event", "pattern")],
            "eventName VARCHAR, eventCategory VARCHAR, userIdentity STRUCT(arn VARCHAR)",
            "SELECT r.userIdentity.arn, r.eventName, count(*) FROM r "
            "WHERE r.eventCategory IN ('Data', 'NetworkActivity') GROUP BY ALL",
        ),
    ]  # fmt: skip


def _part(times: Sequence[float], share: float) -> float:
    return sorted(times)[min(int(len(times) * share), len(times) - 1)]


def page(listed: Sequence[Question], data: Data, options: argparse.Namespace) -> str:
    """Return the page as Markdown."""
    lines = [
        "# Questions",
        "",
        f"Made by `make bench-questions` on {state_of_code()}: {os.cpu_count()} cores, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}, trailsift {trailsift.__version__}; load of "
        f"the machine at the end: {os.getloadavg()[1]:.1f}.",
        "",
        f"Logs: {data.events:,} generated events of {data.days:g} days in {len(data.files):,} log objects, "
        f"{data.gz_bytes / 1e6:,.0f} MB as gzip (seed {data.seed}). Each question ran through the library in one "
        f"process, {options.repeat} rounds over all its cases after a first call, without a cache of results. Beside "
        "it: the first case on the log files in DuckDB, once, with a schema of only the fields that it needs, and the "
        "events that both counted.",
        "",
        "| question | p50 | p95 | longest | first call | wanted | on the raw files | counted: lake, files |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for question in listed:
        p50, p95 = (_part(question.times, share) * 1000 for share in (0.5, 0.95))
        half, most = TARGETS[question.name]
        wanted = f"p50 < {half} ms" + (f", p95 < {most} ms" if most else "")
        raw = f"{question.raw_seconds:.1f} s" if question.raw_seconds else "-"
        lines.append(
            f"| `{question.name}` | {p50:.0f} ms | {p95:.0f} ms | {max(question.times) * 1000:.0f} ms "
            f"| {question.first * 1000:.0f} ms | {wanted} | {raw} | {question.count:,}, {question.raw_count:,} |"
        )
    lines += ["", *(f"- `{question.name}`: {question.about}." for question in listed)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
