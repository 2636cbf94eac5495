"""What `bench` shows: a table, and a picture."""

from __future__ import annotations

from html import escape
from math import log10
from typing import TYPE_CHECKING

from trailsift.terminal.console import console, duration, grid, plural, show, size

if TYPE_CHECKING:
    from trailsift.benchmark import BenchmarkReport, Technique


def show_gains(found: BenchmarkReport) -> None:
    """The table of gains: what was measured beside what was claimed."""
    out = console()
    rows = []
    for way in found.techniques:
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
    columns = [("way", "text"), ("time", "number"), ("faster", "number"), ("claimed", "number"), ("reads", "number")]
    columns += [("saved", "number"), ("claimed", "number"), ("Athena $", "?number"), ("answer", "text")]
    made = "generated events" if found.generated else "events"
    note = (
        f"{found.events:,} {made} in {plural(found.log_objects, 'log object')} ({size(found.log_bytes)}), "
        f"{found.cores} cores, medians of {plural(found.rounds, 'round')} in turns. Asked: S3 reads, writes and "
        f"deletes of {found.day}, {found.truth:,} events. Athena charges for 10 MB a query at least. The sampled "
        f"lake stores {found.stored_share:.1%} of the events. A stream filter that keeps what matters keeps "
        "most of what is asked."
    )
    show(out, grid(out, "The table of gains, measured", columns, rows, note))


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


def picture(found: BenchmarkReport) -> str:
    """The speed-ups as an SVG picture: a bar each on a logarithmic scale, the claim as a band over it."""
    ways = [way for way in found.techniques if way.faster != 1.0]
    most = max([50.0, *(way.faster for way in ways)])
    decades = int(log10(most)) + 1
    span = _WIDTH - _LEFT - _RIGHT
    height = _TOP + _ROW * len(ways) + 56

    def x(factor: float) -> float:
        return _LEFT + span * max(0.0, log10(max(factor, 1.0))) / decades

    made = "generated events" if found.generated else "events"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="system-ui, sans-serif" '
        f'font-size="14" role="img" aria-label="Measured gains">',
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        f'<text x="24" y="34" font-size="18" font-weight="600" fill="{_INK}">'
        "Times faster than asking the raw logs</text>",
        f'<text x="24" y="58" fill="{_SOFT}">{found.events:,} {made}, {size(found.log_bytes)} of gzip JSON, '
        f"{found.cores} cores; DuckDB on both sides</text>",
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
        f'<text x="48" y="{height - 14}" fill="{_SOFT}" font-size="13">'
        "what was claimed before anything was measured</text>"
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
        # Between bar and band where it fits, behind both where it does not.
        after = end if low - end > 9 * len(label) + 16 else max(end, high)
    parts.append(f'<text x="{after + 8:.1f}" y="{top + 19}" font-weight="600" fill="{_INK}">{label}</text>')
    return parts
