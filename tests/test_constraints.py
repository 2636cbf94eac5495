"""constraints.txt: every package that is installed for work on the project is pinned, with the hashes of its files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("constraints", ROOT / "scripts" / "constraints.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # Its data classes look up their module by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_constraints_cover_all_requirements(script: ModuleType) -> None:
    """Every requirement, including those of the extras and of the build, is pinned to a version that it allows."""
    pins = script.read_pins((ROOT / "constraints.txt").read_text("utf-8"))
    requirements = [*PYPROJECT["project"]["dependencies"], *PYPROJECT["build-system"]["requires"]]
    for extra in EXTRAS.values():
        requirements += extra
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not pinned"
        pinned = pins[name].version
        assert requirement.specifier.contains(pinned), f"{requirement} forbids the pinned {pinned}"


def test_every_pin_has_hashes(script: ModuleType) -> None:
    """pip's hash mode does not accept a file that has one package without; the reader does not either."""
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert text.startswith(script.HEADER)
    pins = script.read_pins(text)
    assert len(pins) > 100 and all(pin.hashes for pin in pins.values())
    # One file for all platforms: compiled packages have many wheels.
    assert len(pins["pyarrow"].hashes) > 20 and len(pins["duckdb"].hashes) > 20


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_an_installation_is_complete(script: ModuleType, extra: str | None) -> None:
    """All that an installed package requires here is installed with it."""
    text = script.requirements([extra] if extra else [])
    chosen = {canonicalize_name(pin.name): pin for pin in script.read_pins(text).values()}
    missing, seen = [], 0
    for name in chosen:
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        seen += 1
        for requirement in map(Requirement, requires):
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if needed and canonicalize_name(requirement.name) not in chosen:
                missing.append(f"{name} -> {requirement}")
    assert seen >= 30 and not missing


def test_only_what_is_needed_is_installed(script: ModuleType) -> None:
    """The command itself comes without the tools of development."""
    core = script.read_pins(script.requirements([]))
    assert {"duckdb", "pyarrow", "sqlalchemy", "setuptools"} <= set(core)
    assert not {"pytest", "mypy", "boto3", "moto", "uv", "pip-audit"} & set(core)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample==1.0\n", "no hash"),
        ("sample>=1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n", "not a line"),
        ("sample==1.0 \\\n    --hash=md5:" + "0" * 32 + "\n", "not a line"),
        ("sample==1.0 \\\n    --hash=sha256:0\n", "not a line"),
        ("-r other.txt\n", "not a line"),
        ("sample @ file:///sample.whl\n", "not a line"),
        (("sample==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n") * 2, "pinned twice"),
    ],
)
def test_weaker_lines_are_refused(script: ModuleType, text: str, message: str) -> None:
    with pytest.raises(script.BadConstraintsError, match=message):
        script.read_pins(text)


def test_markers_are_kept(script: ModuleType) -> None:
    """A package for one platform is not required on the others."""
    text = "sample==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:" + "0" * 64 + "\n    # via other, another\n"
    pin = script.read_pins(text)["sample"]
    assert pin.needed_by == {"other", "another"}
    assert script.read_pins(pin.requirement())["sample"].marker == "sys_platform == 'win32'"


def test_an_unknown_extra_is_named() -> None:
    script = ROOT / "scripts" / "constraints.py"
    done = subprocess.run([sys.executable, script, "requirements", "nope"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no extra 'nope'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("changed", [False, True])
def test_pip_refuses_a_file_with_another_hash(script: ModuleType, tmp_path: Path, changed: bool) -> None:
    """The very lines that the set-up gives to pip, with a package of our own and without a network."""
    wheel = tmp_path / "sample-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("sample.py", "")
        archive.writestr("sample-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n")
        archive.writestr("sample-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("sample-1.0.dist-info/RECORD", "")
    digest = "sha256:" + hashlib.sha256(wheel.read_bytes()).hexdigest()
    (tmp_path / "needed.txt").write_text(script.Pin("sample", "1.0", None, (digest,), frozenset()).requirement() + "\n")
    if changed:
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr("more.py", "")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--no-index", "--target",
         tmp_path / "out", "--find-links", tmp_path, "--require-hashes", "--only-binary", ":all:", "-r",
         tmp_path / "needed.txt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (tmp_path / "out" / "sample.py").exists() is not changed
    assert ("DO NOT MATCH THE HASHES" in done.stderr) is changed, done.stderr
    assert (done.returncode != 0) is changed


def test_the_set_up_enforces_the_hashes() -> None:
    """No target of the Makefile installs a package in another way."""
    text = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    installs = [line for line in text.splitlines() if re.search(r"(pip|PIP\)).* install ", line)]
    assert len(installs) == 2
    assert "--require-hashes" in installs[0] and "--no-deps --no-build-isolation -e ." in installs[1]
