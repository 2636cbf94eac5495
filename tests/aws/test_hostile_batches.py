"""Batches that somebody else has written into a stream: one failed record each, and no partition but a service's."""

from __future__ import annotations

import base64
import gzip
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from support.paths import TESTS
from support.records import sample, text
from trailsift.aws import handler
from trailsift.aws.transform.firehose import RECORD_BYTES, Transform, landing_partition, resent
from trailsift.aws.transform.writer import LandingWriter
from trailsift.decode import landing, record
from trailsift.decode.landing import Dropped
from trailsift.deploy import package
from trailsift.ingest.chunk_builder import ChunkBuilder

CASES: list[dict[str, Any]] = json.loads((TESTS / "cases" / "hostile_batches.json").read_text("utf-8"))
STREAM = "arn:aws:firehose:us-east-1:111122223333:deliverystream/trail"


class Stream:
    """A stream in memory."""

    def __init__(self) -> None:
        self.records: list[bytes] = []

    def put(self, records: Any) -> list[int]:
        self.records += [resent(each) or each for each in records]
        return []


def line(changes: dict[str, Any], raw: dict[str, str] | None = None) -> str:
    value = json.loads(LandingWriter().row(record.row(sample(), ""))) | changes
    members = {name: json.dumps(each) for name, each in value.items()} | (raw or {})
    return "{" + ",".join(f'"{name}":{each}' for name, each in members.items()) + "}"


def dropped_line(changes: dict[str, Any]) -> str:
    dropped = Dropped()
    dropped.add(record.row(sample(), ""), "heads")
    return json.dumps(json.loads(dropped.lines()[0][1]) | changes, separators=(",", ":"))


def data_of(each: dict[str, Any]) -> Any:
    """The data of a record of a case."""
    if "data" in each:
        return each["data"]
    end = each.get("end", "\n")
    if "record" in each:
        payload = text(sample(**each["record"])).decode()
    elif "lines" in each:
        payload = "".join(line(changes) + end for changes in each["lines"])
    elif "dropped" in each:
        payload = dropped_line(each["dropped"]) + end
    else:
        payload = each["text"] if "text" in each else line(each.get("line", {}), each.get("raw")) + end
    return base64.b64encode(payload.encode()).decode()


