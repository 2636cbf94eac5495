"""Second copies of an event: only those that say something else are kept in ``rejects``."""

from __future__ import annotations

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
from trailsift import _native
from trailsift.ingest import Sizes, conflicts, ingest, worker
from trailsift.ingest.chunk import Chunk
from trailsift.ingest.reread import reread
from trailsift.lake import compact, dedup
from trailsift.rules import parse


def turned(value: Any) -> Any:
    """The same JSON with its members in another order."""
    if isinstance(value, dict):
        return {name: turned(inner) for name, inner in reversed(value.items())}
    return [turned(inner) for inner in value] if isinstance(value, list) else value


def other_spelling(folder: Path, name: str, records: list[dict[str, Any]]) -> Path:
    """Records as EventBridge hands them on, members turned round, with blanks."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    lines = [json.dumps({"source": "aws.s3", "detail-type": "x", "detail": turned(record)}) for record in records]
    path.write_text("\n".join(lines))
    return path


def rejected(lake: Path) -> list[str]:
    return sorted(json.dumps(json.loads(row["raw"]), sort_keys=True) for row in rows(lake, "rejects"))


@pytest.mark.parametrize("compacted", [False, True])
def test_other_spelling_is_the_same_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compacted: bool) -> None:
    """Across commits, and a few at a time; only what differs is listed."""
    monkeypatch.setattr(conflicts, "AT_ONCE", 7)
    days = [f"2026-03-0{1 + number % 3}T04:05:{number:02d}Z" for number in range(40)]
    mine = [event_number(number, eventTime=day) for number, day in enumerate(days)]
    mine[5] |= {"eventSource": "lambda.amazonaws.com", "eventName": "Invoke", "resources": None}
    mine[6] |= {"errorCode": "AccessDenied", "unknown": {"a": [1, {"b": 2, "c": 3}]}}
    lake = tmp_path / "lake"
    write(tmp_path / "in", "a.json.gz", mine)
    ingest([str(tmp_path / "in")], lake)
    if compacted:
        compact.compact(lake, everything=True)
    changed = [mine[7] | {"userAgent": "other"}, mine[8] | {"readOnly": None}, mine[9] | {"eventTime": days[10]}]
    changed.append(mine[11] | {"additionalEventData": {"SignatureVersion": "SigV4", "bytesTransferredIn": 0.0}})
    number = {**mine[12], "additionalEventData": {**mine[12]["additionalEventData"], "bytesTransferredIn": 0}}
    changed.append(number)
    second = other_spelling(tmp_path / "again", "b.json", [*mine, *changed])
    counts = ingest([str(second)], lake)
    assert (counts.records, counts.stored, counts.duplicates) == (45, 0, 45)
    assert rejected(lake) == sorted(json.dumps(each, sort_keys=True) for each in changed)


def test_in_one_batch_and_in_one_object(tmp_path: Path) -> None:
    """The first copy may be in another worker's chunk, or a few lines above."""
    mine = [event_number(number) for number in range(20)]
    write(tmp_path / "in", "a.json.gz", mine)
    other_spelling(tmp_path / "in", "b.json", [*mine, *mine[:3], mine[4] | {"userAgent": "other"}])
    sizes = Sizes(chunk_rows=1, task_objects=1)
    counts = ingest([str(tmp_path / "in")], tmp_path / "lake", workers=2, sizes=sizes)
    assert (counts.stored, counts.duplicates) == (20, 24)
    (raw,) = rejected(tmp_path / "lake")
    assert json.loads(raw)["eventID"] == mine[4]["eventID"]


def test_what_rules_leave_out_is_no_difference(tmp_path: Path) -> None:
    """Neither an omitted column nor a dropped event makes its second copy say something else."""
    text = (
        '[[rule]]\nname = "no lists"\nwhen = {event_name = "ListObjects"}\naction = "drop"\n[fields]\nomit = ["rest"]\n'
    )
    rules = parse(text, "f")
    mine = [event_number(1), event_number(2, eventName="ListObjects"), event_number(3, eventName="ListObjects")]
    write(tmp_path / "in", "a.json.gz", mine)
    lake = tmp_path / "lake"
    first = ingest([str(tmp_path / "in")], lake, rules=rules)
    assert sum(first.dropped.values()) > 0
    for name, now in (("b.json", rules), ("c.json", None)):
        again = other_spelling(tmp_path / "again", name, mine)
        counts = ingest([str(again)], lake, rules=now)
        assert (counts.stored, counts.duplicates) == (0, 3)
        assert rejected(lake) == []


LISTS = """[[rule]]
name = "no lists"
when = {event_name = "ListObjects"}
action = "drop"
"""


