"""Write the pages that are generated from the code: docs/schema.md, docs/cli.md, docs/limits.md,
docs/detections.md, docs/prices.md, docs/architecture.svg.

`--check` writes nothing, names the pages that are not current, and exits with 1 if there is one.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import detection_page
import structure

DOCS = Path(__file__).resolve().parent.parent / "docs"


def schema() -> str:
    """Return the page of all tables and columns."""
    from trailsift.cli import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["columns", "--format", "markdown"])
    if code:
        raise SystemExit(f"`trailsift columns` ended with {code}")
    return out.getvalue()


def cli() -> str:
    """Return the page of all commands and options."""
    from trailsift.cli.app import app

    # Usage lines name the words of the running program otherwise.
    words, sys.argv = sys.argv, ["trailsift"]
    try:
        page: str = app.generate_docs(output_format="markdown").replace("```console", "```text")
    finally:
        sys.argv = words
    note = "Generated from the code by `make docs`. Exit codes: see [README.md](../README.md#exit-codes)."
    title, _, rest = page.partition("\n")
    # Trailing blanks are invisible changes.
    lines = [line.rstrip() for line in rest.strip().splitlines()]
    return "\n".join([title, "", note, "", *lines, ""])


def limits() -> str:
    """Return the page of the bounds on what one input may cost."""
    import dataclasses

    from trailsift.decode.limits import Limits

    lines = [
        "# Limits",
        "",
        "Generated from `src/trailsift/decode/limits.py` by `make docs`.",
        "",
        "What one input (a file with everything in it) may cost. Nothing that a file says about its own sizes is "
        "believed. What exceeds a limit is listed in `rejects` with its reason, and everything else is read.",
        "",
        "Within these limits no input that we know of makes a process of an ingest take more than 2.5 GB of memory: "
        "archives and streams stay below 1.6 GB, and a text of 10 million objects takes the most. Ordinary logs take "
        "0.2 to 0.4 GB. The CPU time grows with the bytes that are unpacked, never faster; the slowest text known, "
        "ten million values that are no records, costs about a minute. The tests build such inputs and measure "
        "both.",
        "",
        "| limit | of what | beyond it | why |",
        "|---|---|---|---|",
    ]
    for item in dataclasses.fields(Limits):
        value, unit = int(str(item.default)), item.metadata["unit"]
        size = f"{value >> 20:,} MB" if unit == "bytes" and value >= 1 << 20 else f"{value:,} {unit}"
        row = [f"`{item.name}`: {size}", *(item.metadata[name] for name in ("bounds", "beyond", "reason"))]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, *_query_limits(), ""])


def _query_limits() -> list[str]:
    from trailsift.query import limits, sandbox
    from trailsift.query.deadline import GRACE
    from trailsift.query.functions import TABLE_FUNCTIONS
    from trailsift.query.result_cache import MAX_ANSWER, MAX_TOTAL

    return [
        "",
        "## Queries",
        "",
        "What one statement may cost, in `trailsift query` and in `Lake.query`. The limits hold for all of it: "
        "checking, planning, running, and reading the result.",
        "",
        "| limit | default | set it with | beyond it |",
        "|---|---|---|---|",
        "| time | none | `--timeout SECONDS`, `timeout=` | It is stopped, exit code 1; `QueryTimeoutError`. |",
        f"| memory | {limits.MEMORY_SHARE:.0%} of the memory, or of the container's | `--memory 2GB`, `memory_limit=` "
        "| It spills to disk where it can, and else fails; `QueryMemoryError`. |",
        f"| memory of the whole process | the limit above and {limits.PROCESS_MEMORY >> 20:,} MB | `--memory` "
        "| The system refuses more, and the command says so. Not for library calls. |",
        f"| disk to spill to | {limits.SPILL_SHARE:.0%} of what is free | `--spill 20GB`, `spill_limit=` "
        "| It fails; `QueryMemoryError`. |",
        f"| length of a statement | {sandbox.MAX_LENGTH:,} characters | | It is refused. |",
        f"| a cached result | {MAX_ANSWER >> 20} MB, all of them {MAX_TOTAL >> 20} MB | `--no-cache`, `cache=` "
        "| It is not kept; the least recently used are deleted. |",
        "",
        f"Ctrl-C ends a statement at any time. A function that cannot be interrupted is left behind after {GRACE:g} s: "
        "the command ends with its process, a library call raises and the function ends in the background.",
        "",
        "Temporary data is kept in `~/.cache/trailsift/spill`, or in `TMPDIR` where that cannot be written; only the "
        "user can read it, and it is deleted at the end.",
        "",
        "A statement may call functions that compute something from their arguments, from the clock or at random. "
        "Functions that read files, settings, variables, the environment or the catalog, that run SQL, wait or "
        "write are refused, and so is every function of DuckDB that is not known to trailsift. Table functions: "
        + ", ".join(f"`{name}`" for name in sorted(TABLE_FUNCTIONS))
        + ".",
    ]


def prices() -> str:
    """Return the page of all prices: for what, in which region, of which day, from which page."""
    from trailsift.prices import known_regions, load_prices

    listed = {region: load_prices(region=region) for region in known_regions()}
    first = next(iter(listed.values()))
    lines = [
        "# Prices",
        "",
        "Generated from `src/trailsift/prices.toml` by `make docs`. `cost`, `suggest`, `rules try`, `selectors`, "
        "`ingest --dry-run`, `watch` and `query` all use them: list prices in US dollars, without free tiers and "
        "discounts, of the first tier where a price has several.",
        "",
        "A price that no line has is not known here, and is said to be so. No price is known for China, GovCloud and "
        "other partitions of AWS. Prices of other regions than us-east-1 are those of AWS's Price List under the usage "
        "type in parentheses, as others published them on that day: compare them with your bill.",
        "",
        "`--prices FILE` or `TRAILSIFT_PRICES` overrides them: a line for all regions, a table for one.",
        "",
        "```toml",
        "data_events = { usd = 0.08 }",
        "",
        "[ap-northeast-2]",
        "athena_scan = { usd = 5.00 }",
        "```",
    ]
    for name, price in first.items():
        lines += [
            "",
            f"## {name}",
            "",
            f"Per {price.per:,.0f}: {price.unit}." if price.per != 1 else f"Per {price.unit}.",
            "",
            "| region | USD | day | source |",
            "|---|---|---|---|",
        ]
        everywhere = name in load_prices(region="")
        rows = {"all of them": first} if everywhere else {r: known for r, known in listed.items() if name in known}
        for region, known in rows.items():
            found = known[name]
            page, _, usage = found.source.partition(" ")
            shown = page.removeprefix("https://aws.amazon.com/").rstrip("/")
            source = f"[{shown}]({page}){f' {usage}' if usage else ''}"
            lines.append(f"| {region} | {found.usd:.10f}".rstrip("0").rstrip(".") + f" | {found.date} | {source} |")
    return "\n".join([*lines, ""])


PAGES: Mapping[str, Callable[[], str]] = {
    "schema.md": schema,
    "cli.md": cli,
    "limits.md": limits,
    "detections.md": detection_page.page,
    "prices.md": prices,
    "architecture.svg": structure.diagram,
}


def stale() -> list[str]:
    """Return the names of the pages that differ from what the code gives now."""
    return [name for name, make in PAGES.items() if _current(name) != make()]


def _current(name: str) -> str:
    path = DOCS / name
    return path.read_text("utf-8") if path.exists() else ""


def main() -> int:
    """Write all pages, or check them."""
    if sys.argv[1:] == ["--check"]:
        names = stale()
        print(*[f"docs/{name} is not current: run `make docs`" for name in names], sep="\n", end="\n" if names else "")
        return 1 if names else 0
    for name, make in PAGES.items():
        (DOCS / name).write_text(make(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
