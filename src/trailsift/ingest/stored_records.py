"""Stored events of format version 1 -> the JSON texts of their records, a column at a time.

It gives what ``decode.record.restore`` gives, as text in the order of CloudTrail's members, so that the C scanner reads
it as it reads log files. A row that is not certain to be right gets no text: ``restore`` does it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift.cloudtrail.categories import MANAGEMENT_FLAG
from trailsift.cloudtrail.resources import TouchedResources, canonical_resources
from trailsift.columns.arrays import Ids, Ints, Mask
from trailsift.columns.group_by import DictionaryColumn, GroupBy, filled
from trailsift.decode.json_text import dump, parse
from trailsift.decode.record import ABSENT, BYTES, FLOAT, PLAIN
from trailsift.times import DAY

#: The members of a record in the order in which CloudTrail writes them.
_ORDER = (
    *("eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "awsRegion", "sourceIPAddress"),
    *("userAgent", "errorCode", "errorMessage", "requestParameters", "responseElements", "additionalEventData"),
    *("requestID", "readOnly", "resources", "eventType", "managementEvent", "recipientAccountId"),
    *("sharedEventID", "vpcEndpointId", "eventCategory"),
)
#: Stands for the object key in ``resources``.
_SLOT = "\u2e28trailsift key\u2e29"
_NULL_IS_EMPTY = pc.JoinOptions(null_handling="replace", null_replacement="")
#: A character that JSON escapes.
_ESCAPED = r'["\\\x00-\x1f]'
_ESCAPED_BYTES = bytes(range(0x20)) + b'"\\'
_USER = '{"userIdentity":'
_KEY = "requestParameters.key"
_raw_decode = json.JSONDecoder().raw_decode
_skip = msgspec.json.Decoder(msgspec.Raw).decode


def record_texts(rows: pa.Table, first: int) -> pa.Array:
    """Return the JSON text of each row's record, with a comma at its end; null for a row in doubt.

    ``rows``: stored events, in one chunk per column. In place of its event id, each record has ``place_id`` of its
    place, counted from ``first``.
    """
    rests = _Rests(_array(rows, "rest"))
    doubt = ~rests.is_plain[rests.of_row] | rests.hides("eventID") | _invalid(_array(rows, "event_id"))
    members: dict[str, pa.Array] = {
        member: _texts(member, _array(rows, column)) for member, column in PLAIN.items() if member != "eventID"
    }
    members["eventTime"], odd = _times(_array(rows, "event_time"))
    doubt |= odd & ~rests.hides("eventTime")
    members["readOnly"] = pc.if_else(_array(rows, "read_only"), '"readOnly":true,', '"readOnly":false,')
    members["managementEvent"] = _mapped(
        _array(rows, "event_category"),
        lambda names: [_flag(MANAGEMENT_FLAG.get(name)) for name in names],
    )
    keys = _Keys(rows)
    members["requestParameters"], odd = _parameters(_array(rows, "request_parameters"), keys, rests.hides(_KEY))
    doubt |= odd
    response = pc.fill_null(_filled(_array(rows, "response_elements")), "null")
    members["responseElements"] = _joined('"responseElements":', response, ",")
    members["additionalEventData"], odd = _additional(rows, rests)
    doubt |= odd
    members["resources"] = _resources(rows, keys)
    for member, column in members.items():
        hidden = rests.hides(member)
        if hidden.any():
            members[member] = pc.if_else(pa.array(hidden), pa.scalar(None, pa.string()), column)
    members["userIdentity"] = rests.users()
    parts = ["{", *(members[member] for member in _ORDER), rests.tails(), _place_ids(first, len(doubt))]
    text = pc.binary_join_element_wise(*parts, "", options=_NULL_IS_EMPTY)
    return pc.if_else(pa.array(doubt), pa.scalar(None, pa.string()), text) if doubt.any() else text


_ID = '"eventID":"00000000-0000-0000-0000-{:012x}"}},'
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def _place_ids(first: int, rows: int) -> pa.Array:
    """Return the ends of records: ids in the form of UUIDs whose last digits are the place."""
    text = np.tile(np.frombuffer(_ID.format(0).encode(), np.uint8), (rows, 1))
    places = np.arange(first, first + rows)
    for digit in range(12):
        text[:, -4 - digit] = _HEX[places >> (4 * digit) & 15]
    ends = np.arange(rows + 1, dtype=np.int32) * text.shape[1]
    return pa.Array.from_buffers(pa.string(), rows, [None, pa.py_buffer(ends), pa.py_buffer(text.tobytes())])


def places_of(ids: Ids) -> Ints:
    """Return the places of event ids that ``record_texts`` gave; -1 for others."""
    words = np.frombuffer(ids.tobytes(), ">u8").reshape(-1, 2)
    return np.where((words[:, 0] == 0) & (words[:, 1] < 1 << 48), words[:, 1], np.uint64(1 << 63)).astype(np.int64)


# -- rest ------------------------------------------------------------------------------------------------------------


class _Rest(NamedTuple):
    """A ``rest``: texts of its members, the members that the columns do not give, and the byte counts that are floats.

    ``is_plain``: whether that is all there is.
    """

    user: str | None = None
    tail: str | None = None
    hidden: frozenset[str] = frozenset()
    floats: frozenset[str] = frozenset()
    is_plain: bool = True


_ODD_REST = _Rest(is_plain=False)


class _Rests:
    """The distinct values of ``rest``, and which of them each row has."""

    def __init__(self, column: pa.Array) -> None:
        codes = DictionaryColumn(_trimmed(column))
        self.of_row: Ints = codes.codes
        self._values = [_Rest(), *map(_rest, codes.texts)]
        self.is_plain: Mask = np.array([value.is_plain for value in self._values])
        self._hidden = frozenset().union(*(value.hidden for value in self._values))

    def hides(self, member: str) -> Mask:
        """Return for each row whether a member is absent, or not what the columns say."""
        if member not in self._hidden:
            return np.zeros(len(self.of_row), bool)
        hidden: Mask = np.array([member in value.hidden for value in self._values])
        return hidden[self.of_row]

    def has_float(self, member: str) -> Mask:
        """Return for each row whether a byte count is written as a float."""
        floats: Mask = np.array([member in value.floats for value in self._values])
        return floats[self.of_row]

    def users(self) -> pa.Array:
        """Return the member ``userIdentity`` of each row."""
        return self._each([value.user and f'"userIdentity":{value.user},' for value in self._values])

    def tails(self) -> pa.Array:
        """Return all other members of ``rest`` of each row."""
        return self._each([value.tail and value.tail + "," for value in self._values])

    def _each(self, values: Sequence[str | None]) -> pa.Array:
        return pa.array(values, pa.string()).take(pa.array(self.of_row))


@lru_cache(20_000)
def _rest(text: str) -> _Rest:
    user, rest = None, text
    if text.startswith(_USER):
        # As it stands: a session's text is read in a third of the time, and stays the same.
        try:
            _, end = _raw_decode(text, len(_USER))
        except (ValueError, RecursionError):
            return _ODD_REST
        user, rest = text[len(_USER) : end], "{" + text[end:].lstrip(",")
    tail = _tail(rest)
    if user is None or not tail.is_plain:
        return tail
    return (
        _ODD_REST if "userIdentity" in tail.hidden else tail._replace(user=user, hidden=tail.hidden | {"userIdentity"})
    )


@lru_cache(10_000)
def _tail(text: str) -> _Rest:
    members = parse(text)
    if not isinstance(members, dict):
        return _ODD_REST
    absent, floats = members.pop(ABSENT, []), members.pop(FLOAT, [])
    for marks in (absent, floats):
        if not isinstance(marks, list) or not all(isinstance(name, str) for name in marks):
            return _ODD_REST
    # A name like a mark is escaped.
    if any(ABSENT in name or FLOAT in name for name in members):
        return _ODD_REST
    return _Rest(None, dump(members)[1:-1] or None, frozenset({*absent, *members}), frozenset(floats))


# -- members ---------------------------------------------------------------------------------------------------------


def _array(rows: pa.Table, name: str) -> pa.Array:
    return rows.column(name).chunk(0)


def _trimmed(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return a column whose dictionary holds its own values only, if most of them are those of other rows."""
    if 2 * len(column.dictionary) <= len(column):
        return column
    codes = filled(column.indices)
    used, place = np.unique(codes, return_inverse=True)
    nulls = int(len(used) > 0 and used[0] < 0)
    indices = pa.array((place - nulls).astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, column.dictionary.take(pa.array(used[nulls:])))


