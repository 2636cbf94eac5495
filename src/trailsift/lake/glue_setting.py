"""The setting of a lake in S3 that says which Glue database follows it. ``lake.glue`` moves the pointers there.

``lake.json`` may come from somebody else: what it says holds only for the lake at the place that it was saved for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from trailsift.errors import LakeError, UsageError
from trailsift.safe_text import safe

#: The member of ``lake.json``.
SETTING = "glue"
NO_EXTRA = "Glue needs boto3: install trailsift with the extra `aws` (pip install 'trailsift[aws]')"
_MEMBERS = frozenset({"database", "region", "catalog_id", "place"})
#: Lower case: Athena and Hive know no other names.
_DATABASE = re.compile(r"[a-z0-9_][a-z0-9_-]{0,254}", re.ASCII)
_REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]{2,12}){1,3}-[0-9]{1,2}", re.ASCII)
_CATALOG_ID = re.compile(r"[0-9]{12}", re.ASCII)
#: The longest part of a text that is shown.
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Target:
    """A Glue database. ``catalog_id``: the account, if it is another one; ``place``: the lake that it was saved for."""

    database: str
    region: str
    catalog_id: str | None = None
    place: str | None = None

    @property
    def name(self) -> str:
        """The database as messages name it."""
        account = "" if self.catalog_id is None else f" of account {self.catalog_id}"
        return f"database {self.database}{account} in {self.region}"

    def as_dict(self) -> dict[str, str | None]:
        """For ``--json``."""
        return {"database": self.database, "region": self.region, "catalog_id": self.catalog_id}

    def options(self) -> str:
        """Return the options of ``trailsift connect`` that name it."""
        account = "" if self.catalog_id is None else f" --catalog-id {self.catalog_id}"
        return f"--glue {self.database} --region {self.region}{account}"


def target_of(database: str, region: str | None, catalog_id: str | None) -> Target:
    """Return a database by its name. UsageError if something cannot be a name; without a region, if none is set."""
    region = region or _region_of_environment()
    if region is None:
        raise UsageError("say in which region the Glue database is: --region, AWS_REGION, or a region in the profile")
    return _checked(Target(database, region, catalog_id))


def _checked(target: Target) -> Target:
    for value, form, what, example in (
        (target.database, _DATABASE, "name of a Glue database (lower case)", "cloudtrail"),
        (target.region, _REGION, "region", "eu-west-1"),
        (target.catalog_id, _CATALOG_ID, "account", "111122223333"),
    ):
        if value is not None and form.fullmatch(value) is None:
            raise UsageError(f"{safe(value[:_SHOWN])!r} cannot be the {what}: use a form such as {example}")
    return target


def _region_of_environment() -> str | None:
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise UsageError(NO_EXTRA) from None
    try:
        return os.environ.get("AWS_REGION") or boto3.Session().region_name
    except BotoCoreError as error:
        raise UsageError(f"cannot use the settings of AWS: {safe(str(error))[:_SHOWN]}") from error


def saved(settings: Mapping[str, object]) -> Target | None:
    """Return the database that ``lake.json`` names; None if it names none. LakeError if it is not what we write."""
    found = settings.get(SETTING)
    if found is None:
        return None
    if not isinstance(found, dict) or not found.keys() <= _MEMBERS:
        raise _wrong(found, f"it must have the members {', '.join(sorted(_MEMBERS))}")
    database, region, place = (found.get(name) for name in ("database", "region", "place"))
    catalog_id = found.get("catalog_id")
    is_text = isinstance(database, str) and isinstance(region, str) and isinstance(place, str)
    if not is_text or not isinstance(catalog_id, str | None):
        raise _wrong(found, "its members must be text")
    try:
        return _checked(Target(str(database), str(region), catalog_id, str(place)))
    except UsageError as error:
        raise _wrong(found, str(error)) from error


def _wrong(found: object, what: str) -> LakeError:
    return LakeError(
        f"{SETTING} in lake.json is {found!r:.200}: {what}. Nothing was registered in Glue; `trailsift connect "
        "--no-glue` takes it out"
    )


def applied(settings: Mapping[str, object]) -> Target | None:
    """Return the database that follows the lake: that of ``lake.json``, if it was saved for the lake at this place."""
    target = saved(settings)
    return target if target is not None and target.place == settings.get("location") else None
