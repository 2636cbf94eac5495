"""What can happen between a lake in S3 and whoever works on it: lost answers, refusals, a server that goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from s3_proxy import SLOW_DOWN, Fault, Proxy, Request, refusal
from s3_server import Server, running, s3, s3_server
from s3_server import proxy as proxy
from support.s3_lakes import EVENTS, Inputs, events, filled, inputs, is_commit, lake_image, new_lake, own_cache
from trailsift import Lake
from trailsift.errors import LakeError, TrailsiftError, UnknownOutcomeError

__all__ = ["filled", "inputs", "lake_image", "new_lake", "own_cache", "s3", "s3_server"]

pytest.importorskip("obstore", reason="the extra aws is not installed")


class Times:
    """A rule for the first so many requests that fit."""

    def __init__(self, fits: Callable[[Request], bool], fault: Fault, times: int = 1, after: int = 0) -> None:
        self.fits, self.fault, self.times, self.after = fits, fault, times, after
        self.hits = 0
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Fault | None:
        if not self.fits(request):
            return None
        with self._lock:
            self.hits += 1
            return self.fault if self.after < self.hits <= self.after + self.times else None


@pytest.mark.parametrize("which", [0, 1], ids=["making the lake", "the ingest"])
def test_a_lost_answer_to_a_successful_commit(proxy: Proxy, new_lake: str, inputs: Inputs, which: int) -> None:
    """The client sends it again and is refused; the lake is read back, and says that the commit took place."""
    proxy.rule = rule = Times(is_commit, Fault(drop=True, after=True), after=which)
    lake = Lake(new_lake)
    assert lake.ingest(inputs[0]).stored == EVENTS
    assert rule.hits > which + 1
    assert lake.status().commits == 1
    assert events(lake) == (EVENTS, EVENTS, EVENTS)
    assert lake.verify().is_sound


def test_another_commit_follows_the_one_whose_answer_was_lost(
    proxy: Proxy, filled: str, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is recognized in what the next writer made of it."""

    def other_machine() -> None:
        with monkeypatch.context() as context:
            context.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
            Lake(filled).compact(everything=True)

    rule = Times(is_commit, Fault(drop=True, after=True))
    done: list[None] = []

    def then_compact(request: Request) -> Fault | None:
        fault = rule(request)
        if fault is None and rule.hits == 2 and not done and is_commit(request):
            done.append(None)
            return Fault(first=other_machine)
        return fault

    proxy.rule = then_compact
    lake = Lake(filled)
    assert lake.ingest(inputs[1]).stored == EVENTS
    assert done and events(lake) == (2 * EVENTS, 2 * EVENTS, 2 * EVENTS)
    assert lake.verify().is_sound


