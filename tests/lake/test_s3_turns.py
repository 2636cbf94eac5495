"""Writers of one lake in S3 that keep losing to others are let first."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from s3_proxy import Fault, Proxy, Request, refusal
from s3_server import Server, s3, s3_server
from s3_server import proxy as proxy
from trailsift import Lake
from trailsift.generate import Options, generate
from trailsift.lake import turns
from trailsift.lake.mirror import PROBE_FOLDER
from trailsift.lake.turns import Turns
from trailsift.storage.s3 import S3Storage
from trailsift.storage.s3_client import parse_url

__all__ = ["s3", "s3_server"]

pytest.importorskip("obstore", reason="the extra aws is not installed")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("s3-turns")
    generate(folder, Options(events=300, days=1, seed=6))
    return folder / "AWSLogs"


@pytest.fixture
def url(proxy: Proxy, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"s3://{s3.new_bucket()}/lake"


def test_a_writer_waits_for_one_that_asked(url: str, logs: Path) -> None:
    lake = Lake(url)
    lake.ingest(logs)
    commits: list[int] = []
    writer = threading.Thread(target=lambda: commits.append(lake.ingest(logs, again=True).duplicates))
    with Turns(S3Storage(parse_url(url)), PROBE_FOLDER).asked():
        writer.start()
        time.sleep(1.5)
        assert not commits
    writer.join(20)
    assert commits == [300]


def test_a_writer_that_died_holds_nobody_up_for_long(
    url: str, logs: Path, monkeypatch: pytest.MonkeyPatch, proxy: Proxy
) -> None:
    lake = Lake(url)
    lake.ingest(logs)
    store = S3Storage(parse_url(url))
    store.write(f"{PROBE_FOLDER}/{'0' * 32}", b"after me")
    monkeypatch.setattr(turns, "_WAIT", 0.5)
    one = Turns(store, PROBE_FOLDER)
    took = []
    for _ in range(2):
        started = time.monotonic()
        one.wait()
        took.append(time.monotonic() - started)
    assert took[0] > 0.5 > took[1]
    monkeypatch.setattr(turns, "_WAIT", 60)
    monkeypatch.setattr(turns, "_DEAD", -60.0)
    Turns(store, PROBE_FOLDER).wait()
    # Whoever may not list the lake goes on.
    monkeypatch.setattr(turns, "_DEAD", 60.0)
    denied = refusal("AccessDenied", "Access Denied", 403)
    proxy.rule = lambda request: denied if request.is_list else None
    Turns(store, PROBE_FOLDER).wait()


@pytest.mark.parametrize(("losses", "asks"), [(1, 0), (5, 1)])
def test_a_writer_that_keeps_losing_asks(url: str, logs: Path, proxy: Proxy, losses: int, asks: int) -> None:
    lake = Lake(url)
    lake.ingest(logs, compact=False)
    lost: list[Request] = []

    def rule(request: Request) -> Fault | None:
        if request.method == "PUT" and request.key == "lake/catalog.db" and len(lost) < losses:
            lost.append(request)
            return refusal("PreconditionFailed", "At least one of the pre-conditions did not hold", 412)
        return None

    proxy.rule = rule
    more = logs.parent / f"more-{losses}"
    generate(more, Options(events=200, days=1, seed=7 + losses))
    before = len(proxy.requests)
    assert lake.ingest(more, compact=False).stored == 200
    begin = proxy.requests.index(lost[0])
    probes = [request.method for request in proxy.requests[begin:] if request.key.startswith("lake/probe/")]
    assert (before < begin, probes) == (True, ["PUT"] * asks)
    assert not list(S3Storage(parse_url(url)).list(PROBE_FOLDER))
    assert lake.query("SELECT count(*) FROM events").value() == 500
