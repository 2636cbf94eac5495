"""The columns of ``events`` as SQL over CloudTrail's log files, for Athena.

What ``decode.record`` derives from a record, Trino derives here by the same rules, in layers: texts of the record
(``_TEXTS``), values made of them that several columns need (``STEPS``), columns (``FROM_RAW``). These rules cannot be
had, because Athena's reader of the log files gives every member that is not an object as a text:

- a member of another type than CloudTrail's (an account that is a number) counts as its text, not as absent;
- half a surrogate pair, which no text of ours may have, is not noticed;
- of a percent-encoded source of a copy with a wrong escape, nothing is decoded, not only that escape;
- an event without an id, which only versions before 1.01 have, gets one of its own from fewer members.

``resource_type``, ``resource_arn``, ``resource_account`` and ``object_key`` are those of ``ingest`` for S3 (buckets,
directory buckets, access points), Lambda and DynamoDB; a table that only a statement or a batch names is not found. For
other services they are NULL. ``query.athena_tables.NOT_FILLED`` stay in the log files.
"""

from __future__ import annotations

from collections.abc import Iterable

from trailsift.cloudtrail.callers import ANONYMOUS, ANONYMOUS_ACCOUNT, NONE
from trailsift.cloudtrail.categories import DATA_NAMES, MANAGEMENT_FLAG
from trailsift.cloudtrail.copies import COPIES
from trailsift.cloudtrail.resources import PARTITIONS
from trailsift.cloudtrail.services import UNKNOWN


def _texts(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))


def _parameter(path: str) -> str:
    return f"nullif(json_extract_scalar(requestparameters, '{path}'), '')"


def _count(name: str) -> str:
    return f"CAST(try_cast(json_extract_scalar(additionaleventdata, '$.{name}') AS double) AS bigint)"


#: Parameters of DynamoDB's calls that name one table.
_TABLES = ("tableName", "TableName", "tableArn", "streamArn", "sourceTableName", "targetTableName", "globalTableName")
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
    "function_text": f"coalesce({_parameter('$.functionName')}, {_parameter('$.functionArn')})",
    "table_text": f"coalesce({', '.join(_parameter(f'$.{name}') for name in _TABLES)})",
    "copy_text": f"if(eventname IN ({_texts(COPIES)}),\n    coalesce({_HEADER}, {_parameter('$.copySource')}))",
}

_SESSION_ARN = r"'\Aarn:([^:]*):sts::([^:]*):assumed-role/([^/]+)/[^/]+\z'"
_COPY_PATH = r"regexp_replace(copy_text, '(?s)\A(.+)\?versionId=.*\z', '$1')"


def _container(arn: str) -> str:
    """Return the bucket or access point in an ARN of S3; NULL for other ARNs."""
    form = r"'\Aarn:[^:]*:(?:s3:::[^/]+|s3[a-z-]*:[^:]*:[^:]*:(?:accesspoint|bucket)/[^/]+)'"
    return f"regexp_extract({arn}, {form})"


def _is_point(arn: str) -> str:
    return f"{arn} LIKE '%:accesspoint/%'"


def _first(condition: str) -> str:
    """Return the first entry of ``resources`` of which a condition on ``r`` is true."""
    return f"element_at(filter(resources, r -> {condition}), 1)"


def _function(arn: str) -> str:
    """Return a function's ARN without its qualifier; any other whole ARN as it is."""
    return (
        rf"coalesce(regexp_extract({arn}, '\Aarn:[^:]*:lambda:[^:]*:[^:]*:function:[^:]+'),"
        f" if({arn} LIKE 'arn:%:%:%:%:%', {arn}))"
    )


_TABLE = r"'\Aarn:[\w-]+:dynamodb:[\w-]*:\w*:(?:table|global-table)/[^/:|\s]+'"
_OWNER = "coalesce(nullif(recipientaccountid, ''), who_account)"


