"""Commands about rules files: rules list, show, check, try."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from trailsift.cli.options import JsonOption, LakePlace, NoFindingsOption, PricesOption, lake_place
from trailsift.errors import UsageError

FileArgument = Annotated[str, Parameter(name="FILE", help="A rules file (TOML), or the name of a preset.")]

rules = App(
    name="rules", help="List, show, check and try rules files: what to keep, sample and drop.", help_epilogue=""
)


@rules.command(name="list", sort_key=1)
def list_command(*, as_json: JsonOption = False) -> int:
    """List the rules files that come with trailsift.

    Example: `trailsift rules list`
    """
    from trailsift.rules.presets import PRESETS
    from trailsift.terminal.output import print_json
    from trailsift.terminal.rules import show_presets

    if as_json:
        print_json(PRESETS)
    else:
        show_presets(PRESETS)
    return 0


@rules.command(name="show", sort_key=2)
def show_command(name: Annotated[str, Parameter(name="NAME", help="A name from `trailsift rules list`.")], /) -> int:
    """Print a rules file that comes with trailsift, to copy and change.

    Example: `trailsift rules show time-of-day > my.toml`
    """
    from trailsift.rules.presets import preset_text
    from trailsift.terminal.output import print_script

    print_script(preset_text(name))
    return 0


@rules.command(name="check", sort_key=3)
def check_command(file: FileArgument, /, *, as_json: JsonOption = False) -> int:
    """Check a rules file, and report every problem with its line. Exit code 2: it cannot be used.

    Example: `trailsift rules check my.toml`
    """
    from trailsift.rules.presets import open_rules
    from trailsift.terminal.output import print_json
    from trailsift.terminal.rules import show_checked

    checked = open_rules(file)
    if as_json:
        print_json(
            {
                "file": file,
                "digest": checked.digest,
                "timezone": checked.timezone,
                "rules": [{"name": rule.name, "action": rule.action, "line": rule.line} for rule in checked.rules],
                "omit": list(checked.omit),
            }
        )
    else:
        show_checked(checked)
    return 0


@rules.command(name="try", sort_key=4)
def try_command(
    file: FileArgument,
    /,
    *paths: Annotated[str, Parameter(name="PATH", help="Log files, folders or archives.")],
    lake: Annotated[
        LakePlace | None,
        Parameter(
            name=["--lake", "-l"],
            converter=lake_place,
            n_tokens=1,
            help="Use the events of this lake instead of log files.",
        ),
    ] = None,
    no_findings: NoFindingsOption = False,
    prices: PricesOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show what a rules file would keep, sample and drop: its cost, its blind spots, its effect on findings.

    Nothing is written. Examples: `trailsift rules try my.toml logs/AWSLogs`, `trailsift rules try my.toml --lake lake`
    """
    from trailsift.rules.presets import open_rules
    from trailsift.terminal.output import print_json
    from trailsift.terminal.rules import show_losses, show_rehearsal

    if bool(paths) == (lake is not None):
        raise UsageError("name log files to try the rules on, or a lake with --lake, but not both")
    chosen = open_rules(file)
    losses = None
    if lake is not None:
        from trailsift.api import Lake

        handle = Lake(lake)
        result = handle.try_rules(chosen, prices=prices)
        losses = None if no_findings else handle.rule_impact(chosen)
    else:
        from trailsift.ingest.dry_run import dry_run
        from trailsift.prices import load_prices

        result = dry_run(chosen, load_prices(prices), list(paths))
    if as_json:
        print_json(result.as_dict() | ({} if losses is None else {"findings": [loss._asdict() for loss in losses]}))
    else:
        show_rehearsal(result)
        show_losses(losses, "try the rules on a lake (--lake)" if lake is None else "leave out --no-findings")
    return 0
