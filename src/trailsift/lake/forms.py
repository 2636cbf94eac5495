"""The forms of everything that a lake may name: paths, locations, properties, times and numbers.

A lake may come from somebody else, so what it says is data: a path is used only if it has one of the forms that are
written here, lies in the lake, and leads through no link. Nothing else is opened, and only names that trailsift or
PyIceberg made are deleted.

Forms of paths, relative to the lake:

- ``TABLE/data/KEY=VALUE/.../NAME.parquet``: data files; ours are named by 32 hexadecimal digits
- ``TABLE/metadata/NAME``: Iceberg's metadata (``.metadata.json``), manifest lists and manifests (``.avro``)
- ``seen/NAME.ids``: event ids, named by 32 hexadecimal digits
- ``objects/NAME.objects``: names of log objects, named by 32 hexadecimal digits

Nothing here imports PyIceberg, pyarrow or DuckDB: a cold query must not pay for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from trailsift.errors import LakeError
from trailsift.lake.home import home
from trailsift.schema import TABLES
from trailsift.storage.links import Links

#: The folder of event ids.
SEEN_FOLDER = "seen"
#: The folder of the names of log objects.
OBJECTS_FOLDER = "objects"
#: Bytes of an event id in a file of ids: its hash, and the checksum of its record.
ID_BYTES = 22
#: The same in files of format version 1.
ID_BYTES_1 = 20

#: What the name of a file or folder may consist of: no control character, no quote, no wildcard, no backslash.
_NAME = r"""(?!\.)[^/\\*?\[\]{}'"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,255}"""
_HEX = r"[0-9a-f]{32}"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TABLE = f"(?:{'|'.join(TABLES)})"
#: The names of nearly all files. The whole alphabet takes a millisecond to compile, so ``re`` does that at first use.
_PLAIN_NAME = r"(?!\.)[\w=.%:+@-]{1,255}"
_PLAIN_DATA = re.compile(rf"({_TABLE})/data/(?:{_PLAIN_NAME}/){{0,8}}{_PLAIN_NAME}\.parquet", re.ASCII)
_DATA = rf"({_TABLE})/data/(?:{_NAME}/){{0,8}}{_NAME}\.parquet"
_PLAIN_METADATA = re.compile(rf"({_TABLE})/metadata/{_PLAIN_NAME}(?:\.metadata\.json|\.avro)", re.ASCII)
_METADATA = rf"({_TABLE})/metadata/{_NAME}(?:\.metadata\.json|\.avro)"
_IDS = re.compile(rf"{SEEN_FOLDER}/{_HEX}\.ids")
_OBJECTS = re.compile(rf"{OBJECTS_FOLDER}/{_HEX}\.objects")
#: Names that trailsift gives to data files, and those that PyIceberg and Spark give. Only writers need them.
_OWN_DATA = rf"{_TABLE}/data/(?:{_NAME}/){{0,8}}{_HEX}\.parquet"
_ENGINE_DATA = rf"{_TABLE}/data/(?:{_NAME}/){{0,8}}[0-9]{{5}}-[0-9]{{1,10}}-{_UUID}(?:-[0-9]{{5}})?\.parquet"
_OWN_METADATA = (
    rf"{_TABLE}/metadata/(?:[0-9]{{5,10}}-{_UUID}(?:\.gz)?\.metadata\.json|snap-[0-9]{{1,20}}-[0-9]{{1,10}}-{_UUID}\.avro"
    rf"|{_UUID}-m[0-9]{{1,10}}\.avro)"
)
_MAX_PATH = 2048
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3}(?:\d{3})?)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_SCHEMES = ("file://", "file:")

#: Microseconds of the years 1 to 9999, and what stands for "any time" where another engine recorded none.
MIN_TIME, MAX_TIME = -62_135_596_800_000_000, 253_402_300_799_999_999
ANY_TIME = 1 << 62
#: The largest number of a commit, and of rows or bytes.
MAX_NUMBER = 1 << 53
#: The longest text in the index: a role, a service.
MAX_TEXT = 100_000

