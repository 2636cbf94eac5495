"""The process that writes to the lake beside the server: a watch of one place, or of the Firehose endpoint.

It is a process of its own, so that decoding and committing takes no time from those who read pages. It ends when it is
told to, or when the server is gone, and finishes the commit at work first.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trailsift.errors import TrailsiftError

if TYPE_CHECKING:
    from trailsift.sources.firehose import FirehoseArrivals


@dataclass(frozen=True, slots=True)
class Plan:
    """What a process writes, and where. ``place`` is watched; None: requests of Firehose.

    ``folder`` is where the endpoint puts bodies, and the process the parts of them. ``every``: seconds for which
    arrivals are gathered.
    """

    lake: str
    place: str | None
    rules: str | None = None
    folder: str | None = None
    every: float = 1.0


class _Wire:
    """The connection to the server; what cannot be sent any more is of no use to anybody."""

    def __init__(self, connection: Connection) -> None:
        #: Whether the server is gone.
        self.is_cut = False
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, kind: str, *values: Any) -> None:
        """Send a message."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._connection.send((kind, *values))

    def receive(self) -> tuple[Any, ...] | None:
        """Return the next message; None if the server is gone."""
        try:
            message: tuple[Any, ...] = self._connection.recv()
        except (EOFError, OSError):
            self.is_cut = True
            return None
        return message


def write(connection: Connection, plan: Plan) -> None:
    """Write until the server says so or is gone. Messages that are sent: ``started``, ``commit``, ``status``,
    ``trouble``, ``answer`` and ``end``, with the error if there was one."""
    stop = threading.Event()
    # Ctrl-C reaches the whole group of processes: the server decides. A supervisor sends SIGTERM to all of them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    wire = _Wire(connection)
    try:
        _write(wire, plan, stop)
    except TrailsiftError as error:
        wire.send("end", error)
    except Exception as error:  # of any kind: the server says it, and starts another process
        wire.send("end", TrailsiftError(f"writing ended early: {type(error).__name__}: {error}"))
    else:
        wire.send("end", None)
    if plan.folder is not None and wire.is_cut:
        # The server cannot remove it any more.
        shutil.rmtree(plan.folder, ignore_errors=True)


def _write(wire: _Wire, plan: Plan, stop: threading.Event) -> None:
    from trailsift.ingest.watch import Hooks, Pace
    from trailsift.runtime import spare_memory

    spare_memory()
    hooks = Hooks(
        started=lambda text: wire.send("started", text),
        committed=lambda done: wire.send("commit", done.as_dict()),
        status=lambda status: wire.send("status", status.as_dict()),
        trouble=lambda text: wire.send("trouble", text),
    )
    if plan.place is not None:
        from trailsift.api import Lake

        threading.Thread(target=_listen, args=(wire, stop, None), daemon=True).start()
        Lake(plan.lake).watch(
            plan.place,
            every=plan.every,
            rules=plan.rules,
            stop=stop,
            on_start=hooks.started,
            on_commit=hooks.committed,
            on_status=hooks.status,
            on_trouble=hooks.trouble,
        )
        return
    from trailsift.ingest.watching import watch_arrivals
    from trailsift.rules.presets import open_rules
    from trailsift.sources.firehose import FirehoseArrivals

    assert plan.folder is not None
    arrivals = FirehoseArrivals(Path(plan.folder) / "parts", lambda *answer: wire.send("answer", *answer))
    rules = None if plan.rules is None else open_rules(plan.rules)
    root = _folder(plan.lake)
    threading.Thread(target=_listen, args=(wire, stop, arrivals), daemon=True).start()
    watch_arrivals(arrivals, root, hooks, Pace(plan.every), stop, rules=rules)


def _folder(lake: str) -> Path:
    """Return the folder of a lake: of one in S3, that of its copy here."""
    if lake[:5].lower() != "s3://":
        return Path(lake)
    from trailsift.lake.mirrored_storage import open_mirror

    mirror = open_mirror(lake, "write")
    mirror.open_ahead()
    return mirror.root


def _listen(wire: _Wire, stop: threading.Event, arrivals: FirehoseArrivals | None) -> None:
    """Take what the server sends."""
    while (message := wire.receive()) is not None and message[0] != "stop":
        if message[0] == "deliver" and arrivals is not None:
            arrivals.deliver(message[1])
    stop.set()
    if arrivals is not None:
        arrivals.wake()
