"""Run commands on hostile lakes, and see what they touch: `python -m support.hostile_lakes WORK`, in the folder tests.

A lake is made once, at one place. Each variant of tests/cases/hostile_lakes.json is the same lake with something
changed; each group of commands gets a copy of it, in a process of its own. Outside of the lake lie canaries: files that
nobody may read, change or delete, a folder in which nobody may make anything, a module that nobody may import, and a
port that nobody may call.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import io
import json
import os
import re
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

from support.commands import load, run

CASES = Path(__file__).parent.parent / "cases" / "hostile_lakes.json"
SECRET = "canary-secret-5310"

QUERY = "SELECT count(*), min(event_name) FROM events"
#: Every command that reads a lake. None may write into it, except detection into the folder findings.
READING = (
    ["query", QUERY, "--no-cache"],
    ["status"],
    ["connect", "-o", "$ANSWERS/lake.duckdb", "--force"],
    ["detect"],
    ["summary"],
    ["roles"],
    ["role", "orders-etl-batch"],
    ["rejects"],
    ["finding", "1", "--records"],
    ["estimate"],
    ["suggest"],
    ["export", "-o", "$ANSWERS/export.ndjson", "--force"],
    ["rules", "try", "$RULES"],
    ["columns"],
    ["selectors", "--role", "orders", "--account", "123456789012"],
    ["connect"],
    ["query", QUERY, "--explain"],
    ["expire", "--events", "90d", "--dry-run"],
    ["expire", "--show"],
)
#: Commands that write: each group runs on a copy of its own, in this order.
WRITING = (
    [["ingest", "$LOGS", "--quiet"]],
    [["compact", "--all"]],
    [["expire", "--events", "90d"]],
    [["relocate"], ["query", QUERY, "--no-cache"], ["compact", "--all"]],
    [["mute", "1", "--reason", "x"], ["confirm", "1", "--reason", "x"]],
)
#: How many of the readers run in the short form: these, and another one in turn.
_ALWAYS = 1


def texts(case: Any, names: dict[str, str]) -> Any:
    """Return a case with its names replaced."""
    if isinstance(case, str):
        for name, value in names.items():
            case = case.replace(name, value)
        return case
    if isinstance(case, list):
        return [texts(item, names) for item in case]
    if isinstance(case, dict):
        return {texts(key, names): texts(value, names) for key, value in case.items()}
    return case


def long_of(number: int) -> bytes:
    """Return a number as Avro writes it."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def avro(schema: object, block: bytes, records: int, codec: bytes = b"null") -> str:
    """Return an Avro file of one block, in base64."""

    def text(data: bytes) -> bytes:
        return long_of(len(data)) + data

    head = long_of(2) + text(b"avro.schema") + text(json.dumps(schema).encode()) + text(b"avro.codec") + text(codec)
    sync = bytes(16)
    data = b"Obj\x01" + head + long_of(0) + sync + long_of(records) + text(block) + sync
    return base64.b64encode(data).decode()


