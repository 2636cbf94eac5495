"""Chunks of events: what many records share, and what each has for itself, made into Arrow columns of ``events``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift.columns.arrow import _ARROW, CHUNK_SCHEMA, Ids, Indices, chunk_table, encoded, ordered, ranks
from trailsift.columns.group_by import GroupBy, offset
from trailsift.columns.summarize import FactorizedRows
from trailsift.decode import record as careful
from trailsift.decode.fast_path import WHAT_MEMBERS, Caller, CallTemplate, InternTable, Origin, RequestTemplate, Row

_DAY = 86_400_000_000


#: What alike events have in common beside who, place and what.
_HOUR = 3_600_000_000


@dataclass(frozen=True)
class Chunk:
    """Events in memory. Columns are made when they are asked for: of what is thrown away, few are needed.

    Regular events come first, in the order of a lake's files or as they were read; then those of the careful path.
    """

    #: What regular events have for themselves, as they were read; None where there are none.
    own: pa.Table | None
    #: The rows of ``own`` in their order here. Texts are put in order when they are asked for.
    order: Indices
    who: list[Caller]
    place: list[Origin]
    what: list[CallTemplate]
    #: The other events, in CHUNK_SCHEMA.
    others: pa.Table
    #: A row each: 16 bytes that stand for the event id, and the CRC of the record.
    ids: Ids
    checks: np.ndarray[Any, np.dtype[np.uint32]]
    #: Whether ``order`` is that in which they were read.
    as_read: bool = False

    @classmethod
    def of(cls, table: pa.Table) -> Chunk:
        """A table in CHUNK_SCHEMA whose ids nobody asks for."""
        rows = table.num_rows
        none = np.empty(0, np.int64)
        return cls(None, none, [], [], [], table, np.zeros(rows, "V16"), np.zeros(rows, np.uint32))

    def __len__(self) -> int:
        return len(self.ids)

    def span(self) -> tuple[int, int]:
        """The first and the last event time, in microseconds; there must be an event."""
        times = [self.others.column("event_time").cast(pa.int64())]
        if self.own is not None:
            times.append(self.own.column("event_time"))
        ends = pc.min_max(pa.chunked_array([chunk for time in times for chunk in time.chunks], pa.int64()))
        return ends["min"].as_py(), ends["max"].as_py()

    def thin(self, rows: Indices) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of the rows have no texts but the object key: nothing of them is to be stored."""
        thin = np.zeros(len(rows), bool)
        if self.own is not None:
            mine = rows < len(self.order)
            # Every regular record has an id.
            thin[mine] = pc.equal(self.own.column("event_id").take(pa.array(self.order[rows[mine]])), "")
        return thin

    @cached_property
    def table(self) -> pa.Table:
        """All of it, in CHUNK_SCHEMA: without the partition columns that event_time gives."""
        return self.columns(CHUNK_SCHEMA.names)

    def columns(self, names: Sequence[str], rows: Indices | None = None) -> pa.Table:
        """Some columns, of some rows in any order or of all."""
        own_rows, others, order = self.order, self.others, None
        if rows is not None:
            mine = rows < len(self.order)
            own_rows = self.order[rows[mine]]
            others = self.others.take(pa.array(rows[~mine] - len(self.order)))
            # Both parts one after the other, unless the rows ask for another order.
            order = None if (mine[:-1] >= mine[1:]).all() else np.argsort(np.argsort(~mine, kind="stable"))
        tables = []
        if self.own is not None and len(own_rows):
            own = self.own.select(_made_from(names))
            if rows is not None or not self.as_read:
                own = own.take(pa.array(own_rows))
            tables.append(_regular_columns(own, self.who, self.place, self.what, names))
        tables.append(others.select(names))
        table = _joined(tables)
        return table if order is None else table.take(pa.array(order))

    def alike(self, names: Sequence[str], rows: Indices | None = None) -> FactorizedRows:
        """Some columns, of some rows or of all, each set of alike rows once; in another order than ``columns``."""
        wanted = [*dict.fromkeys((*names, *FactorizedRows.OWN))]
        others = self.others.select(wanted)
        own = None if self.own is None else self.own.select(_made_from(wanted))
        if rows is not None:
            mine = rows < len(self.order)
            others = others.take(pa.array(rows[~mine] - len(self.order)))
            own = None if own is None else own.take(pa.array(self.order[rows[mine]]))
        names = [name for name in names if name not in FactorizedRows.OWN]
        tables, sets, of_row = [_keys_encoded(others)], [others.select(names)], np.arange(len(others))
        if own is not None and len(own):
            known = self.who, self.place, self.what
            codes = (np.asarray(_whole(own, kind)).astype(np.int64) for kind in ("who", "place", "what"))
            sizes = (len(self.who), len(self.place), len(self.what))
            hour = offset(np.asarray(_whole(own, "event_time")) // _HOUR)
            groups = GroupBy([hour, *zip(codes, sizes, strict=True)])
            tables.insert(0, _keys_encoded(own, self.what))
            one_each = own.select(_made_from(names)).take(pa.array(groups.first))
            sets.insert(0, _regular_columns(one_each, *known, names))
            of_row = np.concatenate([groups.of_row, of_row + len(groups)])
        return FactorizedRows(_joined(tables, stack=True), _joined(sets), of_row)


# -- Arrow -----------------------------------------------------------------------------------------------------------


def _joined(tables: Sequence[pa.Table], *, stack: bool = False) -> pa.Table:
    """One table of several. To join dictionaries is to look at all their values: tables without rows are left out.

    ``stack``: where dictionaries may hold a value twice, they are put one behind the other.
    """
    some = [table for table in tables if len(table)] or tables[:1]
    if len(some) == 1:
        return some[0]
    if not stack:
        return pa.concat_tables(some).combine_chunks()
    names = some[0].column_names
    return pa.table([_stacked([_whole(table, name) for table in some]) for name in names], names)


def _stacked(parts: Sequence[pa.Array]) -> pa.Array:
    """The rows of several arrays of one type. A value of several dictionaries stands in that of all several times."""
    if not pa.types.is_dictionary(parts[0].type):
        return pa.concat_arrays(parts)
    ends = np.cumsum([0, *(len(part.dictionary) for part in parts)]).tolist()
    indices = [pc.add(part.indices, pa.scalar(end, pa.int32())) for part, end in zip(parts, ends, strict=False)]
    return pa.DictionaryArray.from_arrays(
        pa.concat_arrays(indices), pa.concat_arrays([part.dictionary for part in parts])
    )


#: Columns of ``_row_table``.
_OWN = (*Row._fields, "log_object")


class _Used:
    """What some rows share of one kind: each thing once, and which one a row has."""

    def __init__(self, known: Sequence[Any], numbers: pa.Array) -> None:
        codes = np.asarray(numbers)
        present = np.zeros(len(known), bool)
        present[codes] = True
        used = np.flatnonzero(present)
        place = np.empty(len(known), np.int32)
        place[used] = np.arange(len(used), dtype=np.int32)
        self.things: list[Any] = [known[number] for number in used.tolist()]
        self.codes: np.ndarray[Any, np.dtype[np.int32]] = place[codes]
        self.which = pa.array(self.codes)

    def text(self, values: Sequence[str | None]) -> pa.DictionaryArray:
        """A dictionary column from one value a thing; equal values share one entry."""
        each = encoded(values)
        return pa.DictionaryArray.from_arrays(each.indices.take(self.which), each.dictionary)

    def plain(self, values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        """A column from one value a thing."""
        return pa.array(values, kind).take(self.which)


def file_order(rows: pa.Table, shared: InternTable) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of a lake's files: day, service, role, time. Before columns are made: they are many."""
    who, what = _Used(shared.who, _whole(rows, "who")), _Used(shared.what, _whole(rows, "what"))
    roles, _ = ranks(encoded([thing.identity.role_arn for thing in who.things]))
    services, _ = ranks(encoded([thing.service for thing in what.things]))
    time = np.asarray(_whole(rows, "event_time"))
    return ordered(time // _DAY, services[what.codes], roles[who.codes], time)


class _Kinds:
    """What some rows share, of each kind; nothing is looked for before it is asked for."""

    def __init__(self, rows: pa.Table, who: list[Caller], place: list[Origin], what: list[CallTemplate]) -> None:
        self._rows = rows
        self._known = who, place, what

    @cached_property
    def who(self) -> _Used:
        return _Used(self._known[0], _whole(self._rows, "who"))

    @cached_property
    def place(self) -> _Used:
        return _Used(self._known[1], _whole(self._rows, "place"))

    @cached_property
    def what(self) -> _Used:
        return _Used(self._known[2], _whole(self._rows, "what"))


def _regular_columns(
    rows: pa.Table,
    known_who: list[Caller],
    known_place: list[Origin],
    known_what: list[CallTemplate],
    names: Sequence[str],
) -> pa.Table:
    """Some columns of regular records, in CHUNK_SCHEMA's types."""
    kinds = _Kinds(rows, known_who, known_place, known_what)
    columns: dict[str, Any] = {}
    for name in names:
        if name in careful.Identity._fields:
            columns[name] = kinds.who.text([getattr(thing.identity, name) for thing in kinds.who.things])
        elif name in Origin._fields:
            columns[name] = kinds.place.text([getattr(thing, name) for thing in kinds.place.things])
        elif name in _MEMBER_AT:
            columns[name] = kinds.what.text([thing.members[_MEMBER_AT[name]] for thing in kinds.what.things])
        elif name in OF_WHAT:
            columns[name] = kinds.what.text([getattr(thing, OF_WHAT[name]) for thing in kinds.what.things])
        elif name in ("resource_type", "resource_arn", "resource_account"):
            columns[name] = kinds.what.text([getattr(thing.request, name) for thing in kinds.what.things])
        else:
            columns[name] = _special_column(name, rows, kinds)
    return chunk_table(columns, names)


def _keys_encoded(rows: pa.Table, known_what: list[CallTemplate] | None = None) -> pa.Table:
    """The columns ``FactorizedRows.OWN``; of regular records where ``known_what`` is given."""
    keys = _whole(rows, "object_key").dictionary_encode()
    if known_what is not None and any(thing.request.fixed_key is not None for thing in known_what):
        what = _Used(known_what, _whole(rows, "what"))
        keys = _first_of(keys, what.text([thing.request.fixed_key for thing in what.things]))
    time = _whole(rows, "event_time").cast(_ARROW["timestamp"])
    return pa.table([keys, time, rows.column("bytes_in"), rows.column("bytes_out")], names=list(FactorizedRows.OWN))


def _made_from(names: Sequence[str]) -> list[str]:
    """What of a row's own these columns are made from, in the order of ``_row_table``."""
    wanted = {"who", "place", "what", *names}
    if "resources" in wanted:
        wanted.add("object_key")
    return [name for name in _OWN if name in wanted]


#: Place of a member's column among ``CallTemplate.members``, and columns that other fields of ``CallTemplate`` give.
_MEMBER_AT = {column: at for at, column in enumerate(WHAT_MEMBERS.values())}
OF_WHAT = {"event_category": "category", "account_id": "account", "service": "service"}


def _special_column(name: str, rows: pa.Table, kinds: _Kinds) -> pa.Array | pa.ChunkedArray:
    """One column that is not just a text of who, place or what."""
    if name == "event_time":
        return _whole(rows, name).cast(_ARROW["timestamp"])
    if name == "weight":
        return pa.array(np.ones(len(rows)))
    if name == "rest":
        return _rests(kinds.who, kinds.place, kinds.what)
    if name in rows.column_names and name not in ("request_parameters", "object_key"):
        return _whole(rows, name)
    what = kinds.what
    shapes: list[RequestTemplate] = [thing.request for thing in what.things]
    if name == "read_only":
        return what.plain([thing.read_only for thing in what.things], pa.bool_())
    if name == "resource_arns":
        return what.plain([shape.resource_arns for shape in shapes], _ARROW["list<string>"])
    if name == "request_parameters":
        return _first_of(_whole(rows, name), what.text([shape.request_parameters for shape in shapes]))
    keys = _whole(rows, "object_key")
    if any(shape.fixed_key is not None for shape in shapes):
        keys = pc.coalesce(keys, what.plain([shape.fixed_key for shape in shapes], pa.string()))
    return keys if name == "object_key" else _resources(shapes, what, keys)


def _rests(who: _Used, place: _Used, what: _Used) -> pa.DictionaryArray:
    """The column ``rest``: its text is put together once for each combination that occurs."""
    tls, others = encoded([thing.tls for thing in place.things]), encoded([thing.rest for thing in what.things])
    tls_codes, other_codes = (np.asarray(pc.fill_null(codes.indices, -1)) + 1 for codes in (tls, others))
    key = who.codes.astype(np.int64) * (len(tls.dictionary) + 1) + tls_codes[place.codes]
    key = key * (len(others.dictionary) + 1) + other_codes[what.codes]
    distinct, inverse = np.unique(key, return_inverse=True)
    tls_texts, other_texts = ([None, *codes.dictionary.to_pylist()] for codes in (tls, others))
    texts = []
    for combination in distinct.tolist():
        combination, other = divmod(combination, len(other_texts))
        person, layer = divmod(combination, len(tls_texts))
        texts.append(careful.compose_rest(who.things[person].text, tls_texts[layer], other_texts[other]))
    each = encoded(texts)
    return pa.DictionaryArray.from_arrays(each.indices.take(pa.array(inverse)), each.dictionary)


def _first_of(own: pa.Array, shared: pa.DictionaryArray) -> pa.DictionaryArray:
    """``own`` where it is not null, else ``shared``. A value of both may stand in the dictionary twice."""
    if own.null_count == len(own):
        return shared
    mine = own if isinstance(own, pa.DictionaryArray) else own.dictionary_encode()
    if shared.null_count == len(shared):
        return mine
    both = _stacked([shared, mine])
    indices = pc.coalesce(both.indices[len(shared) :], both.indices[: len(shared)])
    return pa.DictionaryArray.from_arrays(indices, both.dictionary)


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _resources(shapes: list[RequestTemplate], what: _Used, keys: pa.Array) -> pa.Array:
    """The column ``resources``: null where the typed columns say it, else the shape's text with the key put in."""
    texts = [None if shape.resources is None else shape.resources[0] for shape in shapes]
    open_shapes = [at for at, shape in enumerate(shapes) if shape.resources is not None and len(shape.resources) > 1]
    column = what.plain(texts, pa.string())
    if not open_shapes:
        return column
    values = column.to_pylist()
    for row in np.flatnonzero(np.isin(what.codes, open_shapes)).tolist():
        values[row] = keys[row].as_py().join(shapes[what.codes[row]].resources or ())
    return pa.array(values, pa.string())
