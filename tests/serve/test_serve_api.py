"""The API: each endpoint answers as the library does, in each format, with errors in the reader's language."""

from __future__ import annotations

import csv
import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import pyarrow as pa  # noqa: E402
from pyarrow import parquet  # noqa: E402

import trailsift  # noqa: E402
from support import hostile  # noqa: E402
from support.dashboards import Dashboard, follow, running  # noqa: E402
from trailsift.serve.endpoints import ENDPOINTS  # noqa: E402
from trailsift.serve.live import ROWS, Follower, _Reader  # noqa: E402
from trailsift.serve.options import ServeOptions  # noqa: E402

DAY = {"since": "2026-03-03T00:00:00Z", "until": "2026-03-04T00:00:00Z"}
#: What each endpoint is asked, beside what it has defaults for.
ASKED: dict[str, dict[str, str]] = {
    "explain": DAY,
    "caller": {"name": "orders-etl-batch"},
    "resource": {"name": "kelp-orders-lake"},
    "object": {"name": "kelp-orders-lake/*"},
    "search": {"term": "orders"},
    "compare": {"since": "2026-03-04T00:00:00Z"},
    "finding": {"id": "1"},
    "query": {"sql": "SELECT service, count(*) AS n FROM events GROUP BY 1 ORDER BY 2 DESC"},
}


