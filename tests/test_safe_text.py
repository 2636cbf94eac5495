"""What is escaped in foreign text, and what stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trailsift
from support.hostile import EVIL, READABLE, SHELL, unsafe
from trailsift.safe_text import is_safe, safe, safe_json, safe_lines, safe_toml


def test_every_character() -> None:
    """Of all that Unicode has: nothing that steers or hides gets through, and no letter, digit or symbol is lost."""
    for code in range(sys.maxunicode + 1):
        sign = chr(code)
        category = unicodedata.category(sign)
        if category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            shown = safe(f"a{sign}b")
            assert shown.isascii() and shown.isprintable() and shown.startswith("a\\"), hex(code)
        elif category[0] in "LNPSZ":
            kept = safe(f"a{sign}b") == f"a{sign}b"
            assert kept or sign in "\u115f\u1160\u2800\u3164\uffa0", hex(code)


@pytest.mark.parametrize(
    "text",
    [READABLE, "", " ", "한글 자모 ㄱㅏ", "\u1112\u1161\u11ab", "Grüße, Ωμέγα, Привет, שלום, مرحبا, नमस्ते, ไทย", SHELL,
     "a\u00a0b\u3000c",
     "🏳\ufe0f\u200d🌈", "👨🏽\u200d👩🏽\u200d👧", "🇰🇷", "♂\ufe0f", "#\ufe0f\u20e3", "\\u202e", "e\u0301"],
)  # fmt: skip
def test_readable_text_stays(text: str) -> None:
    assert safe(text) == text and is_safe(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\u001b[2J"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("x\u202ey", "x\\u202ey"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("a\u200db", "a\\u200db"),
        ("🙂\u200d", "🙂\\u200d"),
        ("a\ufe0f", "a\\ufe0f"),
        ("\u200d🙂", "\\u200d🙂"),
        ("ab\u3164", "ab\\u3164"),
    ],
)
def test_what_is_shown_instead(text: str, shown: str) -> None:
    assert safe(text) == shown and not is_safe(text)


ANY = st.text(st.characters(codec=None), max_size=30) | st.sampled_from([EVIL, SHELL, READABLE])


@given(ANY)
def test_properties(text: str) -> None:
    """Nothing unsafe is left; a second pass changes nothing; lines stay lines; JSON and TOML keep their values."""
    once = safe(text)
    assert unsafe(once) == [] and "\n" not in once and safe(once) == once
    assert safe_lines(text).split("\n") == [safe(line) for line in text.split("\n")]
    document = json.dumps({text: [text, None, 1.5]}, ensure_ascii=False, indent=1)
    escaped = safe_json(document)
    assert unsafe(escaped) == [] and json.loads(escaped) == json.loads(document)
    if not any(0xD800 <= ord(sign) <= 0xDFFF for sign in text):
        shown = safe_toml(text)
        assert unsafe(shown) == [] and tomllib.loads(f"a = {shown}") == {"a": text}


def test_harmless_text_is_cheap() -> None:
    """A message costs no import of typing, re or json."""
    code = "import sys; import trailsift.terminal.output; print({'typing', 're', 'json', 'rich'} & set(sys.modules))"
    # Without site packages, whose start files import much by themselves; so the path to ours is given.
    env = os.environ | {"PYTHONPATH": str(Path(trailsift.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "set()"
