"""Metrics for CloudWatch in the embedded metric format: one JSON document per line on standard output.

CloudWatch bills each combination of a metric name and dimension values, so their number is bounded by ``BUDGET``,
whatever flows through: six metrics in total, three per service and action in ``NAMED_ACTIONS`` (all others count as
``(other)``), and one for each of the first ``MAX_RULES`` rules by name (all others count as ``(other)``).
A dimension holds ASCII only, so a rule with another name is reported by its number.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from trailsift.aws.transform.firehose import BatchCounts, ServiceAction

NAMESPACE = "trailsift"
OTHER = "(other)"

#: Actions with metrics of their own: the same in every environment, so that the number of metrics is fixed.
NAMED_ACTIONS: dict[str, tuple[str, ...]] = {
    "s3": ("GetObject", "PutObject", "DeleteObject", "DeleteObjects", "HeadObject", "ListObjects", "CopyObject"),
    "lambda": ("Invoke",),
    "dynamodb": ("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan", "BatchGetItem", "BatchWriteItem"),
}
#: Totals: name -> unit. They have no dimensions.
TOTALS = {
    "Events": "Count",
    "Kept": "Count",
    "Bytes": "Bytes",
    "Dropped": "Count",
    "Malformed": "Count",
    "Failed": "Count",
}
#: Reported per service and action.
ACTION_METRICS = ("Events", "Kept", "Bytes")
MAX_RULES = 10

_ACTIONS = sum(map(len, NAMED_ACTIONS.values()))
#: Upper bound of custom metrics: the totals; ``ACTION_METRICS`` for each named action, for the other actions of each
#: named service, and for all other services; the named rules, and all other rules.
BUDGET = len(TOTALS) + len(ACTION_METRICS) * (_ACTIONS + len(NAMED_ACTIONS) + 1) + MAX_RULES + 1


def metric_action(action: ServiceAction) -> ServiceAction:
    """Return the dimensions under which an action is reported."""
    names = NAMED_ACTIONS.get(action.service)
    if names is None:
        return ServiceAction(OTHER, OTHER)
    return action if action.event_name in names else ServiceAction(action.service, OTHER)


def documents(counts: BatchCounts, now: int, rules: tuple[str, ...] = ()) -> list[str]:
    """Return the JSON lines of one batch. ``now`` is in milliseconds since 1970; ``rules`` are names in file order."""
    metrics = [_document(now, _totals(counts), (), {})]
    values: dict[ServiceAction, Counter[str]] = {}
    for name, by_action in (("Events", counts.events), ("Kept", counts.kept), ("Bytes", counts.bytes)):
        for action, number in by_action.items():
            values.setdefault(metric_action(action), Counter())[name] += number
    for action, numbers in sorted(values.items()):
        complete = {name: numbers[name] for name in ACTION_METRICS}
        metrics.append(_document(now, complete, ("service", "event_name"), action._asdict()))
    named = {rule: _rule_name(rule, position) for position, rule in enumerate(rules[:MAX_RULES], 1)}
    dropped: Counter[str] = Counter()
    for rule, number in counts.dropped.items():
        dropped[named.get(rule, OTHER)] += number
    metrics += [
        _document(now, {"Dropped": number}, ("rule",), {"rule": rule}) for rule, number in sorted(dropped.items())
    ]
    return [json.dumps(document, separators=(",", ":")) for document in metrics]


def _rule_name(rule: str, position: int) -> str:
    """Return the dimension of a rule: its name if CloudWatch takes it, else its position in the file."""
    usable = rule.isascii() and rule.isprintable() and rule.strip() == rule and not rule.startswith(":")
    return rule if usable and rule else f"rule {position}"


def _totals(counts: BatchCounts) -> dict[str, int]:
    return {
        "Events": counts.events.total(),
        "Kept": counts.kept.total(),
        "Bytes": counts.bytes.total(),
        "Dropped": counts.dropped.total(),
        "Malformed": counts.malformed,
        "Failed": counts.failed,
    }


def _document(now: int, values: dict[str, int], dimensions: tuple[str, ...], names: dict[str, Any]) -> dict[str, Any]:
    metrics = [{"Name": name, "Unit": TOTALS[name]} for name in values]
    directive = {"Namespace": NAMESPACE, "Dimensions": [list(dimensions)], "Metrics": metrics}
    return {"_aws": {"Timestamp": now, "CloudWatchMetrics": [directive]}, **names, **values}
