"""The application: routes, the page, and what every request passes."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from time import monotonic, perf_counter
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from trailsift import __version__
from trailsift.api import Lake
from trailsift.errors import TrailsiftError, UsageError
from trailsift.serve.answers import Body, encode
from trailsift.serve.assets import read_all
from trailsift.serve.endpoints import ALWAYS, ENDPOINTS, Endpoint
from trailsift.serve.live import Follower, TooManyReaders
from trailsift.serve.metrics import MEDIA_TYPE, Metrics
from trailsift.serve.openapi import describe
from trailsift.serve.options import LANGUAGES, ServeOptions
from trailsift.serve.params import LANG, Param, read
from trailsift.serve.problems import Problem, language_of, problem_of, problem_response
from trailsift.serve.redact import mask
from trailsift.serve.running import Gone, Runner
from trailsift.serve.security import Guard, SecurityMiddleware
from trailsift.serve.texts import texts_of
from trailsift.serve.writing_api import Writing
from trailsift.times import iso

#: Bytes of a request's body, and of an answer from which on it is compressed.
MOST_BODY, COMPRESSED = 64 << 10, 1_000
_AFTER = Param("after", "Number of the last commit seen; also as Last-Event-ID.", "integer", most=2**53)
#: Time zones whose handles are kept.
_ZONES = 64


class Server:
    """One server over one lake: what its requests share."""

    def __init__(self, options: ServeOptions, lake: Lake | None = None) -> None:
        self.options = options
        self.lake = lake or Lake(options.lake, timezone=options.timezone, memory_limit=options.memory_limit)
        self.guard = Guard(options)
        self.runner = Runner(options.timeout)
        self.metrics = Metrics()
        self.follower = Follower(self.lake, mask if options.redact else None)
        self.writing = Writing(options)
        #: Changes that this server has made.
        self.changes = 0
        self._zones: dict[str, Lake] = {}
        self._assets = {name: _Asset(*found) for name, found in read_all().items()}
        self._described = json.dumps(self.writing.described(describe(ENDPOINTS, _AFTER))).encode()

    def application(self) -> Starlette:
        """Return the ASGI application."""
        api = [Route(f"/api/v1/{one.path}", _Api(self, one), name=one.path) for one in ENDPOINTS]
        routes = [
            *api,
            *self.writing.routes(),
            Route("/api/v1/live", self.live, methods=["GET"]),
            Route("/api/v1/session", self.session, methods=["GET"]),
            Route("/api/v1/session", self.begin_session, methods=["POST"]),
            Route("/api/v1/texts", self.texts, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/metrics", self.prometheus, methods=["GET"]),
            Route("/healthz", self.health, methods=["GET"]),
            Route("/readyz", self.ready, methods=["GET"]),
            Route("/static/{path:path}", self.static, methods=["GET"]),
            Route("/{path:path}", self.page, methods=["GET"]),
        ]
        app = Starlette(
            routes=routes,
            middleware=[Middleware(SecurityMiddleware, guard=self.guard)],
            lifespan=self._lifespan,
            exception_handlers={404: _not_found, 405: _wrong_method, Exception: _defect},
        )
        app.router.redirect_slashes = False
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(self.follower.run())
        self.writing.follow(self.follower)
        try:
            yield
        finally:
            self.follower.stop()
            await following
            await self.writing.close()
            self.runner.close()
            self.lake.close()

    def in_zone(self, zone: str | None) -> Lake:
        """Return the lake in a reader's time zone. Raise UsageError if there is no such zone."""
        if zone is None or zone == self.lake.timezone:
            return self.lake
        if zone not in self._zones:
            found = self.lake.in_zone(zone)
            if len(self._zones) >= _ZONES:
                self._zones.clear()
            self._zones[zone] = found
        return self._zones[zone]

    async def live(self, request: Request) -> Response:
        """Follow the commits."""
        try:
            values = read((_AFTER, LANG), _given(request.query_params.multi_items()))
        except UsageError as error:
            return problem_response(problem_of(error), request.scope)
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 16 else values["after"]
        stream = self.follower.stream(after)
        try:
            first = await anext(stream)
        except TooManyReaders:
            return problem_response(Problem(503, "too_many_readers", "too many pages follow the lake"), request.scope)

        async def body() -> AsyncIterator[bytes]:
            yield first
            async for part in stream:
                yield part

        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(body(), media_type="text/event-stream", headers=headers)

    async def session(self, request: Request) -> Response:
        """Say who is asked for a token, and to whoever needs none, what the page has to know."""
        known = self.guard.knows(request.headers)
        about: dict[str, Any] = {"version": __version__, "known": known, "languages": LANGUAGES}
        if known:
            await self.follower.current()
            about |= {
                "csrf": self.guard.csrf,
                "lake": str(self.lake.path),
                "timezone": self.lake.timezone,
                "redact": self.options.redact,
                "max_rows": self.options.max_rows,
                "commit": self.follower.state and self.follower.state[0],
            }
            try:
                extent = await asyncio.to_thread(self.lake.extent)
                about |= {"since": iso(extent.since), "until": iso(extent.until)}
            except TrailsiftError as error:
                self.follower.trouble = self.follower.trouble or error
            if self.follower.trouble is not None:
                about |= problem_of(self.follower.trouble).as_dict(language_of(request.scope))
        return JSONResponse(about)

    async def begin_session(self, request: Request) -> Response:
        """Give the cookie to whoever knows the token."""
        try:
            given = json.loads(await _body(request))
            token = given["token"] if isinstance(given, dict) else None
        except (ValueError, KeyError, RecursionError):
            token = None
        if not isinstance(token, str) or not self.guard.is_token(token):
            # Whoever guesses waits; whoever mistypes hardly notices.
            await asyncio.sleep(0.5)
            return problem_response(Problem(401, "wrong_token", "that is not this server's token"), request.scope)
        return JSONResponse({"known": True}, headers={"set-cookie": self.guard.cookie()})

    async def texts(self, request: Request) -> Response:
        """Return all texts of a language."""
        language = language_of(request.scope)
        body = Body(json.dumps(texts_of(language), ensure_ascii=False).encode(), "application/json")
        return _response(request, body, f'"{hashlib.sha256(body.content).hexdigest()[:32]}"')

    async def openapi(self, request: Request) -> Response:
        """Return the description of the API."""
        return _response(request, Body(self._described, "application/json"), None)

    async def prometheus(self, request: Request) -> Response:
        """Return counters and the state of the lake."""

        def made() -> Body:
            try:
                status = self.lake.status(gaps=False)
            except TrailsiftError:
                status = None
            gauges = {
                "lake_readable": ("1 if the lake can be read", float(status is not None)),
                "live_readers": ("Pages that follow the commits", float(self.follower.readers)),
                "live_skipped_rows": ("Rows that live pages were not sent, of all time", float(self.follower.skipped)),
                "http_runs": ("Requests that were worked on, of all time; others had a kept answer", self.runner.runs),
                "http_requests_at_work": ("Requests that are worked on", float(self.runner.at_work)),
            }
            gauges |= self.writing.gauges()
            return Body(self.metrics.text(status, gauges).encode(), MEDIA_TYPE)

        return _response(request, await self.runner.call(made), None)

    async def health(self, request: Request) -> Response:
        """Say that the process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Say whether the lake can be read."""
        state = await self.follower.current()
        if self.follower.trouble is not None or state is None:
            return JSONResponse({"status": "the lake cannot be read"}, 503)
        return JSONResponse({"status": "ok"})

    async def static(self, request: Request) -> Response:
        """Return a file of the page."""
        asset = self._assets.get(request.path_params["path"])
        if asset is None:
            return _not_found(request, None)
        return _response(request, asset.body, asset.etag, zipped=asset.zipped)

    async def page(self, request: Request) -> Response:
        """Return the page, whichever view its path names."""
        if not self.options.page or "." in request.path_params["path"] or request.url.path.startswith("/api"):
            return _not_found(request, None)
        asset = self._assets["index.html"]
        return _response(request, asset.body, asset.etag, zipped=asset.zipped)


