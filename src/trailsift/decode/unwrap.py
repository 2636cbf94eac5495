"""A parsed object -> the values that it wraps: the envelopes that services put around CloudTrail records.

``unwrap`` opens one layer. The caller unwraps the values again: objects as they are, text that holds JSON, or bytes
that may be packed. ``looks_like_record`` and ``other_kind`` decide where unwrapping ends.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from trailsift.decode import landing, tabular

_Object = dict[str, Any]

_RECORD_KEYS = frozenset(
    {"eventSource", "eventName", "eventTime", "eventVersion", "userIdentity", "eventID", "eventType"}
)


def looks_like_record(value: _Object) -> bool:
    """Return whether an object is a CloudTrail record: it has two of a record's keys, and is not a notification.

    A line of the landing form counts as one: it holds the columns of a record.
    """
    if len(_RECORD_KEYS & value.keys()) < 2:
        return landing.is_event(value)
    # Lambda's events of S3, Kinesis, SQS and DynamoDB streams: `aws:s3`, where CloudTrail has `s3.amazonaws.com`.
    if str(value.get("eventSource")).startswith("aws:") or "s3" in value or "kinesis" in value:
        return False
    return not _aggregated(value)


# -- objects that are not records ------------------------------------------------------------------------------------


def _aggregated(value: _Object) -> bool:
    return value.get("eventCategory") == "Aggregated" or value.get("eventType") == "AwsAggregatedEvent"


def _is_digest(value: _Object) -> bool:
    return "digestS3Object" in value and "logFiles" in value


def _is_pointer(value: _Object) -> bool:
    """S3's notifications through SQS, SNS, Lambda or EventBridge, S3's test message, and CloudTrail's own."""
    if (
        value.get("eventSource") == "aws:s3"
        or isinstance(value.get("s3"), dict)
        or value.get("Event") == "s3:TestEvent"
    ):
        return True
    detail = value.get("detail")
    if value.get("source") == "aws.s3" and isinstance(detail, dict) and {"bucket", "object"} <= detail.keys():
        return True
    return "s3Bucket" in value and "s3ObjectKey" in value


def _is_control(value: _Object) -> bool:
    return value.get("messageType") == "CONTROL_MESSAGE"


def _is_subscription(value: _Object) -> bool:
    return value.get("Type") in ("SubscriptionConfirmation", "UnsubscribeConfirmation") and "TopicArn" in value


def _is_stream_record(value: _Object) -> bool:
    return value.get("eventSource") == "aws:dynamodb"


def _is_other_event(value: _Object) -> bool:
    """An EventBridge event that does not come from CloudTrail."""
    detail = value.get("detail")
    return "detail-type" in value and isinstance(detail, dict) and not looks_like_record(detail)


_OTHER_KINDS: tuple[tuple[Callable[[_Object], bool], str], ...] = (
    (_is_pointer, "a notification that points at log objects, not the events themselves"),
    (_aggregated, "aggregated events (5-minute summaries with a schema of their own)"),
    (_is_digest, "a digest file"),
    (_is_control, "a control message of CloudWatch Logs"),
    (_is_subscription, "an SNS subscription message"),
    (_is_stream_record, "a record of a DynamoDB stream"),
    # After the pointers: S3's notifications through EventBridge are events of this kind too.
    (_is_other_event, "an EventBridge event that is not from CloudTrail"),
)


def other_kind(value: _Object) -> str | None:
    """Return a description of an object that is recognized and holds no CloudTrail record; None for any other."""
    return next((description for matches, description in _OTHER_KINDS if matches(value)), None)


# -- layers ----------------------------------------------------------------------------------------------------------


def _list(value: _Object, *names: str) -> list[Any] | None:
    return next((value[name] for name in names if isinstance(value.get(name), list)), None)


def _list_of_objects(value: _Object, *names: str) -> list[Any] | None:
    items = _list(value, *names)
    return items if items is not None and all(isinstance(item, dict) for item in items) else None


def _text(value: _Object, *names: str) -> str | None:
    return next((value[name] for name in names if isinstance(value.get(name), str)), None)


def _blob(text: str) -> bytes | str:
    """Decode base64; return any other text unchanged."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text


def _records(value: _Object) -> list[Any] | None:
    """CloudTrail's files and Lambda's events (``Records``), Firehose (``records``), LookupEvents, SQS's API."""
    if isinstance(value.get("Records"), list):
        return _list(value, "Records")
    # Common names: only if they hold nothing but objects.
    return _list_of_objects(value, "records", "Events", "Messages")


def _log_events(value: _Object) -> list[Any] | None:
    """A decoded batch of CloudWatch Logs, or the response of its API: the messages, each a text."""
    events = _list_of_objects(value, "logEvents", "events")
    if events is None or not all("message" in event for event in events):
        return None
    return [event["message"] for event in events]


