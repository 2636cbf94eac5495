"""What each piece of the original document gains, measured: the piece as it was written beside the one that works.

Logs are generated, as two trails deliver them (so many events come twice), and the answers of both sides are counted.
What the original's pieces would give is worked out here from what they say; none of its code is run.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from page import say
from trailsift.aws.handler import firehose
from trailsift.aws.transform import metrics
from trailsift.benchmark import measure
from trailsift.benchmark.results import Technique
from trailsift.detect.detection_rules import builtin_rules
from trailsift.detect.evaluation import judge, read_truth
from trailsift.detect.pipeline import detect, over_threshold
from trailsift.generate import Options, generate
from trailsift.generate.delivery import delays
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.prices import prices
from trailsift.query import DuckDBEngine
from trailsift.rules import RowRules, load

Record = dict[str, Any]

#: The names that the original's function lets pass, from whatever service.
NAMES = frozenset({"GetObject", "PutObject", "DeleteObject", "Invoke", "GetItem", "PutItem", "DeleteItem"})
#: The share that its sampling keeps at an hour of the clock.
SHARES = {**dict.fromkeys(range(9, 18), 0.1), **dict.fromkeys(range(18, 23), 0.05)}
NIGHT_SHARE = 0.01


class Row(NamedTuple):
    """A piece of the original; what it gives as it was written, and what the working one gives."""

    piece: str
    asked: str
    original: str
    ours: str


@dataclass
class Scene:
    """The logs, each record with the time at which a stream gets it, and the lake of them."""

    folder: Path
    records: list[tuple[datetime, Record]]
    engine: DuckDBEngine

    @cached_property
    def distinct(self) -> list[Record]:
        """Each event once."""
        return list({record["eventID"]: record for _, record in self.records}.values())

    def ask(self, sql: str) -> Any:
        """The one value that a statement gives."""
        return self.engine.query(sql, cache=False).rows()[0][0]


def _time(record: Record) -> datetime:
    return datetime.fromisoformat(record["eventTime"])


def _percent(part: float, whole: float) -> str:
    return f"{part / max(whole, 1):.1%}"


def configuration(scene: Scene) -> Row:
    """In which folder an event lands: by its arrival, or by its own time."""
    hour = "%Y%m%d%H"
    astray = sum(f"{when:{hour}}" != f"{_time(record):{hour}}" for when, record in scene.records)
    share = _percent(astray, len(scene.records))
    return Row("Firehose configuration", "events in the folder of another hour", share, "0.0%")


def function(scene: Scene) -> Row:
    """How many events of each envelope come out of the function."""
    records = scene.distinct[:400]
    groups = [records[at : at + 20] for at in range(0, len(records), 20)]
    messages = [[{"id": "1", "timestamp": 1, "message": json.dumps(one)} for one in group] for group in groups]
    data = [json.dumps(one).encode() for one in records]
    data += [gzip.compress(json.dumps({"messageType": "DATA_MESSAGE", "logEvents": one}).encode()) for one in messages]
    data += [json.dumps({"Records": group}).encode() for group in groups]
    data += [json.dumps({"detail-type": "AWS API Call via CloudTrail", "detail": one}).encode() for one in records]
    sent = 4 * len(records)
    batch = [{"recordId": str(at), "data": base64.b64encode(one).decode()} for at, one in enumerate(data)]
    with contextlib.redirect_stdout(io.StringIO()):
        answers = firehose({"records": batch}, None)["records"]
    lines = [base64.b64decode(one["data"]).count(b"\n") for one in answers if one["result"] == "Ok"]
    # The original takes one bare event; a record in gzip raises, and with it the batch.
    bare = sum(one["eventName"] in NAMES and isinstance(one.get("resources", []), list) for one in records)
    first = _percent(bare, sent)
    return Row("Lambda function", "events in four envelopes that come out", f"{first}: the bare ones on its list",
               _percent(sum(lines), sent))  # fmt: skip


def names(scene: Scene) -> Row:
    """What the list of names loses of the data events."""
    data = [one for one in scene.distinct if one.get("eventCategory") == "Data"]
    lost = sum(one["eventName"] not in NAMES for one in data)
    sifter = RowRules(load(_ready("important-events")))
    dropped = 0
    columns = scene.engine.query("SELECT * FROM events WHERE event_category = 'Data'", cache=False)
    fields = [name for name, _ in columns.columns]
    for row in columns.rows():
        dropped += sifter.decide(_plain(dict(zip(fields, row, strict=True)))).weight == 0
    asked = "data events lost"
    return Row("its list of events", asked, _percent(lost, len(data)), f"{_percent(dropped, len(data))}, and counted")


def _plain(row: Record) -> Record:
    return row | {"event_time": round(row["event_time"].timestamp() * 1e6)}


def _ready(name: str) -> Path:
    from trailsift.rules import presets

    return Path(next(iter(presets.__path__))) / f"{name}.toml"


def projection(scene: Scene) -> Row:
    """Whom the events that are left can be told to be of."""
    roles = scene.ask("SELECT count(DISTINCT role_arn) FROM events")
    kinds = len({one["userIdentity"].get("type") for one in scene.distinct if one.get("userIdentity")})
    return Row("its projection", "who can be told apart", f"{kinds} kinds of users", f"{roles} roles")


def crawler(scene: Scene) -> Row:
    """How long a partition waits until it can be asked for."""
    waits = [(24 - (when.hour + when.minute / 60) + 1) % 24 for when, _ in scene.records]
    asked = "hours until a new partition is known (reckoned)"
    return Row("Glue crawler", asked, f"{median(waits):.0f}, median of events", "0: projected")


def columnar(scene: Scene, way: Technique) -> Row:
    """Bytes that the question reads, and events that are there twice."""
    twice = len(scene.records) - len(scene.distinct)
    stored = scene.ask("SELECT count(*) - count(DISTINCT event_id) FROM events")
    ours = f"{stored} twice; {way.faster:,.0f} times faster, {way.saved:.1%} fewer bytes"
    return Row("CTAS", "events stored twice; gain over the log files", f"{twice:,} twice", ours)


def pruned(way: Technique) -> Row:
    """What pruning by partitions gives by itself."""
    ours = f"{way.faster:,.1f} times faster, {way.saved:.1%} fewer bytes"
    return Row("partition layout, pruned query", "gain over the log files", "an error: no such field", ours)


def steampipe(scene: Scene) -> Row:
    """The same question, put to the lake."""
    sql = (
        "SELECT event_time, event_name, principal_type, source_ip, resource_arn FROM events WHERE service = 's3' "
        "AND event_name IN ('GetObject', 'PutObject') ORDER BY event_time DESC LIMIT 100"
    )
    taken = []
    for _ in range(5):
        start = perf_counter()
        found = len(scene.engine.query(sql, cache=False).rows())
        taken.append(perf_counter() - start)
    return Row("Steampipe", "rows of its question", "no such table", f"{found}, in {median(taken) * 1000:.0f} ms")


def dashboard(scene: Scene) -> Row:
    """Metrics that there are to be shown."""
    usd = prices()["custom_metric"].of(metrics.BUDGET)
    return Row("CloudWatch dashboard", "metrics that exist", "0 of 3", f"{metrics.BUDGET} at most, ${usd:.2f} a month")


def sampling(scene: Scene) -> Row:
    """What sampling leaves of failed calls, and how far a count is off."""
    failed = [one for one in scene.distinct if one.get("errorCode")]
    # The clock of the machine that samples, in the company's own zone.
    kept = sum(SHARES.get((_time(one) + timedelta(hours=9)).hour, NIGHT_SHARE) for one in failed)
    ingest([str(scene.folder / "logs" / "AWSLogs")], scene.folder / "sampled", rules=load(_ready("time-of-day")))
    with DuckDBEngine(open_snapshot(scene.folder / "sampled")) as engine:
        sampled = Scene(scene.folder, [], engine)
        left = sampled.ask("SELECT count(*) FROM events WHERE error_code IS NOT NULL")
        stored, reckoned = (sampled.ask(f"SELECT {what} FROM events") for what in ("count(*)", "sum(weight)"))
    total = len(scene.distinct)
    off = abs(reckoned - total) / total
    ours = f"{_percent(left, len(failed))}; counts {off:.1%} off, of {_percent(stored, total)} of the events"
    return Row("sampling by the hour", "failed calls that are left", f"{_percent(kept, len(failed))}; no weights", ours)


def summary(scene: Scene) -> Row:
    """Distinct addresses of the whole time, from the lines of hours."""
    truth = scene.ask("SELECT count(DISTINCT source_ip) FROM events")
    added = scene.ask("SELECT sum(unique_ips) FROM hourly_summary")
    merged = scene.ask("SELECT distinct_count(merge_sketches(list(source_ips))) FROM hourly")
    asked = f"distinct addresses, of {truth}, from hourly lines"
    return Row("hourly summary", asked, f"{added:,} when added up", f"{merged:,}")


def anomalies(scene: Scene) -> Row:
    """Planted incidents that are found, and what else is told."""
    truth = read_truth(scene.folder / "logs" / "truth.json")
    told = []
    for findings in (over_threshold(scene.engine, 1000), detect(scene.engine, detections=builtin_rules()[0]).findings):
        result = judge(findings, truth)
        found = sum(one.found for one in result.outcomes)
        told.append(f"{found} of {len(result.outcomes)}, {result.false_per_day:.1f} false a day")
    return Row("detect_anomalies.py, Lookout", "planted incidents found", f"{told[0]} (threshold 1000)", told[1])


def table_of_gains(way: Technique) -> Row:
    """Everything together."""
    ours = f"{way.faster:,.0f} times faster, {way.saved:.1%} fewer bytes"
    return Row("table of gains", "all of it together", "5-50 times, no source", ours)


def rows(scene: Scene) -> Iterator[Row]:
    """Every piece in the document's order."""
    say("asking every way")
    with tempfile.TemporaryDirectory() as folder:
        found = measure([str(scene.folder / "logs" / "AWSLogs")], Path(folder), prices(), rounds=3, generated=True)
    ways = {way.name: way for way in found.techniques}
    steps: tuple[Callable[[Scene], Row], ...] = (configuration, function, names, projection)
    for step in steps:
        yield step(scene)
    yield pruned(ways["partitioning"])
    yield crawler(scene)
    yield columnar(scene, ways["columnar storage"])
    for step in (steampipe, dashboard):
        yield step(scene)
    for step in (sampling, summary, anomalies):
        yield step(scene)
    yield table_of_gains(ways["all together"])


