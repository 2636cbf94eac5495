"""THE schema: every column of every table once.

Arrow schemas, Iceberg schemas, the documentation page and the help of ``query`` are derived from the
literals below; adding a column is one line here (and its value in ``decode.record``).

Types are written as strings: ``timestamp`` (UTC, microseconds), ``date``, ``string``, ``bool``, ``int64``,
``double``, ``list<string>``, ``list<int64>``.
"""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """One column: its name, its type, the path in the record it comes from, and what it means."""

    name: str
    type: str
    source: str
    meaning: str


class Table(NamedTuple):
    """One table of the lake.

    ``partition`` names the identity partition columns, ``time`` the column whose day is the hidden partition
    field, ``order`` the sort order inside a file, ``keys`` the columns that make one line (summary tables only).
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    partition: tuple[str, ...]
    time: str
    order: tuple[str, ...]
    keys: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """The column of that name; KeyError where there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


EVENTS = Table(
    "events",
    "One row per distinct CloudTrail event, whatever it touched.",
    (
        Column("event_time", "timestamp", "eventTime", "when the call was made (UTC)"),
        Column("event_id", "string", "eventID", "CloudTrail's id of the event; `content-...` where it has none"),
        Column("event_name", "string", "eventName", "the API action"),
        Column("event_source", "string", "eventSource", "the AWS endpoint, e.g. s3.amazonaws.com"),
        Column("event_category", "string", "eventCategory", "Data, Management, Insight, ...; derived where absent"),
        Column("event_type", "string", "eventType", "AwsApiCall, AwsServiceEvent, ..."),
        Column("event_version", "string", "eventVersion", "version of the record format"),
        Column("aws_region", "string", "awsRegion", "region the call was made to"),
        Column("account_id", "string", "recipientAccountId", "account that received the event, else the caller's"),
        Column("principal_type", "string", "userIdentity.type", "AssumedRole, IAMUser, AWSService, AWSAccount, ..."),
        Column("principal_arn", "string", "userIdentity.arn", "ARN of the caller (of the session for a role)"),
        Column("principal_account", "string", "userIdentity.accountId", "account of the caller"),
        Column(
            "role_arn",
            "string",
            "userIdentity.sessionContext.sessionIssuer.arn",
            "role behind the event: session issuer, else the caller's ARN, else invokedBy; null if anonymous",
        ),
        Column("session_name", "string", "userIdentity.arn", "session name of an assumed role"),
        Column("access_key_id", "string", "userIdentity.accessKeyId", "access key that signed the call"),
        Column("invoked_by", "string", "userIdentity.invokedBy", "AWS service that made the call"),
        Column("source_ip", "string", "sourceIPAddress", "address, or the name of an AWS service"),
        Column("user_agent", "string", "userAgent", "client that made the call"),
        Column("error_code", "string", "errorCode", "null where the call succeeded"),
        Column("error_message", "string", "errorMessage", "AWS's text of the error"),
        Column("read_only", "bool", "readOnly", "whether the call only reads"),
        Column("resource_type", "string", "resources[].type", "type by which event selectors name the resource"),
        Column("resource_arn", "string", "resources[].ARN", "the bucket, function, (first) table ... that was touched"),
        Column("resource_arns", "list<string>", "resources[].ARN", "all buckets, functions, tables ... touched"),
        Column("resource_account", "string", "resources[].accountId", "account that owns the resource"),
        Column("object_key", "string", "requestParameters.key", "S3 key, or item key as JSON, inside the resource"),
        Column("bytes_in", "int64", "additionalEventData.bytesTransferredIn", "bytes sent to the service"),
        Column("bytes_out", "int64", "additionalEventData.bytesTransferredOut", "bytes sent to the caller"),
        Column("vpc_endpoint_id", "string", "vpcEndpointId", "VPC endpoint the call came through"),
        Column("request_id", "string", "requestID", "the service's own identity of the call"),
        Column("shared_event_id", "string", "sharedEventID", "same in all accounts that received the event"),
        Column("request_parameters", "string", "requestParameters", "JSON; without what a typed column holds"),
        Column("response_elements", "string", "responseElements", "JSON"),
        Column("additional_event_data", "string", "additionalEventData", "JSON; without what a typed column holds"),
        Column("resources", "string", "resources", "JSON; null where the typed columns say the same"),
        Column("rest", "string", "*", "JSON of everything else, userIdentity included"),
        Column("weight", "double", "", "how many original events this one stands for (1 when nothing was sampled)"),
        Column("log_object", "string", "", "log object it came from"),
        Column("year", "string", "eventTime", "partition: year of event_time in UTC, 4 digits"),
        Column("month", "string", "eventTime", "partition: month, 2 digits"),
        Column("day", "string", "eventTime", "partition: day of the month, 2 digits"),
        Column("service", "string", "eventSource", "partition: first label of event_source: s3, lambda, dynamodb, ..."),
    ),
    ("year", "month", "day", "service"),
    "event_time",
    ("role_arn", "event_time"),
)

HOUR_COLUMN = Column("hour", "string", "eventTime", "partition: hour of event_time in UTC, 2 digits")

#: ``events`` in a lake with the setting ``hourly_partitions``.
EVENTS_BY_HOUR = EVENTS._replace(
    columns=(*EVENTS.columns, HOUR_COLUMN), partition=("year", "month", "day", HOUR_COLUMN.name, "service")
)

