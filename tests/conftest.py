"""Fixtures shared by many tests: small logs, a lake of them, and real logs if they are available.

Everything is created once per session and must not be changed; a test that writes makes a copy.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support import servers
from support.longest import LONGEST
from support.memory_disk import use_memory
from support.paths import REAL_LOGS, ROOT
from support.trino import trino as trino
from trailsift.generate import Options, generate

# A shell starts what runs in the background with interrupts ignored, and processes inherit that: commands that tests
# interrupt would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_memory = use_memory()

# A shared core may stall for a second, so the time of an example proves nothing. In CI the examples are the same every
# time, so that a failure comes from the change and not from chance.
settings.register_profile(
    "house",
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take longest, so that no process is left alone with one of them at the end."""
    items.sort(key=lambda item: LONGEST.get(item.path.name, len(LONGEST)))


def pytest_sessionfinish(exitstatus: int) -> None:
    """Free the memory; after a failure the next run does."""
    if _memory is not None and exitstatus == pytest.ExitCode.OK:
        shutil.rmtree(_memory, ignore_errors=True)


def pytest_collection_finish() -> None:
    """Have no garbage collection look at the tests themselves: there are hundreds of thousands of objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Isolate the tests from the user's result cache, settings and terminal width."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    for name in ("TRAILSIFT_LAKE", "TRAILSIFT_TIMEZONE", "TRAILSIFT_DEBUG", "COLUMNS", "LINES"):
        patch.delenv(name, raising=False)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def real_logs() -> Path:
    """The folder of real CloudTrail logs: ``files/``, ``events.jsonl.gz``, ``stubs.jsonl.gz``.

    They belong to third parties and are in no repository; tests that need them are skipped without them.
    """
    folder = Path(os.environ.get(REAL_LOGS) or ROOT.parent / "shared" / "data" / "real")
    if not folder.is_dir():
        pytest.skip(f"no real logs at {folder}: set {REAL_LOGS} to a folder that has them")
    return folder


@pytest.fixture(scope="session")
def small_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 events of three days, 2026-03-02 to 2026-03-04, with every kind of incident: AWSLogs/ and truth.json."""
    folder = tmp_path_factory.mktemp("small") / "logs"
    generate(folder, Options(events=20_000, days=3, seed=7))
    return folder


@pytest.fixture(scope="session")
def small_lake(small_logs: Path) -> Path:
    """A lake of ``small_logs``."""
    from trailsift.ingest import ingest

    lake = small_logs.parent / "lake"
    counts = ingest([str(small_logs / "AWSLogs")], lake)
    assert counts.complete and counts.stored == 20_000
    return lake


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of moto's server, which accepts calls as AWS does and returns queued results."""
    words = [servers.program("moto_server"), "-H", "127.0.0.1"]
    with servers.served(words, "-p", "moto-api/", tmp_path_factory.mktemp("moto"), {}) as url:
        yield url


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that runs Lambda code and Firehose with transformation and dynamic partitioning."""
    env = {"BIND_HOST": "127.0.0.1", "LAMBDA_EXECUTOR": "local"}
    words = [servers.program("ministack")]
    with servers.served(words, "GATEWAY_PORT", "_ministack/health", tmp_path_factory.mktemp("ministack"), env) as url:
        yield url


@pytest.fixture
def on_moto(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the standard environment variables of AWS's tools to moto, and return its address."""
    pytest.importorskip("boto3")
    names = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
    for name, value in {**names, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": moto}.items():
        monkeypatch.setenv(name, value)
    return moto
