"""The API against its own description: whatever the description admits is answered as it says, and nothing breaks.

It takes minutes, so `make test-api` runs it, and `make test` does not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("httpx")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from support.streams import TOKEN, serving
from trailsift import Lake

#: A request that the description admits may still be wrong: a zone that there is not, or a statement that is not SQL.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance"
)


@pytest.mark.skipif("TRAILSIFT_API_SCHEMA" not in os.environ, reason="takes minutes: `make test-api` runs it")
def test_the_api_is_as_described(small_lake: Path, tmp_path: Path) -> None:
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("no schemathesis to test with: it is in the extra `api`")
    lake = tmp_path / "lake"
    shutil.copytree(small_lake, lake)
    with Lake(lake) as opened:
        opened.relocate()
        opened.detect()
    with serving(lake, "--timeout", "120") as server:
        command = [program, "run", f"{server.url}openapi.json", "--checks", CHECKS, "--max-examples", "3"]
        command += ["-H", f"Authorization: Bearer {TOKEN}", "--phases", "examples,coverage", "--no-color"]
        # No fuzzing: it makes URLs of 240 KB, which the HTTP server refuses before the API sees them; and a stream has
        # no end.
        command += ["--exclude-path", "/api/v1/live", "--continue-on-failure", "--request-timeout", "150", "-w", "2"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-10_000:]
