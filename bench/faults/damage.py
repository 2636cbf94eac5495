"""Damaged files of a lake: what notices, and whether anything is silently wrong."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

from faults import checks
from faults.slot import DONE, TASKS, Slot

#: Exit codes of commands in a damaged lake, and of ``verify``.
ANY = (0, 1, 3)
READING = (
    ("query", "SELECT service, count(*), count(DISTINCT user_agent) FROM events GROUP BY 1"),
    ("summary",),
    ("status",),
    ("rejects",),
    ("detect",),
)
WRITING = (("ingest", "A", "B"), ("ingest", "A", "B", "--again"), ("compact", "--all"))


def damage(slot: Slot, draw: random.Random) -> None:
    """Damage one file, run some commands, and check that nothing is wrong without a word.

    After commands that only read, the file is repaired and all must be well. After others, either the lake is right,
    or a command failed in words, or ``verify`` names damage.
    """
    task = TASKS[draw.choice(("compact", "detect", "ingest more", "relocate"))]
    slot.round.task = f"lake: {task.base}"
    slot.restore(task)
    if task.moved:
        # Not a lake that was moved: only one that is compacted and has findings.
        slot.root.rename(slot.home)
        slot.root = slot.home
    kind, path = _choose(slot.root, draw)
    original = path.read_bytes()
    how, data = _damaged(original, draw)
    name = path.relative_to(slot.root).as_posix()
    slot.round.fault = f"{kind}: {how}"
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    is_named = _verify(slot, name, "before")
    slot.watch()
    reads_only = draw.random() < 0.5
    chosen = draw.sample(READING, 2) if reads_only else [draw.choice(READING), *draw.sample(WRITING, 2)]
    codes = [slot.run(words, allowed=ANY)[0] for words in chosen]
    slot.stop_watching(compare=False)
    noticed = any(code == 1 for code in codes)
    if reads_only:
        # Reading changed nothing: with its bytes back, the lake is as it was.
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(original)
        slot.finish(task)
    else:
        noticed |= slot.run(("ingest", "A", "B"), allowed=ANY)[0] == 1
        problems = slot.compare(rules=False)
        noticed |= any(problem.startswith(("export:", "it cannot be read")) for problem in problems)
        after = _verify(slot, "", "after") if problems else False
        if problems and not (noticed or after or is_named) and slot.can_verify:
            slot.wrong(f"{kind} {how}: no command and no verify noticed, and: {problems}")
        elif problems and not (noticed or after or is_named):
            slot.round.seen["wrong without a word (there is no verify)"] += 1
        if is_named and problems and not after and slot.can_verify:
            slot.wrong(f"{kind} {how}: verify named it, {chosen} ran, and now verify is content, and: {problems}")
    slot.round.seen["commands failed in words" if noticed else "commands ended"] += 1
    if is_named:
        slot.round.seen["verify named the file"] += 1
    elif slot.can_verify and kind in NEEDED and data != original:
        slot.wrong(f"verify does not name {name}: {how}")


#: Kinds whose every byte counts, so that ``verify`` must name them.
NEEDED = ("Parquet of events", "Parquet of summaries", "ids", "Iceberg metadata")


def _verify(slot: Slot, name: str, when: str) -> bool:
    """Return whether ``verify`` names a file, or any damage."""
    if not slot.can_verify:
        return False
    code, text = slot.run(("verify",), allowed=(0, 1, 2, 3))
    if code in DONE and code == 0:
        return False
    slot.round.seen[f"verify {when}: damage"] += 1
    return not name or Path(name).name in text


def _choose(root: Path, draw: random.Random) -> tuple[str, Path]:
    """Choose a file that the newest state needs."""
    with closing(sqlite3.connect(f"file:{root / 'catalog.db'}?mode=ro", uri=True)) as db:
        live = db.execute("SELECT table_name, path FROM file WHERE removed IS NULL ORDER BY 1, 2").fetchall()
        ids = [path for (path,) in db.execute("SELECT path FROM seen_file WHERE removed IS NULL ORDER BY 1")]
        pointers = [path for (path,) in db.execute("SELECT metadata_location FROM iceberg_tables ORDER BY 1")]
    metadata = [root / Path(path).parent.parent.name / "metadata" / Path(path).name for path in pointers]
    manifests = [root / path.relative_to(root) for name in checks.TABLES for path in (root / name).rglob("*.avro")]
    groups = {
        "Parquet of events": [root / path for name, path in live if name == "events"],
        "Parquet of summaries": [root / path for name, path in live if name != "events"],
        "ids": [root / path for path in ids],
        "Iceberg metadata": metadata,
        "manifests": _current(manifests),
        "catalog.db": [root / "catalog.db"],
        "lake.json": [root / "lake.json"],
        "findings": sorted((root / "findings").glob("*")),
    }
    order = ("Parquet of events", "Parquet of summaries", "ids", "catalog.db", *groups)
    kind = draw.choice([name for name in order if groups[name]])
    return kind, draw.choice(sorted(groups[kind]))


def _current(paths: list[Path]) -> list[Path]:
    """Return the newest manifests of each table, which its current snapshot surely names."""
    newest: dict[Path, Path] = {}
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name)):
        if path.name.startswith("snap-"):
            newest[path.parent] = path
    return list(newest.values())


def _damaged(data: bytes, draw: random.Random) -> tuple[str, bytes | None]:
    how = draw.choice(("bits", "bits", "bits", "cut", "zeros", "longer", "empty", "gone"))
    if how == "gone":
        return "removed", None
    if how == "empty" or not data:
        return "emptied", b""
    changed = bytearray(data)
    place = draw.randrange(len(data))
    if how == "bits":
        number = draw.randint(1, 4)
        for _ in range(number):
            changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return f"{number} bits flipped", bytes(changed)
    if how == "cut":
        less = draw.choice((1, 20, len(data) - place))
        return f"cut by {less} bytes", data[: max(len(data) - less, 0)]
    if how == "zeros":
        size = min(draw.randint(1, 512), len(data) - place)
        changed[place : place + size] = bytes(size)
        return f"{size} bytes zeroed at {place}", bytes(changed)
    more = draw.randbytes(draw.randint(1, 64))
    return f"{len(more)} bytes longer", data + more
