"""Semi-real lakes: attack records moved into real and generated backgrounds, drawn from a seed, and their findings."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from real_attacks import KINDS, SIZES, AttackKind, Victim, move, records_of_attack
from real_judge import findings_of, same_caller
from real_sets import Record, caller_arn, micros, records_of
from trailsift.detect.finding import Finding
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.times import DAY, HOUR

REAL_BACKGROUNDS = ("benign-a", "benign-b", "benign-c", "benign-d")
#: Generated backgrounds: 30 quiet days of some callers.
GENERATED = {
    "generated, 8 callers": Options(events=4_000, days=30, seed=8101, roles=8, incidents=False),
    "generated, 20 callers": Options(events=15_000, days=30, seed=8102, roles=20, incidents=False),
    "generated, 40 callers": Options(events=30_000, days=30, seed=8103, roles=40, incidents=False),
}
BACKGROUNDS = (*REAL_BACKGROUNDS, *GENERATED)
#: Days of the background that are kept; None: all.
CUTS = (1, 2, 3, 5, None)
VICTIMS = ("the busiest", "another", "a new user")
HOURS = ("usual", "unusual")
_Value = TypeVar("_Value")
_FEWEST = 20  # records of a cut
_PEOPLE = ("IAMUser", "Root", "AssumedRole", "FederatedUser")


@dataclass(frozen=True)
class Draw:
    """One semi-real lake to make."""

    kind: AttackKind
    background: str
    days: int | None
    victim: str
    hour: str
    size: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What was found in a lake, by ablation: the rank of the attack (None: not found) and the other findings."""

    draw: Draw
    ranks: dict[str, int | None]
    false: dict[str, list[Finding]]
    hit: Finding | None
    records: int


def draws(count: int, seed: int, kinds: Sequence[AttackKind] = KINDS) -> list[Draw]:
    """Return lakes to make: every kind equally often, and every value of the other factors as well."""
    rng = random.Random(seed)

    def spread(values: Sequence[_Value]) -> list[_Value]:
        column = [values[place % len(values)] for place in range(count)]
        rng.shuffle(column)
        return column

    columns = zip(
        spread(BACKGROUNDS), spread(CUTS), spread(VICTIMS), spread(HOURS), spread(SIZES), range(count), strict=True
    )
    return [
        Draw(kinds[place % len(kinds)], background, days, victim, hour, size, seed * 100_000 + place)
        for background, days, victim, hour, size, place in columns
    ]


def prepare(folder: Path) -> None:
    """Generate the backgrounds that are missing in ``folder``."""
    for name, options in GENERATED.items():
        target = folder / "backgrounds" / name
        if not (target / "truth.json").exists():
            shutil.rmtree(target, ignore_errors=True)
            generate(target, options)


@cache
def background_records(name: str, folder: Path, real: Path) -> list[Record]:
    """Return the records of a background in order of time."""
    if name in GENERATED:
        return records_of(folder / "backgrounds" / name / "AWSLogs")
    return records_of(real / "detect" / name / "records.json.gz")


def cut(records: list[Record], days: int | None, rng: random.Random) -> list[Record]:
    """Return the records of some days in a row with events, at random; of all days for None."""
    present = sorted({record["eventTime"][:10] for record in records})
    if days is None or len(present) <= days:
        return records
    counts = Counter(record["eventTime"][:10] for record in records)
    spans = [present[at : at + days] for at in range(len(present) - days + 1)]
    spans = [span for span in spans if sum(counts[day] for day in span) >= _FEWEST]
    chosen = set(rng.choice(spans))
    return [record for record in records if record["eventTime"][:10] in chosen]


def choose_victim(how: str, records: Sequence[Record], kind: AttackKind, account: str, rng: random.Random) -> Victim:
    """Return whose identity the attacker uses; a new user where the background has nobody else."""
    types = ("AssumedRole",) if kind.principal == "session" else _PEOPLE
    seen: dict[str, Record] = {}
    calls: Counter[str] = Counter()
    for record in records:
        who = record.get("userIdentity") or {}
        if who.get("type") in types and caller_arn(record).startswith("arn:"):
            calls[caller_arn(record)] += 1
            seen[caller_arn(record)] = who
    order = sorted(calls, key=lambda caller: (-calls[caller], caller))
    if how == "the busiest" and order:
        return Victim(how, order[0], seen[order[0]])
    if how == "another" and len(order) > 1:
        chosen = rng.choice(order[1:8])
        return Victim(how, chosen, seen[chosen])
    return _newcomer(kind, account, rng)


