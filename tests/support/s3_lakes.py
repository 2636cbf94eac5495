"""Lakes in S3 for tests: small logs, a place for a new lake, a lake that is made once, and other machines.

Import the fixtures into the module that uses them, with those of ``s3_server``::

    from support.s3_lakes import filled, inputs, lake_image, new_lake, own_cache
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from s3_proxy import Request
from s3_server import Server
from trailsift import Lake
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.lake.mirror import Mirror
from trailsift.lake.mirrored_storage import open_mirror
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.schema import TABLES

#: Events of each of ``inputs``: of two days in the first two, of one day in the third.
EVENTS = 300
Inputs = tuple[Path, Path, Path]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Three folders of logs, without a common event."""
    folder = tmp_path_factory.mktemp("s3-logs")
    for number, (days, seed) in enumerate(((2, 6), (2, 9), (1, 12))):
        generate(folder / str(number), Options(events=EVENTS, days=days, seed=seed))
    return folder / "0" / "AWSLogs", folder / "1" / "AWSLogs", folder / "2" / "AWSLogs"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own for each test: as a machine that has never seen the lake."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def new_lake(s3: Server) -> str:
    """The URL of a lake to be made: ``team/lake`` in an empty bucket."""
    return f"s3://{s3.new_bucket()}/team/lake"


@dataclass(frozen=True)
class Image:
    """The objects of a bucket, to be put back before each test."""

    bucket: str
    objects: dict[str, bytes]

    @property
    def url(self) -> str:
        """The URL of the lake in it."""
        return f"s3://{self.bucket}/team/lake"

    def restore(self, server: Server) -> None:
        """Have the bucket hold these objects and nothing else."""
        present = server.keys(self.bucket)
        server.delete(self.bucket, present)
        server.put(self.bucket, self.objects)


def image_of(server: Server, logs: Path, cache: Path) -> Image:
    """Make a lake of some logs at ``team/lake`` in a bucket of its own; return the bucket with it."""
    bucket = server.new_bucket()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**server.env, "XDG_CACHE_HOME": str(cache)}.items():
            patch.setenv(name, value)
        with Lake(f"s3://{bucket}/team/lake") as lake:
            assert lake.ingest(logs).stored
    return Image(bucket, {key: server.read(bucket, key) for key in server.keys(bucket)})


@pytest.fixture(scope="session")
def lake_image(s3_server: Server, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A lake that holds the first of ``inputs``."""
    return image_of(s3_server, inputs[0], tmp_path_factory.mktemp("cache"))


@pytest.fixture
def filled(s3: Server, lake_image: Image) -> str:
    """The URL of a lake that holds the first of ``inputs``. Making one for each test would take a second."""
    lake_image.restore(s3)
    return lake_image.url


class Machine:
    """A machine with a cache of its own, which works on the lake at ``url``."""

    def __init__(self, url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as context:
            context.setenv("XDG_CACHE_HOME", str(cache))
            self.writer: Mirror = open_mirror(url, "write")
            self.reader: Mirror = open_mirror(url, "read")

    def ingest(self, *places: Path, **options: Any) -> Any:
        """Ingest logs."""
        return ingest([str(path) for path in places], self.writer.root, **options)

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table, in order."""
        return rows_of(self.reader.root, table)


def rows_of(root: Path, table: str) -> list[tuple[Any, ...]]:
    """Return the rows of a table without the names of log objects and the time of the ingest, in order."""
    names = [column.name for column in TABLES[table].columns if column.name not in ("log_object", "ingested_at")]
    with DuckDBEngine(open_snapshot(root)) as engine:
        return sorted(map(repr, engine.sql(f"SELECT {', '.join(names)} FROM {table}").rows()))  # type: ignore[arg-type]


def is_commit(request: Request) -> bool:
    """Return whether a request commits to a lake."""
    return request.method == "PUT" and request.key == "team/lake/catalog.db"


def events(lake: Lake) -> tuple[int, int, int]:
    """Return the number of events, of their ids, and the sum of the hourly summary: three times the same."""
    (row,) = lake.query("SELECT count(*), count(DISTINCT event_id) FROM events", cache=False).rows()
    return (*row, lake.query("SELECT sum(events) FROM hourly", cache=False).value())  # type: ignore[return-value]
