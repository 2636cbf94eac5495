"""The kind of each call, and the source of each copy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trailsift.cloudtrail.call_kinds import KINDS, call_kind
from trailsift.cloudtrail.copies import copy_source


@pytest.mark.parametrize(
    ("service", "action", "read_only", "kind"),
    [
        ("s3", "GetObject", True, "read"),
        ("s3", "SelectObjectContent", True, "read"),
        ("s3", "GetObjectTorrent", True, "read"),
        ("s3", "HeadObject", True, "other"),
        ("s3", "GetObjectAcl", True, "other"),
        ("s3", "PutObject", False, "write"),
        ("s3", "CopyObject", False, "write"),
        ("s3", "UploadPart", False, "write"),
        ("s3", "UploadPartCopy", False, "write"),
        ("s3", "CompleteMultipartUpload", False, "write"),
        ("s3", "DeleteObject", False, "delete"),
        ("s3", "DeleteObjects", False, "delete-batch"),
        ("s3", "ListObjectsV2", True, "list"),
        ("s3", "ListBuckets", True, "list"),
        ("s3-object-lambda", "WriteGetObjectResponse", False, "other"),
        ("s3-outposts", "GetObject", True, "read"),
        ("s3tables", "GetTableData", True, "read"),
        ("dynamodb", "GetItem", True, "read"),
        ("dynamodb", "Query", True, "read"),
        ("dynamodb", "Scan", True, "read"),
        ("dynamodb", "BatchGetItem", True, "read"),
        ("dynamodb", "TransactGetItems", True, "read"),
        ("dynamodb", "BatchWriteItem", False, "write"),
        ("dynamodb", "DeleteItem", False, "delete"),
        ("dynamodb", "ExecuteStatement", True, "read"),
        ("dynamodb", "ExecuteStatement", False, "write"),
        ("dynamodb", "ExecuteStatement", None, "other"),
        ("lambda", "Invoke", False, "other"),
        ("sns", "Publish", False, "write"),
        ("sqs", "ReceiveMessage", False, "read"),
        ("sqs", "DeleteMessageBatch", False, "delete-batch"),
        ("secretsmanager", "GetSecretValue", True, "read"),
        ("secretsmanager", "BatchGetSecretValue", True, "read"),
        ("kms", "Decrypt", True, "read"),
        ("ec2", "DescribeInstances", True, "list"),
        ("ecr", "BatchDeleteImage", False, "delete-batch"),
        ("iam", "Getaway", None, "other"),
        (None, None, None, "other"),
    ],
)
def test_kind(service: str | None, action: str | None, read_only: bool | None, kind: str) -> None:
    assert call_kind(service, action, read_only) == kind


@given(st.text() | st.none(), st.text() | st.none(), st.booleans() | st.none())
def test_any_call_has_a_kind(service: str | None, action: str | None, read_only: bool | None) -> None:
    assert call_kind(service, action, read_only) in KINDS


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("orders/q1/plan.xlsx", ("orders", "q1/plan.xlsx")),
        ("/orders/q1/plan.xlsx", ("orders", "q1/plan.xlsx")),
        ("orders/q1/plan%20v2.xlsx?versionId=abc", ("orders", "q1/plan v2.xlsx")),
        ("orders%2Fq1%2Fa%3FversionId%3D1", ("orders", "q1/a?versionId=1")),
        ("orders//leading", ("orders", "/leading")),
        ("orders", ("orders", None)),
        ("orders/", ("orders", None)),
        (
            "arn:aws:s3:us-east-1:111122223333:accesspoint/ap/object/a/b",
            ("arn:aws:s3:us-east-1:111122223333:accesspoint/ap", "a/b"),
        ),
        ("", None),
        ("/", None),
        (7, None),
    ],
)
def test_copy_source(text: object, source: tuple[str, str | None] | None) -> None:
    assert copy_source({"x-amz-copy-source": text}) == source


@given(
    st.none() | st.lists(st.text()) | st.dictionaries(st.sampled_from(["x-amz-copy-source", "copySource"]), st.text())
)
def test_any_parameters_have_a_source_or_none(parameters: object) -> None:
    source = copy_source(parameters)
    assert source is None or source.bucket
