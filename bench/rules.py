"""Measure what dropping nine events of ten saves an ingest, and what a hundred rules cost; write a Markdown page.

    python bench/rules.py --events 10000000 --days 60 --data /somewhere/logs --out bench/RULES.md

All variants take turns in one run, and the summaries of all lakes must be equal.
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


def hundred() -> str:
    """Return a hundred rules of every kind that match no role, bucket, key, network or call: all events are kept."""
    rules = ['timezone = "Asia/Seoul"']
    for number in range(100):
        kind = (
            f'role = "arn:aws:iam::*:role/team-{number}-*", service = "s3"',
            f'resource = ["arn:aws:s3:::bucket-{number}", "arn:aws:s3:::copy-{number}"], event_name = "GetObject"',
            f'object_key = "data/{number}/*.none", weekday = "mon-fri"',
            f'source_ip = "198.51.100.{number}/32", user_agent = "*agent-{number}*"',
            f'event_name = "Action{number}", hour = "09-17"',
        )[number % 5]
        action = ('action = "drop"', 'action = "sample"\nrate = 0.1', 'action = "keep"')[number % 3]
        rules.append(f'[[rule]]\nname = "rule {number}"\nwhen = {{ {kind} }}\n{action}')
    return "\n".join(rules)


_TOTALS = "SELECT count(*) AS lines, sum(events) AS events, sum(bytes_out) AS bytes_out FROM hourly"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; return 1 if the summaries differ or a step fails."""
    arguments = parser(__doc__, events=10_000_000, days=60, repeat=1, cold=1)
    arguments.add_argument("--rounds", type=int, default=3, help="rounds in which the variants take turns")
    options = arguments.parse_args(argv)
    return write_page(options, lambda data, work: report(data, measure(data, work, options), options))


def measure(data: Data, work: Path, options: argparse.Namespace) -> list[tuple[Run, Run, Run]]:
    """Return (keeping all, keeping all by a hundred rules, dropping most) per round."""
    (work / "rules.toml").write_text(RULES, "utf-8")
    (work / "hundred.toml").write_text(hundred(), "utf-8")
    for file in data.files:
        Path(file).read_bytes()
    out = []
    for number in range(options.rounds):
        runs, totals = [], []
        # The baseline runs between the two others: the speed of a shared machine changes within minutes.
        for variant, rules in (
            ("keep all by a hundred rules", "hundred.toml"),
            ("keep all", ""),
            ("drop most", "rules.toml"),
        ):
            lake = work / "lake"
            runs.append(_ingest(data, lake, options.threads, *(["--rules", str(work / rules)] if rules else [])))
            say(f"round {number + 1}: {variant}: {runs[-1].seconds:.1f} s")
            totals.append(_totals(lake))
            shutil.rmtree(lake)
        assert totals[0] == totals[1] == totals[2], f"the summaries differ: {totals}"
        out.append((runs[1], runs[0], runs[2]))
    return out


def _ingest(data: Data, lake: Path, workers: int, *more: str) -> Run:
    command = python("-m", "trailsift.cli", "ingest", str(data.folder / "AWSLogs"), "--lake", str(lake), "--json")
    return run([*command, "--quiet", "--workers", str(workers), "--no-compact", *more], env=dict(os.environ))


def _totals(lake: Path) -> object:
    return run(python("-m", "trailsift.cli", "query", _TOTALS, "--lake", str(lake), "--format", "json")).answer


def report(data: Data, rounds: list[tuple[Run, Run, Run]], options: argparse.Namespace) -> str:
    """Return the page."""
    columns = list(zip(*rounds, strict=True))
    seconds = [[run.seconds for run in column] for column in columns]
    by_rules, by_dropping = (
        [kept / other for kept, other in zip(seconds[0], each, strict=True)] for each in seconds[1:]
    )
    dropped = sum(rounds[0][2].answer["dropped"].values()) / data.events
    peaks = [f"{max(run.peak_bytes for run in column) / 1e6:,.0f} MB" for column in columns]
    deciding = [other / kept - 1 for kept, other in zip(seconds[0], seconds[1], strict=True)]
    lines = [
        "# Dropping instead of keeping",
        "",
        f"Made by `make bench-rules` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.system()}"
        f" {platform.machine()}, Python {platform.python_version()}, trailsift {trailsift.__version__}.",
        "",
        f"Logs: {data.events:,} generated events of {data.days:g} days in {len(data.files):,} log objects,"
        f" {data.gz_bytes / 1e6:,.0f} MB as gzip (seed {data.seed}); {options.threads} workers; files in the page"
        f" cache. The dropping rules match {dropped:.1%} of the events: data events of S3, Lambda and DynamoDB that"
        " did not fail. The hundred rules are of every kind, and match no event. The variants took turns in"
        f" {len(rounds)} rounds; figures are medians, with the range in brackets. `hourly` has the same rows and sums"
        " in all lakes.",
        "",
        "| | keep all | keep all by a hundred rules | drop most |",
        "|---|---|---|---|",
        "| ingest | " + " | ".join(_spread(each, " s") for each in seconds) + " |",
        "| peak memory of all processes | " + " | ".join(peaks) + " |",
        f"| speed-up | | {_spread(by_rules, '', 2)} | {_spread(by_dropping, '', 2)} |",
        "",
        f"A hundred rules make an ingest longer by {_spread([100 * share for share in deciding], ' %')}.",
        "",
        "The single rounds: dropping " + ", ".join(f"{ratio:.2f}" for ratio in by_dropping) + " times as fast; a"
        " hundred rules " + ", ".join(f"{100 * share:.1f}" for share in deciding) + " % longer.",
    ]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], unit: str, digits: int = 1) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{middle}{unit} [{low} to {high}]"


if __name__ == "__main__":
    sys.exit(main())
