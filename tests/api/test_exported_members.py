"""`import trailsift` has the public names, and imports nothing for them."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import trailsift

PUBLIC = [
    "ConflictError",
    "Counts",
    "EngineError",
    "Lake",
    "LakeError",
    "QueryError",
    "QueryMemoryError",
    "QueryResult",
    "QueryTimeoutError",
    "Rules",
    "RulesError",
    "S3Error",
    "SnapshotGoneError",
    "SourceError",
    "TrailsiftError",
    "UsageError",
    "__version__",
]


def in_new_process(code: str) -> object:
    """Run code in a new interpreter and return the JSON that it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_all_is_what_is_exported() -> None:
    assert sorted(trailsift.__all__) == dir(trailsift) == PUBLIC
    for name in trailsift.__all__:
        assert getattr(trailsift, name) is not None


def test_every_error_is_exported() -> None:
    errors = importlib.import_module("trailsift.errors")
    assert {name for name in vars(errors) if name.endswith("Error")} <= set(trailsift.__all__)


def test_the_stub_names_the_same() -> None:
    stub = ast.parse(Path(trailsift.__file__).with_suffix(".pyi").read_text("utf-8"))
    names = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == set(trailsift.__all__) - {"__version__"}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            assert all(trailsift._MODULES[alias.name] == node.module for alias in node.names)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nosuch"):
        trailsift.nosuch  # type: ignore[attr-defined]  # noqa: B018


def test_import_loads_nothing_else() -> None:
    new = in_new_process(
        "import sys, json; before = set(sys.modules); import trailsift;"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    assert new == ["trailsift"]


def test_a_handle_loads_nothing_heavy() -> None:
    heavy = in_new_process(
        "import sys, json; from trailsift import Lake; Lake('nowhere');"
        "print(json.dumps(sorted({'duckdb', 'pyarrow', 'numpy', 'pyiceberg', 'rich', 'cyclopts'} & set(sys.modules))))"
    )
    assert heavy == []


def test_the_version_loads_no_parser() -> None:
    loaded = in_new_process(
        "import sys, json, io, contextlib\n"
        "from trailsift.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['--version'])\n"
        "print(json.dumps(sorted({'cyclopts', 'rich', 'typing', 'attr'} & set(sys.modules))))"
    )
    assert loaded == []


def test_a_command_loads_its_own_module_only() -> None:
    loaded = in_new_process(
        "import sys, json, io, contextlib\n"
        "from trailsift.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['rules', 'list', '--json'])\n"
        "print(json.dumps(sorted(m for m in sys.modules if m.startswith('trailsift.cli.'))))"
    )
    assert loaded == ["trailsift.cli.app", "trailsift.cli.options", "trailsift.cli.rules"]
