"""Bytes of a log object -> the JSON text of each CloudTrail record in it.

Every form is recognized by its content, never by its name: archives are opened (``compression``), then a text is a
``Records`` object, an array, one record per line, records joined with nothing between them, one object over several
lines, or a table (``text_forms``, ``tabular``). The values in it may be wrapped again (``unwrap``): each layer is
opened, down to a limited depth. Nothing raises: parts that cannot be read are in ``Outcome.malformed``, and an object
without a CloudTrail record is described in ``Outcome.not_cloudtrail``.
"""

from __future__ import annotations

from typing import Any

from trailsift.decode.compression import gunzip, gunzip_single_member, unpack
from trailsift.decode.json_text import INVALID, bytes_of, compact, dump_bytes, is_spaced, parse, text_of
from trailsift.decode.landing import events_of, is_dropped, shared_bytes
from trailsift.decode.limits import Budget, OverBudgetError
from trailsift.decode.outcome import RAW_LIMIT, Malformed, NotARecord, Outcome
from trailsift.decode.text_forms import PlainText, is_certain_record, read_text, to_utf8
from trailsift.decode.unwrap import looks_like_record, other_kind, unwrap


def find_records(data: bytes, *, cut: bool = True, damage: str | None = None, budget: Budget | None = None) -> Outcome:
    """Return all records of one log object. Never raises. ``cut=False`` reads every text with a full parser.

    ``damage``: what is wrong with the end of ``data``, if that is known already; ``budget``: that of the file that the
    data comes from.
    """
    outcome = Outcome(budget=Budget(packed=len(data)) if budget is None else budget)
    depth = outcome.budget.limits.layers
    if damage is None and data[:2] == b"\x1f\x8b":
        # The form that CloudTrail delivers takes the shortest way.
        data, damage = gunzip(data, outcome.budget)
        if cut and damage is None and data.isascii() and _split_records(data, outcome):
            return outcome
        depth -= 1
    collector = _RecordCollector(outcome, cut, len(data))
    try:
        collector.unpack(data, depth, damage, whole=True)
    except OverBudgetError as error:
        outcome.malformed.keep(outcome.malformed_part(str(error), b"", -1))
    expected = outcome.budget.only_records
    if outcome.unrecognized and not outcome.records and not outcome.malformed and not expected:
        outcome.ignored.append("JSON, but no CloudTrail record")
    else:
        for part in outcome.unrecognized:
            outcome.malformed.keep(part)
    if not outcome.records and not outcome.malformed:
        if not collector.texts:
            outcome.ignored.append("an empty archive")
        outcome.not_cloudtrail = "; ".join(dict.fromkeys(outcome.ignored)) or None
    return outcome


def single_record(data: bytes) -> bytes | None:
    """Return the text of data that is probably one record, plain or gzip, as AWS writes it; None for anything else.

    Only the ends are examined, which saves a stream of such records the search in ``find_records``. The caller passes
    the data to ``find_records`` if this returns None or if the text does not fit the fast path.
    """
    text = gunzip_single_member(data) if data[:2] == b"\x1f\x8b" else data
    if text is None or not text.startswith(b'{"eventVersion":"') or not text.endswith(b"}") or not text.isascii():
        return None
    return text


# -- CloudTrail's own form, cut without a parser -----------------------------------------------------------------------

_HEAD = b'{"Records":['
_SPLIT = b'},{"eventVersion":'


def _split_records(text: bytes, outcome: Outcome) -> bool:
    """Cut CloudTrail's own form at record boundaries without parsing it; return False for any other form.

    A cut in the wrong place (the same bytes deeper inside a record) does not go unnoticed: the piece before it has an
    open bracket or string, so it is not a complete JSON object. Whoever parses the pieces notices and calls
    ``find_records(data, cut=False)``. The same holds for pieces that are not records: S3's notifications begin alike.
    """
    if not text.startswith(_HEAD):
        return False
    body = text.rstrip()
    if body == b'{"Records":[]}':
        return True
    if not body.endswith(b"}]}") or not body.startswith(_SPLIT[2:], len(_HEAD)):
        return False
    view = memoryview(body)
    start = len(_HEAD)
    end = body.find(_SPLIT, start)
    if is_spaced(body[start : end + 1 if end >= 0 else -2]):
        # The fast path recognizes repeated parts by their bytes, so it needs one spelling.
        return False
    while end >= 0:
        outcome.records.append(view[start : end + 1])
        start = end + 2
        end = body.find(_SPLIT, start)
    outcome.records.append(view[start:-2])
    outcome.cut = True
    return True


# -- every other form --------------------------------------------------------------------------------------------------


