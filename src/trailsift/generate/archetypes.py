"""Archetypes of roles, as data: who calls what, when and how often. Everything here is invented.

Text with `$name` is completed per actor (see actors.py): $org, $team, $account, $region, ...; key patterns are those of
object_keys.py. A new kind of work is a new literal here; event names are those of record_templates.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Op:
    """One kind of call of an activity.

    event   service and eventName, a key of RECORD_TEMPLATES
    weight  frequency, relative to the activity's other ops
    on      bucket, table, function or key (whatever the service uses)
    key     pattern of object keys or item keys
    size    median payload in bytes, in the direction of the call
    errors  ((probability, error code), ...)
    across  the resource belongs to the other account: both accounts log the call, under one sharedEventID
    """

    event: str
    weight: float
    on: str = ""
    key: str = ""
    size: int = 0
    errors: tuple[tuple[float, str], ...] = ()
    across: bool = False
    outside: bool = False  # called from outside the role's network, so not through a VPC endpoint


@dataclass(frozen=True)
class Rhythm:
    """Relative rates: by local hour, by weekday (Monday first), and the minutes of the hour in which calls happen."""

    hours: tuple[float, ...]
    weekdays: tuple[float, ...] = (1, 1, 1, 1, 1, 1, 1)
    minutes: tuple[int, int] = (0, 60)


@dataclass(frozen=True)
class Activity:
    """A share of an archetype's events with one rhythm; `since` (part of the period) and `note` mark benign changes."""

    rhythm: str
    share: float
    ops: tuple[Op, ...]
    since: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Archetype:
    """A job. share = its part of all events; slots = concurrent sessions; session = how sessions are named;
    hold = lifetime of a session in seconds; network = where calls come from; agents = user agents before and after
    the role's next deployment; endpoint = calls go through a VPC endpoint."""

    job: str
    name: str
    identity: str  # role, oidc, sso, user, service, anonymous
    account: int
    region: int
    share: float
    session: str  # instance, function, task, run, scheduled, email
    slots: int
    hold: int
    network: str  # vpc, datacenter, office, cloud, internet, service
    agents: tuple[str, ...]
    endpoint: bool
    tls: bool  # records carry tlsDetails
    activities: tuple[Activity, ...]


_AROUND = (1.0,) * 24
_OFFICE = (0.0,) * 8 + (0.3, 1, 1.2, 1.1, 0.4, 1, 1.2, 1.1, 0.9, 0.7, 0.2, 0.05) + (0.0,) * 4
_BUILDS = (0.0,) * 8 + (0.6, 1, 1.2, 1.1, 0.6, 1, 1.2, 1.3, 1.2, 0.8, 0.4, 0.2, 0.1, 0.1) + (0.0,) * 2
_SHOPPING = (
    0.45, 0.25, 0.15, 0.1, 0.1, 0.15, 0.3, 0.6, 0.9, 1.0, 1.1, 1.2,
    1.35, 1.2, 1.05, 1.0, 1.05, 1.15, 1.3, 1.55, 1.8, 1.9, 1.5, 0.9,
)  # fmt: skip
_WORKWEEK = (1.0, 1.05, 1.0, 1.0, 0.85, 0.0, 0.0)
_NIGHT = (0.0, 1.0, 1.6, 0.7) + (0.0,) * 20

RHYTHMS: dict[str, Rhythm] = {
    "shopping": Rhythm(_SHOPPING, (0.95, 0.9, 0.95, 1.0, 1.15, 1.3, 1.2)),
    "steady": Rhythm(_AROUND),
    "crawl": Rhythm((1.3,) * 12 + (0.8,) * 12, (1, 0.4, 1.7, 0.8, 1, 1.3, 0.7)),
    "hourly": Rhythm(_AROUND, minutes=(5, 20)),
    "nightly": Rhythm(_NIGHT, (1, 1, 1, 1, 1, 0.8, 0.8)),
    "backup": Rhythm((0.0,) * 22 + (1.0, 0.8), minutes=(0, 45)),
    "morning report": Rhythm((0.0,) * 6 + (1.0,) + (0.0,) * 17, (1, 1, 1, 1, 1, 0, 0), (0, 25)),
    "monday report": Rhythm((0.0,) * 7 + (1.0,) + (0.0,) * 16, (1, 0, 0, 0, 0, 0, 0), (0, 40)),
    "sunday training": Rhythm((0.0,) * 10 + (1.0,) * 5 + (0.0,) * 9, (0, 0, 0, 0, 0, 0, 1)),
    "office": Rhythm(_OFFICE, _WORKWEEK),
    "builds": Rhythm(_BUILDS, _WORKWEEK),
}

