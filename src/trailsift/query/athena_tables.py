"""The tables that Athena itself fills from CloudTrail's log files, and those that only a registered lake has."""

from __future__ import annotations

from collections.abc import Callable

from trailsift.errors import QueryError
from trailsift.query.relations import base_table
from trailsift.query.trino_sql import Translated

#: What the statements of ``trailsift aws sql`` fill.
FILLED = ("events", "hourly")
#: Columns of ``events`` that they leave NULL.
NOT_FILLED = ("resource_arns", "resources", "rest")

_HOW = (
    "`trailsift connect --glue` registers a lake in S3, which has all of them; the statements of `trailsift aws sql` "
    "fill events and hourly only"
)


def check_filled(statement: Translated, database: str, registered: Callable[[str], bool | None]) -> None:
    """Refuse a statement over what nothing has filled: it would say that nothing matched.

    ``registered``: whether a table is that of a lake; None if that cannot be found out. Raise QueryError.
    """
    tables = {base_table(name) for name in statement.tables}
    for name in sorted(tables - set(FILLED)):
        if registered(name) is False:
            raise QueryError(f"nothing fills the table {name} in the database {database}: {_HOW}")
    columns = sorted(statement.columns.intersection(NOT_FILLED))
    if columns and "events" in tables and registered("events") is False:
        raise QueryError(
            f"nothing fills the column {columns[0]} of events in the database {database}: {_HOW}, and leave "
            f"{', '.join(NOT_FILLED)} empty"
        )


def missing_table(reason: str, database: str) -> str:
    """Return Athena's reason, with what creates a table if one is missing."""
    if "hourly_summary" in reason and "does not exist" in reason:
        return f"{reason}. `trailsift aws sql --only summary` prints the statement that creates this view"
    if "TABLE_NOT_FOUND" in reason or "TABLE_REDIRECTION_ERROR" in reason or "does not exist" in reason:
        return f"{reason}. In the database {database}: {_HOW}; --database names another one"
    return reason
