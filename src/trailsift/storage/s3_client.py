"""Connections to S3 by obstore, with the settings of AWS's standard environment, and explanations of their errors.

A connection is never pickled: ``Bucket`` holds what another process needs to open one of its own, and no secret. Keys
are taken from the environment, or from boto3's chain (profiles, assumed roles, SSO, web identity, containers,
instances), in each process by itself.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from trailsift.errors import ConflictError, S3Error, UsageError
from trailsift.safe_text import safe

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Store

SCHEME = "s3://"
_NO_EXTRA = "S3 needs obstore and boto3: install trailsift with the extra `aws` (pip install 'trailsift[aws]')"
#: Names as S3 has given them since its beginnings; the alias of an access point is one too.
_BUCKET = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_MAX_KEY = 1024
#: Attempts of a request; AWS_MAX_ATTEMPTS sets another number, as for AWS's own tools.
ATTEMPTS = 8
#: Seconds: pauses between attempts grow from the first to the longest, with jitter; after the limit none follows.
_FIRST_PAUSE, _LONGEST_PAUSE, _RETRY_LIMIT = 0.1, 10.0, 120.0
#: Seconds to connect, between two pieces of an answer, and for a whole one.
_CONNECT_TIMEOUT, _READ_TIMEOUT, _TIMEOUT = 10, 30, 900
#: boto3 may return keys that are valid for ten minutes only.
_KEYS_VALID = timedelta(minutes=5)
#: Longest part of a server's message that is shown.
_SHOWN = 400


class S3Url(NamedTuple):
    """A bucket and a key, a prefix or nothing in it."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"


def is_s3(text: str) -> bool:
    """Return whether a text names a place in S3."""
    return text[: len(SCHEME)].lower() == SCHEME


def parse_url(text: str) -> S3Url:
    """Return the bucket and the key of ``s3://bucket/key``; the key may be empty. Raise UsageError otherwise."""
    shown = safe(text[:_SHOWN])
    if not is_s3(text):
        raise UsageError(f"{shown} is not a place in S3: it must begin with {SCHEME}")
    bucket, _, key = text[len(SCHEME) :].partition("/")
    if bucket.startswith("arn:"):
        raise UsageError(f"{shown}: name the bucket, or the alias of the access point, instead of its ARN")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{shown}: {safe(bucket) or 'nothing'} is not the name of a bucket")
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{shown}: a key in S3 is UTF-8") from None
    if length > _MAX_KEY:
        raise UsageError(f"{shown}...: a key in S3 has at most {_MAX_KEY:,} bytes")
    if any(unicodedata.category(sign) == "Cc" for sign in key) or {".", ".."} & set(key.split("/")):
        raise UsageError(f"{shown}: a key may have neither control characters nor a part '.' or '..'")
    return S3Url(bucket, key)


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a process needs to open a bucket: no secret, no open connection. ``region`` overrides the environment's."""

    name: str
    requester_pays: bool = False
    region: str | None = None

    def connect(self, prefix: str | None = None) -> S3Store:
        """Return a connection. Raise S3Error without credentials, UsageError without the extra or for bad settings."""
        return connect(self.name, requester_pays=self.requester_pays, prefix=prefix, region=self.region)

    @property
    def connection(self) -> S3Store:
        """The connection of this process, opened at first use."""
        return _connection(self, process_key())

    @property
    def client(self) -> Any:
        """A boto3 client of this process, for the keys that obstore refuses: those with an empty part, or ``.``."""
        return _boto_client(self, process_key())

    def moved_to(self, region: str) -> Bucket:
        """Return this bucket with the region that it is really in."""
        return replace(self, region=region)


def process_key() -> tuple[int, int]:
    """Return what connections are kept by: a forked process has none, nor is one used with settings of before."""
    settings = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    return os.getpid(), hash(tuple(settings))


