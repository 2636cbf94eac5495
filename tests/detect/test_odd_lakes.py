"""Lakes that are not what a baseline expects: three events, one caller, twelve years, more callers than are kept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from support.reads import BEGIN, found, lake_of, read, user
from support.records import sample
from trailsift.detect import checkpoint
from trailsift.detect.baseline import BaselineLimits
from trailsift.detect.pipeline import DetectOptions, detect
from trailsift.detect.signals import collect_signals
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_events(tmp_path: Path, count: int) -> None:
    """Three ordinary reads are no finding; one act that needs no past is."""
    ordinary = [read(timedelta(minutes=n)) for n in range(count)]
    assert found(lake_of(tmp_path / "quiet", ordinary), "trail-stopped", "bucket-walk") == []
    stop = {"eventName": "StopLogging", "eventSource": "cloudtrail.amazonaws.com", "readOnly": False, "resources": None}
    act = sample(
        eventCategory="Management",
        managementEvent=True,
        eventTime=f"{BEGIN:%Y-%m-%dT%H:%M:%SZ}",
        userIdentity=user("eve"),
        requestParameters={"name": "main"},
        **stop,
    )
    (finding,) = found(lake_of(tmp_path, [*ordinary[:-1], act]), "trail-stopped")
    assert finding.severity == "high" and finding.caller == user("eve")["arn"]


def test_one_caller(tmp_path: Path) -> None:
    """Without peers it is compared with itself: nothing on ordinary days, its new network on the last one."""
    days = [read(timedelta(days=day, minutes=n)) for day in range(20) for n in range(5)]
    assert found(lake_of(tmp_path / "quiet", days)) == []
    away = [read(timedelta(days=20, minutes=n), key=f"k{n}", sourceIPAddress="192.88.99.7") for n in range(40)]
    findings = found(lake_of(tmp_path, [*days, *away]))
    assert any("192.88.99.0/24" in " ".join(finding.reasons) for finding in findings)


def test_twelve_years(tmp_path: Path) -> None:
    """Three days each year: what lies between costs nothing, and the years are one past."""
    days = [365 * year + day for year in range(12) for day in range(3)]
    usual = [read(timedelta(days=day, minutes=n), name) for day in days for n in range(2) for name in ("a", "b")]
    away = [read(timedelta(days=12 * 365, minutes=n), "a", f"k{n}", sourceIPAddress="192.88.99.7") for n in range(40)]
    with DuckDBEngine(open_snapshot(lake_of(tmp_path, [*usual, *away]))) as engine:
        result = detect(engine, DetectOptions(blind=False))
    (finding,) = result.findings
    assert finding.caller == user("a")["arn"] and result.days == 37
    assert finding.first_time == (BEGIN + timedelta(days=12 * 365)).timestamp() * 1e6


def test_more_callers_than_are_kept(tmp_path: Path) -> None:
    """300 new callers each day, with values of their own: what is remembered stays within its limits."""
    limits = BaselineLimits(callers=100, series=300, values=900, per_kind=20)
    records = [
        read(timedelta(days=day, seconds=n), f"u{day}x{n}", f"{day}/{n}.json", sourceIPAddress=f"10.{day}.{n % 250}.1")
        for day in range(5)
        for n in range(300)
    ]
    lake = lake_of(tmp_path, records)
    with DuckDBEngine(open_snapshot(lake)) as engine:
        collect_signals(engine, limits=limits)
    state = checkpoint.load(lake, lambda state: True)
    assert state is not None and state.baseline.days == 2, "all but the open days"
    assert len(state.baseline.names) <= limits.callers and len(state.baseline.series) <= limits.series
    assert len(state.baseline.keys) <= limits.values and len(state.baseline.shared) <= limits.values


def test_one_hour_with_more_of_everything_than_is_listed(tmp_path: Path) -> None:
    """Thousands of distinct keys, agents and hostile names in one hour: one finding, with bounded texts."""
    records = [
        read(
            timedelta(seconds=n),
            key=f"\x1b[31m{'k' * 200}{n}",
            userAgent=f"agent-{n}\u202e{'x' * 200}",
            sourceIPAddress=f"10.{n // 250}.{n % 250}.1",
        )
        for n in range(2_000)
    ]
    (finding,) = found(
        lake_of(tmp_path, records), "attack-tools", clean=lambda text: text.encode("ascii", "replace").decode()
    )
    assert len(finding.title) < 400 and all(len(reason) < 700 for reason in finding.reasons)
