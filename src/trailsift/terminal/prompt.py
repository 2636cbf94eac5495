"""The prompt of the shell: editing, history and completion by prompt_toolkit, of which nothing else knows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.errors import UsageError
from trailsift.query.completion import Candidate
from trailsift.safe_text import safe

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings

#: Bytes of the history above which its older half is forgotten.
_LONGEST = 1 << 20
PROMPT, MORE = "trailsift> ", "      ...> "

#: (text before the cursor, text after it) -> what can stand there.
Complete = Callable[[str, str], list[Candidate]]


def history_file() -> Path:
    """Return where the statements of former sessions are kept: for this user only."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "trailsift" / "history"


def read_texts(complete: Complete, is_done: Callable[[str], bool], history: Path) -> Iterator[str | None]:
    """Yield what the user enters, until the end of input; None if Ctrl-C has cleared the line.

    ``is_done``: whether Enter ends a text, or begins another line. UsageError if prompt_toolkit is not installed.
    """
    session = _session(complete, is_done, history)
    while True:
        try:
            yield session.prompt()
        except KeyboardInterrupt:
            yield None
        except EOFError:
            return


def _session(complete: Complete, is_done: Callable[[str], bool], history: Path) -> PromptSession[str]:
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import Completer, Completion
    except ImportError:
        raise UsageError(
            "the shell needs prompt_toolkit, which is not installed: pip install prompt_toolkit. Without it, "
            "`trailsift shell < FILE` and `trailsift query` run SQL"
        ) from None

    class Names(Completer):
        def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
            for text, length, meaning in complete(document.text_before_cursor, document.text_after_cursor):
                yield Completion(text, -length, display=safe(text), display_meta=meaning)

    names: Completer = Names()
    return PromptSession(
        PROMPT,
        completer=names,
        complete_while_typing=False,
        complete_in_thread=True,
        history=_history(history),
        multiline=True,
        prompt_continuation=MORE,
        key_bindings=_keys(is_done),
        enable_history_search=True,
    )


def _keys(is_done: Callable[[str], bool]) -> KeyBindings:
    from prompt_toolkit.application import get_app
    from prompt_toolkit.filters import Condition, completion_is_selected
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter", filter=~completion_is_selected & Condition(lambda: is_done(get_app().current_buffer.text)))
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("enter", filter=completion_is_selected)
    def _(event: KeyPressEvent) -> None:
        # Takes the candidate; the next Enter ends the line.
        event.current_buffer.complete_state = None

    return keys


def _history(path: Path) -> History:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        path.chmod(0o600)
        _shorten(path)
    except OSError:
        # A home that cannot be written: this session has a history of its own.
        return InMemoryHistory()
    return FileHistory(path)


def _shorten(path: Path) -> None:
    """Forget the older half of a long history."""
    if path.stat().st_size <= _LONGEST:
        return
    data = path.read_bytes()
    # Entries begin with a line of their time.
    start = data.find(b"\n# ", len(data) - _LONGEST // 2)
    partial = path.with_name(f".{os.urandom(8).hex()}.partial")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data[start:] if start >= 0 else b"")
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()
