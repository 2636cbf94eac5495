"""Explain a statement: which files and bytes it would read, and what Athena would charge for the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from trailsift.lake.forms import check_links
from trailsift.lake.home import fetch_files
from trailsift.lake.index import File
from trailsift.prices import ATHENA_LEAST, REGION, athena_cost, load_prices
from trailsift.query.json_objects import JsonObject
from trailsift.query.planner import Plan, Scan
from trailsift.query.pruning import Range, may_pass, micros_of, predicate_columns, range_reader
from trailsift.query.views import split_by_shared_days
from trailsift.schema import TABLES, Table

#: The most footers that are opened; of more files, an evenly spread sample of this size is read.
_FOOTERS = 256


@dataclass(frozen=True, slots=True)
class TableRead:
    """One table of an explanation.

    ``files``, ``bytes``: the planned files; ``of_files``, ``of_bytes``: all live ones. ``row_groups`` and
    ``read_bytes``: what remains after skipping row groups by their statistics, and unused columns; summed over the
    places where the statement reads the table. ``filters``: the conditions that reach the files.
    """

    table: str
    files: int
    of_files: int
    bytes: int
    of_bytes: int
    row_groups: int
    of_row_groups: int
    read_bytes: int
    columns: tuple[str, ...]
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation(JsonObject):
    """The files and bytes that a statement would read.

    ``estimated``: the bytes are extrapolated from a sample of the files' footers.
    """

    snapshot_seq: int
    tables: tuple[TableRead, ...]
    estimated: bool

    JSON: ClassVar[dict[str, str]] = {
        "snapshot": "snapshot_seq",
        "tables": "tables",
        "read_bytes": "read_bytes",
        "estimated": "estimated",
        "athena_bytes": "athena_bytes",
        "athena_dollars": "athena_dollars",
    }

    @property
    def read_bytes(self) -> int:
        """Bytes of all column chunks that would be read."""
        return sum(table.read_bytes for table in self.tables)

    @property
    def athena_bytes(self) -> int:
        """Bytes that Athena would charge for on the same files: at least 10 MB."""
        return max(self.read_bytes, ATHENA_LEAST) if self.tables else 0

    @property
    def athena_dollars(self) -> float:
        """Athena's charge in US dollars, at the price of us-east-1."""
        return (athena_cost(load_prices(), self.athena_bytes) or 0.0) if self.tables else 0.0

    def __str__(self) -> str:
        if not self.tables:
            return "no table is read"
        lines = []
        for table in self.tables:
            lines.append(
                f"{table.table}: {table.files:,} of {table.of_files:,} files, "
                f"{size(table.bytes)} of {size(table.of_bytes)}"
            )
            if table.files:
                about = "about " if self.estimated else ""
                lines.append(
                    f"  reads {about}{size(table.read_bytes)} in {table.row_groups:,} of "
                    f"{table.of_row_groups:,} row groups; columns {', '.join(table.columns) or 'none'}"
                )
            lines += [f"  where {text}" for text in table.filters]
        lines.append(
            f"Athena would scan about {size(self.athena_bytes)} and charge ${self.athena_dollars:.5f} "
            f"(${load_prices()['athena_scan'].of(1e12):g} per TB in {REGION}, at least {size(ATHENA_LEAST)} per query)"
        )
        return "\n".join(lines)


class PlannedEngine(Protocol):
    """What an explanation needs of an engine that plans over the files of a lake."""

    def plan(self, sql: str, *, timeout: float | None = None) -> Plan:
        """Return what ``sql`` would read."""

    def footers(self, paths: list[str], columns: list[str], time: str) -> list[tuple[Any, ...]]:
        """Return size and bounds of each row group of the files (see ``DuckDBEngine.footers``)."""


def explain(engine: PlannedEngine, sql: str, *, timeout: float | None = None) -> Explanation:
    """Return what ``sql`` would read of the engine's snapshot. Raise QueryError as ``QueryEngine.query`` does."""
    plan = engine.plan(sql, timeout=timeout)
    estimated = False
    tables = []
    for name in plan.files:
        read, sampled = _read(engine, plan, TABLES[name])
        tables.append(read)
        estimated = estimated or sampled
    return Explanation(plan.snapshot.seq, tuple(tables), estimated)


def size(count: float) -> str:
    """Return a number of bytes for people: ``10 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _read(engine: PlannedEngine, plan: Plan, table: Table) -> tuple[TableRead, bool]:
    files, every = plan.files[table.name], plan.snapshot.files(table.name)
    scans = plan.scans_of(table.name)
    step = max(1, -(-len(files) // _FOOTERS))
    opened = files[::step]
    factor = len(files) / len(opened) if opened else 1.0
    groups = read_groups = read_bytes = 0
    for scan in scans:
        for span, passing in _row_groups(engine, plan, table, scan, opened):
            groups += 1
            if passing:
                read_groups += 1
                read_bytes += span
    used = sorted(frozenset().union(*(scan.columns for scan in scans)))
    everything = len(used) == len(table.columns)
    read = TableRead(
        table.name,
        len(files),
        len(every),
        sum(file.bytes for file in files),
        sum(file.bytes for file in every),
        round(read_groups * factor),
        round(groups * factor),
        round(read_bytes * factor),
        ("all",) if everything else tuple(used),
        tuple(dict.fromkeys(text for scan in scans for text in scan.filters)),
    )
    return read, step > 1


def _row_groups(
    engine: PlannedEngine, plan: Plan, table: Table, scan: Scan, files: Sequence[File]
) -> list[tuple[int, bool]]:
    """Return for each row group: bytes of the columns that ``scan`` uses, and whether its statistics let it pass."""
    if not files:
        return []
    columns = set(scan.columns)
    if table.keys and split_by_shared_days(files)[1]:
        columns |= set(table.keys)
    by_path = {str(plan.snapshot.root / file.path): file for file in files}
    ranges_of = range_reader(table, predicate_columns(scan.predicate))
    groups = []
    fetch_files(plan.snapshot.root, files)
    check_links(plan.snapshot.root, files)
    for path, span, low, high, least, greatest in engine.footers(list(by_path), sorted(columns), table.time):
        ranges: dict[str, Range] = ranges_of(by_path[path])
        times = micros_of(low), micros_of(high)
        if times[0] is not None and times[1] is not None:
            ranges[table.time] = (times[0], times[1])
        if least is not None and greatest is not None:
            ranges["caller"] = (least, greatest)
        groups.append((int(span or 0), may_pass(scan.predicate, ranges)))
    return groups
