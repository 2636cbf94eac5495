"""Detections as data: known bad behaviour, one TOML file each, with examples as tests.

A file has ``title`` (and ``title_ko``), ``severity``, ``mitre``, ``description``, ``sql`` and examples: ``[[matches]]``
are records that together must be found, ``[[ignores]]`` records that together must not. The SQL is one read-only
statement over the tables of the lake that returns the columns of ``COLUMNS``; a row is a match. ``history`` is the
number of days before its own that a row depends on; without it the SQL runs over the whole lake each time.

Optional texts: ``did`` completes the sentence "CALLER ... on DAY" for the first line of a finding ("stopped the trail
{resource}"), with ``{resource}``, ``{event}`` (one of the calls) and ``{calls}`` ("3 calls") as placeholders;
``next`` is the step in AWS, also with ``{caller}``. ``did_ko`` (ends in a noun form, as in "추적 {resource}를 중지함")
and ``next_ko`` are the Korean ones.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, NamedTuple

from trailsift.detect.callers import is_one
from trailsift.detect.correlate import SUPPORTING
from trailsift.detect.event_scan import EventScan, batches
from trailsift.detect.finding import Signal
from trailsift.detect.particles import PARTICLES
from trailsift.errors import EngineError, QueryError, UsageError
from trailsift.times import DAY, HOUR, literal, moment

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

COLUMNS = ("account_id", "caller", "event_name", "resource_arn", "first_time", "last_time", "events")

#: Severity -> rarity of its signal: alone, they make findings with a score of 0.45, 0.65 and 0.85.
SEVERITY_RARITY = {"low": 2.45, "medium": 5.57, "high": 17.0}
#: Seconds that the rules of others may take in one run, together.
SCAN_SECONDS = 900.0
#: Rows of one caller closer than this are one match; rows within a few hours of its begin are its core.
_APART = 7 * DAY
_NEAR = 3 * HOUR
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXAMPLES_BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
#: Optional texts, and the placeholders that each may have.
_TEXTS = {
    "did": ("resource", "event", "calls"),
    "did_ko": ("resource", "event", "calls"),
    "next": ("resource", "event", "calls", "caller"),
    "next_ko": ("resource", "event", "calls", "caller"),
}
_KEYS = {"title", "title_ko", "severity", "mitre", "description", "sql", "history", "matches", "ignores", *_TEXTS}


@dataclass(frozen=True)
class Example:
    """Records of one example: an event, repeated ``times`` times from ``hour`` on, with these fields."""

    event: str
    times: int
    hour: int
    parameters: dict[str, Any]
    record: dict[str, Any]


@dataclass(frozen=True)
class Detection:
    """One detection; ``line`` is where the SQL begins in the file.

    ``scan``: the condition on single events that the SQL is made of, if it is one: then detections share one pass over
    the events. ``supporting``: its matches only strengthen other evidence. ``timed``: it is somebody else's, and
    may take only so long.
    """

    id: str
    path: str
    line: int
    title: str
    title_ko: str
    severity: str
    mitre: tuple[str, ...]
    description: str
    sql: str
    history: int | None
    matches: tuple[Example, ...]
    ignores: tuple[Example, ...]
    did: str | None = None
    did_ko: str | None = None
    next: str | None = None
    next_ko: str | None = None
    scan: EventScan | None = None
    supporting: bool = False
    timed: bool = False


@dataclass(frozen=True)
class Problem:
    """An error in a detection file, with its line."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def builtin_rules() -> tuple[list[Detection], list[Problem]]:
    """Return the detections that come with trailsift, and errors in them."""
    files = resources.files("trailsift.detect") / "detections"
    return _read((file.name, file.read_text("utf-8")) for file in files.iterdir() if file.name.endswith(".toml"))


def load_rules(folder: Path) -> tuple[list[Detection], list[Problem]]:
    """Return the detections of a user's folder, and errors in them. Raise UsageError if there is no such folder."""
    if not folder.is_dir():
        raise UsageError(f"--detections {folder} is not a folder: name one with .toml files")
    files = [(str(path), path.read_text("utf-8", "replace")) for path in sorted(folder.glob("*.toml"))]
    if not files:
        raise UsageError(f"--detections {folder} has no .toml file")
    return _read(files)


def _read(files: Iterable[tuple[str, str]]) -> tuple[list[Detection], list[Problem]]:
    detections, problems = [], []
    for path, text in sorted(files):
        try:
            detections.append(parse(path, text))
        except _DetectionError as error:
            problems.append(Problem(path, error.line, str(error)))
    return detections, problems


