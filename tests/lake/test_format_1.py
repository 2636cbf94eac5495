"""A lake of format version 1 opens and answers as before.

The lake and the answers in ``format_1`` are those of commit 0745bd2; its README says how they were made.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trailsift
from trailsift.cli import main
from trailsift.lake.relocate import relocate

FORMAT_1 = Path(__file__).parent / "format_1"
ANSWERS = json.loads((FORMAT_1 / "answers.json").read_text("utf-8"))
#: What identifies and describes a finding. Its sentences and its query have other words since, and its score follows
#: the detectors.
FINDING = (
    "role_arn",
    "role_arns",
    "resource_arn",
    "first_time",
    "last_time",
    "severity",
    "techniques",
)


def unpacked(folder: Path) -> Path:
    """Unpack the lake into a folder, as it was at /tmp/trailsift-format-1; return its path."""
    packed = base64.b64decode((FORMAT_1 / "lake.txt").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "lake"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the lake, relocated to where it is; not to be compacted."""
    lake = unpacked(tmp_path_factory.mktemp("format-1"))
    settings = json.loads((lake / "lake.json").read_text("utf-8"))
    assert settings["format_version"] == 1
    moved = relocate(lake)
    assert moved.moved_from == settings["location"] == "/tmp/trailsift-format-1/lake"
    return lake


@pytest.fixture(scope="module")
def lake(path: Path) -> Iterator[trailsift.Lake]:
    with trailsift.Lake(path) as handle:
        yield handle


@pytest.mark.parametrize("answer", ANSWERS["sql"], ids=lambda answer: answer["sql"][:60])
def test_statements_have_the_same_rows(answer: dict[str, Any], lake: trailsift.Lake) -> None:
    rows = lake.query(answer["sql"], cache=False).rows()
    assert json.loads(json.dumps(rows)) == answer["rows"]


@pytest.mark.parametrize("answer", ANSWERS["commands"], ids=lambda answer: " ".join(answer["args"]))
def test_commands_have_the_same_answers(answer: dict[str, Any], path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = answer["args"]
    assert main([*args, "--json", "--lake", str(path)]) == 0
    now = json.loads(capsys.readouterr().out)
    compare(shape(args[0], answer["json"]), shape(args[0], now), args[0])
    # More levels than before have a part in a finding: nothing that it named is missing.
    names = {finding["id"]: set(finding["event_names"]) for finding in now.get("findings", ())}
    for finding in answer["json"].get("findings", ()):
        assert set(finding["event_names"]) <= names[finding["id"]]


def shape(command: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the part of an answer that a later version keeps; new tables and new findings are allowed."""
    if command == "status":
        return {**answer, "tables": {table["name"]: table for table in answer["tables"]}}
    if command == "detect":
        # A finding that is new by intent: 60 refusals in a minute, with a code that did not count as a refusal.
        findings = {finding["id"]: {name: finding[name] for name in FINDING} for finding in answer["findings"]}
        # Who did most comes first, which more levels than before have a part in.
        return {
            id_: {**finding, "role_arns": sorted(finding["role_arns"], key=str)} for id_, finding in findings.items()
        }
    return answer


def compare(before: Any, now: Any, where: str) -> None:
    """Fail where an answer differs from the one before; members that are new are not compared."""
    if isinstance(before, dict):
        for name, value in before.items():
            place = f"{where}.{name}"
            assert name in now, place
            if name == "denied":
                # Refusals are recognized by the error code at the time of the question, and more codes are known to be
                # refusals: VpceAccessDenied, AuthorizationError and others. The sums in `profile` are as they were.
                assert now[name] >= value, place
            elif name == "refused":
                # For the same reason there may be more lines.
                assert [line for line in value if not any(line.items() <= new.items() for new in now[name])] == [], (
                    place
                )
            else:
                compare(value, now[name], place)
    elif isinstance(before, list):
        assert len(now) == len(before), where
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            compare(old, new, f"{where}[{number}]")
    else:
        assert now == before, where