def test_no_answer_and_no_way_to_find_out(
    proxy: Proxy, filled: str, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is deleted that the commit may hold, and the same command again stores nothing twice."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("trailsift.lake.mirror.READ_BACK_SECONDS", 0.2)
    lake = Lake(filled)
    broken: list[None] = []

    def rule(request: Request) -> Fault | None:
        if is_commit(request):
            broken.append(None)
            return Fault(drop=True, after=True)
        return Fault(drop=True) if broken and request.key == "team/lake/catalog.db" else None

    proxy.rule = rule
    with pytest.raises(UnknownOutcomeError, match=r"no answer from S3 to the commit of .* run the same command again"):
        lake.ingest(inputs[1])
    proxy.rule = lambda _: None
    assert lake.ingest(inputs[1]).records == 0
    assert events(lake) == (2 * EVENTS, 2 * EVENTS, 2 * EVENTS)
    assert lake.verify().is_sound


@pytest.mark.parametrize(
    "fault",
    [SLOW_DOWN, Fault(drop=True), Fault(drop=True, after=True), Fault(keep=0.5), refusal("InternalError", "x", 500)],
    ids=["busy", "dropped", "lost", "cut", "error"],
)
def test_every_tenth_request_fails(proxy: Proxy, new_lake: str, inputs: Inputs, tmp_path: Path, fault: Fault) -> None:
    count = iter(range(100_000))

    def rule(_: Request) -> Fault | None:
        return fault if next(count) % 10 == 7 else None

    proxy.rule = rule
    lake = Lake(new_lake)
    assert lake.ingest(inputs[0]).stored == EVENTS
    assert events(lake) == (EVENTS, EVENTS, EVENTS)
    lake.compact(everything=True)
    assert events(lake) == (EVENTS, EVENTS, EVENTS)
    proxy.rule = lambda _: None
    assert lake.verify().is_sound


def test_a_server_that_stays_busy(proxy: Proxy, new_lake: str, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    lake = Lake(new_lake)
    lake.ingest(inputs[0])
    proxy.rule = lambda request: SLOW_DOWN if request.method == "PUT" else None
    with pytest.raises(UnknownOutcomeError, match=r"cannot be written: the server was busy .* in 2 attempts"):
        lake.ingest(inputs[0], again=True)
    assert events(lake) == (EVENTS, EVENTS, EVENTS)


@pytest.mark.parametrize("header", ["if-match", "if-none-match"])
def test_a_server_that_ignores_conditions(proxy: Proxy, new_lake: str, inputs: Inputs, s3: Server, header: str) -> None:
    proxy.rule = lambda request: Fault(agree=header in request.headers)
    with pytest.raises(LakeError, match=f"(?i)ignores {header}, so two writers could undo each other's commits"):
        Lake(new_lake).ingest(inputs[0])
    bucket = new_lake.removeprefix("s3://").partition("/")[0]
    assert not s3.client().list_objects_v2(Bucket=bucket).get("Contents")


def test_it_ignores_them_from_now_on(proxy: Proxy, filled: str, inputs: Inputs, tmp_path: Path) -> None:
    """A lake that was moved to such a server: it is found out before the first commit there."""
    before = Lake(filled).status().committed_at
    proxy.rule = lambda request: Fault(agree="if-match" in request.headers)
    from trailsift.lake import home

    home._mirrors.clear()  # a process of its own would have no memory of the probe
    with pytest.raises(LakeError, match="ignores If-Match"):
        Lake(filled).ingest(inputs[0], again=True)
    assert Lake(filled).status().committed_at == before


@pytest.mark.parametrize(
    ("method", "action", "work"),
    [
        ("GET", "s3:GetObject", lambda lake, _: lake.status()),
        ("PUT", "s3:PutObject", lambda lake, logs: lake.ingest(logs, again=True)),
    ],
)
def test_no_permission(
    proxy: Proxy, filled: str, inputs: Inputs, method: str, action: str, work: Callable[[Lake, Path], object]
) -> None:
    denied = refusal("AccessDenied", "Access Denied", 403)
    proxy.rule = lambda request: denied if request.method == method else None
    with pytest.raises(TrailsiftError, match=f"lack {action} on arn:aws:s3:::"):
        work(Lake(filled), inputs[0])
    proxy.rule = lambda _: None
    assert events(Lake(filled)) == (EVENTS, EVENTS, EVENTS)


def test_a_server_that_is_killed_in_the_middle_of_a_commit(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back with the old catalog or the new one, and the writer goes on."""
    from s3_proxy import proxied

    with running(tmp_path / "server") as server, proxied(server.url) as proxy:
        for name, text in {**server.env, "AWS_ENDPOINT_URL": proxy.url}.items():
            monkeypatch.setenv(name, text)
        bucket = server.new_bucket()
        lake = Lake(f"s3://{bucket}/team/lake")

        def restart() -> None:
            server.kill()
            server.restart()

        def kill_behind(request: Request) -> Fault | None:
            return Fault(first=restart) if is_commit(request) else None

        proxy.rule = Times(is_commit, Fault(first=restart), after=1)
        assert lake.ingest(inputs[0]).stored == EVENTS
        assert events(lake) == (EVENTS, EVENTS, EVENTS)
        assert lake.verify().is_sound


def test_a_file_that_is_deleted_while_it_is_read(proxy: Proxy, filled: str, s3: Server) -> None:
    """A reader that planned on an old catalog plans again; one that misses a file for good says which."""
    bucket = filled.removeprefix("s3://").partition("/")[0]
    client = s3.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="team/lake/hourly/data/")
    for page in pages:
        for item in page["Contents"]:
            client.delete_object(Bucket=bucket, Key=item["Key"])
    with pytest.raises(TrailsiftError, match="a data file of the lake is missing"):
        Lake(filled).query("SELECT sum(events) FROM hourly", cache=False).rows()
    assert Lake(filled).query("SELECT count(*) FROM events", cache=False).value() == EVENTS


def test_a_slow_server(proxy: Proxy, new_lake: str, inputs: Inputs) -> None:
    proxy.rule = lambda _: Fault(delay=0.05)
    started = time.monotonic()
    assert Lake(new_lake).ingest(inputs[0]).stored == EVENTS
    assert time.monotonic() - started < 60
