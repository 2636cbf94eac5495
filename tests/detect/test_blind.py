"""Quiet or blind: what a detection could not judge, each reason on a small lake."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.lakes import line, make_lake, open_engine
from support.records import sample
from trailsift import Lake
from trailsift.cli import main
from trailsift.detect import blind
from trailsift.detect.blind import BlindSpot
from trailsift.detect.finding import LEVELS
from trailsift.detect.texts import TEXTS
from trailsift.detect.writer import Writer
from trailsift.errors import SourceError
from trailsift.schema import UNKNOWN_CATEGORY

#: A Monday of the past, whatever the clock says: events of the future are no gaps.
BEGIN = datetime(2024, 3, 4, tzinfo=UTC)
CONSOLE: dict[str, Any] = {
    "eventSource": "iam.amazonaws.com",
    "eventName": "CreateUser",
    "eventCategory": "Management",
    "managementEvent": True,
    "readOnly": False,
    "resources": [],
    "requestParameters": None,
}


def lake_of(folder: Path, records: Iterable[dict[str, Any]], **options: Any) -> Lake:
    """A lake of records, each an event of its own."""
    events = [record | {"eventID": f"e{number}"} for number, record in enumerate(records)]
    (folder / "log.json").write_text(json.dumps({"Records": events}))
    lake = Lake(folder / "lake")
    lake.ingest(folder / "log.json", **options)
    return lake


def at(hours: float) -> str:
    """A time after the beginning."""
    return f"{BEGIN + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"


def kinds(lake: Lake) -> dict[str, BlindSpot]:
    """Return what could not be judged, by kind; sentences in both languages are complete."""
    spots = lake.detect().blind
    for spot in spots:
        for language in ("en", "ko"):
            sentence = spot.sentence(Writer(language))  # type: ignore[arg-type]
            assert sentence and "{" not in sentence and "None" not in sentence
    return {spot.kind: spot for spot in spots}


def test_one_day_of_changes(tmp_path: Path) -> None:
    """A short past, no data events, no reading calls; the command says so once, at the end, and in JSON."""
    lake = lake_of(tmp_path, [sample(**CONSOLE, eventTime=at(1))])
    found = kinds(lake)
    assert {"one_day", "not_logged", "only_writes"} <= found.keys()
    assert found["not_logged"].facts["names"] == ["S3", "Lambda", "DynamoDB", "NetworkActivity"]
    assert not {"dropped", "sampled", "gaps", "events_removed", "old_format", "empty"} & found.keys()


def test_the_command_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, on standard error, below the findings or their absence; `--json` has it as a list."""
    lake = lake_of(tmp_path, [sample(**CONSOLE, eventTime=at(1))])
    words = ["--lake", str(lake.path)]
    assert main(["detect", *words]) == 0
    error = capsys.readouterr().err
    assert error.index("no findings: ") < error.index("what could not be judged:\n  - only one day with events")
    assert error.count("could not be judged") == 1
    assert main(["detect", "--lang", "ko", *words]) == 0
    error = capsys.readouterr().err
    assert "탐지된 것 없음: " in error and "판단하지 못한 것:\n  - 이벤트가 있는 날이 하루뿐" in error
    assert main(["detect", "--json", *words]) == 0
    captured = capsys.readouterr()
    spots = {spot["kind"]: spot for spot in json.loads(captured.out)["not_judged"]}
    assert spots["one_day"]["n"] == 1 and "S3" in spots["not_logged"]["names"]
    assert "could not be judged" not in captured.err


_RULES = """
[[rule]]
name = "no-reads"
when = { event_name = "GetObject" }
action = "drop"

[[rule]]
name = "few-writes"
when = { event_name = "PutObject" }
action = "sample"
rate = 0.01
"""


def test_rules_left_events_out(tmp_path: Path) -> None:
    """Events that rules dropped are counted, by rule; that some were sampled is said."""
    (tmp_path / "rules.toml").write_text(_RULES)
    records = [sample(eventTime=at(i / 60)) for i in range(9)]
    records += [sample(eventName="PutObject", readOnly=False, eventTime=at(i / 60)) for i in range(300)]
    found = kinds(lake_of(tmp_path, records, rules=tmp_path / "rules.toml"))
    assert found["dropped"].facts["names"] == ["no-reads"] and found["dropped"].facts["n"] >= 8
    assert "sampled" in found and "only_writes" not in found
    assert found["not_logged"].facts["names"] == ["Lambda", "DynamoDB", "Management", "NetworkActivity"]


