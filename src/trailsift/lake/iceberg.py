"""The lake's Iceberg catalog: several tables, one commit.

PyIceberg commits one table at a time. Here each table's new metadata is only staged (written beside the old), and the
pointers of all tables, the read index, the log objects and the event ids change in one SQLite transaction. So there is
no half-made commit to repair: a crash leaves files that nothing points to, which ``sweep`` removes.

PyIceberg is imported here, in ``reindex`` and in ``column_sizes`` only. This module depends on
``MetastoreCatalog._update_and_stage_table`` and ``_write_metadata`` of 0.12, hence the pin.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.conversions import to_bytes
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    read_manifest_list,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableResponse, Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.table.update import AddSnapshotUpdate, RemoveSnapshotsUpdate, TableRequirement, TableUpdate
from pyiceberg.table.update.snapshot import _FastAppendFiles, _SnapshotProducer
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.typedef import EMPTY_DICT, Identifier, Record
from pyiceberg.types import (
    BooleanType,
    DateType,
    DoubleType,
    IcebergType,
    ListType,
    LongType,
    NestedField,
    PrimitiveType,
    StringType,
    TimestamptzType,
)

from trailsift import schema
from trailsift.errors import ConflictError, LakeError
from trailsift.lake import forms
from trailsift.lake.field_ids import element_id, field_id
from trailsift.lake.file_io import LocalFileIO, dropped_properties, metadata_errors, read_metadata
from trailsift.lake.home import location, mirror_of
from trailsift.lake.index import File
from trailsift.lake.parquet import checked_service, partition_values
from trailsift.lake.settings import NAMESPACE
from trailsift.lake.sqlite_catalog import SqliteCatalog
from trailsift.times import DAY

# Silence PyIceberg's warning per name mapping.
logging.getLogger("pyiceberg").setLevel(logging.ERROR)

#: Snapshots that each table keeps, and the number above which the older ones are expired.
KEPT_SNAPSHOTS = 10
EXPIRE_ABOVE = 30
#: Files per manifest of a replacement: large enough for few manifests, small enough for a partition to skip most.
MANIFEST_ENTRIES = 1000

#: Small manifests above which they are merged; each table merges at a number of its own, so that no commit does all.
MERGE_ABOVE = 20

_PROPERTIES = {
    "write.parquet.compression-codec": "zstd",
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
    # Our own lock orders the commits; a blind retry of an append would store its rows twice.
    "commit.retry.num-retries": "0",
}

_TYPES: dict[str, PrimitiveType] = {
    "timestamp": TimestamptzType(),
    "date": DateType(),
    "string": StringType(),
    "bool": BooleanType(),
    "int64": LongType(),
    "double": DoubleType(),
}


def iceberg_schema(table: schema.Table) -> Schema:
    """Return the Iceberg schema of a table. Field ids count from 1 in column order; list elements follow."""
    fields = []
    for column in table.columns:
        kind: IcebergType | None = _TYPES.get(column.type)
        if kind is None:
            element = _TYPES[column.type.removeprefix("list<").removesuffix(">")]
            kind = ListType(element_id(table, column.name), element, element_required=False)
        number = field_id(table, column.name)
        fields.append(NestedField(number, column.name, kind, required=False, doc=column.meaning))
    return Schema(*fields)


def _partition_spec(table: schema.Table, columns: Schema) -> PartitionSpec:
    fields = [
        PartitionField(columns.find_field(name).field_id, 1000 + number, IdentityTransform(), name)
        for number, name in enumerate(table.partition)
    ]
    hidden = PartitionField(
        columns.find_field(table.time).field_id, 1000 + len(fields), DayTransform(), f"{table.time}_day"
    )
    return PartitionSpec(*fields, hidden)


def _sort_order(table: schema.Table, columns: Schema) -> SortOrder:
    fields = [SortField(columns.find_field(name).field_id, IdentityTransform()) for name in table.order]
    return SortOrder(*fields)


def _data_files(iceberg_table: Table, files: Sequence[File], table: schema.Table, root: Path) -> Iterator[DataFile]:
    """Describe our files to Iceberg, from what their writer knew: no footer is opened.

    Bounds are those that skip files of this layout: time, and the caller, by which files are sorted. Parquet's own
    statistics hold the rest. PyIceberg's ``add_files`` reads every column's from the footer, 20 ms per file.
    """
    columns, spec_id = iceberg_table.schema(), iceberg_table.metadata.default_spec_id
    time, kind = columns.find_field(table.time).field_id, _TYPES[table.column(table.time).type]
    caller = columns.find_field("caller").field_id if table.name == schema.EVENTS.name else 0
    scale = DAY if isinstance(kind, DateType) else 1
    for file in files:
        bounds = []
        for moment, name in ((file.min_time, file.min_caller), (file.max_time, file.max_caller)):
            bound = {time: to_bytes(kind, moment // scale)}
            if caller and name is not None:
                bound[caller] = name.encode()
            bounds.append(bound)
        values: dict[str, str] = partition_values(table, file.min_time)
        if "service" in table.partition:
            values["service"] = checked_service(file.service)
        yield DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=f"{location(root)}/{file.path}",
            file_format=FileFormat.PARQUET,
            partition=Record(*(values[name] for name in table.partition), file.min_time // DAY),
            record_count=file.rows,
            file_size_in_bytes=file.bytes,
            column_sizes={},
            value_counts={},
            null_value_counts={},
            nan_value_counts={},
            lower_bounds=bounds[0],
            upper_bounds=bounds[1],
            key_metadata=None,
            split_offsets=None,
            equality_ids=None,
            sort_order_id=None,
            spec_id=spec_id,
        )


class LakeReader:
    """The tables of a lake by their metadata alone, for whoever may not write: no catalog is opened."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._io = LocalFileIO(root)

    def live_files(self, name: str, metadata_location: str) -> tuple[list[DataFile], Schema]:
        """Return a table's live files, and its schema. LakeError if another engine has deleted rows of them."""
        forms.metadata_path(self._root, name, metadata_location)
        files: list[DataFile] = []
        with metadata_errors(self._root, name):
            metadata = read_metadata(self._io, metadata_location)
            head = metadata.current_snapshot()
            for manifest in head.manifests(self._io) if head is not None else []:
                entries = manifest.fetch_manifest_entry(self._io, discard_deleted=True)
                if entries and manifest.content != ManifestContent.DATA:
                    raise LakeError(
                        f"another engine has deleted rows of the table {name} in {self._root} without rewriting its "
                        "files: have it rewrite them, then trailsift reads the table again"
                    )
                files += [entry.data_file for entry in entries]
            return files, metadata.schema()

    def needed(self, name: str, metadata_location: str) -> Iterator[str]:
        """Yield the paths in the lake of Iceberg's own files, and of the data files, that a table's snapshots need.

        LakeError or OSError at the first that cannot be read, which was yielded before.
        """
        yield forms.metadata_path(self._root, name, metadata_location)
        with metadata_errors(self._root, name):
            done = set()
            for snapshot in read_metadata(self._io, metadata_location).snapshots:
                yield forms.metadata_path(self._root, name, snapshot.manifest_list)
                for manifest in snapshot.manifests(self._io):
                    if manifest.manifest_path not in done:
                        done.add(manifest.manifest_path)
                        yield forms.metadata_path(self._root, name, manifest.manifest_path)
                        for entry in manifest.fetch_manifest_entry(self._io):
                            yield forms.data_path(name, forms.relative(self._root, entry.data_file.file_path))

    def problems(self, name: str, metadata_location: str) -> Iterator[str]:
        """Yield what the metadata of a table, its manifest lists and its manifests name that no lake of ours does."""
        forms.metadata_path(self._root, name, metadata_location)
        with metadata_errors(self._root, name):
            metadata = read_metadata(self._io, metadata_location)
            if metadata.location != f"{location(self._root)}/{name}":
                yield f"the table says that it lies at {metadata.location!r}"
            for dropped in dropped_properties(self._io, metadata_location):
                yield f"the table has the property {dropped!r}, which is not obeyed"
            manifests: dict[str, ManifestFile] = {}
            for snapshot in metadata.snapshots:
                for manifest in snapshot.manifests(self._io):
                    manifests[manifest.manifest_path] = manifest
            for manifest in manifests.values():
                for entry in manifest.fetch_manifest_entry(self._io, discard_deleted=False):
                    try:
                        forms.data_location(self._root, name, entry.data_file.file_path)
                    except LakeError:
                        yield f"a manifest names {entry.data_file.file_path!r} as a data file"


