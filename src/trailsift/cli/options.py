"""Options that several commands share, described once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, Token

#: A lake's folder, or its URL in S3, of which a path would lose a slash.
LakePlace = Path | str


def lake_place(_: type[object], tokens: Sequence[Token]) -> LakePlace:
    """Return the word of an option as a lake's place."""
    text = tokens[0].value
    return text[:5] + text[5:].rstrip("/") if text[:5].lower() == "s3://" else Path(text)


_LAKE = Parameter(
    name=["--lake", "-l"],
    env_var="TRAILSIFT_LAKE",
    converter=lake_place,
    n_tokens=1,
    help="Folder of the lake, or s3://bucket/prefix.",
)
LakeOption = Annotated[LakePlace, _LAKE]
OptionalLakeOption = Annotated[LakePlace | None, _LAKE]
JsonOption = Annotated[bool, Parameter(name="--json", show_default=False, help="Print one JSON document.")]
CsvOption = Annotated[
    bool, Parameter(name="--csv", show_default=False, help="Print the main table as CSV, with all columns.")
]
QuietOption = Annotated[bool, Parameter(name=["--quiet", "-q"], show_default=False, help="Show no progress.")]
SinceOption = Annotated[
    str | None,
    Parameter(
        name="--since",
        allow_leading_hyphen=True,
        help="Start time: 2026-03-02, 2026-03-02T10:30, -7d, -36h, -90m. Default: no limit.",
    ),
]
UntilOption = Annotated[
    str | None,
    Parameter(name="--until", allow_leading_hyphen=True, help="End time, not included; same forms as --since."),
]
ZoneOption = Annotated[
    str,
    Parameter(
        name=["--timezone", "--tz"],
        env_var="TRAILSIFT_TIMEZONE",
        help="IANA time zone in which times are read and shown.",
    ),
]
LimitOption = Annotated[int | None, Parameter(name=["--limit", "-n"], help="Maximum rows; 0 shows all.")]
OutputOption = Annotated[
    Path | None, Parameter(name=["--output", "-o"], help="Write to this file instead of standard output.")
]
ForceOption = Annotated[
    bool, Parameter(name="--force", show_default=False, help="Replace the output file if it exists.")
]
PricesOption = Annotated[
    Path | None,
    Parameter(
        name="--prices",
        help="Your own prices (TOML), also set by TRAILSIFT_PRICES. Default: list prices, by region.",
    ),
]
NoFindingsOption = Annotated[
    bool, Parameter(show_default=False, help="Skip the effect of the rules on findings (faster).")
]
