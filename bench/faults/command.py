"""One trailsift command in a process of its own, under conditions that make it fail.

The process is forked from one that has imported everything, so a command costs a tenth of a second instead of one. It
has its own session and its own standard streams, and runs ``trailsift.cli.main`` as the program does. Faults that
nobody outside could time are built in: an audit hook counts the file operations under a folder, and at the one that
was drawn the process is killed, or the operation fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import mmap
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

#: What is counted: changes and reads of files, as the interpreter audits them (https://peps.python.org/pep-0578/).
_AUDITED = frozenset(
    {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.utime", "os.chmod", "os.listdir",
     "os.scandir", "sqlite3.connect"}
)  # fmt: skip
#: Phases of commands: (module, class or "", function, name in the table). A missing one is an error.
PHASES = (
    ("trailsift.lake.writer", "LakeWriter", "create", "opening the lake"),
    ("trailsift.ingest.coordinator", "Coordinator", "all", "decoding and writing"),
    ("trailsift.lake.writer", "LakeWriter", "sweep", "removing leftovers"),
    ("trailsift.lake.transaction", "Transaction", "_commit", "commit: files"),
    ("trailsift.lake.transaction", "Transaction", "_apply", "commit: transaction"),
    ("trailsift.lake.transaction", "Transaction", "rollback", "rolling back"),
    ("trailsift.lake.compact", "", "rewrite", "compaction"),
    ("trailsift.lake.expire_seen", "", "merge_seen", "merging ids"),
    ("trailsift.lake.expire", "", "clean", "expiring"),
    ("trailsift.lake.relocate", "", "relocate", "relocation"),
    ("trailsift.detect.signals", "", "collect_signals", "detection"),
    ("trailsift.detect.checkpoint", "", "save", "keeping findings"),
)
NAMES = ("start", *(name for *_, name in PHASES))
APPLY = NAMES.index("commit: transaction")

_CLONE_NEWNS, _MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
#: Capabilities that let root pass over permissions.
_PASS_OVER = (0, 1, 2, 3)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Conditions:
    """What the process meets. All of it can be written as JSON."""

    #: Under which folder operations are counted.
    root: str = ""
    #: At which operation of which process ("parent" or "worker") something happens, from 1; 0 is never.
    operation: int = 0
    who: str = "parent"
    #: A signal to itself or to the group, or the errors of that many operations.
    signal: int = 0
    group: bool = True
    error: int = 0
    times: int = 1
    #: Seconds by which its clock is ahead; from which operation on (0: from the start), and for how many.
    clock: float = 0.0
    clock_from: int = 0
    clock_for: int = 1 << 40
    #: Bytes of memory and descriptors that it may take beyond what it has, and the longest file; -1 sets no limit.
    memory: int = -1
    descriptors: int = -1
    file_bytes: int = -1
    #: A folder that is mounted read-only for it, and whether it gives up root's right to pass over permissions.
    read_only: str = ""
    plain_user: bool = False


NO_FAULT = Conditions()


@dataclass(frozen=True)
class Small:
    """How an ingest is cut into pieces: several commits from few events."""

    chunk_rows: int = 350
    batch_rows: int = 900
    task_bytes: int = 12_000
    task_objects: int = 30


class Shared:
    """Some numbers that the process and whoever started it both see."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, mmap.PAGESIZE)

    def get(self, slot: int) -> int:
        return int(struct.unpack_from("<q", self._map, 8 * slot)[0])

    def set(self, slot: int, value: int) -> None:
        struct.pack_into("<q", self._map, 8 * slot, value)

    def close(self) -> None:
        self._map.close()


#: Slots: the phase, transactions begun, operations of the parent and of a worker.
PHASE, APPLIED, PARENT_OPERATIONS, WORKER_OPERATIONS, STOP = range(5)


