"""The ingest pipeline."""

from trailsift.ingest.counts import Counts, Progress, Sizes
from trailsift.ingest.pipeline import ingest

__all__ = ["Counts", "Progress", "Sizes", "ingest"]