_JAVA = (
    "aws-sdk-java/2.29.14 md/io#async md/http#NettyNio ua/2.1 os/Linux#6.1.112-124.190.amzn2023.x86_64"
    " lang/java#17.0.13 md/OpenJDK_64-Bit_Server_VM#17.0.13 exec-env/AWS_ECS_FARGATE m/N,P",
    "aws-sdk-java/2.31.3 md/io#async md/http#NettyNio ua/2.1 os/Linux#6.1.129-138.220.amzn2023.x86_64"
    " lang/java#21.0.6 md/OpenJDK_64-Bit_Server_VM#21.0.6 exec-env/AWS_ECS_FARGATE m/N,P,E",
)
_NODE = (
    "aws-sdk-js/3.716.0 ua/2.1 os/linux#5.10.230-240.885.amzn2.x86_64 lang/js md/nodejs#20.18.1 m/E,N",
    "aws-sdk-js/3.758.0 ua/2.1 os/linux#5.10.234-241.895.amzn2.x86_64 lang/js md/nodejs#22.14.0 m/E,N,D",
)
_LAMBDA = (
    "Boto3/1.35.90 md/Botocore#1.35.90 ua/2.0 os/linux#5.10.228-238.885.amzn2.x86_64 md/arch#x86_64 lang/python#3.12.8"
    " md/pyimpl#CPython exec-env/AWS_Lambda_python3.12",
    "Boto3/1.37.4 md/Botocore#1.37.4 ua/2.0 os/linux#5.10.233-242.887.amzn2.x86_64 md/arch#x86_64 lang/python#3.13.2"
    " md/pyimpl#CPython exec-env/AWS_Lambda_python3.13",
)
_GO = (
    "aws-sdk-go-v2/1.32.7 ua/2.1 os/linux lang/go#1.23.4 md/GOOS#linux md/GOARCH#arm64 api/s3#1.72.0 m/E,Z",
    "aws-sdk-go-v2/1.36.3 ua/2.1 os/linux lang/go#1.24.1 md/GOOS#linux md/GOARCH#arm64 api/s3#1.78.2 m/E,Z",
)
_CLI = (
    "aws-cli/2.22.23 md/awscrt#0.22.0 ua/2.0 os/linux#6.8.0-1018-azure md/arch#x86_64 lang/python#3.12.6"
    " cfg/retry-mode#standard md/installer#exe md/distrib#ubuntu.24 md/prompt#off md/command#s3.sync",
    "aws-cli/2.24.18 md/awscrt#0.23.8 ua/2.0 os/linux#6.8.0-1021-azure md/arch#x86_64 lang/python#3.12.9"
    " cfg/retry-mode#standard md/installer#exe md/distrib#ubuntu.24 md/prompt#off md/command#s3.sync",
)
_BACKUP = ("Boto3/1.26.76 Python/3.9.16 Linux/5.14.0-362.8.1.el9_3.x86_64 Botocore/1.29.76 Resource",)
_CONSOLE = (
    "S3Console/0.4, aws-internal/3 aws-sdk-java/1.12.780 Linux/5.10.230-200.885.amzn2int.x86_64"
    " OpenJDK_64-Bit_Server_VM/25.432-b06 java/1.8.0_432 vendor/Oracle_Corporation cfg/retry-mode/standard",
)
_BROWSER = ("Mozilla/5.0 (compatible; PebbleBot/2.1; +https://pebblebot.example/about)", "curl/8.11.1")
_SPARK = (
    "Hadoop 3.4.1, aws-sdk-java/1.12.770 Linux/6.1.112 OpenJDK_64-Bit_Server_VM/17.0.13",
    "Hadoop 3.4.1, aws-sdk-java/1.12.788 Linux/6.1.128 OpenJDK_64-Bit_Server_VM/17.0.14",
)

