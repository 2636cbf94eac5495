"""Names of services: the column ``service``, which also names partitions and the folders of files.

So a name has one alphabet, whatever a log says: it is checked where rows enter and again where files are named.
"""

from __future__ import annotations

import re
from functools import lru_cache

#: The names that exist: AWS's own are up to 40 characters, such as ``servicecatalog-appregistry``.
ALPHABET = r"[a-z0-9-]{1,64}"
#: Services whose landing lines have folders of their own. All others share ``OTHER``: Athena projects the folders from
#: a list, which AWS wants short, and a service that is not on it must be found all the same.
#: https://docs.aws.amazon.com/athena/latest/ug/partition-projection-supported-types.html
FOLDERS = ("s3", "lambda", "dynamodb", "sns", "sqs", "kinesis", "bedrock", "s3express", "kms", "sts", "iam")
#: The folder of all other services.
OTHER = "other"
#: The service of events whose source is missing or has no usable character.
UNKNOWN = "unknown"

_SERVICE = re.compile(ALPHABET)
_FOREIGN = re.compile(r"[^a-z0-9-]")


def is_service(name: object) -> bool:
    """Return whether a value is the name of a service, safe as a folder's name."""
    return isinstance(name, str) and _SERVICE.fullmatch(name) is not None


def service_of(event_source: str | None) -> str:
    """Return the first label of an event source, safe as a folder's name; ``unknown`` if there is none."""
    label = _FOREIGN.sub("", (event_source or "").partition(".")[0].lower())[:64]
    return label or UNKNOWN


def folder_of(service: str) -> str:
    """Return the folder in which a service's landing lines are."""
    return service if service in FOLDERS else OTHER


@lru_cache(maxsize=1_000)
def known_service_of(event_source: str) -> str:
    """Return ``service_of``, remembered: few sources make most events."""
    return service_of(event_source)
