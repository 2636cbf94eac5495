"""Write landing lines of events, fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from trailsift.aws.transform.reader import CallColumns, CallerColumns, EventColumns
from trailsift.decode.landing import LandingPartition, partition_of, time_text
from trailsift.decode.record import compose_rest
from trailsift.times import HOUR

#: A cache with more entries than this is cleared.
_CACHE_LIMIT = 20_000
_encode = msgspec.json.Encoder().encode


class LandingWriter:
    """Writes landing lines; ``omit`` are columns that stay empty."""

    def __init__(self, omit: Iterable[str] = ()) -> None:
        self.omit = frozenset(omit)
        self._parts: dict[int, tuple[CallerColumns | CallColumns, bytes]] = {}
        self._rests: dict[tuple[int, int], tuple[CallerColumns, CallColumns, bytes]] = {}
        #: Hour and service -> partition, beginning of the time, and the JSON of the partition's columns.
        self._hours: dict[tuple[int, str], tuple[LandingPartition, str, str]] = {}

    def row(self, columns: Mapping[str, Any], weight: float = 1.0) -> bytes:
        """Return the line of a row of ``decode.record``."""
        kept = {name: value for name, value in columns.items() if value is not None and name not in self.omit}
        kept.pop("log_object", None)
        partition = partition_of(columns["event_time"], columns["service"])
        line = {"event_time": time_text(kept.pop("event_time")), "event_id": kept.pop("event_id"), **kept}
        return _encode(line | {"weight": weight} | partition._asdict() | {"service": columns["service"]}) + b"\n"

    def regular(
        self, caller: CallerColumns, call: CallColumns, own: EventColumns, weight: float = 1.0
    ) -> tuple[bytes, LandingPartition]:
        """Return the line of a regular record, and its partition."""
        hour, inside = divmod(own.event_time, HOUR)
        name = hour, call.columns["service"]
        partition, begin, folders = self._hours.get(name) or self._hour(*name)
        minute, inside = divmod(inside, 60_000_000)
        second, fraction = divmod(inside, 1_000_000)
        text = f"{begin}{minute:02}:{second:02}" + (f".{fraction:06}" if fraction else "")
        if self.omit:
            own = msgspec.structs.replace(own, **dict.fromkeys(self.omit.intersection(EventColumns.__struct_fields__)))
        body = _encode(own)
        head = f'{{"event_time":"{text}",{folders},"weight":{weight!r}'
        # The struct begins with the time as a number, which the text in ``head`` replaces.
        parts = head.encode(), body[body.index(b",") : -1], self._part(caller), self._part(call)
        return b"".join((*parts, self._rest(caller, call))), partition

    def _part(self, part: CallerColumns | CallColumns) -> bytes:
        """Return the columns of one part as JSON, without braces and with a leading comma."""
        cached = self._parts.get(id(part))
        # The id of a freed object can be reused, so the cached object itself is compared.
        if cached is None or cached[0] is not part:
            if len(self._parts) > _CACHE_LIMIT:
                self._parts.clear()
            columns = {name: v for name, v in part.columns.items() if v is not None and name not in self.omit}
            cached = self._parts[id(part)] = part, b"," + _encode(columns)[1:-1] if columns else b""
        return cached[1]

    def _rest(self, caller: CallerColumns, call: CallColumns) -> bytes:
        name = id(caller), id(call)
        cached = self._rests.get(name)
        if cached is None or cached[0] is not caller or cached[1] is not call:
            if len(self._rests) > _CACHE_LIMIT:
                self._rests.clear()
            text = None if "rest" in self.omit else compose_rest(caller.text, None, call.rest)
            end = b"}\n" if text is None else b',"rest":' + _encode(text) + b"}\n"
            cached = self._rests[name] = caller, call, end
        return cached[2]

    def _hour(self, hour: int, service: str) -> tuple[LandingPartition, str, str]:
        if len(self._hours) > _CACHE_LIMIT:
            self._hours.clear()
        partition = partition_of(hour * HOUR, service)
        year, month, day, hours, _ = partition
        folders = f'"year":"{year}","month":"{month}","day":"{day}","hour":"{hours}"'
        entry = self._hours[hour, service] = partition, time_text(hour * HOUR)[:14], folders
        return entry
