"""One suite for every storage: the folder, and the twin in memory."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from trailsift.errors import ConflictError, LakeError
from trailsift.storage import LocalStorage, Storage, open_storage, update
from trailsift.storage.memory import MemoryStorage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return LocalStorage(tmp_path / "root") if request.param == "local" else MemoryStorage()


def test_write_and_read(storage: Storage) -> None:
    storage.write("a/b.bin", b"0123456789")
    assert storage.read("a/b.bin") == b"0123456789"
    assert storage.read_range("a/b.bin", 3, 4) == b"3456"
    assert storage.read_range("a/b.bin", 8, 4) == b"89"
    assert storage.read_range("a/b.bin", 20, 4) == b""
    data, version = storage.read_versioned("a/b.bin")
    assert (data, version) == (b"0123456789", storage.write("a/c", b"") and storage.stat("a/b.bin").version)  # type: ignore[union-attr]
    storage.write("a/b.bin", b"new")
    assert storage.read("a/b.bin") == b"new"
    storage.write("empty", b"")
    assert storage.read("empty") == b""


def test_stat_and_exists(storage: Storage) -> None:
    before = time.time() - 1
    version = storage.write("x.json", b"abc")
    stored = storage.stat("x.json")
    assert stored is not None
    assert (stored.path, stored.size, stored.version) == ("x.json", 3, version)
    assert before <= stored.modified <= time.time() + 1
    assert storage.exists("x.json") and not storage.exists("y.json")
    assert storage.stat("y.json") is None


@pytest.mark.parametrize("read", ["read", "read_versioned"])
def test_no_such_object(storage: Storage, read: str) -> None:
    """Also a folder, and what would lie inside another object, is not an object."""
    storage.write("folder/x", b"1")
    for path in ("nothing", "no/thing", "folder", "folder/x/y"):
        with pytest.raises(FileNotFoundError):
            getattr(storage, read)(path)
        with pytest.raises(FileNotFoundError):
            storage.read_range(path, 0, 1)
        assert not storage.exists(path) and storage.stat(path) is None
        storage.delete(path)
    assert storage.read("folder/x") == b"1"


def test_list(storage: Storage) -> None:
    contents = {"a": b"1", "f/b": b"22", "f/g/c.txt": b"333", "fg/d": b"4444"}
    versions = {path: storage.write(path, data) for path, data in contents.items()}
    assert {one.path: (one.size, one.version) for one in storage.list()} == {
        path: (len(data), versions[path]) for path, data in contents.items()
    }
    assert {one.path for one in storage.list("f")} == set(storage.paths("f")) == {"f/b", "f/g/c.txt"}
    assert set(storage.paths()) == set(contents)
    assert list(storage.list("none")) == list(storage.paths("a/none")) == []
    for path in list(storage.paths("f")):
        storage.delete(path)
    assert set(storage.paths()) == {"a", "fg/d"}


def test_an_object_is_no_folder(storage: Storage) -> None:
    storage.write("a", b"1")
    storage.write("f/b", b"2")
    for path in ("a/x", "f"):
        with pytest.raises(OSError):
            storage.write(path, b"")
        with pytest.raises(OSError):
            storage.put_if_match(path, b"", None)
    assert {path: storage.read(path) for path in storage.paths()} == {"a": b"1", "f/b": b"2"}


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "..", "a/../b", "../a", ".hidden", "a/.b", "a\0b", "."])
def test_paths_stay_inside(storage: Storage, path: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: storage.read(path),
        lambda: storage.read_versioned(path),
        lambda: storage.read_range(path, 0, 1),
        lambda: storage.write(path, b""),
        lambda: storage.put_if_match(path, b"", None),
        lambda: storage.stat(path),
        lambda: storage.exists(path),
        lambda: storage.delete(path),
        *([lambda: list(storage.list(path)), lambda: list(storage.paths(path))] if path else []),
    ]
    for call in calls:
        with pytest.raises(LakeError, match="is not a path of an object"):
            call()


@pytest.mark.parametrize("path", ["year=2026/é {x} %41.parquet", "a b", "a..b", "x" * 200])
def test_odd_names(storage: Storage, path: str) -> None:
    storage.write(path, b"1")
    assert list(storage.paths()) == [path]
    assert storage.read(path) == b"1"


def test_put_if_match(storage: Storage) -> None:
    first = storage.put_if_match("f/x", b"1", None)
    with pytest.raises(ConflictError):
        storage.put_if_match("f/x", b"2", None)
    second = storage.put_if_match("f/x", b"2", first)
    assert second != first
    with pytest.raises(ConflictError):
        storage.put_if_match("f/x", b"3", first)
    assert storage.read_versioned("f/x") == (b"2", second)
    storage.delete("f/x")
    with pytest.raises(ConflictError):
        storage.put_if_match("f/x", b"3", second)
    assert not storage.exists("f/x")
    third = storage.put_if_match("f/x", b"1", None)
    assert third not in (first, second)


def test_versions_are_never_used_again(storage: Storage) -> None:
    """Also of equal bytes, whether they are written, put, or made after a deletion."""
    versions = []
    for _ in range(50):
        versions.append(storage.put_if_match("x", b"same", None))
        versions.append(storage.put_if_match("x", b"same", versions[-1]))
        versions.append(storage.write("x", b"same"))
        storage.delete("x")
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize("exists", [True, False])
def test_one_thread_wins(storage: Storage, exists: bool) -> None:
    for number in range(20):
        path = f"race/{number}"
        version = storage.write(path, b"old") if exists else None
        results: list[tuple[int, str]] = []
        start = threading.Barrier(6)

        def race(mine: int, path: str = path, version: str | None = version) -> None:
            start.wait()  # noqa: B023
            with suppress(ConflictError):
                results.append((mine, storage.put_if_match(path, b"%d" % mine, version)))  # noqa: B023

        threads = [threading.Thread(target=race, args=(mine,)) for mine in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ((winner, after),) = results
        assert storage.read_versioned(path) == (b"%d" % winner, after)


def test_updates_lose_nothing(storage: Storage) -> None:
    """Lines that several threads append to one object are all there."""

    def append(mine: int) -> None:
        for number in range(10):
            update(storage, "log.jsonl", lambda data: (data or b"") + b"%d-%d\n" % (mine, number))  # noqa: B023

    threads = [threading.Thread(target=append, args=(mine,)) for mine in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = storage.read("log.jsonl").split()
    assert sorted(lines) == sorted(b"%d-%d" % (mine, number) for mine in range(4) for number in range(10))


def test_update_may_leave_as_it_is(storage: Storage) -> None:
    update(storage, "x", lambda data: None)
    assert not storage.exists("x")
    version = storage.write("x", b"1")
    update(storage, "x", lambda data: None)
    assert storage.read_versioned("x") == (b"1", version)


def test_update_gives_up(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trailsift.storage.base._PAUSE", 0)

    def faster(data: bytes | None) -> bytes:
        storage.write("x", b"another")
        return b"mine"

    with pytest.raises(ConflictError):
        update(storage, "x", faster)
    assert storage.read("x") == b"another"


def test_open_storage(storage: Storage, tmp_path: Path) -> None:
    assert open_storage(storage) is storage
    opened = open_storage(tmp_path)
    opened.write("x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"


# -- the folder ------------------------------------------------------------------------------------------------------

_RACE = """
import sys
from pathlib import Path
from trailsift.errors import ConflictError
from trailsift.storage import LocalStorage, update

