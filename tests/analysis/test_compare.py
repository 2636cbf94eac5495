"""Two periods: the counts of each difference are those of the raw records, and no new or lost name is missing."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trailsift
from trailsift.cli import main
from trailsift.errors import UsageError

DAYS = ("2026-03-02", "2026-03-03", "2026-03-04")


@pytest.fixture(scope="module")
def records(small_logs: Path) -> list[dict[str, Any]]:
    """Every distinct record of the logs, read without this package."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((small_logs / "AWSLogs").rglob("*.json.gz")):
        for record in json.loads(gzip.decompress(path.read_bytes()))["Records"]:
            found.setdefault(record["eventID"], record)
    return list(found.values())


@pytest.fixture(scope="module")
def lake(small_lake: Path) -> Iterator[trailsift.Lake]:
    with trailsift.Lake(small_lake) as handle:
        yield handle


def issuer(record: dict[str, Any]) -> str | None:
    arn = record["userIdentity"].get("sessionContext", {}).get("sessionIssuer", {}).get("arn")
    return None if arn is None else str(arn)


def day(record: dict[str, Any]) -> str:
    return str(record["eventTime"][:10])


def test_a_recount(lake: trailsift.Lake, records: list[dict[str, Any]]) -> None:
    comparison = lake.compare(since=DAYS[2], other=(DAYS[0], DAYS[2]), limit=0)
    assert (comparison.days, comparison.other_days) == (1, 2)
    assert comparison.events == sum(day(r) == DAYS[2] for r in records)
    assert comparison.other_events == sum(day(r) in DAYS[:2] for r in records)
    assert sum(comparison.total.values()) == len(comparison.changes) > 5
    now = Counter((issuer(r), r["eventName"]) for r in records if day(r) == DAYS[2])
    before = Counter((issuer(r), r["eventName"]) for r in records if day(r) in DAYS[:2])
    listed = {c.names: c for c in comparison.changes if c.dimension == "event" and c.names[0] in {n for n, _ in now}}
    assert listed
    for names, change in listed.items():
        assert (change.before, change.now) == (before[names], now[names])  # type: ignore[index]
        assert not change.seen_before
    # No action of a role that both periods know is new without being listed.
    known = {name for name, _ in before} & {name for name, _ in now} - {None}
    new = {names for names in now if names[0] in known and names not in before}
    assert {names for names, change in listed.items() if change.kind == "new"} == new
    scores = [change.score for change in comparison.changes]
    assert scores == sorted(scores, reverse=True)


def test_steady_volume_is_no_difference(lake: trailsift.Lake) -> None:
    for change in lake.compare(since=DAYS[2], other=(DAYS[0], DAYS[2]), limit=0).changes:
        expected = change.before / 2
        if change.kind == "more":
            assert change.now >= 2 * expected > 0
        elif change.kind == "less":
            assert 0 < change.now <= expected / 2
        else:
            assert (change.before, change.now).count(0) == 1


def test_the_other_way_round(lake: trailsift.Lake) -> None:
    there = lake.compare(since=DAYS[2], other=(DAYS[1], DAYS[2]), limit=0)
    back = lake.compare(since=DAYS[1], until=DAYS[2], other=(DAYS[2], "2026-03-05"), limit=0)
    new = {(c.dimension, c.names) for c in there.changes if c.kind == "new"}
    gone = {(c.dimension, c.names) for c in back.changes if c.kind == "gone"}
    assert new and new == gone


def test_previous_is_as_long_and_what_is_outside_of_the_lake_is_no_rate(lake: trailsift.Lake) -> None:
    comparison = lake.compare(since=DAYS[1])
    assert comparison.as_dict()["compared_with"] == {
        "since": "2026-03-01T00:00:00Z", "until": f"{DAYS[1]}T00:00:00Z", "timezone": "UTC"}  # fmt: skip
    assert (comparison.days, comparison.other_days) == (2, 1)
    assert all(change.kind == "new" for change in lake.compare(since=DAYS[0], limit=0).changes)
    later = lake.compare(since="2031-01-01", until="2031-01-03", other=(DAYS[0], DAYS[2]), limit=0)
    assert later.events == 0 and {change.kind for change in later.changes} == {"gone"}


