"""Small inputs after public bug reports, as lakes: those of ``tests/cases/public``, gzip files as ``*.gz.txt``."""

from __future__ import annotations

import gzip
from pathlib import Path

import trailsift
from support.paths import TESTS

CASES = TESTS / "cases" / "public"


def lake_of(case: str, folder: Path) -> trailsift.Lake:
    """Return a lake of a case of plain log objects, made in an empty folder."""
    for path in sorted((CASES / case).rglob("*.gz.txt")):
        target = folder / "logs" / path.relative_to(CASES / case).with_suffix("")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(path.read_bytes()))
    lake = trailsift.Lake(folder / "lake")
    assert lake.ingest(folder / "logs").complete
    return lake
