"""Every error that trailsift raises on purpose.

::

    TrailsiftError              exit code 1
    |-- UsageError              exit code 2: the request itself is wrong (bad option, bad time, bad SQL)
    |   |-- QueryError          SQL that cannot run: names the position and the nearest known name
    |   `-- RulesError          a rules file that cannot be used: lists every wrong line
    |-- SourceError             an input that does not exist or cannot be read at all
    |-- S3Error                 S3: no credentials, no permission, no such bucket, another region, out of reach, busy
    |-- GlueError               Glue: no credentials, no permission, no such database, a table of somebody else
    |-- LakeError               the lake is missing, not a lake, moved, not writable, or of a newer format
    |   |-- ConflictError       another writer changed an object or a table first
    |   |-- UnknownOutcomeError no answer to a commit in S3: whether it took place is unknown
    |   `-- SnapshotGoneError   an old state of the lake, some files of which were deleted
    `-- EngineError             the query engine failed for a reason other than the SQL
        |-- QueryTimeoutError   the query took longer than it was allowed to
        `-- QueryMemoryError    the query needs more memory, or more disk to spill to, than it was allowed to use

A message says what was tried, on what, what was found, and what to do about it. Any other exception that reaches a user
is a defect.
"""

from __future__ import annotations

#: Local folders that stand for another place, such as the copy of a lake in S3, and the name of that place.
_shown_as: dict[str, str] = {}


def show_as(folder: str, place: str) -> None:
    """Have messages name ``place`` where they say ``folder``: a user knows only the place."""
    _shown_as[folder] = place


def shown(text: str) -> str:
    """Return a text with the names of places that a user knows."""
    for folder, place in _shown_as.items():
        text = text.replace(folder, place)
    return text


class TrailsiftError(Exception):
    """Root of the tree. ``exit_code`` is the exit code of the command line."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message, with the names that a user knows."""
        return shown(super().__str__())


class UsageError(TrailsiftError):
    """The request itself is wrong; nothing was done."""

    exit_code = 2


class QueryError(UsageError):
    """SQL that cannot run: more than one statement, not read-only, a syntax error, an unknown name."""


class RulesError(UsageError):
    """A rules file that cannot be used; the message has one line per problem, with its position."""


class SourceError(TrailsiftError):
    """An input path that does not exist, cannot be read, or holds no CloudTrail records."""


class S3Error(TrailsiftError):
    """S3 cannot be used: no credentials, no permission, no such bucket, another region, out of reach, or busy.

    ``is_final``: S3 refused the request, so it has no effect and never will; else it may still have one.
    """

    is_final = False


class GlueError(TrailsiftError):
    """Glue cannot be used: no credentials, no permission, no such database, out of reach, or somebody else's table."""


class LakeError(TrailsiftError):
    """The lake is missing, not a trailsift lake, moved, not writable, or of a newer format."""


class ConflictError(LakeError):
    """Another writer changed an object or a table first: raised by a conditional write, and by a commit."""


class UnknownOutcomeError(LakeError):
    """No answer came to the request that commits to a lake in S3: whether it took place could not be found out."""


class SnapshotGoneError(LakeError):
    """Files of an old state of the lake were deleted: open the newest."""


class EngineError(TrailsiftError):
    """The query engine failed for a reason other than the SQL."""


class QueryTimeoutError(EngineError):
    """The query took longer than it was allowed to."""


class QueryMemoryError(EngineError):
    """The query needs more memory, or more disk to spill to, than it was allowed to use."""
