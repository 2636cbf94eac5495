"""What must never happen to a commit in S3: that it is undone, or that files are deleted which it holds."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable

import pytest

from s3_proxy import Fault, Proxy, Request
from s3_server import Server, s3, s3_server
from s3_server import proxy as proxy
from support.s3_lakes import EVENTS, Inputs, events, filled, inputs, is_commit, lake_image, new_lake, own_cache
from trailsift import Lake
from trailsift.errors import TrailsiftError, UnknownOutcomeError
from trailsift.lake.mirror import Mirror

__all__ = ["filled", "inputs", "lake_image", "new_lake", "own_cache", "s3", "s3_server"]

pytest.importorskip("obstore", reason="the extra aws is not installed")


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


def test_a_kill_as_soon_as_the_new_head_is_noted(proxy: Proxy, filled: str, inputs: Inputs) -> None:
    """The copy is then of that head, or the next commit from this machine would undo this one."""
    died = subprocess.run([sys.executable, "-c", _DIES, filled, str(inputs[1])], check=False)
    assert died.returncode == 9
    lake = Lake(filled)
    assert lake.ingest(inputs[2]).stored == EVENTS
    lake.ingest(inputs[1])
    assert events(lake) == (3 * EVENTS, 3 * EVENTS, 3 * EVENTS)
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
    proxy: Proxy, filled: str, inputs: Inputs, monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException]
) -> None:
    """The commit took place: none of its files may go."""
    lake = Lake(filled)
    fails_after(monkeypatch, error)
    with pytest.raises((KeyboardInterrupt, TrailsiftError, OSError, MemoryError)):
        lake.ingest(inputs[1])
    assert lake.ingest(inputs[1]).records == 0
    assert events(lake) == (2 * EVENTS, 2 * EVENTS, 2 * EVENTS)
    assert lake.verify().is_sound


def test_the_copy_cannot_be_committed_to(
    proxy: Proxy, filled: str, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: the commit is in S3, so it counts."""
    lake = Lake(filled)
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
    assert lake.ingest(inputs[1]).stored == EVENTS
    assert broken and events(lake) == (2 * EVENTS, 2 * EVENTS, 2 * EVENTS)
    assert lake.ingest(inputs[1]).records == 0
    assert lake.verify().is_sound


@pytest.mark.parametrize("attempts", ["1", "3"])
def test_a_refusal_that_answers_the_second_attempt(
    proxy: Proxy, filled: str, inputs: Inputs, monkeypatch: pytest.MonkeyPatch, attempts: str
) -> None:
    """The first one succeeded without an answer, and the lake cannot be read back: its files must stay."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", attempts)
    monkeypatch.setattr("trailsift.lake.mirror.READ_BACK_SECONDS", 0.2)
    lake = Lake(filled)
    lost: list[None] = []

    def rule(request: Request) -> Fault | None:
        if is_commit(request) and not lost:
            lost.append(None)
            return Fault(drop=True, after=True)
        return Fault(drop=True) if lost and request.method == "GET" and request.key == "team/lake/catalog.db" else None

    proxy.rule = rule
    with pytest.raises(UnknownOutcomeError, match="no answer from S3"):
        lake.ingest(inputs[1])
    proxy.rule = lambda _: None
    assert lake.ingest(inputs[1]).records == 0
    assert events(lake) == (2 * EVENTS, 2 * EVENTS, 2 * EVENTS)
    assert lake.verify().is_sound


def test_a_commit_that_arrives_late(
    proxy: Proxy, filled: str, inputs: Inputs, monkeypatch: pytest.MonkeyPatch, s3: Server
) -> None:
    """The connection breaks, the lake is as before, and only then the server gets to the request."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    lake = Lake(filled)
    late: list[bytes] = []
    original = Mirror.publish

    def publish(self: Mirror, db: object, *rest: object) -> object:
        from trailsift.lake.packing import pack

        late.append(pack(db.serialize()))  # type: ignore[attr-defined]
        return original(self, db, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Mirror, "publish", publish)
    proxy.rule = lambda request: Fault(drop=True) if is_commit(request) else None
    with pytest.raises(UnknownOutcomeError, match="run the same command again"):
        lake.ingest(inputs[1])
    proxy.rule = lambda _: None
    s3.client().put_object(Bucket=filled.split("/")[2], Key="team/lake/catalog.db", Body=late[-1])
    assert lake.ingest(inputs[1]).records == 0
    assert events(lake) == (2 * EVENTS, 2 * EVENTS, 2 * EVENTS)
    assert lake.verify().is_sound
