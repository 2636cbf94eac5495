"""Paths in the repository."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
#: The environment variable that names a folder of real logs.
REAL_LOGS = "TRAILSIFT_REAL_LOGS"

T = TypeVar("T")


def share(everything: Sequence[T], parts: int) -> Sequence[T]:
    """Return one of so many shares of the cases of a test, another one for each commit; with `make variants` all."""
    command = ["git", "rev-list", "--count", "HEAD"]
    try:
        number = int(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        number = 0
    return variants(everything, everything[number % parts :: parts])


def variants(everything: Sequence[T], few: Sequence[T]) -> Sequence[T]:
    """Return all variants of a test if TRAILSIFT_ALL_VARIANTS is set, as `make variants` does; else the few."""
    return everything if os.environ.get("TRAILSIFT_ALL_VARIANTS") else few


def examples(number: int) -> int:
    """Return how many examples Hypothesis tries: a third of the number, which `make variants` tries."""
    return number if os.environ.get("TRAILSIFT_ALL_VARIANTS") else -(-number // 3)
