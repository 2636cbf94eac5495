"""The commands on a small generated lake, against an independent recount of the generated files in plain Python."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

import trailsift
from trailsift import _native
from trailsift.cli import main
from trailsift.cli.app import COMMANDS
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.schema import DENIED_CODES, HOURLY

EVENTS = 6_000


class World:
    """Generated logs, their records as plain JSON, and a lake of them."""

    def __init__(self, home: Path) -> None:
        self.logs = home / "logs"
        self.lake = home / "lake"
        generate(self.logs, Options(events=EVENTS, days=3, seed=7, two_trails=True))
        self.all: list[dict[str, Any]] = []
        for path in sorted(self.logs.rglob("*.json.gz")):
            self.all += json.loads(gzip.decompress(path.read_bytes()))["Records"]
        self.records = {record["eventID"]: record for record in self.all}
        # In two commits, so that summary lines are spread over files.
        parts = sorted(self.logs.glob("AWSLogs/*"))
        ingest([str(parts[0])], self.lake)
        ingest([str(self.logs / "AWSLogs")], self.lake)

    def count(self, key: Any, wanted: Any = None) -> Counter[Any]:
        return Counter(key(r) for r in self.records.values() if wanted is None or wanted(r))


def role_of(record: dict[str, Any]) -> str | None:
    user = record.get("userIdentity") or {}
    issuer = (user.get("sessionContext") or {}).get("sessionIssuer") or {}
    return issuer.get("arn") or user.get("arn") or user.get("invokedBy")


def caller_of(record: dict[str, Any]) -> str:
    """Return the caller, for the identities that generated logs have."""
    user = record.get("userIdentity") or {}
    if user.get("accountId") == "ANONYMOUS_PRINCIPAL":
        return "anonymous"
    role = role_of(record)
    if role is None:
        return f"account:{user['accountId']}/{user['principalId'].partition(':')[0]}"
    return role if role.startswith("arn:") else f"service:{role}"


def denied(record: dict[str, Any]) -> bool:
    return record.get("errorCode") in DENIED_CODES


def time_of(record: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(record["eventTime"])


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("cli"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TRAILSIFT_LAKE", raising=False)


@pytest.fixture
def run(world: World, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run a command on the lake; return (exit code, standard output, standard error)."""

    def call(*words: str, lake: Path | None = world.lake) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([*words, *(() if lake is None else ("--lake", str(lake)))])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def ask(run: Any) -> Any:
    """Run a command with --json; return its document."""

    def call(*words: str) -> Any:
        code, out, err = run(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


# -- numbers against a recount ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["caller", "role"])
def test_summary_by_caller_is_exact(world: World, ask: Any, by: str) -> None:
    lines = ask("summary", "--by", by)["lines"]
    assert {line["caller"]: line["events"] for line in lines} == world.count(caller_of)
    assert {line["caller"]: line["denied"] for line in lines if line["denied"]} == world.count(caller_of, denied)
    roles = {caller_of(record): role_of(record) for record in world.records.values()}
    assert {line["caller"]: line["role_arn"] for line in lines} == roles


def test_summary_by_event_is_exact(world: World, ask: Any) -> None:
    document = ask("summary", "--by", "event")
    assert {(line["service"], line["event_name"]): line["events"] for line in document["lines"]} == world.count(
        lambda r: (r["eventSource"].partition(".")[0], r["eventName"])
    )
    assert document["total"]["events"] == EVENTS
    moved = [(r.get("additionalEventData") or {}).get("bytesTransferredOut", 0) for r in world.records.values()]
    assert document["total"]["bytes_out"] == sum(moved)
    addresses = {r["sourceIPAddress"] for r in world.records.values()}
    assert len(addresses) < 2048
    assert document["total"]["source_ips"] == len(addresses)


def test_summary_by_hour_is_exact_and_in_order(world: World, ask: Any) -> None:
    lines = ask("summary", "--by", "hour")["lines"]
    hours = [line["hour"] for line in lines]
    assert hours == sorted(hours)
    assert {line["hour"]: line["events"] for line in lines} == world.count(lambda r: r["eventTime"][:13] + ":00:00Z")


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-03-03T04:17", "2026-03-03T20:43"),
        ("2026-03-03T04:10", "2026-03-03T04:50"),
        ("2026-03-03T04:10", "2026-03-03T05:20"),
        ("2026-03-03", "2026-03-04"),
    ],
)
def test_a_period_is_exact_to_the_minute(world: World, ask: Any, since: str, until: str) -> None:
    start, end = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (since, until))
    inside = [r for r in world.records.values() if start <= time_of(r) < end]
    document = ask("summary", "--by", "event", "--since", since, "--until", until)
    counts = Counter(r["eventName"] for r in inside)
    assert {line["event_name"]: line["events"] for line in document["lines"]} == counts
    assert document["total"]["source_ips"] == len({r["sourceIPAddress"] for r in inside})
    assert document["total"]["denied"] == sum(map(denied, inside))


