"""Messages that say which objects have come into a bucket of S3, as they arrive in a queue.

Four forms: S3's own notifications; CloudTrail's, which name the log files that it has delivered; either of them inside
a message of SNS; and events of EventBridge. S3 escapes keys as in an HTML form, EventBridge and CloudTrail do not.
Whoever may send to the queue wrote the message: all of it is checked, and nothing is done that is not decided here.

Sources: "Event message structure" and "EventBridge event message structure" in the user guide of S3, "Configuring
Amazon SNS notifications for CloudTrail" (2026-11).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote_to_bytes

from trailsift.decode.names import safe_name
from trailsift.errors import UsageError
from trailsift.sources import cloudtrail_layout as layout
from trailsift.storage.s3_client import S3Url, parse_url

#: What SQS allows (bytes), and records in a message at most: S3 sends one.
MAX_BODY, MAX_RECORDS = 1 << 20, 1000
#: Messages inside messages: SNS in SQS, and what is in that.
_DEPTH = 3
_REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]+){1,3}-\d{1,2}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z", re.ASCII)
_TAG = re.compile(r"[0-9A-Za-z+/=_.-]{1,128}")
#: Names that logs have: anything else is not fetched, whatever its size.
_LOG_NAME = re.compile(
    r".*\.(?:json|jsonl|ndjson|gz|gzip|zst|zstd|bz2|xz|zip|tar|tgz|log|txt|csv)|[^.]*", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Notice:
    """An object that came into a bucket. ``size`` and ``e_tag`` are None where the message does not say them."""

    url: S3Url
    size: int | None
    e_tag: str | None
    at: datetime
    region: str | None


@dataclass(slots=True)
class Notices:
    """What a message says. ``other`` counts objects that are no logs of CloudTrail, and events that are no arrivals;
    ``problem`` says why a message is not one of these, in words."""

    notices: list[Notice] = field(default_factory=list)
    other: int = 0
    is_test: bool = False
    problem: str = ""


def read_message(body: str, received: datetime) -> Notices:
    """Return what a message says; ``received``: the time that stands for one that it lacks."""
    if len(body) > MAX_BODY:
        return Notices(problem=f"it has {len(body):,} characters")
    try:
        return _read(json.loads(body), received, _DEPTH)
    except (ValueError, RecursionError):
        return Notices(problem="it is not JSON")


def _read(message: object, received: datetime, depth: int) -> Notices:
    if not isinstance(message, dict):
        return Notices(problem="it is not an object of JSON")
    if isinstance(message.get("Message"), str) and ("TopicArn" in message or message.get("Type") == "Notification"):
        if not depth:
            return Notices(problem="it is a message in a message in a message")
        try:
            return _read(json.loads(message["Message"]), received, depth - 1)
        except (ValueError, RecursionError):
            return Notices(problem="it is a message of SNS that holds no JSON")
    if message.get("Event") == "s3:TestEvent":
        return Notices(is_test=True)
    if isinstance(message.get("s3Bucket"), str) and isinstance(message.get("s3ObjectKey"), list):
        return _of_cloudtrail(message, received)
    if message.get("source") == "aws.s3" and isinstance(message.get("detail"), dict):
        return _of_event_bridge(message, received)
    records = message.get("Records")
    if isinstance(records, list) and records and all(_is_of_s3(record) for record in records):
        return _of_s3(records, received)
    return Notices(problem="it is not a notification of S3")


def _is_of_s3(record: object) -> bool:
    return (
        isinstance(record, dict) and record.get("eventSource") == "aws:s3" and isinstance(record.get("eventName"), str)
    )


def _of_s3(records: list[Any], received: datetime) -> Notices:
    if len(records) > MAX_RECORDS:
        return Notices(problem=f"it has {len(records):,} records")
    found = Notices()
    for record in records:
        if not record["eventName"].startswith(("ObjectCreated:", "ObjectRestore:Completed")):
            found.other += 1
            continue
        named = _named(record.get("s3"))
        if named is None:
            return Notices(problem="a record of it names no object")
        bucket, key, item = named
        try:
            key = unquote_to_bytes(key.replace("+", " ")).decode()
        except UnicodeError:
            return Notices(problem="a key in it is not UTF-8")
        _add(found, S3Url(bucket, key), (item.get("size"), item.get("eTag")), record.get("eventTime"), received, record)
        if found.problem:
            return found
    return found


def _named(part: object) -> tuple[str, str, dict[str, Any]] | None:
    """Return the bucket, the key and what is said about the object; None if that is not there."""
    bucket, item = (part.get("bucket"), part.get("object")) if isinstance(part, dict) else (None, None)
    name = bucket.get("name") if isinstance(bucket, dict) else None
    key = item.get("key") if isinstance(item, dict) else None
    if not isinstance(name, str) or not isinstance(key, str) or not isinstance(item, dict):
        return None
    return name, key, item


def _of_event_bridge(message: dict[str, Any], received: datetime) -> Notices:
    if message.get("detail-type") != "Object Created":
        return Notices(other=1)
    named = _named(message["detail"])
    if named is None:
        return Notices(problem="the event names no object")
    bucket, key, item = named
    found = Notices()
    _add(found, S3Url(bucket, key), (item.get("size"), item.get("etag")), message.get("time"), received, message)
    return found


def _of_cloudtrail(message: dict[str, Any], received: datetime) -> Notices:
    keys = message["s3ObjectKey"]
    if len(keys) > MAX_RECORDS or not all(isinstance(key, str) for key in keys):
        return Notices(problem="it names no objects")
    found = Notices()
    for key in keys:
        _add(found, S3Url(message["s3Bucket"], key), (None, None), None, received, {})
    return found


def _add(
    found: Notices,
    named: S3Url,
    content: tuple[object, object],
    time: object,
    received: datetime,
    place: Mapping[str, object],
) -> None:
    """Add an object, or count it as another one. ``content``: its size and ETag; ``place`` may name the region."""
    try:
        url = parse_url(str(named))
    except (UsageError, UnicodeEncodeError) as error:
        found.problem = f"it names an object that cannot be: {error}"
        return
    size, e_tag = content
    if not url.key or url.key.endswith("/") or url != named or size == 0 or not is_log_name(url.key):
        found.other += 1
        return
    known_size = size if isinstance(size, int) and not isinstance(size, bool) and 0 < size < 1 << 50 else None
    tag = e_tag.strip('"') if isinstance(e_tag, str) else ""
    known_tag = tag if _TAG.fullmatch(tag) and known_size is not None else None
    region = place.get("awsRegion") or place.get("region")
    is_region = isinstance(region, str) and _REGION.fullmatch(region)
    notice = Notice(url, known_size, known_tag, _time(time, received), str(region) if is_region else None)
    found.notices.append(notice)


def is_log_name(key: str) -> bool:
    """Return whether an object may be a log of CloudTrail, by its key."""
    name = key.rpartition("/")[2]
    return layout.other_kind(key) is None and not name.startswith(".") and _LOG_NAME.fullmatch(name) is not None


def _time(text: object, received: datetime) -> datetime:
    if isinstance(text, str) and _TIME.fullmatch(text):
        try:
            return min(datetime.fromisoformat(text[:19]).replace(tzinfo=UTC) + _fraction(text), received)
        except ValueError:
            pass
    return received


def _fraction(text: str) -> timedelta:
    digits = text[20:-1]
    return timedelta(seconds=float(f"0.{digits}")) if digits else timedelta()


def senders(policy: object) -> frozenset[str]:
    """Return the buckets that a queue's policy allows S3 to send for; empty if it does not name them."""
    try:
        parsed = json.loads(policy) if isinstance(policy, str) else None
    except (ValueError, RecursionError):
        return frozenset()
    statements = parsed.get("Statement") if isinstance(parsed, dict) else None
    names: set[str] = set()
    for statement in statements if isinstance(statements, list) else [statements]:
        if not isinstance(statement, dict) or statement.get("Effect") != "Allow":
            continue
        arns = list(_source_arns(statement.get("Condition")))
        buckets = {arn.removeprefix("arn:aws:s3:::") for arn in arns if re.fullmatch(r"arn:aws:s3:::[^*?/]+", arn)}
        if len(buckets) != len(arns) or not buckets:
            # Others may send, too, and for any bucket.
            return frozenset()
        names |= buckets
    return frozenset(names)


def _source_arns(condition: object) -> Iterator[str]:
    for test in condition.values() if isinstance(condition, dict) else ():
        for name, value in test.items() if isinstance(test, dict) else ():
            if name.lower() == "aws:sourcearn":
                yield from (text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str))


def shown(body: str) -> str:
    """Return the beginning of a message, harmless."""
    return safe_name(" ".join(body[:400].split()), 200)
