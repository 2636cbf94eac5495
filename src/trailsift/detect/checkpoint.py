"""Habits and findings up to a day, kept in the lake, so that a run reads only what changed since the last one.

Two such states are kept, the newer one some days old, the older one a week or more: late events of the last days cost
little, and later ones no more than a run over everything. A state that does not fit the lake any more, or is damaged,
is not used; nothing is lost with it.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from trailsift import __version__
from trailsift.detect.baseline import Bounds, Habits
from trailsift.detect.detection_rules import Happening
from trailsift.detect.finding import Link, Signal
from trailsift.detect.low_and_slow import Drips
from trailsift.detect.multivariate import available
from trailsift.storage import Location, Storage, open_storage

_FILES = ("findings/habits.npz", "findings/habits-before.npz")
_LAST = "findings/last.json"
_FORM = 2
_WEEK = 7  # days between the two states
_ARRAYS = ("age", "strange", "last", "with_first", "held", "common", "of", "kind", "series_last", "peaks", "keys",
    "keys_of", "shared", "shared_by")  # fmt: skip
_DRIPS = ("key", "kind", "of", "under", "last", "values", "weekdays", "run", "drips")


@dataclass
class State:
    """All that was found in the days before ``before`` (since 1970), as of commit ``seq``.

    ``totals`` are the events of each of these days: they tell whether anything came later. ``happenings`` are those of
    each detection, by what it is.
    """

    habits: Habits = field(default_factory=Habits)
    drips: Drips = field(default_factory=Drips)
    before: int = 0
    seq: int = -1
    totals: dict[int, int] = field(default_factory=dict)
    signals: list[Signal] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    happenings: dict[str, list[Happening]] = field(default_factory=dict)


def load(lake: Location, fits: Callable[[State], bool]) -> State | None:
    """The newest state that still fits the lake; those that do not are removed."""
    storage = open_storage(lake)
    for path in _FILES:
        state = _read(storage, path)
        if state is not None and fits(state):
            return state
        # In a lake that cannot be written it stays, and is passed over again.
        with contextlib.suppress(OSError):
            storage.delete(path)
    return None


def save(lake: Location, state: State) -> None:
    """Keeps a state, where the lake can be written."""
    storage = open_storage(lake)
    newer, older = _FILES
    with contextlib.suppress(OSError):
        data = _packed(state)
        before = _before(storage, older)
        held = _before(storage, newer)
        if held is not None and (before is None or held - before >= _WEEK):
            storage.write(older, storage.read(newer))
        storage.write(newer, data)


def last(lake: Location, of: str) -> tuple[list[Signal], list[Link]] | None:
    """What the last run saw, where it looked at the same (``of``) as this one."""
    try:
        told = json.loads(open_storage(lake).read(_LAST))
        if told["of"] != [*_stamp(), of]:
            return None
        return [Signal(*map(_frozen, one)) for one in told["signals"]], [Link(*one) for one in told["links"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_last(lake: Location, of: str, signals: list[Signal], links: list[Link]) -> None:
    """Keeps what a run saw, where the lake can be written: to look closer at a finding needs no second look at all."""
    text = json.dumps({"of": [*_stamp(), of], "signals": signals, "links": links})
    with contextlib.suppress(OSError):
        open_storage(lake).write(_LAST, text.encode())


def _stamp() -> list[Any]:
    # Values are known by DuckDB's hash, which another version may make in another way; and the learned level is not
    # always there.
    return [_FORM, __version__, version("duckdb"), available()]


def _packed(state: State) -> bytes:
    told, arrays = _taken_apart(state.habits)
    arrays |= {f"drip_{name}": getattr(state.drips, name) for name in _DRIPS}
    told |= {
        "drip_texts": state.drips.texts,
        "stamp": _stamp(),
        "before": state.before,
        "seq": state.seq,
        "totals": list(state.totals.items()),
        "signals": state.signals,
        "links": state.links,
        "happenings": state.happenings,
    }
    file = io.BytesIO()
    np.savez(file, told=np.frombuffer(json.dumps(told).encode(), np.uint8), before=state.before, **arrays)
    return file.getvalue()


def _read(storage: Storage, path: str) -> State | None:
    try:
        with np.load(io.BytesIO(storage.read(path)), allow_pickle=False) as file:
            told = json.loads(file["told"].tobytes())
            if told["stamp"] != _stamp():
                return None
            habits = _habits(told, {name: file[name] for name in _ARRAYS})
            drips = _drips(told, {name: file[f"drip_{name}"] for name in _DRIPS})
        return State(
            habits,
            drips,
            told["before"],
            told["seq"],
            {int(day): int(events) for day, events in told["totals"]},
            [Signal(*map(_frozen, one)) for one in told["signals"]],
            [Link(*one) for one in told["links"]],
            {name: [Happening(*one) for one in found] for name, found in told["happenings"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile):
        return None


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _before(storage: Storage, path: str) -> int | None:
    try:
        with np.load(io.BytesIO(storage.read(path)), allow_pickle=False) as file:
            return int(file["before"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _taken_apart(habits: Habits) -> tuple[dict[str, Any], dict[str, Any]]:
    told = {
        "days": habits.days,
        "lived": habits.lived,
        "names": habits.names,
        "series": [[role, name] for role, name in habits.series],
        "event_names": habits.event_names,
        "limit": habits.limit,
        "bounds": list(vars(habits.bounds).values()),
    }
    return told, {name: getattr(habits, name) for name in _ARRAYS}


def _habits(told: dict[str, Any], arrays: dict[str, Any]) -> Habits:
    habits = Habits(Bounds(*told["bounds"]))
    habits.days, habits.lived, habits.limit = told["days"], told["lived"], told["limit"]
    habits.names = list(told["names"])
    habits.roles = {name: place for place, name in enumerate(habits.names)}
    habits.series = {(role, name): place for place, (role, name) in enumerate(told["series"])}
    habits.event_names = list(told["event_names"])
    for name, array in arrays.items():
        setattr(habits, name, array.copy())
    return habits


def _drips(told: dict[str, Any], arrays: dict[str, Any]) -> Drips:
    drips = Drips()
    drips.texts = [(resource, pattern) for resource, pattern in told["drip_texts"]]
    for name, array in arrays.items():
        setattr(drips, name, array)
    return drips
