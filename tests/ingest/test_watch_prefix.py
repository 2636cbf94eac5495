"""Watch a prefix of S3, on a real server: what is listed, what comes, and what that costs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from queues import log
from s3_proxy import SLOW_DOWN, Proxy
from s3_server import Server
from s3_server import proxy as proxy
from s3_server import s3 as s3
from s3_server import s3_server as s3_server
from support.logs import rows
from trailsift.errors import LakeError, S3Error, SourceError
from trailsift.ingest.watch import Hooks, Pace, WatchStatus
from trailsift.ingest.watching import watch
from trailsift.sources import WatchOptions


def key(number: int, moment: datetime | None = None) -> str:
    at = moment or datetime.now(UTC)
    folder = f"AWSLogs/111122223333/CloudTrail/us-east-1/{at:%Y/%m/%d}/"
    return f"{folder}111122223333_CloudTrail_us-east-1_{at:%Y%m%dT%H%M}Z_{number:016}.json.gz"


def ids(lake: Path) -> Counter[int]:
    """Return the numbers of the events; none while the lake is being made."""
    try:
        found = rows(lake, columns="event_id")
    except LakeError:
        return Counter()
    return Counter(int(row["event_id"][:8], 16) for row in found)


def once(place: str, lake: Path, **hooks: Any) -> WatchStatus:
    options = WatchOptions(poll=1)
    return watch(place, lake, options, Hooks(**hooks), Pace(0.0, once=True, seconds=60), threading.Event())


class Running:
    """A watch in a thread, which searches every second."""

    def __init__(self, place: str, lake: Path) -> None:
        self.said: list[str] = []
        self.status: WatchStatus | None = None
        self._stop = threading.Event()
        hooks = Hooks(trouble=self.said.append, started=self.said.append)
        self._arguments = (place, lake, WatchOptions(poll=1), hooks, Pace(0.0), self._stop)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.status = watch(*self._arguments)

    def stop(self) -> WatchStatus:
        self._stop.set()
        self._thread.join(60)
        assert self.status is not None
        return self.status


def wait_for(done: Callable[[], Any], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def has(lake: Path, *numbers: int) -> bool:
    return ids(lake) == Counter(numbers)


def test_what_was_there_what_comes_and_what_it_costs(s3: Server, tmp_path: Path) -> None:
    bucket, lake = s3.new_bucket(), tmp_path / "lake"
    old, now = datetime.now(UTC) - timedelta(days=40), datetime.now(UTC)
    s3.put(bucket, {key(1, old): log(1), key(2): log(2)})
    running = Running(f"s3://{bucket}/AWSLogs", lake)
    try:
        wait_for(lambda: has(lake, 1, 2))
        s3.put(bucket, {key(3): log(3)})
        wait_for(lambda: has(lake, 1, 2, 3))
        # Objects of a minute before may appear later; another region, too.
        s3.put(bucket, {key(4, now - timedelta(minutes=20)): log(4), key(5).replace("us-east-1", "eu-west-1"): log(5)})
        wait_for(lambda: has(lake, 1, 2, 3, 4, 5))
    finally:
        status = running.stop()
    assert status.received == status.stored == 5 and not status.errors
    start = running.said[0]
    assert "2 log objects are new; every 1 s" in start and "LIST requests" in start and "per day, which cost $" in start
    # Later, what came meanwhile is found, and nothing is stored twice.
    s3.put(bucket, {key(6): log(6)})
    assert once(f"s3://{bucket}/AWSLogs", lake).received == 1
    assert has(lake, 1, 2, 3, 4, 5, 6)


def test_nothing_of_the_last_days(s3: Server, tmp_path: Path) -> None:
    bucket, lake = s3.new_bucket(), tmp_path / "lake"
    s3.put(bucket, {key(1, datetime.now(UTC) - timedelta(days=100)): log(1)})
    running = Running(f"s3://{bucket}/AWSLogs/", lake)
    try:
        wait_for(lambda: has(lake, 1))
        time.sleep(2)
        s3.put(bucket, {key(2): log(2)})
        wait_for(lambda: has(lake, 1, 2))
    finally:
        running.stop()
    assert len(running.said) == 1


def test_only_the_last_days_are_listed(s3: Server, proxy: Proxy, tmp_path: Path) -> None:
    bucket, lake = s3.new_bucket(), tmp_path / "lake"
    now = datetime.now(UTC)
    s3.put(bucket, {key(n, now - timedelta(days=n)): log(n) for n in range(60)})
    running = Running(f"s3://{bucket}", lake)
    try:
        wait_for(lambda: len(ids(lake)) == 60)
        before = len(proxy.requests)
        time.sleep(5)
        polled = [request.path for request in proxy.requests[before:] if request.is_list]
    finally:
        running.stop()
    days = {part for target in polled for part in target.split("&") if part.startswith("prefix=") and "20" in part}
    assert polled and len(days) <= 3, days


def test_a_server_that_is_busy_for_a_while(s3: Server, proxy: Proxy, tmp_path: Path) -> None:
    bucket, lake = s3.new_bucket(), tmp_path / "lake"
    s3.put(bucket, {key(1): log(1)})
    running = Running(f"s3://{bucket}/AWSLogs", lake)
    try:
        wait_for(lambda: has(lake, 1))
        proxy.rule = lambda request: SLOW_DOWN
        wait_for(lambda: len(running.said) > 1)
        s3.put(bucket, {key(2): log(2)})
        proxy.rule = lambda request: None
        wait_for(lambda: has(lake, 1, 2))
    finally:
        running.stop()
    assert "busy" in running.said[1] and "The watch goes on" in running.said[1]


def test_what_cannot_be_watched(s3: Server, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    with pytest.raises(SourceError, match=bucket):
        once(f"s3://{bucket}/AWSLogs", tmp_path / "lake")
    with pytest.raises(S3Error, match="no bucket"):
        once("s3://there-is-no-such-bucket/AWSLogs", tmp_path / "lake")
    assert not (tmp_path / "lake").exists()
