"""Records that went through a table: CSV exports (Athena, Lake, alerts), and query results of Lake and Athena as JSON.

A table turns its values into strings and lowers the case of names. The record is restored as far as possible: columns
and the members of structs get CloudTrail's names, structs as Athena prints them (``{type=Role, arn=...}``), JSON and
Python's ``repr`` in a cell are parsed, ``readOnly`` and ``managementEvent`` become booleans. An empty cell is an absent
member, since tables do not distinguish the two. A column that CloudTrail does not define keeps its name and text.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from trailsift.decode.json_text import INVALID, bytes_of, dump, is_too_deep, parse
from trailsift.decode.limits import LIMITS

#: A cell may hold a whole event and more; Python's own limit is 128 KiB.
csv.field_size_limit(max(csv.field_size_limit(), LIMITS.cell))
#: Depth of nested structs, at most.
_DEPTH = 64


def words(text: str) -> list[str]:
    """Split a list of names that is written as one text."""
    return text.split()


# -- names -----------------------------------------------------------------------------------------------------------

#: The members of a record.
MEMBERS = words(
    "eventVersion userIdentity eventTime eventSource eventName awsRegion sourceIPAddress userAgent errorCode "
    "errorMessage requestParameters responseElements additionalEventData requestID eventID readOnly resources "
    "eventType apiVersion managementEvent recipientAccountId serviceEventDetails sharedEventID vpcEndpointId "
    "vpcEndpointAccountId eventCategory addendum sessionCredentialFromConsole edgeDeviceDetails tlsDetails "
    "insightDetails eventContext"
)
#: Column names, in lower case and without blanks and punctuation, to members of a record.
_COLUMNS = {name.lower(): name for name in MEMBERS} | {
    "vpcendpointid": "vpcEndpointId",
    # Titles that people and consoles use.
    "region": "awsRegion",
    "userid": "userIdentity",
    "eventdatetime": "eventTime",
    "sourceip": "sourceIPAddress",
    "requestuseragent": "userAgent",
}
#: Titles in _COLUMNS that mean the member only if the member itself is not a column.
_ALIASES = frozenset(("region", "userid", "eventdatetime", "sourceip", "requestuseragent"))
#: Columns of the console's Event history, to members of ``userIdentity``; only if that is not a column itself.
_USER_NAME, _ACCESS_KEY = "userIdentity.userName", "userIdentity.accessKeyId"
_IDENTITY = {"username": _USER_NAME, "awsaccesskey": _ACCESS_KEY}
#: Times as the console showed them until 2020: `2019-05-31, 02:24:11 PM`.
_CONSOLE_TIME = re.compile(r"(\d{4}-\d\d-\d\d), (\d\d):(\d\d):(\d\d) (AM|PM)", re.ASCII)
#: Columns that hold the complete record, as JSON.
_WHOLE = frozenset(("cloudtrailevent", "eventjson", "raw", "message", "rawevent"))

_STRUCTS = frozenset(
    words(
        "userIdentity resources tlsDetails addendum edgeDeviceDetails insightDetails eventContext requestParameters "
        "responseElements additionalEventData serviceEventDetails"
    )
)
_BOOLEANS = frozenset(("readOnly", "managementEvent"))

#: Members of the structs, by their names in lower case.
_INNER = {
    name.lower(): name
    for name in words(
        "type principalId arn accountId accessKeyId userName invokedBy sessionContext sessionIssuer attributes "
        "mfaAuthenticated creationDate webIdFederationData federatedProvider ec2RoleDelivery sourceIdentity "
        "assumedRoot identityProvider credentialId onBehalfOf userId identityStoreArn inScopeOf sourceArn "
        "sourceAccount issuerType credentialsIssuedTo credentialsIssuedToVersion tlsVersion cipherSuite "
        "clientProvidedHostHeader keyExchange deviceID reason updatedFields originalRequestID originalEventID"
    )
}
_RESOURCE = _INNER | {"arn": "ARN", "arnprefix": "ARNPrefix"}
#: Free-form members: their names come from the caller and stay as they are.
_AS_THEY_ARE: dict[str, str] = {}
_NAMES = {
    "userIdentity": _INNER,
    "resources": _RESOURCE,
    "tlsDetails": _INNER,
    "addendum": _INNER,
    "edgeDeviceDetails": _INNER,
}


@lru_cache(maxsize=4_096)
def _plain(title: str) -> str:
    return re.sub(r"[^a-z0-9]", "", title.lower())


def members(titles: Sequence[str], least: int = 3) -> list[str] | None:
    """Return the member of a record for each column, or None if fewer than ``least`` columns are members of records."""
    if len(titles) > LIMITS.columns:
        return None
    plain = [_plain(title) for title in titles]
    if not set(plain) & _WHOLE and len({_COLUMNS[name] for name in plain if name in _COLUMNS}) < least:
        return None
    exact = {_COLUMNS[name] for name in plain if name in _COLUMNS and name not in _ALIASES}
    names: list[str] = []
    for title, name in zip(titles, plain, strict=True):
        member = _COLUMNS.get(name)
        if member is None and "userIdentity" not in exact:
            member = _IDENTITY.get(name)
        if member is None or (name in _ALIASES and member in exact) or member in names:
            member = title
        names.append(member)
    return names


# -- cells -----------------------------------------------------------------------------------------------------------


def record(names: Sequence[str], cells: Sequence[Any]) -> dict[str, Any]:
    """Return the record of one row. ``None`` and an empty text are absent members."""
    values: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=True):
        if cell is None or cell == "":
            continue
        if isinstance(cell, str) and _plain(name) in _WHOLE:
            event = parse(cell)
            if isinstance(event, dict):
                return event
        values[name] = _cell(name, cell)
    if _USER_NAME in values or _ACCESS_KEY in values:
        parts = {name.partition(".")[2]: values.pop(name) for name in (_USER_NAME, _ACCESS_KEY) if name in values}
        values.setdefault("userIdentity", parts)
    if "resources" in values:
        _name_resources(values)
    return values


def _name_resources(values: dict[str, Any]) -> None:
    """Give the console's list of resources the form of ``resources``, as far as it has ARNs; what has none stays."""
    listed = values.get("resources")
    if not isinstance(listed, list) or not any(isinstance(each, dict) and "resourceName" in each for each in listed):
        return
    names = [each for each in listed if isinstance(each, dict) and str(each.get("resourceName")).startswith("arn:")]
    if len(names) < len(listed):
        values["Resources"] = listed
    values["resources"] = [{"type": each.get("resourceType"), "ARN": each["resourceName"]} for each in names]
    if not names:
        del values["resources"]


