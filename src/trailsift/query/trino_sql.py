"""Translate our SQL for Athena: DuckDB's dialect to Trino's, and times to partitions.

sqlglot does most of it. Constructs that it would pass on although Athena rejects them are changed here, or rejected
by name.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from trailsift.errors import QueryError, UsageError
from trailsift.query.relations import VIEWS
from trailsift.query.trino_functions import FUNCTIONS
from trailsift.query.trino_rewrite import Rewriter, cannot, date_literal, timestamp
from trailsift.schema import TABLES

if TYPE_CHECKING:
    from sqlglot import exp

#: Up to this many months are named one by one; longer periods are given to Athena by year.
MONTHS = 24
_BOUNDS = {"GT": "low", "GTE": "low", "LT": "high", "LTE": "high", "EQ": "both"}
_MIRRORED = {"GT": "LT", "GTE": "LTE", "LT": "GT", "LTE": "GTE", "EQ": "EQ"}


class Translated(NamedTuple):
    """A statement for Athena; ``partitions`` are the conditions that were added on its partition columns.

    ``tables``: those of our tables and views that it reads; ``columns``: all names of columns in it.
    """

    sql: str
    partitions: tuple[str, ...]
    tables: frozenset[str] = frozenset()
    columns: frozenset[str] = frozenset()


def translate(sql: str, database: str, timezone: str = "UTC", now: datetime | None = None) -> Translated:
    """Translate one read-only statement over our tables. Raise QueryError naming the part that cannot be translated.

    ``timezone``: the zone of times without an offset and of calendar functions; ``now``: what ``now()`` stands for.
    """
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
    translation = _Translation(parsed[0], timezone, now or datetime.now(UTC))
    translation.run(database)
    try:
        text = parsed[0].sql(dialect="athena", unsupported_level=errors.ErrorLevel.RAISE)
        _check_functions(sqlglot.parse_one(text, dialect="trino"))
    except errors.UnsupportedError as error:
        raise cannot(_first_line(error)) from error
    except errors.SqlglotError as error:
        raise cannot(f"a part of it: {_first_line(error)}") from error
    return Translated(text, tuple(translation.partitions), frozenset(translation.used), frozenset(translation.named))


def _check_functions(tree: exp.Expr) -> None:
    """Raise QueryError for a function that Athena does not have."""
    from sqlglot import exp

    for function in tree.find_all(exp.Func):
        match = re.match(r"([A-Za-z_]\w*)\(", function.sql(dialect="athena"))
        if match and match[1].lower() not in FUNCTIONS:
            raise cannot(f"the function {match[1].lower()}")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


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

    def __init__(self, tree: exp.Expr, timezone: str, now: datetime) -> None:
        from sqlglot import exp

        if not isinstance(tree, exp.Query):
            raise QueryError("Athena runs only queries here: a SELECT, optionally with WITH")
        self.tree = tree
        self.partitions: list[str] = []
        self.used: set[str] = set()
        self.named = {column.name.lower() for column in tree.find_all(exp.Column)}
        self.timezone = timezone
        self.zone = ZoneInfo(timezone)
        self.rewriter = Rewriter(tree, timezone, now)
        self.cte_names = {cte.alias_or_name.lower() for cte in tree.find_all(exp.CTE)}

    def run(self, database: str) -> None:
        """Make all changes, in an order in which no change hides what a later one looks for."""
        from sqlglot import exp

        self.rewriter.clock(self.tree)
        for select in list(self.tree.find_all(exp.Select)):
            self._qualify(select)
        for select in list(self.tree.find_all(exp.Select)):
            tables = self._tables(select)
            self._stars(select)
            self._groups(select, tables)
            self._having(select, tables)
            self._order(select)
        # From the inside out: the text of an outer expression includes that of the inner ones.
        for node in reversed(list(self.tree.walk(bfs=True))):
            self.rewriter.prepare(node)
        for node in reversed(list(self.tree.walk(bfs=True))):
            if isinstance(node, exp.Literal):
                self._time(node)
            elif isinstance(node, exp.Cast):
                self._literal_time(node)
        for node in reversed(list(self.tree.walk(bfs=True))):
            if node is not self.tree:
                self.rewriter.compared(node)
                self.rewriter.zoned(node)
                self.rewriter.rewrite(node)
        for select in list(self.tree.find_all(exp.Select)):
            tables = self._tables(select)
            if "events" in tables.values():
                self._partition(select, tables)
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
            raise cannot(f"the table function {table.this.sql(dialect='duckdb')}")
        if table.args.get("db") is None and name in self.cte_names:
            return
        if table.args.get("db") is not None or (name not in TABLES and name not in VIEWS):
            names = ", ".join((*TABLES, *VIEWS))
            raise QueryError(f"there is no table {table.sql(dialect='duckdb')} (tables: {names})")
        self.used.add(name)
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(name)))
        table.set("db", exp.to_identifier(database))

    # -- times ---------------------------------------------------------------------------------------------------------

    def _time(self, literal: exp.Literal) -> None:
        """Turn a text that is compared with a time into a time: Trino does not compare the two."""
        from sqlglot import exp

        parent = literal.parent
        if not literal.is_string or not isinstance(parent, exp.Predicate | exp.Between | exp.In):
            return
        other = parent.this if parent.this is not literal else parent.args.get("expression")
        kind = self.rewriter.kinds.of(other) if other is not None else ""
        if kind == "timestamp":
            literal.replace(timestamp(self._moment(literal.name)))
        elif kind == "date":
            literal.replace(date_literal(_moment(literal.name, UTC)))

    def _literal_time(self, cast: exp.Cast) -> None:
        """Move a literal time into UTC; a literal day, if it is compared with a time."""
        from sqlglot import exp

        if not isinstance(cast.this, exp.Literal) or not cast.this.is_string or self.timezone == "UTC":
            return
        kind = self.rewriter.kinds.of(cast)
        if kind == "timestamp" and not cast.meta.get("utc"):
            moved = timestamp(self._moment(cast.this.name))
            cast.replace(moved)
        elif kind == "date" and isinstance(cast.parent, exp.Predicate | exp.Between | exp.In):
            parent = cast.parent
            other = parent.this if parent.this is not cast else parent.args.get("expression")
            if other is not None and self.rewriter.kinds.of(other) == "timestamp":
                cast.replace(timestamp(self._moment(cast.this.name)))

    def _moment(self, text: str) -> datetime:
        return _moment(text, self.zone)

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
                    raise cannot(f"{star.sql(dialect='duckdb')}: name the columns")
        if select.args.get("distinct") and select.args["distinct"].args.get("on"):
            raise cannot("DISTINCT ON")
        for columns in select.find_all(exp.Columns):
            raise cannot(columns.sql(dialect="duckdb"))

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
                raise cannot("QUALIFY with an ORDER BY of something that is not selected")
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
            raise cannot("ORDER BY ALL: name the columns")
        group = select.args.get("group")
        if group is None:
            return
        shown = select.expressions
        if group.args.get("all"):
            if any(isinstance(item, exp.Star) or item.is_star for item in shown):
                raise cannot("GROUP BY ALL with a *: name the columns")
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

    def _order(self, select: exp.Select) -> None:
        """Name what is selected by its position in ORDER BY: Trino takes ``a.b`` there for a part of an ``a``."""
        from sqlglot import exp

        order = select.args.get("order")
        names = {item.alias_or_name.lower() for item in select.expressions}
        shown = [item.unalias().sql() for item in select.expressions]
        if any(item.is_star for item in select.expressions):
            return
        for key in order.expressions if order is not None else ():
            column = key.this if isinstance(key, exp.Ordered) else key
            if isinstance(column, exp.Column) and column.table.lower() in names and column.sql() in shown:
                column.replace(exp.Literal.number(shown.index(column.sql()) + 1))

    def _having(self, select: exp.Select, tables: dict[str, str]) -> None:
        """Put expressions in place of their aliases in HAVING, where Trino does not know them."""
        from sqlglot import exp

        having = select.args.get("having")
        if having is None:
            return
        aliases = {item.alias.lower(): item.this for item in select.expressions if isinstance(item, exp.Alias)}
        columns = _columns(tables)
        for column in list(having.find_all(exp.Column)):
            # Within an aggregate function, a name is never that of another one.
            inner = column.find_ancestor(exp.Select) is not select or column.find_ancestor(exp.AggFunc) is not None
            name = "" if column.table or inner else column.name.lower()
            if name in aliases and name not in columns:
                column.replace(exp.paren(aliases[name].copy()))


def _columns(tables: dict[str, str]) -> set[str]:
    """Return the columns of those of our tables that ``tables`` (alias -> name) has."""
    return {column.name for name in tables.values() if name in TABLES for column in TABLES[name].columns}


# -- times and partitions --------------------------------------------------------------------------------------------


def _moment(text: str, zone: tzinfo) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise QueryError(f"{text!r} is not a valid time: write 2026-03-02 or 2026-03-02T10:30:00") from None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        raise QueryError(f"{text!r} is not a time that CloudTrail can have written") from None


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

    if isinstance(node, exp.Paren):
        return _constant_time(node.this)
    if isinstance(node, exp.Add | exp.Sub) and isinstance(node.expression, exp.Interval):
        begin, span = _constant_time(node.this), _seconds(node.expression)
        if begin is None or span is None:
            return None
        try:
            return begin + span if isinstance(node, exp.Add) else begin - span
        except OverflowError:
            return None
    if not isinstance(node, exp.Cast) or not isinstance(node.this, exp.Literal) or not node.this.is_string:
        return None
    try:
        return _moment(node.this.name, UTC)
    except QueryError:
        return None


def _seconds(interval: exp.Interval) -> timedelta | None:
    """Return the length of an interval of a fixed length; None for months and years."""
    unit = str(interval.args.get("unit") or "").upper().rstrip("S")
    seconds = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400, "WEEK": 604800}.get(unit)
    try:
        return (
            None if seconds is None or interval.this is None else timedelta(seconds=seconds * float(interval.this.name))
        )
    except (ValueError, OverflowError):
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
