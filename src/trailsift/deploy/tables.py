"""The tables of the AWS side as statements for Athena, derived from ``event``.

Athena takes Hive's DDL for tables over files, and its own for Iceberg.
https://docs.aws.amazon.com/athena/latest/ug/create-table.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from trailsift import schema
from trailsift.aws.selectors import SERVICES
from trailsift.errors import UsageError

#: Our types in Athena's DDL. Iceberg's ``timestamp`` there has no zone: ours are UTC.
DDL_TYPES: dict[str, str] = {
    "timestamp": "timestamp",
    "date": "date",
    "string": "string",
    "bool": "boolean",
    "int64": "bigint",
    "double": "double",
    "list<string>": "array<string>",
    "list<int64>": "array<bigint>",
}
_IDENTITY = (
    "struct<type:string,principalid:string,arn:string,accountid:string,invokedby:string,accesskeyid:string,"
    "username:string,onbehalfof:struct<userid:string,identitystorearn:string>,"
    "sessioncontext:struct<attributes:struct<mfaauthenticated:string,creationdate:string>,"
    "sessionissuer:struct<type:string,principalid:string,arn:string,accountid:string,username:string>,"
    "ec2roledelivery:string,webidfederationdata:struct<federatedprovider:string,attributes:map<string,string>>>>"
)
#: Members of a record as Athena reads CloudTrail's files: name (any case) -> type.
RAW: dict[str, str] = {
    "eventversion": "string",
    "useridentity": _IDENTITY,
    "eventtime": "string",
    "eventsource": "string",
    "eventname": "string",
    "awsregion": "string",
    "sourceipaddress": "string",
    "useragent": "string",
    "errorcode": "string",
    "errormessage": "string",
    "requestparameters": "string",
    "responseelements": "string",
    "additionaleventdata": "string",
    "requestid": "string",
    "eventid": "string",
    "readonly": "string",
    "resources": "array<struct<arn:string,accountid:string,type:string>>",
    "eventtype": "string",
    "apiversion": "string",
    "managementevent": "string",
    "recipientaccountid": "string",
    "serviceeventdetails": "string",
    "sharedeventid": "string",
    "vpcendpointid": "string",
    "vpcendpointaccountid": "string",
    "eventcategory": "string",
    "tlsdetails": "struct<tlsversion:string,ciphersuite:string,clientprovidedhostheader:string>",
}

#: Services that land in partitions of their own, unless others are named: those with data events that people log.
LANDING_SERVICES = tuple(dict.fromkeys((*(name for name in SERVICES if "-" not in name), "kms", "sts", "iam")))


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Where things are: the trail's bucket and prefix, ours, the database, and what partitions there can be."""

    trail: str = "my-cloudtrail-bucket"
    bucket: str = "my-analysis-bucket"
    database: str = "trailsift"
    accounts: tuple[str, ...] = ("123456789012",)
    regions: tuple[str, ...] = ("us-east-1",)
    organization: str = ""
    services: tuple[str, ...] = LANDING_SERVICES
    since: date = date(2026, 1, 1)

    def checked(self) -> StackConfig:
        """Itself; UsageError where a name cannot be one. Everything in it ends up inside of SQL."""
        for what, pattern, values in (
            ("bucket and prefix", r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w!.*()+=@:-]+)*", (self.trail, self.bucket)),
            ("database", r"[a-z_][a-z0-9_]{0,127}", (self.database,)),
            ("account", r"\d{12}", self.accounts),
            ("region", r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}", self.regions),
            ("organization", r"(o-[a-z0-9]{10,32})?", (self.organization,)),
            ("service", r"[a-z0-9-]{1,64}", self.services),
        ):
            for value in values:
                if not re.fullmatch(pattern, value):
                    raise UsageError(f"{value!r} is no {what}")
        return self

    @property
    def logs(self) -> str:
        """The folder of CloudTrail's log files."""
        inside = f"{self.organization}/" if self.organization else ""
        return f"s3://{self.trail}/AWSLogs/{inside}"

    def folder(self, name: str) -> str:
        """A folder of ours."""
        return f"s3://{self.bucket}/{name}/"


