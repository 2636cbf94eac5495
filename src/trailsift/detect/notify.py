"""Telling others of findings: lines on standard output, or a webhook (plain JSON, or the form of Slack).

A finding is told once, and again when it has grown by half in score or events. What was told is kept in the lake, so
that every run tells news only. A failed delivery is tried again, some times now and once more in the next run.
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
_KEPT = 10_000  # findings that are remembered, the newest
_PATIENT = (408, 425, 429, 500, 502, 503, 504)


def check_url(url: str) -> None:
    """UsageError for anything but http and https."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--webhook {url!r} is no address: write https://HOST/PATH")


def news(lake: Location, found: Sequence[Finding]) -> list[Finding]:
    """The findings that nobody was told of, or that have grown since."""
    told = _reported(lake)
    return [one for one in found if one.id not in told or _size(one) >= _GROWTH * told[one.id]]


def alert(
    lake: Location,
    found: Sequence[Finding],
    url: str,
    form: Form = "json",
    wait: Callable[[float], None] = time.sleep,
) -> tuple[int, list[str]]:
    """Posts each finding that is news. Returns how many were taken, and what went wrong with the others."""
    check_url(url)
    wrong = []
    taken = []
    for one in news(lake, found):
        trouble = _post(url, body(one, form), wait)
        if trouble is None:
            taken.append(one)
        else:
            wrong.append(f"{one.id} was not delivered: {trouble}; the next run tries again")
            break  # the address does not answer: the others would wait for it in vain
    remember(lake, taken)
    return len(taken), wrong


def body(finding: Finding, form: Form) -> dict[str, Any]:
    """What is posted of a finding."""
    if form == "json":
        return {"finding": finding.as_dict()}
    # Slack reads &, < and > as markup (its documentation, "Formatting text for app surfaces").
    title = finding.title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    techniques = f" ({', '.join(finding.techniques)})" if finding.techniques else ""
    return {"text": f"*{finding.severity}* {title}{techniques}\n`trailsift finding {finding.id}`"}


def remember(lake: Location, found: Sequence[Finding]) -> None:
    """Keeps what was told. LakeError where it cannot be written."""
    if not found:
        return
    storage = open_storage(lake)
    path = storage.describe(_FILE)

    def add(data: bytes | None) -> bytes:
        told = _parse(data, path) | {one.id: _size(one) for one in found}
        return json.dumps(dict(list(told.items())[-_KEPT:])).encode()

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
        told = json.loads(data) if data is not None else {}
        return {str(name): float(size) for name, size in told.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise LakeError(f"{path} is damaged: {error}; delete it, and findings are told once more") from error


def _size(finding: Finding) -> float:
    """What a finding grows in: the calls of its largest signal that counts calls, or the megabytes of a drip."""
    counted = [s for s in finding.signals if s.kind != "more_bytes"]
    return float(max((s.events / 1e6 if s.kind == "drip_bytes" else s.events for s in counted), default=1))


def _post(url: str, content: dict[str, Any], wait: Callable[[float], None]) -> str | None:
    """None where it was taken, else what went wrong."""
    data = json.dumps(content, ensure_ascii=False).encode()
    trouble = ""
    for attempt in range(_TRIES):
        if attempt:
            wait(2.0**attempt)
        request = urllib.request.Request(url, data, {"Content-Type": "application/json; charset=utf-8"})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT):
                return None
        except urllib.error.HTTPError as error:
            trouble = f"HTTP {error.code}"
            if error.code not in _PATIENT:
                return trouble
        except OSError as error:
            trouble = str(error)
    return trouble
