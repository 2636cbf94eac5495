"""Landing lines with one hostile value each: a reject with its reason, or an event that every command can use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.logs import rows
from support.paths import TESTS
from support.records import sample, text
from trailsift import Lake
from trailsift.aws.transform.writer import LandingWriter
from trailsift.decode import landing, record
from trailsift.decode.json_text import dump
from trailsift.decode.landing import Dropped
from trailsift.ingest import ingest
from trailsift.ingest.chunk_builder import ChunkBuilder

CASES: list[dict[str, Any]] = json.loads((TESTS / "cases" / "hostile_landing.json").read_text("utf-8"))


def line_of(case: dict[str, Any], number: int = 0) -> bytes:
    """The line of a case: a good one, with ``changes`` (values) or ``raw`` (JSON of values)."""
    row = record.row(sample(eventID=f"case-{number}"), "")
    if case["line"] == "event":
        value = json.loads(LandingWriter().row(row))
    else:
        dropped = Dropped()
        dropped.add(row, "heads")
        value = json.loads(dropped.lines()[0][1])
    changes = case.get("changes", {})
    members = {name: json.dumps(each) for name, each in (value | changes).items()} | case.get("raw", {})
    return ("{" + ",".join(f'"{name}":{each}' for name, each in members.items()) + "}").encode()


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_a_hostile_line_is_one_reject_or_a_usable_event(case: dict[str, Any]) -> None:
    builder = ChunkBuilder()
    # Lines of both kinds around it, so that the object is one of landing lines.
    good = line_of({"line": "event"}, 1)
    stats = builder.add("object", b"\n".join((good, line_of(case), good)))
    table = builder.finish().table
    reasons = [part.reason for part in stats.malformed]
    if case["reason"] is None:
        assert reasons == [] and table.num_rows == 3
        for row in table.to_pylist():
            dump(record.restore(row | {"event_time": int(row["event_time"].timestamp()) * 1_000_000}))
    else:
        assert len(reasons) == 1 and case["reason"] in reasons[0], reasons
        assert table.num_rows == 2 and len(reasons[0]) < 300


def test_one_folder_of_them_all(tmp_path: Path) -> None:
    """Everything that is usable is stored, everything else is named, nothing leaves the lake, every command runs."""
    (tmp_path / "in").mkdir()
    lines = [line_of(case, number) for number, case in enumerate(CASES)]
    (tmp_path / "in" / "hostile.json").write_bytes(b"\n".join(lines) + b"\n")
    (tmp_path / "in" / "good.json").write_bytes(text({"Records": [sample()]}))
    before = sorted(path for path in tmp_path.parent.iterdir())
    counts = ingest([str(tmp_path / "in")], tmp_path / "out" / "lake")
    rejected = sum(case["reason"] is not None for case in CASES)
    dropped = sum(case["reason"] is None and case["line"] == "dropped" for case in CASES)
    assert counts.malformed == rejected
    assert counts.stored + counts.duplicates + sum(counts.dropped.values()) == len(CASES) - rejected + 1
    assert sum(counts.dropped.values()) == dropped
    # Only the folders of services, and only in the lake.
    assert sorted(path for path in tmp_path.parent.iterdir()) == before
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"} and len(list((tmp_path / "out").iterdir())) == 1
    folders = {path.parent.name for path in (tmp_path / "out" / "lake" / "events" / "data").rglob("*.parquet")}
    assert folders == {"service=s3"}
    with Lake(tmp_path / "out" / "lake") as lake:
        skipped: list[Any] = []
        assert lake.export(tmp_path / "all.ndjson", on_skipped=skipped.append) == counts.stored and not skipped
        assert lake.rejects().total == rejected
    stored = rows(tmp_path / "out" / "lake", columns="service, weight")
    assert {row["service"] for row in stored} == {"s3"} and all(row["weight"] >= 1 for row in stored)


def test_what_all_events_of_a_line_share_cannot_fill_the_memory() -> None:
    """A line repeats a text for each of its events: 100 MB from 600 KB here, and without a bound far more."""
    line = json.loads(line_of({"line": "dropped"}))
    line |= {"user_agent": "a" * 200_000, "dropped": [["01:02", f"{number}"] for number in range(2_000)]}
    builder = ChunkBuilder()
    stats = builder.add("object", b"\n".join((text(line), line_of({"line": "event"}))))
    assert [part.reason for part in stats.malformed] == [
        "a line of dropped events that expands to too much: it is not read"
    ]
    assert builder.finish().table.num_rows == 1


def test_every_column_of_the_schema_is_checked() -> None:
    from trailsift import schema

    line = json.loads(line_of({"line": "event"}))
    for column in schema.EVENTS.columns:
        if column.name != "log_object":
            with pytest.raises(landing.NotARecord, match=column.name):
                landing.row(line | {column.name: {"an": "object"}}, "x")


def test_long_keys_of_dropped_events_fit_a_record_of_a_stream() -> None:
    dropped = Dropped()
    row = record.row(sample(), "")
    for number in range(Dropped.LIMIT):
        dropped.add(row | {"event_id": f"{number}", "object_key": "k" * 1024}, "heads")
    lines = [line for _, line in dropped.lines()]
    assert all(len(line) <= 1_000 * 1024 for line in lines)
    ids = [own[1] for line in lines for own in json.loads(line)["dropped"]]
    assert ids == [f"{number}" for number in range(Dropped.LIMIT)]
