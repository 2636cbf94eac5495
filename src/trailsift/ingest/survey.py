"""What an ingest would read, before it reads: objects, bytes, days, and what that takes in time and requests."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from trailsift.prices import Price
from trailsift.sources.base import Found

#: What one worker process reads in a second when nothing makes it wait (bench/S3.md), and its requests in flight.
_OBJECTS, _BYTES, _IN_FLIGHT = 1000, 12e6, 32
#: Seconds that a request takes if none was timed.
_LATENCY = 0.03


@dataclass(frozen=True, slots=True)
class Survey:
    """What is to be read from one or several places. ``usd``: what the requests cost, for LIST and for GET; data
    transfer out of AWS is not in it. ``seconds`` is a rough guess."""

    source: str
    log_objects: int
    bytes: int
    log_objects_known: int
    first_day: str | None
    last_day: str | None
    accounts: tuple[str, ...]
    regions: tuple[str, ...]
    #: Folders and objects that are not fetched, by kind.
    passed_over: dict[str, int]
    list_requests: int
    seconds: float
    usd_list: float
    usd_get: float
    #: Day of the prices.
    prices_of: str
    remote: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the object printed by ``--json``."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "remote"}


def survey_of(found: Found, source: str, prices: dict[str, Price], workers: int | None = None) -> Survey:
    """Return what is to be said about what was found."""
    objects, size = found.objects, found.bytes
    processes = workers or os.cpu_count() or 1
    latency = found.latency or _LATENCY
    seconds = max(objects / _OBJECTS, size / _BYTES, objects * latency / _IN_FLIGHT if found.remote else 0) / processes
    return Survey(
        source=source,
        log_objects=objects,
        bytes=size,
        log_objects_known=found.known,
        first_day=found.first_day,
        last_day=found.last_day,
        accounts=tuple(sorted(found.accounts)),
        regions=tuple(sorted(found.regions)),
        passed_over=dict(found.passed_over),
        list_requests=found.requests,
        seconds=round(seconds, 1),
        usd_list=prices["s3_list"].of(found.requests),
        usd_get=prices["s3_get"].of(objects) if found.remote else 0.0,
        prices_of=prices["s3_get"].date,
        remote=found.remote,
    )
