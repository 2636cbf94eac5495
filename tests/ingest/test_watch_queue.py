"""Watch a queue of S3's notifications: real servers of SQS, SNS and S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from queues import Queues, by_event_bridge, log, name, notice, put
from queues import queue_server as queue_server
from queues import queues as queues
from s3_server import Server
from s3_server import s3 as s3
from s3_server import s3_server as s3_server
from support.logs import rows
from support.paths import ROOT, variants
from trailsift.errors import SourceError, TrailsiftError, UsageError
from trailsift.ingest.watch import Committed, Hooks, Pace, WatchStatus
from trailsift.ingest.watching import watch
from trailsift.lake.verify import verify
from trailsift.sources import WatchOptions

FAST = WatchOptions(visible_after=6)
#: The command, whose messages come again soon after it was killed.
FAST_COMMAND = """
import functools, sys, trailsift.sources
trailsift.sources.WatchOptions = functools.partial(trailsift.sources.WatchOptions, visible_after=6)
from trailsift.cli import main
sys.exit(main(sys.argv[1:]))
"""
#: Events that are sent to a queue while its watch is killed.
EVENTS = 300


def once(queue: str, lake: Path, options: WatchOptions = FAST, **hooks: Any) -> WatchStatus:
    return watch(queue, lake, options, Hooks(**hooks), Pace(0.0, once=True, seconds=60), threading.Event())


def event_ids(lake: Path) -> Counter[str]:
    return Counter(row["event_id"][:8] for row in rows(lake, columns="event_id"))


def numbers(*of: int) -> Counter[str]:
    return Counter(f"{number:08x}" for number in of)


def sns_queue(queues: Queues, title: str, *, raw: bool) -> tuple[str, str]:
    """Return a queue and the topic of SNS that it is subscribed to."""
    queue = queues.new(title)
    sns, sqs = queues.client("sns"), queues.client("sqs")
    topic = sns.create_topic(Name=title)["TopicArn"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    attributes = {"RawMessageDelivery": "true"} if raw else {}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=attributes)
    return queue, topic


def test_every_form_of_notification(queues: Queues, s3: Server, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    queue = queues.new("forms")
    odd = "logs of a+b/50%/AWSLogs/111122223333/CloudTrail/us-east-1/2026/03/02/"
    plain = put(s3, bucket, name(1), log(1))
    escaped = put(s3, bucket, name(2, odd), log(2)).replace("/", "%2F")
    assert "%2F" in escaped and "+" in escaped and "%2B" in escaped and "%25" in escaped
    bridge = by_event_bridge(put(s3, bucket, name(3, odd), log(3)))
    put(s3, bucket, name(4), log(4))
    # CloudTrail's own message says no size.
    cloudtrail = json.dumps({"s3Bucket": bucket, "s3ObjectKey": [name(4)]})
    test = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": bucket})
    queues.send(queue, plain, escaped, bridge, cloudtrail, test)
    status = once(queue, tmp_path / "lake")
    assert event_ids(tmp_path / "lake") == numbers(1, 2, 3, 4)
    assert (status.received, status.stored, status.errors, status.set_aside) == (4, 4, 0, 0)
    assert queues.left(queue) == (0, 0)
    named = {row["log_object"] for row in rows(tmp_path / "lake", columns="log_object")}
    assert named == {f"s3://{bucket}/{key}" for key in (name(1), name(2, odd), name(3, odd), name(4))}


@pytest.mark.parametrize("raw", [False, True])
def test_through_sns(queues: Queues, s3: Server, tmp_path: Path, raw: bool) -> None:
    bucket = s3.new_bucket()
    queue, topic = sns_queue(queues, f"sns-{raw}", raw=raw)
    sns = queues.client("sns")
    first, second = (put(s3, bucket, name(number), log(number)) for number in (1, 2))
    for body in (first, by_event_bridge(second), json.dumps({"Event": "s3:TestEvent", "Service": "Amazon S3"})):
        sns.publish(TopicArn=topic, Message=body, Subject="Amazon S3 Notification")
    once(queue, tmp_path / "lake")
    assert event_ids(tmp_path / "lake") == numbers(1, 2)
    assert queues.left(queue) == (0, 0)


def test_what_is_no_log_is_acknowledged(queues: Queues, s3: Server, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    queue = queues.new("others")
    digest = name(1).replace("/CloudTrail/", "/CloudTrail-Digest/").replace("_CloudTrail_", "_CloudTrail-Digest_")
    queues.send(
        queue,
        put(s3, bucket, name(1), log(1)),
        notice(bucket, digest, 500),
        notice(bucket, "photos/cat.jpeg", 5_000_000_000),
        notice(bucket, "AWSLogs/111122223333/CloudTrail/", 0),
        notice(bucket, name(2), 10, event="ObjectRemoved:Delete"),
        put(s3, bucket, "other/notes.json", b'{"hello": 1}'),
    )
    status = once(queue, tmp_path / "lake")
    assert event_ids(tmp_path / "lake") == numbers(1)
    assert (status.received, status.log_objects_skipped, status.malformed) == (1, 1, 0)
    assert queues.left(queue) == (0, 0)


def test_an_object_that_is_gone_is_named_and_acknowledged(queues: Queues, s3: Server, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    queue = queues.new("gone")
    replaced = put(s3, bucket, name(2), log(2))
    queues.send(queue, notice(bucket, name(1), 100, "0" * 32), replaced, put(s3, bucket, name(2), log(2, 3)))
    commits: list[Committed] = []
    status = once(queue, tmp_path / "lake", committed=commits.append)
    assert event_ids(tmp_path / "lake") == numbers(2, 3)
    assert status.log_objects_gone == 2 and status.malformed == 0
    said = {item: why for commit in commits for item, why in commit.log_objects_gone.items()}
    assert "deleted" in said[f"s3://{bucket}/{name(1)}"] and "replaced" in said[f"s3://{bucket}/{name(2)}"]
    assert queues.left(queue) == (0, 0)


def test_messages_that_lie_about_the_size(queues: Queues, s3: Server, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    queue = queues.new("sizes")
    right = json.loads(put(s3, bucket, name(1), log(1)))
    for size in (1, 1 << 40, -5, "many", None, True, 1e300):
        right["Records"][0]["s3"]["object"]["size"] = size
        queues.send(queue, json.dumps(right))
    stop = threading.Event()
    lake = tmp_path / "lake"
    thread = threading.Thread(
        target=watch, args=(queue, lake, WatchOptions(visible_after=2), Hooks(), Pace(0.0, seconds=60), stop)
    )
    thread.start()
    wait_for(lambda: queues.left(queue) == (0, 0), 50)
    stop.set()
    thread.join(30)
    assert event_ids(lake) == numbers(1)
    assert not rows(lake, "rejects")


def test_poison_is_set_aside_and_named(queues: Queues, s3: Server, tmp_path: Path) -> None:
    bucket, foreign = s3.new_bucket(), "somebody-elses-bucket"
    queue = queues.new("poison")
    queues.send(
        queue,
        put(s3, bucket, name(1), log(1)),
        '{"hello": "world"}',
        notice(foreign, name(9), 100),
        notice(bucket, "AWSLogs/../../etc/passwd", 100),
    )
    stop, commits, said = threading.Event(), list[Committed](), list[str]()
    options = WatchOptions(visible_after=1, max_receives=2, buckets=(bucket,))
    lake = tmp_path / "lake"
    hooks = Hooks(committed=commits.append, trouble=said.append)
    thread = threading.Thread(target=watch, args=(queue, lake, options, hooks, Pace(0.0, seconds=60), stop))
    thread.start()
    wait_for(lambda: sum(len(commit.set_aside) for commit in commits) == 3, 50)
    stop.set()
    thread.join(30)
    assert event_ids(lake) == numbers(1)
    reasons = sorted(row["reason"] for row in rows(lake, "rejects"))
    assert len(reasons) == 3 and all("set aside after 2 receives" in reason for reason in reasons)
    assert any("hello" in reason for reason in reasons) and any(foreign in reason for reason in reasons)
    assert queues.left(queue) == (0, 0)


def test_with_a_redrive_policy_poison_is_left_to_it(queues: Queues, s3: Server, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    dead = queues.new("dead-letters")
    arn = queues.client("sqs").get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "2"})
    queue = queues.new("redriven", RedrivePolicy=redrive)
    queues.send(queue, put(s3, bucket, name(1), log(1)), '{"hello": "world"}')
    stop = threading.Event()
    options = WatchOptions(visible_after=1, max_receives=1)
    lake = tmp_path / "lake"
    thread = threading.Thread(target=watch, args=(queue, lake, options, Hooks(), Pace(0.0, seconds=60), stop))
    thread.start()
    wait_for(lambda: queues.left(dead) == (1, 0), 50)
    stop.set()
    thread.join(30)
    assert event_ids(lake) == numbers(1) and not rows(lake, "rejects")


def test_a_queue_of_something_else(queues: Queues, tmp_path: Path) -> None:
    queue = queues.new("foreign")
    queues.send(queue, *[f"job {number}" for number in range(4)])
    with pytest.raises(
        SourceError, match=r"holds no notifications of S3: it is not JSON \(job \d\).*nothing was deleted"
    ):
        once(queue, tmp_path / "lake")
    wait_for(lambda: queues.left(queue)[0] == 4, 15)


def test_what_cannot_be_watched(queues: Queues, tmp_path: Path) -> None:
    missing = queues.new("here").replace("here", "nowhere")
    with pytest.raises(TrailsiftError, match=r"nowhere.*NonExistentQueue|nowhere.*does not exist"):
        once(missing, tmp_path / "lake")
    for wrong, why in (
        ("https://example.org/", "not a queue"),
        (f"{missing}.fifo", "FIFO"),
        ("arn:aws:s3:::x", "not a"),
    ):
        with pytest.raises(UsageError, match=why):
            once(wrong, tmp_path / "lake")
    assert not (tmp_path / "lake").exists()


def test_visibility_is_extended_while_work_goes_on(
    queues: Queues, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer holds the lake's lock for longer than messages are invisible: nobody else gets them meanwhile."""
    from trailsift.lake.writer import LakeWriter
    from trailsift.sources.queue import QueueArrivals, QueueCounts

    close, counted = QueueArrivals.close, list[QueueCounts]()
    monkeypatch.setattr(QueueArrivals, "close", lambda self: (counted.append(self.counts), close(self)))
    bucket = s3.new_bucket()
    queue = queues.new("extended")
    lake = tmp_path / "lake"
    queues.send(queue, put(s3, bucket, name(1), log(1)))
    other = LakeWriter.create(lake)
    stop = threading.Event()
    held = other.lock()
    held.acquire()
    thread = threading.Thread(
        target=watch, args=(queue, lake, WatchOptions(visible_after=2), Hooks(), Pace(0.0, seconds=60), stop)
    )
    thread.start()
    try:
        wait_for(lambda: queues.left(queue) == (0, 1), 20)
        end = time.monotonic() + 7
        while time.monotonic() < end:
            assert queues.left(queue) == (0, 1)
            time.sleep(0.2)
    finally:
        held.release(clean=True)
    wait_for(lambda: queues.left(queue) == (0, 0), 20)
    stop.set()
    thread.join(30)
    assert event_ids(lake) == numbers(1)
    # It was never visible, not even to this watch.
    assert counted[0].received == 1 and counted[0].extended >= 3


