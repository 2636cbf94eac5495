"""Which resource a person means: an ARN, ``s3://bucket``, a bucket's or a table's name, or a part of it."""

from __future__ import annotations

import difflib

from trailsift.analysis.base import ask, tuple_of
from trailsift.errors import UsageError
from trailsift.query.engine import Engine

#: The line of resources that a summary folded together.
FOLDED = "(other)"
_SHOWN = 5


def find_resource(engine: Engine, name: str) -> str:
    """Return the ARN of the resource that a name refers to.

    Raise UsageError, with the nearest names, if it refers to none or several.
    """
    sql = (
        f"SELECT resource_arn FROM usage WHERE resource_arn IS NOT NULL AND resource_arn <> '{FOLDED}' "
        "GROUP BY resource_arn ORDER BY sum(events) DESC, resource_arn"
    )
    return choose_resource(name, [row[0] for row in ask(engine, tuple_of, sql)])


def choose_resource(name: str, resources: list[str]) -> str:
    """``find_resource`` without the lake; ``resources`` are all, the busiest first."""
    wanted = name.strip()
    if wanted.lower().startswith("s3://"):
        wanted = "arn:aws:s3:::" + wanted[5:].strip("/")
    if wanted in resources:
        return wanted
    folded = wanted.lower()
    tests = (
        lambda arn: arn.lower() == folded,
        lambda arn: short(arn).lower() == folded,
        # A bucket, `table/orders`, `function:resize`; then `orders`, `resize`.
        lambda arn: _last_part(arn).lower() == folded,
        lambda arn: _last_word(arn).lower() == folded,
        lambda arn: folded in arn.lower(),
    )
    for test in tests if folded else ():
        hits = [arn for arn in resources if test(arn)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            more = f" and {len(hits) - _SHOWN:,} more" if len(hits) > _SHOWN else ""
            listed = ", ".join(hits[:_SHOWN])
            raise UsageError(f"{name!r} matches {len(hits):,} resources: {listed}{more}. Name one of them")
    raise UsageError(f"no resource {name!r} in the lake: {_hint(folded, resources)}")


def short(arn: str) -> str:
    """Return a resource with its service, without region and account."""
    parts = arn.split(":", 5)
    return f"{parts[2]}:{parts[5]}" if len(parts) == 6 else arn


def _last_part(arn: str) -> str:
    parts = arn.split(":", 5)
    return parts[5] if len(parts) == 6 else arn


def _last_word(arn: str) -> str:
    return _last_part(arn).replace("/", ":").rpartition(":")[2]


def _hint(folded: str, resources: list[str]) -> str:
    if not resources:
        return "its events name none"
    by_name: dict[str, str] = {}
    for arn in reversed(resources):
        by_name[_last_word(arn).lower()] = by_name[_last_part(arn).lower()] = arn
    near = difflib.get_close_matches(folded[:200], list(by_name)[-20_000:], 3, 0.5)
    if near:
        return f"nearest: {', '.join(dict.fromkeys(by_name[hit] for hit in near))}"
    return f"the busiest are {', '.join(resources[:3])}; `trailsift summary --by resource` lists all"
