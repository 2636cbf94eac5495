"""Maintenance of a lake beside a writer that commits all the time.

A rewrite of a day takes seconds or minutes, and a writer that waited for it would stall. So a process of its own
prepares the new files in a private folder, without the lake's lock; the writer moves them into the lake and commits
them between two of its own commits, if the files that they replace are still there. What that process deletes (files
that were replaced long ago) needs no lock at all; what the lake's retention does not keep goes in a commit of its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trailsift.errors import LakeError
from trailsift.lake import compact, expire, expire_days, expire_seen, index
from trailsift.lake.expire_seen import SeenFile, SeenPlan
from trailsift.lake.home import home, mirror_of, others_first
from trailsift.lake.index import File
from trailsift.lake.log_objects import ObjectFile
from trailsift.lake.maintenance import needs_rewrite
from trailsift.lake.open import open_snapshot
from trailsift.lake.partitions import Partition
from trailsift.lake.scratch import scratch_folder
from trailsift.lake.tiers import needs_merge
from trailsift.lake.transaction import Transaction
from trailsift.lake.writer import LakeWriter
from trailsift.storage import LocalStorage
from trailsift.storage.local import make_folders

#: Commits between two looks at what to merge, and between two at what to delete; and seconds at most between both.
LOOK_EVERY, CLEAN_EVERY, CLEAN_SECONDS = 16, 64, 120.0
#: Looks after which the process is replaced, so that what its libraries keep of the memory is given back.
LOOKS = 250
#: How much less urgent the process is than the writer.
_NICE = 10


@dataclass(frozen=True, slots=True)
class Rewritten:
    """New files for partitions, below a private folder: (partition, its files, lines that were folded)."""

    folder: str
    parts: list[tuple[Partition, list[File], int]]
    #: Of closed days ``compact``, else ``merge``: the files of a merge are compacted again when the day is over.
    kind: str


@dataclass(frozen=True, slots=True)
class MergedIds:
    """New files of event ids, below a private folder, and what they were planned from."""

    folder: str
    plan: SeenPlan
    files: list[SeenFile]
    objects: list[ObjectFile]


@dataclass(slots=True)
class BesideCounts:
    """What was done so far."""

    rewrites: int = 0
    files_replaced: int = 0
    files_deleted: int = 0
    bytes_deleted: int = 0
    #: What the lake's retention removed, of all tables.
    rows_expired: int = 0
    files_expired: int = 0
    last: datetime | None = None
    #: Seconds of the longest step of the writer's own.
    longest: float = 0.0
    folded: Counter[str] = field(default_factory=Counter)


class Beside:
    """The writer's end: call ``note_commits`` after commits and ``step`` between them."""

    def __init__(self, lake: LakeWriter, trouble: Callable[[str], None] = lambda text: None) -> None:
        """``trouble`` is called with what went wrong in the other process, which is then started again."""
        self.counts = BesideCounts()
        self._lake = lake
        self._trouble = trouble
        self._process: Any = None
        self._connection: Connection | None = None
        self._looks = 0
        self._is_busy = False
        self._since_look = self._since_clean = 0
        self._cleaned_at = time.monotonic()

    def note_commits(self, number: int) -> None:
        """Count commits."""
        self._since_look += number
        self._since_clean += number

    def step(self) -> None:
        """Commit one thing that is prepared, if there is any, and ask for more. It takes about as long as one commit.

        Raise LakeError if the lake cannot be written.
        """
        began = time.monotonic()
        prepared = self._received() if self._is_busy else None
        if isinstance(prepared, Rewritten | MergedIds):
            try:
                self._commit(prepared)
            finally:
                self._send("next")
            self.counts.last = datetime.now(UTC)
            self.counts.longest = max(self.counts.longest, time.monotonic() - began)
        elif isinstance(prepared, Counter):
            self._is_busy = False
            self.counts.files_deleted += prepared["files_deleted"]
            self.counts.bytes_deleted += prepared["bytes_deleted"]
            self.counts.rows_expired += prepared["rows_expired"]
            self.counts.files_expired += prepared["files_expired"]
        elif isinstance(prepared, str):
            self._is_busy = False
            self._trouble(prepared)
        elif not self._is_busy and self._since_look >= LOOK_EVERY:
            self._look()

    def _look(self) -> None:
        """Have the other process look for what to do."""
        if self._looks >= LOOKS:
            self.close()
        if self._process is None:
            self._start()
        self._looks += 1
        self._since_look = 0
        clean = self._since_clean >= CLEAN_EVERY or time.monotonic() - self._cleaned_at > CLEAN_SECONDS
        if clean:
            self._since_clean, self._cleaned_at = 0, time.monotonic()
            expire.expire_snapshots(self._lake, datetime.now(UTC))
        self._is_busy = self._send("clean" if clean else "look")

    def _start(self) -> None:
        # Not forked: the writer has threads.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, self._lake.root, home(self._lake.root))
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._connection = ours
        self._looks = 0

    def _send(self, word: str) -> bool:
        try:
            assert self._connection is not None
            self._connection.send(word)
        except OSError:
            self._died()
            return False
        return True

    def _received(self) -> Any:
        """Return what the other process has to say; None if it is still at work."""
        assert self._connection is not None
        try:
            return self._connection.recv() if self._connection.poll() else None
        except (EOFError, OSError):
            self._died()
            return "compaction beside the watch ended early, most likely for lack of memory; it is tried again later"

    def _died(self) -> None:
        self._is_busy = False
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._connection = None

    def close(self) -> None:
        """End the other process, whatever it does: nothing of that is in the lake."""
        self._died()

    # -- commits ---------------------------------------------------------------------------------------------------

    def _commit(self, prepared: Rewritten | MergedIds) -> None:
        with others_first(self._lake.root), self._lake.begin() as transaction:
            if isinstance(prepared, Rewritten):
                self._commit_files(transaction, prepared)
            else:
                self._commit_ids(transaction, prepared)

    def _commit_files(self, transaction: Transaction, prepared: Rewritten) -> None:
        root = self._lake.root
        old: list[File] = []
        new: list[File] = []
        for partition, files, folded in prepared.parts:
            if not compact.is_live(root, partition) or not _move(root, prepared.folder, [file.path for file in files]):
                continue
            transaction.replace(partition.files, files)
            old += partition.files
            new += files
            self.counts.folded[partition.table] += folded
        if not new:
            return
        folded_lines = {partition.table: number for partition, _, number in prepared.parts if number}
        counts = {"files_added": len(new), "files_removed": len(old), "folded": folded_lines}
        transaction.commit(counts, prepared.kind)
        self.counts.rewrites += 1
        self.counts.files_replaced += len(old)

    def _commit_ids(self, transaction: Transaction, prepared: MergedIds) -> None:
        paths = [file.path for group in prepared.plan.groups for file in group]
        with closing(index.connect(self._lake.root)) as db:
            sql = "SELECT 1 FROM seen_file WHERE path = ? AND removed IS NULL"
            live = all(db.execute(sql, (path,)).fetchone() for path in paths)
            sql = "SELECT 1 FROM object_file WHERE path = ? AND removed IS NULL"
            live &= all(db.execute(sql, (path,)).fetchone() for path in prepared.plan.objects.removed)
        new = [file.path for file in prepared.files] + [file.path for file in prepared.objects]
        if live and _move(self._lake.root, prepared.folder, new):
            expire_seen.commit_seen(transaction, prepared.plan, prepared.files, prepared.objects)
            self.counts.rewrites += 1
            self.counts.files_replaced += len(paths)


