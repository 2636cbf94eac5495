"""Values on their way out of DuckDB: fetched as what JSON can hold, read as what Python has, written as text.

A fetched row holds only None, bool, int, float, str and lists of these, so that it can be kept as JSON, and so
that DuckDB's client needs no further package (a TIMESTAMPTZ fetched as it is needs pytz).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any

#: (name, DuckDB type)
ColumnType = tuple[str, str]
Row = tuple[Any, ...]
Decoder = Callable[[Any], Any]

_NUMBERS = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")
) | {"FLOAT", "DOUBLE"}
_AS_IS = _NUMBERS | {"BOOLEAN", "VARCHAR", "JSON", '"NULL"', "NULL"}
_TIMES = frozenset({"TIMESTAMP WITH TIME ZONE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS"})
#: Names of zones that are UTC.
UTC_NAMES = frozenset({"UTC", "Etc/UTC", "GMT", "Etc/GMT", "Z", "Zulu", "Etc/UCT", "UCT"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)


def projection(columns: Sequence[ColumnType]) -> str | None:
    """SELECT list over columns ``c0, c1, ...`` that makes every value fetchable; None where all are already."""
    if all(_fetch(kind, "") == "" for _, kind in columns):
        return None
    return ", ".join(_fetch(kind, f"c{i}") for i, (_, kind) in enumerate(columns))


def _fetch(kind: str, name: str) -> str:
    base, is_list = _list_of(kind)
    if base in _AS_IS:
        return name
    if base in _TIMES:
        return f"list_transform({name}, lambda x: epoch_us(x))" if is_list else f"epoch_us({name})"
    if is_list or is_nested(kind):
        return f"CAST(to_json({name}) AS VARCHAR)"
    return f"hex({name})" if kind == "BLOB" else f"CAST({name} AS VARCHAR)"


def _list_of(kind: str) -> tuple[str, bool]:
    """(element type, True) for a list of plain values; (kind, False) for the rest."""
    return (kind[:-2], True) if kind.endswith("[]") and not kind.endswith("[][]") else (kind, False)


def is_nested(kind: str) -> bool:
    """Whether values of the type hold others."""
    return kind.endswith("]") or kind.startswith(("STRUCT(", "MAP(", "UNION(")) or kind == "VARIANT"


def converted(chunks: Iterable[list[Row]], converters: Sequence[Decoder | None]) -> Iterator[list[Row]]:
    """The rows with each value through its column's converter; nulls stay, as do columns without one."""
    changed = [(i, convert) for i, convert in enumerate(converters) if convert is not None]
    for rows in chunks:
        if not changed or not rows:
            yield rows
            continue
        # By column: most columns need nothing, and zip moves them without a look at each value.
        columns: list[Any] = list(zip(*rows, strict=True))
        for i, convert in changed:
            columns[i] = [None if value is None else convert(value) for value in columns[i]]
        yield list(zip(*columns, strict=True))


def decoder(kind: str, zone: tzinfo) -> Decoder | None:
    """Fetched value -> Python value (aware datetimes in ``zone``); None where they are the same."""
    base, is_list = _list_of(kind)
    if base in _AS_IS:
        return None
    if base in _TIMES:
        one = _moment_in(zone) if base == "TIMESTAMP WITH TIME ZONE" else _naive
        return _each(one) if is_list else one
    if is_list or is_nested(kind):
        return _json
    return {"DATE": _date, "BLOB": bytes.fromhex}.get(kind) or (_decimal if kind.startswith("DECIMAL") else None)


def writer(kind: str, zone: tzinfo) -> Decoder | None:
    """Fetched value -> what JSON shows (ISO 8601 times); None where they are the same."""
    base, is_list = _list_of(kind)
    if base in ("FLOAT", "DOUBLE"):
        return _each(_finite) if is_list else _finite
    if base in _AS_IS:
        return None
    if base in _TIMES:
        one = _iso_in(zone) if base == "TIMESTAMP WITH TIME ZONE" else _iso_naive
        return _each(one) if is_list else one
    if is_list or is_nested(kind):
        return _json
    return _number if kind.startswith("DECIMAL") else None


def is_number(kind: str) -> bool:
    """Whether values of the type are numbers (shown to the right)."""
    return kind in _NUMBERS or kind.startswith("DECIMAL")


def unique_names(columns: Sequence[ColumnType]) -> list[str]:
    """Column names, numbered where one comes twice: a JSON object must not lose a value."""
    names: list[str] = []
    taken = {name for name, _ in columns}
    for name, _ in columns:
        number, unique = 0, name
        while unique in names or (number and unique in taken):
            number += 1
            unique = f"{name}_{number}"
        names.append(unique)
    return names


def _each(one: Decoder) -> Decoder:
    return lambda values: [None if value is None else one(value) for value in values]


def _moment_in(zone: tzinfo) -> Decoder:
    def moment(micros: int) -> Any:
        try:
            return (_EPOCH + timedelta(microseconds=micros)).astimezone(zone)
        except OverflowError:
            return micros

    return moment


def _naive(micros: int) -> Any:
    try:
        return _NAIVE_EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return micros


def _iso_in(zone: tzinfo) -> Decoder:
    moment = _moment_in(zone)
    if str(zone) in UTC_NAMES:
        # Three times as fast as by way of a zone, and what most answers are made of.
        return lambda micros: value + "Z" if isinstance(value := _iso_naive(micros), str) else value

    def iso(micros: int) -> Any:
        value = moment(micros)
        if not isinstance(value, datetime):
            return value
        text = value.isoformat()
        return text[:-6] + "Z" if text.endswith("+00:00") else text

    return iso


def _iso_naive(micros: int) -> Any:
    value = _naive(micros)
    return value.isoformat() if isinstance(value, datetime) else value


def _date(text: str) -> Any:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return text


def _decimal(text: str) -> Decimal:
    return Decimal(text)


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _json(text: Any) -> Any:
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        return text
