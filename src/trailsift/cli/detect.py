"""Commands about findings: detect, finding, mute, confirm, evaluate."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from cyclopts import Parameter

from trailsift.cli.options import (
    JsonOption,
    LakeOption,
    LimitOption,
    OptionalLakeOption,
    QuietOption,
    SinceOption,
    UntilOption,
    ZoneOption,
)
from trailsift.cli.session import open_lake
from trailsift.cli.sigma import SigmaOption, check_rules, read_rules, say_summary
from trailsift.errors import LakeError, TrailsiftError
from trailsift.terminal.output import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from trailsift.analysis.time_range import Period
    from trailsift.api import Lake
    from trailsift.detect.finding import Finding
    from trailsift.detect.pipeline import DetectionResult

LanguageOption = Annotated[
    Literal["en", "ko"], Parameter(name="--lang", env_var="TRAILSIFT_LANG", help="Language of the findings.")
]
IdArgument = Annotated[
    str, Parameter(name="ID", help="Finding id, a unique prefix of it, or its rank in the list (from 1).")
]
DetectionsOption = Annotated[
    Path | None,
    Parameter(name="--detections", env_var="TRAILSIFT_DETECTIONS", help="Folder with your own detections (TOML)."),
]
#: Environment variable that is set for a detection which ends with the process that started it.
PARENT = "TRAILSIFT_ENDS_WITH_PARENT"
#: Findings per day at most; ranks are those of such a list.
_BUDGET = 10
#: Findings that an ingest lists.
_LISTED = 10
Level = Literal["novel", "volume", "shapes", "peers", "learned", "detections"]
Strength = Literal["standard", "weak", "stealthy"]
ReasonOption = Annotated[str, Parameter(help="Reason, kept in the lake with the finding.")]


def detect_command(
    *,
    lake: OptionalLakeOption = None,
    threshold: Annotated[
        int | None, Parameter(help="List only hours with more than this many events of one name.")
    ] = None,
    budget: Annotated[
        int, Parameter(name=["--max-per-day", "--budget"], help="Maximum findings per day; 0 shows all.")
    ] = _BUDGET,
    detections: DetectionsOption = None,
    sigma: SigmaOption = None,
    own: Annotated[
        Path | None,
        Parameter(
            env_var="TRAILSIFT_OWN",
            help="File (TOML) with your networks, accounts, partners and scanners; the lake keeps it.",
        ),
    ] = None,
    check: Annotated[
        bool,
        Parameter(show_default=False, help="Only run the examples of all detections and report errors; needs no lake."),
    ] = False,
    webhook: Annotated[
        str | None,
        Parameter(env_var="TRAILSIFT_WEBHOOK", help="Post findings that are new or grew by 50 % to this URL."),
    ] = None,
    webhook_form: Annotated[
        Literal["json", "slack"],
        Parameter(
            name=["--webhook-format", "--webhook-form"],
            env_var="TRAILSIFT_WEBHOOK_FORM",
            help="Format of what is posted.",
        ),
    ] = "json",
    new: Annotated[
        bool, Parameter(show_default=False, help="Show only findings that --new has not yet shown.")
    ] = False,
    follow: Annotated[
        bool,
        Parameter(show_default=False, help="Keep running; report new findings after each commit (Ctrl-C to stop)."),
    ] = False,
    every: Annotated[
        float, Parameter(name=["--interval", "--every"], help="With --follow: seconds between checks for a commit.")
    ] = 10,
    afresh: Annotated[
        bool,
        Parameter(
            name=["--full-refresh", "--afresh"],
            show_default=False,
            help="Read the whole lake, not only what changed since the last run.",
        ),
    ] = False,
    muted: Annotated[bool, Parameter(show_default=False, help="Also show muted findings.")] = False,
    levels: Annotated[
        list[Level] | None,
        Parameter(consume_multiple=True, negative=(), help="Run only these levels. Default: all."),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    lang: LanguageOption = "en",
    as_json: JsonOption = False,
) -> int:
    """Find what is worth a look: first-time behaviour, volume far above the baseline, activity at unusual hours.

    Reads what changed since the last run, and keeps its results in the lake. With `--follow --json`, each finding is
    one line. At the end, standard error says what could not be judged, and why.

    Severity says when to look: high, today (score 0.75 or more: an attack that is known as such, or several strong
    signs at once); medium, this week (0.6 or more: one strong sign); low, when you review (0.4 or more).

    Example: `trailsift detect --lake lake --since -7d`, then `trailsift finding 1 --lake lake`
    """
    if check:
        return max(_check(detections), check_rules(sigma) if sigma else 0)
    rules = read_rules(sigma)
    handle = open_lake(lake, timezone)
    if webhook is not None:
        from trailsift.detect.notify import check_url

        check_url(webhook)
    period = handle.period(since, until)

    def run(lake: Lake) -> DetectionResult:
        return lake.detect(
            since=period.since,
            until=period.until,
            budget=budget,
            levels=levels,
            threshold=threshold,
            detections=detections,
            sigma=rules,
            own=own,
            muted=muted,
            full_refresh=afresh,
            language=lang,
            clean=_cleaner(as_json),
        )

    # By its rank, `trailsift finding` knows a finding of the plain list only.
    ranked = period.whole and budget == _BUDGET and not (levels or muted or new or follow or threshold is not None)
    report = _Report(
        run, period, webhook, webhook_form, new or follow, as_json, follow, lang, ranked, details=threshold is None
    )
    if follow:
        if os.environ.get(PARENT):
            _end_with_parent()
        for _ in handle.follow(report, interval=every, on_error=lambda error: say(str(error))):
            pass
        return 0
    _warn_if_read_only(handle)
    return report(handle)


def _end_with_parent() -> None:
    """End this process when the watch that started it is gone."""
    import threading
    import time

    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(0)

    threading.Thread(target=look, daemon=True).start()


def _warn_if_read_only(lake: Lake) -> None:
    if isinstance(lake.path, str):
        # In S3 the first write shows what the credentials allow.
        return
    folder = lake.path / "findings"
    if not os.access(folder if folder.exists() else lake.path, os.W_OK):
        say(f"{lake.path} cannot be written: everything is read afresh, and the ids of new findings are not remembered")


@dataclass
class _Report:
    """Run a detection and report its findings: on standard output, and to a webhook."""

    run: Callable[[Lake], DetectionResult]
    period: Period
    webhook: str | None
    form: Literal["json", "slack"]
    only_new: bool
    as_json: bool
    lines: bool
    language: Literal["en", "ko"] = "en"
    ranked: bool = True
    details: bool = True
    said: tuple[object, ...] | None = None

    def __call__(self, lake: Lake) -> int:
        """Return the exit code: 3 if a detection has errors, 1 if the webhook does not answer."""
        result = self.run(lake)
        code = 3 if result.problems else 0
        destination = "follow" if self.lines else "new"
        shown = lake.unreported(result.findings, destination) if self.only_new else result.findings
        # First of all: whatever becomes of the webhook, the findings are shown.
        self._show(lake, shown, result)
        # Of many runs, only what is new.
        if self.said is None or result.problems != self.said:
            _say_problems(result.problems)
            say_summary(result.sigma)
            self.said = result.problems
        if self.only_new:
            lake.mark_reported(shown, destination)
        if self.webhook is not None:
            code = max(code, _post(lake, result.findings, self.webhook, self.form))
        return code

    def _show(self, lake: Lake, findings: Sequence[Finding], result: DetectionResult) -> None:
        from trailsift.terminal.findings import show_finding_line, show_findings
        from trailsift.terminal.output import print_json, print_json_line

        if self.lines:
            for finding in findings:
                if self.as_json:
                    print_json_line(finding.as_dict())
                else:
                    show_finding_line(finding)
        elif self.as_json:
            spots = [spot.as_dict(result.writer) for spot in result.blind]
            shown = [finding.as_dict() for finding in findings]
            document = {"period": self.period.as_dict(), "findings": shown, "not_judged": spots}
            print_json(document | ({"sigma": result.sigma.as_dict()} if result.sigma else {}))
        elif findings:
            show_findings(findings, self.period, lake.path, self.language, ranked=self.ranked, details=self.details)
        else:
            why = lake.why_empty(since=self.period.since, until=self.period.until)
            say(_label(self.language, "no findings").format(why=why))
        if not self.lines and not self.as_json:
            _say_blind(result, self.language)


def _label(language: Literal["en", "ko"], name: str) -> str:
    from trailsift.detect.texts import TEXTS

    return TEXTS[language].labels[name]


def _say_blind(result: DetectionResult, language: Literal["en", "ko"]) -> None:
    """Say what could not be judged; that a lake is empty was said before."""
    sentences = [spot.sentence(result.writer) for spot in result.blind if spot.kind != "empty"]
    if sentences:
        say("\n".join([_label(language, "not judged"), *(f"- {sentence}" for sentence in sentences)]))


def _cleaner(machine: bool) -> Callable[[str], str]:
    """Return what is applied to every string of a log: a terminal gets no control characters."""
    from trailsift.safe_text import safe

    return str if machine else safe


def after_ingest(lake: Lake) -> None:
    """Report what is new after an ingest on standard error, and to the webhook of the environment. Never raise."""
    try:
        result = lake.detect(
            language="ko" if os.environ.get("TRAILSIFT_LANG") == "ko" else "en",
            detections=os.environ.get("TRAILSIFT_DETECTIONS") or None,
            sigma=os.environ.get("TRAILSIFT_SIGMA") or None,
            clean=_cleaner(False),
        )
        _say_problems(result.problems)
        unreported = lake.unreported(result.findings, "ingest")
        for finding in unreported[:_LISTED]:
            say(f"{finding.severity} {finding.id} {finding.title}")
        from trailsift.analysis.shell import quoted
        from trailsift.terminal.console import plural

        hidden = f", {len(unreported) - _LISTED} of them not listed" if len(unreported) > _LISTED else ""
        command = f"trailsift detect --lake {quoted(lake.path)}"
        say(f"{plural(len(unreported), 'new finding')}{hidden}; all findings: {command}")
        lake.mark_reported(unreported, "ingest")
        webhook = os.environ.get("TRAILSIFT_WEBHOOK")
        if webhook:
            slack = os.environ.get("TRAILSIFT_WEBHOOK_FORM") == "slack"
            _post(lake, result.findings, webhook, "slack" if slack else "json")
    except Exception as error:  # of any kind: the events are stored, and the next run detects again
        text = str(error) if isinstance(error, TrailsiftError) else f"{type(error).__name__}: {error}"
        say(f"everything was stored, but detection failed: {text}")


def finding_command(
    name: IdArgument,
    /,
    *,
    lake: LakeOption,
    detections: DetectionsOption = None,
    sigma: SigmaOption = None,
    records: Annotated[
        bool, Parameter(show_default=False, help="Print only the original records, one per line.")
    ] = False,
    limit: LimitOption = None,
    timezone: ZoneOption = "UTC",
    lang: LanguageOption = "en",
    as_json: JsonOption = False,
) -> int:
    """Show one finding as a note: what happened, why it is unusual, what surrounds it, what to do, and the evidence.

    Example: `trailsift finding f3a91c --lake lake`, `trailsift finding f3a91c --lake lake --records`
    """
    handle = open_lake(lake, timezone)
    problems = _own_problems(detections)
    _say_problems(problems)
    rules = read_rules(sigma)
    target = handle.find(name, detections=detections, sigma=rules, language=lang, clean=_cleaner(as_json or records))
    code = 3 if problems else 0
    if records:
        from trailsift.terminal.output import json_stream

        handle.export(json_stream(), where=target.condition)
        return code
    detail = handle.finding(
        target,
        limit=10 if limit is None else limit,
        detections=detections,
        sigma=rules,
        language=lang,
        clean=_cleaner(as_json),
    )
    if as_json:
        from trailsift.terminal.output import print_json

        print_json(detail.as_dict())
    else:
        from trailsift.terminal.finding_detail import show_finding

        show_finding(detail, handle.period(), lake, lang)
    return code


def mute_command(
    name: IdArgument,
    /,
    *,
    lake: LakeOption,
    reason: ReasonOption,
    detections: DetectionsOption = None,
    sigma: SigmaOption = None,
    as_json: JsonOption = False,
) -> int:
    """Mark a finding as benign. It and similar findings are hidden until they grow by 50 %.

    Example: `trailsift mute f3a91c --lake lake --reason "the yearly audit"`
    """
    return _mark(open_lake(lake), _Named(name, detections, sigma), "mute", reason, as_json)


def unmute_command(
    name: Annotated[str, Parameter(name="ID", help="The id of a muted finding, or a part that begins it.")],
    /,
    *,
    lake: LakeOption,
    as_json: JsonOption = False,
) -> int:
    """Take back a mute. The finding and similar ones are listed again. `detect --muted` lists muted ones, too.

    Example: `trailsift unmute f3a91c --lake lake`
    """
    from trailsift.terminal.output import print_json, print_line

    verdict = open_lake(lake).unmute(name)
    if as_json:
        print_json({"id": verdict.id, "word": verdict.word, "time": verdict.time})
    else:
        print_line(f"{verdict.id}: no longer muted")
    return 0


def confirm_command(
    name: IdArgument,
    /,
    *,
    lake: LakeOption,
    reason: ReasonOption,
    detections: DetectionsOption = None,
    sigma: SigmaOption = None,
    as_json: JsonOption = False,
) -> int:
    """Mark a finding as a real incident. It stays in the list.

    Example: `trailsift confirm f3a91c --lake lake --reason "keys were stolen, ticket 4711"`
    """
    return _mark(open_lake(lake), _Named(name, detections, sigma), "confirm", reason, as_json)


def evaluate_command(
    *,
    seeds: Annotated[int, Parameter(help="Number of runs, each with its own seed.")] = 3,
    first_seed: Annotated[int, Parameter(help="Seed of the first run.")] = 1,
    events: Annotated[int, Parameter(help="Events per run.")] = 120_000,
    days: Annotated[float, Parameter(help="Days per run.")] = 30,
    roles: Annotated[int, Parameter(help="Roles per run.")] = 40,
    strength: Annotated[
        list[Strength] | None,
        Parameter(consume_multiple=True, negative=(), help="Strengths of the incidents. Default: all."),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Measure detection on generated logs: recall on planted incidents, and false positives.

    Example: `trailsift evaluate --seeds 1 --events 20000 --days 10 --roles 12`
    """
    from trailsift.detect.experiment import ExperimentConfig, run_experiment
    from trailsift.generate import STRENGTHS
    from trailsift.terminal.findings import show_evaluation
    from trailsift.terminal.output import print_json

    def report_step(text: str) -> None:
        if not quiet:
            say(text)

    config = ExperimentConfig(events, days, roles, tuple(strength or STRENGTHS))
    table = run_experiment(range(first_seed, first_seed + seeds), config, report_step)
    if as_json:
        print_json(table.as_dict())
    else:
        show_evaluation(table)
    return 0


