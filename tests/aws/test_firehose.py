"""The transformation of a Firehose stream: responses to AWS, landing files, and that they ingest to the same rows."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.paths import TESTS
from support.records import sample, text
from trailsift import schema
from trailsift.aws import handler
from trailsift.aws.transform import metrics
from trailsift.aws.transform.firehose import (
    MAX_RESPONSE_BYTES,
    RECORD_BYTES,
    BatchCounts,
    ServiceAction,
    Transform,
    compressed,
    landing_partition,
    resent,
)
from trailsift.aws.transform.reader import RecordReader
from trailsift.aws.transform.stream import FirehoseStream
from trailsift.aws.transform.writer import LandingWriter
from trailsift.decode import landing, record
from trailsift.decode.envelope import find_records
from trailsift.decode.outcome import NotARecord
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

STREAM = "arn:aws:firehose:us-east-1:111122223333:deliverystream/trail"
JSON_COLUMNS = ("request_parameters", "response_elements", "additional_event_data", "resources", "rest")


class FakeStream:
    """A stream that stores records in memory and refuses the first ``refuse`` of them."""

    def __init__(self, refuse: int = 0) -> None:
        self.put_records: list[bytes] = []
        self.refuse = refuse

    def put(self, records: Sequence[bytes]) -> list[int]:
        refused = list(range(min(self.refuse, len(records))))
        self.put_records += records[len(refused) :]
        return refused


def batch(*payloads: bytes) -> dict[str, Any]:
    """Return AWS's event for these payloads."""
    records = [
        {"recordId": f"r{number}", "approximateArrivalTimestamp": 1, "data": base64.b64encode(payload).decode()}
        for number, payload in enumerate(payloads)
    ]
    return {"invocationId": "i", "deliveryStreamArn": STREAM, "region": "us-east-1", "records": records}


def logs_batch(*records: Any, kind: str = "DATA_MESSAGE") -> bytes:
    """Return a record as a subscription of CloudWatch Logs puts it into a stream."""
    events = [{"id": str(at), "timestamp": 1, "message": json.dumps(record)} for at, record in enumerate(records)]
    return gzip.compress(text({"messageType": kind, "owner": "1", "logGroup": "g", "logEvents": events}))


def payloads(answer: dict[str, Any]) -> list[bytes]:
    """Return the data of the responses that are Ok."""
    return [base64.b64decode(record["data"]) for record in answer["records"] if record["result"] == "Ok"]


def opened(data: bytes) -> bytes:
    """Return a record that was sent again, without its compression."""
    return resent(data) or data


