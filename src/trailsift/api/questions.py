"""The questions people really have: one resource, one object, a term anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trailsift.api.handle import Handle

if TYPE_CHECKING:
    from trailsift.analysis.object import ObjectReport
    from trailsift.analysis.resource import ResourceReport
    from trailsift.api.handle import Time


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
