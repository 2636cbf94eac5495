"""The backend: a rule's condition as one SQL expression over a row of ``events``, by pySigma's text backend.

Every part is true or false, never null, so ``not`` means what it says. Texts are compared without regard to case unless
the rule says ``cased`` or ``re``; a value matches a field if it matches any of its values (``fields``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from sigma.conditions import (
    ConditionAND,
    ConditionItem,
    ConditionNOT,
    ConditionOR,
    ConditionValueExpression,
)
from sigma.conditions import ConditionFieldEqualsValueExpression as FieldCondition
from sigma.conversion.base import TextQueryBackend
from sigma.conversion.state import ConversionState
from sigma.exceptions import SigmaFeatureNotSupportedByBackendError, SigmaValueError
from sigma.processing.pipeline import ProcessingItem, ProcessingPipeline
from sigma.processing.transformations import FieldFunctionTransformation
from sigma.types import (
    CompareOperators,
    Placeholder,
    SigmaBool,
    SigmaCasedString,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExists,
    SigmaExpansion,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaString,
    SigmaTimestampPart,
    SpecialChars,
    TimestampPart,
)

from trailsift.detect.sigma.fields import Field, Predicate, canonical, field_of, whole_record
from trailsift.query.relations import text

#: The longest regular expression, in characters.
MAX_REGEX = 2_000
_OPERATORS = {
    CompareOperators.LT: "<",
    CompareOperators.LTE: "<=",
    CompareOperators.GT: ">",
    CompareOperators.GTE: ">=",
    CompareOperators.NEQ: "<>",
}
_TIME_PARTS = {
    TimestampPart.MINUTE: "minute",
    TimestampPart.HOUR: "hour",
    TimestampPart.DAY: "day",
    TimestampPart.WEEK: "week",
    TimestampPart.MONTH: "month",
    TimestampPart.YEAR: "year",
}
#: Fields whose values a condition may be limited to beforehand.
_NAME, _SOURCE = "eventName", "eventSource"


def pipeline() -> ProcessingPipeline:
    """Return the processing pipeline: the first word of a field gets the case that CloudTrail writes it in."""
    naming = FieldFunctionTransformation(mapping={}, transform_func=lambda name: canonical(name or ""))
    return ProcessingPipeline(name="CloudTrail", items=[ProcessingItem(naming, identifier="cloudtrail_members")])


class DuckDBBackend(TextQueryBackend):
    """Conditions in DuckDB's SQL."""

    name = "DuckDB over the events of a lake"
    or_token, and_token, not_token, eq_token = "OR", "AND", "NOT", "="

    def convert_condition_or(self, cond: ConditionOR, state: ConversionState) -> str:
        """Alternatives; those on one field look at its values once."""
        of_field: dict[str | None, list[Predicate]] = {}
        parts: list[str] = []
        for part in cond.args:
            if isinstance(part, ConditionValueExpression):
                of_field.setdefault(None, []).append(_keyword(part.value))
                continue
            predicate = _predicate(part.value) if isinstance(part, FieldCondition) else None
            if predicate is None:
                parts.append(self._part(part, state))
            else:
                of_field.setdefault(part.field, []).append(predicate)
        for name, predicates in of_field.items():
            field = Field("", f"[{whole_record()}]") if name is None else _field(name)
            parts.append(field.matches(_any(predicates)))
        return f"({' OR '.join(parts)})"

    def convert_condition_and(self, cond: ConditionAND, state: ConversionState) -> str:
        """All of several conditions."""
        return f"({' AND '.join(self._part(part, state) for part in cond.args)})"

    def convert_condition_not(self, cond: ConditionNOT, state: ConversionState) -> str:
        """The opposite of a condition."""
        return f"(NOT {self._part(cond.args[0], state)})"

    def _part(self, cond: Any, state: ConversionState) -> str:
        converted = self.convert_condition(cond, state)
        if converted is None:
            raise SigmaValueError("a part of the condition is empty")
        return f"({converted})"

    def convert_condition_field_eq_val(self, cond: FieldCondition, state: ConversionState) -> str:
        """Return the condition that a field has a value."""
        field, value = _field(cond.field), cond.value
        predicate = _predicate(value)
        if predicate is not None:
            return field.matches(predicate)
        if isinstance(value, SigmaNull):
            return f"(NOT {field.exists})"
        if isinstance(value, SigmaExists):
            return field.exists if value else f"(NOT {field.exists})"
        if isinstance(value, SigmaFieldReference):
            return _compared(field, _field(canonical(value.field)), value)
        if isinstance(value, SigmaTimestampPart):
            return _time_part(cond.field, value)
        raise SigmaFeatureNotSupportedByBackendError(f"values of the kind {type(value).__name__} are not supported")

    def convert_condition_val(self, cond: ConditionValueExpression, state: ConversionState) -> str:
        """Return the condition that a keyword occurs anywhere in the record."""
        return f"coalesce({_keyword(cond.value)(whole_record())}, false)"

    def finish_query(self, rule: Any, query: Any, state: ConversionState) -> Any:
        """Return the expression as it is."""
        return query

    def finalize_query(self, rule: Any, query: Any, index: int, state: ConversionState, output_format: str) -> Any:
        """Return the expression as it is."""
        return query