def test_a_period_is_read_in_its_time_zone(world: World, ask: Any) -> None:
    seoul = ask("summary", "--by", "event", "--since", "2026-03-03T09:00", "--timezone", "Asia/Seoul")
    assert seoul["total"]["events"] == sum(r["eventTime"] >= "2026-03-03T00:00:00Z" for r in world.records.values())


def test_overview_has_totals_hours_and_refusals(world: World, ask: Any) -> None:
    document = ask("summary")
    assert document["total"]["events"] == EVENTS
    assert {hour["hour"]: hour["events"] for hour in document["hours"]} == world.count(
        lambda r: r["eventTime"][:13] + ":00:00Z"
    )
    assert document["refused"][0]["events"] == max(
        world.count(lambda r: (role_of(r), r["eventName"], r.get("errorCode"), target(r)), denied).values()
    )


def target(record: dict[str, Any]) -> Any:
    """Return the bucket or the like, close enough to group denied calls."""
    resources = record.get("resources") or []
    arns = [resource.get("ARN") for resource in resources if resource.get("type") != "AWS::S3::Object"]
    return arns[0] if arns else (record.get("requestParameters") or {}).get("bucketName")


def test_roles_lists_every_role(world: World, ask: Any) -> None:
    document = ask("roles")["roles"]
    assert {line["caller"]: line["events"] for line in document} == world.count(caller_of)
    roles: Counter[str | None] = Counter()
    for line in document:
        roles[line["role_arn"]] += line["events"]
    assert roles == world.count(role_of)
    assert sum(line["share"] for line in document) == pytest.approx(1)
    assert [line["events"] for line in document] == sorted((line["events"] for line in document), reverse=True)


def test_role_is_exact_in_every_part(world: World, ask: Any) -> None:
    document = ask("role", "orders-etl-batch", "--timezone", "Asia/Seoul")
    own = [r for r in world.records.values() if (role_of(r) or "").endswith("/orders-etl-batch")]
    assert document["events"] == len(own)
    assert {a["event_name"]: a["events"] for a in document["actions"]} == Counter(r["eventName"] for r in own)
    errors = Counter(r["eventName"] for r in own if "errorCode" in r)
    assert {a["event_name"]: a["errors"] for a in document["actions"] if a["errors"]} == errors
    agents = sum(o["events"] for o in document["origins"] if o["dimension"] == "user_agent")
    assert agents == sum(bool(r.get("userAgent")) for r in own)
    heat = document["weekday_hours"]["monday_first"]
    expected = Counter((moment.weekday(), moment.hour) for r in own for moment in [seoul(time_of(r))])
    assert {(d, h): n for d, row in enumerate(heat) for h, n in enumerate(row) if n} == expected


def seoul(moment: datetime) -> datetime:
    from zoneinfo import ZoneInfo

    return moment.astimezone(ZoneInfo("Asia/Seoul"))


def test_role_without_an_identity(world: World, ask: Any) -> None:
    callers = world.count(caller_of)
    assert ask("role", "(anonymous)")["events"] == callers["anonymous"]
    foreign = next(caller for caller in callers if caller.startswith("account:"))
    report = ask("role", foreign.rpartition("/")[2])
    assert (report["caller"], report["role_arn"], report["events"]) == (foreign, None, callers[foreign])


# -- names, errors, exit codes ---------------------------------------------------------------------------------------


def test_role_names_the_nearest_for_a_slip(run: Any) -> None:
    code, out, err = run("role", "order-etl-bach")
    assert (code, out) == (2, "")
    assert "role/orders-etl-batch" in err


