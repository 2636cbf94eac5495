"""The first rule that an event matches.

Each column's value yields a bit mask of the rules that it does not exclude; the masks of all columns are ANDed and the
lowest bit left is the rule. So the cost of an event grows with the number of columns that rules name, and hardly with
the number of rules. Masks are cached by value, because the values of most columns repeat. Object keys and times do not
repeat; they are tested last, and only for the few rules that are left.
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trailsift.cloudtrail.event_ids import event_key
from trailsift.cloudtrail.key_patterns import key_pattern
from trailsift.rules import globs
from trailsift.rules.model import FIELDS, Action, Rule, Rules
from trailsift.rules.sampling import sip_key, siphash24, threshold
from trailsift.rules.week import SLOT, WEEK, week_hour

#: Values per column whose masks are cached; a full cache is cleared.
_CACHE_LIMIT = 100_000


class Decision(NamedTuple):
    """The decision on an event: the rule's action and name (None: no rule, kept), and the weight that the event is
    stored with; 0.0 if it is not stored (dropped, or not in the sample)."""

    action: Action
    rule: str | None
    weight: float


KEPT = Decision("keep", None, 1.0)


class _GlobIndex:
    """Globs and the rules that name them, indexed by the text before the first or after the last ``*``."""

    def __init__(self) -> None:
        self._by_start: dict[str, list[tuple[re.Pattern[str], int]]] = defaultdict(list)
        self._by_end: dict[str, list[tuple[re.Pattern[str], int]]] = defaultdict(list)
        self._starts: tuple[int, ...] = ()
        self._ends: tuple[int, ...] = ()

    def add(self, pattern: str, bit: int) -> None:
        """Add one glob of one rule."""
        parts = globs.parts(pattern)
        regex = globs.regex(pattern)
        if len(parts[0]) >= len(parts[-1]):
            self._by_start[parts[0]].append((regex, bit))
        else:
            self._by_end[parts[-1]].append((regex, bit))
        self._starts = tuple(sorted({len(text) for text in self._by_start}))
        self._ends = tuple(sorted({len(text) for text in self._by_end}))

    def ends(self) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
        """Return the indexed texts by length: the beginnings, then the ends, of values that a glob can match."""
        by_length: tuple[dict[int, list[str]], dict[int, list[str]]] = defaultdict(list), defaultdict(list)
        for texts, index in zip(by_length, (self._by_start, self._by_end), strict=True):
            for text in index:
                texts[len(text)].append(text)
        return by_length

    def mask(self, value: str) -> int:
        """Return the rules with a glob that matches."""
        mask = 0
        for length in self._starts:
            for regex, bit in self._by_start.get(value[:length], ()):
                if not mask & bit and regex.fullmatch(value):
                    mask |= bit
        for length in self._ends:
            for regex, bit in self._by_end.get(value[-length:], ()):
                if not mask & bit and regex.fullmatch(value):
                    mask |= bit
        return mask


class ColumnConditions:
    """The conditions of all rules on one column."""

    def __init__(self, name: str, rules: Sequence[tuple[int, Rule]]) -> None:
        """``rules``: (bit, rule); ``name`` as in ``when``."""
        self._exact: dict[Any, int] = defaultdict(int)
        self._patterns = _GlobIndex()
        self._networks: dict[tuple[int, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
        #: Rules that do not test this column, whatever its value.
        self.free = 0
        #: Rules that an absent value does not exclude.
        self.absent = 0
        self._cache: dict[Any, int] = {}
        for bit, rule in rules:
            condition = rule.when.get(name)
            if condition is None:
                self.absent |= bit
                if name != "error_code" or rule.touches_failed:
                    self.free |= bit
            elif isinstance(condition, bool):
                self._exact[condition] |= bit
            elif isinstance(condition, tuple):
                for text in condition:
                    self._add(name, text, bit)

    def _add(self, name: str, text: str, bit: int) -> None:
        if text == "":
            self.absent |= bit
        elif globs.is_glob(text):
            self._patterns.add(text, bit)
        elif name == "source_ip" and "/" in text:
            network = ipaddress.ip_network(text)
            shift = network.max_prefixlen - network.prefixlen
            self._networks[network.version, shift][int(network.network_address) >> shift] |= bit
        else:
            self._exact[globs.parts(text)[0]] |= bit

    def mask(self, value: Any) -> int:
        """Return the rules that this value does not exclude. An empty text counts as absent."""
        if value is None or value == "":
            return self.absent
        mask = self._cache.get(value)
        if mask is None:
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            mask = self._cache[value] = self.uncached_mask(value)
        return mask

    def uncached_mask(self, value: Any) -> int:
        """Return ``mask`` without the cache, for values that do not repeat."""
        if value is None or value == "":
            return self.absent
        mask = self.free | self._exact.get(value, 0)
        if isinstance(value, str):
            mask |= self._patterns.mask(value)
            if self._networks:
                mask |= self._in_networks(value)
        return mask

    def matchable(self) -> tuple[list[str], dict[int, list[str]], dict[int, list[str]]]:
        """Return which texts a condition can match: exact texts, then beginnings and ends by length.

        ``uncached_mask`` is ``free`` for every other text. Valid only for columns without networks.
        """
        return list(self._exact), *self._patterns.ends()

    def _in_networks(self, value: str) -> int:
        # Behind proxies it is a list: the first entry is the client.
        try:
            address = ipaddress.ip_address(value.partition(",")[0].strip().partition("%")[0])
        except ValueError:
            return 0
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        mask = 0
        number = int(address)
        for (version, shift), networks in self._networks.items():
            if version == address.version:
                mask |= networks.get(number >> shift, 0)
        return mask


#: Conditions that are tested last: their values do not repeat.
_LAST = ("object_key", "key_pattern", "hour", "weekday")


class RowRules:
    """A rules file compiled to decide on rows. It caches masks, so several threads must not share it."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.zone = rules.zone
        numbered = [(1 << number, rule) for number, rule in enumerate(rules.rules)]
        named = {name for rule in rules.rules for name in rule.when if name not in _LAST} | {"error_code"}
        #: The columns of ``events`` whose values repeat, and the conditions on each.
        self.columns: dict[str, ColumnConditions] = {
            column: ColumnConditions(name, numbered) for name, column in FIELDS.items() if name in named
        }
        self.keys = ColumnConditions("object_key", numbered)
        self.patterns = ColumnConditions("key_pattern", numbered)
        #: The rules that have a condition on the pattern of the object key; and those with any on the key.
        self.patterned = sum(bit for bit, rule in numbered if "key_pattern" in rule.when)
        self.keyed = self.patterned | sum(bit for bit, rule in numbered if "object_key" in rule.when)
        #: The rules that apply in each hour of the week.
        self.weeks = tuple(sum(bit for bit, rule in numbered if _applies(rule, hour)) for hour in range(WEEK))
        self.sample_key = sip_key(rules.seed, "lottery")
        #: For the event that a new line of ``hourly`` keeps: independent of the sample.
        self.exemplar_key = sip_key(rules.seed, "first")

    def match(self, row: Mapping[str, Any]) -> tuple[int, int]:
        """Return the number of the first rule that a row matches, -1 for none; and the row's hour of the week."""
        hour = week_hour(self.zone, row["event_time"] // SLOT)
        mask = self.weeks[hour]
        for name, column in self.columns.items():
            mask &= column.mask(row[name])
        if mask & -mask & self.keyed:
            mask &= self.keys.uncached_mask(row["object_key"])
        if mask & -mask & self.patterned:
            mask &= self.patterns.mask(key_pattern(row["object_key"] or ""))
        return (mask & -mask).bit_length() - 1, hour

    def drops_all(self, row: Mapping[str, Any]) -> bool:
        """Return whether every event with these values is dropped, whatever its time and its other columns are."""
        mask = (1 << len(self.rules.rules)) - 1
        for name, column in self.columns.items():
            if name in row:
                mask &= column.mask(row[name])
        if not mask:
            return False
        # The first rule that may match does match if it tests no other column.
        rule = self.rules.rules[(mask & -mask).bit_length() - 1]
        return rule.action == "drop" and all(FIELDS[name] in row for name in rule.when)

    def decide(self, row: Mapping[str, Any]) -> Decision:
        """Decide on an event: ``row`` as ``decode.record.row`` returns it (event_time in microseconds).

        Needs the columns that the rules name, event_id, event_time, object_key and error_code.
        """
        number, hour = self.match(row)
        if number < 0:
            return KEPT
        rule = self.rules.rules[number]
        if rule.action == "keep":
            return Decision("keep", rule.name, 1.0)
        if rule.action == "drop":
            return Decision("drop", rule.name, 0.0)
        rate = rule.rates[hour % 24]
        if rate >= 1:
            return Decision("sample", rule.name, 1.0)
        sampled = siphash24(self.sample_key, *event_key(row["event_id"])) < threshold(rate)
        return Decision("sample", rule.name, 1 / rate if sampled else 0.0)


def _applies(rule: Rule, hour: int) -> bool:
    hours, days = rule.when.get("hour"), rule.when.get("weekday")
    in_hours = not isinstance(hours, frozenset) or hour % 24 in hours
    return in_hours and (not isinstance(days, frozenset) or hour // 24 in days)
