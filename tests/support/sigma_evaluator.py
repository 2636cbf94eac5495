"""A second reading of Sigma: rules as YAML gives them, over records as CloudTrail wrote them, in plain Python.

It shares no code with the translation to SQL. It knows the modifiers that are of use for CloudTrail's fields.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

Record = dict[str, Any]
_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*")


def is_match(rule: dict[str, Any], record: Record) -> bool:
    """Return whether a record meets the condition of a rule."""
    detection = rule["detection"]
    conditions = detection["condition"]
    conditions = [conditions] if isinstance(conditions, str) else conditions
    names = {name: part for name, part in detection.items() if name != "condition"}
    return any(
        _Condition(text, names, record).value()
        for text in ([conditions] if isinstance(conditions, str) else conditions)
    )


# -- conditions ------------------------------------------------------------------------------------------------------


class _Condition:
    """A recursive descent: or, and, not, parentheses, `1 of x*`, `all of them`."""

    def __init__(self, text: str, names: dict[str, Any], record: Record) -> None:
        self.words = re.findall(r"[()]|[^\s()]+", text)
        self.names = names
        self.record = record

    def value(self) -> bool:
        result = self.either()
        assert not self.words, self.words
        return result

    def either(self) -> bool:
        result = self.both()
        while self.words and self.words[0] == "or":
            self.words.pop(0)
            result = self.both() or result
        return result

    def both(self) -> bool:
        result = self.negated()
        while self.words and self.words[0] == "and":
            self.words.pop(0)
            result = self.negated() and result
        return result

    def negated(self) -> bool:
        word = self.words.pop(0)
        if word == "not":
            return not self.negated()
        if word == "(":
            result = self.either()
            assert self.words.pop(0) == ")"
            return result
        if word in ("1", "any", "all") and self.words and self.words[0] == "of":
            self.words.pop(0)
            pattern = self.words.pop(0)
            chosen = [
                part
                for name, part in self.names.items()
                if not name.startswith("_") and (pattern == "them" or fnmatchcase(name, pattern))
            ]
            results = [_selection(part, self.record) for part in chosen]
            return all(results) if word == "all" else any(results)
        return _selection(self.names[word], self.record)


def _selection(part: Any, record: Record) -> bool:
    if isinstance(part, dict):
        return all(_item(key, value, record) for key, value in part.items())
    if isinstance(part, list):
        return any(_selection(each, record) for each in part)
    return _keyword(part, record)


def _keyword(value: Any, record: Record) -> bool:
    texts = [text for member in record.values() for text in _texts(member)]
    pattern = _pattern(".*", str(value), ".*", cased=False)
    return any(pattern(text) for text in texts)


# -- fields ----------------------------------------------------------------------------------------------------------


def values_of(record: Record, name: str) -> list[str]:
    """Return the values of a field: texts, of lists those of their members."""
    items: list[Any] = [record]
    for place, part in enumerate(name.split(".")):
        inner = [each for item in items for each in (item if isinstance(item, list) else [item])]
        items = []
        for each in inner:
            if isinstance(each, dict):
                found = part if place or part in each else _top(each, part)
                if found in each:
                    items.append(each[found])
    leaves = [each for item in items for each in (item if isinstance(item, list) else [item])]
    return [text for leaf in leaves for text in _texts(leaf)]


def _top(record: Record, name: str) -> str:
    return next((member for member in record if member.lower() == name.lower()), name)


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return [text, text.replace('\\"', '"')] if isinstance(value, dict | list) else [text]


def _item(key: str, value: Any, record: Record) -> bool:
    name, *modifiers = key.split("|")
    values = value if isinstance(value, list) else [value]
    negated = "neq" in modifiers
    every = "all" in modifiers
    modifiers = [modifier for modifier in modifiers if modifier not in ("all", "neq")]
    results = [_value(name, modifiers, each, record) for each in values]
    result = all(results) if every else any(results)
    return not result if negated else result


def _value(name: str, modifiers: list[str], value: Any, record: Record) -> bool:
    if not name:
        return _keyword(value, record)
    own = values_of(record, name)
    if "exists" in modifiers:
        return bool(own) is value
    if "fieldref" in modifiers:
        others = values_of(record, value)
        join = _JOINS[next((modifier for modifier in modifiers if modifier in _JOINS), "")]
        return any(join(left.lower(), right.lower()) for left in own for right in others)
    if value is None:
        return not own
    return any(test(text) for test in _tests(modifiers, value) for text in own)


_JOINS: dict[str, Callable[[str, str], bool]] = {
    "": str.__eq__,
    "startswith": str.startswith,
    "endswith": str.endswith,
    "contains": str.__contains__,
}


def _tests(modifiers: list[str], value: Any) -> Iterator[Callable[[str], bool]]:
    compare = next((modifier for modifier in modifiers if modifier in _COMPARISONS), None)
    if compare is not None:
        yield lambda text: _number(text) is not None and _COMPARISONS[compare](_number(text), value)
    elif "cidr" in modifiers:
        yield lambda text: _in_network(text, value)
    elif "re" in modifiers:
        flags = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL}
        chosen = re.compile(value, sum(flag for sign, flag in flags.items() if sign in modifiers))
        yield lambda text: chosen.search(text) is not None
    elif isinstance(value, bool):
        yield lambda text: text.lower() == str(value).lower()
    elif isinstance(value, int | float) and not set(modifiers) & {"contains", "startswith", "endswith"}:
        yield lambda text: text == str(value) or _number(text) == value
    else:
        yield from (_pattern(*parts, cased="cased" in modifiers) for parts in _strings(modifiers, str(value)))


def _strings(modifiers: list[str], value: str) -> list[tuple[str, str, str]]:
    if "base64" in modifiers:
        value = base64.b64encode(value.encode()).decode()
    values = [value]
    if "windash" in modifiers:
        values = [re.sub(r"\B[-/]\b", dash, value, count=1) for dash in "-/\u2013\u2014\u2015"]
    before = ".*" if {"contains", "endswith"} & set(modifiers) else ""
    after = ".*" if {"contains", "startswith"} & set(modifiers) else ""
    return [(before, each, after) for each in values]


def _pattern(before: str, value: str, after: str, *, cased: bool) -> Callable[[str], bool]:
    """Return the comparison with a text with wildcards; a backslash before one, or before another, escapes it."""
    out, place = "", 0
    while place < len(value):
        sign, follower = value[place], value[place + 1 : place + 2]
        if sign == "\\" and follower and follower in "*?\\":
            out, place = out + re.escape(follower if cased else follower.lower()), place + 2
            continue
        out += {"*": ".*", "?": "."}.get(sign) or re.escape(sign if cased else sign.lower())
        place += 1
    chosen = re.compile(before + out + after, re.DOTALL)
    return lambda text: chosen.fullmatch(text if cased else text.lower()) is not None


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "lt": lambda left, right: left < right,
    "lte": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "gte": lambda left, right: left >= right,
}


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _in_network(text: str, network: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    chosen = ipaddress.ip_network(network)
    return address.version == chosen.version and address in chosen
