"""Rules files that come with trailsift, to use by name or to copy and change."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from trailsift.errors import UsageError
from trailsift.rules.model import Rules
from trailsift.rules.parser import load, parse

#: Name -> description of the file.
PRESETS = {
    "time-of-day": "samples data events: 10 % in office hours, 5 % in the evening, 1 % at night",
    "important-events": "keeps data events that read, write, delete or run something; drops the chatter",
    "only-roles": "keeps data events of the roles that matter; drops those of all others",
}


def preset_text(name: str) -> str:
    """Return the text of a preset. Raise UsageError if there is none of that name."""
    stem = name.removesuffix(".toml")
    if stem not in PRESETS:
        near = difflib.get_close_matches(stem, PRESETS, 1)
        hint = f": did you mean {near[0]}?" if near else f": use one of {', '.join(PRESETS)}"
        raise UsageError(f"there is no preset rules file {name!r}{hint}")
    return resources.files(__package__).joinpath(f"{stem}.toml").read_text("utf-8")


def open_rules(name: str) -> Rules:
    """Return the rules of a file, or of the preset of that name if there is no such file; errors as ``load``."""
    path = Path(name)
    if name in PRESETS and not path.exists():
        return parse(preset_text(name), name)
    return load(path)
