"""The saved queries of a lake as a table."""

from __future__ import annotations

from collections.abc import Sequence

from trailsift.analysis.saved_queries import SavedQuery
from trailsift.query.table_text import Column, table, terminal_columns
from trailsift.safe_text import safe
from trailsift.terminal.output import print_lines


def show_saved(queries: Sequence[SavedQuery]) -> None:
    """Print a line per query: its name, when it was saved (UTC), and the beginning of its SQL."""
    columns = [Column("name", False, True), Column("saved (UTC)", False, True), Column("SQL", False, False)]
    rows = [
        [
            f"@{query.name}",
            "-" if query.saved is None else f"{query.saved:%Y-%m-%d %H:%M}",
            safe(" ".join((query.problem or query.sql).split())),
        ]
        for query in queries
    ]
    print_lines(table(columns, rows, terminal_columns()).text.rstrip("\n"))
