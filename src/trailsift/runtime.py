"""What a process that does one thing may ask of its allocators and of the import system."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

#: Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8


def keep_memory() -> None:
    """Keeps what is freed for the next chunk, which needs as much: a page that goes back to the system and comes again
    costs more than what is done with it. Where the C library cannot be told, it stays as it is.

    To be called before pyarrow is imported, in a process that does the same over and over: others would only grow.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with _c_library() as library:
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        library.mallopt(_TOP_PAD, 16 << 20)
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)


def spare_memory() -> None:
    """Has all threads take from one place what they need (each would keep its own free pieces, and an ingest starts
    some threads with every commit), and what is large from the system, to which it goes back.

    To be called before there are threads and before pyarrow is imported, in a process of our own.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # Arrow's jemalloc, which is not used then, starts a thread at import; a process with one thread can be forked.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    with _c_library() as library:
        library.mallopt(_ARENA_MAX, 1)
        library.mallopt(_MMAP_THRESHOLD, 8 << 20)
        library.mallopt(_TRIM_THRESHOLD, 32 << 20)


def give_back() -> None:
    """Gives what is free back to the system."""
    with _c_library() as library:
        library.malloc_trim(0)


@contextlib.contextmanager
def _c_library() -> Iterator[Any]:
    """The C library of this process; what it does not know is not done."""
    # No command pays for it at its start.
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        yield ctypes.CDLL(None)


@contextlib.contextmanager
def without_pandas() -> Iterator[Any]:
    """DuckDB and Arrow import pandas, where it is installed, to look at the first value that they are given: half a
    second for what nobody here needs. One that is imported already stays."""
    finder: Any = _NoPandas
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _NoPandas:
    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """A finder that finds everything but pandas elsewhere."""
        if name == "pandas":
            raise ModuleNotFoundError("no command needs pandas", name=name)
