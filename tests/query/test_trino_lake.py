"""A lake in S3 that is registered in Glue, on a real Trino: every documented query has the rows that it has here."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from glue_server import REGION, GlueServer, glue_server
from s3_server import KEY, SECRET, Server, s3_server
from support.paths import ROOT
from support.trino import Trino
from trailsift import Lake
from trailsift.deploy import athena_sql
from trailsift.deploy.tables import StackConfig
from trailsift.errors import QueryError
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.query.trino_sql import translate
from trailsift.schema import TABLES

__all__ = ["glue_server", "s3_server"]

pytest.importorskip("obstore", reason="the extra aws is not installed")
pytest.importorskip("boto3", reason="the extra aws is not installed")
pytest.importorskip("sqlglot", reason="the extra aws is not installed")

DATABASE = "registered_lake"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
#: What the statements are about now, so that `now()` and `current_date` select something.
NOW = datetime(2026, 3, 9, 12, tzinfo=UTC)


def _documented() -> dict[str, str]:
    """Return every query of the pages: in blocks of SQL, and as arguments of commands."""
    found = {}
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in re.finditer(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found[f"{page.name}:{text.count(chr(10), 0, match.start()) + 1}"] = match[1]
        for match in re.finditer(r"^(?:\$ )?trailsift query (\".*)$", text, re.MULTILINE):
            found[f"{page.name}:{text.count(chr(10), 0, match.start()) + 1}"] = shlex.split(match[1])[0]
    return found


def _whole(sql: str) -> str:
    """Return a statement without its limit: of rows that are equal in its order, either may be left out."""
    return re.sub(r"\s+LIMIT \d+\s*$", "", sql)


#: By place. A page shows single lines of a summary once, where Trino has those that are not merged yet.
DOCUMENTED = {place: _whole(sql) for place, sql in _documented().items() if sql != "SELECT * FROM usage"}
#: Beyond the pages: what people write in DuckDB's dialect that Trino spells in another way.
OTHERS = {
    "grouped by all": "SELECT date_trunc('hour', event_time) AS h, service, count(*) AS n FROM events GROUP BY ALL",
    "a text beside an aggregated time": "SELECT caller, max(event_time) AS last FROM events GROUP BY caller "
    "HAVING last >= '2026-03-04 12:00' AND min(event_time) < '2026-03-03'",
    "a time of a CTE": "WITH a AS (SELECT caller, max(last_time) AS t FROM usage GROUP BY 1) SELECT * FROM a "
    "WHERE t > '2026-03-04 20:00'",
    "now": "SELECT count(*) FROM events WHERE event_time >= now() - INTERVAL 6 DAY",
    "days from today": "SELECT count(*) FROM events WHERE event_time >= current_date - 6",
    "joined texts": "SELECT service, string_agg(DISTINCT event_name, '|' ORDER BY event_name) FROM events GROUP BY 1",
    "parts of texts": "SELECT DISTINCT contains(object_key, 'e'), len(object_key) > 20, object_key[1:4], "
    "split_part(object_key, '/', -1), split_part(object_key, '/', 1) FROM events WHERE object_key IS NOT NULL",
    "lists": "SELECT len(resource_arns), resource_arns[1], resource_arns[1:1], count(*) FROM events GROUP BY ALL",
    "names of days": "SELECT dayname(event_time), monthname(event_time), count(*) FROM events GROUP BY ALL",
    "parts of times": "SELECT hour(event_time), extract(dow FROM event_time), date_part('day', event_time), count(*) "
    "FROM events GROUP BY ALL",
    "columns that are NULL everywhere": "SELECT vpc_endpoint_id, count(error_code), min(error_code) FROM events "
    "WHERE error_code IS NULL GROUP BY 1",
    "the last of each": "SELECT caller, event_name, event_time FROM events "
    "QUALIFY row_number() OVER (PARTITION BY caller ORDER BY event_time DESC, event_id) = 1",
    "a JSON value": "SELECT request_parameters->>'$.bucketName' AS b, count(*) FROM events WHERE service = 's3' "
    "GROUP BY 1",
    "a filter": "SELECT count(*) FILTER (WHERE is_denied(error_code)) AS denied, sum(bytes_out)::BIGINT FROM events",
    "sketches": "SELECT service, distinct_count(merge_sketches(list(source_ips))) FROM hourly GROUP BY service",
    "a view": "SELECT count(*), sum(event_count)::BIGINT FROM hourly_summary",
}  # fmt: skip


_SUM = "SELECT sum(events)::BIGINT, sum(bytes_in)::BIGINT, sum(bytes_out)::BIGINT FROM"


class Registered(NamedTuple):
    """A registered lake: Trino reads its tables by Glue, DuckDB reads the same files."""

    trino: Trino
    root: Path

    def theirs(self, sql: str, zone: str = "UTC") -> list[tuple[str, ...]]:
        """Return the rows that Trino gives, as texts."""
        text = translate(sql, DATABASE, zone, NOW).sql.replace(f"{DATABASE}.", f"glue.{DATABASE}.")
        return sorted(tuple(map(_printed, row)) for row in self.trino.run_iceberg(text))

    def ours(self, sql: str, zone: str = "UTC") -> list[tuple[str, ...]]:
        """Return the rows that DuckDB gives, as texts. ``now()`` is written out: DuckDB's clock is the machine's."""
        for word, value in (("now()", f"TIMESTAMPTZ '{NOW.isoformat()}'"), ("current_date", f"DATE '{NOW:%Y-%m-%d}'")):
            sql = sql.replace(word, value)
        with DuckDBEngine(open_snapshot(self.root), timezone=zone) as engine:
            return sorted(tuple(map(_text, row)) for row in engine.query(sql, cache=False).rows())


@pytest.fixture(scope="module")
def registered(
    trino: Trino,
    glue_server: GlueServer,
    s3_server: Server,
    small_logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Registered]:
    """The small logs in a lake in S3, in two commits: several lines have the same keys until they are merged."""
    glue_server.new_database(DATABASE)
    bucket = s3_server.new_bucket()
    env = {name: value for name, value in s3_server.env.items() if name != "AWS_ENDPOINT_URL"}
    env |= {"AWS_ENDPOINT_URL_S3": s3_server.url, "AWS_ENDPOINT_URL_GLUE": glue_server.url, "AWS_REGION": REGION}
    env["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        lake = Lake(f"s3://{bucket}/team/lake")
        files = sorted((small_logs / "AWSLogs").rglob("*.json.gz"))
        lake.ingest(*files[::2])
        lake.ingest(*files[1::2])
        assert {state.what for state in lake.register(DATABASE).tables} == {"registered"}
        keys = {"aws-access-key": KEY, "aws-secret-key": SECRET}
        trino.add_iceberg(
            "glue",
            {
                "iceberg.catalog.type": "glue",
                "hive.metastore.glue.region": REGION,
                "hive.metastore.glue.endpoint-url": glue_server.url,
                **{f"hive.metastore.glue.{name}": value for name, value in keys.items()},
                "fs.s3.enabled": "true",
                "s3.endpoint": s3_server.url,
                "s3.region": "us-east-1",
                "s3.path-style-access": "true",
                **{f"s3.{name}": value for name, value in keys.items()},
            },
        )
        statements = athena_sql.statements(StackConfig(database=DATABASE))
        (view,) = [statement.text for statement in statements if statement.name == "summary"]
        trino.run_iceberg(view.replace(f"{DATABASE}.", f"glue.{DATABASE}."))
        yield Registered(trino, lake._root())


def _printed(text: str) -> str:
    """Return a value as Java prints it in the form of ``_text``."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z| UTC)?", text):
        return _text(datetime.fromisoformat(re.sub(r"Z$| UTC$", "", text)))
    if re.fullmatch(r"-?\d+\.\d+(E-?\d+)?", text):
        return f"{float(text):.9g}"
    if re.fullmatch(r"\[.*\]", text):
        return ", ".join(sorted(text[1:-1].split(", ")))
    return text


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, datetime):
        return (value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value).isoformat(" ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, list):
        return ", ".join(sorted(map(_text, value)))
    # Java prints a list and a text in brackets in the same way.
    text = str(value).replace("\n", " ")
    return ", ".join(sorted(text[1:-1].split(", "))) if re.fullmatch(r"\[.*\]", text) else text


def _same(theirs: list[tuple[str, ...]], ours: list[tuple[str, ...]], what: str) -> None:
    """Both have the same rows; thousands of them are not printed."""
    rows = ((a, b) for a, b in zip(theirs, ours, strict=False) if a != b)
    differ = [(a, b) for row in itertools.islice(rows, 1) for a, b in zip(*row, strict=True) if a != b]
    assert (len(theirs), differ) == (len(ours), []), what


def test_lines_of_two_commits_add_up(registered: Registered) -> None:
    """Until compaction merges them, Trino sees the lines of each commit, where a query here sees their sum."""
    sql = "SELECT * FROM usage"
    assert len(registered.theirs(sql)) > len(registered.ours(sql)) > 100
    _same(registered.theirs(f"{_SUM} usage"), registered.ours(f"{_SUM} usage"), "usage")


def test_every_table_has_its_rows(registered: Registered) -> None:
    """All columns of all tables; of lines with the same keys Trino sees each, so they are added up here."""
    for name, table in TABLES.items():
        columns = [column.name for column in table.columns if column.type not in ("list<int64>",)]
        listed = ", ".join(columns)
        if name in ("events", "rejects"):
            sql = f"SELECT {listed} FROM {name} WHERE year IS NULL OR service <> 's3'"
            sql = sql if name == "events" else f"SELECT {listed} FROM {name}"
        else:
            sums = [c for c in columns if c not in table.keys and c not in ("first_time", "last_time", "example_key")]
            counts = ", ".join(f"sum({column})::BIGINT" for column in sums)
            sql = f"SELECT {', '.join(table.keys)}, {counts}, min(first_time), max(last_time) FROM {name} GROUP BY ALL"
        ours = registered.ours(sql)
        _same(registered.theirs(sql), ours, name)
        assert ours or name == "rejects"


@pytest.mark.parametrize("place", DOCUMENTED)
def test_documented_queries(place: str, registered: Registered) -> None:
    sql = DOCUMENTED[place]
    _same(registered.theirs(sql), registered.ours(sql), translate(sql, DATABASE, "UTC", NOW).sql)


@pytest.mark.parametrize("name", OTHERS)
def test_what_people_write(name: str, registered: Registered) -> None:
    sql = OTHERS[name]
    ours = registered.ours(sql)
    _same(registered.theirs(sql), ours, translate(sql, DATABASE, "UTC", NOW).sql)
    assert ours


@pytest.mark.parametrize("place", [*DOCUMENTED, *OTHERS])
def test_in_another_zone(place: str, registered: Registered) -> None:
    """The same rows in Seoul's time, or a refusal that names the zone; never other rows."""
    sql = {**DOCUMENTED, **OTHERS}[place]
    try:
        theirs = registered.theirs(sql, "Asia/Seoul")
    except QueryError as error:
        assert "in the time zone Asia/Seoul" in str(error), error
        return
    _same(theirs, registered.ours(sql, "Asia/Seoul"), translate(sql, DATABASE, "Asia/Seoul", NOW).sql)
