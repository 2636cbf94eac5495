"""`generate`: the same bytes every time, exactly the requested events, and a truth that the records confirm."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from trailsift.errors import UsageError
from trailsift.generate import KINDS, QUIET_KINDS, STRENGTHS, Generated, Options, generate
from trailsift.generate.actors import create_actors
from trailsift.generate.incidents import plan
from trailsift.generate.options import check

Record = dict[str, Any]
NAME = re.compile(
    r"AWSLogs/(\d{12})/CloudTrail/([a-z0-9-]+)/(\d{4}/\d\d/\d\d)/"
    r"(\d{12})_CloudTrail_([a-z0-9-]+)_(\d{8}T\d{4}Z)_[0-9A-Za-z]{16}\.json\.gz"
)
ORDER = (
    "eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "awsRegion", "sourceIPAddress",
    "userAgent", "errorCode", "errorMessage", "requestParameters", "responseElements", "additionalEventData",
    "requestID", "eventID", "readOnly", "resources", "eventType", "apiVersion", "managementEvent",
    "recipientAccountId", "sharedEventID", "vpcEndpointId", "eventCategory", "tlsDetails",
    "sessionCredentialFromConsole",
)  # fmt: skip


@dataclass(frozen=True)
class Log:
    """One log object, read back."""

    path: str
    delivered: datetime
    raw: list[bytes]  # records as written
    records: list[Record]


@dataclass(frozen=True)
class Made:
    folder: Path
    options: Options
    result: Generated
    logs: list[Log]
    truth: dict[str, Any]

    @property
    def records(self) -> list[Record]:
        return [record for log in self.logs for record in log.records]


def read(folder: Path) -> list[Log]:
    out = []
    for path in sorted(folder.rglob("*.json.gz")):
        name = path.relative_to(folder).as_posix()
        match = NAME.fullmatch(name)
        assert match, name
        assert match[1] == match[4] and match[2] == match[5]
        delivered = datetime.strptime(match[6], "%Y%m%dT%H%MZ").replace(tzinfo=UTC)
        assert delivered.strftime("%Y/%m/%d") == match[3]
        body = gzip.decompress(path.read_bytes())
        assert body.startswith(b'{"Records":[') and body.endswith(b"]}")
        raw = re.split(rb',(?=\{"eventVersion":)', body[len(b'{"Records":[') : -2])
        out.append(Log(name, delivered, raw, json.loads(body)["Records"]))
    return out


def make(folder: Path, options: Options) -> Made:
    result = generate(folder, options)
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    return Made(folder, options, result, read(folder), truth)


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """20,000 events over seven days: the smallest run in which every incident has some size."""
    return make(tmp_path_factory.mktemp("week"), Options(events=20_000, days=7, seed=7))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Tiny objects from two trails."""
    options = Options(events=6_000, days=1, seed=3, tiny_objects=True, two_trails=True)
    return make(tmp_path_factory.mktemp("pair"), options)


def moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def role_of(record: Record) -> str | None:
    identity = record["userIdentity"]
    issuer = identity.get("sessionContext", {}).get("sessionIssuer", {}).get("arn")
    role: str | None = issuer or identity.get("arn") or identity.get("invokedBy")
    return role


def resources_of(record: Record) -> set[str]:
    return {r["ARN"] for r in record.get("resources", []) if "ARN" in r}


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# The same options, the same bytes.


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_same_options_same_bytes_in_another_process(tmp_path: Path, hash_seed: str) -> None:
    options = Options(events=1_500, days=2, seed=5, roles=20, two_trails=True)
    seen: list[int] = []
    generate(tmp_path / "here", options, seen.append)
    code = (
        "import sys; from pathlib import Path; from trailsift.generate import Options, generate;"
        f"generate(Path(sys.argv[1]), {options!r})"
    )
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], check=True, env=environment)
    assert digest(tmp_path / "here") == digest(tmp_path / "there")
    assert seen[-1] == options.events and seen == sorted(seen)


def test_another_seed_shares_no_event_and_no_object(tmp_path: Path) -> None:
    one = make(tmp_path / "1", Options(events=400, days=1, seed=1))
    two = make(tmp_path / "2", Options(events=400, days=1, seed=2))
    assert not {r["eventID"] for r in one.records} & {r["eventID"] for r in two.records}
    assert not {log.path for log in one.logs} & {log.path for log in two.logs}


# Counts and record formats.


