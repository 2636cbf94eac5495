"""Measures every way in turns, in one run, on the same machine and the same logs."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import duckdb

from trailsift.benchmark.results import Gains, Way
from trailsift.benchmark.variants import Variants, write_variants
from trailsift.errors import EngineError, SourceError
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.prices import Price, athena
from trailsift.query import DuckDBEngine
from trailsift.query.explanation import explain
from trailsift.rules.presets import open_rules
from trailsift.sources import open_source

#: The events that the question is about, as the original has them.
NAMES = ("GetObject", "PutObject", "DeleteObject")
_NAMES = ", ".join(f"'{name}'" for name in NAMES)
_SOURCE = "s3.amazonaws.com"
_LIMIT = 1000

_RECORD = (
    "STRUCT(eventTime VARCHAR, eventID VARCHAR, eventName VARCHAR, eventSource VARCHAR, eventCategory VARCHAR, "
    'sourceIPAddress VARCHAR, userIdentity STRUCT("type" VARCHAR), resources STRUCT(ARN VARCHAR)[])'
)
_WHERE_RAW = (
    "CAST(r.eventTime AS VARCHAR) >= '{day}' AND CAST(r.eventTime AS VARCHAR) < '{next}' "
    f"AND r.eventSource = '{_SOURCE}' AND r.eventName IN ({_NAMES}) AND coalesce(r.eventCategory, 'Data') = 'Data'"
)
_WHERE = (
    "event_time >= '{day}T00:00:00Z' AND event_time < '{next}T00:00:00Z' AND service = 's3' "
    f"AND event_name IN ({_NAMES}) AND event_category = 'Data'"
)
_ROWS = (
    "SELECT epoch_us(event_time), event_name, principal_type, source_ip, resource_arn FROM {table} WHERE "
    + _WHERE
    + f" ORDER BY event_time, event_id LIMIT {_LIMIT}"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: the log objects, a folder to work in, the day that is asked for and the day after."""

    files: list[str]
    folder: Path
    day: str
    next: str

    def of(self, sql: str, **values: str) -> str:
        """SQL with the day put in."""
        return sql.format(day=self.day, next=self.next, **values)


