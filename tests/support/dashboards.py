"""A dashboard that runs in a thread of the tests, on a port of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

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
