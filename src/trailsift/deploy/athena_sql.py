"""Statements for Athena, ready to paste: the tables of ``tables``, and what fills, sums up, keeps and asks them.

All are Trino's SQL as Athena takes it. What could be run twice says so and changes nothing the second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

from trailsift import schema
from trailsift.aws.selectors import SERVICES
from trailsift.deploy import tables
from trailsift.deploy.tables import StackConfig
from trailsift.errors import UsageError

#: CTAS and INSERT write at most so many partitions. https://docs.aws.amazon.com/athena/latest/ug/ctas-insert-into.html
PARTITIONS = 100
#: Smallest hashes in a full sketch (``summarize.SKETCH_SIZE``).
SKETCH_SIZE = 2048


class Statement(NamedTuple):
    """One statement: what it is called, what it is for, and its text without a semicolon."""

    name: str
    meaning: str
    text: str


_TIME = "CAST(from_iso8601_timestamp(eventtime) AS timestamp)"
_PARAMETER = "json_extract_scalar(requestparameters, '$.{}')"
_BYTES = "CAST(CAST(json_extract_scalar(additionaleventdata, '$.{}') AS double) AS bigint)"
_BUCKET = "element_at(filter(resources, r -> r.type LIKE '%::Bucket'), 1)"

#: Columns of ``events`` as they come from the raw table. What is not here stays in the log files.
FROM_RAW: dict[str, str] = {
    "event_time": _TIME,
    "event_id": "eventid",
    "event_name": "eventname",
    "event_source": "eventsource",
    "event_category": "coalesce(eventcategory, if(managementevent = 'false', 'Data', 'Management'))",
    "event_type": "eventtype",
    "event_version": "eventversion",
    "aws_region": "awsregion",
    "account_id": "coalesce(recipientaccountid, useridentity.accountid)",
    "principal_type": "useridentity.type",
    "principal_arn": "useridentity.arn",
    "principal_account": "useridentity.accountid",
    "role_arn": "coalesce(useridentity.sessioncontext.sessionissuer.arn, useridentity.arn, useridentity.invokedby)",
    "session_name": (
        "if(regexp_like(useridentity.arn, ':assumed-role/|:federated-user/'),"
        " regexp_extract(useridentity.arn, '[^/]*$'))"
    ),
    "access_key_id": "useridentity.accesskeyid",
    "invoked_by": "useridentity.invokedby",
    "source_ip": "sourceipaddress",
    "user_agent": "useragent",
    "error_code": "errorcode",
    "error_message": "errormessage",
    "read_only": "CAST(readonly AS boolean)",
    "resource_type": "element_at(resources, 1).type",
    "resource_arn": f"coalesce({_BUCKET}.arn, element_at(resources, 1).arn)",
    "resource_account": f"coalesce({_BUCKET}.accountid, element_at(resources, 1).accountid)",
    "object_key": (
        f"coalesce({_PARAMETER.format('key')}, json_format(json_extract(requestparameters, '$.key')),"
        f" if(eventname LIKE 'List%', nullif({_PARAMETER.format('prefix')}, '')))"
    ),
    "bytes_in": _BYTES.format("bytesTransferredIn"),
    "bytes_out": _BYTES.format("bytesTransferredOut"),
    "vpc_endpoint_id": "vpcendpointid",
    "request_id": "requestid",
    "shared_event_id": "sharedeventid",
    "request_parameters": "requestparameters",
    "response_elements": "responseelements",
    "additional_event_data": "additionaleventdata",
    "weight": "CAST(1 AS double)",
    "log_object": '"$path"',
    "year": f"date_format({_TIME}, '%Y')",
    "month": f"date_format({_TIME}, '%m')",
    "day": f"date_format({_TIME}, '%d')",
    "service": "split_part(eventsource, '.', 1)",
}


def statements(place: StackConfig, until: date | None = None) -> list[Statement]:
    """All of them, in the order in which they are used. The columnar copy reaches from ``place.since`` to ``until``
    (not included; default: 34 days). UsageError where that is no span of time."""
    until = until or place.since + timedelta(days=34)
    if until <= place.since:
        raise UsageError(f"the copy would end on {until} and begin on {place.since}")
    make = [Statement("database", "the database", tables.database(place))]
    make.append(Statement("raw", "CloudTrail's log files where they are; new days need no crawler", tables.raw(place)))
    make.append(Statement("landing", "what the Firehose transformation lands", tables.landing(place)))
    make += [
        Statement(f"lake_{table.name}", f"Iceberg: {table.meaning}", tables.iceberg(place, table))
        for table in schema.TABLES.values()
    ]
    return [*make, *_copy(place, until), _merge(place, until), _hourly(place, until), _summary(place), *_keep(place),
            *_ask(place)]  # fmt: skip


# -- the columnar copy -----------------------------------------------------------------------------------------------


def chunks(since: date, until: date, services: int) -> Iterator[tuple[date, date]]:
    """Days shared out so that no statement writes more than ``PARTITIONS``: a day has one for each service, and the
    log files of a day also hold events of the day before."""
    days = max(PARTITIONS // services - 1, 1)
    while since < until:
        end = min(since + timedelta(days=days), until)
        yield since, end
        since = end


def _data_services(place: StackConfig) -> list[str]:
    """The services that there are data events of."""
    return [name for name in place.services if name in SERVICES] or list(place.services)


def _copied() -> str:
    return ",\n".join(f"  {expression} AS {name}" for name, expression in FROM_RAW.items())


def _delivered(since: date, until: date) -> str:
    return f"day >= '{since:%Y/%m/%d}' AND day < '{until:%Y/%m/%d}'"


def _select(place: StackConfig, since: date, until: date, known: str = "") -> str:
    """Distinct data events of some days of delivery: two trails deliver the same event twice."""
    services = ", ".join(f"'{name}'" for name in _data_services(place))
    names = ", ".join(FROM_RAW)
    return (
        f"SELECT {names}\nFROM (\n"
        "  SELECT *, row_number() OVER (PARTITION BY event_id ORDER BY log_object) AS copy\n"
        f"  FROM (\nSELECT\n{_copied()}\nFROM {place.database}.cloudtrail_raw\n"
        f"WHERE {_delivered(since, until)}\n  AND split_part(eventsource, '.', 1) IN ({services})\n"
        "  ) AS mapped\n  WHERE event_category = 'Data'\n) AS numbered\nWHERE copy = 1" + known
    )


def _copy(place: StackConfig, until: date) -> list[Statement]:
    parts = list(chunks(place.since, until, len(_data_services(place))))
    first, *others = parts
    name = f"{place.database}.events_columnar"
    made = [
        Statement(
            "columnar",
            "a columnar copy of the log files, events once each; Parquet, ZSTD",
            f"CREATE TABLE {name}\nWITH (\n  format = 'PARQUET',\n  write_compression = 'ZSTD',\n"
            f"  external_location = '{place.folder('columnar')}',\n"
            "  partitioned_by = ARRAY['year', 'month', 'day', 'service']\n) AS\n" + _select(place, *first),
        )
    ]
    for number, (since, end) in enumerate(others, 2):
        # Files of a day hold events of that day and a few of the days before.
        days = [since - timedelta(days=1) + timedelta(days=at) for at in range((end - since).days + 1)]
        wanted = ", ".join(f"('{day:%Y}', '{day:%m}', '{day:%d}')" for day in days)
        known = (
            f"\n  AND event_id NOT IN (\n    SELECT event_id FROM {name}\n"
            f"    WHERE (year, month, day) IN ({wanted}) AND event_id IS NOT NULL\n  )"
        )
        meaning = f"the next days, at most {PARTITIONS} partitions at once; a second run adds nothing"
        text = f"INSERT INTO {name}\n{_select(place, since, end, known)}"
        made.append(Statement(f"columnar_{number}", meaning, text))
    return made


def _merge(place: StackConfig, until: date) -> Statement:
    names = ", ".join(FROM_RAW)
    values = ", ".join(f"new.{name}" for name in FROM_RAW)
    same = " AND ".join(f"known.{name} = new.{name}" for name in ("event_id", "year", "month", "day", "service"))
    since = max(place.since, until - timedelta(days=1))
    return Statement(
        "merge",
        "one day's new events into the Iceberg table; a second run adds nothing",
        f"MERGE INTO {place.database}.events AS known\nUSING (\n{_select(place, since, until)}\n) AS new\n"
        f"ON {same}\nWHEN NOT MATCHED THEN INSERT ({names})\nVALUES ({values})",
    )


# -- summaries -------------------------------------------------------------------------------------------------------


def sketch(column: str) -> str:
    """The sketch of a column's distinct values, the same hashes as ``summarize.hash64``; merges with every other."""
    hashed = f"from_big_endian_64(substr(md5(to_utf8({column})), 1, 8))"
    found = f"array_agg(DISTINCT {hashed}) FILTER (WHERE {column} IS NOT NULL)"
    return f"slice(array_sort(coalesce({found}, CAST(ARRAY[] AS array(bigint)))), 1, {SKETCH_SIZE})"


