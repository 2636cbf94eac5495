"""The measurement on real logs: attacks are moved whole, and findings are judged by what they name."""

from __future__ import annotations

import gzip
import importlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from support.paths import ROOT
from trailsift.detect.finding import Finding, Signal

BENCH = ROOT / "bench"
THIEF = "arn:aws:iam::111111111111:user/thief"
VICTIM = "arn:aws:iam::222222222222:user/victim"


class Bench(NamedTuple):
    """The modules of the measurement."""

    sets: ModuleType
    judge: ModuleType
    attacks: ModuleType
    lakes: ModuleType
    invented: ModuleType
    page: ModuleType


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCH), *sys.path])
        yield Bench(*(importlib.import_module(f"real_{name}") for name in Bench._fields))


def record(number: int, name: str, time: str, arn: str = THIEF, **more: Any) -> dict[str, Any]:
    account = arn.split(":")[4]
    return {
        "eventVersion": "1.08",
        "userIdentity": {"type": "IAMUser", "arn": arn, "accountId": account, "userName": arn.rpartition("/")[2]},
        "eventTime": time,
        "eventID": f"id-{number}",
        "eventName": name,
        "eventSource": "secretsmanager.amazonaws.com",
        "awsRegion": "us-east-1",
        "sourceIPAddress": "198.51.100.9",
        "userAgent": "aws-cli/2.13.0",
        "recipientAccountId": account,
    } | more


def session(number: int, address: str, agent: str) -> dict[str, Any]:
    role = "arn:aws:iam::111111111111:role/web"
    who = {
        "type": "AssumedRole",
        "arn": "arn:aws:sts::111111111111:assumed-role/web/i-0abc",
        "accountId": "111111111111",
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": role}},
    }
    time = f"2023-07-10T12:00:{number:02}Z"
    return record(number, "GetObject", time, userIdentity=who, sourceIPAddress=address, userAgent=agent)


@pytest.fixture
def genuine(tmp_path: Path) -> Path:
    """A folder with one set: nine calls by the thief, one by another."""
    records = [
        record(n, "GetSecretValue", f"2023-07-10T12:00:{n:02}Z", requestParameters={"secretId": f"stratus-{n}"})
        for n in range(9)
    ]
    records += [record(9, "GetSecretValue", "2023-07-10T12:00:30Z", "arn:aws:iam::111111111111:user/other")]
    records += [record(10, "ListUsers", "2023-07-10T12:00:31Z")]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "records.json.gz").write_bytes(gzip.compress(json.dumps({"Records": records}).encode()))
    return tmp_path


def kind(bench: Bench) -> Any:
    span = ("2023-07-10T12:00:00Z", "2023-07-10T12:01:00Z")
    return bench.attacks.AttackKind("secrets", "set", *span, "user", ("GetSecretValue",))


def test_sizes_of_an_attack(bench: Bench, genuine: Path) -> None:
    counts = {
        size: len(bench.attacks.records_of_attack(kind(bench), genuine, size, random.Random(1)))
        for size in bench.attacks.SIZES
    }
    assert counts == {"a third": 3, "its calls": 9, "everything": 10}


def test_moved_records_are_the_victims_own(bench: Bench, genuine: Path) -> None:
    identity = {"type": "IAMUser", "arn": VICTIM, "accountId": "222222222222", "userName": "victim"}
    victim = bench.attacks.Victim("another", VICTIM, identity)
    rng = random.Random(1)
    source = bench.attacks.records_of_attack(kind(bench), genuine, "its calls", rng)
    begin = bench.sets.micros("2024-02-02T20:00:00Z")
    moved = bench.attacks.move(source, victim, "222222222222", begin, rng)
    text = json.dumps(moved)
    assert "111111111111" not in text and "thief" not in text and "stratus" not in text
    assert {bench.sets.caller_arn(one) for one in moved} == {VICTIM}
    assert [one["eventTime"][11:] for one in moved] == [f"20:00:{n:02}Z" for n in range(9)]
    assert len({one["eventID"] for one in moved} - {one["eventID"] for one in source}) == 9


