"""The command line: parses, calls the library, prints. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but
something was malformed or skipped, 130 interrupted.

Nothing heavy is imported here or at the top of a command's module: a cold ``trailsift query`` pays for DuckDB only.
"""

from __future__ import annotations

import codecs
import gc
import io
import os
import sys
from collections.abc import Sequence

from trailsift.errors import TrailsiftError
from trailsift.runtime import without_pandas


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; no traceback reaches the user."""
    with without_pandas():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    # No command multiplies matrices, for which numpy would start threads in each process, a tenth of a second each.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A command makes many objects and few cycles: looking for those every 700 objects is a tenth of a cold start.
    gc.set_threshold(100_000, 50, 100)
    codecs.register_error("trailsift", _escaped)
    for stream in (sys.stdout, sys.stderr):
        # Names in logs are of any language; a terminal that cannot show them shows their numbers.
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="trailsift")
    if os.environ.get("TRAILSIFT_DEBUG"):
        return _run(argv)
    try:
        return _run(argv)
    except TrailsiftError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 1)
    except Exception as error:
        usage = _usage(error)
        if usage:
            return _fail(usage, 2)
        text = " ".join(str(error).split())
        return _fail(f"unexpected {type(error).__name__}: {text}. Run again with TRAILSIFT_DEBUG=1 for a traceback", 1)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What an encoding has no signs for, as JSON writes it."""
    import json

    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _usage(error: Exception) -> str:
    """What is wrong with the words of the command; empty for any other error."""
    from cyclopts import CycloptsError

    if not isinstance(error, CycloptsError):
        return ""
    text = " ".join(str(error).split())
    if "--lake" in text and "requires an argument" in text:
        return "which lake? Name its folder with --lake, or set TRAILSIFT_LAKE"
    return f"{text} See `trailsift --help`."


def _run(argv: Sequence[str] | None) -> int:
    # Imported here, so that an interrupt or a broken installation ends like any other error.
    from trailsift.cli.app import app
    from trailsift.cli.options import STDIN

    words = sys.argv[1:] if argv is None else argv
    result = app(
        [STDIN if word == "-" else word for word in words],
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    sys.stdout.flush()
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    print(f"trailsift: {message}", file=sys.stderr)
    return code
