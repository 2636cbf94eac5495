"""The callers behind the events: a list of all roles, and a full report on one."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from trailsift.analysis.base import DENIED, ask, lines, tuple_of
from trailsift.analysis.summary import Hour, Refusal, hours, refusals
from trailsift.analysis.time_range import Period
from trailsift.errors import UsageError
from trailsift.query.engine import Engine
from trailsift.query.json_objects import JsonObject
from trailsift.query.relations import text
from trailsift.schema import SKETCH_SIZE
from trailsift.times import moment

#: The name of callers without any identity.
ANONYMOUS = "(anonymous)"


class RoleSummary(NamedTuple):
    """One role in the list of all roles."""

    role_arn: str | None
    events: int
    share: float
    denied: int
    services: list[str]
    resources: int
    bytes_out: int
    first_time: int
    last_time: int


class Action(NamedTuple):
    """One API action of a role."""

    service: str
    event_name: str | None
    events: int
    errors: int
    denied: int
    bytes_in: int
    bytes_out: int
    first_time: int
    last_time: int


class TouchedResource(NamedTuple):
    """One resource that a role accessed; ``writes`` counts calls that are not read-only."""

    resource_arn: str | None
    events: int
    writes: int
    denied: int
    object_keys: int
    bytes_in: int
    bytes_out: int
    last_time: int


class KeyPatternUse(NamedTuple):
    """One pattern of object keys that a role accessed."""

    resource_arn: str | None
    key_pattern: str
    event_names: list[str]
    events: int
    example_key: str | None
    first_time: int
    last_time: int


class OriginUse(NamedTuple):
    """Where the calls came from, or as whom; ``dimension`` is one of ``schema.PROFILE_DIMENSIONS``."""

    dimension: str
    value: str
    events: int
    denied: int
    first_time: int
    last_time: int


class AccountRegion(NamedTuple):
    """An account and a region in which a role made calls."""

    account_id: str | None
    aws_region: str | None
    events: int


@dataclass(frozen=True, slots=True)
class RoleReport(JsonObject):
    """A role's calls: what, where, when and from where, and what was denied.

    ``patterns`` and ``origins`` are stored by day (UTC): they cover all days that the period touches.
    """

    role_arn: str | None
    period: Period
    actions: tuple[Action, ...]
    resources: tuple[TouchedResource, ...]
    patterns: tuple[KeyPatternUse, ...]
    origins: tuple[OriginUse, ...]
    places: tuple[AccountRegion, ...]
    hours: tuple[Hour, ...]
    refusals: tuple[Refusal, ...]
    share: float

    JSON: ClassVar[dict[str, str]] = {
        "role_arn": "role_arn",
        "period": "period",
        "events": "events",
        "denied": "denied",
        "share": "share",
        "actions": "actions",
        "resources": "resources",
        "key_patterns": "patterns",
        "origins": "origins",
        "places": "places",
        "refused": "refusals",
        "hours": "hours",
        "weekday_hours": "weekday_hours",
    }

    @property
    def events(self) -> int:
        """All events of the role in the period."""
        return sum(action.events for action in self.actions)

    @property
    def denied(self) -> int:
        """How many of them were denied."""
        return sum(action.denied for action in self.actions)

    def heat(self) -> list[list[int]]:
        """Return the events by weekday (Monday first) and hour of the day, in the period's zone."""
        grid = [[0] * 24 for _ in range(7)]
        for hour in self.hours:
            local = moment(hour.hour).astimezone(self.period.zone)
            grid[local.weekday()][local.hour] += hour.events
        return grid

    @property
    def weekday_hours(self) -> dict[str, Any]:
        """``heat`` as a JSON object."""
        return {"timezone": self.period.zone.key, "monday_first": self.heat()}


def roles(engine: Engine, period: Period) -> list[RoleSummary]:
    """Return all roles of the period, the busiest first."""
    return ask(
        engine,
        RoleSummary,
        f"""SELECT role_arn, sum(events)::BIGINT AS events, sum(events) / sum(sum(events)) OVER () AS share,
            coalesce(sum(events) FILTER (WHERE {DENIED}), 0)::BIGINT, list_sort(list(DISTINCT service)),
            count(DISTINCT resource_arn), coalesce(sum(bytes_out), 0)::BIGINT,
            epoch_us(min(first_time)), epoch_us(max(last_time))
        FROM {lines(period)} AS lines GROUP BY role_arn ORDER BY 2 DESC, role_arn""",
    )


def find(engine: Engine, name: str) -> str | None:
    """Return the role ARN that a name refers to: an ARN, the last part of one, or a part that only one has.

    None stands for anonymous callers. Raise UsageError, with the nearest names, if it refers to none or several.
    """
    sql = "SELECT role_arn FROM hourly GROUP BY role_arn ORDER BY sum(events) DESC"
    return choose(name, [row[0] for row in ask(engine, tuple_of, sql)])


