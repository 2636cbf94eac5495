"""What a Firehose stream's batch becomes: decided here, sent nowhere.

For each input record AWS wants one answer: ``Ok`` with data and the partition it lands in, ``Dropped`` (unwanted, and
that is fine) or ``ProcessingFailed`` (AWS keeps the original in the error output). An input record may hold many
events, and an answer lands in one partition, so:

- the events of the record's first partition go back in its answer;
- the events of other partitions, what would make the answer larger than Lambda may return, and the dropped lines that
  count what rules took away, are sent to the stream again (``Batch.again``). They come back as landing lines, which
  pass unchanged.
- a record of which a part cannot be read fails, so that AWS keeps it; the events in it are sent like the others.

What is in ``again`` and cannot be sent fails the input records that it came from: nothing is lost without a trace.
"""

from __future__ import annotations

import binascii
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from trailsift.aws.transform.reader import Reader, columns_of
from trailsift.aws.transform.writer import Writer
from trailsift.decode import landing
from trailsift.decode import record as careful
from trailsift.decode.envelope import find_records, single_record
from trailsift.decode.json_text import parse
from trailsift.decode.landing import Dropped, LandingPartition
from trailsift.decode.outcome import NotARecord
from trailsift.decode.unwrap import looks_like_record

Result = Literal["Ok", "Dropped", "ProcessingFailed"]

#: Lambda returns at most 6 MB (6,291,556 bytes), base64 and the JSON around it included.
#: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ANSWER_BYTES = 6_200_000
#: JSON around the data of one answer, at most: the record's id, the keys and signs.
_AROUND = 400
#: A stream takes records up to 1,000 KiB. https://docs.aws.amazon.com/firehose/latest/dev/limits.html
RECORD_BYTES = 1_000 * 1024
#: Decides on a row: the rule that takes it (None: none) and the weight it is kept with, 0 where it is not.
Decide = Callable[[Mapping[str, Any]], "tuple[str | None, float]"]


class Pair(NamedTuple):
    """What metrics tell apart."""

    service: str
    event_name: str


@dataclass(slots=True)
class Tally:
    """What became of everything in a batch: events = kept + all dropped; malformed parts come on top."""

    records: int = 0
    events: Counter[Pair] = field(default_factory=Counter)
    kept: Counter[Pair] = field(default_factory=Counter)
    bytes: Counter[Pair] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    malformed: int = 0
    passed: int = 0
    sent: int = 0
    failed: int = 0


@dataclass(slots=True)
class Piece:
    """A record for the stream: lines of one partition, and the input records that they came from."""

    where: LandingPartition
    data: bytes
    origin: set[int]


@dataclass(slots=True)
class Answer:
    """The answer to one input record."""

    result: Result
    data: bytes = b""
    where: LandingPartition | None = None


@dataclass(slots=True)
class Batch:
    """The answers to a batch in its order, what has to be sent to the stream again, and the counts."""

    answers: list[Answer] = field(default_factory=list)
    again: list[Piece] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    #: Why records failed, for the log: number of the record and reason.
    reasons: list[tuple[int, str]] = field(default_factory=list)

    def fail(self, pieces: Iterable[Piece]) -> None:
        """These could not be sent: the records that they came from fail, so that AWS keeps them."""
        for number in sorted({number for piece in pieces for number in piece.origin}):
            if self.answers[number].result != "ProcessingFailed":
                self.answers[number] = Answer("ProcessingFailed")
                self.tally.failed += 1
                self.reasons.append((number, "its other events could not be sent to the stream"))

    def keep_here(self) -> None:
        """Puts what should be sent into the answers, where there is no stream to send it to (a call by hand).

        An answer has one partition, so a plain reader finds such events in another one's folder; ``ingest`` does not
        care.
        """
        for piece in self.again:
            for number in sorted(piece.origin):
                answer = self.answers[number]
                if answer.result == "Ok":
                    answer.data += piece.data
                    break
            else:
                if piece.where.service != landing.DROPPED:
                    self.answers[min(piece.origin)] = Answer("Ok", piece.data, piece.where)
        self.again = []


