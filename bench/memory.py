"""Whether the memory of an ingest grows with what it reads; writes a Markdown page.

    python bench/memory.py --events 10000000 --days 60 --data /somewhere/logs --out bench/MEMORY.md

The same logs are ingested up to a day, each time into a lake of its own, keeping everything and dropping most of it.
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

#: Parts of the period, of which each is ingested.
PARTS = (0.2, 0.4, 0.6, 1.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and reports; exit code 1 where a step fails."""
    options = parser(__doc__, events=10_000_000, days=60, repeat=1, cold=1).parse_args(argv)
    return write_page(options, lambda data, work: report(data, measure(data, work, options), options))


def measure(data: Data, work: Path, options: argparse.Namespace) -> list[tuple[Run, Run]]:
    """(keeping all, dropping most) a part."""
    rules = work / "rules.toml"
    rules.write_text(RULES, "utf-8")
    # The day that is asked for is the middle one.
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
    """The page."""
    lines = [
        "# Memory",
        "",
        f"Made by `make bench-memory` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.system()}"
        f" {platform.machine()}, Python {platform.python_version()}, trailsift {trailsift.__version__}.",
        "",
        f"Up to {data.events:,} generated events of {data.days:g} days in {len(data.files):,} log objects (seed"
        f" {data.seed}), {options.threads} workers, each ingest once. Peak of the resident sizes of all processes"
        f" together, looked at 50 times a second; pages that processes share count in each. The rules drop data events"
        " that did not fail.",
        "",
        "| records | keep all | drop most |",
        "|---|---|---|",
    ]
    for kept, sifted in runs:
        peaks = " | ".join(f"{one.peak_bytes / 1e6:,.0f} MB" for one in (kept, sifted))
        lines.append(f"| {kept.answer['records']:,} | {peaks} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
