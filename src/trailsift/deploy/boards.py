"""Dashboards and alarms: one definition of panels, rendered for CloudWatch and for Grafana.

A panel shows metrics (those of ``metrics``, or of the AWS services involved), or the result of an Athena query on the
lake's summaries. CloudWatch shows the first kind only.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

from trailsift.aws.transform import metrics
from trailsift.deploy.regions import partition_of_region
from trailsift.deploy.tables import StackConfig
from trailsift.prices import load_prices
from trailsift.schema import DENIED_CODES, INSIGHT

Board = Literal["operations", "roles", "cost"]

#: Seconds per data point.
PERIOD = 300


class Metric(NamedTuple):
    """One line of a panel. ``match``: dimensions and values; ``{stream}`` and ``{function}`` are filled in later."""

    name: str
    label: str
    match: tuple[tuple[str, str], ...] = ()
    statistic: str = "Sum"
    namespace: str = metrics.NAMESPACE


class Panel(NamedTuple):
    """One panel. Texts have placeholders for prices, ``sql`` also for database, codes of refusals and time.

    In ``sql``, ``{calls}`` leaves out what CloudTrail derives from calls, ``{priced}`` all that has no price per event.
    """

    board: Board
    title: str
    meaning: str
    metrics: tuple[Metric, ...] = ()
    sql: str = ""
    shape: Literal["timeseries", "table"] = "timeseries"
    unit: str = "short"


def _pair(name: str, service: str, action: str) -> Metric:
    return Metric(name, f"{service} {action}", (("service", service), ("event_name", action)))


_STREAM = (("DeliveryStreamName", "{stream}"),)
_FUNCTION = (("FunctionName", "{function}"),)
_ACTIONS = [(service, action) for service, names in metrics.NAMED_ACTIONS.items() for action in names]

#: Every panel, board by board, in order of appearance.
PANELS: tuple[Panel, ...] = (
    Panel(
        "operations",
        "Events",
        "events received, and what the rules kept and dropped",
        tuple(Metric(name, label) for name, label in (("Events", "in"), ("Kept", "kept"), ("Dropped", "dropped"))),
    ),
    Panel(
        "operations",
        "Events by service and action",
        "the most important actions by name; all others are (other)",
        tuple(_pair("Events", service, action) for service, action in _ACTIONS),
    ),
    Panel("operations", "Malformed records", "AWS keeps them in the error output", (Metric("Malformed", "malformed"),)),
    Panel(
        "operations",
        "Delivery delay",
        "age of the oldest record that is not in S3 yet",
        (Metric("DeliveryToS3.DataFreshness", "seconds", _STREAM, "Maximum", "AWS/Firehose"),),
        unit="s",
    ),
    Panel(
        "operations",
        "Lambda function",
        "failures and longest duration",
        (
            Metric("Errors", "errors", _FUNCTION, "Sum", "AWS/Lambda"),
            Metric("Throttles", "throttles", _FUNCTION, "Sum", "AWS/Lambda"),
            Metric("Duration", "longest (ms)", _FUNCTION, "Maximum", "AWS/Lambda"),
        ),
    ),
    Panel("operations", "Bytes", "JSON of the events received", (Metric("Bytes", "bytes"),), unit="bytes"),
    Panel(
        "roles",
        "Busiest callers",
        "roles, users, services and other accounts; exact, even if events were dropped or sampled",
        sql=(
            "SELECT caller, sum(events) AS events, sum(bytes_out) AS bytes_out, "
            "sum(if(error_code IS NOT NULL, events, 0)) AS errors FROM {database}.hourly "
            "WHERE $__timeFilter(hour) AND {calls} GROUP BY caller ORDER BY events DESC LIMIT 50"
        ),
        shape="table",
    ),
    Panel(
        "roles",
        "Calls by caller",
        "per hour",
        sql=(
            "SELECT hour AS time, caller, sum(events) AS events FROM {database}.hourly "
            "WHERE $__timeFilter(hour) AND {calls} GROUP BY hour, caller ORDER BY time"
        ),
    ),
    Panel(
        "roles",
        "Denied calls",
        "by caller, action and resource",
        sql=(
            "SELECT caller, service, event_name, resource_arn, error_code, sum(events) AS events "
            "FROM {database}.hourly WHERE $__timeFilter(hour) AND {calls} AND error_code IN ({denied}) "
            "GROUP BY 1, 2, 3, 4, 5 "
            "ORDER BY events DESC LIMIT 50"
        ),
        shape="table",
    ),
    Panel(
        "cost",
        "Cost of data events",
        "${usd_100_000} per 100,000 data events and trail",
        sql=(
            "SELECT date_trunc('day', hour) AS time, service, sum(events) * {usd} AS usd "
            "FROM {database}.hourly WHERE $__timeFilter(hour) AND {priced} GROUP BY 1, 2 ORDER BY time"
        ),
        unit="currencyUSD",
    ),
    Panel(
        "cost",
        "Largest sources of events",
        "the first candidates for selectors or rules",
        sql=(
            "SELECT caller, service, event_name, resource_arn, sum(events) AS events, sum(events) * {usd} AS usd "
            "FROM {database}.hourly WHERE $__timeFilter(hour) AND {priced} "
            "GROUP BY 1, 2, 3, 4 ORDER BY events DESC LIMIT 50"
        ),
        shape="table",
    ),
    Panel(
        "cost",
        "Bytes into the stream",
        "Firehose charges for these, each record rounded up to 5 KB",
        (Metric("IncomingBytes", "bytes", _STREAM, "Sum", "AWS/Firehose"),),
        unit="bytes",
    ),
)


#: What the words in a panel's ``sql`` stand for. Events of an unknown category (lines of format version 1) count.
_CONDITIONS = {
    "{calls}": f"category <> '{INSIGHT}'",
    "{priced}": f"category NOT IN ('Management', '{INSIGHT}')",
    "{denied}": ", ".join(f"'{code}'" for code in sorted(DENIED_CODES)),
}


class Alarm(NamedTuple):
    """An alarm on one metric: it fires after ``periods`` of ``seconds`` in a row beyond ``threshold``."""

    name: str
    meaning: str
    metric: Metric
    threshold: float
    comparison: Literal["GreaterThanThreshold", "LessThanThreshold"] = "GreaterThanThreshold"
    seconds: int = 300
    periods: int = 1
    missing: Literal["notBreaching", "breaching"] = "notBreaching"
    #: The metric that holds the limit of this one per second; the threshold is then a share of it.
    limit: str = ""


_SUBSCRIPTION = (("LogGroupName", "{log group}"), ("DestinationType", "Firehose"), ("FilterName", "{filter}"))

#: https://docs.aws.amazon.com/firehose/latest/dev/firehose-cloudwatch-metrics-best-practices.html,
#: https://docs.aws.amazon.com/firehose/latest/dev/cloudwatch-metrics.html,
#: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CloudWatch-Logs-Monitoring-CloudWatch-Metrics.html
ALARMS: tuple[Alarm, ...] = (
    Alarm("Malformed", "malformed records arrive: see errors/ in the bucket", Metric("Malformed", ""), 0),
    Alarm(
        "Failed",
        "records could not be transformed or sent: `trailsift ingest` of errors/ in the bucket brings them back",
        Metric("Failed", ""),
        0,
    ),
    Alarm(
        "Throttled",
        "the stream refuses records because a quota is used up: ask AWS for a higher one",
        Metric("ThrottledRecords", "", _STREAM, "Sum", "AWS/Firehose"),
        0,
    ),
    Alarm(
        "Quota",
        "the stream takes in more than 80 % of the bytes per second that its quota allows",
        Metric("IncomingBytes", "", _STREAM, "Sum", "AWS/Firehose"),
        0.8,
        limit="BytesPerSecondLimit",
    ),
    Alarm(
        "Processing",
        "batches fail in the transformation: AWS keeps their records under errors/ in the bucket",
        Metric("ExecuteProcessing.Success", "", _STREAM, "Average", "AWS/Firehose"),
        1,
        "LessThanThreshold",
    ),
    Alarm(
        "Delivery",
        "the stream cannot write to the bucket: see its log group",
        Metric("DeliveryToS3.Success", "", _STREAM, "Average", "AWS/Firehose"),
        1,
        "LessThanThreshold",
    ),
    Alarm(
        "Partitions",
        "more partitions at a time than the stream may have: what exceeds them goes to errors/ in the bucket",
        Metric("PartitionCountExceeded", "", _STREAM, "Maximum", "AWS/Firehose"),
        0,
    ),
    Alarm(
        "Subscription",
        "CloudWatch Logs cannot deliver to the stream",
        Metric("DeliveryErrors", "", _SUBSCRIPTION, "Sum", "AWS/Logs"),
        0,
    ),
    Alarm(
        "SubscriptionThrottled",
        "the stream throttles CloudWatch Logs",
        Metric("DeliveryThrottling", "", _SUBSCRIPTION, "Sum", "AWS/Logs"),
        0,
    ),
    Alarm(
        "Silence",
        "no event for an hour: check that the trail still logs data events and that the subscription delivers",
        Metric("Events", ""),
        1,
        "LessThanThreshold",
        3600,
        missing="breaching",
    ),
    Alarm(
        "Delay",
        "events wait for more than 15 minutes before delivery",
        Metric("DeliveryToS3.DataFreshness", "", _STREAM, "Maximum", "AWS/Firehose"),
        900,
        periods=3,
    ),
    Alarm(
        "FunctionErrors",
        "the transformation fails: see the log of the Lambda function",
        Metric("Errors", "", _FUNCTION, "Sum", "AWS/Lambda"),
        0,
    ),
)


# -- CloudWatch ------------------------------------------------------------------------------------------------------


def _fill(text: str, names: dict[str, str]) -> str:
    return text.format(**names) if text in ("{stream}", "{function}") else text


def cloudwatch_dashboard(region: str, stream: str, function: str) -> dict[str, Any]:
    """Return the body of a CloudWatch dashboard, two panels per row."""
    names = {"stream": stream, "function": function}
    widgets = []
    for number, panel in enumerate(panel for panel in PANELS if panel.metrics):
        lines = [
            [
                metric.namespace,
                metric.name,
                *(part for name, value in metric.match for part in (name, _fill(value, names))),
                {"label": metric.label, "stat": metric.statistic},
            ]
            for metric in panel.metrics
        ]
        widgets.append(
            {
                "type": "metric",
                "x": number % 2 * 12,
                "y": number // 2 * 6,
                "width": 12,
                "height": 6,
                "properties": {
                    "title": panel.title,
                    "metrics": lines,
                    "view": "timeSeries",
                    "period": PERIOD,
                    "region": region,
                },
            }
        )
    return {"start": "-PT24H", "widgets": widgets}


# -- Grafana ---------------------------------------------------------------------------------------------------------

_UIDS = {
    "cloudwatch": "trailsift-cloudwatch",
    "grafana-athena-datasource": "trailsift-athena",
}
#: Options that Grafana's schema requires, by the shape of the panel.
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "table": {"cellHeight": "sm", "frameIndex": 0, "showHeader": True},
}


#: Where the rows of panels with ``sql`` come from.
_NEEDS = "from hourly, which `trailsift aws sql` or a lake that is registered in Glue fills"


def grafana_dashboard(board: Board, config: StackConfig, stream: str, function: str) -> dict[str, Any]:
    """Return one Grafana dashboard for provisioning."""
    names = {"stream": stream, "function": function}
    panels = []
    for number, panel in enumerate(panel for panel in PANELS if panel.board == board):
        kind = "cloudwatch" if panel.metrics else "grafana-athena-datasource"
        source = {"type": kind, "uid": _UIDS[kind]}
        targets = (
            [_metric_target(index, metric, config, names, source) for index, metric in enumerate(panel.metrics)]
            if panel.metrics
            else [_athena_target(panel, config, source)]
        )
        panels.append(
            {
                "id": number + 1,
                "type": panel.shape,
                "title": panel.title,
                "description": _fill_prices(panel.meaning, config.regions[0]) + (f" ({_NEEDS})" if panel.sql else ""),
                "datasource": source,
                "gridPos": {"x": number % 2 * 12, "y": number // 2 * 9, "w": 12, "h": 9},
                "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
                "options": _OPTIONS[panel.shape],
                "targets": targets,
            }
        )
    return {
        "uid": f"trailsift-{board}",
        "title": f"trailsift: {board}",
        "tags": ["trailsift", "cloudtrail"],
        "schemaVersion": 39,
        "editable": True,
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "utc",
        "refresh": "5m" if board == "operations" else "",
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": panels,
    }


def _metric_target(
    index: int, metric: Metric, config: StackConfig, names: dict[str, str], source: dict[str, str]
) -> dict[str, Any]:
    return {
        "refId": f"M{index}",
        "id": f"m{index}",
        "datasource": source,
        "queryMode": "Metrics",
        "metricQueryType": 0,
        "metricEditorMode": 0,
        "region": config.regions[0],
        "namespace": metric.namespace,
        "metricName": metric.name,
        "dimensions": {name: [_fill(value, names)] for name, value in metric.match},
        "matchExact": True,
        "statistic": metric.statistic,
        "period": str(PERIOD),
        "label": metric.label,
    }


def _fill_prices(text: str, region: str) -> str:
    """Fill in the price of data events; where it is not known, queries return NULL for dollars."""
    price = load_prices().of_region(region).get("data_events")
    if price is None:
        named = text.replace("${usd_100_000} per 100,000 data events and trail", f"the price in {region} is not known")
        return named.replace("{usd}", "CAST(NULL AS double)")
    return text.replace("{usd_100_000}", f"{price.of(100_000):.2f}").replace("{usd}", f"{price.of(1):.8f}")


def _athena_target(panel: Panel, config: StackConfig, source: dict[str, str]) -> dict[str, Any]:
    sql = _fill_prices(panel.sql, config.regions[0]).replace("{database}", config.database)
    for word, condition in _CONDITIONS.items():
        sql = sql.replace(word, condition)
    return {
        "refId": "A",
        "datasource": source,
        "format": 0 if panel.shape == "timeseries" else 1,
        "rawSQL": sql,
        "connectionArgs": {
            "region": "__default",
            "catalog": "__default",
            "database": "__default",
            # A period that ends now makes each statement a new one.
            "resultReuseEnabled": False,
        },
    }


def data_sources(config: StackConfig, workgroup: str) -> str:
    """Return Grafana's provisioning file for its data sources (YAML). Grafana uses its own machine's credentials."""
    region = config.regions[0]
    athena = {"catalog": "AwsDataCatalog", "database": config.database, "workgroup": workgroup}
    sources: list[dict[str, Any]] = [
        {"name": "trailsift CloudWatch", "type": "cloudwatch", "jsonData": {}},
        {"name": "trailsift Athena", "type": "grafana-athena-datasource", "jsonData": athena},
    ]
    lines = ["apiVersion: 1", "datasources:"]
    for source in sources:
        source["jsonData"] = {"authType": "default", "defaultRegion": region, **source["jsonData"]}
        lines.append(f"  - name: {source['name']}")
        lines += [f"    type: {source['type']}", f"    uid: {_UIDS[source['type']]}", "    access: proxy"]
        lines += ["    jsonData:", *(f"      {name}: {value}" for name, value in source["jsonData"].items())]
    return "\n".join(lines) + "\n"


PROVIDER = """apiVersion: 1
providers:
  - name: trailsift
    folder: trailsift
    type: file
    options:
      path: /var/lib/grafana/dashboards/trailsift
