"""The callers behind the events: a list of all, and a full report on one.

A caller is what ``cloudtrail.callers`` tells apart; most are roles, and the commands are named after them.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from trailsift.analysis.base import CALLS, DENIED, NETWORK_ACTIVITY, TARGETS, ask, lines, tuple_of
from trailsift.analysis.caller_names import (
    NO_CREDENTIALS,
    NO_IDENTITY,
    NOBODY,
    NOT_KNOWN,
    UNKNOWN,
    short_caller,
    told_apart,
)
from trailsift.analysis.summary import Hour, Refusal, hours, refusals
from trailsift.analysis.time_range import Period
from trailsift.cloudtrail.callers import ANONYMOUS, NONE, is_arn
from trailsift.errors import UsageError
from trailsift.query.engine import Engine
from trailsift.query.json_objects import JsonObject
from trailsift.query.relations import text
from trailsift.schema import SKETCH_SIZE, SOURCE
from trailsift.times import moment


class RoleSummary(NamedTuple):
    """One caller in the list of all.

    ``role_arn``: the caller if it is an ARN, else the service that called on its behalf, else None. ``events`` are
    records. Of them, ``owner_side`` are what the owner of a resource received of calls from another account, which has
    its own records (counted by whole days), and ``network_activity`` can have a record of category Data or Management
    beside them.
    """

    caller: str | None
    role_arn: str | None
    events: int
    share: float
    denied: int
    services: list[str]
    resources: int
    bytes_out: int
    first_time: int
    last_time: int
    owner_side: int
    network_activity: int


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


class CopySourceUse(NamedTuple):
    """One resource that a caller's copies read; the copies themselves are among the calls on what they wrote."""

    resource_arn: str | None
    copies: int
    failed: int
    example_key: str | None
    first_time: int
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
    """A caller's calls: what, where, when and from where, and what was denied.

    ``copy_sources``, ``patterns``, ``origins`` and ``owner_side`` are stored by day (UTC): they cover all days that the
    period touches. ``owner_side`` and ``network_activity`` as in ``RoleSummary``.
    """

    caller: str | None
    role_arn: str | None
    period: Period
    actions: tuple[Action, ...]
    resources: tuple[TouchedResource, ...]
    copy_sources: tuple[CopySourceUse, ...]
    patterns: tuple[KeyPatternUse, ...]
    origins: tuple[OriginUse, ...]
    places: tuple[AccountRegion, ...]
    hours: tuple[Hour, ...]
    refusals: tuple[Refusal, ...]
    share: float
    owner_side: int
    network_activity: int

    JSON: ClassVar[dict[str, str]] = {
        "caller": "caller",
        "role_arn": "role_arn",
        "period": "period",
        "events": "events",
        "denied": "denied",
        "share": "share",
        "owner_side": "owner_side",
        "network_activity": "network_activity",
        "actions": "actions",
        "resources": "resources",
        "copied_from": "copy_sources",
        "key_patterns": "patterns",
        "origins": "origins",
        "places": "places",
        "refused": "refusals",
        "hours": "hours",
        "weekday_hours": "weekday_hours",
    }

    @property
    def events(self) -> int:
        """All events of the caller in the period."""
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


#: Number of records through VPC endpoints.
_NETWORK = f"coalesce(sum(events) FILTER (WHERE category = {text(NETWORK_ACTIVITY)}), 0)::BIGINT"


def roles(engine: Engine, period: Period) -> list[RoleSummary]:
    """Return all callers of the period, the busiest first."""
    return ask(
        engine,
        RoleSummary,
        f"""WITH called AS (SELECT caller, min(role_arn) AS role_arn, sum(events)::BIGINT AS events,
            sum(events) / sum(sum(events)) OVER () AS share,
            coalesce(sum(events) FILTER (WHERE {DENIED}), 0)::BIGINT AS denied,
            list_sort(list(DISTINCT service)) AS services, count(DISTINCT resource_arn) AS resources,
            coalesce(sum(bytes_out), 0)::BIGINT AS bytes_out, epoch_us(min(first_time)) AS first_time,
            epoch_us(max(last_time)) AS last_time, {_NETWORK} AS network
        FROM {lines(period)} AS lines WHERE {CALLS} GROUP BY caller),
        owned AS (SELECT caller, sum(owner_side)::BIGINT AS owner_side FROM usage
            WHERE {TARGETS} AND {period.where_day("day")} GROUP BY caller)
        SELECT called.caller, role_arn, events, share, denied, services, resources, bytes_out, first_time, last_time,
            least(coalesce(owner_side, 0), events), network
        FROM called LEFT JOIN owned ON called.caller IS NOT DISTINCT FROM owned.caller
        ORDER BY events DESC, called.caller""",
    )


def find(engine: Engine, name: str) -> str | None:
    """Return the caller that a name refers to: its text, an ARN, its short name or the last part of it, or a part that
    only one has.

    None stands for callers without an ARN in lakes of format version 1. Raise UsageError, with the nearest names, if it
    refers to none or several.
    """
    sql = f"SELECT caller FROM hourly WHERE {CALLS} GROUP BY caller ORDER BY sum(events) DESC, caller"
    return choose(name, [row[0] for row in ask(engine, tuple_of, sql)])


