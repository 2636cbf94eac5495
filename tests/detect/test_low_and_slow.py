"""Low-and-slow egress: a little more than expected, day after day, is reported once; lookalikes are not."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trailsift.cli import main
from trailsift.detect.checkpoint import State, load, save
from trailsift.detect.correlate import correlate_signals
from trailsift.detect.daily_series import BYTES, CALLER, PATTERN, READS, TOUCHES, DailyEgress, DailySeries
from trailsift.detect.describe import describe
from trailsift.detect.evaluation import judge
from trailsift.detect.finding import LOW_AND_SLOW, Finding, Link, Signal
from trailsift.detect.low_and_slow import LowAndSlowDetector
from trailsift.detect.notify import _size
from trailsift.detect.pipeline import DetectOptions, detect
from trailsift.detect.signals import _latest_of_each
from trailsift.detect.triage import Verdict, _amount, mark, without_muted
from trailsift.generate import Options, generate
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.times import DAY, HOUR

MONDAY = 20_514  # 2026-03-02
ROLE_ARN, BUCKET = "arn:aws:iam::1:role/orders-etl", "arn:aws:s3:::payroll-archive"
Values = Any
Record = dict[str, Any]


def line(kind: int, value: float, *texts: str | None, role: str = ROLE_ARN) -> tuple[Any, ...]:
    """A line of a day; its key is a hash of the series' dimensions."""
    resource, event_name, pattern = (*texts, None, None, None)[:3]
    key = lambda *parts: random.Random(repr(parts)).getrandbits(63)  # noqa: E731
    keys = {
        CALLER: key(CALLER, role),
        TOUCHES: key(TOUCHES, role, resource),
        BYTES: key(BYTES, role, resource),
        READS: key(READS, role, resource, event_name),
        PATTERN: key(PATTERN, role, resource, event_name, pattern),
    }
    under = {TOUCHES: keys[CALLER], BYTES: keys[TOUCHES], READS: keys[TOUCHES], PATTERN: keys[READS]}
    return kind, keys[kind], under.get(kind, 0), value, role, resource, event_name, pattern


def day_of(day: int, lines: Sequence[tuple[Any, ...]]) -> DailyEgress:
    """A day (since the Monday) of these lines."""
    kind, key, under, value = (np.array(column) for column in zip(*(one[:4] for one in lines), strict=True))
    unsigned = key.astype(np.uint64), under.astype(np.uint64)
    return DailyEgress(MONDAY + day, kind, *unsigned, value.astype(np.float64), lambda i: lines[i][4:])


def days(
    reads: Values, rest: float | Values = 500.0, size: float = 0.0, kinds: dict[str, Values] | None = None
) -> Iterator[DailyEgress]:
    """Days on which one role reads objects of one bucket, does other things (``rest``), and downloads MB per read.

    On a day of NaN the role is not active. ``kinds``: reads by key pattern.
    """
    others = np.broadcast_to(rest, len(reads))
    for place, count in enumerate(reads):
        if np.isnan(count):
            continue
        lines = [line(CALLER, count + others[place]), line(TOUCHES, count + 1, BUCKET)]
        if count and size:
            lines.append(line(BYTES, count * size, BUCKET, "GetObject"))
        if count:
            lines.append(line(READS, count, BUCKET, "GetObject"))
        for pattern, values in (kinds or {}).items():
            if values[place]:
                lines.append(line(PATTERN, values[place], BUCKET, "GetObject", pattern))
        yield day_of(place, lines)


def signals_of(of: Iterator[DailyEgress], detector: LowAndSlowDetector | None = None) -> list[Signal]:
    """The latest signal of each run."""
    detector = detector or LowAndSlowDetector()
    return _latest_of_each([signal for day in of for signal in detector.process(day)])


def normal_reads(count: int, rate: float = 200, seed: int = 1, week: Sequence[float] = (1,) * 7) -> Values:
    """Reads of some days: a Poisson rate by weekday."""
    return np.random.default_rng(seed).poisson(rate * np.resize(week, count)).astype(float)


