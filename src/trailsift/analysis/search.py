"""A term, wherever it is: an address, a key, a name, an id. Its shape says where to look.

Ids, access keys and object keys are looked up in the stored events, whose files have skip filters for them. Names and
parts of names are looked up in the summaries, which count every event; those are kept by day.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

from trailsift.analysis.base import TARGETS, ask, stored_events, together, tuple_of
from trailsift.analysis.object import matches
from trailsift.analysis.resource import whole_days
from trailsift.analysis.resource_names import FOLDED
from trailsift.analysis.term_shapes import Shape, shape_of
from trailsift.analysis.time_range import Period
from trailsift.cloudtrail.key_patterns import key_pattern
from trailsift.cloudtrail.origins import source_network
from trailsift.errors import UsageError
from trailsift.query.engine import Engine
from trailsift.query.json_objects import JsonObject
from trailsift.query.relations import text, texts
from trailsift.schema import UNKNOWN_CATEGORY

#: Lines of each kind, and events, that are listed unless a limit is given.
MOST = 10
#: Addresses of a range whose events are looked up; of more, the summaries tell the networks.
_ADDRESSES = 1000


class Hit(NamedTuple):
    """Something that the summaries know by a name with the term in it. ``where``: caller, resource, event, error, key
    pattern, network, client, vpc endpoint, session or account."""

    where: str
    value: str
    events: int
    first_time: int
    last_time: int


class FoundEvent(NamedTuple):
    """A stored event with the term in ``column``."""

    event_time: int
    column: str
    event_name: str | None
    caller: str | None
    resource_arn: str | None
    object_key: str | None
    source_ip: str | None
    error_code: str | None
    event_id: str


@dataclass(frozen=True, slots=True)
class SearchReport(JsonObject):
    """Where a term was found.

    ``shapes``: what it looks like. ``hits``: the largest of each place; ``hit_counts``: how many there are.
    ``event_counts``: stored events by column; ``events``: the newest. ``places``: where it was looked for.
    ``counted`` and ``stored``: all events of the whole UTC days of the period, and those stored as single events.
    """

    term: str
    shapes: tuple[str, ...]
    period: Period
    hits: tuple[Hit, ...]
    hit_counts: dict[str, int]
    events: tuple[FoundEvent, ...]
    event_counts: dict[str, int]
    places: tuple[str, ...]
    counted: int
    stored: int
    query: str | None

    JSON: ClassVar[dict[str, str]] = {
        "term": "term",
        "shapes": "shapes",
        "period": "period",
        "found": "found",
        "hit_counts": "hit_counts",
        "hits": "hits",
        "event_counts": "event_counts",
        "events": "events",
        "looked_in": "places",
        "events_counted": "counted",
        "events_stored": "stored",
        "query": "query",
    }

    @property
    def found(self) -> bool:
        """True if the term is anywhere."""
        return bool(self.hits or self.events)

    @property
    def missing(self) -> int:
        """Events that are not stored as single events: ids, keys and addresses of these cannot be found."""
        return max(self.counted - self.stored, 0)

    @property
    def table(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The hits of the summaries and the events, as names of columns and rows."""
        names = ["where", "value", "events", "first_time", "last_time", "event_id"]
        rows: list[tuple[Any, ...]] = [(*hit, None) for hit in self.hits]
        rows += [(e.column, e.event_name, 1, e.event_time, e.event_time, e.event_id) for e in self.events]
        return names, rows


def search(engine: Engine, term: str, period: Period, limit: int = MOST) -> SearchReport:
    """Look for a term in the period; ``limit`` lines of each place and events at most (0: all).

    Raise UsageError for a term that is empty or too long, or a negative limit.
    """
    if limit < 0:
        raise UsageError(f"--limit {limit} is negative: use 0 for all rows")
    shape = shape_of(term)
    days = whole_days(period)
    hits, hit_counts = _in_summaries(engine, shape, days, limit)
    wanted = _conditions(engine, shape, period)
    events: dict[str, FoundEvent] = {}
    counts: dict[str, int] = {}
    possible = _possible(engine, shape, wanted, days)
    answers = together(
        *(partial(ask, engine, tuple_of, _events(column, wanted[column], period, limit)) for column in possible)
    )
    for column, found in zip(possible, answers, strict=True):
        if found:
            counts[column] = found[0][-1]
        for row in found:
            events.setdefault(row[-2], FoundEvent(*row[:-1]))
    newest = sorted(events.values(), key=lambda event: (-event.event_time, event.event_id))
    counted = f"SELECT coalesce(sum(events), 0)::BIGINT FROM usage WHERE {TARGETS} AND {days.where_day('day')}"
    named = " OR ".join(f"({wanted[column]})" for column in counts)
    return SearchReport(
        shape.term,
        shape.names,
        period,
        tuple(hits),
        hit_counts,
        tuple(newest[: limit or None]),
        counts,
        (*_SUMMARY_PLACES[shape.is_range or shape.is_address], *(f"{column} of events" for column in wanted)),
        ask(engine, tuple_of, counted)[0][0],
        stored_events(engine, days),
        f"SELECT * FROM events WHERE {named} ORDER BY event_time DESC" if named else None,
    )


