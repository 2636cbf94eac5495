"""What AWS charges: one file of prices, each with its date and its source, and a user's own in its place."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from trailsift.errors import UsageError

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
    """All prices by name, those of ``file`` in place of ours. UsageError where that file cannot be used."""
    shipped = tomllib.loads(resources.files(__package__).joinpath("prices.toml").read_text("utf-8"))
    known = {name: Price(**given) for name, given in shipped.items()}
    if file is None:
        return known
    try:
        own: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the prices in {file} cannot be read: {error}") from error
    for name, given in own.items():
        if name not in known:
            raise UsageError(f"{file}: there is no price {name}: there are {', '.join(known)}")
        try:
            known[name] = Price(**({"date": "", "source": str(file), "unit": known[name].unit} | given))
        except TypeError as error:
            raise UsageError(f"{file}: {name} needs usd and per: {error}") from error
    return known


def athena(known: dict[str, Price], scanned: float) -> float:
    """Dollars of one Athena query that scans so many bytes."""
    return known["athena_scan"].of(max(scanned, ATHENA_LEAST))
