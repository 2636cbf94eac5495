"""Values from DuckDB in three forms: fetched as what JSON can hold, read as Python objects, written as text.

A fetched row holds only None, bool, int, float, str and lists of these, so that it can be kept as JSON, and so
that DuckDB's client needs no other package (fetching a TIMESTAMPTZ directly requires pytz).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any

from trailsift.times import EPOCH

if TYPE_CHECKING:
    from decimal import Decimal

#: (name, DuckDB type)
ColumnType = tuple[str, str]
Row = tuple[Any, ...]
Decoder = Callable[[Any], Any]

_NUMBERS = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")
) | {"FLOAT", "DOUBLE"}
_AS_IS = _NUMBERS | {"BOOLEAN", "VARCHAR", "JSON", '"NULL"', "NULL"}
_TIMES = frozenset({"TIMESTAMP WITH TIME ZONE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS"})
#: Names of the zones that equal UTC.
UTC_NAMES = frozenset({"UTC", "Etc/UTC", "GMT", "Etc/GMT", "Z", "Zulu", "Etc/UCT", "UCT"})
_NAIVE_EPOCH = datetime(1970, 1, 1)


def projection(columns: Sequence[ColumnType]) -> str | None:
    """Return a SELECT list over columns ``c0, c1, ...`` that makes every value fetchable; None if all are already."""
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
    """Return (element type, True) for a list of plain values, (kind, False) for any other type."""
    return (kind[:-2], True) if kind.endswith("[]") and not kind.endswith("[][]") else (kind, False)


def is_nested(kind: str) -> bool:
    """Return whether values of the type contain others."""
    return kind.endswith("]") or kind.startswith(("STRUCT(", "MAP(", "UNION(")) or kind == "VARIANT"


def converted(chunks: Iterable[list[Row]], converters: Sequence[Decoder | None]) -> Iterator[list[Row]]:
    """Yield the rows with each value passed through its column's converter; nulls stay, as do columns without one."""
    changed = [(i, convert) for i, convert in enumerate(converters) if convert is not None]
    for rows in chunks:
        if not changed or not rows:
            yield rows
            continue
        # By column: most columns need no conversion, and zip moves them without a look at each value.
        columns: list[Any] = list(zip(*rows, strict=True))
        for i, convert in changed:
            columns[i] = [None if value is None else convert(value) for value in columns[i]]
        yield list(zip(*columns, strict=True))


def decoder(kind: str, zone: tzinfo) -> Decoder | None:
    """Return a function from fetched to Python values (aware datetimes in ``zone``); None if they are the same."""
    base, is_list = _list_of(kind)
    if base in _AS_IS:
        return None
    if base in _TIMES:
        convert = _moment_in(zone) if base == "TIMESTAMP WITH TIME ZONE" else _naive
        return _each(convert) if is_list else convert
    if is_list or is_nested(kind):
        return _json
    return {"DATE": _date, "BLOB": bytes.fromhex}.get(kind) or (_decimal if kind.startswith("DECIMAL") else None)


def writer(kind: str, zone: tzinfo) -> Decoder | None:
    """Return a function from fetched values to those of JSON (ISO 8601 times); None if they are the same."""
    base, is_list = _list_of(kind)
    if base in ("FLOAT", "DOUBLE"):
        return _each(_finite) if is_list else _finite
    if base in _AS_IS:
        return None
    if base in _TIMES:
        convert = _iso_in(zone) if base == "TIMESTAMP WITH TIME ZONE" else _iso_naive
        return _each(convert) if is_list else convert
    if is_list or is_nested(kind):
        return _json
    return _number if kind.startswith("DECIMAL") else None


def is_number(kind: str) -> bool:
    """Return whether values of the type are numbers (aligned right)."""
    return kind in _NUMBERS or kind.startswith("DECIMAL")


def unique_names(columns: Sequence[ColumnType]) -> list[str]:
    """Return the column names, repeated ones numbered: a JSON object must not lose a value."""
    names: list[str] = []
    taken = {name for name, _ in columns}
    for name, _ in columns:
        number, unique = 0, name
        while unique in names or (number and unique in taken):
            number += 1
            unique = f"{name}_{number}"
        names.append(unique)
    return names


def _each(convert: Decoder) -> Decoder:
    return lambda values: [None if value is None else convert(value) for value in values]


def _moment_in(zone: tzinfo) -> Decoder:
    def moment(micros: int) -> Any:
        try:
            return (EPOCH + timedelta(microseconds=micros)).astimezone(zone)
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
        # Three times as fast as converting through a zone, and most results are in UTC.
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
    from decimal import Decimal

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
