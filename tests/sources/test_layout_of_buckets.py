"""CloudTrail's layout, and the spool of a listing: both without a network."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from trailsift.errors import UsageError
from trailsift.ingest.counts import Sizes
from trailsift.ingest.schedule import WorkQueue, spans_of
from trailsift.lake.commit import Listed
from trailsift.lake.known import _notes, as_counts
from trailsift.sources.base import LogObject
from trailsift.sources.cloudtrail_layout import (
    Place,
    check_names,
    day_folders,
    may_hold,
    name_parts,
    other_kind,
    place_of,
    starting_name,
)
from trailsift.sources.spool import Spool, fields, line

A = "111122223333"


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("", Place()),
        ("any/thing/", Place()),
        ("AWSLogs/", Place("root")),
        (f"x/y/AWSLogs/{A}/", Place("account", A)),
        (f"AWSLogs/o-abcdefghij/{A}/CloudTrail/", Place("trail", A)),
        (f"o-abcdefghij/AWSLogs/{A}/CloudTrail/eu-west-1/", Place("region", A, "eu-west-1")),
        (f"o-abcdefgh/AWSLogs/o-abcdefgh/{A}/CloudTrail/us-gov-west-1/2026/", Place("year", A, "us-gov-west-1", 2026)),
        (f"AWSLogs/{A}/CloudTrail/us_east_1/2026/03/", Place("month", A, "us-east-1", 2026, 3)),
        (f"AWSLogs/{A}/CloudTrail-NetworkActivity/eu-west-1/2026/03/09/", Place("day", A, "eu-west-1", 2026, 3, 9)),
        (f"AWSLogs/{A}/CloudTrail-Digest/eu-west-1/2026/", Place("other", A, other="CloudTrail-Digest")),
        (f"AWSLogs/{A}/NewService/2026/", Place("other", A, other="NewService")),
        ("backup/vpcflowlogs/2026/", Place("other", other="vpcflowlogs")),
        # Dates outside of CloudTrail's layout may be any dates: they decide nothing.
        ("copies/us-west-1/2021/08/02/", Place("elsewhere", region="us-west-1")),
        ("2021/08/02/", Place()),
        (f"{A}/notes/", Place("elsewhere", A)),
    ],
)  # fmt: skip
def test_places(folder: str, place: Place) -> None:
    assert place_of(folder) == place == place_of(folder.rstrip("/"))


def test_which_folders_may_hold_a_time() -> None:
    """Midnight is nobody's promise, so the day before counts too."""
    root = f"AWSLogs/{A}/CloudTrail/eu-west-1/"
    since, until = datetime(2026, 3, 2, 10, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)

    def holding(names: list[str]) -> list[str]:
        return [name for name in names if may_hold(place_of(root + name), since, until)]

    assert holding(["2025", "2026", "2027"]) == ["2026"]
    assert holding(["2026/02", "2026/03", "2026/04", "2026/05"]) == ["2026/03", "2026/04"]
    assert holding(["2026/02/28", "2026/03/01", "2026/04/01", "2026/04/02"]) == ["2026/03/01", "2026/04/01"]
    # A folder of a day that no calendar has decides nothing.
    assert holding(["2026/02/31"]) == ["2026/02/31"]
    kst = since.astimezone().replace(tzinfo=UTC) - timedelta(hours=0)
    assert may_hold(place_of(f"{root}2026/03/02"), kst, None)
    assert may_hold(place_of("anything"), since, until)


def test_names_of_a_day() -> None:
    root = f"AWSLogs/{A}/CloudTrail/eu-west-1/"
    folder = f"{root}2026/03/02/"
    start = starting_name(folder, place_of(folder), datetime(2026, 3, 2, 10, 5, 59, tzinfo=UTC))
    assert start == f"{folder}{A}_CloudTrail_eu-west-1_20260302T1005"
    assert (
        f"{folder}{A}_CloudTrail_eu-west-1_20260302T1004Z_zzz"
        < start
        < f"{folder}{A}_CloudTrail_eu-west-1_20260302T1005Z_0"
    )
    assert starting_name(root, place_of(root), datetime(2026, 3, 2, tzinfo=UTC)) is None
    assert day_folders(root, date(2026, 2, 28), date(2026, 3, 1)) == [f"{root}2026/02/28/", f"{root}2026/03/01/"]


