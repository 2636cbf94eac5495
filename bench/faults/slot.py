"""A place where rounds run one after the other: its logs, its lakes to begin with, and one round's commands."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import checks
from faults.command import (
    NO_FAULT,
    PARENT_OPERATIONS,
    STOP,
    WORKER_OPERATIONS,
    Conditions,
    Disk,
    Process,
    Shared,
    adopt,
)
from faults.world import RULES, Truth, read_truth

#: Seconds for one command: far more than it needs on a busy machine.
TIME_LIMIT = 90.0
#: Seconds in which processes must end after their parent is gone.
ORPHANS = 10.0
DONE = (0, 3)
DAYS = 86400.0


@dataclass(frozen=True)
class Task:
    """A command to disturb: its words (without the lake), the lake that it begins with, and its clock."""

    name: str
    base: str
    words: tuple[str, ...]
    rules: bool = False
    ahead: float = 0.0
    moved: bool = False


#: ``A``, ``B``: the two parts of the logs.
TASKS = {
    task.name: task
    for task in (
        Task("ingest", "none", ("ingest", "A", "B")),
        Task("ingest more", "half", ("ingest", "A", "B")),
        Task("ingest, 2 workers", "none", ("ingest", "A", "B", "--workers", "2")),
        Task("ingest more, 2 workers", "half", ("ingest", "A", "B", "--workers", "2")),
        Task("ingest with rules", "half by rules", ("ingest", "A", "B", "--rules", "RULES"), rules=True),
        Task("ingest again", "whole", ("ingest", "A", "B", "--again")),
        Task("ingest --detect", "half", ("ingest", "B", "--detect")),
        Task("compact", "whole", ("compact", "--all")),
        Task("compact two days later", "compacted", ("compact", "--all"), ahead=2 * DAYS),
        Task("relocate", "compacted", ("relocate",), moved=True),
        Task("detect", "whole", ("detect",)),
    )
}
INGESTS = tuple(name for name in TASKS if name.startswith("ingest"))
WORKERS = ("ingest, 2 workers", "ingest more, 2 workers")


@dataclass
class Cost:
    """What an undisturbed command took."""

    seconds: float
    operations: int
    worker_operations: int


@dataclass
class Round:
    """One round: what was done, what was seen, what was wrong."""

    number: int
    kind: str
    task: str = ""
    fault: str = ""
    faults: int = 1
    #: What became of the disturbed commands, and in which phases they were met.
    seen: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    looks: int = 0
    commits_seen: int = 0
    reader_errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def as_json(self) -> str:
        return json.dumps(vars(self))

    @classmethod
    def of_json(cls, text: str) -> Round:
        values = json.loads(text)
        for name in ("seen", "phases", "reader_errors"):
            values[name] = Counter(values[name])
        return cls(**values)


class Slot:
    """A folder with logs and lakes. One round at a time."""

    def __init__(self, folder: Path, logs: Path) -> None:
        adopt()
        self.folder = folder
        self.logs = folder / "logs"
        shutil.copytree(logs, self.logs)
        self._bases = folder / "bases"
        self._bases.mkdir()
        (folder / "rules.toml").write_text(RULES, "utf-8")
        disk = folder / "disk"
        disk.mkdir()
        self.disk: Disk | None = None
        with contextlib.suppress(OSError):
            self.disk = Disk(disk, 1 << 30)
        self.home = disk / "lake"
        self.root = self.home
        self.truth: Truth = read_truth(self.logs)
        self.round = Round(0, "set-up")
        self.costs: dict[str, Cost] = {}
        self.clean: dict[bool, checks.Contents] = {}
        self.can_verify = "verify" in _commands()
        self._count = 0
        self._reader: tuple[Process, Path] | None = None

    # -- commands ----------------------------------------------------------------------------------------------------

    def words(self, words: Sequence[str]) -> list[str]:
        """Return a command's words with paths and the lake."""
        names = {"A": str(self.logs / "a"), "B": str(self.logs / "b"), "RULES": str(self.folder / "rules.toml")}
        full = [names.get(word, word) for word in words]
        full += ["--lake", str(self.root)]
        if words[0] in ("ingest", "compact"):
            full.append("--quiet")
        if words[0] == "ingest":
            full.append("--no-compact")
        return full

    def start(
        self, words: Sequence[str] | Callable[[Shared], None], conditions: Conditions = NO_FAULT, *, cold: bool = False
    ) -> Process:
        """Start a command."""
        self._count += 1
        place = self.folder / "output" / f"{self.round.number}-{self._count}"
        place.parent.mkdir(exist_ok=True)
        run = words if callable(words) else self.words(words)
        return Process(run, place, conditions, cold=cold)

    def end(self, process: Process, allowed: Sequence[int] = DONE, *, seconds: float = TIME_LIMIT) -> int:
        """Wait for the end of a command and check how it ended."""
        code = process.wait(seconds)
        name = " ".join(process.words[:1]) or "checks"
        if process.hung:
            self.wrong(f"{name} was still running after {seconds:.0f} s: {process.errors[-1500:]}")
        else:
            for problem in checks.check_output(process.errors, code, allowed):
                self.wrong(f"{name}: {problem}")
        if process.survivors(ORPHANS):
            self.wrong(f"{name}: its worker processes did not end within {ORPHANS:.0f} s")
        process.shared.close()
        return code

    def run(
        self, words: Sequence[str], conditions: Conditions = NO_FAULT, allowed: Sequence[int] = DONE
    ) -> tuple[int, str]:
        """Run a command to its end; return its exit code and output."""
        process = self.start(words, conditions)
        code = self.end(process, allowed)
        return code, process.out.read_text("utf-8", "replace") + process.errors

    def wrong(self, text: str) -> None:
        """Note a violation."""
        self.round.problems.append(text)

    def conditions(self, task: Task, **more: Any) -> Conditions:
        """Return a task's conditions, with a fault."""
        return Conditions(**{"root": str(self.root), "clock": task.ahead, **more})

    # -- lakes -------------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Make the lakes that rounds begin with, and measure each task undisturbed."""
        for name, steps in (
            ("half", [("ingest", "A")]),
            ("whole", [("ingest", "B")]),
            ("compacted", [("compact", "--all"), ("detect",), ("detect", "--full-refresh")]),
        ):
            for step in steps:
                self.run(step)
            self._keep(name)
        self.clean[False] = self._clean("a lake that nothing disturbed", rules=False)
        self.empty()
        self.run(("ingest", "A", "--rules", "RULES"))
        self._keep("half by rules")
        self.run(("ingest", "B", "--rules", "RULES"))
        self.clean[True] = self._clean("a lake by rules that nothing disturbed", rules=True)
        for task in TASKS.values():
            self.restore(task)
            process = self.start(task.words, self.conditions(task))
            code = process.wait(TIME_LIMIT)
            operations = (process.shared.get(PARENT_OPERATIONS), process.shared.get(WORKER_OPERATIONS))
            self.costs[task.name] = Cost(process.seconds, *operations)
            if code not in DONE:
                self.wrong(f"undisturbed, {task.name} ended with {code}: {process.errors[-400:]}")
        if self.round.problems:
            raise SystemExit("undisturbed lakes are wrong: " + "; ".join(self.round.problems))

    def _clean(self, what: str, *, rules: bool) -> checks.Contents:
        target = self.folder / "clean.json"
        process = self.start(lambda _: _write(target, vars(checks.read_contents(self.root))))
        self.end(process, (0,))
        contents = checks.Contents(**json.loads(target.read_text("utf-8")))
        self.clean[rules] = contents
        for problem in self.compare(rules=rules):
            self.wrong(f"{what}: {problem}")
        return contents

    def _keep(self, name: str) -> None:
        shutil.copytree(self.root, self._bases / name)

    def empty(self) -> None:
        """Remove the lake."""
        self.root = self.home
        for path in self.home.parent.iterdir():
            writable(path)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def restore(self, task: Task) -> None:
        """Put the lake in place that a task begins with."""
        self.empty()
        if task.moved:
            self.root = self.home.with_name("moved")
        if task.base != "none":
            shutil.copytree(self._bases / task.base, self.root)

    # -- what must hold ----------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Start a reader in the background."""
        target = self.folder / "looks.json"
        target.unlink(missing_ok=True)
        self._reader = self.start(checks.watch(self.root, target)), target

    def stop_watching(self, *, compare: bool = True) -> None:
        """Stop the reader and check what it saw."""
        if self._reader is None:
            return
        (process, target), self._reader = self._reader, None
        process.shared.set(STOP, 1)
        process.words = ["reader"]
        self.end(process, (0,), seconds=time.monotonic() - process.started + 30)
        if not target.exists():
            return
        looks = json.loads(target.read_text("utf-8"))
        self.round.looks += looks["looks"]
        self.round.commits_seen += len(looks["seen"])
        self.round.reader_errors.update(looks["errors"])
        if compare:
            self.round.problems += checks.check_looks(self.root, looks["seen"])

    def finish(self, task: Task, *, deep: bool = False) -> None:
        """Ingest what is missing, and check everything; ``deep``: also that two days later nothing is left behind."""
        words = ("ingest", "A", "B", *(("--rules", "RULES") if task.rules else ()))
        self.run(words)
        self.round.problems += self.compare(rules=task.rules)
        if checks.leftovers(self.root):
            # The next writer cleans.
            self.run(("compact", "--all"))
            self.round.problems += checks.leftovers(self.root)
        if deep:
            self.run(("compact", "--all"), Conditions(clock=2 * DAYS))
            self.round.problems += checks.leftovers(self.root, all_kinds=True)
            self.round.problems += self.compare(rules=task.rules)
        if self.can_verify:
            code, text = self.run(("verify",), allowed=(0, 1, 2, 3))
            if code:
                self.wrong(f"verify of a whole lake: exit code {code}: {text[-400:]}")

    def compare(self, *, rules: bool) -> list[str]:
        """Return how the lake differs from the truth."""
        exported = self.folder / "exported.ndjson"
        exported.unlink(missing_ok=True)
        problems: list[str] = []
        code, text = self.run(("export", "-o", str(exported)), allowed=range(-64, 256))
        if code:
            return [f"export: exit code {code}: {text[-300:]}"]
        problems += checks.compare_exported(exported, self.truth, part=rules)
        target = self.folder / "compared.json"
        target.unlink(missing_ok=True)

        def work(_: Shared) -> None:
            contents = checks.read_contents(self.root)
            found = checks.compare(contents, self.clean[rules], self.truth, part=rules)
            found += checks.check_counts(self.root, contents, self.truth)
            _write(target, found + checks.check_files(self.root))

        process = self.start(work)
        code = process.wait(TIME_LIMIT)
        if code or not target.exists():
            return [*problems, f"it cannot be read: {process.errors.strip()[-400:]}"]
        return problems + list(json.loads(target.read_text("utf-8")))


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), "utf-8")


def _commands() -> set[str]:
    from trailsift.cli.app import COMMANDS

    return {name for _, name, _ in COMMANDS}


def writable(path: Path) -> None:
    """Give a path and what is below it back to its owner."""
    for folder, _, files in os.walk(path):
        Path(folder).chmod(0o755)
        for name in files:
            file = Path(folder, name)
            if not file.is_symlink():
                file.chmod(0o644)
