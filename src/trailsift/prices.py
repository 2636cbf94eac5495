"""AWS prices by region: one file of prices, each with its date and source, which a user's own file can override.

A price that is not known is missing, never guessed: ``prices.get(name)`` is None then, and ``prices[name]`` raises
UsageError.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Any

from trailsift.errors import UsageError
from trailsift.safe_text import safe

#: Environment variable with the path of the user's own prices.
VARIABLE = "TRAILSIFT_PRICES"
#: The region whose prices are meant unless another one is named.
REGION = "us-east-1"
#: Bytes that Athena charges for at least, per query.
ATHENA_LEAST = 10_000_000
#: Days of the month for which costs are reported.
MONTH = 30

_ALL, _UNIT = "all", "unit"
_REGION = re.compile(r"[a-z]{2,5}(-[a-z]+){1,2}-\d{1,2}")
#: Beginnings of regions that the pages behind ``[all]`` do not speak of.
_APART = ("cn-", "us-gov-", "us-iso", "eu-iso", "eusc-")


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


class Prices(dict[str, Price]):
    """The known prices of one region, by name. Of an unknown one, ``[]`` raises UsageError and ``get`` returns None."""

    def __init__(self, listed: Mapping[str, Mapping[str, Price]], region: str = REGION) -> None:
        """``listed``: region or ``all`` -> name -> price."""
        general = {} if region.startswith(_APART) else listed[_ALL]
        super().__init__({**general, **listed.get(region, {})})
        self.region = region
        self._listed = listed

    def __missing__(self, name: str) -> Price:
        raise UsageError(
            f"the price {name} is not known for the region {safe(self.region)}: give one with --prices, in a table "
            f"[{safe(self.region)}]"
        )

    def of_region(self, region: str | None) -> Prices:
        """Return the prices of another region; None (of events that name no region): those of ``REGION``."""
        return Prices(self._listed, region or REGION)

    def usd(self, name: str, count: float) -> float | None:
        """Return the dollars for ``count`` units of a price; None if it is not known."""
        found = self.get(name)
        return None if found is None else found.of(count)


def known_regions() -> tuple[str, ...]:
    """Return the regions of which more prices are known than those of all regions, us-east-1 first."""
    return tuple(place for place in _shipped() if place not in (_ALL, _UNIT))


def _shipped() -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("prices.toml").read_text("utf-8"))


def load_prices(file: Path | None = None, region: str = REGION) -> Prices:
    """Return the prices of a region; those in ``file``, or in the file that TRAILSIFT_PRICES names, override ours.

    Raise UsageError if that file cannot be used.
    """
    shipped = _shipped()
    units: dict[str, dict[str, Any]] = shipped.pop(_UNIT)
    listed = {
        place: {name: Price(**units[name], **entry) for name, entry in entries.items()}
        for place, entries in shipped.items()
    }
    if file is None and os.environ.get(VARIABLE):
        file = Path(os.environ[VARIABLE])
    if file is not None:
        blank = {name: Price(0.0, unit["per"], unit["unit"], "", str(file)) for name, unit in units.items()}
        general, own = _own_prices(file, blank)
        listed = {place: {**entries, **general} for place, entries in listed.items()}
        listed |= {place: listed.get(place, {}) | entries for place, entries in own.items()}
    return Prices(listed, region)


def _own_prices(file: Path, blank: dict[str, Price]) -> tuple[dict[str, Price], dict[str, dict[str, Price]]]:
    """Return the prices of a user's file: those for all regions, and those by region. Raise UsageError."""
    try:
        own: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"the prices in {file} cannot be read: {error}") from error
    general: dict[str, Price] = {}
    by_region: dict[str, dict[str, Price]] = {}
    for name, entry in own.items():
        if name in blank:
            general[name] = _own_price(file, name, entry, blank[name])
        elif _REGION.fullmatch(name) and isinstance(entry, dict):
            by_region[name] = {}
            for inner, value in entry.items():
                if inner not in blank:
                    raise _unknown(file, f"{name}.{inner}", blank)
                by_region[name][inner] = _own_price(file, f"{name}.{inner}", value, blank[inner])
        else:
            raise _unknown(file, name, blank)
    return general, by_region


def _unknown(file: Path, name: str, known: Mapping[str, Price]) -> UsageError:
    return UsageError(
        f"{file}: unknown price {safe(name)}: use {', '.join(known)}; or a table of a region with them, such as "
        "[ap-northeast-2]"
    )


def _own_price(file: Path, name: str, entry: object, blank: Price) -> Price:
    values = {"per": blank.per} | entry if isinstance(entry, dict) else {}
    wrong = sorted(map(str, values.keys() - {"usd", "per", "unit", "date", "source"}))
    if wrong:
        raise UsageError(f"{file}: {safe(name)} has no {safe(wrong[0])}: it takes usd, per, unit, date and source")
    if not all(_is_price(values.get(key)) for key in ("usd", "per")) or not values["per"]:
        raise UsageError(f"{file}: {safe(name)} needs usd and per as numbers, such as {{ usd = 0.10, per = 100000 }}")
    date, source = safe(str(values.get("date", ""))), safe(str(values.get("source", file)))
    return replace(blank, usd=float(values["usd"]), per=float(values["per"]), date=date, source=source)


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0


def athena_cost(prices: Mapping[str, Price], scanned: float) -> float | None:
    """Return the dollars for one Athena query that scans ``scanned`` bytes; None if the price is not known."""
    price = prices.get("athena_scan")
    return None if price is None else price.of(max(scanned, ATHENA_LEAST))
