"""The walk through one prefix of a bucket: which folders are listed, from where on, and which objects are taken."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial

from trailsift.decode.names import safe_name
from trailsift.lake.commit import Listed
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
            case "month":
                return [partial(self._list_month, folder, place)]
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

    async def _descend_by_page(self, folder: str) -> Sequence[Step]:
        """Go on with the folders in a folder that has many objects of its own."""
        self.folders += 1
        children: list[str] = []
        async for found in self.lister.many_children(folder):
            self._take(found.objects, layout.place_of(folder))
            children += found.folders
        return [step for child in children for step in self._visit(child)]

    async def _look(self, folder: str, place: layout.Place) -> Sequence[Step]:
        """Look into a folder of which nothing is known: take a small one whole, descend into one that has folders."""
        pages = self.lister.pages(folder)
        first: list[Entry] = await anext(pages, [])
        flat = all("/" not in entry.key[len(folder) :] for entry in first)
        whole = len(first) < PAGE
        if not whole and not flat and self._looked_into < _LOOKED_INTO:
            self._looked_into += 1
            await pages.aclose()  # type: ignore[attr-defined]
            is_mixed = any("/" not in entry.key[len(folder) :] for entry in first)
            return await (self._descend_by_page(folder) if is_mixed else self._descend(folder))
        self.folders += 1
        self._take_anywhere(first)
        async for page in pages:
            self._take_anywhere(page)
        return ()

    # -- folders of days -------------------------------------------------------------------------------------------

    async def _list_month(self, folder: str, place: layout.Place) -> Sequence[Step]:
        """List the days of a month in one go: a quiet trail has few names a day, and an answer holds 1,000.

        The rest of a busy month is listed day by day, side by side. Of days that are known, only the end is listed.
        """
        after, before = self._bounds_of_month(folder, place)
        if self._is_forgotten(place) and not self._newest([folder]):
            return ()
        pages = 0
        while True:
            onwards: str | None = None
            async for page in self.lister.pages(folder, after):
                entries = [entry for entry in page if before is None or entry.key < before]
                self._take_anywhere(entries)
                pages += 1
                if len(entries) < len(page):
                    return ()
                last = entries[-1].key
                if pages >= _PAGES_ALONE and len(page) == PAGE:
                    return self._rest_of_month(folder, place, last, before)
                onwards = self._end_of_known(last)
                if onwards is not None:
                    break
            if onwards is None:
                return ()
            after = onwards

    def _bounds_of_month(self, folder: str, place: layout.Place) -> tuple[str | None, str | None]:
        """Return the names between which a month holds what is wanted."""
        after = before = None
        since, until = self.wanted.since, self.wanted.until
        if since is not None:
            # The folder of the day before is looked at too.
            day = since.astimezone(UTC) - timedelta(days=1)
            if (day.year, day.month) == (place.year, place.month):
                first = f"{folder}{day:%d}/"
                after = layout.starting_name(first, layout.place_of(first), since) or first
        if until is not None:
            day = until.astimezone(UTC)
            if (day.year, day.month) == (place.year, place.month):
                last = f"{folder}{day:%d}/"
                before = layout.starting_name(last, layout.place_of(last), until)
        return after, before

    def _rest_of_month(self, folder: str, place: layout.Place, last: str, before: str | None) -> Sequence[Step]:
        """Return the steps for what comes after a name in a busy month: for each day one."""
        current = f"{last.rpartition('/')[0]}/"
        today = layout.place_of(current)
        if today.level != "day" or today.dates is None or place.dates is None:
            return [partial(self._list, folder, layout.Place(), last, before, 1)]
        first = today.dates[0] + timedelta(days=1)
        end = min(place.dates[1], (datetime.now(UTC) + timedelta(days=1)).date())
        days = layout.day_folders(folder.removesuffix(f"{place.year:04}/{place.month:02}/"), first, end)
        since = max(last, self._end_of_known(last) or last)
        rest = [step for day in days for step in self._visit(day)]
        return [*rest, partial(self._list, current, today, since, before, 0)]

    def _end_of_known(self, last: str) -> str | None:
        """Return a later name in the folder of this one, up to which all is known; None if there is none."""
        folder = f"{last.rpartition('/')[0]}/"
        place = layout.place_of(folder)
        if self.note is None or self.wanted.again or place.level != "day":
            return None
        since = self._known_until(self._newest([folder]).get(folder))
        after = None if since is None else layout.starting_name(folder, place, since)
        return after if after is not None and after > last else None

    def _list_day(self, folder: str, place: layout.Place) -> Sequence[Step]:
        """Return the step for the folder of one day."""
        since, until = self.wanted.since, self.wanted.until
        newest = self._newest([folder]).get(folder)
        if newest is None and self._is_forgotten(place):
            return ()
        known = self._known_until(newest)
        since = known if since is None else max(since, known or since)
        after = None if since is None else layout.starting_name(folder, place, since)
        before = None if until is None else layout.starting_name(folder, place, until)
        return [partial(self._list, folder, place, after, before, 0)]

    def _newest(self, folders: Sequence[str]) -> dict[str, str]:
        """Return the newest names that the lake knows of some folders, if a note says that it had all up to a time."""
        if self.note is None or self.wanted.again:
            return {}
        names = {safe_name(str(S3Url(self.url.bucket, folder))): folder for folder in folders}
        return {names[name]: newest for name, newest in self.known.newest_known(list(names)).items()}

    def _known_until(self, newest: str | None) -> datetime | None:
        """Return from when on a folder is listed whose newest known name is this; None if nothing of it is known."""
        minute = None if newest is None else delivery_minute(newest)
        if minute is None or self.note is None:
            return None
        return min(minute, datetime.fromisoformat(self.note.through)) - AGAIN

    def _is_forgotten(self, place: layout.Place) -> bool:
        """Return whether the lake has forgotten the names of a folder, of which a note says that all was ingested.

        What was ingested that long ago cannot be told from what was not, and would be stored twice.
        """
        if self.note is None or self.wanted.again or place.dates is None:
            return False
        forgotten = datetime.now(UTC) - timedelta(days=self.known.names_kept_days)
        return place.dates[1] < min(forgotten, datetime.fromisoformat(self.note.through)).date()

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
            by_folder.setdefault(entry.key[: entry.key.rindex("/") + 1] if "/" in entry.key else "", []).append(entry)
        newest = self._newest(list(by_folder))
        chosen: list[tuple[Entry, str, str]] = []
        for folder, part in by_folder.items():
            place = layout.place_of(folder)
            if folder not in newest and self._is_forgotten(place):
                self.known_objects += len(part)
            else:
                chosen += self._chosen(part, place)
        self._add(chosen)

    def _take(self, entries: Sequence[Entry], place: layout.Place, *, everything: bool = False) -> None:
        """Take the wanted ones of some objects of one folder."""
        self._add(list(self._chosen(entries, place, everything=everything)))

    def _add(self, chosen: Sequence[tuple[Entry, str, str]]) -> None:
        """Add objects that are wanted, each with its version and minute, unless the lake knows them."""
        names = [(safe_name(str(S3Url(self.url.bucket, entry.key))), version) for entry, version, _ in chosen]
        new = [True] * len(names) if self.wanted.again or not names else self.known.unknown(names)
        for (entry, version, minute), is_new in zip(chosen, new, strict=True):
            if is_new:
                self.taken += 1
                self.spool.add(minute, entry.size, line(minute, entry.size, version, self.number, entry.key))
            else:
                self.known_objects += 1

    def _chosen(
        self, entries: Sequence[Entry], place: layout.Place, *, everything: bool = False
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


def _digits(time: datetime) -> str:
    utc = time.astimezone(UTC)
    return f"{utc.year:04}{utc.month:02}{utc.day:02}{utc.hour:02}{utc.minute:02}"
