"""Log objects in S3: found by few LIST requests, and fetched many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from trailsift.decode.names import safe_name
from trailsift.errors import S3Error, SourceError
from trailsift.lake.commit import Listed
from trailsift.sources import s3_nearest
from trailsift.sources.base import ALL, Found, Known, LogObject, NothingKnown, Searched, Wanted
from trailsift.sources.s3_fetch import S3Reader, close_fetchers
from trailsift.sources.s3_listing import Lister, in_thread, work_off
from trailsift.sources.s3_walk import Walk
from trailsift.sources.spool import Spool, fields
from trailsift.storage.s3_client import Bucket, S3Url, bucket_region, failure_of, parse_url


class S3Source:
    """Objects, folders and whole buckets of S3, named by ``s3://`` URLs."""

    def __init__(self, inputs: Sequence[str], *, requester_pays: bool = False) -> None:
        """Raise UsageError if an input is not a URL of S3."""
        self._urls = _outermost([parse_url(text) for text in inputs])
        self._buckets = {url.bucket: Bucket(url.bucket, requester_pays) for url in self._urls}
        self._spool = Spool()

    def __str__(self) -> str:
        return ", ".join(safe_name(str(url)) for url in self._urls)

    def find(self) -> list[LogObject]:
        """Return all log objects at once, in order of delivery."""
        return list(self.search(ALL, NothingKnown()))

    def search(self, wanted: Wanted, known: Known, searched: Searched | None = None) -> Found:
        """Return the log objects to ingest; they are kept on the disk until ``release``.

        Raise S3Error if S3 refuses or fails, SourceError if there is no log object, which says what there is instead.
        """
        started = datetime.now(UTC).replace(second=0, microsecond=0)
        try:
            walks = self._run(wanted, known, searched)
            found = self._found(walks, wanted, started)
        except BaseException:
            self.release()
            raise
        for walk in walks:
            # With a note or known objects there is just nothing new.
            if not (walk.taken or walk.known_objects or walk.note):
                self.release()
                raise SourceError(in_thread(s3_nearest.what_there_is(walk)))
        return found

    def release(self) -> None:
        """Delete what was found, and end what this process fetches."""
        close_fetchers()
        self._spool.remove()
        self._spool = Spool()

    def _walks(self, wanted: Wanted, known: Known) -> list[Walk]:
        names = list(self._buckets)
        notes = known.listed()
        listers = {name: Lister(bucket) for name, bucket in self._buckets.items()}
        return [
            Walk(
                *(url, names.index(url.bucket), listers[url.bucket], wanted, known, self._spool),
                note=_covering(notes, url, wanted),
            )
            for url in self._urls
        ]

    def _run(self, wanted: Wanted, known: Known, searched: Searched | None) -> list[Walk]:
        """Walk through all prefixes. A bucket that is in another region than the environment names is found there."""
        for is_last in (False, True):
            walks = self._walks(wanted, known)

            def meanwhile(walks: list[Walk] = walks) -> None:
                if searched is not None:
                    searched(sum(walk.seen for walk in walks), sum(walk.folders for walk in walks))

            try:
                in_thread(work_off([walk.start() for walk in walks]), meanwhile)
            except S3Error as error:
                if is_last or not _may_be_elsewhere(error) or not self._move():
                    raise
                self.release()
                continue
            meanwhile()
            break
        return walks

    def _move(self) -> bool:
        """Take each bucket in the region that it is in; return whether that changes anything."""
        regions = {name: bucket_region(name) for name in self._buckets}
        moved = {name: bucket.moved_to(region) for name, bucket in self._buckets.items() if (region := regions[name])}
        self._buckets |= moved
        return bool(moved)

    def _found(self, walks: list[Walk], wanted: Wanted, started: datetime) -> Found:
        buckets = list(self._buckets.values())
        readers = [S3Reader(bucket) for bucket in buckets]

        def make(text: str) -> LogObject:
            minute, size, version, number, key = fields(text)
            digits = (minute[:4], minute[4:6], minute[6:8], minute[8:10], minute[10:])
            delivered_at = datetime(*map(int, digits), tzinfo=UTC)  # type: ignore[arg-type,misc]
            name = safe_name(str(S3Url(buckets[number].name, key)))
            problem = None if all(sign >= " " for sign in key) else "its key has control characters"
            return LogObject(name, key, version, size, delivered_at, readers[number], problem)

        listers = {id(walk.lister): walk.lister for walk in walks}.values()
        timed = sum(lister.timed for lister in listers)
        found = Found(self._spool.spans(make), known=sum(walk.known_objects for walk in walks), remote=True)
        days = self._spool.days
        found.first_day, found.last_day = days or (None, None)
        for walk in walks:
            found.accounts |= walk.accounts
            found.regions |= walk.regions
            found.passed_over += walk.passed_over
        found.requests = sum(lister.requests for lister in listers)
        found.latency = sum(lister.seconds for lister in listers) / timed if timed else 0.0
        found.notes = tuple(_note(walk, wanted, started) for walk in walks if _is_folder(walk.url))
        found.is_first = not found.known and not any(walk.note for walk in walks)
        return found


def _may_be_elsewhere(error: S3Error) -> bool:
    """Return whether S3 may have refused a request because it went to another region."""
    failure = failure_of(error.__cause__) if error.__cause__ is not None else None
    # A HEAD request is refused without a word.
    return failure is not None and (failure.kind == "region" or failure.text == "HTTP 400")


def _is_folder(url: S3Url) -> bool:
    """Return whether a URL is noted: one with a dot in its last part may be an object."""
    return "." not in url.key.rstrip("/").rpartition("/")[2]


def _folder(url: S3Url) -> str:
    text = str(url)
    return text if text.endswith("/") else f"{text}/"


def _outermost(urls: Sequence[S3Url]) -> list[S3Url]:
    """Return the URLs without those that lie below another one."""
    chosen: list[S3Url] = []
    for url in sorted(set(urls), key=lambda url: (url.bucket, len(url.key))):
        if not any(_folder(url).startswith(_folder(other)) for other in chosen):
            chosen.append(url)
    return chosen


def _covering(notes: Sequence[Listed], url: S3Url, wanted: Wanted) -> Listed | None:
    """Return the note that says most about what is wanted of a place."""
    since = None if wanted.since is None else wanted.since.astimezone(UTC).isoformat()
    fitting = [
        note
        for note in notes
        if _folder(url).startswith(note.place)
        and _covers(note.accounts, wanted.accounts)
        and _covers(note.regions, wanted.regions)
        and (note.since is None or (since is not None and note.since <= since))
    ]
    return max(fitting, key=lambda note: note.through, default=None)


def _covers(noted: Sequence[str], wanted: frozenset[str]) -> bool:
    return not noted or (bool(wanted) and wanted <= set(noted))


def _note(walk: Walk, wanted: Wanted, started: datetime) -> Listed:
    """Return the note to make when all that a walk has found is ingested."""
    through = started if wanted.until is None else min(started, _minute(wanted.until))
    since = None if wanted.since is None else _minute(wanted.since).isoformat()
    if walk.note is not None and (since is None or since <= walk.note.through):
        since = walk.note.since
        through = max(through, datetime.fromisoformat(walk.note.through))
    return Listed(
        safe_name(_folder(walk.url)),
        tuple(sorted(wanted.accounts)),
        tuple(sorted(wanted.regions)),
        since,
        through.isoformat(),
    )


def _minute(value: datetime) -> datetime:
    return value.astimezone(UTC).replace(second=0, microsecond=0)
