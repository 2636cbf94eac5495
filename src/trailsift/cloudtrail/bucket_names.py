"""The names that S3 takes for general purpose buckets.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
"""

from __future__ import annotations

import re

_BEGINNINGS = ("xn--", "sthree-", "amzn-s3-demo-")
_ENDS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def name_problem(name: str) -> str | None:
    """Return why S3 refuses a name for a bucket; None if it takes it."""
    if not 3 <= len(name) <= 63:
        return f"it has {len(name)} characters, and a bucket's name has 3 to 63"
    if re.search(r"[^a-z0-9.-]", name):
        return "it may have small letters, digits, hyphens and dots only"
    if not re.fullmatch(r"[a-z0-9].*[a-z0-9]", name):
        return "it must begin and end with a letter or a digit"
    if ".." in name:
        return "it must not have two dots in a row"
    if re.fullmatch(r"\d+\.\d+\.\d+\.\d+", name):
        return "it must not look like an IP address"
    for word in _BEGINNINGS:
        if name.startswith(word):
            return f"S3 reserves names that begin with {word}"
    for word in _ENDS:
        if name.endswith(word):
            return f"S3 reserves names that end with {word}"
    return None
