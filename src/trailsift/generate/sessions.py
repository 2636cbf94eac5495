"""Sessions: caller, address and access key; the head of a record and its network fields."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trailsift.generate.actors import PEOPLE, Actor
from trailsift.generate.bulk_text import BASE32, Ints, coded, day_text, iso_time, mix_int

_EPOCHS = 1 << 32
_SLOTS = 64
_BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36"
FIRST_INTRUDER = 48  # slots from here on belong to incidents


@dataclass(frozen=True)
class Intruder:
    """A session of an incident: how it differs from the actor's own."""

    address: str | None = None
    agent: str | None = None


@dataclass(frozen=True)
class Sessions:
    """Columns of a batch's sessions, one entry per session; `of` maps events to them."""

    of: list[int]
    head: list[bytes] = field(default_factory=list)
    partner_head: list[bytes] = field(default_factory=list)
    net_s3: list[bytes] = field(default_factory=list)
    net: list[bytes] = field(default_factory=list)
    arn: list[bytes] = field(default_factory=list)
    akid: list[bytes] = field(default_factory=list)
    name: list[bytes] = field(default_factory=list)
    expires: list[int] = field(default_factory=list)


def open_sessions(
    actors: tuple[Actor, ...], actor: Ints, slot: Ints, seconds: Ints, intruders: dict[tuple[int, int], Intruder]
) -> Sessions:
    """Return the sessions of a batch of events, from each event's actor, slot and time.

    A slot's session lasts the archetype's `hold`; slots change at different times, as instances and tasks do.
    """
    hold = np.array([r.kind.hold for r in actors], np.int64)[actor]
    salts = np.array([r.salt & 0xFFFFFFFF for r in actors], np.int64)[actor]
    shift = (salts * 2_654_435_761 + slot * 40_503) % hold
    epoch = (seconds + shift) // hold
    code = (actor * _SLOTS + slot) * _EPOCHS + epoch
    _, first, of = np.unique(code, return_index=True, return_inverse=True)
    sessions = Sessions(of.tolist())
    starts = (epoch * hold - shift)[first]
    rows = zip(actor[first].tolist(), slot[first].tolist(), epoch[first].tolist(), starts.tolist(), strict=True)
    for index, place, age, start in rows:
        _open(sessions, actors[index], place, age, start, intruders.get((index, place)))
    return sessions


def _open(out: Sessions, actor: Actor, slot: int, epoch: int, start: int, intruder: Intruder | None) -> None:
    kind = actor.kind
    name = _name(actor, slot, epoch, start)
    address = (intruder and intruder.address) or _address(actor, slot, epoch)
    agent = (intruder and intruder.agent) or _agent(actor, start)
    key, arn, user = _user(actor, slot, epoch, start, name)
    out.head.append(f'{{"eventVersion":"1.11","userIdentity":{user},"eventTime":"'.encode())
    out.partner_head.append(
        f'{{"eventVersion":"1.11","userIdentity":{{"type":"AWSAccount","principalId":"{actor.role_id}:{name}",'
        f'"accountId":"{actor.account}"}},"eventTime":"'.encode()
    )
    # S3 writes the caller's agent in brackets; people reach other services with their browser.
    plain = _BROWSER if kind.session == "email" else agent
    bracketed = agent if kind.identity == "service" else f"[{agent}]"
    out.net.append(f'{address}","userAgent":"{plain}'.encode())
    out.net_s3.append(f'{address}","userAgent":"{bracketed}'.encode())
    out.arn.append(arn.encode())
    out.akid.append(key.encode())
    out.name.append(name.encode())
    out.expires.append(start + kind.hold)


def _agent(actor: Actor, start: int) -> str:
    agents = actor.kind.agents
    if not agents:
        return actor.name
    return agents[-1] if start >= actor.deployed else agents[0]