def zipped(folder: Path, name: str, records: list[Any]) -> None:
    """Log objects of few records in one archive."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        for at in range(0, len(records), 7):
            archive.writestr(f"{at}.json.gz", gzip.compress(text({"Records": records[at : at + 7]})))


@pytest.mark.parametrize("how", [write, zipped])
def test_copies_of_dropped_events_are_compared_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[..., Any]
) -> None:
    """What a rule drops is decoded without its texts: those of a copy that says something else are read again."""
    projected: list[int] = []

    def counted(chunk: Chunk, rows: Any, *more: Any) -> Any:
        projected.append(int(chunk.projected(rows).sum()))
        return reread(chunk, rows, *more)

    monkeypatch.setattr(worker, "reread", counted)
    mine = [event_number(number, eventName="ListObjects", requestParameters=None) for number in range(40)]
    changed = [one | {"requestID": f"R{at}"} for at, one in enumerate(mine) if at % 3 == 0]
    # The same text twice, and another one.
    changed += [changed[1], changed[1], changed[1] | {"requestID": "Z"}]
    lake = tmp_path / "lake"
    write(tmp_path / "in", "a.json.gz", mine)
    ingest([str(tmp_path / "in")], lake)
    others = [event_number(100 + number, eventName="ListObjects") for number in range(300)]
    how(tmp_path / "again", "b.zip" if how is zipped else "b.json.gz", [*changed[:8], *others, *mine, *changed[8:]])
    # An archive is left in the middle for the next chunk.
    sizes = Sizes(chunk_rows=5)
    counts = ingest([str(tmp_path / "again")], lake, rules=parse(LISTS, "f"), sizes=sizes)
    assert (counts.stored, counts.duplicates, sum(counts.dropped.values())) == (0, 40 + len(changed), 300)
    assert rejected(lake) == sorted(json.dumps(each, sort_keys=True) for each in changed)
    assert sum(projected) >= len(changed) or not _native.available()
    assert how is not zipped or len(projected) > 1


def test_a_copy_whose_log_object_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cannot be told from the first one; everything else is as ever."""
    mine = [event_number(number, eventName="ListObjects", requestParameters=None) for number in range(5)]
    write(tmp_path / "in", "a.json.gz", mine)
    ingest([str(tmp_path / "in")], tmp_path / "lake")
    path = write(tmp_path / "again", "b.json.gz", [*(one | {"requestID": "Z"} for one in mine), event_number(9)])

    def vanish(*given: Any) -> Any:
        path.unlink()
        return reread(*given)

    monkeypatch.setattr(worker, "reread", vanish)
    counts = ingest([str(tmp_path / "again")], tmp_path / "lake", rules=parse(LISTS, "f"))
    assert (counts.stored, counts.duplicates) == (1, 5)
    if _native.available():
        assert rejected(tmp_path / "lake") == []


# -- ids ---------------------------------------------------------------------------------------------------------------


def ids(numbers: list[int], checks: list[int] | None = None) -> dedup.Ids:
    raw = np.frombuffer(b"".join(number.to_bytes(16, "big") for number in numbers), "V16")
    return dedup.ids_of(raw, np.array(checks or [7] * len(numbers), np.uint32))


def test_ids_are_kept_whether_stored_or_not(tmp_path: Path) -> None:
    """What is offered is seen: nobody asks what became of the event."""
    first = dedup.DedupIndex()
    fresh, differs = first.offer(ids([5, 1 << 100, 5, 9], [1, 2, 3, 4]))
    assert fresh.tolist() == [True, True, False, True] and differs.tolist() == [2]
    batch = first.batch()
    assert sum(map(len, batch)) == 3
    dedup.write(batch, tmp_path / "a.ids")
    first.committed()
    assert first.batch() == []
    later = dedup.DedupIndex()
    later.load(tmp_path, ["a.ids"])
    fresh, differs = later.offer(ids([9, 5, 6, 1 << 100], [4, 9, 1, 2]))
    assert fresh.tolist() == [False, False, True, False] and differs.tolist() == [1]


def test_ids_of_dropped_events_are_recognised(tmp_path: Path) -> None:
    """By the lake: an event that was dropped is a duplicate when it comes again, also without the rules."""
    rules = parse('[[rule]]\nname = "all"\nwhen = {event_name = "GetObject"}\naction = "drop"\n', "f")
    mine = [sample(eventID=f"{number:08x}-2222-4333-8444-555555555555") for number in range(30)]
    write(tmp_path / "in", "a.json.gz", mine)
    first = ingest([str(tmp_path / "in")], tmp_path / "lake", rules=rules)
    assert first.stored < 30 and first.stored + sum(first.dropped.values()) == 30
    write(tmp_path / "in", "b.json.gz", mine)
    second = ingest([str(tmp_path / "in")], tmp_path / "lake")
    assert (second.stored, second.duplicates) == (0, 30)
