"""Every error that trailsift raises on purpose.

::

    TrailsiftError              exit code 1
    |-- UsageError              exit code 2: the call cannot mean anything (bad option, bad time, bad SQL)
    |   |-- QueryError          SQL that cannot run: carries the position and the nearest name
    |   `-- RulesError          a rules file that cannot be used: every wrong line of it
    |-- SourceError             an input that cannot be found or read at all
    |-- LakeError               the lake folder is missing, foreign, moved, unwritable, or of a newer format
    |   |-- ConflictError       another writer changed an object or a table first
    |   `-- SnapshotGoneError   an old state of the lake, some files of which were deleted
    `-- EngineError             the query engine failed for a reason that is not the SQL's

A message says what was tried, on what, what was found and what to do about it. Anything else that
escapes is a defect.
"""

from __future__ import annotations


class TrailsiftError(Exception):
    """Root of the tree. ``exit_code`` is what the command line ends with."""

    exit_code = 1


class UsageError(TrailsiftError):
    """The request itself is wrong; nothing was done."""

    exit_code = 2


class QueryError(UsageError):
    """SQL that cannot run: not one read-only statement, a syntax error, an unknown name."""


class RulesError(UsageError):
    """A rules file that cannot be used; the message has a line for each problem, with its place."""


class SourceError(TrailsiftError):
    """An input path that does not exist, cannot be read, or holds no CloudTrail at all."""


class LakeError(TrailsiftError):
    """The lake is missing, not ours, moved, not writable, or of a newer format."""


class ConflictError(LakeError):
    """Another writer changed an object or a table first: raised by a conditional write, and by a commit."""


class SnapshotGoneError(LakeError):
    """Files of an old state of the lake were deleted: open the newest."""


class EngineError(TrailsiftError):
    """The query engine failed for a reason other than the SQL."""
