"""What is one's own, as a TOML file: networks, accounts, partners, scanners; and findings that respect it.

Signals are learned without it and filtered at the end, so a changed file takes effect at once, for the past as well.
The lake keeps the file (``findings/own.toml``), so every later detection uses it.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trailsift.analysis.base import ask, tuple_of
from trailsift.cloudtrail.callers import is_arn
from trailsift.detect.callers import network_of
from trailsift.detect.detection_rules import SEVERITY_RARITY
from trailsift.detect.finding import Link, Signal
from trailsift.detect.priors import CALLER_KINDS, priors_of
from trailsift.errors import LakeError, UsageError
from trailsift.query.relations import text as quoted_text
from trailsift.storage import Location, open_storage
from trailsift.times import DAY

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

_FILE = "findings/own.toml"
#: Limits of a file: its bytes, entries of one list, characters of an entry.
_BYTES, _ENTRIES, _LENGTH = 256 << 10, 5_000, 2_048
_LISTS = ("networks", "accounts", "partners")
_SCANNER_KEYS = ("caller", "network", "agent")
_ACCOUNT = re.compile(r"\d{12}")
_CALLERS_AT_ONCE = 500

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Scanner:
    """A scanner of one's own: all of its fields that are given must fit. ``*`` stands for any text."""

    caller: str | None = None
    network: Network | None = None
    agent: str | None = None


@dataclass(frozen=True)
class Own:
    """Networks, accounts and partners (accounts), and scanners of one's own."""

    networks: tuple[Network, ...] = ()
    accounts: frozenset[str] = frozenset()
    partners: frozenset[str] = frozenset()
    scanners: tuple[Scanner, ...] = ()

    def __bool__(self) -> bool:
        """Return whether anything is named."""
        return bool(self.networks or self.accounts or self.partners or self.scanners)


def read_own(path: Path) -> tuple[Own, str]:
    """Return what a user's file names, and its text. Raise UsageError with the line of a mistake."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--own {path} cannot be read: {error}") from error
    if len(data) > _BYTES:
        raise UsageError(f"--own {path} is larger than {_BYTES >> 10} KB")
    text = data.decode("utf-8", "replace")
    return parse_own(str(path), text), text


def own_of(lake: Location) -> Own:
    """Return what the lake's file names; nothing if there is none. Raise LakeError if it cannot be used."""
    storage = open_storage(lake)
    try:
        text = storage.read_range(_FILE, 0, _BYTES + 1).decode("utf-8", "replace")
    except FileNotFoundError:
        return Own()
    except OSError as error:
        raise LakeError(f"cannot read {storage.describe(_FILE)}: {error}") from error
    try:
        return parse_own(storage.describe(_FILE), text)
    except UsageError as error:
        raise LakeError(f"{error}; give a right one with `trailsift detect --own FILE`, or delete it") from error


def keep_own(lake: Location, text: str) -> None:
    """Keep a file in the lake for later detections, unless the lake is read-only; an empty one names nothing."""
    with contextlib.suppress(OSError):
        open_storage(lake).write(_FILE, text.encode())


def parse_own(path: str, text: str) -> Own:
    """Return what a file names. Raise UsageError with the line of a mistake."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        at = re.search(r"line (\d+)", str(error))
        raise UsageError(f"{path}:{at[1] if at else 1}: is not valid TOML: {error}") from error

    def fail(near: object, message: str) -> UsageError:
        return UsageError(f"{path}:{_line(text, str(near))}: {message}")

    for key in table:
        if key not in (*_LISTS, "scanners"):
            raise fail(key, f"unknown key {key!r:.60}: use {', '.join((*_LISTS, 'scanners'))}")
    lists = {key: _texts(key, table.get(key, []), fail) for key in _LISTS}
    for key in ("accounts", "partners"):
        for account in lists[key]:
            if not _ACCOUNT.fullmatch(account):
                raise fail(account, f"{key}: {account!r:.60} is not an account: write its 12 digits in quotes")
    networks = tuple(_network(network, fail) for network in lists["networks"])
    scanners = table.get("scanners", [])
    if not isinstance(scanners, list) or len(scanners) > _ENTRIES:
        raise fail("scanners", f"scanners are tables, [[scanners]], at most {_ENTRIES:,}")
    return Own(
        networks,
        frozenset(lists["accounts"]),
        frozenset(lists["partners"]),
        tuple(_scanner(scanner, fail) for scanner in scanners),
    )


_Fail = Callable[[object, str], UsageError]


def _texts(key: str, value: object, fail: _Fail) -> list[str]:
    if not isinstance(value, list) or len(value) > _ENTRIES:
        raise fail(key, f"{key} is a list of strings, at most {_ENTRIES:,}")
    for entry in value:
        if not isinstance(entry, str) or not 0 < len(entry) <= _LENGTH:
            raise fail(entry if isinstance(entry, str | int) else key, f"{key} is a list of strings in quotes")
    return value


def _network(value: str, fail: _Fail) -> Network:
    try:
        return ip_network(value)
    except ValueError as error:
        raise fail(value, f"{value!r:.60} is not a network such as 203.0.113.0/24: {error!s:.100}") from error


def _scanner(table: object, fail: _Fail) -> Scanner:
    if not isinstance(table, dict) or not table:
        raise fail("scanners", f"a scanner needs one of {', '.join(_SCANNER_KEYS)}")
    for key, value in table.items():
        if key not in _SCANNER_KEYS:
            raise fail(key, f"unknown key {key!r:.60} of a scanner: use {', '.join(_SCANNER_KEYS)}")
        if not isinstance(value, str) or not 0 < len(value) <= _LENGTH or value.count("*") > 5:
            raise fail(key, f"{key} of a scanner is a string with at most 5 asterisks")
        if key != "network" and not value.strip("*"):
            raise fail(key, f"{key} = {value!r} of a scanner would fit everything")
    network = _network(table["network"], fail) if "network" in table else None
    return Scanner(table.get("caller"), network, table.get("agent"))


def _line(text: str, near: str) -> int:
    return next((number for number, line in enumerate(text.splitlines(), 1) if near in line), 1)


def respect(
    engine: DuckDBEngine, own: Own, signals: Sequence[Signal], links: Sequence[Link]
) -> tuple[list[Signal], list[Link]]:
    """Return the signals and links that are left without those that what is one's own explains."""
    if not own:
        return list(signals), list(links)
    left = [signal for signal in signals if not _explained(own, signal)]
    scanning = _scans(engine, own.scanners, left)
    most = SEVERITY_RARITY["high"]
    return (
        [signal for signal in left if not scanning(signal) or (signal.kind == "detection" and signal.rarity >= most)],
        [link for link in links if not _within(link.value, own.networks)],
    )


