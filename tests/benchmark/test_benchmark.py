"""The benchmark: every technique gives the answer, the numbers are those of the run, and the picture is valid."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from trailsift.benchmark import CLAIMS, measure
from trailsift.cli import main
from trailsift.errors import SourceError
from trailsift.prices import load_prices


def test_every_technique_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exact techniques find what the full lake finds; sampled ones come close; all of them read less."""
    picture = tmp_path / "gains.svg"
    options = ["--events", "8000", "--days", "2", "--rounds", "1", "--svg", str(picture), "--json", "-q"]
    assert main(["bench", *options, "--dir", str(tmp_path / "work")]) == 0
    report = json.loads(capsys.readouterr().out)
    ways = {way["name"]: way for way in report["ways"]}
    assert ways.keys() > CLAIMS.keys()
    assert report["events"] == 8000 and report["truth"] > 500
    for name, way in ways.items():
        assert way["seconds"] > 0
        assert (way["error"] == 0) == (not way["sampled"]), name
        assert way["error"] < 0.5
        if name not in ("raw logs", "raw logs, summarized"):
            assert way["saved"] > 0.1, name
    assert ways["partitioning"]["claimed_faster"] == [5, 10]
    assert ways["all together"]["bytes"] < ways["columnar storage"]["bytes"]
    assert ways["summary table"]["rows"] == ways["raw logs, summarized"]["rows"]
    root = ElementTree.fromstring(picture.read_text("utf-8"))
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "smart sampling" in texts and any("8,000" in text for text in texts)
    assert main(["bench", "--dir", str(tmp_path / "work")]) == 2


def test_logs_without_the_question(tmp_path: Path) -> None:
    """An error, not a division by zero."""
    with pytest.raises(SourceError):
        (tmp_path / "logs").mkdir()
        measure([str(tmp_path / "logs")], tmp_path / "work", load_prices())
