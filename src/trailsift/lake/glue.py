"""Tables of a lake in S3 in a Glue database: their pointers follow the lake's commits, for Athena, Spark and Trino.

The lake is the truth, and Glue follows: a commit is made whether Glue can be reached or not. Each table in Glue carries
the lake's URL, the number of the commit that it points to, and the pointer itself. So a writer that is late never moves
a pointer back, and what another engine has changed is noticed and not overwritten. Glue's own lock (a table's version)
orders writers on several machines.

``lake.json`` may come from somebody else, and its word alone writes nothing into an account: after commits only tables
are changed that already name this very lake, and those are made by ``trailsift connect --glue`` alone.
"""

from __future__ import annotations

import atexit
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from trailsift import schema
from trailsift.errors import GlueError, LakeError, TrailsiftError, UsageError
from trailsift.lake import forms, index
from trailsift.lake.glue_setting import NO_EXTRA, SETTING, Target, applied
from trailsift.lake.home import home, mirror_of
from trailsift.lake.settings import read_settings
from trailsift.safe_text import quoted, safe
from trailsift.storage.s3_client import failure_of, process_key
from trailsift.times import now_text

#: Parameters of a table in Glue: the lake, the commit and the pointer as trailsift wrote them, and the time at which
#: the pointer was moved after it had been late.
LAKE, COMMIT, POINTER, CAUGHT_UP = (f"trailsift.{name}" for name in ("lake", "commit", "pointer", "caught_up"))
#: Seconds between two moves by one process, and after one that failed: each is two requests per table.
EVERY = 5.0
AFTER_FAILURE = 30.0
#: A pointer is late if the commit that it lacks is older: queries may have begun with what it names.
LATE = timedelta(minutes=1)
#: How often a move is tried while others change the same table.
_ATTEMPTS = 5
#: Glue's longest comment of a column, and the longest part of a parameter that is shown.
_MAX_COMMENT = 255
_SHOWN = 200
_TYPES = {
    "timestamp": "timestamp",
    "date": "date",
    "string": "string",
    "bool": "boolean",
    "int64": "bigint",
    "double": "double",
}

#: ``registered``, ``moved``: done now. ``current``: nothing to do. ``ahead``: Glue has a later commit, of another
#: writer. ``remade``: Glue has a later commit than there is. ``changed``: another engine moved the pointer.
#: ``foreign``: a table that is not of this lake. ``missing``: there is none.
What = Literal["registered", "moved", "current", "ahead", "remade", "changed", "foreign", "missing"]


@dataclass(frozen=True, slots=True)
class TableState:
    """A table in Glue, and what was done with it.

    ``commit``: the number of the commit that it points to now, ``before``: that of before (None: none that is known).
    ``found``: the lake, or the metadata, that a table names which was left alone. ``fresh``: whoever began to read it
    within the grace that was asked for has a pointer that was not late.
    """

    table: str
    what: What
    commit: int | None = None
    before: int | None = None
    found: str | None = None
    fresh: bool = True


# -- Glue --------------------------------------------------------------------------------------------------------------


