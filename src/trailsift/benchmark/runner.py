"""Run the benchmark: all techniques in turns, in one run, on the same machine and the same logs."""

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

from trailsift.benchmark.results import BenchmarkReport, Technique
from trailsift.benchmark.variants import Variants, write_variants
from trailsift.errors import EngineError, SourceError, UsageError
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.prices import Price, athena_cost
from trailsift.query import DuckDBEngine
from trailsift.query.explanation import explain
from trailsift.rules.presets import open_rules
from trailsift.sources import open_source
from trailsift.sources.files import FileSource

#: The events that the question is about, as in the original design.
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
    """Input of the benchmark: log objects, a working folder, the day to query and the day after."""

    files: list[str]
    folder: Path
    day: str
    next: str

    def of(self, sql: str, **values: str) -> str:
        """Return SQL with the day filled in."""
        return sql.format(day=self.day, next=self.next, **values)


def measure(
    inputs: Sequence[str],
    folder: Path,
    prices: dict[str, Price],
    *,
    rounds: int = 3,
    generated: bool = False,
    step: Callable[[str], None] = lambda text: None,
) -> BenchmarkReport:
    """Measure all techniques, each ``rounds`` times in turns. ``step`` reports progress; ``folder`` gets the variants.

    Raise SourceError if there are no S3 data events to query, EngineError if DuckDB cannot read the log objects.
    """
    source = open_source(inputs, exclude=folder)
    if not isinstance(source, FileSource):
        raise UsageError(f"cannot measure {source}: it reads raw logs from a disk; copy some days to a folder first")
    files = sorted(file.path for file in source.find() if file.path.endswith(".json.gz"))
    if not files:
        raise SourceError(f"no *.json.gz log objects in {', '.join(inputs)}: these are what a trail delivers")
    step("ingesting everything into a lake")
    everything = ingest(files, folder / "lake")
    step("ingesting with time-of-day sampling into another")
    sifted = ingest(files, folder / "sampled-lake", rules=open_rules("time-of-day"))
    day, after = _busiest_day(folder / "lake")
    subject = Subject(files, folder, day, after)
    step("writing the logs in other formats")
    variants = write_variants(files, folder, lambda done: None)
    with (
        DuckDBEngine(open_snapshot(folder / "lake")) as full,
        DuckDBEngine(open_snapshot(folder / "sampled-lake")) as sampled,
    ):
        trials = _trials(subject, variants, full, sampled)
        times: dict[str, list[float]] = {trial.name: [] for trial in trials}
        for number in range(rounds):
            step(f"querying, round {number + 1} of {rounds}")
            for trial in trials:
                # Queries of milliseconds are repeated: clock resolution and noise matter more there.
                for _ in range(5 if trial.quick else 1):
                    begun = perf_counter()
                    trial.ask()
                    times[trial.name].append(perf_counter() - begun)
        truth = _lake_count(full, subject, "rows")
        techniques = _results(trials, times, truth, prices)
    return BenchmarkReport(
        events=everything.stored,
        log_objects=len(files),
        log_bytes=_sizes(files),
        day=day,
        truth=round(truth),
        cores=os.cpu_count() or 1,
        rounds=rounds,
        generated=generated,
        stored_share=sifted.stored / max(1, everything.stored),
        techniques=tuple(techniques),
    )


@dataclass(frozen=True, slots=True)
class _Trial:
    """How one technique queries, counts the events it finds (by weight), and the bytes it reads and stores."""

    name: str
    question: str
    ask: Callable[[], Any]
    count: Callable[[], float]
    bytes: int
    stored: int
    quick: bool = False
    sampled: bool = False


def _trials(subject: Subject, variants: Variants, full: DuckDBEngine, sampled: DuckDBEngine) -> list[_Trial]:
    partition = f"year={subject.day[:4]}/month={subject.day[5:7]}/day={subject.day[8:]}/service=s3"
    raw, in_partition = subject.files, variants.partitioned.get(partition, [])
    partitioned = [file for files in variants.partitioned.values() for file in files]
    rows, summary = subject.of(_ROWS, table="events"), _summary(subject)
    return [
        _json_trial("raw logs", subject, raw, raw),
        _json_trial("partitioning", subject, in_partition, partitioned),
        _json_trial("stream filter", subject, variants.filtered, variants.filtered),
        _columnar_trial(subject, variants.columnar),
        _json_trial("smart sampling", subject, variants.sampled, variants.sampled, variants.weights),
        _lake_trial("a lake of everything", subject, full, rows),
        _lake_trial("all together", subject, sampled, rows, sampled=True),
        _raw_summary_trial(subject),
        _lake_trial("summary table", subject, sampled, summary, "summary"),
    ]


