"""What the server shows of the processes that write beside it: the Firehose endpoint, and their states."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trailsift.serve.firehose import Endpoint
from trailsift.serve.options import FIREHOSE, ServeOptions
from trailsift.serve.redact import mask
from trailsift.serve.writers import Writers
from trailsift.serve.writing_openapi import describe_endpoint, describe_watchers

if TYPE_CHECKING:
    from trailsift.serve.live import Follower


class Writing:
    """The writers of one server, and their routes."""

    def __init__(self, options: ServeOptions) -> None:
        keys = options.firehose_keys
        self._writers = Writers(
            str(options.lake), options.watch, firehose=bool(keys), rules=options.rules, every=options.every
        )
        self._endpoint = Endpoint(keys, self._writers) if keys else None
        self._redact = options.redact
        self._looks: set[asyncio.Task[None]] = set()

    def routes(self) -> list[Route]:
        """Return the routes."""
        routes = [Route("/api/v1/watchers", self.watchers, methods=["GET"])]
        if self._endpoint is not None:
            routes.append(Route(FIREHOSE, self._endpoint.answer, methods=["POST"]))
        return routes

    def described(self, description: dict[str, Any]) -> dict[str, Any]:
        """Add what is here to the description of the API, and return it."""
        description["paths"]["/api/v1/watchers"] = describe_watchers()
        if self._endpoint is not None:
            description["paths"][FIREHOSE] = describe_endpoint()
            schemes = description["components"]["securitySchemes"]
            schemes["firehose"] = {"type": "apiKey", "in": "header", "name": "X-Amz-Firehose-Access-Key"}
        return description

    def start(self) -> None:
        """Start the processes, and wait until they write. Raise TrailsiftError if one cannot."""
        self._writers.start()

    def follow(self, follower: Follower) -> None:
        """Send a commit to readers at once, and not with the follower's next look."""

        def look() -> None:
            task = asyncio.ensure_future(follower.look())
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)

        self._writers.follow(look)

    def stop(self) -> None:
        """Begin to stop: the commits at work are finished. Called by the handler of a signal."""
        self._writers.stop_soon()

    def end(self) -> None:
        """Stop, and wait for the commits at work, without a loop: after one, or if there was none."""
        self._writers.end()

    async def close(self) -> None:
        """Stop, and wait for the commits at work."""
        await self._writers.close()

    async def watchers(self, request: Request) -> Response:
        """Return the states of the processes."""
        states: Any = self._writers.as_list()
        return JSONResponse({"watchers": mask(states) if self._redact else states})

    def gauges(self) -> dict[str, tuple[str, float]]:
        """Return what /metrics shows: name -> (help, value)."""
        writers = self._writers.all
        found: dict[str, tuple[str, float]] = {}
        if writers:
            totals = [writer.totals or {} for writer in writers]
            found |= {
                "writers": ("Processes that should write to the lake", float(len(writers))),
                "writers_running": (
                    "Processes that write to the lake",
                    float(sum(writer.state == "running" for writer in writers)),
                ),
                "writers_starts": (
                    "Starts of processes that write to the lake",
                    float(sum(writer.starts for writer in writers)),
                ),
                "writers_stored": (
                    "Events stored by the processes at work",
                    float(sum(total.get("stored", 0) for total in totals)),
                ),
                "writers_lag_seconds": (
                    "Seconds from delivery to commit, of the last commit",
                    float(max((total.get("lag", 0.0) for total in totals), default=0.0)),
                ),
            }
        return found | (self._endpoint.gauges() if self._endpoint is not None else {})
