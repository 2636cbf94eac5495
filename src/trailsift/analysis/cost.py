"""The cost of what fills the log: by caller, resource, action and key pattern; and what is paid twice.

A trail charges for each data and network-activity event that it delivers, whatever is stored afterwards. Counts come
from ``usage``, of the whole UTC days that a period touches. A price that is not known is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

from trailsift.analysis.base import NETWORK_ACTIVITY, TARGETS, ask, together, tuple_of
from trailsift.analysis.resource import whole_days
from trailsift.analysis.suggest import suggest
from trailsift.analysis.time_range import Period
from trailsift.cloudtrail.categories import category_of
from trailsift.errors import UsageError
from trailsift.prices import MONTH, Price, Prices
from trailsift.query.engine import Engine
from trailsift.query.json_objects import JsonObject
from trailsift.query.relations import text
from trailsift.schema import UNKNOWN_CATEGORY

#: Groups of `cost --by` -> columns of ``usage``.
GROUPS: dict[str, tuple[str, ...]] = {
    "caller": ("caller",),
    "resource": ("resource_arn",),
    "event": ("service", "event_name"),
    "pattern": ("resource_arn", "key_pattern"),
}
#: The categories that a trail charges for by the event.
CHARGED = ("Data", NETWORK_ACTIVITY)
#: Lines of each group that are listed unless a limit is given.
MOST = 8
#: Digits of dollars: a single line of a small lake costs less than a cent.
_DIGITS = 6


class CostLine(NamedTuple):
    """One group: its charged events, its share of them, and the dollars a month at the rate of the period."""

    names: tuple[str | None, ...]
    events: int
    share: float
    usd: float | None


class CostGroup(NamedTuple):
    """The largest lines of one kind of group, and how many there are."""

    by: str
    lines: tuple[CostLine, ...]
    groups: int


class CategoryCost(NamedTuple):
    """The events of one category; ``usd`` a month, None if the price is not known, 0 if nothing is charged by event."""

    category: str
    events: int
    usd: float | None


class RegionCost(NamedTuple):
    """The events of one region that are charged; ``usd`` a month, None if no price is known for its partition."""

    aws_region: str | None
    events: int
    usd: float | None


class PaidTwice(NamedTuple):
    """Records that were charged beside another one of the same call.

    ``network_activity``: calls through VPC endpoints that are logged as such and as data events, by day, caller, action
    and resource the smaller number. ``duplicates``: records that ingests found to be in the lake already, of all time:
    those of a second trail, and those of log objects that were copied or ingested again; ``usd_duplicates`` is what
    they cost if each was delivered by a trail of its own, in dollars, not a month.
    """

    network_activity: int
    usd_network_activity: float | None
    duplicates: int
    usd_duplicates: float | None


class Avoidable(NamedTuple):
    """Events that selectors could leave out, by ``suggest``: steady volume of the whole lake, in dollars a month; and
    the number of object keys that would not be seen any more."""

    lines: int
    events: int
    usd: float
    keys: int


@dataclass(frozen=True, slots=True)
class CostReport(JsonObject):
    """The charges of a trail for the events of whole UTC days, per month of 30 days at their rate.

    ``days``: days with events. ``price``: of one data event, with its date and source.
    """

    period: Period
    days: int
    price: Price
    categories: tuple[CategoryCost, ...]
    regions: tuple[RegionCost, ...]
    groups: tuple[CostGroup, ...]
    twice: PaidTwice
    avoidable: Avoidable

    JSON: ClassVar[dict[str, str]] = {
        "period": "period",
        "days": "days",
        "price": "price",
        "events": "events",
        "usd_a_month": "usd",
        "categories": "categories",
        "regions": "regions",
        "groups": "groups_by_name",
        "paid_twice": "twice",
        "avoidable": "avoidable",
    }

    @property
    def events(self) -> int:
        """The events that are charged."""
        return sum(line.events for line in self.categories if line.category in CHARGED)

    @property
    def usd(self) -> float:
        """Dollars a month of all events whose price is known."""
        return round(sum(line.usd or 0.0 for line in self.regions), _DIGITS)

    @property
    def groups_by_name(self) -> dict[str, Any]:
        """The groups as JSON objects."""
        return {
            group.by: {
                "groups": group.groups,
                "lines": [
                    {**dict(zip(GROUPS[group.by], line.names, strict=True)), "events": line.events,
                     "share": line.share, "usd_a_month": line.usd}
                    for line in group.lines
                ],
            }
            for group in self.groups
        }  # fmt: skip

    @property
    def table(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        """All groups as names of columns and rows."""
        rows = [
            (group.by, *(line.names if len(line.names) > 1 else (*line.names, None)), line.events, line.share, line.usd)
            for group in self.groups
            for line in group.lines
        ]
        return ["by", "name", "second_name", "events", "share", "usd_a_month"], rows


def cost(
    engine: Engine,
    period: Period,
    prices: Prices,
    duplicates: int,
    limit: int = MOST,
    by: str | None = None,
) -> CostReport:
    """Return the report on a period; ``limit`` lines of each group (0: all); ``by``: one of ``GROUPS`` only.

    ``duplicates``: those of all ingests. Raise UsageError for an unknown group or a negative limit.
    """
    if limit < 0:
        raise UsageError(f"--limit {limit} is negative: use 0 for all rows")
    if by is not None and by not in GROUPS:
        raise UsageError(f"there are no costs by {by!r}: choose from {', '.join(GROUPS)}")
    days = whole_days(period)
    within = f"{TARGETS} AND {days.where_day('day')}"
    old = _unknown_data(engine)
    charged = f"FROM ({_charged(old)}) WHERE {within}"
    chosen = GROUPS if by is None else {by: GROUPS[by]}
    answers = together(
        partial(ask, engine, tuple_of, f"SELECT count(DISTINCT day) FROM usage WHERE {within}"),
        partial(ask, engine, tuple_of, _by_category_and_region(old, days)),
        partial(ask, engine, tuple_of, _twins(old, within)),
        *(partial(ask, engine, tuple_of, _grouped(charged, columns, limit)) for columns in chosen.values()),
    )
    number, twins = answers[0][0][0], answers[2][0][0]
    rate = MONTH / max(number, 1)
    regions = [
        RegionCost(region, events, _rounded(prices.of_region(region).usd("data_events", events * rate)))
        for region, events in _sums(
            answers[1], lambda category, region: region if category in CHARGED else _NOT_CHARGED
        )
    ]
    per_event = _per_event(regions, prices, rate)

    def monthly(events: int) -> float | None:
        return None if per_event is None else round(events * rate * per_event, _DIGITS)

    kinds = [
        CategoryCost(str(category), events, monthly(events) if category in CHARGED else _other(str(category)))
        for category, events in _sums(answers[1], lambda category, region: category)
    ]
    listed = []
    for (name, columns), rows in zip(chosen.items(), answers[3:], strict=True):
        lines = tuple(CostLine(row[: len(columns)], row[-3], row[-2], monthly(row[-3])) for row in rows)
        listed.append(CostGroup(name, lines, rows[0][-1] if rows else 0))
    suggestions = suggest(engine, prices)
    return CostReport(
        days,
        number,
        prices["data_events"],
        tuple(kinds),
        tuple(regions),
        tuple(listed),
        PaidTwice(
            twins, monthly(twins), duplicates, None if per_event is None else round(duplicates * per_event, _DIGITS)
        ),
        Avoidable(
            len(suggestions.lines),
            sum(line.events for line in suggestions.lines),
            round(sum(line.usd_trail for line in suggestions.lines), 2),
            sum(line.keys for line in suggestions.lines),
        ),
    )


#: Stands for all that is not charged, where events are added up by region.
_NOT_CHARGED = "\0"


def _sums(
    rows: Sequence[tuple[Any, ...]], key: Callable[[str, str | None], str | None]
) -> list[tuple[str | None, int]]:
    """Return the events of (category, region, events) by a key of both, the most first."""
    sums: dict[str | None, int] = {}
    for category, region, events in rows:
        name = key(category, region)
        sums[name] = sums.get(name, 0) + events
    sums.pop(_NOT_CHARGED, None)
    return sorted(sums.items(), key=lambda item: (-item[1], item[0] or ""))


def _per_event(regions: Sequence[RegionCost], prices: Prices, rate: float) -> float | None:
    """Return the dollars per event: the mean over the regions whose price is known; None if none is."""
    listed = [(line, prices.of_region(line.aws_region).get("data_events")) for line in regions]
    known = [(line, price) for line, price in listed if price is not None]
    if not known:
        return prices["data_events"].of(1) if not listed else None
    events = sum(line.events for line, _ in known)
    return sum(price.of(line.events) for line, price in known) / events


def _rounded(usd: float | None) -> float | None:
    return None if usd is None else round(usd, _DIGITS)


def _other(category: str) -> float | None:
    # The first copy of management events is free in each region; further copies, and Insights, are not priced here.
    return 0.0 if category == "Management" else None


def _unknown_data(engine: Engine) -> list[str]:
    """Return the actions (as service:action) of format version 1 whose events are data events, by their name."""
    return [
        f"{service}:{name}"
        for service, name in ask(
            engine,
            tuple_of,
            " UNION ".join(
                f"SELECT service, event_name FROM {table} WHERE category = {text(UNKNOWN_CATEGORY)} GROUP BY ALL"
                for table in ("usage", "hourly")
            ),
        )
        if category_of({"eventSource": f"{service}.amazonaws.com", "eventName": name}) == "Data"
    ]


def _category(old: Sequence[str]) -> str:
    """Return SQL of the category of a summary line: of those of format version 1, what the action's name says."""
    if not old:
        return "category"
    return (
        f"CASE WHEN category <> {text(UNKNOWN_CATEGORY)} THEN category "
        f"WHEN service || ':' || event_name IN ({', '.join(map(text, old))}) THEN 'Data' ELSE 'Management' END"
    )


