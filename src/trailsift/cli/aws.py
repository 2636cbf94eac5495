"""Commands of the AWS side: ``trailsift aws ...``."""

from __future__ import annotations

import re
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from trailsift.cli.options import JsonOption
from trailsift.errors import UsageError

if TYPE_CHECKING:
    from trailsift.deploy.tables import StackConfig

aws = App(name="aws", help="The AWS side as files: made without credentials, for you to look at and to use.")


@aws.command(help_epilogue="")
def package(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The zip to write.")] = Path("firehose.zip"),
    arch: Annotated[Literal["arm64", "x86_64"], Parameter(help="The machine that Lambda runs it on.")] = "arm64",
    python: Annotated[str, Parameter(help="Version of Lambda's Python.")] = "3.13",
    rules: Annotated[Path | None, Parameter(help="A rules file to pack: what the stream keeps.")] = None,
    wheels: Annotated[Path | None, Parameter(help="A folder of wheels, where there is no network.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Build the zip of the Lambda function that transforms a Firehose stream.

    Example: `trailsift aws package --arch arm64 --output transform.zip`
    """
    from trailsift.deploy.package import HANDLER, build
    from trailsift.terminal.console import print_json

    made = build(output, arch=arch, python=python, rules=rules, wheels=wheels)
    if as_json:
        print_json({**made._asdict(), "path": str(made.path), "handler": HANDLER})
    else:
        print(f"{made.path}: {made.size:,} bytes, python{made.python} on {made.arch}, handler {HANDLER}")
        print(f"sha256 {made.sha256}")
    return 0


TrailOption = Annotated[str, Parameter(help="Bucket of the trail, with its prefix if it has one.")]
BucketOption = Annotated[str, Parameter(help="Bucket for what trailsift makes, with a prefix if you like.")]
AccountsOption = Annotated[list[str] | None, Parameter(name="--account", help="Account of the logs. Repeatable.")]
RegionsOption = Annotated[list[str] | None, Parameter(name="--region", help="Region of the logs. Repeatable.")]
OrganizationOption = Annotated[str, Parameter(help="Organization id (o-...), for a trail of an organization.")]
DatabaseOption = Annotated[str, Parameter(help="Database in the Glue catalog.")]
FromOption = Annotated[datetime | None, Parameter(name="--from", help="First day of the logs: 2026-01-15.")]


def _place(
    trail: str,
    bucket: str,
    account: list[str] | None,
    region: list[str] | None,
    organization: str,
    database: str,
    since: datetime | None,
) -> StackConfig:
    from trailsift.deploy.tables import StackConfig

    known = StackConfig()
    return StackConfig(
        trail,
        bucket,
        database,
        tuple(account or known.accounts),
        tuple(region or known.regions),
        organization,
        since=since.date() if since else known.since,
    ).checked()


@aws.command(help_epilogue="")
def sql(
    *,
    trail: TrailOption = "my-cloudtrail-bucket",
    bucket: BucketOption = "my-analysis-bucket",
    account: AccountsOption = None,
    region: RegionsOption = None,
    organization: OrganizationOption = "",
    database: DatabaseOption = "trailsift",
    since: FromOption = None,
    until: Annotated[datetime | None, Parameter(name="--to", help="The day after the last one to copy.")] = None,
    only: Annotated[list[str] | None, Parameter(help="Only the statement of this name. Repeatable.")] = None,
    as_json: JsonOption = False,
) -> int:
    """SQL for Athena, ready to paste: tables, columnar copy, summaries, upkeep, questions.

    Example: `trailsift aws sql --trail my-trail-bucket --bucket my-bucket --account 123456789012 --region us-east-1`
    """
    from trailsift.deploy.athena_sql import script, statements
    from trailsift.terminal.console import print_json

    place = _place(trail, bucket, account, region, organization, database, since)
    made = statements(place, until.date() if until else None)
    unknown = set(only or ()) - {one.name for one in made}
    if unknown:
        raise UsageError(f"there is no statement {min(unknown)!r}: there are {', '.join(one.name for one in made)}")
    made = [one for one in made if not only or one.name in only]
    if as_json:
        print_json([one._asdict() for one in made])
    else:
        sys.stdout.write(script(made))
    return 0


@aws.command(help_epilogue="")
def glue(
    objects: Annotated[
        list[str] | None, Parameter(name="OBJECT", help="Keys of landing objects whose partitions to register.")
    ] = None,
    /,
    *,
    crawler: Annotated[str | None, Parameter(help="Make a crawler instead, with this IAM role.")] = None,
    bucket: BucketOption = "my-analysis-bucket",
    database: DatabaseOption = "trailsift",
) -> int:
    """Requests to Glue, for those who want registered partitions or a crawler; the tables of `aws sql` need neither.

    Example: `trailsift aws glue landing/year=2026/month=01/day=15/hour=14/service=s3/part.gz --bucket my-bucket`
    """
    from trailsift.deploy import glue_requests as make
    from trailsift.terminal.console import print_json

    place = _place("my-cloudtrail-bucket", bucket, None, None, "", database, None)
    if crawler is not None:
        print_json(make.crawler(place, crawler))
    elif objects:
        for request in make.partitions(place, objects):
            print_json(request)
    else:
        raise UsageError("name objects whose partitions are to be registered, or --crawler ROLE")
    return 0


@aws.command(help_epilogue="")
def render(
    *,
    out: Annotated[Path, Parameter(help="Folder to write to.")],
    stack: Annotated[str, Parameter(help="Name under which the template will be deployed.")] = "trailsift",
    trail: TrailOption = "my-cloudtrail-bucket",
    bucket: BucketOption = "my-analysis-bucket",
    account: AccountsOption = None,
    region: RegionsOption = None,
    organization: OrganizationOption = "",
    database: DatabaseOption = "trailsift",
    since: FromOption = None,
) -> int:
    """Write everything as files: CloudFormation, SQL, CloudWatch and Grafana boards. Needs no credentials.

    Example: `trailsift aws render --out stack --bucket my-bucket --region us-east-1`
    """
    from trailsift.deploy.render import files, write

    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]{0,40}", stack):
        raise UsageError(f"{stack!r} is no name of a stack: letters, digits and hyphens, 41 at most")
    for path in write(out, files(_place(trail, bucket, account, region, organization, database, since), stack)):
        print(path)
    return 0
