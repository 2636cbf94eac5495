"""Rules that can never match: their conditions exclude each other, or earlier rules cover them."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TypeGuard

from trailsift.cloudtrail.services import service_of
from trailsift.rules import globs
from trailsift.rules.model import Condition, Rule, Rules

_ARN = "arn:"


def find_unreachable(rules: Rules) -> list[tuple[int, str]]:
    """Return (line, message) for each rule that no event can reach. Each one is certain; not every one is found."""
    problems = []
    earlier = _EarlierRules()
    for rule in rules.rules:
        contradiction = _contradiction(rule)
        cover = None if contradiction else earlier.covering(rule)
        if contradiction:
            problems.append((rule.line, f'the rule "{rule.name}" can never match: {contradiction}'))
        elif cover is not None:
            problems.append(
                (
                    rule.line,
                    f'the rule "{rule.name}" can never match: "{cover.name}" in line {cover.line} matches all of its '
                    "events, and the first match wins",
                )
            )
        earlier.add(rule)
    return problems


def _contradiction(rule: Rule) -> str:
    return _other_service(rule) or _other_caller(rule)


def _other_service(rule: Rule) -> str:
    services, sources = rule.when.get("service"), rule.when.get("event_source")
    if isinstance(services, tuple) and isinstance(sources, tuple):
        exact = [source for source in sources if "*" not in source]
        if len(exact) == len(sources) and not any(
            _text_covers(service, service_of(source)) for service in services for source in exact
        ):
            return f'event_source "{exact[0]}" is service "{service_of(exact[0])}", not "{services[0]}"'
    return ""


def _other_caller(rule: Rule) -> str:
    """Return why no event can have both this caller and this role: a caller that is an ARN is its role, and the other
    way round."""
    for one, other in (("role", "caller"), ("caller", "role")):
        values, others = rule.when.get(one), rule.when.get(other)
        if not _are_arns(values) or not isinstance(others, tuple):
            continue
        exact = [value for value in values if not globs.is_glob(value)]
        if len(exact) == len(values) and not any(_text_covers(wide, value) for wide in others for value in exact):
            return f'the {other} of the {one} "{exact[0]}" is the same, not "{others[0]}"'
        if not any(_can_be_arn(value) for value in others):
            return f'the {other} of the {one} "{values[0]}" is an ARN, not "{others[0]}"'
    return ""


def _are_arns(values: Condition | None) -> TypeGuard[tuple[str, ...]]:
    """Return whether a condition matches nothing but ARNs."""
    return isinstance(values, tuple) and all(value.startswith(_ARN) for value in values)


def _can_be_arn(value: str) -> bool:
    start = globs.parts(value)[0]
    return start.startswith(_ARN) or (globs.is_glob(value) and _ARN.startswith(start))


def _with_implied(when: Mapping[str, Condition]) -> Mapping[str, Condition]:
    """Return conditions with what follows from them: a caller that is an ARN is the role, and the other way round."""
    for one, other in (("role", "caller"), ("caller", "role")):
        if _are_arns(when.get(one)) and other not in when:
            return {**when, other: when[one]}
    return when


class _EarlierRules:
    """Rules by the fields that they name, and by the exact values of one of these fields, so that few are compared."""

    def __init__(self) -> None:
        self._groups: dict[frozenset[str], tuple[str, dict[str, list[Rule]], list[Rule]]] = {}

    def add(self, rule: Rule) -> None:
        """Add a rule."""
        fields = frozenset(rule.when)
        pivot, exact, others = self._groups.setdefault(fields, (_pivot(rule), defaultdict(list), []))
        values = rule.when.get(pivot)
        if isinstance(values, tuple) and not any("*" in value or "/" in value for value in values):
            for value in values:
                exact[value].append(rule)
        else:
            others.append(rule)

    def covering(self, rule: Rule) -> Rule | None:
        """Return an earlier rule that matches everything that ``rule`` could match, or the last of several that do so
        together, one for each value of one of its fields."""
        single = self._cover(rule)
        if single is not None:
            return single
        for name, values in rule.when.items():
            if not isinstance(values, tuple) or not 1 < len(values) <= 50:
                continue
            covers = []
            for value in values:
                part = Rule(rule.name, rule.action, {**rule.when, name: (value,)}, rule.rates, rule.line)
                covers.append(self._cover(part))
                if covers[-1] is None:
                    break
            covering = [cover for cover in covers if cover is not None]
            if len(covering) == len(values):
                return max(covering, key=lambda cover: cover.line)
        return None

    def _cover(self, rule: Rule) -> Rule | None:
        when = _with_implied(rule.when)
        for fields, (pivot, exact, others) in self._groups.items():
            if not fields <= when.keys():
                continue
            for earlier in self._candidates(when, pivot, exact, others):
                if earlier.touches_failed >= rule.touches_failed and all(
                    _covers(name, earlier.when[name], when[name]) for name in fields
                ):
                    return earlier
        return None

    @staticmethod
    def _candidates(
        when: Mapping[str, Condition], pivot: str, exact: dict[str, list[Rule]], others: list[Rule]
    ) -> Iterator[Rule]:
        values = when.get(pivot)
        if isinstance(values, tuple):
            yield from exact.get(values[0], ())
        yield from others


def _pivot(rule: Rule) -> str:
    """Return the most selective field that a rule names."""
    keys = ("object_key", "key_pattern")
    for name in ("role", "caller", "resource", *keys, "user_agent", "source_ip", "account", "event_name", "service"):
        if name in rule.when:
            return name
    return ""


def _covers(name: str, wide: Condition, narrow: Condition) -> bool:
    if isinstance(wide, frozenset) and isinstance(narrow, frozenset):
        return narrow <= wide
    if isinstance(wide, tuple) and isinstance(narrow, tuple):
        covers = _address_covers if name == "source_ip" else _text_covers
        return all(any(covers(outer, inner) for outer in wide) for inner in narrow)
    return wide == narrow


def _text_covers(wide: str, narrow: str) -> bool:
    """Return whether ``wide`` matches every text that ``narrow`` matches.

    An empty text stands for an absent value, which no ``*`` matches.
    """
    return wide == narrow or ("" not in (wide, narrow) and globs.covers(wide, narrow))


def _address_covers(wide: str, narrow: str) -> bool:
    if "/" not in wide or "*" in narrow:
        return _text_covers(wide, narrow)
    try:
        outer, inner = ipaddress.ip_network(wide), ipaddress.ip_network(narrow)
    except ValueError:
        return False
    if isinstance(outer, ipaddress.IPv4Network) and isinstance(inner, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(outer, ipaddress.IPv6Network) and isinstance(inner, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False
