"""Advanced event selectors of a trail: build them for chosen roles, and compare them with what a trail has.

Everything here works on plain values: selectors are the JSON that PutEventSelectors takes. Fields, operators, limits:
https://docs.aws.amazon.com/awscloudtrail/latest/APIReference/API_AdvancedFieldSelector.html
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from trailsift.cloudtrail.bucket_names import name_problem
from trailsift.cloudtrail.data_event_types import DATA_EVENT_TYPES
from trailsift.errors import TrailsiftError, UsageError
from trailsift.prices import load_prices

Selector = dict[str, Any]

#: Values that all selectors of a trail may hold together.
VALUE_LIMIT = 500
#: Prefix of the names of our selectors: when new ones are applied, these are replaced and the others stay.
OURS = "trailsift: "

#: Short name of a service -> the resource type of its data events.
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


class CallerMatch(NamedTuple):
    """A role or user, and the condition on ``userIdentity.arn`` that matches its calls."""

    arn: str
    operator: Literal["StartsWith", "Equals"]
    value: str


@dataclass(frozen=True, slots=True)
class SelectorRequest:
    """Callers and resource types whose data events to log. ``buckets`` narrow S3 only; no ``callers`` means all."""

    callers: tuple[CallerMatch, ...]
    types: tuple[str, ...]
    writes_only: bool = False
    buckets: tuple[str, ...] = ()


def parse_request(
    roles: Sequence[str],
    services: Sequence[str],
    accounts: Sequence[str] = (),
    *,
    writes_only: bool = False,
    buckets: Sequence[str] = (),
    partition: str | None = None,
) -> SelectorRequest:
    """Return the request that the command's arguments describe. ``roles``: ARNs, or names valid in all ``accounts``.

    ``partition``: ``aws``, ``aws-us-gov``, ``aws-cn`` ...; without it, that of the ARNs in ``roles`` and ``buckets``.
    Raise UsageError if an argument is not valid, or if the ARNs are of several partitions: no trail logs both.
    """
    partition = _partition(partition, [*roles, *buckets])
    for account in accounts:
        if not _ACCOUNT.fullmatch(account):
            raise UsageError(f"{account!r} is not an account id: those have 12 digits")
    callers = tuple(dict.fromkeys(match for role in roles for match in _callers(role, accounts, partition)))
    types = tuple(dict.fromkeys(_type(service) for service in services))
    arns = tuple(dict.fromkeys(_bucket(bucket, partition) for bucket in buckets))
    if arns and "AWS::S3::Object" not in types:
        raise UsageError("--bucket narrows events of S3 objects, and s3 is not among the services")
    return SelectorRequest(callers, types, writes_only, arns)


#: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
_PARTITION = re.compile(r"aws(-[a-z]+)*")


def _partition(given: str | None, names: Sequence[str]) -> str:
    """Return the partition of all ARNs of a request."""
    if given is not None and not _PARTITION.fullmatch(given):
        raise UsageError(f"{given!r} is not an AWS partition: use aws, aws-us-gov or aws-cn")
    found = {name.split(":")[1] for name in names if name.startswith("arn:") and name.count(":") >= 5}
    wanted = found | ({given} if given is not None else set())
    if len(wanted) > 1:
        raise UsageError(
            f"ARNs of the partitions {' and '.join(sorted(wanted))}: a trail logs the calls of one partition only"
        )
    return next(iter(wanted), "aws")


def _callers(role: str, accounts: Sequence[str], partition: str) -> list[CallerMatch]:
    match = _ROLE.fullmatch(role)
    if match:
        # A session's ARN has the role's name without its path. The trailing slash keeps `etl` from matching `etl-2`.
        return [CallerMatch(role, "StartsWith", f"arn:{match[1]}:sts::{match[2]}:assumed-role/{match[3]}/")]
    if _USER.fullmatch(role):
        return [CallerMatch(role, "Equals", role)]
    if not _NAME.fullmatch(role):
        raise UsageError(
            f"{role!r} is neither the ARN of a role or user nor a role's name: "
            "write arn:aws:iam::123456789012:role/NAME, or NAME and --account"
        )
    if not accounts:
        raise UsageError(f"the role name {role} needs an account: give its ARN, or add --account 123456789012")
    return [
        CallerMatch(
            f"arn:{partition}:iam::{account}:role/{role}",
            "StartsWith",
            f"arn:{partition}:sts::{account}:assumed-role/{role}/",
        )
        for account in accounts
    ]


def _type(service: str) -> str:
    if service in DATA_EVENT_TYPES:
        return service
    resource_type = SERVICES.get(service.lower())
    if resource_type is None:
        names = {name.lower(): name for name in (*SERVICES, *sorted(DATA_EVENT_TYPES))}
        near = difflib.get_close_matches(service.lower(), names, 1, 0.5)
        services = f"use one of {', '.join(SERVICES)}, or a type such as AWS::SNS::Topic"
        hint = f"did you mean {names[near[0]]}?" if near else services
        raise UsageError(f"{service!r} is not a service with data events: {hint}")
    return resource_type


def _bucket(bucket: str, partition: str) -> str:
    """Return the beginning of the ARNs of a bucket's objects, which ``resources.ARN`` is compared with."""
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    if name.startswith("arn:"):
        match = re.fullmatch(r"arn:([a-z-]+):s3:::([^:]+)", name)
        if match is None:
            raise UsageError(
                f"{name} is not the ARN of a bucket: --bucket narrows events of S3 objects; events through an access "
                "point are those of its bucket, or of the type AWS::S3::AccessPoint"
            )
        partition, name = match.groups()
    if name.endswith("--x-s3"):
        raise UsageError(
            f"{name} is a directory bucket: its objects are of the type AWS::S3Express::Object, and --bucket narrows "
            "AWS::S3::Object"
        )
    problem = name_problem(name)
    if problem:
        raise UsageError(f"{name!r} is not a valid bucket name: {problem}")
    # People write what they write in policies; selectors compare beginnings, and take * for a character.
    prefix = prefix.removesuffix("*")
    if "*" in prefix or "?" in prefix:
        raise UsageError(f"{bucket!r}: selectors have no wildcards; write the beginning that the keys have in common")
    return f"arn:{partition}:s3:::{name}/{prefix}"


