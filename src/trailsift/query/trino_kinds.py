"""The kinds of expressions in a statement over our tables: what a text beside them is, and which zone they need.

sqlglot knows no types of its own. A kind is a column type of ``schema``, ``string`` or ``number`` for a literal, or
empty if it is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trailsift.schema import TABLES

if TYPE_CHECKING:
    from sqlglot import exp

#: Functions whose value is of the kind of their first argument.
_PASSING = (
    *("Min", "Max", "AnyValue", "First", "Last", "FirstValue", "LastValue", "Coalesce", "Greatest", "Least"),
    *("ArgMax", "ArgMin", "Lag", "Lead", "Paren", "Alias", "Filter", "IgnoreNulls", "Window", "Order", "Distinct"),
)
_CASTS = {"DATE": "date", "VARCHAR": "string", "TEXT": "string", "BIGINT": "int64", "DOUBLE": "double"}
_FIXED = {
    **dict.fromkeys(("TimestampTrunc", "CurrentTimestamp", "Localtimestamp"), "timestamp"),
    **dict.fromkeys(("CurrentDate", "Date", "TsOrDsToDate", "DateTrunc"), "date"),
    **dict.fromkeys(("ArrayAgg", "Split", "Array", "SortArray", "ArrayConcat"), "list<string>"),
    **dict.fromkeys(("Lower", "Upper", "Substring", "SplitPart", "Concat", "TimeToStr", "GroupConcat"), "string"),
}


class Kinds:
    """The kinds of a statement's expressions. ``ctes`` are found by name in lower case."""

    def __init__(self, tree: exp.Expr) -> None:
        from sqlglot import exp

        self._ctes: dict[str, exp.Expr] = {cte.alias_or_name.lower(): cte.this for cte in tree.find_all(exp.CTE)}
        self._open: set[int] = set()

    def sources(self, select: exp.Select) -> dict[str, str | exp.Expr]:
        """Return alias -> name of one of our tables or views, or the query that stands there, of the FROM clause."""
        from sqlglot import exp

        found: dict[str, str | exp.Expr] = {}
        for item in (select.args.get("from_") or select.args.get("from"), *(select.args.get("joins") or ())):
            source = item.this if item is not None else None
            if isinstance(source, exp.Table):
                name = source.name.lower()
                found[source.alias_or_name] = self._ctes.get(name, name)
            elif isinstance(source, exp.Subquery):
                found[source.alias_or_name] = source.this
        return found

    def of(self, node: exp.Expr | None) -> str:
        """Return the kind of an expression."""
        from sqlglot import exp

        if node is None or id(node) in self._open:
            return ""
        self._open.add(id(node))
        try:
            if isinstance(node, exp.Literal):
                return "string" if node.is_string else "number"
            if isinstance(node, exp.Column):
                return self._column(node)
            if isinstance(node, exp.Cast):
                kind = node.to.this.name if hasattr(node.to.this, "name") else str(node.to.this)
                return "timestamp" if kind.startswith("TIMESTAMP") else _CASTS.get(kind, "")
            name = type(node).__name__
            if name in _FIXED:
                return "timestamp" if name == "DateTrunc" and self.of(node.this) == "timestamp" else _FIXED[name]
            if name in _PASSING:
                return self.of(node.this)
            if isinstance(node, exp.If | exp.Case):
                branches = [branch.args.get("true") for branch in node.args.get("ifs") or (node,)]
                return self.of(branches[0])
            if isinstance(node, exp.Add | exp.Sub):
                left = self.of(node.this)
                return left if left in ("timestamp", "date") and self.of(node.expression) != left else ""
            if isinstance(node, exp.Bracket):
                inner = self.of(node.this)
                is_slice = any(isinstance(item, exp.Slice) for item in node.expressions)
                return inner if is_slice else "string" if inner == "list<string>" else ""
            if isinstance(node, exp.Anonymous) and node.name.lower() in ("merge_sketches", "array_distinct", "slice"):
                return "list<int64>"
            return ""
        finally:
            self._open.discard(id(node))

    def _column(self, column: exp.Column) -> str:
        from sqlglot import exp

        name = column.name.lower()
        select = column.find_ancestor(exp.Select)
        while isinstance(select, exp.Select):
            sources: Mapping[str, str | exp.Expr] = self.sources(select)
            if column.table:
                sources = {alias: source for alias, source in sources.items() if alias == column.table}
            for source in sources.values():
                kind = self._member(source, name)
                if kind:
                    return kind
            alias = next(
                (item for item in select.expressions if isinstance(item, exp.Alias) and item.alias.lower() == name),
                None,
            )
            if alias is not None and not column.table:
                return self.of(alias.this)
            select = select.find_ancestor(exp.Select)
        return ""

    def _member(self, source: str | exp.Expr, name: str) -> str:
        """Return the kind of a column of a table, or of what a query selects under that name."""
        from sqlglot import exp

        if isinstance(source, str):
            if source == "hourly_summary" and name == "hour":
                return "timestamp"
            table = TABLES.get(source)
            return next((column.type for column in table.columns if column.name == name), "") if table else ""
        query = source
        while isinstance(query, exp.Subquery | exp.SetOperation):
            query = query.this
        if not isinstance(query, exp.Select):
            return ""
        for item in query.expressions:
            if item.alias_or_name.lower() == name:
                return self.of(item)
            if isinstance(item, exp.Star):
                return next(filter(None, (self._member(inner, name) for inner in self.sources(query).values())), "")
        return ""
