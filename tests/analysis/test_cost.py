"""The charges of a trail: the counts are those of the raw records, the dollars those of the price list."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import trailsift
from trailsift.cli import main
from trailsift.errors import UsageError


@pytest.fixture(scope="module")
def records(small_logs: Path) -> list[dict[str, Any]]:
    """Every distinct charged record of the logs, read without this package."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((small_logs / "AWSLogs").rglob("*.json.gz")):
        for record in json.loads(gzip.decompress(path.read_bytes()))["Records"]:
            found.setdefault(record["eventID"], record)
    return [record for record in found.values() if record.get("eventCategory") in ("Data", "NetworkActivity")]


def test_a_recount(small_lake: Path, records: list[dict[str, Any]]) -> None:
    days = len({record["eventTime"][:10] for record in records})
    with trailsift.Lake(small_lake) as lake:
        report = lake.cost(limit=0)
        assert (report.events, report.days) == (len(records), days)
        assert report.usd == pytest.approx(len(records) / 100_000 * 0.10 * 30 / days, abs=1e-5)
        groups = {group.by: {line.names: line.events for line in group.lines} for group in report.groups}
        for lines in groups.values():
            assert sum(lines.values()) == len(records)
        assert groups["event"] == Counter((r["eventSource"].partition(".")[0], r["eventName"]) for r in records)
        issuer = [r["userIdentity"].get("sessionContext", {}).get("sessionIssuer", {}).get("arn") for r in records]
        expected = Counter((arn,) for arn in issuer if arn)
        assert {names: n for names, n in groups["caller"].items() if names in expected} == expected
        assert sum(line.events for line in report.regions) == len(records)
        assert report.regions[0].aws_region == Counter(r["awsRegion"] for r in records).most_common(1)[0][0]
        assert report.avoidable.usd == pytest.approx(sum(s.usd_trail for s in lake.suggest().lines), abs=0.01)
        first = min(r["eventTime"][:10] for r in records)
        one = lake.cost("event", since=f"{first}T12:00", until=f"{first}T13:00")
        assert (one.days, one.events) == (1, sum(r["eventTime"].startswith(first) for r in records))
        assert [group.by for group in one.groups] == ["event"]


def test_dropped_events_cost_as_much(small_logs: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    """And records of a second trail are found, and what they cost at most."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "x"\nwhen = { service = "s3" }\naction = "drop"\n', "utf-8")
    logs = sorted((small_logs / "AWSLogs").rglob("*.json.gz"))
    again = tmp_path / "second-trail" / logs[0].name.replace("_", "-x_", 1)
    again.parent.mkdir()
    again.write_bytes(logs[0].read_bytes())
    with trailsift.Lake(tmp_path / "lake") as lake:
        lake.ingest(small_logs / "AWSLogs", rules=rules)
        duplicates = lake.ingest(again).duplicates
        report = lake.cost()
        assert report.events == len(records)
        assert report.twice.duplicates == duplicates > 0
        assert report.twice.usd_duplicates == pytest.approx(duplicates * 0.10 / 100_000, abs=1e-6)


def test_regions_and_twins_and_own_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def record(number: int, region: str, **more: object) -> dict[str, object]:
        return {
            "eventVersion": "1.11", "eventID": str(number), "eventTime": "2026-01-15T10:00:00Z",
            "eventSource": "s3.amazonaws.com", "eventName": "GetObject", "awsRegion": region,
            "recipientAccountId": "1" * 12, "eventCategory": "Data",
            "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111111111111:user/a"},
            "resources": [{"type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::b"}], **more,
        }  # fmt: skip

    made = [record(n, "us-east-1") for n in range(3)] + [record(n, "cn-north-1") for n in range(3, 5)]
    made += [record(9, "us-east-1", eventCategory="NetworkActivity"), record(10, "us-east-1", eventCategory="Insight")]
    made += [record(11, "us-east-1", eventCategory="Management")]
    (tmp_path / "x.json").write_text(json.dumps({"Records": made}), "utf-8")
    own = tmp_path / "prices.toml"
    own.write_text("data_events = { usd = 1.0, per = 10 }\n", "utf-8")
    with trailsift.Lake(tmp_path / "lake") as lake:
        lake.ingest(tmp_path / "x.json")
        report = lake.cost(prices=own)
        assert {line.aws_region: line.usd for line in report.regions} == {"us-east-1": 12.0, "cn-north-1": None}
        assert report.usd == 12.0 and report.events == 6
        assert (report.twice.network_activity, report.twice.usd_network_activity) == (1, 3.0)
        usd = {line.category: line.usd for line in report.categories}
        assert usd["Management"] == 0.0 and usd["Insight"] is None
        for by, limit, said in (("user", 1, "choose from"), ("caller", -1, "negative")):
            with pytest.raises(UsageError, match=said):
                lake.cost(by, limit=limit)  # type: ignore[arg-type]
        own.write_text("data_event = { usd = 1 }\n", "utf-8")
        with pytest.raises(UsageError, match="unknown price data_event"):
            lake.cost(prices=own)
    assert main(["cost", str(tmp_path / "lake")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Not priced: 2 events of cn-north-1" in text and "1 call were" not in text
    assert "the prices of further copies and of Insights are not known" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_is_shown(
    width: int, small_lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["cost", str(small_lake)]) == 0
    text = capsys.readouterr().out
    for said in ("a month", "By caller", "By key pattern", "$ a month", "Paid twice", "trailsift suggest"):
        assert said in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("trailsift ")) <= width
    assert main(["cost", str(small_lake), "--json", "--limit", "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["groups"]["caller"]["lines"]) == 2 and report["price"]["date"]
    assert main(["cost", str(small_lake), "--csv", "--by", "event"]) == 0
    assert capsys.readouterr().out.startswith("by,name,second_name,events,share,usd_a_month\nevent,s3,GetObject,")
    assert main(["cost", str(small_lake), "--since", "2031-01-01"]) == 0
    assert "the lake holds events from" in capsys.readouterr().err
