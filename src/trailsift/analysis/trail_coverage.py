"""Data events as the lake shows them: what a selection of them costs, and for which roles to enable them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from trailsift.analysis.base import DENIED, NETWORK_ACTIVITY, ask, lines, tuple_of
from trailsift.analysis.caller_names import NOBODY
from trailsift.analysis.time_range import Period
from trailsift.aws.selectors import SERVICES, SelectorRequest
from trailsift.cloudtrail.categories import category_of
from trailsift.prices import Prices, load_prices
from trailsift.query.engine import Engine
from trailsift.query.relations import text
from trailsift.schema import INSIGHT, UNKNOWN_CATEGORY
from trailsift.times import DAY, HOUR

_DAYS_PER_MONTH = 365.25 / 12


def is_data(service: str, event_name: str | None, category: str | None = UNKNOWN_CATEGORY) -> bool:
    """Return whether a call is a data event: by its category, or by its name where the category is unknown (S3 objects,
    Lambda and DynamoDB)."""
    if category not in (None, UNKNOWN_CATEGORY):
        return category == "Data"
    return category_of({"eventSource": f"{service}.amazonaws.com", "eventName": event_name}) == "Data"


def has_data_events(engine: Engine) -> bool:
    """Return whether the lake has seen any, even if rules dropped them."""
    kinds = ask(engine, tuple_of, "SELECT DISTINCT service, event_name, category FROM hourly")
    return any(is_data(*kind) for kind in kinds)


class SelectionCost(NamedTuple):
    """Data events per month at the rates of the lake's last ``days``, 30 at most, and what a trail charges for them.

    ``unknown``: those of the selected types of which the lake holds no data events: what they cost is not known, and is
    not part of ``events`` and ``usd``, which are None if it holds none of all types. ``unpriced``: regions of which no
    price is known; the dollars are of the others, and None if there are no others.
    """

    events: float | None
    usd: float | None
    all_events: float
    all_usd: float | None
    days: float
    unknown: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()


def cost(engine: Engine, period: Period, request: SelectorRequest, price_list: Prices | None = None) -> SelectionCost:
    """Return the monthly cost of the selected events, and of all data events of the lake.

    Prefixes within buckets are ignored: a selection that uses them costs less.
    """
    span = f"SELECT epoch_us(min(hour)), epoch_us(max(hour)) FROM {lines(period)} AS lines"
    first, last = ask(engine, tuple_of, span)[0]
    if first is None:
        return SelectionCost(None, None, 0, 0, 0, request.types)
    # Rates of years ago are not those of next month.
    start = max(first, last + HOUR - _DAYS_PER_MONTH * DAY)
    days = (last + HOUR - start) / DAY
    rows = ask(
        engine,
        tuple_of,
        f"""SELECT caller, service, event_name, category, coalesce(read_only, true), resource_arn,
            coalesce(sum(events) FILTER (WHERE epoch_us(hour) >= {start}), 0)::BIGINT, aws_region
        FROM {lines(period)} AS lines GROUP BY 1, 2, 3, 4, 5, 6, 8""",
    )
    services = {name for name, kind in SERVICES.items() if kind in request.types}
    buckets = {arn.partition("/")[0] for arn in request.buckets}
    callers = {caller.arn for caller in request.callers}
    chosen: dict[str | None, float] = defaultdict(float)
    everything: dict[str | None, float] = defaultdict(float)
    seen: set[str] = set()
    for caller, service, name, category, read_only, resource, events, region in rows:
        if not is_data(service, name, category):
            continue
        everything[region] += events
        seen.add(service)
        if (
            service in services
            and (not callers or caller in callers)
            and not (request.writes_only and read_only)
            and not (buckets and service == "s3" and resource not in buckets)
        ):
            chosen[region] += events
    month = _DAYS_PER_MONTH / days
    prices = price_list or load_prices()
    # A trail that does not log a type yet says nothing about its rate; neither do types that share a service's name.
    known = {SERVICES[service] for service in seen & SERVICES.keys()}
    unknown = tuple(kind for kind in request.types if kind not in known)
    all_events, all_usd = _monthly(everything, month, prices)
    events, usd = (None, None) if len(unknown) == len(request.types) else _monthly(chosen, month, prices)
    unpriced = sorted(str(region) for region in everything if "data_events" not in prices.of_region(region))
    return SelectionCost(events, usd, all_events, all_usd, days, unknown, tuple(unpriced))


def _monthly(events: dict[str | None, float], month: float, prices: Prices) -> tuple[float, float | None]:
    """Return events per month, and their dollars; None if there are some, and no price is known for any of them."""
    dollars = [prices.of_region(region).usd("data_events", count * month) for region, count in events.items()]
    known = [usd for usd in dollars if usd is not None]
    return sum(events.values()) * month, sum(known) if known or not dollars else None


#: Management calls that indicate work on data: service, event names, score, reason.
_INDICATORS: tuple[tuple[str, frozenset[str], int, str], ...] = (
    ("kms", frozenset({"Decrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "Encrypt"}), 3,
     "uses keys ({calls}): reads or writes encrypted data without data events"),
    ("s3", frozenset({"PutBucketPolicy", "DeleteBucketPolicy", "PutBucketAcl", "PutBucketReplication",
                      "PutBucketPublicAccessBlock", "DeletePublicAccessBlock", "PutBucketVersioning"}), 4,
     "changes who reaches buckets ({calls})"),
    ("lambda", frozenset({"AddPermission20150331v2", "AddPermission", "CreateFunctionUrlConfig",
                          "UpdateFunctionCode20150331v2", "UpdateFunctionCode"}), 3,
     "changes functions or who may call them ({calls})"),
    ("dynamodb", frozenset({"ExportTableToPointInTime", "CreateBackup", "RestoreTableFromBackup"}), 3,
     "copies whole tables ({calls})"),
)  # fmt: skip
#: Services that have data events: any other management call there is a weak indicator.
_DATA_SERVICES = frozenset(SERVICES)


@dataclass(slots=True)
class Need:
    """A caller, a score for enabling its data events, and the reasons. ``logged``: data events seen already.

    ``role_arn``: the caller if it is an ARN, else the service that called, else None: selectors can name ARNs only.
    """

    caller: str
    role_arn: str | None = None
    score: int = 0
    services: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    management_events: int = 0
    logged: int = 0


def needs(engine: Engine, period: Period) -> list[Need]:
    """Return callers scored by their management events, the highest score first, without those that score 0."""
    nobody = ", ".join(map(text, NOBODY))
    rows = ask(
        engine,
        tuple_of,
        f"""SELECT caller, service, event_name, category, min(role_arn), sum(events)::BIGINT,
            coalesce(sum(events) FILTER (WHERE {DENIED}), 0)::BIGINT
        FROM {lines(period)} AS lines
        WHERE caller NOT IN ({nobody}) AND category NOT IN ('{INSIGHT}', '{NETWORK_ACTIVITY}')
        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4""",
    )
    calls_of: dict[str, list[tuple[str, str | None, int, int]]] = defaultdict(list)
    logged: dict[str, int] = defaultdict(int)
    arns: dict[str, str | None] = {}
    for caller, service, name, category, role_arn, events, denied in rows:
        arns[caller] = arns.get(caller) or role_arn
        if category == "Data":
            logged[caller] += events
        else:
            calls_of[caller].append((service, name, events, denied))
    scored = [_need(caller, calls) for caller, calls in calls_of.items()]
    for need in scored:
        need.role_arn = arns[need.caller]
        need.logged += logged[need.caller]
    return sorted((need for need in scored if need.score), key=lambda need: (-need.score, need.caller))


def _calls(count: int) -> str:
    return f"{count:,} call{'' if count == 1 else 's'}"


def _need(caller: str, calls: Iterable[tuple[str, str | None, int, int]]) -> Need:
    """Score one caller. ``calls``: service, event name, events, how many of them were denied."""
    need = Need(caller)
    indicators: dict[str, int] = defaultdict(int)
    scores: dict[str, int] = {}
    other: dict[str, int] = defaultdict(int)
    denied = 0
    for service, name, events, refused in calls:
        if is_data(service, name):
            need.logged += events
            continue
        need.management_events += events
        denied += refused
        for where, names, score, why in _INDICATORS:
            if service == where and name in names:
                indicators[why] += events
                scores[why] = score
                if service in _DATA_SERVICES and service not in need.services:
                    need.services.append(service)
                break
        else:
            if service in _DATA_SERVICES:
                other[service] += events
    for why, count in indicators.items():
        need.score += scores[why]
        need.reasons.append(why.format(calls=_calls(count)))
    for service, count in sorted(other.items(), key=lambda item: -item[1]):
        need.score += 1
        need.reasons.append(f"reads or manages the configuration of {service} ({_calls(count)})")
        if service not in need.services:
            need.services.append(service)
    if denied and need.score:
        need.score += 1
        need.reasons.append(f"was denied {denied:,} times")
    return need
