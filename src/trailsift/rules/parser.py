"""From TOML values to rules: every value is looked at, and every problem is told with its line."""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from trailsift.errors import RulesError
from trailsift.rules.model import ACTIONS, DEFAULT_SEED, DEFAULT_ZONE, FIELDS, OMITTABLE, Action, Condition, Rule, Rules
from trailsift.rules.toml_positions import KeyPath, line_numbers
from trailsift.rules.week import WEEKDAYS
from trailsift.schema import EVENTS

#: Longest name of a rule, in characters.
NAME_LIMIT = 100

_PRINCIPAL_TYPES = (
    *("Root", "IAMUser", "AssumedRole", "Role", "FederatedUser", "Directory", "AWSAccount", "AWSService"),
    *("WebIdentityUser", "SAMLUser", "IdentityCenterUser", "Unknown"),
)
_CATEGORIES = ("Data", "Management", "Insight", "NetworkActivity")
_HOURS = re.compile(r"([0-9]{1,2})(?:-([0-9]{1,2}))?")


def nearest(word: str, known: Iterable[str]) -> str:
    """``: did you mean "..."?``, or what there is, where nothing is near."""
    names = list(known)
    lower = {name.lower(): name for name in names}
    found = difflib.get_close_matches(word.lower(), lower, 1, 0.6)
    if found:
        return f': did you mean "{lower[found[0]]}"?'
    return f": there are {', '.join(names)}" if len(names) <= 40 else ""


