"""The pages are correct: their commands run, their queries return rows, their links resolve."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from s3_server import Server
from s3_server import s3_server as s3_server
from support.commands import Commands
from trailsift.cli.app import ALIASES, COMMANDS
from trailsift.lake.open import open_snapshot
from trailsift.lake.relocate import relocate
from trailsift.query import DuckDBEngine

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    text = page.read_text("utf-8")
    for match in _FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


class Command(NamedTuple):
    """A shell command of a page, and its output according to the page; None if the page shows none."""

    text: str
    printed: str | None


def commands(page: Path) -> list[Command]:
    """Return the shell commands of a page. In ``console`` blocks they follow a ``$``, and the rest is their output."""
    result: list[Command] = []
    for block in blocks(page):
        lines = block.text.replace("\\\n", " ").splitlines()
        if block.language == "sh":
            result += [Command(line.strip(), None) for line in lines if line.strip() and not line.startswith("#")]
        elif block.language == "console":
            for line in lines:
                if line.startswith("$ "):
                    result.append(Command(line[2:], ""))
                else:
                    result[-1] = Command(result[-1].text, f"{result[-1].printed}{line.rstrip()}\n")
    return result


def pattern_of(printed: str) -> str:
    """Return a regular expression for an output; ``...`` matches any text, or any lines if alone on its line."""
    lines = [
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in printed.splitlines()
    ]
    return "".join(lines)


#: Commands on a bucket or a queue of the reader's own; the tests' server has my-logs and my-lake.
_REMOTE = re.compile(r"(?<!\S)(?:s3://(?!my-logs\b|my-lake\b)|https://sqs\.)")


def cannot_run(command: str) -> str | None:
    """Return why a command of a page cannot run here; None if it can."""
    names = {name for _, name, _ in COMMANDS} | set(ALIASES)
    missing = [name for name in re.findall(r"(?:^|[|;&] *)trailsift ([a-z]+)", command) if name not in names]
    if missing:
        return f"there is no command {missing[0]} yet"
    if " --sigma " in command and find_spec("sigma") is None:
        return "pySigma is not installed"
    if re.search(r"trailsift (?:serve|demo --serve)", command):
        if find_spec("uvicorn") is None:
            return "uvicorn is not installed"
        if not (ROOT / "src/trailsift/serve/static/vendor/uPlot.iife.min.js").exists():
            return "the page's assets are missing (`make assets`)"
    return "it needs a bucket or a queue" if _REMOTE.search(command) else None


class Done(NamedTuple):
    """How a command ended, what it printed, and its messages."""

    code: int
    out: str
    err: str


def run_for_a_while(command: str, folder: Path, env: dict[str, str]) -> Done:
    """Run a command that goes on until Ctrl-C, which comes a moment after it has said something."""
    words = shlex.split(command)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(words, cwd=folder, env=env, text=True, start_new_session=True, **pipes) as process:
        last = threading.Timer(120, process.kill)
        last.start()
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate()
        last.cancel()
    return Done(0 if process.returncode in (0, 130) else process.returncode, first + rest, "")


#: A part in quotes, and what only a shell understands.
_QUOTED, _SHELL = re.compile(r"'[^']*'|\"[^\"$`]*\""), re.compile(r"[|;&<>()$`*?~#\[\]{}]|^\w+=")


def run_once(command: str, folder: Path, env: dict[str, str], runner: Commands) -> Done:
    """Run a command: by itself in a process that has everything loaded, or in a shell if it needs one."""
    if not command.startswith("trailsift ") or _SHELL.search(_QUOTED.sub("", command)):
        words = ["bash", "-c", command]
        done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
        return Done(done.returncode, done.stdout, done.stderr)
    changed = {name: value for name, value in env.items() if os.environ.get(name) != value}
    return Done(*runner.run_in(folder, shlex.split(command)[1:], changed))


QUERIES = [block for page in PAGES for block in blocks(page) if block.language == "sql"]
WITH_COMMANDS = [page for page in PAGES if commands(page) and not page.name.endswith(".ko.md")]


def test_there_is_something_to_check() -> None:
    """A changed page format must not leave the tests below without cases."""
    assert len(QUERIES) >= 12
    assert ROOT / "README.md" in WITH_COMMANDS


@pytest.fixture(scope="module")
def engine(small_lake: Path) -> Iterator[DuckDBEngine]:
    """An engine on the small lake."""
    with DuckDBEngine(open_snapshot(small_lake)) as engine:
        yield engine


@pytest.mark.parametrize("block", QUERIES, ids=lambda block: f"{block.page.name}:{block.line}")
def test_query_returns_rows(block: Block, engine: DuckDBEngine) -> None:
    """Every query of the pages runs unchanged and returns rows on a lake like the demo's."""
    rows = list(engine.query(block.text, cache=False).rows())
    if "FROM rejects" in block.text:
        assert not rows, "the small logs contain nothing malformed"
    else:
        assert rows, f"{block.page.name}:{block.line} returns no rows: does it use names from the generated logs?"


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the ``trailsift`` under test."""
    folder = tmp_path_factory.mktemp("bin")
    installed = Path(sys.executable).with_name("trailsift")
    target = folder / "trailsift"
    if installed.exists():
        target.symlink_to(installed)
    else:
        target.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m trailsift.cli "$@"\n')
        target.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def runner() -> Iterator[Commands]:
    """A process that runs commands, and has no threads."""
    commands = Commands()
    yield commands
    commands.close()


@pytest.fixture(scope="module")
def my_logs(small_logs: Path, s3_server: Server) -> Server:
    """The S3 server with the small logs in a bucket my-logs, and an empty bucket my-lake."""
    for name in ("my-logs", "my-lake"):
        s3_server.client().create_bucket(Bucket=name)
    s3_server.upload("my-logs", small_logs / "AWSLogs", "AWSLogs/")
    return s3_server


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_commands_run(
    page: Path,
    small_logs: Path,
    bin_folder: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    runner: Commands,
) -> None:
    """The commands of a page, run in order beside AWSLogs, my-rules (its YAML) and a bucket my-logs, exit with 0."""
    (tmp_path / "AWSLogs").symlink_to(small_logs / "AWSLogs")
    (tmp_path / "my-rules").mkdir()
    for number, block in enumerate(block for block in blocks(page) if block.language == "yaml"):
        (tmp_path / "my-rules" / f"{number}.yml").write_text(block.text, "utf-8")
    env = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    listed = commands(page)
    if any(re.search(r"s3://my-(?:logs|lake)\b", command.text) for command in listed):
        env |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        env |= request.getfixturevalue("my_logs").env
    if not any(re.match(r"trailsift ingest .*--lake my\.lake", command.text) for command in listed):
        shutil.copytree(request.getfixturevalue("small_lake"), tmp_path / "my.lake")
        relocate(tmp_path / "my.lake")
    for command, printed in listed:
        if not re.search(r"(^|[|;&] *)trailsift ", command):
            _check_set_up(command)
            continue
        if (why := cannot_run(command)) is not None:
            warnings.warn(f"{page.name}: SKIPPED `{command}`: {why}", stacklevel=1)
            continue
        if command.startswith(("trailsift watch ", "trailsift serve ")):
            done = run_for_a_while(command, tmp_path, env)
        else:
            done = run_once(command, tmp_path, env, runner)
        assert done.code == 0, f"{command}\n{done.out[-2000:]}{done.err[-2000:]}"
        assert done.out or "--output" in command, f"{command} printed nothing"
        if printed is not None:
            out = "".join(f"{line.rstrip()}\n" for line in done.out.splitlines())
            assert bool(re.fullmatch(pattern_of(printed), out)), f"{command} printed\n{out}instead of\n{printed}"


def test_commands_of_the_readme_on_a_lake_in_s3(my_logs: Server, tmp_path: Path, runner: Commands) -> None:
    """The same commands, with the lake and the logs in S3."""
    env = my_logs.env | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    lake = f"s3://{my_logs.new_bucket()}/team/lake"
    ran = set()
    more = "trailsift rules try time-of-day --lake my.lake"
    for command in (*(command for command, _ in commands(ROOT / "README.md")), more):
        if "--lake my.lake" not in command:
            continue
        command = command.replace("--lake my.lake", f"--lake {lake}").replace(" AWSLogs ", " s3://my-logs/AWSLogs ")
        done = run_once(command, tmp_path, env, runner)
        assert done.code == 0 and (done.out or "--output" in command), (
            f"{command}\n{done.out[-2000:]}{done.err[-2000:]}"
        )
        assert str(tmp_path / "cache") not in done.out + done.err
        ran.add(command.split()[1])
    assert len(ran) > 12


def _check_set_up(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
        named = {word for word in words[1:] if "=" not in word}
        assert named <= targets, f"{command}: the Makefile has no {named - targets}"
    else:
        assert words in ([".", ".venv/bin/activate"], ["source", ".venv/bin/activate"]), f"{command!r} is not checked"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    """Links between pages point to existing files and headings."""
    for link in _LINK.findall(prose(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            headings = {_anchor(heading) for _, heading in _HEADING.findall(prose(target))}
            assert anchor in headings, f"{page.name} links to {link}"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", ["README.md", "docs/original.md"])
def test_both_languages_have_the_same_content(page: str) -> None:
    """Both versions have the same blocks, the same outline, and tables of the same size."""
    english, korean = ROOT / page, (ROOT / page).with_suffix(".ko.md")
    assert [block[2:] for block in blocks(english)] == [block[2:] for block in blocks(korean)]
    outlines = [[len(marks) for marks, _ in _HEADING.findall(prose(page))] for page in (english, korean)]
    assert outlines[0] == outlines[1]
    assert _table_shapes(english) == _table_shapes(korean)
    linked = [set(_LINK.findall(prose(page))) - {english.name, korean.name} for page in (english, korean)]
    assert linked[0] == linked[1]


@pytest.mark.parametrize("page", ["docs/original.md", "docs/original.ko.md"])
def test_figures_are_those_of_the_last_measurement(page: str) -> None:
    """The figures on the page about the original match the page that the measurement wrote."""
    text = (ROOT / page).read_text("utf-8").replace(" %", "%")
    rows = (ROOT / "bench" / "ORIGINAL.md").read_text("utf-8").splitlines()
    measured = [row.split("|")[3:5] for row in rows if row.startswith("| ") and not row.startswith("| piece")]
    figures = {figure.rstrip(".,") for row in measured for figure in re.findall(r"\d[\d.,]*%?", " ".join(row))}
    assert len(figures) > 20
    missing = {figure for figure in figures if not re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d%])", text)}
    # 0 % and 100 % are written without decimals.
    assert missing <= {"0.0%", "100.0%", "0.0"}, missing


def _table_shapes(page: Path) -> list[int]:
    return [line.count("|") for line in prose(page).splitlines() if line.startswith("|")]


def test_every_command_is_in_the_readme() -> None:
    """A command that nobody tells of does not exist for a reader."""
    told = "\n".join([*(text for text, _ in commands(ROOT / "README.md")), prose(ROOT / "docs" / "how-it-works.md")])
    names = [name for _, name, _ in COMMANDS]
    assert not [name for name in names if f"trailsift {name}" not in told and f"make {name}" not in told]
