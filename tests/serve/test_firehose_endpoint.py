"""The Firehose endpoint of a real server: forms, retries, kills, senders at once, and whoever means harm."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from s3_server import Server as S3Server  # noqa: E402
from s3_server import s3, s3_server  # noqa: E402, F401
from support.logs import event_number, rows, write  # noqa: E402
from support.records import text  # noqa: E402
from support.s3_lakes import new_lake, own_cache  # noqa: E402, F401
from support.streams import KEY, TOKEN, Server, envelope, request_of, serving  # noqa: E402
from trailsift import Lake  # noqa: E402
from trailsift.aws.handler import firehose  # noqa: E402
from trailsift.lake.verify import verify  # noqa: E402
from trailsift.serve.firehose import LIMIT, _Body  # noqa: E402
from trailsift.serve.options import ServeOptions, check  # noqa: E402
from trailsift.serve.writers import Refused  # noqa: E402
from trailsift.sources.firehose import PART_BYTES, BadRequestError, parts_of, read_request  # noqa: E402


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streamed") / "lake"


@pytest.fixture(scope="module")
def server(lake: Path) -> Iterator[Server]:
    """A server over a new lake."""
    with serving(lake, "--firehose") as found:
        yield found


def stored(lake: Path, first: int, count: int) -> list[int]:
    """Return how often each of some events is in the lake."""
    found = Counter(int(row["event_id"][:8], 16) for row in rows(lake, columns="event_id"))
    return [found[number] for number in range(first, first + count)]


def rejected(lake: Path, request_id: str) -> list[str]:
    return sorted(row["reason"] for row in rows(lake, "rejects") if request_id in row["log_object"])


def transformed(*records: Any) -> list[bytes]:
    """Return what a stream delivers whose transform is ours."""
    data = base64.b64encode(envelope(*records)).decode()
    answer = firehose({"records": [{"recordId": "1", "data": data}]})
    return [base64.b64decode(record["data"]) for record in answer["records"]]


def test_forms_that_a_stream_delivers_are_stored_when_it_is_answered(server: Server, lake: Path) -> None:
    records = [
        envelope(event_number(1), event_number(2)),
        text(event_number(3)),
        gzip.compress(text({"Records": [event_number(4)]})),
        text(event_number(5)) + b"\n" + text(event_number(6)),
        *transformed(event_number(7)),
        envelope(kind="CONTROL_MESSAGE"),
    ]
    answer = server.deliver("forms-1", *records, packed=True)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json" and "content-encoding" not in answer.headers
    said = answer.json()
    assert said["requestId"] == "forms-1" and abs(said["timestamp"] - time.time() * 1000) < 60_000
    assert set(said) == {"requestId", "timestamp"}
    # Nobody waits: whatever is answered is committed.
    assert stored(lake, 1, 7) == [1] * 7
    assert rejected(lake, "forms-1") == []


def test_what_is_no_record_is_a_reject_and_the_rest_is_stored(server: Server, lake: Path) -> None:
    bad = [b"hello", b'{"a": 1}', b"\x1f\x8b\x08 damaged", b""]
    assert server.deliver("bad-1", text(event_number(20)), *bad).status_code == 200
    assert stored(lake, 20, 1) == [1]
    assert len(rejected(lake, "bad-1")) == 4
    # Nothing but other JSON: a file like that would be passed over.
    assert server.deliver("bad-2", b'{"a": 1}', b'{"b": 2}').status_code == 200
    assert rejected(lake, "bad-2") == ["not a CloudTrail record"] * 2
    no_data = json.dumps({"requestId": "bad-3", "timestamp": 1, "records": [{"data": 7}, 3, {}]}).encode()
    assert server.post(no_data, "bad-3").status_code == 200
    assert len(rejected(lake, "bad-3")) == 3


def test_a_retry_changes_nothing(server: Server, lake: Path) -> None:
    body = request_of("again-1", [text(event_number(30)), b"no record"])
    assert [server.post(body, "again-1").status_code for _ in range(3)] == [200] * 3
    with ThreadPoolExecutor(4) as threads:
        other = request_of("again-2", [text(event_number(31))])
        assert {answer.status_code for answer in threads.map(lambda _: server.post(other, "again-2"), range(4))} == {
            200
        }
    # The same event in another request, as after a resharding.
    assert server.deliver("again-3", text(event_number(30))).status_code == 200
    assert stored(lake, 30, 2) == [1, 1]
    assert rejected(lake, "again-1") == ["not JSON"]


def test_two_senders_at_once(server: Server, lake: Path) -> None:
    def send(sender: int) -> set[int]:
        # Each event is sent by both.
        return {
            server.deliver(
                f"both-{sender}-{at}", envelope(*(event_number(100 + 10 * at + n) for n in range(10)))
            ).status_code
            for at in range(4)
        }

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(send, (1, 2))) == [{200}, {200}]
    assert stored(lake, 100, 40) == [1] * 40


def test_the_key_and_the_token_open_one_thing_each(server: Server) -> None:
    body = request_of("key-1", [text(event_number(40))])
    for key in ("", "wrong", KEY[:-1], KEY + "x", TOKEN):
        answer = server.post(body, "key-1", key, authorization=f"Bearer {TOKEN}")
        assert answer.status_code == 401
        assert answer.json()["errorMessage"] == "the access key is missing or wrong"
    assert server.post(body, "key-1", "another-key-of-sixteen").status_code == 200
    for path in ("api/v1/status", "api/v1/watchers", "metrics", "openapi.json"):
        host = {"x-amz-firehose-access-key": KEY}
        assert httpx.get(f"{server.url}{path}", headers=host).status_code == 401
        assert server.get(path, token=KEY).status_code == 401
        assert server.get(path).status_code == 200
    assert httpx.get(f"{server.url}firehose").status_code != 401


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        (b"", {}, "empty"),
        (b"not json", {}, "not JSON"),
        (b"[]", {}, "not an object"),
        (b'{"records": {}}', {}, "list of `records`"),
        (b'{"requestId": "other", "records": []}', {}, "not that of the header"),
        (b'{"records": []}', {"content_type": "text/plain"}, "content type"),
        (b'{"records": []}', {"content_encoding": "br"}, "gzip or none"),
        (b'{"records": []}', {"content_encoding": "gzip"}, "not gzip"),
        (gzip.compress(b'{"records": []}', mtime=0)[:-4], {"content_encoding": "gzip"}, "cut short"),
        (gzip.compress(b'{"records": []}', mtime=0) * 2, {"content_encoding": "gzip"}, "after its end"),
        (b'{"records": []}', {"x_amz_firehose_request_id": "with space"}, "Request-Id"),
        (b'{"records": []}', {"x_amz_firehose_protocol_version": "2.0"}, "protocol"),
        (b"[" * 200_000, {}, "more values"),
        (b"[" * 90_000, {}, "not JSON"),
    ],
)
def test_requests_of_others_are_refused(server: Server, body: bytes, headers: dict[str, str], says: str) -> None:
    answer = server.post(body, "wrong-1", **headers)
    assert answer.status_code == 400 and says in answer.json()["errorMessage"], answer.text
    assert answer.json()["requestId"] == ("" if "x_amz_firehose_request_id" in headers else "wrong-1")


def test_the_limit_is_not_below_that_of_firehose(server: Server, lake: Path) -> None:
    body = request_of("large-1", [text(event_number(50))])
    body += b" " * ((64 << 20) - len(body))
    assert server.post(gzip.compress(body, 1), "large-1", content_encoding="gzip").status_code == 200
    assert stored(lake, 50, 1) == [1]
    with socket.create_connection((httpx.URL(server.url).host, httpx.URL(server.url).port or 80)) as sender:
        head = {"x-amz-firehose-access-key": KEY, "x-amz-firehose-request-id": "large-2", "content-length": LIMIT + 1}
        head |= {"content-type": "application/json", "host": "x"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        sender.sendall(f"POST /firehose HTTP/1.1\r\n{lines}\r\n{{".encode())
        # It need not read what it does not want.
        sender.settimeout(30)
        assert sender.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_bomb_is_neither_unpacked_nor_believed(server: Server, lake: Path) -> None:
    outer = gzip.compress(b'{"records": [' + b" " * (80 << 20), 6)
    began = time.monotonic()
    assert server.post(outer, "bomb-1", content_encoding="gzip").status_code == 413
    # Inside a record, where the decoder meets it.
    inner = gzip.compress(b"[" + b" " * (300 << 20), 6)
    assert server.deliver("bomb-2", inner, text(event_number(60))).status_code == 200
    assert time.monotonic() - began < 60
    assert any("unpacked" in reason for reason in rejected(lake, "bomb-2"))
    assert server.deliver("bomb-3", text(event_number(61))).status_code == 200
    assert stored(lake, 61, 1) == [1]
    assert server.watcher()["starts"] == 1


def test_the_state_is_on_the_api(server: Server) -> None:
    assert server.deliver("state-1", text(event_number(70))).status_code == 200
    found = server.watcher()
    assert (found["kind"], found["state"], found["trouble"]) == ("firehose", "running", None)
    assert found["last_commit"]["stored"] == 1
    described = server.get("openapi.json").json()
    assert "/firehose" in described["paths"]
    schema = described["paths"]["/api/v1/watchers"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert set(found) == set(schema["properties"]["watchers"]["items"]["properties"])
    metrics = server.get("metrics").text
    assert "trailsift_writers_running 1" in metrics
    assert "trailsift_firehose_requests_committed " in metrics


def test_a_killed_server_loses_nothing(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    with serving(lake, "--firehose", every=1.0) as server:
        assert server.deliver("before", text(event_number(1))).status_code == 200
        with ThreadPoolExecutor(8) as threads:
            at_work = [threads.submit(server.deliver, f"during-{at}", text(event_number(10 + at))) for at in range(8)]
            time.sleep(0.3)
            server.process.kill()
            answers = [task.exception() for task in at_work]
    # Nobody was answered, so a stream sends all of it again.
    assert all(answers)
    with serving(lake, "--firehose") as server:
        for at in range(8):
            assert server.deliver(f"during-{at}", text(event_number(10 + at))).status_code == 200
        assert server.stop() in (0, -15)
    assert stored(lake, 1, 1) + stored(lake, 10, 8) == [1] * 9
    assert verify(lake).is_sound


def test_the_writer_is_started_again(tmp_path: Path) -> None:
    import psutil

    lake = tmp_path / "lake"
    with serving(lake, "--firehose", every=1.0) as server:
        (writer,) = [
            child for child in psutil.Process(server.process.pid).children() if "spawn_main" in str(child.cmdline())
        ]
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(server.deliver, "lost", text(event_number(1)))
            time.sleep(0.3)
            writer.kill()
            assert waiting.result().status_code == 503
        assert "retry-after" in waiting.result().headers
        end = time.monotonic() + 30
        while (answer := server.deliver("lost", text(event_number(1)))).status_code != 200:
            assert time.monotonic() < end and answer.status_code == 503, answer.text
            time.sleep(0.2)
        assert server.watcher()["starts"] == 2
        assert "again" in server.watcher()["trouble"]["message"]
    assert stored(lake, 1, 1) == [1]


def test_a_request_at_work_is_answered_when_the_server_stops(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    with serving(lake, "--firehose", every=5.0) as server, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(server.deliver, "last", text(event_number(1)))
        time.sleep(0.3)
        server.stop()
        assert waiting.result().status_code == 200
    assert stored(lake, 1, 1) == [1]


def test_a_lake_in_s3(new_lake: str, s3: S3Server) -> None:  # noqa: F811
    with serving(new_lake, "--firehose", env=s3.env) as server:
        for _ in range(2):
            assert server.deliver("far-1", envelope(event_number(1), event_number(2))).status_code == 200
        found = server.get("api/v1/status").json()
        assert found["totals"]["stored"] == 2
    with Lake(new_lake) as lake:
        assert lake.query("SELECT count(*) FROM events").value() == 2


def test_a_folder_is_watched_meanwhile(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    lake, logs = tmp_path / "lake", tmp_path / "logs"
    write(logs, "first.json.gz", [event_number(1)])
    with serving(lake, "--watch", str(logs)) as server:
        write(logs, "second.json.gz", [event_number(2)])
        end = time.monotonic() + 30
        while not (totals := server.watcher()["totals"]) or totals["stored"] < 2:
            assert time.monotonic() < end, server.watcher()
            time.sleep(0.1)
        assert server.watcher()["kind"] == "watch" and server.watcher()["place"] == str(logs)
        # Without the option there is no endpoint.
        assert server.deliver("none", text(event_number(3))).status_code == 405
        server.stop()
    assert stored(lake, 1, 2) == [1, 1]


def test_a_place_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    place = str(tmp_path / "nothing")
    with pytest.raises(AssertionError, match="nothing"), serving(tmp_path / "lake", "--watch", place):
        pass
    assert not (tmp_path / "lake").exists()


# -- parts -----------------------------------------------------------------------------------------------------------


def test_large_requests_are_decoded_in_parts() -> None:
    records = [{"data": base64.b64encode(bytes([at]) * (1 << 20)).decode()} for at in range(10)]
    parts = list(parts_of(records))
    assert len(parts) == 5 and max(map(len, parts)) <= PART_BYTES
    assert b"".join(parts).count(b"\n") == 10
    assert list(parts_of([])) == []


def test_an_id_in_the_body_may_be_left_out() -> None:
    assert read_request(b'{"records": [1]}', "a")["records"] == [1]
    with pytest.raises(BadRequestError):
        read_request(b'{"records": [1], "requestId": 7}', "a")


@pytest.mark.parametrize("size", [1, 7, 1 << 20, (1 << 20) + 1, 5 << 20])
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_a_body_is_unpacked_whole(tmp_path: Path, size: int, step: int) -> None:
    whole = bytes(at % 251 for at in range(997)) * (size // 997 + 1)
    packed = gzip.compress(whole[:size], 6)
    body = _Body(tmp_path / "body", packed=True)
    for at in range(0, len(packed), step):
        body.add(packed[at : at + step])
    body.end()
    assert (tmp_path / "body").read_bytes() == whole[:size]
    assert (body.size, body.received) == (size, len(packed))


def test_a_body_without_gzip_is_counted_too(tmp_path: Path) -> None:
    body = _Body(tmp_path / "body", packed=False)
    body.add(b"x" * LIMIT)
    with pytest.raises(Refused) as refused:
        body.add(b"x")
    assert refused.value.status == 413


@pytest.mark.parametrize("key", ["short", "x" * 4097, "with-ünicode-signs-in-it", TOKEN])
def test_keys_that_cannot_be_sent_or_are_the_token_are_refused(key: str) -> None:
    from trailsift.errors import UsageError

    with pytest.raises(UsageError):
        check(ServeOptions(lake="lake", token=TOKEN, firehose_keys=(key,)))
