"""What pages of the AWS console ask for and are denied: the noise of a person with few rights, not probing.

Opening one page makes dozens of reading calls in many services. A caller's hour is such noise if nearly all that was
denied to the caller on that day came from a browser or the console, and the denied calls of the hour have the shape of
pages: they only read, and no call is repeated for one resource after another. A tool that claims to be a browser and
walks through resources, tries to write, or asks for more kinds of things than pages do is not covered.
"""

from __future__ import annotations

from trailsift.query.relations import text

#: Families of clients that are the console or a browser (``cloudtrail.origins``).
_CLIENTS = (
    "(user_agent IN ('Mozilla (browser)', 'S3Console', 'console.amazonaws.com', 'signin.amazonaws.com',"
    " 'console.aws.amazon.com') OR user_agent LIKE '% Console')"
)
_SHARE = 0.9  # of the day's denied calls that came from such a client
_KINDS = 80  # kinds of denied calls in an hour; pages of a dozen services ask for fewer
_RESOURCES = 20  # distinct resources in the denied calls of an hour
_REPEATS = 20  # denied calls of one kind on one resource
_READS = "^(Get|List|Describe|Batch(Get|Describe)|Search|Lookup|Head|Query|View|Check|Is|Has|Select|Preview|Estimate)"

#: Name of the relation: account_id, caller, hour of each hour that is noise.
CONSOLE_NOISE = "console_noise"


def console_noise_relation(hourly: str = "hourly", sessions: str = "sessions") -> str:
    """Return the common table expression of the relation; ``hourly`` and ``sessions`` name what it reads."""
    return f"""{CONSOLE_NOISE} AS (
    SELECT asked.account_id, asked.caller, asked.hour FROM (
        SELECT account_id, caller, hour, count(DISTINCT (service, event_name)) AS kinds,
            count(DISTINCT resource_arn) AS resources,
            max(CASE WHEN resource_arn IS NOT NULL THEN events ELSE 0 END) AS repeats,
            bool_and(coalesce(read_only, false) OR regexp_matches(event_name, {text(_READS)})) AS reads
        FROM {hourly} WHERE is_denied(error_code) AND category <> 'NetworkActivity'
        GROUP BY account_id, caller, hour) asked
    JOIN (
        SELECT account_id, caller, day, sum(denied) AS denied, sum(denied) FILTER ({_CLIENTS}) AS in_console
        FROM {sessions} WHERE denied > 0 AND category <> 'NetworkActivity' GROUP BY account_id, caller, day) clients
        ON clients.account_id = asked.account_id AND clients.caller = asked.caller AND clients.day = asked.hour::DATE
    WHERE reads AND kinds <= {_KINDS} AND resources < {_RESOURCES} AND repeats < {_REPEATS}
        AND in_console >= {_SHARE} * denied)"""
