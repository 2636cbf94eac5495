"""Sigma rules for CloudTrail as detections.

Reading order: ``documents`` (YAML, bounded), ``translate`` (pySigma's parser, and what becomes of each rule),
``backend`` and ``fields`` (a condition as SQL over ``events``), ``correlation_sql``, ``report``. Only ``translate`` and
what it imports need pySigma. Matches are found by ``detect.event_scan``, many rules in one pass; ``coverage`` says what
the lake hides from the rules.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from trailsift.detect.sigma.report import SigmaReport as SigmaReport
from trailsift.detect.sigma.report import SigmaRule as SigmaRule
from trailsift.errors import UsageError

MISSING = "Sigma rules need a package that is not installed: pip install 'trailsift[sigma]'"


@cache
def is_available() -> bool:
    """Return whether pySigma is installed."""
    return find_spec("sigma") is not None and find_spec("yaml") is not None


def load_sigma(folder: Path) -> SigmaReport:
    """Return the Sigma rules of a folder and of the folders in it, and what became of those that cannot run.

    Raise UsageError if pySigma is not installed, if there is no such folder, or no rule file in it.
    """
    if not is_available():
        raise UsageError(MISSING)
    from trailsift.detect.sigma.documents import read_folder
    from trailsift.detect.sigma.translate import translate

    return translate(read_folder(folder))
