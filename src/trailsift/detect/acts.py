"""The relation `acts` of detections: the few calls that change, open or take something, with what they mean.

A detection that declares `calls` reads `acts` instead of `events`: one scan serves all of them, and each sees its own
calls only. What a request gives away is worked out once, for every form that AWS has for it: policies of resources and
roles, access lists, permissions of snapshots and images, grants. Requests come from logs, so everything that reads them
yields null on a shape that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trailsift.query.relations import text

#: Columns of `acts` -> meaning, for the page of all detections.
ACT_COLUMNS = {
    "account_id, caller, event_name, service, event_time, weight, error_code, principal_type, principal_account, "
    "session_name, access_key_id, source_ip, aws_region": "as in `events`",
    "call": "service and action, e.g. `iam:CreateUser`",
    "target": "resource of the call, else what the request names: an ARN for users, roles and groups",
    "done": "the call succeeded",
    "refused": "permission was lacking",
    "req, res, extra, more": "request parameters, response elements, additional event data and the rest of the record "
    "as JSON",
    "agent": "user agent in lower case, `''` if absent",
    "by_aws": "an AWS service made the call, for itself or for somebody",
    "by_deployer": "an infrastructure-as-code tool or AWS service made the call",
    "by_console": "made in the AWS console, as far as the record says",
    "own": "the request names the user or role that makes the call",
    "opens": "to whom the request gives access beyond the account: `everyone`, `account ID`, `organization ID`, "
    "`canonical user`; empty otherwise",
    "full_access": "the policy in the request allows every action, or all of IAM, on every resource",
}

#: Names of tools that deploy what files describe; they repeat risky calls as part of ordinary work.
DEPLOYERS = (
    "terraform|opentofu|pulumi|cloudformation|aws-cdk|cdk/|ansible|serverless|aws-sam|sam-cli|crossplane|eksctl|kops/"
    "|controltower|servicecatalog|spacelift|terragrunt|aws-proton|copilot|amplify|elasticbeanstalk|cloud-custodian"
)
#: User agents of the AWS console and of browsers, which nothing else has reason to send.
CONSOLES = (
    r"^mozilla/|console\.amazonaws\.com|console\.aws\.amazon\.com|signin\.amazonaws\.com|s3console/"
    r"|^\[?(aws )?[a-z0-9]+ console"
)
#: Members of a request that hold a policy, as JSON or as text.
_POLICIES = (
    "$.bucketPolicy",
    "$.policyDocument",
    "$.assumeRolePolicyDocument",
    "$.policy",
    "$.Policy",
    "$.PutAccessPointPolicyRequest.Policy",
    "$.PutMultiRegionAccessPointPolicyRequest.Details.Policy",
    "$.details.policy",
    "$.policyText",
    "$.resourcePolicy",
    "$.attributes.Policy",
    "$.policyInJson",
    "$.accessPolicies",
    "$.accessPolicy",
    "$.queuePolicy",
)
#: Members of a request that name principals or accounts: one text, or an array of texts.
_PRINCIPALS = (
    "$.createVolumePermission.add.items[*].userId",
    "$.createVolumePermission.add.items[*].group",
    "$.launchPermission.add.items[*].userId",
    "$.launchPermission.add.items[*].group",
    "$.launchPermission.add.items[*].organizationArn",
    "$.launchPermission.add.items[*].organizationalUnitArn",
    "$.valuesToAdd[*]",
    "$.accountIdsToAdd[*]",
    "$.aWSAccountIds[*]",
    "$.aWSAccountId[*]",
    "$.principals[*]",
)
#: Condition keys whose value confines who may call, or from where.
_NARROW = (
    "aws:source(vpc|vpce|vpcarn|arn|account|orgid|orgpaths|ip|owner)|aws:principal(orgid|orgpaths|account|arn)"
    "|aws:userid|aws:username|aws:vpcsourceip|kms:calleraccount|s3:dataaccesspoint(account|arn)"
    "|sns:endpoint|elasticfilesystem:accesspointarn|s3:resourceaccount"
)
#: A condition that holds only for values named in it; `IfExists`, `ForAllValues` and negations hold for strangers too.
_HOLDS = r'"(?:ForAnyValue:)?(?:String(?:Equals|Like|EqualsIgnoreCase)|Arn(?:Equals|Like)|IpAddress)"\s*:\s*\{[^{}]*"'
_VALUES = r'"\s*:\s*(\[[^\]]*\]|"[^"]*")'
_WIDE = r'"(\*+|[0-9a-fA-F.:]*/[0-7]|arn:aws[a-z-]*:\*.*|o-\*|vpce?-\*)"'
#: Canonical user to which AWS services deliver logs.
_LOG_DELIVERY = "c4c1ede66af53448b93c283ce9448c4ba468c9432aa01d700d3878632f77d2d0"
#: Data events: only those whose request opens the object to everyone, or names a key of the caller's or of another
#: account. All others are far too many.
_DATA_CALLS = ("s3:PutObject", "s3:CopyObject", "s3:CreateMultipartUpload", "s3:UploadPartCopy", "s3:PutObjectAcl")
#: Data events that are rare enough to be read whatever they request.
_RARE_DATA_CALLS = ("s3:PutObjectRetention", "s3:PutObjectLegalHold")
_FOREIGN_KEY = r'aws-kms-key-id"\s*:\s*(?:\[\s*)?"arn:aws[a-z-]*:kms:[a-z0-9-]*:([0-9]{12}):'
_TELLING = (
    r'(?i)"x-amz-server-side-encryption-customer-algorithm"|groups/global/(AllUsers|AuthenticatedUsers)'
    r'|"x-amz-acl"\s*:\s*(\[\s*)?"(public|authenticated)-read'
)
#: What such a request holds at least; far cheaper than the expressions above.
_HINTING = ("customer-algorithm", "groups/global/", "-read", "kms-key-id")
_GRANTS = ("read", "write", "read-acp", "write-acp", "full-control")


def acts_relations(calls: Iterable[str], condition: str = "true") -> str:
    """Return the common table expressions that end in `acts`, for some calls (`service:Action`).

    ``condition``: further SQL condition on `events`, such as a time range.
    """
    wanted = sorted(set(calls))
    data, kept = ([call for call in wanted if call in chosen] for chosen in (_DATA_CALLS, _RARE_DATA_CALLS))
    others = [call for call in wanted if call not in data and call not in kept]
    # A long list of names filters only after all columns were read; a category filters before.
    parts = [_read(others, f"event_category = 'Management' AND ({condition})")] if others else []
    if kept:
        parts.append(_read(kept, condition))
    if data:
        hinting = " OR ".join(f"request_parameters LIKE '%{word}%'" for word in _HINTING)
        telling = (
            f"(additional_event_data LIKE '%SSE_C%' OR ({hinting})"
            f" AND (regexp_matches(request_parameters, {text(_TELLING)})"
            f" OR regexp_extract(request_parameters, {text(_FOREIGN_KEY)}, 1) NOT IN ('', account_id)))"
        )
        # Of all data events, few remain; columns that say nothing about these are not read.
        parts.append(_read(data, f"{telling} AND ({condition})", unread=("response_elements", "rest")))
    policy = ", ".join(f"nullif(req->>{text(path)}, '')" for path in _POLICIES)
    principals = ", ".join(f"coalesce(req->>{text(path)}, [])" for path in _PRINCIPALS)
    grants = ", ".join(f"(req->>{text(_header(f'x-amz-grant-{name}'))})" for name in _GRANTS)
    return f"""acts_read AS MATERIALIZED ({" UNION ALL ".join(parts)}),
