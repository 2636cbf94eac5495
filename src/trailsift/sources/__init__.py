"""Log objects, wherever they come from: `base` is the seam; each other module is one kind of source, or a part of it.

``files``: local files and standard input; ``memory``: a twin for tests; ``s3``: S3, found by ``s3_walk`` (LIST requests
of ``s3_listing``, kept in ``spool``) and fetched by ``s3_fetch``. ``cloudtrail_layout`` knows names and folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.errors import SourceError, UsageError
from trailsift.safe_text import safe
from trailsift.sources.base import LogObject, Reader, RemoteSource, Source
from trailsift.sources.files import FileSource

if TYPE_CHECKING:
    from trailsift.sources.s3 import S3Source

__all__ = ["LogObject", "Reader", "RemoteSource", "Source", "open_source"]


def open_source(
    inputs: Sequence[str], exclude: Path | None = None, *, requester_pays: bool = False
) -> FileSource | S3Source:
    """Return the source that the inputs name; ``exclude`` is a folder (the lake) that is not searched.

    Raise UsageError for S3 and local paths together, SourceError for any other place.
    """
    remote = [text for text in inputs if text[:5].lower() == "s3://"]
    for text in inputs:
        scheme, separator, _ = text.partition("://")
        if separator and scheme != "file" and text not in remote:
            raise SourceError(
                f"cannot read {safe(text)}: only local paths and s3:// can be read; copy the objects to a folder first"
            )
    if not remote:
        return FileSource(inputs, exclude)
    if len(remote) < len(inputs):
        raise UsageError("ingest local paths and S3 one after the other: one run reads from one of them")
    # Imported lazily: who reads local files does not wait for it.
    from trailsift.sources.s3 import S3Source

    return S3Source(remote, requester_pays=requester_pays)
