"""The columns of ``events`` as SQL over CloudTrail's log files, for Athena.

What ``decode.record`` derives from a record, Trino derives here by the same rules, in layers: texts of the record
(``_TEXTS``), values made of them that several columns need (``_STEPS``), columns (``FROM_RAW``). These rules cannot be
had, because Athena's reader of the log files gives every member that is not an object as a text:

- a member of another type than CloudTrail's (an account that is a number) counts as its text, not as absent;
- half a surrogate pair, which no text of ours may have, is not noticed;
- of a percent-encoded source of a copy with a wrong escape, nothing is decoded, not only that escape.

``resource_type``, ``resource_arn``, ``resource_account`` and ``object_key`` follow S3's records: other services' forms
(function qualifiers, items of batches, statements) stay as ``resources`` has them.
"""

from __future__ import annotations

from collections.abc import Iterable

from trailsift.cloudtrail.callers import ANONYMOUS, ANONYMOUS_ACCOUNT, NONE
from trailsift.cloudtrail.categories import DATA_NAMES, MANAGEMENT_FLAG
from trailsift.cloudtrail.copies import COPIES


def _texts(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))


def _parameter(path: str) -> str:
    return f"nullif(json_extract_scalar(requestparameters, '{path}'), '')"


def _count(name: str) -> str:
    return f"CAST(CAST(json_extract_scalar(additionaleventdata, '$.{name}') AS double) AS bigint)"


_HEADER = _parameter('$["x-amz-copy-source"]')
#: Texts of a record under names of our own, NULL where there is none.
_TEXTS: dict[str, str] = {
    "log_path": '"$path"',
    "who_type": "nullif(useridentity.type, '')",
    "who_id": "nullif(useridentity.principalid, '')",
    "who_arn": "nullif(useridentity.arn, '')",
    "who_account": "nullif(useridentity.accountid, '')",
    "who_name": "nullif(useridentity.username, '')",
    "who_service": "nullif(useridentity.invokedby, '')",
    "who_access_key": "nullif(useridentity.accesskeyid, '')",
    "who_provider": "nullif(useridentity.identityprovider, '')",
    "who_person": "nullif(useridentity.onbehalfof.userid, '')",
    "who_store": "nullif(useridentity.onbehalfof.identitystorearn, '')",
    "who_issuer": "nullif(useridentity.sessioncontext.sessionissuer.arn, '')",
    "named_bucket": f"coalesce({_parameter('$.bucketName')}, {_parameter('$.bucket')})",
    "copy_text": f"if(eventname IN ({_texts(COPIES)}),\n    coalesce({_HEADER}, {_parameter('$.copySource')}))",
}

_SESSION_ARN = r"'\Aarn:([^:]*):sts::([^:]*):assumed-role/([^/]+)/[^/]+\z'"
_IS_BUCKET = "r.type LIKE '%Bucket'"
_COPY_PATH = r"regexp_replace(copy_text, '(?s)\A(.+)\?versionId=.*\z', '$1')"

#: Values that several columns need, as expressions over ``_TEXTS``.
_STEPS: dict[str, str] = {
    "who_role": (
        f"coalesce(who_issuer, if(regexp_like(who_arn, {_SESSION_ARN}),\n"
        f"    regexp_replace(who_arn, {_SESSION_ARN}, 'arn:$1:iam::$2:role/$3')),\n    who_arn, who_service)"
    ),
    "who_role_id": "if(who_id LIKE 'AROA%', split_part(who_id, ':', 1), who_id)",
    "who_provider_name": r"nullif(regexp_replace(who_provider, '\Aarn:.*?:(?:oidc|saml)-provider/'), '')",
    # An entry of `resources`: the bucket that the request names, else any; without one, the first entry.
    "main_resource": (
        f"coalesce(element_at(filter(resources, r -> {_IS_BUCKET} AND split_part(r.arn, ':::', 2) = named_bucket), 1)"
        f",\n    element_at(filter(resources, r -> {_IS_BUCKET}), 1), element_at(resources, 1))"
    ),
    # Without the version, decoded (a plus stays a plus there), without slashes in front.
    "copied": (
        f"regexp_replace(coalesce(try(url_decode(replace({_COPY_PATH}, '+', '%2B'))),\n"
        rf"    {_COPY_PATH}), '\A/+')"
    ),
}

#: ``cloudtrail.callers``, rule by rule in the same order.
_CALLER = rf"""CASE
    WHEN who_role LIKE 'arn:%' THEN who_role
    WHEN who_account = '{ANONYMOUS_ACCOUNT}' OR who_id = '{ANONYMOUS_ACCOUNT}' THEN '{ANONYMOUS}'
    WHEN who_person IS NOT NULL
      THEN 'identity-center:' || coalesce(regexp_extract(who_store, '[^/]*\z'), '') || '/' || who_person
    WHEN who_type = 'AWSService' AND coalesce(who_service, who_id) IS NOT NULL
      THEN 'service:' || coalesce(who_service, who_id)
    WHEN who_provider IS NOT NULL OR who_type IN ('SAMLUser', 'WebIdentityUser')
      THEN 'federated:' || coalesce(who_provider_name || '/', '') || coalesce(who_name, who_id, '')
    WHEN who_account IS NOT NULL
      THEN 'account:' || who_account || coalesce('/' || nullif(coalesce(who_role_id, who_name), who_account), '')
    WHEN who_name IS NOT NULL THEN 'user:' || who_name
    WHEN who_role_id IS NOT NULL THEN 'principal:' || who_role_id
    WHEN who_access_key IS NOT NULL THEN 'access-key:' || who_access_key
    WHEN who_service IS NOT NULL THEN 'service:' || who_service
    WHEN who_role IS NOT NULL THEN 'principal:' || coalesce(who_arn, who_role)
    ELSE '{NONE}' END"""


