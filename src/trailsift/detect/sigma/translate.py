"""Documents -> rules: parsed by pySigma, put through our pipeline and backend, and made detections.

A rule that cannot be read or translated becomes a Problem with file, line and reason. Rules for other logs than
CloudTrail's are counted. Nothing of pySigma leaves this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sigma.correlations import SigmaCorrelationRule
from sigma.exceptions import SigmaError
from sigma.filters import SigmaFilter
from sigma.rule import SigmaDetection, SigmaDetectionItem, SigmaRule

from trailsift.detect.detection_rules import Detection, Problem
from trailsift.detect.event_scan import EventScan, statement
from trailsift.detect.sigma.backend import DuckDBBackend, limits, pipeline
from trailsift.detect.sigma.correlation_sql import NotTranslatedError, history_of, sql_of
from trailsift.detect.sigma.documents import Document
from trailsift.detect.sigma.fields import is_known
from trailsift.detect.sigma.regex import POLICY
from trailsift.detect.sigma.report import SigmaReport
from trailsift.detect.sigma.report import SigmaRule as TranslatedRule
from trailsift.times import DAY, HOUR

#: The longest condition and its deepest parentheses, and the longest SQL of a rule, in characters.
MAX_CONDITION, MAX_PARENTHESES, MAX_SQL = 2_000, 8, 200_000
_TITLE, _DESCRIPTION = 200, 600
_SEVERITIES = {"critical": "high", "high": "high", "medium": "medium"}
_TECHNIQUE = re.compile(r"t\d{4}(?:\.\d{3})?", re.IGNORECASE | re.ASCII)
_QUOTED = re.compile(r"'([^']{1,200})'")
#: What pySigma raises, and what rules of strange shapes make it raise.
_ERRORS = (
    SigmaError, NotTranslatedError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError,
    NotImplementedError,
)  # fmt: skip


class _NotForCloudTrail(Exception):
    pass


def translate(documents: Iterable[Document | Problem]) -> SigmaReport:
    """Return the rules of documents, and what became of the others."""
    problems: list[Problem] = []
    rules: list[tuple[Document, SigmaRule]] = []
    correlations: list[tuple[Document, SigmaCorrelationRule]] = []
    filters: list[SigmaFilter] = []
    for document in documents:
        if isinstance(document, Problem):
            problems.append(document)
            continue
        try:
            parsed = _parsed(document)
        except _ERRORS as error:
            problems.append(_problem(document, error))
            continue
        if isinstance(parsed, SigmaRule):
            rules.append((document, parsed))
        elif isinstance(parsed, SigmaCorrelationRule):
            correlations.append((document, parsed))
        else:
            filters.append(parsed)
    return _translated(rules, correlations, filters, problems)


def _parsed(document: Document) -> SigmaRule | SigmaCorrelationRule | SigmaFilter:
    value = document.value
    if "action" in value:
        raise NotTranslatedError("documents with 'action' are not supported: write each rule in full")
    if "correlation" in value:
        return SigmaCorrelationRule.from_dict(value, policy=POLICY)
    if "filter" in value:
        return SigmaFilter.from_dict(value, policy=POLICY)
    if "detection" not in value and "logsource" not in value and "title" not in value:
        raise NotTranslatedError("it is not a Sigma rule: it has no title, logsource and detection")
    detection = value.get("detection")
    conditions = detection.get("condition") if isinstance(detection, dict) else None
    for condition in conditions if isinstance(conditions, list) else [conditions]:
        _check_condition(condition)
    return SigmaRule.from_dict(value, policy=POLICY)


def _check_condition(condition: object) -> None:
    if not isinstance(condition, str):
        return
    if len(condition) > MAX_CONDITION:
        raise NotTranslatedError(f"its condition has {len(condition):,} characters: at most {MAX_CONDITION:,}")
    depth = deepest = 0
    for sign in condition:
        depth += (sign == "(") - (sign == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_PARENTHESES:
        raise NotTranslatedError(f"its condition nests {deepest} parentheses: at most {MAX_PARENTHESES}")


def _translated(
    rules: Sequence[tuple[Document, SigmaRule]],
    correlations: Sequence[tuple[Document, SigmaCorrelationRule]],
    filters: Sequence[SigmaFilter],
    problems: list[Problem],
) -> SigmaReport:
    scans: dict[int, EventScan] = {}
    notes: dict[int, tuple[str, ...]] = {}
    known: dict[str, int] = {}
    places: dict[str, Document] = {}
    other = 0
    elsewhere: set[str] = set()
    for place, (document, rule) in enumerate(rules):
        names = {str(name) for name in (rule.id, rule.name) if name}
        if not _is_for_cloudtrail(rule):
            other += 1
            elsewhere |= names
            continue
        try:
            _check_double(document, _id_of(document, rule), places)
            for each in filters:
                each.apply_on_rule(rule)
            notes[place] = _notes(rule)
            scans[place] = _scan(rule)
        except _ERRORS as error:
            problems.append(_problem(document, error))
        for name in names:
            known.setdefault(name, place)
    hidden: set[int] = set()
    joined: list[TranslatedRule] = []
    for document, correlation in correlations:
        try:
            bases = _bases(correlation, known, elsewhere, scans)
            if not correlation.generate:
                hidden |= set(bases.values())
            _check_double(document, _id_of(document, correlation), places)
            sql = sql_of(correlation, {reference: scans[place] for reference, place in bases.items()})
            joined.append(_rule(document, correlation, sql, history_of(correlation), None, ()))
        except _NotForCloudTrail:
            other += 1
        except _ERRORS as error:
            problems.append(_problem(document, error))
    single = []
    for place, scan in scans.items():
        document, rule = rules[place]
        made = _rule(document, rule, statement([(0, scan)]), 0, scan, notes[place], hidden=place in hidden)
        single.append(made)
    return SigmaReport((*single, *joined), tuple(sorted(problems, key=lambda each: (each.path, each.line))), other)


def _bases(
    correlation: SigmaCorrelationRule, known: dict[str, int], elsewhere: set[str], scans: dict[int, EventScan]
) -> dict[str, int]:
    """Return the base rules of a correlation, by reference. Raise NotTranslatedError with what is missing."""
    references = [reference.reference for reference in correlation.rules or ()]
    if not references:
        raise NotTranslatedError("conditions that join rules by and, or and not are not supported")
    if all(reference in elsewhere for reference in references):
        raise _NotForCloudTrail
    for reference in references:
        if reference in elsewhere:
            raise NotTranslatedError(f"its rule '{reference}' is for other logs than CloudTrail's")
        if reference not in known:
            raise NotTranslatedError(f"its rule '{reference}' is not among the rules, or is itself a correlation")
        if known[reference] not in scans:
            raise NotTranslatedError(f"its rule '{reference}' could not be translated")
    return {reference: known[reference] for reference in references}


def _is_for_cloudtrail(rule: SigmaRule) -> bool:
    source = rule.logsource
    product, service, category = (str(part or "").lower() for part in (source.product, source.service, source.category))
    return product == "aws" and service in ("cloudtrail", "") and not category


def _scan(rule: SigmaRule) -> EventScan:
    parts: list[str] = []
    names: list[frozenset[str] | None] = []
    sources: list[frozenset[str] | None] = []

    def look(rule: Any, form: Any, index: int, condition: Any, result: Any) -> Any:
        name, source = limits(condition.parsed)
        names.append(name)
        sources.append(source)
        return result

    backend = DuckDBBackend(pipeline())
    parts = [str(part) for part in backend.convert_rule(rule, callback=look)]
    if not parts:
        raise NotTranslatedError("its condition is empty")
    condition = f"({' OR '.join(parts)})"
    if len(condition) > MAX_SQL:
        raise NotTranslatedError(f"its condition becomes {len(condition):,} characters of SQL: at most {MAX_SQL:,}")
    step = HOUR if _level(rule) in _SEVERITIES else DAY
    return EventScan(condition, _union(names), _union(sources), step)


def _union(parts: Sequence[frozenset[str] | None]) -> frozenset[str] | None:
    known = [part for part in parts if part is not None]
    return frozenset().union(*known) if known and len(known) == len(parts) else None


def _level(rule: SigmaRule | SigmaCorrelationRule) -> str:
    return rule.level.name.lower() if rule.level is not None else ""


def _id_of(document: Document, rule: SigmaRule | SigmaCorrelationRule) -> str:
    return str(rule.id or rule.name or Path(document.path).stem)[:_TITLE]


def _check_double(document: Document, id_: str, places: dict[str, Document]) -> None:
    before = places.setdefault(id_, document)
    if before is not document:
        raise NotTranslatedError(f"has the same id as {before.path}:{before.line}: '{id_}'")


def _rule(
    document: Document,
    rule: SigmaRule | SigmaCorrelationRule,
    sql: str,
    history: int,
    scan: EventScan | None,
    notes: tuple[str, ...],
    *,
    hidden: bool = False,
) -> TranslatedRule:
    id_, level = _id_of(document, rule), _level(rule)
    title = str(rule.title or id_)[:_TITLE]
    techniques = tuple(
        dict.fromkeys(
            tag.name.upper() for tag in rule.tags if tag.namespace == "attack" and _TECHNIQUE.fullmatch(tag.name)
        )
    )
    severity = _SEVERITIES.get(level, "low")
    line = document.line_of("detection:", "correlation:")
    meaning = " ".join(str(rule.description or title).split())[:_DESCRIPTION]
    detection = Detection(
        f"sigma:{id_}", document.path, line, title, title, severity, techniques,
        meaning, sql, history, (), (), scan=scan, supporting=level not in _SEVERITIES, timed=True,
    )  # fmt: skip
    status = rule.status.name.lower() if rule.status is not None else ""
    correlates = isinstance(rule, SigmaCorrelationRule)
    return TranslatedRule(
        id_, title, level, status, techniques, document.path, document.line, detection, notes, correlates, hidden
    )


def _notes(rule: SigmaRule) -> tuple[str, ...]:
    """Return why a rule may never match: it asks for members that records do not have."""
    unknown = dict.fromkeys(name for name in _fields(rule.detection.detections.values()) if not is_known(name))
    return tuple(f"records of CloudTrail have no member {name[:_TITLE]}" for name in unknown)


def _fields(parts: Iterable[SigmaDetection | SigmaDetectionItem]) -> Iterable[str]:
    for part in parts:
        if isinstance(part, SigmaDetection):
            yield from _fields(part.detection_items)
        elif part.field is not None:
            yield part.field


def _problem(document: Document, error: Exception) -> Problem:
    """Return what is wrong with a document, and the line that is probably meant."""
    if isinstance(error, RecursionError):
        return Problem(document.path, document.line, "is nested too deeply")
    known = isinstance(error, SigmaError | NotTranslatedError)
    message = str(error.args[0]) if error.args else type(error).__name__
    message = " ".join(message.split())[:500]
    reason = message if known else f"cannot be read as a Sigma rule: {message}"
    about = "condition" if "ondition" in type(error).__name__ else ""
    return Problem(
        document.path, document.line_of(*_QUOTED.findall(message), *([f"{about}:"] if about else ())), reason
    )
