"""Landing lines and Firehose batches that somebody else has written: nothing raises, and what is accepted is usable."""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import io
import json
import os
import random
import re
from typing import Any

import pytest

from fuzz.mutate import Mutator, corpus, encoded
from trailsift.aws import handler
from trailsift.aws.transform.firehose import landing_partition, resent
from trailsift.aws.transform.writer import LandingWriter
from trailsift.decode import landing, record
from trailsift.decode.json_text import dump
from trailsift.decode.outcome import NotARecord
from trailsift.ingest.chunk_builder import ChunkBuilder

STREAM = "arn:aws:firehose:us-east-1:111122223333:deliverystream/x"
_PARTITION = re.compile(r"\d{4} \d\d \d\d \d\d ([a-z0-9-]{1,64}|_dropped)", re.ASCII)

#: Values for any column, as JSON.
_VALUES = re.findall(
    r'"[^"]*"|\S+',
    '0 1 -1 1.0 0.5 1e3 1e308 1e999 NaN Infinity -Infinity 9223372036854775807 9223372036854775808 null true false "" '
    '"1" "x" [] {} [1] ["x"] ["x",null] ["\\ud800"] [[]] {"a":1} "\\ud800" "a\\u0000b" "\\u0000" "../../../x" "/etc" '
    '"a/b" ".." "." "s3" "S3" "s3 " "s3\\n" "é" "ec2" "_dropped" "unknown" "{}" "[]" "[1]" "{bad" "not-json" "null" '
    '"0001-01-01 00:00:00" "9999-12-31 23:59:59" "10000-01-01 00:00:00" "2026-03-02 01:02:03.5" "2026-02-30 01:02:03" '
    '"2026-W10-1 01:02:03" "2026-03-02 24:00:00" "2026-03-02 01:02:03+09:00" "2026-03-02T01:02:03Z" "yesterday" '
    '"2026" "03" "02" "01" "26" "20260302" "05:00" "59:59.999999" "60:00" "5:0" "00:00\\n"',
)
_RESTS = (
    '{"(absent)":5}',
    '{"(absent)":[5]}',
    '{"(absent)":["eventID"]}',
    '{"(\\u0061bsent)":{}}',
    '{"(float)":["bytesTransferredIn"]}',
    '{"(float)":0}',
    '{"(dropped)":"x"}',
    '{"userIdentity":NaN}',
    '{"a":"\\ud800"}',
    "[1]",
    "{",
    '"x"',
    "1" * 5000,
    "[" * 2000 + "]" * 2000,
    '{"eventTime":5}',
)
_LONG = [json.dumps("a" * size) for size in (64, 65, 300, 5_000, 70_000)]
_DEEP = '{"a":' * 900 + "1" + "}" * 900


@functools.cache
def _lines() -> list[dict[str, Any]]:
    lines = []
    for members in corpus():
        with contextlib.suppress(NotARecord, ValueError):
            row = record.row(json.loads(encoded(members)), "")
            lines.append(json.loads(LandingWriter().row(row)))
    return lines


