"""Estimates of a sampled lake: their intervals cover the truth as often as they say, and exact answers are exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trailsift.analysis.estimate import _quantile, estimate, interval
from trailsift.cli import main
from trailsift.engine import Engine
from trailsift.errors import QueryError, UsageError
from trailsift.ingest import ingest
from trailsift.sift import parse
from trailsift.sift.lottery import key_of, threshold
from trailsift.sift.ready import text
from trailsift.sifting import hashes
from trailsift.store.index import open_snapshot

SAMPLES = 1000


def population() -> tuple[Any, Any, Any, Any]:
    """Ids, groups, rates and bytes of 9,000 events: even, exponential and log-normal bytes, three rates."""
    random = np.random.default_rng(11)
    sizes = [500, 700, 900, 1200, 1700, 4000]
    group = np.repeat(np.arange(6), sizes)
    count = len(group)
    rate = np.where(group == 5, np.where(np.arange(count) % 2, 0.05, 0.2), np.where(group % 2, 0.2, 0.15))
    kinds = [np.full(count, 100.0), random.exponential(1000, count), random.lognormal(6, 1, count)]
    ids = np.frombuffer(random.bytes(16 * count), "V16")
    return ids, group, rate, np.choose(group % 3, kinds)


def test_intervals_cover_and_estimates_are_unbiased() -> None:
    """1,000 draws of the real lottery, groups of 50 sampled events and more, even and skewed bytes: 93 to 97 %."""
    ids, group, rate, size = population()
    bars = np.array([threshold(one) for one in rate.tolist()], np.uint64)
    weight = 1 / rate
    truth = [np.bincount(group, y) for y in (np.ones(len(group)), size)]
    covered: list[list[Any]] = [[], []]
    errors: list[list[Any]] = [[], []]
    for sample in range(SAMPLES):
        won = hashes(key_of(str(sample), "lottery"), ids) < bars
        enough = np.bincount(group[won], minlength=6) >= 50
        for which, y in enumerate((np.ones(len(group)), size)):
            wy = (weight * y)[won]
            total, squares = (np.bincount(group[won], part, 6) for part in (wy, wy * wy))
            variance = np.bincount(group[won], (weight * (weight - 1) * y * y)[won], 6)
            low, high = interval(total, variance, total**2 / squares)
            inside = (low <= truth[which]) & (truth[which] <= high)
            covered[which] += inside[enough].tolist()
            errors[which].append(total - truth[which])
    for which in range(2):
        assert len(covered[which]) > 5 * SAMPLES
        assert 0.93 <= np.mean(covered[which]) <= 0.97, (which, np.mean(covered[which]))
        error = np.array(errors[which])
        noise = error.std(axis=0) / SAMPLES**0.5
        assert (np.abs(error.mean(axis=0)) < 4 * noise).all()
    print("coverage", [round(float(np.mean(one)), 4) for one in covered])


def test_quantile_is_students() -> None:
    """Against the tables."""
    for freedom, value in ((2, 4.303), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)):
        assert _quantile(freedom) == pytest.approx(value, rel=0.04)


@pytest.fixture(scope="module")
def sampled(small_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small logs by the shipped schedule, without the calls that list."""
    lake = tmp_path_factory.mktemp("estimate") / "lake"
    drop = '[[rule]]\nname = "listing"\nwhen = { event_name = "ListObjects" }\naction = "drop"\n'
    head, mark, rest = text("time-of-day").partition("[[rule]]")
    ingest([str(small_logs / "AWSLogs")], lake, workers=1, rules=parse(head + drop + mark + rest, "mixed"))
    return lake


def truth(lake: Path, by: str, where: str = "true") -> dict[Any, tuple[int, int]]:
    """Events and bytes out of the lake that has everything."""
    with Engine(open_snapshot(lake)) as engine:
        sql = f"SELECT {by}, count(*), coalesce(sum(bytes_out), 0)::BIGINT FROM events WHERE {where} GROUP BY {by}"
        return {row[0]: (row[1], row[2]) for row in engine.sql(sql).rows()}


def test_what_a_summary_knows_is_exact(sampled: Path, small_lake: Path) -> None:
    """The same numbers as of the lake that has everything, dropped events included, and it says so."""
    with Engine(open_snapshot(sampled)) as engine:
        for by, where in (("event_name", None), ("role_arn", "service = 's3' AND error_code IS NULL")):
            found = estimate(engine, [by], where)
            assert found.exact and found.source == "hourly"
            told = {group.names[0]: (group.events.estimate, group.bytes_out.estimate) for group in found.groups}
            assert told == truth(small_lake, by, where or "true")
        days = estimate(engine, ["date", "key_pattern"])
        assert days.source == "usage" and sum(group.events.estimate for group in days.groups) == 20_000


def test_what_no_summary_knows_is_estimated(sampled: Path, small_lake: Path) -> None:
    """Most intervals hold the truth, whatever the group; few events are said to be rough; what was dropped is told."""
    where = "event_name <> 'ListObjects'"
    with Engine(open_snapshot(sampled)) as engine:
        found = estimate(engine, ["user_agent"], where)
    assert found.source == "events" and not found.exact and list(found.dropped) == ["listing"]
    real = truth(small_lake, "user_agent", where)
    inside = [group.events.low <= real[group.names[0]][0] <= group.events.high for group in found.groups]
    assert len(inside) >= 8 and sum(inside) >= 0.8 * len(inside)
    largest = found.groups[0]
    assert largest.events.low < largest.events.estimate < largest.events.high
    assert largest.events.low >= (largest.stored or 0) - (largest.sampled or 0)
    total = sum(group.events.estimate for group in found.groups)
    assert total == pytest.approx(sum(events for events, _ in real.values()), rel=0.2)
    for group in found.groups:
        assert not group.source_ips.exact and group.rough == ((group.sampled or 0) < 50)


def test_a_lake_that_keeps_everything_is_exact(small_lake: Path) -> None:
    """Also by columns that no summary has."""
    with Engine(open_snapshot(small_lake)) as engine:
        found = estimate(engine, ["access_key_id"], "bytes_out > 1000")
        assert found.exact and found.source == "events" and not found.groups[0].rough


def test_what_cannot_be_asked(sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown columns and conditions are told like everywhere."""
    with Engine(open_snapshot(sampled)) as engine:
        with pytest.raises(UsageError, match="user_agent"):
            estimate(engine, ["user_agnt"])
        with pytest.raises(QueryError):
            estimate(engine, ["user_agent"], "no_such = 1")
        with pytest.raises(QueryError):
            estimate(engine, ["user_agent"], "1=1) GROUP BY ALL; DROP TABLE events; --")
    assert main(["estimate", "--lake", str(sampled), "--by", "user_agent", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"estimate", "low", "high", "exact"} <= told["groups"][0]["events"].keys()
    assert main(["estimate", "--lake", str(sampled), "--by", "session_name,date", "--since", "2026-03-03"]) == 0
    assert "95 % interval" in capsys.readouterr().out
