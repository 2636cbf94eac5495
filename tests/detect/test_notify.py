"""Webhooks: what counts as delivered, what is remembered for whom, and servers that misbehave."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.hostile import EVIL, unsafe
from trailsift.cli import main
from trailsift.detect import notify
from trailsift.detect.finding import Finding, Signal
from trailsift.errors import LakeError, UsageError

SECRET = "T0KEN/S3CRET"


class Server:
    """A server that reads one request per connection and answers with bytes of our choice."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.answers: list[Callable[[socket.socket], None]] = []
        self.requests: list[tuple[str, dict[str, Any] | None]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}/hook/{SECRET}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            line = lines.readline().decode()
            size = 0
            while (header := lines.readline().strip()) != b"":
                if header.lower().startswith(b"content-length:"):
                    size = int(header.partition(b":")[2])
            content = lines.read(size)
            self.requests.append((line.split(" ")[0], json.loads(content) if content else None))
            answer = self.answers.pop(0) if self.answers else status(200)
            try:
                answer(connection)
            except OSError:
                return


def sends(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


def status(code: int, *headers: str, body: bytes = b"") -> Callable[[socket.socket], None]:
    lines = [f"HTTP/1.1 {code} Word", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return sends("\r\n".join([*lines, "", ""]).encode() + body)


def hangs(connection: socket.socket) -> None:
    time.sleep(3)


def drips(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        connection.sendall(b"X-%d: y\r\n" % number)
        time.sleep(0.05)


def giant(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
    for _ in range(1000):
        connection.sendall(b"x" * 1_000_000)


def slow_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    time.sleep(3)


def continues(connection: socket.socket) -> None:
    for _ in range(100):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.02)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(notify, "_TIMEOUT", 0.5)
    monkeypatch.setattr(notify, "_DEADLINE", 1.5)
    server = Server()
    yield server
    server.socket.close()


def finding(name: str = "f1", events: int = 5) -> Finding:
    signal = Signal("more_calls", "role/a", 3.0, 0, 1, "GetObject", events, event_name="GetObject")
    return Finding(name, "role/a", 0.9, 0, 1, (signal,), "t")


#: What a server does -> whether the finding counts as delivered, and how often it is posted in one run.
ANSWERS: dict[str, tuple[Callable[[socket.socket], None], bool, int]] = {
    "200": (status(200), True, 1),
    "204": (status(204), True, 1),
    "200 with a body": (status(200, body=b"ok"), True, 1),
    **{
        f"{code}": (status(code, "Location: /login"), False, 1)
        for code in (300, 301, 302, 303, 304, 305, 307, 308, 400, 401, 403, 404, 410)
    },
    "302 to a file": (status(302, "Location: file:///etc/passwd"), False, 1),
    "302 without a place": (status(302), False, 1),
    "303 to ftp": (status(303, "Location: ftp://127.0.0.1:1/x"), False, 1),
    **{f"{code}": (status(code), False, 3) for code in (408, 429, 500, 502, 503, 504)},
    "199": (status(199), False, 1),
    "a word for evil": (sends(f"HTTP/1.1 500 {EVIL}\r\n\r\n".encode()), False, 3),
    "no HTTP": (sends(b"\x00\x01garbage\r\n\r\n"), False, 3),
    "a broken status": (sends(b"HTTP/1.1 abc OK\r\n\r\n"), False, 3),
    "a line without end": (sends(b"HTTP/1.1 200 " + b"x" * 70_000), False, 3),
    "too many headers": (sends(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"), False, 3),
    "a broken length": (sends(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), True, 1),
    "a broken chunk": (sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), True, 1),
    "nothing": (sends(b""), False, 3),
    "half a head": (sends(b"HTTP/1.1 200 OK\r\nContent-"), True, 1),
    "a giant body": (giant, True, 1),
    "a slow body": (slow_body, True, 1),
    "a hang": (hangs, False, 3),
    "a drip": (drips, False, 1),
    "continue without end": (continues, False, 1),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_only_an_accepted_alert_is_delivered(name: str, server: Server, tmp_path: Path) -> None:
    """Nothing is raised, no redirect is followed, and what was not accepted is posted again by the next run."""
    answer, delivered, tries = ANSWERS[name]
    server.answers = [answer] * tries
    began = time.monotonic()
    taken, errors = notify.alert(tmp_path, [finding()], server.url, wait=lambda seconds: None)
    assert time.monotonic() - began < 5
    assert (taken, len(errors)) == ((1, 0) if delivered else (0, 1))
    assert [method for method, _ in server.requests] == ["POST"] * tries, "a GET would be a redirect that was followed"
    for error in errors:
        assert SECRET not in error and "EVIL" not in error and unsafe(error) == []
    server.requests.clear()
    again, _ = notify.alert(tmp_path, [finding()], server.url)
    assert again == (not delivered) and len(server.requests) == again


def test_each_alert_is_remembered_at_once(server: Server, tmp_path: Path) -> None:
    """Two are accepted, the third is not: the next run posts the third and what follows it."""
    findings = [finding(f"f{number}") for number in range(5)]
    server.answers = [status(200), status(200), status(404)]
    assert notify.alert(tmp_path, findings, server.url)[0] == 2
    assert [content and content["finding"]["id"] for _, content in server.requests] == ["f0", "f1", "f2"]
    server.requests.clear()
    assert notify.alert(tmp_path, findings, server.url) == (3, [])
    assert [content and content["finding"]["id"] for _, content in server.requests] == ["f2", "f3", "f4"]


def test_destinations_swallow_nothing_of_each_other(server: Server, tmp_path: Path) -> None:
    other = Server()
    assert notify.alert(tmp_path, [finding()], server.url) == (1, [])
    assert notify.alert(tmp_path, [finding()], other.url) == (1, [])
    for destination in ("new", "follow", "ingest"):
        assert notify.news(tmp_path, [finding()], destination) == [finding()]
        notify.remember(tmp_path, [finding()], destination)
        assert notify.news(tmp_path, [finding()], destination) == []
    assert notify.alert(tmp_path, [finding(events=6)], server.url) == (0, [])
    assert notify.alert(tmp_path, [finding(events=8)], server.url) == (1, [])
    stored = (tmp_path / "findings" / "told.json").read_text()
    assert SECRET not in stored and "127.0.0.1" not in stored


def test_what_an_earlier_version_reported(server: Server, tmp_path: Path) -> None:
    """It did not say to whom: an update does not post everything again."""
    (tmp_path / "findings").mkdir()
    (tmp_path / "findings" / "told.json").write_text('{"f1": 5.0}')
    assert notify.news(tmp_path, [finding(), finding("f2")]) == [finding("f2")]
    notify.remember(tmp_path, [finding("f2")])
    assert notify.alert(tmp_path, [finding(), finding("f2")], server.url) == (1, [])


def test_memory_is_bounded(tmp_path: Path) -> None:
    notify.remember(tmp_path, [finding(f"f{number}") for number in range(notify._KEPT + 5)])
    for number in range(notify._DESTINATIONS + 5):
        notify.remember(tmp_path, [finding()], f"d{number}")
    destinations = json.loads((tmp_path / "findings" / "told.json").read_text())["destinations"]
    assert len(destinations) == notify._DESTINATIONS and f"d{notify._DESTINATIONS + 4}" in destinations


@pytest.mark.parametrize(
    "text", ["[", "[]", '{"destinations": 1}', '{"destinations": {"new": [1]}}', "[" * 100_000, "\xff"]
)
def test_damaged_memory(text: str, tmp_path: Path) -> None:
    (tmp_path / "findings").mkdir()
    (tmp_path / "findings" / "told.json").write_text(text, "latin-1")
    with pytest.raises(LakeError, match="is damaged"):
        notify.news(tmp_path, [finding()])


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "ftp://h/x", "gopher://h", "http:///x", "//h/x", "", "javascript:alert(1)", "http://"),
        *(
            "http://h/a b",
            "http://h/a\r\nX: y",
            "http://user:pw@h/x",
            "http://h:99999/x",
            "http://[::1/x",
            "http://h:x/",
        ),
        *("http://h/\u202e", "http://h\x00/", "http://é/", "HTTP\n://h/", "http://h:0/x"),
    ],
)
def test_urls_that_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        notify.alert(tmp_path, [finding()], url)
    assert url == "" or url not in str(caught.value), "it may hold a secret"


def test_what_is_posted_is_harmless(server: Server, tmp_path: Path) -> None:
    hostile = replace(finding(), title=f"<!channel> {EVIL} <http://evil.example|x> *a* `b` & @here", reasons=(EVIL,))
    for form in ("json", "slack"):
        content = notify.body(hostile, form)  # type: ignore[arg-type]
        texts = [content["text"]] if form == "slack" else [content["finding"]["title"], *content["finding"]["reasons"]]
        assert all(unsafe(text) == [] for text in texts)
    slack = notify.body(hostile, "slack")
    assert "<" not in slack["text"] and "&lt;!channel&gt;" in slack["text"]
    assert slack["mrkdwn"] is False and slack["unfurl_links"] is False and slack["unfurl_media"] is False
    assert notify.alert(tmp_path, [hostile], server.url, "slack") == (1, [])
    assert server.requests[-1][1] == slack


def test_a_memory_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alerts are still posted, and the error is one line."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(notify, "update", full)
    taken, errors = notify.alert(tmp_path, [finding("f1"), finding("f2")], server.url)
    assert taken == 2 and len(errors) == 1 and "No space left" in errors[0] and "posted again" in errors[0]


@pytest.mark.parametrize("name", ["302", "no HTTP", "a hang", "500"])
def test_findings_are_shown_whatever_the_webhook_does(
    name: str, server: Server, small_lake: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard output, and the exit code says that something went wrong."""
    monkeypatch.setattr(notify, "_TRIES", 1)
    server.answers = [ANSWERS[name][0]] * 3
    assert main(["detect", "--lake", str(small_lake), "--webhook", server.url, "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["findings"] and "was not delivered" in captured.err
    assert SECRET not in captured.out + captured.err


def test_following_goes_on(
    server: Server, small_lake: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken answer does not end it: it waits for the next commit."""
    from trailsift.detect import follow

    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(notify, "_TRIES", 1)
    monkeypatch.setattr(follow.follow, "__defaults__", (wait, *(follow.follow.__defaults__ or ())[1:]))
    server.answers = [ANSWERS["no HTTP"][0]]
    words = ["detect", "--lake", str(small_lake), "--follow", "--webhook", server.url]
    assert main(words) == 130 and waited == [10]
    assert "was not delivered: the answer is not HTTP" in capsys.readouterr().err