def lines(data: bytes) -> list[dict[str, Any]]:
    data = opened(data)
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def results(answer: dict[str, Any]) -> list[str]:
    return [record["result"] for record in answer["records"]]


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its JSON columns parsed: their formatting may differ."""
    return {name: json.loads(value) if name in JSON_COLUMNS and value else value for name, value in row.items()}


EVENTBRIDGE = {"detail-type": "AWS API Call via CloudTrail", "source": "aws.s3", "detail": sample()}
#: Name -> payload, expected result, expected number of lines.
FORMS: dict[str, tuple[bytes, str, int]] = {
    "one bare record": (text(sample()), "Ok", 1),
    "a batch of CloudWatch Logs, gzip": (logs_batch(sample(), sample(eventID="b")), "Ok", 2),
    "a batch of CloudWatch Logs, unpacked": (gzip.decompress(logs_batch(sample())), "Ok", 1),
    "messages joined": (text(sample()) + text(sample(eventID="b")), "Ok", 2),
    "a log file": (gzip.compress(text({"Records": [sample(), sample(eventID="b")]})), "Ok", 2),
    "EventBridge": (text(EVENTBRIDGE), "Ok", 1),
    "resources null": (text(sample(resources=None)), "Ok", 1),
    "userIdentity null": (text(sample(userIdentity=None)), "Ok", 1),
    "an action that is on no list": (text(sample(eventName="HeadObject")), "Ok", 1),
    "a control message": (logs_batch(kind="CONTROL_MESSAGE"), "Dropped", 0),
    "a digest": (text({"digestS3Object": "x", "logFiles": []}), "Dropped", 0),
    "no records": (text({"Records": []}), "Dropped", 0),
    "garbage": (b"not json", "ProcessingFailed", 0),
    "nothing": (b"", "ProcessingFailed", 0),
    "JSON of an unknown kind": (text({"hello": "world"}), "ProcessingFailed", 0),
    "no time": (text(sample(eventTime=None)), "ProcessingFailed", 0),
    "gzip cut short": (logs_batch(sample())[:-30], "ProcessingFailed", 0),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gets_a_response(name: str) -> None:
    payload, result, count = FORMS[name]
    answer = handler.firehose(batch(payload), None, FakeStream())
    assert results(answer) == [result]
    assert sum(len(lines(data)) for data in payloads(answer)) == count
    json.dumps(answer)


def test_one_bad_record_fails_alone() -> None:
    event = batch(*(payload for payload, _, _ in FORMS.values()))
    event["records"][3]["data"] = "%%%"
    event["records"].append({"recordId": "without data"})
    event["records"].append(None)
    answer = handler.firehose(event, None, FakeStream())
    expected = [result for _, result, _ in FORMS.values()]
    expected[3] = "ProcessingFailed"
    assert results(answer) == [*expected, "ProcessingFailed", "ProcessingFailed"]
    assert [record["recordId"] for record in answer["records"]][:2] == ["r0", "r1"]


def test_a_landing_line_has_our_columns() -> None:
    (data,) = payloads(handler.firehose(batch(text(sample())), None, FakeStream()))
    (line,) = lines(data)
    assert (line["event_time"], line["service"], line["resource_arn"]) == (
        "2026-03-02 01:02:03",
        "s3",
        "arn:aws:s3:::data",
    )
    assert line["role_arn"] == "arn:aws:iam::111122223333:role/etl" and line["bytes_out"] == 2048
    assert [line[name] for name in ("year", "month", "day", "hour")] == ["2026", "03", "02", "01"]
    assert (line["caller"], line["principal_id"]) == ("arn:aws:iam::111122223333:role/etl", "AROAEXAMPLE:job")
    assert not {"source_resource_arn", "source_object_key"} & line.keys()


@pytest.mark.parametrize("member", ["x-amz-copy-source", "copySource"])
@pytest.mark.parametrize(
    "source", ["src/a/b%20c.csv?versionId=3", "/src/a", "src", "src/\ud800", "arn:aws:s3:::x", "", 5]
)
def test_a_copy_names_what_it_reads(member: str, source: Any) -> None:
    """By the fast path, for records of one form, and by the slow one."""
    copies = []
    for number, each in enumerate((source, "src/other", source)):
        parameters = {"bucketName": "data", "key": f"k{number}", member: each}
        copies.append(sample(eventID=f"{number}", eventName="CopyObject", requestParameters=parameters))
    (data,) = payloads(handler.firehose(batch(logs_batch(*copies)), None, FakeStream()))
    for line, copied in zip(lines(data), copies, strict=True):
        expected = record.row(copied, "")
        for name in ("source_resource_arn", "source_object_key"):
            assert line.get(name) == expected[name], (name, copied)
    assert lines(data)[1]["source_resource_arn"] == "arn:aws:s3:::src"


IDENTITIES = [
    *(case["user"] for case in json.loads((TESTS / "cases" / "callers.json").read_text("utf-8"))),
    {"type": "AWSAccount", "principalId": "AROAX:s", "accountId": "444455556666"},
]


@pytest.mark.parametrize("user", IDENTITIES, ids=str)
def test_lines_name_their_callers(user: Any, ruled: Path) -> None:
    stream = FakeStream()
    expected = record.row(sample(userIdentity=user), "")
    mine = (
        sample(userIdentity=user, eventName="PutObject"),
        sample(userIdentity=user, eventName="HeadObject", eventID="h"),
    )
    (data,) = payloads(handler.firehose(batch(logs_batch(*mine)), None, stream))
    (line,) = lines(data)
    (dropped,) = lines(stream.put_records[0])
    assert [line.get(name) for name in ("caller", "principal_id", "role_arn")] == [
        expected[name] for name in ("caller", "principal_id", "role_arn")
    ]
    assert (dropped["dropped_by"], dropped["caller"], dropped.get("role_arn")) == (
        "heads",
        expected["caller"],
        expected["role_arn"],
    )
    # Both pass as they are.
    assert landing_partition(data) is not None and landing_partition(opened(stream.put_records[0])) is not None


def test_the_partition_follows_the_event_time() -> None:
    answer = handler.firehose(batch(text(sample(eventTime="2026-03-02T23:59:59+09:00"))), None, FakeStream())
    keys = answer["records"][0]["metadata"]["partitionKeys"]
    assert keys == {"year": "2026", "month": "03", "day": "02", "hour": "14", "service": "s3"}


def test_other_partitions_are_resent_and_pass() -> None:
    stream = FakeStream()
    mixed = [sample(), sample(eventID="b", eventTime="2026-03-02T02:00:00Z"), sample(eventID="c")]
    mixed.append(sample(eventID="d", eventSource="lambda.amazonaws.com", eventName="Invoke"))
    answer = handler.firehose(batch(logs_batch(*mixed)), None, stream)
    assert [line["event_id"] for line in lines(payloads(answer)[0])] == [mixed[0]["eventID"], "c"]
    again = handler.firehose(batch(*stream.put_records), None, FakeStream(refuse=99))
    assert results(again) == ["Ok", "Ok"]
    assert payloads(again) == list(map(opened, stream.put_records))
    hours = [record["metadata"]["partitionKeys"]["hour"] for record in again["records"]]
    assert sorted(hours) == ["01", "02"]


def test_an_unsent_event_fails_its_record_only() -> None:
    other = sample(eventID="b", eventTime="2026-03-02T02:00:00Z")
    answer = handler.firehose(batch(text(sample()), logs_batch(sample(), other)), None, FakeStream(refuse=1))
    assert results(answer) == ["Ok", "ProcessingFailed"]


def test_a_partly_bad_record_fails_and_its_good_events_are_sent() -> None:
    stream = FakeStream()
    answer = handler.firehose(batch(logs_batch(sample(), sample(eventTime="soon"))), None, stream)
    assert results(answer) == ["ProcessingFailed"]
    assert [line["event_id"] for line in lines(stream.put_records[0])] == [sample()["eventID"]]


def test_the_response_stays_below_lambdas_limit() -> None:
    stream = FakeStream()
    big = [sample(eventID=f"{at}", requestParameters={"x": "y" * 60_000}) for at in range(100)]
    answer = handler.firehose(batch(*(logs_batch(*big[at : at + 5]) for at in range(0, 100, 5))), None, stream)
    assert len(json.dumps(answer)) < MAX_RESPONSE_BYTES + 50_000 < 6_291_556
    ids = [line["event_id"] for data in [*payloads(answer), *stream.put_records] for line in lines(data)]
    assert sorted(ids, key=int) == [str(at) for at in range(100)]
    assert stream.put_records and max(map(len, stream.put_records)) <= RECORD_BYTES


def test_the_largest_partition_is_answered_and_the_rest_is_compressed() -> None:
    """The stream's quota counts what is sent again."""
    stream = FakeStream()
    early = sample(eventID="early", eventTime="2026-03-02T01:00:00Z")
    late = [sample(eventID=f"late-{at}", eventTime="2026-03-02T02:00:00Z") for at in range(50)]
    (data,) = payloads(handler.firehose(batch(logs_batch(early, *late)), None, stream))
    assert [line["event_id"] for line in lines(data)] == [record["eventID"] for record in late]
    assert [line["event_id"] for line in lines(stream.put_records[0])] == ["early"]
    many = [sample(eventID=f"{at}", eventTime=f"2026-03-02T0{1 + at % 2}:00:00Z") for at in range(2_000)]
    stream = FakeStream()
    handler.firehose(batch(logs_batch(*many)), None, stream)
    sent = sum(map(len, stream.put_records))
    assert len(stream.put_records) > 1 and sent * 5 < sum(len(opened(each)) for each in stream.put_records)
    again = FakeStream()
    assert results(handler.firehose(batch(*stream.put_records), None, again)) == ["Ok"] * len(stream.put_records)
    assert not again.put_records


