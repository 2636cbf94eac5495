"""The same logs in other formats: partitioned, filtered, sampled, columnar; each is one technique on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from isal import igzip

from trailsift.decode.envelope import find_records
from trailsift.ingest.chunk_builder import ChunkBuilder
from trailsift.ingest.sift import LOOKED_AT, ColumnarRules, micros_of
from trailsift.rules import parse
from trailsift.rules.presets import preset_text

#: Records per output file, about as many as in a busy trail's log object.
FILE_RECORDS = 4_000
#: isal has few levels; this one compresses nearly like gzip's default.
_LEVEL = 3
#: Bytes of records waiting for a full file, over all partitions.
_WAITING = 256 << 20
#: Rows per Parquet file.
_CHUNK = 100_000


class _FilteredRecord(msgspec.Struct, gc=False):
    """The fields that a stream filter would pass on."""

    eventTime: str | None = None
    eventID: str | None = None
    eventName: str | None = None
    eventSource: str | None = None
    eventCategory: str | None = None
    eventType: str | None = None
    awsRegion: str | None = None
    recipientAccountId: str | None = None
    sourceIPAddress: str | None = None
    errorCode: str | None = None
    readOnly: bool | None = None
    managementEvent: bool | None = None
    userIdentity: msgspec.Raw = msgspec.Raw(b"null")
    resources: msgspec.Raw = msgspec.Raw(b"null")


@dataclass(slots=True)
class Variants:
    """Files of each format; ``weights`` of the sampled records, by event id."""

    partitioned: dict[str, list[str]] = field(default_factory=dict)
    filtered: list[str] = field(default_factory=list)
    sampled: list[str] = field(default_factory=list)
    columnar: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)


class _Writer:
    """Writes records into gzip files of one ``Records`` object each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[str] = []
        self._records: list[bytes] = []
        #: Bytes of records that are not in a file yet.
        self.waiting = 0

    def add(self, record: bytes) -> None:
        """Add one record."""
        self._records.append(record)
        self.waiting += len(record)
        if len(self._records) >= FILE_RECORDS:
            self.close()

    def close(self) -> list[str]:
        """Write what is left. Return all files."""
        if self._records:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{len(self.files):05d}.json.gz"
            path.write_bytes(igzip.compress(b'{"Records":[' + b",".join(self._records) + b"]}", _LEVEL))
            self.files.append(str(path))
            self._records, self.waiting = [], 0
        return self.files


def write_variants(files: Sequence[str], folder: Path, progress: Callable[[int], None]) -> Variants:
    """Write all formats of the log objects ``files`` under ``folder``. ``progress`` gets the records done."""
    variants = Variants()
    sifter = _Sifter()
    partitions: dict[str, _Writer] = {}
    filtered, sampled = _Writer(folder / "filtered"), _Writer(folder / "sampled")
    columnar = _Columnar(folder / "columnar")
    decode = msgspec.json.Decoder(_FilteredRecord).decode
    done = 0
    for path in files:
        data = Path(path).read_bytes()
        columnar.add(path, data)
        sifted = sifter.sift(path, data)
        for record in find_records(data).records:
            raw = bytes(record)
            try:
                fields = decode(raw)
            except (msgspec.DecodeError, ValueError):
                continue  # no technique, nor the baseline, can use it
            part, important, weight = sifted.get(fields.eventID, _NOTHING)
            if not part:
                continue
            if part not in partitions:
                partitions[part] = _Writer(folder / "partitioned" / part)
            partitions[part].add(raw)
            if important:
                filtered.add(msgspec.json.encode(fields))
            if weight:
                sampled.add(raw)
                variants.weights[fields.eventID or ""] = weight
            done += 1
        if sum(writer.waiting for writer in partitions.values()) > _WAITING:
            for writer in partitions.values():
                writer.close()
        progress(done)
    variants.partitioned = {part: writer.close() for part, writer in partitions.items()}
    variants.filtered, variants.sampled, variants.columnar = filtered.close(), sampled.close(), columnar.close()
    return variants


#: Partition folder of a record, whether the filter passes it, and its sampling weight (0: not sampled).
_Sifted = tuple[str, bool, float]
_NOTHING: _Sifted = ("", False, 0.0)
_DAY = 86_400_000_000


class _Sifter:
    """Applies the preset rules to the records of a log object."""

    def __init__(self) -> None:
        self._important = ColumnarRules(parse(preset_text("important-events"), "important-events"))
        self._schedule = ColumnarRules(parse(preset_text("time-of-day"), "time-of-day"))
        self._builder = ChunkBuilder()

    def sift(self, name: str, data: bytes) -> dict[str | None, _Sifted]:
        """Return the decision on each record, by its event id."""
        self._builder.add(name, data)
        chunk = self._builder.finish()
        if not len(chunk):
            return {}
        table = chunk.columns(list(dict.fromkeys((*LOOKED_AT, "event_id", "event_time", "service", "event_category"))))
        # The original design's filter only passes important data events.
        data_event = np.array([category == "Data" for category in table.column("event_category").to_pylist()])
        important = (self._important.decide(table, chunk.ids).weight > 0) & data_event
        weight = self._schedule.decide(table, chunk.ids).weight
        services = table.column("service").to_pylist()
        parts = map(_part, (micros_of(table.column("event_time")) // _DAY).tolist(), services)
        decisions = zip(parts, important.tolist(), weight.tolist(), strict=True)
        return dict(zip(table.column("event_id").to_pylist(), decisions, strict=True))


@cache
def _part(day: int, service: str | None) -> str:
    """Return the folder of a partition; ``day`` counts from 1970-01-01."""
    return f"{datetime.fromtimestamp(day * 86_400, UTC):year=%Y/month=%m/day=%d}/service={service}"


class _Columnar:
    """Writes all columns of all events as Parquet, in the order of delivery, into one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[str] = []
        self._builder = ChunkBuilder()

    def add(self, name: str, data: bytes) -> None:
        """Add one log object."""
        self._builder.add(name, data)
        if self._builder.rows >= _CHUNK:
            self._write()

    def _write(self) -> None:
        table = self._builder.finish().table
        if not table.num_rows:
            return
        plain = [
            pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in table.schema
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{len(self.files):05d}.parquet"
        pq.write_table(table.cast(pa.schema(plain)), path, compression="snappy")
        self.files.append(str(path))

    def close(self) -> list[str]:
        """Write what is left. Return all files."""
        self._write()
        return self.files
