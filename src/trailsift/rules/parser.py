"""The text of a rules file -> rules: every value is checked, and every problem is reported with its line."""

from __future__ import annotations

import difflib
import tomllib
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trailsift.decode.landing import MAX_WEIGHT, RULE_NAME_LIMIT
from trailsift.errors import RulesError
from trailsift.rules.conditions import parse_hours, parse_when
from trailsift.rules.model import ACTIONS, DEFAULT_SEED, DEFAULT_ZONE, FIELDS, OMITTABLE, Action, Condition, Rule, Rules
from trailsift.rules.problems import Problems, nearest, shown
from trailsift.rules.toml_positions import KeyPath
from trailsift.rules.unreachable import find_unreachable
from trailsift.schema import EVENTS

#: Longest name of a rule, in characters.
NAME_LIMIT = RULE_NAME_LIMIT


def load(path: Path) -> Rules:
    """Return the rules of a file. Raise RulesError, with every wrong line, if they cannot be used."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RulesError(f"the rules file {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RulesError(f"the rules file {path} is not UTF-8 text: {error}") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Rules:
    """Return the rules in a text. Raise RulesError as ``load`` does; ``name`` is the file's name in messages."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"{name}: not TOML: {error}") from error
    except RecursionError:
        raise RulesError(f"{name}: its lists or tables are nested too deeply") from None
    problems = Problems(text)
    rules = RulesParser(text, name, content, problems).rules()
    messages = problems.items or find_unreachable(rules)
    if messages:
        raise RulesError("\n".join(f"{name}, line {line}: {message}" for line, message in sorted(messages)))
    return rules


