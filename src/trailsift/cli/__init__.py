"""The command line: parse, call the library, print.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but something was malformed or skipped, 130 interrupted.

Start-up time is a feature: `--version` imports neither cyclopts nor typing, a command imports its own module only, and
a cold `trailsift query` pays for cyclopts and DuckDB.
"""

from __future__ import annotations

import codecs
import contextlib
import gc
import io
import os
import sys

from trailsift import __version__
from trailsift.errors import TrailsiftError

TYPE_CHECKING = False  # typing.TYPE_CHECKING without the import, which takes milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence

#: Stands for ``-`` (standard input) behind the parser, which would take it for an option.
STDIN = "\0-"
#: Words that ask for the list of commands.
_HELP = ("--help", "-h")

#: Whether the process runs one command and nothing else, so that it may be limited as a whole.
is_own_process = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. No traceback reaches the user.

    Without ``argv`` the process is ours: it runs the words of the command line and ends without returning, if it can.
    """
    global is_own_process
    is_own_process = argv is None
    words = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    if words == ["--version"]:
        code = _guarded(words)
    else:
        from trailsift.runtime import without_pandas

        with without_pandas():
            code = _guarded(words)
    if argv is None:
        try:
            _leave(code)
        except KeyboardInterrupt:
            os._exit(130)
    return code


def version_line() -> str:
    """Return the version, and whether the C modules are in use."""
    from trailsift import _native

    modules = "yes" if _native.available() else "no"
    if os.environ.get(_native.PURE, "") not in ("", "0"):
        modules += f", {_native.PURE} is set"
    return f"trailsift {__version__} (C modules: {modules})"


def _open_streams() -> None:
    """Give a process that was started without standard output or error a stream that discards what is written."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    # On a pipe that does not block, Python loses what does not fit.
    with contextlib.suppress(OSError, ValueError):
        if not os.get_blocking(sys.stdout.fileno()):
            os.set_blocking(sys.stdout.fileno(), True)


def _leave(code: int) -> None:
    """End the process without dismantling the interpreter, which takes a tenth of a cold query.

    Exit handlers run and the streams are flushed. Return instead if something would be lost: other threads at work, a
    debugger or a profiler, output that cannot be written. Never return if a query was given up that still runs: the
    interpreter and DuckDB would be dismantled under it.
    """
    import atexit
    import threading

    deadline = sys.modules.get("trailsift.query.deadline")
    if deadline is not None and deadline.left_behind():
        atexit.unregister(deadline.await_left_behind)
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    watched = sys.gettrace() is not None or sys.getprofile() is not None or sys.flags.inspect
    # Daemons end with the interpreter in any case; requests for log objects (``sources.s3_fetch``) may take minutes.
    at_work = [thread for thread in threading.enumerate() if not thread.daemon and not thread.name.startswith("s3-get")]
    if watched or len(at_work) > 1 or os.environ.get("TRAILSIFT_DEBUG"):
        return
    # The command has done its work: Ctrl-C would only interrupt an exit handler, with a traceback.
    sys.unraisablehook = lambda _: None
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(code)


def _flush_output() -> None:
    """Write what is left, so that a full disk is reported like any other error."""
    try:
        sys.stdout.flush()
    except OSError as error:
        error.filename = "standard output"
        raise


def _guarded(words: list[str]) -> int:
    # Commands do no linear algebra, for which numpy would start threads in each process: a tenth of a second each.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A command creates many objects and few cycles: a collection every 700 objects is a tenth of a cold start.
    gc.set_threshold(100_000, 50, 100)
    codecs.register_error("trailsift", _escaped)
    for stream in (sys.stdout, sys.stderr):
        # Names in logs are of any language; a terminal that cannot show them shows escape sequences.
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="trailsift")
    from trailsift.terminal.output import Messages

    # Warnings and log lines of libraries may quote a log, too.
    sys.stderr, stderr = Messages(sys.stderr), sys.stderr
    if os.environ.get("TRAILSIFT_DEBUG"):
        # The interpreter prints the traceback after us: it stays in place.
        return _run(words)
    sys.unraisablehook, hook = _unraisable, sys.unraisablehook
    try:
        return _reported(words)
    finally:
        sys.stderr, sys.unraisablehook = stderr, hook


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Handle what a finalizer raised, which Python would print with a traceback. Ctrl-C still ends the command."""
    import _thread
    import time

    def again() -> None:
        # Python would ignore what this hook raises, too.
        time.sleep(0.01)
        _thread.interrupt_main()

    error = unraisable.exc_value
    if isinstance(error, KeyboardInterrupt):
        _thread.start_new_thread(again, ())
    elif error is not None:
        text = " ".join(str(error).split())
        _fail(f"cleaning up failed: {text or type(error).__name__}", 0)


def _reported(words: list[str]) -> int:
    """Run a command; report what fails as a message. Return the exit code."""
    from trailsift.runtime import low_memory_limit, shortage

    if limit := low_memory_limit():
        # Where a library ends the process for lack of memory, nothing can be said any more.
        from trailsift.terminal.output import say

        say(f"this process may use {limit >> 20} MB of memory (`ulimit -v`): a command that needs more may be aborted")
    try:
        return _run(words)
    except TrailsiftError as error:
        advice = shortage(error)
        return _fail(f"{error}; {advice}" if advice else str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        advice = shortage(error)
        text = f"{error.filename or 'standard output'}: {error.strerror or error}"
        return _fail(f"{text}; {advice}" if advice else text, 1)
    except Exception as error:
        if advice := shortage(error):
            return _fail(advice, 1)
        if isinstance(error, RuntimeError) and str(error) == "Query interrupted":
            # DuckDB's word for Ctrl-C during what takes no time limit, such as opening a database.
            return _fail("interrupted", 130)
        usage = _usage(error)
        if usage:
            return _fail(usage, 2)
        text = " ".join(str(error).split())
        return _fail(f"unexpected {type(error).__name__}: {text}. Run again with TRAILSIFT_DEBUG=1 for a traceback", 1)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Return the characters that an encoding lacks, escaped as in JSON."""
    import json

    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _usage(error: Exception) -> str:
    """Return what is wrong with the command's words; empty for any other error."""
    from cyclopts import CycloptsError

    if not isinstance(error, CycloptsError):
        return ""
    command = " ".join(["trailsift", *(error.command_chain or ())])
    text = " ".join(str(error).split())
    if "--lake" in text and "requires an argument" in text:
        from trailsift.cli.session import WHICH_LAKE

        text = f"{WHICH_LAKE}."
    return f"{text} See `{command} --help`."


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        from trailsift.terminal.output import print_line

        print_line(version_line())
        _flush_output()
        return 0
    # Imported here, so that an interrupt or a broken installation ends like any other error.
    from trailsift.cli.app import app, load_commands

    if words[:1] == ["help"]:
        # `help query` is `query --help`.
        words = [*words[1:], _HELP[0]]
    if not words or words[0] in _HELP:
        load_commands()
    result = app(
        [STDIN if word == "-" else word for word in words],
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    _flush_output()
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    from trailsift.terminal.output import say

    say(message)
    return code