def test_gaps_and_retention(tmp_path: Path) -> None:
    """Hours without delivery in the last week; days that retention removed; a past that is long enough is not said."""
    hours = [hour for hour in range(24 * 21) if not 24 * 19 <= hour < 24 * 19 + 8]
    records = [sample(eventTime=at(hour + part / 4)) for hour in hours for part in range(3)]
    records.append(sample(eventCategory="NetworkActivity", eventTime=at(5), resources=[]))
    lake = lake_of(tmp_path, records)
    found = kinds(lake)
    assert found["gaps"].facts == {"n": 1, "hours": 8, "first": "2024-03-23T00:00:00Z", "last": "2024-03-23T08:00:00Z"}
    assert "short_past" not in found and "NetworkActivity" not in found["not_logged"].facts["names"]
    spots = blind.blind_spots(lake._engine(), frozenset({"novel"}), 2)
    left_out = next(spot for spot in spots if spot.kind == "levels").facts["names"]
    assert "learned" in left_out and "novel" not in left_out
    assert next(spot for spot in spots if spot.kind == "detections").facts == {"n": 2}
    lake.expire(events="1d", at_least="1d")
    assert kinds(lake)["events_removed"].facts["day"] > "2024-03-24"


def test_a_lake_that_was_of_an_earlier_format(tmp_path: Path) -> None:
    """The summary lines that an upgrade took over have no category; their days are counted."""
    hours = [BEGIN + timedelta(days=day, hours=hour) for day in range(3) for hour in range(2)]
    old = [line(hour, category=UNKNOWN_CATEGORY) for hour in hours]
    lake = make_lake(tmp_path / "old", {"hourly": [old, [line(BEGIN + timedelta(days=9), category="Data")]]})
    with open_engine(lake) as engine:
        spots = {spot.kind: spot for spot in blind.blind_spots(engine, frozenset(LEVELS.values()))}
    assert spots["old_format"].facts == {"n": 3} and spots["short_past"].facts == {"n": 4}


@pytest.mark.parametrize(("kept", "kind"), [("10d", "short_past"), ("2d", "empty")])
def test_removed_summaries(tmp_path: Path, kept: str, kind: str) -> None:
    """Retention removed days, or all of them: nothing is known of that time, and it says so."""
    now = datetime.now(UTC)
    times = [now - timedelta(days=day) for day in range(5, 30)]
    lake = lake_of(tmp_path, [sample(eventTime=f"{time:%Y-%m-%dT%H:%M:%SZ}") for time in times])
    lake.expire(events="1d", summaries=kept, at_least="1d")
    found = kinds(lake)
    assert kind in found and found["events_removed"].facts["day"] == f"{now - timedelta(days=1):%Y-%m-%d}"
    assert found["summaries_removed"].facts["day"] == f"{now - timedelta(days=int(kept[:-1])):%Y-%m-%d}"


def test_the_sentence_about_an_earlier_format() -> None:
    """Days without categories know less of their callers."""
    spot = BlindSpot("old_format", {"n": 2})
    assert spot.as_dict(Writer()) == {
        "kind": "old_format",
        "text": "2 days are in the form of an earlier version: less is known of their callers; trailsift compact",
        "n": 2,
    }


def test_an_empty_lake(tmp_path: Path) -> None:
    """Nothing was judged, for nothing is there."""
    (tmp_path / "log.json").write_text('{"Records": []}')
    lake = Lake(tmp_path / "lake")
    with pytest.raises(SourceError):
        lake.ingest(tmp_path / "log.json")
    assert [spot.kind for spot in lake.detect().blind] == ["empty"]


def test_every_kind_has_a_sentence() -> None:
    """The names of categories are texts as well."""
    assert {*blind._DATA.values(), "Management", "NetworkActivity"} <= TEXTS["ko"].blind.keys()
