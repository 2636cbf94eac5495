"""A Glue server for tests: moto's, behind a door that has Glue's lock of table versions and can refuse.

moto takes any ``VersionId`` of UpdateTable; Glue answers ConcurrentModificationException to one that is not the newest,
and so does the door.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

REGION = "eu-west-1"


@dataclass(frozen=True)
class Refusal:
    """An answer of our own: Glue's code and message. ``status`` 0 closes the connection without a word."""

    code: str = ""
    message: str = ""
    status: int = 400


def denied(action: str, place: str) -> Refusal:
    """Return the answer to a caller whose policies lack an action."""
    return Refusal(
        "AccessDeniedException",
        f"User: arn:aws:iam::111122223333:user/x is not authorized to perform: glue:{action} on resource: {place} "
        "because no identity-based policy allows the glue:" + action + " action",
    )


@dataclass
class GlueServer:
    """The running server. ``rule`` sees each request (action, body) first, and may refuse it."""

    url: str
    rule: Callable[[str, dict[str, Any]], Refusal | None] = lambda *_: None
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def client(self) -> Any:
        """Return a boto3 client of the server."""
        import boto3

        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        return boto3.client("glue", endpoint_url=self.url, region_name=REGION, **keys)

    def new_database(self, name: str) -> str:
        """Make an empty database, in the place of one of that name."""
        client = self.client()
        with contextlib.suppress(client.exceptions.EntityNotFoundException):
            client.delete_database(Name=name)
        client.create_database(DatabaseInput={"Name": name})
        return name

    def table(self, database: str, name: str) -> dict[str, Any]:
        """Return a table."""
        found: dict[str, Any] = self.client().get_table(DatabaseName=database, Name=name)["Table"]
        return found

    def count(self, action: str) -> int:
        """Return how many requests of an action came in."""
        return sum(name == action for name, _ in self.requests)


def _handler(server: GlueServer, upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            action, asked = self.headers["X-Amz-Target"].rpartition(".")[2], json.loads(body or b"{}")
            server.requests.append((action, asked))
            refusal = server.rule(action, asked)
            if refusal is not None:
                self.refuse(refusal)
            elif action != "UpdateTable":
                self.answer(*self.ask(action, body))
            else:
                with server.lock:
                    name = {"DatabaseName": asked["DatabaseName"], "Name": asked["TableInput"]["Name"]}
                    status, found = self.ask("GetTable", json.dumps(name).encode())
                    if status == 200 and json.loads(found)["Table"]["VersionId"] != asked.get("VersionId"):
                        self.refuse(Refusal("ConcurrentModificationException", "Update table failed due to concurrent"))
                    else:
                        self.answer(*self.ask(action, body))

        def ask(self, action: str, body: bytes) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection(upstream, timeout=60)
            try:
                headers = {name: text for name, text in self.headers.items() if name.lower() != "content-length"}
                connection.request("POST", "/", body, {**headers, "X-Amz-Target": f"AWSGlue.{action}"})
                got = connection.getresponse()
                return got.status, got.read()
            finally:
                connection.close()

        def refuse(self, refusal: Refusal) -> None:
            if not refusal.status:
                self.close_connection = True
                return
            said = {"__type": refusal.code, "Message": refusal.message}
            self.answer(refusal.status, json.dumps(said).encode())

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


@pytest.fixture(scope="session")
def glue_server() -> Iterator[GlueServer]:
    """The Glue server of this test process."""
    moto_server = pytest.importorskip("moto.server", reason="moto's server is not installed")
    moto = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    server = GlueServer("")
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server, f"{host}:{port}"))
    http_server.daemon_threads = True
    server.url = f"http://127.0.0.1:{http_server.server_address[1]}"
    assert urlsplit(server.url).port
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        http_server.shutdown()
        http_server.server_close()
        moto.stop()
