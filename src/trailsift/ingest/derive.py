"""Stored events of format version 1 -> events and summary lines as an ingest of their records would give them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift.cloudtrail.callers import NONE, caller_of_columns, identity_of, role_of_session
from trailsift.cloudtrail.copies import COPIES
from trailsift.cloudtrail.resources import touched_resources
from trailsift.columns.arrays import Ints, Mask
from trailsift.columns.arrow import CHUNK_SCHEMA, chunk_table
from trailsift.columns.summarize import NEEDED, Summaries
from trailsift.decode import record
from trailsift.decode.outcome import NotARecord
from trailsift.ingest.chunk import Chunk
from trailsift.ingest.chunk_builder import ChunkBuilder
from trailsift.ingest.stored_records import places_of, record_texts
from trailsift.lake.upgrade import UNKNOWN_CALLER, UnreadableRowError

#: Rows whose records are texts, or dicts, at a time.
_STEP = 16_384
_STEP_SLOW = 1_000
#: Columns that an ingest decides, and no record has.
_KEPT = ("event_time", "event_id", "weight", "log_object")
#: Columns that no version leaves empty if an earlier one filled them. They are where a stream left members of the
#: record out, which nothing in the lake tells.
_NEVER_LOST = (
    *("event_name", "event_source", "principal_type", "principal_arn", "principal_account", "role_arn", "session_name"),
    *("access_key_id", "invoked_by", "resource_arn", "object_key", "bytes_in", "bytes_out"),
)
#: What damaged values raise.
_ERRORS = (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError)


class Derivation:
    """Derives events again, piece by piece."""

    def __init__(self, is_whole: bool) -> None:
        """``is_whole`` False: rules have left columns out, so the stored ones stay and only new ones are filled."""
        self._is_whole = is_whole
        self._builder = ChunkBuilder()

    def __call__(self, rows: pa.Table, summarized: Mask) -> tuple[pa.Table, list[dict[str, pa.Table]]]:
        """Return stored events in CHUNK_SCHEMA, in any order, and the summary lines of those of ``summarized``.

        ``rows`` have the columns of version 1. UnreadableRowError if a row is not what trailsift writes.
        """
        rows = rows.unify_dictionaries().combine_chunks()
        if not self._is_whole:
            return _kept(rows, np.arange(rows.num_rows)), []
        chunk, mine, places = self._decoded(rows)
        decoded = chunk.table if len(mine) == len(chunk) else chunk.columns(CHUNK_SCHEMA.names, mine)
        events = _of_rows(decoded, rows, places)
        sound = _sound(decoded, rows, places)
        if not sound.all():
            mine, places, events = mine[sound], places[sound], events.filter(pa.array(sound))
        lines = []
        counted = mine[summarized[places]]
        if len(counted):
            lines.append(Summaries(chunk.factorized(NEEDED, counted)).tables())
        if len(mine) < rows.num_rows:
            left = np.ones(rows.num_rows, bool)
            left[places] = False
            others, origin = _one_by_one(rows, np.flatnonzero(left))
            chosen = others.filter(pa.array(summarized[origin]))
            if chosen.num_rows:
                lines.append(Summaries.of(chosen).tables())
            events = pa.concat_tables([events, others])
        return events, lines

    def _decoded(self, rows: pa.Table) -> tuple[Chunk, Ints, Ints]:
        """Return the records as a chunk, its rows that come from a stored row each, and those stored rows."""
        for start in range(0, rows.num_rows, _STEP):
            part = rows.slice(start, _STEP).combine_chunks()
            texts = record_texts(part, start).drop_null()
            if len(texts):
                self._builder.add("", b'{"Records":[' + _bytes(texts) + b"]}")
        chunk = self._builder.finish()
        # Decoding changes the order. Nothing else can be found in the texts, but each row is used once at most.
        places, first = np.unique(places_of(chunk.ids), return_index=True)
        known = (places >= 0) & (places < rows.num_rows)
        order = np.argsort(first[known])
        return chunk, first[known][order], places[known][order]


def _bytes(texts: pa.Array) -> memoryview:
    """Return texts one after the other, without the comma at the end."""
    _, ends, data = texts.buffers()
    offsets = np.frombuffer(ends, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(data)[offsets[0] : offsets[-1] - 1]


def _of_rows(table: pa.Table, rows: pa.Table, places: Ints) -> pa.Table:
    """Return derived events with what an ingest decided about the stored rows that they come from."""
    which = pa.array(places)
    for name in _KEPT:
        at = CHUNK_SCHEMA.get_field_index(name)
        column = rows.column(name).chunk(0).take(which).cast(CHUNK_SCHEMA.field(name).type)
        table = table.set_column(at, CHUNK_SCHEMA.field(name), column)
    return table


def _sound(events: pa.Table, rows: pa.Table, places: Ints) -> Mask:
    """Return which derived events agree with their stored rows in what no version changes."""
    which = pa.array(places)
    # The columns must give the time that the record has: otherwise it could not be restored from them.
    stored = rows.column("event_time").chunk(0).take(which)
    sound: Mask = np.asarray(pc.equal(events.column("event_time"), stored))
    for name in _NEVER_LOST:
        column = events.column(name)
        if column.null_count:
            before = rows.column(name).chunk(0).take(which)
            sound &= ~(np.asarray(pc.is_valid(before)) & np.asarray(pc.is_null(column)))
    return sound


def _one_by_one(rows: pa.Table, places: Ints) -> tuple[pa.Table, Ints]:
    """Return events by ``restore`` and the slow path, and the stored row of each.

    A row whose record is not whole stays as it is.
    """
    done: list[pa.Table] = []
    origin: list[int] = []
    staying: list[int] = []
    for start in range(0, len(places), _STEP_SLOW):
        part = places[start : start + _STEP_SLOW]
        derived: list[dict[str, Any]] = []
        for place, columns in zip(part.tolist(), _dicts(rows, part), strict=True):
            row = _derived(columns, place)
            if row is None:
                staying.append(place)
            else:
                derived.append(row)
                origin.append(place)
        if derived:
            done.append(chunk_table({name: [row.get(name) for row in derived] for name in CHUNK_SCHEMA.names}))
    if staying:
        done.append(_kept(rows, np.array(staying, np.int64)))
    return pa.concat_tables(done), np.array([*origin, *staying], np.int64)


def _dicts(rows: pa.Table, places: Ints) -> list[dict[str, Any]]:
    """Return rows as dicts, their times in microseconds since 1970."""
    part = rows.take(pa.array(places))
    at = part.schema.get_field_index("event_time")
    dicts: list[dict[str, Any]] = part.set_column(at, "event_time", part.column(at).cast(pa.int64())).to_pylist()
    return dicts


def _derived(columns: dict[str, Any], place: int) -> dict[str, Any] | None:
    """Return the columns that a stored row's record has today; None if that is not its whole record."""
    try:
        restored = record.restore(columns)
    except _ERRORS as error:
        raise UnreadableRowError(place, f"its record cannot be restored: {type(error).__name__}: {error}") from error
    try:
        derived = record.row(restored, columns["log_object"])
    except (NotARecord, *_ERRORS):
        return None
    if derived["event_time"] != columns["event_time"]:
        return None
    if any(derived[name] is None and columns[name] is not None for name in _NEVER_LOST):
        return None
    return derived | {name: columns[name] for name in _KEPT}