class Lines:
    """Draws the text of landing lines."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def value(self) -> str:
        rng = self.rng
        draw = rng.random()
        if draw < 0.8:
            return rng.choice(_VALUES)
        if draw < 0.9:
            return json.dumps(rng.choice(_RESTS))
        return rng.choice([*_LONG, _DEEP]) if draw < 0.97 else Mutator(rng).value()

    def event(self) -> str:
        members = {name: json.dumps(value) for name, value in self.rng.choice(_lines()).items()}
        members["event_id"] = json.dumps(f"{self.rng.getrandbits(64):x}")
        return self._changed(members)

    def dropped(self) -> str:
        rng = self.rng
        line = rng.choice(_lines())
        members = {name: json.dumps(line[name]) for name in landing.SHARED if name in line}
        members |= {name: json.dumps(line[name]) for name in ("year", "month", "day", "hour")}
        events = [
            [f'"{rng.randrange(60):02}:{rng.randrange(60):02}"', f'"{rng.getrandbits(64):x}"', '"a/b"', "1", "2"]
            for _ in range(rng.choice([0, 1, 1, 2, 5]))
        ]
        for event in events:
            del event[rng.choice([2, 3, 4, 5, 5, 5]) :]
            if rng.random() < 0.1:
                event[rng.randrange(len(event))] = self.value()
        texts = ["[" + ",".join(event) + "]" for event in events]
        if rng.random() < 0.05:
            texts.append(self.value())
        return self._changed({"dropped_by": '"heads"', **members, "dropped": "[" + ",".join(texts) + "]"})

    def _changed(self, members: dict[str, str]) -> str:
        rng = self.rng
        pairs = list(members.items())
        for _ in range(rng.choice([0, 1, 1, 2])):
            name, value = rng.choice([*landing._KINDS, *members]), self.value()
            draw = rng.random()
            if draw < 0.8:
                pairs = [pair for pair in pairs if pair[0] != name]
            if draw > 0.1:
                pairs.insert(rng.randrange(len(pairs) + 1) if draw > 0.5 else len(pairs), (name, value))
        return "{" + rng.choice([",", ",", ", "]).join(f'"{name}":{value}' for name, value in pairs) + "}"

    def line(self) -> bytes:
        text = self.event() if self.rng.random() < 0.6 else self.dropped()
        data = text.encode("utf-8", "surrogatepass")
        return Mutator(self.rng).damaged(data) if self.rng.random() < 0.1 else data


def check_lines(data: list[bytes]) -> str | None:
    """Ingest a landing file; return what is wrong with the outcome."""
    builder = ChunkBuilder()
    stats = builder.add("object", b"\n".join(data))
    reasons = [part.reason for part in stats.malformed if part.reason.startswith("unforeseen")]
    if reasons:
        return reasons[0]
    table = builder.finish().table
    if table.num_rows + stats.malformed.parts != stats.records:
        return f"{stats.records} records, {table.num_rows} rows, {stats.malformed.parts} malformed"
    for row in table.to_pylist():
        reason = _unusable(row)
        if reason is not None:
            return reason
    return None


def _unusable(row: dict[str, Any]) -> str | None:
    if not re.fullmatch(r"[a-z0-9-]{1,64}", row["service"]):
        return f"service {row['service']!r}"
    weight = row["weight"]
    if not (weight == 0 or 1 <= weight <= landing.MAX_WEIGHT):
        return f"weight {weight}"
    columns = row | {"event_time": int(row["event_time"].timestamp()) * 1_000_000}
    try:
        dump(record.restore(columns))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        return f"cannot be restored: {type(error).__name__}: {error}"
    return None


def drawn_lines(rng: random.Random) -> list[bytes]:
    return [Lines(rng).line() for _ in range(rng.choice([1, 2, 8]))]


class _Stream:
    def __init__(self) -> None:
        self.records: list[bytes] = []

    def put(self, records: Any) -> list[int]:
        self.records += [resent(each) or each for each in records]
        return []


def check_batch(data: list[Any]) -> str | None:
    """Transform a batch, given as the ``data`` of its records; return what is wrong with the response."""
    stream = _Stream()
    event = {"records": [{"recordId": str(at), "data": each} for at, each in enumerate(data)]}
    with contextlib.redirect_stdout(io.StringIO()), pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "TRAILSIFT_METRICS", "off")
        answer = handler.firehose(event | {"deliveryStreamArn": STREAM}, None, stream)
    if len(answer["records"]) != len(data):
        return "not one response for each record"
    json.dumps(answer)
    for response in answer["records"]:
        if response["result"] != "Ok":
            continue
        keys = response["metadata"]["partitionKeys"]
        if not _PARTITION.fullmatch(" ".join(keys.values())):
            return f"partition keys {keys}"
        reason = _not_ours(base64.b64decode(response["data"]), keys)
        if reason is not None:
            return reason
    return next(filter(None, (_not_ours(each, None) for each in stream.records)), None)


def _not_ours(data: bytes, keys: dict[str, str] | None) -> str | None:
    if re.search(rb"\d{4300}", data):
        # The fast path takes numbers that Python does not read; as landing lines they are rejects.
        return None
    partition = landing_partition(data)
    if partition is None or (keys is not None and partition._asdict() != keys):
        return f"lands in {keys}, but would be read again as {partition}: {data[:2000]!r}"
    return check_lines(data.splitlines()) or (
        None if not ChunkBuilder().add("o", data).malformed else f"has malformed lines: {data[:2000]!r}"
    )


def drawn_batch(rng: random.Random) -> list[Any]:
    data: list[Any] = []
    for _ in range(rng.choice([1, 2, 4])):
        draw = rng.random()
        if draw < 0.3:
            payload = b"\n".join(Lines(rng).line() for _ in range(rng.choice([1, 1, 3]))) + rng.choice([b"\n", b""])
        elif draw < 0.8:
            payload = rng.choice(Mutator(rng).log_objects())
        elif draw < 0.9:
            payload = Mutator(rng).damaged(rng.choice(Mutator(rng).log_objects()))
        else:
            payload = rng.randbytes(rng.choice([0, 1, 40]))
        if rng.random() < 0.2:
            message = {"id": "1", "timestamp": 1, "message": payload.decode("utf-8", "replace")}
            batch = {"messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "g", "logEvents": [message]}
            payload = json.dumps(batch).encode()
        if rng.random() < 0.3:
            payload = gzip.compress(payload, 1)
        text: Any = base64.b64encode(payload).decode()
        data.append(rng.choice(["!!!", None, 5, "", text[:-1], ["x"], "\ud800"]) if rng.random() < 0.03 else text)
    return data
