"""People's verdicts on findings: muted (harmless, like similar ones), confirmed, or muted no longer.

Kept in the lake, one line per verdict.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Literal

from trailsift.detect.callers import role_of
from trailsift.detect.finding import LOW_AND_SLOW, Finding, Signal
from trailsift.detect.stored_json import is_count, is_text, parse_json
from trailsift.errors import LakeError, UsageError
from trailsift.storage import Location, open_storage, update

_FILE = "findings/marks.jsonl"
#: A signal that grows by this factor over the muted one is reported again.
_GROWTH = 1.5

Label = Literal["mute", "confirm", "unmute"]


@dataclass(frozen=True)
class Verdict:
    """One verdict on a finding; ``signals`` are (kind, caller, value, events) of the finding's signals.

    For a low-and-slow signal, ``events`` is its daily excess over the expected amount.
    """

    id: str
    word: Label
    reason: str
    time: str
    signals: tuple[tuple[str, str | None, str, int], ...]


def marks(lake: Location) -> dict[str, Verdict]:
    """Return the latest verdict on each finding, by id. Raise LakeError if the file cannot be read."""
    storage = open_storage(lake)
    path = storage.describe(_FILE)
    verdicts: dict[str, Verdict] = {}
    number = 0
    try:
        for line in storage.read(_FILE).decode().split("\n"):
            number += 1
            if line.strip():
                verdict = _verdict(parse_json(line))
                verdicts[verdict.id] = verdict
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LakeError(f"cannot read {path}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LakeError(f"{path}, line {number}, is not a valid verdict: {error}; fix or delete that line") from error
    return verdicts


def _verdict(entry: dict[str, Any]) -> Verdict:
    """Return a stored verdict. ValueError, KeyError or TypeError if it is not one."""
    verdict = Verdict(
        entry["id"],
        entry["word"],
        entry["reason"],
        entry["time"],
        tuple((kind, caller, _current(kind, value), events) for kind, caller, value, events in entry["signals"]),
    )
    if not all(isinstance(text, str) for text in (verdict.id, verdict.word, verdict.reason, verdict.time)):
        raise ValueError("a field is not a text")
    for kind, caller, value, events in verdict.signals:
        if not (isinstance(kind, str) and is_text(caller) and isinstance(value, str) and is_count(events)):
            raise ValueError("a signal has a field of another type")
    return verdict


@cache
def _former_values() -> dict[str, dict[str, str]]:
    """Values of signals in earlier versions, by kind of signal: former value -> present value."""
    text = resources.files(__package__).joinpath("former_values.json").read_text("utf-8")
    values: dict[str, dict[str, str]] = json.loads(text)
    return values


def _current(kind: str, value: str) -> str:
    """Return the present value of a stored signal, so that a verdict outlives a renamed detection or feature."""
    former = _former_values().get(kind, {})
    if kind == "unlike_itself" and isinstance(value, str):
        return "+".join(sorted(former.get(name, name) for name in value.split("+")))
    return former.get(value, value)


def mark(lake: Location, finding: Finding, word: Label, reason: str) -> Verdict:
    """Store a verdict on a finding. Raise UsageError without a reason, LakeError if it cannot be written."""
    if not reason.strip():
        raise UsageError(f"why {word} {finding.id}? Give a --reason for whoever reads it later")
    verdict = Verdict(
        finding.id,
        word,
        reason.strip(),
        datetime.now(UTC).isoformat(timespec="seconds"),
        tuple((s.kind, s.caller, s.value, _amount(s)) for s in finding.signals),
    )
    _append(lake, verdict)
    return verdict


def unmute(lake: Location, name: str) -> Verdict:
    """Take back the mute of a finding, by its id or a part that begins it; it need not be a finding any longer.

    Raise UsageError if no muted finding or several have such an id, LakeError if it cannot be written.
    """
    muted = {id: verdict for id, verdict in marks(lake).items() if verdict.word == "mute"}
    found = [id for id in muted if name and id.startswith(name)]
    if len(found) != 1:
        listed = ", ".join((found or list(muted))[:10])
        which = (
            f"several muted findings begin with {name!r:.50}" if found else f"no muted finding has the id {name!r:.50}"
        )
        raise UsageError(f"{which}: {listed}" if listed else f"{which}, nor any other: nothing is muted in this lake")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    verdict = Verdict(found[0], "unmute", "", now, muted[found[0]].signals)
    _append(lake, verdict)
    return verdict


def _append(lake: Location, verdict: Verdict) -> None:
    storage = open_storage(lake)
    line = json.dumps(vars(verdict)) + "\n"
    try:
        # An atomic update, so that concurrent writers do not overwrite each other.
        update(storage, _FILE, lambda data: (data or b"") + line.encode())
    except OSError as error:
        raise LakeError(f"cannot write {storage.describe(_FILE)}: {error}") from error


def without_muted(signals: Iterable[Signal], verdicts: Sequence[Verdict]) -> list[Signal]:
    """Drop the signals that a mute covers: the same kind, caller and value, until they grow by half."""
    muted: dict[tuple[str, str | None, str], int] = {}
    for verdict in verdicts:
        if verdict.word == "mute":
            for kind, caller, value, events in verdict.signals:
                key = (kind, caller, value)
                muted[key] = max(events, muted.get(key, 0))
    return [s for s in signals if _amount(s) > _GROWTH * max(muted.get(key, -1) for key in _keys(s))]


def _keys(signal: Signal) -> Iterator[tuple[str, str | None, str]]:
    """Yield what verdicts call a signal: those on lakes of format version 1 have no callers without an ARN."""
    for caller in (signal.caller, role_of(signal.caller)):
        yield signal.kind, caller, signal.value


def _amount(signal: Signal) -> int:
    """Return the events (or bytes) of a signal; of a low-and-slow one, which grows while it lasts, the daily excess."""
    if signal.kind in LOW_AND_SLOW:
        _, excess, days, _ = signal.parts[0]
        return round(excess / days)
    return signal.events
