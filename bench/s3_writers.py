"""Let several writers, each as if on a machine of its own, ingest into one lake in S3; write a Markdown page.

    python bench/s3_writers.py --minutes 5 --out bench/S3_WRITERS.md

Each writer is a process with a cache of its own. It ingests one log object after the other: its own, and every third
one is given to all writers at about the same time, as when two queues deliver it. One of them compacts now and then. A
proxy in front of the S3 server (SeaweedFS) counts the swaps of the catalog: won (200) and lost (412). At the end the
lake is compared with what was generated, event by event, `verify` reads it, and a local lake of the same logs has to
have the same summaries.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import multiprocessing
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from page import state_of_code
from trailsift import Lake
from trailsift.errors import TrailsiftError
from watch import log

HERE = Path(__file__).resolve().parent
EVENTS = 200


@dataclass
class Written:
    """What one writer did: its log objects, seconds of each ingest, and the errors that it reported."""

    objects: int = 0
    seconds: list[float] = field(default_factory=list)
    stored: int = 0
    errors: list[str] = field(default_factory=list)


def write(number: int, url: str, folder: Path, env: dict[str, str], end: float, results: Any) -> None:
    """Ingest log objects until ``end`` (of the monotonic clock)."""
    os.environ.update(env, XDG_CACHE_HOME=str(folder / f"cache-{number}"))
    lake, done = Lake(url), Written()
    for turn in itertools.count():
        if time.monotonic() >= end:
            break
        # Every third one is that of all writers.
        path = folder / "logs" / (f"all-{turn}.json.gz" if turn % 3 == 2 else f"{number}-{turn}.json.gz")
        if not path.exists():
            break
        started = time.monotonic()
        try:
            counts = lake.ingest(path, compact=turn % 20 == 19)
        except TrailsiftError as error:
            done.errors.append(str(error))
            continue
        done.seconds.append(time.monotonic() - started)
        done.objects += 1
        done.stored += counts.stored
    results.put((number, done))


def prepare(folder: Path, writers: int, turns: int) -> None:
    """Write the log objects; ``turns`` of each writer."""
    (folder / "logs").mkdir()
    chance, first = random.Random(5), 0
    for turn in range(turns):
        names = ["all"] if turn % 3 == 2 else [str(number) for number in range(writers)]
        for name in names:
            (folder / "logs" / f"{name}-{turn}.json.gz").write_bytes(log(first, EVENTS, chance))
            first += EVENTS


def main() -> int:
    """Measure, and write the page; 1 if the lake is not what it has to be."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=5)
    options.add_argument("--writers", type=int, default=2)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    sys.path.insert(0, str(HERE.parent / "tests"))
    s3_server, s3_proxy = importlib.import_module("s3_server"), importlib.import_module("s3_proxy")
    seconds = chosen.minutes * 60
    with tempfile.TemporaryDirectory(prefix="trailsift-writers-") as name:
        folder = Path(name)
        prepare(folder, chosen.writers, int(seconds * 12))
        with s3_server.running(folder / "server") as server, s3_proxy.proxied(server.url) as proxy:
            env = {**server.env, "AWS_ENDPOINT_URL": proxy.url}
            url = f"s3://{server.new_bucket()}/lake"
            written, used = run(url, folder, env, chosen.writers, seconds)
            os.environ.update(server.env, XDG_CACHE_HOME=str(folder / "cache-reader"))
            lines, right = compare(url, folder, used)
            swaps = [
                status
                for request, status in list(proxy.answers)
                if request.method == "PUT" and request.key == "lake/catalog.db"
            ]
    won, lost = sum(status < 300 for status in swaps), swaps.count(412)
    page = [
        "# Several writers on one lake in S3",
        "",
        f"{state_of_code()}; {os.cpu_count()} cores shared by the S3 server (SeaweedFS), the proxy, the writers and "
        f"other work. {chosen.writers} writers for {chosen.minutes:g} minutes, log objects of {EVENTS} events.",
        "",
        f"Swaps of the catalog: {won:,} won, {lost:,} lost ({lost / max(len(swaps), 1):.0%}), "
        f"{len(swaps) - won - lost} with another answer.",
        "",
        "| writer | log objects | events stored | median s | longest s | errors |",
        "|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {number} | {one.objects:,} | {one.stored:,} | {median(one.seconds):.2f} | {max(one.seconds):.2f} "
            f"| {len(one.errors)} |"
            for number, one in sorted(written.items())
        ),
        "",
        *lines,
        *(f"- {error}" for one in written.values() for error in one.errors[:5]),
    ]
    text = "\n".join(page).rstrip() + "\n"
    print(text)
    if chosen.out:
        chosen.out.write_text(text)
    return 0 if right else 1


def run(
    url: str, folder: Path, env: dict[str, str], writers: int, seconds: float
) -> tuple[dict[int, Written], list[Path]]:
    """Run the writers; return what each did, and the log objects that at least one of them has ingested."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    end = time.monotonic() + seconds
    processes = [
        context.Process(target=write, args=(number, url, folder, env, end, results)) for number in range(writers)
    ]
    for process in processes:
        process.start()
    written = dict(results.get() for _ in processes)
    for process in processes:
        process.join()
    used = []
    for number, one in written.items():
        for turn in range(one.objects + len(one.errors)):
            used.append(folder / "logs" / (f"all-{turn}.json.gz" if turn % 3 == 2 else f"{number}-{turn}.json.gz"))
    return written, sorted(set(used))


def compare(url: str, folder: Path, used: list[Path]) -> tuple[list[str], bool]:
    """Return what a reader finds beside what the log objects hold, and whether it is the same."""
    lake, beside = Lake(url), Lake(folder / "local.lake")
    beside.ingest(*used)
    counts = "SELECT count(*), count(DISTINCT event_id) FROM events"
    sums = (
        "SELECT caller, hour, event_name, resource_arn, sum(events), sum(bytes_out) FROM hourly "
        "GROUP BY ALL ORDER BY ALL"
    )
    ids = "SELECT event_id FROM events ORDER BY 1"
    stored, distinct = lake.query(counts, cache=False).rows()[0]
    same_ids = lake.query(ids, cache=False).rows() == beside.query(ids, cache=False).rows()
    same_sums = lake.query(sums, cache=False).rows() == beside.query(sums, cache=False).rows()
    verified = lake.verify()
    right = stored == distinct == len(used) * EVENTS and same_ids and same_sums and verified.is_sound
    return [
        f"{len(used):,} log objects with {len(used) * EVENTS:,} events: {stored:,} events in the lake, {distinct:,} "
        f"distinct ids. Ids {'equal' if same_ids else 'DIFFERENT from'}, hourly sums "
        f"{'equal' if same_sums else 'DIFFERENT from'} a local lake of the same log objects; "
        f"`verify`: {'no problem' if verified.is_sound else 'PROBLEMS'}.",
        "",
    ], right


if __name__ == "__main__":
    sys.exit(main())