class LakeCatalog(SqliteCatalog):
    """A SQL catalog that stages commits until ``apply``."""

    def __init__(self, root: Path) -> None:
        super().__init__(NAMESPACE, root, location(root))
        #: By table: the metadata before, None for a new table, and the new metadata.
        self._staged: dict[str, tuple[str | None, str]] = {}
        self._replaced: list[str] = []

    def make_tables(self, tables: Sequence[schema.Table]) -> dict[str, str]:
        """Create the namespace and the missing tables; return the metadata location of each table."""
        self.create_namespace_if_not_exists(NAMESPACE)
        locations = {}
        for table in tables:
            try:
                loaded = super().load_table((NAMESPACE, table.name))
            except NoSuchTableError:
                loaded = self.create_table((NAMESPACE, table.name), **self._description(table))
            locations[table.name] = loaded.metadata_location
        return locations

    def _description(self, table: schema.Table) -> dict[str, Any]:
        """Return the arguments of ``create_table`` that describe one of our tables."""
        columns = iceberg_schema(table)
        return {
            "schema": columns,
            "location": f"{location(self.root)}/{table.name}",
            "partition_spec": _partition_spec(table, columns),
            "sort_order": _sort_order(table, columns),
            "properties": {**_PROPERTIES, "comment": table.meaning},
        }

    def renew(self, table: schema.Table, files: Sequence[File]) -> None:
        """Stage a new table of these files in the place of the one with its name, if there is one."""
        with metadata_errors(self.root, table.name):
            try:
                before = super().load_table((NAMESPACE, table.name)).metadata_location
            except NoSuchTableError:
                before = None
            staged = self._create_staged_table((NAMESPACE, table.name), **self._description(table))
            # It is named by the log of the next metadata.
            self._write_metadata(staged.metadata, staged.io, staged.metadata_location)
            pointer = staged.metadata_location
            if files:
                made = Table((NAMESPACE, table.name), staged.metadata, staged.metadata_location, staged.io, self)
                transaction = _Transaction(made)
                with transaction.update_snapshot().fast_append() as producer:
                    for data_file in _data_files(made, files, table, self.root):
                        producer.append_data_file(data_file)
                transaction.commit_transaction()
                pointer = self._staged[table.name][1]
            self._staged[table.name] = before, pointer

    def load_table(self, identifier: str | Identifier) -> Table:
        """Return a table with its current metadata. LakeError if the catalog has no such table."""
        try:
            return super().load_table(identifier)
        except NoSuchTableError as error:
            name = Catalog.table_name_from(identifier)
            raise LakeError(f"the catalog of the lake at {self.root} has no table {name} any longer") from error

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Write the new metadata beside the old; ``apply`` makes it current."""
        name = Catalog.table_name_from(table.name())
        if name in self._staged:
            raise RuntimeError(f"{name} is staged already: one transaction per table and commit")
        updates = tuple(_not_before(update, table.metadata.last_updated_ms) for update in updates)
        staged = self._update_and_stage_table(table, table.name(), requirements, updates)
        last = max(staged.metadata.last_updated_ms, table.metadata.last_updated_ms)
        metadata = staged.metadata.model_copy(update={"last_updated_ms": last})
        self._write_metadata(metadata, staged.io, staged.metadata_location)
        self._staged[name] = (table.metadata_location, staged.metadata_location)
        answer = {"metadata": metadata, "metadata-location": staged.metadata_location}
        return CommitTableResponse.model_validate(answer)

    def change(
        self, table: schema.Table, added: Sequence[File], removed: Sequence[File] = (), **properties: str
    ) -> None:
        """Stage one snapshot of a table: files added and files removed."""
        with metadata_errors(self.root, table.name):
            self._change(table, added, removed, properties)

    def _change(
        self, table: schema.Table, added: Sequence[File], removed: Sequence[File], properties: dict[str, str]
    ) -> None:
        loaded = self.load_table((NAMESPACE, table.name))
        transaction = _Transaction(loaded)
        if removed:
            producer: Any = Replacement(
                transaction, {f"{location(self.root)}/{file.path}" for file in removed}, properties
            )
        else:
            producer = Append(transaction, properties, MERGE_ABOVE + list(schema.TABLES).index(table.name))
        with producer:
            for data_file in _data_files(loaded, added, table, self.root):
                producer.append_data_file(data_file)
        snapshots = _in_order(loaded.metadata)
        if len(snapshots) > EXPIRE_ABOVE:
            # Staged into the same transaction: the expiry costs no commit of its own.
            _expire(transaction, [snapshot.snapshot_id for snapshot in snapshots[:-KEPT_SNAPSHOTS]])
        transaction.commit_transaction()

    def snapshots(self, name: str) -> list[tuple[int, int]]:
        """Return (id, time in milliseconds) of a table's snapshots, oldest first; the last one is current."""
        snapshots = _in_order(self.load_table((NAMESPACE, name)).metadata)
        return [(snapshot.snapshot_id, snapshot.timestamp_ms) for snapshot in snapshots]

    def expire(self, name: str, snapshot_ids: Sequence[int]) -> None:
        """Stage the removal of snapshots from a table's history."""
        transaction = _Transaction(self.load_table((NAMESPACE, name)))
        _expire(transaction, list(snapshot_ids))
        transaction.commit_transaction()

    def metadata_files(self, name: str) -> set[str]:
        """Return the paths in the lake of Iceberg's own files that a table needs.

        Those are the files of its snapshots, and the last few metadata files.
        """
        table = self.load_table((NAMESPACE, name))
        needed = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
        with metadata_errors(self.root, name):
            for snapshot in table.metadata.snapshots:
                needed.add(snapshot.manifest_list)
                needed.update(manifest.manifest_path for manifest in snapshot.manifests(table.io))
        return set(map(self._path, needed))

    def data_files(self, name: str) -> set[str]:
        """Return the paths in the lake of the data files that any of a table's snapshots holds."""
        table = self.load_table((NAMESPACE, name))
        with metadata_errors(self.root, name):
            manifests = {
                manifest.manifest_path: manifest
                for snapshot in table.metadata.snapshots
                for manifest in snapshot.manifests(table.io)
            }
            entries = (entry for manifest in manifests.values() for entry in manifest.fetch_manifest_entry(table.io))
            return {self._path(entry.data_file.file_path) for entry in entries}

    def _path(self, place: str) -> str:
        """Return the path in the lake of a location; the location itself if it lies outside."""
        return place.removeprefix(f"{location(self.root)}/")

    def relocate(self, name: str, pointer: str, old: str, new: str) -> list[str]:
        """Stage a table that was moved from the folder ``old`` to ``new``: one snapshot of its live files.

        ``pointer`` is the metadata location in the catalog. The older snapshots are dropped, because their manifests
        hold paths of the old folder. Return the paths of the live files.
        """
        with metadata_errors(self.root, name):
            return self._relocated(name, pointer, old, new)

    def _relocated(self, name: str, pointer: str, old: str, new: str) -> list[str]:
        io = self._io

        def here(path: str) -> str:
            return new + path[len(old) :] if path.startswith(f"{old}/") else path

        before = read_metadata(io, here(pointer))
        head = before.current_snapshot()
        fields: dict[str, Any] = {"location": f"{new}/{name}", "snapshots": [], "refs": {}, "current_snapshot_id": None}
        fields |= {"metadata_log": [], "snapshot_log": [], "statistics": [], "partition_statistics": []}
        blank = before.model_copy(update=fields)
        # Nothing may point to the old folder: if this is a copy, another engine would clean up the original.
        table = Table((NAMESPACE, name), blank, here(pointer), io, self)
        transaction = _Transaction(table)
        live: list[str] = []
        # An empty table still gets its new location written.
        transaction.set_properties({"trailsift.relocated-from": old})
        if head is not None:
            with transaction.update_snapshot().fast_append() as producer:
                for manifest in read_manifest_list(io.new_input(here(head.manifest_list))):
                    manifest[0] = here(manifest.manifest_path)
                    for entry in manifest.fetch_manifest_entry(io):
                        entry.data_file[1] = here(entry.data_file.file_path)
                        forms.data_location(self.root, name, entry.data_file.file_path)
                        live.append(entry.data_file.file_path)
                        producer.append_data_file(entry.data_file)
        transaction.commit_transaction()
        self._staged[name] = pointer, self._staged[name][1]
        return live

    def apply(self, db: sqlite3.Connection) -> None:
        """Make everything staged current, in the open transaction of ``db``. ConflictError if a table has changed."""
        for name, (old, new) in self._staged.items():
            if old is None:
                self.insert_pointer(db, NAMESPACE, name, new)
                continue
            changed = db.execute(
                "UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = ? "
                "WHERE catalog_name = ? AND table_namespace = ? AND table_name = ? AND metadata_location = ?",
                (new, old, self.name, NAMESPACE, name, old),
            )
            if changed.rowcount != 1:
                raise ConflictError(
                    f"another engine changed the table {name} during the commit: nothing was committed; run the same "
                    "command again"
                )
        self._staged.clear()

    def take_written(self) -> list[str]:
        """Return the paths in the lake of the files written since the last call."""
        written, self._io.written = self._io.written, []
        return written

    def take_replaced(self) -> list[str]:
        """Return the paths in the lake of the metadata files that the logs of what was staged name no longer."""
        replaced, self._replaced = self._replaced, []
        return replaced

    def _delete_old_metadata(self, _: FileIO, base: TableMetadata, metadata: TableMetadata) -> None:  # type: ignore[override]
        """Note what PyIceberg deletes at once: staged is not committed, and one request deletes all of it."""
        kept = {entry.metadata_file for entry in metadata.metadata_log}
        old = (entry.metadata_file for entry in base.metadata_log if entry.metadata_file not in kept)
        paths = (str(self._io.path(place).relative_to(self.root)) for place in old)
        self._replaced += [path for path in paths if forms.is_own_metadata(path)]

    def prefetch(self, tables: Iterable[schema.Table]) -> None:
        """Have what a commit to these tables reads of a lake in S3 fetched, all tables at the same time."""
        from concurrent.futures import ThreadPoolExecutor

        names = [table.name for table in tables]
        if mirror_of(self.root) is None or len(names) < 2:
            return
        with ThreadPoolExecutor(len(names)) as pool:
            for _ in pool.map(self._prefetch, names):
                pass

    def _prefetch(self, name: str) -> None:
        with metadata_errors(self.root, name):
            head = self.load_table((NAMESPACE, name)).metadata.current_snapshot()
            for manifest in head.manifests(self._io) if head else ():
                self._io.present(manifest.manifest_path)

    def discard(self) -> None:
        """Forget what is staged; its files stay behind until they are expired."""
        self._staged.clear()
        self._replaced.clear()


