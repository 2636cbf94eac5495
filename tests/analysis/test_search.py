"""A term is found wherever it is: what is found is what the raw records hold."""

from __future__ import annotations

import gzip
import ipaddress
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trailsift
from trailsift.analysis.term_shapes import shape_of
from trailsift.cli import main
from trailsift.errors import UsageError


@pytest.fixture(scope="module")
def records(small_logs: Path) -> list[dict[str, Any]]:
    """Every distinct record of the logs, read without this package."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((small_logs / "AWSLogs").rglob("*.json.gz")):
        for record in json.loads(gzip.decompress(path.read_bytes()))["Records"]:
            found.setdefault(record["eventID"], record)
    return list(found.values())


@pytest.fixture(scope="module")
def lake(small_lake: Path) -> Iterator[trailsift.Lake]:
    with trailsift.Lake(small_lake) as handle:
        yield handle


def value_of(record: dict[str, Any], column: str) -> str | None:
    parameters, identity = record.get("requestParameters") or {}, record["userIdentity"]
    values = {
        "source_ip": record.get("sourceIPAddress"),
        "access_key_id": identity.get("accessKeyId"),
        "request_id": record.get("requestID"),
        "event_id": record["eventID"],
        "shared_event_id": record.get("sharedEventID"),
        "object_key": parameters.get("key"),
    }
    value = values[column]
    return None if value is None else str(value)


@pytest.mark.parametrize(
    "column", ["source_ip", "access_key_id", "request_id", "event_id", "shared_event_id", "object_key"]
)
def test_values_of_events(column: str, lake: trailsift.Lake, records: list[dict[str, Any]]) -> None:
    """The commonest value, a rare one, and one in the middle: each event with it, and no other."""
    counts = Counter(value for record in records if (value := value_of(record, column))).most_common()
    for value, number in (counts[0], counts[len(counts) // 2], counts[-1]):
        report = lake.search(value, limit=0)
        assert report.event_counts[column] == number, value
        named = {r["eventID"] for r in records if value_of(r, column) == value}
        assert {event.event_id for event in report.events if event.column == column} == named
        assert report.found and report.missing == 0


@pytest.mark.parametrize("prefix", [8, 16, 24, 28])
def test_ranges(prefix: int, lake: trailsift.Lake, records: list[dict[str, Any]]) -> None:
    first = next(r["sourceIPAddress"] for r in records if r["sourceIPAddress"].startswith("203."))
    network = ipaddress.ip_network(f"{first}/{prefix}", strict=False)
    inside = []
    for record in records:
        try:
            if ipaddress.ip_address(record["sourceIPAddress"]) in network:
                inside.append(record)
        except ValueError:
            continue
    report = lake.search(f"{first}/{prefix}", limit=0)
    assert report.event_counts == {"source_ip": len(inside)}
    assert len(report.events) == len(inside)
    listed = sum(hit.events for hit in report.hits)
    assert listed == len(inside) if prefix <= 24 else listed >= len(inside)


def test_an_address_of_version_6(lake: trailsift.Lake, records: list[dict[str, Any]]) -> None:
    address = next(r["sourceIPAddress"] for r in records if ":" in r["sourceIPAddress"])
    number = sum(r["sourceIPAddress"] == address for r in records)
    assert lake.search(address).event_counts == {"source_ip": number}
    assert lake.search(f"{address}/64").event_counts["source_ip"] >= number


def test_parts_of_names(lake: trailsift.Lake, records: list[dict[str, Any]]) -> None:
    report = lake.search("ORDERS-ETL", limit=0)
    issuer = [r["userIdentity"].get("sessionContext", {}).get("sessionIssuer", {}).get("arn") or "" for r in records]
    expected = Counter(arn for arn in issuer if "orders-etl" in arn)
    assert {hit.value: hit.events for hit in report.hits if hit.where == "caller"} == expected
    names = Counter(r["eventName"] for r in records if "object" in r["eventName"].lower())
    report = lake.search("object", limit=0)
    assert {hit.value: hit.events for hit in report.hits if hit.where == "event"} == names
    few = lake.search("object", limit=2)
    assert len([hit for hit in few.hits if hit.where == "event"]) == 2 and few.hit_counts["event"] == len(names)


def test_whole_arns_and_accounts(lake: trailsift.Lake, records: list[dict[str, Any]]) -> None:
    arn = "arn:aws:s3:::kelp-orders-shared"
    report = lake.search(arn)
    assert report.event_counts["resource_arn"] == lake.resource(arn).events
    assert any(hit.where == "resource" and hit.value == arn for hit in report.hits)
    account = "400011112202"
    report = lake.search(account, limit=0)
    called = sum(r["userIdentity"].get("accountId") == account for r in records)
    assert {hit.value: hit.events for hit in report.hits if hit.where == "account"} == {account: called}
    assert report.event_counts["principal_account"] == called


def test_an_object_by_bucket_and_key(lake: trailsift.Lake) -> None:
    touches = lake.object("kelp-orders-shared/2026 Q1/forecast v3.xlsx", limit=0)
    for term in ("s3://kelp-orders-shared/2026 Q1/forecast v3.xlsx", "kelp-orders-shared/2026 Q1/forecast v3.xlsx"):
        report = lake.search(term, limit=0)
        assert report.event_counts["object_key"] == sum(t.records for t in touches.touches if t.touch == "target")


def test_a_user_agent(lake: trailsift.Lake, records: list[dict[str, Any]]) -> None:
    agent = next(r["userAgent"] for r in records if "/" in (r.get("userAgent") or ""))
    term = agent[1:40].rstrip(" ]")
    number = sum(term.lower() in (r.get("userAgent") or "").lower() for r in records)
    assert lake.search(term).event_counts["user_agent"] == number


def test_rules_leave_something_out(small_logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "x"\nwhen = { service = "s3" }\naction = "sample"\nrate = 0.01\n', "utf-8")
    with trailsift.Lake(tmp_path / "lake") as lake:
        counts = lake.ingest(small_logs / "AWSLogs", rules=rules)
        report = lake.search("forecast")
        assert report.counted == counts.records - counts.duplicates
        assert report.missing == sum(counts.dropped.values()) > 0
        assert any(hit.where == "key pattern" and hit.events > 20 for hit in report.hits)
    assert main(["search", "forecast", "--lake", str(tmp_path / "lake")]) == 0
    assert "are not stored as single events" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("term", "names"),
    [
        ("203.0.113.9", ("address",)), ("::1", ("address",)), ("203.0.113.9/32", ("address",)),
        ("10.1.2.3/8", ("range of addresses",)), ("2001:db8::/32", ("range of addresses",)),
        ("AKIAIOSFODNN7EXAMPLE", ("access key",)), ("AROA7N3THS7M5JI5PGSY3", ("principal id",)),
        ("6e14b51f-75cb-4873-9e89-e01fc7f51425", ("event or request id",)), ("96A5AZP69MTE012D", ("request id",)),
        ("111122223333", ("account",)), ("arn:aws:s3:::b", ("ARN",)), ("a/b", ("object key",)),
        ("aws-cli/2.15", ("object key", "user agent")), ("etl", ("name",)), ("한국어", ("name",)),
        ("300.1.1.1", ("name",)), ("10.0.0.0/99", ("object key",)),
    ],
)  # fmt: skip
def test_shapes(term: str, names: tuple[str, ...]) -> None:
    assert shape_of(f" {term} ").names == names


@pytest.mark.parametrize("term", ["", "   ", "x" * 5000])
def test_terms_that_are_nowhere(term: str, lake: trailsift.Lake) -> None:
    with pytest.raises(UsageError, match="term"):
        lake.search(term)
    with pytest.raises(UsageError, match="negative"):
        lake.search("x", limit=-1)


@pytest.mark.parametrize("term", ["'", "%", "_", "\\", "\x1b[2J", "*", "nosuch", "0.0.0.0/0", "::/0", "1" * 4096])
def test_strange_terms(term: str, lake: trailsift.Lake) -> None:
    report = lake.search(term)
    assert report.term and report.counted == 20_000
    # Signs are not wildcards.
    assert all(term in hit.value for hit in report.hits if hit.where == "caller")
    if term == "0.0.0.0/0":
        assert (report.hits and "source_ip of events" not in report.places) or report.event_counts


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_is_shown(
    width: int, lake: trailsift.Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    place = ["--lake", str(lake.path)]
    for term, said in (("orders", "trailsift role"), ("203.0.113.0/24", "Summaries have networks"),
                       ("zzqx", "Not found."), ("kelp-orders-shared", "trailsift resource")):  # fmt: skip
        assert main(["search", term, *place, "--limit", "3"]) == 0
        text = capsys.readouterr().out
        assert said in text and "Looked in" in text
        assert max(len(line) for line in text.splitlines() if not line.startswith("trailsift ")) <= width
    assert main(["search", "orders", *place, "--since", "2031-01-01"]) == 0
    assert "the lake holds events from" in capsys.readouterr().err
    assert main(["search", "orders", *place, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["found"] and report["hits"][0]["first_time"].endswith("Z")
    assert main(["search", "orders", *place, "--csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(report["hits"]) + len(report["events"]) + 1
