"""Send records to a Firehose stream."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

#: PutRecordBatch takes 500 records or 4 MiB. https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html
CALL_RECORDS = 500
CALL_BYTES = 4 << 20
#: Seconds to wait before the second and each further attempt, plus a little random jitter.
WAITS = (0.1, 0.4, 1.0, 2.0, 4.0)


class DeliveryStream(Protocol):
    """A stream that takes records."""

    def put(self, records: Sequence[bytes]) -> list[int]:
        """Send records; return the numbers of those that could not be sent after all attempts."""


class FirehoseClient(Protocol):
    """The part of boto3's Firehose client that is used here."""

    def put_record_batch(self, *, DeliveryStreamName: str, Records: list[dict[str, bytes]]) -> dict[str, Any]:
        """PutRecordBatch."""


class FirehoseStream:
    """A stream reached through boto3, which Lambda's Python runtimes include."""

    def __init__(
        self, name: str, client: FirehoseClient | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.name = name
        self._client = client
        self._sleep = sleep

    @property
    def client(self) -> FirehoseClient:
        """Created on first use: most batches send nothing, and importing boto3 is slow."""
        if self._client is None:
            import boto3

            self._client = boto3.client("firehose")
        return self._client

    def put(self, records: Sequence[bytes]) -> list[int]:
        """Send records, retrying refused ones after growing pauses; return the numbers of those never sent."""
        left = list(range(len(records)))
        for wait in (0.0, *WAITS):
            if wait:
                self._sleep(wait * random.uniform(1, 1.25))  # noqa: S311  (spreads retries)
            left = [number for call in _calls(records, left) for number in self._call(records, call)]
            if not left:
                break
        return left

    def _call(self, records: Sequence[bytes], numbers: list[int]) -> list[int]:
        """Make one call; return the numbers of the records that it did not accept."""
        try:
            response = self.client.put_record_batch(
                DeliveryStreamName=self.name, Records=[{"Data": records[number]} for number in numbers]
            )
        except Exception as error:
            # Whatever the error, the records were not sent; the caller counts them as failed.
            print(f'{{"level":"error","message":"PutRecordBatch to {self.name} failed: {type(error).__name__}"}}')
            return numbers
        if not response.get("FailedPutCount"):
            return []
        results = response.get("RequestResponses", [])
        return [number for number, result in zip(numbers, results, strict=True) if result.get("ErrorCode")]


def _calls(records: Sequence[bytes], numbers: list[int]) -> Iterator[list[int]]:
    """Yield the numbers of records for each call, as many as one call takes."""
    call: list[int] = []
    size = 0
    for number in numbers:
        if call and (len(call) == CALL_RECORDS or size + len(records[number]) > CALL_BYTES):
            yield call
            call, size = [], 0
        call.append(number)
        size += len(records[number])
    if call:
        yield call
