"""The event selectors of a trail, read and written through CloudTrail's API."""

from __future__ import annotations

from typing import Any, Protocol

from trailsift.aws.client import aws_errors, create_client, region_of
from trailsift.aws.selectors import RolesRefused, Selector, advanced_selectors, refuses_roles
from trailsift.errors import TrailsiftError


class CloudTrailClient(Protocol):
    """The part of boto3's CloudTrail client that is used here."""

    def get_event_selectors(self, *, TrailName: str) -> dict[str, Any]:
        """GetEventSelectors."""

    def put_event_selectors(self, *, TrailName: str, AdvancedEventSelectors: list[Selector]) -> dict[str, Any]:
        """PutEventSelectors."""


def _normalized(selectors: list[Selector]) -> list[Any]:
    """Return selectors in a form that compares equal whatever order AWS returns fields and values in."""
    return [
        (selector.get("Name"), sorted(_normalized_field(field) for field in selector["FieldSelectors"]))
        for selector in selectors
    ]


def _normalized_field(field: dict[str, Any]) -> tuple[str, list[Any]]:
    conditions = {name: sorted(values) for name, values in field.items() if name != "Field" and values}
    return str(field["Field"]), sorted(conditions.items())


class TrailSelectors:
    """The event selectors of one trail."""

    def __init__(self, name: str, client: CloudTrailClient | None = None) -> None:
        self.name = name
        self._client: CloudTrailClient = client or create_client("cloudtrail")
        self._region = region_of(self._client)

    def get(self) -> list[Selector]:
        """Return the trail's selectors, basic ones converted to advanced ones."""
        with aws_errors(f"reading the selectors of the trail {self.name}", self._region):
            return advanced_selectors(self._client.get_event_selectors(TrailName=self.name))

    def put(self, selectors: list[Selector]) -> None:
        """Replace all selectors and read them back.

        Raise RolesRefused if the trail does not accept roles, TrailsiftError if it has other selectors afterwards.
        """
        from botocore.exceptions import ClientError

        with aws_errors(f"writing the selectors of the trail {self.name}", self._region):
            try:
                self._client.put_event_selectors(TrailName=self.name, AdvancedEventSelectors=selectors)
            except ClientError as error:
                details = error.response.get("Error", {})
                if refuses_roles(str(details.get("Code")), str(details.get("Message"))):
                    raise RolesRefused(
                        f"the trail {self.name} does not take selectors on userIdentity.arn: use --without-roles, and "
                        "ingest with the rules file that it writes, which keeps only these roles"
                    ) from error
                raise
        if _normalized(self.get()) != _normalized(selectors):
            raise TrailsiftError(
                f"the trail {self.name} accepted the selectors but reports different ones: either someone else is "
                "changing them, or AWS needs a moment. Check with "
                f"`aws cloudtrail get-event-selectors --trail-name {self.name}`"
            )
