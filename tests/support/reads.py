"""Lakes of reads by users of one account, and their findings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.records import sample
from trailsift.detect.detection_rules import builtin_rules
from trailsift.detect.finding import Finding
from trailsift.detect.pipeline import DetectOptions, detect, drill
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

BEGIN = datetime(2013, 3, 4, 9, tzinfo=UTC)


def user(name: str) -> dict[str, Any]:
    """The identity of a user with a long-term key."""
    return {
        "type": "IAMUser",
        "principalId": f"AIDA{name.upper()}",
        "arn": f"arn:aws:iam::111122223333:user/{name}",
        "accountId": "111122223333",
        "accessKeyId": "AKIAEXAMPLE",
        "userName": name,
    }


def read(at: timedelta, name: str = "anna", key: str = "a", **changes: Any) -> dict[str, Any]:
    """A GetObject by a user, so long after the beginning."""
    resources = [
        {"type": "AWS::S3::Object", "ARN": f"arn:aws:s3:::records/{key}"},
        {"accountId": "111122223333", "type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::records"},
    ]
    fields = {
        "eventName": "GetObject",
        "eventTime": f"{BEGIN + at:%Y-%m-%dT%H:%M:%SZ}",
        "userIdentity": user(name),
        "resources": resources,
        "requestParameters": {"bucketName": "records", "key": key},
    }
    return sample(**fields | changes)


def lake_of(folder: Path, records: Iterable[dict[str, Any]]) -> Path:
    """A lake of records, each an event of its own."""
    events = [record | {"eventID": f"e-{number}"} for number, record in enumerate(records)]
    folder.mkdir(exist_ok=True)
    (folder / "log.json").write_text(json.dumps({"Records": events}))
    ingest([str(folder / "log.json")], folder / "lake", workers=1)
    return folder / "lake"


def found(lake: Path, *names: str, **options: Any) -> list[Finding]:
    """All findings, with these detections only; each can be drilled into, and no detection fails."""
    known = {rule.id: rule for rule in builtin_rules()[0]}
    rules = [known[name] for name in names]
    with DuckDBEngine(open_snapshot(lake)) as engine:
        result = detect(engine, DetectOptions(budget=0, blind=False, **options), rules)
        assert not result.problems
        for finding in result.findings[:2]:
            assert drill(engine, finding, detections=rules).finding.id == finding.id
        return result.findings
