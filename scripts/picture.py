"""Write docs/summary.svg: the beginning of `trailsift summary` on generated logs, as a terminal shows it.

The same logs give the same picture. Run it again if the command's output changes.
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "summary.svg"
WIDTH, LINES = 92, 27
#: Background, foreground, the eight colours, and the bright ones.
THEME = TerminalTheme(
    (22, 27, 34), (214, 222, 230),
    [(72, 79, 88), (255, 123, 114), (126, 231, 135), (227, 179, 65), (68, 120, 201), (188, 140, 255), (57, 197, 207),
     (177, 186, 196)],
    [(110, 118, 129), (255, 161, 152), (86, 211, 100), (234, 196, 90), (121, 192, 255), (210, 168, 255), (86, 212, 221),
     (240, 246, 252)],
)  # fmt: skip


def terminal_output(command: list[str], folder: str) -> str:
    """Return what a command prints on a terminal of `WIDTH` columns."""
    main, end = pty.openpty()
    env = os.environ | {"COLUMNS": str(WIDTH), "TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=folder, env=env, stdin=end, stdout=end, stderr=subprocess.DEVNULL):
        os.close(end)
        parts = []
        try:
            while part := os.read(main, 65_536):
                parts.append(part)
        except OSError:
            pass  # Linux reports the end of a terminal as an error.
        os.close(main)
    return b"".join(parts).decode().replace("\r\n", "\n")


def svg(output: str, title: str) -> str:
    """Return the first lines of a terminal's output as SVG, without fonts from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi("\n".join(output.splitlines()[:LINES])), soft_wrap=False)
    picture = console.export_svg(title=title, theme=THEME, unique_id="summary")
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    return re.sub(r"<!-- .*? -->", "", picture).replace(
        "Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace"
    )


def main() -> None:
    """Write the picture."""
    program = [sys.executable, "-m", "trailsift"]
    with tempfile.TemporaryDirectory() as folder:
        for words in ("generate logs --events 200000 --days 7 --seed 1 -q", "ingest logs/AWSLogs --lake my.lake -q"):
            subprocess.run([*program, *words.split()], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        command = ["summary", "--lake", "my.lake", "--timezone", "Asia/Seoul"]
        output = terminal_output([*program, *command], folder)
    PICTURE.write_text(svg(output, f"trailsift {' '.join(command)}"), "utf-8")


if __name__ == "__main__":
    main()
