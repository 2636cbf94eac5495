"""The resources that an event touched: the bucket, function, table ... behind the forms in which services name it.

``touched_resources`` takes JSON values as CloudTrail wrote them, trusts none of them and never raises.
``canonical_resources`` is its inverse: the ``resources`` array that CloudTrail typically writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from trailsift.cloudtrail.copies import COPIES, copy_source
from trailsift.cloudtrail.data_event_types import DATA_EVENT_TYPES


class TouchedResources(NamedTuple):
    """The resources of an event; ``resource_arns`` starts with ``resource_arn`` and never holds an object's ARN.

    ``source_arn`` and ``source_key`` are what a copy reads.
    """

    resource_type: str | None
    resource_arn: str | None
    resource_arns: tuple[str, ...]
    resource_account: str | None
    object_key: str | None
    source_arn: str | None = None
    source_key: str | None = None


class ResourceEntry(NamedTuple):
    """One entry of ``resources[]``, whatever the case of its keys; ``arn`` is the ARN or the ARNPrefix."""

    type: str | None
    arn: str | None
    account: str | None


class ResourceCall(NamedTuple):
    """The parts of an event that name resources, without unusable values."""

    service: str
    name: str
    params: dict[str, object]
    entries: list[ResourceEntry]
    region: str | None
    account: str | None
    is_data: bool


_NOTHING = TouchedResources(None, None, (), None, None)


def touched_resources(
    event_source: str | None,
    event_name: str | None,
    request_parameters: object,
    resources: object,
    region: str | None,
    account: str | None,
    is_data: bool,
) -> TouchedResources:
    """Return the resources that an event touched. ``account`` is used only if an ARN must be built from a bare name.

    ``resource_arn`` is the container (bucket, function, table; an access point only if no bucket is named),
    ``object_key`` the object inside it: the S3 key, or a DynamoDB item key as compact JSON text.
    """
    service = (event_source or "").partition(".")[0]
    params = request_parameters if isinstance(request_parameters, dict) else {}
    entries = _entries(resources)
    if not entries and not params:
        return _NOTHING
    call = ResourceCall(service, event_name or "", params, entries, region, account, is_data)
    return _SERVICES.get(service, _generic)(call)


def canonical_resources(touched: TouchedResources) -> list[dict[str, str]] | None:
    """Return the ``resources`` array that CloudTrail typically writes for this; None if a part of it is missing.

    Key order inside an entry does not matter, the order of the entries does. For S3 it lists the object and the bucket,
    for everything else the ARNs in ``resource_arns``.
    """
    kind, arn, arns, account, key = touched[:5]
    if arn is None or account is None:
        return None
    if kind is None:  # SSM, ECR and the older KMS events give no type
        return [{"accountId": account, "ARN": each} for each in arns]
    container = _CONTAINER_TYPES.get(kind)
    if container is None:
        return [{"accountId": account, "type": kind, "ARN": each} for each in arns]
    inner = {"type": kind, "ARNPrefix": f"{arn}/"} if key is None else {"type": kind, "ARN": f"{arn}/{key}"}
    return [inner, {"accountId": account, "type": container, "ARN": arn}]


# Types of objects, with the type of the bucket that CloudTrail lists after the object.
_CONTAINER_TYPES = {
    "AWS::S3::Object": "AWS::S3::Bucket",
    "AWS::S3Express::Object": "AWS::S3Express::DirectoryBucket",
}


# -- entries and ARNs ------------------------------------------------------------------------------------------------


def _text(value: object) -> str | None:
    """Return a non-empty string, else None."""
    return value if isinstance(value, str) and value else None


def _entries(resources: object) -> list[ResourceEntry]:
    if isinstance(resources, dict):  # seen in exports that flatten arrays of one
        resources = [resources]
    if not isinstance(resources, list):
        return []
    out = []
    for item in resources:
        if not isinstance(item, dict):
            continue
        arn = item.get("ARN") or item.get("ARNPrefix")
        account = item.get("accountId")
        if not arn or (account is None and len(item) > 2):
            # Some exports write `arn` and `accountid`. An S3 object (`type` and `ARN` only) never has an account.
            lower = {name.lower(): value for name, value in item.items() if isinstance(name, str)}
            arn = arn or lower.get("arn") or lower.get("arnprefix")
            account = account or lower.get("accountid")
        entry = ResourceEntry(_text(item.get("type")), _text(arn), _text(account))
        if entry.arn or entry.type:
            out.append(entry)
    return out


def _partition(call: ResourceCall) -> str:
    """Return the AWS partition for an ARN that is built from a name: that of the region, else of a listed ARN."""
    region = call.region or ""
    for prefix, partition in PARTITIONS:
        if region.startswith(prefix):
            return partition
    if not region:
        for entry in call.entries:
            if entry.arn and entry.arn.startswith("arn:") and entry.arn.count(":") >= 5:
                return entry.arn.split(":", 2)[1]
    return "aws"


#: Prefix of a region's name -> partition, longer prefixes first; all others are of ``aws``.
#: https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
PARTITIONS = (
    ("us-isob-", "aws-iso-b"),
    ("us-isof-", "aws-iso-f"),
    ("eu-isoe-", "aws-iso-e"),
    ("us-iso-", "aws-iso"),
    ("us-gov-", "aws-us-gov"),
    ("eusc-", "aws-eusc"),
    ("cn-", "aws-cn"),
)


def _distinct(first: str, others: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((first, *others)))


# -- S3 --------------------------------------------------------------------------------------------------------------


_ACCESS_POINT = re.compile(r"(accesspoint(?:/[^/]*)?)(?:/object(?![^/]))?(?:/(.*))?", re.DOTALL)
_BUCKET = re.compile(r"(bucket(?:/[^/]*)?)(?:/(.*))?", re.DOTALL)
_BARE_BUCKET = re.compile(r"([^/]*)(?:/(.*))?", re.DOTALL)
# outpost/op-ID/bucket/NAME or outpost/op-ID/accesspoint/NAME
_OUTPOST = re.compile(r"([^/]*(?:/[^/]*){0,3})(?:/object(?![^/]))?(?:/(.*))?", re.DOTALL)

# Service in the ARN: the forms of its resources, as (pattern of the container and the key, prefix of the container).
_S3_CONTAINERS: dict[str, tuple[tuple[re.Pattern[str], str], ...]] = {
    "s3": ((_ACCESS_POINT, ""), (_BUCKET, "")),
    "s3-object-lambda": ((_ACCESS_POINT, ""), (_BUCKET, "")),
    # AWS's own examples leave out `bucket/`; policies need it.
    "s3express": ((_ACCESS_POINT, ""), (_BUCKET, ""), (_BARE_BUCKET, "bucket/")),
    "s3-outposts": ((_OUTPOST, ""),),
}


def _s3_parts(arn: str) -> tuple[str, str | None] | None:
    """Split any S3 ARN into (ARN of the bucket or access point, key inside it or None); return None for other ARNs."""
    if arn.startswith("arn:aws:s3:::"):  # nearly all of them
        bucket, _, key = arn[13:].partition("/")
        return (arn[: 13 + len(bucket)], key or None) if bucket else None
    parts = arn.split(":", 5)
    if len(parts) < 6 or parts[0] != "arn" or not parts[5]:
        return None
    service, region, account, rest = parts[2:]
    if service not in _S3_CONTAINERS:
        return None
    head = ":".join(parts[:5])
    if service == "s3" and not region and not account:
        bucket, _, key = rest.partition("/")
        return (f"{head}:{bucket}", key or None) if bucket else None
    if rest.endswith("/") and rest.count("/") <= 3:  # a prefix: `bucket/NAME/`
        rest = rest[:-1]
    for pattern, prefix in _S3_CONTAINERS[service]:
        match = pattern.fullmatch(rest)
        if match:
            return f"{head}:{prefix}{match[1]}", match[2] or None
    return arn, None  # storage-lens/..., job/...: not a container of objects


# Service in the ARN: (type of data events, type of its bucket).
_S3_TYPES = {
    "s3": ("AWS::S3::Object", "AWS::S3::Bucket"),
    "s3express": ("AWS::S3Express::Object", "AWS::S3Express::DirectoryBucket"),
    "s3-object-lambda": ("AWS::S3ObjectLambda::AccessPoint", "AWS::S3ObjectLambda::AccessPoint"),
    "s3-outposts": ("AWS::S3Outposts::Object", "AWS::S3Outposts::Bucket"),
}


def _s3_arn(call: ResourceCall, name: str | None) -> str | None:
    """Return the ARN for a parameter that names a bucket: by name, or by an ARN (of an access point)."""
    if not name:
        return None
    if name.startswith("arn:"):
        parts = _s3_parts(name)
        return parts[0] if parts else None
    if name.endswith("--x-s3") and call.region:
        return f"arn:{_partition(call)}:s3express:{call.region}:{call.account or ''}:bucket/{name}"
    return f"arn:{_partition(call)}:s3:::{name}"


def _s3(call: ResourceCall) -> TouchedResources:
    named = _s3_arn(call, _text(call.params.get("bucketName")) or _text(call.params.get("bucket")))
    arns: list[str] = []
    keys: dict[str, str] = {}
    accounts: dict[str, str] = {}
    types: dict[str, str] = {}
    point = None
    for entry in call.entries:
        parts = _s3_parts(entry.arn) if entry.arn else None
        if parts is None:
            continue
        arn, key = parts
        arns.append(arn)
        if key is not None:
            keys.setdefault(arn, key)
        elif entry.type:
            types.setdefault(arn, entry.type)
        if entry.account:
            accounts.setdefault(arn, entry.account)
        if point is None and _is_point(arn):
            point = arn
    copied = copy_source(call.params)
    source = None if copied is None else _s3_arn(call, copied.bucket)
    # What is read or written through an access point lies in a bucket: questions about the bucket find it, and the
    # access point, which policies name, stays among the ARNs. Only Object Lambda names no bucket.
    if named in arns and not _is_point(named):
        first = named
    else:
        bucket = next((arn for arn in arns if arn != source and not _is_point(arn)), None)
        found = bucket or point or named or next(iter(arns), None)
        if found is None:
            return _generic(call)
        first = found
    others = [*arns, source] if source else arns
    named_key = _text(call.params.get("key")) or _text(call.params.get("Key"))
    key = named_key or keys.get(first) or (next(iter(keys.values()), None) if point else None)
    touched = TouchedResources(_s3_type(call, first, types), first, _distinct(first, others), accounts.get(first), key)
    if copied is None or source is None or call.name not in COPIES:
        return touched
    if _is_point(source):
        # The record lists the object behind it, if it lists any.
        behind = (arn for arn, inner in keys.items() if inner == copied.key and arn != first)
        source = next(behind, source)
    return touched._replace(source_arn=source, source_key=copied.key)


def _is_point(arn: str) -> bool:
    return ":accesspoint/" in arn or "/accesspoint/" in arn


def _s3_type(call: ResourceCall, arn: str, types: dict[str, str]) -> str | None:
    """Return the type of the resource: the objects' type for a data event, else the bucket's or the listed one."""
    objects, bucket = _S3_TYPES[arn.split(":", 3)[2]]
    is_point = _is_point(arn)
    # Records of versions below 1.07 are not always marked as data events, but they list an object.
    if call.is_data or any(entry.type == objects for entry in call.entries):
        return "AWS::S3::AccessPoint" if is_point and objects == "AWS::S3::Object" else objects
    is_bucket = ":::" in arn or "bucket/" in arn
    return types.get(arn) or ("AWS::S3::AccessPoint" if is_point else bucket if is_bucket else None)


def _s3tables(call: ResourceCall) -> TouchedResources:
    """Return the table, which selectors and policies name beside its bucket, and the key of the file inside it."""
    touched = _generic(call)
    table = next((entry for entry in call.entries if entry.arn and entry.type == "AWS::S3Tables::Table"), None)
    if table is not None and table.arn:
        arns = _distinct(table.arn, list(touched.resource_arns))
        touched = TouchedResources(table.type, table.arn, arns, table.account, None)
    return touched._replace(object_key=_text(call.params.get("key")))


# -- Lambda ----------------------------------------------------------------------------------------------------------


def _function_arn(call: ResourceCall, name: str) -> str | None:
    """Return the unqualified ARN of a name, ``account:function:name`` or ARN, each with or without a qualifier."""
    parts = name.split(":")
    if parts[0] == "arn":
        if len(parts) >= 7 and parts[2] == "lambda" and parts[5] == "function":
            return ":".join(parts[:7])
        return name if len(parts) >= 6 else None
    account, region = call.account, call.region
    if len(parts) >= 3 and parts[1] == "function":
        account, parts = parts[0], parts[2:]
    elif len(parts) >= 2 and parts[0] == "function":
        parts = parts[1:]
    if not parts[0] or not region or not account:
        return None
    return f"arn:{_partition(call)}:lambda:{region}:{account}:function:{parts[0]}"


def _lambda(call: ResourceCall) -> TouchedResources:
    arns: list[str] = []
    first_entry = None
    for entry in call.entries:
        arn = _function_arn(call, entry.arn) if entry.arn and entry.arn.startswith("arn:") else None
        if arn:
            arns.append(arn)
            first_entry = first_entry or entry
    name = _text(call.params.get("functionName")) or _text(call.params.get("functionArn"))
    if not arns and name:
        arn = _function_arn(call, name)
        if arn:
            arns.append(arn)
    if not arns:
        return _generic(call)
    first = arns[0]
    kind = "AWS::Lambda::Function" if ":function:" in first else first_entry.type if first_entry else None
    return TouchedResources(kind, first, _distinct(first, arns), first_entry.account if first_entry else None, None)


# -- DynamoDB --------------------------------------------------------------------------------------------------------

_TABLE_ARN = re.compile(r"(arn:[\w-]+:dynamodb:[\w-]*:\w*:(?:table|global-table)/[^/:|\s]+)")

# PartiQL: the name after FROM, INTO, UPDATE or EXISTS( is a table, bare or quoted; a name after a dot is an index.
_STATEMENT = re.compile(r"""(?i)\b(?:from|into|update)\s+(?:"([^"]+)"|([\w.-]+?))(?=[\s."]|$)""")
_QUOTED = re.compile(r"'(?:[^']|'')*'")

# Parameters that name one table, by name or ARN (also an ARN of something below a table).
_TABLE_PARAMETERS = (
    "tableName",
    "TableName",
    "tableArn",
    "streamArn",
    "shardIterator",
    "exportArn",
    "importArn",
    "backupArn",
    "resourceArn",
    "sourceTableName",
    "sourceTableArn",
    "targetTableName",
    "globalTableName",
)

_json_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _statement_tables(statement: object) -> Iterator[str]:
    if isinstance(statement, str):
        for quoted, bare in _STATEMENT.findall(_QUOTED.sub("''", statement[:8192])):
            yield quoted or bare


def _item_tables(items: object) -> Iterator[str]:
    """Yield the tables of a batch or transaction: its items are a dict by table, or a list of dicts."""
    if isinstance(items, dict):
        yield from (name for name in items if isinstance(name, str))
        return
    if not isinstance(items, list):
        return
    for item in items:
        if not isinstance(item, dict):
            continue
        # {"tableName": ...} or {"put": {"tableName": ...}}; CloudTrail mixes both letter cases in one event.
        for part in (item, *(value for value in item.values() if isinstance(value, dict))):
            name = _text(part.get("tableName")) or _text(part.get("TableName"))
            if name:
                yield name
                break
        yield from _statement_tables(item.get("statement") or item.get("Statement"))


def _named_tables(params: dict[str, object]) -> Iterator[str]:
    for parameter in _TABLE_PARAMETERS:
        name = _text(params[parameter]) if parameter in params else None
        if name and (not name.startswith("arn:") or _TABLE_ARN.match(name)):
            yield name
    for parameter in ("requestItems", "transactItems", "statements", "transactStatements"):
        items = params.get(parameter)
        if items:
            yield from _item_tables(items)
    statement = params.get("statement")
    if statement:
        yield from _statement_tables(statement)


def _dynamodb(call: ResourceCall) -> TouchedResources:
    arns: list[str] = []
    primary = None
    for entry in call.entries:
        match = _TABLE_ARN.match(entry.arn) if entry.arn else None
        if match:
            arns.append(match[1])
            primary = primary or entry
    listed = {arn.rpartition("/")[2] for arn in arns}
    for name in _named_tables(call.params):
        match = _TABLE_ARN.match(name)
        bare = match[1].rpartition("/")[2] if match else name
        if bare in listed:
            continue
        arn = match[1] if match else _table_arn(call, arns, name)
        if arn:
            arns.append(arn)
            listed.add(bare)
    if not arns:
        return _generic(call)
    first, kind = arns[0], "AWS::DynamoDB::Table"
    if primary and primary.type == "AWS::DynamoDB::Stream" and primary.arn:
        # Event selectors and policies use the stream's own ARN; its table stays in resource_arns.
        first, kind = primary.arn, primary.type
    elif primary and primary.type and not call.is_data:
        kind = primary.type
    key = _item_key(call.params.get("key"))
    return TouchedResources(kind, first, _distinct(first, arns), primary.account if primary else None, key)


def _table_arn(call: ResourceCall, arns: list[str], name: str) -> str | None:
    if "/" in name or ":" in name:
        return None
    if arns:  # the tables of one call are in one account and region
        return f"{arns[0].rpartition('/')[0]}/{name}"
    if not call.region or not call.account:
        return None
    return f"arn:{_partition(call)}:dynamodb:{call.region}:{call.account}:table/{name}"


def _item_key(key: object) -> str | None:
    if not isinstance(key, dict) or not key:
        return None
    try:
        return _json_text(key)
    except (TypeError, ValueError, RecursionError):
        return None


# -- everything else -------------------------------------------------------------------------------------------------


def _generic(call: ResourceCall) -> TouchedResources:
    """Use ``resources[]`` alone: the first entry of a data-event type, else the first with an ARN."""
    if not call.entries:
        return _NOTHING
    with_arn = [entry for entry in call.entries if entry.arn]
    if not with_arn:
        return TouchedResources(call.entries[0].type, None, (), call.entries[0].account, None)
    first = next((entry for entry in with_arn if entry.type in DATA_EVENT_TYPES), with_arn[0])
    arns = [entry.arn.rstrip("/") for entry in with_arn if entry.arn]
    arn = (first.arn or "").rstrip("/")
    return TouchedResources(first.type, arn, _distinct(arn, arns), first.account, None)


#: The function that knows how a service names its resources, by the first label of eventSource.
_SERVICES: dict[str, Callable[[ResourceCall], TouchedResources]] = {
    "s3": _s3,
    "s3express": _s3,
    "s3-object-lambda": _s3,
    "s3-outposts": _s3,
    "s3tables": _s3tables,
    "lambda": _lambda,
    "dynamodb": _dynamodb,
    "streams": _dynamodb,
}
