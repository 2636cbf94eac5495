"""Upgrade a lake of format version 1: the way from stored events through their records to the columns of today."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trailsift.ingest.derive import Derivation
from trailsift.lake.compact import CompactionProgress
from trailsift.lake.upgrade import Upgraded
from trailsift.lake.upgrade import upgrade as upgrade_lake
from trailsift.lake.writer import LakeWriter


def upgrade(root: Path, progress: Callable[[CompactionProgress], None] | None = None) -> Upgraded | None:
    """Upgrade the lake at ``root``; return None if it has the format version of today.

    LakeError if there is no lake, or if it cannot be read or written; then it is as it was.
    """
    lake = LakeWriter(root)

    def report(files: int, files_done: int, size: int, size_done: int) -> None:
        if progress is not None:
            progress(CompactionProgress(files, files_done, size, size_done, "files to upgrade"))

    return upgrade_lake(lake, Derivation, report)
