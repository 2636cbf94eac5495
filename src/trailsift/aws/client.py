"""boto3 clients, and explanations of their errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trailsift.errors import TrailsiftError, UsageError
from trailsift.schema import DENIED_CODES

_NO_BOTO3 = "access to AWS needs boto3: install trailsift with the extra `aws`"
#: Error code -> what the user can do about it; {region} is the region of the request.
_HINTS = {
    "TrailNotFoundException": "no such trail is in {region}: a trail's ARN names its region, AWS_REGION sets another",
    "EntityNotFoundException": "none in {region}: `trailsift aws sql` makes the tables, AWS_REGION sets another region",
    "NoSuchBucket": "check the name of the bucket",
    "PermanentRedirect": "the bucket is in another region than {region}: set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region than {region}: set AWS_REGION",
    "ThrottlingException": "AWS limits the rate of requests: try again in a minute",
}
_BAD_KEYS = ("UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken")


def create_client(service: str, region: str | None = None) -> Any:
    """Return a boto3 client with the settings of the environment (AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL ...)."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise UsageError(_NO_BOTO3) from None
    config = Config(retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=10)
    # Other SDKs and AWS's own machines set AWS_REGION; boto3 only reads AWS_DEFAULT_REGION.
    region = region or os.environ.get("AWS_REGION") or None
    with aws_errors(f"creating a client for {service}"):
        # A new session: the default one keeps the settings of the first call.
        return boto3.Session().client(service, region_name=region, config=config)


@contextmanager
def aws_errors(action: str, region: str | None = None) -> Iterator[None]:
    """Turn boto3 errors into a TrailsiftError that names the action and how to fix the problem.

    ``region``: the region of the requests inside.
    """
    try:
        from botocore import exceptions
    except ImportError:
        raise UsageError(_NO_BOTO3) from None
    try:
        yield
    except exceptions.ClientError as error:
        raise TrailsiftError(f"{action}: {_explain(error, region)}") from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError):
        raise TrailsiftError(
            f"{action}: there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    except exceptions.ProfileNotFound as error:
        raise TrailsiftError(f"{action}: {error}: see `aws configure list-profiles`") from error
    except exceptions.NoRegionError:
        raise TrailsiftError(f"{action}: no region is set: set AWS_REGION, or a region in the profile") from None
    except exceptions.EndpointConnectionError as error:
        raise TrailsiftError(f"{action}: {error} Check the region and the network") from error
    except exceptions.BotoCoreError as error:
        raise TrailsiftError(f"{action}: {error}") from error


def _explain(error: Any, region: str | None) -> str:
    details = error.response.get("Error", {})
    code, message = str(details.get("Code", "")), str(details.get("Message", "")).strip()
    if code in DENIED_CODES:
        return f"{error.operation_name} is not allowed: {message or code}. Grant the action, or use other credentials"
    if code in _BAD_KEYS:
        return f"AWS does not accept these credentials ({code}): renew them, or check AWS_PROFILE"
    hint = _HINTS.get(code, "").format(region=region or "this region")
    return f"{error.operation_name} failed: {code}: {message}{f' ({hint})' if hint else ''}"


def region_of(client: Any) -> str | None:
    """Return the region of a client's requests."""
    return str(client.meta.region_name) if hasattr(client, "meta") else None
