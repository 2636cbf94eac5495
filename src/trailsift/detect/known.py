"""Detections as data: what is known to be bad, one TOML file each, with examples that prove it.

A file has ``title`` (and ``title_ko``), ``severity``, ``mitre``, ``description``, ``sql`` and examples: ``[[matches]]``
are records that together must be found, ``[[ignores]]`` records that together must not. The SQL is one read-only
statement over the tables of the lake with the columns of ``COLUMNS``; a row is a finding.
"""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trailsift.detect.finding import Finding, Signal
from trailsift.detect.join import identity
from trailsift.errors import EngineError, QueryError, UsageError

if TYPE_CHECKING:
    from trailsift.engine import Engine

COLUMNS = ("account_id", "role_arn", "event_name", "resource_arn", "first_time", "last_time", "events")

#: Severity -> score of a finding.
SCORES = {"low": 0.45, "medium": 0.65, "high": 0.85}
_APART = timedelta(days=7)
_EXAMPLES_BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
_KEYS = {"title", "title_ko", "severity", "mitre", "description", "sql", "matches", "ignores"}


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


def shipped() -> tuple[list[Detection], list[Problem]]:
    """The detections that come with trailsift."""
    files = resources.files("trailsift.detect") / "detections"
    return _read((one.name, one.read_text("utf-8")) for one in files.iterdir() if one.name.endswith(".toml"))


def own(folder: Path) -> tuple[list[Detection], list[Problem]]:
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
    if given.get("severity") not in SCORES:
        raise _Mistake(_line(text, "severity"), f"severity is one of {', '.join(SCORES)}")
    mitre = given.get("mitre", [])
    if not isinstance(mitre, list) or not all(isinstance(one, str) for one in mitre):
        raise _Mistake(_line(text, "mitre"), "mitre is a list of texts such as T1530")
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
        given["sql"].strip(),
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


def run(engine: Engine, detections: Sequence[Detection], korean: bool = False) -> tuple[list[Finding], list[Problem]]:
    """Findings of all detections that run, and what is wrong with the others."""
    found: list[Finding] = []
    wrong: list[Problem] = []
    for one in detections:
        try:
            rows = _rows(engine, one)
        except (QueryError, EngineError) as error:
            wrong.append(Problem(one.path, one.line, f"its SQL does not run: {error}"))
            continue
        except _Mistake as mistake:
            wrong.append(Problem(one.path, mistake.line, str(mistake)))
            continue
        found += [_finding(one, row, korean) for row in happenings(rows)]
    return found, wrong


def happenings(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one account and role as one, unless a week lies between them: a habit is told once.

    Callers without a role are told apart by what they touch. Event and resource are those of the busiest row.
    """
    out: list[dict[str, Any]] = []
    last: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["first_time"]):
        key = (row["account_id"], row["role_arn"], None if row["role_arn"] else row["resource_arn"])
        before = last.get(key)
        if before is None or row["first_time"] - before["last_time"] > _APART:
            last[key] = dict(row) | {"most": row["events"]}
            out.append(last[key])
            continue
        before["last_time"] = max(before["last_time"], row["last_time"])
        before["events"] += row["events"]
        if row["events"] > before["most"]:
            before.update(most=row["events"], event_name=row["event_name"], resource_arn=row["resource_arn"])
    return out


def _rows(engine: Engine, detection: Detection) -> list[dict[str, Any]]:
    result = engine.query(detection.sql)
    missing = [name for name in COLUMNS if name not in result.names]
    if missing:
        raise _Mistake(detection.line, f"its SQL gives no column {', '.join(missing)}")
    return result.dicts()


def _finding(detection: Detection, row: dict[str, Any], korean: bool) -> Finding:
    first, last = (round(row[name].timestamp() * 1e6) for name in ("first_time", "last_time"))
    title = detection.title_ko if korean else detection.title
    score = SCORES[detection.severity]
    seen = Signal(
        "detection", row["role_arn"], score, first, last, title, int(row["events"]), None, row["event_name"],
        row["resource_arn"],
    )  # fmt: skip
    more = f"{detection.id} {row['account_id']} {'' if row['role_arn'] else row['resource_arn']}"
    name = identity(row["role_arn"], first, more)
    return Finding(name, row["role_arn"], score, first, last, (seen,), mitre=detection.mitre)


def prove(detections: Sequence[Detection]) -> list[Problem]:
    """Runs the examples: what must be found and is not, and what must not be found and is.

    All examples go to one lake, each under an account of its own, so SQL has to tell accounts apart.
    """
    from trailsift.engine import Engine
    from trailsift.ingest import ingest
    from trailsift.store.index import open_snapshot

    wrong: list[Problem] = []
    with tempfile.TemporaryDirectory(prefix="trailsift-examples-") as folder:
        records = []
        for place, one in enumerate(detections):
            records += _records(one.matches, account(place, True)) + _records(one.ignores, account(place, False))
        (Path(folder) / "a.json").write_text(json.dumps({"Records": records}))
        ingest([str(Path(folder) / "a.json")], Path(folder) / "lake", workers=1)
        with Engine(open_snapshot(Path(folder) / "lake")) as engine:
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
