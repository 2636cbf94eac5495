"""The resources of the CloudFormation template that are the same in every stack, as data.

``template`` adds the ones that depend on a ``StackConfig``. Every policy names its actions and its resources.
"""

from __future__ import annotations

from typing import Any

from trailsift.deploy.package import HANDLER
from trailsift.deploy.tables import LANDING_PARTITIONS

Resource = dict[str, Any]
Resources = dict[str, Resource]


def sub(text: str) -> dict[str, str]:
    """Return ``Fn::Sub``."""
    return {"Fn::Sub": text}


def arn(name: str) -> dict[str, Any]:
    """Return the ARN of a resource of the template."""
    return {"Fn::GetAtt": [name, "Arn"]}


def _role(service: str, statements: list[dict[str, Any]], condition: dict[str, Any] | None = None) -> Resource:
    trust: dict[str, Any] = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    if condition:
        trust["Condition"] = condition
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", **statement} for statement in statements],
    }
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": [{"PolicyName": "own", "PolicyDocument": document}],
        },
    }


def _log_group(name: str) -> Resource:
    return {
        "Type": "AWS::Logs::LogGroup",
        "DeletionPolicy": "Delete",
        "UpdateReplacePolicy": "Delete",
        "Properties": {"LogGroupName": sub(name), "RetentionInDays": 30},
    }


_OWN_ACCOUNT = {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}

# -- storage ---------------------------------------------------------------------------------------------------------

