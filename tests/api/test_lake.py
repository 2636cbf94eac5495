"""The handle of a lake: every method, times of every form, new commits, errors, results in every form."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import trailsift
from trailsift import Lake, LakeError, QueryError, RulesError, SourceError, UsageError
from trailsift.generate import Options, generate
from trailsift.rules import parse

EVENTS = 3_000
RULES = '[[rule]]\nname = "some"\nwhen = { event_name = "HeadObject" }\naction = "drop"\n'


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "logs"
    generate(folder, Options(events=EVENTS, days=3, seed=7))
    return folder


@pytest.fixture(scope="module")
def lake(logs: Path) -> Lake:
    """Return a handle of a lake that no test changes."""
    handle = Lake(logs.parent / "lake")
    counts = handle.ingest(logs / "AWSLogs")
    assert isinstance(counts, trailsift.Counts) and counts.stored == EVENTS
    return handle


@pytest.fixture
def own_lake(logs: Path, tmp_path: Path) -> Lake:
    """Return a handle of a lake that the test may change."""
    handle = Lake(tmp_path / "lake")
    handle.ingest(logs / "AWSLogs")
    return handle


def one(lake: Lake, sql: str) -> Any:
    return lake.query(sql).value()


# -- times -----------------------------------------------------------------------------------------------------------

SEOUL = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    "since",
    [
        "2026-03-03",
        "2026-03-03T09:00+09:00",
        datetime(2026, 3, 3),
        datetime(2026, 3, 3, tzinfo=UTC),
        datetime(2026, 3, 3, 9, tzinfo=SEOUL),
        1_772_496_000_000_000,
    ],
)
def test_times_of_every_form(lake: Lake, since: Any) -> None:
    total = lake.summary("event", since=since, until=datetime(2026, 3, 4, tzinfo=UTC)).total
    expected = one(lake, "SELECT count(*) FROM events WHERE event_time::DATE = DATE '2026-03-03'")
    assert total is not None and total.events == expected > 0


def test_relative_times(lake: Lake) -> None:
    period = lake.period("-7d", "now")
    assert period.since is not None and period.until is not None
    assert period.until - period.since == 7 * 86_400_000_000


def test_times_without_an_offset_are_in_the_zone_of_the_lake(lake: Lake) -> None:
    seoul = Lake(lake.path, timezone="Asia/Seoul")
    for since in ("2026-03-03T09:00", datetime(2026, 3, 3, 9)):
        assert seoul.period(since).since == lake.period("2026-03-03").since
    rows = seoul.query("SELECT min(event_time) FROM events").rows()
    assert rows[0][0].tzinfo == ZoneInfo("Asia/Seoul")


@pytest.mark.parametrize(("since", "until"), [("soon", None), (None, "soon"), ("2026-03-04", "2026-03-03")])
def test_wrong_times(lake: Lake, since: str | None, until: str | None) -> None:
    for ask in (lake.summary, lake.roles, lake.detect, lake.estimate, lake.data_event_candidates):
        with pytest.raises(UsageError):
            ask(since=since, until=until)
    with pytest.raises(UsageError):
        lake.ingest("x", since=since, until=until)


def test_a_wrong_time_zone() -> None:
    with pytest.raises(UsageError, match="Mars"):
        Lake("anywhere", timezone="Mars/Olympus")


# -- questions -------------------------------------------------------------------------------------------------------


def test_query_in_every_form(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = lake.query("SELECT event_name, count(*) AS calls FROM events GROUP BY 1 ORDER BY 2 DESC, 1")
    rows = result.rows()
    assert sum(calls for _, calls in rows) == EVENTS
    assert result.names == ["event_name", "calls"] and result.count == len(rows)
    assert result.dicts()[0] == dict(zip(result.names, rows[0], strict=True))
    assert result.value() == rows[0][0]
    assert [tuple(row.values()) for row in result.arrow().to_pylist()] == rows
    assert repr(result) == f"<QueryResult (event_name, calls): {len(rows)} rows>"
    result.show()
    assert f"{len(rows)} rows in" in capsys.readouterr().out
    target = tmp_path / "answer.json"
    assert result.write(target, "json") == len(rows)
    assert [tuple(row.values()) for row in json.loads(target.read_text())] == rows
    stream = io.BytesIO()
    result.write(stream, "csv")
    assert stream.getvalue().startswith(b"event_name,calls\n")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("package", "method"), [("pandas", "df"), ("polars", "pl")])
def test_data_frames(lake: Lake, package: str, method: str) -> None:
    pytest.importorskip(package)
    frame = getattr(lake.query("SELECT event_id FROM events"), method)()
    assert type(frame).__module__.startswith(package) and len(frame) == EVENTS


@pytest.mark.parametrize(("package", "method"), [("pandas", "df"), ("polars", "pl")])
def test_a_missing_package_is_named(lake: Lake, package: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(UsageError, match=f"pip install {package}"):
        getattr(lake.query("SELECT 1"), method)()


def test_html_is_escaped_and_capped(lake: Lake) -> None:
    evil = "<script>alert(1)</script>\u202e\x1b[2J" + "x" * 1000
    result = lake.query(f"SELECT '{evil}' AS \"<b>\", i, NULL AS n, [1, 2] AS l FROM range(100) AS t(i)")
    page = result._repr_html_()
    assert "<script" not in page and "<b>" not in page and "\x1b" not in page and "\u202e" not in page
    assert "&lt;script&gt;" in page and "\\u202e" in page and "[1, 2]" in page
    assert page.count("<tr>") == 51 and len(page) < 51 * 500
    assert "the first 50 of 100 rows" in page and "cut after 200 characters" in page
    assert "1 row;" in lake.query("SELECT 1")._repr_html_()


def test_html_of_a_streaming_result_reads_its_beginning(lake: Lake) -> None:
    result = lake.query("SELECT i FROM range(1000000) AS t(i)")
    assert "the first 50 of more rows" in result._repr_html_()
    assert result.arrow().num_rows == 1_000_000


def test_explain_and_why_empty(lake: Lake) -> None:
    assert "files" in str(lake.explain("SELECT * FROM events"))
    assert "GetObject" in lake.query("SELECT * FROM events WHERE event_name = 'getobject'").why_empty()
    assert lake.why_empty(since="-1d").startswith("nothing from")


def test_reports_agree(lake: Lake) -> None:
    overview = lake.summary()
    assert overview.total is not None and overview.total.events == EVENTS
    roles = lake.roles()
    assert sum(line.events for line in roles) == EVENTS
    busiest = lake.role(roles[0].role_arn or "(anonymous)")
    assert busiest.events == roles[0].events
    assert len(lake.summary("role", limit=2).lines) == 2
    assert len(lake.summary(limit=2).roles.lines) == 2
    status = lake.status()
    assert status.reconciled and status.events.rows == EVENTS
    assert lake.estimate(["event_name"], limit=1).groups[0].events.estimate > 0
    assert lake.rejects().total == 0
    assert lake.has_data_events() and lake.data_event_candidates()
    assert lake.omitted_columns() == ()


def test_export_and_records(lake: Lake, tmp_path: Path) -> None:
    out = io.StringIO()
    count = lake.export(out, where="event_name = 'PutObject'")
    records = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(records) == count == one(lake, "SELECT count(*) FROM events WHERE event_name = 'PutObject'")
    assert records == list(lake.records("event_name = 'PutObject'"))
    target = tmp_path / "all.json"
    assert lake.export(target, form="records") == EVENTS
    assert len(json.loads(target.read_text())["Records"]) == EVENTS
    with pytest.raises(QueryError):
        lake.export(tmp_path / "none", where="nosuch = 1")
    assert list(tmp_path.iterdir()) == [target]


def test_connect(lake: Lake, tmp_path: Path) -> None:
    import duckdb

    target = tmp_path / "lake.duckdb"
    lake.connect_database(target)
    with duckdb.connect(str(target), read_only=True) as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (EVENTS,)
    assert "CREATE OR REPLACE VIEW events" in lake.connect_script()


# -- findings --------------------------------------------------------------------------------------------------------


def test_findings(own_lake: Lake) -> None:
    lake = own_lake
    findings = lake.findings()
    assert findings
    first = lake.find("1")
    assert first == findings[0] == lake.find(first.id[:8])
    detail = lake.finding(first, limit=2)
    assert detail.finding is first and 1 <= len(detail.events) <= 2
    assert lake.finding("1").finding == first
    assert lake.unreported(findings) == findings
    lake.mark_reported(findings[1:])
    assert lake.unreported(findings) == [first]
    assert lake.confirm("1", "real").word == "confirm"
    assert lake.mute(first, "the yearly audit").word == "mute"
    assert first.id not in {finding.id for finding in lake.findings()}
    assert first.id in {finding.id for finding in lake.findings(muted=True, budget=0)}
    with pytest.raises(UsageError):
        lake.find("nosuch")
    with pytest.raises(UsageError):
        lake.mute("1", " ")


def test_detect_with_options(own_lake: Lake, tmp_path: Path) -> None:
    lake = own_lake
    assert {signal.kind for f in lake.detect(threshold=50).findings for signal in f.signals} == {"over_threshold"}
    volume = lake.detect(levels=["volume"], full_refresh=True).findings
    assert all(signal.kind.startswith("more_") for finding in volume for signal in finding.signals)
    assert len(lake.findings(budget=1)) <= 4
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "bad.toml").write_text("x = 1")
    assert any("bad.toml" in str(problem) for problem in lake.detect(detections=tmp_path / "own").problems)
    with pytest.raises(UsageError):
        lake.detect(threshold=0)
    with pytest.raises(UsageError):
        lake.notify([], "ftp://nowhere")


def test_follow_runs_after_each_commit(own_lake: Lake, logs: Path) -> None:
    runs = own_lake.follow(lambda lake: lake.status().seq, interval=0.01)
    first = next(runs)
    own_lake.ingest(logs / "AWSLogs", again=True)
    assert next(runs) > first
    with pytest.raises(UsageError):
        own_lake.follow(lambda lake: 0, interval=0)


# -- rules -----------------------------------------------------------------------------------------------------------


def test_rules_of_every_form(lake: Lake, logs: Path, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    dropped = one(lake, "SELECT count(*) FROM events WHERE event_name = 'HeadObject' AND error_code IS NULL")
    for rules in (path, str(path), parse(RULES, "rules")):
        assert lake.try_rules(rules).stored == EVENTS - dropped
    assert lake.try_rules("important-events").events == EVENTS
    assert all(loss.events >= loss.events_after for loss in lake.rule_impact(path))
    counts = Lake(tmp_path / "lake").ingest(logs / "AWSLogs", rules=path)
    assert (counts.stored, sum(counts.dropped.values())) == (EVENTS - dropped, dropped)
    path.write_text("nonsense = 1")
    with pytest.raises(RulesError):
        lake.try_rules(path)
    assert lake.suggest(1).lines[0].events > 0


def test_selector_cost(lake: Lake) -> None:
    from trailsift.aws.selectors import SelectorRequest

    request = SelectorRequest((), ("AWS::S3::Object",))
    assert (lake.selector_cost(request).usd or 0) > 0


# -- the lake as a whole ---------------------------------------------------------------------------------------------


def test_a_handle_sees_what_another_process_commits(logs: Path, tmp_path: Path) -> None:
    parts = sorted((logs / "AWSLogs").iterdir())
    assert len(parts) > 1
    with Lake(tmp_path / "lake") as lake:
        lake.ingest(parts[0])
        before = one(lake, "SELECT count(*) FROM events")
        assert 0 < before < EVENTS
        code = f"import trailsift; trailsift.Lake({str(lake.path)!r}).ingest({str(logs / 'AWSLogs')!r})"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert one(lake, "SELECT count(*) FROM events") == EVENTS
        total = lake.summary().total
        assert total is not None and total.events == EVENTS


def test_compact_and_relocate(own_lake: Lake, tmp_path: Path) -> None:
    reports: list[int] = []
    own_lake.compact(everything=True, progress=lambda now: reports.append(now.partitions_done))
    assert one(own_lake, "SELECT count(*) FROM events") == EVENTS
    moved = own_lake.path.rename(tmp_path / "moved")
    with pytest.raises(LakeError):
        own_lake.summary()
    lake = Lake(moved)
    with pytest.raises(LakeError, match="relocate"):
        lake.summary()
    assert lake.relocate().tables > 0
    assert one(lake, "SELECT count(*) FROM events") == EVENTS


def test_nothing_happens_before_the_first_question(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "none")
    assert repr(lake) == f"Lake({str(tmp_path / 'none')!r})"
    assert repr(Lake("x", timezone="Asia/Seoul")) == "Lake('x', timezone='Asia/Seoul')"
    assert list(tmp_path.iterdir()) == []
    for ask in (lake.summary, lake.roles, lake.findings, lake.status, lake.rejects, lake.compact, lake.relocate):
        with pytest.raises(LakeError):
            ask()
    with pytest.raises(LakeError):
        lake.query("SELECT 1")


def test_a_closed_handle_opens_again(lake: Lake) -> None:
    handle = Lake(lake.path)
    with handle:
        assert one(handle, "SELECT 1") == 1
    assert one(handle, "SELECT 2") == 2
    handle.close()
    handle.close()


def test_a_handle_is_shared_between_threads(lake: Lake) -> None:
    from concurrent.futures import ThreadPoolExecutor

    handle = Lake(lake.path)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: one(handle, f"SELECT count(*) + {number} FROM events"), range(24)))
    assert answers == [EVENTS + number for number in range(24)]
    assert len(handle._engines) == 1
    handle.close()


def test_wrong_calls(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="nosuch"):
        lake.query("SELECT nosuch FROM events")
    with pytest.raises(QueryError):
        lake.query("DELETE FROM events")
    with pytest.raises(UsageError):
        lake.ingest()
    with pytest.raises(UsageError):
        lake.ingest("x", workers=0)
    with pytest.raises(UsageError, match="name of a bucket"):
        lake.ingest("s3://bad bucket/prefix")
    with pytest.raises(SourceError):
        Lake(tmp_path / "new").ingest(tmp_path / "nowhere")
    with pytest.raises(UsageError):
        lake.summary("moon")  # type: ignore[call-overload]
    with pytest.raises(UsageError):
        lake.role("nobody-at-all")
    with pytest.raises(UsageError):
        lake.query("SELECT 1").write(io.StringIO(), "parquet")


def test_numbers_beyond_int64(small_lake: Path) -> None:
    """A sum is int64 if it fits, else a decimal; what Arrow cannot hold is refused, not wrong."""
    with trailsift.Lake(small_lake) as lake:
        assert lake.query("SELECT 9223372036854775807::HUGEINT AS n").arrow().schema.field("n").type == "int64"
        wide = lake.query("SELECT 9223372036854775808::HUGEINT AS n").arrow()
        assert wide.to_pylist()[0]["n"] == 2**63 and wide.schema.field("n").type != "int64"
        assert lake.query("SELECT 5::UHUGEINT AS n").arrow().to_pylist() == [{"n": 5}]
        with pytest.raises(trailsift.EngineError, match="cast it"):
            lake.query(f"SELECT {2**128 - 1}::UHUGEINT AS n").arrow()
