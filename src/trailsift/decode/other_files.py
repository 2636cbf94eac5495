"""Other files that AWS writes into the buckets of logs: known by their names and first bytes, and left alone.

A bucket that holds CloudTrail's logs holds their digests too, and often flow logs, access logs of load balancers or
snapshots of Config. They are neither records nor damage. A name alone decides nothing, or a renamed log would be passed
over: the first bytes must be those of the kind, and nothing in it may look like a record.

Sources: the "log file examples" and "log record" pages of each service's user guide on docs.aws.amazon.com (2026-11).
"""

from __future__ import annotations

import re
from typing import NamedTuple


class _Kind(NamedTuple):
    """A kind of file: what it is called in counts, what stands in its path, and how its text begins.

    ``is_marked``: the beginning is found in no other file, so it is enough without the path.
    """

    title: str
    path: str
    begins: bytes
    is_marked: bool = False


_KINDS = (
    _Kind("CloudTrail digest", "CloudTrail-Digest", rb'\{\s*"awsAccountId"[^{}\[]*"digestStartTime"', True),
    _Kind(
        "Config snapshot", "/Config/|_Config_", rb'\{\s*"fileVersion"[^{}\[]*"config(?:SnapshotId|urationItems)"', True
    ),
    _Kind("WAF log", "WAFLogs|_waflogs_|aws-waf-logs-", rb'\{\s*"timestamp"[^{}\[]*"webaclId"', True),
    _Kind("GuardDuty finding", "GuardDuty", rb'[\[\s]*\{\s*"schemaVersion"[^{}\[]*"accountId"', True),
    _Kind("DNS query log", "vpcdnsquerylogs", rb'\{\s*"version"[^{}\[]*"(?:query_timestamp|vpc_id)"'),
    _Kind("network firewall log", "network-firewall", rb'\{\s*"firewall_name"'),
    # Fields are chosen by the user; the first line names them. Parquet is an option.
    _Kind("VPC flow log", "vpcflowlogs", rb"PAR1|[a-z][a-z0-9-]*(?: [a-z][a-z0-9-]*)*\r?\n"),
    # Application, network and classic load balancers, and logs of connections: a protocol or none, a version, a time.
    _Kind(
        "load balancer log",
        "elasticloadbalancing",
        rb"(?:(?:https?|h2|grpcs?|wss?|tls) )?(?:[0-9.]+ )?[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}",
    ),
    # What a service writes to see whether it may.
    _Kind("test file", r"/(?:aws-test\.txt|ConfigWritabilityCheckFile|ELBAccessLogTestFile)\Z", rb"[^{\[]*\Z"),
)
#: Looked for in every name.
_ANY_PATH = re.compile("|".join(kind.path for kind in _KINDS))
#: Bytes in which a kind is recognized.
_HEAD = 4096
#: A member of every CloudTrail record.
_RECORD = b'"eventVersion"'


def may_be_other(name: str) -> bool:
    """Return whether the name of a file is one that other files of a bucket have."""
    return _ANY_PATH.search(name) is not None


def holds_records(data: bytes | bytearray) -> bool:
    """Return whether something in the text looks like a CloudTrail record."""
    return _RECORD in data


def other_file(name: str, data: bytes | bytearray) -> str | None:
    """Return what kind of other file this is, by its name and its unpacked text; None if it is none."""
    if holds_records(data):
        return None
    head = bytes(data[:_HEAD]).lstrip()
    for kind in _KINDS:
        if (kind.is_marked or re.search(kind.path, name)) and re.match(kind.begins, head):
            return kind.title
    return None
