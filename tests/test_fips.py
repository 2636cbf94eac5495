"""A system whose OpenSSL refuses MD5 for anything that could be security (FIPS 140) runs everything."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trailsift

PACKAGE = Path(trailsift.__file__).parent

#: OpenSSL looks for implementations that are FIPS-approved, and has none: as with the provider, MD5 and SHA-1 are
#: refused unless a caller says that security does not depend on them.
CONFIG = """\
openssl_conf = init
[init]
alg_section = algorithms
[algorithms]
default_properties = fips=yes
"""
#: The approved hashes come from the interpreter here, because the provider is not part of most systems.
PREAMBLE = """\
import _sha256, hashlib, json, sys
try:
    hashlib.md5(b"")
except ValueError:
    pass
else:
    sys.exit("MD5 is not refused")
hashlib.sha256 = _sha256.sha256
"""


def _run(code: str, tmp_path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "openssl.cnf"
    config.write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code, *arguments],
        env=os.environ | {"OPENSSL_CONF": str(config)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.stderr.strip() in ("MD5 is not refused", "No module named '_sha256'"):
        pytest.skip(f"this Python's hashlib does not follow OpenSSL's configuration: {done.stderr.strip()}")
    return done


RECORD = {
    "eventVersion": "1.09", "eventTime": "2024-01-15T10:00:00Z", "eventSource": "s3.amazonaws.com",
    "eventName": "GetObject", "awsRegion": "eu-west-1", "sourceIPAddress": "192.0.2.1", "userAgent": "test",
    "requestParameters": {"bucketName": "b", "key": "k"}, "eventCategory": "Data", "recipientAccountId": "1" * 12,
    "userIdentity": {"type": "AWSAccount", "principalId": "A", "accountId": "1" * 12},
}  # fmt: skip


@pytest.mark.parametrize("pure", ["0", "1"])
def test_ingest_and_query(tmp_path: Path, pure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records with an event id and without one, with the C modules and without them."""
    monkeypatch.setenv("TRAILSIFT_PURE", pure)
    logs = tmp_path / "logs.json"
    records = [RECORD | ({"eventID": f"id-{number}"} if number else {}) for number in range(3)]
    logs.write_text(json.dumps({"Records": records}))
    code = """
from trailsift.cli import main
logs, lake = sys.argv[1:]
for words in (["ingest", logs, "--lake", lake], ["detect", "--lake", lake],
              ["query", "SELECT event_id FROM events ORDER BY 1", "--lake", lake, "--format", "json"]):
    if main(words):
        sys.exit(f"failed: {words[0]}")
"""
    done = _run(code, tmp_path, logs, tmp_path / "lake")
    assert done.returncode == 0, done.stderr[-2000:]
    ids = re.findall(r'"event_id": ?"([^"]+)"', done.stdout)
    assert len(ids) == 3 and ids[0].startswith("content-") and ids[1:] == ["id-1", "id-2"]


def test_the_transformation_of_a_stream(tmp_path: Path) -> None:
    """The handler of the generated Lambda package."""
    code = """
import base64
from trailsift.aws.handler import firehose
data = base64.b64encode(json.dumps({"Records": [json.loads(sys.argv[1])]}).encode()).decode()
event = {"invocationId": "i", "deliveryStreamArn": "arn", "region": "r", "records": [{"recordId": "1", "data": data}]}
print(json.dumps([record["result"] for record in firehose(event)["records"]]))
"""
    done = _run(code, tmp_path, json.dumps(RECORD))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == ["Ok"]


def test_every_md5_and_sha1_says_so() -> None:
    """Those that the runs above do not reach, too."""
    weak = [
        f"{path.name}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hashlib.md5", "hashlib.sha1", "hashlib.new")
        and not any(word.arg == "usedforsecurity" for word in node.keywords)
    ]  # fmt: skip
    assert not weak
