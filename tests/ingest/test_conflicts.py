"""Second copies of an event: only those with other content are kept in ``rejects``."""

from __future__ import annotations

import csv
import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.logs import event_number, rows, write
from support.records import sample, text
from trailsift import Lake, _native
from trailsift.cli import main
from trailsift.ingest import Sizes, conflicts, ingest, worker
from trailsift.ingest.chunk import Chunk
from trailsift.ingest.reread import reread
from trailsift.lake import compact, dedup
from trailsift.rules import parse
from trailsift.storage import LocalStorage


def reversed_members(value: Any) -> Any:
    """Return the same JSON with its members in another order."""
    if isinstance(value, dict):
        return {name: reversed_members(inner) for name, inner in reversed(value.items())}
    return [reversed_members(inner) for inner in value] if isinstance(value, list) else value


def other_spelling(folder: Path, name: str, records: list[dict[str, Any]]) -> Path:
    """Write records as EventBridge delivers them, with reversed members and blanks."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    lines = [
        json.dumps({"source": "aws.s3", "detail-type": "x", "detail": reversed_members(record)}) for record in records
    ]
    path.write_text("\n".join(lines))
    return path


def rejected(lake: Path) -> list[str]:
    return sorted(json.dumps(json.loads(row["raw"]), sort_keys=True) for row in rows(lake, "rejects"))


@pytest.mark.parametrize("compacted", [False, True])
def test_other_spelling_is_the_same_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compacted: bool) -> None:
    """Across commits, compared a few at a time; only different content is rejected."""
    monkeypatch.setattr(conflicts, "AT_ONCE", 7)
    days = [f"2026-03-0{1 + number % 3}T04:05:{number:02d}Z" for number in range(40)]
    records = [event_number(number, eventTime=day) for number, day in enumerate(days)]
    records[5] |= {"eventSource": "lambda.amazonaws.com", "eventName": "Invoke", "resources": None}
    records[6] |= {"errorCode": "AccessDenied", "unknown": {"a": [1, {"b": 2, "c": 3}]}}
    lake = tmp_path / "lake"
    write(tmp_path / "in", "a.json.gz", records)
    ingest([str(tmp_path / "in")], lake)
    if compacted:
        compact.compact(lake, everything=True)
    changed = [
        records[7] | {"userAgent": "other"},
        records[8] | {"readOnly": None},
        records[9] | {"eventTime": days[10]},
    ]
    changed.append(records[11] | {"additionalEventData": {"SignatureVersion": "SigV4", "bytesTransferredIn": 0.0}})
    number = {**records[12], "additionalEventData": {**records[12]["additionalEventData"], "bytesTransferredIn": 0}}
    changed.append(number)
    second = other_spelling(tmp_path / "again", "b.json", [*records, *changed])
    counts = ingest([str(second)], lake)
    assert (counts.records, counts.stored, counts.duplicates) == (45, 0, 45)
    assert rejected(lake) == sorted(json.dumps(each, sort_keys=True) for each in changed)
    assert counts.conflicts == {"conflicting-time": 1, "conflicting-content": 2, "reduced-copy": 2}


def test_a_fuller_copy_of_a_reduced_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The console's Event history has a part of each record; the log object that comes later has all of it."""
    full = event_number(1, userIdentity={"type": "IAMUser", "userName": "alice", "arn": "arn:aws:iam::1:user/alice"})
    lake = tmp_path / "lake"
    (tmp_path / "history.csv").write_text(
        "Event ID,Event time,Event name,User name,Event source,AWS region,Resource name\n"
        f"{full['eventID']},{full['eventTime']},{full['eventName']},alice,{full['eventSource']},{full['awsRegion']},x\n"
    )
    ingest([str(tmp_path / "history.csv")], lake)
    write(tmp_path / "in", "a.json.gz", [full])
    assert main(["ingest", str(tmp_path / "in"), "--lake", str(lake), "-q"]) == 0
    assert "1 duplicate with more of the record than is stored" in " ".join(capsys.readouterr().out.split())
    # The other way round nothing is lost, and nothing is fuller.
    counts = ingest([str(tmp_path / "history.csv")], tmp_path / "other")
    write(tmp_path / "again", "b.json.gz", [full | {"userIdentity": {"type": "IAMUser", "userName": "bob"}}])
    counts = ingest([str(tmp_path / "again")], tmp_path / "other")
    assert counts.conflicts == {"conflicting-content": 1}
    assert [reason.records for reason in Lake(lake).rejects(reason="Fuller-Copy").reasons] == [1]
    assert Lake(lake).rejects(reason="conflicting").total == 0
    assert main(["rejects", "--lake", str(lake), "--reason", "conflicting-time"]) == 0
    assert "Nothing was rejected with a reason that contains 'conflicting-time'" in capsys.readouterr().out


