"""The Athena engine: start a query, wait for it, stop it, and return its result as a ``Result``."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self
from zoneinfo import ZoneInfo

from trailsift.aws import client as aws_client
from trailsift.errors import EngineError, QueryError, TrailsiftError, UsageError
from trailsift.prices import Prices, athena_cost, load_prices
from trailsift.query.athena_tables import check_filled, missing_table
from trailsift.query.result import Result
from trailsift.query.trino_sql import Translated, translate
from trailsift.query.types import ColumnType, Row
from trailsift.times import micros

if TYPE_CHECKING:
    import pyarrow

    from trailsift.lake.index import SizedFile
    from trailsift.query.planner import Plan
    from trailsift.query.scan_estimate import ScanEstimate

#: The workgroup of the stack that `trailsift aws render` describes, under its default name.
WORKGROUP = "trailsift"
#: Seconds between two polls of a running query: at first, and at most.
FIRST_WAIT, LONGEST_WAIT = 0.25, 5.0

#: Athena's types -> DuckDB's, which a ``Result`` has.
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


class AthenaClient(Protocol):
    """The part of boto3's Athena client that is used."""

    def start_query_execution(self, **request: Any) -> dict[str, Any]: ...

    def get_query_execution(self, *, QueryExecutionId: str) -> dict[str, Any]: ...

    def get_query_results(self, **request: Any) -> dict[str, Any]: ...

    def stop_query_execution(self, *, QueryExecutionId: str) -> dict[str, Any]: ...

    def get_work_group(self, *, WorkGroup: str) -> dict[str, Any]: ...


class ScanCost(NamedTuple):
    """Bytes that a query read, and Athena's charge for them; None if the price of the region is not known."""

    bytes: int
    usd: float | None
    reused: bool

    def text(self, digits: int = 6) -> str:
        """Return the dollars in words."""
        return "price not known for this region: --prices" if self.usd is None else f"${self.usd:.{digits}f}"


def cost_of(scanned: int, reused: bool = False, price_list: Prices | None = None) -> ScanCost:
    """Return the price of scanning ``scanned`` bytes, by ``price_list`` or the built-in prices."""
    return ScanCost(scanned, 0.0 if reused else athena_cost(price_list or load_prices(), scanned), reused)


class AthenaExplanation(NamedTuple):
    """The statement that Athena would run, the bytes it would read, and the most it can cost; ``str()`` of it is JSON.

    ``files`` to ``usd``: None if the files of the tables are not known. ``usd_at_most``: None without a cutoff. Both
    dollars are None if the price of the region is not known.
    """

    sql: str
    partitions: list[str]
    files: int | None
    of_files: int | None
    bytes: int | None
    usd: float | None
    usd_at_most: float | None
    bytes_at_most: int | None

    def __str__(self) -> str:
        return json.dumps(self._asdict(), indent=2)


