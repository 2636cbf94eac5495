"""Statements for Athena, ready to paste: create, fill, summarize, maintain and query the tables of ``tables``.

All are Trino's SQL as Athena accepts it. Statements that may be run twice say so, and change nothing the second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import NamedTuple

from trailsift import schema
from trailsift.deploy import tables
from trailsift.deploy.raw_columns import FROM_RAW, events_select
from trailsift.deploy.tables import StackConfig
from trailsift.errors import UsageError

#: A statement writes at most this many partitions. https://docs.aws.amazon.com/athena/latest/ug/ctas-insert-into.html
PARTITIONS = 100
#: Hashes in a full sketch (``summarize.SKETCH_SIZE``).
SKETCH_SIZE = 2048


class AthenaStatement(NamedTuple):
    """One statement: its name, its purpose, and its text without a semicolon."""

    name: str
    meaning: str
    text: str


#: Services with data events that one account is expected to use on one day: ``chunks`` keeps so many partitions a day.
SERVICES_PER_DAY = 8
#: CloudTrail attempts a delivery for this many days.
#: https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-concepts.html
REDELIVERY = timedelta(days=30)


def statements(config: StackConfig, until: date | None = None, since: date | None = None) -> list[AthenaStatement]:
    """Return all statements in the order of their use.

    ``load`` and ``hourly`` cover what was delivered from ``since`` (default: ``config.since``) to ``until`` (exclusive;
    default: 34 days later). Raise UsageError if that is not a period.
    """
    since = since or config.since
    until = until or since + timedelta(days=34)
    if until <= since:
        raise UsageError(f"the load would begin on {since} and end on {until}: --to must be after --from")
    return [
        AthenaStatement(
            "database", "the database; the template creates it too: deploy that first", tables.database(config)
        ),
        AthenaStatement("raw", "CloudTrail's log files in place; new days need no crawler", tables.raw(config)),
        AthenaStatement(
            "accounts", "after new accounts or regions came: pass all of them", tables.raw_partitions(config)
        ),
        AthenaStatement("landing", "the files that the Firehose transformation lands", tables.landing(config)),
        *(
            AthenaStatement(f"lake_{table.name}", f"Iceberg: {table.meaning}", tables.iceberg(config, table))
            for table in (schema.EVENTS, schema.HOURLY)
        ),
        *_load(config, since, until),
        *_hourly(config, since, until),
        _summary(config),
        *_maintain(config),
        *_examples(config),
    ]


# -- events ----------------------------------------------------------------------------------------------------------


def chunks(since: date, until: date, services: int = SERVICES_PER_DAY) -> Iterator[tuple[date, date]]:
    """Yield spans of days short enough that no statement writes more than ``PARTITIONS``.

    A day has a partition per service, and the log files of a day also hold events of the day before.
    """
    days = max(PARTITIONS // services - 1, 1)
    while since < until:
        end = min(since + timedelta(days=days), until)
        yield since, end
        since = end


def _select(config: StackConfig, since: date, until: date) -> str:
    """Select the distinct data events of some days of delivery: two trails deliver the same event twice."""
    delivered = f"day >= '{since:%Y/%m/%d}' AND day < '{until:%Y/%m/%d}'"
    events = events_select(f"{config.database}.cloudtrail_raw", delivered)
    return (
        f"SELECT {', '.join(FROM_RAW)}\nFROM (\n"
        "  SELECT *, row_number() OVER (PARTITION BY event_id ORDER BY log_object) AS copy\n"
        f"  FROM (\n{events}\n  ) AS mapped\n  WHERE event_category = 'Data' AND {_span('event_time', since, until)}\n"
        ") AS numbered\nWHERE copy = 1"
    )


def _span(column: str, since: date, until: date) -> str:
    """Return the condition that an event can have been delivered in a period: not after it, nor too long before."""
    return (
        f"{column} >= TIMESTAMP '{since - REDELIVERY - timedelta(days=1)} 00:00:00'"
        f" AND {column} < TIMESTAMP '{until + timedelta(days=1)} 00:00:00'"
    )


def _load(config: StackConfig, since: date, until: date) -> list[AthenaStatement]:
    """MERGE, and no INSERT: a second run adds nothing. Both sides are bounded by literals, which prune partitions."""
    names = ", ".join(FROM_RAW)
    values = ", ".join(f"new.{name}" for name in FROM_RAW)
    same = " AND ".join(f"known.{name} = new.{name}" for name in ("event_id", "year", "month", "day", "service"))
    loads = []
    for number, (start, end) in enumerate(chunks(since, until), 1):
        begin, last = start - REDELIVERY - timedelta(days=1), end
        bounds = f"known.year BETWEEN '{begin:%Y}' AND '{last:%Y}' AND {_span('known.event_time', start, end)}"
        loads.append(
            AthenaStatement(
                "load" if number == 1 else f"load_{number}",
                f"the data events that were delivered from {start} until {end}, each once; a second run adds nothing. "
                f"At most {PARTITIONS} partitions per statement: for TOO_MANY_OPEN_PARTITIONS, give fewer days. "
                "Callers and categories by the rules of `trailsift ingest`, except that a member that is not a text in "
                "the record counts as its text",
                f"MERGE INTO {config.database}.events AS known\nUSING (\n{_select(config, start, end)}\n) AS new\n"
                f"ON {same}\n  AND {bounds}\nWHEN NOT MATCHED THEN INSERT ({names})\nVALUES ({values})",
            )
        )
    return loads


# -- summaries -------------------------------------------------------------------------------------------------------


def sketch(column: str) -> str:
    """Return the sketch of a column's distinct values: the hashes of ``summarize.hash64``, so all sketches merge."""
    hashed = f"from_big_endian_64(substr(md5(to_utf8({column})), 1, 8))"
    # Not by array_agg and slice, which would hold every hash of a line in one array first.
    # https://trino.io/docs/current/functions/aggregate.html#min
    smallest = f"min(DISTINCT {hashed}, {SKETCH_SIZE}) FILTER (WHERE {column} IS NOT NULL)"
    return f"array_sort(coalesce({smallest}, CAST(ARRAY[] AS array(bigint))))"


