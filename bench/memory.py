"""Measure whether the memory of an ingest grows with its input, and write a Markdown page.

    python bench/memory.py --events 10000000 --days 60 --data /somewhere/logs --out bench/MEMORY.md

The same logs are ingested up to different days, each time into a new lake, keeping all events and dropping most.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import trailsift
from page import Data, parser, say, write_page
from process import Run, python, run
from rules import RULES

#: Shares of the period to ingest.
PARTS = (0.2, 0.4, 0.6, 1.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; return 1 if a step fails."""
    options = parser(__doc__, events=10_000_000, days=60, repeat=1, cold=1).parse_args(argv)
    return write_page(options, lambda data, work: report(data, measure(data, work, options), options))


def measure(data: Data, work: Path, options: argparse.Namespace) -> list[tuple[Run, Run]]:
    """Return (keeping all, dropping most) per share."""
    rules = work / "rules.toml"
    rules.write_text(RULES, "utf-8")
    # ``data.day`` is the middle of the period.
    first = date.fromisoformat(data.day) - timedelta(days=int(data.days / 2))
    out = []
    for part in PARTS:
        until = first + timedelta(days=round(data.days * part) + (part == 1))
        say(f"logs delivered before {until}")
        command = python("-m", "trailsift.cli", "ingest", str(data.folder / "AWSLogs"), "--json", "--quiet")
        command += ["--workers", str(options.threads), "--no-compact", "--until", until.isoformat()]
        runs = []
        for more in ([], ["--rules", str(rules)]):
            runs.append(run([*command, "--lake", str(work / "lake"), *more], env=dict(os.environ)))
            shutil.rmtree(work / "lake")
        out.append((runs[0], runs[1]))
    return out


def report(data: Data, runs: list[tuple[Run, Run]], options: argparse.Namespace) -> str:
    """Return the page."""
    lines = [
        "# Memory",
        "",
        f"Made by `make bench-memory` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.system()}"
        f" {platform.machine()}, Python {platform.python_version()}, trailsift {trailsift.__version__}.",
        "",
        f"Up to {data.events:,} generated events of {data.days:g} days in {len(data.files):,} log objects (seed"
        f" {data.seed}), {options.threads} workers, each ingest once. Peak of the sum of all processes' resident sizes,"
        " sampled 50 times per second; shared pages count once per process. The rules drop data events"
        " that did not fail.",
        "",
        "| records | keep all | drop most |",
        "|---|---|---|",
    ]
    for kept, sifted in runs:
        peaks = " | ".join(f"{run.peak_bytes / 1e6:,.0f} MB" for run in (kept, sifted))
        lines.append(f"| {kept.answer['records']:,} | {peaks} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
