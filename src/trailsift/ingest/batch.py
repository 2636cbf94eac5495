"""A batch of an ingest: what chunks became, until all of it is committed together."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from trailsift import schema
from trailsift.columns import summarize
from trailsift.columns.arrow import arrow_schema
from trailsift.decode.envelope import Malformed
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
    """What chunks became, until all of it is committed together. It is filled while a transaction is open."""

    def __init__(self, lake: LakeWriter, counts: Counts, rules: Rules | None) -> None:
        """``counts`` of the whole ingest are added to."""
        self.lake = lake
        self.counts = counts
        self.rules = rules
        self.firsts = Exemplars(lake.root, rules) if rules else None
        #: Events that were offered.
        self.rows = 0
        self._files: list[File] = []
        self._log_objects: list[IngestedObject] = []
        self._lines: dict[str, list[Any]] = {}
        self._rejects: list[tuple[str, Malformed]] = []
        #: Second copies with another text, packed: whether they say something else is found out at the commit.
        self._copies: list[bytes] = []
        self._in_batch: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    @property
    def held_rows(self) -> int:
        """Rows that wait in memory for the commit."""
        return self.firsts.rows if self.firsts is not None else 0

    def __bool__(self) -> bool:
        return bool(self.rows or self._log_objects or self._rejects)

    def offered(self, rows: int, fresh: int) -> None:
        """Count a chunk of ``rows`` events, of which ``fresh`` are new."""
        self._count("duplicates", rows - fresh)
        self.rows += rows

    def close(self, files: list[tuple[LogObject, ObjectStats]]) -> None:
        """A chunk is written: its log objects belong to the batch."""
        for file, tally in files:
            name = file.name + tally.member
            self._rejects += [(name, replace(one, position=_placed(one, tally))) for one in tally.malformed]
            self._in_batch["records"] += tally.records
            self._in_batch["malformed"] += tally.malformed.parts
            if tally.foreign is not None:
                continue
            self._in_batch["log_objects"] += tally.last
            self.counts.log_objects += tally.last
            if tally.ends and not _unreadable(tally):
                self._log_objects.append(IngestedObject(file.name, file.version, file.delivered_on))

    def _count(self, name: str, number: int) -> None:
        setattr(self.counts, name, getattr(self.counts, name) + number)
        self._in_batch[name] += number

    def _drop(self, by_rule: Counter[str]) -> None:
        self._dropped.update(by_rule)
        self.counts.dropped = dict(Counter(self.counts.dropped) + by_rule)

    def take(self, written: ChunkResult) -> None:
        """Takes in what a chunk became."""
        self._files += written.files
        self._count("stored", written.stored)
        self._drop(written.dropped)
        if self.firsts is not None and written.held:
            self.firsts.hold(worker.from_stream(written.held))
        if written.copies:
            self._copies.append(written.copies)
        for name, data in written.lines.items():
            self._lines.setdefault(name, []).append(worker.from_stream(data))

    def commit(self, transaction: Transaction) -> int:
        """Make the batch visible, all of it together; return the number of the commit."""
        if self.firsts is not None:
            settled = self.firsts.settle()
            self._files += settled.files
            self._count("stored", settled.stored)
            self._drop(settled.dropped)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for files in threads.map(self._written_lines, self._lines):
                self._files += files
        self._rejects += self._other_content()
        if self._rejects:
            self._files += write_lines(schema.REJECTS, _reject_table(self._rejects), self.lake.root)
        transaction.add(self._files, self._log_objects)
        return transaction.commit({**self._in_batch, "dropped": dict(self._dropped), **self._by_rules()})

    def _written_lines(self, name: str) -> list[File]:
        """The batch's lines of one summary table, in files."""
        table = schema.TABLES[name]
        return write_lines(table, summarize.merge(table, self._lines[name]), self.lake.root)

    def _other_content(self) -> list[tuple[str, Malformed]]:
        if not self._copies:
            return []
        files = [*self.lake.live_files(schema.EVENTS.name), *conflicts.live_events(self._files)]
        omit = self.lake.omitted_columns()
        if self.rules is not None or self._dropped:
            omit = {*(omit or ()), *(self.rules.omit if self.rules else ())}
        return list(conflicts.conflicting_copies(self._copies, files, self.lake.root, omit))

    def _by_rules(self) -> dict[str, Any]:
        """Which rules the batch was sifted by, for the lake to remember."""
        if self.rules is None:
            return {}
        told = {
            "file": self.rules.name,
            "digest": self.rules.digest,
            "names": [rule.name for rule in self.rules.rules],
            "actions": [rule.action for rule in self.rules.rules],
            "omit": list(self.rules.omit),
        }
        return {"rules": told}


def _placed(one: Malformed, tally: ObjectStats) -> int:
    """Where something malformed stands in its log object, of which the tally may be a later piece."""
    return one.position + tally.offset if one.position >= 0 else one.position


def _unreadable(tally: ObjectStats) -> bool:
    """An object that could not be opened at all is tried again next time."""
    return len(tally.malformed) == 1 and tally.malformed[0].reason.startswith("cannot be read")


def _reject_table(rejects: list[tuple[str, Malformed]]) -> pa.Table:
    now = datetime.now(UTC)
    rows = [
        {
            "ingested_at": now,
            "log_object": name,
            "position": malformed.position,
            "reason": malformed.reason,
            "raw": malformed.raw,
        }
        for name, malformed in sorted(rejects, key=lambda reject: (reject[0], reject[1].position))
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema(schema.REJECTS))