def _newcomer(kind: AttackKind, account: str, rng: random.Random) -> Victim:
    name = rng.choice(("ops", "build", "support", "anna")) + str(rng.randrange(10, 99))
    unique = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16))
    if kind.principal == "session":
        role = f"arn:aws:iam::{account}:role/{name}"
        issuer = {"type": "Role", "principalId": f"AROA{unique}", "arn": role, "accountId": account, "userName": name}
        who: Record = {
            "type": "AssumedRole",
            "principalId": f"AROA{unique}:session",
            "arn": f"arn:aws:sts::{account}:assumed-role/{name}/session",
            "accountId": account,
            "sessionContext": {"sessionIssuer": issuer},
        }
        return Victim("a new user", role, who)
    arn = f"arn:aws:iam::{account}:user/{name}"
    who = {"type": "IAMUser", "principalId": f"AIDA{unique}", "arn": arn, "accountId": account, "userName": name}
    return Victim("a new user", arn, who)


def begin_of(victim: Victim | None, hour: str, records: Sequence[Record], rng: random.Random) -> int:
    """Return when the attack begins (microseconds): the day after the background's last, at the victim's usual hour or
    far from it."""
    own = [record for record in records if victim is None or caller_arn(record) == victim.caller] or records
    usual = Counter(int(record["eventTime"][11:13]) for record in own).most_common(1)[0][0]
    at = usual if hour == "usual" else (usual + rng.randrange(8, 17)) % 24
    return (
        (micros(records[-1]["eventTime"]) // DAY + 1) * DAY + at * HOUR + rng.randrange(HOUR // 1_000_000) * 1_000_000
    )


def examine(draw: Draw, folder: Path, real: Path, work: Path) -> Outcome:
    """Make a lake in the folder ``work``, look for findings, and judge them."""
    rng = random.Random(draw.seed)
    before = cut(background_records(draw.background, folder, real), draw.days, rng)
    account = str(before[-1].get("recipientAccountId"))
    service = draw.kind.principal.endswith(".amazonaws.com")
    victim = None if service else choose_victim(draw.victim, before, draw.kind, account, rng)
    begin = begin_of(victim, draw.hour, before, rng)
    attack = move(records_of_attack(draw.kind, real, draw.size, rng, before), victim, account, begin, rng)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    # A cache of answers with those of a hundred lakes is slower than that of a user.
    os.environ["XDG_CACHE_HOME"] = str(work / "cache")
    for name, records in (("before.json", before), ("attack.json", attack)):
        (work / name).write_text(json.dumps({"Records": records}))
    ingest([str(work / "before.json"), str(work / "attack.json")], work / "lake")
    _, findings, _ = findings_of(work / "lake")
    callers, made = _touched(work / "lake", attack)
    span = micros(attack[0]["eventTime"]), micros(attack[-1]["eventTime"])
    ranks: dict[str, int | None] = {}
    false: dict[str, list[Finding]] = {}
    first: Finding | None = None
    for ablation, listed in findings.items():
        hits = [finding for finding in listed if _about(finding, callers, made, span)]
        ranks[ablation] = listed.index(hits[0]) + 1 if hits else None
        false[ablation] = [finding for finding in listed if finding not in hits]
        first = hits[0] if ablation == "all" and hits else first
    return Outcome(draw, ranks, false, first, len(attack))


def _touched(lake: Path, attack: Sequence[Record]) -> tuple[set[str], set[str]]:
    """Return the attack's callers as the lake tells them apart, and the resources that only the attack touched."""
    ids = ", ".join(f"'{record['eventID']}'" for record in attack)
    with DuckDBEngine(open_snapshot(lake)) as engine:
        callers = engine.sql(f"SELECT DISTINCT caller FROM events WHERE event_id IN ({ids})").rows()
        made = engine.sql(
            f"""SELECT resource_arn FROM events WHERE resource_arn IS NOT NULL GROUP BY resource_arn
            HAVING bool_and(event_id IN ({ids}))"""
        ).rows()
    return {caller for (caller,) in callers if caller}, {arn for (arn,) in made}


def _about(finding: Finding, callers: set[str], made: set[str], span: tuple[int, int]) -> bool:
    """Return whether a signal of the finding, within an hour of the attack, names the victim or what it made."""
    return any(
        signal.first_time <= span[1] + HOUR
        and signal.last_time >= span[0] - HOUR
        and (any(same_caller(signal.caller, caller) for caller in callers) or signal.resource_arn in made)
        for signal in finding.signals
    )