def summary_select(source: str, where: str) -> str:
    """Return the SELECT that summarizes rows of ``events`` as rows of ``hourly``."""
    keys = schema.HOURLY.keys
    values = {
        "hour": "date_trunc('hour', event_time)",
        "category": "event_category",
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


def _hourly(config: StackConfig, since: date, until: date) -> list[AthenaStatement]:
    names = [column.name for column in schema.HOURLY.columns]
    same = "\n  AND ".join(_same(schema.HOURLY.column(name)) for name in schema.HOURLY.keys)
    changed = ", ".join(f"{name} = new.{name}" for name in names if name not in schema.HOURLY.keys)
    lines = []
    for number, (start, end) in enumerate(chunks(since, until), 1):
        # A day's log files hold events of the evening before.
        low, high = (f"TIMESTAMP '{day} 00:00:00'" for day in (start - timedelta(days=1), end))
        span = f"event_time >= {low} AND event_time < {high}"
        lines.append(
            AthenaStatement(
                "hourly" if number == 1 else f"hourly_{number}",
                f"the hours from the day before {start} until {end}, updated if late events changed them; a second run "
                "changes nothing. For events that came more than a day late, run it with --from of their day",
                f"MERGE INTO {config.database}.hourly AS known\n"
                f"USING (\n{summary_select(f'{config.database}.events', span)}\n) AS new\n"
                f"ON {same}\n  AND known.hour >= {low} AND known.hour < {high}\n"
                f"WHEN MATCHED THEN UPDATE SET {changed}\n"
                f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)})\n"
                f"VALUES ({', '.join(f'new.{name}' for name in names)})",
            )
        )
    return lines


#: Keys that are never NULL.
_FILLED = ("hour", "caller", "category")