def _awslogs(value: _Object) -> list[Any] | None:
    """Lambda's event of a CloudWatch Logs subscription: gzip in base64."""
    inner = value.get("awslogs")
    text = _text(inner, "data") if isinstance(inner, dict) else None
    return None if text is None else [_blob(text)]


def _kinesis(value: _Object) -> list[Any] | None:
    """An element of Lambda's Kinesis event."""
    inner = value.get("kinesis")
    text = _text(inner, "data") if isinstance(inner, dict) else None
    return None if text is None else [_blob(text)]


#: The keys that may stand beside ``data`` in an element (Firehose in three forms, Kinesis by its API and by Pipes).
_DATA_COMPANIONS = frozenset(
    tabular.words(
        "data recordid approximatearrivaltimestamp kinesisrecordmetadata result metadata sequencenumber partitionkey "
        "encryptiontype kinesisschemaversion eventsource eventversion eventid eventname invokeidentityarn awsregion "
        "eventsourcearn"
    )
)


def _data(value: _Object) -> list[Any] | None:
    """An element of a Firehose transform or HTTP event, or of Kinesis's own API."""
    text = _text(value, "data", "Data")
    if text is None or not {name.lower() for name in value} <= _DATA_COMPANIONS:
        return None
    return [_blob(text)]


def _eventbridge(value: _Object) -> list[Any] | None:
    detail = value.get("detail")
    return [detail] if isinstance(detail, dict) and ("detail-type" in value or "source" in value) else None


def _sqs(value: _Object) -> list[Any] | None:
    """An SQS message, from Lambda's event or from the API."""
    text = _text(value, "body", "Body")
    is_message = {"messageId", "MessageId", "receiptHandle", "ReceiptHandle"} & value.keys()
    return [text] if text is not None and is_message else None


def _sns(value: _Object) -> list[Any] | None:
    """An SNS message, from Lambda's event or as it arrives in SQS and over HTTP."""
    inner = value.get("Sns", value)
    text = _text(inner, "Message") if isinstance(inner, dict) else None
    return [text] if text is not None and (inner is not value or "TopicArn" in value) else None


def _lookup_event(value: _Object) -> list[Any] | None:
    """An element of LookupEvents, which holds the record as a text."""
    text = _text(value, "CloudTrailEvent")
    return None if text is None else [text]


def _raw(value: _Object) -> list[Any] | None:
    """An event of Cribl or Splunk, which keep the original record."""
    text = _text(value, "_raw")
    return None if text is None else [text]


def _message(value: _Object) -> list[Any] | None:
    """An event of a shipper (Filebeat, Vector; Fluent Bit: ``log``) or a single log event whose message is JSON."""
    texts = (value.get(name) for name in ("message", "log"))
    return next(([text] for text in texts if isinstance(text, str) and text.lstrip()[:1] == "{"), None)


def _event_original(value: _Object) -> list[Any] | None:
    """A document of Elastic's CloudTrail integration, which keeps the record as it came."""
    inner = value.get("event")
    text = _text(inner, "original") if isinstance(inner, dict) else _text(value, "event.original")
    return None if text is None else [text]


def _refused(value: _Object) -> list[Any] | None:
    """A line of the error objects of a Firehose stream: what could not be delivered, in base64."""
    text = _text(value, "rawData")
    return [_blob(text)] if text is not None and ("errorCode" in value or "attemptsMade" in value) else None


def _search_hits(value: _Object) -> list[Any] | None:
    """A search response of Elasticsearch or OpenSearch, or a line of their dumps."""
    hits = value.get("hits")
    if isinstance(hits, dict):
        return _list(hits, "hits")
    source = value.get("_source")
    return [source] if isinstance(source, dict) else None


def _splunk_result(value: _Object) -> list[Any] | None:
    result = value.get("result")
    return [result] if isinstance(result, dict) and "_raw" in result else None


#: Each takes a parsed object to the values inside it, or to None. Objects that look like a record never get here.
_UNWRAP: tuple[Callable[[_Object], list[Any] | None], ...] = (
    _records,
    landing.events_of,
    _awslogs,
    # Before `_data`: the elements of Lambda's Kinesis event have `kinesis.data`, those of Pipes have `data`.
    _kinesis,
    _data,
    _log_events,
    _eventbridge,
    # SQS before SNS: an SQS message may hold an SNS message, never the other way round.
    _sqs,
    _sns,
    _lookup_event,
    tabular.lake_rows,
    tabular.athena_rows,
    tabular.insights_rows,
    _search_hits,
    _splunk_result,
    # The raw text before a shipper's `message`, which may be a rendering of the raw text.
    _raw,
    _event_original,
    _refused,
    _message,
    tabular.lower_case_row,
)


def unwrap(value: _Object) -> list[Any] | None:
    """Return the values in one layer, or None if the object is not a known envelope."""
    for open_layer in _UNWRAP:
        values = open_layer(value)
        if values is not None:
            return values
    return None
