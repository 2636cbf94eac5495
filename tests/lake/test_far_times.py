"""Events at the ends of what a time can be: no command fails, neither then nor later."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.contents import answers
from trailsift import Lake
from trailsift.ingest import ingest
from trailsift.lake import expire
from trailsift.lake.compact import compact, is_closed
from trailsift.lake.maintenance import maintain
from trailsift.lake.verify import verify
from trailsift.lake.writer import LakeWriter
from trailsift.times import micros

TIMES = ["2001-09-09T01:46:40Z", "2024-01-15T08:30:00Z", "9999-12-30T23:59:59Z", "9999-12-31T23:59:59Z"]


def write(folder: Path, number: int) -> Path:
    records = [
        {
            "eventVersion": "1.08", "eventTime": time, "eventSource": "s3.amazonaws.com", "eventName": "GetObject",
            "awsRegion": "us-east-1", "eventID": f"{number:08d}-0000-0000-0000-{place:012d}",
            "userIdentity": {"type": "AWSService", "invokedBy": "x.amazonaws.com"},
            "requestParameters": {"bucketName": "b", "key": f"k{number}"},
        }
        for place, time in enumerate(TIMES)
    ]  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / f"{number}.json"
    path.write_text(json.dumps({"Records": records}))
    return path


@pytest.mark.parametrize("hourly", [False, True])
def test_the_last_day_of_the_last_year(hourly: bool, tmp_path: Path) -> None:
    root = tmp_path / "lake"
    for number in range(10):
        # The upkeep after each ingest looks at all days.
        ingest([str(write(tmp_path / "logs", number))], root, hourly_partitions=hourly)
    before = answers(root)
    writer = LakeWriter(root)
    maintain(writer, since=0, seconds=60.0)
    compact(root)
    assert compact(root, everything=True).seconds >= 0
    expire.clean(LakeWriter(root), datetime.now(UTC))
    assert answers(root) == before
    lake = Lake(root)
    assert lake.query("SELECT count(*) AS n FROM events").rows() == [(40,)]
    status = lake.status()
    assert status.reconciled and status.events.rows == 40
    assert sum(1 for _ in lake.records()) == 40
    lake.summary()
    lake.summary("hour")
    lake.roles()
    lake.detect()
    assert lake.verify().problems == []
    assert verify(root).is_sound


def test_a_day_is_closed_an_hour_after_its_end() -> None:
    end = micros(datetime(2024, 1, 2, tzinfo=UTC))
    assert not is_closed(end, datetime(2024, 1, 2, 0, 59, 59, 999_999, tzinfo=UTC))
    assert is_closed(end, datetime(2024, 1, 2, 1, tzinfo=UTC))
    assert not is_closed(253_402_300_800_000_000, datetime(2024, 1, 2, tzinfo=UTC))
    assert not is_closed(253_402_300_800_000_000, datetime(9999, 12, 31, 23, 59, tzinfo=UTC))
