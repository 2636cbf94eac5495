"""S3 as a source, on a real server: what is listed, what is fetched, what is known, and what is said."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s3_proxy import SLOW_DOWN, Fault, Proxy, Request, refusal
from s3_server import Server
from s3_server import proxy as proxy
from s3_server import s3 as s3
from s3_server import s3_server as s3_server
from support.logs import event_number, exported, rows
from trailsift.errors import LakeError, S3Error, SourceError, UsageError
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.sources import s3_fetch
from trailsift.sources.base import ALL, NothingKnown, Wanted
from trailsift.sources.s3 import S3Source
from trailsift.storage.s3_client import Bucket

pytest.importorskip("obstore")

ONE, TWO = "111122223333", "444455556666"


def key(minute: str, number: int = 1, account: str = ONE, region: str = "eu-west-1", root: str = "AWSLogs/") -> str:
    """Return the key of a log object that was delivered at a minute (YYYYMMDDTHHMM)."""
    day = f"{minute[:4]}/{minute[4:6]}/{minute[6:8]}"
    name = f"{account}_CloudTrail_{region}_{minute}Z_{number:016}.json.gz"
    return f"{root}{account}/CloudTrail/{region}/{day}/{name}"


def body(first: int, events: int = 2) -> bytes:
    """Return a log object of some events, the first with the given number."""
    records = [event_number(first + number) for number in range(events)]
    return gzip.compress(json.dumps({"Records": records}).encode(), mtime=0)


def keys_of(source: S3Source, wanted: Wanted = ALL) -> list[str]:
    """Return the keys that a source finds, in their order."""
    found = source.search(wanted, NothingKnown())
    keys = [item.path for item in found]
    source.release()
    return keys


def at(text: str) -> datetime:
    """Return a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def bucket(s3_server: Server) -> str:
    """Logs of two accounts and two regions on three days, of an organization and of Control Tower, and other logs."""
    name = s3_server.new_bucket()
    objects = {}
    for account in (ONE, TWO):
        for region in ("eu-west-1", "us-east-1"):
            for number, minute in enumerate(("20260301T0005", "20260302T2355", "20260303T1200")):
                objects[key(minute, number, account, region)] = body(number)
    objects |= {key("20260301T0900", root="org/AWSLogs/o-abcdefghij/"): body(50)}
    objects |= {key("20260301T0900", root="o-abcdefghij/AWSLogs/o-abcdefghij/"): body(60)}
    digest = f"AWSLogs/{ONE}/CloudTrail-Digest/eu-west-1/2026/03/01/{ONE}_CloudTrail-Digest_eu-west-1_x.json.gz"
    objects |= {digest: b"digest", digest.replace("Digest", "Insight"): b"insight"}
    objects |= {f"AWSLogs/{ONE}/{kind}/eu-west-1/2026/3/1/x.gz": b"x" for kind in ("vpcflowlogs", "Config", "Newest")}
    objects |= {"copies/by/somebody/one.json.gz": body(70), "copies/.hidden": b"x", "copies/aws-test.txt": b"x"}
    s3_server.put(name, objects)
    return name


EVERYWHERE = 12


@pytest.mark.parametrize(
    ("prefix", "number"),
    [
        ("AWSLogs", EVERYWHERE),
        ("AWSLogs/", EVERYWHERE),
        (f"AWSLogs/{ONE}/", 6),
        (f"AWSLogs/{ONE}/CloudTrail", 6),
        (f"AWSLogs/{ONE}/CloudTrail/eu-west-1/", 3),
        (f"AWSLogs/{ONE}/CloudTrail/eu-west-1/2026", 3),
        (f"AWSLogs/{ONE}/CloudTrail/eu-west-1/2026/03/02/", 1),
        (key("20260302T2355", 1), 1),
        ("org", 1),
        ("o-abcdefghij/", 1),
        ("copies", 1),
        ("", EVERYWHERE + 3),
    ],
)
def test_prefix_at_any_level(s3: Server, bucket: str, prefix: str, number: int) -> None:
    """Of the layouts of accounts, organizations and Control Tower; other logs are never among them."""
    keys = keys_of(S3Source([f"s3://{bucket}/{prefix}"]))
    assert len(keys) == number and all("CloudTrail_" in key or "somebody" in key for key in keys)
    minutes = [key.partition("_CloudTrail_")[2][9:] for key in keys if "_CloudTrail_eu-west-1" in key]
    assert minutes == sorted(minutes)


