"""The names of log objects in files by day: found again, merged, expired, and looked at with suspicion."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trailsift.errors import LakeError
from trailsift.lake import log_objects
from trailsift.lake.commit import IngestedObject
from trailsift.lake.log_objects import ObjectFile
from trailsift.storage import LocalStorage

DAYS = ("2026-03-01", "2026-03-02", "2026-03-03")


def catalog(files: list[ObjectFile]) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(log_objects.SCHEMA)
    log_objects.record(db, 1, files)
    return db


objects = st.lists(
    st.builds(
        IngestedObject,
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.sampled_from(["1", "2", '"etag"']),
        st.sampled_from(DAYS),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(written=st.lists(objects, max_size=7), asked=objects, merged=st.booleans())
def test_exactly_what_was_written_is_known(
    tmp_path_factory: pytest.TempPathFactory,
    written: list[list[IngestedObject]],
    asked: list[IngestedObject],
    merged: bool,
) -> None:
    storage = LocalStorage(tmp_path_factory.mktemp("objects"))
    files = [file for batch in written for file in log_objects.write(storage, batch)]
    if merged:
        for group in log_objects.mergeable(files):
            files = [file for file in files if file not in group] + [log_objects.merge(storage, group)]
    everything = {o for batch in written for o in batch}
    with closing(catalog(files)) as db:
        for some in (asked, list(everything), list(everything)[:1]):
            want = {(o.name, o.version) for o in some if o in everything}
            found = log_objects.known(storage, db, some)
            # One name and version on two days is two log objects, and known on each day that it was read on.
            assert want <= found <= {(o.name, o.version) for o in everything}
    names = {(file.day, *entry) for file in files for entry in log_objects.names(storage, file)}
    assert names == {(o.delivered_on, o.name, o.version) for o in everything}


def test_a_few_of_many(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    many = [IngestedObject(f"s3://logs/AWSLogs/{number}.json.gz", "1", DAYS[0]) for number in range(5000)]
    with closing(catalog(log_objects.write(storage, many))) as db:
        asked = [many[17], many[4999], IngestedObject("another", "1", DAYS[0]), replace(many[3], delivered_on=DAYS[1])]
        assert log_objects.known(storage, db, asked) == {(many[at].name, "1") for at in (17, 4999)}


def test_only_similar_files_of_a_day_are_merged() -> None:
    sizes = [1, 1, 1, 1, 1, 1000]
    files = [ObjectFile(f"objects/{number:032x}.objects", size, DAYS[0], number) for number, size in enumerate(sizes)]
    other = [ObjectFile(f"objects/{99 + number:032x}.objects", 1, DAYS[1], number) for number in range(4)]
    (group,) = log_objects.mergeable([*files, *other])
    assert group == files[:5]


@pytest.mark.parametrize("damage", ["cut", "garbage", "missing", "fewer", "not pairs"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    storage = LocalStorage(tmp_path)
    (file,) = log_objects.write(storage, [IngestedObject("a", "1", DAYS[0]), IngestedObject("b", "1", DAYS[0])])
    place = tmp_path / file.path
    data = place.read_bytes()
    if damage == "missing":
        place.unlink()
    elif damage == "fewer":
        file = file._replace(objects=1)
    else:
        import zlib

        place.write_bytes(
            {"cut": data[:40], "garbage": data[:32] + b"x" * 30, "not pairs": data[:32] + zlib.compress(b"[1,2]")}[
                damage
            ]
        )
    with pytest.raises(LakeError, match=r"objects/[0-9a-f]{32}.objects is .* no event would be stored twice"):
        log_objects.names(storage, file)


@pytest.mark.parametrize(
    "row",
    [
        ("../x.objects", 1, DAYS[0], 1),
        ("objects/" + "0" * 32 + ".objects", -1, DAYS[0], 1),
        ("objects/" + "0" * 32 + ".objects", 1, "yesterday", 1),
        ("objects/" + "0" * 32 + ".objects", 1, DAYS[0], "x"),
        (b"objects/x", 1, DAYS[0], 1),
    ],
)
def test_a_strange_row_is_refused(row: tuple[object, ...]) -> None:
    with closing(catalog([])) as db:
        db.execute("INSERT INTO object_file VALUES (?, ?, ?, ?, NULL)", row)
        with pytest.raises(LakeError, match="the catalog"):
            log_objects.files(db)
