"""`trailsift bench`: measure what each technique for faster queries gains on one's own logs, beside earlier claims."""

from trailsift.benchmark.results import CLAIMS, QUESTIONS, BenchmarkReport, Claim, Technique
from trailsift.benchmark.runner import measure

__all__ = ["CLAIMS", "QUESTIONS", "BenchmarkReport", "Claim", "Technique", "measure"]
