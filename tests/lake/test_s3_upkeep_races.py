"""Upkeep of a lake in S3 while others work on it: nothing that a writer needs goes, and no command fails for it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from s3_proxy import Fault, Proxy, Request
from s3_server import Server, s3, s3_server
from s3_server import proxy as proxy
from support.s3_lakes import EVENTS, Inputs, events, filled, inputs, is_commit, lake_image, new_lake, own_cache
from trailsift import Lake
from trailsift.detect.finding import Finding, Signal
from trailsift.detect.triage import mark
from trailsift.ingest import ingest
from trailsift.lake import compact, expire
from trailsift.lake.expire_days import expire_days, save
from trailsift.lake.mirror import Mirror
from trailsift.lake.mirrored_storage import open_mirror
from trailsift.lake.retention import Retention
from trailsift.lake.writer import LakeWriter
from trailsift.storage import open_storage

__all__ = ["filled", "inputs", "lake_image", "new_lake", "own_cache", "s3", "s3_server"]

pytest.importorskip("obstore", reason="the extra aws is not installed")


@pytest.fixture
def other(filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """The lake as another machine has it."""
    with monkeypatch.context() as context:
        context.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        return open_mirror(filled, "write")


def sweep(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweep, as if everything in the lake were older than a day."""
    with monkeypatch.context() as context:
        context.setattr(expire, "ORPHAN_AGE", timedelta(seconds=-1))
        context.setattr("trailsift.lake.mirror.SWEEP_SECONDS", 0.0)
        writer = LakeWriter(mirror.root)
        with writer.lock():
            expire.sweep_orphans(writer)


@pytest.mark.parametrize("is_head_new", [False, True])
def test_a_writer_that_slept_for_days(
    proxy: Proxy, filled: str, inputs: Inputs, other: Mirror, monkeypatch: pytest.MonkeyPatch,
    is_head_new: bool,
) -> None:  # fmt: skip
    """Between upload and commit: its files are swept by then, so that commit must not take place."""
    lake = Lake(filled)
    slept: list[None] = []
    original = Mirror.publish
    now = time.time

    def publish(self: Mirror, *rest: object) -> None:
        if not slept and self.root != other.root:
            slept.append(None)
            if is_head_new:
                ingest([str(inputs[2])], other.root)
            sweep(other, monkeypatch)
            monkeypatch.setattr("time.time", lambda: now() + 3 * 86400)
            monkeypatch.setattr("time.clock_gettime", lambda _: now() + 3 * 86400, raising=False)
        original(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Mirror, "publish", publish)
    lake.ingest(inputs[1])
    assert slept
    total = 3 * EVENTS if is_head_new else 2 * EVENTS
    assert events(lake) == (total, total, total)
    assert lake.verify().is_sound


def race(proxy: Proxy, work: object, times: int = 1) -> list[None]:
    """Have another machine commit something just before each of the next commits."""
    done: list[None] = []

    def first() -> None:
        work()  # type: ignore[operator]

    def rule(request: Request) -> Fault | None:
        if is_commit(request) and len(done) < times:
            done.append(None)
            return Fault(first=first)
        return None

    proxy.rule = rule
    return done


@pytest.mark.parametrize("commits", [1, 2, 3, 4])
def test_others_commit_while_days_expire(
    proxy: Proxy, filled: str, inputs: Inputs, other: Mirror, commits: int
) -> None:
    """The command neither fails nor says that it did what it did not."""
    lake = Lake(filled)
    lake.compact(everything=True)
    left = iter(inputs[1:])
    done: list[None] = []
    seen: list[None] = []

    def work() -> None:
        if (found := next(left, None)) is not None:
            ingest([str(found)], other.root, compact=False)

    def rule(request: Request) -> Fault | None:
        if not is_commit(request) or done:
            return None
        seen.append(None)
        if len(seen) == commits:
            done.append(None)
            return Fault(first=work)
        return None

    proxy.rule = rule
    later = datetime.now(UTC) + timedelta(days=2)
    expire_days(open_mirror(filled, "write").root, Retention(36500, None, 1), now=later)
    proxy.rule = lambda _: None
    total = 2 * EVENTS if done else EVENTS
    assert events(lake) == (total, total, total)
    assert lake.verify().is_sound


def test_a_commit_that_lost_says_only_what_it_did(proxy: Proxy, filled: str, inputs: Inputs, other: Mirror) -> None:
    """Snapshots of the old head, which it expired there, are still in the new one."""
    lake = Lake(filled)
    lake.ingest(inputs[2], compact=False)
    race(proxy, lambda: ingest([str(inputs[1])], other.root, compact=False))
    writer = LakeWriter(open_mirror(filled, "write").root)
    later = datetime.now(UTC) + timedelta(days=2)
    reported = expire.clean(writer, later)["snapshots_expired"]
    left = {name: len(writer.catalog.snapshots(name)) for name in writer.tables}
    assert reported > 0 and max(left.values()) == 1


