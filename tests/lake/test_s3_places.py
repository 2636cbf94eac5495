"""Where a lake in S3 and its copies lie: prefixes, permissions, caches, and what others have put there."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from s3_proxy import Fault, Proxy, Request, refusal
from s3_server import Server, s3, s3_server
from s3_server import proxy as proxy
from support.s3_lakes import EVENTS, Inputs, filled, inputs, lake_image, new_lake, own_cache
from trailsift import Lake
from trailsift.errors import LakeError, TrailsiftError, UsageError
from trailsift.lake import home
from trailsift.lake.cached_files import CACHE_VARIABLE
from trailsift.lake.mirrored_storage import open_mirror

__all__ = ["filled", "inputs", "lake_image", "new_lake", "own_cache", "s3", "s3_server"]

pytest.importorskip("obstore", reason="the extra aws is not installed")


def count(lake: Lake) -> object:
    return lake.query("SELECT count(*) FROM events", cache=False).value()


def test_a_slash_at_the_end(new_lake: str, inputs: Inputs) -> None:
    assert Lake(new_lake + "/").ingest(inputs[0]).stored == EVENTS
    assert count(Lake(new_lake)) == count(Lake(new_lake + "/")) == EVENTS
    assert Lake(new_lake + "/").status().lake == new_lake


def test_permissions_on_the_prefix_alone(proxy: Proxy, new_lake: str, inputs: Inputs) -> None:
    """A policy that allows the lake's prefix and nothing else is enough."""
    denied = refusal("AccessDenied", "Access Denied", 403)
    refused: list[str] = []

    def rule(request: Request) -> Fault | None:
        if request.is_list or request.method == "POST" or request.key.startswith("team/lake/"):
            return None
        refused.append(request.key)
        return denied

    proxy.rule = rule
    assert Lake(new_lake).ingest(inputs[0]).stored == EVENTS
    assert count(Lake(new_lake)) == EVENTS


@pytest.mark.parametrize("after", [False, True])
def test_a_probe_without_an_answer(proxy: Proxy, new_lake: str, inputs: Inputs, after: bool) -> None:
    hits: list[Request] = []

    def rule(request: Request) -> Fault | None:
        if "/probe/" in request.path and request.method == "PUT" and not hits:
            hits.append(request)
            return Fault(drop=True, after=after)
        return None

    proxy.rule = rule
    assert Lake(new_lake).ingest(inputs[0]).stored == EVENTS
    assert hits


def test_a_probe_that_was_left(new_lake: str, s3: Server, inputs: Inputs) -> None:
    """Of a process that was killed: it neither keeps the lake from being made, nor stays for good."""
    bucket = new_lake.split("/")[2]
    s3.put(bucket, {"team/lake/probe/" + "0" * 32: b"1"})
    lake = Lake(new_lake)
    assert lake.ingest(inputs[0]).stored == EVENTS
    lake.compact(everything=True)
    assert lake.verify().is_sound


def test_two_processes_make_the_same_lake(new_lake: str, inputs: Inputs) -> None:
    script = "import sys; from trailsift import Lake; print(Lake(sys.argv[1]).ingest(sys.argv[2]).stored)"
    command = [sys.executable, "-c", script, new_lake, str(inputs[0])]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ended = [(*process.communicate(timeout=120), process.returncode) for process in running]
    assert [code for _, _, code in ended] == [0] * 4, ended
    assert sum(int(out) for out, _, _ in ended) == EVENTS
    assert count(Lake(new_lake)) == EVENTS
    assert Lake(new_lake).verify().is_sound


def test_a_foreign_key_does_not_stop_upkeep(new_lake: str, s3: Server, inputs: Inputs) -> None:
    lake = Lake(new_lake)
    lake.ingest(inputs[0])
    bucket = new_lake.split("/")[2]
    client = s3.client()
    for key in ("team/lake/events/data/a b%2Fc", "team/lake/events/metadata/x\x01y", "team/lake/seen/" + "n" * 250):
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    lake.compact(everything=True)
    assert lake.verify().files
    assert count(lake) == EVENTS


