"""The summary lines of a batch of events, and how they are merged.

Lines are computed from every distinct event before anything is dropped or sampled, so they are exact. Sums, minima,
maxima and sketches can be merged in any order: ``merge`` of the lines of two batches equals the lines of both batches
together.

A sketch of distinct values is the sorted list of the ``SKETCH_SIZE`` smallest 64-bit hashes (k minimum values): exact
below that size; above it the standard error of the estimate is 1 / sqrt(k - 2), 2.2 %. Source: Bar-Yossef et al.,
Counting distinct elements in a data stream (2002); Beyer et al., On synopses for distinct-value estimation (2007).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift import _native, schema
from trailsift.cloudtrail.call_kinds import READ, call_kind
from trailsift.cloudtrail.callers import ANONYMOUS_ACCOUNT
from trailsift.cloudtrail.key_patterns import key_pattern, word_pattern
from trailsift.cloudtrail.origins import agent_family, source_network
from trailsift.columns.arrays import Ints
from trailsift.columns.arrow import arrow_schema
from trailsift.columns.group_by import (
    DictionaryColumn,
    GroupBy,
    by_group,
    filled,
    grouped,
    offset,
    smallest_text,
    text_buffers,
)
from trailsift.schema import SKETCH_SIZE
from trailsift.times import DAY, HOUR

#: How the value columns of summary lines are merged.
SUMS = ("events", "bytes_in", "bytes_out", "denied", "owner_side")
TIMES = ("first_time", "last_time")
SKETCHES = ("source_ips", "object_keys")


@dataclass(frozen=True, slots=True)
class FactorizedRows:
    """Events split into the columns that differ per event and those that whole sets of events share.

    All events of a set are in the same hour."""

    #: object_key and source_object_key (encoded), event_time, bytes_in, bytes_out and is_shared: one row per event.
    own: pa.Table
    #: The other columns: one row per set of events; and the set of each event.
    sets: pa.Table
    of_row: Ints

    #: Columns that differ per event. ``is_shared``: whether there is a ``shared_event_id``.
    OWN: ClassVar = ("object_key", "source_object_key", "event_time", "bytes_in", "bytes_out", "is_shared")


def hashes64(values: pa.StringArray) -> Ints:
    """Return ``hash64`` of each value; there must be no nulls."""
    if _native.keys is None or not len(values):
        return np.array([hash64(value) for value in values.to_pylist()], np.int64)
    return np.frombuffer(_native.keys.hashes(*text_buffers(values)), np.int64)


def hash64(value: str) -> int:
    """Return the hash that sketches hold: the first 8 bytes of the MD5, as a signed big-endian integer.

    DuckDB, Trino and Spark can all compute it.
    """
    digest = hashlib.md5(value.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _smallest(group: Ints, values: Ints, groups: int) -> pa.Array:
    order = by_group(group, values, groups)
    group, values = group[order], values[order]
    is_first = np.ones(len(group), bool)
    is_first[1:] = (group[1:] != group[:-1]) | (values[1:] != values[:-1])
    group, values = group[is_first], values[is_first]
    starts = np.searchsorted(group, np.arange(groups))
    rank = np.arange(len(group)) - starts[group]
    kept = rank < SKETCH_SIZE
    lengths = np.bincount(group[kept], minlength=groups)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[kept]))


class Summaries:
    """The summary tables of one batch. Columns follow the tables of ``schema`` with the same names."""

    def __init__(self, events: FactorizedRows, touch: str = schema.TARGET) -> None:
        """``events``: distinct events with the columns ``NEEDED``; ``touch``: as in ``usage`` and ``access``."""
        self._touch = touch
        #: The lines for what copies read, which are added to ``usage`` and ``access``.
        self._sources = (
            Summaries(copied, schema.SOURCE) if touch == schema.TARGET and (copied := _copied(events)) else None
        )
        own = {name: _combined(events.own.column(name)) for name in FactorizedRows.OWN}
        self._keys = DictionaryColumn(own["object_key"])
        patterns = self._keys.replaced(key_patterns(self._keys.values))
        # Most events agree in all columns that the tables group by: count each combination (cell) once, group those.
        cells = GroupBy([(events.of_row, events.sets.num_rows), (patterns.codes, patterns.size)])
        #: Row -> cell. Everything below is per cell.
        self._cell = cells.of_row
        sets = events.of_row[cells.first]
        self._codes = {name: DictionaryColumn(_combined(events.sets.column(name))).at(sets) for name in _SETS}
        self._codes["category"] = self._codes["event_category"]
        self._codes["key_pattern"] = patterns.at(cells.first)
        self._read_only = filled(_combined(events.sets.column("read_only")).cast(pa.int8()))[sets] + 1
        bytes_in, bytes_out = (np.asarray(pc.fill_null(own[name], 0)).astype(np.int64) for name in _BYTES)
        time = np.asarray(own["event_time"].cast(pa.int64()))
        self._sums = _totals(self._cell, len(cells), bytes_in, bytes_out, time)
        self._owner_side = self._of_owners(np.asarray(own["is_shared"].cast(pa.int8())), len(cells))
        #: Time of any event in the cell; all share one hour.
        self._time = self._sums["first_time"]

    @classmethod
    def of(cls, events: pa.Table) -> Summaries:
        """Return the summaries of distinct events in ``arrow.CHUNK_SCHEMA``."""
        codes = [DictionaryColumn(_combined(events.column(name))) for name in _SETS]
        hour = offset(np.asarray(_combined(events.column("event_time")).cast(pa.int64())) // HOUR)
        read_only = filled(_combined(events.column("read_only")).cast(pa.int8())) + 1
        groups = GroupBy([hour, (read_only, 3), *((each.codes, each.size) for each in codes)])
        sets = events.select([*_SETS, "read_only"]).take(pa.array(groups.first))
        own = events.append_column("is_shared", is_shared(events.column("shared_event_id")))
        return cls(FactorizedRows(own.select(FactorizedRows.OWN), sets, groups.of_row))

    def tables(self) -> dict[str, pa.Table]:
        """Return the lines of every summary table, by its name."""
        return {
            schema.HOURLY.name: self.hourly(),
            schema.USAGE.name: self.usage(),
            schema.PROFILE.name: self.profile(),
            schema.ACCESS.name: self.access(),
            schema.SESSIONS.name: self.sessions(),
        }

    def hourly(self) -> pa.Table:
        """Return the lines of ``hourly``."""
        names = (
            "account_id",
            "aws_region",
            "service",
            "event_name",
            "caller",
            "role_arn",
            "resource_arn",
            "error_code",
            "category",
        )
        hour = offset(self._time // HOUR)
        groups = GroupBy([hour, *(self._part(name) for name in names), (self._read_only, 3)])
        rows = groups.first
        columns: dict[str, Any] = {name: self._codes[name].take(rows) for name in names}
        columns["hour"] = _timestamps(self._time[rows] // HOUR * HOUR)
        columns["read_only"] = pa.array(self._read_only[rows] == 2, mask=self._read_only[rows] == 0)
        columns["source_ips"] = _sketches(groups.of_row, self._codes["source_ip"], len(groups))
        columns["object_keys"] = _sketches(groups.of_row[self._cell], self._keys, len(groups))
        return _table(schema.HOURLY, columns, self._folded(groups))

    def usage(self) -> pa.Table:
        """Return the lines of ``usage``."""
        names = (
            "account_id",
            "caller",
            "role_arn",
            "service",
            "event_name",
            "resource_arn",
            "error_code",
            "key_pattern",
            "category",
        )
        groups = GroupBy([offset(self._time // DAY), *(self._part(name) for name in names)])
        rows = groups.first
        columns: dict[str, Any] = {name: self._codes[name].take(rows) for name in names}
        columns["day"] = _days(self._time[rows])
        columns["touch"] = pa.array([self._touch] * len(rows), pa.string())
        columns["example_key"] = smallest_text(self._keys, groups.of_row[self._cell], len(groups))
        sums = self._folded(groups) | {"owner_side": groups.sum(self._owner_side)}
        return self._with_sources(_calls(_table(schema.USAGE, columns, sums)), Summaries.usage)

    def access(self) -> pa.Table:
        """Return the lines of ``access``."""
        names = ("account_id", "resource_arn", "caller", "category")
        network, kind = self._networks, self._kinds
        parts = [(column.codes, column.size) for column in (network, kind)]
        groups = GroupBy([offset(self._time // DAY), *(self._part(name) for name in names), *parts])
        rows = groups.first
        columns: dict[str, Any] = {name: self._codes[name].take(rows) for name in names}
        columns["day"] = _days(self._time[rows])
        columns["source_network"] = network.take(rows)
        columns["kind"] = kind.take(rows)
        columns["touch"] = pa.array([self._touch] * len(rows), pa.string())
        sums = self._folded(groups) | {
            "denied": groups.sum(self._denied),
            "owner_side": groups.sum(self._owner_side),
        }
        return self._with_sources(_calls(_table(schema.ACCESS, columns, sums)), Summaries.access)

    def sessions(self) -> pa.Table:
        """Return the lines of ``sessions``."""
        merged, sums = self._origins
        columns_of = {
            "account_id": self._codes["account_id"],
            "caller": self._codes["caller"],
            "category": self._codes["category"],
            "session_name": self._codes["session_name"],
            "source_network": self._networks,
            "user_agent": self._agents,
            "vpc_endpoint": self._codes["vpc_endpoint_id"],
        }
        parts = [(column.codes[merged.first], column.size) for column in columns_of.values()]
        groups = GroupBy([offset(self._time[merged.first] // DAY), *parts])
        rows = merged.first[groups.first]
        columns: dict[str, Any] = {name: column.take(rows) for name, column in columns_of.items()}
        columns["day"] = _days(self._time[rows])
        return _calls(
            _table(schema.SESSIONS, columns, {name: _folded(groups, name, each) for name, each in sums.items()})
        )

    def profile(self) -> pa.Table:
        """Return the lines of ``profile``."""
        values: dict[str, DictionaryColumn] = {
            "source_network": self._networks,
            "user_agent": self._agents,
            "vpc_endpoint": self._codes["vpc_endpoint_id"],
            "session_name": self._codes["session_name"],
            "principal_account": self._codes["principal_account"],
        }
        merged, sums = self._origins
        names = ("account_id", "caller", "role_arn", "category")
        keys = [offset(self._time // DAY), *(self._part(name) for name in names)]
        keys = [(codes[merged.first], size) for codes, size in keys]
        tables = []
        for dimension in schema.PROFILE_DIMENSIONS:
            value = values[dimension]
            groups = GroupBy([*keys, (value.codes[merged.first], value.size)])
            rows = merged.first[groups.first]
            columns: dict[str, Any] = {name: self._codes[name].take(rows) for name in names}
            columns["day"] = _days(self._time[rows])
            columns["dimension"] = pa.array([dimension] * len(rows), pa.string())
            columns["value"] = value.take(rows)
            table = _table(schema.PROFILE, columns, {name: _folded(groups, name, each) for name, each in sums.items()})
            tables.append(table.filter(pc.is_valid(table.column("value"))))
        return _calls(pa.concat_tables(tables))

    @cached_property
    def _networks(self) -> DictionaryColumn:
        return self._codes["source_ip"].mapped(lambda values: list(map(source_network, values)))

    @cached_property
    def _agents(self) -> DictionaryColumn:
        return self._codes["user_agent"].mapped(lambda values: list(map(agent_family, values)))

    @cached_property
    def _kinds(self) -> DictionaryColumn:
        """The kind of call of each cell."""
        if self._touch == schema.SOURCE:
            codes = np.ones(len(self._time), np.int64)
            return DictionaryColumn(pa.array([READ] * len(codes), pa.string()).dictionary_encode()).at(codes - 1)
        names = self._codes["service"], self._codes["event_name"]
        groups = GroupBy([*((name.codes, name.size) for name in names), (self._read_only, 3)])
        services, actions = (name.take(groups.first).to_pylist() for name in names)
        flags = [None if flag == 0 else flag == 2 for flag in self._read_only[groups.first].tolist()]
        kinds = list(map(call_kind, services, actions, flags))
        return DictionaryColumn(pa.array(kinds, pa.string()).dictionary_encode()).at(groups.of_row)

    @cached_property
    def _denied(self) -> Ints:
        """The number of refused events per cell."""
        errors = self._codes["error_code"]
        refused = np.array([False, *(code in schema.DENIED_CODES for code in errors.values.to_pylist())])
        return np.where(refused[errors.codes], self._sums["events"], 0)

    @cached_property
    def _origins(self) -> tuple[GroupBy, dict[str, Ints]]:
        """The cells merged over all that ``profile`` and ``sessions`` group by, and the counted columns of each group.

        Most cells agree in it: they are added up once, not once per table and dimension.
        """
        names = ("account_id", "caller", "role_arn", "category", "vpc_endpoint_id", "session_name", "principal_account")
        parts = [self._part(name) for name in names]
        parts += [(column.codes, column.size) for column in (self._networks, self._agents)]
        merged = GroupBy([offset(self._time // DAY), *parts])
        return merged, self._folded(merged) | {"denied": merged.sum(self._denied)}

    def _of_owners(self, shared: Ints, cells: int) -> Ints:
        """Return the number of events per cell that are the owner's copy of a call from another account."""
        if not shared.any():
            return np.zeros(cells, np.int64)
        accounts, callers = self._codes["account_id"], self._codes["principal_account"]
        places = {name: place for place, name in enumerate(accounts.values.to_pylist(), 1)}
        names = callers.values.to_pylist()
        same = np.array([0, *(places.get(name, -1) for name in names)])
        # A service and an anonymous caller have no account with a record of its own.
        has_record = np.array([False, *(name != ANONYMOUS_ACCOUNT for name in names)])
        is_other = has_record[callers.codes] & (same[callers.codes] != accounts.codes)
        counts = np.bincount(self._cell[shared.astype(bool)], minlength=cells)
        return np.where(is_other, counts, 0).astype(np.int64)

    def _with_sources(self, lines: pa.Table, of: Callable[[Summaries], pa.Table]) -> pa.Table:
        """Return lines and those for what copies read."""
        return lines if self._sources is None else pa.concat_tables([lines, of(self._sources)])

    def _part(self, name: str) -> tuple[Ints, int]:
        return self._codes[name].codes, self._codes[name].size

    def _folded(self, groups: GroupBy) -> dict[str, Ints]:
        """Return the counted columns that all tables have, per group."""
        return {name: _folded(groups, name, values) for name, values in self._sums.items()}


