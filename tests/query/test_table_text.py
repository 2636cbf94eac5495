"""Tables that fit their width: nothing is left out in silence, and nothing is wider."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from trailsift.cli import main
from trailsift.query.table_text import Column, blocks, table

_TEXT = st.text("aB1-., é한", max_size=60)
_COLUMNS = st.lists(st.tuples(st.text("abc_", min_size=1, max_size=12), st.booleans()), min_size=1, max_size=30)


@given(_COLUMNS, st.integers(10, 200), st.data())
def test_what_is_left_out_is_said(listed: list[tuple[str, bool]], width: int, data: st.DataObject) -> None:
    columns = [Column(name, number, number) for name, number in listed]
    value = {True: st.integers(0, 10**9).map(str), False: _TEXT}
    rows = data.draw(
        st.lists(st.tuples(*(value[column.is_number] for column in columns)), min_size=1, max_size=4), "rows"
    )
    made = table(columns, rows, width)
    lines = made.text.splitlines()
    widest = max(len(row[0]) for row in rows)
    assert max(map(cell_len, lines)) <= max(width, widest), "only a number that is all of a table may be wider"
    head = lines[0].split()
    said = re.match(r"(\d+) columns, (\d+) shown", made.left_out)
    if len(columns) > 1:
        assert len(head) == (int(said[2]) if said else len(columns))
        assert ("long values are cut" in made.left_out) == any("…" in line for line in lines)
    if not made.left_out and len(columns) > 1:
        for row, line in zip(rows, lines[2:], strict=True):
            assert all(cell.strip() in line for cell in row)


def test_numbers_and_times_stay_whole_and_empty_columns_go_first() -> None:
    columns = [Column("caller", False, False), Column("error", False, False), Column("agent", False, False)]
    columns += [Column("first", False, True), Column("n", True, True)]
    row = ["role/" + "x" * 90, "-", "y" * 30, "2026-03-02T00:00:00.123456Z", "1234567890"]
    made = table(columns, [row], 90)
    assert row[3] in made.text and row[4] in made.text
    assert made.left_out.startswith("5 columns, 4 shown; long values are cut")
    assert "error" not in made.text


def test_a_block_per_row_is_complete() -> None:
    names = ["event_time", "agent"]
    text = blocks(names, [["2026", "z" * 100], ["2027", "한" * 40]], 9, 40)
    assert text.splitlines()[0].startswith("── row 9 ─") and "── row 10 ─" in text
    assert text.count("z") == 100 and text.count("한") == 40
    assert max(map(cell_len, text.splitlines())) <= 40
    assert all(line.startswith(("── row", *names, " " * 13)) for line in text.splitlines())
    assert "z" * 100 in blocks(names, [["2026", "z" * 100]], 1, None)


@pytest.mark.parametrize("width", [80, 120])
def test_select_star(
    width: int, small_lake: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for name in ("events", "hourly", "usage", "access", "sessions"):
        assert main(["query", f"SELECT * FROM {name} LIMIT 2", "--lake", str(small_lake)]) == 0
        lines = capfdbinary.readouterr().out.decode().splitlines()
        assert len(lines) == 6 and len(lines[2].split()) >= 3 and max(map(len, lines)) <= width
        assert re.match(r"\d+ columns, \d+ shown", lines[-1])
    assert main(["query", "SELECT * FROM events LIMIT 2", "--lake", str(small_lake), "--format", "line"]) == 0
    out = capfdbinary.readouterr().out.decode()
    assert out.count("\nevent_id ") == out.count("\nuser_agent ") == out.count("\nservice ") == 2
