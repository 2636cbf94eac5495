"""The torture run can fail: each thing that it checks is broken here on purpose, and must be noticed."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.paths import REAL_LOGS, ROOT
from trailsift import Lake

BENCH = ROOT / "bench"


class Made(NamedTuple):
    """A lake, the truth about its logs, and what the lake holds while nothing is broken."""

    root: Path
    truth: Any
    clean: Any


@pytest.fixture(scope="module")
def checks() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCH), *sys.path])
        yield importlib.import_module("faults.checks")


@pytest.fixture(scope="module")
def whole(checks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A whole lake of two ingests; it is not changed."""
    world = importlib.import_module("faults.world")
    folder = tmp_path_factory.mktemp("torture")
    assert not world.make_logs(folder / "logs", None, 300, 5)
    root = folder / "whole" / "lake"
    with Lake(root) as lake:
        lake.ingest(folder / "logs" / "a", compact=False)
        lake.ingest(folder / "logs" / "b", compact=False)
    return Made(root, world.read_truth(folder / "logs"), checks.read_contents(root))


@pytest.fixture
def made(whole: Made) -> Iterator[Made]:
    """A copy in the same place, to be broken: a lake knows where it is."""
    held = whole.root.with_name("held")
    shutil.copytree(whole.root, held)
    yield whole
    shutil.rmtree(whole.root)
    held.rename(whole.root)


def problems(checks: ModuleType, made: Made) -> str:
    """Return everything that the checks find."""
    exported = made.root.with_name("exported.ndjson")
    Lake(made.root).export(exported)
    contents = checks.read_contents(made.root)
    found = [
        *checks.compare_exported(exported, made.truth),
        *checks.compare(contents, made.clean, made.truth, part=False),
        *checks.check_counts(made.root, contents, made.truth),
        *checks.check_files(made.root),
        *checks.leftovers(made.root, all_kinds=True),
    ]
    return "\n".join(found)