HOURLY = Table(
    "hourly",
    "Exact counts by hour, whatever was dropped or sampled.",
    (
        Column("hour", "timestamp", "eventTime", "start of the hour (UTC)"),
        Column("account_id", "string", "recipientAccountId", "as in events"),
        Column("aws_region", "string", "awsRegion", "as in events"),
        Column("service", "string", "eventSource", "as in events"),
        Column("event_name", "string", "eventName", "as in events"),
        Column("role_arn", "string", "userIdentity", "as in events"),
        Column("resource_arn", "string", "resources", "as in events; `(other)` beyond the budget of a closed hour"),
        Column("error_code", "string", "errorCode", "as in events"),
        Column("read_only", "bool", "readOnly", "as in events"),
        Column("events", "int64", "", "number of events"),
        Column("bytes_in", "int64", "", "sum of bytes_in"),
        Column("bytes_out", "int64", "", "sum of bytes_out"),
        Column("source_ips", "list<int64>", "sourceIPAddress", "sketch of distinct source addresses"),
        Column("object_keys", "list<int64>", "requestParameters.key", "sketch of distinct object keys"),
        Column("first_time", "timestamp", "eventTime", "earliest event"),
        Column("last_time", "timestamp", "eventTime", "latest event"),
    ),
    (),
    "hour",
    ("role_arn", "hour"),
    (
        "hour",
        "account_id",
        "aws_region",
        "service",
        "event_name",
        "role_arn",
        "resource_arn",
        "error_code",
        "read_only",
    ),
)

USAGE = Table(
    "usage",
    "What each role did to what, by day and key pattern; exact.",
    (
        Column("day", "date", "eventTime", "day of event_time (UTC)"),
        Column("account_id", "string", "recipientAccountId", "as in events"),
        Column("role_arn", "string", "userIdentity", "as in events"),
        Column("service", "string", "eventSource", "as in events"),
        Column("event_name", "string", "eventName", "as in events"),
        Column("resource_arn", "string", "resources", "as in events"),
        Column("key_pattern", "string", "requestParameters.key", "object key with its variable parts replaced"),
        Column("error_code", "string", "errorCode", "as in events"),
        Column("events", "int64", "", "number of events"),
        Column("bytes_in", "int64", "", "sum of bytes_in"),
        Column("bytes_out", "int64", "", "sum of bytes_out"),
        Column("example_key", "string", "requestParameters.key", "smallest object key seen of the pattern"),
        Column("first_time", "timestamp", "eventTime", "earliest event"),
        Column("last_time", "timestamp", "eventTime", "latest event"),
    ),
    (),
    "day",
    ("role_arn", "day"),
    ("day", "account_id", "role_arn", "service", "event_name", "resource_arn", "key_pattern", "error_code"),
)

PROFILE = Table(
    "profile",
    "From where and as whom each role acts, by day; exact.",
    (
        Column("day", "date", "eventTime", "day of event_time (UTC)"),
        Column("account_id", "string", "recipientAccountId", "as in events"),
        Column("role_arn", "string", "userIdentity", "as in events"),
        Column("dimension", "string", "", "source_network, user_agent, vpc_endpoint, session_name, ..."),
        Column("value", "string", "", "the /24 or /48, agent family, endpoint, session or account"),
        Column("events", "int64", "", "number of events"),
        Column("bytes_out", "int64", "", "sum of bytes_out"),
        Column("denied", "int64", "", "number of events that were refused for lack of permission"),
        Column("first_time", "timestamp", "eventTime", "earliest event"),
        Column("last_time", "timestamp", "eventTime", "latest event"),
    ),
    (),
    "day",
    ("role_arn", "day"),
    ("day", "account_id", "role_arn", "dimension", "value"),
)

REJECTS = Table(
    "rejects",
    "What could not be stored, and why.",
    (
        Column("ingested_at", "timestamp", "", "when it was met (UTC)"),
        Column("log_object", "string", "", "log object it is in"),
        Column("position", "int64", "", "number of the record in its log object, from 0; -1 for the object as a whole"),
        Column("reason", "string", "", "what is wrong with it"),
        Column("raw", "string", "", "the raw text, up to 256 KB"),
    ),
    (),
    "ingested_at",
    ("log_object", "position"),
)

#: In the order in which a commit writes them.
TABLES: dict[str, Table] = {table.name: table for table in (EVENTS, HOURLY, USAGE, PROFILE, REJECTS)}


def tables_of(*, hourly_partitions: bool) -> dict[str, Table]:
    """The tables as a lake stores them."""
    return TABLES | {EVENTS.name: EVENTS_BY_HOUR} if hourly_partitions else TABLES


#: Values of ``profile.dimension``, in the order in which they are written.
PROFILE_DIMENSIONS = ("source_network", "user_agent", "vpc_endpoint", "session_name", "principal_account")

#: Hashes in a full sketch of distinct values: the smallest ones (k minimum values).
SKETCH_SIZE = 2048

#: Error codes that mean "refused for lack of permission" (counted in ``profile.denied``).
DENIED_CODES = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "Client.UnauthorizedOperation",
        "UnauthorizedOperation",
        "UnauthorizedAccess",
        "Forbidden",
        "AllAccessDisabled",
        "403",
    }
)
