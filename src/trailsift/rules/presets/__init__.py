"""Rules files that come with trailsift: to be used by name, or copied and changed."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from trailsift.errors import UsageError
from trailsift.rules.model import Rules
from trailsift.rules.parser import load, parse

#: Name -> what the file does.
READY = {
    "time-of-day": "samples data events: 10 % in office hours, 5 % in the evening, 1 % at night",
    "important-events": "keeps data events that read, write, delete or run something; drops the chatter",
    "only-roles": "keeps data events of the roles that matter; drops those of all others",
}


def text(name: str) -> str:
    """The text of a ready file. UsageError where there is none of the name."""
    known = name.removesuffix(".toml")
    if known not in READY:
        near = difflib.get_close_matches(known, READY, 1)
        hint = f": did you mean {near[0]}?" if near else f": there are {', '.join(READY)}"
        raise UsageError(f"there is no ready rules file {name!r}{hint}")
    return resources.files(__package__).joinpath(f"{known}.toml").read_text("utf-8")


def open_rules(name: str) -> Rules:
    """The rules of a file, or of the ready file of that name where there is no such file. RulesError as of ``load``."""
    path = Path(name)
    if name in READY and not path.exists():
        return parse(text(name), name)
    return load(path)
