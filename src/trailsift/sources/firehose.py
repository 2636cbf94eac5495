"""Requests of Firehose streams as they arrive at the HTTP endpoint (``serve.firehose``): each is one arrival.

A request holds up to 10,000 records in base64, each packed by itself. It becomes log objects of limited size with one
record per line, which the decoder reads as any other log. The source is told when they are committed, and answers the
stream then: a request that was not answered comes again, with the same id.
"""

from __future__ import annotations

import json
import queue
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from trailsift.decode.json_text import INVALID, dump, parse
from trailsift.decode.names import safe_name
from trailsift.sources.arrivals import Arrival, Key, Settled, now
from trailsift.sources.base import LogObject, NotFetchedError

#: Bytes of a log object: a request of 64 MiB may unpack to a gigabyte, and is decoded in parts.
PART_BYTES = 4 << 20
#: What a request of 10,000 records has less of: whatever has more takes much more memory than its size.
_MOST_VALUES = 100_000
#: How far a stream's clock is believed.
_PAST, _FUTURE = timedelta(days=3), timedelta(hours=1)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request that was received whole. ``path``: the file of its body, unpacked; ``digest``: of that body.

    ``number`` is the endpoint's own, ``stream`` the ARN of the Firehose stream.
    """

    number: int
    request_id: str
    stream: str
    path: str
    digest: str


#: Called with the number of a delivery, the HTTP status, and the reason if it was refused.
Answer = Callable[[int, int, str], None]


class BadRequestError(Exception):
    """A request that is not one of Firehose; the message says why."""


@dataclass(frozen=True, slots=True)
class _PartReader:
    """Opens the parts of requests."""

    def open(self, log_object: LogObject) -> BinaryIO:
        """Return the part as a file. Raise NotFetchedError if it is not there: the request is answered with that."""
        try:
            return Path(log_object.path).open("rb")
        except OSError as error:
            raise NotFetchedError("failed", f"the copy of the request is gone: {error.strerror or error}") from error


class FirehoseArrivals:
    """The requests of streams. ``deliver`` may be called by another thread than the others are."""

    def __init__(self, folder: Path, answer: Answer) -> None:
        """``folder``: of our own, for the parts of requests; ``answer`` is called once for each delivery."""
        self._folder = folder
        self._answer = answer
        self._arrived: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._is_closed = False

    def __str__(self) -> str:
        return "the Firehose endpoint"

    def start(self) -> str:
        """Return what is to be said."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return "taking requests of Firehose streams"

    def deliver(self, delivery: Delivery) -> None:
        """Take a request, and remove the file of its body."""
        try:
            if self._is_closed:
                self._answer(delivery.number, 503, "the server is stopping")
                return
            self._arrived.put(self._arrival(delivery))
        except BadRequestError as error:
            self._answer(delivery.number, 400, str(error))
        except (OSError, MemoryError) as error:
            self._answer(delivery.number, 503, f"the request cannot be kept: {error}")
        finally:
            Path(delivery.path).unlink(missing_ok=True)

    def _arrival(self, delivery: Delivery) -> Arrival:
        request = read_request(Path(delivery.path).read_bytes(), delivery.request_id)
        delivered_at = _moment(request.get("timestamp"))
        minute = delivered_at.replace(second=0, microsecond=0)
        # The name and the digest are those of every try: what was committed is not read again.
        name = safe_name(f"firehose/{delivery.stream or 'unknown'}/{delivery.request_id}", 900)
        items = []
        for at, text in enumerate(parts_of(request["records"])):
            path = self._folder / f"{delivery.number}-{at}"
            path.write_bytes(text)
            items.append(
                LogObject(
                    f"{name}/{at:04}", str(path), delivery.digest, len(text), minute, _PartReader(), only_records=True
                )
            )
        return Arrival(tuple(items), time.monotonic(), delivered_at, delivery)

    # -- the seam ----------------------------------------------------------------------------------------------------

    def take(self, seconds: float) -> Sequence[Arrival]:
        """Return what has arrived; wait for up to ``seconds`` if that is nothing."""
        taken: list[Arrival] = []
        try:
            first = self._arrived.get(timeout=seconds)
            while first is not None:
                taken.append(first)
                first = self._arrived.get_nowait()
        except queue.Empty:
            pass
        return taken

    def wake(self) -> None:
        """End a ``take`` that waits."""
        self._arrived.put(None)

    @property
    def caught_up(self) -> bool:
        """True if nothing waits."""
        return self._arrived.empty()

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return self._arrived.qsize()

    def settle(self, arrivals: Sequence[Arrival], missed: Mapping[Key, NotFetchedError]) -> Settled:
        """Answer requests, which are committed, except for those of which a part was missed."""
        settled = Settled()
        for arrival in arrivals:
            lost = [error for item in arrival.log_objects if (error := missed.get((item.name, item.version)))]
            if lost:
                settled.again[arrival.log_objects[0].name] = lost[0].reason
                self._end(arrival, 503, lost[0].reason)
            else:
                self._end(arrival, 200, "")
        return settled

    def give_back(self, arrivals: Sequence[Arrival]) -> None:
        """Have requests come again."""
        for arrival in arrivals:
            self._end(arrival, 503, "the server is stopping, or the lake cannot be written: send it again")

    def _end(self, arrival: Arrival, status: int, reason: str) -> None:
        for item in arrival.log_objects:
            Path(item.path).unlink(missing_ok=True)
        self._answer(arrival.receipt.number, status, reason)

    def close(self) -> None:
        """Refuse what waits, and whatever comes."""
        self._is_closed = True
        self.give_back(self.take(0))
        shutil.rmtree(self._folder, ignore_errors=True)


def read_request(body: bytes, request_id: str) -> dict[str, Any]:
    """Return a request: its ``records`` are a list. Raise BadRequestError if it has another form."""
    if sum(body.count(sign) for sign in (b"{", b"[", b",")) > _MOST_VALUES:
        raise BadRequestError("the body has more values than the 10,000 records of a request take")
    value = parse(body)
    if value is INVALID:
        raise BadRequestError("the body is not JSON")
    if not isinstance(value, dict) or not isinstance(value.get("records"), list):
        raise BadRequestError("the body is not an object with a list of `records`")
    if value.get("requestId", request_id) != request_id:
        raise BadRequestError("the requestId of the body is not that of the header")
    return value


def parts_of(records: Sequence[Any]) -> Iterator[bytes]:
    """Yield texts of limited size, each with one record per line. A record alone may be larger."""
    lines: list[str] = []
    size = 0
    for record in records:
        line = _line(record)
        if lines and size + len(line) > PART_BYTES:
            yield "".join(lines).encode("utf-8", "backslashreplace")
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield "".join(lines).encode("utf-8", "backslashreplace")


def _line(record: Any) -> str:
    data = record.get("data") if isinstance(record, dict) else None
    if isinstance(data, str) and _BASE64.fullmatch(data):
        return f'{{"data":"{data}"}}\n'
    # The decoder says what is wrong with it.
    try:
        return dump(record) + "\n"
    except RecursionError:
        return json.dumps({"data": "nested too deeply"}) + "\n"


def _moment(timestamp: Any) -> datetime:
    """Return when the stream made a request (milliseconds since 1970), or the present if it does not say so."""
    moment = now()
    if isinstance(timestamp, int | float) and not isinstance(timestamp, bool):
        try:
            said = datetime.fromtimestamp(timestamp / 1000, UTC)
        except (OverflowError, ValueError, OSError):
            return moment
        if moment - _PAST < said < moment + _FUTURE:
            return min(said, moment)
    return moment
