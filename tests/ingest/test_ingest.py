"""Exactly once, all or nothing, counts that add up."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.logs import event_number, exported, merged, rows, write
from support.records import text
from trailsift import schema
from trailsift.errors import LakeError, SourceError
from trailsift.ingest import Counts, Progress, Sizes, conflicts, ingest
from trailsift.ingest.batch import OpenBatch
from trailsift.ingest.coordinator import Coordinator
from trailsift.lake import index, settings
from trailsift.lake.open import open_snapshot
from trailsift.lake.settings import MARKER_FILE
from trailsift.lake.transaction import Transaction
from trailsift.lake.writer import LakeWriter

IMPORTS = "import sys; from pathlib import Path; from trailsift.ingest import ingest"


def records_of(folder: Path) -> list[dict[str, Any]]:
    """Read log files in CloudTrail's own form, independently of the package."""
    out = []
    for path in sorted(folder.rglob("*.json.gz")):
        out += json.loads(gzip.decompress(path.read_bytes()))["Records"]
    return out


def adds_up(counts: Counts) -> bool:
    return counts.records == counts.stored + counts.duplicates + sum(counts.dropped.values()) + counts.malformed


class Stored(NamedTuple):
    """The contents of a lake."""

    records: Counter[str]
    summaries: dict[str, list[str]]


@pytest.fixture(scope="module")
def stored(small_lake: Path) -> Stored:
    """Return the contents of ``small_lake``."""
    return Stored(exported(small_lake), merged(small_lake))


def test_everything_is_stored_once(small_logs: Path, tmp_path: Path) -> None:
    first = ingest([str(small_logs)], tmp_path / "lake", workers=2)
    assert adds_up(first) and first.stored == 20_000 and first.malformed == 0
    assert first.log_objects_skipped == 1, "truth.json holds no CloudTrail"
    assert not first.complete
    want = Counter(json.dumps(each, sort_keys=True) for each in records_of(small_logs))
    assert exported(tmp_path / "lake") == want
    again = ingest([str(small_logs / "AWSLogs")], tmp_path / "lake")
    assert (again.records, again.stored, again.log_objects) == (0, 0, 0)
    assert again.log_objects_known == first.log_objects and again.complete
    # The same logs under other names: recognized by their events.
    shutil.copytree(small_logs / "AWSLogs", tmp_path / "copy")
    copy = ingest([str(tmp_path / "copy")], tmp_path / "lake")
    assert adds_up(copy) and (copy.stored, copy.duplicates) == (0, 20_000)
    assert exported(tmp_path / "lake") == want
    assert rows(tmp_path / "lake", "rejects") == []


def test_summaries_add_up(small_lake: Path) -> None:
    for table in ("hourly", "usage", "access", "sessions"):
        targets = "events" if table in ("hourly", "sessions") else "events * (touch = 'target')::INT AS events"
        assert sum(row["events"] for row in rows(small_lake, table, targets)) == 20_000
    # Each copy is a second line, of what it read.
    copies = rows(small_lake, columns="source_object_key")
    number = sum(row["source_object_key"] is not None for row in copies)
    assert number and [number] * 2 == [
        sum(row["events"] for row in rows(small_lake, table, "events * (touch = 'source')::INT AS events"))
        for table in ("usage", "access")
    ]
    denied = [row for row in rows(small_lake, columns="error_code") if row["error_code"] in schema.DENIED_CODES]
    counted = rows(small_lake, "profile", "sum(denied) FILTER (dimension = 'principal_account') AS n")
    assert denied and int(counted[0]["n"]) <= len(denied)


