"""The CloudFormation template: stream, function, storage, catalog, workgroup, dashboard, alarms.

The stack changes nothing in the account but its own resources; it subscribes to the trail's log group only if the
name of that group is given.
"""

from __future__ import annotations

import json
from typing import Any

from trailsift.deploy import boards, glue_requests
from trailsift.deploy.resources import FUNCTION, STORAGE, STREAM, SUBSCRIPTION, WORKGROUP, Resources, sub
from trailsift.deploy.tables import LANDING_PARTITIONS, StackConfig, landing_projection, landing_template

_PARAMETERS: dict[str, dict[str, Any]] = {
    "BucketName": {
        "Type": "String",
        "Default": "",
        "Description": "Bucket to create for landing files, lake and query results; athena.sql must name the same",
    },
    "CodeBucket": {"Type": "String", "Description": "Bucket of the zip that `trailsift aws package` builds"},
    "CodeKey": {"Type": "String", "Default": "firehose.zip", "Description": "Key of the zip"},
    "TrailLogGroup": {
        "Type": "String",
        "Default": "",
        "Description": "Log group that the trail delivers to; empty if something else feeds the stream",
    },
    "AlarmTopicArn": {"Type": "String", "Default": "", "Description": "SNS topic for alarms; empty for none"},
    "QueryCutoffBytes": {
        "Type": "Number",
        "Default": 100_000_000_000,
        "MinValue": 10_000_000,
        "Description": "Maximum bytes that one query may scan",
    },
}
_CONDITIONS = {
    "Subscribed": {"Fn::Not": [{"Fn::Equals": [{"Ref": "TrailLogGroup"}, ""]}]},
    "Alarmed": {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmTopicArn"}, ""]}]},
}


def template(config: StackConfig, *, python: str = "3.13", arch: str = "arm64") -> dict[str, Any]:
    """Return the template. Its parameters name the function's zip, the log group, and the topic for alarms."""
    bucket_name = {**_PARAMETERS["BucketName"], "Default": config.bucket}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "trailsift: CloudTrail data events, transformed and partitioned by event time, ready to query",
        "Parameters": {**_PARAMETERS, "BucketName": bucket_name},
        "Conditions": _CONDITIONS,
        "Resources": {
            **STORAGE,
            **_function(python, arch),
            **STREAM,
            **SUBSCRIPTION,
            **_catalog(config),
            **WORKGROUP,
            **_dashboard(),
            **_alarms(),
        },
        "Outputs": {name: {"Value": {"Ref": name}} for name in ("Bucket", "Stream", "Workgroup")},
    }


def _function(python: str, arch: str) -> Resources:
    function = FUNCTION["Function"]
    properties = {**function["Properties"], "Runtime": f"python{python}", "Architectures": [arch]}
    return {**FUNCTION, "Function": {**function, "Properties": properties}}


def _catalog(config: StackConfig) -> Resources:
    folder = "s3://${Bucket}/landing/"
    table = {
        "Name": "landing",
        "TableType": "EXTERNAL_TABLE",
        "Parameters": _projection(config, folder),
        "PartitionKeys": [{"Name": name, "Type": "string"} for name in LANDING_PARTITIONS],
        "StorageDescriptor": {**glue_requests.storage(""), "Location": sub(folder)},
    }
    catalog = {"CatalogId": {"Ref": "AWS::AccountId"}}
    return {
        "Database": {
            "Type": "AWS::Glue::Database",
            "Properties": {**catalog, "DatabaseInput": {"Name": config.database}},
        },
        "Landing": {
            "Type": "AWS::Glue::Table",
            "Properties": {**catalog, "DatabaseName": {"Ref": "Database"}, "TableInput": table},
        },
    }


def _projection(config: StackConfig, folder: str) -> dict[str, Any]:
    return {
        "EXTERNAL": "TRUE",
        "classification": "json",
        **landing_projection(config),
        "storage.location.template": sub(folder + landing_template("${!%s}")),
    }


def _dashboard() -> Resources:
    body = json.dumps(boards.cloudwatch_dashboard("${AWS::Region}", "${Stream}", "${Function}"), separators=(",", ":"))
    return {
        "Dashboard": {
            "Type": "AWS::CloudWatch::Dashboard",
            "Properties": {"DashboardName": sub("${AWS::StackName}"), "DashboardBody": sub(body)},
        }
    }


def _alarms() -> Resources:
    references = {"{stream}": {"Ref": "Stream"}, "{function}": {"Ref": "Function"}}
    return {
        f"{alarm.name}Alarm": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "AlarmDescription": alarm.meaning,
                "Namespace": alarm.metric.namespace,
                "MetricName": alarm.metric.name,
                "Dimensions": [{"Name": name, "Value": references[value]} for name, value in alarm.metric.match],
                "Statistic": alarm.metric.statistic,
                "Period": alarm.seconds,
                "EvaluationPeriods": alarm.periods,
                "Threshold": alarm.threshold,
                "ComparisonOperator": alarm.comparison,
                "TreatMissingData": alarm.missing,
                "AlarmActions": {"Fn::If": ["Alarmed", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]},
            },
        }
        for alarm in boards.ALARMS
    }