def _joined(*parts: Any) -> pa.Array:
    """Return texts put together; null if a part is null."""
    return pc.binary_join_element_wise(*parts, "")


def _invalid(column: pa.Array) -> Mask:
    mask: Mask = np.asarray(pc.is_null(column))
    return mask


def _filled(column: pa.Array) -> pa.Array:
    """Return texts, with null for empty ones."""
    return pc.if_else(pc.greater(pc.binary_length(column), 0), column, pa.scalar(None, pa.string()))


def _mapped(column: pa.Array, function: Callable[[list[str]], list[str | None]]) -> pa.Array:
    """Return a text for each row by the distinct values of a column; null for null."""
    encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
    return pa.array(function(encoded.dictionary.to_pylist()), pa.string()).take(encoded.indices)


def _flag(value: bool | None) -> str | None:
    return None if value is None else f'"managementEvent":{"true" if value else "false"},'


def _escaped(values: pa.Array) -> pa.Array:
    """Return texts as they stand between the quotes of a JSON string."""
    data = values.buffers()[2]
    if data is None or len(data) == len(bytes(data).translate(None, _ESCAPED_BYTES)):
        return values
    mask = pc.fill_null(pc.match_substring_regex(values, _ESCAPED), False)
    if not pc.any(mask).as_py():
        return values
    return pc.replace_with_mask(
        values, mask, pa.array([dump(text)[1:-1] for text in values.filter(mask).to_pylist()], pa.string())
    )


