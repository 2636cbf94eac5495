"""Look through a whole lake that comes from somebody else, before anything of it is used.

It checks structure: names, links, the catalog's schema, every value, every location in Iceberg's metadata. Whether the
bytes are those that were written is another question.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from trailsift.errors import LakeError, shown
from trailsift.lake import catalog_db, forms
from trailsift.lake.forms import Problem
from trailsift.lake.index import format_version, live_locations
from trailsift.lake.log_objects import has_files
from trailsift.lake.settings import (
    CATALOG_FILE,
    LAKE_FILE,
    LOCK_FILE,
    MARKER_FILE,
    NAMESPACE,
    check_location,
    read_settings,
)
from trailsift.schema import TABLES, tables_of
from trailsift.storage.local import LOCK_FILE as STORAGE_LOCK_FILE

#: What stands at the top of a lake. `findings` holds the state of detection, `queries` those saved by name.
_TOP = frozenset(
    {
        LAKE_FILE,
        CATALOG_FILE,
        LOCK_FILE,
        MARKER_FILE,
        STORAGE_LOCK_FILE,
        forms.SEEN_FOLDER,
        forms.OBJECTS_FOLDER,
        "findings",
        "queries",
        *TABLES,
    }
)
_TOP_FORMS = (f"{CATALOG_FILE}-", f".{LAKE_FILE}.", ".compact-")
#: Problems listed per kind of object.
LISTED = 100


def check_lake(root: Path) -> list[Problem]:
    """Return everything in the lake at ``root`` that trailsift would not have written; an empty list if nothing.

    LakeError if there is no lake. Nothing is written, and nothing outside of the lake is read.
    """
    place = root.resolve()
    settings = read_settings(place)
    problems = list(_tree(place))
    try:
        check_location(place, settings)
        is_here = True
    except LakeError as error:
        problems.append(Problem(LAKE_FILE, str(error)))
        is_here = False
    try:
        problems += catalog_db.read(place, _catalog, checked=False)
        live = catalog_db.read(place, live_locations)
        version = catalog_db.read(place, format_version)
        if is_here:
            forms.known_locations(place, live)
    except LakeError as error:
        return [*problems, Problem(CATALOG_FILE, str(error))]
    # The metadata of a lake that was moved names its former folder.
    return problems + (list(_metadata(place, live, version)) if is_here else [])


def _tree(root: Path) -> Iterator[Problem]:
    """Yield links, devices, and names at the top that are not a lake's."""
    for entry in os.scandir(root):
        if entry.name not in _TOP and not entry.name.startswith(_TOP_FORMS):
            yield Problem(entry.name, "is not a part of a lake")
    left = LISTED
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                continue  # a writer has removed it
            if stat.S_ISLNK(mode):
                what = f"is a link to {os.path.realpath(path)}"
            elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                what = "is a pipe or a device"
            else:
                continue
            left -= 1
            if left < 0:
                return
            yield Problem(str(path.relative_to(root)), what)


def _catalog(db: sqlite3.Connection) -> list[Problem]:
    """Return what is wrong with the schema of the catalog, else with its values."""
    problems = [Problem(CATALOG_FILE, what) for what in catalog_db.schema_problems(db)]
    if problems:
        return problems
    checks: tuple[tuple[str, Callable[[tuple[Any, ...]], object]], ...] = (
        ("SELECT seq, committed_at, kind, counts, locations FROM commit_log ORDER BY seq", _check_commit),
        (
            "SELECT table_name, path, rows, bytes, min_time, max_time, service, min_role, max_role, added, removed"
            " FROM file",
            _check_file,
        ),
        ("SELECT path, ids, min_time, max_time, added, removed FROM seen_file", _check_seen),
        ("SELECT name, version, delivered_on, seq FROM log_object", _check_object),
        *([_OBJECT_FILES] if has_files(db) else []),
        *_ICEBERG_CHECKS[catalog_db.has_types(db)],
    )
    for sql, check in checks:
        with closing(db.execute(sql)) as rows:
            found = 0
            for row in rows:
                try:
                    check(row)
                except LakeError as error:
                    found += 1
                    problems.append(Problem(CATALOG_FILE, str(error)))
                    if found >= LISTED:
                        break
    return problems


def _check_commit(row: tuple[Any, ...]) -> None:
    forms.commit_number(row[0])
    forms.commit_time(row[1])
    forms.short_text("the kind of a commit", row[2])
    forms.counts(row[3])
    forms.logged_locations(row[4])


def _check_file(row: tuple[Any, ...]) -> None:
    if row[0] not in TABLES:
        raise LakeError(f"the catalog has a file of the table {row[0]!r:.100}, which no lake has")
    forms.check_files(row[0], [row[:9]])
    for number in row[9:]:
        if number is not None:
            forms.commit_number(number)


def _check_seen(row: tuple[Any, ...]) -> None:
    forms.ids_path(row[0])
    forms.commit_number(row[1])
    forms.check_spans([row[2:4]])
    for number in row[4:]:
        if number is not None:
            forms.commit_number(number)


def _check_object(row: tuple[Any, ...]) -> None:
    for text in row[:3]:
        forms.short_text("a log object", text)
    forms.commit_number(row[3])


def _check_object_file(row: tuple[Any, ...]) -> None:
    forms.objects_path(row[0])
    forms.commit_number(row[1])
    forms.day(row[2])
    for number in row[3:]:
        if number is not None:
            forms.commit_number(number)


_OBJECT_FILES = "SELECT path, objects, day, added, removed FROM object_file", _check_object_file


def _check_type(row: tuple[Any, ...]) -> None:
    name, kind = row
    # Without a type it is a table, too: catalogs that were made before there were views have none.
    if name in TABLES and kind not in ("TABLE", None):
        raise LakeError(f"the catalog has the table {name} as {kind!r:.100}: Iceberg would not find it")


def _check_namespace(row: tuple[Any, ...]) -> None:
    if row != (1, NAMESPACE, NAMESPACE, "exists", "true"):
        raise LakeError(
            f"the catalog has other namespaces than {NAMESPACE!r}, or another description of it: {row!r:.300}"
        )


_NAMESPACES = (
    "SELECT count(*), min(catalog_name), min(namespace), min(property_key), min(property_value)"
    " FROM iceberg_namespace_properties",
    _check_namespace,
)
#: What Iceberg's own tables are asked, without the column of types and with it.
_ICEBERG_CHECKS = (
    (_NAMESPACES,),
    (_NAMESPACES, ("SELECT table_name, iceberg_type FROM iceberg_tables", _check_type)),
)


def _metadata(root: Path, live: dict[str, str], version: int) -> Iterator[Problem]:
    """Yield what is wrong with Iceberg's metadata, manifest lists and manifests, of all snapshots."""
    from trailsift.lake.iceberg import LakeReader

    reader = LakeReader(root)
    for name in tables_of(hourly_partitions=False, format_version=version):
        if name not in live:
            yield Problem(CATALOG_FILE, f"has no table {name}")
            continue
        try:
            for what in reader.problems(name, live[name]):
                yield Problem(f"{name}/metadata", what)
        except (LakeError, OSError) as error:
            yield Problem(f"{name}/metadata", shown(str(error)))