_LAKE = "$org-$team-lake"
_MEDIA = "$org-$team-media"
_REFUSED = ((0.14, "NoSuchKey"), (0.06, "AccessDenied"))
_MISSING = ((0.015, "NoSuchKey"),)
_DECRYPT = "sse-$team"
_CONDITION = "ConditionalCheckFailedException"
_CONTENDED = ((0.02, _CONDITION), (0.008, "ThrottlingException"))
_CANCELLED = "TransactionCanceledException"
_CHUNK = "onprem/{word:dump}/{date}/chunk-{seq4:900}.zst"
_BUNDLE = "builds/{word:repo}/{n5:900}/{new_hex:40}/bundle.zip"
_CACHE = "cache/{word:repo}/{hex:40,300}.tar.zst"
_SHARD = "features/v3/dt={date:30}/shard-{seq4:2048}.tfrecord"
_LOG_KEY = "AWSLogs/$account/CloudTrail/$region/{ymd}/${account}_CloudTrail_${region}_{stamp}_{new_hex:16}.json.gz"

ETL = Archetype(
    "batch ETL", "$team-etl-batch", "role", 0, 0, 0.25, "task", 6, 3_600, "vpc", _SPARK, True, False,
    (
        Activity("nightly", 0.56, (
            Op("s3:GetObject", 66, _LAKE, "raw/events/dt={date:3}/part-{seq5:4000}.json.gz", 4_200_000, _MISSING),
            Op("s3:HeadObject", 9, _LAKE, "raw/events/dt={date:3}/part-{seq5:4000}.json.gz", 0, ((0.03, "NoSuchKey"),)),
            Op("s3:ListObjects", 4, _LAKE, "raw/events/dt={date:3}/", 18_000),
            Op("s3:PutObject", 9, _LAKE, "curated/events/dt={date}/part-{seq5:400}-{new_uuid}.parquet", 22_000_000),
            Op("s3:UploadPart", 6, _LAKE, "curated/events/dt={date}/wide-{n3:40}.parquet", 16_777_216),
            Op("s3:CompleteMultipartUpload", 1, _LAKE, "curated/events/dt={date}/wide-{n3:40}.parquet", 900),
            Op("kms:Decrypt", 5, _DECRYPT),
            Op("kms:GenerateDataKey", 1, _DECRYPT),
            Op("sts:AssumeRole", 0.5, "ecs-tasks"),
            Op("s3:GetBucketLocation", 0.4, _LAKE),
        )),
        Activity("hourly", 0.40, (
            Op("s3:GetObject", 60, _LAKE, "exports/{ymd}/{hour}/part-{seq5:60}.parquet", 9_500_000, _MISSING),
            Op("s3:ListObjects", 9, _LAKE, "exports/{ymd}/{hour}/", 9_000),
            Op("s3:PutObject", 16, _LAKE, "increments/{ymd}/{hour}/{new_uuid}.parquet", 2_400_000),
            Op("s3:CopyObject", 4, _LAKE, "increments/{ymd}/latest/{n3:60}.parquet", 300),
            Op("s3:DeleteObjects", 1, _LAKE),
            Op("s3:DeleteObject by service", 6, _LAKE, "increments/_temporary/{new_hex:16}/part-{n5:60}.parquet"),
            Op("kms:Decrypt", 3, _DECRYPT),
            Op("sts:AssumeRole", 1, "ecs-tasks"),
        )),
        Activity("hourly", 0.04, (
            Op("s3:PutObject", 1, _LAKE, "exports-v2/region={n2:9}/{date}/{hour}-{new_uuid}.avro", 1_100_000),
        ), 0.62, "writes a second export format since a release"),
    ),
)  # fmt: skip

