"""The structure of the package, read from its code: which part imports which, drawn as docs/architecture.svg.

Parts are the packages and modules directly under `src/trailsift`; rows are the layers of the import contract
(`.importlinter`), so a line only ever leads down. A line that follows from two others is left out.
"""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "trailsift"

_WIDTH, _ROW, _HEIGHT, _MARGIN = 860, 74, 30, 20
#: Width of a character of the font below, in pixels.
_CHARACTER = 7.4


def layers() -> list[list[str]]:
    """Return the parts of each layer of the import contract that exist, the highest layer first."""
    contract = configparser.ConfigParser()
    contract.read(ROOT / ".importlinter", "utf-8")
    text = contract["importlinter:contract:one-way"]["layers"]
    rows = [re.findall(r"\w+", line) for line in text.strip().splitlines()]
    return [existing for row in rows if (existing := [part for part in row if part[:2] != "__" and _exists(part)])]


def _exists(part: str) -> bool:
    return (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()


def imports(part: str) -> set[str]:
    """Return the parts that a part imports, at the top of a module, inside a function or for types."""
    folder = PACKAGE / part
    files = folder.rglob("*.py") if folder.is_dir() else [PACKAGE / f"{part}.py"]
    return {name for file in files for name in _imported(file)} - {part}


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            words = name.split(".")
            if words[0] == "trailsift" and len(words) > 1 and _exists(words[1]):
                yield words[1]


def edges() -> set[tuple[str, str]]:
    """Return (importer, imported) for all parts."""
    return {(part, other) for row in layers() for part in row for other in imports(part)}


def reduced(all_edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the edges that do not follow from others (the transitive reduction)."""
    below: dict[str, set[str]] = {}
    for importer, imported in all_edges:
        below.setdefault(importer, set()).add(imported)

    def reach(part: str) -> set[str]:
        return set().union(*({other} | reach(other) for other in below.get(part, ())))

    return {
        (importer, imported)
        for importer, imported in all_edges
        if not any(imported in reach(other) for other in below[importer] - {imported})
    }


def diagram() -> str:
    """Return the diagram as SVG text."""
    rows = layers()
    widths = {part: len(part) * _CHARACTER + 22 for row in rows for part in row}
    total = _WIDTH
    places: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(rows):
        gap = (total - sum(widths[part] for part in row)) / (len(row) + 1)
        # Rows are shifted by turns, so that a line past a row rarely runs behind a box of it.
        x = gap + (0.3 if number % 2 else -0.3) * min(gap, 180)
        for part in row:
            places[part] = x, _MARGIN + number * _ROW
            x += widths[part] + gap
    lines = [f'  <path d="{_curve(places[a], widths[a], places[b], widths[b])}"/>' for a, b in sorted(reduced(edges()))]
    boxes = [
        f'  <rect x="{x:.0f}" y="{y}" width="{widths[part]:.0f}" height="{_HEIGHT}" rx="5"/>'
        f'<text x="{x + widths[part] / 2:.0f}" y="{y + 20}">{escape(part)}</text>'
        for part, (x, y) in places.items()
    ]
    height = 2 * _MARGIN + (len(rows) - 1) * _ROW + _HEIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:.0f} {height}" width="{total:.0f}"'
            f' height="{height}" role="img">',
            "<title>The parts of trailsift and their imports: lines lead down only</title>",
            "<style>",
            "  svg { background: #ffffff; font: 13px ui-monospace, Menlo, Consolas, monospace; }",
            "  path { fill: none; stroke: #8a97a8; stroke-width: 1.2; }",
            "  rect { fill: #eef3f8; stroke: #3b5b7a; }",
            "  text { text-anchor: middle; fill: #14202b; }",
            "  @media (prefers-color-scheme: dark) {",
            "    svg { background: #10161c; } path { stroke: #6d7d8f; }",
            "    rect { fill: #1d2a36; stroke: #8fb3d4; } text { fill: #e6edf3; }",
            "  }",
            "</style>",
            *lines,
            *boxes,
            "</svg>",
            "",
        ]
    )


def _curve(start: tuple[float, float], width: float, end: tuple[float, float], other: float) -> str:
    x1, y1 = start[0] + width / 2, start[1] + _HEIGHT
    x2, y2 = end[0] + other / 2, end[1]
    bend = min(60.0, (y2 - y1) / 2)
    return f"M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"


def upward() -> list[tuple[str, str]]:
    """Return the imports that lead up or sideways; there must be none."""
    level = {part: number for number, row in enumerate(layers()) for part in row}
    return sorted((a, b) for a, b in edges() if level[a] >= level[b])


def figures() -> str:
    """Return the size of the structure in one line."""
    rows = layers()
    parts = sum(map(len, rows))
    return f"{parts} parts in {len(rows)} layers, {len(edges())} imports between them, {len(upward())} of them upward"


if __name__ == "__main__":
    (ROOT / "docs" / "architecture.svg").write_text(diagram(), "utf-8")
    print(figures())
    for low, high in pairwise(layers()):
        print(" | ".join(low), "->", " | ".join(high))
