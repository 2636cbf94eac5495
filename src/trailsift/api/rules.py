"""Decide what to keep: estimates, rules, and event selectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.api.handle import Handle, rules_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trailsift.analysis.estimate import Estimate
    from trailsift.analysis.suggest import Suggestions
    from trailsift.analysis.trail_coverage import Need, SelectionCost
    from trailsift.api.handle import StrPath, Time
    from trailsift.aws.selectors import SelectorRequest
    from trailsift.detect.rule_impact import Loss
    from trailsift.ingest.dry_run import DryRun
    from trailsift.rules import Rules


class RuleMethods(Handle):
    """Methods that filter and sample."""

    def estimate(
        self,
        by: Sequence[str] = (),
        *,
        where: str | None = None,
        since: Time = None,
        until: Time = None,
        limit: int = 0,
    ) -> Estimate:
        """Estimate events and bytes of a sampled lake with 95 % confidence intervals.

        Values from a summary table are exact and marked so.

        Args:
            by: Columns of events to group by; also ``hour`` and ``date``.
            where: An SQL condition on the columns of events.
            since: Start of the period.
            until: End of the period, not included.
            limit: Groups at most, the largest ones; 0 is all.

        Raises:
            QueryError: The condition cannot run.
            UsageError: An unknown column or an invalid time.

        Example:
            >>> estimate = lake.estimate(["service"])
            >>> estimate.exact, sum(group.events.estimate for group in estimate.groups)
            (True, 2000)
        """
        from trailsift.analysis.estimate import estimate

        period = self.period(since, until)
        return estimate(self._engine(), by, where, period, limit)

    def suggest(self, limit: int = 10, *, prices: StrPath | None = None) -> Suggestions:
        """Suggest rules for large, steady volume.

        Args:
            limit: Suggestions at most; 0 is all.
            prices: Your own prices (TOML). Default: list prices, by region.

        Raises:
            UsageError: A negative limit, or prices that cannot be read.

        Example:
            >>> suggestions = lake.suggest(3)
            >>> len(suggestions.lines) <= 3, suggestions.toml.startswith("[[rule]]")
            (True, True)
        """
        from trailsift.analysis.suggest import suggest
        from trailsift.prices import load_prices

        return suggest(self._engine(), load_prices(None if prices is None else Path(prices)), limit)

    def try_rules(self, rules: Rules | StrPath, *, prices: StrPath | None = None) -> DryRun:
        """Apply rules to the stored events without changing anything: what they would keep, sample and drop.

        Args:
            rules: Rules, a rules file, or the name of a preset.
            prices: Your own prices (TOML). Default: list prices, by region.

        Raises:
            RulesError: The rules file cannot be used.
            SourceError: The lake holds no events.

        Example:
            >>> lake.try_rules("important-events").events
            2000
        """
        chosen = rules_of(rules)
        from trailsift.ingest.dry_run import dry_run
        from trailsift.prices import load_prices

        return dry_run(chosen, load_prices(None if prices is None else Path(prices)), (), self._root())

    def rule_impact(self, rules: Rules | StrPath) -> list[Loss]:
        """Return what becomes of each finding under rules, the worst first. Nothing is changed.

        Args:
            rules: Rules, a rules file, or the name of a preset.

        Raises:
            RulesError: The rules file cannot be used.

        Example:
            >>> {loss.fate for loss in lake.rule_impact("important-events")} <= {
            ...     "lost", "without events", "weaker", "with fewer events", "as before"
            ... }
            True
        """
        chosen = rules_of(rules)
        from trailsift.detect.detection_rules import builtin_rules
        from trailsift.detect.rule_impact import losses
        from trailsift.ingest.what_if import filtered_lake
        from trailsift.lake.open import open_snapshot
        from trailsift.query import DuckDBEngine

        with filtered_lake(self._root(), chosen) as folder, DuckDBEngine(open_snapshot(folder)) as sampled:
            return losses(self._engine(), sampled, builtin_rules()[0])

    def data_event_candidates(self, *, since: Time = None, until: Time = None) -> list[Need]:
        """Return the callers whose management events call for data events, the strongest first, with the reasons.

        Args:
            since: Start of the period.
            until: End of the period, not included.

        Raises:
            UsageError: An invalid time.

        Example:
            >>> lake.data_event_candidates()[0].reasons[0]
            'uses keys (25 calls): reads or writes encrypted data without data events'
        """
        from trailsift.analysis.trail_coverage import needs

        period = self._hours(since, until)
        return needs(self._engine(), period)

    def has_data_events(self) -> bool:
        """Return whether the lake has seen any data event, whatever rules left of them.

        Example:
            >>> lake.has_data_events()
            True
        """
        from trailsift.analysis.trail_coverage import has_data_events

        return has_data_events(self._engine())

    def selector_cost(self, request: SelectorRequest) -> SelectionCost:
        """Estimate what event selectors cost per month at the rates of this lake.

        Args:
            request: The roles, services and buckets that the selectors ask for.
        """
        from trailsift.analysis.trail_coverage import cost

        return cost(self._engine(), self.period(), request)
