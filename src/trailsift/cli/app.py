"""The application object and the order of its commands."""

from __future__ import annotations

from collections.abc import Callable

from cyclopts import App, Group, Parameter

from trailsift import __version__
from trailsift.cli import ask, detect, ingest, lake, sampling, selectors
from trailsift.cli.aws import aws
from trailsift.cli.rules import rules

START = Group("Start", sort_key=1)
ASK = Group("Ask", sort_key=2)
FIND = Group("Find", sort_key=3)
SIFT = Group("Sift", sort_key=4)
KEEP = Group("Look after the lake", sort_key=5)
AWS = Group("On AWS", sort_key=6)
REST = Group("Options", sort_key=7)

#: The commands in the order in which the help shows them.
COMMANDS: tuple[tuple[Group, Callable[..., int]], ...] = (
    (START, ingest.demo),
    (START, ingest.generate),
    (START, ingest.ingest),
    (ASK, ask.summary),
    (ASK, ask.roles),
    (ASK, ask.role),
    (ASK, ask.query),
    (ASK, ask.export),
    (ASK, lake.columns),
    (FIND, detect.detect),
    (FIND, detect.finding),
    (FIND, detect.mute),
    (FIND, detect.confirm),
    (FIND, detect.evaluate),
    (SIFT, sampling.suggest),
    (SIFT, sampling.estimate),
    (SIFT, sampling.bench),
    (KEEP, lake.status),
    (KEEP, lake.rejects),
    (KEEP, lake.connect),
    (KEEP, lake.compact),
    (KEEP, lake.relocate),
)

app = App(
    name="trailsift",
    help="Answers from AWS CloudTrail data events in milliseconds: sift, store, ask.",
    help_epilogue="Start with `trailsift demo`: it makes logs, stores them, and shows what can be asked.",
    help_format="markdown",
    version=f"trailsift {__version__}",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=()),
)
for number, (group, command) in enumerate(COMMANDS):
    app.command(command, group=group, sort_key=number, help_epilogue="")
rules.group = SIFT
app.command(rules)
app.command(selectors.selectors, group=AWS, sort_key=len(COMMANDS), help_epilogue="")
aws.group = AWS
app.command(aws)
app["--help"].group = REST
app["--version"].group = REST
