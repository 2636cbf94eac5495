"""Bytes of a log object -> CloudTrail records -> the columns of an event, and back.

``envelope`` finds the records in whatever form they were delivered; ``record`` turns one into a row of ``events``
and restores it. Neither raises on bad input: whatever cannot be used is counted and named.
"""