def database(place: StackConfig) -> str:
    """The database that everything else is in."""
    return f"CREATE DATABASE IF NOT EXISTS {place.database}"


def raw(place: StackConfig) -> str:
    """CloudTrail's own files, with a partition for each account, region and day of delivery, projected."""
    columns = ",\n".join(f"  {name} {kind}" for name, kind in RAW.items())
    template = f"{place.logs}${{account}}/CloudTrail/${{region}}/${{day}}"
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {place.database}.cloudtrail_raw (\n{columns}\n)\n"
        "PARTITIONED BY (account string, region string, day string)\n"
        "ROW FORMAT SERDE 'org.apache.hive.hcatalog.data.JsonSerDe'\n"
        "STORED AS INPUTFORMAT 'com.amazon.emr.cloudtrail.CloudTrailInputFormat'\n"
        "OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'\n"
        f"LOCATION '{place.logs}'\n"
        + _properties(
            {
                "projection.enabled": "true",
                "projection.account.type": "enum",
                "projection.account.values": ",".join(place.accounts),
                "projection.region.type": "enum",
                "projection.region.values": ",".join(place.regions),
                "projection.day.type": "date",
                "projection.day.format": "yyyy/MM/dd",
                "projection.day.range": f"{place.since:%Y/%m/%d},NOW",
                "projection.day.interval": "1",
                "projection.day.interval.unit": "DAYS",
                "storage.location.template": template,
            }
        )
    )


#: Partition columns of the landing files, in the order of their folders.
LANDING_PARTITIONS = ("year", "month", "day", "hour", "service")


def landing(place: StackConfig) -> str:
    """What the transformation lands, a JSON object a line, with a partition for each hour and service, projected."""
    columns = ",\n".join(
        f"  {column.name} {DDL_TYPES[column.type]}"
        for column in schema.EVENTS.columns
        if column.name not in LANDING_PARTITIONS
    )
    keys = ", ".join(f"{name} string" for name in LANDING_PARTITIONS)
    folder = place.folder("landing")
    template = folder + "/".join(f"{name}=${{{name}}}" for name in LANDING_PARTITIONS)
    ranges = {"year": (f"{place.since.year},{place.since.year + 20}", "4")}
    ranges |= {"month": ("1,12", "2"), "day": ("1,31", "2"), "hour": ("0,23", "2")}
    projected = {"projection.enabled": "true"}
    for name, (span, digits) in ranges.items():
        projected[f"projection.{name}.type"] = "integer"
        projected[f"projection.{name}.range"] = span
        projected[f"projection.{name}.digits"] = digits
    projected["projection.service.type"] = "enum"
    projected["projection.service.values"] = ",".join(place.services)
    projected["storage.location.template"] = template
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {place.database}.landing (\n{columns}\n)\n"
        f"PARTITIONED BY ({keys})\n"
        "ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'\n"
        f"LOCATION '{folder}'\n" + _properties(projected)
    )


def iceberg(place: StackConfig, table: schema.Table) -> str:
    """One table of the lake. A filter on the time alone prunes, by the hidden field ``day(...)``."""
    columns = ",\n".join(f"  {column.name} {DDL_TYPES[column.type]}" for column in table.columns)
    hidden = table.time if table.column(table.time).type == "date" else f"day({table.time})"
    return (
        f"CREATE TABLE IF NOT EXISTS {place.database}.{table.name} (\n{columns}\n)\n"
        f"PARTITIONED BY ({', '.join((*table.partition, hidden))})\n"
        f"LOCATION '{place.folder(f'lake/{table.name}')}'\n"
        + _properties({"table_type": "ICEBERG", "format": "parquet", "write_compression": "zstd"})
    )


def _properties(values: dict[str, str]) -> str:
    return "TBLPROPERTIES (\n" + ",\n".join(f"  '{name}'='{value}'" for name, value in values.items()) + "\n)"