def test_a_reduced_copy_of_a_stored_record(tmp_path: Path) -> None:
    full = event_number(1)
    lake = tmp_path / "lake"
    write(tmp_path / "in", "a.json.gz", [full])
    ingest([str(tmp_path / "in")], lake)
    arn = next(each["ARN"] for each in full["resources"] if each["type"] == "AWS::S3::Bucket")
    listed = [{"resourceType": "AWS::S3::Bucket", "resourceName": arn}, {"resourceType": "x", "resourceName": "y"}]
    with (tmp_path / "history.csv").open("w", newline="") as file:
        rows_of = csv.writer(file)
        rows_of.writerow(["Event ID", "Event time", "Event name", "Event source", "AWS region", "Resources"])
        members = [full[name] for name in ("eventID", "eventTime", "eventName", "eventSource", "awsRegion")]
        rows_of.writerow([*members, json.dumps(listed)])
    counts = ingest([str(tmp_path / "history.csv")], lake)
    assert counts.conflicts == {"reduced-copy": 1}
    ingest([str(tmp_path / "history.csv")], tmp_path / "alone")
    assert [row["resource_arn"] for row in rows(tmp_path / "alone")] == [arn]


def test_copies_are_compared_in_linear_time() -> None:
    """Nested lists in which each element fits no other: a search at each level would compare all with all."""
    compared = 0

    class Leaf(int):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return int(self) == other

        __hash__ = int.__hash__

    def tree(depth: int, last: int) -> Any:
        return [tree(depth - 1, last) for _ in range(8)] if depth else [*map(Leaf, range(7)), Leaf(last)]

    assert not conflicts._is_fuller({"requestParameters": tree(3, 98)}, {"requestParameters": tree(3, 99)})
    assert compared <= 8**4


def test_in_one_batch_and_in_one_object(tmp_path: Path) -> None:
    """The first copy may be in another worker's chunk, or earlier in the same object."""
    records = [event_number(number) for number in range(20)]
    write(tmp_path / "in", "a.json.gz", records)
    other_spelling(tmp_path / "in", "b.json", [*records, *records[:3], records[4] | {"userAgent": "other"}])
    sizes = Sizes(chunk_rows=1, task_objects=1)
    counts = ingest([str(tmp_path / "in")], tmp_path / "lake", workers=2, sizes=sizes)
    assert (counts.stored, counts.duplicates) == (20, 24)
    (raw,) = rejected(tmp_path / "lake")
    assert json.loads(raw)["eventID"] == records[4]["eventID"]


def test_what_rules_leave_out_is_not_a_difference(tmp_path: Path) -> None:
    """An omitted column or a dropped event does not make the second copy a conflict."""
    text = (
        '[[rule]]\nname = "no lists"\nwhen = {event_name = "ListObjects"}\naction = "drop"\n[fields]\nomit = ["rest"]\n'
    )
    rules = parse(text, "f")
    records = [event_number(1), event_number(2, eventName="ListObjects"), event_number(3, eventName="ListObjects")]
    write(tmp_path / "in", "a.json.gz", records)
    lake = tmp_path / "lake"
    first = ingest([str(tmp_path / "in")], lake, rules=rules)
    assert sum(first.dropped.values()) > 0
    for name, now in (("b.json", rules), ("c.json", None)):
        again = other_spelling(tmp_path / "again", name, records)
        counts = ingest([str(again)], lake, rules=now)
        assert (counts.stored, counts.duplicates) == (0, 3)
        assert rejected(lake) == []


LISTS = """[[rule]]
name = "no lists"
when = {event_name = "ListObjects"}
action = "drop"
"""


