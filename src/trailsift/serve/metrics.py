"""Counters of the server and the state of the lake in Prometheus's text format; every name begins with `trailsift_`."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from time import time

from trailsift import __version__
from trailsift.analysis.status import Status

#: Upper ends of the classes of the histogram, in seconds.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What the server counts. Used in the event loop alone."""

    def __init__(self) -> None:
        self._began = time()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._classes: dict[str, list[int]] = {}
        self._seconds: Counter[str] = Counter()
        self.gone = 0

    def note(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._requests[endpoint, status] += 1
        classes = self._classes.setdefault(endpoint, [0] * (len(BOUNDS) + 1))
        classes[bisect_left(BOUNDS, seconds)] += 1
        self._seconds[endpoint] += seconds  # type: ignore[assignment]

    def text(self, status: Status | None, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return everything. ``status``: of the lake, None if it cannot be read; ``gauges``: name -> (help, value)."""
        return "\n".join([*self._own(), *_plain(gauges), *(_of_lake(status) if status else ()), ""])

    def _own(self) -> Iterator[str]:
        yield from _head("build_info", "gauge", "The version that runs")
        yield f'trailsift_build_info{{version="{__version__}"}} 1'
        yield from _head("start_time_seconds", "gauge", "When the server was started, in seconds since 1970")
        yield f"trailsift_start_time_seconds {self._began:.3f}"
        yield from _head("http_requests_total", "counter", "Answers by endpoint and HTTP status")
        for (endpoint, code), number in sorted(self._requests.items()):
            yield f'trailsift_http_requests_total{{endpoint="{endpoint}",status="{code}"}} {number}'
        yield from _head("http_readers_gone_total", "counter", "Requests whose reader went away before the answer")
        yield f"trailsift_http_readers_gone_total {self.gone}"
        yield from _head("http_request_seconds", "histogram", "Time to the answer by endpoint")
        for endpoint, classes in sorted(self._classes.items()):
            total = 0
            for bound, number in zip((*map(str, BOUNDS), "+Inf"), classes, strict=True):
                total += number
                yield f'trailsift_http_request_seconds_bucket{{endpoint="{endpoint}",le="{bound}"}} {total}'
            yield f'trailsift_http_request_seconds_sum{{endpoint="{endpoint}"}} {self._seconds[endpoint]:.6f}'
            yield f'trailsift_http_request_seconds_count{{endpoint="{endpoint}"}} {total}'


def _head(name: str, kind: str, says: str) -> Iterable[str]:
    return f"# HELP trailsift_{name} {says}", f"# TYPE trailsift_{name} {kind}"


def _plain(gauges: Mapping[str, tuple[str, float]]) -> Iterator[str]:
    for name, (says, value) in gauges.items():
        yield from _head(name, "gauge", says)
        yield f"trailsift_{name} {value:g}"


def _of_lake(status: Status) -> Iterator[str]:
    yield from _head("lake_commit", "gauge", "Number of the newest commit")
    yield f"trailsift_lake_commit {status.seq}"
    yield from _head("lake_records_total", "counter", "Records by what became of them, over all commits")
    for name in ("stored", "duplicates", "malformed"):
        yield f'trailsift_lake_records_total{{result="{name}"}} {status.totals[name]}'
    yield f'trailsift_lake_records_total{{result="dropped"}} {sum(status.dropped.values())}'
    yield from _head("lake_reconciled", "gauge", "1 if what was read is what was stored, dropped or refused")
    yield f"trailsift_lake_reconciled {int(status.reconciled)}"
    yield from _head("lake_rows", "gauge", "Rows of each table")
    for table in status.tables:
        yield f'trailsift_lake_rows{{table="{table.name}"}} {table.rows}'
    yield from _head("lake_files", "gauge", "Data files of each table")
    for table in status.tables:
        yield f'trailsift_lake_files{{table="{table.name}"}} {table.files}'
    yield from _head("lake_bytes", "gauge", "Bytes of each table")
    for table in status.tables:
        yield f'trailsift_lake_bytes{{table="{table.name}"}} {table.bytes}'
    if status.delivery.lag is not None:
        yield from _head("lake_lag_seconds", "gauge", "Seconds since the newest delivery or event")
        yield f"trailsift_lake_lag_seconds {status.delivery.lag}"
