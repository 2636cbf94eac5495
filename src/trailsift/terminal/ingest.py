"""What `generate` and `ingest` say when they are done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.analysis.shell import quoted
from trailsift.terminal.console import console, duration, plural, print_json, size

if TYPE_CHECKING:
    from trailsift.generate import Generated
    from trailsift.ingest import Counts


def show_generated(made: Generated, target: Path, as_json: bool) -> None:
    """What was written, and the next step."""
    if as_json:
        print_json(
            {
                "folder": str(target),
                "events": made.events,
                "records": made.records,
                "log_objects": made.log_objects,
                "bytes": made.bytes,
                "plain_bytes": made.plain_bytes,
                "planted": list(made.planted),
            }
        )
        return
    out = console()
    out.print(
        f"{plural(made.events, 'event')} in {plural(made.log_objects, 'log object')} under {target}/AWSLogs "
        f"({size(made.bytes)}, {size(made.plain_bytes)} as plain JSON)."
    )
    if made.records > made.events:
        out.print(f"{plural(made.records, 'record')} in all: the second trail delivers copies.")
    if made.planted:
        out.print(f"{plural(len(made.planted), 'incident')} planted; {target}/truth.json tells of them.")
    out.print(f"Next: trailsift ingest {quoted(target / 'AWSLogs')} --lake lake", style="bold", soft_wrap=True)


def show_counts(counts: Counts, lake: Path, as_json: bool) -> None:
    """The counts of an ingest as a sum that adds up, and the next step."""
    if as_json:
        print_json(counts.as_dict())
        return
    out = console()
    rate = f", {counts.records / counts.seconds:,.0f} records/s" if counts.seconds > 0 and counts.records else ""
    out.print(
        f"{plural(counts.log_objects, 'log object')} ingested into {lake} in {duration(counts.seconds)}{rate}.",
        soft_wrap=True,
    )
    if counts.log_objects_skipped:
        other = counts.log_objects_skipped - counts.log_objects_known
        told = [f"{counts.log_objects_known:,} known already"] if counts.log_objects_known else []
        told += [f"{other:,} no CloudTrail log"] if other else []
        out.print(f"{plural(counts.log_objects_skipped, 'log object')} skipped: {', '.join(told)}.")
    if counts.records:
        dropped = [(f"dropped: {name}", number) for name, number in counts.dropped.items()]
        parts = [
            ("stored", counts.stored),
            ("duplicates", counts.duplicates),
            *dropped,
            ("malformed", counts.malformed),
        ]
        lines = [("records", counts.records), *((f"  {name}", number) for name, number in parts)]
        width = max(len(name) for name, _ in lines)
        for name, number in lines:
            out.print(f"  {name:<{width}}  {number:>12,}")
    out.print(f"Next: trailsift summary --lake {quoted(lake)}", style="bold", soft_wrap=True)


def incomplete(counts: Counts, lake: Path) -> str:
    """Why an ingest ends with exit code 3, and what to do about it."""
    told = []
    if counts.malformed:
        command = f"trailsift rejects --lake {quoted(lake)}"
        told.append(f"{plural(counts.malformed, 'record')} could not be stored: `{command}` shows them")
    other = counts.log_objects_skipped - counts.log_objects_known
    if other:
        told.append(f"{plural(other, 'file')} held no CloudTrail log and {'was' if other == 1 else 'were'} skipped")
    return "; ".join(told)