def _field(name: str) -> Field:
    try:
        return field_of(name)
    except ValueError as error:
        raise SigmaValueError(str(error)) from error


# -- values ----------------------------------------------------------------------------------------------------------


def _any(predicates: list[Predicate]) -> Predicate:
    if len(predicates) == 1:
        return predicates[0]
    return lambda value: "(" + " OR ".join(f"({predicate(value)})" for predicate in predicates) + ")"


def _predicate(value: Any) -> Predicate | None:
    """Return the condition on one text that a Sigma value stands for; None if it is about more than one text."""
    if isinstance(value, SigmaExpansion):
        parts = [_predicate(part) for part in value.values]
        return _any([part for part in parts if part is not None]) if all(parts) and parts else None
    if isinstance(value, SigmaString):
        return _like(value)
    if isinstance(value, SigmaTimestampPart):
        return None
    for kind, make in _VALUES.items():
        if isinstance(value, kind):
            return make(value)
    return None


def _like(value: SigmaString) -> Predicate:
    """Return the comparison with a string, which may have wildcards at its ends or anywhere."""
    parts = list(value.s)
    fold = (lambda sql: sql) if isinstance(value, SigmaCasedString) else (lambda sql: f"lower({sql})")
    for part in parts:
        if isinstance(part, Placeholder):
            raise SigmaValueError(f"the placeholder %{part.name}% has no value here: write the values into the rule")
        if isinstance(part, str):
            _check(part)
    many = SpecialChars.WILDCARD_MULTI
    inner = [part for part in parts if part is not many]
    plain = all(isinstance(part, str) for part in inner) and len(inner) <= 1
    first, last = bool(parts) and parts[0] is many, bool(parts) and parts[-1] is many
    constant = fold(text("".join(inner))) if plain else ""
    if plain and not inner:
        # Wildcards only, or the empty string.
        return lambda sql: f"{sql} IS NOT NULL" if parts else f"{sql} = ''"
    if plain and not first and not last:
        return lambda sql: f"{fold(sql)} = {constant}"
    if plain:
        function = "contains" if first and last else "ends_with" if first else "starts_with"
        return lambda sql: f"{function}({fold(sql)}, {constant})"
    pattern = value.convert("\\", "%", "_", add_escaped="\\")
    return lambda sql: f"{fold(sql)} LIKE {fold(text(pattern))} ESCAPE '\\'"


def _number(value: SigmaNumber) -> Predicate:
    constant = repr(value.number)
    return lambda sql: f"({sql} = {text(str(value.number))} OR try_cast({sql} AS DOUBLE) = {constant}::DOUBLE)"


def _compare(value: SigmaCompareExpression) -> Predicate:
    operator = _OPERATORS[value.op]
    constant = repr(value.number.number)
    return lambda sql: f"try_cast({sql} AS DOUBLE) {operator} {constant}::DOUBLE"


def _bool(value: SigmaBool) -> Predicate:
    return lambda sql: f"lower({sql}) = '{str(value.boolean).lower()}'"


def _regex(value: SigmaRegularExpression) -> Predicate:
    if value.contains_placeholder():
        raise SigmaValueError("a placeholder in a regular expression has no value here")
    pattern = value.escape(escape_escape_char=False)
    _check(pattern)
    if len(pattern) > MAX_REGEX:
        raise SigmaValueError(f"a regular expression has {len(pattern):,} characters: at most {MAX_REGEX:,}")
    return lambda sql: f"regexp_matches({sql}, {text(pattern)})"


def _cidr(value: SigmaCIDRExpression) -> Predicate:
    network = value.network
    if isinstance(network, ipaddress.IPv4Network):
        low, high = int(network.network_address), int(network.broadcast_address)
        number = " + ".join(
            f"CAST(split_part({{0}}, '.', {place + 1}) AS BIGINT) * {256 ** (3 - place)}" for place in range(4)
        )
        octet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
        shape = text(rf"{octet}(\.{octet}){{3}}")
        return lambda sql: (
            f"CASE WHEN regexp_full_match({sql}, {shape}) THEN {number.format(sql)} BETWEEN {low} AND {high} END"
        )
    low6, high6 = (address.exploded.replace(":", "") for address in (network[0], network[-1]))
    return lambda sql: f"CASE WHEN {_is_ipv6(sql)} THEN {_hex_of(sql)} BETWEEN {text(low6)} AND {text(high6)} END"


