"""Tables of a lake in S3 in Glue: what other engines read there, several writers, and what is never overwritten."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from glue_server import REGION, GlueServer, Refusal, denied, glue_server
from s3_server import KEY, SECRET, Server, s3, s3_server
from support.paths import ROOT
from support.s3_lakes import Image, image_of
from trailsift import Lake
from trailsift.cli import main
from trailsift.errors import GlueError, LakeError, UsageError
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.lake import expire, glue, glue_setting, index
from trailsift.lake.mirror import Mirror
from trailsift.lake.mirrored_storage import open_mirror
from trailsift.lake.open import open_snapshot
from trailsift.lake.register import register
from trailsift.lake.settings import LAKE_FILE
from trailsift.lake.writer import LakeWriter
from trailsift.schema import TABLES

__all__ = ["glue_server", "s3", "s3_server"]

pytest.importorskip("obstore", reason="the extra aws is not installed")
pytest.importorskip("boto3", reason="the extra aws is not installed")

DATABASE = "cloudtrail"


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight folders of logs, 600 events in all."""
    folder = tmp_path_factory.mktemp("glue") / "logs"
    generate(folder, Options(events=600, days=2, seed=5))
    parts = [folder.parent / f"part{number}" for number in range(8)]
    for number, file in enumerate(sorted((folder / "AWSLogs").rglob("*.json.gz"))):
        target = parts[number % 8] / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return parts


@pytest.fixture
def server(
    s3: Server, glue_server: GlueServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GlueServer]:
    """Glue and S3, each at its own address, with an empty database. Pointers are moved after every commit."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", glue_server.url)
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(glue, "EVERY", 0.0)
    monkeypatch.setattr(glue, "AFTER_FAILURE", 0.0)
    glue_server.rule = lambda *_: None
    glue_server.new_database(DATABASE)
    glue_server.requests.clear()
    yield glue_server
    glue_server.rule = lambda *_: None


@pytest.fixture(scope="session")
def image(s3_server: Server, parts: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Image:
    return image_of(s3_server, parts[0], tmp_path_factory.mktemp("glue-cache"))


@pytest.fixture
def url(s3: Server, server: GlueServer, image: Image) -> str:
    """The URL of a lake with an eighth of the events."""
    image.restore(s3)
    return image.url


@pytest.fixture
def lake(url: str) -> Lake:
    return Lake(url)


class Engine:
    """Another engine, which finds the tables in Glue and reads them in S3."""

    def __init__(self, s3: Server, server: GlueServer) -> None:
        from pyiceberg.catalog.glue import GlueCatalog

        keys = {"s3.access-key-id": KEY, "s3.secret-access-key": SECRET, "s3.region": "us-east-1"}
        self.catalog = GlueCatalog("other", server.client(), **{"s3.endpoint": s3.url, **keys})

    def rows(self, table: str) -> int:
        return int(self.catalog.load_table((DATABASE, table)).scan().to_arrow().num_rows)


@pytest.fixture
def engine(s3: Server, server: GlueServer) -> Engine:
    return Engine(s3, server)


def ours(lake: Lake) -> dict[str, int]:
    """Return the rows of each table. A query's views add up the lines of the same keys, another engine does that."""
    snapshot = open_snapshot(lake._root())
    return {table: sum(file.rows for file in snapshot.files(table)) for table in TABLES}


def commit_of(server: GlueServer, table: str = "events") -> int:
    return int(server.table(DATABASE, table)["Parameters"][glue.COMMIT])


def head(lake: Lake) -> index.Snapshot:
    return index.last_commit(lake._root("write"))


def pointer(server: GlueServer, table: str = "events") -> str:
    return str(server.table(DATABASE, table)["Parameters"]["metadata_location"])


# -- what other engines see --------------------------------------------------------------------------------------------


