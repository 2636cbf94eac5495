"""GET requests, many at a time: each worker process fetches what it was told to read, ahead of reading it.

Threads that call obstore were the fastest of the ways tried (bench/TRIED.md). Memory is bounded by the bytes fetched
and not yet read; an object too large for that is streamed into a private temporary file when its turn comes.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO

from trailsift.errors import S3Error
from trailsift.sources.base import LogObject, NotFetchedError
from trailsift.storage.s3_client import SCHEME, Bucket, Failure, explained, failure_of, is_client_error, process_key

if TYPE_CHECKING:
    from obstore.store import S3Store

#: Requests at a time, and bytes and objects that are fetched and not yet read: of one process.
THREADS, AHEAD_BYTES, AHEAD_OBJECTS = 32, 64 << 20, 512
#: How the names of these threads begin: a command that is interrupted does not wait for their requests.
THREAD_NAME = "s3-get"
#: An object of more bytes is not held in memory.
LARGE = 32 << 20
#: Tries of one object whose body breaks off, and the first pause in seconds; obstore itself retries requests.
_TRIES, _PAUSE = 4, 0.2
#: Objects that fail one after the other, after which the place itself is the problem.
_IN_A_ROW = 20
#: Failures of the place rather than of an object.
_OF_THE_PLACE = frozenset({"denied", "credentials", "bucket", "region", "busy", "network"})
#: How the version of an object begins whose server gives no ETag.
NO_ETAG = "size="


@dataclass(frozen=True)
class S3Reader:
    """Opens the objects of a bucket, in whatever process it is."""

    bucket: Bucket

    def open(self, log_object: LogObject) -> BinaryIO:
        """Return an object's bytes. Raise NotFetchedError if it cannot be had, S3Error if none can be had any more."""
        fetcher = _current.get((self.bucket, os.getpid())) or self._fetcher()
        return fetcher.take(log_object)

    def expect(self, log_objects: Sequence[LogObject]) -> None:
        """Fetch objects ahead, in this order."""
        self._fetcher().expect(log_objects)

    def _fetcher(self) -> Fetcher:
        """Return the fetcher of this process with the settings that it has now."""
        fetcher = _current[self.bucket, os.getpid()] = _fetcher(self.bucket, process_key())
        return fetcher


