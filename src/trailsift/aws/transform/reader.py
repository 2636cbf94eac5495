"""Read regular records as the three parts of a landing line: the caller, the call, and the event's own values."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec

from trailsift import schema
from trailsift.cloudtrail.callers import text_of
from trailsift.cloudtrail.copies import copy_source
from trailsift.decode.fast_path import WHAT_MEMBERS, CallTemplate, InternTable, Row
from trailsift.decode.record import compose_rest


class CallerColumns(NamedTuple):
    """The columns of ``userIdentity``, and its JSON as CloudTrail wrote it, if there is any."""

    columns: dict[str, Any]
    text: str | None


class CallColumns(NamedTuple):
    """The columns that many records share, independent of the caller."""

    columns: dict[str, Any]
    #: ``rest`` without ``userIdentity``.
    rest: str | None


class EventColumns(msgspec.Struct, omit_defaults=True, gc=False):
    """The columns of one event; None if the value is in ``CallColumns``."""

    event_time: int
    event_id: str
    request_id: str | None = None
    source_ip: str | None = None
    user_agent: str | None = None
    vpc_endpoint_id: str | None = None
    error_message: str | None = None
    shared_event_id: str | None = None
    object_key: str | None = None
    source_object_key: str | None = None
    request_parameters: str | None = None
    additional_event_data: str | None = None
    response_elements: str | None = None
    resources: str | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None


_EMPTY_ROW = {column.name: None for column in schema.EVENTS.columns if column.name not in ("year", "month", "day")}


def join_columns(caller: CallerColumns, call: CallColumns, own: EventColumns) -> dict[str, Any]:
    """Join the three parts into a row as ``decode.record.row`` returns it, but without ``log_object``."""
    row = _EMPTY_ROW | caller.columns | call.columns
    row.update((name, value) for name, value in msgspec.structs.asdict(own).items() if value is not None)
    row["rest"] = compose_rest(caller.text, None, call.rest)
    return row


class RecordReader:
    """Reads regular records; caches what they have in common between calls, within bounds."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._shared = InternTable()
        self._callers: dict[int, CallerColumns] = {}
        self._calls: dict[tuple[int, str | None], CallColumns] = {}

    def read(self, raw: bytes | memoryview) -> tuple[CallerColumns, CallColumns, EventColumns] | None:
        """Return the three parts of a record's columns; None if it needs ``decode.record.row`` instead."""
        if self._shared.trim():
            self._start()
        row = self._shared.take(raw)
        if row is None:
            return None
        place, what = self._shared.place[row.place], self._shared.what[row.what]
        caller = self._callers.get(row.who) or self._caller(row.who)
        call = self._calls.get((row.what, place.tls)) or self._call(what, place.tls, row)
        key = _text(row.object_key)
        own = EventColumns(
            row.event_time,
            row.event_id,
            row.request_id,
            place.source_ip,
            place.user_agent,
            place.vpc_endpoint_id,
            row.error_message,
            row.shared_event_id,
            key,
            _source_key(row, what),
            row.request_parameters,
            _text(row.additional_event_data),
            _text(row.response_elements),
            _resources(row, what, key),
            row.bytes_in,
            row.bytes_out,
        )
        return caller, call, own

    def _caller(self, number: int) -> CallerColumns:
        who = self._shared.who[number]
        caller = self._callers[number] = CallerColumns(who.identity._asdict(), who.text)
        return caller

    def _call(self, what: CallTemplate, tls: str | None, row: Row) -> CallColumns:
        request = what.request
        columns: dict[str, Any] = dict(zip(WHAT_MEMBERS.values(), what.members, strict=True))
        columns |= {
            "service": what.service,
            "read_only": what.read_only,
            "event_category": what.category,
            "account_id": what.account,
            "resource_type": request.resource_type,
            "resource_arn": request.resource_arn,
            "resource_arns": list(request.resource_arns),
            "resource_account": request.resource_account,
            "object_key": request.fixed_key,
            "source_resource_arn": request.source_resource_arn,
            # Either all rows of one template have parameters of their own, or none has.
            "request_parameters": request.request_parameters if row.request_parameters is None else None,
        }
        kept = {name: value for name, value in columns.items() if value is not None}
        call = self._calls[what.number, tls] = CallColumns(kept, compose_rest(None, tls, what.rest))
        return call


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _source_key(row: Row, what: CallTemplate) -> str | None:
    """Return the key of the object that a copy reads: it is in the parameters of its request only."""
    if what.request.source_resource_arn is None:
        return None
    source = copy_source(json.loads(row.request_parameters or what.request.request_parameters or "null"))
    return None if source is None else text_of(source.key)


def _resources(row: Row, what: CallTemplate, key: str | None) -> str | None:
    parts = what.request.resources
    if parts is None:
        return None
    return parts[0] if len(parts) == 1 else (key or "").join(parts)