def test_only_our_own_compressed_lines_pass() -> None:
    """A bomb, a broken file, lines with a tail, and lines that no writer of ours wrote."""
    line = opened(payloads(handler.firehose(batch(text(sample()))))[0])
    assert resent(gzip.compress(line)) == line
    assert resent(gzip.compress(line * 2_000)) is None, "longer than a record"
    assert resent(gzip.compress(line) + b"x") is None and resent(gzip.compress(line)[:-9]) is None
    assert resent(gzip.compress(b"x" + line)) is None and resent(line) is None
    forged = line.replace(b'"caller":"', b'"caller":"x')
    answer = handler.firehose(batch(gzip.compress(forged)), None, FakeStream())
    assert forged not in payloads(answer)


def test_events_that_could_not_be_sent_are_failed_and_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    two_hours = [sample(eventID=f"{at}", eventTime=f"2026-03-02T0{at}:00:00Z") for at in range(2)]
    answer = handler.firehose(batch(logs_batch(*two_hours), text(sample(eventID="c"))), None, FakeStream(refuse=99))
    assert results(answer) == ["ProcessingFailed", "Ok"]
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (totals,) = [each for each in documents if "Malformed" in each]
    assert (totals["Events"], totals["Kept"], totals["Failed"], totals["Malformed"]) == (3, 1, 1, 0)


