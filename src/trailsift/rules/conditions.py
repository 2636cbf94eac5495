"""TOML values -> the conditions of a rule. Values that no event can have are rejected."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable
from typing import Any

from trailsift.cloudtrail.callers import ANONYMOUS, NONE, PREFIXES
from trailsift.rules.model import FIELDS, Condition
from trailsift.rules.problems import Problems, nearest, shown
from trailsift.rules.toml_positions import KeyPath
from trailsift.rules.week import WEEKDAYS

_PRINCIPAL_TYPES = (
    *("Root", "IAMUser", "AssumedRole", "Role", "FederatedUser", "Directory", "AWSAccount", "AWSService"),
    *("WebIdentityUser", "SAMLUser", "IdentityCenterUser", "Unknown"),
)
_CATEGORIES = ("Data", "Management", "Insight", "NetworkActivity")
_HOURS = re.compile(r"([0-9]{1,2})(?:-([0-9]{1,2}))?")


def parse_when(path: KeyPath, table: Any, problems: Problems) -> dict[str, Condition]:
    """Return the conditions of ``when``; problems are noted at ``path`` or below."""
    if not isinstance(table, dict):
        problems.add(path, 'when is a table of conditions, such as when = { service = "s3" }')
        return {}
    when: dict[str, Condition] = {}
    for key, value in table.items():
        if key not in FIELDS:
            problems.add((*path, key), f'unknown condition "{key}"' + nearest(key, FIELDS))
            continue
        condition = _condition((*path, key), key, value, problems)
        if condition is not None:
            when[key] = condition
    return when


def _condition(path: KeyPath, key: str, value: Any, problems: Problems) -> Condition | None:
    if key == "read_only":
        if not isinstance(value, bool):
            problems.add(path, f"read_only must be true or false, without quotes, not {shown(value)}")
            return None
        return value
    values = value if isinstance(value, list) else [value]
    if not values:
        problems.add(path, f"can never match: {key} is an empty list")
        return None
    paths = [(*path, number) if isinstance(value, list) else path for number in range(len(values))]
    if key in ("hour", "weekday"):
        return _times(paths, values, parse_hours if key == "hour" else _weekdays, problems)
    texts = []
    for item_path, item in zip(paths, values, strict=True):
        if not isinstance(item, str):
            problems.add(item_path, f"{key} must be text in quotes, not {shown(item)}")
            continue
        message = _impossible(key, item)
        if message:
            problems.add(item_path, message)
        texts.append(item)
    return tuple(dict.fromkeys(texts))


def _times(
    paths: list[KeyPath], values: list[Any], read: Callable[[Any], frozenset[int] | str], problems: Problems
) -> frozenset[int]:
    chosen: frozenset[int] = frozenset()
    for path, value in zip(paths, values, strict=True):
        times = read(value)
        if isinstance(times, str):
            problems.add(path, times)
            continue
        if chosen & times:
            problems.add(path, f"{shown(value)} overlaps with an earlier entry of the list")
        chosen |= times
    return chosen


def parse_hours(value: Any) -> frozenset[int] | str:
    """Return the hours of ``"09-17"`` (both included), ``"22-05"`` (over midnight), ``"7"`` or 7; or a message."""
    match = _HOURS.fullmatch(str(value)) if not isinstance(value, bool) else None
    if match is None:
        return f'{shown(value)} is not a range of hours: write "09-17" (09:00:00 to 17:59:59) or "22-05"'
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if first > 23 or last > 23:
        return f"{shown(value)}: hours go from 00 to 23"
    return frozenset((first + step) % 24 for step in range((last - first) % 24 + 1))


def _weekdays(value: Any) -> frozenset[int] | str:
    """Return the weekdays of ``"mon-fri"``, ``"sat-sun"`` or ``"wed"``; or a message."""
    if not isinstance(value, str):
        return f'{shown(value)} is not a weekday: write "mon-fri" or ["sat", "sun"]'
    ends = value.strip().lower().split("-")
    if len(ends) > 2:
        return f'"{value}" is not a range of weekdays: write "mon-fri"'
    for end in ends:
        if end not in WEEKDAYS:
            return f'"{end}" is not a weekday' + nearest(end, WEEKDAYS)
    first, last = WEEKDAYS.index(ends[0]), WEEKDAYS.index(ends[-1])
    return frozenset((first + step) % 7 for step in range((last - first) % 7 + 1))


# -- values that can never match -------------------------------------------------------------------------------------


def _impossible(key: str, value: str) -> str:
    """Return why a text can never be a value of this field; empty if it can."""
    if value == "" and key == "caller":
        return f'"" can never match: every event has a caller: write "{ANONYMOUS}" or "{NONE}"'
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
    # A caller is an ARN or the name of a service: lambda.amazonaws.com, AWS Internal.
    if not value.startswith(("arn:", "arn*", "a*", "ar*")) and not {".", " "} & set(value):
        tail = value.rpartition("/")[2]
        return f'"{value}" can never match: a role is an ARN: write "*:role/{tail}" or "*/{tail}"'
    return ""


def _caller(value: str) -> str:
    start = value.partition("*")[0]
    if value == start and (value in (ANONYMOUS, NONE) or value.startswith(("arn:", *PREFIXES))):
        return ""
    if value != start and any(
        start.startswith(form) or form.startswith(start) for form in ("arn:", *PREFIXES, ANONYMOUS, NONE)
    ):
        return ""
    hint = nearest(value, (ANONYMOUS, NONE)) if value == start else ""
    if "did you mean" in hint:
        return f'"{value}" can never match{hint}'
    if re.fullmatch("[0-9]{12}", value):
        return f'"{value}" can never match: write "account:{value}/*" for principals of another account'
    tail = value.rpartition("/")[2]
    return (
        f'"{value}" can never match: a caller is an ARN such as "*:role/{tail}", "{ANONYMOUS}", "{NONE}", or begins '
        f"with one of {' '.join(PREFIXES)}"
    )


def _resource(value: str) -> str:
    if not value.startswith(("arn:", "arn*", "a*", "ar*")):
        return f'"{value}" can never match: a resource is an ARN such as "arn:aws:s3:::{value}", or "*{value}"'
    return ""


def _account(value: str) -> str:
    if value.isdigit() and len(value) != 12:
        return f'"{value}" can never match: an account has 12 digits, including leading zeros'
    return ""


#: The middle part of a region's name.
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
            # Swapped letters are the most common slip.
            close = [direction for direction in _DIRECTIONS if sorted(direction) == sorted(part)]
            close += [*difflib.get_close_matches(part, _DIRECTIONS, 1, 0.6), "east"]
            near = "-".join([*parts[:at], close[0], *parts[at + 1 :]])
            return f'"{value}" can never match: did you mean "{near}"?'
    return ""


def _event_name(value: str) -> str:
    if ":" in value:
        name = value.rpartition(":")[2]
        return f'"{value}" can never match: an event name does not include the service: write "{name}"'
    return ""


def _address(value: str) -> str:
    if "/" not in value:
        return ""
    try:
        ipaddress.ip_network(value)
    except ValueError:
        try:
            network = ipaddress.ip_network(value, strict=False)
        except ValueError:
            return f'"{value}" is not a network: write one such as "10.0.0.0/8", or an address'
        return f'"{value}" has bits set after its prefix: did you mean "{network}"?'
    return ""


def _among(words: tuple[str, ...]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if "*" in value or value in words:
            return ""
        return f'"{value}" can never match' + nearest(value, words)

    return check


_CHECKS: dict[str, Callable[[str], str]] = {
    "service": _service,
    "event_source": _source,
    "event_category": _among(_CATEGORIES),
    "principal_type": _among(_PRINCIPAL_TYPES),
    "role": _role,
    "caller": _caller,
    "resource": _resource,
    "account": _account,
    "region": _region,
    "event_name": _event_name,
    "source_ip": _address,
}
