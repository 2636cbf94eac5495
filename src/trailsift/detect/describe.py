"""Describe findings as an analyst's note: who did what to which data and when, and why that is unusual.

The texts are data (``texts``), one module per language; what each kind of signal puts into them is below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from zoneinfo import ZoneInfo

from trailsift.analysis.time_range import UTC_ZONE
from trailsift.detect.facts import Facts
from trailsift.detect.finding import Finding, Signal, calls_of
from trailsift.detect.particles import Word
from trailsift.detect.texts import Language as Language
from trailsift.detect.writer import Clean, Writer, number, ratio, short_resource, size
from trailsift.times import HOUR, moment

_REASONS = 6
#: End of a source that is a service of AWS, which calls on behalf of its caller, and not a network.
_SERVICE = ".amazonaws.com"
_NO_RATIO = 1_000  # times the expected amount from which on the ratio says nothing
#: Days of a caller's past below which a reason says how many there were.
SHORT_PAST = 7


class RuleTexts(Protocol):
    """What a detection says about its findings, beside its title."""

    @property
    def did(self) -> str | None:
        """Text for the first line."""

    @property
    def did_ko(self) -> str | None:
        """The same in Korean."""

    @property
    def next(self) -> str | None:
        """Text for the step in AWS."""

    @property
    def next_ko(self) -> str | None:
        """The same in Korean."""

    @property
    def description(self) -> str:
        """Text on what it may be."""


def describe(
    finding: Finding,
    language: Language = "en",
    zone: ZoneInfo = UTC_ZONE,
    clean: Clean = str,
    rules: Mapping[str, RuleTexts] | None = None,
    facts: Facts | None = None,
) -> Finding:
    """Return the finding with its title, who, what and reasons.

    ``clean`` sanitizes every string taken from a log. ``rules``: texts of detections by id. ``facts``: what the leading
    caller did, to name data that signals do not.
    """
    order = finding.leading_signals
    lead = order[0]
    of_rule = (rules or {}).get(lead.rule or "")
    sentences = _Sentences(Writer(language, clean, zone), facts if lead.caller == finding.caller else None)
    who = sentences.writer.callers(finding.callers or (finding.caller,), lead.rule)
    template = of_rule and (of_rule.did_ko if language == "ko" else of_rule.did)
    what = sentences.of_rule(lead, template) if template else sentences.did(lead)
    form = "title of a detection" if lead.kind == "detection" and not template else "title"
    title = sentences.writer.phrase(
        form,
        caller=Word(who),
        what=what,
        when=sentences.writer.when(finding.first_time, finding.last_time),
        zone=zone.key,
    )
    reasons = [sentences.reason(signal) for signal in order[:_REASONS]]
    if len(finding.callers) > 1:
        others = sentences.writer.callers(finding.callers[1:], lead.rule)
        reasons.append(sentences.writer.phrase("together", others=Word(others)))
    return replace(finding, title=title, who=who, what=what, reasons=tuple(reasons))


@dataclass(frozen=True)
class _Sentences:
    """Sentences about signals. ``facts`` name data that a signal does not, in the first line only."""

    writer: Writer
    facts: Facts | None = None

    def did(self, signal: Signal) -> str:
        """Return what the caller did."""
        texts = self.writer.texts
        through = signal.kind == "first_network" and signal.value.endswith(_SERVICE)
        template = texts.phrases["did through a service"] if through else texts.did[signal.kind]
        return template.format(**self._fields(signal))

    def of_rule(self, signal: Signal, template: str) -> str:
        """Return what a detection says that the caller did."""
        return template.format(**rule_fields(signal, self.writer))

    def reason(self, signal: Signal) -> str:
        """Return why it is unusual."""
        without_facts = replace(self, facts=None)
        texts = self.writer.texts
        through = signal.kind == "first_network" and signal.value.endswith(_SERVICE)
        template = texts.phrases["through a service"] if through else texts.reasons[signal.kind]
        return template.format(**without_facts._fields(signal)) + self._past(signal)

    def _past(self, signal: Signal) -> str:
        """Return how little is known of the caller's past, if it is little."""
        if signal.past is None or signal.past >= SHORT_PAST or signal.basis not in ("own", "day"):
            return ""
        form = "no past" if signal.past == 0 else "shortest past" if signal.past == 1 else "short past"
        return self.writer.phrase(form, n=str(signal.past))

    def _fields(self, signal: Signal) -> dict[str, str]:
        writer = self.writer
        resource = signal.resource_arn or (self.facts.resource_arn if self.facts else None)
        shown = self._with_others(resource, signal)
        name = signal.event_name if signal.kind.startswith("more_") else None
        busiest = name or (self.facts.event_name if self.facts else None)
        fields: dict[str, str] = {
            "value": writer.word(signal.value),
            "n": f"{signal.events:,}",
            "calls": writer.count("call", "calls", signal.events),
            "times": writer.count("once", "times", signal.events),
            "on": writer.phrase("on", resource=shown) if shown else "",
            "inside": writer.phrase("inside", resource=shown) if shown else "",
            "source": writer.phrase("source", resource=shown) if shown else "",
            "mostly": "",
        }
        if busiest:
            fields["mostly"] = writer.phrase("mostly", name=writer.word(busiest), on=fields["on"])
        return fields | _FIELDS.get(signal.kind, _plain)(signal, self, fields)

    def _with_others(self, resource: str | None, signal: Signal) -> str:
        if not resource:
            return ""
        others = self.facts.resources - 1 if self.facts and signal.resource_arn is None else 0
        name = self.writer.resource(resource)
        if others < 1:
            return name
        return self.writer.phrase("and one more" if others == 1 else "and more", resource=name, n=f"{others:,}")


