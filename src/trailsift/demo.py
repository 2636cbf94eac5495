"""The demo: generate logs, ingest them, query the lake. Every step is timed, and one query also runs on the raw logs,
so that the gain is measured and not claimed."""

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
from trailsift.query.relations import text
from trailsift.schema import DENIED_CODES

if TYPE_CHECKING:
    from trailsift.generate import Generated
    from trailsift.ingest import Counts, Progress
    from trailsift.query.engine import Engine

#: How each kind of planted incident shows in the reports.
SHOWS = {
    "bulk_exfiltration": "keys and bytes out in one hour",
    "slow_exfiltration": "reads by a role that only wrote before",
    "first_service": "a service new to the role",
    "new_network": "a network new to the role",
    "enumeration": "denied calls, bucket after bucket",
    "mass_delete": "DeleteObject calls within half an hour",
    "night_activity": "the hours of the week",
    "new_key_pattern": "key patterns of the role",
}


class Planted(NamedTuple):
    """One planted incident as in truth.json; times as ISO 8601."""

    kind: str
    title: str
    role_arn: str | None
    first_time: str
    last_time: str
    events: int
    shows: str


class Timed(NamedTuple):
    """A query, in words, and how long it took."""

    question: str
    seconds: float


class Suggestion(NamedTuple):
    """A command to try, and the question that it answers."""

    says: str
    command: str


@dataclass(frozen=True, slots=True)
class Demo:
    """The results of the demo. ``raw`` is the first query of ``asked`` on the raw logs; ``same``: the answers agree."""

    folder: Path
    generated: Generated
    generate_seconds: float
    counts: Counts
    lake_bytes: int
    overview: Overview
    open_seconds: float
    asked: tuple[Timed, ...]
    raw: Timed
    same: bool
    planted: tuple[Planted, ...]
    next: tuple[Suggestion, ...]

    @property
    def lake(self) -> Path:
        """The folder of the lake."""
        return self.folder / "lake"

    def as_dict(self) -> dict[str, Any]:
        """Return the results for ``--json``."""
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
            "overview": self.overview.as_dict(),
            "planted": plain(self.planted),
            "next": plain(self.next),
        }


@dataclass(frozen=True, slots=True)
class DemoLogs:
    """Generated logs, ready to be ingested."""

    folder: Path
    generated: Generated
    seconds: float


def generate_logs(
    events: int, days: float, seed: int, folder: Path | None, progress: Callable[[int], None]
) -> DemoLogs:
    """Generate logs under ``folder`` (default: a temporary folder). UsageError if the options are not valid."""
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
    return DemoLogs(home, generated, round(perf_counter() - begun, 3))


def ingest_logs(logs: DemoLogs, progress: Callable[[Progress], None]) -> Counts:
    """Ingest the generated logs."""
    from trailsift.ingest import ingest

    return ingest([str(logs.folder / "logs" / "AWSLogs")], logs.folder / "lake", progress=progress)


def ask_lake(logs: DemoLogs, counts: Counts) -> Demo:
    """Query the lake, and once the raw logs."""
    from trailsift.lake.open import open_snapshot
    from trailsift.query import DuckDBEngine

    lake = logs.folder / "lake"
    truth = json.loads((logs.folder / "logs" / "truth.json").read_text("utf-8"))
    planted = tuple(_planted(incident) for incident in truth["incidents"])
    begun = perf_counter()
    with DuckDBEngine(open_snapshot(lake)) as engine:
        engine.sql("SELECT 1").rows()
        opened = perf_counter() - begun
        asked = questions(engine, planted)
        report = overview(engine, Period())
        by_role = counts_by_role(engine)
    begun = perf_counter()
    raw = raw_by_role(logs.folder / "logs")
    took = perf_counter() - begun
    return Demo(
        folder=logs.folder,
        generated=logs.generated,
        generate_seconds=logs.seconds,
        counts=counts,
        lake_bytes=sum(file.stat().st_size for file in lake.rglob("*.parquet")),
        overview=report,
        open_seconds=round(opened, 4),
        asked=tuple(asked),
        raw=Timed("How many calls did each role make, and how many were denied?", round(took, 4)),
        same=raw == by_role,
        planted=planted,
        next=tuple(suggestions(lake, planted)),
    )


def counts_by_role(engine: Engine) -> dict[str | None, tuple[int, int]]:
    """Return events and denied calls by role, as ``raw_by_role`` does: callers without an ARN together."""
    counted: dict[str | None, tuple[int, int]] = {}
    for line in roles(engine, Period()):
        events, denied = counted.get(line.role_arn, (0, 0))
        counted[line.role_arn] = events + line.events, denied + line.denied
    return counted