class _RecordCollector:
    """Opens the layers of one log object; everything ends up in ``outcome``. The ``Sink`` of ``text_forms``."""

    def __init__(self, outcome: Outcome, cut: bool, size: int) -> None:
        limits = outcome.budget.limits
        self.outcome = outcome
        self.cut = cut
        #: Number of texts unpacked.
        self.texts = 0
        #: Bytes that lines of dropped events may still expand to: each repeats what its events share.
        self.dropped_room = max(limits.dropped_free, limits.dropped * size)

    def unpack(self, data: bytes, depth: int, damage: str | None = None, whole: bool = False) -> None:
        """Read bytes that may be packed. ``whole``: they are the log object itself, not something inside it."""
        for text, broken in unpack(data, self.outcome, depth, damage):
            self.texts += 1
            before = self.outcome.malformed.parts
            self._text(text, depth, -1 if whole else None, broken)
            if broken is not None:
                self._damaged(broken, text, before)

    def _damaged(self, damage: str, text: bytes, before: int) -> None:
        """Count the damage once: as the malformed part at the end of ``text``, if the damage left one there."""
        malformed = self.outcome.malformed
        last = malformed[-1] if malformed.parts > before else None
        tail = (
            last is not None
            and not malformed.folded
            and (len(last.raw) >= RAW_LIMIT or text_of(text[-4096:]).rstrip().endswith(last.raw[-64:].rstrip()))
        )
        if last is not None and tail:
            malformed[-1] = Malformed(last.position, damage, last.raw, last.parts)
        else:
            self.outcome.reject(damage, b"", -1)

    def _text(self, text: bytes, depth: int, position: int | None, damage: str | None = None) -> None:
        """Read the records of one plain text."""
        text = to_utf8(text)
        if self.cut and _split_records(text, self.outcome):
            return
        stripped = text.strip(b" \t\r\n\0") if damage else text.strip()
        if not stripped:
            self.outcome.reject("empty", b"", position)
        elif depth <= 0:
            self.outcome.reject("wrapped too deeply", stripped, position)
        else:
            cut_short = damage is not None and not text.endswith(b"\n")
            read_text(PlainText(stripped, depth, cut_short), position, self)

    def element(self, text: bytes, depth: int) -> None:
        """Take the JSON text of an element of a list."""
        text = text.strip()
        if is_certain_record(text):
            self.outcome.records.append(compact(text))
        else:
            self.value(parse(text), depth, text)

    def value(self, value: Any, depth: int, raw: bytes | None = None) -> None:
        """Take a parsed value: a record, an envelope, a recognized object that is neither, or nothing usable."""
        if isinstance(value, dict):
            try:
                self._object(value, depth, raw)
            except RecursionError:
                # An object that could just be parsed may be nested too deeply to be written again.
                self.outcome.reject("nested too deeply", raw or b"")
        elif depth <= 0:
            self.outcome.reject("wrapped too deeply", raw or b"")
        elif isinstance(value, bytes):
            self.unpack(value, depth - 1)
        elif isinstance(value, str):
            text = bytes_of(value)
            if depth > 1 and text[:1] == b"{" and is_certain_record(text):
                # A message as services write it: no other form needs to be tried.
                self.outcome.records.append(compact(text))
            else:
                self._text(text, depth - 1, None)
        elif value is INVALID:
            self.outcome.reject("not JSON", raw or b"")
        else:
            self.outcome.reject("not a JSON object", dump_bytes(value) if raw is None else raw)

    def _object(self, value: dict[str, Any], depth: int, raw: bytes | None) -> None:
        outcome = self.outcome
        kind = other_kind(value)
        if kind is not None:
            outcome.ignored.append(kind)
            return
        if looks_like_record(value):
            outcome.records.append(dump_bytes(value) if raw is None else compact(raw))
            return
        try:
            inner = self._dropped_events(value) if is_dropped(value) else unwrap(value)
        except NotARecord as error:
            outcome.reject(str(error), dump_bytes(value) if raw is None else raw)
            return
        if inner is None:
            text = dump_bytes(value) if raw is None else raw
            outcome.unrecognized.keep(outcome.malformed_part("not a CloudTrail record", text))
            outcome.budget.take_malformed(1, len(outcome.records))
        elif depth <= 0:
            outcome.reject("wrapped too deeply", dump_bytes(value) if raw is None else raw)
        else:
            if not inner and value.keys() != {"Records"}:
                outcome.ignored.append("an envelope with nothing in it")
            for item in inner:
                self.value(item, depth - 1)

    def _dropped_events(self, value: dict[str, Any]) -> list[Any] | None:
        """Return the events of a dropped line. Raise NotARecord if the line is not usable or expands to too much."""
        events = events_of(value)
        if events:
            size = shared_bytes(value) * len(events)
            if size > self.dropped_room:
                raise NotARecord("a line of dropped events that expands to too much: it is not read")
            self.dropped_room -= size
        return events
