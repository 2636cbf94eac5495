"""The test modules that take longest, so that they begin first. Nothing depends on it but the time of a run."""

from __future__ import annotations

_NAMES = """
    s3_source ingest s3_faults s3_upkeep_races compact hostile_archives findings_by_caller growth readers
    heavy_statements watch docs s3_lake s3_commit_races s3_uses hostile_lakes exhausted_resources upgrade verify
    decode retention torture low_and_slow rule_impact hostile_text native fuzz watch_prefix triage detect beside
    detections crash envelopes s3_places doctests lake public_cases short_past hostile_keys resource bounds s3_turns
    sigma far_times output_file oddities cli sift blind pages
"""
#: By file name, with their place. The last seconds of a run should be short modules of many tests.
LONGEST = {f"test_{name}.py": place for place, name in enumerate(_NAMES.split())}
