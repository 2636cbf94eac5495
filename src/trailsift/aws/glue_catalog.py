"""Our tables as they are in Glue and S3: where their metadata lies, and what their files weigh."""

from __future__ import annotations

from typing import Any, Protocol

from trailsift.aws import client
from trailsift.errors import TrailsiftError
from trailsift.schema import TABLES


class Glue(Protocol):
    """What is needed of boto3's Glue client."""

    def get_table(self, *, DatabaseName: str, Name: str) -> dict[str, Any]: ...


class S3(Protocol):
    """What is needed of boto3's S3 client."""

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]: ...


class Catalog:
    """A database in Glue with our Iceberg tables."""

    def __init__(self, database: str, glue: Glue | None = None, s3: S3 | None = None) -> None:
        self.database = database
        self._glue: Glue = glue or client.client("glue")
        self._s3: S3 = s3 or client.client("s3")

    def files(self, name: str) -> list[Any]:
        """The table's live files as ``store.sizes.Sized``. TrailsiftError where it cannot be looked at."""
        from trailsift.lake.column_sizes import sized_files

        return sized_files(TABLES[name], self._metadata(name), self._fetch)

    def _metadata(self, name: str) -> str:
        with client.aws_errors(f"looking up the table {self.database}.{name} in Glue", client.region_of(self._glue)):
            found = self._glue.get_table(DatabaseName=self.database, Name=name)["Table"]
        where = found.get("Parameters", {}).get("metadata_location")
        if not where:
            raise TrailsiftError(f"{self.database}.{name} is no Iceberg table: `trailsift aws sql` has those")
        return str(where)

    def _fetch(self, location: str) -> bytes:
        bucket, _, key = location.partition("://")[2].partition("/")
        with client.aws_errors(f"reading {location}", client.region_of(self._s3)):
            answer = self._s3.get_object(Bucket=bucket, Key=key)
            data: bytes = answer["Body"].read()
        return data
