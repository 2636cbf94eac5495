"""What to do about a finding: commands of trailsift that show more, and the steps in AWS."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from trailsift.analysis.caller_names import NO_CREDENTIALS, account_of, short_caller
from trailsift.cloudtrail.callers import ANONYMOUS, NONE, is_arn
from trailsift.detect.callers import network_of
from trailsift.detect.context import Context
from trailsift.detect.describe import RuleTexts, rule_fields
from trailsift.detect.finding import Finding
from trailsift.detect.particles import Word
from trailsift.detect.writer import SSO_ROLE, Writer
from trailsift.query.relations import text
from trailsift.safe_text import double_quoted, quoted
from trailsift.times import iso, moment

_BUCKET = re.compile(r"arn:aws[a-z-]*:s3:::([a-z0-9][a-z0-9.-]{1,62})", re.ASCII)
_INSTANCE = re.compile(r"i-[0-9a-f]{8,17}", re.ASCII)
_MINUTE = 60_000_000
_ASIDE = 30 * _MINUTE  # before and after a finding, in the command that shows everything
_NAMED = 3  # resources and networks that a query names


class Step(NamedTuple):
    """One thing to do: why, and the command to copy, if there is one."""

    does: str
    command: str | None = None


def look_further(finding: Finding, writer: Writer, lake: str, context: Context) -> tuple[Step, ...]:
    """Return the commands that show more of a finding, and the one for a harmless one."""
    labels, at = writer.texts.labels, f"--lake {quoted(lake)}"
    steps = []
    since = finding.first_time // _MINUTE * _MINUTE - _ASIDE
    until = finding.last_time // _MINUTE * _MINUTE + _ASIDE
    name = _role_name(finding.caller)
    if name is not None:
        command = f"trailsift role {quoted(name)} --since {iso(since)} --until {iso(until)} {at}"
        steps.append(Step(labels["all calls of the caller"], command))
    if context.neighbours:
        networks = ", ".join(map(text, context.networks[:_NAMED]))
        sql = (
            "SELECT source_network, caller, user_agent, sum(events) AS events, min(first_time) AS first_time FROM "
            f"sessions WHERE source_network IN ({networks}) GROUP BY ALL ORDER BY first_time"
        )
        steps.append(Step(labels["same networks"], f"trailsift query {double_quoted(sql)} {at}"))
    elif finding.resource_arn is not None:
        first, last = (f"DATE '{moment(time):%Y-%m-%d}'" for time in (finding.first_time, finding.last_time))
        sql = (
            "SELECT caller, source_network, kind, sum(events) AS events, sum(bytes_out) AS bytes_out FROM access WHERE "
            f"resource_arn = {text(finding.resource_arn)} AND day BETWEEN {first} AND {last} GROUP BY ALL "
            "ORDER BY events DESC"
        )
        steps.append(Step(labels["all calls on the resource"], f"trailsift query {double_quoted(sql)} {at}"))
    steps.append(Step(labels["records"], f"trailsift finding {finding.id} --records {at}"))
    reason = quoted(labels["reason for mute"])
    steps.append(Step(labels["benign"], f"trailsift mute {finding.id} --reason {reason} {at}"))
    return tuple(steps)


def _role_name(caller: str | None) -> str | None:
    """Return the name by which `trailsift role` knows a caller."""
    if caller is None or caller == NONE:
        return None
    if caller == ANONYMOUS or network_of(caller) is not None:
        return NO_CREDENTIALS
    return caller if is_arn(caller) else short_caller(caller)


def in_aws(
    finding: Finding, writer: Writer, context: Context, rules: Mapping[str, RuleTexts] | None = None
) -> tuple[Step, ...]:
    """Return the steps in AWS: about what was done, then about who did it."""
    return tuple(dict.fromkeys([*_about_what(finding, writer, rules or {}), *_about_whom(finding, writer, context)]))


def _about_what(finding: Finding, writer: Writer, rules: Mapping[str, RuleTexts]) -> Iterator[Step]:
    caller = Word(writer.caller(finding.caller))
    own = []
    for signal in finding.leading_signals:
        of_rule = rules.get(signal.rule or "")
        template = of_rule and (of_rule.next_ko if writer.language == "ko" else of_rule.next)
        if template:
            own.append(Step(template.format(**rule_fields(signal, writer), caller=caller)))
    if own:
        yield from own[:2]
        return
    texts = writer.texts.steps
    names = [*(form for name in finding.techniques for form in (name, name.partition(".")[0])), ""]
    name = next(name for name in names if name in texts)
    yield Step(texts[name].format(resource=writer.resource(finding.resource_arn), caller=caller))


def _about_whom(finding: Finding, writer: Writer, context: Context) -> Iterator[Step]:
    texts, caller = writer.texts.identity, finding.caller
    sort = sort_of_caller(caller, [use.session_name for use in context.sessions if use.caller == caller])
    if sort == "nobody":
        return
    bucket = _BUCKET.fullmatch(finding.resource_arn or "")
    if sort == "anonymous" and bucket is None:
        return
    fields = {
        "name": Word(writer.caller(caller)),
        "resource": writer.resource(finding.resource_arn),
        "account": writer.word(account_of(caller) or "?"),
        "session": writer.word(_session_of(sort, context) or (caller or "?").rpartition(":")[2]),
        "key": writer.word(context.access_keys[0]) if context.access_keys else "",
    }
    if sort == "user" and context.access_keys:
        user = (caller or "").rpartition("/")[2]
        for key in context.access_keys[:_NAMED]:
            words = "aws iam update-access-key --status Inactive"
            command = f"{words} --access-key-id {quoted(key)} --user-name {quoted(user)}"
            yield Step(texts["key"].format(**fields | {"key": writer.word(key)}), command)
        return
    block = None
    if sort == "anonymous" and bucket is not None:
        settings = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        block = f"aws s3api put-public-access-block --bucket {bucket[1]} --public-access-block-configuration "
        block += ",".join(f"{name}=true" for name in settings)
    yield Step(texts[sort].format(**fields), block)


def sort_of_caller(caller: str | None, sessions: Sequence[str | None] = ()) -> str:
    """Return the sort of a caller: a key of the texts ``identity``, or ``nobody``."""
    if caller is None or caller == NONE:
        return "nobody"
    if caller == ANONYMOUS or network_of(caller) is not None:
        return "anonymous"
    if not is_arn(caller):
        form, _, name = caller.partition(":")
        if form == "user" and _is_instance(name):
            # An export that names the session only.
            return "instance alone"
        return {"account": "foreign", "service": "service", "user": "user"}.get(form, "other")
    kind, _, path = caller.split(":", 5)[-1].partition("/")
    if kind == "root":
        return "root"
    if kind == "user":
        return "user"
    if kind != "role":
        return "other"
    if path.startswith("aws-service-role/"):
        return "service"
    if path.rpartition("/")[2].startswith(SSO_ROLE):
        return "sso"
    return "instance" if any(map(_is_instance, sessions)) else "role"


def _is_instance(session: str | None) -> bool:
    return session is not None and _INSTANCE.fullmatch(session) is not None


def _session_of(sort: str, context: Context) -> str | None:
    names = [use.session_name for use in context.sessions if use.session_name]
    if sort == "instance":
        names = [name for name in names if _is_instance(name)]
    return names[0] if names else None
