"""Pins with hashes: refresh constraints.txt, or print those that an installation needs.

::

    python scripts/constraints.py refresh [--upgrade [NAME ...]]     needs uv (the extra `pins`) and the network
    python scripts/constraints.py requirements [EXTRA ...]           needs nothing but this file and pyproject.toml

The hashes are those of every file that the configured package index lists for a pinned version, so one file serves all
platforms. pip refuses hashes beside an editable installation, so the set-up takes two steps: first what
``requirements`` prints, with ``--require-hashes``, then the project itself with ``--no-deps``.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"

HEADER = """\
# The versions that trailsift is tested with, all extras and the build tools included, with the SHA-256 of every file of
# each version. `make setup` and the other targets install nothing else. Who uses trailsift as a library is bound by
# pyproject.toml only. Written by `make pins`: the comments say what needs a package, and are read by
# scripts/constraints.py.
"""
#: The comment stands for the requirements of the project itself.
_PROJECT = "(pyproject.toml)"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[A-Za-z0-9.+!]+)(?: ; (?P<marker>.+))?")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


class BadConstraintsError(Exception):
    """A line of constraints.txt that is not as `make pins` writes it, or a package that is missing there."""


@dataclass(frozen=True)
class Pin:
    """A package of constraints.txt; ``needed_by`` are the packages that require it."""

    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...]
    needed_by: frozenset[str]

    def requirement(self) -> str:
        """Return the pin as a line of a requirements file."""
        marker = f" ; {self.marker}" if self.marker else ""
        return " \\\n    ".join([f"{self.name}=={self.version}{marker}", *(f"--hash={text}" for text in self.hashes)])


def canonical(name: str) -> str:
    """Return a package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(text: str) -> dict[str, Pin]:
    """Return the pins of a constraints file by canonical name.

    Raise BadConstraintsError if a line is anything else, a pin has no hash, or a package is pinned twice.
    """
    pins: dict[str, Pin] = {}
    for block in re.split(r"\n(?=[^\s#])", "\n" + text):
        lines = [line.strip().removesuffix("\\").strip() for line in block.split("\n")]
        head, rest = lines[0], lines[1:]
        if not head:
            wrong = [line for line in rest if line and not line.startswith("#")]
        else:
            wrong = [line for line in rest if line and not line.startswith("# via ") and not _HASH.fullmatch(line)]
        match = _PIN.fullmatch(head)
        if wrong or (head and not match):
            raise BadConstraintsError(f"not a line that `make pins` writes: {(wrong or [head])[0]}")
        if match is None:
            continue
        hashes = tuple(found[1] for line in rest if (found := _HASH.fullmatch(line)))
        if not hashes:
            raise BadConstraintsError(f"{head} has no hash")
        name = canonical(match["name"])
        if name in pins:
            raise BadConstraintsError(f"{name} is pinned twice")
        via = ", ".join(line.removeprefix("# via ") for line in rest if line.startswith("# via "))
        needed_by = frozenset(canonical(item) for item in via.split(", ") if item and not item.endswith(_PROJECT))
        pins[name] = Pin(name, match["version"], match["marker"], hashes, needed_by)
    return pins


def roots(pyproject: Mapping[str, Any], extras: Iterable[str]) -> list[str]:
    """Return the canonical names of what the project, its build and some extras require directly.

    Raise BadConstraintsError if there is no such extra.
    """
    project = pyproject["project"]
    optional = project["optional-dependencies"]
    requirements = [*project["dependencies"], *pyproject["build-system"]["requires"]]
    for extra in extras:
        if extra not in optional:
            raise BadConstraintsError(f"pyproject.toml has no extra {extra!r}: it has {', '.join(sorted(optional))}")
        requirements += optional[extra]
    names = [match[0] for text in requirements if (match := _NAME.match(text))]
    return [canonical(name) for name in names]


def closure(pins: Mapping[str, Pin], names: Iterable[str]) -> list[Pin]:
    """Return the pins of packages and of all that those require.

    Raise BadConstraintsError if one of the packages is not pinned.
    """
    needs: dict[str, set[str]] = {}
    for pin in pins.values():
        for name in pin.needed_by:
            needs.setdefault(name, set()).add(pin.name)
    waiting = list(names)
    missing = sorted(set(waiting) - set(pins))
    if missing:
        raise BadConstraintsError(f"not pinned: {', '.join(missing)}; run `make pins`")
    chosen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in chosen:
            chosen.add(name)
            waiting += needs.get(name, ())
    return [pins[name] for name in sorted(chosen)]


def requirements(extras: Iterable[str]) -> str:
    """Return a requirements file with hashes: the project's dependencies, its build tools and those of some extras."""
    pins = read_pins(CONSTRAINTS.read_text("utf-8"))
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return "".join(pin.requirement() + "\n" for pin in closure(pins, roots(pyproject, extras)))


def refresh(*, upgrade: Iterable[str] | None) -> None:
    """Write constraints.txt again with the hashes that the index has now.

    Versions stay as they are unless they no longer fit. ``upgrade``: names of packages to take the newest version of;
    empty for all.
    """
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    options = ["--all-extras", "--universal", "--python-version=3.11", "--generate-hashes", "--no-build"]
    options += ["--no-header", "--annotation-style=line", "--quiet", "--output-file", CONSTRAINTS.name]
    if upgrade is not None:
        options += [f"--upgrade-package={name}" for name in upgrade] or ["--upgrade"]
    uv = Path(sys.executable).with_name("uv")
    subprocess.run(
        [uv, "pip", "compile", *options, "pyproject.toml", "-"],
        input="\n".join(build), text=True, cwd=ROOT, env=os.environ | _index(), check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    text = HEADER + CONSTRAINTS.read_text("utf-8")
    read_pins(text)
    CONSTRAINTS.write_text(text, "utf-8")


def _index() -> dict[str, str]:
    """Return uv's settings for the package index that pip is configured for."""
    names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "cert": "SSL_CERT_FILE"}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings = dict(re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE))
    return {variable: settings[name] for name, variable in names.items() if name in settings}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Refresh constraints.txt, or print what an installation needs of it.")
    commands = parser.add_subparsers(dest="command", required=True)
    needed = commands.add_parser("requirements", help="print a requirements file with hashes")
    needed.add_argument("extras", nargs="*", metavar="EXTRA")
    again = commands.add_parser("refresh", help="write constraints.txt")
    again.add_argument(
        "--upgrade", nargs="*", metavar="NAME", help="take the newest versions of these packages, or of all"
    )
    options = parser.parse_args()
    try:
        if options.command == "refresh":
            refresh(upgrade=options.upgrade)
        else:
            sys.stdout.write(requirements(options.extras))
    except BadConstraintsError as error:
        sys.exit(f"constraints.txt: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"constraints.py: {' '.join(map(str, error.cmd[:3]))} failed, see above; constraints.txt is unchanged")


if __name__ == "__main__":
    main()
