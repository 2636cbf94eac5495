"""The forms in which a plain text holds records: which one it is, and the values in it.

Each reader of ``_FORMS`` recognizes one form. It hands the values of the text to a ``Sink`` one by one and returns
True, or returns False and leaves the sink untouched. If no reader matches, the text is damaged or not JSON, and
``_salvage`` recovers what it can.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import msgspec

from trailsift.decode import tabular
from trailsift.decode.json_text import INVALID, bytes_of, compact, parse, text_of
from trailsift.decode.outcome import Outcome
from trailsift.decode.unwrap import looks_like_record

#: After damage in a list, the number of places at which reading is tried again, and the characters parsed at all of
#: them together, in lengths of the text: a damaged text costs a few times as much as a valid one, whatever is in it.
_RESUME_LIMIT = 1_000
_RESUME_LENGTHS = 4


class PlainText(NamedTuple):
    """A text without an archive around it and without blanks at its ends."""

    data: bytes
    #: Layers that may still be opened inside it.
    depth: int
    #: Whether it may end in the middle of a line.
    cut_short: bool


class Sink(Protocol):
    """Takes the values in a text; whatever cannot be a value goes straight into ``outcome``."""

    outcome: Outcome

    def element(self, text: bytes, depth: int) -> None:
        """Take the JSON text of an element of a list."""

    def value(self, value: Any, depth: int, raw: bytes | None = None) -> None:
        """Take a parsed value; ``raw`` is its text if there is one."""


def read_text(text: PlainText, position: int | None, sink: Sink) -> None:
    """Hand the values of a text to ``sink``. A text that is not JSON is rejected at ``position``."""
    values = sink.outcome.budget.limits.values
    if len(text.data) > 2 * values and _most_values(text.data) > values:
        sink.outcome.reject(f"more than {values:,} values in one text: it is not read", text.data[:200], position)
        return
    for read in _FORMS:
        if read(text, sink):
            return
    _salvage(text_of(text.data), text.depth, position, sink)


def _most_values(text: bytes) -> int:
    """Return the number of commas or of opening brackets, whichever is larger: at least half as many as values."""
    return max(text.count(b","), text.count(b"[") + text.count(b"{"))


def to_utf8(text: bytes) -> bytes:
    """Return UTF-8 without a byte order mark; other bytes become U+FFFD. UTF-16 is read if its mark says so."""
    if text.isascii():
        return text
    if text[:3] == codecs.BOM_UTF8:
        text = text[3:]
    elif text[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return text.decode("utf-16", "replace").encode("utf-8", "replace")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("utf-8", "replace").encode("utf-8")
    return text


# -- records recognized by their text --------------------------------------------------------------------------------


class _RecordProbe(msgspec.Struct):
    """The members by which an object is recognized as a record without a closer look."""

    eventSource: str
    eventName: str
    eventTime: str
    eventCategory: str = ""


_decode_probe = msgspec.json.Decoder(_RecordProbe).decode


def is_certain_record(raw: bytes | msgspec.Raw) -> bool:
    """Return whether a text is a record for certain; takes about a microsecond."""
    try:
        record = _decode_probe(raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return record.eventSource.endswith(".amazonaws.com") and record.eventCategory != "Aggregated"


# -- forms -----------------------------------------------------------------------------------------------------------


class _LogEvent(msgspec.Struct):
    message: str


class _LogBatch(msgspec.Struct):
    """A batch that a CloudWatch Logs subscription delivers."""

    logEvents: list[_LogEvent]


class _RecordsObject(msgspec.Struct):
    Records: list[msgspec.Raw]


_LOG_BATCH = b'{"messageType":"DATA_MESSAGE"'
_decode_log_batch = msgspec.json.Decoder(_LogBatch).decode
_decode_records = msgspec.json.Decoder(_RecordsObject).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode

#: The first characters of JSON texts: any other text is not copied for parsing, however large it is.
_BEGINS = frozenset(bytes([sign]) for sign in b'{["-0123456789tfnNI')
#: CloudWatch Logs writes the time before each message when it exports to S3.
_EXPORTED = re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z (\{.*)", re.DOTALL)


def _read_log_batch(text: PlainText, sink: Sink) -> bool:
    """Read a batch of CloudWatch Logs as it writes it; ``unwrap`` handles any other spelling."""
    if not text.data.startswith(_LOG_BATCH):
        return False
    try:
        events = _decode_log_batch(text.data).logEvents
    except (msgspec.DecodeError, RecursionError):
        return False
    for event in events:
        sink.value(event.message, text.depth - 1)
    return bool(events)


def _read_records(text: PlainText, sink: Sink) -> bool:
    """Read ``{"Records": [...]}`` with any spacing and order of keys."""
    try:
        records = _decode_records(text.data).Records
    except (msgspec.DecodeError, RecursionError):
        return False
    for raw in records:
        sink.element(bytes(raw), text.depth)
    return True


def _read_array(text: PlainText, sink: Sink) -> bool:
    """Read a bare array of records or envelopes."""
    if text.data[:1] != b"[":
        return False
    try:
        records = _decode_array(text.data)
    except (msgspec.DecodeError, RecursionError):
        # Python's json takes what is strictly no JSON, as lone surrogates: one of them must not reject all records.
        values = parse(text.data)
        if not isinstance(values, list):
            return False
        for value in values:
            sink.value(value, text.depth)
        return True
    if not records:
        sink.outcome.ignored.append("an empty list")
    for raw in records:
        sink.element(bytes(raw), text.depth)
    return True


def _read_table(text: PlainText, sink: Sink) -> bool:
    """Read a table with a header. Only if the text does not begin like JSON: the header's cells may be quoted."""
    data, depth, cut_short = text
    if data[:1] in (b"{", b"[") or not tabular.has_header(text_of(data[: tabular.HEADER_LIMIT])):
        return False
    rows = tabular.read_csv(text_of(data))
    if rows is None:
        return False
    empty = True
    for row in rows:
        empty = False
        if row.record is None or (cut_short and row.last):
            sink.outcome.reject(row.reason or "a row cut short", bytes_of(row.text))
        else:
            sink.value(row.record, depth)
    if empty:
        sink.outcome.ignored.append("a table without rows")
    return True


