"""``compact`` upgrades a lake of format version 1, all of it or nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_format_1 import unpacked

import trailsift
from support.paths import ROOT, variants
from support.records import comparable, sample
from trailsift import schema
from trailsift.cli import main
from trailsift.columns.arrow import CHUNK_SCHEMA, chunk_table
from trailsift.decode import record
from trailsift.errors import ConflictError, LakeError
from trailsift.ingest import derive, ingest
from trailsift.ingest.derive import Derivation
from trailsift.ingest.stored_records import places_of, record_texts
from trailsift.ingest.upgrade import upgrade
from trailsift.lake import digest, expire, index
from trailsift.lake.iceberg import LakeCatalog
from trailsift.lake.index import File
from trailsift.lake.open import open_snapshot
from trailsift.lake.relocate import relocate
from trailsift.lake.transaction import Transaction
from trailsift.lake.upgrade import UnreadableRowError, complete_days
from trailsift.lake.verify import verify
from trailsift.lake.writer import LakeWriter

VERSION_1 = schema.tables_of(hourly_partitions=False, format_version=1)
#: The day of the fixture whose events are sampled, and those whose events are all stored.
SAMPLED, WHOLE = "2026-01-17", ("2026-01-14", "2026-01-15", "2026-01-16")
#: Columns of ``events`` whose values are right since version 2, for some events.
CORRECTED = {"resource_type", "resource_arn", "resource_arns", "object_key", "request_parameters", "role_arn"}
CORRECTED |= {"session_name", "account_id", "rest"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of version 1; not to be changed."""
    lake = unpacked(tmp_path_factory.mktemp("version-1"))
    relocate(lake)
    return lake


@pytest.fixture
def lake(packed: Path, tmp_path: Path) -> Path:
    """A lake of version 1 to be upgraded."""
    copy = tmp_path / "lake"
    shutil.copytree(packed, copy)
    relocate(copy)
    return copy


