"""The first look: logs are generated, ingested and asked; every step is timed, and one question is put to the raw logs
too, so that the gain is measured and not claimed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from trailsift.analysis.base import plain
from trailsift.analysis.roles import roles
from trailsift.analysis.shell import double_quoted, quoted
from trailsift.analysis.summary import Overview, hours, overview, refusals
from trailsift.analysis.time_range import Period
from trailsift.schema import DENIED_CODES

if TYPE_CHECKING:
    from trailsift.generate import Generated
    from trailsift.ingest import Counts, Progress
    from trailsift.query.engine import Engine

#: Where each kind of planted incident can be seen with the commands of this version.
SHOWS = {
    "bulk_exfiltration": "keys and bytes out, in one hour",
    "slow_exfiltration": "reads by one who only ever wrote",
    "first_service": "a service that is new to the role",
    "new_network": "a network that is new to the role",
    "enumeration": "denied: one bucket after the other",
    "mass_delete": "DeleteObject, all in half an hour",
    "night_activity": "the hours of the week",
    "new_key_pattern": "key patterns of the role",
}


class Planted(NamedTuple):
    """One planted incident as truth.json tells it; times as ISO 8601."""

    kind: str
    title: str
    role_arn: str | None
    first_time: str
    last_time: str
    events: int
    shows: str


class Timed(NamedTuple):
    """A question and how long its answer took."""

    question: str
    seconds: float


class Suggestion(NamedTuple):
    """A command to try, and what it answers."""

    says: str
    command: str


@dataclass(frozen=True, slots=True)
class Demo:
    """All that the demo found. ``raw`` puts the first of ``asked`` to the raw logs; ``same`` says whether the answers
    agree."""

    folder: Path
    generated: Generated
    generate_seconds: float
    counts: Counts
    lake_bytes: int
    seen: Overview
    open_seconds: float
    asked: tuple[Timed, ...]
    raw: Timed
    same: bool
    planted: tuple[Planted, ...]
    next: tuple[Suggestion, ...]

    @property
    def lake(self) -> Path:
        """The lake that was made."""
        return self.folder / "lake"

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "folder": str(self.folder),
            "lake": str(self.lake),
            "generate": {
                "events": self.generated.events,
                "bytes": self.generated.bytes,
                "seconds": self.generate_seconds,
            },
            "ingest": self.counts.as_dict(),
            "lake_bytes": self.lake_bytes,
            "open_seconds": self.open_seconds,
            "questions": plain(self.asked),
            "raw_scan": {**plain(self.raw), "same_answer": self.same},
            "overview": self.seen.as_dict(),
            "planted": plain(self.planted),
            "next": plain(self.next),
        }


@dataclass(frozen=True, slots=True)
class Made:
    """Generated logs, ready to be ingested."""

    folder: Path
    generated: Generated
    seconds: float


def make(events: int, days: float, seed: int, folder: Path | None, progress: Callable[[int], None]) -> Made:
    """Generates logs under ``folder`` (a temporary one by default). UsageError where the options are impossible."""
    from trailsift.generate import Options, generate

    begun = perf_counter()
    options = Options(events=events, days=days, seed=seed)
    home = folder.absolute() if folder else Path(tempfile.mkdtemp(prefix="trailsift-demo-"))
    try:
        generated = generate(home / "logs", options, progress)
    except BaseException:
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)
        raise
    return Made(home, generated, round(perf_counter() - begun, 3))


def load(made: Made, progress: Callable[[Progress], None]) -> Counts:
    """Ingests what was made."""
    from trailsift.ingest import ingest

    return ingest([str(made.folder / "logs" / "AWSLogs")], made.folder / "lake", progress=progress)


def ask(made: Made, counts: Counts) -> Demo:
    """Asks the lake, and once the raw logs."""
    from trailsift.lake.open import open_snapshot
    from trailsift.query import DuckDBEngine

    lake = made.folder / "lake"
    truth = json.loads((made.folder / "logs" / "truth.json").read_text("utf-8"))
    planted = tuple(_planted(incident) for incident in truth["incidents"])
    begun = perf_counter()
    with DuckDBEngine(open_snapshot(lake)) as engine:
        engine.sql("SELECT 1").rows()
        opened = perf_counter() - begun
        asked = questions(engine, planted)
        seen = overview(engine, Period())
        by_role = {line.role_arn: (line.events, line.denied) for line in roles(engine, Period())}
    begun = perf_counter()
    raw = raw_by_role(made.folder / "logs")
    took = perf_counter() - begun
    return Demo(
        folder=made.folder,
        generated=made.generated,
        generate_seconds=made.seconds,
        counts=counts,
        lake_bytes=sum(file.stat().st_size for file in lake.rglob("*.parquet")),
        seen=seen,
        open_seconds=round(opened, 4),
        asked=tuple(asked),
        raw=Timed("Who called how often, and what was denied?", round(took, 4)),
        same=raw == by_role,
        planted=planted,
        next=tuple(suggestions(lake, planted)),
    )


def _planted(incident: dict[str, Any]) -> Planted:
    told = {name: incident[name] for name in Planted._fields if name != "shows"}
    return Planted(**told, shows=SHOWS.get(incident["kind"], "the role's report"))


def questions(engine: Engine, planted: tuple[Planted, ...]) -> list[Timed]:
    """Puts some questions to the lake, each for the first time, and times them."""
    whole = Period()
    arn = next((one.role_arn for one in planted if one.role_arn), None)
    arn = arn or next((line.role_arn for line in roles(engine, whole) if line.role_arn), "")
    needle = "SELECT event_time, event_name, object_key, source_ip FROM events WHERE role_arn = $role AND event_time "
    needle += "BETWEEN $since::TIMESTAMPTZ AND $until::TIMESTAMPTZ ORDER BY event_time"
    span = (planted[0].first_time, planted[0].last_time) if planted else ("2000-01-01", "2100-01-01")
    values = {"role": arn, "since": span[0], "until": span[1]}
    each: list[tuple[str, Callable[[], object]]] = [
        ("Who called how often, and what was denied?", lambda: roles(engine, whole)),
        ("How many calls were there in each hour?", lambda: hours(engine, whole)),
        ("Who was refused what?", lambda: refusals(engine, whole)),
        ("All calls of one role in one hour, with keys", lambda: engine.sql(needle, values).rows()),
    ]
    asked = []
    for question, put in each:
        begun = perf_counter()
        put()
        asked.append(Timed(question, round(perf_counter() - begun, 4)))
    return asked


def raw_by_role(logs: Path) -> dict[str | None, tuple[int, int]]:
    """Events and refusals by role, from the raw logs by DuckDB's JSON reader, told of the fields that it needs only."""
    import duckdb

    codes = ", ".join(f"'{code}'" for code in sorted(DENIED_CODES))
    record = (
        "STRUCT(errorCode VARCHAR, userIdentity STRUCT(arn VARCHAR, invokedBy VARCHAR, "
        "sessionContext STRUCT(sessionIssuer STRUCT(arn VARCHAR))))[]"
    )
    pattern = str(logs / "AWSLogs" / "**" / "*.json.gz").replace("'", "''")
    sql = f"""SELECT coalesce(nullif(r.userIdentity.sessionContext.sessionIssuer.arn, ''),
            nullif(r.userIdentity.arn, ''), nullif(r.userIdentity.invokedBy, '')),
            count(*), count(*) FILTER (WHERE r.errorCode IN ({codes}))
        FROM (SELECT unnest(Records) AS r FROM read_json('{pattern}', columns = {{Records: '{record}'}},
            maximum_object_size = 268435456)) GROUP BY 1"""
    with duckdb.connect() as db:
        return {role: (events, denied) for role, events, denied in db.execute(sql).fetchall()}