class Reader:
    """Reads one file's values; ``problems`` are (line, what is wrong)."""

    def __init__(self, text: str, name: str, given: dict[str, Any]) -> None:
        self.text = text
        self.name = name
        self.given = given
        self.lines = line_numbers(text)
        self.problems: list[tuple[int, str]] = []

    def wrong(self, path: KeyPath, problem: str) -> None:
        """Notes a problem at the line of ``path``, or of the nearest thing that holds it."""
        while path and path not in self.lines:
            path = path[:-1]
        self.problems.append((self.lines.get(path, 1), problem))

    def read(self) -> Rules:
        """The rules; only of worth where there are no problems."""
        for key in self.given:
            if key not in ("timezone", "seed", "rule", "fields"):
                self.wrong((key,), f'unknown key "{key}"' + nearest(key, ("timezone", "seed", "rule", "fields")))
        given = self.given.get("rule", [])
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            self.wrong(("rule",), "each rule begins with a line [[rule]], in double brackets")
            given = []
        rules = tuple(self._rule(("rule", number), one) for number, one in enumerate(given))
        self._names(rules)
        return Rules(
            name=self.name,
            rules=rules,
            timezone=self._zone(),
            seed=self._text(("seed",), self.given.get("seed", DEFAULT_SEED)),
            omit=self._omit(),
            text=self.text,
        )

    # -- the file --------------------------------------------------------------------------------------------------

    def _zone(self) -> str:
        name = self._text(("timezone",), self.given.get("timezone", DEFAULT_ZONE))
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            known = zoneinfo.available_timezones()
            tail = difflib.get_close_matches(name, known, 1, 0.6) or difflib.get_close_matches(
                name.rpartition("/")[2].lower(), sorted({one.rpartition("/")[2].lower() for one in known}), 1
            )
            full = [one for one in sorted(known) if tail and one.lower().endswith(tail[0].lower())]
            meant = f': did you mean "{full[0]}"?' if full else ": write a name such as UTC or Asia/Seoul"
            self.wrong(("timezone",), f'there is no time zone "{name}"{meant}')
            return DEFAULT_ZONE
        return name

    def _omit(self) -> tuple[str, ...]:
        fields = self.given.get("fields", {})
        if not isinstance(fields, dict):
            self.wrong(("fields",), "[fields] is a table: write omit = [...] below it")
            return ()
        for key in fields:
            if key != "omit":
                self.wrong(("fields", key), f'unknown key "{key}" in [fields]' + nearest(key, ("omit",)))
        omit = fields.get("omit", [])
        if not isinstance(omit, list):
            self.wrong(("fields", "omit"), 'omit is a list of columns, such as omit = ["request_parameters"]')
            return ()
        known = {column.name for column in EVENTS.columns}
        for number, column in enumerate(omit):
            path = ("fields", "omit", number)
            if not isinstance(column, str) or column not in known:
                self.wrong(path, f'there is no column "{column}"' + nearest(str(column), OMITTABLE))
            elif column not in OMITTABLE:
                self.wrong(
                    path,
                    f'"{column}" cannot be left out: events are found, counted or summarized by it. '
                    f"Can be left out: {', '.join(OMITTABLE)}",
                )
        return tuple(dict.fromkeys(str(column) for column in omit))

    def _names(self, rules: tuple[Rule, ...]) -> None:
        first: dict[str, int] = {}
        for number, rule in enumerate(rules):
            if rule.name and rule.name in first:
                self.wrong(
                    ("rule", number, "name"),
                    f'there is a rule "{rule.name}" already, in line {first[rule.name]}: counts are kept by name',
                )
            first.setdefault(rule.name, self.lines.get(("rule", number, "name"), rule.line))

    # -- one rule --------------------------------------------------------------------------------------------------

    def _rule(self, path: KeyPath, given: dict[str, Any]) -> Rule:
        known = ("name", "when", "action", "rate")
        for key in given:
            if key not in known:
                hint = ": a condition belongs inside when = { ... }" if key in FIELDS else nearest(key, known)
                self.wrong((*path, key), f'unknown key "{key}" in a rule{hint}')
        name = self._name(path, given)
        action = self._action(path, given.get("action"))
        when = self._when((*path, "when"), given.get("when", {}))
        # Of an action that is misspelled nobody knows whether it has a rate.
        rates = self._rates((*path, "rate"), action, given.get("rate"), when) if given.get("action") in ACTIONS else ()
        return Rule(name, action, when, rates, self.lines.get(path, 1))

    def _action(self, path: KeyPath, given: Any) -> Action:
        for known in ACTIONS:
            if given == known:
                return known
        told = "a rule needs an action" if given is None else f'unknown action "{given}"'
        self.wrong((*path, "action"), told + nearest(str(given or ""), ACTIONS))
        return "keep"

    def _name(self, path: KeyPath, given: dict[str, Any]) -> str:
        name = given.get("name")
        if not isinstance(name, str) or not name.strip():
            self.wrong((*path, "name"), 'a rule needs a name, such as name = "bulk reads": counts are kept by it')
            return ""
        if len(name) > NAME_LIMIT or not name.isprintable():
            self.wrong((*path, "name"), f"a name is one line of at most {NAME_LIMIT} characters")
        return name

    def _when(self, path: KeyPath, given: Any) -> dict[str, Condition]:
        if not isinstance(given, dict):
            self.wrong(path, 'when is a table of conditions, such as when = { service = "s3" }')
            return {}
        when: dict[str, Condition] = {}
        for key, value in given.items():
            if key not in FIELDS:
                self.wrong((*path, key), f'unknown condition "{key}"' + nearest(key, FIELDS))
                continue
            wanted = self._wanted((*path, key), key, value)
            if wanted is not None:
                when[key] = wanted
        return when

    def _wanted(self, path: KeyPath, key: str, value: Any) -> Condition | None:
        if key == "read_only":
            if not isinstance(value, bool):
                self.wrong(path, f"read_only is true or false, without quotes, and not {_shown(value)}")
                return None
            return value
        values = value if isinstance(value, list) else [value]
        if not values:
            self.wrong(path, f"can never match: {key} is an empty list")
            return None
        places = [(*path, number) if isinstance(value, list) else path for number in range(len(values))]
        if key in ("hour", "weekday"):
            return self._times(places, values, _hours if key == "hour" else _weekdays)
        texts = []
        for place, one in zip(places, values, strict=True):
            if not isinstance(one, str):
                self.wrong(place, f"{key} is text in quotes, and not {_shown(one)}")
                continue
            problem = _unusual(key, one)
            if problem:
                self.wrong(place, problem)
            texts.append(one)
        return tuple(dict.fromkeys(texts))

    def _times(
        self, places: list[KeyPath], values: list[Any], read: Callable[[Any], frozenset[int] | str]
    ) -> frozenset[int]:
        chosen: frozenset[int] = frozenset()
        for place, one in zip(places, values, strict=True):
            found = read(one)
            if isinstance(found, str):
                self.wrong(place, found)
                continue
            if chosen & found:
                self.wrong(place, f"{_shown(one)} overlaps with what stands before it")
            chosen |= found
        return chosen

    def _rates(self, path: KeyPath, action: str, given: Any, when: Mapping[str, Condition]) -> tuple[float, ...]:
        if action != "sample":
            if given is not None:
                self.wrong(path, f'a rate belongs to action = "sample", and this rule says "{action}"')
            return ()
        if given is None:
            self.wrong(path, "sample needs a rate, such as rate = 0.1, the share that is kept")
            return ()
        if not isinstance(given, dict):
            return (self._rate(path, given),) * 24
        hours = when.get("hour")
        used = hours if isinstance(hours, frozenset) else frozenset(range(24))
        rates: dict[int, float] = {}
        otherwise = None
        for key, value in given.items():
            rate = self._rate((*path, key), value)
            if key == "otherwise":
                otherwise = rate
                continue
            found = _hours(key)
            if isinstance(found, str):
                self.wrong((*path, key), found + nearest(key, ("otherwise",)).partition(": there are")[0])
                continue
            if found & rates.keys():
                self.wrong((*path, key), f'the hours "{key}" overlap with others of this rate')
            elif not found & used:
                self.wrong((*path, key), f'the rate for "{key}" can never apply: the rule matches at other hours only')
            rates.update(dict.fromkeys(found, rate))
        open_hours = sorted(used - rates.keys())
        if otherwise is None and open_hours:
            told = ", ".join(f"{hour:02d}" for hour in open_hours)
            self.wrong(path, f"no rate for the hours {told}: add otherwise = ..., the rate of all other hours")
        return tuple(rates.get(hour, otherwise or 1.0) for hour in range(24))

    def _rate(self, path: KeyPath, given: Any) -> float:
        if isinstance(given, bool) or not isinstance(given, int | float):
            self.wrong(path, f"a rate is a number above 0 and up to 1, and not {_shown(given)}")
            return 1.0
        if not 0 < given <= 1:
            hint = 'a rate of 0 is action = "drop"' if given == 0 else "it is the share that is kept, 0.1 for a tenth"
            self.wrong(path, f"the rate {given} is impossible, it must be above 0 and up to 1: {hint}")
            return 1.0
        return float(given)

    def _text(self, path: KeyPath, given: Any) -> str:
        if not isinstance(given, str):
            self.wrong(path, f"{path[-1]} is text in quotes, and not {_shown(given)}")
            return DEFAULT_ZONE
        return given


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _hours(value: Any) -> frozenset[int] | str:
    """Hours of ``"09-17"`` (both included), ``"22-05"`` (over midnight), ``"7"`` or 7; or what is wrong."""
    match = _HOURS.fullmatch(str(value)) if not isinstance(value, bool) else None
    if match is None:
        return f'{_shown(value)} are no hours: write "09-17" (09:00:00 to 17:59:59) or "22-05"'
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if first > 23 or last > 23:
        return f"{_shown(value)}: hours go from 00 to 23"
    return frozenset((first + step) % 24 for step in range((last - first) % 24 + 1))


