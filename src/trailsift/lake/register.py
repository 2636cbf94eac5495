"""Have a Glue database follow a lake in S3, as a setting of the lake; or no longer.

This is the act of a user: only here are tables made in Glue. ``lake.glue`` moves their pointers after each commit.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trailsift.errors import GlueError, LakeError, UsageError
from trailsift.lake import glue, glue_setting
from trailsift.lake.glue import TableState
from trailsift.lake.glue_setting import Target
from trailsift.lake.home import home
from trailsift.lake.saved_settings import change_settings
from trailsift.lake.settings import read_settings
from trailsift.lake.writer import LakeWriter
from trailsift.schema import FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class Registered:
    """The tables of a lake in a Glue database, and what was done with each of them.

    ``before``: the database that followed the lake until now, if it is another one. Its tables stay as they are.
    """

    lake: str
    target: Target
    tables: tuple[TableState, ...]
    before: Target | None = None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        tables = [{"table": state.table, "done": state.what, "commit": state.commit} for state in self.tables]
        return {
            "lake": self.lake,
            "glue": self.target.as_dict(),
            "tables": tables,
            "before": self.before and self.before.as_dict(),
        }


def check_place(place: Path | str) -> None:
    """Raise UsageError for a lake that is not in S3."""
    if isinstance(place, Path):
        raise UsageError(
            f"{place} is a folder, and other engines reach the tables of a Glue database in S3 only: copy the lake "
            "there, run `trailsift relocate --lake s3://bucket/prefix`, and register that one"
        )


def register(root: Path, target: Target, *, replace: bool = False) -> Registered:
    """Make the tables of the lake whose copy is at ``root`` in a Glue database, and have it follow from now on.

    Tables that are there follow again. ``replace``: also those that another engine has changed, or that are of a lake
    that was at this place before. GlueError if there is no such database, if it has tables of the same names that are
    not of this lake, or if Glue refuses; then nothing is saved.
    """
    lake = LakeWriter(root)
    lake.expect_current()
    lake.ready()
    with lake.lock():
        # With the newest commit of all writers, none of whom is ahead.
        target = Target(target.database, target.region, target.catalog_id, home(lake.root))
        problem = glue.problem_of(target, _without_replaced(glue.look(lake.root, target), replace), missing=False)
        if problem:
            raise GlueError(f"{problem}. Nothing was registered")
        states = glue.move(lake.root, target, create=True, replace=replace)
        before, is_new = _save(lake, target)
    if is_new:
        _announce(lake)
    return Registered(home(lake.root), target, tuple(states), before)


def unregister(root: Path) -> Target | None:
    """Have no Glue database follow the lake any longer; return which one did. Its tables stay as they are."""
    lake = LakeWriter(root)
    with lake.lock():
        before, is_new = _save(lake, None)
    if is_new:
        _announce(lake)
    return before


def registration(root: Path) -> Target | None:
    """Return the Glue database that follows a lake; None if none does. LakeError if the setting is not valid."""
    return glue_setting.applied(read_settings(root))


def _without_replaced(states: list[TableState], replace: bool) -> list[TableState]:
    return [state for state in states if not (replace and state.what in ("changed", "remade"))]


def _save(lake: LakeWriter, target: Target | None) -> tuple[Target | None, bool]:
    """Write the setting; return the database of before, if it is another one, and whether the setting is a new one.

    Only under the lock.
    """

    def change(settings: dict[str, object]) -> dict[str, object]:
        settings.pop(glue_setting.SETTING, None)
        if target is not None:
            values = {"database": target.database, "region": target.region, "catalog_id": target.catalog_id}
            written = {name: value for name, value in values.items() if value is not None}
            settings[glue_setting.SETTING] = {**written, "place": target.place}
        return settings

    found, settings = change_settings(lake, change)
    before = None
    with suppress(LakeError):  # what is not valid goes
        before = glue_setting.applied(found)
    if settings == found:
        return None, False
    return None if before == target else before, True


def _announce(lake: LakeWriter) -> None:
    """Make a commit of nothing: writers at work on other machines read the settings again when somebody commits."""
    if lake.format_version == FORMAT_VERSION:
        with lake.begin() as transaction:
            transaction.commit({}, "glue")
