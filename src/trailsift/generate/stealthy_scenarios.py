"""The same kinds of incidents by a careful attacker: few calls, known networks and clients, usual hours.

And one more kind, which has no loud form: a takeover that imitates the role, so that nothing is new, nothing is large,
and only the combination is unusual.
"""

from __future__ import annotations

from trailsift.generate.archetypes import ANALYST, CHECKOUT, DEPLOY, ETL, INDEXER, REPORT, RESIZER, WEB, Op
from trailsift.generate.scenarios import LEDGER, LISTED, Scenario

_REFUSED = ((0.3, "AccessDenied"),)
_SOMETIMES = ((0.08, "AccessDenied"),)

STEALTHY: tuple[Scenario, ...] = (
    Scenario(
        "bulk_exfiltration", "A report reads more books than it ever needs", REPORT, 0.0015, 1_500, 0.72, 1_500,
        (
            Op("s3:GetObject", 40, LEDGER, "daily/dt={date:8}/book-{seq3:120}.parquet", 1_900_000),
            Op("s3:ListObjects", 5, LEDGER, "daily/dt={date:8}/", 6_000),
        ),
        "At the report's own hour, on a working day, from its own network: objects that it knows, only more of them.",
        hour=6.0, workday=True,
    ),
    Scenario(
        "slow_exfiltration", "The web app's pictures of people drip out", WEB, 0.004, 4_000, 0.5, 0,
        (Op("s3:GetObject", 1, "$org-$team-media", "users/{uuid:60000}/avatar.png", 21_000),),
        "A picture or two an hour for the rest of the period: a call and a prefix that the role always uses.",
    ),
    Scenario(
        "first_service", "The CI role looks into a table", DEPLOY, 0.00007, 60, 0.78, 3_600,
        (Op("dynamodb:GetItem", 1, "$team-orders", "order#{uuid:300000}"),),
        "A handful of reads of a table in working hours.",
        hour=14.0, workday=True,
    ),
    Scenario(
        "new_network", "A function's credentials are tried from outside", CHECKOUT, 0.0001, 80, 0.81, 5_400,
        (Op("dynamodb:GetItem", 1, "$team-orders", "order#{uuid:300000}", outside=True),),
        "A dozen usual calls by the usual client, from another network.",
        "198.51.100.77",
    ),
    Scenario(
        "enumeration", "A task tries the doors, slowly", INDEXER, 0.0002, 100, 0.66, 21_600,
        tuple(Op("s3:HeadBucket", 1, f"$org-{name}", "", 0, _REFUSED) for name in LISTED),
        "Over six hours the role asks for bucket after bucket, once or twice; some are refused.",
    ),
    Scenario(
        "mass_delete", "The ETL role thins out the curated zone", ETL, 0.0015, 1_200, 0.88, 43_200,
        (Op("s3:DeleteObject", 1, "$org-$team-lake", "curated/events/dt={date:60}/part-{seq5:9000}.parquet"),),
        "Deletions over half a day, by a role that deletes temporary files every hour.",
    ),
    Scenario(
        "night_activity", "A person's console session late in the evening", ANALYST, 0.0001, 100, 0.55, 3_600,
        (
            Op("s3:GetObject", 6, "$org-$team-shared", "{word:sheet}", 380_000),
            Op("s3:ListObjects", 4, "$org-$team-shared", "", 7_000),
        ),
        "A dozen usual calls, three hours after the office closed.",
        hour=22.0, workday=True,
    ),
    Scenario(
        "new_key_pattern", "A few encrypted blobs among the renditions", RESIZER, 0.00007, 60, 0.84, 21_600,
        (Op("s3:PutObject", 1, "$org-$team-renditions", ".cache/{new_hex:64}.enc", 2_400_000),),
        "The role writes a handful of objects of a kind that it never wrote.",
    ),
    Scenario(
        "takeover", "Someone works as the checkout, and nearly like it", CHECKOUT, 0.0012, 600, 0.75, 10_800,
        (
            Op("dynamodb:ExecuteStatement", 6, "$team-orders", "order#{uuid:300000}", 0, _SOMETIMES),
            Op("dynamodb:TransactWriteItems", 4, "$team-orders", "order#{new_uuid}", 0, _SOMETIMES),
            Op("lambda:Invoke", 4, "$team-notify", "", 0, _SOMETIMES),
            Op("kms:Decrypt", 5, "sse-$team"),
            Op("sts:AssumeRole", 4, "lambda"),
            Op("s3:PutObject", 5, "$org-$team-receipts", "receipts/{ymd}/{new_uuid}.json", 31_000),
        ),
        "Known calls on known resources from the known network at a busy hour; their mix, sizes and refusals are odd.",
        hour=19.0,
    ),
)  # fmt: skip
"""One scenario per kind: options.KINDS, then options.QUIET_KINDS."""
