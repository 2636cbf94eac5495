"""Constructs of DuckDB that sqlglot passes on although Trino refuses them or means something else by them.

``rewrite`` changes a tree in place, from the inside out; ``cannot`` says what has no equivalent. Times follow the zone
that the statement is asked in, as DuckDB's do: Athena's sessions are in UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from trailsift.errors import QueryError
from trailsift.query.trino_kinds import Kinds
from trailsift.schema import DENIED_CODES, SKETCH_SIZE

if TYPE_CHECKING:
    from sqlglot import exp


def cannot(part: str) -> QueryError:
    """Return the error for a part of a statement that Athena cannot run."""
    return QueryError(f"Athena cannot run {part}. Use --engine duckdb, or write it in another way")


def trino(text: str) -> exp.Expr:
    """Return an expression of Trino's dialect."""
    from sqlglot import exp

    return exp.maybe_parse(text, dialect="trino")


def _text(node: exp.Expr) -> str:
    return str(node.sql(dialect="trino"))


def _shown(node: exp.Expr) -> str:
    return str(node.sql(dialect="duckdb"))


class Rewriter:
    """Rewrites the functions of one statement. ``now``: the time that ``now()`` stands for, in UTC."""

    def __init__(self, tree: exp.Expr, zone: str, now: datetime) -> None:
        self.kinds = Kinds(tree)
        self.zone = zone
        self.now = now

    def clock(self, tree: exp.Expr) -> None:
        """Put the time at which the statement is translated in place of ``now()`` and the like.

        So all its partitions are known. DuckDB's value is that of the statement's beginning, too.
        """
        from sqlglot import exp

        for node in list(tree.find_all(exp.Func)):
            name = node.name.lower() if isinstance(node, exp.Anonymous) else ""
            if name in ("now", "get_current_timestamp", "transaction_timestamp") or type(node).__name__ in (
                "CurrentTimestamp",
                "Localtimestamp",
            ):
                node.replace(timestamp(self.now))
            elif isinstance(node, exp.CurrentDate):
                node.replace(date_literal(self.now.astimezone(ZoneInfo(self.zone))))
            elif name in ("current_localtime", "get_current_time") or type(node).__name__ in ("CurrentTime",):
                raise cannot(f"{_shown(node)}: use now()")

    def prepare(self, node: exp.Expr) -> None:
        """Rewrite what decides on the kind of an expression."""
        from sqlglot import exp

        if isinstance(node, exp.Add | exp.Sub):
            self._days(node)
        elif isinstance(node, exp.Anonymous) and node.name.lower() in ("date_part", "datepart"):
            self._part(node)

    def _part(self, node: exp.Expr) -> None:
        from sqlglot import exp

        unit, *operands = node.expressions
        if len(operands) != 1 or not isinstance(unit, exp.Literal):
            raise cannot(_shown(node))
        node.replace(exp.Extract(this=exp.Var(this=unit.name.upper()), expression=operands[0].copy()))

    def compared(self, node: exp.Expr) -> None:
        """Refuse to compare a time with a day of which the value is unknown, in another zone than UTC."""
        from sqlglot import exp

        if self.zone != "UTC" and isinstance(node, exp.Predicate | exp.Between):
            kinds = {self.kinds.of(child) for child in node.iter_expressions()}
            if {"timestamp", "date"} <= kinds:
                raise cannot(f"{_shown(node)} in the time zone {self.zone}: ask in UTC")

    def rewrite(self, node: exp.Expr) -> None:
        """Rewrite one expression whose operands have been rewritten."""
        from sqlglot import exp

        handler = _HANDLERS.get(type(node).__name__)
        if handler is not None:
            handler(self, node)
        elif isinstance(node, exp.Anonymous):
            self._anonymous(node)

    # -- by kind of expression -----------------------------------------------------------------------------------------

    def _days(self, node: exp.Expr) -> None:
        """``date - 7`` and ``date + 7`` are days."""
        from sqlglot import exp

        left, right = node.this, node.expression
        if isinstance(node, exp.Add) and self.kinds.of(right) == "date" and self.kinds.of(left) == "number":
            left, right = right, left
        if self.kinds.of(left) != "date" or self.kinds.of(right) not in ("number", "int64"):
            return
        sign = "-" if isinstance(node, exp.Sub) else ""
        fixed = constant_date(left)
        if fixed is not None and isinstance(right, exp.Literal) and right.is_int:
            days = int(right.name) if not sign else -int(right.name)
            node.replace(date_literal(_shifted(fixed, days)))
        else:
            node.replace(trino(f"date_add('day', {sign}({_text(right)}), {_text(left)})"))

    def _contains(self, node: exp.Expr) -> None:
        if not self.kinds.of(node.this).startswith("list"):
            node.replace(trino(f"strpos({_text(node.this)}, {_text(node.expression)}) > 0"))

    def _length(self, node: exp.Expr) -> None:
        if self.kinds.of(node.this).startswith("list"):
            node.replace(trino(f"cardinality({_text(node.this)})"))

    def _bracket(self, node: exp.Expr) -> None:
        """A slice of a text or a list, and an element that may not be there, which is NULL."""
        from sqlglot import exp

        (item,) = node.expressions if len(node.expressions) == 1 else (None,)
        is_list = self.kinds.of(node.this).startswith("list")
        if isinstance(item, exp.Slice):
            low, high = _whole(item.this), _whole(item.args.get("expression"))
            if item.args.get("step") or (item.this is not None and (low or 0) < 1) or (high is not None and high < 0):
                raise cannot(f"the slice {_shown(node)}: its ends must be positive numbers")
            name = "slice" if is_list else "substr"
            if high is None and item.args.get("expression") is not None:
                raise cannot(f"the slice {_shown(node)}: its ends must be positive numbers")
            low = low or 1
            end = f"{max(high - low + 1, 0)}" if high is not None else f"cardinality({_text(node.this)})"
            rest = "" if high is None and not is_list else f", {end}"
            node.replace(trino(f"{name}({_text(node.this)}, {low}{rest})"))
        elif is_list and item is not None:
            # sqlglot counts from 0 in its trees of a dialect that counts from 1.
            node.replace(trino(f"element_at({_text(node.this)}, {_position(node, item)})"))
        elif not is_list and self.kinds.of(node.this) == "string" and item is not None:
            node.replace(trino(f"substr({_text(node.this)}, {_position(node, item)}, 1)"))

    def _dayname(self, node: exp.Expr) -> None:
        node.replace(trino(f"date_format({_text(node.this)}, '%W')"))

    def _monthname(self, node: exp.Expr) -> None:
        node.replace(trino(f"date_format({_text(node.this)}, '%M')"))

    def _split_part(self, node: exp.Expr) -> None:
        index = _whole(node.args.get("part_index"))
        if index is not None and index < 0:
            parts = f"split({_text(node.this)}, {_text(node.args['delimiter'])})"
            node.replace(trino(f"coalesce(element_at({parts}, {index}), if({parts} IS NULL, NULL, ''))"))

    def _joined(self, node: exp.Expr) -> None:
        """``string_agg`` leaves NULL out, and is NULL if nothing is left."""
        from sqlglot import exp

        separator = _text(node.args["separator"]) if node.args.get("separator") else "','"
        order, inner = "", node.this
        if isinstance(inner, exp.Order):
            order = " " + ", ".join(_text(key) for key in inner.expressions)
            order, inner = f" ORDER BY{order}", inner.this
        distinct = ""
        if isinstance(inner, exp.Distinct):
            distinct, inner = "DISTINCT ", inner.expressions[0]
            if isinstance(inner, exp.Order):
                order = f" ORDER BY {', '.join(_text(key) for key in inner.expressions)}"
                inner = inner.this
        value = _text(inner)
        condition = f"{value} IS NOT NULL"
        holder = node
        if isinstance(node.parent, exp.Filter):
            holder = node.parent
            condition += f" AND ({_text(holder.expression.this)})"
        listed = f"array_agg({distinct}{value}{order}) FILTER (WHERE {condition})"
        holder.replace(trino(f"array_join({listed}, {separator})"))

    def _ends_with(self, node: exp.Expr) -> None:
        node.replace(_has_end(node.this, node.expression))

    def _ignore_nulls(self, node: exp.Expr) -> None:
        """``any_value`` leaves NULL out in Trino, too, but does not take the words."""
        from sqlglot import exp

        if isinstance(node.this, exp.AnyValue):
            node.replace(node.this.copy())

    def _bytes(self, node: exp.Expr) -> None:
        node.set("this", trino(f"to_utf8({_text(node.this)})"))

    def _exact_only(self, node: exp.Expr) -> None:
        raise cannot(f"{_shown(node)} exactly: it has only approx_percentile")

    def _anonymous(self, node: exp.Expr) -> None:

        name, arguments = node.name.lower(), node.expressions
        if name == "distinct_count":
            node.replace(trino(_distinct(_text(arguments[0]))))
        elif name == "merge_sketches":
            merged = f"slice(array_sort(array_distinct(flatten({_text(arguments[0])}))), 1, {SKETCH_SIZE})"
            node.replace(trino(merged))
        elif name == "is_denied":
            codes = ", ".join(f"'{code}'" for code in sorted(DENIED_CODES))
            node.replace(trino(f"coalesce({_text(arguments[0])} IN ({codes}), false)"))
        elif name == "suffix" and len(arguments) == 2:
            node.replace(_has_end(*arguments))
        elif name not in _SAME_IN_TRINO:
            raise cannot(f"the function {name}")

    # -- zones ---------------------------------------------------------------------------------------------------------

    def zoned(self, node: exp.Expr) -> None:
        """Let a function that depends on the zone see its times in the statement's."""
        from sqlglot import exp

        if self.zone == "UTC" or not isinstance(node, exp.Func | exp.Cast | exp.Extract):
            return
        name = type(node).__name__
        operands = [child for child in node.iter_expressions() if self.kinds.of(child) == "timestamp"]
        if not operands or name in _ZONE_FREE or _is_constant(node):
            return
        if name not in _ZONED:
            raise cannot(f"{_shown(node)} in the time zone {self.zone}: ask in UTC")
        if isinstance(node, exp.Cast) and self.kinds.of(node) == "timestamp":
            return
        gives_time = self.kinds.of(node) == "timestamp"
        for operand in operands:
            seen = f"with_timezone(CAST({_text(operand)} AS TIMESTAMP(6)), 'UTC') AT TIME ZONE '{self.zone}'"
            operand.replace(trino(seen))
        if gives_time:
            node.replace(trino(f"CAST({_text(node)} AT TIME ZONE 'UTC' AS TIMESTAMP(6))"))