def _category() -> str:
    """Return ``cloudtrail.categories``, rule by rule in the same order."""
    flags = [f"WHEN managementevent = '{str(flag).lower()}' THEN '{name}'" for name, flag in MANAGEMENT_FLAG.items()]
    names = [
        f"WHEN eventsource = '{source}' AND eventname IN ({_texts(actions)}) THEN 'Data'"
        for source, actions in DATA_NAMES.items()
    ]
    rules = (
        "CASE",
        "WHEN eventcategory <> '' THEN eventcategory",
        "WHEN eventtype = 'AwsCloudTrailInsight' THEN 'Insight'",
        "WHEN eventtype = 'AwsVpceEvent' THEN 'NetworkActivity'",
        *flags,
        *names,
        "ELSE 'Management' END",
    )
    return "\n    ".join(rules)


_COPIED_KEY = (
    r"if(copied LIKE 'arn:%', regexp_extract(copied, '(?s)\A.*?/object/(.+)\z', 1),"
    r" regexp_extract(copied, '(?s)\A[^/]*/(.+)\z', 1))"
)
#: The bucket behind an access point, if the record lists the object that is copied.
_BEHIND = (
    "split_part(element_at(filter(resources, r -> r.arn LIKE 'arn:%:s3:::%'\n"
    "      AND split_part(r.arn, '/', 1) <> main_resource.arn\n"
    f"      AND r.arn = split_part(r.arn, '/', 1) || '/' || {_COPIED_KEY}), 1).arn, '/', 1)"
)
_PARTITION = "coalesce(split_part(main_resource.arn, ':', 2), 'aws')"
_COPIED_FROM = f"""CASE
    WHEN copied LIKE 'arn:%' THEN coalesce({_BEHIND},
      split_part(copied, '/object/', 1))
    WHEN split_part(copied, '/', 1) LIKE '%--x-s3'
      THEN 'arn:' || {_PARTITION} || ':s3express:' || awsregion || ':'
        || coalesce(recipientaccountid, '') || ':bucket/' || split_part(copied, '/', 1)
    WHEN split_part(copied, '/', 1) <> ''
      THEN 'arn:' || {_PARTITION} || ':s3:::' || split_part(copied, '/', 1) END"""

_TIME = "CAST(from_iso8601_timestamp(eventtime) AS timestamp)"
#: Columns of ``events``; those that are missing here stay in the log files.
FROM_RAW: dict[str, str] = {
    "event_time": _TIME,
    "event_id": "eventid",
    "event_name": "eventname",
    "event_source": "eventsource",
    "event_category": _category(),
    "event_type": "eventtype",
    "event_version": "eventversion",
    "aws_region": "awsregion",
    "account_id": f"coalesce(nullif(recipientaccountid, ''), nullif(who_account, '{ANONYMOUS_ACCOUNT}'))",
    "principal_type": "who_type",
    "principal_id": "who_id",
    "principal_arn": "who_arn",
    "principal_account": f"coalesce(who_account, CASE WHEN who_id = '{ANONYMOUS_ACCOUNT}' THEN who_id END)",
    "caller": _CALLER,
    "role_arn": "who_role",
    "session_name": (
        "CASE\n    WHEN regexp_like(who_arn, ':assumed-role/|:federated-user/')"
        r" THEN regexp_extract(who_arn, '[^/]*\z')"
        "\n    WHEN who_arn IS NULL AND who_id LIKE 'AROA%'"
        r" THEN regexp_extract(who_id, '(?s)\A[^:]*:(.+)\z', 1) END"
    ),
    "access_key_id": "who_access_key",
    "invoked_by": "who_service",
    "source_ip": "sourceipaddress",
    "user_agent": "useragent",
    "error_code": "errorcode",
    "error_message": "errormessage",
    "read_only": "CAST(readonly AS boolean)",
    "resource_type": "element_at(resources, 1).type",
    "resource_arn": "main_resource.arn",
    "resource_account": "main_resource.accountid",
    "object_key": (
        f"coalesce({_parameter('$.key')}, json_format(json_extract(requestparameters, '$.key')),"
        f" if(eventname LIKE 'List%', {_parameter('$.prefix')}))"
    ),
    "source_resource_arn": _COPIED_FROM,
    "source_object_key": _COPIED_KEY,
    "bytes_in": _count("bytesTransferredIn"),
    "bytes_out": _count("bytesTransferredOut"),
    "vpc_endpoint_id": "vpcendpointid",
    "request_id": "requestid",
    "shared_event_id": "sharedeventid",
    "request_parameters": "requestparameters",
    "response_elements": "responseelements",
    "additional_event_data": "additionaleventdata",
    "weight": "CAST(1 AS double)",
    "log_object": "log_path",
    "year": f"date_format({_TIME}, '%Y')",
    "month": f"date_format({_TIME}, '%m')",
    "day": f"date_format({_TIME}, '%d')",
    "service": "split_part(eventsource, '.', 1)",
}


def _select(columns: dict[str, str], source: str, *, add: bool = False) -> str:
    """Return the SELECT of columns; ``add``: beside all that the source has."""
    listed = ",\n".join(f"  {expression} AS {name}" for name, expression in columns.items())
    return f"SELECT{' *,' if add else ''}\n{listed}\nFROM {source}"


def events_select(source: str, where: str) -> str:
    """Return the SELECT of the columns in ``FROM_RAW`` from rows of the raw table."""
    texts = f"{_select(_TEXTS, source, add=True)}\nWHERE {where}"
    steps = _select(_STEPS, f"(\n{texts}\n) AS texts", add=True)
    return _select(FROM_RAW, f"(\n{steps}\n) AS steps")
