"""``trailsift selectors``: a trail's event selectors for the roles that matter."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from trailsift.cli.options import JsonOption
from trailsift.errors import UsageError

if TYPE_CHECKING:
    from trailsift.aws.selectors import Selector, SelectorRequest
    from trailsift.aws.trail import TrailSelectors


def selectors(
    *,
    role: Annotated[list[str] | None, Parameter(help="ARN of a role or user, or a role's name. Repeatable.")] = None,
    service: Annotated[str, Parameter(help="s3, lambda, dynamodb, ..., or a type such as AWS::SNS::Topic.")] = "s3",
    account: Annotated[list[str] | None, Parameter(help="Accounts in which a role's name is meant.")] = None,
    writes_only: Annotated[bool, Parameter(show_default=False, help="Leave reading calls out.")] = False,
    bucket: Annotated[list[str] | None, Parameter(help="Only this BUCKET or BUCKET/PREFIX. May be repeated.")] = None,
    without_roles: Annotated[
        bool, Parameter(show_default=False, help="For a trail that refuses roles: a rules file keeps them instead.")
    ] = False,
    rules_output: Annotated[
        Path, Parameter(help="Where the rules file goes that keeps the roles, where the trail cannot.")
    ] = Path("only-roles.toml"),
    existing: Annotated[
        Path | None, Parameter(help="What the trail has: the JSON of `aws cloudtrail get-event-selectors`.")
    ] = None,
    lake: Annotated[Path | None, Parameter(name=["--lake", "-l"], help="Reckon the cost at this lake's rates.")] = None,
    apply: Annotated[str | None, Parameter(help="Put them on this trail, after showing the change and asking.")] = None,
    yes: Annotated[bool, Parameter(show_default=False, help="With --apply: do not ask.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Event selectors for the roles that matter, as `aws cloudtrail put-event-selectors` takes them.

    Standard output has the selectors; standard error what the trail logs today, and what they cost.

    Example: `trailsift selectors --role arn:aws:iam::123456789012:role/etl --service s3,lambda,dynamodb`
    """
    from trailsift.aws import selectors as make

    if not role and not without_roles:
        raise UsageError("whose data events? Name roles with --role, or take everybody's with --without-roles")
    services = [name.strip() for name in service.split(",") if name.strip()]
    want = make.parse_request(role or [], services, account or [], writes_only=writes_only, buckets=bucket or [])
    if apply is not None and existing is not None:
        raise UsageError("--apply reads what the trail has: leave --existing out")
    trail, have = None, _existing(existing)
    if apply is not None:
        from trailsift.aws.trail import TrailSelectors

        trail = TrailSelectors(apply)
        have = trail.get()
    chosen = make.merge_selectors(have, make.build_selectors(want, by_role=not without_roles))
    make.check_limit(chosen)
    said = _said(want, have, lake, as_json)
    if without_roles and want.callers:
        _rules(make.role_rules(want), rules_output)
    if as_json:
        sys.stdout.write(json.dumps({"AdvancedEventSelectors": chosen, **said}, indent=2) + "\n")
    elif trail is None:
        sys.stdout.write(json.dumps(chosen, indent=2) + "\n")
    if trail is None or have is None:
        return 0
    asking = not yes
    try:
        return _applied(trail, have, chosen, asking, as_json)
    except make.RolesRefused as error:
        print(f"trailsift: {error}", file=sys.stderr)
    _rules(make.role_rules(want), rules_output)
    if not asking:
        # Everybody's events cost more than was agreed to.
        raise UsageError(f"the trail {apply} was not changed: --without-roles puts the next best set on it")
    print("trailsift: the next best set logs these events whoever makes them", file=sys.stderr)
    _said(replace(want, callers=()), None, lake, as_json)
    return _applied(trail, have, make.merge_selectors(have, make.build_selectors(want, by_role=False)), asking, as_json)


def _existing(path: Path | None) -> list[Selector] | None:
    from trailsift.aws.selectors import advanced_selectors

    if path is None:
        return None
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error
    return advanced_selectors({"AdvancedEventSelectors": value} if isinstance(value, list) else value)


def _said(want: SelectorRequest, have: list[Selector] | None, lake: Path | None, as_json: bool) -> dict[str, Any]:
    """Tells what is logged today and what it costs; the same as values."""
    from trailsift.aws.selectors import coverage, selects_data_events
    from trailsift.terminal import aws as view

    said: dict[str, Any] = {}
    if have is not None:
        state = coverage(have, want)
        if not any(selects_data_events(one) for one in have) and not as_json:
            told = "no data events are logged so far: these selectors switch them on, once they are on the trail"
            print(f"trailsift: {told}", file=sys.stderr)
        said["logged_today"] = [one._asdict() for one in state]
        if not as_json:
            for one in state:
                print(f"trailsift: {one.arn} {one.type}: reads {one.reads}, writes {one.writes}", file=sys.stderr)
    if lake is not None:
        from trailsift.analysis.time_range import period
        from trailsift.analysis.trail_coverage import cost
        from trailsift.cli.session import engine_of

        found = cost(engine_of(lake), period(None, None), want)
        said["cost_a_month"] = found._asdict()
        if not as_json:
            print(f"trailsift: {view.cost_text(found)}", file=sys.stderr)
    return said


def _rules(text: str, path: Path) -> None:
    if path.exists() and path.read_text("utf-8") != text:
        raise UsageError(f"{path} is there already, with other rules: name another file with --rules-output")
    path.write_text(text, "utf-8")
    print(f"trailsift: wrote {path}: rules that keep the data events of these roles only", file=sys.stderr)


def _applied(trail: TrailSelectors, have: list[Selector], chosen: list[Selector], asking: bool, as_json: bool) -> int:
    from trailsift.terminal.aws import show_change

    if have == chosen:
        print(f"trailsift: the trail {trail.name} has these selectors already", file=sys.stderr)
        return 0
    if not as_json:
        show_change(json.dumps(have, indent=2).splitlines(), json.dumps(chosen, indent=2).splitlines())
    if asking:
        if not sys.stdin.isatty():
            raise UsageError(f"the trail {trail.name} was not changed: there is nobody to ask; --yes changes it")
        if input(f"Replace the selectors of the trail {trail.name}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("trailsift: nothing was changed", file=sys.stderr)
            return 0
    trail.put(chosen)
    print(f"trailsift: the trail {trail.name} has these selectors now: read back and compared", file=sys.stderr)
    return 0