def test_other_logs_are_named_and_not_listed(proxy: Proxy, bucket: str) -> None:
    found = S3Source([f"s3://{bucket}/AWSLogs"]).search(ALL, NothingKnown())
    others = ("CloudTrail-Digest", "CloudTrail-Insight", "vpcflowlogs", "Config", "Newest")
    assert found.passed_over == dict.fromkeys(others, 1)
    assert found.accounts == {ONE, TWO} and found.regions == {"eu-west-1", "us-east-1"}
    assert (found.first_day, found.last_day, found.objects) == ("2026-03-01", "2026-03-03", EVERYWHERE)


def many(server: Server, days: int = 40, per_day: int = 3) -> str:
    """Return a bucket with more than a page of keys over many days, of two accounts and two regions."""
    name = server.new_bucket()
    first = at("2026-01-01T00:00")
    minutes = [
        (first + timedelta(days=day, minutes=number)).strftime("%Y%m%dT%H%M")
        for day in range(days)
        for number in range(per_day)
    ]
    places = [(account, region) for account in (ONE, TWO) for region in ("eu-west-1", "us-east-1")]
    server.put(name, {key(minute, 0, *place): b"x" * 20 for minute in minutes for place in places} | {"x/y": b"1"})
    # More than a page, so that the whole of it is not seen at once.
    server.put(name, {f"AWSLogs/{ONE}/Config/{number}": b"x" for number in range(1100)})
    return name


def test_only_folders_of_the_wanted_days_are_listed(proxy: Proxy, s3: Server) -> None:
    """The folder before is looked at too, from the wanted minute on; those of other accounts and logs are not."""
    bucket = many(s3)
    proxy.requests.clear()
    wanted = Wanted(at("2026-02-03T00:01"), at("2026-02-04T00:02"), frozenset({ONE}))
    keys = keys_of(S3Source([f"s3://{bucket}"]), wanted)
    assert [key.rpartition("_")[0][-14:] for key in keys] == [
        minute for minute in ("20260203T0001Z", "20260203T0002Z", "20260204T0000Z", "20260204T0001Z") for _ in range(2)
    ]
    listed = [request.path for request in proxy.requests]
    assert not any(TWO in path or "Config" in path for path in listed)
    assert len([path for path in listed if "2026" in path]) == 2 * 3
    assert len(listed) < 16


def test_accounts_and_regions(s3: Server, bucket: str) -> None:
    source = S3Source([f"s3://{bucket}/AWSLogs"])
    wanted = Wanted(accounts=frozenset({TWO}), regions=frozenset({"us-east-1"}))
    assert all(TWO in key and "us-east-1" in key for key in keys_of(source, wanted))
    assert len(keys_of(source, wanted)) == 3
    with pytest.raises(SourceError, match=r"no CloudTrail logs under .* \(of the account 999999999999\)"):
        source.search(Wanted(accounts=frozenset({"999999999999"})), NothingKnown())


def test_overlapping_prefixes_are_read_once(s3: Server, bucket: str) -> None:
    urls = [f"s3://{bucket}/AWSLogs/{ONE}/CloudTrail", f"s3://{bucket}/AWSLogs", f"s3://{bucket}/copies/by"]
    assert len(keys_of(S3Source(urls))) == EVERYWHERE + 1