def _planted(incident: dict[str, Any]) -> Planted:
    fields = {name: incident[name] for name in Planted._fields if name != "shows"}
    return Planted(**fields, shows=SHOWS.get(incident["kind"], "the role's report"))


def questions(engine: Engine, planted: tuple[Planted, ...]) -> list[Timed]:
    """Run some queries on the lake, each for the first time, and time them."""
    everything = Period()
    arn = next((incident.role_arn for incident in planted if incident.role_arn), None)
    arn = arn or next((line.role_arn for line in roles(engine, everything) if line.role_arn), "")
    needle = "SELECT event_time, event_name, object_key, source_ip FROM events WHERE role_arn = $role AND event_time "
    needle += "BETWEEN $since::TIMESTAMPTZ AND $until::TIMESTAMPTZ ORDER BY event_time"
    span = (planted[0].first_time, planted[0].last_time) if planted else ("2000-01-01", "2100-01-01")
    values = {"role": arn, "since": span[0], "until": span[1]}
    each: list[tuple[str, Callable[[], object]]] = [
        ("How many calls did each role make, and how many were denied?", lambda: roles(engine, everything)),
        ("How many calls were made per hour?", lambda: hours(engine, everything)),
        ("Which calls were denied, by role?", lambda: refusals(engine, everything)),
        ("All calls of one role during an incident, with object keys", lambda: engine.sql(needle, values).rows()),
    ]
    asked = []
    for question, run in each:
        begun = perf_counter()
        run()
        asked.append(Timed(question, round(perf_counter() - begun, 4)))
    return asked


def raw_by_role(logs: Path) -> dict[str | None, tuple[int, int]]:
    """Return events and denied calls by role, from the raw logs by DuckDB's JSON reader with an explicit schema of only
    the fields that it needs."""
    import duckdb

    codes = ", ".join(f"'{code}'" for code in sorted(DENIED_CODES))
    record = (
        "STRUCT(errorCode VARCHAR, userIdentity STRUCT(arn VARCHAR, invokedBy VARCHAR, "
        "sessionContext STRUCT(sessionIssuer STRUCT(arn VARCHAR))))[]"
    )
    pattern = text(str(logs / "AWSLogs" / "**" / "*.json.gz"))
    sql = f"""SELECT coalesce(nullif(r.userIdentity.sessionContext.sessionIssuer.arn, ''),
            nullif(r.userIdentity.arn, ''), nullif(r.userIdentity.invokedBy, '')),
            count(*), count(*) FILTER (WHERE r.errorCode IN ({codes}))
        FROM (SELECT unnest(Records) AS r FROM read_json({pattern}, columns = {{Records: '{record}'}},
            maximum_object_size = 268435456)) GROUP BY 1"""
    with duckdb.connect() as db:
        return {role: (events, denied) for role, events, denied in db.execute(sql).fetchall()}


def after(time: str) -> str:
    """Return the next full minute, because the end of a period is not part of it."""
    moment = datetime.fromisoformat(time).replace(second=0) + timedelta(minutes=1)
    return moment.isoformat().replace("+00:00", "Z")


def suggestions(lake: Path, planted: tuple[Planted, ...]) -> list[Suggestion]:
    """Return commands to try next, ready to copy, which lead to the planted incidents."""
    by_kind = {incident.kind: incident for incident in planted}
    at = f"--lake {quoted(lake)}"
    suggested = []
    bulk = by_kind.get("bulk_exfiltration")
    if bulk and bulk.role_arn:
        name = quoted(bulk.role_arn.rpartition("/")[2])
        suggested.append(
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
        suggested.append(
            Suggestion("Which networks used the function's credentials?", f"trailsift query {double_quoted(sql)} {at}")
        )
    deletes = by_kind.get("mass_delete")
    if deletes:
        sql = (
            "SELECT hour, sum(events) AS deletes FROM hourly WHERE event_name = 'DeleteObject' "
            f"AND role_arn = '{deletes.role_arn}' GROUP BY 1 ORDER BY 2 DESC LIMIT 5"
        )
        suggested.append(
            Suggestion("In which hours did the ETL role delete most?", f"trailsift query {double_quoted(sql)} {at}")
        )
    if suggested:
        suggested.append(Suggestion("What would stand out without knowing what was planted?", f"trailsift detect {at}"))
    else:
        suggested.append(Suggestion("Which resources were used most?", f"trailsift summary --by resource {at}"))
    return suggested
