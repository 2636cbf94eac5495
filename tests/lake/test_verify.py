"""``verify``: every changed byte that counts is found, and nothing else is called damage."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.contents import answers
from support.paths import variants
from trailsift.cli import main
from trailsift.errors import LakeError
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.lake import digest, expire, index
from trailsift.lake.compact import compact, compact_lake
from trailsift.lake.relocate import relocate
from trailsift.lake.verify import Verification, verify
from trailsift.lake.writer import LakeWriter

LATER = datetime.now(UTC) + timedelta(days=40)
KINDS: dict[str, Callable[[str], bool]] = {
    "data": lambda path: "/data/" in path,
    "ids": lambda path: path.startswith("seen/"),
    "metadata": lambda path: path.endswith(".metadata.json"),
    "manifest": lambda path: path.endswith(".avro"),
}

CHANGED_ROWS = [
    "UPDATE file SET rows = rows + 1 WHERE rowid = (SELECT min(rowid) FROM file WHERE removed IS NULL)",
    "UPDATE file SET min_time = min_time + 1 WHERE rowid = (SELECT min(rowid) FROM file)",
    "UPDATE file SET removed = NULL WHERE rowid = (SELECT min(rowid) FROM file WHERE removed IS NOT NULL)",
    "UPDATE file SET removed = added WHERE rowid = (SELECT max(rowid) FROM file WHERE removed IS NULL)",
    "DELETE FROM file WHERE rowid = (SELECT max(rowid) FROM file WHERE removed IS NULL)",
    "UPDATE seen_file SET removed = 1 WHERE rowid = (SELECT max(rowid) FROM seen_file)",
    "DELETE FROM seen_file WHERE rowid = (SELECT max(rowid) FROM seen_file)",
    "UPDATE commit_log SET counts = '{}' WHERE seq = 1",
    "DELETE FROM commit_log WHERE seq = 2",
    "DELETE FROM object_file WHERE path = (SELECT min(path) FROM object_file)",
    "UPDATE object_file SET day = '2000-01-01' WHERE path = (SELECT min(path) FROM object_file)",
    "UPDATE iceberg_tables SET previous_metadata_location = metadata_location WHERE table_name = 'events'",
    "UPDATE iceberg_tables SET metadata_location = replace(metadata_location, '/metadata/', '/metadatb/')",
    "UPDATE iceberg_tables SET iceberg_type = 'TABLF' WHERE table_name = 'events'",
    "UPDATE iceberg_tables SET iceberg_type = x'00' WHERE table_name = 'hourly'",
    "DELETE FROM iceberg_tables WHERE table_name = 'hourly'",
    "UPDATE iceberg_namespace_properties SET namespace = 'trailsifu'",
    "UPDATE iceberg_namespace_properties SET property_value = 'trud'",
    "DELETE FROM iceberg_namespace_properties",
    "DELETE FROM file_digest WHERE path = (SELECT path FROM file WHERE removed IS NULL LIMIT 1)",
    "UPDATE file_digest SET bytes = 1 WHERE path = (SELECT path FROM file WHERE removed IS NULL LIMIT 1)",
    "UPDATE row_digest SET key = '9' WHERE key = '1' AND table_name = 'commit_log'",
    "DELETE FROM commit_log WHERE seq = (SELECT max(seq) FROM commit_log)",
]


#: Of the changes, one of each table of the catalog; all of them with `make variants`.
FEW_CHANGED_ROWS = [CHANGED_ROWS[at] for at in (0, 3, 5, 8, 9, 12, 16, 20, 22)]
HIDDEN_ROWS = [sql for sql in CHANGED_ROWS if "SET previous_metadata_location" not in sql]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,500 events of three days, 2026-03-02 to 2026-03-04."""
    folder = tmp_path_factory.mktemp("verify-logs")
    generate(folder, Options(events=1500, days=3, seed=7))
    return folder / "AWSLogs"