def test_role_asks_which_of_several(run: Any) -> None:
    code, _, err = run("role", "orders")
    assert code == 2
    assert "role/orders-" in err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("nosuch",), 2, "nosuch"),
        (("summary", "--nosuch"), 2, "--nosuch"),
        (("summary", "--by", "moon"), 2, "moon"),
        (("summary", "--since", "yesteryear"), 2, "yesteryear"),
        (("summary", "--since", "2026-03-04", "--until", "2026-03-03"), 2, "not before"),
        (("summary", "--timezone", "Mars/Olympus"), 2, "time zone"),
        (("summary", "--limit", "-3", "--by", "role"), 2, "negative"),
        (("query", "SELECT 1", "--engine", "spark"), 2, "spark"),
        (("query", "SELECT nosuch FROM events"), 2, "nosuch"),
        (("query", "DELETE FROM events"), 2, "DELETE"),
        (("ingest", "s3://b/prefix"), 2, "not the name of a bucket"),
        (("ingest",), 2, "nothing to ingest"),
        (("ingest", "/no/such/place"), 1, "no such"),
        (("export", "--where", "nosuch = 1"), 2, "nosuch"),
    ],
)
def test_wrong_usage(run: Any, words: tuple[str, ...], code: int, says: str) -> None:
    got, out, err = run(*words)
    assert got == code
    assert out == ""
    assert err.startswith("trailsift: ")
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("nosuch",), "trailsift"),
        (("summary", "--nosuch"), "trailsift summary"),
        (("query",), "trailsift query"),
        (("rules", "try"), "trailsift rules try"),
        (("aws", "nosuch"), "trailsift aws"),
    ],
)
def test_a_usage_error_names_the_help_of_its_command(run: Any, words: tuple[str, ...], command: str) -> None:
    assert f"See `{command} --help`." in run(*words)[2]


@pytest.mark.parametrize("words", [("summary",), ("detect",), ("query", "SELECT 1")])
def test_a_command_asks_which_lake(run: Any, words: tuple[str, ...]) -> None:
    code, out, err = run(*words, lake=None)
    assert (code, out) == (2, "")
    assert "which lake?" in err


def test_flags_have_the_names_of_the_field_as_well(run: Any) -> None:
    out = run("detect", "--help", lake=None)[1]
    pairs = "--max-per-day --budget --interval --every --full-refresh --afresh --webhook-format --webhook-form"
    assert set(pairs.split()) <= set(out.split())
    assert (
        run("detect", "--full-refresh", "--max-per-day", "1", "--json")[1]
        == run("detect", "--afresh", "--budget", "1", "--json")[1]
    )
    assert run("detect", "--follow", "--interval", "0")[0] == 2


def test_no_lake(run: Any, tmp_path: Path) -> None:
    code, out, err = run("summary", lake=tmp_path / "none")
    assert (code, out) == (1, "")
    assert "trailsift ingest" in err