def test_folder_of_many_objects_and_folders(s3: Server) -> None:
    """As somebody's copies may be; each is found once."""
    bucket = s3.new_bucket()
    names = [f"copies/{number:05}.json.gz" for number in range(1500)]
    names += [f"copies/00700-more/{number}.json.gz" for number in range(3)] + [
        "copies/zz/a/b/c.json",
        key("20260301T0000"),
    ]
    s3.put(bucket, dict.fromkeys(names, b"x"))
    assert sorted(keys_of(S3Source([f"s3://{bucket}"]))) == sorted(names)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of 100 names, so that a folder need not have thousands to be a large one."""
    for module in ("s3_listing", "s3_walk"):
        monkeypatch.setattr(f"trailsift.sources.{module}.PAGE", 100)


@pytest.mark.usefixtures("small_pages")
def test_a_busy_day_is_listed_by_the_hour(s3: Server) -> None:
    """Whatever is cut into hours, each object is found once."""
    bucket = s3.new_bucket()
    keys = [key(f"20260301T{number // 30:02}{number * 2 % 60:02}", number) for number in range(720)]
    s3.put(bucket, dict.fromkeys(keys, b"x"))
    assert keys_of(S3Source([f"s3://{bucket}"])) == sorted(keys)
    early = keys_of(S3Source([f"s3://{bucket}"]), Wanted(at("2026-03-01T10:30"), at("2026-03-01T20:15")))
    assert early == [name for name in sorted(keys) if "T1030" <= name.partition("20260301")[2][:5] < "T2015"]


# -- ingest ------------------------------------------------------------------------------------------------------------


def test_ingest_and_what_is_listed_again(proxy: Proxy, s3: Server, tmp_path: Path) -> None:
    """Of a quiet month one page; of a day that is known only the last hour; a late delivery is in a later folder."""
    bucket, lake = s3.new_bucket(), tmp_path / "lake"
    minutes = [f"202603{day:02}T{hour:02}00" for day in (1, 2) for hour in range(24)]
    s3.put(bucket, {key(minute): body(2 * number) for number, minute in enumerate(minutes)})
    first = ingest([f"s3://{bucket}/AWSLogs"], lake)
    assert (first.log_objects, first.records, first.stored, first.complete) == (48, 96, 96, True)
    names = {row["log_object"] for row in rows(lake, columns="log_object")}
    assert names == {f"s3://{bucket}/{key(minute)}" for minute in minutes}
    proxy.requests.clear()
    again = ingest([f"s3://{bucket}/AWSLogs"], lake)
    assert (again.log_objects_known, again.records, proxy.count("GET", "list-type") < 16) == (48, 0, True)
    day = key(minutes[0]).rpartition("/")[0]
    # Names of 22:00 and 23:00.
    assert ingest([f"s3://{bucket}/{day}"], lake).log_objects_known == 2
    assert proxy.count("GET", ".json.gz?") == proxy.count("GET", "x-id=GetObject") == 0
    # Late, and of a region that was not there before.
    s3.put(bucket, {key("20260303T0001"): body(500), key("20260301T0700", 1, ONE, "us-east-1"): body(600)})
    later = ingest([f"s3://{bucket}"], lake)
    assert (later.log_objects, later.stored) == (2, 4)


@pytest.mark.usefixtures("small_pages")
def test_known_days_of_a_busy_month_are_passed_over(proxy: Proxy, s3: Server, tmp_path: Path) -> None:
    """Their last hour is listed, and what is new in any of them."""
    bucket, lake = s3.new_bucket(), tmp_path / "lake"
    names = [key(f"202603{day:02}T{n // 10:02}{n % 60:02}", n) for day in range(1, 6) for n in range(240)]
    s3.put(bucket, {name: body(number, 1) for number, name in enumerate(names)})
    assert ingest([f"s3://{bucket}"], lake).stored == len(names)
    s3.put(bucket, {key("20260303T2330", 9999): body(50_000), key("20260305T2359", 9999): body(50_010)})
    proxy.requests.clear()
    again = ingest([f"s3://{bucket}"], lake)
    assert (again.log_objects, again.stored) == (2, 4)
    # Of five days, the first page and hours, not all of 12 pages.
    assert again.log_objects_known < len(names) / 2 and proxy.count("GET", "list-type") < 24


def test_narrow_run_does_not_hide_what_is_older(s3: Server, tmp_path: Path) -> None:
    """The newest name of a folder is known, and older ones are not: they are still found."""
    bucket, lake = s3.new_bucket(), tmp_path / "lake"
    s3.put(bucket, {key(f"20260301T{hour:02}00"): body(2 * hour) for hour in range(24)})
    assert ingest([f"s3://{bucket}"], lake, since=at("2026-03-01T20:00")).log_objects == 4
    narrow = Wanted(accounts=frozenset({ONE}), since=at("2026-03-01T12:00"))
    assert ingest([f"s3://{bucket}"], lake, wanted=narrow).log_objects == 8
    assert ingest([f"s3://{bucket}"], lake).log_objects == 12
    assert ingest([f"s3://{bucket}/AWSLogs/{ONE}"], lake).log_objects_known == 24


def test_names_that_the_lake_has_forgotten(proxy: Proxy, s3: Server, tmp_path: Path) -> None:
    """The list of log objects expires; a note says that the folder was ingested, so that nothing is stored twice."""
    bucket, lake = s3.new_bucket(), tmp_path / "lake"
    s3.put(bucket, {key("20260101T0000"): body(0), key("20260301T0000"): body(2)})
    ingest([f"s3://{bucket}"], lake)
    forget(lake, "2026-01-01")
    proxy.requests.clear()
    assert ingest([f"s3://{bucket}/AWSLogs/{ONE}"], lake).log_objects_known == 1
    assert not any("/01/01" in request.path or "%2F01%2F01" in request.path for request in proxy.requests)


def forget(lake: Path, day: str) -> None:
    """Delete the names of a delivery day, as they expire."""
    import sqlite3

    db = sqlite3.connect(lake / "catalog.db")
    assert db.execute("DELETE FROM object_file WHERE day = ?", (day,)).rowcount
    db.commit()
    db.close()


def test_etag_is_the_version(s3: Server, tmp_path: Path) -> None:
    """The same name with other content is another log object."""
    bucket, lake = s3.new_bucket(), tmp_path / "lake"
    s3.put(bucket, {key("20260301T0000"): body(0)})
    assert ingest([f"s3://{bucket}"], lake).stored == 2
    s3.put(bucket, {key("20260301T0000"): body(0, 5)})
    counts = ingest([f"s3://{bucket}"], lake)
    assert (counts.log_objects, counts.stored, counts.duplicates) == (1, 3, 2)


def test_keys_that_obstore_refuses(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A trail with a slash too many writes to ``logs//AWSLogs``. Only moto keeps such keys."""
    import boto3

    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=moto)
    client.create_bucket(Bucket="odd-keys")
    for number in range(3):
        client.put_object(
            Bucket="odd-keys", Key=key(f"2026030{number + 1}T0000", root="logs//AWSLogs/"), Body=body(10 * number)
        )
    client.put_object(Bucket="odd-keys", Key="logs/AWSLogs/a b+c%2F\u00e9.json", Body=body(50))
    client.put_object(Bucket="odd-keys", Key="logs//AWSLogs/", Body=b"")
    counts = ingest(["s3://odd-keys"], tmp_path / "lake")
    assert (counts.log_objects, counts.stored, counts.complete) == (4, 8, True)
    counts = ingest(["s3://odd-keys/logs//AWSLogs"], tmp_path / "other", since=at("2026-03-02T00:00"))
    assert (counts.log_objects, counts.stored) == (2, 4)


