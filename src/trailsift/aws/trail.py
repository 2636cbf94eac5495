"""The one place that speaks to CloudTrail's API."""

from __future__ import annotations

from typing import Any, Protocol

from trailsift.aws import client as calls
from trailsift.aws.selectors import RolesRefused, Selector, advanced, refuses_roles
from trailsift.errors import TrailsiftError


class Client(Protocol):
    """What is needed of boto3's CloudTrail client."""

    def get_event_selectors(self, *, TrailName: str) -> dict[str, Any]:
        """GetEventSelectors."""

    def put_event_selectors(self, *, TrailName: str, AdvancedEventSelectors: list[Selector]) -> dict[str, Any]:
        """PutEventSelectors."""


def _plain(chosen: list[Selector]) -> list[Any]:
    """Selectors without order in what has none: fields and values come back in the order that AWS likes."""
    return [(one.get("Name"), sorted(_field(field) for field in one["FieldSelectors"])) for one in chosen]


def _field(field: dict[str, Any]) -> tuple[str, list[Any]]:
    named = {name: sorted(values) for name, values in field.items() if name != "Field" and values}
    return str(field["Field"]), sorted(named.items())


class Trail:
    """A trail's event selectors."""

    def __init__(self, name: str, client: Client | None = None) -> None:
        self.name = name
        self._client: Client = client or calls.client("cloudtrail")
        self._region = calls.region_of(self._client)

    def get(self) -> list[Selector]:
        """The selectors that it has, as advanced ones."""
        with calls.aws_errors(f"reading the selectors of the trail {self.name}", self._region):
            return advanced(self._client.get_event_selectors(TrailName=self.name))

    def put(self, chosen: list[Selector]) -> None:
        """Replaces all selectors and reads them back. RolesRefused where the trail does not take roles."""
        from botocore.exceptions import ClientError

        with calls.aws_errors(f"writing the selectors of the trail {self.name}", self._region):
            try:
                self._client.put_event_selectors(TrailName=self.name, AdvancedEventSelectors=chosen)
            except ClientError as error:
                about = error.response.get("Error", {})
                if refuses_roles(str(about.get("Code")), str(about.get("Message"))):
                    raise RolesRefused(
                        f"the trail {self.name} does not take selectors on userIdentity.arn: use --without-roles, and "
                        "let the rules file that comes with it keep the roles"
                    ) from error
                raise
        if _plain(self.get()) != _plain(chosen):
            raise TrailsiftError(
                f"the trail {self.name} took the selectors, but says that it has others: somebody else changes them "
                f"too, or AWS needs a moment. Look with `aws cloudtrail get-event-selectors --trail-name {self.name}`"
            )
