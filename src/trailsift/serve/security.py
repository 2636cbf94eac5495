"""What stands in front of every answer: the Host header, the token, changes from this page only, and headers that
leave a browser no room for what a log may hold.

- The Host header must name this server. Else another site could point its own name here (DNS rebinding) and read what
  a loopback server tells this machine's browser. Numeric addresses cannot be pointed elsewhere.
- With a token, the API answers whoever sends it as a bearer token, or has the cookie that ``POST /api/v1/session``
  gives for it. The cookie holds a digest of the token. It is never read from a URL, which logs and histories keep.
- Data is not for the pages of other sites, which could not read it but ask for much.
- Changes are made by POST only, with a header that another site can neither read nor send.
- Scripts, styles and connections are those of this server; nothing inline runs.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trailsift.serve.options import FIREHOSE, ServeOptions, is_loopback
from trailsift.serve.problems import Problem, problem_response

COOKIE = "trailsift_session"
CSRF_HEADER = "x-trailsift-csrf"
#: What anybody may have: the page and its scripts hold nothing of the lake.
_OPEN = ("/static/", "/healthz", "/readyz", "/api/v1/session", "/api/v1/texts")
#: Below these, an answer is data and needs the token; all else is the page.
_DATA = ("/api/", "/metrics", "/openapi.json")

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Guard:
    """The secrets of one server: the token, its digest for the cookie, and the value of the CSRF header."""

    def __init__(self, options: ServeOptions) -> None:
        self.options = options
        self.csrf = secrets.token_urlsafe(32)
        # A digest, so that whoever sees the cookie does not know the token; the same after a restart.
        token = (options.token or "").encode()
        self._digest = hmac.new(token, b"trailsift session, version 1", hashlib.sha256).hexdigest()

    @property
    def needs_token(self) -> bool:
        """True if a reader must know a token."""
        return self.options.token is not None

    def is_token(self, given: str) -> bool:
        """Compare a token with ours, in the same time wherever they differ."""
        return self.needs_token and hmac.compare_digest(given.encode(), (self.options.token or "").encode())

    def cookie(self) -> str:
        """Return the Set-Cookie header of a reader who knows the token."""
        secure = "; Secure" if self.options.is_secure else ""
        return f"{COOKIE}={self._digest}; Path=/; HttpOnly; SameSite=Strict{secure}"

    def knows(self, headers: Headers) -> bool:
        """Return whether a request comes from somebody who knows the token."""
        return not self.needs_token or self.has_bearer(headers) or self._has_cookie(headers)

    def has_bearer(self, headers: Headers) -> bool:
        """Return whether a request has the token as a bearer token."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(given.strip())

    def _has_cookie(self, headers: Headers) -> bool:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode(), self._digest.encode())

    def is_own_host(self, host: str) -> bool:
        """Return whether a Host header names this server."""
        name = _name(host)
        if name in _names(self.options):
            return True
        if not is_loopback(self.options.host):
            return _is_address(name)
        return _is_address(name) and is_loopback(name)

    def may_change(self, headers: Headers) -> bool:
        """Return whether a change was sent by this server's page, or by a program that knows the token."""
        if self.has_bearer(headers):
            return True
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers.get("host", ""):
            return False
        if is_from_elsewhere(headers):
            return False
        return hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), self.csrf.encode())


def is_from_elsewhere(headers: Headers) -> bool:
    """Return whether a browser says that another site's page sent a request."""
    return headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def _names(options: ServeOptions) -> Iterable[str]:
    own = {options.host.lower(), *(name.lower() for name in options.allowed_hosts)}
    return own | {"localhost"} if is_loopback(options.host) else own


def _name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower() if host.count(":") < 2 else host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class SecurityMiddleware:
    """Refuse what ``Guard`` refuses, and put the headers on every answer."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        problem = self._refused(scope)
        if problem is None:
            await self._app(scope, receive, guarded)
        else:
            await problem_response(problem, scope)(scope, receive, guarded)

    def _refused(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        path: str = scope["path"]
        if path == FIREHOSE:
            # No browser has its key: neither another site nor this page can send it.
            return None
        if not self._guard.is_own_host(headers.get("host", "")):
            return Problem(421, "wrong_host", f"this server does not answer to {headers.get('host', '')[:200]!r}")
        if path.startswith(_DATA) and not path.startswith(_OPEN) and not self._guard.knows(headers):
            return Problem(401, "token_needed", "this server answers only who knows its token")
        if path.startswith(_DATA) and is_from_elsewhere(headers) and not self._guard.has_bearer(headers):
            # It could not read the answer, but keep the server busy.
            return Problem(403, "not_from_page", "another site's page asked for this")
        changes = scope["method"] not in ("GET", "HEAD", "OPTIONS") and path != "/api/v1/session"
        if changes and not self._guard.may_change(headers):
            return Problem(403, "not_from_page", f"changes need the header {CSRF_HEADER}, or a bearer token")
        return None
