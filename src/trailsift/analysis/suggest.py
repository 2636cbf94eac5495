"""Which events a lake could do without: the few lines of the summaries that make most of the volume and change least.

A line is one role doing one thing to one kind of object key in one resource. What comes in the same number every day
says little one event at a time; each such line is told as a rule that can be put into a rules file as it is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from trailsift.analysis.base import ask, tuple_of
from trailsift.errors import RulesError, UsageError
from trailsift.prices import MONTH, Price
from trailsift.query.engine import Engine
from trailsift.rules import parse

#: Share of a line that a suggested rule keeps.
RATE = 0.01
_PLACEHOLDER = re.compile(r"\{[a-z0-9_]+\}")
_STARS = re.compile(r"\*[* ]*\*")


class Suggestion(NamedTuple):
    """One line, and the rule for it.

    ``share`` of all events; ``variation``: standard deviation over mean of the events a day, None for a single day;
    ``keys``: distinct object keys of role, action and resource, of which most would be gone; ``writes``: whether the
    calls change something. Dollars are for a month: what the trail charges for the line, if its selectors left it out.
    """

    rule: str
    role_arn: str | None
    service: str | None
    event_name: str | None
    resource_arn: str | None
    key_pattern: str | None
    events: int
    share: float
    not_stored: int
    bytes_out: int
    variation: float | None
    keys: int
    writes: bool
    usd_trail: float


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What could be sampled, the largest and steadiest first, out of ``total`` events of ``days`` days."""

    total: int
    days: int
    lines: tuple[Suggestion, ...]

    @property
    def saved(self) -> int:
        """Events that all suggestions together would not store."""
        return sum(line.not_stored for line in self.lines)

    @property
    def toml(self) -> str:
        """All rules as one rules file."""
        return "\n".join(line.rule for line in self.lines)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "events": self.total,
            "days": self.days,
            "not_stored": self.saved,
            "suggestions": [line._asdict() for line in self.lines],
        }


_SQL = """
WITH daily AS (
    SELECT role_arn, service, event_name, resource_arn, key_pattern, day,
           sum(events) AS events, sum(bytes_out) AS bytes_out
    FROM usage WHERE error_code IS NULL AND resource_arn IS DISTINCT FROM '(other)'
    GROUP BY ALL
), span AS (
    SELECT count(DISTINCT day) AS days, sum(events) AS total FROM usage
), lines AS (
    SELECT role_arn, service, event_name, resource_arn, key_pattern, sum(events) AS n, sum(bytes_out) AS b,
           sum(events::DOUBLE ** 2) AS squares
    FROM daily GROUP BY ALL
), kinds AS (
    SELECT role_arn, service, event_name, resource_arn, bool_or(read_only IS NOT TRUE) AS writes,
           distinct_count(merge_sketches(list(object_keys))) AS keys
    FROM hourly WHERE error_code IS NULL GROUP BY ALL
), siblings AS (
    SELECT role_arn, service, event_name, resource_arn, count(*) AS patterns FROM lines GROUP BY ALL
)
SELECT l.role_arn, l.service, l.event_name, l.resource_arn, l.key_pattern, n::BIGINT, coalesce(b, 0)::BIGINT,
       CASE WHEN days > 1 THEN sqrt(greatest(squares / days - (n / days) ** 2, 0)) / (n / days) END AS variation,
       coalesce(keys, 0), coalesce(writes, true), patterns, days, total::BIGINT
FROM lines l CROSS JOIN span
LEFT JOIN kinds k ON l.role_arn IS NOT DISTINCT FROM k.role_arn AND l.service IS NOT DISTINCT FROM k.service
    AND l.event_name IS NOT DISTINCT FROM k.event_name AND l.resource_arn IS NOT DISTINCT FROM k.resource_arn
LEFT JOIN siblings s ON l.role_arn IS NOT DISTINCT FROM s.role_arn AND l.service IS NOT DISTINCT FROM s.service
    AND l.event_name IS NOT DISTINCT FROM s.event_name AND l.resource_arn IS NOT DISTINCT FROM s.resource_arn
WHERE n >= total * 0.001
ORDER BY n / (1 + coalesce(variation, 1)) DESC, l.role_arn, l.event_name, l.resource_arn, l.key_pattern
"""


def suggest(engine: Engine, prices: dict[str, Price], limit: int = 10) -> Suggestions:
    """The ``limit`` lines that make most of the volume and change least (0: all above a thousandth of it)."""
    if limit < 0:
        raise UsageError(f"--limit {limit} is negative: use 0 for all lines")
    found = ask(engine, tuple_of, _SQL)
    if not found:
        return Suggestions(0, 0, ())
    days, total = found[0][-2:]
    lines: list[Suggestion] = []
    text = ""
    for role, service, name, resource, pattern, events, bytes_out, variation, keys, writes, patterns, _, _ in found:
        names = (role, service, name, resource, pattern)
        rule = _rule(len(lines) + 1, names, patterns > 1)
        try:
            parse(text + rule, "suggestion")
        except RulesError:
            # An earlier suggestion takes all of it, or a name that no rule can say.
            continue
        text += rule + "\n"
        trail = prices["data_events"].of(events * MONTH / days)
        lines.append(
            Suggestion(
                rule,
                role,
                service,
                name,
                resource,
                pattern,
                events,
                events / total,
                round(events * (1 - RATE)),
                bytes_out,
                None if variation is None else round(variation, 3),
                keys,
                writes,
                round(trail, 2),
            )
        )
        if limit and len(lines) == limit:
            break
    return Suggestions(total, days, tuple(lines))


def _rule(number: int, names: tuple[str | None, ...], by_key: bool) -> str:
    role, service, event_name, resource, pattern = names
    told = {"service": service, "event_name": event_name, "role": role, "resource": resource}
    when = {name: value or "" for name, value in told.items()}
    if pattern is not None:
        when["object_key"] = _STARS.sub("*", _PLACEHOLDER.sub("*", pattern))
    elif by_key:
        when["object_key"] = ""
    conditions = ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in when.items())
    return (
        f"[[rule]]\nname = {json.dumps(f'suggested {number}: {event_name}')}\n"
        f'when = {{ {conditions} }}\naction = "sample"\nrate = {RATE}\n'
    )