def _move(root: Path, folder: str, paths: Sequence[str]) -> bool:
    """Move new files to their places in the lake; return False if one is not there any more."""
    places = [(Path(folder) / path, root / path) for path in paths]
    if not all(source.exists() for source, _ in places):
        return False
    for source, target in places:
        make_folders(target.parent)
        source.rename(target)
    return True


# -- the other process -------------------------------------------------------------------------------------------------


def serve(connection: Connection, root: Path, place: str) -> None:
    """Look for what to do whenever that is asked for, until the connection ends.

    ``place``: where the lake is at home.
    """
    # Ctrl-C is for the writer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    if place != str(root):
        from trailsift.lake.mirrored_storage import open_mirror

        open_mirror(place, "write")
    lake = None
    try:
        while True:
            word = connection.recv()
            try:
                lake = lake or LakeWriter(root)
                answer: Any = _work(lake, connection, clean=word == "clean")
            except (LakeError, FileNotFoundError) as error:
                # Another writer may have compacted, and deleted, what was to be read.
                answer = Counter() if isinstance(error, FileNotFoundError) else _said(error)
            except Exception as error:  # sent to the writer, which says it
                answer = _said(error)
            connection.send(answer)
            from trailsift.runtime import give_back

            give_back()
    except (EOFError, OSError):
        # The writer is gone.
        os._exit(0)


