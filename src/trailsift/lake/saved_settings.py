"""Change a setting of a lake, so that of two who change settings at the same time neither undoes the other's."""

from __future__ import annotations

from collections.abc import Callable

from trailsift.lake.create import settings_text
from trailsift.lake.disk import write_errors
from trailsift.lake.home import mirror_of
from trailsift.lake.settings import LAKE_FILE, parse_settings
from trailsift.lake.writer import LakeWriter
from trailsift.storage import update

Settings = dict[str, object]


def change_settings(lake: LakeWriter, change: Callable[[Settings], Settings]) -> tuple[Settings, Settings]:
    """Replace the settings by what ``change`` makes of them; return them as they were, and as they are now.

    ``change`` returns new settings, and is called again if somebody else changes them at the same time: in S3 no lock
    keeps writers on other machines out, so ``lake.json`` is changed by compare-and-swap, as the catalog is. Only under
    the lock. LakeError if the lake cannot be written.
    """
    seen: list[tuple[Settings, Settings]] = []

    def changed(data: bytes | None) -> bytes | None:
        before = parse_settings(lake.root, data or b"")
        after = change(dict(before))
        seen.append((before, after))
        return None if before == after else settings_text(after)

    with write_errors(lake.root):
        update(lake.storage, LAKE_FILE, changed)
        before, after = seen[-1]
        mirror = mirror_of(lake.root)
        if mirror is not None and before != after:
            mirror.announce()
    return before, after
