"""The one place that speaks to a Firehose stream."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

#: PutRecordBatch takes 500 records or 4 MiB. https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html
CALL_RECORDS = 500
CALL_BYTES = 4 << 20
#: Seconds to wait before the second and each further trial; a little is added by chance.
WAITS = (0.1, 0.4, 1.0, 2.0, 4.0)


class Stream(Protocol):
    """What is needed of a stream."""

    def put(self, records: Sequence[bytes]) -> list[int]:
        """Sends records; the numbers of those that could not be sent after all trials."""


class Client(Protocol):
    """What is needed of boto3's Firehose client."""

    def put_record_batch(self, *, DeliveryStreamName: str, Records: list[dict[str, bytes]]) -> dict[str, Any]:
        """PutRecordBatch."""


class FirehoseStream:
    """A stream behind boto3, which every Lambda environment of Python has."""

    def __init__(self, name: str, client: Client | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self.name = name
        self._client = client
        self._sleep = sleep

    @property
    def client(self) -> Client:
        """Made when it is first needed: most batches send nothing, and boto3 takes its time to import."""
        if self._client is None:
            import boto3

            self._client = boto3.client("firehose")
        return self._client

    def put(self, records: Sequence[bytes]) -> list[int]:
        """Sends records, those that were refused again with growing pauses; the numbers of those that never went."""
        left = list(range(len(records)))
        for wait in (0.0, *WAITS):
            if wait:
                self._sleep(wait * random.uniform(1, 1.25))
            left = [number for call in _calls(records, left) for number in self._call(records, call)]
            if not left:
                break
        return left

    def _call(self, records: Sequence[bytes], numbers: list[int]) -> list[int]:
        """One call; the numbers that it did not take."""
        try:
            answer = self.client.put_record_batch(
                DeliveryStreamName=self.name, Records=[{"Data": records[number]} for number in numbers]
            )
        except Exception as error:
            # Whatever it was, the records are not sent; the caller counts them as failed.
            print(f'{{"level":"error","message":"PutRecordBatch to {self.name} failed: {type(error).__name__}"}}')
            return numbers
        if not answer.get("FailedPutCount"):
            return []
        answers = answer.get("RequestResponses", [])
        return [number for number, one in zip(numbers, answers, strict=True) if one.get("ErrorCode")]


def _calls(records: Sequence[bytes], numbers: list[int]) -> Iterator[list[int]]:
    """Numbers of records, as many together as one call takes."""
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
