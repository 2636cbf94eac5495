"""Measure the Firehose transformation: records per second on one core, a batch of 3 MB, and the import.

The records are generated logs in the forms that a stream receives: base64 around gzip, as AWS sends it. Times are CPU
times, the best of nine, in a separate process without the C modules, as in Lambda.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROUNDS = 9
#: JSON bytes of the events in one batch: as much as AWS passes at once, and small enough for a response of 6 MB.
BATCH = 3_000_000
Records = list[dict[str, Any]]


class Piece(NamedTuple):
    """A Firehose record: its data, and the number and JSON bytes of the CloudTrail records in it."""

    data: bytes
    events: int
    size: int


def logs(folder: Path, events: int) -> Records:
    """Return the records of generated logs, in delivery order."""
    from trailsift.generate import Options, generate

    generate(folder, Options(events=events, days=2, seed=11))
    paths = sorted(folder.rglob("*.json.gz"))
    return [record for path in paths for record in json.loads(gzip.decompress(path.read_bytes()))["Records"]]


def text(value: Any) -> bytes:
    """Return compact JSON, as AWS writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


def forms(records: Records) -> Iterator[tuple[str, list[Piece]]]:
    """Yield the name of each form, and its Firehose records."""
    texts = [text(record) for record in records]
    yield "one record each, gzip", [Piece(gzip.compress(each, 1), 1, len(each)) for each in texts]
    yield "one record each, plain", [Piece(each, 1, len(each)) for each in texts]
    grouped = []
    # A subscription batches the events of one log stream: here by hour and service, so that nothing is resent.
    groups: dict[tuple[str, str], Records] = {}
    for record in records:
        groups.setdefault((record["eventTime"][:13], record["eventSource"]), []).append(record)
    for group in groups.values():
        for at in range(0, len(group), 50):
            events = [{"id": "1", "timestamp": 1, "message": text(each).decode()} for each in group[at : at + 50]]
            message = {"messageType": "DATA_MESSAGE", "logGroup": "g", "logStream": "s", "logEvents": events}
            size = sum(len(text(each)) for each in group[at : at + 50])
            grouped.append(Piece(gzip.compress(text(message)), len(events), size))
    yield "CloudWatch Logs, gzip, up to 50 each", grouped


def best(event: dict[str, Any]) -> tuple[float, float]:
    """Return the CPU seconds of one call, and of only reading its input; the best of several rounds in turns."""
    from trailsift.aws.handler import firehose

    ours, plain = [], []
    for _ in range(ROUNDS):
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            responses = firehose(event, None)["records"]
        ours.append(time.process_time() - start)
        assert all(response["result"] == "Ok" for response in responses), "a record failed"
        start = time.process_time()
        for record in event["records"]:
            read_only(base64.b64decode(record["data"]))
        plain.append(time.process_time() - start)
    return min(ours), min(plain)


def read_only(data: bytes) -> None:
    """Do the minimum of any such function with the standard library: unpack and parse."""
    value = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    for message in value.get("logEvents", ()):
        json.loads(message["message"])


def batches(pieces: list[Piece]) -> Iterator[list[Piece]]:
    """Yield batches of full size; the remainder at the end is skipped."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        if size + piece.size > BATCH:
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += piece.size


def event(pieces: list[Piece]) -> dict[str, Any]:
    """Return a batch as Firehose sends it."""
    data = [base64.b64encode(piece.data).decode() for piece in pieces]
    return {"records": [{"recordId": str(number), "data": each} for number, each in enumerate(data)]}


def import_seconds() -> float:
    """Return the CPU seconds for importing the handler in a new process, the best of several."""
    code = "import time; t = time.process_time(); import trailsift.aws.handler; print(time.process_time() - t)"
    words = [sys.executable, "-c", code]
    return min(float(subprocess.check_output(words, text=True)) for _ in range(ROUNDS))


def measure(records: Records) -> list[str]:
    """Return the lines of the page."""
    lines = [
        "| input form | records per second and core | only read with gzip and json | slowest batch of 3 MB |",
        "|---|---|---|---|",
    ]
    for name, pieces in forms(records):
        full = list(batches(pieces))
        total = sum(piece.events for batch in full for piece in batch)
        seconds = [best(event(batch)) for batch in full]
        speed, reading = (total / sum(each) for each in zip(*seconds, strict=True))
        lines.append(f"| {name} | {speed:,.0f} | {reading:,.0f} | {max(seconds)[0]:.2f} s |")
    return [*lines, "", f"Importing the handler: {import_seconds():.2f} s."]


def main() -> None:
    """Print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=8_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = logs(Path(folder) / "logs", options.events)
    size = sum(len(text(record)) for record in records) / len(records)
    measured = measure(records)
    load = max(os.getloadavg())
    page = [
        "# The Firehose transformation, measured",
        "",
        f"{len(records):,} generated records of {size:,.0f} bytes, including base64 and gzip, in CPU time",
        f"(best of {ROUNDS}, in turns; one of {os.cpu_count()} shared cores at a load of {load:.0f}, Python "
        f"{sys.version.split()[0]},",
        "without the C modules, as in Lambda). Other load on the machine's caches slows this down: compare with the",
        "column of the standard library, which reads the same input and does nothing else.",
        "`make bench-transform` writes this page.",
        "",
        *measured,
        "",
        "The template lets AWS pass 0.4 MB at once: batches of CloudWatch Logs unpack to ten times that.",
        "",
    ]
    if options.out is None:
        print("\n".join(page))
    else:
        options.out.write_text("\n".join(page), "utf-8")


if __name__ == "__main__":
    main()