def test_a_message_is_deleted_only_after_its_commit(
    queues: Queues, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trailsift.errors import LakeError
    from trailsift.lake.transaction import Transaction

    bucket = s3.new_bucket()
    queue = queues.new("after")
    queues.send(queue, put(s3, bucket, name(1), log(1)))
    commit, seen, said = Transaction.commit, list[tuple[int, int]](), list[str]()

    def failing(self: Transaction, *arguments: Any) -> int:
        seen.append(queues.left(queue))
        if len(seen) == 1:
            raise LakeError("the disk is full")
        return commit(self, *arguments)

    monkeypatch.setattr(Transaction, "commit", failing)
    status = once(queue, tmp_path / "lake", WatchOptions(visible_after=6), trouble=said.append)
    assert seen == [(0, 1), (0, 1)] and queues.left(queue) == (0, 0)
    assert event_ids(tmp_path / "lake") == numbers(1) and status.errors == 1
    assert said == ["the disk is full. The watch goes on: it tries again in 1 s, and then less often"]


def command(queue: str, lake: Path, *options: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [
        sys.executable,
        "-c",
        FAST_COMMAND,
        "watch",
        queue,
        "--lake",
        str(lake),
        "--every",
        "0.1",
        "--json",
        *options,
    ]
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(done: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def test_two_watchers_share_a_queue(queues: Queues, s3: Server, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    queue = queues.new("shared")
    lake = tmp_path / "lake"
    watchers = [command(queue, lake) for _ in range(2)]
    try:
        for start in range(0, 200, 20):
            queues.send(queue, *[put(s3, bucket, name(n), log(2 * n, 2 * n + 1)) for n in range(start, start + 20)])
            time.sleep(0.2)
        wait_for(lambda: queues.left(queue) == (0, 0), 100)
    finally:
        for watcher in watchers:
            watcher.send_signal(signal.SIGTERM)
        ends = [watcher.communicate(timeout=60) for watcher in watchers]
    assert [watcher.returncode for watcher in watchers] == [0, 0], ends
    assert event_ids(lake) == numbers(*range(400))
    totals = [json.loads(out.splitlines()[-1])["totals"] for out, _ in ends]
    assert sum(one["stored"] for one in totals) == 400 and all(one["stored"] for one in totals)
    for one in totals:
        assert one["received"] == one["stored"] + one["duplicates"] + one["malformed"]
    assert verify(lake).is_sound


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_graceful_stop(queues: Queues, s3: Server, tmp_path: Path, number: signal.Signals) -> None:
    bucket = s3.new_bucket()
    queue = queues.new(f"graceful-{number}")
    queues.send(queue, *[put(s3, bucket, name(n), log(n)) for n in range(5)])
    watcher = command(queue, tmp_path / "lake")
    assert watcher.stdout is not None
    first = json.loads(watcher.stdout.readline())
    assert first["commit"] and first["records"] == first["stored"]
    wait_for(lambda: queues.left(queue) == (0, 0), 30)
    watcher.send_signal(number)
    out, err = watcher.communicate(timeout=30)
    assert watcher.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["totals"]["stored"] == 5
    assert "Traceback" not in err


@pytest.mark.slow
def test_kills_lose_nothing_and_store_nothing_twice(queues: Queues, s3: Server, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    queue = queues.new("killed")
    lake = tmp_path / "lake"
    stop = threading.Event()

    def produce() -> None:
        for start in range(0, EVENTS // 3, 10):
            queues.send(
                queue, *[put(s3, bucket, name(n), log(3 * n, 3 * n + 1, 3 * n + 2)) for n in range(start, start + 10)]
            )
            if stop.wait(0.3):
                return

    producer = threading.Thread(target=produce)
    producer.start()
    for seconds in variants((2.5, 3.1, 3.7), (2.8,)):
        watcher = command(queue, lake)
        time.sleep(seconds)
        watcher.kill()
        watcher.communicate()
    producer.join()
    watcher = command(queue, lake)
    try:
        wait_for(lambda: queues.left(queue) == (0, 0), 150)
    finally:
        stop.set()
        watcher.send_signal(signal.SIGTERM)
        _, err = watcher.communicate(timeout=60)
    assert watcher.returncode == 0, err
    assert event_ids(lake) == numbers(*range(EVENTS))
    assert verify(lake).is_sound
