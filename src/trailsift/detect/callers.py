"""Callers in findings: who has habits, what reports of earlier versions called them, and how SQL asks for them."""

from __future__ import annotations

from collections.abc import Iterable

from trailsift.analysis.caller_names import has_no_arn
from trailsift.cloudtrail.callers import ANONYMOUS, NONE, is_arn
from trailsift.query.relations import text

#: Beginning of an anonymous caller that is told apart by its network, as findings name it; tables have ANONYMOUS.
_ANONYMOUS_OF = f"{ANONYMOUS}@"


def anonymous_of(network: str) -> str:
    """Return the caller that is everybody without credentials from one network."""
    return _ANONYMOUS_OF + network


def network_of(caller: str | None) -> str | None:
    """Return the network of an anonymous caller that is told apart by it; None for all others."""
    if caller is None or not caller.startswith(_ANONYMOUS_OF):
        return None
    return caller.removeprefix(_ANONYMOUS_OF)


def is_nobody(caller: str | None) -> bool:
    """Return whether a caller is all whom the records do not name: many, with no common habits.

    In lakes of format version 1, None is all callers without an ARN.
    """
    return caller is None or caller == NONE


def is_one(caller: str | None) -> bool:
    """Return whether a caller is one person or program, as far as anyone knows: neither nobody nor the public."""
    return not is_nobody(caller) and caller != ANONYMOUS


def role_of(caller: str | None) -> str | None:
    """Return what earlier versions called a caller: the ARN, the name of a service, or None."""
    if caller is None or is_arn(caller):
        return caller
    if network_of(caller) is not None:
        return None
    if caller.startswith("service:"):
        return caller.removeprefix("service:")
    return None if has_no_arn(caller) else caller


def condition_of(callers: Iterable[str | None], *, addresses: bool = False) -> str:
    """Return the SQL condition for some callers. ``addresses``: the table has ``source_ip``, and networks count.

    In lakes of format version 1, and in what users' own detections return as ``role_arn``, there are names and nulls
    that are no callers: in these, ``role_arn`` is compared, which is the same there.
    """
    own: dict[str, list[str]] = {"caller": [], "role_arn": []}
    nulls = False
    networks: list[str] = []
    for caller in callers:
        network = network_of(caller)
        if caller is None:
            nulls = True
        elif network is not None and addresses:
            networks.append(f"caller = {text(ANONYMOUS)} AND {_in_network(network)}")
        elif network is not None:
            own["caller"].append(text(ANONYMOUS))
        else:
            own["caller" if is_arn(caller) or has_no_arn(caller) else "role_arn"].append(text(caller))
    distinct = {column: list(dict.fromkeys(names)) for column, names in own.items()}
    parts = [
        f"{column} = {names[0]}" if len(names) == 1 else f"{column} IN ({', '.join(names)})"
        for column, names in distinct.items()
        if names
    ]
    parts += [f"({condition})" for condition in networks] if len(parts) + len(networks) + nulls > 1 else networks
    if nulls:
        parts.append("role_arn IS NULL")
    return parts[0] if len(parts) == 1 else f"({' OR '.join(parts)})"


def _in_network(network: str) -> str:
    """Return the SQL condition for the addresses of a network, as ``source_network`` names it."""
    address, _, length = network.partition("/")
    begin = {"24": address.removesuffix("0"), "48": address.removesuffix(":")}.get(length)
    return f"source_ip = {text(network)}" if begin is None else f"starts_with(source_ip, {text(begin)})"
