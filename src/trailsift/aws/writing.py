"""Event lines of the landing form, written fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from trailsift.aws.reading import Line, Own, User
from trailsift.decode import record as careful
from trailsift.decode.landing import Partition, partition_of, time_text

#: A cache that has grown beyond this many entries is dropped and starts anew.
_CACHE_LIMIT = 20_000
_DAY = 86_400_000_000
_encode = msgspec.json.Encoder().encode


class Writer:
    """Writes event lines; ``omit`` are columns that stay empty."""

    def __init__(self, omit: Iterable[str] = ()) -> None:
        self.omit = frozenset(omit)
        self._parts: dict[int, tuple[User | Line, bytes]] = {}
        self._times: dict[int, tuple[str, Partition]] = {}
        self._days: dict[int, str] = {}

    def row(self, columns: Mapping[str, Any], weight: float = 1.0) -> bytes:
        """The line of a row of ``decode.record``."""
        kept = {name: value for name, value in columns.items() if value is not None and name not in self.omit}
        kept.pop("log_object", None)
        where = partition_of(columns["event_time"], columns["service"])
        made = {"event_time": time_text(kept.pop("event_time")), "event_id": kept.pop("event_id"), **kept}
        return _encode(made | {"weight": weight} | where._asdict()) + b"\n"

    def regular(self, user: User, line: Line, own: Own, weight: float = 1.0) -> tuple[bytes, Partition]:
        """The line of a regular record, and where it lands."""
        text, where = self._times.get(own.event_time) or self._time(own.event_time)
        where = where._replace(service=line.columns["service"])
        if self.omit:
            own = msgspec.structs.replace(own, **dict.fromkeys(self.omit.intersection(Own.__struct_fields__)))
        body = _encode(own)
        head = (
            f'{{"event_time":"{text}","year":"{where.year}","month":"{where.month}","day":"{where.day}",'
            f'"hour":"{where.hour}","weight":{weight!r}'
        )
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
        text = None if "rest" in self.omit else careful.compose_rest(user.text, None, line.rest)
        return b"}\n" if text is None else b',"rest":' + _encode(text) + b"}\n"

    def _time(self, micros: int) -> tuple[str, Partition]:
        if len(self._times) > _CACHE_LIMIT:
            self._times.clear()
        day, inside = divmod(micros, _DAY)
        date = self._days.get(day)
        if date is None:
            date = self._days[day] = time_text(day * _DAY)[:10]
        minutes, rest = divmod(inside, 60_000_000)
        hour, minute = divmod(minutes, 60)
        second, fraction = divmod(rest, 1_000_000)
        text = f"{date} {hour:02}:{minute:02}:{second:02}" + (f".{fraction:06}" if fraction else "")
        made = self._times[micros] = text, Partition(date[:4], date[5:7], date[8:], text[11:13], "")
        return made
