"""The lake's tables in Glue and S3: where their metadata is, and how large their files are."""

from __future__ import annotations

from typing import Any, Protocol

from trailsift.aws.client import aws_errors, create_client, region_of
from trailsift.errors import TrailsiftError
from trailsift.lake.glue import LAKE
from trailsift.lake.index import SizedFile
from trailsift.schema import TABLES


class GlueClient(Protocol):
    """The part of boto3's Glue client that is used here."""

    def get_table(self, *, DatabaseName: str, Name: str) -> dict[str, Any]: ...


class S3Client(Protocol):
    """The part of boto3's S3 client that is used here."""

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]: ...


class GlueCatalog:
    """A Glue database with trailsift's Iceberg tables."""

    def __init__(self, database: str, glue: GlueClient | None = None, s3: S3Client | None = None) -> None:
        self.database = database
        self._glue: GlueClient = glue or create_client("glue")
        self._s3: S3Client = s3 or create_client("s3")

    def files(self, name: str) -> list[SizedFile]:
        """Return the table's live files. Raise TrailsiftError if its metadata cannot be read."""
        from trailsift.lake.column_sizes import sized_files

        return sized_files(TABLES[name], self._metadata_location(name), self._fetch)

    def is_registered(self, name: str) -> bool | None:
        """Return whether the table is one of a lake (``lake.glue``); False also if there is none.

        None if Glue does not tell.
        """
        try:
            parameters = self._table(name).get("Parameters") or {}
        except TrailsiftError as error:
            return False if "EntityNotFoundException" in str(error) else None
        return LAKE in parameters

    def _table(self, name: str) -> dict[str, Any]:
        with aws_errors(f"looking up the table {self.database}.{name} in Glue", region_of(self._glue)):
            table: dict[str, Any] = self._glue.get_table(DatabaseName=self.database, Name=name)["Table"]
        return table

    def _metadata_location(self, name: str) -> str:
        location = self._table(name).get("Parameters", {}).get("metadata_location")
        if not location:
            raise TrailsiftError(f"{self.database}.{name} is not an Iceberg table: `trailsift aws sql` creates those")
        return str(location)

    def _fetch(self, location: str) -> bytes:
        bucket, _, key = location.partition("://")[2].partition("/")
        with aws_errors(f"reading {location}", region_of(self._s3)):
            data: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return data
