"""Sigma rules on the command line: the option, what became of the rules, and their check without a lake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from trailsift.terminal.output import say

if TYPE_CHECKING:
    from trailsift.detect.sigma import SigmaReport

SigmaOption = Annotated[
    Path | None,
    Parameter(
        name="--sigma",
        env_var="TRAILSIFT_SIGMA",
        help="Folder with Sigma rules for CloudTrail; needs the extra sigma.",
    ),
]


def read_rules(folder: Path | None) -> SigmaReport | None:
    """Return the Sigma rules of a folder."""
    if folder is None:
        return None
    from trailsift.detect.sigma import load_sigma

    return load_sigma(folder)


def say_summary(report: SigmaReport | None) -> None:
    """Say once what became of the rules, and what the lake hides from them."""
    if report is None:
        return
    say(report.summary())
    for sentence in report.unseen:
        say(f"Sigma: {sentence}")


def check_rules(folder: Path) -> int:
    """Report which rules can be translated. Return 1 if any cannot, else 0."""
    from trailsift.terminal.output import print_line

    report = read_rules(folder)
    assert report is not None
    for problem in report.problems:
        say(str(problem))
    print_line(report.summary("can run"))
    return 1 if report.problems else 0
