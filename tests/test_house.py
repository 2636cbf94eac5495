"""Project rules that a machine can check."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import trailsift

ROOT = Path(__file__).resolve().parent.parent
#: Without git: the names in .gitignore.
LEFT_OUT = re.compile(r"\.git|\.venv|\.demo|\.\w+_cache|\.hypothesis|__pycache__|build|dist|.*\.(pyc|so)")

#: Concatenated, so that this file does not contain them.
REGISTRIES = ("pypi" + ".org", "python" + "hosted", "registry" + ".npmjs", "crates" + ".io", "deb" + ".debian")
MACHINE_PATH = re.compile(r"(?<![\w.$~}/-])/(?:work|root|farm|home/\w+|Users/\w+)/")


def _files() -> list[Path]:
    """Return all files of the project, including new ones."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0 and listed.stdout:
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        files = [path for path in ROOT.rglob("*") if not any(map(LEFT_OUT.fullmatch, path.relative_to(ROOT).parts))]
    return sorted(path for path in files if path.is_file())


FILES = _files()
MODULES = [path for path in FILES if path.suffix == ".py"]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _texts() -> Iterator[tuple[str, str]]:
    for path in FILES:
        if _name(path) != "LICENSE":
            yield _name(path), path.read_text("utf-8")


def test_files_are_text_without_machine_paths() -> None:
    """No binary files, and no paths that exist on one machine only."""
    found = [f"{name}: {match[0]}" for name, text in _texts() for match in MACHINE_PATH.finditer(text)]
    assert not found


def test_no_registry_is_named() -> None:
    """The source of packages is the choice of whoever installs them."""
    found = [f"{name}: {host}" for name, text in _texts() for host in REGISTRIES if host in text]
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_has_a_docstring(path: Path) -> None:
    """Every module with code begins with a docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    assert not tree.body or ast.get_docstring(tree), f"{_name(path)} has no docstring"


def test_changelog_has_one_line_per_change() -> None:
    """The latest version comes first; each change that a user can notice has one line."""
    lines = (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
    assert lines[0] == "# Changelog"
    versions = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert versions and versions[0] in (trailsift.__version__, "Unreleased")
    others = [line for line in lines[1:] if line and not line.startswith("## ")]
    wrong = [line for line in others if not re.fullmatch(r"- \S.*\.", line)]
    assert not wrong, "each change is one line: `- What a user can do now.`"


def test_licence_is_the_whole_text() -> None:
    """LICENSE is the unchanged Apache License 2.0."""
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_make_explains_its_targets() -> None:
    """`make help` lists every public target."""
    text = (ROOT / "Makefile").read_text("utf-8")
    match = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert match
    silent = [name for name in match[1].split() if not re.search(rf"^{name}:.*## \S", text, re.MULTILINE)]
    assert not silent


def test_ci_runs_the_tests() -> None:
    """`.ci/run` is executable and ends with the tests, so that their summary is at the end of its log."""
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    assert path.read_text("utf-8").rstrip().endswith("make --no-print-directory test")
