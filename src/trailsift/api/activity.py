"""What a dashboard asks: events over time, what explains a stretch of them, and what has just arrived."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from trailsift.api.handle import Handle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal, Self, TypeAlias

    from trailsift.analysis.activity import Activity
    from trailsift.analysis.arrivals import Arrivals
    from trailsift.analysis.explain import Against, Explained
    from trailsift.analysis.time_range import Period
    from trailsift.api.handle import Time

    Stack: TypeAlias = Literal["service", "event", "caller", "account", "region", "resource", "error"]


class ActivityMethods(Handle):
    """Methods of a dashboard."""

    def in_zone(self, timezone: str) -> Self:
        """Return a handle on the same lake that reads and shows times in another zone. It is closed with this one.

        Args:
            timezone: IANA name of the zone.

        Raises:
            UsageError: There is no such time zone.

        Example:
            >>> lake.in_zone("Asia/Seoul").period("2026-03-02").as_dict()["since"]
            '2026-03-01T15:00:00Z'
        """
        other = copy.copy(self)
        other.timezone = timezone
        other._zone()
        return other

    def extent(self) -> Period:
        """Return the whole hours that the lake has events of; without limits if it is empty.

        Example:
            >>> lake.extent().as_dict()["since"]
            '2026-03-02T00:00:00Z'
        """
        from trailsift.analysis.activity import within_lake

        return within_lake(self._engine(), self.period())

    def activity(
        self,
        by: Stack = "service",
        *,
        since: Time = None,
        until: Time = None,
        filters: Mapping[str, Iterable[str]] | None = None,
        limit: int = 8,
    ) -> Activity:
        """Return events over time, the same hours a week before, totals, and the largest callers, resources and so on.

        Counts are of whole hours, of networks of whole UTC days, and include dropped and sampled events.

        Args:
            by: What the events are split by: service, event, caller, account, region, resource or error.
            since: Start of the period. Default: the lake's first hour.
            until: End of the period, not included. Default: the lake's last hour.
            filters: Names (service, event, caller, resource, account, region, error, outcome) and the values wanted,
                any of them; an empty text stands for no value. Outcomes are ok, denied and failed.
            limit: Lines of each list at most; 0 is all.

        Raises:
            UsageError: An unknown split or filter, an invalid time, or a negative limit.

        Example:
            >>> activity = lake.activity("event", filters={"service": ["s3"]})
            >>> activity.total.events == sum(sum(series.events) for series in activity.series)
            True
        """
        from trailsift.analysis.activity import activity
        from trailsift.analysis.filters import filters_of

        return activity(self._engine(), self.period(since, until), by, filters_of(filters or {}), limit)

    def explain_change(
        self,
        *,
        since: Time,
        until: Time,
        against: Against = "before",
        filters: Mapping[str, Iterable[str]] | None = None,
        limit: int = 20,
    ) -> Explained:
        """Return what is different in a stretch of time: the values that explain the difference, ranked.

        Callers, events, resources and errors are compared by whole hours; key patterns, networks and clients over the
        whole UTC days that the stretch touches. `trailsift.analysis.explain` describes the method.

        Args:
            since: Start of the stretch.
            until: End of the stretch, not included.
            against: ``before``: the 24 hours before, or as many days as the stretch has; ``weeks``: the same hours of
                the four weeks before.
            filters: As for `activity`; what a table cannot express under them is left out and named.
            limit: Differences at most; 0 is all.

        Raises:
            UsageError: An unknown comparison or filter, an invalid time, or a negative limit.

        Example:
            >>> found = lake.explain_change(since="2026-03-04", until="2026-03-05")
            >>> found.hours, found.total >= len(found.differences)
            ((24, 24), True)
        """
        from trailsift.analysis.explain import explain
        from trailsift.analysis.filters import filters_of

        return explain(self._engine(), self.period(since, until), against, filters_of(filters or {}), limit)

    def arrivals(self, after: int | None = None, *, limit: int = 50) -> Arrivals:
        """Return what commits have brought since one that was seen, with the newest events among it.

        Args:
            after: Number of the commit that was seen (``Arrivals.seq``). None: only the newest commit.
            limit: Events at most, up to 1,000.

        Raises:
            UsageError: A limit out of range.

        Example:
            >>> news = lake.arrivals(limit=3)
            >>> len(news.rows), lake.arrivals(news.seq).stored
            (3, 0)
        """
        from trailsift.analysis.arrivals import arrivals

        return arrivals(self._engine(), after, limit)
