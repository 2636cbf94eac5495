"""A scan's filters as a tree of comparisons, and which files can hold a row that passes them.

The tree holds only what was understood. A part that was not understood is None, which means "anything may pass":
an error on that side costs reading a file, never a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from trailsift.cloudtrail.callers import is_arn
from trailsift.lake.index import File, FileFilter
from trailsift.schema import Table
from trailsift.times import DAY, EPOCH, HOUR, micros

#: No zone is farther from UTC than this.
MAX_UTC_OFFSET = 15 * HOUR

Value = int | str
Range = tuple[Value, Value]


class Comparison(NamedTuple):
    """``column op value`` with op one of ``=``, ``<``, ``<=``, ``>``, ``>=``; times are microseconds (UTC)."""

    column: str
    op: str
    value: Value


@dataclass(frozen=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True)
class AnyOf:
    """At least one part holds."""

    parts: tuple[Predicate, ...]


#: Columns whose range of values the index knows for each file; ``role_arn`` is read as ``caller``.
_INDEXED = ("service", "caller", "role_arn")

Predicate = Comparison | AllOf | AnyOf
Node = Mapping[str, Any]

_OPS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}
_FLIPPED = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_DATE_PARTS = ("year", "month", "day")
#: Including the column that only a lake partitioned by hour has.
_PARTITION_COLUMNS = (*_DATE_PARTS, "hour")


class FilterReader(NamedTuple):
    """Reads the syntax tree of a filter on ``table``.

    ``utc``: whether the session's zone is UTC (a cast of a time to a date or a plain timestamp uses that zone).
    ``slack``: microseconds by which times are widened, because the clock moves on between planning and running.
    ``written``: the tree is as the user wrote it, with nothing bound or folded. Then only integers compared with
    year, month, day and hour are read (``year = 2024``: DuckDB casts the column and does not push that down).
    """

    table: Table
    utc: bool = True
    slack: int = 0
    written: bool = False

    def read(self, node: Node) -> Predicate | None:
        """Return the predicate of ``node``; None if it says nothing about files."""
        kind = node.get("class")
        if kind == "CONJUNCTION":
            parts = [self.read(child) for child in node.get("children", ())]
            return all_of(parts) if node.get("type") == "CONJUNCTION_AND" else any_of(parts)
        if kind == "COMPARISON":
            op = _OPS.get(str(node.get("type")))
            if op is None:
                return None
            return self._compare(node["left"], op, node["right"]) or self._compare(
                node["right"], _FLIPPED[op], node["left"]
            )
        if kind == "BETWEEN" and node.get("type") == "COMPARE_BETWEEN":
            low = self._compare(node["input"], ">=", node["lower"])
            return all_of([low, self._compare(node["input"], "<=", node["upper"])])
        if kind == "OPERATOR" and node.get("type") == "COMPARE_IN":
            children: list[Node] = list(node.get("children", ()))
            return any_of([self._compare(children[0], "=", value) for value in children[1:]])
        return None

    def _compare(self, left: Node, op: str, right: Node) -> Predicate | None:
        constant = _constant(right)
        if constant is None:
            return None
        kind, value = constant
        if self.written:
            return self._compare_written(left, op, value)
        name, cast = _column(left)
        if name == self.table.time:
            return self._compare_time(cast, op, kind, value)
        if cast == "" and isinstance(value, str) and kind == "VARCHAR":
            indexed = name in _INDEXED or (self.table.name == "events" and name in (*_PARTITION_COLUMNS, "event_id"))
            return Comparison(name, op, value) if indexed else None
        is_integer = cast in ("INTEGER", "BIGINT") and isinstance(value, int)
        if is_integer and self.table.name == "events" and name in _PARTITION_COLUMNS:
            return Comparison(f"{name}::int", op, value)
        return None

    def _compare_written(self, left: Node, op: str, value: Value) -> Predicate | None:
        # A qualified name could mean a relation outside of the SELECT.
        names: list[str] = left.get("column_names", []) if left.get("class") == "COLUMN_REF" else []
        if (
            isinstance(value, int)
            and self.table.name == "events"
            and len(names) == 1
            and names[0] in _PARTITION_COLUMNS
        ):
            return Comparison(f"{names[0]}::int", op, value)
        return None

    def _compare_time(self, cast: str, op: str, kind: str, value: Value) -> Predicate | None:
        if cast == "year" and isinstance(value, int) and 1 <= value < 9999:
            start, end = _micros(datetime(value, 1, 1)), _micros(datetime(value + 1, 1, 1))
            return self._span(op, start, end, exact=self.utc)
        if not isinstance(value, str):
            return None
        moment = micros_of(value)
        if moment is None:
            return None
        is_date = self.table.column(self.table.time).type == "date"
        if is_date:
            # A plain comparison of dates; a date that is cast to a timestamp is compared as midnight.
            if cast not in ("", "TIMESTAMP") or kind not in ("DATE", "TIMESTAMP"):
                return None
            return self._span(op, moment, moment + 1 if cast or kind == "TIMESTAMP" else moment + DAY, exact=True)
        if cast == "" and kind == "TIMESTAMP WITH TIME ZONE":
            return self._span(op, moment, moment + 1, exact=True)
        if cast == "DATE" and kind == "DATE":
            return self._span(op, moment, moment + DAY, exact=self.utc)
        if cast == "TIMESTAMP" and kind in ("TIMESTAMP", "DATE"):
            return self._span(op, moment, moment + 1, exact=self.utc)
        return None

    def _span(self, op: str, start: int, end: int, *, exact: bool) -> Predicate:
        """Return comparisons for a time whose rounded value compares with the span [start, end) by ``op``."""
        slack = self.slack if exact else self.slack + MAX_UTC_OFFSET
        column = self.table.time
        if op == "<":
            return Comparison(column, "<", start + slack)
        if op == ">":
            return Comparison(column, ">=", end - slack)
        lower, upper = Comparison(column, ">=", start - slack), Comparison(column, "<", end + slack)
        if op == "=":
            return AllOf((lower, upper))
        return lower if op == ">=" else upper


def all_of(parts: list[Predicate | None]) -> Predicate | None:
    """Return the conjunction; parts that say nothing are left out."""
    understood = tuple(part for part in parts if part is not None)
    if not understood:
        return None
    return understood[0] if len(understood) == 1 else AllOf(understood)


def any_of(parts: list[Predicate | None]) -> Predicate | None:
    """Return the disjunction; None if any part says nothing."""
    understood = tuple(part for part in parts if part is not None)
    if len(understood) != len(parts) or not understood:
        return None
    return understood[0] if len(understood) == 1 else AnyOf(understood)


def by_caller(predicate: Predicate | None) -> Predicate | None:
    """Return ``predicate`` with ``caller`` in place of ``role_arn``, by which files are not sorted.

    The caller is the role wherever that is an ARN: conditions that other roles can meet say nothing about the caller.
    """
    if isinstance(predicate, AllOf):
        flat = [part for each in predicate.parts for part in (each.parts if isinstance(each, AllOf) else (each,))]
        roles = [part for part in flat if isinstance(part, Comparison) and part.column == "role_arn"]
        arns = [part for part in roles if is_arn(str(part.value))]
        # Whatever lies between two texts that begin with `arn:` begins with it.
        is_between = any(part.op in (">=", ">") for part in arns) and any(part.op in ("<=", "<") for part in arns)
        known = [part for part in arns if part.op == "=" or is_between]
        others = [by_caller(part) for part in flat if part not in roles]
        return all_of([*others, *(Comparison("caller", part.op, part.value) for part in known)])
    if isinstance(predicate, AnyOf):
        return any_of([by_caller(part) for part in predicate.parts])
    if predicate is None or predicate.column != "role_arn":
        return predicate
    return Comparison("caller", "=", predicate.value) if predicate.op == "=" and is_arn(str(predicate.value)) else None


def may_pass(predicate: Predicate | None, ranges: Mapping[str, Range]) -> bool:
    """Return whether a row within ``ranges`` (column -> least and greatest value) can pass."""
    if predicate is None:
        return True
    if isinstance(predicate, AllOf):
        return all(may_pass(part, ranges) for part in predicate.parts)
    if isinstance(predicate, AnyOf):
        return any(may_pass(part, ranges) for part in predicate.parts)
    span = ranges.get(predicate.column)
    return span is None or _HOLDS[predicate.op](span, predicate.value)


_HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda span, value: span[0] <= value <= span[1],
    "<": lambda span, value: span[0] < value,
    "<=": lambda span, value: span[0] <= value,
    ">": lambda span, value: span[1] > value,
    ">=": lambda span, value: span[1] >= value,
}


def range_reader(table: Table, used: frozenset[str]) -> Callable[[File], dict[str, Range]]:
    """Return a function of a file that gives the ranges of its values, as far as the index knows them.

    Partition columns are included only if they are in ``used``.
    """
    unit, time = _unit(table), table.time
    days = table.name == "events" and not used.isdisjoint(_PARTITION_COLUMNS)

    def ranges_of(file: File) -> dict[str, Range]:
        least, greatest = file.min_time, file.max_time
        ranges: dict[str, Range] = {time: (least // unit * unit, greatest)}
        if file.service is not None:
            ranges["service"] = (file.service, file.service)
        if file.min_caller is not None and file.max_caller is not None:
            ranges["caller"] = (file.min_caller, file.max_caller)
        if days and least // DAY == greatest // DAY:
            ranges.update(_day_ranges(least // DAY))
            if least // HOUR == greatest // HOUR:
                ranges.update(_hour_ranges(least // HOUR % 24))
        return ranges

    return ranges_of


@cache
def _day_ranges(number: int) -> dict[str, Range]:
    """Return year, month and day of a day since 1970, each as text and as a number."""
    day = EPOCH + timedelta(days=number)
    ranges: dict[str, Range] = {}
    for name, part in zip(_DATE_PARTS, (day.year, day.month, day.day), strict=True):
        text = f"{part:04d}" if name == "year" else f"{part:02d}"
        ranges[name] = (text, text)
        ranges[f"{name}::int"] = (part, part)
    return ranges


@cache
def _hour_ranges(hour: int) -> dict[str, Range]:
    return {"hour": (f"{hour:02d}", f"{hour:02d}"), "hour::int": (hour, hour)}


def file_filter(table: Table, predicate: Predicate | None) -> FileFilter:
    """Return the part of ``predicate`` that the index can look up; ``may_pass`` then judges each file."""
    if predicate is None:
        return FileFilter()
    low, high = _limits(predicate, table.time)
    if table.name == "events":
        days = _partition_days(predicate)
        if days is not None:
            low = days[0] if low is None else max(low, days[0])
            high = days[1] if high is None else min(high, days[1])
    unit = _unit(table)
    if high is not None:
        # Summaries are dated by the start of their hour or day; the index may hold finer times.
        high = high // unit * unit + unit - 1
    return FileFilter(low, high, _values(predicate, "service"), _values(predicate, "caller"))


def asked_ids(table: Table, predicate: Predicate | None) -> frozenset[str] | None:
    """Return the only event ids that a row can have which passes; None if that may be any."""
    return _values(predicate, "event_id") if predicate is not None and table.name == "events" else None


def predicate_columns(predicate: Predicate | None) -> frozenset[str]:
    """Return the columns that a predicate reads."""
    if predicate is None:
        return frozenset()
    if isinstance(predicate, Comparison):
        return frozenset({predicate.column.removesuffix("::int")})
    return frozenset().union(*(predicate_columns(part) for part in predicate.parts))


def _unit(table: Table) -> int:
    if table.column(table.time).type == "date":
        return DAY
    return HOUR if table.time == "hour" else 1


def _limits(predicate: Predicate, column: str) -> tuple[int | None, int | None]:
    if isinstance(predicate, Comparison):
        if predicate.column != column or not isinstance(predicate.value, int):
            return None, None
        value = predicate.value
        low = value if predicate.op in ("=", ">", ">=") else None
        return low, value if predicate.op in ("=", "<", "<=") else None
    parts = [_limits(part, column) for part in predicate.parts]
    lows, highs = [low for low, _ in parts], [high for _, high in parts]
    if isinstance(predicate, AllOf):
        return (
            max((low for low in lows if low is not None), default=None),
            min((high for high in highs if high is not None), default=None),
        )
    bounded_lows, bounded_highs = [x for x in lows if x is not None], [x for x in highs if x is not None]
    return (
        min(bounded_lows) if len(bounded_lows) == len(parts) else None,
        max(bounded_highs) if len(bounded_highs) == len(parts) else None,
    )


def _values(predicate: Predicate, column: str) -> frozenset[str] | None:
    """Return the only values that ``column`` can have; None if they are not known."""
    if isinstance(predicate, Comparison):
        exact = predicate.column == column and predicate.op == "="
        return frozenset({str(predicate.value)}) if exact else None
    parts = [_values(part, column) for part in predicate.parts]
    limited = [part for part in parts if part is not None]
    if isinstance(predicate, AllOf):
        return frozenset.intersection(*limited) if limited else None
    return frozenset.union(*limited) if len(limited) == len(parts) else None


def _partition_days(predicate: Predicate) -> tuple[int, int] | None:
    """Return the first and last microsecond of the days that conditions on year, month and day leave."""
    parts: list[list[int] | None] = []
    for name in _DATE_PARTS:
        values = _values(predicate, f"{name}::int")
        if values is None:
            values = _values(predicate, name)
        try:
            parts.append(None if values is None else sorted(int(value) for value in values))
        except ValueError:
            parts.append(None)
    years, months, days = parts
    if not years or not all(1 <= year < 9999 for year in years):
        return None
    first, last = date(years[0], 1, 1), date(years[-1] + 1, 1, 1)
    if len(years) == 1 and months and all(1 <= month <= 12 for month in months):
        first = date(years[0], months[0], 1)
        last = (date(years[0], months[-1], 28) + timedelta(days=4)).replace(day=1)
        if len(months) == 1 and days and all(1 <= day <= (last - first).days for day in days):
            first, last = first.replace(day=days[0]), first.replace(day=days[-1]) + timedelta(days=1)
    return _micros(datetime(first.year, first.month, first.day)), _micros(datetime(last.year, last.month, last.day)) - 1


def _column(node: Node) -> tuple[str, str]:
    """Return (column, what is applied to it): "", the type of a cast, or ``year``; ("", "") for anything else."""
    kind = node.get("class")
    if kind == "COLUMN_REF":
        names = node.get("column_names", ())
        return (str(names[0]), "") if len(names) == 1 else ("", "")
    inner: Node | None = None
    applied = ""
    if kind == "CAST" and node.get("type") == "OPERATOR_CAST" and not node.get("try_cast"):
        inner, applied = node["child"], _type_name(node["cast_type"])
    elif kind == "FUNCTION" and node.get("function_name") == "year" and len(node.get("children", ())) == 1:
        inner, applied = node["children"][0], "year"
    if inner is None or inner.get("class") != "COLUMN_REF" or len(inner.get("column_names", ())) != 1:
        return "", ""
    return str(inner["column_names"][0]), applied


def _constant(node: Node) -> tuple[str, Value] | None:
    """Return (type, value) of a constant, or of a text that is cast to a type."""
    kind = node.get("class")
    if kind == "CAST" and node.get("type") == "OPERATOR_CAST":
        inner = _constant(node["child"])
        return None if inner is None or not isinstance(inner[1], str) else (_type_name(node["cast_type"]), inner[1])
    if kind != "CONSTANT":
        return None
    value = node["value"].get("value")
    if node["value"].get("is_null") or isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return _type_name(node["value"]["type"]), value


def _type_name(node: Node) -> str:
    return str(node.get("id", ""))


def micros_of(text: str | None) -> int | None:
    """Return the microseconds since 1970 of a date or time as DuckDB prints it (UTC if it names no zone)."""
    try:
        return None if text is None else _micros(datetime.fromisoformat(text))
    except ValueError:
        return None


def _micros(moment: datetime) -> int:
    return micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
