"""The demo: its report is true, and the commands that it suggests run."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from trailsift.cli import main


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    home = tmp_path_factory.mktemp("demo") / "here and now"
    target = home.with_name("demo.json")
    import contextlib

    with target.open("w") as out, contextlib.redirect_stdout(out):
        assert main(["demo", "--events", "5000", "--days", "3", "--dir", str(home), "--json", "--quiet"]) == 0
    report: dict[str, Any] = json.loads(target.read_text())
    return report


def test_numbers(document: dict[str, Any]) -> None:
    assert document["ingest"]["stored"] == document["generate"]["events"] == 5000
    assert document["overview"]["total"]["events"] == 5000
    assert document["raw_scan"]["same_answer"] is True
    assert len(document["planted"]) == 8
    assert all(question["seconds"] > 0 for question in document["questions"])


def test_suggestions_run_and_answer(document: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert len(document["next"]) == 4
    for suggestion in document["next"]:
        capfd.readouterr()
        words = shlex.split(suggestion["command"])
        assert words[0] == "trailsift"
        assert main(words[1:]) == 0
        out, err = capfd.readouterr()
        assert out.count("\n") > 3, suggestion
        # Findings come with what could not be judged in so few days; nothing else has anything to complain about.
        assert not err or (words[1] == "detect" and err.startswith("trailsift: what could not be judged:"))


def test_suggestions_lead_to_the_incidents(document: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    bulk = next(incident for incident in document["planted"] if incident["kind"] == "bulk_exfiltration")
    capfd.readouterr()
    assert main([*shlex.split(document["next"][0]["command"])[1:], "--json"]) == 0
    role = json.loads(capfd.readouterr().out)
    assert role["role_arn"] == bulk["role_arn"]
    assert role["events"] >= bulk["events"]


@pytest.mark.parametrize("width", ["80", "120"])
def test_report_fits_the_width(
    tmp_path: Path, width: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("PATH", "")
    assert main(["demo", "--events", "3000", "--days", "2", "--dir", str(tmp_path / "d"), "--quiet"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    report = [line for line in out.splitlines() if not line.startswith(("trailsift ", "# ", ". "))]
    assert max(map(len, report)) <= int(width)
    # A shell that does not find the command gets the line that activates the environment.
    assert (". " in {line[:2] for line in out.splitlines()}) == Path(sys.prefix, "bin", "activate").exists()
    for word in ("Busiest callers", "Denied", "planted", "Try next", "same answer"):
        assert word in out


def test_a_full_folder_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "kept").write_text("x")
    assert main(["demo", "--events", "100", "--dir", str(tmp_path)]) == 2
    assert "not empty" in capfd.readouterr().err
