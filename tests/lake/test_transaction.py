"""A transaction ends once, and nothing can be called in a wrong order."""

from __future__ import annotations

import concurrent.futures
import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from trailsift import schema
from trailsift.columns.arrow import arrow_schema
from trailsift.errors import ConflictError, LakeError
from trailsift.lake import dedup, index
from trailsift.lake.commit import IngestedObject
from trailsift.lake.create import make_folder
from trailsift.lake.iceberg import LakeCatalog
from trailsift.lake.index import File
from trailsift.lake.open import open_snapshot
from trailsift.lake.parquet import write_lines
from trailsift.lake.settings import MARKER_FILE
from trailsift.lake.transaction import Transaction
from trailsift.lake.writer import LakeWriter

DAY = 86_400_000_000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lakes") / "lake"
    LakeWriter.create(root)
    return root


@pytest.fixture
def lake(tmp_path: Path) -> LakeWriter:
    return LakeWriter.create(tmp_path / "lake")


def ids(*numbers: int) -> dedup.Ids:
    high = np.array(numbers, np.uint64)
    return dedup.Ids(high, high, np.zeros(len(high), np.uint32))


def some_file(lake: LakeWriter) -> list[File]:
    """Write a file of one row, which no commit names yet."""
    row = {"ingested_at": DAY, "log_object": "a", "position": 1, "reason": "r", "raw": "x"}
    table = pa.Table.from_pylist([row], schema=arrow_schema(schema.REJECTS))
    return write_lines(schema.REJECTS, table, lake.root)


def on_disk(lake: LakeWriter) -> set[str]:
    return {path for folder in ("rejects/data", "seen") for path in lake.storage.paths(folder)}


def is_free(lake: LakeWriter) -> bool:
    lock = LakeWriter(lake.root).lock()
    try:
        lock.acquire(wait=False)
    except BlockingIOError:
        return False
    lock.release(clean=True)
    return True


def test_commit(lake: LakeWriter) -> None:
    transaction = lake.begin()
    assert not is_free(lake) and (lake.root / MARKER_FILE).exists()
    fresh, differs = transaction.offer(ids(3, 1, 3), (DAY, 2 * DAY))
    assert fresh.tolist() == [True, True, False] and differs.tolist() == []
    transaction.offer(ids(2), (0, DAY))
    files = some_file(lake)
    transaction.add(files, [IngestedObject("a", "1", "2026-03-02")])
    assert open_snapshot(lake.root).files("rejects") == []
    assert transaction.commit({"stored": 1}) == 1
    assert is_free(lake) and not (lake.root / MARKER_FILE).exists()
    assert open_snapshot(lake.root).files("rejects") == files
    assert lake.known_objects([IngestedObject("a", "1", "2026-03-02")]) == {("a", "1")}
    with index.connect(lake.root) as db:
        assert db.execute("SELECT ids, min_time, max_time, added FROM seen_file").fetchall() == [(3, 0, 2 * DAY, 1)]
    with lake.begin() as again:
        assert again.offer(ids(1, 4), (0, 0))[0].tolist() == [False, True]


def test_another_process_sees_the_ids(lake: LakeWriter) -> None:
    other = LakeWriter(lake.root)
    with other.begin() as transaction:
        transaction.offer(ids(1, 2), (0, 0))
        transaction.commit({})
    with lake.begin() as transaction:
        assert transaction.offer(ids(1, 2, 3), (0, 0))[0].tolist() == [False, False, True]


def test_rollback(lake: LakeWriter) -> None:
    transaction = lake.begin()
    transaction.offer(ids(1), (0, 0))
    transaction.add(some_file(lake))
    some_file(lake)  # of a worker that had not answered
    transaction.rollback()
    assert on_disk(lake) == set() and is_free(lake)
    assert open_snapshot(lake.root).seq == 0
    with lake.begin() as again:
        assert again.offer(ids(1), (0, 0))[0].tolist() == [True]


@pytest.mark.parametrize("raises", [True, False])
def test_a_block_without_a_commit_rolls_back(lake: LakeWriter, raises: bool) -> None:
    try:
        with lake.begin() as transaction:
            transaction.add(some_file(lake))
            if raises:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert raises
    assert on_disk(lake) == set() and is_free(lake)
    with pytest.raises(RuntimeError, match="was rolled back"):
        transaction.add([])


