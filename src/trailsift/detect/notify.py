"""Report new findings: on standard output, or to a webhook (plain JSON or Slack's format).

A finding is reported once, and again when it has grown by half. Reported findings are kept in the lake, so every run
reports only news. A failed delivery is retried a few times now, and again in the next run.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, Literal

from trailsift.detect.finding import Finding
from trailsift.errors import LakeError, UsageError
from trailsift.storage import Location, open_storage, update

Form = Literal["json", "slack"]

_FILE = "findings/told.json"
_GROWTH = 1.5
_TRIES = 3
_TIMEOUT = 10  # seconds
_KEPT = 10_000  # reported findings that are remembered; the newest are kept
_RETRYABLE = (408, 425, 429, 500, 502, 503, 504)


def check_url(url: str) -> None:
    """Raise UsageError unless the URL is http or https."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--webhook {url!r} is not a valid URL: write https://HOST/PATH")


def news(lake: Location, findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that were not reported yet, or that have grown since."""
    reported = _reported(lake)
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
    """Post each new finding. Return the number delivered, and an error message for the one that failed."""
    check_url(url)
    errors = []
    delivered = []
    for finding in news(lake, findings):
        error = _post(url, body(finding, form), wait)
        if error is None:
            delivered.append(finding)
        else:
            errors.append(f"{finding.id} was not delivered: {error}; the next run tries again")
            break  # the webhook does not answer: trying the others would only wait
    remember(lake, delivered)
    return len(delivered), errors


def body(finding: Finding, form: Form) -> dict[str, Any]:
    """Return the JSON document to post for a finding."""
    if form == "json":
        return {"finding": finding.as_dict()}
    # Slack reads &, < and > as markup (its documentation, "Formatting text for app surfaces").
    title = finding.title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    techniques = f" ({', '.join(finding.techniques)})" if finding.techniques else ""
    return {"text": f"*{finding.severity}* {title}{techniques}\n`trailsift finding {finding.id}`"}


def remember(lake: Location, findings: Sequence[Finding]) -> None:
    """Store that findings were reported. Raise LakeError if this cannot be written."""
    if not findings:
        return
    storage = open_storage(lake)
    path = storage.describe(_FILE)

    def add(data: bytes | None) -> bytes:
        reported = _parse(data, path) | {finding.id: _size(finding) for finding in findings}
        return json.dumps(dict(list(reported.items())[-_KEPT:])).encode()

    try:
        update(storage, _FILE, add)
    except OSError as error:
        raise LakeError(f"cannot write {path}: {error}") from error


def _reported(lake: Location) -> dict[str, float]:
    storage = open_storage(lake)
    path = storage.describe(_FILE)
    try:
        return _parse(storage.read(_FILE), path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LakeError(f"cannot read {path}: {error}") from error


def _parse(data: bytes | None, path: str) -> dict[str, float]:
    try:
        sizes = json.loads(data) if data is not None else {}
        return {str(name): float(size) for name, size in sizes.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise LakeError(f"{path} is damaged: {error}; delete it, and findings are reported again") from error


def _size(finding: Finding) -> float:
    """Return the calls of the largest signal, or the megabytes of a low-and-slow one: growth is measured in these."""
    counted = [s for s in finding.signals if s.kind != "more_bytes"]
    return float(max((s.events / 1e6 if s.kind == "drip_bytes" else s.events for s in counted), default=1))


def _post(url: str, content: dict[str, Any], wait: Callable[[float], None]) -> str | None:
    """Return None if the webhook accepted the document, else the error."""
    data = json.dumps(content, ensure_ascii=False).encode()
    failure = ""
    for attempt in range(_TRIES):
        if attempt:
            wait(2.0**attempt)
        request = urllib.request.Request(url, data, {"Content-Type": "application/json; charset=utf-8"})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT):
                return None
        except urllib.error.HTTPError as error:
            failure = f"HTTP {error.code}"
            if error.code not in _RETRYABLE:
                return failure
        except OSError as error:
            failure = str(error)
    return failure
