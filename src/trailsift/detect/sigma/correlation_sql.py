"""Correlations as SQL: events that match base rules, counted in a window that ends with each of them.

A row is an event that completes the correlation, so a match begins when the condition is first met. Events without one
of the fields to group by belong to no group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sigma.correlations import (
    SigmaCorrelationCondition,
    SigmaCorrelationConditionOperator,
    SigmaCorrelationRule,
    SigmaCorrelationType,
)

from trailsift.detect.event_scan import MAX_ROWS, EventScan
from trailsift.detect.sigma.fields import canonical, field_of
from trailsift.times import DAY, HOUR

#: Base rules, fields to group by, and days that a correlation spans, at most.
MAX_RULES, MAX_GROUPS, MAX_DAYS = 20, 10, 400

_OPERATORS = {
    SigmaCorrelationConditionOperator.GTE: ">=",
    SigmaCorrelationConditionOperator.GT: ">",
    SigmaCorrelationConditionOperator.EQ: "=",
}
_TEMPORAL = (SigmaCorrelationType.TEMPORAL, SigmaCorrelationType.TEMPORAL_ORDERED)
_COUNTED = (SigmaCorrelationType.EVENT_COUNT, SigmaCorrelationType.VALUE_COUNT)


class NotTranslatedError(Exception):
    """A correlation that has no translation, with the reason."""


def history_of(rule: SigmaCorrelationRule) -> int:
    """Return the number of days before its own that a match depends on."""
    seconds = int(rule.timespan.seconds)
    return -(-seconds * 1_000_000 // DAY)


def sql_of(rule: SigmaCorrelationRule, bases: Mapping[str, EventScan]) -> str:
    """Return the query for the matches of a correlation; ``bases``: its rules by their references, in order.

    Raise NotTranslatedError if the correlation asks for what cannot be asked, ValueError for a field without a name.
    """
    _check(rule, bases)
    span = rule.timespan.seconds * 1_000_000
    groups = [f"g{place}" for place in range(len(rule.group_by or ()))]
    hits = "\n    UNION ALL ".join(
        _hits(rule, reference, place, scan) for place, (reference, scan) in enumerate(bases.items())
    )
    within = f"(PARTITION BY {', '.join(groups) or '1'} ORDER BY micros RANGE BETWEEN {span} PRECEDING AND CURRENT ROW)"
    known = f" WHERE {' AND '.join(f'{group} IS NOT NULL' for group in groups)}" if groups else ""
    source, met = "hits", f"QUALIFY count(DISTINCT rule) OVER {within} = {len(bases)}"
    steps = ""
    condition = rule.condition
    if rule.type is SigmaCorrelationType.TEMPORAL_ORDERED:
        steps, source, met = _ordered(len(bases), groups, span)
    elif rule.type in _COUNTED and isinstance(condition, SigmaCorrelationCondition):
        measure = "sum(weight)" if rule.type is SigmaCorrelationType.EVENT_COUNT else "count(DISTINCT counted)"
        met = f"QUALIFY {measure} OVER {within} {_OPERATORS[condition.op]} {condition.count!r}"
    return f"""WITH hits AS (
    SELECT * FROM ({hits}){known}
){steps}, met AS (
    SELECT * FROM {source} {met}
), calls AS (
    SELECT account_id, caller, event_name, resource_arn, micros // {HOUR} AS hour, min(event_time) AS first_time,
        max(event_time) AS last_time, sum(weight) AS calls
    FROM met GROUP BY ALL
)
SELECT account_id, caller, first(event_name ORDER BY calls DESC, event_name) AS event_name,
    first(resource_arn ORDER BY calls DESC, resource_arn) AS resource_arn, min(first_time) AS first_time,
    max(last_time) AS last_time, greatest(1, round(sum(calls)))::BIGINT AS events
FROM calls GROUP BY account_id, caller, hour ORDER BY first_time DESC LIMIT {MAX_ROWS}"""


def _check(rule: SigmaCorrelationRule, bases: Mapping[str, EventScan]) -> None:
    kind = rule.type.name.lower()
    if rule.type not in (*_TEMPORAL, *_COUNTED):
        raise NotTranslatedError(f"correlations of the type {kind} are not supported")
    if not isinstance(rule.condition, SigmaCorrelationCondition):
        raise NotTranslatedError("conditions that join rules by and, or and not are not supported")
    if len(bases) > MAX_RULES:
        raise NotTranslatedError(f"joins {len(bases)} rules: at most {MAX_RULES}")
    if len(rule.group_by or ()) > MAX_GROUPS:
        raise NotTranslatedError(f"groups by {len(rule.group_by or ())} fields: at most {MAX_GROUPS}")
    if history_of(rule) > MAX_DAYS:
        raise NotTranslatedError(f"spans {rule.timespan.spec}: at most {MAX_DAYS} days")
    operator = rule.condition.op
    if rule.type in _TEMPORAL:
        if operator is not SigmaCorrelationConditionOperator.GTE or rule.condition.count != len(bases):
            raise NotTranslatedError(
                f"a {kind} correlation of some of its rules is not supported: it means all of them"
            )
    elif operator not in _OPERATORS:
        raise NotTranslatedError(
            f"the condition {operator.name.lower()} is not supported: it is true of every first event"
        )
    if isinstance(rule.condition.fieldref, list):
        raise NotTranslatedError("counting the values of several fields together is not supported")


def _hits(rule: SigmaCorrelationRule, reference: str, place: int, scan: EventScan) -> str:
    names = [_name_in(rule, group, reference) for group in rule.group_by or ()]
    columns = [f"{field_of(name).first} AS g{place_}" for place_, name in enumerate(names)]
    if rule.type is SigmaCorrelationType.VALUE_COUNT and isinstance(rule.condition, SigmaCorrelationCondition):
        columns.append(f"{field_of(_name_in(rule, str(rule.condition.fieldref), reference)).first} AS counted")
    gate = f"{scan.gate} AND " if scan.gate else ""
    return (
        f"SELECT {place} AS rule, epoch_us(event_time) AS micros, event_time, account_id, caller, event_name,"
        f" resource_arn, weight{''.join(f', {column}' for column in columns)} FROM events WHERE {gate}{scan.condition}"
    )


def _name_in(rule: SigmaCorrelationRule, name: str, reference: str) -> str:
    """Return what a field, or an alias, is called in the events of one base rule."""
    alias: Any = rule.aliases.aliases.get(name)
    if alias is None:
        return canonical(name)
    for known, field in alias.mapping.items():
        if known.reference == reference:
            return canonical(str(field))
    raise NotTranslatedError(f"the alias {name} does not say what it is in the events of {reference}")


def _ordered(rules: int, groups: Sequence[str], span: int) -> tuple[str, str, str]:
    """Return the steps, the relation and the WHERE clause of events that complete all rules in their order.

    Each step carries the latest time at which a chain could have begun that has come as far as the rule before.
    """
    steps = ", step0 AS (SELECT *, CASE WHEN rule = 0 THEN micros END AS begun FROM hits)"
    partition = ", ".join(groups) or "1"
    for place in range(1, rules):
        before = (
            f"max(CASE WHEN rule = {place - 1} THEN begun END) OVER"
            f" (PARTITION BY {partition} ORDER BY micros RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
        )
        steps += (
            f", step{place} AS (SELECT * REPLACE (CASE WHEN rule = {place} THEN {before} ELSE begun END AS begun)"
            f" FROM step{place - 1})"
        )
    return steps, f"step{rules - 1}", f"WHERE rule = {rules - 1} AND micros - begun <= {span}"
