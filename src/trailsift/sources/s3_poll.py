"""Log objects as they arrive under prefixes of S3, found by listing now and then.

After a first search for all that is wanted, only the folders of the last days are listed, from the time of the last
search on. What could not be fetched is searched for again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from trailsift.errors import S3Error, SourceError
from trailsift.lake.commit import IngestedObject, Listed
from trailsift.prices import Price
from trailsift.sources.arrivals import Arrival, Key, Settled, Trouble, now
from trailsift.sources.base import ALL, Found, Known, NotFetchedError, Wanted
from trailsift.sources.s3 import S3Source

#: Seconds between two searches.
POLL = 60.0
#: How far a search goes back behind the beginning of the last one: names appear in order, or nearly so.
_BACK = timedelta(hours=1)
#: Failures in a row after which the pauses are the longest: this many times the interval.
_LONGEST = 5
_DAY = 86_400


class PrefixArrivals:
    """Objects that appear under prefixes of S3."""

    def __init__(
        self,
        places: Sequence[str],
        known: Callable[[], Known],
        trouble: Trouble,
        prices: Mapping[str, Price],
        *,
        poll: float = POLL,
        wanted: Wanted = ALL,
        requester_pays: bool = False,
    ) -> None:
        """``known`` returns what the lake knows by now; ``poll``: seconds between two searches."""
        self._places = list(places)
        self._known = known
        self._trouble = trouble
        self._prices = prices
        self._poll = poll
        self._wanted = wanted
        self._requester_pays = requester_pays
        #: The beginning of the last search that went well; None: everything has to be searched.
        self._searched: datetime | None = None
        self._first: Arrival | None = None
        self._next = 0.0
        self._failures = 0
        self._open: list[S3Source] = []

    def __str__(self) -> str:
        return ", ".join(self._places)

    def start(self) -> str:
        """Search for everything, and see what a search of the last days costs. Raise S3Error or SourceError."""
        self._first = self._search()
        # Its result is not used: what the first search has found is not in the lake yet.
        probe = S3Source(self._places, requester_pays=self._requester_pays)
        try:
            requests = probe.search(self._recent(), _Noted(self._known(), self._places, now())).requests
        finally:
            probe.release()
        per_day = requests * _DAY / self._poll
        price = self._prices["s3_list"]
        found = self._first.objects if self._first is not None else 0
        return (
            f"watching {self}: {found:,} log objects are new; every {self._poll:g} s, {requests:,} LIST requests for "
            f"the folders of the last days: {per_day:,.0f} per day, which cost ${price.of(per_day):,.2f} (price of "
            f"us-east-1, {price.date})"
        )

    def _recent(self) -> Wanted:
        """Return what is searched for now: of the last days, unless that is not enough."""
        if self._searched is None:
            return self._wanted
        since = self._searched - _BACK
        first = self._wanted.since
        return replace(self._wanted, since=since if first is None else max(since, first), again=False)

    def _search(self) -> Arrival | None:
        """Return what is new. Raise S3Error, or SourceError if there is nothing at all."""
        began = now()
        wanted = self._recent()
        source = S3Source(self._places, requester_pays=self._requester_pays)
        found = source.search(wanted, self._known())
        self._searched = began
        if not found.objects:
            source.release()
            return None
        self._open.append(source)
        return Arrival((), time.monotonic(), _earliest(found, began), source, found)

    @property
    def caught_up(self) -> bool:
        """True when what the first search has found is taken."""
        return self._first is None

    @property
    def waiting(self) -> int:
        """Number of log objects that were found and are not taken."""
        return 0 if self._first is None else self._first.objects

    def take(self, seconds: float) -> Sequence[Arrival]:
        """Return what a search has found, if it is time for one; else wait."""
        if self._first is not None:
            first, self._first = self._first, None
            self._next = time.monotonic() + self._poll
            return [first]
        left = self._next - time.monotonic()
        if left > 0:
            time.sleep(min(left, seconds))
            return ()
        self._next = time.monotonic() + self._poll
        try:
            arrival = self._search()
        except S3Error as error:
            self._failures += 1
            self._next += self._poll * min(self._failures - 1, _LONGEST)
            if self._failures == 1:
                self._trouble(f"{error}. The watch goes on, and tries again")
            return ()
        except SourceError:
            # Everything was deleted.
            arrival = None
        self._failures = 0
        return [] if arrival is None else [arrival]

    def settle(self, arrivals: Sequence[Arrival], missed: Mapping[Key, NotFetchedError]) -> Settled:
        """Forget what was found. What could not be fetched is searched for again, wherever it is."""
        settled = Settled()
        for (name, _), error in missed.items():
            (settled.gone if error.kind == "deleted" else settled.again)[name] = error.reason
        if settled.again:
            self._searched = None
        self.give_back(arrivals)
        return settled

    def give_back(self, arrivals: Sequence[Arrival]) -> None:
        """Delete the lists of what was found: the next search finds it."""
        for arrival in arrivals:
            arrival.receipt.release()
            self._open.remove(arrival.receipt)

    def close(self) -> None:
        """Delete all lists."""
        for source in self._open:
            source.release()
        self._open.clear()


@dataclass(frozen=True)
class _Noted:
    """A lake as it will be when all that the first search has found is ingested."""

    lake: Known
    places: Sequence[str]
    through: datetime

    @property
    def names_kept_days(self) -> int:
        """As the lake has it."""
        return self.lake.names_kept_days

    def unknown(self, found: Sequence[IngestedObject]) -> list[bool]:
        """As the lake has it."""
        return self.lake.unknown(found)

    def newest_known(self, folders: Sequence[str]) -> dict[str, str]:
        """As the lake has it."""
        return self.lake.newest_known(folders)

    def listed(self) -> Sequence[Listed]:
        """Return notes on all places."""
        through = self.through.replace(second=0, microsecond=0).isoformat()
        return [Listed(place if place.endswith("/") else f"{place}/", (), (), None, through) for place in self.places]


def _earliest(found: Found, moment: datetime) -> datetime:
    """Return the delivery of the earliest log object that was found."""
    first = next(iter(found.spans[0].load()), None)
    return moment if first is None else min(first.delivered_at.astimezone(UTC), moment)
