"""Advanced event selectors of a trail: for chosen roles, from what a trail has, and what a set of them logs.

All of it decides on values: selectors are the JSON that PutEventSelectors takes. Fields, operators and limits:
https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_AdvancedFieldSelector.html
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from trailsift.cloudtrail.resources import DATA_EVENT_TYPES
from trailsift.errors import TrailsiftError, UsageError

Selector = dict[str, Any]

#: Values in all selectors of a trail together.
VALUE_LIMIT = 500
#: Names of selectors that are ours begin so: applied again, they are replaced and the others stay.
OURS = "trailsift: "

#: What a service is called -> the resource type whose events are meant.
SERVICES: dict[str, str] = {
    "s3": "AWS::S3::Object",
    "lambda": "AWS::Lambda::Function",
    "dynamodb": "AWS::DynamoDB::Table",
    "sns": "AWS::SNS::Topic",
    "sqs": "AWS::SQS::Queue",
    "kinesis": "AWS::Kinesis::Stream",
    "bedrock": "AWS::Bedrock::Model",
    "s3express": "AWS::S3Express::Object",
    "dynamodb-streams": "AWS::DynamoDB::Stream",
}

_ROLE = re.compile(r"arn:(aws[a-z-]*):iam::(\d{12}):role/(?:[\w+=,.@/-]*/)?([\w+=,.@-]{1,64})")
_USER = re.compile(r"arn:(aws[a-z-]*):iam::(\d{12}):user/[\w+=,.@/-]+")
_NAME = re.compile(r"[\w+=,.@-]{1,64}")
_ACCOUNT = re.compile(r"\d{12}")


class Who(NamedTuple):
    """How a role or user is told in ``userIdentity.arn``: the operator and the value."""

    arn: str
    operator: Literal["StartsWith", "Equals"]
    value: str


@dataclass(frozen=True, slots=True)
class SelectorRequest:
    """Whose data events of which resource types are wanted. ``buckets`` narrow S3 only; empty ``who`` is everybody."""

    who: tuple[Who, ...]
    types: tuple[str, ...]
    writes_only: bool = False
    buckets: tuple[str, ...] = ()


def wanted(
    roles: Sequence[str],
    services: Sequence[str],
    accounts: Sequence[str] = (),
    *,
    writes_only: bool = False,
    buckets: Sequence[str] = (),
    partition: str = "aws",
) -> SelectorRequest:
    """What the words of the command mean. ``roles`` are ARNs, or names that are meant in each of ``accounts``.

    UsageError where a word means nothing.
    """
    for account in accounts:
        if not _ACCOUNT.fullmatch(account):
            raise UsageError(f"{account!r} is no account id: those have 12 digits")
    who = tuple(dict.fromkeys(each for role in roles for each in _who(role, accounts, partition)))
    types = tuple(dict.fromkeys(_type(service) for service in services))
    arns = tuple(dict.fromkeys(_bucket(bucket, partition) for bucket in buckets))
    if arns and "AWS::S3::Object" not in types:
        raise UsageError("--bucket narrows events of S3 objects, and s3 is not among the services")
    return SelectorRequest(who, types, writes_only, arns)


def _who(role: str, accounts: Sequence[str], partition: str) -> list[Who]:
    match = _ROLE.fullmatch(role)
    if match:
        # A session's ARN has the role's name without its path. The slash behind it keeps `etl` from meaning `etl-2`.
        return [Who(role, "StartsWith", f"arn:{match[1]}:sts::{match[2]}:assumed-role/{match[3]}/")]
    if _USER.fullmatch(role):
        return [Who(role, "Equals", role)]
    if not _NAME.fullmatch(role):
        raise UsageError(
            f"{role!r} is neither the ARN of a role or user nor a role's name: "
            "write arn:aws:iam::123456789012:role/NAME, or NAME and --account"
        )
    if not accounts:
        raise UsageError(f"in which account is the role {role}? Name its ARN, or --account 123456789012")
    return [
        Who(
            f"arn:{partition}:iam::{account}:role/{role}",
            "StartsWith",
            f"arn:{partition}:sts::{account}:assumed-role/{role}/",
        )
        for account in accounts
    ]


def _type(service: str) -> str:
    if service in DATA_EVENT_TYPES:
        return service
    kind = SERVICES.get(service.lower())
    if kind is None:
        known = {name.lower(): name for name in (*SERVICES, *sorted(DATA_EVENT_TYPES))}
        near = difflib.get_close_matches(service.lower(), known, 1, 0.5)
        hint = f"did you mean {known[near[0]]}?" if near else f"there are {', '.join(SERVICES)}"
        raise UsageError(f"no data events are known of {service!r}: {hint} A type such as AWS::SNS::Topic does too")
    return kind


def _bucket(bucket: str, partition: str) -> str:
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    if name.startswith("arn:"):
        return bucket if "/" in bucket else f"{bucket}/"
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name):
        raise UsageError(f"{name!r} is no name of a bucket")
    return f"arn:{partition}:s3:::{name}/{prefix}"


# -- making selectors ------------------------------------------------------------------------------------------------


def selectors(want: SelectorRequest, *, by_role: bool = True) -> list[Selector]:
    """One selector for each resource type. ``by_role=False`` leaves the roles out, for trails that refuse
    ``userIdentity.arn``: a rules file then keeps the roles that matter (``only_roles``)."""
    made = []
    for kind in want.types:
        fields = [_field("eventCategory", Equals=["Data"]), _field("resources.type", Equals=[kind])]
        if want.writes_only:
            fields.append(_field("readOnly", Equals=["false"]))
        if want.buckets and kind == "AWS::S3::Object":
            fields.append(_field("resources.ARN", StartsWith=list(want.buckets)))
        if want.who and by_role:
            values: dict[str, list[str]] = {}
            for who in want.who:
                values.setdefault(who.operator, []).append(who.value)
            fields.append(_field("userIdentity.arn", **values))
        made.append({"Name": f"{OURS}{kind}", "FieldSelectors": fields})
    return made


def _field(field: str, **values: list[str]) -> dict[str, Any]:
    return {"Field": field, **values}


MANAGEMENT: Selector = {
    "Name": "Management events",
    "FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}],
}


def merged(existing: Sequence[Selector] | None, ours: Sequence[Selector]) -> list[Selector]:
    """What to put: PutEventSelectors replaces all that a trail has. Others' selectors stay; without any known, the
    one for management events that a trail has from the start is added."""
    kept = [MANAGEMENT] if existing is None else [one for one in existing if not is_ours(one)]
    return [*kept, *ours]


def is_ours(selector: Mapping[str, Any]) -> bool:
    """Whether trailsift made it."""
    return str(selector.get("Name", "")).startswith(OURS)


def values_in(chosen: Iterable[Mapping[str, Any]]) -> int:
    """How many values they hold together."""
    return sum(
        len(values)
        for selector in chosen
        for field in selector.get("FieldSelectors", ())
        for values in field.values()
        if isinstance(values, list)
    )


def check(chosen: Sequence[Mapping[str, Any]]) -> None:
    """UsageError where a trail cannot take them."""
    count = values_in(chosen)
    if count > VALUE_LIMIT:
        raise UsageError(
            f"these selectors hold {count} values, and a trail takes {VALUE_LIMIT} over all of them: name fewer roles "
            "or services, share them out over several trails (5 in a region), or take --without-roles and a rules file"
        )


def only_roles(want: SelectorRequest) -> str:
    """A rules file that keeps the data events of these roles and drops those of all others."""
    quoted = ",\n    ".join(f'"{who.arn}"' for who in want.who)
    return (
        "# Data events of these roles, and of nobody else: the trail cannot tell roles apart.\n"
        "# Denied and failed calls, and management events, are kept whoever makes them.\n\n"
        f'[[rule]]\nname = "roles that matter"\nwhen = {{ role = [\n    {quoted},\n] }}\naction = "keep"\n\n'
        '[[rule]]\nname = "other roles"\nwhen = { event_category = "Data" }\naction = "drop"\n'
    )


# -- what a trail has ------------------------------------------------------------------------------------------------


def advanced(answer: Mapping[str, Any]) -> list[Selector]:
    """The selectors in GetEventSelectors' answer; basic ones are written as the advanced ones that mean the same."""
    given = answer.get("AdvancedEventSelectors")
    if given:
        return [dict(one) for one in given]
    return [made for one in answer.get("EventSelectors") or () for made in _advanced(one)]


