"""The CloudFormation template: stream, function, storage, catalog, workgroup, dashboard, alarms.

The stack changes nothing in the account but its own resources; it subscribes to the trail's log group only if the
name of that group is given.
"""

from __future__ import annotations

import json
from typing import Any

from trailsift.deploy import boards, glue_requests
from trailsift.deploy.package import ARCH, PYTHON, Arch
from trailsift.deploy.resources import (
    FILTER,
    FUNCTION,
    STORAGE,
    STREAM,
    SUBSCRIPTION,
    WORKGROUP,
    Resources,
    optimizers,
    sub,
)
from trailsift.deploy.tables import LANDING_PARTITIONS, StackConfig, landing_projection, landing_template
from trailsift.query.athena_tables import FILLED

_PARAMETERS: dict[str, dict[str, Any]] = {
    "BucketName": {
        "Type": "String",
        "Default": "",
        "Description": "Bucket for landing files, lake and query results; athena.sql must name the same",
    },
    "CreateBucket": {
        "Type": "String",
        "Default": "true",
        "AllowedValues": ["true", "false"],
        "Description": "false if the bucket exists: then its encryption, policy and lifecycle stay as they are",
    },
    "CodeBucket": {
        "Type": "String",
        "Description": "Bucket of the zip that `trailsift aws package` builds, in the stack's region",
    },
    # Without a default, and named by its content: CloudFormation sees no change in a new zip under the same key.
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-lambda-function-code.html
    "CodeKey": {"Type": "String", "Description": "Key of the zip: the name that `trailsift aws package` gives it"},
    "Architecture": {
        "Type": "String",
        "AllowedValues": ["arm64", "x86_64"],
        "Description": "Processor architecture that the zip was built for",
    },
    "PythonVersion": {"Type": "String", "Description": "Python version that the zip was built for"},
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
    "LoadCutoffBytes": {
        "Type": "Number",
        "Default": 10_000_000_000_000,
        "MinValue": 10_000_000,
        "Description": "Maximum bytes that one statement may scan that loads days into the tables",
    },
    "OptimizeTables": {
        "Type": "String",
        "Default": "false",
        "AllowedValues": ["true", "false"],
        "Description": "true once athena.sql has created events and hourly: Glue then merges their small files. Never "
        "for tables of a lake that `trailsift connect --glue` has registered",
    },
}
_CONDITIONS = {
    "BucketCreated": {"Fn::Equals": [{"Ref": "CreateBucket"}, "true"]},
    "Optimized": {"Fn::Equals": [{"Ref": "OptimizeTables"}, "true"]},
    "Subscribed": {"Fn::Not": [{"Fn::Equals": [{"Ref": "TrailLogGroup"}, ""]}]},
    "Alarmed": {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmTopicArn"}, ""]}]},
}


def template(config: StackConfig, *, python: str = PYTHON, arch: Arch = ARCH) -> dict[str, Any]:
    """Return the template. Its parameters name the function's zip, the log group, and the topic for alarms."""
    defaults = {"BucketName": config.bucket, "Architecture": arch, "PythonVersion": python}
    parameters = {
        name: {**parameter, **({"Default": defaults[name]} if name in defaults else {})}
        for name, parameter in _PARAMETERS.items()
    }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "trailsift: CloudTrail data events, transformed and partitioned by event time, ready to query",
        "Parameters": parameters,
        "Conditions": _CONDITIONS,
        "Resources": {
            **STORAGE,
            **FUNCTION,
            **STREAM,
            **SUBSCRIPTION,
            **_catalog(config),
            **WORKGROUP,
            **_dashboard(),
            **_alarms(),
            **optimizers(config.database, FILLED),
        },
        "Outputs": {
            "Bucket": {"Value": {"Ref": "BucketName"}},
            **{name: {"Value": {"Ref": name}} for name in ("Stream", "Workgroup", "LoadWorkgroup")},
        },
    }


def _catalog(config: StackConfig) -> Resources:
    folder = "s3://${BucketName}/landing/"
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
    references = {
        "{stream}": {"Ref": "Stream"},
        "{function}": {"Ref": "Function"},
        "{log group}": {"Ref": "TrailLogGroup"},
        "{filter}": FILTER,
    }
    alarms: Resources = {}
    for alarm in boards.ALARMS:
        dimensions = [{"Name": name, "Value": references.get(value, value)} for name, value in alarm.metric.match]
        what: dict[str, Any] = {
            "Namespace": alarm.metric.namespace,
            "MetricName": alarm.metric.name,
            "Dimensions": dimensions,
        }
        values = (
            _share(what, alarm)
            if alarm.limit
            else {**what, "Statistic": alarm.metric.statistic, "Period": alarm.seconds}
        )
        alarms[f"{alarm.name}Alarm"] = {
            "Type": "AWS::CloudWatch::Alarm",
            **({"Condition": "Subscribed"} if any(value == "{filter}" for _, value in alarm.metric.match) else {}),
            "Properties": {
                "AlarmDescription": alarm.meaning,
                **values,
                "EvaluationPeriods": alarm.periods,
                "Threshold": alarm.threshold,
                "ComparisonOperator": alarm.comparison,
                "TreatMissingData": alarm.missing,
                "AlarmActions": {"Fn::If": ["Alarmed", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]},
            },
        }
    return alarms


def _share(what: dict[str, Any], alarm: boards.Alarm) -> dict[str, Any]:
    """Return the rate of a metric per second as a share of another one, its limit."""
    limit = {**what, "MetricName": alarm.limit}
    return {
        "Metrics": [
            {"Id": "share", "Expression": f"used / {alarm.seconds} / most", "ReturnData": True},
            _metric("used", what, alarm.metric.statistic, alarm.seconds),
            _metric("most", limit, "Minimum", alarm.seconds),
        ]
    }


def _metric(name: str, what: dict[str, Any], statistic: str, seconds: int) -> dict[str, Any]:
    return {"Id": name, "ReturnData": False, "MetricStat": {"Metric": what, "Period": seconds, "Stat": statistic}}
