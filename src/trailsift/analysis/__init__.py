"""Reports on a lake: SQL over its summary tables and events, and pure functions on the rows.

A module here takes an engine and a period, and returns a dataclass; ``terminal`` shows it, ``cli`` prints it.
"""
