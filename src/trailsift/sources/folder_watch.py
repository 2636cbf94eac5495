"""Files as they arrive in a folder: what was there before, what is written or moved into it, and what comes later.

The system's notes (inotify and the like, by watchfiles) are the fast way. They get lost: in a new subfolder before it
is watched, when too many come at once, on network file systems. So the folder is also searched again now and then.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from trailsift.decode.names import safe_name
from trailsift.errors import SourceError, UsageError
from trailsift.sources.arrivals import Arrival, Key, Settled, Trouble, now
from trailsift.sources.base import LogObject, NotFetchedError
from trailsift.sources.files import FileSource
from trailsift.storage.local import is_being_written

_NO_EXTRA = (
    "to watch a folder takes watchfiles: install trailsift with the extra `watch` (pip install 'trailsift[watch]')"
)
#: Seconds for which a file must not have changed: where the system says that nobody writes it, and where it does not.
CLOSED_FOR, UNCHANGED_FOR = 0.05, 1.0
#: Files that were changed longer ago than this many seconds are not looked at twice.
_OLD = 60.0
#: Seconds between two searches, at least, and as a multiple of what the last one took.
SEARCH_EVERY, SEARCH_SHARE = 60.0, 50.0
#: The same where the system sends no notes.
_UNNOTED_EVERY, _UNNOTED_SHARE = 2.0, 20.0
#: Seconds between two looks at the folder itself.
_LOOK_EVERY = 2.0
#: Files that a search looks at between two looks at the notes, and files that may wait to be complete meanwhile.
_AT_ONCE = 2000
#: A search also takes what changed this many seconds before the last one: clocks of file servers differ.
_MARGIN = 30.0
#: Names of files that are still being written: of browsers, editors, rsync, SFTP and AWS's own tools.
_PARTIAL = re.compile(
    r"\..*|.*~|#.*#|.*\.(?:part|partial|tmp|temp|crdownload|filepart|download|swp|swx|lock)"
    r"|.*\.(?:gz|json|zip|zst|log)\.[0-9a-zA-Z]{6,8}",
    re.IGNORECASE | re.DOTALL,
)


def is_partial(name: str) -> bool:
    """Return whether a file's name is one of a hidden file, or of one that is being written."""
    return _PARTIAL.fullmatch(name) is not None


