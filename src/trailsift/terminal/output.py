"""The one way to standard output and error, beside the tables of ``console``: every text is made harmless on it.

No other module of ``cli`` and ``terminal`` prints or writes to a stream; a test holds them to that. What leaves here
for a terminal has no control, direction or invisible characters; a pipe or a file gets JSON and CSV as they are.

Importing this module costs next to nothing: it is needed for ``trailsift: ...`` lines where rich is not.
"""

from __future__ import annotations

import codecs
import sys
from contextlib import suppress

from trailsift.safe_text import safe, safe_json, safe_lines

TYPE_CHECKING = False  # typing.TYPE_CHECKING without the import, which takes milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import IO, Any, TextIO

#: Lines of a message after the first are indented: a text within it cannot pass for a message of its own.
_INDENT = "\n  "


def say(text: str) -> None:
    """Print a message on standard error: its first line after our name, the others indented below it."""
    lines = map(safe, f"trailsift: {text}".rstrip("\n").split("\n"))
    print(_INDENT.join(lines), file=sys.stderr, flush=True)


def say_progress(text: str) -> None:
    """Print a line of progress on standard error; if its reader has gone away, the work goes on."""
    with suppress(OSError):
        say(text)


def print_line(text: object) -> None:
    """Print one line on standard output."""
    print(safe(str(text)), flush=False)


def print_lines(text: object) -> None:
    """Print text of several lines on standard output. Its line ends must be ours."""
    text = str(text)
    sys.stdout.write(safe_lines(text) + ("" if text.endswith("\n") else "\n"))


def print_script(text: str) -> None:
    """Write what a program reads, as SQL: as it is to a file or a pipe, harmless to look at on a terminal."""
    sys.stdout.write(safe_lines(text) if is_terminal(sys.stdout) else text)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    _print_json(value, indent=2)


def print_json_line(value: Any) -> None:
    """Print a JSON document on one line of standard output, at once."""
    _print_json(value)
    sys.stdout.flush()


def _print_json(value: Any, indent: int | None = None) -> None:
    import json

    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    if is_terminal(sys.stdout):
        text = safe_json(text)
    # Half a pair of surrogates has no UTF-8; its escape is the same JSON.
    try:
        sys.stdout.write(text + "\n")
    except UnicodeEncodeError:
        sys.stdout.write(safe_json(text) + "\n")


def print_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table as CSV: null is an empty field, lists are JSON; on a terminal, each value is made harmless."""
    import csv
    import json

    shown = is_terminal(sys.stdout)
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(names)
    for row in rows:
        cells = [json.dumps(cell, ensure_ascii=False) if isinstance(cell, list) else cell for cell in row]
        out.writerow([safe(cell) if shown and isinstance(cell, str) else cell for cell in cells])


def ask(question: str) -> str:
    """Return what the user answers to a question."""
    return input(safe(question) + " ")


def is_terminal(stream: IO[Any]) -> bool:
    """Return whether a person looks at a stream."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def json_stream() -> TextIO | EscapedStream:
    """Return standard output for records as JSON: escaped within their strings on a terminal."""
    return EscapedStream(sys.stdout, safe_json) if is_terminal(sys.stdout) else sys.stdout


class EscapedStream:
    """A text stream that escapes what is written to it, text or UTF-8."""

    def __init__(self, stream: TextIO, escape: Callable[[str], str]) -> None:
        self._stream = stream
        self._escape = escape
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode

    def write(self, text: str | bytes) -> int:
        """Write text; return its length, as a stream does."""
        self._stream.write(self._escape(self._decode(text) if isinstance(text, bytes) else text))
        return len(text)

    def flush(self) -> None:
        """Write what is left."""
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Return everything else from the stream itself."""
        return getattr(self._stream, name)


class Messages(EscapedStream):
    """Standard error as libraries, warnings and tracebacks find it: what they say of a log is escaped."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream, safe_lines)
        #: For our own console, which escapes texts and then adds its styles.
        self.raw = stream


def errors_raw() -> TextIO:
    """Return standard error for a console that escapes what it is given."""
    stream = sys.stderr
    return stream.raw if isinstance(stream, Messages) else stream