def _records(folder: Path) -> list[tuple[datetime, Record]]:
    """The records, and when each arrives: some minutes after the event, a few of them hours."""
    paths = sorted(folder.rglob("*.json.gz"))
    found = [one for path in paths for one in json.loads(gzip.decompress(path.read_bytes()))["Records"]]
    late = delays(np.random.default_rng(5), len(found)).tolist()
    return [(_time(one) + timedelta(seconds=seconds), one) for one, seconds in zip(found, late, strict=True)]


def main() -> None:
    """Prints the page or writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--days", type=float, default=14)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say(f"generating {options.events:,} events")
        generate(folder / "logs", Options(events=options.events, days=options.days, seed=5, two_trails=True))
        ingest([str(folder / "logs" / "AWSLogs")], folder / "lake")
        with DuckDBEngine(open_snapshot(folder / "lake")) as engine:
            scene = Scene(folder, _records(folder / "logs"), engine)
            found = list(rows(scene))
        total = len(scene.records)
    page = [
        "# The original document, measured",
        "",
        f"{options.events:,} generated events of {options.days:g} days, delivered by two trails as {total:,} records; "
        "`make bench-original` writes this page. What the original's pieces would give is worked out from what they "
        "say, apart from errors that stop them before that: [the page about them](../docs/original.md) has those.",
        "",
        "| piece | measured | as it was written | what works |",
        "|---|---|---|---|",
        *(f"| {row.piece} | {row.asked} | {row.original} | {row.ours} |" for row in found),
        "",
    ]
    if options.out is None:
        sys.stdout.write("\n".join(page))
    else:
        options.out.write_text("\n".join(page), "utf-8")


if __name__ == "__main__":
    main()
