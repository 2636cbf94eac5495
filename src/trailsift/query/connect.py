"""The tables of a lake for any DuckDB client: a script of views over the files of one commit, or a database of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trailsift.errors import EngineError
from trailsift.lake.forms import check_links
from trailsift.lake.home import fetch_files, home, mirror_of
from trailsift.lake.index import File, Snapshot
from trailsift.query.duckdb_client import duckdb
from trailsift.query.planner import lock
from trailsift.query.relations import MACROS, VIEWS, table_columns, text, texts
from trailsift.query.views import table_sql
from trailsift.safe_text import safe
from trailsift.schema import TABLES
from trailsift.storage.output_file import new_path


def script(snapshot: Snapshot) -> str:
    """Return SQL for ``duckdb -init FILE``, or for any client that speaks DuckDB's SQL.

    It names every file of the snapshot by its absolute path: events ingested later are not in it.
    """
    hourly = bool(snapshot.settings.get("hourly_partitions"))

    def place(group: str, files: Sequence[File]) -> str:
        fetch_files(snapshot.root, files)
        check_links(snapshot.root, files)
        paths = ",\n  ".join(text(str(snapshot.root / file.path)) for file in files)
        return f"read_parquet([\n  {paths}\n], hive_partitioning = false)"

    parts = [
        f"-- The trailsift lake {safe(home(snapshot.root))} as of commit {snapshot.seq} ({snapshot.committed_at}).",
        "-- Written by `trailsift connect`. Run it again after an ingest: the views name the files of this commit.",
    ]
    if mirror_of(snapshot.root) is not None:
        parts.append("-- The files are copies in the user's cache: run it again too if one of them is no longer there.")
    for name, (meaning, sql) in MACROS.items():
        parts.append(f"-- {name}: {meaning}\n{sql.replace('CREATE MACRO', 'CREATE OR REPLACE MACRO', 1)};")
    for table in TABLES.values():
        columns = table_columns(table, hourly_partitions=hourly)
        sql = table_sql(table, columns, snapshot.files(table.name), place, snapshot.format_version)
        parts.append(_view(table.name, table.meaning, sql))
    for name, view in VIEWS.items():
        parts.append(_view(name, view[0], view[2]))
    return "\n".join(parts) + "\n"


def _view(name: str, meaning: str, sql: str) -> str:
    return f"-- {meaning}\nCREATE OR REPLACE VIEW {name} AS\n{sql};"


def write_database(path: Path, snapshot: Snapshot) -> None:
    """Write a database that has run the script of a snapshot, confined to the lake's data.

    An existing file is replaced as a whole, or stays as it was.

    Raise EngineError if it cannot be written.
    """
    folders = [str(snapshot.root / name / "data") for name in TABLES]
    sql = script(snapshot)
    try:
        with new_path(path) as partial, duckdb.connect(str(partial)) as db:
            # To bind a view, DuckDB looks at its files: at those of the lake only, and with no extension.
            db.execute(f"SET allowed_directories = {texts(folders)}; SET autoinstall_known_extensions = false")
            db.execute("SET autoload_known_extensions = false")
            lock(db)
            db.execute(sql)
    except (OSError, duckdb.Error) as error:
        raise EngineError(f"cannot write the database {path}: {error}") from error
