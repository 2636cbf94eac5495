"""How fast the Firehose transformation is: records a second of one core, a batch of 3 MB, and the import.

The records are generated logs, in the forms in which a stream gets them: base64 around gzip, as AWS sends it. Times are
of the processor, the best of five, in a process of its own that has no accelerator: as in Lambda.
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
#: JSON of the events in one batch: what AWS hands over at once, and what leaves room in an answer of 6 MB.
BATCH = 3_000_000
Records = list[dict[str, Any]]


class Piece(NamedTuple):
    """A Firehose record: its data, how many CloudTrail records are in it, and how many bytes of JSON these are."""

    data: bytes
    events: int
    size: int


def logs(folder: Path, events: int) -> Records:
    """Records of generated logs, in the order of their delivery."""
    from trailsift.generate import Options, generate

    generate(folder, Options(events=events, days=2, seed=11))
    paths = sorted(folder.rglob("*.json.gz"))
    return [one for path in paths for one in json.loads(gzip.decompress(path.read_bytes()))["Records"]]


def text(value: Any) -> bytes:
    """JSON as AWS writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


def forms(records: Records) -> Iterator[tuple[str, list[Piece]]]:
    """Name -> Firehose records."""
    texts = [text(one) for one in records]
    yield "one record each, gzip", [Piece(gzip.compress(one, 1), 1, len(one)) for one in texts]
    yield "one record each, plain", [Piece(one, 1, len(one)) for one in texts]
    grouped = []
    # A subscription batches what one log stream gets: here by hour and service, so that nothing is sent again.
    alike: dict[tuple[str, str], Records] = {}
    for one in records:
        alike.setdefault((one["eventTime"][:13], one["eventSource"]), []).append(one)
    for group in alike.values():
        for at in range(0, len(group), 50):
            events = [{"id": "1", "timestamp": 1, "message": text(one).decode()} for one in group[at : at + 50]]
            message = {"messageType": "DATA_MESSAGE", "logGroup": "g", "logStream": "s", "logEvents": events}
            size = sum(len(text(one)) for one in group[at : at + 50])
            grouped.append(Piece(gzip.compress(text(message)), len(events), size))
    yield "CloudWatch Logs, gzip, up to 50 each", grouped


def best(event: dict[str, Any]) -> tuple[float, float]:
    """Seconds of the processor for one call, and for only reading the same, in turns: the least of each."""
    from trailsift.aws.handler import firehose

    ours, plain = [], []
    for _ in range(ROUNDS):
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            answers = firehose(event, None)["records"]
        ours.append(time.process_time() - start)
        assert all(one["result"] == "Ok" for one in answers), "a record was not taken"
        start = time.process_time()
        for one in event["records"]:
            read_only(base64.b64decode(one["data"]))
        plain.append(time.process_time() - start)
    return min(ours), min(plain)


def read_only(data: bytes) -> None:
    """What every such function has to do at least, by the standard library: unpack and parse."""
    value = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    for message in value.get("logEvents", ()):
        json.loads(message["message"])


def batches(pieces: list[Piece]) -> Iterator[list[Piece]]:
    """Cut to the size of a batch; what is left over at the end is left out."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        if size + piece.size > BATCH:
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += piece.size


def event(pieces: list[Piece]) -> dict[str, Any]:
    """A batch as Firehose sends it."""
    data = [base64.b64encode(piece.data).decode() for piece in pieces]
    return {"records": [{"recordId": str(number), "data": one} for number, one in enumerate(data)]}


def import_seconds() -> float:
    """Seconds of the processor that importing the handler takes in a new process, the least of some."""
    code = "import time; t = time.process_time(); import trailsift.aws.handler; print(time.process_time() - t)"
    words = [sys.executable, "-c", code]
    return min(float(subprocess.check_output(words, text=True)) for _ in range(ROUNDS))


def measured(records: Records) -> list[str]:
    """The page's lines."""
    lines = [
        "| records come as | records a second of a core | only read with gzip and json | slowest batch of 3 MB |",
        "|---|---|---|---|",
    ]
    for name, made in forms(records):
        cut = list(batches(made))
        total = sum(piece.events for batch in cut for piece in batch)
        seconds = [best(event(batch)) for batch in cut]
        speed, reading = (total / sum(one) for one in zip(*seconds, strict=True))
        lines.append(f"| {name} | {speed:,.0f} | {reading:,.0f} | {max(seconds)[0]:.2f} s |")
    return [*lines, "", f"Importing the handler: {import_seconds():.2f} s."]


def main() -> None:
    """Prints the page or writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=8_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = logs(Path(folder) / "logs", options.events)
    size = sum(len(text(one)) for one in records) / len(records)
    page = [
        "# The Firehose transformation, measured",
        "",
        f"{len(records):,} generated records of {size:,.0f} bytes, base64 and gzip included, in seconds of processor",
        f"(best of {ROUNDS}, in turns; one of {os.cpu_count()} shared cores, Python {sys.version.split()[0]},",
        "without accelerators, as in Lambda). What takes part of a core's caches away takes part of the speed: compare",
        "with the column of the standard library, which reads the same and does nothing else.",
        "`make bench-transform` writes this page.",
        "",
        *measured(records),
        "",
        "The template lets AWS hand over 0.4 MB at once: batches of CloudWatch Logs unpack to ten times that.",
        "",
    ]
    if options.out is None:
        print("\n".join(page))
    else:
        options.out.write_text("\n".join(page), "utf-8")


if __name__ == "__main__":
    main()