class Database:
    """A Glue database and its tables. Every request raises GlueError with the action that failed, and on what."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._client = _client(target.region, process_key())
        self._where: dict[str, str] = {} if target.catalog_id is None else {"CatalogId": target.catalog_id}

    def expect(self) -> None:
        """Raise GlueError if there is no such database."""
        target = self.target
        with self._errors("GetDatabase"):
            try:
                self._client.get_database(Name=target.database, **self._where)
            except self._client.exceptions.EntityNotFoundException:
                account = f" --catalog-id {target.catalog_id}" if target.catalog_id else ""
                raise GlueError(
                    f"there is no {target.name} in Glue. This makes one: `aws glue create-database --region "
                    f"{target.region}{account} --database-input Name={target.database}`"
                ) from None

    def get(self, name: str) -> dict[str, Any] | None:
        """Return a table as Glue describes it; None if there is none."""
        with self._errors("GetTable", name):
            try:
                answer = self._client.get_table(DatabaseName=self.target.database, Name=name, **self._where)
            except self._client.exceptions.EntityNotFoundException:
                return None
            table: dict[str, Any] = answer["Table"]
            return table

    def create(self, description: dict[str, Any]) -> bool:
        """Make a table; return False if there is one by now."""
        name = description["Name"]
        with self._errors("CreateTable", name):
            try:
                self._client.create_table(DatabaseName=self.target.database, TableInput=description, **self._where)
            except self._client.exceptions.AlreadyExistsException:
                return False
            return True

    def update(self, description: dict[str, Any], version: str) -> bool:
        """Change a table; return False if it is not of this version any longer."""
        name = description["Name"]
        with self._errors("UpdateTable", name):
            try:
                # Without SkipArchive each commit would leave a version behind, and their number is limited.
                self._client.update_table(
                    DatabaseName=self.target.database,
                    TableInput=description,
                    VersionId=version,
                    SkipArchive=True,
                    **self._where,
                )
            except (
                self._client.exceptions.ConcurrentModificationException,
                self._client.exceptions.EntityNotFoundException,
            ):
                return False
            return True

    @contextmanager
    def _errors(self, action: str, table: str | None = None) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        target = self.target
        what = f"database/{target.database}" if table is None else f"table/{target.database}/{table}"
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            said = failure_of(error).text
            if code in schema.DENIED_CODES:
                raise GlueError(
                    f"the credentials lack glue:{action} on {what} in {target.region} ({said}): grant it on the table, "
                    "its database and the catalog"
                ) from error
            raise GlueError(f"glue:{action} on {what} in {target.region} failed: {said}") from error
        except NoCredentialsError as error:
            raise GlueError(
                f"glue:{action} on {what} in {target.region} failed: there are no AWS credentials: set AWS_PROFILE, or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except BotoCoreError as error:
            raise GlueError(f"glue:{action} on {what} in {target.region} failed: {failure_of(error).text}") from error


@lru_cache(maxsize=8)
def _client(region: str, process: tuple[int, int]) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise UsageError(NO_EXTRA) from None
    # A commit waits for it: what takes longer is left to the next one.
    config = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=3, read_timeout=10)
    try:
        return boto3.Session().client("glue", region_name=region, config=config)
    except (BotoCoreError, ValueError) as error:
        raise GlueError(f"Glue in {region} cannot be used: {safe(str(error))[:_SHOWN]}") from error


# -- moving the pointers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Head:
    """A commit of the lake, to which pointers move."""

    root: Path
    url: str
    commit: int
    pointers: dict[str, str]
    tables: dict[str, schema.Table]

    def left(self, table: str, pointer: str, commit: int) -> str | None:
        """Return when the first commit after ``commit`` left a table's pointer behind; None if none did."""
        sql = (
            "SELECT committed_at FROM commit_log WHERE seq > ? AND json_extract(locations, '$.' || ?) IS NOT ?"
            " ORDER BY seq LIMIT 1"
        )
        with closing(index.connect(self.root)) as db:
            row = db.execute(sql, (commit, table, pointer)).fetchone()
        return None if row is None else forms.commit_time(row[0])

    def is_newest(self) -> bool:
        """Return whether nobody has committed since."""
        mirror = mirror_of(self.root)
        return mirror is not None and mirror.is_newest()


def _head_of(root: Path) -> _Head:
    """Return the last commit of the copy here. LakeError if it names metadata outside of the lake."""
    snapshot = index.last_commit(root)
    tables = schema.tables_of(hourly_partitions=False, format_version=snapshot.format_version)
    tables = {name: table for name, table in tables.items() if name in snapshot.locations}
    for name in tables:
        forms.metadata_path(root, name, snapshot.locations[name])
    return _Head(root, home(root), snapshot.seq, snapshot.locations, tables)


def move(
    root: Path,
    target: Target,
    *,
    create: bool = False,
    replace: bool = False,
    grace: timedelta = timedelta(0),
    at_once: bool = True,
) -> list[TableState]:
    """Move the pointers of all tables to the last commit of the copy at ``root``, and never back.

    ``create``: also make missing tables. ``replace``: also take back what another engine has changed, and what is of a
    lake that was here before. Foreign tables stay as they are. ``at_once``: with several requests in flight. GlueError
    if Glue cannot be reached or refuses.
    """
    head = _head_of(root)
    database = Database(target)
    tables = list(head.tables.values())

    def one(table: schema.Table) -> TableState:
        return _move(head, database, table, create=create, replace=replace, grace=grace)

    return _each(one, tables, at_once)


def look(root: Path, target: Target) -> list[TableState]:
    """Return what ``move`` would find, and change nothing. GlueError if there is no such database."""
    head = _head_of(root)
    database = Database(target)
    database.expect()
    return _each(lambda table: _state(head, table, database.get(table.name), timedelta(0)), list(head.tables.values()))


def _each(call: Any, tables: Sequence[schema.Table], at_once: bool = True) -> list[TableState]:
    from concurrent.futures import ThreadPoolExecutor

    if not at_once:
        return [call(table) for table in tables]
    with ThreadPoolExecutor(len(tables)) as pool:
        return list(pool.map(call, tables))


