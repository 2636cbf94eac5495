"""The Lambda function of a Firehose stream: ``trailsift.aws.handler.firehose``.

Environment: ``TRAILSIFT_RULES`` names a rules file (default: ``rules.toml`` beside the package, if there is one);
``TRAILSIFT_METRICS=off`` disables metrics. The stream's name is taken from the invocation.
"""

from __future__ import annotations

import binascii
import json
import os
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from trailsift.aws.transform import metrics
from trailsift.aws.transform.firehose import Decide, RecordResponse, Transform, TransformResponse, compressed
from trailsift.aws.transform.stream import DeliveryStream, FirehoseStream
from trailsift.decode.landing import LandingPartition
from trailsift.rules import RowRules, load

#: Rules packed into the function's zip.
PACKED_RULES = Path(__file__).resolve().parents[2] / "rules.toml"

_ready: dict[str, tuple[Transform, tuple[str, ...]]] = {}


def firehose(event: Mapping[str, Any], context: object = None, stream: DeliveryStream | None = None) -> dict[str, Any]:
    """Transform one batch of a Firehose stream.

    ``event`` is AWS's: ``records`` with ``recordId`` and ``data``, and ``deliveryStreamArn``. ``context`` is not used.
    ``stream`` replaces the stream of that name. Return ``{"records": [...]}`` with a response per record, in order.
    No record raises; RulesError if the rules file cannot be used, so that AWS retries and keeps the batch.
    """
    transform, rules = _transform(os.environ.get("TRAILSIFT_RULES", ""))
    batch = event.get("records")
    records = [record if isinstance(record, Mapping) else {} for record in (batch if isinstance(batch, list) else ())]
    response = transform.batch([record.get("data") for record in records])
    _resend(response, stream or _stream_of(event))
    for number, reason in response.failures[:20]:
        _log_error(recordId=records[number].get("recordId"), message=reason)
    if os.environ.get("TRAILSIFT_METRICS", "on") != "off":
        for line in metrics.documents(response.counts, int(time.time() * 1000), rules):
            print(line)
    return {
        "records": [
            _encoded(record.get("recordId"), each) for record, each in zip(records, response.records, strict=True)
        ]
    }


def _transform(path: str) -> tuple[Transform, tuple[str, ...]]:
    """Return the transform for a rules file, which is read once per Lambda environment, and the names of its rules."""
    if path not in _ready:
        file = Path(path) if path else PACKED_RULES
        if path or file.is_file():
            rules = load(file)
            _ready[path] = Transform(_decide(RowRules(rules)), rules.omit), tuple(rule.name for rule in rules.rules)
        else:
            _ready[path] = Transform(), ()
    return _ready[path]


def _decide(rules: RowRules) -> Decide:
    def decide(row: Mapping[str, Any]) -> tuple[str | None, float]:
        decision = rules.decide(row)
        return decision.rule, decision.weight

    return decide


def _stream_of(event: Mapping[str, Any]) -> DeliveryStream | None:
    kind, _, name = str(event.get("deliveryStreamArn") or "").rpartition(":")[2].partition("/")
    return FirehoseStream(name) if kind == "deliverystream" and name else None


def _resend(response: TransformResponse, stream: DeliveryStream | None) -> None:
    if not response.resend:
        return
    if stream is None:
        response.resend_in_place()
        return
    unsent = stream.put([compressed(record.data) for record in response.resend])
    response.counts.sent = len(response.resend) - len(unsent)
    response.fail_origins(response.resend[number] for number in unsent)


def _encoded(record_id: object, response: RecordResponse) -> dict[str, Any]:
    if response.result != "Ok" or response.partition is None:
        return {"recordId": record_id, "result": response.result}
    data = binascii.b2a_base64(response.data, newline=False).decode("ascii")
    return {"recordId": record_id, "result": "Ok", "data": data, "metadata": _metadata(response.partition)}


@lru_cache(maxsize=10_000)
def _metadata(partition: LandingPartition) -> dict[str, Any]:
    return {"partitionKeys": partition._asdict()}


def _log_error(**fields: object) -> None:
    print(json.dumps({"level": "error", **fields}, default=str))
