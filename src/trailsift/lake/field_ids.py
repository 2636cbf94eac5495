"""Iceberg's field ids on Arrow schemas, without PyIceberg: the workers that write Parquet do not import it."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa

from trailsift import schema
from trailsift.columns.arrow import arrow_schema


def field_id(table: schema.Table, name: str) -> int:
    """Return a column's field id; they count from 1 in column order."""
    return next(number for number, column in enumerate(table.columns, 1) if column.name == name)


def element_id(table: schema.Table, name: str) -> int:
    """Return the id of a list's elements: they follow the last column, as Iceberg numbers a new schema."""
    lists = [column.name for column in table.columns if column.type.startswith("list")]
    return len(table.columns) + 1 + lists.index(name)


@lru_cache
def field_ids(table: schema.Table) -> pa.Schema:
    """Return a table's Arrow schema with Iceberg's field ids, which other engines look for in Parquet files."""
    fields = []
    for field in arrow_schema(table):
        kind = field.type
        if pa.types.is_list(kind):
            element = {"PARQUET:field_id": str(element_id(table, field.name))}
            kind = pa.list_(pa.field("element", kind.value_type, metadata=element))
        metadata = {"PARQUET:field_id": str(field_id(table, field.name))}
        fields.append(pa.field(field.name, kind, metadata=metadata))
    return pa.schema(fields)
