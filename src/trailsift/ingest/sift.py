"""Rules over columns: what ``rules.RowRules`` decides for one row, decided for a chunk of a hundred thousand.

The values of most columns repeat, so the rules are applied once per distinct value, then once per distinct combination
of those results. Only the time, the sampling and, if a rule needs it, the object key are looked at per row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift.columns.arrays import Floats, Ids, Ints, Mask, Words
from trailsift.columns.arrow import CHUNK_SCHEMA
from trailsift.columns.group_by import DictionaryColumn
from trailsift.columns.summarize import key_patterns
from trailsift.decode.fast_path import WHAT_MEMBERS, CallTemplate
from trailsift.ingest.chunk import OF_WHAT, Chunk
from trailsift.rules import RowRules, Rules
from trailsift.rules.model import FIELDS
from trailsift.rules.sampling import SipKey, siphash24, threshold
from trailsift.rules.week import SLOT, week_hour
from trailsift.schema import HOURLY
from trailsift.times import HOUR

#: Up to this many combinations, codes are looked up in a table; above, they are sorted.
_TABLE = 1 << 21
#: Rows hashed at a time: they stay in the processor's cache.
_BLOCK = 4096

#: Columns that identify a line of ``hourly``, beside the hour; and those of ``events`` that they are.
STORED_LINE = tuple(name for name in HOURLY.keys if name != "hour")
LINE = tuple({"category": "event_category"}.get(name, name) for name in STORED_LINE)
#: Columns that a decision may need.
LOOKED_AT = tuple(dict.fromkeys(FIELDS.values()))


@dataclass(frozen=True, slots=True)
class Decided:
    """Decisions, one per row: the number of the rule that matched (-1: none), the weight to store the row with (0.0:
    not stored), and whether sampling decided."""

    rule: Ints
    weight: Floats
    sampled: Mask


class ColumnarRules:
    """A rules file prepared for deciding on chunks."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.row_rules = RowRules(rules)
        self.names = [rule.name for rule in rules.rules]
        rates = [rule.rates or (float(rule.action == "keep"),) * 24 for rule in rules.rules]
        # One row more than there are rules: number -1, no rule, keeps.
        self._rates: Floats = np.array([*rates, (1.0,) * 24])
        cells = [[threshold(rate) if 0 < rate < 1 else 0 for rate in row] for row in self._rates.tolist()]
        self._thresholds: Words = np.array(cells, np.uint64)
        classes = {mask: number for number, mask in enumerate(dict.fromkeys(self.row_rules.weeks))}
        self._weeks = list(classes)
        self._week_class: Ints = np.array([classes[mask] for mask in self.row_rules.weeks])

    @property
    def looked_at(self) -> tuple[str, ...]:
        """The columns that ``decide`` and ``exemplars`` need."""
        names = ["event_time", *self.row_rules.columns]
        if self.row_rules.keyed:
            names.append("object_key")
        if ((self._rates > 0) & (self._rates < 1)).any():
            names += LINE
        return tuple(dict.fromkeys(names))

    def drops_all(self, template: CallTemplate) -> bool:
        """Return whether every record of this template is dropped, whoever made the call and when."""
        row: dict[str, Any] = dict(zip(WHAT_MEMBERS.values(), template.members, strict=True))
        row |= {column: getattr(template, name) for column, name in OF_WHAT.items()}
        row |= {"read_only": template.read_only, "resource_arn": template.request.resource_arn}
        return self.row_rules.drops_all(row)

    def decide(self, table: pa.Table, ids: Ids) -> Decided:
        """Decide on every row of a chunk: ``table`` has the columns ``looked_at``, ``ids`` 16 bytes per event id."""
        rows = table.num_rows
        if not rows:
            return Decided(np.empty(0, np.int64), np.empty(0), np.empty(0, bool))
        hours = self._hours(micros_of(table.column("event_time")))
        rule = self._match(table, hours)
        local = hours % 24
        rate = self._rates[rule, local]
        sampled = (rate > 0) & (rate < 1)
        weight = rate.copy()
        rows = np.flatnonzero(sampled)
        if len(rows):
            stays = keyed_hashes(self.row_rules.sample_key, ids[rows]) < self._thresholds[rule[rows], local[rows]]
            weight[rows] = np.where(stays, 1 / rate[rows], 0.0)
        return Decided(rule, weight, sampled)

    def _hours(self, time: Ints) -> Ints:
        """Return the hour of the week of each row."""
        slots = time // SLOT
        distinct, place = _distinct(slots - slots.min(), int(slots.max() - slots.min()) + 1)
        first = int(slots.min())
        zone = self.row_rules.zone
        return np.array([week_hour(zone, first + int(slot)) for slot in distinct], np.int64)[place]

    def _match(self, table: pa.Table, hours: Ints) -> Ints:
        """Return the number of the first rule that matches each row, -1 for none."""
        masks = list(self._weeks)
        place = self._week_class[hours]
        for name, column in self.row_rules.columns.items():
            values, codes = encode(table.column(name))
            numbers: dict[int, int] = {}
            of_value = np.array([numbers.setdefault(column.mask(value), len(numbers)) for value in values], np.int64)
            if len(numbers) > 1:
                masks, place = _crossed(masks, place, list(numbers), of_value[codes])
            else:
                (only,) = numbers
                masks = [mask & only for mask in masks]
        first = np.array([_lowest(mask) for mask in masks], np.int64)
        needs_key = np.array([bool(mask & -mask & self.row_rules.keyed) for mask in masks])
        rule = first[place]
        if needs_key.any():
            rows = np.flatnonzero(needs_key[place])
            if len(rows):
                rule[rows] = self._by_key(table.column("object_key"), rows, masks, place)
        return rule

    def _by_key(self, column: pa.ChunkedArray, rows: Ints, masks: Sequence[int], place: Ints) -> Ints:
        """Return the rules of rows that need the object key."""
        keys = DictionaryColumn(column.take(pa.array(rows)).combine_chunks())
        key_masks, of_key = self._key_masks(keys)
        if self.row_rules.patterned:
            key_masks, of_key = _crossed(key_masks, of_key, *self._pattern_masks(keys))
        both, where = _crossed(masks, place[rows], key_masks, of_key[keys.codes])
        return np.array([_lowest(mask) for mask in both], np.int64)[where]

    def _key_masks(self, keys: DictionaryColumn) -> tuple[list[int], Ints]:
        """Return the distinct masks of the conditions on keys, and the place of each key's mask, that of null first."""
        conditions = self.row_rules.keys
        numbers = {conditions.absent: 0}
        of_key = np.full(keys.size, numbers.setdefault(conditions.free, len(numbers)))
        of_key[0] = 0
        # Most keys match no rule: only look at those that may, one by one.
        near = np.flatnonzero(_can_be_met(keys.values, *conditions.matchable()))
        masks_near = map(conditions.uncached_mask, keys.values.take(pa.array(near)).to_pylist())
        of_key[near + 1] = [numbers.setdefault(mask, len(numbers)) for mask in masks_near]
        return list(numbers), of_key

    def _pattern_masks(self, keys: DictionaryColumn) -> tuple[list[int], Ints]:
        """Return the same for the conditions on the keys' patterns."""
        conditions = self.row_rules.patterns
        patterns, codes = encode(key_patterns(keys.values))
        numbers = {conditions.absent: 0}
        of_pattern = np.array(
            [numbers.setdefault(conditions.mask(pattern), len(numbers)) for pattern in patterns], np.int64
        )
        return list(numbers), np.concatenate([np.zeros(1, np.int64), of_pattern[codes]])

    def exemplars(self, table: pa.Table, ids: Ids, decided: Decided) -> tuple[Ints, Words]:
        """Return, for each line of ``hourly`` with sampled events, that with the smallest second hash: (rows, hashes).

        ``table`` has the columns ``looked_at``.
        """
        rows = np.flatnonzero(decided.sampled)
        if not len(rows):
            return rows, np.empty(0, np.uint64)
        rank = keyed_hashes(self.row_rules.exemplar_key, ids[rows])
        time = micros_of(table.column("event_time"))
        group, _ = group_rows([table.column(name) for name in LINE], time // HOUR, rows)
        best = smallest_ranks(group, rank)
        return rows[best], rank[best]


def _can_be_met(
    values: pa.StringArray, texts: list[str], starts: dict[int, list[str]], ends: dict[int, list[str]]
) -> Mask:
    """Return which values are one of ``texts``, or empty, or begin or end with some (by their size)."""
    masks = [pc.is_in(values, pa.array(["", *texts]))]
    for size, affixes in starts.items():
        masks.append(pc.is_in(pc.utf8_slice_codeunits(values, 0, size), pa.array(affixes)))
    for size, affixes in ends.items():
        masks.append(pc.is_in(pc.utf8_slice_codeunits(values, -size), pa.array(affixes)))
    result: Mask = np.logical_or.reduce([np.asarray(mask) for mask in masks])
    return result


def count_dropped(names: Sequence[str], rule: Ints, weight: Floats) -> Counter[str]:
    """Count the rows that each rule has dropped or sampled away."""
    numbers, counts = np.unique(rule[weight == 0], return_counts=True)
    return Counter({names[number]: int(count) for number, count in zip(numbers, counts, strict=True)})


def keyed_hashes(key: SipKey, ids: Ids) -> Words:
    """Return the SipHash of each event id's 16 bytes."""
    words = np.frombuffer(ids.tobytes(), "<u8").astype(np.uint64).reshape(-1, 2)
    hashes = np.empty(len(words), np.uint64)
    for start in range(0, len(words), _BLOCK):
        part = words[start : start + _BLOCK]
        hashes[start : start + _BLOCK] = siphash24(key, part[:, 0].copy(), part[:, 1].copy())
    return hashes


def micros_of(column: pa.ChunkedArray) -> Ints:
    """Return times as microseconds since 1970."""
    return np.asarray(column.combine_chunks().cast(pa.int64()))


def group_rows(columns: Sequence[pa.ChunkedArray], hour: Ints, rows: Ints | None = None) -> tuple[Ints, int]:
    """Group rows by columns and hour. Return each row's group number, and the number of groups."""
    chosen: Any = slice(None) if rows is None else rows
    hour = hour[chosen]
    _, place = _distinct(hour - hour.min(), int(hour.max() - hour.min()) + 1)
    span = int(place.max()) + 1
    for column in columns:
        values, codes = encode(column)
        place, span = _packed(place * len(values) + codes[chosen], span * len(values))
    if span > _TABLE:
        # Few of these combinations occur, and callers allocate per group.
        distinct, place = _distinct(place, span)
        span = len(distinct)
    return place, span


def smallest_ranks(group: Ints, rank: Words) -> Ints:
    """Return the position of each group's smallest rank."""
    order = np.lexsort((rank, group))
    ordered = group[order]
    is_first = np.ones(len(ordered), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return order[is_first]


def select_rows(chunk: Chunk, rows: Ints, weight: Floats, omit: Sequence[str] = ()) -> pa.Table:
    """Return some rows of a chunk with their weights; the columns ``omit`` are null and are never computed."""
    names = [name for name in CHUNK_SCHEMA.names if name not in omit and name != "weight"]
    table = chunk.columns(names, None if np.array_equal(rows, np.arange(len(chunk))) else rows)
    columns: list[Any] = []
    for name, kind in zip(CHUNK_SCHEMA.names, CHUNK_SCHEMA.types, strict=True):
        if name == "weight":
            columns.append(pa.array(weight))
        else:
            columns.append(pa.nulls(len(rows), kind) if name in omit else table.column(name))
    return pa.Table.from_arrays(columns, schema=CHUNK_SCHEMA)


def _lowest(mask: int) -> int:
    """Return the position of the lowest bit, -1 for none."""
    return (mask & -mask).bit_length() - 1


def _crossed(masks: Sequence[int], place: Ints, others: Sequence[int], other: Ints) -> tuple[list[int], Ints]:
    """Combine two sets of masks: return the distinct results that occur, and each row's place among them."""
    distinct, where = _distinct(place * len(others) + other, len(masks) * len(others))
    numbers: dict[int, int] = {}
    of_pair = []
    for pair in distinct.tolist():
        left, right = divmod(pair, len(others))
        of_pair.append(numbers.setdefault(masks[left] & others[right], len(numbers)))
    return list(numbers), np.array(of_pair, np.int64)[where]


def _distinct(keys: Ints, span: int) -> tuple[Ints, Ints]:
    """Return the distinct keys (0 to ``span`` - 1), and the place of each row's key among them."""
    if span > _TABLE:
        distinct, place = np.unique(keys, return_inverse=True)
        return distinct, place.astype(np.int64)
    present = np.zeros(span, bool)
    present[keys] = True
    distinct = np.flatnonzero(present)
    places = np.zeros(span, np.int64)
    places[distinct] = np.arange(len(distinct))
    return distinct, places[keys]


def _packed(keys: Ints, span: int) -> tuple[Ints, int]:
    """Return keys and their span; renumbered if they are too large to be multiplied further."""
    if span < 1 << 40:
        return keys, span
    distinct, place = _distinct(keys, span)
    return place, len(distinct)


def encode(column: pa.ChunkedArray | pa.Array) -> tuple[list[Any], Ints]:
    """Return the values of a column, None first, and each row's place among them."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    if pa.types.is_boolean(array.type):
        return [None, False, True], np.asarray(pc.fill_null(array.cast(pa.int8()), -1)).astype(np.int64) + 1
    if not isinstance(array, pa.DictionaryArray):
        array = array.dictionary_encode()
    codes = np.asarray(pc.fill_null(array.indices, -1)).astype(np.int64) + 1
    return [None, *array.dictionary.to_pylist()], codes
