"""Settings of a process for its memory allocator and for the import system, and limits that the system sets to it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator

TYPE_CHECKING = False  # typing.TYPE_CHECKING without the import: this module is part of every start
if TYPE_CHECKING:
    from typing import Any

#: From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8


def keep_memory() -> None:
    """Keep freed memory for the next chunk, which needs as much: returning pages to the system and faulting them in
    again costs more than the work done on them. Does nothing if the C library has no mallopt.

    Call it before pyarrow is imported, in a process that repeats the same work; any other process would only grow.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with _c_library() as library:
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        library.mallopt(_TOP_PAD, 16 << 20)
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)


def spare_memory() -> None:
    """Let all threads share one arena (each would keep free blocks of its own, and an ingest starts some threads with
    every commit), and take large blocks from the system, to which they return.

    Call it before there are threads and before pyarrow is imported, in a process of our own.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # Arrow's jemalloc, which is not used then, starts a thread at import; a process with one thread can be forked.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    with _c_library() as library:
        library.mallopt(_ARENA_MAX, 1)
        library.mallopt(_MMAP_THRESHOLD, 8 << 20)
        library.mallopt(_TRIM_THRESHOLD, 32 << 20)


def give_back() -> None:
    """Return free memory to the system."""
    with _c_library() as library:
        library.malloc_trim(0)


@contextlib.contextmanager
def _c_library() -> Iterator[Any]:
    """Yield the C library of this process; calls of functions that it lacks are skipped."""
    # Imported lazily to keep start-up fast.
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        yield ctypes.CDLL(None)


@contextlib.contextmanager
def without_pandas() -> Iterator[None]:
    """Hide an installed pandas, which DuckDB and Arrow import to inspect the first value they receive: half a second
    for something no command needs. An already imported pandas stays."""
    finder: Any = _NoPandas
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _NoPandas:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raise for pandas; leave every other module to the next finder."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is hidden: no command needs it", name=name)


#: Below this many bytes of address space, the engines' libraries abort a process that they get no memory for.
_LOW_LIMIT = 512 << 20

_MEMORY = (
    "there is not enough memory: close other programs, or raise the limit (`ulimit -v`, or that of the container), and "
    "run it again; what was committed before is safe"
)
_THREADS = (
    "the system starts no more threads: raise the limit of processes (`ulimit -u`, or the container's limit of PIDs) "
    "or of memory (`ulimit -v`), and run it again; what was committed before is safe"
)
#: Modules of Arrow's and DuckDB's errors, and how Python, Arrow and the C++ library say that a thread was refused.
_ENGINES = ("pyarrow", "duckdb", "_duckdb")
_NO_THREAD = ("can't start new thread", "Failed to launch worker thread", "thread constructor failed")
_NO_FILE = os.strerror(errno.EMFILE)
_FILES = "raise the limit of open files (`ulimit -n`), and run it again"


def shortage(error: BaseException) -> str:
    """Return what to do if an error, or one that led to it, is the system's refusal of memory, threads or open files;
    empty for any other error."""
    cause: BaseException | None = error
    while cause is not None:
        code = cause.errno if isinstance(cause, OSError) else None
        ours = isinstance(cause, (RuntimeError, ImportError)) or type(cause).__module__.split(".")[0] in _ENGINES
        text = str(cause) if ours else ""
        if code in (errno.EMFILE, errno.ENFILE) or _NO_FILE in text:
            return _FILES
        if any(words in text for words in _NO_THREAD):
            return _THREADS
        # Shared libraries are mapped on import. DuckDB at a limit of its own says something else.
        if (
            isinstance(cause, MemoryError)
            or code == errno.ENOMEM
            or any(words in text for words in ("failed to map segment", "bad allocation", "Allocation failure"))
        ):
            return _MEMORY
        cause = cause.__cause__ or cause.__context__
    return ""


def low_memory_limit() -> int | None:
    """Return the limit of this process's address space in bytes if libraries may abort the process at it."""
    try:
        import resource
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return limit if 0 <= limit < _LOW_LIMIT else None
