"""The logs of a trial, and what a lake of them must hold: read with Python's own ``json`` and ``gzip`` alone."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Log objects of real logs that are used, if there are any, and the bytes that one may have at most.
REAL_OBJECTS = 50
REAL_BYTES = 12_000

#: Drops, samples, and keeps the rest.
RULES = """\
[[rule]]
name = "lambda"
when = { service = "lambda" }
action = "drop"

[[rule]]
name = "reads"
when = { service = "s3", read_only = true }
action = "sample"
rate = 0.3
"""

#: Members that a record gets instead of its own.
_ODD: tuple[dict[str, Any], ...] = (
    {"additionalEventData": {"bytesTransferredOut": 3.0, "x": [1, 1.0, None, {}]}},
    {"unknownField": {"ключ": "값 \u2028 \x7f", "Tag": 1, "tag": 2}},
    {"requestParameters": None, "responseElements": {"a": {"b": {"c": [[]]}}}},
    {"userAgent": 'quote " back \\ slash / tab \t', "sourceIPAddress": "2001:db8::1"},
)


@dataclass
class Truth:
    """The records of all log objects."""

    #: Event id -> digests of the records with that id: the first that is committed is stored.
    contents: dict[str, set[str]] = field(default_factory=dict)
    #: (hour, event name) of each distinct event -> events.
    hourly: Counter[tuple[str, str]] = field(default_factory=Counter)
    records: int = 0
    malformed: int = 0

    def add(self, record: Any) -> None:
        self.records += 1
        if not isinstance(record, dict) or "eventTime" not in record:
            self.malformed += 1
            return
        digests = self.contents.setdefault(record["eventID"], set())
        if not digests:
            self.hourly[record["eventTime"][:13], record["eventName"]] += 1
        digests.add(digest(record))


def digest(record: Any) -> str:
    """Return a digest that two records share if they are equal as Python's ``json`` reads them, 1 and 1.0 apart."""
    text = json.dumps(record, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def make_logs(folder: Path, real: Path | None, events: int, seed: int) -> bool:
    """Write logs in two parts, ``a`` and ``b``: generated, hand-made, and a slice of real ones if there are any.

    Return whether there were.
    """
    from trailsift.generate import Options, generate

    generate(folder / "generated", Options(events=events, days=2.5, seed=seed, two_trails=True))
    (folder / "generated" / "truth.json").unlink()
    objects = sorted((folder / "generated").rglob("*.json.gz"))
    draw = random.Random(f"logs {seed}")
    for path in objects:
        _move(path, folder / draw.choice("ab"))
    shutil.rmtree(folder / "generated")
    made = _hand_made(sorted((folder / "a").iterdir()))
    found = _real_objects(real, draw) if real else []
    for number, (name, data) in enumerate([*made, *found]):
        (folder / "ab"[number % 2] / name).write_bytes(data)
    return bool(found)


def _move(path: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    path.rename(folder / path.name)


def _hand_made(objects: list[Path]) -> list[tuple[str, bytes]]:
    """Return log objects of other forms: names and bytes."""
    records = [record for path in objects for record in read_records(path)]
    other = [{**record, "requestID": f"OTHER{number}"} for number, record in enumerate(records[:4])]
    odd = [
        {**records[10 + number], "eventID": f"00000000-0000-4000-8000-00000000000{number}", **more}
        for number, more in enumerate(_ODD)
    ]
    broken: list[Any] = ["not a record", {key: value for key, value in records[20].items() if key != "eventTime"}, 7]

    def document(rows: list[Any]) -> bytes:
        return json.dumps({"Records": rows}).encode()

    lines = "\n".join(json.dumps(record, indent=None) for record in [*odd[:2], *records[30:34]])
    archive = Path(objects[0].parent) / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("one.json", document(odd[2:3] + records[40:50]))
        file.writestr("two.json", document(records[50:60]))
    zipped = archive.read_bytes()
    archive.unlink()
    return [
        ("same-id-other-content.json.gz", gzip.compress(document(other), mtime=0)),
        ("broken-records.json", document([*broken, odd[3], *records[60:63]])),
        ("lines.ndjson", lines.encode()),
        ("two-members.zip", zipped),
        ("two-gzip-members.json.gz", b"".join(gzip.compress(half, mtime=0) for half in _halves(document(records[:9])))),
    ]


def _halves(data: bytes) -> tuple[bytes, bytes]:
    return data[: len(data) // 2], data[len(data) // 2 :]


def _real_objects(real: Path, draw: random.Random) -> list[tuple[str, bytes]]:
    """Return a slice of real log objects in which every record has an id."""
    paths = sorted(path for path in real.rglob("*.json.gz") if path.stat().st_size <= REAL_BYTES)
    draw.shuffle(paths)
    chosen: list[tuple[str, bytes]] = []
    known: dict[str, str] = {}
    for path in paths[: 6 * REAL_OBJECTS]:
        try:
            records = read_records(path)
        except (ValueError, KeyError, OSError, EOFError):
            continue
        whole = all(isinstance(r, dict) and {"eventID", "eventTime", "eventName"} <= r.keys() for r in records)
        # Events of one id and two contents are made by hand, so that all columns of the others can be compared.
        if whole and all(known.setdefault(r["eventID"], digest(r)) == digest(r) for r in records):
            chosen.append((f"real{len(chosen)}-{path.name}", path.read_bytes()))
        if len(chosen) == REAL_OBJECTS:
            break
    return chosen


def read_records(path: Path) -> list[Any]:
    """Return the records of a log object of the forms that are used here."""
    data = path.read_bytes()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as file:
            return [record for name in file.namelist() for record in json.loads(file.read(name))["Records"]]
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if path.suffix == ".ndjson":
        return [json.loads(line) for line in data.splitlines()]
    return list(json.loads(data)["Records"])


def read_truth(logs: Path) -> Truth:
    """Read all log objects of the two parts."""
    truth = Truth()
    for path in sorted(logs.glob("[ab]/*")):
        for record in read_records(path):
            truth.add(record)
    return truth
