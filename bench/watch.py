"""Measure `trailsift watch`: many commits in a row, and a producer of 2,000 events per second; write a Markdown page.

    python bench/watch.py --commits 5000 --minutes 10 --out bench/WATCH.md

- Commits in a row, each with one log object of five events of now, with compaction beside as always: the median of the
  first hundred, the medians of each 500 that follow, and the slowest. A commit's time goes from the group to the end of
  the commit and holds the waits for other processes; CPU time is that of the whole process.
- A folder, and a queue of S3's notifications (ministack as SQS, SeaweedFS as S3): a producer writes 80 log objects
  of 25 events per second; another process asks all the time which log objects of the last seconds are in the lake. The
  latency is from the moment the producer has closed the file, or sent the message, to that of the answer.
  Memory is that of the watch and of its children, every five seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from page import state_of_code
from trailsift.runtime import spare_memory

EVENTS, OBJECTS = 2000, 80
ROOT = Path(__file__).resolve().parent.parent


def record(number: int, moment: str, chance: random.Random) -> dict[str, Any]:
    """Return an event of one of 40 roles, on one of 300 keys of three buckets."""
    role, bucket = chance.randrange(40), f"data-{chance.randrange(3)}"
    key = f"in/{chance.randrange(100)}/part-{chance.randrange(3)}.parquet"
    return {
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "AssumedRole",
            "principalId": f"AROA{role}:job",
            "arn": f"arn:aws:sts::111122223333:assumed-role/role-{role}/job",
            "accountId": "111122223333",
            "accessKeyId": f"ASIA{role}",
            "sessionContext": {"sessionIssuer": {"type": "Role", "arn": f"arn:aws:iam::111122223333:role/role-{role}"}},
        },
        "eventTime": moment,
        "eventSource": "s3.amazonaws.com",
        "eventName": chance.choice(("GetObject", "GetObject", "PutObject", "ListObjects")),
        "awsRegion": "eu-west-1",
        "sourceIPAddress": f"10.0.{role}.{chance.randrange(20)}",
        "userAgent": "[Boto3/1.34]",
        "requestParameters": {"bucketName": bucket, "Host": f"{bucket}.s3.amazonaws.com", "key": key},
        "responseElements": None,
        "additionalEventData": {"bytesTransferredIn": 0, "bytesTransferredOut": chance.randrange(100_000)},
        "requestID": f"{number:016X}",
        "eventID": f"{number:08x}-2222-4333-8444-{chance.getrandbits(48):012x}",
        "readOnly": True,
        "resources": [
            {"type": "AWS::S3::Object", "ARN": f"arn:aws:s3:::{bucket}/{key}"},
            {"accountId": "111122223333", "type": "AWS::S3::Bucket", "ARN": f"arn:aws:s3:::{bucket}"},
        ],
        "eventType": "AwsApiCall",
        "managementEvent": False,
        "recipientAccountId": "111122223333",
        "eventCategory": "Data",
    }


def log(first: int, events: int, chance: random.Random) -> bytes:
    """Return a log object of events of now."""
    moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    records = [record(first + number, moment, chance) for number in range(events)]
    return gzip.compress(json.dumps({"Records": records}).encode(), 1)


# -- commits in a row --------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """Commits in a row: seconds of each by the clock and of CPU time, and the memory at the ends of blocks (bytes)."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    folder: list[int] = field(default_factory=list)
    beside: Any = None


BLOCK = 500


