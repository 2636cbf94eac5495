"""A full disk, and commits cut off at every step: completed or discarded, never half visible."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_ingest import ingest

from support.logs import event_number, exported, merged, rows, write
from trailsift import schema
from trailsift.errors import LakeError
from trailsift.lake import index
from trailsift.lake.compact import compact
from trailsift.lake.open import open_snapshot
from trailsift.lake.settings import MARKER_FILE
from trailsift.lake.transaction import Transaction
from trailsift.lake.writer import LakeWriter


def orphans(lake: Path) -> set[str]:
    """Return data files on disk that no commit names."""
    named = {file.path for table in schema.TABLES for file in open_snapshot(lake).files(table)}
    folders = [lake / table / "data" for table in schema.TABLES]
    return {str(path.relative_to(lake)) for folder in folders for path in folder.rglob("*.parquet")} - named


# -- commits cut off -------------------------------------------------------------------------------------------------

#: Where the process is killed, by name: the statement that puts the kill there. ``nth`` runs the kill at the n-th call.
STEPS = {
    "files written, nothing staged": "at(transaction.Transaction, 'commit')",
    "one table of several staged": "at(iceberg.LakeCatalog, 'change', 2)",
    "all tables staged, no ids": "at(transaction.Transaction, '_write_seen')",
    "ids written, no transaction": "at(transaction.Transaction, '_apply')",
    "pointers changed, transaction open": "at(index, 'record_files')",
    "transaction spilled to the log, not committed": "spill()",
    "committed, mark and lock still there": "at(lock.WriteLock, 'release')",
}
COMMITTED = "committed, mark and lock still there"

#: Runs an ingest for each step in a process of its own, forked before anything has started a thread.
_DRIVER = """
import os, signal, sys
from pathlib import Path
from typing import Any
from trailsift.ingest import ingest
from trailsift.lake import iceberg, index, lock, transaction

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def at(owner, name, nth=1):
    inner, calls = getattr(owner, name), []
    def outer(*arguments, **named):
        calls.append(1)
        if len(calls) == nth:
            die()
        return inner(*arguments, **named)
    setattr(owner, name, outer)

def spill():
    inner = index.record_files
    def outer(db, seq, added, removed=()):
        inner(db, seq, added, removed)
        # As a commit of very many files does by itself: pages reach the disk before the transaction ends.
        db.execute("PRAGMA cache_size = 1")
        more = ((f"x{number}", "v", "2026-03-02", seq) for number in range(5000))
        db.executemany("INSERT INTO log_object VALUES (?, ?, ?, ?)", more)
        die()
    index.record_files = outer

