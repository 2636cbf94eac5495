"""What must never happen to a commit in S3: that it is undone, or that files are deleted which it holds."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from s3_proxy import Fault, Proxy, Request
from s3_server import Server, s3, s3_server
from s3_server import proxy as proxy
from trailsift import Lake
from trailsift.errors import TrailsiftError, UnknownOutcomeError
from trailsift.generate import Options, generate
from trailsift.lake.mirror import Mirror

__all__ = ["s3", "s3_server"]

pytest.importorskip("obstore", reason="the extra aws is not installed")


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("s3-races")
    generate(folder / "one", Options(events=1000, days=2, seed=6))
    generate(folder / "two", Options(events=500, days=1, seed=9))
    return folder / "one" / "AWSLogs", folder / "two" / "AWSLogs"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def url(proxy: Proxy, s3: Server) -> str:
    return f"s3://{s3.new_bucket()}/lake"


def is_commit(request: Request) -> bool:
    return request.method == "PUT" and request.key == "lake/catalog.db"


def events(lake: Lake) -> tuple[int, int, int]:
    (row,) = lake.query("SELECT count(*), count(DISTINCT event_id) FROM events", cache=False).rows()
    return (*row, lake.query("SELECT sum(events) FROM hourly", cache=False).value())  # type: ignore[return-value]


_DIES = """
import os, sys
from trailsift import Lake
from trailsift.lake import mirror

noted, published = mirror.Mirror._set_head, []

def set_head(self, version):
    noted(self, version)
    if version and published and self.use == "write":
        os._exit(9)

def publish(self, *rest, original=mirror.Mirror.publish):
    published.append(None)
    return original(self, *rest)

mirror.Mirror._set_head, mirror.Mirror.publish = set_head, publish
Lake(sys.argv[1]).ingest(sys.argv[2], compact=False)
"""


def test_a_kill_as_soon_as_the_new_head_is_noted(proxy: Proxy, url: str, logs: tuple[Path, Path]) -> None:
    """The copy is then of that head, or the next commit from this machine would undo this one."""
    Lake(url).ingest(logs[0])
    died = subprocess.run([sys.executable, "-c", _DIES, url, str(logs[1])], check=False)
    assert died.returncode == 9
    lake = Lake(url)
    generate(third := logs[0].parents[1] / "three", Options(events=300, days=1, seed=11))
    assert lake.ingest(third).stored == 300
    lake.ingest(logs[1])
    assert events(lake) == (1800, 1800, 1800)
    assert lake.verify().is_sound


def fails_after(monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException]) -> None:
    """Have what follows the answer to the next commit fail."""
    original = Mirror.publish

    def publish(self: Mirror, *rest: object) -> object:
        original(self, *rest)  # type: ignore[arg-type]
        monkeypatch.setattr(Mirror, "publish", original)
        raise error()

    monkeypatch.setattr(Mirror, "publish", publish)


@pytest.mark.parametrize("error", [KeyboardInterrupt, lambda: OSError(28, "No space left on device"), MemoryError])
def test_what_follows_the_commit_fails(
    proxy: Proxy, url: str, logs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException]
) -> None:
    """The commit took place: none of its files may go."""
    lake = Lake(url)
    lake.ingest(logs[0])
    fails_after(monkeypatch, error)
    with pytest.raises((KeyboardInterrupt, TrailsiftError, OSError, MemoryError)):
        lake.ingest(logs[1])
    assert lake.ingest(logs[1]).records == 0
    assert events(lake) == (1500, 1500, 1500)
    assert lake.verify().is_sound


def test_the_copy_cannot_be_committed_to(
    proxy: Proxy, url: str, logs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: the commit is in S3, so it counts."""
    lake = Lake(url)
    lake.ingest(logs[0])
    publish, swap = Mirror.publish, Mirror._swap
    broken: list[sqlite3.Connection] = []

    def published(self: Mirror, db: sqlite3.Connection, commit_id: str | None = None) -> None:
        def swapped(mirror: Mirror, data: bytes, own_id: str | None) -> str | None:
            version = swap(mirror, data, own_id)
            if not broken:
                broken.append(db)
                db.execute("ROLLBACK")  # as SQLite does by itself on a full disk, so that COMMIT fails
            return version

        with monkeypatch.context() as context:
            context.setattr(Mirror, "_swap", swapped)
            publish(self, db, commit_id)

    monkeypatch.setattr(Mirror, "publish", published)
    assert lake.ingest(logs[1]).stored == 500
    assert broken and events(lake) == (1500, 1500, 1500)
    assert lake.ingest(logs[1]).records == 0
    assert lake.verify().is_sound


@pytest.mark.parametrize("attempts", ["1", "3"])
def test_a_refusal_that_answers_the_second_attempt(
    proxy: Proxy, url: str, logs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, attempts: str
) -> None:
    """The first one succeeded without an answer, and the lake cannot be read back: its files must stay."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", attempts)
    monkeypatch.setattr("trailsift.lake.mirror.READ_BACK_SECONDS", 0.2)
    lake = Lake(url)
    lake.ingest(logs[0])
    lost: list[None] = []

    def rule(request: Request) -> Fault | None:
        if is_commit(request) and not lost:
            lost.append(None)
            return Fault(drop=True, after=True)
        return Fault(drop=True) if lost and request.method == "GET" and request.key == "lake/catalog.db" else None

    proxy.rule = rule
    with pytest.raises(UnknownOutcomeError, match="no answer from S3"):
        lake.ingest(logs[1])
    proxy.rule = lambda _: None
    assert lake.ingest(logs[1]).records == 0
    assert events(lake) == (1500, 1500, 1500)
    assert lake.verify().is_sound


def test_a_commit_that_arrives_late(
    proxy: Proxy, url: str, logs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, s3: Server
) -> None:
    """The connection breaks, the lake is as before, and only then the server gets to the request."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    lake = Lake(url)
    lake.ingest(logs[0])
    late: list[bytes] = []
    original = Mirror.publish

    def publish(self: Mirror, db: object, *rest: object) -> object:
        from trailsift.lake.mirror import pack

        late.append(pack(db.serialize()))  # type: ignore[attr-defined]
        return original(self, db, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Mirror, "publish", publish)
    proxy.rule = lambda request: Fault(drop=True) if is_commit(request) else None
    with pytest.raises(UnknownOutcomeError, match="run the same command again"):
        lake.ingest(logs[1])
    proxy.rule = lambda _: None
    s3.client().put_object(Bucket=url.split("/")[2], Key="lake/catalog.db", Body=late[-1])
    assert lake.ingest(logs[1]).records == 0
    assert events(lake) == (1500, 1500, 1500)
    assert lake.verify().is_sound
