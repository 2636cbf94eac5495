"""Detections as data: what is known to be bad, one TOML file each, with examples that prove it.

A file has ``title`` (and ``title_ko``), ``severity``, ``mitre``, ``description``, ``sql`` and examples: ``[[matches]]``
are records that together must be found, ``[[ignores]]`` records that together must not. The SQL is one read-only
statement over the tables of the lake with the columns of ``COLUMNS``; a row is a finding. ``history`` says how many
days before its own a row depends on; without it the SQL runs over the whole lake each time.
"""

from __future__ import annotations

import json
import re
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trailsift.detect.finding import Signal
from trailsift.errors import EngineError, QueryError, UsageError
from trailsift.times import DAY, HOUR, literal, moment

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

COLUMNS = ("account_id", "role_arn", "event_name", "resource_arn", "first_time", "last_time", "events")

#: Severity -> decades of its signal: alone, they make findings of 0.45, 0.65 and 0.85.
DECADES = {"low": 2.45, "medium": 5.57, "high": 17.0}
#: Rows of one role closer than this are one habit, and those closer than some hours one happening.
_APART = 7 * DAY
_NEAR = 3 * HOUR
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXAMPLES_BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
_KEYS = {"title", "title_ko", "severity", "mitre", "description", "sql", "history", "matches", "ignores"}


@dataclass(frozen=True)
class Example:
    """Records of one example: an event of a service, so many times from an hour on, with these parts."""

    event: str
    times: int
    hour: int
    parameters: dict[str, Any]
    record: dict[str, Any]


@dataclass(frozen=True)
class Detection:
    """One known bad thing; ``line`` is where the SQL begins in the file."""

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


@dataclass(frozen=True)
class Problem:
    """What is wrong with one file, and where."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def builtin_rules() -> tuple[list[Detection], list[Problem]]:
    """The detections that come with trailsift."""
    files = resources.files("trailsift.detect") / "detections"
    return _read((one.name, one.read_text("utf-8")) for one in files.iterdir() if one.name.endswith(".toml"))


def load_rules(folder: Path) -> tuple[list[Detection], list[Problem]]:
    """The detections of a user's folder; UsageError where it is none."""
    if not folder.is_dir():
        raise UsageError(f"--detections {folder} is no folder: name one that holds .toml files")
    files = [(str(path), path.read_text("utf-8", "replace")) for path in sorted(folder.glob("*.toml"))]
    if not files:
        raise UsageError(f"--detections {folder} holds no .toml file")
    return _read(files)


def _read(files: Iterable[tuple[str, str]]) -> tuple[list[Detection], list[Problem]]:
    found, wrong = [], []
    for path, text in sorted(files):
        try:
            found.append(parse(path, text))
        except _Mistake as mistake:
            wrong.append(Problem(path, mistake.line, str(mistake)))
    return found, wrong