class _Read(NamedTuple):
    """One event: its line, where that lands, its name in metrics, its columns, and its size as a record in bytes."""

    line: bytes
    where: LandingPartition
    pair: Pair
    columns: Callable[[], dict[str, Any]]
    size: int
    #: The rule and the weight, where it was decided on before.
    decided: tuple[str | None, float] | None


class Transform:
    """Turns batches into answers. One is kept as long as a Lambda environment lives: it remembers what repeats."""

    def __init__(self, decide: Decide | None = None, omit: Iterable[str] = ()) -> None:
        self.decide = decide
        self._reader = Reader()
        self._writer = Writer(omit)

    def batch(self, data: list[object]) -> Batch:
        """``data`` is that of the batch's records, base64 text as AWS gives it. Nothing raises."""
        batch = Batch()
        run = _Run(self, batch)
        for number, text in enumerate(data):
            batch.tally.records += 1
            try:
                answer = run.answer(number, text)
            except Exception as error:
                # One record that nobody foresaw must not fail the batch; AWS keeps it in the error output.
                answer = run.failed(number, f"unforeseen {type(error).__name__}: {error}")
            batch.answers.append(answer)
        run.finish()
        return batch

    def regular(self, raw: bytes | memoryview) -> _Read | None:
        """One regular record as an event line; None for anything else."""
        got = self._reader.read(raw)
        if got is None:
            return None
        user, line, own = got
        text, where = self._writer.regular(user, line, own)
        pair = Pair(where.service, line.columns["event_name"])
        return _Read(text, where, pair, lambda: columns_of(user, line, own), len(raw), None)

    def read(self, raw: bytes | memoryview) -> _Read:
        """One record text as an event line. NotARecord where it is none."""
        found = self.regular(raw)
        if found is not None:
            return found
        value = parse(bytes(raw))
        if not isinstance(value, dict) or not looks_like_record(value):
            raise NotARecord("not a CloudTrail record")
        row = careful.row(value, "")
        where = landing.partition_of(row["event_time"], row["service"])
        pair = Pair(where.service, row["event_name"] or "")
        if landing.is_event(value):
            # Decided on when it was written.
            decided = str(value.get("dropped_by", "")), row["weight"]
            return _Read(self._writer.row(row, row["weight"]), where, pair, lambda: row, len(raw), decided)
        return _Read(self._writer.row(row), where, pair, lambda: row, len(raw), None)

    def weighed(self, columns: Mapping[str, Any], weight: float) -> bytes:
        """The line of a sampled event."""
        return self._writer.row(columns, weight)


