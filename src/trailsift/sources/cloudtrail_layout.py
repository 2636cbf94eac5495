"""CloudTrail's layout of folders: which account, region and day one is of, and which folders hold other logs.

Known are ``[prefix/]AWSLogs/ACCOUNT/CloudTrail/REGION/YYYY/MM/DD/``, the same below ``AWSLogs/o-ORGANIZATION/``,
Control Tower's ``o-ORGANIZATION/AWSLogs/[o-ORGANIZATION/]ACCOUNT/...``, and copies that begin at any level of these.
Everything here is decided by the text of a path.

Sources: the user guides of CloudTrail ("Finding your CloudTrail log files") and of Control Tower (2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from trailsift.errors import UsageError
from trailsift.safe_text import safe

#: Where a folder is in the layout. Below ``day`` and outside of the layout nothing is known: ``elsewhere``.
Level = Literal["elsewhere", "root", "organization", "account", "trail", "region", "year", "month", "day", "other"]

_ACCOUNT = re.compile(r"\d{12}")
_ORGANIZATION = re.compile(r"o-[a-z0-9]{4,32}")
#: Some tools that copy logs write underscores.
_REGION = re.compile(r"[a-z]{2,4}(?:[-_][a-z]+){1,3}[-_]\d{1,2}")
_YEAR, _MONTH, _DAY = re.compile(r"(?:19|20)\d\d"), re.compile(r"0[1-9]|1[0-2]"), re.compile(r"0[1-9]|[12]\d|3[01]")
#: Folders of records that CloudTrail writes for each call.
_TRAILS = frozenset({"CloudTrail", "CloudTrail-NetworkActivity"})
#: Folders of other logs, wherever they are.
_OTHERS = frozenset(
    {
        *("CloudTrail-Digest", "CloudTrail-Insight", "CloudTrail-Aggregated", "Config", "vpcflowlogs", "WAFLogs"),
        *(
            "elasticloadbalancing",
            "vpcdnsquerylogs",
            "GuardDuty",
            "network-firewall",
            "S3ServerAccessLogs",
            "SecurityHub",
        ),
    }
)
#: The same in names of objects -> the kind.
_OTHER_NAMES = (
    (re.compile(r"_CloudTrail-(Digest|Insight|Aggregated)_"), "CloudTrail-{}"),
    (re.compile(r"_(Config(?:History|Snapshot)?)_"), "Config"),
    (re.compile(r"_(vpcflowlogs|elasticloadbalancing|vpcdnsquerylogs|network-firewall)_"), "{}"),
    (re.compile(r"_(waflogs)_|aws-waf-logs-"), "WAFLogs"),
    (re.compile(r"(?:^|/)(?:aws-test\.txt|ConfigWritabilityCheckFile|ELBAccessLogTestFile)$"), "test file"),
)
#: Account and region in the name of a log object.
_NAME = re.compile(
    r"(?:^|/)(\d{12})_CloudTrail(?:-NetworkActivity)?_([a-z]{2,4}(?:-[a-z]+){1,3}-\d{1,2})_\d{8}T\d{4}Z_"
)


@dataclass(frozen=True, slots=True)
class Place:
    """What the path of a folder says. ``other`` names the kind of logs of a folder at the level ``other``."""

    level: Level = "elsewhere"
    account: str | None = None
    region: str | None = None
    year: int = 0
    month: int = 0
    day: int = 0
    other: str = ""

    @property
    def dates(self) -> tuple[date, date] | None:
        """First and last day of what the folder may hold; None if the path does not say."""
        try:
            match self.level:
                case "year":
                    return date(self.year, 1, 1), date(self.year, 12, 31)
                case "month":
                    following = date(self.year + self.month // 12, self.month % 12 + 1, 1)
                    return date(self.year, self.month, 1), following - timedelta(days=1)
            return (date(self.year, self.month, self.day),) * 2 if self.day else None
        except ValueError:
            return None


def check_names(accounts: Iterable[str], regions: Iterable[str]) -> None:
    """Raise UsageError if a text is not an account id, or not the name of a region."""
    for kind, names, form in (("account", accounts, _ACCOUNT), ("region", regions, _REGION)):
        for name in names:
            if not form.fullmatch(name) or "_" in name:
                hint = "an account id has 12 digits" if kind == "account" else "use a form such as eu-west-1"
                raise UsageError(f"{safe(name[:100])!r} is not the name of an AWS {kind}: {hint}")


def place_of(folder: str) -> Place:
    """Return what the path of a folder says."""
    place = Place()
    for part in folder.strip("/").split("/"):
        place = _below(place, part)
    return place


def _below(place: Place, part: str) -> Place:
    """Return the place of a folder with this name."""
    if place.level == "other":
        return place
    if part in _OTHERS:
        return Place("other", place.account, other=part)
    if part in _TRAILS:
        return Place("trail", place.account)
    inside = place.level in ("root", "organization")
    if part == "AWSLogs":
        return Place("root")
    if _ORGANIZATION.fullmatch(part) and place.level in ("elsewhere", "root", "organization"):
        return Place("organization")
    if _ACCOUNT.fullmatch(part) and (inside or place.level == "elsewhere"):
        # Outside of AWSLogs it may be any number, so other folders than CloudTrail's are looked into.
        return Place("account" if inside else "elsewhere", part)
    if place.level == "account":
        # AWS writes the logs of other services beside those of CloudTrail, and of more of them every year.
        return Place("other", place.account, other=part)
    return _below_trail(place, part)


def _below_trail(place: Place, part: str) -> Place:
    if _REGION.fullmatch(part) and place.level in ("trail", "elsewhere") and place.region is None:
        # Outside of CloudTrail's folders, those with dates may be of any dates: they are looked into, all of them.
        level: Level = "region" if place.level == "trail" else "elsewhere"
        return replace(place, level=level, region=part.replace("_", "-"))
    if place.level == "region" and _YEAR.fullmatch(part):
        return replace(place, level="year", year=int(part))
    if place.level == "year" and _MONTH.fullmatch(part):
        return replace(place, level="month", month=int(part))
    if place.level == "month" and _DAY.fullmatch(part):
        return replace(place, level="day", day=int(part))
    return replace(place, level="elsewhere")


def name_parts(key: str) -> tuple[str | None, str | None]:
    """Return the account and the region of a log object: as its name says, else its folder; None where neither does."""
    match = _NAME.search(key)
    if match:
        return match[1], match[2]
    place = place_of(key.rpartition("/")[0])
    return place.account, place.region


def other_kind(key: str) -> str | None:
    """Return what kind of other logs an object is of, by its folder or its name; None if it may be CloudTrail's."""
    place = place_of(key.rpartition("/")[0])
    if place.level == "other":
        return place.other
    for pattern, title in _OTHER_NAMES:
        match = pattern.search(key)
        if match:
            return title.format(*match.groups())
    return None


def day_folders(region_folder: str, first: date, last: date) -> list[str]:
    """Return the folders of some days under the folder of a region, both ends included."""
    days = ((first + timedelta(days=number)) for number in range((last - first).days + 1))
    return [f"{region_folder}{day:%Y/%m/%d}/" for day in days]


def may_hold(place: Place, since: datetime | None, until: datetime | None) -> bool:
    """Return whether a folder may hold log objects that were delivered in a span of time, by its path.

    A folder is that of the day of delivery. The one before is taken too: nobody promises what happens at midnight.
    """
    dates = place.dates
    if dates is None:
        return True
    first, last = dates
    return (since is None or last >= since.astimezone(UTC).date() - timedelta(days=1)) and (
        until is None or first <= until.astimezone(UTC).date()
    )


def starting_name(folder: str, place: Place, since: datetime) -> str | None:
    """Return what all names of a day's folder that were delivered at ``since`` or later come after; None if unknown.

    Within the folder of a day and region all names begin alike, and the minute of delivery follows.
    """
    if place.level != "day" or place.account is None or place.region is None or "CloudTrail/" not in folder:
        return None
    return f"{folder}{place.account}_CloudTrail_{place.region}_{since.astimezone(UTC):%Y%m%dT%H%M}"
