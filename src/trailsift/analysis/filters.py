"""What a reader has narrowed a view down to, as conditions on the summary tables that can express it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trailsift.analysis.base import DENIED
from trailsift.errors import UsageError
from trailsift.query.relations import text

#: Name of a filter -> the column that it is about.
COLUMNS: dict[str, str] = {
    "service": "service",
    "event": "event_name",
    "caller": "caller",
    "resource": "resource_arn",
    "account": "account_id",
    "region": "aws_region",
    "error": "error_code",
}
#: Values of the filter ``outcome``, and their conditions.
OUTCOMES: dict[str, str] = {
    "ok": "error_code IS NULL",
    "denied": DENIED,
    "failed": f"error_code IS NOT NULL AND NOT {DENIED}",
}
NAMES = (*COLUMNS, "outcome")
#: The filters that each table can express. What is missing has no column there.
_OF_TABLE: dict[str, frozenset[str]] = {
    "hourly": frozenset(NAMES),
    "usage": frozenset(NAMES) - {"region"},
    "access": frozenset({"caller", "resource", "account"}),
    "profile": frozenset({"caller", "account"}),
}
#: Values of one filter at most, and characters of a value.
MOST_VALUES, LONGEST = 50, 4_096


@dataclass(frozen=True, slots=True)
class Filters:
    """Names of ``NAMES`` with the values that are wanted, any of them; an empty text stands for no value at all."""

    chosen: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def by_name(self) -> dict[str, list[str]]:
        """The values by name."""
        return {name: list(values) for name, values in self.chosen}

    def cannot(self, table: str) -> tuple[str, ...]:
        """Return the names of the filters that a table has no column for."""
        return tuple(name for name, _ in self.chosen if name not in _OF_TABLE[table])

    def where(self, table: str) -> str:
        """Return an SQL condition on a table; ``true`` without filters. The table must be able to express them all."""
        assert not self.cannot(table)
        return " AND ".join(_condition(name, values) for name, values in self.chosen) or "true"


#: Nothing is filtered.
NO_FILTERS = Filters()


def filters_of(values: Mapping[str, Iterable[str]]) -> Filters:
    """Return filters. Raise UsageError for an unknown name, or for too many or too long values."""
    chosen = []
    for name in sorted(values):
        wanted = tuple(dict.fromkeys(values[name]))
        if name not in NAMES:
            raise UsageError(f"cannot filter by {name!r}: choose from {', '.join(NAMES)}")
        if len(wanted) > MOST_VALUES or any(len(value) > LONGEST for value in wanted):
            raise UsageError(f"the filter {name} takes {MOST_VALUES} values of {LONGEST:,} characters at most")
        unknown = [value for value in wanted if name == "outcome" and value not in OUTCOMES]
        if unknown:
            raise UsageError(f"cannot filter by the outcome {unknown[0]!r}: choose from {', '.join(OUTCOMES)}")
        if wanted:
            chosen.append((name, wanted))
    return Filters(tuple(chosen))


def _condition(name: str, values: tuple[str, ...]) -> str:
    if name == "outcome":
        return "(" + " OR ".join(f"({OUTCOMES[value]})" for value in values) + ")"
    column = COLUMNS[name]
    present = [text(value) for value in values if value]
    tests = [f"{column} IN ({', '.join(present)})"] if present else []
    if "" in values:
        tests.append(f"{column} IS NULL")
    return tests[0] if len(tests) == 1 else f"({' OR '.join(tests)})"
