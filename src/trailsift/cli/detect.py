"""Commands about findings: detect, finding, mute, confirm, evaluate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from trailsift.analysis.period import Period, zone_of
from trailsift.analysis.period import period as period_of
from trailsift.cli.options import JsonOption, LakeOption, LimitOption, QuietOption, SinceOption, UntilOption, ZoneOption

if TYPE_CHECKING:
    from trailsift.detect.finding import Finding
    from trailsift.detect.marks import Word
    from trailsift.engine import Engine

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
Level = Literal["novel", "volume", "shapes", "learned", "detections"]
Strength = Literal["standard", "weak", "stealthy"]
ReasonOption = Annotated[str, Parameter(help="Why; kept for whoever reads it later.")]


def detect(
    *,
    lake: LakeOption,
    threshold: Annotated[int | None, Parameter(help="Only hours with more than N events of one name.")] = None,
    budget: Annotated[int, Parameter(help="Findings of one day at most; 0 shows all.")] = 10,
    detections: DetectionsOption = None,
    check: Annotated[
        bool, Parameter(show_default=False, help="Only run the examples of all detections, and say what is wrong.")
    ] = False,
    webhook: Annotated[
        str | None,
        Parameter(
            env_var="TRAILSIFT_WEBHOOK", help="Post each finding that is new or has grown by half to this address."
        ),
    ] = None,
    webhook_form: Annotated[Literal["json", "slack"], Parameter(help="What is posted.")] = "json",
    new: Annotated[
        bool, Parameter(show_default=False, help="Show only what no run with --new or --webhook has told yet.")
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

    Example: `trailsift detect --lake lake --since -7d`, then `trailsift finding 1 --lake lake`
    """
    from trailsift.cli.lake import engine_of
    from trailsift.detect import run
    from trailsift.views import findings as view
    from trailsift.views.console import print_json, safe

    if check:
        return _check(detections)
    if webhook is not None:
        from trailsift.detect.alert import check_url

        check_url(webhook)
    period = period_of(since, until, timezone)
    chosen = frozenset[str](levels) if levels else run.ALL_LEVELS
    wish = run.Wish(period, budget, language=lang, muted=muted, levels=chosen, clean=str if as_json else safe)
    engine = engine_of(lake)
    code = 0
    if threshold is None:
        known, code = _known_bad(engine, detections, lang)
        code = max(code, _skipped(chosen, levels is not None))
        found = run.detect(engine, wish, known)
    else:
        found = run.over_threshold(engine, threshold, wish)
    shown = found
    if webhook is not None or new:
        from trailsift.detect.alert import news, remember

        fresh = news(lake, found)
        shown = fresh if new else found
        if webhook is not None:
            code = max(code, _posted(lake, fresh, webhook, webhook_form))
        else:
            remember(lake, fresh)
    found = shown
    if as_json:
        print_json({"period": period.as_dict(), "findings": [one.as_dict() for one in found]})
    elif found:
        view.show_findings(found, period)
    else:
        from trailsift.analysis.asking import why_nothing

        print(f"trailsift: no findings: {why_nothing(engine.snapshot, period)}", file=sys.stderr)
    return code


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
    from trailsift.cli.lake import engine_of
    from trailsift.detect import run
    from trailsift.views import findings as view
    from trailsift.views.console import print_json, safe

    period = Period(zone=zone_of(timezone))
    engine = engine_of(lake)
    plain = as_json or records
    known, code = _known_bad(engine, detections, lang)
    found = run.find(engine, name, run.Wish(period, language=lang, clean=str if plain else safe), known)
    if records:
        from trailsift.analysis.export import export

        export(engine, sys.stdout, found.condition, "ndjson")
        return code
    drilled = run.drill(engine, found, limit if limit is not None else 10)
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
    from trailsift.detect.rehearsal import Cast, rehearse
    from trailsift.views import findings as view
    from trailsift.views.console import print_json

    def tell(text: str) -> None:
        if not quiet:
            print(f"trailsift: {text}", file=sys.stderr)

    from trailsift.generate import STRENGTHS

    _skipped(frozenset(["learned"]), False)
    cast = Cast(events, days, roles, tuple(strength or STRENGTHS))
    table = rehearse(range(first_seed, first_seed + seeds), cast, tell)
    if as_json:
        print_json(table.as_dict())
    else:
        view.show_evaluation(table)
    return 0


def _say(name: str, lake: Path, word: Word, reason: str, as_json: bool) -> int:
    from trailsift.cli.lake import engine_of
    from trailsift.detect.marks import mark
    from trailsift.detect.run import find
    from trailsift.views.console import print_json

    engine = engine_of(lake)
    known, _ = _known_bad(engine, None, "en")
    found = find(engine, name, known_bad=known)
    said = mark(lake, found, word, reason)
    if as_json:
        print_json({"id": said.id, "word": said.word, "reason": said.reason, "time": said.time})
    else:
        print(f"{said.id}: {'muted' if word == 'mute' else 'confirmed'}: {found.title}")
    return 0


def _known_bad(engine: Engine, folder: Path | None, lang: str) -> tuple[list[Finding], int]:
    """Findings of detections; the exit code is 3 where one of them is wrong, which is said on standard error."""
    from trailsift.detect import known

    chosen, wrong = known.shipped()
    if folder is not None:
        more, mistakes = known.own(folder)
        chosen, wrong = [*chosen, *more], [*wrong, *mistakes]
    found, failed = known.run(engine, chosen, korean=lang == "ko")
    for problem in (*wrong, *failed):
        print(f"trailsift: skipped: {problem}", file=sys.stderr)
    return found, 3 if wrong or failed else 0


def _skipped(levels: frozenset[str], wanted: bool) -> int:
    """Says where the learned level cannot run; the exit code is 3 where it was asked for."""
    from trailsift.detect.learned import MISSING, available

    if "learned" not in levels or available():
        return 0
    print(f"trailsift: skipped: {MISSING}", file=sys.stderr)
    return 3 if wanted else 0


def _posted(lake: Path, found: list[Finding], url: str, form: Literal["json", "slack"]) -> int:
    from trailsift.detect.alert import alert

    taken, wrong = alert(lake, found, url, form)
    for text in wrong:
        print(f"trailsift: {text}", file=sys.stderr)
    print(f"trailsift: {taken} findings posted", file=sys.stderr)
    return 1 if wrong else 0


def _check(folder: Path | None) -> int:
    from trailsift.detect import known

    chosen, wrong = known.shipped() if folder is None else known.own(folder)
    wrong = [*wrong, *known.prove(chosen)]
    for problem in wrong:
        print(f"trailsift: {problem}", file=sys.stderr)
    print(f"{len(chosen)} detections, {len(wrong)} mistakes")
    return 1 if wrong else 0