def test_settings_are_seen_by_other_readers(filled: str, inputs: Inputs, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """They change without a commit."""
    lake = Lake(filled)
    lake.status()
    with monkeypatch.context() as context:
        context.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        there = Lake(filled)
        assert there.status().commits
        save(open_mirror(filled, "write").root, Retention(3650, None, 30))
        assert there.expire(dry_run=True).rows == 0


def test_upkeep_asks_about_no_file_by_itself(proxy: Proxy, filled: str, inputs: Inputs) -> None:
    """Of Iceberg's own files there are dozens per commit: they are listed."""
    lake = Lake(filled)
    for place in inputs[1:]:
        lake.ingest(place, compact=False)
    lake.compact(everything=True)
    proxy.requests.clear()
    writer = LakeWriter(open_mirror(filled, "write").root)
    expire.clean(writer, datetime.now(UTC) + timedelta(days=2))
    asked = [request.key for request in proxy.requests if request.method == "HEAD"]
    assert not [key for key in asked if "/metadata/" in key]
    assert not lake.verify().problems


def test_another_machine_goes_on_after_snapshots_expired(
    proxy: Proxy, filled: str, inputs: Inputs, other: Mirror
) -> None:
    """Everything that the new catalog names is in S3, and not only on the disk of whoever wrote it."""
    lake = Lake(filled)
    lake.ingest(inputs[1], compact=False)
    writer = LakeWriter(open_mirror(filled, "write").root)
    assert expire.clean(writer, datetime.now(UTC) + timedelta(days=2))["snapshots_expired"]
    assert ingest([str(inputs[2])], other.root).stored == EVENTS
    assert events(lake) == (3 * EVENTS, 3 * EVENTS, 3 * EVENTS)
    assert not lake.verify().problems


@pytest.mark.parametrize("is_part", [False, True], ids=["all of it", "a day of it"])
def test_a_compaction_whose_files_another_machine_removes(
    filled: str, inputs: Inputs, other: Mirror, monkeypatch: pytest.MonkeyPatch, is_part: bool
) -> None:
    """It plans again, with what is left."""
    ingest([str(inputs[1])], other.root, compact=False)
    original, removed = compact.rewrite, []

    def rewrite(root: Path, *rest: Any, **options: Any) -> Any:
        if root != other.root and not removed:
            removed.append(root)
            if is_part:
                expire_days(other.root, Retention(1, 1, 1), now=datetime(2026, 3, 4, 12, tzinfo=UTC))
            else:
                compact.compact(other.root, everything=True)
            expire.clean(LakeWriter(other.root), datetime.now(UTC) + timedelta(days=2))
        return original(root, *rest, **options)

    monkeypatch.setattr(compact, "rewrite", rewrite)
    lake = Lake(filled)
    compacted = lake.compact(everything=True)
    assert removed and bool(compacted.partitions) == is_part
    days = lake.query("SELECT count(DISTINCT event_time::DATE) FROM events", cache=False).value()
    total = lake.query("SELECT count(*) FROM events", cache=False).value()
    assert (days, total == 2 * EVENTS) == ((1, False) if is_part else (2, True))
    assert lake.query("SELECT sum(events) FROM hourly", cache=False).value() == total
    assert not lake.verify().problems


@pytest.mark.parametrize("is_lost", [False, True], ids=["another writer", "no answer"])
def test_settings_of_two_writers(
    proxy: Proxy, filled: str, s3: Server, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each changes what it means to change, and nothing else."""
    bucket, _, key = f"{filled}/lake.json".removeprefix("s3://").partition("/")

    def another() -> None:
        settings = json.loads(s3.read(bucket, key))
        s3.put(bucket, {key: json.dumps(settings | {"seen_days": 50}).encode()})

    done: list[None] = []

    def rule(request: Request) -> Fault | None:
        if request.method != "PUT" or request.key != key or done:
            return None
        done.append(None)
        return Fault(drop=True, after=True) if is_lost else Fault(first=another)

    proxy.rule = rule
    lake = Lake(filled)
    lake.set_retention("90d")
    settings = json.loads(s3.read(bucket, key))
    assert done and settings["retention"]["events"] == 90
    assert settings.get("seen_days") == (None if is_lost else 50)
    kept = lake.retention()
    assert kept is not None and kept.events == 90
    assert lake.verify().is_sound


FINDING = Finding("f1", "a", 0.7, 0, 5, (Signal("more_calls", "a", 2.0, 0, 5, "GetObject", 5),), span=(0, 5))


@pytest.mark.parametrize("attempts", ["1", "3"])
@pytest.mark.parametrize("is_followed", [False, True], ids=["alone", "followed"])
def test_a_lost_answer_to_what_detection_keeps(
    proxy: Proxy, filled: str, other: Mirror, monkeypatch: pytest.MonkeyPatch, attempts: str, is_followed: bool
) -> None:
    """A verdict is written once, also if the next one of another machine follows before that is found out."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", attempts)
    hits: list[None] = []

    def rule(request: Request) -> Fault | None:
        if not request.key.endswith("findings/marks.jsonl"):
            return None
        if request.method == "PUT" and not hits:
            hits.append(None)
            return Fault(drop=True, after=True)
        if hits and len(hits) == 1 and is_followed:
            hits.append(None)
            return Fault(first=lambda: mark(other.root, replace(FINDING, id="f2"), "confirm", "theft"))
        return None

    proxy.rule = rule
    root = open_mirror(filled, "read").root
    mark(root, FINDING, "mute", "backup")
    lines = open_storage(root).read("findings/marks.jsonl").splitlines()
    assert [json.loads(line)["id"] for line in lines] == (["f1", "f2"] if is_followed else ["f1"])
    assert hits