class Fetcher:
    """The requests of one process for the objects of one bucket."""

    def __init__(self, bucket: Bucket, connection: S3Store) -> None:
        self._bucket = bucket
        self._connection = connection
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=THREAD_NAME)
        self._lock = threading.Lock()
        self._waiting: deque[LogObject] = deque()
        self._fetched: dict[tuple[str, str], Future[bytes]] = {}
        #: Bytes that are fetched, or being fetched, and not yet taken.
        self.held = 0
        self._failed_in_a_row = 0

    def expect(self, log_objects: Sequence[LogObject]) -> None:
        """Note what is to be fetched, and begin with it."""
        with self._lock:
            self._waiting += [item for item in log_objects if item.size <= LARGE and item.problem is None]
            self._fill()

    def _fill(self) -> None:
        """Send requests for what comes next, as far as there is room. Only under the lock."""
        while (
            self._waiting
            and len(self._fetched) < AHEAD_OBJECTS
            and (self.held + self._waiting[0].size <= AHEAD_BYTES or not self._fetched)
        ):
            item = self._waiting.popleft()
            self.held += item.size
            self._fetched[item.name, item.version] = self._threads.submit(self._fetch, item)

    def take(self, item: LogObject) -> BinaryIO:
        """Return an object's bytes, when they are there."""
        with self._lock:
            future = self._fetched.pop((item.name, item.version), None)
            if future is None and self._waiting and self._waiting[0] is item:
                self._waiting.popleft()
        try:
            if future is None:
                opened = self._stream(item) if item.size > LARGE else io.BytesIO(self._fetch(item))
            else:
                opened = io.BytesIO(future.result())
        except NotFetchedError as error:
            self._note_failure(item, error)
            raise
        finally:
            if future is not None:
                with self._lock:
                    self.held -= item.size
                    self._fill()
        self._failed_in_a_row = 0
        return opened

    def close(self) -> None:
        """Send no more requests; those that are on their way end by themselves."""
        with self._lock:
            self._waiting.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _note_failure(self, item: LogObject, error: NotFetchedError) -> None:
        """Raise S3Error if too many objects failed one after the other."""
        failure = getattr(error, "failure", None)
        if failure is None or failure.kind not in _OF_THE_PLACE:
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= _IN_A_ROW:
            raise self._explained(item, failure) from error

    def _explained(self, item: LogObject, failure: Failure) -> S3Error:
        return explained(failure, f"{SCHEME}{self._bucket.name}/{item.path}", "s3:GetObject")

    def _fetch(self, item: LogObject) -> bytes:
        data: bytes = self._tried(item, lambda answer: answer.bytes().to_bytes(), lambda answer: answer["Body"].read())
        return data

    def _stream(self, item: LogObject) -> BinaryIO:
        """Copy a large object into a file that has no name."""
        file = tempfile.TemporaryFile(prefix="trailsift-object-")  # noqa: SIM115 - the caller closes it

        def write(pieces: Any) -> BinaryIO:
            file.seek(0)
            file.truncate()
            for piece in pieces:
                file.write(piece)
            file.flush()
            return file

        try:
            self._tried(
                item,
                lambda answer: write(answer.stream(min_chunk_size=4 << 20)),
                lambda answer: write(answer["Body"].iter_chunks(4 << 20)),
            )
        except BaseException:
            file.close()
            raise
        return file

    def _tried(self, item: LogObject, read: Any, read_boto: Any) -> Any:
        """Get an object and return what ``read`` makes of the answer, if it is whole. Raise NotFetchedError if not."""
        problem = Failure("network", "the answer broke off")
        for number in range(_TRIES):
            if number:
                time.sleep(_PAUSE * 2**number)
            try:
                result = self._got(item, read, read_boto)
                length = len(result) if isinstance(result, bytes) else result.tell()
                if length == item.size:
                    return result
                problem = Failure("network", f"only {length:,} of {item.size:,} bytes came")
            except Exception as error:
                if isinstance(error, S3Error):
                    raise _not_fetched("failed", str(error), Failure("credentials", str(error))) from error
                problem = failure_of(error)
                if not (is_client_error(error) or isinstance(error, OSError)):
                    raise
                if problem.kind in ("missing", "changed"):
                    raise _missed(problem) from error
                if problem.kind not in ("network", "other"):
                    break
        raise _not_fetched("failed", str(self._explained(item, problem)), problem)

    def _got(self, item: LogObject, read: Any, read_boto: Any) -> Any:
        e_tag = None if item.version.startswith(NO_ETAG) else item.version
        if e_tag is not None and not e_tag.startswith("W/"):
            e_tag = f'"{e_tag}"'
        if _is_odd(item.path):
            options = {} if e_tag is None else {"IfMatch": e_tag}
            if self._bucket.requester_pays:
                options["RequestPayer"] = "requester"
            return read_boto(self._bucket.client.get_object(Bucket=self._bucket.name, Key=item.path, **options))
        return read(self._connection.get(item.path, options={"if_match": e_tag}))


def _is_odd(key: str) -> bool:
    """Return whether obstore refuses a key: boto3 gets it."""
    return not key or any(part in ("", ".", "..") for part in key.split("/"))


def _missed(problem: Failure) -> NotFetchedError:
    if problem.kind == "missing":
        return _not_fetched("deleted", "it was deleted after it was listed", problem)
    return _not_fetched("replaced", "it was replaced after it was listed: the next run reads it", problem)


def _not_fetched(kind: Any, reason: str, failure: Failure) -> NotFetchedError:
    error = NotFetchedError(kind, reason)
    error.failure = failure  # type: ignore[attr-defined]
    return error


#: The fetchers that objects were last expected from: to look at all settings for each object would take too long.
_current: dict[tuple[Bucket, int], Fetcher] = {}


def close_fetchers() -> None:
    """End the threads of this process."""
    while _current:
        _current.popitem()[1].close()
    _fetcher.cache_clear()


@lru_cache(maxsize=16)
def _fetcher(bucket: Bucket, process: tuple[int, int]) -> Fetcher:
    return Fetcher(bucket, bucket.connection)