def _main_arn() -> str:
    """Return the resource of an event, in the order of ``cloudtrail.resources``."""
    listed = _container("r.arn")
    named = _first(f"{listed} = named_arn")
    bucket = _first(f"{listed} <> coalesce(copied_bucket, '') AND NOT ({_is_point('r.arn')})")
    point = _first(f"{listed} IS NOT NULL AND {_is_point('r.arn')}")
    any_of_them = _first(f"{listed} IS NOT NULL")
    return f"""CASE
    WHEN service_name IN ('s3', 's3express') THEN coalesce(
      if(NOT ({_is_point("named_arn")}) AND {named} IS NOT NULL, named_arn),
      {_container(bucket + ".arn")},
      {_container(point + ".arn")},
      named_arn,
      {_container(any_of_them + ".arn")})
    WHEN service_name = 'lambda' THEN coalesce({_function("function_entry.arn")}, named_function)
    WHEN service_name IN ('dynamodb', 'streams') THEN coalesce(
      if(table_entry.type = 'AWS::DynamoDB::Stream', table_entry.arn),
      regexp_extract(table_entry.arn, {_TABLE}), named_table) END"""


#: Values that several columns need, as expressions over ``_TEXTS``: each may use those of the steps before its own.
STEPS: tuple[dict[str, str], ...] = (
    {
        "who_role": (
            f"coalesce(who_issuer, if(regexp_like(who_arn, {_SESSION_ARN}),\n"
            f"    regexp_replace(who_arn, {_SESSION_ARN}, 'arn:$1:iam::$2:role/$3')),\n    who_arn, who_service)"
        ),
        "who_role_id": "if(who_id LIKE 'AROA%', split_part(who_id, ':', 1), who_id)",
        "who_provider_name": r"nullif(regexp_replace(who_provider, '\Aarn:.*?:(?:oidc|saml)-provider/'), '')",
        # Without the version, decoded (a plus stays a plus there), without slashes in front.
        "copied": (
            f"regexp_replace(coalesce(try(url_decode(replace({_COPY_PATH}, '+', '%2B'))),\n"
            rf"    {_COPY_PATH}), '\A/+')"
        ),
        "service_name": (
            "coalesce(nullif(substr(regexp_replace(lower(split_part(eventsource, '.', 1)), '[^a-z0-9-]'), 1, 64), ''),"
            f" '{UNKNOWN}')"
        ),
        "at_partition": (
            "CASE "
            + " ".join(f"WHEN awsregion LIKE '{prefix}%' THEN '{partition}'" for prefix, partition in PARTITIONS)
            + " ELSE 'aws' END"
        ),
    },
    {
        # What the request names: a bucket, by its name or an ARN, a function in any of its forms, a table.
        "named_arn": (
            f"CASE WHEN named_bucket LIKE 'arn:%' THEN {_container('named_bucket')}\n"
            "    WHEN named_bucket LIKE '%--x-s3'"
            f" THEN 'arn:' || at_partition || ':s3express:' || awsregion || ':' || coalesce({_OWNER}, '')"
            " || ':bucket/' || named_bucket\n"
            "    ELSE 'arn:' || at_partition || ':s3:::' || named_bucket END"
        ),
        "named_function": (
            f"CASE WHEN function_text LIKE 'arn:%' THEN {_function('function_text')}\n"
            r"    WHEN regexp_like(function_text, '\A[^:]+:function:[^:]+') THEN 'arn:' || at_partition || ':lambda:'"
            r" || awsregion || ':' || regexp_extract(function_text, '\A[^:]+:function:[^:]+')"
            "\n    ELSE 'arn:' || at_partition || ':lambda:' || awsregion || ':' || "
            rf"{_OWNER} || ':function:' || regexp_extract(function_text, '\A(?:function:)?([^:]+)', 1) END"
        ),
        "named_table": (
            f"coalesce(regexp_extract(table_text, {_TABLE}), if(NOT regexp_like(table_text, '[/:]'),\n"
            f"    'arn:' || at_partition || ':dynamodb:' || awsregion || ':' || {_OWNER} || ':table/' || table_text))"
        ),
        "copied_bucket": (
            "CASE WHEN copied LIKE 'arn:%' THEN split_part(copied, '/object/', 1)\n"
            "    WHEN split_part(copied, '/', 1) LIKE '%--x-s3' THEN 'arn:' || at_partition || ':s3express:'"
            f" || awsregion || ':' || coalesce({_OWNER}, '') || ':bucket/' || split_part(copied, '/', 1)\n"
            "    WHEN split_part(copied, '/', 1) <> ''"
            " THEN 'arn:' || at_partition || ':s3:::' || split_part(copied, '/', 1) END"
        ),
        "function_entry": _first("r.arn LIKE 'arn:%:%:%:%:%'"),
        "table_entry": _first(f"regexp_like(r.arn, {_TABLE})"),
    },
    {"main_arn": _main_arn()},
)

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
    "      AND split_part(r.arn, '/', 1) <> main_arn\n"
    f"      AND r.arn = split_part(r.arn, '/', 1) || '/' || {_COPIED_KEY}), 1).arn, '/', 1)"
)
_COPIED_FROM = f"CASE WHEN copied LIKE 'arn:%' THEN coalesce({_BEHIND},\n      copied_bucket) ELSE copied_bucket END"
_IS_S3 = "main_arn IS NOT NULL AND service_name IN ('s3', 's3express')"
_IS_TABLE = "service_name IN ('dynamodb', 'streams')"
_IN_BUCKET = r"regexp_extract(r.arn, '(?s)\Aarn:[^:]*:(?:s3:::|s3[a-z-]*:[^:]*:[^:]*:bucket/)[^/]+/(.+)\z', 1)"
_KIND = f"""CASE
    WHEN {_IS_S3} THEN CASE WHEN {_is_point("main_arn")} THEN 'AWS::S3::AccessPoint'
      WHEN main_arn LIKE 'arn:%:s3express:%' THEN 'AWS::S3Express::Object' ELSE 'AWS::S3::Object' END
    WHEN service_name = 'lambda' AND main_arn IS NOT NULL
      THEN if(main_arn LIKE '%:function:%', 'AWS::Lambda::Function', function_entry.type)
    WHEN {_IS_TABLE} AND main_arn IS NOT NULL
      THEN if(table_entry.type = 'AWS::DynamoDB::Stream', table_entry.type, 'AWS::DynamoDB::Table') END"""
