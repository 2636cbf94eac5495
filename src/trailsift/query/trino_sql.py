"""Translate our SQL for Athena: DuckDB's dialect to Trino's, and times to partitions.

sqlglot does most of it. Constructs that it would pass on although Athena rejects them are changed here, or rejected
by name.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from trailsift.errors import QueryError, UsageError
from trailsift.query.relations import VIEWS
from trailsift.schema import DENIED_CODES, SKETCH_SIZE, TABLES

if TYPE_CHECKING:
    from sqlglot import exp

#: Up to this many months are named one by one; longer periods are given to Athena by year.
MONTHS = 24
_BOUNDS = {"GT": "low", "GTE": "low", "LT": "high", "LTE": "high", "EQ": "both"}
_MIRRORED = {"GT": "LT", "GTE": "LTE", "LT": "GT", "LTE": "GTE", "EQ": "EQ"}


class Translated(NamedTuple):
    """A statement for Athena; ``partitions`` are the conditions that were added on its partition columns."""

    sql: str
    partitions: tuple[str, ...]


def translate(sql: str, database: str) -> Translated:
    """Translate one read-only statement over our tables. Raise QueryError naming the part that cannot be translated."""
    try:
        import sqlglot
        from sqlglot import errors
    except ImportError:
        raise UsageError("the athena engine needs sqlglot: install the extra `aws` of trailsift") from None
    try:
        parsed = [statement for statement in sqlglot.parse(sql, dialect="duckdb") if statement is not None]
    except errors.SqlglotError as error:
        raise QueryError(f"cannot parse the SQL: {_first_line(error)}") from error
    if len(parsed) != 1:
        raise QueryError("write one statement at a time")
    translation = _Translation(parsed[0])
    translation.run(database)
    try:
        text = parsed[0].sql(dialect="athena", unsupported_level=errors.ErrorLevel.RAISE)
        sqlglot.parse_one(text, dialect="trino")
    except errors.UnsupportedError as error:
        raise _cannot(_first_line(error)) from error
    except errors.SqlglotError as error:
        raise _cannot(f"a part of it: {_first_line(error)}") from error
    return Translated(text, tuple(translation.partitions))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _cannot(part: str) -> QueryError:
    return QueryError(f"Athena cannot run {part}. Use --engine duckdb, or write it in another way")


@dataclass(slots=True)
class _Span:
    """The period that conditions leave, both ends included."""

    low: datetime | None = None
    high: datetime | None = None

    def narrow(self, side: str, moment: datetime) -> None:
        if side in ("low", "both") and (self.low is None or moment > self.low):
            self.low = moment
        if side in ("high", "both") and (self.high is None or moment < self.high):
            self.high = moment


class _Translation:
    """One statement, translated in place."""

    def __init__(self, tree: exp.Expr) -> None:
        from sqlglot import exp

        if not isinstance(tree, exp.Query):
            raise QueryError("Athena runs only queries here: a SELECT, optionally with WITH")
        self.tree = tree
        self.partitions: list[str] = []
        self.cte_names = {cte.alias_or_name.lower() for cte in tree.find_all(exp.CTE)}

    def run(self, database: str) -> None:
        """Make all changes, in an order in which no change hides what a later one looks for."""
        from sqlglot import exp

        for select in list(self.tree.find_all(exp.Select)):
            self._qualify(select)
        for select in list(self.tree.find_all(exp.Select)):
            tables = self._tables(select)
            self._times(select, tables)
            self._stars(select)
            self._groups(select, tables)
            self._having(select, tables)
            if "events" in tables.values():
                self._partition(select, tables)
        # From the inside out: the text of an outer function includes that of the inner ones.
        for function in reversed(list(self.tree.find_all(exp.Func))):
            self._function(function)
        for table in list(self.tree.find_all(exp.Table)):
            self._table(table, database)

    # -- tables --------------------------------------------------------------------------------------------------------

    def _tables(self, select: exp.Select) -> dict[str, str]:
        """Return alias -> name of our tables in the FROM clause of a SELECT."""
        from sqlglot import exp

        sources = [select.args.get("from_") or select.args.get("from"), *(select.args.get("joins") or ())]
        tables = [source.this for source in sources if source is not None]
        return {table.alias_or_name: table.name.lower() for table in tables if isinstance(table, exp.Table)}

    def _table(self, table: exp.Table, database: str) -> None:
        from sqlglot import exp

        name = table.name.lower()
        if isinstance(table.this, exp.Func):
            raise _cannot(f"the table function {table.this.sql(dialect='duckdb')}")
        if table.args.get("db") is None and name in self.cte_names:
            return
        if table.args.get("db") is not None or (name not in TABLES and name not in VIEWS):
            names = ", ".join((*TABLES, *VIEWS))
            raise QueryError(f"there is no table {table.sql(dialect='duckdb')} (tables: {names})")
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(name)))
        table.set("db", exp.to_identifier(database))

    # -- times ---------------------------------------------------------------------------------------------------------

    def _times(self, select: exp.Select, tables: dict[str, str]) -> None:
        """Turn texts that are compared with a time into times: Trino does not compare the two."""
        from sqlglot import exp

        for literal in list(select.find_all(exp.Literal)):
            if not literal.is_string or literal.find_ancestor(exp.Select) is not select:
                continue
            parent = literal.parent
            if not isinstance(parent, exp.Predicate | exp.Between | exp.In):
                continue
            column = parent.this if parent.this is not literal else parent.args.get("expression")
            if not isinstance(column, exp.Column):
                continue
            kind = self._kind(column, tables)
            if kind == "timestamp":
                literal.replace(_timestamp(_moment(literal.name)))
            elif kind == "date":
                literal.replace(exp.cast(exp.Literal.string(f"{_moment(literal.name):%Y-%m-%d}"), "DATE"))

    def _kind(self, column: exp.Column, tables: dict[str, str]) -> str:
        """Return the type of a column of our tables; empty if no table of the SELECT has it."""
        names = [tables[column.table]] if column.table in tables else list(tables.values())
        for name in names:
            for candidate in TABLES[name].columns if name in TABLES else ():
                if candidate.name == column.name.lower():
                    return candidate.type
        return "timestamp" if "hourly_summary" in names and column.name.lower() == "hour" else ""

    def _partition(self, select: exp.Select, tables: dict[str, str]) -> None:
        """Add conditions on the partitions, from those on the time of ``events`` that every row must meet."""
        from sqlglot import exp

        where = select.args.get("where")
        # With several tables it is unclear which one a time belongs to. Athena then reads more, with the same result.
        if where is None or len(tables) != 1:
            return
        span = _Span()
        for part in where.this.flatten() if isinstance(where.this, exp.And) else [where.this]:
            _bound(part.unnest(), span)
        condition = partitions(span.low, span.high)
        if condition:
            self.partitions.append(condition)
            where.set("this", exp.and_(where.this, exp.condition(condition, dialect="trino")))

    # -- constructs that sqlglot would pass on -------------------------------------------------------------------------

    def _stars(self, select: exp.Select) -> None:
        from sqlglot import exp

        for star in select.find_all(exp.Star):
            for word in ("except_", "except", "replace", "rename"):
                if star.args.get(word):
                    raise _cannot(f"{star.sql(dialect='duckdb')}: name the columns")
        if select.args.get("distinct") and select.args["distinct"].args.get("on"):
            raise _cannot("DISTINCT ON")
        for columns in select.find_all(exp.Columns):
            raise _cannot(columns.sql(dialect="duckdb"))

    def _qualify(self, select: exp.Select) -> None:
        """Move ORDER BY, LIMIT and OFFSET out of a SELECT with QUALIFY.

        sqlglot turns QUALIFY into a filter around the SELECT and would leave them inside: the limit would apply before
        the filter, and the order would be lost.
        """
        from sqlglot import exp

        moved = {name: select.args[name] for name in ("order", "limit", "offset") if select.args.get(name)}
        if not select.args.get("qualify") or not moved:
            return
        for key in moved["order"].expressions if "order" in moved else ():
            column = key.this
            if isinstance(column, exp.Column) and column.name.lower() in map(str.lower, select.named_selects):
                column.set("table", None)
            elif not isinstance(column, exp.Literal):
                raise _cannot("QUALIFY with an ORDER BY of something that is not selected")
        outside = {name: value for name, value in select.args.items() if name in ("with", "with_")} | moved
        for name in outside:
            select.set(name, None)
        inner = select.copy().subquery("qualified")
        for name in list(select.args):
            select.set(name, None)
        select.set("expressions", [exp.Star()])
        select.from_(inner, copy=False)
        for name, value in outside.items():
            select.set(name, value)

    def _groups(self, select: exp.Select, tables: dict[str, str]) -> None:
        """Turn GROUP BY ALL, and GROUP BY the alias of an expression, into positions."""
        from sqlglot import exp

        order = select.args.get("order")
        if order is not None and any(item.this.sql().upper() == "ALL" for item in order.expressions):
            raise _cannot("ORDER BY ALL: name the columns")
        group = select.args.get("group")
        if group is None:
            return
        shown = select.expressions
        if group.args.get("all"):
            if any(isinstance(item, exp.Star) or item.is_star for item in shown):
                raise _cannot("GROUP BY ALL with a *: name the columns")
            keys = [number for number, item in enumerate(shown, 1) if not item.find(exp.AggFunc)]
            group.set("all", None)
            group.set("expressions", [exp.Literal.number(number) for number in keys])
            if not keys:
                select.set("group", None)
            return
        aliases = {item.alias.lower(): number for number, item in enumerate(shown, 1) if isinstance(item, exp.Alias)}
        columns = _columns(tables)
        for key in group.expressions:
            name = key.name.lower() if isinstance(key, exp.Column) and not key.table else ""
            if name in aliases and name not in columns:
                key.replace(exp.Literal.number(aliases[name]))

    def _having(self, select: exp.Select, tables: dict[str, str]) -> None:
        """Put expressions in place of their aliases in HAVING, where Trino does not know them."""
        from sqlglot import exp

        having = select.args.get("having")
        if having is None:
            return
        aliases = {item.alias.lower(): item.this for item in select.expressions if isinstance(item, exp.Alias)}
        columns = _columns(tables)
        for column in list(having.find_all(exp.Column)):
            name = "" if column.table or column.find_ancestor(exp.Select) is not select else column.name.lower()
            if name in aliases and name not in columns:
                column.replace(exp.paren(aliases[name].copy()))

    def _function(self, function: exp.Func) -> None:
        from sqlglot import exp

        if isinstance(function, exp.PercentileCont | exp.PercentileDisc | exp.Quantile | exp.Median):
            raise _cannot(f"{function.sql(dialect='duckdb')} exactly: it has only approx_percentile")
        if not isinstance(function, exp.Anonymous):
            return
        name = function.name.lower()
        if name == "distinct_count":
            function.replace(exp.maybe_parse(_distinct(function.expressions[0].sql(dialect="trino")), dialect="trino"))
        elif name == "merge_sketches":
            inner = function.expressions[0]
            merged = f"slice(array_sort(array_distinct(flatten({inner.sql(dialect='trino')}))), 1, {SKETCH_SIZE})"
            function.replace(exp.maybe_parse(merged, dialect="trino"))
        elif name == "is_denied":
            codes = ", ".join(f"'{code}'" for code in sorted(DENIED_CODES))
            listed = f"coalesce({function.expressions[0].sql(dialect='trino')} IN ({codes}), false)"
            function.replace(exp.maybe_parse(listed, dialect="trino"))
        elif name not in _SAME_IN_TRINO:
            raise _cannot(f"the function {name}")


def _columns(tables: dict[str, str]) -> set[str]:
    """Return the columns of those of our tables that ``tables`` (alias -> name) has."""
    return {column.name for name in tables.values() if name in TABLES for column in TABLES[name].columns}


#: Functions that sqlglot does not know, with the same meaning in DuckDB and Trino.
_SAME_IN_TRINO = frozenset({"array_distinct", "array_sort", "cardinality", "flatten", "slice", "truncate"})


def _distinct(merged: str) -> str:
    """Return ``distinct_count`` in Trino: the same estimate from the same sketch."""
    kth = f"(CAST(element_at({merged}, {SKETCH_SIZE}) AS double) + 9223372036854775809e0)"
    estimate = f"CAST(round({SKETCH_SIZE - 1} * 18446744073709551616e0 / {kth}) AS bigint)"
    return f"if({merged} IS NULL, 0, if(cardinality({merged}) < {SKETCH_SIZE}, cardinality({merged}), {estimate}))"


# -- times and partitions --------------------------------------------------------------------------------------------


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise QueryError(f"{text!r} is not a valid time: write 2026-03-02 or 2026-03-02T10:30:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _timestamp(moment: datetime) -> exp.Expr:
    from sqlglot import exp

    return exp.cast(exp.Literal.string(moment.replace(tzinfo=None).isoformat(" ")), "TIMESTAMP")


def _bound(part: exp.Expr, span: _Span) -> None:
    """Narrow a span by one condition, if it compares event_time with a constant."""
    from sqlglot import exp

    if isinstance(part, exp.Between):
        for word, side in (("low", "low"), ("high", "high")):
            moment = _constant_time(part.args[word])
            if _is_time(part.this) and moment is not None:
                span.narrow(side, moment)
        return
    kind = type(part).__name__
    if kind not in _BOUNDS:
        return
    left, right = part.this, part.args.get("expression")
    if _is_time(right):
        left, right, kind = right, left, _MIRRORED[kind]
    moment = _constant_time(right)
    if _is_time(left) and moment is not None:
        span.narrow(_BOUNDS[kind], moment)


def _is_time(node: exp.Expr | None) -> bool:
    from sqlglot import exp

    return isinstance(node, exp.Column) and node.name.lower() == "event_time"


def _constant_time(node: exp.Expr | None) -> datetime | None:
    """Return the time of a literal that is cast to one; None for anything else."""
    from sqlglot import exp

    if not isinstance(node, exp.Cast) or not isinstance(node.this, exp.Literal) or not node.this.is_string:
        return None
    try:
        return _moment(node.this.name)
    except QueryError:
        return None


def partitions(low: datetime | None, high: datetime | None) -> str:
    """Return a condition on year, month and day that every event between two times meets; empty if there is none."""
    if low is None and high is None:
        return ""
    first = low.date() if low else None
    last = high.date() if high else None
    if first is None or last is None or (last.year - first.year) * 12 + last.month - first.month >= MONTHS:
        ends = [f"year >= '{first:%Y}'"] if first else []
        ends += [f"year <= '{last:%Y}'"] if last else []
        return " AND ".join(ends)
    if last < first:
        return "year = ''"
    months = list(_months(first, last))
    return months[0] if len(months) == 1 else f"({' OR '.join(f'({month})' for month in months)})"


def _months(first: date, last: date) -> Iterator[str]:
    while first <= last:
        end = date(first.year, first.month, calendar.monthrange(first.year, first.month)[1])
        month = f"year = '{first:%Y}' AND month = '{first:%m}'"
        until = min(end, last)
        if first == until:
            yield f"{month} AND day = '{first:%d}'"
        elif first.day > 1 or until < end:
            yield f"{month} AND day BETWEEN '{first:%d}' AND '{until:%d}'"
        else:
            yield month
        first = end + timedelta(days=1)
