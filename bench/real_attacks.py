"""Move genuine attack records into another lake: another account, another victim, other ids and times.

An attack is a stretch of a real set: some principals, a time span, and the calls that make the attack. How many of them
are moved is its size: a third of these calls (three at least), all of them, or everything the principals did meanwhile.
"""

from __future__ import annotations

import copy
import json
import random
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from real_invented import STORIES, invented_records
from real_sets import Record, caller_arn, documented_records, instant, micros, records_of, stolen_sessions

_FEWEST = 3  # calls of an attack
SIZES = ("a third", "its calls", "everything")


@dataclass(frozen=True)
class AttackKind:
    """A kind of attack in a real set.

    ``principal``: "user" (whoever made the most of its calls), "session" (of an instance, used elsewhere too), or the
    name of a service. ``calls``: the calls that make the attack, none for all.
    """

    name: str
    source: str
    first: str
    last: str
    principal: str
    calls: tuple[str, ...] = ()

    @property
    def genuine(self) -> bool:
        """True if its records are genuine."""
        return bool(self.source)


#: Stands for the records of the emulator's documentation.
DOCUMENTED = "documented"
KINDS = (
    AttackKind("recording switched off", "detect/stratus/records.json.gz",
        "2023-07-10T11:58:50Z", "2023-07-10T12:08:10Z", "user",
        ("DeleteTrail", "StopLogging", "PutEventSelectors", "PutBucketLifecycle", "DeleteFlowLogs")),
    AttackKind("secrets read", "detect/stratus/records.json.gz",
        "2023-07-10T11:57:45Z", "2023-07-10T11:59:00Z", "user",
        ("ListSecrets", "GetSecretValue", "DescribeParameters", "GetParameter", "GetParameters")),
    AttackKind("access given away", "detect/stratus/records.json.gz",
        "2023-07-10T12:11:20Z", "2023-07-10T12:28:30Z", "user",
        ("ModifySnapshotAttribute", "ModifyImageAttribute", "PutBucketPolicy", "ModifyDBSnapshotAttribute")),
    AttackKind("persistence", "detect/stratus/records.json.gz",
        "2023-07-10T12:23:00Z", "2023-07-10T12:28:30Z", "user",
        ("CreateUser", "CreateLoginProfile", "CreateAccessKey", "AttachUserPolicy", "UpdateAssumeRolePolicy")),
    AttackKind("passwords asked for", "detect/stratus/records.json.gz",
        "2023-07-10T11:54:40Z", "2023-07-10T11:55:05Z", "user", ("GetPasswordData",)),
    AttackKind("instance credentials stolen", "detect/stratus/records.json.gz",
        "2023-07-10T11:55:00Z", "2023-07-10T12:08:00Z", "session"),
    AttackKind("instance credentials stolen, lab", "detect/lab-evasion/records.json.gz",
        "2024-08-10T12:30:00Z", "2024-08-10T13:26:00Z", "session"),
    AttackKind("sessions on instances", "detect/lab-evasion/records.json.gz",
        "2024-08-10T13:06:00Z", "2024-08-10T13:26:00Z", "user",
        ("StartSession", "TerminateSession", "ResumeSession")),
    AttackKind("function and instance taken", DOCUMENTED, "2024-01-01T00Z", "2025-01-01T00Z", "user",
        ("UpdateFunctionCode20150331v2", "UpdateFunctionConfiguration20150331v2", "EnableSerialConsoleAccess",
        "SendSerialConsoleSSHPublicKey", "ModifyInstanceAttribute", "StopInstances", "StartInstances")),
    AttackKind("role made, image shared, secrets in batches", DOCUMENTED, "2024-01-01T00Z", "2025-01-01T00Z",
        "user", ("CreateRole", "AttachRolePolicy", "UpdateLoginProfile", "ModifyImageAttribute", "BatchGetSecretValue",
        "AuthorizeSecurityGroupIngress")),
    AttackKind("everything listed", "files/umccr+cloudtrail-parquet-lambda",
        "2020-09-30T00:00:00Z", "2020-10-01T23:59:59Z", "user"),
    AttackKind("log delivery refused", "files/Yamato-Security+suzaku-sample-data",
        "2021-08-01T12:00:00Z", "2021-08-01T15:00:00Z", "delivery.logs.amazonaws.com"),
)  # fmt: skip
#: Written after public reports.
INVENTED_KINDS = tuple(AttackKind(name, "", "", "", "user") for name in STORIES)
#: What the emulator and the lab call their resources would give the attack away.
_MARKS = re.compile(r"stratus[-_]?red[-_]?team|stratus|malicious-iam-user|exfiltration", re.IGNORECASE)


