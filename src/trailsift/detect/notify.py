"""Report new findings: on standard output, or to a webhook (plain JSON or Slack's format).

A finding is reported once to each destination, and again when it has grown by half. Reported findings are kept in the
lake, for each destination apart: `detect --new`, `detect --follow`, `ingest --detect` and every webhook have their own
list, so none of them swallows what another has reported. A failed delivery is retried a few times now, and again in the
next run. The URL of a webhook is a secret: it is never stored, printed or part of a message, only its digest is kept.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Literal

from trailsift.detect.finding import Finding
from trailsift.detect.stored_json import parse_json
from trailsift.detect.techniques import named
from trailsift.errors import LakeError, UsageError
from trailsift.safe_text import safe
from trailsift.storage import Location, open_storage, update

Form = Literal["json", "slack"]

_FILE = "findings/told.json"
_GROWTH = 1.5
_TRIES = 3
_TIMEOUT = 10.0  # seconds without a byte
_DEADLINE = 30.0  # seconds until the answer's head is complete, however slowly it arrives
_KEPT = 10_000  # reported findings that are remembered per destination; the newest are kept
_DESTINATIONS = 100  # that are remembered; those last used are kept
_RETRYABLE = (408, 425, 429, 500, 502, 503, 504)

#: The destination of `detect --new`.
NEW = "new"
#: What earlier versions reported, to whichever destination: it stays reported for all.
_EARLIER = "earlier"


def check_url(url: str) -> None:
    """Raise UsageError unless the URL is http or https, in the form that a request can have."""
    if not _is_valid(url):
        # The URL holds a secret, so the message does not show it.
        raise UsageError("the URL of the webhook is not valid: write https://HOST/PATH, without user name and blanks")


def _is_valid(url: str) -> bool:
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc and port != 0


def webhook_destination(url: str) -> str:
    """Return the name under which deliveries to a webhook are remembered: a digest, since the URL is a secret."""
    return "webhook:" + hashlib.sha256(b"trailsift webhook\0" + url.encode()).hexdigest()[:32]


def news(lake: Location, findings: Sequence[Finding], destination: str = NEW) -> list[Finding]:
    """Return the findings that were not reported to a destination yet, or that have grown since."""
    destinations = _reported(lake)
    reported = destinations.get(_EARLIER, {}) | destinations.get(destination, {})
    return [
        finding
        for finding in findings
        if finding.id not in reported or _size(finding) >= _GROWTH * reported[finding.id]
    ]


def alert(
    lake: Location,
    findings: Sequence[Finding],
    url: str,
    form: Form = "json",
    wait: Callable[[float], None] = time.sleep,
) -> tuple[int, list[str]]:
    """Post each finding that is news to the webhook. Return the number delivered, and what went wrong.

    Whatever the webhook answers, and whether the lake can be written or not, nothing is raised.
    """
    check_url(url)
    destination = webhook_destination(url)
    errors: list[str] = []
    delivered = 0
    for finding in news(lake, findings, destination):
        error = _post(url, body(finding, form), wait)
        if error is not None:
            errors.append(f"{finding.id} was not delivered: {error}; the next run tries again")
            break  # the webhook does not answer: trying the others would only wait
        delivered += 1
        try:
            # At once: what comes after may fail, and an alert must not be posted twice for that.
            remember(lake, [finding], destination)
        except LakeError as failure:
            if not any("posted again" in text for text in errors):
                errors.append(f"{failure}; what was posted will be posted again by the next run")
    return delivered, errors


def body(finding: Finding, form: Form) -> dict[str, Any]:
    """Return the JSON document to post for a finding. Texts of a log are harmless to a reader and to Slack's markup."""
    if form == "json":
        cleaned: dict[str, Any] = _cleaned(finding.as_dict())
        return {"finding": cleaned}
    # Slack reads &, < and > as markup (its documentation, "Formatting text for app surfaces"); the rest of its markup
    # is switched off, and so are links: an address in a user agent is not one to follow.
    title = safe(finding.title).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    techniques = f"\nMITRE ATT&amp;CK {', '.join(named(finding.techniques))}" if finding.techniques else ""
    return {
        "text": f"{finding.severity}: {title}{techniques}\ntrailsift finding {finding.id}",
        "mrkdwn": False,
        "parse": "none",
        "link_names": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, Mapping):
        return {key: _cleaned(item) for key, item in value.items()}
    return [_cleaned(item) for item in value] if isinstance(value, list | tuple) else value


