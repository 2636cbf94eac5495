"""trailsift shell: through a pseudo-terminal, as a person uses it, and from a pipe."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from trailsift import Lake
from trailsift.cli import main
from trailsift.lake.relocate import relocate

pytest.importorskip("prompt_toolkit", reason="prompt_toolkit is not installed")

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\][^\x07]*\x07")
#: A statement that takes minutes.
ENDLESS = "SELECT count(*) FROM range(4000000) a, range(4000000) b WHERE a.range * b.range % 7 = 3;"


class Terminal:
    """A program on a pseudo-terminal: what is typed, and what has been shown."""

    def __init__(self, process: subprocess.Popen[bytes], handle: int) -> None:
        self.process = process
        self._handle = handle
        self.shown = ""
        self._seen = 0

    def type(self, text: str) -> None:
        """Send keys."""
        os.write(self._handle, text.encode())

    def enter(self, text: str) -> None:
        """Send a line."""
        self.type(text + "\r")

    def expect(self, pattern: str, seconds: float = 30) -> str:
        """Return what is shown up to a match of ``pattern`` that was not expected before."""
        end = time.monotonic() + seconds
        while True:
            plain = _ESCAPES.sub("", self.shown)
            match = re.compile(pattern, re.DOTALL).search(plain, self._seen)
            if match:
                text, self._seen = plain[self._seen : match.end()], match.end()
                return text
            assert time.monotonic() < end, f"no {pattern!r} in {plain[self._seen :]!r}"
            if select.select([self._handle], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self._handle, 65_536).decode(errors="replace")
                except OSError:
                    self.shown += "<end>"


@contextmanager
def shell(lake: Path, home: Path, *words: str) -> Iterator[Terminal]:
    """Run the shell on a terminal of 100 columns; it must have ended at the end."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    env = os.environ | {
        "HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "TERM": "xterm", "COLUMNS": "100", "LINES": "40",
        "PROMPT_TOOLKIT_NO_CPR": "1", "XDG_CACHE_HOME": str(home / "cache"),
    }  # fmt: skip
    command = [sys.executable, "-m", "trailsift", "shell", str(lake), *words]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=home, env=env, start_new_session=True
    )
    os.close(theirs)
    try:
        terminal = Terminal(process, ours)
        terminal.expect("trailsift>")
        yield terminal
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.fixture
def lake(small_lake: Path, tmp_path: Path) -> Path:
    """A copy of the small lake, in which queries can be saved."""
    import shutil

    shutil.copytree(small_lake, tmp_path / "my.lake")
    relocate(tmp_path / "my.lake")
    return tmp_path / "my.lake"


def test_a_session(lake: Path, tmp_path: Path) -> None:
    """Statements over several lines, formats, export, saved queries, errors that end nothing; a private history."""
    with shell(lake, tmp_path) as terminal:
        terminal.enter("SELECT 40 + 2")
        terminal.enter("AS answer;")
        terminal.expect(r"answer\s+──+\s+42\s+1 row in ")
        terminal.enter("SELECT evnt_name FROM events;")
        assert "event_name" in terminal.expect("did you mean.*?\n")
        terminal.enter("INSTALL httpfs;")
        terminal.expect("one read-only statement")
        terminal.enter(".mode csv")
        terminal.expect("mode: csv")
        terminal.enter("SELECT count(*) AS n FROM events;")
        terminal.expect(r"n\r\n20000\r\n")
        terminal.enter(".export n.parquet")
        terminal.expect(r"1 row written to n.parquet \(parquet\)")
        terminal.enter(".export n.parquet")
        terminal.expect("n.parquet exists")
        terminal.enter(".export my.lake/n.csv")
        terminal.expect("lake")
        terminal.enter(".save how-many")
        terminal.expect("saved: @how-many")
        terminal.enter("@how-many")
        terminal.expect(r"n\r\n20000\r\n")
        terminal.enter(".nosuch")
        terminal.expect(r"there is no command \.nosuch")
        terminal.enter(".quit")
    assert (tmp_path / "n.parquet").read_bytes()[:4] == b"PAR1"
    assert not (lake / "n.csv").exists()
    history = tmp_path / "state" / "trailsift" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.parent.stat().st_mode) == 0o700
    assert "AS answer;" in history.read_text()


def test_history_of_a_former_session(lake: Path, tmp_path: Path) -> None:
    """The up arrow brings back what an earlier session ran."""
    with shell(lake, tmp_path) as terminal:
        terminal.enter("SELECT 'from' || ' before' AS word;")
        terminal.expect("from before.*?trailsift>")
        terminal.type("\x04")
    with shell(lake, tmp_path) as terminal:
        terminal.type("\x1b[A")
        terminal.expect("word;")
        terminal.enter("")
        terminal.expect("from before")
        terminal.enter(".quit")


def test_ctrl_c_stops_the_statement_only(lake: Path, tmp_path: Path) -> None:
    """The session goes on, and so does the engine. At the prompt it clears the line."""
    with shell(lake, tmp_path) as terminal:
        terminal.enter(ENDLESS)
        terminal.expect("= 3;")
        for _ in range(10):
            time.sleep(1)
            os.killpg(terminal.process.pid, signal.SIGINT)
            with suppress(AssertionError):
                terminal.expect("trailsift: interrupted.*?trailsift>", 3)
                break
        else:
            pytest.fail(terminal.shown)
        terminal.type("SELECT nonsense\x03")
        terminal.expect("trailsift>")
        terminal.enter("SELECT 6 * 7 AS still;")
        terminal.expect(r"still\s+──+\s+42.*?trailsift>")
        terminal.type("\x04")


