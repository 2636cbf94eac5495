"""The lake's Iceberg catalog: several tables, one commit.

PyIceberg commits one table at a time. Here each table's new metadata is only staged (written beside the old), and the
pointers of all tables, the read index, the log objects and the seen ids change in one SQLite transaction. So there is
no half-made commit to repair: a crash leaves files that nothing points to, which ``sweep`` removes.

This is the one place that imports PyIceberg. It leans on ``MetastoreCatalog._update_and_stage_table`` and
``_write_metadata`` of 0.12, hence the pin.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io.pyarrow import parquet_file_to_data_file
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import (
    BooleanType,
    DateType,
    DoubleType,
    IcebergType,
    ListType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from trailsift import event
from trailsift.store.fields import element_id, field_id
from trailsift.store.index import CATALOG_FILE, NAMESPACE

# PyIceberg says on every name mapping it meets what we already know.
logging.getLogger("pyiceberg").setLevel(logging.ERROR)

#: Snapshots kept of each table, and how many may gather before the older ones are expired.
KEPT_SNAPSHOTS = 10
EXPIRE_ABOVE = 30

_PROPERTIES = {
    "write.parquet.compression-codec": "zstd",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
    # Our own lock orders the commits; a blind retry of an append would store twice.
    "commit.retry.num-retries": "0",
}

_TYPES: dict[str, IcebergType] = {
    "timestamp": TimestamptzType(),
    "date": DateType(),
    "string": StringType(),
    "bool": BooleanType(),
    "int64": LongType(),
    "double": DoubleType(),
}


def iceberg_schema(table: event.Table) -> Schema:
    """The Iceberg schema of one of our tables. Field ids count from 1 in column order, list elements from 1001."""
    fields = []
    for column in table.columns:
        kind = _TYPES.get(column.type)
        if kind is None:
            element = _TYPES[column.type.removeprefix("list<").removesuffix(">")]
            kind = ListType(element_id(table, column.name), element, element_required=False)
        number = field_id(table, column.name)
        fields.append(NestedField(number, column.name, kind, required=False, doc=column.meaning))
    return Schema(*fields)


def _partition_spec(table: event.Table, schema: Schema) -> PartitionSpec:
    fields = [
        PartitionField(schema.find_field(name).field_id, 1000 + number, IdentityTransform(), name)
        for number, name in enumerate(table.partition)
    ]
    hidden = PartitionField(
        schema.find_field(table.time).field_id, 1000 + len(fields), DayTransform(), f"{table.time}_day"
    )
    return PartitionSpec(*fields, hidden)


def _sort_order(table: event.Table, schema: Schema) -> SortOrder:
    fields = [SortField(schema.find_field(name).field_id, IdentityTransform()) for name in table.order]
    return SortOrder(*fields)


def location(path: Path) -> str:
    """A local path as Iceberg writes it: a scheme and the path as it is, with nothing percent-encoded."""
    return f"file://{path}"


class LakeCatalog(SqlCatalog):
    """A SQL catalog that stages commits until ``apply``."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            "trailsift",
            uri=f"sqlite:///{root / CATALOG_FILE}",
            warehouse=location(root),
            init_catalog_tables="true",
        )
        self.root = root
        self._staged: dict[str, tuple[str, str]] = {}

    def make_tables(self, tables: Sequence[event.Table]) -> dict[str, str]:
        """Makes the namespace and the tables that are missing; the metadata location of each."""
        self.create_namespace_if_not_exists(NAMESPACE)
        locations = {}
        for table in tables:
            try:
                made = self.load_table((NAMESPACE, table.name))
            except NoSuchTableError:
                schema = iceberg_schema(table)
                made = self.create_table(
                    (NAMESPACE, table.name),
                    schema=schema,
                    location=location(self.root / table.name),
                    partition_spec=_partition_spec(table, schema),
                    sort_order=_sort_order(table, schema),
                    properties={**_PROPERTIES, "comment": table.meaning},
                )
            locations[table.name] = made.metadata_location
        return locations

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Writes the new metadata beside the old; ``apply`` makes it current."""
        name = Catalog.table_name_from(table.name())
        if name in self._staged:
            raise RuntimeError(f"{name} is staged already: one transaction a table and commit")
        staged = self._update_and_stage_table(table, table.name(), requirements, updates)
        self._write_metadata(staged.metadata, staged.io, staged.metadata_location)
        self._staged[name] = (table.metadata_location, staged.metadata_location)
        answer = {"metadata": staged.metadata, "metadata-location": staged.metadata_location}
        return CommitTableResponse.model_validate(answer)

    def change(self, name: str, added: Sequence[Path], removed: Sequence[Path] = (), **properties: str) -> None:
        """Stages one snapshot of a table: files added and files taken out."""
        table = self.load_table((NAMESPACE, name))
        transaction = table.transaction()
        update = transaction.update_snapshot(snapshot_properties=properties)
        producer = update.overwrite() if removed else update.merge_append()
        with producer:
            gone = {location(path) for path in removed}
            if gone:
                for task in table.scan().plan_files():
                    if task.file.file_path in gone:
                        producer.delete_data_file(task.file)
            for path in added:
                producer.append_data_file(parquet_file_to_data_file(table.io, table.metadata, location(path)))
        snapshots = sorted(table.metadata.snapshots, key=lambda snapshot: snapshot.timestamp_ms)
        if len(snapshots) > EXPIRE_ABOVE:
            # Staged into the same transaction: the expiry costs no commit of its own.
            old = [snapshot.snapshot_id for snapshot in snapshots[:-KEPT_SNAPSHOTS]]
            _expire(transaction, old)
        transaction.commit_transaction()

    def apply(self, db: sqlite3.Connection) -> None:
        """Makes everything staged current, inside the transaction that is open on ``db``."""
        for name, (old, new) in self._staged.items():
            changed = db.execute(
                "UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = ? "
                "WHERE catalog_name = ? AND table_namespace = ? AND table_name = ? AND metadata_location = ?",
                (new, old, self.name, NAMESPACE, name, old),
            )
            if changed.rowcount != 1:
                raise sqlite3.IntegrityError(f"{name} was changed by another engine during the commit")
        self._staged.clear()

    def discard(self) -> None:
        """Forgets what is staged; its files stay behind for ``sweep``."""
        self._staged.clear()


def _expire(transaction: Any, snapshot_ids: list[int]) -> None:
    from pyiceberg.table.update import RemoveSnapshotsUpdate

    transaction._stage((RemoveSnapshotsUpdate.model_validate({"snapshot-ids": snapshot_ids}),))
