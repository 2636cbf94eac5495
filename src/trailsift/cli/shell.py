"""The command shell: an interactive prompt for SQL over a lake, behind the same wall as `query`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter

from trailsift import cli
from trailsift.cli import query
from trailsift.cli.options import LakeOption, ZoneOption
from trailsift.cli.session import open_lake, output_file
from trailsift.errors import TrailsiftError, UsageError
from trailsift.query import completion
from trailsift.query.statements import has_code, split_statements
from trailsift.terminal.output import is_terminal, print_line, print_lines, say

if TYPE_CHECKING:
    from trailsift.api import Lake

#: Formats of `.mode`.
_FORMS = ("table", "line", "json", "csv")
#: Seconds that looking up values for completion may take.
_PATIENCE = 5.0


def shell_command(
    lake: LakeOption,
    *,
    timezone: ZoneOption = "UTC",
    timeout: Annotated[
        float | None,
        Parameter(help="Stop each statement after this many seconds. Default: no limit; Ctrl-C stops it at any time."),
    ] = None,
    memory: Annotated[
        str | None, Parameter(help="Memory that statements may use, such as 2GB. Default: 60 % of the memory.")
    ] = None,
    spill: Annotated[
        str | None,
        Parameter(help="Disk for what does not fit into the memory, such as 20GB. Default: half of what is free."),
    ] = None,
) -> int:
    """Open a prompt for SQL over the lake, with history and completion of names and values.

    A semicolon ends a statement. Tab completes tables, columns, and the values of callers, events, resources and
    others. `.help` lists the commands; Ctrl-C stops a statement, Ctrl-D leaves. Without a terminal, statements and
    commands are read from standard input until one fails.

    Examples: `trailsift shell lake`, `trailsift shell --lake lake < questions.sql`
    """
    handle = open_lake(lake, timezone, memory_limit=memory, spill_limit=spill)
    if cli.is_own_process:
        from trailsift.query.limits import bound_process

        bound_process(memory)
    # A lake that cannot be opened is said before the first prompt.
    handle.explain("SELECT 1")
    with handle:
        shell = Shell(handle, timeout)
        if is_terminal(sys.stdin) and is_terminal(sys.stdout):
            return shell.converse()
        return shell.run_all(sys.stdin.read())


class _DotCommand(NamedTuple):
    """A command of the shell: its arguments, what it does, and its function."""

    arguments: str
    help: str
    run: Callable[[Shell, list[str]], None]


class Shell:
    """A session on a lake: the format of results, and the last statement, which `.export` and `.save` mean."""

    def __init__(self, lake: Lake, timeout: float | None) -> None:
        self.lake = lake
        self.timeout = timeout
        self.form = "table"
        self.last = ""
        self._done = False
        self._values: dict[str, list[str]] = {}

    def converse(self) -> int:
        """Read statements and commands from a terminal until the user leaves; an error ends none but its own."""
        from trailsift.terminal.prompt import history_file, read_texts

        texts = read_texts(self.complete, is_done, history_file())
        print_line(f"trailsift shell on {self.lake.path}. A semicolon ends a statement; .help lists the commands.")
        for text in texts:
            if text is None:
                continue
            self._guarded(text)
            if self._done:
                break
        return 0

    def run_all(self, text: str) -> int:
        """Run statements and commands, one after another, until one fails."""
        for part in _entries(text):
            self.run(part)
            if self._done:
                break
        return 0

    def _guarded(self, text: str) -> None:
        try:
            self.run_all(text)
        except KeyboardInterrupt:
            say("interrupted")
        except (TrailsiftError, OSError, MemoryError) as error:
            from trailsift.runtime import shortage

            advice = shortage(error)
            message = str(error) or "out of memory"
            say(f"{message}; {advice}" if advice else message)

    def run(self, text: str) -> None:
        """Run one statement (or ``@NAME``) or one command."""
        if text.startswith("."):
            name, *words = _words(text)
            command = COMMANDS.get(name[1:])
            if command is None:
                raise UsageError(f"there is no command {name}: {completion_hint(name)}")
            command.run(self, words)
            return
        self.last = self.lake.saved_query(text).sql if text.startswith("@") else text
        result = self.lake.query(self.last, timeout=self.timeout)
        if not query.write_result(result, query.OutputOptions(self.form)):
            say(result.why_empty())

    def complete(self, before: str, after: str) -> list[completion.Candidate]:
        """Return what can stand at the cursor."""
        if before.startswith("."):
            return self._complete_command(before)
        if before.lstrip().startswith("@"):
            typed = before.lstrip()[1:]
            names = [saved.name for saved in self.lake.saved_queries() if saved.name.startswith(typed)]
            return [completion.Candidate(name, len(typed), "saved query") for name in names]
        return completion.complete(before, after, self.values)

    def _complete_command(self, before: str) -> list[completion.Candidate]:
        name, blank, typed = before.partition(" ")
        if not blank:
            return [
                completion.Candidate(f".{word}", len(name), command.help)
                for word, command in COMMANDS.items()
                if f".{word}".startswith(name)
            ]
        options: Sequence[str] = ()
        if name == ".mode":
            options = _FORMS
        elif name == ".schema":
            options = [table for table, _ in completion.meanings()]
        elif name in (".delete", ".show"):
            options = [saved.name for saved in self.lake.saved_queries()]
        return [completion.Candidate(word, len(typed), "") for word in options if word.startswith(typed)]

    def values(self, column: str) -> list[str]:
        """Return the values of a column, those with most events first; none if that takes long."""
        if column not in self._values:
            try:
                rows = self.lake.query(completion.values_sql(column), timeout=_PATIENCE).rows()
            except TrailsiftError:
                return []
            self._values[column] = [str(row[0]) for row in rows]
        return self._values[column]

    def show_tables(self, words: list[str]) -> None:
        """Print the tables and what they hold."""
        _no_more(words, 0)
        for name, meaning in completion.meanings():
            print_line(f"{name:<16}{meaning}")

    def show_schema(self, words: list[str]) -> None:
        """Print the columns of one table, or of all."""
        _no_more(words, 1)
        for name in words or [table for table, _ in completion.meanings()]:
            columns = completion.described(name)
            if not columns:
                raise UsageError(f"there is no table {name}: .tables lists them")
            print_line(name)
            width = max(len(column) for column, _, _ in columns)
            for column, kind, meaning in columns:
                print_line(f"  {column:<{width}}  {kind:<13} {meaning}")

    def set_mode(self, words: list[str]) -> None:
        """Set the format of results, or print it."""
        _no_more(words, 1)
        if words and words[0] not in _FORMS:
            raise UsageError(f"there is no mode {words[0]}: use {', '.join(_FORMS)}")
        self.form = words[0] if words else self.form
        print_line(f"mode: {self.form}")

    def export(self, words: list[str]) -> None:
        """Write the result of the last statement to a file."""
        force = "--force" in words
        names = [word for word in words if word != "--force"]
        if len(names) != 1:
            raise UsageError("name one file: .export FILE [--force], such as .export reads.parquet")
        path = output_file(Path(names[0]).expanduser(), force)
        form = query.format_of(path)
        result = self.lake.query(self._last(), timeout=self.timeout, arrow=form in query.BINARY)
        count = result.write(path, form)
        print_line(f"{count:,} row{'' if count == 1 else 's'} written to {path} ({form})")

    def explain(self, words: list[str]) -> None:
        """Print which files the last statement reads."""
        _no_more(words, 0)
        print_lines(self.lake.explain(self._last(), timeout=self.timeout))

    def save(self, words: list[str]) -> None:
        """Keep the last statement in the lake."""
        force = "--force" in words
        names = [word for word in words if word != "--force"]
        if len(names) != 1:
            raise UsageError("name the query: .save NAME [--force]")
        saved = self.lake.save_query(names[0], self._last(), replace=force)
        print_line(f"saved: @{saved.name} runs it")

    def list_saved(self, words: list[str]) -> None:
        """List the saved queries."""
        from trailsift.terminal.saved import show_saved

        _no_more(words, 0)
        saved = self.lake.saved_queries()
        if saved:
            show_saved(saved)
        else:
            print_line("no queries are saved in this lake: .save NAME saves the last statement")

    def show(self, words: list[str]) -> None:
        """Print the SQL of a saved query."""
        print_lines(self.lake.saved_query(_one(words)).sql)

    def delete(self, words: list[str]) -> None:
        """Delete a saved query."""
        name = _one(words)
        self.lake.delete_query(name)
        print_line(f"deleted: @{name.removeprefix('@')}")

    def help(self, words: list[str]) -> None:
        """List the commands."""
        for name, command in COMMANDS.items():
            print_line(f".{name + ' ' + command.arguments:<24}{command.help}")
        print_line(f"{'@NAME':<25}Run a saved query.")
        print_line("Everything else is SQL: a semicolon ends it, Tab completes it, Ctrl-C stops it.")

    def quit(self, words: list[str]) -> None:
        """Leave."""
        self._done = True

    def _last(self) -> str:
        if not self.last:
            raise UsageError("there is no statement yet: run one first")
        return self.last


COMMANDS: dict[str, _DotCommand] = {
    "tables": _DotCommand("", "List the tables.", Shell.show_tables),
    "schema": _DotCommand("[TABLE]", "List the columns of a table, or of all.", Shell.show_schema),
    "mode": _DotCommand("[FORMAT]", f"Show results as {', '.join(_FORMS)}.", Shell.set_mode),
    "export": _DotCommand(
        "FILE [--force]", "Write the last result: .parquet, .arrow, .csv, .json, .txt.", Shell.export
    ),
    "explain": _DotCommand("", "Show which files the last statement reads.", Shell.explain),
    "save": _DotCommand("NAME [--force]", "Keep the last statement in the lake.", Shell.save),
    "saved": _DotCommand("", "List the saved queries.", Shell.list_saved),
    "show": _DotCommand("NAME", "Print the SQL of a saved query.", Shell.show),
    "delete": _DotCommand("NAME", "Delete a saved query.", Shell.delete),
    "help": _DotCommand("", "List the commands.", Shell.help),
    "quit": _DotCommand("", "Leave, as Ctrl-D does.", Shell.quit),
    "exit": _DotCommand("", "Leave.", Shell.quit),
}


def completion_hint(name: str) -> str:
    """Return the nearest command, or how to list them."""
    import difflib

    near = difflib.get_close_matches(name[1:], COMMANDS, 1)
    return f"did you mean .{near[0]}?" if near else ".help lists them"


def is_done(text: str) -> bool:
    """Return whether Enter ends a text: a command, a saved query, or statements whose last one has its semicolon."""
    stripped = text.strip()
    if not stripped or stripped.startswith((".", "@")):
        return True
    return not has_code(split_statements(text)[1])


def _entries(text: str) -> Iterator[str]:
    """Yield the statements and commands of a text; the last statement needs no semicolon."""
    rest = text
    while rest.strip():
        rest = rest.lstrip()
        if rest.startswith((".", "@")):
            line, _, rest = rest.partition("\n")
            yield line.strip().removesuffix(";").rstrip()
            continue
        # Up to the first semicolon: a command may follow on the next line.
        statements, left = split_statements(rest)
        if not statements:
            if has_code(left):
                yield left.strip()
            return
        end = _end_of_first(rest)
        if has_code(rest[: end - 1]):
            yield rest[: end - 1].strip()
        rest = rest[end:]


def _end_of_first(text: str) -> int:
    from trailsift.query.statements import parts

    return next(part.end for part in parts(text) if part.kind == "code")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text}: {error}".replace("closing quotation", "closing quotation mark").lower()) from None


def _one(words: list[str]) -> str:
    if len(words) != 1:
        raise UsageError("name one saved query: .saved lists them")
    return words[0]


def _no_more(words: list[str], most: int) -> None:
    if len(words) > most:
        raise UsageError(f"too many words: {' '.join(words[most:])}")
