"""Shared parts of the benchmarks that write a page: the logs, the options, and the output."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from process import ChildError

#: The role whose day is queried: the busiest one.
JOB = "batch ETL"


@dataclass(frozen=True)
class Data:
    """The logs: where they are, how large they are, and the query that they are measured with."""

    folder: Path
    files: list[str]
    gz_bytes: int
    events: int
    days: float
    seed: int
    role: str
    day: str
    next_day: str

    @property
    def day_files(self) -> list[str]:
        """The log objects in the folders of the day that is queried."""
        return [file for file in self.files if f"/{self.day.replace('-', '/')}/" in file]


def commit_of_code() -> str:
    """Return the commit that is measured, with a word on changes that are not committed; empty if there is no git."""
    here = Path(__file__).parent
    words = ["git", "-C", str(here), "describe", "--always", "--dirty=, changed since", "--exclude=*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def state_of_code() -> str:
    """Return today's date and the commit that is measured, with a word on changes that are not committed."""
    commit = commit_of_code()
    return f"{date.today()}, commit {commit}" if commit else f"{date.today()}"


def parser(about: str | None, *, events: int, days: float, repeat: int, cold: int) -> argparse.ArgumentParser:
    """Return a parser with the common options, and these defaults."""
    options = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--events", type=int, default=events)
    options.add_argument("--days", type=float, default=days)
    options.add_argument("--seed", type=int, default=2)
    options.add_argument("--data", type=Path, help="generated logs to use, or an empty folder to keep them in")
    options.add_argument("--repeat", type=int, default=repeat, help="repetitions of each query on an open engine")
    options.add_argument("--cold", type=int, default=cold, help="cold queries per lake")
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads on all sides")
    options.add_argument("--out", type=Path, help="the page to write; standard output by default")
    return options


def write_page(options: argparse.Namespace, make: Callable[[Data, Path], str]) -> int:
    """Prepare the logs, make the page in a scratch folder and write it; return 1 if the sides disagree or a step
    fails."""
    with tempfile.TemporaryDirectory(prefix="trailsift-bench-") as scratch:
        work = Path(scratch)
        data = prepare(options.data or work / "logs", options)
        say(f"{data.events:,} events, {len(data.files):,} log objects, {data.gz_bytes / 1e6:,.0f} MB of gzip")
        try:
            page = make(data, work)
        except (ChildError, AssertionError) as error:
            say(str(error))
            return 1
    if options.out:
        options.out.write_text(page, "utf-8")
        say(f"wrote {options.out}")
    else:
        sys.stdout.write(page)
    return 0


def prepare(folder: Path, options: argparse.Namespace) -> Data:
    """Return the logs in ``folder``, and generate them first if there are none."""
    from trailsift.generate import Options, generate

    if not (folder / "truth.json").exists():
        say(f"generating {options.events:,} events")
        generate(folder, Options(events=options.events, days=options.days, seed=options.seed))
    truth = json.loads((folder / "truth.json").read_text("utf-8"))
    files = sorted(str(file) for file in (folder / "AWSLogs").rglob("*.json.gz"))
    # The middle of the period: a complete working day.
    day = datetime.fromisoformat(truth["start"]) + timedelta(days=int(truth["options"]["days"] / 2))
    return Data(
        folder=folder,
        files=files,
        gz_bytes=sum(Path(file).stat().st_size for file in files),
        events=truth["events"],
        days=truth["options"]["days"],
        seed=truth["seed"],
        role=next(role["role_arn"] for role in truth["roles"] if role["job"] == JOB),
        day=f"{day:%Y-%m-%d}",
        next_day=f"{day + timedelta(days=1):%Y-%m-%d}",
    )


def say(text: str) -> None:
    """Report progress on standard error."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
