"""However damaged or large a log object is: every part is counted, and memory is bounded."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.logs import event_number, exported, rows
from support.records import ONE, sample, text
from trailsift.decode.compression import gunzip, inflate_whole
from trailsift.decode.envelope import find_records
from trailsift.decode.limits import Budget, Limits
from trailsift.decode.stream import parts_of
from trailsift.ingest import Sizes, ingest


def test_every_malformed_part_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a limit they share one row of rejects; all records between and after them are read."""
    monkeypatch.setattr("trailsift.decode.outcome.KEPT_PARTS", 100)
    good = [sample(eventID=f"{number:08x}-2222-4333-8444-555555555555") for number in range(3)]
    timeless = text(sample(eventTime="soon", eventID="x"))
    bad = [*[b"{broken"] * 300, text(good[1]), *[b'{"strange": 1}'] * 40, *[timeless] * 7]
    lines = [text(good[0]), *bad, text(good[2])]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(b"\n".join(lines))
    counts = ingest([str(tmp_path / "in")], tmp_path / "lake")
    assert (counts.records, counts.stored, counts.malformed) == (350, 3, 347)
    kept = rows(tmp_path / "lake", "rejects", "position, reason, raw")
    assert len(kept) == 101
    (folded,) = [row["reason"] for row in kept if row["position"] == -1]
    assert folded == "and 247 more parts like these: counted, but not kept"


def test_bytes_kept_of_malformed_parts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trailsift.decode.outcome.KEPT_BYTES", 10_000)
    found = find_records(b"\n".join([text(ONE), *[b"{" + b"x" * 999] * 50]))
    assert (len(found.records), found.malformed.parts) == (1, 50)
    assert sum(len(part.raw) for part in found.malformed) <= 10_000


def test_very_many_broken_lines() -> None:
    """150,000 broken lines, with a record after them."""
    found = find_records(text(ONE) + b"\n" + b"{broken\n" * 150_000 + text(ONE))
    assert (len(found.records), found.malformed.parts) == (2, 150_000)


# -- large inputs ------------------------------------------------------------------------------------------------------

#: Limits so small that a few records are a large file.
TINY = Limits(small=100, whole=20_000, piece=8_000, document=200_000)
SIZES = Sizes(chunk_rows=40, batch_rows=100, bounds=TINY)
MINE = [event_number(number) for number in range(500)]
LINES = b"".join(text(each) + b"\n" for each in MINE)

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip of members": lambda data: gzip.compress(data[:70_001]) + gzip.compress(data[70_001:]) + bytes(512),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("form", PACKED)
@pytest.mark.parametrize("workers", [None, 1])
def test_lines_are_read_in_pieces(form: str, workers: int | None, tmp_path: Path) -> None:
    """Also across chunks and commits; a broken line is counted, at its position in the complete file."""
    if workers and form != "gzip":
        return
    path = tmp_path / "a.jsonl"
    path.write_bytes(PACKED[form](LINES[:400_000].replace(text(MINE[7]), b"{broken") + LINES[400_000:]))
    sizes = [len(part.data or b"") for part in parts_of(str(path), Budget(TINY))]
    assert len(sizes) > 20 and max(sizes) <= TINY.whole + TINY.piece
    counts = ingest([str(path)], tmp_path / "lake", workers=workers, sizes=SIZES)
    assert (counts.log_objects, counts.records, counts.stored, counts.malformed) == (1, 500, 499, 1)
    assert [row["position"] for row in rows(tmp_path / "lake", "rejects")] == [7]
    expected = {json.dumps(each, sort_keys=True) for each in MINE[:7] + MINE[8:]}
    assert exported(tmp_path / "lake").keys() == expected
    assert ingest([str(path)], tmp_path / "lake").log_objects_known == 1


def members(count: int = 5) -> dict[str, bytes]:
    """Return log files of 50 events each, the third large enough to be read in pieces, and two that are not logs."""
    files = {
        f"logs/{at}.json.gz": gzip.compress(text({"Records": MINE[at * 50 : at * 50 + 50]})) for at in range(count)
    }
    files["logs/2.json.gz"] = b"\n".join(map(text, MINE[100:150]))
    return files | {"__MACOSX/x": b"junk", "notes.json": b'{"a": 1}'}


