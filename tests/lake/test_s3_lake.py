"""A lake in S3, on a real server: the same answers as on a disk, several writers, and what must not happen."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from s3_server import Server, s3, s3_server
from support.s3_lakes import Machine, new_lake, own_cache, rows_of
from trailsift import Lake
from trailsift.errors import ConflictError, LakeError, UsageError
from trailsift.generate import Options, generate
from trailsift.ingest import Sizes, ingest
from trailsift.lake import digest, expire, index
from trailsift.lake.cached_files import CACHE_VARIABLE
from trailsift.lake.commit import IngestedObject
from trailsift.lake.compact import compact_lake
from trailsift.lake.index import File
from trailsift.lake.mirrored_storage import open_mirror
from trailsift.lake.open import open_snapshot
from trailsift.lake.packing import pack, unpack
from trailsift.lake.sqlite_catalog import _TABLES as catalog_tables
from trailsift.lake.verify import verify
from trailsift.lake.writer import _OTHER_TABLES as writer_tables
from trailsift.lake.writer import LakeWriter
from trailsift.query import DuckDBEngine
from trailsift.schema import TABLES

__all__ = ["new_lake", "own_cache", "s3", "s3_server"]

pytest.importorskip("obstore", reason="the extra aws is not installed")


#: Events of ``logs``, and how many of them are one commit where many are wanted.
EVENTS, BATCH = (3000, 100) if os.environ.get("TRAILSIFT_ALL_VARIANTS") else (600, 50)


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("s3-lake") / "logs"
    generate(folder, Options(events=EVENTS, days=2, seed=5))
    return folder


@pytest.fixture
def machines(new_lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Machine]:
    return Machine(new_lake, tmp_path / "a", monkeypatch), Machine(new_lake, tmp_path / "b", monkeypatch)


def halves(logs: Path, folder: Path) -> tuple[Path, Path]:
    """Copy the log files into two folders, every other file into each."""
    both = folder / "one", folder / "two"
    for number, file in enumerate(sorted((logs / "AWSLogs").rglob("*.json.gz"))):
        target = both[number % 2] / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return both


def test_the_same_rows_as_in_a_folder(new_lake: str, logs: Path, tmp_path: Path) -> None:
    here, there = Lake(tmp_path / "lake"), Lake(new_lake)
    for lake in (here, there):
        assert lake.ingest(logs).stored == EVENTS
        assert lake.ingest(logs).log_objects == 0
    for table in TABLES:
        assert rows_of(here._root(), table) == rows_of(there._root(), table)
    assert there.verify().is_sound
    assert there.status().lake == new_lake
    there.compact(everything=True)
    assert there.verify().is_sound
    for table in TABLES:
        assert rows_of(here._root(), table) == rows_of(there._root(), table)


def test_another_machine_sees_each_commit(machines: tuple[Machine, Machine], logs: Path, tmp_path: Path) -> None:
    one, two = halves(logs, tmp_path)
    a, b = machines
    a.ingest(one)
    before = len(b.rows("events"))
    a.ingest(two)
    assert 0 < before < len(b.rows("events")) == EVENTS


def test_it_moves_between_s3_and_a_disk(new_lake: str, s3: Server, logs: Path, tmp_path: Path) -> None:
    there = Lake(new_lake)
    there.ingest(logs)
    want = {table: rows_of(there._root(), table) for table in TABLES}
    bucket, _, prefix = new_lake.removeprefix("s3://").partition("/")
    client = s3.client()
    keys = [item["Key"] for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            for item in page["Contents"]]  # fmt: skip
    folder = tmp_path / "copy.lake"
    for key in keys:
        target = folder / key.removeprefix(f"{prefix}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, key, str(target))
    with pytest.raises(LakeError, match=f"was made at {new_lake}"):
        Lake(folder).status()
    assert Lake(folder).relocate().moved_from == new_lake
    assert Lake(folder).verify().is_sound
    assert {table: rows_of(folder, table) for table in TABLES} == want
    back = f"s3://{bucket}/another/lake"
    s3.upload(bucket, folder, "another/lake/")
    with pytest.raises(LakeError, match="relocate"):
        Lake(back).status()
    Lake(back).relocate()
    assert Lake(back).verify().is_sound
    assert {table: rows_of(Lake(back)._root(), table) for table in TABLES} == want
    assert Lake(back).ingest(logs).log_objects == 0


# -- several writers ---------------------------------------------------------------------------------------------------


def test_who_loses_the_race_commits_after_the_other(
    machines: tuple[Machine, Machine], logs: Path, tmp_path: Path
) -> None:
    one, two = halves(logs, tmp_path)
    a, b = machines
    done: list[Any] = []

    def meanwhile(_: object) -> None:
        if not done:
            done.append(None)
            done.append(b.ingest(two))

    mine = a.ingest(one, progress=meanwhile)
    assert mine.stored + done[1].stored == EVENTS
    assert len(a.rows("events")) == EVENTS
    assert sum_of(a, "hourly") == EVENTS


def test_events_that_another_writer_commits_first_are_duplicates(
    machines: tuple[Machine, Machine], logs: Path, tmp_path: Path
) -> None:
    one, _ = halves(logs, tmp_path)
    a, b = machines
    done: list[Any] = []

    def meanwhile(progress: Any) -> None:
        # The other one reads the same files under other names.
        if not done and progress.stored:
            done.append(b.ingest(one))

    mine = a.ingest(logs, progress=meanwhile)
    assert done[0].stored and mine.duplicates == done[0].stored
    assert mine.records == EVENTS == mine.stored + mine.duplicates + mine.malformed
    assert len(a.rows("events")) == EVENTS == sum_of(a, "hourly")


def sum_of(machine: Machine, table: str) -> int:
    with DuckDBEngine(open_snapshot(machine.reader.root)) as engine:
        return int(engine.sql(f"SELECT sum(events) FROM {table}").rows()[0][0])


def _write_many(url: str, cache: str, folders: list[str], answers: Any) -> None:
    import os

    os.environ["XDG_CACHE_HOME"] = cache
    root = open_mirror(url, "write").root
    total = {"stored": 0, "duplicates": 0, "records": 0}
    for folder in folders:
        counts = ingest([folder], root, workers=0, compact=False, sizes=Sizes(chunk_rows=BATCH, batch_rows=BATCH))
        for name in total:
            total[name] += getattr(counts, name)
    answers.put(total)


def test_three_writers_on_the_same_logs(new_lake: str, logs: Path, tmp_path: Path) -> None:
    """Each event is stored once, whoever gets it, and every record is counted by whoever read it."""
    parts = [tmp_path / f"part{number}" for number in range(6)]
    for number, file in enumerate(sorted((logs / "AWSLogs").rglob("*.json.gz"))):
        target = parts[number % 6] / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    orders = ([0, 1, 2, 3, 4, 5], [0, 1, 3, 2, 5, 4], [5, 4, 3, 2, 1, 0])
    writers = [
        context.Process(
            target=_write_many, args=(new_lake, str(tmp_path / f"cache{n}"), [str(parts[p]) for p in order], answers)
        )
        for n, order in enumerate(orders)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(240)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    totals = [answers.get(timeout=10) for _ in writers]
    assert sum(total["stored"] for total in totals) == EVENTS
    lake = Lake(new_lake)
    assert lake.query("SELECT count(*), count(DISTINCT event_id) FROM events").rows() == [(EVENTS, EVENTS)]
    assert lake.query("SELECT sum(events) FROM hourly").value() == EVENTS
    assert lake.verify().is_sound


def test_two_compactions_at_once(machines: tuple[Machine, Machine], logs: Path, tmp_path: Path) -> None:
    one, two = halves(logs, tmp_path)
    a, b = machines
    a.ingest(one)
    b.ingest(two)
    want = {table: a.rows(table) for table in TABLES}
    mine = LakeWriter(a.writer.root)
    hit: list[object] = []

    def meanwhile(_: object) -> None:
        if not hit:
            hit.append(compact_lake(LakeWriter(b.writer.root), everything=True))

    compact_lake(mine, everything=True, progress=meanwhile)
    assert hit
    assert {table: a.rows(table) for table in TABLES} == want


def test_a_compaction_that_lost_changes_nothing(machines: tuple[Machine, Machine], logs: Path, tmp_path: Path) -> None:
    one, two = halves(logs, tmp_path)
    a, b = machines
    a.ingest(one)
    a.ingest(two)
    lake = LakeWriter(a.writer.root)
    with pytest.raises(ConflictError), lake.begin() as transaction:
        files = lake.live_files("hourly")
        compact_lake(LakeWriter(b.writer.root), everything=True)
        transaction.replace(files, ())
        transaction.commit({}, "compact")
    assert sum_of(a, "hourly") == EVENTS


# -- what can go wrong ------------------------------------------------------------------------------------------------


def test_a_prefix_that_is_not_empty(s3: Server, logs: Path) -> None:
    bucket = s3.new_bucket()
    s3.put(bucket, {"data/report.csv": b"1"})
    with pytest.raises(LakeError, match=r"is not empty and holds no lake \(there is 'report.csv'\)"):
        Lake(f"s3://{bucket}/data").ingest(logs)
    assert s3.keys(bucket) == ["data/report.csv"]


def test_a_lake_in_a_lake(new_lake: str, s3: Server, logs: Path) -> None:
    Lake(new_lake).ingest(logs)
    bucket = new_lake.removeprefix("s3://").partition("/")[0]
    before = s3.keys(bucket)
    with pytest.raises(LakeError, match=f"lies in the lake {new_lake}"):
        Lake(f"{new_lake}/inner/lake").ingest(logs)
    with pytest.raises(LakeError, match="is not empty"):
        Lake(f"s3://{bucket}/team").ingest(logs)
    assert s3.keys(bucket) == before


def test_nothing_is_written_outside_the_prefix(new_lake: str, s3: Server, logs: Path) -> None:
    bucket = new_lake.removeprefix("s3://").partition("/")[0]
    s3.put(bucket, {"team/lake2/x": b"1", "team/lak": b"2"})
    lake = Lake(new_lake)
    lake.ingest(logs)
    lake.compact(everything=True)
    lake.detect()
    outside = [key for key in s3.keys(bucket) if not key.startswith("team/lake/")]
    assert outside == ["team/lak", "team/lake2/x"]
    assert not [key for key in s3.keys(bucket) if "probe" in key]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://bucket", "is a bucket: name a prefix"),
        ("s3://bucket/a/../b", "neither control characters nor a part"),
        ("s3://b", "not the name of a bucket"),
        ("s3://", "not the name of a bucket"),
    ],
)
def test_places_that_cannot_be_a_lake(place: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Lake(place).status()


def test_no_lake_there(new_lake: str) -> None:
    with pytest.raises(LakeError, match=f"there is no lake at {new_lake}: "):
        Lake(new_lake).status()


def test_no_such_bucket(s3: Server, logs: Path) -> None:
    with pytest.raises(Exception, match="there is no bucket nowhere-at-all"):
        Lake("s3://nowhere-at-all/lake").status()
    with pytest.raises(Exception, match="there is no bucket nowhere-at-all"):
        Lake("s3://nowhere-at-all/lake").ingest(logs)


def test_a_lost_catalog_is_not_replaced(new_lake: str, s3: Server, logs: Path) -> None:
    Lake(new_lake).ingest(logs)
    bucket, _, prefix = new_lake.removeprefix("s3://").partition("/")
    s3.client().delete_object(Bucket=bucket, Key=f"{prefix}/catalog.db")
    before = s3.keys(bucket)
    for work in (lambda: Lake(new_lake).status(), lambda: Lake(new_lake).ingest(logs)):
        with pytest.raises(LakeError, match=r"catalog.db is lost, but the lake holds data"):
            work()
    assert s3.keys(bucket) == before


def test_a_catalog_that_leads_out_of_the_lake(new_lake: str, s3: Server, logs: Path, tmp_path: Path) -> None:
    Lake(new_lake).ingest(logs)
    bucket, _, prefix = new_lake.removeprefix("s3://").partition("/")
    client = s3.client()
    for path in ("events/data/../../other/x.parquet", "../other/x.parquet", "/etc/passwd", "s3://other/x.parquet"):
        place = tmp_path / "catalog.db"
        packed = client.get_object(Bucket=bucket, Key=f"{prefix}/catalog.db")["Body"].read()
        place.write_bytes(unpack(packed, new_lake))
        with closing(sqlite3.connect(place)) as db:
            db.execute("UPDATE file SET path = ? WHERE path = (SELECT min(path) FROM file)", (path,))
            db.commit()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        client.upload_file(str(place), bucket, f"{prefix}/catalog.db")
        with pytest.raises(LakeError, match="the catalog names"):
            Lake(new_lake).query("SELECT * FROM events, hourly, usage, profile, access, sessions", cache=False).rows()


def test_the_cache_stays_within_its_size(
    new_lake: str, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Lake(new_lake).ingest(logs)
    shutil.rmtree(tmp_path / "cache")
    lake = Lake(new_lake)
    size = sum(file.bytes for file in open_snapshot(lake._root()).files("events"))
    monkeypatch.setenv(CACHE_VARIABLE, str(1 << 20))
    day = "event_time < (SELECT date_trunc('day', max(event_time)) FROM hourly_summary)"
    assert size < 1 << 20 and day
    for table in TABLES:
        lake.query(f"SELECT count(*) FROM {table}", cache=False).rows()
        used = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.parquet"))
        assert used <= 1 << 20
    monkeypatch.setenv(CACHE_VARIABLE, "nonsense")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UsageError, match=f"{CACHE_VARIABLE} is 'nonsense'"):
        lake.query("SELECT count(*) FROM events", cache=False).rows()


def test_a_query_that_the_cache_cannot_hold(
    machines: tuple[Machine, Machine], logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = machines
    a.ingest(logs)
    monkeypatch.setattr("trailsift.lake.cached_files.cache_bytes", lambda: 10_000)
    with pytest.raises(LakeError, match=f"and the cache on the disk takes .* or set {CACHE_VARIABLE}"):
        b.rows("events")


def test_what_a_dead_writer_left_is_swept_and_what_a_live_one_writes_is_not(
    new_lake: str, s3: Server, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Lake(new_lake).ingest(logs)
    bucket, _, prefix = new_lake.removeprefix("s3://").partition("/")
    orphans = [
        f"{prefix}/events/data/year=2026/month=03/day=02/service=s3/{'ab' * 16}.parquet",
        f"{prefix}/seen/{'cd' * 16}.ids",
    ]
    strange = [f"{prefix}/events/data/notes.txt", f"{prefix}/events/data/mine.parquet"]
    s3.put(bucket, dict.fromkeys((*orphans, *strange), b"x"))
    writer = LakeWriter(open_mirror(new_lake, "write").root)
    with writer.lock():
        expire.sweep_orphans(writer)
    assert set(orphans) <= set(s3.keys(bucket))
    # An hour later by the server's clock: a later object shows the time.
    monkeypatch.setattr(expire, "ORPHAN_AGE", expire.timedelta(seconds=-1))
    monkeypatch.setattr("trailsift.lake.mirror.SWEEP_SECONDS", 0.0)
    with writer.lock():
        assert expire.sweep_orphans(writer)["files_deleted"] == 2
    left = s3.keys(bucket)
    assert not set(orphans) & set(left) and set(strange) <= set(left)
    assert Lake(new_lake).query("SELECT count(*) FROM events").value() == EVENTS


def test_snapshots_expire_in_s3_too(machines: tuple[Machine, Machine], logs: Path, tmp_path: Path) -> None:
    """Their removal is staged before the commit, and reaches the lake as well."""
    a, b = machines
    one, two = halves(logs, tmp_path)
    for number, file in enumerate([*sorted(one.iterdir())[:4], two]):
        a.ingest(file, compact=False)
        if number == 0:
            compact_lake(LakeWriter(a.writer.root), everything=True)
    cleaned = expire.clean(LakeWriter(a.writer.root), datetime.now(UTC) + timedelta(hours=1))
    assert cleaned["snapshots_expired"] > 0
    assert verify(b.reader.root).problems == []
    b.ingest(one, compact=False)
    assert len(b.rows("events")) == EVENTS


def test_a_kill_at_any_point(new_lake: str, logs: Path, tmp_path: Path) -> None:
    """Whatever a killed writer left, the next one stores each event once."""
    script = (
        "import sys; from trailsift import Lake; from trailsift.ingest import Sizes, ingest;"
        "ingest([sys.argv[1]], Lake(sys.argv[2])._root('write'), workers=0, compact=False,"
        " sizes=Sizes(chunk_rows=100, batch_rows=100))"
    )
    moments = (0.9, 1.1, 1.3, 1.5, 1.8, 2.2) if os.environ.get("TRAILSIFT_ALL_VARIANTS") else (1.2, 1.6, 2.0)
    for seconds in moments:
        with subprocess.Popen([sys.executable, "-c", script, str(logs), new_lake]) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
    lake = Lake(new_lake)
    lake.ingest(logs)
    assert lake.query("SELECT count(*), count(DISTINCT event_id) FROM events").rows() == [(EVENTS, EVENTS)]
    assert lake.query("SELECT sum(events) FROM hourly").value() == EVENTS
    assert all(problem.kind == "foreign" for problem in lake.verify().problems)


def test_the_command_line(new_lake: str, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trailsift.cli import main

    assert main(["ingest", str(logs / "AWSLogs"), "--lake", new_lake, "-q"]) == 0
    out, err = capsys.readouterr()
    assert f"ingested into {new_lake}" in out and f"Next: trailsift summary --lake {new_lake}" in out
    assert main(["query", "SELECT count(*) AS n FROM events", "--lake", new_lake, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": EVENTS}]
    assert main(["status", "--lake", new_lake, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lake"] == new_lake
    assert main(["compact", "--lake", new_lake]) == 0
    assert main(["verify", "--lake", new_lake]) == 0
    out, err = capsys.readouterr()
    assert "cache" not in out + err


def test_ids_and_objects_of_another_machine_are_known(machines: tuple[Machine, Machine], logs: Path) -> None:
    a, b = machines
    a.ingest(logs)
    assert b.ingest(logs).log_objects == 0
    again = b.ingest(logs, again=True)
    assert again.duplicates == EVENTS and again.stored == 0
    writer = LakeWriter(b.writer.root)
    assert writer.known_objects([IngestedObject("no such", "1", "2026-03-02")]) == set()


# -- the catalog -------------------------------------------------------------------------------------------------------

#: Events per day; events in a compacted file of 128 MB, at 90 bytes each; days.
_EVENTS, _FILE_EVENTS, _DAYS = 100_000_000, 1_400_000, 365


def test_what_is_swapped_is_small(tmp_path: Path) -> None:
    """At 100 million events per day and a year kept, with a commit per second today, it has less than 5 MB."""
    folders = {"events": "year=2026/month={m:02}/day={d:02}/service={s}", "other": "year=2026/month={m:02}/day={d:02}"}
    roles = [f"arn:aws:iam::{number % 7:012}:role/team-{number % 40}/service-role-{number}" for number in range(1000)]
    with closing(sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)) as db:
        db.executescript(index.SMALL_SCHEMA + writer_tables + catalog_tables)
        db.execute("BEGIN")
        seq = 0
        for day in range(_DAYS):
            seq += 1
            files = []
            for table in TABLES:
                number = _EVENTS // _FILE_EVENTS if table == "events" else 2
                for part in range(number):
                    form = folders.get(table, folders["other"])
                    folder = form.format(m=day // 31 + 1, d=day % 31 + 1, s=("s3", "lambda", "dynamodb")[part % 3])
                    low, high = sorted((roles[part * 25 % 1000], roles[part * 25 % 1000 - 30]))
                    span = day * 86_400_000_000 + part, (day + 1) * 86_400_000_000 - part - 1
                    path = f"{table}/data/{folder}/{uuid.uuid4().hex}.parquet"
                    files.append(File(table, path, _FILE_EVENTS + part, 128_000_000 + part * 7, *span, "s3", low, high))
            _record(db, seq, "compact", {"files_added": len(files), "files_removed": 40_000}, files)
        # Today: a commit per second, of which the last twenty minutes are remembered; 35 days of ids and objects.
        for second in range(1200):
            seq += 1
            span = _DAYS * 86_400_000_000 + second, _DAYS * 86_400_000_000 + second + 10
            folder = "data/year=2027/month=01/day=01/service=s3"
            paths = [(table, f"{table}/{folder}/{uuid.uuid4().hex}.parquet") for table in TABLES]
            files = [File(*path, 1200, 90_000, *span, "s3", roles[3], roles[-3]) for path in paths]
            counts = {"id": uuid.uuid4().hex, "log_objects": 12, "records": 1200, "stored": 1200, "dropped": {}}
            _record(db, seq, "ingest", counts, files)
        for number in range(35 * 4):
            db.execute(
                "INSERT INTO seen_file VALUES (?, ?, 0, 1, ?, NULL)", (f"seen/{uuid.uuid4().hex}.ids", 1, number)
            )
            row = (f"objects/{uuid.uuid4().hex}.objects", 250_000, f"2026-12-{number % 28 + 1:02}", number)
            db.execute("INSERT INTO object_file VALUES (?, ?, ?, ?, NULL)", row)
        db.execute("COMMIT")
        image = db.serialize()
        live, size = db.execute("SELECT count(*), sum(rows) FROM file WHERE table_name = 'events'").fetchone()
    assert live > 25_000 and size > 0.9 * _EVENTS * _DAYS
    assert len(pack(image)) < 5_000_000, (len(image), len(pack(image)))


def _record(db: sqlite3.Connection, seq: int, kind: str, counts: dict[str, Any], files: list[File]) -> None:
    """Write a commit as a transaction does."""
    locations = {table: f"s3://bucket/lake/{table}/metadata/{seq:05}-{uuid.uuid4()}.metadata.json" for table in TABLES}
    index.record_files(db, seq, files)
    row = (seq, "2026-12-31T00:00:00.000Z", kind, json.dumps(counts), json.dumps(locations))
    db.execute("INSERT INTO commit_log VALUES (?, ?, ?, ?, ?)", row)
    digest.seal(db, seq, {file.path: digest.FileDigest(file.bytes, os.urandom(32)) for file in files}, ())
