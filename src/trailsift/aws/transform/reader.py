"""Regular records as the three parts that a landing line is written from: who, what, and what is its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from trailsift import schema
from trailsift.decode import record as careful
from trailsift.decode.fast_path import WHAT_MEMBERS, CallTemplate, InternTable, Row


class User(NamedTuple):
    """Who made a call: the columns that ``userIdentity`` gives, and its JSON as it was written, if there is any."""

    columns: dict[str, Any]
    text: str | None


class Line(NamedTuple):
    """What many records have in common whoever made the call, as columns."""

    columns: dict[str, Any]
    #: ``rest`` without ``userIdentity``.
    rest: str | None


class Own(msgspec.Struct, omit_defaults=True, gc=False):
    """The columns that a record has for itself; None where the line says it."""

    event_time: int
    event_id: str
    request_id: str | None = None
    source_ip: str | None = None
    user_agent: str | None = None
    vpc_endpoint_id: str | None = None
    error_message: str | None = None
    shared_event_id: str | None = None
    object_key: str | None = None
    request_parameters: str | None = None
    additional_event_data: str | None = None
    response_elements: str | None = None
    resources: str | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None


_NOTHING = {column.name: None for column in schema.EVENTS.columns if column.name not in ("year", "month", "day")}


def columns_of(user: User, line: Line, own: Own) -> dict[str, Any]:
    """The three parts of a record's columns as one row, as ``decode.record.row`` gives it but for ``log_object``."""
    row = _NOTHING | user.columns | line.columns
    row.update((name, value) for name, value in msgspec.structs.asdict(own).items() if value is not None)
    row["rest"] = careful.compose_rest(user.text, None, line.rest)
    return row


class Reader:
    """Reads regular records; keeps what they have in common from one call to the next, within bounds."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._shared = InternTable()
        self._users: dict[int, User] = {}
        self._lines: dict[tuple[int, str | None], Line] = {}

    def read(self, raw: bytes | memoryview) -> tuple[User, Line, Own] | None:
        """The three parts of a record's columns, or None: then it is for ``decode.record.row``."""
        if self._shared.trim():
            self._start()
        row = self._shared.take(raw)
        if row is None:
            return None
        place, what = self._shared.place[row.place], self._shared.what[row.what]
        user = self._users.get(row.who) or self._user(row.who)
        line = self._lines.get((row.what, place.tls)) or self._line(what, place.tls, row)
        key = _text(row.object_key)
        own = Own(
            row.event_time,
            row.event_id,
            row.request_id,
            place.source_ip,
            place.user_agent,
            place.vpc_endpoint_id,
            row.error_message,
            row.shared_event_id,
            key,
            row.request_parameters,
            _text(row.additional_event_data),
            _text(row.response_elements),
            _resources(row, what, key),
            row.bytes_in,
            row.bytes_out,
        )
        return user, line, own

    def _user(self, number: int) -> User:
        who = self._shared.who[number]
        made = self._users[number] = User(who.identity._asdict(), who.text)
        return made

    def _line(self, what: CallTemplate, tls: str | None, row: Row) -> Line:
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
            # All rows of one kind have their own, or none has.
            "request_parameters": request.request_parameters if row.request_parameters is None else None,
        }
        kept = {name: value for name, value in columns.items() if value is not None}
        made = self._lines[what.number, tls] = Line(kept, careful.compose_rest(None, tls, what.rest))
        return made


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _resources(row: Row, what: CallTemplate, key: str | None) -> str | None:
    parts = what.request.resources
    if parts is None:
        return None
    return parts[0] if len(parts) == 1 else (key or "").join(parts)