WEB = Archetype(
    "web app", "$team-web-instance", "role", 0, 0, 0.22, "instance", 6, 21_600, "vpc", _NODE, True, False,
    (
        Activity("shopping", 0.95, (
            Op("s3:GetObject", 34, _MEDIA, "catalog/{word:category}/{n6:90000}/{word:size}.webp", 48_000, _MISSING),
            Op("s3:GetObject", 9, _MEDIA, "users/{uuid:60000}/avatar.png", 21_000, ((0.04, "NoSuchKey"),)),
            Op("s3:PutObject", 3, _MEDIA, "users/{uuid:60000}/avatar.png", 64_000),
            Op("s3:HeadObject", 4, _MEDIA, "users/{uuid:60000}/avatar.png", 0, ((0.08, "NoSuchKey"),)),
            Op("dynamodb:GetItem", 22, "$team-sessions", "sess#{uuid:200000}"),
            Op("dynamodb:UpdateItem", 7, "$team-sessions", "sess#{uuid:200000}", 0, ((0.02, _CONDITION),)),
            Op("dynamodb:Query", 11, "$team-carts", "user#{n7:400000}"),
            Op("dynamodb:BatchGetItem", 3, "$team-products", "sku#{n6:90000}"),
            Op("dynamodb:PutItem", 4, "$team-carts", "user#{n7:400000}", 0, ((0.01, "ThrottlingException"),)),
            Op("s3:HeadBucket", 1, _MEDIA),
            Op("kms:Decrypt", 5, _DECRYPT),
            Op("sts:AssumeRole", 0.8, "ec2"),
            Op("dynamodb:DescribeTable", 0.6, "$team-sessions"),
        )),
        Activity("shopping", 0.05, (
            Op("s3:GetObject", 1, "$org-$team-banners", "campaign/spring/{n3:80}.avif", 88_000),
        ), 0.70, "serves a campaign from a bucket that did not exist before"),
    ),
)  # fmt: skip

CHECKOUT = Archetype(
    "Lambda fleet", "$team-checkout-fn", "role", 0, 0, 0.17, "function", 8, 3_600, "vpc", _LAMBDA, True, False,
    (
        Activity("shopping", 1.0, (
            Op("dynamodb:GetItem", 20, "$team-orders", "order#{uuid:300000}"),
            Op("dynamodb:PutItem", 12, "$team-orders", "order#{new_uuid}", 0, ((0.03, _CONDITION),)),
            Op("dynamodb:UpdateItem", 14, "$team-stock", "sku#{n6:90000}", 0, _CONTENDED),
            Op("dynamodb:TransactWriteItems", 6, "$team-orders", "order#{new_uuid}", 0, ((0.02, _CANCELLED),)),
            Op("dynamodb:ExecuteStatement", 1, "$team-orders", "order#{uuid:300000}"),
            Op("lambda:Invoke", 14, "$team-price", "", 0, ((0.01, "TooManyRequestsException"),)),
            Op("lambda:Invoke", 8, "$team-notify"),
            Op("s3:PutObject", 6, "$org-$team-receipts", "receipts/{ymd}/{new_uuid}.json", 3_100),
            Op("kms:Decrypt", 7, _DECRYPT),
            Op("sts:AssumeRole", 1, "lambda"),
        )),
    ),
)  # fmt: skip

GATEWAY = Archetype(
    "API gateway", "apigateway.amazonaws.com", "service", 0, 0, 0.16, "", 1, 3_600, "service", (), False, False,
    (Activity("shopping", 1.0, (
        Op("lambda:Invoke by service", 50, "$team-checkout", "", 0, ((0.004, "TooManyRequestsException"),)),
        Op("lambda:Invoke by service", 30, "$team-search"),
        Op("lambda:Invoke by service", 12, "$team-account"),
    )),),
)  # fmt: skip

RESIZER = Archetype(
    "media function", "$team-media-resizer", "role", 0, 1, 0.08, "function", 8, 3_600, "cloud", _LAMBDA, False, True,
    (
        Activity("shopping", 0.8, (
            Op("s3:GetObject", 30, "$org-$team-uploads", "incoming/{date}/{hex:32,40000}.jpg", 2_300_000, _MISSING),
            Op("s3:PutObject", 42, "$org-$team-renditions", "img/{hex:32,40000}/{word:size}.webp", 61_000),
            Op("s3:HeadObject", 8, "$org-$team-renditions", "img/{hex:32,40000}/full.webp", 0, ((0.2, "NoSuchKey"),)),
            Op("kms:Decrypt", 2, _DECRYPT),
            Op("sts:AssumeRole", 1, "lambda"),
        )),
        Activity("shopping", 0.2, (
            Op("s3:PutObject", 1, "$org-$team-renditions", "img/{hex:32,40000}/{word:size}.webp", 61_000),
        ), 0.5, "makes more renditions since a setting changed: a lasting step up"),
    ),
)  # fmt: skip

