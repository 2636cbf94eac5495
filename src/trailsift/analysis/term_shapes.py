"""The shape of a search term: an address, an access key, an account, an ARN, an id, an object key, or a name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

from trailsift.errors import UsageError

#: Characters of the longest term: an object key of S3 has 1,024 bytes, an ARN 2,048.
LONGEST = 4096

_ACCESS_KEY = re.compile(r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}")
_PRINCIPAL = re.compile(r"(?:AIDA|AROA|AGPA|AIPA|ANPA|ANVA|APKA)[A-Z0-9]{12,}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_REQUEST = re.compile(r"[A-Z0-9]{16}|[A-Za-z0-9+/_=-]{40,}")
_ACCOUNT = re.compile(r"\d{12}")
_AGENT = re.compile(r"\[?[A-Za-z][\w.+-]*/\d")


@dataclass(frozen=True, slots=True)
class Shape:
    """A term, the names of its shapes, and the columns of events in which it can stand whole."""

    term: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    is_address: bool = False
    range: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    bucket_and_key: tuple[str, str] | None = None

    @property
    def is_range(self) -> bool:
        """True if the term is a range of addresses."""
        return self.range is not None


def shape_of(term: str) -> Shape:
    """Return the shape of a term. Raise UsageError if it is empty or too long for anything that a record names."""
    wanted = term.strip()
    if not wanted:
        raise UsageError(
            "an empty term is nowhere: search an address, access key, ARN, account, object key, id or a part of a name"
        )
    if len(wanted) > LONGEST:
        raise UsageError(f"a term of {len(wanted):,} characters is too long: {LONGEST:,} are the most")
    address = _address(wanted)
    if address is not None:
        return address
    found = list(_shapes(wanted))
    names = tuple(name for name, _ in found) or ("name",)
    columns = dict.fromkeys(column for _, listed in found for column in listed)
    # A name can be that of a session or an object as well, however it looks.
    columns |= dict.fromkeys(("object_key", "source_object_key", "session_name"))
    bucket, slash, key = wanted.removeprefix("s3://").removeprefix("arn:aws:s3:::").partition("/")
    whole = (bucket, key) if slash and bucket and key else None
    return Shape(wanted, names, tuple(columns), bucket_and_key=whole)


def _address(term: str) -> Shape | None:
    try:
        if "/" in term:
            network = ipaddress.ip_network(term, strict=False)
            if network.num_addresses == 1:
                return Shape(str(network[0]), ("address",), ("source_ip",), is_address=True)
            return Shape(str(network), ("range of addresses",), (), range=network)
        return Shape(str(ipaddress.ip_address(term)), ("address",), ("source_ip",), is_address=True)
    except ValueError:
        return None


def _shapes(term: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    if _ACCESS_KEY.fullmatch(term):
        yield "access key", ("access_key_id",)
    if _PRINCIPAL.fullmatch(term):
        yield "principal id", ("principal_id",)
    if _UUID.fullmatch(term):
        yield "event or request id", ("event_id", "request_id", "shared_event_id")
    elif _REQUEST.fullmatch(term):
        yield "request id", ("request_id",)
    if term.startswith("content-"):
        yield "event id", ("event_id",)
    if _ACCOUNT.fullmatch(term):
        yield "account", ("principal_account", "resource_account")
    if term.startswith("arn:"):
        yield "ARN", ("caller", "principal_arn", "resource_arn", "resource_arns")
    if term.endswith(".amazonaws.com"):
        yield "service", ("source_ip", "invoked_by", "event_source")
    if term.startswith("s3://") or ("/" in term and not term.startswith("arn:")):
        yield "object key", ()
    if _AGENT.match(term) or (" " in term and "/" in term):
        yield "user agent", ("user_agent",)