class Athena:
    """A workgroup of Athena and a database of our tables in it. Implements ``QueryEngine``.

    ``reuse``: use an earlier result of the same statement if it is at most this many minutes old; 0 runs it again.
    ``output``: where results are written in S3, if the workgroup does not set it. ``files_of``: the live files of a
    table and the bytes of their columns (``GlueCatalog.files``), for estimates. ``registered``: whether a table
    is that of a lake (``GlueCatalog.is_registered``): without a lake, Athena fills some of the tables only.
    """

    def __init__(
        self,
        workgroup: str = WORKGROUP,
        database: str = "trailsift",
        *,
        output: str | None = None,
        reuse: int = 60,
        timezone: str = "UTC",
        price_list: Prices | None = None,
        files_of: Callable[[str], Sequence[SizedFile]] | None = None,
        registered: Callable[[str], bool | None] | None = None,
        client: AthenaClient | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.workgroup = workgroup
        self.database = database
        self.output = output
        self.reuse = reuse
        self.timezone = timezone
        self.cost: ScanCost | None = None
        self._files_of = files_of
        self._registered = registered
        self._client: AthenaClient = client or aws_client.create_client("athena")
        self.prices = (price_list or load_prices()).of_region(aws_client.region_of(self._client))
        self._sleep = sleep

    def translated(self, sql: str) -> Translated:
        """Return the statement that Athena would run."""
        return translate(sql, self.database, self.timezone)

    def cutoff(self) -> ScanCost | None:
        """Return what one query can cost at most: the workgroup's cutoff. None if it has none."""
        with aws_client.aws_errors(f"reading the workgroup {self.workgroup}", aws_client.region_of(self._client)):
            answer = self._client.get_work_group(WorkGroup=self.workgroup)
        workgroup = answer.get("WorkGroup")
        if not workgroup:
            raise EngineError(f"Athena has no workgroup {self.workgroup} in this region: name one with --workgroup")
        cutoff = workgroup.get("Configuration", {}).get("BytesScannedCutoffPerQuery")
        return cost_of(cutoff, price_list=self.prices) if cutoff else None

    def query(self, sql: str) -> Result:
        """Run one statement to its end; ``cost`` then has what it read.

        Raise QueryError if it cannot be translated or Athena rejects it, EngineError if Athena fails or stops it.
        Ctrl-C stops the query in Athena too.
        """
        begun = perf_counter()
        translated = self.translated(sql)
        if self._registered is not None:
            check_filled(translated, self.database, self._registered)
        with aws_client.aws_errors(
            f"querying Athena in the workgroup {self.workgroup}", aws_client.region_of(self._client)
        ):
            query = self._start(translated.sql)
            try:
                state = self._wait(query)
            except BaseException:
                # It would keep running, and be charged.
                self._client.stop_query_execution(QueryExecutionId=query)
                raise
            self._judge(state)
            columns, rows = self._answer(query)
        result = Result(columns, ZoneInfo(self.timezone), self.timezone, 0, begun, _HeldRows())
        result.hold(rows)
        return result

    def sql(self, sql: str, parameters: Any = None) -> Result:
        """Run a statement of this package. Raise UsageError if it has parameters."""
        if parameters:
            raise UsageError("Athena takes no parameters: write the values into the statement")
        return self.query(sql)

    def estimate(self, sql: str) -> ScanEstimate:
        """Return what ``sql`` would read at most. Raise UsageError without ``files_of``, and whatever it raises."""
        if self._files_of is None:
            raise UsageError("the files of the tables are not known: give Athena files_of")
        from trailsift.query.scan_estimate import estimate_scan

        return estimate_scan(sql, self._files_of, self.timezone)

    def explain(self, sql: str) -> AthenaExplanation:
        """Return what Athena would run, what it would read, and what that can cost at most."""
        try:
            return self.explained(sql, self.estimate(sql))
        except TrailsiftError:
            return self.explained(sql, None)

    def explained(self, sql: str, estimate: ScanEstimate | None) -> AthenaExplanation:
        """Return the explanation of ``sql`` with an estimate that was made before; None if it cannot be made."""
        translated, most = self.translated(sql), self.cutoff()
        expected = None if estimate is None else cost_of(estimate.bytes, price_list=self.prices)
        return AthenaExplanation(
            sql=translated.sql,
            partitions=list(translated.partitions),
            files=None if estimate is None else estimate.files,
            of_files=None if estimate is None else estimate.of_files,
            bytes=None if expected is None else expected.bytes,
            usd=None if expected is None or expected.usd is None else round(expected.usd, 6),
            usd_at_most=None if most is None or most.usd is None else round(most.usd, 4),
            bytes_at_most=None if most is None else most.bytes,
        )

    def close(self) -> None:
        """Do nothing: a query ends before ``query`` returns, and Athena holds no session."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, sql: str) -> str:
        request: dict[str, Any] = {
            "QueryString": sql,
            "WorkGroup": self.workgroup,
            "QueryExecutionContext": {"Database": self.database},
            # Identifies this call, so that a retry by boto3 starts no second query.
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
            execution: dict[str, Any] = self._client.get_query_execution(QueryExecutionId=query)["QueryExecution"]
            if execution["Status"]["State"] not in ("QUEUED", "RUNNING"):
                return execution
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
        reason = str(status.get("StateChangeReason") or fault.get("ErrorMessage") or "no reason given")
        reason = missing_table(reason, self.database)
        if status["State"] == "CANCELLED":
            raise EngineError(
                f"Athena stopped the query: {reason}. It had read {self.cost.bytes:,} bytes ({self.cost.text(4)}): "
                "query a shorter period, or raise the workgroup's limit"
            )
        # 2: an error in the statement. https://docs.aws.amazon.com/athena/latest/ug/error-reference.html
        if fault.get("ErrorCategory") == 2 or "SYNTAX_ERROR" in reason or "_NOT_FOUND" in reason:
            raise QueryError(f"Athena rejects the statement: {reason}")
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


class _HeldRows:
    """The source of a result that is already in memory: it can read nothing again."""

    def plan(self) -> Plan:
        raise EngineError("a query on Athena has no local plan")

    def rows(self) -> tuple[Plan, Iterator[list[Row]]]:
        raise EngineError("a result from Athena cannot be fetched again")

    def arrow(self) -> tuple[Plan, pyarrow.RecordBatchReader]:
        raise EngineError("results from Athena come as table, JSON or CSV: use --format json")


def _type(kind: str) -> str:
    return "DECIMAL(38,9)" if kind.startswith("decimal") else _TYPES.get(kind, "VARCHAR")


def _value(text: str | None, kind: str) -> Any:
    """Return Athena's text as the value that a ``Result`` holds: times in microseconds, numbers as numbers."""
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
    """Return the microseconds of ``2026-03-02 10:30:00.000 UTC``, with or without a zone."""
    date, _, rest = text.partition(" ")
    clock, _, zone = rest.partition(" ")
    try:
        moment = datetime.fromisoformat(f"{date} {clock[:15]}")
        moment = moment.replace(tzinfo=ZoneInfo(zone) if zone else UTC)
    except (ValueError, KeyError):
        return text
    return micros(moment)
