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


#: By name: the bucket is one of the template, or one that was there before.
BUCKET = sub("arn:${AWS::Partition}:s3:::${BucketName}")

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
    "Resource": [BUCKET, sub("arn:${AWS::Partition}:s3:::${BucketName}/*")],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
STORAGE: Resources = {
    "Bucket": {
        "Type": "AWS::S3::Bucket",
        "Condition": "BucketCreated",
        # Kept with its data, but not if the stack could not be created: a second try would find the name taken.
        # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-attribute-deletionpolicy.html
        "DeletionPolicy": "RetainExceptOnCreate",
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
        "Condition": "BucketCreated",
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
            "Runtime": sub("python${PythonVersion}"),
            "Architectures": [{"Ref": "Architecture"}],
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
    # Creates the bucket first, if it is one of the template.
    "BucketARN": {"Fn::If": ["BucketCreated", arn("Bucket"), BUCKET]},
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
                "Resource": BUCKET,
            },
            {
                "Action": ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"],
                "Resource": [
                    sub("arn:${AWS::Partition}:s3:::${BucketName}/landing/*"),
                    sub("arn:${AWS::Partition}:s3:::${BucketName}/errors/*"),
                ],
            },
            {
                "Action": ["lambda:InvokeFunction", "lambda:GetFunctionConfiguration"],
                "Resource": [arn("Function"), sub("${Function.Arn}:*")],
            },
            {"Action": ["logs:PutLogEvents"], "Resource": arn("StreamLogs")},
        ],
        # Without a condition: AWS's page has none, and a key that Firehose does not send would fail the stack.
        # https://docs.aws.amazon.com/firehose/latest/dev/controlling-access.html#firehose-assume-role
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

# As on the page, which has no narrower form.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html#FirehoseExample
_TRAIL_LOGS = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:*"
#: The name of the subscription, which its metrics have as a dimension.
FILTER = "trailsift"
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
            "FilterName": FILTER,
            # Only data events are sent: Firehose charges for every record.
            "FilterPattern": '{ $.eventCategory = "Data" }',
            "DestinationArn": arn("Stream"),
            "RoleArn": arn("SubscriptionRole"),
        },
    },
}

# -- Athena ----------------------------------------------------------------------------------------------------------


def _workgroup(name: str, cutoff: str) -> Resource:
    return {
        "Type": "AWS::Athena::WorkGroup",
        "Properties": {
            "Name": sub(name),
            "RecursiveDeleteOption": True,
            "WorkGroupConfiguration": {
                "EnforceWorkGroupConfiguration": True,
                "PublishCloudWatchMetricsEnabled": True,
                "BytesScannedCutoffPerQuery": {"Ref": cutoff},
                "EngineVersion": {"SelectedEngineVersion": "Athena engine version 3"},
                "ResultConfiguration": {
                    "OutputLocation": sub("s3://${BucketName}/answers/"),
                    "EncryptionConfiguration": {"EncryptionOption": "SSE_S3"},
                },
            },
        },
    }


#: One for questions, and one for statements that read many days: a limit would stop them, and bill what they read.
WORKGROUP: Resources = {
    "Workgroup": _workgroup("${AWS::StackName}", "QueryCutoffBytes"),
    "LoadWorkgroup": _workgroup("${AWS::StackName}-load", "LoadCutoffBytes"),
}

# -- upkeep of the Iceberg tables --------------------------------------------------------------------------------------

_GLUE = "arn:${AWS::Partition}:glue:${AWS::Region}:${AWS::AccountId}:"
_OPTIMIZER_LOGS = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:/aws-glue/iceberg-*"
#: What each optimizer does beyond its defaults.
_OPTIMIZERS: dict[str, dict[str, Any]] = {
    "compaction": {},
    "retention": {
        "RetentionConfiguration": {
            "IcebergConfiguration": {
                "SnapshotRetentionPeriodInDays": 5,
                "NumberOfSnapshotsToRetain": 1,
                "CleanExpiredFiles": True,
            }
        }
    },
    "orphan_file_deletion": {
        "OrphanFileDeletionConfiguration": {"IcebergConfiguration": {"OrphanFileRetentionPeriodInDays": 5}}
    },
}


def optimizers(database: str, tables: tuple[str, ...]) -> Resources:
    """Return Glue's own upkeep of tables that exist already.

    https://docs.aws.amazon.com/glue/latest/dg/optimization-prerequisites.html
    """
    role = _role(
        "glue.amazonaws.com",
        [
            {"Action": ["s3:ListBucket", "s3:GetBucketLocation"], "Resource": BUCKET},
            {
                "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
                "Resource": sub("arn:${AWS::Partition}:s3:::${BucketName}/lake/*"),
            },
            {
                "Action": ["glue:GetTable", "glue:UpdateTable"],
                "Resource": [
                    sub(f"{_GLUE}catalog"),
                    sub(f"{_GLUE}database/{database}"),
                    *(sub(f"{_GLUE}table/{database}/{table}") for table in tables),
                ],
            },
            {
                "Action": ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": sub(_OPTIMIZER_LOGS),
            },
        ],
    )
    found: Resources = {"OptimizerRole": {"Condition": "Optimized", **role}}
    for table in tables:
        for kind, settings in _OPTIMIZERS.items():
            name = f"{table.title()}{kind.title().replace('_', '')}"
            found[name] = {
                "Type": "AWS::Glue::TableOptimizer",
                "Condition": "Optimized",
                "Properties": {
                    "CatalogId": {"Ref": "AWS::AccountId"},
                    "DatabaseName": {"Ref": "Database"},
                    "TableName": table,
                    "Type": kind,
                    "TableOptimizerConfiguration": {"RoleArn": arn("OptimizerRole"), "Enabled": True, **settings},
                },
            }
    return found
