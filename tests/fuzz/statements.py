"""Statements of SQL that anybody wrote: refused in words, or answered from the tables and from nothing else."""

from __future__ import annotations

import functools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from support.lakes import DAY, event, line, make_lake, open_engine
from support.paths import TESTS
from trailsift.errors import TrailsiftError
from trailsift.query import DuckDBEngine

SECRET = "canary-7731"
_SECONDS = 3.0
_GOOD = ("events", "hourly", "range(3)", "(SELECT 1)", "unnest([1])", "hourly_summary", "json_each('{\"a\": 1}')")
_PIECES = (
    " ", "\n", "/* */", "--\n", ";", "'", '"', "(", ")", "$$", "$x$", "E'\\''", "\\", "::VARCHAR", " AS x", ", ",
    " UNION ALL ",
    " WHERE ",
    "\x00", "\u00a0", "\ufeff", "\u202e", "\u017f", "\u0130", "\u212a", "\uff52", "main.", "system.", "memory.main.",
    "lambda x: ",
    "x -> ", "[", "]", "{", "}", "*", "COLUMNS(*)", "FROM ", "SELECT ", "WITH x AS (", "1", "NULL", "?", "$1", "@",
    "#1",
)  # fmt: skip


@functools.cache
def _cases() -> dict[str, list[str]]:
    cases: dict[str, list[str]] = json.loads((TESTS / "cases" / "hostile_statements.json").read_text("utf-8"))
    return cases


@functools.cache
def _engine() -> tuple[DuckDBEngine, Path, Any]:
    folder = tempfile.TemporaryDirectory(prefix="trailsift-fuzz-")
    root = make_lake(Path(folder.name) / "lake", {"events": [[event(DAY)]], "hourly": [[line(DAY)]]})
    (root / "secret.csv").write_text(f"{SECRET}\n{SECRET}\n")
    (root / "events" / "data" / "planted.csv").write_text(f"{SECRET}\n{SECRET}\n")
    return open_engine(root, memory_limit="300MB", spill_limit="100MB"), root, folder


def draw(rng: random.Random) -> str:
    """Return a statement: an attack of the list, or harmless parts, with changes."""
    cases = _cases()
    call = rng.choice(cases["relations"] if rng.random() < 0.6 else _GOOD)
    kind = rng.random()
    if kind < 0.6:
        text = rng.choice(cases["places"]).replace("{call}", call)
    elif kind < 0.8:
        text = rng.choice(cases["expressions"]).replace("{f}", rng.choice(cases["functions"]))
    else:
        text = rng.choice(cases["statements"])[:2_000]
    if rng.random() < 0.3:
        text = rng.choice(cases["places"]).replace("{call}", f"({text})")
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(_PIECES) + text[at + rng.choice((0, 0, 1, 3)) :]
    if rng.random() < 0.3:
        text = "".join(letter.swapcase() if rng.random() < 0.5 else letter for letter in text)
    return text


def check(text: str) -> str | None:
    """Return what is wrong with the answer to a statement; None if nothing is."""
    engine, root, _ = _engine()
    before = sorted(path.name for path in root.rglob("*"))
    try:
        rows = engine.query(text.replace("{lake}", str(root)), cache=False, timeout=_SECONDS).rows()
        shown = repr(rows[:10_000])
        if SECRET in shown or "root:x:" in shown or str(root) in shown.replace(text, ""):
            return f"it read what is not a table: {shown[:200]}"
    except TrailsiftError as error:
        if not str(error):
            return "it was refused without a word"
        if SECRET in str(error):
            return f"its refusal shows what is in a file: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None if sorted(path.name for path in root.rglob("*")) == before else "it made or removed a file"
