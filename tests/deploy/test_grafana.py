"""What Grafana reads, checked by Grafana's published schema: its types, and the compiler that knows them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.paths import TESTS
from trailsift.deploy import render
from trailsift.deploy.tables import StackConfig

SHAPES = TESTS / "grafana" / "shapes.ts"
MADE = render.files(StackConfig(bucket="my-bucket", regions=("eu-west-1",)))
BOARDS = ("operations", "roles", "cost")
_SETTINGS = {
    "compilerOptions": {
        "strict": True,
        "noEmit": True,
        "module": "nodenext",
        "moduleResolution": "nodenext",
        "target": "es2022",
        "types": [],
    }
}

Check = Callable[[dict[str, tuple[str, Any]]], str]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Name -> (type of ``shapes.ts``, value): what the compiler has to say of the values; empty where all is well."""
    given = os.environ.get("TRAILSIFT_GRAFANA")
    modules = Path(given) if given else Path(sys.prefix) / "grafana" / "node_modules"
    compiler, node = modules / "typescript" / "bin" / "tsc", shutil.which("node")
    if node is None or not compiler.exists() or not (modules / "@grafana" / "schema").is_dir():
        pytest.skip("no schema of Grafana: make test-aws installs it, TRAILSIFT_GRAFANA names its node_modules")
    folder = tmp_path_factory.mktemp("grafana")
    (folder / "node_modules").symlink_to(modules, target_is_directory=True)
    (folder / "package.json").write_text('{"type": "module"}')
    shutil.copy(SHAPES, folder / "shapes.ts")

    def checked(values: dict[str, tuple[str, Any]]) -> str:
        kinds = ", ".join(sorted({kind for kind, _ in values.values()}))
        lines = [f"import type {{ {kinds} }} from './shapes.js';"]
        lines += [f"export const {name}: {kind} = {json.dumps(value)};" for name, (kind, value) in values.items()]
        (folder / "made.ts").write_text("\n".join(lines))
        (folder / "tsconfig.json").write_text(json.dumps({**_SETTINGS, "files": ["made.ts"]}))
        done = subprocess.run([node, str(compiler)], cwd=folder, capture_output=True, text=True, timeout=120)
        assert (done.returncode == 0) == (not done.stdout), done.stderr
        return done.stdout

    return checked


def _board(name: str) -> Any:
    return json.loads(MADE[f"grafana/dashboards/{name}.json"])


def _provisioned(name: str) -> Any:
    return yaml.safe_load(MADE[f"grafana/provisioning/{name}/trailsift.yaml"])


def test_boards_and_provisioning_are_what_grafana_takes(check: Check) -> None:
    values: dict[str, tuple[str, Any]] = {name: ("Board", _board(name)) for name in BOARDS}
    values["sources"] = "DataSources", _provisioned("datasources")
    values["providers"] = "Providers", _provisioned("dashboards")
    assert check(values) == ""


def test_the_check_finds_what_is_wrong(check: Check) -> None:
    """Each mistake in a place of its own: a check that lets one of them pass proves nothing."""
    unknown, shape, query, unit, source = (_board("operations") for _ in range(5))
    unknown["panelz"] = []
    shape["panels"][0]["type"] = "graph"
    del query["panels"][1]["targets"][0]["id"]
    unit["panels"][0]["fieldConfig"]["defaults"]["unit"] = 7
    source["panels"][0]["options"]["legend"]["placement"] = "left"
    wrong = {"unknown": unknown, "shape": shape, "query": query, "unit": unit, "source": source}
    said = check({name: ("Board", value) for name, value in wrong.items()})
    lines = {int(line.split("(")[1].split(",")[0]) for line in said.splitlines() if line.startswith("made.ts(")}
    assert lines == {2, 3, 4, 5, 6}, said
