"""The evaluation: strengths, levels left out, kinds, from generated logs to the report."""

from __future__ import annotations

import json

import pytest

from trailsift.cli import main
from trailsift.detect.evaluation import EvaluationResult, IncidentOutcome
from trailsift.detect.experiment import ABLATIONS, ExperimentConfig, ExperimentReport
from trailsift.generate import KINDS, QUIET_KINDS
from trailsift.terminal.findings import show_evaluation


def test_evaluate_goes_all_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    """One small seed of one strength: every kind and level is reported, and the quiet period."""
    given = ["--seeds", "1", "--events", "3000", "--days", "6", "--roles", "9", "--strength", "stealthy"]
    assert main(["evaluate", *given, "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    (one,) = report["strengths"]
    assert one["strength"] == "stealthy"
    assert [line["without"] or "all" for line in one["levels"]] == list(ABLATIONS)
    assert {line["kind"] for line in one["kinds"]} <= {*KINDS, *QUIET_KINDS} and len(one["kinds"]) >= 6
    assert all(set(line["found_without"]) == {*ABLATIONS} - {"all"} for line in one["kinds"])
    assert 0 <= report["quiet_false_per_day"] < 10


def test_report_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Shares over seeds, by kind and by level left out, and false findings per day and 1,000 roles."""
    table = ExperimentReport(ExperimentConfig(1_000, 10, 20, ("weak",)), seeds=2)
    hit, miss = (
        IncidentOutcome("mass_delete", True, 3, 2.0, 0.7),
        IncidentOutcome("mass_delete", False, None, None, None),
    )
    late = IncidentOutcome("mass_delete", True, 12, 4.0, 0.5)
    for way in ABLATIONS:
        table.results["weak", way] = [
            EvaluationResult((hit,), (), 10),
            EvaluationResult((miss if way == "volume" else late,), (), 10),
        ]
    table.results["weak", "all"][0] = EvaluationResult((hit,), ("a", "b"), 10)  # type: ignore[arg-type]
    (one,) = table.as_dict()["strengths"]
    everything = one["levels"][0]
    assert everything["found"] == 1 and everything["in_top_10"] == 0.5
    assert everything["false_per_day"] == pytest.approx(0.1)
    assert everything["false_per_day_and_1000_roles"] == pytest.approx(5)
    (kind,) = one["kinds"]
    assert kind["planted"] == 2 and kind["hours_to_detect"] == 3 and kind["found_without"]["volume"] == 0.5
    show_evaluation(table)
    assert "strength weak" in (out := capsys.readouterr().out) and "mass_delete" in out, out
