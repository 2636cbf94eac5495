"""Delivery: records wait, are batched and written as log objects named by the time of delivery."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from isal import isal_zlib

from trailsift.generate.bulk_text import ALNUM, Ints, day_text

_GZIP = 31  # window bits of zlib that ask for a gzip header, whose time stays 0
_LEVEL = 1
MAX_RECORDS = 30_000
MAX_BYTES = 45_000_000  # CloudTrail closes a log object at 50 MB before gzip
WINDOWS = (5, 10, 15, 30, 60)  # minutes between two deliveries of a stream
_FILL = 4_000  # records per object to aim at
_LATE = 0.004
_LATEST = 20 * 3600


@dataclass(frozen=True)
class DeliveryStream:
    """The account and region of a trail's objects."""

    account: str
    region: str


def window_seconds(events: int, seconds: int) -> int:
    """Return the shortest delivery window (seconds) that gives a stream of half of all events full objects."""
    for minutes in WINDOWS:
        if events / 2 * minutes * 60 / seconds >= _FILL:
            return minutes * 60
    return WINDOWS[-1] * 60


def delays(rng: np.random.Generator, count: int) -> Ints:
    """Draw seconds from event to delivery: about 5 minutes; 0.4 % are half an hour to most of a day late."""
    out = 60 + rng.gamma(6.0, 40.0, count)
    late = rng.random(count) < _LATE
    out[late] = np.minimum(1_800 + rng.lognormal(8.2, 1.0, int(late.sum())), _LATEST)
    seconds: Ints = out.astype(np.int64)
    return seconds


@dataclass
class TrailWriter:
    """The writer of one trail: holds records that are not due yet, counts what it wrote."""

    target: Path
    streams: tuple[DeliveryStream, ...]
    window: int  # seconds
    tiny: bool
    rng: np.random.Generator
    objects: int = 0
    records: int = 0
    written: int = 0
    plain: int = 0
    _held: list[bytes] = field(default_factory=list)
    _stream: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    _due: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    _folders: set[Path] = field(default_factory=set)
    _open: dict[int, tuple[int, list[bytes], int]] = field(default_factory=dict)

    def add(self, records: list[bytes], stream: Ints, due: Ints) -> None:
        """Add records with the stream and the time (seconds) at which each reaches the trail."""
        self._held += records
        self._stream = np.concatenate([self._stream, stream])
        self._due = np.concatenate([self._due, due])

    def flush(self, before: int | None) -> None:
        """Write every object that is complete if no record due before `before` is still to come; None: all."""
        stamp = self._due if self.tiny else -(-self._due // self.window) * self.window
        ready = np.full(len(stamp), True) if before is None else stamp <= before
        places = np.flatnonzero(ready)
        order = places[np.lexsort((self._due[places], stamp[places], self._stream[places]))]
        if self.tiny:
            self._write_tiny(order, last=before is None)
        else:
            self._write_windows(order, stamp)
        keep = np.flatnonzero(~ready)
        self._held = [self._held[i] for i in keep.tolist()]
        self._stream, self._due = self._stream[keep], self._due[keep]

    def _write_windows(self, order: Ints, stamp: Ints) -> None:
        if not len(order):
            return
        stream, when = self._stream[order], stamp[order]
        cuts = np.flatnonzero((np.diff(stream) != 0) | (np.diff(when) != 0)) + 1
        places = order.tolist()
        for a, b in zip([0, *cuts.tolist()], [*cuts.tolist(), len(places)], strict=True):
            chunk: list[bytes] = []
            size = 0
            for place in places[a:b]:
                record = self._held[place]
                if len(chunk) == MAX_RECORDS or size + len(record) > MAX_BYTES:
                    self._write(int(stream[a]), int(when[a]), chunk)
                    chunk, size = [], 0
                chunk.append(record)
                size += len(record) + 1
            self._write(int(stream[a]), int(when[a]), chunk)

    def _write_tiny(self, order: Ints, last: bool) -> None:
        due = self._due[order].tolist()
        for place, stream, when in zip(order.tolist(), self._stream[order].tolist(), due, strict=True):
            room, chunk, _ = self._open.get(stream) or (self._room(), [], 0)
            chunk.append(self._held[place])
            self._open[stream] = (room, chunk, when)
            if len(chunk) >= room:
                del self._open[stream]
                self._write(stream, -(-when // 300) * 300, chunk)
        if last:
            for stream, (_, chunk, when) in sorted(self._open.items()):
                self._write(stream, -(-when // 300) * 300, chunk)
            self._open.clear()

    def _room(self) -> int:
        """Draw the records of a tiny object: log-normal, median 5, 95th percentile 18, as measured on a real bucket."""
        return int(min(622, max(1, round(float(self.rng.lognormal(np.log(5.0), 0.78))))))

    def _write(self, stream: int, when: int, records: list[bytes]) -> None:
        account, region = self.streams[stream].account, self.streams[stream].region
        _, folder, compact = (part.decode() for part in day_text(when // 86_400))
        minute = f"{when // 3600 % 24:02d}{when // 60 % 60:02d}"
        tag = self.rng.integers(0, 248, 16, np.uint8).tobytes().translate(ALNUM).decode()
        path = self.target / "AWSLogs" / account / "CloudTrail" / region / folder
        if path not in self._folders:
            path.mkdir(parents=True, exist_ok=True)
            self._folders.add(path)
        body = b'{"Records":[' + b",".join(records) + b"]}"
        packed = isal_zlib.compress(body, _LEVEL, _GZIP)
        (path / f"{account}_CloudTrail_{region}_{compact}T{minute}Z_{tag}.json.gz").write_bytes(packed)
        self.objects += 1
        self.records += len(records)
        self.written += len(packed)
        self.plain += len(body)
