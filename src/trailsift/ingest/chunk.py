"""A chunk of events in memory: what many records share, what differs per record, and Arrow columns made of both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift.cloudtrail.callers import Identity, text_of
from trailsift.cloudtrail.copies import copy_source
from trailsift.columns.arrays import Checksums, Ids, Ints, Mask
from trailsift.columns.arrow import CHUNK_SCHEMA, chunk_table, encoded, ordered, ranks
from trailsift.columns.group_by import GroupBy, offset
from trailsift.columns.summarize import FactorizedRows, is_shared
from trailsift.decode.fast_path import WHAT_MEMBERS, Caller, CallTemplate, InternTable, Origin, RequestTemplate, Row
from trailsift.decode.record import compose_rest
from trailsift.times import DAY, HOUR

_TIME = CHUNK_SCHEMA.field("event_time").type


@dataclass(frozen=True)
class Chunk:
    """Events in memory. Columns are computed on demand: dropped events need few of them.

    Events of the fast path come first, in the order of a lake's files or of reading; then those of the slow path.
    """

    #: The columns that differ per event of the fast path, in the order of reading; None if there is no such event.
    own: pa.Table | None
    #: The order of ``own``'s rows in this chunk. Texts are only reordered on demand.
    order: Ints
    who: list[Caller]
    place: list[Origin]
    what: list[CallTemplate]
    #: Events of the slow path, in CHUNK_SCHEMA.
    others: pa.Table
    #: Per row: 16 bytes that stand for the event id, and the CRC-32 of the record.
    ids: Ids
    crc32: Checksums
    #: Whether ``order`` is the order of reading.
    as_read: bool = False

    @classmethod
    def of(cls, table: pa.Table) -> Chunk:
        """Return a table in CHUNK_SCHEMA as a chunk without ids."""
        rows = table.num_rows
        none = np.empty(0, np.int64)
        return cls(None, none, [], [], [], table, np.zeros(rows, "V16"), np.zeros(rows, np.uint32))

    def __len__(self) -> int:
        return len(self.ids)

    def times(self) -> Ints:
        """Return the event time of each row in microseconds."""
        times = np.asarray(_one_array(self.others, "event_time").cast(pa.int64()))
        if self.own is None:
            return times
        own = np.asarray(_one_array(self.own, "event_time"))
        return np.concatenate([own if self.as_read else own[self.order], times])

    def projected(self, rows: Ints) -> Mask:
        """Return which of the rows are projected: of their texts only the object key was kept, as none is stored."""
        projected = np.zeros(len(rows), bool)
        if self.own is not None:
            mine = rows < len(self.order)
            # Every record of the fast path has an id.
            projected[mine] = pc.equal(self.own.column("event_id").take(pa.array(self.order[rows[mine]])), "")
        return projected

    @cached_property
    def table(self) -> pa.Table:
        """All rows and columns, in CHUNK_SCHEMA."""
        return self.columns(CHUNK_SCHEMA.names)

    def columns(self, names: Sequence[str], rows: Ints | None = None) -> pa.Table:
        """Return some columns, of all rows or of some rows in any order."""
        own_rows, others, order = self.order, self.others, None
        if rows is not None:
            mine = rows < len(self.order)
            own_rows = self.order[rows[mine]]
            others = self.others.take(pa.array(rows[~mine] - len(self.order)))
            # Fast-path rows before the others, unless ``rows`` have another order.
            order = None if (mine[:-1] >= mine[1:]).all() else np.argsort(np.argsort(~mine, kind="stable"))
        tables = []
        if self.own is not None and len(own_rows):
            own = self.own.select(_inputs_of(names))
            if rows is not None or not self.as_read:
                own = own.take(pa.array(own_rows))
            tables.append(_regular_columns(own, self.who, self.place, self.what, names))
        tables.append(others.select(names))
        table = _joined(tables)
        return table if order is None else table.take(pa.array(order))

    def factorized(self, names: Sequence[str], rows: Ints | None = None) -> FactorizedRows:
        """Return some columns of all rows or of some, factorized; in another order than ``columns``."""
        needed = [*names, *_PER_EVENT]
        others = self.others.select(needed)
        own = None if self.own is None else self.own.select(_inputs_of(needed))
        if rows is not None:
            mine = rows < len(self.order)
            others = others.take(pa.array(rows[~mine] - len(self.order)))
            own = None if own is None else own.take(pa.array(self.order[rows[mine]]))
        tables, sets, of_row = [_keys_encoded(others)], [others.select(names)], np.arange(len(others))
        if own is not None and len(own):
            shared = self.who, self.place, self.what
            codes = (np.asarray(_one_array(own, kind)).astype(np.int64) for kind in ("who", "place", "what"))
            sizes = (len(self.who), len(self.place), len(self.what))
            hour = offset(np.asarray(_one_array(own, "event_time")) // HOUR)
            groups = GroupBy([hour, *zip(codes, sizes, strict=True)])
            tables.insert(0, _keys_encoded(own, self.what))
            one_each = own.select(_inputs_of(names)).take(pa.array(groups.first))
            sets.insert(0, _regular_columns(one_each, *shared, names))
            of_row = np.concatenate([groups.of_row, of_row + len(groups)])
        return FactorizedRows(_joined(tables, stack=True), _joined(sets), of_row)


# -- Arrow -----------------------------------------------------------------------------------------------------------


def _joined(tables: Sequence[pa.Table], *, stack: bool = False) -> pa.Table:
    """Concatenate tables. Tables without rows are left out: unifying dictionaries looks at all their values.

    ``stack``: append dictionaries to one another, which is faster; the result may hold a value twice.
    """
    filled = [table for table in tables if len(table)] or tables[:1]
    if len(filled) == 1:
        return filled[0]
    if not stack:
        return pa.concat_tables(filled).combine_chunks()
    names = filled[0].column_names
    return pa.table([_stacked([_one_array(table, name) for table in filled]) for name in names], names)


def _stacked(parts: Sequence[pa.Array]) -> pa.Array:
    """Concatenate arrays of one type without unifying their dictionaries: a value may occur in the result's twice."""
    if not pa.types.is_dictionary(parts[0].type):
        return pa.concat_arrays(parts)
    ends = np.cumsum([0, *(len(part.dictionary) for part in parts)]).tolist()
    indices = [pc.add(part.indices, pa.scalar(end, pa.int32())) for part, end in zip(parts, ends, strict=False)]
    return pa.DictionaryArray.from_arrays(
        pa.concat_arrays(indices), pa.concat_arrays([part.dictionary for part in parts])
    )


