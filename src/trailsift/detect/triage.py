"""What people said of findings: muted (harmless, and so is its like) or confirmed. Kept in the lake, one line each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from trailsift.detect.finding import DRIPS, Finding, Signal
from trailsift.errors import LakeError, UsageError

_FILE = Path("findings") / "marks.jsonl"
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


def marks(lake: Path) -> dict[str, Verdict]:
    """The last word about each finding, by id. LakeError where the file cannot be read."""
    path = lake / _FILE
    if not path.exists():
        return {}
    out: dict[str, Verdict] = {}
    number = 0
    try:
        for line in path.read_text("utf-8").splitlines():
            number += 1
            if line.strip():
                one = json.loads(line)
                signals = tuple((kind, role, value, events) for kind, role, value, events in one["signals"])
                out[one["id"]] = Verdict(one["id"], one["word"], one["reason"], one["time"], signals)
    except OSError as error:
        raise LakeError(f"cannot read {path}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LakeError(f"{path}, line {number}, is no mark: {error}; mend or delete that line") from error
    return out


def mark(lake: Path, finding: Finding, word: Label, reason: str) -> Verdict:
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
    path = lake / _FILE
    line = json.dumps(vars(said), ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(exist_ok=True)
        # One write of one line: two people at once lose nothing of each other.
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise LakeError(f"cannot write {path}: {error}") from error
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
