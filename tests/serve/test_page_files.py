"""The files of the page: texts in every language, nothing that parses HTML, nothing foreign, small."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from support.paths import ROOT
from trailsift.serve import problems, texts
from trailsift.serve.assets import STATIC, VENDOR, read_all
from trailsift.serve.options import LANGUAGES

MODULES = sorted(path for path in STATIC.rglob("*.js") if "vendor" not in path.parts)
CATALOGUE = texts.catalogue()
#: A name that is put together: its beginning, of which the catalogue must have some.
_LITERAL = re.compile(r"""\bt\(\s*"([^"]+)\"""")
_CHOSEN = re.compile(r"""\bt\([^"`]*\? "([^"]+)" : "([^"]+)\"""")
_MADE = re.compile(r"\bt\(\s*`([^`]+)`")


def sources() -> str:
    return "\n".join(path.read_text("utf-8") for path in MODULES)


def test_every_text_is_in_every_language() -> None:
    raw = json.loads((STATIC.parent / "texts.json").read_text("utf-8"))
    for name, pair in raw.items():
        assert len(pair) == len(LANGUAGES) and all(text.strip() for text in pair), name
        holes = [set(re.findall(r"\{(\w+)\}", text)) for text in pair]
        assert all(found == holes[0] for found in holes), name
    # What is the same in both is a name, a number, or a form.
    same = {name for name, (english, korean) in raw.items() if english == korean}
    assert same <= {"view.sql", "n_and_share"}
    korean = [pair[1] for name, pair in raw.items() if name not in same | {"language.code"}]
    assert [text for text in korean if not re.search("[가-힣]", text)] == []


def test_every_name_in_the_scripts_has_a_text() -> None:
    text = sources()
    names = set(_LITERAL.findall(text)) | {name for pair in _CHOSEN.findall(text) for name in pair}
    assert len(names) > 150
    assert sorted(names - set(CATALOGUE)) == []


def test_names_that_are_put_together_have_texts() -> None:
    for made in set(_MADE.findall(sources())):
        pattern = re.escape(re.sub(r"\$\{[^}]+\}", "\0", made)).replace("\0", r"[\w-]+")
        assert any(re.fullmatch(pattern, name) for name in CATALOGUE), made


def test_no_text_is_left_over() -> None:
    text = sources()
    used = set(re.findall(r'"([\w.-]+)"', text))
    made = [re.escape(re.sub(r"\$\{[^}]+\}", "\0", one)).replace("\0", r"[\w-]+") for one in _MADE.findall(text)]
    left = [
        name
        for name in CATALOGUE
        if name not in used and not name.startswith("error.") and not any(re.fullmatch(one, name) for one in made)
    ]
    assert left == []


def test_every_error_has_texts() -> None:
    source = "".join(path.read_text("utf-8") for path in STATIC.parent.glob("*.py"))
    codes = {code for _, _, code in problems._CODES} | set(re.findall(r'Problem\(\s*\d+, "(\w+)"', source))
    assert len(codes) > 15
    for code in codes:
        assert f"error.{code}" in CATALOGUE and f"error.{code}.to_do" in CATALOGUE, code


def test_nothing_parses_html() -> None:
    """Values of logs become text nodes: there is no way from a string to an element."""
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|javascript:"
    )
    for path in MODULES:
        assert not re.search(forbidden, path.read_text("utf-8")), path.name
    page = (STATIC / "index.html").read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|style=", page)


def test_nothing_is_asked_of_another_host() -> None:
    for path in [*MODULES, STATIC / "index.html", STATIC / "style.css"]:
        found = re.findall(r"https?://[^\"'\s)]+|url\([^)]*\)", path.read_text("utf-8"))
        assert [one for one in found if "www.w3.org/2000/svg" not in one] == [], path.name


def test_the_first_page_is_small() -> None:
    """Script and style of everything together: 200 KB, before compression."""
    if not all((STATIC / "vendor" / name).is_file() for name in VENDOR):
        pytest.skip("the page's assets are missing: run `make assets`")
    files = {name: content for name, (content, _) in read_all().items() if name.endswith((".js", ".css"))}
    assert sum(map(len, files.values())) < 200_000
    assert sum(len(gzip.compress(content)) for content in files.values()) < 70_000


def test_nothing_foreign_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    assert not [name for name in listed.stdout.split("\n") if "vendor/" in name or "node_modules" in name]


def test_the_lock_names_no_host() -> None:
    lock = json.loads((ROOT / "assets" / "package-lock.json").read_text("utf-8"))
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert packages and all(
        one["integrity"].startswith("sha512-") and "resolved" not in one for one in packages.values()
    )
    assert "http" not in (ROOT / "assets" / "package-lock.json").read_text("utf-8")
    assert "http" not in Path(ROOT / "assets" / ".npmrc").read_text("utf-8")
