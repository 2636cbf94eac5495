"""The C modules are built with the hardening that compiler and linker offer."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from trailsift import _native

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("_groups", "_keys", "_scan")


def _readelf(*options: str, module: Path) -> str:
    return subprocess.run(["readelf", "-W", *options, module], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def built(request: pytest.FixtureRequest) -> Path:
    if not sys.platform.startswith("linux"):
        pytest.skip("shared objects are ELF on Linux only")
    if shutil.which("readelf") is None:
        pytest.skip("readelf is missing (Debian and Ubuntu: apt-get install binutils)")
    spec = importlib.util.find_spec(f"trailsift._native.{request.param}")
    if spec is None or not spec.origin:
        pytest.skip("the C modules are not built")
    return Path(spec.origin)


@pytest.mark.parametrize("built", MODULES, indirect=True)
def test_a_module_is_hardened(built: Path) -> None:
    """Stack canaries, tables of addresses that are read-only once loaded, no executable stack, no text relocation."""
    dynamic, headers = _readelf("-d", module=built), _readelf("-l", module=built)
    assert "__stack_chk_fail" in _readelf("-s", module=built)
    assert "GNU_RELRO" in headers and re.search(r"BIND_NOW|Flags: .*NOW", dynamic)
    stack = re.search(r"GNU_STACK.* (R\w*) ", headers)
    assert stack and "E" not in stack[1]
    assert "TEXTREL" not in dynamic


def test_the_compiler_is_given_all_it_takes(tmp_path: Path) -> None:
    """A build of a copy: sources are fortified, and a flag that the compiler refuses does not end the build."""
    if not _native.available() or shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None:
        pytest.skip("there is no C compiler, or TRAILSIFT_PURE is set")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info"))
    setup = tmp_path / "setup.py"
    text = setup.read_text("utf-8")
    assert text.count('"-fstack-protector-strong"') == 1
    text = text.replace('"-fstack-protector-strong"', '"-fno-such-protection", "-fstack-protector-strong"')
    setup.write_text(text.replace('"-Wl,-z,relro"', '"-Wl,--no-such-option", "-Wl,-z,relro"'), "utf-8")
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    compiled = [line for line in done.stdout.splitlines() if " -c " in line and "scan.c" in line]
    assert compiled and "-D_FORTIFY_SOURCE=2" in compiled[0] and "-Werror=format-security" in compiled[0]
    assert "such" not in done.stdout.replace("trailsift", "")
    if sys.platform.startswith("linux"):
        assert "-fstack-protector-strong" in compiled[0]
        assert "-Wl,-z,relro -Wl,-z,now" in done.stdout
    assert len(list((tmp_path / "src").rglob("*.so"))) == len(MODULES)
