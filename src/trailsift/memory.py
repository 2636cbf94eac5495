"""What a process that does one thing may ask of its allocators."""

from __future__ import annotations

import contextlib
import ctypes
import os

#: Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_memory() -> None:
    """Keeps what is freed for the next chunk, which needs as much: a page that goes back to the system and comes again
    costs more than what is done with it. Where the C library cannot be told, it stays as it is.

    To be called before pyarrow is imported, in a process that does the same over and over: others would only grow.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        library.mallopt(_TOP_PAD, 16 << 20)
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)


def give_back() -> None:
    """Gives what is free back to the system, where the C library can be told to."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