_HANDLERS: dict[str, Callable[[Rewriter, exp.Expr], None]] = {
    "Contains": Rewriter._contains,
    "ArrayContains": Rewriter._contains,
    "Length": Rewriter._length,
    "Bracket": Rewriter._bracket,
    "Dayname": Rewriter._dayname,
    "Monthname": Rewriter._monthname,
    "SplitPart": Rewriter._split_part,
    "GroupConcat": Rewriter._joined,
    "EndsWith": Rewriter._ends_with,
    "IgnoreNulls": Rewriter._ignore_nulls,
    "MD5": Rewriter._bytes,
    "SHA2": Rewriter._bytes,
    "PercentileCont": Rewriter._exact_only,
    "PercentileDisc": Rewriter._exact_only,
    "Quantile": Rewriter._exact_only,
    "Median": Rewriter._exact_only,
}
#: Functions of times that mean the same in every zone.
_ZONE_FREE = frozenset(
    (
        *("Min", "Max", "AnyValue", "First", "Last", "FirstValue", "LastValue", "Coalesce", "Greatest", "Least"),
        *("ArgMax", "ArgMin", "Lag", "Lead", "If", "Case", "TimeToUnix", "ApproxDistinct", "ArrayAgg", "Count"),
    )
)
#: Functions whose value depends on the zone of their times.
_ZONED = frozenset(
    (
        *("TimestampTrunc", "DateTrunc", "Extract", "TimeToStr", "Cast", "Date", "TsOrDsToDate", "Dayname"),
        *("Hour", "Minute", "Second", "Day", "Month", "Quarter", "Year", "Week", "DayOfWeek", "DayOfWeekIso"),
        *("DayOfYear", "DayOfMonth", "WeekOfYear", "DateDiff", "LastDay", "Monthname"),
    )
)
#: Functions that sqlglot does not know, with the same meaning in DuckDB and Trino.
_SAME_IN_TRINO = frozenset(
    ("array_distinct", "array_sort", "cardinality", "flatten", "slice", "truncate", "hour", "minute", "second")
)


