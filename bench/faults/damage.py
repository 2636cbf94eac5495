"""Damaged files of a lake: what notices, and whether anything is silently wrong."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

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
    original, rows = path.read_bytes(), _rows(slot.root)
    name = path.relative_to(slot.root).as_posix()
    how = _change_row(path, draw) if kind == ROWS else _damage_file(path, draw)
    slot.round.fault = f"{kind}: {how}"
    # Not every byte of the catalog is one of its content.
    is_needed = kind in NEEDED if path.name != "catalog.db" else rows != _rows(slot.root)
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
    elif slot.can_verify and is_needed:
        slot.wrong(f"verify does not name {name}: {how}")


#: Kinds whose every byte counts, so that ``verify`` must name them.
NEEDED = ("Parquet of events", "Parquet of summaries", "ids", "Iceberg metadata", "manifests")
ROWS = "rows of catalog.db"


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
        ROWS: [root / "catalog.db"],
        "lake.json": [root / "lake.json"],
        "findings": sorted((root / "findings").glob("*")),
    }
    order = ("Parquet of events", "Parquet of summaries", "ids", "catalog.db", ROWS, *groups)
    kind = draw.choice([name for name in order if groups[name]])
    return kind, draw.choice(sorted(groups[kind]))


def _current(paths: list[Path]) -> list[Path]:
    """Return the newest manifests of each table, which its current snapshot surely names."""
    newest: dict[Path, Path] = {}
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name)):
        if path.name.startswith("snap-"):
            newest[path.parent] = path
    return list(newest.values())


def _rows(root: Path) -> dict[str, list[tuple[Any, ...]]] | str:
    """Return all rows of the catalog but the digests themselves, or why they cannot be read.

    Without its digest, a commit is one of a version that had none.
    """
    try:
        with closing(sqlite3.connect(f"file:{root / 'catalog.db'}?immutable=1", uri=True)) as db:
            db.text_factory = bytes
            sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ('row_digest', 'file_digest')"
            tables = [name.decode() for (name,) in db.execute(sql)]
            return {name: sorted(db.execute(f'SELECT * FROM "{name}"'), key=repr) for name in sorted(tables)}
    except (sqlite3.Error, ValueError) as error:
        return str(error)


def _change_row(path: Path, draw: random.Random) -> str:
    """Change one value of one row of the catalog, or remove or double a row; return what was done."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        filled = [name for name in tables if db.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone()]
        table = draw.choice(filled)
        columns = [row[1] for row in db.execute(f'PRAGMA table_info("{table}")')]
        row = draw.choice(sorted(db.execute(f'SELECT * FROM "{table}"'), key=repr))
        here = " AND ".join(f'"{column}" IS ?' for column in columns)
        if draw.random() < 0.2:
            db.execute(f'DELETE FROM "{table}" WHERE {here}', row)
            return f"a row of {table} removed"
        place = draw.randrange(len(columns))
        value = _changed(row[place], draw)
        db.execute(f'UPDATE OR REPLACE "{table}" SET "{columns[place]}" = ? WHERE {here}', (value, *row))
        return f"{table}.{columns[place]} of a row from {row[place]!r:.40} to {value!r:.40}"


def _changed(value: Any, draw: random.Random) -> Any:
    """Return another value, of the same type if it has one."""
    if isinstance(value, int):
        return value + draw.choice((-1, 1, 1 << draw.randrange(40)))
    if not value:
        return draw.choice((0, 1, "x"))
    changed = bytearray(value if isinstance(value, bytes) else value.encode())
    changed[draw.randrange(len(changed))] = draw.choice(b"0123456789abcdefxyz/_-")
    if changed == (value if isinstance(value, bytes) else value.encode()):
        changed += b"0"
    return bytes(changed) if isinstance(value, bytes) else changed.decode("utf-8", "replace")


def _damage_file(path: Path, draw: random.Random) -> str:
    """Damage the bytes of a file, or remove it; return what was done."""
    how, data = _damaged(path.read_bytes(), draw)
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    return how


def _damaged(data: bytes, draw: random.Random) -> tuple[str, bytes | None]:
    """Return what was done, and other bytes; None for none at all."""
    how = draw.choice(("bits", "bits", "bits", "cut", "zeros", "longer", "empty", "gone"))
    if how == "gone":
        return "removed", None
    if how == "empty" and data:
        return "emptied", b""
    if not data:
        return "one byte longer", b"x"
    changed = bytearray(data)
    place = draw.randrange(len(data))
    if how == "bits":
        number = draw.randint(1, 4)
        for bit in draw.sample(range(8 * len(data)), min(number, 8 * len(data))):
            changed[bit // 8] ^= 1 << bit % 8
        return f"{number} bits flipped", bytes(changed)
    if how == "cut":
        less = draw.choice((1, 20, len(data) - place))
        return f"cut by {less} bytes", data[: max(len(data) - less, 0)]
    if how == "zeros":
        size = min(draw.randint(1, 512), len(data) - place)
        if not any(changed[place : place + size]):
            changed[place] = 255
            return f"a byte changed at {place}", bytes(changed)
        changed[place : place + size] = bytes(size)
        return f"{size} bytes zeroed at {place}", bytes(changed)
    more = draw.randbytes(draw.randint(1, 64))
    return f"{len(more)} bytes longer", data + more
