"""How long findings take on a large lake: everything at first, after one more commit, and down to the records.

    python bench/findings.py --dir /some/folder --out bench/FINDINGS.md

Generates logs of many roles, ingests them, and runs each command in a process of its own, as a person does. CPU is that
of the process with its threads; it varies less than the time when the machine does other things too. ``--dir`` keeps
the lake for another measurement.
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
class Took:
    """Of one command: seconds on the clock, seconds of CPU, peak memory in MB, and what it printed."""

    what: str
    seconds: float
    cpu: float
    memory: float
    out: str

    def line(self) -> str:
        """A line of the table."""
        return f"| {self.what} | {self.seconds:.1f} | {self.cpu:.1f} | {self.memory:.0f} |"


def took(what: str, *arguments: str) -> Took:
    """Runs a command of trailsift in a process of its own."""
    with tempfile.TemporaryFile("w+") as out:
        begun = time.perf_counter()
        child = subprocess.Popen([*CLI, *arguments], stdout=out, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begun
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"{' '.join(arguments)} ended with {child.returncode}")
        out.seek(0)
        return Took(what, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out.read())


def make(folder: Path, options: Options) -> Path:
    """The lake, made where it is missing."""
    lake = folder / "lake"
    if not (lake / "lake.json").exists():
        generate(folder / "logs", options)
        took("ingest", "ingest", str(folder / "logs" / "AWSLogs"), "--lake", str(lake), "--quiet", "--json")
        shutil.rmtree(folder / "logs" / "AWSLogs")
    return lake


def ask(lake: Path, sql: str) -> list[dict[str, Any]]:
    """The rows of an answer."""
    rows: list[dict[str, Any]] = json.loads(took("", "query", sql, "--lake", str(lake), "--format", "json").out)
    return rows


def one_more_commit(lake: Path, folder: Path) -> int:
    """The newest hour of the lake once more, as other events; how many."""
    where = "event_time >= (SELECT max(event_time) FROM events) - INTERVAL 1 HOUR"
    records = [json.loads(line) for line in took("", "export", "--lake", str(lake), "--where", where).out.splitlines()]
    mark = str(time.time_ns())
    for place, record in enumerate(records):
        record["eventID"] = f"{mark}-{place}"
    (folder / "more.json").write_text(json.dumps({"Records": records}))
    took("", "ingest", str(folder / "more.json"), "--lake", str(lake), "--quiet", "--json")
    return len(records)


def measure(lake: Path, folder: Path) -> tuple[list[Took], dict[str, Any]]:
    """All that is measured, and what the lake holds."""
    at = ("--lake", str(lake))
    runs = [took("`detect --afresh`: the whole lake", "detect", *at, "--afresh", "--json")]
    found = json.loads(runs[0].out)["findings"]
    more = one_more_commit(lake, folder)
    runs.append(took(f"`detect` after a commit of {more:,} more events", "detect", *at, "--json"))
    runs.append(took("`detect` once more, nothing new", "detect", *at, "--json"))
    best = found[0]["id"]
    runs.append(took("`finding ID`: its summary lines and events", "finding", best, *at))
    runs.append(took("`finding ID --records`: as CloudTrail wrote them", "finding", best, *at, "--records"))
    sql = """SELECT sum(events) AS events, count(*) AS lines, count(DISTINCT role_arn) AS roles,
        count(DISTINCT date_trunc('day', hour)) AS days FROM hourly"""
    held = ask(lake, sql)[0]
    held |= {"findings": len(found), "records": len(runs[-1].out.splitlines())}
    held["state"] = sum(path.stat().st_size for path in (lake / "findings").iterdir()) / 1e6
    return runs, held


def page(runs: Sequence[Took], held: dict[str, Any]) -> str:
    """The Markdown page."""
    about = (
        f"{held['roles']:,} roles over {held['days']} days: {held['events']:,} events, {held['lines']:,} lines of "
        f"`hourly`. {held['findings']} findings; the first has {held['records']:,} records. Detection keeps "
        f"{held['state']:.1f} MB in the lake. Measured by `python bench/findings.py` on {os.cpu_count()} cores "
        f"(load {os.getloadavg()[0]:.1f} at the end); each command is a process of its own."
    )
    lines = [
        "# Findings on a large lake",
        "",
        about,
        "",
        "| command | seconds | seconds of CPU | peak MB |",
        "|---|---|---|---|",
        *[one.line() for one in runs],
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--days", type=float, default=90)
    parser.add_argument("--roles", type=int, default=1_350, help="identities that are generated; fewer have a role")
    parser.add_argument("--dir", type=Path, help="where the lake is, or is made, and stays")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    folder = given.dir or Path(tempfile.mkdtemp(prefix="trailsift-findings-"))
    folder.mkdir(exist_ok=True)
    try:
        lake = make(folder, Options(given.events, given.days, 5, roles=given.roles))
        text = page(*measure(lake, folder))
    finally:
        if given.dir is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(text)
    if given.out:
        given.out.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
