"""A record in any spelling of JSON is read alike on every path, and is given back as it was read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.spellings import check_spellings
from support.logs import exported
from support.paths import TESTS
from support.records import sample
from trailsift.decode.json_text import INVALID, compact, dump, is_spaced, is_too_deep, parse
from trailsift.decode.limits import LIMITS
from trailsift.ingest import ingest
from trailsift.ingest.chunk_builder import ChunkBuilder

CASES: list[dict[str, Any]] = json.loads((TESTS / "cases" / "spellings.json").read_text("utf-8"))
_FILLERS = {
    "DIGITS": lambda size: "1" * size,
    "LISTS": lambda size: "[" * size + "]" * size,
    "FLAT": lambda size: ",".join(["[]"] * size),
    "BRACKETS": lambda size: "[{" * size,
}


def spelled(case: dict[str, Any], number: int = 1) -> str:
    """The text of a case: ``raw`` has the JSON of members, ``twice`` that of members which occur a second time."""
    service, name = case.get("service", "s3"), case.get("name", "GetObject")
    value = sample(
        eventID=f"{number:08x}-2222-4333-8444-555555555555", eventSource=f"{service}.amazonaws.com", eventName=name
    )
    comma, colon = case.get("separators", [",", ":"])
    pairs = [(member, json.dumps(each, separators=(comma, colon))) for member, each in value.items()]
    pairs = [(member, case.get("raw", {}).get(member, each)) for member, each in pairs] + [
        *case.get("twice", {}).items()
    ]
    text = "{" + comma.join(f'"{member}"{colon}{each}' for member, each in pairs) + "}"
    return re.sub(r"\$([A-Z]+)-(\d+)\$", lambda match: _FILLERS[match[1]](int(match[2])), text)


def texts(case: dict[str, Any]) -> dict[str, bytes]:
    """A case in every form that a text may have, after a plain record, so that readers remember another spelling."""
    comma, colon = case.get("separators", [",", ":"])
    plain, text = spelled({}, 2), spelled(case)
    blanks = str.maketrans({"\n": " ", "\r": " ", "\t": "\t"})
    one, both = f'{{"Records"{colon}[{text}]}}', f'{{"Records"{colon}[{plain}{comma}{text}]}}'
    lines = text if "reason" in case else text.translate(blanks)
    forms = {"alone": one, "Records": both, "array": f"[{plain}{comma}{text}]", "lines": f"{plain}\n{lines}"}
    return {form: each.encode() for form, each in forms.items()}


@pytest.mark.parametrize("form", ["alone", "Records", "array", "lines"])
@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_every_path_reads_a_spelling_alike(case: dict[str, Any], form: str) -> None:
    data = texts(case)[form]
    assert check_spellings([data]) is None
    assert check_spellings([texts({})[form], data]) is None
    for scan in (True, False):
        builder = ChunkBuilder(scan=scan)
        stats = builder.add("object", data)
        rows = {row["event_id"]: row for row in builder.finish().table.to_pylist()}
        if "reason" in case:
            # Salvage of damaged text may name it otherwise; the record is one reject, and the one before it is read.
            assert stats.malformed.parts == 1 and len(rows) == (form != "alone")
            continue
        assert stats.malformed == [] and len(rows) == 1 + (form != "alone")
        row = rows["00000001-2222-4333-8444-555555555555"]
        expect = case.get("expect", {})
        assert {name: row[name] for name in expect} == expect


def test_every_spelling_survives_a_lake(tmp_path: Path) -> None:
    good = [case for case in CASES if "reason" not in case]
    records = [spelled(case, number) for number, case in enumerate(good)]
    (tmp_path / "in").mkdir()
    for number, record in enumerate(records):
        (tmp_path / "in" / f"{number}.json").write_text(f'{{"Records":[{record}]}}', "utf-8")
    for number, case in enumerate(CASES):
        if "reason" in case:
            (tmp_path / "in" / f"bad-{number}.json").write_text(f'{{"Records":[{spelled(case, number)}]}}', "utf-8")
    counts = ingest([str(tmp_path / "in")], tmp_path / "lake")
    assert (counts.stored, counts.malformed) == (len(good), len(CASES) - len(good))
    wanted = sorted(json.dumps(json.loads(record), sort_keys=True) for record in records)
    assert sorted(exported(tmp_path / "lake")) == wanted


def test_ids_that_differ_in_a_final_nul_are_two(tmp_path: Path) -> None:
    id = "11111111-2222-4333-8444-555555555555"
    events = [sample(eventID=id), sample(eventID=id + "\0"), sample(eventID=id + "\0\0"), sample(eventID=id + "0")]
    (tmp_path / "log.json").write_text(json.dumps({"Records": events}, separators=(",", ":")))
    counts = ingest([str(tmp_path / "log.json")], tmp_path / "lake")
    assert (counts.stored, counts.duplicates, counts.malformed) == (4, 0, 0)


def test_one_lone_surrogate_does_not_reject_a_whole_array() -> None:
    records = [spelled({}, number) for number in range(5)]
    records[3] = spelled({"raw": {"userAgent": '"\\ud800"'}}, 3)
    builder = ChunkBuilder()
    stats = builder.add("object", ("[" + ",".join(records) + "]").encode())
    assert (stats.records, stats.malformed) == (5, [])


# -- what the spelling says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("{}", False),
        ("{ }", True),
        ("[ ]", True),
        ('{"a":1 }', True),
        ('{"a" :1}', True),
        ('{"a": 1}', True),
        ('{"a":1, "b":2}', True),
        ('{"a":1 ,"b":2}', True),
        ("[1,\t2]", True),
        ("[1,\r\n2]", True),
        ('{"a":" , : [ ] { } "}', False),
        ('{"a, b":"c: d","e":"\\", "}', False),
        ('{"a, b":"c: d","e":"\\", ", "f":1}', True),
    ],
)
def test_blanks_outside_of_strings(text: str, spaced: bool) -> None:
    assert is_spaced(text.encode()) is spaced
    value = json.loads(text)
    assert json.loads(compact(text.encode())) == value and not is_spaced(compact(text.encode()))


def test_depth_counts_no_brackets_in_strings() -> None:
    levels = LIMITS.nesting
    assert not is_too_deep(b"[" * levels + b"]" * levels)
    assert is_too_deep(b"[" * (levels + 1) + b"]" * (levels + 1))
    assert not is_too_deep(b'["' + b"[{" * levels + b'\\"[","x"]')
    assert not is_too_deep(b"[" + b"{}," * levels * 3 + b"[]]")


def test_what_is_written_is_json() -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    value = json.loads('{"a":[1e400,-1e400,"Infinity","\\"-Infinity"],"Infinity":"\\\\","\\ud800":1e400}')
    text = dump(value)
    assert json.loads(text, parse_constant=refuse) == value
    assert parse(text) is not INVALID


def test_what_was_read_at_any_depth_can_be_read_again(tmp_path: Path) -> None:
    """The deepest record that is accepted is exported by the command, whose stack is deeper than that of ingest."""
    case = {"raw": {"responseElements": "[" * (LIMITS.nesting - 1) + "]" * (LIMITS.nesting - 1)}}
    (tmp_path / "log.json").write_text(f'{{"Records":[{spelled(case)}]}}')
    counts = ingest([str(tmp_path / "log.json")], tmp_path / "lake")
    assert (counts.stored, counts.malformed) == (1, 0)
    command = [sys.executable, "-m", "trailsift", "export", "--lake", str(tmp_path / "lake")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and json.loads(done.stdout) == json.loads(spelled(case))


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("is_too_deep", r"""b"{" * 300 + b'"' + b'\\"' * 500_000"""),
        ("has_escaped_name", r"""b'{"a":"' + b"\\u0041" * 500_000 + b'"}'"""),
    ],
)
def test_no_text_is_looked_at_twice(function: str, text: str) -> None:
    """Escapes, and quotes that are left open, would cost hours if a search began again at each of them."""
    code = f"from trailsift.decode.json_text import {function}; {function}({text})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
