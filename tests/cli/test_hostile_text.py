"""Text of logs, lakes and arguments never steers a terminal or a shell, whatever command shows it."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cyclopts import App
from rich.console import Console
from rich.table import Table
from rich.text import Text

import trailsift
from support import hostile
from support.hostile import EVIL, SHELL
from trailsift.cli import main
from trailsift.cli.app import COMMANDS, app
from trailsift.terminal.console import SafeConsole, grid
from trailsift.terminal.output import Messages

PACKAGE = Path(trailsift.__file__).parent
LAKE = "$LAKE"
AGENT = "SELECT {} FROM events WHERE user_agent LIKE '%EVIL%' LIMIT 3"
TEXTS = (
    "user_agent, object_key, role_arn, session_name, error_message, resource_arn, event_name, aws_region, log_object"
)
JSON_COLUMNS = "request_parameters, resources, rest, {'a': user_agent} AS made, [user_agent] AS listed"

#: Each command in its forms; $LAKE is a lake of hostile records, $LOGS their log, $FOLDER a folder with that log, and
#: $OUT a folder that can be written.
RUNS: dict[str, list[list[str]]] = {
    "demo": [["--events", "3000", "--days", "1", "--dir", "$OUT/demo"], ["--dir", f"/dev/null/{EVIL}"]],
    "generate": [[f"$OUT/g{EVIL}", "--events", "500", "--days", "1"], ["$OUT/h", "--start", EVIL]],
    "ingest": [
        [f"$OUT/{EVIL}"],
        ["$LOGS", "--lake", f"$OUT/i{EVIL}", "--rules", "$OUT/rules.toml", "--workers", "1", "--detect"],
        ["$LOGS", "--lake", "$OUT/i2", "--rules", f"{EVIL}.toml"],
        ["$LOGS", "--lake", "$OUT/i2", "--since", EVIL],
    ],
    "watch": [
        ["$FOLDER", "--lake", f"$OUT/w{EVIL}", "--once"], ["$FOLDER", "--lake", "$OUT/w2", "--once", "--json"],
        ["$FOLDER", "--lake", "$OUT/w3", "--once", "--detect"], [f"$OUT/{EVIL}"], ["$FOLDER", "--for", EVIL],
        [f"https://example.org/{EVIL}"], [f"s3://{EVIL}/x"], ["$FOLDER", "--rules", f"{EVIL}.toml"],
    ],
    "serve": [
        [*words, "--no-page"]
        for words in (
            ["--port", "0"], ["--timezone", EVIL], ["--tls-cert", f"/dev/null/{EVIL}"], ["--memory-limit", EVIL],
            ["--host", EVIL], ["--max-rows", EVIL],
        )
    ],
    "summary": [
        [], ["--json"], ["--since", EVIL], ["--timezone", EVIL], ["--by", EVIL],
        *(["--by", by, "--limit", "0"]
          for by in ("event", "role", "resource", "hour", "service", "account", "region", "error")),
    ],
    "roles": [[], ["--json"], ["--need-data-events"], ["--need-data-events", "--json"]],
    "role": [["EVIL", "--limit", "0"], ["app"], ["EVIL", "--json"], [EVIL], [f"nosuch{EVIL}"], ["111122223333"]],
    "resource": [["EVIL", "--limit", "0"], ["s3:data"], ["s3:data", "--json"], [EVIL], [f"nosuch{EVIL}"],
                 ["s3:data", "--csv"]],
    "object": [["data/*"], ["data/*", "--csv"], ["data/*", "--json"], [f"data/{EVIL}"], [EVIL], [f"{EVIL}/x"]],
    "search": [["EVIL"], ["EVIL", "--limit", "0"], ["EVIL", "--json"], ["EVIL", "--csv"], [EVIL], ["10.0.0.0/8"],
               ["data"]],
    "compare": [["--since", "2026-01-01", "--limit", "0"], ["--since", EVIL], ["--since", "2026-01-01", "--with", EVIL],
                ["--since", "2026-01-01", "--csv"], ["--since", "2026-01-01", "--json"]],
    "cost": [[], ["--limit", "0"], ["--json"], ["--csv"], ["--by", EVIL], ["--prices", f"/dev/null/{EVIL}"]],
    "query": [
        [AGENT.format(TEXTS)], [AGENT.format(JSON_COLUMNS)],
        *([AGENT.format(f"{TEXTS}, {JSON_COLUMNS}"), "--format", form] for form in ("line", "json", "csv")),
        ["SELECT 1", "-o", f"{LAKE}/{EVIL}"], ["SELECT 1", "-o", "$LOGS"],
        [AGENT.format("user_agent"), "--format", "csv", "--csv-safe"],
        *([AGENT.format(f"{call}")] for call in (
            "CAST(user_agent AS INT)", "error(user_agent)", "strptime(user_agent, '%Y')", "user_agent::JSON",
            f"nosuch AS \"{EVIL}\"", f"1 AS \"{EVIL}\"",
        )),
        [f"SELECT '{EVIL}' AS a", "--explain"], [f"SELECT * FROM \"{EVIL}\""], [EVIL],
        [f"SELECT * FROM events WHERE event_name = '{EVIL}'"], [f"SELECT count(*) FROM rejects WHERE raw = '{EVIL}'"],
        ["SELECT * FROM rejects"], ["SELECT 1", "--timezone", EVIL], [f"SELECT '{EVIL}'", "--engine", "athena"],
    ],
    "shell": [[], ["--timezone", EVIL]],
    "queries list": [[], ["--json"]],
    "queries show": [["evil"], [EVIL], [f"nosuch{EVIL}"]],
    "queries save": [["evil", f"SELECT '{EVIL}' AS a", "--force"], [EVIL, "SELECT 1"], ["x", EVIL]],
    "queries delete": [["nosuch"], [EVIL]],
    "export": [[], ["--format", "records"], ["--where", f"user_agent = '{EVIL}'"], ["--where", EVIL],
               ["--output", f"$OUT/nosuch{EVIL}/x"], ["--output", f"$OUT/e{EVIL}"]],
    "columns": [[], ["--json"], ["--format", "markdown"], [EVIL]],
    "detect": [[], ["--json"], ["--threshold", "5"], ["--threshold", "5", "--json"], ["--new"], ["--lang", "ko"],
               ["--muted", "--full-refresh"], ["--check"], ["--detections", f"/dev/null/{EVIL}"],
               ["--detections", "$OUT/detections"], ["--sigma", f"/dev/null/{EVIL}"],
               ["--sigma", "$OUT/sigma"], ["--check", "--sigma", "$OUT/sigma"], ["--webhook", f"http://127.0.0.1:9/{EVIL}"]],
    "finding": [["1"], ["1", "--json"], ["1", "--records"], ["2"], [EVIL], ["1", "--lang", "ko", "--limit", "0"]],
    "mute": [["2", "--reason", EVIL], ["3", "--reason", EVIL, "--json"], [EVIL, "--reason", "x"]],
    "unmute": [[EVIL], ["", "--json"]],
    "confirm": [["1", "--reason", EVIL], ["1", "--reason", EVIL, "--json"], [EVIL, "--reason", "x"]],
    "evaluate": [["--seeds", "0"], ["--seeds", "1", "--events", EVIL]],
    "suggest": [[], ["--limit", "0"], ["--rules"], ["--json", "--no-findings"], ["--prices", f"/dev/null/{EVIL}"]],
    "estimate": [[], ["--by", "user_agent,role_arn"], ["--by", "hour,session_name", "--json"], ["--by", EVIL],
                 ["--where", f"user_agent = '{EVIL}"]],
    "bench": [[f"$OUT/nosuch{EVIL}", "--rounds", "1", "--dir", "$OUT/bench"], ["--dir", f"/dev/null/{EVIL}"]],
    "rules list": [[], ["--json"]],
    "rules show": [["time-of-day"], [EVIL]],
    "rules check": [["$OUT/rules.toml"], ["$OUT/rules.toml", "--json"], ["$OUT/wrong.toml"], [f"{EVIL}.toml"]],
    "rules try": [["$OUT/rules.toml", "--lake", LAKE], ["$OUT/rules.toml", "$LOGS"], ["$OUT/wrong.toml", "$LOGS"],
                  ["$OUT/rules.toml", "--lake", LAKE, "--json"], [f"{EVIL}.toml", f"/dev/null/{EVIL}"]],
    "status": [[], ["--json"]],
    "rejects": [[], ["--json"], ["--limit", "0"]],
    "connect": [[], ["-o", "$OUT/lake.sql"], ["-o", f"$OUT/{EVIL[:60]}.duckdb"], ["-o", f"/dev/null/{EVIL}"],
                ["--glue", EVIL], ["--no-glue"], ["--region", EVIL],
                ["--glue", EVIL, "--region", EVIL, "--catalog-id", EVIL, "--lake", "s3://no-such-bucket/lake"]],
    "compact": [["--all"], ["--json"]],
    "expire": [["--events", "9000d", "--dry-run"], ["--events", EVIL], ["--at-least", EVIL, "--events", "90d"],
               ["--events", "9000d", "--save"], ["--show"], ["--show", "--json"], [], ["--json"], ["--forget"]],
    "relocate": [[], ["--json"]],
    "verify": [[], ["--quick"], ["--json"], ["--lake", f"$OUT/nosuch{EVIL}"]],
    "selectors": [["--role", "arn:aws:iam::111122223333:role/app", "--lake", LAKE], ["--role", EVIL],
                  ["--role", "app", "--account", EVIL], ["--role", "app", "--service", EVIL],
                  ["--role", "arn:aws:iam::111122223333:role/app", "--existing", "$OUT/existing.json"],
                  ["--role", "arn:aws:iam::111122223333:role/app", "--bucket", EVIL]],
    "aws package": [["--output", f"$OUT/{EVIL[:60]}.zip", "--wheels", f"/dev/null/{EVIL}"]],
    "aws sql": [
        ["--trail", "t-bucket", "--account", "111122223333"],
        ["--trail", EVIL, "--account", "111122223333"],
        ["--trail", "t-bucket", "--account", EVIL],
        ["--trail", "t-bucket", "--account", "111122223333", "--only", EVIL],
        ["--trail", "t-bucket", "--account", "111122223333", "--json"],
    ],
    "aws glue": [[f"landing/{EVIL}", "--bucket", "b-1"], ["--crawler", EVIL], ["--bucket", EVIL]],
    "aws render": [
        ["--out", f"$OUT/r{EVIL[:60]}", "--trail", "t-bucket", "--account", "111122223333"],
        ["--out", "$OUT/r2", "--trail", "t-bucket", "--account", "111122223333", "--stack", EVIL],
    ],
}  # fmt: skip
#: Commands that take no --lake, or have it in their words.
NO_LAKE = ("demo", "generate", "columns", "evaluate", "bench", "rules", "selectors", "aws")
_HELP = ("--help", "-h", "--version")


def all_commands() -> set[str]:
    """Return the names of all commands, with those of ``rules`` and ``aws``."""
    names = set()
    for _, name, _ in COMMANDS:
        command = app[name]
        below = [word for word in command if word not in _HELP] if isinstance(command, App) else []
        names |= {f"{name} {word}" for word in below} or {name}
    return names


def test_every_command_is_run() -> None:
    assert all_commands() == set(RUNS)


class World:
    """A lake of hostile records, and what the commands are given beside it."""

    def __init__(self, home: Path) -> None:
        self.lake, self.out = home / f"lake {EVIL[:60].replace('/', '')}", home / "out"
        self.out.mkdir()
        name = EVIL.replace("/", "").replace("\x00", "")[:70]
        self.logs = home / f"log {name}.json"
        written = [*hostile.records(), *hostile.records(SHELL), *hostile.records(hostile.READABLE)]
        # Escapes of records that cannot be stored: they go to the rejects with their text.
        broken = [{**written[0], "eventTime": EVIL}, {"eventVersion": EVIL}, EVIL]
        self.logs.write_text(json.dumps({"Records": [*written, *broken]}, ensure_ascii=False), "utf-8")
        self.folder = home / f"folder {name}"
        self.folder.mkdir()
        shutil.copy(self.logs, self.folder)
        rules = '[[rule]]\nname = "한 \u3164 rule"\nwhen = { event_name = "Decrypt" }\naction = "drop"\n'
        (self.out / "rules.toml").write_text(rules, "utf-8")
        wrong = json.dumps({"name": EVIL, "action": EVIL, EVIL: EVIL, "when": EVIL})[1:-1].replace(": ", " = ")
        (self.out / "wrong.toml").write_text("[[rule]]\n" + wrong.replace(', "', '\n"').replace("\x7f", ""), "utf-8")
        (self.out / "existing.json").write_text(json.dumps([{"Name": EVIL, "FieldSelectors": [{"Field": EVIL}]}]))
        (self.out / "sigma").mkdir()
        (self.out / "sigma" / "broken.yml").write_text(f"{EVIL}: [", "utf-8")
        for number, item in enumerate(({EVIL: EVIL}, {"eventSource": "s3.amazonaws.com"}, {f"eventName|{EVIL}": 1})):
            rule = {
                "title": f"{EVIL}{number}",
                "name": EVIL + str(number),
                "logsource": {"product": "aws"},
                "level": "high",
            }
            rule["detection"] = {"s": item, "condition": "s"}
            (self.out / "sigma" / f"{number}.yml").write_text(json.dumps(rule), "utf-8")
        (self.out / "detections").mkdir()
        (self.out / "detections" / "x.toml").write_text(f'id = "x"\ntitle = {json.dumps(EVIL)}\n', "utf-8")
        assert main(["ingest", str(self.logs), "--lake", str(self.lake), "--workers", "1", "-q"]) == 3

    def words(self, name: str, words: list[str]) -> list[str]:
        places = {LAKE: str(self.lake), "$LOGS": str(self.logs), "$OUT": str(self.out)}
        places["$FOLDER"] = str(self.folder)
        listed = [*name.split(), *words]
        if name.split()[0] not in NO_LAKE and "--lake" not in words:
            listed += ["--lake", LAKE]
        for mark, place in places.items():
            listed = [word.replace(mark, place) for word in listed]
        return listed


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("hostile"))


def on_a_terminal(words: list[str], monkeypatch: pytest.MonkeyPatch, width: int = 1500) -> tuple[int, str]:
    """Run a command with standard output and error on a terminal; return its exit code and what the terminal got."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdin", io.StringIO(EVIL))
    with hostile.terminal() as (stream, finish):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        # The parser would keep the console of its first help, with its width.
        monkeypatch.setattr(app, "_console", Console())
        code = main(words)
        return code, finish()