"""


def to_json(value: Any, indent: int = 2) -> str:
    """Return a value as the text of a JSON file."""
    return json.dumps(value, indent=indent, ensure_ascii=False) + "\n"


def grafana_policy(config: StackConfig, workgroup: str) -> dict[str, Any]:
    """Return the IAM policy that Grafana's machine needs for the data sources: it reads, and writes answers only.

    https://grafana.com/docs/plugins/grafana-athena-datasource/latest/configure/#iam-policies,
    https://docs.aws.amazon.com/athena/latest/ug/security-iam-athena.html
    """
    region, account = config.regions[0], config.accounts[0]
    partition = partition_of_region(region)
    bucket, catalog = f"arn:{partition}:s3:::{config.bucket}", f"arn:{partition}:glue:{region}:{account}:"
    athena = f"arn:{partition}:athena:{region}:{account}:"
    statements: list[tuple[str, list[str], str | list[str]]] = [
        # These take no resource.
        # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatch.html
        ("Metrics", ["cloudwatch:GetMetricData", "cloudwatch:ListMetrics"], "*"),
        (
            "Queries",
            [f"athena:{name}" for name in ("GetQueryExecution", "GetQueryResults", "GetWorkGroup")]
            + ["athena:StartQueryExecution", "athena:StopQueryExecution"],
            f"{athena}workgroup/{workgroup}",
        ),
        ("Catalog", ["athena:GetDataCatalog"], f"{athena}datacatalog/AwsDataCatalog"),
        (
            "Tables",
            [f"glue:{name}" for name in ("GetDatabase", "GetDatabases", "GetTable", "GetTables", "GetPartitions")],
            [f"{catalog}{name}" for name in ("catalog", f"database/{config.database}", f"table/{config.database}/*")],
        ),
        ("Bucket", ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"], bucket),
        ("Read", ["s3:GetObject"], f"{bucket}/lake/*"),
        ("Answers", ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], f"{bucket}/answers/*"),
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource}
            for sid, actions, resource in statements
        ],
    }