def _weekdays(value: Any) -> frozenset[int] | str:
    """Weekdays of ``"mon-fri"``, ``"sat-sun"`` or ``"wed"``; or what is wrong."""
    if not isinstance(value, str):
        return f'{_shown(value)} is no weekday: write "mon-fri" or ["sat", "sun"]'
    ends = value.strip().lower().split("-")
    if len(ends) > 2:
        return f'"{value}" is no range of weekdays: write "mon-fri"'
    for end in ends:
        if end not in WEEKDAYS:
            return f'"{end}" is no weekday' + nearest(end, WEEKDAYS)
    first, last = WEEKDAYS.index(ends[0]), WEEKDAYS.index(ends[-1])
    return frozenset((first + step) % 7 for step in range((last - first) % 7 + 1))


def _unusual(key: str, value: str) -> str:
    """Why a text can never be a value of this field; empty where it can."""
    if value == "" or value.startswith("*"):
        return ""
    check = _CHECKS.get(key)
    return check(value) if check else ""


def _service(value: str) -> str:
    label = value.partition(".")[0].lower()
    if "." in value or value != value.lower():
        return f'"{value}" can never match: a service is the first label of eventSource: write "{label}"'
    return ""


def _source(value: str) -> str:
    if "." not in value and "*" not in value:
        return f'"{value}" can never match: event_source is an endpoint such as "{value}.amazonaws.com"'
    return ""


