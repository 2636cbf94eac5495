"""Watch a folder: what is there, what comes, what is half written; stops, kills and trouble."""

from __future__ import annotations

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.logs import event_number, rows, write
from support.paths import ROOT, variants
from support.records import text
from support.webhooks import webhook
from trailsift.errors import LakeError, SourceError, UsageError
from trailsift.ingest.watch import Committed, Hooks, Pace, WatchStatus
from trailsift.ingest.watching import watch
from trailsift.lake.verify import verify
from trailsift.sources import WatchOptions
from trailsift.sources.folder_watch import is_partial

#: Files that come while a watch is killed.
FILES = 1500 if os.environ.get("TRAILSIFT_ALL_VARIANTS") else 500

pytest.importorskip("watchfiles", reason="no watchfiles to test with: install the extra `watch`")


class Running:
    """A watch in a thread."""

    def __init__(self, place: Path, lake: Path, every: float = 0.1) -> None:
        self.commits: list[Committed] = []
        self.said: list[str] = []
        self.status: WatchStatus | None = None
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._arguments = (str(place), lake, WatchOptions(), self._hooks(), Pace(every), self._stop)
        self._thread = threading.Thread(target=self._run)

    def _hooks(self) -> Hooks:
        return Hooks(committed=self.commits.append, trouble=self.said.append, started=self.said.append)

    def _run(self) -> None:
        try:
            self.status = watch(*self._arguments)
        except BaseException as error:
            self.error = error

    def start(self) -> Running:
        self._thread.start()
        self.wait(lambda: self.said)
        return self

    def stop(self) -> WatchStatus:
        self._stop.set()
        self._thread.join(60)
        if self.error is not None:
            raise self.error
        assert self.status is not None
        return self.status

    @property
    def stored(self) -> int:
        return sum(commit.counts.stored for commit in self.commits)

    def wait(self, done: Callable[[], Any], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end and self.error is None, "\n".join(self.said)
            time.sleep(0.02)


@contextmanager
def watching(place: Path, lake: Path, every: float = 0.1) -> Iterator[Running]:
    running = Running(place, lake, every).start()
    try:
        yield running
    finally:
        running.stop()


def once(place: Path, lake: Path) -> WatchStatus:
    return watch(str(place), lake, WatchOptions(), Hooks(), Pace(0.0, once=True, seconds=60), threading.Event())


def ids(lake: Path) -> Counter[int]:
    return Counter(int(row["event_id"][:8], 16) for row in rows(lake, columns="event_id"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


def test_what_was_there_and_what_comes(folder: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    write(folder / "2026" / "03", "old.json.gz", [event_number(1)])
    with watching(folder, lake) as running:
        running.wait(lambda: running.stored == 1)
        write(folder, "new.json.gz", [event_number(2)])
        running.wait(lambda: running.stored == 2)
        # A new subfolder, with a file that is there before anybody looks.
        write(folder / "a" / "b" / "c", "deep.json.gz", [event_number(3)])
        running.wait(lambda: running.stored == 3)
        write(folder / "a" / "b" / "c", "later.json.gz", [event_number(4)])
        running.wait(lambda: running.stored == 4)
        # A folder that is moved into place.
        write(tmp_path / "elsewhere" / "x", "moved.json.gz", [event_number(5)])
        (tmp_path / "elsewhere").rename(folder / "moved")
        running.wait(lambda: running.stored == 5)
    assert ids(lake) == Counter(range(1, 6))
    # While nobody looks, more comes; nothing is stored twice.
    write(folder / "a", "meanwhile.json.gz", [event_number(6), event_number(1)])
    status = once(folder, lake)
    assert (status.received, status.stored, status.duplicates) == (2, 1, 1)
    assert ids(lake) == Counter(range(1, 7))
    assert once(folder, lake).received == 0


def test_files_that_are_being_written(folder: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    whole = gzip.compress(text({"Records": [event_number(number) for number in range(200)]}))
    with watching(folder, lake) as running:
        with (folder / "slow.json.gz").open("wb") as file:
            for start in range(0, len(whole), len(whole) // 6):
                file.write(whole[start : start + len(whole) // 6])
                file.flush()
                time.sleep(0.3)
        running.wait(lambda: running.stored == 200)
        temporary = folder / ".rsync.json.gz.Xy12Ab"
        temporary.write_bytes(gzip.compress(text({"Records": [event_number(200)]})))
        time.sleep(0.5)
        temporary.rename(folder / "renamed.json.gz")
        running.wait(lambda: running.stored == 201)
    status = running.status
    assert status is not None and (status.received, status.malformed, status.duplicates) == (201, 0, 0)
    assert ids(lake) == Counter(range(201))


def test_partial_names_are_passed_over(folder: Path, tmp_path: Path) -> None:
    names = [".hidden.json.gz", "x.json.gz.part", "x.json.gz~", "x.json.gz.6eF4aB21", "x.tmp", "#x.json#", "x.filepart"]
    assert all(map(is_partial, names))
    assert not any(map(is_partial, ["x.json.gz", "x.json", "x", "x.tar.gz", "1_CloudTrail_2_20260302T0102Z_a.json.gz"]))
    for number, name in enumerate(names):
        write(folder, name, [event_number(number)])
    write(folder / ".git", "x.json.gz", [event_number(50)])
    write(folder, "x.json.gz", [event_number(99)])
    with watching(folder, tmp_path / "lake") as running:
        running.wait(lambda: running.stored)
        write(folder, "y.json.gz.tmp", [event_number(51)])
        write(folder / ".new", "y.json.gz", [event_number(52)])
        write(folder, "y.json.gz", [event_number(100)])
        running.wait(lambda: running.stored == 2)
    assert ids(tmp_path / "lake") == Counter([99, 100])


def test_the_lake_in_the_folder_and_links_out_of_it_are_not_read(folder: Path, tmp_path: Path) -> None:
    lake = folder / "lake"
    outside = write(tmp_path / "outside", "x.json.gz", [event_number(1)])
    (folder / "link.json.gz").symlink_to(outside)
    write(folder, "x.json.gz", [event_number(2)])
    with watching(folder, lake) as running:
        running.wait(lambda: running.stored == 1)
        (folder / "late.json.gz").symlink_to(outside)
        write(folder, "y.json.gz", [event_number(3)])
        running.wait(lambda: running.stored == 2)
        time.sleep(0.5)
    assert ids(lake) == Counter([2, 3])
    assert running.status is not None and running.status.log_objects == 2


def test_files_that_go_away_and_change(folder: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    with watching(folder, lake) as running:
        for number in range(20):
            path = folder / f"{number}.json.gz"
            path.write_bytes(b"x" * 1000)
            path.unlink()
        write(folder, "kept.json.gz", [event_number(1)])
        running.wait(lambda: running.stored == 1)
        write(folder, "kept.json.gz", [event_number(1), event_number(2)])
        running.wait(lambda: running.stored == 2)
    assert ids(lake) == Counter([1, 2])
    assert running.status is not None and running.status.malformed == 0


def test_a_folder_that_goes_away_and_comes_back(folder: Path, tmp_path: Path) -> None:
    """As a mount does: another folder may be in its place."""
    lake = tmp_path / "lake"
    write(folder, "a.json.gz", [event_number(1)])
    with watching(folder, lake) as running:
        running.wait(lambda: running.stored == 1)
        folder.rename(tmp_path / "away")
        running.wait(lambda: any("is gone" in said for said in running.said))
        write(tmp_path / "away", "b.json.gz", [event_number(2)])
        (tmp_path / "away").rename(folder)
        running.wait(lambda: running.stored == 2 and any("is back" in said for said in running.said))
        shutil.rmtree(folder)
        running.wait(lambda: sum("is gone" in said for said in running.said) == 2)
        write(folder, "c.json.gz", [event_number(3)])
        running.wait(lambda: running.stored == 3)
        write(folder, "d.json.gz", [event_number(4)])
        running.wait(lambda: running.stored == 4)
    assert ids(lake) == Counter([1, 2, 3, 4])


def mounted(folder: Path) -> bool:
    """Mount an empty file system at a folder; return whether that is allowed here."""
    folder.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "trailsift-test", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_a_mount_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    """The folder itself stays, and is empty: what is stored stays stored, and what comes later is seen."""
    folder, lake = tmp_path / "mount", tmp_path / "lake"
    if not mounted(folder):
        pytest.skip("no file system may be mounted here: run as root, with the right to mount")
    try:
        write(folder, "a.json.gz", [event_number(1)])
        with watching(folder, lake) as running:
            running.wait(lambda: running.stored == 1)
            subprocess.run(["umount", str(folder)], check=True)
            running.wait(lambda: any("another one" in line for line in running.said))
            assert mounted(folder)
            write(folder, "a.json.gz", [event_number(1)])
            write(folder / "sub", "b.json.gz", [event_number(2)])
            running.wait(lambda: running.stored == 2)
            write(folder / "sub", "c.json.gz", [event_number(3)])
            running.wait(lambda: running.stored == 3)
        assert ids(lake) == Counter([1, 2, 3])
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_without_notes_of_the_system_it_is_searched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import watchfiles

    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(28, "OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", refused)
    with watching(folder, tmp_path / "lake") as running:
        write(folder / "sub", "a.json.gz", [event_number(1)])
        running.wait(lambda: running.stored == 1)
        write(folder / "sub", "b.json.gz", [event_number(2)])
        running.wait(lambda: running.stored == 2)
        running.wait(lambda: len(running.said) > 1)
    assert "fs.inotify.max_user_watches" in running.said[1]


def test_groups(folder: Path, tmp_path: Path) -> None:
    with watching(folder, tmp_path / "lake", every=1.0) as running:
        for number in range(8):
            write(folder, f"{number}.json.gz", [event_number(number)])
            time.sleep(0.05)
        running.wait(lambda: running.stored == 8)
    assert len(running.commits) <= 2
    assert all(commit.lag >= 0.5 for commit in running.commits)


def test_counts_add_up_and_rejects_are_kept(folder: Path, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    write(folder, "a.json.gz", [event_number(1), event_number(1), "no record"])
    (folder / "cut.json.gz").write_bytes(gzip.compress(text({"Records": [event_number(2)] * 50}))[:-20])
    status = once(folder, lake)
    assert status.received == status.stored + status.duplicates + status.malformed and status.malformed >= 2
    assert not status.complete and len(rows(lake, "rejects")) == status.malformed


def test_a_lake_that_cannot_be_written_for_a_while(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trailsift.lake.transaction import Transaction

    commit, failures = Transaction.commit, [1, 1]

    def failing(self: Transaction, *arguments: Any) -> int:
        if failures:
            failures.pop()
            raise LakeError("the disk is full")
        return commit(self, *arguments)

    monkeypatch.setattr(Transaction, "commit", failing)
    write(folder, "a.json.gz", [event_number(1)])
    with watching(folder, tmp_path / "lake") as running:
        running.wait(lambda: running.stored == 1)
    assert sum("the disk is full. The watch goes on" in said for said in running.said) == 1
    assert running.status is not None and running.status.errors == 2
    assert ids(tmp_path / "lake") == Counter([1])


def test_what_cannot_be_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        once(tmp_path / "nowhere", tmp_path / "lake")
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="is a file: ingest it"):
        once(tmp_path / "file", tmp_path / "lake")
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    (tmp_path / "logs").mkdir()
    with pytest.raises(UsageError, match="extra `watch`"):
        once(tmp_path / "logs", tmp_path / "lake")
    assert not (tmp_path / "lake").exists()


def command(place: Path, lake: Path, *options: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, "-m", "trailsift", "watch", str(place), "--lake", str(lake), "--every", "0.1", *options]
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command(folder: Path, tmp_path: Path) -> None:
    write(folder, "a.json.gz", [event_number(1), "no record"])
    running = command(folder, tmp_path / "lake", "--json")
    assert running.stdout is not None
    first = json.loads(running.stdout.readline())
    assert first["commit"] == 1 and first["records"] == first["stored"] + first["malformed"] == 2
    write(folder, "b.json.gz", [event_number(2)])
    second = json.loads(running.stdout.readline())
    assert second["commit"] == 2 and 0 <= second["lag_seconds"] < 20
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 0 and json.loads(out)["totals"]["received"] == 3
    assert err.startswith("trailsift: watching the folder") and "stopping" in err
    done = command(folder, tmp_path / "lake2", "--once")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 3 and "3 received = 2 stored + 0 duplicates + 0 dropped + 1 malformed" in err
    assert "trailsift rejects" in err and not out
    limited = command(folder, tmp_path / "lake", "--for", "1s", "--quiet")
    assert limited.communicate(timeout=60) and limited.returncode == 0


def test_findings_are_reported_as_they_come(folder: Path, tmp_path: Path) -> None:
    """A thief's tool in the logs: named once, and posted once, by the watch that saw it come."""
    lake = tmp_path / "lake"
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def attack(first: int) -> list[Any]:
        agent = "Boto3/1.9.89 Python/3.8.1 Linux/4.19-kali Botocore/1.12.89 pacu"
        names = ("GetBucketAcl", "GetBucketPolicy", "ListBuckets")
        return [event_number(first + n, eventTime=moment, userAgent=agent, eventName=names[n % 3]) for n in range(30)]

    with webhook() as (url, posted):
        words = ("--json", "--detect", "--webhook", url)
        running = command(folder, lake, *words, "--detect-every", "0.5")
        try:
            write(folder, "a.json.gz", attack(0))
            assert running.stdout is not None
            lines = iter(running.stdout.readline, "")
            finding = next(found for line in lines if (found := json.loads(line).get("finding")))
            assert finding["id"] and finding["title"]
            end = time.monotonic() + 60
            while not posted and time.monotonic() < end:
                time.sleep(0.05)
        finally:
            running.send_signal(signal.SIGTERM)
            out, err = running.communicate(timeout=60)
        assert running.returncode == 0, err
        names = [document["finding"]["id"] if "finding" in document else document["id"] for document in posted]
        assert finding["id"] in names and len(set(names)) == len(names)
        again = command(folder, lake, *words, "--once")
        out, err = again.communicate(timeout=90)
        assert again.returncode == 0 and '"finding"' not in out, err
        assert len(posted) == len(names)


@pytest.mark.slow
def test_kills_lose_nothing_and_store_nothing_twice(folder: Path, tmp_path: Path) -> None:
    lake, stop = tmp_path / "lake", threading.Event()

    def produce() -> None:
        for number in range(FILES):
            write(
                folder / str(number % 7), f"{number}.json.gz", [event_number(2 * number), event_number(2 * number + 1)]
            )
            if stop.wait(0.01):
                return

    producer = threading.Thread(target=produce)
    producer.start()
    for seconds in variants((1.7, 2.0, 2.3, 2.6, 2.9), (1.9, 2.4)):
        running = command(folder, lake, "--every", "0")
        time.sleep(seconds)
        running.kill()
        running.communicate()
    producer.join()
    done = command(folder, lake, "--once")
    _, err = done.communicate(timeout=120)
    assert done.returncode == 0, err
    assert ids(lake) == Counter(range(2 * FILES))
    assert verify(lake).is_sound
    found = sum(row["events"] for row in rows(lake, "hourly", "events"))
    assert found == 2 * FILES
