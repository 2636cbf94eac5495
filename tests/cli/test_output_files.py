"""Output files: their format by their name, nothing replaced without --force, nothing written into a lake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pyarrow import ipc, parquet

from trailsift.analysis import shell
from trailsift.api import Lake
from trailsift.cli import main
from trailsift.errors import UsageError

SQL = "SELECT event_name, sum(events) AS n FROM hourly GROUP BY 1 ORDER BY 2 DESC LIMIT 3"


@pytest.fixture
def lake(small_lake: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAILSIFT_LAKE", str(small_lake))
    return small_lake


def test_the_end_of_the_name_is_the_format(lake: Path, tmp_path: Path) -> None:
    for name in ("x.parquet", "x.csv", "x.json", "x.ARROW", "x.txt", "x"):
        assert main(["query", SQL, "-o", str(tmp_path / name)]) == 0
    assert parquet.read_table(tmp_path / "x.parquet").column_names == ["event_name", "n"]
    assert ipc.open_stream((tmp_path / "x.ARROW").read_bytes()).read_all().num_rows == 3
    assert len(json.loads((tmp_path / "x.json").read_text("utf-8"))) == 3
    assert (tmp_path / "x.csv").read_text("utf-8").startswith("event_name,n\n")
    assert "3 rows in" in (tmp_path / "x").read_text("utf-8") and "3 rows in" in (tmp_path / "x.txt").read_text("utf-8")
    assert main(["query", SQL, "-o", str(tmp_path / "y.csv"), "--json"]) == 0
    assert (tmp_path / "y.csv").read_text("utf-8").startswith("[")


COMMANDS = (["query", SQL], ["export", "--where", "event_name = 'x'"], ["connect"], ["connect"])


@pytest.mark.parametrize(("words", "name"), list(zip(COMMANDS, ("q.csv", "e", "c.sql", "c.duckdb"), strict=True)))
def test_nothing_is_replaced_without_force(
    words: list[str], name: str, lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / name
    target.write_text("mine", "utf-8")
    assert main([*words, "--output", str(target)]) == 2
    assert "exists" in (said := capsys.readouterr().err) and "--force" in said
    assert target.read_text("utf-8") == "mine"
    assert main([*words, "--output", str(target), "--force"]) == 0
    assert target.read_bytes() != b"mine"


def test_nothing_is_written_into_a_lake(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "lake"
    shutil.copytree(lake, other)
    settings = (other / "lake.json").read_text("utf-8")
    (tmp_path / "link").symlink_to(other / "events")
    monkeypatch.chdir(other / "hourly")
    for place in (other / "lake.json", other / "new.csv", other / "events" / "a" / "x", tmp_path / "link" / "x", "x"):
        for words in COMMANDS:
            assert main([*words, "--output", str(place), "--force"]) == 2
            assert "inside the lake" in capsys.readouterr().err
    assert (other / "lake.json").read_text("utf-8") == settings and not (other / "new.csv").exists()
    with Lake(other) as handle:
        handle.relocate()
        with pytest.raises(UsageError, match="inside the lake"):
            handle.query("SELECT 1").write(other / "x.csv", "csv")
        with pytest.raises(UsageError, match="inside the lake"):
            handle.export(other / "x.ndjson")
        with pytest.raises(UsageError, match="inside the lake"):
            handle.connect_database(other / "x.duckdb")


def test_streams_and_devices_are_no_files(lake: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for target in ("/dev/null", "/dev/stdout"):
        assert main(["query", SQL, "-f", "csv", "-o", target]) == 0
    assert "event_name,n" in capfd.readouterr().out


def test_a_lake_is_the_first_word(small_lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("summary", "roles", "status", "rejects", "verify", "suggest", "estimate"):
        assert main([name, str(small_lake)]) == 0, name
        assert capsys.readouterr().out
    assert main(["summary", str(small_lake), "--lake", str(small_lake)]) == 2


def test_roles_has_a_limit(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["roles", "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert "more: --limit 0 shows all" in out and out.splitlines()[0].startswith("1")
    assert main(["roles", "--limit", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["roles"]) == 2
    assert main(["roles", "--limit", "-1"]) == 2


def test_help_is_a_word_too(capsys: pytest.CaptureFixture[str]) -> None:
    pages = []
    for words in (["help"], ["--help"], ["help", "query"], ["query", "--help"], ["help", "rules", "try"]):
        assert main(words) == 0
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1] and pages[2] == pages[3] and "rules try" in pages[4]
    assert main(["query", "--nosuch"]) == 2
    assert "See `trailsift query --help`." in capsys.readouterr().err


def test_next_steps_name_the_program_as_it_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin dir" / "trailsift"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(program)])
    assert shell.program() == "'bin dir/trailsift'"
    monkeypatch.setenv("PATH", str(program.parent))
    assert shell.program() == "trailsift"
    monkeypatch.setattr("sys.argv", ["/x/trailsift/__main__.py"])
    monkeypatch.setattr("sys.executable", "/opt/python")
    assert shell.program() == "/opt/python -m trailsift"
    monkeypatch.setattr("sys.argv", ["pytest"])
    assert shell.program() == "trailsift"
