"""A dashboard that runs in a thread of the tests, on a port of its own."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import uvicorn

from trailsift.serve.app import Server
from trailsift.serve.options import ServeOptions


class Dashboard:
    """A server and its address."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.url = url


@contextmanager
def running(options: ServeOptions) -> Iterator[Dashboard]:
    """Serve until the block ends."""
    with socket.create_server((options.host, 0)) as listening:
        port = listening.getsockname()[1]
        server = Server(replace(options, port=port))
        config = uvicorn.Config(
            server.application(), log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=1
        )
        run = uvicorn.Server(config)
        thread = threading.Thread(target=run.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        end = time.monotonic() + 20
        while not run.started and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        assert run.started, "the server did not start"
        try:
            yield Dashboard(server, f"http://{options.host}:{port}")
        finally:
            server.follower.stop()
            run.should_exit = True
            thread.join(10)


def follow(dashboard: Dashboard, last: int | None, found: list[dict[str, Any]], stop: threading.Event) -> None:
    """Add the next two messages about commits to ``found``, each with the time ``at`` which it came."""
    headers = {} if last is None else {"last-event-id": str(last)}
    with httpx.stream("GET", f"{dashboard.url}/api/v1/live", headers=headers, timeout=30) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                found.append({**json.loads(line[6:]), "at": time.time()})
            if stop.is_set() or len(found) >= 2:
                return