def rule_fields(signal: Signal, writer: Writer) -> dict[str, str]:
    """Return the placeholders of a detection's texts."""
    return {
        "resource": writer.resource(signal.resource_arn),
        "event": writer.word(signal.event_name or "?"),
        "calls": writer.count("call", "calls", signal.events),
    }


_Fields = Callable[[Signal, _Sentences, Mapping[str, str]], dict[str, str]]


def _plain(signal: Signal, sentences: _Sentences, fields: Mapping[str, str]) -> dict[str, str]:
    return {}


def _first_resource(signal: Signal, sentences: _Sentences, fields: Mapping[str, str]) -> dict[str, str]:
    mostly = (
        sentences.writer.phrase("mostly", name=sentences.writer.word(signal.event_name), on="")
        if (signal.event_name)
        else ""
    )
    return {"value": sentences.writer.word(short_resource(signal.value)), "mostly": mostly}


def _first_pattern(signal: Signal, sentences: _Sentences, fields: Mapping[str, str]) -> dict[str, str]:
    writer = sentences.writer
    return {
        "value": writer.word(signal.value.removeprefix(f"{signal.resource_arn}/")),
        "objects": writer.count("object", "objects", signal.events),
        "did": _verb(signal, writer),
    }


def _first_hour(signal: Signal, sentences: _Sentences, fields: Mapping[str, str]) -> dict[str, str]:
    return {"hour": f"{moment(signal.first_time).astimezone(sentences.writer.zone):%H:00}"}


def _surge(signal: Signal, sentences: _Sentences, fields: Mapping[str, str]) -> dict[str, str]:
    writer, facts = sentences.writer, sentences.facts
    usual = signal.usual or 0
    form = size if signal.kind == "more_bytes" else number
    hours = max(1, round((signal.last_time + 1 - signal.first_time) / HOUR))
    called = writer.phrase("called", name=fields["value"], times=fields["times"], on=fields["on"])
    if facts and facts.objects and _verb(signal, writer) != writer.texts.verbs[""]:
        # Of one call each: the number of distinct keys says more than that of calls.
        distinct = min(facts.objects, signal.events)
        objects = writer.count("object", "distinct", distinct)
        # The facts are those of whole hours: their bytes are those of the calls only if there were no others.
        exact = facts.events == signal.events and facts.bytes_out >= 1e6
        bytes_out = writer.phrase("size", size=size(facts.bytes_out)) if exact else ""
        called = writer.phrase(
            "touched",
            did=_verb(signal, writer),
            objects=objects,
            inside=fields["inside"],
            calls=fields["calls"],
            size=bytes_out,
        )
    return {
        "size": size(signal.events),
        "hours": writer.count("hour", "hours", hours),
        "peak": writer.phrase("peak", usual=form(usual)) if usual >= 0.5 else writer.phrase("no peak"),
        "touched": called,
    }


def _detection(signal: Signal, sentences: _Sentences, fields: Mapping[str, str]) -> dict[str, str]:
    writer = sentences.writer
    title = signal.value_ko if writer.language == "ko" else None
    calls = calls_of(signal)
    example = "no example" if not calls else "one example" if signal.events == 1 else "example"
    if len(calls) > 1:
        example = "several examples" if fields["on"] else "several calls"
    name = ", ".join(map(writer.word, calls)) if len(calls) > 1 else writer.word(signal.event_name or "")
    return {
        "value": writer.word(title or signal.value),
        "example": writer.phrase(example, name=name, on=fields["on"], n=fields["n"]),
    }


