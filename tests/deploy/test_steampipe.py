"""Steampipe's files: an HCL parser reads the settings, and the query runs on PostgreSQL with the plugin's columns."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest
import sqlglot
from sqlglot import exp

from support.paths import ROOT
from trailsift.deploy import steampipe
from trailsift.deploy.tables import StackConfig

FILES = steampipe.files(StackConfig(regions=("eu-west-1", "us-east-1")))
#: Columns of aws_cloudtrail_trail_event that a query about calls may use, with their types.
#: https://hub.steampipe.io/plugins/turbot/aws/tables/aws_cloudtrail_trail_event
COLUMNS = {
    **dict.fromkeys(("log_group_name", "event_category", "event_name", "event_source", "user_type"), "text"),
    **dict.fromkeys(("user_identifier", "source_ip_address", "error_code"), "text"),
    **dict.fromkeys(("timestamp", "event_time"), "timestamptz"),
    "resources": "jsonb",
}
#: Columns whose conditions the plugin passes to CloudWatch Logs instead of reading everything.
PUSHED = {"log_group_name", "timestamp", "event_category", "event_source", "event_name"}
#: The plugin's connection settings and their types.
CONNECTION = {"plugin": str, "regions": list, "max_error_retry_attempts": int, "min_error_retry_delay": int}


def _blocks(path: str, *names: str) -> dict[str, Any]:
    """Return the members of one block of a file."""
    block: Any = hcl2.loads(FILES[path])
    for name in names:
        block = block[name]
        block = block[0] if isinstance(block, list) else block
        block = {key.strip('"'): value for key, value in block.items()}
    return {key: value for key, value in block.items() if not key.startswith("__")}


def test_settings_are_valid_hcl() -> None:
    connection = _blocks("steampipe/aws.spc", "connection", "aws")
    assert {name: type(value) for name, value in connection.items()} == CONNECTION
    assert [region.strip('"') for region in connection["regions"]] == ["eu-west-1", "us-east-1"]
    assert _blocks("steampipe/default.spc", "options", "database") == {"cache": True, "cache_max_ttl": 300}
    assert list(_blocks("powerpipe/trailsift.ppc", "connection", "duckdb", "trailsift")) == ["file_name"]


def test_the_page_shows_these_files() -> None:
    """The blocks of docs/original.md are the files that ``aws render`` writes."""
    page = (ROOT / "docs" / "original.md").read_text("utf-8")
    files = steampipe.files(StackConfig(regions=("ap-northeast-2",)))
    shown = re.findall(r"^```hcl\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert sorted(shown) == sorted(text for path, text in files.items() if not path.endswith(".sql"))
    assert re.sub(r"^--.*\n", "", steampipe.QUERY, flags=re.MULTILINE) in page


def test_the_query_uses_existing_columns() -> None:
    (parsed,) = sqlglot.parse(steampipe.QUERY, dialect="postgres")
    assert parsed is not None
    assert [table.name for table in parsed.find_all(exp.Table)] == ["aws_cloudtrail_trail_event"]
    assert {column.name for column in parsed.find_all(exp.Column)} <= set(COLUMNS)
    where = parsed.find(exp.Where)
    assert where is not None and {column.name for column in where.find_all(exp.Column)} == PUSHED


def test_the_query_runs_on_postgresql(tmp_path: Path) -> None:
    """On a table with the plugin's columns, it returns the one matching event, with its resource's ARN."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders = os.pathsep.join([os.environ["PATH"], *map(str, installed)])
    programs = [shutil.which(name, path=folders) for name in ("initdb", "postgres")]
    if None in programs:
        pytest.skip("no PostgreSQL: its initdb and postgres are not on the PATH")
    initdb, postgres = map(str, programs)
    # PostgreSQL refuses to run as root.
    other: dict[str, Any] = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
    data = Path(subprocess.check_output(["mktemp", "-d", "/tmp/trailsift-pg-XXXXXX"], **other, text=True).strip())
    try:
        quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": data, **other}
        subprocess.run([initdb, "-D", data / "db", "-U", "x", "-N", "--locale=C", "-E", "UTF8"], **quiet)
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        names = "log_group_name, timestamp, event_time, event_category, event_source, event_name, resources"
        row = "('aws-cloudtrail-logs', now(), now(), 'Data', 's3.amazonaws.com', '{}', '[{{\"ARN\": \"{}\"}}]')"
        rows = ", ".join(row.format(*values) for values in (("GetObject", "arn:a"), ("HeadObject", "arn:b")))
        lines = [
            f"create table aws_cloudtrail_trail_event ({columns});",
            f"insert into aws_cloudtrail_trail_event ({names}) values {rows};",
            " ".join(line for line in steampipe.QUERY.splitlines() if not line.startswith("--")),
        ]
        words = [postgres, "--single", "-D", data / "db", "postgres"]
        done = subprocess.run(
            words, input="\n".join(lines) + "\n", capture_output=True, text=True, cwd=data, check=True, **other
        )
    finally:
        shutil.rmtree(data)
    assert "ERROR" not in done.stderr, done.stderr
    assert re.findall(r'primary_resource = "([^"]*)"', done.stdout) == ["arn:a"]
    assert re.findall(r'event_name = "([^"]*)"', done.stdout) == ["GetObject"]
