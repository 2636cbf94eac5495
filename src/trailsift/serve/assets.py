"""The files of the page: our own modules, and what npm brought when the package was made."""

from __future__ import annotations

from pathlib import Path

from trailsift.errors import UsageError

STATIC = Path(__file__).with_name("static")
#: What npm brings (`assets/package.json`), into ``static/vendor``.
VENDOR = ("uPlot.iife.min.js", "uPlot.min.css")
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def check_assets(static: Path = STATIC) -> None:
    """Raise UsageError if the page lacks what npm brings."""
    missing = [name for name in VENDOR if not (static / "vendor" / name).is_file()]
    if missing:
        raise UsageError(
            f"the page lacks {', '.join(missing)}, which a wheel of trailsift holds: in a checkout run `make assets` "
            "(or `make serve`, which also starts the server)"
        )


def read_all(static: Path = STATIC) -> dict[str, tuple[bytes, str]]:
    """Return the content and media type of each file by its path under ``static``."""
    return {
        path.relative_to(static).as_posix(): (path.read_bytes(), MEDIA_TYPES[path.suffix])
        for path in sorted(static.rglob("*"))
        if path.suffix in MEDIA_TYPES and path.is_file()
    }