# -- building selectors ----------------------------------------------------------------------------------------------


def build_selectors(request: SelectorRequest, *, by_role: bool = True) -> list[Selector]:
    """Return one selector per resource type.

    ``by_role=False`` omits the roles, for trails that refuse ``userIdentity.arn``: a rules file (``role_rules``) then
    selects them at ingest.
    """
    selectors = []
    for resource_type in request.types:
        fields = [_field("eventCategory", Equals=["Data"]), _field("resources.type", Equals=[resource_type])]
        if request.writes_only:
            fields.append(_field("readOnly", Equals=["false"]))
        if request.buckets and resource_type == "AWS::S3::Object":
            fields.append(_field("resources.ARN", StartsWith=list(request.buckets)))
        if request.callers and by_role:
            values: dict[str, list[str]] = {}
            for caller in request.callers:
                values.setdefault(caller.operator, []).append(caller.value)
            fields.append(_field("userIdentity.arn", **values))
        selectors.append({"Name": f"{OURS}{resource_type}", "FieldSelectors": fields})
    return selectors


def _field(name: str, **values: list[str]) -> dict[str, Any]:
    return {"Field": name, **values}


MANAGEMENT: Selector = {
    "Name": "Management events",
    "FieldSelectors": [{"Field": "eventCategory", "Equals": ["Management"]}],
}


def merge_selectors(existing: Sequence[Selector] | None, ours: Sequence[Selector]) -> list[Selector]:
    """Return the whole set to put, because PutEventSelectors replaces everything that a trail has.

    Selectors that are not ours stay. If the existing ones are not known (None), the selector for management events
    that every new trail has is added.
    """
    kept = [MANAGEMENT] if existing is None else [selector for selector in existing if not is_ours(selector)]
    return [*kept, *ours]


def notes(request: SelectorRequest, existing: Sequence[Selector] | None, *, by_role: bool = True) -> list[str]:
    """Return what someone who applies the selectors must know and cannot see in them.

    https://aws.amazon.com/cloudtrail/pricing/, and
    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html
    """
    found = []
    if existing is None:
        price = load_prices()["management_copies"]
        found.append(
            "the trail's present selectors are not known, so management events are among these: on an account's second "
            f"trail they cost ${price.of(100_000):.2f} per 100,000; --existing or --apply keeps what the trail has"
        )
    if request.callers and by_role:
        found.append(
            "a call from another account is logged in the owner's trail without the caller's ARN: selectors by role "
            "select it in the caller's account only"
        )
    return found


