"""A batch of an ingest: the results of chunks, until all of them are committed together."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from trailsift import schema
from trailsift.columns import summarize
from trailsift.columns.arrow import arrow_schema
from trailsift.decode.outcome import Malformed
from trailsift.ingest import conflicts, worker
from trailsift.ingest.chunk_builder import ObjectStats
from trailsift.ingest.counts import Counts
from trailsift.ingest.exemplars import Exemplars
from trailsift.ingest.worker import ChunkResult
from trailsift.lake.commit import IngestedObject
from trailsift.lake.index import File
from trailsift.lake.parquet import write_lines
from trailsift.lake.transaction import Transaction
from trailsift.lake.writer import LakeWriter
from trailsift.rules import Rules
from trailsift.sources.base import LogObject


class OpenBatch:
    """The results of chunks until their commit. It is filled while a transaction is open."""

    def __init__(self, lake: LakeWriter, counts: Counts, rules: Rules | None) -> None:
        """``counts``: those of the whole ingest, which are added to."""
        self.lake = lake
        self.counts = counts
        self.rules = rules
        self.exemplars = Exemplars(lake.root, rules) if rules else None
        self.started = time.monotonic()
        #: Events offered so far, new or not.
        self.rows = 0
        self._files: list[File] = []
        self._log_objects: list[IngestedObject] = []
        self._lines: dict[str, list[Any]] = {}
        self._rejects: list[tuple[str, Malformed]] = []
        #: Packed second copies with another text: the commit finds out if their content differs.
        self._copies: list[bytes] = []
        self._in_batch: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        #: What the commit notes beside its counts.
        self.notes: dict[str, object] = {}

    @property
    def held_rows(self) -> int:
        """Number of rows that wait in memory for the commit."""
        return self.exemplars.rows if self.exemplars is not None else 0

    def __bool__(self) -> bool:
        return bool(self.rows or self._log_objects or self._rejects)

    def offered(self, rows: int, new: int) -> None:
        """Count a chunk with this number of rows and of new ones."""
        self._count("duplicates", rows - new)
        self.rows += rows

    def close(self, files: list[tuple[LogObject, ObjectStats]]) -> None:
        """Add the log objects of a chunk that is written."""
        for file, stats in files:
            if stats.missed is not None:
                continue
            name = file.name + stats.member
            self._rejects += [(name, replace(part, position=_position(part, stats))) for part in stats.malformed]
            self._in_batch["records"] += stats.records
            self._in_batch["malformed"] += stats.malformed.parts
            if stats.other is not None and stats.ends:
                # It need not be opened again.
                self._log_objects.append(IngestedObject(file.name, file.version, file.delivered_on))
            if stats.foreign is not None:
                continue
            self._in_batch["log_objects"] += stats.last
            self.counts.log_objects += stats.last
            if stats.ends and not _unreadable(stats):
                self._log_objects.append(IngestedObject(file.name, file.version, file.delivered_on))

    def _count(self, name: str, number: int) -> None:
        setattr(self.counts, name, getattr(self.counts, name) + number)
        self._in_batch[name] += number

    def _drop(self, by_rule: Counter[str]) -> None:
        self._dropped.update(by_rule)
        self.counts.dropped = dict(Counter(self.counts.dropped) + by_rule)

    def take(self, written: ChunkResult) -> None:
        """Add the result of a chunk."""
        self._files += written.files
        self._count("stored", written.stored)
        self._drop(written.dropped)
        if self.exemplars is not None and written.held:
            self.exemplars.hold(worker.from_stream(written.held))
        if written.copies:
            self._copies.append(written.copies)
        for name, data in written.lines.items():
            self._lines.setdefault(name, []).append(worker.from_stream(data))

    def commit(self, transaction: Transaction) -> int:
        """Commit everything together. Return the number of the commit."""
        if self.exemplars is not None:
            settled = self.exemplars.settle()
            self._files += settled.files
            self._count("stored", settled.stored)
            self._drop(settled.dropped)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for files in threads.map(self._written_lines, self._lines):
                self._files += files
        for log_object, copy in self._conflicts():
            self._rejects.append((log_object, copy))
            kind = conflicts.kind_of(copy.reason) or ""
            self.counts.conflicts[kind] = self.counts.conflicts.get(kind, 0) + 1
        if self._rejects:
            self._files += write_lines(schema.REJECTS, _reject_table(self._rejects), self.lake.root)
        transaction.add(self._files, self._log_objects)
        return transaction.commit({**self._in_batch, "dropped": dict(self._dropped), **self._by_rules(), **self.notes})

    def _written_lines(self, name: str) -> list[File]:
        """Write the batch's lines of one summary table."""
        table = schema.TABLES[name]
        return write_lines(table, summarize.merge(table, self._lines[name]), self.lake.root)

    def _conflicts(self) -> list[tuple[str, Malformed]]:
        """Return the second copies whose content differs from the stored event."""
        if not self._copies:
            return []
        files = [*self.lake.live_files(schema.EVENTS.name), *conflicts.live_events(self._files)]
        omit = self.lake.omitted_columns()
        if self.rules is not None or self._dropped:
            omit = {*(omit or ()), *(self.rules.omit if self.rules else ())}
        return list(conflicts.conflicting_copies(self._copies, files, self.lake.root, omit))

    def _by_rules(self) -> dict[str, Any]:
        """Return the rules that the batch was sifted by, for the commit log."""
        if self.rules is None:
            return {}
        applied = {
            "file": self.rules.name,
            "digest": self.rules.digest,
            "names": [rule.name for rule in self.rules.rules],
            "actions": [rule.action for rule in self.rules.rules],
            "omit": list(self.rules.omit),
        }
        return {"rules": applied}


def _position(part: Malformed, stats: ObjectStats) -> int:
    """Return the position in the log object, of which the stats may be of a later piece."""
    return part.position + stats.offset if part.position >= 0 else part.position


def _unreadable(stats: ObjectStats) -> bool:
    """Return whether an object could not be opened at all: it is tried again next time."""
    return len(stats.malformed) == 1 and stats.malformed[0].reason.startswith("cannot be read")


def _reject_table(rejects: list[tuple[str, Malformed]]) -> pa.Table:
    now = datetime.now(UTC)
    rows = [
        {
            "ingested_at": now,
            "log_object": name,
            "position": malformed.position,
            "reason": malformed.reason.encode("utf-8", "backslashreplace").decode(),
            "raw": malformed.raw,
        }
        for name, malformed in sorted(rejects, key=lambda reject: (reject[0], reject[1].position))
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema(schema.REJECTS))
