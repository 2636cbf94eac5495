"""Log objects, wherever they come from: `base` is the seam, and each other module is one kind of source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trailsift.errors import SourceError, UsageError
from trailsift.sources.base import LogObject, Reader, Source
from trailsift.sources.files import FileSource

__all__ = ["LogObject", "Reader", "Source", "open_source"]


def open_source(inputs: Sequence[str], exclude: Path | None = None) -> Source:
    """Return the source that the inputs name; ``exclude`` is a folder (the lake) that is not searched.

    Raise UsageError for ``s3://``, SourceError for any other place that is not local.
    """
    for text in inputs:
        scheme, separator, _ = text.partition("://")
        if separator and scheme == "s3":
            raise UsageError(
                f"cannot read {text}: reading from S3 comes with the aws extra in a later version. "
                "Until then: `aws s3 sync` to a folder, then ingest the folder"
            )
        if separator and scheme != "file":
            raise SourceError(f"cannot read {text}: only local paths can be read; copy the objects to a folder first")
    return FileSource(inputs, exclude)
