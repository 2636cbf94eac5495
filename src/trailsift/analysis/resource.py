"""One resource, as a bucket, a table or a function: who reads, writes, deletes and lists it, and from where.

All of it comes from tables that are kept by day: a report is on the whole UTC days that its period touches, so that
all of its numbers belong together. They count every event, whatever rules dropped or sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from trailsift.analysis.base import CALLS, NETWORK_ACTIVITY, TARGETS, ask, together, tuple_of
from trailsift.analysis.resource_names import FOLDED, find_resource
from trailsift.analysis.summary import Hour, Refusal, hours, refusals
from trailsift.analysis.time_range import Period
from trailsift.query.engine import Engine
from trailsift.query.json_objects import JsonObject
from trailsift.query.relations import text
from trailsift.schema import SOURCE, UNKNOWN_CATEGORY
from trailsift.times import DAY

#: New callers and networks that a report lists.
MOST_FIRSTS = 20


class KindOfUse(NamedTuple):
    """One kind of use of the resource: ``kind`` as in the table ``access``, or ``copy`` for what copies read of it."""

    kind: str
    events: int
    denied: int
    callers: int
    bytes_in: int
    bytes_out: int
    first_time: int
    last_time: int


class CallerOfResource(NamedTuple):
    """One caller of the resource. ``deletes`` counts calls, each of which can be of many objects (DeleteObjects);
    ``copies`` read the resource and wrote elsewhere; they are beside ``events``."""

    caller: str | None
    events: int
    reads: int
    writes: int
    deletes: int
    lists: int
    copies: int
    denied: int
    bytes_in: int
    bytes_out: int
    networks: int
    owner_side: int
    first_time: int
    last_time: int


class NetworkOfResource(NamedTuple):
    """One network from which the resource was used, copies included."""

    source_network: str | None
    events: int
    denied: int
    callers: int
    bytes_out: int
    first_time: int
    last_time: int


class PatternOfResource(NamedTuple):
    """One pattern of the resource's object keys, copies included."""

    key_pattern: str
    events: int
    event_names: list[str]
    callers: int
    bytes_in: int
    bytes_out: int
    example_key: str | None
    last_time: int


class First(NamedTuple):
    """A caller or a network that used the resource for the first time, more than a day after its first use."""

    dimension: str
    value: str | None
    first_time: int
    events: int


class SecondRecords(NamedTuple):
    """How many of the counted events are the second record of a call.

    ``accounts``: calls between accounts that both of them logged, by day and kind of use the smaller number of both.
    ``network_activity``: calls through VPC endpoints that were logged as such and as Data or Management, by day, caller
    and kind of use the smaller number.
    """

    accounts: int
    network_activity: int


