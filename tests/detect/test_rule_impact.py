"""The impact of rules on findings; and a sampled lake finds the same as a full one from summaries."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trailsift.cli import main
from trailsift.detect.detection_rules import builtin_rules, group_matches, run_detection
from trailsift.detect.finding import Signal
from trailsift.detect.rule_impact import FATES, Loss, losses
from trailsift.detect.signals import collect_signals
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.ingest.what_if import filtered_lake
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.rules import Rules, parse

RULES = """
[[rule]]
name = "the public site"
when = { resource = "*-public-site" }
action = "drop"

[[rule]]
name = "reads and writes"
when = { service = ["s3", "dynamodb"], event_name = ["Get*", "Put*"] }
action = "sample"
rate = 0.1
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days of 13 roles with incidents."""
    folder = tmp_path_factory.mktemp("loss")
    generate(folder / "logs", Options(events=12_000, days=10, seed=31, roles=13))
    return folder / "logs" / "AWSLogs"


@pytest.fixture(scope="module")
def rules() -> Rules:
    """A rule that drops and one that samples."""
    return parse(RULES, "rules")


@pytest.fixture(scope="module")
def whole(logs: Path) -> Iterator[DuckDBEngine]:
    """All events."""
    ingest([str(logs)], logs.parents[1] / "whole")
    with DuckDBEngine(open_snapshot(logs.parents[1] / "whole")) as engine:
        yield engine


@pytest.fixture(scope="module")
def sampled(logs: Path, rules: Rules) -> Iterator[DuckDBEngine]:
    """The same logs, ingested with the rules."""
    ingest([str(logs)], logs.parents[1] / "sampled", rules=rules)
    with DuckDBEngine(open_snapshot(logs.parents[1] / "sampled")) as engine:
        yield engine


def stored(engine: DuckDBEngine) -> list[tuple[Any, ...]]:
    """Ids and weights of the stored events."""
    return engine.query("SELECT event_id, weight FROM events ORDER BY 1", cache=False).rows()


def test_thinned_lake_is_what_ingest_would_have_made(whole: DuckDBEngine, sampled: DuckDBEngine, rules: Rules) -> None:
    """The same events with the same weights, the same summaries; the lake itself is as it was."""
    before = stored(whole)
    with filtered_lake(whole.snapshot.root, rules) as folder, DuckDBEngine(open_snapshot(folder)) as thin:
        assert stored(thin) == stored(sampled)
        total = "SELECT sum(events), count(DISTINCT role_arn) FROM hourly"
        assert thin.query(total, cache=False).rows() == whole.query(total, cache=False).rows()
    assert not folder.exists() and stored(whole) == before
    assert len(before) == 12_000 > len(stored(sampled))


def test_what_findings_lose(whole: DuckDBEngine, rules: Rules) -> None:
    """A detection over dropped events is lost; findings from summaries stay, with fewer events."""
    detections = builtin_rules()[0]
    with filtered_lake(whole.snapshot.root, rules) as folder, DuckDBEngine(open_snapshot(folder)) as thin:
        found = losses(whole, thin, detections)
    by_fate: dict[str, list[Loss]] = {fate: [one for one in found if one.fate == fate] for fate in FATES}
    assert [one.fate for one in found] == sorted((one.fate for one in found), key=FATES.index)
    hurt = [*by_fate["lost"], *by_fate["weaker"]]
    assert any("without credentials" in one.title for one in hurt), [one.title for one in hurt]
    assert all(one.score_after < one.score for one in hurt)
    fewer = by_fate["with fewer events"]
    assert fewer and all(0 < one.events_after < one.events and abs(one.score_after - one.score) < 0.01 for one in fewer)
    assert all(one.events_after == one.events for one in by_fate["as before"])
    nothing = parse("", "nothing")
    with filtered_lake(whole.snapshot.root, nothing) as folder, DuckDBEngine(open_snapshot(folder)) as thin:
        assert {one.fate for one in losses(whole, thin, detections)} == {"as before"}


def test_commands_name_them(whole: DuckDBEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`rules try` and `suggest`, as JSON and as text."""
    lake, file = str(whole.snapshot.root), tmp_path / "rules.toml"
    file.write_text(RULES)
    assert main(["rules", "try", str(file), "--lake", lake, "--json"]) == 0
    impact = json.loads(capsys.readouterr().out)["findings"]
    assert {"id", "title", "fate", "events", "events_after", "score", "score_after"} <= set(impact[0])
    assert main(["suggest", "--lake", lake]) == 0
    out = capsys.readouterr().out
    assert "Effect on findings" in out and any(one["id"] in out for one in impact)
    assert main(["rules", "try", str(file), "--lake", lake, "--no-findings", "--json"]) == 0
    assert "findings" not in json.loads(capsys.readouterr().out)