@pytest.mark.parametrize(
    "options",
    [
        Options(events=1),
        Options(events=9, days=0.0001),
        Options(events=333, days=0.01, roles=1),
        Options(events=500, days=90, roles=3),
        Options(events=2_000, days=3, roles=150, timezone="America/New_York"),
        Options(events=700, days=2, incidents=False, start=datetime(2024, 2, 28, 21, 30, 15)),
    ],
)
def test_exactly_the_requested_events_within_the_period(tmp_path: Path, options: Options) -> None:
    made = make(tmp_path / "out", options)
    assert made.result.events == made.result.records == len(made.records) == options.events
    assert len({r["eventID"] for r in made.records}) == options.events
    assert made.result.log_objects == len(made.logs)
    assert made.result.bytes == sum((made.folder / log.path).stat().st_size for log in made.logs)
    start, end = moment(made.truth["start"]), moment(made.truth["end"])
    assert all(start <= moment(r["eventTime"]) < end for r in made.records)
    assert sum(i["events"] for i in made.truth["incidents"]) <= options.events * 0.1


def test_every_record_is_written_as_cloudtrail_writes_it(week: Made) -> None:
    for log in week.logs:
        account, region = log.path.split("/")[1], log.path.split("/")[3]
        for raw, record in zip(log.raw, log.records, strict=True):
            # Compact UTF-8, with canonical numbers and strings.
            assert raw.decode() == json.dumps(record, ensure_ascii=False, separators=(",", ":"))
            names = list(record)
            assert names == sorted(names, key=ORDER.index)
            assert (record["recipientAccountId"], record["awsRegion"]) == (account, region)
            assert record["eventVersion"] == "1.11"
            assert record["eventCategory"] == ("Management" if record["managementEvent"] else "Data")
            if record["eventSource"] == "s3.amazonaws.com" and "key" in (record["requestParameters"] or {}):
                parameters = record["requestParameters"]
                assert f"arn:aws:s3:::{parameters['bucketName']}/{parameters['key']}" in resources_of(record)


