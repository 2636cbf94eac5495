"""Settings for Steampipe and Powerpipe, and a query for data events that works in Steampipe.

Steampipe queries AWS live. The only source of data events there is CloudWatch Logs, for as long as the trail's log
group keeps them; LookupEvents has none. https://hub.steampipe.io/plugins/turbot/aws
"""

from __future__ import annotations

from trailsift.deploy.tables import StackConfig

QUERY = """\
-- S3 data events of the last day, from the trail's log group. The condition on log_group_name is required; those on
-- timestamp, event_category, event_source and event_name run in CloudWatch Logs, all others in Steampipe.
select event_time, event_name, user_type, user_identifier, source_ip_address,
       resources -> 0 ->> 'ARN' as primary_resource
from aws_cloudtrail_trail_event
where log_group_name = 'aws-cloudtrail-logs'
  and timestamp >= now() - interval '1 day'
  and event_category = 'Data'
  and event_source = 's3.amazonaws.com'
  and event_name in ('GetObject', 'PutObject')
order by event_time desc
limit 100;
"""

_CACHE = """\
# ~/.steampipe/config/default.spc: the cache is a setting of Steampipe, not of a connection.
options "database" {
  cache         = true
  cache_max_ttl = 300
}
"""

_POWERPIPE = """\
# ~/.powerpipe/config/trailsift.ppc: the database that `trailsift connect --output my.lake.duckdb` writes.
connection "duckdb" "trailsift" {
  file_name = "/path/to/my.lake.duckdb"
}
"""


def _connection(config: StackConfig) -> str:
    regions = ", ".join(f'"{region}"' for region in config.regions)
    return f"""\
# ~/.steampipe/config/aws.spc
connection "aws" {{
  plugin  = "aws"
  regions = [{regions}]

  # Attempts include the first call; the delay is in milliseconds and grows with each attempt.
  max_error_retry_attempts = 9
  min_error_retry_delay    = 25
}}
"""


def files(config: StackConfig) -> dict[str, str]:
    """Return the files as path -> text."""
    return {
        "steampipe/aws.spc": _connection(config),
        "steampipe/default.spc": _CACHE,
        "steampipe/data_events.sql": QUERY,
        "powerpipe/trailsift.ppc": _POWERPIPE,
    }
