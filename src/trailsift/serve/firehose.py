"""The endpoint that a Firehose stream delivers to, by AWS's specification of requests and answers.

https://docs.aws.amazon.com/firehose/latest/dev/httpdeliveryrequestresponse.html (read 2026-11-30): a request is POSTed
with its id and the access key in headers, its body may be gzip, and it has 3 minutes; 200 means that the stream need
not keep it; 413 means that it will not send it again; after anything else it does. The answer repeats the id.

Nothing of a request is held in memory but the piece that arrives: the body goes to a file, unpacked on the way and
counted while that is done, so neither its size nor what it unpacks to is believed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from isal import isal_zlib
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from trailsift.decode.reading import GZIP_ERRORS
from trailsift.safe_text import safe
from trailsift.serve.writers import Refused, Writers
from trailsift.sources.firehose import Delivery

#: Bytes of a body at most, unpacked: Firehose's own limit, and what no rounding may cost.
LIMIT = (64 << 20) + (1 << 20)
#: Requests that are received or wait for their commit, and their bytes on the disk, at most.
MOST_OPEN, MOST_BYTES = 64, 1 << 30
#: Seconds in which a body has to arrive, and in which it has to be committed: Firehose waits for 3 minutes in all.
RECEIVE, COMMIT = 75.0, 95.0
#: Bytes that are collected before they are unpacked, and unpacked bytes of one step.
_PIECE, _STEP = 256 << 10, 1 << 20
#: Of a request that is refused early, what is still read (bytes and seconds), so that the sender reads the answer.
_DRAINED, _DRAINING = 8 << 20, 2.0
_LONGEST_MESSAGE = 1_000
_ID = re.compile(r"[\x21-\x7e]{1,256}")
_STREAM = re.compile(r"arn:aws[a-z-]*:firehose:[\x21-\x7e]{1,300}")


class AccessKeys:
    """The keys that senders may have: more than one while they are changed."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def has(self, given: str) -> bool:
        """Compare a key with all of ours, in the same time wherever they differ."""
        digest = hashlib.sha256(given.encode("latin-1", "replace")).digest()
        # All of them are compared, whichever is equal.
        return sum(hmac.compare_digest(digest, own) for own in self._digests) > 0


@dataclass(slots=True)
class FirehoseCounts:
    """What the endpoint counts. Used in the event loop alone."""

    answers: Counter[int] = field(default_factory=Counter)
    received_bytes: int = 0
    open: int = 0
    spooled: int = 0


