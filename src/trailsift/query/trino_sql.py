"""A question in our SQL as Athena takes it: DuckDB's dialect to Trino's, times to partitions.

sqlglot does most of it. What it would pass on although Athena refuses it is changed here, or refused by name.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from trailsift.errors import QueryError, UsageError
from trailsift.query.relations import SKETCH_SIZE, VIEWS
from trailsift.schema import TABLES

if TYPE_CHECKING:
    from sqlglot import exp

#: Months that are named one by one; a longer time is told to Athena by its years.
MONTHS = 24
_BOUNDS = {"GT": "low", "GTE": "low", "LT": "high", "LTE": "high", "EQ": "both"}
_MIRRORED = {"GT": "LT", "GTE": "LTE", "LT": "GT", "LTE": "GTE", "EQ": "EQ"}


class Translated(NamedTuple):
    """A statement for Athena; ``partitions`` are the conditions that were added for its partitions."""

    sql: str
    partitions: tuple[str, ...]


def translate(sql: str, database: str) -> Translated:
    """One read-only statement over our tables, for Athena. QueryError, with the part that cannot be translated."""
    try:
        import sqlglot
        from sqlglot import errors
    except ImportError:
        raise UsageError("the athena engine needs sqlglot: install trailsift with the extra `aws`") from None
    try:
        parsed = [one for one in sqlglot.parse(sql, dialect="duckdb") if one is not None]
    except errors.SqlglotError as error:
        raise QueryError(f"this SQL cannot be read: {_first_line(error)}") from error
    if len(parsed) != 1:
        raise QueryError("ask one statement at a time")
    work = _Work(parsed[0])
    work.change(database)
    try:
        text = parsed[0].sql(dialect="athena", unsupported_level=errors.ErrorLevel.RAISE)
        sqlglot.parse_one(text, dialect="trino")
    except errors.UnsupportedError as error:
        raise _cannot(_first_line(error)) from error
    except errors.SqlglotError as error:
        raise _cannot(f"a part of it: {_first_line(error)}") from error
    return Translated(text, tuple(work.partitions))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _cannot(part: str) -> QueryError:
    return QueryError(f"Athena cannot run {part}. Ask it with --engine duckdb, or in another way")


@dataclass(slots=True)
class _Span:
    """A time in microseconds that conditions leave, each end included."""

    low: datetime | None = None
    high: datetime | None = None

    def narrow(self, side: str, moment: datetime) -> None:
        if side in ("low", "both") and (self.low is None or moment > self.low):
            self.low = moment
        if side in ("high", "both") and (self.high is None or moment < self.high):
            self.high = moment


class _Work:
    """One statement being changed in place."""

    def __init__(self, tree: exp.Expr) -> None:
        from sqlglot import exp

        if not isinstance(tree, exp.Query):
            raise QueryError("only questions are run on Athena: a SELECT, perhaps with WITH in front")
        self.tree = tree
        self.partitions: list[str] = []
        self.named = {cte.alias_or_name.lower() for cte in tree.find_all(exp.CTE)}

    def change(self, database: str) -> None:
        """Everything, in an order in which one change does not hide what the next looks for."""
        from sqlglot import exp

        for select in list(self.tree.find_all(exp.Select)):
            tables = self._tables(select)
            self._times(select, tables)
            self._stars(select)
            self._groups(select, tables)
            if "events" in tables.values():
                self._partition(select, tables)
        # From the inside out: what is around a function of ours takes the text of what is in it.
        for function in reversed(list(self.tree.find_all(exp.Func))):
            self._function(function)
        for table in list(self.tree.find_all(exp.Table)):
            self._table(table, database)

    # -- tables --------------------------------------------------------------------------------------------------------

    def _tables(self, select: exp.Select) -> dict[str, str]:
        """Alias -> name, of our tables that a SELECT reads itself."""
        from sqlglot import exp

        sources = [select.args.get("from_") or select.args.get("from"), *(select.args.get("joins") or ())]
        found = [source.this for source in sources if source is not None]
        return {one.alias_or_name: one.name.lower() for one in found if isinstance(one, exp.Table)}

    def _table(self, table: exp.Table, database: str) -> None:
        from sqlglot import exp

        name = table.name.lower()
        if isinstance(table.this, exp.Func):
            raise _cannot(f"the table function {table.this.sql(dialect='duckdb')}")
        if table.args.get("db") is None and name in self.named:
            return
        if table.args.get("db") is not None or (name not in TABLES and name not in VIEWS):
            known = ", ".join((*TABLES, *VIEWS))
            raise QueryError(f"there is no table {table.sql(dialect='duckdb')}: there are {known}")
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(name)))
        table.set("db", exp.to_identifier(database))

    # -- times ---------------------------------------------------------------------------------------------------------

    def _times(self, select: exp.Select, tables: dict[str, str]) -> None:
        """Texts beside a time become times: Trino compares no text with a time."""
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
        """The type of a column of ours; empty where it is none of a table that is read here."""
        names = [tables[column.table]] if column.table in tables else list(tables.values())
        for name in names:
            for known in TABLES[name].columns if name in TABLES else ():
                if known.name == column.name.lower():
                    return known.type
        return "timestamp" if "hourly_summary" in names and column.name.lower() == "hour" else ""

    def _partition(self, select: exp.Select, tables: dict[str, str]) -> None:
        """Conditions on the partitions, from those on the time of ``events`` that hold for every row."""
        from sqlglot import exp

        where = select.args.get("where")
        # Which of several tables a time belongs to is not told apart: Athena reads more then, and answers the same.
        if where is None or len(tables) != 1:
            return
        span = _Span()
        for part in where.this.flatten() if isinstance(where.this, exp.And) else [where.this]:
            _bound(part.unnest(), span)
        condition = partitions(span.low, span.high)
        if condition:
            self.partitions.append(condition)
            where.set("this", exp.and_(where.this, exp.condition(condition, dialect="trino")))

    # -- what sqlglot would pass on ------------------------------------------------------------------------------------

    def _stars(self, select: exp.Select) -> None:
        from sqlglot import exp

        for star in select.find_all(exp.Star):
            for word in ("except_", "except", "replace", "rename"):
                if star.args.get(word):
                    raise _cannot(f"{star.sql(dialect='duckdb')}: name the columns")
        if select.args.get("distinct") and select.args["distinct"].args.get("on"):
            raise _cannot("DISTINCT ON")
        for found in select.find_all(exp.Columns):
            raise _cannot(found.sql(dialect="duckdb"))

    def _groups(self, select: exp.Select, tables: dict[str, str]) -> None:
        """GROUP BY ALL, and GROUP BY the alias of an expression, become positions."""
        from sqlglot import exp

        order = select.args.get("order")
        if order is not None and any(one.this.sql().upper() == "ALL" for one in order.expressions):
            raise _cannot("ORDER BY ALL: name the columns")
        group = select.args.get("group")
        if group is None:
            return
        shown = select.expressions
        if group.args.get("all"):
            if any(isinstance(one, exp.Star) or one.is_star for one in shown):
                raise _cannot("GROUP BY ALL with a *: name the columns")
            plain = [number for number, one in enumerate(shown, 1) if not one.find(exp.AggFunc)]
            group.set("all", None)
            group.set("expressions", [exp.Literal.number(number) for number in plain])
            if not plain:
                select.set("group", None)
            return
        aliases = {one.alias.lower(): number for number, one in enumerate(shown, 1) if isinstance(one, exp.Alias)}
        columns = {c.name for name in tables.values() if name in TABLES for c in TABLES[name].columns}
        for one in group.expressions:
            name = one.name.lower() if isinstance(one, exp.Column) and not one.table else ""
            if name in aliases and name not in columns:
                one.replace(exp.Literal.number(aliases[name]))

    def _function(self, function: exp.Func) -> None:
        from sqlglot import exp

        if isinstance(function, exp.PercentileCont | exp.PercentileDisc | exp.Quantile | exp.Median):
            raise _cannot(f"{function.sql(dialect='duckdb')} exactly: it has approx_percentile only")
        if not isinstance(function, exp.Anonymous):
            return
        name = function.name.lower()
        if name == "distinct_count":
            function.replace(exp.maybe_parse(_distinct(function.expressions[0].sql(dialect="trino")), dialect="trino"))
        elif name == "merge_sketches":
            inner = function.expressions[0]
            merged = f"slice(array_sort(array_distinct(flatten({inner.sql(dialect='trino')}))), 1, {SKETCH_SIZE})"
            function.replace(exp.maybe_parse(merged, dialect="trino"))
        elif name not in _SAME:
            raise _cannot(f"the function {name}")


#: Functions that sqlglot does not know, and that mean the same in DuckDB and in Trino.
_SAME = frozenset({"array_distinct", "array_sort", "cardinality", "flatten", "slice", "truncate"})


def _distinct(merged: str) -> str:
    """``distinct_count`` in Trino: the same estimate from the same sketch."""
    kth = f"(CAST(element_at({merged}, {SKETCH_SIZE}) AS double) + 9223372036854775809e0)"
    estimate = f"CAST(round({SKETCH_SIZE - 1} * 18446744073709551616e0 / {kth}) AS bigint)"
    return f"if({merged} IS NULL, 0, if(cardinality({merged}) < {SKETCH_SIZE}, cardinality({merged}), {estimate}))"


# -- times and partitions --------------------------------------------------------------------------------------------


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise QueryError(f"{text!r} is no time: write 2026-03-02 or 2026-03-02T10:30:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def _timestamp(moment: datetime) -> exp.Expr:
    from sqlglot import exp

    return exp.cast(exp.Literal.string(moment.replace(tzinfo=None).isoformat(" ")), "TIMESTAMP")


def _bound(part: exp.Expr, span: _Span) -> None:
    """Narrows a span by one condition, where it is one on event_time and a fixed time."""
    from sqlglot import exp

    if isinstance(part, exp.Between):
        for word, side in (("low", "low"), ("high", "high")):
            moment = _fixed(part.args[word])
            if _is_time(part.this) and moment is not None:
                span.narrow(side, moment)
        return
    kind = type(part).__name__
    if kind not in _BOUNDS:
        return
    left, right = part.this, part.args.get("expression")
    if _is_time(right):
        left, right, kind = right, left, _MIRRORED[kind]
    moment = _fixed(right)
    if _is_time(left) and moment is not None:
        span.narrow(_BOUNDS[kind], moment)


def _is_time(node: exp.Expr | None) -> bool:
    from sqlglot import exp

    return isinstance(node, exp.Column) and node.name.lower() == "event_time"


def _fixed(node: exp.Expr | None) -> datetime | None:
    """The time of a literal that is cast to one."""
    from sqlglot import exp

    if not isinstance(node, exp.Cast) or not isinstance(node.this, exp.Literal) or not node.this.is_string:
        return None
    try:
        return _moment(node.this.name)
    except QueryError:
        return None


def partitions(low: datetime | None, high: datetime | None) -> str:
    """A condition on year, month and day that every event between two times meets; empty where there is none."""
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
    return months[0] if len(months) == 1 else f"({' OR '.join(f'({one})' for one in months)})"


def _months(first: date, last: date) -> Iterator[str]:
    while first <= last:
        end = date(first.year, first.month, calendar.monthrange(first.year, first.month)[1])
        whole = f"year = '{first:%Y}' AND month = '{first:%m}'"
        until = min(end, last)
        if first == until:
            yield f"{whole} AND day = '{first:%d}'"
        elif first.day > 1 or until < end:
            yield f"{whole} AND day BETWEEN '{first:%d}' AND '{until:%d}'"
        else:
            yield whole
        first = end + timedelta(days=1)
