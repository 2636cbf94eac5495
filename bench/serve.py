"""Measure `trailsift serve`: its API with many clients, live events through the Firehose endpoint; write a page.

    python bench/serve.py --events 1000000 --out bench/SERVE.md

- The API of each view, asked by 10 clients at once, over a lake of 60 days. Every request asks for another period, so
  no answer is one that the server has kept; then the same requests again, of which it has kept all. CPU time is that of
  the server for one answer: it tells what a loaded machine hides.
- 2,000 events per second in 10 requests of a stream, with 10 open pages that follow, and one that asks for the overview
  now and then, as a browser does. From arrival: from when a request is sent to when a page has as many events as were
  sent with it. From commit: from the time of the commit to when the page has its message.
- Memory: that of the server, of the process that writes, and of that which compacts beside it.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil

from page import state_of_code
from watch import record

KEY = "the-key-of-the-measured-stream"
#: Events per second, requests per second, and pages that follow.
EVENTS, REQUESTS, PAGES = 2000, 10, 10
#: What is wanted (milliseconds): of half of the answers, and of 95 in 100.
WANTED = (50, 200)
DAYS = 60


@dataclass
class Answers:
    """Milliseconds of the answers of one endpoint: the first time, and again."""

    name: str
    first: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    failed: int = 0
    #: Milliseconds of CPU time that an answer costs the server the first time.
    cpu: float = 0.0


@dataclass
class Live:
    """A minute of a stream: seconds from arrival and from commit to the page, and of the stream's requests."""

    arrival: list[float] = field(default_factory=list)
    commit: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    overview: list[float] = field(default_factory=list)
    sent: int = 0
    seen: int = 0
    failed: int = 0
    load: float = 0.0
    #: CPU seconds by process per second of the stream.
    cpu: dict[str, float] = field(default_factory=dict)
    #: Largest resident memory by process (MB), and that of all together at one time.
    memory: dict[str, float] = field(default_factory=dict)


def asked(chance: random.Random, start: datetime) -> list[tuple[str, dict[str, str]]]:
    """Return a request of each view, of a period that nobody has asked for: from 1 to 8 weeks that end in any hour."""
    hours = chance.randrange(7 * 24, 56 * 24)
    first = start + timedelta(hours=chance.randrange(DAYS * 24 - hours))
    period = {"since": f"{first:%Y-%m-%dT%H:%M:%SZ}", "until": f"{first + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"}
    stretch = start + timedelta(hours=chance.randrange(28 * 24, DAYS * 24 - 6))
    brushed = {"since": f"{stretch:%Y-%m-%dT%H:%M:%SZ}", "until": f"{stretch + timedelta(hours=3):%Y-%m-%dT%H:%M:%SZ}"}
    stacks = ("service", "event", "caller", "account", "error")
    return [
        ("activity", {**period, "by": chance.choice(stacks)}),
        ("explain", brushed),
        ("explain", {**brushed, "against": "weeks"}),
        ("callers", period),
        ("caller", {**period, "name": "orders-etl-batch"}),
        ("resource", {**period, "name": "kelp-orders-lake"}),
        ("summary", {**period, "by": "resource"}),
        ("cost", period),
        ("suggestions", {"limit": str(chance.randrange(5, 15))}),
        ("status", {}),
        ("arrivals", {"limit": str(chance.randrange(1, 60))}),
        ("tables", {}),
        ("findings", {"budget": str(chance.randrange(5, 15))}),
    ]


def name_of(path: str, values: dict[str, str]) -> str:
    """Return what a request is called on the page."""
    return f"{path}, the weeks before" if "against" in values else path


def measure_api(url: str, process: psutil.Process, start: datetime, rounds: int, clients: int) -> dict[str, Answers]:
    """Ask each endpoint, one endpoint after the other, by clients at once."""
    chance = random.Random(7)
    rows = [asked(chance, start) for _ in range(rounds * clients)]
    found: dict[str, Answers] = {}
    with httpx.Client(base_url=url, timeout=120, limits=httpx.Limits(max_connections=clients)) as client:

        def ask(path: str, values: dict[str, str]) -> float | None:
            began = time.perf_counter()
            answer = client.get(f"/api/v1/{path}", params=values)
            took = (time.perf_counter() - began) * 1e3
            return took if answer.status_code == 200 else None

        with ThreadPoolExecutor(clients) as threads:
            for column in zip(*rows, strict=True):
                path, values = column[0]
                answers = found.setdefault(name_of(path, values), Answers(name_of(path, values)))
                # Findings are kept by the lake itself: the first one makes them. Of what takes seconds, once is enough.
                chosen = column[:clients] if path == "findings" else column
                if path == "findings":
                    ask(path, values)
                for times in (answers.first, answers.again):
                    before = process.cpu_times()
                    for took in threads.map(lambda one: ask(*one), chosen):
                        if took is None:
                            answers.failed += 1
                        else:
                            times.append(took)
                    if times is answers.first:
                        spent = process.cpu_times()
                        seconds = spent.user + spent.system - before.user - before.system
                        answers.cpu = seconds * 1e3 / len(chosen)
                print(f"{answers.name}: {_ms(answers.first)} | {answers.cpu:,.0f} / {_ms(answers.again)}", flush=True)
    return found


