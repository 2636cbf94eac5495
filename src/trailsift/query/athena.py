"""Questions run by Athena: started, waited for, stopped, and their answers as a ``Result``."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from trailsift.aws import client as calls
from trailsift.errors import EngineError, QueryError
from trailsift.prices import Price, athena_cost, load_prices
from trailsift.query.result import Result
from trailsift.query.trino_sql import Translated, translate
from trailsift.query.types import ColumnType, Row

if TYPE_CHECKING:
    import pyarrow

    from trailsift.query.planner import Plan
    from trailsift.query.scan_estimate import ScanEstimate

#: Seconds between two looks at a running query: the first, and the most.
FIRST_WAIT, LONGEST_WAIT = 0.25, 5.0

#: Athena's types -> DuckDB's, under which a ``Result`` is shown.
_TYPES = {
    "tinyint": "TINYINT",
    "smallint": "SMALLINT",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "real": "FLOAT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "timestamp with time zone": "TIMESTAMP WITH TIME ZONE",
}


class Client(Protocol):
    """What is needed of boto3's Athena client."""

    def start_query_execution(self, **request: Any) -> dict[str, Any]: ...

    def get_query_execution(self, *, QueryExecutionId: str) -> dict[str, Any]: ...

    def get_query_results(self, **request: Any) -> dict[str, Any]: ...

    def stop_query_execution(self, *, QueryExecutionId: str) -> dict[str, Any]: ...

    def get_work_group(self, *, WorkGroup: str) -> dict[str, Any]: ...


class Cost(NamedTuple):
    """What a query read and what Athena asks for that."""

    bytes: int
    usd: float
    reused: bool


def cost_of(scanned: int, reused: bool = False, known: dict[str, Price] | None = None) -> Cost:
    """The price of bytes that are scanned; ``known`` prices, the shipped ones by default."""
    return Cost(scanned, 0.0 if reused else athena_cost(known or load_prices(), scanned), reused)


