"""Measure how long findings take on a large lake: a full run, after one more commit, and down to the records.

    python bench/findings.py --dir /some/folder --out bench/FINDINGS.md

Generates logs of many roles, ingests them, and runs each command in its own process, as a user does. CPU time is that
of the process with its threads; it varies less than wall time on a busy machine. ``--dir`` keeps the lake for another
run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trailsift.generate import Options, generate

CLI = (sys.executable, "-m", "trailsift.cli")


@dataclass(frozen=True)
class CommandRun:
    """One run of a command: wall time and CPU time in seconds, peak memory in MB, and its output."""

    label: str
    seconds: float
    cpu: float
    memory: float
    out: str

    def line(self) -> str:
        """Return a line of the table."""
        return f"| {self.label} | {self.seconds:.1f} | {self.cpu:.1f} | {self.memory:.0f} |"


def run_command(label: str, *arguments: str) -> CommandRun:
    """Run a trailsift command in a process of its own."""
    with tempfile.TemporaryFile("w+") as out:
        begun = time.perf_counter()
        child = subprocess.Popen([*CLI, *arguments], stdout=out, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"{' '.join(arguments)} ended with {child.returncode}")
        out.seek(0)
        return CommandRun(label, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out.read())


def make(folder: Path, options: Options) -> Path:
    """Return the lake, and create it first if it is missing."""
    lake = folder / "lake"
    if not (lake / "lake.json").exists():
        generate(folder / "logs", options)
        run_command("ingest", "ingest", str(folder / "logs" / "AWSLogs"), "--lake", str(lake), "--quiet", "--json")
        shutil.rmtree(folder / "logs" / "AWSLogs")
    return lake


def ask(lake: Path, sql: str) -> list[dict[str, Any]]:
    """Return the rows of a query."""
    rows: list[dict[str, Any]] = json.loads(run_command("", "query", sql, "--lake", str(lake), "--format", "json").out)
    return rows


def one_more_commit(lake: Path, folder: Path) -> int:
    """Ingest the newest hour of the lake again under new event ids; return the number of events."""
    where = "event_time >= (SELECT max(event_time) FROM events) - INTERVAL 1 HOUR"
    records = [
        json.loads(line) for line in run_command("", "export", "--lake", str(lake), "--where", where).out.splitlines()
    ]
    mark = str(time.time_ns())
    for place, record in enumerate(records):
        record["eventID"] = f"{mark}-{place}"
    (folder / "more.json").write_text(json.dumps({"Records": records}))
    run_command("", "ingest", str(folder / "more.json"), "--lake", str(lake), "--quiet", "--json")
    return len(records)


def measure(lake: Path, folder: Path) -> tuple[list[CommandRun], dict[str, Any]]:
    """Take all measurements; return them and the contents of the lake."""
    at = ("--lake", str(lake))
    runs = [run_command("`detect --afresh`: the whole lake", "detect", *at, "--afresh", "--json")]
    findings = json.loads(runs[0].out)["findings"]
    more = one_more_commit(lake, folder)
    runs.append(run_command(f"`detect` after a commit of {more:,} more events", "detect", *at, "--json"))
    runs.append(run_command("`detect` again, nothing new", "detect", *at, "--json"))
    best = findings[0]["id"]
    runs.append(run_command("`finding ID`: its summary lines and events", "finding", best, *at))
    runs.append(run_command("`finding ID --records`: as CloudTrail wrote them", "finding", best, *at, "--records"))
    sql = """SELECT sum(events) AS events, count(*) AS lines, count(DISTINCT role_arn) AS roles,
        count(DISTINCT date_trunc('day', hour)) AS days FROM hourly"""
    held = ask(lake, sql)[0]
    held |= {"findings": len(findings), "records": len(runs[-1].out.splitlines())}
    held["state"] = sum(path.stat().st_size for path in (lake / "findings").iterdir()) / 1e6
    return runs, held


def page(runs: Sequence[CommandRun], held: dict[str, Any]) -> str:
    """Return the Markdown page."""
    about = (
        f"{held['roles']:,} roles over {held['days']} days: {held['events']:,} events, {held['lines']:,} rows of "
        f"`hourly`. {held['findings']} findings; the first has {held['records']:,} records. Detection keeps "
        f"{held['state']:.1f} MB in the lake. Measured by `python bench/findings.py` on {os.cpu_count()} cores "
        f"(load {os.getloadavg()[0]:.1f} at the end); each command runs in its own process."
    )
    lines = [
        "# Findings on a large lake",
        "",
        about,
        "",
        "| command | seconds | CPU seconds | peak MB |",
        "|---|---|---|---|",
        *[run.line() for run in runs],
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--days", type=float, default=90)
    parser.add_argument("--roles", type=int, default=1_350, help="identities to generate; not all of them have a role")
    parser.add_argument("--dir", type=Path, help="folder of the lake, created if missing, and kept")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    folder = options.dir or Path(tempfile.mkdtemp(prefix="trailsift-findings-"))
    folder.mkdir(exist_ok=True)
    try:
        lake = make(folder, Options(options.events, options.days, 5, roles=options.roles))
        text = page(*measure(lake, folder))
    finally:
        if options.dir is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(text)
    if options.out:
        # Its other sections are those of real_findings.py.
        _, mark, rest = options.out.read_text("utf-8").partition("\n## ") if options.out.exists() else ("", "", "")
        options.out.write_text(text + mark + rest, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