def _same(column: schema.Column) -> str:
    """Return the condition that a key is the same in a known row and in a new one, NULL being equal to NULL.

    Not by IS NOT DISTINCT FROM: Trino may then find no match for NULL, and a second run would insert every row again.
    https://github.com/trinodb/trino/issues/25943, https://github.com/trinodb/trino/issues/26257
    """
    known, new = f"known.{column.name}", f"new.{column.name}"
    if column.name in _FILLED:
        return f"{known} = {new}"
    empty = "false" if column.type == "bool" else "''"
    return f"coalesce({known}, {empty}) = coalesce({new}, {empty}) AND ({known} IS NULL) = ({new} IS NULL)"


def distinct(merged: str) -> str:
    """Return the expression for the number of distinct values in a merged sketch: exact until it is full."""
    kth = f"(CAST(element_at({merged}, {SKETCH_SIZE}) AS double) + 9223372036854775809e0)"
    estimate = f"CAST(round({SKETCH_SIZE - 1} / ({kth} / 18446744073709551616e0)) AS bigint)"
    return f"if(cardinality({merged}) < {SKETCH_SIZE}, cardinality({merged}), {estimate})"


def _summary(config: StackConfig) -> AthenaStatement:
    merge = f"slice(array_sort(array_distinct(flatten(array_agg(source_ips)))), 1, {SKETCH_SIZE})"
    return AthenaStatement(
        "summary",
        "calls and distinct addresses per hour and action; addresses add up over hours, because sketches are merged",
        f"CREATE OR REPLACE VIEW {config.database}.hourly_summary AS\n"
        f"SELECT hour, eventname, event_count, {distinct('ips')} AS unique_ips\nFROM (\n"
        "  SELECT hour, event_name AS eventname, sum(events) AS event_count,\n"
        f"    {merge} AS ips\n  FROM {config.database}.hourly\n  GROUP BY 1, 2\n) AS merged",
    )


# -- maintenance and example queries ---------------------------------------------------------------------------------


def _maintain(config: StackConfig) -> list[AthenaStatement]:
    maintenance = []
    for name in ("events", "hourly"):
        table = f"{config.database}.{name}"
        packed = f"OPTIMIZE {table} REWRITE DATA USING BIN_PACK"
        maintenance.append(AthenaStatement(f"optimize_{name}", "merge small files", packed))
        vacuum = "delete files that no snapshot needs any longer"
        maintenance.append(AthenaStatement(f"vacuum_{name}", vacuum, f"VACUUM {table}"))
    return maintenance


def _examples(config: StackConfig) -> list[AthenaStatement]:
    day = config.since
    common = "AND event_name IN ('GetObject', 'PutObject', 'DeleteObject')\nORDER BY event_time DESC\nLIMIT 1000"
    columns = "event_time, event_name, principal_type, role_arn, source_ip, resource_arn, object_key"
    partitions = f"year = '{day:%Y}' AND month = '{day:%m}' AND day = '{day:%d}' AND service = 's3'"
    regions = ", ".join(f"'{region}'" for region in config.regions)
    accounts = ", ".join(f"'{account}'" for account in config.accounts)
    raw = (
        "SELECT eventtime, eventname, useridentity.type AS user_type, sourceipaddress,\n"
        "  element_at(resources, 1).arn AS resource\n"
        f"FROM {config.database}.cloudtrail_raw\n"
        f"WHERE account IN ({accounts}) AND region IN ({regions}) AND day = '{day:%Y/%m/%d}'\n"
        "  AND eventcategory = 'Data' AND eventsource = 's3.amazonaws.com'\n"
        "  AND eventname IN ('GetObject', 'PutObject', 'DeleteObject')\nORDER BY eventtime DESC\nLIMIT 1000"
    )
    examples = [AthenaStatement("ask_raw", "one day of S3 calls from the log files: reads that whole day", raw)]
    for name in ("landing", "events"):
        text = f"SELECT {columns}\nFROM {config.database}.{name}\nWHERE {partitions}\n{common}"
        meaning = f"the same from {name}: reads one service's partition of that day"
        examples.append(AthenaStatement(f"ask_{name}", meaning, text))
    return examples


def script(statements: list[AthenaStatement]) -> str:
    """Return the statements as one script, each under a comment with its purpose."""
    return "\n".join(f"-- {statement.name}: {statement.meaning}\n{statement.text};\n" for statement in statements)