def test_run_is_reported_with_its_days() -> None:
    """Sixty percent more, six days in a row: who, what, since when, how much; from the fourth day at the latest."""
    reads = normal_reads(40)
    reads[34:] += 120
    (one,) = signals_of(days(reads))
    assert (one.kind, one.caller, one.value, one.resource_arn) == ("drip_reads", ROLE_ARN, BUCKET, BUCKET)
    assert one.event_name == "GetObject" and one.first_time == (MONDAY + 34) * DAY
    assert (MONDAY + 36) * DAY < one.last_time < (MONDAY + 38) * DAY and one.goes_on == (MONDAY + 40) * DAY - 1
    _, over, length, above = one.parts[0]
    assert over == pytest.approx(6 * 120, rel=0.2) and (length, above) == (6, 6)
    assert one.usual == pytest.approx(6 * 200, rel=0.15) and one.events == round(reads[34:].sum())


def test_sentences_of_a_run() -> None:
    """How much more than usual, over how many days, in both languages; bytes, calls, and nothing expected."""
    reads = normal_reads(40)
    reads[34:] += 130
    both = {one.kind: one for one in signals_of(days(reads, size=4.0))}
    assert set(both) == set(LOW_AND_SLOW)
    (finding,) = correlate_signals(both.values())
    english = describe(finding)
    over, read = both["drip_bytes"].parts[0][1] / 1e9, both["drip_bytes"].events / 1e9
    usual = (both["drip_bytes"].usual or 0) / 1e9
    assert english.what == "called GetObject 830 times more than usual on payroll-archive over 6 days"
    only_bytes = describe(correlate_signals([both["drip_bytes"]])[0])
    assert only_bytes.what == f"read {over:.1f} GB more than usual from payroll-archive over 6 days"
    reason = f"{read:.1f} GB from payroll-archive in 6 days; usually {usual:.1f} GB (1.7x the usual amount, every day)"
    assert reason in english.reasons
    assert any(
        reason.startswith("GetObject ") and "times on payroll-archive in 6 days" in reason for reason in english.reasons
    )
    korean = describe(finding, "ko")
    assert korean.what == "6일 동안 payroll-archive에 GetObject를 평소보다 830회 더 호출함"
    reason = f"6일 동안 payroll-archive에서 {read:.1f} GB 읽음, 평소 {usual:.1f} GB (평소의 1.7배, 매일)"
    assert reason in korean.reasons
    assert finding.techniques == ["T1030", "T1530"] and "payroll-archive" in finding.query
    none = both["drip_bytes"]._replace(usual=0.0, parts=(("over", 9e9, 7, 5),))
    described = describe(Finding("f", ROLE_ARN, 0.5, 0, 9, (none,)))
    assert "(normally none, on 5 of them)" in described.reasons[0]
    assert "(평소에는 없던 일, 그중 5일)" in describe(described, "ko").reasons[0]


def test_one_key_pattern() -> None:
    """One key pattern among many, while the bucket hardly changes. If others lose as much, there is no signal."""
    users, others = normal_reads(42, 40, 2), normal_reads(42, 300, 3)
    users[35:] += 40
    (one,) = signals_of(days(users + others, kinds={"users/{uuid}.png": users, "catalog/{n}.webp": others}))
    assert one.value == f"{BUCKET}/users/{{uuid}}.png" and one.resource_arn == BUCKET
    assert "payroll-archive/users/{uuid}.png" in describe(correlate_signals([one])[0]).title
    others[35:] -= 40
    assert signals_of(days(users + others, kinds={"users/{uuid}.png": users, "catalog/{n}.webp": others})) == []
    new = np.where(np.arange(42) < 35, 0, others)
    assert signals_of(days(others, kinds={"catalog/{n}.webp": others - new, "v2/{n}.webp": new})) == []