def _role(value: str) -> str:
    # What acts is an ARN or the name of a service: lambda.amazonaws.com, AWS Internal.
    if not value.startswith(("arn:", "arn*", "a*", "ar*")) and not {".", " "} & set(value):
        tail = value.rpartition("/")[2]
        return f'"{value}" can never match: a role is an ARN: write "*:role/{tail}" or "*/{tail}"'
    return ""


def _resource(value: str) -> str:
    if not value.startswith(("arn:", "arn*", "a*", "ar*")):
        return f'"{value}" can never match: a resource is an ARN such as "arn:aws:s3:::{value}", or "*{value}"'
    return ""


def _account(value: str) -> str:
    if value.isdigit() and len(value) != 12:
        return f'"{value}" can never match: an account has 12 digits, with leading zeros'
    return ""


#: What stands between a region's area and its number.
_DIRECTIONS = (
    *("central", "north", "south", "east", "west", "northeast", "northwest", "southeast", "southwest"),
    *("gov", "iso", "isob", "isoe", "isof", "de"),
)


def _region(value: str) -> str:
    parts = value.split("-")
    if "*" in value or parts[0] == "aws":
        return ""
    zone = re.fullmatch(r"([a-z-]+-[0-9]+)[a-z]", value)
    if zone:
        return f'"{value}" can never match: it is a zone of the region "{zone[1]}"'
    if len(parts) < 3 or not parts[-1].isdigit() or value != value.lower():
        return f'"{value}" can never match: a region is written like "us-east-1"'
    for at, part in enumerate(parts[1:-1], 1):
        if part not in _DIRECTIONS:
            # Letters in another order are the commonest slip.
            close = [known for known in _DIRECTIONS if sorted(known) == sorted(part)]
            close += [*difflib.get_close_matches(part, _DIRECTIONS, 1, 0.6), "east"]
            near = "-".join([*parts[:at], close[0], *parts[at + 1 :]])
            return f'"{value}" can never match: did you mean "{near}"?'
    return ""


def _name_of_event(value: str) -> str:
    if ":" in value:
        return f'"{value}" can never match: an event name has no service: write "{value.rpartition(":")[2]}"'
    return ""


def _address(value: str) -> str:
    if "/" not in value:
        return ""
    try:
        ipaddress.ip_network(value)
    except ValueError:
        try:
            whole = ipaddress.ip_network(value, strict=False)
        except ValueError:
            return f'"{value}" is no network: write one such as "10.0.0.0/8", or an address'
        return f'"{value}" has bits set behind its prefix: did you mean "{whole}"?'
    return ""


def _one_of(known: tuple[str, ...]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if "*" in value or value in known:
            return ""
        return f'"{value}" can never match' + nearest(value, known)

    return check


_CHECKS: dict[str, Callable[[str], str]] = {
    "service": _service,
    "event_source": _source,
    "event_category": _one_of(_CATEGORIES),
    "principal_type": _one_of(_PRINCIPAL_TYPES),
    "role": _role,
    "resource": _resource,
    "account": _account,
    "region": _region,
    "event_name": _name_of_event,
    "source_ip": _address,
}


def load(path: Path) -> Rules:
    """The rules of a file. RulesError, with every line that is wrong, where they cannot be used."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RulesError(f"the rules file {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RulesError(f"the rules file {path} is not UTF-8 text: {error}") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Rules:
    """The rules in a text. RulesError as of ``load``; ``name`` is what messages call the file."""
    # Here, and not above: both know the classes of this module.
    from trailsift.rules.parser import Reader
    from trailsift.rules.unreachable import never_matching

    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RulesError(f"{name}: not TOML: {error}") from error
    reader = Reader(text, name, given)
    rules = reader.read()
    if not reader.problems:
        reader.problems += never_matching(rules)
    if reader.problems:
        told = [f"{name}, line {line}: {problem}" for line, problem in sorted(reader.problems)]
        raise RulesError("\n".join(told))
    return rules
