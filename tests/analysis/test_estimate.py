"""Estimates from a sampled lake: intervals cover the truth as often as stated, and exact numbers are exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trailsift.analysis.confidence import Sums, interval, quantile
from trailsift.analysis.estimate import estimate
from trailsift.analysis.time_range import period
from trailsift.cli import main
from trailsift.errors import QueryError, UsageError
from trailsift.ingest import ingest
from trailsift.ingest.sift import keyed_hashes
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.rules import parse
from trailsift.rules.presets import preset_text
from trailsift.rules.sampling import sip_key, threshold

SAMPLES = 1000


def population() -> tuple[Any, Any, Any, Any]:
    """Ids, groups, rates and bytes of some thousand events: even, exponential and log-normal bytes, three rates."""
    random = np.random.default_rng(11)
    sizes = [500, 700, 900, 1200, 1700, 4000, 1200, 4000, 1500]
    group = np.repeat(np.arange(len(sizes)), sizes)
    count = len(group)
    rate = np.where(group == 5, np.where(np.arange(count) % 2, 0.05, 0.2), np.where(group % 2, 0.2, 0.15))
    kinds = [np.full(count, 100.0), random.exponential(1000, count), random.lognormal(6, 1, count)]
    kinds += [np.round(random.lognormal(6, 2, count)), random.lognormal(6, 2.5, count)]
    kinds += [np.where(random.random(count) < 0.5, 0, random.lognormal(6, 1.5, count))]
    ids = np.frombuffer(random.bytes(16 * count), "V16")
    return ids, group, rate, np.choose(np.where(group < 6, group % 3, group - 3), kinds)


def sums_of(weight: Any, y: Any) -> Sums:
    """Return the sums that the SQL of an estimate gives for events with these weights."""
    above = y > 0
    w, log = weight[above], np.log(np.maximum(y[above], 1))
    parts = (weight * y, weight * (weight - 1) * y * y, (weight * y) ** 2)
    logs = (y[above], w, w * w, w * log, w * log**2, w * log**3)
    return Sums(*map(np.sum, parts), int(above.sum()), *map(np.sum, logs))


def test_intervals_cover_and_estimates_are_unbiased() -> None:
    """1,000 samples by the real sampler, groups of 50 or more sampled events, even and skewed bytes: 93 to 97 %."""
    ids, group, rate, size = population()
    bars = np.array([threshold(one) for one in rate.tolist()], np.uint64)
    weight = 1 / rate
    members = [np.flatnonzero(group == number) for number in range(group.max() + 1)]
    numbers = (np.ones(len(group)), size)
    covered: list[list[list[bool]]] = [[[] for _ in members] for _ in numbers]
    errors: list[list[list[float]]] = [[[] for _ in members] for _ in numbers]
    for sample in range(SAMPLES):
        won = keyed_hashes(sip_key(str(sample), "lottery"), ids) < bars
        for number, member in enumerate(members):
            drawn = member[won[member]]
            for which, y in enumerate(numbers):
                sums, truth = sums_of(weight[drawn], y[drawn]), y[member].sum()
                errors[which][number].append(sums.total - truth)
                if len(drawn) >= 50:
                    low, high = interval(sums)
                    covered[which][number].append(low <= truth <= high)
    for which in range(2):
        shares = [float(np.mean(one)) for one in covered[which]]
        print("coverage", [round(share, 3) for share in shares], round(float(np.mean(shares)), 4))
        assert min(map(len, covered[which])) > 0.9 * SAMPLES
        assert 0.93 <= np.mean(shares) <= 0.97
        # For a single group the share varies by chance: 1,000 samples of the same few values that make up most of it.
        assert min(shares) > 0.85
        for one in errors[which]:
            assert abs(np.mean(one)) < 4 * np.std(one) / SAMPLES**0.5


def test_quantile_of_students_t() -> None:
    """Compared with published tables."""
    for freedom, value in ((2, 4.303), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)):
        assert quantile(freedom) == pytest.approx(value, rel=0.04)


@pytest.fixture(scope="module")
def sampled(small_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small logs, sampled by the preset schedule, without listing calls."""
    lake = tmp_path_factory.mktemp("estimate") / "lake"
    drop = '[[rule]]\nname = "listing"\nwhen = { event_name = "ListObjects" }\naction = "drop"\n'
    head, mark, rest = preset_text("time-of-day").partition("[[rule]]")
    ingest([str(small_logs / "AWSLogs")], lake, rules=parse(head + drop + mark + rest, "mixed"))
    return lake


def truth(lake: Path, by: str, where: str = "true") -> dict[Any, tuple[int, int]]:
    """Return events and bytes_out from the lake that has everything."""
    with DuckDBEngine(open_snapshot(lake)) as engine:
        sql = f"SELECT {by}, count(*), coalesce(sum(bytes_out), 0)::BIGINT FROM events WHERE {where} GROUP BY {by}"
        return {row[0]: (row[1], row[2]) for row in engine.sql(sql).rows()}


