"""All levels over one lake: signals, what was muted taken out, findings in rank order, told in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from trailsift.analysis.asking import ask, plain, tuple_of
from trailsift.analysis.period import HOUR, UTC_ZONE, Period, literal
from trailsift.detect.finding import LEVELS, Finding, Signal
from trailsift.detect.join import BUDGET, LEAST, budgeted, identity, join
from trailsift.detect.marks import marks, taught
from trailsift.detect.novel import novel
from trailsift.detect.tell import Language, tell
from trailsift.errors import UsageError

if TYPE_CHECKING:
    from trailsift.engine import Engine


#: The levels that a person can choose among.
ALL_LEVELS = frozenset(LEVELS.values())


@dataclass(frozen=True)
class Wish:
    """How findings are wanted: the period they touch, the budget of a day (0: all), words, muted ones, levels."""

    period: Period = field(default_factory=Period)
    budget: int = BUDGET
    least: float = LEAST
    language: Language = "en"
    muted: bool = False
    clean: Callable[[str], str] = str
    levels: frozenset[str] = ALL_LEVELS

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which times are told."""
        return self.period.zone or UTC_ZONE


def signals(engine: Engine) -> list[Signal]:
    """What all levels see in a lake; without the learned one where it cannot run (``learned.available``)."""
    # numpy, and with it these levels, is paid for by who detects only.
    from trailsift.detect.learned import available, learned
    from trailsift.detect.volume import volume

    return [*novel(engine), *volume(engine), *(learned(engine) if available() else [])]


def detect(engine: Engine, wish: Wish = Wish(), known_bad: Sequence[Finding] = ()) -> list[Finding]:
    """Findings of a lake in rank order. Habits are learnt from the whole lake, whatever the period.

    ``known_bad``: findings of detections (``known.run``), which are ranked among the others.
    """
    seen = [one for one in signals(engine) if LEVELS[one.kind] in wish.levels]
    known = marks(engine.snapshot.root)
    found = join(seen, wish.least, 0)
    if not wish.muted:
        found = [one for one in found if one.id not in known or known[one.id].word != "mute"]
        others = [said for said in known.values() if said.word == "mute"]
        if others:
            kept = {one.id for one in join(taught(seen, others), wish.least, 0)}
            found = [one for one in found if one.id in kept]
    for one in known_bad if "detections" in wish.levels else ():
        if wish.muted or one.id not in known or known[one.id].word != "mute":
            found.append(one)
    found.sort(key=lambda one: (-one.score, one.first_time, one.id))
    return _told(_of_period(found, wish), wish)


def over_threshold(engine: Engine, threshold: int, wish: Wish = Wish()) -> list[Finding]:
    """Hours in which one event occurred more than ``threshold`` times: the simplest level, without any habit."""
    if threshold < 1:
        raise UsageError(f"--threshold {threshold} means nothing: give a number of events in an hour, 1 or more")
    sql = f"""SELECT epoch_us(hour), event_name, sum(events)::BIGINT, arg_max(role_arn, events),
            arg_max(resource_arn, events), epoch_us(min(first_time)), epoch_us(max(last_time))
        FROM hourly WHERE {wish.period.where("hour")} GROUP BY hour, event_name HAVING sum(events) > {threshold}
        ORDER BY 3 DESC, 1, 2"""
    out = []
    for _, name, events, role, resource, first, last in ask(engine, tuple_of, sql):
        seen = Signal("over_threshold", role, events / threshold, first, last, name, events, threshold, name, resource)
        out.append(Finding(identity(role, first, name), role, events / (events + threshold), first, last, (seen,)))
    return _told(out, wish)


def find(engine: Engine, name: str, wish: Wish = Wish(), known_bad: Sequence[Finding] = ()) -> Finding:
    """The finding of an id, of the beginning of one, or of a rank in the list. UsageError where none or several fit."""
    everything = detect(engine, Wish(Period(zone=wish.zone), 0, LEAST, wish.language, True, wish.clean), known_bad)
    if name.isdigit() and len(name) < 4:
        listed = detect(engine, Wish(language=wish.language), known_bad)
        if 0 < int(name) <= len(listed):
            return next(one for one in everything if one.id == listed[int(name) - 1].id)
    hits = [one for one in everything if one.id.startswith(name)]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise UsageError(f"{name!r} begins {len(hits)} ids: {', '.join(one.id for one in hits[:5])}")
    raise UsageError(f"there is no finding {name!r} in this lake: `trailsift detect` lists them")


@dataclass(frozen=True)
class Drilled:
    """A finding down to its events: lines of ``hourly``, then events (the first ones), and where their records are."""

    finding: Finding
    lines: list[tuple[Any, ...]]
    events: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        names = ("hour", "service", "event_name", "resource_arn", "error_code", "events", "bytes_out")
        lines = [dict(zip(names, line, strict=True)) for line in self.lines]
        return self.finding.as_dict() | {"summary": plain(lines), "events": plain(self.events)}


def drill(engine: Engine, finding: Finding, limit: int = 10) -> Drilled:
    """The summary lines of a finding's role and time, and its events; ``limit`` 0 gives all events."""
    role = "role_arn IS NULL" if finding.role_arn is None else "role_arn = $role"
    given = {} if finding.role_arn is None else {"role": finding.role_arn}
    since, until = finding.first_time // HOUR * HOUR, finding.last_time
    lines = engine.sql(
        f"""SELECT hour, service, event_name, resource_arn, error_code, sum(events)::BIGINT,
            coalesce(sum(bytes_out), 0)::BIGINT FROM hourly
        WHERE {role} AND hour >= {literal(since)} AND hour <= {literal(until)} GROUP BY 1, 2, 3, 4, 5
        ORDER BY sum(events) DESC, 1, 2, 3, 4 LIMIT 20""",
        given or None,
    ).rows()
    most = f" LIMIT {limit}" if limit else ""
    events = engine.sql(finding.query + most).dicts()
    return Drilled(finding, lines, events)


def _of_period(found: Sequence[Finding], wish: Wish) -> list[Finding]:
    inside = [
        one
        for one in found
        if (wish.period.since is None or one.last_time >= wish.period.since)
        and (wish.period.until is None or one.first_time < wish.period.until)
    ]
    return budgeted(inside, wish.budget)


def _told(found: Sequence[Finding], wish: Wish) -> list[Finding]:
    return [tell(one, wish.language, wish.zone, wish.clean) for one in found]
