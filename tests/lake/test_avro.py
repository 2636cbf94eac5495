"""Manifests are measured before PyIceberg's compiled decoder sees them: it reads on behind what is cut off."""

from __future__ import annotations

import io
import json
import random
import zlib
from typing import Any

import pytest
from pyiceberg.avro import file as avro_file
from pyiceberg.avro.decoder import StreamingBinaryDecoder
from pyiceberg.avro.file import AvroFile

from support.hostile_lakes import avro_long, long_of
from trailsift import Lake
from trailsift.generate import Options, generate
from trailsift.lake.avro import check_avro

REFUSED = (ValueError, TypeError, LookupError, RecursionError, zlib.error)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Manifests and lists of them, as ingests write them."""
    folder = tmp_path_factory.mktemp("avro")
    generate(folder / "logs", Options(events=300, days=1, seed=7))
    Lake(folder / "lake").ingest(folder / "logs")
    return [path.read_bytes() for path in sorted((folder / "lake").glob("*/metadata/*.avro"))]


class Input:
    """What AvroFile reads."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self, seekable: bool = True) -> io.BytesIO:
        return io.BytesIO(self._data)


def decode(data: bytes) -> list[Any]:
    """Read a file by the decoder in Python, which raises EOFError for what lies behind the end."""
    with AvroFile[Any](Input(data)) as reader:  # type: ignore[arg-type]
        return list(reader)


def packed(manifest: bytes, block: bytes, records: int | None = None) -> bytes:
    """Return a manifest with another block of values."""
    start = manifest.index(manifest[-16:]) + 16
    number, _ = avro_long(manifest, start)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    content = packer.compress(block) + packer.flush()
    head = long_of(number if records is None else records) + long_of(len(content))
    return manifest[:start] + head + content + manifest[-16:]


def values(manifest: bytes) -> bytes:
    start = manifest.index(manifest[-16:]) + 16
    _, at = avro_long(manifest, start)
    size, at = avro_long(manifest, at)
    return zlib.decompress(manifest[at : at + size], -15)


def test_what_trailsift_writes_passes(manifests: list[bytes]) -> None:
    assert len(manifests) >= 8
    for manifest in manifests:
        check_avro(manifest)
        check_avro(packed(manifest, values(manifest)))


def test_every_cut_of_the_values_is_refused(manifests: list[bytes]) -> None:
    for manifest in manifests:
        block = values(manifest)
        for end in range(len(block)):
            with pytest.raises(REFUSED):
                check_avro(packed(manifest, block[:end]))


def test_more_entries_than_there_are(manifests: list[bytes]) -> None:
    for manifest in manifests:
        for records in (len(values(manifest)), 1 << 40, -1):
            with pytest.raises(REFUSED):
                check_avro(packed(manifest, values(manifest), records))


def test_what_passes_ends_within_its_block(manifests: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is changed: what the check lets through, a decoder that looks at its bounds can read to the end."""
    monkeypatch.setattr(avro_file, "new_decoder", StreamingBinaryDecoder)
    rng = random.Random(5)
    passed = 0
    for _ in range(4000):
        manifest = rng.choice(manifests)
        block = bytearray(values(manifest))
        for _ in range(rng.choice((1, 1, 2, 8))):
            block[rng.randrange(len(block))] = rng.choice((0, 1, 2, 3, 0x7E, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        if rng.random() < 0.2:
            block = block[: rng.randrange(len(block) + 1)]
        changed = packed(manifest, bytes(block))
        try:
            check_avro(changed)
        except REFUSED:
            continue
        passed += 1
        try:
            decode(changed)
        except UnicodeDecodeError:
            continue
        except (ValueError, TypeError, OverflowError) as error:
            assert "bytes" not in str(error) or "expected" not in str(error), error
    assert passed > 500


@pytest.mark.parametrize(
    ("kind", "block"),
    [
        ("string", long_of(5) + b"abc"),
        ("bytes", long_of(1 << 62)),
        ("bytes", long_of(-1) + b"abc"),
        ("long", b"\xff" * 20),
        ("long", b"\xff"),
        ("double", b"1234567"),
        (["null", "string"], long_of(2)),
        (["null", "string"], long_of(1)),
        (["string", "null"], long_of(0)),
        ({"type": "fixed", "name": "f", "size": 5}, b"1234"),
        ({"type": "fixed", "name": "f", "size": 16, "logicalType": "decimal", "precision": 38, "scale": 1}, b"0" * 16),
        ({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 1}, long_of(1) + b"1"),
        ({"type": "string", "logicalType": "uuid"}, long_of(1) + b"1"),
        ({"type": "string", "logicalType": "timestamp-micros"}, long_of(1) + b"1"),
        ({"type": "fixed", "name": "f", "size": 4, "logicalType": "uuid"}, b"1234"),
        ({"type": {"type": "bytes", "logicalType": "decimal"}}, long_of(1) + b"1"),
        ({"type": "array", "items": "int"}, long_of(3) + long_of(1) + long_of(0)),
        ({"type": "array", "items": "int"}, long_of(-(1 << 62)) + long_of(0)),
        ({"type": "map", "values": "int"}, long_of(1) + long_of(1) + b"a"),
        (
            {
                "type": "array",
                "logicalType": "map",
                "items": {
                    "type": "record",
                    "name": "m",
                    "fields": [{"name": name, "type": "int", "field-id": 5} for name in ("key", "value", "more")],
                },
            },
            long_of(1) + long_of(1) + long_of(1) + long_of(1) + long_of(0),
        ),
        ("enum", long_of(1)),
        ("null", b"x"),
        ("r", b"x"),
    ],
)
def test_values_that_do_not_end(kind: object, block: bytes) -> None:
    schema = {"type": "record", "name": "r", "fields": [{"name": "x", "type": kind, "field-id": 1}]}
    text = json.dumps(schema).encode()
    head = long_of(1) + long_of(11) + b"avro.schema" + long_of(len(text)) + text + long_of(0)
    sync = bytes(16)
    data = b"Obj\x01" + head + sync + long_of(1) + long_of(len(block)) + block + sync
    with pytest.raises(REFUSED):
        check_avro(data)