class _Transaction(Transaction):
    """A transaction that keeps the table's metadata until something is staged.

    PyIceberg makes a deep copy of it each time it is read, some fifteen times per commit.
    """

    _kept: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The table's metadata, with what is staged."""
        before, updates = self._table.metadata, self._updates
        if self._kept is None or self._kept[0] is not before or self._kept[1] is not updates:
            self._kept = before, updates, super().table_metadata
        return self._kept[2]


def _not_before(update: TableUpdate, last: int) -> TableUpdate:
    """Return an update whose snapshot is not older than ``last``, in milliseconds since 1970.

    Clocks go back, and the next writer may have another one. Iceberg for Java, and so Athena and Spark, refuses a table
    whose history is out of order.
    """
    if not isinstance(update, AddSnapshotUpdate) or update.snapshot.timestamp_ms > last:
        return update
    snapshot = update.snapshot.model_copy(update={"timestamp_ms": last + 1})
    return update.model_copy(update={"snapshot": snapshot})


def _in_order(metadata: TableMetadata) -> list[Snapshot]:
    """Return the snapshots in the order of their commits, the current one last.

    Not by their times: clocks go back, and the current snapshot must never be the one to expire.
    """
    current = metadata.current_snapshot_id
    return sorted(
        metadata.snapshots,
        key=lambda snapshot: (snapshot.snapshot_id == current, snapshot.sequence_number or 0),
    )


