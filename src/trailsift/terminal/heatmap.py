"""When things happened, as a heat map: one row per day (or weekday), one cell per hour, denser for more events.

The characters carry the scale, so that copied text has it, too; colours repeat it from dark to bright.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from statistics import median

from rich.console import Console
from rich.text import Text

from trailsift.analysis.summary import Hour
from trailsift.analysis.time_range import Period
from trailsift.terminal.console import unicode_fits
from trailsift.times import moment

_SHADES = (" ", "░", "▒", "▓", "█")
_ASCII = (" ", ".", ":", "+", "#")
# The sixteen standard colours follow the terminal's theme, and every terminal has them.
_COLOURS = ("bright_black", "bright_black", "blue", "cyan", "bright_white")
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
#: Periods of more days are folded into one week.
MOST_DAYS = 21


def strip(target: Console, hours: Sequence[Hour], period: Period) -> list[Text]:
    """Return events by day and hour in the period's zone; by weekday if there are many days."""
    days: dict[date, list[int]] = {}
    for hour in hours:
        local = moment(hour.hour).astimezone(period.zone)
        days.setdefault(local.date(), [0] * 24)[local.hour] += hour.events
    if not days:
        return []
    first, last = min(days), max(days)
    if (last - first).days >= MOST_DAYS:
        weeks = [[0] * 24 for _ in range(7)]
        for day, counts in days.items():
            weeks[day.weekday()] = [a + b for a, b in zip(weeks[day.weekday()], counts, strict=True)]
        number = (last - first).days // 7 + 1
        folded = f"{number:,} weeks added up by weekday, {first} to {last}, {period.zone.key}"
        return grid(target, list(_WEEKDAYS), weeks, folded)
    listed = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    labels = [f"{_WEEKDAYS[day.weekday()]} {day:%m-%d}" for day in listed]
    return grid(target, labels, [days.get(day, [0] * 24) for day in listed], period.zone.key)


def grid(target: Console, labels: Sequence[str], rows: Sequence[Sequence[int]], zone: str) -> list[Text]:
    """Return lines of text: an axis of hours, one row per label with its sum, and a key."""
    signs = _SHADES if unicode_fits(target) else _ASCII
    bounds = limits([count for row in rows for count in row if count])
    indent = max(map(len, labels), default=0)
    axis = Text(
        " " * (indent + 1) + "".join(f"{hour:<6}" for hour in range(0, 24, 3)) + " " * 4 + "events", style="dim"
    )
    shown = [axis]
    for label, row in zip(labels, rows, strict=True):
        line = Text(f"{label:<{indent}} ", style="dim" if not any(row) else "")
        for count in row:
            step = level(count, bounds)
            line.append(signs[step] * 2, style=_COLOURS[step])
        line.append(f" {sum(row):>9,}")
        shown.append(line)
    shown.append(Text(" " * (indent + 1) + zone, style="dim"))
    key = Text(" " * (indent + 1))
    for step, (before, bound) in enumerate(zip((0, *bounds), bounds, strict=False), 1):
        if bound > before:
            key.append(signs[step] * 2, style=_COLOURS[step])
            key.append(f" up to {bound:,}" + ("  " if bound < bounds[-1] else ""), style="dim")
    shown.append(key)
    return shown


def limits(counts: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the largest count of each shade. Shades follow the median hour, so that an unusual hour stands out: below
    0.6, up to 1.3, up to 2 times the median, and more."""
    middle = median(counts) if counts else 0
    most = max(counts, default=0)
    low, usual, high = (int(middle * part) for part in (0.6, 1.3, 2.0))
    return low, min(usual, most), min(high, most), most


def level(count: int, bounds: Sequence[int]) -> int:
    """Return 0 for no events, else the position (from 1) of the first bound that is not exceeded."""
    if not count:
        return 0
    return next(step for step, bound in enumerate(bounds, 1) if count <= bound)
