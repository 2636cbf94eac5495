"""Findings as a lake grows: many runs give the result of one run, ids are stable, and odd input does no harm."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trailsift.cli import main
from trailsift.detect import detection_rules, finding_ids, signals
from trailsift.detect.correlate import correlate_signals
from trailsift.detect.detection_file import Detection
from trailsift.detect.finding import Finding, Link, Signal
from trailsift.detect.follow import follow
from trailsift.detect.pipeline import DetectionResult, DetectOptions, detect
from trailsift.detect.rescore import _highest
from trailsift.errors import LakeError
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.times import DAY, HOUR

Record = dict[str, Any]
CHOSEN = detection_rules.builtin_rules()[0]
#: Where it does not matter which detections there are: they take half of the time.
FEW = CHOSEN[::6]
NIGHT = "2026-03-13T20:00:00+00:00"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Twelve days of 13 roles with incidents, in order of time."""
    return made(tmp_path_factory.mktemp("logs"), Options(events=6_000, days=12, seed=77, roles=13))


@pytest.fixture(autouse=True)
def nothing_misfits(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Detection that fails on its own state, and then reads all days again, is an error here."""
    yield
    assert [record.getMessage() for record in caplog.records if "fits nothing" in record.getMessage()] == []


def made(folder: Path, options: Options) -> list[Record]:
    """Generated records in order of time."""
    generate(folder / "logs", options)
    paths = (folder / "logs").rglob("*.json.gz")
    found = [one for path in paths for one in json.loads(gzip.decompress(path.read_bytes()))["Records"]]
    return sorted(found, key=lambda one: (one["eventTime"], one["eventID"]))


def load(lake: Path, batch: Sequence[Record]) -> None:
    """Ingest records as one batch."""
    path = lake.parent / f"{lake.name}-batch.json"
    for begin in range(0, len(batch), 3_000):  # so small that no worker process is started
        path.write_text(json.dumps({"Records": batch[begin : begin + 3_000]}))
        ingest([str(path)], lake)


def run(lake: Path, rules: Sequence[Detection] = CHOSEN, **more: Any) -> DetectionResult:
    """All levels over the newest state of a lake, including weak findings."""
    with DuckDBEngine(open_snapshot(lake)) as engine:
        return detect(engine, DetectOptions(budget=0, least=0.2, **more), rules)


def plain(found: Sequence[Finding]) -> list[Record]:
    """Findings without their ids."""
    return [{name: value for name, value in one.as_dict().items() if name != "id"} for one in found]


def moved(batch: Sequence[Record], by: timedelta, mark: str) -> list[Record]:
    """Copies of records at another time, as other events."""
    return [
        one
        | {
            "eventID": mark + one["eventID"][len(mark) :],
            "eventTime": f"{datetime.fromisoformat(one['eventTime']) + by:%Y-%m-%dT%H:%M:%SZ}",
        }
        for one in batch
    ]


def role_of(record: Record) -> str | None:
    """The role of a record."""
    issuer = record["userIdentity"].get("sessionContext", {}).get("sessionIssuer", {})
    return issuer.get("arn") or record["userIdentity"].get("arn")


@pytest.fixture(scope="module")
def whole(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of all records."""
    lake = tmp_path_factory.mktemp("whole") / "lake"
    load(lake, records)
    return lake


def test_many_runs_give_the_result_of_one_run(records: list[Record], whole: Path, tmp_path: Path) -> None:
    """Events in order of delivery, some of them days late, in random batches, a run after each."""
    rng = random.Random(os.environ.get("TRAILSIFT_TEST_SEED", "3"))
    most = rng.choice((1.5, 6))

    def delivered(one: Record) -> float:
        late = rng.random() * 900 if rng.random() < 0.97 else rng.random() * most * 86_400
        return datetime.fromisoformat(one["eventTime"]).timestamp() + late

    order = sorted(records, key=delivered)
    cuts = sorted(rng.sample(range(1, len(order)), 3))
    before: set[str] = set()
    read = []
    for low, high in zip([0, *cuts], [*cuts, len(order)], strict=True):
        load(tmp_path / "lake", order[low:high])
        found = run(tmp_path / "lake")
        read.append(found.days)
        ids = {name for one in found.findings for name in (one.id, *one.also)}
        strong = {one.id for one in found.findings if one.score >= 0.4}
        assert before <= ids, "a reported id always refers to a finding"
        before = strong
    assert plain(found.findings) == plain(run(whole, afresh=True).findings)
    assert len(found.findings) > 10
    assert min(read[1:]) < 12, "not everything is read each time"
    shutil.rmtree(tmp_path / "lake" / "findings")
    assert plain(run(tmp_path / "lake").findings) == plain(found.findings)


def test_only_what_changed_is_read(records: list[Record], whole: Path, tmp_path: Path) -> None:
    """Nothing new: the last days. An old event: everything. A wrong or damaged checkpoint: everything, no error."""
    lake = tmp_path / "lake"
    load(lake, records[:-200])
    first = run(lake, FEW)
    assert first.days >= 12
    again = run(lake, FEW)
    assert again.days == 0 and plain(again.findings) == plain(first.findings), "no commit, no look"
    load(lake, records[-200:])
    assert 0 < run(lake, FEW).days <= 4
    again = run(lake, FEW)
    state = lake / "findings" / "habits.npz"
    for damage in (b"", state.read_bytes()[:5_000]):
        state.write_bytes(damage)
        (lake / "findings" / "last.json").write_bytes(damage)
        mended = run(lake, FEW)
        assert mended.days >= 12 and plain(mended.findings) == plain(again.findings)
    load(lake, moved(records[:1], timedelta(hours=1), "late"))
    assert run(lake, FEW).days >= 12
    # Compaction moves rows between files and does not change any day.
    assert main(["compact", "--lake", str(lake), "--json"]) == 0
    assert 0 < run(lake, FEW).days <= 3


def test_lake_that_cannot_be_written(records: list[Record], tmp_path: Path) -> None:
    """Findings are reported all the same."""
    lake = tmp_path / "lake"
    load(lake, records[:3_000])
    (lake / "findings").write_text("in the way")
    assert plain(run(lake, FEW).findings) == plain(run(lake, FEW, afresh=True).findings)


def test_clock_that_jumps(records: list[Record], whole: Path, tmp_path: Path) -> None:
    """Events of the far future and past, and an hour that occurs twice, cause no other findings."""
    lake = tmp_path / "lake"
    shutil.copytree(whole, lake)
    (lake / "lake.json").write_text((lake / "lake.json").read_text().replace(str(whole), str(lake)))
    assert main(["relocate", "--lake", str(lake)]) == 0
    before = run(lake)
    ids = {one.id for one in before.findings if one.score >= 0.4}
    some = records[3_000:3_040]
    noon = [one for one in records if one["eventTime"].startswith("2026-03-11T05")]
    odd = [
        *moved(some, timedelta(days=45), "f0"),
        *moved(some, timedelta(days=-4_000), "f1"),
        *moved(noon, timedelta(0), "f2"),
    ]
    load(lake, odd)
    after = run(lake)
    assert ids <= {name for one in after.findings for name in (one.id, *one.also)}
    # One more day of experience lifts borderline findings; detections also match on odd days.
    more = [one for one in after.findings if one.score >= 0.43 and one.id not in ids]
    assert all(one.signals[0].kind == "detection" for one in more), [one.title for one in more]
    load(lake, moved(records[-50:], timedelta(minutes=5), "f3"))
    assert run(lake).days <= 5, "an event from the future does not make later days late"


@pytest.mark.parametrize("days", [1, 2])
def test_too_little_history(tmp_path: Path, days: int) -> None:
    """With a day or two, only detections report anything."""
    load(tmp_path / "lake", made(tmp_path, Options(events=1_500, days=days, seed=5, roles=13, incidents=False)))
    with DuckDBEngine(open_snapshot(tmp_path / "lake")) as engine:
        found = detect(engine, DetectOptions(budget=0), CHOSEN).findings
    assert all(one.signals[0].kind == "detection" for one in found), [one.title for one in found]


def test_one_role_with_nearly_all_traffic(records: list[Record], tmp_path: Path) -> None:
    """It hides nothing: a small role from an unknown network is found, and the large one is not found for its size."""
    large = made(tmp_path, Options(events=12_000, days=12, seed=6, roles=1, incidents=False))
    share = Counter(role_of(one) for one in large)
    small = [one for one in records if "etl-batch" in str(role_of(one)) and not one["eventTime"] > NIGHT[:10]]
    small = small[:: max(1, len(small) // 110)]
    begin = datetime.fromisoformat(NIGHT) - datetime.fromisoformat(small[-1]["eventTime"])
    stolen = [one for i in range(40) for one in moved(small[-1:], begin + timedelta(minutes=i), f"aa{i:02d}")]
    for one in stolen:
        one["sourceIPAddress"] = "192.88.99.7"
    load(tmp_path / "lake", sorted([*large, *small, *stolen], key=lambda one: str(one["eventTime"])))
    assert share.most_common(1)[0][1] > 0.98 * (len(large) + len(small))
    with DuckDBEngine(open_snapshot(tmp_path / "lake")) as engine:
        found = detect(engine, DetectOptions(), CHOSEN).findings
    assert role_of(stolen[0]) in [one.caller for one in found if "192.88.99.0/24" in " ".join(one.reasons)]
    assert len([one for one in found if one.caller == share.most_common(1)[0][0]]) <= 3


def test_roles_of_one_attacker_are_one_finding(
    records: list[Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three roles from one unknown network within hours: one finding that names them, and another one stays apart."""
    quiet = [one for one in records if one["eventTime"] < "2026-03-12"]
    busy = [role for role, count in Counter(map(role_of, quiet)).most_common() if role and count > 40][:4]
    begin = datetime.fromisoformat("2026-03-12T03:00:00+00:00")
    planted = []
    for number, role in enumerate(busy):
        own = [one for one in quiet if role_of(one) == role][-10:]
        for i, one in enumerate(own):
            at = begin + timedelta(hours=2 * number, minutes=5 * i) - datetime.fromisoformat(one["eventTime"])
            address = "192.88.99.7" if number < 3 else "192.31.196.9"
            planted += [one | {"sourceIPAddress": address} for one in moved([one], at, f"b{number}{i}")]
    load(tmp_path / "lake", quiet)
    run(tmp_path / "lake")
    load(tmp_path / "lake", planted[:20])
    two = next(one for one in run(tmp_path / "lake").findings if len(one.callers) > 1)
    load(tmp_path / "lake", planted[20:])
    found = run(tmp_path / "lake").findings
    attack = next(one for one in found if one.id == two.id)
    assert set(two.callers) == set(busy[:2]) and set(attack.callers) == set(busy[:3])
    alone = [one for one in found if busy[3] in one.callers and one.first_time >= 20_524 * DAY]
    assert [one.callers for one in alone] == [(busy[3],)]
    assert main(["finding", two.id, "--lake", str(tmp_path / "lake"), "--records", "--limit", "0"]) == 0
    shown = {json.loads(line)["eventID"] for line in capsys.readouterr().out.splitlines()}
    assert {one["eventID"] for one in planted[:30]} <= shown
    assert main(["detect", "--lake", str(tmp_path / "lake"), "--json"]) == 0
    (reported,) = [one for one in json.loads(capsys.readouterr().out)["findings"] if one["id"] == two.id]
    assert reported["role_arn"] == reported["role_arns"][0] and len(reported["role_arns"]) == 3
    assert sum(str(role).rpartition("/")[2] in reported["title"] for role in busy[:3]) == 3


def signal(role: str, hour: float, kind: str = "first_network", rarity: float = 3.0, **more: Any) -> Signal:
    """One signal."""
    at = round(hour * HOUR)
    return Signal(kind, role, rarity, at, at + HOUR - 1, more.pop("value", "x"), 9, **more)


def link(role: str, hour: float, value: str = "192.0.2.0/24") -> Link:
    """A role came from an origin."""
    return Link(role, value, round(hour * HOUR), round(hour * HOUR) + 60)


def roles_of(found: Sequence[Finding]) -> list[set[str | None]]:
    """The roles of each finding."""
    return sorted((set(one.callers) for one in found), key=str)


def test_what_merges_roles() -> None:
    """The same new origin within hours, or severe detections on one resource; nothing else."""
    two = [signal("a", 1), signal("b", 3)]
    assert roles_of(correlate_signals(two)) == [{"a"}, {"b"}]
    assert roles_of(correlate_signals(two, links=[link("a", 1), link("b", 3)])) == [{"a", "b"}]
    assert roles_of(correlate_signals(two, links=[link("a", 1), link("b", 3, "198.51.100.0/24")])) == [{"a"}, {"b"}]
    assert roles_of(correlate_signals([signal("a", 1), signal("b", 30)], links=[link("a", 1), link("b", 30)])) == [
        {"a"},
        {"b"},
    ]
    chain = [signal("a", 1), signal("b", 3), signal("c", 6), signal("d", 6)]
    assert roles_of(correlate_signals(chain, links=[link("a", 1), link("b", 3), link("c", 6)])) == [
        {"a", "b", "c"},
        {"d"},
    ]
    silent = correlate_signals([signal("a", 1)], links=[link("a", 1), link("new", 2)])
    assert silent[0].caller == "a" and silent[0].callers == ("a", "new") and "'new'" in silent[0].query
    bad = lambda role, hour, rarity: signal(  # noqa: E731
        role, hour, "detection", rarity, rule=role, resource_arn="arn:aws:s3:::b", mitre=("T1486",)
    )
    assert roles_of(correlate_signals([bad("a", 1, 17), bad("b", 3, 17)])) == [{"a", "b"}]
    assert roles_of(correlate_signals([bad("a", 1, 2.5), bad("b", 3, 2.5)])) == [{"a"}, {"b"}]
    of_one = correlate_signals([bad("a", 1, 17), signal("a", 2), signal("a", 2, "detection", 5.6, rule="other")])
    assert len(of_one) == 1 and of_one[0].techniques[0] == "T1486" and len(of_one[0].signals) == 3
    weeks = correlate_signals([signal("a", 40 * i) for i in range(9)], links=[link("a", 40 * i) for i in range(9)])
    assert len(weeks) == 9


def finding(id_: str, roles: Sequence[str], first: int, last: int) -> Finding:
    """A finding of some roles and hours."""
    return Finding(id_, roles[0], 0.7, first, last, (), callers=tuple(roles), span=(first, last))


def test_ids_stay() -> None:
    """An earlier begin, another leading role, two that merge and one that splits."""
    first, known_names = finding_ids.give([finding("f1", "a", 10, 20), finding("f2", "b", 12, 30)], [])
    assert [one.id for one in first] == ["f1", "f2"]
    earlier, known_names = finding_ids.give([finding("g1", ["c", "a"], 5, 15), finding("g2", "b", 12, 40)], known_names)
    assert [one.id for one in earlier] == ["f1", "f2"]
    one, both = finding_ids.give([finding("h", ["b", "a", "c"], 5, 40)], known_names)
    assert one[0].id == "f1" and one[0].also == ("f2",) and {name.id for name in both} == {"f1", "f2"}
    apart, _ = finding_ids.give([finding("i1", "a", 5, 20), finding("i2", "b", 12, 40)], both)
    assert [one.id for one in apart] == ["f1", "f2"]
    other, more = finding_ids.give([finding("f1", "z", 900, 910), finding("k", "a", 5, 20)], known_names)
    assert other[0].id not in ("f1", "f2") and other[1].id == "f1" and len(more) == 3
    assert len({name.id for name in more}) == 3


#: Role, begin and length. A role has one finding per time range.
_FOUND = st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(0, 9))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(_FOUND, max_size=6, unique=True)))
def test_ids_are_never_given_twice(rounds: list[list[tuple[str, int, int]]]) -> None:
    """Whatever findings come and go: one id each, and ids stay known."""
    known_names: list[finding_ids.KnownFinding] = []
    for number, of_round in enumerate(rounds):
        found = [finding(f"f{number}{i}", role, at, at + long) for i, (role, at, long) in enumerate(of_round)]
        out, after = finding_ids.give(found, known_names)
        ids = [one.id for one in out] + [name for one in out for name in one.also]
        assert len(set(ids)) == len(ids)
        assert [name.id for name in after][: len(known_names)] == [name.id for name in known_names]
        assert {one.id for one in out} <= {name.id for name in after}
        again, same = finding_ids.give(out, after)
        assert [one.id for one in again] == [one.id for one in out] and len(same) == len(after)
        known_names = after


def test_ids_are_kept_in_the_lake(tmp_path: Path) -> None:
    """From run to run, up to a maximum; a damaged file is reported."""
    found = [finding(f"f{i}", "a", 100 * i, 100 * i + 5) for i in range(finding_ids.KEPT + 50)]
    assert [one.id for one in finding_ids.named(tmp_path, found)] == [one.id for one in found]
    assert len(json.loads((tmp_path / "findings" / "ids.json").read_text())) == finding_ids.KEPT
    late = finding_ids.named(
        tmp_path, [finding("x", ["b", "a"], 100 * finding_ids.KEPT - 3, 100 * finding_ids.KEPT + 1)]
    )
    assert late[0].id == f"f{finding_ids.KEPT}"
    (tmp_path / "findings" / "ids.json").write_text("[[1]]")
    with pytest.raises(LakeError, match=r"ids\.json is damaged"):
        finding_ids.named(tmp_path, found)


def test_signals_are_bounded(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept."""
    with DuckDBEngine(open_snapshot(whole)) as engine:
        everything = signals.collect_signals(engine, save=False, afresh=True).signals
        monkeypatch.setattr(signals, "MAX_SIGNALS", 20)
        newest = signals.collect_signals(engine, save=False, afresh=True).signals
    assert len(everything) > 20 == len(newest)
    assert min(one.first_time for one in newest) >= sorted(one.first_time for one in everything)[-20]
    rows = [detection_rules.RuleMatch("1", f"r{i}", "G", None, i, i, 1, i, 1) for i in range(signals.MAX_MATCHES + 9)]
    assert len(signals._newest_matches(rows)) == signals.MAX_MATCHES and signals._newest_matches(rows)[0].caller == "r9"


def test_hours_without_delivery_are_unknown(whole: Path) -> None:
    """After a gap, ordinary activity is not a surge; after really silent hours, it is."""
    rng = np.random.default_rng(1)
    values = {hour: int(rng.poisson(400)) for hour in range(14 * 24 + 1)}
    gap = {hour for hour in values if 12 * 24 <= hour < 14 * 24 - 2}
    left = {hour: value for hour, value in values.items() if hour not in gap}
    end = 14 * 24
    back = Signal("more_reads", "a", 2.0, end * HOUR, (end + 1) * HOUR - 1, "GetObject", 400, 3, "GetObject")
    assert _highest(back, left, set(left)) < 0.5
    assert _highest(back, left, set(left)) <= _highest(back, left, set(values))


def test_after_an_ingest_and_following(
    records: list[Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ingest --detect` reports what is new and never fails because of it; `follow` runs once per commit."""
    lake, path = tmp_path / "lake", tmp_path / "a.json"
    path.write_text(json.dumps({"Records": records[:4_000]}))
    assert main(["ingest", str(path), "--lake", str(lake), "--detect", "--json"]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["stored"] == 4_000 and "new findings; all findings: trailsift detect" in out.err
    (lake / "findings" / "ids.json").write_text("{")
    path.write_text(json.dumps({"Records": records[4_000:4_100]}))
    assert main(["ingest", str(path), "--lake", str(lake), "--detect", "--json"]) == 0
    assert "detection failed" in capsys.readouterr().err
    (lake / "findings" / "ids.json").unlink()
    seen: list[int] = []
    waits = iter([None, None, "commit", None, "move", "move", "back"])

    def wait(_: float) -> None:
        what = next(waits)
        if what == "commit":
            load(lake, records[4_100:4_200])
        elif what == "move" and lake.exists():
            lake.rename(tmp_path / "elsewhere")
        elif what == "back":
            (tmp_path / "elsewhere").rename(lake)

    troubles: list[LakeError] = []
    with pytest.raises((StopIteration, RuntimeError)):
        for seq in follow(lake, lambda engine: engine.snapshot.seq, 1, wait, troubles.append):
            seen.append(seq)
    assert len(seen) == 2 and seen[1] > seen[0] and len(troubles) == 1
    with pytest.raises(LakeError):
        next(follow(tmp_path / "none", lambda engine: None, 1, wait))
    assert main(["detect", "--lake", str(lake), "--follow", "--every", "0"]) == 2


def test_check_needs_no_lake(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--check` only reads detection files; without it, a lake is required."""
    monkeypatch.delenv("TRAILSIFT_LAKE", raising=False)
    assert main(["detect", "--check"]) == 0
    assert main(["detect"]) == 2
    assert "which lake?" in capsys.readouterr().err