def remember(lake: Location, findings: Sequence[Finding], destination: str = NEW) -> None:
    """Store that findings were reported to a destination. Raise LakeError if this cannot be written."""
    if not findings:
        return
    storage = open_storage(lake)
    path = storage.describe(_FILE)

    def add(data: bytes | None) -> bytes:
        destinations = _parse(data, path)
        # Taken out and put back, the destination comes last: the newest are kept.
        reported = destinations.pop(destination, {}) | {finding.id: _size(finding) for finding in findings}
        destinations[destination] = dict(list(reported.items())[-_KEPT:])
        earlier = destinations.pop(_EARLIER, {})
        kept = ({_EARLIER: earlier} if earlier else {}) | dict(list(destinations.items())[-_DESTINATIONS:])
        return json.dumps({"destinations": kept}).encode()

    try:
        update(storage, _FILE, add)
    except OSError as error:
        raise LakeError(f"cannot write {path}: {error.strerror or error}") from error


def _reported(lake: Location) -> dict[str, dict[str, float]]:
    storage = open_storage(lake)
    path = storage.describe(_FILE)
    try:
        return _parse(storage.read(_FILE), path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LakeError(f"cannot read {path}: {error.strerror or error}") from error


def _parse(data: bytes | None, path: str) -> dict[str, dict[str, float]]:
    """Return the sizes of reported findings by destination and id."""
    try:
        value = parse_json(data) if data is not None else {}
        destinations = value.get("destinations", {_EARLIER: value})
        return {
            str(destination): {str(name): float(size) for name, size in sizes.items()}
            for destination, sizes in destinations.items()
        }
    except (ValueError, AttributeError, TypeError, OverflowError) as error:
        raise LakeError(f"{path} is damaged: {error}; delete it, and findings are reported again") from error


def _size(finding: Finding) -> float:
    """Return the calls of the largest signal, or the megabytes of a low-and-slow one: growth is measured in these."""
    counted = [s for s in finding.signals if s.kind != "more_bytes"]
    return float(max((s.events / 1e6 if s.kind == "drip_bytes" else s.events for s in counted), default=1))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the request would go on as a GET without its document, or to a server nobody named."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        """Return None: the redirect is the answer."""


def _post(url: str, content: dict[str, Any], wait: Callable[[float], None]) -> str | None:
    """Return None if the webhook accepted the document, else the error, without the URL and without what it said."""
    data = json.dumps(content).encode()
    failure = ""
    for attempt in range(_TRIES):
        if attempt:
            wait(2.0**attempt)
        failure, again = _within_deadline(url, data)
        if not failure:
            return None
        if not again:
            break
    return failure


def _within_deadline(url: str, data: bytes) -> tuple[str, bool]:
    """Return what went wrong with one request (empty: it was accepted), and whether another may fare better."""
    outcome: list[tuple[str, bool]] = []
    # A server that sends a byte now and then keeps a connection from timing out: a thread can be left behind.
    thread = threading.Thread(target=lambda: outcome.append(_request(url, data)), daemon=True)
    thread.start()
    thread.join(_DEADLINE)
    return outcome[0] if outcome else (f"no answer within {_DEADLINE:g} s", False)


def _request(url: str, data: bytes) -> tuple[str, bool]:
    # `--webhook` accepts http and https alone, and redirects are not followed.
    request = urllib.request.Request(  # noqa: S310
        url, data, {"Content-Type": "application/json; charset=utf-8"}
    )
    # The answer's text is not read, however long it is: only its status counts.
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=_TIMEOUT) as answer:
            return ("", False) if 200 <= answer.status < 300 else (f"HTTP {answer.status}", False)
    except urllib.error.HTTPError as error:
        with error:
            redirect = ", a redirect, which is not followed" if 300 <= error.code < 400 else ""
            return f"HTTP {error.code}{redirect}", error.code in _RETRYABLE
    except urllib.error.URLError as error:
        reason = error.reason
        return (reason.strerror if isinstance(reason, OSError) else None) or str(reason), True
    except (OSError, http.client.HTTPException, ValueError) as error:
        known = error.strerror if isinstance(error, OSError) else None
        return known or _NAMES.get(type(error), "the answer is not HTTP"), True


#: Their own texts quote the answer or the URL.
_NAMES: dict[type[BaseException], str] = {
    TimeoutError: "no answer in time",
    http.client.RemoteDisconnected: "the connection was closed without an answer",
    http.client.InvalidURL: "the URL is not valid",
}