def test_another_engine_reads_what_we_read(lake: Lake, engine: Engine, server: GlueServer, parts: list[Path]) -> None:
    registered = lake.register(DATABASE)
    assert {state.table: state.what for state in registered.tables} == dict.fromkeys(TABLES, "registered")
    assert {table: engine.rows(table) for table in TABLES} == ours(lake)
    lake.ingest(parts[1])
    assert {table: engine.rows(table) for table in TABLES} == ours(lake)
    lake.ingest(*parts[2:])
    assert {table: engine.rows(table) for table in TABLES} == ours(lake)
    lake.compact(everything=True)
    assert ours(lake)["events"] == 600 == lake.query("SELECT count(*) FROM events").value()
    assert {table: engine.rows(table) for table in TABLES} == ours(lake)
    sums = engine.catalog.load_table((DATABASE, "hourly")).scan().to_arrow()["events"]
    assert sum(sums.to_pylist()) == 600
    assert {table: pointer(server, table) for table in TABLES} == head(lake).locations


def test_tables_are_described_as_engines_expect(lake: Lake, engine: Engine, server: GlueServer, url: str) -> None:
    lake.register(DATABASE)
    lake.compact(everything=True)
    for name in TABLES:
        table = server.table(DATABASE, name)
        columns = engine.catalog.load_table((DATABASE, name)).schema().fields
        assert table["TableType"] == "EXTERNAL_TABLE" and table["PartitionKeys"] == []
        assert table["Parameters"]["table_type"] == "ICEBERG"
        assert table["StorageDescriptor"]["Location"] == f"{url}/{name}"
        described = table["StorageDescriptor"]["Columns"]
        assert [(column["Name"], column["Parameters"]["iceberg.field.id"]) for column in described] == [
            (field.name, str(field.field_id)) for field in columns
        ]
        # Glue refuses longer ones.
        assert all(len(column["Comment"]) <= 255 and column["Comment"].isprintable() for column in described)
    # PyIceberg's own description of the same columns.
    from pyiceberg.catalog.glue import _to_columns

    theirs = _to_columns(engine.catalog.load_table((DATABASE, "events")).metadata)
    mine = server.table(DATABASE, "events")["StorageDescriptor"]["Columns"]
    assert [(c["Name"], c["Type"]) for c in mine] == [(c["Name"], c["Type"]) for c in theirs]


def test_updates_name_the_version_and_keep_what_others_set(lake: Lake, server: GlueServer, parts: list[Path]) -> None:
    lake.register(DATABASE)
    table = server.table(DATABASE, "events")
    before = table["Parameters"]["metadata_location"]
    mine = {name: table[name] for name in ("Name", "TableType", "PartitionKeys", "StorageDescriptor")}
    parameters = {**table["Parameters"], "owner-team": "security"}
    server.client().update_table(
        DatabaseName=DATABASE,
        VersionId=table["VersionId"],
        TableInput={**mine, "Parameters": parameters, "Description": "By hand.", "Owner": "them"},
    )
    server.requests.clear()
    lake.ingest(parts[1])
    after = server.table(DATABASE, "events")
    assert after["Parameters"]["owner-team"] == "security"
    assert (after["Description"], after["Owner"]) == ("By hand.", "them")
    assert after["Parameters"]["previous_metadata_location"] == before != pointer(server)
    updates = [body for action, body in server.requests if action == "UpdateTable"]
    assert updates and all(body["SkipArchive"] and body["VersionId"] for body in updates)


