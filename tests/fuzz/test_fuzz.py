"""The fuzz target works, and what it found once stays fixed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from fuzz import rule_files, statements
from fuzz.__main__ import main
from fuzz.lakes import check_case
from fuzz.landing import check_batch, check_lines
from fuzz.spellings import check_spellings
from fuzz.targets import Tally, compare_archive, compare_keys, compare_log_objects
from trailsift import _native

if not _native.available():
    pytest.skip("the C modules are not built: no C compiler at hand", allow_module_level=True)

CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_what_was_found_is_fixed(path: Path) -> None:
    """Cases in the form that the fuzzer writes (`data` is bytes as Latin-1)."""
    case = json.loads(path.read_text("utf-8"))
    if case["target"] in ("landing", "batches"):
        pieces = [piece.encode("latin-1") for piece in case["data"]]
        assert (check_lines(pieces) if case["target"] == "landing" else check_batch(json.loads(pieces[0]))) is None
        return
    if case["target"] == "lakes":
        assert check_case([piece.encode("latin-1") for piece in case["data"]]) is None
        return
    if case["target"] == "spellings":
        assert check_spellings([piece.encode("latin-1") for piece in case["data"]]) is None
        return
    if case["target"] in ("rules", "statements"):
        text = b"".join(piece.encode("latin-1") for piece in case["data"]).decode("utf-8", "surrogatepass")
        found = rule_files.check(text, random.Random(0)) if case["target"] == "rules" else statements.check(text)
        assert found is None
        return
    compare = {
        "records": compare_log_objects,
        "damage": compare_log_objects,
        "keys": compare_keys,
        "archives": compare_archive,
    }[case["target"]]
    assert compare([piece.encode("latin-1") for piece in case["data"]], Tally()) is None


def test_the_fuzzer_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "1", "--rounds", "200", "--seconds", "30", "--out", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "seed 1" in output and "0 differences" in output