def test_a_huge_catalog_is_not_read(filled: str, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trailsift.lake.mirror.MAX_CATALOG", 1 << 20)
    bucket = filled.split("/")[2]
    s3.put(bucket, {"team/lake/catalog.db": bytes(2 << 20)})
    with pytest.raises(LakeError, match=r"too large"):
        Lake(filled).status()


def test_huge_settings_are_not_read(filled: str, s3: Server) -> None:
    bucket = filled.split("/")[2]
    s3.put(bucket, {"team/lake/lake.json": b" " * (5 << 20)})
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
    home._mirrors.clear()
    with pytest.raises(LakeError, match=r"too large"):
        Lake(filled).status()


def test_no_home_folder(new_lake: str, inputs: Inputs, tmp_path: Path) -> None:
    """As in a container whose user is in no list of users."""
    env = {name: text for name, text in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    code = (
        "import pwd, sys\n"
        "def none(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = none\n"
        "from trailsift.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "ingest", str(inputs[0]), "--lake", new_lake, "-q"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or "XDG_CACHE_HOME" in done.stderr


def test_the_cache_cannot_be_made(
    new_lake: str, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    home._mirrors.clear()
    with pytest.raises(TrailsiftError, match="XDG_CACHE_HOME"):
        Lake(new_lake).ingest(inputs[0])
    with pytest.raises(TrailsiftError, match="XDG_CACHE_HOME"):
        Lake(new_lake).status()


def test_the_cache_is_private(new_lake: str, inputs: Inputs, tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        lake = Lake(new_lake)
        lake.ingest(inputs[0])
        assert count(lake) == EVENTS
    finally:
        os.umask(previous)
    place = tmp_path / "cache" / "trailsift" / "lakes"
    found = [(path, stat.S_IMODE(path.lstat().st_mode)) for path in place.rglob("*")]
    assert found
    assert not [(path, oct(mode)) for path, mode in found if mode & 0o077]


def test_a_cache_that_is_a_link_to_a_folder_of_others(filled: str, tmp_path: Path) -> None:
    Lake(filled).status()
    folder = open_mirror(filled, "read").folder
    shutil.rmtree(folder)
    theirs = tmp_path / "theirs"
    theirs.mkdir(0o777)
    theirs.chmod(0o777)
    folder.symlink_to(theirs)
    with pytest.raises(LakeError, match=r"private|link"):
        Lake(filled).status()
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(LakeError, match=r"private"):
        Lake(filled).status()


def test_a_reader_takes_no_room_from_a_writer(filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a writer has not yet written into the lake are nowhere else."""
    from trailsift.lake.writer import LakeWriter

    writer = LakeWriter(open_mirror(filled, "write").root)
    monkeypatch.setenv(CACHE_VARIABLE, str(1 << 20))
    with writer.lock():
        new = writer.root / "events" / "data" / "new.parquet"
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(bytes(2 << 20))
        open_mirror(filled, "read")._make_room(1 << 20)
        assert new.exists()


def test_a_damaged_copy_is_fetched_again(new_lake: str, inputs: Inputs) -> None:
    """The lake itself is sound, so nobody must repair anything by hand."""
    lake = Lake(new_lake)
    lake.ingest(inputs[0])
    assert count(lake) == EVENTS
    root = open_mirror(new_lake, "read").root
    (root / "catalog.db").write_bytes(b"x" * 8192)
    assert count(Lake(new_lake)) == EVENTS
    for file in (root / "events").rglob("*.parquet"):
        file.unlink()
        file.write_bytes(b"PAR1 and nothing else")
    assert count(Lake(new_lake)) == EVENTS


def test_no_place_of_the_cache_is_shown(new_lake: str, inputs: Inputs, tmp_path: Path, s3: Server) -> None:
    lake = Lake(new_lake)
    with pytest.raises(UsageError, match="no group"):
        lake.ingest(inputs[0], group_readable=True)
    assert not s3.client().list_objects_v2(Bucket=new_lake.split("/")[2]).get("Contents")
    lake.ingest(inputs[0])
    assert lake.expire(events="3650d", dry_run=True).lake == new_lake
    assert lake.expire(events="3650d").lake == new_lake
    assert all("id" not in commit for commit in lake.status().as_dict()["latest_commits"])
    assert f"The trailsift lake {new_lake} " in lake.connect_script()