@pytest.fixture(scope="module")
def lake(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of our own: findings and verdicts are kept in it."""
    place = tmp_path_factory.mktemp("served") / "lake"
    shutil.copytree(small_lake, place)
    trailsift.Lake(place).relocate()
    return place


@pytest.fixture(scope="module")
def dashboard(lake: Path) -> Iterator[Dashboard]:
    with running(ServeOptions(lake=lake, timeout=20)) as found:
        yield found


def get(dashboard: Dashboard, path: str, **params: Any) -> Any:
    return httpx.get(f"{dashboard.url}{path}", params=params, timeout=60)


@pytest.mark.parametrize("path", [one.path for one in ENDPOINTS if one.method == "GET"])
def test_each_endpoint_answers(dashboard: Dashboard, path: str) -> None:
    answer = get(dashboard, f"/api/v1/{path}", **ASKED.get(path, {}))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()


@pytest.mark.parametrize(
    "one", [one for one in ENDPOINTS if one.is_table and one.path != "findings"], ids=lambda one: one.path
)
def test_tables_come_in_each_format(dashboard: Dashboard, one: Any) -> None:
    asked = ASKED.get(one.path, {})
    rows = list(csv.reader(io.StringIO(get(dashboard, f"/api/v1/{one.path}", format="csv", **asked).text)))
    arrow = pa.ipc.open_stream(get(dashboard, f"/api/v1/{one.path}", format="arrow", **asked).content).read_all()
    table = parquet.read_table(io.BytesIO(get(dashboard, f"/api/v1/{one.path}", format="parquet", **asked).content))
    assert arrow.num_rows == table.num_rows == len(rows) - 1
    assert arrow.column_names == table.column_names == rows[0] or not arrow.num_rows


def test_activity_is_what_the_library_says(dashboard: Dashboard, lake: Path) -> None:
    found = get(dashboard, "/api/v1/activity", by="event", service="s3", **DAY).json()
    sql = "SELECT sum(events)::BIGINT FROM hourly WHERE service = 's3' AND hour >= '2026-03-03' AND hour < '2026-03-04'"
    with trailsift.Lake(lake) as handle:
        assert found["total"]["events"] == handle.query(sql).value() > 0
        assert found == json.loads(
            json.dumps(handle.activity("event", filters={"service": ["s3"]}, **DAY).as_dict())  # type: ignore[arg-type]
        )


def test_description_has_every_endpoint(dashboard: Dashboard) -> None:
    described = get(dashboard, "/openapi.json").json()
    assert {f"/api/v1/{one.path}" for one in ENDPOINTS} | {"/api/v1/live", "/api/v1/watchers"} == set(
        described["paths"]
    )
    for one in ENDPOINTS:
        named = [param["name"] for param in described["paths"][f"/api/v1/{one.path}"][one.method.lower()]["parameters"]]
        assert named == [param.name for param in one.all_params]


@pytest.mark.parametrize(
    ("path", "params", "status", "code", "part"),
    [
        ("query", {"sql": "SELECT evnt FROM events"}, 400, "bad_query", "event"),
        ("query", {"sql": "DROP TABLE events"}, 400, "bad_query", ""),
        ("query", {}, 400, "bad_request", "sql"),
        ("activity", {"nonsense": "1"}, 400, "bad_request", "nonsense"),
        ("activity", {"by": "nonsense"}, 400, "bad_request", "service"),
        ("activity", {"limit": "-1"}, 400, "bad_request", "limit"),
        ("activity", {"limit": "1e9"}, 400, "bad_request", "limit"),
        ("activity", {"since": "yesterdayish"}, 400, "bad_request", "valid time"),
        ("activity", {"since": "2026-03-04", "until": "2026-03-03"}, 400, "bad_request", "not before"),
        ("activity", {"timezone": "Moon/Sea"}, 400, "bad_request", "Moon/Sea"),
        ("activity", {"outcome": "meh"}, 400, "bad_request", "denied"),
        ("activity", {"service": "x" * 30_000}, 400, "bad_request", "characters"),
        ("caller", {"name": "orders-etl-bathc"}, 400, "bad_request", "orders-etl-batch"),
        ("status", {"format": "xml"}, 400, "bad_request", "csv"),
        ("caller", {"name": "orders-etl-batch", "format": "csv"}, 400, "bad_request", "json"),
        ("nothing", {}, 404, "not_found", "nothing"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(
    dashboard: Dashboard, path: str, params: dict[str, str], status: int, code: str, part: str
) -> None:
    answer = get(dashboard, f"/api/v1/{path}", **params)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert part in error["message"] and error["title"] and error["to_do"]


def test_errors_are_in_the_readers_language(dashboard: Dashboard) -> None:
    by_parameter = get(dashboard, "/api/v1/query", sql="SELEC", lang="ko").json()["error"]
    answer = httpx.get(f"{dashboard.url}/api/v1/query?sql=SELEC", headers={"accept-language": "fr, ko-KR;q=0.8"})
    assert by_parameter["title"] == answer.json()["error"]["title"] == "SQL을 실행할 수 없습니다"


def test_a_slow_statement_is_stopped(lake: Path) -> None:
    with running(ServeOptions(lake=lake, timeout=0.5)) as dashboard:
        begun = time.monotonic()
        answer = get(dashboard, "/api/v1/query", sql="SELECT count(*) FROM range(100000000) a, range(100000) b")
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "too_slow")
        assert time.monotonic() - begun < 10


def test_a_reader_who_leaves_stops_the_statement(dashboard: Dashboard) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(
            f"{dashboard.url}/api/v1/query",
            params={"sql": "SELECT count(*) FROM range(100000000) a, range(100000) b"},
            timeout=1.0,
        )
    end = time.monotonic() + 5
    while dashboard.server.runner.at_work and time.monotonic() < end:
        time.sleep(0.02)
    assert dashboard.server.runner.at_work == 0
    assert dashboard.server.metrics.gone >= 1


def test_rows_are_limited(lake: Path) -> None:
    with running(ServeOptions(lake=lake, max_rows=7)) as dashboard:
        found = get(dashboard, "/api/v1/query", sql="SELECT event_id FROM events", limit=100).json()
        assert (len(found["rows"]), found["more"]) == (7, True)


def test_no_rows_say_why(dashboard: Dashboard) -> None:
    found = get(dashboard, "/api/v1/query", sql="SELECT * FROM events WHERE event_name = 'getobject'").json()
    assert "GetObject" in found["why_empty"]


def test_the_same_question_is_answered_once(dashboard: Dashboard) -> None:
    first = get(dashboard, "/api/v1/activity", by="region", **DAY)
    again = httpx.get(
        f"{dashboard.url}/api/v1/activity",
        params={"by": "region", **DAY},
        headers={"if-none-match": first.headers["etag"]},
    )
    assert (again.status_code, again.content) == (304, b"")
    runs = dashboard.server.runner.runs
    for _ in range(20):
        assert get(dashboard, "/api/v1/activity", by="region", **DAY).content == first.content
    assert dashboard.server.runner.runs == runs


def test_verdicts(dashboard: Dashboard) -> None:
    page = get(dashboard, "/api/v1/session").json()
    listed = get(dashboard, "/api/v1/findings").json()["findings"]
    chosen = listed[-1]["id"]
    headers = {"x-trailsift-csrf": page["csrf"]}
    url = f"{dashboard.url}/api/v1/finding/mute"
    refused = httpx.post(url, json={"id": chosen, "reason": " "}, headers=headers)
    assert refused.status_code == 400 and "reason" in refused.json()["error"]["message"]
    assert httpx.post(url, json={"id": chosen, "reason": "a test"}, headers=headers).status_code == 200
    assert chosen not in [one["id"] for one in get(dashboard, "/api/v1/findings").json()["findings"]]
    assert chosen in [one["id"] for one in get(dashboard, "/api/v1/findings", muted="true").json()["findings"]]


def test_metrics(dashboard: Dashboard) -> None:
    get(dashboard, "/api/v1/status")
    lines = get(dashboard, "/metrics").text.splitlines()
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    assert names and all(name.startswith("trailsift_") for name in names)
    assert 'trailsift_lake_records_total{result="stored"} 20000' in lines
    assert any(line.startswith('trailsift_http_requests_total{endpoint="status",status="200"}') for line in lines)
    for name in names:
        base = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        assert any(line.startswith(f"# TYPE {base} ") for line in lines), name


def test_a_lake_that_is_missing(tmp_path: Path) -> None:
    with running(ServeOptions(lake=tmp_path / "none")) as dashboard:
        assert get(dashboard, "/healthz").status_code == 200
        assert get(dashboard, "/readyz").status_code == 503
        assert "error" in get(dashboard, "/api/v1/session").json()
        answer = get(dashboard, "/api/v1/activity")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "lake_failed")
        assert "trailsift_lake_readable 0" in get(dashboard, "/metrics").text


def test_commits_are_followed(small_lake: Path, tmp_path: Path) -> None:
    """The commit of another writer arrives within a second or two, and who comes back misses nothing."""
    place = tmp_path / "lake"
    shutil.copytree(small_lake, place)
    trailsift.Lake(place).relocate()
    log = tmp_path / "new.json"
    log.write_text(json.dumps({"Records": list(hostile.records())}, ensure_ascii=False), "utf-8")
    found: list[dict[str, Any]] = []
    stop = threading.Event()
    with running(ServeOptions(lake=place)) as dashboard:
        thread = threading.Thread(target=follow, args=(dashboard, None, found, stop))
        thread.start()
        end = time.monotonic() + 10
        while not found and time.monotonic() < end:
            time.sleep(0.02)
        assert found and len(found[0]["rows"]) == ROWS
        counts = trailsift.Lake(place).ingest(log, workers=1)
        committed = time.time()
        thread.join(15)
        stop.set()
        assert len(found) == 2 and found[1]["stored"] == counts.stored > 0
        assert {row["event_id"] for row in found[1]["rows"]} & {row["eventID"] for row in hostile.records()}
        assert found[1]["at"] - committed < 3
        # A reader who saw the commit before is told what came after it, and nothing twice.
        again: list[dict[str, Any]] = []
        late = threading.Thread(
            target=follow, args=(dashboard, found[0]["commit"], again, threading.Event()), daemon=True
        )
        late.start()
        end = time.monotonic() + 10
        while not again and time.monotonic() < end:
            time.sleep(0.02)
        assert again[0]["stored"] == counts.stored and again[0]["commit"] == found[1]["commit"]


def test_a_slow_reader_holds_nothing_up(lake: Path) -> None:
    """Rows do not pile up for a page that does not read: it is given their number."""
    with trailsift.Lake(lake) as handle:
        news = handle.arrivals(limit=ROWS)
        reader = _Reader()
        for _ in range(50):
            reader.add(news)
    assert len(reader.rows) == ROWS
    message = reader.take()
    assert message["stored"] == 50 * news.stored == message["skipped"] + ROWS
    assert reader.rows == [] and Follower(handle).readers == 0


def test_values_are_masked(small_lake: Path, tmp_path: Path) -> None:
    place = tmp_path / "lake"
    shutil.copytree(small_lake, place)
    trailsift.Lake(place).relocate()
    with trailsift.Lake(place) as handle:
        row = handle.query(
            "SELECT object_key, source_ip, access_key_id FROM events WHERE object_key IS NOT NULL AND source_ip LIKE "
            "'10.%' AND access_key_id IS NOT NULL LIMIT 1"
        ).rows()[0]
    with running(ServeOptions(lake=place, redact=True)) as dashboard:
        asked = {
            "arrivals": {"limit": "1000"}, "finding": {"id": "1"}, "findings": {}, "activity": {"limit": "0"},
            "caller": {"name": "orders-etl-batch"}, "resource": {"name": "kelp-orders-lake"},
            "object": {"name": "kelp-orders-lake/*"}, "cost": {}, "explain": DAY, "suggestions": {},
        }  # fmt: skip
        for path, params in asked.items():
            text = get(dashboard, f"/api/v1/{path}", **params).text
            assert not [value for value in row if value in text], path
            assert "10.16." not in text and "AKIA" not in text and "ASIA" not in text, path
        text = get(dashboard, "/api/v1/arrivals", limit=50, format="csv").text
        assert "10.16." not in text and "[address " in text
        assert get(dashboard, "/api/v1/query", sql="SELECT 1").status_code == 400


def test_formulas_are_inert(dashboard: Dashboard) -> None:
    sql = "SELECT '=1+1' AS a, '@x' AS b, -1 AS c"
    assert get(dashboard, "/api/v1/query", sql=sql, format="csv").text == "a,b,c\n'=1+1,'@x,-1\n"