class _Mistake(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def parse(path: str, text: str) -> Detection:
    """One file; what is wrong with it is told with its line."""
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = next((int(word) for word in str(error).replace(",", " ").split() if word.isdigit()), 1)
        raise _Mistake(line, f"is no TOML: {error}") from error
    for key in given:
        if key not in _KEYS:
            raise _Mistake(_line(text, key), f"unknown key {key}: there are {', '.join(sorted(_KEYS))}")
    for key in ("title", "description", "sql"):
        if not isinstance(given.get(key), str) or not given[key].strip():
            raise _Mistake(_line(text, key), f"needs {key}, a text")
    if given.get("severity") not in DECADES:
        raise _Mistake(_line(text, "severity"), f"severity is one of {', '.join(DECADES)}")
    mitre = given.get("mitre", [])
    if not isinstance(mitre, list) or not all(isinstance(one, str) for one in mitre):
        raise _Mistake(_line(text, "mitre"), "mitre is a list of texts such as T1530")
    history = given.get("history")
    if history is not None and (not isinstance(history, int) or history < 0):
        raise _Mistake(_line(text, "history"), "history is a number of days, 0 or more")
    for key in ("matches", "ignores"):
        if not given.get(key):
            raise _Mistake(_line(text, key), f"needs an example: [[{key}]]")
    return Detection(
        Path(path).stem,
        path,
        _line(text, "sql"),
        given["title"],
        str(given.get("title_ko", given["title"])),
        given["severity"],
        tuple(mitre),
        given["description"],
        given["sql"].strip().removesuffix(";"),
        history,
        tuple(_example(text, one) for one in given["matches"]),
        tuple(_example(text, one) for one in given["ignores"]),
    )


def _example(text: str, given: Any) -> Example:
    event = given.get("event") if isinstance(given, dict) else None
    if not isinstance(event, str) or ":" not in event:
        raise _Mistake(_line(text, "event"), 'an example needs event = "service:EventName"')
    return Example(
        event,
        int(given.get("times", 1)),
        int(given.get("hour", 0)),
        given.get("parameters", {}),
        given.get("record", {}),
    )


def _line(text: str, key: str) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip().removeprefix("[[").startswith(key):
            return number
    return 1


class Happening(NamedTuple):
    """Rows of one account and role that belong together; times are microseconds since 1970.

    ``near`` is the last time of what follows upon its begin within hours, ``last_time`` that of the habit. Event and
    resource are those of the busiest row, which has ``most`` events.
    """

    account_id: str | None
    role_arn: str | None
    event_name: str | None
    resource_arn: str | None
    first_time: int
    last_time: int
    events: int
    near: int
    most: int


def run(engine: DuckDBEngine, detections: Sequence[Detection]) -> tuple[list[Signal], list[Problem]]:
    """Signals of all detections that run, and what is wrong with the others."""
    signals: list[Signal] = []
    wrong: list[Problem] = []
    for one in detections:
        found = search(engine, one)
        if isinstance(found, Problem):
            wrong.append(found)
        else:
            signals += signals_of(one, happenings(found))
    return signals, wrong


def search(engine: DuckDBEngine, detection: Detection, since: int = 0) -> list[Happening] | Problem:
    """Rows of a detection, of days (since 1970) from ``since`` on where it says how much history it needs."""
    try:
        rows = _rows(engine, detection, since)
    except (QueryError, EngineError) as error:
        return Problem(detection.path, detection.line, f"its SQL does not run: {error}")
    except _Mistake as mistake:
        return Problem(detection.path, mistake.line, str(mistake))
    found = []
    for row in rows:
        first, last = (_micros(row[name]) for name in ("first_time", "last_time"))
        names = (row["account_id"], row["role_arn"], row["event_name"], row["resource_arn"])
        found.append(Happening(*names, first, last, int(row["events"]), last, int(row["events"])))
    return [one for one in found if one.first_time >= since * DAY]


def happenings(rows: Sequence[Happening], before: Sequence[Happening] = ()) -> list[Happening]:
    """Rows of one account and role as one, unless a week lies between them: a habit is told once.

    Callers without a role are told apart by what they touch. ``before``: what earlier rows made, to go on from.
    """
    out: list[Happening] = []
    place: dict[tuple[Any, ...], int] = {}
    for row in [*before, *sorted(rows, key=lambda row: (row.first_time, row.last_time, *map(str, row[:4])))]:
        key = (row.account_id, row.role_arn, None if row.role_arn else row.resource_arn)
        at = place.get(key)
        if at is None or row.first_time - out[at].last_time > _APART:
            place[key] = len(out)
            out.append(row)
            continue
        old = out[at]
        busiest = max(old, row, key=lambda one: one.most)
        out[at] = old._replace(
            event_name=busiest.event_name,
            resource_arn=busiest.resource_arn,
            last_time=max(old.last_time, row.last_time),
            events=old.events + row.events,
            near=max(old.near, row.last_time) if row.first_time <= old.near + _NEAR else old.near,
            most=busiest.most,
        )
    return out


def signals_of(detection: Detection, found: Iterable[Happening]) -> list[Signal]:
    """A signal for each happening."""
    return [
        Signal(
            "detection",
            one.role_arn,
            DECADES[detection.severity],
            one.first_time,
            one.near,
            detection.title,
            one.events,
            None,
            one.event_name,
            one.resource_arn,
            detection.title_ko,
            detection.id,
            detection.mitre,
            one.last_time,
        )
        for one in found
    ]


def _rows(engine: DuckDBEngine, detection: Detection, since: int = 0) -> list[dict[str, Any]]:
    result = engine.query(_limited(detection, since))
    missing = [name for name in COLUMNS if name not in result.names]
    if missing:
        raise _Mistake(detection.line, f"its SQL gives no column {', '.join(missing)}")
    return result.dicts()


#: Table -> its time. Reading fewer days is a matter of cost: each row depends on no more than ``history`` days.
_TIMES = {"events": "event_time", "hourly": "hour", "usage": "day", "profile": "day"}


def _limited(detection: Detection, since: int) -> str:
    if detection.history is None or since <= detection.history:
        return detection.sql
    begin = (since - detection.history) * DAY
    tables = [
        f"{table} AS (SELECT * FROM {table} WHERE {time} >= "
        + (f"DATE '{moment(begin):%Y-%m-%d}'" if time == "day" else literal(begin))
        + ")"
        for table, time in _TIMES.items()
        if re.search(rf"\b{table}\b", detection.sql)
    ]
    return f"WITH {', '.join(tables)} SELECT * FROM (\n{detection.sql}\n)" if tables else detection.sql


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def run_examples(detections: Sequence[Detection]) -> list[Problem]:
    """Runs the examples: what must be found and is not, and what must not be found and is.

    All examples go to one lake, each under an account of its own, so SQL has to tell accounts apart.
    """
    from trailsift.ingest import ingest
    from trailsift.lake.open import open_snapshot
    from trailsift.query import DuckDBEngine

    wrong: list[Problem] = []
    with tempfile.TemporaryDirectory(prefix="trailsift-examples-") as folder:
        records = []
        for place, one in enumerate(detections):
            records += _records(one.matches, account(place, True)) + _records(one.ignores, account(place, False))
        (Path(folder) / "a.json").write_text(json.dumps({"Records": records}))
        ingest([str(Path(folder) / "a.json")], Path(folder) / "lake", workers=1)
        with DuckDBEngine(open_snapshot(Path(folder) / "lake")) as engine:
            for place, one in enumerate(detections):
                try:
                    hit = {row["account_id"] for row in _rows(engine, one)}
                except (QueryError, EngineError, _Mistake) as error:
                    wrong.append(Problem(one.path, one.line, f"its SQL does not run: {error}"))
                    continue
                if account(place, True) not in hit:
                    wrong.append(Problem(one.path, one.line, "does not find its example [[matches]]"))
                if account(place, False) in hit:
                    wrong.append(Problem(one.path, one.line, "finds its example [[ignores]]"))
    return wrong


def account(place: int, matches: bool) -> str:
    """The account of an example."""
    return f"{100_000_000_000 + 2 * place + matches}"


def _records(examples: Sequence[Example], account_id: str) -> list[dict[str, Any]]:
    out = []
    for number, one in enumerate(examples):
        service, _, name = one.event.partition(":")
        for i in range(one.times):
            at = _EXAMPLES_BEGIN + timedelta(hours=one.hour, seconds=i)
            filled = _fill({"requestParameters": one.parameters} | one.record, i, account_id)
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