class Process:
    """A forked process, or a new interpreter (``cold``, without what is built in)."""

    def __init__(
        self,
        run: Sequence[str] | Callable[[Shared], None],
        place: Path,
        conditions: Conditions = NO_FAULT,
        *,
        cold: bool = False,
        small: Small = Small(),
    ) -> None:
        """``run``: the words of a command, or a function; ``place``: path and beginning of names of its output."""
        self.words = list(run) if not callable(run) else []
        self.out, self.err = place.with_suffix(".out"), place.with_suffix(".err")
        # It may be killed before it opens them.
        self.out.touch()
        self.err.touch()
        self.shared = Shared()
        self.code: int | None = None
        self.hung = False
        self.started = time.monotonic()
        if cold:
            with self.out.open("wb") as out, self.err.open("wb") as err:
                self._popen = subprocess.Popen(
                    [sys.executable, "-m", "trailsift", *self.words],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
                )  # fmt: skip
            self.pid = self._popen.pid
            _running.add(self.pid)
            return
        self.pid = os.fork()
        if self.pid == 0:
            _child(run, conditions, self.shared, self.out, self.err, small)
        _running.add(self.pid)

    def poll(self) -> int | None:
        """Return the exit code if it has ended, as ``subprocess`` gives it."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                _running.discard(pid)
                self.code = os.waitstatus_to_exitcode(status)
                self.seconds = time.monotonic() - self.started
        return self.code

    def wait(self, seconds: float) -> int:
        """Wait for the end. After that time it is stopped, and prints where it is."""
        end = self.started + seconds
        pause = 0.002
        while self.poll() is None:
            if time.monotonic() > end:
                self.hung = True
                os.kill(self.pid, signal.SIGABRT)
                time.sleep(0.5)
                self.kill(signal.SIGKILL)
                end += 3600
            time.sleep(pause)
            pause = min(pause * 1.2, 0.02)
        assert self.code is not None
        return self.code

    def wait_until(self, moment: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is so; return False if the process ended before, or the time is over."""
        end = time.monotonic() + seconds
        while not moment():
            if self.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.0003)
        return True

    def kill(self, number: int, *, group: bool = True) -> None:
        """Send a signal to its session, or to it alone."""
        with contextlib.suppress(ProcessLookupError):
            if group:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, number)
                    return
            # Alone, or before it has a session.
            os.kill(self.pid, number)

    def workers(self) -> list[int]:
        """Return its children."""
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii")
        except OSError:
            return []
        return [int(word) for word in text.split()]

    def survivors(self, seconds: float) -> bool:
        """Return whether a process of its session is still there after that time; end it then."""
        end = time.monotonic() + seconds
        while True:
            reap()
            try:
                os.killpg(self.pid, 0)
            except (ProcessLookupError, PermissionError):
                return False
            if time.monotonic() > end:
                self.kill(signal.SIGKILL)
                return True
            time.sleep(0.01)

    @property
    def phase(self) -> str:
        """Return the phase that it was last in."""
        return NAMES[self.shared.get(PHASE)]

    @property
    def errors(self) -> str:
        """Return what it wrote to standard error."""
        return self.err.read_text("utf-8", "replace")


