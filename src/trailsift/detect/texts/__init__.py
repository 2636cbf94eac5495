"""The texts of findings, one module per language, with the same members each."""

from __future__ import annotations

from types import ModuleType
from typing import Literal, NamedTuple

from trailsift.detect.texts import english, korean

Language = Literal["en", "ko"]


class Texts(NamedTuple):
    """The texts of one language.

    ``did``: kind -> the rest of a finding's first line after its caller. ``reasons``: kind -> why it is unusual, with
    its number and the usual one. ``features``, ``measures``: one part of an outlier, of a burst;
    ``measures_did``: the same as what the caller did. ``phrases``: pieces of
    sentences. ``verbs``: beginning of a call -> what it does with objects. ``steps``: what to do in AWS, by MITRE
    technique; ``identity``: by what sort of caller it is. ``severity``: what a severity asks of the reader. ``blind``:
    what could not be judged. ``labels``: headings of a terminal.
    """

    did: dict[str, str]
    reasons: dict[str, str]
    features: dict[str, str]
    measures: dict[str, str]
    measures_did: dict[str, str]
    phrases: dict[str, str]
    verbs: dict[str, str]
    steps: dict[str, str]
    identity: dict[str, str]
    severity: dict[str, str]
    blind: dict[str, str]
    labels: dict[str, str]


_MODULES: dict[Language, ModuleType] = {"en": english, "ko": korean}
TEXTS: dict[Language, Texts] = {
    language: Texts(
        module.DID,
        module.REASONS,
        module.FEATURES,
        module.MEASURES,
        module.MEASURES_DID,
        module.PHRASES,
        module.VERBS,
        module.STEPS,
        module.IDENTITY,
        module.SEVERITY,
        module.BLIND,
        module.LABELS,
    )
    for language, module in _MODULES.items()
}
