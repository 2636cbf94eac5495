"""Real logs to judge findings by: how to read them, and what is right about them.

They lie outside the repository, in the folder that TRAILSIFT_REAL_LOGS names. Labels are kinds of action: the call and
the time it was made. Whose call it was is derived from the records.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Record = dict[str, Any]
REAL_LOGS = "TRAILSIFT_REAL_LOGS"


@dataclass(frozen=True)
class Label:
    """A labelled kind of action: its calls by name and time (first, last; ISO 8601, UTC).

    Without ``calls`` it is a session of an instance's role that is used from two networks by different clients;
    ``anything``: all calls of that time are the attack.
    """

    name: str
    first: str
    last: str
    calls: tuple[str, ...] = ()
    anything: bool = False

    @property
    def span(self) -> tuple[int, int]:
        """First and last moment in microseconds since 1970."""
        return micros(self.first), micros(self.last)


@dataclass(frozen=True)
class RealSet:
    """A set: the file or folder to ingest, the one to derive labels from; ``benign``: every finding is false."""

    name: str
    path: Path
    records: Path
    labels: tuple[Label, ...] = ()
    benign: bool = False


def _call(name: str, first: str, last: str | None = None) -> Label:
    return Label(name, f"2023-07-10T{first}Z", f"2023-07-10T{last or first}Z", (name,))


EMULATOR = (
    _call("DeleteTrail", "11:59:02", "12:08:04"),
    _call("PutBucketLifecycle", "12:00:35"),
    _call("StopLogging", "12:01:27"),
    _call("DeleteFlowLogs", "12:02:26"),
    _call("PutEventSelectors", "12:07:49"),
    _call("GetSecretValue", "11:57:50", "12:07:57"),
    _call("ModifySnapshotAttribute", "12:11:28"),
    _call("PutBucketPolicy", "12:22:41"),
    _call("CreateLoginProfile", "12:23:06", "12:25:04"),
    _call("UpdateAssumeRolePolicy", "12:24:11", "12:28:24"),
    _call("CreateAccessKey", "12:24:29", "12:24:50"),
    _call("AttachUserPolicy", "12:24:49"),
    _call("ModifyDBSnapshotAttribute", "12:28:24"),
    _call("GetPasswordData", "11:54:47", "11:55:00"),
    _call("LeaveOrganization", "12:02:05"),
    Label("an instance's session, elsewhere", "2023-07-10T11:57:22Z", "2023-07-10T11:57:22Z"),
)
LAB = (
    Label("StartSession on instances", "2024-08-10T13:06:58Z", "2024-08-10T13:26:00Z", ("StartSession",)),
    Label("an instance's session, elsewhere", "2024-08-10T13:19:55Z", "2024-08-10T13:21:54Z"),
)
LABELS = {
    "stratus": EMULATOR,
    "invictus-ir+aws_dataset": EMULATOR,
    "lab-evasion": LAB,
    "lab-evasion, Event history": LAB,
    "Yamato-Security+suzaku-sample-data": (
        Label("log delivery refused", "2021-07-30T00:00:00Z", "2021-08-02T23:59:59Z", ("PutObject", "HeadBucket")),
    ),
    "umccr+cloudtrail-parquet-lambda": (
        Label("every service listed", "2020-09-30T00:00:00Z", "2020-10-01T23:59:59Z", anything=True),
    ),
}
#: A set without an attack, beside those whose names begin with "benign".
_HARMLESS = ("console-refusals",)


def micros(text: str) -> int:
    """Return a time in microseconds since 1970."""
    return round(datetime.fromisoformat(text).timestamp() * 1e6)


def instant(at: int) -> str:
    """Return microseconds since 1970 as CloudTrail writes a time."""
    return f"{datetime.fromtimestamp(at // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def folder_of_sets() -> Path:
    """Return the folder of the real logs; it may be missing."""
    return Path(os.environ.get(REAL_LOGS) or Path(__file__).resolve().parents[2] / "shared" / "data" / "real")


def real_sets(folder: Path) -> list[RealSet]:
    """Return all sets of the folder: those made to judge findings by, then the others."""
    found: list[RealSet] = []
    for path in sorted((folder / "detect").iterdir()):
        if (records := path / "records.json.gz").exists():
            found.append(_set(path.name, records))
        if (history := path / "event_history.csv").exists():
            found.append(_set(f"{path.name}, Event history", history, records))
    found += [_set(path.name, path) for path in sorted((folder / "files").iterdir()) if path.is_dir()]
    return found


def _set(name: str, path: Path, records: Path | None = None) -> RealSet:
    return RealSet(name, path, records or path, LABELS.get(name, ()), name.startswith("benign") or name in _HARMLESS)


def records_of(path: Path) -> list[Record]:
    """Return the distinct records of a file or a folder of files, in order of time; files of other kinds have none."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    of_id = {record["eventID"]: record for file in files for record in _read(file)}
    return sorted(of_id.values(), key=lambda record: (record["eventTime"], record["eventID"]))


def _read(file: Path) -> Iterator[Record]:
    content = file.read_bytes()
    try:
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        value = json.loads(content)
    except (OSError, ValueError):
        return
    records = value.get("Records", [value]) if isinstance(value, dict) else value
    for record in records if isinstance(records, list) else []:
        if isinstance(record, dict) and {"eventID", "eventTime", "eventName"} <= record.keys():
            yield record


def documented_records(folder: Path) -> list[Record]:
    """Return the genuine records that the emulator's documentation shows, as one user's of one account, 20 seconds
    apart; there they are of many accounts and days. Records of roles are left out."""
    account = "123456789012"
    user = {"type": "IAMUser", "arn": f"arn:aws:iam::{account}:user/documented", "accountId": account}
    found = []
    with gzip.open(folder / "events.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            who = record.get("userIdentity") or {}
            if record.pop("_source", "") == "DataDog+stratus-red-team" and not str(who.get("arn")).count(
                ":assumed-role/dk"
            ):
                text = json.dumps({key: value for key, value in record.items() if not key.startswith("_")})
                known = {who.get("accountId"), record.get("recipientAccountId")} - {None}
                for old in known:
                    text = text.replace(str(old), account)
                found.append(json.loads(text) | {"userIdentity": user})
    found.sort(key=lambda record: (record["eventName"], record["eventTime"], record["eventID"]))
    begin = micros("2024-08-01T12:00:00Z")
    return [record | {"eventTime": instant(begin + 20_000_000 * place)} for place, record in enumerate(found)]


def caller_arn(record: Record) -> str:
    """Return who made a call, as far as this program needs it: an ARN, or the name of a service."""
    who = record.get("userIdentity") or {}
    issuer = (who.get("sessionContext") or {}).get("sessionIssuer") or {}
    return str(issuer.get("arn") or who.get("arn") or who.get("invokedBy") or who.get("type") or "")


def stolen_sessions(records: list[Record], first: int, last: int) -> set[str]:
    """Return the callers whose instance session is used by different clients from different networks in a time span:
    as the records name them, and as the console's Event history does."""
    clients: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    used: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        session = str((record.get("userIdentity") or {}).get("arn") or "").rpartition("/")[2]
        if session.startswith("i-"):
            key, network = (caller_arn(record), session), str(record.get("sourceIPAddress"))
            clients[key][network].add(str(record.get("userAgent")).partition("/")[0])
            if first <= micros(record["eventTime"]) <= last:
                used[key].add(network)
    return {
        name
        for (caller, session), networks in clients.items()
        for name in (caller, f"user:{session}")
        if any(
            networks[one].isdisjoint(agents)
            for one in used[caller, session]
            for other, agents in networks.items()
            if other != one
        )
    }
