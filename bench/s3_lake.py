"""Measure a lake in S3 beside the same lake on the disk: questions, cold and warm, and commits; write a Markdown page.

    python bench/s3_lake.py --events 1000000 --out bench/S3_LAKE.md

Each question is a command of its own, as a user runs it, without the result cache. Disk, warm and cold take turns.
Cold: the copy of the lake was removed. A commit is an ingest of one new log object of 500 events, in one process.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from page import state_of_code
from trailsift import Lake
from trailsift.generate import Options, generate

HERE = Path(__file__).resolve().parent
QUESTIONS = {
    "calls per service and day, from summaries": (
        "SELECT service, hour::DATE AS day, sum(events) FROM hourly GROUP BY ALL"
    ),
    "all events counted": "SELECT count(*) FROM events",
    "one day by event": (
        "SELECT event_name, count(*) FROM events WHERE event_time >= TIMESTAMP '2026-03-04'"
        " AND event_time < TIMESTAMP '2026-03-05' GROUP BY 1"
    ),
    "one role's day": (
        "SELECT event_name, resource_arn, count(*) FROM events WHERE event_time >= TIMESTAMP '2026-03-03'"
        " AND event_time < TIMESTAMP '2026-03-04' AND caller = (SELECT min(caller) FROM roles_of_hourly) GROUP BY 1, 2"
    ),
    "clients of everything": (
        "SELECT source_ip, user_agent, count(*) FROM events GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 20"
    ),
}


def seconds_of(command: list[str]) -> float:
    """Return how long a command takes."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def questions(disk: str, there: str, cache: Path, rounds: int) -> list[str]:
    """Return the table of questions."""
    lines = ["| question | disk | S3, warm | S3, cold | warm : disk | cold : disk |", "|---|---:|---:|---:|---:|---:|"]
    role = Lake(disk).query("SELECT min(caller) FROM hourly WHERE caller LIKE 'arn:%role%'").value()
    for name, sql in QUESTIONS.items():
        text = sql.replace("(SELECT min(caller) FROM roles_of_hourly)", f"'{role}'")
        ask = [sys.executable, "-m", "trailsift", "query", text, "--no-cache", "--lake"]
        times: dict[str, list[float]] = {"disk": [], "warm": [], "cold": []}
        for _ in range(rounds):
            times["disk"].append(seconds_of([*ask, disk]))
            shutil.rmtree(cache / "trailsift" / "lakes", ignore_errors=True)
            times["cold"].append(seconds_of([*ask, there]))
            times["warm"].append(seconds_of([*ask, there]))
        middle = {how: median(taken) for how, taken in times.items()}
        ratios = [
            median(s3 / local for s3, local in zip(times[how], times["disk"], strict=True)) for how in ("warm", "cold")
        ]
        cells = [f"{middle[how] * 1000:,.0f} ms" for how in ("disk", "warm", "cold")]
        lines.append(f"| {name} | {' | '.join(cells)} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    return lines


def commits(folder: Path, places: dict[str, str], number: int) -> list[str]:
    """Return the table of commits: one log object each, in turns."""
    logs = folder / "small"
    generate(logs, Options(events=number * 500, days=number / 24, seed=11))
    files = sorted((logs / "AWSLogs").rglob("*.json.gz"))[:number]
    lakes = {name: Lake(place) for name, place in places.items()}
    times: dict[str, list[float]] = {name: [] for name in lakes}
    for file in files:
        for name, lake in lakes.items():
            times[name].append(ingested(lake, file, compact=False))
    lines = ["| commits | median | 90th percentile | last ten : first ten |", "|---|---:|---:|---:|"]
    for name, taken in times.items():
        growth = median(taken[-10:]) / median(taken[1:11])
        high = sorted(taken)[int(len(taken) * 0.9)]
        lines.append(f"| {name} | {median(taken) * 1000:,.0f} ms | {high * 1000:,.0f} ms | {growth:.2f} |")
    return lines


def ingested(lake: Lake | str, logs: Path, **options: Any) -> float:
    """Ingest logs; return how long that takes."""
    handle = Lake(lake) if isinstance(lake, str) else lake
    started = time.perf_counter()
    handle.ingest(logs, **options)
    return time.perf_counter() - started


def main() -> None:
    """Measure, and write the page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--events", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--commits", type=int, default=60)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    sys.path.insert(0, str(HERE.parent / "tests"))
    s3_server = importlib.import_module("s3_server")
    with tempfile.TemporaryDirectory(prefix="trailsift-bench-") as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        with s3_server.running(folder / "server") as server:
            os.environ.update(server.env)
            bucket = server.new_bucket()
            generate(folder / "logs", Options(events=chosen.events, days=7, seed=3))
            disk, there = str(folder / "disk.lake"), f"s3://{bucket}/lake"
            ingests = [ingested(place, folder / "logs" / "AWSLogs") for place in (disk, there)]
            size = sum(path.stat().st_size for path in Path(disk).rglob("*") if path.is_file())
            table = questions(disk, there, folder / "cache", chosen.rounds)
            small = commits(folder, {"disk": f"{folder}/small.lake", "S3": f"s3://{bucket}/small"}, chosen.commits)
    lines = [
        "# A lake in S3, measured",
        "",
        f"{state_of_code()}; {os.cpu_count()} cores shared by the S3 server (SeaweedFS), trailsift and other work.",
        f"{chosen.events:,} events of 7 days, {size / 1e6:,.0f} MB on the disk. Their ingest took {ingests[0]:.1f} s "
        f"into a lake on the disk and {ingests[1]:.1f} s into one in S3 (once each).",
        "",
        f"Questions: medians of {chosen.rounds} runs in turns, and of the ratios of neighbors. Each run is a command "
        "of its own without the result cache. Warm: the files that it reads are in the cache on the disk, and the "
        "catalog is asked for with one conditional request. Cold: nothing is there.",
        "",
        *table,
        "",
        f"Commits: {chosen.commits} ingests of one log object each, in one process.",
        "",
        *small,
    ]
    text = "\n".join(lines) + "\n"
    if chosen.out:
        chosen.out.write_text(text, "utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
