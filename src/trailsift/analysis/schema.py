"""What SQL can name: tables, views and functions, each with its meaning."""

from __future__ import annotations

from trailsift.query.relations import MACROS, VIEWS
from trailsift.schema import TABLES, Table


def relations() -> list[Table]:
    """The tables, then the views over them (which have no partitions of their own)."""
    views = [Table(name, view[0], view[3], (), "", ()) for name, view in VIEWS.items()]
    return [*TABLES.values(), *views]


def functions() -> dict[str, str]:
    """SQL functions that come with the lake, and what they return."""
    return {name: meaning for name, (meaning, _) in MACROS.items()}