def test_failed_records_are_ingested_from_the_error_output(tmp_path: Path) -> None:
    """Firehose writes one JSON object per failed record under errors/.

    https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html
    """
    two_hours = [sample(eventID=f"{at}", eventTime=f"2026-03-02T0{at}:00:00Z") for at in range(2)]
    failed = logs_batch(*two_hours)
    assert results(handler.firehose(batch(failed), None, FakeStream(refuse=99))) == ["ProcessingFailed"]
    lines_of = (failed, compressed(opened(payloads(handler.firehose(batch(text(sample(eventID="c")))))[0])))
    written = [
        {
            "attemptsMade": 4,
            "arrivalTimestamp": 1772413323000,
            "errorCode": "Lambda.FunctionError",
            "errorMessage": "The Lambda function was successfully invoked but it returned an error result.",
            "attemptEndingTimestamp": 1772413423000,
            "rawData": base64.b64encode(each).decode(),
            "lambdaArn": "arn:aws:lambda:us-east-1:111122223333:function:trailsift-transform",
        }
        for each in lines_of
    ]
    errors = tmp_path / "errors" / "processing-failed" / "2026" / "03" / "02"
    errors.mkdir(parents=True)
    (errors / "trail-1-2026-03-02-01-02-03-x").write_text("".join(json.dumps(each) + "\n" for each in written))
    counts = ingest([str(tmp_path / "errors")], tmp_path / "lake")
    assert (counts.stored, counts.malformed) == (3, 0)


def test_a_rule_that_cloudwatch_cannot_name_has_a_number() -> None:
    counts = BatchCounts(dropped=Counter({"잡음": 2, "noise": 1}))
    named = [json.loads(line) for line in metrics.documents(counts, 0, ("noise", "잡음"))]
    assert {each["rule"]: each["Dropped"] for each in named if "rule" in each} == {"noise": 1, "rule 2": 2}


def test_without_a_stream_nothing_is_lost() -> None:
    event = batch(logs_batch(sample(), sample(eventID="b", eventTime="2026-03-02T02:00:00Z")))
    del event["deliveryStreamArn"]
    (data,) = payloads(handler.firehose(event))
    assert len(lines(data)) == 2


# -- the stream ------------------------------------------------------------------------------------------------------


