"""A real HTTP proxy in front of the S3 server, which drops, delays, cuts short and refuses what it is told to.

``rule`` is called for each request and returns what happens to it: None lets it pass.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Fault:
    """What happens to a request: an answer of our own, a cut body, a lost connection, a delay, or an action first."""

    #: Answer instead of the server: status, body, headers.
    status: int = 0
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    #: Close the connection without a word; ``after``: only when the server has answered, so that the answer is lost.
    drop: bool = False
    after: bool = False
    #: Send only a part of the server's body, and close.
    keep: float = 1.0
    #: Seconds before it goes on.
    delay: float = 0.0
    #: Say that a write whose condition does not hold was done, as a server that ignores conditions does.
    agree: bool = False
    #: Called before the request goes on to the server.
    first: Callable[[], object] | None = None


def refusal(code: str, message: str, status: int, *headers: tuple[str, str]) -> Fault:
    """Return an answer such as S3 gives."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Fault(status, body.encode(), headers)


SLOW_DOWN = refusal("SlowDown", "Please reduce your request rate.", 503)


@dataclass(frozen=True)
class Request:
    """A request that has come in. ``key`` is the path below the bucket."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def is_list(self) -> bool:
        """True if it lists a bucket."""
        return "list-type=2" in self.path

    @property
    def key(self) -> str:
        """The object's key, as the URL has it."""
        return urlsplit(self.path).path.lstrip("/").partition("/")[2]

    @property
    def region(self) -> str:
        """The region that the request was signed for."""
        match = re.search(r"Credential=[^/]+/\d+/([a-z0-9-]+)/", self.headers.get("authorization", ""))
        return match[1] if match else ""


@dataclass
class Proxy:
    """A running proxy."""

    url: str
    rule: Callable[[Request], Fault | None] = lambda _: None
    requests: list[Request] = field(default_factory=list)
    #: Requests that the server answered, with the status of its answer.
    answers: list[tuple[Request, int]] = field(default_factory=list)

    def count(self, method: str, part: str = "") -> int:
        """Return how many requests came in with a method and a text in their path."""
        return sum(request.method == method and part in request.path for request in self.requests)


def _handler(proxy: Proxy, upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_one_request(self) -> None:
            with contextlib.suppress(ConnectionError, TimeoutError):
                super().handle_one_request()

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            request = Request(self.command, self.path, {name.lower(): text for name, text in self.headers.items()})
            proxy.requests.append(request)
            fault = proxy.rule(request) or Fault()
            time.sleep(fault.delay)
            if fault.first is not None:
                fault.first()
            if fault.drop and not fault.after:
                return self.hang_up()
            if fault.status:
                return self.answer(fault.status, fault.headers, fault.body, 1.0)
            connection = http.client.HTTPConnection(upstream, timeout=60)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, text in self.headers.items():
                    connection.putheader(name, text)
                connection.endheaders(body or None)
                answer = connection.getresponse()
                data = answer.read()
            finally:
                connection.close()
            proxy.answers.append((request, answer.status))
            if fault.drop:
                return self.hang_up()
            if fault.agree and answer.status == 412:
                return self.answer(200, (("ETag", '"0123456789abcdef0123456789abcdef"'),), b"", 1.0)
            return self.answer(
                answer.status, tuple(answer.getheaders()), data, fault.keep, answer.getheader("Content-Length")
            )

        def answer(
            self, status: int, headers: tuple[tuple[str, str], ...], data: bytes, keep: float, length: str | None = None
        ) -> None:
            self.send_response(status)
            for name, text in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, text)
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: int(len(data) * keep)])
            if keep < 1:
                self.wfile.flush()
                self.hang_up()

        def hang_up(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


@contextlib.contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """Run a proxy in front of the server at ``url``."""
    proxy = Proxy("")
    server = _Server(("127.0.0.1", 0), _handler(proxy, urlsplit(url).netloc))
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