@lru_cache(maxsize=16)
def _connection(bucket: Bucket, process: tuple[int, int]) -> S3Store:
    return bucket.connect()


@lru_cache(maxsize=16)
def _boto_client(bucket: Bucket, process: tuple[int, int]) -> Any:
    import boto3
    from botocore.config import Config

    endpoint = endpoint_url()
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts()},
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        max_pool_connections=32,
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    region = bucket.region or os.environ.get("AWS_REGION") or None
    return boto3.Session().client("s3", region_name=region, endpoint_url=endpoint, config=config)


def connect(
    bucket: str, *, requester_pays: bool = False, prefix: str | None = None, region: str | None = None
) -> S3Store:
    """Return a connection to a bucket, or to what is under a prefix of it. Nothing is sent yet.

    Settings are those of AWS's standard environment: AWS_ACCESS_KEY_ID and so on if they are set and AWS_PROFILE is
    not, else boto3's chain; AWS_REGION, AWS_DEFAULT_REGION or the profile's region; AWS_ENDPOINT_URL_S3 or
    AWS_ENDPOINT_URL, in whose addresses the bucket is a part of the path; AWS_MAX_ATTEMPTS; AWS_CA_BUNDLE.
    Raise S3Error if there are no credentials, UsageError if obstore or boto3 is missing or a setting is wrong.
    """
    try:
        from obstore.store import S3Store
    except ImportError:
        raise UsageError(_NO_EXTRA) from None
    config: S3Config = {}
    provider, session = None, None
    if not _has_own_keys() and not _is_set("AWS_SKIP_SIGNATURE"):
        provider, session = _from_boto3(bucket)
    found = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _region_of(session)
    if found:
        config["region"] = found
    endpoint = endpoint_url(session)
    if endpoint is not None:
        # Overrides both variables, whatever obstore itself makes of them.
        config["endpoint"] = config["aws_endpoint_url_s3"] = endpoint
        config["virtual_hosted_style_request"] = False
    if requester_pays:
        config["request_payer"] = True
    options = _client_options(endpoint)
    try:
        return S3Store(
            bucket,
            prefix=prefix or None,
            config=config,
            client_options=options,
            retry_config=_retries(),
            credential_provider=provider,
        )
    except Exception as error:  # any: obstore's own, for a setting of the environment that it cannot use
        raise UsageError(f"cannot use S3 with the settings of the environment: {_first_line(error)}") from error


def endpoint_url(session: Any = None) -> str | None:
    """Return the address that the environment, or the profile of a boto3 session, sets for S3; None for AWS's own.

    Raise UsageError if it is not a URL.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint and session is not None:
        endpoint = session._session.get_scoped_config().get("endpoint_url")
    if not endpoint:
        return None
    if not re.match(r"https?://[^/\s]+", endpoint):
        raise UsageError(
            f"AWS_ENDPOINT_URL {safe(endpoint[:_SHOWN])!r} is not a URL: use a form such as http://host:8333"
        )
    return endpoint.rstrip("/")


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes", "on")


def _has_own_keys() -> bool:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return all(map(os.environ.get, names)) and not os.environ.get("AWS_PROFILE")


def _region_of(session: Any) -> str | None:
    return None if session is None else session.region_name


def _from_boto3(bucket: str) -> tuple[Any, Any]:
    """Return a provider of credentials for obstore, and the boto3 session behind it."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise UsageError(_NO_EXTRA) from None
    what = f"{SCHEME}{bucket}"
    try:
        session = boto3.Session()
        if session.get_credentials() is None:
            raise S3Error(_NO_CREDENTIALS.format(what=what))
        provider = Boto3CredentialProvider(session, ttl=_KEYS_VALID)
        # Once here, where its errors are still boto3's own.
        provider()
    except (BotoCoreError, ClientError) as error:
        raise S3Error(f"{what} cannot be opened: {_boto_problem(error)}") from error
    return provider, session