def _expire(transaction: Transaction, snapshot_ids: list[int]) -> None:
    transaction._stage((RemoveSnapshotsUpdate.model_validate({"snapshot-ids": snapshot_ids}),))


class Append(_FastAppendFiles):
    """A snapshot with more files. Small manifests become one when they are many.

    PyIceberg's own append that merges writes all entries of up to 8 MB of manifests again, tens of thousands of them.
    """

    def __init__(self, transaction: Transaction, properties: dict[str, str], merge_above: int) -> None:
        super().__init__(
            Operation.APPEND, transaction, transaction._table.io, snapshot_properties=properties or EMPTY_DICT
        )
        self._merge_above = merge_above

    def _existing_manifests(self) -> list[ManifestFile]:
        manifests = super()._existing_manifests()
        small = [manifest for manifest in manifests if _is_small(manifest)]
        if len(small) <= self._merge_above:
            return manifests
        stay: dict[int, list[ManifestEntry]] = {}
        for manifest in small:
            entries = manifest.fetch_manifest_entry(self._io, discard_deleted=True)
            stay.setdefault(manifest.partition_spec_id, []).extend(_copy(entry) for entry in entries)
        large = [manifest for manifest in manifests if not _is_small(manifest)]
        return [*large, *_packed(self, stay)]