#: Stretches of days that one commit of retention may name.
_MAX_STRETCHES = 10_000

#: Numbers among a commit's counts that are added up.
_COUNTED = ("log_objects", "records", "stored", "duplicates", "malformed")

#: Properties that are kept when a table is loaded, and the values that they may have. PyIceberg obeys many others:
#: ``py-io-impl`` and ``write.py-location-provider.impl`` name code to import, ``write.*.path`` places to write to.
_PROPERTIES = {
    "write.parquet.compression-codec": "zstd|snappy|gzip|uncompressed",
    "commit.manifest-merge.enabled": "true|false",
    "commit.manifest.min-count-to-merge": "[0-9]{1,6}",
    "write.metadata.delete-after-commit.enabled": "true|false",
    "write.metadata.previous-versions-max": "[0-9]{1,6}",
    "commit.retry.num-retries": "[0-9]{1,2}",
    "comment": r"(?s).{0,10000}",
    "trailsift.relocated-from": r"(?s).{0,10000}",
}


class Problem(NamedTuple):
    """Something in a lake that has not the form which trailsift writes: the object, and what is wrong with it."""

    where: str
    what: str


# -- paths -------------------------------------------------------------------------------------------------------------


def data_path(table: str, path: object) -> str:
    """Return the path of a data file of ``table``. LakeError if it has another form."""
    match = _data(path) if isinstance(path, str) else None
    if match is None or match[1] != table:
        raise LakeError(
            f"the catalog names {_shown(path)} as a data file of the table {table}: it must be "
            f"{table}/data/....parquet within the lake. {_UNTRUSTED}"
        )
    return match[0]


def data_location(root: Path, table: str, location: object) -> str:
    """Return the path in the lake of a data file as Iceberg names it. LakeError if it lies elsewhere."""
    path = relative(root, location)
    if path is None:
        raise LakeError(
            f"{_shown(location)} belongs to the table {table} but lies outside the lake {root}. {_UNTRUSTED}"
        )
    return data_path(table, path)


def _data(path: str) -> re.Match[str] | None:
    """Return the match of a data file's path, with its table as the first group."""
    return (_PLAIN_DATA.fullmatch(path) or re.fullmatch(_DATA, path)) if len(path) <= _MAX_PATH else None


def ids_path(path: object) -> str:
    """Return the path of a file of event ids. LakeError if it has another form."""
    if not isinstance(path, str) or _IDS.fullmatch(path) is None:
        raise LakeError(
            f"the catalog names {_shown(path)} as a file of event ids: it must be {SEEN_FOLDER}/....ids within the "
            f"lake. {_UNTRUSTED}"
        )
    return path


def objects_path(path: object) -> str:
    """Return the path of a file of names of log objects. LakeError if it has another form."""
    if not isinstance(path, str) or _OBJECTS.fullmatch(path) is None:
        raise LakeError(
            f"the catalog names {_shown(path)} as a file of log objects: it must be {OBJECTS_FOLDER}/....objects "
            f"within the lake. {_UNTRUSTED}"
        )
    return path


def metadata_path(root: Path, table: str, location: object) -> str:
    """Return the path in the lake of a metadata file, a manifest list or a manifest of ``table``.

    LakeError if the location is not within the table's folder of metadata: another folder, another scheme.
    """
    path = relative(root, location)
    match = None
    if path is not None and len(path) <= _MAX_PATH:
        match = _PLAIN_METADATA.fullmatch(path) or re.fullmatch(_METADATA, path)
    if match is None or match[1] != table:
        raise LakeError(
            f"the table {table} names {_shown(location)} as its metadata, which is not in {root}/{table}/metadata. "
            f"{_UNTRUSTED}"
        )
    return match[0]


def iceberg_path(root: Path, location: object) -> str:
    """Return the path in the lake of a file that Iceberg's metadata may name: metadata, or data. LakeError if not."""
    path = relative(root, location)
    table = (path or "").partition("/")[0]
    if path is not None and _data(path):
        return path
    return metadata_path(root, table or "?", location)


