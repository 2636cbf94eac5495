"""Requests to Glue for registered partitions or a crawler; the projected tables of ``tables`` need neither.

Both are the JSON that the AWS command line accepts: ``aws glue batch-create-partition --cli-input-json file://...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from trailsift import schema
from trailsift.deploy.tables import DDL_TYPES, LANDING_PARTITIONS, StackConfig
from trailsift.errors import UsageError

#: BatchCreatePartition takes at most this many. https://docs.aws.amazon.com/glue/latest/webapi/API_BatchCreatePartition.html
BATCH = 100

_FOLDER = re.compile("".join(rf"{name}=(?P<{name}>[^/=]+)/" for name in LANDING_PARTITIONS))


def storage(location: str) -> dict[str, Any]:
    """Return the storage descriptor of a landing partition or table."""
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


def partitions(config: StackConfig, keys: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield BatchCreatePartition requests for the partitions of landing objects. Dropped lines get none.

    ``keys`` are keys or URLs of objects. Raise UsageError if one is not in a landing partition.
    """
    locations: dict[tuple[str, ...], str] = {}
    for key in keys:
        match = _FOLDER.search(key)
        if match is None:
            raise UsageError(f"{key!r} is not in a folder year=/month=/day=/hour=/service=/")
        values = match.groups()
        if not values[-1].startswith("_"):
            locations[values] = config.folder("landing") + match[0]
    ordered = sorted(locations)
    for start in range(0, len(ordered), BATCH):
        yield {
            "DatabaseName": config.database,
            "TableName": "landing",
            "PartitionInputList": [
                {"Values": list(values), "StorageDescriptor": storage(locations[values])}
                for values in ordered[start : start + BATCH]
            ],
        }


def crawler(config: StackConfig, role: str) -> dict[str, Any]:
    """Return a CreateCrawler request.

    It crawls the landing files, never CloudTrail's folders, which mix digests and log files. It looks at new folders
    only, and leaves the table's columns as they are.
    """
    return {
        "Name": f"{config.database}-landing",
        "Role": role,
        "DatabaseName": config.database,
        "Targets": {"S3Targets": [{"Path": config.folder("landing"), "Exclusions": ["**/service=_dropped/**"]}]},
        "Schedule": "cron(15 * * * ? *)",
        "RecrawlPolicy": {"RecrawlBehavior": "CRAWL_NEW_FOLDERS_ONLY"},
        # The only behaviours that AWS allows with CRAWL_NEW_FOLDERS_ONLY.
        "SchemaChangePolicy": {"UpdateBehavior": "LOG", "DeleteBehavior": "LOG"},
        "Configuration": (
            '{"Version":1.0,"CrawlerOutput":{"Partitions":{"AddOrUpdateBehavior":"InheritFromTable"}},'
            '"Grouping":{"TableGroupingPolicy":"CombineCompatibleSchemas"}}'
        ),
    }
