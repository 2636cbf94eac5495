"""Data files: sorted, in their partitions, with the ranges that the index promises."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from support.logs import event_number, write
from support.records import sample, text
from trailsift.ingest import ingest
from trailsift.ingest.chunk_builder import ChunkBuilder
from trailsift.lake.parquet import ROW_GROUP, write_events

ANONYMOUS = {"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"}


def test_layout_order_and_ranges(tmp_path: Path) -> None:
    records = []
    for number in range(40):
        day, user = (
            1 + number % 2,
            sample()["userIdentity"] | {"arn": f"arn:aws:iam::1:user/u{number % 5}", "sessionContext": {}},
        )
        records.append(
            sample(
                eventID=f"id-{number}",
                eventTime=f"2026-03-0{day}T00:00:{59 - number:02d}Z",
                userIdentity=ANONYMOUS if number % 8 == 0 else user,
                eventSource="s3.amazonaws.com" if number % 3 else "lambda.amazonaws.com",
            )
        )
    builder = ChunkBuilder()
    builder.add("object", text({"Records": records}))
    files = write_events(builder.finish().table, tmp_path)
    assert sum(file.rows for file in files) == 40 and len(files) == 4
    for file in files:
        rows = pq.read_table(tmp_path / file.path, partitioning=None).to_pylist()
        first = rows[0]
        folder = f"year={first['year']}/month={first['month']}/day={first['day']}/service={first['service']}"
        assert file.path.startswith(f"events/data/{folder}/") and file.service == first["service"]
        key = [(row["caller"], row["event_time"]) for row in rows]
        assert key == sorted(key)
        callers = [row["caller"] for row in rows]
        assert (file.min_caller, file.max_caller) == (min(callers), max(callers))
        times = [round(row["event_time"].timestamp() * 1_000_000) for row in rows]
        assert (file.min_time, file.max_time) == (min(times), max(times))
        assert file.bytes == (tmp_path / file.path).stat().st_size


def test_each_row_group_has_a_dictionary_of_its_own(tmp_path: Path) -> None:
    """Parquet writes the dictionary of an Arrow column whole, whether a row group uses all of it or not."""
    rows = ROW_GROUP * 5 // 2
    networks = [f"10.1.{number // 256}.{number % 256}" for number in range(rows)]
    records = [sample(eventID=f"id-{n}", sourceIPAddress=each, resources=[]) for n, each in enumerate(networks)]
    builder = ChunkBuilder()
    builder.add("object", text({"Records": records}))
    (file,) = write_events(builder.finish().table, tmp_path)
    stored = pq.ParquetFile(tmp_path / file.path)
    groups = [stored.metadata.row_group(number) for number in range(stored.metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [ROW_GROUP, ROW_GROUP, ROW_GROUP // 2]
    place = stored.schema_arrow.names.index("source_ip")
    texts = [group.column(place).total_uncompressed_size / group.num_rows for group in groups]
    # At most twelve characters, their length, and the number of a value; the values of other groups would double that.
    assert max(texts) < 20
    assert stored.read(["source_ip"]).column(0).to_pylist() == networks


@pytest.mark.parametrize("column", ["event_id", "object_key", "request_id", "access_key_id"])
def test_a_value_that_is_not_there_skips_the_file(column: str, many_requests: Path) -> None:
    (path,) = (many_requests / "events").rglob("*.parquet")
    with duckdb.connect() as db:
        sql = f"SELECT bloom_filter_excludes FROM parquet_bloom_probe('{path}', '{column}', $1)"
        here = db.execute(f"SELECT {column} FROM '{path}' WHERE {column} IS NOT NULL LIMIT 20").fetchall()
        assert not any(excluded for (value,) in here for (excluded,) in db.execute(sql, [value]).fetchall())
        others = [db.execute(sql, [f"no such value {number}"]).fetchone() for number in range(20)]
    assert sum(excluded for (excluded,) in filter(None, others)) >= 15


@pytest.fixture(scope="module")
def many_requests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of one file that is large enough for filters."""
    folder = tmp_path_factory.mktemp("requests")
    records = [event_number(number, requestID=f"REQUEST{number:08}") for number in range(4_500)]
    write(folder / "in", "a.json.gz", records)
    ingest([str(folder / "in")], folder / "lake")
    return folder / "lake"