def _kept(rows: pa.Table, places: Ints) -> pa.Table:
    """Return stored rows with the columns that they have, and the new ones by those."""
    which = pa.array(places)
    added: dict[str, list[str | None]] = {
        name: []
        for name in (
            "principal_id",
            "caller",
            "role_arn",
            "session_name",
            "source_resource_arn",
            "source_object_key",
        )
    }
    for start in range(0, len(places), _STEP_SLOW):
        part = places[start : start + _STEP_SLOW]
        for place, stored in zip(part.tolist(), _dicts(rows, part), strict=True):
            try:
                values = _new_columns(stored)
            except _ERRORS as error:
                raise UnreadableRowError(place, f"{type(error).__name__}: {error}") from error
            for name, value in values.items():
                added[name].append(value)
    columns: dict[str, Any] = dict(added)
    for name in CHUNK_SCHEMA.names:
        if name not in added:
            columns[name] = rows.column(name).chunk(0).take(which).cast(CHUNK_SCHEMA.field(name).type)
    return chunk_table(columns)


def _new_columns(columns: dict[str, Any]) -> dict[str, str | None]:
    rest = json.loads(columns["rest"]) if columns["rest"] else {}
    user = rest.get("userIdentity") if isinstance(rest, dict) else None
    found: dict[str, str | None] = dict.fromkeys(("principal_id", "source_resource_arn", "source_object_key"))
    if isinstance(user, dict):
        identity = identity_of(user)
        found |= {"caller": identity.caller, "principal_id": identity.principal_id}
        found["role_arn"] = identity.role_arn or columns["role_arn"]
        found["session_name"] = identity.session_name or columns["session_name"]
    else:
        # As for every other event: where the role is an ARN, it is the caller.
        found["role_arn"] = role_of_session(columns["role_arn"]) or columns["role_arn"]
        found["session_name"] = columns["session_name"]
        caller = caller_of_columns({**columns, "role_arn": found["role_arn"]})
        # The record may have named somebody: rules have left it out.
        is_left_out = columns["rest"] is None and caller in (NONE, "federated:")
        found["caller"] = UNKNOWN_CALLER if is_left_out else caller
    if columns["event_name"] in COPIES and columns["request_parameters"]:
        restored = record.restore(columns)
        touched = touched_resources(
            columns["event_source"],
            columns["event_name"],
            restored.get("requestParameters"),
            restored.get("resources"),
            columns["aws_region"],
            columns["account_id"],
            columns["event_category"] == "Data",
        )
        found |= {"source_resource_arn": touched.source_arn, "source_object_key": touched.source_key}
    return found