def transformed(data: list[Any]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the responses, and what was sent to the stream."""
    stream = Stream()
    records = [{"recordId": f"r{number}", "data": each} for number, each in enumerate(data)]
    answer = handler.firehose({"records": records, "deliveryStreamArn": STREAM}, None, stream)
    json.dumps(answer, allow_nan=False)
    return answer["records"], stream.records


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_a_hostile_batch(case: dict[str, Any]) -> None:
    responses, resent = transformed([data_of(each) for each in case["records"]])
    assert [response["result"] for response in responses] == case["results"]
    landed = [response for response in responses if response["result"] == "Ok"]
    keys = [response["metadata"]["partitionKeys"] for response in landed]
    assert [key["service"] for key in keys] == case["services"]
    back = [landing_partition(each) for each in resent]
    assert [where and where.service for where in back] == case.get("resent", [])
    for key in keys:
        assert all(re.fullmatch(r"[a-z0-9-]{1,64}|_dropped", value) for value in key.values())
    # Whatever lands can be ingested, and by everybody else read as JSON.
    for data in [*(base64.b64decode(response["data"]) for response in landed), *resent]:
        assert not ChunkBuilder().add("object", data).malformed
        for each in data.splitlines():
            json.loads(each, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("records", [None, [], {}, "x", 5, [None], ["x"], [{}], [5]])
def test_a_batch_of_another_form(records: Any) -> None:
    answer = handler.firehose({"records": records, "deliveryStreamArn": 5}, None, Stream())
    assert [each["result"] for each in answer["records"]] == ["ProcessingFailed"] * (
        len(records) if isinstance(records, list) else 0
    )


def test_a_line_that_no_stream_accepts_fails_alone() -> None:
    """Firehose refuses a call with a record of more than 1,000 KiB, and all the others in it."""
    long = sample(eventID="long", eventTime="2026-03-02T05:00:00Z", userAgent="a" * (RECORD_BYTES + 1))
    two = [
        text({"Records": [sample(userAgent="a" * (RECORD_BYTES + 9)), long]}),
        text({"Records": [sample(eventID="b"), sample(eventTime="2026-03-02T07:00:00Z")]}),
    ]
    response = Transform().batch([base64.b64encode(each).decode() for each in two])
    assert [each.result for each in response.records] == ["ProcessingFailed", "Ok"]
    assert [len(each.data) <= RECORD_BYTES for each in response.resend] == [True]


def test_small_bombs_fail_alone() -> None:
    """400 records of 2 KB that unpack to 900 MB each, beside good ones; the function has 1,024 MB and two minutes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = gzip.compress(b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(900)), packer.flush()]))
    assert len(bomb) < 4_000
    good = text(sample())
    data = [base64.b64encode(each).decode() for each in (*[bomb] * 400, good, gzip.compress(good))]
    batch = {"records": [{"recordId": str(number), "data": each} for number, each in enumerate(data)]}
    code = (
        "import json, sys; from trailsift.aws import handler;"
        "results = [each['result'] for each in handler.firehose(json.load(sys.stdin))['records']];"
        # Not ru_maxrss, which includes the peak of the process that started this one.
        "own = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1];"
        "print(json.dumps([results, int(own) >> 10]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=text(batch), capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    results, peak_mb = json.loads(done.stdout.splitlines()[-1])
    assert results == ["ProcessingFailed"] * 400 + ["Ok", "Ok"]
    assert peak_mb < 700


def test_the_zip_of_the_function_has_the_checks(tmp_path: Path) -> None:
    modules = package._our_modules()
    assert {"trailsift/decode/landing.py", "trailsift/cloudtrail/services.py"} <= modules.keys()
    assert {f"trailsift/cloudtrail/{name}.py" for name in ("callers", "categories", "copies")} <= modules.keys()
    for name, source in modules.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source)
    # As Lambda runs it: only these modules, and the packages that the zip contains.
    data = base64.b64encode((line({"service": "../../x"}) + "\n").encode()).decode()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from trailsift.aws import handler; import trailsift;"
        f"assert trailsift.__file__.startswith({str(tmp_path)!r});"
        f"print(handler.firehose({{'records': [{{'recordId': '1', 'data': {data!r}}}]}})['records'][0]['result'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ProcessingFailed"


def test_the_partition_of_every_event_is_checked_again() -> None:
    for service in ("../x", "", "a/b", "s3\0", "S3", "a" * 65):
        with pytest.raises(landing.NotARecord, match="name of a service"):
            landing.partition_of(1_772_413_323_000_000, service)


CLAIMS = ("arn:aws:iam::111122223333:role/admin", "anonymous", "account:999999999999/AIDAEVIL", "whatever", None)


@pytest.mark.parametrize("claim", CLAIMS, ids=repr)
def test_a_line_with_another_caller_does_not_pass_unchanged(claim: str | None) -> None:
    """Athena reads what lands. So a line lands with the caller of its identity, as lines of earlier versions do."""
    own = "arn:aws:iam::111122223333:role/etl"
    written = (line({}) + "\n").encode()
    assert landing_partition(written) is not None
    changed = (line({"caller": claim, "principal_id": "AIDAEVIL"}) + "\n").encode()
    for each in (changed, written + changed, (line({"principal_id": "AIDAEVIL"}) + "\n").encode()):
        assert landing_partition(each) is None
        (response,), resent = transformed([base64.b64encode(each).decode()])
        assert response["result"] == "Ok" and not resent
        landed = base64.b64decode(response["data"])
        assert {(row["caller"], row["principal_id"]) for row in map(json.loads, landed.splitlines())} == {
            (own, "AROAEXAMPLE:job")
        }
        assert landing_partition(landed) is not None
    dropped = (dropped_line({"caller": claim}) + "\n").encode()
    assert landing_partition(dropped) is None
    (response,), resent = transformed([base64.b64encode(dropped).decode()])
    assert response["result"] == "Dropped"
    (landed,) = resent
    assert json.loads(landed)["caller"] == own and landing_partition(landed) is not None


def test_a_stream_may_leave_out_the_principal_id() -> None:
    """With ``[fields] omit`` a line has none: it passes, and is not sent round again."""
    row = record.row(sample(), "")
    assert landing_partition(LandingWriter(["principal_id"]).row(row)) is not None
