"""Grafana's files, checked against the types of Grafana's published schema by the TypeScript compiler."""

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
FILES = render.files(StackConfig(bucket="my-bucket", regions=("eu-west-1",)))
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
    """Return a checker: name -> (type of ``shapes.ts``, value) gives the compiler's errors, empty if there are none."""
    configured = os.environ.get("TRAILSIFT_GRAFANA")
    modules = Path(configured) if configured else Path(sys.prefix) / "grafana" / "node_modules"
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
        (folder / "values.ts").write_text("\n".join(lines))
        (folder / "tsconfig.json").write_text(json.dumps({**_SETTINGS, "files": ["values.ts"]}))
        done = subprocess.run([node, str(compiler)], cwd=folder, capture_output=True, text=True, timeout=120)
        assert (done.returncode == 0) == (not done.stdout), done.stderr
        return done.stdout

    return checked


def _board(name: str) -> Any:
    return json.loads(FILES[f"grafana/dashboards/{name}.json"])


def _provisioned(name: str) -> Any:
    return yaml.safe_load(FILES[f"grafana/provisioning/{name}/trailsift.yaml"])


def test_dashboards_and_provisioning_match_grafanas_schema(check: Check) -> None:
    values: dict[str, tuple[str, Any]] = {name: ("Board", _board(name)) for name in BOARDS}
    values["sources"] = "DataSources", _provisioned("datasources")
    values["providers"] = "Providers", _provisioned("dashboards")
    assert check(values) == ""


def test_the_check_finds_mistakes(check: Check) -> None:
    """One mistake per value: a check that accepts any of them proves nothing."""
    unknown, shape, query, unit, source = (_board("operations") for _ in range(5))
    unknown["panelz"] = []
    shape["panels"][0]["type"] = "graph"
    del query["panels"][1]["targets"][0]["id"]
    unit["panels"][0]["fieldConfig"]["defaults"]["unit"] = 7
    source["panels"][0]["options"]["legend"]["placement"] = "left"
    wrong = {"unknown": unknown, "shape": shape, "query": query, "unit": unit, "source": source}
    errors = check({name: ("Board", value) for name, value in wrong.items()})
    lines = {int(line.split("(")[1].split(",")[0]) for line in errors.splitlines() if line.startswith("values.ts(")}
    assert lines == {2, 3, 4, 5, 6}, errors


def test_a_region_without_a_price_shows_no_dollars() -> None:
    """In China, a board says that the price is not known; it does not multiply by another region's."""
    config = StackConfig(bucket="my-bucket", regions=("cn-north-1",))
    board = json.loads(render.files(config)["grafana/dashboards/cost.json"])
    assert "the price in cn-north-1 is not known" in board["panels"][0]["description"]
    sql = [panel["targets"][0]["rawSQL"] for panel in board["panels"] if "rawSQL" in panel["targets"][0]]
    assert sql and all("* CAST(NULL AS double) AS usd" in text for text in sql)
    assert "* 0.00000100 AS usd" in FILES["grafana/dashboards/cost.json"]
