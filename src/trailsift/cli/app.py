"""The application object and the order of its commands. A command's module is imported when the command runs."""

from __future__ import annotations

from cyclopts import App, Group, Parameter

from trailsift import __version__

START = Group("Get started", sort_key=1)
ASK = Group("Report and query", sort_key=2)
DETECT = Group("Detect", sort_key=3)
FILTER = Group("Filter and sample", sort_key=4)
MAINTAIN = Group("Maintain a lake", sort_key=5)
AWS = Group("AWS", sort_key=6)
OPTIONS = Group("Options", sort_key=7)

#: Other names of commands, which the help does not list.
ALIASES = {"bucket": "resource"}
#: (group, name, where it is) of each command, in the order in which the help shows them.
COMMANDS: tuple[tuple[Group, str, str], ...] = (
    (START, "demo", "ingest:demo_command"),
    (START, "generate", "ingest:generate_command"),
    (START, "ingest", "ingest:ingest_command"),
    (START, "watch", "watch:watch_command"),
    (START, "serve", "serve:serve_command"),
    (ASK, "summary", "ask:summary_command"),
    (ASK, "roles", "ask:roles_command"),
    (ASK, "role", "ask:role_command"),
    (ASK, "resource", "questions:resource_command"),
    (ASK, "object", "questions:object_command"),
    (ASK, "search", "questions:search_command"),
    (ASK, "compare", "questions:compare_command"),
    (ASK, "cost", "questions:cost_command"),
    (ASK, "query", "ask:query_command"),
    (ASK, "shell", "shell:shell_command"),
    (ASK, "queries", "saved:queries"),
    (ASK, "export", "ask:export_command"),
    (ASK, "columns", "lake:columns_command"),
    (DETECT, "detect", "detect:detect_command"),
    (DETECT, "finding", "detect:finding_command"),
    (DETECT, "mute", "detect:mute_command"),
    (DETECT, "confirm", "detect:confirm_command"),
    (DETECT, "evaluate", "detect:evaluate_command"),
    (FILTER, "suggest", "sampling:suggest_command"),
    (FILTER, "estimate", "sampling:estimate_command"),
    (FILTER, "bench", "sampling:bench_command"),
    (FILTER, "rules", "rules:rules"),
    (MAINTAIN, "status", "lake:status_command"),
    (MAINTAIN, "rejects", "lake:rejects_command"),
    (MAINTAIN, "connect", "lake:connect_command"),
    (MAINTAIN, "compact", "lake:compact_command"),
    (MAINTAIN, "expire", "lake:expire_command"),
    (MAINTAIN, "relocate", "lake:relocate_command"),
    (MAINTAIN, "verify", "lake:verify_command"),
    (AWS, "selectors", "selectors:selectors_command"),
    (AWS, "aws", "aws:aws"),
)

app = App(
    name="trailsift",
    help="Store AWS CloudTrail data events in a local lake and query them in milliseconds.",
    help_epilogue="Start with `trailsift demo`: it generates logs, stores them, and shows what you can ask.",
    help_format="markdown",
    version=f"trailsift {__version__}",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=()),
)
for number, (group, name, place) in enumerate(COMMANDS):
    # An application of its own (`rules`, `aws`) brings its settings along.
    settings = {"help_epilogue": ""} if place.endswith("_command") else {}
    app.command(f"trailsift.cli.{place}", name=name, group=group, sort_key=number, **settings)
for alias, name in ALIASES.items():
    place = next(place for _, listed, place in COMMANDS if listed == name)
    app.command(f"trailsift.cli.{place}", name=alias, show=False, help_epilogue="")
app["--help"].group = OPTIONS
app["--version"].group = OPTIONS


def load_commands() -> None:
    """Import every command, so that the help of the whole can describe each of them."""
    for _, name, _ in COMMANDS:
        app[name]
