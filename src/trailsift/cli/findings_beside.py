"""Findings beside a watch: `detect --follow` in a process of its own, whose lines the watch shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Literal, Protocol

from trailsift.cli.detect import PARENT
from trailsift.errors import TrailsiftError
from trailsift.terminal.output import say

if TYPE_CHECKING:
    from typing import IO

    from trailsift.api import Lake

#: Seconds until a process that ended is started again, and that its last run may take.
_AGAIN, _PATIENCE = 30.0, 600.0


class Screen(Protocol):
    """Where findings are shown."""

    as_json: bool

    def finding(self, text: str) -> None:
        """Show a line about findings."""
        ...

    def trouble(self, text: str) -> None:
        """Show what went wrong."""
        ...


class FindingsBeside:
    """Reports findings as they come. What was reported is kept in the lake, so a new start repeats nothing."""

    def __init__(
        self, lake: Lake, every: float, webhook: str | None, form: Literal["json", "slack"], screen: Screen
    ) -> None:
        """``every``: seconds between two looks at the lake. Raise UsageError if ``webhook`` is not a URL."""
        if webhook is not None:
            from trailsift.detect.notify import check_url

            check_url(webhook)
        self._words = [sys.executable, "-m", "trailsift", "detect", "--lake", str(lake.path)]
        self._words += ["--timezone", lake.timezone]
        if screen.as_json:
            self._words.append("--json")
        if webhook is not None:
            self._words += ["--webhook", webhook, "--webhook-format", form]
        self._lake, self._webhook, self._form = lake, webhook, form
        self._every = every
        self._screen = screen
        self._process: subprocess.Popen[str] | None = None
        self._threads: list[threading.Thread] = []
        self._started = -_AGAIN
        self._has_news = False

    def note_commit(self) -> None:
        """Start looking after the first commit; and again, if the process has ended."""
        self._has_news = True
        if self._process is not None and self._process.poll() is None:
            return
        if time.monotonic() - self._started >= _AGAIN:
            if self._process is not None:
                self._screen.trouble("detection beside the watch had ended and is started again")
            self._started = time.monotonic()
            self._start(["--follow", "--interval", str(self._every)])

    def _start(self, more: list[str]) -> None:
        # The words of the command line are the user's own, and no shell reads them.
        self._process = subprocess.Popen(  # noqa: S603
            [*self._words, *more], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8", errors="backslashreplace", start_new_session=True, env={**os.environ, PARENT: "1"},
        )  # fmt: skip
        assert self._process.stdout is not None and self._process.stderr is not None
        self._threads = [
            threading.Thread(target=self._show, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._say, args=(self._process.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _show(self, lines: IO[str]) -> None:
        for line in lines:
            text = line.rstrip("\n")
            if not self._screen.as_json:
                self._screen.finding(text)
                continue
            try:
                json.loads(text)
            except ValueError:
                continue
            self._screen.finding(text)

    def _say(self, lines: IO[str]) -> None:
        for line in lines:
            self._screen.trouble(line.rstrip("\n").removeprefix("trailsift: "))

    def close(self, *, finish: bool) -> None:
        """End the process; ``finish``: look at what was committed last, first."""
        if self._process is not None:
            self._process.terminate()
            self._join()
        if finish and self._has_news:
            try:
                self._report()
            except Exception as error:  # of any kind: the events are stored, and the next run detects again
                text = str(error) if isinstance(error, TrailsiftError) else f"{type(error).__name__}: {error}"
                self._screen.trouble(f"everything was stored, but detection failed: {text}")

    def _report(self) -> None:
        """Report what is new in the lake as it is now."""
        from trailsift.safe_text import safe

        found = self._lake.detect(clean=str if self._screen.as_json else safe).findings
        new = self._lake.unreported(found, "follow")
        for finding in new:
            line = f"{finding.severity} {finding.id} {finding.title}"
            self._screen.finding(json.dumps(finding.as_dict(), default=str) if self._screen.as_json else line)
        self._lake.mark_reported(new, "follow")
        if self._webhook is not None:
            for problem in self._lake.notify(found, self._webhook, self._form)[1]:
                self._screen.trouble(problem)

    def _join(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            say("detection took too long and was ended; `trailsift detect` looks again")
            self._process.kill()
        for thread in self._threads:
            thread.join(5)