storage, mine = LocalStorage(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
won = 0
for number in range(40):
    try:
        storage.put_if_match(f"new/{number}", mine.encode(), None)
        won += 1
    except ConflictError:
        pass
for _ in range(20):
    update(storage, "count", lambda data: str(int(data or 0) + 1).encode())
print(won)
"""


def test_one_process_wins(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _RACE, str(tmp_path)]
    racers = [
        subprocess.Popen([*command, str(mine)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for mine in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [int(racer.communicate()[0]) for racer in racers]
    assert sum(won) == 40
    storage = LocalStorage(tmp_path)
    assert storage.read("count") == b"60"
    winners = [storage.read(f"new/{number}") for number in range(40)]
    assert [winners.count(b"%d" % mine) for mine in range(3)] == won


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    storage = LocalStorage(tmp_path)
    storage.put_if_match("x", b"1", None)
    with pytest.raises(ConflictError):
        storage.put_if_match("x", b"2", None)
    assert storage.read("x") == b"1"


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    version = storage.write("x", b"1")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for call in (lambda: storage.write("x", b"2"), lambda: storage.put_if_match("x", b"2", version)):
            with pytest.raises(OSError, match="No space"):
                call()
    assert storage.read_versioned("x") == (b"1", version)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_flushed_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is on the disk before it has its name, and its folders after that."""
    flushed: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spy(handle: int) -> None:
        fsync(handle)
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink().name if Path("/proc/self/fd").exists() else "?")

    def named(self: Path, target: Path) -> Path:
        assert len(flushed) == 1
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setattr(Path, "replace", named)
    LocalStorage(tmp_path / "root").write("f/x", b"1")
    assert len(flushed) == 3
    flushed.clear()
    LocalStorage(tmp_path / "root").flush(["f/x"])
    assert len(flushed) == 3


