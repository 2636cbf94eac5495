"""However much is wrong in a log object, or however large it is: all of it is counted, and the memory is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from test_decode import ONE, sample, text
from test_ingest import rows
from trailsift.decode.envelope import find_records
from trailsift.ingest import ingest


def test_every_malformed_part_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound they share one line of rejects; records between and after them are all read."""
    monkeypatch.setattr("trailsift.decode.found.KEPT_PARTS", 100)
    good = [sample(eventID=f"{number:08x}-2222-4333-8444-555555555555") for number in range(3)]
    timeless = text(sample(eventTime="soon", eventID="x"))
    bad = [*[b"{broken"] * 300, text(good[1]), *[b'{"strange": 1}'] * 40, *[timeless] * 7]
    lines = [text(good[0]), *bad, text(good[2])]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(b"\n".join(lines))
    counts = ingest([str(tmp_path / "in")], tmp_path / "lake")
    assert (counts.records, counts.stored, counts.malformed) == (350, 3, 347)
    kept = rows(tmp_path / "lake", "rejects", "position, reason, raw")
    assert len(kept) == 101
    (more,) = [row["reason"] for row in kept if row["position"] == -1]
    assert more == "and 247 more parts like these: counted, but not kept"


def test_bytes_kept_of_malformed_parts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trailsift.decode.found.KEPT_BYTES", 10_000)
    found = find_records(b"\n".join([text(ONE), *[b"{" + b"x" * 999] * 50]))
    assert (len(found.records), found.malformed.parts) == (1, 50)
    assert sum(len(one.raw) for one in found.malformed) <= 10_000


def test_more_broken_lines_than_were_ever_read_before() -> None:
    """150,000 of them, with records behind."""
    found = find_records(text(ONE) + b"\n" + b"{broken\n" * 150_000 + text(ONE))
    assert (len(found.records), found.malformed.parts) == (2, 150_000)