class Athena:
    """A workgroup of Athena and a database of our tables in it.

    ``reuse``: minutes for which an earlier answer to the same statement is good enough; 0 asks again.
    ``output``: where answers go in S3, where the workgroup does not say.
    """

    def __init__(
        self,
        workgroup: str = "primary",
        database: str = "trailsift",
        *,
        output: str | None = None,
        reuse: int = 60,
        timezone: str = "UTC",
        known: dict[str, Price] | None = None,
        client: Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.workgroup = workgroup
        self.database = database
        self.output = output
        self.reuse = reuse
        self.timezone = timezone
        self.cost: Cost | None = None
        self.prices = known or load_prices()
        self._client: Client = client or calls.create_client("athena")
        self._sleep = sleep

    def translated(self, sql: str) -> Translated:
        """What Athena would be asked."""
        return translate(sql, self.database)

    def most(self) -> Cost | None:
        """What one query can cost at most: the workgroup's cutoff. None where it has none."""
        with calls.aws_errors(f"reading the workgroup {self.workgroup}", calls.region_of(self._client)):
            answer = self._client.get_work_group(WorkGroup=self.workgroup)
        found = answer.get("WorkGroup")
        if not found:
            raise EngineError(f"Athena has no workgroup {self.workgroup} here: name one with --workgroup")
        cutoff = found.get("Configuration", {}).get("BytesScannedCutoffPerQuery")
        return cost_of(cutoff, known=self.prices) if cutoff else None

    def query(self, sql: str) -> Result:
        """Runs one statement to its end. ``cost`` says afterwards what it read.

        QueryError where it cannot be translated or Athena refuses it, EngineError where Athena fails or stops it.
        Ctrl-C stops it there too.
        """
        begun = perf_counter()
        translated = self.translated(sql)
        with calls.aws_errors(f"asking Athena in the workgroup {self.workgroup}", calls.region_of(self._client)):
            query = self._start(translated.sql)
            try:
                state = self._wait(query)
            except BaseException:
                # It would run on, and be charged.
                self._client.stop_query_execution(QueryExecutionId=query)
                raise
            self._judge(state)
            columns, rows = self._answer(query)
        result = Result(columns, ZoneInfo(self.timezone), self.timezone, 0, begun, _Nothing())
        result.hold(rows)
        return result

    def _start(self, sql: str) -> str:
        request: dict[str, Any] = {
            "QueryString": sql,
            "WorkGroup": self.workgroup,
            "QueryExecutionContext": {"Database": self.database},
            # Names this call, so that a retry of boto3's starts no second query.
            "ClientRequestToken": hashlib.sha256(uuid.uuid4().bytes).hexdigest(),
        }
        if self.output:
            request["ResultConfiguration"] = {"OutputLocation": self.output}
        if self.reuse:
            age = {"Enabled": True, "MaxAgeInMinutes": min(self.reuse, 10_080)}
            request["ResultReuseConfiguration"] = {"ResultReuseByAgeConfiguration": age}
        return str(self._client.start_query_execution(**request)["QueryExecutionId"])

    def _wait(self, query: str) -> dict[str, Any]:
        wait = FIRST_WAIT
        while True:
            found: dict[str, Any] = self._client.get_query_execution(QueryExecutionId=query)["QueryExecution"]
            if found["Status"]["State"] not in ("QUEUED", "RUNNING"):
                return found
            self._sleep(wait)
            wait = min(wait * 1.5, LONGEST_WAIT)

    def _judge(self, execution: dict[str, Any]) -> None:
        statistics = execution.get("Statistics", {})
        reused = statistics.get("ResultReuseInformation", {}).get("ReusedPreviousResult", False)
        self.cost = cost_of(int(statistics.get("DataScannedInBytes", 0)), bool(reused), self.prices)
        status = execution["Status"]
        if status["State"] == "SUCCEEDED":
            return
        fault = status.get("AthenaError", {})
        reason = str(status.get("StateChangeReason") or fault.get("ErrorMessage") or "it gives no reason")
        if status["State"] == "CANCELLED":
            raise EngineError(
                f"Athena stopped the query: {reason}. It had read {self.cost.bytes:,} bytes (${self.cost.usd:.4f}): "
                "name a shorter time, or raise the workgroup's limit"
            )
        # 2: the statement's fault. https://docs.aws.amazon.com/athena/latest/ug/error-reference.html
        if fault.get("ErrorCategory") == 2 or "SYNTAX_ERROR" in reason or "_NOT_FOUND" in reason:
            raise QueryError(f"Athena refuses the statement: {reason}")
        raise EngineError(f"Athena failed: {reason}")

    def _answer(self, query: str) -> tuple[list[ColumnType], list[Row]]:
        columns: list[ColumnType] = []
        kinds: list[str] = []
        rows: list[Row] = []
        for page in self._pages(query):
            described = page["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]
            data = page["ResultSet"].get("Rows", [])
            if not columns:
                kinds = [column["Type"].lower() for column in described]
                columns = [(column["Name"], _type(kind)) for column, kind in zip(described, kinds, strict=True)]
                # The first row of the first page is the header.
                data = data[1:]
            for row in data:
                texts = [cell.get("VarCharValue") for cell in row.get("Data", [])]
                rows.append(tuple(map(_value, texts, kinds)))
        return columns, rows

    def _pages(self, query: str) -> Iterator[dict[str, Any]]:
        request: dict[str, Any] = {"QueryExecutionId": query, "MaxResults": 1000}
        while True:
            page = self._client.get_query_results(**request)
            yield page
            if not page.get("NextToken"):
                return
            request["NextToken"] = page["NextToken"]


class _Nothing:
    """What a held answer reads from: it never does."""

    def plan(self) -> Plan:
        raise EngineError("a query on Athena has no plan here")

    def rows(self) -> tuple[Plan, Iterator[list[Row]]]:
        raise EngineError("an answer of Athena is read once")

    def arrow(self) -> tuple[Plan, pyarrow.RecordBatchReader]:
        raise EngineError("answers of Athena come as table, JSON or CSV: use --format json")


def _type(kind: str) -> str:
    return "DECIMAL(38,9)" if kind.startswith("decimal") else _TYPES.get(kind, "VARCHAR")


def _value(text: str | None, kind: str) -> Any:
    """What Athena writes, as a ``Result`` holds it: times in microseconds, numbers as numbers."""
    if text is None:
        return None
    if kind in ("tinyint", "smallint", "integer", "bigint"):
        return int(text)
    if kind in ("real", "float", "double"):
        return float(text)
    if kind == "boolean":
        return text.lower() == "true"
    if kind.startswith("timestamp"):
        return _micros(text)
    return text


def _micros(text: str) -> Any:
    """``2026-03-02 10:30:00.000 UTC``, with or without a zone."""
    date, _, rest = text.partition(" ")
    clock, _, zone = rest.partition(" ")
    try:
        moment = datetime.fromisoformat(f"{date} {clock[:15]}")
        moment = moment.replace(tzinfo=ZoneInfo(zone) if zone else UTC)
    except (ValueError, KeyError):
        return text
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def explained(athena: Athena, sql: str, reckoned: ScanEstimate | None) -> str:
    """What Athena would be asked, what it would read, and what that can cost at most, as JSON."""
    translated, most = athena.translated(sql), athena.most()
    expected = None if reckoned is None else cost_of(reckoned.bytes, known=athena.prices)
    return json.dumps(
        {
            "sql": translated.sql,
            "partitions": list(translated.partitions),
            "files": None if reckoned is None else reckoned.files,
            "of_files": None if reckoned is None else reckoned.of_files,
            "bytes": None if expected is None else expected.bytes,
            "usd": None if expected is None else round(expected.usd, 6),
            "usd_at_most": None if most is None else round(most.usd, 4),
            "bytes_at_most": None if most is None else most.bytes,
        },
        indent=2,
    )
