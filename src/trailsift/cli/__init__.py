"""The command line: parses, calls the library, prints. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but
something was malformed or skipped, 130 interrupted.

Nothing heavy is imported here or at the top of a command's module: a cold ``trailsift query`` pays for DuckDB only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from trailsift.cli.app import app
from trailsift.cli.options import STDIN
from trailsift.errors import TrailsiftError

__all__ = ["app", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; no traceback reaches the user."""
    from cyclopts import CycloptsError

    if os.environ.get("TRAILSIFT_DEBUG"):
        return _run(argv)
    try:
        return _run(argv)
    except CycloptsError as error:
        return _fail(" ".join(str(error).split()) + " See `trailsift --help`.", 2)
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
        text = " ".join(str(error).split())
        return _fail(f"unexpected {type(error).__name__}: {text}. Run again with TRAILSIFT_DEBUG=1 for a traceback", 1)


def _run(argv: Sequence[str] | None) -> int:
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
