"""Upkeep of a lake in S3 while others work on it: nothing that a writer needs goes, and no command fails for it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s3_proxy import Fault, Proxy, Request
from s3_server import Server, s3, s3_server
from s3_server import proxy as proxy
from trailsift import Lake
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.lake import expire
from trailsift.lake.expire_days import expire_days, save
from trailsift.lake.mirror import Mirror, open_mirror
from trailsift.lake.retention import Retention
from trailsift.lake.writer import LakeWriter

__all__ = ["s3", "s3_server"]

pytest.importorskip("obstore", reason="the extra aws is not installed")


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("s3-upkeep")
    places = []
    for number, seed in enumerate((6, 9, 12)):
        generate(folder / str(number), Options(events=300, days=1, seed=seed))
        places.append(folder / str(number) / "AWSLogs")
    return places[0], places[1], places[2]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def url(proxy: Proxy, s3: Server) -> str:
    return f"s3://{s3.new_bucket()}/lake"


@pytest.fixture
def other(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """The lake as another machine has it."""
    with monkeypatch.context() as context:
        context.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        return open_mirror(url, "write")


def is_commit(request: Request) -> bool:
    return request.method == "PUT" and request.key == "lake/catalog.db"


def events(lake: Lake) -> tuple[int, int, int]:
    (row,) = lake.query("SELECT count(*), count(DISTINCT event_id) FROM events", cache=False).rows()
    return (*row, lake.query("SELECT sum(events) FROM hourly", cache=False).value())  # type: ignore[return-value]


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
    proxy: Proxy, url: str, logs: tuple[Path, Path, Path], other: Mirror, monkeypatch: pytest.MonkeyPatch,
    is_head_new: bool,
) -> None:  # fmt: skip
    """Between upload and commit: its files are swept by then, so that commit must not take place."""
    lake = Lake(url)
    lake.ingest(logs[0])
    slept: list[None] = []
    original = Mirror.publish
    now = time.time

    def publish(self: Mirror, *rest: object) -> None:
        if not slept and self.root != other.root:
            slept.append(None)
            if is_head_new:
                ingest([str(logs[2])], other.root)
            sweep(other, monkeypatch)
            monkeypatch.setattr("time.time", lambda: now() + 3 * 86400)
            monkeypatch.setattr("time.clock_gettime", lambda _: now() + 3 * 86400, raising=False)
        original(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Mirror, "publish", publish)
    lake.ingest(logs[1])
    assert slept
    total = 900 if is_head_new else 600
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
    proxy: Proxy, url: str, logs: tuple[Path, Path, Path], other: Mirror, commits: int
) -> None:
    """The command neither fails nor says that it did what it did not."""
    lake = Lake(url)
    lake.ingest(logs[0])
    lake.compact(everything=True)
    inputs = iter((logs[1], logs[2]))
    done: list[None] = []
    seen: list[None] = []

    def work() -> None:
        if (found := next(inputs, None)) is not None:
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
    expire_days(open_mirror(url, "write").root, Retention(36500, None, 1), now=later)
    proxy.rule = lambda _: None
    total = 600 if done else 300
    assert events(lake) == (total, total, total)
    assert lake.verify().is_sound


def test_a_commit_that_lost_says_only_what_it_did(
    proxy: Proxy, url: str, logs: tuple[Path, Path, Path], other: Mirror
) -> None:
    """Snapshots of the old head, which it expired there, are still in the new one."""
    lake = Lake(url)
    lake.ingest(logs[0], compact=False)
    lake.ingest(logs[2], compact=False)
    race(proxy, lambda: ingest([str(logs[1])], other.root, compact=False))
    writer = LakeWriter(open_mirror(url, "write").root)
    later = datetime.now(UTC) + timedelta(days=2)
    reported = expire.clean(writer, later)["snapshots_expired"]
    left = {name: len(writer.catalog.snapshots(name)) for name in writer.tables}
    assert reported > 0 and max(left.values()) == 1


def test_settings_are_seen_by_other_readers(url: str, logs: tuple[Path, Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """They change without a commit."""
    lake = Lake(url)
    lake.ingest(logs[0])
    lake.status()
    with monkeypatch.context() as context:
        context.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        there = Lake(url)
        assert there.status().commits
        save(open_mirror(url, "write").root, Retention(3650, None, 30))
        assert there.expire(dry_run=True).rows == 0


def test_upkeep_asks_about_no_file_by_itself(proxy: Proxy, url: str, logs: tuple[Path, Path, Path]) -> None:
    """Of Iceberg's own files there are dozens per commit: they are listed."""
    lake = Lake(url)
    for place in logs:
        lake.ingest(place, compact=False)
    lake.compact(everything=True)
    proxy.requests.clear()
    writer = LakeWriter(open_mirror(url, "write").root)
    expire.clean(writer, datetime.now(UTC) + timedelta(days=2))
    asked = [request.key for request in proxy.requests if request.method == "HEAD"]
    assert not [key for key in asked if "/metadata/" in key]
    assert not lake.verify().problems


def test_another_machine_goes_on_after_snapshots_expired(
    proxy: Proxy, url: str, logs: tuple[Path, Path, Path], other: Mirror
) -> None:
    """Everything that the new catalog names is in S3, and not only on the disk of whoever wrote it."""
    lake = Lake(url)
    for place in logs[:2]:
        lake.ingest(place, compact=False)
    writer = LakeWriter(open_mirror(url, "write").root)
    assert expire.clean(writer, datetime.now(UTC) + timedelta(days=2))["snapshots_expired"]
    assert ingest([str(logs[2])], other.root).stored == 300
    assert events(lake) == (900, 900, 900)
    assert not lake.verify().problems
