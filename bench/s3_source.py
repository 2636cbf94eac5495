"""Measure S3 as a source, on a local S3 server (SeaweedFS): bench/S3.md.

First many tiny objects: an ingest beside bare GETs of the same objects by obstore, in turns in the same run. Then a
bucket of several years, accounts and regions: how long `--since -1d` takes to its first record, what a list of all
takes, and what a second run lists again. Server and client share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from page import state_of_code
from process import run

HERE = Path(__file__).resolve().parent
ROUNDS = 3
ACCOUNTS = tuple(f"{number:012}" for number in range(400011112201, 400011112205))
REGIONS = ("ap-northeast-2", "eu-west-1", "us-east-1", "us-west-2", "sa-east-1")
YEARS = 3
#: Run in a new process: when the search ended, when the first records were there, and what was found.
CHILD = """
import json, sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
started = time.monotonic()
from trailsift.runtime import spare_memory
spare_memory()
from trailsift.ingest import ingest
times, about = {}, {}
def announce(found):
    times["search"] = time.monotonic() - started
    about.update(objects=found.objects, known=found.known, requests=found.requests)
def progress(now):
    if now.records and "first" not in times:
        times["first"] = time.monotonic() - started
if __name__ == "__main__":
    days = float(sys.argv[3])
    since = datetime.now(UTC) - timedelta(days=days) if days else None
    counts = ingest([sys.argv[1]], Path(sys.argv[2]), since=since, compact=False, announce=announce, progress=progress)
    about.update(seconds=time.monotonic() - started, records=counts.records)
    print(json.dumps({**times, **about}))
"""


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def bare(bucket: str, threads: int) -> float:
    """Return the rate at which obstore gets all objects of a bucket, and nothing is done with them."""
    from trailsift.storage.s3_client import connect

    store = connect(bucket)
    objects = [(meta["path"], meta["e_tag"]) for page in store.list(chunk_size=1000) for meta in page]
    started = time.monotonic()
    if threads:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda item: store.get(item[0], options={"if_match": item[1]}).bytes(), objects))
    else:
        asyncio.run(_get_all(store, iter(objects)))
    return len(objects) / (time.monotonic() - started)


async def _get_all(store: Any, objects: Iterator[tuple[str, str | None]]) -> None:
    async def some() -> None:
        for key, e_tag in objects:
            await (await store.get_async(key, options={"if_match": e_tag})).bytes_async()

    await asyncio.gather(*(some() for _ in range(32)))


def child(bucket: str, lake: Path, days: float = 0) -> dict[str, Any]:
    """Run an ingest in a new process and return its times."""
    script = lake.parent / "child.py"
    script.write_text(CHILD)
    words = [sys.executable, str(script), f"s3://{bucket}", str(lake), str(days)]
    done = run(words)
    answer: dict[str, Any] = done.answer
    return answer | {"peak": done.peak_bytes / 1e6}


def rates(server: Any, folder: Path, objects: int) -> list[str]:
    """Measure an ingest of tiny objects beside bare GETs, and return the lines of the page."""
    from trailsift.generate import Options, generate

    logs = folder / "logs"
    made = generate(logs, Options(events=objects * 7, days=7, seed=5, tiny_objects=True))
    bucket = server.new_bucket()
    count = server.upload(bucket, logs / "AWSLogs", "AWSLogs/")
    say(f"{count:,} objects, {made.bytes / 1e6:.0f} MB")
    found: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        for name, threads in (("obstore, 32 coroutines", 0), ("obstore, 16 threads", 16)):
            found.setdefault(name, []).append(bare(bucket, threads))
        lake = folder / "lake"
        ours = child(bucket, lake)
        found.setdefault("ingest, from the start of Python", []).append(count / ours["seconds"])
        found.setdefault("ingest, from the end of the search", []).append(count / (ours["seconds"] - ours["search"]))
        assert ours["records"] == made.records, "records are missing"
        shutil.rmtree(lake)
        say(f"round {number + 1}: " + ", ".join(f"{name} {values[-1]:,.0f}/s" for name, values in found.items()))
    base = max(median(values) for name, values in found.items() if name.startswith("obstore"))
    whole, reading = (median(values) / base for name, values in found.items() if name.startswith("ingest"))
    rows = [f"| {name} | {median(v):,.0f} | {min(v):,.0f} - {max(v):,.0f} |" for name, v in found.items()]
    return [
        f"{count:,} log objects of {made.bytes / count:,.0f} bytes and {made.records / count:.1f} records; the median "
        f"of {ROUNDS} rounds in turns. The ingest, to its last commit, reaches {reading:.0%} of the faster way "
        f"to get the objects and throw them away; with its imports and the search, {whole:.0%}.",
        "",
        "| | objects per second | from - to |",
        "|---|---|---|",
        *rows,
    ]


def keys(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield keys and log objects of one event over the years up to now."""
    now = datetime.now(UTC)
    streams = [(account, region) for account in ACCOUNTS for region in REGIONS]
    each = count // len(streams)
    step = timedelta(days=365 * YEARS) / each
    for at in range(each):
        minute = now - step * (each - at - 1)
        for number, (account, region) in enumerate(streams):
            name = f"{account}_CloudTrail_{region}_{minute:%Y%m%dT%H%M}Z_{at:016}.json.gz"
            record = {
                "eventVersion": "1.11",
                "eventID": f"{at:08x}-0000-4000-8000-{number:012x}",
                "eventTime": f"{minute:%Y-%m-%dT%H:%M:%SZ}",
                "eventSource": "s3.amazonaws.com",
                "eventName": "GetObject",
                "awsRegion": region,
                "recipientAccountId": account,
                "eventCategory": "Data",
            }
            folder = f"AWSLogs/{account}/CloudTrail/{region}/{minute:%Y/%m/%d}/"
            yield folder + name, gzip.compress(json.dumps({"Records": [record]}).encode(), 1)


