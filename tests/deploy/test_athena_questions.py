"""Questions over all tables and columns of the schema, translated for Athena, with their rows on a real Trino."""

from __future__ import annotations

from typing import Any

from support.trino import Trino
from trailsift import schema
from trailsift.deploy import tables
from trailsift.query.trino_sql import translate

#: Questions over the tables and columns of format version 2, in our SQL, and their rows on the tables below.
QUESTIONS = {
    "SELECT caller, sum(events)::BIGINT FROM access WHERE kind = 'read' AND day >= '2026-03-02'"
    " GROUP BY caller ORDER BY caller": [["anonymous", "2"], ["arn:r", "3"]],
    "SELECT touch, sum(denied)::BIGINT, sum(owner_side)::BIGINT FROM access GROUP BY ALL ORDER BY touch": [
        ["source", "0", "0"], ["target", "1", "2"]
    ],
    "SELECT session_name, count(DISTINCT source_network) AS networks FROM sessions GROUP BY 1 HAVING networks > 1": [
        ["job", "2"]
    ],
    "SELECT sum(events)::BIGINT FROM usage WHERE touch = 'target' AND category <> 'Insight'": [["7"]],
    "SELECT category, caller FROM hourly WHERE category IN ('Data', 'unknown') ORDER BY caller": [["Data", "arn:r"]],
    "SELECT dimension, caller FROM profile WHERE category = 'Data'": [["session_name", "arn:r"]],
    "SELECT principal_id, source_resource_arn || '/' || source_object_key FROM events WHERE caller LIKE 'account:%'"
    " AND event_time >= '2026-03-02'": [["AIDAX", "arn:aws:s3:::src/k"]],
}  # fmt: skip
#: table -> rows by column; all other columns are NULL.
ROWS: dict[str, list[dict[str, Any]]] = {
    "access": [
        {"kind": "read", "caller": "arn:r", "touch": "target", "events": 3, "denied": 1, "owner_side": 2},
        {"kind": "read", "caller": "anonymous", "touch": "source", "events": 2, "denied": 0, "owner_side": 0},
        {"kind": "delete-batch", "caller": "none", "touch": "target", "events": 1, "denied": 0, "owner_side": 0},
    ],
    "sessions": [
        {"caller": "arn:r", "session_name": "job", "source_network": "10.0.0.0/24", "events": 1},
        {"caller": "arn:r", "session_name": "job", "source_network": "10.0.1.0/24", "events": 1},
        {"caller": "arn:r", "session_name": "other", "source_network": "10.0.1.0/24", "events": 1},
    ],
    "usage": [
        {"touch": "target", "category": "Data", "events": 7},
        {"touch": "source", "category": "Data", "events": 2},
    ],
    "hourly": [{"caller": "arn:r", "category": "Data"}, {"caller": "arn:s", "category": "Management"}],
    "profile": [{"caller": "arn:r", "category": "Data", "dimension": "session_name"}],
    "events": [
        {"caller": "account:444455556666/AIDAX", "principal_id": "AIDAX", "source_resource_arn": "arn:aws:s3:::src",
         "source_object_key": "k", "year": "2026"},
    ],
    "rejects": [{}],
}  # fmt: skip


def _table(name: str) -> str:
    """Return the statement that creates a table in Trino, of the types that Athena's DDL gives its columns."""
    table = schema.TABLES[name]
    times = {"timestamp": "TIMESTAMP '2026-03-02 01:00:00'", "date": "DATE '2026-03-02'"}
    words = {
        "boolean": "boolean",
        "string": "varchar",
        "array<string>": "array(varchar)",
        "array<bigint>": "array(bigint)",
    }

    def cell(column: schema.Column, row: dict[str, Any]) -> str:
        value = row.get(column.name)
        text = times.get(column.type) or (
            "NULL" if value is None else f"'{value}'" if isinstance(value, str) else value
        )
        kind = tables.DDL_TYPES[column.type]
        return f"CAST({text} AS {words.get(kind, kind)}) AS {column.name}"

    selects = (f"SELECT {', '.join(cell(column, row) for column in table.columns)}" for row in ROWS[name])
    return f"CREATE TABLE {name} AS {' UNION ALL '.join(selects)}"


def test_trino_answers_questions_over_all_tables(trino: Trino) -> None:
    """Each table and column of the schema, translated as the athena engine does."""
    assert ROWS.keys() == schema.TABLES.keys()
    for name, table in schema.TABLES.items():
        trino.run(_table(name))
        listed = ", ".join(column.name for column in table.columns)
        (row, *_) = trino.run(translate(f"SELECT {listed} FROM {name}", "default").sql)
        assert len(row) == len(table.columns)
    for question, expected in QUESTIONS.items():
        assert trino.run(translate(question, "default").sql) == expected, question


def test_every_column_is_translated() -> None:
    for name, table in schema.TABLES.items():
        times = [column.name for column in table.columns if column.type in ("timestamp", "date")]
        where = " AND ".join(f"{column} >= '2026-03-02'" for column in times)
        translated = translate(f"SELECT {', '.join(c.name for c in table.columns)} FROM {name} WHERE {where}", "lake")
        assert f"FROM lake.{name} AS {name}" in translated.sql
        assert translated.sql.count("CAST('2026-03-02") == len(times)
