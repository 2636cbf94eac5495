"""Look after the lake: its state, compaction, retention, damage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trailsift.api.handle import Handle
from trailsift.errors import EngineError, LakeError, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trailsift.analysis.rejects import RejectReport
    from trailsift.analysis.status import Status
    from trailsift.lake.compact import Compacted, CompactionProgress
    from trailsift.lake.expire_days import Expired
    from trailsift.lake.relocate import Relocated
    from trailsift.lake.retention import Retention
    from trailsift.lake.verify import Verification


class MaintainMethods(Handle):
    """Methods that maintain the lake."""

    def status(self, *, gaps: bool = True) -> Status:
        """Return what the lake holds, how far it is behind, and what to do about it.

        That is: time range, tables, commits, whether the counts reconcile, the newest delivery, hours that are missing,
        the last compaction, and what retention removes next.

        Args:
            gaps: Look for hours in which an account and region that normally delivers did not, which takes a query.

        Example:
            >>> status = lake.status()
            >>> status.events.rows, status.reconciled
            (2000, True)
        """
        from dataclasses import replace

        from trailsift.analysis import feed
        from trailsift.analysis.status import status

        state = status(self._root())
        try:
            return replace(state, gaps=feed.gaps(self._engine())) if gaps else state
        except (EngineError, LakeError, QueryError):
            # A summary file is damaged or missing: all else is known, and `verify` names the file.
            return state

    def rejects(self, limit: int = 0, *, reason: str = "") -> RejectReport:
        """Return what could not be stored, where it is, and why.

        Args:
            limit: Records at most, the newest ones; 0 is all.
            reason: Only reasons that contain this text, such as ``conflicting-time``.

        Example:
            >>> lake.rejects().total
            0
        """
        from trailsift.analysis.rejects import rejects

        return rejects(self._engine(), limit, reason)

    def compact(
        self, *, everything: bool = False, progress: Callable[[CompactionProgress], None] | None = None
    ) -> Compacted:
        """Merge small files of closed days into few large ones, and delete files that are no longer needed.

        Answers stay the same. Replaced files are deleted by the next run, ten minutes later at the earliest. A lake of
        format version 1 is upgraded first. If the lake's settings say for how long it keeps events (`set_retention`),
        older ones are removed.

        Args:
            everything: Also compact days that still receive events.
            progress: Called with how far the compaction is.

        Raises:
            LakeError: The lake cannot be written.

        Example:
            >>> compacted = lake.compact(everything=True)
            >>> compacted.files_after <= compacted.files_before
            True
        """
        from trailsift.lake.compact import compact
        from trailsift.lake.upgrade import needs_upgrade

        upgraded = None
        root = self._root("write")
        if needs_upgrade(root):
            from trailsift.ingest.upgrade import upgrade

            upgraded = upgrade(root, progress)
        compacted = compact(root, everything=everything, progress=progress)
        compacted.upgraded = upgraded
        return compacted

    def expire(
        self,
        *,
        events: str | None = None,
        summaries: str | None = None,
        at_least: str | None = None,
        dry_run: bool = False,
    ) -> Expired:
        """Remove events, and their counts, that are older than you want to keep them, in whole days (UTC).

        All of it is one commit. The files are deleted by the next `expire` or `compact` that runs a day later.

        Args:
            events: Keep events for this long: ``90d``, ``26w``, ``2y``. Default: what the lake's settings say.
            summaries: Keep the summary tables for this long. Default: without limit, or as the settings say if
                ``events`` is not given.
            at_least: Never remove what is younger. Default: ``30d``.
            dry_run: Only return what would go.

        Raises:
            UsageError: A period is not valid or below the floor, or nothing says what to keep.
            LakeError: The lake cannot be written.

        Example:
            >>> lake.expire(events="100y", dry_run=True).rows
            0
        """
        from trailsift.lake.expire_days import expire_days
        from trailsift.lake.retention import asked

        given = events is not None or summaries is not None or at_least is not None
        return expire_days(self._root("write"), asked(events, summaries, at_least) if given else None, dry_run=dry_run)

    def retention(self) -> Retention | None:
        """Return what the lake's settings keep, which `compact` applies; None if they say nothing.

        Raises:
            LakeError: The settings are not valid.

        Example:
            >>> lake.retention() is None
            True
        """
        from trailsift.lake.retention import saved
        from trailsift.lake.settings import read_settings

        return saved(read_settings(self._root("write")))

    def set_retention(
        self, events: str | None, summaries: str | None = None, *, at_least: str | None = None
    ) -> Retention | None:
        """Keep retention as a setting of the lake. Nothing is removed now: `compact`, and ingests, do it from now on.

        Args:
            events: Keep events for this long, at least ``30d``; None takes the setting out.
            summaries: Keep the summary tables for this long. None: without limit.
            at_least: Never remove what is younger. Default: ``30d``.

        Raises:
            UsageError: A period is not valid or below the floor.
            LakeError: The lake cannot be written.

        Example:
            >>> lake.set_retention("10y").events
            3650
            >>> lake.set_retention(None) is None
            True
        """
        from trailsift.lake.expire_days import save
        from trailsift.lake.retention import asked

        return save(self._root("write"), None if events is None else asked(events, summaries, at_least))

    def verify(self, *, quick: bool = False) -> Verification:
        """Look for damage: changed or missing files, changed rows of the catalog, and what trailsift does not write.

        Nothing is written. It finds what disks and mistakes do, not a skilled forger; queries do not look for damage.

        Args:
            quick: Compare the sizes of files, and not their content.

        Raises:
            LakeError: There is no lake.

        Example:
            >>> lake.verify().is_sound
            True
        """
        from trailsift.lake.verify import verify

        return verify(self._root(), quick=quick)

    def relocate(self) -> Relocated:
        """Repair the lake after it was moved or copied to its present folder. The original is not touched.

        Example:
            >>> lake.relocate().tables  # it was not moved
            0
        """
        from trailsift.lake.relocate import relocate

        self.close()
        return relocate(self._root("write"))