def _is_small(manifest: ManifestFile) -> bool:
    entries = (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
    return manifest.content == ManifestContent.DATA and entries < MANIFEST_ENTRIES // 2


def _copy(entry: ManifestEntry, deleted_in: int | None = None) -> ManifestEntry:
    """Return an entry of another manifest: of a file that exists, or that a snapshot has deleted."""
    return ManifestEntry.from_args(
        status=ManifestEntryStatus.EXISTING if deleted_in is None else ManifestEntryStatus.DELETED,
        snapshot_id=entry.snapshot_id if deleted_in is None else deleted_in,
        sequence_number=entry.sequence_number,
        file_sequence_number=entry.file_sequence_number,
        data_file=entry.data_file,
    )


def _packed(producer: Any, entries: dict[int, list[ManifestEntry]]) -> list[ManifestFile]:
    """Write manifests of entries, by specification and partition."""
    manifests = []
    for spec_id, kept in entries.items():
        kept.sort(key=lambda entry: [str(value) for value in entry.data_file.partition._data])
        for start in range(0, len(kept), MANIFEST_ENTRIES):
            with producer.new_manifest_writer(producer.spec(spec_id)) as writer:
                for entry in kept[start : start + MANIFEST_ENTRIES]:
                    writer.add_entry(entry)
            manifests.append(writer.to_manifest_file())
    return manifests


class Replacement(_SnapshotProducer["Replacement"]):
    """A snapshot in which files take the place of others that held the same rows.

    PyIceberg's own overwrite reads every manifest twice and evaluates a predicate of all partitions against it. This
    one reads each manifest once, compares paths, and packs what stays by partition, so that readers open few manifests.
    """

    def __init__(self, transaction: Transaction, removed: set[str], properties: dict[str, str]) -> None:
        super().__init__(
            Operation.OVERWRITE, transaction, transaction._table.io, snapshot_properties=properties or EMPTY_DICT
        )
        self._removed = removed

    def _build_delete_files_partition_predicate(self) -> None:
        """Build nothing: files are named by their paths."""

    @cached_property
    def _plan(self) -> tuple[list[ManifestFile], list[ManifestEntry]]:
        """The manifests of the new snapshot that hold what stays, and the entries of the removed files."""
        manifests: list[ManifestFile] = []
        removed: list[ManifestEntry] = []
        stay: dict[int, list[ManifestEntry]] = {}
        head = self._transaction.table_metadata.current_snapshot()
        for manifest in head.manifests(self._io) if head else []:
            entries = manifest.fetch_manifest_entry(self._io)
            touched = [entry for entry in entries if entry.data_file.file_path in self._removed]
            if manifest.content != ManifestContent.DATA or (not touched and len(entries) >= MANIFEST_ENTRIES // 2):
                manifests.append(manifest)
                continue
            removed += [_copy(entry, self.snapshot_id) for entry in touched]
            kept = [_copy(entry) for entry in entries if entry.data_file.file_path not in self._removed]
            stay.setdefault(manifest.partition_spec_id, []).extend(kept)
        manifests += _packed(self, stay)
        missing = self._removed - {entry.data_file.file_path for entry in removed}
        if missing:
            raise LakeError(f"{len(missing)} files to be replaced are no longer in the table, such as {min(missing)}")
        return manifests, removed

    def _existing_manifests(self) -> list[ManifestFile]:
        return self._plan[0]

    def _deleted_entries(self) -> list[ManifestEntry]:
        self._deleted_data_files = {entry.data_file for entry in self._plan[1]}
        return self._plan[1]

    def _summary(self, snapshot_properties: dict[str, str] = EMPTY_DICT) -> Summary:
        # PyIceberg cannot summarize a replacement, but incremental readers must see that it is one.
        summary = super()._summary(snapshot_properties)
        return Summary(Operation.REPLACE, **summary.additional_properties)
