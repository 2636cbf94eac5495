"""The kinds of faults: each disturbs one command in one round, and says what became of it."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from faults.command import APPLIED, ERRORS, NAMES, PHASE, Conditions, Process, mount_read_only
from faults.damage import damage
from faults.slot import DAYS, DONE, INGESTS, TASKS, WORKERS, Cost, Slot, Task, writable

#: Exit codes of a command that met a fault: done, done with something malformed, or failed in words.
FAILED = (*DONE, 1)
KILLED = (*FAILED, -signal.SIGKILL)
EVERYTHING = tuple(TASKS)
#: A whole new interpreter in one of so many rounds that kill by the clock.
COLD = 6

Kind = Callable[[Slot, random.Random], None]


def _task(slot: Slot, draw: random.Random, names: tuple[str, ...] = EVERYTHING) -> tuple[Task, Cost]:
    """Choose a task, and put its lake in place with a reader."""
    task = TASKS[draw.choice(names)]
    slot.round.task = task.name
    slot.restore(task)
    slot.watch()
    return task, slot.costs[task.name]


def _say(slot: Slot, text: str) -> None:
    slot.round.fault = f"{slot.round.fault}; {text}" if slot.round.fault else text


def _end(slot: Slot, process: Process, allowed: tuple[int, ...] = FAILED) -> int:
    """Wait for a disturbed command, and count what became of it."""
    code = process.wait(90)
    phase = NAMES[process.shared.get(PHASE)] if code < 0 else ""
    slot.end(process, allowed)
    outcome = {0: "ended", 3: "ended", 1: "failed in words", 130: "interrupted"}.get(code, "killed")
    slot.round.seen[outcome] += 1
    if phase:
        slot.round.phases[phase] += 1
    return code


def _again(slot: Slot, task: Task, draw: random.Random, conditions: Conditions | None = None) -> None:
    """Run the same command to its end, then check everything."""
    slot.run(task.words, conditions or slot.conditions(task))
    slot.finish(task, deep=draw.random() < 0.15)
    slot.stop_watching()


# -- kills -----------------------------------------------------------------------------------------------------------


def kill_at_moment(slot: Slot, draw: random.Random) -> None:
    """Kill, terminate or interrupt the command or its group, at a moment of its run; up to three times."""
    task, cost = _task(slot, draw)
    slot.round.faults = draw.choice((1, 1, 2, 3))
    for _ in range(slot.round.faults):
        cold = task.ahead == 0 and draw.random() < 1 / COLD
        number = draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        group = draw.random() < 0.6
        # A new interpreter imports everything first, in about a second.
        moment = draw.random() * 1.1 * (cost.seconds + (1.2 if cold else 0))
        _say(slot, f"{number.name} to {'all' if group else 'the parent'} after {moment:.3f} s{', cold' * cold}")
        process = slot.start(task.words, slot.conditions(task), cold=cold)
        process.wait_until(lambda end=process.started + moment: time.monotonic() >= end, 30)  # type: ignore[misc]
        process.kill(number, group=group)
        allowed = (*FAILED, -number, *((130,) if number == signal.SIGINT else ()))
        _end(slot, process, allowed)
    _again(slot, task, draw)


def kill_at_operation(slot: Slot, draw: random.Random) -> None:
    """Kill everything before one of its file operations."""
    task, cost = _task(slot, draw)
    who = "worker" if cost.worker_operations and draw.random() < 0.3 else "parent"
    most = cost.worker_operations if who == "worker" else cost.operations
    operation = draw.randint(1, max(most, 1))
    _say(slot, f"SIGKILL before operation {operation} of {most} of the {who}")
    process = slot.start(task.words, slot.conditions(task, operation=operation, who=who, signal=int(signal.SIGKILL)))
    _end(slot, process, KILLED)
    _again(slot, task, draw)


def kill_in_transaction(slot: Slot, draw: random.Random) -> None:
    """Kill everything some milliseconds after a commit's transaction began."""
    task, _ = _task(slot, draw, (*INGESTS, "compact", "compact two days later"))
    number, delay = draw.randint(1, 3), draw.random() * 0.008
    _say(slot, f"SIGKILL {1000 * delay:.1f} ms after transaction {number} began")
    process = slot.start(task.words, slot.conditions(task))
    if process.wait_until(lambda: process.shared.get(APPLIED) >= number, 60):
        time.sleep(delay)
        process.kill(signal.SIGKILL)
    _end(slot, process, KILLED)
    _again(slot, task, draw)