@dataclass(frozen=True, slots=True)
class ResourceReport(JsonObject):
    """The use of one resource in whole UTC days.

    ``events`` are records of calls on it; ``copies``, which read it and wrote elsewhere, are beside them. ``folded``:
    events of the period on resources that a summary folded together, among which there can be some of this one.
    Days of which only summaries of format version 1 are left have no kinds of use and no networks: ``without_kind``
    events are of the kind ``unknown``.
    """

    resource_arn: str
    period: Period
    kinds: tuple[KindOfUse, ...]
    callers: tuple[CallerOfResource, ...]
    networks: tuple[NetworkOfResource, ...]
    patterns: tuple[PatternOfResource, ...]
    firsts: tuple[First, ...]
    hours: tuple[Hour, ...]
    refusals: tuple[Refusal, ...]
    second: SecondRecords
    folded: int

    JSON: ClassVar[dict[str, str]] = {
        "resource_arn": "resource_arn",
        "period": "period",
        "events": "events",
        "calls_at_least": "calls",
        "copies": "copies",
        "denied": "denied",
        "second_records": "second",
        "folded": "folded",
        "kinds": "kinds",
        "callers": "callers",
        "networks": "networks",
        "key_patterns": "patterns",
        "firsts": "firsts",
        "refused": "refusals",
        "hours": "hours",
        "without_kind": "without_kind",
        "query": "query",
    }

    @property
    def events(self) -> int:
        """All records of calls on the resource, without copies out of it."""
        return sum(kind.events for kind in self.kinds if kind.kind != COPY)

    @property
    def without_kind(self) -> int:
        """How many events have no known kind of use."""
        return sum(kind.events for kind in self.kinds if kind.kind == UNKNOWN_CATEGORY)

    @property
    def copies(self) -> int:
        """All copies that read the resource and wrote elsewhere."""
        return sum(kind.events for kind in self.kinds if kind.kind == COPY)

    @property
    def denied(self) -> int:
        """How many calls were denied, copies included."""
        return sum(kind.denied for kind in self.kinds)

    @property
    def calls(self) -> int:
        """The number of calls, copies included: each counted once, as far as the summaries tell. It can be more."""
        return self.events + self.copies - self.second.accounts - self.second.network_activity

    @property
    def query(self) -> str:
        """SQL to go on with: the newest events."""
        within = "" if self.period.whole else f" AND {self.period.where('event_time')}"
        return (
            f"SELECT * FROM events WHERE resource_arn = {text(self.resource_arn)}{within} "
            "ORDER BY event_time DESC LIMIT 20"
        )

    @property
    def table(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The callers as names of columns and rows."""
        return list(CallerOfResource._fields), list(self.callers)


#: The kind of what copies read.
COPY = "copy"


def whole_days(period: Period) -> Period:
    """Return the whole UTC days that a period touches."""
    since = None if period.since is None else period.since // DAY * DAY
    until = None if period.until is None else -(-period.until // DAY) * DAY
    return Period(since, until, period.zone)


def resource(engine: Engine, name: str, period: Period) -> ResourceReport:
    """Return the report on one resource. Raise UsageError if the name refers to none or several."""
    arn = find_resource(engine, name)
    days = whole_days(period)
    own = f"resource_arn = {text(arn)} AND {CALLS}"
    daily = f"{own} AND {days.where_day('day')}"
    uses, patterns, firsts, listed_hours, refused, rest = together(
        lambda: ask(engine, tuple_of, _uses(daily)),
        lambda: ask(engine, PatternOfResource, _patterns(daily)),
        lambda: ask(engine, First, _firsts(own, days)),
        lambda: hours(engine, days, own),
        lambda: refusals(engine, days, condition=own),
        lambda: ask(engine, tuple_of, _rest(daily, days)),
    )
    second_by_accounts, second_by_endpoints, folded = rest[0]
    return ResourceReport(
        arn,
        days,
        tuple(KindOfUse(row[1], *row[4:9], *row[10:12]) for row in uses if row[0] == "kind"),
        tuple(_caller_of(row) for row in uses if row[0] == "caller"),
        tuple(
            NetworkOfResource(row[3], row[4], row[5], row[6], row[8], *row[10:12])
            for row in uses
            if row[0] == "network"
        ),
        tuple(patterns),
        tuple(firsts),
        tuple(listed_hours),
        tuple(refused),
        SecondRecords(second_by_accounts, second_by_endpoints),
        folded,
    )


#: The network of lines that have none.
_NO_NETWORK = text("(unknown)")
_COLUMNS = "day, caller, resource_arn, category, events, bytes_in, bytes_out, owner_side, first_time, last_time"
#: Lines of ``access``, and of ``usage`` what has none there: days that an upgrade from format version 1 left as they
#: were.
_USES = f"""(SELECT {_COLUMNS}, denied, source_network,
        CASE WHEN touch = {text(SOURCE)} THEN {text(COPY)} ELSE kind END AS kind_of_use FROM access
    UNION ALL SELECT {_COLUMNS}, CASE WHEN is_denied(error_code) THEN events ELSE 0 END, {_NO_NETWORK},
        {text(UNKNOWN_CATEGORY)}
    FROM usage WHERE category = {text(UNKNOWN_CATEGORY)})"""
_SPAN = "epoch_us(min(first_time)), epoch_us(max(last_time))"


def _uses(daily: str) -> str:
    """Return SQL of the lines by kind of use, by caller and by network, which are told apart by the first column."""
    counts = ", ".join(
        f"coalesce(sum(events) FILTER (WHERE kind_of_use IN ({kinds})), 0)::BIGINT"
        for kinds in ("'read'", "'write'", "'delete', 'delete-batch'", "'list'", text(COPY))
    )
    return f"""SELECT CASE grouping(kind_of_use, caller, source_network) WHEN 3 THEN 'kind' WHEN 5 THEN 'caller'
                ELSE 'network' END AS part, kind_of_use, caller, source_network,
            sum(events)::BIGINT, sum(denied)::BIGINT, count(DISTINCT caller), coalesce(sum(bytes_in), 0)::BIGINT,
            coalesce(sum(bytes_out), 0)::BIGINT, count(DISTINCT nullif(source_network, {_NO_NETWORK})), {_SPAN},
            coalesce(sum(owner_side), 0)::BIGINT, {counts}
        FROM {_USES} WHERE {daily} GROUP BY GROUPING SETS ((kind_of_use), (caller), (source_network))
        HAVING part <> 'network' OR source_network IS DISTINCT FROM {_NO_NETWORK}
        ORDER BY part, 5 DESC, kind_of_use, caller, source_network"""


def _caller_of(row: tuple[Any, ...]) -> CallerOfResource:
    events, denied, _, bytes_in, bytes_out, networks, first, last, owner_side, *kinds = row[4:]
    reads, writes, deletes, lists, copies = kinds
    measures = (denied, bytes_in, bytes_out, networks, owner_side, first, last)
    return CallerOfResource(row[2], events - copies, reads, writes, deletes, lists, copies, *measures)


def _patterns(daily: str) -> str:
    return f"""SELECT key_pattern, sum(events)::BIGINT, list_sort(list(DISTINCT event_name)), count(DISTINCT caller),
            coalesce(sum(bytes_in), 0)::BIGINT, coalesce(sum(bytes_out), 0)::BIGINT, min(example_key),
            epoch_us(max(last_time))
        FROM usage WHERE {daily} AND key_pattern IS NOT NULL GROUP BY key_pattern ORDER BY 2 DESC, key_pattern"""


def _firsts(own: str, days: Period) -> str:
    """Return SQL of who and what is new in the days, by everything that the lake has of the resource."""
    parts = " UNION ALL ".join(
        f"""SELECT {text(name)} AS dimension, {name} AS value, min(first_time) AS first_time, sum(events)::BIGINT AS n
            FROM used WHERE {name} IS NOT NULL AND {name} NOT IN ({text(FOLDED)}, {_NO_NETWORK}) GROUP BY {name}"""
        for name in ("caller", "source_network")
    )
    return f"""WITH used AS (SELECT * FROM {_USES} WHERE {own})
        SELECT dimension, value, epoch_us(first_time), n FROM ({parts})
        WHERE first_time >= (SELECT min(first_time) FROM used) + INTERVAL 1 DAY AND {days.where("first_time")}
        ORDER BY first_time DESC, dimension, value LIMIT {MOST_FIRSTS}"""


def _rest(daily: str, days: Period) -> str:
    """Return SQL of the second records of calls: of two accounts, of two categories; and of what is folded."""
    network = text(NETWORK_ACTIVITY)
    # The accounts whose records are the owner's hold the owner's view of every call.
    folded = " + ".join(
        f"(SELECT coalesce(sum(events), 0)::BIGINT FROM {table} WHERE resource_arn = {text(FOLDED)} "
        f"AND {condition} AND {TARGETS} AND {days.where_day('day')})"
        for table, condition in (("access", "true"), ("usage", f"category = {text(UNKNOWN_CATEGORY)}"))
    )
    return f"""WITH every AS MATERIALIZED (SELECT * FROM access WHERE {daily}),
            own AS (SELECT * FROM every WHERE category IS DISTINCT FROM {network}),
            owners AS (SELECT DISTINCT account_id FROM own WHERE owner_side > 0),
            sides AS (SELECT coalesce(sum(owner_side), 0) AS owned,
                coalesce(sum(events - owner_side) FILTER (WHERE account_id NOT IN (SELECT account_id FROM owners)), 0)
                    AS called
                FROM own GROUP BY day, kind, touch),
            twins AS (SELECT sum(CASE WHEN category = {network} THEN events ELSE 0 END) AS endpoint,
                sum(CASE WHEN category = {network} THEN 0 ELSE events END) AS others
                FROM every GROUP BY day, account_id, caller, kind, touch)
        SELECT (SELECT coalesce(sum(least(owned, called)), 0)::BIGINT FROM sides),
            (SELECT coalesce(sum(least(endpoint, others)), 0)::BIGINT FROM twins), {folded}"""