class Throttled:
    """A PutRecordBatch that raises on its first call, then accepts every other record."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.accepted: list[bytes] = []

    def put_record_batch(self, *, DeliveryStreamName: str, Records: list[dict[str, bytes]]) -> dict[str, Any]:
        assert DeliveryStreamName == "trail"
        self.calls.append([record["Data"] for record in Records])
        if len(self.calls) == 1:
            raise ConnectionError("reset")
        bad = [at % 2 == 1 for at in range(len(Records))]
        self.accepted += [record["Data"] for record, refused in zip(Records, bad, strict=True) if not refused]
        return {
            "FailedPutCount": sum(bad),
            "RequestResponses": [{"ErrorCode": "ServiceUnavailableException"} if refused else {} for refused in bad],
        }


def test_put_record_batch_is_retried_within_its_limits(capsys: pytest.CaptureFixture[str]) -> None:
    client, pauses = Throttled(), list[float]()
    records = [bytes([at % 250]) * (900_000 if at < 10 else 10) for at in range(700)]
    left = FirehoseStream("trail", client, pauses.append).put(records)
    assert all(len(call) <= 500 and sum(map(len, call)) <= 4 << 20 for call in client.calls)
    assert Counter(client.accepted) + Counter(records[at] for at in left) == Counter(records)
    assert 0 < len(left) < 30 and len(pauses) == 5
    assert "ConnectionError" in capsys.readouterr().out


# -- landing lines ---------------------------------------------------------------------------------------------------


def ingested(folder: Path, name: str, *data: bytes) -> tuple[Path, Any]:
    """Return a lake of these landing files, and the counts of its ingest."""
    files = folder / name
    files.mkdir()
    for number, each in enumerate(data):
        (files / f"{number}.json").write_bytes(each)
    return folder / f"{name}.lake", ingest([str(files)], folder / f"{name}.lake")


def streamed(waiting: list[bytes]) -> tuple[list[bytes], list[bytes], int]:
    """Transform records in batches as a stream does; return landed and failed data, and the number of resends."""
    landed, failed, again = list[bytes](), list[bytes](), 0
    while waiting:
        # The template: a stream passes at most 0.4 MB to its function.
        sizes = itertools.accumulate(len(each) for each in waiting[:40])
        part = waiting[: max(sum(size <= 400_000 for size in sizes), 1)]
        stream = FakeStream()
        answer = handler.firehose(batch(*part), None, stream)
        landed += payloads(answer)
        failed += [each for each, result in zip(part, results(answer), strict=True) if result == "ProcessingFailed"]
        again += len(stream.put_records)
        waiting = waiting[len(part) :] + stream.put_records
    return landed, failed, again


def summaries(lake: Path) -> dict[str, list[str]]:
    """Return the merged rows of every summary table as a reader sees them."""
    names = [table.name for table in schema.TABLES.values() if table.keys]
    assert {"hourly", "usage", "profile", "access", "sessions"} == set(names)
    with DuckDBEngine(open_snapshot(lake)) as engine:
        return {name: sorted(map(repr, engine.sql(f"SELECT * FROM {name}").rows())) for name in names}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], Path]:
    """Log objects with 3,000 events, and a lake of them."""
    folder = tmp_path_factory.mktemp("few")
    generate(folder / "logs", Options(events=3_000, days=2, seed=3))
    assert ingest([str(folder / "logs" / "AWSLogs")], folder / "lake").stored == 3_000
    return [path.read_bytes() for path in sorted(folder.rglob("*.json.gz"))], folder / "lake"


def test_landing_files_ingest_to_the_rows_of_the_log_files(few: tuple[list[bytes], Path], tmp_path: Path) -> None:
    from support.logs import rows

    objects, direct_lake = few
    landed, failed, again = streamed([*objects, b"poison", *objects[:20]])
    assert failed == [b"poison"] and again > 0
    lake, counts = ingested(tmp_path, "landing", *landed)
    assert counts.stored == 3_000 and counts.malformed == 0 and counts.duplicates > 0
    columns = "* EXCLUDE (log_object) REPLACE (epoch_us(event_time) AS event_time)"
    direct = {row["event_id"]: comparable(row) for row in rows(direct_lake, columns=columns)}
    ours = {row["event_id"]: comparable(row) for row in rows(lake, columns=columns)}
    assert ours == direct
    assert summaries(lake) == summaries(direct_lake)


def test_times_keep_their_fraction(tmp_path: Path) -> None:
    original = sample(eventTime="2026-03-02T01:02:03.250Z")
    row = record.row(original, "x")
    line = json.loads(LandingWriter().row(row))
    assert line["event_time"] == "2026-03-02 01:02:03.250000"
    assert record.restore(record.row(line, "x")) == original


BAD_LINES = {
    "a number for a text": {"event_name": 1},
    "a text for a number": {"bytes_in": "1"},
    "not a list": {"resource_arns": "x"},
    "a number beyond 64 bits": {"bytes_out": 2**63},
    "not a time": {"event_time": "yesterday"},
    "a time in another format": {"event_time": "2026-03-02T01:02:03Z"},
    "no event id": {"event_id": ""},
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_landing_line_is_malformed(name: str) -> None:
    line = json.loads(LandingWriter().row(record.row(sample(), "")))
    with pytest.raises(NotARecord):
        record.row(line | BAD_LINES[name], "x")


@given(st.data())
def test_fast_and_slow_path_give_the_same_lines(data: st.DataObject) -> None:
    """Records with changed, removed and odd members: the fast path agrees with the slow one on all that it accepts."""
    names = st.sampled_from(sorted(sample()))
    odd = st.sampled_from([None, "", "x", 1, 1.5, True, [], {}, {"key": "a/b"}, "é\ud800", ["x"], "2026-03-02T01:00Z"])
    changed = sample(**data.draw(st.dictionaries(names, odd, max_size=3)))
    for name in data.draw(st.lists(names, max_size=3)):
        changed.pop(name, None)
    key = data.draw(st.sampled_from(["in/a.gz", "a b", 'q"uote', "back\\slash", "ü", "", "x" * 50]))
    if isinstance(changed.get("requestParameters"), dict):
        changed["requestParameters"]["key"] = key
        if isinstance(changed.get("resources"), list) and changed["resources"] and "ARN" in changed["resources"][0]:
            changed["resources"][0]["ARN"] = f"arn:aws:s3:::data/{key}"
    reader, writer = RecordReader(), LandingWriter()
    for number in range(2):
        raw = text(changed | {"requestID": f"R{number}"} if changed.get("requestID") else changed)
        parts = reader.read(raw)
        if parts is None:
            return
        line, partition = writer.regular(*parts)
        expected = record.row(json.loads(raw), "o")
        assert comparable(record.row(json.loads(line), "o")) == comparable(expected)
        assert partition == landing.partition_of(expected["event_time"], expected["service"])


def test_real_records_give_the_same_lines(real_logs: Path) -> None:
    reader, writer = RecordReader(), LandingWriter()
    regular = 0
    for path in sorted((real_logs / "files").rglob("*.gz"))[:800]:
        for raw in find_records(path.read_bytes()).records:
            parts = reader.read(raw)
            if parts is not None:
                regular += 1
                line = json.loads(writer.regular(*parts)[0])
                assert comparable(record.row(line, "")) == comparable(record.row(json.loads(bytes(raw)), ""))
    assert regular > 1_000


# -- rules and metrics -----------------------------------------------------------------------------------------------

RULES = """
[[rule]]
name = "heads"
when = { event_name = "HeadObject" }
action = "drop"

