"""Lakes that somebody else has changed: every command answers, or refuses in words, and nothing else is touched.

A change is a list that JSON can hold, so that it can be made again in another lake of the same logs.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import random
import shutil
import sqlite3
import tempfile
import zlib
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from support.commands import Commands
from support.hostile_lakes import QUERY, avro_long, long_of
from trailsift import Lake
from trailsift.generate import Options, generate

#: A change: what kind of file, which of them (a part of their number), and what is done to it.
Change = list[Any]

_READING = (
    ["query", QUERY, "--no-cache"],
    ["query", "SELECT service, count(*), max(event_time) FROM events GROUP BY 1", "--no-cache"],
    ["query", "SELECT count(*), sum(events) FROM hourly", "--no-cache"],
    ["status"],
    ["status", "--json"],
    ["summary"],
    ["roles"],
    ["rejects"],
    ["estimate"],
    ["detect"],
    ["finding", "1"],
    ["connect"],
    ["export", "-o", "$ANSWERS/export.ndjson", "--force"],
)
_WRITING = (["ingest", "$MORE", "--quiet"], ["compact", "--all"], ["relocate"], ["mute", "1", "--reason", "x"])
_KINDS = (
    "sql",
    "sql",
    "database",
    "metadata",
    "metadata",
    "manifest",
    "manifest",
    "settings",
    "findings",
    "ids",
    "data",
)
_FILES = {
    "database": "catalog.db",
    "metadata": "*/metadata/*.json",
    "manifest": "*/metadata/*.avro",
    "settings": "lake.json",
    "findings": "findings/*",
    "ids": "seen/*.ids",
    "data": "*/data/**/*.parquet",
}
_VALUES = (
    *(None, True, 0, 1, -1, 7, 1 << 31, 1 << 53, (1 << 63) - 1, -(1 << 63), 1 << 64, 10**30, 0.5, -1e308, 1e308),
    *("", "x", "events", "../out", "../../out/secret.json", "/etc/passwd", "file:///etc/passwd", "$OUT/secret.json"),
    *(
        "file://$OUT/secret.json",
        "file://$LAKE/events/data/../../../out/secret.parquet",
        "s3://bucket/x",
        "\0",
        "\ud800",
    ),
    *("file://$LAKE/lake.json", "$LAKE", "é\u202e\x1b[31m", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "a" * 5000),
    *("canary_module.CanaryIO", "{}", "[1]", '{"events": 5}', "NaN", "' OR 1=1 --", "x\n.shell touch $OUT/made"),
    *([], {}, [None], ["x"], {"a": 1}, [[[[[[]]]]]]),
)
_KEYS = ("py-io-impl", "write.data.path", "write.metadata.path", "location", "format-version", "snapshots", "x", "")
_SCHEMA = (
    "CREATE VIEW v AS SELECT 1",
    "CREATE TRIGGER t AFTER INSERT ON commit_log BEGIN DELETE FROM file; END",
    "CREATE INDEX i ON file (abs(rows))",
    "DROP TABLE {table}",
    "DELETE FROM {table}",
    "ALTER TABLE {table} RENAME TO other",
    "ALTER TABLE {table} ADD COLUMN more TEXT",
    "ALTER TABLE {table} RENAME COLUMN {column} TO other",
    "INSERT INTO {table} SELECT * FROM {table}",
    "PRAGMA user_version = 99",
)
#: Files of somebody, which no command may touch.
_STRANGE = ("notes.txt", "events/data/notes.txt", "events/metadata/notes.txt", "seen/notes.txt")


class World:
    """A lake, its copy to be changed, and what lies beside it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="trailsift-fuzz-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.lake, self.base, self.out = (self.folder / name for name in ("lake", "base", "out"))
        self.answers, self.more = self.folder / "answers", self.folder / "more"
        generate(self.folder / "logs", Options(events=300, days=1, seed=7))
        logs = sorted((self.folder / "logs").rglob("*.json.gz"))
        self.more.mkdir()
        shutil.copy(logs.pop(), self.more)
        half = len(logs) // 2
        for part in (logs[:half], logs[half:]):
            Lake(self.lake).ingest(*part, compact=False)
        Lake(self.lake).detect()
        for name in _STRANGE:
            (self.lake / name).write_text("mine")
        with closing(sqlite3.connect(self.lake / "catalog.db")) as db:
            self.columns = [
                (table, column)
                for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                for _, column, *_ in db.execute(f"PRAGMA table_info({table})").fetchall()
            ]
        self.lake.rename(self.base)
        self.out.mkdir()
        for name in ("secret.json", "secret.parquet"):
            (self.out / name).write_text('{"secret": 5310}')
        self.commands = Commands(XDG_CACHE_HOME=str(self.folder / "cache"))
        atexit.register(self.commands.close)

    def text(self, value: Any) -> Any:
        """Return a value with its names replaced."""
        if not isinstance(value, str):
            return value
        for name, path in (("$OUT", self.out), ("$LAKE", self.lake), ("$MORE", self.more), ("$ANSWERS", self.answers)):
            value = value.replace(name, str(path))
        return value


