"""The ingest: log objects from a source become committed events and summary lines of a lake.

The stages of a log object, in order:

1. ``pipeline`` finds the new log objects and finishes with compaction; ``watch`` does so for what keeps arriving.
   Both have a ``session`` at work, which keeps the lake and the workers open.
2. ``schedule`` divides the log objects among the workers; ``pool`` runs the worker processes.
3. ``coordinator`` drives them: it sends log objects, answers which events are new, and commits batches.
4. ``worker`` decodes log objects (``chunk_builder``) into a ``chunk``, and writes its new events and summary lines.
5. ``conflicts`` compares second copies of an event; ``reread`` fetches their texts if they were not kept.
6. ``sift`` applies rules to a chunk; ``exemplars`` keeps one event per summary line.
7. ``batch`` collects the results of chunks for one commit.

Read the modules in this order: pipeline, schedule, pool, coordinator, worker, chunk_builder, chunk, conflicts, reread,
sift, exemplars, batch. ``counts`` holds what an ingest reports. ``dry_run`` and ``what_if`` use the same stages and
commit nothing.
"""

from trailsift.ingest.counts import Counts, Progress, Sizes
from trailsift.ingest.pipeline import ingest

__all__ = ["Counts", "Progress", "Sizes", "ingest"]
