"""Prices by region: known or said to be unknown, each with a day and a source, and overridden by a user's own file."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest

import trailsift
from trailsift.cli import main
from trailsift.deploy.regions import REGIONS
from trailsift.errors import UsageError
from trailsift.prices import REGION, known_regions, load_prices


def test_every_price_has_a_day_and_a_page() -> None:
    names = set(load_prices())
    assert known_regions()[:2] == (REGION, "ap-northeast-2") and set(known_regions()) <= set(REGIONS)
    for region in known_regions():
        prices = load_prices(region=region)
        assert set(prices) <= names
        for name, price in prices.items():
            assert price.usd > 0 and price.per >= 1, (region, name)
            assert re.fullmatch(r"https://aws\.amazon\.com/[a-z0-9]+/pricing/( \([\w:-]+\))?", price.source), name
            assert date(2025, 1, 1) < date.fromisoformat(price.date) <= date(2026, 11, 30), (region, name)


def test_what_a_million_events_cost_on_each_path() -> None:
    """By a trail and a log group $1.75, directly $1.13, as AWS's own example; the stream is what this one adds."""
    prices = load_prices()
    size = 1_500 * 1e6
    trail = prices["data_events"].of(1e6)
    assert trail + prices["logs_ingestion"].of(size) == pytest.approx(1.75)
    assert prices["direct_delivery"].of(size) + prices["logs_ingestion"].of(size) == pytest.approx(1.125)
    assert prices["firehose_ingestion"].of(1e9) == pytest.approx(0.029)


def test_a_price_that_is_not_known_is_never_a_guess() -> None:
    prices = load_prices()
    seoul = prices.of_region("ap-northeast-2")
    assert seoul["logs_ingestion"].of(1e9) == pytest.approx(0.76) and seoul.usd("data_events", 1e5) == 0.1
    assert seoul.usd("firehose_ingestion", 1e9) is None and "firehose_ingestion" not in seoul
    with pytest.raises(UsageError, match="firehose_ingestion is not known for the region ap-northeast-2"):
        seoul["firehose_ingestion"]
    for region in ("cn-north-1", "us-gov-west-1", "us-iso-east-1", "eusc-de-east-1"):
        assert not prices.of_region(region)
    assert set(prices.of_region("il-central-1")) == {"data_events", "management_copies", "data_insights"}
    assert prices.of_region(None) == prices, "events without a region"


def test_own_prices_by_region(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(
        "data_events = { usd = 0.08 }\n[ap-northeast-2]\nathena_scan = { usd = 4 }\ndata_events = { usd = 0.07 }\n"
        '[cn-north-1]\ndata_events = { usd = 0.2, per = 1000, date = "2026-01-01" }\n'
    )
    prices = load_prices(own)
    assert prices["data_events"].usd == 0.08 and prices["data_events"].source == str(own)
    seoul = prices.of_region("ap-northeast-2")
    assert (seoul["data_events"].usd, seoul["athena_scan"].of(1e12)) == (0.07, 4.0)
    assert seoul["storage_month"].source.startswith("https://")
    assert prices.of_region("eu-west-3")["data_events"].usd == 0.08
    china = prices.of_region("cn-north-1")
    assert (china.usd("data_events", 1000), china["data_events"].date) == (0.2, "2026-01-01")
    assert not prices.of_region("cn-northwest-1"), "a price for all regions is not one for China"


WRONG = {
    "data_event = { usd = 1 }": "unknown price data_event",
    "[ap-northeast-2]\nathena = { usd = 1 }": r"unknown price ap-northeast-2\.athena",
    "[seoul]\nathena_scan = { usd = 1 }": "unknown price seoul",
    "data_events = { usd = 1, currency = 'EUR' }": "has no currency",
    "data_events = { usd = '1' }": "needs usd and per as numbers",
    "data_events = { usd = nan }": "needs usd and per as numbers",
    "data_events = { usd = -0.1 }": "needs usd and per as numbers",
    "data_events = { usd = 1, per = 0 }": "needs usd and per as numbers",
    "data_events = [1]": "needs usd and per as numbers",
    "data_events = { usd = ": "cannot be read",
    "[ap-northeast-2": "cannot be read",
    '"\\u001b[31m" = 1': r"unknown price \\u001b",
    "a = " + "[" * 2000: "cannot be read",
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_a_file_with_an_error_is_explained(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(text)
    with pytest.raises(UsageError, match=WRONG[text]):
        load_prices(own)
    assert main(["rules", "try", "time-of-day", str(tmp_path), "--prices", str(own)]) == 2
    said = capsys.readouterr().err
    assert str(own) in said and "Traceback" not in said and "\x1b" not in said


def test_a_selection_in_regions_without_a_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Dollars are of the regions whose price is known; the others are named."""

    def record(number: int, region: str) -> dict[str, object]:
        return {
            "eventVersion": "1.11", "eventID": str(number), "eventTime": "2026-01-15T10:00:00Z",
            "eventSource": "s3.amazonaws.com", "eventName": "GetObject", "awsRegion": region, "readOnly": True,
            "recipientAccountId": "1" * 12, "eventCategory": "Data",
            "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111111111111:user/a"},
            "resources": [{"type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::b"}],
        }  # fmt: skip

    words = ["selectors", "--role", "arn:aws:iam::111111111111:user/a", "--lake"]
    for name, regions, said in (
        ("both", ("us-east-1", "cn-north-1"), "without cn-north-1, whose price is not known"),
        ("china", ("cn-north-1",), "price not known"),
    ):
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({"Records": [record(n, region) for n, region in enumerate(regions * 5)]}))
        with trailsift.Lake(tmp_path / name) as lake:
            lake.ingest(file)
        assert main([*words, str(tmp_path / name)]) == 0
        text = capsys.readouterr().err
        assert said in text and (re.search(r"per month, \$\d", text) is not None) == (name == "both")