#: Columns of ``chunk_builder._row_table``.
_OWN = (*Row._fields, "log_object")


class _Used:
    """The distinct callers, origins or templates of some rows, and each row's place among them."""

    def __init__(self, interned: Sequence[Any], numbers: pa.Array) -> None:
        codes = np.asarray(numbers)
        present = np.zeros(len(interned), bool)
        present[codes] = True
        used = np.flatnonzero(present)
        place = np.empty(len(interned), np.int32)
        place[used] = np.arange(len(used), dtype=np.int32)
        self.items: list[Any] = [interned[number] for number in used.tolist()]
        self.codes: np.ndarray[Any, np.dtype[np.int32]] = place[codes]
        self.which = pa.array(self.codes)

    def text(self, values: Sequence[str | None]) -> pa.DictionaryArray:
        """Return a dictionary column from one value per item; equal values share one entry."""
        each = encoded(values)
        return pa.DictionaryArray.from_arrays(each.indices.take(self.which), each.dictionary)

    def plain(self, values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        """Return a column from one value per item."""
        return pa.array(values, kind).take(self.which)


def file_order(rows: pa.Table, shared: InternTable) -> Ints:
    """Return the rows in the order of a lake's files: day, service, caller, time.

    It is computed before there are columns, because there are many of those.
    """
    who, what = _Used(shared.who, _one_array(rows, "who")), _Used(shared.what, _one_array(rows, "what"))
    callers, _ = ranks(encoded([item.identity.caller for item in who.items]))
    services, _ = ranks(encoded([item.service for item in what.items]))
    time = np.asarray(_one_array(rows, "event_time"))
    return ordered(time // DAY, services[what.codes], callers[who.codes], time)


class _Kinds:
    """The callers, origins and templates of some rows, each computed on first use."""

    def __init__(self, rows: pa.Table, who: list[Caller], place: list[Origin], what: list[CallTemplate]) -> None:
        self._rows = rows
        self._interned = who, place, what

    @cached_property
    def who(self) -> _Used:
        return _Used(self._interned[0], _one_array(self._rows, "who"))

    @cached_property
    def place(self) -> _Used:
        return _Used(self._interned[1], _one_array(self._rows, "place"))

    @cached_property
    def what(self) -> _Used:
        return _Used(self._interned[2], _one_array(self._rows, "what"))


def _regular_columns(
    rows: pa.Table,
    who: list[Caller],
    place: list[Origin],
    what: list[CallTemplate],
    names: Sequence[str],
) -> pa.Table:
    """Return some columns of fast-path records, in CHUNK_SCHEMA's types."""
    kinds = _Kinds(rows, who, place, what)
    columns: dict[str, Any] = {}
    for name in names:
        if name in Identity._fields:
            columns[name] = kinds.who.text([getattr(item.identity, name) for item in kinds.who.items])
        elif name in Origin._fields:
            columns[name] = kinds.place.text([getattr(item, name) for item in kinds.place.items])
        elif name in _MEMBER_AT:
            columns[name] = kinds.what.text([item.members[_MEMBER_AT[name]] for item in kinds.what.items])
        elif name in OF_WHAT:
            columns[name] = kinds.what.text([getattr(item, OF_WHAT[name]) for item in kinds.what.items])
        elif name in ("resource_type", "resource_arn", "resource_account", "source_resource_arn"):
            columns[name] = kinds.what.text([getattr(item.request, name) for item in kinds.what.items])
        else:
            columns[name] = _special_column(name, rows, kinds)
    return chunk_table(columns, names)


#: Columns that those of ``FactorizedRows.OWN`` are made of.
_PER_EVENT = ("object_key", "source_object_key", "event_time", "bytes_in", "bytes_out", "shared_event_id")


def _keys_encoded(rows: pa.Table, templates: list[CallTemplate] | None = None) -> pa.Table:
    """Return the columns ``FactorizedRows.OWN``; of fast-path records if ``templates`` are given."""
    keys = _one_array(rows, "object_key").dictionary_encode()
    if templates is not None and any(item.request.fixed_key is not None for item in templates):
        what = _Used(templates, _one_array(rows, "what"))
        keys = _first_of(keys, what.text([item.request.fixed_key for item in what.items]))
    if templates is None:
        sources = _one_array(rows, "source_object_key").dictionary_encode()
    else:
        sources = _source_keys(rows, _one_array(rows, "what"), templates)
    time = _one_array(rows, "event_time").cast(_TIME)
    counts = rows.column("bytes_in"), rows.column("bytes_out")
    shared = is_shared(rows.column("shared_event_id"))
    return pa.table([keys, sources, time, *counts, shared], names=list(FactorizedRows.OWN))


def _source_keys(rows: pa.Table, what: pa.Array, templates: Sequence[CallTemplate]) -> pa.DictionaryArray:
    """Return the keys of the objects that copies read: each is in the parameters of its request only."""
    is_copy = np.array([item.request.source_resource_arn is not None for item in templates], bool)
    if not is_copy.any():
        return pa.DictionaryArray.from_arrays(pa.nulls(len(rows), pa.int32()), pa.array([], pa.string()))
    codes = np.asarray(what)
    which = np.flatnonzero(is_copy[codes])
    kept = _one_array(rows, "request_parameters").take(pa.array(which)).to_pylist()
    numbers: dict[str, int] = {}
    places = np.full(len(rows), -1, np.int32)
    for row, code, text in zip(which.tolist(), codes[which].tolist(), kept, strict=True):
        source = copy_source(json.loads(text or templates[code].request.request_parameters or "null"))
        key = None if source is None else text_of(source.key)
        if key is not None:
            places[row] = numbers.setdefault(key, len(numbers))
    return pa.DictionaryArray.from_arrays(pa.array(places, mask=places < 0), pa.array(list(numbers), pa.string()))


def _inputs_of(names: Sequence[str]) -> list[str]:
    """Return the per-row columns that some columns are derived from, in the order of ``_row_table``."""
    inputs = {"who", "place", "what", *names}
    if "resources" in inputs:
        inputs.add("object_key")
    if "source_object_key" in inputs:
        inputs.add("request_parameters")
    return [name for name in _OWN if name in inputs]


#: Index of each column in ``CallTemplate.members``, and the columns that come from other fields of ``CallTemplate``.
_MEMBER_AT = {column: at for at, column in enumerate(WHAT_MEMBERS.values())}
OF_WHAT = {"event_category": "category", "account_id": "account", "service": "service"}


def _special_column(name: str, rows: pa.Table, kinds: _Kinds) -> pa.Array | pa.ChunkedArray:
    """Return a column that is not just a text of caller, origin or template."""
    if name == "event_time":
        return _one_array(rows, name).cast(_TIME)
    if name == "weight":
        return pa.array(np.ones(len(rows)))
    if name == "rest":
        return _rests(kinds.who, kinds.place, kinds.what)
    if name in rows.column_names and name not in ("request_parameters", "object_key"):
        return _one_array(rows, name)
    what = kinds.what
    if name == "source_object_key":
        return _source_keys(rows, what.which, what.items).dictionary_decode()
    shapes: list[RequestTemplate] = [item.request for item in what.items]
    if name == "read_only":
        return what.plain([item.read_only for item in what.items], pa.bool_())
    if name == "resource_arns":
        return what.plain([shape.resource_arns for shape in shapes], CHUNK_SCHEMA.field(name).type)
    if name == "request_parameters":
        return _first_of(_one_array(rows, name), what.text([shape.request_parameters for shape in shapes]))
    keys = _one_array(rows, "object_key")
    if any(shape.fixed_key is not None for shape in shapes):
        keys = pc.coalesce(keys, what.plain([shape.fixed_key for shape in shapes], pa.string()))
    return keys if name == "object_key" else _resources(shapes, what, keys)


def _rests(who: _Used, place: _Used, what: _Used) -> pa.DictionaryArray:
    """Return the column ``rest``; its text is composed once per combination that occurs."""
    tls, others = encoded([item.tls for item in place.items]), encoded([item.rest for item in what.items])
    tls_codes, other_codes = (np.asarray(pc.fill_null(codes.indices, -1)) + 1 for codes in (tls, others))
    key = who.codes.astype(np.int64) * (len(tls.dictionary) + 1) + tls_codes[place.codes]
    key = key * (len(others.dictionary) + 1) + other_codes[what.codes]
    distinct, inverse = np.unique(key, return_inverse=True)
    tls_texts, other_texts = ([None, *codes.dictionary.to_pylist()] for codes in (tls, others))
    texts = []
    for combination in distinct.tolist():
        combination, other = divmod(combination, len(other_texts))
        person, layer = divmod(combination, len(tls_texts))
        texts.append(compose_rest(who.items[person].text, tls_texts[layer], other_texts[other]))
    each = encoded(texts)
    return pa.DictionaryArray.from_arrays(each.indices.take(pa.array(inverse)), each.dictionary)


def _first_of(own: pa.Array, shared: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return ``own`` if it is not null, else ``shared``. A value of both may occur in the dictionary twice."""
    if own.null_count == len(own):
        return shared
    own = own if isinstance(own, pa.DictionaryArray) else own.dictionary_encode()
    if shared.null_count == len(shared):
        return own
    both = _stacked([shared, own])
    indices = pc.coalesce(both.indices[len(shared) :], both.indices[: len(shared)])
    return pa.DictionaryArray.from_arrays(indices, both.dictionary)


def _one_array(table: pa.Table, name: str) -> pa.Array:
    """Return a column as a single array."""
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _resources(shapes: list[RequestTemplate], what: _Used, keys: pa.Array) -> pa.Array:
    """Return the column ``resources``: null if the typed columns say it, else the template's text with the key."""
    texts = [None if shape.resources is None else shape.resources[0] for shape in shapes]
    open_shapes = [at for at, shape in enumerate(shapes) if shape.resources is not None and len(shape.resources) > 1]
    column = what.plain(texts, pa.string())
    if not open_shapes:
        return column
    values = column.to_pylist()
    for row in np.flatnonzero(np.isin(what.codes, open_shapes)).tolist():
        values[row] = keys[row].as_py().join(shapes[what.codes[row]].resources or ())
    return pa.array(values, pa.string())