def is_shared(shared_event_ids: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return which events have a ``shared_event_id``."""
    ids = _combined(shared_event_ids)
    if ids.null_count == len(ids):
        return pa.array(np.zeros(len(ids), bool))
    return pc.fill_null(pc.greater(pc.binary_length(ids), 0), False)


def _copied(events: FactorizedRows) -> FactorizedRows | None:
    """Return the copies among events, as if they were events of what they read; None if there is none."""
    arns = _combined(events.sets.column("source_resource_arn"))
    if arns.null_count == len(arns):
        return None
    rows = pa.array(np.flatnonzero(np.asarray(pc.is_valid(arns))[events.of_row]))
    own = {name: _combined(events.own.column(name)).take(rows) for name in FactorizedRows.OWN}
    none = pa.array(np.zeros(len(rows), np.int64))
    own |= {"object_key": own["source_object_key"], "bytes_in": none, "bytes_out": none}
    sets = events.sets
    for name, values in (("resource_arn", arns), ("source_resource_arn", pa.nulls(len(arns), arns.type))):
        sets = sets.set_column(sets.schema.get_field_index(name), name, values)
    return FactorizedRows(pa.table(own), sets, events.of_row[np.asarray(rows)])


def _calls(lines: pa.Table) -> pa.Table:
    """Return lines without those of Insights, which are nobody's calls."""
    return lines.filter(pc.fill_null(pc.not_equal(lines.column("category"), schema.INSIGHT), True))


def key_patterns(keys: pa.StringArray) -> pa.DictionaryArray:
    """Return ``key_pattern`` of each key; there must be no nulls."""
    if _native.keys is None or not len(keys):
        return pa.array([key_pattern(key) for key in keys.to_pylist()], pa.string()).dictionary_encode()
    places, patterns = _native.keys.patterns(*text_buffers(keys), word_pattern, key_pattern)
    return pa.DictionaryArray.from_arrays(
        pa.Array.from_buffers(pa.int32(), len(keys), [None, pa.py_buffer(places)]), pa.array(patterns, pa.string())
    )


def _totals(group: Ints, groups: int, bytes_in: Ints, bytes_out: Ints, time: Ints) -> dict[str, Ints]:
    """Return the counted columns per group of rows."""
    names = ("events", *_BYTES, *TIMES)
    if _native.groups is not None:
        columns = (np.ascontiguousarray(column) for column in (bytes_in, bytes_out, time))
        buffers = _native.groups.totals(np.ascontiguousarray(group), groups, *columns)
        return {name: np.frombuffer(part, np.int64) for name, part in zip(names, buffers, strict=True)}
    sums = {"events": np.bincount(group, minlength=groups)}
    for name, values in zip(_BYTES, (bytes_in, bytes_out), strict=True):
        sums[name] = np.zeros(groups, np.int64)
        np.add.at(sums[name], group, values)
    times = np.full(groups, np.iinfo(np.int64).max), np.full(groups, np.iinfo(np.int64).min)
    np.minimum.at(times[0], group, time)
    np.maximum.at(times[1], group, time)
    return sums | dict(zip(TIMES, times, strict=True))


def _sketches(group: Ints, column: DictionaryColumn, groups: int) -> pa.Array:
    """Return the smallest distinct hashes per group; ``group``: the group of each row of the column."""
    # Deduplicate the values of each group before sorting.
    order, starts, _ = grouped(group * column.size + column.codes)
    rows = order[starts]
    rows = rows[column.codes[rows] > 0]
    return _smallest(group[rows], hashes64(column.values)[column.codes[rows] - 1], groups)


def _folded(groups: GroupBy, name: str, values: Ints) -> Ints:
    """Return a counted column of several lines merged per group."""
    if name == "first_time":
        return groups.min(values)
    return groups.max(values) if name == "last_time" else groups.sum(values)


def _table(table: schema.Table, columns: dict[str, Any], sums: dict[str, Ints]) -> pa.Table:
    for name, values in sums.items():
        columns[name] = _timestamps(values) if name in TIMES else pa.array(values)
    fields = arrow_schema(table)
    return pa.Table.from_arrays([_cast(columns[field.name], field.type) for field in fields], schema=fields)


_BYTES = ("bytes_in", "bytes_out")
#: Columns that many events share.
_SETS = (
    "account_id",
    "aws_region",
    "service",
    "event_name",
    "event_category",
    "caller",
    "role_arn",
    "resource_arn",
    "error_code",
    "source_ip",
    "user_agent",
    "vpc_endpoint_id",
    "session_name",
    "principal_account",
    "source_resource_arn",
)
#: Columns of ``events`` that the summaries need, beside those that differ per event.
NEEDED = (*_SETS, "read_only")


def _combined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    combined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(combined, pa.ChunkedArray):
        combined = combined.chunk(0) if combined.num_chunks else pa.array([], combined.type)
    return combined


def _timestamps(micros: Ints) -> pa.Array:
    return pa.array(micros.astype("datetime64[us]"), pa.timestamp("us", tz="UTC"))


def _days(micros: Ints) -> pa.Array:
    return pa.array((micros // DAY).astype("datetime64[D]"))


def _cast(column: Any, kind: pa.DataType) -> pa.Array:
    return column if column.type == kind else column.cast(kind)


def merge(table: schema.Table, parts: Iterable[pa.Table]) -> pa.Table:
    """Merge lines of several batches of one summary table into one line per key, in the table's sort order."""
    lines = pa.concat_tables(parts) if parts else arrow_schema(table).empty_table()
    if not lines.num_rows:
        return arrow_schema(table).empty_table()
    coded = {name: DictionaryColumn(_combined(lines.column(name))) for name in table.keys}
    groups = GroupBy([(codes.codes, codes.size) for codes in coded.values()])
    columns: dict[str, pa.Array] = {}
    for column in table.columns:
        values = _combined(lines.column(column.name))
        if column.name in table.keys:
            columns[column.name] = values.take(pa.array(groups.first))
        elif column.name in SUMS:
            columns[column.name] = pa.array(groups.sum(np.asarray(values)))
        elif column.name in TIMES:
            columns[column.name] = _timestamps(_folded(groups, column.name, np.asarray(values.cast(pa.int64()))))
        elif column.name in SKETCHES:
            columns[column.name] = _merge_sketches(groups, values)
        else:
            columns[column.name] = smallest_text(DictionaryColumn(values), groups.of_row, len(groups))
    merged = pa.table(columns, schema=arrow_schema(table))
    order = dict.fromkeys((*table.order, *table.keys))
    return merged.sort_by([(name, "ascending") for name in order])


def _merge_sketches(groups: GroupBy, lists: pa.Array) -> pa.Array:
    lists = lists.cast(pa.list_(pa.int64()))
    several = groups.count() > 1
    # Most keys have a single line, whose sketch stays as it is.
    place = np.cumsum(several) - 1
    rows = np.flatnonzero(several[groups.of_row])
    parts = lists.take(pa.array(rows))
    group = place[groups.of_row[rows]][np.asarray(pc.list_parent_indices(parts))]
    merged = _smallest(group, np.asarray(pc.list_flatten(parts)).astype(np.int64), int(several.sum()))
    which = np.where(several, len(lists) + place, groups.first)
    return pa.concat_arrays([lists, merged]).take(pa.array(which))
