"""The catalogue of all texts that the page and the API show: ``texts.json``, each in every language."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from trailsift.serve.options import LANGUAGES


@cache
def catalogue() -> dict[str, dict[str, str]]:
    """Return name -> language -> text."""
    raw: dict[str, list[str]] = json.loads(resources.files(__package__).joinpath("texts.json").read_text("utf-8"))
    return {name: dict(zip(LANGUAGES, texts, strict=True)) for name, texts in raw.items()}


def text(language: str, name: str) -> str:
    """Return a text; an empty one if the catalogue has none of this name."""
    return catalogue().get(name, {}).get(language, "")


def texts_of(language: str) -> dict[str, str]:
    """Return all texts of a language by name."""
    return {name: texts[language] for name, texts in catalogue().items()}