def _said(error: Exception) -> str:
    text = str(error) if isinstance(error, LakeError) else f"{type(error).__name__}: {error}"
    return f"everything was stored, but the lake could not be compacted: {text}"


def _work(lake: LakeWriter, connection: Connection, *, clean: bool) -> Counter[str]:
    """Prepare what there is to do, and send each part; return what was deleted, and what retention removed.

    Retention needs no rewrite: its commit, under the lock, takes as long as any other.
    """
    now = datetime.now(UTC)
    for prepared, folder in _prepared(lake, now):
        connection.send(prepared)
        # The folder is needed until the writer has taken what is in it.
        connection.recv()
        shutil.rmtree(folder, ignore_errors=True)
    if not clean:
        return Counter()
    gone = None
    with others_first(lake.root):
        gone = expire_days.apply_settings(lake, now)
    counts = expire.delete_replaced(lake, now)
    if gone is not None:
        counts += Counter(rows_expired=sum(file.rows for file in gone.files), files_expired=len(gone.files))
    # In S3, whoever changes the catalog has to have its newest state.
    with lake.lock() if mirror_of(lake.root) is not None else contextlib.nullcontext():
        compact.add_digests(lake)
    return counts


def _prepared(lake: LakeWriter, now: datetime) -> Iterator[tuple[Rewritten | MergedIds, Path]]:
    """Yield new files, a private folder at a time."""
    plan = expire_seen.plan_seen(lake, now)
    if plan:
        with scratch_folder(lake.root) as folder:
            storage = LocalStorage(folder)
            files = [expire_seen.merge_ids(lake, group, storage) for group in plan.groups]
            objects = expire_seen.merge_objects(lake, plan, storage)
            yield MergedIds(str(folder), plan, files, objects), folder
    merges = needs_merge(open_snapshot(lake.root), now)
    if merges:
        with scratch_folder(lake.root) as folder:
            yield Rewritten(str(folder), [_rewritten(lake, part, folder, now) for part in merges], "merge"), folder
    for group in compact.groups_beside(lake.root, needs_rewrite(lake.root, now=now)):
        with scratch_folder(lake.root) as folder:
            yield Rewritten(str(folder), [_rewritten(lake, part, folder, now) for part in group], "compact"), folder


def _rewritten(
    lake: LakeWriter, partition: Partition, folder: Path, now: datetime
) -> tuple[Partition, list[File], int]:
    from trailsift.lake import digest

    digest.check(lake.root, [file.path for file in partition.files])
    budgets = lake.settings.get("budgets")
    files, folded = compact.rewrite(
        lake.root, partition, budgets=budgets, now=now, target_bytes=compact.TARGET_BYTES, into=folder
    )
    return partition, files, folded
