"""Run detections over a lake: rows of their SQL become matches, and matches become signals."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from trailsift.detect.acts import acts_relations
from trailsift.detect.callers import is_one
from trailsift.detect.console_noise import CONSOLE_NOISE, console_noise_relation
from trailsift.detect.correlate import SUPPORTING
from trailsift.detect.detection_file import (
    COLUMNS,
    SEVERITY_RARITY,
    Detection,
    DetectionError,
    Problem,
    builtin_rules,
    load_rules,
    parse,
)
from trailsift.detect.event_scan import batches
from trailsift.detect.finding import Signal
from trailsift.errors import EngineError, QueryError
from trailsift.query.relations import text
from trailsift.runtime import shortage
from trailsift.times import DAY, HOUR, literal, moment

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

__all__ = [
    "COLUMNS",
    "SEVERITY_RARITY",
    "Detection",
    "Problem",
    "RuleMatch",
    "builtin_rules",
    "group_matches",
    "load_rules",
    "parse",
    "run_all",
    "run_detection",
    "run_detections",
    "run_rules",
    "to_signals",
]

#: Seconds that the rules of others may take in one run, together.
SCAN_SECONDS = 900.0
#: Rows of one caller closer than this are one match; rows within a few hours of its begin are its core.
_APART = 7 * DAY
_NEAR = 3 * HOUR
_CALLS_NAMED = 5  # kinds of calls that a match names
#: What was there on the first day of a lake, and on so many of its days, is ordinary there.
_STEADY_DAYS, _STEADY_SHARE = 3, 0.4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RuleMatch(NamedTuple):
    """Rows of one account and caller that belong together; times are microseconds since 1970.

    ``near`` is the last time of the rows within hours of its begin, ``last_time`` that of all rows. Event and resource
    are those of the busiest row, which has ``most`` events. ``days``: distinct days on which its rows begin. ``calls``:
    the kinds of calls of all rows, with their numbers, those with most first.
    """

    account_id: str | None
    caller: str | None
    event_name: str | None
    resource_arn: str | None
    first_time: int
    last_time: int
    events: int
    near: int
    most: int
    days: int = 1
    calls: tuple[tuple[str, int], ...] = ()


def run_detections(engine: DuckDBEngine, detections: Sequence[Detection]) -> tuple[list[Signal], list[Problem]]:
    """Return the signals of all detections, and the problems of those that fail."""
    signals: list[Signal] = []
    problems: list[Problem] = []
    for rule, rows in run_all(engine, detections, lambda rule: 0):
        if isinstance(rows, Problem):
            problems.append(rows)
        else:
            signals += to_signals(rule, group_matches(rows))
    return signals, problems


def run_all(
    engine: DuckDBEngine, detections: Sequence[Detection], since_of: Callable[[Detection], int]
) -> Iterator[tuple[Detection, list[RuleMatch] | Problem]]:
    """Yield each detection with its rows from its day ``since_of`` on, in order.

    Detections over `acts` share one scan, and those that are conditions on single events share passes over the events.
    """
    together = _run_over_acts(engine, [(rule, since_of(rule)) for rule in detections])
    budget = _Budget(SCAN_SECONDS)
    scans = [(place, rule.scan, since_of(rule)) for place, rule in enumerate(detections) if rule.scan is not None]
    for batch in batches(scans):
        try:
            found = engine.query(_newer(batch.sql, batch.since), timeout=budget.left()).dicts()
        except (QueryError, EngineError) as error:
            if shortage(error):
                raise
            # One of them cannot run; alone, each says so itself.
            continue
        rows_of: dict[int, list[dict[str, Any]]] = {place: [] for place in batch.places}
        for row in found:
            rows_of[row["rule"]].append(row)
        together |= {place: _matches(rows, batch.since) for place, rows in rows_of.items()}
    for place, rule in enumerate(detections):
        if place in together:
            yield rule, together[place]
        else:
            yield rule, run_detection(engine, rule, since_of(rule), budget if rule.timed else None)


class _Budget:
    """Seconds that are left for the rules of others."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, at least a little: so that each rule has its own message."""
        return max(self._end - time.monotonic(), 0.1)


def run_detection(
    engine: DuckDBEngine, detection: Detection, since: int = 0, budget: _Budget | None = None
) -> list[RuleMatch] | Problem:
    """Return the rows of a detection, from the day ``since`` (since 1970) on if it declares its history.

    Raises EngineError where the system refuses memory, threads or open files."""
    try:
        rows = _rows(engine, detection, since, budget)
    except (QueryError, EngineError) as error:
        if shortage(error):
            # The machine's fault, not this detection's: the next ones would fail too.
            raise
        return Problem(detection.path, detection.line, f"its SQL fails: {error}")
    except DetectionError as error:
        return Problem(detection.path, error.line, str(error))
    return _matches(rows, since)