class _DetectionError(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def parse(path: str, text: str) -> Detection:
    """Parse one file. Raise _DetectionError with the line of a mistake."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = next((int(word) for word in str(error).replace(",", " ").split() if word.isdigit()), 1)
        raise _DetectionError(line, f"is not valid TOML: {error}") from error
    for key in table:
        if key not in _KEYS:
            raise _DetectionError(_line(text, key), f"unknown key {key}: use {', '.join(sorted(_KEYS))}")
    for key in ("title", "description", "sql"):
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise _DetectionError(_line(text, key), f"needs {key}, a string")
    if table.get("severity") not in SEVERITY_RARITY:
        raise _DetectionError(_line(text, "severity"), f"severity is one of {', '.join(SEVERITY_RARITY)}")
    mitre = table.get("mitre", [])
    if not isinstance(mitre, list) or not all(isinstance(technique, str) for technique in mitre):
        raise _DetectionError(_line(text, "mitre"), "mitre is a list of strings such as T1530")
    history = table.get("history")
    if history is not None and (not isinstance(history, int) or history < 0):
        raise _DetectionError(_line(text, "history"), "history is a number of days, 0 or more")
    for key, names in _TEXTS.items():
        if key in table and not _is_template(table[key], names):
            known = ", ".join(f"{{{name}}}" for name in names)
            raise _DetectionError(_line(text, key), f"{key} is a sentence; its placeholders are {known}")
    for key in ("matches", "ignores"):
        if not table.get(key):
            raise _DetectionError(_line(text, key), f"needs an example: [[{key}]]")
    made = Detection(
        Path(path).stem,
        path,
        _line(text, "sql"),
        table["title"],
        str(table.get("title_ko", table["title"])),
        table["severity"],
        tuple(mitre),
        table["description"],
        table["sql"].strip().removesuffix(";"),
        history,
        tuple(_example(text, example) for example in table["matches"]),
        tuple(_example(text, example) for example in table["ignores"]),
    )
    texts: dict[str, Any] = {key: table.get(key) for key in _TEXTS}
    return replace(made, **texts)


def _is_template(text: object, names: Sequence[str]) -> bool:
    """Return whether a text is a template with these placeholders, or `{name:을/를}` with a Korean particle."""
    if not isinstance(text, str) or not text.strip():
        return False
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        return False
    return all(
        name is None or (name in names and not convert and form in ("", *PARTICLES)) for _, name, form, convert in parts
    )


def _example(text: str, table: Any) -> Example:
    event = table.get("event") if isinstance(table, dict) else None
    if not isinstance(event, str) or ":" not in event:
        raise _DetectionError(_line(text, "event"), 'an example needs event = "service:EventName"')
    return Example(
        event,
        int(table.get("times", 1)),
        int(table.get("hour", 0)),
        table.get("parameters", {}),
        table.get("record", {}),
    )


def _line(text: str, key: str) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip().removeprefix("[[").startswith(key):
            return number
    return 1


class RuleMatch(NamedTuple):
    """Rows of one account and caller that belong together; times are microseconds since 1970.

    ``near`` is the last time of the rows within hours of its begin, ``last_time`` that of all rows. Event and resource
    are those of the busiest row, which has ``most`` events.
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
    """Yield each detection with its rows from its day ``since_of`` on, in order; scans share passes over the events."""
    together: dict[int, list[RuleMatch]] = {}
    budget = _Budget(SCAN_SECONDS)
    scans = [(place, rule.scan, since_of(rule)) for place, rule in enumerate(detections) if rule.scan is not None]
    for batch in batches(scans):
        try:
            found = engine.query(_since(batch.sql, batch.since), timeout=budget.left()).dicts()
        except (QueryError, EngineError):
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
    """Return the rows of a detection, from the day ``since`` (since 1970) on if it declares its history."""
    try:
        rows = _rows(engine, detection, since, budget)
    except (QueryError, EngineError) as error:
        return Problem(detection.path, detection.line, f"its SQL fails: {error}")
    except _DetectionError as error:
        return Problem(detection.path, error.line, str(error))
    return _matches(rows, since)


def _matches(rows: Sequence[Mapping[str, Any]], since: int) -> list[RuleMatch]:
    matches = []
    who = _caller_column(rows[0]) if rows else ""
    for row in rows:
        first, last = (_micros(row[name]) for name in ("first_time", "last_time"))
        names = (row["account_id"], row[who], row["event_name"], row["resource_arn"])
        matches.append(RuleMatch(*names, first, last, int(row["events"]), last, int(row["events"])))
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
        )
    return out


