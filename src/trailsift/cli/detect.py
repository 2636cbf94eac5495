"""Commands about findings: detect, finding, mute, confirm, evaluate."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from trailsift.analysis.time_range import Period, zone_of
from trailsift.analysis.time_range import period as period_of
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
from trailsift.errors import TrailsiftError, UsageError

if TYPE_CHECKING:
    from trailsift.detect.detection_rules import Detection, Problem
    from trailsift.detect.finding import Finding
    from trailsift.detect.pipeline import DetectOptions
    from trailsift.detect.triage import Label
    from trailsift.query import DuckDBEngine

LanguageOption = Annotated[
    Literal["en", "ko"], Parameter(name="--lang", env_var="TRAILSIFT_LANG", help="Language of the sentences.")
]
IdArgument = Annotated[
    str, Parameter(name="ID", help="Id of a finding, or its beginning; or its place in the list, from 1.")
]
DetectionsOption = Annotated[
    Path | None,
    Parameter(name="--detections", env_var="TRAILSIFT_DETECTIONS", help="A folder of your own detections (TOML)."),
]
_SHOWN = 10  # findings that an ingest shows
Level = Literal["novel", "volume", "shapes", "learned", "detections"]
Strength = Literal["standard", "weak", "stealthy"]
ReasonOption = Annotated[str, Parameter(help="Why; kept for whoever reads it later.")]


def detect(
    *,
    lake: OptionalLakeOption = None,
    threshold: Annotated[int | None, Parameter(help="Only hours with more than N events of one name.")] = None,
    budget: Annotated[int, Parameter(help="Findings of one day at most; 0 shows all.")] = 10,
    detections: DetectionsOption = None,
    check: Annotated[
        bool,
        Parameter(show_default=False, help="Only run the examples of all detections, and say what is wrong; no lake."),
    ] = False,
    webhook: Annotated[
        str | None,
        Parameter(
            env_var="TRAILSIFT_WEBHOOK", help="Post each finding that is new or has grown by half to this address."
        ),
    ] = None,
    webhook_form: Annotated[
        Literal["json", "slack"], Parameter(env_var="TRAILSIFT_WEBHOOK_FORM", help="What is posted.")
    ] = "json",
    new: Annotated[
        bool, Parameter(show_default=False, help="Show only what no run with --new or --webhook has told yet.")
    ] = False,
    follow: Annotated[
        bool, Parameter(show_default=False, help="Go on after each commit, and show what is new, until it is stopped.")
    ] = False,
    every: Annotated[float, Parameter(help="With --follow: seconds from one look for a commit to the next.")] = 10,
    afresh: Annotated[
        bool, Parameter(show_default=False, help="Read the whole lake, whatever earlier runs have kept of it.")
    ] = False,
    muted: Annotated[bool, Parameter(show_default=False, help="Show what was muted, too.")] = False,
    levels: Annotated[
        list[Level] | None,
        Parameter(consume_multiple=True, negative=(), help="Only these levels. Default: all."),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    lang: LanguageOption = "en",
    as_json: JsonOption = False,
) -> int:
    """The few things worth a look: what roles did for the first time, far above their habit, or at strange hours.

    Reads what changed since the last run, and keeps in the lake what it found. With `--follow --json`, each finding is
    a line.

    Example: `trailsift detect --lake lake --since -7d`, then `trailsift finding 1 --lake lake`
    """
    if check:
        return _check(detections)
    if lake is None:
        raise UsageError("which lake? Name its folder with --lake, or set TRAILSIFT_LAKE")
    from trailsift.detect import pipeline
    from trailsift.terminal.console import safe

    if webhook is not None:
        from trailsift.detect.notify import check_url

        check_url(webhook)
    period = period_of(since, until, timezone)
    chosen = frozenset[str](levels) if levels else pipeline.ALL_LEVELS
    clean = str if as_json else safe
    wish = pipeline.DetectOptions(period, budget, language=lang, muted=muted, afresh=afresh, clean=clean, levels=chosen)
    code = 0 if threshold is not None else _skipped(chosen, levels is not None)
    tell = _Telling(lake, wish, detections, threshold, webhook, webhook_form, new or follow, as_json)
    if follow:
        return _follow(lake, tell, every)
    from trailsift.cli.session import engine_of

    return max(code, tell(engine_of(lake)))


@dataclass
class _Telling:
    """One look at a lake, and telling of it: on standard output, and to a webhook."""

    lake: Path
    wish: DetectOptions
    detections: Path | None
    threshold: int | None
    webhook: str | None
    form: Literal["json", "slack"]
    only_new: bool
    as_json: bool
    lines: bool = False

    def __call__(self, engine: DuckDBEngine) -> int:
        """The exit code: 3 where a detection is wrong, 1 where the webhook does not answer."""
        from trailsift.detect.notify import news, remember

        found, code = _found(engine, self.wish, self.detections, self.threshold)
        shown = found
        if self.webhook is not None or self.only_new:
            fresh = news(self.lake, found)
            shown = fresh if self.only_new else found
            if self.webhook is None:
                remember(self.lake, fresh)
            else:
                code = max(code, _posted(self.lake, fresh, self.webhook, self.form))
        self._show(engine, shown)
        return code

    def _show(self, engine: DuckDBEngine, shown: list[Finding]) -> None:
        from trailsift.analysis.base import why_nothing
        from trailsift.terminal import findings as view
        from trailsift.terminal.console import print_json

        if self.lines and self.as_json:
            for one in shown:
                print(json.dumps(one.as_dict(), ensure_ascii=False), flush=True)
        elif self.as_json:
            print_json({"period": self.wish.period.as_dict(), "findings": [one.as_dict() for one in shown]})
        elif shown:
            view.show_findings(shown, self.wish.period)
        elif not self.lines:
            print(f"trailsift: no findings: {why_nothing(engine.snapshot, self.wish.period)}", file=sys.stderr)


def _found(
    engine: DuckDBEngine, wish: DetectOptions, folder: Path | None, threshold: int | None = None
) -> tuple[list[Finding], int]:
    """Findings, and the exit code: 3 where a detection is wrong, which is said on standard error."""
    from trailsift.detect import pipeline

    if threshold is not None:
        return pipeline.over_threshold(engine, threshold, wish), 0
    chosen, wrong = _detections(folder)
    detected = pipeline.detect(engine, wish, chosen)
    _say_problems([*wrong, *detected.problems])
    return detected.findings, 3 if wrong or detected.problems else 0


def _follow(lake: Path, tell: _Telling, every: float) -> int:
    from trailsift.detect.follow import follow

    if every <= 0:
        raise UsageError(f"--every {every:g} means nothing: give seconds, more than 0")
    tell.lines = True
    for _ in follow(lake, tell, every, trouble=lambda error: print(f"trailsift: {error}", file=sys.stderr)):
        pass
    return 0


def after_ingest(lake: Path) -> None:
    """What is new after an ingest, on standard error and to the webhook of the environment. Never an error."""
    from trailsift.cli.session import engine_of
    from trailsift.detect import pipeline
    from trailsift.detect.notify import news, remember
    from trailsift.terminal.console import safe

    try:
        wish = pipeline.DetectOptions(language="ko" if os.environ.get("TRAILSIFT_LANG") == "ko" else "en", clean=safe)
        folder = os.environ.get("TRAILSIFT_DETECTIONS")
        with engine_of(lake) as engine:
            found, _ = _found(engine, wish, Path(folder) if folder else None)
        fresh = news(lake, found)
        for one in fresh[:_SHOWN]:
            print(f"trailsift: {one.severity} {one.id} {one.title}", file=sys.stderr)
        more = f", {len(fresh) - _SHOWN} more than shown" if len(fresh) > _SHOWN else ""
        print(f"trailsift: {len(fresh)} new findings{more}; all: trailsift detect --lake {lake}", file=sys.stderr)
        webhook = os.environ.get("TRAILSIFT_WEBHOOK")
        if webhook:
            form: Literal["json", "slack"] = "slack" if os.environ.get("TRAILSIFT_WEBHOOK_FORM") == "slack" else "json"
            _posted(lake, fresh, webhook, form)
        else:
            remember(lake, fresh)
    except Exception as error:  # of any kind: what was ingested is safe, and the next run looks again
        text = str(error) if isinstance(error, TrailsiftError) else f"{type(error).__name__}: {error}"
        print(f"trailsift: everything was stored, but looking for findings failed: {text}", file=sys.stderr)


def finding(
    name: IdArgument,
    /,
    *,
    lake: LakeOption,
    detections: DetectionsOption = None,
    records: Annotated[
        bool, Parameter(show_default=False, help="Print the original records, one a line, and nothing else.")
    ] = False,
    limit: LimitOption = None,
    timezone: ZoneOption = "UTC",
    lang: LanguageOption = "en",
    as_json: JsonOption = False,
) -> int:
    """One finding from its reasons over summary lines and events down to the original records.

    Example: `trailsift finding f3a91c --lake lake`, `trailsift finding f3a91c --lake lake --records`
    """
    from trailsift.cli.session import engine_of
    from trailsift.detect import pipeline
    from trailsift.terminal import findings as view
    from trailsift.terminal.console import print_json, safe

    period = Period(zone=zone_of(timezone))
    engine = engine_of(lake)
    plain = as_json or records
    chosen, wrong = _detections(detections)
    _say_problems(wrong)
    found = pipeline.find(
        engine, name, pipeline.DetectOptions(period, language=lang, clean=str if plain else safe), chosen
    )
    code = 3 if wrong else 0
    if records:
        from trailsift.analysis.export import export

        export(engine, sys.stdout, found.condition, "ndjson")
        return code
    drilled = pipeline.drill(engine, found, limit if limit is not None else 10)
    if as_json:
        print_json(drilled.as_dict())
    else:
        view.show_finding(drilled, period)
    return code


def mute(name: IdArgument, /, *, lake: LakeOption, reason: ReasonOption, as_json: JsonOption = False) -> int:
    """Say that a finding is harmless: it and its like are told no more, unless they grow by half.

    Example: `trailsift mute f3a91c --lake lake --reason "the yearly audit"`
    """
    return _say(name, lake, "mute", reason, as_json)


def confirm(name: IdArgument, /, *, lake: LakeOption, reason: ReasonOption, as_json: JsonOption = False) -> int:
    """Say that a finding was real; it stays in the list.

    Example: `trailsift confirm f3a91c --lake lake --reason "keys were stolen, ticket 4711"`
    """
    return _say(name, lake, "confirm", reason, as_json)


def evaluate(
    *,
    seeds: Annotated[int, Parameter(help="How many times, each with another seed.")] = 3,
    first_seed: Annotated[int, Parameter(help="The first seed.")] = 1,
    events: Annotated[int, Parameter(help="Events of each run.")] = 120_000,
    days: Annotated[float, Parameter(help="Days of each run.")] = 30,
    roles: Annotated[int, Parameter(help="Roles of each run.")] = 40,
    strength: Annotated[
        list[Strength] | None,
        Parameter(consume_multiple=True, negative=(), help="How much incidents show of themselves. Default: each."),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Measure findings on generated logs: which planted incidents are found, and how much else is told.

    Example: `trailsift evaluate --seeds 1 --events 20000 --days 10 --roles 12`
    """
    from trailsift.detect.experiment import ExperimentConfig, run_experiment
    from trailsift.terminal import findings as view
    from trailsift.terminal.console import print_json

    def tell(text: str) -> None:
        if not quiet:
            print(f"trailsift: {text}", file=sys.stderr)

    from trailsift.generate import STRENGTHS

    _skipped(frozenset(["learned"]), False)
    cast = ExperimentConfig(events, days, roles, tuple(strength or STRENGTHS))
    table = run_experiment(range(first_seed, first_seed + seeds), cast, tell)
    if as_json:
        print_json(table.as_dict())
    else:
        view.show_evaluation(table)
    return 0


