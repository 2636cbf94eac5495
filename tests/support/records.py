"""Records as CloudTrail writes them, for tests to modify."""

from __future__ import annotations

import json
from typing import Any


def sample(**changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "AssumedRole",
            "principalId": "AROAEXAMPLE:job",
            "arn": "arn:aws:sts::111122223333:assumed-role/etl/job",
            "accountId": "111122223333",
            "accessKeyId": "ASIAEXAMPLE",
            "sessionContext": {"sessionIssuer": {"type": "Role", "arn": "arn:aws:iam::111122223333:role/etl"}},
        },
        "eventTime": "2026-03-02T01:02:03Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject",
        "awsRegion": "ap-northeast-2",
        "sourceIPAddress": "10.0.0.7",
        "userAgent": "[Boto3/1.34]",
        "requestParameters": {"bucketName": "data", "Host": "data.s3.amazonaws.com", "key": "in/2026/03/02/part-1.gz"},
        "responseElements": None,
        "additionalEventData": {"SignatureVersion": "SigV4", "bytesTransferredIn": 0.0, "bytesTransferredOut": 2048},
        "requestID": "REQ",
        "eventID": "11111111-2222-4333-8444-555555555555",
        "readOnly": True,
        "resources": [
            {"type": "AWS::S3::Object", "ARN": "arn:aws:s3:::data/in/2026/03/02/part-1.gz"},
            {"accountId": "111122223333", "type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::data"},
        ],
        "eventType": "AwsApiCall",
        "managementEvent": False,
        "recipientAccountId": "111122223333",
        "eventCategory": "Data",
        "tlsDetails": {"tlsVersion": "TLSv1.3"},
    }
    record.update(changes)
    return record


def text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


ONE, TWO = sample(), sample(eventID="11111111-2222-4333-8444-666666666666")


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its JSON columns parsed: two paths must agree on values, not on formatting."""
    return {name: json.loads(value) if name in JSON_COLUMNS and value else value for name, value in row.items()}


JSON_COLUMNS = ("request_parameters", "response_elements", "additional_event_data", "resources", "rest")