def _json_trial(
    name: str, subject: Subject, files: list[str], stored: list[str], weights: dict[str, float] | None = None
) -> _Trial:
    return _Trial(
        name,
        "rows",
        lambda: _raw_rows(subject, files),
        lambda: _raw_count(subject, files, weights),
        _sizes(files),
        _sizes(stored),
        sampled=weights is not None,
    )


def _columnar_trial(subject: Subject, files: list[str]) -> _Trial:
    table = f"read_parquet({files})"
    sql = subject.of(_ROWS, table=table)
    count = subject.of("SELECT count(*) FROM {table} WHERE " + _WHERE, table=table)
    return _Trial(
        "columnar storage",
        "rows",
        lambda: _duck(sql),
        lambda: float(_duck(count)[0][0]),
        _parquet_bytes(files),
        _sizes(files),
        quick=True,
    )


def _lake_trial(
    name: str, subject: Subject, engine: DuckDBEngine, sql: str, question: str = "rows", *, sampled: bool = False
) -> _Trial:
    stored = sum(file.bytes for table in ("events", "hourly") for file in engine.snapshot.files(table))
    return _Trial(
        name,
        question,
        lambda: list(engine.query(sql, cache=False).rows()),
        lambda: _lake_count(engine, subject, question),
        explain(engine, sql).read_bytes,
        stored,
        quick=True,
        sampled=sampled,
    )


def _raw_summary_trial(subject: Subject) -> _Trial:
    return _Trial(
        "raw logs, summarized",
        "summary",
        lambda: _raw_summary(subject),
        lambda: sum(row[2] for row in _raw_summary(subject)),
        _sizes(subject.files),
        _sizes(subject.files),
    )


def _results(
    trials: list[_Trial], times: dict[str, list[float]], truth: float, prices: dict[str, Price]
) -> list[Technique]:
    baselines: dict[str, tuple[float, int]] = {}
    expected = {"rows": truth, "summary": trials[-1].count()}
    techniques = []
    for trial in trials:
        seconds, count = median(times[trial.name]), trial.count()
        # The first technique of a question is its baseline.
        base_seconds, base_bytes = baselines.setdefault(trial.question, (seconds, trial.bytes))
        techniques.append(
            Technique(
                name=trial.name,
                question=trial.question,
                seconds=seconds,
                faster=base_seconds / seconds,
                bytes=trial.bytes,
                saved=1 - trial.bytes / base_bytes,
                usd=athena_cost(prices, trial.bytes) or 0.0,
                rows=round(count),
                sampled=trial.sampled,
                error=abs(count - expected[trial.question]) / expected[trial.question],
                stored_bytes=trial.stored,
            )
        )
    return techniques


def _busiest_day(lake: Path) -> tuple[str, str]:
    with DuckDBEngine(open_snapshot(lake)) as engine:
        sql = (
            "SELECT strftime(hour, '%Y-%m-%d'), strftime(hour + INTERVAL 1 DAY, '%Y-%m-%d') FROM hourly "
            f"WHERE service = 's3' AND event_name IN ({_NAMES}) GROUP BY ALL ORDER BY sum(events) DESC, 1 LIMIT 1"
        )
        days = list(engine.sql(sql).rows())
    if not days:
        raise SourceError(f"these logs have no {', '.join(NAMES)} events, which the benchmark queries")
    return days[0][0], days[0][1]


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
    rows = _duck(f"SELECT r.eventID FROM {_records(files)} WHERE {subject.of(_WHERE_RAW)}")
    return sum(weights[event_id] for (event_id,) in rows)


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
    """Return the rows of a statement in a new DuckDB, as a person would run it."""
    try:
        with duckdb.connect() as db:
            db.execute("SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
            return db.execute(sql).fetchall()
    except duckdb.Error as error:
        message = " ".join(str(error).split())[:300]
        raise EngineError(
            f"DuckDB cannot read these log objects as they are, so there is no baseline: {message}"
        ) from None


def _largest(files: list[str]) -> int:
    """Return the unpacked bytes of the largest file, with headroom; gzip stores the size in its last four bytes."""
    largest = 0
    for file in files:
        with Path(file).open("rb") as handle:
            handle.seek(-4, 2)
            largest = max(largest, struct.unpack("<I", handle.read(4))[0])
    return int(largest * 1.05) + (1 << 20)


def _parquet_bytes(files: list[str]) -> int:
    """Return the bytes of the columns that the question reads, as Athena would scan them."""
    columns = ("event_time", "event_id", "event_name", "principal_type", "source_ip", "resource_arn", "service")
    names = ", ".join(f"'{column}'" for column in (*columns, "event_category"))
    sql = f"SELECT sum(total_compressed_size) FROM parquet_metadata({files}) WHERE path_in_schema IN ({names})"
    return int(_duck(sql)[0][0])


def _sizes(files: list[str]) -> int:
    return sum(Path(file).stat().st_size for file in files)