def test_sizes_are_those_of_real_records(week: Made) -> None:
    sizes = sorted(len(raw) for log in week.logs for raw in log.raw)
    assert 1_200 <= median(sizes) <= 1_900
    assert sizes[len(sizes) * 95 // 100] >= 2_000
    assert 5 <= week.result.plain_bytes / week.result.bytes <= 9


def test_roles_have_distinct_jobs(week: Made) -> None:
    data = [r for r in week.records if not r["managementEvent"]]
    assert 0.03 <= 1 - len(data) / len(week.records) <= 0.06
    assert {"s3", "lambda", "dynamodb"} == {r["eventSource"].split(".")[0] for r in data}
    kinds = {r["userIdentity"]["type"] for r in week.records}
    assert kinds == {"AssumedRole", "IAMUser", "AWSService", "AWSAccount"}
    assert {r["userIdentity"].get("accountId") for r in data} >= {"ANONYMOUS_PRINCIPAL"}
    assert len({log.path.split("/")[1] for log in week.logs}) == 2
    assert len({log.path.split("/")[3] for log in week.logs}) == 2
    known = {role["role_arn"] for role in week.truth["roles"]}
    assert len(known) == week.options.roles
    counts = Counter(role_of(r) for r in data)
    assert counts.most_common(1)[0][1] > 20 * min(counts[arn] for arn in known)
    errors = {r["errorCode"] for r in week.records if "errorCode" in r}
    assert errors >= {"NoSuchKey", "AccessDenied", "ConditionalCheckFailedException"}


def test_some_keys_are_read_far_more_often_than_others(week: Made) -> None:
    keys = Counter(
        r["requestParameters"]["key"]
        for r in week.records
        if r["eventName"] == "GetObject" and r["requestParameters"]["key"].startswith("users/")
    )
    assert keys.most_common(1)[0][1] >= 5 * median(keys.values())
    assert len(keys) > 100


def test_keys_that_need_escaping_occur(week: Made) -> None:
    keys = [(r["requestParameters"] or {}).get("key") for r in week.records]
    texts = [key for key in keys if isinstance(key, str)]
    assert any('"' in text for text in texts)
    assert any(not text.isascii() for text in texts)


def test_a_cross_account_call_is_logged_by_both_accounts(week: Made) -> None:
    shared: dict[str, list[Record]] = defaultdict(list)
    for record in week.records:
        if "sharedEventID" in record:
            shared[record["sharedEventID"]].append(record)
    twins = [pair for pair in shared.values() if len(pair) == 2]
    assert len(twins) > 20
    for one, other in twins:
        assert one["eventID"] != other["eventID"]
        assert one["recipientAccountId"] != other["recipientAccountId"]
        for name in ("eventTime", "requestID", "requestParameters", "additionalEventData"):
            assert one[name] == other[name]


def test_sessions_rotate(week: Made) -> None:
    created: dict[str, set[str]] = defaultdict(set)
    for record in week.records:
        session = record["userIdentity"].get("sessionContext")
        if session:
            start = session["attributes"]["creationDate"]
            created[record["userIdentity"]["accessKeyId"]].add(start)
            assert moment(start) <= moment(record["eventTime"])
    assert len(created) > 500
    assert all(len(starts) == 1 for starts in created.values())


# Time.


def test_days_and_weeks_have_a_rhythm(week: Made) -> None:
    zone = ZoneInfo(week.options.timezone)
    by_job = {role["job"]: role["role_arn"] for role in week.truth["roles"]}
    hours: dict[str | None, Counter[int]] = defaultdict(Counter)
    days: dict[str | None, Counter[int]] = defaultdict(Counter)
    for record in week.records:
        if SIGNS["first_service"](record) and role_of(record) == by_job["CI"]:
            continue  # the incident, which keeps no office hours
        local = moment(record["eventTime"]).astimezone(zone)
        hours[role_of(record)][local.hour] += 1
        days[role_of(record)][local.weekday()] += 1
    web = hours[by_job["web app"]]
    assert sum(web[h] for h in (19, 20, 21)) > 5 * sum(web[h] for h in (2, 3, 4))
    etl = hours[by_job["batch ETL"]]
    assert sum(etl[h] for h in (1, 2, 3)) > 0.4 * etl.total()
    assert sum(days[by_job["CI"]][d] for d in (5, 6)) < 0.1 * days[by_job["CI"]].total()


def test_delivery_follows_the_event_mostly_soon_sometimes_late(week: Made) -> None:
    waits = sorted(
        (log.delivered - moment(record["eventTime"])).total_seconds() for log in week.logs for record in log.records
    )
    assert waits[0] >= 60
    assert median(waits) < 3_600
    assert waits[-1] > 2 * 3_600
    assert any(
        log.delivered.date() != moment(record["eventTime"]).date() for log in week.logs for record in log.records
    )


def test_tiny_objects_are_as_small_as_real_ones(pair: Made) -> None:
    sizes = sorted(len(log.records) for log in pair.logs)
    assert median(sizes) == pytest.approx(5, abs=1)
    assert 13 <= sizes[len(sizes) * 95 // 100] <= 23
    assert sizes[0] >= 1


def test_two_trails_deliver_the_same_bytes_in_different_objects(pair: Made) -> None:
    copies: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for log in pair.logs:
        for raw, record in zip(log.raw, log.records, strict=True):
            copies[record["eventID"]].append((log.path, raw))
    assert len(copies) == pair.options.events
    twice = [places for places in copies.values() if len(places) == 2]
    assert 0.98 * len(copies) < len(twice) < len(copies)
    assert all(one[0] != other[0] and one[1] == other[1] for one, other in twice)
    assert pair.result.records == sum(len(places) for places in copies.values())


# Truth.


def test_every_kind_is_planted_once(week: Made) -> None:
    assert [i["kind"] for i in week.truth["incidents"]] == list(KINDS) == list(week.result.planted)
    assert {"seed", "options", "start", "end", "events", "incidents", "roles"} <= set(week.truth)
    assert "Records" not in week.truth
    assert week.truth["benign"]


def test_the_records_confirm_the_truth(week: Made) -> None:
    by_id = {r["eventID"]: r for r in week.records}
    begin, end = moment(week.truth["start"]), moment(week.truth["end"])
    for incident in week.truth["incidents"]:
        first, last = moment(incident["first_time"]), moment(incident["last_time"])
        assert first >= begin + (end - begin) * 0.4
        sample = [by_id[event_id] for event_id in incident["event_ids"]]
        assert len(sample) == min(50, incident["events"])
        for record in sample:
            assert role_of(record) == incident["role_arn"]
            assert record["eventName"] in incident["event_names"]
            assert first <= moment(record["eventTime"]) <= last
        matching = [
            record
            for record in week.records
            if role_of(record) == incident["role_arn"]
            and record["eventName"] in incident["event_names"]
            and first <= moment(record["eventTime"]) <= last
        ]
        assert len(matching) >= incident["events"]
        assert min(r["eventTime"] for r in matching) == incident["first_time"]
        assert max(r["eventTime"] for r in matching) == incident["last_time"]
        touched: Counter[str] = Counter(arn for record in matching for arn in resources_of(record))
        assert all(touched[arn] for arn in incident["resource_arns"])


def key_starts(prefix: str) -> Callable[[Record], bool]:
    return lambda r: (r["requestParameters"] or {}).get("key", "").startswith(prefix)


SIGNS: dict[str, Callable[[Record], bool]] = {
    "bulk_exfiltration": lambda r: r["eventName"] == "GetObject" and key_starts("archive/")(r),
    "slow_exfiltration": lambda r: r["eventName"] == "GetObject",
    "first_service": lambda r: r["eventSource"] == "dynamodb.amazonaws.com",
    "new_network": lambda r: r["sourceIPAddress"].startswith("198.51.100."),
    "enumeration": lambda r: r.get("errorCode") == "AccessDenied",
    "mass_delete": lambda r: r["eventName"] == "DeleteObject" and r["eventType"] == "AwsApiCall",
    "night_activity": lambda r: moment(r["eventTime"]).astimezone(ZoneInfo("Asia/Seoul")).hour in (2, 3, 4),
    "new_key_pattern": key_starts(".cache/"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_role_did_nothing_of_the_kind_before_or_after(week: Made, kind: str) -> None:
    (incident,) = [i for i in week.truth["incidents"] if i["kind"] == kind]
    own = [r for r in week.records if role_of(r) == incident["role_arn"]]
    odd = [r["eventTime"] for r in own if SIGNS[kind](r)]
    assert 0.7 * incident["events"] <= len(odd) <= incident["events"]
    assert incident["first_time"] <= min(odd) and max(odd) <= incident["last_time"]
    # A baseline: the role had a life before.
    assert sum(r["eventTime"] < incident["first_time"] for r in own) >= 20


def test_chosen_kinds_only(tmp_path: Path) -> None:
    made = make(tmp_path / "out", Options(events=1_000, incidents=("mass_delete", "enumeration")))
    assert [i["kind"] for i in made.truth["incidents"]] == ["enumeration", "mass_delete"]


def test_long_runs_meet_each_kind_twice() -> None:
    options = Options(events=1_000_000, days=30)
    roles = create_actors(24, 1, options.first_second(), options.seconds())
    incidents = plan(options, check(options), roles, np.random.default_rng(1))
    assert Counter(i.scenario.kind for i in incidents) == dict.fromkeys(KINDS, 2)
    assert len({(i.actor.index, i.slot) for i in incidents if i.scenario.hour is None}) == 14
    assert len({i.id for i in incidents}) == 16


# Wrong usage.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(events=0), "0 events"),
        (Options(days=0), "0 days"),
        (Options(days=float("nan")), "nan days"),
        (Options(seed=-1), "seed -1"),
        (Options(roles=0), "0 roles"),
        (Options(timezone="Mars/Olympus"), "Mars/Olympus"),
        (Options(timezone="Asia"), "Asia"),
        (Options(incidents=("bulk_exfiltration", "heist")), "heist"),
        (Options(start=datetime(9999, 12, 30)), "9999"),
        (Options(start=datetime(1969, 1, 1)), "1970"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_written(
    tmp_path: Path, options: Options, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        generate(tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    generate(tmp_path, Options(events=1))
    with pytest.raises(UsageError, match="not empty"):
        generate(tmp_path, Options(events=1))
    with pytest.raises(UsageError, match="is a file"):
        generate(tmp_path / "truth.json", Options(events=1))


def test_strengths_plant_the_same_kinds_ever_more_quietly() -> None:
    """An eighth of the calls; then stealthy scenarios, and one that imitates the role."""
    counts = {}
    for strength in STRENGTHS:
        options = Options(events=120_000, days=30, roles=40, strength=strength)
        zone = check(options)
        roles = create_actors(40, 1, options.first_second(), options.seconds())
        incidents = plan(options, zone, roles, np.random.default_rng(1))
        assert [one.scenario.kind for one in incidents] == list(options.all_kinds())
        counts[strength] = {one.scenario.kind: len(one.seconds) for one in incidents}
    assert all(counts["weak"][kind] == counts["standard"][kind] // 8 for kind in KINDS)
    assert sum(counts["stealthy"].values()) < 0.25 * sum(counts["standard"].values())
    assert set(counts["stealthy"]) == {*KINDS, *QUIET_KINDS}
    with pytest.raises(UsageError, match="unknown strength"):
        check(Options(strength="none"))
    with pytest.raises(UsageError, match="kinds of this strength are"):
        check(Options(incidents=["takeover"]))