def adopt() -> None:
    """Become the parent of all processes that are left without one, to see that none stays."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap() -> None:
    """Forget adopted processes that have ended."""
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii")
    for pid in {int(word) for word in text.split()} - _running:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


#: Our own children, whose exit codes are waited for.
_running: set[int] = set()


def _child(
    run: Sequence[str] | Callable[[Shared], None],
    conditions: Conditions,
    shared: Shared,
    out: Path,
    err: Path,
    small: Small,
) -> NoReturn:
    """Run in the forked process, and never return."""
    code = 70
    try:
        os.setsid()
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, path, flags in (
            (0, "/dev/null", os.O_RDONLY),
            (1, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (2, err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        ):
            handle = os.open(path, flags, 0o644)
            os.dup2(handle, number)
            os.close(handle)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        faulthandler.enable()
        if callable(run):
            run(shared)
            code = 0
        else:
            _prepare(conditions, shared, small)
            sys.argv = ["trailsift", *run]
            try:
                from trailsift import cli
            except KeyboardInterrupt:
                # Of the interpreter, before there is anything of ours.
                code = 130
            else:
                code = cli.main()
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _prepare(conditions: Conditions, shared: Shared, small: Small) -> None:
    from trailsift.ingest import pipeline
    from trailsift.ingest.counts import Sizes

    assert pipeline.ingest.__kwdefaults__
    pipeline.ingest.__kwdefaults__["sizes"] = Sizes(
        small.chunk_rows, small.batch_rows, pipeline.SIZES.held_rows, small.task_bytes, small.task_objects
    )
    watch_phases(shared)
    if conditions.root:
        _count_operations(conditions, shared)
    if conditions.clock:
        shift_clock(conditions, shared)
    if conditions.read_only:
        mount_read_only(conditions.read_only)
    if conditions.plain_user:
        drop_capabilities()
    if conditions.memory >= 0:
        size = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (size + conditions.memory, resource.RLIM_INFINITY))
    if conditions.descriptors >= 0:
        most = max(int(name) for name in os.listdir("/proc/self/fd")) + 1  # noqa: PTH208
        resource.setrlimit(resource.RLIMIT_NOFILE, (most + conditions.descriptors, most + conditions.descriptors))
    if conditions.file_bytes >= 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (conditions.file_bytes, resource.RLIM_INFINITY))


def watch_phases(shared: Shared) -> None:
    """Note the phase of this process in ``shared``. Raise AttributeError if a function has another name by now."""
    me = os.getpid()

    def around(owner: Any, name: str, number: int) -> None:
        raw = vars(owner)[name]
        inner = raw.__func__ if isinstance(raw, classmethod) else raw

        def outer(*arguments: Any, **named: Any) -> Any:
            if os.getpid() != me:
                return inner(*arguments, **named)
            before = shared.get(PHASE)
            shared.set(PHASE, number)
            if number == APPLY:
                shared.set(APPLIED, shared.get(APPLIED) + 1)
            try:
                return inner(*arguments, **named)
            finally:
                shared.set(PHASE, before)

        setattr(owner, name, classmethod(outer) if isinstance(raw, classmethod) else outer)

    for number, (module, owner, name, _) in enumerate(PHASES, 1):
        found = sys.modules[module]
        around(getattr(found, owner) if owner else found, name, number)


def _count_operations(conditions: Conditions, shared: Shared) -> None:
    me = os.getpid()
    root = os.fsencode(conditions.root)
    count = 0
    busy = False

    def operation(name: str, path: bytes) -> None:
        nonlocal count, busy
        if busy:
            return
        busy = True
        try:
            count += 1
            is_parent = os.getpid() == me
            shared.set(PARENT_OPERATIONS if is_parent else WORKER_OPERATIONS, count)
            if not conditions.operation or is_parent != (conditions.who == "parent"):
                return
            if conditions.signal and count == conditions.operation:
                if conditions.group:
                    os.killpg(me, conditions.signal)
                else:
                    os.kill(os.getpid(), conditions.signal)
            if conditions.error and 0 <= count - conditions.operation < conditions.times:
                if name == "sqlite3.connect":
                    raise sqlite3.OperationalError("unable to open database file")
                raise OSError(conditions.error, os.strerror(conditions.error), os.fsdecode(path))
        finally:
            busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _AUDITED and arguments:
            try:
                path = os.fsencode(arguments[0])
            except TypeError:
                return
            if path.removeprefix(b"file:").startswith(root):
                operation(event, path)

    def fsync(handle: Any) -> None:
        operation("fsync", b"")
        real_fsync(handle)

    real_fsync = os.fsync
    setattr(os, "fsync", fsync)  # noqa: B010
    sys.addaudithook(hook)


def shift_clock(conditions: Conditions, shared: Shared) -> None:
    """Have ``time.time`` and ``datetime.now`` of this process be ahead, as after a wrong clock was set.

    Only Python's clock is shifted: the times of files stay those of the system, as on a disk that another machine
    serves.
    """
    import datetime

    real = datetime.datetime
    real_time, real_time_ns = time.time, time.time_ns

    def ahead() -> float:
        if not conditions.clock_from:
            return conditions.clock
        after = shared.get(PARENT_OPERATIONS) - conditions.clock_from
        return conditions.clock if 0 <= after < conditions.clock_for else 0.0

    class Meta(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, real)

    class Shifted(datetime.datetime, metaclass=Meta):
        # Its objects are the real class's: workers and files take them.
        def __new__(cls, *arguments: Any, **named: Any) -> Any:
            return real(*arguments, **named)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.fromtimestamp(real_time() + ahead(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return real.fromtimestamp(real_time() + ahead(), datetime.UTC).replace(tzinfo=None)

    time.time = lambda: real_time() + ahead()
    time.time_ns = lambda: real_time_ns() + int(ahead() * 1e9)
    for name, module in list(sys.modules.items()):
        if name.startswith(("trailsift", "pyiceberg")) and getattr(module, "datetime", None) is real:
            setattr(module, "datetime", Shifted)  # noqa: B010


def mount_read_only(path: str) -> None:
    """Mount a folder read-only, for this process alone. Raise OSError where that is not allowed."""
    name = os.fsencode(path)
    _call(_libc.unshare, _CLONE_NEWNS)
    _call(_libc.mount, b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    _call(_libc.mount, name, name, None, _MS_BIND, None)
    _call(_libc.mount, name, name, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY, None)


class Disk:
    """A small file system in memory, in a mount namespace of this process. OSError where that is not allowed."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = os.fsencode(path)
        _call(_libc.unshare, _CLONE_NEWNS)
        _call(_libc.mount, b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
        _call(_libc.mount, b"tmpfs", self.path, b"tmpfs", 0, b"size=%d" % size)

    def resize(self, free: int | None) -> None:
        """Leave that much room; None: enough."""
        used = shutil.disk_usage(os.fsdecode(self.path)).used
        size = 1 << 30 if free is None else used + free
        _call(_libc.mount, b"tmpfs", self.path, b"tmpfs", _MS_REMOUNT, b"size=%d" % max(size, mmap.PAGESIZE))


def drop_capabilities() -> None:
    """Give up root's right to pass over the permissions of files, so that they hold for this process."""

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    class Data(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))

    header, data = Header(0x20080522, 0), (Data * 2)()
    _call(_libc.capget, ctypes.byref(header), data)
    for number in _PASS_OVER:
        data[0].effective &= ~(1 << number)
        data[0].permitted &= ~(1 << number)
    _call(_libc.capset, ctypes.byref(header), data)


def _call(function: Any, *arguments: Any) -> None:
    if function(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")


#: Errors that a disk or a system gives.
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EMFILE, errno.EDQUOT, errno.ENOMEM)
