"""Quiet or blind: what a detection could not judge, and why. Nothing here changes a finding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from trailsift.analysis.base import CALLS, ask, tuple_of
from trailsift.analysis.feed import gaps
from trailsift.analysis.status import dropped_whole, thinned
from trailsift.analysis.trail_coverage import is_data
from trailsift.detect.finding import LEVELS
from trailsift.detect.writer import Writer
from trailsift.lake.retention import day_text, removed_days
from trailsift.query.relations import text
from trailsift.schema import UNKNOWN_CATEGORY
from trailsift.times import DAY, iso, moment

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

#: Days with events below which the past is short: low-and-slow egress needs as many.
LONG_ENOUGH = 14
#: Data events that trailsift's detections are about, by service.
_DATA = {"s3": "S3", "lambda": "Lambda", "dynamodb": "DynamoDB"}
#: Names of rules and levels that a sentence lists.
_NAMED = 5


class BlindSpot(NamedTuple):
    """One thing that could not be judged.

    ``kind`` is a key of the texts ``blind``; ``facts`` are its numbers and names (times in ISO 8601, UTC).
    """

    kind: str
    facts: Mapping[str, Any]

    def sentence(self, writer: Writer) -> str:
        """Return the sentence in the writer's language."""
        texts = writer.texts.blind
        fields = {name: _shown(value, writer) for name, value in self.facts.items()}
        if self.kind == "not_logged":
            fields["names"] = ", ".join(texts[name] for name in self.facts["names"])
        return texts[self.kind].format(**fields)

    def as_dict(self, writer: Writer) -> dict[str, Any]:
        """For ``--json``: kind, sentence and facts."""
        return {"kind": self.kind, "text": self.sentence(writer), **self.facts}


def _shown(value: Any, writer: Writer) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        more = len(value) - _NAMED
        return ", ".join([*map(writer.word, value[:_NAMED]), *([f"+{more}"] if more > 0 else [])])
    return str(value)


def blind_spots(engine: DuckDBEngine, levels: frozenset[str], failed_detections: int = 0) -> tuple[BlindSpot, ...]:
    """Return what a run could not judge. ``levels``: that were asked for."""
    sql = f"SELECT count(DISTINCT epoch_us(hour) // {DAY}) FROM hourly WHERE {CALLS}"
    ((days,),) = engine.sql(sql).rows()
    if not days:
        return (BlindSpot("empty", {}), *_removed(engine))
    return tuple(_spots(engine, days, levels, failed_detections))


def _spots(engine: DuckDBEngine, days: int, levels: frozenset[str], failed_detections: int) -> Iterator[BlindSpot]:
    if days < LONG_ENOUGH:
        yield BlindSpot("one_day" if days == 1 else "short_past", {"n": days})
    yield from _not_logged(engine)
    left_out = sorted({*LEVELS.values()} - levels)
    if left_out:
        yield BlindSpot("levels", {"names": left_out})
    if failed_detections:
        yield BlindSpot("detections", {"n": failed_detections})
    yield from _left_out(engine)
    old = len(_days_of_version_1(engine))
    if old:
        yield BlindSpot("old_format", {"n": old})
    found = gaps(engine)
    if found.listed:
        newest = found.listed[0]
        hours = sum(gap.hours for gap in found.listed)
        facts = {"n": found.total, "hours": hours, "first": iso(newest.first_time), "last": iso(newest.end_time)}
        yield BlindSpot("gaps", facts)


def _not_logged(engine: DuckDBEngine) -> Iterator[BlindSpot]:
    """Yield the categories of which the lake has no event, even if rules dropped them."""
    kinds = ask(
        engine,
        tuple_of,
        f"SELECT DISTINCT service, event_name, category, read_only FROM hourly WHERE {CALLS}",
    )
    data = {service for service, name, category, _ in kinds if is_data(service, name, category)}
    categories = {category for _, _, category, _ in kinds}
    known = UNKNOWN_CATEGORY not in categories and None not in categories
    has_management = "Management" in categories or any(
        not is_data(service, name, category) for service, name, category, _ in kinds
    )
    missing = [name for service, name in _DATA.items() if service not in data]
    missing += [] if has_management else ["Management"]
    missing += ["NetworkActivity"] if known and "NetworkActivity" not in categories else []
    if missing:
        yield BlindSpot("not_logged", {"names": missing})
    if not any(read_only for *_, read_only in kinds):
        yield BlindSpot("only_writes", {})


def _left_out(engine: DuckDBEngine) -> Iterator[BlindSpot]:
    """Yield what rules and retention left out of the events."""
    root = engine.snapshot.root
    dropped = dropped_whole(root)
    if dropped:
        names = sorted(dropped, key=lambda name: (-dropped[name], name))
        yield BlindSpot("dropped", {"n": sum(dropped.values()), "names": names})
    if thinned(root):
        yield BlindSpot("sampled", {})
    yield from _removed(engine)


def _removed(engine: DuckDBEngine) -> Iterator[BlindSpot]:
    removed = removed_days(engine.snapshot)
    if removed.events is not None:
        yield BlindSpot("events_removed", {"day": day_text(removed.events)})
    if removed.summaries is not None:
        yield BlindSpot("summaries_removed", {"day": day_text(removed.summaries)})


def _days_of_version_1(engine: DuckDBEngine) -> Sequence[str]:
    """Return the days (ISO 8601) whose summary lines have no category, as format version 1 wrote them."""
    if engine.snapshot.format_version == 1:
        spans = {
            day
            for file in engine.snapshot.files("hourly")
            for day in range(file.min_time // DAY, min(file.max_time // DAY, file.min_time // DAY + 366) + 1)
        }
        return [f"{moment(day * DAY):%Y-%m-%d}" for day in sorted(spans)]
    sql = f"SELECT DISTINCT strftime(hour, '%Y-%m-%d') FROM hourly WHERE category = {text(UNKNOWN_CATEGORY)}"
    return [day for (day,) in engine.sql(sql).rows()]
