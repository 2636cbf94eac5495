"""One CloudTrail record (a dict) -> the columns of one event, and back without loss.

``row`` and ``restore`` are inverse: for every record that ``row`` accepts, ``restore(row(record))`` equals the record
under Python's ``json``, with int distinct from float and null distinct from absent. The JSON columns leave out
everything that the typed columns imply; anything that they imply wrongly for a record is corrected in ``rest``:

- a member of ``rest`` is a member of the record as it was,
- ``rest["(absent)"]`` lists members that the columns imply but the record does not have,
- ``rest["(float)"]`` lists byte counts that were written as floats.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from trailsift.cloudtrail.callers import identity_of, text_of
from trailsift.cloudtrail.categories import MANAGEMENT_FLAG, category_of
from trailsift.cloudtrail.resources import TouchedResources, canonical_resources, touched_resources
from trailsift.cloudtrail.services import service_of
from trailsift.decode import landing
from trailsift.decode.json_text import dump
from trailsift.decode.outcome import NotARecord
from trailsift.decode.tabular import opened
from trailsift.times import is_usable

ABSENT, FLOAT = landing.ABSENT, landing.FLOAT

#: Members that are stored unchanged, each in a string column.
PLAIN: dict[str, str] = {
    "eventVersion": "event_version",
    "eventID": "event_id",
    "eventSource": "event_source",
    "eventName": "event_name",
    "awsRegion": "aws_region",
    "sourceIPAddress": "source_ip",
    "userAgent": "user_agent",
    "errorCode": "error_code",
    "errorMessage": "error_message",
    "requestID": "request_id",
    "eventType": "event_type",
    "recipientAccountId": "account_id",
    "sharedEventID": "shared_event_id",
    "vpcEndpointId": "vpc_endpoint_id",
    "eventCategory": "event_category",
}
#: Members that are byte counts inside additionalEventData.
BYTES: dict[str, str] = {"bytesTransferredIn": "bytes_in", "bytesTransferredOut": "bytes_out"}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 1 << 63


def _is_encodable(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# -- time ------------------------------------------------------------------------------------------------------------

_TIME = re.compile(
    r"\s*(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?\s*(Z|UTC|[+-]\d\d:?\d\d)?\s*", re.IGNORECASE
)


def parse_time(value: object) -> int | None:
    """Return the microseconds since 1970 of a time as CloudTrail and its exports write it, or None.

    Accepted: ISO 8601 with Z, an offset or nothing (UTC), ``T`` or a blank, up to nine digits of a second; or seconds
    or milliseconds since 1970 as a number.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _from_number(value)
    if not isinstance(value, str):
        return None
    micros = canonical_time(value)
    if micros is not None:
        return micros
    match = _TIME.fullmatch(value)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction = int((match[7] or "0").ljust(9, "0")[:6])
    try:
        moment = datetime(year, month, day, hour, minute, min(second, 59), fraction, tzinfo=UTC)
        moment += timedelta(seconds=max(second - 59, 0))
    except (ValueError, OverflowError):
        return None
    offset = match[8]
    micros = (moment - _EPOCH) // timedelta(microseconds=1)
    if offset and offset[0] in "+-":
        digits = offset.replace(":", "")
        shift = (int(digits[1:3]) * 60 + int(digits[3:5])) * 60_000_000
        micros += shift if offset[0] == "-" else -shift
    return micros if is_usable(micros) else None


def canonical_time(text: str) -> int | None:
    """Return the microseconds of ``2024-01-15T08:30:00Z``; None for a time that is written in any other way."""
    if len(text) != 20 or text[4:17:3] != "--T::" or text[19] != "Z" or text[11:13] == "24":
        return None
    try:
        micros = int(datetime.fromisoformat(text).timestamp()) * 1_000_000
    except ValueError:
        return None
    return micros if is_usable(micros) else None


def _from_number(value: float) -> int | None:
    try:
        micros = int(value * (1_000 if abs(value) > 1e11 else 1_000_000))
    except (OverflowError, ValueError):
        return None
    return micros if is_usable(micros) else None


def format_time(micros: int) -> str:
    """Return a time as CloudTrail writes it, without a fraction of a second."""
    return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- row -------------------------------------------------------------------------------------------------------------