class _Run:
    """One batch on its way."""

    def __init__(self, transform: Transform, batch: Batch) -> None:
        self.transform = transform
        self.batch = batch
        self.dropped = Dropped()
        self.others: dict[LandingPartition, list[tuple[bytes, int]]] = defaultdict(list)
        self.dropping: dict[LandingPartition, set[int]] = defaultdict(set)
        self.size = 1_000

    def failed(self, number: int, reason: str) -> Answer:
        """A record that goes to the error output."""
        self.batch.tally.failed += 1
        self.batch.reasons.append((number, reason[:500]))
        return Answer("ProcessingFailed")

    def answer(self, number: int, text: object) -> Answer:
        """The answer to one input record."""
        try:
            data = binascii.a2b_base64(text if isinstance(text, str | bytes) else b"!", strict_mode=True)
        except (binascii.Error, ValueError):
            return self.failed(number, "its data is not base64")
        where = passing(data)
        if where is not None:
            self.batch.tally.passed += 1
            return self._sized(number, data, where)
        alone = single_record(data)
        event = self.transform.regular(alone) if alone is not None else None
        events, reasons = ([event], []) if event is not None else self._found(data)
        kept = self._kept(number, events)
        if reasons:
            # AWS keeps the original; what is good in it goes on.
            self.batch.tally.malformed += len(reasons)
            for where, line in kept:
                self.others[where].append((line, number))
            return self.failed(number, reasons[0])
        if not kept:
            return Answer("Dropped")
        first = kept[0][0]
        own = b"".join(line for where, line in kept if where == first)
        for where, line in kept:
            if where != first:
                self.others[where].append((line, number))
        return self._sized(number, own, first)

    def _found(self, data: bytes) -> tuple[list[_Read], list[str]]:
        """The events in an input record of any form, and what is wrong with its other parts."""
        found = find_records(data)
        events, malformed = self._read(found.records)
        if found.cut and malformed:
            # Cut in the wrong place somewhere: read it whole, as `columnar` does.
            found = find_records(data, cut=False)
            events, malformed = self._read(found.records)
        reasons = [bad.reason for bad in found.malformed for _ in range(bad.parts)] + malformed
        if not found.records and not reasons and "no CloudTrail record" in (found.not_cloudtrail or ""):
            reasons = [found.not_cloudtrail or ""]
        return events, reasons

    def _read(self, raws: Iterable[bytes | memoryview]) -> tuple[list[_Read], list[str]]:
        """The events of an input record, and what is wrong with the others."""
        events: list[_Read] = []
        malformed: list[str] = []
        for raw in raws:
            try:
                events.append(self.transform.read(raw))
            except NotARecord as error:
                malformed.append(str(error))
        return events, malformed

    def _kept(self, number: int, events: list[_Read]) -> list[tuple[LandingPartition, bytes]]:
        """The lines that rules leave, and where they land; the others are counted."""
        kept: list[tuple[LandingPartition, bytes]] = []
        tally, decide = self.batch.tally, self.transform.decide
        for event in events:
            tally.events[event.pair] += 1
            tally.bytes[event.pair] += event.size
            line = event.line
            if event.decided is not None or decide is not None:
                columns = event.columns()
                rule, weight = event.decided or (decide or _keep)(columns)
                if weight == 0:
                    self.dropping[self.dropped.add(columns, rule or "")].add(number)
                    tally.dropped[rule or ""] += 1
                    continue
                if weight != 1 and event.decided is None:
                    line = self.transform.weighed(columns, weight)
            tally.kept[event.pair] += 1
            kept.append((event.where, line))
        return kept

    def _sized(self, number: int, data: bytes, where: LandingPartition) -> Answer:
        """The answer where it still fits into what Lambda may return; else it is sent."""
        size = (len(data) + 2) // 3 * 4 + _AROUND
        if self.size + size > ANSWER_BYTES:
            for line in data.splitlines(keepends=True):
                self.others[where].append((line, number))
            return Answer("Dropped")
        self.size += size
        return Answer("Ok", data, where)

    def finish(self) -> None:
        """Packs what is to be sent."""
        for where, line in self.dropped.lines():
            self._pack(where, [(line, self.dropping[where])])
        for where, lines in self.others.items():
            self._pack(where, [(line, {number}) for line, number in lines])

    def _pack(self, where: LandingPartition, lines: list[tuple[bytes, set[int]]]) -> None:
        texts: list[bytes] = []
        origin: set[int] = set()
        size = 0
        for line, numbers in lines:
            if texts and size + len(line) > RECORD_BYTES:
                self.batch.again.append(Piece(where, b"".join(texts), origin))
                texts, origin, size = [], set(), 0
            texts.append(line)
            origin |= numbers
            size += len(line)
        self.batch.again.append(Piece(where, b"".join(texts), origin))


def _keep(columns: Mapping[str, Any]) -> tuple[str | None, float]:
    return None, 1.0


def passing(data: bytes) -> LandingPartition | None:
    """The partition of landing lines that come back from the stream; None where the data is anything else."""
    if not data.startswith((b'{"event_time":"', b'{"dropped_by":"')):
        return None
    value = parse(data[: data.find(b"\n") + 1 or len(data)])
    if not isinstance(value, dict):
        return None
    service = landing.DROPPED if landing.is_dropped(value) else value.get("service")
    fields = [*(value.get(name) for name in LandingPartition._fields[:4]), service]
    texts = [each for each in fields if isinstance(each, str)]
    return LandingPartition(*texts) if len(texts) == len(fields) else None