def test_profile_reaches_the_workers(s3: Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are found in each process by itself."""
    config = tmp_path / "config"
    keys = "".join(
        f"{name.lower()} = {os.environ.pop(name)}\n" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    )
    config.write_text(f"[profile logs]\n{keys}region = us-east-1\nendpoint_url = {s3.url}\n")
    for name, value in {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "logs"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert ingest([f"s3://{bucket}/AWSLogs"], tmp_path / "lake", workers=2).log_objects == EVERYWHERE


def test_hostile_keys(s3: Server, tmp_path: Path) -> None:
    """Keys reach the lake as harmless names; one that no request can name is a reject."""
    bucket = s3.new_bucket()
    client = s3.client()
    odd = [
        "AWSLogs/a\u202egnp.json",
        "AWSLogs/' OR 1=1 --.json",
        "AWSLogs/%2e%2e%2f\U0001f600 +&?#.json",
        "AWSLogs/\x1b[2J.json",
    ]
    for number, name in enumerate(odd):
        client.put_object(Bucket=bucket, Key=name, Body=body(2 * number))
    counts = ingest([f"s3://{bucket}"], tmp_path / "lake")
    assert (counts.log_objects, counts.stored, counts.log_objects_gone) == (3, 6, 1)
    names = {row["log_object"] for row in rows(tmp_path / "lake", columns="log_object")}
    assert all(name.isprintable() for name in names) and f"s3://{bucket}/{odd[1]}" in names
    assert all(name.isprintable() for name in counts.not_fetched)


# -- faults ------------------------------------------------------------------------------------------------------------


def hourly(server: Server, objects: int = 30) -> str:
    """Return a bucket with log objects of two events each."""
    bucket = server.new_bucket()
    server.put(
        bucket, {key(f"20260301T{number // 60:02}{number % 60:02}"): body(2 * number) for number in range(objects)}
    )
    return bucket


class Some:
    """A rule that does something to some of the requests for objects: the first time each comes, or always."""

    def __init__(self, fault: Fault, *, every: int = 3, times: int = 1) -> None:
        self.fault, self.every, self.times = fault, every, times
        self.seen: dict[str, int] = {}
        self.done = 0
        self.lock = threading.Lock()

    def __call__(self, request: Request) -> Fault | None:
        """Return the fault for this request."""
        if request.method != "GET" or request.is_list:
            return None
        with self.lock:
            count = self.seen[request.key] = self.seen.get(request.key, 0) + 1
            number = sorted(self.seen).index(request.key)
        if int(request.key.rpartition("_")[0][-5:-1]) % self.every or count > self.times:
            return None
        self.done += 1
        return self.fault if number >= 0 else None


@pytest.mark.parametrize(
    "fault",
    [Fault(drop=True), SLOW_DOWN, Fault(keep=0.5), Fault(delay=0.3), refusal("InternalError", "Try again.", 500)],
    ids=["dropped", "slow-down", "truncated", "slow", "internal-error"],
)
@pytest.mark.parametrize("workers", [None, 2])
def test_passing_faults_lose_nothing(
    proxy: Proxy, s3: Server, tmp_path: Path, fault: Fault, workers: int | None
) -> None:
    bucket = hourly(s3)
    proxy.rule = rule = Some(fault)
    counts = ingest([f"s3://{bucket}"], tmp_path / "lake", workers=workers)
    assert (counts.log_objects, counts.records, counts.stored, counts.complete) == (30, 60, 60, True)
    assert rule.done == 10


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (SLOW_DOWN, "the server was busy (SlowDown: Please reduce your request rate) in 3 attempts"),
        (Fault(keep=0.5), "broke off"),
        (
            refusal(
                "AccessDenied",
                "User is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:eu-west-1:1:key/k",
                403,
            ),
            "the credentials lack kms:Decrypt on arn:aws:kms:eu-west-1:1:key/k",
        ),
        (refusal("AccessDenied", "Access Denied", 403), "the credentials lack s3:GetObject on arn:aws:s3:::"),
        (refusal("InvalidObjectState", "The operation is not valid", 403), "it is archived and must be restored"),
    ],
    ids=["slow-down", "truncated", "kms", "denied", "archived"],
)
def test_objects_that_cannot_be_fetched(
    proxy: Proxy, s3: Server, tmp_path: Path, fault: Fault, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are named and counted, not noted as ingested and no rejects; the next run reads them."""
    monkeypatch.setattr("trailsift.sources.s3_fetch._PAUSE", 0.01)
    bucket, lake = hourly(s3), tmp_path / "lake"
    proxy.rule = Some(fault, times=1000)
    counts = ingest([f"s3://{bucket}"], lake)
    assert (counts.log_objects, counts.stored, counts.malformed, counts.log_objects_failed) == (20, 40, 0, 10)
    assert not counts.complete and len(counts.not_fetched) == 10
    assert all(reason in text and name.startswith(f"s3://{bucket}/") for name, text in counts.not_fetched.items())
    proxy.rule = lambda _: None
    counts = ingest([f"s3://{bucket}"], lake)
    assert (counts.log_objects, counts.stored, counts.complete) == (10, 20, True)
    assert not rows(lake, "rejects")


def test_nothing_can_be_fetched(proxy: Proxy, s3: Server, tmp_path: Path) -> None:
    """It is given up soon, and says which permission is missing."""
    bucket = hourly(s3, 300)
    proxy.rule = Some(refusal("AccessDenied", "Access Denied", 403), every=1, times=1000)
    with pytest.raises(
        S3Error, match=rf"s3://{bucket}/AWSLogs/.* the credentials lack s3:GetObject on arn:aws:s3:::{bucket}/"
    ):
        ingest([f"s3://{bucket}"], tmp_path / "lake")
    assert proxy.count("GET", ".json.gz") < 300


def test_objects_that_are_deleted_or_replaced_meanwhile(proxy: Proxy, s3: Server, tmp_path: Path) -> None:
    """Neither is an error; what was replaced is never stored under the version that was listed."""
    bucket, lake = hourly(s3), tmp_path / "lake"
    gone, other = key("20260301T0005"), key("20260301T0010")
    store = s3.store(bucket)

    def rule(request: Request) -> Fault | None:
        if request.is_list or request.method != "GET":
            return None
        if request.key == gone:
            return Fault(first=lambda: store.delete(gone))
        return Fault(first=lambda: store.put(other, body(900, 3))) if request.key == other else None

    proxy.rule = rule
    counts = ingest([f"s3://{bucket}"], lake)
    assert (counts.log_objects, counts.log_objects_gone, counts.log_objects_failed, counts.complete) == (28, 2, 0, True)
    assert counts.not_fetched == {
        f"s3://{bucket}/{gone}": "it was deleted after it was listed",
        f"s3://{bucket}/{other}": "it was replaced after it was listed: the next run reads it",
    }
    proxy.rule = lambda _: None
    counts = ingest([f"s3://{bucket}"], lake)
    assert (counts.log_objects, counts.stored) == (1, 3)


def test_a_large_object_passes_through_a_file(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trailsift.sources.s3_fetch.LARGE", 1000)
    bucket = hourly(s3, 3)
    records = [event_number(number) | {"requestID": os.urandom(20).hex()} for number in range(200)]
    s3.put(bucket, {key("20260301T0100"): gzip.compress(json.dumps({"Records": records}).encode())})
    counts = ingest([f"s3://{bucket}"], tmp_path / "lake")
    assert (counts.log_objects, counts.records, counts.complete) == (4, 206, True)


def test_a_gzip_bomb_is_a_reject(s3: Server, tmp_path: Path) -> None:
    """A gigabyte in a megabyte: all else is stored, and nothing of it is kept."""
    bucket = s3.new_bucket()
    bomb = gzip.compress(b'{"Records":[') + gzip.compress(bytes(64 << 20), 6) * 18
    assert len(bomb) < 2 << 20
    s3.put(bucket, {key("20260301T0001"): body(0), key("20260301T0002"): bomb, key("20260301T0003"): body(10)})
    counts = ingest([f"s3://{bucket}"], tmp_path / "lake")
    assert (counts.stored, counts.malformed, counts.complete) == (4, 1, False)
    (reject,) = rows(tmp_path / "lake", "rejects")
    assert reject["log_object"] == f"s3://{bucket}/{key('20260301T0002')}" and "unpacked" in reject["reason"]


def test_what_is_fetched_ahead_is_bounded(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """By bytes and by number, however many objects are expected."""
    monkeypatch.setattr(s3_fetch, "AHEAD_BYTES", 500_000)
    monkeypatch.setattr(s3_fetch, "AHEAD_OBJECTS", 8)
    bucket = s3.new_bucket()
    s3.put(bucket, {key("20260301T0000", number): os.urandom(100_000 if number % 2 else 1000) for number in range(60)})
    objects = S3Source([f"s3://{bucket}"]).find()
    fetcher = s3_fetch.Fetcher(Bucket(bucket), Bucket(bucket).connection)
    fetcher.expect(objects[:30])
    fetcher.expect(objects[30:])
    for item in objects:
        assert fetcher.held <= 500_000 and len(fetcher._fetched) <= 8
        with fetcher.take(item) as opened:
            assert len(opened.read()) == item.size
    assert fetcher.held == 0 and not fetcher._fetched


def test_requester_pays(proxy: Proxy, s3: Server, tmp_path: Path) -> None:
    """Each request says so."""
    bucket = hourly(s3, 3)
    proxy.requests.clear()
    assert ingest([f"s3://{bucket}"], tmp_path / "lake", requester_pays=True).stored == 6
    assert {request.headers.get("x-amz-request-payer") for request in proxy.requests} == {"requester"}
    key_of_one = key("20260301T0001")
    ingest([f"s3://{bucket}/{key_of_one}"], tmp_path / "other")
    assert "x-amz-request-payer" not in proxy.requests[-1].headers


# -- what is said ------------------------------------------------------------------------------------------------------


def denied(what: Callable[[Request], bool], fault: Fault) -> Callable[[Request], Fault | None]:
    """Return a rule that refuses some requests."""
    return lambda request: fault if what(request) else None


def test_no_permission_to_list(proxy: Proxy, bucket: str, tmp_path: Path) -> None:
    proxy.rule = denied(lambda request: request.is_list, refusal("AccessDenied", "Access Denied", 403))
    with pytest.raises(
        S3Error, match=rf"AWSLogs/.* cannot be listed: the credentials lack s3:ListBucket on arn:aws:s3:::{bucket} "
    ):
        ingest([f"s3://{bucket}/AWSLogs/"], tmp_path / "lake")
    assert not (tmp_path / "lake").exists()


def test_bucket_in_another_region(proxy: Proxy, bucket: str, tmp_path: Path) -> None:
    """Its region is asked for and taken."""
    moved = refusal("PermanentRedirect", "Use the specified endpoint.", 301, ("x-amz-bucket-region", "eu-south-2"))
    proxy.rule = denied(lambda request: request.region != "eu-south-2", moved)
    assert ingest([f"s3://{bucket}/AWSLogs"], tmp_path / "lake", workers=2).log_objects == EVERYWHERE
    assert {request.region for request in proxy.requests} == {"us-east-1", "", "eu-south-2"}


def test_busy_server_is_given_up(proxy: Proxy, bucket: str, tmp_path: Path) -> None:
    proxy.rule = denied(lambda request: request.is_list, SLOW_DOWN)
    with pytest.raises(S3Error, match=r"the server was busy \(SlowDown: .*\) in 3 attempts: wait a minute"):
        ingest([f"s3://{bucket}"], tmp_path / "lake")
    assert proxy.count("GET") == 3


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("AWSLogs/111122223333/CloudTrail/eu-west-1/2025/", ["there are 2026/", "nearest logs are under s3://{}/AWSLogs/111122223333/CloudTrail/eu-west-1/2026/03/03/"]),
        ("AWSLogs/111122223333/CloudTrail-Digest/", ["CloudTrail-Digest (1)", "nearest logs are under s3://{}/AWSLogs/111122223333/CloudTrail/"]),
        ("AWSLog", ["in s3://{}/ there are", "AWSLogs/"]),
        ("AWSLogs/999999999999", ["in s3://{}/AWSLogs/ there are 111122223333/, 444455556666/"]),
    ],
)  # fmt: skip
def test_prefix_without_logs(s3: Server, bucket: str, tmp_path: Path, prefix: str, words: list[str]) -> None:
    with pytest.raises(SourceError) as caught:
        ingest([f"s3://{bucket}/{prefix}"], tmp_path / "lake")
    assert all(word.format(bucket) in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "lake").exists()


def test_empty_bucket(s3: Server, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no CloudTrail logs under s3://test-.*; it is empty"):
        ingest([f"s3://{s3.new_bucket()}"], tmp_path / "lake")


def test_nothing_in_the_time_asked_for(s3: Server, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"delivered since 2026-04-01 00:00 UTC.*nearest logs are under .*/2026/03/03/"
    ):
        ingest([f"s3://{bucket}/AWSLogs"], tmp_path / "lake", since=at("2026-04-01T00:00"))


# -- real logs ---------------------------------------------------------------------------------------------------------


#: An ingest that commits often, so that kills fall before, into and after commits.
SMALL_BATCHES = """
import sys
from pathlib import Path
from trailsift.ingest import Sizes, ingest
if __name__ == "__main__":
    sizes = Sizes(chunk_rows=500, batch_rows=1500, task_objects=50)
    ingest([sys.argv[1]], Path(sys.argv[2]), workers=2, compact=False, sizes=sizes)
"""


def commits(lake: Path) -> int:
    """Return the number of commits in a lake, 0 if there is none yet."""
    try:
        return open_snapshot(lake).seq
    except LakeError:
        return 0


def stored(lake: Path) -> Counter[str]:
    """Return all records of a lake; they do not have the names of their log objects."""
    return exported(lake)


@pytest.mark.slow
def test_real_logs_with_kills_equal_a_local_ingest(s3: Server, real_logs: Path, tmp_path: Path) -> None:
    """Three kills at any moment, then a run to the end: the same records, each once."""
    files = real_logs / "files"
    bucket, lake = s3.new_bucket(), tmp_path / "lake"
    assert s3.upload(bucket, files) > 2700
    local = ingest([str(files)], tmp_path / "local", compact=False)
    script = tmp_path / "small_batches.py"
    script.write_text(SMALL_BATCHES)
    command = [sys.executable, str(script), f"s3://{bucket}", str(lake)]
    for more in (1, 2, 3):
        before = commits(lake)
        process = subprocess.Popen(command, start_new_session=True)
        while commits(lake) < before + more and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    last = ingest([f"s3://{bucket}"], lake)
    assert last.log_objects_known > 200 and last.stored > 1000
    records = stored(lake)
    assert records == stored(tmp_path / "local")
    assert local.stored == sum(records.values())


def test_other_commands_on_logs_in_s3(s3: Server, bucket: str, tmp_path: Path) -> None:
    """Rules are tried on them; the benchmark reads files."""
    from trailsift.benchmark.runner import measure
    from trailsift.ingest.dry_run import dry_run
    from trailsift.prices import load_prices
    from trailsift.rules.presets import open_rules

    tried = dry_run(open_rules("important-events"), load_prices(), [f"s3://{bucket}/AWSLogs"])
    assert tried.events > 0
    with pytest.raises(UsageError, match="copy some days to a folder first"):
        measure([f"s3://{bucket}"], tmp_path, load_prices())