#: Where names are looked for in the summaries; of addresses (True), only the networks tell.
_SUMMARY_PLACES = {
    False: ("callers", "resources", "event names", "error codes", "key patterns", "clients", "sessions",
            "VPC endpoints", "accounts of callers", "networks"),
    True: ("networks of callers",),
}  # fmt: skip
_DIMENSIONS = {
    "user_agent": "client",
    "vpc_endpoint": "vpc endpoint",
    "session_name": "session",
    "principal_account": "account",
    "source_network": "network",
}
_MEASURES = (
    "sum(events)::BIGINT AS events, epoch_us(min(first_time)) AS first_time, epoch_us(max(last_time)) AS last_time"
)


def _in_summaries(engine: Engine, shape: Shape, days: Period, limit: int) -> tuple[list[Hit], dict[str, int]]:
    daily = days.where_day("day")
    if shape.is_address or shape.is_range:
        names = _networks(engine, shape, days)
        parts = [
            f"SELECT 'network' AS place, value, {_MEASURES} FROM profile WHERE dimension = 'source_network' "
            f"AND {daily} AND list_contains({texts(names)}, value) GROUP BY value"
        ]
        if not names:
            return [], {}
    else:
        parts = [
            f"SELECT {text(where)} AS place, {column} AS value, {_MEASURES} FROM usage "
            f"WHERE {condition} AND {daily} AND {column} <> {text(FOLDED)} AND {_contains(shape, searched)} "
            f"GROUP BY {column}"
            for where, column, searched, condition in (
                ("caller", "caller", ("caller",), TARGETS),
                ("resource", "resource_arn", ("resource_arn",), "true"),
                ("event", "event_name", ("event_name",), TARGETS),
                ("error", "error_code", ("error_code",), TARGETS),
                ("key pattern", "key_pattern", ("key_pattern", "example_key"), "true"),
            )
        ]
        place = " ".join(f"WHEN {text(name)} THEN {text(word)}" for name, word in _DIMENSIONS.items())
        parts.append(
            f"SELECT CASE dimension {place} END AS place, value, {_MEASURES} FROM profile "
            f"WHERE {daily} AND value <> {text(FOLDED)} AND {_contains(shape, ('value',))} GROUP BY dimension, value"
        )
    at_most = f"WHERE rank <= {limit}" if limit else ""
    rows = ask(
        engine,
        tuple_of,
        f"""WITH found AS ({" UNION ALL ".join(parts)}),
            ranked AS (SELECT *, row_number() OVER (PARTITION BY place ORDER BY events DESC, value) AS rank,
                count(*) OVER (PARTITION BY place) AS number, max(events) OVER (PARTITION BY place) AS largest
                FROM found)
        SELECT place, value, events, first_time, last_time, number FROM ranked {at_most}
        ORDER BY largest DESC, place, rank""",
    )
    return [Hit(*row[:-1]) for row in rows], {row[0]: row[-1] for row in rows}


def _contains(shape: Shape, columns: Iterable[str]) -> str:
    folded = text(shape.term.lower())
    return "(" + " OR ".join(f"contains(lower({column}), {folded})" for column in columns) + ")"


def _networks(engine: Engine, shape: Shape, days: Period) -> list[str]:
    """Return the networks of the summaries that an address or a range is in."""
    if shape.is_address:
        network = source_network(shape.term)
        return [] if network is None else [network]
    sql = f"SELECT DISTINCT value FROM profile WHERE dimension = 'source_network' AND {days.where_day('day')}"
    return [row[0] for row in ask(engine, tuple_of, sql) if _overlaps(row[0], shape)]


def _overlaps(value: str, shape: Shape) -> bool:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return shape.range is not None and network.version == shape.range.version and network.overlaps(shape.range)