def zipped(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return sink.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


ARCHIVES: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": zipped,
    "tar": tarred,
    "tar.gz": lambda files: gzip.compress(tarred(files)),
    "tar.bz2": lambda files: bz2.compress(tarred(files)),
    "tar.xz": lambda files: lzma.compress(tarred(files)),
}


@pytest.mark.parametrize("form", ARCHIVES)
@pytest.mark.parametrize("sizes", [Sizes(), SIZES], ids=["as usual", "tiny"])
def test_members_are_log_objects(form: str, sizes: Sizes, tmp_path: Path) -> None:
    path = tmp_path / "archive.bin"
    path.write_bytes(ARCHIVES[form](members()))
    counts = ingest([str(path)], tmp_path / "lake", sizes=sizes)
    assert (counts.log_objects, counts.log_objects_skipped, counts.records, counts.stored) == (5, 1, 250, 250)
    names = {row["log_object"] for row in rows(tmp_path / "lake", columns="log_object")}
    assert names == {f"{path}!logs/{at}.json.gz" for at in range(5)}
    again = ingest([str(path)], tmp_path / "lake", sizes=sizes)
    assert (again.log_objects_known, again.records) == (1, 0)


@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
def test_damaged_archive(form: str, tmp_path: Path) -> None:
    """The records before the damage are read, and the damage is counted and named."""
    path = tmp_path / "archive.bin"
    data = ARCHIVES[form](members())
    path.write_bytes(data[: len(data) // 2])
    (tmp_path / "b.json").write_bytes(text(event_number(900)))
    counts = ingest([str(tmp_path)], tmp_path / "lake")
    assert counts.malformed >= 1 and counts.stored >= (1 if form == "zip" else 51)
    assert all(str(path) in row["log_object"] for row in rows(tmp_path / "lake", "rejects"))


BOMBS: dict[str, Callable[[], Any]] = {
    "one document": lambda: gzip.compress(b'{"Records":[' + b" " * 300_000 + b"]}"),
    "one line without an end": lambda: gzip.compress(LINES[:30_000] + b"\n" + b"{" * 300_000),
    "in a zip": lambda: zipped({"bomb": b'{"Records":[' + b" " * 300_000, "good.json": text(MINE[0])}),
}


@pytest.mark.parametrize("form", BOMBS)
def test_a_bomb_is_named(form: str, tmp_path: Path) -> None:
    """It is counted once, and everything else is read."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bomb").write_bytes(BOMBS[form]())
    (tmp_path / "in" / "other.json").write_bytes(text(event_number(900)))
    counts = ingest([str(tmp_path / "in")], tmp_path / "lake", sizes=SIZES)
    assert counts.malformed == (2 if "line" in form else 1)
    assert counts.stored == {"one document": 1, "in a zip": 2}.get(form, counts.stored) and counts.stored >= 1
    rejects = rows(tmp_path / "lake", "rejects")
    assert any("200000 bytes" in row["reason"] for row in rejects)
    assert all("bomb" in row["log_object"] for row in rejects)


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([b"", b"{}", b'{"Records":[]}' * 40, bytes(range(256)) * 9]), min_size=1, max_size=3),
    st.sampled_from([b"", b"\0" * 8, b"more", b"\x1f\x8b\x08"]),
    st.integers(-40, 40),
    st.integers(0, 255),
)
# Damage to the first byte of the second of two equal members: the file still ends in the first member's size.
@example([b'{"Records":[]}' * 40] * 2, b"", -38, 0)
def test_inflating_in_one_step_agrees_with_the_slow_way(members: list[bytes], tail: bytes, cut: int, sign: int) -> None:
    """Or returns None: several members (equal ones too), other data after them, a cut, a changed byte, too large."""
    whole = b"".join(map(gzip.compress, members)) + tail
    damaged = bytearray(whole)
    damaged[cut % len(whole)] = sign
    for data in (whole, whole[:cut] if cut else whole, bytes(damaged)):
        text = inflate_whole(data, 10_000)
        if text is not None:
            assert gunzip(data, Budget(packed=len(data))) == (text, None)
    if len(members) == 1 and members[0] and not tail:
        assert inflate_whole(whole, 10_000) == members[0]
    assert inflate_whole(whole, 1) is None
