"""What a statement would read of tables that lie elsewhere, from what is known of their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trailsift.lake.index import File, SizedFile
from trailsift.query.planner import Planner, Scan
from trailsift.query.pruning import columns, may_pass, range_reader
from trailsift.query.sandbox import check
from trailsift.schema import TABLES


@dataclass(frozen=True, slots=True)
class ScanEstimate:
    """Bytes of the columns that a statement needs, in the files that its conditions leave."""

    bytes: int
    files: int
    of_files: int


def estimate_scan(sql: str, files_of: Callable[[str], Sequence[SizedFile]], timezone: str = "UTC") -> ScanEstimate:
    """Plans the statement as for a lake. QueryError as for ``Engine.query``; what ``files_of`` raises goes on.

    An upper bound but for the files' footers: row groups that an engine skips inside of a file are counted.
    """
    planner = Planner(timezone)
    try:
        with planner.cursor() as cursor:
            statement = check(sql, cursor)
        scans = planner.scans(statement, None)
    finally:
        planner.close()
    known = {name: files_of(name) for name in dict.fromkeys(scan.table for scan in scans)}
    read: set[tuple[str, str]] = set()
    total = 0
    for scan in scans:
        for file, size in _needed(scan, known[scan.table]):
            read.add((scan.table, file.path))
            total += size
    return ScanEstimate(total, len(read), sum(map(len, known.values())))


def _needed(scan: Scan, files: Sequence[SizedFile]) -> list[tuple[File, int]]:
    wanted = {*scan.columns, ""}
    ranges_of = range_reader(TABLES[scan.table], columns(scan.predicate))
    return [
        (file, sum(size for name, size in sizes.items() if name in wanted))
        for file, sizes in files
        if scan.predicate is None or may_pass(scan.predicate, ranges_of(file))
    ]
