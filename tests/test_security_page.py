"""SECURITY.md names tests, targets and pages that exist, and the READMEs lead to it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "SECURITY.md").read_text("utf-8")


def test_every_promise_names_its_test() -> None:
    promises = [
        line for line in PAGE.splitlines() if re.match(r"\| [A-Z].* \|", line) and not line.startswith("| version")
    ]
    assert len(promises) > 10
    assert not [line for line in promises if not re.search(r"`(tests/|make )", line)]


def test_what_is_named_exists() -> None:
    paths = re.findall(r"`((?:tests|src|docs|scripts)/[^`]+)`", PAGE)
    assert len(paths) > 10
    assert not [path for path in paths if not (ROOT / path).exists()]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"`make ([a-z-]+)`", PAGE))
    assert len(targets) > 3
    assert not [name for name in targets if not re.search(rf"^{name}:.*## ", makefile, re.MULTILINE)]
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert links and not [link for link in links if not (ROOT / link).exists()]


def test_the_readmes_lead_to_it() -> None:
    for name in ("README.md", "README.ko.md", "CONTRIBUTING.md"):
        assert "(SECURITY.md)" in (ROOT / name).read_text("utf-8"), name