def _explained(own: Own, signal: Signal) -> bool:
    known = own.accounts | own.partners
    if signal.kind == "first_network":
        return _within(signal.value, own.networks)
    if signal.kind == "first_account":
        return signal.value in known
    if signal.kind in ("split_session", "newcomer") and signal.parts:
        return _within(signal.parts[-1][0].partition(",")[0], own.networks)
    network = network_of(signal.caller)
    if network is not None:
        return _within(network, own.networks)
    if _account(signal.caller) in known:
        return signal.rule == "foreign-account" or _ordinary_here(signal)
    return False


def _ordinary_here(signal: Signal) -> bool:
    """Return whether a burst would be none if it were not a foreigner's: partners are judged as roles."""
    if signal.kind not in ("burst", "unlike_peers") or signal.basis != "prior" or is_arn(signal.caller):
        return False
    limits = priors_of(CALLER_KINDS.index("role"), [name for name, *_ in signal.parts])
    return all(amount <= limit for (_, amount, *_), limit in zip(signal.parts, limits.tolist(), strict=True))


def _account(caller: str | None) -> str | None:
    """Return the account that a caller's text names; None if it names none."""
    if caller is None:
        return None
    if is_arn(caller):
        return (caller.split(":") + [""] * 5)[4] or None
    return caller.removeprefix("account:").partition("/")[0] if caller.startswith("account:") else None


def _within(network: str, own: Iterable[Network]) -> bool:
    """Return whether a network of a summary table (/24 or /48) is one's own, or has one's own addresses."""
    try:
        place = ip_network(network)
    except ValueError:
        return False
    return any(place.version == mine.version and place.overlaps(mine) for mine in own)


def _scans(engine: DuckDBEngine, scanners: Sequence[Scanner], signals: Sequence[Signal]) -> Callable[[Signal], bool]:
    """Return a function that says whether a signal is of a scanner."""
    named = [scanner for scanner in scanners if scanner.network is None and scanner.agent is None]
    seen = [scanner for scanner in scanners if scanner not in named]
    origins = _origins(engine, {signal.caller for signal in signals}) if seen else {}

    def scanning(signal: Signal) -> bool:
        if any(_fits(scanner.caller, signal.caller) for scanner in named):
            return True
        days = range(signal.first_time // DAY, signal.last_time // DAY + 1)
        places = [origins[signal.caller, day] for day in days if (signal.caller, day) in origins]
        network = network_of(signal.caller)
        if network is not None:
            return any(s.agent is None and s.network is not None and _within(network, [s.network]) for s in seen)
        return any(_only_from(scanner, signal.caller, places) for scanner in seen)

    return scanning


def _fits(pattern: str | None, value: str | None) -> bool:
    return pattern is None or (
        value is not None and fnmatchcase(value, pattern.replace("[", "[[]").replace("?", "[?]"))
    )


def _only_from(scanner: Scanner, caller: str | None, places: Sequence[Mapping[str, Sequence[str]]]) -> bool:
    """Return whether a caller made all its calls of some days from a scanner's network, with a scanner's client."""
    if not places or not _fits(scanner.caller, caller):
        return False
    for place in places:
        networks, agents = place.get("source_network", ()), place.get("user_agent", ())
        if scanner.network is not None and not all(_within(network, [scanner.network]) for network in networks):
            return False
        if scanner.agent is not None and not all(_fits(f"*{scanner.agent.lower()}*", name.lower()) for name in agents):
            return False
        if (scanner.network is not None and not networks) or (scanner.agent is not None and not agents):
            return False
    return True


def _origins(engine: DuckDBEngine, callers: set[str | None]) -> dict[tuple[str | None, int], dict[str, list[str]]]:
    """Return the networks and clients of callers by day."""
    out: dict[tuple[str | None, int], dict[str, list[str]]] = defaultdict(dict)
    names = sorted(caller for caller in callers if caller is not None)
    for begin in range(0, len(names), _CALLERS_AT_ONCE):
        some = ", ".join(map(quoted_text, names[begin : begin + _CALLERS_AT_ONCE]))
        sql = f"""SELECT caller, epoch_us(day::TIMESTAMP) // {DAY}, dimension, list_sort(list(DISTINCT value))
            FROM profile WHERE dimension IN ('source_network', 'user_agent') AND value IS NOT NULL
                AND caller IN ({some}) GROUP BY ALL"""
        rows: list[tuple[Any, ...]] = ask(engine, tuple_of, sql)
        for caller, day, dimension, values in rows:
            out[caller, day][dimension] = values
    return out
