"""Paths in the repository."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
#: The environment variable that names a folder of real logs.
REAL_LOGS = "TRAILSIFT_REAL_LOGS"