def _cell(name: str, cell: Any) -> Any:
    if not isinstance(cell, str):
        # Athena's JSON has structs as objects, filled up with nulls.
        return _renamed(_without_nulls(cell), _NAMES[name]) if name in _NAMES else cell
    if name == "eventTime" and (shown := _CONSOLE_TIME.fullmatch(cell)):
        day, hour, minute, second, half = shown.groups()
        return f"{day}T{int(hour) % 12 + 12 * (half == 'PM'):02}:{minute}:{second}Z"
    if name in _BOOLEANS:
        return {"true": True, "false": False}.get(cell.lower(), cell)
    if name in _STRUCTS:
        try:
            return _struct(cell, _NAMES.get(name, _AS_THEY_ARE))
        except RecursionError:
            return cell
    return cell


#: Members that are objects or lists in CloudTrail's records, and that columns are derived from.
_DERIVED = ("userIdentity", "requestParameters", "additionalEventData", "resources")


def opened(values: dict[str, Any]) -> dict[str, Any]:
    """Return a record with objects where an export has put their texts (JSON, or what Python prints).

    It is the same record if it has no such texts.
    """
    for name in _DERIVED:
        if isinstance(values.get(name), str) and isinstance(_opened(name, values[name]), dict | list):
            break
    else:
        return values
    # Whoever made texts of these made texts of all members.
    return {name: _opened(name, value) for name, value in values.items()}


def _opened(name: str, value: Any) -> Any:
    """Return what a text of a member prints; the text itself if that is nothing, or too deep for a record."""
    return _cell(name, value) if isinstance(value, str) and not is_too_deep(bytes_of(value)) else value


def _struct(cell: str, names: dict[str, str]) -> Any:
    """Return the value that a cell prints; the text itself if it has no known form."""
    text = cell.strip()
    value = parse(text)
    if value is INVALID and text[:1] in ("{", "[") and len(text) <= LIMITS.struct:
        # The order does not matter: `{}` and `[]` are JSON, and no other text is both a repr and a printed struct.
        value = _literal(text)
        if value is INVALID:
            value = _StructParser(text).value()
    if isinstance(value, dict | list) or value is None:
        return _renamed(value, names)
    return cell


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if not names:
        return value
    if isinstance(value, dict):
        return {names.get(name.lower(), name): _renamed(inner, names) for name, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, names) for inner in value]
    return value


