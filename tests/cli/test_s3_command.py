"""`trailsift ingest s3://...`: what it says before, meanwhile and afterwards."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from s3_proxy import Fault, Proxy, Request, refusal
from s3_server import Server
from s3_server import proxy as proxy
from s3_server import s3 as s3
from s3_server import s3_server as s3_server
from support.logs import event_number
from trailsift.cli import main
from trailsift.ingest import Progress
from trailsift.terminal import progress as shown
from trailsift.terminal.progress import IngestProgress

pytest.importorskip("obstore")

KEY = (
    "AWSLogs/111122223333/CloudTrail/eu-west-1/2026/03/0{}/111122223333_CloudTrail_eu-west-1_2026030{}T1205Z_x.json.gz"
)


@pytest.fixture
def bucket(s3: Server) -> str:
    """Three log objects of three days, and a folder of digests."""
    name = s3.new_bucket()
    logs = {
        KEY.format(day, day): gzip.compress(json.dumps({"Records": [event_number(day)]}).encode(), mtime=0)
        for day in (1, 2, 3)
    }
    s3.put(name, logs | {"AWSLogs/111122223333/CloudTrail-Digest/eu-west-1/x.json.gz": b"x"})
    return name


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run the command; return its exit code and what it prints."""
    code = main(["ingest", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_dry_run(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what there is, and neither fetches nor writes anything."""
    lake = str(tmp_path / "lake")
    words = (f"s3://{bucket}/AWSLogs", "--lake", lake, "--since", "2026-03-02", "--dry-run")
    code, out, _ = run(capsys, *words)
    assert code == 0 and not Path(lake).exists()
    assert out.startswith("2 new log objects (") and f"in s3://{bucket}/AWSLogs; delivered 2026-03-02 to" in out
    assert "1 account in 1 region" in out and "2 GETs; prices of us-east-1, 2026-11-22" in out
    assert "Not fetched, other folders and objects: CloudTrail-Digest (1)." in out
    code, out, _ = run(capsys, *words, "--json")
    answer = json.loads(out)
    assert (answer["log_objects"], answer["first_day"], answer["accounts"]) == (2, "2026-03-02", ["111122223333"])
    assert answer["usd_get"] == pytest.approx(2 * 0.0004 / 1000) and answer["list_requests"] > 0
    run(capsys, f"s3://{bucket}", "--lake", lake, "-q")
    _, out, _ = run(capsys, f"s3://{bucket}", "--lake", lake, "--dry-run", "--json")
    assert (json.loads(out)["log_objects"], json.loads(out)["log_objects_known"]) == (0, 3)


def test_dry_run_of_local_logs(small_logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There, nothing is asked for over a network."""
    words = (str(small_logs / "AWSLogs"), "--lake", str(tmp_path / "lake"), "--dry-run", "--region", "ap-northeast-2")
    code, out, _ = run(capsys, *words)
    assert code == 0 and "LIST" not in out and "new log objects" in out and not (tmp_path / "lake").exists()


def test_what_is_said_before_and_afterwards(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = str(tmp_path / "lake")
    code, out, err = run(capsys, f"s3://{bucket}", "--lake", lake, "--json")
    counts = json.loads(out)
    assert (code, counts["records"], counts["passed_over"]) == (0, 3, {"CloudTrail-Digest": 1})
    assert err.startswith("trailsift: 3 new log objects (") and err.count("\n") == 1
    code, out, err = run(capsys, f"s3://{bucket}", "--lake", lake, "-q", "--again")
    assert (code, err) == (0, "") and "duplicates             3" in out and "CloudTrail-Digest (1)" in out


def test_what_could_not_be_fetched(
    proxy: Proxy, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, with the name and the reason; the next run is complete."""
    denied = refusal("AccessDenied", "Access \x1b[2JDenied", 403)

    def rule(request: Request) -> Fault | None:
        return denied if request.key == KEY.format(2, 2) else None

    proxy.rule = rule
    words = (f"s3://{bucket}", "--lake", str(tmp_path / "lake"), "-q", "--json")
    code, out, err = run(capsys, *words)
    counts = json.loads(out)
    assert (code, counts["stored"], counts["log_objects_failed"], counts["malformed"]) == (3, 2, 1, 0)
    assert "1 log object could not be fetched: the next run tries again" in err
    assert f"\n  s3://{bucket}/{KEY.format(2, 2)}: " in err and "lack s3:GetObject on arn:aws:s3:::" in err
    assert "\x1b" not in err
    proxy.rule = lambda _: None
    code, out, err = run(capsys, *words)
    assert (code, json.loads(out)["stored"], err) == (0, 1, "")


def numbers(**changes: Any) -> Progress:
    """Return numbers of an ingest from S3."""
    values: dict[str, Any] = {
        "objects_total": 1000,
        "objects_done": 400,
        "bytes_total": 10,
        "bytes_done": 4,
        "records": 2000,
        "stored": 1500,
        "duplicates": 500,
        "dropped": 0,
        "malformed": 0,
        "seconds": 10.0,
        "remote": True,
        "known": 200,
    }
    return Progress(**values | changes)


def test_progress_never_looks_stuck(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers, what is left and how long; and without news, that it still goes on."""
    monkeypatch.setattr(shown, "EVERY", 0.0)
    monkeypatch.setattr(shown, "_SILENCE", 0.2)
    with IngestProgress() as live:
        live.update(numbers(objects_total=0, objects_done=0, bytes_total=0, listed=1200, folders=7))
        live.update(numbers())
        time.sleep(0.6)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "trailsift: listing S3: 1,200 log objects in 7 folders"
    assert lines[1] == (
        "trailsift: 400 of 1,000 log objects, 2,000 records, 1,500 stored, 500 duplicates, 200/s, "
        "600 left at 20 objects/s: 30 s"
    )
    assert lines[2].startswith("trailsift: 400 of 1,000 log objects") and lines[2].endswith(", no answer for 0 s")
    assert len(lines) >= 3


@pytest.mark.parametrize("lists", [True, False], ids=["listing", "fetching"])
def test_interrupt_ends_it_at_once(proxy: Proxy, bucket: str, tmp_path: Path, lists: bool) -> None:
    """However slow the server is."""
    reached = threading.Event()

    def rule(request: Request) -> Fault | None:
        if request.is_list is not lists:
            return None
        reached.set()
        return Fault(delay=30)

    proxy.rule = rule
    words = [sys.executable, "-m", "trailsift", "ingest", f"s3://{bucket}", "--lake", str(tmp_path / "lake"), "-q"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert reached.wait(60)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - started < 5
    assert process.returncode == 130 and err.endswith("trailsift: interrupted\n")
    assert not list(Path(tempfile.gettempdir()).glob("trailsift-listing-*"))
