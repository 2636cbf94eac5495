"""The rules of a file. They are ordered: the first match wins, and an event that no rule matches is kept.

A denied or failed call is sampled or dropped only by a rule whose ``when`` names ``error_code``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from trailsift import schema

Action = Literal["keep", "sample", "drop"]
ACTIONS: tuple[Action, ...] = get_args(Action)

#: Conditions that ``when`` can name -> the column of ``events`` that each tests: hour and weekday test event_time, and
#: key_pattern what ``usage`` groups an object key by.
FIELDS: dict[str, str] = {
    "service": "service",
    "event_name": "event_name",
    "event_source": "event_source",
    "event_category": "event_category",
    "caller": "caller",
    "role": "role_arn",
    "principal_type": "principal_type",
    "resource": "resource_arn",
    "object_key": "object_key",
    "key_pattern": "object_key",
    "source_ip": "source_ip",
    "user_agent": "user_agent",
    "error_code": "error_code",
    "read_only": "read_only",
    "account": "account_id",
    "region": "aws_region",
    "hour": "event_time",
    "weekday": "event_time",
}

DEFAULT_SEED = "trailsift"
DEFAULT_ZONE = "UTC"

#: Columns that every stored event keeps: its identity, the columns that summaries group by or count, and our own.
_NEEDED = frozenset(
    {
        *("event_time", "event_id", "event_name", "event_source", "event_category", "weight", "log_object"),
        *("account_id", "aws_region", "service", "caller", "role_arn", "resource_arn", "error_code", "read_only"),
        *(
            "source_resource_arn",
            "source_object_key",
            "object_key",
            "source_ip",
            "user_agent",
            "vpc_endpoint_id",
            "session_name",
            "principal_account",
        ),
        *("bytes_in", "bytes_out", "year", "month", "day", "hour"),
        *("shared_event_id", "source_resource_arn", "source_object_key"),
    }
)
#: Columns that ``[fields] omit`` can name.
OMITTABLE: tuple[str, ...] = tuple(c.name for c in schema.EVENTS.columns if c.name not in _NEEDED)

#: A condition: globs (see ``rules.globs``) and "" for absent, hours 0-23, weekdays 0-6, or a truth value.
Condition = tuple[str, ...] | frozenset[int] | bool


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``rates``: the share kept per local hour (``sample`` only); ``line``: its first line in the file."""

    name: str
    action: Action
    when: Mapping[str, Condition]
    rates: tuple[float, ...] = ()
    line: int = 0

    @property
    def touches_failed(self) -> bool:
        """True if a denied or failed call can match."""
        return self.action == "keep" or "error_code" in self.when


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a file. ``digest`` identifies its text; ``omit`` are columns that stay empty."""

    name: str
    rules: tuple[Rule, ...] = ()
    timezone: str = DEFAULT_ZONE
    seed: str = DEFAULT_SEED
    omit: tuple[str, ...] = ()
    text: str = field(default="", repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def zone(self) -> ZoneInfo:
        """The zone of hours and weekdays."""
        return ZoneInfo(self.timezone)