#: Nothing but Python literals: a text that matches is safe to parse.
_STRING = r"""u?'(?:[^'\\]|\\.)*+'|u?"(?:[^"\\]|\\.)*+\""""
_STRINGS = re.compile(_STRING, re.DOTALL)
_LITERALS = re.compile(rf"(?:{_STRING}|[\s{{}}\[\]:,]|-?\d[\d.]*(?:e[+-]?\d+)?|True|False|None)*+", re.DOTALL)


def _literal(text: str) -> Any:
    """Return the dict or list that Python's ``repr`` printed, or INVALID."""
    if not _LITERALS.fullmatch(text) or _nesting(_STRINGS.sub("", text)) > _DEPTH:
        return INVALID
    try:
        value = ast.literal_eval(text)
        return value if isinstance(value, dict | list) and parse(dump(value)) == value else INVALID
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return INVALID


def _nesting(text: str) -> int:
    deepest = depth = 0
    for sign in text:
        if sign in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "}]":
            depth -= 1
    return deepest


_NEXT = re.compile(r", (?=[A-Za-z_][\w.:/-]*=)")
_NAME = re.compile(r"([A-Za-z_][\w.:/-]*)=")
#: The beginning of JSON inside a printed struct.
_JSON = re.compile(r'\{"|\["|\[\{"')
_decoder = json.JSONDecoder()


class _NotAStruct(ValueError):
    """The text is not a printed struct."""