@pytest.fixture(scope="module")
def upgraded(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same lake, upgraded; not to be changed."""
    lake = tmp_path_factory.mktemp("version-2") / "lake"
    shutil.copytree(packed, lake)
    relocate(lake)
    with trailsift.Lake(lake) as handle:
        assert handle.compact().upgraded is not None
    return lake


def rows(lake: Path, sql: str) -> list[dict[str, Any]]:
    with trailsift.Lake(lake) as handle:
        return handle.query(sql, cache=False).dicts()


def lines(lake: Path, table: str, days: tuple[str, ...] = WHOLE) -> Counter[str]:
    time = schema.TABLES[table].time
    chosen = ", ".join(f"'{day}'" for day in days)
    found = rows(lake, f"SELECT * FROM {table} WHERE CAST({time} AS DATE)::VARCHAR IN ({chosen})")
    return Counter(json.dumps(row, sort_keys=True, default=str) for row in found)


def tables(lake: Path, names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Return all rows of tables, in order."""
    with trailsift.Lake(lake) as handle:
        return {name: handle.query(f"SELECT * FROM {name} ORDER BY ALL", cache=False).dicts() for name in names}


@cache
def tables_once(lake: Path, names: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """Return what ``tables`` returns, of a lake that no test changes."""
    return tables(lake, names)


def version(lake: Path) -> tuple[int, int]:
    """Return the format version of ``lake.json``, and that of the catalog."""
    return json.loads((lake / "lake.json").read_text())["format_version"], open_snapshot(lake).format_version


def is_as_it_was(lake: Path, packed: Path) -> None:
    """A lake of version 1 that answers as the one it is a copy of."""
    assert version(lake) == (1, 1)
    assert tables(lake, VERSION_1) == tables_once(packed, tuple(VERSION_1))


# -- before ------------------------------------------------------------------------------------------------------------


def test_writers_refuse(lake: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new.json").write_text(json.dumps({"Records": [sample()]}))
    before = {path: path.read_bytes() for path in lake.rglob("*") if path.is_file()}
    assert main(["ingest", str(tmp_path / "new.json"), "--lake", str(lake)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"has format version 1: `trailsift compact --lake {lake}` upgrades it to 2, then run this again" in said
    assert {path: path.read_bytes() for path in lake.rglob("*") if path.is_file()} == before
    writer = LakeWriter(lake)
    with pytest.raises(LakeError, match="format version 1"):
        writer.begin()
    with pytest.raises(LakeError, match="format version 1"):
        expire.clean(writer, datetime.now(UTC))
    is_as_it_was(lake, packed)


def test_it_is_sound_and_described(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(packed).is_sound
    with trailsift.Lake(packed) as handle:
        status = handle.status().as_dict()
        assert handle.explain("SELECT count(*) FROM events WHERE caller = 'x'").tables
        assert "CREATE" in handle.connect_script()
    assert status["format_version"] == 1
    assert status["version_1_days"] == [*WHOLE, SAMPLED]
    assert {table["name"] for table in status["tables"]} == set(VERSION_1)
    assert main(["status", "--lake", str(packed)]) == 0
    assert "trailsift compact" in capsys.readouterr().out


def test_a_later_version_is_refused(lake: Path) -> None:
    path = lake / "lake.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 3}))
    for call in (lambda: open_snapshot(lake), lambda: LakeWriter(lake), lambda: upgrade(lake)):
        with pytest.raises(LakeError, match="has format version 3; this trailsift reads up to 2"):
            call()


# -- after -------------------------------------------------------------------------------------------------------------


def test_events(packed: Path, upgraded: Path) -> None:
    names = [column.name for column in VERSION_1["events"].columns]
    sql = f"SELECT {', '.join(names)} FROM events ORDER BY event_id"
    before, after = rows(packed, sql), rows(upgraded, sql)
    assert len(before) == len(after) == 355
    differing = 0
    for old, new in zip(before, after, strict=True):
        changed = {name for name in names if old[name] != new[name]}
        assert changed <= CORRECTED
        differing += bool(changed)
    assert differing == 13
    callers = rows(upgraded, "SELECT DISTINCT caller FROM events WHERE role_arn IS NULL")
    assert {"anonymous", "none", "account:444455556666/AIDAPARTNER0000001"} <= {row["caller"] for row in callers}
    assert rows(upgraded, "SELECT count(*) AS n FROM events WHERE caller IS NULL") == [{"n": 0}]


def test_records(packed: Path, upgraded: Path) -> None:
    with trailsift.Lake(packed) as one, trailsift.Lake(upgraded) as two:
        before, after = (Counter(map(record_key, handle.records())) for handle in (one, two))
    assert before == after


def record_key(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("table", ["hourly", "usage", "profile"])
def test_sums_per_day(table: str, packed: Path, upgraded: Path) -> None:
    columns = {column.name for column in VERSION_1[table].columns}
    sums = ", ".join(f"sum({name})" for name in ("events", "bytes_in", "bytes_out", "denied") if name in columns)
    targets = "WHERE touch = 'target'" if table == "usage" else ""
    by = ", dimension" if table == "profile" else ""
    day = f"CAST({schema.TABLES[table].time} AS DATE)"
    sql = f"SELECT {day} AS day{by}, {sums} FROM {table} {targets} GROUP BY ALL ORDER BY ALL"
    before, after = rows(packed, sql), rows(upgraded, sql)
    if table == "profile":
        # A session without an ARN has its name, and an error code more is a refusal.
        before, after = ([row for row in each if row["dimension"] == "source_network"] for each in (before, after))
        before, after = ([list(row.values())[:-1] for row in each] for each in (before, after))  # type: ignore[misc]
    assert before == after


def test_whole_days_are_as_ingested(upgraded: Path, tmp_path: Path) -> None:
    with trailsift.Lake(upgraded) as handle:
        exported = tmp_path / "exported.json"
        exported.write_text(json.dumps({"Records": list(handle.records())}))
    fresh = tmp_path / "fresh"
    ingest([str(exported)], fresh)
    for table in ("hourly", "usage", "profile", "access", "sessions"):
        assert lines(upgraded, table) == lines(fresh, table), table
    names = [column.name for column in schema.EVENTS.columns if column.name not in ("log_object", "weight")]
    sql = f"SELECT {', '.join(names)} FROM events WHERE event_id NOT LIKE 'content-%' ORDER BY event_id"
    one, two = (list(map(comparable, rows(lake, sql))) for lake in (upgraded, fresh))
    assert one == two


def test_a_sampled_day_keeps_its_lines(packed: Path, upgraded: Path) -> None:
    for table in ("hourly", "usage", "profile"):
        names = [column.name for column in VERSION_1[table].columns]
        time = schema.TABLES[table].time
        sql = f"SELECT {', '.join(names)} FROM {table} WHERE CAST({time} AS DATE) = '{SAMPLED}' ORDER BY ALL"
        assert rows(packed, sql) == rows(upgraded, sql)
        caller = "CASE WHEN role_arn LIKE 'arn:%' THEN role_arn ELSE 'service:' || role_arn END"
        sql = (
            f"SELECT DISTINCT category, caller = coalesce({caller}, 'unknown') AS same FROM {table} WHERE CAST({time} "
        )
        assert rows(upgraded, sql + f"AS DATE) = '{SAMPLED}'") == [{"category": "unknown", "same": True}]
    for table in ("access", "sessions"):
        assert not lines(upgraded, table, (SAMPLED,))
    assert rows(
        upgraded, "SELECT DISTINCT CAST(hour AS DATE)::VARCHAR AS day FROM hourly WHERE category = 'unknown'"
    ) == [{"day": SAMPLED}]


def test_it_is_said(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", "--lake", str(lake)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    line = "Upgraded to format version 2: 3 days computed again, 1 day kept as it was:"
    assert f"{line} {SAMPLED}, of which not all events are stored." in said
    assert main(["status", "--lake", str(lake), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["format_version"] == 2
    assert status["version_1_days"] == [SAMPLED]
    (commit,) = [commit for commit in status["latest_commits"] if commit["kind"] == "upgrade"]
    assert commit["days_recomputed"] == 3
    assert {table["name"] for table in status["tables"]} == set(schema.TABLES)
    assert main(["status", "--lake", str(lake)]) == 0
    assert f"without caller and category: {SAMPLED}." in capsys.readouterr().out
    assert main(["compact", "--lake", str(lake), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["upgraded"] is None


def test_it_is_one_sound_commit(lake: Path) -> None:
    before = open_snapshot(lake)
    with trailsift.Lake(lake) as handle:
        report = handle.compact()
    assert report.upgraded is not None
    assert report.upgraded.as_dict() | {"seconds": 0} == {
        "format_version": 2,
        "events": 355,
        "days_recomputed": 3,
        "days_kept": [SAMPLED],
        "seconds": 0,
    }
    assert version(lake) == (2, 2)
    with closing(sqlite3.connect(lake / "catalog.db")) as db:
        kinds = [kind for (kind,) in db.execute("SELECT kind FROM commit_log WHERE seq > ?", (before.seq,))]
    assert kinds[0] == "upgrade" and kinds.count("upgrade") == 1
    found = verify(lake)
    assert found.is_sound and not found.notes and not found.undigested


def test_old_files_are_deleted_later(lake: Path) -> None:
    old = {file.path for table in ("events", "hourly") for file in open_snapshot(lake).files(table)}
    upgrade(lake)
    assert all((lake / path).exists() for path in old)
    writer = LakeWriter(lake)
    expire.clean(writer, datetime.now(UTC) + timedelta(days=2))
    assert not any((lake / path).exists() for path in old)
    # The metadata of the old tables goes by the time of the files.
    assert verify(lake).is_sound
    assert len(rows(lake, "SELECT event_id FROM events")) == 355


def test_other_engines_read_it(lake: Path) -> None:
    from pyiceberg.catalog.sql import SqlCatalog

    upgrade(lake)
    catalog = SqlCatalog("trailsift", uri=f"sqlite:///{lake / 'catalog.db'}", warehouse=f"file://{lake}")
    for name, table in schema.TABLES.items():
        loaded = catalog.load_table(("trailsift", name))
        assert loaded.scan().to_arrow().num_rows == sum(file.rows for file in open_snapshot(lake).files(name))
        assert [field.name for field in loaded.schema().fields] == [column.name for column in table.columns]
        assert [field.field_id for field in loaded.schema().fields] == list(range(1, len(table.columns) + 1))


def test_ingest_goes_on(lake: Path, tmp_path: Path) -> None:
    """Events that were ingested before are not stored again."""
    with trailsift.Lake(lake) as handle:
        exported = list(handle.records())
    upgrade(lake)
    new = sample(eventTime="2026-01-16T01:02:03Z")
    (tmp_path / "log.json").write_text(json.dumps({"Records": [*exported, new]}))
    counts = ingest([str(tmp_path / "log.json")], lake)
    assert counts.stored == 1
    assert counts.duplicates == len(exported)
    assert verify(lake).is_sound
    day = "sum(events) AS n FROM hourly WHERE CAST(hour AS DATE) = '2026-01-16'"
    assert rows(lake, f"SELECT {day}") == [{"n": 155}]


def test_an_upgraded_lake_moves(lake: Path) -> None:
    upgrade(lake)
    moved = lake.with_name("moved")
    lake.rename(moved)
    assert relocate(moved).tables == len(schema.TABLES)
    assert verify(moved).is_sound
    assert upgrade(moved) is None


def test_many_pieces(lake: Path, monkeypatch: pytest.MonkeyPatch, upgraded: Path) -> None:
    """Pieces end within a file and within a day; nothing depends on where."""
    monkeypatch.setattr("trailsift.lake.upgrade.PIECE_ROWS", 20)
    monkeypatch.setattr("trailsift.lake.upgrade._BATCH_ROWS", 7)
    monkeypatch.setattr("trailsift.lake.upgrade._LINES", 10)
    monkeypatch.setattr(derive, "_STEP", 5)
    seen = []
    upgrade(lake, seen.append)
    assert len(seen) > 15
    assert (seen[-1].partitions_done, seen[-1].bytes_done) == (seen[-1].partitions_total, seen[-1].bytes_total)
    assert tables(lake, schema.TABLES) == tables_once(upgraded, tuple(schema.TABLES))
    with trailsift.Lake(lake) as handle:
        assert handle.compact().partitions
    assert verify(lake).is_sound


@pytest.mark.parametrize("pure", ["", "1"])
def test_without_the_c_modules(pure: str, lake: Path, upgraded: Path) -> None:
    script = f"from pathlib import Path; from trailsift.ingest.upgrade import upgrade; upgrade(Path({str(lake)!r}))"
    run(script, TRAILSIFT_PURE=pure)
    assert tables(lake, schema.TABLES) == tables_once(upgraded, tuple(schema.TABLES))


def run(script: str, **environment: str) -> int:
    import os

    path = f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"
    return subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": path} | environment, check=False
    ).returncode


# -- interrupted -------------------------------------------------------------------------------------------------------


POINTS = [
    "trailsift.lake.upgrade.digest.check",
    "trailsift.lake.upgrade.write_events",
    "trailsift.lake.upgrade._Upgrade._keep_lines",
    "trailsift.lake.iceberg.LakeCatalog.renew",
    "trailsift.lake.iceberg.LakeCatalog.apply",
    "trailsift.lake.index.record_files",
    "trailsift.lake.digest.seal",
]
#: Everywhere, by an exception and by a kill; without `make variants` a kill only where most is left behind.
INTERRUPTED = [(how, point) for how in ("interrupt", "kill") for point in POINTS]


@pytest.mark.parametrize(
    ("how", "point"), variants(INTERRUPTED, [*INTERRUPTED[:6], ("kill", POINTS[3]), ("kill", POINTS[6])])
)
def test_interrupted_before_the_commit(
    point: str, how: str, lake: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "kill":
        assert run(f"{_KILLED}\nkill_at({point!r}, {str(lake)!r})") == 9
    else:

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(point, interrupt)
        with pytest.raises(KeyboardInterrupt):
            upgrade(lake)
        monkeypatch.undo()
    is_as_it_was(lake, packed)
    with trailsift.Lake(lake) as handle:
        assert handle.compact().upgraded is not None
    assert version(lake) == (2, 2)
    assert verify(lake).is_sound
    named = {file.path for table in schema.TABLES for file in open_snapshot(lake).files(table)}
    with closing(sqlite3.connect(lake / "catalog.db")) as db:
        named |= {path for (path,) in db.execute("SELECT path FROM file WHERE removed IS NOT NULL")}
    assert {path.relative_to(lake).as_posix() for path in lake.rglob("*.parquet")} <= named


_KILLED = """
import os
from pathlib import Path
from pkgutil import resolve_name
from trailsift.ingest.upgrade import upgrade

def kill_at(point, lake):
    holder, _, name = point.rpartition(".")
    before = getattr(resolve_name(holder), name)
    calls = []
    def killed(*arguments, **named):
        calls.append(1)
        if len(calls) > (2 if name == "renew" else 0):
            os._exit(9)
        return before(*arguments, **named)
    setattr(resolve_name(holder), name, killed)
    upgrade(Path(lake))
"""


@pytest.mark.parametrize("writer", ["ingest", "compact", "relocate"])
def test_killed_after_the_commit(writer: str, lake: Path, tmp_path: Path) -> None:
    """Readers see version 2 already, and the next writer puts it into ``lake.json``."""
    point = "trailsift.lake.writer.LakeWriter.settle_version"
    assert run(f"{_KILLED}\nkill_at({point!r}, {str(lake)!r})") == 9
    assert version(lake) == (1, 2)
    assert verify(lake).is_sound
    assert rows(lake, "SELECT count(*) AS n FROM sessions")[0]["n"] > 0
    if writer == "ingest":
        (tmp_path / "new.json").write_text(json.dumps({"Records": [sample()]}))
        assert ingest([str(tmp_path / "new.json")], lake).stored == 1
    elif writer == "compact":
        with trailsift.Lake(lake) as handle:
            assert handle.compact().upgraded is None
    else:
        lake = lake.rename(lake.with_name("moved"))
        relocate(lake)
    assert version(lake) == (2, 2)
    assert json.loads((lake / "lake.json").read_text())["location"] == str(lake)
    assert verify(lake).is_sound


def test_another_engine_commits_meanwhile(lake: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files would be missing in the new tables."""
    commit = Transaction.commit

    def meanwhile(self: Transaction, *arguments: Any) -> int:
        monkeypatch.undo()
        catalog = LakeCatalog(lake)
        catalog.change(VERSION_1["rejects"], [], [])
        with closing(index.connect(lake)) as db:
            db.execute("BEGIN IMMEDIATE")
            catalog.apply(db)
            db.execute("COMMIT")
        return commit(self, *arguments)

    monkeypatch.setattr(Transaction, "commit", meanwhile)
    with pytest.raises(ConflictError, match="another engine committed"):
        upgrade(lake)
    is_as_it_was(lake, packed)
    assert upgrade(lake) is not None
    assert verify(lake).is_sound


# -- damaged -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["events", "hourly"])
@pytest.mark.parametrize("how", ["changed", "overwritten", "missing"])
def test_a_damaged_file(table: str, how: str, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lake / open_snapshot(lake).files(table)[1].path
    data = bytearray(file.read_bytes())
    if how == "changed":
        # Parquet does not notice it. A later version had added digests.
        with LakeWriter(lake).lock():
            digest.complete(lake, ())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif how == "overwritten":
        file.write_bytes(bytes(len(data)))
    else:
        file.unlink()
    assert main(["compact", "--lake", str(lake)]) == 1
    said = "".join(capsys.readouterr().err.split())
    assert "wasnotupgraded,andisasitwas" in said
    assert str(file.relative_to(lake)) in said
    assert version(lake) == (1, 1)
    assert rows(lake, "SELECT count(*) AS n FROM usage")[0]["n"] > 0


def replaced(lake: Path, change: Callable[[pa.Table], pa.Table]) -> File:
    """Change the rows of a file of ``events`` as if they had been written so; return the file."""
    file = open_snapshot(lake).files("events")[0]
    place = lake / file.path
    pq.write_table(change(pq.ParquetFile(place).read()), place)
    with closing(sqlite3.connect(lake / "catalog.db")) as db, db:
        db.execute("DROP TABLE IF EXISTS file_digest")
        db.execute("DROP TABLE IF EXISTS row_digest")
    return file


def with_column(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def test_an_unreadable_row(lake: Path) -> None:
    file = replaced(lake, lambda table: with_column(table, "rest", ["{"] * table.num_rows))
    with pytest.raises(LakeError, match="was not upgraded") as raised:
        upgrade(lake)
    assert file.path in str(raised.value)
    assert "2026-01-14" in str(raised.value)
    assert "its record cannot be restored" in str(raised.value)
    assert version(lake) == (1, 1)


# -- columns left out --------------------------------------------------------------------------------------------------


def test_columns_that_rules_left_out(lake: Path, packed: Path, upgraded: Path) -> None:
    with closing(sqlite3.connect(lake / "catalog.db")) as db, db:
        text = "UPDATE commit_log SET counts = json_set(counts, '$.rules.omit', json('[\"response_elements\"]'))"
        db.execute(f"{text} WHERE counts LIKE '%\"rules\"%'")
        db.execute("DROP TABLE IF EXISTS file_digest")
        db.execute("DROP TABLE IF EXISTS row_digest")
    found = upgrade(lake)
    assert found is not None
    assert (found.days_recomputed, found.days_kept) == (0, (*WHOLE, SAMPLED))
    names = ", ".join(c.name for c in VERSION_1["events"].columns if c.name not in ("role_arn", "session_name"))
    sql = f"SELECT {names} FROM events ORDER BY event_id"
    assert rows(lake, sql) == rows(packed, sql)
    new = "principal_id, caller, role_arn, session_name, source_resource_arn, source_object_key"
    sql = f"SELECT event_id, {new} FROM events ORDER BY event_id"
    assert rows(lake, sql) == rows(upgraded, sql)
    # A session without an issuer counts as its role, in events and in lines.
    role = r"regexp_replace(role_arn, '^arn:aws:sts::([0-9]+):assumed-role/([^/]+)/.*$', 'arn:aws:iam::\1:role/\2')"
    for table in ("hourly", "usage", "profile"):
        keys = ", ".join(name for name in VERSION_1[table].keys if name != "role_arn")
        sql = f"SELECT {keys}, {role} AS role, sum(events), sum(bytes_out) FROM {table} GROUP BY ALL ORDER BY ALL"
        assert rows(lake, sql) == rows(packed, sql)


@pytest.mark.parametrize("omitted", ["response_elements", "rest"])
def test_a_role_that_is_an_arn_is_the_caller(omitted: str, lake: Path) -> None:
    """Files are planned by that. What was left out may have named the caller: then nobody knows."""
    with closing(sqlite3.connect(lake / "catalog.db")) as db, db:
        text = f"UPDATE commit_log SET counts = json_set(counts, '$.rules.omit', json('[\"{omitted}\"]'))"
        db.execute(f"{text} WHERE counts LIKE '%\"rules\"%'")
        db.execute("DROP TABLE IF EXISTS file_digest")
        db.execute("DROP TABLE IF EXISTS row_digest")
    if omitted == "rest":
        for file in (lake / "events").rglob("*.parquet"):
            table = pq.read_table(file)
            at = table.schema.get_field_index("rest")
            empty = table.set_column(at, table.schema.field(at), pa.nulls(table.num_rows, pa.string()))
            file.write_bytes(b"")
            pq.write_table(empty, file)
        with closing(sqlite3.connect(lake / "catalog.db")) as db, db:
            for path in (lake / "events").rglob("*.parquet"):
                relative = path.relative_to(lake).as_posix()
                db.execute("UPDATE file SET bytes = ? WHERE path = ?", (path.stat().st_size, relative))
    assert upgrade(lake) is not None
    for table in ("events", "hourly", "usage", "profile"):
        sql = f"SELECT count(*) AS n FROM {table} WHERE role_arn LIKE 'arn:%' AND caller IS DISTINCT FROM role_arn"
        assert rows(lake, sql) == [{"n": 0}]
    roles = [row["role_arn"] for row in rows(lake, "SELECT DISTINCT role_arn FROM events WHERE role_arn IS NOT NULL")]
    for role in roles:
        one = rows(lake, f"SELECT count(*) AS n FROM events WHERE role_arn = '{role}'")
        assert one == rows(lake, f"SELECT count(*) AS n FROM events WHERE role_arn || '' = '{role}'")
    callers = {row["caller"] for row in rows(lake, "SELECT DISTINCT caller FROM events")}
    assert ("unknown" in callers) == (omitted == "rest") and ("none" in callers) == (omitted != "rest")


# -- parts -------------------------------------------------------------------------------------------------------------


def test_complete_days() -> None:
    stored, counted = {1: 5, 2: 5, 3: 5, 4: 5}, {1: 5, 2: 6, 3: 5, 5: 1}
    assert complete_days(stored, {3}, counted) == {1}
    assert complete_days({}, set(), {}) == set()


#: Records whose texts are not just their columns put together.
RECORDS: list[dict[str, Any]] = [
    sample(),
    sample(eventTime="2026-03-02T01:02:03.25Z"),
    sample(additionalEventData=None),
    sample(additionalEventData={"bytesTransferredIn": 7}),
    sample(additionalEventData={"bytesTransferredOut": 7.0, "x": 'a,"'}),
    sample(additionalEventData={}),
    sample(additionalEventData={"bytesTransferredOut": -1, "x": {"bytesTransferredIn": 3}}),
    sample(additionalEventData=[1, 2.0]),
    sample(requestParameters=None),
    sample(requestParameters={}),
    sample(requestParameters={"key": "alone"}, resources=[]),
    sample(requestParameters={"bucketName": "data", "key": 'quo"te\\\n\t\u00e9/\U0001f600'}),
    sample(requestParameters={"bucketName": "data", "key": 5, "x": {"key": "inner"}}),
    sample(requestParameters={"bucketName": "data", "x": {"key": "inner"}}),
    sample(requestParameters=["key"]),
    sample(requestParameters="text"),
    sample(responseElements={"x": 1e400, "y": [None, True]}),
    sample(errorMessage='line\nand "quotes"', errorCode="AccessDenied"),
    sample(eventID="not a uuid"),
    sample(eventID=None),
    sample(eventID=""),
    sample(readOnly="true"),
    sample(userIdentity=None),
    sample(userIdentity="root"),
    sample(userIdentity={"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"}),
    sample(resources=None),
    sample(resources=[{"ARN": "arn:aws:s3:::a"}, {"ARN": "arn:aws:s3:::b", "accountId": "1"}]),
    sample(managementEvent=True),
    sample(**{"(absent)": ["x"], "(float)": 1, "(absent)(absent)": None}),
    sample(newMember={"a": [1, 2]}, apiVersion="2006-03-01"),
    sample(eventCategory="Management", managementEvent=None),
    sample(sourceIPAddress="\ud800"),
    sample(
        eventSource="dynamodb.amazonaws.com",
        eventName="GetItem",
        requestParameters={"tableName": "t", "key": {"id": "a\u00e9", "n": 5}},
        resources=[{"accountId": "1", "type": "AWS::DynamoDB::Table", "ARN": "arn:aws:dynamodb:eu-west-1:1:table/t"}],
    ),
    sample(
        eventSource="dynamodb.amazonaws.com",
        eventName="TransactGetItems",
        requestParameters={"transactItems": [{"get": {"tableName": "t"}}, {"get": {"tableName": "u"}}]},
        resources=[
            {"accountId": "1", "type": "AWS::DynamoDB::Table", "ARN": f"arn:aws:dynamodb:eu-west-1:1:table/{name}"}
            for name in "tu"
        ],
    ),
    sample(
        eventName="CopyObject",
        requestParameters={"bucketName": "data", "key": "to", "x-amz-copy-source": "other/from%20there"},
    ),
]
#: Members that records lack one at a time.
RECORDS += [
    {name: value for name, value in sample().items() if name != gone} for gone in sample() if gone != "eventTime"
]


def stored(records: list[dict[str, Any]]) -> pa.Table:
    """Return the rows of records as a lake of version 1 has them."""
    derived = [record.row(value, f"log-{number}") for number, value in enumerate(records)]
    table = chunk_table({name: [row.get(name) for row in derived] for name in CHUNK_SCHEMA.names})
    present = {column.name for column in VERSION_1["events"].columns}
    return table.select([name for name in table.column_names if name in present]).combine_chunks()


def dicts(table: pa.Table) -> list[dict[str, Any]]:
    at = table.schema.get_field_index("event_time")
    found: list[dict[str, Any]] = table.set_column(at, "event_time", table.column(at).cast(pa.int64())).to_pylist()
    return found


def test_texts_are_the_records() -> None:
    table = stored(RECORDS)
    texts = record_texts(table, 5).to_pylist()
    doubted = 0
    for number, (row, text) in enumerate(zip(dicts(table), texts, strict=True)):
        if text is None:
            doubted += 1
            continue
        value = json.loads(text.removesuffix(","))
        assert value.pop("eventID") == f"00000000-0000-0000-0000-{number + 5:012x}"
        restored = record.restore(row)
        del restored["eventID"]
        assert record.same(value, restored), text
    # No event id, names like marks, and counts where they do not belong.
    assert doubted == 4


def test_places() -> None:
    ids = np.frombuffer(bytes(8) + (77).to_bytes(8, "big") + b"\xff" * 16 + bytes(8) + b"\xff" * 8, "V16")
    assert places_of(ids).tolist()[0] == 77
    assert all(place < 0 for place in places_of(ids).tolist()[1:])


def test_derived_rows_are_those_of_the_records() -> None:
    table = stored(RECORDS)
    events, summaries = Derivation(True)(table, np.ones(len(table), bool))
    found = {row["log_object"]: row for row in dicts(events)}
    assert len(found) == len(RECORDS)
    for number, value in enumerate(RECORDS):
        expected = record.row(value, f"log-{number}")
        assert comparable(found[f"log-{number}"]) == comparable(
            {name: expected.get(name) for name in CHUNK_SCHEMA.names}
        )
    assert sum(sum(tables["hourly"].column("events").to_pylist()) for tables in summaries) == len(RECORDS)


def test_rows_that_a_stream_left_members_out_of_stay() -> None:
    """Nothing in the lake says so: without ``userIdentity`` an event would lose its role."""
    table = stored([sample(), sample(eventID="11111111-2222-4333-8444-666666666666")])
    table = with_column(table, "weight", [1.0, 4.0])
    at = table.schema.get_field_index("rest")
    rest = pa.array([table.column("rest")[0].as_py(), None]).dictionary_encode()
    table = table.set_column(at, table.schema.field(at), rest)
    events, _ = Derivation(True)(table, np.zeros(2, bool))
    kept = {row["weight"]: row for row in events.to_pylist()}
    assert kept[4.0]["role_arn"] == kept[1.0]["role_arn"] == kept[4.0]["caller"]
    assert kept[4.0]["principal_id"] is None
    assert kept[4.0]["rest"] is None


def test_the_place_of_an_unreadable_row() -> None:
    table = stored([sample(), sample(eventID="11111111-2222-4333-8444-666666666666"), sample()])
    at = table.schema.get_field_index("rest")
    rest = pa.array(["{}", "[", "{}"]).dictionary_encode()
    with pytest.raises(UnreadableRowError) as raised:
        Derivation(True)(table.set_column(at, table.schema.field(at), rest), np.zeros(3, bool))
    assert raised.value.place == 1