acts_policies AS (
    SELECT *, try_cast(coalesce({policy},
            CASE WHEN lower(req->>'$.attributeName') = 'policy' THEN (req->>'$.attributeValue') END) AS JSON) AS policy,
        CASE WHEN caller LIKE 'arn:%' THEN split_part(caller, ':', 2) ELSE 'aws' END AS partition,
        (req->'$.AccessControlPolicy') AS acl
    FROM acts_read),
acts_statements AS (
    SELECT *, list_filter(CASE json_type(policy, '$.Statement') WHEN 'ARRAY' THEN policy->'$.Statement[*]'
            WHEN 'OBJECT' THEN [policy->'$.Statement'] ELSE [] END,
            lambda one: lower(coalesce(one->>'$.Effect', '')) = 'allow') AS allowed
    FROM acts_policies),
-- Whom each statement lets in, and what its conditions demand of them.
acts_whom AS (
    SELECT *, list_transform(allowed, lambda one: struct_pack(
            whom := CASE WHEN json_type(one, '$.NotPrincipal') IS NOT NULL THEN ['*'] ELSE list_concat(
                {_one_or_many("$.Principal")}, {_one_or_many("$.Principal.AWS")},
                list_transform({_one_or_many("$.Principal.CanonicalUser")}, lambda id: 'canonical ' || id)) END,
            held := list_filter(regexp_extract_all(coalesce((one->'$.Condition')::VARCHAR, ''),
                    {text(f"(?i){_HOLDS}(?:{_narrow()}){_VALUES}")}, 1),
                lambda found: NOT regexp_matches(found, {text(_WIDE)})),
            organization := regexp_extract(coalesce((one->'$.Condition')::VARCHAR, ''),
                {text(f"(?i){_HOLDS}aws:PrincipalOrg(?:ID|Paths){_VALUES}")}, 1))) AS statements,
        list_concat({principals},
            CASE WHEN coalesce(req->>'$.functionUrlAuthType', '') <> 'AWS_IAM' AND service IN ('lambda', 'events')
                AND (req->>'$.sourceAccount') IS NULL AND (req->>'$.sourceArn') IS NULL
                AND (req->>'$.principalOrgID') IS NULL AND json_type(req, '$.condition') IS NULL
                AND json_type(req, '$.principal') = 'VARCHAR' THEN [(req->>'$.principal')] ELSE [] END,
            CASE WHEN (req->>'$.granteePrincipal') IS NOT NULL THEN [(req->>'$.granteePrincipal')] ELSE [] END,
            CASE WHEN (req->>'$.accountWithRestoreAccess') IS NOT NULL THEN [(req->>'$.accountWithRestoreAccess')]
                ELSE [] END,
            CASE WHEN regexp_matches(coalesce(req->>{text(_header("x-amz-acl"))}, '') || coalesce(req->>'$.acl', ''),
                    'public-read|authenticated-read')
                OR regexp_matches(concat_ws(' ', acl::VARCHAR, {grants}), 'groups/global/(AllUsers|AuthenticatedUsers)')
                THEN ['*'] ELSE [] END,
            -- An access list always names the owner; whoever else has an id there belongs to another account.
            list_transform(list_filter(list_concat(
                    CASE WHEN json_type(acl, '$.Owner.ID') IS NOT NULL
                        THEN regexp_extract_all(acl::VARCHAR, '"ID"\\s*:\\s*"([0-9a-f]{{64}})"', 1) ELSE [] END,
                    regexp_extract_all(concat_ws(' ', {grants}), 'id=[\\\\"]*([0-9a-f]{{64}})', 1)),
                lambda id: id <> coalesce(acl->>'$.Owner.ID', '') AND id <> {text(_LOG_DELIVERY)}),
                lambda id: 'canonical ' || id)) AS named
    FROM acts_statements),
