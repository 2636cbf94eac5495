"""Checkpoints of baselines and signals up to a day, kept in the lake, so that a run reads only what changed since.

Two checkpoints are kept, the newer one a few days old, the older one a week or more: late events of the last days are
cheap, and older ones cost no more than a full run. A checkpoint that no longer fits the lake, or is damaged, is
discarded; nothing is lost with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from trailsift import __version__
from trailsift.detect.baseline import Baseline, BaselineLimits
from trailsift.detect.detection_rules import RuleMatch
from trailsift.detect.finding import Link, Signal
from trailsift.detect.low_and_slow import LowAndSlowDetector
from trailsift.detect.multivariate import available

_FOLDER = "findings"
_FILES = ("habits.npz", "habits-before.npz")
_LAST = "last.json"
_FORM = 3
_WEEK = 7  # days between the two checkpoints
#: Array in the file -> attribute of the baseline.
_ARRAYS = {
    "strange": "off_hours",
    **{
        name: name
        for name in (
            "age", "last", "with_first", "held", "common", "of", "kind", "series_last", "peaks", "keys", "keys_of",
            "shared", "shared_by",
        )
    },
}  # fmt: skip


@dataclass
class State:
    """Everything learned from the days before ``before`` (days since 1970), as of commit ``seq``.

    ``totals`` are the events of each of these days: they show whether late events arrived. ``matches`` are those of
    each detection, by a hash of its SQL.
    """

    baseline: Baseline = field(default_factory=Baseline)
    low_and_slow: LowAndSlowDetector = field(default_factory=LowAndSlowDetector)
    before: int = 0
    seq: int = -1
    totals: dict[int, int] = field(default_factory=dict)
    signals: list[Signal] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    matches: dict[str, list[RuleMatch]] = field(default_factory=dict)


def load(lake: Path, fits: Callable[[State], bool]) -> State | None:
    """Return the newest checkpoint that still fits the lake; delete those that do not."""
    for name in _FILES:
        path = lake / _FOLDER / name
        state = _read(path)
        if state is not None and fits(state):
            return state
        _remove(path)
    return None


def save(lake: Path, state: State) -> None:
    """Store a checkpoint; do nothing if the lake is read-only."""
    newer, older = (lake / _FOLDER / name for name in _FILES)
    partial = newer.with_name(f".{newer.stem}.{os.getpid()}.npz")
    try:
        newer.parent.mkdir(exist_ok=True)
        with partial.open("wb") as handle:
            _write(handle, state)
        before = _before(older)
        held = _before(newer)
        if held is not None and (before is None or held - before >= _WEEK):
            newer.replace(older)
        partial.replace(newer)
    except OSError:
        _remove(partial)


def last(lake: Path, of: str) -> tuple[list[Signal], list[Link]] | None:
    """Return the signals and links of the last run if its input (``of``) was the same; None otherwise."""
    try:
        stored = json.loads((lake / _FOLDER / _LAST).read_text("utf-8"))
        if stored["of"] != [*_stamp(), of]:
            return None
        return [Signal(*map(_frozen, row)) for row in stored["signals"]], [Link(*row) for row in stored["links"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_last(lake: Path, of: str, signals: list[Signal], links: list[Link]) -> None:
    """Store what a run saw, unless the lake is read-only, so that drilling into a finding does not detect again."""
    path = lake / _FOLDER / _LAST
    partial = path.with_name(f".{_LAST}.{os.getpid()}")
    with contextlib.suppress(OSError):
        partial.write_text(json.dumps({"of": [*_stamp(), of], "signals": signals, "links": links}), "utf-8")
        partial.replace(path)


def _stamp() -> list[Any]:
    # Values are stored as DuckDB hashes, which may differ between versions; and the learned level is optional.
    return [_FORM, __version__, version("duckdb"), available()]


def _write(handle: Any, state: State) -> None:
    fields, arrays = _serialized(state.baseline)
    texts, series = state.low_and_slow.state()
    arrays |= {f"drip_{name}": array for name, array in series.items()}
    fields |= {
        "drip_texts": texts,
        "stamp": _stamp(),
        "before": state.before,
        "seq": state.seq,
        "totals": list(state.totals.items()),
        "signals": state.signals,
        "links": state.links,
        "happenings": state.matches,
    }
    np.savez(handle, told=np.frombuffer(json.dumps(fields).encode(), np.uint8), before=state.before, **arrays)


def _read(path: Path) -> State | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            fields = json.loads(file["told"].tobytes())
            if fields["stamp"] != _stamp():
                return None
            baseline = _baseline(fields, {name: file[name] for name in _ARRAYS})
            low_and_slow = LowAndSlowDetector.of_state(
                fields["drip_texts"], {name: file[f"drip_{name}"] for name in LowAndSlowDetector.ARRAYS}
            )
        return State(
            baseline,
            low_and_slow,
            fields["before"],
            fields["seq"],
            {int(day): int(events) for day, events in fields["totals"]},
            [Signal(*map(_frozen, row)) for row in fields["signals"]],
            [Link(*row) for row in fields["links"]],
            {name: [RuleMatch(*row) for row in rows] for name, rows in fields["happenings"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile):
        return None


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _before(path: Path) -> int | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return int(file["before"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _serialized(baseline: Baseline) -> tuple[dict[str, Any], dict[str, Any]]:
    fields = {
        "days": baseline.days,
        "lived": baseline.role_days,
        "names": baseline.names,
        "series": [[role, name] for role, name in baseline.series],
        "event_names": baseline.event_names,
        "limit": baseline.limit,
        "bounds": list(vars(baseline.limits).values()),
    }
    return fields, {name: getattr(baseline, attribute) for name, attribute in _ARRAYS.items()}


def _baseline(fields: dict[str, Any], arrays: dict[str, Any]) -> Baseline:
    baseline = Baseline(BaselineLimits(*fields["bounds"]))
    baseline.days, baseline.role_days, baseline.limit = fields["days"], fields["lived"], fields["limit"]
    baseline.names = list(fields["names"])
    baseline.roles = {name: place for place, name in enumerate(baseline.names)}
    baseline.series = {(role, name): place for place, (role, name) in enumerate(fields["series"])}
    baseline.event_names = list(fields["event_names"])
    for name, array in arrays.items():
        setattr(baseline, _ARRAYS[name], array.copy())
    return baseline


def _remove(path: Path) -> None:
    # In a read-only lake it stays, and is skipped again.
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