@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_rollback_while_a_folder_is_away(lake: LakeWriter, is_made_again: bool) -> None:
    """Its files go when the folder is back."""
    transaction = lake.begin()
    written = some_file(lake)
    place = lake.root / "rejects"
    place.rename(lake.root / "away")
    if is_made_again:
        some_file(lake)
    transaction.rollback()
    assert (lake.root / MARKER_FILE).exists()
    with pytest.raises(LakeError, match="No such file"):
        lake.begin()
    if is_made_again:
        shutil.rmtree(place)
    (lake.root / "away").rename(place)
    assert on_disk(lake) == {file.path for file in written}
    lake.begin().rollback()
    assert on_disk(lake) == set() and not (lake.root / MARKER_FILE).exists()


def test_an_empty_block_changes_nothing(lake: LakeWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked for, either: a compaction with nothing to do is cheap."""
    monkeypatch.setattr(LakeWriter, "sweep", lambda lake: pytest.fail("swept"))
    with lake.begin():
        pass
    assert is_free(lake) and not (lake.root / MARKER_FILE).exists()
    assert open_snapshot(lake.root).seq == 0


CALLS: dict[str, Callable[[Transaction], Any]] = {
    "offer ids": lambda transaction: transaction.offer(ids(1), (0, 0)),
    "add files": lambda transaction: transaction.add([]),
    "change the index": lambda transaction: transaction.change_index(lambda db, seq: None),
    "commit": lambda transaction: transaction.commit({}),
    "roll back": lambda transaction: transaction.rollback(),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("end", ["committed", "rolled back"])
def test_nothing_after_the_end(shared: Path, call: str, end: str) -> None:
    lake = LakeWriter(shared)
    transaction = lake.begin()
    if end == "committed":
        transaction.commit({})
    else:
        transaction.rollback()
    with pytest.raises(RuntimeError, match=f"cannot {call}: the transaction was {end}; begin another one"):
        CALLS[call](transaction)
    assert is_free(lake)


def test_after_a_failed_commit(lake: LakeWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a rollback is left; before it, no other writer gets in."""
    transaction = lake.begin()
    transaction.offer(ids(1), (0, 0))
    transaction.add(some_file(lake))

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(index, "record_files", fail)
        with pytest.raises(LakeError, match="cannot be written"):
            transaction.commit({})
    assert not is_free(lake)
    for call in ("offer ids", "add files", "commit"):
        with pytest.raises(RuntimeError, match="has failed to commit"):
            CALLS[call](transaction)
    transaction.rollback()
    assert on_disk(lake) == set() and is_free(lake)
    with lake.begin() as again:
        again.add(some_file(lake))
        assert again.commit({}) == 1


def test_another_engine_is_faster(lake: LakeWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the staging and the transaction of SQLite: a conflict, and nothing of ours is visible."""
    theirs = LakeCatalog(lake.root)
    write_seen = Transaction._write_seen

    def meanwhile(self: Transaction) -> Any:
        theirs.change(lake.tables["usage"], [])
        with index.connect(lake.root) as db:
            theirs.apply(db)
        return write_seen(self)

    monkeypatch.setattr(Transaction, "_write_seen", meanwhile)
    with pytest.raises(ConflictError, match="another engine committed"), lake.begin() as transaction:
        transaction.add(some_file(lake))
        transaction.commit({})
    assert open_snapshot(lake.root).files("rejects") == [] and on_disk(lake) == set()


def test_writers_wait_for_each_other(lake: LakeWriter) -> None:
    """Two at once: the second begins when the first has ended, and sees its ids."""
    first = lake.begin()
    first.offer(ids(1), (0, 0))
    answers: list[list[bool]] = []

    def second() -> None:
        with LakeWriter(lake.root).begin() as transaction:
            answers.append(transaction.offer(ids(1, 2), (0, 0))[0].tolist())

    thread = threading.Thread(target=second)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive() and answers == []
    first.commit({})
    thread.join(30)
    assert answers == [[False, True]]


def test_a_lake_that_cannot_be_written(lake: LakeWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LakeWriter, "catch_up", fail)
        with pytest.raises(LakeError, match="full"):
            lake.begin()
    assert is_free(lake)


def test_a_writer_waits_for_another_one_that_makes_the_lake(tmp_path: Path) -> None:
    """Before the catalog has its journal, SQLite does not wait by itself."""
    make_folder(tmp_path / "lake", hourly_partitions=False)
    with (
        closing(index.connect(tmp_path / "lake", create=True)) as other,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        other.executescript("CREATE TABLE seen_file (path TEXT); BEGIN IMMEDIATE; DROP TABLE seen_file")
        made = pool.submit(LakeWriter.create, tmp_path / "lake", ahead=True)
        with pytest.raises(TimeoutError):
            made.result(timeout=0.3)
        other.execute("COMMIT")
        assert made.result(timeout=30).root == tmp_path / "lake"