for line in sys.stdin:
    logs, root, step = line.rstrip().split("\\t")
    pid = os.fork()
    if pid == 0:
        exec(step)
        ingest([logs], Path(root))
        os._exit(0)
    print(os.WTERMSIG(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """in1/ and in2/: logs of two ingests; both/: a lake of both."""
    root = tmp_path_factory.mktemp("whole")
    write(root / "in1", "a.json.gz", [event_number(number) for number in range(40)])
    again = [event_number(number) for number in range(30, 40)]
    more = [event_number(number, eventTime=f"2026-03-0{3 + number % 3}T04:05:06Z") for number in range(40, 90)]
    odd = [event_number(1, userAgent="other"), event_number(200, eventTime="soon")]
    write(root / "in2", "b.json.gz", [*again, *more, *odd])
    ingest([str(root / "in1")], root / "both")
    ingest([str(root / "in2")], root / "both")
    return root


def lake_of_one(whole: Path, to: Path) -> Path:
    """Create a lake of the first ingest. It cannot be copied: a lake knows its location."""
    ingest([str(whole / "in1")], to)
    return to


@pytest.fixture(scope="module")
def driver() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("step", STEPS)
def test_commit_cut_off(step: str, whole: Path, driver: subprocess.Popen[str], tmp_path: Path) -> None:
    """A reader sees the lake as before or as after; the next ingest cleans up and completes."""
    lake = lake_of_one(whole, tmp_path / "lake")
    before, lines = exported(lake), merged(lake)
    assert driver.stdin is not None and driver.stdout is not None
    driver.stdin.write(f"{whole / 'in2'}\t{lake}\t{STEPS[step]}\n")
    driver.stdin.flush()
    assert int(driver.stdout.readline()) == signal.SIGKILL, "the process got past the step"
    assert (lake / MARKER_FILE).exists()
    if "spilled" in step:
        assert (lake / "catalog.db-wal").stat().st_size > 100_000
    committed = step == COMMITTED
    assert bool(orphans(lake)) != committed
    if committed:
        assert (exported(lake), merged(lake)) == (exported(whole / "both"), merged(whole / "both"))
    else:
        assert (exported(lake), merged(lake)) == (before, lines)
    counts = ingest([str(whole / "in2")], lake)
    assert (counts.log_objects_known, counts.stored) == ((1, 0) if committed else (0, 50))
    assert exported(lake) == exported(whole / "both")
    assert merged(lake) == merged(whole / "both")
    assert len(rows(lake, "rejects")) == len(rows(whole / "both", "rejects")) == 2
    with LakeWriter(lake).lock():
        pass  # An ingest that has nothing to store leaves the cleaning to the next writer.
    assert not orphans(lake) and not (lake / MARKER_FILE).exists()
    with closing(index.connect(lake)) as db:
        assert {Path(path).name for (path,) in db.execute("SELECT path FROM seen_file")} == {
            path.name for path in (lake / "seen").iterdir()
        }


def test_power_cut_in_the_log(whole: Path, driver: subprocess.Popen[str], tmp_path: Path) -> None:
    """SQLite's log ends in the middle of a page of a transaction that was never committed."""
    lake = lake_of_one(whole, tmp_path / "lake")
    before = exported(lake)
    assert driver.stdin is not None and driver.stdout is not None
    driver.stdin.write(f"{whole / 'in2'}\t{lake}\tspill()\n")
    driver.stdin.flush()
    driver.stdout.readline()
    log = lake / "catalog.db-wal"
    os.truncate(log, log.stat().st_size - 1000)
    assert exported(lake) == before
    assert ingest([str(whole / "in2")], lake).stored == 50


def test_lake_half_made(tmp_path: Path) -> None:
    """Killed before ``lake.json`` had its name."""
    path = write(tmp_path / "in", "a.json.gz", [event_number(1)])
    (tmp_path / "lake").mkdir()
    left = tmp_path / "lake" / ".lake.json.0123"
    left.write_text('{"format"')
    os.utime(left, (0, 0))
    assert ingest([str(path)], tmp_path / "lake").stored == 1
    assert not list((tmp_path / "lake").glob(".lake.json.*"))


@pytest.mark.parametrize("catalog", [None, "", "CREATE TABLE iceberg_tables (a)", index.SCHEMA])
def test_reader_of_a_lake_half_made(catalog: str | None, tmp_path: Path) -> None:
    """Killed after ``lake.json``: a reader says so, and creates nothing."""
    path = write(tmp_path / "in", "a.json.gz", [event_number(1)])
    lake = tmp_path / "lake"
    LakeWriter.create(lake)
    lose_catalog(lake, catalog)
    with pytest.raises(LakeError, match="only partially created"):
        open_snapshot(lake)
    assert (lake / "catalog.db").exists() == (catalog is not None)
    if catalog is None or "(a)" not in catalog:
        assert ingest([str(path)], lake).stored == 1


@pytest.mark.parametrize("catalog", [None, "", index.SCHEMA])
def test_lake_whose_catalog_is_lost(catalog: str | None, tmp_path: Path) -> None:
    """Nobody makes a second history, whose first writer would remove the data of the first."""
    path = write(tmp_path / "in", "a.json.gz", [event_number(1)])
    lake = tmp_path / "lake"
    ingest([str(path)], lake)
    (lake / MARKER_FILE).touch()
    data = sorted(lake.rglob("*.parquet"))
    lose_catalog(lake, catalog)
    for attempt in (lambda: ingest([str(path)], lake), lambda: open_snapshot(lake), lambda: compact(lake)):
        with pytest.raises(LakeError, match=r"catalog\.db is lost, but the lake holds data"):
            attempt()
    assert sorted(lake.rglob("*.parquet")) == data


def lose_catalog(lake: Path, catalog: str | None) -> None:
    """Remove the catalog of a lake, or put another in its place."""
    for file in lake.glob("catalog.db*"):
        file.unlink()
    if catalog is not None:
        with closing(index.connect(lake, create=True)) as db:
            db.executescript(catalog)


# -- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def free(folder: Path) -> int:
    return os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize


def fill(folder: Path, left: int) -> Path:
    """Fill a disk up to ``left`` bytes."""
    path = folder / "filler"
    path.write_bytes(bytes(max(free(folder) - left, 0)))
    return path


@pytest.fixture(scope="module")
def day(small_logs: Path) -> str:
    """Log objects of one day: 7,000 events."""
    return str(small_logs / "AWSLogs" / "**" / "2026" / "03" / "03" / "*.json.gz")


def test_full_disk(whole: Path, day: str, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full at once, in the events, in each part of a commit: reported, nothing changed; works once there is room."""
    clean, lake = small_disk / "clean", small_disk / "lake"
    ingest([str(whole / "in1")], clean)
    ingest([day], clean)
    want = exported(clean), merged(clean)
    events = sum(file.bytes for file in open_snapshot(clean).files("events"))
    shutil.rmtree(clean)
    ingest([str(whole / "in1")], lake)
    before = exported(lake), merged(lake)
    room = free(small_disk)

    def failed() -> None:
        with pytest.raises(LakeError) as caught:
            ingest([day], lake)
        (small_disk / "filler").unlink()
        assert all(words in str(caught.value) for words in (str(lake), "is full", "Make room")), caught.value
        assert (exported(lake), merged(lake)) == before
        assert not orphans(lake)

    for left in (0, events // 3):
        fill(small_disk, left)
        failed()
    for step in ("commit", "_write_seen", "_apply"):
        with monkeypatch.context() as patch:
            whole_step = getattr(Transaction, step)
            patch.setattr(Transaction, step, lambda *given, do=whole_step: [fill(small_disk, 0), do(*given)][1])
            failed()
    assert free(small_disk) > room - 400_000, "what was written in vain is taken away"
    ingest([day], lake)
    assert (exported(lake), merged(lake)) == want


def test_no_room_for_a_new_lake(small_disk: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.json.gz", [event_number(1)])
    for left in (0, 40_000, 120_000):
        filler = fill(small_disk, left)
        with pytest.raises(LakeError, match="full"):
            ingest([str(path)], small_disk / "lake")
        filler.unlink()
    assert ingest([str(path)], small_disk / "lake").stored == 1
    assert len(rows(small_disk / "lake")) == 1


def test_largest_file_allowed(whole: Path, day: str, tmp_path: Path) -> None:
    """Without root: a limit on file sizes gives the same message, from a worker and from the commit."""
    lake = lake_of_one(whole, tmp_path / "lake")
    before = exported(lake)
    code = "import sys; from pathlib import Path; from trailsift.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "ingest", day, "--lake", str(lake), "--quiet"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # noqa: E731
    done = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert str(lake) in done.stderr and "Make room" in done.stderr
    assert exported(lake) == before and not orphans(lake)
    assert ingest([day], lake).stored > 5_000


def test_lock_is_free_after_a_failure(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that could not begin does not keep others out."""
    lake = lake_of_one(whole, tmp_path / "lake")
    (lake / MARKER_FILE).touch()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LakeWriter, "sweep", fail)
        with pytest.raises(LakeError, match="full"):
            ingest([str(whole / "in2")], lake)
    assert ingest([str(whole / "in2")], lake).stored == 50


# -- a power cut -----------------------------------------------------------------------------------------------------


def test_on_disk_before_it_is_named(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the transaction begins, every file that it names is flushed, including Iceberg's own and all folders."""
    lake = lake_of_one(whole, tmp_path / "lake")
    old = set(lake.rglob("*"))
    flushed: set[int] = set()
    checked: list[Path] = []
    flush, apply = os.fsync, Transaction._apply

    def spy(handle: int) -> None:
        flush(handle)
        flushed.add(os.fstat(handle).st_ino)

    def check(*given: Any) -> int:
        assert not checked
        for path in sorted(lake.rglob("*")):
            ours = "data" in path.parts or "metadata" in path.parts or "seen" in path.parts
            if ours and path not in old:
                checked.append(path)
                assert path.stat().st_ino in flushed and path.parent.stat().st_ino in flushed, path
        return apply(*given)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", spy)
        patch.setattr(Transaction, "_apply", check)
        assert ingest([str(whole / "in2")], lake).stored == 50
    assert {path.suffix for path in checked} == {"", ".parquet", ".avro", ".json", ".ids"}
    with closing(index.connect(lake)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,), "each transaction is flushed by SQLite"


#: Compacts copies of a lake while files may have some bytes only, then moves one; prints the errors, a line each.
UNDER_LIMITS = """
import resource, shutil, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from trailsift.errors import LakeError
from trailsift.lake.compact import compact
from trailsift.lake.relocate import relocate

original, lake = Path(sys.argv[1]), Path(sys.argv[2])
for size in (0, 1_000, 5_000, 20_000, 34_000):
    for do in (compact, relocate):
        place = lake if do is compact else lake.with_name("moved")
        shutil.copytree(original, place)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            do(place)
            print("done")
        except LakeError as error:
            print(" ".join(str(error).split()))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        do(place)
        shutil.rmtree(place)
"""


def test_no_room_to_compact_or_relocate(whole: Path, tmp_path: Path) -> None:
    """Each step of both, SQLite's own included, says which lake, and works once there is room."""
    lake = lake_of_one(whole, tmp_path / "lake")
    lake.rename(tmp_path / "original")
    command = [sys.executable, "-c", UNDER_LIMITS, str(tmp_path / "original"), str(lake)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 10 and sum(line != "done" for line in lines) >= 6
    assert all(line == "done" or str(tmp_path) in line for line in lines)