def test_the_command(lake: Lake, url: str, server: GlueServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", "--glue", DATABASE, "--region", REGION, "--lake", url]) == 0
    out = capsys.readouterr().out
    assert "registered" in out and f"database {DATABASE} in {REGION} follows each commit of {url}" in " ".join(
        out.split()
    )
    assert main(["connect", "--glue", DATABASE, "--lake", url, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["glue"] == {"database": DATABASE, "region": REGION, "catalog_id": None}
    assert [table["done"] for table in said["tables"]] == ["current"] * len(TABLES)
    assert main(["connect", "--no-glue", "--lake", url]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "does not follow" in out and f"aws glue batch-delete-table --region {REGION} --database-name {DATABASE}" in out
    )
    assert Lake(url).registration() is None
    assert main(["connect", "--no-glue", "--lake", url]) == 0
    assert f"No Glue database follows {url}" in capsys.readouterr().out


def test_status_names_the_database(lake: Lake, server: GlueServer, s3: Server, url: str, capsys: Any) -> None:
    """Without asking Glue: that is for `connect`."""
    assert lake.status().glue is None
    lake.register(DATABASE, region=REGION)
    server.requests.clear()
    glue = lake.status().as_dict()["glue"]
    named = {"database": DATABASE, "region": REGION, "catalog_id": None}
    assert glue == {"database": named, "applies": True, "problem": None} and not server.requests
    assert main(["status", "--lake", url]) == 0
    assert f"database {DATABASE} in {REGION}: its tables follow each commit" in capsys.readouterr().out
    set_by_hand(s3, url, {"database": DATABASE, "region": REGION, "place": "s3://elsewhere/lake"})
    shutil.rmtree(lake._root())
    assert [todo.command for todo in lake.status().to_do][-1].startswith("trailsift connect --glue")
    set_by_hand(s3, url, {"database": "x" * 300})
    shutil.rmtree(lake._root())
    connection = lake.status().glue
    assert connection is not None and connection.target is None and "lake.json" in str(connection.problem)
    assert lake.status().to_do[-1].command == f"trailsift connect --no-glue --lake {url}"


def test_after_it_is_taken_out_nothing_is_sent(lake: Lake, server: GlueServer, parts: list[Path]) -> None:
    lake.register(DATABASE)
    before = pointer(server)
    assert lake.unregister() is not None
    server.requests.clear()
    lake.ingest(parts[1])
    lake.compact(everything=True)
    assert server.requests == [] and pointer(server) == before


def test_commits_in_a_row_are_followed_together(
    lake: Lake, server: GlueServer, parts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.register(DATABASE)
    root = lake._root("write")
    monkeypatch.setattr(glue, "EVERY", 5.0)
    glue._followers.pop(root, None)
    server.requests.clear()
    started = time.monotonic()
    for part in parts[1:]:
        ingest([str(part)], root, compact=False)
    newest = head(lake).locations["events"]
    while pointer(server) != newest and time.monotonic() - started < 60:
        time.sleep(0.05)
    assert pointer(server) == newest
    moved = sum(action == "UpdateTable" and body["TableInput"]["Name"] == "events" for action, body in server.requests)
    # The first one at once, and those that came within five seconds together.
    assert 2 <= moved <= 2 + (time.monotonic() - started) // 5 < len(parts) - 1


def test_the_last_commits_of_a_process_are_followed_at_its_end(
    lake: Lake, server: GlueServer, parts: list[Path]
) -> None:
    lake.register(DATABASE)
    # Unlike here, pointers are moved every five seconds.
    script = (
        "import sys; from trailsift import Lake; from trailsift.ingest import ingest; "
        "root = Lake(sys.argv[1])._root('write');"
        "[ingest([part], root, workers=0, compact=False) for part in sys.argv[2:]]"
    )
    words = [sys.executable, "-c", script, str(lake.path), *map(str, parts[1:])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lake._root("write")
    LakeWriter(lake._root("write"))
    assert pointer(server) == head(lake).locations["events"]


# -- several writers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def machines(lake: Lake, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Mirror, Mirror]:
    """Two machines with a cache each, which write into the registered lake."""
    found = []
    for name in ("a", "b"):
        with monkeypatch.context() as context:
            context.setenv("XDG_CACHE_HOME", str(tmp_path / name))
            found.append(open_mirror(url, "write"))
    lake.register(DATABASE)
    return found[0], found[1]


def test_a_late_writer_moves_nothing_back(
    machines: tuple[Mirror, Mirror], server: GlueServer, parts: list[Path], lake: Lake
) -> None:
    a, b = machines
    ingest([str(parts[1])], a.root)
    ingest([str(parts[2])], b.root)
    newest = pointer(server)
    assert newest == index.last_commit(b.root).locations["events"] != index.last_commit(a.root).locations["events"]
    target = lake.registration()
    assert target is not None
    states = {state.table: state.what for state in glue.move(a.root, target)}
    assert states["events"] == "ahead" and pointer(server) == newest


def test_a_writer_that_is_overtaken_between_look_and_move(
    machines: tuple[Mirror, Mirror], server: GlueServer, parts: list[Path]
) -> None:
    """Glue's lock stops it, and then it sees the later commit."""
    a, b = machines
    met: list[str] = []

    def rule(action: str, body: dict[str, Any]) -> None:
        if action == "UpdateTable" and body["TableInput"]["Name"] == "events" and not met:
            met.append(body["TableInput"]["Parameters"]["metadata_location"])
            ingest([str(parts[2])], b.root, workers=0)

    server.rule = rule
    ingest([str(parts[1])], a.root, workers=0)
    assert met and pointer(server) == index.last_commit(b.root).locations["events"] != met[0]
    assert commit_of(server) == index.last_commit(b.root).seq


def test_two_machines_at_the_same_time(
    machines: tuple[Mirror, Mirror], server: GlueServer, parts: list[Path], engine: Engine, lake: Lake
) -> None:
    script = "import sys; from trailsift import Lake; [Lake(sys.argv[1]).ingest(part) for part in sys.argv[2:]]"
    running = []
    for mirror, some in zip(machines, (parts[1:5], parts[5:]), strict=True):
        env = os.environ | {"XDG_CACHE_HOME": str(mirror.folder.parents[2])}
        words = [sys.executable, "-c", script, str(lake.path), *map(str, some)]
        running.append(subprocess.Popen(words, env=env))
    assert [process.wait(120) for process in running] == [0, 0]
    assert ours(lake)["events"] == 600
    assert {table: engine.rows(table) for table in TABLES} == ours(lake)


def test_a_writer_at_work_hears_of_it(
    lake: Lake, url: str, server: GlueServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read the settings long before, and commits on."""
    with monkeypatch.context() as context:
        context.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        writer = LakeWriter(open_mirror(url, "write").root)

    def commit() -> int:
        server.requests.clear()
        with writer.begin() as transaction:
            transaction.commit({"log_objects": 0})
        return server.count("GetTable")

    assert commit() == 0
    lake.register(DATABASE)
    assert commit() == len(TABLES)
    lake.unregister()
    assert commit() == 0
    assert lake.verify().is_sound


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_commit_stands_without_glue(
    lake: Lake, server: GlueServer, parts: list[Path], caplog: pytest.LogCaptureFixture, engine: Engine
) -> None:
    lake.register(DATABASE)
    before = pointer(server)
    server.rule = lambda *_: Refusal(status=0)
    with caplog.at_level(logging.WARNING, "trailsift"):
        assert lake.ingest(parts[1]).stored > 0
    assert pointer_without_rule(server) == before
    assert "everything was committed, but the tables in Glue do not follow" in caplog.text
    assert "glue:GetTable on table/cloudtrail/events in eu-west-1 failed" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "trailsift"):
        lake.ingest(parts[2])
    assert "follow" in caplog.text and "again" in caplog.text
    assert engine.rows("events") == ours(lake)["events"]


def pointer_without_rule(server: GlueServer) -> str:
    server.rule = lambda *_: None
    return pointer(server)


def test_a_command_repairs_what_does_not_follow(lake: Lake, server: GlueServer, parts: list[Path]) -> None:
    lake.register(DATABASE)
    before = commit_of(server)
    server.rule = lambda *_: Refusal("InternalServiceException", "try later", 500)
    lake.ingest(parts[1])
    server.rule = lambda *_: None
    states = {state.table: state for state in lake.register(DATABASE).tables}
    assert states["events"].what == "moved" and states["events"].before == before
    assert pointer(server) == head(lake).locations["events"]


def test_a_lost_answer_to_an_update(lake: Lake, server: GlueServer, parts: list[Path]) -> None:
    """The client tries again; Glue refuses the version, and the table is seen to be where it belongs."""
    lake.register(DATABASE)
    lost: list[str] = []

    def rule(action: str, body: dict[str, Any]) -> Refusal | None:
        name = body["TableInput"]["Name"] if action == "UpdateTable" else ""
        if name == "events" and not lost:
            lost.append(name)
            server.client().update_table(**body)
            return Refusal(status=0)
        return None

    server.rule = rule
    lake.ingest(parts[1])
    assert lost and pointer(server) == head(lake).locations["events"]


@pytest.mark.parametrize("action", ["GetDatabase", "GetTable", "CreateTable"])
def test_who_may_not_register_is_told_what_is_missing(lake: Lake, server: GlueServer, action: str) -> None:
    place = f"arn:aws:glue:{REGION}:111122223333:catalog"
    server.rule = lambda name, _: denied(name, place) if name == action else None
    what = "database/cloudtrail" if action == "GetDatabase" else "table/cloudtrail/"
    with pytest.raises(GlueError, match=rf"the credentials lack glue:{action} on {what}.* in {REGION} .*{place}"):
        lake.register(DATABASE)
    assert lake.registration() is None


def test_who_may_not_move_is_told_what_is_missing(
    lake: Lake, server: GlueServer, parts: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    lake.register(DATABASE)
    server.rule = lambda name, _: denied(name, "x") if name == "UpdateTable" else None
    with caplog.at_level(logging.WARNING, "trailsift"):
        lake.ingest(parts[1])
    assert "the credentials lack glue:UpdateTable on table/cloudtrail/" in caplog.text


def test_a_database_that_does_not_exist(lake: Lake) -> None:
    with pytest.raises(GlueError, match=f"aws glue create-database --region {REGION} --database-input Name=nowhere"):
        lake.register("nowhere")
    assert lake.registration() is None


def test_glue_out_of_reach(lake: Lake, server: GlueServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", "http://127.0.0.1:9")
    with pytest.raises(GlueError, match="check the region, AWS_ENDPOINT_URL and the network"):
        lake.register(DATABASE)


# -- what is never overwritten -----------------------------------------------------------------------------------------


def foreign(server: GlueServer, name: str = "hourly", **parameters: str) -> dict[str, Any]:
    description = {"Name": name, "Parameters": parameters, "StorageDescriptor": {"Location": "s3://theirs/x"}}
    server.client().create_table(DatabaseName=DATABASE, TableInput=description)
    return server.table(DATABASE, name)


@pytest.mark.parametrize("parameters", [{}, {glue.LAKE: "s3://theirs/lake", glue.COMMIT: "1"}, {glue.COMMIT: "0"}])
def test_a_foreign_table_is_named_and_stays(lake: Lake, server: GlueServer, parameters: dict[str, str]) -> None:
    before = foreign(server, **parameters)
    for replace in (False, True):
        with pytest.raises(GlueError, match="hourly in the database cloudtrail in eu-west-1 is not of this lake"):
            lake.register(DATABASE, replace=replace)
    assert server.table(DATABASE, "hourly") == before
    assert server.count("UpdateTable") == 0
    assert [table["Name"] for table in server.client().get_tables(DatabaseName=DATABASE)["TableList"]] == ["hourly"]
    assert lake.registration() is None


def test_settings_of_a_stranger_write_nothing_into_an_account(
    lake: Lake, url: str, s3: Server, server: GlueServer, parts: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody registered the lake in this account, whatever its ``lake.json`` says."""
    before = foreign(server, "events")
    set_by_hand(s3, url, {"database": DATABASE, "region": REGION, "place": url})
    server.requests.clear()
    with caplog.at_level(logging.WARNING, "trailsift"):
        assert lake.ingest(parts[1]).stored > 0
    assert {action for action, _ in server.requests} <= {"GetTable"}
    assert server.table(DATABASE, "events") == before
    assert [table["Name"] for table in server.client().get_tables(DatabaseName=DATABASE)["TableList"]] == ["events"]
    assert "events in the database cloudtrail in eu-west-1 is not of this lake" in caplog.text
    assert "is missing in the database cloudtrail" in caplog.text


def set_by_hand(s3: Server, url: str, setting: object) -> None:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    client, key = s3.client(), f"{prefix}/{LAKE_FILE}"
    settings = json.loads(client.get_object(Bucket=bucket, Key=key)["Body"].read())
    client.put_object(Bucket=bucket, Key=key, Body=json.dumps({**settings, "glue": setting}).encode())


def test_settings_for_another_place_are_not_applied(
    lake: Lake, url: str, s3: Server, server: GlueServer, parts: list[Path]
) -> None:
    set_by_hand(s3, url, {"database": DATABASE, "region": REGION, "place": "s3://somewhere/else"})
    server.requests.clear()
    lake.ingest(parts[1])
    assert server.requests == [] and lake.registration() is None


@pytest.mark.parametrize(
    "setting",
    [
        "x",
        [],
        {"database": DATABASE},
        {"database": DATABASE, "region": REGION, "place": 1},
        {"database": "UPPER", "region": REGION, "place": "s3://x/y"},
        {"database": DATABASE, "region": "eu-west-1.evil.example/", "place": "s3://x/y"},
        {"database": DATABASE, "region": "", "place": "s3://x/y"},
        {"database": DATABASE, "region": REGION, "place": "s3://x/y", "catalog_id": "x"},
        {"database": DATABASE, "region": REGION, "place": "s3://x/y", "endpoint": "http://evil.example"},
    ],
)
def test_settings_that_are_not_valid(
    setting: object, lake: Lake, url: str, s3: Server, server: GlueServer, parts: list[Path], caplog: Any
) -> None:
    set_by_hand(s3, url, setting)
    server.requests.clear()
    with pytest.raises(LakeError, match=r"glue in lake.json is .* --no-glue` takes it out"):
        lake.registration()
    with caplog.at_level(logging.WARNING, "trailsift"):
        assert lake.ingest(parts[1]).stored > 0
    assert server.requests == [] and "glue in lake.json is" in caplog.text
    lake.unregister()
    assert lake.registration() is None


def test_what_another_engine_changed_is_not_overwritten(
    lake: Lake, server: GlueServer, parts: list[Path], caplog: pytest.LogCaptureFixture, engine: Engine
) -> None:
    lake.register(DATABASE)
    table = engine.catalog.load_table((DATABASE, "rejects"))
    table.append(table.scan().to_arrow())
    theirs = pointer(server, "rejects")
    assert theirs != head(lake).locations["rejects"]
    with caplog.at_level(logging.WARNING, "trailsift"):
        lake.ingest(parts[1])
    assert pointer(server, "rejects") == theirs and pointer(server) == head(lake).locations["events"]
    assert "another engine has changed rejects" in caplog.text and "--replace" in caplog.text
    with pytest.raises(GlueError, match="another engine has changed rejects"):
        lake.register(DATABASE)
    states = {state.table: state.what for state in lake.register(DATABASE, replace=True).tables}
    assert states["rejects"] == "moved" and pointer(server, "rejects") == head(lake).locations["rejects"]


def test_a_lake_that_is_made_again_at_the_same_place(
    lake: Lake,
    url: str,
    s3: Server,
    server: GlueServer,
    parts: list[Path],
    caplog: Any,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    lake.register(DATABASE)
    lake.ingest(parts[1])
    lake.ingest(parts[2])
    setting = lake.registration()
    assert setting is not None
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    s3.client().delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys(s3, bucket) if key.startswith(prefix)]}
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    again = Lake(url)
    again.ingest(parts[3])
    with pytest.raises(GlueError, match=r"of a lake that was at this place before: .* --replace"):
        again.register(DATABASE)
    set_by_hand(s3, url, {"database": DATABASE, "region": REGION, "place": url})
    with caplog.at_level(logging.WARNING, "trailsift"):
        again.ingest(parts[0])
    assert "of a lake that was at this place before" in caplog.text
    again.register(DATABASE, replace=True)
    assert pointer(server) == head(again).locations["events"] and commit_of(server) == head(again).seq


def keys(s3: Server, bucket: str) -> list[str]:
    pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))


# -- what may be deleted -----------------------------------------------------------------------------------------------


def clean(lake: Lake, hours: float) -> Any:
    return expire.clean(LakeWriter(lake._root("write")), datetime.now(UTC) + timedelta(hours=hours))


def test_what_a_late_pointer_names_stays(
    lake: Lake, server: GlueServer, parts: list[Path], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.register(DATABASE)
    lake.ingest(parts[1])
    at_first = engine.rows("events")
    server.rule = lambda *_: Refusal("AccessDeniedException", "no")
    lake.ingest(parts[2])
    lake.compact(everything=True)
    for part in parts[3:]:
        ingest([str(part)], lake._root("write"), compact=False)
    monkeypatch.setattr(glue, "LATE", timedelta(seconds=-1))
    # An hour later nobody knows what Glue points to: the files of before the compaction stay.
    assert clean(lake, 1)["files_deleted"] == 0
    server.rule = lambda name, _: Refusal("AccessDeniedException", "no") if name == "UpdateTable" else None
    assert clean(lake, 1)["files_deleted"] == 0
    server.rule = lambda *_: None
    assert engine.rows("events") == at_first
    # It is moved now; a query that began a moment ago still reads what the old pointer names.
    assert clean(lake, 1)["files_deleted"] == 0
    assert server.table(DATABASE, "events")["Parameters"][glue.CAUGHT_UP]
    assert clean(lake, 1)["files_deleted"] == 0
    # When the grace is over, as without Glue.
    writer = LakeWriter(lake._root("write"))
    assert expire.clean(writer, datetime.now(UTC) + timedelta(hours=1), timedelta(0))["files_deleted"] > 0
    assert engine.rows("events") == ours(lake)["events"] == 600


def test_what_nobody_can_read_any_longer_goes_without_glue(lake: Lake, server: GlueServer, parts: list[Path]) -> None:
    """A Glue that never answers again keeps nothing for longer than a day."""
    lake.register(DATABASE)
    lake.ingest(parts[1])
    server.rule = lambda *_: Refusal(status=0)
    lake.compact(everything=True)
    assert clean(lake, 23)["files_deleted"] == 0
    assert clean(lake, 25)["files_deleted"] > 0


def test_a_pointer_that_follows_delays_nothing(lake: Lake, server: GlueServer, parts: list[Path]) -> None:
    lake.register(DATABASE)
    lake.ingest(parts[1])
    lake.compact(everything=True)
    for part in parts[2:]:
        ingest([str(part)], lake._root("write"), compact=False)
    assert clean(lake, 1)["files_deleted"] > 0
    assert all(glue.CAUGHT_UP not in server.table(DATABASE, name)["Parameters"] for name in TABLES)


def test_a_table_that_rarely_changes_is_not_late(lake: Lake, server: GlueServer, parts: list[Path]) -> None:
    """Its commit in Glue may be of long ago: what counts is when its pointer was left behind."""
    lake.register(DATABASE)
    before = commit_of(server, "rejects")
    lake.ingest(parts[1])
    lake.ingest(parts[2])
    root = lake._root("write")
    state = glue._head_of(root)
    assert commit_of(server, "rejects") == before < state.commit
    assert state.left("rejects", state.pointers["rejects"], before) is None
    assert state.left("rejects", "s3://another", before) is not None


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_page_run(lake: Lake, url: str, server: GlueServer, capsys: Any) -> None:
    page = (ROOT / "docs" / "glue.md").read_text("utf-8")
    lines = [line for line in page.splitlines() if line.startswith("trailsift connect")]
    assert len(lines) >= 3
    for line in lines:
        words = [url if word.startswith("s3://") else word for word in shlex.split(line)[1:]]
        assert main(words) == 0, line
        assert capsys.readouterr().out
    assert main(["connect", "--no-glue", "--lake", url]) == 0
    for name in TABLES:
        assert f"`{name}`" in page


def test_the_policy_of_the_page_is_enough(lake: Lake, server: GlueServer, parts: list[Path], engine: Engine) -> None:
    """Glue asks for each action on the catalog, the database and, if there is one, the table."""
    policy = json.loads((ROOT / "deploy" / "policies" / "lake-in-glue.json").read_text("utf-8"))
    allowed = {
        (action.removeprefix("glue:"), statement["Resource"].rpartition(":")[2].removesuffix("/*"))
        for statement in policy["Statement"]
        for action in statement["Action"]
    }
    used: set[tuple[str, str]] = set()

    def rule(action: str, body: dict[str, Any]) -> Refusal | None:
        database = body.get("DatabaseName") or body["Name"]
        places = ["catalog", f"database/{database}"] + [f"table/{database}"] * ("DatabaseName" in body)
        used.update((action, place) for place in places)
        return next((denied(action, place) for place in places if (action, place) not in allowed), None)

    server.rule = rule
    lake.register(DATABASE)
    lake.ingest(parts[1])
    assert used == allowed
    assert engine.rows("events") == ours(lake)["events"]


# -- requests that cannot be met ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--glue", "Upper Case"], "cannot be the name of a Glue database"),
        (["--glue", DATABASE, "--region", "Frankfurt"], "cannot be the region"),
        (["--glue", DATABASE, "--catalog-id", "me"], "cannot be the account"),
        (["--glue", DATABASE, "--no-glue"], "use one of --output, --glue and --no-glue"),
        (["--region", REGION], "are for --glue DATABASE"),
        (["--json"], "--json is for --glue and --no-glue"),
    ],
)
def test_words_that_cannot_be_meant(words: list[str], message: str, lake: Lake, url: str, capsys: Any) -> None:
    assert main(["connect", *words, "--lake", url]) == 2
    assert message in capsys.readouterr().err


def test_a_lake_in_a_folder(tmp_path: Path, parts: list[Path], server: GlueServer, capsys: Any) -> None:
    ingest([str(parts[0])], tmp_path / "lake")
    for words in (["--glue", DATABASE], ["--no-glue"]):
        assert main(["connect", *words, "--lake", str(tmp_path / "lake")]) == 2
        assert (
            "is a folder, and other engines reach the tables of a Glue database in S3 only" in capsys.readouterr().err
        )
    assert server.requests == []


def test_without_a_region(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(UsageError, match="--region, AWS_REGION, or a region in the profile"):
        lake.register(DATABASE)


def test_without_the_extra() -> None:
    script = (
        "import sys; sys.modules['boto3'] = None\n"
        "from trailsift.errors import UsageError\n"
        "from trailsift.lake.glue import Database\n"
        "from trailsift.lake.glue_setting import Target\n"
        "try: Database(Target('x', 'eu-west-1'))\n"
        "except UsageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "install trailsift with the extra `aws`" in done.stdout


def test_an_ingest_without_glue_does_not_import_it(url: str, parts: list[Path]) -> None:
    script = (
        "import sys; from trailsift import Lake; Lake(sys.argv[1]).ingest(sys.argv[2]); "
        "print('botocore.client' in sys.modules)"
    )
    words = [sys.executable, "-c", script, url, str(parts[0])]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "False\n"


def test_register_holds_the_newest_commit(
    machines: tuple[Mirror, Mirror], server: GlueServer, parts: list[Path]
) -> None:
    """Registered by a machine whose copy is old, it is the newest commit of all that is registered."""
    a, b = machines
    server.new_database("second")
    ingest([str(parts[1])], b.root)
    target = glue_setting.target_of("second", REGION, None)
    registered = register(a.root, target)
    assert registered.before is not None and registered.before.database == DATABASE
    found = server.table("second", "events")["Parameters"]["metadata_location"]
    assert found == index.last_commit(b.root).locations["events"]