def special(work: Path, port: int) -> dict[str, str]:
    """Return what stands for the names in the cases."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(600)) + packer.flush()
    empty = {"type": "record", "name": "r", "fields": []}
    bomb_schema = {"type": "record", "name": "r", "fields": [{"name": "x", "type": "bytes"}]}
    field = {"name": "x", "type": "bytes"}
    holds_itself = {"type": "record", "name": "r", "fields": [{"name": "x", "type": {"type": "array", "items": "r"}}]}
    fixed = {
        "type": "record",
        "name": "r",
        "fields": [{"name": "x", "type": {"type": "fixed", "name": "f", "size": 1 << 31}}],
    }
    union: dict[str, Any] = {"type": "record", "name": "r", "fields": [{"name": "x", "type": []}]}
    numbers = {"type": "record", "name": "r", "fields": [{"name": "x", "type": {"type": "array", "items": "int"}}]}
    one = {"type": "record", "name": "r", "fields": [field]}
    return {
        "$NESTED_TYPE": "list<" * 50_000,
        "$DIGITS": "9" * 1_000_000,
        "$GZIP_BOMB": base64.b64encode(gzip.compress(bytes(300 << 20), 6)).decode(),
        "$AVRO_EMPTY_RECORDS": avro(empty, b"", 1 << 60),
        "$AVRO_EMPTY": avro(one, b"", 0),
        "$AVRO_SNAPPY": avro(one, b"\xff\xff\xff\xff\x0f" * 10, 1, b"snappy"),
        "$AVRO_RECURSIVE": avro(holds_itself, b"\x02" * 100_000, 1),
        "$AVRO_FIXED": avro(fixed, b"xxxx", 1),
        "$AVRO_UNION": avro(union, b"xxxx", 1),
        "$AVRO_CLAIM": avro(one, long_of(1 << 40) + b"x", 1),
        "$AVRO_NEGATIVE": avro(numbers, long_of(-(1 << 40)) + long_of(5) + b"xxxxx", 1),
        "$AVRO_LIST": avro(numbers, long_of(1 << 40) + b"x" * 100, 1),
        "$OUT": str(work / "out"),
        "$LAKE": str(work / "lake"),
        "$PORT": str(port),
        "$NESTED": "[" * 200_000,
        "$ZEROS": "\0" * (2 << 20),
        "$AVRO_BOMB": avro(bomb_schema, bomb, 1, b"deflate"),
    }


def change(lake: Path, case: dict[str, Any], out: Path) -> None:
    """Make a lake hostile as a case says."""
    for path, content in case.get("files", {}).items():
        (lake / path).parent.mkdir(exist_ok=True)
        (lake / path).write_text(content)
    for path, content in case.get("base64", {}).items():
        (lake / path).write_bytes(base64.b64decode(content))
    for path, size in case.get("giants", {}).items():
        (lake / path).touch()
        os.truncate(lake / path, size)
    change_data(lake, case)
    change_settings(lake, case)
    if not any("catalog.db" in case.get(kind, {}) for kind in ("files", "base64", "giants")):
        with contextlib.closing(sqlite3.connect(lake / "catalog.db")) as db:
            db.execute("PRAGMA journal_mode = WAL")
            change_metadata(lake, case, db)
            change_catalog(case, db)
            db.commit()
    change_links(lake, case, out)


def change_data(lake: Path, case: dict[str, Any]) -> None:
    """Change Parquet files and files of event ids: `parquet` and `ids` say how."""
    for kind, pattern in (("parquet", "events/data/**/*.parquet"), ("ids", "seen/*.ids")):
        for path in sorted(lake.glob(pattern)) if kind in case else []:
            damage(path, case[kind])
    if "unpack" in case:
        data = npz(case["unpack"])
        for name in ("habits.npz", "habits-before.npz"):
            (lake / "findings" / name).write_bytes(data)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    footer = struct.unpack("<I", data[-8:-4])[0] if len(data) > 8 else 0
    changed = {
        "empty": b"",
        "text": b"not what it says",
        "zeros": bytes(len(data)),
        "cut": data[: len(data) // 2],
        "a byte less": data[:-1],
        "twice": data + data,
        "huge footer": data[:-8] + struct.pack("<I", 0x7FFFFFFF) + b"PAR1",
        "footer of the whole file": data[:-8] + struct.pack("<I", len(data) - 8) + b"PAR1",
        "footer of ones": data[: -8 - footer] + b"\xff" * footer + data[-8:],
        "footer of zeros": data[: -8 - footer] + bytes(footer) + data[-8:],
        "nested footer": data[: -8 - footer] + b"\x1c" * (1 << 20) + struct.pack("<I", 1 << 20) + b"PAR1",
        "lists of 2^31 in the footer": data[: -8 - footer]
        + b"\x15\x02\x19\xfc\xff\xff\xff\xff\x07"
        + struct.pack("<I", 9)
        + b"PAR1",
        "pages of ones": data[:4] + b"\xff" * (len(data) - 12 - footer) + data[-8 - footer :],
    }
    if how in changed:
        path.write_bytes(changed[how])
    elif how == "giant":
        os.truncate(path, 1 << 40)
    elif how == "other columns":
        write_parquet(path, "a", ["x"])
    elif how == "other types":
        write_parquet(path, "event_time", ["x"])
    elif how == "many rows":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table(
            {"event_name": pa.DictionaryArray.from_arrays(pa.array(bytearray(50_000_000), pa.int8()), ["x"])}
        )
        pq.write_table(table, path, compression="zstd")
    else:
        raise ValueError(how)


def write_parquet(path: Path, name: str, values: list[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: values}), path)


def npz(how: str) -> bytes:
    """Return a file of arrays as detection keeps them, but for what `how` says."""
    file = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if how == "bomb" else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", packing) as archive:
        if how == "bomb":
            with archive.open("told.npy", "w", force_zip64=True) as member:
                member.write(
                    b"\x93NUMPY\x01\x00\x76\x00"
                    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (314572800,), }".ljust(117)
                    + b"\n"
                )
                for _ in range(300):
                    member.write(bytes(1 << 20))
        else:
            header = {
                "claims": "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }",
                "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
                "no bytes": "{'descr': '|V0', 'fortran_order': False, 'shape': (1099511627776,), }",
                "nested": "{'descr': " + "[" * 50_000 + "}",
            }[how].encode()
            head = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header) + 1) + header + b"\n"
            archive.writestr("told.npy", head + b"\x80\x04cos\nsystem\n.")
    return file.getvalue()


def change_settings(lake: Path, case: dict[str, Any]) -> None:
    if "settings" in case:
        settings = json.loads((lake / "lake.json").read_text()) | case["settings"]
        (lake / "lake.json").write_text(json.dumps(settings))


def change_metadata(lake: Path, case: dict[str, Any], db: sqlite3.Connection) -> None:
    """Change the current metadata of all tables; `stale`: as another engine does, under another name."""
    pointers = db.execute("SELECT table_name, metadata_location FROM iceberg_tables").fetchall()
    for name, location in pointers:
        path = Path(location.removeprefix("file://"))
        described = json.loads(path.read_text())
        if "manifest_lists" in case:
            for snapshot in described["snapshots"]:
                content = base64.b64decode(case["manifest_lists"])
                Path(snapshot["manifest-list"].removeprefix("file://")).write_bytes(content)
        if "manifest_paths" in case:
            for avro_file in path.parent.glob("*.avro"):
                avro_file.write_bytes(redirected(avro_file.read_bytes(), case["manifest_paths"]))
        described["properties"] = {
            **case.get("properties", {}),
            **described["properties"],
            **case.get("properties", {}),
        }
        for place, value in case.get("metadata", {}).items():
            set_at(described, place.split("."), value)
        text = case.get("metadata_text") or json.dumps(described)
        if case.get("stale"):
            path = path.with_name(f"09999-{path.name.partition('-')[2]}")
            db.execute("UPDATE iceberg_tables SET metadata_location = ? WHERE table_name = ?", (f"file://{path}", name))
        path.write_text(text)


def redirected(data: bytes, targets: dict[str, str]) -> bytes:
    """Return an Avro file of one block whose texts that end like a key lead to the value, padded to the same length."""
    start = data.index(data[-16:]) + 16
    records, at = avro_long(data, start)
    size, at = avro_long(data, at)
    packed = b"deflate" in data[:start]
    block = zlib.decompress(data[at : at + size], -15) if packed else data[at : at + size]
    for end, target in targets.items():

        def moved(found: re.Match[bytes], end: bytes = end.encode(), target: bytes = target.encode()) -> bytes:
            room = len(found[0]) - len(target) - len(end)
            assert room >= 0, "the target is too long"
            return target + b"x" * room + end

        block = re.sub(rb"file://[ -~]*?" + re.escape(end.encode()), moved, block)
    if packed:
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        block = packer.compress(block) + packer.flush()
    return data[:start] + long_of(records) + long_of(len(block)) + block + data[-16:]


def avro_long(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return (number >> 1) ^ -(number & 1), at


def set_at(value: Any, place: list[str], new: object) -> None:
    if len(place) == 1:
        value[place[0]] = new
        return
    parts = value.get(place[0], []) if place[0] != "*" else value
    for part in parts if isinstance(parts, list) and place[0] == "*" else [parts]:
        set_at(part, place[1:], new)


def change_catalog(case: dict[str, Any], db: sqlite3.Connection) -> None:
    if "pointer" in case:
        (seq, logged) = db.execute("SELECT seq, locations FROM commit_log ORDER BY seq DESC LIMIT 1").fetchone()
        logged = json.dumps(json.loads(logged) | {"events": case["pointer"]})
        db.execute("UPDATE commit_log SET locations = ? WHERE seq = ?", (logged, seq))
        db.execute("UPDATE iceberg_tables SET metadata_location = ? WHERE table_name = 'events'", (case["pointer"],))
    if "removed" in case:
        table, path = case["removed"]
        (logged,) = db.execute("SELECT locations FROM commit_log ORDER BY seq DESC LIMIT 1").fetchone()
        for seq, at in ((990, "2020-01-01T00:00:00.000Z"), (999, "2026-01-01T00:00:00.000Z")):
            db.execute("INSERT INTO commit_log VALUES (?, ?, 'ingest', '{}', ?)", (seq, at, logged))
        if table == "seen":
            db.execute("INSERT INTO seen_file VALUES (?, 1, 0, 0, 1, 990)", (path,))
        else:
            columns = "table_name, path, rows, bytes, min_time, max_time, added, removed"
            db.execute(f"INSERT INTO file ({columns}) VALUES (?, ?, 1, 1, 0, 0, 1, 990)", (table, path))
    if "live" in case:
        db.execute(
            "UPDATE file SET path = ? WHERE rowid = (SELECT max(rowid) FROM file WHERE table_name = 'events')",
            (case["live"],),
        )
    for sql in case.get("sql", ()):
        db.execute(sql)


def change_links(lake: Path, case: dict[str, Any], out: Path) -> None:
    for path, target in case.get("links", {}).items():
        remove(lake / path)
        (lake / path).parent.mkdir(exist_ok=True)
        (lake / path).symlink_to(target)
    for number in range(case.get("many", 0)):
        (lake / f"a name {number}").touch()
    for path, content in case.get("replace", {}).items():
        remove(lake / path)
        (lake / path).write_text(content)
    for path in case.get("folders", ()):
        remove(lake / path)
        (lake / path).mkdir(parents=True)
    for path in case.get("pipes", ()):
        remove(lake / path)
        (lake / path).parent.mkdir(exist_ok=True)
        os.mkfifo(lake / path)
    if "link_folder" in case:
        folder = lake / case["link_folder"]
        folder.mkdir(exist_ok=True)
        shutil.copytree(folder, out / "folder")
        for name in ("thesis.txt", f"{'0' * 32}.parquet", f"{'0' * 32}.ids"):
            (out / "folder" / name).write_text(SECRET)
        shutil.rmtree(folder)
        folder.symlink_to(out / "folder")
    if "journal" in case:
        name = case["journal"].encode()
        page = (
            struct.pack(">I", 0) + name + struct.pack(">II", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")
        )
        head = bytes.fromhex("d9d505f920a163d7") + struct.pack(">IIIII", 0, 1, 1, 512, 4096)
        (lake / "catalog.db-journal").write_bytes(head.ljust(512, b"\0") + page)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fill(out: Path) -> None:
    """Make the canaries."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for name in ("canary.json", "canary.avro", "canary.parquet", "canary.ids", f"{'0' * 32}.parquet"):
        (out / name).write_text(json.dumps({"secret": SECRET}))


