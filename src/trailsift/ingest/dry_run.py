"""What a rules file would do, before anything is dropped: each rule's share, and what would no longer be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trailsift.cloudtrail.origins import source_network
from trailsift.columns.arrow import CHUNK_SCHEMA, identities
from trailsift.errors import SourceError
from trailsift.ingest.chunk_builder import ChunkBuilder
from trailsift.ingest.exemplars import RANK, candidates, new_lines
from trailsift.ingest.sift import LINE, LOOKED_AT, ColumnarRules, coded, micros_of
from trailsift.lake import dedup
from trailsift.lake.open import open_snapshot
from trailsift.prices import MONTH, Price
from trailsift.rules import Rules
from trailsift.schema import DENIED_CODES, EVENTS
from trailsift.sources import open_source
from trailsift.sources.base import LogObject

#: Rows of one turn.
CHUNK_ROWS = 100_000
#: Values listed of each kind of what would no longer be seen.
LISTED = 10

_DAY = 86_400_000_000
_COLUMNS = list(dict.fromkeys((*LOOKED_AT, *LINE)))
#: What is looked for in the stored events -> the column that tells it.
KINDS = {"roles": "role_arn", "resources": "resource_arn", "networks": "source_ip", "user_agents": "user_agent"}


class Effect(NamedTuple):
    """What one rule does (None: events that no rule matches). Bytes are of the source, shared out evenly over its
    events; dollars are for a month at the pace of the source: what the trail costs, which rules cannot change, and what
    keeping costs for a month, all of it and after the rules."""

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
    """A value that no stored event would have any more, and its events."""

    value: str
    events: int


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What would become of a source. ``unseen`` by kind, most events first; ``unseen_count`` how many there are."""

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
        """All distinct events."""
        return sum(effect.events for effect in self.effects)

    @property
    def stored(self) -> int:
        """Events that would be stored."""
        return sum(effect.stored for effect in self.effects)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "source": self.source,
            "rules": self.rules,
            "days": round(self.days, 3),
            "events": self.events,
            "stored": self.stored,
            "effects": [effect._asdict() for effect in self.effects],
            "no_longer_seen": {
                kind: {"count": self.unseen_count[kind], "most": [one._asdict() for one in values]}
                for kind, values in self.unseen.items()
            },
            "denied_calls": self.denied,
            "denied_calls_stored": self.denied_stored,
        }


class _Chunk(NamedTuple):
    table: pa.Table
    ids: np.ndarray[Any, np.dtype[np.void]]
    weight: np.ndarray[Any, np.dtype[np.float64]]
    bytes: float


def rehearse(rules: Rules, prices: dict[str, Price], inputs: Sequence[str] = (), lake: Path | None = None) -> Rehearsal:
    """Puts the rules to the events of log files, or of a lake (by their weights); nothing is written.

    SourceError where there are no events.
    """
    sifting = ColumnarRules(rules)
    tally = _Tally(sifting)
    for chunk in _of_lake(lake) if lake is not None else _of_logs(inputs):
        tally.take(chunk)
    name = str(lake) if lake is not None else ", ".join(inputs)
    if not tally.total:
        raise SourceError(f"no CloudTrail events in {name}: nothing to rehearse on")
    tally.settle()
    return tally.result(name, prices)


def _of_logs(inputs: Sequence[str]) -> Iterator[_Chunk]:
    source = open_source(inputs)
    builder, known = ChunkBuilder(), dedup.DedupIndex()
    size = 0
    try:
        files = source.find()
        for number, file in enumerate(files):
            builder.add(file.name, _read(file))
            size += file.size
            if builder.rows and (builder.rows >= CHUNK_ROWS or number == len(files) - 1):
                yield _fresh(builder, known, size)
                size = 0
        if builder.rows:
            yield _fresh(builder, known, size)
    finally:
        source.release()


def _read(file: LogObject) -> bytes:
    opened = file.open()
    try:
        return Path(opened).read_bytes() if isinstance(opened, str) else opened.read()
    except OSError as error:
        raise SourceError(f"{file.name} cannot be read: {error.strerror or error}") from error


def _fresh(builder: ChunkBuilder, known: dedup.DedupIndex, size: int) -> _Chunk:
    chunk = builder.finish()
    fresh, _ = known.offer(dedup.ids_of(chunk.ids, chunk.checks))
    table = chunk.columns(_COLUMNS, np.flatnonzero(fresh))
    return _Chunk(table, chunk.ids[fresh], np.ones(table.num_rows), float(size))


def _of_lake(root: Path) -> Iterator[_Chunk]:
    coded_columns = [name for name in _COLUMNS if pa.types.is_dictionary(CHUNK_SCHEMA.field(name).type)]
    for file in open_snapshot(root).files(EVENTS.name):
        names = [*_COLUMNS, "event_id", "weight"]
        table = pq.read_table(root / file.path, columns=names, read_dictionary=coded_columns, partitioning=None)
        ids = identities(table.column("event_id").to_pylist())
        yield _Chunk(table.select(_COLUMNS), ids, np.asarray(table.column("weight")), float(file.bytes))