def zipped(folder: Path, name: str, records: list[Any]) -> None:
    """Write log objects of few records into one archive."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        for at in range(0, len(records), 7):
            archive.writestr(f"{at}.json.gz", gzip.compress(text({"Records": records[at : at + 7]})))


@pytest.mark.parametrize("how", [write, zipped])
def test_copies_of_dropped_events_are_compared_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[..., Any]
) -> None:
    """Dropped events are decoded without their texts: those of copies with another checksum are read again."""
    projected: list[int] = []

    def counted(chunk: Chunk, rows: Any, *more: Any) -> Any:
        projected.append(int(chunk.projected(rows).sum()))
        return reread(chunk, rows, *more)

    monkeypatch.setattr(worker, "reread", counted)
    records = [event_number(number, eventName="ListObjects", requestParameters=None) for number in range(40)]
    changed = [record | {"requestID": f"R{at}"} for at, record in enumerate(records) if at % 3 == 0]
    # The same text twice, and another text.
    changed += [changed[1], changed[1], changed[1] | {"requestID": "Z"}]
    lake = tmp_path / "lake"
    write(tmp_path / "in", "a.json.gz", records)
    ingest([str(tmp_path / "in")], lake)
    others = [event_number(100 + number, eventName="ListObjects") for number in range(300)]
    how(tmp_path / "again", "b.zip" if how is zipped else "b.json.gz", [*changed[:8], *others, *records, *changed[8:]])
    # Decoding of an archive pauses in the middle, until the next chunk.
    sizes = Sizes(chunk_rows=5)
    counts = ingest([str(tmp_path / "again")], lake, rules=parse(LISTS, "f"), sizes=sizes)
    assert (counts.stored, counts.duplicates, sum(counts.dropped.values())) == (0, 40 + len(changed), 300)
    assert rejected(lake) == sorted(json.dumps(each, sort_keys=True) for each in changed)
    assert sum(projected) >= len(changed) or not _native.available()
    assert how is not zipped or len(projected) > 1


def test_a_copy_whose_log_object_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy cannot be compared; everything else is as usual."""
    records = [event_number(number, eventName="ListObjects", requestParameters=None) for number in range(5)]
    write(tmp_path / "in", "a.json.gz", records)
    ingest([str(tmp_path / "in")], tmp_path / "lake")
    path = write(
        tmp_path / "again", "b.json.gz", [*(record | {"requestID": "Z"} for record in records), event_number(9)]
    )

    def vanish(*given: Any) -> Any:
        path.unlink()
        return reread(*given)

    monkeypatch.setattr(worker, "reread", vanish)
    counts = ingest([str(tmp_path / "again")], tmp_path / "lake", rules=parse(LISTS, "f"))
    assert (counts.stored, counts.duplicates) == (1, 5)
    if _native.available():
        assert rejected(tmp_path / "lake") == []


# -- ids ---------------------------------------------------------------------------------------------------------------


def ids(numbers: list[int], crc32: list[int] | None = None) -> dedup.Ids:
    raw = np.frombuffer(b"".join(number.to_bytes(16, "big") for number in numbers), "V16")
    return dedup.ids_of(raw, np.array(crc32 or [7] * len(numbers), np.uint32))


def test_ids_are_kept_whether_stored_or_not(tmp_path: Path) -> None:
    """An id counts as seen once it is offered, whatever happens to the event."""
    first = dedup.DedupIndex()
    is_new, differs = first.offer(ids([5, 1 << 100, 5, 9], [1, 2, 3, 4]))
    assert is_new.tolist() == [True, True, False, True] and differs.tolist() == [2]
    batch = first.batch()
    assert sum(map(len, batch)) == 3
    dedup.write(batch, tmp_path / "a.ids")
    first.clear_batch()
    assert first.batch() == []
    later = dedup.DedupIndex()
    later.load(LocalStorage(tmp_path), {"a.ids": 3})
    is_new, differs = later.offer(ids([9, 5, 6, 1 << 100], [4, 9, 1, 2]))
    assert is_new.tolist() == [False, False, True, False] and differs.tolist() == [1]


def test_ids_of_dropped_events_are_recognised(tmp_path: Path) -> None:
    """An event that was dropped is a duplicate when it comes again, even without the rules."""
    rules = parse('[[rule]]\nname = "all"\nwhen = {event_name = "GetObject"}\naction = "drop"\n', "f")
    records = [sample(eventID=f"{number:08x}-2222-4333-8444-555555555555") for number in range(30)]
    write(tmp_path / "in", "a.json.gz", records)
    first = ingest([str(tmp_path / "in")], tmp_path / "lake", rules=rules)
    assert first.stored < 30 and first.stored + sum(first.dropped.values()) == 30
    write(tmp_path / "in", "b.json.gz", records)
    second = ingest([str(tmp_path / "in")], tmp_path / "lake")
    assert (second.stored, second.duplicates) == (0, 30)
