"""Archives and texts that are built to cost memory or time: a reject with its reason, and all else is stored.

Each case is an ingest in a process of its own, whose memory and time are measured.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.logs import event_number, rows
from support.paths import TESTS, share
from support.records import text

CASES: list[dict[str, Any]] = json.loads((TESTS / "cases" / "hostile_archives.json").read_text("utf-8"))
MB = 1 << 20
#: What one case may take (docs/limits.md); CPU seconds, so that a busy machine matters little. An ingest of nothing
#: takes 120 MB and a second.
PEAK_MB = 1_600
PEAK_PARSED_MB = 2_560
SECONDS = 60
_METHODS = {"deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}


def tar_blocks(members: list[list[Any]]) -> bytes:
    """Headers as they are given, each with its declared size, type, and number of bytes that really follow."""
    blocks = b""
    for name, size, kind, length, *fill in members:
        info = tarfile.TarInfo(name)
        info.size, info.type = size, kind.encode()
        blocks += info.tobuf(tarfile.GNU_FORMAT) + (fill[0] if fill else "\0").encode() * length + bytes(-length % 512)
    return blocks


def zipped(method: str, megabytes: int) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", _METHODS[method]) as archive, archive.open("a.json", "w") as member:
        for _ in range(megabytes):
            member.write(bytes(MB))
    return sink.getvalue()


def overlapping(data: bytes, count: int) -> bytes:
    """A zip of one member -> one whose directory names it very often."""
    start, end = data.index(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    entries = data[start:end] * count
    return data[:start] + entries + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(entries), start, 0)


def patched(data: bytes, magic: str, offset: int, replacement: str) -> bytes:
    at = data.rindex(magic.encode("latin-1")) + offset
    new = bytes.fromhex(replacement)
    return data[:at] + new + data[at + len(new) :]


def packed(pieces: Iterator[bytes], make: Callable[[], Any]) -> Iterator[bytes]:
    stream = make()
    for piece in pieces:
        yield stream.compress(piece)
    yield stream.flush()


STREAMS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.compressobj(9, zlib.DEFLATED, 31),
    "bzip2": bz2.BZ2Compressor,
    "xz": lambda: lzma.LZMACompressor(preset=0),
}


def built(steps: list[list[Any]]) -> bytes:
    """Return the bytes that the steps of a case describe; each works on what those before it have made."""
    pieces: Iterator[bytes] = iter(())
    for name, *arguments in steps:
        if name in STREAMS:
            pieces = packed(pieces, STREAMS[name])
            continue
        if name == "zeros":
            pieces = _with(pieces, (bytes(MB) for _ in range(arguments[0])))
            continue
        data = b"".join(pieces)
        if name == "tar":
            data += tar_blocks(arguments[0])
        elif name == "text":
            word = arguments[0].encode()
            data += (word * (arguments[1] // max(len(word), 1) + 1))[: arguments[1]]
        else:
            steps_of_bytes: dict[str, Callable[..., bytes]] = {
                "zip": lambda _, *rest: zipped(*rest),
                "overlap": overlapping,
                "patch": patched,
                "cut": lambda data, count: data[:-count],
                "repeat": lambda data, count: data * count,
                "layers": _layers,
            }
            data = steps_of_bytes[name](data, *arguments)
        pieces = iter((data,))
    return b"".join(pieces)


def _with(first: Iterator[bytes], second: Iterator[bytes]) -> Iterator[bytes]:
    yield from first
    yield from second


def _layers(data: bytes, count: int) -> bytes:
    for _ in range(count):
        data = gzip.compress(data)
    return data


_MEASURE = """
import json, resource, subprocess, sys
run = subprocess.run(sys.argv[2:], capture_output=True, text=True, timeout=float(sys.argv[1]))
used = resource.getrusage(resource.RUSAGE_CHILDREN)
seconds = used.ru_utime + used.ru_stime
print(json.dumps([run.returncode, used.ru_maxrss >> 10, seconds, run.stdout, run.stderr]))
"""


def ingest_measured(folder: Path, lake: Path) -> tuple[int, int, float, dict[str, Any], str]:
    """Return the exit code, a process's peak of memory in MB, the CPU seconds, counts and messages of an ingest."""
    command = [sys.executable, "-m", "trailsift", "ingest", str(folder), "--lake", str(lake), "--quiet", "--json"]
    measured = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(15 * SECONDS), *command], capture_output=True, text=True, check=True
    )
    code, peak, seconds, out, err = json.loads(measured.stdout)
    return code, peak, seconds, json.loads(out), err


#: Each unpacks hundreds of megabytes.
CHOSEN = share(CASES, 3)


@pytest.mark.parametrize("case", CHOSEN, ids=[case["case"] for case in CHOSEN])
def test_hostile_input_is_bounded(case: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "hostile").write_bytes(built(case["build"]))
    (folder / "good.json").write_bytes(text({"Records": [event_number(number) for number in range(20)]}))
    code, peak, seconds, counts, messages = ingest_measured(folder, tmp_path / "lake")
    assert seconds < SECONDS and peak < PEAK_MB
    assert code == 3 and counts["stored"] == 20 and "Traceback" not in messages
    rejects = rows(tmp_path / "lake", "rejects")
    assert all("hostile" in row["log_object"] for row in rejects)
    assert any(case["reason"] in row["reason"] for row in rejects), [row["reason"] for row in rejects][:5]


def test_the_text_that_takes_the_most_memory(tmp_path: Path) -> None:
    """As many objects as may be parsed at once, in none of the forms of a log: skipped, and all else is stored."""
    steps = [["text", '{"x":[', 6], ["text", '{"a":1},', 79_200_000], ["text", "{}]}", 4], ["gzip"]]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "hostile").write_bytes(built(steps))
    (folder / "good.json").write_bytes(text({"Records": [event_number(number) for number in range(20)]}))
    code, peak, seconds, counts, messages = ingest_measured(folder, tmp_path / "lake")
    assert code == 3 and counts["stored"] == 20 and counts["log_objects_skipped"] == 1 and "Traceback" not in messages
    assert 1_000 < peak < PEAK_PARSED_MB and seconds < SECONDS