def kill_worker(slot: Slot, draw: random.Random) -> None:
    """Kill one worker process: the ingest must end in words."""
    task, cost = _task(slot, draw, WORKERS)
    moment = draw.random() * cost.seconds
    number = draw.choice((signal.SIGKILL, signal.SIGTERM))
    process = slot.start(task.words, slot.conditions(task))
    _say(slot, f"{number.name} to a worker after {moment:.3f} s")
    process.wait_until(lambda: time.monotonic() >= process.started + moment and bool(process.workers()), 30)
    workers = process.workers()
    if workers:
        with suppress(ProcessLookupError):
            os.kill(draw.choice(workers), number)
    _end(slot, process)
    _again(slot, task, draw)


# -- disks -----------------------------------------------------------------------------------------------------------


def error_of_operation(slot: Slot, draw: random.Random) -> None:
    """Let some file operations of a process fail, or all from one on."""
    task, cost = _task(slot, draw)
    who = "worker" if cost.worker_operations and draw.random() < 0.3 else "parent"
    most = cost.worker_operations if who == "worker" else cost.operations
    operation, error = draw.randint(1, max(most, 1)), draw.choice(ERRORS)
    times = draw.choice((1, 1, 5, 1 << 40))
    _say(
        slot,
        f"{errno.errorcode[error]} at operation {operation} of {most} of the {who}, "
        f"{'from then on' if times > 5 else f'{times} times'}",
    )
    conditions = slot.conditions(task, operation=operation, who=who, error=error, times=times)
    _end(slot, slot.start(task.words, conditions))
    _again(slot, task, draw)


def full_disk(slot: Slot, draw: random.Random) -> None:
    """Run on a disk with little room, then make room; without a disk of our own, limit the size of files."""
    task, _ = _task(slot, draw)
    room = int(2 ** draw.uniform(0, 20))
    if slot.disk is None:
        _say(slot, f"no file longer than {room} bytes")
        _end(slot, slot.start(task.words, slot.conditions(task, file_bytes=room)))
    else:
        _say(slot, f"{room} bytes of room")
        slot.disk.resize(room)
        try:
            _end(slot, slot.start(task.words, slot.conditions(task)))
            if task.base != "none" and not task.moved:
                # Readers need no room.
                slot.run(("status",))
                slot.run(("query", "SELECT count(*) FROM events"))
        finally:
            slot.disk.resize(None)
    _again(slot, task, draw)


def long_files(slot: Slot, draw: random.Random) -> None:
    """Refuse files that are longer than a limit."""
    task, _ = _task(slot, draw)
    size = int(2 ** draw.uniform(8, 18))
    _say(slot, f"no file longer than {size} bytes")
    _end(slot, slot.start(task.words, slot.conditions(task, file_bytes=size)))
    _again(slot, task, draw)


def read_only(slot: Slot, draw: random.Random) -> None:
    """Run where the lake, or a part of it, cannot be written, from the start or from a moment on."""
    task, cost = _task(slot, draw, tuple(name for name, task in TASKS.items() if task.base != "none"))
    how = draw.choice(("mounted read-only", "0555 and 0444", "a folder of it 0555", "0555 at a moment", "no catalog"))
    _say(slot, how)
    conditions = slot.conditions(task, plain_user=True)
    folders = [slot.root, *(path for path in slot.root.rglob("*") if path.is_dir())]
    if how == "mounted read-only":
        try:
            mount_test(slot)
        except OSError:
            _say(slot, "mounting is not allowed here: 0555 instead")
            how = "0555 and 0444"
        else:
            conditions = slot.conditions(task, read_only=str(slot.root), plain_user=True)
    if how == "0555 and 0444":
        _close(slot.root)
    elif how == "a folder of it 0555":
        draw.choice(folders).chmod(0o555)
    elif how == "no catalog":
        (slot.root / "catalog.db").chmod(0o444)
    process = slot.start(task.words, conditions)
    if how == "0555 at a moment":
        moment = draw.random() * cost.seconds
        _say(slot, f"after {moment:.3f} s")
        process.wait_until(lambda: time.monotonic() >= process.started + moment, 30)
        for folder in folders:
            with suppress(FileNotFoundError):
                folder.chmod(0o555)
    code = _end(slot, process)
    if how in ("mounted read-only", "0555 and 0444") and not task.moved:
        # Reading needs no right to write.
        for words in (("status",), ("query", "SELECT count(*) FROM events"), ("detect",)):
            slot.end(slot.start(words, conditions), DONE)
        if task.words[0] != "detect" and code in DONE:
            slot.wrong(f"{task.name} succeeded in a lake that cannot be written")
    writable(slot.root)
    _again(slot, task, draw)


