"""The questions people really have: one resource, one object, a term anywhere, costs, two periods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.api.handle import Handle

if TYPE_CHECKING:
    from typing import Literal

    from trailsift.analysis.compare import Comparison
    from trailsift.analysis.cost import CostReport
    from trailsift.analysis.object import ObjectReport
    from trailsift.analysis.resource import ResourceReport
    from trailsift.analysis.search import SearchReport
    from trailsift.api.handle import StrPath, Time


class QuestionMethods(Handle):
    """Methods that answer one question each."""

    def resource(self, name: str, *, since: Time = None, until: Time = None) -> ResourceReport:
        """Return who reads, writes, deletes and lists a bucket, table, function or other resource, and from where.

        Counts are of the whole UTC days that the period touches, and include dropped and sampled events.

        Args:
            name: An ARN, ``s3://bucket``, a name, or a part that no other resource has.
            since: Start of the period.
            until: End of the period, not included.

        Raises:
            UsageError: No resource or several match the name, or a time is invalid.

        Example:
            >>> report = lake.resource("kelp-orders-media")
            >>> report.resource_arn, report.calls <= report.events + report.copies
            ('arn:aws:s3:::kelp-orders-media', True)
        """
        from trailsift.analysis.resource import resource

        return resource(self._engine(), name, self.period(since, until))

    def object(self, name: str, *, since: Time = None, until: Time = None, limit: int = 1000) -> ObjectReport:
        """Return every call that touched an object, the last one first; copies and access points included.

        Args:
            name: ``BUCKET/KEY``, ``s3://BUCKET/KEY`` or an ARN; ``*`` in the key stands for any text.
            since: Start of the period.
            until: End of the period, not included.
            limit: Touches at most, the newest; 0 is all.

        Raises:
            UsageError: The name has no key, the lake no such bucket, or a time or the limit is invalid.

        Example:
            >>> lake.object("kelp-orders-media/*", limit=2).touches[0].touch
            'target'
        """
        from trailsift.analysis.object import object_touches

        return object_touches(self._engine(), name, self.period(since, until), limit)

    def search(self, term: str, *, since: Time = None, until: Time = None, limit: int = 10) -> SearchReport:
        """Look for a term wherever it can be, by its shape.

        Addresses, access keys, ARNs, ids and object keys are looked up in the stored events; names and parts of names
        in the summaries, which count every event, by whole UTC days.

        Args:
            term: An address or range, access key, ARN, account, object key, user agent, event or request id, session
                name, or a part of a name.
            since: Start of the period.
            until: End of the period, not included.
            limit: Lines of each kind, and events, at most; 0 is all.

        Raises:
            UsageError: An empty or very long term, an invalid time, or a negative limit.

        Example:
            >>> report = lake.search("orders-etl")
            >>> report.hits[0].where, report.hits[0].value
            ('caller', 'arn:aws:iam::400011112201:role/orders-etl-batch')
        """
        from trailsift.analysis.search import search

        return search(self._engine(), term, self.period(since, until), limit)

    def cost(
        self,
        by: Literal["caller", "resource", "event", "pattern"] | None = None,
        *,
        since: Time = None,
        until: Time = None,
        limit: int = 8,
        prices: StrPath | None = None,
    ) -> CostReport:
        """Return what a trail charges for the events, in dollars a month, by group; and what is paid twice.

        Args:
            by: One kind of group only. Default: all.
            since: Start of the period; whole UTC days count.
            until: End of the period, not included.
            limit: Lines of each group at most, the most expensive; 0 is all.
            prices: A file of your own prices (TOML). Default: the file that TRAILSIFT_PRICES names, else list prices.

        Raises:
            UsageError: An unknown group, a file of prices that cannot be used, an invalid time or a negative limit.

        Example:
            >>> report = lake.cost("caller", limit=1)
            >>> report.price.usd, report.groups[0].lines[0].names[0]
            (0.1, 'arn:aws:iam::400011112201:role/orders-etl-batch')
        """
        from trailsift.analysis.cost import cost
        from trailsift.analysis.status import status
        from trailsift.prices import load_prices

        listed = load_prices(None if prices is None else Path(prices))
        engine = self._engine()
        duplicates = status(self._root()).totals["duplicates"]
        return cost(engine, self.period(since, until), listed, duplicates, limit, by)

    def compare(
        self,
        *,
        since: Time,
        until: Time = None,
        other: tuple[Time, Time] | None = None,
        limit: int = 20,
    ) -> Comparison:
        """Return what is new, gone, more or less in a period than in another one, those that matter most first.

        By caller, resource, action, key pattern and network; by events per day of whole UTC days.

        Args:
            since: Start of the period.
            until: End of the period, not included. Default: the end of what the lake has.
            other: Start and end of the period to compare with. Default: as many days just before.
            limit: Differences at most; 0 is all.

        Raises:
            UsageError: No start, periods that overlap, an invalid time or a negative limit.

        Example:
            >>> comparison = lake.compare(since="2026-03-04", other=("2026-03-02", "2026-03-04"))
            >>> comparison.days, comparison.other_days
            (1, 2)
        """
        from trailsift.analysis.compare import compare

        with_ = None if other is None else self.period(*other)
        return compare(self._engine(), self.period(since, until), with_, limit)
