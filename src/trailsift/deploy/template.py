"""The CloudFormation template: stream, function, storage, catalog, workgroup, boards, alarms.

Every policy names its actions and its resources. Nothing in the account is changed but what the template makes; a
log group of the trail is subscribed to only where its name is given.
"""

from __future__ import annotations

import json
from typing import Any

from trailsift.deploy import boards, glue_requests
from trailsift.deploy.package import HANDLER
from trailsift.deploy.tables import LANDING_PARTITIONS, StackConfig

Resource = dict[str, Any]

#: Prefix of the landing files, by the event's own time; and where AWS puts what failed.
PREFIX = "landing/" + "".join(f"{name}=!{{partitionKeyFromLambda:{name}}}/" for name in LANDING_PARTITIONS)
ERRORS = "errors/!{firehose:error-output-type}/!{timestamp:yyyy/MM/dd}/"


def template(place: StackConfig, *, python: str = "3.13", arch: str = "arm64") -> dict[str, Any]:
    """The template. Parameters: where the function's zip is, what to subscribe to, whom to alarm."""
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "trailsift: CloudTrail data events, transformed, partitioned by their own time, ready to ask",
        "Parameters": {
            "BucketName": {
                "Type": "String",
                "Default": place.bucket,
                "Description": "Bucket that is made for landing files, lake and answers; athena.sql names it too",
            },
            "CodeBucket": {"Type": "String", "Description": "Bucket of the zip that `trailsift aws package` builds"},
            "CodeKey": {"Type": "String", "Default": "firehose.zip", "Description": "Its key"},
            "TrailLogGroup": {
                "Type": "String",
                "Default": "",
                "Description": "Log group that the trail delivers to; empty where something else feeds the stream",
            },
            "AlarmTopicArn": {"Type": "String", "Default": "", "Description": "SNS topic for alarms; empty for none"},
            "QueryCutoffBytes": {
                "Type": "Number",
                "Default": 100_000_000_000,
                "MinValue": 10_000_000,
                "Description": "Most bytes that one query may scan",
            },
        },
        "Conditions": {
            "Subscribed": {"Fn::Not": [{"Fn::Equals": [{"Ref": "TrailLogGroup"}, ""]}]},
            "Alarmed": {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmTopicArn"}, ""]}]},
        },
        "Resources": {
            **_storage(),
            **_function(python, arch),
            **_stream(),
            **_subscription(),
            **_catalog(place),
            **_watching(),
        },
        "Outputs": {
            "Bucket": {"Value": {"Ref": "Bucket"}},
            "Stream": {"Value": {"Ref": "Stream"}},
            "Workgroup": {"Value": {"Ref": "Workgroup"}},
        },
    }


def _sub(text: str) -> dict[str, str]:
    return {"Fn::Sub": text}


def _arn(name: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [name, "Arn"]}


def _role(service: str, statements: list[dict[str, Any]], condition: dict[str, Any] | None = None) -> Resource:
    trust: dict[str, Any] = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    if condition:
        trust["Condition"] = condition
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": [
                {
                    "PolicyName": "own",
                    "PolicyDocument": {
                        "Version": "2012-10-17",
                        "Statement": [{"Effect": "Allow", **statement} for statement in statements],
                    },
                }
            ],
        },
    }