class _Named(NamedTuple):
    """A finding by its name, and the rules of one's own that are behind it."""

    name: str
    detections: Path | None
    sigma: Path | None


def _mark(lake: Lake, named: _Named, word: Literal["mute", "confirm"], reason: str, as_json: bool) -> int:
    from trailsift.terminal.output import print_json, print_line

    rules = read_rules(named.sigma)
    target = lake.find(named.name, detections=named.detections, sigma=rules, clean=_cleaner(as_json))
    verdict = lake.mute(target, reason) if word == "mute" else lake.confirm(target, reason)
    if as_json:
        print_json({"id": verdict.id, "word": verdict.word, "reason": verdict.reason, "time": verdict.time})
    else:
        print_line(f"{verdict.id}: {'muted' if word == 'mute' else 'confirmed'}: {target.title}")
    return 0


def _own_problems(folder: Path | None) -> Sequence[object]:
    """Return the problems of the detections in a user's folder."""
    if folder is None:
        return []
    from trailsift.detect.detection_rules import load_rules

    return load_rules(folder)[1]


def _say_problems(problems: Sequence[object]) -> None:
    for problem in problems:
        say(f"skipped: {problem}")


def _post(lake: Lake, findings: Sequence[Finding], url: str, form: Literal["json", "slack"]) -> int:
    from trailsift.terminal.console import plural

    try:
        delivered, errors = lake.notify(findings, url, form)
    except LakeError as damaged:
        # What was posted before is not known: nothing is posted, and everything else goes on.
        delivered, errors = 0, [str(damaged)]
    for error in errors:
        say(error)
    say(f"{plural(delivered, 'finding')} posted")
    return 1 if errors else 0


def _check(folder: Path | None) -> int:
    """Run the examples of the detections. Return 1 if any detection has errors."""
    from trailsift.detect.detection_examples import run_examples
    from trailsift.detect.detection_file import builtin_rules, load_rules
    from trailsift.terminal.console import plural
    from trailsift.terminal.output import print_line

    rules, problems = builtin_rules() if folder is None else load_rules(folder)
    problems = [*problems, *run_examples(rules)]
    for problem in problems:
        say(str(problem))
    print_line(f"{plural(len(rules), 'detection')}, {plural(len(problems), 'error')}")
    return 1 if problems else 0
