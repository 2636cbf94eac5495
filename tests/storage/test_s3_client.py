"""Settings of AWS's standard environment reach S3, and whatever goes wrong there is said in one line."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s3_server import SECRET, Server
from s3_server import s3 as s3
from s3_server import s3_server as s3_server
from trailsift.errors import ConflictError, S3Error, UsageError
from trailsift.storage.s3_client import Bucket, S3Url, connect, parse_url, s3_errors

pytest.importorskip("obstore")


def test_urls() -> None:
    assert parse_url("s3://logs") == S3Url("logs", "") and parse_url("S3://logs/a/b/") == S3Url("logs", "a/b/")
    assert str(S3Url("logs", "AWSLogs/")) == "s3://logs/AWSLogs/"
    # A prefix with a slash too many is what some trails write to.
    assert parse_url("s3://logs//AWSLogs").key == "/AWSLogs"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gs://logs/a", "must begin with s3://"),
        ("s3://", "not the name of a bucket"),
        ("s3://a/b", "not the name of a bucket"),
        ("s3://lo..gs/b", "not the name of a bucket"),
        ("s3://bad\x1b[2Jbucket/b", r"\\u001b"),
        ("s3://arn:aws:s3:eu-west-1:1:accesspoint/x/b", "alias of the access point"),
        ("s3://logs/a\nb", "control characters"),
        ("s3://logs/a/../b", r"'\.\.'"),
        ("s3://logs/" + "k" * 1025, "at most 1,024 bytes"),
        ("s3://logs/\udcff", "UTF-8"),
    ],
)
def test_bad_urls_are_refused(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        parse_url(text)
    assert str(caught.value).isprintable()


def test_environment_is_enough(s3: Server) -> None:
    """Keys, endpoint and region come from the environment; a prefix is what all paths are below."""
    bucket = s3.new_bucket()
    connect(bucket).put("a/b.json", b"one")
    assert bytes(connect(bucket, prefix="a").get("b.json").bytes()) == b"one"
    carried = pickle.loads(pickle.dumps(Bucket(bucket)))  # noqa: S301 - our own
    assert bytes(carried.connection.get("a/b.json").bytes()) == b"one"
    assert carried.connection is Bucket(bucket).connection and SECRET.encode() not in pickle.dumps(carried)


def test_profile_of_the_configuration(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE is taken by boto3's chain, with the profile's region and endpoint."""
    bucket = s3.new_bucket()
    s3.put(bucket, {"x": b"1"})
    config = tmp_path / "config"
    config.write_text(
        f"[profile logs]\naws_access_key_id = {os.environ['AWS_ACCESS_KEY_ID']}\naws_secret_access_key = {SECRET}\n"
        f"region = eu-west-1\nendpoint_url = {s3.url}\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "logs")
    store = connect(bucket)
    assert bytes(store.get("x").bytes()) == b"1" and store.config["region"] == "eu-west-1"
    monkeypatch.setenv("AWS_PROFILE", "other")
    with pytest.raises(S3Error, match=r"profile \(other\) could not be found: see `aws configure list-profiles`"):
        connect(bucket)


def test_no_credentials_are_noticed_at_once(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    started = time.monotonic()
    with pytest.raises(S3Error, match=r"s3://logs cannot be opened: there are no AWS credentials .* set AWS_PROFILE"):
        connect("logs")
    assert time.monotonic() - started < 8


def test_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "obstore.py").write_text("raise ImportError\n")
    code = "from trailsift.storage.s3_client import connect\nconnect('logs')"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    run = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True)
    assert b"UsageError: S3 needs obstore and boto3: install trailsift with the extra `aws`" in run.stderr


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("AWS_ENDPOINT_URL", "localhost:8333", "is not a URL"),
        ("AWS_MAX_ATTEMPTS", "many", "use 1 to 100"),
        ("AWS_CA_BUNDLE", "/no/such/file", "AWS_CA_BUNDLE /no/such/file cannot be read: No such file"),
    ],
)
def test_bad_settings(s3: Server, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, problem: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=problem):
        connect("logs")


def list_all(bucket: str) -> None:
    """List a bucket as a source does."""
    with s3_errors(f"s3://{bucket}/AWSLogs", "s3:ListBucket"):
        list(connect(bucket).list())


def test_no_such_bucket(s3: Server) -> None:
    with pytest.raises(S3Error, match=r"s3://nowhere/AWSLogs cannot be listed: there is no bucket nowhere \(NoSuchBuc"):
        list_all("nowhere")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_keys_that_are_refused(s3: Server, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    bucket = s3.new_bucket()
    monkeypatch.setenv(name, "wrong-but-secret")
    with pytest.raises(S3Error, match="AWS does not accept these credentials") as caught:
        list_all(bucket)
    assert "wrong-but-secret" not in str(caught.value) and len(str(caught.value)) < 400


def test_server_that_is_away(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with pytest.raises(S3Error, match=r"refuses the connection: check AWS_ENDPOINT_URL \(2 attempts\)"):
        list_all("logs")


def test_conditions(s3: Server) -> None:
    """A missing object stays a FileNotFoundError; a condition that fails is a conflict."""
    bucket = s3.new_bucket()
    store = connect(bucket)
    store.put("x", b"1")
    with pytest.raises(FileNotFoundError), s3_errors(f"s3://{bucket}/y", "s3:GetObject"):
        store.get("y")
    with pytest.raises(ConflictError, match="another writer"), s3_errors(f"s3://{bucket}/x", "s3:PutObject"):
        store.put("x", b"2", mode="create")
    with pytest.raises(ConflictError, match="another writer"), s3_errors(f"s3://{bucket}/x", "s3:PutObject"):
        store.put("x", b"2", mode={"e_tag": '"0"'})