def choose(name: str, roles: list[str | None]) -> str | None:
    """``find`` without the lake; ``roles`` are all roles, the busiest first."""
    arns = [arn for arn in roles if arn is not None]
    if name.strip("()").lower() in ("anonymous", "null", "none") and None in roles:
        return None
    if name in arns:
        return name
    folded = name.lower()
    tests = (
        lambda arn: arn.lower() == folded,
        lambda arn: arn.rpartition("/")[2].lower() == folded,
        lambda arn: arn.rpartition(":")[2].lower() == folded,
        lambda arn: folded in arn.lower(),
    )
    for test in tests:
        hits = [arn for arn in arns if test(arn)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            more = f" and {len(hits) - 5} more" if len(hits) > 5 else ""
            raise UsageError(f"{name!r} matches {len(hits)} roles: {', '.join(hits[:5])}{more}. Name one of them")
    short = {arn.rpartition("/")[2].lower(): arn for arn in reversed(arns)}
    near = [short[hit] for hit in difflib.get_close_matches(folded.rpartition("/")[2], short, 3, 0.5)]
    if near:
        hint = f"nearest: {', '.join(near)}"
    elif arns:
        hint = f"the busiest are {', '.join(arns[:3])}; `trailsift roles` lists all"
    else:
        hint = "the lake holds no roles yet"
    raise UsageError(f"no role {name!r} in the lake: {hint}")


def role(engine: Engine, name: str, period: Period) -> RoleReport:
    """Return the report on one role. Raise UsageError if the name refers to none or several."""
    arn = find(engine, name)
    own = "role_arn IS NULL" if arn is None else f"role_arn = {text(arn)}"
    hourly = f"FROM {lines(period)} AS lines WHERE {own}"
    daily = f"{period.where_day('day')} AND {own}"
    everything = f"SELECT coalesce(sum(events), 0)::BIGINT FROM {lines(period)} AS lines"
    total = ask(engine, tuple_of, everything)[0][0]
    actions = _actions(engine, hourly)
    places = f"SELECT account_id, aws_region, sum(events)::BIGINT {hourly} GROUP BY ALL ORDER BY 3 DESC, 1, 2"
    return RoleReport(
        arn,
        period,
        tuple(actions),
        tuple(_resources(engine, hourly)),
        tuple(_patterns(engine, daily)),
        tuple(_origins(engine, daily)),
        tuple(ask(engine, AccountRegion, places)),
        tuple(hours(engine, period, own)),
        tuple(refusals(engine, period, condition=own)),
        sum(action.events for action in actions) / total if total else 0.0,
    )


_REFUSED = f"coalesce(sum(events) FILTER (WHERE {DENIED}), 0)::BIGINT"
_SPAN = "epoch_us(min(first_time)), epoch_us(max(last_time))"


def _actions(engine: Engine, hourly: str) -> list[Action]:
    return ask(
        engine,
        Action,
        f"""SELECT service, event_name, sum(events)::BIGINT,
            coalesce(sum(events) FILTER (WHERE error_code IS NOT NULL), 0)::BIGINT, {_REFUSED},
            coalesce(sum(bytes_in), 0)::BIGINT, coalesce(sum(bytes_out), 0)::BIGINT, {_SPAN}
        {hourly} GROUP BY service, event_name ORDER BY 3 DESC, service, event_name""",
    )


def _resources(engine: Engine, hourly: str) -> list[TouchedResource]:
    return ask(
        engine,
        TouchedResource,
        f"""WITH own AS (SELECT * {hourly}),
            keys AS (SELECT resource_arn, distinct_count(min(hash, {SKETCH_SIZE})) AS number
                FROM (SELECT DISTINCT resource_arn, unnest(object_keys) AS hash FROM own) GROUP BY resource_arn),
            sums AS (SELECT resource_arn, sum(events)::BIGINT AS events,
                coalesce(sum(events) FILTER (WHERE read_only IS false), 0)::BIGINT AS writes, {_REFUSED} AS denied,
                coalesce(sum(bytes_in), 0)::BIGINT AS bytes_in, coalesce(sum(bytes_out), 0)::BIGINT AS bytes_out,
                epoch_us(max(last_time)) AS last_time FROM own GROUP BY resource_arn)
        SELECT sums.resource_arn, events, writes, denied, coalesce(number, 0), bytes_in, bytes_out, last_time
        FROM sums LEFT JOIN keys ON sums.resource_arn IS NOT DISTINCT FROM keys.resource_arn
        ORDER BY events DESC, sums.resource_arn""",
    )


def _patterns(engine: Engine, daily: str) -> list[KeyPatternUse]:
    return ask(
        engine,
        KeyPatternUse,
        f"""SELECT resource_arn, key_pattern, list_sort(list(DISTINCT event_name)), sum(events)::BIGINT,
            min(example_key), {_SPAN}
        FROM usage WHERE {daily} AND key_pattern IS NOT NULL
        GROUP BY resource_arn, key_pattern ORDER BY 4 DESC, resource_arn, key_pattern""",
    )


def _origins(engine: Engine, daily: str) -> list[OriginUse]:
    return ask(
        engine,
        OriginUse,
        f"""SELECT dimension, value, sum(events)::BIGINT, sum(denied)::BIGINT, {_SPAN}
        FROM profile WHERE {daily} GROUP BY dimension, value ORDER BY dimension, 3 DESC, value""",
    )