class _StructParser:
    """Parses structs, arrays and maps as Athena and Lake print them: ``{a=1, b={c=x}, d=[y, z]}``, without quotes.

    A value ends before ``, name=`` or the bracket that closes its struct. A text whose brackets do not match is not a
    struct.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        #: Where the next bracket of each kind was found: looking for it again for each value would be quadratic.
        self._brackets = {"}": -1, "]": -1}

    def value(self) -> Any:
        """Return the value, or INVALID."""
        try:
            value = self._any("", _DEPTH)
        except _NotAStruct:
            return INVALID
        return value if self.at == len(self.text) else INVALID

    def _any(self, inside: str, depth: int) -> Any:
        sign = self.text[self.at : self.at + 1]
        if depth == 0:
            raise _NotAStruct
        if inside and _JSON.match(self.text, self.at):
            return self._json()
        if sign == "{":
            return self._object(depth - 1)
        if sign == "[":
            return self._array(depth - 1)
        return self._scalar(inside)

    def _json(self) -> str:
        """Lake's maps hold texts: an object of the record is JSON there, and stays that text."""
        start = self.at
        try:
            _, self.at = _decoder.raw_decode(self.text, start)
        except (ValueError, RecursionError) as error:
            raise _NotAStruct from error
        return self.text[start : self.at]

    def _object(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        self.at += 1
        if self._closes("}"):
            return values
        while True:
            match = _NAME.match(self.text, self.at)
            if match is None:
                raise _NotAStruct
            self.at = match.end()
            value = self._any("{", depth)
            # A table fills absent members with null.
            if value is not None:
                values[match[1]] = value
            if self._closes("}"):
                return values
            if not self.text.startswith(", ", self.at):
                raise _NotAStruct
            self.at += 2

    def _array(self, depth: int) -> list[Any]:
        values: list[Any] = []
        self.at += 1
        if self._closes("]"):
            return values
        while True:
            values.append(self._any("[", depth))
            if self._closes("]"):
                return values
            if not self.text.startswith(", ", self.at):
                raise _NotAStruct
            self.at += 2

    def _closes(self, sign: str) -> bool:
        if self.at >= len(self.text):
            raise _NotAStruct
        if self.text[self.at] != sign:
            return False
        self.at += 1
        return True

    def _scalar(self, inside: str) -> str | None:
        bracket = "}" if inside == "{" else "]"
        close = self._brackets[bracket]
        if close < self.at:
            close = self.text.find(bracket, self.at)
            self._brackets[bracket] = close if close >= 0 else len(self.text)
        if close == len(self.text):
            close = -1
        if close < 0 or not inside:
            raise _NotAStruct
        if inside == "{":
            follows = _NEXT.search(self.text, self.at, close + 1)
            end = follows.start() if follows else close
        else:
            comma = self.text.find(", ", self.at, close)
            end = comma if comma >= 0 else close
        text = self.text[self.at : end]
        self.at = end
        return None if text == "null" else text


# -- CSV -------------------------------------------------------------------------------------------------------------


class TableRow(NamedTuple):
    """One row of a table: its record, or the reason if it has none; its text, and whether it is the last row."""

    record: dict[str, Any] | None
    reason: str
    text: str
    last: bool


#: A text whose first line is longer than this is not a table of records.
HEADER_LIMIT = 64 * 1024


def has_header(text: str) -> bool:
    """Return whether a text begins with the header of a table of records."""
    return _header(text) is not None


def _header(text: str) -> tuple[str, list[str], list[str]] | None:
    """Return the delimiter, the titles, and the member of a record for each title; None if there is no header."""
    head = text[: text.find("\n", 0, HEADER_LIMIT) + 1 or HEADER_LIMIT].rstrip("\r\n")
    for delimiter in ",\t;|":
        try:
            titles = next(csv.reader([head], delimiter=delimiter), [])
        except csv.Error:
            continue
        names = members(titles)
        if names is not None:
            return delimiter, titles, names
    return None


def read_csv(text: str) -> Iterator[TableRow] | None:
    """Yield the rows of a table of records with a header; return None if the text is not such a table."""
    header = _header(text)
    return None if header is None else _rows(text, *header)


def _rows(text: str, delimiter: str, titles: list[str], names: list[str]) -> Iterator[TableRow]:
    source = io.StringIO(text, newline="")
    #: The lines of the row at hand.
    row_lines: list[str] = []

    def lines() -> Iterator[str]:
        for line in source:
            row_lines.append(line)
            yield line

    reader = csv.reader(lines(), delimiter=delimiter)
    while True:
        row_lines.clear()
        reason = ""
        cells: list[str] = []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = f"not CSV: {error}"
        # Blank lines, and the header again if files were joined.
        if not reason and (not cells or cells == titles):
            continue
        if not reason and len(cells) != len(titles):
            reason = f"a row of {len(cells)} cells under {len(titles)} columns"
        values = None if reason else record(names, cells)
        yield TableRow(values, reason, "".join(row_lines), source.tell() >= len(text))


# -- rows as JSON objects, and query results -------------------------------------------------------------------------


def lower_case_row(value: dict[str, Any]) -> list[Any] | None:
    """Return the record of a row that Athena wrote as JSON (UNLOAD), with all names in lower case."""
    if not isinstance(value.get("eventtime"), str) or not isinstance(value.get("eventname"), str):
        return None
    names = members(list(value))
    if names is None:
        return None
    try:
        return [record(names, list(value.values()))]
    except RecursionError:
        return None


def lake_rows(value: dict[str, Any]) -> list[Any] | None:
    """Return the rows of CloudTrail Lake's GetQueryResults, each a list of objects with one member."""
    rows = value.get("QueryResultRows")
    if not isinstance(rows, list):
        return None
    return [_lake_row(row) for row in rows]


def _lake_row(row: Any) -> Any:
    if not isinstance(row, list) or not all(isinstance(cell, dict) for cell in row):
        return row
    pairs = [pair for cell in row for pair in cell.items()]
    titles = [title for title, _ in pairs]
    return record(members(titles, 1) or titles, [cell for _, cell in pairs])


def athena_rows(value: dict[str, Any]) -> list[Any] | None:
    """Return the rows of Athena's GetQueryResults, whose first row is the header."""
    result = value.get("ResultSet")
    rows = result.get("Rows") if isinstance(result, dict) else None
    if not isinstance(rows, list) or not rows:
        return None
    cells = [_athena_cells(row) for row in rows]
    titles = [str(title) for title in cells[0] or []]
    names = members(titles, 1)
    if names is None:
        return None
    return [
        record(names, row) if row is not None and len(row) == len(names) else raw
        for row, raw in zip(cells[1:], rows[1:], strict=True)
    ]


def _athena_cells(row: Any) -> list[Any] | None:
    data = row.get("Data") if isinstance(row, dict) else None
    if not isinstance(data, list):
        return None
    return [cell.get("VarCharValue") if isinstance(cell, dict) else None for cell in data]


def insights_rows(value: dict[str, Any]) -> list[Any] | None:
    """Return the message of each row of CloudWatch Logs Insights."""
    rows = value.get("results")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        return None
    return [_insights_message(row) for row in rows]


def _insights_message(row: list[Any]) -> Any:
    fields = {str(cell.get("field")): cell.get("value") for cell in row if isinstance(cell, dict)}
    return fields.get("@message", fields)