class RulesParser:
    """Parses the content of one file; the rules are valid only if ``problems`` stays empty."""

    def __init__(self, text: str, name: str, content: Mapping[str, Any], problems: Problems) -> None:
        self.text = text
        self.name = name
        self.content = content
        self.problems = problems

    def rules(self) -> Rules:
        """Return the rules, and note every problem."""
        keys = ("timezone", "seed", "rule", "fields")
        for key in self.content:
            if key not in keys:
                self.problems.add((key,), f'unknown key "{key}"' + nearest(key, keys))
        tables = self.content.get("rule", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self.problems.add(("rule",), "each rule begins with a line [[rule]], in double brackets")
            tables = []
        rules = tuple(_RuleParser(("rule", number), table, self.problems).rule() for number, table in enumerate(tables))
        self._check_names(rules)
        return Rules(
            name=self.name,
            rules=rules,
            timezone=self._timezone(),
            seed=self._string("seed", DEFAULT_SEED),
            omit=self._omit(),
            text=self.text,
        )

    def _string(self, key: str, default: str) -> str:
        value = self.content.get(key, default)
        if not isinstance(value, str):
            self.problems.add((key,), f"{key} must be text in quotes, not {shown(value)}")
            return default
        return value

    def _timezone(self) -> str:
        name = self._string("timezone", DEFAULT_ZONE)
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            near = _nearest_zone(name)
            hint = f': did you mean "{near}"?' if near else ": write a name such as UTC or Asia/Seoul"
            self.problems.add(("timezone",), f'there is no time zone "{name}"{hint}')
            return DEFAULT_ZONE
        return name

    def _omit(self) -> tuple[str, ...]:
        fields = self.content.get("fields", {})
        if not isinstance(fields, dict):
            self.problems.add(("fields",), "[fields] is a table: write omit = [...] below it")
            return ()
        for key in fields:
            if key != "omit":
                self.problems.add(("fields", key), f'unknown key "{key}" in [fields]' + nearest(key, ("omit",)))
        omit = fields.get("omit", [])
        if not isinstance(omit, list):
            self.problems.add(("fields", "omit"), 'omit is a list of columns, such as omit = ["request_parameters"]')
            return ()
        columns = {column.name for column in EVENTS.columns}
        for number, column in enumerate(omit):
            path = ("fields", "omit", number)
            if not isinstance(column, str) or column not in columns:
                self.problems.add(path, f'there is no column "{column}"' + nearest(str(column), OMITTABLE))
            elif column not in OMITTABLE:
                self.problems.add(
                    path,
                    f'"{column}" cannot be left out: it identifies, counts or summarizes events. '
                    f"Columns that can be left out: {', '.join(OMITTABLE)}",
                )
        return tuple(dict.fromkeys(str(column) for column in omit))

    def _check_names(self, rules: tuple[Rule, ...]) -> None:
        first: dict[str, int] = {}
        for number, rule in enumerate(rules):
            path = ("rule", number, "name")
            if rule.name and rule.name in first:
                self.problems.add(
                    path,
                    f'there is already a rule "{rule.name}" in line {first[rule.name]}; names must be unique because '
                    "counts are kept by name",
                )
            first.setdefault(rule.name, self.problems.line(path, rule.line))


def _nearest_zone(name: str) -> str | None:
    """Return the time zone whose name, or whose city, is closest to ``name``."""
    zones = sorted(zoneinfo.available_timezones())
    close = difflib.get_close_matches(name, zones, 1, 0.6) or difflib.get_close_matches(
        name.rpartition("/")[2].lower(), sorted({zone.rpartition("/")[2].lower() for zone in zones}), 1
    )
    return next((zone for zone in zones if close and zone.lower().endswith(close[0].lower())), None)


class _RuleParser:
    """Parses one ``[[rule]]`` table, which is at ``path``."""

    def __init__(self, path: KeyPath, table: Mapping[str, Any], problems: Problems) -> None:
        self.path = path
        self.table = table
        self.problems = problems

    def rule(self) -> Rule:
        """Return the rule, and note every problem."""
        keys = ("name", "when", "action", "rate")
        for key in self.table:
            if key not in keys:
                hint = ": a condition belongs inside when = { ... }" if key in FIELDS else nearest(key, keys)
                self.problems.add((*self.path, key), f'unknown key "{key}" in a rule{hint}')
        name = self._name()
        action = self._action()
        when = parse_when((*self.path, "when"), self.table.get("when", {}), self.problems)
        # If the action is misspelled, it is unknown whether the rule needs a rate.
        rates = self._rates(action, when) if self.table.get("action") in ACTIONS else ()
        return Rule(name, action, when, rates, self.problems.line(self.path))

    def _name(self) -> str:
        path = (*self.path, "name")
        name = self.table.get("name")
        if not isinstance(name, str) or not name.strip():
            self.problems.add(path, 'a rule needs a name, such as name = "bulk reads": counts are kept by name')
            return ""
        if len(name) > NAME_LIMIT or not name.isprintable():
            self.problems.add(path, f"a name is one line of at most {NAME_LIMIT} characters")
        return name

    def _action(self) -> Action:
        value = self.table.get("action")
        for action in ACTIONS:
            if value == action:
                return action
        message = "a rule needs an action" if value is None else f'unknown action "{value}"'
        self.problems.add((*self.path, "action"), message + nearest(str(value or ""), ACTIONS))
        return "keep"

    def _rates(self, action: str, when: Mapping[str, Condition]) -> tuple[float, ...]:
        path = (*self.path, "rate")
        value = self.table.get("rate")
        if action != "sample":
            if value is not None:
                self.problems.add(path, f'rate applies only to action = "sample", but the action is "{action}"')
            return ()
        if value is None:
            self.problems.add(path, "sample needs a rate, such as rate = 0.1, the share of events that is kept")
            return ()
        if isinstance(value, dict):
            hours = when.get("hour")
            return self._hourly_rates(path, value, hours if isinstance(hours, frozenset) else frozenset(range(24)))
        return (self._rate(path, value),) * 24

    def _hourly_rates(self, path: KeyPath, table: Mapping[str, Any], matched: frozenset[int]) -> tuple[float, ...]:
        """Return the rate of each hour of the day; ``matched`` are the hours at which the rule can match."""
        rates: dict[int, float] = {}
        otherwise = None
        for key, value in table.items():
            rate = self._rate((*path, key), value)
            if key == "otherwise":
                otherwise = rate
                continue
            hours = parse_hours(key)
            if isinstance(hours, str):
                is_otherwise = difflib.get_close_matches(key.lower(), ("otherwise",), 1, 0.6)
                self.problems.add((*path, key), hours + (', or did you mean "otherwise"?' if is_otherwise else ""))
                continue
            if hours & rates.keys():
                self.problems.add((*path, key), f'the hours "{key}" overlap with other hours of this rate')
            elif not hours & matched:
                self.problems.add(
                    (*path, key), f'the rate for "{key}" can never apply: the rule matches only at other hours'
                )
            rates.update(dict.fromkeys(hours, rate))
        open_hours = sorted(matched - rates.keys())
        if otherwise is None and open_hours:
            hours_text = ", ".join(f"{hour:02d}" for hour in open_hours)
            self.problems.add(path, f"no rate for the hours {hours_text}: add otherwise = ... for all other hours")
        return tuple(rates.get(hour, otherwise or 1.0) for hour in range(24))

    def _rate(self, path: KeyPath, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.problems.add(path, f"a rate is a number above 0 and up to 1, not {shown(value)}")
            return 1.0
        if not 0 < value <= 1:
            drop = 'for a rate of 0 use action = "drop"'
            hint = drop if value == 0 else "it is the share of events that is kept, 0.1 for a tenth"
            self.problems.add(path, f"the rate {value} is impossible, it must be above 0 and up to 1: {hint}")
            return 1.0
        if value * MAX_WEIGHT < 1:
            least = f"{1 / MAX_WEIGHT:.0e}"
            self.problems.add(path, f"the rate {value} is below {least}, the least that can be counted with")
            return 1.0
        return float(value)