def test_numbers_from_summaries_are_exact(sampled: Path, small_lake: Path) -> None:
    """The same numbers as from the lake that has everything, including dropped events, and marked as exact."""
    with DuckDBEngine(open_snapshot(sampled)) as engine:
        for by, where in (("event_name", None), ("role_arn", "service = 's3' AND error_code IS NULL")):
            found = estimate(engine, [by], where)
            assert found.exact and found.source == "hourly"
            numbers = {group.names[0]: (group.events.estimate, group.bytes_out.estimate) for group in found.groups}
            assert numbers == truth(small_lake, by, where or "true")
        days = estimate(engine, ["date", "key_pattern"])
        assert days.source == "usage" and sum(group.events.estimate for group in days.groups) == 20_000


def test_other_numbers_are_estimated(sampled: Path, small_lake: Path) -> None:
    """Most intervals contain the truth, in any group; few events are marked rough; dropped events are reported."""
    where = "event_name <> 'ListObjects'"
    with DuckDBEngine(open_snapshot(sampled)) as engine:
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


def test_sampled_away_events_widen_the_interval(sampled: Path, small_lake: Path) -> None:
    """Also if no event of the scope was sampled, or none is stored; but not if nothing is missing."""
    real = truth(small_lake, "object_key")
    with DuckDBEngine(open_snapshot(sampled)) as engine:
        alone = "SELECT object_key FROM events GROUP BY object_key HAVING count(*) = 1 AND max(weight) = 1"
        keys = [key for (key,) in engine.sql(alone).rows() if key in real and real[key][0] > 1 and "'" not in key]
        assert keys
        for key in keys[:3]:
            found = estimate(engine, ["user_agent"], f"object_key = '{key}'")
            (group,) = found.groups
            assert not found.exact and not group.events.exact and not group.object_keys.exact
            assert group.events.low <= real[key][0] <= group.events.high
            assert group.bytes_out.high >= real[key][1]
        unseen = estimate(engine, ["user_agent"], "user_agent = 'nobody'")
        assert unseen.groups == () and not unseen.exact and unseen.not_stored > 1000
        assert unseen.as_dict()["not_stored_at_most"] == unseen.not_stored
        # No rule covers management events: all of them are stored, whatever the columns.
        kept = estimate(engine, ["user_agent"], "service = 'kms'")
        assert kept.exact and kept.not_stored == 0 and kept.groups
        numbers = {group.names[0]: (group.events.estimate, group.bytes_out.estimate) for group in kept.groups}
    assert numbers == truth(small_lake, "user_agent", "service = 'kms'")


def test_intervals_end_at_what_is_missing(sampled: Path, small_lake: Path) -> None:
    """The summaries have the number of events sampled away: no interval goes beyond it."""
    since, until = "2026-03-03T02:00:00Z", "2026-03-03T03:00:00Z"
    hour = period(since, until, "UTC")
    (all_of_it,) = truth(small_lake, "1", f"event_time >= '{since}' AND event_time < '{until}'").values()
    with DuckDBEngine(open_snapshot(sampled)) as engine:
        found = estimate(engine, ["user_agent"], None, hour)
    assert found.groups and 0 < found.not_stored < all_of_it[0]
    for group in found.groups:
        assert group.events.high <= max(group.events.estimate, (group.stored or 0) + found.not_stored)


def test_columns_that_rules_left_empty_are_named(small_logs: Path, tmp_path: Path) -> None:
    """A group without a name is explained."""
    rules = parse('[fields]\nomit = ["access_key_id"]', "f")
    files = sorted((small_logs / "AWSLogs").rglob("*.json.gz"))[:20]
    ingest(list(map(str, files)), tmp_path / "lake", rules=rules)
    with DuckDBEngine(open_snapshot(tmp_path / "lake")) as engine:
        assert estimate(engine, ["access_key_id"]).omitted == ("access_key_id",)
        assert estimate(engine, ["user_agent"], "access_key_id IS NULL").omitted == ("access_key_id",)
        assert estimate(engine, ["user_agent"]).omitted == ()


def test_a_lake_that_keeps_everything_is_exact(small_lake: Path) -> None:
    """Also by columns that are not in a summary."""
    with DuckDBEngine(open_snapshot(small_lake)) as engine:
        found = estimate(engine, ["access_key_id"], "bytes_out > 1000")
        assert found.exact and found.source == "events" and not found.groups[0].rough


def test_invalid_questions(sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown columns and invalid conditions raise the same errors as elsewhere."""
    with DuckDBEngine(open_snapshot(sampled)) as engine:
        with pytest.raises(UsageError, match="user_agent"):
            estimate(engine, ["user_agnt"])
        with pytest.raises(QueryError):
            estimate(engine, ["user_agent"], "no_such = 1")
        with pytest.raises(QueryError):
            estimate(engine, ["user_agent"], "1=1) GROUP BY ALL; DROP TABLE events; --")
    assert main(["estimate", "--lake", str(sampled), "--by", "user_agent", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"estimate", "low", "high", "exact"} <= document["groups"][0]["events"].keys()
    assert main(["estimate", "--lake", str(sampled), "--by", "session_name,date", "--since", "2026-03-03"]) == 0
    assert "95 % interval" in capsys.readouterr().out
