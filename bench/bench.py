"""Measure trailsift against DuckDB queries on the log files themselves, and write a Markdown page.

    python bench/bench.py --events 2000000 --data /somewhere/logs --out bench/RESULTS.md

The sides take turns in one run (query on the files, ingest, cold query; repeat), and ratios are medians over the
rounds. Both sides must give the same result; otherwise nothing is reported.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import psutil

import trailsift
from page import Data, parser, say, write_page
from process import ChildError, Run, python, run

TASKS = str(Path(__file__).with_name("tasks.py"))
VERSIONS = ("duckdb", "pyarrow", "pyiceberg", "msgspec", "isal")
#: Share of the files on which DuckDB's schema inference is measured.
AUTO_PART = 0.1
#: Small log objects: their maximum number, records in each, and records taken from each large log object.
TINY_OBJECTS, TINY_RECORDS, TINY_OF_EACH = 10_000, 5, 500


@dataclass
class Measured:
    """All measurements, one value per round."""

    raw: list[Run] = field(default_factory=list)
    raw_day: list[Run] = field(default_factory=list)
    ingest: list[Run] = field(default_factory=list)
    #: Cold queries, one list per round.
    cold: list[list[float]] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    cold_peak: int = 0
    auto: tuple[Run, int] | str = ""
    open_engine: dict[str, Any] = field(default_factory=dict)
    lake_bytes: dict[str, int] = field(default_factory=dict)
    #: Small log objects: (ingest, plain Python) per round, and the number of objects.
    tiny: list[tuple[Run, Run]] = field(default_factory=list)
    tiny_objects: int = 0
    #: Load average before the first measurement: more than a few tenths distort the results.
    load: float = field(default_factory=lambda: os.getloadavg()[0])


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; return 1 if the sides disagree or a step fails."""
    arguments = parser(__doc__, events=2_000_000, days=7, repeat=21, cold=7)
    arguments.add_argument("--rounds", type=int, default=3, help="rounds in which the two sides take turns")
    options = arguments.parse_args(argv)
    return write_page(options, lambda data, work: report(data, measure(data, work, options), options))


def measure(data: Data, work: Path, options: argparse.Namespace) -> Measured:
    """Take all measurements, the two sides in turns."""
    out = Measured()
    env = os.environ | {"XDG_CACHE_HOME": str(work / "cache")}
    _warm(data)
    for number in range(options.rounds):
        lake = work / f"lake-{number}"
        _step(f"round {number + 1}: the query on the files")
        out.raw.append(_ask_files(data, data.files, options.threads))
        _step("ingest")
        out.ingest.append(_ingest(data, lake, options.threads, env))
        _step("the query on the files of its day")
        out.raw_day.append(_ask_files(data, data.day_files, options.threads))
        _step("cold queries")
        runs = [_cold(data, lake, env, "--no-cache") for _ in range(options.cold)]
        out.cold.append([ran.seconds for ran in runs])
        out.cold_peak = max(out.cold_peak, *(ran.peak_bytes for ran in runs))
        for ran in runs:
            _check_same(data, out.raw[-1].answer["answer"], ran.answer)
        _cold(data, lake, env)
        out.kept += [_cold(data, lake, env).seconds for _ in range(options.cold)]
        if number < options.rounds - 1:
            shutil.rmtree(lake)
    out.lake_bytes = _sizes(lake)
    tiny = work / "tiny"
    out.tiny_objects = make_tiny(data, tiny)
    for number in range(options.rounds):
        _step(f"round {number + 1}: {out.tiny_objects:,} log objects of {TINY_RECORDS} records")
        plain = run(python(TASKS, "plain"), text=json.dumps({"folder": str(tiny)}))
        command = python("-m", "trailsift.cli", "ingest", str(tiny), "--lake", str(work / f"tiny-{number}"), "--quiet")
        ran = run([*command, "--json", "--workers", str(options.threads)], env=env)
        assert ran.answer["stored"] == plain.answer["records"], f"{ran.answer} of {plain.answer}"
        out.tiny.append((ran, plain))
    _step("queries on an open engine")
    out.open_engine = run(
        python(TASKS, "questions"),
        text=json.dumps({"lake": str(lake), "repeat": options.repeat, "questions": questions(data)}),
        env=env,
    ).answer
    _step("DuckDB's schema inference")
    part = data.files[: max(1, int(len(data.files) * AUTO_PART))]
    try:
        out.auto = _ask_files(data, part, options.threads, auto=True), sum(Path(file).stat().st_size for file in part)
    except ChildError as error:
        out.auto = str(error).splitlines()[-1][:160]
    return out