def summarized(source: str, where: str) -> str:
    """Lines of ``hourly`` from rows of ``events``."""
    keys = schema.HOURLY.keys
    values = {
        "hour": "date_trunc('hour', event_time)",
        "events": "CAST(round(sum(weight)) AS bigint)",
        "bytes_in": "CAST(round(coalesce(sum(bytes_in * weight), 0)) AS bigint)",
        "bytes_out": "CAST(round(coalesce(sum(bytes_out * weight), 0)) AS bigint)",
        "source_ips": sketch("source_ip"),
        "object_keys": sketch("object_key"),
        "first_time": "min(event_time)",
        "last_time": "max(event_time)",
    }
    columns = ",\n".join(f"  {values.get(c.name, c.name)} AS {c.name}" for c in schema.HOURLY.columns)
    groups = ", ".join(str(number) for number, c in enumerate(schema.HOURLY.columns, 1) if c.name in keys)
    return f"SELECT\n{columns}\nFROM {source}\nWHERE {where}\nGROUP BY {groups}"


def _hourly(place: StackConfig, until: date) -> Statement:
    since = until - timedelta(days=2)
    names = [column.name for column in schema.HOURLY.columns]
    same = " AND ".join(f"known.{name} IS NOT DISTINCT FROM new.{name}" for name in schema.HOURLY.keys)
    changed = ", ".join(f"{name} = new.{name}" for name in names if name not in schema.HOURLY.keys)
    span = f"event_time >= TIMESTAMP '{since} 00:00:00' AND event_time < TIMESTAMP '{until} 00:00:00'"
    return Statement(
        "hourly",
        "the hours of two days, again where late events changed them; any later run gives the same lines. For events "
        "that Athena brought in: `trailsift ingest` writes its own, exact also where events were dropped",
        f"MERGE INTO {place.database}.hourly AS known\n"
        f"USING (\n{summarized(f'{place.database}.events', span)}\n) AS new\n"
        f"ON {same}\nWHEN MATCHED THEN UPDATE SET {changed}\n"
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)})\nVALUES ({', '.join(f'new.{name}' for name in names)})",
    )