def commits_in_a_row(number: int, folder: Path) -> Row:
    """Commit one log object after the other."""
    from trailsift.ingest.watch import Hooks, Pace, Watch
    from trailsift.lake.beside import Beside
    from trailsift.lake.writer import LakeWriter
    from trailsift.sources.arrivals import Arrival, Settled
    from trailsift.sources.files import FileSource

    row, stop, chance = Row(), threading.Event(), random.Random(1)
    logs = folder / "logs"
    logs.mkdir()
    source = FileSource([str(logs)])

    class Given:
        """Arrivals that are there when they are asked for."""

        caught_up, waiting = False, 0

        def take(self, seconds: float) -> Sequence[Arrival]:
            count = len(row.wall)
            if count == number:
                stop.set()
                return ()
            path = logs / f"{count}.json.gz"
            path.write_bytes(log(count * 5, 5, chance))
            item = source.log_object(str(path))
            assert item is not None
            return [Arrival((item,), time.monotonic() - 60, datetime.now(UTC))]

        def settle(self, arrivals: Sequence[Arrival], missed: Mapping[Any, Any]) -> Settled:
            for arrival in arrivals:
                Path(arrival.log_objects[0].path).unlink()
            return Settled()

        def close(self) -> None:
            pass

    class Timed(Watch):
        """A watch that notes the CPU time of each commit."""

        def _commit(self, group: list[Arrival]) -> None:
            before = time.process_time()
            super()._commit(group)
            row.cpu.append(time.process_time() - before)

    def committed(done: Any) -> None:
        row.wall.append(done.seconds)
        if len(row.wall) % BLOCK == 0:
            row.memory.append(psutil.Process().memory_info().rss)
            row.folder.append(sum(len(files) for _, _, files in os.walk(folder / "lake")))
            part = row.wall[-BLOCK:]
            print(f"{len(row.wall)}: {median(part) * 1e3:.0f} ms, at most {max(part) * 1e3:.0f}", flush=True)

    lake = LakeWriter.create(folder / "lake")
    beside = Beside(lake, print)
    Timed(Given(), lake, Hooks(committed=committed, trouble=print), Pace(0.0), beside=beside).run(stop)  # type: ignore[arg-type]
    row.beside = beside.counts
    return row


# -- a producer and a watch --------------------------------------------------------------------------------------------


@dataclass
class Live:
    """A watch under load: seconds from arrival to an answer, and the memory of its processes (MB) over time."""

    name: str
    latencies: list[float] = field(default_factory=list)
    memory: list[tuple[float, float, float]] = field(default_factory=list)
    produced: int = 0
    totals: dict[str, Any] = field(default_factory=dict)
    commits: list[dict[str, Any]] = field(default_factory=list)
    missing: int = 0
    load: float = 0.0
    #: Seconds of CPU time of the watch, and of its process for compaction.
    cpu: tuple[float, float] = (0.0, 0.0)


def ask(lake: Path, names: Any, seconds: float) -> None:
    """Ask again and again which log objects are there; send each with the time at which it was first answered."""
    from trailsift import Lake, LakeError

    seen: set[str] = set()
    end = time.monotonic() + seconds
    while not (lake / "lake.json").exists():
        time.sleep(0.05)
    with Lake(lake) as opened:
        while time.monotonic() < end:
            since = datetime.fromtimestamp(time.time() - 20, UTC)
            sql = (
                f"SELECT DISTINCT log_object FROM events WHERE event_time >= TIMESTAMPTZ '{since:%Y-%m-%d %H:%M:%S}+00'"
            )
            try:
                found = {row["log_object"] for row in opened.query(sql, cache=False).dicts()}
            except LakeError:
                time.sleep(0.1)
                continue
            at = time.time()
            names.put([(name, at) for name in found - seen])
            # What is older is not asked for any more.
            seen = found
            time.sleep(0.2)
    names.put(None)


#: Delivers a log object of a number and content, and notes its name with the time.
Deliver = Callable[[int, bytes, dict[str, float]], None]