class _Asset:
    def __init__(self, content: bytes, media_type: str) -> None:
        self.body = Body(content, media_type)
        self.etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        self.zipped = gzip.compress(content, 9, mtime=0)


class _Api:
    """One endpoint as an ASGI application."""

    def __init__(self, server: Server, endpoint: Endpoint) -> None:
        self._server = server
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        begun = perf_counter()
        if request.method not in (self._endpoint.method, "HEAD" if self._endpoint.method == "GET" else ""):
            await _wrong_method(request, None)(scope, receive, send)
            return
        try:
            response = await self._answer(request)
        except (Gone, ClientDisconnect):
            self._server.metrics.gone += 1
            return
        except Exception as error:  # of any kind: a reader gets words, and the other requests go on
            response = problem_response(problem_of(error), scope)
        self._server.metrics.note(self._endpoint.path, response.status_code, perf_counter() - begun)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        server, endpoint = self._server, self._endpoint
        given = _given(request.query_params.multi_items())
        if endpoint.method == "POST":
            given |= _given_in(await _body(request))
        values = read(endpoint.all_params, given)
        values["lang"] = values["lang"] or language_of(request.scope)
        lake = server.in_zone(values.get("timezone"))
        format = values["format"]
        masking = mask if server.options.redact else None

        def work() -> Body:
            return encode(endpoint.run(lake, server.options, values), format, masking)

        key = None
        state = await server.follower.current() if endpoint.keeps else None
        if state is not None and not _reads_clock(values):
            # Verdicts of this page count at once, those of the command line after a moment.
            while_ = (server.changes, int(monotonic() / endpoint.keeps)) if endpoint.keeps < ALWAYS else None
            key = (endpoint.path, state, while_, tuple(sorted(values.items())))
        body, etag = await server.runner.run(request, work, key)
        server.changes += endpoint.method == "POST"
        response = _response(request, body, etag)
        if format != "json":
            name = f"{endpoint.path.replace('/', '-')}.{format}"
            response.headers["content-disposition"] = f'attachment; filename="{name}"'
        return response


