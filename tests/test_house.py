"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import trailsift

ROOT = Path(__file__).resolve().parent.parent
#: Where there is no git to ask: what .gitignore names.
LEFT_OUT = re.compile(r"\.git|\.venv|\.demo|\.\w+_cache|\.hypothesis|__pycache__|build|dist|.*\.(pyc|so)")

#: Put together here, so that this file does not name them.
REGISTRIES = ("pypi" + ".org", "python" + "hosted", "registry" + ".npmjs", "crates" + ".io", "deb" + ".debian")
MACHINE_PATH = re.compile(r"(?<![\w.$~}/-])/(?:work|root|farm|home/\w+|Users/\w+)/")


def _files() -> list[Path]:
    """All files that belong to the project, new ones included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0 and listed.stdout:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        found = [path for path in ROOT.rglob("*") if not any(map(LEFT_OUT.fullmatch, path.relative_to(ROOT).parts))]
    return sorted(path for path in found if path.is_file())


FILES = _files()
MODULES = [path for path in FILES if path.suffix == ".py"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _texts() -> Iterator[tuple[str, str]]:
    for path in FILES:
        if _name(path) != "LICENSE":
            yield _name(path), path.read_text("utf-8")


def test_files_are_text_without_paths_of_a_machine() -> None:
    """Nothing that works on one machine only, and nothing that is no text."""
    found = [f"{name}: {match[0]}" for name, text in _texts() for match in MACHINE_PATH.finditer(text)]
    assert not found


def test_no_registry_is_named() -> None:
    """Where packages come from is the business of who installs them."""
    found = [f"{name}: {host}" for name, text in _texts() for host in REGISTRIES if host in text]
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_says_what_it_is(path: Path) -> None:
    """Every module that holds code begins with a docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    assert not tree.body or ast.get_docstring(tree), f"{_name(path)} has no docstring"


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    wrong = [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)]
    assert not wrong, "constraints are plain name==version lines"
    named = dict(line.split("==") for line in pins)
    assert len({canonicalize_name(name) for name in named}) == len(pins), "a package is pinned twice"
    return {canonicalize_name(name): version for name, version in named.items()}


def test_constraints_cover_what_the_project_asks_for() -> None:
    """Every requirement, those of the extras and of the build included, is pinned to a version that it allows."""
    pins = _pins()
    project = PYPROJECT["project"]
    asked = [*project["dependencies"], *PYPROJECT["build-system"]["requires"]]
    for extra in project["optional-dependencies"].values():
        asked += extra
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        if name == project["name"]:
            continue
        assert name in pins, f"{name} is not pinned"
        assert requirement.specifier.contains(pins[name]), f"{requirement} forbids the pinned {pins[name]}"


def test_changelog_is_one_line_a_change() -> None:
    """The newest version first, then a line for each change that a user can notice."""
    lines = (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
    assert lines[0] == "# Changelog"
    versions = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert versions and versions[0] in (trailsift.__version__, "Unreleased")
    others = [line for line in lines[1:] if line and not line.startswith("## ")]
    wrong = [line for line in others if not re.fullmatch(r"- \S.*\.", line)]
    assert not wrong, "each change is one line: `- What a user can do now.`"


def test_licence_is_the_whole_text() -> None:
    """The Apache License 2.0, unchanged."""
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_make_explains_its_targets() -> None:
    """What a person may call is in `make help`."""
    text = (ROOT / "Makefile").read_text("utf-8")
    match = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert match
    silent = [name for name in match[1].split() if not re.search(rf"^{name}:.*## \S", text, re.MULTILINE)]
    assert not silent


def test_ci_runs_the_tests() -> None:
    """`.ci/run` can be executed and ends with the tests, whose summary is what a reader of its log looks for."""
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    assert path.read_text("utf-8").rstrip().endswith("make --no-print-directory test")
