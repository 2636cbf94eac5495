"""What each way to a faster answer is worth on one's own logs: measured, beside what was once expected of it."""

from trailsift.benchmark.measure import measure
from trailsift.benchmark.results import CLAIMS, QUESTIONS, BenchmarkReport, Claim, Technique

__all__ = ["CLAIMS", "QUESTIONS", "BenchmarkReport", "Claim", "Technique", "measure"]
