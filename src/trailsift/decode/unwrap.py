"""From one parsed object to the values that it wraps: what services put around CloudTrail records on their way.

``unwrap`` opens one layer. What comes out is unwrapped again by the caller: objects as they are, text that holds
JSON, or bytes that may be packed. ``looks_like_record`` and ``foreign_kind`` say where unwrapping ends.
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
    """Whether an object is a CloudTrail record: two of the keys that only they have together, and no notification's.

    A line of the landing form is one too: it holds the columns of a record.
    """
    if len(_RECORD_KEYS & value.keys()) < 2:
        return landing.is_event(value)
    # Lambda's events of S3, Kinesis, SQS and DynamoDB streams: `aws:s3`, where CloudTrail has `s3.amazonaws.com`.
    if str(value.get("eventSource")).startswith("aws:") or "s3" in value or "kinesis" in value:
        return False
    return not _aggregated(value)


# -- what is no record -----------------------------------------------------------------------------------------------


def _aggregated(value: _Object) -> bool:
    return value.get("eventCategory") == "Aggregated" or value.get("eventType") == "AwsAggregatedEvent"


def _is_digest(value: _Object) -> bool:
    return "digestS3Object" in value and "logFiles" in value


def _is_pointer(value: _Object) -> bool:
    """S3's notifications by SQS, SNS or Lambda and by EventBridge, S3's test message, and CloudTrail's own."""
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


_FOREIGN: tuple[tuple[Callable[[_Object], bool], str], ...] = (
    (_is_pointer, "a notification that points at log objects, not the events themselves"),
    (_aggregated, "aggregated events (5-minute summaries with a schema of their own)"),
    (_is_digest, "a digest file"),
    (_is_control, "a control message of CloudWatch Logs"),
    (_is_subscription, "an SNS subscription message"),
    (_is_stream_record, "a record of a DynamoDB stream"),
    # After the pointers: S3's notifications by EventBridge are events of this kind too.
    (_is_other_event, "an EventBridge event that is not from CloudTrail"),
)


def foreign_kind(value: _Object) -> str | None:
    """What an object is that is known and holds no CloudTrail record."""
    return next((name for matches, name in _FOREIGN if matches(value)), None)


# -- layers ----------------------------------------------------------------------------------------------------------


def _list(value: _Object, *names: str) -> list[Any] | None:
    return next((value[name] for name in names if isinstance(value.get(name), list)), None)


def _list_of_objects(value: _Object, *names: str) -> list[Any] | None:
    found = _list(value, *names)
    return found if found is not None and all(isinstance(item, dict) for item in found) else None


def _text(value: _Object, *names: str) -> str | None:
    return next((value[name] for name in names if isinstance(value.get(name), str)), None)


def _blob(text: str) -> bytes | str:
    """Base64 decoded; what is no base64 is taken for the text itself."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text


def _records(value: _Object) -> list[Any] | None:
    """CloudTrail's files and Lambda's events (``Records``), Firehose (``records``), LookupEvents, SQS's API."""
    if isinstance(value.get("Records"), list):
        return _list(value, "Records")
    # Names that anybody might use: only where they hold nothing but objects.
    return _list_of_objects(value, "records", "Events", "Messages")


def _log_events(value: _Object) -> list[Any] | None:
    """A decoded batch of CloudWatch Logs, or what its API returns: the messages, each a text."""
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


#: What an element that carries ``data`` may have beside it (Firehose in three forms, Kinesis by its API and by Pipes).
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
    """A message of SQS: from Lambda's event or from the API."""
    text = _text(value, "body", "Body")
    known = {"messageId", "MessageId", "receiptHandle", "ReceiptHandle"} & value.keys()
    return [text] if text is not None and known else None


def _sns(value: _Object) -> list[Any] | None:
    """A message of SNS: from Lambda's event, or as it arrives in SQS and over HTTP."""
    inner = value.get("Sns", value)
    text = _text(inner, "Message") if isinstance(inner, dict) else None
    return [text] if text is not None and (inner is not value or "TopicArn" in value) else None


def _lookup_event(value: _Object) -> list[Any] | None:
    """An element of LookupEvents: the record is a text in it."""
    text = _text(value, "CloudTrailEvent")
    return None if text is None else [text]


def _raw(value: _Object) -> list[Any] | None:
    """Cribl and Splunk keep the record as it was."""
    text = _text(value, "_raw")
    return None if text is None else [text]


def _message(value: _Object) -> list[Any] | None:
    """Shippers (Filebeat, Vector, Fluent Bit) and single log events keep it too, where it is JSON."""
    text = _text(value, "message")
    return [text] if text is not None and text.lstrip()[:1] == "{" else None


def _search_hits(value: _Object) -> list[Any] | None:
    """What Elasticsearch and OpenSearch return, and their dumps."""
    hits = value.get("hits")
    if isinstance(hits, dict):
        return _list(hits, "hits")
    source = value.get("_source")
    return [source] if isinstance(source, dict) else None


def _splunk_result(value: _Object) -> list[Any] | None:
    result = value.get("result")
    return [result] if isinstance(result, dict) and "_raw" in result else None


#: From a parsed object to the values inside it, or None. An object that looks like a record never comes here.
_UNWRAP: tuple[Callable[[_Object], list[Any] | None], ...] = (
    _records,
    landing.events_of,
    _awslogs,
    # Before `_data`: the elements of Lambda's Kinesis event have `kinesis.data`, those of Pipes have `data`.
    _kinesis,
    _data,
    _log_events,
    _eventbridge,
    # SQS before SNS: a message of SQS may hold one of SNS, never the other way round.
    _sqs,
    _sns,
    _lookup_event,
    tabular.lake_rows,
    tabular.athena_rows,
    tabular.insights_rows,
    _search_hits,
    _splunk_result,
    # The raw text before a shipper's `message`, which may be a rendering of it.
    _raw,
    _message,
)


def unwrap(value: _Object) -> list[Any] | None:
    """The values in one layer, or None where nothing known is around them."""
    for opened in _UNWRAP:
        values = opened(value)
        if values is not None:
            return values
    return None
