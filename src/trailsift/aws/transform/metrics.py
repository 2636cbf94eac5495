"""What the transformation tells CloudWatch, in the embedded metric format: a JSON line on standard output.

CloudWatch bills each combination of a metric's name and the values of its dimensions, so what is told is bounded by
``BUDGET``, whatever flows through: five metrics over everything, three for each service and action in ``PAIRS``
(any other is told as ``(other)``), and one for each of the first ``RULES`` rules by name (any other as ``(other)``).
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from trailsift.aws.transform.firehose import Pair, Tally

NAMESPACE = "trailsift"
OTHER = "(other)"

#: The actions that are told by name: the same in every environment, so that the number of metrics stays what it is.
PAIRS: dict[str, tuple[str, ...]] = {
    "s3": ("GetObject", "PutObject", "DeleteObject", "DeleteObjects", "HeadObject", "ListObjects", "CopyObject"),
    "lambda": ("Invoke",),
    "dynamodb": ("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan", "BatchGetItem", "BatchWriteItem"),
}
#: Totals: name -> unit. They are told without dimensions.
TOTALS = {"Events": "Count", "Kept": "Count", "Bytes": "Bytes", "Dropped": "Count", "Malformed": "Count"}
#: Told for each service and action.
OF_PAIR = ("Events", "Kept", "Bytes")
RULES = 10

#: Custom metrics at most: the totals, ``OF_PAIR`` for each pair, each service's others and all other services, rules.
BUDGET = len(TOTALS) + len(OF_PAIR) * (sum(map(len, PAIRS.values())) + len(PAIRS) + 1) + RULES + 1


def pair_of(pair: Pair) -> Pair:
    """The pair under which an event is told."""
    names = PAIRS.get(pair.service)
    if names is None:
        return Pair(OTHER, OTHER)
    return pair if pair.event_name in names else Pair(pair.service, OTHER)


def documents(tally: Tally, now: int, rules: tuple[str, ...] = ()) -> list[str]:
    """The JSON lines for one batch. ``now`` in milliseconds since 1970; ``rules`` are the names in the file's order."""
    made = [_document(now, _totals(tally), (), {})]
    values: dict[Pair, Counter[str]] = {}
    for name, counted in (("Events", tally.events), ("Kept", tally.kept), ("Bytes", tally.bytes)):
        for pair, number in counted.items():
            values.setdefault(pair_of(pair), Counter())[name] += number
    for pair, numbers in sorted(values.items()):
        whole = {name: numbers[name] for name in OF_PAIR}
        made.append(_document(now, whole, ("service", "event_name"), pair._asdict()))
    named = set(rules[:RULES])
    by_rule: Counter[str] = Counter()
    for rule, number in tally.dropped.items():
        by_rule[rule if rule in named else OTHER] += number
    made += [_document(now, {"Dropped": number}, ("rule",), {"rule": rule}) for rule, number in sorted(by_rule.items())]
    return [json.dumps(document, separators=(",", ":")) for document in made]


def _totals(tally: Tally) -> dict[str, int]:
    return {
        "Events": tally.events.total(),
        "Kept": tally.kept.total(),
        "Bytes": tally.bytes.total(),
        "Dropped": tally.dropped.total(),
        "Malformed": tally.malformed,
    }


def _document(now: int, values: dict[str, int], dimensions: tuple[str, ...], names: dict[str, Any]) -> dict[str, Any]:
    metrics = [{"Name": name, "Unit": TOTALS[name]} for name in values]
    about = {"Namespace": NAMESPACE, "Dimensions": [list(dimensions)], "Metrics": metrics}
    return {"_aws": {"Timestamp": now, "CloudWatchMetrics": [about]}, **names, **values}