def _has_end(text: exp.Expr, end: exp.Expr) -> exp.Expr:
    """Return the condition that a text has an end."""
    whole, tail = _text(text), _text(end)
    return trino(f"substr({whole}, greatest(length({whole}) - length({tail}) + 1, 1)) = {tail}")


def _is_constant(node: exp.Expr) -> bool:
    """Return whether an expression is a literal time."""
    from sqlglot import exp

    return isinstance(node, exp.Cast) and isinstance(node.this, exp.Literal)


def _whole(node: exp.Expr | None) -> int | None:
    """Return the value of a literal whole number; None for anything else."""
    from sqlglot import exp

    if isinstance(node, exp.Neg):
        inner = _whole(node.this)
        return None if inner is None else -inner
    return int(node.name) if isinstance(node, exp.Literal) and node.is_int else None


def _position(node: exp.Expr, item: exp.Expr) -> str:
    """Return the position of an element as Trino counts: from 1."""
    offset = int(node.args.get("offset") or 0)
    value = _whole(item)
    return str(value + 1 - offset if value is not None and value >= 0 else value) if value is not None else _text(item)


def _distinct(merged: str) -> str:
    """Return ``distinct_count`` in Trino: the same estimate from the same sketch."""
    kth = f"(CAST(element_at({merged}, {SKETCH_SIZE}) AS double) + 9223372036854775809e0)"
    estimate = f"CAST(round({SKETCH_SIZE - 1} * 18446744073709551616e0 / {kth}) AS bigint)"
    return f"if({merged} IS NULL, 0, if(cardinality({merged}) < {SKETCH_SIZE}, cardinality({merged}), {estimate}))"


def timestamp(moment: datetime) -> exp.Expr:
    """Return a time in UTC as a literal."""
    from sqlglot import exp

    literal = exp.cast(exp.Literal.string(moment.replace(tzinfo=None).isoformat(" ")), "TIMESTAMP")
    literal.meta["utc"] = True
    return literal


def date_literal(moment: datetime) -> exp.Expr:
    """Return the day of a time as a literal."""
    from sqlglot import exp

    return exp.cast(exp.Literal.string(f"{moment:%Y-%m-%d}"), "DATE")


def constant_date(node: exp.Expr | None) -> datetime | None:
    """Return the day that a literal names, at midnight; None for anything else."""
    from sqlglot import exp

    if not isinstance(node, exp.Cast) or not _is_constant(node) or not node.is_type("date"):
        return None
    try:
        return datetime.fromisoformat(node.this.name)
    except ValueError:
        return None


def _shifted(day: datetime, days: int) -> datetime:
    try:
        return day + timedelta(days=days)
    except OverflowError:
        raise QueryError(f"{day:%Y-%m-%d} and {days:,} days is not a time") from None
