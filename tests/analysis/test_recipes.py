"""The queries of docs/queries.md give the right values on small logs whose right values are known."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trailsift
from support.paths import ROOT
from support.public_cases import lake_of

PAGE = (ROOT / "docs" / "queries.md").read_text("utf-8")
#: Heading -> the first query below it.
RECIPES = {
    match[1]: match[2] for match in re.finditer(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```sql\n(.*?)^```$", PAGE, re.M | re.S)
}

ROLE = "arn:aws:iam::111122223333:role/"

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], trailsift.Lake]:
    """Return the lake of a case; it is made once."""
    made: dict[str, trailsift.Lake] = {}

    def lake(case: str) -> trailsift.Lake:
        if case not in made:
            made[case] = lake_of(case, tmp_path_factory.mktemp("case"))
        return made[case]

    return lake


@pytest.fixture
def ask(lakes: Callable[[str], trailsift.Lake]) -> Ask:
    """Run a recipe on a case, with other names: ``names`` are pairs of what the page has and what is meant."""

    def run(case: str, heading: str, *names: tuple[str, str]) -> list[dict[str, Any]]:
        sql = RECIPES[heading]
        for name, other in names:
            assert name in sql, f"{heading}: the query does not have {name}"
            sql = sql.replace(name, other)
        # The cases are from January 2026, the logs of the page from March.
        sql = re.sub(r"2026-03-(\d\d)", r"2026-01-\1", sql).replace("2026-01-09'", "2026-01-31'")
        return lakes(case).query(sql, cache=False).dicts()

    return run


OBJECT = (("arn:aws:s3:::kelp-orders-shared", "arn:aws:s3:::orders"), ("2026 Q1/forecast v3.xlsx", "q1/plan.xlsx"))


def test_who_copied_an_object_has_read_it_and_who_wrote_it_has_not(ask: Ask) -> None:
    rows = ask("04-copy-read", "Who read this object?", *OBJECT)
    assert [(row["caller"], row["event_name"], row["copied_to"], row["records"]) for row in rows] == [
        (ROLE + "reader", "GetObject", None, 1),
        (ROLE + "thief", "CopyObject", "arn:aws:s3:::evil-bucket/loot/plan.xlsx", 1),
    ]


def test_reads_through_access_points_are_found(ask: Ask) -> None:
    rows = ask("03-s3-flavours", "Who read this object?", *OBJECT)
    assert [row["event_name"] for row in rows] == ["GetObject"] * 4
    copied = ask("03-s3-flavours", "Who read this object?", OBJECT[0], (OBJECT[1][0], "q1/plan v2.xlsx"))
    assert [(row["event_name"], row["copied_to"]) for row in copied] == [
        ("CopyObject", "arn:aws:s3:::elsewhere/copied/plan.xlsx")
    ]


def test_a_call_between_accounts_is_one_read(ask: Ask) -> None:
    key = next(iter(lake_keys(ask)))
    names = ((OBJECT[0][0], "arn:aws:s3:::app-data"), (OBJECT[1][0], key))
    (row,) = ask("13-copies/6-shared", "Who read this object?", *names)
    assert (row["caller"], row["records"]) == ("arn:aws:iam::444455556666:role/etl", 2)


def lake_keys(ask: Ask) -> set[str]:
    (row,) = ask("13-copies/6-shared", "Which kinds of keys fill the log?")
    assert row["events"] == 2, "records are counted here"
    return {row["example"]}


BUCKET = "arn:aws:s3:::kelp-orders-media"


@pytest.mark.parametrize(
    ("case", "bucket", "reads"),
    [
        ("04-copy-read", "orders", {ROLE + "reader": (1, 0, 123), ROLE + "thief": (1, 1, 0)}),
        ("04-copy-read", "drafts", {ROLE + "publisher": (1, 1, 0)}),
        ("03-s3-flavours", "orders", {ROLE + "app-reader": (5, 1, 4 * 123)}),
        ("13-copies/6-shared", "app-data", {"arn:aws:iam::444455556666:role/etl": (1, 0, 1000)}),
        # Of the call with a Data and a NetworkActivity record, the first one names the bucket.
        ("23-more-s3", "app-data", {ROLE + "app-reader": (3, 0, 3 * 123), "anonymous": (1, 0, 123)}),
    ],
)
def test_who_reads_most(ask: Ask, case: str, bucket: str, reads: dict[str, tuple[int, int, int]]) -> None:
    rows = ask(case, "Who reads most from this bucket?", (BUCKET, f"arn:aws:s3:::{bucket}"))
    assert {row["caller"]: (row["reads"], row["of_them_copies"], row["bytes_out"]) for row in rows} == reads


def test_who_does_what_with_a_bucket(ask: Ask) -> None:
    names = ("arn:aws:s3:::kelp-orders-lake", "arn:aws:s3:::orders")
    rows = ask("04-copy-read", "Who does what with this bucket, and from where?", names)
    assert {(row["caller"].removeprefix(ROLE), row["kind"], row["touch"], row["events"]) for row in rows} == {
        ("reader", "read", "target", 1),
        ("thief", "read", "source", 1),
        ("publisher", "write", "target", 1),
    }


def test_what_a_role_did_names_what_it_copied(ask: Ask) -> None:
    names = (("arn:aws:iam::400011112201:role/orders-etl-batch", ROLE + "thief"), ("2026-03-04", "2026-01-15"))
    rows = ask("04-copy-read", "What did this role do on that day?", *names)
    assert {(row["resource_arn"], row["touch"], row["events"], row["bytes_out"]) for row in rows} == {
        ("arn:aws:s3:::evil-bucket", "target", 1, 224),
        ("arn:aws:s3:::orders", "source", 1, 0),
    }


@pytest.mark.parametrize(
    ("case", "key"),
    [("02-identities", "a-anon"), ("23-more-s3", "x"), ("04-copy-read", None), ("21-placeholders", None)],
)
def test_what_anonymous_callers_read(ask: Ask, case: str, key: str | None) -> None:
    rows = ask(case, "What do anonymous callers read?")
    expected = [] if key is None else [("arn:aws:s3:::app-data", key, 1)]
    assert [(row["resource_arn"], row["object_key"], row["calls"]) for row in rows] == expected


def test_what_callers_of_other_accounts_do(ask: Ask) -> None:
    rows = ask("02-identities", "What do callers of other accounts do here?")
    callers = {row["caller"] for row in rows if row["principal_account"] == "444455556666"}
    assert callers == {"account:444455556666/AIDAEXAMPLEUSER0001", "account:444455556666/AROAEXAMPLEROLE0002"}
    (row,) = ask("13-copies/6-shared", "What do callers of other accounts do here?")
    assert (row["caller"], row["calls"]) == ("arn:aws:iam::444455556666:role/etl", 1)


def test_which_objects_were_deleted(ask: Ask) -> None:
    rows = ask("05-deleteobjects", "Which objects were deleted?")
    assert {row["object_key"] for row in rows} == {f"a/{number}.txt" for number in range(30)}
    assert len(rows) == 30 and {row["event_name"] for row in rows} == {"DeleteObject"}


def test_a_batch_whose_objects_are_not_logged_is_a_row(tmp_path: Path) -> None:
    """As in logs from before June 2025."""
    with lake_of("05-deleteobjects", tmp_path / "new") as lake:
        assert lake.export(tmp_path / "old.ndjson", where="event_name = 'DeleteObjects'") == 1
    with trailsift.Lake(tmp_path / "lake") as lake:
        lake.ingest(tmp_path / "old.ndjson")
        sql = RECIPES["Which objects were deleted?"].replace("2026-03", "2026-01").replace("2026-01-09", "2026-01-31")
        (row,) = lake.query(sql).dicts()
    assert (row["event_name"], row["object_key"]) == ("DeleteObjects", None)


def test_who_deletes_in_bulk(ask: Ask) -> None:
    (row,) = ask("05-deleteobjects", "Who deletes in bulk?")
    assert (row["caller"], row["deletes"], row["batches"], row["objects"]) == (ROLE + "cleaner", 30, 1, 30)


@pytest.mark.parametrize(
    ("case", "caller", "bytes_out", "logged"),
    [
        ("13-copies/6-shared", "arn:aws:iam::444455556666:role/etl", 1000, 2000),
        ("04-copy-read", ROLE + "thief", 224, 224),
        ("23-more-s3", ROLE + "app-reader", 5 * 123, 5 * 123),
    ],
)
def test_how_many_bytes_left(ask: Ask, case: str, caller: str, bytes_out: int, logged: int) -> None:
    rows = ask(case, "How many bytes left, per caller and day?")
    found = {row["caller"]: (row["bytes_out"], row["bytes_logged"]) for row in rows}
    assert found[caller] == (bytes_out, logged)


def test_how_many_bytes_left_with_the_log_of_one_account(tmp_path: Path) -> None:
    for account in ("111122223333", "444455556666"):
        with lake_of("13-copies/6-shared", tmp_path / account) as both:
            both.export(tmp_path / f"{account}.ndjson", where=f"account_id = '{account}'")
        with trailsift.Lake(tmp_path / f"{account}.lake") as lake:
            lake.ingest(tmp_path / f"{account}.ndjson")
            sql = RECIPES["How many bytes left, per caller and day?"].replace("2026-03", "2026-01")
            (row,) = lake.query(sql).dicts()
        assert (row["bytes_out"], row["bytes_logged"]) == (1000, 1000)


@pytest.mark.parametrize(
    ("case", "counts"),
    [
        ("13-copies/6-shared", (2, 1, 0)),
        ("23-more-s3", (7, 6, 1)),
        ("05-deleteobjects", (31, 31, 0)),
        ("02-identities", (17, 17, 0)),
    ],
)
def test_records_and_calls(ask: Ask, case: str, counts: tuple[int, int, int]) -> None:
    (row,) = ask(case, "One call, several records")
    assert (row["records"], row["calls"], row["network_activity"]) == counts


def test_calls_by_hour_are_told_apart_by_category(ask: Ask) -> None:
    times = (("2026-03-03", "2026-01-15"), ("2026-03-04", "2026-01-16"))
    rows = ask("23-more-s3", "How many calls, hour by hour?", *times)
    assert {(row["service"], row["category"], row["events"]) for row in rows} == {
        ("s3", "Data", 4),
        ("s3", "NetworkActivity", 1),
        ("s3express", "Data", 2),
    }


@pytest.mark.parametrize(("case", "denied"), [("07-denied-codes", 61), ("16-detect/vpce-denied-burst", 60)])
def test_refusals_by_the_policy_of_an_endpoint(ask: Ask, case: str, denied: int) -> None:
    rows = ask(case, "Which callers are denied, and what?")
    assert sum(row["denied"] for row in rows if row["category"] == "NetworkActivity") == denied
