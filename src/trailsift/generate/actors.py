"""The actors of one run: archetypes filled in with names, accounts, networks and templates."""

from __future__ import annotations

from dataclasses import dataclass, field
from string import Template

import numpy as np

from trailsift.generate.archetypes import ARCHETYPES, Archetype, Op
from trailsift.generate.bulk_text import ALNUM, BASE32, coded, hash_bytes, mix_int, strings, uuid_rows
from trailsift.generate.record_templates import RECORD_TEMPLATES, CompiledTemplate, compile_template, template_text

ORG = "kelp"
ACCOUNTS = ("400011112201", "400011112202", "400011112203", "400011112204", "400011112205", "400011112206")
REGIONS = ("ap-northeast-2", "us-west-2")
TEAMS = (
    "orders", "atlas", "loyalty", "harbor", "pricing", "fleet", "studio", "inbox", "ledger", "catalog", "risk", "field",
)  # fmt: skip
PEOPLE = (
    "mina.seo", "jonas.albrecht", "priya.nair", "dae.hwang", "lucia.ferro", "tomas.novak", "aya.mori", "ben.okafor",
    "sora.lim", "ines.duarte", "karl.lindqvist", "noor.haddad",
)  # fmt: skip


@dataclass(frozen=True)
class Actor:
    """One identity. `arn` is the role ARN in an analysis; None for the anonymous caller."""

    index: int
    kind: Archetype
    name: str
    account: str
    region: str
    arn: str | None
    role_id: str
    salt: int
    deployed: int  # second at which a new user agent appears
    values: dict[str, str]
    compiled_of: dict[tuple[Op, bool, bool], CompiledTemplate] = field(default_factory=dict)

    @property
    def partner(self) -> str:
        """The account on the other side of cross-account calls."""
        return ACCOUNTS[ACCOUNTS.index(self.account) ^ 1]

    def fill(self, text: str) -> str:
        """Fill the `$names` of an op's resource or key pattern."""
        return Template(text).substitute(self.values) if "$" in text else text

    def compiled(self, op: Op, failed: bool = False, partner_copy: bool = False) -> CompiledTemplate:
        """Return the template of `op`: successful, failed, or the copy that the owner of the resource gets."""
        template = self.compiled_of.get((op, failed, partner_copy))
        if template is None:
            template = self.compiled_of[op, failed, partner_copy] = self._compile(op, failed, partner_copy)
        return template

    def _compile(self, op: Op, failed: bool, partner_copy: bool) -> CompiledTemplate:
        template = RECORD_TEMPLATES[op.event]
        by_service = template.caller == "service"
        by_console = self.kind.session == "email" and template.service == "s3"
        owner = self.partner if op.across else self.account
        values = self.values | {
            "on": self.fill(op.on),
            "owner": owner,
            "recipient": owner if partner_copy else self.account,
            "sse": '"SSEApplied":"SSE_KMS",' if "kms-key-id" in template.response else "",
            "console": ',"sessionCredentialFromConsole":"true"' if by_console else "",
        }
        tail = ""
        if self.kind.endpoint and not (by_service or template.management or partner_copy or op.outside):
            tail = f',"vpcEndpointId":"{self.values["vpce"]}"'
        text = template_text(
            template,
            failed=failed,
            signed=self.kind.identity != "anonymous",
            tls=self.kind.tls and not by_service,
            shared=op.across or by_service or self.kind.identity == "anonymous",
            tail=tail,
        )
        return compile_template(text, values)


def resource_arn(actor: Actor, op: Op) -> str | None:
    """Return the ARN of the bucket, table or function of `op`; None for calls without a resource."""
    template = RECORD_TEMPLATES[op.event]
    on = actor.fill(op.on)
    owner = actor.partner if op.across else actor.account
    forms = {
        "s3": f"arn:aws:s3:::{on}",
        "dynamodb": f"arn:aws:dynamodb:{actor.region}:{owner}:table/{on}",
        "lambda": f"arn:aws:lambda:{actor.region}:{owner}:function:{on}",
    }
    return forms.get(template.service) if template.resources else None


def create_actors(count: int, seed: int, start: int, seconds: int) -> tuple[Actor, ...]:
    """Create actors: the archetypes in order, then again for other teams. start and seconds: the period."""
    return tuple(_create_actor(index, seed, start, seconds) for index in range(count))


def _create_actor(index: int, seed: int, start: int, seconds: int) -> Actor:
    kind = ARCHETYPES[index % len(ARCHETYPES)]
    copy = index // len(ARCHETYPES)
    team = TEAMS[copy % len(TEAMS)] + (str(copy // len(TEAMS) + 1) if copy >= len(TEAMS) else "")
    salt = mix_int(seed, 101, index)
    account = ACCOUNTS[(kind.account + 2 * (copy % 3 if copy >= 4 else 0)) % len(ACCOUNTS)]
    region = REGIONS[(kind.region + (copy % 5 == 3)) % len(REGIONS)]
    name = Template(kind.name).substitute(team=team)
    arn, prefix = _identity(kind, account, name)
    role_id = prefix + coded(mix_int(salt, 1), BASE32, 17)
    tls13 = salt % 4 != 0
    raw = hash_bytes(np.array([mix_int(salt, 2)], np.uint64), 16)
    values = {
        "org": ORG,
        "team": team,
        "account": account,
        "region": region,
        "role_arn": arn or "",
        "role_id": role_id,
        "kms": strings(uuid_rows(raw))[0].decode(),
        "vpce": "vpce-0" + f"{mix_int(seed, 103, ACCOUNTS.index(account), REGIONS.index(region)):016x}",
        "api": coded(mix_int(salt, 3), ALNUM, 10).lower(),
        "tls": "TLSv1.3" if tls13 else "TLSv1.2",
        "cipher": "TLS_AES_128_GCM_SHA256" if tls13 else "ECDHE-RSA-AES128-GCM-SHA256",
        # Real trails write these counts as 2356.0 in some accounts and regions and as 2356 in others.
        "dot": ".0" if salt % 3 else "",
    }
    deployed = start + int(seconds * (0.45 + (salt % 1000) / 4000))
    return Actor(index, kind, name, account, region, arn, role_id, salt, deployed, values)


def _identity(kind: Archetype, account: str, name: str) -> tuple[str | None, str]:
    """Return the ARN and the prefix of the unique id (see "unique identifiers" in the IAM reference)."""
    if kind.identity == "anonymous":
        return None, ""
    if kind.identity == "service":
        return name, ""
    if kind.identity == "user":
        return f"arn:aws:iam::{account}:user/{name}", "AIDA"
    path = f"aws-reserved/sso.amazonaws.com/{REGIONS[0]}/" if kind.identity == "sso" else ""
    return f"arn:aws:iam::{account}:role/{path}{name}", "AROA"
