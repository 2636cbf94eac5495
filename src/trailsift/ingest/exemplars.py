"""The event that each new line of ``hourly`` keeps, so that every line can be drilled into.

Which event that is only the one who sees the whole batch can say: workers hand over one candidate a line and chunk,
the one with the smallest second hash, and the smallest of these is stored with weight 1, outside the lottery. The
second hash knows nothing of the lottery, so what the lottery says of all others stays an unbiased sample of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trailsift.ingest import sift
from trailsift.ingest.chunk import Chunk
from trailsift.ingest.sift import LINE
from trailsift.lake import index
from trailsift.lake.index import File, FileFilter
from trailsift.lake.parquet import events_table, write_events
from trailsift.rules import Rules
from trailsift.schema import HOURLY

_HOUR = 3_600_000_000
#: Columns that candidates have beside those of a chunk: the second hash, the number of the rule.
RANK, RULE = "first_rank", "rule_number"


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a batch's candidates: files not yet committed, rows in them, and the others by rule."""

    files: list[File] = field(default_factory=list)
    stored: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def candidates(table: pa.Table, rank: sift.Words, rule: sift.Ints) -> pa.Table:
    """A chunk's candidates as they travel: rows with the weights that the lottery gave them."""
    return table.append_column(RANK, pa.array(rank)).append_column(RULE, pa.array(rule))


class Exemplars:
    """The candidates of one batch."""

    def __init__(self, root: Path, rules: Rules) -> None:
        self.root = root
        self.names = [rule.name for rule in rules.rules]
        self._held: list[pa.Table] = []
        self.rows = 0

    def hold(self, table: pa.Table) -> None:
        """Takes in the candidates of a chunk."""
        self._held.append(table)
        self.rows += table.num_rows

    def settle(self) -> Settled:
        """Stores what a line keeps and what the lottery has drawn. To be called under the lake's lock."""
        if not self.rows:
            return Settled()
        whole = pa.concat_tables(self._held).combine_chunks()
        self._held, self.rows = [], 0
        weight = np.asarray(whole.column("weight")).copy()
        hour = sift.micros_of(whole.column("event_time")) // _HOUR
        known = self._lines(int(hour.min()), int(hour.max()))
        weight[new_lines(whole, np.asarray(whole.column(RANK)), known)] = 1.0
        rule = np.asarray(whole.column(RULE))
        rows = np.flatnonzero(weight)
        kept = sift.stored(Chunk.of(whole.drop_columns([RANK, RULE])), rows, weight[rows])
        dropped = sift.counted(self.names, rule, weight)
        return Settled(write_events(kept, self.root, events_table(self.root)), len(rows), dropped)

    def _lines(self, first: int, last: int) -> pa.Table:
        """The keys of the lake's lines of the hours from ``first`` to ``last``."""
        wanted = FileFilter(min_time=first * _HOUR, max_time=last * _HOUR)
        files = index.last_commit(self.root).files(HOURLY.name, wanted)
        names = ["hour", *LINE]
        parts = [pq.read_table(self.root / file.path, columns=names, partitioning=None) for file in files]
        if not parts:
            return _no_lines()
        return pa.concat_tables(parts, promote_options="permissive")


def new_lines(whole: pa.Table, rank: sift.Words, known: pa.Table | None = None) -> sift.Ints:
    """Of each line the row with the smallest rank, but of those lines that are ``known`` (keys of ``hourly``)."""
    hour = sift.micros_of(whole.column("event_time")) // _HOUR
    known = known if known is not None else _no_lines()
    columns = [pa.chunked_array([*_plain(whole.column(name)), *_plain(known.column(name))]) for name in LINE]
    hours = np.concatenate([hour, sift.micros_of(known.column("hour")) // _HOUR])
    group, count = sift.groups(columns, hours)
    old = np.zeros(count, bool)
    old[group[len(hour) :]] = True
    group = group[: len(hour)]
    best = sift.smallest(group, rank)
    return best[~old[group[best]]]


def _no_lines() -> pa.Table:
    return pa.table({name: pa.array([], _type(name)) for name in ("hour", *LINE)})


def _type(name: str) -> pa.DataType:
    if name == "hour":
        return pa.timestamp("us", tz="UTC")
    return pa.bool_() if name == "read_only" else pa.string()


def _plain(column: pa.ChunkedArray) -> list[pa.Array]:
    """Chunks without dictionaries."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    return list(column.chunks)