def make_tiny(data: Data, folder: Path) -> int:
    """Write log objects as a quiet trail delivers them, from records of the first days; return their number."""
    written = 0
    for file in data.files:
        records = json.loads(gzip.decompress(Path(file).read_bytes()))["Records"]
        into = folder / Path(file).relative_to(data.folder).parent
        into.mkdir(parents=True, exist_ok=True)
        for at in range(0, min(len(records), TINY_OF_EACH), TINY_RECORDS):
            if written == TINY_OBJECTS:
                return written
            text = json.dumps({"Records": records[at : at + TINY_RECORDS]}, separators=(",", ":"))
            name = Path(file).name.replace(".json.gz", f"{at:06d}.json.gz")
            (into / name).write_bytes(gzip.compress(text.encode(), 6))
            written += 1
    return written


def questions(data: Data) -> dict[str, str]:
    """Return the queries for an open engine, by their name in the report."""
    return {
        "one role's day, from `events`": _role_day(data),
        "one role's day, from `usage`": (
            "SELECT event_name, sum(events) FILTER (touch = 'target') AS events FROM usage"
            f" WHERE role_arn = '{data.role}' AND day = DATE '{data.day}' GROUP BY event_name ORDER BY event_name"
        ),
        "calls by hour, the whole lake, from `hourly`": (
            "SELECT hour, sum(events) AS events FROM hourly GROUP BY hour ORDER BY hour"
        ),
        "roles by bytes out, the whole lake, from `usage`": (
            "SELECT role_arn, sum(bytes_out) AS bytes_out FROM usage GROUP BY role_arn ORDER BY bytes_out DESC"
        ),
        "who touched one object, the whole lake, from `events`": (
            "SELECT event_time, event_name, role_arn FROM events WHERE resource_arn LIKE 'arn:aws:s3:::%-shared'"
            " AND object_key LIKE '%/forecast v3.xlsx' ORDER BY event_time"
        ),
        "calls by action, the whole lake, from `events`": (
            "SELECT event_name, count(*) AS events FROM events GROUP BY event_name ORDER BY event_name"
        ),
    }


def _role_day(data: Data) -> str:
    return (
        f"SELECT event_name, count(*) AS events FROM events WHERE role_arn = '{data.role}'"
        f" AND event_time >= '{data.day}' AND event_time < '{data.next_day}' GROUP BY event_name ORDER BY event_name"
    )


def _warm(data: Data) -> None:
    """Read every file once, so that the first side does not pay for the disk."""
    for file in data.files:
        Path(file).read_bytes()


def _ask_files(data: Data, files: list[str], threads: int, *, auto: bool = False) -> Run:
    question = {"files": files, "role": data.role, "since": data.day, "until": data.next_day}
    return run(python(TASKS, "raw_question"), text=json.dumps({**question, "threads": threads, "auto": auto}))


def _ingest(data: Data, lake: Path, workers: int, env: dict[str, str]) -> Run:
    command = python("-m", "trailsift.cli", "ingest", str(data.folder / "AWSLogs"), "--lake", str(lake))
    done = run([*command, "--workers", str(workers), "--json", "--quiet"], env=env)
    assert done.answer["stored"] == data.events, f"stored {done.answer['stored']} of {data.events} events"
    return done


def _cold(data: Data, lake: Path, env: dict[str, str], *more: str) -> Run:
    command = python("-m", "trailsift.cli", "query", _role_day(data), "--lake", str(lake), "--format", "json")
    return run([*command, *more], env=env)


def _check_same(data: Data, raw: dict[str, int], ours: list[dict[str, Any]]) -> None:
    stored = {row["event_name"]: row["events"] for row in ours}
    assert raw == stored, f"the files have {raw}, the lake has {stored} for {data.role} on {data.day}"


def _sizes(lake: Path) -> dict[str, int]:
    """Return the bytes of the lake by folder; files at its top level count as `catalog`."""
    sizes: dict[str, int] = {}
    for file in lake.rglob("*"):
        if file.is_file():
            parts = file.relative_to(lake).parts
            name = parts[0] if len(parts) > 1 else "catalog"
            sizes[name] = sizes.get(name, 0) + file.stat().st_size
    return sizes