#: Names of the callers who are nobody in particular -> the callers meant, in order of preference.
_NAMES_OF_NOBODY: dict[str, tuple[str | None, ...]] = {
    NO_CREDENTIALS: (ANONYMOUS, None, UNKNOWN),
    ANONYMOUS: (ANONYMOUS, None, UNKNOWN),
    NO_IDENTITY: (NONE, None),
    NONE: (NONE, None),
    "(none)": (NONE, None),
    NOT_KNOWN: (UNKNOWN,),
    UNKNOWN: (UNKNOWN,),
    "null": (None, UNKNOWN),
}


def choose(name: str, callers: list[str | None]) -> str | None:
    """``find`` without the lake; ``callers`` are all, the busiest first."""
    for nobody in _NAMES_OF_NOBODY.get(name.lower(), ()):
        if nobody in callers:
            return nobody
    named = [caller for caller in callers if caller is not None and caller not in NOBODY]
    if name in named:
        return name
    folded = name.lower()
    shown = told_apart(named)
    tests = (
        lambda caller: caller.lower() == folded,
        lambda caller: shown[caller].lower() == folded,
        lambda caller: short_caller(caller).lower() == folded,
        lambda caller: caller.rpartition("/")[2].lower() == folded,
        lambda caller: caller.rpartition(":")[2].lower() == folded,
        lambda caller: folded in caller.lower() or folded in short_caller(caller).lower(),
    )
    for test in tests:
        hits = [caller for caller in named if test(caller)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            more = f" and {len(hits) - 5} more" if len(hits) > 5 else ""
            kind = "roles" if all(map(is_arn, hits)) else "callers"
            raise UsageError(f"{name!r} matches {len(hits)} {kind}: {', '.join(hits[:5])}{more}. Name one of them")
    short = {caller.rpartition("/")[2].lower(): caller for caller in reversed(named)}
    near = [short[hit] for hit in difflib.get_close_matches(folded.rpartition("/")[2], short, 3, 0.5)]
    if near:
        hint = f"nearest: {', '.join(near)}"
    elif named:
        hint = f"the busiest are {', '.join(named[:3])}; `trailsift roles` lists all"
    else:
        hint = "the lake holds no roles yet"
    raise UsageError(f"no role {name!r} in the lake: {hint}")


def role(engine: Engine, name: str, period: Period) -> RoleReport:
    """Return the report on one caller. Raise UsageError if the name refers to none or several."""
    caller = find(engine, name)
    own = f"{CALLS} AND " + ("caller IS NULL" if caller is None else f"caller = {text(caller)}")
    hourly = f"FROM {lines(period)} AS lines WHERE {own}"
    daily = f"{period.where_day('day')} AND {own}"
    everything = f"SELECT coalesce(sum(events), 0)::BIGINT FROM {lines(period)} AS lines WHERE {CALLS}"
    total = ask(engine, tuple_of, everything)[0][0]
    actions = _actions(engine, hourly)
    events = sum(action.events for action in actions)
    places = f"SELECT account_id, aws_region, sum(events)::BIGINT {hourly} GROUP BY ALL ORDER BY 3 DESC, 1, 2"
    role_arn, network = ask(engine, tuple_of, f"SELECT min(role_arn), {_NETWORK} {hourly}")[0]
    owned = f"SELECT coalesce(sum(owner_side), 0)::BIGINT FROM usage WHERE {TARGETS} AND {daily}"
    return RoleReport(
        caller,
        role_arn or (caller if is_arn(caller) else None),
        period,
        tuple(actions),
        tuple(_resources(engine, hourly)),
        tuple(_copy_sources(engine, daily)),
        tuple(_patterns(engine, daily)),
        tuple(_origins(engine, daily)),
        tuple(ask(engine, AccountRegion, places)),
        tuple(hours(engine, period, own)),
        tuple(refusals(engine, period, condition=own)),
        events / total if total else 0.0,
        min(ask(engine, tuple_of, owned)[0][0], events),
        network,
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


def _copy_sources(engine: Engine, daily: str) -> list[CopySourceUse]:
    return ask(
        engine,
        CopySourceUse,
        f"""SELECT resource_arn, sum(events)::BIGINT,
            coalesce(sum(events) FILTER (WHERE error_code IS NOT NULL), 0)::BIGINT, min(example_key), {_SPAN}
        FROM usage WHERE {daily} AND touch = {text(SOURCE)} GROUP BY resource_arn ORDER BY 2 DESC, resource_arn""",
    )


def _patterns(engine: Engine, daily: str) -> list[KeyPatternUse]:
    return ask(
        engine,
        KeyPatternUse,
        f"""SELECT resource_arn, key_pattern, list_sort(list(DISTINCT event_name)), sum(events)::BIGINT,
            min(example_key), {_SPAN}
        FROM usage WHERE {daily} AND {TARGETS} AND key_pattern IS NOT NULL
        GROUP BY resource_arn, key_pattern ORDER BY 4 DESC, resource_arn, key_pattern""",
    )


def _origins(engine: Engine, daily: str) -> list[OriginUse]:
    return ask(
        engine,
        OriginUse,
        f"""SELECT dimension, value, sum(events)::BIGINT, sum(denied)::BIGINT, {_SPAN}
        FROM profile WHERE {daily} GROUP BY dimension, value ORDER BY dimension, 3 DESC, value""",
    )