def test_modes(tmp_path: Path) -> None:
    private = LocalStorage(tmp_path / "cache" / "answers", private=True, sync=False)
    private.write("x", b"1")
    assert (tmp_path / "cache" / "answers").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "cache" / "answers" / "x").stat().st_mode & 0o777 == 0o600
    shared = LocalStorage(tmp_path / "shared")
    shared.write("x", b"1")
    (tmp_path / "shared" / "x").chmod(0o664)
    shared.write("x", b"2")
    assert (tmp_path / "shared" / "x").stat().st_mode & 0o777 == 0o664, "a new version keeps the mode"


def test_hidden_files_are_not_objects(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.put_if_match("x", b"2", storage.write("x", b"1"))
    (tmp_path / ".writing").touch()
    (tmp_path / ".scratch").mkdir()
    (tmp_path / ".scratch" / "y").touch()
    (tmp_path / "elsewhere").symlink_to(tmp_path, target_is_directory=True)
    assert list(storage.paths()) == ["x"]


def test_tidy(tmp_path: Path) -> None:
    """Leftovers of a dead writer are removed after an hour; what is being written, and everything else, stays."""
    storage = LocalStorage(tmp_path)
    for name in (".x.json.0123abcd", ".y.json.0123abcd", ".lock", "z.0123", ".storage.lock"):
        (tmp_path / name).touch()
        if name != ".y.json.0123abcd":
            os.utime(tmp_path / name, (0, 0))
    storage.tidy()
    assert {path.name for path in tmp_path.iterdir()} == {".y.json.0123abcd", ".lock", "z.0123", ".storage.lock"}


def test_touch(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("x", b"1")
    os.utime(tmp_path / "x", (0, 0))
    storage.touch("x")
    stored = storage.stat("x")
    assert stored is not None and stored.modified > time.time() - 10


def test_imports_are_cheap() -> None:
    """A cold query opens a lake through here."""
    code = "import sys; before = set(sys.modules); import trailsift.storage; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = ("asyncio", "concurrent", "random", "uuid", "tempfile", "subprocess", "numpy", "pyarrow", "logging")
    assert not [name for name in loaded if name.partition(".")[0] in heavy]


def test_a_dead_process_keeps_no_lock(tmp_path: Path) -> None:
    """The lock is the operating system's."""
    storage = LocalStorage(tmp_path)
    version = storage.write("x", b"1")

    def hold() -> None:
        with storage._lock(create=True):
            os._exit(1)

    process = multiprocessing.get_context("fork").Process(target=hold)
    process.start()
    process.join()
    assert process.exitcode == 1
    storage.put_if_match("x", b"2", version)