def test_a_bug_is_one_line(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("trailsift.analysis.status.status", broken)
    code, out, err = run("status")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "TRAILSIFT_DEBUG" in err


def test_an_interrupt_is_130(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trailsift.analysis.status.status", interrupted)
    assert run("status")[0] == 130


class _Finalized:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "text"), [(KeyboardInterrupt(), 130, "interrupted"), (OSError(5, "x"), 0, "cleaning up failed")]
)
def test_an_error_in_a_finalizer(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python would print it with a traceback, and an interrupted command would go on."""

    def run(words: list[str]) -> int:
        _Finalized(error)
        time.sleep(0.5)
        return 0

    monkeypatch.setattr("trailsift.cli._run", run)
    assert main(["status"]) == code
    err = capsys.readouterr().err
    assert text in err and "Traceback" not in err and len(err.splitlines()) == 1


def test_zero_rows_say_why(run: Any) -> None:
    code, out, err = run("summary", "--since", "-7d")
    assert (code, out) == (0, "")
    assert "the lake holds events from 2026-03-02" in err
    code, out, err = run("query", "SELECT * FROM events WHERE role_arn = 'nobody'", "--format", "json")
    assert (code, json.loads(out)) == (0, [])
    assert "nobody" in err


# -- query, export, connect ------------------------------------------------------------------------------------------


def test_query_formats(world: World, run: Any, tmp_path: Path) -> None:
    sql = "SELECT event_name, count(*) AS calls FROM events GROUP BY 1 ORDER BY 2 DESC, 1"
    expected = dict(world.count(lambda r: r["eventName"]))
    rows = json.loads(run("query", sql, "--format", "json")[1])
    assert {row["event_name"]: row["calls"] for row in rows} == expected
    lines = run("query", sql, "-f", "csv")[1].splitlines()
    assert lines[0] == "event_name,calls"
    assert {name: int(calls) for name, calls in (line.split(",") for line in lines[1:])} == expected
    for form, read in (("parquet", read_parquet), ("arrow", read_arrow)):
        target = tmp_path / f"answer.{form}"
        assert run("query", sql, "-f", form, "-o", str(target))[0] == 0
        assert dict(read(target)) == expected
    table = run("query", sql)[1]
    assert "event_name" in table and f"{len(expected)} rows" in table


def read_parquet(path: Path) -> list[tuple[Any, ...]]:
    return duckdb.sql(f"FROM '{path}'").fetchall()


def read_arrow(path: Path) -> list[tuple[Any, ...]]:
    import pyarrow.ipc

    return [tuple(row.values()) for row in pyarrow.ipc.open_stream(path.read_bytes()).read_all().to_pylist()]


def test_query_reads_standard_input(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT count(*) AS n FROM events"))
    assert json.loads(run("query", "-", "-f", "json")[1]) == [{"n": EVENTS}]


def test_query_explains(run: Any) -> None:
    code, out, _ = run("query", "SELECT * FROM events WHERE event_time < TIMESTAMPTZ '2026-03-03'", "--explain")
    assert code == 0
    assert "files" in out


def test_a_failed_query_leaves_no_file(run: Any, tmp_path: Path) -> None:
    target = tmp_path / "answer.json"
    assert run("query", "SELECT nosuch FROM events", "-f", "json", "-o", str(target))[0] == 2
    assert list(tmp_path.glob("*answer*")) == []


def test_export_equals_the_originals(world: World, run: Any, tmp_path: Path) -> None:
    code, out, _ = run("export")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == EVENTS
    assert {line["eventID"]: line for line in lines} == world.records
    target = tmp_path / "out.json"
    run("export", "--format", "records", "-o", str(target))
    document = json.loads(target.read_text())
    assert {record["eventID"]: record for record in document["Records"]} == world.records


def test_export_of_some(world: World, run: Any) -> None:
    _, out, _ = run("export", "--where", "event_name = 'DeleteObject' -- a remark")
    got = {record["eventID"] for record in map(json.loads, out.splitlines())}
    assert got == {key for key, record in world.records.items() if record["eventName"] == "DeleteObject"}


def test_connect_runs_in_a_plain_duckdb(world: World, run: Any, tmp_path: Path) -> None:
    target = tmp_path / "lake.sql"
    assert run("connect", "-o", str(target))[0] == 0
    with duckdb.connect() as db:
        db.execute(target.read_text())
        assert db.execute("SELECT count(*), count(DISTINCT event_id) FROM events").fetchall() == [(EVENTS, EVENTS)]
        assert db.execute("SELECT sum(events)::INT FROM usage WHERE touch = 'target'").fetchone() == (EVENTS,)
        keys = ", ".join(HOURLY.keys)
        twice = f"SELECT count(*) FROM (SELECT 1 FROM hourly GROUP BY {keys} HAVING count(*) > 1)"
        assert db.execute(twice).fetchone() == (0,)
        addresses = db.execute("SELECT distinct_count(merge_sketches(list(source_ips))) FROM hourly").fetchone()
        assert addresses == (len({r["sourceIPAddress"] for r in world.records.values()}),)
        assert db.execute("SELECT sum(event_count)::INT FROM hourly_summary").fetchone() == (EVENTS,)
        assert db.execute("SELECT count(*) FROM rejects").fetchone() == (0,)


def test_connect_writes_a_database_for_clients_that_open_files(world: World, run: Any, tmp_path: Path) -> None:
    target = tmp_path / "lake.duckdb"
    for _ in range(2):
        assert run("connect", "-o", str(target), "--force")[0] == 0
    with duckdb.connect(str(target), read_only=True) as db:
        assert db.execute("SELECT count(DISTINCT event_id), sum(weight) FROM events").fetchall() == [(EVENTS, EVENTS)]
        assert db.execute("SELECT sum(event_count)::INT FROM hourly_summary").fetchone() == (EVENTS,)
    assert [path.name for path in tmp_path.iterdir()] == ["lake.duckdb"]
    assert run("connect", "-o", str(tmp_path / "none" / "x.duckdb"))[0] == 1


# -- maintain the lake ------------------------------------------------------------------------------------------


def test_status_reconciles(world: World, ask: Any) -> None:
    document = ask("status")
    assert document["reconciled"] is True
    assert document["events"] == document["totals"]["stored"] == EVENTS
    assert document["totals"]["records"] == len(world.all)
    assert document["totals"]["duplicates"] == len(world.all) - EVENTS
    assert document["commits"] == 2
    times = sorted(record["eventTime"] for record in world.records.values())
    assert (document["first_time"], document["last_time"]) == (times[0], times[-1])


def test_ingest_counts_add_up_and_report_bad_input(
    world: World, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # File names are folded on a narrow terminal.
    monkeypatch.setenv("COLUMNS", "300")
    logs = tmp_path / "logs"
    logs.mkdir()
    good = next(world.logs.rglob("*.json.gz"))
    (logs / "good.json.gz").write_bytes(good.read_bytes())
    lake = tmp_path / "lake"
    code, out, err = run("ingest", str(logs), "--json", lake=lake)
    counts = json.loads(out)
    assert code == 0, err
    assert counts["records"] == counts["stored"] > 0
    (logs / "bad.json").write_text('{"Records":[{"eventID":"a","eventName":"GetObject","eventTime":"never"}]}')
    code, out, err = run("ingest", str(logs), lake=lake)
    assert code == 3
    assert "1 already ingested" in out
    assert "trailsift rejects" in err
    code, out, _ = run("rejects", "--json", lake=lake)
    document = json.loads(out)
    assert (code, document["total"]) == (0, 1)
    assert document["rejects"][0]["log_object"].endswith("bad.json")
    code, out, _ = run("rejects", lake=lake)
    assert "bad.json" in out
    code, out, _ = run("ingest", str(logs / "good.json.gz"), "--json", lake=lake)
    assert code == 0, "a log object ingested before does not cause exit code 3"


def test_ingest_reads_standard_input(world: World, tmp_path: Path) -> None:
    path = next(world.logs.rglob("*.json.gz"))
    done = subprocess.run(
        [sys.executable, "-m", "trailsift.cli", "ingest", "-", "--lake", str(tmp_path / "lake"), "--json"],
        input=path.read_bytes(),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stored"] == len(json.loads(gzip.decompress(path.read_bytes()))["Records"])


def test_generate(run: Any, tmp_path: Path) -> None:
    target = tmp_path / "made"
    code, out, _ = run("generate", str(target), "--events", "500", "--days", "1", "--no-incidents", "--json", lake=None)
    assert code == 0
    assert json.loads(out)["events"] == 500
    assert json.loads((target / "truth.json").read_text())["incidents"] == []
    code, _, err = run("generate", str(target), lake=None)
    assert code == 2
    assert "not empty" in err


@pytest.mark.parametrize("form", ["table", "json", "markdown"])
def test_columns(run: Any, form: str) -> None:
    code, out, _ = run("columns", "--format", form, lake=None)
    assert code == 0
    for word in ("events", "hourly", "usage", "profile", "rejects", "key_pattern"):
        assert word in out
    assert run("columns", "moon", lake=None)[0] == 2


# -- the process as a whole ------------------------------------------------------------------------------------------


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = f"{sys.executable} -m trailsift"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("trailsift ", f"{program} ")],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["query", "--help"]])
def test_help_and_version_import_nothing_heavy(words: list[str]) -> None:
    heavy = "{'pyarrow', 'duckdb', 'pyiceberg', 'numpy'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; from trailsift.cli import main; main({words}); print({heavy})"],
        capture_output=True,
        text=True,
    )
    assert "trailsift" in done.stdout.split("\n")[0]
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    ("pure", "modules"), [("0", "yes" if _native.available() else "no"), ("1", "no, TRAILSIFT_PURE is set")]
)
def test_version_says_whether_the_c_modules_are_used(pure: str, modules: str) -> None:
    done = shell("trailsift --version", TRAILSIFT_PURE=pure)
    assert done.stdout == f"trailsift {trailsift.__version__} (C modules: {modules})\n"


@pytest.mark.parametrize("module", ["trailsift", "trailsift.cli"])
def test_python_m(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "rules", "list", "--json"], capture_output=True, text=True)
    assert done.returncode == 0 and "time-of-day" in json.loads(done.stdout)


def test_a_cold_query_imports_neither_pyarrow_nor_pyiceberg(world: World) -> None:
    heavy = "{'pyarrow', 'pyiceberg', 'numpy'} & set(sys.modules)"
    words = ["query", "SELECT 1 AS one", "--lake", str(world.lake)]
    code = f"import sys; from trailsift.cli import main; main({words!r}); print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("set()\n"), done.stdout + done.stderr


def test_a_closed_pipe_is_no_error(world: World) -> None:
    done = shell(f"trailsift export --lake {world.lake} | head -1")
    assert json.loads(done.stdout)["eventID"] in world.records
    assert done.stderr == ""


def test_the_end_of_the_process_loses_nothing(world: World, tmp_path: Path) -> None:
    """Exit handlers run, other threads finish, output and exit code are complete."""
    begin = "import atexit, sys, threading, time; from trailsift.cli import main; atexit.register(print, 'handler');"
    thread = "threading.Thread(target=lambda: (time.sleep(1), print('thread'))).start();"
    words = f"sys.argv = ['trailsift', 'export', '--lake', {str(world.lake)!r}];"
    for threads in ("", thread):
        code = f"{begin}{threads}{words} sys.exit(main())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        lines = done.stdout.splitlines()
        assert done.returncode == 0 and done.stderr == ""
        assert len(lines) == EVENTS + 1 + bool(threads) and lines[-1] == "handler"
    assert shell("trailsift query 'SELECT nosuch' --lake /nowhere").returncode == 1
    assert shell(f"trailsift query 'SELECT nosuch' --lake {world.lake}").returncode == 2
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    assert shell(f"trailsift query 'SELECT 1' --lake {world.lake}", TMPDIR=str(temporary)).returncode == 0
    assert list(temporary.iterdir()) == []


def test_no_colour_in_a_pipe(world: World) -> None:
    done = shell(f"trailsift summary --lake {world.lake}")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout


def test_a_terminal_without_unicode(world: World) -> None:
    for width in ("", "80", "40"):
        done = shell(
            f"trailsift role orders-etl-batch --lake {world.lake}", PYTHONIOENCODING="ascii:strict", COLUMNS=width
        )
        assert done.returncode == 0, done.stderr
        assert "##" in done.stdout and "\\u" not in done.stdout
    name = "s3-\N{HANGUL SYLLABLE HAN}-\N{GRINNING FACE}"
    query = f"trailsift query \"SELECT '{name}' AS k\" --lake {world.lake} --format"
    for encoding in ("ascii:strict", "utf-8:strict"):
        assert json.loads(shell(f"{query} json", PYTHONIOENCODING=encoding).stdout) == [{"k": name}]
    done = shell(f"trailsift query \"SELECT '{name}'\" --lake /nowhere/{name}", PYTHONIOENCODING="latin-1:strict")
    assert done.returncode == 1 and json.dumps(name)[1:-1] in done.stderr


@pytest.mark.parametrize("name", [name for _, name, place in COMMANDS if place.endswith("_command")])
def test_help_of_every_command(run: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(name, "--help", lake=None)
    assert code == 0
    assert f"trailsift {name}" in out
    assert "Example" in out
    assert max(map(len, out.splitlines())) <= 80


def test_help_lists_every_command_with_its_purpose(run: Any) -> None:
    lines = run("--help", lake=None)[1].splitlines()
    for _, name, _ in COMMANDS:
        assert any(re.match(rf"\W+{name}\s+[A-Z]", line) for line in lines), name
