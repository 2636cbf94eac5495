"""Detections as data: known bad behaviour, one TOML file each, with examples as tests.

A file has ``title``, ``severity``, ``mitre`` and ``description`` (``title_ko``, ``description_ko`` in Korean) and
examples: ``[[matches]]`` are records that together must be found, ``[[ignores]]`` records that together must not.

What it looks for is ``sql``, one read-only statement over the tables of the lake that returns the columns of
``COLUMNS``; a row is a match. ``history`` is the number of days before its own that a row depends on; without it the
SQL runs over the whole lake each time. With ``calls``, a list such as ``iam:CreateUser``, the SQL may read the relation
`acts` (``acts.py``), which holds these calls only, in one scan with all other detections; and in place of the SQL a
condition on it is enough: ``where``, with ``least`` calls, or distinct values of ``distinct``, ``within`` some minutes.

Optional texts: ``did`` completes the sentence "CALLER ... on DAY" for the first line of a finding ("stopped the trail
{resource}"), with ``{resource}``, ``{event}`` (one of the calls) and ``{calls}`` ("3 calls") as placeholders;
``next`` is the step in AWS, also with ``{caller}``. ``did_ko`` (ends in a noun form, as in "추적 {resource}를 중지함")
and ``next_ko`` are the Korean ones.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Any

from trailsift.detect.event_scan import EventScan
from trailsift.detect.particles import PARTICLES
from trailsift.errors import UsageError
from trailsift.query.relations import text as quoted

COLUMNS = ("account_id", "caller", "event_name", "resource_arn", "first_time", "last_time", "events")

#: Severity -> rarity of its signal: alone, they make findings with a score of 0.45, 0.65 and 0.85. A hint is below what
#: is reported: three different ones at a time are a finding, and one makes another finding stronger.
SEVERITY_RARITY = {"hint": 1.2, "low": 2.45, "medium": 5.57, "high": 17.0}
#: Optional texts, and the placeholders that each may have.
_TEXTS = {
    "did": ("resource", "event", "calls"),
    "did_ko": ("resource", "event", "calls"),
    "next": ("resource", "event", "calls", "caller"),
    "next_ko": ("resource", "event", "calls", "caller"),
}
_KEYS = {
    "title", "title_ko", "severity", "mitre", "description", "description_ko", "sql", "history", "matches", "ignores",
    "calls", "where", "least", "distinct", "within", "steady", *_TEXTS,
}  # fmt: skip
_CALL = re.compile(r"[a-z0-9-]+:[A-Za-z0-9_]+")
#: Keys of an example that stand for a member of the record.
_SHORT = {"error": "errorCode", "agent": "userAgent", "ip": "sourceIPAddress", "response": "responseElements"}
_EXAMPLE_KEYS = {"event", "times", "hour", "parameters", "record", "by", "every", *_SHORT}


@dataclass(frozen=True)
class Example:
    """Records of one example: an event, repeated ``times`` times from ``hour`` on, with these fields.

    ``by``: who makes the calls (a key of ``detection_examples.IDENTITIES``). ``every``: seconds between two of them.
    """

    event: str
    times: int
    hour: int
    parameters: dict[str, Any]
    record: dict[str, Any]
    by: str = "role"
    every: int = 1


@dataclass(frozen=True)
class Detection:
    """One detection; ``line`` is where the SQL begins in the file. ``calls``: those that its `acts` holds, if any.

    ``test``: the condition on `acts` that the SQL consists of, for a detection that counts nothing; else empty.
    ``scan``: the condition on single events that the SQL is made of, if it is one: then detections share one pass over
    the events. ``supporting``: its matches only strengthen other evidence. ``timed``: it is somebody else's, and may
    take only so long. ``steady``: what is there from the first day of a lake on is ordinary, and only a hint.
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
    calls: tuple[str, ...] = ()
    test: str = ""
    did: str | None = None
    did_ko: str | None = None
    next: str | None = None
    next_ko: str | None = None
    scan: EventScan | None = None
    supporting: bool = False
    timed: bool = False
    steady: bool = False
    description_ko: str | None = None


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
        except DetectionError as error:
            problems.append(Problem(path, error.line, str(error)))
    return detections, problems


