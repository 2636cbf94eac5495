"""Decide what each record of a Firehose batch becomes; nothing is sent from here.

AWS expects one response per input record: ``Ok`` with data and the partition it lands in, ``Dropped`` (deliberately) or
``ProcessingFailed`` (AWS keeps the original in the error output). An input record may hold many events, but a response
lands in one partition, so:

- events of the partition with most bytes go into its response;
- events of other partitions, events that would make the response larger than Lambda may return, and the dropped lines
  that count what rules removed are sent to the stream again (``TransformResponse.resend``), compressed, because the
  quota of a stream counts the bytes that it is sent. They come back as landing lines, which pass unchanged;
- a record with an unreadable part fails, so that AWS keeps it; its readable events are sent to the stream.

If a resent record cannot be sent, the input records that its lines came from fail: nothing is lost without a trace.
"""

from __future__ import annotations

import binascii
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from trailsift.aws.transform.reader import RecordReader, join_columns
from trailsift.aws.transform.writer import LandingWriter
from trailsift.decode import landing, record
from trailsift.decode.envelope import find_records, single_record
from trailsift.decode.json_text import parse
from trailsift.decode.landing import Dropped, LandingPartition
from trailsift.decode.limits import Budget, Limits
from trailsift.decode.outcome import NotARecord
from trailsift.decode.unwrap import looks_like_record

ResultCode = Literal["Ok", "Dropped", "ProcessingFailed"]

#: Lambda returns at most 6 MB (6,291,556 bytes), including base64 and the JSON around it.
#: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_RESPONSE_BYTES = 6_200_000
#: Upper bound of the JSON around the data of one response: the record's id, keys and punctuation.
_RESPONSE_OVERHEAD = 400
#: Firehose accepts records up to 1,000 KiB. https://docs.aws.amazon.com/firehose/latest/dev/limits.html
RECORD_BYTES = 1_000 * 1024
#: Lines in a record that is sent again, in bytes: compressed they are a tenth, and a batch of them must fit a response.
RESEND_BYTES = 512 << 10
#: What a batch may unpack to, and each of its records: the function has 1,024 MB and two minutes for all of them.
LIMITS = Limits(free=256 << 20, growth=60, log_object=64 << 20, document=64 << 20)
#: Decides on a row: the name of the rule that matches (None: none), and the weight to keep it with, 0 to drop it.
Decide = Callable[[Mapping[str, Any]], "tuple[str | None, float]"]


class ServiceAction(NamedTuple):
    """The dimensions of a metric."""

    service: str
    event_name: str


@dataclass(slots=True)
class BatchCounts:
    """Counts of one batch: events = kept + dropped by all rules. Malformed parts are counted in addition."""

    records: int = 0
    events: Counter[ServiceAction] = field(default_factory=Counter)
    kept: Counter[ServiceAction] = field(default_factory=Counter)
    bytes: Counter[ServiceAction] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    malformed: int = 0
    passed: int = 0
    sent: int = 0
    #: Input records that AWS keeps in the error output. Events that got no further than there are in no ``kept``.
    failed: int = 0


@dataclass(slots=True)
class StreamRecord:
    """A record to send to the stream: lines of one partition, and the numbers of the input records they came from."""

    partition: LandingPartition
    data: bytes
    origins: set[int]


@dataclass(slots=True)
class RecordResponse:
    """The response for one input record."""

    result: ResultCode
    data: bytes = b""
    partition: LandingPartition | None = None


