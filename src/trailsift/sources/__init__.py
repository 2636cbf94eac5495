"""Log objects, wherever they come from: `base` is the seam; each other module is one kind of source, or a part of it.

``files``: local files and standard input; ``memory``: a twin for tests; ``s3``: S3, found by ``s3_walk`` (LIST requests
of ``s3_listing``, kept in ``spool``) and fetched by ``s3_fetch``. ``cloudtrail_layout`` knows names and folders.

For a watch, ``arrivals`` is the seam: ``folder_watch``, ``s3_poll`` and ``queue``, whose messages ``s3_notices`` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.errors import SourceError, UsageError
from trailsift.safe_text import safe
from trailsift.sources.base import ALL, LogObject, Reader, RemoteSource, Source
from trailsift.sources.files import FileSource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trailsift.prices import Price
    from trailsift.sources.arrivals import Arrivals, Trouble
    from trailsift.sources.base import Known, Wanted
    from trailsift.sources.s3 import S3Source

__all__ = ["LogObject", "Reader", "RemoteSource", "Source", "WatchOptions", "open_arrivals", "open_source"]


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How a place is watched. ``poll``: seconds between two searches of a prefix; ``buckets``: the only ones that a
    queue's messages may name (empty: those of its policy); ``max_receives``: after which a message is set aside;
    ``visible_after``: seconds for which a received message is kept from others, and renewed."""

    poll: float = 60.0
    buckets: tuple[str, ...] = ()
    max_receives: int = 5
    visible_after: int = 60
    requester_pays: bool = False
    wanted: Wanted = ALL


def open_arrivals(
    place: str,
    lake: Path,
    options: WatchOptions,
    known: Callable[[], Known],
    prices: Callable[[], Mapping[str, Price]],
    trouble: Trouble,
) -> Arrivals:
    """Return what a place is watched by: a folder, a prefix of S3 or a queue. Nothing is looked at yet.

    ``known`` returns what the lake knows; ``trouble`` is called with what goes wrong and does not end the watch. Raise
    UsageError or SourceError if there is no such place.
    """
    # Imported lazily: each of them is for one kind of place.
    if place[:5].lower() == "s3://":
        from trailsift.sources.s3_poll import PrefixArrivals

        pays = options.requester_pays
        return PrefixArrivals(
            [place], known, trouble, prices(), poll=options.poll, wanted=options.wanted, requester_pays=pays
        )
    if place.startswith(("https://", "http://", "arn:")):
        from trailsift.sources.queue import QueueArrivals

        return QueueArrivals(
            place,
            trouble,
            buckets=options.buckets,
            max_receives=options.max_receives,
            visible_after=options.visible_after,
            requester_pays=options.requester_pays,
        )
    from trailsift.sources.folder_watch import FolderArrivals

    return FolderArrivals(place.removeprefix("file://"), lake, trouble)


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
