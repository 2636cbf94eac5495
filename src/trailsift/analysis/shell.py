"""Commands that a person can copy into a shell: quoted, and under the name by which this program can be run."""

from __future__ import annotations

import sys
from pathlib import Path

from trailsift.safe_text import double_quoted, quoted

__all__ = ["double_quoted", "program", "quoted"]


def program() -> str:
    """Return what the reader's shell runs this program by: ``trailsift``, if it finds that, else as it was run now."""
    import shutil

    run = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path("trailsift")
    if run.name == "__main__.py" and run.parent.name in ("trailsift", "cli"):
        return f"{quoted(_short(Path(sys.executable)))} -m trailsift"
    if run.name != "trailsift" or shutil.which("trailsift") is not None or not run.exists():
        return "trailsift"
    return quoted(_short(run))


def _short(path: Path) -> Path:
    """Return a path from the present folder, if it is below it."""
    absolute = path.absolute()
    if not absolute.is_relative_to(Path.cwd()):
        return absolute
    below = absolute.relative_to(Path.cwd())
    return below if len(below.parts) > 1 else Path(".", below)
