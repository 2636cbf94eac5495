"""The page of all detections, and of what of ATT&CK they cover: docs/detections.md."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trailsift.detect.acts import ACT_COLUMNS
from trailsift.detect.detection_file import Detection, builtin_rules

TECHNIQUES = Path(__file__).resolve().parent / "attack_cloud.toml"
#: Severity -> what it means.
SEVERITIES = {
    "high": "An act that needs no context: look at it on the same day.",
    "medium": "Rare in ordinary operation: find out who did it and why.",
    "low": "Worth knowing; makes other findings stronger.",
    "hint": "Ordinary by itself and never reported alone. Three different ones of a caller within hours are a finding, "
    "and one makes another finding stronger.",
}
_TABLES = ("events", "hourly", "usage", "profile", "access", "sessions")


def techniques() -> list[dict[str, str]]:
    """Return the techniques of the table: id, name, tactic, covered (yes, part, no) and what."""
    rows: list[dict[str, str]] = tomllib.loads(TECHNIQUES.read_text("utf-8"))["technique"]
    return rows


def page() -> str:
    """Return the page as Markdown."""
    rules, problems = builtin_rules()
    if problems:
        raise SystemExit("\n".join(map(str, problems)))
    counts = Counter(rule.severity for rule in rules)
    lines = [
        "# Detections",
        "",
        "Generated from `src/trailsift/detect/detections` by `make docs`. How they work and how to write your own: "
        "[Findings](detect.md#detections-as-data).",
        "",
        f"{len(rules)} detections come with trailsift. Most read calls that only a trail with management events "
        "records; those that need data events read `s3`, `dynamodb`, `lambda` or `ebs` calls.",
        "",
        "| severity | detections | meaning |",
        "|---|---|---|",
        *[f"| {name} | {counts[name]} | {meaning} |" for name, meaning in SEVERITIES.items()],
        "",
        "Deployment tools (by their user agent) and services of AWS do much of this every day. Where a detection says "
        "so, their calls are ignored; a caller who imitates such a tool is then left to the other levels.",
        "",
        "| detection | severity | techniques | reads |",
        "|---|---|---|---|",
        *[_row(rule) for severity in SEVERITIES for rule in rules if rule.severity == severity],
        "",
        "## What each is about",
        "",
        *[f"- **{rule.title}** (`{rule.id}`): {rule.description}" for rule in sorted(rules, key=lambda r: r.title)],
        "",
        "## The relation `acts`",
        "",
        "What a detection with `calls` reads: those calls of `events`, with what their requests mean.",
        "",
        "| columns | meaning |",
        "|---|---|",
        *[f"| {_code(names)} | {meaning} |" for names, meaning in ACT_COLUMNS.items()],
        "",
        "## Coverage of ATT&CK",
        "",
        "Techniques of MITRE ATT&CK (Enterprise) for infrastructure as a service, and what of each is found in "
        "CloudTrail. The other levels count as well: what a caller does for the first time, or more than usual.",
        "",
        "| technique | name | tactic | found | what, and why not more |",
        "|---|---|---|---|---|",
        *[
            f"| {row['id']} | {row['name']} | {row['tactic']} | {row['covered']} | {row['what']} |"
            for row in techniques()
        ],
        "",
    ]
    return "\n".join(lines)


def _row(rule: Detection) -> str:
    return f"| {rule.title} | {rule.severity} | {', '.join(rule.mitre)} | {reads(rule)} |"


def reads(rule: Detection) -> str:
    """Return what a detection reads: its calls, or the services and tables in its SQL."""
    if rule.calls:
        names = [f"`{call}`" for call in rule.calls]
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    tables = [f"`{table}`" for table in _TABLES if re.search(rf"\b(FROM|JOIN) {table}\b", rule.sql)]
    return ", ".join(tables) + _services(rule.sql)


def _services(sql: str) -> str:
    found = re.findall(r"service = '(\w+)'", sql) + re.findall(
        r"'(\w+)'", "".join(re.findall(r"service IN \(([^)]*)\)", sql))
    )
    return f" ({', '.join(dict.fromkeys(found))})" if found else ""


def _code(names: str) -> str:
    return ", ".join(f"`{name.strip()}`" for name in names.split(","))


def unknown(rules: Iterable[Detection]) -> list[Any]:
    """Return the techniques of detections that the table does not have."""
    known = {row["id"] for row in techniques()}
    return sorted({technique for rule in rules for technique in rule.mitre} - known)
