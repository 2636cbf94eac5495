"""A Firehose stream as a sender, and servers that it delivers to; each is a process of its own."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

KEY, TOKEN = "a-key-of-sixteen-or-more-signs", "the-token-of-the-dashboard"
ARN = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/trail"


@dataclass
class Server:
    """A server in a process of its own."""

    url: str
    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def post(self, body: bytes, request_id: str, key: str = KEY, **headers: str) -> httpx.Response:
        """Send a body as a stream does."""
        sent = {
            "x-amz-firehose-protocol-version": "1.0",
            "x-amz-firehose-request-id": request_id,
            "x-amz-firehose-source-arn": ARN,
            "x-amz-firehose-access-key": key,
            "content-type": "application/json",
            # As behind a proxy that leaves it.
            "host": "logs.example.com",
        }
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(f"{self.url}firehose", content=body, headers=sent, timeout=60)

    def deliver(self, request_id: str, *records: bytes, packed: bool = False) -> httpx.Response:
        """Deliver records."""
        body = request_of(request_id, records)
        if packed:
            return self.post(gzip.compress(body), request_id, content_encoding="gzip")
        return self.post(body, request_id)

    def get(self, path: str, token: str = TOKEN) -> httpx.Response:
        """Ask the API."""
        return httpx.get(f"{self.url}{path}", headers={"authorization": f"Bearer {token}"}, timeout=30)

    def watcher(self) -> Any:
        """Return the state of the only writer."""
        (found,) = self.get("api/v1/watchers").json()["watchers"]
        return found

    def stop(self) -> int:
        """Stop it as a supervisor does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def request_of(request_id: str, records: Sequence[bytes]) -> bytes:
    """Return the body of a request."""
    listed = [{"data": base64.b64encode(record).decode()} for record in records]
    return json.dumps({"requestId": request_id, "timestamp": int(time.time() * 1000), "records": listed}).encode()


def envelope(*records: Any, kind: str = "DATA_MESSAGE") -> bytes:
    """Return what a subscription filter of CloudWatch Logs sends."""
    events = [{"id": str(at), "timestamp": 0, "message": json.dumps(record)} for at, record in enumerate(records)]
    message = {"messageType": kind, "owner": "111122223333", "logGroup": "trail", "logStream": "s", "logEvents": events}
    return gzip.compress(json.dumps(message).encode())


@contextlib.contextmanager
def serving(
    lake: str | Path, *arguments: str, every: float = 0.1, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run `trailsift serve`; what arrives within ``every`` seconds is one commit."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "trailsift",
        "serve",
        "--no-page",
        "--lake",
        str(lake),
        "--port",
        str(port),
        "--every",
        str(every),
    ]
    secrets = {"TRAILSIFT_FIREHOSE_KEY": f"another-key-of-sixteen {KEY}", "TRAILSIFT_SERVE_TOKEN": TOKEN}
    command += arguments
    process = subprocess.Popen(command, env={**os.environ, **secrets, **(env or {})}, stderr=subprocess.PIPE, text=True)
    server = Server(f"http://127.0.0.1:{port}/", process)
    assert process.stderr is not None
    for line in process.stderr:
        server.said.append(line)
        if "Ctrl-C" in line:
            break
    assert process.poll() is None and server.said, "".join(server.said)
    try:
        yield server
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