def row(record: dict[str, Any], log_object: str) -> dict[str, Any]:
    """Return the columns of ``events`` for one record; ``event_time`` in microseconds, without partition columns.

    A landing line (``decode.landing``) has its columns already. Raise NotARecord if there is no usable time.
    """
    if landing.is_event(record):
        return landing.row(record, log_object)
    micros = parse_time(record.get("eventTime"))
    if micros is None and "eventTime" not in record:
        micros = parse_time(record.get("@timestamp"))  # Logstash moves eventTime there
    if micros is None:
        raise NotARecord(_no_time(record))
    written, record = record, opened(record)
    columns: dict[str, Any] = {"event_time": micros, "weight": 1.0, "log_object": log_object}
    for member, column in PLAIN.items():
        value = record.get(member)
        columns[column] = value if isinstance(value, str) and _is_encodable(value) else None
    identity = identity_of(record.get("userIdentity"))
    columns.update(identity._asdict())
    if columns["event_id"] is None:
        text = json.dumps(written, sort_keys=True).encode()
        columns["event_id"] = "content-" + hashlib.md5(text, usedforsecurity=False).hexdigest()
    if not columns["account_id"]:
        columns["account_id"] = identity.account
    columns["event_category"] = category_of(record)
    columns["service"] = service_of(columns["event_source"])
    read_only = record.get("readOnly")
    columns["read_only"] = read_only if isinstance(read_only, bool) else None
    columns.update(_resource_columns(record, columns))
    columns.update(_byte_columns(record))
    response = record.get("responseElements")
    columns["response_elements"] = None if response is None else dump(response)
    columns["rest"] = None
    columns["rest"] = _rest(record, restore(columns), columns["bytes_in"], columns["bytes_out"])
    return columns


def _no_time(record: Mapping[str, Any]) -> str:
    if record.get("eventTime") is None:
        return "no eventTime"
    return f"eventTime {str(record['eventTime'])[:64]!r} is not a time"


