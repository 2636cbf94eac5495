"""Iceberg's field ids on Arrow schemas, apart from PyIceberg: the workers that write Parquet do not import it."""

from __future__ import annotations

import pyarrow as pa

from trailsift import event


def field_id(table: event.Table, name: str) -> int:
    """Field ids count from 1 in column order."""
    return next(number for number, column in enumerate(table.columns, 1) if column.name == name)


def element_id(table: event.Table, name: str) -> int:
    """The id of a list's elements: they follow the last column, as Iceberg numbers a new schema."""
    lists = [column.name for column in table.columns if column.type.startswith("list")]
    return len(table.columns) + 1 + lists.index(name)


def field_ids(schema: pa.Schema, table: event.Table) -> pa.Schema:
    """The Arrow schema with Iceberg's field ids, as other engines look for them in the Parquet files."""
    fields = []
    for field in schema:
        kind = field.type
        if pa.types.is_list(kind):
            mark = {"PARQUET:field_id": str(element_id(table, field.name))}
            kind = pa.list_(pa.field("element", kind.value_type, metadata=mark))
        mark = {"PARQUET:field_id": str(field_id(table, field.name))}
        fields.append(pa.field(field.name, kind, metadata=mark))
    return pa.schema(fields)
