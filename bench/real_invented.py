"""Attacks that are written after public reports, for what no genuine records here show. They are counted by themselves.

Each is a list of records by one user of one account, in the form of CloudTrail, that ``real_attacks.move`` gives to a
victim. ``amount``: how many objects or items are taken.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from real_sets import Record, instant

ACCOUNT = "999988887777"
_SECOND = 1_000_000
#: Client programs of stolen keys.
_CLIENTS = (
    "aws-cli/2.15.30 Python/3.11.8 Linux/6.6.9-amd64 exe/x86_64.ubuntu.22 prompt/off command/s3.sync",
    "Boto3/1.34.51 md/Botocore#1.34.51 ua/2.0 os/linux#6.1 md/arch#x86_64 lang/python#3.11.8",
    "[S3 Browser/11.7.5 (https://s3browser.com)]",
    "rclone/v1.66.0",
)


class Story:
    """Records in the making: whose, from where, with what client, and the time so far."""

    def __init__(self, rng: random.Random, bucket: str, table: str) -> None:
        self.rng, self.bucket, self.table = rng, bucket, table
        self.now = 0
        self.records: list[Record] = []
        self.address = f"45.{rng.randrange(9, 250)}.{rng.randrange(250)}.{rng.randrange(1, 250)}"
        self.client = rng.choice(_CLIENTS)
        self.foreign = "".join(rng.choices("123456789", k=12))
        self.user: Record = {
            "type": "IAMUser",
            "principalId": "AIDAINVENTEDINVENTED",
            "arn": f"arn:aws:iam::{ACCOUNT}:user/invented",
            "accountId": ACCOUNT,
            "accessKeyId": "AKIAINVENTEDINVENTED",
            "userName": "invented",
        }

    def call(
        self,
        service: str,
        name: str,
        parameters: Record | None = None,
        *,
        who: Record | None = None,
        data: bool = False,
        write: bool = False,
        resources: Iterable[tuple[str, str]] = (),
        out: int = 0,
        into: int = 0,
        pause: float = 0.4,
        error: str | None = None,
    ) -> None:
        """Add a call, some seconds (about ``pause``) after the last one."""
        self.now += round(_SECOND * pause * self.rng.uniform(0.5, 1.6))
        record: Record = {
            "eventVersion": "1.09",
            "userIdentity": who or self.user,
            "eventTime": instant(self.now),
            "eventSource": f"{service}.amazonaws.com",
            "eventName": name,
            "awsRegion": "us-east-1",
            "sourceIPAddress": self.address,
            "userAgent": self.client,
            "requestParameters": parameters,
            "responseElements": None,
            "requestID": f"{self.rng.getrandbits(64):016X}",
            "eventID": f"invented-{len(self.records)}",
            "readOnly": not write,
            "eventType": "AwsApiCall",
            "managementEvent": not data,
            "recipientAccountId": ACCOUNT,
            "eventCategory": "Data" if data else "Management",
        }
        if service == "s3" and data:
            record["additionalEventData"] = {"bytesTransferredIn": into, "bytesTransferredOut": out}
        if resources:
            record["resources"] = [{"type": kind, "ARN": arn, "accountId": ACCOUNT} for kind, arn in resources]
        if error:
            record["errorCode"] = error
        self.records.append(record)

    def object(self, name: str, key: str, more: Record | None = None, **how: object) -> None:
        """Add a call on an object of the bucket."""
        parameters = {"bucketName": self.bucket, "key": key, "Host": f"{self.bucket}.s3.amazonaws.com"} | (more or {})
        arn = f"arn:aws:s3:::{self.bucket}"
        resources = (("AWS::S3::Object", f"{arn}/{key}"), ("AWS::S3::Bucket", arn))
        self.call("s3", name, parameters, data=True, resources=resources, **how)  # type: ignore[arg-type]

    def look_around(self) -> None:
        """Who am I, and what is there?"""
        self.call("sts", "GetCallerIdentity", pause=5)
        self.call("s3", "ListBuckets", {"Host": "s3.amazonaws.com"}, pause=8)
        for name in ("GetBucketLocation", "GetBucketVersioning"):
            self.call("s3", name, {"bucketName": self.bucket}, pause=6)

    def keys(self, amount: int) -> list[str]:
        """Return keys of objects."""
        folders = ("customers", "exports", "invoices", "backup")
        return [f"{self.rng.choice(folders)}/2024/{place:05}.csv.gz" for place in range(amount)]


def ransom(story: Story, amount: int) -> None:
    """Objects overwritten with a key of the caller's own, deletion in a week, a note (Codefinger, January 2025)."""
    story.look_around()
    story.call("s3", "ListObjects", {"bucketName": story.bucket}, data=True, pause=3)
    own_key = {"x-amz-server-side-encryption-customer-algorithm": "AES256"}
    for key in story.keys(amount):
        story.object("CopyObject", key, own_key | {"x-amz-copy-source": f"{story.bucket}/{key}"}, write=True)
    rule = {"Status": "Enabled", "Expiration": {"Days": 7}, "ID": "clean", "Filter": {"Prefix": ""}}
    lifecycle = {"bucketName": story.bucket, "LifecycleConfiguration": {"Rule": rule}}
    story.call("s3", "PutBucketLifecycle", lifecycle, write=True, pause=20)
    story.object("PutObject", "HOW_TO_GET_YOUR_FILES_BACK.txt", write=True, into=1_400, pause=20)


