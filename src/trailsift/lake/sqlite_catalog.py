"""The Iceberg catalog in the lake's SQLite file, as PyIceberg's own ``SqlCatalog`` writes it, without SQLAlchemy.

SQLAlchemy takes a quarter of a second of CPU time to import, and PyArrow's file systems take more: too much for a short
ingest. The tables and their rows are those of ``SqlCatalog``, so other programs open the lake with that. Only what a
writer of ours needs is here.
"""

from __future__ import annotations

import sqlite3
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

from pyiceberg.catalog import Catalog, MetastoreCatalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.io import FileIO
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties

from trailsift.errors import LakeError
from trailsift.lake import catalog_db, forms, index
from trailsift.lake.file_io import LocalFileIO, metadata_errors, read_metadata
from trailsift.lake.home import location

#: Version 1 of the tables of ``SqlCatalog``.
_TABLES = """
CREATE TABLE IF NOT EXISTS iceberg_tables (
    catalog_name VARCHAR(255) NOT NULL,
    table_namespace VARCHAR(255) NOT NULL,
    table_name VARCHAR(255) NOT NULL,
    metadata_location VARCHAR(1000),
    previous_metadata_location VARCHAR(1000),
    iceberg_type VARCHAR(5),
    PRIMARY KEY (catalog_name, table_namespace, table_name)
);
CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
    catalog_name VARCHAR(255) NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    property_key VARCHAR(255) NOT NULL,
    property_value VARCHAR(1000) NOT NULL,
    PRIMARY KEY (catalog_name, namespace, property_key)
);
"""


def _unsupported(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("open the lake with PyIceberg's SqlCatalog for this")


class SqliteCatalog(MetastoreCatalog):
    """The catalog of one lake. Raise sqlite3's errors and OSError."""

    def __init__(self, name: str, root: Path, warehouse: str) -> None:
        super().__init__(name, warehouse=warehouse)
        self.root = root
        self._io = LocalFileIO(root)
        # Stays open: the shared memory file of SQLite's log, once made, serves all connections; on a full disk it could
        # not be made when the files of a failed batch have to be removed.
        db = index.connect(root, check_same_thread=False)
        weakref.finalize(self, db.close)
        db.executescript(_TABLES)
        self._typed = catalog_db.has_types(db)

    def create_namespace(self, namespace: str | Identifier, properties: Properties = EMPTY_DICT) -> None:
        """Create a namespace; one that exists keeps its properties."""
        name = Catalog.namespace_to_string(namespace)
        sql = "INSERT OR IGNORE INTO iceberg_namespace_properties VALUES (?, ?, ?, ?)"
        with closing(index.connect(self.root)) as db:
            db.executemany(sql, [(self.name, name, *pair) for pair in (properties or {"exists": "true"}).items()])

    def create_namespace_if_not_exists(self, namespace: str | Identifier, properties: Properties = EMPTY_DICT) -> None:
        """Create a namespace unless it exists."""
        self.create_namespace(namespace, properties)

    def load_namespace_properties(self, namespace: str | Identifier) -> Properties:
        """Return a namespace's properties."""
        name = Catalog.namespace_to_string(namespace)
        sql = "SELECT property_key, property_value FROM iceberg_namespace_properties"
        with closing(index.connect(self.root)) as db:
            rows = dict(db.execute(f"{sql} WHERE catalog_name = ? AND namespace = ?", (self.name, name)))
        if not rows:
            raise NoSuchNamespaceError(f"Namespace {name} does not exist")
        return rows

    def create_table(
        self,
        identifier: str | Identifier,
        schema: Any,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
    ) -> Table:
        """Create a table: its first metadata file, and its row in the catalog."""
        assert isinstance(schema, Schema)
        staged = self._create_staged_table(identifier, schema, location, partition_spec, sort_order, properties)
        self._write_metadata(staged.metadata, staged.io, staged.metadata_location)
        namespace, name = self.identifier_to_database_and_table(identifier)
        try:
            with closing(index.connect(self.root)) as db:
                self.insert_pointer(db, namespace, name, staged.metadata_location)
        except sqlite3.IntegrityError as error:
            raise TableAlreadyExistsError(f"Table {namespace}.{name} already exists") from error
        return self._table(namespace, name, staged.metadata_location)

    def insert_pointer(self, db: sqlite3.Connection, namespace: str, name: str, metadata_location: str) -> None:
        """Add the row of a new table. Raise sqlite3.IntegrityError if there is a table of that name."""
        values = [self.name, namespace, name, metadata_location, None, *(["TABLE"] if self._typed else [])]
        db.execute(f"INSERT INTO iceberg_tables VALUES ({','.join('?' * len(values))})", values)

    def load_table(self, identifier: str | Identifier) -> Table:
        """Return a table with its current metadata. Raise NoSuchTableError."""
        namespace, name = self.identifier_to_database_and_table(identifier)
        sql = "SELECT metadata_location FROM iceberg_tables WHERE catalog_name = ? AND table_namespace = ?"
        sql += " AND table_name = ?" + (" AND coalesce(iceberg_type, 'TABLE') = 'TABLE'" if self._typed else "")
        with closing(index.connect(self.root)) as db:
            row = db.execute(sql, (self.name, namespace, name)).fetchone()
        if row is None or not row[0]:
            raise NoSuchTableError(f"Table does not exist: {namespace}.{name}")
        return self._table(namespace, name, row[0])

    def _table(self, namespace: str, name: str, metadata_location: str) -> Table:
        forms.metadata_path(self.root, name, metadata_location)
        with metadata_errors(self.root, name):
            metadata = read_metadata(self._io, metadata_location)
        if metadata.location != f"{location(self.root)}/{name}":
            raise LakeError(
                f"the table {name} says that it lies at {metadata.location!r}, and not in the lake {self.root}: "
                "nothing of it was opened"
            )
        return Table((namespace, name), metadata, metadata_location, self._io, self)

    def _load_file_io(self, properties: Properties = EMPTY_DICT, location: str | None = None) -> FileIO:
        return self._io

    drop_namespace: Any = _unsupported
    drop_table: Any = _unsupported
    drop_view: Any = _unsupported
    list_namespaces: Any = _unsupported
    list_tables: Any = _unsupported
    list_views: Any = _unsupported
    load_view: Any = _unsupported
    register_table: Any = _unsupported
    register_view: Any = _unsupported
    rename_table: Any = _unsupported
    update_namespace_properties: Any = _unsupported
    view_exists: Any = _unsupported