def distinct(merged: str) -> str:
    """How many distinct values a merged sketch stands for: exact while it is not full."""
    kth = f"(CAST(element_at({merged}, {SKETCH_SIZE}) AS double) + 9223372036854775809e0)"
    estimate = f"CAST(round({SKETCH_SIZE - 1} / ({kth} / 18446744073709551616e0)) AS bigint)"
    return f"if(cardinality({merged}) < {SKETCH_SIZE}, cardinality({merged}), {estimate})"


def _summary(place: StackConfig) -> Statement:
    merge = f"slice(array_sort(array_distinct(flatten(array_agg(source_ips)))), 1, {SKETCH_SIZE})"
    return Statement(
        "summary",
        "calls and distinct addresses by hour and action; addresses add up over hours, because sketches are merged",
        f"CREATE OR REPLACE VIEW {place.database}.hourly_summary AS\n"
        f"SELECT hour, eventname, event_count, {distinct('ips')} AS unique_ips\nFROM (\n"
        "  SELECT hour, event_name AS eventname, sum(events) AS event_count,\n"
        f"    {merge} AS ips\n  FROM {place.database}.hourly\n  GROUP BY 1, 2\n) AS merged",
    )


# -- keeping and asking ----------------------------------------------------------------------------------------------


def _keep(place: StackConfig) -> list[Statement]:
    made = []
    for name in ("events", "hourly"):
        table = f"{place.database}.{name}"
        packed = f"OPTIMIZE {table} REWRITE DATA USING BIN_PACK"
        made.append(Statement(f"optimize_{name}", "many small files become few", packed))
        made.append(Statement(f"vacuum_{name}", "what no snapshot needs any more is deleted", f"VACUUM {table}"))
    return made


def _ask(place: StackConfig) -> list[Statement]:
    day = place.since
    common = "AND event_name IN ('GetObject', 'PutObject', 'DeleteObject')\nORDER BY event_time DESC\nLIMIT 1000"
    columns = "event_time, event_name, principal_type, role_arn, source_ip, resource_arn, object_key"
    partitions = f"year = '{day:%Y}' AND month = '{day:%m}' AND day = '{day:%d}' AND service = 's3'"
    regions = ", ".join(f"'{region}'" for region in place.regions)
    accounts = ", ".join(f"'{account}'" for account in place.accounts)
    raw = (
        "SELECT eventtime, eventname, useridentity.type AS user_type, sourceipaddress,\n"
        "  element_at(resources, 1).arn AS resource\n"
        f"FROM {place.database}.cloudtrail_raw\n"
        f"WHERE account IN ({accounts}) AND region IN ({regions}) AND day = '{day:%Y/%m/%d}'\n"
        "  AND eventcategory = 'Data' AND eventsource = 's3.amazonaws.com'\n"
        "  AND eventname IN ('GetObject', 'PutObject', 'DeleteObject')\nORDER BY eventtime DESC\nLIMIT 1000"
    )
    made = [Statement("ask_raw", "one day of S3 calls, from the log files: reads all of that day", raw)]
    for name in ("landing", "events_columnar", "events"):
        text = f"SELECT {columns}\nFROM {place.database}.{name}\nWHERE {partitions}\n{common}"
        made.append(Statement(f"ask_{name}", f"the same from {name}: reads one service's partition of that day", text))
    return made


def script(made: list[Statement]) -> str:
    """The statements one after the other, each with what it is for."""
    return "\n".join(f"-- {one.name}: {one.meaning}\n{one.text};\n" for one in made)
