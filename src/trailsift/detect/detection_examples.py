"""Run the examples of detections: each must find its own, and ignore what is harmless."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from trailsift.cloudtrail.categories import category_of
from trailsift.detect.detection_file import Detection, Example, Problem
from trailsift.detect.detection_rules import run_rules

_EXAMPLES_BEGIN = datetime(2026, 3, 2, tzinfo=UTC)


def run_examples(detections: Sequence[Detection]) -> list[Problem]:
    """Run the examples. Return a problem for each that is not found and must be, or is found and must not be.

    All examples go into one lake, each under its own account, so the SQL has to separate accounts.
    """
    from trailsift.ingest import ingest
    from trailsift.lake.open import open_snapshot
    from trailsift.query import DuckDBEngine

    problems: list[Problem] = []
    with tempfile.TemporaryDirectory(prefix="trailsift-examples-") as folder:
        records = []
        for place, rule in enumerate(detections):
            records += _records(rule.matches, example_account(place, True))
            records += _records(rule.ignores, example_account(place, False))
        (Path(folder) / "a.json").write_text(json.dumps({"Records": records}))
        ingest([str(Path(folder) / "a.json")], Path(folder) / "lake", workers=1)
        with DuckDBEngine(open_snapshot(Path(folder) / "lake")) as engine:
            found = run_rules(engine, [(rule, 0) for rule in detections])
    for place, (rule, rows) in enumerate(zip(detections, found, strict=True)):
        if isinstance(rows, Problem):
            problems.append(rows)
            continue
        hits = {row.account_id for row in rows}
        if example_account(place, True) not in hits:
            problems.append(Problem(rule.path, rule.line, "does not find its example [[matches]]"))
        if example_account(place, False) in hits:
            problems.append(Problem(rule.path, rule.line, "finds its example [[ignores]]"))
    return problems


def example_account(place: int, matches: bool) -> str:
    """Return the account id of an example."""
    return f"{100_000_000_000 + 2 * place + matches}"


def _records(examples: Sequence[Example], account_id: str) -> list[dict[str, Any]]:
    out = []
    for number, example in enumerate(examples):
        service, _, name = example.event.partition(":")
        who = IDENTITIES.get(example.by, IDENTITIES["role"])
        for i in range(example.times):
            at = _EXAMPLES_BEGIN + timedelta(hours=example.hour, seconds=i * example.every)
            filled = _fill(who | {"requestParameters": example.parameters} | example.record, i, account_id)
            out.append(_plain(service, name, at, account_id) | {"eventID": f"{account_id}-{number}-{i}"} | filled)
    return out


def _user(name: str) -> dict[str, Any]:
    return {
        "type": "IAMUser",
        "principalId": f"AIDA{name.upper()}",
        "arn": f"arn:aws:iam::{{account}}:user/{name}",
        "accountId": "{account}",
        "accessKeyId": "AKIAEXAMPLE",
        "userName": name,
    }


def _assumed(role: str, session: str, path: str = "/") -> dict[str, Any]:
    issuer = {"type": "Role", "arn": f"arn:aws:iam::{{account}}:role{path}{role}", "accountId": "{account}"}
    return {
        "type": "AssumedRole",
        "principalId": f"AROAEXAMPLE:{session}",
        "arn": f"arn:aws:sts::{{account}}:assumed-role/{role}/{session}",
        "accountId": "{account}",
        "accessKeyId": "ASIAEXAMPLE",
        "sessionContext": {"sessionIssuer": issuer},
    }


_ROOT = {"type": "Root", "principalId": "{account}", "arn": "arn:aws:iam::{account}:root", "accountId": "{account}"}
_BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"
#: ``by`` of an example -> members of its records. ``{account}`` is replaced by the account of the example.
IDENTITIES: dict[str, dict[str, Any]] = {
    "role": {},
    "user": {"userIdentity": _user("someone")},
    "root": {"userIdentity": _ROOT},
    "console": {
        "userIdentity": _user("someone"),
        "userAgent": _BROWSER,
        "sessionCredentialFromConsole": "true",
    },
    "terraform": {"userAgent": "APN/1.0 HashiCorp/1.0 Terraform/1.9.0 terraform-provider-aws/5.60.0"},
    "cloudformation": {
        "userIdentity": _assumed("deployer", "AWSCloudFormation") | {"invokedBy": "cloudformation.amazonaws.com"},
        "sourceIPAddress": "cloudformation.amazonaws.com",
        "userAgent": "cloudformation.amazonaws.com",
    },
    "service": {
        "userIdentity": {"type": "AWSService", "invokedBy": "backup.amazonaws.com"},
        "sourceIPAddress": "backup.amazonaws.com",
        "userAgent": "backup.amazonaws.com",
    },
    "person": {"userIdentity": _assumed("AWSReservedSSO_Ops_0a1b", "kim", "/aws-reserved/sso.amazonaws.com/")},
    "instance": {"userIdentity": _assumed("web", "i-0123456789abcdef0")},
    "foreign": {"userIdentity": {"type": "AWSAccount", "principalId": "AIDAFOREIGN", "accountId": "999988887777"}},
    "anonymous": {"userIdentity": {"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"}},
}


def _plain(service: str, name: str, at: datetime, account_id: str) -> dict[str, Any]:
    record = {
        "eventVersion": "1.11",
        "userIdentity": _fill(_assumed("example", "run"), 0, account_id),
        "eventTime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "eventSource": f"{service}.amazonaws.com",
        "eventName": name,
        "awsRegion": "us-east-1",
        "sourceIPAddress": "192.0.2.10",
        "userAgent": "Boto3/1.37.4",
        "requestParameters": None,
        "responseElements": None,
        "readOnly": name.startswith(("Get", "List", "Head", "Scan", "Query", "Describe")),
        "eventType": "AwsApiCall",
        "recipientAccountId": account_id,
    }
    category = category_of(record)
    return record | {"managementEvent": category == "Management", "eventCategory": category}


def _fill(value: Any, i: int, account_id: str) -> Any:
    if isinstance(value, str):
        return value.replace("{i}", str(i)).replace("{account}", account_id)
    if isinstance(value, dict):
        return {key: _fill(part, i, account_id) for key, part in value.items()}
    if isinstance(value, list):
        return [_fill(part, i, account_id) for part in value]
    return value