def mount_test(slot: Slot) -> None:
    """Raise OSError if a folder cannot be mounted read-only for one process."""
    process = slot.start(lambda _: mount_read_only(str(slot.root)))
    if process.wait(30):
        raise OSError(errno.EPERM, "mount")


def _close(root: Path) -> None:
    for path in sorted(root.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    root.chmod(0o555)


def vanish(slot: Slot, draw: random.Random) -> None:
    """Take a folder away while the command runs, and bring it back later."""
    task, cost = _task(slot, draw)
    what = draw.choice(("lake", "lake", "logs", "events", "seen", "catalog.db", "findings"))
    source = {"lake": slot.root, "logs": slot.logs / draw.choice("ab")}.get(what, slot.root / what)
    away = slot.home.parent / "away" if what != "logs" else slot.folder / "away"
    start, length = draw.random() * cost.seconds, draw.choice((0.0, 0.05, 0.3, 30.0))
    _say(slot, f"{what} away after {start:.3f} s, {'until the end' if length > 1 else f'for {length} s'}")
    process = slot.start(task.words, slot.conditions(task))
    process.wait_until(lambda: time.monotonic() >= process.started + start, 30)
    with suppress(FileNotFoundError):
        source.rename(away)
    process.wait_until(lambda: time.monotonic() >= process.started + start + length, 90)
    if process.poll() is None and length <= 1:
        _back(source, away)
    _end(slot, process)
    _back(source, away)
    _again(slot, task, draw)


def _back(source: Path, away: Path) -> None:
    """Bring a folder back. A lake that was made in its place meanwhile is put aside; files of a folder stay."""
    if not away.exists():
        return
    if source.is_dir():
        made = source.with_name("made")
        source.rename(made)
        away.rename(source)
        if not (source / "lake.json").exists():
            for path in [path for path in made.rglob("*") if path.is_file()]:
                target = source / path.relative_to(made)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        shutil.rmtree(made)
    else:
        away.rename(source)


# -- clocks and limits -----------------------------------------------------------------------------------------------


def clock_jump(slot: Slot, draw: random.Random) -> None:
    """Run with a clock that is wrong, or that jumps and comes back while the command runs."""
    task, cost = _task(slot, draw)
    ahead = draw.choice((-1, 1)) * draw.choice((3600, DAYS, 20 * DAYS, 3650 * DAYS)) + task.ahead
    if abs(ahead) > 30 * DAYS and task.base != "none":
        # By default ids are forgotten after 35 days, which is what this clock says.
        settings = slot.root / "lake.json"
        text = settings.read_text("utf-8")
        settings.write_text(text.replace("{", '{\n  "seen_days": 40000,', 1), "utf-8")
    elif abs(ahead) > 30 * DAYS:
        ahead = draw.choice((-1, 1)) * 20 * DAYS
    begin = draw.choice((0, draw.randint(1, max(cost.operations, 1))))
    length = draw.choice((1 << 40, draw.randint(1, 60)))
    _say(slot, f"{ahead / DAYS:+.2f} days from operation {begin} on" + (f", for {length}" if length < 1 << 40 else ""))
    conditions = slot.conditions(task, clock=float(ahead), clock_from=begin, clock_for=length)
    _end(slot, slot.start(task.words, conditions), DONE)
    _again(slot, task, draw)


def memory_limit(slot: Slot, draw: random.Random) -> None:
    """Allow the processes little memory beyond what they have at their start."""
    task, _ = _task(slot, draw)
    size = int(2 ** draw.uniform(18, 29))
    _say(slot, f"{size / 1e6:.1f} MB more address space")
    # DuckDB and the C++ library end the process if they get no memory for the least that they need.
    _end(slot, slot.start(task.words, slot.conditions(task, memory=size)), (*FAILED, -signal.SIGSEGV, -signal.SIGABRT))
    _again(slot, task, draw)


def few_descriptors(slot: Slot, draw: random.Random) -> None:
    """Allow the processes few open files."""
    task, _ = _task(slot, draw)
    number = draw.randint(0, 40)
    _say(slot, f"{number} more descriptors")
    _end(slot, slot.start(task.words, slot.conditions(task, descriptors=number)))
    _again(slot, task, draw)


# -- several at once, logs, damage -----------------------------------------------------------------------------------


def together(slot: Slot, draw: random.Random) -> None:
    """Run two ingests, a compaction, a detection and a query at once, and perhaps kill one of them."""
    task = TASKS["ingest more"]
    slot.round.task = "ingest, ingest, compact, detect, query"
    slot.restore(task)
    slot.watch()
    words = [
        ("ingest", "A", "B"),
        ("ingest", "B", "A", "--again"),
        ("compact", "--all"),
        ("detect",),
        ("query", "SELECT event_name, count(*) FROM events GROUP BY 1"),
    ]
    draw.shuffle(words)
    victim = draw.randrange(10)
    moment = draw.random() * 2 * slot.costs[task.name].seconds
    _say(slot, f"SIGKILL to {words[victim][0]} after {moment:.3f} s" if victim < len(words) else "at once")
    processes = [slot.start(each, slot.conditions(task)) for each in words]
    if victim < len(words):
        process = processes[victim]
        process.wait_until(lambda: time.monotonic() >= process.started + moment, 30)
        process.kill(signal.SIGKILL)
    for number, each in enumerate(processes):
        _end(slot, each, KILLED if number == victim else DONE)
    _again(slot, task, draw)


def log_objects(slot: Slot, draw: random.Random) -> None:
    """Cut, lengthen, change or remove log objects while they are read; put them back afterwards."""
    task, cost = _task(slot, draw, tuple(name for name in INGESTS if name != "ingest again"))
    paths = draw.sample(sorted(slot.logs.glob("[ab]/*")), draw.randint(1, 12))
    held = {path: (path.read_bytes(), path.stat()) for path in paths}
    moment = draw.choice((0.0, draw.random() * cost.seconds))
    how = draw.choice(("cut", "cut", "lengthened", "changed", "gone", "empty"))
    _say(slot, f"{len(paths)} log objects {how} after {moment:.3f} s")
    process = slot.start(task.words, slot.conditions(task))
    process.wait_until(lambda: time.monotonic() >= process.started + moment, 30)
    for path, (data, _) in held.items():
        if how == "cut":
            path.write_bytes(data[: draw.randrange(len(data))])
        elif how == "lengthened":
            path.write_bytes(data + draw.randbytes(draw.randint(1, 400)))
        elif how == "changed":
            path.write_bytes(b"[" + draw.randbytes(len(data)))
        elif how == "empty":
            path.write_bytes(b"")
        else:
            path.unlink()
    _end(slot, process)
    for path, (data, _) in held.items():
        # The time of the file is another one, so it is read again.
        path.write_bytes(data)
    _again(slot, task, draw)


def damaged_file(slot: Slot, draw: random.Random) -> None:
    """Damage one file of a lake, and see whether commands or ``verify`` notice."""
    damage(slot, draw)


#: (name in the table, kind, rounds of a hundred).
KINDS: tuple[tuple[str, Kind, int], ...] = (
    ("killed, terminated or interrupted at a moment", kill_at_moment, 16),
    ("killed before a file operation", kill_at_operation, 14),
    ("killed within a commit's transaction", kill_in_transaction, 7),
    ("one worker killed", kill_worker, 5),
    ("file operations that fail", error_of_operation, 13),
    ("full disk", full_disk, 7),
    ("files limited in length", long_files, 2),
    ("read-only", read_only, 5),
    ("folders that vanish and come back", vanish, 5),
    ("clock jumps", clock_jump, 5),
    ("two ingests, compaction, detection and queries at once", together, 5),
    ("damaged files of the lake", damaged_file, 10),
    ("log objects cut, lengthened, changed or gone", log_objects, 6),
    ("little memory", memory_limit, 4),
    ("few file descriptors", few_descriptors, 4),
)
