"""LIST requests, many at a time: folders of a bucket are walked down to those that may hold the wanted log objects.

obstore lists fast and refuses keys with an empty part (``logs//AWSLogs``, which a trail with a slash too many writes),
even if only one object of a page has one; such folders are listed by boto3.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from trailsift.storage.s3_client import SCHEME, Bucket, failure_of, is_client_error, s3_errors

#: LIST requests at a time, and keys in an answer.
LISTS, PAGE = 64, 1000
_T = TypeVar("_T")


class Entry(NamedTuple):
    """An object in an answer."""

    key: str
    size: int
    e_tag: str | None
    modified: datetime


class Children(NamedTuple):
    """What is directly in a folder: folders, each with ``/`` at its end, and objects."""

    folders: list[str]
    objects: list[Entry]


@dataclass
class Lister:
    """Lists a bucket. Folders end in ``/``; the empty one is the bucket itself. Methods raise S3Error."""

    bucket: Bucket
    requests: int = 0
    #: Seconds of all requests that return one page.
    seconds: float = 0.0
    timed: int = 0
    #: Folders that obstore cannot list.
    _odd: set[str] = field(default_factory=set)

    async def children(self, folder: str) -> Children:
        """Return what is directly in a folder."""
        self.requests += 1
        started = time.monotonic()
        with s3_errors(f"{SCHEME}{self.bucket.name}/{folder}", "s3:ListBucket"):
            try:
                found = await self._children(folder)
            except Exception as error:
                if not _is_odd(error):
                    raise
                found = await asyncio.to_thread(self._children_by_boto, folder)
        self.seconds += time.monotonic() - started
        self.timed += 1
        return found

    async def _children(self, folder: str) -> Children:
        found = await self.bucket.connection.list_with_delimiter_async(folder.rstrip("/") or None)
        objects = [_entry(meta) for meta in found["objects"]]
        return Children(
            [f"{path}/" for path in found["common_prefixes"]],
            [entry for entry in objects if entry.key.startswith(folder) and entry.key != folder],
        )

    def _children_by_boto(self, folder: str) -> Children:
        folders, objects = [], []
        for page in self._pages_of_children(folder):
            folders += page.folders
            objects += page.objects
        return Children(folders, objects)

    def _pages_of_children(self, folder: str) -> Iterator[Children]:
        pages = self.bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket.name, Prefix=folder, Delimiter="/", **_payer(self.bucket)
        )
        for page in pages:
            yield Children(
                [part["Prefix"] for part in page.get("CommonPrefixes", ())],
                [_boto_entry(item) for item in page.get("Contents", ())],
            )

    async def many_children(self, folder: str) -> AsyncIterator[Children]:
        """Yield what is directly in a folder a page each: for one with folders and more objects than can be held."""
        with s3_errors(f"{SCHEME}{self.bucket.name}/{folder}", "s3:ListBucket"):
            pages = self._pages_of_children(folder)
            # obstore returns all of them at once.
            while (page := await asyncio.to_thread(next, pages, None)) is not None:
                self.requests += 1
                yield page

    async def pages(self, folder: str, after: str | None = None) -> AsyncIterator[list[Entry]]:
        """Yield the objects under a folder in the order of their keys, only those after a key, a page each."""
        last = after
        with s3_errors(f"{SCHEME}{self.bucket.name}/{folder}", "s3:ListBucket"):
            try:
                stream = self.bucket.connection.list(folder.rstrip("/") or None, offset=after, chunk_size=PAGE)
                async for batch in stream:
                    self.requests += 1
                    entries = [entry for meta in batch if (entry := _entry(meta)).key.startswith(folder)]
                    if entries:
                        last = entries[-1].key
                        yield entries
                self.requests += last == after
            except Exception as error:
                if not _is_odd(error):
                    raise
                async for entries in self._pages_by_boto(folder, last):
                    yield entries

    async def _pages_by_boto(self, folder: str, after: str | None) -> AsyncIterator[list[Entry]]:
        start = {"StartAfter": after} if after else {}
        while True:
            self.requests += 1
            page = await asyncio.to_thread(
                self.bucket.client.list_objects_v2,
                Bucket=self.bucket.name, Prefix=folder, **start, **_payer(self.bucket),
            )  # fmt: skip
            yield [_boto_entry(item) for item in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return
            start = {"ContinuationToken": page["NextContinuationToken"]}

    async def object(self, key: str) -> Entry | None:
        """Return one object; None if there is none with this key. Needs s3:GetObject instead of s3:ListBucket."""
        with s3_errors(f"{SCHEME}{self.bucket.name}/{key}", "s3:GetObject"):
            self.requests += 1
            try:
                return _entry(await self.bucket.connection.head_async(key))
            except FileNotFoundError as error:
                if failure_of(error).kind == "bucket":
                    raise
                return None
            except Exception as error:
                if not _is_odd(error):
                    raise
            return await asyncio.to_thread(self._object_by_boto, key)

    def _object_by_boto(self, key: str) -> Entry | None:
        try:
            found = self.bucket.client.head_object(Bucket=self.bucket.name, Key=key, **_payer(self.bucket))
        except Exception as error:
            if is_client_error(error) and failure_of(error).kind == "missing":
                return None
            raise
        return Entry(key, found["ContentLength"], found["ETag"], found["LastModified"])


def _entry(meta: Any) -> Entry:
    return Entry(meta["path"], meta["size"], meta["e_tag"], meta["last_modified"])


def _boto_entry(item: Any) -> Entry:
    return Entry(item["Key"], item["Size"], item.get("ETag"), item["LastModified"])


def _payer(bucket: Bucket) -> dict[str, str]:
    return {"RequestPayer": "requester"} if bucket.requester_pays else {}


def _is_odd(error: Exception) -> bool:
    """Return whether obstore refuses a key that S3 takes."""
    return type(error).__name__ == "InvalidPathError" or "Could not parse path" in str(error)


#: One piece of work; it returns what is to be done next.
Step = Callable[[], Coroutine[Any, Any, "Sequence[Step]"]]


async def work_off(steps: Sequence[Step], at_once: int = LISTS) -> None:
    """Do steps and those that they return, the newest first, so that few wait at any time. The first error ends all."""
    waiting = list(steps)
    running: set[asyncio.Task[Sequence[Step]]] = set()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.add(asyncio.ensure_future(waiting.pop()()))
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                waiting += task.result()
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


def in_thread(
    coroutine: Coroutine[Any, Any, _T], meanwhile: Callable[[], None] | None = None, every: float = 0.25
) -> _T:
    """Run a coroutine in a thread of its own, since the caller may be in a running loop; return or raise its outcome.

    ``meanwhile`` is called every so many seconds.
    """
    outcome: list[_T] = []
    errors: list[BaseException] = []
    loop = asyncio.new_event_loop()
    main = loop.create_task(coroutine)

    def run() -> None:
        try:
            outcome.append(loop.run_until_complete(main))
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(every)
            if meanwhile is not None and thread.is_alive():
                meanwhile()
    except BaseException:
        loop.call_soon_threadsafe(main.cancel)
        thread.join(10)
        raise
    if errors:
        raise errors[0]
    return outcome[0]