def _say(name: str, lake: Path, word: Label, reason: str, as_json: bool) -> int:
    from trailsift.cli.session import engine_of
    from trailsift.detect.pipeline import find
    from trailsift.detect.triage import mark
    from trailsift.terminal.console import print_json

    engine = engine_of(lake)
    chosen, _ = _detections(None)
    found = find(engine, name, detections=chosen)
    said = mark(lake, found, word, reason)
    if as_json:
        print_json({"id": said.id, "word": said.word, "reason": said.reason, "time": said.time})
    else:
        print(f"{said.id}: {'muted' if word == 'mute' else 'confirmed'}: {found.title}")
    return 0


def _detections(folder: Path | None) -> tuple[list[Detection], list[Problem]]:
    """All detections, and what is wrong with files of others."""
    from trailsift.detect import detection_rules

    chosen, wrong = detection_rules.builtin_rules()
    if folder is not None:
        more, mistakes = detection_rules.load_rules(folder)
        chosen, wrong = [*chosen, *more], [*wrong, *mistakes]
    return chosen, wrong


def _say_problems(wrong: Sequence[Problem]) -> None:
    for problem in wrong:
        print(f"trailsift: skipped: {problem}", file=sys.stderr)


def _skipped(levels: frozenset[str], wanted: bool) -> int:
    """Says where the learned level cannot run; the exit code is 3 where it was asked for."""
    from trailsift.detect.multivariate import MISSING, available

    if "learned" not in levels or available():
        return 0
    print(f"trailsift: {MISSING}", file=sys.stderr)
    return 3 if wanted else 0


def _posted(lake: Path, found: list[Finding], url: str, form: Literal["json", "slack"]) -> int:
    from trailsift.detect.notify import alert

    taken, wrong = alert(lake, found, url, form)
    for text in wrong:
        print(f"trailsift: {text}", file=sys.stderr)
    print(f"trailsift: {taken} findings posted", file=sys.stderr)
    return 1 if wrong else 0


def _check(folder: Path | None) -> int:
    from trailsift.detect import detection_rules

    chosen, wrong = detection_rules.builtin_rules() if folder is None else detection_rules.load_rules(folder)
    wrong = [*wrong, *detection_rules.run_examples(chosen)]
    for problem in wrong:
        print(f"trailsift: {problem}", file=sys.stderr)
    print(f"{len(chosen)} detections, {len(wrong)} mistakes")
    return 1 if wrong else 0