def _charged(old: Sequence[str]) -> str:
    listed = ", ".join(map(text, CHARGED))
    return f"SELECT * FROM usage WHERE {_category(old)} IN ({listed})"


def _by_category_and_region(old: Sequence[str], days: Period) -> str:
    # Insights are in `hourly` only.
    return f"""SELECT {_category(old)} AS kind, aws_region, sum(events)::BIGINT FROM hourly
        WHERE {days.where("hour")} GROUP BY kind, aws_region"""


def _grouped(charged: str, columns: tuple[str, ...], limit: int) -> str:
    names = ", ".join(columns)
    return f"""SELECT {names}, sum(events)::BIGINT AS n, sum(events) / sum(sum(events)) OVER (), count(*) OVER ()
        {charged} GROUP BY {names} ORDER BY n DESC, {names}""" + (f" LIMIT {limit}" if limit else "")


def _twins(old: Sequence[str], within: str) -> str:
    network = text(NETWORK_ACTIVITY)
    return f"""WITH sides AS (SELECT sum(CASE WHEN category = {network} THEN events ELSE 0 END) AS endpoint,
            sum(CASE WHEN category = {network} THEN 0 ELSE events END) AS others
        FROM ({_charged(old)}) WHERE {within} GROUP BY day, account_id, caller, service, event_name, resource_arn)
        SELECT coalesce(sum(least(endpoint, others)), 0)::BIGINT FROM sides"""