def _advanced(basic: Mapping[str, Any]) -> list[Selector]:
    read_only = {"ReadOnly": ["true"], "WriteOnly": ["false"]}.get(str(basic.get("ReadWriteType")))
    kind = [_field("readOnly", Equals=read_only)] if read_only else []
    made = []
    if basic.get("IncludeManagementEvents", True):
        fields = [_field("eventCategory", Equals=["Management"]), *kind]
        excluded = basic.get("ExcludeManagementEventSources") or []
        if excluded:
            fields.append(_field("eventSource", NotEquals=list(excluded)))
        made.append({"Name": "Management events", "FieldSelectors": fields})
    for resource in basic.get("DataResources") or ():
        fields = [_field("eventCategory", Equals=["Data"]), _field("resources.type", Equals=[resource["Type"]]), *kind]
        # `arn:aws:s3` alone means every bucket.
        arns = [value for value in resource.get("Values") or () if value.count(":") >= 5]
        if arns:
            fields.append(_field("resources.ARN", StartsWith=arns))
        made.append({"Name": f"{resource['Type']} events", "FieldSelectors": fields})
    return made


_POSITIVE: dict[str, Callable[[str, str], bool]] = {
    "Equals": str.__eq__,
    "StartsWith": str.startswith,
    "EndsWith": str.endswith,
}