def listing(server: Any, folder: Path, count: int) -> list[str]:
    """Measure what is listed of a large bucket, and return the lines of the page."""
    bucket = server.new_bucket()
    part: dict[str, bytes] = {}
    total = 0
    for key, body in keys(count):
        part[key] = body
        if len(part) == 5000:
            server.put(bucket, part)
            total += len(part)
            part = {}
            say(f"{total:,} keys written")
    server.put(bucket, part)
    total += len(part)
    runs = {}
    for name, lake, days in (
        ("`--since -1d` into a new lake", "a", 1.0),
        ("the same again", "a", 1.0),
        ("everything, into a new lake", "b", 0.0),
        ("the same again", "b", 0.0),
        ("`--since -1d` of a lake that has everything", "b", 1.0),
    ):
        runs[f"{name}|{lake}|{days}"] = child(bucket, folder / lake, days)
        say(f"{name}: {runs[f'{name}|{lake}|{days}']}")
    rows = [_row(name.partition("|")[0], times) for name, times in runs.items()]
    return [
        f"{total:,} keys over {YEARS} years, {len(ACCOUNTS)} accounts and {len(REGIONS)} regions; times count from the "
        "start of Python. The memory is that of all processes together, shared pages counted in each.",
        "",
        "| run | LIST requests | new objects | known objects seen | search | first record | all | memory |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]


def _row(name: str, times: dict[str, Any]) -> str:
    first = f"{times['first']:.1f} s" if "first" in times else "-"
    numbers = f"{times['requests']:,} | {times['objects']:,} | {times['known']:,} | {times['search']:.1f} s | {first}"
    return f"| {name} | {numbers} | {times['seconds']:.0f} s | {times['peak']:.0f} MB |"


def main() -> None:
    """Measure, and write the page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--objects", type=int, default=20_000)
    options.add_argument("--keys", type=int, default=200_000)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    sys.path.insert(0, str(HERE.parent / "tests"))
    s3_server = importlib.import_module("s3_server")
    with tempfile.TemporaryDirectory(prefix="trailsift-bench-") as name:
        folder = Path(name)
        with s3_server.running(folder / "server") as server:
            os.environ.update(server.env)
            first = rates(server, folder, chosen.objects) if chosen.objects else []
            second = listing(server, folder, chosen.keys) if chosen.keys else []
    head = [
        "# S3 as a source, measured",
        "",
        f"{state_of_code()}; {os.cpu_count()} cores shared by the S3 server (SeaweedFS), the ingest and other work "
        f"(load {os.getloadavg()[2]:.1f} over the last 15 minutes). `make bench-s3` writes this page.",
    ]
    parts = [["## Many tiny objects", "", *first], ["## A bucket of years", "", *second]]
    lines = [line for part in parts if part[2:] for line in ("", *part)]
    text = "\n".join([*head, *lines]) + "\n"
    if chosen.out:
        chosen.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