def test_what_was_seen_earlier(tmp_path: Path) -> None:
    def record(number: int, when: str, name: str) -> dict[str, object]:
        return {
            "eventVersion": "1.11", "eventID": str(number), "eventTime": f"{when}T10:00:00Z",
            "eventSource": "s3.amazonaws.com", "eventName": "GetObject", "awsRegion": "us-east-1",
            "userIdentity": {"type": "IAMUser", "arn": f"arn:aws:iam::111111111111:user/{name}"},
            "recipientAccountId": "1" * 12, "sourceIPAddress": "203.0.113.9",
            "resources": [{"type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::b"}],
        }  # fmt: skip

    made = [record(1, "2026-01-01", "back"), record(2, "2026-01-02", "stays"), record(3, "2026-01-03", "stays")]
    made += [record(4, "2026-01-03", "back"), record(5, "2026-01-03", "fresh")]
    (tmp_path / "x.json").write_text(json.dumps({"Records": made}), "utf-8")
    with trailsift.Lake(tmp_path / "lake") as lake:
        lake.ingest(tmp_path / "x.json")
        changes = lake.compare(since="2026-01-03", other=("2026-01-02", "2026-01-03")).changes
        callers = {c.names[0]: (c.kind, c.seen_before) for c in changes if c.dimension == "caller"}
        user = "arn:aws:iam::111111111111:user/"
        assert callers == {user + "back": ("new", True), user + "fresh": ("new", False)}
        # What a new caller does and where it comes from is not listed again.
        assert not [c for c in changes if c.dimension in ("event", "network")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"since": None}, "name its start"), ({"since": DAYS[1], "limit": -1}, "negative"),
        ({"since": DAYS[1], "other": (DAYS[0], f"{DAYS[1]}T01:00")}, "overlap"),
        ({"since": DAYS[1], "other": (None, DAYS[1])}, "name its start"),
    ],
)  # fmt: skip
def test_periods_that_cannot_be_compared(options: dict[str, Any], said: str, lake: trailsift.Lake) -> None:
    with pytest.raises(UsageError, match=said):
        lake.compare(**options)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_is_shown(
    width: int, small_lake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    place = ["--lake", str(small_lake)]
    assert main(["compare", "--since", DAYS[1], *place]) == 0
    text = capsys.readouterr().out
    for said in ("UTC days 2026-03-03 to 2026-03-04 against", "Whole UTC days", "the lake reaches over 1 day"):
        assert said in " ".join(text.split())
    assert max(len(line) for line in text.splitlines() if not line.startswith("trailsift ")) <= width
    step = next(line for line in text.splitlines() if line.startswith("trailsift "))
    assert step.split()[1] in ("role", "resource") and "--since 2026-0" in step
    assert main(["compare", "--since", DAYS[2], "--with", f"{DAYS[0]}..{DAYS[1]}", *place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["new"] > 0
    assert main(["compare", "--since", DAYS[2], *place, "--csv"]) == 0
    assert capsys.readouterr().out.startswith("kind,dimension,name,of,before,now,")
    for words, said in (
        ([], "name its start"), (["--since", DAYS[2], "--with", "last week"], "is not a period"),
        (["--since", DAYS[2], "--with", f"{DAYS[0]}.."], "is not a period"),
        (["--since", DAYS[2], "--with", "x..y"], "not a valid time"),
        (["--since", DAYS[1], "--with", f"{DAYS[0]}..{DAYS[2]}"], "overlap"),
    ):  # fmt: skip
        assert main(["compare", *words, *place]) == 2
        assert said in capsys.readouterr().err
    assert main(["compare", "--since", "2031-01-01", *place]) == 0
    assert "the lake holds events from" in capsys.readouterr().err
