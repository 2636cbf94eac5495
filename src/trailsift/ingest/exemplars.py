"""The event that each new line of ``hourly`` keeps, so that every line can be drilled into.

Workers return one candidate per line and chunk, the event with the smallest second hash. Only the whole batch shows
which of these is the smallest; it is stored with weight 1, outside the sampling. The second hash is independent of the
sampling hash, so the sampled events remain an unbiased sample of all others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift.columns.arrays import Ints, Words
from trailsift.ingest.chunk import Chunk
from trailsift.ingest.sift import LINE, STORED_LINE, count_dropped, group_rows, micros_of, select_rows, smallest_ranks
from trailsift.lake import index
from trailsift.lake.index import File, FileFilter
from trailsift.lake.parquet import events_table, read_columns, write_events
from trailsift.rules import Rules
from trailsift.schema import HOURLY
from trailsift.times import HOUR

#: Columns of candidates beside those of a chunk: the second hash, and the number of the rule.
RANK, RULE = "first_rank", "rule_number"


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome for a batch's candidates: files not yet committed, rows in them, and dropped rows by rule."""

    files: list[File] = field(default_factory=list)
    stored: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def candidates(table: pa.Table, rank: Words, rule: Ints) -> pa.Table:
    """Return a chunk's candidates with their ranks and rules; their weights are those of the sampling."""
    return table.append_column(RANK, pa.array(rank)).append_column(RULE, pa.array(rule))


class Exemplars:
    """The candidates of one batch."""

    def __init__(self, root: Path, rules: Rules) -> None:
        self.root = root
        self.names = [rule.name for rule in rules.rules]
        self._held: list[pa.Table] = []
        self.rows = 0

    def hold(self, table: pa.Table) -> None:
        """Add the candidates of a chunk."""
        self._held.append(table)
        self.rows += table.num_rows

    def settle(self) -> Settled:
        """Write the exemplars of new lines and the sampled candidates. Call it under the lake's lock."""
        if not self.rows:
            return Settled()
        held = pa.concat_tables(self._held).combine_chunks()
        self._held, self.rows = [], 0
        weight = np.asarray(held.column("weight")).copy()
        hour = micros_of(held.column("event_time")) // HOUR
        lines = self._lines(int(hour.min()), int(hour.max()))
        weight[new_lines(held, np.asarray(held.column(RANK)), lines)] = 1.0
        rule = np.asarray(held.column(RULE))
        rows = np.flatnonzero(weight)
        table = select_rows(Chunk.of(held.drop_columns([RANK, RULE])), rows, weight[rows])
        dropped = count_dropped(self.names, rule, weight)
        return Settled(write_events(table, self.root, events_table(self.root)), len(rows), dropped)

    def _lines(self, first: int, last: int) -> pa.Table:
        """Return the keys of the lake's lines of the hours from ``first`` to ``last``."""
        hours = FileFilter(min_time=first * HOUR, max_time=last * HOUR)
        files = index.last_commit(self.root).files(HOURLY.name, hours)
        names = ["hour", *LINE]
        parts = [read_columns(self.root, file.path, ["hour", *STORED_LINE]).rename_columns(names) for file in files]
        if not parts:
            return _no_lines()
        return pa.concat_tables(parts, promote_options="permissive")


def new_lines(events: pa.Table, rank: Words, lines: pa.Table | None = None) -> Ints:
    """Return the row with the smallest rank per new line; existing ``lines`` (keys of ``hourly``) are skipped."""
    hour = micros_of(events.column("event_time")) // HOUR
    lines = lines if lines is not None else _no_lines()
    columns = [pa.chunked_array([*_plain(events.column(name)), *_plain(lines.column(name))]) for name in LINE]
    hours = np.concatenate([hour, micros_of(lines.column("hour")) // HOUR])
    group, count = group_rows(columns, hours)
    exists = np.zeros(count, bool)
    exists[group[len(hour) :]] = True
    group = group[: len(hour)]
    best = smallest_ranks(group, rank)
    return best[~exists[group[best]]]


def _no_lines() -> pa.Table:
    return pa.table({name: pa.array([], _type(name)) for name in ("hour", *LINE)})


def _type(name: str) -> pa.DataType:
    if name == "hour":
        return pa.timestamp("us", tz="UTC")
    return pa.bool_() if name == "read_only" else pa.string()


def _plain(column: pa.ChunkedArray) -> list[pa.Array]:
    """Return the chunks of a column, without dictionaries."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    return list(column.chunks)
