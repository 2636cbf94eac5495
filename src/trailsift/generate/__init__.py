"""Realistic CloudTrail logs for any number of events, with planted incidents and their truth.

    options -> roles, incidents, schedule -> batches of events -> records -> delivery -> AWSLogs/ tree + truth.json

`cast` says who does what (data), `shapes` how an event is written (data); everything else is drawn in bulk from the
seed, so that a core writes tens of thousands of events a second and the same options give the same bytes.
"""

from trailsift.generate.options import KINDS, QUIET_KINDS, STRENGTHS, Generated, Options
from trailsift.generate.run import generate

__all__ = ["KINDS", "QUIET_KINDS", "STRENGTHS", "Generated", "Options", "generate"]