def relative(root: Path, location: object) -> str | None:
    """Return the path in the lake of a location as Iceberg writes it; None if it lies elsewhere."""
    if not isinstance(location, str):
        return None
    place, here = location, home(root)
    for scheme in _SCHEMES:
        if here.startswith("/") and place.startswith(scheme):
            place = place[len(scheme) :]
            break
    prefix = f"{here}/"
    return place[len(prefix) :] if place.startswith(prefix) else None


def may_delete(path: str) -> bool:
    """Return whether a file that the index has replaced may be deleted: a name that trailsift or an engine gave it."""
    return any(re.fullmatch(form, path) is not None for form in (_OWN_DATA, _ENGINE_DATA, _IDS, _OBJECTS))


def is_own(path: str) -> bool:
    """Return whether a file of data, ids or log objects has a name that only trailsift gives."""
    return any(re.fullmatch(form, path) is not None for form in (_OWN_DATA, _IDS, _OBJECTS))


def is_own_metadata(path: str) -> bool:
    """Return whether one of Iceberg's own files has a name that PyIceberg gives."""
    return re.fullmatch(_OWN_METADATA, path) is not None


# -- values ------------------------------------------------------------------------------------------------------------


def commit_time(value: object) -> str:
    """Return the time of a commit. LakeError if it is not a time with its offset."""
    if isinstance(value, str) and _TIME.fullmatch(value):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            return value
    raise LakeError(f"the catalog has a commit at {_shown(value)}, which is not a time. {_UNTRUSTED}")


def day(value: object) -> str:
    """Return a day as the index has it (ISO 8601). LakeError if it is not one."""
    if isinstance(value, str) and _DAY.fullmatch(value):
        return value
    raise LakeError(f"the catalog has {_shown(value)} as a day. {_UNTRUSTED}")


def commit_number(value: object) -> int:
    """Return the number of a commit. LakeError if it is not one."""
    return _number("the number of a commit", value, 0, MAX_NUMBER)


def logged_locations(text: object) -> dict[str, str]:
    """Return a commit's locations of metadata (JSON), by table, wherever they are. LakeError if it is not that."""
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise LakeError(f"the catalog has a commit whose locations are {_shown(text)}. {_UNTRUSTED}")
    return found


def known_locations(root: Path, found: Mapping[str, object]) -> dict[str, str]:
    """Return the locations of our tables' metadata. LakeError if one is not within its table's folder."""
    return {name: _location(root, name, found[name]) for name in TABLES if name in found}


def expect_tables(root: Path, wanted: Iterable[str], found: Iterable[str]) -> None:
    """Raise LakeError if the catalog has lost a table."""
    missing = set(wanted).difference(found)
    if missing:
        raise LakeError(
            f"the catalog of the lake at {root} has no table {min(missing)} any longer: another engine dropped it, or "
            "it is damaged. Restore catalog.db from a copy of the lake, or ingest the logs into a new one"
        )


def _location(root: Path, name: str, value: object) -> str:
    metadata_path(root, name, value)
    return str(value)


def counts(text: object) -> dict[str, Any]:
    """Return a commit's counts (JSON). LakeError if they are not what a commit writes."""
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not _are_counts(found):
        raise LakeError(f"the catalog has a commit whose counts are {_shown(text)}. {_UNTRUSTED}")
    return found


def _are_counts(found: dict[str, Any]) -> bool:
    rules, dropped = found.get("rules") or {}, found.get("dropped") or {}
    return (
        all(type(found.get(name, 0)) is int for name in _COUNTED)
        and isinstance(dropped, dict)
        and all(type(number) is int for number in dropped.values())
        and isinstance(rules, dict)
        and all(isinstance(rules.get(name, ""), str) for name in ("file", "digest"))
        and (not rules or {"file", "digest", "omit"} <= rules.keys())
        and _are_days(found.get("days_kept", []))
        and _is_retention(found.get("retention", {}))
        and all(_are_texts(rules.get(name, [])) for name in ("names", "actions", "omit"))
    )