_NO_CREDENTIALS = (
    "{what} cannot be opened: there are no AWS credentials (none in the environment, no profile, no role of this "
    "machine): set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)


def _boto_problem(error: Exception) -> str:
    """Return what an error of boto3's chain of credentials says, and what to do about it."""
    text = safe(str(error))[:_SHOWN].rstrip(".")
    kind = type(error).__name__
    if kind == "ProfileNotFound":
        return f"{text}: see `aws configure list-profiles`, or set AWS_PROFILE"
    if "SSO" in kind or "Login" in kind:
        return f"{text}: run `aws sso login`"
    return f"no credentials could be had: {text}: check AWS_PROFILE and the role that it assumes"


def _client_options(endpoint: str | None) -> ClientConfig:
    options: ClientConfig = {
        "connect_timeout": f"{_CONNECT_TIMEOUT}s",
        "read_timeout": f"{_READ_TIMEOUT}s",
        "timeout": f"{_TIMEOUT}s",
        "user_agent": "trailsift",
    }
    if endpoint is not None and endpoint.startswith("http://"):
        options["allow_http"] = True
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle:
        try:
            options["root_certificate"] = Path(bundle).read_bytes()
        except OSError as error:
            raise UsageError(f"AWS_CA_BUNDLE {bundle} cannot be read: {error.strerror}") from error
    return options


def attempts() -> int:
    """Return how often a request is tried. Raise UsageError if AWS_MAX_ATTEMPTS is not a number from 1 on."""
    text = os.environ.get("AWS_MAX_ATTEMPTS") or str(ATTEMPTS)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 100:
        raise UsageError(f"AWS_MAX_ATTEMPTS {safe(text[:50])!r} is not a number of attempts: use 1 to 100")
    return int(text)


def _retries() -> RetryConfig:
    return {
        "max_retries": attempts() - 1,
        "retry_timeout": timedelta(seconds=_RETRY_LIMIT),
        "backoff": {
            "init_backoff": timedelta(seconds=_FIRST_PAUSE),
            "max_backoff": timedelta(seconds=_LONGEST_PAUSE),
            "base": 2,
        },
    }


# -- errors ------------------------------------------------------------------------------------------------------------

#: ``missing`` and ``changed`` are of one object; ``busy`` and ``network`` may pass; the others will not by themselves.
Kind = Literal[
    "missing",
    "changed",
    "unchanged",
    "archived",
    "denied",
    "credentials",
    "bucket",
    "region",
    "busy",
    "network",
    "other",
]
_BAD_KEYS = (
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"),
    *("RequestTimeTooSkewed", "InvalidClientTokenId", "NotSignedUp", "AccountProblem"),
)
_WRONG_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
_BUSY = ("SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "Throttling", "ThrottlingException", "InternalError")
#: Verb of a message for each action that a policy may allow.
_VERBS = {
    "s3:ListBucket": "listed",
    "s3:GetObject": "read",
    "s3:PutObject": "written",
    "s3:DeleteObject": "deleted",
    "s3:GetBucketLocation": "located",
}


class Failure(NamedTuple):
    """What an error of obstore means. ``text`` is one harmless line; ``region`` is the bucket's, if it is elsewhere."""

    kind: Kind
    text: str
    region: str | None = None


def is_client_error(error: BaseException) -> bool:
    """Return whether an exception is one of obstore's or botocore's, or Python's for what obstore did not find."""
    module = type(error).__module__.split(".")[0]
    return module in ("obstore", "botocore") or type(error) in (FileNotFoundError, ValueError)


def failure_of(error: BaseException) -> Failure:
    """Return what an exception of obstore or botocore means."""
    text = str(error)
    name = type(error).__name__
    status, code, message = _answer(error, text)
    said = _said(status, code, message)
    if code == "NoSuchBucket":
        return Failure("bucket", said)
    if isinstance(error, FileNotFoundError) or code == "NoSuchKey" or status == "404":
        return Failure("missing", said)
    if name in ("PreconditionError", "AlreadyExistsError") or code in ("PreconditionFailed", "412"):
        return Failure("changed", said)
    if name == "NotModifiedError":
        return Failure("unchanged", said)
    if code in _WRONG_REGION or status == "301" or "incorrectly configured region" in text:
        return Failure("region", said, _found(r"<Region>([a-z0-9-]{1,40})</Region>", text) or None)
    if code == "InvalidObjectState":
        return Failure("archived", f"it is archived and must be restored first ({said})")
    if code in _BAD_KEYS:
        return Failure("credentials", said)
    if status == "403" or name in ("PermissionDeniedError", "UnauthenticatedError"):
        return Failure("denied", said)
    if code in _BUSY or status in ("429", "500", "503"):
        return Failure("busy", said)
    cause = _network_problem(f"{name} {text}")
    if cause or "HTTP error" in text:
        return Failure("network", cause or _first_line(error))
    return Failure("other", said or _first_line(error))


def _answer(error: BaseException, text: str) -> tuple[str, str, str]:
    """Return the status, the code and the message of a server's answer, as far as there is one."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        details = response.get("Error", {})
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
        return str(status), str(details.get("Code", "")), str(details.get("Message", ""))
    return (
        _found(r"status code: (\d{3})", text),
        _found(r"<Code>([A-Za-z0-9.]{1,64})</Code>", text),
        _found(r"<Message>(.{0,2000}?)</Message>", text),
    )


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.DOTALL)
    return match[1] if match else ""


def _said(status: str, code: str, message: str) -> str:
    """Return a server's answer as one line."""
    import html

    words = safe(" ".join(html.unescape(message).split()))[:_SHOWN].rstrip(". ")
    head = code or (f"HTTP {status}" if status else "")
    return f"{head}: {words}" if head and words else head or words


#: What obstore's account of a failed connection has in it -> what happened.
_NETWORK = (
    ("dns error", "the name of the server is not known: check the region, AWS_ENDPOINT_URL and the network"),
    ("ConnectionRefused", "the server refuses the connection: check AWS_ENDPOINT_URL"),
    ("invalid peer certificate", "the server's certificate is not trusted: AWS_CA_BUNDLE names the one to trust"),
    ("TimedOut", "the server did not answer in time"),
    ("operation timed out", "the server did not answer in time"),
    ("ConnectionReset", "the connection broke off"),
    ("IncompleteMessage", "the connection broke off in the middle of an answer"),
    ("end of file before message length reached", "the connection broke off in the middle of an answer"),
    ("UnexpectedEof", "the connection broke off in the middle of an answer"),
    ("URL scheme is not allowed", "the address begins with http://, which is allowed in AWS_ENDPOINT_URL only"),
    ("EndpointConnectionError", "no connection to the server: check the region, AWS_ENDPOINT_URL and the network"),
    ("kind: Connect", "no connection to the server: check the region, AWS_ENDPOINT_URL and the network"),
)


def _network_problem(text: str) -> str:
    return next((meaning for sign, meaning in _NETWORK if sign in text), "")


def _first_line(error: BaseException) -> str:
    """Return the beginning of a message, without obstore's own account of its inside and without addresses' queries."""
    line = str(error).partition("\n\nDebug source")[0].partition("<?xml")[0]
    line = re.sub(r"\?\S*", "", " ".join(line.split()))
    return safe(line)[:_SHOWN].rstrip(": ") or type(error).__name__


@contextmanager
def s3_errors(what: str, action: str) -> Iterator[None]:
    """Turn exceptions of obstore and botocore into S3Error.

    ``what`` is the object or prefix as ``s3://bucket/key``, ``action`` the IAM action of the request, such as
    ``s3:ListBucket``. A missing object stays a FileNotFoundError, ``NotModifiedError`` of a conditional read stays as
    it is, and a failed condition becomes a ConflictError.
    """
    try:
        yield
    except Exception as error:
        if not is_client_error(error):
            raise
        failure = failure_of(error)
        if failure.kind in ("missing", "unchanged"):
            raise
        if failure.kind == "changed":
            raise ConflictError(f"another writer changed {safe(what)} first") from error
        explanation = explained(failure, what, action)
        explanation.is_final = failure.kind in _FINAL
        raise explanation from error


#: A request that fails like this has no effect.
_FINAL = ("archived", "denied", "credentials", "bucket", "region")


def explained(failure: Failure, what: str, action: str) -> S3Error:
    """Return the error that says what failed, on what, and what to do. ``what`` and ``action`` as for ``s3_errors``."""
    bucket = what.removeprefix(SCHEME).partition("/")[0]
    head = f"{safe(what)} cannot be {_VERBS.get(action, 'used')}"
    said = failure.text
    match failure.kind:
        case "denied":
            return S3Error(f"{head}: {_missing_permission(said, what, action)}")
        case "credentials":
            return S3Error(f"{head}: AWS does not accept these credentials ({said}): renew them, or check AWS_PROFILE")
        case "bucket":
            return S3Error(f"{head}: there is no bucket {safe(bucket)} ({said}): check its name and AWS_ENDPOINT_URL")
        case "region":
            region = failure.region or bucket_region(bucket)
            place = f"in {region}: set AWS_REGION={region}" if region else "in another region: set AWS_REGION"
            return S3Error(f"{head}: the bucket {safe(bucket)} is {place}")
        case "busy":
            return S3Error(
                f"{head}: the server was busy ({said}) in {attempts()} attempts: wait a minute and run it again "
                "(AWS_MAX_ATTEMPTS allows more)"
            )
        case "network":
            return S3Error(f"{head}: {said} ({attempts()} attempts)")
        case _:
            return S3Error(f"{head}: {said}")


def _missing_permission(said: str, what: str, action: str) -> str:
    """Return which action on which resource a policy must allow."""
    bucket, _, key = what.removeprefix(SCHEME).partition("/")
    if "kms:" in said:
        needed = _found(r"(kms:[A-Za-z]+)", said)
        resource = _found(r"(arn:[a-z-]+:kms:[\w:/.-]+)", said) or "the key that encrypts the objects"
        return f"the credentials lack {needed} on {resource} ({said})"
    resource = f"arn:aws:s3:::{bucket}" if action in _BUCKET_ACTIONS else f"arn:aws:s3:::{bucket}/{key}"
    return (
        f"the credentials lack {action} on {safe(resource)} ({said}). Allow it, or use others (AWS_PROFILE). Of a "
        "bucket whose requester pays, say so with --requester-pays"
        if "equester" in said or said == "HTTP 403"
        else f"the credentials lack {action} on {safe(resource)} ({said}): allow it, or use others (AWS_PROFILE)"
    )


_BUCKET_ACTIONS = ("s3:ListBucket", "s3:GetBucketLocation")


def bucket_region(bucket: str) -> str | None:
    """Return the region that a bucket is in, which S3 says to everybody in an answer's header; None if it does not.

    One unsigned HEAD request, 5 seconds at most.
    """
    import urllib.error
    import urllib.request

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    base = endpoint_url() or f"https://s3.{region}.{suffix}"
    request = urllib.request.Request(f"{base}/{bucket}", method="HEAD")  # noqa: S310 - https, or the user's endpoint

    class NoRedirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    try:
        with urllib.request.build_opener(NoRedirects).open(request, timeout=5) as answer:
            found = answer.headers.get("x-amz-bucket-region")
    except urllib.error.HTTPError as error:
        found = error.headers.get("x-amz-bucket-region")
    except OSError:
        return None
    return found if found and re.fullmatch(r"[a-z0-9-]{1,40}", found) else None
