"""Planted incidents: a role that exists and has a past does something unlike itself, late in the period."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from trailsift.generate.cast import (
    ANALYST,
    BACKUP,
    CHECKOUT,
    DEPLOY,
    ETL,
    INDEXER,
    REPORT,
    RESIZER,
    Archetype,
    Op,
)
from trailsift.generate.options import Options
from trailsift.generate.roles import Role, resource_arn
from trailsift.generate.sessions import FIRST_INTRUDER, Intruder
from trailsift.generate.shapes import SHAPES
from trailsift.generate.text import Ints, iso_time

SAMPLE = 50
"""Event ids that the truth names for an incident."""

_MOST = 0.1  # part of all events that incidents may be
_DENIED = ((0.85, "AccessDenied"),)
_LISTED = (
    "payroll", "board", "backups", "terraform-state", "secrets-store", "customer-exports", "hr-documents", "legal-hold",
    "vpn-configs", "audit-logs", "data-science", "m-and-a", "security-scans", "root-archive",
)  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """How one kind of incident goes.

    victim    whose role it is, if the cast has one
    share     of all events, at most `most` events
    begin     part of the period after which it begins; length: seconds it takes at most, 0 = to the end of the period
    address   where it comes from, if not from the role's own network
    at_night  only between 01:00 and 05:00 local time, in the role's ordinary session
    """

    kind: str
    title: str
    victim: Archetype
    share: float
    most: int
    begin: float
    length: int
    ops: tuple[Op, ...]
    description: str
    address: str | None = None
    agent: str | None = None
    at_night: bool = False


_LEDGER = "$org-$team-ledger"
_CLI = (
    "aws-cli/2.17.9 md/awscrt#0.20.11 ua/2.0 os/linux#6.6.15-amd64 md/arch#x86_64 lang/python#3.11.8"
    " md/pyimpl#CPython cfg/retry-mode#standard md/installer#exe md/distrib#kali.2024 md/prompt#off md/command#s3.cp"
)

PLOTS: tuple[Plot, ...] = (
    Plot(
        "bulk_exfiltration", "A report role copies the customer archive", REPORT, 0.03, 20_000, 0.72, 2_700,
        (
            Op("s3:GetObject", 97, _LEDGER, "archive/customers/{uuid:80000}/profile.json.gz", 1_400_000),
            Op("s3:ListObjects", 3, _LEDGER, "archive/customers/", 190_000),
        ),
        "Within the hour the role reads thousands of objects, under a prefix that its reports never needed.",
    ),
    Plot(
        "slow_exfiltration", "The backup user reads back what it only ever wrote", BACKUP, 0.01, 6_000, 0.5, 0,
        (Op("s3:GetObject", 1, "$org-$team-backup", "onprem/{word:dump}/{date:30}/chunk-{n4:900}.zst", 33_554_432),),
        "A few objects an hour, day and night, for the rest of the period: no hour stands out.",
    ),
    Plot(
        "first_service", "The CI role turns to DynamoDB", DEPLOY, 0.003, 600, 0.78, 3_600,
        (
            Op("dynamodb:Scan", 3, "$team-orders"),
            Op("dynamodb:GetItem", 2, "$team-orders", "order#{uuid:300000}", 0, ((0.2, "AccessDenied"),)),
        ),
        "A role that only knew S3, Lambda and STS scans a table.",
    ),
    Plot(
        "new_network", "A function's credentials are used from outside", CHECKOUT, 0.003, 800, 0.81, 5_400,
        (
            Op("dynamodb:GetItem", 8, "$team-orders", "order#{uuid:300000}", outside=True),
            Op("dynamodb:UpdateItem", 2, "$team-orders", "order#{uuid:300000}", outside=True),
        ),
        "Calls that the role makes every day, but from an address outside the network where it always ran.",
        "198.51.100.77", "python-requests/2.31.0 boto3/1.28.3 os/linux lang/python#3.10.12",
    ),
    Plot(
        "enumeration", "A task tries the doors", INDEXER, 0.005, 1_500, 0.66, 900,
        (
            Op("s3:ListBuckets", 2),
            *(Op("s3:HeadBucket", 2, f"$org-{name}", "", 0, _DENIED) for name in _LISTED),
            *(Op("s3:ListObjects", 2, f"$org-{name}", "", 900, _DENIED) for name in _LISTED),
            *(Op("s3:GetBucketAcl", 1, f"$org-{name}", "", 700, _DENIED) for name in _LISTED),
        ),
        "In a quarter of an hour the role asks for bucket after bucket; most are refused.",
        None, _CLI,
    ),
    Plot(
        "mass_delete", "The ETL role empties the curated zone", ETL, 0.015, 12_000, 0.88, 1_800,
        (
            Op("s3:DeleteObject", 98, "$org-$team-lake", "curated/events/dt={date:60}/part-{seq5:9000}.parquet"),
            Op("s3:ListObjects", 2, "$org-$team-lake", "curated/events/", 180_000),
        ),
        "Object after object is deleted in half an hour by a role that deleted temporary files only.",
    ),
    Plot(
        "night_activity", "A person's console session at night", ANALYST, 0.002, 250, 0.55, 5_400,
        (
            Op("s3:GetObject", 6, "$org-$team-shared", "{word:sheet}", 380_000),
            Op("s3:ListObjects", 4, "$org-$team-shared", "", 7_000),
            Op("s3:HeadObject", 1, "$org-$team-shared", "{word:sheet}"),
        ),
        "Usual calls on usual objects, hours after the last working day ever ended.",
        at_night=True,
    ),
    Plot(
        "new_key_pattern", "Encrypted blobs appear among the renditions", RESIZER, 0.004, 3_000, 0.84, 7_200,
        (Op("s3:PutObject", 1, "$org-$team-renditions", ".cache/{new_hex:64}.enc", 2_400_000),),
        "The role writes to its own bucket, as always, but under names of a kind it never wrote.",
    ),
)  # fmt: skip
"""One plot a kind, in the order of options.KINDS."""


@dataclass
class Incident:
    """One planted incident: its events' times and ops, and the ids met while they were written."""

    id: str
    plot: Plot
    role: Role
    slot: int
    seconds: Ints
    ops: Ints  # index into plot.ops, one an event
    seen: list[tuple[str, str]] = field(default_factory=list)

    def intruder(self) -> Intruder:
        """What its session has of its own."""
        return Intruder(self.plot.address, self.plot.agent)

    def saw(self, second: int, event_id: str) -> None:
        """Remember an event's id; a bounded number."""
        if len(self.seen) < 4 * SAMPLE:
            self.seen.append((iso_time(second), event_id))

    def truth(self) -> dict[str, Any]:
        """The incident as truth.json tells it. Times are event times (UTC); `event_ids` is a sample."""
        used = [self.plot.ops[i] for i in np.unique(self.ops).tolist()]
        counts = np.bincount(self.ops, minlength=len(self.plot.ops))
        arns: dict[str, int] = {}
        for op, count in zip(self.plot.ops, counts.tolist(), strict=True):
            arn = resource_arn(self.role, op)
            if arn and count:
                arns[arn] = arns.get(arn, 0) + count
        ranked = sorted(arns, key=lambda arn: (-arns[arn], arn))
        out: dict[str, Any] = {
            "id": self.id,
            "kind": self.plot.kind,
            "title": self.plot.title,
            "role_arn": self.role.arn,
            "event_names": sorted({SHAPES[op.event].event for op in used}),
            "resource_arn": ranked[0] if ranked else None,
            "resource_arns": ranked,
            "first_time": iso_time(int(self.seconds[0])),
            "last_time": iso_time(int(self.seconds[-1])),
            "events": len(self.seconds),
            "event_ids": [event_id for _, event_id in sorted(self.seen)[:SAMPLE]],
            "description": self.plot.description,
        }
        if self.plot.address:
            out["source_network"] = self.plot.address.rsplit(".", 1)[0] + ".0/24"
        return out


