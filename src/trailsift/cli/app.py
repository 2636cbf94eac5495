"""The application object and the order of its commands."""

from __future__ import annotations

from cyclopts import App, Group

from trailsift import __version__

app = App(
    name="trailsift",
    help="Answers from AWS CloudTrail data events in milliseconds: sift, store, ask.",
    help_epilogue="Start with `trailsift demo`: it makes logs, stores them, and shows what can be asked.",
    help_format="markdown",
    version=f"trailsift {__version__}",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)

START = Group("Start", sort_key=1)
ASK = Group("Ask", sort_key=2)
KEEP = Group("Look after the lake", sort_key=3)

# Resolved on first use, so that one command does not import what another needs.
app.command("trailsift.cli.load:demo", group=START, sort_key=1)
app.command("trailsift.cli.load:generate", group=START, sort_key=2)
app.command("trailsift.cli.load:ingest", group=START, sort_key=3)
app.command("trailsift.cli.ask:summary", group=ASK, sort_key=1)
app.command("trailsift.cli.ask:roles", group=ASK, sort_key=2)
app.command("trailsift.cli.ask:role", group=ASK, sort_key=3)
app.command("trailsift.cli.ask:query", group=ASK, sort_key=4)
app.command("trailsift.cli.ask:export", group=ASK, sort_key=5)
app.command("trailsift.cli.keep:columns", group=ASK, sort_key=6)
app.command("trailsift.cli.keep:status", group=KEEP, sort_key=1)
app.command("trailsift.cli.keep:rejects", group=KEEP, sort_key=2)
app.command("trailsift.cli.keep:connect", group=KEEP, sort_key=3)
app["--help"].group = KEEP
app["--version"].group = KEEP