def test_reads_of_what_was_only_written() -> None:
    """A role that knew the bucket and never read it; a bucket that is new to it is left to first-seen signals."""
    reads = np.zeros(40)
    reads[30:] = 12
    (one,) = signals_of(days(reads, size=30.0))[:1]
    assert one.kind == "drip_bytes" and one.usual is not None and one.usual < 1e6
    before = [day_of(number, [line(CALLER, 500)]) for number in range(30)]
    assert signals_of(iter([*before, *(day for day in days(reads) if day.day >= MONDAY + 30)])) == []


@pytest.mark.parametrize("seed", range(4))
def test_lookalikes(seed: int) -> None:
    """Chance, a weekly rhythm, steady growth, one large day, a week of a new role, and gaps of all kinds."""
    week = (1.2, 1, 1, 1, 0.9, 0.2, 0.1)
    assert signals_of(days(normal_reads(120, 200, seed))) == []
    assert signals_of(days(normal_reads(120, 200, seed, week))) == []
    assert signals_of(days(normal_reads(120, 200, seed, (0, 0, 0, 0, 0, 0, 5)))) == [], "a weekly job"
    growth = np.exp(0.01 * np.arange(120))
    assert signals_of(days(np.random.default_rng(seed).poisson(200 * growth).astype(float))) == []
    large = normal_reads(60, 200, seed)
    large[40] *= 50
    assert signals_of(days(large)) == []
    assert signals_of(days(normal_reads(13, 200, seed) * np.linspace(1, 6, 13))) == []
    gap = normal_reads(90, 200, seed, week)
    gap[30:41] = np.nan  # nothing was delivered
    gap[60:64] *= 0.3  # a part of it
    assert signals_of(days(gap)) == []


def test_more_of_everything_is_not_reported() -> None:
    """If everything that a role does grows by half, it has more work; if only its reads grow, it has not."""
    more = normal_reads(60)
    more[40:] *= 1.6
    rest = np.where(np.arange(60) < 40, 500.0, 800.0)
    assert signals_of(days(more, rest)) == []
    assert len(signals_of(days(more, 500.0))) == 1


def test_lasting_step_becomes_the_new_normal() -> None:
    """A new level is reported once, for two weeks; a further one is news. A run that ends is forgotten."""
    step = normal_reads(120)
    step[40:] *= 1.8
    step[90:] *= 1.8
    first, second = signals_of(days(step))
    assert first.first_time == (MONDAY + 40) * DAY and first.goes_on == (MONDAY + 54) * DAY - 1
    assert second.first_time == (MONDAY + 90) * DAY
    twice = normal_reads(120)
    twice[40:48] *= 1.8
    twice[60:68] *= 1.8
    assert [((one.goes_on or 0) + 1) // DAY - MONDAY for one in signals_of(days(twice))] == [48, 68]


def test_gap_and_quiet_day_do_not_end_a_run() -> None:
    """Days without delivery in the middle, and a quiet day, leave one run."""
    reads = normal_reads(50)
    reads[36:] += 130
    reads[40:43] = np.nan
    (one,) = signals_of(days(reads))
    assert one.first_time == (MONDAY + 36) * DAY and one.parts[0][2] == 11
    reads[45] = 190
    (one,) = signals_of(days(reads))
    assert one.first_time == (MONDAY + 36) * DAY and one.parts[0][2:] == (11, 10)


def test_certainty_grows_with_history() -> None:
    """After two weeks the same run scores less than after forty days; before that, nothing is expected."""
    found = []
    for known in (9, 15, 40):
        reads = normal_reads(known + 8)
        reads[known:] += 200
        found.append(max((one.rarity for one in signals_of(days(reads))), default=0.0))
    assert found[0] == 0 and 0 < found[1] < found[2]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(180, 220), min_size=20, max_size=60), st.integers(0, 59), st.integers(1, 10**6))
