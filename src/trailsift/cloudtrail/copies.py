"""What a copy reads: the source that ``x-amz-copy-source`` of CopyObject and UploadPartCopy names.

A copy needs ``s3:GetObject`` on its source, so whoever copied an object has read it. Source:
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote

#: The actions that copy.
COPIES = frozenset({"CopyObject", "UploadPartCopy"})


class CopySource(NamedTuple):
    """``bucket``: a name, or the ARN of an access point; ``key``: that of the object."""

    bucket: str
    key: str | None


def copy_source(request_parameters: object) -> CopySource | None:
    """Return the source that the parameters of a request name; None if there is none.

    It is written ``bucket/key``, ``/bucket/key`` or ``ACCESS-POINT-ARN/object/key``, percent-encoded, and may end in
    ``?versionId=...``.
    """
    if not isinstance(request_parameters, dict):
        return None
    text = _text(request_parameters.get("x-amz-copy-source")) or _text(request_parameters.get("copySource"))
    if text is None:
        return None
    source = unquote(text.rpartition("?versionId=")[0] or text).lstrip("/")
    if source.startswith("arn:"):
        point, _, key = source.partition("/object/")
        return CopySource(point, key or None)
    bucket, _, key = source.partition("/")
    return CopySource(bucket, key or None) if bucket else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
