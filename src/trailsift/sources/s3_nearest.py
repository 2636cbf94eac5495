"""What is to be said about a prefix in which no log object was found: what is there instead, and where some are."""

from __future__ import annotations

from datetime import UTC

from trailsift.decode.names import safe_name
from trailsift.sources import cloudtrail_layout as layout
from trailsift.sources.s3_listing import Lister
from trailsift.sources.s3_walk import Walk
from trailsift.storage.s3_client import S3Url

#: LIST requests that the search for logs may take, and names that are shown.
_REQUESTS, _SHOWN = 40, 5


async def what_there_is(walk: Walk) -> str:
    """Return the message for a walk that has found no log object that is wanted."""
    place = safe_name(str(walk.url), 300)
    if walk.outside:
        return (
            f"none of the {walk.outside:,} log objects under {place} was delivered in the time asked for, or for the "
            "account and region asked for"
        )
    parts = [f"there are no CloudTrail logs under {place}{_asked_for(walk)}"]
    if walk.passed_over:
        kinds = ", ".join(f"{kind} ({number:,})" for kind, number in sorted(walk.passed_over.items())[:_SHOWN])
        parts.append(f"there are other files: {kinds}")
    parent = await _existing(walk.lister, walk.url.key)
    if parent is not None and parent[0].rstrip("/") != walk.url.key.rstrip("/"):
        names = ", ".join(safe_name(name, 60) for name in parent[1][:_SHOWN]) or "nothing"
        parts.append(f"in {safe_name(str(S3Url(walk.url.bucket, parent[0])), 300)} there are {names}")
    elif parent is not None and not parent[1] and not walk.passed_over:
        parts.append("it is empty" if not walk.url.key else "nothing is there")
    near = await _nearest(walk, parent[0] if parent else "")
    if near:
        parts.append(f"the nearest logs are under {safe_name(str(S3Url(walk.url.bucket, near)), 300)}")
    return "; ".join(parts)


def _asked_for(walk: Walk) -> str:
    wanted = walk.wanted
    words = []
    if wanted.since is not None:
        words.append(f"delivered since {wanted.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC")
    if wanted.until is not None:
        words.append(f"delivered before {wanted.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC")
    words += [f"of the account {safe_name(name, 40)}" for name in sorted(wanted.accounts)[:_SHOWN]]
    words += [f"of the region {safe_name(name, 40)}" for name in sorted(wanted.regions)[:_SHOWN]]
    return f" ({', '.join(words)})" if words else ""


async def _existing(lister: Lister, key: str) -> tuple[str, list[str]] | None:
    """Return the nearest folder above (or at) a key that holds anything, and the names in it."""
    folder = key if not key or key.endswith("/") else f"{key}/"
    while True:
        found = await lister.children(folder)
        names = [child[len(folder) :] for child in found.folders] + [
            entry.key[len(folder) :] for entry in found.objects
        ]
        if names or not folder:
            return folder, names
        folder = folder.rstrip("/").rpartition("/")[0]
        folder += "/" if folder else ""


async def _nearest(walk: Walk, start: str) -> str:
    """Return the folder with the newest logs near a place: below it, else below what is above it."""
    budget = [_REQUESTS]
    tried: set[str] = set()
    folder = start
    while True:
        found = await _newest_below(walk.lister, folder, budget, tried)
        if found or not folder or budget[0] <= 0:
            return found
        folder = folder.rstrip("/").rpartition("/")[0]
        folder += "/" if folder else ""


async def _newest_below(lister: Lister, folder: str, budget: list[int], tried: set[str]) -> str:
    """Return the last day's folder below a folder, in the first region that has one; empty if there is none."""
    place = layout.place_of(folder)
    if place.level == "other" or budget[0] <= 0 or folder in tried:
        return ""
    tried.add(folder)
    budget[0] -= 1
    found = await lister.children(folder)
    if place.level == "day":
        return folder if found.objects else ""
    dated = place.level in ("region", "year", "month")
    for child in sorted(found.folders, reverse=dated):
        near = await _newest_below(lister, child, budget, tried)
        if near:
            return near
    return ""