def measure(
    inputs: Sequence[str],
    folder: Path,
    prices: dict[str, Price],
    *,
    rounds: int = 3,
    generated: bool = False,
    step: Callable[[str], None] = lambda told: None,
) -> Gains:
    """All ways, each ``rounds`` times in turns; ``step`` is told what goes on. ``folder`` is filled with the forms.

    SourceError where there are no S3 data events to ask for, EngineError where DuckDB cannot read the log objects.
    """
    files = sorted(file.path for file in open_source(inputs, exclude=folder).find() if file.path.endswith(".json.gz"))
    if not files:
        raise SourceError(f"no *.json.gz log objects in {', '.join(inputs)}: a trail delivers such")
    step("storing everything in a lake")
    everything = ingest(files, folder / "lake")
    step("storing by the schedule of the hours in another")
    sifted = ingest(files, folder / "sampled-lake", rules=open_rules("time-of-day"))
    day, after = _busiest_day(folder / "lake")
    subject = Subject(files, folder, day, after)
    step("writing the logs in other forms")
    variants = write_variants(files, folder, lambda done: None)
    with (
        DuckDBEngine(open_snapshot(folder / "lake")) as whole,
        DuckDBEngine(open_snapshot(folder / "sampled-lake")) as sampled,
    ):
        runs = _runs(subject, variants, whole, sampled)
        times: dict[str, list[float]] = {run.name: [] for run in runs}
        for number in range(rounds):
            step(f"asking, round {number + 1} of {rounds}")
            for run in runs:
                # What takes milliseconds is asked more often: the clock and the neighbours weigh more there.
                for _ in range(5 if run.quick else 1):
                    begun = perf_counter()
                    run.ask()
                    times[run.name].append(perf_counter() - begun)
        truth = _lake_count(whole, subject, "rows")
        ways = _ways(runs, times, truth, prices)
    return Gains(
        events=everything.stored,
        log_objects=len(files),
        log_bytes=_sizes(files),
        day=day,
        truth=round(truth),
        cores=os.cpu_count() or 1,
        rounds=rounds,
        generated=generated,
        stored_share=sifted.stored / max(1, everything.stored),
        ways=tuple(ways),
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """One way: how it asks, how many events it finds (by weight), what it reads and what it keeps."""

    name: str
    question: str
    ask: Callable[[], Any]
    count: Callable[[], float]
    bytes: int
    stored: int
    quick: bool = False
    sampled: bool = False


def _runs(subject: Subject, variants: Variants, whole: DuckDBEngine, sampled: DuckDBEngine) -> list[_Run]:
    part = f"year={subject.day[:4]}/month={subject.day[5:7]}/day={subject.day[8:]}/service=s3"
    raw, in_part = subject.files, variants.partitioned.get(part, [])
    rows, summary = subject.of(_ROWS, table="events"), _summary(subject)
    columnar_sql = subject.of(_ROWS, table=f"read_parquet({variants.columnar})")
    every = [file for files in variants.partitioned.values() for file in files]

    def json_run(name: str, files: list[str], stored: list[str]) -> _Run:
        sampled_one = files is variants.sampled
        return _Run(
            name,
            "rows",
            lambda: _raw_rows(subject, files),
            lambda: _raw_count(subject, files, variants.weights if sampled_one else None),
            _sizes(files),
            _sizes(stored),
            sampled=sampled_one,
        )

    def lake_run(name: str, engine: DuckDBEngine, sql: str, question: str = "rows", *, sampled: bool = False) -> _Run:
        kept = sum(file.bytes for table in ("events", "hourly") for file in engine.snapshot.files(table))
        return _Run(
            name,
            question,
            lambda: list(engine.query(sql, cache=False).rows()),
            lambda: _lake_count(engine, subject, question),
            explain(engine, sql).read_bytes,
            kept,
            quick=True,
            sampled=sampled,
        )

    def parquet_count() -> float:
        table = f"read_parquet({variants.columnar})"
        return float(_duck(subject.of("SELECT count(*) FROM {table} WHERE " + _WHERE, table=table))[0][0])

    return [
        json_run("raw logs", raw, raw),
        json_run("partitioning", in_part, every),
        json_run("stream filter", variants.filtered, variants.filtered),
        _Run(
            "columnar storage",
            "rows",
            lambda: _duck(columnar_sql),
            parquet_count,
            _parquet_bytes(variants.columnar),
            _sizes(variants.columnar),
            quick=True,
        ),
        json_run("smart sampling", variants.sampled, variants.sampled),
        lake_run("a lake of everything", whole, rows),
        lake_run("all together", sampled, rows, sampled=True),
        _Run(
            "raw logs, summarized",
            "summary",
            lambda: _raw_summary(subject),
            lambda: sum(row[2] for row in _raw_summary(subject)),
            _sizes(raw),
            _sizes(raw),
        ),
        lake_run("summary table", sampled, summary, "summary"),
    ]


def _ways(runs: list[_Run], times: dict[str, list[float]], truth: float, prices: dict[str, Price]) -> list[Way]:
    base: dict[str, tuple[float, int]] = {}
    right = {"rows": truth, "summary": runs[-1].count()}
    ways = []
    for run in runs:
        seconds, found = median(times[run.name]), run.count()
        first = base.setdefault(run.question, (seconds, run.bytes))
        error = abs(found - right[run.question]) / right[run.question]
        ways.append(
            Way(
                name=run.name,
                question=run.question,
                seconds=seconds,
                faster=first[0] / seconds,
                bytes=run.bytes,
                saved=1 - run.bytes / first[1],
                usd=athena(prices, run.bytes),
                rows=round(found),
                sampled=run.sampled,
                error=error,
                stored_bytes=run.stored,
            )
        )
    return ways


def _busiest_day(lake: Path) -> tuple[str, str]:
    with DuckDBEngine(open_snapshot(lake)) as engine:
        sql = (
            "SELECT strftime(hour, '%Y-%m-%d'), strftime(hour + INTERVAL 1 DAY, '%Y-%m-%d') FROM hourly "
            f"WHERE service = 's3' AND event_name IN ({_NAMES}) GROUP BY ALL ORDER BY sum(events) DESC, 1 LIMIT 1"
        )
        found = list(engine.sql(sql).rows())
    if not found:
        raise SourceError(f"these logs hold none of {', '.join(NAMES)}: the question that is measured needs them")
    return found[0][0], found[0][1]


def _summary(subject: Subject) -> str:
    return subject.of(
        "SELECT hour, event_name, sum(events)::BIGINT AS event_count, "
        "distinct_count(merge_sketches(list(source_ips))) AS unique_ips FROM hourly "
        "WHERE hour >= '{day}T00:00:00Z' AND hour < '{next}T00:00:00Z' GROUP BY hour, event_name"
    )


def _lake_count(engine: DuckDBEngine, subject: Subject, question: str) -> float:
    if question == "summary":
        return float(sum(row[2] for row in engine.query(_summary(subject), cache=False).rows()))
    sql = subject.of("SELECT coalesce(sum(weight), 0) FROM events WHERE " + _WHERE)
    return float(next(iter(engine.query(sql, cache=False).rows()))[0])


def _raw_rows(subject: Subject, files: list[str]) -> list[tuple[Any, ...]]:
    columns = "r.eventTime, r.eventName, r.userIdentity.type, r.sourceIPAddress, r.resources[1].ARN"
    where = subject.of(_WHERE_RAW)
    return _duck(
        f"SELECT {columns} FROM {_records(files)} WHERE {where} ORDER BY r.eventTime, r.eventID LIMIT {_LIMIT}"
    )


def _raw_count(subject: Subject, files: list[str], weights: dict[str, float] | None) -> float:
    if weights is None:
        return float(_duck(f"SELECT count(*) FROM {_records(files)} WHERE {subject.of(_WHERE_RAW)}")[0][0])
    found = _duck(f"SELECT r.eventID FROM {_records(files)} WHERE {subject.of(_WHERE_RAW)}")
    return sum(weights[event_id] for (event_id,) in found)


def _raw_summary(subject: Subject) -> list[tuple[Any, ...]]:
    time = "CAST(r.eventTime AS VARCHAR)"
    return _duck(
        f"SELECT left({time}, 13), r.eventName, count(*), count(DISTINCT r.sourceIPAddress) "
        f"FROM {_records(subject.files)} WHERE {time} >= '{subject.day}' AND {time} < '{subject.next}' GROUP BY ALL"
    )


def _records(files: list[str]) -> str:
    return (
        f"(SELECT unnest(Records) AS r FROM read_json({files}, format = 'newline_delimited', records = 'true', "
        f"columns = {{Records: '{_RECORD}[]'}}, maximum_object_size = {_largest(files)}))"
    )


def _duck(sql: str) -> list[tuple[Any, ...]]:
    """Rows of a statement in a new DuckDB, as a person would ask it."""
    try:
        with duckdb.connect() as db:
            db.execute("SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
            return db.execute(sql).fetchall()
    except duckdb.Error as error:
        told = " ".join(str(error).split())[:300]
        raise EngineError(
            f"DuckDB cannot read these log objects as they are, so there is no baseline: {told}"
        ) from None


def _largest(files: list[str]) -> int:
    """Bytes of the largest file when unpacked, with room; gzip keeps the size in its last four bytes."""
    largest = 0
    for file in files:
        with Path(file).open("rb") as handle:
            handle.seek(-4, 2)
            largest = max(largest, struct.unpack("<I", handle.read(4))[0])
    return int(largest * 1.05) + (1 << 20)


def _parquet_bytes(files: list[str]) -> int:
    """Bytes of the columns that the question reads, as Athena would scan them."""
    columns = ("event_time", "event_id", "event_name", "principal_type", "source_ip", "resource_arn", "service")
    wanted = ", ".join(f"'{name}'" for name in (*columns, "event_category"))
    sql = f"SELECT sum(total_compressed_size) FROM parquet_metadata({files}) WHERE path_in_schema IN ({wanted})"
    return int(_duck(sql)[0][0])


def _sizes(files: list[str]) -> int:
    return sum(Path(file).stat().st_size for file in files)
