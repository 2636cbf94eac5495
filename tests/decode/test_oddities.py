"""Oddities of real records, each a case, and the largest possible records: end to end, on every path."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.logs import exported
from support.paths import TESTS
from support.records import comparable, sample, text
from trailsift import _native
from trailsift.decode import record
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.ingest.chunk_builder import ChunkBuilder
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

CASES: list[dict[str, Any]] = json.loads((TESTS / "cases" / "oddities.json").read_text("utf-8"))


def changed(number: int, changes: dict[str, Any], without: list[str]) -> dict[str, Any]:
    members = sample(**{"eventID": f"{number:08x}-2222-4333-8444-555555555555", **changes})
    return {name: value for name, value in members.items() if name not in without}


RECORDS = [changed(number, case.get("changes", {}), case.get("without", [])) for number, case in enumerate(CASES)]


def check_every_path(records: list[dict[str, Any]]) -> None:
    """Assert that the slow and fast paths give the same rows in every spelling, and that each record is restored."""
    expected = {row["event_id"]: comparable(row) for row in (record.row(value, "object") for value in records)}
    for scan in {True, not _native.available()}:
        for data in (
            text({"Records": records}),
            json.dumps({"Records": records}, indent=1).encode(),
            json.dumps({"Records": records}, ensure_ascii=False).encode(),
            b"\n".join(map(text, records)),
        ):
            builder = ChunkBuilder(scan=not scan)
            tally = builder.add("object", data)
            assert tally.malformed == [] and tally.records == len(records)
            rows = builder.finish().table.to_pylist()
            for row in rows:
                row["event_time"] = round(row["event_time"].timestamp() * 1_000_000)
            assert {row["event_id"]: comparable(row) for row in rows} == expected
            by_id = {row["event_id"]: record.restore(row) for row in rows}
            assert all(
                record.same(by_id[row["event_id"]], value)
                for row, value in zip(expected.values(), records, strict=True)
            )


def test_every_path_reads_oddities_alike() -> None:
    check_every_path(RECORDS)


@pytest.fixture(scope="module")
def odd_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "log.json.gz").write_bytes(gzip.compress(text({"Records": RECORDS})))
    counts = ingest([str(folder / "log.json.gz")], folder / "lake")
    assert (counts.records, counts.stored, counts.malformed) == (len(CASES), len(CASES), 0)
    return folder / "lake"


def test_oddities_survive_a_lake(odd_lake: Path) -> None:
    """Exported records are equal under Python's json, with absent distinct from null and int from float."""
    assert sorted(exported(odd_lake)) == sorted(json.dumps(value, sort_keys=True) for value in RECORDS)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case["case"] for case in CASES])
def test_columns_of_oddities(odd_lake: Path, number: int) -> None:
    expect = CASES[number].get("expect", {"event_name": RECORDS[number].get("eventName")})
    event_id = RECORDS[number]["eventID"]
    shown = ", ".join(f"epoch_us({name})" if name == "event_time" else name for name in expect)
    with DuckDBEngine(open_snapshot(odd_lake)) as engine:
        result = list(engine.query(f"SELECT {shown} FROM events WHERE event_id = '{event_id}'", cache=False).rows())
    assert [dict(zip(expect, row, strict=True)) for row in result] == [expect]


# -- the largest -------------------------------------------------------------------------------------------------------

#: An event is at most 256 KB, and a log file 50 MB before gzip.
LARGEST = 256 << 10


def large(number: int, **changes: Any) -> dict[str, Any]:
    """Return a record of exactly the largest size; the last changed member is padded."""
    value = changed(number, changes, [])
    member = list(changes)[-1]
    room = LARGEST - len(text(value))
    short = value[member]
    value[member] = short + "x" * room if isinstance(short, str) else {**short, "key": "k" * (room - len(',"key":""'))}
    assert len(text(value)) == LARGEST
    return value


LARGE = [
    large(1, requestParameters={"bucketName": "data"}),
    large(2, responseElements={"list": list(range(1000))}),
    large(3, additionalEventData={"bytesTransferredOut": 5, "odd": "é\\\n\u0000" * 5000}),
    large(4, userAgent="agent"),
    large(5, neverSeenBefore={"a": [{"b": None}] * 1000}),
    large(6, errorCode="AccessDenied", errorMessage="not allowed"),
]


def test_the_largest_records_on_every_path() -> None:
    check_every_path(LARGE)


def test_the_largest_log_object_end_to_end(tmp_path: Path) -> None:
    """50 MB of records of 256 KB: ingested, queried and exported; the malformed one is complete in rejects."""
    records = [*LARGE, *(large(100 + number, requestParameters={"bucketName": "data"}) for number in range(194))]
    broken = text(LARGE[0])[:-2] + b"]}"
    data = b'{"Records":[' + b",".join([*map(text, records), broken]) + b"]}"
    assert len(data) > 50_000_000
    (tmp_path / "log.json.gz").write_bytes(gzip.compress(data, 1))
    counts = ingest([str(tmp_path / "log.json.gz")], tmp_path / "lake")
    assert (counts.records, counts.stored, counts.malformed) == (201, 200, 1)
    assert sorted(exported(tmp_path / "lake")) == sorted(json.dumps(value, sort_keys=True) for value in records)
    with DuckDBEngine(open_snapshot(tmp_path / "lake")) as engine:
        ((number, length),) = engine.query(
            "SELECT count(*), min(length(object_key)) FROM events WHERE length(object_key) > 200000", cache=False
        ).rows()
        assert number == 195 and length > 250_000
        ((raw,),) = engine.query("SELECT raw FROM rejects", cache=False).rows()
    assert raw == broken.decode()


# -- memory ------------------------------------------------------------------------------------------------------------

PEAK = """
import json, resource, sys
from pathlib import Path
from trailsift.ingest import Sizes, ingest
if __name__ == "__main__":
    sizes = Sizes(chunk_rows=3_000, batch_rows=9_000, task_bytes=200_000)
    counts = ingest(sys.argv[2:], Path(sys.argv[1]), workers=1, compact=False, sizes=sizes)
    # ru_maxrss of the process itself includes that of the process that started it.
    own = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
    print(json.dumps([counts.stored, int(own), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not report peak memory")
def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    """Three times the events need the same memory, in the process that commits and in the one that decodes."""
    generate(tmp_path / "logs", Options(events=60_000, days=3, seed=5))
    (tmp_path / "peak.py").write_text(PEAK)
    files = sorted(map(str, (tmp_path / "logs").rglob("*.json.gz")), key=lambda name: Path(name).name.split("_")[3])
    peaks = []
    for number, part in enumerate((files[: len(files) // 3], files)):
        command = [sys.executable, str(tmp_path / "peak.py"), str(tmp_path / f"lake-{number}"), *part]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        peaks.append(json.loads(done.stdout))
    (few, *small), (many, *whole) = peaks
    assert many == 60_000 and few < many / 2
    print("peak in MB", [size // 1024 for size in (*small, *whole)])
    for before, after in zip(small, whole, strict=True):
        assert after < before * 1.1 + 20_000
