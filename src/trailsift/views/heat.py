"""When things happened, as a picture: a row a day (or weekday), a cell an hour, darker where there was more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta

from rich.console import Console
from rich.text import Text

from trailsift.analysis.period import Period, moment
from trailsift.analysis.summary import Hour
from trailsift.views.console import unicode_fits

_BLOCKS = (" ", "░", "▒", "▓", "█")
_ASCII = (" ", ".", ":", "+", "#")
# Dark to light on a dark ground; 256-colour numbers, so that terminals without true colour agree.
_COLOURS = ("grey30", "color(24)", "color(31)", "color(38)", "color(220)")
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
#: More days than this are shown as one week.
MOST_DAYS = 31


def strip(target: Console, hours: Sequence[Hour], period: Period) -> list[Text]:
    """Events by day and hour in the period's zone; by weekday where there are many days."""
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
        return grid(target, list(_WEEKDAYS), weeks, period.zone.key)
    listed = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    labels = [f"{_WEEKDAYS[day.weekday()]} {day:%m-%d}" for day in listed]
    return grid(target, labels, [days.get(day, [0] * 24) for day in listed], period.zone.key)


def week(target: Console, counts: Sequence[Sequence[int]], period: Period) -> list[Text]:
    """Events by weekday and hour."""
    return grid(target, list(_WEEKDAYS), counts, period.zone.key)


def grid(target: Console, labels: Sequence[str], rows: Sequence[Sequence[int]], zone: str) -> list[Text]:
    """Lines of text: an axis of hours, a row for each label with its sum, and a key."""
    signs = _BLOCKS if unicode_fits(target) else _ASCII
    most = max((count for row in rows for count in row), default=0)
    indent = max(map(len, labels), default=0)
    axis = Text(" " * (indent + 1) + "".join(f"{hour:<6}" for hour in range(0, 24, 3)) + " " * 4 + "events", style="dim")
    shown = [axis]
    for label, row in zip(labels, rows, strict=True):
        line = Text(f"{label:<{indent}} ", style="dim" if not any(row) else "")
        for count in row:
            step = level(count, most)
            line.append(signs[step] * 2, style=_COLOURS[step])
        line.append(f" {sum(row):>9,}")
        shown.append(line)
    key = Text(" " * (indent + 1), style="dim")
    key.append(f"hours in {zone}; ", style="dim")
    for step in range(1, 5):
        key.append(signs[step] * 2, style=_COLOURS[step])
        key.append(f" up to {math.ceil(most * (step / 4) ** 2):,}  ", style="dim")
    shown.append(key)
    return shown


def level(count: int, most: int) -> int:
    """0 for none, else 1 to 4 by the square root, so that quiet hours still tell from empty ones."""
    return 0 if not count else max(1, math.ceil(4 * math.sqrt(count / most) - 1e-9))
