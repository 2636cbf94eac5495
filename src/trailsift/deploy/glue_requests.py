"""Requests to Glue for those who want registered partitions or a crawler; projection (``tables``) needs neither.

Both are the JSON that the AWS command line takes: ``aws glue batch-create-partition --cli-input-json file://...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from trailsift import schema
from trailsift.deploy.tables import DDL_TYPES, LANDING_PARTITIONS, StackConfig
from trailsift.errors import UsageError

#: BatchCreatePartition takes at most so many. https://docs.aws.amazon.com/glue/latest/webapi/API_BatchCreatePartition.html
BATCH = 100

_FOLDER = re.compile("".join(rf"{name}=(?P<{name}>[^/=]+)/" for name in LANDING_PARTITIONS))


def storage(location: str) -> dict[str, Any]:
    """The storage of a landing partition or table."""
    return {
        "Columns": [
            {"Name": column.name, "Type": DDL_TYPES[column.type], "Comment": column.meaning}
            for column in schema.EVENTS.columns
            if column.name not in LANDING_PARTITIONS
        ],
        "Location": location,
        "InputFormat": "org.apache.hadoop.mapred.TextInputFormat",
        "OutputFormat": "org.apache.hadoop.hive.ql.io.IgnoreKeyTextOutputFormat",
        "SerdeInfo": {"SerializationLibrary": "org.openx.data.jsonserde.JsonSerDe"},
    }


def partitions(place: StackConfig, keys: Iterable[str]) -> Iterator[dict[str, Any]]:
    """BatchCreatePartition requests for the partitions that landing objects are in. Dropped lines get none.

    ``keys`` are keys or URLs of objects. UsageError where one is in no landing partition.
    """
    found: dict[tuple[str, ...], str] = {}
    for key in keys:
        match = _FOLDER.search(key)
        if match is None:
            raise UsageError(f"{key!r} is in no folder year=/month=/day=/hour=/service=/")
        values = match.groups()
        if not values[-1].startswith("_"):
            found[values] = place.folder("landing") + match[0]
    ordered = sorted(found)
    for start in range(0, len(ordered), BATCH):
        yield {
            "DatabaseName": place.database,
            "TableName": "landing",
            "PartitionInputList": [
                {"Values": list(values), "StorageDescriptor": storage(found[values])}
                for values in ordered[start : start + BATCH]
            ],
        }


def crawler(place: StackConfig, role: str) -> dict[str, Any]:
    """A CreateCrawler request: over what we land, never over CloudTrail's folders, which mix digests and log files.

    It looks at new folders only, and leaves the table's columns as they are.
    """
    return {
        "Name": f"{place.database}-landing",
        "Role": role,
        "DatabaseName": place.database,
        "Targets": {"S3Targets": [{"Path": place.folder("landing"), "Exclusions": ["**/service=_dropped/**"]}]},
        "Schedule": "cron(15 * * * ? *)",
        "RecrawlPolicy": {"RecrawlBehavior": "CRAWL_NEW_FOLDERS_ONLY"},
        # New folders only goes with no other behaviour than these.
        "SchemaChangePolicy": {"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"},
        "Configuration": (
            '{"Version":1.0,"CrawlerOutput":{"Partitions":{"AddOrUpdateBehavior":"InheritFromTable"}},'
            '"Grouping":{"TableGroupingPolicy":"CombineCompatibleSchemas"}}'
        ),
    }