def _name(actor: Actor, slot: int, epoch: int, start: int) -> str:
    style = actor.kind.session
    if style == "instance":
        return f"i-0{mix_int(actor.salt, 11, slot):016x}"
    if style == "function":
        return actor.name.removesuffix("-fn") + ("" if slot % 4 else "-async")
    if style == "task":
        return f"{mix_int(actor.salt, 12, slot, epoch):016x}"
    if style == "run":
        return f"GitHubActions-{13_000_000_000 + epoch * 977 + slot}"
    if style == "scheduled":
        return "report-" + day_text(max(start, 0) // 86_400)[2].decode()
    if style == "email":
        return PEOPLE[(actor.salt + slot) % len(PEOPLE)] + "@kelp.example"
    return actor.name


def _address(actor: Actor, slot: int, epoch: int) -> str:
    """Return the source address. Public addresses are from the documentation ranges (RFC 5737, RFC 3849)."""
    where = actor.kind.network
    spread = mix_int(actor.salt, 21, slot) if actor.kind.session == "instance" else mix_int(actor.salt, 22, slot, epoch)
    host = spread % 200 + 20
    if where == "vpc":
        return f"10.{16 + actor.index // 120}.{actor.index * 2 % 240 + slot % 2}.{host}"
    if where == "datacenter":
        return f"172.20.{actor.index % 250}.{11 + slot}"
    if where == "office":
        # The third person works from home and joins late in the period: their slot is drawn from then on.
        return f"203.0.113.{17 + slot % 2}" if slot != 2 else "2001:db8:77:1::2c5"
    if where == "cloud":
        return f"192.0.2.{host}"
    if where == "internet":
        return f"2001:db8:1900:{slot}::{host:x}" if slot % 2 else f"192.0.2.{host % 16}"
    return actor.name


def _user(actor: Actor, slot: int, epoch: int, start: int, name: str) -> tuple[str, str, str]:
    """Return (access key, ARN of the caller, the userIdentity object) of a session."""
    kind, account = actor.kind, actor.account
    if kind.identity == "anonymous":
        return "", "", '{"type":"AWSAccount","principalId":"","accountId":"ANONYMOUS_PRINCIPAL"}'
    if kind.identity == "service":
        return "", actor.name, f'{{"type":"AWSService","invokedBy":"{actor.name}"}}'
    if kind.identity == "user":
        key = "AKIA" + coded(mix_int(actor.salt, 31), BASE32, 16)
        user = (
            f'{{"type":"IAMUser","principalId":"{actor.role_id}","arn":"{actor.arn}","accountId":"{account}",'
            f'"accessKeyId":"{key}","userName":"{actor.name}"}}'
        )
        return key, actor.arn or "", user
    key = "ASIA" + coded(mix_int(actor.salt, 32, slot, epoch), BASE32, 16)
    arn = f"arn:aws:sts::{account}:assumed-role/{actor.name}/{name}"
    # Empty in some records, absent in others, as in real trails.
    federation = '"webIdFederationData":{},' if actor.salt % 4 == 0 else ""
    if kind.identity == "oidc":
        provider = f"arn:aws:iam::{account}:oidc-provider/token.actions.githubusercontent.com"
        federation = f'"webIdFederationData":{{"federatedProvider":"{provider}","attributes":{{}}}},'
    mfa = "true" if kind.identity == "sso" else "false"
    delivery = ',"ec2RoleDelivery":"2.0"' if kind.session == "instance" else ""
    user = (
        f'{{"type":"AssumedRole","principalId":"{actor.role_id}:{name}","arn":"{arn}","accountId":"{account}",'
        f'"accessKeyId":"{key}","sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"{actor.role_id}",'
        f'"arn":"{actor.arn}","accountId":"{account}","userName":"{actor.name}"}},{federation}'
        f'"attributes":{{"creationDate":"{iso_time(max(start, 0))}","mfaAuthenticated":"{mfa}"}}{delivery}}}}}'
    )
    return key, arn, user
