"""The category of an event: Data, Management, NetworkActivity, Insight; derived where a record does not name it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trailsift.cloudtrail.callers import text_of

DATA_NAMES: dict[str, frozenset[str]] = {
    "s3.amazonaws.com": frozenset(
        (
            "GetObject",
            "PutObject",
            "DeleteObject",
            "DeleteObjects",
            "HeadObject",
            "CopyObject",
            "ListObjects",
            "ListObjectVersions",
            "ListObjectsV2",
            "ListParts",
            "ListMultipartUploads",
            "CreateMultipartUpload",
            "UploadPart",
            "UploadPartCopy",
            "CompleteMultipartUpload",
            "AbortMultipartUpload",
            "GetObjectAcl",
            "PutObjectAcl",
            "GetObjectTagging",
            "PutObjectTagging",
            "DeleteObjectTagging",
            "GetObjectTorrent",
            "GetObjectRetention",
            "PutObjectRetention",
            "GetObjectLegalHold",
            "PutObjectLegalHold",
            "GetObjectAttributes",
            "RestoreObject",
            "SelectObjectContent",
            "WriteGetObjectResponse",
            "HeadBucket",
            "PostObject",
            "RenameObject",
        )
    ),
    "lambda.amazonaws.com": frozenset(
        (
            "Invoke",
            "InvokeAsync",
            "InvokeWithResponseStream",
            "LambdaESMDisabled",
        )
    ),
    "dynamodb.amazonaws.com": frozenset(
        (
            "GetItem",
            "PutItem",
            "UpdateItem",
            "DeleteItem",
            "Query",
            "Scan",
            "BatchGetItem",
            "BatchWriteItem",
            "TransactGetItems",
            "TransactWriteItems",
            "ExecuteStatement",
            "BatchExecuteStatement",
            "ExecuteTransaction",
            "GetRecords",
            "GetShardIterator",
        )
    ),
}
#: ``managementEvent`` by category, where the category says it.
MANAGEMENT_FLAG = {"Data": False, "Management": True}


def category_of(record: Mapping[str, Any]) -> str:
    """Return eventCategory; derive it if the record has none (eventVersion up to 1.06, and exports)."""
    category = text_of(record.get("eventCategory"))
    if category:
        return category
    kind = record.get("eventType")
    if kind == "AwsCloudTrailInsight":
        return "Insight"
    if kind == "AwsVpceEvent":
        return "NetworkActivity"
    flag = record.get("managementEvent")
    if flag is False:
        return "Data"
    if flag is True:
        return "Management"
    names = DATA_NAMES.get(str(record.get("eventSource")), frozenset())
    return "Data" if str(record.get("eventName")) in names else "Management"
