"""What is typical of a kind of caller in an hour, as data (``priors.toml``), and which kind a caller is.

The numbers are upper limits of the ordinary; the file says where each comes from.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np

from trailsift.cloudtrail.callers import ANONYMOUS, is_arn
from trailsift.detect.baseline import BURSTS, Column
from trailsift.errors import UsageError

#: Kinds of callers, as in the file.
CALLER_KINDS = ("person", "user", "role", "service", "foreign", "anonymous")
_PERSON_ROLES = ("AWSReservedSSO_",)


@cache
def priors() -> Column:
    """Return the upper limit of what is typical in an hour: a row per kind of caller, a column per measure."""
    return parse_priors(resources.files("trailsift.detect").joinpath("priors.toml").read_text("utf-8"))


def priors_of(kind: int, measures: Sequence[str]) -> Column:
    """Return the upper limits of some measures for one kind of caller."""
    out: Column = priors()[kind, [BURSTS.index(measure) for measure in measures]]
    return out


def parse_priors(text: str) -> Column:
    """Return the numbers of a file of priors. Raise UsageError if one is missing, unknown, not positive or has no
    source."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the priors are not valid TOML: {error}") from error
    unknown = [name for name in tables if name not in CALLER_KINDS]
    if unknown:
        raise UsageError(f"the priors have an unknown kind of caller {unknown[0]}: use {', '.join(CALLER_KINDS)}")
    out = np.zeros((len(CALLER_KINDS), len(BURSTS)))
    for row, kind in enumerate(CALLER_KINDS):
        table = tables.get(kind, {})
        if not isinstance(table, dict) or set(table) != set(BURSTS):
            raise UsageError(f"the priors of {kind} need exactly these measures: {', '.join(BURSTS)}")
        for column, measure in enumerate(BURSTS):
            out[row, column] = _most(kind, measure, table[measure])
    return out


def _most(kind: str, measure: str, entry: object) -> float:
    most = entry.get("most") if isinstance(entry, dict) else None
    source = entry.get("source") if isinstance(entry, dict) else None
    if isinstance(most, bool) or not isinstance(most, int | float) or not math.isfinite(most) or most <= 0:
        raise UsageError(f"the prior {kind}.{measure} needs most, a positive number")
    if not isinstance(source, str) or not source.strip():
        raise UsageError(f"the prior {kind}.{measure} needs source, a sentence that says where the number comes from")
    return float(most)


def kind_of(caller: str | None, *, foreign: bool = False) -> int:
    """Return the kind of a caller, an index into CALLER_KINDS. ``foreign``: its account is another one's."""
    return CALLER_KINDS.index(_kind(caller or "", foreign))


def _kind(caller: str, foreign: bool) -> str:
    if caller == ANONYMOUS or caller.startswith(f"{ANONYMOUS}@"):
        return "anonymous"
    if caller.startswith("service:"):
        return "service"
    if foreign:
        return "foreign"
    if is_arn(caller):
        resource = caller.split(":", 5)[-1]
        if resource.startswith("role/"):
            name = resource.rpartition("/")[2]
            return "person" if name.startswith(_PERSON_ROLES) else "role"
        return "user" if resource.startswith("user/") else "person"
    if caller.startswith(("identity-center:", "federated:")):
        return "person"
    return "user"