@dataclass(slots=True)
class TransformResponse:
    """The responses for a batch, in its order, the records to send to the stream again, and counts."""

    records: list[RecordResponse] = field(default_factory=list)
    resend: list[StreamRecord] = field(default_factory=list)
    counts: BatchCounts = field(default_factory=BatchCounts)
    #: For the log: number of a failed record, and the reason.
    failures: list[tuple[int, str]] = field(default_factory=list)
    #: Number of an input record -> its events that rules kept.
    kept_of: dict[int, Counter[ServiceAction]] = field(default_factory=dict)

    def fail_origins(self, unsent: Iterable[StreamRecord]) -> None:
        """Fail the input records behind records that could not be sent, so that AWS keeps them."""
        for number in sorted({number for stream_record in unsent for number in stream_record.origins}):
            if self.records[number].result != "ProcessingFailed":
                self.records[number] = RecordResponse("ProcessingFailed")
                self.counts.failed += 1
                self.counts.kept -= self.kept_of.get(number, Counter())
                self.failures.append((number, "its other events could not be sent to the stream"))

    def resend_in_place(self) -> None:
        """Move the records to resend into the responses, for an invocation without a stream (by hand).

        A response has one partition, so these events end up in another partition's folder. ``ingest`` does not care,
        but a query that prunes by partition misses them.
        """
        for stream_record in self.resend:
            for number in sorted(stream_record.origins):
                response = self.records[number]
                if response.result == "Ok":
                    response.data += stream_record.data
                    break
            else:
                if stream_record.partition.service != landing.DROPPED:
                    number = min(stream_record.origins)
                    self.records[number] = RecordResponse("Ok", stream_record.data, stream_record.partition)
        self.resend = []


class _Event(NamedTuple):
    """One event as its landing line, with partition, metric dimensions, columns, and record size in bytes."""

    line: bytes
    partition: LandingPartition
    action: ServiceAction
    columns: Callable[[], dict[str, Any]]
    size: int
    #: Rule and weight, if the decision was made earlier.
    decided: tuple[str | None, float] | None


class Transform:
    """Turns batches into responses. Keep one per Lambda environment: it caches what repeats."""

    def __init__(self, decide: Decide | None = None, omit: Iterable[str] = ()) -> None:
        self.decide = decide
        self._reader = RecordReader()
        self._writer = LandingWriter(omit)

    def batch(self, data: list[object]) -> TransformResponse:
        """Transform a batch. ``data`` is that of its records, base64 text as AWS passes it. Nothing raises."""
        response = TransformResponse()
        size = sum(len(text) for text in data if isinstance(text, str | bytes))
        batch = _BatchTransform(self, response, Budget(LIMITS, size))
        for number, text in enumerate(data):
            response.counts.records += 1
            try:
                record_response = batch.respond(number, text)
            except Exception as error:
                # One unexpected record must not fail the batch; AWS keeps it in the error output.
                record_response = batch.fail(number, f"unexpected {type(error).__name__}: {error}")
            response.records.append(record_response)
        batch.finish()
        return response

    def regular(self, raw: bytes | memoryview) -> _Event | None:
        """Return a regular record as an event; None for anything else."""
        parts = self._reader.read(raw)
        if parts is None:
            return None
        caller, call, own = parts
        if not own.event_id:
            return None
        line, partition = self._writer.regular(caller, call, own)
        action = ServiceAction(partition.service, call.columns["event_name"])
        return _Event(line, partition, action, lambda: join_columns(caller, call, own), len(raw), None)

    def read(self, raw: bytes | memoryview) -> _Event:
        """Return any record's text as an event. Raise NotARecord if it is not a record."""
        event = self.regular(raw)
        if event is not None:
            return event
        value = parse(bytes(raw))
        if not isinstance(value, dict) or not looks_like_record(value):
            raise NotARecord("not a CloudTrail record")
        row = record.row(value, "")
        if not row["event_id"]:
            raise NotARecord("an empty eventID")
        partition = landing.partition_of(row["event_time"], row["service"])
        action = ServiceAction(partition.service, row["event_name"] or "")
        if landing.is_event(value):
            # The decision was made when the line was written.
            decided = str(value.get("dropped_by", "")), row["weight"]
            line = self._writer.row(row, row["weight"])
            return _Event(line, partition, action, lambda: row, len(raw), decided)
        return _Event(self._writer.row(row), partition, action, lambda: row, len(raw), None)

    def sampled_line(self, columns: Mapping[str, Any], weight: float) -> bytes:
        """Return the line of a sampled event."""
        return self._writer.row(columns, weight)


