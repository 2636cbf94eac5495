"""Event lines of the landing form, written fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from trailsift.aws.transform.reader import Line, Own, User
from trailsift.decode import record as careful
from trailsift.decode.landing import LandingPartition, partition_of, time_text

#: A cache that has grown beyond this many entries is dropped and starts anew.
_CACHE_LIMIT = 20_000
_HOUR = 3_600_000_000
_encode = msgspec.json.Encoder().encode


class Writer:
    """Writes event lines; ``omit`` are columns that stay empty."""

    def __init__(self, omit: Iterable[str] = ()) -> None:
        self.omit = frozenset(omit)
        self._parts: dict[int, tuple[User | Line, bytes]] = {}
        self._rests: dict[tuple[int, int], tuple[User, Line, bytes]] = {}
        #: By hour and service: where events land, the beginning of their time, and the JSON of their partition.
        self._hours: dict[tuple[int, str], tuple[LandingPartition, str, str]] = {}

    def row(self, columns: Mapping[str, Any], weight: float = 1.0) -> bytes:
        """The line of a row of ``decode.record``."""
        kept = {name: value for name, value in columns.items() if value is not None and name not in self.omit}
        kept.pop("log_object", None)
        where = partition_of(columns["event_time"], columns["service"])
        made = {"event_time": time_text(kept.pop("event_time")), "event_id": kept.pop("event_id"), **kept}
        return _encode(made | {"weight": weight} | where._asdict()) + b"\n"

    def regular(self, user: User, line: Line, own: Own, weight: float = 1.0) -> tuple[bytes, LandingPartition]:
        """The line of a regular record, and where it lands."""
        hour, inside = divmod(own.event_time, _HOUR)
        name = hour, line.columns["service"]
        where, begin, partition = self._hours.get(name) or self._hour(*name)
        minute, inside = divmod(inside, 60_000_000)
        second, fraction = divmod(inside, 1_000_000)
        text = f"{begin}{minute:02}:{second:02}" + (f".{fraction:06}" if fraction else "")
        if self.omit:
            own = msgspec.structs.replace(own, **dict.fromkeys(self.omit.intersection(Own.__struct_fields__)))
        body = _encode(own)
        head = f'{{"event_time":"{text}",{partition},"weight":{weight!r}'
        # The struct begins with the time as a number: it is written as a text instead.
        parts = head.encode(), body[body.index(b",") : -1], self._part(user), self._part(line), self._rest(user, line)
        return b"".join(parts), where

    def _part(self, part: User | Line) -> bytes:
        """The columns of one part, without the braces around them, with a comma in front."""
        known = self._parts.get(id(part))
        # Ids are used again once an object is gone: the object itself says whether it is the one.
        if known is None or known[0] is not part:
            if len(self._parts) > _CACHE_LIMIT:
                self._parts.clear()
            columns = {name: v for name, v in part.columns.items() if v is not None and name not in self.omit}
            known = self._parts[id(part)] = part, b"," + _encode(columns)[1:-1] if columns else b""
        return known[1]

    def _rest(self, user: User, line: Line) -> bytes:
        name = id(user), id(line)
        known = self._rests.get(name)
        if known is None or known[0] is not user or known[1] is not line:
            if len(self._rests) > _CACHE_LIMIT:
                self._rests.clear()
            text = None if "rest" in self.omit else careful.compose_rest(user.text, None, line.rest)
            end = b"}\n" if text is None else b',"rest":' + _encode(text) + b"}\n"
            known = self._rests[name] = user, line, end
        return known[2]

    def _hour(self, hour: int, service: str) -> tuple[LandingPartition, str, str]:
        if len(self._hours) > _CACHE_LIMIT:
            self._hours.clear()
        where = partition_of(hour * _HOUR, service)
        folders = f'"year":"{where.year}","month":"{where.month}","day":"{where.day}","hour":"{where.hour}"'
        made = self._hours[hour, service] = where, time_text(hour * _HOUR)[:14], folders
        return made
