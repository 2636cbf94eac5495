"""Templates of CloudTrail records, in AWS's own order of fields.

`$name` is filled once per actor, `<placeholder>` once per event. Field names, order and types follow records of real
trails and the examples in the AWS documentation; all values are invented.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template


@dataclass(frozen=True)
class RecordTemplate:
    """How one event is written. flow: direction of the payload (in, out or none), as S3 counts it."""

    service: str
    event: str
    params: str
    resources: str = ""
    read_only: bool = True
    flow: str = ""
    response: str = "null"
    management: bool = False
    additional: str = ""
    action: str = ""  # the IAM action, if it is not service:event
    event_type: str = "AwsApiCall"
    caller: str = "session"  # session, or service for calls that an AWS service makes


_BUCKET = '"bucketName":"$on","Host":"$on.s3.$region.amazonaws.com"'
_OBJECT = f'{{{_BUCKET},"key":"<key>"}}'
_S3_BUCKET = '{"accountId":"$owner","type":"AWS::S3::Bucket","ARN":"arn:aws:s3:::$on"}'
_S3_OBJECT = '{"type":"AWS::S3::Object","ARN":"arn:aws:s3:::$on/<key>"},' + _S3_BUCKET
_S3_PREFIX = '{"type":"AWS::S3::Object","ARNPrefix":"arn:aws:s3:::$on/<key>"},' + _S3_BUCKET
_SSE = (
    '"x-amz-server-side-encryption":"aws:kms",'
    '"x-amz-server-side-encryption-aws-kms-key-id":"arn:aws:kms:$region:$owner:key/$kms"'
)
_PUT_RESPONSE = f'{{{_SSE},"x-amz-server-side-encryption-bucket-key-enabled":"true"}}'
_LIST = (
    '{"list-type":"2","bucketName":"$on","encoding-type":"url","max-keys":"1000","prefix":"<key>",'
    '"Host":"$on.s3.$region.amazonaws.com"}'
)
_TABLE = '{"accountId":"$owner","type":"AWS::DynamoDB::Table","ARN":"arn:aws:dynamodb:$region:$owner:table/$on"}'
_STOCK = _TABLE.replace("$on", "$team-stock")
_FUNCTION_ARN = "arn:aws:lambda:$region:$owner:function:$on"
_FUNCTION = f'{{"accountId":"$owner","type":"AWS::Lambda::Function","ARN":"{_FUNCTION_ARN}"}}'
_KMS_KEY = '{"accountId":"$owner","type":"AWS::KMS::Key","ARN":"arn:aws:kms:$region:$owner:key/$kms"}'
_ROLE = '{"accountId":"$account","type":"AWS::IAM::Role","ARN":"$role_arn"}'
_CREDENTIALS = (
    '{"credentials":{"accessKeyId":"<akid>","sessionToken":"IQoJb3JpZ2luX2Vj<token>","expiration":"<expiry>"},'
    '"assumedRoleUser":{"assumedRoleId":"$role_id:<name>","arn":"<arn>"}}'
)

RECORD_TEMPLATES: dict[str, RecordTemplate] = {
    "s3:GetObject": RecordTemplate("s3", "GetObject", _OBJECT, _S3_OBJECT, flow="out"),
    "s3:HeadObject": RecordTemplate("s3", "HeadObject", _OBJECT, _S3_OBJECT, action="s3:GetObject"),
    "s3:ListObjects": RecordTemplate("s3", "ListObjects", _LIST, _S3_PREFIX, flow="out", action="s3:ListBucket"),
    "s3:HeadBucket": RecordTemplate("s3", "HeadBucket", f"{{{_BUCKET}}}", _S3_PREFIX, action="s3:ListBucket"),
    "s3:PutObject": RecordTemplate(
        "s3", "PutObject", f'{{{_SSE},{_BUCKET},"key":"<key>"}}', _S3_OBJECT, False, "in", _PUT_RESPONSE,
    ),
    "s3:UploadPart": RecordTemplate(
        "s3", "UploadPart", f'{{{_BUCKET},"partNumber":"<num>","uploadId":"<upload>","key":"<key>"}}', _S3_OBJECT,
        False, "in", f"{{{_SSE}}}", action="s3:PutObject",
    ),
    "s3:CreateMultipartUpload": RecordTemplate(
        "s3", "CreateMultipartUpload", f'{{{_SSE},{_BUCKET},"uploads":"","key":"<key>"}}', _S3_OBJECT, False,
        response=_PUT_RESPONSE, action="s3:PutObject",
    ),
    "s3:CompleteMultipartUpload": RecordTemplate(
        "s3", "CompleteMultipartUpload", f'{{{_BUCKET},"uploadId":"<upload>","key":"<key>"}}', _S3_OBJECT, False, "in",
        _PUT_RESPONSE, action="s3:PutObject",
    ),
    "s3:CopyObject": RecordTemplate(
        "s3", "CopyObject", f'{{{_BUCKET},"x-amz-copy-source":"$on/<key>.part","key":"<key>"}}', _S3_OBJECT, False,
        response=_PUT_RESPONSE, action="s3:PutObject",
    ),
    "s3:DeleteObject": RecordTemplate("s3", "DeleteObject", _OBJECT, _S3_OBJECT, False),
    "s3:DeleteObjects": RecordTemplate(
        "s3", "DeleteObjects", f'{{{_BUCKET},"delete":""}}', _S3_PREFIX, False, "in", action="s3:DeleteObject",
    ),
    # Since June 2025 a DeleteObjects call is followed by one such event per object.
    "s3:DeleteObject by service": RecordTemplate(
        "s3", "DeleteObject", _OBJECT, _S3_OBJECT, False, event_type="AwsServiceEvent",
    ),
    "s3:PutObject by service": RecordTemplate(
        "s3", "PutObject",
        f'{{"bucketName":"$on","x-amz-acl":"bucket-owner-full-control",{_SSE},"Host":"$on.s3.$region.amazonaws.com","key":"<key>"}}',
        _S3_OBJECT, False, "in", _PUT_RESPONSE, caller="service",
    ),
    "s3:HeadBucket by service": RecordTemplate(
        "s3", "HeadBucket", f"{{{_BUCKET}}}", _S3_PREFIX, action="s3:ListBucket", caller="service",
    ),
    "s3:ListBuckets": RecordTemplate(
        "s3", "ListBuckets", '{"Host":"s3.$region.amazonaws.com"}', flow="out", management=True,
        action="s3:ListAllMyBuckets",
    ),
    "s3:GetBucketLocation": RecordTemplate(
        "s3", "GetBucketLocation", f'{{{_BUCKET},"location":""}}', _S3_BUCKET, flow="out", management=True,
    ),
    "s3:GetBucketAcl": RecordTemplate(
        "s3", "GetBucketAcl", f'{{{_BUCKET},"acl":""}}', _S3_BUCKET, flow="out", management=True,
    ),
    "lambda:Invoke": RecordTemplate(
        "lambda", "Invoke", f'{{"functionName":"{_FUNCTION_ARN}","invocationType":"RequestResponse"}}', _FUNCTION,
        False, additional=f'"additionalEventData":{{"functionVersion":"{_FUNCTION_ARN}:$$LATEST"}},',
        action="lambda:InvokeFunction",
    ),
    "lambda:Invoke by service": RecordTemplate(
        "lambda", "Invoke",
        f'{{"functionName":"{_FUNCTION_ARN}","sourceArn":"arn:aws:execute-api:$region:$owner:$api/live/POST/$on",'
        '"contentType":"application/json"}',
        _FUNCTION, False, additional=f'"additionalEventData":{{"functionVersion":"{_FUNCTION_ARN}:42"}},',
        caller="service",
    ),
    "dynamodb:GetItem": RecordTemplate(
        "dynamodb", "GetItem", '{"tableName":"$on","key":{"pk":"<key>","sk":"v0"},"consistentRead":false}', _TABLE,
    ),
    "dynamodb:PutItem": RecordTemplate(
        "dynamodb", "PutItem",
        '{"tableName":"$on","key":{"pk":"<key>","sk":"v0"},"items":["pk","sk","state","lines","total","updatedAt"],'
        '"conditionExpression":"attribute_not_exists(pk)","returnConsumedCapacity":"TOTAL"}',
        _TABLE, False,
    ),
    "dynamodb:UpdateItem": RecordTemplate(
        "dynamodb", "UpdateItem",
        '{"tableName":"$on","key":{"pk":"<key>","sk":"v0"},"updateExpression":"SET #s = :s, #t = :t ADD #v :one",'
        '"expressionAttributeNames":{"#s":"state","#t":"updatedAt","#v":"version"},'
        '"conditionExpression":"#v = :expected","returnValues":"ALL_NEW"}',
        _TABLE, False,
    ),
    "dynamodb:Query": RecordTemplate(
        "dynamodb", "Query",
        '{"tableName":"$on","keyConditionExpression":"#pk = :pk and begins_with(#sk, :sk)",'
        '"expressionAttributeNames":{"#pk":"pk","#sk":"sk"},"scanIndexForward":false,"limit":<num>}',
        _TABLE,
    ),
    "dynamodb:Scan": RecordTemplate(
        "dynamodb", "Scan", '{"tableName":"$on","segment":<num>,"totalSegments":64,"limit":1000}', _TABLE,
    ),
    "dynamodb:BatchGetItem": RecordTemplate(
        "dynamodb", "BatchGetItem", '{"requestItems":{"$on":{"keys":[<items>]}}}', _TABLE,
    ),
    "dynamodb:TransactWriteItems": RecordTemplate(
        "dynamodb", "TransactWriteItems",
        '{"requestItems":[{"operation":"Put","tableName":"$on","key":{"pk":"<key>","sk":"v0"},'
        '"items":["pk","sk","lines","total"],"conditionExpression":"attribute_not_exists(pk)",'
        '"returnValuesOnConditionCheckFailure":"ALL_OLD"},{"operation":"Update","tableName":"$team-stock",'
        '"key":{"pk":"sku#<num>","sk":"v0"},"updateExpression":"SET #Q = #Q - :n",'
        '"expressionAttributeNames":{"#Q":"qty"},"conditionExpression":"#Q >= :n"}],"returnConsumedCapacity":"TOTAL"}',
        f"{_TABLE},{_STOCK}", False,
    ),
    "dynamodb:ExecuteStatement": RecordTemplate(
        "dynamodb", "ExecuteStatement",
        '{"statement":"SELECT * FROM \\"$on\\" WHERE pk = \'<key>\' AND state = ***(Redacted)","limit":50}', _TABLE,
        action="dynamodb:PartiQLSelect",
    ),
    "dynamodb:BatchExecuteStatement": RecordTemplate(
        "dynamodb", "BatchExecuteStatement",
        '{"requestItems":[{"statement":"UPDATE \\"$on\\" SET loss = ***(Redacted) WHERE pk = \'<key>\'"},'
        '{"statement":"INSERT INTO \\"$on\\" VALUE {\'pk\' : \'<key>\', \'step\' : ***(Redacted)}"}]}',
        _TABLE, False, action="dynamodb:PartiQLUpdate",
    ),
    "dynamodb:GetRecords": RecordTemplate(
        "dynamodb", "GetRecords",
        '{"shardIterator":"arn:aws:dynamodb:$region:$owner:table/$on/stream/2026-01-11T04:22:51.307|1|AAAAAAAAAAF<token>==",'
        '"limit":1000}',
        _TABLE,
    ),
    "dynamodb:DescribeTable": RecordTemplate(
        "dynamodb", "DescribeTable", '{"tableName":"$on"}', _TABLE, management=True,
    ),
    "kms:Decrypt": RecordTemplate(
        "kms", "Decrypt",
        '{"encryptionContext":{"aws:s3:arn":"arn:aws:s3:::$org-$team-lake"},"encryptionAlgorithm":"SYMMETRIC_DEFAULT",'
        '"keyId":"arn:aws:kms:$region:$owner:key/$kms"}',
        _KMS_KEY, management=True,
    ),
    "kms:GenerateDataKey": RecordTemplate(
        "kms", "GenerateDataKey",
        '{"keySpec":"AES_256","encryptionContext":{"aws:s3:arn":"arn:aws:s3:::$org-$team-lake"},'
        '"keyId":"arn:aws:kms:$region:$owner:key/$kms"}',
        _KMS_KEY, management=True,
    ),
    "sts:AssumeRole": RecordTemplate(
        "sts", "AssumeRole", '{"roleArn":"$role_arn","roleSessionName":"<name>","durationSeconds":3600}', _ROLE,
        response=_CREDENTIALS, management=True, caller="service",
    ),
    "sts:AssumeRoleWithWebIdentity": RecordTemplate(
        "sts", "AssumeRoleWithWebIdentity",
        '{"roleArn":"$role_arn","roleSessionName":"<name>","durationSeconds":1800}', _ROLE, response=_CREDENTIALS,
        management=True,
    ),
    "sts:GetCallerIdentity": RecordTemplate("sts", "GetCallerIdentity", "null", management=True),
    "signin:ConsoleLogin": RecordTemplate(
        "signin", "ConsoleLogin", "null", read_only=False, response='{"ConsoleLogin":"Success"}', management=True,
        additional='"additionalEventData":{"LoginTo":"https://console.aws.amazon.com/console/home","MobileVersion":"No",'
        '"MFAUsed":"Yes"},',
        event_type="AwsConsoleSignIn",
    ),
}  # fmt: skip
"""Service and event -> template. A new kind of event needs only an entry here."""

ERRORS: dict[str, tuple[str, int]] = {
    "NoSuchKey": ("The specified key does not exist.", 342),
    "AccessDenied": ("", 243),  # the message names the caller and the resource: see denial()
    "ConditionalCheckFailedException": ("The conditional request failed", 0),
    "TransactionCanceledException": (
        "Transaction cancelled, please refer cancellation reasons for specific reasons [ConditionalCheckFailed]", 0),
    "ThrottlingException": ("Rate exceeded for the table: lower the request rate or raise its capacity.", 0),
    "TooManyRequestsException": ("Rate Exceeded.", 0),
}  # fmt: skip
"""Error code -> (message, bytes of S3's error document)."""


def denial(arn: str, action: str, resource: str) -> str:
    """Return the message of an AccessDenied error, as S3 writes it today."""
    return (
        f'User: {arn} is not authorized to perform: {action} on resource: "{resource}" '
        f"because no identity-based policy allows the {action} action"
    )


_PLACEHOLDER = re.compile(r"<(\w+)>")
_NUMBERS = frozenset({"in", "out", "num"})


@dataclass(frozen=True)
class CompiledTemplate:
    """A template as bytes with % conversions, and the columns that fill them, in order."""

    template: bytes
    placeholders: tuple[str, ...]


def compile_template(text: str, values: Mapping[str, str]) -> CompiledTemplate:
    """Fill the `$names` and turn `<placeholders>` into conversions. Raise KeyError for an unknown `$name`."""
    filled = Template(text).substitute(values)
    pieces = _PLACEHOLDER.split(filled)
    out = pieces[0].replace("%", "%%")
    for name, static in zip(pieces[1::2], pieces[2::2], strict=True):
        out += ("%d" if name in _NUMBERS else "%b") + static.replace("%", "%%")
    return CompiledTemplate(out.encode(), tuple(pieces[1::2]))


_S3_SIGNED = (
    '"additionalEventData":{"SignatureVersion":"SigV4","CipherSuite":"$cipher","bytesTransferredIn":<in>$dot,'
    '$sse"AuthenticationMethod":"AuthHeader","x-amz-id-2":"<xid>","bytesTransferredOut":<out>$dot},'
)
_S3_ANONYMOUS = (
    '"additionalEventData":{"CipherSuite":"$cipher","bytesTransferredIn":<in>$dot,"x-amz-id-2":"<xid>",'
    '"bytesTransferredOut":<out>$dot},'
)


def template_text(template: RecordTemplate, *, failed: bool, signed: bool, tls: bool, shared: bool, tail: str) -> str:
    """Return the template text of a whole record. tail: the actor's fields after recipientAccountId."""
    service = template.service
    host = "$on.s3.$region.amazonaws.com" if "$on." in template.params else f"{service}.$region.amazonaws.com"
    additional = template.additional
    if service == "s3" and template.event_type == "AwsApiCall":
        additional = _S3_SIGNED if signed else _S3_ANONYMOUS
    resources = f'"resources":[{template.resources}],' if template.resources else ""
    version = '"apiVersion":"2012-08-10",' if service == "dynamodb" else ""
    category, managed = ("Management", "true") if template.management else ("Data", "false")
    response = "null" if failed else template.response
    read_only = "true" if template.read_only else "false"
    details = ""
    if tls:
        details = f',"tlsDetails":{{"tlsVersion":"$tls","cipherSuite":"$cipher","clientProvidedHostHeader":"{host}"}}'
    return (
        f'<head><time>","eventSource":"{service}.amazonaws.com","eventName":"{template.event}","awsRegion":"$region",'
        f'"sourceIPAddress":"<net>"<err>,"requestParameters":{template.params},"responseElements":{response},{additional}'
        f'"requestID":"<ids>","readOnly":{read_only},{resources}'
        f'"eventType":"{template.event_type}",{version}"managementEvent":{managed},"recipientAccountId":"$recipient"'
        + (',"sharedEventID":"<shared>"' if shared else "")
        + (tail if service in ("s3", "dynamodb", "kms") else "")
        + f',"eventCategory":"{category}"{details}'
        + "$console}"
    )