def age(out: Path) -> None:
    """Make everything old, so that nothing stays for being new, and a reader changes the time of access."""
    past = time.time() - 30 * 86400
    for path in (*out.rglob("*"), out):
        os.utime(path, (past - 86400, past), follow_symlinks=False)


def state(out: Path, *, read: bool) -> dict[str, tuple[Any, ...]]:
    """Return what is outside of the lake; ``read``: and when files were read last."""
    found = {}
    for path in (out, *sorted(out.rglob("*"))):
        seen = path.lstat()
        reading = (seen.st_atime_ns,) if read and path.is_file() else ()
        found[str(path)] = (seen.st_mode, seen.st_size, seen.st_mtime_ns, *reading)
    return found


class Driver:
    """Runs the variants."""

    def __init__(self, work: Path, logs: str, *, verbose: bool = False) -> None:
        self.work = work
        self.verbose = verbose
        (work / "rules.toml").write_text('[[rule]]\nname = "reads"\naction = "drop"\nwhen = { read_only = true }\n')
        self.lake, self.out, self.base = work / "lake", work / "out", work / "base"
        self.server = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.server.setblocking(False)
        self.names = special(work, self.server.getsockname()[1]) | {
            "$LOGS": logs,
            "$ANSWERS": str(work / "answers"),
            "$RULES": str(work / "rules.toml"),
        }
        # Whether reading a file shows, which depends on how its file system is mounted.
        fill(self.out)
        age(self.out)
        before = state(self.out, read=True)
        (self.out / "canary.json").read_bytes()
        self.sees_reading = state(self.out, read=True) != before

    def run(self, case: dict[str, Any], turn: int | None = None) -> list[str]:
        """Return what went wrong with a variant. ``turn``: number of the variant, for the short form."""
        named = texts(case, self.names)
        readers, writers = list(READING), list(WRITING)
        if turn is not None:
            readers = [*readers[:_ALWAYS], readers[_ALWAYS + turn % (len(readers) - _ALWAYS)]]
            writers = [WRITING[turn % len(WRITING)]]
        wrong = self._run(named, readers, "reading")
        for group in writers:
            wrong += self._run(named, group, "writing")
        return wrong

    def _run(self, case: dict[str, Any], commands: list[list[str]], kind: str) -> list[str]:
        shutil.rmtree(self.lake, ignore_errors=True)
        shutil.rmtree(self.work / "moved", ignore_errors=True)
        shutil.rmtree(self.work / "answers", ignore_errors=True)
        (self.work / "answers").mkdir()
        shutil.copytree(self.base, self.lake)
        fill(self.out)
        change(self.lake, case, self.out)
        lake = self.lake
        if commands[0] == ["relocate"]:
            lake = self.lake.rename(self.work / "moved")
        age(self.out)
        before = state(self.out, read=self.sees_reading)
        wrong = []
        for words in commands:
            command = texts(words, self.names)
            start = time.monotonic()
            code, output = run(
                [*command, *([] if words == ["columns"] else ["--lake", str(lake)])], self.work / "output"
            )
            if self.verbose:
                print(f"  {time.monotonic() - start:.2f} {code} {' '.join(words)[:40]}: {output[:300]!r}", flush=True)
            what = f"{kind}: {' '.join(words)[:60]}: "
            wrong += [what + problem for problem in self._problems(code, output)]
            after = state(self.out, read=self.sees_reading)
            if after != before:
                changed = {path for path in before | after if before.get(path) != after.get(path)}
                wrong.append(what + f"touched {sorted(changed)}")
                before = after
        return wrong

    def _problems(self, code: int, output: str) -> list[str]:
        wrong = []
        if code not in (0, 1, 2, 3):
            wrong.append(f"exit code {code}: {output[-300:]}")
        for word in ("Traceback", "unexpected ", SECRET):
            if word in output:
                wrong.append(f"{word!r} in its output: {output[-400:]}")
        if code and not output.strip():
            wrong.append("failed without a word")
        with contextlib.suppress(BlockingIOError):
            self.server.accept()
            wrong.append("called a server")
        return wrong