acts_opened AS (
    SELECT *, list_concat(
        list_transform(named, lambda who: struct_pack(who := who, organization := '')),
        flatten(list_transform(statements, lambda one: list_transform(
            CASE WHEN len(one.held) > 0 AND list_contains(list_transform(one.whom, lambda who: {_bare("who")}), '*')
                -- Everyone, but only from an account, network or resource that is named.
                THEN regexp_extract_all(array_to_string(one.held, ' '), '\\b([0-9]{{12}})\\b', 1)
                ELSE one.whom END,
            lambda who: struct_pack(who := who, organization := one.organization)))),
        flatten(list_transform(statements, lambda one: CASE WHEN one.organization <> ''
            THEN [struct_pack(who := 'organization', organization := one.organization)] ELSE [] END))) AS seen
    FROM acts_whom),
acts_all AS MATERIALIZED (
    SELECT *, coalesce(list_sort(list_distinct(list_filter(list_transform(seen, lambda one: CASE
            WHEN one.organization <> '' OR one.who LIKE '%:organizations::%' THEN 'organization '
                || coalesce(nullif(regexp_extract(one.organization || one.who, 'o-[a-z0-9]+'), ''), '')
            WHEN {_bare("one.who")} IN ('*', 'all') THEN 'everyone'
            WHEN one.who LIKE 'canonical %' THEN 'canonical user'
            WHEN regexp_extract(one.who, {text(_ACCOUNT)}, 1) NOT IN ('', account_id)
                THEN 'account ' || regexp_extract(one.who, {text(_ACCOUNT)}, 1) END),
            lambda found: found IS NOT NULL))), []) AS opens,
        len(list_filter(allowed, lambda one: {_has_star("one", "Resource")}
            AND (json_type(one, '$.NotAction') IS NOT NULL OR {_has_star("one", "Action", "*:*", "iam:*")}))) > 0
            AS full_access,
        by_aws OR regexp_matches(agent, {text(DEPLOYERS)}) AS by_deployer,
        lower(coalesce(more->>'$.sessionCredentialFromConsole', '')) = 'true'
            OR regexp_matches(agent, {text(CONSOLES)}) AS by_console,
        coalesce(regexp_extract(caller, '([^/]+)$', 1) = coalesce(req->>'$.userName', req->>'$.roleName'), false)
            AND (caller LIKE '%:user/%' AND (req->>'$.userName') IS NOT NULL
                OR caller LIKE '%:role/%' AND (req->>'$.roleName') IS NOT NULL) AS own,
        coalesce(resource_arn, CASE WHEN service = 'iam' THEN {_iam_name()} END, {_names()}) AS target
    FROM acts_opened)"""


def _read(calls: Sequence[str], condition: str, unread: Sequence[str] = ()) -> str:
    """Return the SELECT of some calls from `events`; the columns ``unread`` are null."""
    services = ", ".join(sorted({text(call.partition(":")[0]) for call in calls}))
    names = ", ".join(sorted({text(call.partition(":")[2]) for call in calls}))
    pairs = ", ".join(map(text, calls))
    request, response, extra, rest = (
        f"try_cast({'NULL' if name in unread else name} AS JSON)"
        for name in ("request_parameters", "response_elements", "additional_event_data", "rest")
    )
    return f"""
    SELECT account_id, caller, service || ':' || event_name AS call, event_name, service, event_time, weight,
        error_code, principal_type, principal_account, session_name, access_key_id, source_ip, aws_region, resource_arn,
        coalesce(error_code, '') = '' AS done, is_denied(error_code) AS refused,
        {request} AS req, {response} AS res, {extra} AS extra, {rest} AS more,
        lower(coalesce(user_agent, '')) AS agent,
        coalesce(invoked_by, '') <> '' OR caller LIKE 'service:%' OR caller LIKE '%/aws-service-role/%'
            OR coalesce(principal_type, '') = 'AWSService'
            OR coalesce(source_ip, '') LIKE '%.amazonaws.com' OR coalesce(source_ip, '') = 'AWS Internal' AS by_aws
    FROM events
    WHERE service IN ({services}) AND event_name IN ({names}) AND service || ':' || event_name IN ({pairs})
        AND event_category NOT IN ('NetworkActivity', 'Insight')
        -- Services make grants by themselves all day long.
        AND (event_name <> 'CreateGrant' OR coalesce(invoked_by, '') = '') AND ({condition})"""


_ACCOUNT = r"^(?:arn:aws[a-z-]*:[a-z0-9-]*:[a-z0-9-]*:)?([0-9]{12})(?::|$)"


def _header(name: str) -> str:
    return f'$."{name}"'


def _narrow() -> str:
    return _NARROW.replace("(", "(?:")


def _one_or_many(path: str) -> str:
    return (
        f"CASE json_type(one, {text(path)}) WHEN 'ARRAY' THEN (one->>{text(path + '[*]')})"
        f" WHEN 'VARCHAR' THEN [(one->>{text(path)})] ELSE [] END"
    )


def _bare(value: str) -> str:
    # "arn:aws:iam::*:root" and the like are no principals; only a bare star is everyone.
    return f"lower(trim(coalesce({value}, '')))"


def _has_star(statement: str, member: str, *more: str) -> str:
    found = _one_or_many(f"$.{member}").replace("one", statement)
    return f"list_has_any(list_transform({found}, lambda a: lower(a)), [{', '.join(map(text, ('*', *more)))}])"


def _iam_name() -> str:
    kinds = {"userName": "user", "roleName": "role", "groupName": "group", "instanceProfileName": "instance-profile"}
    parts = (
        f"WHEN (req->>'$.{member}') IS NOT NULL THEN 'arn:' || partition || ':iam::' || coalesce(account_id, '')"
        f" || ':{kind}/' || (req->>'$.{member}')"
        for member, kind in kinds.items()
    )
    return f"CASE {' '.join(parts)} ELSE coalesce(req->>'$.policyArn', req->>'$.policyName') END"


def _names() -> str:
    members = (
        "trailName", "name", "secretId", "keyId", "snapshotId", "imageId", "instanceId", "target", "functionName",
        "dBSnapshotIdentifier", "dBClusterSnapshotIdentifier", "dBInstanceIdentifier", "dBClusterIdentifier",
        "topicArn", "queueUrl", "repositoryName", "tableName", "tableArn", "detectorId", "logGroupName", "groupId",
        "documentName", "backupVaultName", "fileSystemId", "policyId", "userName", "configurationRecorderName",
        "DeleteFlowLogsRequest.FlowLogId.content", "id", "arn", "resourceArn", "accountId",
    )  # fmt: skip
    return f"coalesce({', '.join(f'''(req->>'$.{member}') ''' for member in members)})"