@functools.cache
def world() -> World:
    return World()


def draw(rng: random.Random) -> tuple[list[Change], list[str]]:
    """Return changes, and a command."""
    changes = [_draw(rng, rng.choice(_KINDS)) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
    return changes, rng.choice(_READING if rng.random() < 0.6 else _WRITING)


def _draw(rng: random.Random, kind: str) -> Change:
    if kind == "sql":
        table, column = rng.choice(world().columns)
        if rng.random() < 0.2:
            return [kind, rng.choice(_SCHEMA).format(table=table, column=column), None]
        value = rng.choice(_VALUES)
        if isinstance(value, list | dict):
            value = json.dumps(value)
        where = rng.choice(("", " WHERE rowid = 1", " WHERE rowid = (SELECT max(rowid) FROM {table})"))
        change = rng.choice(("?", "?", "?", "{column} || ?", "CAST(? AS BLOB)", "substr({column}, 2)", "? || {column}"))
        sql = f"UPDATE {table} SET {column} = {change}{where}"
        return [kind, sql.format(table=table, column=column), value]
    if kind in ("metadata", "settings") and rng.random() < 0.7:
        steps = [rng.random() for _ in range(rng.randrange(1, 9))]
        return [kind, rng.random(), rng.choice(("set", "set", "drop", "twice", "key")), steps, rng.choice(_VALUES)]
    way = rng.choice(
        ("flip", "flip", "cut", "splice", "zeros", "append", *(["unpacked"] * 4 if kind == "manifest" else []))
    )
    return [kind, rng.random(), way, [rng.random() for _ in range(rng.choice((1, 1, 3, 20)))], rng.randrange(256)]


def apply(changes: list[Change]) -> None:
    """Change the lake."""
    for kind, which, *rest in changes:
        if kind == "sql":
            _change_catalog(which, rest[0])
            continue
        files = [path for path in sorted(world().lake.glob(_FILES[kind])) if path.suffix != ".txt"]
        if not files:
            continue
        path = files[int(which * len(files))]
        if len(rest) == 3 and rest[0] in ("set", "drop", "twice", "key"):
            _change_json(path, *rest)
        else:
            _change_bytes(path, *rest)


def _change_catalog(sql: str, value: Any) -> None:
    value = world().text(value)
    with (
        suppress(sqlite3.Error, OverflowError, UnicodeError),
        closing(sqlite3.connect(world().lake / "catalog.db")) as db,
    ):
        db.execute(sql, (value,) if "?" in sql else ())
        db.commit()


def _change_json(path: Path, way: str, steps: list[float], value: Any) -> None:
    try:
        document = json.loads(path.read_text())
    except ValueError:
        return
    holder: Any = None
    place: Any = None
    at = document
    for step in steps:
        choices = list(at) if isinstance(at, dict) else list(range(len(at))) if isinstance(at, list) else []
        if not choices:
            break
        holder, place = at, choices[int(step * len(choices))]
        at = holder[place]
    value = world().text(value)
    if holder is None:
        document = value
    elif way == "drop":
        del holder[place]
    elif way == "key" and isinstance(holder, dict):
        holder[_KEYS[int(steps[0] * len(_KEYS))]] = value
    elif way == "twice" and isinstance(holder, list):
        holder.append(holder[place])
    else:
        holder[place] = value
    path.write_text(json.dumps(document))


def _change_bytes(path: Path, way: str, places: list[float], byte: int) -> None:
    data = path.read_bytes()
    if way == "unpacked":
        with suppress(ValueError, IndexError, zlib.error):
            path.write_bytes(_unpacked(data, places, byte))
        return
    path.write_bytes(_changed(data, way, places, byte))


def _changed(data: bytes, way: str, places: list[float], byte: int) -> bytes:
    spots = [int(place * len(data)) for place in places]
    if way == "cut":
        return data[: spots[0]]
    if way == "append":
        return data + bytes([byte]) * (spots[0] + 1)
    if way == "splice":
        return data[: spots[0]] + data[spots[-1] :]
    out = bytearray(data)
    for spot in spots if data else []:
        if way == "zeros":
            out[spot : spot + 64] = bytes(len(out[spot : spot + 64]))
        else:
            out[spot] ^= byte or 1
    return bytes(out)


def _unpacked(data: bytes, places: list[float], byte: int) -> bytes:
    """Return an Avro file with changes in its block of values."""
    start = data.index(data[-16:]) + 16
    records, at = avro_long(data, start)
    size, at = avro_long(data, at)
    packed = b"deflate" in data[:start]
    block = zlib.decompress(data[at : at + size], -15) if packed else data[at : at + size]
    block = _changed(block, "flip", places, byte)
    if packed:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        block = packer.compress(block) + packer.flush()
    return data[:start] + long_of(records) + long_of(len(block)) + block + data[-16:]


def check(changes: list[Change], command: list[str]) -> str | None:
    """Return what a command did wrong in a changed lake, or None."""
    here = world()
    for folder in (here.lake, here.answers, here.folder / "moved"):
        shutil.rmtree(folder, ignore_errors=True)
    here.answers.mkdir()
    shutil.copytree(here.base, here.lake)
    apply(changes)
    lake = here.lake
    if command == ["relocate"]:
        lake = here.lake.rename(here.folder / "moved")
    reads = command in [*map(list, _READING)]
    before, outside = _state(lake), _state(here.out)
    code, said = here.commands.run([here.text(word) for word in command] + ["--lake", str(lake)])
    after = _state(lake)
    if code not in (0, 1, 2, 3):
        return f"exit code {code}: {said[-500:]}"
    for word in ("Traceback", "unexpected ", "5310"):
        if word in said:
            return f"{word!r} in the output: {said[-800:]}"
    if code and not said.strip():
        return "failed without a word"
    if _state(here.out) != outside or (here.folder / "made").exists():
        return "something outside of the lake was touched"
    if reads:
        before, after = (
            {path: it for path, it in state.items() if "findings" not in path} for state in (before, after)
        )
        if before != after:
            return f"a reading command wrote: {sorted(p for p in before | after if before.get(p) != after.get(p))[:5]}"
    kept = [name for name in _STRANGE if name in before and before[name] != after.get(name)]
    return f"{kept} was touched" if kept else None


def _state(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in folder.rglob("*"):
        seen = path.lstat()
        found[os.fsencode(path.relative_to(folder)).decode("utf-8", "replace")] = (
            seen.st_mode,
            seen.st_size if path.is_file() else 0,
            seen.st_mtime_ns if path.is_file() else 0,
        )
    return found


def packed(changes: list[Change], command: list[str]) -> list[bytes]:
    """Return changes and a command as a case holds them."""
    return [json.dumps({"changes": changes, "command": command}).encode()]


def check_case(pieces: list[bytes]) -> str | None:
    """Return what goes wrong with a case."""
    case = json.loads(pieces[0])
    return check(case["changes"], case["command"])