def _conditions(engine: Engine, shape: Shape, period: Period) -> dict[str, str]:
    """Return the columns of events to look into, each with its condition."""
    term = text(shape.term)
    if shape.range is not None and shape.range.version == 4 and shape.range.prefixlen in (8, 16, 24):
        begin = ".".join(str(shape.range[0]).split(".")[: shape.range.prefixlen // 8])
        return {"source_ip": f"starts_with(source_ip, {text(begin + '.')})"}
    if shape.is_range:
        listed = _addresses(engine, shape, period)
        return {} if listed is None else {"source_ip": f"list_contains({texts(listed)}, source_ip)"}
    conditions = {column: f"{column} = {term}" for column in shape.columns}
    if "resource_arns" in conditions:
        conditions["resource_arns"] = f"list_contains(resource_arns, {term})"
    if "principal_id" in conditions:
        # A session of a role has its name behind the role's id.
        conditions["principal_id"] = f"(principal_id = {term} OR starts_with(principal_id, {text(shape.term + ':')}))"
    if "user_agent" in conditions:
        conditions["user_agent"] = f"contains(lower(user_agent), {text(shape.term.lower())})"
    if shape.bucket_and_key is not None:
        bucket, key = shape.bucket_and_key
        ends = f"ends_with({{column}}, {text(':::' + bucket)}) AND "
        for column, owner in (("object_key", "resource_arn"), ("source_object_key", "source_resource_arn")):
            either = f"{ends.format(column=owner)}{matches(column, key)}"
            conditions[column] = f"({conditions[column]} OR {either})" if column in conditions else either
    return conditions


def _possible(engine: Engine, shape: Shape, wanted: Mapping[str, str], days: Period) -> list[str]:
    """Return the columns of events in which the term can be: the summaries rule out what they count completely."""
    named = {"session_name", "object_key", "source_object_key"} & wanted.keys()
    if not named or shape.bucket_and_key is not None:
        return list(wanted)
    folded, pattern, daily = text(FOLDED), text(key_pattern(shape.term)), days.where_day("day")
    sessions, keys, sources, other_sessions, other_keys = ask(
        engine,
        tuple_of,
        f"""SELECT sessions, keys, sources, other_sessions, other_keys FROM
            (SELECT count(*) FILTER (WHERE value = {text(shape.term)}) AS sessions,
                count(*) FILTER (WHERE value = {folded} OR category = {text(UNKNOWN_CATEGORY)}) AS other_sessions
            FROM profile WHERE dimension = 'session_name' AND {daily}),
            (SELECT count(*) FILTER (WHERE key_pattern = {pattern}) AS keys,
                count(*) FILTER (WHERE NOT {TARGETS} AND key_pattern = {pattern}) AS sources,
                count(*) FILTER (WHERE resource_arn = {folded} OR key_pattern = {folded}
                    OR category = {text(UNKNOWN_CATEGORY)}) AS other_keys
            FROM usage WHERE {daily})""",
    )[0]
    ruled_out = set()
    if not other_sessions and not sessions:
        ruled_out.add("session_name")
    if not other_keys:
        ruled_out |= {name for name, count in (("object_key", keys), ("source_object_key", sources)) if not count}
    return [column for column in wanted if column not in ruled_out]


def _addresses(engine: Engine, shape: Shape, period: Period) -> Sequence[str] | None:
    """Return the addresses of the events in a range; None if there are too many to look up."""
    assert shape.range is not None
    first, last = shape.range[0], shape.range[-1]
    # What both ends begin with alike, all between them begin with, too.
    begin = "" if shape.range.version == 6 else _common(str(first), str(last))
    within = f"{period.where('event_time')} AND starts_with(source_ip, {text(begin)})"
    rows = ask(engine, tuple_of, f"SELECT DISTINCT source_ip FROM events WHERE {within}")
    listed = sorted(address for (address,) in rows if address and _overlaps(address, shape))
    return listed if len(listed) <= _ADDRESSES else None


def _common(first: str, last: str) -> str:
    alike = 0
    while alike < min(len(first), len(last)) and first[alike] == last[alike]:
        alike += 1
    return first[:alike]


def _events(column: str, condition: str, period: Period, limit: int) -> str:
    return (
        f"SELECT epoch_us(event_time), {text(column)}, event_name, caller, resource_arn, object_key, source_ip, "
        f"error_code, event_id, count(*) OVER () FROM events WHERE {condition} AND {period.where('event_time')} "
        "ORDER BY event_time DESC, event_id" + (f" LIMIT {limit}" if limit else "")
    )
