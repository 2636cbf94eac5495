"""The Lambda function of a Firehose stream: ``trailsift.aws.handler.firehose``.

Environment: ``TRAILSIFT_RULES`` names a rules file (default: ``rules.toml`` beside the package, where there is one);
``TRAILSIFT_METRICS=off`` prints no metrics. The stream's name is taken from the batch.
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
from trailsift.aws.transform.firehose import Answer, Batch, Decide, Transform
from trailsift.aws.transform.stream import FirehoseStream, Stream
from trailsift.decode.landing import LandingPartition
from trailsift.rules import RowRules, load

#: Rules packed into the function's zip.
PACKED_RULES = Path(__file__).resolve().parents[2] / "rules.toml"

_ready: dict[str, tuple[Transform, tuple[str, ...]]] = {}


def firehose(event: Mapping[str, Any], context: object = None, stream: Stream | None = None) -> dict[str, Any]:
    """Transforms one batch of a Firehose stream.

    ``event`` is AWS's: ``records`` with ``recordId`` and ``data``, and ``deliveryStreamArn``. ``context`` is not used.
    ``stream`` stands in for the stream of that name. Returns ``{"records": [...]}``, an answer for each record in its
    order. No record raises; RulesError where the rules file cannot be used, so that AWS retries and keeps the batch.
    """
    transform, rules = _transform(os.environ.get("TRAILSIFT_RULES", ""))
    records = [record if isinstance(record, Mapping) else {} for record in event.get("records") or ()]
    batch = transform.batch([record.get("data") for record in records])
    _send(batch, stream or _stream_of(event))
    for number, reason in batch.reasons[:20]:
        _log(recordId=records[number].get("recordId"), message=reason)
    if os.environ.get("TRAILSIFT_METRICS", "on") != "off":
        for line in metrics.documents(batch.tally, int(time.time() * 1000), rules):
            print(line)
    return {
        "records": [
            _answer(record.get("recordId"), answer) for record, answer in zip(records, batch.answers, strict=True)
        ]
    }


def _transform(path: str) -> tuple[Transform, tuple[str, ...]]:
    """The transform for a rules file, which is read once for each environment."""
    if path not in _ready:
        file = Path(path) if path else PACKED_RULES
        if path or file.is_file():
            rules = load(file)
            _ready[path] = Transform(_decide(RowRules(rules)), rules.omit), tuple(rule.name for rule in rules.rules)
        else:
            _ready[path] = Transform(), ()
    return _ready[path]


def _decide(sifter: RowRules) -> Decide:
    def decide(row: Mapping[str, Any]) -> tuple[str | None, float]:
        decision = sifter.decide(row)
        return decision.rule, decision.weight

    return decide


def _stream_of(event: Mapping[str, Any]) -> Stream | None:
    kind, _, name = str(event.get("deliveryStreamArn") or "").rpartition(":")[2].partition("/")
    return FirehoseStream(name) if kind == "deliverystream" and name else None


def _send(batch: Batch, stream: Stream | None) -> None:
    if not batch.again:
        return
    if stream is None:
        batch.keep_here()
        return
    failed = stream.put([piece.data for piece in batch.again])
    batch.tally.sent = len(batch.again) - len(failed)
    batch.fail(batch.again[number] for number in failed)


def _answer(number: object, answer: Answer) -> dict[str, Any]:
    if answer.result != "Ok" or answer.where is None:
        return {"recordId": number, "result": answer.result}
    data = binascii.b2a_base64(answer.data, newline=False).decode("ascii")
    return {"recordId": number, "result": "Ok", "data": data, "metadata": _metadata(answer.where)}


@lru_cache(maxsize=10_000)
def _metadata(where: LandingPartition) -> dict[str, Any]:
    return {"partitionKeys": where._asdict()}


def _log(**fields: object) -> None:
    print(json.dumps({"level": "error", **fields}, ensure_ascii=False, default=str))
