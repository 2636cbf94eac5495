"""Log objects that a queue of SQS names, as S3 sends its notifications there.

Threads receive messages and keep them from other receivers for as long as the work on them takes. A message is deleted
when its log objects are committed, and not before: whatever happens, it comes again. One that fails again and again is
left to the queue's own redrive policy; a queue without one has it written to ``rejects``, and then deleted.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from trailsift.aws.client import aws_errors, create_client
from trailsift.decode.names import safe_name
from trailsift.errors import SourceError, TrailsiftError, UsageError
from trailsift.sources.arrivals import Arrival, Key, Settled, Trouble, now
from trailsift.sources.base import LogObject, NotFetchedError, delivery_minute
from trailsift.sources.s3_fetch import S3Reader, close_fetchers
from trailsift.sources.s3_notices import Notice, Notices, read_message, senders, shown
from trailsift.storage.s3_client import Bucket, failure_of, is_client_error

T = TypeVar("T")

#: Receives after which a message is set aside.
MAX_RECEIVES = 5
#: Seconds for which a received message is kept from others, which is renewed at a third of it.
VISIBLE_AFTER = 60
#: Seconds that a receiver waits for messages, which costs one request: at first, and later.
_FIRST_WAIT, _WAIT = 1, 10
#: Messages of one request, receivers at most, and messages that are held here.
_BATCH, _RECEIVERS, _HELD = 10, 8, 4000
#: Seconds after which a message comes again that failed, for each of its receives, and at most.
_AGAIN, _AGAIN_LIMIT = 10, 600
#: Foreign messages, before any of S3, after which the queue is taken for another one.
_FOREIGN = 3
#: Seconds until the next try after a failure of the queue, at most, and from when on it is said.
_LONGEST_PAUSE, _SAID_AFTER = 30.0, 3
#: Failures of the network or of a whole bucket: no reason to set a message aside.
_PASSING = frozenset({"busy", "network", "credentials", "region", "bucket"})
_URL = re.compile(r"https?://[^/\s]+/(?:[^/\s]+/)*[A-Za-z0-9_-]{1,80}(?:\.fifo)?/?")
_ARN = re.compile(r"arn:aws[a-z-]*:sqs:([a-z0-9-]+):(\d{12}):([A-Za-z0-9_-]{1,80}(?:\.fifo)?)")
_HOST_REGION = re.compile(r"https://(?:sqs\.([a-z0-9-]+)\.amazonaws\.com|([a-z0-9-]+)\.queue\.amazonaws\.com)")


@dataclass(slots=True)
class Message:
    """A received message that is not settled."""

    id: str
    handle: str
    body: str
    receives: int
    sent: datetime
    #: When it becomes visible to others (monotonic seconds).
    until: float
    #: Why it is set aside, if it is; and its objects that are gone.
    set_aside: str = ""
    gone: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class QueueCounts:
    """What the queue gave: messages received and deleted, objects that are no logs, test events, foreign messages,
    and how often messages were kept for longer."""

    received: int = 0
    deleted: int = 0
    other_objects: int = 0
    tests: int = 0
    foreign: int = 0
    extended: int = 0


class QueueArrivals:
    """The log objects that the messages of one queue name."""

    def __init__(
        self,
        place: str,
        trouble: Trouble,
        *,
        buckets: Iterable[str] = (),
        max_receives: int = MAX_RECEIVES,
        visible_after: int = VISIBLE_AFTER,
        requester_pays: bool = False,
    ) -> None:
        """``buckets``: the only ones that are read. Raise UsageError if ``place`` is not the URL or ARN of a queue."""
        arn = _ARN.fullmatch(place)
        if not arn and not _URL.fullmatch(place):
            raise UsageError(f"{safe_name(place, 200)} is not a queue: name its URL or its ARN")
        if place.rstrip("/").endswith(".fifo"):
            raise UsageError(f"{safe_name(place, 200)}: S3 sends no notifications to FIFO queues")
        self._place = place
        host = _HOST_REGION.match(place)
        self._client = create_client("sqs", arn[1] if arn else (host[1] or host[2]) if host else None)
        self._url = place
        self._trouble = trouble
        self._buckets = frozenset(buckets)
        self._said_buckets: set[str] = set()
        self._readers: dict[str, S3Reader] = {}
        self._requester_pays = requester_pays
        self._max_receives = max_receives
        self._visible_after = visible_after
        self._has_redrive = False
        self.counts = QueueCounts()
        self._lock = threading.Lock()
        self._open: dict[str, Message] = {}
        self._arrived: queue.SimpleQueue[Arrival] = queue.SimpleQueue()
        self._is_closed = threading.Event()
        self._failed: TrailsiftError | None = None
        self._receivers: list[threading.Thread] = []
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="sqs")
        #: Deletes what is committed, while the next group is gathered.
        self._deletes = ThreadPoolExecutor(1, thread_name_prefix="sqs-delete")
        self._last_empty = 0.0
        self._is_ours = False

    def __str__(self) -> str:
        return safe_name(self._place, 200)

    # -- start and stop --------------------------------------------------------------------------------------------

    def start(self) -> str:
        """Begin to receive. Raise TrailsiftError if the queue cannot be used."""
        arn = _ARN.fullmatch(self._place)
        region = self._client.meta.region_name
        with aws_errors(f"the queue {self}", region):
            if arn:
                answer = self._client.get_queue_url(QueueName=arn[3], QueueOwnerAWSAccountId=arn[2])
                self._url = answer["QueueUrl"]
            found = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=["All"])["Attributes"]
        self._has_redrive = "RedrivePolicy" in found
        named = senders(found.get("Policy"))
        if not self._buckets and named:
            self._buckets = named
        for _ in range(2):
            self._receiver()
        threading.Thread(target=self._keep, daemon=True, name="sqs-keep").start()
        only = f", which names objects of {', '.join(sorted(self._buckets))}" if self._buckets else ""
        aside = (
            "a message that fails is left to its redrive policy"
            if self._has_redrive
            else f"a message that fails {self._max_receives} times is written to `rejects` and deleted, because the "
            "queue has no redrive policy"
        )
        return f"watching the queue {self}{only}; {aside}"

    def _receiver(self) -> None:
        thread = threading.Thread(target=self._receive, daemon=True, name="sqs-receive")
        self._receivers.append(thread)
        thread.start()

    def close(self) -> None:
        """Stop receiving; messages that were not settled are given back."""
        self._is_closed.set()
        self._deletes.shutdown(wait=True)
        with self._lock:
            left = list(self._open.values())
        self._change(left, 0)
        self._threads.shutdown(wait=True)
        close_fetchers()

    # -- receive ---------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        """Receive messages until the end."""
        failures = 0
        while not self._is_closed.is_set():
            if len(self._open) >= _HELD:
                self._is_closed.wait(0.05)
                continue
            try:
                with aws_errors(f"receiving from the queue {self}", self._client.meta.region_name):
                    answer = self._client.receive_message(
                        QueueUrl=self._url,
                        MaxNumberOfMessages=_BATCH,
                        WaitTimeSeconds=_WAIT if self._last_empty else _FIRST_WAIT,
                        VisibilityTimeout=self._visible_after,
                        AttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
                    )
            except TrailsiftError as error:
                failures += 1
                if failures == _SAID_AFTER:
                    self._trouble(f"{error}. The watch goes on, and tries again")
                self._is_closed.wait(min(2.0**failures, _LONGEST_PAUSE))
                continue
            failures = 0
            received = [message for raw in answer.get("Messages", []) if (message := self._message(raw))]
            if self._is_closed.is_set():
                self._change(received, 0)
                return
            self._take_in(received)
            if len(received) == _BATCH and len(self._receivers) < _RECEIVERS:
                self._receiver()
            elif not received:
                self._last_empty = time.monotonic()

    def _message(self, raw: Mapping[str, Any]) -> Message | None:
        attributes = raw.get("Attributes", {})
        try:
            receives = int(attributes.get("ApproximateReceiveCount", 1))
            sent = datetime.fromtimestamp(int(attributes["SentTimestamp"]) / 1000, UTC)
        except (KeyError, ValueError, OverflowError):
            receives, sent = 1, now()
        until = time.monotonic() + self._visible_after
        return Message(raw["MessageId"], raw["ReceiptHandle"], raw.get("Body", ""), receives, min(sent, now()), until)

    def _take_in(self, messages: Sequence[Message]) -> None:
        """Note messages, and hand on the log objects that they name."""
        with self._lock:
            self.counts.received += len(messages)
            self._open.update((message.id, message) for message in messages)
        done = []
        for message in messages:
            said = read_message(message.body, message.sent)
            self.counts.other_objects += said.other
            self.counts.tests += said.is_test
            problem = said.problem or self._refused(said)
            if problem:
                self._foreign(message, problem)
                continue
            self._is_ours = True
            if said.notices:
                self._threads.submit(self._hand_on, message, said.notices)
            else:
                done.append(message)
        self._delete(done)

    def _refused(self, said: Notices) -> str:
        """Return why the objects of a message are not read."""
        for notice in said.notices:
            bucket = notice.url.bucket
            if self._buckets and bucket not in self._buckets:
                return f"it names an object of the bucket {safe_name(bucket)}, which is not one of those to be read"
            if not self._buckets and bucket not in self._said_buckets and len(self._said_buckets) < _BATCH:
                self._said_buckets.add(bucket)
                if len(self._said_buckets) > 1:
                    self._trouble(f"messages name the bucket {safe_name(bucket)}, too: --bucket allows only some")
        return ""

    def _foreign(self, message: Message, problem: str) -> None:
        """Deal with a message that names no object that may be read."""
        self.counts.foreign += 1
        if not self._is_ours and self.counts.foreign >= _FOREIGN:
            self._failed = SourceError(
                f"the queue {self} holds no notifications of S3: {problem} ({shown(message.body)}). Have the bucket "
                "send its events to this queue, itself or through SNS, or name another one; nothing was deleted"
            )
        elif message.receives >= self._max_receives and not self._has_redrive:
            self._set_aside(message, [self._unusable(message)], f"{problem}: {shown(message.body)}")
        else:
            self._again(message)

    def _unusable(self, message: Message) -> LogObject:
        """Return what stands for a message in ``rejects``."""
        minute = message.sent.replace(second=0, microsecond=0)
        return LogObject(f"{self}/{safe_name(message.id, 100)}", "", message.id, 0, minute)

    def _set_aside(self, message: Message, items: Sequence[LogObject], why: str) -> None:
        """Have a message written to ``rejects`` and then deleted."""
        message.set_aside = f"set aside after {message.receives} receives: {why}"
        broken = tuple(replace(item, problem=message.set_aside) for item in items)
        self._arrived.put(Arrival(broken, time.monotonic(), message.sent, message))

    def _hand_on(self, message: Message, notices: Sequence[Notice]) -> None:
        """Hand on the log objects that a message names."""
        items: list[LogObject] = []
        for notice in notices:
            try:
                items.append(self._log_object(message, notice))
            except NotFetchedError as error:
                name = safe_name(str(notice.url))
                if error.kind == "deleted":
                    message.gone[name] = error.reason
                elif self._may_set_aside(message, error):
                    minute = notice.at.replace(second=0, microsecond=0)
                    return self._set_aside(message, [LogObject(name, "", message.id, 0, minute)], error.reason)
                else:
                    return self._again(message)
            except Exception as error:  # of any client: the message comes again
                self._trouble(f"a message names objects that cannot be looked at: {safe_name(str(error), 300)}")
                return self._again(message)
        delivered = min(notice.at for notice in notices)
        return self._arrived.put(Arrival(tuple(items), time.monotonic(), delivered, message))

    def _may_set_aside(self, message: Message, error: NotFetchedError) -> bool:
        """Return whether a message has failed often enough, by itself and not because of the place."""
        failure = getattr(error, "failure", None)
        passing = failure is not None and failure.kind in _PASSING
        return message.receives >= self._max_receives and not self._has_redrive and not passing

    def _log_object(self, message: Message, notice: Notice) -> LogObject:
        """Return the log object of a notice. What the message does not say, or has said in vain, S3 is asked."""
        reader = self._reader(notice)
        size, e_tag = notice.size, notice.e_tag
        if size is None or e_tag is None or message.receives > 1:
            size, e_tag = _head(reader.bucket, notice.url.key)
        minute = delivery_minute(notice.url.key.rpartition("/")[2]) or notice.at.replace(second=0, microsecond=0)
        return LogObject(safe_name(str(notice.url)), notice.url.key, e_tag, size, minute, reader)

    def _reader(self, notice: Notice) -> S3Reader:
        name = notice.url.bucket
        with self._lock:
            if name not in self._readers:
                self._readers[name] = S3Reader(Bucket(name, self._requester_pays, notice.region))
            return self._readers[name]

    # -- take and settle -------------------------------------------------------------------------------------------

    @property
    def caught_up(self) -> bool:
        """True if the queue was found empty, and all that was received is settled."""
        return bool(self._last_empty) and not self._open

    @property
    def waiting(self) -> int:
        """Number of messages that are received and not settled."""
        return len(self._open)

    def take(self, seconds: float) -> Sequence[Arrival]:
        """Return what has arrived; if that is nothing, wait. Raise SourceError if the queue is another one's."""
        if self._failed is not None:
            raise self._failed
        arrivals = []
        try:
            arrivals.append(self._arrived.get(timeout=max(seconds, 0.001)))
            while len(arrivals) < _HELD:
                arrivals.append(self._arrived.get_nowait())
        except queue.Empty:
            pass
        return arrivals

    def settle(self, arrivals: Sequence[Arrival], missed: Mapping[Key, NotFetchedError]) -> Settled:
        """Delete messages whose log objects are committed; the others come again, or are set aside."""
        settled = Settled()
        done: list[Message] = []
        for arrival in arrivals:
            message: Message = arrival.receipt
            settled.gone |= message.gone
            failed = [item for item in arrival.log_objects if self._is_failed(item, missed, settled)]
            if not failed:
                done.append(message)
                if message.set_aside:
                    settled.set_aside |= {item.name: message.set_aside for item in arrival.log_objects}
                continue
            error = missed[failed[0].name, failed[0].version]
            if self._may_set_aside(message, error):
                self._set_aside(message, failed, error.reason)
            else:
                settled.again |= {item.name: missed[item.name, item.version].reason for item in failed}
                self._again(message)
        if done:
            self._deletes.submit(self._delete, done)
        return settled

    @staticmethod
    def _is_failed(item: LogObject, missed: Mapping[Key, NotFetchedError], settled: Settled) -> bool:
        """Return whether a log object is to be tried again: one that was deleted or replaced is not."""
        error = missed.get((item.name, item.version))
        if error is None:
            return False
        if error.kind == "failed":
            return True
        settled.gone[item.name] = error.reason
        return False

    def give_back(self, arrivals: Sequence[Arrival]) -> None:
        """Let others have the messages at once."""
        self._change([arrival.receipt for arrival in arrivals], 0)

    def _again(self, message: Message) -> None:
        """Let a message come again after a while."""
        self._change([message], min(_AGAIN * message.receives, _AGAIN_LIMIT, self._visible_after))

    # -- requests --------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Keep messages that are worked on from others, until the end."""
        while not self._is_closed.wait(self._visible_after / 6):
            soon = time.monotonic() + self._visible_after * 2 / 3
            with self._lock:
                due = [message for message in self._open.values() if message.until < soon]
            self._send(due, self._extend)

    def _extend(self, part: Sequence[Message]) -> None:
        answer = self._client.change_message_visibility_batch(
            QueueUrl=self._url,
            Entries=[
                {"Id": str(n), "ReceiptHandle": message.handle, "VisibilityTimeout": self._visible_after}
                for n, message in enumerate(part)
            ],
        )
        until = time.monotonic() + self._visible_after
        for entry in answer.get("Successful", []):
            part[int(entry["Id"])].until = until
            self.counts.extended += 1

    def _change(self, messages: Sequence[Message], seconds: int) -> None:
        """Forget messages and let them come again after some seconds."""
        with self._lock:
            for message in messages:
                self._open.pop(message.id, None)

        def change(part: Sequence[Message]) -> None:
            self._client.change_message_visibility_batch(
                QueueUrl=self._url,
                Entries=[
                    {"Id": str(n), "ReceiptHandle": message.handle, "VisibilityTimeout": seconds}
                    for n, message in enumerate(part)
                ],
            )

        self._send(messages, change)

    def _delete(self, messages: Sequence[Message]) -> None:
        """Delete messages, which are done. One that cannot be deleted comes again, and its objects are known then."""

        def delete(part: Sequence[Message]) -> None:
            answer = self._client.delete_message_batch(
                QueueUrl=self._url,
                Entries=[{"Id": str(n), "ReceiptHandle": message.handle} for n, message in enumerate(part)],
            )
            with self._lock:
                self.counts.deleted += len(answer.get("Successful", []))

        self._send(messages, delete)
        with self._lock:
            for message in messages:
                self._open.pop(message.id, None)

    def _send(self, messages: Sequence[Message], request: Callable[[Sequence[Message]], None]) -> None:
        """Send requests for ten messages each, several at a time. What fails is said, and comes again by itself."""
        parts = [messages[start : start + _BATCH] for start in range(0, len(messages), _BATCH)]

        def one(part: Sequence[Message]) -> str:
            try:
                with aws_errors(f"the queue {self}", self._client.meta.region_name):
                    request(part)
            except TrailsiftError as error:
                return str(error)
            return ""

        if len(parts) == 1:
            problems = [one(parts[0])]
        else:
            with ThreadPoolExecutor(8) as threads:
                problems = list(threads.map(one, parts))
        for problem in {problem for problem in problems if problem}:
            self._trouble(problem)


def _head(bucket: Bucket, key: str) -> tuple[int, str]:
    """Return the size and the version of an object. Raise NotFetchedError if there is none, or it cannot be had."""
    try:
        found = bucket.connection.head(key)
    except Exception as error:
        if not is_client_error(error):
            raise
        failure = failure_of(error)
        missing = failure.kind == "missing"
        raised = NotFetchedError("deleted" if missing else "failed", failure.text or "it is not there")
        raised.failure = failure  # type: ignore[attr-defined]
        raise raised from error
    tag = str(found["e_tag"] or "").strip('"')
    return int(found["size"]), tag or f"size={found['size']}"