# -- live --------------------------------------------------------------------------------------------------------------


class Page:
    """An open page: it follows the commits, and notes when it had how many events."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        self.events: list[tuple[float, int]] = []
        self.commits: list[float] = []
        self.is_open = threading.Event()
        self._url, self._stop = url, stop
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self) -> None:
        total, kind, first = 0, "", True
        with httpx.stream("GET", f"{self._url}/api/v1/live", timeout=60) as answer:
            for line in answer.iter_lines():
                if self._stop.is_set():
                    return
                if line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("data: ") and kind == "commit":
                    now, message = time.time(), json.loads(line[6:])
                    if first:
                        # What was there before.
                        first = False
                        self.is_open.set()
                        continue
                    total += message["stored"]
                    self.events.append((now, total))
                    self.commits.append(now - datetime.fromisoformat(message["committed_at"]).timestamp())


def body_of(number: int, first: int, events: int, chance: random.Random) -> tuple[str, bytes]:
    """Return a request's id and body: what a subscription filter has sent, in records of 100 events."""
    moment = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    records = []
    for at in range(0, events, 100):
        listed = [
            {"id": str(n), "timestamp": 0, "message": json.dumps(record(first + at + n, moment, chance))}
            for n in range(min(100, events - at))
        ]
        envelope = {"messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "g", "logStream": "s", "logEvents": listed}
        records.append({"data": base64.b64encode(gzip.compress(json.dumps(envelope).encode(), 1)).decode()})
    name = f"live-{os.getpid()}-{number}"
    body = {"requestId": name, "timestamp": int(time.time() * 1000), "records": records}
    return name, json.dumps(body).encode()


def measure_live(url: str, process: psutil.Process, seconds: float) -> Live:
    """Send events as a stream does while pages follow."""
    live, stop = Live(), threading.Event()
    pages = [Page(url, stop) for _ in range(PAGES)]
    for page in pages:
        page.is_open.wait(30)
    chance = random.Random(3)
    before = _cpu(process)
    threading.Thread(target=_note_memory, args=(process, live.memory, stop), daemon=True).start()
    threading.Thread(target=_overview, args=(url, live, stop), daemon=True).start()
    sent: list[tuple[float, int]] = []
    with httpx.Client(timeout=120, limits=httpx.Limits(max_connections=64)) as client:

        def send(name: str, body: bytes) -> None:
            headers = {"x-amz-firehose-access-key": KEY, "x-amz-firehose-request-id": name}
            headers |= {"content-type": "application/json"}
            began = time.perf_counter()
            answer = client.post(f"{url}/firehose", content=body, headers=headers)
            live.requests.append(time.perf_counter() - began)
            live.failed += answer.status_code != 200

        with ThreadPoolExecutor(48) as threads:
            began, each = time.time(), EVENTS // REQUESTS
            for number in range(int(seconds * REQUESTS)):
                name, body = body_of(number, live.sent, each, chance)
                time.sleep(max(0.0, began + number / REQUESTS - time.time()))
                live.sent += each
                sent.append((time.time(), live.sent))
                threads.submit(send, name, body)
    live.load = os.getloadavg()[0]
    live.cpu = {name: (spent - before.get(name, 0.0)) / seconds for name, spent in _cpu(process).items()}
    end = time.time() + 20
    while time.time() < end and (not pages[0].events or pages[0].events[-1][1] < live.sent):
        time.sleep(0.1)
    stop.set()
    for page in pages:
        live.commit += page.commits
        totals = [total for _, total in page.events]
        for moment, total in sent:
            at = bisect_left(totals, total)
            if at < len(totals):
                live.arrival.append(page.events[at][0] - moment)
    live.seen = min(page.events[-1][1] if page.events else 0 for page in pages)
    return live


def _overview(url: str, live: Live, stop: threading.Event) -> None:
    with httpx.Client(timeout=60) as client:
        while not stop.wait(2.0):
            began = time.perf_counter()
            client.get(f"{url}/api/v1/activity", params={"by": "caller"})
            live.overview.append((time.perf_counter() - began) * 1e3)


def _cpu(process: psutil.Process) -> dict[str, float]:
    """Return the CPU seconds of the server and of what writes beside it."""
    writers = [child.cpu_times() for child in process.children() if "spawn_main" in str(child.cmdline())]
    found = {"the server": [process.cpu_times()], "writing": writers}
    return {name: sum(times.user + times.system for times in each) for name, each in found.items()}


def _note_memory(process: psutil.Process, memory: dict[str, float], stop: threading.Event) -> None:
    while not stop.wait(1.0):
        held = {"the server": process.memory_info().rss / 1e6}
        for child in process.children():
            if "spawn_main" not in str(child.cmdline()):
                continue
            held["writing"] = child.memory_info().rss / 1e6
            held["compaction"] = sum(each.memory_info().rss for each in child.children()) / 1e6
        held["all together"] = sum(held.values())
        for name, value in held.items():
            memory[name] = max(memory.get(name, 0.0), value)


# -- the server and the lake -------------------------------------------------------------------------------------------


@contextmanager
def serving(lake: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server over a lake; yield its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "trailsift", "serve", "--lake", str(lake), "--port", str(port), "--firehose"]
    env = {**os.environ, "TRAILSIFT_FIREHOSE_KEY": KEY}
    server = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if "Ctrl-C" in line:
            break
    threading.Thread(target=server.stderr.read, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{port}", psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(60)


def made(events: int, folder: Path) -> Path:
    """Make a lake of so many events of 60 days."""
    from trailsift import Lake
    from trailsift.generate import Options, generate

    generate(folder / "logs", Options(events=events, days=DAYS, seed=1))
    Lake(folder / "lake").ingest(folder / "logs" / "AWSLogs")
    shutil.rmtree(folder / "logs")
    return folder / "lake"


def _warm(lake: Path) -> None:
    """Make the lake's findings: what detection has judged is kept in the lake, and not made by the first reader."""
    from trailsift import Lake

    with Lake(lake) as opened:
        began = time.process_time()
        opened.detect()
        print(f"findings of the whole lake: {time.process_time() - began:.1f} s of CPU time", flush=True)


# -- the page ----------------------------------------------------------------------------------------------------------


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")


def _ms(values: Sequence[float]) -> str:
    return f"{_quantile(values, 0.5):,.0f} | {_quantile(values, 0.95):,.0f}"


def _about_load(load: float) -> list[str]:
    """Return what is to be said about a machine that had other work; nothing if it had none."""
    if load < 3 * (os.cpu_count() or 1):
        return []
    said = (
        f"**Not a measurement of the speed.** Other programs ran beside it (load {load:.0f}), with a higher priority "
    )
    return [said + "than these: waiting times are theirs. The CPU times and the memory are of use.", ""]


def report(answers: dict[str, Answers], live: Live, events: int, load: float, clients: int) -> str:
    """Return the page."""
    lines = [
        "# What the dashboard's server takes",
        "",
        f"{state_of_code()}, on {os.cpu_count()} cores that the clients share with the "
        f"server. A lake of {events:,} events of {DAYS} days. `make bench-serve` measures it again.",
        "",
        *_about_load(max(load, live.load)),
        f"## The API with {clients} clients at once",
        "",
        f"Milliseconds; wanted are {WANTED[0]} (p50) and {WANTED[1]} (p95). Load of the machine: {load:.1f}.",
        "",
        "| endpoint | p50 | p95 | CPU time of one | again p50 | again p95 | answers | failed |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {one.name} | {_ms(one.first)} | {one.cpu:,.0f} | {_ms(one.again)} | {len(one.first)} | {one.failed} |"
            for one in answers.values()
        ),
        "",
        "Every request asks for another period, from one to eight weeks; *again* are the same requests a second time.",
        "",
        f"## {EVENTS:,} events per second through the Firehose endpoint",
        "",
        f"{live.sent:,} events in requests of {EVENTS // REQUESTS}, {PAGES} open pages; each page saw {live.seen:,} of "
        f"them. {live.failed} requests failed. Load of the machine: {live.load:.1f}.",
        "",
        *(
            f"- {name}: p50 {_quantile(values, 0.5):.2f} s, p95 {_quantile(values, 0.95):.2f} s, longest "
            f"{max(values, default=float('nan')):.2f} s.{wanted}"
            for name, values, wanted in (
                ("From commit to page", live.commit, " Wanted: p95 1 s."),
                ("From arrival to page", live.arrival, " Wanted: p95 3 s."),
                ("A request of the stream, until it is answered", live.requests, ""),
            )
        ),
        f"- The overview meanwhile: p50 {_quantile(live.overview, 0.5):,.0f} ms, p95 "
        f"{_quantile(live.overview, 0.95):,.0f} ms of {len(live.overview)} answers.",
        f"- CPU time, in cores: {', '.join(f'{name} {value:.2f}' for name, value in live.cpu.items())}.",
        f"- Largest memory, in MB: {', '.join(f'{name} {value:,.0f}' for name, value in live.memory.items())}. "
        "Wanted: 500 for the server.",
        "",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--lake", type=Path, help="a lake of generated logs; it is copied")
    parser.add_argument("--rounds", type=int, default=5, help="requests of each client to each endpoint")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the stream")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="trailsift-bench-serve-") as name:
        folder = Path(name)
        if options.lake is None:
            lake = made(options.events, folder)
        else:
            from trailsift import Lake

            lake = folder / "lake"
            shutil.copytree(options.lake, lake)
            Lake(lake).relocate()
        _warm(lake)
        with serving(lake) as (url, process):
            extent = httpx.get(f"{url}/api/v1/session", timeout=60).json()
            start = datetime.fromisoformat(extent["since"]).replace(minute=0, second=0, microsecond=0)
            answers = measure_api(url, process, start, options.rounds, options.clients)
            load = os.getloadavg()[0]
            live = measure_live(url, process, options.seconds)
    text = report(answers, live, options.events, load, options.clients)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
