"""Rules that can never match: conditions that exclude each other, and rules that an earlier one has covered."""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

from trailsift.decode.record import service_of
from trailsift.rules.model import Condition, Rule, Rules


def never_matching(rules: Rules) -> list[tuple[int, str]]:
    """(line, why) for each rule that no event can reach. What is told is certain; not every such rule is found."""
    problems = []
    earlier = _Earlier()
    for rule in rules.rules:
        against = _contradiction(rule)
        cover = None if against else earlier.covering(rule)
        if against:
            problems.append((rule.line, f'the rule "{rule.name}" can never match: {against}'))
        elif cover is not None:
            problems.append(
                (
                    rule.line,
                    f'the rule "{rule.name}" can never match: "{cover.name}" in line {cover.line} takes all of it, '
                    "and the first match wins",
                )
            )
        earlier.add(rule)
    return problems


def _contradiction(rule: Rule) -> str:
    services, sources = rule.when.get("service"), rule.when.get("event_source")
    if isinstance(services, tuple) and isinstance(sources, tuple):
        exact = [source for source in sources if "*" not in source]
        if len(exact) == len(sources) and not any(
            _text_covers(service, service_of(source)) for service in services for source in exact
        ):
            return f'event_source "{exact[0]}" is service "{service_of(exact[0])}", not "{services[0]}"'
    return ""


class _Earlier:
    """Rules by the fields that they name, and by the first exact value of one of them, so that few are compared."""

    def __init__(self) -> None:
        self._groups: dict[frozenset[str], tuple[str, dict[str, list[Rule]], list[Rule]]] = {}

    def add(self, rule: Rule) -> None:
        """Takes a rule in."""
        fields = frozenset(rule.when)
        pivot, exact, others = self._groups.setdefault(fields, (_pivot(rule), defaultdict(list), []))
        values = rule.when.get(pivot)
        if isinstance(values, tuple) and not any("*" in value or "/" in value for value in values):
            for value in values:
                exact[value].append(rule)
        else:
            others.append(rule)

    def covering(self, rule: Rule) -> Rule | None:
        """An earlier rule that takes everything that ``rule`` could match, or the last of several that do so
        together, one for each value of one of its fields."""
        whole = self._cover(rule)
        if whole is not None:
            return whole
        for name, values in rule.when.items():
            if not isinstance(values, tuple) or not 1 < len(values) <= 50:
                continue
            covers = []
            for value in values:
                part = Rule(rule.name, rule.action, {**rule.when, name: (value,)}, rule.rates, rule.line)
                covers.append(self._cover(part))
                if covers[-1] is None:
                    break
            found = [cover for cover in covers if cover is not None]
            if len(found) == len(values):
                return max(found, key=lambda cover: cover.line)
        return None

    def _cover(self, rule: Rule) -> Rule | None:
        for fields, (pivot, exact, others) in self._groups.items():
            if not fields <= rule.when.keys():
                continue
            for earlier in self._candidates(rule, pivot, exact, others):
                if earlier.touches_failed >= rule.touches_failed and all(
                    _covers(name, earlier.when[name], rule.when[name]) for name in fields
                ):
                    return earlier
        return None

    @staticmethod
    def _candidates(rule: Rule, pivot: str, exact: dict[str, list[Rule]], others: list[Rule]) -> Iterator[Rule]:
        values = rule.when.get(pivot)
        if isinstance(values, tuple):
            yield from exact.get(values[0], ())
        yield from others


def _pivot(rule: Rule) -> str:
    """The field that tells rules apart best."""
    for name in ("role", "resource", "object_key", "user_agent", "source_ip", "account", "event_name", "service"):
        if name in rule.when:
            return name
    return ""


def _covers(name: str, wide: Condition, narrow: Condition) -> bool:
    if isinstance(wide, frozenset) and isinstance(narrow, frozenset):
        return narrow <= wide
    if isinstance(wide, tuple) and isinstance(narrow, tuple):
        one = _address_covers if name == "source_ip" else _text_covers
        return all(any(one(outer, inner) for outer in wide) for inner in narrow)
    return wide == narrow


def _text_covers(wide: str, narrow: str) -> bool:
    """Whether all that ``narrow`` matches is matched by ``wide``.

    A ``*`` of ``narrow`` is taken as a character: where only a ``*`` of ``wide`` can have taken it, any text can stand
    in its place.
    """
    if wide == narrow:
        return True
    return "*" in wide and narrow != "" and _regex(wide).fullmatch(narrow) is not None


@lru_cache(maxsize=4096)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


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
