"""Shared by the commands: the handle of a lake, and lines on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trailsift.cli.options import LakePlace
from trailsift.errors import UsageError
from trailsift.terminal.output import say

if TYPE_CHECKING:
    from pathlib import Path

    from trailsift.analysis.time_range import Period
    from trailsift.api import Lake

WHICH_LAKE = "which lake? Name its folder with --lake, or set TRAILSIFT_LAKE"


def open_lake(
    path: LakePlace | None, timezone: str = "UTC", *, memory_limit: str | None = None, spill_limit: str | None = None
) -> Lake:
    """Return the handle of a lake. UsageError if none is named."""
    from trailsift.api import Lake

    if path is None:
        raise UsageError(WHICH_LAKE)
    return Lake(path, timezone=timezone, memory_limit=memory_limit, spill_limit=spill_limit)


def output_file(path: Path, force: bool) -> Path:
    """Return the path of an output file. UsageError if it is inside a lake, or exists and ``force`` is not set."""
    from trailsift.storage.output_file import is_taken, refuse_lake

    refuse_lake(path)
    if not force and is_taken(path):
        raise UsageError(f"{path} exists: name another file, or replace it with --force")
    return path


def say_why_empty(lake: Lake, period: Period) -> None:
    """Say on standard error why a report has no lines; that is not a failure."""
    say(lake.why_empty(since=period.since, until=period.until))
