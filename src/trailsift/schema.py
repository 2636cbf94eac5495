"""The schema: every column of every table, defined once.

The Arrow and Iceberg schemas, the Glue tables, ``docs/schema.md`` and the help of ``query`` are derived from the
literals below. To add a column, add one line here, and its value in ``decode.record``.

Types are strings: ``timestamp`` (UTC, microseconds), ``date``, ``string``, ``bool``, ``int64``, ``double``,
``list<string>``, ``list<int64>``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple


class Column(NamedTuple):
    """One column: its name, its type, the path in the record that it comes from, and its meaning."""

    name: str
    type: str
    source: str
    meaning: str


class Table(NamedTuple):
    """One table of the lake.

    ``partition``: the identity partition columns; ``time``: the column whose day is the hidden partition field;
    ``order``: the sort order inside a file; ``keys``: the columns that identify a row (summary tables only).
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    partition: tuple[str, ...]
    time: str
    order: tuple[str, ...]
    keys: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """Return the column of that name. Raise KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


EVENTS = Table(
    "events",
    "One row per distinct CloudTrail event, of any service.",
    (
        Column("event_time", "timestamp", "eventTime", "time of the call (UTC)"),
        Column("event_id", "string", "eventID", "CloudTrail's event id, or `content-` and a hash if absent"),
        Column("event_name", "string", "eventName", "API action, e.g. GetObject"),
        Column("event_source", "string", "eventSource", "endpoint of the service, e.g. s3.amazonaws.com"),
        Column("event_category", "string", "eventCategory", "Data, Management, Insight, ...; derived if absent"),
        Column("event_type", "string", "eventType", "AwsApiCall, AwsServiceEvent, ..."),
        Column("event_version", "string", "eventVersion", "version of the record format"),
        Column("aws_region", "string", "awsRegion", "region of the endpoint that was called"),
        Column("account_id", "string", "recipientAccountId", "account that received the event, or the caller's"),
        Column("principal_type", "string", "userIdentity.type", "kind of caller: AssumedRole, IAMUser, ..."),
        Column(
            "principal_id", "string", "userIdentity.principalId", "unique id of the caller, as AIDA... or AROA...:NAME"
        ),
        Column("principal_arn", "string", "userIdentity.arn", "ARN of the caller; for a role, of the session"),
        Column("principal_account", "string", "userIdentity.accountId", "account of the caller"),
        Column(
            "caller",
            "string",
            "userIdentity",
            "ARN of the role, else of the user, else what tells the caller apart: `account:444455556666/AIDA...`, "
            "`service:HOST`, `identity-center:...`, `federated:...`, `anonymous`, `none`; never null",
        ),
        Column(
            "role_arn",
            "string",
            "userIdentity.sessionContext.sessionIssuer.arn",
            "role of the caller: session issuer, else what the ARN names, else invokedBy; null if there is none",
        ),
        Column("session_name", "string", "userIdentity.arn", "session name of an assumed role"),
        Column("access_key_id", "string", "userIdentity.accessKeyId", "id of the access key that signed the call"),
        Column("invoked_by", "string", "userIdentity.invokedBy", "AWS service that made the call"),
        Column("source_ip", "string", "sourceIPAddress", "IP address of the caller, or the name of an AWS service"),
        Column("user_agent", "string", "userAgent", "user agent of the client"),
        Column("error_code", "string", "errorCode", "error code; null if the call succeeded"),
        Column("error_message", "string", "errorMessage", "error message"),
        Column("read_only", "bool", "readOnly", "true if the call only reads"),
        Column("resource_type", "string", "resources[].type", "resource type as in event selectors"),
        Column("resource_arn", "string", "resources[].ARN", "(first) bucket, function, table ... of the call"),
        Column("resource_arns", "list<string>", "resources[].ARN", "all buckets, functions, tables ... of the call"),
        Column("resource_account", "string", "resources[].accountId", "account that owns the resource"),
        Column("object_key", "string", "requestParameters.key", "S3 object key, or DynamoDB item key as JSON"),
        Column(
            "source_resource_arn",
            "string",
            "x-amz-copy-source",
            "bucket that a copy reads; the access point if the record names no bucket",
        ),
        Column("source_object_key", "string", "x-amz-copy-source", "key of the object that a copy reads"),
        Column("bytes_in", "int64", "additionalEventData.bytesTransferredIn", "bytes received by the service"),
        Column("bytes_out", "int64", "additionalEventData.bytesTransferredOut", "bytes sent to the caller"),
        Column("vpc_endpoint_id", "string", "vpcEndpointId", "id of the VPC endpoint through which the call was made"),
        Column("request_id", "string", "requestID", "id that the service assigned to the call"),
        Column("shared_event_id", "string", "sharedEventID", "id shared by all accounts that received the event"),
        Column("request_parameters", "string", "requestParameters", "JSON, without values of typed columns"),
        Column("response_elements", "string", "responseElements", "JSON"),
        Column("additional_event_data", "string", "additionalEventData", "JSON, without values of typed columns"),
        Column("resources", "string", "resources", "JSON; null if the typed columns hold the same"),
        Column("rest", "string", "*", "JSON of all other members of the record, including userIdentity"),
        Column("weight", "double", "", "number of original events that this event represents; 1 if it was not sampled"),
        Column("log_object", "string", "", "log object that the event was read from"),
        Column("year", "string", "eventTime", "partition: year of event_time in UTC, 4 digits"),
        Column("month", "string", "eventTime", "partition: month, 2 digits"),
        Column("day", "string", "eventTime", "partition: day of the month, 2 digits"),
        Column("service", "string", "eventSource", "partition: first label of event_source, e.g. s3"),
    ),
    ("year", "month", "day", "service"),
    "event_time",
    ("caller", "event_time"),
)

HOUR_COLUMN = Column("hour", "string", "eventTime", "partition: hour of event_time in UTC, 2 digits")

#: ``events`` in a lake with the setting ``hourly_partitions``.
EVENTS_BY_HOUR = EVENTS._replace(
    columns=(*EVENTS.columns, HOUR_COLUMN), partition=("year", "month", "day", HOUR_COLUMN.name, "service")
)

HOURLY = Table(
    "hourly",
    "Exact counts per hour of all events, including dropped and sampled ones.",
    (
        Column("hour", "timestamp", "eventTime", "start of the hour (UTC)"),
        Column("account_id", "string", "recipientAccountId", "as in events"),
        Column("aws_region", "string", "awsRegion", "as in events"),
        Column("service", "string", "eventSource", "as in events"),
        Column("event_name", "string", "eventName", "as in events"),
        Column("caller", "string", "userIdentity", "as in events"),
        Column("role_arn", "string", "userIdentity", "as in events"),
        Column("resource_arn", "string", "resources", "as in events; `(other)` beyond the limit per hour"),
        Column("error_code", "string", "errorCode", "as in events"),
        Column("read_only", "bool", "readOnly", "as in events"),
        Column(
            "category", "string", "eventCategory", "event_category of events; `unknown` in lines of format version 1"
        ),
        Column("events", "int64", "", "number of events"),
        Column("bytes_in", "int64", "", "sum of bytes_in"),
        Column("bytes_out", "int64", "", "sum of bytes_out"),
        Column("source_ips", "list<int64>", "sourceIPAddress", "sketch of distinct source addresses"),
        Column("object_keys", "list<int64>", "requestParameters.key", "sketch of distinct object keys"),
        Column("first_time", "timestamp", "eventTime", "time of the earliest event"),
        Column("last_time", "timestamp", "eventTime", "time of the latest event"),
    ),
    (),
    "hour",
    ("caller", "hour"),
    (
        "hour",
        "account_id",
        "aws_region",
        "service",
        "event_name",
        "caller",
        "role_arn",
        "resource_arn",
        "error_code",
        "read_only",
        "category",
    ),
)

USAGE = Table(
    "usage",
    "Exact counts per day of each role's calls, by resource and key pattern.",
    (
        Column("day", "date", "eventTime", "day of event_time (UTC)"),
        Column("account_id", "string", "recipientAccountId", "as in events"),
        Column("caller", "string", "userIdentity", "as in events"),
        Column("role_arn", "string", "userIdentity", "as in events"),
        Column("service", "string", "eventSource", "as in events"),
        Column("event_name", "string", "eventName", "as in events"),
        Column("resource_arn", "string", "resources", "as in events"),
        Column("key_pattern", "string", "requestParameters.key", "object key with placeholders for variable parts"),
        Column("error_code", "string", "errorCode", "as in events"),
        Column("touch", "string", "", "`target`; `source`: a second line, of 0 bytes, for what a copy read"),
        Column(
            "category", "string", "eventCategory", "event_category of events; `unknown` in lines of format version 1"
        ),
        Column("events", "int64", "", "number of events"),
        Column("bytes_in", "int64", "", "sum of bytes_in"),
        Column("bytes_out", "int64", "", "sum of bytes_out"),
        Column(
            "owner_side",
            "int64",
            "sharedEventID",
            "events that are the resource owner's copy of a call from another account",
        ),
        Column("example_key", "string", "requestParameters.key", "one object key of the pattern, the smallest"),
        Column("first_time", "timestamp", "eventTime", "time of the earliest event"),
        Column("last_time", "timestamp", "eventTime", "time of the latest event"),
    ),
    (),
    "day",
    ("caller", "day"),
    (
        "day",
        "account_id",
        "caller",
        "role_arn",
        "service",
        "event_name",
        "resource_arn",
        "key_pattern",
        "error_code",
        "touch",
        "category",
    ),
)

PROFILE = Table(
    "profile",
    "Exact counts per day of each role's networks, clients, endpoints and sessions.",
    (
        Column("day", "date", "eventTime", "day of event_time (UTC)"),
        Column("account_id", "string", "recipientAccountId", "as in events"),
        Column("caller", "string", "userIdentity", "as in events"),
        Column("role_arn", "string", "userIdentity", "as in events"),
        Column("dimension", "string", "", "source_network, user_agent, vpc_endpoint, session_name, ..."),
        Column("value", "string", "", "/24 or /48 network, agent family, endpoint, session or account"),
        Column(
            "category", "string", "eventCategory", "event_category of events; `unknown` in lines of format version 1"
        ),
        Column("events", "int64", "", "number of events"),
        Column("bytes_out", "int64", "", "sum of bytes_out"),
        Column("denied", "int64", "", "number of events denied for lack of permission"),
        Column("first_time", "timestamp", "eventTime", "time of the earliest event"),
        Column("last_time", "timestamp", "eventTime", "time of the latest event"),
    ),
    (),
    "day",
    ("caller", "day"),
    ("day", "account_id", "caller", "role_arn", "dimension", "value", "category"),
)

ACCESS = Table(
    "access",
    "Exact counts per day of who did what with a resource, and from which network.",
    (
        Column("day", "date", "eventTime", "day of event_time (UTC)"),
        Column("account_id", "string", "recipientAccountId", "as in events"),
        Column("resource_arn", "string", "resources", "as in events"),
        Column("caller", "string", "userIdentity", "as in events"),
        Column("source_network", "string", "sourceIPAddress", "/24 or /48 network, or the name of an AWS service"),
        Column("kind", "string", "eventName", "read, write, delete, delete-batch, list or other"),
        Column("touch", "string", "", "`target`; `source`: a second line, of 0 bytes, for what a copy read"),
        Column(
            "category", "string", "eventCategory", "event_category of events; `unknown` in lines of format version 1"
        ),
        Column("events", "int64", "", "number of events"),
        Column("denied", "int64", "", "number of events denied for lack of permission"),
        Column("bytes_in", "int64", "", "sum of bytes_in"),
        Column("bytes_out", "int64", "", "sum of bytes_out"),
        Column(
            "owner_side",
            "int64",
            "sharedEventID",
            "events that are the resource owner's copy of a call from another account",
        ),
        Column("first_time", "timestamp", "eventTime", "time of the earliest event"),
        Column("last_time", "timestamp", "eventTime", "time of the latest event"),
    ),
    (),
    "day",
    ("caller", "day"),
    ("day", "account_id", "resource_arn", "caller", "source_network", "kind", "touch", "category"),
)

SESSIONS = Table(
    "sessions",
    "Exact counts per day of each caller's sessions, by network, client and endpoint.",
    (
        Column("day", "date", "eventTime", "day of event_time (UTC)"),
        Column("account_id", "string", "recipientAccountId", "as in events"),
        Column("caller", "string", "userIdentity", "as in events"),
        Column("session_name", "string", "userIdentity.arn", "as in events"),
        Column("source_network", "string", "sourceIPAddress", "/24 or /48 network, or the name of an AWS service"),
        Column("user_agent", "string", "userAgent", "family of the user agent"),
        Column("vpc_endpoint", "string", "vpcEndpointId", "vpc_endpoint_id of events"),
        Column(
            "category", "string", "eventCategory", "event_category of events; `unknown` in lines of format version 1"
        ),
        Column("events", "int64", "", "number of events"),
        Column("denied", "int64", "", "number of events denied for lack of permission"),
        Column("bytes_in", "int64", "", "sum of bytes_in"),
        Column("bytes_out", "int64", "", "sum of bytes_out"),
        Column("first_time", "timestamp", "eventTime", "time of the earliest event"),
        Column("last_time", "timestamp", "eventTime", "time of the latest event"),
    ),
    (),
    "day",
    ("caller", "day"),
    ("day", "account_id", "caller", "session_name", "source_network", "user_agent", "vpc_endpoint", "category"),
)

REJECTS = Table(
    "rejects",
    "Records and log objects that could not be stored, with the reason.",
    (
        Column("ingested_at", "timestamp", "", "time of the ingest (UTC)"),
        Column("log_object", "string", "", "log object that contains it"),
        Column("position", "int64", "", "position of the record in its log object, from 0; -1 for the object itself"),
        Column("reason", "string", "", "reason why it could not be stored"),
        Column("raw", "string", "", "raw text, up to 256 KB"),
    ),
    (),
    "ingested_at",
    ("log_object", "position"),
)

#: Values of ``touch``: what a call acted on, and what a copy read.
TARGET, SOURCE = "target", "source"
#: ``category`` of summary lines that a lake of format version 1 had.
UNKNOWN_CATEGORY = "unknown"
#: Category of what CloudTrail derives from calls: nobody's calls, and counted in ``hourly`` only.
INSIGHT = "Insight"

#: All tables, in the order in which a commit writes them.
TABLES: dict[str, Table] = {table.name: table for table in (EVENTS, HOURLY, USAGE, PROFILE, ACCESS, SESSIONS, REJECTS)}


#: The version of everything on disk that a lake of today has.
FORMAT_VERSION = 2
#: Columns and tables that lakes of format version 1 do not have.
_SINCE_2 = frozenset(
    {"principal_id", "caller", "source_resource_arn", "source_object_key", "category", "touch", "owner_side"}
)
_TABLES_SINCE_2 = frozenset({ACCESS.name, SESSIONS.name})


def tables_of(*, hourly_partitions: bool, format_version: int = FORMAT_VERSION) -> dict[str, Table]:
    """Return the tables as a lake of that format version stores them."""
    tables = TABLES | {EVENTS.name: EVENTS_BY_HOUR} if hourly_partitions else TABLES
    if format_version == FORMAT_VERSION:
        return tables
    return {name: _of_version_1(table) for name, table in tables.items() if name not in _TABLES_SINCE_2}


@cache
def _of_version_1(table: Table) -> Table:
    return table._replace(
        columns=tuple(column for column in table.columns if column.name not in _SINCE_2),
        order=tuple("role_arn" if name == "caller" else name for name in table.order),
        keys=tuple(name for name in table.keys if name not in _SINCE_2),
    )


def version_of(tables: Iterable[str]) -> int:
    """Return the format version of a lake that has these tables."""
    return FORMAT_VERSION if _TABLES_SINCE_2.intersection(tables) else 1


#: Values of ``profile.dimension``, in the order in which they are written.
PROFILE_DIMENSIONS = ("source_network", "user_agent", "vpc_endpoint", "session_name", "principal_account")

#: Hashes in a full sketch of distinct values: the smallest ones (k minimum values).
SKETCH_SIZE = 2048

#: Error codes that mean "refused for lack of permission", wherever refusals are counted: ``profile.denied``, reports,
#: detections, boards, ``is_denied`` in SQL. Calls whose credentials are wrong, expired or unknown (``AuthFailure``,
#: ``InvalidClientTokenId``, Cognito's ``NotAuthorizedException`` for a wrong password) are not among them.
DENIED_CODES = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AccessDeniedFault",  # DMS, DAX
        "VpceAccessDenied",  # NetworkActivity: by the policy of a VPC endpoint
        "Client.UnauthorizedOperation",
        "UnauthorizedOperation",
        "UnauthorizedAccess",
        "UnauthorizedException",
        "AuthorizationError",  # SNS
        "AuthorizationErrorException",
        "Forbidden",
        "ForbiddenException",
        "AllAccessDisabled",
        "403",
    }
)
