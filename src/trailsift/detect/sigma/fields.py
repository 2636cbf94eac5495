"""Sigma's fields for CloudTrail, which are members of a record, as SQL over one row of the table ``events``.

A field has values, which are texts: of strings the text, of numbers and booleans their JSON. A list on the way is
entered, and so is one at the end: ``requestParameters.a.b`` is each ``b`` of each ``a``. An object has two values, its
JSON text and the same with ``\\"`` written as ``"``, because policies are JSON within JSON. A null has no value. What
matches a field matches one of its values at least.

``decode.record`` says where a member is kept: in a typed column if that holds it unchanged, else as JSON. Each field is
read from its column first, and from JSON only if the column does not say it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from trailsift.cloudtrail.categories import MANAGEMENT_FLAG
from trailsift.decode.landing import ABSENT, FLOAT
from trailsift.decode.record import BYTES, PLAIN
from trailsift.query.relations import text

#: SQL of a text -> SQL of a condition on it, which may be null.
Predicate = Callable[[str], str]

#: Members that the columns may hold although the record does not have them.
_DERIVED = {"eventID", "recipientAccountId", "eventCategory"}
#: Members of ``userIdentity`` with a column that holds nothing else.
_IDENTITY = {
    "type": "principal_type",
    "principalId": "principal_id",
    "arn": "principal_arn",
    "accessKeyId": "access_key_id",
    "invokedBy": "invoked_by",
}
#: Members of a record, at its top.
MEMBERS = (
    *PLAIN, "eventTime", "readOnly", "managementEvent", "userIdentity", "requestParameters", "responseElements",
    "additionalEventData", "resources", "apiVersion", "serviceEventDetails", "tlsDetails", "addendum",
    "sessionCredentialFromConsole", "edgeDeviceDetails", "insightDetails", "eventContext",
)  # fmt: skip
_BY_LOWER = {member.lower(): member for member in MEMBERS}
#: Types whose ``resources`` list the object, then its bucket (``cloudtrail.resources``).
_BUCKETS = {"AWS::S3::Object": "AWS::S3::Bucket", "AWS::S3Express::Object": "AWS::S3Express::DirectoryBucket"}


def canonical(name: str) -> str:
    """Return the name of a field with the member at the top as CloudTrail writes it; deeper ones stay as they are."""
    top, dot, rest = name.partition(".")
    return _BY_LOWER.get(top.lower(), top) + dot + rest


def is_known(name: str) -> bool:
    """Return whether records have a member of this name at their top, as far as AWS documents them."""
    return name.partition(".")[0].lower() in _BY_LOWER


@dataclass(frozen=True)
class Field:
    """SQL of a field, in one of two forms; ``values`` is the list of all its values.

    Of a typed column, ``text`` is the only value, or null if the column does not say it: then there may be values if
    ``gate`` is true, or empty. Of JSON, ``direct`` is the only value, or null if there is none; but where ``gate`` is
    true, only ``values`` says it.
    """

    text: str
    values: str
    gate: str = ""
    direct: str = ""

    def matches(self, predicate: Predicate) -> str:
        """Return the condition that a value meets a predicate; never null."""
        some = f"len(list_filter({self.values}, lambda value: coalesce({predicate('value')}, false))) > 0"
        if self.direct:
            return (
                f"CASE WHEN {self.gate} THEN coalesce({some}, false) ELSE coalesce({predicate(self.direct)}, false) END"
            )
        listed = f"coalesce({self._gated(some)}, false)"
        if not self.text:
            return listed
        return f"CASE WHEN {self.text} IS NOT NULL THEN coalesce({predicate(self.text)}, false) ELSE {listed} END"

    @property
    def exists(self) -> str:
        """The condition that there is a value; never null."""
        some = f"len({self.values}) > 0"
        if self.direct:
            return f"CASE WHEN {self.gate} THEN coalesce({some}, false) ELSE {self.direct} IS NOT NULL END"
        listed = f"coalesce({self._gated(some)}, false)"
        return f"({self.text} IS NOT NULL OR {listed})" if self.text else listed

    @property
    def all_values(self) -> str:
        """The list of all values; never null."""
        if self.direct:
            single = f"CASE WHEN {self.direct} IS NULL THEN [] ELSE [{self.direct}] END"
            return f"CASE WHEN {self.gate} THEN coalesce({self.values}, []) ELSE {single} END"
        listed = f"CASE WHEN {self.gate} THEN {self.values} ELSE [] END" if self.gate else self.values
        listed = f"coalesce({listed}, [])"
        return f"CASE WHEN {self.text} IS NOT NULL THEN [{self.text}] ELSE {listed} END" if self.text else listed

    @property
    def first(self) -> str:
        """The first value, or null: what events are grouped by."""
        return f"({self.all_values})[1]"

    def _gated(self, condition: str) -> str:
        return f"CASE WHEN {self.gate} THEN {condition} ELSE false END" if self.gate else condition


@cache
def field_of(name: str) -> Field:
    """Return the SQL of a field. Raise ValueError if its name cannot be one."""
    if not name or "\0" in name or not all(name.split(".")):
        raise ValueError(f"{name!r} is not the name of a field")
    top, *path = canonical(name).split(".")
    if top in _SPECIAL:
        return _SPECIAL[top](path)
    if top in PLAIN and not path:
        column = _unless_corrected(PLAIN[top], top) if top in _DERIVED else PLAIN[top]
        return Field(column, _values(_VALID_REST, [top]), _in_rest(top))
    return _json_field("rest", [top, *path])


# -- JSON ------------------------------------------------------------------------------------------------------------


def _valid(column: str) -> str:
    # Python's json reads and writes more than JSON (NaN), and somebody else may have made the lake.
    return f"CASE WHEN json_valid({column}) THEN {column} END"


_VALID_REST = _valid("rest")


def _json_path(name: str, prefix: str = "$") -> str:
    return text(f'{prefix}."{_escaped(name)}"')


def _json_field(column: str, path: list[str]) -> Field:
    """Return the field at a path of a column of JSON.

    That it is a list or an object, or that a list is on the way, shows in the text: writers of a lake leave no blanks.
    """
    signs = [text(json.dumps(name, ensure_ascii=False) + ":[") for name in path]
    signs.append(text(json.dumps(path[-1], ensure_ascii=False) + ":{"))
    gate = " OR ".join(f"contains({column}, {sign})" for sign in dict.fromkeys(signs))
    steps = "".join(f'."{_escaped(name)}"' for name in path)
    direct = f"json_extract_string({_valid(column)}, {text('$' + steps)})"
    return Field("", _values(_valid(column), path), f"({gate})", direct)


def _root_field(column: str, path: list[str]) -> Field:
    """Return the field at a path of a column that is a member of its own, and may itself be a list."""
    field = _json_field(column, path)
    return Field("", field.values, f"(starts_with({column}, '[') OR {field.gate})", field.direct)


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')


def _values(source: str, path: list[str]) -> str:
    """Return the list of the values at a path of a JSON text, entering lists."""
    items = f"[CAST({source} AS JSON)]"
    for name in path:
        items = (
            f"flatten(list_transform({items}, lambda item: CASE json_type(item) WHEN 'ARRAY'"
            f" THEN json_extract(item, {_json_path(name, '$[*]')}) ELSE [json_extract(item, {_json_path(name)})] END))"
        )
    items = (
        f"flatten(list_transform({items}, lambda item:"
        " CASE json_type(item) WHEN 'ARRAY' THEN json_extract(item, '$[*]') ELSE [item] END))"
    )
    return (
        f"list_filter(flatten(list_transform({items}, lambda item: CASE WHEN json_type(item) IN ('OBJECT', 'ARRAY')"
        f" THEN [CAST(item AS VARCHAR), {_unescaped('CAST(item AS VARCHAR)')}]"
        " ELSE [json_extract_string(item, '$')] END)), lambda item: item IS NOT NULL)"
    )


def _unescaped(sql: str) -> str:
    return f"""replace({sql}, '\\"', '"')"""


def _in_rest(member: str) -> str:
    return f"contains(rest, {text(json.dumps(member, ensure_ascii=False))})"


def _is_marked(mark: str, member: str) -> str:
    """Return the condition that ``rest`` corrects what the columns say of a member; never null."""
    inside = f"json_contains(json_extract(rest, {_json_path(mark)}), {text(json.dumps(member))})"
    return f"CASE WHEN contains(rest, {text(mark)}) AND json_valid(rest) THEN coalesce({inside}, false) ELSE false END"


def _is_corrected(member: str) -> str:
    """Return the condition that ``rest`` has a member of its own; never null."""
    inside = f"json_exists(rest, {_json_path(member)})"
    return f"CASE WHEN {_in_rest(member)} AND json_valid(rest) THEN {inside} ELSE false END"


def _unless_corrected(column: str, member: str) -> str:
    return f"CASE WHEN {_is_marked(ABSENT, member)} OR {_is_corrected(member)} THEN NULL ELSE {column} END"


# -- members with columns of their own -----------------------------------------------------------------------------


def _event_time(path: list[str]) -> Field:
    value = _unless_corrected("strftime(event_time AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ')", "eventTime")
    return _scalar("eventTime", value, path)


def _read_only(path: list[str]) -> Field:
    return _scalar("readOnly", "CAST(read_only AS VARCHAR)", path)


def _management(path: list[str]) -> Field:
    cases = " ".join(f"WHEN {text(name)} THEN {text(str(flag).lower())}" for name, flag in MANAGEMENT_FLAG.items())
    return _scalar("managementEvent", _unless_corrected(f"CASE event_category {cases} END", "managementEvent"), path)


def _scalar(member: str, column: str, path: list[str]) -> Field:
    return Field("" if path else column, _values(_VALID_REST, [member, *path]), _in_rest(member))


def _identity(path: list[str]) -> Field:
    column = _IDENTITY.get(path[0], "") if len(path) == 1 else ""
    if path and not column and path != ["accountId"]:
        return _json_field("rest", ["userIdentity", *path])
    if path == ["accountId"]:
        # The column may have it from the principal id.
        column = "nullif(principal_account, 'ANONYMOUS_PRINCIPAL')"
    return Field(column, _values(_VALID_REST, ["userIdentity", *path]), _in_rest("userIdentity"))


_OBJECT_KEY = (
    "CASE WHEN starts_with(resource_type, 'AWS::DynamoDB') AND starts_with(object_key, '{') AND json_valid(object_key)"
    " THEN object_key ELSE CAST(to_json(object_key) AS VARCHAR) END"
)
_PARAMETERS = _valid("request_parameters")


def _with_member(source: str, condition: str, name: str, value: str) -> str:
    """Return a JSON text with a member more, where a condition holds and the text is an object without it."""
    lacks = f"json_type({source}) = 'OBJECT' AND NOT json_exists({source}, {_json_path(name)})"
    member = f"""'"{name}":' || {value}"""
    return (
        f"CASE WHEN {condition} AND {lacks} THEN left(json({source}), -1)"
        f""" || CASE WHEN json({source}) = '{{}}' THEN '' ELSE ',' END || {member} || '}}' ELSE {source} END"""
    )


def _all_parameters() -> str:
    implied = f"object_key IS NOT NULL AND NOT {_is_marked(ABSENT, 'requestParameters.key')}"
    return _with_member(_PARAMETERS, implied, "key", _OBJECT_KEY)


def _parameters(path: list[str]) -> Field:
    if path and path[0] != "key":
        return _root_field("request_parameters", path)
    column = ""
    if path == ["key"]:
        column = (
            "CASE WHEN starts_with(request_parameters, '{') AND NOT contains(request_parameters, '\"key\"')"
            f" AND NOT contains(coalesce(rest, ''), {text(ABSENT)})"
            " AND NOT starts_with(coalesce(resource_type, ''), 'AWS::DynamoDB') THEN object_key END"
        )
    return Field(column, _values(_all_parameters(), path), "request_parameters IS NOT NULL")


def _response(path: list[str]) -> Field:
    if not path:
        return Field("", _values(_valid("response_elements"), path), "response_elements IS NOT NULL")
    return _root_field("response_elements", path)


def _additional(path: list[str]) -> Field:
    gate = "additional_event_data IS NOT NULL"
    if not path:
        return Field("", _values(_all_additional(), []), gate)
    if len(path) > 1 or path[0] not in BYTES:
        return _root_field("additional_event_data", path)
    return Field(_count(path[0]), _values(_valid("additional_event_data"), path), gate)


def _count(member: str) -> str:
    mark = f"CASE WHEN {_is_marked(FLOAT, member)} THEN '.0' ELSE '' END"
    return f"CAST({BYTES[member]} AS VARCHAR) || {mark}"


def _all_additional() -> str:
    source = _valid("additional_event_data")
    for member, column in BYTES.items():
        source = _with_member(source, f"{column} IS NOT NULL", member, _count(member))
    return source


def _all_resources() -> str:
    """Return the SQL of ``cloudtrail.resources.canonical_resources``, unless the record says it itself."""
    listed = "to_json(list_transform(resource_arns, lambda arn: {{'accountId': resource_account{kind}, 'ARN': arn}}))"
    containers = " ".join(f"WHEN {text(kind)} THEN {text(bucket)}" for kind, bucket in _BUCKETS.items())
    of_bucket = (
        "json_array(CASE WHEN object_key IS NULL"
        " THEN json_object('type', resource_type, 'ARNPrefix', resource_arn || '/')"
        " ELSE json_object('type', resource_type, 'ARN', resource_arn || '/' || object_key) END,"
        f" json_object('accountId', resource_account, 'type', CASE resource_type {containers} END,"
        " 'ARN', resource_arn))"
    )
    plain, typed = listed.format(kind=""), listed.format(kind=", 'type': resource_type")
    return (
        f"CASE WHEN resources IS NOT NULL THEN {_valid('resources')} WHEN {_is_marked(ABSENT, 'resources')} THEN NULL"
        f" WHEN {_is_corrected('resources')} THEN CAST(json_extract(rest, '$.resources') AS VARCHAR)"
        " WHEN resource_arn IS NULL OR resource_account IS NULL THEN NULL"
        f" WHEN resource_type IS NULL THEN CAST({plain} AS VARCHAR)"
        f" WHEN resource_type IN ({', '.join(map(text, _BUCKETS))}) THEN CAST({of_bucket} AS VARCHAR)"
        f" ELSE CAST({typed} AS VARCHAR) END"
    )


def _resources(path: list[str]) -> Field:
    return Field("", _values(_all_resources(), path))


_SPECIAL: dict[str, Callable[[list[str]], Field]] = {
    "eventTime": _event_time,
    "readOnly": _read_only,
    "managementEvent": _management,
    "userIdentity": _identity,
    "requestParameters": _parameters,
    "responseElements": _response,
    "additionalEventData": _additional,
    "resources": _resources,
}


# -- the whole record ------------------------------------------------------------------------------------------------


@cache
def whole_record() -> str:
    """Return the SQL of all values of a record as one text, a line for each column: what keywords are looked up in."""
    columns = [*PLAIN.values(), "strftime(event_time AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ')"]
    documents = [_all_parameters(), "response_elements", _all_additional(), _all_resources(), "rest"]
    both = [form for sql in documents for form in (sql, _unescaped(sql))]
    return f"concat_ws(chr(10), {', '.join([*columns, *both])})"
