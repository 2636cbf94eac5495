"""Rules files that anybody wrote: refused in words, or decided alike by the row and by the column."""

from __future__ import annotations

import contextlib
import functools
import json
import random
from typing import Any

import numpy as np
import pyarrow as pa

from fuzz.mutate import corpus, encoded
from support.paths import TESTS
from trailsift.columns.arrow import CHUNK_SCHEMA
from trailsift.decode import record
from trailsift.decode.outcome import NotARecord
from trailsift.errors import RulesError
from trailsift.ingest.sift import ColumnarRules
from trailsift.rules.matcher import RowRules
from trailsift.rules.model import FIELDS, Rules
from trailsift.rules.parser import parse

_ROWS = 60
_VALUES = (
    '"s3"', '"dynamodb"', '"*"', '"[*]"', '"a*b"', '""', '"{n}"', '"us-*"', '"NoSuch*"', '"10.0.0.0/8"', '"::1"',
    '"::/0"',
    '"0.0.0.0/0"', '"10.0.0.1/33"', '"mon-fri"', '"sat"', '"22-05"', '"24"', "7", "-1", "1e400", "nan", "true", "false",
    '["s3", "lambda"]', "[]", "[[]]", "{}", '{ "09-17" = 0.1, otherwise = 0.5 }', "2026-03-02", "0.5", "1e-9", "1e-12",
    '"arn:aws:iam::*:role/*"', '"\\u0000"', '"\\u202e"', '"é"', "'''x'''", '"' + "a" * 300 + '"', "[" * 3000,
    '"*' * 50 + '"',
)  # fmt: skip
_NAMES = (*FIELDS, "hour", "weekday", "key_pattern", "colour", '"a.b"', "when", "rate")
_ACTIONS = ('"keep"', '"drop"', '"sample"', '"delete"', "1")
_ZONES = ('"Asia/Seoul"', '"UTC"', '"America/New_York"', '"../../etc/passwd"', '"Nowhere"', "5", '"\\u0000"')


@functools.cache
def _files() -> list[str]:
    return [path.read_text("utf-8") for path in sorted((TESTS / "cases" / "rules").glob("*.toml"))]


@functools.cache
def _rows() -> list[dict[str, Any]]:
    rows = []
    for members in corpus():
        with contextlib.suppress(NotARecord, ValueError):
            rows.append(record.row(json.loads(encoded(members)), "x"))
    return rows


def draw(rng: random.Random) -> str:
    """Return the text of a rules file: made of parts, or a good one that was changed."""
    if rng.random() < 0.7:
        text = f"timezone = {rng.choice(_ZONES)}\n" * (rng.random() < 0.4) + 'seed = "x"\n' * (rng.random() < 0.3)
        for number in range(rng.randint(1, 6)):
            named = rng.sample(_NAMES, rng.randint(0, 3))
            when = ", ".join(f"{name} = {rng.choice(_VALUES)}" for name in named)
            text += f'[[rule]]\nname = "r{number}"\nwhen = {{ {when} }}\naction = {rng.choice(_ACTIONS)}\n'
            if rng.random() < 0.4:
                text += f"rate = {rng.choice(_VALUES)}\n"
        if rng.random() < 0.2:
            text += f"[fields]\nomit = {rng.choice(_VALUES)}\n"
        return text
    text = rng.choice(_files())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice((0, 1, 1, 5, 40)))
        text = text[:at] + rng.choice(("", '"', "'", "[", "]", "=", "\n", "#", "\x00", ".", *_VALUES[:12])) + text[end:]
    return text


def check(text: str, rng: random.Random) -> str | None:
    """Return what is wrong with the answer to a rules file; None if nothing is."""
    try:
        rules = parse(text, "fuzz.toml")
    except RulesError as error:
        return None if str(error).startswith("fuzz.toml") else f"a refusal that does not name the file: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return _decide(rules, rng)


def _decide(rules: Rules, rng: random.Random) -> str | None:
    rows = [dict(row) for row in rng.choices(_rows(), k=_ROWS)]
    for row in rows:
        row["event_time"] += rng.randrange(14 * 86_400) * 1_000_000
    by_row = RowRules(rules)
    columnar = ColumnarRules(rules)
    names = columnar.looked_at
    table = pa.table({name: pa.array([row[name] for row in rows], CHUNK_SCHEMA.field(name).type) for name in names})
    ids = np.zeros((len(rows), 16), np.uint8)
    expected = [by_row.match(row)[0] for row in rows]
    found = columnar.decide(table, ids).rule.tolist()
    if found != expected:
        at = next(number for number in range(_ROWS) if found[number] != expected[number])
        return f"columns choose rule {found[at]}, rows {expected[at]}: {rows[at]}"
    return None
