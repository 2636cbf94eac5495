"""The place of Steampipe and Powerpipe: settings that their plugins read, and the query that works there.

Steampipe asks AWS at the time of the question. There, only CloudWatch Logs has data events, for as long as the trail's
log group keeps them; LookupEvents has none. https://hub.steampipe.io/plugins/turbot/aws
"""

from __future__ import annotations

from trailsift.deploy.tables import StackConfig

QUERY = """\
-- Data events of S3 of the last day, from the log group of the trail. A condition on log_group_name is a must; those on
-- timestamp, event_category, event_source and event_name are answered by CloudWatch Logs, the others by Steampipe.
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
# ~/.powerpipe/config/trailsift.ppc: the database that `trailsift connect --output my.lake.duckdb` makes.
connection "duckdb" "trailsift" {
  file_name = "/path/to/my.lake.duckdb"
}
"""


def _connection(place: StackConfig) -> str:
    regions = ", ".join(f'"{region}"' for region in place.regions)
    return f"""\
# ~/.steampipe/config/aws.spc
connection "aws" {{
  plugin  = "aws"
  regions = [{regions}]

  # Attempts with the first call among them; the delay is in milliseconds and grows with each attempt.
  max_error_retry_attempts = 9
  min_error_retry_delay    = 25
}}
"""


def files(place: StackConfig) -> dict[str, str]:
    """Path -> text."""
    return {
        "steampipe/aws.spc": _connection(place),
        "steampipe/default.spc": _CACHE,
        "steampipe/data_events.sql": QUERY,
        "powerpipe/trailsift.ppc": _POWERPIPE,
    }