def _are_days(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and _DAY.fullmatch(text) for text in value)


def _is_retention(value: object) -> bool:
    """Return whether a value is what a commit records of the days that retention has removed."""
    if not isinstance(value, dict) or not isinstance(closed := value.get("closed", []), list):
        return False
    pairs = all(isinstance(pair, list) and len(pair) == 2 for pair in closed)
    days = [value[name] for name in ("events", "summaries") if name in value]
    days += [day for pair in closed for day in pair] if pairs else []
    return (
        pairs
        and len(closed) <= _MAX_STRETCHES
        and _are_days(days)
        and all(map(_exists, days))
        and all(first <= last for first, last in closed)
    )


def _exists(day: str) -> bool:
    """Return whether a text of the form of a day is one."""
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return True


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def short_text(what: str, value: object) -> str:
    """Return a text of bounded length. LakeError if it is not one."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise LakeError(f"the catalog has {_shown(value)} as {what}. {_UNTRUSTED}")
    return value


def check_files(table: str, files: Sequence[Sequence[Any]]) -> None:
    """Raise LakeError if a row of the index is not what it must be.

    Rows: table, path, rows, bytes, first and last time, service, first and last role.
    """
    if not files:
        return
    for file in files:
        data_path(table, file[1])
    columns = list(zip(*files, strict=True))
    for number, name, high in ((2, "rows", MAX_NUMBER), (3, "bytes", MAX_NUMBER)):
        _numbers(f"the {name} of a file", columns[number], 0, high)
    check_spans(list(zip(columns[4], columns[5], strict=True)))
    for number, name in ((6, "service"), (7, "first role"), (8, "last role")):
        for value in columns[number]:
            if value is not None and not (isinstance(value, str) and len(value) <= MAX_TEXT):
                raise LakeError(f"the catalog has {_shown(value)} as the {name} of a file. {_UNTRUSTED}")


def check_spans(spans: Sequence[tuple[Any, Any]]) -> None:
    """Raise LakeError if a pair of first and last time (microseconds since 1970) is none."""
    for number in (0, 1):
        _numbers("the time of a file", [span[number] for span in spans], MIN_TIME, ANY_TIME)
    for low, high in spans:
        if low > high or low > MAX_TIME or (high > MAX_TIME and high != ANY_TIME):
            raise LakeError(f"the catalog has a file of the times {low} to {high}. {_UNTRUSTED}")


def _numbers(what: str, values: Sequence[object], low: int, high: int) -> None:
    if not values:
        return
    if set(map(type, values)) != {int} or min(values) < low or max(values) > high:  # type: ignore[type-var, operator]
        for value in values:
            _number(what, value, low, high)


def _number(what: str, value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise LakeError(f"the catalog has {_shown(value)} as {what}. {_UNTRUSTED}")
    return value


def kept_properties(properties: Mapping[str, str]) -> dict[str, str]:
    """Return the properties of an Iceberg table that are obeyed; those that are not ours are dropped."""
    return {
        name: value
        for name, value in properties.items()
        if name in _PROPERTIES and isinstance(value, str) and re.fullmatch(_PROPERTIES[name], value)
    }


_UNTRUSTED = "trailsift writes no such thing. `trailsift verify` lists all that is wrong with a lake"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def check_links(root: Path, files: Iterable[Any]) -> None:
    """Raise LakeError if one of the index's files is a link, or lies behind one: to be called before they are read."""
    Links(root).check(file.path for file in files)


def check_folders(root: Path) -> None:
    """Raise LakeError if one of the folders that every lake has is a link."""
    links = Links(root)
    for table in TABLES:
        links.check_folder(f"{table}/data")
        links.check_folder(f"{table}/metadata")
    links.check_folder(SEEN_FOLDER)
    links.check_folder(OBJECTS_FOLDER)
