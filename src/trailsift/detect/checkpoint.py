"""Checkpoints of baselines and signals up to a day, kept in the lake, so that a run reads only what changed since.

Two checkpoints are kept, the newer one a few days old, the older one a week or more: late events of the last days are
cheap, and older ones cost no more than a full run. A checkpoint that no longer fits the lake, or is damaged, is
discarded; nothing is lost with it.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import IO, Any

import numpy as np

from trailsift import __version__
from trailsift.detect.baseline import Baseline, BaselineLimits
from trailsift.detect.detection_rules import RuleMatch
from trailsift.detect.finding import Link, Signal
from trailsift.detect.low_and_slow import LowAndSlowDetector
from trailsift.detect.stored_json import link_of, parse_json, signal_of
from trailsift.schema import FORMAT_VERSION
from trailsift.storage import Location, Storage, open_storage

_FILES = ("findings/habits.npz", "findings/habits-before.npz")
_LAST = "findings/last.json"
_FORM = 6
#: What reading a file may raise that is not what ``save`` wrote.
_DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, MemoryError, RecursionError,
    NotImplementedError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_MEMBERS = 100  # a file has some 25
_WEEK = 7  # days between the two checkpoints
#: Array in the file -> attribute of the baseline.
_ARRAYS = {
    "strange": "off_hours",
    **{
        name: name
        for name in (
            "age", "last", "with_first", "held", "common", "of", "kind", "series_last", "peaks", "keys", "keys_of",
            "shared", "shared_by", "tops", "sort", "public",
        )
    },
}  # fmt: skip


@dataclass
class State:
    """Everything learned from the days before ``before`` (days since 1970), as of commit ``seq``.

    ``totals`` are the events of each of these days: they show whether late events arrived. ``matches`` are those of
    each detection, by a hash of its SQL. ``format_version`` is that of the lake: an upgrade tells callers apart that
    were one before.
    """

    baseline: Baseline = field(default_factory=Baseline)
    low_and_slow: LowAndSlowDetector = field(default_factory=LowAndSlowDetector)
    before: int = 0
    seq: int = -1
    totals: dict[int, int] = field(default_factory=dict)
    signals: list[Signal] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    matches: dict[str, list[RuleMatch]] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


def load(lake: Location, fits: Callable[[State], bool]) -> State | None:
    """Return the newest checkpoint that still fits the lake; delete those that do not."""
    storage = open_storage(lake)
    for path in _FILES:
        state = _read(storage, path)
        if state is not None and fits(state):
            return state
        # In a read-only lake it stays, and is skipped again.
        with contextlib.suppress(OSError):
            storage.delete(path)
    return None


def save(lake: Location, state: State) -> None:
    """Store a checkpoint; do nothing if the lake is read-only."""
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
    """Return the signals and links of the last run if its input (``of``) was the same; None otherwise."""
    try:
        stored = parse_json(open_storage(lake).read(_LAST))
        if stored["of"] != [*_stamp(), of]:
            return None
        return list(map(signal_of, stored["signals"])), list(map(link_of, stored["links"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_last(lake: Location, of: str, signals: list[Signal], links: list[Link]) -> None:
    """Store what a run saw, unless the lake is read-only, so that drilling into a finding does not detect again."""
    text = json.dumps({"of": [*_stamp(), of], "signals": signals, "links": links})
    with contextlib.suppress(OSError):
        open_storage(lake).write(_LAST, text.encode())


def _stamp() -> list[Any]:
    # Values are stored as DuckDB hashes, which may differ between versions.
    return [_FORM, __version__, version("duckdb")]


def _packed(state: State) -> bytes:
    fields, arrays = _serialized(state.baseline)
    texts, series = state.low_and_slow.state()
    arrays |= {f"drip_{name}": array for name, array in series.items()}
    fields |= {
        "drip_texts": texts,
        "stamp": _stamp(),
        "before": state.before,
        "seq": state.seq,
        "format_version": state.format_version,
        "totals": list(state.totals.items()),
        "signals": state.signals,
        "links": state.links,
        "happenings": state.matches,
    }
    file = io.BytesIO()
    np.savez(file, told=np.frombuffer(json.dumps(fields).encode(), np.uint8), before=state.before, **arrays)
    return file.getvalue()


def _read(storage: Storage, path: str) -> State | None:
    try:
        with _arrays(storage, path) as file:
            fields = parse_json(file["told"].tobytes())
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
            list(map(signal_of, fields["signals"])),
            list(map(link_of, fields["links"])),
            {name: [_match(row) for row in rows] for name, rows in fields["happenings"].items()},
            fields["format_version"],
        )
    except _DAMAGE:
        return None


def _match(row: Sequence[Any]) -> RuleMatch:
    match = RuleMatch(*row)
    return match._replace(calls=tuple((str(name), int(events)) for name, events in match.calls))


def _before(storage: Storage, path: str) -> int | None:
    try:
        with _arrays(storage, path) as file:
            return int(file["before"])
    except _DAMAGE:
        return None


def _arrays(storage: Storage, path: str) -> np.lib.npyio.NpzFile:
    """Return the arrays of a file. ValueError if one is packed, or claims more values than there are bytes."""
    data = storage.read(path)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) > _MEMBERS:
            raise ValueError("it has too many arrays")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > len(data):
                raise ValueError(f"{member.filename} is packed")
            with archive.open(member) as file:
                _check_size(file, member.file_size)
    arrays: np.lib.npyio.NpzFile = np.load(io.BytesIO(data), allow_pickle=False)
    return arrays


def _check_size(file: IO[bytes], size: int) -> None:
    """Raise ValueError if an array claims more bytes than its member of the archive has."""
    form = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if form == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read_header(file)
    if kind.hasobject or kind.itemsize == 0 or math.prod(shape) * kind.itemsize > size:
        raise ValueError("an array is larger than its file")


def _serialized(baseline: Baseline) -> tuple[dict[str, Any], dict[str, Any]]:
    fields = {
        "days": baseline.days,
        "lived": baseline.caller_days,
        "names": baseline.names,
        "series": [[caller, name] for caller, name in baseline.series],
        "event_names": baseline.event_names,
        "limit": baseline.limit,
        "bounds": list(vars(baseline.limits).values()),
    }
    return fields, {name: getattr(baseline, attribute) for name, attribute in _ARRAYS.items()}


def _baseline(fields: dict[str, Any], arrays: dict[str, Any]) -> Baseline:
    baseline = Baseline(BaselineLimits(*fields["bounds"]))
    baseline.days, baseline.caller_days, baseline.limit = fields["days"], fields["lived"], fields["limit"]
    baseline.names = list(fields["names"])
    baseline.callers = {name: place for place, name in enumerate(baseline.names)}
    baseline.series = {(caller, name): place for place, (caller, name) in enumerate(fields["series"])}
    baseline.event_names = list(fields["event_names"])
    for name, array in arrays.items():
        setattr(baseline, _ARRAYS[name], array.copy())
    return baseline