def _read_lines(text: PlainText, sink: Sink) -> bool:
    """Read one JSON value per line, or several joined; a line that is not JSON is rejected, the others are used."""
    first = list(islice(_lines_of(text.data), 2))
    if not any(map(_is_json, first)):
        return False
    if text.data[:1] in (b"{", b"[") and not _is_json(first[0]) and parse(text.data) is not INVALID:
        # One value over several lines, of which the second happens to be JSON too.
        return False
    _take_lines(text, sink)
    return True


def _take_lines(text: PlainText, sink: Sink) -> None:
    records, depth = sink.outcome.records, text.depth
    for line in _lines_of(text.data):
        if is_certain_record(line):
            records.append(compact(line))
            continue
        match = _EXPORTED.fullmatch(line)
        line = match[1] if match else line
        value = parse(line)
        if value is not INVALID or not _read_joined(PlainText(line, depth, False), sink):
            sink.value(value, depth, line)


def _read_value(text: PlainText, sink: Sink) -> bool:
    """Read one JSON value, which may span several lines."""
    value = parse(text.data) if text.data[:1] in _BEGINS else INVALID
    if value is INVALID:
        return False
    if isinstance(value, list):
        for item in value:
            sink.value(item, text.depth - 1)
    else:
        sink.value(value, text.depth, text.data)
    return True


def _read_joined(text: PlainText, sink: Sink) -> bool:
    """Read objects with nothing, blanks or line ends between them, as Firehose joins them."""
    if text.data[:1] != b"{":
        return False
    string = text_of(text.data)
    value, end = _next_object(string, 0)
    if value is INVALID:
        return False
    start = 0
    while value is not INVALID:
        sink.value(value, text.depth, bytes_of(string[start:end]))
        start = _skip(string, end)
        value, end = _next_object(string, start)
    if start < len(string):
        _salvage(string[start:], text.depth, None, sink)
    return True


def _read_some_lines(text: PlainText, sink: Sink) -> bool:
    """Read lines some of which are records, whatever the first ones are."""
    if _list_start(text_of(text.data[:_LIST_WITHIN])) is not None:
        return False
    if not any(is_certain_record(line) or _EXPORTED.match(line) for line in _lines_of(text.data)):
        return False
    _take_lines(text, sink)
    return True


#: Tried in this order: the cheap and exact forms first; those that tolerate damage last.
_FORMS: tuple[Callable[[PlainText, Sink], bool], ...] = (
    _read_log_batch,
    _read_records,
    _read_array,
    # Before lines: a table's header may be a line of one quoted word, which is JSON too.
    _read_table,
    # Before one value: a single line is both, and only the line reader names broken lines.
    _read_lines,
    _read_value,
    _read_joined,
    _read_some_lines,
)