def _threshold(signal: Signal, sentences: _Sentences, fields: Mapping[str, str]) -> dict[str, str]:
    return {"usual": f"{signal.usual or 0:,.0f}"}


def _outlier(signal: Signal, sentences: _Sentences, fields: Mapping[str, str]) -> dict[str, str]:
    texts = sentences.writer.texts.features
    parts = [
        texts[name].format(amount=_amount(name, amount), usual=_amount(name, usual), share=f"{share:.0%}")
        for name, amount, usual, share in signal.parts
        if name in texts
    ]
    return {"parts": ", ".join(parts), "ways": str(max(2, len(parts)))}


def _burst(signal: Signal, sentences: _Sentences, fields: Mapping[str, str]) -> dict[str, str]:
    writer = sentences.writer
    own = [("calls", float(signal.events), signal.usual or 0.0, 0.0)]
    known = [part for part in signal.parts if part[0] in writer.texts.measures] or own
    parts = [
        writer.phrase(
            "in an hour" if usual >= 0.5 else "none in an hour",
            amount=writer.texts.measures[name].format(amount=_amount(name, amount)),
            usual=_amount(name, usual),
        )
        for name, amount, usual, _ in known
    ]
    name, amount, _, peers = known[0]
    basis = "of peers" if signal.basis == "peers" and peers >= 1 else f"of {signal.basis}"
    has_basis = basis in writer.texts.phrases and (basis != "of peers" or peers >= 1)
    return {
        "leading": writer.texts.measures_did[name].format(amount=_amount(name, amount)),
        "data": fields["inside"]
        if name == "keys"
        else fields["source"]
        if name.startswith("bytes_out")
        else ("" if writer.language == "ko" else fields["on"]),
        "parts": ", ".join(parts),
        "basis": writer.phrase(basis, n=f"{peers:,.0f}") if has_basis else "",
    }


def _places(signal: Signal, sentences: _Sentences, fields: Mapping[str, str]) -> dict[str, str]:
    writer = sentences.writer
    places = [writer.phrase("place", place=writer.word(place), n=f"{calls:,.0f}") for place, calls, *_ in signal.parts]
    return {"parts": ", ".join(places)}


def _low_and_slow(signal: Signal, sentences: _Sentences, fields: Mapping[str, str]) -> dict[str, str]:
    writer = sentences.writer
    _, excess, days, above = signal.parts[0] if signal.parts else ("over", signal.events, 1, 1)
    resource, usual = signal.resource_arn or signal.value, signal.usual
    known = "ratio" if usual and signal.events < _NO_RATIO * usual else "no ratio"
    return {
        "name": writer.word(signal.event_name or "?"),
        "target": writer.word(short_resource(resource) + signal.value.removeprefix(resource)),
        "excess": f"{excess:,.0f}",
        "excess_size": size(excess),
        "size": size(signal.events),
        "usual": f"{usual or 0:,.0f}",
        "usual_size": size(usual or 0),
        "days": f"{days:.0f}",
        "ratio": writer.phrase(known, ratio=ratio(signal.events / (usual or 1))),
        "every": writer.phrase("every day" if above >= days else "some days", n=f"{above:.0f}"),
    }


def _newcomer(signal: Signal, sentences: _Sentences, fields: Mapping[str, str]) -> dict[str, str]:
    writer = sentences.writer
    network = signal.parts[0][0] if signal.parts else "?"
    return {"network": writer.word(network), "value": writer.word(short_resource(signal.value))}


#: Kind -> what its sentences need besides the fields of all.
_FIELDS: dict[str, _Fields] = {
    "first_resource": _first_resource,
    "first_pattern": _first_pattern,
    "first_hour": _first_hour,
    "more_calls": _surge,
    "more_reads": _surge,
    "more_deletes": _surge,
    "more_bytes": _surge,
    "more_denied": _surge,
    "many_resources": _surge,
    "detection": _detection,
    "over_threshold": _threshold,
    "unlike_itself": _outlier,
    "burst": _burst,
    "unlike_peers": _burst,
    "split_session": _places,
    "newcomer": _newcomer,
    "drip_bytes": _low_and_slow,
    "drip_reads": _low_and_slow,
}


def _verb(signal: Signal, writer: Writer) -> str:
    """Return what a call does with objects, by the beginning of its name."""
    name = signal.event_name or ""
    is_object = name.removesuffix("s").endswith("Object") or name in ("UploadPart", "UploadPartCopy")
    verbs = writer.texts.verbs
    return next(verb for start, verb in verbs.items() if (is_object and name.startswith(start)) or not start)


def _amount(name: str, amount: float) -> str:
    return size(amount) if name.startswith("bytes") else number(amount)
