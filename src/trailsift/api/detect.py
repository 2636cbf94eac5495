"""Find what is unusual, judge it, and report it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trailsift.api.handle import Handle
from trailsift.errors import TrailsiftError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Literal, Self, TypeAlias

    from trailsift.api.handle import StrPath, Time
    from trailsift.detect.describe import Language
    from trailsift.detect.detection_rules import Detection, Problem
    from trailsift.detect.finding import Finding
    from trailsift.detect.notify import Form
    from trailsift.detect.own import Own
    from trailsift.detect.pipeline import DetectionResult, FindingDetail
    from trailsift.detect.sigma.report import SigmaReport
    from trailsift.detect.triage import Verdict
    from trailsift.query import DuckDBEngine

    Level: TypeAlias = Literal["novel", "volume", "shapes", "peers", "learned", "detections"]

T = TypeVar("T")


class DetectMethods(Handle):
    """Methods that detect."""

    def detect(
        self,
        *,
        since: Time = None,
        until: Time = None,
        budget: int = 10,
        levels: Iterable[Level] | None = None,
        threshold: int | None = None,
        detections: StrPath | None = None,
        sigma: StrPath | SigmaReport | None = None,
        own: StrPath | None = None,
        muted: bool = False,
        full_refresh: bool = False,
        language: Language = "en",
        clean: Callable[[str], str] = str,
    ) -> DetectionResult:
        """Detect unusual activity: first-time behaviour, volume far above the baseline, odd hours, known attacks.

        Baselines are learned from the whole lake, whatever the period. What was computed is kept in the lake, so that
        the next run reads only what changed.

        Args:
            since: Only findings that end at or after this time.
            until: Only findings that begin before this time.
            budget: Findings per day at most; 0 is all.
            levels: novel, volume, shapes, peers, learned, detections. Default: all.
            threshold: Instead of everything else: hours with more than this many events of one name.
            detections: A folder of your own detections (TOML), beside those that come with trailsift.
            sigma: A folder of Sigma rules, or what `load_sigma` made of one; needs the extra ``sigma``.
            own: A file (TOML) that names your own networks, accounts, partners and scanners. The lake keeps it.
            muted: Also return muted findings.
            full_refresh: Read the whole lake, whatever earlier runs have kept.
            language: Language of the sentences, ``en`` or ``ko``.
            clean: Applied to every string taken from a log before it becomes part of a sentence.

        Returns:
            The findings in rank order, the problems of detections that could not run, and what could not be judged.

        Raises:
            UsageError: An invalid time or threshold, a folder without detections or rules, a mistake in ``own``, or a
                package that is missing.

        Example:
            >>> result = lake.detect(since="2026-03-02")
            >>> len(result.findings) > 0, result.problems
            (True, ())
        """
        from trailsift.detect import pipeline

        chosen = frozenset[str](levels) if levels else pipeline.ALL_LEVELS
        options = pipeline.DetectOptions(
            self.period(since, until),
            budget,
            language=language,
            muted=muted,
            afresh=full_refresh,
            clean=clean,
            levels=chosen,
            own=None if own is None else self._kept(own),
        )
        if threshold is not None:
            return pipeline.DetectionResult(pipeline.over_threshold(self._engine(), threshold, options), (), 0)
        rules, problems = _detections(detections)
        report = _sigma(sigma)
        if report is None:
            result = pipeline.detect(self._engine(), options, rules)
            return replace(result, problems=(*problems, *result.problems))
        from trailsift.detect.sigma.coverage import covered

        result = pipeline.detect(self._engine(), options, [*rules, *report.detections])
        return covered(result, report, self._engine(), problems)

    def _kept(self, own: StrPath) -> Own:
        """Return what a file names as one's own, and keep the file in the lake."""
        from trailsift.detect.own import keep_own, read_own

        names, text = read_own(Path(own))
        keep_own(self._engine().snapshot.root, text)
        return names

    def findings(
        self,
        *,
        since: Time = None,
        until: Time = None,
        budget: int = 10,
        levels: Iterable[Level] | None = None,
        muted: bool = False,
        language: Language = "en",
    ) -> list[Finding]:
        """Return the findings of the lake in rank order; `detect` has more options.

        Args:
            since: Only findings that end at or after this time.
            until: Only findings that begin before this time.
            budget: Findings per day at most; 0 is all.
            levels: novel, volume, shapes, peers, learned, detections. Default: all.
            muted: Also return muted findings.
            language: Language of the sentences, ``en`` or ``ko``.

        Raises:
            UsageError: An invalid time.

        Example:
            >>> first = lake.findings()[0]
            >>> first.severity in ("high", "medium", "low") and bool(first.title)
            True
        """
        result = self.detect(since=since, until=until, budget=budget, levels=levels, muted=muted, language=language)
        return result.findings

    def find(
        self,
        name: str,
        *,
        detections: StrPath | None = None,
        sigma: StrPath | SigmaReport | None = None,
        language: Language = "en",
        clean: Callable[[str], str] = str,
    ) -> Finding:
        """Return a finding without its events.

        Args:
            name: Its id, a unique prefix of it, or its rank in the list (from 1).
            detections: A folder of your own detections, as for `detect`.
            sigma: Sigma rules, as for `detect`.
            language: Language of the sentences, ``en`` or ``ko``.
            clean: Applied to every string taken from a log.

        Raises:
            UsageError: No finding or several findings match.

        Example:
            >>> finding = lake.find("1")
            >>> lake.find(finding.id[:6]).id == finding.id
            True
        """
        from trailsift.detect import pipeline

        options = pipeline.DetectOptions(self.period(), language=language, clean=clean)
        report = _sigma(sigma)
        rules = [*_detections(detections)[0], *(report.detections if report else ())]
        return pipeline.find(self._engine(), name, options, rules)

    def finding(
        self,
        name: str | Finding,
        *,
        limit: int = 10,
        detections: StrPath | None = None,
        sigma: StrPath | SigmaReport | None = None,
        language: Language = "en",
        clean: Callable[[str], str] = str,
    ) -> FindingDetail:
        """Return a finding with its rows of the hourly summary, its events, what surrounds it and what to do next.

        Args:
            name: Its id, a unique prefix of it, its rank in the list (from 1), or the finding itself.
            limit: Events at most, the first ones; 0 is all.
            detections: A folder of your own detections, as for `detect`.
            sigma: Sigma rules, as for `detect`.
            language: Language of the sentences, ``en`` or ``ko``.
            clean: Applied to every string taken from a log.

        Raises:
            UsageError: No finding or several findings match.

        Example:
            >>> detail = lake.finding("1", limit=3)
            >>> detail.finding.reasons != () and len(detail.events) <= 3
            True
        """
        from trailsift.analysis.time_range import UTC_ZONE
        from trailsift.detect.pipeline import drill
        from trailsift.detect.writer import Writer

        report = _sigma(sigma)
        finding = (
            self.find(name, detections=detections, sigma=report, language=language, clean=clean)
            if isinstance(name, str)
            else name
        )
        writer = Writer(language, clean, self.period().zone or UTC_ZONE)
        rules = [*_detections(detections)[0], *(report.detections if report else ())]
        return drill(self._engine(), finding, limit, writer, rules)

    def mute(
        self,
        name: str | Finding,
        reason: str,
        *,
        detections: StrPath | None = None,
        sigma: StrPath | SigmaReport | None = None,
    ) -> Verdict:
        """Mark a finding as benign: it and similar findings are hidden until they grow by 50 %.

        Args:
            name: Its id, a unique prefix of it, its rank in the list, or the finding itself.
            reason: Why; kept in the lake.
            detections: A folder of your own detections, with which the finding was listed.
            sigma: Sigma rules, with which the finding was listed.

        Raises:
            UsageError: No finding or several findings match, or the reason is empty.

        Example:
            >>> finding = lake.find("1")
            >>> lake.mute(finding, "the yearly audit").word
            'mute'
            >>> finding.id in [finding.id for finding in lake.findings()]
            False
        """
        return self._mark(name, "mute", reason, detections, sigma)

    def unmute(self, name: str) -> Verdict:
        """Take back a mute: the finding and similar ones are listed again.

        Args:
            name: The finding's id or a part that begins it, as `mute` and `detect` with ``muted=True`` show it.

        Raises:
            UsageError: No muted finding or several have such an id.

        Example:
            >>> finding = lake.find("2")
            >>> _ = lake.mute(finding, "the weekly backup")
            >>> lake.unmute(finding.id).word
            'unmute'
            >>> finding.id in [finding.id for finding in lake.findings()]
            True
        """
        from trailsift.detect.triage import unmute

        return unmute(self._root(), name)

    def confirm(
        self,
        name: str | Finding,
        reason: str,
        *,
        detections: StrPath | None = None,
        sigma: StrPath | SigmaReport | None = None,
    ) -> Verdict:
        """Mark a finding as a real incident; it stays in the list.

        Args:
            name: Its id, a unique prefix of it, its rank in the list, or the finding itself.
            reason: Why; kept in the lake.
            detections: A folder of your own detections, with which the finding was listed.
            sigma: Sigma rules, with which the finding was listed.

        Raises:
            UsageError: No finding or several findings match, or the reason is empty.

        Example:
            >>> lake.confirm("1", "keys were stolen").word
            'confirm'
        """
        return self._mark(name, "confirm", reason, detections, sigma)

    def _mark(
        self,
        name: str | Finding,
        word: Literal["mute", "confirm"],
        reason: str,
        detections: StrPath | None,
        sigma: StrPath | SigmaReport | None,
    ) -> Verdict:
        from trailsift.detect.triage import mark

        finding = self.find(name, detections=detections, sigma=sigma) if isinstance(name, str) else name
        return mark(self._root(), finding, word, reason)

    def unreported(self, findings: Sequence[Finding], destination: str = "new") -> list[Finding]:
        """Return the findings that were not reported to a destination yet, or have grown by 50 % since.

        Args:
            findings: Findings of this lake.
            destination: Any name: each has its own list of what was reported. `trailsift detect --new` uses ``new``,
                `--follow` ``follow``, and `trailsift ingest --detect` ``ingest``.

        Example:
            >>> findings = lake.findings()
            >>> lake.mark_reported(findings)
            >>> lake.unreported(findings)
            []
        """
        from trailsift.detect.notify import news

        return news(self._root(), findings, destination)

    def mark_reported(self, findings: Sequence[Finding], destination: str = "new") -> None:
        """Record in the lake that findings were reported to a destination.

        Args:
            findings: Findings of this lake.
            destination: The same name as for `unreported`.
        """
        from trailsift.detect.notify import remember

        remember(self._root(), findings, destination)

    def notify(self, findings: Sequence[Finding], url: str, form: Form = "json") -> tuple[int, list[str]]:
        """Post findings to a webhook that were not posted to it yet, and record each that it accepted.

        Redirects are not followed, and only an answer of 200 to 299 counts as accepted.

        Args:
            findings: Findings of this lake.
            url: The webhook, http or https.
            form: ``json`` or ``slack``.

        Returns:
            How many were delivered, and what went wrong with the others.

        Raises:
            UsageError: The URL is not valid.
        """
        from trailsift.detect.notify import alert

        return alert(self._root(), findings, url, form)

    def follow(
        self,
        run: Callable[[Self], T],
        *,
        interval: float = 10,
        on_error: Callable[[TrailsiftError], None] = lambda error: None,
    ) -> Iterator[T]:
        """Call a function now and after each commit, without end.

        Args:
            run: Called with a handle at the new commit.
            interval: Seconds between two checks for a commit.
            on_error: Called if the lake cannot be read for a while; then it is tried again.

        Yields:
            What ``run`` returns.

        Raises:
            UsageError: The interval is not positive.

        Example:
            >>> next(lake.follow(lambda lake: lake.status().events.rows))
            2000
        """
        if interval <= 0:
            raise UsageError(f"the interval of {interval:g} s is not valid: use more than 0 seconds")
        from trailsift.detect.follow import follow

        return follow(self._root(), lambda engine: run(self._bound(engine)), interval, trouble=on_error)

    def _bound(self, engine: DuckDBEngine) -> Self:
        """Return a handle that uses an engine of the caller."""
        lake = type(self)(
            self.path,
            timezone=self.timezone,
            threads=self._threads,
            memory_limit=self._memory_limit,
            spill_limit=self._spill_limit,
        )
        lake._engines[engine.timezone] = engine
        return lake


def _sigma(rules: StrPath | SigmaReport | None) -> SigmaReport | None:
    """Return the Sigma rules of a folder, unless they were read before."""
    from trailsift.detect.sigma import SigmaReport, load_sigma

    return rules if rules is None or isinstance(rules, SigmaReport) else load_sigma(Path(rules))


def _detections(folder: StrPath | None) -> tuple[list[Detection], list[Problem]]:
    """Return the detections that come with trailsift and those of a folder, and the problems of their files."""
    from trailsift.detect import detection_rules

    rules, problems = detection_rules.builtin_rules()
    if folder is not None:
        own, wrong = detection_rules.load_rules(Path(folder))
        rules, problems = [*rules, *own], [*problems, *wrong]
    return rules, problems