def _lines_of(text: bytes) -> Iterator[bytes]:
    """Yield the non-blank lines one at a time: a text may consist of nothing but line ends."""
    return filter(None, map(bytes.strip, io.BytesIO(text)))


def _is_json(text: bytes) -> bool:
    return is_certain_record(text) or (text.lstrip()[:1] in _BEGINS and parse(text) is not INVALID)


# -- damage ----------------------------------------------------------------------------------------------------------

_decoder = json.JSONDecoder()
_BLANK = re.compile(r"[\s,]*")
#: The list in an envelope that is cut short or damaged.
_LIST = re.compile(r'"(?:Records|records|Events|Messages|logEvents|events)"\s*:\s*\[')
#: Characters within which that list must begin.
_LIST_WITHIN = 4096
_RESUME = re.compile(r'\}\s*,?\s*(?=\{\s*")')


def _salvage(string: str, depth: int, position: int | None, sink: Sink) -> None:
    """Take every complete record of a text that is cut or damaged, and reject each damaged stretch."""
    start = _list_start(string)
    if start is not None:
        _salvage_list(string, start, depth, sink)
        return
    # The beginning may be missing: a part of a log that begins inside a record.
    start = _resume(string, 0, _Trials(_RESUME_LIMIT, _RESUME_LENGTHS * len(string)))
    if start < len(string):
        sink.outcome.reject("JSON cut short or damaged", bytes_of(string[:start]))
        _salvage_list(string, start, depth, sink, damaged=True)
    else:
        reason = "not valid JSON" if string[:1] in ("{", "[") else "not JSON"
        sink.outcome.reject(reason, bytes_of(string), position)


def _salvage_list(string: str, at: int, depth: int, sink: Sink, *, damaged: bool = False) -> None:
    """Take the elements of a list from ``at`` on; reject each damaged stretch.

    ``damaged``: the damage is known; otherwise what follows the list is rejected if nothing in it is.
    """
    trials = _Trials(_RESUME_LIMIT, _RESUME_LENGTHS * len(string))
    at = _skip(string, at)
    while at < len(string) and string[at] != "]":
        value, end = _next_object(string, at)
        if value is INVALID:
            end = _resume(string, at, trials)
            sink.outcome.reject("JSON cut short or damaged", bytes_of(string[at:end]))
            damaged = True
        else:
            sink.value(value, depth)
        at = _skip(string, end)
    if not damaged:
        # Every element is complete: the damage is after them.
        sink.outcome.reject("JSON cut short or damaged", bytes_of(string[at:]))


def _list_start(string: str) -> int | None:
    """Return where the elements of the outermost list begin in a text that cannot be parsed."""
    if string.startswith("["):
        return 1
    match = _LIST.search(string, 0, _LIST_WITHIN) if string.startswith("{") else None
    # A list of that name inside an inner object does not count.
    return match.end() if match and "{" not in string[1 : match.start()] else None


def _skip(string: str, at: int) -> int:
    """Return the position after the blanks and commas at ``at``."""
    match = _BLANK.match(string, at)
    return match.end() if match else at


def _next_object(string: str, at: int) -> tuple[Any, int]:
    """Return the object at ``at`` and its end, or INVALID and ``at``."""
    at = _skip(string, at)
    if not string.startswith("{", at):
        return INVALID, at
    try:
        return _decoder.raw_decode(string, at)
    except (ValueError, RecursionError):
        return INVALID, at


@dataclass(slots=True)
class _Trials:
    """What may still be tried after damage: places, and characters parsed there."""

    places: int
    characters: int

    def parse(self, string: str, at: int) -> Any:
        """Return the value at ``at``, or INVALID, and count what that cost."""
        self.places -= 1
        try:
            value, end = _decoder.raw_decode(string, at)
        except json.JSONDecodeError as error:
            # A string without an end is reported at its beginning.
            self.characters -= (len(string) if "nterminated" in error.msg else error.pos) - at
            return INVALID
        except (ValueError, RecursionError):
            self.characters -= _UNKNOWN_COST
            return INVALID
        self.characters -= end - at
        return value


#: Characters counted for a value that is nested too deeply, or a number that is too long.
_UNKNOWN_COST = 100_000


def _resume(string: str, at: int, trials: _Trials) -> int:
    """Return where the next record after damage at ``at`` begins."""
    for match in _RESUME.finditer(string, at):
        if trials.places <= 0 or trials.characters <= 0:
            break
        value = trials.parse(string, match.end())
        # Objects inside the damaged record are skipped.
        if isinstance(value, dict) and looks_like_record(value):
            return match.end()
    return len(string)
