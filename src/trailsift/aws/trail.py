"""The one place that speaks to CloudTrail's API."""

from __future__ import annotations

from typing import Any, Protocol

from trailsift.aws import calls
from trailsift.aws.selectors import Selector, advanced, refuses_roles
from trailsift.errors import TrailsiftError


class RolesRefused(TrailsiftError):
    """The trail does not take selectors on ``userIdentity.arn``."""


class Client(Protocol):
    """What is needed of boto3's CloudTrail client."""

    def get_event_selectors(self, *, TrailName: str) -> dict[str, Any]:
        """GetEventSelectors."""

    def put_event_selectors(self, *, TrailName: str, AdvancedEventSelectors: list[Selector]) -> dict[str, Any]:
        """PutEventSelectors."""


class Trail:
    """A trail's event selectors."""

    def __init__(self, name: str, client: Client | None = None) -> None:
        self.name = name
        self._client: Client = client or calls.client("cloudtrail")

    def get(self) -> list[Selector]:
        """The selectors that it has, as advanced ones."""
        with calls.told(f"reading the selectors of the trail {self.name}"):
            return advanced(self._client.get_event_selectors(TrailName=self.name))

    def put(self, chosen: list[Selector]) -> None:
        """Replaces all selectors. RolesRefused where the trail does not take roles."""
        from botocore.exceptions import ClientError

        with calls.told(f"writing the selectors of the trail {self.name}"):
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
