"""The library: one handle per lake, with a method for each command that works on a lake.

The command line and the dashboard call nothing else. Nothing heavy is imported at the top: a method imports what it
needs, so that a cold query pays for DuckDB only.
"""

from __future__ import annotations

from trailsift.api.activity import ActivityMethods
from trailsift.api.detect import DetectMethods
from trailsift.api.export import ExportMethods
from trailsift.api.ingest import IngestMethods
from trailsift.api.maintain import MaintainMethods
from trailsift.api.query import QueryMethods
from trailsift.api.questions import QuestionMethods
from trailsift.api.rules import RuleMethods
from trailsift.api.saved import SavedQueryMethods


class Lake(
    IngestMethods,
    QueryMethods,
    QuestionMethods,
    ActivityMethods,
    SavedQueryMethods,
    DetectMethods,
    RuleMethods,
    MaintainMethods,
    ExportMethods,
):
    """A handle on a lake: cheap to create, no input or output before the first question.

    It keeps one DuckDB engine open and moves it to the newest commit for each question, so a notebook sees what another
    process ingests. It may be shared between threads. Close it, or use it in a ``with`` statement.

    Every method raises LakeError if there is no lake at ``path`` (`ingest` creates it) or if it cannot be read.

    Args:
        path: Folder of the lake, or ``s3://bucket/prefix`` of one in S3 (with the extra ``aws``).
        timezone: IANA name of the time zone in which times without an offset are read and times are shown.
        threads: Threads that queries may use. Default: one per core.
        memory_limit: Memory that queries may use, such as ``2GB``. Default: 60 % of the memory.
        spill_limit: Disk that queries may use for what does not fit into the memory, such as ``20GB``. Default: half of
            what is free.

    Raises:
        UsageError: There is no such time zone.

    Example:
        >>> import trailsift
        >>> with trailsift.Lake("my.lake", timezone="Asia/Seoul") as lake:
        ...     lake.query("SELECT count(*) FROM events").value()
        2000
    """
