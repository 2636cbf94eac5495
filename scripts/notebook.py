"""Write docs/first-hour.ipynb: run its cells on generated logs, and keep what they show.

The cells are in this file, so that a change of a cell is a change of text. `python scripts/notebook.py` runs them in a
temporary folder that has generated logs as `AWSLogs`, and writes the notebook with the outputs.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "first-hour.ipynb"


class Cell(NamedTuple):
    """One cell: prose or code."""

    kind: str
    text: str


CELLS = (
    Cell(
        "markdown",
        """# The first hour with a lake

From a folder of CloudTrail logs to the one role that needs a closer look. The notebook needs no AWS account.
It runs on your own logs if a folder `AWSLogs` is beside it. The logs used here are generated, by
`trailsift generate logs --events 20000 --days 3 --seed 7`; their folder is `logs/AWSLogs`.""",
    ),
    Cell(
        "code",
        """import trailsift

lake = trailsift.Lake("my.lake")
counts = lake.ingest("AWSLogs")
counts.records, counts.stored, counts.duplicates, counts.malformed""",
    ),
    Cell(
        "markdown",
        """The counts reconcile: records = stored + duplicates + dropped + malformed. Ingesting the same folder
again stores nothing twice, so the same line keeps a lake up to date.""",
    ),
    Cell("code", """lake.ingest("AWSLogs").stored"""),
    Cell("markdown", """## What fills the log?\n\nSummaries are exact, whatever rules drop or sample later."""),
    Cell(
        "code",
        """for line in lake.summary("event", limit=5).lines:
    print(f"{line.measures.events:>8,}  {' '.join(map(str, line.names))}")""",
    ),
    Cell("markdown", """The same in SQL. A result shows itself as a table in a notebook."""),
    Cell(
        "code",
        """lake.query(\"\"\"
    SELECT event_name, sum(events) AS calls, sum(bytes_out) AS bytes_out
    FROM hourly GROUP BY event_name ORDER BY calls DESC, event_name LIMIT 5
\"\"\")""",
    ),
    Cell("markdown", """A result is rows, Arrow, a pandas or a polars data frame:"""),
    Cell(
        "code",
        """calls = lake.query(
    "SELECT hour, sum(events) AS calls FROM hourly WHERE event_name = 'DeleteObject' GROUP BY hour ORDER BY hour"
)
calls.df().set_index("hour")["calls"].nlargest(3)""",
    ),
    Cell("markdown", """## What is unusual?\n\nFindings are ranked; the first is the one to look at first."""),
    Cell(
        "code",
        """findings = lake.findings()
for number, finding in enumerate(findings[:5], 1):
    print(number, finding.severity, finding.role_arn)
    print("  ", finding.title)""",
    ),
    Cell(
        "markdown",
        """Each finding has its summary rows and its events; `lake.records` gives the records as CloudTrail
wrote them.""",
    ),
    Cell(
        "code",
        """detail = lake.finding(findings[0].id)
event = detail.events[0]
event["event_name"], str(event["event_time"]), event["source_ip"]""",
    ),
    Cell("markdown", """## Who is it?\n\nA short name is enough if it is unique. Times are text or `datetime`."""),
    Cell(
        "code",
        """role = lake.role("orders-etl-batch", since="2026-03-04")
role.role_arn""",
    ),
    Cell(
        "code",
        """lake.query(\"\"\"
    SELECT date_trunc('hour', event_time) AS hour, event_name, count(*) AS calls
    FROM events
    WHERE role_arn LIKE '%role/orders-etl-batch' AND event_name = 'DeleteObject' AND event_time >= '2026-03-04'
    GROUP BY ALL ORDER BY calls DESC, hour LIMIT 3
\"\"\").show()""",
    ),
    Cell("markdown", """## Keep the evidence"""),
    Cell(
        "code",
        """lake.export("deleted.ndjson", where="event_name = 'DeleteObject' AND event_time >= '2026-03-04T15:00'")""",
    ),
    Cell(
        "markdown",
        """Then: `trailsift suggest --lake my.lake` shows what could be dropped or sampled, and
[library.md](library.md) has every method.""",
    ),
)


def run(cells: tuple[Cell, ...] = CELLS) -> Iterator[tuple[Cell, list[dict[str, Any]]]]:
    """Run the cells in one namespace, as a notebook does; yield each cell and its outputs."""
    names: dict[str, Any] = {}
    for cell in cells:
        yield cell, _outputs(cell.text, names) if cell.kind == "code" else []


def _outputs(code: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    body = ast.parse(code).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue()})
    if value is not None:
        data = {"text/plain": repr(value)}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_()
        outputs.append({"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": data})
    return outputs


def notebook() -> dict[str, Any]:
    """Return the notebook (nbformat 4.5) with the outputs of its cells, run in the present folder."""
    cells = []
    for number, (cell, outputs) in enumerate(run()):
        made: dict[str, Any] = {"cell_type": cell.kind, "id": f"cell-{number}", "metadata": {}, "source": cell.text}
        if cell.kind == "code":
            made |= {"execution_count": None, "outputs": outputs}
        cells.append(made)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def main() -> None:
    """Write the notebook."""
    from trailsift.generate import Options, generate

    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder) / "logs", Options(events=20_000, days=3, seed=7))
        with contextlib.chdir(folder):
            Path("AWSLogs").symlink_to("logs/AWSLogs")
            text = json.dumps(notebook(), indent=1, ensure_ascii=False)
    NOTEBOOK.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