@pytest.fixture(scope="module")
def kept(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of four commits and a compaction, whose replaced files are still there."""
    lake = tmp_path_factory.mktemp("verify") / "lake"
    files = sorted(str(path) for path in logs.rglob("03/*.json.gz"))
    for number in range(4):
        ingest(files[number::4], lake, compact=False)
    compact(lake, everything=True)
    lake.rename(lake.with_name("kept"))
    return lake.with_name("kept")


@pytest.fixture
def lake(kept: Path) -> Path:
    path = kept.with_name("lake")
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(kept, path)
    return path


def needed(lake: Path, kind: str) -> list[Path]:
    """The files of a kind, in a fixed order."""
    paths = sorted(path for path in lake.rglob("*") if path.is_file())
    return [path for path in paths if KINDS[kind](path.relative_to(lake).as_posix())]


def names(found: Verification) -> set[str]:
    return {problem.where for problem in found.problems}


def flip(path: Path, draw: random.Random) -> bytes:
    """Change one byte; return the bytes before."""
    before = path.read_bytes()
    changed = bytearray(before)
    changed[draw.randrange(len(changed))] ^= draw.randrange(1, 256)
    path.write_bytes(bytes(changed))
    return before


def catalog(lake: Path, sql: str) -> None:
    with closing(sqlite3.connect(lake / "catalog.db")) as db:
        assert db.execute(sql).rowcount > 0
        db.commit()


@pytest.mark.parametrize("kind", KINDS)
def test_each_changed_byte_is_found(kind: str, lake: Path) -> None:
    draw = random.Random(15)
    assert verify(lake).problems == []
    for path in draw.sample(needed(lake, kind), 4):
        before = flip(path, draw)
        found = verify(lake)
        assert path.relative_to(lake).as_posix() in names(found)
        assert all(problem.what and problem.advice for problem in found.problems)
        path.write_bytes(before)
    assert verify(lake).problems == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quick", [False, True])
def test_a_file_that_was_cut_or_is_missing_is_found(kind: str, quick: bool, lake: Path) -> None:
    with closing(index.connect(lake)) as db:
        live = {path for (path,) in db.execute("SELECT path FROM file WHERE removed IS NULL")}
        live |= {path for (path,) in db.execute("SELECT path FROM seen_file WHERE removed IS NULL")}
        live |= {path.split("/lake/")[1] for (path,) in db.execute("SELECT metadata_location FROM iceberg_tables")}
    path = next(p for p in needed(lake, kind) if kind == "manifest" or p.relative_to(lake).as_posix() in live)
    before = path.read_bytes()
    path.write_bytes(before[:-1])
    assert path.relative_to(lake).as_posix() in names(verify(lake, quick=quick))
    path.unlink()
    assert path.relative_to(lake).as_posix() in names(verify(lake, quick=quick))


def test_quick_does_not_read_content(lake: Path) -> None:
    flip(needed(lake, "data")[0], random.Random(1))
    assert verify(lake, quick=True).is_sound and not verify(lake).is_sound


@pytest.mark.parametrize("sql", CHANGED_ROWS)
def test_changed_rows_of_the_catalog_are_found(sql: str, lake: Path) -> None:
    catalog(lake, sql)
    assert "catalog.db" in names(verify(lake))


@pytest.mark.parametrize("sql", variants(HIDDEN_ROWS, FEW_CHANGED_ROWS))
def test_writers_do_not_cover_damage_of_the_catalog(sql: str, lake: Path, logs: Path) -> None:
    # The one row that each commit writes whole, the previous metadata of a table, is sound again after it.
    catalog(lake, sql)
    files = sorted(map(str, logs.rglob("04/*.json.gz")))
    for write in (
        lambda: ingest(files, lake),
        lambda: ingest(files, lake, again=True),
        lambda: compact(lake, everything=True),
    ):
        with suppress(LakeError):
            write()
    assert "catalog.db" in names(verify(lake))


def test_a_changed_user_version_is_found(lake: Path) -> None:
    with closing(sqlite3.connect(lake / "catalog.db")) as db:
        db.execute("PRAGMA user_version = 1")
    assert "catalog.db" in names(verify(lake))


def test_bytes_of_the_catalog_are_found_or_harmless(lake: Path) -> None:
    """A byte that is not reported lies in a part of a page that SQLite does not use: all rows are the same."""
    draw = random.Random(3)
    path = lake / "catalog.db"
    whole = answers(lake)
    found = 0
    for _ in range(12):
        before = flip(path, draw)
        is_sound = verify(lake).is_sound
        found += not is_sound
        if is_sound:
            assert answers(lake) == whole
        path.write_bytes(before)
    assert found


def test_foreign_files_are_named(lake: Path) -> None:
    strange = ["events/data/x.parquet", f"events/data/{'ab' * 16}.parquet", "seen/notes.txt", "notes.txt"]
    for path in strange:
        (lake / path).write_text("x")
    assert names(verify(lake)) == set(strange)


@pytest.mark.parametrize("table", ["file_digest", "row_digest"])
def test_rows_without_a_path_or_a_key(table: str, lake: Path) -> None:
    """A damaged page of SQLite has NULL where the schema says that there is none."""
    with closing(sqlite3.connect(lake / "catalog.db", isolation_level=None)) as db:
        columns = [(name, kind) for _, name, kind, *_ in db.execute(f"PRAGMA table_info({table})")]
        rows = db.execute(f"SELECT * FROM {table}").fetchall()
        db.execute(f"DROP TABLE {table}")
        db.execute(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns)})")
        marks = ", ".join("?" * len(columns))
        db.executemany(f"INSERT INTO {table} VALUES ({marks})", [*rows, [None] * len(columns)])
    assert "catalog.db" in names(verify(lake))


def test_an_unknown_setting_is_named(lake: Path) -> None:
    """A flipped byte in its name would switch a setting off."""
    path = lake / "lake.json"
    path.write_text(path.read_text().replace("hourly_partitions", "hourly_qartitions"))
    (problem,) = verify(lake).problems
    assert problem.where == "lake.json" and "hourly_qartitions" in problem.what


def test_a_lake_goes_on_being_sound(lake: Path, logs: Path, tmp_path: Path) -> None:
    """After every kind of change: ingest, again, compaction, expiry, forgetting, a move, a removed catalog's rows."""
    ingest([str(logs)], lake)
    assert verify(lake).problems == []
    ingest([str(logs)], lake, again=True)
    compact_lake(LakeWriter(lake), everything=True, now=LATER)
    assert verify(lake).problems == []
    expire.clean(LakeWriter(lake), LATER + timedelta(days=30))
    assert verify(lake).problems == []
    moved = tmp_path / "moved"
    shutil.copytree(lake, moved)
    assert [problem.kind for problem in verify(moved).problems] == ["moved"]
    relocate(moved)
    found = verify(moved)
    assert found.problems == [] and found.undigested == 0


def test_a_lake_without_digests_gets_them_from_compact(lake: Path, logs: Path) -> None:
    """An earlier version has no such tables, and leaves rows without digests in a lake that has them."""
    with closing(sqlite3.connect(lake / "catalog.db")) as db:
        db.executescript("DROP TABLE file_digest; DROP TABLE row_digest")
    found = verify(lake)
    assert found.is_sound and found.undigested == found.files > 0
    assert "trailsift compact" in " ".join(found.notes)
    ingest(sorted(map(str, logs.rglob("04/*.json.gz")))[:3], lake, compact=False)
    assert verify(lake).problems == []
    compact(lake)
    found = verify(lake)
    assert found.is_sound and found.undigested == 0 and found.notes == []
    flip(needed(lake, "data")[0], random.Random(2))
    assert not verify(lake).is_sound


def test_no_false_damage_while_others_write(lake: Path, logs: Path) -> None:
    files = sorted(map(str, logs.rglob("04/*.json.gz")))
    errors: list[BaseException] = []

    def write() -> None:
        try:
            for number in range(3):
                ingest(files[number::3], lake, compact=False)
                compact(lake, everything=True)
                expire.clean(LakeWriter(lake), LATER)
        except BaseException as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    asked = 0
    while writer.is_alive() or not asked:
        found = verify(lake)
        assert found.problems == [], asked
        asked += 1
    writer.join()
    assert not errors and asked > 2 and verify(lake).problems == []


def test_a_crash_between_files_and_commit_is_not_damage(
    lake: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(map(str, logs.rglob("04/*.json.gz")))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(digest, "seal", crash)
        # The files stay behind, as they do when the process is killed.
        patched.setattr(LakeWriter, "sweep", crash)
        with pytest.raises(KeyboardInterrupt):
            ingest(files, lake, compact=False)
    found = verify(lake)
    assert found.problems == [] and "A writer" in " ".join(found.notes)
    ingest(files, lake, compact=False)
    assert verify(lake).problems == [] and verify(lake).notes == []


def test_compact_does_not_make_damage_look_sound(lake: Path, logs: Path) -> None:
    ingest(sorted(map(str, logs.rglob("04/*.json.gz"))), lake, compact=False)
    with closing(index.connect(lake)) as db:
        sql = "SELECT path FROM file WHERE removed IS NULL AND table_name = 'hourly' ORDER BY added DESC"
        (path,) = db.execute(sql).fetchone()
    flip(lake / path, random.Random(4))
    ingest(sorted(map(str, logs.rglob("02/*.json.gz"))), lake, compact=False)
    with pytest.raises(LakeError, match="is damaged"):
        compact(lake, everything=True)
    assert names(verify(lake)) == {path}


@pytest.mark.parametrize("how", ["cut by a byte", "cut by an id", "empty", "longer", "other bytes", "missing"])
def test_a_damaged_file_of_ids_stores_nothing_twice(how: str, lake: Path, logs: Path) -> None:
    before = answers(lake)
    path = max(needed(lake, "ids"), key=lambda path: path.stat().st_size)
    data = path.read_bytes()
    changed = {
        "cut by a byte": data[:-1],
        "cut by an id": data[:-20],
        "empty": b"",
        "longer": data + b"x",
        "other bytes": random.Random(5).randbytes(len(data)),
    }.get(how)
    path.unlink() if changed is None else path.write_bytes(changed)
    with pytest.raises(LakeError, match=r"event ids in .* damaged.*trailsift verify"):
        ingest(sorted(map(str, logs.rglob("03/*.json.gz"))), lake, again=True)
    assert answers(lake) == before
    path.write_bytes(data)
    counts = ingest(sorted(map(str, logs.rglob("03/*.json.gz"))), lake, again=True)
    assert counts.stored == 0 and answers(lake) == before


def test_the_command(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--lake", str(lake)]) == 0
    assert "No damage found" in capsys.readouterr().out
    path = needed(lake, "data")[0]
    flip(path, random.Random(6))
    assert main(["verify", "--lake", str(lake)]) == 3
    out = capsys.readouterr().out
    assert path.name in out and "Restore it from a copy" in out
    assert main(["verify", "--lake", str(lake), "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert not report["is_sound"] and report["problems"][0]["where"] == path.relative_to(lake).as_posix()
    assert main(["verify", "--lake", str(lake / "nosuch")]) == 1
