"""A lake that was moved or copied works where it is now, and the place it came from is not touched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from trailsift import schema
from trailsift.columns.arrow import arrow_schema
from trailsift.errors import LakeError
from trailsift.ingest import ingest
from trailsift.lake import index, settings
from trailsift.lake import relocate as module
from trailsift.lake.compact import compact
from trailsift.lake.iceberg import LakeCatalog
from trailsift.lake.open import open_snapshot
from trailsift.lake.parquet import write_lines
from trailsift.lake.relocate import relocate
from trailsift.lake.writer import LakeWriter
from trailsift.query import DuckDBEngine


def answers(lake: Path) -> dict[str, list[tuple[Any, ...]]]:
    with DuckDBEngine(open_snapshot(lake), threads=2) as engine:
        return {
            name: engine.query(f"SELECT count(*), sum(hash({name})::HUGEINT) FROM {name}", cache=False).rows()
            for name in schema.TABLES
        }


def scanned(lake: Path) -> dict[str, int]:
    catalog = LakeWriter(lake).catalog
    return {name: catalog.load_table(("trailsift", name)).scan().to_arrow().num_rows for name in schema.TABLES}


def indexed(lake: Path) -> dict[str, int]:
    return {name: sum(file.rows for file in open_snapshot(lake).files(name)) for name in schema.TABLES}


def tree(lake: Path) -> dict[str, bytes]:
    files = [path for path in lake.rglob("*") if path.is_file()]
    # Also a reader may move SQLite's log into the database.
    return {str(path): path.read_bytes() for path in files if not path.name.startswith(settings.CATALOG_FILE)}


@pytest.fixture(scope="module")
def home(small_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of two days in four commits, one day compacted; not to be changed."""
    lake = tmp_path_factory.mktemp("home") / "lake"
    for day in ("02", "03"):
        files = sorted(str(path) for path in (small_logs / "AWSLogs").rglob(f"{day}/*.json.gz"))
        for number in range(2):
            ingest(files[number::2], lake)
        if day == "02":
            compact(lake)
    return lake


@pytest.fixture
def moved(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home, tmp_path / "elsewhere" / "lake"))


def test_a_moved_lake_says_so(moved: Path) -> None:
    with pytest.raises(LakeError, match="trailsift relocate"):
        open_snapshot(moved)
    with pytest.raises(LakeError, match="trailsift relocate"):
        LakeWriter(moved)


def test_everything_works_in_the_new_place(home: Path, moved: Path, small_logs: Path) -> None:
    before, original = answers(home), tree(home)
    done = relocate(moved)
    assert (done.lake, done.moved_from, done.tables) == (str(moved), str(home), len(schema.TABLES))
    assert done.files == sum(len(open_snapshot(moved).files(name)) for name in schema.TABLES)
    assert answers(moved) == before
    assert scanned(moved) == indexed(moved)
    # Known log objects are known by their own paths; new ones go in; and it can be compacted.
    known = [str(path) for path in (small_logs / "AWSLogs").rglob("0[23]/*.json.gz")]
    counts = ingest(known, moved)
    assert counts.log_objects_known == len(known) and not counts.stored
    new = [str(path) for path in (small_logs / "AWSLogs").rglob("04/*.json.gz")]
    assert ingest(new, moved).stored
    rows = answers(moved)
    assert compact(moved).files_before
    compact(moved, now=datetime.now(UTC) + timedelta(days=2))
    assert answers(moved) == rows
    assert scanned(moved) == indexed(moved)
    assert tree(home) == original
    assert answers(home) == before


def test_nothing_points_to_the_old_place(home: Path, moved: Path) -> None:
    relocate(moved)
    for name in schema.TABLES:
        table = LakeWriter(moved).catalog.load_table(("trailsift", name))
        assert table.location() == f"file://{moved}/{name}"
        assert len(table.metadata.snapshots) <= 1
        paths = [task.file.file_path for task in table.scan().plan_files()]
        logged = [entry.metadata_file for entry in table.metadata.metadata_log]
        assert all(path.startswith(f"file://{moved}/") for path in paths + logged)