def plan(options: Options, zone: ZoneInfo, roles: tuple[Role, ...], rng: np.random.Generator) -> list[Incident]:
    """Who does what and when. Long and large runs get every kind twice; incidents are at most a tenth of all events.

    A kind is left out where it cannot be: no event to spare, or no night in the period.
    """
    rounds = 2 if options.days >= 20 and options.events >= 500_000 else 1
    room = int(options.events * _MOST)
    out: list[Incident] = []
    for again in range(rounds):
        for place, plot in enumerate(PLOTS):
            if plot.kind not in options.kinds():
                continue
            count = min(plot.most, max(1, int(options.events * plot.share)) // rounds, room)
            seconds = _times(plot, options, zone, rng, count, again) if count else np.empty(0, np.int64)
            if not len(seconds):
                continue
            room -= count
            role = _victim(plot, roles, again, place)
            slot = 0 if plot.at_night else FIRST_INTRUDER + 2 * place + again
            weights = np.array([op.weight for op in plot.ops])
            ops = rng.choice(len(plot.ops), count, p=weights / weights.sum()).astype(np.int64)
            out.append(Incident(f"{plot.kind}-{again + 1}", plot, role, slot, seconds, ops))
    return out


def _victim(plot: Plot, roles: tuple[Role, ...], again: int, place: int) -> Role:
    fitting = [role for role in roles if role.kind is plot.victim]
    if not fitting:
        fitting = [role for role in roles if role.kind.identity not in ("anonymous", "service")]
        again += place
    return fitting[again % len(fitting)]


def _times(plot: Plot, options: Options, zone: ZoneInfo, rng: np.random.Generator, count: int, again: int) -> Ints:
    """Sorted event times; empty where the period has no such moment."""
    first, span = options.first_second(), options.seconds()
    shift = (0.04 + 0.02 * float(rng.random())) * again - 0.3 * again * (plot.begin > 0.7)
    begin = first + int(span * (plot.begin + shift))
    length = min(plot.length or span, max(1, int(span * 0.1)))
    if not plot.length:
        length = int(span * 0.97) - (begin - first)
    if plot.at_night:
        nights = [t for t in range(first, first + span - length, 1_800) if _hour(t, zone) == 2.0]
        if not nights:
            nights = [t for t in range(first, first + span - length, 1_800) if 1 <= _hour(t, zone) < 4]
        if not nights:
            return np.empty(0, np.int64)
        later = [t for t in nights if t >= begin]
        begin = (later or nights[-1:])[0]
    moments = begin + rng.integers(0, max(1, length), count)
    out: Ints = np.sort(np.minimum(moments, first + span - 1)).astype(np.int64)
    return out


def _hour(second: int, zone: ZoneInfo) -> float:
    local = datetime.fromtimestamp(second, zone)
    return local.hour + local.minute / 60