def is_ours(selector: Mapping[str, Any]) -> bool:
    """Return whether trailsift made the selector."""
    return str(selector.get("Name", "")).startswith(OURS)


def count_values(selectors: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of values in all selectors together."""
    return sum(
        len(values)
        for selector in selectors
        for field in selector.get("FieldSelectors", ())
        for values in field.values()
        if isinstance(values, list)
    )


def check_limit(selectors: Sequence[Mapping[str, Any]]) -> None:
    """Raise UsageError if the selectors hold more values than a trail takes."""
    count = count_values(selectors)
    if count > VALUE_LIMIT:
        raise UsageError(
            f"these selectors hold {count} values, and a trail takes {VALUE_LIMIT} in total: name fewer roles or "
            "services, split them between several trails (5 per region), or use --without-roles and a rules file"
        )


def role_rules(request: SelectorRequest) -> str:
    """Return a rules file that keeps the data events of these roles and drops those of all others."""
    quoted = ",\n    ".join(f'"{caller.arn}"' for caller in request.callers)
    return (
        "# Keeps the data events of these roles only, for a trail that cannot select by role.\n"
        "# Denied and failed calls, and management events, are kept for all callers.\n\n"
        f'[[rule]]\nname = "roles that matter"\nwhen = {{ role = [\n    {quoted},\n] }}\naction = "keep"\n\n'
        '[[rule]]\nname = "other roles"\nwhen = { event_category = "Data" }\naction = "drop"\n'
    )


# -- reading what a trail has ----------------------------------------------------------------------------------------


def advanced_selectors(response: Mapping[str, Any]) -> list[Selector]:
    """Return the selectors in GetEventSelectors' response, basic ones as equivalent advanced ones."""
    advanced = response.get("AdvancedEventSelectors")
    if advanced:
        return [dict(selector) for selector in advanced]
    return [selector for basic in response.get("EventSelectors") or () for selector in _from_basic(basic)]


def _from_basic(basic: Mapping[str, Any]) -> list[Selector]:
    read_only = {"ReadOnly": ["true"], "WriteOnly": ["false"]}.get(str(basic.get("ReadWriteType")))
    access = [_field("readOnly", Equals=read_only)] if read_only else []
    selectors = []
    if basic.get("IncludeManagementEvents", True):
        fields = [_field("eventCategory", Equals=["Management"]), *access]
        excluded = basic.get("ExcludeManagementEventSources") or []
        if excluded:
            fields.append(_field("eventSource", NotEquals=list(excluded)))
        selectors.append({"Name": "Management events", "FieldSelectors": fields})
    for resource in basic.get("DataResources") or ():
        fields = [
            _field("eventCategory", Equals=["Data"]),
            _field("resources.type", Equals=[resource["Type"]]),
            *access,
        ]
        # `arn:aws:s3` or `arn:aws:lambda` means all of them, whatever stands beside it.
        arns = list(resource.get("Values") or ())
        if arns and all(value.count(":") >= 5 for value in arns):
            fields.append(_field("resources.ARN", StartsWith=arns))
        selectors.append({"Name": f"{resource['Type']} events", "FieldSelectors": fields})
    return selectors


_POSITIVE: dict[str, Callable[[str, str], bool]] = {
    "Equals": str.__eq__,
    "StartsWith": str.startswith,
    "EndsWith": str.endswith,
}


def is_logged(event: Mapping[str, str], selectors: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether a trail with these selectors logs an event, given as selector field -> value.

    All fields of a selector must match; a field matches if any of its positive conditions and all of its negative
    ones do. An event without the field matches no positive condition.
    """
    return any(
        all(_matches(field, event.get(str(field["Field"]))) for field in selector["FieldSelectors"])
        for selector in selectors
    )


def _matches(field: Mapping[str, Any], value: str | None) -> bool:
    positive = [(test, operand) for name, test in _POSITIVE.items() for operand in field.get(name) or ()]
    negative = [(test, operand) for name, test in _POSITIVE.items() for operand in field.get(f"Not{name}") or ()]
    if value is None:
        return not positive
    return (not positive or any(test(value, operand) for test, operand in positive)) and not any(
        test(value, operand) for test, operand in negative
    )


class Coverage(NamedTuple):
    """How much of one caller's requested events of one resource type is logged."""

    arn: str
    type: str
    reads: Literal["logged", "partly", "missed", "not wanted"]
    writes: Literal["logged", "partly", "missed"]


#: Fields that narrow a selector beyond caller, type and access: with one of them, only some events are logged.
_NARROWING = ("eventName", "eventSource", "eventType", "resources.ARN", "sessionCredentialFromConsole")


def coverage(existing: Sequence[Mapping[str, Any]], request: SelectorRequest) -> list[Coverage]:
    """Return how much of the request an existing set of selectors logs, per resource type and caller."""
    all_callers = (CallerMatch("(all callers)", "Equals", ""),)
    return [
        Coverage(
            caller.arn,
            resource_type,
            "not wanted" if request.writes_only else _state(existing, request, caller, resource_type, "true"),
            _state(existing, request, caller, resource_type, "false"),
        )
        for resource_type in request.types
        for caller in request.callers or all_callers
    ]


def _state(
    existing: Sequence[Mapping[str, Any]],
    request: SelectorRequest,
    caller: CallerMatch,
    resource_type: str,
    read_only: str,
) -> Literal["logged", "partly", "missed"]:
    event = {"eventCategory": "Data", "resources.type": resource_type, "readOnly": read_only}
    # Stands for any session of the role: no selector can name this one.
    event["userIdentity.arn"] = caller.value + ("\x00any session" if caller.operator == "StartsWith" else "")
    places = request.buckets if resource_type == "AWS::S3::Object" and request.buckets else ("",)
    logged = [
        is_logged(
            {**event, "resources.ARN": f"{place}\x00any"},
            [selector for selector in existing if not _is_narrower(selector, place)],
        )
        for place in places
    ]
    if all(logged):
        return "logged"
    loosened = [
        {"FieldSelectors": [field for field in selector["FieldSelectors"] if field["Field"] not in _NARROWING]}
        for selector in existing
        if any(_touches(selector, place) for place in places)
    ]
    partly = any(logged) or is_logged(event, loosened) or _names_session(loosened, event, caller)
    return "partly" if partly else "missed"


def _is_narrower(selector: Mapping[str, Any], place: str) -> bool:
    """Return whether a selector logs only some of the calls at a place (an ARN prefix; empty: anywhere)."""
    names = {field["Field"] for field in selector["FieldSelectors"]}
    return bool(names & set(_NARROWING) - ({"resources.ARN"} if place else set()))


def _touches(selector: Mapping[str, Any], place: str) -> bool:
    """Return whether a selector can log anything at a place (an ARN prefix; empty: anywhere)."""
    for field in selector["FieldSelectors"]:
        if field["Field"] != "resources.ARN":
            continue
        begins = [*(field.get("Equals") or ()), *(field.get("StartsWith") or ())]
        if begins and not any(arn.startswith(place) or place.startswith(arn) for arn in begins):
            return field.get("EndsWith") is not None
        if any(place.startswith(arn) for arn in field.get("NotStartsWith") or () if place):
            return False
    return True


def _names_session(selectors: Sequence[Mapping[str, Any]], event: Mapping[str, str], caller: CallerMatch) -> bool:
    """Return whether a selector logs single sessions of a role."""
    for selector in selectors:
        for field in selector["FieldSelectors"]:
            if field["Field"] == "userIdentity.arn":
                arns = [value for values in field.values() if isinstance(values, list) for value in values]
                if any(
                    arn.startswith(caller.value) and is_logged({**event, "userIdentity.arn": arn}, [selector])
                    for arn in arns
                ):
                    return True
    return False


class RolesRefused(TrailsiftError):
    """The trail does not accept selectors on ``userIdentity.arn``."""


def selects_data_events(selector: Mapping[str, Any]) -> bool:
    """Return whether a selector is about data events."""
    fields = selector["FieldSelectors"]
    return any(field["Field"] == "eventCategory" and "Data" in field.get("Equals", ()) for field in fields)


def refuses_roles(code: str, message: str) -> bool:
    """Return whether AWS refused selectors because of ``userIdentity.arn``, which not every trail accepts."""
    return code == "InvalidEventSelectorsException" and "useridentity" in message.lower()
