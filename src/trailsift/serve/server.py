"""Run the server until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from trailsift.errors import TrailsiftError, UsageError
from trailsift.serve.app import Server
from trailsift.serve.assets import check_assets
from trailsift.serve.options import ServeOptions, check

#: Seconds that answers have to end when the server is stopped.
LAST_WAIT = 3
#: The same where streams deliver, whose requests wait for a commit.
LAST_DELIVERY = 30


class _Uvicorn(uvicorn.Server):
    """Ends the streams first when it is stopped: they would never end by themselves."""

    def __init__(self, config: uvicorn.Config, server: Server, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._server = server
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, then say so."""
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop."""
        self._server.follower.stop()
        self._server.writing.stop()
        super().handle_exit(sig, frame)


def serve(options: ServeOptions, ready: Callable[[], None] = lambda: None) -> None:
    """Serve a lake until interrupted; ``ready`` is called when the first request can come.

    Raise UsageError for options that do not go together, a port that cannot be listened on, or a page without its
    assets; LakeError if there is no lake.
    """
    check(options)
    if options.page:
        check_assets()
    server = Server(options)
    listening = _listen(options)
    config = uvicorn.Config(
        server.application(),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        ws="none",
        lifespan="on",
        loop="asyncio",
        http="h11",
        timeout_graceful_shutdown=LAST_DELIVERY if options.firehose_keys else LAST_WAIT,
        timeout_keep_alive=30,
        limit_concurrency=1_000,
        h11_max_incomplete_event_size=64 << 10,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )
    try:
        server.writing.start()
        # A lake that is missing is said at once, and not to the first reader only.
        server.lake.status(gaps=False)
        _Uvicorn(config, server, ready).run([listening])
    except KeyboardInterrupt:
        # It was stopped, which is how a server ends.
        pass
    except TrailsiftError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot serve {options.url}: {error}") from error
    finally:
        server.writing.end()
        listening.close()


def _listen(options: ServeOptions) -> socket.socket:
    """Return a socket that listens. UsageError if that is impossible."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, options.port))
    except (OSError, OverflowError, TypeError, ValueError) as error:
        listening.close()
        raise UsageError(
            f"cannot listen on {options.host} port {options.port}: {getattr(error, 'strerror', None) or error}. "
            f"Name another one, such as --port {options.port % 65_000 + 1}"
        ) from error
    listening.set_inheritable(True)
    return listening
