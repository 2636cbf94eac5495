"""Networks and agent families."""

from __future__ import annotations

import gzip
import ipaddress
import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.paths import TESTS
from trailsift.cloudtrail.origins import LIMIT, agent_family, source_network

AGENTS: list[tuple[str | None, str | None]] = [
    (agent, family) for agent, family in json.loads((TESTS / "cases/agent_families.json").read_text(encoding="utf-8"))
]
REAL = Path(os.environ.get("TRAILSIFT_REAL_LOGS", "../shared/data/real")) / "events.jsonl.gz"


@pytest.mark.parametrize(
    ("source_ip", "network"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        (" , ", None),
        ("203.0.113.9", "203.0.113.0/24"),
        (" 203.0.113.9 ", "203.0.113.0/24"),
        ("203.0.113.9, 198.51.100.4", "203.0.113.0/24"),
        ("0.0.0.0", "0.0.0.0/24"),
        ("255.255.255.255", "255.255.255.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("2001:DB8:1:2::3", "2001:db8:1::/48"),
        ("::1", "::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("::ffff:203.0.113.9", "203.0.113.0/24"),
        ("AWS Internal", "AWS Internal"),
        ("firehose.amazonaws.com", "firehose.amazonaws.com"),
        ("xxx.xxx.xxx.xxx", "xxx.xxx.xxx.xxx"),
        ("203.0.113.256", "203.0.113.256"),
        ("203.0.113.09", "203.0.113.09"),
        ("203.0.113", "203.0.113"),
        ("203.0.113.9:443", "203.0.113.9:443"),
        ("٢٠٣.0.113.9", "٢٠٣.0.113.9"),
        ("1" * 100, "1" * LIMIT),
        (":" * 100, ":" * LIMIT),
    ],
)
def test_network(source_ip: str | None, network: str | None) -> None:
    assert source_network(source_ip) == network


@settings(max_examples=200, deadline=None)
@given(st.ip_addresses(v=4).map(str) | st.from_regex(r"\A[0-9]{1,3}(\.[0-9]{1,3}){3}\Z"))
def test_ipv4_as_the_standard_library(text: str) -> None:
    try:
        expected = str(ipaddress.ip_network(f"{text}/24", strict=False))
    except ValueError:
        expected = text
    assert source_network(text) == expected


@settings(max_examples=200, deadline=None)
@given(st.ip_addresses(v=6))
@example(ipaddress.IPv6Address("::ffff:10.1.2.3"))
def test_ipv6_as_the_standard_library(address: ipaddress.IPv6Address) -> None:
    expected = ipaddress.ip_network(f"{address}/48", strict=False)
    if address.ipv4_mapped:
        expected = ipaddress.ip_network(f"{address.ipv4_mapped}/24", strict=False)
    assert source_network(str(address)) == str(expected)
    assert source_network(address.exploded.upper()) == str(expected)


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text(text: str) -> None:
    for value in (source_network(text), agent_family(text)):
        assert value is None or 0 < len(value) <= LIMIT


@pytest.mark.parametrize(("agent", "family"), AGENTS)
def test_family(agent: str | None, family: str | None) -> None:
    assert agent_family(agent) == family
    if agent and "[" not in agent:
        assert agent_family(f"[{agent}]") == family


def test_enough_families() -> None:
    assert len(AGENTS) >= 40


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(0, 999), st.sampled_from(["aws-cli/{}.{}.1 x", "Boto3/1.{}.{}", "tool/3.{}.{}"]))
def test_minor_versions_do_not_count(major: int, minor: int, form: str) -> None:
    fixed = form.format(2 if form.startswith("aws-cli") else 0, 0)
    assert agent_family(form.format(2 if form.startswith("aws-cli") else major, minor)) == agent_family(fixed)


def test_real_agents_fold() -> None:
    if not REAL.is_file():
        pytest.skip(f"no real logs at {REAL} (set TRAILSIFT_REAL_LOGS)")
    agents, families = set(), set()
    with gzip.open(REAL, "rt", encoding="utf-8") as lines:
        for line in lines:
            agent = json.loads(line).get("userAgent")
            if isinstance(agent, str):
                agents.add(agent)
                families.add(agent_family(agent))
    assert len(agents) > 400
    assert len(families) < 80
