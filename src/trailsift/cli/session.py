"""Opening a lake for a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine


def engine_of(lake: Path, timezone: str = "UTC") -> DuckDBEngine:
    """The engine over the newest commit of a lake. LakeError where there is no lake."""
    from trailsift.lake.open import open_snapshot
    from trailsift.query import DuckDBEngine

    return DuckDBEngine(open_snapshot(lake))
