"""Rows of the catalog that are damaged: each command says what is wrong, and what to do."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from support.logs import event_number, write
from trailsift import Lake
from trailsift.cli import main
from trailsift.errors import LakeError


@pytest.fixture
def lake(small_lake: Path, tmp_path: Path) -> Path:
    """A copy to be damaged, where it may be read and written."""
    copy = tmp_path / "lake"
    shutil.copytree(small_lake, copy)
    assert main(["relocate", "--lake", str(copy)]) == 0
    return copy


def damage(lake: Path, sql: str) -> None:
    with closing(sqlite3.connect(lake / "catalog.db", isolation_level=None)) as db:
        assert db.execute(sql).rowcount == 1


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM iceberg_tables WHERE table_name = 'hourly'",
        "UPDATE iceberg_tables SET table_namespace = 'trail3ift' WHERE table_name = 'hourly'",
        "UPDATE iceberg_tables SET table_name = 'h' WHERE table_name = 'hourly'",
    ],
)
@pytest.mark.parametrize(
    "words", [["ingest", "LOGS", "--again"], ["compact"], ["query", "SELECT count(*) FROM hourly"], ["status"]]
)
def test_a_lost_table(
    lake: Path, sql: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a KeyError."""
    damage(lake, sql)
    logs = str(write(tmp_path / "logs", "a.json.gz", [event_number(1)]))
    assert main([*(logs if word == "LOGS" else word for word in words), "--lake", str(lake)]) == 1
    said = capsys.readouterr().err
    assert "unexpected" not in said and "no table hourly" in said and f"lake at {lake}" in said


def test_a_sound_catalog_is_checked_again_once_it_changes(lake: Path) -> None:
    """A session asks the same lake many times, and checks the schema of the same file once."""
    with Lake(lake) as handle:
        assert handle.query("SELECT count(*) > 0 FROM events", cache=False).rows() == [(True,)]
        assert handle.query("SELECT count(*) > 0 FROM hourly", cache=False).rows() == [(True,)]
        with closing(sqlite3.connect(lake / "catalog.db")) as db:
            db.execute("CREATE VIEW harmless AS SELECT 1")
            db.commit()
        with pytest.raises(LakeError, match="view 'harmless'"):
            handle.query("SELECT count(*) FROM events", cache=False).rows()