def records_of_attack(
    kind: AttackKind, folder: Path, size: str, rng: random.Random, background: Sequence[Record] = ()
) -> list[Record]:
    """Return the records of an attack, as they are in its source. ``size``: one of SIZES."""
    if not kind.genuine:
        return invented_records(kind.name, size, background, rng)
    first, last = micros(kind.first), micros(kind.last)
    records = _records(folder / kind.source)
    near = [record for record in records if first <= micros(record["eventTime"]) <= last]
    calls = [record for record in near if not kind.calls or record["eventName"] in kind.calls]
    if kind.principal == "user":
        who = _busiest([record for record in calls if record["userIdentity"].get("type") != "AWSService"])
    elif kind.principal == "session":
        who = next(iter(sorted(stolen_sessions(records, first, last))))
    else:
        who = kind.principal
    own = [record for record in near if caller_arn(record) == who]
    if size == "everything" or kind.principal == "session":
        return own
    chosen = [record for record in own if record in calls]
    if size == "a third":
        count = min(len(chosen), max(_FEWEST, len(chosen) // 3))
        begin = rng.randrange(len(chosen) - count + 1)
        chosen = chosen[begin : begin + count]
    return chosen


_READ: dict[Path, list[Record]] = {}


def _records(path: Path) -> list[Record]:
    if path not in _READ:
        _READ[path] = documented_records(path.parent) if path.name == DOCUMENTED else records_of(path)
    return _READ[path]


def _busiest(records: Sequence[Record]) -> str:
    callers = [caller_arn(record) for record in records]
    return max(sorted(set(callers)), key=callers.count)


@dataclass(frozen=True)
class Victim:
    """Whose identity the attacker uses: a caller of the background with a record of its own, or a new user."""

    how: str
    caller: str
    identity: Record


def move(
    records: Sequence[Record], victim: Victim | None, account: str, begin: int, rng: random.Random
) -> list[Record]:
    """Return the records as they would be in another account: made by the victim, from ``begin`` (microseconds) on.

    Without a victim (a service acts) only account, ids, names and times change.
    """
    source = caller_arn(records[0])
    old = str(records[0].get("recipientAccountId") or records[0]["userIdentity"].get("accountId") or "")
    shift = begin - micros(records[0]["eventTime"])
    word = rng.choice(("billing", "reports", "portal", "ingest", "legacy"))
    key = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16))
    out = []
    for record in records:
        text = _MARKS.sub(word, json.dumps(record))
        new: Record = json.loads(text.replace(old, account) if old else text)
        if victim is not None and caller_arn(record) == source:
            new["userIdentity"] = _identity(new["userIdentity"], victim, key)
        if victim is not None:
            was = source.replace(old, account) if old else source
            new = json.loads(json.dumps(new).replace(json.dumps(_MARKS.sub(word, was))[1:-1], victim.caller))
        new["eventTime"] = instant(micros(record["eventTime"]) + shift)
        new["eventID"] = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        new["recipientAccountId"] = account
        new.pop("sharedEventID", None)
        out.append(new)
    return out


def _identity(own: Record, victim: Victim, key: str) -> Record:
    """Return the victim's identity; the session of an instance keeps its name."""
    new = copy.deepcopy(victim.identity)
    session = str(own.get("arn", "")).rpartition("/")[2]
    if session.startswith("i-") and new.get("type") == "AssumedRole":
        new["arn"] = f"{str(new['arn']).rpartition('/')[0]}/{session}"
        if "principalId" in new:
            new["principalId"] = f"{str(new['principalId']).partition(':')[0]}:{session}"
    # A stolen or a new key; what was the victim's own session is over.
    new["accessKeyId"] = ("ASIA" if new.get("type") == "AssumedRole" else "AKIA") + key
    if new.get("type") != "AssumedRole":
        new.pop("sessionContext", None)
        new.pop("invokedBy", None)
    return new