def report(data: Data, seen: Measured, options: argparse.Namespace) -> str:
    """Return the page."""
    ingest, raw = [r.seconds for r in seen.ingest], [r.seconds for r in seen.raw]
    cold = [median(times) for times in seen.cold]
    lake = sum(seen.lake_bytes.values())
    paid = [i / r for i, r in zip(ingest, raw, strict=True)]
    faster = [r / c for r, c in zip(raw, cold, strict=True)]
    lines = [
        "# Measurements",
        "",
        f"Made by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores,"
        f" {psutil.virtual_memory().total / 2**30:.0f} GiB of memory, {platform.system()} {platform.machine()},"
        f" Python {platform.python_version()}, trailsift {trailsift.__version__},"
        f" {', '.join(f'{name} {version(name)}' for name in VERSIONS)}.",
        "",
        f"Logs: {data.events:,} generated events of {data.days:g} days in {len(data.files):,} log objects,"
        f" {_mb(data.gz_bytes)} as gzip (`trailsift generate`, seed {data.seed}). Both sides use {options.threads}"
        " threads, and the files are in the page cache. Times of commands and of queries on the files include process"
        f" start-up. The two sides took turns in {options.rounds} rounds; figures are medians over the rounds, with"
        f" the range in brackets. The machine's load before was {seen.load:.1f}; differences under 15 % are noise on"
        " shared cores.",
        "",
        "| measurement | result |",
        "|---|---|",
        f"| ingest | {_spread(ingest, _seconds)} |",
        f"| ingest, events per second | {_spread([data.events / s for s in ingest], lambda n: f'{n:,.0f}')} |",
        f"| ingest, peak memory of all processes | {_spread([r.peak_bytes for r in seen.ingest], _mb)} |",
        f"| lake on disk | {_mb(lake)}, {lake / data.gz_bytes:.2f} of the gzip"
        f" ({', '.join(f'{name} {_mb(size)}' for name, size in sorted(seen.lake_bytes.items()))}) |",
        f"| one role's day, DuckDB on the files, explicit 3-field schema | {_spread(raw, _seconds)} |",
        f"| the same, only the {len(data.day_files):,} files in that day's folders, which hold {_part(seen):.1%} of the"
        f" calls | {_spread([r.seconds for r in seen.raw_day], _seconds)} |",
        f"| {_auto(seen.auto)} |",
        f"| one role's day, cold `trailsift query`, median of {options.cold} | {_spread(cold, _seconds)} |",
        f"| the same again (cached result) | {_spread(seen.kept, _seconds)} |",
        f"| peak memory of that query | {_mb(seen.cold_peak)} |",
        f"| {seen.tiny_objects:,} log objects of {TINY_RECORDS} records: ingested per second"
        f" | {_spread([seen.tiny_objects / ours.seconds for ours, _ in seen.tiny], lambda n: f'{n:,.0f}')} |",
        "| the same, only read and parsed in plain Python (`gzip`, `json`), one core"
        f" | {_spread([seen.tiny_objects / plain.seconds for _, plain in seen.tiny], lambda n: f'{n:,.0f}')} |",
        f"| **time of an ingest / time of a query on the files** | **{_spread(paid, _times)}** |",
        f"| **time of a query on the files / time of a cold query** | **{_spread(faster, _times)}** |",
        "",
        f"Queries on an open engine ({seen.open_engine.pop('open') * 1000:.0f} ms to open), each {options.repeat}"
        " times after a first run; no cached results:",
        "",
        "| query | first | median | worst | rows |",
        "|---|---|---|---|---|",
    ]
    for name, timed in seen.open_engine.items():
        times = " | ".join(f"{timed[kind] * 1000:.1f} ms" for kind in ("first", "median", "worst"))
        lines.append(f"| {name} | {times} | {len(timed['rows']):,} |")
    return "\n".join(lines) + "\n"


def _part(seen: Measured) -> float:
    """Return the share of the day's calls in the day's folders: CloudTrail delivers the last ones after midnight."""
    in_folders, total = (sum(runs[-1].answer["answer"].values()) for runs in (seen.raw_day, seen.raw))
    return in_folders / total if total else 1.0


def _auto(seen: tuple[Run, int] | str) -> str:
    if isinstance(seen, str):
        return f"`read_json_auto` on {AUTO_PART:.0%} of the files | failed: {seen.replace('|', '/')}"
    ran, size = seen
    return f"`read_json_auto` on {AUTO_PART:.0%} of the files ({_mb(size)} of gzip) | {_seconds(ran.seconds)}"


def _spread(values: Sequence[float], shown: Callable[[float], str]) -> str:
    text = shown(median(values))
    return text if len(values) == 1 else f"{text} [{shown(min(values))} to {shown(max(values))}]"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _times(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def _step(text: str) -> None:
    say(f"  {text}")


if __name__ == "__main__":
    sys.exit(main())
