"""What AWS charges: one file of prices, each with its date and its source, and a user's own in its place."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from trailsift.errors import UsageError

#: Names a file with the user's own prices.
VARIABLE = "TRAILSIFT_PRICES"
#: Bytes that Athena charges for at least, a query.
ATHENA_LEAST = 10_000_000
#: Days of a month in which costs are told.
MONTH = 30


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for ``per`` units; when it was looked up, and where."""

    usd: float
    per: float
    unit: str
    date: str
    source: str

    def of(self, count: float) -> float:
        """Dollars for so many units."""
        return self.usd * count / self.per


def prices(file: Path | None = None) -> dict[str, Price]:
    """All prices by name; in place of ours those of ``file``, or of the file that TRAILSIFT_PRICES names.

    UsageError where that file cannot be used.
    """
    shipped = tomllib.loads(resources.files(__package__).joinpath("prices.toml").read_text("utf-8"))
    known = {name: Price(**given) for name, given in shipped.items()}
    if file is None and os.environ.get(VARIABLE):
        file = Path(os.environ[VARIABLE])
    if file is None:
        return known
    try:
        own: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the prices in {file} cannot be read: {error}") from error
    for name, given in own.items():
        if name not in known:
            raise UsageError(f"{file}: there is no price {name}: there are {', '.join(known)}")
        numbers = {"per": known[name].per} | given if isinstance(given, dict) else {}
        if not all(_is_price(numbers.get(key)) for key in ("usd", "per")) or not numbers["per"]:
            raise UsageError(f"{file}: {name} needs usd and per as numbers, such as {{ usd = 0.10, per = 100000 }}")
        date, source = str(numbers.get("date", "")), str(numbers.get("source", file))
        known[name] = Price(numbers["usd"], numbers["per"], known[name].unit, date, source)
    return known


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def athena(known: dict[str, Price], scanned: float) -> float:
    """Dollars of one Athena query that scans so many bytes."""
    return known["athena_scan"].of(max(scanned, ATHENA_LEAST))
