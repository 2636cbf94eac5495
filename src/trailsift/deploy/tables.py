"""The tables on AWS as statements for Athena, derived from ``schema``.

Athena uses Hive's DDL for tables over files, and its own for Iceberg.
https://docs.aws.amazon.com/athena/latest/ug/create-table.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from trailsift import schema
from trailsift.cloudtrail.bucket_names import name_problem
from trailsift.cloudtrail.services import ALPHABET, FOLDERS, OTHER
from trailsift.deploy.regions import regions_of
from trailsift.errors import UsageError

#: Our types in Athena's DDL. Iceberg's ``timestamp`` has no time zone there; ours are UTC.
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
    "username:string,identityprovider:string,onbehalfof:struct<userid:string,identitystorearn:string>,"
    "sessioncontext:struct<attributes:struct<mfaauthenticated:string,creationdate:string>,"
    "sessionissuer:struct<type:string,principalid:string,arn:string,accountid:string,username:string>,"
    "ec2roledelivery:string,webidfederationdata:struct<federatedprovider:string,attributes:map<string,string>>>>"
)
#: Fields of a record as Athena reads CloudTrail's files: name (in any case) -> type.
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

#: The first day that a table covers: the month in which trails began to log data events.
#: https://aws.amazon.com/about-aws/whats-new/2016/11/aws-cloudtrail-supports-s3-data-events/
FIRST_DAY = date(2016, 11, 1)


@dataclass(frozen=True, slots=True)
class StackConfig:
    """The trail's bucket and prefix, our bucket, the database, and the values that partitions can have."""

    trail: str = "my-cloudtrail-bucket"
    bucket: str = "my-analysis-bucket"
    database: str = "trailsift"
    accounts: tuple[str, ...] = ("123456789012",)
    regions: tuple[str, ...] = ("us-east-1",)
    organization: str = ""
    services: tuple[str, ...] = (*FOLDERS, OTHER)
    since: date = date(2026, 1, 1)

    def checked(self) -> StackConfig:
        """Return itself. Raise UsageError if a value is not valid: all of them end up inside SQL."""
        for place in (self.trail, self.bucket):
            name = place.partition("/")[0]
            problem = name_problem(name)
            if problem:
                raise UsageError(f"{name!r} is not a valid bucket name: {problem}")
        for what, pattern, values in (
            ("bucket and prefix", r"[a-z0-9.-]+(/[\w!.*()+=@:-]+)*", (self.trail, self.bucket)),
            ("database", r"[a-z_][a-z0-9_]{0,127}", (self.database,)),
            ("account: it has 12 digits", r"[0-9]{12}", self.accounts),
            ("region", r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}", self.regions),
            ("organization", r"(o-[a-z0-9]{10,32})?", (self.organization,)),
            ("service", ALPHABET, self.services),
        ):
            for value in values:
                if not re.fullmatch(pattern, value):
                    raise UsageError(f"{value!r} is not a valid {what}")
        return self

    @property
    def logs(self) -> str:
        """The folder of CloudTrail's log files, as a URL."""
        inside = f"{self.organization}/" if self.organization else ""
        return f"s3://{self.trail}/AWSLogs/{inside}"

    def folder(self, name: str) -> str:
        """Return the URL of a folder in our bucket."""
        return f"s3://{self.bucket}/{name}/"


def database(config: StackConfig) -> str:
    """Return the statement that creates the database."""
    return f"CREATE DATABASE IF NOT EXISTS {config.database}"