def run_rules(engine: DuckDBEngine, chosen: Sequence[tuple[Detection, int]]) -> list[list[RuleMatch] | Problem]:
    """Return for each (detection, since) what ``run_detection`` returns."""
    since_of = {id(rule): since for rule, since in chosen}
    return [rows for _, rows in run_all(engine, [rule for rule, _ in chosen], lambda rule: since_of[id(rule)])]


def _run_over_acts(engine: DuckDBEngine, chosen: Sequence[tuple[Detection, int]]) -> dict[int, list[RuleMatch]]:
    """Return the rows of detections over `acts`, by place; without those of a scan that failed."""
    out: dict[int, list[RuleMatch]] = {}
    shared: dict[int, list[int]] = defaultdict(list)
    for place, (rule, since) in enumerate(chosen):
        if rule.calls:
            shared[since if rule.history is not None else 0].append(place)
    for since, places in shared.items():
        out |= _run_shared(engine, [chosen[place][0] for place in places], places, since)
    return out


def _run_shared(
    engine: DuckDBEngine, rules: Sequence[Detection], places: Sequence[int], since: int
) -> dict[int, list[RuleMatch]]:
    """Return the rows by place; nothing if the statement fails: each is then run by itself, to find the wrong one."""
    simple = [(place, rule) for place, rule in zip(places, rules, strict=True) if rule.test]
    others = [(place, rule) for place, rule in zip(places, rules, strict=True) if not rule.test]
    branches = [
        f"SELECT {place} AS place, {', '.join(COLUMNS)} FROM ({_over_acts(rule, since)})" for place, rule in others
    ]
    if simple:
        branches.append(_of_all(simple))
    calls = {call for rule in rules for call in rule.calls}
    history = max((rule.history or 0 for rule in rules), default=0)
    try:
        rows = engine.query(
            f"WITH {acts_relations(calls, _since(since, history))} {' UNION ALL '.join(branches)}"
        ).dicts()
        rows_of: dict[int, list[dict[str, Any]]] = {place: [] for place in places}
        for row in rows:
            rows_of[row["place"]].append(row)
        return {place: _matches(of_rule, since) for place, of_rule in rows_of.items()}
    except (QueryError, EngineError):
        return {}


def _of_all(simple: Sequence[tuple[int, Detection]]) -> str:
    """Return one SELECT for all detections that count nothing: one branch for each takes seconds to plan."""
    tests = ", ".join(
        f"CASE WHEN call IN ({', '.join(map(text, rule.calls))}) THEN CASE WHEN (\n{rule.test}\n) THEN {place} END END"
        for place, rule in simple
    )
    return f"""SELECT place, account_id, caller, min(event_name) AS event_name, target AS resource_arn,
            min(event_time) AS first_time, max(event_time) AS last_time, round(sum(weight))::BIGINT AS events
        FROM (SELECT account_id, caller, event_name, target, event_time, weight,
            unnest(list_filter([{tests}], lambda place: place IS NOT NULL)) AS place FROM acts_all)
        GROUP BY place, account_id, caller, event_name, target, date_trunc('day', event_time)"""


def _matches(rows: Sequence[Mapping[str, Any]], since: int) -> list[RuleMatch]:
    matches = []
    who = _caller_column(rows[0]) if rows else ""
    for row in rows:
        first, last = (_micros(row[name]) for name in ("first_time", "last_time"))
        names = (row["account_id"], row[who], row["event_name"], row["resource_arn"])
        events = int(row["events"])
        calls = ((row["event_name"], events),) if row["event_name"] else ()
        matches.append(RuleMatch(*names, first, last, events, last, events, 1, calls))
    return [match for match in matches if match.first_time >= since * DAY]


