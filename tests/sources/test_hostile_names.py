"""Names that are no text, links, pipes and devices: each is one log object or one reject, and all else is stored."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from support.logs import event_number, rows, write
from support.paths import TESTS
from support.records import text
from trailsift.decode.names import raw_name, safe_name
from trailsift.errors import SourceError
from trailsift.ingest import ingest
from trailsift.sources.files import FileSource

CASES: list[dict[str, Any]] = json.loads((TESTS / "cases" / "hostile_names.json").read_text("utf-8"))
NAMES = [case["name"] for case in CASES]


def test_every_name_is_stored_and_can_be_given_back(tmp_path: Path) -> None:
    """Files of all names in one folder; each can be read again by the name in the lake."""
    folder, lake = tmp_path / "in", tmp_path / "lake"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(text(event_number(number)))
    counts = ingest([str(folder)], lake)
    assert (counts.log_objects, counts.stored, counts.malformed) == (len(CASES), len(CASES), 0)
    names = {row["log_object"] for row in rows(lake, columns="log_object")}
    assert names == {f"{folder}/{case['shown']}" for case in CASES}
    for name in names:
        again = ingest([name], lake, again=True)
        assert (again.log_objects, again.duplicates, again.stored) == (1, 1, 0)


def test_escapes_are_reversible() -> None:
    assert [raw_name(safe_name(name)) for name in NAMES] == NAMES
    assert len({safe_name(name) for name in NAMES}) == len(NAMES)


def test_members_of_every_name(tmp_path: Path) -> None:
    """Also names that no file can have: with NUL, and of 100,000 characters."""
    sink = io.BytesIO()
    names = [*NAMES, "long/" * 20_000]
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name + "x")
            info.size = len(text(event_number(number)))
            archive.addfile(info, io.BytesIO(text(event_number(number))))
    (tmp_path / "a.tar").write_bytes(sink.getvalue())
    counts = ingest([str(tmp_path / "a.tar")], tmp_path / "lake")
    assert (counts.log_objects, counts.stored, counts.malformed) == (len(names), len(names), 0)
    stored = {row["log_object"].partition("!")[2] for row in rows(tmp_path / "lake", columns="log_object")}
    assert len(stored) == len(names) and max(map(len, stored)) <= 1024


def test_links_out_of_a_folder_are_passed_over(tmp_path: Path) -> None:
    """Those inside it are followed, and so are those that the user names; loops are passed over or one reject."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    write(folder, "a.json", [event_number(1)])
    (tmp_path / "secret").write_text("root:x:0:0")
    (folder / "out.json").symlink_to(tmp_path / "secret")
    (folder / "passwd.json").symlink_to("/etc/passwd")
    (folder / "up").symlink_to(tmp_path, target_is_directory=True)
    (folder / "sub" / "in.json").symlink_to(folder / "a.json")
    (folder / "loop").symlink_to("loop")
    counts = ingest([str(folder)], tmp_path / "lake")
    assert (counts.stored, counts.links_passed_over, counts.malformed) == (1, 3, 1)
    (reject,) = rows(tmp_path / "lake", "rejects")
    assert reject["log_object"].endswith("/loop") and "cannot be read" in reject["reason"]
    named = FileSource([str(folder / "out.json")])
    assert [Path(item.path).name for item in named.find()] == ["secret"] and not named.links_passed_over
    matched = FileSource([f"{folder}/*.json"])
    assert len(matched.find()) == 1 and matched.links_passed_over == 2


def test_a_file_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    """Between finding and reading."""
    write(tmp_path, "a.json", [event_number(1)])
    write(tmp_path, "b.json", [event_number(2)])
    source = FileSource([str(tmp_path)])
    found = source.find()
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.json").symlink_to("/etc/passwd")

    class Found(FileSource):
        def find(self) -> Any:
            return found

    counts = ingest(Found([str(tmp_path)]), tmp_path / "lake")
    assert (counts.stored, counts.malformed) == (1, 1)
    assert "cannot be read" in rows(tmp_path / "lake", "rejects")[0]["reason"]


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="a named pipe"):
        FileSource([str(tmp_path / "pipe")]).find()
    with pytest.raises(SourceError, match="a device"):
        FileSource(["/dev/zero"]).find()


def test_process_substitution_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, text(event_number(1)))
    os.close(writing)
    command = [sys.executable, "-m", "trailsift", "ingest", f"/dev/fd/{reading}", "--lake", str(tmp_path / "lake")]
    run = subprocess.run(command, pass_fds=[reading], capture_output=True, text=True, timeout=60)
    os.close(reading)
    assert run.returncode == 0, run.stderr
    assert len(rows(tmp_path / "lake")) == 1
