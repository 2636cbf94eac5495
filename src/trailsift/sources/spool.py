"""What a listing finds, kept on the disk by delivery time: millions of log objects in little memory.

Lines are collected in memory and written to one file per day when they become many. A file that is too large to be
loaded at once is cut by the hour, and then by the minute.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from trailsift.sources.base import LogObject, Span

#: Bytes of lines in memory, before they are written, and of a file that is loaded at once.
HELD_BYTES, LOADED_BYTES = 4 << 20, 16 << 20
#: Digits of a minute (YYYYMMDDHHMM) by which files are named: those of the day, and what they are cut by.
_DAY, _FINER = 8, {8: 10, 10: 12}
#: What stands between the parts of a line, and at its end: no key that can be read has them.
_BETWEEN, _END = "\x1f", "\x1e"


def line(minute: str, size: int, version: str, place: int, key: str) -> str:
    """Return the line of an object. ``minute``: YYYYMMDDHHMM; ``place``: the number of the bucket it is in."""
    return f"{minute}{_BETWEEN}{size}{_BETWEEN}{version}{_BETWEEN}{place}{_BETWEEN}{key}{_END}"


class Spool:
    """Lines of found objects by delivery time. ``remove`` deletes its folder."""

    def __init__(self, held_bytes: int = HELD_BYTES, loaded_bytes: int = LOADED_BYTES) -> None:
        self._held_bytes, self._loaded_bytes = held_bytes, loaded_bytes
        self._folder: Path | None = None
        self._held: dict[str, list[str]] = defaultdict(list)
        self._size = 0
        #: Number of objects and their bytes, by the first digits of their minutes.
        self._counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])

    def add(self, minute: str, size: int, text: str) -> None:
        """Add the line of one object."""
        day = minute[:_DAY]
        self._held[day].append(text)
        count = self._counts[day]
        count[0] += 1
        count[1] += size
        self._size += len(text)
        if self._size > self._held_bytes:
            self._write(self._held)
            self._held.clear()
            self._size = 0

    def _write(self, lines: dict[str, list[str]]) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="trailsift-listing-"))
        for name, part in lines.items():
            with (self._folder / name).open("a", encoding="utf-8", newline="") as file:
                file.write("".join(part))

    @property
    def days(self) -> tuple[str, str] | None:
        """First and last day of delivery (ISO 8601); None if there is nothing."""
        if not self._counts:
            return None
        first, last = min(self._counts)[:_DAY], max(self._counts)[:_DAY]
        return f"{first[:4]}-{first[4:6]}-{first[6:]}", f"{last[:4]}-{last[4:6]}-{last[6:]}"

    def spans(self, make: Callable[[str], LogObject]) -> list[Span]:
        """Return the spans of all objects, in order of delivery; ``make`` turns a line into a log object.

        Nothing may be added afterwards.
        """
        if self._folder is not None:
            self._write(self._held)
            self._held.clear()
            for name in sorted(self._counts):
                self._cut(name)
        return [
            Span(objects, size, lambda name=name: self._load(name, make))  # type: ignore[misc]
            for name, (objects, size) in sorted(self._counts.items())
        ]

    def _cut(self, name: str) -> None:
        """Cut a file that is too large to be loaded by the next digits of the minutes in it."""
        assert self._folder is not None
        path = self._folder / name
        digits = _FINER.get(len(name))
        if digits is None or path.stat().st_size <= self._loaded_bytes:
            return
        del self._counts[name]
        finer: dict[str, list[str]] = defaultdict(list)
        held = 0
        names: set[str] = set()
        for text in _lines(path):
            minute, size, _ = text.split(_BETWEEN, 2)
            part = minute[:digits]
            finer[part].append(text + _END)
            count = self._counts[part]
            count[0] += 1
            count[1] += int(size)
            held += len(text)
            if held > self._held_bytes:
                names.update(finer)
                self._write(finer)
                finer.clear()
                held = 0
        names.update(finer)
        self._write(finer)
        path.unlink()
        for part in sorted(names):
            self._cut(part)

    def _load(self, name: str, make: Callable[[str], LogObject]) -> list[LogObject]:
        lines: Iterable[str] = self._held[name] if self._folder is None else _lines(self._folder / name)
        # A line begins with its minute, and the others of that minute are as good in any order.
        return [make(text.rstrip(_END)) for text in sorted(lines)]

    def remove(self) -> None:
        """Delete everything."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self._held.clear()
        self._counts.clear()


def fields(text: str) -> tuple[str, int, str, int, str]:
    """Return the minute, size, version, place and key of a line without its end."""
    minute, size, version, place, key = text.split(_BETWEEN, 4)
    return minute, int(size), version, int(place), key


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file, without their ends."""
    rest = ""
    with path.open(encoding="utf-8", newline="") as file:
        while block := file.read(1 << 20):
            *lines, rest = (rest + block).split(_END)
            yield from lines