class _BatchTransform:
    """The state of one batch while it is transformed."""

    def __init__(self, transform: Transform, response: TransformResponse, budget: Budget) -> None:
        self.transform = transform
        self.response = response
        #: All records draw on it, each of them only so much.
        self.budget = budget
        self.dropped = Dropped()
        #: LandingPartition -> lines to resend, each with the number of its input record.
        self.resend: dict[LandingPartition, list[tuple[bytes, int]]] = defaultdict(list)
        #: LandingPartition of dropped lines -> input records whose events they count.
        self.dropped_origins: dict[LandingPartition, set[int]] = defaultdict(set)
        self.response_size = 1_000
        #: Lines that no stream accepts: one of them would fail the call for all others.
        self.too_long: list[StreamRecord] = []

    def fail(self, number: int, reason: str) -> RecordResponse:
        """Count a failure and return the response that sends the record to the error output."""
        self.response.counts.failed += 1
        self.response.failures.append((number, reason[:500]))
        return RecordResponse("ProcessingFailed")

    def respond(self, number: int, text: object) -> RecordResponse:
        """Return the response for one input record."""
        try:
            data = binascii.a2b_base64(text if isinstance(text, str | bytes) else b"!", strict_mode=True)
        except (binascii.Error, ValueError):
            return self.fail(number, "its data is not base64")
        data = resent(data) or data
        partition = landing_partition(data)
        if partition is not None:
            self.response.counts.passed += 1
            return self._fit(number, data, partition)
        single = single_record(data)
        event = self.transform.regular(single) if single is not None else None
        events, reasons = ([event], []) if event is not None else self._read_all(data)
        kept = self._apply_rules(number, events)
        if reasons:
            # AWS keeps the original; its readable events are sent on.
            self.response.counts.malformed += len(reasons)
            for partition, line in kept:
                self.resend[partition].append((line, number))
            return self.fail(number, reasons[0])
        if not kept:
            return RecordResponse("Dropped")
        sizes: Counter[LandingPartition] = Counter()
        for partition, line in kept:
            sizes[partition] += len(line)
        largest = max(sizes, key=sizes.__getitem__)
        own = b"".join(line for partition, line in kept if partition == largest)
        for partition, line in kept:
            if partition != largest:
                self.resend[partition].append((line, number))
        return self._fit(number, own, largest)

    def _read_all(self, data: bytes) -> tuple[list[_Event], list[str]]:
        """Return the events in an input record of any form, and the reasons why its other parts are malformed."""
        self.budget.begin_object()
        left = self.budget.snapshot()
        found = find_records(data, budget=self.budget)
        events, malformed = self._read(found.records)
        if found.cut and malformed:
            # Some record was cut in the wrong place: parse the whole document instead, as `ingest` does.
            self.budget.restore(left)
            found = find_records(data, cut=False, budget=self.budget)
            events, malformed = self._read(found.records)
        reasons = [bad.reason for bad in found.malformed for _ in range(bad.parts)] + malformed
        if not found.records and not reasons and "no CloudTrail record" in (found.not_cloudtrail or ""):
            reasons = [found.not_cloudtrail or ""]
        return events, reasons

    def _read(self, raws: Iterable[bytes | memoryview]) -> tuple[list[_Event], list[str]]:
        """Return the events of these records, and the reasons why others are malformed."""
        events: list[_Event] = []
        malformed: list[str] = []
        for raw in raws:
            try:
                events.append(self.transform.read(raw))
            except NotARecord as error:
                malformed.append(str(error))
        return events, malformed

    def _apply_rules(self, number: int, events: list[_Event]) -> list[tuple[LandingPartition, bytes]]:
        """Return partition and line of the events that rules keep; count all of them."""
        kept: list[tuple[LandingPartition, bytes]] = []
        kept_actions: Counter[ServiceAction] = Counter()
        counts, decide = self.response.counts, self.transform.decide
        for event in events:
            counts.events[event.action] += 1
            counts.bytes[event.action] += event.size
            line = event.line
            if event.decided is not None or decide is not None:
                columns = event.columns()
                rule, weight = event.decided or (decide or _keep)(columns)
                if weight == 0:
                    self.dropped_origins[self.dropped.add(columns, rule or "")].add(number)
                    counts.dropped[rule or ""] += 1
                    continue
                if weight != 1 and event.decided is None:
                    line = self.transform.sampled_line(columns, weight)
            kept_actions[event.action] += 1
            kept.append((event.partition, line))
        counts.kept += kept_actions
        self.response.kept_of[number] = kept_actions
        return kept

    def _fit(self, number: int, data: bytes, partition: LandingPartition) -> RecordResponse:
        """Return the data as a response if it still fits into what Lambda may return; otherwise resend it."""
        size = (len(data) + 2) // 3 * 4 + _RESPONSE_OVERHEAD
        if self.response_size + size > MAX_RESPONSE_BYTES:
            for line in data.splitlines(keepends=True):
                self.resend[partition].append((line, number))
            return RecordResponse("Dropped")
        self.response_size += size
        return RecordResponse("Ok", data, partition)

    def finish(self) -> None:
        """Pack the lines to resend into records."""
        for partition, line in self.dropped.lines():
            self._pack(partition, [(line, self.dropped_origins[partition])])
        for partition, lines in self.resend.items():
            self._pack(partition, [(line, {number}) for line, number in lines])
        self.response.fail_origins(self.too_long)

    def _pack(self, partition: LandingPartition, lines: list[tuple[bytes, set[int]]]) -> None:
        texts: list[bytes] = []
        origins: set[int] = set()
        size = 0
        for line, numbers in lines:
            if len(line) > RECORD_BYTES:
                self.too_long.append(StreamRecord(partition, line, numbers))
                continue
            if texts and size + len(line) > RESEND_BYTES:
                self.response.resend.append(StreamRecord(partition, b"".join(texts), origins))
                texts, origins, size = [], set(), 0
            texts.append(line)
            origins |= numbers
            size += len(line)
        if texts:
            self.response.resend.append(StreamRecord(partition, b"".join(texts), origins))