def _move(
    head: _Head, database: Database, table: schema.Table, *, create: bool, replace: bool, grace: timedelta
) -> TableState:
    for _ in range(_ATTEMPTS):
        found = database.get(table.name)
        state = _state(head, table, found, grace)
        if found is None:
            if not create or database.create(description(head.url, table, head.pointers[table.name], head.commit)):
                return TableState(table.name, "registered", head.commit) if create else state
            continue
        if state.what != "moved" and not (replace and state.what in ("changed", "remade")):
            return state
        # A pointer that another engine moved is late as soon as it was.
        caught_up = None if state.fresh and state.what == "moved" else now_text()
        new = description(head.url, table, head.pointers[table.name], head.commit, found, caught_up)
        if database.update(new, str(found.get("VersionId", ""))):
            return TableState(table.name, "moved", head.commit, state.before, fresh=state.fresh)
    raise GlueError(
        f"the table {database.target.database}.{table.name} in Glue was changed by others {_ATTEMPTS} times in a row: "
        "run it again"
    )


def _state(head: _Head, table: schema.Table, found: dict[str, Any] | None, grace: timedelta) -> TableState:
    """Return what is to be done with a table that Glue has: ``moved`` if its pointer is to be moved."""
    if found is None:
        return TableState(table.name, "missing")
    parameters = found.get("Parameters") or {}
    lake, pointer = parameters.get(LAKE), parameters.get("metadata_location")
    commit = _number(parameters.get(COMMIT))
    if lake != head.url or commit is None or not isinstance(pointer, str):
        owner = "trailsift has not registered it" if lake is None else f"it is of the lake at {_shown(lake)}"
        return TableState(table.name, "foreign", found=owner)
    if pointer != parameters.get(POINTER):
        return TableState(table.name, "changed", commit, commit, _shown(pointer), fresh=False)
    is_settled = _is_settled(parameters, grace)
    if commit > head.commit:
        return TableState(table.name, "remade" if head.is_newest() else "ahead", commit, commit, fresh=is_settled)
    if pointer == head.pointers[table.name]:
        return TableState(table.name, "current", commit, commit, fresh=is_settled)
    fresh = is_settled and not _is_late(head.left(table.name, pointer, commit))
    return TableState(table.name, "moved", head.commit, commit, fresh=fresh)


def _is_settled(parameters: Mapping[str, Any], grace: timedelta) -> bool:
    """Return whether no pointer that was late has been in use within the grace."""
    text = parameters.get(CAUGHT_UP)
    if text is None:
        return True
    try:
        return datetime.now(UTC) - datetime.fromisoformat(forms.commit_time(text)) > grace
    except (LakeError, ValueError):
        return False


def _is_late(since: str | None) -> bool:
    return since is not None and datetime.now(UTC) - datetime.fromisoformat(since) > LATE


def _number(text: object) -> int | None:
    if not isinstance(text, str) or re.fullmatch(r"[0-9]{1,16}", text, re.ASCII) is None:
        return None
    return int(text)


def _shown(text: object) -> str:
    return safe(str(text)[:_SHOWN])


def description(
    url: str,
    table: schema.Table,
    pointer: str,
    commit: int,
    found: Mapping[str, Any] | None = None,
    caught_up: str | None = None,
) -> dict[str, Any]:
    """Return Glue's ``TableInput`` of a table of ours; ``found``: the table as it is, whose other members stay."""
    before = found or {}
    old = before.get("Parameters") or {}
    parameters = {
        **old,
        "table_type": "ICEBERG",
        "metadata_location": pointer,
        LAKE: url,
        COMMIT: str(commit),
        POINTER: pointer,
    }
    if old.get("metadata_location") not in (None, pointer):
        parameters["previous_metadata_location"] = old["metadata_location"]
    if caught_up is not None:
        parameters[CAUGHT_UP] = caught_up
    kept = {name: before[name] for name in ("Owner", "Retention") if name in before}
    return {
        **kept,
        "Name": table.name,
        "Description": before.get("Description") or table.meaning[:2000],
        "TableType": "EXTERNAL_TABLE",
        "Parameters": parameters,
        # Athena fails on a table without the member.
        "PartitionKeys": [],
        "StorageDescriptor": {"Columns": _columns(table), "Location": f"{url}/{table.name}"},
    }


def _columns(table: schema.Table) -> list[dict[str, Any]]:
    columns = []
    for number, column in enumerate(table.columns, 1):
        kind = column.type
        is_list = kind.startswith("list<")
        name = _TYPES[kind.removeprefix("list<").removesuffix(">")]
        columns.append(
            {
                "Name": column.name,
                "Type": f"array<{name}>" if is_list else name,
                "Comment": " ".join(column.meaning.split())[:_MAX_COMMENT],
                "Parameters": {
                    "iceberg.field.id": str(number),
                    "iceberg.field.optional": "true",
                    "iceberg.field.current": "true",
                },
            }
        )
    return columns