def test_two_trails(tmp_path: Path) -> None:
    """Two trails deliver the same events in different objects."""
    mine = [event_number(number) for number in range(50)]
    write(tmp_path / "a", "one.json.gz", mine)
    write(tmp_path / "b", "two.json.gz", [*mine[:30], mine[3]])
    counts = ingest([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "lake")
    assert (counts.records, counts.stored, counts.duplicates) == (81, 50, 31)
    assert rows(tmp_path / "lake", "rejects") == []


def test_same_id_other_content(tmp_path: Path) -> None:
    """The first committed copy stays; the other counts as a duplicate and is kept in full."""
    write(tmp_path / "in", "1.json.gz", [event_number(1), event_number(2, userAgent="other"), event_number(2)])
    first = ingest([str(tmp_path / "in")], tmp_path / "lake")
    assert (first.stored, first.duplicates) == (2, 1)
    write(tmp_path / "in", "2.json.gz", [event_number(1, eventTime="2026-03-09T00:00:00Z")])
    second = ingest([str(tmp_path / "in")], tmp_path / "lake")
    assert (second.stored, second.duplicates, second.malformed) == (0, 1, 0)
    kept = rows(tmp_path / "lake", "rejects")
    assert len(kept) == 2
    kinds = {json.loads(row["raw"])["eventID"]: conflicts.kind_of(row["reason"]) for row in kept}
    assert kinds == {event_number(1)["eventID"]: "conflicting-time", event_number(2)["eventID"]: "conflicting-content"}
    assert (first.conflicts, second.conflicts) == ({"conflicting-content": 1}, {"conflicting-time": 1})
    assert json.loads(kept[-1]["raw"]) in (event_number(1, eventTime="2026-03-09T00:00:00Z"), event_number(2))
    assert {row["user_agent"] for row in rows(tmp_path / "lake")} == {"[Boto3/1.34]", "other"}


def test_bad_files_among_good_ones(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder, "good.json.gz", [event_number(1), event_number(2)])
    (folder / "cut.json.gz").write_bytes(gzip.compress(text({"Records": [event_number(3), event_number(4)]}))[:-60])
    (folder / "noise.json.gz").write_bytes(b"\x00\x01\x02" * 100)
    (folder / "empty.json.gz").write_bytes(b"")
    write(folder, "timeless.json.gz", [event_number(5, eventTime="soon"), event_number(6)])
    (folder / "notes.json").write_text('{"hello": 1}')
    counts = ingest([str(folder)], tmp_path / "lake")
    assert adds_up(counts) and not counts.complete
    assert counts.malformed == 4 and counts.log_objects_skipped == 1
    reasons = {Path(row["log_object"]).name: row["reason"] for row in rows(tmp_path / "lake", "rejects")}
    assert set(reasons) == {"cut.json.gz", "noise.json.gz", "empty.json.gz", "timeless.json.gz"}
    assert "soon" in reasons["timeless.json.gz"]
    ids = {row["event_id"][:8] for row in rows(tmp_path / "lake")}
    assert {"00000001", "00000002", "00000006"} <= ids
    again = ingest([str(folder)], tmp_path / "lake")
    assert again.stored == again.malformed == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
def test_unreadable_file_and_lake(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.json.gz", [event_number(1)])
    path.chmod(0)
    counts = ingest([str(tmp_path / "in")], tmp_path / "lake")
    assert (counts.records, counts.malformed) == (1, 1)
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(LakeError, match="closed"):
        ingest([str(tmp_path / "in")], tmp_path / "closed" / "lake")


def test_nothing_to_ingest(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no files"):
        ingest([str(tmp_path / "empty")], tmp_path / "lake")
    with pytest.raises(SourceError, match="no such file"):
        ingest([str(tmp_path / "missing")], tmp_path / "lake")
    with pytest.raises(SourceError, match="no file matches"):
        ingest([str(tmp_path / "*.gz")], tmp_path / "lake")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.json").write_text('{"a": 1}')
    with pytest.raises(SourceError, match="no CloudTrail"):
        ingest([str(tmp_path / "other")], tmp_path / "lake")


def test_a_folder_that_is_no_lake(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "a.json.gz", [event_number(1)])
    with pytest.raises(LakeError, match="not empty"):
        ingest([str(path)], tmp_path / "in")
    assert sorted(each.name for each in (tmp_path / "in").iterdir()) == ["a.json.gz"]
    with pytest.raises(LakeError):
        ingest([str(path)], path / "lake")


def test_inputs_are_told_apart(tmp_path: Path) -> None:
    """Globs, single files and a lake inside the folder."""
    write(tmp_path / "in", "a.json.gz", [event_number(1)])
    write(tmp_path / "in", "b.json.gz", [event_number(2)])
    write(tmp_path / "in" / ".hidden", "c.json.gz", [event_number(3)])
    lake = tmp_path / "in" / "lake"
    assert ingest([str(tmp_path / "in" / "a*")], lake).stored == 1
    counts = ingest([str(tmp_path / "in"), str(tmp_path / "in" / "b.json.gz")], lake)
    assert (counts.stored, counts.log_objects_skipped) == (1, 1)


def test_objects_by_delivery(tmp_path: Path) -> None:
    """By the minute in the names; and again on request."""
    for number, minute in enumerate(("0955", "1000", "1005")):
        name = f"111122223333_CloudTrail_ap-northeast-2_20260302T{minute}Z_abcdefghijklmnop.json.gz"
        write(tmp_path / "in", name, [event_number(number)])
    ten, lake = datetime(2026, 3, 2, 10, 0, 30, tzinfo=UTC), tmp_path / "lake"
    assert ingest([str(tmp_path / "in")], lake, since=ten, until=ten + timedelta(minutes=3)).stored == 1
    assert ingest([str(tmp_path / "in")], lake, since=ten).stored == 1
    with pytest.raises(SourceError, match="delivered"):
        ingest([str(tmp_path / "in")], lake, since=ten + timedelta(days=1))
    counts = ingest([str(tmp_path / "in")], lake, until=ten + timedelta(minutes=1), again=True)
    assert (counts.log_objects_known, counts.records, counts.stored, counts.duplicates) == (0, 2, 1, 1)


def test_stdin(tmp_path: Path) -> None:
    code = f"{IMPORTS}; print(ingest(['-'], Path(sys.argv[1])).stored)"
    data = b"\n".join(text(event_number(number)) for number in range(3))
    for expected in (b"3", b"0"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "lake")], input=data, capture_output=True, check=True
        )
        assert done.stdout.strip() == expected


def test_progress_ends_at_the_counts(small_logs: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    counts = ingest([str(small_logs / "AWSLogs")], tmp_path / "lake", workers=1, progress=seen.append)
    last = seen[-1]
    assert (last.records, last.stored) == (counts.records, counts.stored)
    assert last.objects_done == last.objects_total and last.bytes_done == last.bytes_total
    assert [each.records for each in seen] == sorted(each.records for each in seen)


def test_errors_of_callbacks_are_the_callers(small_logs: Path, tmp_path: Path) -> None:
    """They are raised as they are, not as errors of the lake."""

    def fail(now: Progress) -> None:
        raise BrokenPipeError(errno.EPIPE, "no reader")

    with pytest.raises(BrokenPipeError, match="no reader"):
        ingest([str(small_logs / "AWSLogs")], tmp_path / "lake", progress=fail)


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    """Without a guard, workers in new interpreters would import the script and start another ingest: an error says so.

    A process with one thread forks its workers, which need no guard; one with several cannot.
    """
    for name in "ab":
        write(tmp_path / "in", f"{name}.json.gz", [event_number(ord(name))])
    script = tmp_path / "script.py"
    threads = "import threading, time; threading.Thread(target=time.sleep, args=(30,), daemon=True).start()"
    call = "ingest([str(Path(sys.argv[1]))], Path(sys.argv[2]), workers=2)"
    arguments = [str(tmp_path / "in"), str(tmp_path / "lake")]
    script.write_text(f"{IMPORTS}\n{threads}\n{call}\n")
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode and 'if __name__ == "__main__":' in done.stderr.splitlines()[-1]
    assert "memory" not in done.stderr
    script.write_text(f"{IMPORTS}\nif __name__ == '__main__':\n    {threads}\n    {call}\n")
    subprocess.run([sys.executable, script, *arguments], check=True, timeout=60)


def test_two_writers_at_once(small_logs: Path, stored: Stored, tmp_path: Path) -> None:
    """Both ingest everything, in several batches, so that they alternate."""
    sizes = "Sizes(chunk_rows=3000, batch_rows=6000, task_bytes=100_000)"
    code = f"{IMPORTS}, Sizes; print(ingest([sys.argv[1]], Path(sys.argv[2]), workers=1, sizes={sizes}).stored)"
    command = [sys.executable, "-c", code, str(small_logs / "AWSLogs"), str(tmp_path / "lake")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    numbers = [int(process.communicate()[0]) for process in both]
    assert sum(numbers) == 20_000
    assert exported(tmp_path / "lake") == stored.records
    assert merged(tmp_path / "lake") == stored.summaries
    with closing(index.connect(tmp_path / "lake")) as db:
        assert db.execute("SELECT sum(ids), count(*) > 3 FROM seen_file").fetchone() == (20_000, 1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_run_again(small_logs: Path, stored: Stored, tmp_path: Path, how: signal.Signals) -> None:
    """At several moments; the rerun has the same result as one clean run."""
    code = f"{IMPORTS}; ingest([sys.argv[1]], Path(sys.argv[2]), workers=1)"
    lake = tmp_path / "lake"
    for seconds in (0.7, 1.6, 2.4, 3.2):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(small_logs / "AWSLogs"), str(lake)],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(seconds)
        if how is signal.SIGKILL:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        process.wait()
    ingest([str(small_logs / "AWSLogs")], lake)
    assert exported(lake) == stored.records
    assert merged(lake) == stored.summaries
    with LakeWriter(lake).lock():
        pass
    assert orphans(lake) == set(), "none are left once a writer has had the lock"


def orphans(lake: Path) -> set[str]:
    """Return data files that no commit names."""
    named = {file.path for table in schema.TABLES for file in open_snapshot(lake).files(table)}
    found = [path for table in schema.TABLES for path in (lake / table / "data").rglob("*.parquet")]
    return {str(path.relative_to(lake)) for path in found} - named


#: Several batches, each of several chunks.
BATCHES = Sizes(chunk_rows=1500, batch_rows=6000, task_bytes=1 << 16)


class Commits:
    """Block the first ``count`` commits until ``go`` is set; ``at_work`` is set while one is blocked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> None:
        self.go, self.at_work = threading.Event(), threading.Event()
        self.waited: list[bool] = []
        commit = OpenBatch.commit

        def slow(batch: OpenBatch, transaction: Transaction) -> int:
            self.at_work.set()
            if len(self.waited) < count:
                self.waited.append(self.go.wait(30))
            number = commit(batch, transaction)
            self.at_work.clear()
            return number

        monkeypatch.setattr(OpenBatch, "commit", slow)


def test_workers_go_on_while_a_batch_is_committed(
    small_logs: Path, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next batch is only opened when the commit is done."""
    commits = Commits(monkeypatch)
    count_read, offer = Coordinator._count_read, Coordinator._offer

    def counted(run: Coordinator, *given: Any) -> None:
        count_read(run, *given)
        if commits.at_work.is_set():
            commits.go.set()

    def offered(run: Coordinator, *given: Any) -> None:
        assert not commits.at_work.is_set()
        offer(run, *given)

    monkeypatch.setattr(Coordinator, "_count_read", counted)
    monkeypatch.setattr(Coordinator, "_offer", offered)
    lake = tmp_path / "lake"
    counts = ingest([str(small_logs / "AWSLogs")], lake, workers=2, sizes=BATCHES, compact=False)
    assert commits.waited == [True] and counts.stored == 20_000
    assert exported(lake) == stored.records and merged(lake) == stored.summaries


def test_interrupted_while_a_batch_is_committed(
    small_logs: Path, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit completes, and nothing else is left; the next ingest continues from there."""
    lake = tmp_path / "lake"
    with monkeypatch.context() as patch:
        commits = Commits(patch)

        def stop(now: Progress) -> None:
            if commits.at_work.is_set():
                commits.go.set()
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ingest([str(small_logs / "AWSLogs")], lake, workers=2, sizes=BATCHES, compact=False, progress=stop)
    assert commits.waited == [True]
    assert 6000 <= len(rows(lake, columns="1")) < 20_000 and orphans(lake) == set()
    assert not (lake / ".writing").exists()
    ingest([str(small_logs / "AWSLogs")], lake)
    assert exported(lake) == stored.records and merged(lake) == stored.summaries


def test_a_later_commit_fails(
    small_logs: Path, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the workers are busy with the next batch: only what was committed before remains."""
    lake = tmp_path / "lake"
    record = index.record_files
    made: list[int] = []

    def fail(*given: Any) -> None:
        made.append(1)
        if len(made) > 1:
            raise OSError(28, "No space left on device")
        record(*given)

    with monkeypatch.context() as patch:
        patch.setattr(index, "record_files", fail)
        with pytest.raises(LakeError, match="No space left"):
            ingest([str(small_logs / "AWSLogs")], lake, workers=2, sizes=BATCHES, compact=False)
    assert 6000 <= len(rows(lake, columns="1")) < 20_000 and orphans(lake) == set()
    ingest([str(small_logs / "AWSLogs")], lake)
    assert exported(lake) == stored.records and merged(lake) == stored.summaries


def test_killed_while_the_lake_was_made(tmp_path: Path) -> None:
    """At each step of creating a lake."""
    path = write(tmp_path / "in", "a.json.gz", [event_number(1)])
    whole = tmp_path / "whole"
    ingest([str(path)], whole)
    for kept in ([], ["lake.json"], ["lake.json", ".lock", ".writing"]):
        lake = tmp_path / f"lake{len(kept)}"
        lake.mkdir()
        for name in kept:
            text_of = (whole / name).read_text() if (whole / name).exists() else ""
            (lake / name).write_text(text_of.replace(str(whole), str(lake)))
        assert ingest([str(path)], lake).stored == 1
        assert not (lake / ".writing").exists()


def test_killed_after_its_last_commit(tmp_path: Path) -> None:
    """The next ingest has nothing to store, and removes the leftovers, unless another writer is active."""
    write(tmp_path / "in", "a.json.gz", [event_number(1)])
    lake = tmp_path / "lake"
    ingest([str(tmp_path / "in")], lake)
    (lake / ".writing").touch()
    stray = lake / f"events/data/{'0' * 32}.parquet"
    stray.write_bytes(b"half")
    with LakeWriter(lake).lock():
        assert ingest([str(tmp_path / "in")], lake).log_objects_known == 1
        assert (lake / ".writing").exists()
    stray.write_bytes(b"half")
    (lake / ".writing").touch()
    assert ingest([str(tmp_path / "in")], lake).log_objects_known == 1
    assert not (lake / ".writing").exists() and not stray.exists()
    assert len(rows(lake)) == 1


def test_failed_commit_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the last step: nothing of the batch is visible, and the next run stores all of it."""
    write(tmp_path / "in", "a.json.gz", [event_number(1)])
    ingest([str(tmp_path / "in")], tmp_path / "lake")
    write(tmp_path / "in", "b.json.gz", [event_number(2), event_number(3)])

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(index, "record_files", fail)
        with pytest.raises(LakeError, match="No space left"):
            ingest([str(tmp_path / "in")], tmp_path / "lake")
    assert len(rows(tmp_path / "lake")) == 1
    assert ingest([str(tmp_path / "in")], tmp_path / "lake").stored == 2
    assert len(rows(tmp_path / "lake")) == 3


def test_other_engines_see_the_same(small_lake: Path) -> None:
    """Return the rows of the tables by PyIceberg's own scan."""
    catalog = LakeWriter(small_lake).catalog
    for name in schema.TABLES:
        table = catalog.load_table((settings.NAMESPACE, name))
        assert table.scan().count() == len(rows(small_lake, name, "1"))
    scan = catalog.load_table((settings.NAMESPACE, "events")).scan(
        row_filter="event_time >= '2026-03-03T00:00:00+00:00' and service = 's3'"
    )
    paths = {task.file.file_path for task in scan.plan_files()}
    assert paths and all("service=s3" in path and "day=02" not in path for path in paths)
    assert scan.count() == len(
        [r for r in rows(small_lake, columns="service, day") if r["service"] == "s3" and r["day"] != "02"]
    )


def test_index_is_rebuilt_after_another_engine(small_logs: Path, tmp_path: Path) -> None:
    """A commit made with plain PyIceberg: the index notices and follows."""
    from pyiceberg.catalog.sql import SqlCatalog

    write(tmp_path / "in", "a.json.gz", [event_number(1), event_number(2)])
    lake = tmp_path / "lake"
    ingest([str(tmp_path / "in")], lake)
    write(tmp_path / "in", "b.json.gz", [event_number(3, eventTime="2026-03-05T00:00:00Z")])
    ingest([str(tmp_path / "in" / "b.json.gz")], lake)
    other = SqlCatalog("trailsift", uri=f"sqlite:///{lake / settings.CATALOG_FILE}", warehouse=f"file://{lake}")
    other.load_table((settings.NAMESPACE, "events")).delete("event_time < '2026-03-05T00:00:00+00:00'")
    assert [row["event_id"][:8] for row in rows(lake)] == ["00000003"]
    # A writer of ours continues from there.
    write(tmp_path / "in", "c.json.gz", [event_number(4)])
    assert ingest([str(tmp_path / "in" / "c.json.gz")], lake).stored == 1
    assert sorted(row["event_id"][:8] for row in rows(lake)) == ["00000003", "00000004"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_writer_after_another_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Changes by another engine reach the index although the lake was not read since, and its files are not swept."""
    from pyiceberg.catalog.sql import SqlCatalog

    lake = tmp_path / "lake"
    ingest([str(write(tmp_path / "in", "a.json.gz", [event_number(1)]))], lake)
    later = event_number(2, eventTime="2026-03-05T00:00:00Z")
    ingest([str(write(tmp_path / "in", "b.json.gz", [later]))], lake)
    copy = lake / "events/data/year=2026/month=03/day=05/service=s3/theirs.parquet"

    def another() -> None:
        other = SqlCatalog("trailsift", uri=f"sqlite:///{lake / settings.CATALOG_FILE}", warehouse=f"file://{lake}")
        table = other.load_table((settings.NAMESPACE, "events"))
        table.delete("event_time < '2026-03-05T00:00:00+00:00'")
        (ours,) = open_files(lake)
        shutil.copy(ours, copy)
        table.add_files([f"file://{copy}"], check_duplicate_files=False)

    def open_files(lake: Path) -> list[Path]:
        return [lake / file.path for file in index.last_commit(lake).files("events") if "day=05" in file.path]

    if when == "before":
        another()
        (lake / MARKER_FILE).touch()
    else:
        commit = Transaction.commit
        monkeypatch.setattr(Transaction, "commit", lambda *given: (another(), commit(*given))[1])
    assert ingest([str(write(tmp_path / "in", "c.json.gz", [event_number(3)]))], lake).stored == 1
    assert copy.exists()
    assert sorted(row["event_id"][:8] for row in rows(lake)) == ["00000002", "00000002", "00000003"]


def test_snapshots_and_metadata_stay_few(tmp_path: Path) -> None:
    """Forty commits: expiry and merging are part of every commit."""
    lake = tmp_path / "lake"
    LakeWriter.create(lake)
    for number in range(40):
        write(tmp_path / "in", f"{number}.json.gz", [event_number(number)])
        ingest([str(tmp_path / "in" / f"{number}.json.gz")], lake)
    metadata = LakeWriter(lake).catalog.load_table((settings.NAMESPACE, "events")).metadata
    assert len(metadata.snapshots) <= 31
    assert len(list((lake / "events" / "metadata").glob("*.metadata.json"))) <= 12
    with closing(index.connect(lake)) as db:
        assert db.execute("SELECT count(*) FROM commit_log WHERE kind = 'ingest'").fetchone() == (40,)
    assert len(rows(lake)) == 40


def plain_reading(folder: Path) -> list[dict[str, Any]]:
    """Read every record of real log files with only the standard library."""
    out: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        text_of = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig", "replace")
        try:
            value = json.loads(text_of)
        except ValueError:
            value = [json.loads(line) for line in text_of.splitlines() if line.strip()]
        while isinstance(value, dict) and "Records" in value:
            value = value["Records"]
        records = value if isinstance(value, list) else [value]
        out += [each.get("detail", each) for each in records]
    return [each for each in out if "eventSource" in each and "eventTime" in each]


def test_real_logs(real_logs: Path, tmp_path: Path) -> None:
    """The real files: what is exported equals an independent reading, each event once; the same again changes nothing.

    With ``-s`` the counts are printed, and each reject.
    """
    lake = tmp_path / "lake"
    counts = ingest([str(real_logs / "files")], lake)
    print(counts.as_dict(), *(f"{row['log_object']}: {row['reason']}" for row in rows(lake, "rejects")), sep="\n")
    assert adds_up(counts) and counts.stored > 20_000
    read = plain_reading(real_logs / "files")
    assert counts.records - counts.malformed == len(read)
    kept = exported(lake)
    of_id: dict[str, set[str]] = {}
    without = set()
    for each in read:
        line = json.dumps(each, sort_keys=True)
        if each.get("eventID"):
            of_id.setdefault(each["eventID"], set()).add(line)
        else:
            without.add(line)
    assert sum(kept.values()) == counts.stored == len(of_id) + len(without)
    assert without <= kept.keys()
    left = {json.loads(line).get("eventID"): line for line in kept}
    assert all(left[number] in lines for number, lines in of_id.items())
    # Only copies that differ from the stored one are in rejects.
    other = Counter(json.dumps(each, sort_keys=True) for each in read if each.get("eventID"))
    want = Counter({line: number for line, number in other.items() if line not in kept})
    rejects = [row for row in rows(lake, "rejects") if conflicts.kind_of(row["reason"])]
    assert Counter(json.dumps(json.loads(row["raw"]), sort_keys=True) for row in rejects) == want
    again = ingest([str(real_logs / "files")], lake)
    assert again.stored == 0 and again.log_objects == 0