def _texts(member: str, column: pa.Array) -> pa.Array:
    """Return a member with the texts of a column; null for null."""
    if isinstance(column, pa.DictionaryArray):
        return _texts(member, column.dictionary).take(column.indices)
    return _joined(f'"{member}":"', _escaped(column), '",')


def _times(column: pa.Array) -> tuple[pa.Array, Mask]:
    """Return the member ``eventTime``, and the rows whose time no record has."""
    time = np.asarray(column.cast(pa.int64()))
    odd: Mask = (time < _FIRST) | (time >= _END)
    days, which = np.unique(np.where(odd, _FIRST, time) // DAY, return_inverse=True)
    dates = pa.array([f'"eventTime":"{np.datetime64(day, "D")}T' for day in days.tolist()]).take(pa.array(which))
    return _joined(dates, _clock().take(pa.array(time % DAY // 1_000_000))), odd


#: The years 2001 to 9999.
_FIRST, _END = 978_307_200_000_000, 253_402_300_800_000_000


@cache
def _clock() -> pa.Array:
    """Return each second of a day as it ends a time."""
    seconds = np.datetime_as_string(np.arange(86_400).astype("datetime64[s]"))
    return pa.array([f'{text[11:]}Z",' for text in seconds.tolist()])


class _Keys:
    """The object keys of rows: as they stand inside a string, and as JSON; ``odd``: objects that are not JSON."""

    def __init__(self, rows: pa.Table) -> None:
        self.column = _array(rows, "object_key")
        kinds = DictionaryColumn(_array(rows, "resource_type"))
        is_dynamodb = np.array([False, *(kind.startswith("AWS::DynamoDB") for kind in kinds.texts)])[kinds.codes]
        is_item: Mask = is_dynamodb & np.asarray(pc.fill_null(pc.starts_with(self.column, "{"), False))
        self.odd: Mask = np.zeros(len(self.column), bool)
        #: Null for objects, which are the keys of no ARN.
        self.escaped = self.column
        if is_item.any():
            self.escaped = pc.if_else(pa.array(is_item), pa.scalar(None, pa.string()), self.column)
        self.escaped = _escaped(self.escaped)
        self.json = _joined('"', self.escaped, '"')
        if is_item.any():
            places = np.flatnonzero(is_item)
            self.odd[places] = [not _is_json(text) for text in self.column.take(pa.array(places)).to_pylist()]
            self.json = pc.if_else(pa.array(is_item), self.column, self.json)


def _is_json(text: str) -> bool:
    try:
        _skip(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _parameters(column: pa.Array, keys: _Keys, keyless: Mask) -> tuple[pa.Array, Mask]:
    """Return the member ``requestParameters`` with the object key in it, and the rows in doubt."""
    codes = DictionaryColumn(_trimmed(column))
    texts = [None, *codes.texts]
    takes_key: Mask = np.array([text is not None and _takes_key(text) for text in texts])[codes.codes]
    inserted: Mask = takes_key & ~_invalid(keys.column) & ~keyless
    which = pa.array(codes.codes)
    plain = pa.array([f'"requestParameters":{text or "null"},' for text in texts], pa.string()).take(which)
    if not inserted.any():
        return plain, inserted
    after = [None if not text else "}," if text == "{}" else f",{text[1:]}," for text in texts]
    with_key = _joined('"requestParameters":{"key":', keys.json, pa.array(after, pa.string()).take(which))
    return pc.if_else(pa.array(inserted), with_key, plain), inserted & keys.odd


def _takes_key(text: str) -> bool:
    """Return whether parameters are an object without a key of their own."""
    if not text.startswith("{"):
        return False
    # A code in a name could spell it, too.
    if '"key"' not in text and "\\u" not in text:
        return True
    value = parse(text)
    return isinstance(value, dict) and "key" not in value


def _additional(rows: pa.Table, rests: _Rests) -> tuple[pa.Array, Mask]:
    """Return the member ``additionalEventData`` with the byte counts in it, and the rows in doubt."""
    column = _filled(_array(rows, "additional_event_data"))
    counts = []
    for member, name in BYTES.items():
        end = pc.if_else(pa.array(rests.has_float(member)), ".0,", ",")
        counts.append(_joined(f'"{member}":', _array(rows, name).cast(pa.string()), end))
    after = pc.binary_replace_slice(column, 0, 1, "")
    is_object = pc.starts_with(column, "{")
    parts = ['"additionalEventData":{', *counts, after, ","]
    text = pc.binary_join_element_wise(*parts, "", options=_NULL_IS_EMPTY)
    is_empty = pc.equal(after, "}")
    if pc.any(is_empty).as_py():
        text = pc.if_else(is_empty, pc.replace_substring(text, ",},", "},"), text)
    text = pc.if_else(is_object, text, _joined('"additionalEventData":', column, ","))
    return text, _holds(column, "bytesTransferred") | _holds(column, "\\u")


def _holds(column: pa.Array, text: str) -> Mask:
    """Return which texts have another one in them."""
    data = column.buffers()[2]
    if data is None or text.encode() not in bytes(data):
        return np.zeros(len(column), bool)
    found: Mask = np.asarray(pc.fill_null(pc.match_substring(column, text), False))
    return found


# -- resources -------------------------------------------------------------------------------------------------------


def _resources(rows: pa.Table, keys: _Keys) -> pa.Array:
    """Return the member ``resources``: as stored, else what the typed columns imply."""
    stored = _filled(_array(rows, "resources"))
    names = ("resource_type", "resource_arn", "resource_account")
    columns = [DictionaryColumn(_array(rows, name)) for name in names]
    groups = GroupBy([(column.codes, column.size) for column in columns])
    distinct = zip(*(column.take(groups.first).to_pylist() for column in columns), strict=True)
    parts = [_implied(*each) for each in distinct]
    which = pa.array(groups.of_row)
    before, after, whole = (pa.array([part[at] for part in parts], pa.string()).take(which) for at in range(3))
    implied = pc.coalesce(_joined(before, keys.escaped, after), whole)
    listed = np.array([part[3] for part in parts])[groups.of_row] & _invalid(stored)
    lists = np.flatnonzero(listed & ~_is_alone(_array(rows, "resource_arns"), _array(rows, "resource_arn")))
    column = pc.coalesce(stored, implied)
    if len(lists):
        # Several resources, or none.
        chosen = rows.select([*names, "resource_arns", "object_key"]).take(pa.array(lists)).to_pylist()
        mask = np.zeros(len(column), bool)
        mask[lists] = True
        column = pc.replace_with_mask(column, pa.array(mask), pa.array(list(map(_listed, chosen)), pa.string()))
    return _joined('"resources":', column, ",")


def _implied(kind: str | None, arn: str | None, account: str | None) -> tuple[str | None, str | None, str | None, bool]:
    """Return the text of ``resources`` before and after the object key, that without a key, and if ARNs are listed."""
    whole = canonical_resources(TouchedResources(kind, arn, (arn or "",), account, None))
    if whole is None:
        return None, None, None, False
    with_key = canonical_resources(TouchedResources(kind, arn, (arn or "",), account, _SLOT))
    before, found, after = dump(with_key).partition(_SLOT)
    return (before, after, dump(whole), False) if found else (None, None, dump(whole), True)


def _is_alone(lists: pa.Array, values: pa.Array) -> Mask:
    """Return which lists have one text, and that is the value beside it."""
    sizes = np.asarray(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)
    texts = pc.list_flatten(lists)
    alone = sizes == 1
    starts = np.cumsum(sizes) - sizes
    first = texts.take(pa.array(starts, mask=~alone))
    plain = values.cast(pa.string()) if isinstance(values, pa.DictionaryArray) else values
    equal: Mask = np.asarray(pc.fill_null(pc.equal(first, plain), False))
    return equal


def _listed(row: dict[str, Any]) -> str | None:
    arns = tuple(row["resource_arns"] or ())
    touched = TouchedResources(
        row["resource_type"], row["resource_arn"], arns, row["resource_account"], row["object_key"]
    )
    resources = canonical_resources(touched)
    return None if resources is None else dump(resources)