DELIVERY = Archetype(
    "log delivery", "cloudtrail.amazonaws.com", "service", 0, 0, 0.03, "", 1, 3_600, "service", (), False, False,
    (Activity("steady", 1.0, (
        Op("s3:PutObject by service", 9, "$org-audit-logs", _LOG_KEY, 3_000),
        Op("s3:HeadBucket by service", 1, "$org-audit-logs", "", 0, ((0.05, "AccessDenied"),)),
    )),),
)  # fmt: skip

CRAWLER = Archetype(
    "anonymous crawler", "anonymous", "anonymous", 0, 0, 0.045, "", 4, 86_400, "internet", _BROWSER, False, True,
    (Activity("crawl", 1.0, (
        Op("s3:GetObject", 60, "$org-public-site", "{word:page}", 14_000, _REFUSED),
        Op("s3:HeadObject", 12, "$org-public-site", "{word:page}", 0, ((0.2, "NoSuchKey"),)),
        Op("s3:GetObject", 20, "$org-public-site", "blog/{n4:700}/", 9_000, ((0.05, "NoSuchKey"),)),
        Op("s3:ListObjects", 3, "$org-public-site", "", 243, ((1.0, "AccessDenied"),)),
    )),),
)  # fmt: skip

REPORT = Archetype(
    "scheduled report", "$team-finance-report", "role", 1, 0, 0.03, "scheduled", 1, 7_200, "vpc", _JAVA, True, True,
    (
        Activity("morning report", 0.7, (
            Op("s3:GetObject", 40, "$org-$team-ledger", "daily/dt={date:8}/book-{seq3:120}.parquet", 1_900_000),
            Op("s3:ListObjects", 5, "$org-$team-ledger", "daily/dt={date:8}/", 6_000),
            Op("s3:PutObject", 4, "$org-$team-ledger", "reports/{date}/summary-{n2:12}.csv", 240_000),
            Op("dynamodb:Scan", 1, "$team-rates"),
            Op("kms:Decrypt", 2, _DECRYPT),
            Op("sts:AssumeRole", 0.5, "ecs-tasks"),
        )),
        Activity("monday report", 0.3, (
            Op("s3:GetObject", 40, "$org-$team-ledger", "weekly/dt={date:8}/rollup-{seq3:200}.parquet", 5_400_000),
            Op("s3:PutObject", 6, "$org-$team-ledger", "reports/weekly/{date}/deck-{n2:9}.pdf", 900_000),
        ), 0.0, "runs on Mondays only"),
    ),
)  # fmt: skip

INDEXER = Archetype(
    "search indexer", "$team-search-indexer", "role", 1, 0, 0.045, "task", 3, 14_400, "vpc", _GO, True, False,
    (Activity("steady", 1.0, (
        Op("dynamodb:GetRecords", 26, "$team-products"),
        Op("dynamodb:Scan", 4, "$team-products", "", 0, ((0.02, "ThrottlingException"),)),
        Op("s3:GetObject", 22, _MEDIA, "catalog/{word:category}/{n6:90000}/card.webp", 30_000, _MISSING, True),
        Op("s3:PutObject", 20, "$org-$team-index", "segments/{hex:16,3000}.cfs", 700_000),
        Op("s3:GetObject", 16, "$org-$team-index", "segments/{hex:16,3000}.cfs", 700_000),
        Op("s3:DeleteObject", 4, "$org-$team-index", "segments/{hex:16,3000}.cfs"),
        Op("sts:GetCallerIdentity", 2),
    )),),
)  # fmt: skip

