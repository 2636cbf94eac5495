"""A dry run of a rules file: each rule's share of the events, and the values that would no longer be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from trailsift.cloudtrail.origins import source_network
from trailsift.columns.arrays import Floats, Ids
from trailsift.columns.arrow import CHUNK_SCHEMA, identities
from trailsift.errors import SourceError
from trailsift.ingest.chunk_builder import ChunkBuilder
from trailsift.ingest.exemplars import RANK, candidates, new_lines
from trailsift.ingest.sift import LINE, LOOKED_AT, ColumnarRules, encode, micros_of
from trailsift.ingest.worker import Worker
from trailsift.lake import dedup, forms
from trailsift.lake.home import home
from trailsift.lake.open import open_snapshot
from trailsift.lake.parquet import read_columns
from trailsift.prices import MONTH, Price
from trailsift.rules import Rules
from trailsift.schema import DENIED_CODES, EVENTS
from trailsift.sources import open_source
from trailsift.sources.base import LogObject
from trailsift.times import DAY

#: Rows decided on at a time.
CHUNK_ROWS = 100_000
#: Values listed per kind of value that would no longer be seen.
LISTED = 10

_COLUMNS = list(dict.fromkeys((*LOOKED_AT, *LINE)))
#: Kinds of values -> the column that holds them.
KINDS = {"roles": "role_arn", "resources": "resource_arn", "networks": "source_ip", "user_agents": "user_agent"}


class Effect(NamedTuple):
    """The effect of one rule (None: of events that no rule matches).

    Bytes are those of the source, divided evenly among its events. Dollars are for a month at the rate of the source:
    the price of the trail, which rules do not change, and of a month's storage without and with the rules.
    """

    rule: str | None
    action: str
    events: int
    stored: int
    bytes: int
    bytes_stored: int
    usd_trail: float
    usd_kept: float
    usd_stored: float


class Unseen(NamedTuple):
    """A value that no stored event would have any more, and the number of its events."""

    value: str
    events: int


@dataclass(frozen=True, slots=True)
class DryRun:
    """The outcome for a source. ``unseen`` by kind, most events first; ``unseen_count``: the number of all of them."""

    source: str
    rules: str
    days: float
    effects: tuple[Effect, ...]
    unseen: dict[str, tuple[Unseen, ...]]
    unseen_count: dict[str, int]
    denied: int
    denied_stored: int

    @property
    def events(self) -> int:
        """Number of distinct events."""
        return sum(effect.events for effect in self.effects)

    @property
    def stored(self) -> int:
        """Number of events that would be stored."""
        return sum(effect.stored for effect in self.effects)

    def as_dict(self) -> dict[str, Any]:
        """Return the object printed by ``--json``."""
        return {
            "source": self.source,
            "rules": self.rules,
            "days": round(self.days, 3),
            "events": self.events,
            "stored": self.stored,
            "effects": [effect._asdict() for effect in self.effects],
            "no_longer_seen": {
                kind: {"count": self.unseen_count[kind], "most": [value._asdict() for value in values]}
                for kind, values in self.unseen.items()
            },
            "denied_calls": self.denied,
            "denied_calls_stored": self.denied_stored,
        }


class _Chunk(NamedTuple):
    table: pa.Table
    ids: Ids
    weight: Floats
    bytes: float


def dry_run(rules: Rules, prices: dict[str, Price], inputs: Sequence[str] = (), lake: Path | None = None) -> DryRun:
    """Apply the rules to the events of log files, or of a lake (by their weights); nothing is written.

    Raise SourceError if there are no events.
    """
    totals = _Totals(ColumnarRules(rules))
    for chunk in _of_lake(lake) if lake is not None else _of_logs(inputs):
        totals.add(chunk)
    name = home(lake) if lake is not None else ", ".join(inputs)
    if not totals.rows:
        raise SourceError(f"no CloudTrail events in {name}: nothing to apply the rules to")
    totals.settle()
    return totals.result(name, prices)


def _of_logs(inputs: Sequence[str]) -> Iterator[_Chunk]:
    source = open_source(inputs)
    files = source.find()
    builder, index = ChunkBuilder(), dedup.DedupIndex()
    size = 0
    try:
        Worker.expect(files)
        for number, file in enumerate(files):
            builder.add(file.name, _read(file))
            size += file.size
            if builder.rows and (builder.rows >= CHUNK_ROWS or number == len(files) - 1):
                yield _new_events(builder, index, size)
                size = 0
        if builder.rows:
            yield _new_events(builder, index, size)
    finally:
        source.release()


def _read(file: LogObject) -> bytes:
    opened = file.open()
    try:
        return Path(opened).read_bytes() if isinstance(opened, str) else opened.read()
    except OSError as error:
        raise SourceError(f"{file.name} cannot be read: {error.strerror or error}") from error


def _new_events(builder: ChunkBuilder, index: dedup.DedupIndex, size: int) -> _Chunk:
    """Return the events of a chunk that did not occur before."""
    chunk = builder.finish()
    is_new, _ = index.offer(dedup.ids_of(chunk.ids, chunk.crc32))
    table = chunk.columns(_COLUMNS, np.flatnonzero(is_new))
    return _Chunk(table, chunk.ids[is_new], np.ones(table.num_rows), float(size))


def _of_lake(root: Path) -> Iterator[_Chunk]:
    coded_columns = [name for name in _COLUMNS if pa.types.is_dictionary(CHUNK_SCHEMA.field(name).type)]
    snapshot = open_snapshot(root)
    files = snapshot.files(EVENTS.name)
    forms.check_links(snapshot.root, files)
    for file in files:
        names = [*_COLUMNS, "event_id", "weight"]
        table = read_columns(snapshot.root, file.path, names, coded_columns)
        ids = identities(table.column("event_id").to_pylist())
        yield _Chunk(table.select(_COLUMNS), ids, np.asarray(table.column("weight")), float(file.bytes))


class _Totals:
    """Adds up the outcome of chunk after chunk."""

    def __init__(self, rules: ColumnarRules) -> None:
        self.rules = rules
        count = len(rules.names) + 1  # the last one: no rule
        self.events, self.stored, self.bytes, self.bytes_stored = (np.zeros(count) for _ in range(4))
        self.values: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.kept: dict[str, set[str]] = {kind: set() for kind in KINDS}
        self.denied = self.denied_stored = 0.0
        self.rows = 0
        self.span = (1 << 62, -(1 << 62))
        self.days: set[int] = set()
        self._held: list[pa.Table] = []

    def add(self, chunk: _Chunk) -> None:
        """Decide on a chunk; the candidates of its lines are held until ``settle``."""
        if not chunk.table.num_rows:
            return
        decided = self.rules.decide(chunk.table, chunk.ids)
        first, rank = self.rules.exemplars(chunk.table, chunk.ids, decided)
        share = chunk.bytes / chunk.weight.sum()
        kept = decided.weight > 0
        held = np.zeros(len(kept), bool)
        held[first] = True
        rule = decided.rule % len(self.events)
        self.events += np.bincount(rule, chunk.weight, len(self.events))
        self.bytes += np.bincount(rule, chunk.weight * share, len(self.events))
        self._keep(chunk.table, rule, chunk.weight, share, kept & ~held)
        time = micros_of(chunk.table.column("event_time"))
        self.span = min(self.span[0], int(time.min())), max(self.span[1], int(time.max()))
        self.days.update(np.unique(time // DAY).tolist())
        self.rows += chunk.table.num_rows
        for kind in KINDS:
            values, codes = self._values(chunk.table, kind)
            counts = np.bincount(codes, chunk.weight, len(values)).tolist()
            self.values[kind].update({v: n for v, n in zip(values, counts, strict=True) if v is not None and n})
        self.denied += self._denied(chunk.table, chunk.weight, np.ones(len(kept), bool))
        if len(first):
            rows = candidates(chunk.table.take(pa.array(first)), rank, rule[first])
            extra = {"won": kept[first], "share": np.full(len(first), share), "stands_for": chunk.weight[first]}
            for name, column in extra.items():
                rows = rows.append_column(name, pa.array(column))
            self._held.append(rows)

    def settle(self) -> None:
        """Decide on the held candidates: each line keeps one, sampling decides on the others."""
        if not self._held:
            return
        held = pa.concat_tables(self._held).combine_chunks()
        kept = np.asarray(held.column("won")).copy()
        kept[new_lines(held, np.asarray(held.column(RANK)))] = True
        rule = np.asarray(held.column("rule_number"))
        share = np.asarray(held.column("share"))
        self._keep(held, rule, np.asarray(held.column("stands_for")), share, kept)

    def _keep(self, table: pa.Table, rule: Any, weight: Any, share: Any, kept: Any) -> None:
        counts = weight * kept
        self.stored += np.bincount(rule, counts, len(self.stored))
        self.bytes_stored += np.bincount(rule, counts * share, len(self.stored))
        self.denied_stored += self._denied(table, weight, kept)
        for kind in KINDS:
            values, codes = self._values(table, kind)
            self.kept[kind].update(str(values[code]) for code in np.unique(codes[kept]).tolist())

    @staticmethod
    def _values(table: pa.Table, kind: str) -> tuple[list[Any], Any]:
        values, codes = encode(table.column(KINDS[kind]))
        return ([source_network(value) for value in values] if kind == "networks" else values), codes

    @staticmethod
    def _denied(table: pa.Table, weight: Any, kept: Any) -> float:
        values, codes = encode(table.column("error_code"))
        refused = np.array([value in DENIED_CODES for value in values])
        return float((weight * kept)[refused[codes]].sum())

    def result(self, name: str, prices: dict[str, Price]) -> DryRun:
        """Return the totals, with costs for a month at this rate."""
        # Days without events do not count: a few days of logs may be spread over several years.
        days = min(max((self.span[1] - self.span[0]) / DAY, 1 / 24), len(self.days))
        rate = MONTH / days
        rules = self.rules.rules.rules
        effects = []
        for number in range(len(self.events)):
            rule = rules[number] if number < len(rules) else None
            events, stored = round(self.events[number]), round(self.stored[number])
            size, size_stored = float(self.bytes[number]), float(self.bytes_stored[number])
            effects.append(
                Effect(
                    rule.name if rule else None,
                    rule.action if rule else "keep",
                    *(events, stored, round(size), round(size_stored)),
                    prices["data_events"].of(events * rate),
                    prices["storage_month"].of(size * rate),
                    prices["storage_month"].of(size_stored * rate),
                )
            )
        unseen = {kind: _missing(self.values[kind], self.kept[kind]) for kind in KINDS}
        return DryRun(
            source=name,
            rules=self.rules.rules.name,
            days=days,
            effects=tuple(effects),
            unseen={kind: tuple(values[:LISTED]) for kind, values in unseen.items()},
            unseen_count={kind: len(values) for kind, values in unseen.items()},
            denied=round(self.denied),
            denied_stored=round(self.denied_stored),
        )


def _missing(values: Counter[str], kept: set[str]) -> list[Unseen]:
    return [Unseen(value, round(count)) for value, count in values.most_common() if value not in kept]
