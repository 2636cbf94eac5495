"""Commands that write the AWS side: ``trailsift aws ...``."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from trailsift.cli.options import JsonOption
from trailsift.errors import UsageError
from trailsift.terminal.output import print_json, print_line, print_script

if TYPE_CHECKING:
    from trailsift.deploy.tables import StackConfig

aws = App(name="aws", help="Write the AWS side as files to review and deploy. Needs no credentials.", help_epilogue="")


ArchOption = Annotated[Literal["arm64", "x86_64"], Parameter(help="Processor architecture of the function.")]
PythonOption = Annotated[str, Parameter(help="Python version of the function.")]


@aws.command(name="package")
def package_command(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Zip file to write.")] = Path("firehose.zip"),
    arch: ArchOption = "arm64",
    python: PythonOption = "3.13",
    rules: Annotated[Path | None, Parameter(help="Rules file to include: what the stream keeps.")] = None,
    wheels: Annotated[Path | None, Parameter(help="Folder of wheels to use instead of the network.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Build the zip file of the Lambda function that transforms a Firehose stream.

    Example: `trailsift aws package --arch arm64 --output transform.zip`
    """
    from trailsift.deploy.package import HANDLER, build

    zipped = build(output, arch=arch, python=python, rules=rules, wheels=wheels)
    if as_json:
        print_json({**zipped._asdict(), "path": str(zipped.path), "handler": HANDLER, "key": zipped.key})
    else:
        print_line(f"{zipped.path}: {zipped.size:,} bytes, python{zipped.python} on {zipped.arch}, handler {HANDLER}")
        print_line(f"sha256 {zipped.sha256}")
        print_line(f"upload it as {zipped.key}: the template takes this as CodeKey")
    return 0


TrailOption = Annotated[str | None, Parameter(help="Bucket of the trail, with its prefix if any.")]
BucketOption = Annotated[str, Parameter(help="Bucket for the tables, with an optional prefix.")]
AccountsOption = Annotated[
    list[str] | None, Parameter(name="--account", help="Account whose logs to read. Repeatable.")
]
RegionsOption = Annotated[list[str] | None, Parameter(name="--region", help="Region whose logs to read. Repeatable.")]
OrganizationOption = Annotated[
    str, Parameter(show_default=False, help="Organization id (o-...), for an organization trail.")
]
DatabaseOption = Annotated[str, Parameter(help="Glue database.")]
FromOption = Annotated[datetime | None, Parameter(name="--from", help="First day of the logs: 2026-01-15.")]


def _asked(trail: str | None, account: list[str] | None) -> tuple[str, list[str]]:
    """Return what only the user knows. With a wrong one, every statement would find nothing, and say no word of it."""
    if not trail or not account:
        missing = " and ".join(
            what
            for what, given in (("the trail's bucket with --trail", trail), ("the account with --account", account))
            if not given
        )
        raise UsageError(f"name {missing}: the tables read the log files from there")
    return trail, account


def _config(
    trail: str,
    bucket: str,
    account: list[str] | None,
    region: list[str] | None,
    organization: str,
    database: str,
    since: datetime | None,
) -> StackConfig:
    from trailsift.deploy.tables import StackConfig

    default = StackConfig()
    return StackConfig(
        trail,
        bucket,
        database,
        tuple(account or default.accounts),
        tuple(region or default.regions),
        organization,
        since=since.date() if since else default.since,
    ).checked()


@aws.command(name="sql")
def sql_command(
    *,
    trail: TrailOption = None,
    bucket: BucketOption = "my-analysis-bucket",
    account: AccountsOption = None,
    region: RegionsOption = None,
    organization: OrganizationOption = "",
    database: DatabaseOption = "trailsift",
    since: FromOption = None,
    until: Annotated[datetime | None, Parameter(name="--to", help="Day after the last day to load.")] = None,
    day: Annotated[
        datetime | None, Parameter(help="Load this day only: the same as --from and --to around it.")
    ] = None,
    only: Annotated[list[str] | None, Parameter(help="Only the statement of this name. Repeatable.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Print SQL for Athena, ready to paste: tables, loading them, summaries, maintenance, example queries.

    Example: `trailsift aws sql --trail my-trail-bucket --bucket my-bucket --account 123456789012 --region us-east-1`
    """
    from trailsift.deploy.athena_sql import script, statements

    if day is not None:
        if since is not None or until is not None:
            raise UsageError("--day is one day, --from and --to are a period: use either")
        since, until = day, day + timedelta(days=1)
    trail, account = _asked(trail, account)
    config = _config(trail, bucket, account, region, organization, database, since)
    listed = statements(config, until.date() if until else None)
    names = [statement.name for statement in listed]
    unknown = set(only or ()) - set(names)
    if unknown:
        raise UsageError(f"there is no statement {min(unknown)!r}: the statements are {', '.join(names)}")
    chosen = [statement for statement in listed if not only or statement.name in only]
    if as_json:
        print_json([statement._asdict() for statement in chosen])
    else:
        print_script(script(chosen))
    return 0


@aws.command(name="glue")
def glue_command(
    objects: Annotated[
        list[str] | None, Parameter(name="OBJECT", help="Keys of landing objects whose partitions to register.")
    ] = None,
    /,
    *,
    crawler: Annotated[str | None, Parameter(help="Request a crawler instead, with this IAM role.")] = None,
    bucket: BucketOption = "my-analysis-bucket",
    database: DatabaseOption = "trailsift",
) -> int:
    """Print requests to Glue that register partitions or create a crawler. The tables of `aws sql` need neither.

    Example: `trailsift aws glue landing/year=2026/month=01/day=15/hour=14/service=s3/part.gz --bucket my-bucket`
    """
    from trailsift.deploy import glue_requests

    config = _config("my-cloudtrail-bucket", bucket, None, None, "", database, None)
    if crawler is not None:
        print_json(glue_requests.crawler(config, crawler))
    elif objects:
        for request in glue_requests.partitions(config, objects):
            print_json(request)
    else:
        raise UsageError("name the objects whose partitions to register, or use --crawler ROLE")
    return 0


@aws.command(name="render")
def render_command(
    *,
    out: Annotated[Path, Parameter(help="Folder to write to.")],
    stack: Annotated[str, Parameter(help="Name under which you will deploy the template.")] = "trailsift",
    trail: TrailOption = None,
    bucket: BucketOption = "my-analysis-bucket",
    account: AccountsOption = None,
    region: RegionsOption = None,
    organization: OrganizationOption = "",
    database: DatabaseOption = "trailsift",
    since: FromOption = None,
    arch: ArchOption = "arm64",
    python: PythonOption = "3.13",
) -> int:
    """Write everything as files: CloudFormation, SQL, CloudWatch and Grafana dashboards.

    Example: `trailsift aws render --out stack --trail my-trail-bucket --bucket my-bucket --account 123456789012`
    """
    from trailsift.deploy.render import files, write

    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]{0,40}", stack):
        raise UsageError(f"{stack!r} is not a valid stack name: use letters, digits and hyphens, at most 41")
    trail, account = _asked(trail, account)
    config = _config(trail, bucket, account, region, organization, database, since)
    for path in write(out, files(config, stack, python=python, arch=arch)):
        print_line(path)
    return 0