def raw(config: StackConfig) -> str:
    """Return the table over CloudTrail's own files, with projected partitions by account, region and delivery day."""
    columns = ",\n".join(f"  {name} {kind}" for name, kind in RAW.items())
    # It ends in a slash. https://docs.aws.amazon.com/athena/latest/ug/partition-projection-setting-up.html
    template = f"{config.logs}${{account}}/CloudTrail/${{region}}/${{day}}/"
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {config.database}.cloudtrail_raw (\n{columns}\n)\n"
        "PARTITIONED BY (account string, region string, day string)\n"
        "ROW FORMAT SERDE 'org.apache.hive.hcatalog.data.JsonSerDe'\n"
        "STORED AS INPUTFORMAT 'com.amazon.emr.cloudtrail.CloudTrailInputFormat'\n"
        "OUTPUTFORMAT 'org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat'\n"
        f"LOCATION '{config.logs}'\n"
        + _properties(
            {
                "projection.enabled": "true",
                "projection.account.type": "enum",
                "projection.account.values": ",".join(config.accounts),
                "projection.region.type": "enum",
                "projection.region.values": ",".join(regions_of(config.regions)),
                "projection.day.type": "date",
                "projection.day.format": "yyyy/MM/dd",
                "projection.day.range": f"{FIRST_DAY:%Y/%m/%d},NOW",
                "projection.day.interval": "1",
                "projection.day.interval.unit": "DAYS",
                "storage.location.template": template,
            }
        )
    )


def raw_partitions(config: StackConfig) -> str:
    """Return the statement that gives the raw table other accounts and regions: an enumeration knows no new ones."""
    values = {
        "projection.account.values": ",".join(config.accounts),
        "projection.region.values": ",".join(regions_of(config.regions)),
    }
    listed = ", ".join(f"'{name}'='{value}'" for name, value in values.items())
    return f"ALTER TABLE {config.database}.cloudtrail_raw SET TBLPROPERTIES ({listed})"


#: Partition columns of the landing files, in the order of their folders.
LANDING_PARTITIONS = ("year", "month", "day", "hour", "service")


def landing(config: StackConfig) -> str:
    """Return the table over the landing files (JSON lines), with projected partitions by hour and service."""
    columns = ",\n".join(
        f"  {column.name} {DDL_TYPES[column.type]}"
        for column in schema.EVENTS.columns
        if column.name not in LANDING_PARTITIONS
    )
    keys = ", ".join(f"{name} string" for name in LANDING_PARTITIONS)
    folder = config.folder("landing")
    properties = landing_projection(config)
    properties["storage.location.template"] = folder + landing_template("${%s}")
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {config.database}.landing (\n{columns}\n)\n"
        f"PARTITIONED BY ({keys})\n"
        "ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'\n"
        f"LOCATION '{folder}'\n" + _properties(properties)
    )


def landing_template(form: str) -> str:
    """Return the folders of a landing partition; ``form`` has ``%s`` for the name of a column."""
    # It ends in a slash. https://docs.aws.amazon.com/athena/latest/ug/partition-projection-setting-up.html
    return "".join(f"{name}={form % name}/" for name in LANDING_PARTITIONS)


def landing_projection(config: StackConfig) -> dict[str, str]:
    """Return the properties that project the landing table's partitions, but the template of their location."""
    properties = {"projection.enabled": "true"}
    # A redelivered or resent event may be of any year that CloudTrail has had data events in.
    for name, span in {"year": f"{FIRST_DAY.year},2050", "month": "1,12", "day": "1,31", "hour": "0,23"}.items():
        properties[f"projection.{name}.type"] = "integer"
        properties[f"projection.{name}.range"] = span
        properties[f"projection.{name}.digits"] = "4" if name == "year" else "2"
    properties["projection.service.type"] = "enum"
    properties["projection.service.values"] = ",".join(config.services)
    return properties


def iceberg(config: StackConfig, table: schema.Table) -> str:
    """Return one table of the lake. The hidden partition field ``day(...)`` lets a filter on time alone prune."""
    columns = ",\n".join(f"  {column.name} {DDL_TYPES[column.type]}" for column in table.columns)
    hidden = table.time if table.column(table.time).type == "date" else f"day({table.time})"
    return (
        f"CREATE TABLE IF NOT EXISTS {config.database}.{table.name} (\n{columns}\n)\n"
        f"PARTITIONED BY ({', '.join((*table.partition, hidden))})\n"
        f"LOCATION '{config.folder(f'lake/{table.name}')}'\n"
        + _properties({"table_type": "ICEBERG", "format": "parquet", "write_compression": "zstd"})
    )


def _properties(values: dict[str, str]) -> str:
    return "TBLPROPERTIES (\n" + ",\n".join(f"  '{name}'='{value}'" for name, value in values.items()) + "\n)"
