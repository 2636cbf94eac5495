"""Dataclasses and NamedTuples as JSON values: one function for every ``--json``."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, ClassVar

from trailsift.times import iso

#: Fields with times in microseconds, beside those whose names end in ``_time``.
_TIMES = frozenset({"hour", "ingested_at", "since", "until"})


class JsonObject:
    """Base of dataclasses whose JSON is not simply their fields.

    ``JSON``: key -> attribute (``events`` or ``events.rows``; properties too), in the order of the output.
    """

    __slots__ = ()
    JSON: ClassVar[Mapping[str, str]] = {}

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of ``--json``."""
        return to_dict(self)


def to_dict(value: Any) -> dict[str, Any]:
    """Return a dataclass or NamedTuple as a JSON object: its ``JSON`` attributes, or else its fields, in order."""
    keys: Mapping[str, str] = getattr(value, "JSON", None) or {name: name for name in _fields(value)}
    return {key: _named(key, attrgetter(attribute)(value)) for key, attribute in keys.items()}


def plain(value: Any) -> Any:
    """Return ``value`` as JSON values: dataclasses and NamedTuples become objects, their times ISO 8601 in UTC."""
    if isinstance(value, JsonObject) or (_fields(value) and not isinstance(value, type)):
        return to_dict(value)
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


def _fields(value: Any) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return tuple(getattr(value, "_fields", ()))
    return tuple(getattr(value, "__dataclass_fields__", ()))


def _named(name: str, value: Any) -> Any:
    if isinstance(value, int) and (name.endswith("_time") or name in _TIMES):
        return iso(value)
    return plain(value)
