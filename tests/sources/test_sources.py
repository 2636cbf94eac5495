"""Log objects are found wherever they are, and an ingest reads them without knowing where that is."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from support.logs import event_number, write
from trailsift.errors import SourceError, UsageError
from trailsift.ingest import ingest
from trailsift.ingest.worker import Worker
from trailsift.lake.writer import LakeWriter
from trailsift.sources import Source, open_source
from trailsift.sources.base import LogObject, delivered_within
from trailsift.sources.files import FileSource
from trailsift.sources.memory import MemorySource

NAME = "AWSLogs/111122223333/CloudTrail/111122223333_CloudTrail_eu-west-1_20260301T1205Z_{}.json.gz"


def body(first: int, events: int) -> bytes:
    """Return a log object of some events, the first with the given number."""
    records = [event_number(first + number) for number in range(events)]
    return gzip.compress(json.dumps({"Records": records}).encode(), mtime=0)


def archive(*members: bytes) -> bytes:
    """A zip of log objects."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as target:
        for number, data in enumerate(members):
            target.writestr(f"{number}.json.gz", data)
    return packed.getvalue()


def test_every_source_keeps_the_protocol() -> None:
    assert isinstance(FileSource([]), Source) and isinstance(MemorySource({}), Source)


@pytest.mark.parametrize("workers", [None, 2])
def test_ingest_from_memory(tmp_path: Path, workers: int | None) -> None:
    """In this process and in worker processes; the second time all objects are known."""
    source = MemorySource({NAME.format(n): body(n * 20, 20) for n in range(4)} | {"all.zip": archive(body(500, 7))})
    counts = ingest(source, tmp_path / "lake", workers=workers)
    assert (counts.log_objects, counts.records, counts.stored) == (5, 87, 87)
    again = ingest(source, tmp_path / "lake", workers=workers)
    assert (again.log_objects_known, again.records) == (5, 0)


def test_memory_source_selects_by_delivery(tmp_path: Path) -> None:
    """The minute of delivery comes from the object's name."""
    source = MemorySource({NAME.format(1): body(0, 3)})
    with pytest.raises(SourceError, match="delivered in the time"):
        ingest(source, tmp_path / "lake", since=datetime(2026, 3, 2, tzinfo=UTC))
    assert ingest(source, tmp_path / "lake", until=datetime(2026, 3, 2, tzinfo=UTC)).stored == 3


@dataclass(frozen=True)
class Unreachable:
    """A reader whose objects cannot be fetched."""

    def open(self, log_object: LogObject) -> BinaryIO:
        """Fail as a network does."""
        raise ConnectionError(f"{log_object.name}: connection reset")


def test_an_object_that_cannot_be_fetched_is_counted(tmp_path: Path) -> None:
    """One that fails does not end the ingest of the others."""
    root = LakeWriter.create(tmp_path / "lake").root
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    remote = LogObject("remote", "", "1", 10, noon, Unreachable())
    stats, rows = Worker(root).decode([remote, *MemorySource({"a": body(0, 2)}).find()], 100)
    assert [item.malformed.parts for item in stats] == [1, 0] and rows == 2
    assert stats[0].malformed[0].reason == "cannot be read: remote: connection reset"


def test_one_run_reads_from_one_kind_of_place() -> None:
    with pytest.raises(UsageError, match="one after the other"):
        open_source(["logs", "s3://bucket/AWSLogs"])
    with pytest.raises(SourceError, match="only local paths and s3://"):
        open_source(["gs://bucket/AWSLogs"])


def test_files_are_found_once_in_order_of_delivery(tmp_path: Path) -> None:
    """Names give the minute; hidden files and the excluded folder are left out."""
    late, early = NAME.format(1).rpartition("/")[2].replace("T1205Z", "T1206Z"), NAME.format(2).rpartition("/")[2]
    for name in (late, early, ".hidden.json", "lake/x.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write((tmp_path / name).parent, Path(name).name, [event_number(1)])
    source = open_source([str(tmp_path), f"file://{tmp_path / late}", f"{tmp_path}/*.json.gz"], tmp_path / "lake")
    assert [Path(item.name).name for item in source.find()] == [early, late]


def test_delivery_span_includes_its_first_minute_only() -> None:
    item = MemorySource({NAME.format(1): b""}).find()[0]
    minute = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)
    assert item.delivered_at == minute and item.delivered_on == "2026-03-01"
    assert delivered_within(item, minute.replace(second=30), None) and not delivered_within(item, None, minute)


class Stdin:
    """Standard input with some bytes."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        """Return False: it is a pipe."""
        return False


def test_standard_input_is_removed_when_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its content is its version; a missing input beside it leaves no copy behind."""
    monkeypatch.setattr("sys.stdin", Stdin(body(0, 2)))
    source = FileSource(["-"])
    (item,) = source.find()
    assert item.name == "stdin" and item.version == MemorySource({"x": body(0, 2)}).find()[0].version
    assert Path(item.path).read_bytes() == body(0, 2)
    source.release()
    assert not Path(item.path).exists()
    broken = FileSource(["-", "/no/such/place"])
    with pytest.raises(SourceError, match="no such"):
        broken.find()
    assert not broken._spooled
