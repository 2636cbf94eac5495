"""Rules that keep, sample or drop events, decided per row and without any heavy package.

``load`` reads a rules file, ``RowRules(rules).decide(row)`` decides on a row of ``decode.record``. The columnar form,
for millions of rows, is ``trailsift.ingest.sift``; both decide the same.
"""

from trailsift.rules.matcher import Decision, RowRules
from trailsift.rules.model import Rule, Rules
from trailsift.rules.parser import load, parse

__all__ = ["Decision", "RowRules", "Rule", "Rules", "load", "parse"]
