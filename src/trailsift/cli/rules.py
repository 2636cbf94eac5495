"""Commands about rules files: rules list, show, check, try."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from trailsift.cli.options import JsonOption, NoFindingsOption, PricesOption
from trailsift.errors import UsageError

if TYPE_CHECKING:
    from trailsift.detect.rule_impact import Loss
    from trailsift.rules import Rules

FileArgument = Annotated[str, Parameter(name="FILE", help="A rules file (TOML), or the name of a ready one.")]

rules = App(name="rules", help="Rules files: what to keep, sample or drop. Check and rehearse one before it is used.")


@rules.command(name="list")
def ready(*, as_json: JsonOption = False) -> int:
    """The rules files that come with trailsift.

    Example: `trailsift rules list`
    """
    from trailsift.rules.presets import READY
    from trailsift.terminal.console import print_json
    from trailsift.terminal.rules import show_ready

    if as_json:
        print_json(READY)
    else:
        show_ready(READY)
    return 0


@rules.command(name="show")
def text(name: Annotated[str, Parameter(name="NAME", help="A name that `trailsift rules list` tells.")], /) -> int:
    """The text of a rules file that comes with trailsift, to copy and change.

    Example: `trailsift rules show time-of-day > my.toml`
    """
    from trailsift.rules.presets import text as text_of

    sys.stdout.write(text_of(name))
    return 0


@rules.command(name="check")
def check(file: FileArgument, /, *, as_json: JsonOption = False) -> int:
    """Whether a rules file can be used; every problem is told with its line. Exit code 2 where it cannot.

    Example: `trailsift rules check my.toml`
    """
    from trailsift.rules.presets import open_rules
    from trailsift.terminal.console import print_json
    from trailsift.terminal.rules import show_checked

    found = open_rules(file)
    if as_json:
        print_json(
            {
                "file": file,
                "digest": found.digest,
                "timezone": found.timezone,
                "rules": [{"name": rule.name, "action": rule.action, "line": rule.line} for rule in found.rules],
                "omit": list(found.omit),
            }
        )
    else:
        show_checked(found)
    return 0


@rules.command(name="try")
def rehearse(
    file: FileArgument,
    /,
    *paths: Annotated[str, Parameter(name="PATH", help="Log files, folders or archives.")],
    lake: Annotated[
        Path | None, Parameter(name=["--lake", "-l"], help="Instead of log files, the events stored in this lake.")
    ] = None,
    no_findings: NoFindingsOption = False,
    prices: PricesOption = None,
    as_json: JsonOption = False,
) -> int:
    """What a rules file would keep, sample and drop, what that costs, what would no longer be seen, what findings lose.

    Nothing is written. Examples: `trailsift rules try my.toml logs/AWSLogs`, `trailsift rules try my.toml --lake lake`
    """
    from trailsift.prices import prices as load_prices
    from trailsift.rules.presets import open_rules
    from trailsift.terminal.console import print_json
    from trailsift.terminal.rules import show_losses, show_rehearsal

    if bool(paths) == (lake is not None):
        raise UsageError("on what? Name log files, or a lake with --lake")
    chosen = open_rules(file)
    from trailsift.ingest.dry_run import dry_run

    found = dry_run(chosen, load_prices(prices), list(paths), lake)
    lost = losses_of(lake, chosen) if lake is not None and not no_findings else None
    if as_json:
        print_json(found.as_dict() | ({} if lost is None else {"findings": [one._asdict() for one in lost]}))
    else:
        show_rehearsal(found)
        show_losses(
            lost, "a rehearsal on a lake (--lake) tells it" if lake is None else "leave --no-findings out to learn it"
        )
    return 0


def losses_of(lake: Path, rules: Rules) -> list[Loss]:
    """What becomes of the findings of a lake under some rules."""
    from trailsift.cli.session import engine_of
    from trailsift.detect.detection_rules import builtin_rules
    from trailsift.detect.rule_impact import losses
    from trailsift.ingest.what_if import filtered_lake
    from trailsift.lake.open import open_snapshot
    from trailsift.query import DuckDBEngine

    with filtered_lake(lake, rules) as folder, DuckDBEngine(open_snapshot(folder)) as thin:
        return losses(engine_of(lake), thin, builtin_rules()[0])
