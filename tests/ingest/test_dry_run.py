"""A dry run predicts what an ingest would do; suggested rules can be used as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trailsift.analysis.suggest import suggest
from trailsift.cli import main
from trailsift.errors import SourceError, UsageError
from trailsift.ingest import ingest
from trailsift.ingest.dry_run import dry_run
from trailsift.lake.open import open_snapshot
from trailsift.prices import athena_cost, load_prices
from trailsift.query import DuckDBEngine
from trailsift.rules import parse

RULES = """
timezone = "Asia/Seoul"
[[rule]]
name = "web"
when = { role = "*:role/orders-web-instance" }
action = "drop"
[[rule]]
name = "reads"
when = { read_only = true, event_category = "Data" }
action = "sample"
rate = { "09-17" = 0.1, otherwise = 0.02 }
"""
WEB = "role_arn LIKE '%:role/orders-web-instance' AND error_code IS NULL"


def ask(lake: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with DuckDBEngine(open_snapshot(lake)) as engine:
        return list(engine.sql(sql).rows())


def test_a_dry_run_predicts_the_ingest(small_logs: Path, small_lake: Path, tmp_path: Path) -> None:
    """On log files, and on a lake with all events: the counts of the ingest, and the values missing afterwards."""
    rules = parse(RULES, "rules.toml")
    logs = str(small_logs / "AWSLogs")
    done = ingest([logs], tmp_path / "lake", rules=rules)
    for report in (dry_run(rules, load_prices(), [logs]), dry_run(rules, load_prices(), lake=small_lake)):
        effects = {effect.rule: effect for effect in report.effects}
        assert report.events == 20_000 and report.stored == done.stored
        assert {name: effects[name].events - effects[name].stored for name in done.dropped} == done.dropped
        assert effects["web"].stored == 0 and effects[None].stored == effects[None].events
        for kind, column in (("roles", "role_arn"), ("resources", "resource_arn"), ("user_agents", "user_agent")):
            sql = f"SELECT DISTINCT {column} FROM events WHERE {column} IS NOT NULL"
            gone = set(ask(small_lake, sql)) - set(ask(tmp_path / "lake", sql))
            assert report.unseen_count[kind] == len(gone)
            assert {(unseen.value,) for unseen in report.unseen[kind]} <= gone
        assert report.denied == report.denied_stored > 0
        trail = sum(effect.usd_trail for effect in report.effects)
        assert trail == pytest.approx(20_000 / 1e5 * 0.1 * 30 / report.days)


def test_dry_run_on_the_command_line(
    small_logs: Path, small_lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table, JSON, and errors of usage."""
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "empty").mkdir()
    rules = str(tmp_path / "rules.toml")
    assert main(["rules", "try", rules, "--lake", str(small_lake)]) == 0
    assert "web" in capsys.readouterr().out
    assert main(["rules", "try", rules, str(small_logs / "AWSLogs"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stored"] < 15_000
    assert main(["rules", "try", rules]) == 2
    with pytest.raises(SourceError):
        dry_run(parse(RULES, "f"), load_prices(), [str(tmp_path / "empty")])


def test_suggestions_can_be_used(small_lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They pass the check as a file, match the lines they were derived from, and save as much as they claim."""
    with DuckDBEngine(open_snapshot(small_lake)) as engine:
        suggestion = suggest(engine, load_prices(), 12)
    assert suggestion.total == 20_000 and suggestion.days == 3 and len(suggestion.lines) == 12
    assert suggestion.saved > 0.3 * suggestion.total
    rules = parse(suggestion.toml, "suggested")
    report = dry_run(rules, load_prices(), lake=small_lake)
    for line, effect in zip(suggestion.lines, report.effects, strict=False):
        assert line.events <= effect.events <= line.events * 1.05, line.rule
    keys = [line.events / (1 + (line.variation or 0)) for line in suggestion.lines]
    assert keys == sorted(keys, reverse=True)
    assert main(["suggest", "--lake", str(small_lake), "--rules"]) == 0
    (tmp_path / "s.toml").write_text(capsys.readouterr().out)
    assert main(["rules", "check", str(tmp_path / "s.toml")]) == 0
    assert main(["suggest", "--lake", str(small_lake)]) == 0
    assert "varies" in capsys.readouterr().out
    assert main(["suggest", "--lake", str(small_lake), "--json", "-n", "2"]) == 0


def test_prices_have_a_source_and_can_be_overridden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file; a user's own price replaces ours."""
    shipped = load_prices()
    assert all(price.source.startswith("https://") and price.date for price in shipped.values())
    assert shipped["data_events"].of(1_000_000) == pytest.approx(1.0)
    assert athena_cost(shipped, 1) == pytest.approx(5e-5) and athena_cost(shipped, 1e12) == pytest.approx(5)
    own = tmp_path / "prices.toml"
    own.write_text("data_events = { usd = 0.2, per = 100000 }\n")
    assert load_prices(own)["data_events"].of(1_000_000) == pytest.approx(2.0)
    monkeypatch.setenv("TRAILSIFT_PRICES", str(own))
    assert load_prices()["data_events"].source == str(own) and load_prices()["athena_scan"].source.startswith(
        "https://"
    )
    for wrong in ("data_event = { usd = 0.2, per = 100000 }", "data_events = 3", "data_events = { usd = -1 }", "a ="):
        own.write_text(wrong)
        with pytest.raises(UsageError, match=r"data_events|prices in"):
            load_prices()
