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
import importlib
import io
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

CASES = Path(__file__).parent.parent / "cases" / "hostile_lakes.json"
#: Seconds that a command may take, memory in bytes that a process may have.
SECONDS = 40
MEMORY = 4 << 30
SECRET = "canary-secret-5310"

QUERY = "SELECT count(*), min(event_name) FROM events"
READING = (
    ["query", QUERY, "--no-cache"],
    ["summary"],
    ["status"],
    ["roles"],
    ["rejects"],
    ["detect"],
    ["finding", "1"],
    ["estimate"],
    ["suggest"],
    ["export", "-o", "$ANSWERS/export.ndjson"],
    ["rules", "try", "only-writes", "--lake-events"],
    ["connect"],
    ["connect", "-o", "$ANSWERS/lake.duckdb"],
)
WRITING = (
    [["ingest", "$LOGS", "--quiet"]],
    [["compact", "--all"]],
    [["relocate"], ["query", QUERY, "--no-cache"], ["compact", "--all"]],
    [["mute", "1", "--reason", "x"]],
)


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


def avro(schema: object, block: bytes, records: int, codec: bytes = b"null") -> str:
    """Return an Avro file of one block, in base64."""

    def long(number: int) -> bytes:
        number = (number << 1) ^ (number >> 63)
        out = bytearray()
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        return bytes([*out, number])

    def text(data: bytes) -> bytes:
        return long(len(data)) + data

    head = long(2) + text(b"avro.schema") + text(json.dumps(schema).encode()) + text(b"avro.codec") + text(codec)
    sync = bytes(16)
    data = b"Obj\x01" + head + long(0) + sync + long(records) + text(block) + sync
    return base64.b64encode(data).decode()


def special(work: Path, port: int) -> dict[str, str]:
    """Return what stands for the names in the cases."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(2000)) + packer.flush()
    empty = {"type": "record", "name": "r", "fields": []}
    bomb_schema = {"type": "record", "name": "r", "fields": [{"name": "x", "type": "bytes"}]}
    return {
        "$OUT": str(work / "out"),
        "$LAKE": str(work / "lake"),
        "$PORT": str(port),
        "$NESTED": "[" * 200_000,
        "$ZEROS": "\0" * (2 << 20),
        "$AVRO_EMPTY_RECORDS": avro(empty, b"", 1 << 60),
        "$AVRO_BOMB": avro(bomb_schema, bomb, 1, b"deflate"),
    }


def change(lake: Path, case: dict[str, Any], out: Path) -> None:
    """Make a lake hostile as a case says."""
    for path, content in case.get("files", {}).items():
        (lake / path).parent.mkdir(exist_ok=True)
        (lake / path).write_text(content)
    change_settings(lake, case)
    if "catalog.db" not in case.get("files", {}):
        with contextlib.closing(sqlite3.connect(lake / "catalog.db")) as db:
            db.execute("PRAGMA journal_mode = WAL")
            change_metadata(lake, case, db)
            change_catalog(case, db)
            db.commit()
    change_links(lake, case, out)


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

    def __init__(self, work: Path, logs: str) -> None:
        self.work = work
        self.lake, self.out, self.base = work / "lake", work / "out", work / "base"
        self.server = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.server.setblocking(False)
        self.names = special(work, self.server.getsockname()[1]) | {"$LOGS": logs, "$ANSWERS": str(work / "answers")}
        # Whether reading a file shows, which depends on how its file system is mounted.
        fill(self.out)
        age(self.out)
        before = state(self.out, read=True)
        (self.out / "canary.json").read_bytes()
        self.sees_reading = state(self.out, read=True) != before

    def run(self, case: dict[str, Any], turn: int | None = None) -> list[str]:
        """Return what went wrong with a variant. ``turn``: only a few of the commands, others for each number."""
        named = texts(case, self.names)
        readers, writers = list(READING), list(WRITING)
        if turn is not None:
            readers = [*READING[:1], READING[1 + turn % (len(READING) - 1)]]
            writers = [WRITING[turn % len(WRITING)]]
        wrong = self._run(named, [list(words) for words in readers], "reading")
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
            if "--lake-events" in command:
                command.remove("--lake-events")
            code, output = self._child([*command, "--lake", str(lake)])
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

    def _child(self, words: list[str]) -> tuple[int, str]:
        """Run a command in a process of its own; return its exit code (or minus the signal) and what it printed."""
        path = self.work / "output"
        process = os.fork()
        if process == 0:
            child(words, path)
        end = time.monotonic() + SECONDS
        while True:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status), path.read_text(errors="replace")
            if time.monotonic() > end:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                return -999, "took too long"
            time.sleep(0.002)


def child(words: list[str], path: Path) -> None:
    """Run the command line; never return."""
    code = 99
    try:
        output = io.TextIOWrapper(path.open("wb"), "utf-8", write_through=True)
        sys.stdout = sys.stderr = output
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        from trailsift.cli import main

        code = main(words)
        output.flush()
    except BaseException as error:
        print(f"Traceback: {type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(code)


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
    parser = argparse.ArgumentParser(prog="support.hostile_lakes")
    parser.add_argument("work", type=Path, help="a folder of its own")
    parser.add_argument("--only", help="a part of the names of the variants to run")
    parser.add_argument("--short", action="store_true", help="a few commands for each variant, others in turn")
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
    for name in ("api", "cli.app", "detect.pipeline", "ingest.coordinator", "lake.compact", "lake.iceberg", "query"):
        importlib.import_module(f"trailsift.{name}")
    from trailsift.cli.app import load_commands

    load_commands()
    driver = Driver(work, str(work / "more"))
    results = {}
    for number, case in enumerate(json.loads(CASES.read_text("utf-8"))):
        if not options.only or options.only in case["name"]:
            results[case["name"]] = driver.run(case, number if options.short else None)
    (work / "results.json").write_text(json.dumps({"sees_reading": driver.sees_reading, "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
