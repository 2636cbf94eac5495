"""Realistic CloudTrail logs for any number of events, with planted incidents and their ground truth.

    options -> actors, incidents, schedule -> batches of events -> records -> delivery -> AWSLogs/ tree + truth.json

Reading order: ``options``; ``archetypes`` (who does what, as data) and ``record_templates`` (how an event is written,
as data); ``actors``, ``scenarios`` with ``stealthy_scenarios``, and ``incidents``; ``schedule`` and ``sessions``;
``records`` with ``object_keys`` and ``bulk_text``; ``delivery``; ``run`` connects them. Everything is drawn in bulk
from the seed, so that one core writes tens of thousands of events per second and the same options give the same bytes.
"""

from trailsift.generate.options import KINDS, QUIET_KINDS, STRENGTHS, Generated, Options
from trailsift.generate.run import generate

__all__ = ["KINDS", "QUIET_KINDS", "STRENGTHS", "Generated", "Options", "generate"]
