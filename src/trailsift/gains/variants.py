"""The same logs in other forms: partitioned, filtered, sampled, columnar. Each is one of the ways to a faster answer,
alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from isal import igzip

from trailsift.columnar import Builder
from trailsift.decode.envelope import find_records
from trailsift.decode.record import category, parse_time, service_of
from trailsift.sift import Sifter, parse
from trailsift.sift.ready import text

#: Records of a file that is written, about as many as a busy trail's log object holds.
FILE_RECORDS = 4_000
#: isal's levels are few; this one packs nearly as gzip does by default.
_LEVEL = 3
#: Rows of a Parquet file.
_CHUNK = 100_000


class _Known(msgspec.Struct, gc=False):
    """The members that rules ask for, and those that a stream filter would pass on."""

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
    """Files of each form; ``weights``: of the sampled records, by event id."""

    partitioned: dict[str, list[str]] = field(default_factory=dict)
    filtered: list[str] = field(default_factory=list)
    sampled: list[str] = field(default_factory=list)
    columnar: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)


class _Writer:
    """Records into gzip files of one ``Records`` object each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[str] = []
        self._records: list[bytes] = []

    def add(self, record: bytes) -> None:
        """Takes one record."""
        self._records.append(record)
        if len(self._records) >= FILE_RECORDS:
            self.close()

    def close(self) -> list[str]:
        """Writes what is left; all files."""
        if self._records:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{len(self.files):05d}.json.gz"
            path.write_bytes(igzip.compress(b'{"Records":[' + b",".join(self._records) + b"]}", _LEVEL))
            self.files.append(str(path))
            self._records = []
        return self.files


def write_variants(files: Sequence[str], folder: Path, progress: Callable[[int], None]) -> Variants:
    """Writes all forms of the log objects ``files`` under ``folder``. ``progress`` is given the records done."""
    made = Variants()
    keep = Sifter(parse(text("important-events"), "important-events"))
    draw = Sifter(parse(text("time-of-day"), "time-of-day"))
    partitions: dict[str, _Writer] = {}
    filtered, sampled = _Writer(folder / "filtered"), _Writer(folder / "sampled")
    columnar = _Columnar(folder / "columnar")
    done = 0
    for path in files:
        data = Path(path).read_bytes()
        columnar.add(path, data)
        for raw, row, known in _rows(data):
            part = f"{row['day']}/service={row['service']}"
            if part not in partitions:
                partitions[part] = _Writer(folder / "partitioned" / part)
            partitions[part].add(raw)
            # The original's filter looks at nothing but data events of importance.
            if keep.decide(row).weight and row["event_category"] == "Data":
                filtered.add(msgspec.json.encode(known))
            weight = draw.decide(row).weight
            if weight:
                sampled.add(raw)
                made.weights[row["event_id"]] = weight
            done += 1
        progress(done)
    made.partitioned = {part: writer.close() for part, writer in partitions.items()}
    made.filtered, made.sampled, made.columnar = filtered.close(), sampled.close(), columnar.close()
    return made


def _rows(data: bytes) -> Iterator[tuple[bytes, dict[str, Any], _Known]]:
    """Each record as its text, as the columns that the ready rules look at, and as a stream filter passes it on."""
    decode = msgspec.json.Decoder(_Known).decode
    for record in find_records(data).records:
        raw = bytes(record)
        try:
            known = decode(raw)
        except (msgspec.DecodeError, ValueError):
            continue  # neither the baseline nor any other way can do much with it
        micros = parse_time(known.eventTime)
        if micros is None:
            continue
        day = str(known.eventTime)[:10].split("-")
        columns: defaultdict[str, Any] = defaultdict(lambda: None)
        columns.update(
            event_time=micros,
            event_id=known.eventID or "",
            event_name=known.eventName,
            event_source=known.eventSource,
            service=service_of(known.eventSource),
            error_code=known.errorCode,
            read_only=known.readOnly,
            event_category=category(
                {name: getattr(known, name) for name in ("eventCategory", "eventType", "managementEvent")}
                | {"eventSource": known.eventSource, "eventName": known.eventName}
            ),
            day=f"year={day[0]}/month={day[1]}/day={day[2]}",
        )
        yield raw, columns, known


class _Columnar:
    """All columns of all events as Parquet, in the order of delivery, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[str] = []
        self._builder = Builder()

    def add(self, name: str, data: bytes) -> None:
        """Takes one log object."""
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
        """Writes what is left; all files."""
        self._write()
        return self.files
