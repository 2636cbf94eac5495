"""The YAML of a folder of rules, as documents with their place in a file. Whoever wrote them may mean harm.

Bounded are the number of files, their size, the depth of a document and what its aliases stand for; nothing but plain
values comes out. What is refused is a Problem with file and line, and the other files are read all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trailsift.detect.detection_rules import Problem
from trailsift.errors import UsageError

#: Files of a folder, bytes of one and of all, documents of a file, depth of a document, and its values with aliases
#: written out.
MAX_FILES = 5_000
MAX_BYTES = 256 << 10
MAX_TOTAL = 64 << 20
MAX_DOCUMENTS = 200
MAX_DEPTH = 16
MAX_NODES = 5_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Document:
    """One document of a file: ``line`` is where it begins, ``text`` the whole file."""

    path: str
    line: int
    last_line: int
    value: dict[str, Any]
    text: str

    def line_of(self, *needles: str) -> int:
        """Return the first line of the document that has one of the texts, tried in order; else its first line."""
        lines = self.text.splitlines()[self.line - 1 : self.last_line]
        for needle in needles:
            for number, line in enumerate(lines, self.line):
                if needle and needle in line:
                    return number
        return self.line


def read_folder(folder: Path) -> Iterator[Document | Problem]:
    """Yield the documents of all files ``*.yml`` and ``*.yaml`` below a folder, in the order of their paths.

    Raise UsageError if there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise UsageError(f"--sigma {folder} is not a folder: name one with Sigma rules (.yml)")
    files = _files(folder)
    if not files:
        raise UsageError(f"--sigma {folder} has no .yml file, and none in its folders")
    total = 0
    for number, path in enumerate(files):
        if number == MAX_FILES:
            yield Problem(str(folder), 1, f"has more than {MAX_FILES:,} files: {len(files) - number:,} are left out")
            return
        try:
            # One byte more shows that there is more.
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            yield Problem(str(path), 1, f"cannot be read: {error.strerror}")
            continue
        total += len(data)
        if total > MAX_TOTAL:
            yield Problem(
                str(path), 1, f"it and what follows is left out: rules may have {MAX_TOTAL >> 20} MB together"
            )
            return
        if len(data) > MAX_BYTES:
            yield Problem(str(path), 1, f"is larger than {MAX_BYTES >> 10} KB")
            continue
        yield from _documents(str(path), data)


def _files(folder: Path) -> list[Path]:
    out = []
    # Links to folders are not followed: they may lead in circles.
    for place, folders, names in os.walk(folder):
        folders.sort()
        out += [Path(place, name) for name in names if name.endswith((".yml", ".yaml"))]
        if len(out) > 2 * MAX_FILES:
            break
    return sorted(path for path in out if path.is_file())


def _documents(path: str, data: bytes) -> Iterator[Document | Problem]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Problem(path, data.count(b"\n", 0, error.start) + 1, "is not UTF-8")
        return
    try:
        _check_events(text)
        loader = _Loader(text)
        try:
            nodes = []
            while loader.check_node():
                node = loader.get_node()
                nodes.append((node.start_mark.line + 1, node.end_mark.line + 1, loader.construct_document(node)))
        finally:
            loader.dispose()
    except _TooMuch as refused:
        yield Problem(path, refused.line, str(refused))
        return
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        yield Problem(path, mark.line + 1 if mark else 1, f"is not valid YAML: {error.problem or error.context}")
        return
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError, MemoryError) as error:
        yield Problem(path, 1, f"is not valid YAML: {str(error).partition(chr(10))[0]}")
        return
    for line, last, value in nodes:
        if value is None:
            # What follows a line of dashes at the end.
            continue
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            yield Problem(path, line, "is not a rule: a rule has keys such as title and detection")
            continue
        yield Document(path, line, last, value, text)


class _TooMuch(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def _check_events(text: str) -> None:
    """Raise _TooMuch if a document is too deep or too large, with each alias counted as what it stands for."""
    depth = documents = 0
    size_of: dict[str, int] = {}
    # Anchors that are open, with the size before them.
    open_: list[tuple[str | None, int]] = []
    size = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents, size, size_of = documents + 1, 0, {}
            if documents > MAX_DOCUMENTS:
                raise _TooMuch(line, f"has more than {MAX_DOCUMENTS} documents")
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in size_of:
                size += size_of[event.anchor]
            else:
                raise _TooMuch(line, f"the alias *{event.anchor} stands for nothing, or for what it is in")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth, size = depth + 1, size + 1
            open_.append((event.anchor, size))
            if depth > MAX_DEPTH:
                raise _TooMuch(line, f"is nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            anchor, before = open_.pop()
            if anchor is not None:
                size_of[anchor] = size - before + 1
        elif isinstance(event, yaml.ScalarEvent):
            size += 1
            if event.anchor is not None:
                size_of[event.anchor] = 1
        if size > MAX_NODES:
            raise _TooMuch(line, f"has more than {MAX_NODES:,} values, with its aliases written out")
