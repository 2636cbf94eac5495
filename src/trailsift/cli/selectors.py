"""``trailsift selectors``: a trail's event selectors for the roles that matter."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from trailsift.cli.options import JsonOption, LakePlace, lake_place
from trailsift.cli.session import open_lake
from trailsift.errors import UsageError
from trailsift.storage.output_file import new_file
from trailsift.terminal.output import ask, print_json, say

if TYPE_CHECKING:
    from trailsift.aws.selectors import Selector, SelectorRequest
    from trailsift.aws.trail import TrailSelectors


def selectors_command(
    *,
    role: Annotated[list[str] | None, Parameter(help="ARN of a role or user, or a role's name. Repeatable.")] = None,
    service: Annotated[str, Parameter(help="s3, lambda, dynamodb, ..., or a type such as AWS::SNS::Topic.")] = "s3",
    account: Annotated[
        list[str] | None, Parameter(help="Account in which to look for a role's name. Repeatable.")
    ] = None,
    writes_only: Annotated[bool, Parameter(show_default=False, help="Write events only.")] = False,
    bucket: Annotated[list[str] | None, Parameter(help="Only this BUCKET or BUCKET/PREFIX. Repeatable.")] = None,
    without_roles: Annotated[
        bool, Parameter(show_default=False, help="Select all callers; a rules file keeps the named roles instead.")
    ] = False,
    rules_output: Annotated[
        Path, Parameter(help="Where to write the rules file if the trail cannot filter by role.")
    ] = Path("only-roles.toml"),
    existing: Annotated[
        Path | None, Parameter(help="Present selectors: the JSON of `aws cloudtrail get-event-selectors`.")
    ] = None,
    lake: Annotated[
        LakePlace | None,
        Parameter(
            name=["--lake", "-l"], converter=lake_place, n_tokens=1, help="Estimate the cost from this lake's rates."
        ),
    ] = None,
    apply: Annotated[
        str | None, Parameter(help="Put the selectors on this trail, after showing the change and asking.")
    ] = None,
    partition: Annotated[
        str | None, Parameter(help="aws-us-gov, aws-cn ...: for names. ARNs have it. Default: aws.")
    ] = None,
    yes: Annotated[bool, Parameter(show_default=False, help="With --apply: do not ask.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Write event selectors for the roles that matter, as `aws cloudtrail put-event-selectors` takes them.

    Standard output has the selectors; standard error has what the trail logs today, and the cost.

    Example: `trailsift selectors --role arn:aws:iam::123456789012:role/etl --service s3,lambda,dynamodb`
    """
    from trailsift.aws import selectors

    if not role and not without_roles:
        raise UsageError("name roles with --role, or select all callers with --without-roles")
    services = [name.strip() for name in service.split(",") if name.strip()]
    request = selectors.parse_request(
        role or [], services, account or [], writes_only=writes_only, buckets=bucket or [], partition=partition
    )
    if apply is not None and existing is not None:
        raise UsageError("--apply reads the trail's present selectors: leave out --existing")
    trail, present = None, _existing(existing)
    if apply is not None:
        from trailsift.aws.trail import TrailSelectors

        trail = TrailSelectors(apply)
        present = trail.get()
    chosen = selectors.merge_selectors(present, selectors.build_selectors(request, by_role=not without_roles))
    selectors.check_limit(chosen)
    facts = _report(request, present, lake, as_json)
    if not as_json:
        for note in selectors.notes(request, present, by_role=not without_roles):
            say(note)
    if without_roles and request.callers:
        _write_rules(selectors.role_rules(request), rules_output)
    if as_json:
        print_json({"AdvancedEventSelectors": chosen, **facts})
    elif trail is None:
        print_json(chosen)
    if trail is None or present is None:
        return 0
    try:
        return _apply(trail, present, chosen, asking=not yes, as_json=as_json)
    except selectors.RolesRefused as error:
        say(str(error))
    _write_rules(selectors.role_rules(request), rules_output)
    if yes:
        # The events of all callers cost more than was agreed to.
        raise UsageError(f"the trail {apply} was not changed: --without-roles puts the next best selectors on it")
    say("the next best selectors log these events for all callers")
    _report(replace(request, callers=()), None, lake, as_json)
    chosen = selectors.merge_selectors(present, selectors.build_selectors(request, by_role=False))
    return _apply(trail, present, chosen, asking=True, as_json=as_json)


def _existing(path: Path | None) -> list[Selector] | None:
    from trailsift.aws.selectors import advanced_selectors

    if path is None:
        return None
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error
    return advanced_selectors({"AdvancedEventSelectors": value} if isinstance(value, list) else value)


def _report(
    request: SelectorRequest, present: list[Selector] | None, lake: LakePlace | None, as_json: bool
) -> dict[str, Any]:
    """Say on standard error what the trail logs today and what the selectors cost; return the same for ``--json``."""
    from trailsift.aws.selectors import coverage, selects_data_events
    from trailsift.terminal.aws import cost_text

    facts: dict[str, Any] = {}
    if present is not None:
        state = coverage(present, request)
        if not any(selects_data_events(selector) for selector in present) and not as_json:
            say("the trail logs no data events so far; these selectors switch them on once they are applied")
        facts["logged_today"] = [part._asdict() for part in state]
        if not as_json:
            for part in state:
                say(f"{part.arn} {part.type}: reads {part.reads}, writes {part.writes}")
    if lake is not None:
        cost = open_lake(lake).selector_cost(request)
        facts["cost_a_month"] = cost._asdict()
        if not as_json:
            say(cost_text(cost))
    return facts


def _without_comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _write_rules(text: str, path: Path) -> None:
    if path.exists() and _without_comments(path.read_text("utf-8")) != _without_comments(text):
        raise UsageError(f"{path} exists and holds other rules: name another file with --rules-output")
    with new_file(path, "w", private=False, encoding="utf-8") as file:
        file.write(text)
    say(f"wrote {path}: rules that keep only the data events of these roles")


def _apply(
    trail: TrailSelectors, present: list[Selector], chosen: list[Selector], *, asking: bool, as_json: bool
) -> int:
    from trailsift.terminal.aws import show_change

    if present == chosen:
        say(f"the trail {trail.name} already has these selectors")
        return 0
    if not as_json:
        show_change(json.dumps(present, indent=2).splitlines(), json.dumps(chosen, indent=2).splitlines())
    if asking:
        if not sys.stdin.isatty():
            raise UsageError(f"the trail {trail.name} was not changed: no terminal to ask on; --yes changes it")
        if ask(f"Replace the selectors of the trail {trail.name}? [y/N]").strip().lower() not in ("y", "yes"):
            say("nothing was changed")
            return 0
    trail.put(chosen)
    say(f"the trail {trail.name} now has these selectors (read back and compared)")
    return 0
