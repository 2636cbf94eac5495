"""Options and result of a generation; options are checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from trailsift.errors import UsageError

KINDS = (
    "bulk_exfiltration",
    "slow_exfiltration",
    "first_service",
    "new_network",
    "enumeration",
    "mass_delete",
    "night_activity",
    "new_key_pattern",
)
"""Kinds of planted incidents, in the order in which they are planted and listed."""

QUIET_KINDS = ("takeover",)
"""Kinds that exist only in stealthy form."""

STRENGTHS = ("standard", "weak", "stealthy")
"""How visible incidents are: as commonly seen; with an eighth of the calls; with few calls and nothing else unusual."""

DEFAULT_START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday: a week of logs holds five working days, then a weekend
MAX_ROLES = 5_000


@dataclass(frozen=True)
class Options:
    """Options of `generate`. The same options give the same files, byte for byte.

    events         distinct events, planted incidents included: exactly this many
    days           length of the period (event time); may be a fraction
    seed           changes every id, name and draw; 0 or more
    start          first moment of the period; a naive time means UTC; default Monday 2026-03-02T00:00Z
    timezone       IANA name; people work, shop and sleep by it
    roles          active identities (roles, a user, services, the anonymous crawler), 1 to 5,000
    tiny_objects   log objects as small as those of a quiet trail: 5 records (median), 18 (95th percentile)
    two_trails     a second trail delivers nearly every event again, byte for byte, in its own objects
    incidents      True for all kinds, False for none, or the names of some
    strength       one of STRENGTHS
    """

    events: int = 200_000
    days: float = 7
    seed: int = 1
    start: datetime | None = None
    timezone: str = "Asia/Seoul"
    roles: int = 12
    tiny_objects: bool = False
    two_trails: bool = False
    incidents: bool | Sequence[str] = True
    strength: str = "standard"

    def all_kinds(self) -> tuple[str, ...]:
        """Return the incident kinds of this strength."""
        return (*KINDS, *QUIET_KINDS) if self.strength == "stealthy" else KINDS

    def kinds(self) -> tuple[str, ...]:
        """Return the chosen incident kinds, in the order of KINDS."""
        if isinstance(self.incidents, bool):
            return self.all_kinds() if self.incidents else ()
        chosen = (self.incidents,) if isinstance(self.incidents, str) else tuple(self.incidents)
        return tuple(kind for kind in self.all_kinds() if kind in chosen)

    def first_second(self) -> int:
        """Return the start of the period in seconds since the epoch."""
        start = self.start or DEFAULT_START
        return int((start if start.tzinfo else start.replace(tzinfo=UTC)).timestamp())

    def seconds(self) -> int:
        """Return the length of the period in whole seconds, at least 1."""
        return max(1, round(self.days * 86_400))


@dataclass(frozen=True)
class Generated:
    """Result of `generate`. events = distinct events; records also counts second copies; bytes are compressed bytes."""

    events: int
    records: int
    log_objects: int
    bytes: int
    plain_bytes: int
    planted: tuple[str, ...]
    """The kind of each planted incident, one entry per incident."""


def check(options: Options) -> ZoneInfo:
    """Return the time zone of `options`. Raise UsageError if they are impossible."""
    if options.events < 1:
        raise UsageError(f"cannot generate {options.events} events: ask for 1 or more")
    if not 0 < options.days <= 3_660:
        raise UsageError(f"cannot generate {options.days} days: ask for more than 0 and at most 3660")
    if options.seed < 0:
        raise UsageError(f"seed {options.seed} is negative: use 0 or more")
    if not 1 <= options.roles <= MAX_ROLES:
        raise UsageError(f"cannot generate {options.roles} roles: ask for 1 to {MAX_ROLES}")
    if options.strength not in STRENGTHS:
        raise UsageError(f"unknown strength {options.strength}: choose from {', '.join(STRENGTHS)}")
    if not isinstance(options.incidents, bool):
        chosen = (options.incidents,) if isinstance(options.incidents, str) else tuple(options.incidents)
        unknown = sorted(set(chosen) - set(options.all_kinds()))
        if unknown:
            kinds = ", ".join(options.all_kinds())
            raise UsageError(f"unknown incident kind {', '.join(unknown)}: kinds of this strength are {kinds}")
    try:
        # CloudTrail writes four-digit years, and path arithmetic adds a day of late delivery.
        (options.start or DEFAULT_START) + timedelta(days=options.days + 2)
    except OverflowError as error:
        raise UsageError(f"{options.days} days from {options.start} end after the year 9999: start earlier") from error
    if options.first_second() < 0:
        raise UsageError(f"start {options.start} is before 1970: start later")
    try:
        return ZoneInfo(options.timezone)
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(f"unknown time zone {options.timezone!r}: use an IANA name such as Asia/Seoul") from error
