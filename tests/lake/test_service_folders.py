"""Files are named after services only, whoever made the rows; and export copes with what earlier versions stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.records import sample, text
from trailsift import Lake, schema
from trailsift.cli import main
from trailsift.decode import record
from trailsift.errors import LakeError
from trailsift.ingest import ingest
from trailsift.ingest.chunk_builder import ChunkBuilder
from trailsift.lake.index import File
from trailsift.lake.parquet import write_events
from trailsift.lake.writer import LakeWriter

#: What a landing line could store before its JSON was checked.
DAMAGED = ["not json", "[1]", '"x"', '{"(absent)":5}', '{"(absent)":[{}]}', "{bad", '{"a":' * 3000]


@pytest.mark.parametrize("service", ["../../../x", "a/b", "..", "s3\0", "S3", "a" * 65, "é"])
def test_no_file_is_written_for_another_name(tmp_path: Path, service: str) -> None:
    builder = ChunkBuilder()
    builder.add("object", text({"Records": [sample()]}))
    chunk = builder.finish().table
    at = chunk.schema.get_field_index("service")
    chunk = chunk.set_column(at, "service", pa.array([service]).dictionary_encode().cast(chunk.schema.field(at).type))
    root = tmp_path / "deep" / "lake"
    root.mkdir(parents=True)
    with pytest.raises(LakeError, match="not the name of a service"):
        write_events(chunk, root)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_no_partition_value_is_another_name(tmp_path: Path) -> None:
    ingest([_logs(tmp_path, 1)], tmp_path / "lake")
    file = File("events", "events/data/x.parquet", 1, 1, 1_772_413_323_000_000, 1_772_413_323_000_000, "../x")
    with pytest.raises(LakeError, match="not the name of a service"):
        LakeWriter(tmp_path / "lake").catalog.change(schema.EVENTS, [file])


def test_export_names_what_it_cannot_restore(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One damaged row does not end the export of all others."""
    count = len(DAMAGED) + 2
    ingest([_logs(tmp_path, count)], tmp_path / "lake")
    (path,) = (tmp_path / "lake" / "events" / "data").rglob("*.parquet")
    table = pq.ParquetFile(path).read()
    at = table.schema.get_field_index("rest")
    field = table.schema.field(at)
    values = [*DAMAGED, *table.column(at).to_pylist()[len(DAMAGED) :]]
    pq.write_table(table.set_column(at, field, pa.array(values, pa.string()).cast(field.type)), path)
    skipped: list[Any] = []
    with Lake(tmp_path / "lake") as lake:
        assert lake.export(tmp_path / "all.ndjson", on_skipped=skipped.append) == 2
        assert len(list(lake.records())) == 2
    assert len(skipped) == len(DAMAGED) and all(each.event_id.startswith("event-") for each in skipped)
    assert len([json.loads(each) for each in (tmp_path / "all.ndjson").read_text().splitlines()]) == 2
    assert main(["export", "--lake", str(tmp_path / "lake"), "-o", str(tmp_path / "again.ndjson")]) == 0
    said = capsys.readouterr().err
    assert f"{len(DAMAGED)} events left out" in said and skipped[0].event_id in said and "Traceback" not in said


def test_an_item_key_of_any_depth_is_restored() -> None:
    row = record.row(sample(), "")
    row |= {"resource_type": "AWS::DynamoDB::Table", "object_key": '{"a":' * 5000, "request_parameters": "{}"}
    assert record.restore(row)["requestParameters"]["key"] == row["object_key"]


def _logs(folder: Path, count: int) -> str:
    (folder / "in").mkdir()
    events = [sample(eventID=f"event-{number}") for number in range(count)]
    (folder / "in" / "a.json").write_bytes(text({"Records": events}))
    return str(folder / "in")