def live(name: str, place: str, deliver: Deliver, folder: Path, seconds: float, env: Mapping[str, str]) -> Live:
    """Run a watch on ``place`` while ``deliver`` is called."""
    result, lake = Live(name), folder / "lake"
    context = multiprocessing.get_context("spawn")
    names = context.Queue()
    asker = context.Process(target=ask, args=(lake, names, seconds + 15), daemon=True)
    words = [sys.executable, "-m", "trailsift", "watch", place, "--lake", str(lake), "--json"]
    watch = subprocess.Popen(words, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True)
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(watch.stdout or ()), daemon=True)
    reading.start()
    time.sleep(3)
    asker.start()
    sent: dict[str, float] = {}
    chance, began = random.Random(2), time.monotonic()
    sampled, per_object = 0.0, EVENTS // OBJECTS
    process = psutil.Process(watch.pid)
    lanes = ThreadPoolExecutor(8)
    while (now := time.monotonic() - began) < seconds:
        content = log(result.produced * per_object, per_object, chance)
        lanes.submit(deliver, result.produced, content, sent)
        result.produced += 1
        if now - sampled >= 5:
            sampled = now
            children = sum(child.memory_info().rss for child in process.children(recursive=True))
            result.memory.append((now, process.memory_info().rss / 1e6, children / 1e6))
        time.sleep(max(result.produced / OBJECTS - (time.monotonic() - began), 0))
        while lanes._work_queue.qsize() > OBJECTS:
            # The servers take no more.
            time.sleep(0.01)
    lanes.shutdown(cancel_futures=True)
    result.produced = len(sent)
    result.load = os.getloadavg()[1]
    result.cpu = _cpu(process), sum(map(_cpu, process.children(recursive=True)))
    answered: dict[str, float] = {}
    while (part := names.get()) is not None:
        for found, at_time in part:
            answered.setdefault(found, at_time)
    watch.send_signal(signal.SIGTERM)
    watch.wait(60)
    reading.join(10)
    documents = [json.loads(line) for line in lines]
    result.commits = [one for one in documents if one.get("commit")]
    result.totals = next(one["totals"] for one in documents if "totals" in one)
    result.latencies = [answered[one] - moment for one, moment in sent.items() if one in answered]
    result.missing = len(sent) - len(result.latencies)
    return result


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def of_folder(folder: Path, seconds: float) -> Live:
    """Watch a folder."""
    logs = folder / "logs"
    logs.mkdir()

    def deliver(number: int, content: bytes, sent: dict[str, float]) -> None:
        path = logs / f"{number // 5000}" / f"{number}.json.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        sent[str(path)] = time.time()

    return live("folder", str(logs), deliver, folder, seconds, {})


def of_queue(folder: Path, seconds: float) -> Live | None:
    """Watch a queue; None without the servers."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        s3_server: Any = importlib.import_module("s3_server")
        queues: Any = importlib.import_module("queues")
        importlib.import_module("ministack")
    except ImportError as error:
        print(f"no queue is measured: {error}")
        return None
    if s3_server.weed() is None:
        print("no queue is measured: SeaweedFS is not installed")
        return None
    with s3_server.running(folder / "s3") as s3, ministack(folder) as url:
        server = queues.Queues(url)
        queue, bucket = server.new("bench"), s3.new_bucket()
        env = {**s3.env, "AWS_ENDPOINT_URL_S3": s3.url, "AWS_ENDPOINT_URL_SQS": url}
        env.pop("AWS_ENDPOINT_URL")
        sqs = server.client("sqs")

        waiting: dict[str, str] = {}
        lock = threading.Lock()

        def deliver(number: int, content: bytes, sent: dict[str, float]) -> None:
            key = queues.name(number)
            body = queues.put(s3, bucket, key, content)
            with lock:
                waiting[f"s3://{bucket}/{key}"] = body
                if len(waiting) < 10:
                    return
                batch = dict(waiting)
                waiting.clear()
            entries = [{"Id": str(place), "MessageBody": text} for place, text in enumerate(batch.values())]
            sqs.send_message_batch(QueueUrl=queue, Entries=entries)
            sent.update(dict.fromkeys(batch, time.time()))

        return live("queue", queue, deliver, folder, seconds, env)


@contextlib.contextmanager
def ministack(folder: Path) -> Iterator[str]:
    """Run ministack's server in a process of its own; yield its URL. Moto's takes 40 messages per second."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "queue.log").open("wb") as out:
        words = [str(Path(sys.executable).parent / "ministack")]
        server = subprocess.Popen(words, stdout=out, stderr=out, env={**os.environ, "GATEWAY_PORT": str(port)})
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                pass
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


# -- the page ----------------------------------------------------------------------------------------------------------


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")


