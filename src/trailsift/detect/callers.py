"""Callers in findings: who has habits, what reports of earlier versions called them, and how SQL asks for them."""

from __future__ import annotations

from collections.abc import Iterable

from trailsift.analysis.caller_names import has_no_arn
from trailsift.cloudtrail.callers import ANONYMOUS, NONE, is_arn
from trailsift.query.relations import text


def is_nobody(caller: str | None) -> bool:
    """Return whether a caller is all whom the records do not name: many, with no common habits.

    In lakes of format version 1, None is all callers without an ARN.
    """
    return caller is None or caller == NONE


def is_one(caller: str | None) -> bool:
    """Return whether a caller is one person or program, as far as anyone knows: neither nobody nor the public."""
    return not is_nobody(caller) and caller != ANONYMOUS


def role_of(caller: str | None) -> str | None:
    """Return what earlier versions called a caller: the ARN, the name of a service, or None."""
    if caller is None or is_arn(caller):
        return caller
    if caller.startswith("service:"):
        return caller.removeprefix("service:")
    return None if has_no_arn(caller) else caller


def condition_of(callers: Iterable[str | None]) -> str:
    """Return the SQL condition for some callers.

    In lakes of format version 1, and in what users' own detections return as ``role_arn``, there are names and nulls
    that are no callers: in these, ``role_arn`` is compared, which is the same there.
    """
    own: dict[str, list[str]] = {"caller": [], "role_arn": []}
    nulls = False
    for caller in callers:
        if caller is None:
            nulls = True
        else:
            own["caller" if is_arn(caller) or has_no_arn(caller) else "role_arn"].append(text(caller))
    parts = [
        f"{column} = {names[0]}" if len(names) == 1 else f"{column} IN ({', '.join(names)})"
        for column, names in own.items()
        if names
    ]
    if nulls:
        parts.append("role_arn IS NULL")
    return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"
