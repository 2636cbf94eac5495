"""Questions about a lake: SQL over the summary tables and events, and pure functions on what it returns.

A module here takes an engine and a period, and returns a dataclass; ``views`` renders it, ``cli`` prints it.
"""
