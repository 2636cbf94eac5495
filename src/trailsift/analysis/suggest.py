"""Suggest rules: the few rows of the summaries that make up most of the volume and vary least.

A row is one caller with one action on one pattern of object keys in one resource. If their number is the same every
day, single events carry little information. Each such row becomes a rule that can be copied into a rules file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from trailsift.analysis.base import ask, tuple_of
from trailsift.analysis.caller_names import UNKNOWN, has_no_arn
from trailsift.errors import RulesError, UsageError
from trailsift.prices import MONTH, Price
from trailsift.query.engine import Engine
from trailsift.query.json_objects import JsonObject
from trailsift.rules import parse
from trailsift.rules.globs import literal
from trailsift.rules.parser import NAME_LIMIT
from trailsift.safe_text import safe, safe_toml

#: Share of the events that a suggested rule keeps.
RATE = 0.01


class RuleSuggestion(NamedTuple):
    """One row of the summaries, and the rule for it.

    ``share`` of all events; ``variation``: standard deviation over mean of the events per day, None for a single day;
    ``keys``: distinct object keys of caller, action and resource, most of which would no longer appear; ``writes``:
    whether the calls change something. ``usd_trail``: what the trail charges per month for these events, and would
    not if its selectors excluded them.
    """

    rule: str
    caller: str | None
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
class Suggestions(JsonObject):
    """Rows that could be sampled, the largest and steadiest first, out of ``total`` events in ``days`` days."""

    total: int
    days: int
    lines: tuple[RuleSuggestion, ...]

    JSON: ClassVar[dict[str, str]] = {
        "events": "total",
        "days": "days",
        "not_stored": "saved",
        "suggestions": "lines",
    }

    @property
    def saved(self) -> int:
        """Events that all suggestions together would not store."""
        return sum(line.not_stored for line in self.lines)

    @property
    def toml(self) -> str:
        """All rules as one rules file."""
        return "\n".join(line.rule for line in self.lines)


_SQL = """
WITH targets AS (
    SELECT * FROM usage WHERE touch = 'target'
), daily AS (
    SELECT caller, service, event_name, resource_arn, key_pattern, day, min(role_arn) AS role_arn,
           sum(events) AS events, sum(bytes_out) AS bytes_out
    FROM targets WHERE error_code IS NULL AND resource_arn IS DISTINCT FROM '(other)'
        AND key_pattern IS DISTINCT FROM '(other)'
    GROUP BY caller, service, event_name, resource_arn, key_pattern, day
), span AS (
    SELECT count(DISTINCT day) AS days, sum(events) AS total FROM targets
), lines AS (
    SELECT caller, service, event_name, resource_arn, key_pattern, min(role_arn) AS role_arn, sum(events) AS n,
           sum(bytes_out) AS b, sum(events::DOUBLE ** 2) AS squares
    FROM daily GROUP BY caller, service, event_name, resource_arn, key_pattern
), large AS (
    SELECT DISTINCT caller, service, event_name, resource_arn FROM lines WHERE n >= (SELECT total FROM span) * 0.001
), kinds AS (
    SELECT caller, service, event_name, resource_arn, bool_or(read_only IS NOT TRUE) AS writes,
           distinct_count(merge_sketches(list(object_keys))) AS keys
    FROM hourly h WHERE error_code IS NULL AND category IS DISTINCT FROM 'Insight' AND EXISTS (
        SELECT 1 FROM large l WHERE l.caller IS NOT DISTINCT FROM h.caller
            AND l.service IS NOT DISTINCT FROM h.service AND l.event_name IS NOT DISTINCT FROM h.event_name
            AND l.resource_arn IS NOT DISTINCT FROM h.resource_arn)
    GROUP BY ALL
), siblings AS (
    SELECT caller, service, event_name, resource_arn, count(*) AS patterns FROM lines GROUP BY ALL
)
SELECT l.caller, l.role_arn, l.service, l.event_name, l.resource_arn, l.key_pattern, n::BIGINT, coalesce(b, 0)::BIGINT,
       CASE WHEN days > 1 THEN sqrt(greatest(squares / days - (n / days) ** 2, 0)) / (n / days) END AS variation,
       coalesce(keys, 0), coalesce(writes, true), patterns, days, total::BIGINT
FROM lines l CROSS JOIN span
LEFT JOIN kinds k ON l.caller IS NOT DISTINCT FROM k.caller AND l.service IS NOT DISTINCT FROM k.service
    AND l.event_name IS NOT DISTINCT FROM k.event_name AND l.resource_arn IS NOT DISTINCT FROM k.resource_arn
LEFT JOIN siblings s ON l.caller IS NOT DISTINCT FROM s.caller AND l.service IS NOT DISTINCT FROM s.service
    AND l.event_name IS NOT DISTINCT FROM s.event_name AND l.resource_arn IS NOT DISTINCT FROM s.resource_arn
WHERE n >= total * 0.001
ORDER BY n / (1 + coalesce(variation, 1)) DESC, l.caller, l.event_name, l.resource_arn, l.key_pattern
"""


def suggest(engine: Engine, prices: dict[str, Price], limit: int = 10) -> Suggestions:
    """Return the ``limit`` rows that make up most of the volume and vary least (0: all above 0.1 % of it)."""
    if limit < 0:
        raise UsageError(f"--limit {limit} is negative: use 0 for all rows")
    rows = ask(engine, tuple_of, _SQL)
    if not rows:
        return Suggestions(0, 0, ())
    days, total = rows[0][-2:]
    lines: list[RuleSuggestion] = []
    text = ""
    for row in rows:
        caller, role_arn, service, name, resource, pattern, *numbers = row
        events, bytes_out, variation, keys, writes, patterns = numbers[:-2]
        names = (caller, service, name, resource, pattern)
        rule = _rule(len(lines) + 1, names, patterns > 1)
        try:
            parse(text + rule, "suggestion")
        except RulesError:
            # An earlier suggestion covers all of it, or no rule can express a name.
            continue
        text += rule + "\n"
        trail = prices["data_events"].of(events * MONTH / days)
        lines.append(
            RuleSuggestion(
                rule,
                caller,
                role_arn,
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
    caller, service, event_name, resource, pattern = names
    # A caller that has an ARN is the role of its events, as all callers of format version 1 are.
    who = "caller" if has_no_arn(caller) else "role"
    if caller == UNKNOWN:
        caller = None
    conditions = {"service": service, "event_name": event_name, who: caller, "resource": resource}
    if pattern is not None or by_key:
        conditions["key_pattern"] = pattern
    # Whoever calls AWS chooses these texts: none of their stars is a wildcard.
    listed = ", ".join(f"{name} = {safe_toml(literal(value or ''))}" for name, value in conditions.items())
    name = safe(f"suggested {number}: {event_name}")[:NAME_LIMIT]
    return f'[[rule]]\nname = {safe_toml(name)}\nwhen = {{ {listed} }}\naction = "sample"\nrate = {RATE}\n'
