"""Archives in all forms, nested and damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile

_RECORD = b'{"eventVersion":"1.08","eventTime":"2026-01-02T03:04:05Z","eventSource":"s3.amazonaws.com","eventName":"G"}'
_TEXTS = [
    b'{"Records":[' + b",".join([_RECORD] * 3) + b"]}",
    b'{"Records":[' + b",".join([_RECORD] * 60) + b"]}",
    (_RECORD + b"\n") * 80,
    b"[" + b", ".join([_RECORD] * 4) + b"]",
    b'{"Records":[]}',
    b"",
    b"{}\n" * 50,
    bytes(3_000),
    b"x" * 9_000,
    b"eventName,eventTime,eventSource\n" + b"GetObject,2026-01-02T03:04:05Z,s3.amazonaws.com\n" * 50,
]
_METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
_NAMES = [
    "a.json",
    "b/c.json",
    "d/",
    "x" * 300,
    "\N{SNOWMAN}.json",
    "__MACOSX/x",
    "../../x",
    "/etc/x",
    "n\\xffx",
    "\x1b[m",
]
#: Only a tar can hold them.
_RAW_NAMES = ["bad\udcff\udcfe.json", "y" * 5_000, "caf\udcc3"]
#: Numbers that break arithmetic.
_NUMBERS = [0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1]


def mutated_archive(rng: random.Random) -> bytes:
    """Return an archive of up to three layers with some bytes changed, moved, cut or repeated."""
    data = rng.choice(_TEXTS)
    for _ in range(rng.randint(1, 3)):
        data = _packed(rng, data)
        if rng.random() < 0.3:
            data = _damaged(rng, data)
    return _damaged(rng, data) if rng.random() < 0.8 else data


def _packed(rng: random.Random, data: bytes) -> bytes:
    draw = rng.randrange(7)
    if draw == 6:
        # A frame of Zstandard with one block as it is: recognized at most.
        return b"\x28\xb5\x2f\xfd\x20" + bytes([len(data) % 256]) + struct.pack("<L", len(data) << 3 | 1)[:3] + data
    if draw == 0:
        return gzip.compress(data) * rng.choice([1, 1, 2, 5]) + bytes(rng.choice([0, 0, 7]))
    if draw == 1:
        return bz2.compress(data) * rng.choice([1, 1, 2])
    if draw == 2:
        return lzma.compress(data, preset=0) * rng.choice([1, 1, 2])
    return _zip(rng, data) if draw == 3 else _tar(rng, data)


def _zip(rng: random.Random, data: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", rng.choice(_METHODS)) as archive:
        for name in rng.sample(_NAMES, rng.randint(0, 4)):
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=rng.random() < 0.3) as member:
                member.write(rng.choice([data, *_TEXTS]))
    return sink.getvalue()


def _tar(rng: random.Random, data: bytes) -> bytes:
    sink = io.BytesIO()
    kind = rng.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
    with tarfile.open(fileobj=sink, mode="w", format=kind) as archive:
        names = _NAMES[:3] if kind == tarfile.USTAR_FORMAT else _NAMES + _RAW_NAMES
        for name in rng.sample(names, rng.randint(0, 3)):
            info = tarfile.TarInfo(name)
            text = rng.choice([data, *_TEXTS])
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return sink.getvalue()


def _damaged(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(out) + 1)
        draw = rng.randrange(6)
        if draw == 0:
            del out[at : at + rng.choice([1, 10, 600])]
        elif draw == 1:
            out[at:at] = out[at : at + rng.choice([1, 30, 512])]
        elif draw == 2 and len(out) > 512:
            _patch_tar(rng, out)
        elif draw == 3:
            out[at : at + 4] = struct.pack("<L", rng.choice(_NUMBERS) & 0xFFFFFFFF)
        elif draw == 4:
            _patch_zip(rng, out)
        elif at < len(out):
            out[at] = rng.randrange(256)
    return bytes(out)


def _patch_tar(rng: random.Random, out: bytearray) -> None:
    """Change the size or the type in a header, with the right checksum."""
    at = 512 * rng.randrange(len(out) // 512)
    block = out[at : at + 512]
    if rng.random() < 0.7:
        block[124:136] = b"\x80" + rng.choice(_NUMBERS).to_bytes(11, "big")
    if rng.random() < 0.5:
        block[156] = rng.choice(b"0123456xgLKSVX")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    out[at : at + 512] = block


def _patch_zip(rng: random.Random, out: bytearray) -> None:
    """Change a number behind one of a zip's signatures."""
    at = out.find(b"PK", rng.randrange(len(out) + 1))
    if at >= 0:
        place = at + rng.randrange(4, 46)
        out[place : place + 4] = struct.pack("<L", rng.choice(_NUMBERS) & 0xFFFFFFFF)