_RESOURCE_OWNER = f"""CASE
    WHEN {_IS_S3} THEN {_first(_container("r.arn") + " = main_arn AND r.accountid <> ''")}.accountid
    WHEN service_name = 'lambda' THEN nullif(function_entry.accountid, '')
    WHEN {_IS_TABLE} THEN nullif(table_entry.accountid, '') END"""
_KEY = f"""CASE
    WHEN {_IS_S3} THEN coalesce({_parameter("$.key")}, {_parameter("$.Key")},
      regexp_extract({_first(_container("r.arn") + f" = main_arn AND {_IN_BUCKET} IS NOT NULL")}.arn,
        '(?s)\\Aarn:[^:]*:(?:s3:::|s3[a-z-]*:[^:]*:[^:]*:bucket/)[^/]+/(.+)\\z', 1),
      if(eventname LIKE 'List%', {_parameter("$.prefix")}))
    WHEN {_IS_TABLE} AND main_arn IS NOT NULL
      THEN nullif(if(json_format(json_extract(requestparameters, '$.key')) LIKE '{{%',
        json_format(json_extract(requestparameters, '$.key'))), '{{}}') END"""

#: NULL if it is not a time: one record must not stop the statement for all others, and no condition on times takes it.
_TIME = "CAST(try(from_iso8601_timestamp(eventtime)) AS timestamp)"
#: Columns of ``events``; those that are missing here stay in the log files.
FROM_RAW: dict[str, str] = {
    "event_time": _TIME,
    # As `ingest` does, from what the reader of the log files gives.
    "event_id": (
        "coalesce(nullif(eventid, ''), 'content-' || lower(to_hex(md5(to_utf8(concat_ws('|', eventtime, eventsource,"
        " eventname, awsregion, who_arn, who_id, sourceipaddress, requestid, requestparameters, errorcode))))))"
    ),
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
    "read_only": "try_cast(readonly AS boolean)",
    "resource_type": _KIND,
    "resource_arn": "main_arn",
    "resource_account": _RESOURCE_OWNER,
    "object_key": _KEY,
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
    "service": "service_name",
}


def _select(columns: dict[str, str], source: str, *, add: bool = False) -> str:
    """Return the SELECT of columns; ``add``: beside all that the source has."""
    listed = ",\n".join(f"  {expression} AS {name}" for name, expression in columns.items())
    return f"SELECT{' *,' if add else ''}\n{listed}\nFROM {source}"


def events_select(source: str, where: str) -> str:
    """Return the SELECT of the columns in ``FROM_RAW`` from rows of the raw table."""
    texts = f"{_select(_TEXTS, source, add=True)}\nWHERE {where}"
    inner = texts
    for number, step in enumerate(STEPS):
        inner = _select(step, f"(\n{inner}\n) AS step_{number}", add=True)
    return _select(FROM_RAW, f"(\n{inner}\n) AS steps")
