"""Rules over columns: what ``sift`` decides on one row, decided on a chunk of a hundred thousand.

The values of most columns repeat, so the rules are put to each distinct value once, then to each distinct combination
of what the values gave, and only the time, the lottery and, where a rule asks for it, the object key to each row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift.columns.arrow import CHUNK_SCHEMA
from trailsift.columns.group_by import DictionaryColumn
from trailsift.decode.fast_path import WHAT_MEMBERS, CallTemplate
from trailsift.ingest.chunk import OF_WHAT, Chunk
from trailsift.rules import RowRules, Rules
from trailsift.rules.model import FIELDS
from trailsift.rules.sampling import SipKey, siphash24, threshold
from trailsift.rules.week import SLOT, week_hour
from trailsift.schema import HOURLY

Ints = np.ndarray[Any, np.dtype[np.int64]]
Words = np.ndarray[Any, np.dtype[np.uint64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

_HOUR = 3_600_000_000
#: Codes are counted in a table up to this many combinations, and sorted above.
_TABLE = 1 << 21
#: Rows of one turn of the lottery: they stay in the processor's cache.
_BLOCK = 4096

#: Columns of ``events`` that make a line of ``hourly``, beside the hour.
LINE = tuple(name for name in HOURLY.keys if name != "hour")
#: Columns that a decision may look at.
LOOKED_AT = tuple(dict.fromkeys(FIELDS.values()))


@dataclass(frozen=True, slots=True)
class Decided:
    """For each row the number of the rule it met (-1: none), the weight to store it with (0.0: not), and whether
    that was for the lottery to say."""

    rule: Ints
    weight: Floats
    lottery: Mask


class ColumnarRules:
    """A rules file made ready to decide on chunks."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.sifter = RowRules(rules)
        self.names = [rule.name for rule in rules.rules]
        rates = [rule.rates or (float(rule.action == "keep"),) * 24 for rule in rules.rules]
        # One more row than there are rules: number -1, no rule, keeps.
        self._rates: Floats = np.array([*rates, (1.0,) * 24])
        cells = [[threshold(rate) if 0 < rate < 1 else 0 for rate in row] for row in self._rates.tolist()]
        self._thresholds: Words = np.array(cells, np.uint64)
        classes = {mask: number for number, mask in enumerate(dict.fromkeys(self.sifter.weeks))}
        self._weeks = list(classes)
        self._week_class: Ints = np.array([classes[mask] for mask in self.sifter.weeks])

    @property
    def looked_at(self) -> tuple[str, ...]:
        """The columns that ``decide`` and ``firsts`` need."""
        names = ["event_time", *self.sifter.columns]
        if self.sifter.keyed:
            names.append("object_key")
        if ((self._rates > 0) & (self._rates < 1)).any():
            names += LINE
        return tuple(dict.fromkeys(names))

    def drops_all(self, what: CallTemplate) -> bool:
        """Whether every record of this kind is dropped, whoever made the call and when."""
        row: dict[str, Any] = dict(zip(WHAT_MEMBERS.values(), what.members, strict=True))
        row |= {column: getattr(what, name) for column, name in OF_WHAT.items()}
        row |= {"read_only": what.read_only, "resource_arn": what.request.resource_arn}
        return self.sifter.drops_all(row)

    def decide(self, table: pa.Table, ids: np.ndarray[Any, np.dtype[np.void]]) -> Decided:
        """Decides on every row of a chunk: ``table`` has the columns ``looked_at``, ``ids`` the 16-byte identities."""
        rows = table.num_rows
        if not rows:
            return Decided(np.empty(0, np.int64), np.empty(0), np.empty(0, bool))
        hours = self._hours(micros_of(table.column("event_time")))
        rule = self._match(table, hours)
        local = hours % 24
        rate = self._rates[rule, local]
        lottery = (rate > 0) & (rate < 1)
        weight = rate.copy()
        drawn = np.flatnonzero(lottery)
        if len(drawn):
            wins = hashes(self.sifter.sample_key, ids[drawn]) < self._thresholds[rule[drawn], local[drawn]]
            weight[drawn] = np.where(wins, 1 / rate[drawn], 0.0)
        return Decided(rule, weight, lottery)

    def _hours(self, time: Ints) -> Ints:
        """The hour of the week of each row."""
        slots = time // SLOT
        distinct, place = _distinct(slots - slots.min(), int(slots.max() - slots.min()) + 1)
        first = int(slots.min())
        zone = self.sifter.zone
        return np.array([week_hour(zone, first + int(slot)) for slot in distinct], np.int64)[place]

    def _match(self, table: pa.Table, hours: Ints) -> Ints:
        """The number of the rule that each row meets first, -1 for none."""
        masks = list(self._weeks)
        place = self._week_class[hours]
        for name, column in self.sifter.columns.items():
            values, codes = coded(table.column(name))
            known: dict[int, int] = {}
            of_value = np.array([known.setdefault(column.mask(value), len(known)) for value in values], np.int64)
            if len(known) > 1:
                masks, place = _crossed(masks, place, list(known), of_value[codes])
            else:
                (only,) = known
                masks = [mask & only for mask in masks]
        number = np.array([_lowest(mask) for mask in masks], np.int64)
        keyed = self.sifter.keyed
        open_ = np.array([bool(mask & -mask & keyed) for mask in masks])
        rule = number[place]
        if open_.any():
            rows = np.flatnonzero(open_[place])
            if len(rows):
                rule[rows] = self._by_key(table.column("object_key"), rows, masks, place)
        return rule

    def _by_key(self, column: pa.ChunkedArray, rows: Ints, masks: Sequence[int], place: Ints) -> Ints:
        """The rules of rows for which the object key tells."""
        keys = DictionaryColumn(column.take(pa.array(rows)).combine_chunks())
        conditions = self.sifter.keys
        known = {conditions.absent: 0}
        of_key = np.full(keys.size, known.setdefault(conditions.free, len(known)))
        of_key[0] = 0
        # Most keys are met by no rule, and not looked at one by one.
        near = np.flatnonzero(_can_be_met(keys.values, *conditions.matchable()))
        masks_near = map(conditions.uncached_mask, keys.values.take(pa.array(near)).to_pylist())
        of_key[near + 1] = [known.setdefault(mask, len(known)) for mask in masks_near]
        both, where = _crossed(masks, place[rows], list(known), of_key[keys.codes])
        return np.array([_lowest(mask) for mask in both], np.int64)[where]

    def firsts(self, table: pa.Table, ids: np.ndarray[Any, np.dtype[np.void]], decided: Decided) -> tuple[Ints, Words]:
        """Of each line of ``hourly`` that has events in the lottery, the one with the smallest second hash: (rows,
        hashes). ``table`` has the columns ``looked_at``."""
        rows = np.flatnonzero(decided.lottery)
        if not len(rows):
            return rows, np.empty(0, np.uint64)
        rank = hashes(self.sifter.exemplar_key, ids[rows])
        time = micros_of(table.column("event_time"))
        group, _ = groups([table.column(name) for name in LINE], time // _HOUR, rows)
        best = smallest(group, rank)
        return rows[best], rank[best]


def _can_be_met(
    values: pa.StringArray, whole: list[str], starts: dict[int, list[str]], ends: dict[int, list[str]]
) -> Mask:
    """Which values are one of some texts, or empty, or begin or end with some (by their size)."""
    met = [pc.is_in(values, pa.array(["", *whole]))]
    for size, texts in starts.items():
        met.append(pc.is_in(pc.utf8_slice_codeunits(values, 0, size), pa.array(texts)))
    for size, texts in ends.items():
        met.append(pc.is_in(pc.utf8_slice_codeunits(values, -size), pa.array(texts)))
    found: Mask = np.logical_or.reduce([np.asarray(each) for each in met])
    return found


def counted(names: Sequence[str], rule: Ints, weight: Floats) -> Counter[str]:
    """How many rows each rule has dropped or sampled away."""
    numbers, counts = np.unique(rule[weight == 0], return_counts=True)
    return Counter({names[number]: int(count) for number, count in zip(numbers, counts, strict=True)})


def hashes(key: SipKey, ids: np.ndarray[Any, np.dtype[np.void]]) -> Words:
    """The keyed hash of 16-byte identities."""
    words = np.frombuffer(ids.tobytes(), "<u8").astype(np.uint64).reshape(-1, 2)
    made = np.empty(len(words), np.uint64)
    for start in range(0, len(words), _BLOCK):
        part = words[start : start + _BLOCK]
        made[start : start + _BLOCK] = siphash24(key, part[:, 0].copy(), part[:, 1].copy())
    return made


def micros_of(column: pa.ChunkedArray) -> Ints:
    """Times as microseconds since 1970."""
    return np.asarray(column.combine_chunks().cast(pa.int64()))


def groups(columns: Sequence[pa.ChunkedArray], hour: Ints, rows: Ints | None = None) -> tuple[Ints, int]:
    """Rows that are equal in all columns and in the hour have the same number; and how many numbers there are."""
    chosen: Any = slice(None) if rows is None else rows
    hour = hour[chosen]
    _, place = _distinct(hour - hour.min(), int(hour.max() - hour.min()) + 1)
    span = int(place.max()) + 1
    for column in columns:
        values, codes = coded(column)
        place, span = _packed(place * len(values) + codes[chosen], span * len(values))
    if span > _TABLE:
        # Few of so many combinations occur, and callers make room for each number.
        distinct, place = _distinct(place, span)
        span = len(distinct)
    return place, span


def smallest(group: Ints, rank: Words) -> Ints:
    """For each group the place of its smallest rank."""
    order = np.lexsort((rank, group))
    ordered = group[order]
    fresh = np.ones(len(ordered), bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    return order[fresh]


def stored(chunk: Chunk, rows: Ints, weight: Floats, omit: Sequence[str] = ()) -> pa.Table:
    """Some rows of a chunk with their weights; the columns ``omit`` are null, and nothing is paid for them."""
    names = [name for name in CHUNK_SCHEMA.names if name not in omit and name != "weight"]
    wanted = chunk.columns(names, None if np.array_equal(rows, np.arange(len(chunk))) else rows)
    made: list[Any] = []
    for name, kind in zip(CHUNK_SCHEMA.names, CHUNK_SCHEMA.types, strict=True):
        if name == "weight":
            made.append(pa.array(weight))
        else:
            made.append(pa.nulls(len(rows), kind) if name in omit else wanted.column(name))
    return pa.Table.from_arrays(made, schema=CHUNK_SCHEMA)


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _crossed(masks: Sequence[int], place: Ints, others: Sequence[int], other: Ints) -> tuple[list[int], Ints]:
    """Masks of the combinations that occur of two sets of masks, and each row's combination."""
    distinct, where = _distinct(place * len(others) + other, len(masks) * len(others))
    known: dict[int, int] = {}
    of_pair = []
    for pair in distinct.tolist():
        mine, theirs = divmod(pair, len(others))
        of_pair.append(known.setdefault(masks[mine] & others[theirs], len(known)))
    return list(known), np.array(of_pair, np.int64)[where]


def _distinct(keys: Ints, span: int) -> tuple[Ints, Ints]:
    """The distinct keys (0 to ``span`` - 1), and the place of each row's key among them."""
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
    """Keys, made small where they grow too large to be multiplied further."""
    if span < 1 << 40:
        return keys, span
    distinct, place = _distinct(keys, span)
    return place, len(distinct)


def coded(column: pa.ChunkedArray | pa.Array) -> tuple[list[Any], Ints]:
    """The values of a column, None first, and each row's place among them."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    if pa.types.is_boolean(whole.type):
        return [None, False, True], np.asarray(pc.fill_null(whole.cast(pa.int8()), -1)).astype(np.int64) + 1
    if not isinstance(whole, pa.DictionaryArray):
        whole = whole.dictionary_encode()
    codes = np.asarray(pc.fill_null(whole.indices, -1)).astype(np.int64) + 1
    return [None, *whole.dictionary.to_pylist()], codes