def _groups(sql: str, part: int) -> str:
    half = f"split_part({sql}, '::', {part})"
    return f"list_filter(string_split({half}, ':'), lambda digits: digits <> '')"


def _is_ipv6(sql: str) -> str:
    """Return the condition that a text is an IPv6 address: eight groups, or fewer around one ``::``."""
    count = f"len({_groups(sql, 1)}) + len({_groups(sql, 2)})"
    shape = "[0-9a-fA-F]{0,4}(:[0-9a-fA-F]{0,4}){2,8}"
    return (
        f"regexp_full_match({sql}, '{shape}') AND CASE WHEN contains({sql}, '::')"
        f" THEN {count} < 8 AND NOT contains({sql}, ':::') AND len(string_split({sql}, '::')) = 2"
        f" AND NOT regexp_matches({sql}, '^:[^:]|[^:]:$') ELSE {count} = 8 AND len(string_split({sql}, ':')) = 8 END"
    )


def _hex_of(sql: str) -> str:
    """Return the 32 hexadecimal digits of an IPv6 address."""
    left, right = _groups(sql, 1), _groups(sql, 2)
    zeros = f"list_transform(range(8 - len({left}) - len({right})), lambda place: '0')"
    padded = f"list_transform(list_concat({left}, {zeros}, {right}), lambda digits: lpad(lower(digits), 4, '0'))"
    return f"array_to_string({padded}, '')"


_VALUES: dict[type, Callable[[Any], Predicate]] = {
    SigmaNumber: _number,
    SigmaBool: _bool,
    SigmaRegularExpression: _regex,
    SigmaCIDRExpression: _cidr,
    SigmaCompareExpression: _compare,
}


def _check(value: str) -> None:
    if "\0" in value:
        raise SigmaValueError("a value has a NUL character, which no record has")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SigmaValueError("a value is not valid Unicode") from error


def _compared(field: Field, other: Field, value: SigmaFieldReference) -> str:
    """Return the condition that a value of one field equals (begins with, ends with, contains) one of another."""
    function = {
        (False, False): "lower(value) = lower(other)",
        (True, False): "starts_with(lower(value), lower(other))",
        (False, True): "ends_with(lower(value), lower(other))",
        (True, True): "contains(lower(value), lower(other))",
    }[value.starts_with, value.ends_with]
    others = f"len(list_filter({other.all_values}, lambda other: {function})) > 0"
    return f"coalesce(len(list_filter({field.all_values}, lambda value: {others})) > 0, false)"


def _time_part(name: str, value: SigmaTimestampPart) -> str:
    if name != "eventTime":
        raise SigmaValueError(f"parts of a time can be asked of eventTime only, not of {name}")
    part = _TIME_PARTS[value.timestamp_part]
    return f"(date_part('{part}', event_time AT TIME ZONE 'UTC') = {int(value.number)})"


def _keyword(value: Any) -> Predicate:
    """Return the condition that a keyword occurs in a text."""
    if isinstance(value, SigmaString):
        many = SpecialChars.WILDCARD_MULTI
        inside = value.__class__()
        inside.s = [*([] if value.startswith(many) else [many]), *value.s, *([] if value.endswith(many) else [many])]
        return _like(inside)
    if isinstance(value, SigmaNumber):
        number = text(str(value.number))
        return lambda sql: f"contains({sql}, {number})"
    predicate = _predicate(value) if isinstance(value, SigmaRegularExpression) else None
    if predicate is None:
        raise SigmaValueError(f"keywords of the kind {type(value).__name__} are not supported")
    return predicate


# -- what a condition is limited to ------------------------------------------------------------------------------------


def limits(cond: Any) -> tuple[frozenset[str] | None, frozenset[str] | None]:
    """Return the names of calls and the sources of events, in lower case, that a condition is certainly limited to."""
    return _limit(cond, _NAME), _limit(cond, _SOURCE)


def _limit(cond: Any, name: str) -> frozenset[str] | None:
    if isinstance(cond, FieldCondition):
        return _constants(cond.value) if cond.field == name else None
    if isinstance(cond, ConditionNOT) or not isinstance(cond, ConditionItem):
        return None
    parts = [_limit(part, name) for part in cond.args]
    known = [part for part in parts if part is not None]
    if isinstance(cond, ConditionAND):
        return min(known, key=len, default=None)
    return frozenset().union(*known) if known and len(known) == len(parts) else None


def _constants(value: Any) -> frozenset[str] | None:
    if isinstance(value, SigmaExpansion):
        parts = [_constants(part) for part in value.values]
        return frozenset().union(*(part for part in parts if part)) if parts and all(parts) else None
    if isinstance(value, SigmaString) and all(isinstance(part, str) for part in value.s) and value.s:
        constant = "".join(map(str, value.s))
        # Beyond ASCII, our lower case and DuckDB's might differ.
        return frozenset({constant.lower()}) if constant.isascii() else None
    return None