def key(signal: Signal) -> tuple[Any, ...]:
    """A signal without the fields that sampling may round."""
    return signal[:8]


def test_sampled_lake_finds_the_same(whole: DuckDBEngine, sampled: DuckDBEngine) -> None:
    """Summaries are exact, so each of their signals is the same; detections over events count by weight."""
    mine, theirs = (collect_signals(engine, (), save=False) for engine in (whole, sampled))
    assert sorted(map(str, map(key, mine.signals))) == sorted(map(str, map(key, theirs.signals)))
    assert mine.signals and mine.links == theirs.links
    over_summaries = [one for one in builtin_rules()[0] if "FROM events" not in one.sql and not one.calls]
    assert len(over_summaries) > 5
    for one in over_summaries:
        rows, thin_rows = (run_detection(engine, one) for engine in (whole, sampled))
        assert isinstance(rows, list) and isinstance(thin_rows, list)
        assert group_matches(rows) == group_matches(thin_rows), one.id


def test_detections_over_sampled_events_count_by_weight(tmp_path: Path) -> None:
    """Encryption with the caller's own key, sampled at a fifth: found with roughly the true number of calls."""
    own_key = {"x-amz-server-side-encryption-customer-algorithm": "AES256"}
    records = [
        {
            "eventVersion": "1.11", "eventID": f"e{i}", "eventTime": f"2026-03-02T0{i // 100}:{i % 60:02d}:00Z",
            "eventSource": "s3.amazonaws.com", "eventName": "PutObject", "awsRegion": "us-east-1", "readOnly": False,
            "sourceIPAddress": "192.0.2.9", "userAgent": "x", "eventCategory": "Data", "recipientAccountId": "1" * 12,
            "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111111111111:user/u", "userName": "u"},
            "requestParameters": {"bucketName": "b", "key": f"k{i}"} | own_key, "responseElements": None,
        }
        for i in range(600)
    ]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps({"Records": records}))
    (one,) = (one for one in builtin_rules()[0] if one.id == "ransom-sse-c")
    counts = []
    for name, text in (("whole", ""), ("sampled", RULES.replace("0.1", "0.2"))):
        ingest([str(tmp_path / "a.json")], tmp_path / name, rules=parse(text, name))
        with DuckDBEngine(open_snapshot(tmp_path / name)) as engine:
            (row,) = group_matches(run_detection(engine, one))  # type: ignore[arg-type]
            counts.append((row.events, len(stored(engine))))
    (events, rows), (guess, fewer) = counts
    assert events == rows == 600 and fewer < 200
    assert guess == pytest.approx(600, abs=3 * (600 * 4) ** 0.5)


def test_no_room(whole: DuckDBEngine, rules: Rules, tmp_path: Path) -> None:
    """A folder without a lake leaves nothing behind."""
    from trailsift.errors import LakeError

    with pytest.raises(LakeError, match="there is no lake"), filtered_lake(tmp_path, rules):
        pass
    shutil.rmtree(tmp_path)
