"""The dashboard of a lake in S3 that another machine writes to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("obstore", reason="the extra aws is not installed")

import httpx

from s3_server import Server, s3, s3_server
from support.dashboards import follow, running
from support.s3_lakes import EVENTS, Inputs, inputs, new_lake, own_cache
from trailsift.serve.options import ServeOptions

__all__ = ["inputs", "new_lake", "own_cache", "s3", "s3_server"]


def ingest(s3: Server, lake: str, logs: Path, cache: Path) -> None:
    """Store logs from another process, with a cache of its own."""
    words = [sys.executable, "-m", "trailsift", "ingest", str(logs), "--lake", lake, "--workers", "1", "--quiet"]
    subprocess.run(words, check=True, env={**os.environ, **s3.env, "XDG_CACHE_HOME": str(cache)}, capture_output=True)


def test_a_lake_in_s3(
    s3: Server, new_lake: str, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its views answer, and what another machine commits is on the stream."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    ingest(s3, new_lake, inputs[0], tmp_path / "other")
    found: list[dict[str, Any]] = []
    with running(ServeOptions(lake=new_lake)) as dashboard:
        assert httpx.get(f"{dashboard.url}/api/v1/activity", timeout=60).json()["total"]["events"] == EVENTS
        assert httpx.get(f"{dashboard.url}/api/v1/session", timeout=60).json()["lake"] == new_lake
        thread = threading.Thread(target=follow, args=(dashboard, None, found, threading.Event()), daemon=True)
        thread.start()
        end = time.monotonic() + 20
        while not found and time.monotonic() < end:
            time.sleep(0.05)
        ingest(s3, new_lake, inputs[1], tmp_path / "other")
        committed = time.time()
        thread.join(30)
        assert [message["stored"] for message in found] == [EVENTS, EVENTS]
        assert found[1]["at"] - committed < 5 and found[1]["rows"]
        assert httpx.get(f"{dashboard.url}/api/v1/activity", timeout=60).json()["total"]["events"] == 2 * EVENTS
