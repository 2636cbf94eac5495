"""The JSON that detection keeps in the folder findings of a lake: whoever made the lake may have written it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from trailsift.detect.finding import BASES, LEVELS, LOW_AND_SLOW, Link, Signal

#: The largest document, in bytes: 20,000 signals take some 10 MB.
MAX_JSON = 64 << 20
#: Microseconds of the years 1 to 9999.
_MIN_TIME, _MAX_TIME = -62_135_596_800_000_000, 253_402_300_799_999_999


def parse_json(data: bytes | str) -> Any:
    """Return the value of a document. ValueError if it is too large, nested too deeply, or not JSON."""
    if len(data) > MAX_JSON:
        raise ValueError(f"it is larger than {MAX_JSON >> 20} MB")
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def signal_of(row: Sequence[Any]) -> Signal:
    """Return a stored signal. ValueError or TypeError if a field has another type, or is out of range."""
    signal = Signal(*map(_frozen, row))
    if signal.kind not in LEVELS:
        raise ValueError(f"there are no signals of the kind {signal.kind!r:.100}")
    texts = (signal.caller, signal.event_name, signal.resource_arn, signal.value_ko, signal.rule)
    _check(isinstance(signal.value, str) and all(map(is_text, texts)), "a text")
    _check(_is_number(signal.rarity) and (signal.usual is None or _is_number(signal.usual)), "a number")
    _check(is_count(signal.events), "a count")
    _check_times(signal.first_time, signal.last_time, signal.last_time if signal.goes_on is None else signal.goes_on)
    _check(isinstance(signal.mitre, tuple) and all(isinstance(name, str) for name in signal.mitre), "a technique")
    _check(isinstance(signal.parts, tuple) and all(map(_is_part, signal.parts)), "a part")
    _check(signal.past is None or is_count(signal.past), "a number of days")
    _check(signal.basis in BASES, "a basis")
    if signal.kind in LOW_AND_SLOW:
        _check(len(signal.parts) == 1 and signal.parts[0][2] > 0, "a part")
    return signal


def link_of(row: Sequence[Any]) -> Link:
    """Return a stored link. ValueError or TypeError if a field has another type, or is out of range."""
    link = Link(*row)
    _check(is_text(link.caller) and isinstance(link.value, str), "a text")
    _check_times(link.first_time, link.last_time)
    return link


def is_text(value: object) -> bool:
    """Return whether a value is a text or None."""
    return value is None or isinstance(value, str)


def is_count(value: object) -> bool:
    """Return whether a value is a whole number that fits 64 bits."""
    return type(value) is int and abs(value) < 1 << 63


def _is_number(value: object) -> bool:
    return is_count(value) or (isinstance(value, float) and math.isfinite(value))


def _is_part(value: object) -> bool:
    return (
        isinstance(value, tuple) and len(value) == 4 and isinstance(value[0], str) and all(map(_is_number, value[1:]))
    )


def _check_times(*values: object) -> None:
    _check(all(type(value) is int and _MIN_TIME <= value <= _MAX_TIME for value in values), "a time")


def _check(right: bool, what: str) -> None:
    if not right:
        raise ValueError(f"{what} is of another type, or out of range")


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