def test_statistics_are_kept(home: Path, moved: Path) -> None:
    """No data file is opened: what the manifests say of them is taken over."""
    relocate(moved)

    def texts(lake: Path) -> list[str]:
        tasks = LakeWriter(lake).catalog.load_table(("trailsift", "events")).scan().plan_files()
        files = [task.file for task in tasks]
        return sorted(f"{f.record_count} {f.file_size_in_bytes} {f.lower_bounds} {f.upper_bounds}" for f in files)

    assert texts(moved) == texts(home)


def test_a_lake_in_its_place(home: Path) -> None:
    before = open_snapshot(home)
    done = relocate(home)
    assert (done.tables, done.files) == (0, 0)
    assert open_snapshot(home) == before


def test_twice_and_back_again(moved: Path, tmp_path: Path) -> None:
    relocate(moved)
    before = answers(moved)
    for name in ("b", "a lake with blanks", "c"):
        moved = moved.rename(tmp_path / name)
        relocate(moved)
        assert answers(moved) == before
        assert scanned(moved) == indexed(moved)


class Crash(Exception):
    """The machine goes away."""


def crashing(method: Callable[..., Any], after: int) -> Callable[..., Any]:
    calls = 0

    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Crash
        return method(*arguments, **named)

    return wrapped


def test_an_interrupted_run_is_run_again(home: Path, moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[tuple[Any, str, int]] = [
        (LakeCatalog, "relocate", 2),
        (LakeCatalog, "apply", 0),
        (module, "now_text", 0),
        (module, "_write_location", 0),
    ]
    for place, name, after in points:
        with monkeypatch.context() as patch, pytest.raises(Crash):
            patch.setattr(place, name, crashing(getattr(place, name), after))
            relocate(moved)
    relocate(moved)
    assert answers(moved) == answers(home)
    assert scanned(moved) == indexed(moved)


def test_tidying_is_not_needed(home: Path, moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(module, "_tidy", crashing(module._tidy, 0))
        relocate(moved)
    assert answers(moved) == answers(home)
    assert relocate(moved).tables == 0


def test_what_another_engine_committed_before_the_move(moved: Path, home: Path, tmp_path: Path) -> None:
    """The index was stale when the lake moved: it is rebuilt."""
    relocate(moved)
    other = SqlCatalog("trailsift", uri=f"sqlite:///{moved}/{settings.CATALOG_FILE}", warehouse=f"file://{moved}")
    table = other.load_table(("trailsift", "rejects"))
    row = {"ingested_at": datetime(2026, 3, 2, tzinfo=UTC), "log_object": "x", "position": 1, "reason": "r", "raw": ""}
    (file,) = write_lines(schema.REJECTS, pa.Table.from_pylist([row], schema=arrow_schema(schema.REJECTS)), moved)
    table.add_files([f"file://{moved}/{file.path}"])
    other.close()
    again = moved.rename(tmp_path / "again")
    relocate(again)
    assert answers(again)["rejects"][0][0] == 1
    assert scanned(again) == indexed(again)


def test_a_path_that_cannot_be_a_lake(home: Path, tmp_path: Path) -> None:
    wrong = Path(shutil.copytree(home, tmp_path / "100%"))
    with pytest.raises(LakeError, match="cannot stand in the path"):
        relocate(wrong)
    assert json.loads((wrong / settings.LAKE_FILE).read_text("utf-8"))["location"] == str(home)


def test_no_lake(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="there is no lake"):
        relocate(tmp_path)


def test_the_commit_says_so(moved: Path) -> None:
    relocate(moved)
    with closing(index.connect(moved)) as db:
        assert db.execute("SELECT kind FROM commit_log ORDER BY seq DESC LIMIT 1").fetchone() == ("relocate",)