# -- after commits -----------------------------------------------------------------------------------------------------


class _Follower:
    """Moves the pointers of one lake after its commits: at once, or, after many in a short time, a little later."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._at_work = threading.Lock()
        self._not_before = 0.0
        self._timer: threading.Timer | None = None
        self._said = ""

    def follow(self) -> None:
        """Move the pointers after a commit. Nothing is raised."""
        with self._lock:
            wait = self._not_before - time.monotonic()
            if wait > 0:
                if self._timer is None:
                    self._timer = threading.Timer(wait, self._run)
                    self._timer.daemon = True
                    self._timer.start()
                return
            self._not_before = time.monotonic() + EVERY
        self._run()

    def finish(self) -> None:
        """Move the pointers now if that was left for later."""
        with self._lock:
            timer = self._timer
        if timer is not None:
            timer.cancel()
            # Threads cannot be started while Python ends.
            self._run(at_once=False)

    def _run(self, *, at_once: bool = True) -> None:
        with self._at_work:
            with self._lock:
                self._timer = None
                self._not_before = time.monotonic() + EVERY
            try:
                target = applied(read_settings(self.root))
                problem = "" if target is None else problem_of(target, move(self.root, target, at_once=at_once))
            except Exception as error:  # any: the commit is made, and must not look as if it had failed
                problem = str(error) if isinstance(error, TrailsiftError) else f"{type(error).__name__}: {error}"
                with self._lock:
                    self._not_before = time.monotonic() + AFTER_FAILURE
            self._say(problem)

    def _say(self, problem: str) -> None:
        """Log a problem once, until it is another one or is over."""
        if problem != self._said:
            self._said = problem
            log = logging.getLogger("trailsift")
            if problem:
                log.warning(
                    "everything was committed, but the tables in Glue do not follow %s (%s); the next commit tries "
                    "again, and so does `trailsift connect --glue`",
                    home(self.root),
                    problem,
                )
            else:
                log.warning("the tables in Glue follow %s again", home(self.root))


_followers: dict[Path, _Follower] = {}
_register_lock = threading.Lock()


def follow(root: Path) -> None:
    """Have Glue follow a commit of the lake whose copy is at ``root``, if its settings say so. Nothing is raised."""
    with _register_lock:
        follower = _followers.get(root)
        if follower is None:
            if SETTING not in read_settings(root):
                return
            if not _followers:
                atexit.register(_finish_all)
            follower = _followers[root] = _Follower(root)
    follower.follow()


def finish(root: Path) -> None:
    """Have Glue follow now, if that was left for later because commits came fast. Nothing is raised."""
    follower = _followers.get(root)
    if follower is not None:
        follower.finish()


def _finish_all() -> None:
    for follower in list(_followers.values()):
        follower.finish()


def is_behind(root: Path, grace: timedelta) -> bool:
    """Return whether somebody may read, through Glue, what the lake has replaced longer than ``grace`` ago.

    The pointers are moved first. True as well if that is not known, because Glue does not answer.
    """
    try:
        target = applied(read_settings(root))
        return target is not None and not all(state.fresh for state in move(root, target, grace=grace))
    except (TrailsiftError, OSError, sqlite3.Error) as error:
        logging.getLogger("trailsift").warning(
            "what Glue points to is not known (%s): replaced files of %s stay for a day", error, home(root)
        )
        return True


def problem_of(target: Target, states: Sequence[TableState], *, missing: bool = True) -> str:
    """Return what keeps tables from following, in words; empty if all do. Without ``missing`` they may be absent."""
    reasons = {
        "foreign": "{names} in the {target} is not of this lake, and was left alone: {found}",
        "changed": (
            "another engine has changed {names} in the {target} (to {found}), which was left alone: `{again} "
            "--replace` makes it what the lake has"
        ),
        "remade": (
            "{names} in the {target} is of a lake that was at this place before: `{again} --replace` makes it what "
            "this lake has"
        ),
        "missing": "{names} is missing in the {target}: `{again}` makes it",
    }
    problems = []
    for what, reason in reasons.items():
        mine = [state for state in states if state.what == what]
        if mine and (missing or what != "missing"):
            names = ", ".join(state.table for state in mine)
            place = f" --lake {quoted(target.place)}" if target.place else ""
            again = f"trailsift connect {target.options()}{place}"
            problems.append(reason.format(names=names, target=target.name, found=mine[0].found, again=again))
    return "; ".join(problems)
