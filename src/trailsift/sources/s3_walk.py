"""The walk through one prefix of a bucket: which folders are listed, from where on, and which objects are taken."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial

from trailsift.decode.names import safe_name
from trailsift.lake.commit import IngestedObject, Listed
from trailsift.sources import cloudtrail_layout as layout
from trailsift.sources.base import Known, Wanted, delivery_minute
from trailsift.sources.s3_fetch import NO_ETAG
from trailsift.sources.s3_listing import PAGE, Entry, Lister, Step
from trailsift.sources.spool import Spool, line
from trailsift.storage.s3_client import S3Url

#: Names that are listed again of a folder that is known: objects appear in the order of their names, or nearly so.
AGAIN = timedelta(hours=1)
#: Days up to which folders are named, instead of listed to see which there are.
_NAMED_DAYS = 8
#: Folders outside of CloudTrail's layout that are looked into one by one, before the rest is listed as a whole.
_LOOKED_INTO = 300
#: Pages of one day's folder after which its hours are listed side by side.
_PAGES_ALONE = 3


@dataclass
class Walk:
    """Finds log objects under one prefix and adds those that the lake does not know to the spool."""

    url: S3Url
    #: The number by which lines of the spool name the bucket.
    number: int
    lister: Lister
    wanted: Wanted
    known: Known
    spool: Spool
    #: The note by which folders are known up to a time, if the lake has one for this prefix.
    note: Listed | None = None
    #: Objects seen, those that are new, those ingested before, and those delivered at another time or of another
    #: account or region.
    seen: int = 0
    taken: int = 0
    known_objects: int = 0
    outside: int = 0
    folders: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    accounts: set[str] = field(default_factory=set)
    regions: set[str] = field(default_factory=set)
    #: Folders by region and day that there are, for messages: the last day's.
    newest_folder: str = ""
    _looked_into: int = 0

    def start(self) -> Step:
        """Return the first step."""
        return partial(self._enter, self.url.key)

    async def _enter(self, key: str) -> Sequence[Step]:
        """Begin with what the user has named: an object, a folder, or nothing that is there."""
        if key and not key.endswith("/"):
            name = key.rpartition("/")[2]
            if "." in name and (entry := await self.lister.object(key)) is not None:
                self._take([entry], layout.Place(), everything=True)
                return ()
            key += "/"
        return self._visit(key) if key else [partial(self._look, "", layout.Place())]

    def _visit(self, folder: str) -> Sequence[Step]:
        """Return the steps for a folder, by what its path says."""
        place = layout.place_of(folder)
        if place.level == "other":
            self.passed_over[safe_name(place.other, 60)] += 1
            return ()
        if not self._is_wanted(place) or not layout.may_hold(place, self.wanted.since, self.wanted.until):
            return ()
        match place.level:
            case "day":
                return self._list_day(folder, place)
            case "region" if (days := self._named_days()) is not None:
                return [step for day in layout.day_folders(folder, *days) for step in self._visit(day)]
            case "elsewhere":
                return [partial(self._look, folder, place)]
        return [partial(self._descend, folder)]

    def _is_wanted(self, place: layout.Place) -> bool:
        """Return whether a folder may hold what is wanted: what its path does not say may be wanted."""
        accounts, regions = self.wanted.accounts, self.wanted.regions
        return (not accounts or place.account is None or place.account in accounts) and (
            not regions or place.region is None or place.region in regions
        )

    def _named_days(self) -> tuple[date, date] | None:
        """Return the days whose folders may hold what is wanted, if they are few."""
        if self.wanted.since is None:
            return None
        last = min(self.wanted.until or datetime.max.replace(tzinfo=UTC), datetime.now(UTC) + AGAIN)
        first = self.wanted.since.astimezone(UTC).date() - timedelta(days=1)
        days = first, last.astimezone(UTC).date()
        return days if (days[1] - days[0]).days < _NAMED_DAYS else None

    async def _descend(self, folder: str) -> Sequence[Step]:
        """Go on with the folders in a folder of the layout."""
        found = await self.lister.children(folder)
        self.folders += 1
        self._take(found.objects, layout.place_of(folder))
        return [step for child in found.folders for step in self._visit(child)]

    async def _look(self, folder: str, place: layout.Place) -> Sequence[Step]:
        """Look into a folder of which nothing is known: take a small one whole, descend into one that has folders."""
        pages = self.lister.pages(folder)
        first: list[Entry] = await anext(pages, [])
        flat = all("/" not in entry.key[len(folder) :] for entry in first)
        whole = len(first) < PAGE
        if not whole and not flat and self._looked_into < _LOOKED_INTO:
            self._looked_into += 1
            await pages.aclose()  # type: ignore[attr-defined]
            return await self._descend(folder)
        self.folders += 1
        self._take_anywhere(first)
        async for page in pages:
            self._take_anywhere(page)
        return ()

    # -- a day's folder --------------------------------------------------------------------------------------------

    def _list_day(self, folder: str, place: layout.Place) -> Sequence[Step]:
        since, expired = self._resume(folder, place)
        if expired:
            return ()
        after = None if since is None else layout.starting_name(folder, place, since)
        until = self.wanted.until
        before = None if until is None else layout.starting_name(folder, place, until)
        return [partial(self._list, folder, place, after, before, 0)]

    def _resume(self, folder: str, place: layout.Place) -> tuple[datetime | None, bool]:
        """Return from when on a folder is listed, and whether that is not needed at all."""
        since = self.wanted.since
        if self.note is None or self.wanted.again:
            return since, False
        through = datetime.fromisoformat(self.note.through)
        name = safe_name(str(S3Url(self.url.bucket, folder)))
        newest = self.known.newest_known([name]).get(name)
        minute = None if newest is None else delivery_minute(newest)
        if minute is not None:
            known = min(minute, through) - AGAIN
            return known if since is None else max(since, known), False
        # The lake forgets names. Of days that long ago, what was ingested cannot be told from what was not: the note
        # says that it was.
        forgotten = datetime.now(UTC) - timedelta(days=self.known.names_kept_days)
        last = place.dates[1] if place.dates else date.max
        return since, last < min(forgotten, through).date()

    async def _list(
        self, folder: str, place: layout.Place, after: str | None, before: str | None, pages: int
    ) -> Sequence[Step]:
        """List a folder between two names."""
        stream = self.lister.pages(folder, after)
        self.folders += not pages
        more: list[Step] = []
        async for page in stream:
            entries = [entry for entry in page if before is None or entry.key < before]
            self._take(entries, place)
            pages += 1
            if len(entries) < len(page):
                break
            if pages == _PAGES_ALONE and not more:
                hours = self._hours(folder, place, entries[-1], before)
                more = [partial(self._list, folder, place, low, high, pages) for low, high in hours[1:]]
                before = hours[0][1] if hours else before
        return more

    def _hours(
        self, folder: str, place: layout.Place, last: Entry, before: str | None
    ) -> list[tuple[str | None, str | None]]:
        """Cut the rest of a day's folder into hours, the present one first; empty if its names do not say."""
        minute = delivery_minute(last.key)
        if minute is None:
            return []
        starts = []
        for hour in range(minute.hour + 1, 24):
            name = layout.starting_name(folder, place, minute.replace(hour=hour, minute=0))
            if name is None:
                return []
            if name > last.key and (before is None or name < before):
                starts.append(name)
        bounds = [None, *starts, before]
        return list(itertools.pairwise(bounds))

    # -- objects ---------------------------------------------------------------------------------------------------

    def _take_anywhere(self, entries: Sequence[Entry]) -> None:
        """Take objects of which each may be in another folder."""
        by_folder: dict[str, list[Entry]] = {}
        for entry in entries:
            by_folder.setdefault(entry.key.rpartition("/")[0], []).append(entry)
        for folder, part in by_folder.items():
            self._take(part, layout.place_of(folder))

    def _take(self, entries: Sequence[Entry], place: layout.Place, *, everything: bool = False) -> None:
        """Add the wanted ones of some objects of one folder, if the lake does not know them."""
        if place.level == "day":
            self.newest_folder = max(self.newest_folder, entries[0].key.rpartition("/")[0]) if entries else ""
        chosen = list(self._chosen(entries, place, everything))
        if not chosen:
            return
        found = [
            IngestedObject(safe_name(str(S3Url(self.url.bucket, entry.key))), version, _day(minute))
            for entry, version, minute in chosen
        ]
        new = [True] * len(found) if self.wanted.again else self.known.unknown(found)
        for (entry, version, minute), is_new in zip(chosen, new, strict=True):
            if is_new:
                self.taken += 1
                self.spool.add(minute, entry.size, line(minute, entry.size, version, self.number, entry.key))
            else:
                self.known_objects += 1

    def _chosen(
        self, entries: Sequence[Entry], place: layout.Place, everything: bool
    ) -> Iterator[tuple[Entry, str, str]]:
        """Yield the wanted ones with their version and the minute of their delivery (YYYYMMDDHHMM)."""
        since, until = (None if time is None else _digits(time) for time in (self.wanted.since, self.wanted.until))
        for entry in entries:
            if entry.size == 0:
                # What stands for a folder.
                continue
            self.seen += 1
            kind = None if everything else _kind(entry.key, place)
            if kind is not None:
                self.passed_over[kind] += 1
                continue
            account, region = place.account, place.region
            if account is None or region is None:
                account, region = layout.name_parts(entry.key)
            minute = _digits(delivery_minute(entry.key.rpartition("/")[2]) or entry.modified)
            inside = (since is None or minute >= since) and (until is None or minute < until)
            if not inside or not self.wanted.takes(account, region):
                self.outside += 1
                continue
            if account is not None:
                self.accounts.add(account)
            if region is not None:
                self.regions.add(region)
            yield entry, _version(entry), minute


def _kind(key: str, place: layout.Place) -> str | None:
    """Return the kind of an object that is not fetched."""
    if place.level == "day" and "_CloudTrail_" in key:
        return None
    if key.rpartition("/")[2].startswith("."):
        return "hidden object"
    return layout.other_kind(key)


def _version(entry: Entry) -> str:
    """Return the ETag without its quotes; for a server that has none, size and time."""
    if entry.e_tag is None:
        return f"{NO_ETAG}{entry.size},time={entry.modified.timestamp():.0f}"
    tag = safe_name(entry.e_tag, 200)
    return tag[1:-1] if len(tag) > 2 and tag[0] == tag[-1] == '"' else tag


def _day(minute: str) -> str:
    """Return the day of a minute, ISO 8601."""
    return f"{minute[:4]}-{minute[4:6]}-{minute[6:8]}"


def _digits(time: datetime) -> str:
    utc = time.astimezone(UTC)
    return f"{utc.year:04}{utc.month:02}{utc.day:02}{utc.hour:02}{utc.minute:02}"
