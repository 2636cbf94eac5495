"""Boards and alarms: one definition of panels, drawn for CloudWatch and for Grafana.

A panel shows metrics (ours by ``metrics``, or those of the AWS services in between), or the answer to a statement for
Athena over the lake's summaries. CloudWatch draws the first kind only.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

from trailsift.aws.transform import metrics
from trailsift.deploy.tables import StackConfig
from trailsift.prices import load_prices

Board = Literal["operations", "roles", "cost"]

#: Seconds of one point.
PERIOD = 300


class Metric(NamedTuple):
    """One line of a panel: ``match`` are dimensions and their values, ``{stream}`` and ``{function}`` filled in."""

    name: str
    label: str
    match: tuple[tuple[str, str], ...] = ()
    statistic: str = "Sum"
    namespace: str = metrics.NAMESPACE


class Panel(NamedTuple):
    """One panel; texts have prices to fill in, ``sql`` also ``{database}`` and ``$__timeFilter(hour)`` for the time."""

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
_ACTIONS = [(service, action) for service, names in metrics.PAIRS.items() for action in names]

#: Every panel, board by board, in the order in which they are drawn.
PANELS: tuple[Panel, ...] = (
    Panel(
        "operations",
        "Events",
        "what came in, and what rules left of it",
        tuple(Metric(name, label) for name, label in (("Events", "in"), ("Kept", "kept"), ("Dropped", "dropped"))),
    ),
    Panel(
        "operations",
        "Events by service and action",
        "the actions that people look for; the others are in (other)",
        tuple(_pair("Events", service, action) for service, action in _ACTIONS),
    ),
    Panel("operations", "Not readable", "AWS keeps them in the error output", (Metric("Malformed", "malformed"),)),
    Panel(
        "operations",
        "Delay of delivery",
        "age of the oldest record that is not yet in S3",
        (Metric("DeliveryToS3.DataFreshness", "seconds", _STREAM, "Maximum", "AWS/Firehose"),),
        unit="s",
    ),
    Panel(
        "operations",
        "The function",
        "its failures, and how long it takes at most",
        (
            Metric("Errors", "errors", _FUNCTION, "Sum", "AWS/Lambda"),
            Metric("Throttles", "throttles", _FUNCTION, "Sum", "AWS/Lambda"),
            Metric("Duration", "longest (ms)", _FUNCTION, "Maximum", "AWS/Lambda"),
        ),
    ),
    Panel("operations", "Bytes", "JSON of the events that came in", (Metric("Bytes", "bytes"),), unit="bytes"),
    Panel(
        "roles",
        "Busiest roles",
        "exact, whatever was dropped or sampled",
        sql=(
            "SELECT role_arn, sum(events) AS events, sum(bytes_out) AS bytes_out, "
            "sum(if(error_code IS NOT NULL, events, 0)) AS errors FROM {database}.hourly "
            "WHERE $__timeFilter(hour) GROUP BY role_arn ORDER BY events DESC LIMIT 50"
        ),
        shape="table",
    ),
    Panel(
        "roles",
        "Calls by role",
        "hour by hour",
        sql=(
            "SELECT hour AS time, role_arn, sum(events) AS events FROM {database}.hourly "
            "WHERE $__timeFilter(hour) GROUP BY hour, role_arn ORDER BY time"
        ),
    ),
    Panel(
        "roles",
        "Refused calls",
        "who was refused what",
        sql=(
            "SELECT role_arn, service, event_name, resource_arn, error_code, sum(events) AS events "
            "FROM {database}.hourly WHERE $__timeFilter(hour) AND error_code IN ('AccessDenied', "
            "'AccessDeniedException', 'Client.UnauthorizedOperation') GROUP BY 1, 2, 3, 4, 5 "
            "ORDER BY events DESC LIMIT 50"
        ),
        shape="table",
    ),
    Panel(
        "cost",
        "What the trail asks for",
        "${usd_100_000} for 100,000 data events and each trail",
        sql=(
            "SELECT date_trunc('day', hour) AS time, service, sum(events) * {usd} AS usd "
            "FROM {database}.hourly WHERE $__timeFilter(hour) GROUP BY 1, 2 ORDER BY time"
        ),
        unit="currencyUSD",
    ),
    Panel(
        "cost",
        "What fills the log",
        "the lines to narrow first: by selectors, or by rules",
        sql=(
            "SELECT role_arn, service, event_name, resource_arn, sum(events) AS events, sum(events) * {usd} AS usd "
            "FROM {database}.hourly WHERE $__timeFilter(hour) "
            "GROUP BY 1, 2, 3, 4 ORDER BY events DESC LIMIT 50"
        ),
        shape="table",
    ),
    Panel(
        "cost",
        "Bytes into the stream",
        "Firehose is paid by these, in steps of 5 KB for each record",
        (Metric("IncomingBytes", "bytes", _STREAM, "Sum", "AWS/Firehose"),),
        unit="bytes",
    ),
)


class Alarm(NamedTuple):
    """An alarm on one metric: so many periods of ``seconds`` in a row beyond ``threshold``."""

    name: str
    meaning: str
    metric: Metric
    threshold: float
    comparison: Literal["GreaterThanThreshold", "LessThanThreshold"] = "GreaterThanThreshold"
    seconds: int = 300
    periods: int = 1
    missing: Literal["notBreaching", "breaching"] = "notBreaching"


ALARMS: tuple[Alarm, ...] = (
    Alarm("Malformed", "records that cannot be read arrive: look at errors/ in the bucket", Metric("Malformed", ""), 0),
    Alarm(
        "Silence",
        "no event for an hour: does the trail still log data events, and does the subscription still deliver?",
        Metric("Events", ""),
        1,
        "LessThanThreshold",
        3600,
        missing="breaching",
    ),
    Alarm(
        "Delay",
        "events wait for more than 15 minutes to be delivered",
        Metric("DeliveryToS3.DataFreshness", "", _STREAM, "Maximum", "AWS/Firehose"),
        900,
        periods=3,
    ),
    Alarm(
        "FunctionErrors",
        "the transformation fails: its log says why",
        Metric("Errors", "", _FUNCTION, "Sum", "AWS/Lambda"),
        0,
    ),
)


# -- CloudWatch ------------------------------------------------------------------------------------------------------


def _filled(text: str, names: dict[str, str]) -> str:
    return text.format(**names) if text in ("{stream}", "{function}") else text


def cloudwatch(region: str, stream: str, function: str) -> dict[str, Any]:
    """The body of a CloudWatch dashboard: two panels in a row."""
    names = {"stream": stream, "function": function}
    widgets = []
    shown = [panel for panel in PANELS if panel.metrics]
    for number, panel in enumerate(shown):
        lines = [
            [
                metric.namespace,
                metric.name,
                *(part for name, value in metric.match for part in (name, _filled(value, names))),
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
    "prometheus": "trailsift-prometheus",
}
#: What Grafana's schema wants of a panel of each shape.
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "table": {"cellHeight": "sm", "frameIndex": 0, "showHeader": True},
}


def grafana(board: Board, place: StackConfig, stream: str, function: str) -> dict[str, Any]:
    """One Grafana dashboard, as its provisioning reads it."""
    names = {"stream": stream, "function": function}
    panels = []
    for number, panel in enumerate(one for one in PANELS if one.board == board):
        kind = "cloudwatch" if panel.metrics else "grafana-athena-datasource"
        source = {"type": kind, "uid": _UIDS[kind]}
        targets = (
            [_metric_target(at, metric, place, names, source) for at, metric in enumerate(panel.metrics)]
            if panel.metrics
            else [_athena_target(panel, place, source)]
        )
        panels.append(
            {
                "id": number + 1,
                "type": panel.shape,
                "title": panel.title,
                "description": _priced(panel.meaning),
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
    at: int, metric: Metric, place: StackConfig, names: dict[str, str], source: dict[str, str]
) -> dict[str, Any]:
    return {
        "refId": f"M{at}",
        "id": f"m{at}",
        "datasource": source,
        "queryMode": "Metrics",
        "metricQueryType": 0,
        "metricEditorMode": 0,
        "region": place.regions[0],
        "namespace": metric.namespace,
        "metricName": metric.name,
        "dimensions": {name: [_filled(value, names)] for name, value in metric.match},
        "matchExact": True,
        "statistic": metric.statistic,
        "period": str(PERIOD),
        "label": metric.label,
    }


def _priced(text: str) -> str:
    """With the price of a data event in it."""
    price = load_prices()["data_events"]
    return text.replace("{usd_100_000}", f"{price.of(100_000):.2f}").replace("{usd}", f"{price.of(1):.8f}")


def _athena_target(panel: Panel, place: StackConfig, source: dict[str, str]) -> dict[str, Any]:
    return {
        "refId": "A",
        "datasource": source,
        "format": 0 if panel.shape == "timeseries" else 1,
        "rawSQL": _priced(panel.sql).replace("{database}", place.database),
        "connectionArgs": {
            "region": "__default",
            "catalog": "__default",
            "database": "__default",
            "resultReuseEnabled": True,
            "resultReuseMaxAgeInMinutes": 60,
        },
    }


def data_sources(place: StackConfig, workgroup: str) -> str:
    """Grafana's provisioning of the three data sources (YAML). Credentials are those of the machine it runs on."""
    region = place.regions[0]
    athena = {"catalog": "AwsDataCatalog", "database": place.database, "workgroup": workgroup}
    sources: list[dict[str, Any]] = [
        {"name": "trailsift CloudWatch", "type": "cloudwatch", "jsonData": {}},
        {"name": "trailsift Athena", "type": "grafana-athena-datasource", "jsonData": athena},
        {"name": "trailsift Prometheus", "type": "prometheus", "url": "http://localhost:9090", "jsonData": {}},
    ]
    lines = ["apiVersion: 1", "datasources:"]
    for source in sources:
        if source["type"] != "prometheus":
            source["jsonData"] = {"authType": "default", "defaultRegion": region, **source["jsonData"]}
        lines.append(f"  - name: {source['name']}")
        lines += [f"    type: {source['type']}", f"    uid: {_UIDS[source['type']]}", "    access: proxy"]
        lines += [f"    url: {source['url']}"] if "url" in source else []
        lines += ["    jsonData:", *(f"      {name}: {value}" for name, value in source["jsonData"].items())]
        lines += [] if source["jsonData"] else ["      timeInterval: 30s"]
    return "\n".join(lines) + "\n"


PROVIDER = """apiVersion: 1
providers:
  - name: trailsift
    folder: trailsift
    type: file
    options:
      path: /var/lib/grafana/dashboards/trailsift
"""


def text(value: Any) -> str:
    """JSON for a file."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