def test_one_day_is_not_enough(values: list[int], place: int, much: int) -> None:
    """However large it is and wherever it is."""
    reads = np.array(values, float)
    reads[place % len(values)] += much
    assert signals_of(days(reads, size=1.0)) == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 59))
def test_resuming_gives_the_same(tmp_path_factory: pytest.TempPathFactory, seed: int, cut: int) -> None:
    """Wherever one run stops and another resumes from the lake."""
    rng = np.random.default_rng(seed)
    reads = normal_reads(60, 100, seed) * np.where(rng.random(60) < 0.1, np.nan, 1)
    begin = int(rng.integers(8, 55))
    reads[begin : begin + int(rng.integers(1, 20))] *= 2
    kinds = {"a": np.floor(reads * 0.3), "b": reads - np.floor(reads * 0.3)}
    every = list(days(reads, 300.0, 2.0, kinds))
    whole = signals_of(iter(every))
    lake = tmp_path_factory.mktemp("lake")
    state = State()
    before = signals_of(iter(every[:cut]), state.low_and_slow)
    save(lake, State(low_and_slow=state.low_and_slow, before=1, signals=before))
    held = load(lake, lambda state: True)
    assert held is not None
    assert _latest_of_each([*held.signals, *signals_of(iter(every[cut:]), held.low_and_slow)]) == whole


def test_series_are_bounded() -> None:
    """However many resources appear, the table stays within its bound, and no part stays without its parent."""
    detector = LowAndSlowDetector(DailySeries(bound=60))
    series = detector.series
    for number in range(50):
        lines = [line(CALLER, 100)]
        for i in range(8):
            bucket = f"arn:aws:s3:::b{number * 4 + i}"
            lines += [line(TOUCHES, 9, bucket), line(BYTES, 9, bucket), line(READS, 9, bucket, "GetObject")]
            lines.append(line(PATTERN, 9, bucket, "GetObject", "p"))
        detector.process(day_of(number, lines))
        assert len(series.texts) == len(series.key) == len(series.values) == len(detector.runs) <= 60
        parts = np.flatnonzero(series.kind > TOUCHES)
        assert [series.texts[i][0] for i in parts] == [series.texts[series.parent[i]][0] for i in parts]
    assert series.texts[-1][0] in {f"arn:aws:s3:::b{49 * 4 + i}" for i in range(8)}


def signal(kind: str, day: float, **more: Any) -> Signal:
    """One signal of the role; a low-and-slow one begins on a day and is reported three days later."""
    at = round((MONDAY + day) * DAY)
    given = {"caller": ROLE_ARN, "rarity": 3.0, "value": "x", "events": 100} | more
    if kind in LOW_AND_SLOW:
        given = {"event_name": "GetObject", "resource_arn": BUCKET, "usual": 50.0, "goes_on": at + 9 * DAY} | given
        given |= {"parts": (("over", 50.0, 9.0, 9.0),)} if "parts" not in more else {}
    length = 4 * DAY if kind in LOW_AND_SLOW else HOUR
    return Signal(kind, first_time=at, last_time=at + length - 1, **given)


def test_what_belongs_to_a_run() -> None:
    """The same call or resource before it is reported, and another run; nothing else, and nothing later."""
    drip = signal("drip_bytes", 0)
    (one,) = correlate_signals([drip, signal("first_action", 0.2, event_name="GetObject", resource_arn=BUCKET)])
    assert one.last_time == drip.goes_on and len(one.signals) == 2
    assert len(correlate_signals([drip, signal("more_reads", 3, event_name="GetObject")])) == 1
    assert len(correlate_signals([drip, signal("drip_reads", 2)])) == 1
    assert len(correlate_signals([drip, signal("more_reads", 7, event_name="GetObject")])) == 2
    assert len(correlate_signals([drip, signal("first_network", 1)])) == 2
    assert (
        len(correlate_signals([drip, signal("first_action", 1, event_name="GetObject", resource_arn="arn:aws:s3:::o")]))
        == 2
    )
    twice = correlate_signals([drip, signal("drip_reads", 0)])[0]
    assert twice.score == correlate_signals([drip])[0].score, "bytes and calls of the same run count once"
    places = [Link(role, "192.0.2.0/24", MONDAY * DAY + HOUR, MONDAY * DAY + HOUR) for role in (ROLE_ARN, "b", "c")]
    others = [signal("first_network", 0.05, caller=role) for role in "bc"]
    assert {"b", "c"} <= set(
        max((set(one.callers) for one in correlate_signals([drip, *others], links=places)), key=len)
    )


