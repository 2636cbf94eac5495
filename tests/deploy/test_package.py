"""The zip of the Lambda function runs on its own, is small, and reproducible."""

from __future__ import annotations

import base64
import json
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.records import sample, text
from trailsift.cli import main
from trailsift.deploy import package
from trailsift.errors import TrailsiftError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
HERE: package.Arch = "arm64" if platform.machine() == "aarch64" else "x86_64"
RULES = '[[rule]]\nname = "none"\nwhen = { event_name = "HeadObject" }\naction = "drop"\n'


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels for this machine's Python."""
    folder = tmp_path_factory.mktemp("wheels")
    try:
        package._wheels(folder, HERE, PYTHON, None)
    except TrailsiftError as error:
        pytest.skip(f"no network to download wheels: {error}")
    return folder


def test_the_zip_runs_on_its_own(wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    built = []
    for name in ("a.zip", "b.zip"):
        words = ["aws", "package", "--arch", HERE, "--python", PYTHON, "--rules", str(rules), "--wheels", str(wheels)]
        assert main([*words, "--output", str(tmp_path / name), "--json"]) == 0
        built.append(json.loads(capsys.readouterr().out))
    assert built[0]["sha256"] == built[1]["sha256"] and built[0]["size"] < 10_000_000
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    task = tmp_path / "task"
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(task)
    data = [base64.b64encode(text(sample(eventName=name))).decode() for name in ("HeadObject", "GetObject")]
    event = {"records": [{"recordId": f"{number}", "data": each} for number, each in enumerate(data)]}
    # Without site-packages and this checkout: only the contents of the zip.
    code = (
        f"import sys, json; sys.path.insert(0, {str(task)!r}); from trailsift.aws.handler import firehose;"
        f"answer = firehose(json.loads({json.dumps(event)!r}), None); print(json.dumps(answer));"
        "assert not {'pyarrow', 'duckdb', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert [record["result"] for record in answer["records"]] == ["Dropped", "Ok"]


def test_missing_wheels(tmp_path: Path) -> None:
    with pytest.raises(TrailsiftError, match=r"cannot download wheels of isal==.*--wheels"):
        package.build(tmp_path / "x.zip", wheels=tmp_path)


def test_wrong_rules_are_not_packed(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES.replace("event_name", "event_nam"))
    with pytest.raises(TrailsiftError, match="event_nam"):
        package.build(tmp_path / "x.zip", rules=rules)