CASES = [(name, words) for name, runs in RUNS.items() for words in runs]


@pytest.mark.parametrize(("name", "words"), CASES, ids=[f"{name} {number}" for number, (name, _) in enumerate(CASES)])
def test_no_command_lets_a_log_steer_the_terminal(
    name: str, words: list[str], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.out)
    code, seen = on_a_terminal(world.words(name, words), monkeypatch)
    assert seen and "trailsift: unexpected" not in seen, (code, seen[:500])
    assert hostile.unsafe(seen) == []
    assert not list(world.out.rglob("PWNED"))


@pytest.mark.parametrize(
    "words", [[EVIL], ["rules", EVIL], ["summary", f"--{EVIL}"], ["--help", EVIL], [EVIL, "--help"]]
)
def test_words_that_are_no_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert hostile.unsafe(on_a_terminal(words, monkeypatch)[1]) == []


@pytest.mark.parametrize("name", sorted(RUNS))
def test_help(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, seen = on_a_terminal([*name.split(), "--help"], monkeypatch)
    assert code == 0 and hostile.unsafe(seen) == []


def test_the_check_finds_raw_text() -> None:
    """Each kind of character by itself, and a forged line."""
    assert hostile.unsafe("fine \x1b[1mbold\x1b[0m \x1b[38;5;4mblue\x1b[0m" + hostile.READABLE) == []
    for (
        sign
    ) in "\x1b\x07\x08\r\t\x7f\x9b\u202e\u2066\u200b\u200f\u061c\u2060\u2028\ufeff\ufff9\U000e0041\u00ad\u3164\ue000":
        assert hostile.unsafe(f"a{sign}b"), hex(ord(sign))
    assert hostile.unsafe("\x1b[5;7mEVIL") and hostile.unsafe("a\r\nFAKE LINE: all ok")


def test_a_strange_lake_json(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place that a lake names, and a budget, are somebody's text."""
    lake = tmp_path / "copy"
    shutil.copytree(world.lake, lake)
    settings = json.loads((lake / "lake.json").read_text("utf-8"))
    changes: list[dict[str, object]] = [
        {"location": f"/tmp/{EVIL}"}, {"format": EVIL}, {"format_version": EVIL}, {"budgets": {EVIL: EVIL}},
    ]  # fmt: skip
    for change in changes:
        (lake / "lake.json").write_text(json.dumps(settings | change), "utf-8")
        for words in (["status"], ["query", "SELECT 1"], ["compact"], ["relocate"]):
            code, seen = on_a_terminal([*words, "--lake", str(lake)], monkeypatch)
            assert hostile.unsafe(seen) == [], (change, words, code)


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("words", [["detect"], ["finding", "1"], ["detect", "--lang", "ko"]])
def test_a_folded_line_does_not_begin_with_text_of_a_log(
    words: list[str], width: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, seen = on_a_terminal([*words, "--lake", str(world.lake)], monkeypatch, width)
    # The list cuts names to its columns.
    assert ("FAKE" in seen or words[0] == "detect") and hostile.unsafe(seen) == []


def test_columns_stay_aligned_and_korean_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _, seen = on_a_terminal(["role", "app", "--lake", str(world.lake), "--limit", "0"], monkeypatch)
    assert "한국어" in seen and "👩\u200d💻" in seen and "❤\ufe0f" in seen


@pytest.mark.parametrize("form", ["json", "csv", "export", "finding"])
def test_a_pipe_gets_the_text_as_it_is(form: str, world: World, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Exactly what was in the log; and what a terminal gets of JSON is the same document."""
    sql = "SELECT DISTINCT user_agent AS a FROM events WHERE user_agent LIKE 'kali agent%EVIL%'"
    words = {
        "export": ["export", "--where", "user_agent LIKE 'kali agent%EVIL%'"],
        "finding": ["finding", "1", "--records"],
    }.get(form, ["query", sql, "--format", form])
    assert main([*words, "--lake", str(world.lake)]) == 0
    out = capfdbinary.readouterr().out.decode()
    if form == "csv":
        assert out.split("\n", 1)[1] == f'"kali agent{EVIL}"\n'
    elif form == "json":
        assert json.loads(out) == [{"a": f"kali agent{EVIL}"}] and "\u202e" in out
    else:
        agents = {json.loads(line)["userAgent"] for line in out.split("\n") if line}
        assert f"kali agent{EVIL}" in agents or form == "finding"


def test_json_on_a_terminal_is_the_same_document(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = "SELECT DISTINCT user_agent AS a FROM events WHERE user_agent LIKE 'kali agent%EVIL%'"
    _, seen = on_a_terminal(["query", sql, "--format", "json", "--lake", str(world.lake)], monkeypatch)
    assert json.loads(seen) == [{"a": f"kali agent{EVIL}"}]


@pytest.mark.parametrize(
    "cell", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", " =1", "\uff1d1", "\n=1"]
)
def test_formulas_in_csv(cell: str, world: World, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    sql = "SELECT '" + cell.replace("'", "''") + "' AS a, -1 AS n"
    assert main(["query", sql, "--format", "csv", "--csv-safe", "--lake", str(world.lake)]) == 0
    safe_form = capfdbinary.readouterr().out.decode()
    assert main(["query", sql, "--format", "csv", "--lake", str(world.lake)]) == 0
    plain = capfdbinary.readouterr().out.decode()
    assert plain.split("\n", 1)[1].lstrip('"').startswith(cell)
    assert safe_form.split("\n", 1)[1].lstrip('"').startswith("'" + cell) and safe_form.endswith(",-1\n")


# -- the wall ----------------------------------------------------------------------------------------------------------

#: The modules that may write to a stream or make a console, and why there are no others.
WALL = ("terminal/output.py", "terminal/console.py")
_STREAMS = ("stdout", "stderr", "__stdout__", "__stderr__")


def bypasses(tree: ast.AST) -> list[int]:
    """Return the lines in which code prints, writes to a standard stream, or makes a console of its own."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in ("print", "input", "Console", "pprint"):
            lines.append(node.lineno)
        if isinstance(called, ast.Attribute) and called.attr in ("write", "writelines", "Console", "print_exception"):
            target = ast.unparse(called.value)
            if called.attr == "Console" or any(target.startswith(f"sys.{name}") for name in _STREAMS):
                lines.append(node.lineno)
            if called.attr == "write" and target == "os":
                lines.append(node.lineno)
    return lines


def test_nothing_bypasses_the_wall() -> None:
    places = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for folder in ("cli", "terminal")
        for path in sorted((PACKAGE / folder).rglob("*.py"))
        if path.relative_to(PACKAGE).as_posix() not in WALL
        for line in bypasses(ast.parse(path.read_text("utf-8")))
    ]
    assert places == []
    code = ("print(1)", "sys.stderr.write(x)", "sys.stdout.buffer.write(x)", "Console()", "rich.Console()", "input()")
    assert bypasses(ast.parse("\n".join(code))) == [1, 2, 3, 4, 5, 6]


def test_the_library_prints_nothing_else() -> None:
    """Below the command line, only the Lambda handler prints: JSON, to its log."""
    printing = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in ("cli", "terminal")
        and bypasses(ast.parse(path.read_text("utf-8")))
    }
    assert printing == {"aws/handler.py", "aws/transform/stream.py"}


@pytest.mark.parametrize("part", ["text", "string", "table", "grid", "title", "joined"])
def test_a_console_escapes_whatever_it_is_given(part: str) -> None:
    """Even what was not cleaned before: this is the last wall."""
    raw = io.StringIO()
    out = SafeConsole(file=raw, width=100, force_terminal=True, highlight=False, markup=False)
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    parts: dict[str, Callable[[], object]] = {
        "text": lambda: Text(EVIL.replace("\r\n", ""), style="bold red"),
        "string": lambda: EVIL,
        "table": lambda: table,
        "grid": lambda: grid(out, "title", [("a", "text"), ("b", "prose")], [(EVIL, EVIL)]),
        "title": lambda: grid(out, EVIL.replace("\r\n", ""), [("a", "id")], [("x",)], EVIL.replace("\r\n", "")),
        "joined": lambda: Text("a").append(EVIL.replace("\r\n", ""), style="dim"),
    }
    out.print(parts[part]())
    assert "EVIL" in raw.getvalue()
    assert [found for found in hostile.unsafe(raw.getvalue()) if "FAKE" not in found or part != "table"] == []


def test_warnings_and_log_lines_of_libraries() -> None:
    raw = io.StringIO()
    print(f"WARNING {EVIL.replace(chr(10), '')}", file=Messages(raw))
    assert raw.getvalue().startswith("WARNING \\u001b[5;7mEVIL") and hostile.unsafe(raw.getvalue()) == []


# -- commands to copy --------------------------------------------------------------------------------------------------

#: To the end of the line after a heading, or indented, or within backquotes (which the names have, too).
HINT = re.compile(
    r"^(?:(?:trailsift: .*)?[\w ]+:|   ) (trailsift .*)$|`(trailsift (?:[^`\n]|`touch PWNED`)*)`", re.MULTILINE
)
#: Commands whose output tells what to run next, on the lake whose name is hostile to a shell.
HINTING = {
    "summary of nothing": (["summary", "--since", "2030-01-01", "--lake", LAKE], 0),
    "roles --need-data-events": (["roles", "--need-data-events", "--lake", LAKE], 1),
    "detect": (["detect", "--lake", LAKE], 1),
    "finding": (["finding", "1", "--lake", LAKE], 5),
    "ingest": (["ingest", "$LOGS", "--again", "--workers", "1", "-q", "--lake", LAKE], 2),
    "generate": (["generate", "$OUT", "--events", "300", "--days", "1", "-q"], 1),
    "connect": (["connect", "--lake", LAKE, "-o", "$OUT.sql"], 0),
    "no lake": (["summary", "--lake", "$OUT.nosuch"], 1),
    "moved": (["summary", "--lake", "$MOVED"], 1),
}


@pytest.fixture(scope="module")
def shell_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("shell")
    name = SHELL.replace("/", "")
    logs = home / f"logs {name}.json"
    logs.write_text(json.dumps({"Records": [*hostile.records(SHELL), {"eventVersion": "1"}]}), "utf-8")
    # These three cannot stand in the path of a lake.
    place = re.sub("[?#%]", "", name)
    lake, moved = home / f"lake {place}", home / f"moved {place}"
    assert main(["ingest", str(logs), "--lake", str(lake), "--workers", "1", "-q"]) == 3
    shutil.copytree(lake, moved)
    return {LAKE: str(lake), "$LOGS": str(logs), "$OUT": str(home / f"out {place}"), "$MOVED": str(moved)}


@pytest.mark.parametrize("name", HINTING)
def test_hints_can_be_copied(
    name: str, shell_world: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each is one command with the words that were meant, and a shell that runs it runs nothing else."""
    monkeypatch.chdir(tmp_path)
    words, expected = HINTING[name]
    for mark, place in shell_world.items():
        words = [word.replace(mark, place) for word in words]
    main(words)
    captured = capsys.readouterr()
    hints = [first or second for first, second in HINT.findall(captured.out + captured.err)]
    assert len(hints) >= expected, captured
    for hint in hints:
        hint = hint.replace("ingest PATH", "ingest /dev/null")
        parsed = shlex.split(hint)
        if "--lake" in parsed and parsed[parsed.index("--lake") + 1] != "lake":
            assert parsed[parsed.index("--lake") + 1] in [*shell_world.values(), shell_world["$OUT"] + ".nosuch"]
        main(parsed[1:])
        said = capsys.readouterr().err
        assert "Unknown" not in said and "Unused" not in said and "unexpected" not in said, (hint, said)
        # What a shell makes of it: the command is replaced by one that prints its words.
        printing = f"trailsift() {{ printf '%s\\0' trailsift \"$@\"; }}; {hint}"
        done = subprocess.run(["bash", "-c", printing], capture_output=True, text=True, check=True)
        assert done.stdout.split("\0")[:-1] == parsed
    assert not list(tmp_path.parent.rglob("PWNED*"))


def test_half_pairs_of_surrogates_are_quoted() -> None:
    from trailsift.analysis.shell import quoted

    assert [quoted(sign) for sign in "\ud800\udc00\udfff"] == [
        "$'\\355\\240\\200'", "$'\\355\\260\\200'", "$'\\355\\277\\277'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", [EVIL, SHELL, hostile.READABLE, "plain", "-x", "", "a\nb", "'", "\\", "x\x1b1", "\udcff1"]
)
def test_a_quoted_word_is_the_same_word_in_a_shell(text: str) -> None:
    from trailsift.analysis.shell import double_quoted, quoted

    for form in (quoted(text), double_quoted(text)):
        assert hostile.unsafe(form) == [] and "\n" not in form
        done = subprocess.run(["bash", "-c", f"printf %s {form}"], capture_output=True, check=True)
        assert done.stdout == os.fsencode(text)
