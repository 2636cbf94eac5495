"""Measure the gain of each piece of the original document: the piece as written beside the one that works.

Logs are generated as two trails deliver them (so many events come twice), and the results of both sides are counted.
The results of the original's pieces are computed here from their text; none of its code is run.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import io
import json
import os
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
from trailsift.prices import load_prices
from trailsift.query import DuckDBEngine
from trailsift.rules import RowRules, load

Record = dict[str, Any]

#: The names that the original's function accepts, whatever the service.
NAMES = frozenset({"GetObject", "PutObject", "DeleteObject", "Invoke", "GetItem", "PutItem", "DeleteItem"})
#: Local hour -> the share that its sampling keeps.
SHARES = {**dict.fromkeys(range(9, 18), 0.1), **dict.fromkeys(range(18, 23), 0.05)}
NIGHT_SHARE = 0.01


class Row(NamedTuple):
    """A piece of the original, what is measured, its result as written, and the result of the piece that works."""

    piece: str
    measured: str
    original: str
    ours: str


@dataclass
class Scene:
    """The logs, with the time at which a stream receives each record, and a lake of them."""

    folder: Path
    records: list[tuple[datetime, Record]]
    engine: DuckDBEngine

    @cached_property
    def distinct(self) -> list[Record]:
        """Each event once."""
        return list({record["eventID"]: record for _, record in self.records}.values())

    def ask(self, sql: str) -> Any:
        """Return the single value of a query."""
        return self.engine.query(sql, cache=False).rows()[0][0]


def _time(record: Record) -> datetime:
    return datetime.fromisoformat(record["eventTime"])


def _percent(part: float, whole: float) -> str:
    return f"{part / max(whole, 1):.1%}"


def configuration(scene: Scene) -> Row:
    """Count the events that land in the folder of another hour: by arrival time, and by their own time."""
    hour = "%Y%m%d%H"
    astray = sum(f"{when:{hour}}" != f"{_time(record):{hour}}" for when, record in scene.records)
    share = _percent(astray, len(scene.records))
    return Row("Firehose configuration", "events in the folder of another hour", share, "0.0%")


def function(scene: Scene) -> Row:
    """Count the events of each envelope that come out of the function."""
    records = scene.distinct[:400]
    groups = [records[at : at + 20] for at in range(0, len(records), 20)]
    messages = [[{"id": "1", "timestamp": 1, "message": json.dumps(each)} for each in group] for group in groups]
    data = [json.dumps(record).encode() for record in records]
    data += [
        gzip.compress(json.dumps({"messageType": "DATA_MESSAGE", "logEvents": each}).encode()) for each in messages
    ]
    data += [json.dumps({"Records": group}).encode() for group in groups]
    data += [
        json.dumps({"detail-type": "AWS API Call via CloudTrail", "detail": record}).encode() for record in records
    ]
    sent = 4 * len(records)
    batch = [{"recordId": str(at), "data": base64.b64encode(each).decode()} for at, each in enumerate(data)]
    with contextlib.redirect_stdout(io.StringIO()):
        responses = firehose({"records": batch}, None)["records"]
    lines = [base64.b64decode(each["data"]).count(b"\n") for each in responses if each["result"] == "Ok"]
    # The original accepts one bare event; a gzip record raises, which fails the whole batch.
    bare = sum(record["eventName"] in NAMES and isinstance(record.get("resources", []), list) for record in records)
    first = _percent(bare, sent)
    return Row("Lambda function", "events that come out, of four envelopes", f"{first}: the bare ones on its list",
               _percent(sum(lines), sent))  # fmt: skip


def names(scene: Scene) -> Row:
    """Count the data events that the list of names loses."""
    data = [record for record in scene.distinct if record.get("eventCategory") == "Data"]
    lost = sum(record["eventName"] not in NAMES for record in data)
    rules = RowRules(load(_preset("important-events")))
    dropped = 0
    columns = scene.engine.query("SELECT * FROM events WHERE event_category = 'Data'", cache=False)
    fields = [name for name, _ in columns.columns]
    for row in columns.rows():
        dropped += rules.decide(_plain(dict(zip(fields, row, strict=True)))).weight == 0
    kept_out = f"{_percent(dropped, len(data))}, and counted"
    return Row("its list of events", "data events lost", _percent(lost, len(data)), kept_out)


def _plain(row: Record) -> Record:
    return row | {"event_time": round(row["event_time"].timestamp() * 1e6)}


def _preset(name: str) -> Path:
    from trailsift.rules import presets

    return Path(next(iter(presets.__path__))) / f"{name}.toml"


def projection(scene: Scene) -> Row:
    """Count the callers that the remaining fields can distinguish."""
    roles = scene.ask("SELECT count(DISTINCT role_arn) FROM events")
    kinds = len({record["userIdentity"].get("type") for record in scene.distinct if record.get("userIdentity")})
    return Row("its projection", "distinguishable callers", f"{kinds} kinds of users", f"{roles} roles")


def crawler(scene: Scene) -> Row:
    """Return how long a partition waits until it can be queried."""
    waits = [(24 - (when.hour + when.minute / 60) + 1) % 24 for when, _ in scene.records]
    measured = "hours until a new partition can be queried (computed)"
    return Row("Glue crawler", measured, f"{median(waits):.0f}, median of events", "0: projected")


def columnar(scene: Scene, way: Technique) -> Row:
    """Bytes that the question reads, and events that are there twice."""
    twice = len(scene.records) - len(scene.distinct)
    stored = scene.ask("SELECT count(*) - count(DISTINCT event_id) FROM events")
    ours = f"{stored} twice; {way.faster:,.0f} times faster, {way.saved:.1%} fewer bytes"
    return Row("CTAS", "events stored twice; gain over the log files", f"{twice:,} twice", ours)


def pruned(way: Technique) -> Row:
    """Return what pruning by partitions gains alone."""
    ours = f"{way.faster:,.1f} times faster, {way.saved:.1%} fewer bytes"
    return Row("partition layout, pruned query", "gain over the log files", "an error: no such field", ours)


def steampipe(scene: Scene) -> Row:
    """Run the same query on the lake."""
    sql = (
        "SELECT event_time, event_name, principal_type, source_ip, resource_arn FROM events WHERE service = 's3' "
        "AND event_name IN ('GetObject', 'PutObject') ORDER BY event_time DESC LIMIT 100"
    )
    seconds = []
    for _ in range(5):
        start = perf_counter()
        count = len(scene.engine.query(sql, cache=False).rows())
        seconds.append(perf_counter() - start)
    return Row("Steampipe", "rows of its query", "no such table", f"{count}, in {median(seconds) * 1000:.0f} ms")


def dashboard(scene: Scene) -> Row:
    """Count the metrics that exist."""
    usd = load_prices()["custom_metric"].of(metrics.BUDGET)
    return Row("CloudWatch dashboard", "metrics that exist", "0 of 3", f"at most {metrics.BUDGET}, ${usd:.2f} a month")


def sampling(scene: Scene) -> Row:
    """Return the share of failed calls that sampling keeps, and the error of a count."""
    failed = [record for record in scene.distinct if record.get("errorCode")]
    # The local time of the machine that samples, in the company's own zone.
    kept = sum(SHARES.get((_time(record) + timedelta(hours=9)).hour, NIGHT_SHARE) for record in failed)
    ingest([str(scene.folder / "logs" / "AWSLogs")], scene.folder / "sampled", rules=load(_preset("time-of-day")))
    with DuckDBEngine(open_snapshot(scene.folder / "sampled")) as engine:
        sampled = Scene(scene.folder, [], engine)
        left = sampled.ask("SELECT count(*) FROM events WHERE error_code IS NOT NULL")
        stored, estimated = (sampled.ask(f"SELECT {count} FROM events") for count in ("count(*)", "sum(weight)"))
    total = len(scene.distinct)
    off = abs(estimated - total) / total
    ours = f"{_percent(left, len(failed))}; counts {off:.1%} off, with {_percent(stored, total)} of the events"
    return Row("sampling by the hour", "failed calls that are kept", f"{_percent(kept, len(failed))}; no weights", ours)


def summary(scene: Scene) -> Row:
    """Count the distinct addresses of the whole period from hourly rows."""
    truth = scene.ask("SELECT count(DISTINCT source_ip) FROM events")
    added = scene.ask("SELECT sum(unique_ips) FROM hourly_summary")
    merged = scene.ask("SELECT distinct_count(merge_sketches(list(source_ips))) FROM hourly")
    measured = f"distinct addresses, actually {truth}, from hourly rows"
    return Row("hourly summary", measured, f"{added:,} when added up", f"{merged:,}")


def anomalies(scene: Scene) -> Row:
    """Count the planted incidents that are found, and the false findings."""
    truth = read_truth(scene.folder / "logs" / "truth.json")
    results = []
    for findings in (over_threshold(scene.engine, 1000), detect(scene.engine, detections=builtin_rules()[0]).findings):
        result = judge(findings, truth)
        found = sum(outcome.found for outcome in result.outcomes)
        results.append(f"{found} of {len(result.outcomes)}, {result.false_per_day:.1f} false a day")
    return Row("detect_anomalies.py, Lookout", "planted incidents found", f"{results[0]} (threshold 1000)", results[1])


def table_of_gains(way: Technique) -> Row:
    """Everything together."""
    ours = f"{way.faster:,.0f} times faster, {way.saved:.1%} fewer bytes"
    return Row("table of gains", "everything combined", "5-50 times, no source", ours)


def rows(scene: Scene) -> Iterator[Row]:
    """Yield every piece in the document's order."""
    say("measuring every variant")
    with tempfile.TemporaryDirectory() as folder:
        found = measure([str(scene.folder / "logs" / "AWSLogs")], Path(folder), load_prices(), rounds=3, generated=True)
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
    """Return the records, each with its arrival time: minutes after the event, for a few of them hours."""
    paths = sorted(folder.rglob("*.json.gz"))
    records = [record for path in paths for record in json.loads(gzip.decompress(path.read_bytes()))["Records"]]
    late = delays(np.random.default_rng(5), len(records)).tolist()
    return [(_time(record) + timedelta(seconds=seconds), record) for record, seconds in zip(records, late, strict=True)]


def main() -> None:
    """Print or write the page."""
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
            measured = list(rows(scene))
        total, load = len(scene.records), os.getloadavg()[2]
    page = [
        "# The original document, measured",
        "",
        f"{options.events:,} generated events of {options.days:g} days, delivered by two trails as {total:,} records; "
        "`make bench-original` writes this page. The results of the original's pieces are computed from their text, as "
        "if their errors did not stop them; [the page about them](../docs/original.md) lists those errors. Times were "
        f"measured on {os.cpu_count()} cores at a load of {load:.0f}: with less, what works is faster by more.",
        "",
        "| piece | measured | as written | what works |",
        "|---|---|---|---|",
        *(f"| {row.piece} | {row.measured} | {row.original} | {row.ours} |" for row in measured),
        "",
    ]
    if options.out is None:
        sys.stdout.write("\n".join(page))
    else:
        options.out.write_text("\n".join(page), "utf-8")


if __name__ == "__main__":
    main()