def test_muting_a_run(tmp_path: Path) -> None:
    """The same amount per day stays muted, however long it lasts; half as much again does not."""
    drip = signal("drip_bytes", 0, events=900)
    said = mark(tmp_path, correlate_signals([drip])[0], "mute", "a new report")
    assert isinstance(said, Verdict) and _amount(drip) == 6
    later = drip._replace(events=9_000, parts=(("over", 78.0, 13.0, 13.0),))
    assert without_muted([later], [said]) == []
    assert without_muted([drip._replace(parts=(("over", 90.0, 9.0, 9.0),))], [said]) != []
    assert _size(correlate_signals([drip._replace(events=10**10)])[0]) == 10_000, "a growing run is reported again"


def test_time_to_detect_counts_the_days_of_a_run() -> None:
    """An incident that only a low-and-slow signal shows is detected when that is reported, not when it began."""
    at = lambda day: f"{datetime(2026, 3, 2) + timedelta(days=day):%Y-%m-%dT%H:%M:%SZ}"  # noqa: E731
    planted = {"kind": "slow", "role_arn": ROLE_ARN, "event_names": ["GetObject"], "resource_arns": [BUCKET]}
    truth = {"incidents": [planted | {"first_time": at(0), "last_time": at(9)}], "start": at(0), "end": at(30)}
    (one,) = judge(correlate_signals([signal("drip_bytes", 0)]), truth).outcomes
    assert one.found and one.delay == pytest.approx(96)
    loud = signal("first_action", 1, event_name="GetObject", resource_arn=BUCKET)
    (one,) = judge(correlate_signals([signal("drip_bytes", 0), loud]), truth).outcomes
    assert one.delay == pytest.approx(24)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Twenty-four quiet days of 13 roles; on the last seven, the web app reads many more avatars."""
    folder = tmp_path_factory.mktemp("drip")
    generate(folder / "logs", Options(events=9_000, days=24, seed=78, roles=13, incidents=False))
    found = [
        one
        for path in (folder / "logs").rglob("*.json.gz")
        for one in json.loads(gzip.decompress(path.read_bytes()))["Records"]
    ]
    pictures = [one for one in found if one["eventName"] == "GetObject" and "/avatar.png" in json.dumps(one)]
    late = sorted({one["eventTime"][:10] for one in found})[-7:]
    more = [
        one | {"eventID": f"{i:04d}{one['eventID'][4:]}"}
        for one in pictures
        if one["eventTime"][:10] in late and "errorCode" not in one
        for i in range(4)
    ]
    return sorted([*found, *more], key=lambda one: (one["eventTime"], one["eventID"]))


def ingested(lake: Path, batch: Sequence[Record], rules: str | None = None) -> None:
    """Ingest records in small batches, optionally with rules."""
    path = lake.parent / f"{lake.name}-batch.json"
    for begin in range(0, len(batch), 3_000):
        path.write_text(json.dumps({"Records": batch[begin : begin + 3_000]}))
        chosen = ["--rules", str(path.with_suffix(".toml"))] if rules else []
        path.with_suffix(".toml").write_text(rules or "")
        assert main(["ingest", str(path), "--lake", str(lake), "--quiet", "--json", *chosen]) == 0


def slow_findings(lake: Path, **more: Any) -> list[Finding]:
    """Findings with a low-and-slow signal."""
    with DuckDBEngine(open_snapshot(lake)) as engine:
        found = detect(engine, DetectOptions(budget=0, **more)).findings
    return [one for one in found if any(signal.kind in LOW_AND_SLOW for signal in one.signals)]


def test_run_in_a_lake_is_one_finding_however_events_arrive(records: list[Record], tmp_path: Path) -> None:
    """Detection every day, late events: one finding that keeps its id as it grows, and ends up the same."""
    rng = random.Random(os.environ.get("TRAILSIFT_TEST_SEED", "4"))
    whole, lake = tmp_path / "whole", tmp_path / "lake"
    ingested(whole, records)
    (once,) = slow_findings(whole)
    assert once.resource_arn is not None and once.resource_arn.endswith("-media")
    assert "more than usual on kelp-orders-media" in once.title and "web-instance" in once.title
    assert any("/users/{uuid}/avatar.png" in one.value for one in once.signals)
    order = sorted(
        records,
        key=lambda one: (
            datetime.fromisoformat(one["eventTime"]).timestamp()
            + (rng.random() * 600 if rng.random() < 0.97 else rng.random() * 2 * 86_400)
        ),
    )
    last = datetime.fromisoformat(records[-1]["eventTime"])
    ids, ends, low = [], [], 0
    for back in range(6, -1, -1):
        until = f"{last - timedelta(days=back):%Y-%m-%dT%H:%M:%SZ}"
        high = len(order) if not back else next(i for i, one in enumerate(order) if one["eventTime"] > until)
        ingested(lake, order[low:high])
        low = high
        found = slow_findings(lake)
        assert len(found) <= 1
        ids += [one.id for one in found]
        ends += [one.last_time for one in found]
    assert len(ids) >= 3 and len(set(ids)) == 1 and ends == sorted(ends) and len(set(ends)) >= 2
    (grown,) = slow_findings(lake)
    assert {**grown.as_dict(), "id": ""} == {**once.as_dict(), "id": ""}
    shutil.rmtree(lake / "findings")
    assert [one.reasons for one in slow_findings(lake)] == [once.reasons]


def test_run_in_a_sampled_lake(records: list[Record], tmp_path: Path) -> None:
    """Summaries count reads that rules drop or sample."""
    rule = '[[rule]]\nname = "reads"\nwhen = { event_name = "GetObject" }\naction = "sample"\nrate = 0.02\n'
    ingested(tmp_path / "whole", records)
    ingested(tmp_path / "thin", records, rule)
    (whole,), (thin,) = (slow_findings(tmp_path / name) for name in ("whole", "thin"))
    assert thin.title == whole.title and thin.score == whole.score


def test_run_at_the_command_line(records: list[Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its level and without, in both languages, down to its events, and muted."""
    lake = tmp_path / "lake"
    ingested(lake, records)
    capsys.readouterr()
    at = ["--lake", str(lake), "--json"]

    def asked(*more: str) -> list[Record]:
        assert main(["detect", *at, *more]) == 0
        return [one for one in json.loads(capsys.readouterr().out)["findings"] if "T1030" in one["techniques"]]

    (one,) = asked()
    assert "more than usual on" in one["title"] and one["event_names"] == ["GetObject"]
    (korean,) = asked("--lang", "ko")
    assert "평소보다" in korean["title"] and "일 동안" in korean["title"]
    assert asked("--levels", "shapes")[0]["id"] == one["id"]
    assert asked(*(word for level in ("novel", "volume", "detections") for word in ("--levels", level))) == []
    assert main(["query", one["query"], "--lake", str(lake), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    planted = {record["eventID"] for record in records if record["eventID"][:4] in ("0000", "0001", "0002", "0003")}
    assert len(planted & {row["event_id"] for row in rows}) > 0.6 * len(planted)
    assert {row["resource_arn"] for row in rows} == {one["resource_arn"]}
    assert main(["mute", one["id"], "--lake", str(lake), "--reason", "a new page of people"]) == 0
    capsys.readouterr()
    assert asked() == []
