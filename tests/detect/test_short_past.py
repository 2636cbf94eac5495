"""Callers with little past: bursts against priors and peers, sessions in two places, the public by network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.records import sample
from trailsift.detect.baseline import BURSTS, Baseline, CallerHours, Cells, Day, FirstSeen
from trailsift.detect.bursts import find_bursts
from trailsift.detect.callers import anonymous_of
from trailsift.detect.daily_data import daily_totals, read_days
from trailsift.detect.finding import Finding, Signal
from trailsift.detect.pipeline import DetectOptions, detect, drill
from trailsift.detect.priors import CALLER_KINDS, kind_of, parse_priors, priors
from trailsift.detect.signals import collect_signals
from trailsift.errors import UsageError
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

Record = dict[str, Any]
BEGIN = datetime(2026, 3, 2, 9, tzinfo=UTC)
USER = {
    "type": "IAMUser",
    "principalId": "AIDAEXAMPLE",
    "arn": "arn:aws:iam::111122223333:user/anna",
    "accountId": "111122223333",
    "accessKeyId": "AKIAEXAMPLE",
}
PUBLIC = {"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"}


def role(name: str, session: str, key: str = "ASIAEXAMPLE") -> Record:
    """The identity of a session of a role."""
    issuer = {"type": "Role", "arn": f"arn:aws:iam::111122223333:role/{name}", "accountId": "111122223333"}
    return {
        "type": "AssumedRole",
        "principalId": f"AROA{name}:{session}",
        "arn": f"arn:aws:sts::111122223333:assumed-role/{name}/{session}",
        "accountId": "111122223333",
        "accessKeyId": key,
        "sessionContext": {"sessionIssuer": issuer},
    }


def read(at: datetime, key: str, user: Record = USER, **changes: Any) -> Record:
    """A GetObject."""
    resources = [
        {"type": "AWS::S3::Object", "ARN": f"arn:aws:s3:::records/{key}"},
        {"accountId": "111122223333", "type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::records"},
    ]
    fields = {
        "eventName": "GetObject",
        "eventTime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "readOnly": True,
        "userIdentity": user,
        "requestParameters": {"bucketName": "records", "key": key},
        "resources": resources,
    }
    return sample(**fields | changes)


def made(folder: Path, records: Iterable[Record]) -> Path:
    """A lake of records, each an event of its own."""
    events = [record | {"eventID": f"e-{number}"} for number, record in enumerate(records)]
    (folder / "log.json").write_text(json.dumps({"Records": events}))
    ingest([str(folder / "log.json")], folder / "lake")
    return folder / "lake"


def found(lake: Path, **options: Any) -> list[Finding]:
    with DuckDBEngine(open_snapshot(lake)) as engine:
        return detect(engine, DetectOptions(budget=0, **options)).findings


def signals_of(lake: Path, kind: str) -> list[Signal]:
    with DuckDBEngine(open_snapshot(lake)) as engine:
        return [signal for signal in collect_signals(engine, save=False).signals if signal.kind == kind]


def burst(user: Record = USER, count: int = 700, seconds: float = 0.15) -> Iterator[Record]:
    for number in range(count):
        yield read(BEGIN + timedelta(seconds=number * seconds), f"patients/{number}.json", user)


def test_a_life_that_is_one_burst_is_a_finding_on_the_first_day(tmp_path: Path) -> None:
    """Hundreds of distinct objects in a minute by a user with a long-term key, and nothing else in the lake."""
    lake = made(tmp_path, burst())
    (finding,) = found(lake)
    signal = finding.signals[0]
    assert (signal.kind, signal.basis, signal.past) == ("burst", "prior", 0)
    assert [name for name, *_ in signal.parts] == ["keys", "pace", "rate"]
    assert 0.4 <= finding.score < 0.75, "with no past at all the score is never high"
    with DuckDBEngine(open_snapshot(lake)) as engine:
        assert len(drill(engine, finding, limit=0).events) == 700


def test_the_same_reads_by_a_role_or_in_a_working_day_are_none(tmp_path: Path) -> None:
    """Programs read as much as that in a minute; people do over a day."""
    (tmp_path / "role").mkdir()
    (tmp_path / "slow").mkdir()
    assert found(made(tmp_path / "role", burst(role("etl", "run"), 400))) == []
    assert found(made(tmp_path / "slow", burst(count=400, seconds=60))) == []


@pytest.mark.parametrize("days", [0, 3, 12])
def test_a_burst_counts_less_the_more_is_known(days: int) -> None:
    baseline = Baseline()
    for number in range(days):
        baseline.learn(day_of(baseline, number, {"anna": {"keys": 140, "pace": 55}}), [])
    (signal,) = find_bursts(baseline, day_of(baseline, days, {"anna": {"keys": 2_000, "pace": 900}}))
    assert signal.past == days
    fresh = Baseline()
    (alone,) = find_bursts(fresh, day_of(fresh, 0, {"anna": {"keys": 2_000, "pace": 900}}))
    assert signal.rarity <= alone.rarity * {0: 1, 3: 0.9, 12: 0.5}[days]


def test_peers_lower_and_raise_what_is_usual() -> None:
    """Ten peers that do as much make it ordinary; ten that do little make half of it a burst."""
    for amount, usual in ((2_000, True), (5, False)):
        baseline = Baseline()
        peers = {f"user-{number}": {"keys": amount, "pace": amount / 2} for number in range(10)}
        baseline.learn(day_of(baseline, 0, peers), [])
        signals = find_bursts(baseline, day_of(baseline, 1, {"anna": {"keys": 900, "pace": 300}}))
        assert [signal.kind for signal in signals] == ([] if usual else ["unlike_peers"])
        assert all(signal.basis == "peers" for signal in signals)


def test_the_own_highest_hour_is_never_a_burst() -> None:
    baseline = Baseline()
    baseline.learn(day_of(baseline, 0, {"anna": {"keys": 5_000, "pace": 1_000}}), [])
    assert find_bursts(baseline, day_of(baseline, 1, {"anna": {"keys": 5_100, "pace": 1_000}})) == []


def day_of(baseline: Baseline, day: int, hours: dict[str, dict[str, float]]) -> Day:
    """A day with one hour of each of some users."""
    callers = np.array([baseline.caller(f"arn:aws:iam::111122223333:user/{name}") for name in hours], np.int64)
    values = np.array([[measures.get(name, 0.0) for name in BURSTS] for measures in hours.values()])
    none, whole = np.zeros(0, np.int64), np.zeros(len(callers), np.int64)
    kinds = np.full(len(callers), CALLER_KINDS.index("user"), np.int8)
    firsts = FirstSeen(none, none, none.astype(np.uint64), none.astype(np.uint64), none, none, none, [], [], [])
    at = CallerHours(callers, kinds, values, whole, whole, whole, ["GetObject"])
    return Day(day, callers, Cells(none, none, none.astype(float)), none, firsts, at)


def place(user: Record, minute: int, address: str, agent: str, **changes: Any) -> Record:
    return read(BEGIN + timedelta(minutes=minute), "a.json", user, sourceIPAddress=address, userAgent=agent, **changes)


def split(user: Record, other: Record | None = None, **changes: Any) -> list[Record]:
    """One session in two places: nine calls in the first, two in the other."""
    home = [place(user, minute, "203.0.113.9", "Boto3/1.37.4") for minute in range(9)]
    return [*home, *(place(other or user, minute, "198.51.100.7", "aws-cli/2.15.0", **changes) for minute in (4, 5))]


def test_credentials_of_an_instance_that_are_used_elsewhere(tmp_path: Path) -> None:
    (finding,) = found(made(tmp_path, split(role("web", "i-0abc"))))
    (signal,) = (signal for signal in finding.signals if signal.kind == "split_session")
    assert (signal.value, signal.events, signal.basis) == ("i-0abc", 2, "day")
    assert [part[:2] for part in signal.parts] == [("203.0.113.0/24, boto3", 9.0), ("198.51.100.0/24, aws-cli/2", 2.0)]
    assert "T1552.005" in finding.techniques and finding.severity == "medium"


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (split(role("web", "i-0abc"), role("web", "i-0def")), "two instances"),
        (split(role("web", "i-0abc"), vpcEndpointId="vpce-1"), "a VPC endpoint has private addresses"),
        ([place(role("web", "i-0abc"), n, f"203.0.{n}.9", "Boto3/1.37.4") for n in range(3)], "one client"),
        (split(role("web", "run"), role("web", "run", "ASIAOTHER")), "one name, two access keys"),
    ],
)
def test_what_is_no_split_session(records: list[Record], why: str, tmp_path: Path) -> None:
    assert signals_of(made(tmp_path, records), "split_session") == [], why


def test_a_session_of_another_role_needs_one_access_key(tmp_path: Path) -> None:
    (signal,) = signals_of(made(tmp_path, split(role("web", "run"))), "split_session")
    assert signal.rarity < 3, "people move with their credentials"


def test_a_place_that_the_caller_knew_is_no_split(tmp_path: Path) -> None:
    day = timedelta(days=1)
    later = [
        record | {"eventTime": f"{datetime.fromisoformat(record['eventTime']) + day:%Y-%m-%dT%H:%M:%SZ}"}
        for record in split(role("web", "i-0abc"))
    ]
    signals = signals_of(made(tmp_path, [*split(role("web", "i-0abc")), *later]), "split_session")
    assert [signal.past for signal in signals] == [0], "the second day is not reported"


def test_the_public_is_judged_by_network(tmp_path: Path) -> None:
    """One network takes thousands of objects, six read a page."""
    records = [
        read(BEGIN + timedelta(seconds=number), f"p/{number}", PUBLIC, sourceIPAddress=f"192.0.{number % 6}.5")
        for number in range(60)
    ]
    records += [
        read(BEGIN + timedelta(seconds=number), f"p/{number}", PUBLIC, sourceIPAddress="198.51.100.77")
        for number in range(6_000)
    ]
    lake = made(tmp_path, records)
    (finding,) = found(lake)
    assert finding.caller == anonymous_of("198.51.100.0/24")
    assert finding.signals[0].basis == "day"
    assert "198.51.100.0/24" in finding.title or "anonymous" in finding.title
    with DuckDBEngine(open_snapshot(lake)) as engine:
        events = drill(engine, finding, limit=0).events
    assert len(events) == 6_000 and {event["source_ip"] for event in events} == {"198.51.100.77"}


def test_a_call_across_accounts_counts_once(tmp_path: Path) -> None:
    """Both accounts log a copy of it; the caller's habits count it once."""
    user = role("etl", "run")
    records = [read(BEGIN + timedelta(seconds=number), f"{number}", user) for number in range(500)]
    copies = [record | {"recipientAccountId": "444455556666", "sharedEventID": "s"} for record in records]
    (tmp_path / "both").mkdir()
    (tmp_path / "owner").mkdir()
    for folder, own in (("both", records), ("owner", [])):
        lake = made(tmp_path / folder, [*own, *copies])
        with DuckDBEngine(open_snapshot(lake)) as engine:
            (day,) = read_days(engine, Baseline(), daily_totals(engine))
        assert sorted(day.cells.value) == [1, 500, 500, 1_024_000], "resources, calls twice, bytes"
        kind = CALLER_KINDS[int(day.hours.kind[0])]
        assert kind == ("role" if folder == "both" else "foreign")


