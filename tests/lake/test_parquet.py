"""Data files: sorted, in their partitions, with the ranges that the index promises."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from support.records import sample, text
from trailsift.ingest.chunk_builder import ChunkBuilder
from trailsift.lake.parquet import write_events

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
        key = [(row["role_arn"] or "", row["event_time"]) for row in rows]
        assert key == sorted(key)
        roles = [row["role_arn"] for row in rows if row["role_arn"]]
        assert (file.min_role, file.max_role) == (min(roles), max(roles))
        times = [round(row["event_time"].timestamp() * 1_000_000) for row in rows]
        assert (file.min_time, file.max_time) == (min(times), max(times))
        assert file.bytes == (tmp_path / file.path).stat().st_size