class FolderArrivals:
    """Files in a folder and in those below it."""

    def __init__(self, folder: str, exclude: Path, trouble: Trouble) -> None:
        """``exclude``: a folder (the lake) that is passed over. Raise SourceError if there is no such folder."""
        self._folder = Path(folder).expanduser().absolute()
        self._source = FileSource([str(self._folder)], exclude)
        self._excluded = str(exclude.resolve()) + os.sep
        self._trouble = trouble
        self._notes: _Notes | None = None
        #: Files that may still be written: path -> (size and time of change, since when it is so).
        self._pending: dict[str, tuple[tuple[int, int], float]] = {}
        self._searched_at = self._looked_at = 0.0
        self._search_seconds = 0.0
        #: A search at work, and when it began (by this machine's clock).
        self._searching: Iterator[LogObject] | None = None
        self._began_at = 0.0
        #: The time (of the files' clocks) from which a search takes what changed; None: everything.
        self._changed_since: float | None = None
        self._identity: tuple[int, int] | None = None
        self._searched_once = False
        self._is_usable = True
        if not self._folder.is_dir():
            what = "is a file: ingest it" if self._folder.exists() else "does not exist"
            raise SourceError(f"the folder {safe_name(str(self._folder))} {what}")

    def __str__(self) -> str:
        return safe_name(str(self._folder))

    def start(self) -> str:
        """Begin to look. Raise UsageError without watchfiles."""
        try:
            import watchfiles  # noqa: F401
        except ImportError:
            raise UsageError(_NO_EXTRA) from None
        self._identity = self._identify()
        # First the notes, then the search: nothing comes between them.
        self._notes = _Notes(str(self._folder))
        return f"watching the folder {self} and those below it"

    @property
    def caught_up(self) -> bool:
        """True after the first search, when no file is waited for."""
        return self._searched_once and not self._pending

    @property
    def waiting(self) -> int:
        """Number of files that may still be written."""
        return len(self._pending)

    def take(self, seconds: float) -> Sequence[Arrival]:
        """Return the files that are complete; if there is none, wait."""
        end = time.monotonic() + seconds
        while True:
            arrivals = self._look()
            left = end - time.monotonic()
            if arrivals or left <= 0 or self._notes is None:
                return arrivals
            if self._searching is not None:
                continue
            # A pending file settles without another note.
            self._notes.wait(min(left, CLOSED_FOR if self._pending else 0.5))

    def _look(self) -> list[Arrival]:
        moment = time.monotonic()
        assert self._notes is not None
        if moment - self._looked_at >= _LOOK_EVERY:
            self._looked_at = moment
            self._is_usable = self._is_there()
        if not self._is_usable:
            return []
        due = self._searching is not None or moment >= self._next_search()
        if due and len(self._pending) < _AT_ONCE:
            self._search()
        for path in self._notes.take():
            self._note(path)
        return self._complete()

    # -- the folder itself -----------------------------------------------------------------------------------------

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = self._folder.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _is_there(self) -> bool:
        """Return whether the folder can be used, which a mount that went away cannot."""
        found = self._identify()
        if found is not None and found == self._identity:
            if self._notes is not None and self._notes.problem:
                self._trouble(f"{self} is searched every few seconds, because {self._notes.problem}")
                self._notes.problem = ""
            return True
        if found is None:
            if self._identity is not None:
                self._trouble(f"the folder {self} is gone (is it a mount?): waiting until it is back")
            self._identity = None
            return False
        self._trouble(f"the folder {self} is back, or another one: everything in it is looked at again")
        self._identity = found
        if self._notes is not None:
            self._notes.stop()
        self._notes = _Notes(str(self._folder))
        self._changed_since = self._searching = None
        self._searched_at = 0.0
        return True

    def _next_search(self) -> float:
        noted = self._notes is not None and self._notes.alive
        least, share = (SEARCH_EVERY, SEARCH_SHARE) if noted else (_UNNOTED_EVERY, _UNNOTED_SHARE)
        return self._searched_at + max(least, share * self._search_seconds) if self._searched_at else 0.0

    def _search(self) -> None:
        """Look at some more files: at the first time take all of them, later those that changed since."""
        began = time.monotonic()
        if self._searching is None:
            self._searching, self._began_at = self._source.below(str(self._folder)), time.time()
            self._search_seconds = 0.0
        try:
            for item in itertools.islice(self._searching, _AT_ONCE):
                self._found(item.path, self._changed_since)
            following = next(self._searching, None)
        except SourceError as error:
            self._trouble(str(error))
            self._searching, self._searched_at = None, time.monotonic()
            return
        self._search_seconds += time.monotonic() - began
        if following is not None:
            self._found(following.path, self._changed_since)
            return
        self._searching = None
        self._changed_since = self._began_at - _MARGIN
        self._searched_at = time.monotonic()
        self._searched_once = True

    # -- files -----------------------------------------------------------------------------------------------------

    def _note(self, path: str) -> None:
        """Look at what a note names: a file, or a folder that is new and may have files already."""
        relative = Path(path).relative_to(self._folder).parts
        if path.startswith(self._excluded) or any(part.startswith(".") for part in relative):
            return
        if Path(path).is_dir() and not Path(path).is_symlink():
            try:
                items: Iterable[LogObject] = list(self._source.below(path))
            except SourceError:
                # It was removed again.
                return
            for item in items:
                self._found(item.path, None)
        else:
            self._found(path, None)

    def _found(self, path: str, since: float | None) -> None:
        if is_partial(path.rpartition(os.sep)[2]):
            return
        try:
            status = os.stat(path)  # noqa: PTH116 - ten thousand files at once
        except OSError:
            # It was moved or deleted, or it is a link to nothing.
            self._pending.pop(path, None)
            return
        if since is None or max(status.st_ctime, status.st_mtime) >= since:
            state = (status.st_size, status.st_mtime_ns)
            known = self._pending.get(path)
            if known is None or known[0] != state:
                self._pending[path] = state, time.monotonic()

    def _complete(self) -> list[Arrival]:
        """Return the pending files that nobody writes any more."""
        done: list[Arrival] = []
        moment = time.monotonic()
        for path, (state, since) in list(self._pending.items()):
            try:
                status = os.stat(path)  # noqa: PTH116
            except OSError:
                del self._pending[path]
                continue
            seen = (status.st_size, status.st_mtime_ns)
            if seen != state:
                self._pending[path] = seen, moment
                continue
            if not _is_complete(path, status, moment - since):
                continue
            del self._pending[path]
            if status.st_size:
                item = self._source.log_object(path)
                if item is not None:
                    delivered = datetime.fromtimestamp(status.st_mtime, UTC)
                    done.append(Arrival((item,), since, min(delivered, now())))
        return done

    def settle(self, arrivals: Sequence[Arrival], missed: Mapping[Key, NotFetchedError]) -> Settled:
        """Nothing is kept of files that are committed."""
        return Settled()

    def give_back(self, arrivals: Sequence[Arrival]) -> None:
        """Nothing was taken away: the next watch finds them."""

    def close(self) -> None:
        """Stop looking."""
        if self._notes is not None:
            self._notes.stop()


def _is_complete(path: str, status: os.stat_result, unchanged: float) -> bool:
    """Return whether a file is complete, which has not changed for some seconds."""
    if time.time() - status.st_mtime > _OLD or unchanged >= UNCHANGED_FOR:
        return is_being_written(path) is not True
    return unchanged >= CLOSED_FOR and is_being_written(path) is False


class _Notes:
    """The system's notes about changes below a folder, gathered by a thread."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._paths: dict[str, None] = {}
        #: Why there are no notes, until it was said.
        self.problem = ""
        self.alive = True
        self._thread = threading.Thread(target=self._run, daemon=True, name="folder")
        self._ready = threading.Event()
        self._thread.start()
        # Notes begin a moment after the first answer of the system; what comes before is found by the search.
        self._ready.wait(5)

    def _run(self) -> None:
        import watchfiles

        try:
            for changes in watchfiles.watch(
                self._folder,
                watch_filter=None,
                debounce=100,
                step=20,
                rust_timeout=200,
                yield_on_timeout=True,
                stop_event=self._stop,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                self._ready.set()
                if changes:
                    with self._changed:
                        self._paths.update((path, None) for kind, path in changes if kind != watchfiles.Change.deleted)
                        self._changed.notify_all()
        except (OSError, RuntimeError) as error:
            self.problem = _why(error)
        finally:
            self.alive = False
            self._ready.set()

    def take(self) -> list[str]:
        """Return the paths that changed since the last call."""
        with self._changed:
            paths = list(self._paths)
            self._paths.clear()
        return paths

    def wait(self, seconds: float) -> None:
        """Wait until something has changed."""
        with self._changed:
            if not self._paths:
                self._changed.wait(seconds)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(2)


def _why(error: Exception) -> str:
    text = safe_name(" ".join(str(error).split()), 200)
    if "limit" in text.lower() or "No space left" in text:
        return f"the system watches no more folders ({text}): raise fs.inotify.max_user_watches"
    return f"the system sends no notes about it ({text})"