def sync(story: Story, amount: int) -> None:
    """A bucket synced with a stolen long-term key."""
    story.look_around()
    for _ in range(1 + amount // 200):
        story.call("s3", "ListObjects", {"bucketName": story.bucket, "max-keys": "1000"}, data=True, pause=2)
    for key in story.keys(amount):
        story.object("GetObject", key, out=story.rng.randrange(20_000, 9_000_000), pause=0.2)


def table(story: Story, amount: int) -> None:
    """A table scanned page by page, then exported to somebody else's bucket."""
    arn = f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/{story.table}"
    resources = (("AWS::DynamoDB::Table", arn),)
    story.call("sts", "GetCallerIdentity", pause=5)
    story.call("dynamodb", "ListTables", {}, pause=5)
    story.call("dynamodb", "DescribeTable", {"tableName": story.table}, resources=resources, pause=5)
    for _ in range(max(4, amount // 8)):
        parameters = {"tableName": story.table, "returnConsumedCapacity": "TOTAL"}
        story.call("dynamodb", "Scan", parameters, data=True, resources=resources, pause=2)
    if amount > 50:
        parameters = {
            "tableArn": arn,
            "s3Bucket": "collected-7f31",
            "s3BucketOwner": story.foreign,
            "exportFormat": "ION",
        }
        story.call("dynamodb", "ExportTableToPointInTime", parameters, write=True, resources=resources, pause=40)


def function(story: Story, amount: int) -> None:
    """The code of a function replaced to read data with the function's role."""
    name = "invoice-renderer"
    arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:{name}"
    resources = (("AWS::Lambda::Function", arn),)
    story.call("lambda", "ListFunctions20150331", pause=5)
    story.call("lambda", "GetFunction20150331v2", {"functionName": name}, resources=resources, pause=9)
    changed = {"functionName": name, "publish": False, "dryRun": False}
    story.call("lambda", "UpdateFunctionCode20150331v2", changed, write=True, resources=resources, pause=60)
    story.call("lambda", "Invoke", {"functionName": arn}, data=True, write=True, resources=resources, pause=15)
    role = f"arn:aws:iam::{ACCOUNT}:role/{name}-role"
    who = {
        "type": "AssumedRole",
        "principalId": f"AROAINVENTEDINVENTED:{name}",
        "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}-role/{name}",
        "accountId": ACCOUNT,
        "accessKeyId": "ASIAINVENTEDINVENTED",
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": role, "accountId": ACCOUNT, "userName": name}},
    }
    story.address, story.client = "54.210.11.7", "Boto3/1.34.51 exec-env/AWS_Lambda_python3.11"
    story.call("s3", "ListBuckets", who=who, pause=3)
    for number in range(max(2, amount // 30)):
        story.call("secretsmanager", "GetSecretValue", {"secretId": f"prod/db-{number}"}, who=who, pause=1)
    for key in story.keys(max(5, amount // 4)):
        story.object("GetObject", key, who=who, out=story.rng.randrange(20_000, 900_000), pause=0.2)


def given_away(story: Story, amount: int) -> None:
    """A bucket's policy opened for a foreign account, which then copies it out."""
    story.look_around()
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{story.foreign}:root"},
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{story.bucket}", f"arn:aws:s3:::{story.bucket}/*"],
    }
    policy = {"bucketName": story.bucket, "bucketPolicy": {"Version": "2012-10-17", "Statement": [statement]}}
    story.call("s3", "PutBucketPolicy", policy, write=True, pause=40)
    thief = {"type": "AWSAccount", "principalId": "AIDAFOREIGNFOREIGNAA", "accountId": story.foreign}
    story.call("s3", "ListObjects", {"bucketName": story.bucket}, who=thief, data=True, pause=200)
    for key in story.keys(amount):
        story.object("GetObject", key, who=thief, out=story.rng.randrange(20_000, 900_000), pause=0.3)


def selective(story: Story, amount: int) -> None:
    """A quiet look around, then over an hour or two the few objects that matter."""
    story.look_around()
    story.call("s3", "ListObjects", {"bucketName": story.bucket, "prefix": ""}, data=True, pause=30)
    secret = ("backup/prod.sql.gz", "terraform/state/prod.tfstate", "app/.env", "keys/deploy.pem", "hr/salaries.xlsx")
    wanted = [*secret, *(f"backup/prod-{place}.sql.gz" for place in range(amount // 20))]
    for key in wanted:
        story.object("GetObject", key, out=story.rng.randrange(3_000, 400_000_000), pause=500)


def wiped(story: Story, amount: int) -> None:
    """A bucket downloaded and emptied (Bling Libra, 2024)."""
    story.look_around()
    story.call("s3", "GetBucketObjectLockConfiguration", {"bucketName": story.bucket}, pause=5)
    keys = story.keys(amount)
    for key in keys:
        story.object("GetObject", key, out=story.rng.randrange(20_000, 900_000), pause=0.3)
    for key in keys:
        story.object("DeleteObject", key, write=True, pause=0.2)
    story.call("s3", "DeleteBucket", {"bucketName": story.bucket}, write=True, pause=60)


STORIES: dict[str, Callable[[Story, int], None]] = {
    "ransom with a key of one's own": ransom,
    "bucket synced": sync,
    "table scanned and exported": table,
    "function's code replaced": function,
    "bucket given to a foreign account": given_away,
    "few objects, chosen": selective,
    "bucket read and emptied": wiped,
}
_AMOUNTS = {"a third": 30, "its calls": 120, "everything": 400}


def invented_records(name: str, size: str, background: Iterable[Record], rng: random.Random) -> list[Record]:
    """Return the records of an invented attack on the background's busiest bucket and table, if it has any."""
    story = Story(
        rng, _busiest(background, "bucketName") or "customer-archive", _busiest(background, "tableName") or "customers"
    )
    STORIES[name](story, _AMOUNTS[size])
    return story.records


def _busiest(records: Iterable[Record], parameter: str) -> str | None:
    names = [(record.get("requestParameters") or {}).get(parameter) for record in records]
    known = [name for name in names if isinstance(name, str) and ":" not in name]
    return max(sorted(set(known)), key=known.count, default=None)
