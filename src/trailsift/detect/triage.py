"""What people said of findings: muted (harmless, and so is its like) or confirmed. Kept in the lake, one line each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from trailsift.detect.finding import DRIPS, Finding, Signal
from trailsift.errors import LakeError, UsageError
from trailsift.storage import Location, open_storage, update

_FILE = "findings/marks.jsonl"
#: So much more than what was muted is news again.
_GROWTH = 1.5

Label = Literal["mute", "confirm"]


@dataclass(frozen=True)
class Verdict:
    """One word about a finding; ``signals`` are (kind, role, value, events) of what it was made of.

    Of a drip, instead of events: how much a day is over the habit."""

    id: str
    word: Label
    reason: str
    time: str
    signals: tuple[tuple[str, str | None, str, int], ...]


def marks(lake: Location) -> dict[str, Verdict]:
    """The last word about each finding, by id. LakeError where the file cannot be read."""
    storage = open_storage(lake)
    path = storage.describe(_FILE)
    out: dict[str, Verdict] = {}
    number = 0
    try:
        for line in storage.read(_FILE).decode().splitlines():
            number += 1
            if line.strip():
                one = json.loads(line)
                signals = tuple((kind, role, value, events) for kind, role, value, events in one["signals"])
                out[one["id"]] = Verdict(one["id"], one["word"], one["reason"], one["time"], signals)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LakeError(f"cannot read {path}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LakeError(f"{path}, line {number}, is no mark: {error}; mend or delete that line") from error
    return out


def mark(lake: Location, finding: Finding, word: Label, reason: str) -> Verdict:
    """Say a word about a finding, with a reason. UsageError without one; LakeError where it cannot be kept."""
    if not reason.strip():
        raise UsageError(f"why {word} {finding.id}? give --reason, for whoever reads it later")
    said = Verdict(
        finding.id,
        word,
        reason.strip(),
        datetime.now(UTC).isoformat(timespec="seconds"),
        tuple((s.kind, s.role_arn, s.value, _much(s)) for s in finding.signals),
    )
    storage = open_storage(lake)
    line = json.dumps(vars(said), ensure_ascii=False) + "\n"
    try:
        # Two people at once lose nothing of each other.
        update(storage, _FILE, lambda data: (data or b"") + line.encode())
    except OSError as error:
        raise LakeError(f"cannot write {storage.describe(_FILE)}: {error}") from error
    return said


def taught(signals: Iterable[Signal], known: Sequence[Verdict]) -> list[Signal]:
    """Signals without those that a mute has made a habit: the same again, up to half as much more."""
    habits: dict[tuple[str, str | None, str], int] = {}
    for one in known:
        if one.word == "mute":
            for kind, role, value, events in one.signals:
                key = (kind, role, value)
                habits[key] = max(events, habits.get(key, 0))
    return [s for s in signals if _much(s) > _GROWTH * habits.get((s.kind, s.role_arn, s.value), -1)]


def _much(signal: Signal) -> int:
    """What a habit is made of: calls, or bytes. A drip that goes on grows; it is the same by what a day brings."""
    if signal.kind in DRIPS:
        _, over, days, _ = signal.parts[0]
        return round(over / days)
    return signal.events
