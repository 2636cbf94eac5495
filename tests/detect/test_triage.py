"""Verdicts of people on findings, as they are stored."""

from __future__ import annotations

import json
from pathlib import Path

from trailsift.detect.detection_rules import builtin_rules
from trailsift.detect.triage import _former_values, marks


def test_verdicts_of_earlier_versions_still_cover_their_signals(tmp_path: Path) -> None:
    """A mute that was stored under a former title or feature name covers the same signal under its present one."""
    (tmp_path / "findings").mkdir()
    signals = [
        ["detection", "role/a", "The root user touches data", 5],
        ["unlike_itself", "role/a", "mix+" + "sel" + "dom", 7],
        ["new_network", "role/a", "10.0.0.0/24", 3],
    ]
    entry = {"id": "f1", "word": "mute", "reason": "known", "time": "2026-03-02T00:00:00Z", "signals": signals}
    (tmp_path / "findings" / "marks.jsonl").write_text(json.dumps(entry) + "\n")
    verdict = marks(tmp_path)["f1"]
    assert verdict.signals == (
        ("detection", "role/a", "Root user accesses data", 5),
        ("unlike_itself", "role/a", "mix+rare", 7),
        ("new_network", "role/a", "10.0.0.0/24", 3),
    )
    titles = {detection.title for detection in builtin_rules()[0]}
    assert set(_former_values()["detection"].values()) <= titles
