"""Ask the lake: SQL, and the reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from trailsift.api.handle import Handle

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from trailsift.analysis.roles import RoleReport, RoleSummary
    from trailsift.analysis.summary import Overview, Summary
    from trailsift.api.handle import Time
    from trailsift.query import Explanation
    from trailsift.query.query_result import QueryResult

    Group: TypeAlias = Literal["event", "caller", "role", "resource", "hour", "service", "account", "region", "error"]


class QueryMethods(Handle):
    """Methods that query and report."""

    def query(
        self,
        sql: str,
        *,
        cache: bool = True,
        ttl: float | None = None,
        timeout: float | None = None,
        arrow: bool = False,
    ) -> QueryResult:
        """Run one read-only SQL statement over the tables of the lake.

        Args:
            sql: A statement over events, hourly, usage, profile, access, sessions and rejects; or ``@NAME``, for a
                query that is saved in the lake (`save_query`).
            cache: Use the cached result of the same statement on the same commit.
            ttl: Seconds for which the result of a statement that uses the present time may come from the cache.
            timeout: Seconds after which the statement is stopped, planning and reading the result included. A single
                function over one huge text cannot be interrupted: then this method raises all the same, and the
                function ends in the background. `trailsift query --timeout` ends its process instead.
            arrow: The result will be read as Arrow, pandas or Polars (saves running the statement twice).

        Returns:
            The result; a large one streams.

        Raises:
            QueryError: The SQL cannot run; the message names the position and the nearest known name.
            QueryTimeoutError: The statement took longer than ``timeout``.
            QueryMemoryError: The statement needs more memory or disk than it may use.

        Example:
            >>> lake.query("SELECT count(*) AS events FROM events").dicts()
            [{'events': 2000}]
        """
        engine = self._engine(self.timezone)
        from trailsift.query.query_result import QueryResult

        return QueryResult(engine.query(self._sql(sql), cache=cache, ttl=ttl, timeout=timeout, arrow=arrow), engine)

    def explain(self, sql: str, *, timeout: float | None = None) -> Explanation:
        """Return which files a statement would read, without running it. Print it to read it.

        Args:
            sql: The statement, or ``@NAME``.
            timeout: Seconds after which planning is stopped: it computes the statement's constants.

        Raises:
            QueryError: The SQL cannot run.
            QueryTimeoutError: Planning took longer than ``timeout``.

        Example:
            >>> "files" in str(lake.explain("SELECT * FROM events WHERE service = 's3'"))
            True
        """
        from trailsift.query import explain

        return explain(self._engine(self.timezone), self._sql(sql), timeout=timeout)

    def _sql(self, sql: str) -> str:
        """Return a statement, or that of a saved query whose name begins with ``@``."""
        name = sql.strip()
        if not name.startswith("@"):
            return sql
        from trailsift.analysis.saved_queries import saved_query

        return saved_query(self._root(), name).sql

    @overload
    def summary(
        self, by: None = None, *, since: Time = None, until: Time = None, limit: int | None = None
    ) -> Overview: ...

    @overload
    def summary(self, by: Group, *, since: Time = None, until: Time = None, limit: int | None = None) -> Summary: ...

    def summary(
        self, by: Group | None = None, *, since: Time = None, until: Time = None, limit: int | None = None
    ) -> Overview | Summary:
        """Return exact numbers, whatever was dropped or sampled: an overview, or the totals of one kind of group.

        Args:
            by: event, caller (or role, which is the same), resource, hour, service, account, region or error. None: an
                overview.
            since: Start of the period.
            until: End of the period, not included.
            limit: Groups at most, the largest ones; 0 is all. Default: 8 in each list of an overview, else all.

        Returns:
            An Overview or a Summary; ``total`` is None if the period holds no events.

        Raises:
            UsageError: An unknown group, an invalid time or a negative limit.

        Example:
            >>> summary = lake.summary("service")
            >>> summary.total.events == sum(line.measures.events for line in summary.lines) == 2000
            True
        """
        from trailsift.analysis import summary

        period = self._hours(since, until)
        if by is None:
            return summary.overview(self._engine(), period, 8 if limit is None else limit)
        return summary.summary(self._engine(), by, period, limit or 0)

    def roles(self, *, since: Time = None, until: Time = None) -> list[RoleSummary]:
        """Return all callers with their totals, the busiest first: roles, users, services, other accounts.

        Args:
            since: Start of the period.
            until: End of the period, not included.

        Raises:
            UsageError: An invalid time.

        Example:
            >>> roles = lake.roles()
            >>> sum(role.events for role in roles)
            2000
        """
        from trailsift.analysis.roles import roles

        period = self._hours(since, until)
        return roles(self._engine(), period)

    def role(self, name: str, *, since: Time = None, until: Time = None) -> RoleReport:
        """Return one caller's actions, resources, key patterns, hours, origins and denied calls.

        Args:
            name: An ARN, a role's name, the ``caller`` of somebody without an ARN, or a part that no other has.
            since: Start of the period.
            until: End of the period, not included.

        Raises:
            UsageError: No caller or several match the name, or a time is invalid.

        Example:
            >>> lake.role("orders-etl-batch").role_arn
            'arn:aws:iam::400011112201:role/orders-etl-batch'
        """
        from trailsift.analysis.roles import role

        period = self._hours(since, until)
        return role(self._engine(), name, period)

    def why_empty(self, *, since: Time = None, until: Time = None) -> str:
        """Return why a report on a period has no lines: an empty lake, or events of other times only.

        Args:
            since: Start of the period.
            until: End of the period, not included.

        Example:
            >>> lake.why_empty(since="2030-01-01").startswith("nothing from 2030-01-01")
            True
        """
        from trailsift.analysis.base import why_nothing

        period = self.period(since, until)
        return why_nothing(self._engine().snapshot, period)