def _make(work: Path) -> None:
    """Make the lake, of two ingests; by other processes, because forks must not start with their threads."""

    def run(*words: str) -> None:
        command = [sys.executable, "-m", "trailsift", *words]
        subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    run("generate", "logs", "--events", "400", "--days", "1", "--seed", "7")
    logs = sorted(str(path.relative_to(work)) for path in (work / "logs").rglob("*.gz"))
    half = len(logs) // 2
    for part in (logs[:half], logs[half:-2]):
        run("ingest", *part, "--lake", "lake", "--quiet", "--no-compact")
    run("detect", "--lake", "lake")
    (work / "more").mkdir()
    shutil.copy(work / logs[-1], work / "more")


def main() -> int:
    parser = argparse.ArgumentParser(prog="support.hostile_lakes", description="Run commands on hostile lakes.")
    parser.add_argument("work", type=Path, help="a folder of its own")
    parser.add_argument("--only", action="append", default=[], help="the name of a case, or a part of it")
    parser.add_argument("--exactly", action="append", default=[], help="the name of a case")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--last", type=int, default=None, help="number of the case to end before")
    parser.add_argument("--short", action="store_true", help="some of the commands for each case, in turn")
    parser.add_argument("--verbose", action="store_true", help="print what each command said")
    options = parser.parse_args()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(work / "cache")
    (work / "canary_module.py").write_text(
        f"open({str(work / 'out' / 'ran')!r}, 'w')\nclass CanaryIO: ...\nclass CanaryProvider: ...\n"
    )
    sys.path.insert(0, str(work))
    _make(work)
    (work / "lake").rename(work / "base")
    load()
    driver = Driver(work, str(work / "more"), verbose=options.verbose)
    results = {}
    for number, case in list(enumerate(json.loads(CASES.read_text("utf-8"))))[options.first : options.last]:
        if options.only and not any(part in case["name"] for part in options.only):
            continue
        if options.exactly and case["name"] not in options.exactly:
            continue
        start = time.monotonic()
        results[case["name"]] = driver.run(case, number if options.short else None)
        print(f"{time.monotonic() - start:.1f} {case['name']}: {results[case['name']]}", flush=True)
        (work / "results.json").write_text(json.dumps({"sees_reading": driver.sees_reading, "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
