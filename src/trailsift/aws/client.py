"""Calls to AWS through boto3, and what their failures mean in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trailsift.errors import TrailsiftError, UsageError

_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError")
#: What the code of an error means for who asks; {region} is the region that was asked.
_HINTS = {
    "TrailNotFoundException": "no such trail is in {region}: a trail's ARN names its region, AWS_REGION sets another",
    "EntityNotFoundException": "none in {region}: `trailsift aws sql` makes the tables, AWS_REGION sets another region",
    "NoSuchBucket": "is the name right?",
    "PermanentRedirect": "the bucket is in another region than {region}: set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region than {region}: set AWS_REGION",
    "ThrottlingException": "AWS is asked too often: try again in a minute",
}
_BAD_KEYS = ("UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken")


def client(service: str, region: str | None = None) -> Any:
    """A boto3 client with the settings of the environment (AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL ...)."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise UsageError("speaking to AWS needs boto3: install trailsift with the extra `aws`") from None
    retried = Config(retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=10)
    # The other SDKs and AWS's own machines set AWS_REGION; boto3 looks at AWS_DEFAULT_REGION only.
    region = region or os.environ.get("AWS_REGION") or None
    with aws_errors(f"making a client for {service}"):
        # A session of its own: the default one keeps the settings of the first call.
        return boto3.Session().client(service, region_name=region, config=retried)


@contextmanager
def aws_errors(doing: str, region: str | None = None) -> Iterator[None]:
    """Failures of boto3 inside become one TrailsiftError that says what was done, and what to do about it.

    ``region``: the region that is asked.
    """
    try:
        from botocore import exceptions
    except ImportError:
        raise UsageError("speaking to AWS needs boto3: install trailsift with the extra `aws`") from None
    try:
        yield
    except exceptions.ClientError as error:
        raise TrailsiftError(f"{doing}: {_client_error(error, region)}") from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError):
        raise TrailsiftError(
            f"{doing}: there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    except exceptions.ProfileNotFound as error:
        raise TrailsiftError(f"{doing}: {error}: see `aws configure list-profiles`") from error
    except exceptions.NoRegionError:
        raise TrailsiftError(f"{doing}: no region is set: set AWS_REGION, or a region in the profile") from None
    except exceptions.EndpointConnectionError as error:
        raise TrailsiftError(f"{doing}: {error} Is the region right, and is there a network?") from error
    except exceptions.BotoCoreError as error:
        raise TrailsiftError(f"{doing}: {error}") from error


def _client_error(error: Any, region: str | None) -> str:
    about = error.response.get("Error", {})
    code, message = str(about.get("Code", "")), str(about.get("Message", "")).strip()
    if code in _DENIED:
        return f"{error.operation_name} is not allowed: {message or code}. Grant the action, or use other credentials"
    if code in _BAD_KEYS:
        return f"AWS does not take these credentials ({code}): renew them, or check AWS_PROFILE"
    hint = _HINTS.get(code, "").format(region=region or "this region")
    return f"{error.operation_name} failed: {code}: {message}{f' ({hint})' if hint else ''}"


def region_of(client: Any) -> str | None:
    """The region that a client asks."""
    return str(client.meta.region_name) if hasattr(client, "meta") else None
