"""What it saves an ingest to drop nine events of ten, beside keeping them all; writes a Markdown page.

    python bench/rules.py --events 10000000 --days 60 --data /somewhere/logs --out bench/RULES.md

Both are measured in turns in one run, and the summaries of both lakes must say the same.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import trailsift
from page import Data, parser, say, write_page
from process import Run, python, run

RULES = """\
[[rule]]
name = "data events that did not fail"
when = { service = ["s3", "lambda", "dynamodb"], event_category = "Data" }
action = "drop"
"""
_TOTALS = "SELECT count(*) AS lines, sum(events) AS events, sum(bytes_out) AS bytes_out FROM hourly"


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and reports; exit code 1 where the summaries differ or a step fails."""
    known = parser(__doc__, events=10_000_000, days=60, repeat=1, cold=1)
    known.add_argument("--rounds", type=int, default=3, help="times that the two take turns")
    options = known.parse_args(argv)
    return write_page(options, lambda data, work: report(data, measure(data, work, options), options))


def measure(data: Data, work: Path, options: argparse.Namespace) -> list[tuple[Run, Run]]:
    """(keeping all, dropping most) a round."""
    (work / "rules.toml").write_text(RULES, "utf-8")
    for file in data.files:
        Path(file).read_bytes()
    out = []
    for number in range(options.rounds):
        say(f"round {number + 1}: keep all")
        kept = _ingest(data, work / "kept", options.threads)
        totals = _totals(work / "kept")
        shutil.rmtree(work / "kept")
        say("drop most")
        sifted = _ingest(data, work / "sifted", options.threads, "--rules", str(work / "rules.toml"))
        assert _totals(work / "sifted") == totals, f"the summaries differ: {_totals(work / 'sifted')}, not {totals}"
        shutil.rmtree(work / "sifted")
        out.append((kept, sifted))
    return out


def _ingest(data: Data, lake: Path, workers: int, *more: str) -> Run:
    command = python("-m", "trailsift.cli", "ingest", str(data.folder / "AWSLogs"), "--lake", str(lake), "--json")
    return run([*command, "--quiet", "--workers", str(workers), "--no-compact", *more], env=dict(os.environ))


def _totals(lake: Path) -> object:
    return run(python("-m", "trailsift.cli", "query", _TOTALS, "--lake", str(lake), "--format", "json")).answer


def report(data: Data, rounds: list[tuple[Run, Run]], options: argparse.Namespace) -> str:
    """The page."""
    kept, sifted = ([pair[at].seconds for pair in rounds] for at in (0, 1))
    times = [k / s for k, s in zip(kept, sifted, strict=True)]
    dropped = sum(rounds[0][1].answer["dropped"].values()) / data.events
    peaks = [max(pair[at].peak_bytes for pair in rounds) / 1e6 for at in (0, 1)]
    lines = [
        "# Dropping instead of keeping",
        "",
        f"Made by `make bench-rules` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.system()}"
        f" {platform.machine()}, Python {platform.python_version()}, trailsift {trailsift.__version__}.",
        "",
        f"Logs: {data.events:,} generated events of {data.days:g} days in {len(data.files):,} log objects,"
        f" {data.gz_bytes / 1e6:,.0f} MB as gzip (seed {data.seed}); {options.threads} workers; files in the page"
        f" cache. The rules drop {dropped:.1%} of the events: data events of S3, Lambda and DynamoDB that did not fail."
        f" Rounds in turns: {len(rounds)}; medians, with the range in brackets. `hourly` has the same lines and sums in"
        " both lakes.",
        "",
        "| | keep all | drop most |",
        "|---|---|---|",
        f"| ingest | {_spread(kept, ' s')} | {_spread(sifted, ' s')} |",
        f"| peak memory of all its processes | {peaks[0]:,.0f} MB | {peaks[1]:,.0f} MB |",
        f"| times as fast | | {_spread(times, '', 2)} |",
    ]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], unit: str, digits: int = 1) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{middle}{unit} [{low} to {high}]"


if __name__ == "__main__":
    sys.exit(main())
