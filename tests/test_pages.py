"""Pages that are generated from the code are current, and the notebook and the library page run."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.paths import ROOT

NOTEBOOK = ROOT / "docs" / "first-hour.ipynb"


@pytest.fixture(scope="module")
def scripts() -> dict[str, ModuleType]:
    """The modules of scripts/, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
        return {name: importlib.import_module(name) for name in ("pages", "structure", "notebook")}


def test_generated_pages_are_current(scripts: dict[str, ModuleType]) -> None:
    """docs/schema.md, docs/cli.md and docs/architecture.svg are what the code gives now."""
    assert scripts["pages"].stale() == [], "run `make docs`"


def test_diagram_shows_all_parts_and_leads_down(scripts: dict[str, ModuleType]) -> None:
    """Every part of the package is in the diagram, and no line leads up."""
    structure = scripts["structure"]
    package = ROOT / "src" / "trailsift"
    parts = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    parts |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert {part for row in structure.layers() for part in row} - {"__main__"} == parts
    assert structure.upward() == []
    assert len(structure.edges()) > len(structure.reduced(structure.edges())) > 20


def test_notebook_holds_the_cells(scripts: dict[str, ModuleType]) -> None:
    """The notebook is what `python scripts/notebook.py` writes, apart from times and colours of its outputs."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert [(cell["cell_type"], cell["source"]) for cell in cells] == list(scripts["notebook"].CELLS)


def test_notebook_runs(scripts: dict[str, ModuleType], small_logs: Path, tmp_path: Path) -> None:
    """Each cell runs and shows what the notebook shows; only durations differ."""
    (tmp_path / "AWSLogs").symlink_to(small_logs / "AWSLogs")
    kept = [cell.get("outputs", []) for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]]
    with contextlib.chdir(tmp_path):
        shown = [outputs for _, outputs in scripts["notebook"].run()]
    assert [_stable(outputs) for outputs in shown] == [_stable(outputs) for outputs in kept]
    assert sum(map(bool, shown)) > 8


def _stable(outputs: list[dict[str, object]]) -> str:
    return re.sub(r"in [\d.]+ m?s\b", "in TIME", json.dumps(outputs, sort_keys=True))


def test_library_page_runs(small_logs: Path, tmp_path: Path) -> None:
    """The code of docs/library.md runs from top to bottom."""
    (tmp_path / "AWSLogs").symlink_to(small_logs / "AWSLogs")
    page = (ROOT / "docs" / "library.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, object] = {}
    with contextlib.chdir(tmp_path):
        for block in blocks:
            exec(compile(block, "docs/library.md", "exec"), names)