class _Tally:
    """Adds up what becomes of chunk after chunk."""

    def __init__(self, sifting: ColumnarRules) -> None:
        self.sifting = sifting
        rules = len(sifting.names) + 1  # the last one: no rule
        self.events, self.stored, self.bytes, self.bytes_stored = (np.zeros(rules) for _ in range(4))
        self.values: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.kept: dict[str, set[str]] = {kind: set() for kind in KINDS}
        self.denied = self.denied_stored = 0.0
        self.total = 0
        self.span = (1 << 62, -(1 << 62))
        self.days: set[int] = set()
        self._held: list[pa.Table] = []

    def take(self, chunk: _Chunk) -> None:
        """Decides on a chunk; the candidates of its lines are held back."""
        if not chunk.table.num_rows:
            return
        decided = self.sifting.decide(chunk.table, chunk.ids)
        first, rank = self.sifting.firsts(chunk.table, chunk.ids, decided)
        share = chunk.bytes / chunk.weight.sum()
        stays = decided.weight > 0
        waits = np.zeros(len(stays), bool)
        waits[first] = True
        rule = decided.rule % len(self.events)
        self.events += np.bincount(rule, chunk.weight, len(self.events))
        self.bytes += np.bincount(rule, chunk.weight * share, len(self.events))
        self._keep(chunk.table, rule, chunk.weight, share, stays & ~waits)
        time = micros_of(chunk.table.column("event_time"))
        self.span = min(self.span[0], int(time.min())), max(self.span[1], int(time.max()))
        self.days.update(np.unique(time // _DAY).tolist())
        self.total += chunk.table.num_rows
        for kind in KINDS:
            values, codes = self._values(chunk.table, kind)
            counts = np.bincount(codes, chunk.weight, len(values)).tolist()
            self.values[kind].update({v: n for v, n in zip(values, counts, strict=True) if v is not None and n})
        self.denied += self._denied(chunk.table, chunk.weight, np.ones(len(stays), bool))
        if len(first):
            rows = candidates(chunk.table.take(pa.array(first)), rank, rule[first])
            extra = {"won": stays[first], "share": np.full(len(first), share), "stands_for": chunk.weight[first]}
            for name, column in extra.items():
                rows = rows.append_column(name, pa.array(column))
            self._held.append(rows)

    def settle(self) -> None:
        """Decides on what was held back: each line keeps its smallest, the lottery has the others."""
        if not self._held:
            return
        whole = pa.concat_tables(self._held).combine_chunks()
        stays = np.asarray(whole.column("won")).copy()
        stays[new_lines(whole, np.asarray(whole.column(RANK)))] = True
        rule = np.asarray(whole.column("rule_number"))
        share = np.asarray(whole.column("share"))
        self._keep(whole, rule, np.asarray(whole.column("stands_for")), share, stays)

    def _keep(self, table: pa.Table, rule: Any, weight: Any, share: Any, stays: Any) -> None:
        counts = weight * stays
        self.stored += np.bincount(rule, counts, len(self.stored))
        self.bytes_stored += np.bincount(rule, counts * share, len(self.stored))
        self.denied_stored += self._denied(table, weight, stays)
        for kind in KINDS:
            values, codes = self._values(table, kind)
            self.kept[kind].update(str(values[code]) for code in np.unique(codes[stays]).tolist())

    @staticmethod
    def _values(table: pa.Table, kind: str) -> tuple[list[Any], Any]:
        values, codes = coded(table.column(KINDS[kind]))
        return ([source_network(value) for value in values] if kind == "networks" else values), codes

    @staticmethod
    def _denied(table: pa.Table, weight: Any, stays: Any) -> float:
        values, codes = coded(table.column("error_code"))
        refused = np.array([value in DENIED_CODES for value in values])
        return float((weight * stays)[refused[codes]].sum())

    def result(self, name: str, prices: dict[str, Price]) -> Rehearsal:
        """The whole, for a month at this pace."""
        # Days without any event say nothing of the pace: logs of several years may hold a few of them.
        days = min(max((self.span[1] - self.span[0]) / _DAY, 1 / 24), len(self.days))
        pace = MONTH / days
        rules = self.sifting.rules.rules
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
                    prices["data_events"].of(events * pace),
                    prices["storage_month"].of(size * pace),
                    prices["storage_month"].of(size_stored * pace),
                )
            )
        unseen = {kind: _missing(self.values[kind], self.kept[kind]) for kind in KINDS}
        return Rehearsal(
            source=name,
            rules=self.sifting.rules.name,
            days=days,
            effects=tuple(effects),
            unseen={kind: tuple(values[:LISTED]) for kind, values in unseen.items()},
            unseen_count={kind: len(values) for kind, values in unseen.items()},
            denied=round(self.denied),
            denied_stored=round(self.denied_stored),
        )


def _missing(values: Counter[str], kept: set[str]) -> list[Unseen]:
    return [Unseen(value, round(count)) for value, count in values.most_common() if value not in kept]