def row_lines(row: Row) -> list[str]:
    """Return the part of the page about commits in a row."""
    first = median(row.wall[:100])
    first_cpu = median(row.cpu[:100])
    slow = sum(value > 2 * first for value in row.wall)
    slow_cpu = sum(value > 2 * first_cpu for value in row.cpu)
    lines = [
        f"## {len(row.wall):,} commits in a row",
        "",
        f"Median of the first 100: {first * 1e3:.0f} ms ({first_cpu * 1e3:.0f} ms of CPU time). More than twice that: "
        f"{slow:,} commits by the clock ({slow / len(row.wall):.1%}), {slow_cpu:,} by CPU time.",
        "",
        "| commits | median ms | p95 ms | slowest ms | CPU median ms | CPU p95 ms | CPU most ms | memory MB | files |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for number, start in enumerate(range(0, len(row.wall) - BLOCK + 1, BLOCK)):
        wall, cpu = row.wall[start : start + BLOCK], row.cpu[start : start + BLOCK]
        cells = [
            f"{f(values) * 1e3:.0f}" for values in (wall, cpu) for f in (median, lambda v: _quantile(v, 0.95), max)
        ]
        lines.append(
            f"| {start + 1:,} to {start + BLOCK:,} | {' | '.join(cells)} | {row.memory[number] / 1e6:.0f} "
            f"| {row.folder[number]:,} |"
        )
    beside = row.beside
    lines += [
        "",
        f"Beside: {beside.rewrites:,} rewrites committed of {beside.files_replaced:,} files, {beside.files_deleted:,} "
        f"files deleted; the longest step between two commits took {beside.longest * 1e3:.0f} ms.",
    ]
    return lines


def live_lines(result: Live, seconds: float) -> list[str]:
    """Return the part of the page about a producer and a watch."""
    waits = result.latencies
    steady = [one for one in result.memory if one[0] >= seconds / 5]
    memory = [one[1] for one in steady] or [0.0]
    half = len(memory) // 2
    totals = result.totals
    return [
        f"## A {result.name}, {seconds / 60:g} minutes",
        "",
        f"{result.produced:,} log objects of {EVENTS // OBJECTS} events were delivered "
        f"({result.produced * (EVENTS // OBJECTS) / seconds:,.0f} events/s; load of the machine {result.load:.1f}), "
        f"{totals['stored']:,} events stored in {totals['commits']:,} commits, {totals['duplicates']:,} duplicates, "
        f"{result.missing:,} log objects never answered.",
        "",
        f"- From arrival to an answer: p50 {_quantile(waits, 0.5):.2f} s, p95 {_quantile(waits, 0.95):.2f} s, "
        f"p99 {_quantile(waits, 0.99):.2f} s, longest {max(waits, default=0):.2f} s.",
        f"- Commits: median {median([one['seconds'] for one in result.commits]) * 1e3:.0f} ms, of "
        f"{median([one['records'] for one in result.commits]):,.0f} events.",
        f"- CPU time: {result.cpu[0] / seconds:.2f} of a core for the watch; {result.cpu[1] / seconds:.2f} at "
        "least for compaction.",
        f"- Memory of the watch after the first fifth: {memory[0]:.0f} MB at first, {memory[-1]:.0f} MB at the end, at "
        f"most {max(memory):.0f}; median of the first half {median(memory[: half or 1]):.0f}, of the second "
        f"{median(memory[half:]):.0f}. Its process for compaction: at most {max(one[2] for one in steady):.0f} MB.",
    ]


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", choices=("commits", "folder", "queue"))
    parser.add_argument("--note", default="", help="what else the page says about this run")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    spare_memory()
    parts: list[str] = []
    seconds = arguments.minutes * 60
    for what in ("commits", "folder", "queue"):
        if arguments.only not in (None, what):
            continue
        folder = Path(tempfile.mkdtemp(prefix="trailsift-watch-"))
        try:
            if what == "commits":
                parts += [*row_lines(commits_in_a_row(arguments.commits, folder)), ""]
            else:
                result = of_folder(folder, seconds) if what == "folder" else of_queue(folder, seconds)
                parts += [*live_lines(result, seconds), ""] if result else []
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    page = "\n".join(["# What a watch takes", "", state_of_code(), arguments.note, "", *parts]).rstrip() + "\n"
    print(page)
    if arguments.out:
        arguments.out.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