_LIFECYCLE: list[dict[str, Any]] = [
    {"Id": "errors", "Status": "Enabled", "Prefix": "errors/", "ExpirationInDays": 90},
    {"Id": "answers", "Status": "Enabled", "Prefix": "answers/", "ExpirationInDays": 7},
    {"Id": "unfinished", "Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}},
]
_TLS_ONLY = {
    "Sid": "TlsOnly",
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:*",
    "Resource": [arn("Bucket"), sub("${Bucket.Arn}/*")],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
STORAGE: Resources = {
    "Bucket": {
        "Type": "AWS::S3::Bucket",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "BucketName": {"Ref": "BucketName"},
            "BucketEncryption": {
                "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            },
            "PublicAccessBlockConfiguration": {
                "BlockPublicAcls": True,
                "BlockPublicPolicy": True,
                "IgnorePublicAcls": True,
                "RestrictPublicBuckets": True,
            },
            "LifecycleConfiguration": {"Rules": _LIFECYCLE},
        },
    },
    "BucketPolicy": {
        "Type": "AWS::S3::BucketPolicy",
        "Properties": {
            "Bucket": {"Ref": "Bucket"},
            "PolicyDocument": {"Version": "2012-10-17", "Statement": [_TLS_ONLY]},
        },
    },
}

# -- the Lambda function ---------------------------------------------------------------------------------------------

_STREAM_ARN = "arn:${AWS::Partition}:firehose:${AWS::Region}:${AWS::AccountId}:deliverystream/${AWS::StackName}"
FUNCTION: Resources = {
    "FunctionLogs": _log_group("/aws/lambda/${AWS::StackName}-transform"),
    "FunctionRole": _role(
        "lambda.amazonaws.com",
        [
            {"Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": arn("FunctionLogs")},
            # By name, not by reference: the stream itself depends on the function.
            {"Action": ["firehose:PutRecordBatch"], "Resource": sub(_STREAM_ARN)},
        ],
    ),
    "Function": {
        "Type": "AWS::Lambda::Function",
        "DependsOn": "FunctionLogs",
        "Properties": {
            "FunctionName": sub("${AWS::StackName}-transform"),
            "Runtime": "python3.13",
            "Architectures": ["arm64"],
            "Handler": HANDLER,
            "Code": {"S3Bucket": {"Ref": "CodeBucket"}, "S3Key": {"Ref": "CodeKey"}},
            "Role": arn("FunctionRole"),
            "MemorySize": 1024,
            "Timeout": 120,
        },
    },
}

# -- the Firehose stream ---------------------------------------------------------------------------------------------

#: Prefix of the landing files, by the event's own time; and of the records that failed.
_LANDING_PREFIX = "landing/" + "".join(f"{name}=!{{partitionKeyFromLambda:{name}}}/" for name in LANDING_PARTITIONS)
_ERROR_PREFIX = "errors/!{firehose:error-output-type}/!{timestamp:yyyy/MM/dd}/"
_TRANSFORM = {
    "Type": "Lambda",
    "Parameters": [
        {"ParameterName": "LambdaArn", "ParameterValue": arn("Function")},
        # Batches of CloudWatch Logs unpack to ten times their size, and the response is limited to 6 MB.
        {"ParameterName": "BufferSizeInMBs", "ParameterValue": "0.4"},
        {"ParameterName": "BufferIntervalInSeconds", "ParameterValue": "60"},
        {"ParameterName": "NumberOfRetries", "ParameterValue": "3"},
    ],
}
_DESTINATION = {
    "BucketARN": arn("Bucket"),
    "RoleARN": arn("StreamRole"),
    "Prefix": _LANDING_PREFIX,
    "ErrorOutputPrefix": _ERROR_PREFIX,
    "CompressionFormat": "GZIP",
    "FileExtension": ".json.gz",
    "BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 300},
    "DynamicPartitioningConfiguration": {"Enabled": True, "RetryOptions": {"DurationInSeconds": 300}},
    "ProcessingConfiguration": {"Enabled": True, "Processors": [_TRANSFORM]},
    "CloudWatchLoggingOptions": {
        "Enabled": True,
        "LogGroupName": {"Ref": "StreamLogs"},
        "LogStreamName": {"Ref": "StreamLog"},
    },
}
STREAM: Resources = {
    "StreamLogs": _log_group("/aws/kinesisfirehose/${AWS::StackName}"),
    "StreamLog": {
        "Type": "AWS::Logs::LogStream",
        "Properties": {"LogGroupName": {"Ref": "StreamLogs"}, "LogStreamName": "delivery"},
    },
    "StreamRole": _role(
        "firehose.amazonaws.com",
        [
            {
                "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
                "Resource": arn("Bucket"),
            },
            {
                "Action": ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"],
                "Resource": [sub("${Bucket.Arn}/landing/*"), sub("${Bucket.Arn}/errors/*")],
            },
            {
                "Action": ["lambda:InvokeFunction", "lambda:GetFunctionConfiguration"],
                "Resource": [arn("Function"), sub("${Function.Arn}:*")],
            },
            {"Action": ["logs:PutLogEvents"], "Resource": arn("StreamLogs")},
        ],
        _OWN_ACCOUNT,
    ),
    "Stream": {
        "Type": "AWS::KinesisFirehose::DeliveryStream",
        "Properties": {
            "DeliveryStreamName": sub("${AWS::StackName}"),
            "DeliveryStreamType": "DirectPut",
            "DeliveryStreamEncryptionConfigurationInput": {"KeyType": "AWS_OWNED_CMK"},
            "ExtendedS3DestinationConfiguration": _DESTINATION,
        },
    },
}

# -- the subscription to the trail's log group -----------------------------------------------------------------------

_TRAIL_LOGS = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${TrailLogGroup}:*"
SUBSCRIPTION: Resources = {
    "SubscriptionRole": {
        "Condition": "Subscribed",
        **_role(
            "logs.amazonaws.com",
            [{"Action": ["firehose:PutRecord", "firehose:PutRecordBatch"], "Resource": arn("Stream")}],
            {"StringLike": {"aws:SourceArn": sub(_TRAIL_LOGS)}},
        ),
    },
    "Subscription": {
        "Type": "AWS::Logs::SubscriptionFilter",
        "Condition": "Subscribed",
        "Properties": {
            "LogGroupName": {"Ref": "TrailLogGroup"},
            # Only data events are sent: Firehose charges for every record.
            "FilterPattern": '{ $.eventCategory = "Data" }',
            "DestinationArn": arn("Stream"),
            "RoleArn": arn("SubscriptionRole"),
        },
    },
}

# -- Athena ----------------------------------------------------------------------------------------------------------

WORKGROUP: Resources = {
    "Workgroup": {
        "Type": "AWS::Athena::WorkGroup",
        "Properties": {
            "Name": sub("${AWS::StackName}"),
            "RecursiveDeleteOption": True,
            "WorkGroupConfiguration": {
                "EnforceWorkGroupConfiguration": True,
                "PublishCloudWatchMetricsEnabled": True,
                "BytesScannedCutoffPerQuery": {"Ref": "QueryCutoffBytes"},
                "EngineVersion": {"SelectedEngineVersion": "Athena engine version 3"},
                "ResultConfiguration": {
                    "OutputLocation": sub("s3://${Bucket}/answers/"),
                    "EncryptionConfiguration": {"EncryptionOption": "SSE_S3"},
                },
            },
        },
    },
}
