"""What AWS asks for, from one data file (``prices.toml``), overridable by the user."""

from __future__ import annotations

import os
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

from trailsift.errors import UsageError

#: Names a file with the user's own prices.
VARIABLE = "TRAILSIFT_PRICES"


def price(name: str) -> float:
    """US dollars for one unit. UsageError where the user's file cannot be used."""
    entry = _table(os.environ.get(VARIABLE, ""))[name]
    return float(entry["usd"]) / float(entry["per"])


@lru_cache(maxsize=4)
def _table(own: str) -> dict[str, dict[str, Any]]:
    known = tomllib.loads(Path(__file__).with_name("prices.toml").read_text("utf-8"))
    if not own:
        return known
    try:
        given = tomllib.loads(Path(own).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"the prices in {own} ({VARIABLE}) cannot be read: {error}") from error
    for name, entry in given.items():
        if name not in known:
            raise UsageError(f"{own}: there is no price {name!r}: there are {', '.join(known)}")
        numbers = {**known[name], **entry} if isinstance(entry, dict) else {}
        if not all(isinstance(numbers.get(key), int | float) and numbers[key] >= 0 for key in ("usd", "per")):
            raise UsageError(f"{own}: [{name}] needs usd and per as numbers")
        known[name] = numbers
    return known