def rewrite(root: Path, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows of the first live file of a table."""
    path = sorted((root / table / "data").rglob("*.parquet"))[0]
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def execute(root: Path, sql: str) -> None:
    with closing(sqlite3.connect(root / "catalog.db", isolation_level=None)) as db:
        db.execute(sql)


def test_a_whole_lake_has_no_problems(checks: ModuleType, made: Made) -> None:
    """The truth was read without trailsift, so this is a test of both."""
    assert problems(checks, made) == ""
    assert len(made.truth.contents) >= 300 and made.truth.malformed == 3
    assert any(len(digests) > 1 for digests in made.truth.contents.values())


def test_a_deleted_row(checks: ModuleType, made: Made) -> None:
    """One event fewer."""
    rewrite(made.root, "events", lambda rows: rows.slice(1))
    found = problems(checks, made)
    assert "1 events are missing" in found and "events has" in found and "commits stored" in found


def test_a_doubled_commit(checks: ModuleType, made: Made) -> None:
    """The files of a commit a second time, in the index and on the disk."""
    with closing(sqlite3.connect(made.root / "catalog.db", isolation_level=None)) as db:
        rows = db.execute("SELECT * FROM file WHERE added = 1").fetchall()
        names = [column[1] for column in db.execute("PRAGMA table_info(file)")]
        at = names.index("path")
        for row in rows:
            copy = row[at].replace(".parquet", "2.parquet")
            shutil.copyfile(made.root / row[at], made.root / copy)
            marks = ",".join("?" * len(row))
            db.execute(f"INSERT INTO file VALUES ({marks})", [*row[:at], copy, *row[at + 1 :]])
    found = problems(checks, made)
    assert "are stored twice" in found and "repeat an id" in found and "hourly counts" in found
    assert "Iceberg has" in found


def test_a_changed_record(checks: ModuleType, made: Made) -> None:
    """One value of one event."""

    def change(rows: pa.Table) -> pa.Table:
        values = rows.column("user_agent").to_pylist()
        values[0] = "another"
        place = rows.column_names.index("user_agent")
        return rows.set_column(place, "user_agent", pa.array(values, pa.string()))

    rewrite(made.root, "events", change)
    found = problems(checks, made)
    assert "1 events are changed" in found and "events has" in found


@pytest.mark.parametrize("table", ["hourly", "usage", "profile"])
def test_a_summary_that_counts_one_more(checks: ModuleType, made: Made, table: str) -> None:
    """In one line of one summary."""

    def change(rows: pa.Table) -> pa.Table:
        values = rows.column("events").to_pylist()
        place = rows.column_names.index("events")
        return rows.set_column(place, "events", pa.array([values[0] + 1, *values[1:]], pa.int64()))

    rewrite(made.root, table, change)
    assert f"{table} has" in problems(checks, made)


def test_counts_that_do_not_add_up(checks: ModuleType, made: Made) -> None:
    """In one commit, and over all."""
    execute(made.root, "UPDATE commit_log SET counts = json_set(counts, '$.stored', 1) WHERE seq = 1")
    found = problems(checks, made)
    assert "the counts of commit 1 do not add up" in found and "commits stored" in found


def test_a_lost_file(checks: ModuleType, made: Made) -> None:
    """A live file of ids that is gone."""
    next(iter((made.root / "seen").glob("*.ids"))).unlink()
    assert "1 live files do not exist" in "\n".join(checks.check_files(made.root))


def test_leftovers(checks: ModuleType, made: Made) -> None:
    """Files that a killed writer leaves."""
    (made.root / ".writing").touch()
    (made.root / ".compact-x").mkdir()
    (made.root / "seen" / "0.ids").touch()
    (made.root / ".lake.json.0123").touch()
    found = checks.leftovers(made.root)
    assert {text.split(": ")[1] for text in found} == {
        "1 writer's marker",
        "1 folders of a compaction",
        "1 data files",
    }
    assert len(checks.leftovers(made.root, all_kinds=True)) == 4


def test_a_reader_of_a_half(checks: ModuleType, made: Made) -> None:
    """Events of one commit beside summaries of another, and whole commits."""
    rows = {seq: counts["stored"] for seq, kind, counts in checks.commits(made.root) if kind == "ingest"}
    first, both = rows[1], rows[1] + rows[2]
    place = made.root.stat().st_ino
    looks = [[place, 0, 0, 0, 0], [place, 1, first, first, first], [place, 2, both, both, both]]
    assert checks.check_looks(made.root, looks) == []
    wrong = [[place, 2, both, first, both], [place, 1, both, both, both], [place, 9, 0, 0, 0]]
    assert len(checks.check_looks(made.root, wrong)) == 3
    assert checks.check_looks(made.root, [[place + 1, 9, 0, 0, 0]]) == []


def test_output_that_nobody_should_see(checks: ModuleType) -> None:
    """Tracebacks, unexpected errors, undocumented exit codes."""
    trace = "Traceback (most recent call last):\n  File x\nBrokenPipeError: [Errno 32] Broken pipe\n"
    assert "BrokenPipeError" in checks.check_output(trace, 0, (0,))[0]
    assert checks.check_output("trailsift: unexpected KeyError: 'x'. Run\n", 1, (0, 1))
    assert checks.check_output("trailsift: the disk is full\n", 1, (0, 3))
    assert checks.check_output("trailsift: the disk is full\n", 1, (0, 1)) == []


#: A product that is broken before the run: what a killed writer left is never removed.
BROKEN = """
import sys
sys.path.insert(0, {bench!r})
import torture
torture.import_everything()
from trailsift.lake.writer import LakeWriter
LakeWriter.sweep = lambda self: 0
sys.exit(torture.main({words!r}))
"""


@pytest.mark.slow
def test_a_run_of_a_broken_product(tmp_path: Path) -> None:
    """The run says what is wrong and how to run the round again, and keeps its folder."""
    words = ["--faults", "3", "--seed", "3", "--jobs", "1", "--kind", "killed before", "--keep", str(tmp_path / "kept")]
    code = BROKEN.format(bench=str(BENCH), words=words)
    # Without real logs, which take longer to prepare than the rounds take.
    env = {**os.environ, REAL_LOGS: str(tmp_path / "none")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1, done.stderr
    assert "| killed before a file operation | 3 |" in done.stdout
    kept = sorted((tmp_path / "kept").glob("round-*/round.json"))
    assert kept
    for path in kept:
        number = json.loads(path.read_text("utf-8"))["number"]
        assert f"--seed 3 --only {number}" in done.stderr
        assert "left behind" in path.read_text("utf-8")


def test_rounds_are_the_same_for_a_seed(checks: ModuleType) -> None:
    """Every kind once first; another seed gives another order."""
    torture = importlib.import_module("torture")
    kinds = importlib.import_module("faults.kinds")

    def first(seed: int) -> list[str]:
        plan = torture.plan(seed)
        return [next(plan)[0] for _ in range(40)]

    assert first(1) == first(1) != first(2)
    assert set(first(1)[: len(kinds.KINDS)]) == {name for name, _, _ in kinds.KINDS}
