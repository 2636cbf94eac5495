"""Estimate what a statement would read of tables stored elsewhere, from the list of their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trailsift.lake.index import File, SizedFile
from trailsift.query.deadline import Deadline
from trailsift.query.limits import MEMORY_SHARE, Limits, memory
from trailsift.query.planner import Planner, Scan
from trailsift.query.pruning import may_pass, predicate_columns, range_reader
from trailsift.schema import TABLES


@dataclass(frozen=True, slots=True)
class ScanEstimate:
    """Bytes of the columns that a statement uses, in the files that its conditions leave."""

    bytes: int
    files: int
    of_files: int


def estimate_scan(sql: str, files_of: Callable[[str], Sequence[SizedFile]], timezone: str = "UTC") -> ScanEstimate:
    """Plan the statement as for a local lake. Raise QueryError as ``QueryEngine.query`` does.

    The result is an upper bound, except for the files' footers: row groups that an engine skips inside a file count.
    """
    planner = Planner(timezone, Limits(int(memory() * MEMORY_SHARE), 0, 1))
    try:
        deadline = Deadline()
        scans = planner.scans(planner.check(sql, deadline), None, deadline)
    finally:
        planner.close()
    tables = {name: files_of(name) for name in dict.fromkeys(scan.table for scan in scans)}
    read: set[tuple[str, str]] = set()
    total = 0
    for scan in scans:
        for file, size in _needed(scan, tables[scan.table]):
            read.add((scan.table, file.path))
            total += size
    return ScanEstimate(total, len(read), sum(map(len, tables.values())))


def _needed(scan: Scan, files: Sequence[SizedFile]) -> list[tuple[File, int]]:
    needed = {*scan.columns, ""}
    ranges_of = range_reader(TABLES[scan.table], predicate_columns(scan.predicate))
    return [
        (file, sum(size for name, size in sizes.items() if name in needed))
        for file, sizes in files
        if scan.predicate is None or may_pass(scan.predicate, ranges_of(file))
    ]