class Endpoint:
    """Takes the requests of streams and has ``writers`` commit them."""

    def __init__(self, keys: tuple[str, ...], writers: Writers) -> None:
        self.counts = FirehoseCounts()
        self._keys = AccessKeys(keys)
        self._writers = writers
        #: By request id and digest: a retry while the first try is at work waits for the same commit.
        self._at_work: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def answer(self, request: Request) -> Response:
        """Handle one request."""
        given = request.headers.get("x-amz-firehose-request-id", "")
        request_id = given if _ID.fullmatch(given) else ""
        try:
            await self._take(request, request_id)
        except Refused as refused:
            return self._response(refused.status, request_id, refused.reason)
        return self._response(200, request_id)

    async def _take(self, request: Request, request_id: str) -> None:
        """Have a request committed. Raise Refused if that is impossible."""
        try:
            _check(request.headers, request_id, self._keys)
            if self.counts.open >= MOST_OPEN or self.counts.spooled >= MOST_BYTES:
                raise Refused(503, "too many requests wait for their commit: send it again later")
        except Refused:
            await _drain(request)
            raise
        self.counts.open += 1
        number = self._writers.next_number()
        assert self._writers.folder is not None
        path = self._writers.folder / f"{number}.json"
        body = _Body(path, packed=request.headers.get("content-encoding", "").lower() == "gzip")
        try:
            await self._receive(request, body)
            stream = request.headers.get("x-amz-firehose-source-arn", "")
            stream = stream if _STREAM.fullmatch(stream) else ""
            await self._commit(Delivery(number, request_id, stream, str(path), body.digest))
        finally:
            body.close()
            self.counts.open -= 1
            self.counts.spooled -= body.size
            self.counts.received_bytes += body.received
            path.unlink(missing_ok=True)

    async def _receive(self, request: Request, body: _Body) -> None:
        is_whole = False
        try:
            async with asyncio.timeout(RECEIVE):
                held = bytearray()
                async for part in request.stream():
                    held += part
                    if len(held) >= _PIECE:
                        await self._add(body, bytes(held))
                        held.clear()
                is_whole = True
                await self._add(body, bytes(held))
                body.end()
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {RECEIVE:.0f} s") from None
        except ClientDisconnect:
            raise Refused(499, "the sender has gone away") from None
        except Refused:
            if not is_whole:
                await _drain(request)
            raise
        except OSError as error:
            raise Refused(503, f"the body cannot be kept: {error.strerror or error}") from error

    async def _add(self, body: _Body, piece: bytes) -> None:
        before = body.size
        try:
            await asyncio.to_thread(body.add, piece)
        finally:
            self.counts.spooled += body.size - before

    async def _commit(self, delivery: Delivery) -> None:
        key = delivery.request_id, delivery.digest
        task = self._at_work.get(key)
        if task is None:
            task = asyncio.create_task(self._writers.deliver(delivery, COMMIT))
            self._at_work[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        # If one of the senders goes away, the others still wait for it.
        await asyncio.shield(task)

    def _done(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        del self._at_work[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            logging.getLogger("trailsift").warning("Firehose request %s: %s", safe(key[0]), safe(str(error)))

    def _response(self, status: int, request_id: str, reason: str = "") -> Response:
        self.counts.answers[status] += 1
        answer: dict[str, str | int] = {"requestId": request_id, "timestamp": int(time.time() * 1000)}
        if reason:
            answer["errorMessage"] = safe(reason)[:_LONGEST_MESSAGE]
        headers = {"retry-after": "30"} if status == 503 else None
        return Response(json.dumps(answer), status, headers, "application/json")

    def gauges(self) -> dict[str, tuple[str, float]]:
        """Return what /metrics shows: name -> (help, value)."""
        counts = self.counts
        ok, all_ = counts.answers[200], counts.answers.total()
        return {
            "firehose_requests_committed": ("Requests of Firehose that were committed", float(ok)),
            "firehose_requests_refused": ("Requests of Firehose that were refused", float(all_ - ok)),
            "firehose_requests_open": ("Requests that are received or wait for their commit", float(counts.open)),
            "firehose_bytes": ("Bytes of bodies that were received", float(counts.received_bytes)),
        }


def _check(headers: Mapping[str, str], request_id: str, keys: AccessKeys) -> None:
    """Raise Refused for headers that no request of ours has. The key comes first: others learn nothing."""
    if not keys.has(headers.get("x-amz-firehose-access-key", "")):
        raise Refused(401, "the access key is missing or wrong")
    if not request_id:
        raise Refused(400, "the header X-Amz-Firehose-Request-Id is missing, or has signs that no id has")
    version = headers.get("x-amz-firehose-protocol-version", "1.0")
    if version.partition(".")[0] != "1":
        raise Refused(400, f"version {version[:20]} of the protocol is not known here: 1.0 is")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(400, f"the content type is {kind[:50]!r}, not application/json")
    encoding = headers.get("content-encoding", "").lower()
    if encoding not in ("", "gzip", "identity"):
        raise Refused(400, f"the content encoding is {encoding[:20]!r}: gzip or none is possible")
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > LIMIT:
        raise Refused(413, f"the body has {length[:20]} bytes: {LIMIT:,} is the limit")


async def _drain(request: Request) -> None:
    """Read what is left of a body, within limits."""
    read = 0
    try:
        async with asyncio.timeout(_DRAINING):
            while read < _DRAINED:
                message = await request.receive()
                read += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        pass


class _Body:
    """The body of a request on its way into a file. Used by one thread at a time."""

    def __init__(self, path: Path, *, packed: bool) -> None:
        self.received = self.size = 0
        self._path = path
        self._file: BinaryIO | None = None
        self._unpack = isal_zlib.decompressobj(wbits=31) if packed else None
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 of the unpacked body."""
        return self._hash.hexdigest()

    def add(self, piece: bytes) -> None:
        """Add a piece as it was sent. Raise Refused if it is too much, or damaged."""
        self.received += len(piece)
        if self._unpack is None:
            self._write(piece)
            return
        is_full = False
        while piece or is_full:
            if self._unpack.eof:
                raise Refused(400, "the gzip body goes on after its end")
            try:
                text = self._unpack.decompress(piece, _STEP)
            except GZIP_ERRORS as error:
                raise Refused(400, f"the body is not gzip: {error}") from None
            self._write(text)
            # A full step may have left more inside, even if all input was taken.
            is_full = len(text) == _STEP and not self._unpack.eof
            piece = self._unpack.unused_data if self._unpack.eof else self._unpack.unconsumed_tail

    def _write(self, text: bytes) -> None:
        if not text:
            return
        self.size += len(text)
        if self.size > LIMIT:
            raise Refused(413, f"the body unpacks to more than {LIMIT:,} bytes")
        if self._file is None:
            self._file = self._path.open("xb")
        self._file.write(text)
        self._hash.update(text)

    def end(self) -> None:
        """End the file. Raise Refused if the body is cut short, or empty."""
        if self._unpack is not None and not self._unpack.eof:
            raise Refused(400, "the gzip body is cut short")
        if self._file is None:
            raise Refused(400, "the body is empty")
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