def _reads_clock(values: Mapping[str, Any]) -> bool:
    """Return whether a relative time is among the values: tomorrow it means another one."""
    return any(isinstance(values.get(name), str) and "T" not in values[name] and values[name].count("-") < 2
        for name in ("since", "until"))  # fmt: skip


def _given(items: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for name, value in items:
        given.setdefault(name, []).append(value)
    return given


def _given_in(body: bytes) -> dict[str, list[str]]:
    """Return the parameters in a body of JSON."""
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UsageError("the body is not a JSON object of texts")
    return {name: [value] for name, value in found.items()}


async def _body(request: Request) -> bytes:
    """Return the body of a request. Raise UsageError if it is too long."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > MOST_BODY:
            raise UsageError(f"the body has more than {MOST_BODY:,} bytes")
    return bytes(parts)


def _response(request: Request, body: Body, etag: str | None, *, zipped: bytes | None = None) -> Response:
    """Return an answer, compressed if the reader takes that; nothing but its ETag if the reader has it."""
    headers = {"cache-control": "private, no-cache", "vary": "accept-encoding, accept-language, cookie"}
    if etag is not None:
        headers["etag"] = etag
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
    content = body.content
    if len(content) > COMPRESSED and "gzip" in request.headers.get("accept-encoding", ""):
        content = gzip.compress(content, 4, mtime=0) if zipped is None else zipped
        headers["content-encoding"] = "gzip"
    return Response(content, media_type=body.media_type, headers=headers)


def _not_found(request: Request, error: Exception | None) -> Response:
    return problem_response(Problem(404, "not_found", f"there is nothing at {request.url.path[:200]}"), request.scope)


def _wrong_method(request: Request, error: Exception | None) -> Response:
    detail = f"{request.url.path[:200]} does not take {request.method[:20]}"
    return problem_response(Problem(405, "wrong_method", detail), request.scope)


def _defect(request: Request, error: Exception) -> Response:
    return problem_response(problem_of(error), request.scope)
