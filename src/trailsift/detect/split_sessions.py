"""Sessions of roles that are used in two places on one day: another network and another client.

The credentials of an instance (a session named ``i-...``) belong on that instance, so such a session is a strong sign
that they were taken; in exports that name nothing but the session, it is the caller ``user:i-...``. A person's or a
program's session may be used by several machines under one name: there, one access key must have been used in both
places. Calls through VPC endpoints have private addresses and count nowhere, and so does a place that the caller knew
before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from trailsift.analysis.base import CALLS, ask, tuple_of
from trailsift.analysis.time_range import Period
from trailsift.cloudtrail.origins import agent_family, source_network
from trailsift.detect.baseline import FIRSTS, Baseline, Day, SessionPlace
from trailsift.detect.finding import Signal
from trailsift.query.relations import text
from trailsift.times import DAY

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

_INSTANCE, _OTHER = 6.5, 2.4  # rarity of a split session of an instance, and of another role's session
_OTHER_FAMILY = 0.55  # what IPv4 beside IPv6 counts: hosts have both
_PLACES_MOST = 4  # networks of a session in a day; more are the pool of a gateway
_CANDIDATES = 50  # sessions of a day whose access keys are looked up
_KEYS_MOST = 500  # distinct keys, addresses and clients of one session in a day
#: The session of a line; of a caller that is a session's name, that name.
_SESSION = "coalesce(session_name, CASE WHEN starts_with(caller, 'user:i-') THEN substr(caller, 6) END)"
#: A network, not the name of a service.
_ADDRESSES = "regexp_matches(source_network, '/(24|48)$')"


class _Key(NamedTuple):
    day: int
    caller: str
    session: str


def read_places(engine: DuckDBEngine, period: Period) -> dict[int, list[SessionPlace]]:
    """Return the places of the sessions that had several on a day, by day (since 1970)."""
    sql = f"""WITH places AS (
            SELECT epoch_us(day::TIMESTAMP) // {DAY} AS day, caller, {_SESSION} AS session, source_network,
                list_sort(list(DISTINCT coalesce(user_agent, ''))) AS agents, sum(events)::BIGINT AS events,
                epoch_us(min(first_time)) AS a, epoch_us(max(last_time)) AS b
            FROM sessions WHERE {period.where_day("day")} AND {CALLS} AND session IS NOT NULL
                AND vpc_endpoint IS NULL AND {_ADDRESSES} GROUP BY 1, 2, 3, 4)
        SELECT * FROM places
        QUALIFY count(*) OVER (PARTITION BY day, caller, session) BETWEEN 2 AND {_PLACES_MOST}
        ORDER BY day, caller, session, a, source_network"""
    of_session: dict[_Key, list[SessionPlace]] = defaultdict(list)
    for day, caller, session, network, agents, events, first, last in ask(engine, tuple_of, sql):
        place = SessionPlace(caller, session, network, frozenset(agents), events, first, last)
        of_session[_Key(day, caller, session)].append(place)
    split = {key: places for key, places in of_session.items() if _apart(places)}
    unsure: dict[int, list[_Key]] = defaultdict(list)
    for key in split:
        if not _of_instance(key.session):
            unsure[key.day].append(key)
    shared = _sharing_keys(engine, period, [key for keys in unsure.values() for key in keys[:_CANDIDATES]])
    out: dict[int, list[SessionPlace]] = defaultdict(list)
    for key, places in split.items():
        if _of_instance(key.session) or key in shared:
            out[key.day] += places
    return out


def _of_instance(session: str) -> bool:
    return session.startswith("i-")


def _apart(places: Sequence[SessionPlace]) -> bool:
    return any(not one.agents & other.agents for one in places for other in places if one is not other)


def _sharing_keys(engine: DuckDBEngine, period: Period, keys: Sequence[_Key]) -> set[_Key]:
    """Return the sessions in which one access key was used from two networks with two clients."""
    if not keys:
        return set()
    pairs = ", ".join(sorted({f"({text(key.caller)}, {text(key.session)})" for key in keys}))
    sql = f"""WITH used AS (
            SELECT DISTINCT epoch_us(event_time) // {DAY} AS of_day, caller, session_name, access_key_id, source_ip,
                user_agent
            FROM events WHERE {period.where("event_time")} AND (caller, session_name) IN ({pairs})
                AND access_key_id IS NOT NULL AND vpc_endpoint_id IS NULL)
        SELECT * FROM used QUALIFY row_number() OVER (PARTITION BY of_day, caller, session_name
            ORDER BY access_key_id, source_ip, user_agent) <= {_KEYS_MOST} ORDER BY ALL"""
    agents: dict[tuple[_Key, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for day, caller, session, access_key, address, agent in ask(engine, tuple_of, sql):
        network = source_network(address)
        if network is not None and network.endswith(("/24", "/48")):
            agents[_Key(day, caller, session), access_key][network].add(agent_family(agent) or "")
    return {
        key
        for (key, _), networks in agents.items()
        if any(not one & other for one in networks.values() for other in networks.values() if one is not other)
    }


def find_split_sessions(baseline: Baseline, day: Day) -> list[Signal]:
    """Return the sessions that were used in a place new to their caller, with another client than in the usual one."""
    firsts = day.firsts
    kind = FIRSTS.index("first_network")
    new = {
        (baseline.names[int(caller)], value)
        for caller, place, value in zip(firsts.caller, firsts.kind, firsts.value, strict=True)
        if place == kind
    }
    of_session: dict[tuple[str, str], list[SessionPlace]] = defaultdict(list)
    for place in day.places:
        of_session[place.caller, place.session].append(place)
    signals = []
    for (caller, session), places in of_session.items():
        usual = min(places, key=lambda place: ((caller, place.network) in new, place.first_time, place.network))
        away = _away(usual, [place for place in places if (caller, place.network) in new and place is not usual])
        if away is not None:
            signals.append(_signal(baseline, caller, session, usual, away))
    return signals


def _away(usual: SessionPlace, others: Iterable[SessionPlace]) -> SessionPlace | None:
    apart = [place for place in others if not place.agents & usual.agents]
    return min(apart, key=lambda place: (place.first_time, place.network), default=None)


def _signal(baseline: Baseline, caller: str, session: str, usual: SessionPlace, away: SessionPlace) -> Signal:
    instance = _of_instance(session)
    rarity = _INSTANCE if instance else _OTHER
    if (":" in usual.network) != (":" in away.network):
        rarity *= _OTHER_FAMILY
    age = int(baseline.age[baseline.callers[caller]])
    return Signal(
        "split_session",
        caller,
        rarity,
        away.first_time,
        away.last_time,
        session,
        away.events,
        mitre=("T1552.005",) if instance else (),
        parts=tuple((_label(place), float(place.events), 0.0, 0.0) for place in (usual, away)),
        past=age,
        basis="own" if age else "day",
    )


def _label(place: SessionPlace) -> str:
    return f"{place.network}, {'/'.join(sorted(place.agents)[:3])}"
