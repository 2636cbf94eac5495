"""What surrounds a finding: its sessions, what its callers did before and after, who else came from their networks.

All of it is from the summary tables, which count every event whatever rules left out; only the access keys are from
``events``. Every query is bounded by the finding's callers, days and a limit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from trailsift.analysis.base import CALLS, ask
from trailsift.analysis.caller_names import has_no_arn
from trailsift.analysis.status import dropped_whole, thinned
from trailsift.cloudtrail.callers import is_arn
from trailsift.detect.callers import network_of
from trailsift.detect.finding import Finding
from trailsift.query.relations import text
from trailsift.times import HOUR, literal, moment

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

#: Hours before and after a finding that are looked at.
AROUND = 3
#: Lines of each kind that are returned.
LINES = 5
_NETWORKS = 3
#: Condition on calls that say most about what a caller is up to: recording, access, credentials, secrets.
_IS_TELLING = (
    "event_name IN ('ConsoleLogin', 'GetSecretValue', 'GetPasswordData') OR (read_only IS false AND regexp_matches("
    "event_name, 'AccessKey|LoginProfile|CreateUser|Policy|PublicAccessBlock|Lifecycle|SnapshotAttribute'))"
)
#: Condition on calls that change what is recorded: they come first of all.
_IS_RECORDING = (
    "read_only IS false AND regexp_matches(event_name, "
    "'^(DeleteTrail|UpdateTrail|StopLogging|PutEventSelectors|DeleteFlowLogs|DeleteDetector|UpdateDetector)')"
)
#: An address, and not the name of a service of AWS that passes calls on.
_ADDRESS = re.compile(r"[0-9a-fA-F:.]+(/[0-9]+)?", re.ASCII)


class Act(NamedTuple):
    """Calls of one name on one resource with one outcome, before or after a finding."""

    event_name: str | None
    resource_arn: str | None
    error_code: str | None
    events: int
    first_time: int
    last_time: int


class SessionUse(NamedTuple):
    """A session of a finding's callers: where it was used and with which client, on the finding's days."""

    caller: str | None
    session_name: str | None
    source_network: str | None
    user_agent: str | None
    events: int
    first_time: int
    last_time: int


class Neighbour(NamedTuple):
    """Another caller from a network of the finding, on its days."""

    caller: str | None
    source_network: str | None
    events: int
    first_time: int
    last_time: int


@dataclass(frozen=True)
class Context:
    """The surroundings of a finding. ``incomplete``: rules sampled or dropped events of the lake."""

    sessions: tuple[SessionUse, ...] = ()
    before: tuple[Act, ...] = ()
    after: tuple[Act, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    networks: tuple[str, ...] = ()
    access_keys: tuple[str, ...] = ()
    incomplete: bool = False


def context_of(engine: DuckDBEngine, finding: Finding) -> Context:
    """Return what surrounds a finding."""
    root = engine.snapshot.root
    sessions = _sessions(engine, finding) if _has_names(finding) else []
    networks = [use.source_network for use in sessions if use.source_network and _is_address(use.source_network)]
    nearest = tuple(dict.fromkeys(networks))[:_NETWORKS]
    return Context(
        tuple(sessions[:LINES]),
        tuple(_acts(engine, finding, before=True)),
        tuple(_acts(engine, finding, before=False)),
        tuple(_neighbours(engine, finding, nearest)),
        nearest,
        tuple(_access_keys(engine, finding)),
        bool(dropped_whole(root)) or thinned(root),
    )


def _has_names(finding: Finding) -> bool:
    """Return whether the table ``sessions``, which has the column ``caller`` alone, knows the finding's callers."""
    return all(
        caller is not None and (is_arn(caller) or has_no_arn(caller) or network_of(caller))
        for caller in finding.callers or (finding.caller,)
    )


def _is_address(network: str) -> bool:
    return _ADDRESS.fullmatch(network) is not None


def _days(finding: Finding) -> str:
    first, last = (f"DATE '{moment(time):%Y-%m-%d}'" for time in (finding.first_time, finding.last_time))
    return f"day >= {first} AND day <= {last}"


def _sessions(engine: DuckDBEngine, finding: Finding) -> Sequence[SessionUse]:
    network = network_of(finding.caller)
    own = "" if network is None else f" AND source_network = {text(network)}"
    return ask(
        engine,
        SessionUse,
        f"""SELECT caller, session_name, source_network, user_agent, sum(events)::BIGINT AS n,
            epoch_us(min(first_time)), epoch_us(max(last_time))
        FROM sessions WHERE {finding.by_callers}{own} AND {CALLS} AND {_days(finding)}
            AND last_time >= {literal(finding.first_time)} AND first_time <= {literal(finding.last_time)}
        GROUP BY caller, session_name, source_network, user_agent
        ORDER BY n DESC, 6, 1, 2, 3, 4 LIMIT {4 * LINES}""",
    )


def _acts(engine: DuckDBEngine, finding: Finding, *, before: bool) -> Sequence[Act]:
    """Return calls of a finding's callers beside its time, in their order: the telling ones first of all."""
    first, last = finding.first_time, finding.last_time
    since, until = (first // HOUR - AROUND, first // HOUR) if before else (last // HOUR, last // HOUR + AROUND)
    beside = f"last_time < {literal(first)}" if before else f"first_time > {literal(last)}"
    acts = ask(
        engine,
        Act,
        f"""SELECT event_name, resource_arn, error_code, sum(events)::BIGINT AS n, epoch_us(min(first_time)),
            epoch_us(max(last_time))
        FROM hourly WHERE {finding.by_callers} AND {CALLS} AND {beside}
            AND hour >= {literal(since * HOUR)} AND hour <= {literal(until * HOUR)}
        GROUP BY event_name, resource_arn, error_code
        ORDER BY bool_or({_IS_RECORDING}) DESC, bool_or({_IS_TELLING}) DESC, bool_or(read_only IS false) DESC, n DESC,
            1, 2, 3 LIMIT {LINES}""",
    )
    return sorted(acts, key=lambda act: act.first_time)


def _neighbours(engine: DuckDBEngine, finding: Finding, networks: Sequence[str]) -> Sequence[Neighbour]:
    if not networks:
        return ()
    return ask(
        engine,
        Neighbour,
        f"""SELECT caller, source_network, sum(events)::BIGINT AS n, epoch_us(min(first_time)),
            epoch_us(max(last_time))
        FROM sessions WHERE source_network IN ({", ".join(map(text, networks))}) AND NOT ({finding.by_callers})
            AND {CALLS} AND {_days(finding)}
        GROUP BY caller, source_network ORDER BY n DESC, 1, 2 LIMIT {LINES}""",
    )


def _access_keys(engine: DuckDBEngine, finding: Finding) -> list[str]:
    """Return the long-term access keys (AKIA...) behind a finding, the busiest first."""
    rows = engine.sql(
        f"""SELECT access_key_id FROM events WHERE {finding.condition} AND access_key_id LIKE 'AKIA%'
        GROUP BY access_key_id ORDER BY count(*) DESC, 1 LIMIT {LINES}"""
    ).rows()
    return [key for (key,) in rows]
