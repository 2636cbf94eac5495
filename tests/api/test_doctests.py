"""The examples in the docstrings of the library run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import shutil
from pathlib import Path

import pytest

import trailsift
from trailsift import api
from trailsift.generate import Options, generate
from trailsift.query import query_result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `logs` of 2,000 events and the lake `my.lake` of them."""
    home = tmp_path_factory.mktemp("doctest")
    generate(home / "logs", Options(events=2_000, days=3, seed=1))
    trailsift.Lake(home / "my.lake").ingest(home / "logs" / "AWSLogs")
    return home


METHODS = [importlib.import_module(f"trailsift.api.{module.name}") for module in pkgutil.iter_modules(api.__path__)]
EXAMPLES = [
    test for module in (api, *METHODS, query_result) for test in doctest.DocTestFinder().find(module) if test.examples
]


def test_nearly_every_method_has_an_example() -> None:
    """Changes of the docstrings' format must not empty the tests below."""
    assert len(EXAMPLES) >= 35


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.removeprefix("trailsift."))
def test_example(example: doctest.DocTest, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example starts from a lake that no other has changed."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    lake = trailsift.Lake(tmp_path / "my.lake")
    lake.relocate()
    example.globs = {"trailsift": trailsift, "lake": lake}
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(example, out=said.append)
    lake.close()
    assert not runner.failures, "".join(said)
