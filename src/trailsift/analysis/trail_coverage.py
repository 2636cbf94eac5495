"""Data events seen from the lake: what a selection of them costs, and which roles are worth switching them on for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from trailsift.analysis.base import DENIED, ask, lines, tuple_of
from trailsift.analysis.time_range import Period
from trailsift.aws.selectors import SERVICES, SelectorRequest
from trailsift.decode.record import category_of
from trailsift.prices import Price, load_prices
from trailsift.query.engine import Engine

_DAYS_A_MONTH = 365.25 / 12
_DAY = 86_400_000_000
_HOUR = _DAY // 24


def is_data(service: str, event_name: str | None) -> bool:
    """Whether a call is a data event, by its name: known for S3 objects, Lambda and DynamoDB."""
    return category_of({"eventSource": f"{service}.amazonaws.com", "eventName": event_name}) == "Data"


def has_data_events(engine: Engine) -> bool:
    """Whether the lake has seen any, whatever rules left of them."""
    pairs = ask(engine, tuple_of, "SELECT DISTINCT service, event_name FROM hourly")
    return any(is_data(service, name) for service, name in pairs)


class Cost(NamedTuple):
    """Data events a month at the rates of the lake, and what a trail asks for them."""

    events: float
    usd: float
    all_events: float
    all_usd: float
    days: float


def cost(engine: Engine, period: Period, want: SelectorRequest, known: dict[str, Price] | None = None) -> Cost:
    """What the wanted events would cost a month, and all data events of the same lake beside it.

    Prefixes of buckets are not looked at: what they narrow comes out lower.
    """
    rows = ask(
        engine,
        tuple_of,
        f"""SELECT role_arn, service, event_name, coalesce(read_only, true), resource_arn, sum(events)::BIGINT,
            epoch_us(min(hour)), epoch_us(max(hour))
        FROM {lines(period)} AS lines GROUP BY 1, 2, 3, 4, 5""",
    )
    if not rows:
        return Cost(0, 0, 0, 0, 0)
    days = max((max(row[7] for row in rows) + _HOUR - min(row[6] for row in rows)) / _DAY, 1 / 24)
    services = {name for name, kind in SERVICES.items() if kind in want.types}
    buckets = {arn.partition("/")[0] for arn in want.buckets}
    roles = {caller.arn for caller in want.callers}
    chosen = everything = 0.0
    for role, service, name, read_only, resource, events, _, _ in rows:
        if not is_data(service, name):
            continue
        everything += events
        if (
            service in services
            and (not roles or role in roles)
            and not (want.writes_only and read_only)
            and not (buckets and service == "s3" and resource not in buckets)
        ):
            chosen += events
    month = _DAYS_A_MONTH / days
    each = (known or load_prices())["data_events"]
    chosen, everything = chosen * month, everything * month
    return Cost(chosen, each.of(chosen), everything, each.of(everything), days)


#: Management calls that tell of work on data, by service: why, and how much that says.
_TELLING: tuple[tuple[str, frozenset[str], int, str], ...] = (
    ("kms", frozenset({"Decrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "Encrypt"}), 3,
     "uses keys ({count:,} calls): reads or writes encrypted data that nothing shows"),
    ("s3", frozenset({"PutBucketPolicy", "DeleteBucketPolicy", "PutBucketAcl", "PutBucketReplication",
                      "PutBucketPublicAccessBlock", "DeletePublicAccessBlock", "PutBucketVersioning"}), 4,
     "changes who reaches buckets ({count:,} calls)"),
    ("lambda", frozenset({"AddPermission20150331v2", "AddPermission", "CreateFunctionUrlConfig",
                          "UpdateFunctionCode20150331v2", "UpdateFunctionCode"}), 3,
     "changes functions or who may call them ({count:,} calls)"),
    ("dynamodb", frozenset({"ExportTableToPointInTime", "CreateBackup", "RestoreTableFromBackup"}), 3,
     "copies whole tables ({count:,} calls)"),
)  # fmt: skip
#: Services of which data events exist: any other management call there says a little.
_DATA_SERVICES = frozenset(SERVICES)


@dataclass(slots=True)
class Need:
    """A role, how much speaks for switching its data events on, and why. ``logged``: some are logged already."""

    role_arn: str
    score: int = 0
    services: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    management_events: int = 0
    logged: int = 0


def needs(engine: Engine, period: Period) -> list[Need]:
    """Roles by what their management events say, those that matter most first; roles of which nothing speaks for it
    are left out."""
    rows = ask(
        engine,
        tuple_of,
        f"""SELECT role_arn, service, event_name, sum(events)::BIGINT,
            coalesce(sum(events) FILTER (WHERE {DENIED}), 0)::BIGINT
        FROM {lines(period)} AS lines WHERE role_arn IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""",
    )
    by_role: dict[str, list[tuple[str, str | None, int, int]]] = defaultdict(list)
    for role, *rest in rows:
        by_role[role].append((rest[0], rest[1], rest[2], rest[3]))
    found = [_need(role, calls) for role, calls in by_role.items()]
    return sorted((need for need in found if need.score), key=lambda need: (-need.score, need.role_arn))


def _need(role: str, calls: Iterable[tuple[str, str | None, int, int]]) -> Need:
    """``calls``: service, event name, events, how many of them were denied."""
    need = Need(role)
    telling: dict[str, int] = defaultdict(int)
    scores: dict[str, int] = {}
    other: dict[str, int] = defaultdict(int)
    denied = 0
    for service, name, events, refused in calls:
        if is_data(service, name):
            need.logged += events
            continue
        need.management_events += events
        denied += refused
        for where, names, score, why in _TELLING:
            if service == where and name in names:
                telling[why] += events
                scores[why] = score
                if service in _DATA_SERVICES and service not in need.services:
                    need.services.append(service)
                break
        else:
            if service in _DATA_SERVICES:
                other[service] += events
    for why, count in telling.items():
        need.score += scores[why]
        need.reasons.append(why.format(count=count))
    for service, count in sorted(other.items(), key=lambda item: -item[1]):
        need.score += 1
        need.reasons.append(f"looks at or manages {service} ({count:,} calls)")
        if service not in need.services:
            need.services.append(service)
    if denied and need.score:
        need.score += 1
        need.reasons.append(f"was refused {denied:,} times")
    return need
