"""Scenarios of planted incidents, as data: the eight kinds as they are commonly seen, loud enough to be found."""

from __future__ import annotations

from dataclasses import dataclass

from trailsift.generate.archetypes import (
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

DENIED = ((0.85, "AccessDenied"),)
LISTED = (
    "payroll", "board", "backups", "terraform-state", "secrets-store", "customer-exports", "hr-documents", "legal-hold",
    "vpn-configs", "audit-logs", "data-science", "m-and-a", "security-scans", "root-archive",
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """One kind of incident.

    victim    archetype whose role is used, if there is one
    share     of all events, at most `most` events
    begin     part of the period after which it begins; length: maximum seconds, 0 = to the end of the period
    address   source address, if not in the role's own network
    hour      local hour at which it begins, in the role's ordinary session; workday: Monday to Friday only
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
    hour: float | None = None
    workday: bool = False


LEDGER = "$org-$team-ledger"
_CLI = (
    "aws-cli/2.17.9 md/awscrt#0.20.11 ua/2.0 os/linux#6.6.15-amd64 md/arch#x86_64 lang/python#3.11.8"
    " md/pyimpl#CPython cfg/retry-mode#standard md/installer#exe md/distrib#kali.2024 md/prompt#off md/command#s3.cp"
)

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "bulk_exfiltration", "A report role copies the customer archive", REPORT, 0.03, 20_000, 0.72, 2_700,
        (
            Op("s3:GetObject", 97, LEDGER, "archive/customers/{uuid:80000}/profile.json.gz", 1_400_000),
            Op("s3:ListObjects", 3, LEDGER, "archive/customers/", 190_000),
        ),
        "Within the hour the role reads thousands of objects, under a prefix that its reports never needed.",
    ),
    Scenario(
        "slow_exfiltration", "The backup user reads back what it only ever wrote", BACKUP, 0.01, 6_000, 0.5, 0,
        (Op("s3:GetObject", 1, "$org-$team-backup", "onprem/{word:dump}/{date:30}/chunk-{n4:900}.zst", 33_554_432),),
        "A few objects an hour, day and night, for the rest of the period: no hour stands out.",
    ),
    Scenario(
        "first_service", "The CI role turns to DynamoDB", DEPLOY, 0.003, 600, 0.78, 3_600,
        (
            Op("dynamodb:Scan", 3, "$team-orders"),
            Op("dynamodb:GetItem", 2, "$team-orders", "order#{uuid:300000}", 0, ((0.2, "AccessDenied"),)),
        ),
        "A role that only knew S3, Lambda and STS scans a table.",
    ),
    Scenario(
        "new_network", "A function's credentials are used from outside", CHECKOUT, 0.003, 800, 0.81, 5_400,
        (
            Op("dynamodb:GetItem", 8, "$team-orders", "order#{uuid:300000}", outside=True),
            Op("dynamodb:UpdateItem", 2, "$team-orders", "order#{uuid:300000}", outside=True),
        ),
        "Calls that the role makes every day, but from an address outside the network where it always ran.",
        "198.51.100.77", "python-requests/2.31.0 boto3/1.28.3 os/linux lang/python#3.10.12",
    ),
    Scenario(
        "enumeration", "A task tries the doors", INDEXER, 0.005, 1_500, 0.66, 900,
        (
            Op("s3:ListBuckets", 2),
            *(Op("s3:HeadBucket", 2, f"$org-{name}", "", 0, DENIED) for name in LISTED),
            *(Op("s3:ListObjects", 2, f"$org-{name}", "", 900, DENIED) for name in LISTED),
            *(Op("s3:GetBucketAcl", 1, f"$org-{name}", "", 700, DENIED) for name in LISTED),
        ),
        "In a quarter of an hour the role asks for bucket after bucket; most are refused.",
        None, _CLI,
    ),
    Scenario(
        "mass_delete", "The ETL role empties the curated zone", ETL, 0.015, 12_000, 0.88, 1_800,
        (
            Op("s3:DeleteObject", 98, "$org-$team-lake", "curated/events/dt={date:60}/part-{seq5:9000}.parquet"),
            Op("s3:ListObjects", 2, "$org-$team-lake", "curated/events/", 180_000),
        ),
        "Object after object is deleted in half an hour by a role that deleted temporary files only.",
    ),
    Scenario(
        "night_activity", "A person's console session at night", ANALYST, 0.002, 250, 0.55, 5_400,
        (
            Op("s3:GetObject", 6, "$org-$team-shared", "{word:sheet}", 380_000),
            Op("s3:ListObjects", 4, "$org-$team-shared", "", 7_000),
            Op("s3:HeadObject", 1, "$org-$team-shared", "{word:sheet}"),
        ),
        "Usual calls on usual objects, hours after the last working day ever ended.",
        hour=2.0,
    ),
    Scenario(
        "new_key_pattern", "Encrypted blobs appear among the renditions", RESIZER, 0.004, 3_000, 0.84, 7_200,
        (Op("s3:PutObject", 1, "$org-$team-renditions", ".cache/{new_hex:64}.enc", 2_400_000),),
        "The role writes to its own bucket, as always, but under names of a kind it never wrote.",
    ),
)  # fmt: skip
"""One scenario per kind, in the order of options.KINDS."""