def _resource_columns(record: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    parameters = record.get("requestParameters")
    resources = record.get("resources")
    resource = touched_resources(
        columns["event_source"],
        columns["event_name"],
        parameters,
        resources,
        columns["aws_region"],
        columns["account_id"],
        columns["event_category"] == "Data",
    )
    resource = _encodable(resource)
    if isinstance(parameters, dict) and "key" in parameters and resource.object_key is not None:
        implied = implied_key(resource.resource_type, resource.object_key)
        if same(implied, parameters["key"]):
            parameters = {name: value for name, value in parameters.items() if name != "key"}
    return {
        "resource_type": resource.resource_type,
        "resource_arn": resource.resource_arn,
        "resource_arns": list(resource.resource_arns),
        "resource_account": resource.resource_account,
        "object_key": resource.object_key,
        "source_resource_arn": resource.source_arn,
        "source_object_key": resource.source_key,
        "request_parameters": None if parameters is None else dump(parameters),
        "resources": None if resources is None or same(resources, canonical_resources(resource)) else dump(resources),
    }


def _encodable(resource: TouchedResources) -> TouchedResources:
    """Leave out strings that UTF-8 cannot encode (lone surrogates): the JSON columns keep those."""
    if all(_is_encodable(text) for text in (*resource[:2], *resource.resource_arns, *resource[3:]) if text is not None):
        return resource
    return TouchedResources(
        text_of(resource.resource_type),
        text_of(resource.resource_arn),
        tuple(filter(_is_encodable, resource.resource_arns)),
        text_of(resource.resource_account),
        text_of(resource.object_key),
        text_of(resource.source_arn),
        text_of(resource.source_key),
    )


def implied_key(resource_type: str | None, object_key: str) -> Any:
    """Return the ``requestParameters.key`` that an object key implies: a string, but an object for DynamoDB items."""
    if resource_type is not None and resource_type.startswith("AWS::DynamoDB") and object_key.startswith("{"):
        try:
            return json.loads(object_key)
        except (ValueError, RecursionError):
            return object_key
    return object_key


def _byte_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    data = record.get("additionalEventData")
    columns: dict[str, Any] = {"bytes_in": None, "bytes_out": None}
    if isinstance(data, dict):
        for member, column in BYTES.items():
            count = _count(data.get(member))
            if count is not None:
                columns[column] = count
        stored = {member for member, column in BYTES.items() if columns[column] is not None}
        data = {name: value for name, value in data.items() if name not in stored}
    columns["additional_event_data"] = None if data is None else dump(data)
    return columns


def _count(value: object) -> int | None:
    """Return a count that fits a column: a non-negative whole number, possibly written as a float; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    if not 0 <= value < _INT64 or (isinstance(value, float) and value >= 2**53):
        return None
    if math.copysign(1, value) < 0:
        # -0.0 is not the zero that the column would give back.
        return None
    return int(value)


def _rest(
    record: Mapping[str, Any], implied: dict[str, Any], bytes_in: int | None, bytes_out: int | None
) -> str | None:
    """Return everything that ``restore`` needs beyond the other columns, as JSON."""
    rest: dict[str, Any] = {}
    absent: list[str] = []
    floats: list[str] = []
    data = record.get("additionalEventData")
    for member, count in zip(BYTES, (bytes_in, bytes_out), strict=True):
        if count is not None and isinstance(data, dict) and isinstance(data.get(member), float):
            floats.append(member)
            implied["additionalEventData"][member] = data[member]
    parameters = record.get("requestParameters")
    if isinstance(parameters, dict) and "key" not in parameters and "key" in (implied.get("requestParameters") or {}):
        absent.append("requestParameters.key")
        del implied["requestParameters"]["key"]
    for member, value in record.items():
        if member not in implied or not same(implied[member], value):
            rest[_escape(member)] = value
    absent += [member for member in implied if member not in record]
    if absent:
        rest[ABSENT] = sorted(absent)
    if floats:
        rest[FLOAT] = floats
    user, tls = (dump(rest.pop(member)) if member in rest else None for member in ("userIdentity", "tlsDetails"))
    return compose_rest(user, tls, dump(rest) if rest else None)


def compose_rest(user: str | None, tls: str | None, others: str | None) -> str | None:
    """Compose ``rest`` from the JSON of ``userIdentity``, of ``tlsDetails`` and of everything else."""
    parts = [] if user is None else ['"userIdentity":' + user]
    if tls is not None:
        parts.append('"tlsDetails":' + tls)
    if others is not None:
        parts.append(others[1:-1])
    return "{" + ",".join(parts) + "}" if parts else None


_RESERVED = re.compile(r"(\((?:absent|float)\))+")


def _escape(member: str) -> str:
    """Escape a member that is named like one of our marks by repeating the mark."""
    match = _RESERVED.fullmatch(member)
    return member + match[1] if match else member


def _unescape(member: str) -> str:
    match = _RESERVED.fullmatch(member)
    return member[: -len(match[1])] if match else member


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal as JSON: int, float and bool are distinct; order of members is ignored."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right) or (left != left and right != right)


# -- restore ---------------------------------------------------------------------------------------------------------


def restore(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record that a row of ``events`` was made from, as Python's ``json`` reads it.

    ``columns`` maps column names to values; ``event_time`` in microseconds since 1970.
    """
    rest: dict[str, Any] = json.loads(columns["rest"]) if columns["rest"] else {}
    absent = rest.pop(ABSENT, ())
    floats = rest.pop(FLOAT, ())
    record: dict[str, Any] = {"eventTime": format_time(columns["event_time"])}
    for member, column in PLAIN.items():
        if columns[column] is not None:
            record[member] = columns[column]
    if columns["read_only"] is not None:
        record["readOnly"] = columns["read_only"]
    flag = MANAGEMENT_FLAG.get(columns["event_category"])
    if flag is not None:
        record["managementEvent"] = flag
    record["requestParameters"] = _parameters(columns, absent)
    record["responseElements"] = json.loads(columns["response_elements"]) if columns["response_elements"] else None
    data = _additional(columns, floats)
    if data is not None:
        record["additionalEventData"] = data
    resources = _resources(columns)
    if resources is not None:
        record["resources"] = resources
    for member in absent:
        record.pop(member, None)
    for member, value in rest.items():
        record[_unescape(member)] = value
    return record


def _parameters(columns: Mapping[str, Any], absent: Any) -> Any:
    text = columns["request_parameters"]
    parameters = json.loads(text) if text else None
    key = columns["object_key"]
    implied = key is not None and "requestParameters.key" not in absent
    if implied and isinstance(parameters, dict) and "key" not in parameters:
        parameters["key"] = implied_key(columns["resource_type"], key)
    return parameters


def _additional(columns: Mapping[str, Any], floats: Any) -> Any:
    text = columns["additional_event_data"]
    data = json.loads(text) if text else None
    if isinstance(data, dict):
        for member, column in BYTES.items():
            count = columns[column]
            if count is not None and member not in data:
                data[member] = float(count) if member in floats else count
    return data


def _resources(columns: Mapping[str, Any]) -> Any:
    if columns["resources"]:
        return json.loads(columns["resources"])
    return canonical_resources(
        TouchedResources(
            columns["resource_type"],
            columns["resource_arn"],
            tuple(columns["resource_arns"] or ()),
            columns["resource_account"],
            columns["object_key"],
        )
    )