BACKUP = Archetype(
    "backup user", "svc-backup-$team", "user", 0, 0, 0.04, "", 2, 86_400, "datacenter", _BACKUP, False, True,
    (Activity("backup", 1.0, (
        Op("s3:PutObject", 26, "$org-$team-backup", _CHUNK, 33_554_432),
        Op("s3:UploadPart", 40, "$org-$team-backup", "onprem/{word:dump}/{date}/base.tar.zst", 67_108_864),
        Op("s3:CreateMultipartUpload", 2, "$org-$team-backup", "onprem/{word:dump}/{date}/base.tar.zst"),
        Op("s3:CompleteMultipartUpload", 2, "$org-$team-backup", "onprem/{word:dump}/{date}/base.tar.zst", 1_200),
        Op("s3:HeadObject", 12, "$org-$team-backup", _CHUNK, 0, ((0.3, "NoSuchKey"),)),
        Op("s3:ListObjects", 3, "$org-$team-backup", "onprem/", 12_000),
    )),),
)  # fmt: skip

DEPLOY = Archetype(
    "CI", "$team-ci-deploy", "oidc", 1, 0, 0.012, "run", 2, 1_800, "cloud", _CLI, False, True,
    (Activity("builds", 1.0, (
        Op("s3:PutObject", 40, "$org-$team-artifacts", _BUNDLE, 5_800_000),
        Op("s3:GetObject", 16, "$org-$team-artifacts", _CACHE, 41_000_000, ((0.1, "NoSuchKey"),)),
        Op("s3:ListObjects", 8, "$org-$team-artifacts", "builds/{word:repo}/", 4_000),
        Op("lambda:Invoke", 4, "$team-smoke-test"),
        Op("sts:AssumeRoleWithWebIdentity", 3),
        Op("sts:GetCallerIdentity", 4),
        Op("s3:ListBuckets", 1),
    )),),
)  # fmt: skip

ANALYST = Archetype(
    "person with the console", "AWSReservedSSO_${team}Analyst_5f0e1b7c2d94a638", "sso", 1, 0, 0.006, "email", 3, 28_800,
    "office", _CONSOLE, False, True,
    (Activity("office", 1.0, (
        Op("s3:GetObject", 30, "$org-$team-shared", "{word:sheet}", 380_000),
        Op("s3:ListObjects", 24, "$org-$team-shared", "", 7_000),
        Op("s3:HeadObject", 8, "$org-$team-shared", "{word:sheet}"),
        Op("s3:PutObject", 5, "$org-$team-shared", "{word:sheet}", 400_000),
        Op("s3:ListObjects", 1, "$org-$team-ledger", "reports/", 5_000, ((0.7, "AccessDenied"),)),
        Op("s3:ListBuckets", 6),
        Op("s3:GetBucketLocation", 4, "$org-$team-shared"),
        Op("signin:ConsoleLogin", 2),
    )),),
)  # fmt: skip

TRAINER = Archetype(
    "weekly training", "$team-model-trainer", "role", 1, 1, 0.03, "task", 4, 43_200, "vpc", _JAVA, True, False,
    (
        Activity("sunday training", 0.9, (
            Op("s3:GetObject", 70, "$org-$team-features", _SHARD, 12_000_000),
            Op("s3:PutObject", 4, "$org-$team-features", "models/{word:model}/{date}/ckpt-{n6:900}.pt", 88_000_000),
            Op("dynamodb:BatchExecuteStatement", 3, "$team-experiments", "run#{uuid:4000}"),
            Op("kms:Decrypt", 3, _DECRYPT),
        ), 0.0, "runs on Sundays only"),
        Activity("steady", 0.1, (
            Op("s3:HeadObject", 1, "$org-$team-features", "models/{word:model}/current.json"),
            Op("s3:GetObject", 1, "$org-$team-features", "models/{word:model}/current.json", 900),
        )),
    ),
)  # fmt: skip

ARCHETYPES: tuple[Archetype, ...] = (
    ETL, WEB, CHECKOUT, RESIZER, REPORT, BACKUP, INDEXER, DEPLOY, ANALYST, GATEWAY, CRAWLER, DELIVERY, TRAINER,
)  # fmt: skip
"""In the order in which actors are created; more actors than archetypes repeat the list for other teams."""