_OURS = {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def _storage() -> dict[str, Resource]:
    def expires(name: str, prefix: str, days: int) -> dict[str, Any]:
        return {"Id": name, "Status": "Enabled", "Prefix": prefix, "ExpirationInDays": days}

    unfinished = {"Id": "unfinished", "Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}
    insecure = {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [_arn("Bucket"), _sub("${Bucket.Arn}/*")],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return {
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "BucketName": {"Ref": "BucketName"},
                "BucketEncryption": {
                    "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
                },
                "PublicAccessBlockConfiguration": dict.fromkeys(
                    ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
                ),
                "LifecycleConfiguration": {
                    "Rules": [expires("errors", "errors/", 90), expires("answers", "answers/", 7), unfinished]
                },
            },
        },
        "BucketPolicy": {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {
                "Bucket": {"Ref": "Bucket"},
                "PolicyDocument": {"Version": "2012-10-17", "Statement": [insecure]},
            },
        },
    }


_STREAM_ARN = "arn:${AWS::Partition}:firehose:${AWS::Region}:${AWS::AccountId}:deliverystream/${AWS::StackName}"


def _function(python: str, arch: str) -> dict[str, Resource]:
    return {
        "FunctionLogs": {
            "Type": "AWS::Logs::LogGroup",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Delete",
            "Properties": {"LogGroupName": _sub("/aws/lambda/${AWS::StackName}-transform"), "RetentionInDays": 30},
        },
        "FunctionRole": _role(
            "lambda.amazonaws.com",
            [
                {
                    "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                    "Resource": _arn("FunctionLogs"),
                },
                # The stream needs the function first: its name is known all the same.
                {"Action": ["firehose:PutRecordBatch"], "Resource": _sub(_STREAM_ARN)},
            ],
        ),
        "Function": {
            "Type": "AWS::Lambda::Function",
            "DependsOn": "FunctionLogs",
            "Properties": {
                "FunctionName": _sub("${AWS::StackName}-transform"),
                "Runtime": f"python{python}",
                "Architectures": [arch],
                "Handler": HANDLER,
                "Code": {"S3Bucket": {"Ref": "CodeBucket"}, "S3Key": {"Ref": "CodeKey"}},
                "Role": _arn("FunctionRole"),
                "MemorySize": 1024,
                "Timeout": 120,
            },
        },
    }


def _stream() -> dict[str, Resource]:
    processor = {
        "LambdaArn": _arn("Function"),
        # Batches of CloudWatch Logs unpack to ten times their size, and the answer has 6 MB.
        "BufferSizeInMBs": "0.4",
        "BufferIntervalInSeconds": "60",
        "NumberOfRetries": "3",
    }
    return {
        "StreamLogs": {
            "Type": "AWS::Logs::LogGroup",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Delete",
            "Properties": {"LogGroupName": _sub("/aws/kinesisfirehose/${AWS::StackName}"), "RetentionInDays": 30},
        },
        "StreamLog": {
            "Type": "AWS::Logs::LogStream",
            "Properties": {"LogGroupName": {"Ref": "StreamLogs"}, "LogStreamName": "delivery"},
        },
        "StreamRole": _role(
            "firehose.amazonaws.com",
            [
                {
                    "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
                    "Resource": _arn("Bucket"),
                },
                {
                    "Action": ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"],
                    "Resource": [_sub("${Bucket.Arn}/landing/*"), _sub("${Bucket.Arn}/errors/*")],
                },
                {
                    "Action": ["lambda:InvokeFunction", "lambda:GetFunctionConfiguration"],
                    "Resource": [_arn("Function"), _sub("${Function.Arn}:*")],
                },
                {"Action": ["logs:PutLogEvents"], "Resource": _arn("StreamLogs")},
            ],
            _OURS,
        ),
        "Stream": {
            "Type": "AWS::KinesisFirehose::DeliveryStream",
            "Properties": {
                "DeliveryStreamName": _sub("${AWS::StackName}"),
                "DeliveryStreamType": "DirectPut",
                "DeliveryStreamEncryptionConfigurationInput": {"KeyType": "AWS_OWNED_CMK"},
                "ExtendedS3DestinationConfiguration": {
                    "BucketARN": _arn("Bucket"),
                    "RoleARN": _arn("StreamRole"),
                    "Prefix": PREFIX,
                    "ErrorOutputPrefix": ERRORS,
                    "CompressionFormat": "GZIP",
                    "FileExtension": ".json.gz",
                    "BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 300},
                    "DynamicPartitioningConfiguration": {"Enabled": True, "RetryOptions": {"DurationInSeconds": 300}},
                    "ProcessingConfiguration": {
                        "Enabled": True,
                        "Processors": [
                            {
                                "Type": "Lambda",
                                "Parameters": [
                                    {"ParameterName": name, "ParameterValue": value}
                                    for name, value in processor.items()
                                ],
                            }
                        ],
                    },
                    "CloudWatchLoggingOptions": {
                        "Enabled": True,
                        "LogGroupName": {"Ref": "StreamLogs"},
                        "LogStreamName": {"Ref": "StreamLog"},
                    },
                },
            },
        },
    }


def _subscription() -> dict[str, Resource]:
    source = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:${TrailLogGroup}:*"
    role = _role(
        "logs.amazonaws.com",
        [{"Action": ["firehose:PutRecord", "firehose:PutRecordBatch"], "Resource": _arn("Stream")}],
        {"StringLike": {"aws:SourceArn": _sub(source)}},
    )
    return {
        "SubscriptionRole": {"Condition": "Subscribed", **role},
        "Subscription": {
            "Type": "AWS::Logs::SubscriptionFilter",
            "Condition": "Subscribed",
            "Properties": {
                "LogGroupName": {"Ref": "TrailLogGroup"},
                # Only data events come along: what is not sent is not paid for.
                "FilterPattern": '{ $.eventCategory = "Data" }',
                "DestinationArn": _arn("Stream"),
                "RoleArn": _arn("SubscriptionRole"),
            },
        },
    }


def _catalog(place: StackConfig) -> dict[str, Resource]:
    folder = "s3://${Bucket}/landing/"
    storage = {**glue_requests.storage(""), "Location": _sub(folder)}
    keys = "/".join(f"{name}=${{!{name}}}" for name in LANDING_PARTITIONS)
    parameters: dict[str, Any] = {
        "EXTERNAL": "TRUE",
        "classification": "json",
        "projection.enabled": "true",
        "projection.service.type": "enum",
        "projection.service.values": ",".join(place.services),
        "storage.location.template": _sub(folder + keys),
    }
    year = place.since.year
    ranges = {"year": f"{year},{year + 20}", "month": "1,12", "day": "1,31", "hour": "0,23"}
    for name, span in ranges.items():
        parameters[f"projection.{name}.type"] = "integer"
        parameters[f"projection.{name}.range"] = span
        parameters[f"projection.{name}.digits"] = "4" if name == "year" else "2"
    return {
        "Database": {
            "Type": "AWS::Glue::Database",
            "Properties": {"CatalogId": {"Ref": "AWS::AccountId"}, "DatabaseInput": {"Name": place.database}},
        },
        "Landing": {
            "Type": "AWS::Glue::Table",
            "Properties": {
                "CatalogId": {"Ref": "AWS::AccountId"},
                "DatabaseName": {"Ref": "Database"},
                "TableInput": {
                    "Name": "landing",
                    "TableType": "EXTERNAL_TABLE",
                    "Parameters": parameters,
                    "PartitionKeys": [{"Name": name, "Type": "string"} for name in LANDING_PARTITIONS],
                    "StorageDescriptor": storage,
                },
            },
        },
        "Workgroup": {
            "Type": "AWS::Athena::WorkGroup",
            "Properties": {
                "Name": _sub("${AWS::StackName}"),
                "RecursiveDeleteOption": True,
                "WorkGroupConfiguration": {
                    "EnforceWorkGroupConfiguration": True,
                    "PublishCloudWatchMetricsEnabled": True,
                    "BytesScannedCutoffPerQuery": {"Ref": "QueryCutoffBytes"},
                    "EngineVersion": {"SelectedEngineVersion": "Athena engine version 3"},
                    "ResultConfiguration": {
                        "OutputLocation": _sub("s3://${Bucket}/answers/"),
                        "EncryptionConfiguration": {"EncryptionOption": "SSE_S3"},
                    },
                },
            },
        },
    }


def _watching() -> dict[str, Resource]:
    body = json.dumps(boards.cloudwatch("${AWS::Region}", "${Stream}", "${Function}"), separators=(",", ":"))
    made: dict[str, Resource] = {
        "Dashboard": {
            "Type": "AWS::CloudWatch::Dashboard",
            "Properties": {"DashboardName": _sub("${AWS::StackName}"), "DashboardBody": _sub(body)},
        }
    }
    names = {"{stream}": {"Ref": "Stream"}, "{function}": {"Ref": "Function"}}
    for alarm in boards.ALARMS:
        made[f"{alarm.name}Alarm"] = {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "AlarmDescription": alarm.meaning,
                "Namespace": alarm.metric.namespace,
                "MetricName": alarm.metric.name,
                "Dimensions": [{"Name": name, "Value": names[value]} for name, value in alarm.metric.match],
                "Statistic": alarm.metric.statistic,
                "Period": alarm.seconds,
                "EvaluationPeriods": alarm.periods,
                "Threshold": alarm.threshold,
                "ComparisonOperator": alarm.comparison,
                "TreatMissingData": alarm.missing,
                "AlarmActions": {"Fn::If": ["Alarmed", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]},
            },
        }
    return made