def test_names_of_objects() -> None:
    name = f"{A}_CloudTrail_eu-west-1_20260302T1005Z_abc.json.gz"
    assert name_parts(f"copy/{name}") == name_parts(name) == (A, "eu-west-1")
    assert name_parts(f"AWSLogs/{A}/CloudTrail/us-east-1/2026/03/02/other.json.gz") == (A, "us-east-1")
    assert name_parts("copy/one.json.gz") == (None, None)
    assert other_kind(f"copy/{A}_CloudTrail-Digest_eu-west-1_t_eu-west-1_20260302T1005Z.json.gz") == "CloudTrail-Digest"
    assert other_kind(f"copy/{A}_vpcflowlogs_eu-west-1_fl-1_20260302T1005Z_x.log.gz") == "vpcflowlogs"
    assert other_kind(f"AWSLogs/{A}/Config/eu-west-1/2026/3/2/x.json.gz") == "Config"
    assert other_kind(f"copy/{name}") is None


@pytest.mark.parametrize(
    ("accounts", "regions"), [(["1234"], []), ([], ["eu_west_1"]), ([], ["Frankfurt"]), (["\x1b[2J"], [])]
)
def test_names_that_cannot_be(accounts: list[str], regions: list[str]) -> None:
    with pytest.raises(UsageError, match="is not the name of an AWS") as caught:
        check_names(accounts, regions)
    assert str(caught.value).isprintable()


# -- spool -------------------------------------------------------------------------------------------------------------


def make(text: str) -> LogObject:
    """Return the log object of a line."""
    minute, size, version, _, key = fields(text)
    return LogObject(key, key, version, size, datetime.strptime(minute + "+0000", "%Y%m%d%H%M%z"))


@pytest.mark.parametrize(("held", "loaded"), [(1 << 20, 1 << 20), (500, 1 << 20), (500, 3000), (500, 200)])
def test_spool_returns_everything_in_order_of_delivery(held: int, loaded: int) -> None:
    """In memory, by the day, by the hour and by the minute."""
    spool = Spool(held, loaded)
    chance = random.Random(4)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    put = []
    for number in range(2000):
        minute = start + timedelta(minutes=chance.randrange(3 * 24 * 60) // chance.choice((1, 700)))
        text, key = f"{minute:%Y%m%d%H%M}", f"AWSLogs/ключ {number}\n.json"
        put.append((minute, key))
        spool.add(text, number, line(text, number, "v", 0, key))
    assert spool.days == ("2026-03-01", "2026-03-03")
    spans = spool.spans(make)
    assert sum(span.objects for span in spans) == 2000 and sum(span.bytes for span in spans) == sum(range(2000))
    loads = [span.load() for span in spans]
    assert [len(items) for items in loads] == [span.objects for span in spans]
    found = [(item.delivered_at, item.name) for items in loads for item in items]
    assert sorted(found) == sorted(put) and [minute for minute, _ in found] == sorted(minute for minute, _ in put)
    folder = spool._folder
    assert (folder is None) == (held > 500)
    spool.remove()
    assert folder is None or not folder.exists()
    if loaded == 200:
        assert max(map(len, loads)) < 200


def test_each_worker_gets_its_own_times_and_all_is_handed_out() -> None:
    """A worker that has finished takes from the end of another's part; spans are loaded when their turn comes."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    files = [LogObject(str(number), "", "1", 10, start + timedelta(minutes=number)) for number in range(1000)]
    queue = WorkQueue(spans_of(files, Sizes(task_objects=10)), Sizes(task_objects=10), 3)
    first = [queue.take(worker)[0].name for worker in range(3)]
    assert first[0] == "0" and 300 < int(first[1]) < 350 and 630 < int(first[2]) < 690
    rest = []
    while queue:
        rest += [item.name for item in queue.take(1)]
    assert sorted(map(int, rest)) == [n for n in range(1000) if not any(int(at) <= n < int(at) + 10 for at in first)]


# -- notes -------------------------------------------------------------------------------------------------------------


def test_notes_of_a_lake_are_data(tmp_path: Path) -> None:
    """A note that no commit of ours makes is passed over: then more is listed."""
    import json

    note = Listed("s3://b/", (A,), (), None, "2026-03-01T00:00:00+00:00")
    good = as_counts([note])
    assert list(_notes(json.dumps(good))) == [note] and as_counts([]) == {}
    for name, value in (("place", 1), ("accounts", "x"), ("regions", [1]), ("since", "yesterday"), ("through", None)):
        bad = json.loads(json.dumps(good))
        bad["listed"][0][name] = value
        assert list(_notes(json.dumps(bad))) == []
    for text in ("", "[]", '{"listed": 3}', '{"listed": [3]}', '{"listed": [{}]}', None, "[" * 100_000):
        assert list(_notes(text)) == []
