"""AWS prices: one file of prices, each with its date and source, which a user's own file can override."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from trailsift.errors import UsageError

#: Environment variable with the path of the user's own prices.
VARIABLE = "TRAILSIFT_PRICES"
#: Bytes that Athena charges for at least, per query.
ATHENA_LEAST = 10_000_000
#: Days of the month for which costs are reported.
MONTH = 30


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for ``per`` units; the day on which it was looked up, and the page."""

    usd: float
    per: float
    unit: str
    date: str
    source: str

    def of(self, count: float) -> float:
        """Return the dollars for ``count`` units."""
        return self.usd * count / self.per


def load_prices(file: Path | None = None) -> dict[str, Price]:
    """Return all prices by name; those in ``file``, or in the file that TRAILSIFT_PRICES names, override ours.

    Raise UsageError if that file cannot be used.
    """
    shipped = tomllib.loads(resources.files(__package__).joinpath("prices.toml").read_text("utf-8"))
    prices = {name: Price(**entry) for name, entry in shipped.items()}
    if file is None and os.environ.get(VARIABLE):
        file = Path(os.environ[VARIABLE])
    if file is None:
        return prices
    try:
        own: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the prices in {file} cannot be read: {error}") from error
    for name, entry in own.items():
        if name not in prices:
            raise UsageError(f"{file}: unknown price {name}: use {', '.join(prices)}")
        values = {"per": prices[name].per} | entry if isinstance(entry, dict) else {}
        if not all(_is_price(values.get(key)) for key in ("usd", "per")) or not values["per"]:
            raise UsageError(f"{file}: {name} needs usd and per as numbers, such as {{ usd = 0.10, per = 100000 }}")
        date, source = str(values.get("date", "")), str(values.get("source", file))
        prices[name] = Price(values["usd"], values["per"], prices[name].unit, date, source)
    return prices


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def athena_cost(prices: dict[str, Price], scanned: float) -> float:
    """Return the dollars for one Athena query that scans ``scanned`` bytes."""
    return prices["athena_scan"].of(max(scanned, ATHENA_LEAST))