class DetectionError(Exception):
    """A mistake in a file, with its line."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def parse(path: str, text: str) -> Detection:
    """Parse one file. Raise DetectionError with the line of a mistake."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = next((int(word) for word in str(error).replace(",", " ").split() if word.isdigit()), 1)
        raise DetectionError(line, f"is not valid TOML: {error}") from error
    for key in table:
        if key not in _KEYS:
            raise DetectionError(_line(text, key), f"unknown key {key}: use {', '.join(sorted(_KEYS))}")
    for key in ("title", "description"):
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise DetectionError(_line(text, key), f"needs {key}, a string")
    if table.get("severity") not in SEVERITY_RARITY:
        raise DetectionError(_line(text, "severity"), f"severity is one of {', '.join(SEVERITY_RARITY)}")
    mitre = _texts(text, table, "mitre", "T1530")
    calls = _texts(text, table, "calls", "iam:CreateUser")
    for call in calls:
        if not _CALL.fullmatch(call):
            raise DetectionError(_line(text, "calls"), f'calls has {call!r}: write "service:Action"')
    korean = table.get("description_ko", "-")
    if not isinstance(korean, str) or not korean.strip():
        raise DetectionError(_line(text, "description_ko"), "description_ko is a string")
    for key, names in _TEXTS.items():
        if key in table and not _is_template(table[key], names):
            known = ", ".join(f"{{{name}}}" for name in names)
            raise DetectionError(_line(text, key), f"{key} is a sentence; its placeholders are {known}")
    for key in ("matches", "ignores"):
        if not table.get(key):
            raise DetectionError(_line(text, key), f"needs an example: [[{key}]]")
    if not isinstance(table.get("steady", False), bool):
        raise DetectionError(_line(text, "steady"), "steady is true or false")
    sql, history, where = _statement(text, table, calls)
    return Detection(
        Path(path).stem,
        path,
        _line(text, where),
        table["title"],
        str(table.get("title_ko", table["title"])),
        table["severity"],
        mitre,
        table["description"],
        sql,
        history,
        tuple(_example(text, example) for example in table["matches"]),
        tuple(_example(text, example) for example in table["ignores"]),
        calls,
        "" if "sql" in table or table.get("least", 1) > 1 else table.get("where", "done"),
        table.get("did"),
        table.get("did_ko"),
        table.get("next"),
        table.get("next_ko"),
        steady=table.get("steady", False),
        description_ko=table.get("description_ko"),
    )


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


def _texts(text: str, table: dict[str, Any], key: str, example: str) -> tuple[str, ...]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise DetectionError(_line(text, key), f"{key} is a list of strings such as {example}")
    return tuple(values)


def _number(text: str, table: dict[str, Any], key: str, least: int, what: str) -> int | None:
    value = table.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise DetectionError(_line(text, key), f"{key} is {what}, {least} or more")
    return value


def _statement(text: str, table: dict[str, Any], calls: tuple[str, ...]) -> tuple[str, int | None, str]:
    """Return the SQL, the days of history, and the key in the file that the SQL comes from."""
    history = _number(text, table, "history", 0, "a number of days")
    least = _number(text, table, "least", 1, "a number of calls")
    within = _number(text, table, "within", 1, "a number of minutes")
    for key in ("sql", "where", "distinct"):
        if key in table and (not isinstance(table[key], str) or not table[key].strip()):
            raise DetectionError(_line(text, key), f"{key} is a string")
    if "sql" in table:
        for key in ("where", "least", "distinct", "within"):
            if key in table:
                raise DetectionError(_line(text, key), f"{key} and sql exclude each other")
        return table["sql"].strip().removesuffix(";"), history, "sql"
    if not calls:
        raise DetectionError(_line(text, "sql"), "needs sql, a string, or calls with where")
    sql = _sql_of(calls, table.get("where", "done"), least or 1, table.get("distinct"), within or 60)
    # A window reaches back over midnight.
    return sql, history if history is not None else int((least or 1) > 1), "where" if "where" in table else "calls"


def _sql_of(calls: tuple[str, ...], where: str, least: int, distinct: str | None, within: int) -> str:
    chosen = f"FROM acts WHERE call IN ({', '.join(map(quoted, calls))}) AND (\n{where}\n)"
    columns = (
        "min(event_name) AS event_name, {} AS resource_arn, min(event_time) AS first_time, "
        "max(event_time) AS last_time, round(sum(weight))::BIGINT AS events"
    )
    if least == 1:
        return (
            f"SELECT account_id, caller, {columns.format('target')}\n{chosen}\n"
            "GROUP BY account_id, caller, event_name, target, date_trunc('day', event_time)"
        )
    measure = f"count(DISTINCT ({distinct}))" if distinct else "sum(weight)"
    one = "CASE WHEN count(DISTINCT target) = 1 THEN min(target) END"
    return (
        f"SELECT account_id, caller, {columns.format(one)} FROM (SELECT *, {measure} OVER (PARTITION BY account_id, "
        f"caller ORDER BY event_time RANGE BETWEEN INTERVAL {within} MINUTE PRECEDING AND CURRENT ROW) AS measured\n"
        f"{chosen})\nGROUP BY account_id, caller, date_trunc('day', event_time) HAVING max(measured) >= {least}"
    )


def _example(text: str, table: Any) -> Example:
    event = table.get("event") if isinstance(table, dict) else None
    if not isinstance(event, str) or ":" not in event:
        raise DetectionError(_line(text, "event"), 'an example needs event = "service:EventName"')
    for key in table:
        if key not in _EXAMPLE_KEYS:
            raise DetectionError(_line(text, key), f"unknown key {key} of an example")
    record = dict(table.get("record", {}))
    for key, name in _SHORT.items():
        if key in table:
            record[name] = table[key]
    return Example(
        event,
        int(table.get("times", 1)),
        int(table.get("hour", 0)),
        table.get("parameters", {}),
        record,
        str(table.get("by", "role")),
        int(table.get("every", 1)),
    )


def _line(text: str, key: str) -> int:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip().removeprefix("[[").startswith(key):
            return number
    return 1