def test_stolen_session_has_another_network_and_client(bench: Bench) -> None:
    span = bench.sets.micros("2023-07-10T12:00:00Z"), bench.sets.micros("2023-07-10T13:00:00Z")
    own = [session(1, "198.51.100.9", "aws-sdk-go/1.4"), session(2, "198.51.100.9", "Go-http-client/1.1")]
    moved_instance = session(3, "203.0.113.5", "aws-sdk-go/1.4")
    stolen = session(4, "203.0.113.7", "aws-cli/2.1")
    assert not bench.sets.stolen_sessions([*own, moved_instance], *span)
    assert bench.sets.stolen_sessions([*own, stolen], *span) == {"arn:aws:iam::111111111111:role/web", "user:i-0abc"}


def finding(bench: Bench, name: str, caller: str, time: str) -> Finding:
    at = bench.sets.micros(time)
    signal = Signal("detection", caller, 5.0, at, at, "a title", 1, event_name=name)
    return Finding("f1", caller, 0.7, at, at, (signal,), "somebody did something", callers=(caller,), span=(at, at))


def test_label_wants_its_call_at_its_time(bench: Bench) -> None:
    label = bench.sets.Label("x", "2023-07-10T12:00:00Z", "2023-07-10T12:05:00Z", ("DeleteTrail",))
    named = [
        bench.judge.names(finding(bench, name, THIEF, time), label, [])
        for name, time in (
            ("DeleteTrail", "2023-07-10T12:30:00Z"),
            ("DeleteTrails", "2023-07-10T12:30:00Z"),
            ("DeleteTrail", "2023-07-10T15:30:00Z"),
        )
    ]
    assert named == [True, False, False]


def test_lake_with_a_moved_attack_is_judged(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [
        record(n, "ListSecrets", f"2024-02-0{1 + n // 20}T08:00:{n % 20:02}Z", VICTIM, userAgent="app/1.0")
        for n in range(40)
    ]
    monkeypatch.setattr(bench.lakes, "background_records", lambda *_: before)
    ransom = bench.attacks.INVENTED_KINDS[0]
    draw = bench.lakes.Draw(ransom, "benign-a", 1, "the busiest", "unusual", "a third", 7)
    outcome = bench.lakes.examine(draw, tmp_path, tmp_path, tmp_path / "work")
    assert outcome.records == 37
    assert set(outcome.ranks) == set(bench.judge.ABLATIONS) == set(outcome.false)
    assert outcome.ranks["all"] == 1
    assert VICTIM in outcome.hit.callers and outcome.hit.severity == "high"


def test_draws_are_balanced_and_repeatable(bench: Bench) -> None:
    wanted = bench.lakes.draws(60, 5)
    assert wanted == bench.lakes.draws(60, 5) != bench.lakes.draws(60, 6)
    for attribute in ("kind", "days", "victim", "hour", "size"):
        values = [getattr(draw, attribute) for draw in wanted]
        counts = {values.count(value) for value in values}
        assert max(counts) - min(counts) <= 1, attribute


@pytest.mark.parametrize("size", ["a third", "everything"])
def test_invented_attacks_use_what_is_there(bench: Bench, size: str) -> None:
    background = [record(1, "GetObject", "2024-02-01T08:00:00Z", requestParameters={"bucketName": "theirs"})]
    for name in bench.invented.STORIES:
        records = bench.invented.invented_records(name, size, background, random.Random(3))
        assert [one["eventTime"] for one in records] == sorted(one["eventTime"] for one in records)
        text = json.dumps(records)
        assert '"bucketName": "theirs"' in text or name.startswith("table")


def test_sections_are_replaced_and_others_kept(bench: Bench, tmp_path: Path) -> None:
    page = tmp_path / "PAGE.md"
    page.write_text("# Title\n\nAbout.\n\n## One\n\nold\n\n## Two\n\nkept\n")
    bench.page.put_sections(page, {"One": "new", "Three": "more"})
    assert page.read_text() == "# Title\n\nAbout.\n\n## One\n\nnew\n\n## Two\n\nkept\n\n## Three\n\nmore\n"