def group_matches(rows: Sequence[RuleMatch], before: Sequence[RuleMatch] = ()) -> list[RuleMatch]:
    """Merge rows of one account and caller unless a week lies between them: recurring behaviour is reported once.

    Nobody in particular and the public are distinguished by the resource. ``before``: matches of earlier rows, to
    continue.
    """
    out: list[RuleMatch] = []
    place: dict[tuple[Any, ...], int] = {}
    for row in [*before, *sorted(rows, key=lambda row: (row.first_time, row.last_time, *map(str, row[:4])))]:
        key = (row.account_id, row.caller, None if is_one(row.caller) else row.resource_arn)
        at = place.get(key)
        if at is None or row.first_time - out[at].last_time > _APART:
            place[key] = len(out)
            out.append(row)
            continue
        old = out[at]
        busiest = max(old, row, key=lambda match: match.most)
        out[at] = old._replace(
            event_name=busiest.event_name,
            resource_arn=busiest.resource_arn,
            last_time=max(old.last_time, row.last_time),
            events=old.events + row.events,
            near=max(old.near, row.last_time) if row.first_time <= old.near + _NEAR else old.near,
            most=busiest.most,
            days=old.days + (row.first_time // DAY > old.last_time // DAY),
            calls=_most_called(old.calls, row.calls),
        )
    return out


def _most_called(calls: Iterable[tuple[str, int]], more: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    sums: Counter[str] = Counter()
    for name, events in (*calls, *more):
        sums[name] += events
    return tuple(sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:_CALLS_NAMED])


def rarity_of(detection: Detection) -> float:
    """Return the rarity of a detection's signals."""
    return SUPPORTING if detection.supporting else SEVERITY_RARITY[detection.severity]


def is_steady(match: RuleMatch, days: Sequence[int]) -> bool:
    """Return whether a match is there from the first day of a lake on, and on many of its days.

    ``days``: those with events (since 1970), in order.
    """
    lived = sum(1 for day in days if day <= match.last_time // DAY)
    return lived >= _STEADY_DAYS and match.first_time // DAY == days[0] and match.days >= max(2, _STEADY_SHARE * lived)


def to_signals(detection: Detection, matches: Iterable[RuleMatch], days: Sequence[int] = ()) -> list[Signal]:
    """Return a signal for each match.

    ``days``: those of the lake with events; a match that is steady there, of a detection that says so, is a hint.
    """
    return [
        Signal(
            "detection",
            match.caller,
            SEVERITY_RARITY["hint"] if detection.steady and is_steady(match, days) else rarity_of(detection),
            match.first_time,
            match.near,
            detection.title,
            match.events,
            None,
            match.event_name,
            match.resource_arn,
            detection.title_ko,
            detection.id,
            detection.mitre,
            match.last_time,
            tuple((name, float(events), 0.0, 0.0) for name, events in match.calls),
        )
        for match in matches
    ]


def _rows(
    engine: DuckDBEngine, detection: Detection, since: int = 0, budget: _Budget | None = None
) -> list[dict[str, Any]]:
    result = engine.query(_limited(detection, since), timeout=budget.left() if budget else None)
    missing = [name for name in COLUMNS if name not in result.names]
    # Detections that were written for earlier versions return `role_arn`.
    if "role_arn" in result.names and "caller" in missing:
        missing.remove("caller")
    if missing:
        raise DetectionError(detection.line, f"its SQL returns no column {', '.join(missing)}")
    return result.dicts()


def _caller_column(row: Mapping[str, Any]) -> str:
    return "caller" if "caller" in row else "role_arn"


#: Table -> its time column. Reading fewer days only saves cost: no row depends on more than ``history`` days.
_TIMES = {
    "events": "event_time",
    "hourly": "hour",
    "usage": "day",
    "profile": "day",
    "access": "day",
    "sessions": "day",
}


def _limited(detection: Detection, since: int) -> str:
    if detection.calls:
        history = detection.history
        condition = "true" if history is None else _since(since, history)
        return f"WITH {acts_relations(detection.calls, condition)} SELECT * FROM ({_over_acts(detection, since)})"
    tables = _newer_tables(detection, since)
    return f"WITH {', '.join(tables)} SELECT * FROM (\n{detection.sql}\n)" if tables else detection.sql


def _newer(sql: str, day: int) -> str:
    """Return a statement whose tables begin with a day (since 1970); 0 leaves it as it is."""
    begin = day * DAY
    if begin <= 0:
        return sql
    tables = [
        f"{table} AS (SELECT * FROM {table} WHERE {time} >= "
        + (f"DATE '{moment(begin):%Y-%m-%d}'" if time == "day" else literal(begin))
        + ")"
        for table, time in _TIMES.items()
        if re.search(rf"\b{table}\b", sql)
    ]
    return f"WITH {', '.join(tables)} SELECT * FROM (\n{sql}\n)" if tables else sql


def _over_acts(detection: Detection, since: int) -> str:
    """Return a SELECT over `acts_all`, in which the detection's own calls are `acts`."""
    own = f"acts AS (SELECT * FROM acts_all WHERE call IN ({', '.join(map(text, detection.calls))}))"
    return f"WITH {', '.join([own, *_newer_tables(detection, since)])} SELECT * FROM (\n{detection.sql}\n)"


def _newer_tables(detection: Detection, since: int) -> list[str]:
    """Return the common table expressions before its SQL: tables cut to what it depends on, and console_noise."""
    noise = re.search(rf"\b{CONSOLE_NOISE}\b", detection.sql) is not None
    used = [
        table
        for table in _TIMES
        if re.search(rf"\b{table}\b", detection.sql) or (noise and table in ("hourly", "sessions"))
    ]
    out = []
    if detection.history is not None and since > detection.history:
        begin = (since - detection.history) * DAY
        out = [
            f"{table} AS (SELECT * FROM {table} WHERE {_TIMES[table]} >= "
            + (f"DATE '{moment(begin):%Y-%m-%d}'" if _TIMES[table] == "day" else literal(begin))
            + ")"
            for table in used
        ]
    return [*out, console_noise_relation()] if noise else out


def _since(since: int, history: int) -> str:
    return f"event_time >= {literal((since - history) * DAY)}" if since > history else "true"


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)
