"""The output of `bench`: a table, and a chart."""

from __future__ import annotations

from html import escape
from math import log10
from typing import TYPE_CHECKING

from trailsift.terminal.console import console, duration, grid, plural, show, size

if TYPE_CHECKING:
    from trailsift.benchmark import BenchmarkReport, Technique


def show_gains(gains: BenchmarkReport) -> None:
    """Show the gains: measured beside expected."""
    out = console()
    rows = []
    for way in gains.techniques:
        faster, saved = _claimed(way)
        rows.append(
            (
                way.name,
                duration(way.seconds),
                f"{_times(way.faster)}x",
                faster,
                size(way.bytes),
                f"{way.saved:.1%}",
                saved,
                f"{way.usd:.5f}",
                _off(way),
            )
        )
    columns = [
        ("technique", "text"),
        ("time", "number"),
        ("faster", "number"),
        ("expected", "number"),
        ("reads", "number"),
    ]
    columns += [("saved", "number"), ("expected", "number"), ("Athena $", "?number"), ("answer", "text")]
    events = "generated events" if gains.generated else "events"
    note = (
        f"{gains.events:,} {events} in {plural(gains.log_objects, 'log object')} ({size(gains.log_bytes)}), "
        f"{plural(gains.cores, 'core')}, medians of {plural(gains.rounds, 'round')}. Query: S3 reads, writes and "
        f"deletes of {gains.day}, {gains.truth:,} events. Athena charges for at least 10 MB per query. The sampled "
        f"lake stores {gains.stored_share:.1%} of the events. A stream filter that keeps what matters keeps "
        "most of what this query reads."
    )
    show(out, grid(out, "Measured gains", columns, rows, note))


def _claimed(way: Technique) -> tuple[str, str]:
    if way.claim is None:
        return "", ""
    (low, high), (least, most) = way.claim
    return f"{low:g}-{high:g}x", f"{least:.0%}-{most:.0%}"


def _off(way: Technique) -> str:
    return f"{way.error:.1%} off" if way.error else "exact"


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.1f}"


_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 860, 200, 120, 38, 92
_INK, _SOFT, _BAR, _BAND = "#1f2937", "#6b7280", "#2563eb", "#f59e0b"


def picture(gains: BenchmarkReport) -> str:
    """Return the speed-ups as an SVG chart: one bar each on a logarithmic scale, the expected range as a band."""
    ways = [way for way in gains.techniques if way.faster != 1.0]
    most = max([50.0, *(way.faster for way in ways)])
    decades = int(log10(most)) + 1
    span = _WIDTH - _LEFT - _RIGHT
    height = _TOP + _ROW * len(ways) + 56

    def x(factor: float) -> float:
        return _LEFT + span * max(0.0, log10(max(factor, 1.0))) / decades

    events = "generated events" if gains.generated else "events"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="system-ui, sans-serif" '
        f'font-size="14" role="img" aria-label="Measured gains">',
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        f'<text x="24" y="34" font-size="18" font-weight="600" fill="{_INK}">'
        "Times faster than querying the raw logs (logarithmic scale)</text>",
        f'<text x="24" y="58" fill="{_SOFT}">{gains.events:,} {events}, {size(gains.log_bytes)} of gzip JSON, '
        f"{gains.cores} cores; DuckDB on both sides</text>",
    ]
    bottom = _TOP + _ROW * len(ways)
    for decade in range(decades + 1):
        at = x(10**decade)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP - 8}" y2="{bottom}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 20}" text-anchor="middle" fill="{_SOFT}">{10**decade:,}x</text>')
    for number, way in enumerate(ways):
        parts += _bar(way, _TOP + _ROW * number, x)
    parts.append(f'<rect x="24" y="{height - 22}" width="18" height="8" fill="{_BAND}" opacity="0.55"/>')
    parts.append(
        f'<text x="48" y="{height - 14}" fill="{_SOFT}" font-size="13">expected before anything was measured</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


def _bar(way: Technique, top: float, x: object) -> list[str]:
    assert callable(x)
    start, end = x(1.0), max(x(way.faster), x(1.0) + 2)
    label = f"{_times(way.faster)}x" + (f" ({_off(way)})" if way.error else "")
    parts = [
        f'<text x="{_LEFT - 12}" y="{top + 19}" text-anchor="end" fill="{_INK}">{escape(way.name)}</text>',
        f'<rect x="{start:.1f}" y="{top + 4}" width="{end - start:.1f}" height="20" rx="3" fill="{_BAR}"/>',
    ]
    after = end
    if way.claim is not None:
        low, high = x(way.claim.faster[0]), x(way.claim.faster[1])
        parts.append(
            f'<rect x="{low:.1f}" y="{top + 10}" width="{high - low:.1f}" height="8" fill="{_BAND}" opacity="0.55"/>'
        )
        # Between bar and band if it fits there, else behind both.
        after = end if low - end > 9 * len(label) + 16 else max(end, high)
    parts.append(f'<text x="{after + 8:.1f}" y="{top + 19}" font-weight="600" fill="{_INK}">{label}</text>')
    return parts