def rarity_of(detection: Detection) -> float:
    """Return the rarity of a detection's signals."""
    return SUPPORTING if detection.supporting else SEVERITY_RARITY[detection.severity]


def to_signals(detection: Detection, matches: Iterable[RuleMatch]) -> list[Signal]:
    """Return a signal for each match."""
    return [
        Signal(
            "detection",
            match.caller,
            rarity_of(detection),
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
        raise _DetectionError(detection.line, f"its SQL returns no column {', '.join(missing)}")
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
    if detection.history is None or since <= detection.history:
        return detection.sql
    return _since(detection.sql, since - detection.history)


def _since(sql: str, day: int) -> str:
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


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def run_examples(detections: Sequence[Detection]) -> list[Problem]:
    """Run the examples. Return a problem for each that is not found and must be, or is found and must not be.

    All examples go into one lake, each under its own account, so the SQL has to separate accounts.
    """
    from trailsift.ingest import ingest
    from trailsift.lake.open import open_snapshot
    from trailsift.query import DuckDBEngine

    problems: list[Problem] = []
    with tempfile.TemporaryDirectory(prefix="trailsift-examples-") as folder:
        records = []
        for place, rule in enumerate(detections):
            records += _records(rule.matches, example_account(place, True))
            records += _records(rule.ignores, example_account(place, False))
        (Path(folder) / "a.json").write_text(json.dumps({"Records": records}))
        ingest([str(Path(folder) / "a.json")], Path(folder) / "lake", workers=1)
        with DuckDBEngine(open_snapshot(Path(folder) / "lake")) as engine:
            for place, rule in enumerate(detections):
                try:
                    hits = {row["account_id"] for row in _rows(engine, rule)}
                except (QueryError, EngineError, _DetectionError) as error:
                    problems.append(Problem(rule.path, rule.line, f"its SQL fails: {error}"))
                    continue
                if example_account(place, True) not in hits:
                    problems.append(Problem(rule.path, rule.line, "does not find its example [[matches]]"))
                if example_account(place, False) in hits:
                    problems.append(Problem(rule.path, rule.line, "finds its example [[ignores]]"))
    return problems


def example_account(place: int, matches: bool) -> str:
    """Return the account id of an example."""
    return f"{100_000_000_000 + 2 * place + matches}"


def _records(examples: Sequence[Example], account_id: str) -> list[dict[str, Any]]:
    out = []
    for number, example in enumerate(examples):
        service, _, name = example.event.partition(":")
        for i in range(example.times):
            at = _EXAMPLES_BEGIN + timedelta(hours=example.hour, seconds=i)
            filled = _fill({"requestParameters": example.parameters} | example.record, i, account_id)
            out.append(_plain(service, name, at, account_id) | {"eventID": f"{account_id}-{number}-{i}"} | filled)
    return out


def _plain(service: str, name: str, at: datetime, account_id: str) -> dict[str, Any]:
    role = f"arn:aws:iam::{account_id}:role/example"
    return {
        "eventVersion": "1.11",
        "userIdentity": {
            "type": "AssumedRole",
            "principalId": "AROAEXAMPLE:run",
            "arn": f"arn:aws:sts::{account_id}:assumed-role/example/run",
            "accountId": account_id,
            "accessKeyId": "ASIAEXAMPLE",
            "sessionContext": {"sessionIssuer": {"type": "Role", "arn": role, "accountId": account_id}},
        },
        "eventTime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "eventSource": f"{service}.amazonaws.com",
        "eventName": name,
        "awsRegion": "us-east-1",
        "sourceIPAddress": "192.0.2.10",
        "userAgent": "Boto3/1.37.4",
        "requestParameters": None,
        "responseElements": None,
        "readOnly": name.startswith(("Get", "List", "Head", "Scan", "Query", "Describe")),
        "eventType": "AwsApiCall",
        "managementEvent": False,
        "recipientAccountId": account_id,
        "eventCategory": "Data",
    }


def _fill(value: Any, i: int, account_id: str) -> Any:
    if isinstance(value, str):
        return value.replace("{i}", str(i)).replace("{account}", account_id)
    if isinstance(value, dict):
        return {key: _fill(part, i, account_id) for key, part in value.items()}
    if isinstance(value, list):
        return [_fill(part, i, account_id) for part in value]
    return value
