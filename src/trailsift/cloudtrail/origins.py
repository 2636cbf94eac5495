"""The origin of a call in few distinct values: the network of an address, the family of a user agent."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from trailsift.cloudtrail.key_patterns import key_pattern

#: Longest value returned, in characters.
LIMIT = 64


_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"({_OCTET}\.{_OCTET}\.{_OCTET}\.){_OCTET}")


@lru_cache(maxsize=16384)
def source_network(source_ip: str | None) -> str | None:
    """Return the network of ``sourceIPAddress``: /24 for IPv4, /48 for IPv6; any other text, such as a service, as is.

    In a list (``"a, b"``, written behind proxies) the first entry counts: the client. None for null and blank.
    """
    if source_ip is None:
        return None
    first = source_ip.partition(",")[0].strip()
    match = _IPV4.fullmatch(first)
    if match:
        return match[1] + "0/24"
    if ":" in first:
        return _network6(first)
    return (first or source_ip.strip(" ,"))[:LIMIT] or None


def _network6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text.partition("%")[0])
    except ValueError:
        return text[:LIMIT]
    # ::ffff:203.0.113.9 is an IPv4 client of a dual-stack endpoint.
    if address.ipv4_mapped is not None:
        return source_network(str(address.ipv4_mapped)) or text[:LIMIT]
    return str(ipaddress.IPv6Network((int(address) >> 80 << 80, 48)))


# (text that must be in the agent, in lower case; pattern, or "" if the text is enough; family). The first row that
# matches wins. Order: products come before the libraries they are built on, because every AWS SDK names itself in the
# agent of each program that uses it. {0} and {1} are the pattern's groups.
_FAMILIES: tuple[tuple[str, str, str], ...] = (
    ("s3console/", "", "S3Console"),
    ("awscloudtrail", r"^AWSCloudTrail\b", "AWSCloudTrail"),
    (" console", r"^((?:AWS )?[A-Z][A-Za-z0-9]+ Console)\b", "{0}"),
    ("terraform", r"(?i)\bterraform(?:/|-provider)", "terraform"),
    ("opentofu/", "", "opentofu"),
    ("pulumi", "", "pulumi"),
    ("ansible", r"(?i)\bansible", "ansible"),
    ("cdk", r"(?i)\b(?:aws-)?cdk\b", "aws-cdk"),
    ("snowflake", "", "snowflake"),
    ("databricks", "", "databricks"),
    ("trino", r"(?i)\btrino", "trino"),
    ("presto", r"(?i)\bpresto", "presto"),
    ("emrfs", "", "emrfs"),
    ("elasticmapreduce/", "", "emrfs"),
    ("athena", r"(?i)\b(?:aws|amazon)?athena", "athena"),
    ("glue", r"(?i)\b(?:aws-?|amazon-?)?glue(?:etl|spark)?\b", "glue"),
    ("redshift", r"(?i)\b(?:amazon)?redshift", "redshift"),
    ("hadoop", r"(?i)\bhadoop", "hadoop s3a"),
    ("s3a", r"\b[Ss]3[Aa]\b", "hadoop s3a"),
    ("spark", r"(?i)\b(?:apache)?spark\b", "spark"),
    ("flink", r"(?i)\bflink\b", "flink"),
    ("iceberg", r"(?i)\b(?:py)?iceberg\b", "iceberg"),
    ("duckdb", "", "duckdb"),
    ("clickhouse", "", "clickhouse"),
    ("mountpoint-s3", "", "mountpoint-s3"),
    ("s3fs", r"(?i)\bs3fs", "s3fs"),
    ("goofys", "", "goofys"),
    ("rclone", r"(?i)\brclone\b", "rclone"),
    ("s5cmd", "", "s5cmd"),
    ("s3cmd", "", "s3cmd"),
    ("cyberduck", "", "cyberduck"),
    ("minio", r"(?i)\bminio\b", "minio"),
    ("pacu", r"(?i)\bpacu\b", "pacu"),
    ("scout", r"(?i)\bscout ?suite\b", "scoutsuite"),
    ("prowler", r"(?i)\bprowler\b", "prowler"),
    ("steampipe", "", "steampipe"),
    ("custodian", r"(?i)cloud-?custodian", "cloud-custodian"),
    ("velero", r"(?i)\bvelero\b", "velero"),
    ("karpenter", "", "karpenter"),
    ("fluent", r"(?i)\bfluent-?bit", "fluent-bit"),
    ("logstash", "", "logstash"),
    ("amazon-ssm-agent", "", "amazon-ssm-agent"),
    ("ecs", r"(?i)\bamazon[- ]ecs[- ]agent", "amazon-ecs-agent"),
    ("cwagent", r"(?i)\bcwagent\b", "amazon-cloudwatch-agent"),
    ("amazon-cloudwatch-agent", "", "amazon-cloudwatch-agent"),
    ("awspowershell", r"(?i)\bAWSPowerShell(?:\.\w+)?/(\d+)", "AWSPowerShell/{0}"),
    ("aws-cli/", r"(?i)\baws-cli/(\d+)", "aws-cli/{0}"),
    ("aws-internal/", r"\baws-internal/(\d+)", "aws-internal/{0}"),
    ("boto3/", "", "boto3"),
    ("aiobotocore/", "", "aiobotocore"),
    ("botocore/", "", "botocore"),
    ("boto/", r"(?i)^boto/", "boto"),
    ("aws-sdk-go-v2/", "", "aws-sdk-go/2"),
    ("aws-sdk-", r"\baws-sdk-(?:nodejs|js|react-native)/v?(\d+)", "aws-sdk-js/{0}"),
    ("aws-sdk-rust/", "", "aws-sdk-rust"),
    ("aws-sdk-", r"\baws-sdk-(?:dotnet|net|unity)[\w-]*/(\d+)", "aws-sdk-dotnet/{0}"),
    ("aws-sdk-", r"\baws-sdk-([A-Za-z+]+)\d?/v?(\d+)", "aws-sdk-{0}/{1}"),
    ("python-requests/", "", "python-requests"),
    ("python-urllib", "", "python-urllib"),
    ("curl/", r"(?i)^curl/", "curl"),
    ("wget/", r"(?i)^wget/", "wget"),
    ("mozilla/", "", "Mozilla (browser)"),
)

_COMPILED = tuple(
    (needle, re.compile(pattern or re.escape(needle), re.I if not pattern else 0), family)
    for needle, pattern, family in _FAMILIES
)
_SERVICE = re.compile(r"[a-z0-9.-]+\.amazon(?:aws)?\.com(?:\.cn)?|AWS Internal")
# Partner tags (APN/1.0 Name/1.0) name the vendor of the program, not the program; skipped if a product follows.
_PARTNER = re.compile(r"(?:APN/[0-9.]+ +[^ /]+/[0-9.]+,? +)(?=\S)")
_PRODUCT = re.compile(r"([^\s/;,()\[\]]+)(?:/[vV]?([0-9]+)(?![0-9A-Za-z]))?")


@lru_cache(maxsize=4096)
def agent_family(user_agent: str | None) -> str | None:
    """Return the program behind a user agent, at most with its major version; None for null and blank.

    For an agent that is not in the list above this is its first product and major version; variable parts of that (a
    build's hash, a test run's UUID) become placeholders as in key patterns, so the number of families stays small.
    """
    if user_agent is None:
        return None
    # S3 writes the agent in brackets; CloudTrail cuts it at 1 KB, so the closing one may be missing.
    agent = user_agent.strip().removeprefix("[").removesuffix("]").strip()
    if not agent:
        return None
    if _SERVICE.fullmatch(agent):
        return agent[:LIMIT]
    lower = agent.lower()
    for needle, pattern, family in _COMPILED:
        match = pattern.search(agent) if needle in lower else None
        if match:
            return family.format(*match.groups())[:LIMIT]
    match = _PRODUCT.match(_PARTNER.sub("", agent, count=1).lstrip("([;,/ "))
    if not match:
        return agent[:LIMIT]
    name = key_pattern(match[1])
    return f"{name}/{match[2]}"[:LIMIT] if match[2] else name[:LIMIT]