def logs(chosen: Iterable[Mapping[str, Any]], event: Mapping[str, str]) -> bool:
    """Whether a trail with these selectors logs an event, given by the fields of selectors.

    Within a selector all fields must match; within a field any positive condition and every negative one. An event
    without the field matches no positive condition.
    """
    return any(
        all(_matches(field, event.get(str(field["Field"]))) for field in selector["FieldSelectors"])
        for selector in chosen
    )


def _matches(field: Mapping[str, Any], value: str | None) -> bool:
    positive = [(test, one) for name, test in _POSITIVE.items() for one in field.get(name) or ()]
    negative = [(test, one) for name, test in _POSITIVE.items() for one in field.get(f"Not{name}") or ()]
    if value is None:
        return not positive
    return (not positive or any(test(value, one) for test, one in positive)) and not any(
        test(value, one) for test, one in negative
    )


class Covered(NamedTuple):
    """How far a set of selectors logs what is wanted of one role and resource type."""

    arn: str
    type: str
    reads: Literal["logged", "partly", "missed", "not wanted"]
    writes: Literal["logged", "partly", "missed"]


#: What a selector can narrow further than role, type and reading: then only a part is logged.
_NARROWER = ("eventName", "eventSource", "eventType", "resources.ARN", "sessionCredentialFromConsole")


def covered(existing: Sequence[Mapping[str, Any]], want: SelectorRequest) -> list[Covered]:
    """What an existing set logs and misses of what is wanted."""
    anybody = (Who("(everybody)", "Equals", ""),)
    return [
        Covered(
            who.arn,
            kind,
            "not wanted" if want.writes_only else _state(existing, want, who, kind, "true"),
            _state(existing, want, who, kind, "false"),
        )
        for kind in want.types
        for who in want.who or anybody
    ]


def _state(
    existing: Sequence[Mapping[str, Any]], want: SelectorRequest, who: Who, kind: str, read_only: str
) -> Literal["logged", "partly", "missed"]:
    event = {"eventCategory": "Data", "resources.type": kind, "readOnly": read_only}
    # Any session of the role: no selector can tell this one apart.
    event["userIdentity.arn"] = who.value + ("\x00any session" if who.operator == "StartsWith" else "")
    places = want.buckets if kind == "AWS::S3::Object" and want.buckets else ("",)
    whole = [
        logs([one for one in existing if not _narrower(one, place)], {**event, "resources.ARN": f"{place}\x00any"})
        for place in places
    ]
    if all(whole):
        return "logged"
    loose = [
        {"FieldSelectors": [field for field in one["FieldSelectors"] if field["Field"] not in _NARROWER]}
        for one in existing
    ]
    some = any(whole) or logs(loose, event) or _some_session(loose, event, who)
    return "partly" if some else "missed"


def _narrower(selector: Mapping[str, Any], place: str) -> bool:
    """Whether a selector logs only some of the calls at a place (an ARN's beginning; empty: anywhere)."""
    names = {field["Field"] for field in selector["FieldSelectors"]}
    return bool(names & set(_NARROWER) - ({"resources.ARN"} if place else set()))


def _some_session(loose: Sequence[Mapping[str, Any]], event: Mapping[str, str], who: Who) -> bool:
    """Whether single sessions of a role are named."""
    for selector in loose:
        for field in selector["FieldSelectors"]:
            if field["Field"] == "userIdentity.arn":
                named = [value for values in field.values() if isinstance(values, list) for value in values]
                if any(
                    value.startswith(who.value) and logs([selector], {**event, "userIdentity.arn": value})
                    for value in named
                ):
                    return True
    return False


class RolesRefused(TrailsiftError):
    """The trail does not take selectors on ``userIdentity.arn``."""


def logs_data(selector: Mapping[str, Any]) -> bool:
    """Whether a selector is about data events."""
    fields = selector["FieldSelectors"]
    return any(one["Field"] == "eventCategory" and "Data" in one.get("Equals", ()) for one in fields)


def refuses_roles(code: str, message: str) -> bool:
    """Whether AWS's refusal of selectors is about the field ``userIdentity.arn``, which not every trail takes."""
    return code == "InvalidEventSelectorsException" and "useridentity" in message.lower()