def after(time: str) -> str:
    """The next full minute: the end of a period is not in it."""
    moment = datetime.fromisoformat(time).replace(second=0) + timedelta(minutes=1)
    return moment.isoformat().replace("+00:00", "Z")


def suggestions(lake: Path, planted: tuple[Planted, ...]) -> list[Suggestion]:
    """Commands to try next, ready to be copied: they lead to what was planted."""
    by_kind = {one.kind: one for one in planted}
    at = f"--lake {quoted(lake)}"
    made = []
    bulk = by_kind.get("bulk_exfiltration")
    if bulk and bulk.role_arn:
        name = quoted(bulk.role_arn.rpartition("/")[2])
        made.append(
            Suggestion(
                "What did the report role read in that hour?",
                f"trailsift role {name} --since {bulk.first_time} --until {after(bulk.last_time)} {at}",
            )
        )
    network = by_kind.get("new_network")
    if network:
        sql = (
            "SELECT value AS network, min(first_time) AS since, sum(events) AS events FROM profile "
            f"WHERE dimension = 'source_network' AND role_arn = '{network.role_arn}' GROUP BY 1 ORDER BY 2"
        )
        made.append(
            Suggestion("From where were the function's credentials used?", f"trailsift query {double_quoted(sql)} {at}")
        )
    deletes = by_kind.get("mass_delete")
    if deletes:
        sql = (
            "SELECT hour, sum(events) AS deletes FROM hourly WHERE event_name = 'DeleteObject' "
            f"AND role_arn = '{deletes.role_arn}' GROUP BY 1 ORDER BY 2 DESC LIMIT 5"
        )
        made.append(Suggestion("When did the ETL role delete most?", f"trailsift query {double_quoted(sql)} {at}"))
    if made:
        made.append(Suggestion("What is worth a look, if nobody says what was planted?", f"trailsift detect {at}"))
    else:
        made.append(Suggestion("What was asked for most?", f"trailsift summary --by resource {at}"))
    return made