def _keep(columns: Mapping[str, Any]) -> tuple[str | None, float]:
    return None, 1.0


_GZIP = b"\x1f\x8b"
_LINES = (b'{"event_time":"', b'{"dropped_by":"')


def compressed(lines: bytes) -> bytes:
    """Return lines as they are sent to the stream again."""
    packer = zlib.compressobj(3, zlib.DEFLATED, 31)
    return packer.compress(lines) + packer.flush()


def resent(data: bytes) -> bytes | None:
    """Return the lines in a record that was sent again; None for any other record, which is not unpacked here."""
    if not data.startswith(_GZIP):
        return None
    unpacker = zlib.decompressobj(31)
    try:
        begin = unpacker.decompress(data, len(_LINES[0]))
        if not begin.startswith(_LINES):
            return None
        lines = begin + unpacker.decompress(unpacker.unconsumed_tail, RECORD_BYTES)
    except zlib.error:
        return None
    return lines if unpacker.eof and not unpacker.unused_data else None


def landing_partition(data: bytes) -> LandingPartition | None:
    """Return the partition of landing lines that can land as they are; None if the data is anything else.

    Anybody who can write into the stream can write lines. What is not exactly as our writers write it is read, checked
    and written again, or fails.
    """
    if not data.startswith(_LINES) or not data.endswith(b"\n") or b"\r" in data:
        return None
    partitions = {landing.partition_of_line(line) for line in data[:-1].split(b"\n")}
    partition = partitions.pop()
    return partition if not partitions else None
