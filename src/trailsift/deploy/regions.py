"""AWS's regions: an Athena table over log files must list those whose folders it reads."""

from __future__ import annotations

from collections.abc import Iterable

from trailsift.cloudtrail.resources import PARTITIONS

#: The regions of the partition ``aws`` (2026-11).
#: https://docs.aws.amazon.com/global-infrastructure/latest/regions/aws-regions.html
REGIONS = (
    *("us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "ca-west-1", "mx-central-1", "sa-east-1"),
    *("eu-central-1", "eu-central-2", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3"),
    *("ap-east-1", "ap-east-2", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-south-2"),
    *("ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6"),
    *("ap-southeast-7", "af-south-1", "il-central-1", "me-central-1", "me-south-1"),
)
#: Those of the other partitions.
_OTHERS = {
    "aws-cn": ("cn-north-1", "cn-northwest-1"),
    "aws-us-gov": ("us-gov-east-1", "us-gov-west-1"),
    "aws-eusc": ("eusc-de-east-1",),
}


def partition_of_region(region: str) -> str:
    """Return the AWS partition of a region."""
    return next((partition for prefix, partition in PARTITIONS if region.startswith(prefix)), "aws")


def regions_of(named: Iterable[str]) -> tuple[str, ...]:
    """Return the named regions, then all others of their partition: a trail may begin to log any of them."""
    first = tuple(named)
    partitions = dict.fromkeys(partition_of_region(region) for region in first)
    others = (region for name in partitions for region in (REGIONS if name == "aws" else _OTHERS.get(name, ())))
    return tuple(dict.fromkeys((*first, *others)))
