"""From the bytes of a log object to CloudTrail records, and from a record to the columns of an event and back.

``envelope`` finds the records in whatever form they were delivered; ``record`` turns one into a row of ``events``
and gives it back. Neither raises on bad input: what cannot be used is counted and named.
"""
