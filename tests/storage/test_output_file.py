"""Files that a user names for output: complete or not there, private, and never through somebody else's link."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support.records import sample
from trailsift import Lake
from trailsift.cli import main
from trailsift.storage.output_file import new_file, new_path

#: Every option that writes a file: words ($LAKE, $OUT), and whether only the user may read it.
OUTPUTS = {
    "query": (["query", "SELECT event_id FROM events", "-f", "csv", "-o", "$OUT", "--lake", "$LAKE", "--force"], True),
    "query parquet": (["query", "SELECT 1 AS a", "-f", "parquet", "-o", "$OUT", "--lake", "$LAKE", "--force"], True),
    "export": (["export", "-o", "$OUT", "--lake", "$LAKE", "--force"], True),
    "connect": (["connect", "-o", "$OUT", "--lake", "$LAKE", "--force"], True),
    "connect database": (["connect", "-o", "$OUT.duckdb", "--lake", "$LAKE", "--force"], True),
    "selectors": (["selectors", "--role", "arn:aws:iam::111122223333:role/a", "--without-roles",
                   "--rules-output", "$OUT"], False),
    "aws render": (["aws", "render", "--out", "$DIR", "--trail", "t-bucket", "--account", "111122223333"], False),
}  # fmt: skip


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text("precious")
    path.chmod(0o644)
    return path


def run(name: str, folder: Path, lake: Path) -> list[Path]:
    """Run a command; return the files that it wrote."""
    out = folder / ("cloudformation.json" if name == "aws render" else "out")
    words = OUTPUTS[name][0]
    for mark, place in {"$LAKE": lake, "$OUT": out, "$DIR": folder}.items():
        words = [word.replace(mark, str(place)) for word in words]
    assert main(words) == 0
    return [path for path in (out, folder / "out.duckdb") if os.path.lexists(path)]


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_planted_link_is_replaced(name: str, victim: Path, tmp_path: Path, small_lake: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for link in ("out", "out.duckdb", "cloudformation.json", ".out.partial", "out.partial", "out.duckdb.partial"):
        (folder / link).symlink_to(victim)
    if name == "selectors":
        # It reads the file first, to keep other rules.
        (folder / "out").unlink()
    run(name, folder, small_lake)
    written = [folder / "out", folder / "out.duckdb", folder / "cloudformation.json"]
    assert [path for path in written if path.is_file() and not path.is_symlink()]
    assert victim.read_text() == "precious" and stat.S_IMODE(victim.stat().st_mode) == 0o644
    assert not [path for path in folder.iterdir() if path.name.startswith(".") and not path.is_symlink()]


@pytest.mark.parametrize("name", OUTPUTS)
def test_permissions(name: str, tmp_path: Path, small_lake: Path) -> None:
    """Text of logs is for the user alone; a file that is there keeps its permissions."""
    before = os.umask(0o022)
    try:
        (path,) = run(name, tmp_path, small_lake)
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if OUTPUTS[name][1] else 0o644)
        path.chmod(0o640)
        (path,) = run(name, tmp_path, small_lake)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()):
        with pytest.raises(type(error)), new_file(path, "w") as file:
            file.write("half")
            raise error
        with pytest.raises(type(error)), new_path(path) as made:
            made.write_text("half")
            raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk(tmp_path: Path, small_lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit on the size of files stands for it."""
    path = tmp_path / "out"
    path.write_text("old")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from trailsift.cli import main; sys.exit(main())"
    )
    words = [sys.executable, "-c", code, "export", "-o", str(path), "--lake", str(small_lake), "--force"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == f"trailsift: {path}: File too large\n"
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_streams(tmp_path: Path, small_lake: Path) -> None:
    """A device, a pipe, a process substitution, and /dev/stdout: also if that is a file which has text already."""
    trailsift = f'"{sys.executable}" -m trailsift export --lake "{small_lake}" -q'.replace(" -q", "")
    log = tmp_path / "log"
    shell = f"""echo before > {log}; {trailsift} -o /dev/stdout >> {log} 2>/dev/null
        {trailsift} -o /dev/stdout 2>/dev/null | wc -l; {trailsift} -o /dev/null
        {trailsift} -o >(wc -l >&2); sleep 1; {trailsift} -o /proc/self/fd/1 2>/dev/null | wc -l"""
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert [int(line) for line in done.stdout.split()] == [20_000, 20_000]
    assert "20000" in done.stderr.split()
    lines = log.read_text("utf-8").split("\n")
    assert lines[0] == "before" and len(lines) == 20_002


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a pipe of another user")
def test_a_pipe_of_another_user(tmp_path: Path, small_lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a shared folder it is a trap: whoever put it there reads what is written."""
    pipe = tmp_path / "out"
    os.mkfifo(pipe)
    os.chown(pipe, 12345, 12345)
    assert main(["export", "-o", str(pipe), "--lake", str(small_lake)]) == 1
    assert "is a pipe of another user" in capsys.readouterr().err


def test_names_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / ("한" * 85)
    for _ in range(2):
        with new_file(path, "wb") as file:
            file.write(b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(OSError, match="too long"), new_file(tmp_path / ("x" * 256), "wb"):
        pass


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "out"
    started = threading.Barrier(2)

    def write(sign: str) -> None:
        with new_file(path, "w") as file:
            started.wait(10)
            for _ in range(2000):
                file.write(sign * 100)

    threads = [threading.Thread(target=write, args=(sign,)) for sign in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("a" * 200_000, "b" * 200_000)


def test_verdicts_with_odd_line_ends(tmp_path: Path) -> None:
    """A reason, or a value of a log, with U+2028 or U+0085 in it does not damage the file of verdicts."""
    logs = tmp_path / "log.json"
    records = [
        sample(userAgent="kali \u2028\x85\x0b\x1d", eventID=f"11111111-2222-4333-8444-{number:012d}")
        for number in range(30)
    ]
    logs.write_text(json.dumps({"Records": records}))
    lake = Lake(tmp_path / "lake")
    assert main(["ingest", str(logs), "--lake", str(lake.path), "-q", "--workers", "1"]) == 0
    found = lake.find("1")
    lake.mute(found, "a\u2028b\x85c\ud800")
    assert found.id not in [finding.id for finding in lake.findings()]
    lake.confirm(found, "again")