@pytest.mark.parametrize(
    ("caller", "kind"),
    [
        ("arn:aws:iam::111122223333:root", "person"),
        ("arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Admin_0123", "person"),
        ("arn:aws:iam::111122223333:role/etl", "role"),
        ("arn:aws:iam::111122223333:user/anna", "user"),
        ("identity-center:d-1/94482488", "person"),
        ("service:s3.amazonaws.com", "service"),
        ("anonymous", "anonymous"),
        (None, "user"),
    ],
)
def test_kinds_of_callers(caller: str | None, kind: str) -> None:
    assert CALLER_KINDS[kind_of(caller)] == kind
    assert CALLER_KINDS[kind_of("account:444455556666/AIDA", foreign=True)] == "foreign"


def test_priors_are_complete_and_say_where_they_come_from() -> None:
    assert priors().shape == (len(CALLER_KINDS), len(BURSTS)) and (priors() > 0).all()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[person", "not valid TOML"),
        ("[robot]\n", "unknown kind of caller robot"),
        ("[person]\nkeys = {most = 1, source = 'x'}\n", "exactly these measures"),
        ("[person]\n" + "".join(f"{name} = {{most = 0, source = 'x'}}\n" for name in BURSTS), "a positive number"),
        ("[person]\n" + "".join(f"{name} = {{most = 1, source = ' '}}\n" for name in BURSTS), "needs source"),
    ],
)
def test_mistakes_in_priors(text: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        parse_priors(text)
