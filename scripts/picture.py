"""Write the pictures of docs: commands on generated logs, as a terminal shows them.

The beginning of `trailsift summary`, `resource` and `compare` (docs/summary.svg, resource.svg, compare.svg); the list
of findings and the beginning of a finding, in English and Korean (docs/findings.svg, findings.ko.svg, finding.svg,
finding.ko.svg). The same logs give the same pictures. Run it again if the output of a command changes.
"""

from __future__ import annotations

import html
import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH = 92


class Picture(NamedTuple):
    """A picture: its file without the ending, the command that it shows, and how many lines of its output."""

    name: str
    command: str
    lines: int


#: Logs -> pictures of their lake.
PICTURES = {
    "generate logs --events 200000 --days 7 --seed 1 -q": [
        Picture("summary", "summary --lake my.lake --timezone Asia/Seoul", 27),
        Picture("resource", "resource kelp-orders-media --lake my.lake --limit 4", 40),
        Picture("compare", "compare --since 2026-03-06 --lake my.lake --limit 12", 30),
    ],
    "generate logs --events 120000 --days 30 --seed 1 -q": [
        Picture("findings", "detect --lake my.lake --timezone Asia/Seoul", 14),
        Picture("findings.ko", "detect --lake my.lake --timezone Asia/Seoul --lang ko", 14),
        Picture("finding", "finding 1 --lake my.lake --timezone Asia/Seoul", 44),
        Picture("finding.ko", "finding 1 --lake my.lake --timezone Asia/Seoul --lang ko", 44),
    ],
}
#: Background, foreground, the eight colours, and the bright ones.
THEME = TerminalTheme(
    (22, 27, 34), (214, 222, 230),
    [(72, 79, 88), (255, 123, 114), (126, 231, 135), (227, 179, 65), (68, 120, 201), (188, 140, 255), (57, 197, 207),
     (177, 186, 196)],
    [(110, 118, 129), (255, 161, 152), (86, 211, 100), (234, 196, 90), (121, 192, 255), (210, 168, 255), (86, 212, 221),
     (240, 246, 252)],
)  # fmt: skip


def terminal_output(command: list[str], folder: Path) -> str:
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


def svg(output: str, picture: Picture) -> str:
    """Return the first lines of a terminal's output as SVG, without fonts from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi("\n".join(output.splitlines()[: picture.lines])), soft_wrap=False)
    title, unique = f"trailsift {picture.command}", picture.name.replace(".", "-")
    drawn = console.export_svg(title=title, theme=THEME, unique_id=unique)
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'<text ([^>]*)x="([0-9.]+)"([^>]*)textLength="([0-9.]+)"([^>]*)>([^<]*)</text>', _in_cells, drawn)
    return re.sub(r"<!-- .*? -->", "", drawn).replace(
        "Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace"
    )


def _in_cells(part: re.Match[str]) -> str:
    """Split a text where Korean words begin and end, which take two cells a letter; rich counts them as one.

    Korean words keep the spacing of their font: stretched to two cells they fall apart.
    """
    before, x, between, length, after, content = part.groups()
    written = html.unescape(content)
    cell, at, out = float(length) / max(1, len(written)), float(x), []
    for piece in re.split(r"([가-힣]+(?:[\s\xa0][가-힣]+)*)", written):
        width = cell * cell_len(piece)
        fixed = "" if re.match("[가-힣]", piece) else f'textLength="{width:.1f}"'
        shown = html.escape(piece, quote=False).replace(" ", "&#160;").replace("\xa0", "&#160;")
        out.append(f'<text {before}x="{at:.1f}"{between}{fixed}{after}>{shown}</text>' if piece else "")
        at += width
    return "".join(out)


def main() -> None:
    """Write the pictures."""
    program = [sys.executable, "-m", "trailsift"]
    for logs, pictures in PICTURES.items():
        # Commands to copy have the path of the lake, which should be the same each time.
        folder = Path(tempfile.gettempdir()) / "trailsift-demo"
        folder.mkdir()
        try:
            for words in (logs, "ingest logs/AWSLogs --lake my.lake -q"):
                subprocess.run([*program, *words.split()], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            for picture in pictures:
                output = terminal_output([*program, *picture.command.split()], folder)
                (DOCS / f"{picture.name}.svg").write_text(svg(output, picture), "utf-8")
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