[[rule]]
name = "reads"
when = { event_name = "GetObject" }
action = "sample"
rate = 0.25

[fields]
omit = ["user_agent_is_needed"]
"""


@pytest.fixture
def ruled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configure the handler with a rules file; return its path."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES.replace("user_agent_is_needed", "request_parameters"))
    monkeypatch.setenv("TRAILSIFT_RULES", str(path))
    return path


def test_dropped_events_are_counted(ruled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream = FakeStream()
    heads = [sample(eventName="HeadObject", eventID=f"h{at}") for at in range(3)]
    kept = sample(eventName="PutObject", eventID="p")
    answer = handler.firehose(batch(text(heads[0]), logs_batch(*heads[1:], kept)), None, stream)
    assert results(answer) == ["Dropped", "Ok"]
    (line,) = lines(payloads(answer)[0])
    assert line["event_id"] == "p" and "request_parameters" not in line and "object_key" in line
    (dropped,) = lines(stream.put_records[0])
    assert dropped["dropped_by"] == "heads"
    assert [own[1] for own in dropped["dropped"]] == ["h0", "h1", "h2"]
    again = handler.firehose(batch(*stream.put_records), None, FakeStream())
    assert again["records"][0]["metadata"]["partitionKeys"]["service"] == "_dropped"
    documents = [json.loads(printed) for printed in capsys.readouterr().out.splitlines()]
    assert {"rule": "heads", "Dropped": 3}.items() <= next(each for each in documents if "rule" in each).items()
    assert next(each for each in documents if "rule" not in each and "service" not in each)["Kept"] == 1


def test_sampled_events_carry_their_weight(ruled: Path) -> None:
    stream = FakeStream()
    reads = [sample(eventID=f"{random.Random(at).getrandbits(64):x}") for at in range(400)]
    answer = handler.firehose(batch(logs_batch(*reads)), None, stream)
    kept = lines(payloads(answer)[0])
    dropped = [own for line in lines(stream.put_records[0]) for own in line["dropped"]]
    assert {line["weight"] for line in kept} == {4.0} and 60 < len(kept) < 140
    assert len(kept) + len(dropped) == 400


def test_summaries_are_exact_although_the_stream_dropped_events(
    ruled: Path, few: tuple[list[bytes], Path], tmp_path: Path
) -> None:
    from support.logs import rows
    from trailsift.analysis.status import status

    objects, direct_lake = few
    landed, failed, _ = streamed([*objects, *objects[:20]])
    assert not failed
    lake, counts = ingested(tmp_path, "ruled", *landed, *landed[:5])
    assert counts.stored + sum(counts.dropped.values()) == 3_000 and counts.malformed == 0
    assert counts.records == 3_000 + counts.duplicates and set(counts.dropped) == {"heads", "reads"}
    assert summaries(lake) == summaries(direct_lake)
    assert len(rows(lake)) == counts.stored < 2_500
    weights = Counter(row["weight"] for row in rows(lake))
    assert set(weights) == {1.0, 4.0} and status(lake).reconciled


def test_wrong_rules_raise_with_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trailsift.errors import TrailsiftError

    path = tmp_path / "wrong.toml"
    path.write_text(RULES)
    monkeypatch.setenv("TRAILSIFT_RULES", str(path))
    with pytest.raises(TrailsiftError, match="user_agent_is_needed"):
        handler.firehose(batch(text(sample())), None, FakeStream())


def test_metrics_stay_within_their_budget() -> None:
    counts = Transform().batch([]).counts
    services = [*metrics.NAMED_ACTIONS, *(f"service{at}" for at in range(50))]
    for service in services:
        for name in [*metrics.NAMED_ACTIONS.get(service, ()), *(f"Action{at}" for at in range(50))]:
            counts.events[ServiceAction(service, name)] += 2
            counts.kept[ServiceAction(service, name)] += 1
            counts.bytes[ServiceAction(service, name)] += 1_000
    counts.dropped.update({f"rule {at}": at for at in range(40)})
    documents = [json.loads(line) for line in metrics.documents(counts, 1, tuple(f"rule {at}" for at in range(40)))]
    reported = set()
    for document in documents:
        (directive,) = document["_aws"]["CloudWatchMetrics"]
        for metric in directive["Metrics"]:
            names = tuple(document[name] for name in directive["Dimensions"][0])
            assert isinstance(document[metric["Name"]], int)
            reported.add((metric["Name"], names))
    assert len(reported) == metrics.BUDGET
    by_action = [document for document in documents if "service" in document]
    assert sum(document["Events"] for document in by_action) == documents[0]["Events"] == counts.events.total()
    assert sum(document["Dropped"] for document in documents if "rule" in document) == sum(range(40))


# -- speed and size --------------------------------------------------------------------------------------------------


def test_import_is_light() -> None:
    code = (
        "import sys, time; t = time.process_time(); import trailsift.aws.handler; t = time.process_time() - t;"
        "heavy = {'pyarrow', 'duckdb', 'numpy', 'boto3', 'pyiceberg'} & set(sys.modules); print(t, *heavy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *heavy = done.stdout.split()
    assert not heavy
    assert float(seconds) < 0.5


def test_speed(small_logs: Path) -> None:
    """Compare with the minimum that any transformation must do: base64, gzip, JSON both ways."""
    records = [bytes(raw) for path in small_logs.rglob("*.json.gz") for raw in find_records(path.read_bytes()).records]
    texts = [raw.decode() for raw in records[:6_000]]
    events = [texts[at : at + 200] for at in range(0, len(texts), 200)]
    payload = [
        gzip.compress(text({"messageType": "DATA_MESSAGE", "logEvents": [{"id": "", "message": m} for m in part]}))
        for part in events
    ]
    event = batch(*payload)
    handler.firehose(event, None, FakeStream())
    ours, plain = [], []
    for _ in range(3):
        start = time.process_time()
        handler.firehose(event, None, FakeStream())
        ours.append(time.process_time() - start)
        start = time.process_time()
        for each in event["records"]:
            messages = json.loads(gzip.decompress(base64.b64decode(each["data"])))["logEvents"]
            base64.b64encode("".join(json.dumps(json.loads(m["message"])) + "\n" for m in messages).encode())
        plain.append(time.process_time() - start)
    assert min(ours) < 2.5 * min(plain), f"{len(texts) / min(ours):,.0f} events per second"