def test_limits(lake: Path, tmp_path: Path) -> None:
    """A time limit stops each statement, not the session."""
    with shell(lake, tmp_path, "--timeout", "0.5") as terminal:
        terminal.enter(ENDLESS)
        terminal.expect("the query was stopped after 0.5 s", 10)
        terminal.enter("SELECT 1 AS fine;")
        terminal.expect(r"fine\s+─+\s+1")
        terminal.enter(".quit")


def test_completion(lake: Path, tmp_path: Path) -> None:
    """Tab completes a column, a table, the value of a caller, and a command."""
    with shell(lake, tmp_path) as terminal:
        terminal.type(".tab\t")
        terminal.expect("les")
        terminal.enter("")
        terminal.expect("hourly_summary.*?trailsift>")
        terminal.type("SELECT count(*) AS n FROM sess\t")
        terminal.expect("ions")
        terminal.type(" WHERE session_n\t")
        terminal.expect("ame")
        terminal.enter(" = 'nobody';")
        terminal.expect(r"n\s+─+\s+0.*?trailsift>")
        terminal.type("SELECT DISTINCT role_arn FROM events WHERE caller = 'orders-etl\t")
        terminal.expect("orders-etl-batch'")
        terminal.enter(";")
        terminal.expect(r"1 row in")
        terminal.enter(".quit")


def test_from_a_pipe(lake: Path, tmp_path: Path) -> None:
    """Without a terminal there is no prompt; the first failure ends it with its exit code."""

    def run(text: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "trailsift", "shell", "--lake", str(lake)]
        return subprocess.run(words, input=text, capture_output=True, text=True, cwd=tmp_path, timeout=60)

    done = run(".mode csv\nSELECT ';' AS a;SELECT 1 -- ; no end\n AS b\n;\n.export b.csv\nSELECT 2 AS c")
    assert (done.returncode, done.stdout) == (
        0, "mode: csv\na\n;\nb\n1\n1 row written to b.csv (csv)\nc\n2\n"
    ), done.stderr  # fmt: skip
    assert (tmp_path / "b.csv").read_text() == "b\n1\n"
    failed = run("SELECT 1;\nSELECT nosuch FROM events;\nSELECT 3 AS never;")
    assert failed.returncode == 2 and "never" not in failed.stdout and "nosuch" in failed.stderr


def test_saved_queries_of_the_command_line(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are checked when they are saved, listed, run by name, and deleted."""
    place = ["--lake", str(lake)]
    assert main(["queries", "list", *place]) == 0
    assert "no queries are saved" in capsys.readouterr().err
    assert main(["queries", "save", "calls", "SELECT count(*) AS calls FROM events", *place]) == 0
    for name, sql, message in (
        ("calls", "SELECT 1", "there is a query @calls already"),
        ("broken", "SELECT nosuch FROM events", "nosuch"),
        ("write", "DROP TABLE events", "one read-only statement"),
        ("../escape", "SELECT 1", "cannot be the name of a query"),
        ("Großes", "SELECT 1", "cannot be the name of a query"),
        ("x" * 65, "SELECT 1", "cannot be the name of a query"),
    ):
        assert main(["queries", "save", name, sql, *place]) == 2
        assert message in capsys.readouterr().err
    assert main(["queries", "list", *place]) == 0
    assert re.search(r"@calls +\d{4}-.*SELECT count\(\*\) AS calls", capsys.readouterr().out)
    assert main(["query", "@calls", "--format", "csv", *place]) == 0
    assert capsys.readouterr().out == "calls\n20000\n"
    assert main(["query", "@cals", *place]) == 2
    assert "did you mean @calls?" in capsys.readouterr().err
    assert main(["queries", "save", "calls", "SELECT 7 AS calls", "--force", *place]) == 0
    assert Lake(lake).query("@calls").value() == 7
    assert Lake(lake).verify().is_sound
    assert main(["queries", "delete", "@calls", *place]) == 0
    assert main(["queries", "delete", "calls", *place]) == 2
    assert Lake(lake).saved_queries() == []


def test_saved_queries_that_somebody_else_wrote(lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files are read with bounds, their statements run behind the wall, and links and other names are left out."""
    folder = lake / "queries"
    folder.mkdir()
    (folder / "huge.sql").write_bytes(b"-" * 200_000)
    (folder / "binary.sql").write_bytes(b"\xff\xfe")
    (folder / "steals.sql").write_text("SELECT * FROM read_text('/etc/passwd')")
    (folder / "steers.sql").write_text("SELECT '\x1b[2Jx' AS a")
    (folder / "no name.sql").write_text("SELECT 1")
    secret = tmp_path / "secret"
    secret.write_text("SELECT 'private'")
    (folder / "link.sql").symlink_to(secret)
    listed = {query.name: query for query in Lake(lake).saved_queries()}
    assert "no name" not in listed
    assert "limit is 100,000" in (listed["huge"].problem or "") and "UTF-8" in (listed["binary"].problem or "")
    assert "link" not in listed or listed["link"].problem
    for name in ("huge", "binary", "steals", "link"):
        assert main(["query", f"@{name}", "--lake", str(lake)]) in (1, 2)
    out, err = capsys.readouterr()
    assert "root:" not in out + err and "private" not in out + err
    assert main(["queries", "list", "--lake", str(lake)]) == 0
    assert main(["queries", "show", "steers", "--lake", str(lake)]) == 0
    assert "\x1b" not in capsys.readouterr().out
