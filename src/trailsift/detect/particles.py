"""Words of logs in Korean sentences: the particle that follows a word depends on how the word ends when it is read."""

from __future__ import annotations

#: Particles by form: after a final consonant / without one.
PARTICLES = ("을/를", "으로/로", "이/가", "은/는", "과/와")
#: Digits and final letters that are read with a final consonant (받침); ㄹ takes 로 like a vowel.
_CONSONANT, _RIEUL = frozenset("036mnMN"), frozenset("178lL")


class Word(str):
    """Text that appends a Korean particle by format spec: ``을/를`` or ``으로/로`` (after a final consonant / not)."""

    def __format__(self, spec: str) -> str:
        return str(self) + particle(self, spec) if spec else str(self)


def particle(word: str, spec: str) -> str:
    """Return the particle of ``spec`` that fits the last syllable of ``word``; both if it cannot be read."""
    closed, _, open_ = spec.partition("/")
    letters = [character for character in word if character.isalnum()]
    if not letters:
        return f"{closed}({open_})"
    last = letters[-1]
    if "가" <= last <= "힣":
        final = (ord(last) - ord("가")) % 28
        consonant, rieul = final != 0, final == 8
    else:
        consonant = last in _CONSONANT or last in _RIEUL or word.lower().endswith("ng")
        rieul = last in _RIEUL
    return open_ if not consonant or (rieul and open_ == "로") else closed
