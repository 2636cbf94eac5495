"""The final output of `generate` and `ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.analysis.shell import program, quoted
from trailsift.lake.retention import RULE as RETENTION
from trailsift.safe_text import safe
from trailsift.terminal.console import console, duration, plural, size
from trailsift.terminal.output import print_json

if TYPE_CHECKING:
    from trailsift.generate import Generated
    from trailsift.ingest import Counts
    from trailsift.ingest.survey import Survey


def show_generated(generated: Generated, target: Path, as_json: bool) -> None:
    """Show what was written, and the next step."""
    if as_json:
        print_json(
            {
                "folder": str(target),
                "events": generated.events,
                "records": generated.records,
                "log_objects": generated.log_objects,
                "bytes": generated.bytes,
                "plain_bytes": generated.plain_bytes,
                "planted": list(generated.planted),
            }
        )
        return
    out = console()
    out.print(
        f"{plural(generated.events, 'event')} in {plural(generated.log_objects, 'log object')} under {target}/AWSLogs "
        f"({size(generated.bytes)}, {size(generated.plain_bytes)} as plain JSON)."
    )
    if generated.records > generated.events:
        out.print(f"{plural(generated.records, 'record')} in total: the second trail delivers copies.")
    if generated.planted:
        out.print(f"{plural(len(generated.planted), 'incident')} planted, described in {target}/truth.json.")
    out.print(f"Next: {program()} ingest {quoted(target / 'AWSLogs')} --lake lake", style="bold", soft_wrap=True)


def show_counts(counts: Counts, lake: Path | str, as_json: bool) -> None:
    """Show the counts of an ingest as a sum that adds up, and the next step."""
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
        foreign, others = counts.strange, counts.other_files
        reasons = [f"{counts.log_objects_known:,} already ingested"] if counts.log_objects_known else []
        reasons += (
            [f"{foreign:,} not CloudTrail logs"] if foreign > 1 else ["1 not a CloudTrail log"] if foreign else []
        )
        if others:
            kinds = ", ".join(plural(number, kind) for kind, number in sorted(others.items()))
            reasons.append(f"{plural(sum(others.values()), 'other file')} of the bucket ({kinds})")
        out.print(f"{plural(counts.log_objects_skipped, 'log object')} skipped: {', '.join(reasons)}.")
    if counts.passed_over:
        out.print(f"{passed_over(counts.passed_over)}.", soft_wrap=True)
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
    if RETENTION in counts.dropped:
        out.print("Retention has removed their days, so they are in summaries only; another lake would store them.")
    fuller = counts.conflicts.get("fuller-copy", 0)
    conflicting = counts.conflicts.get("conflicting-time", 0) + counts.conflicts.get("conflicting-content", 0)
    if conflicting:
        copies = plural(conflicting, "duplicate")
        command = f"{program()} rejects --reason conflicting --lake {quoted(lake)}"
        out.print(f"{copies} with another time or content than the stored event: {command}", soft_wrap=True)
    if fuller:
        copies = plural(fuller, "duplicate")
        command = f"{program()} rejects --reason fuller-copy --lake {quoted(lake)}"
        out.print(
            f"{copies} with more of the record than is stored (ingest full logs before reduced ones): {command}",
            soft_wrap=True,
        )
    out.print(f"Next: {program()} summary --lake {quoted(lake)}", style="bold", soft_wrap=True)


def show_survey(survey: Survey, as_json: bool) -> None:
    """Show what an ingest would read."""
    if as_json:
        print_json(survey.as_dict())
        return
    out = console()
    out.print(f"{survey_line(survey)}.", soft_wrap=True)
    if survey.passed_over:
        out.print(f"{passed_over(survey.passed_over)}.", soft_wrap=True)


def survey_line(survey: Survey) -> str:
    """Return in one line what there is to read, and what that takes."""
    parts = [f"{plural(survey.log_objects, 'new log object')} ({size(survey.bytes)}) in {safe(survey.source)}"]
    if survey.first_day is not None:
        span = survey.first_day if survey.first_day == survey.last_day else f"{survey.first_day} to {survey.last_day}"
        parts.append(f"delivered {span}")
    if survey.accounts or survey.regions:
        parts.append(f"{plural(len(survey.accounts), 'account')} in {plural(len(survey.regions), 'region')}")
    if survey.log_objects_known:
        parts.append(f"{survey.log_objects_known:,} ingested before")
    if survey.log_objects:
        parts.append(f"about {duration(max(survey.seconds, 1))} to read")
    if survey.remote:
        parts.append(
            f"requests cost ${survey.usd_list + survey.usd_get:.4f} ({plural(survey.list_requests, 'LIST')}, "
            f"{plural(survey.log_objects, 'GET')}; prices of us-east-1, {survey.prices_of}; data transfer not included)"
        )
    return "; ".join(parts)


def passed_over(kinds: dict[str, int]) -> str:
    """Return which other logs are not fetched."""
    # Folders and single objects are counted alike: what is in a folder is not listed.
    names = ", ".join(f"{safe(kind)} ({number:,})" for kind, number in sorted(kinds.items()))
    return f"Not fetched, other folders and objects: {names}"


def not_fetched(counts: Counts) -> str:
    """Return which log objects could not be fetched, the first few of them by name."""
    lines = []
    if counts.log_objects_failed:
        lines.append(
            f"{plural(counts.log_objects_failed, 'log object')} could not be fetched: the next run tries again"
        )
    if counts.log_objects_gone:
        lines.append(f"{plural(counts.log_objects_gone, 'log object')} changed after the listing")
    return "\n".join([*lines, *(f"{name}: {reason}" for name, reason in counts.not_fetched.items())])


def incomplete(counts: Counts, lake: Path | str) -> str:
    """Return why an ingest ends with exit code 3, and what to do about it."""
    reasons = []
    if counts.malformed:
        command = f"{program()} rejects --lake {quoted(lake)}"
        reasons.append(f"{plural(counts.malformed, 'record')} could not be stored: `{command}` shows them")
    if counts.log_objects_failed:
        reasons.append(f"{plural(counts.log_objects_failed, 'log object')} could not be fetched: run it again")
    foreign = counts.strange
    if foreign == 1:
        reasons.append("1 file was not a CloudTrail log and was skipped")
    elif foreign:
        reasons.append(f"{foreign:,} files were not CloudTrail logs and were skipped")
    return "; ".join(reasons)


def links_passed_over(counts: Counts) -> str:
    """Return how many links were not followed, and what to do about it."""
    count = counts.links_passed_over
    if count == 1:
        return "1 link leads out of its folder and is passed over: name it on the command line to read what it leads to"
    return (
        f"{count:,} links lead out of their folders and are passed over: name them on the command line to read what "
        "they lead to"
    )
