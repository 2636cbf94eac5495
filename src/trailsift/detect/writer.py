"""The words of one language: names of callers and resources, counts, sizes and times, bounded and made harmless."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from trailsift.analysis.caller_names import account_of, has_no_arn
from trailsift.analysis.time_range import UTC_ZONE
from trailsift.cloudtrail.callers import ANONYMOUS, NONE, is_arn
from trailsift.detect.callers import network_of
from trailsift.detect.particles import Word
from trailsift.detect.texts import TEXTS, Language, Texts
from trailsift.times import moment

Clean = Callable[[str], str]

#: Characters of a name in a sentence: longer ones are shown without their middle.
LONGEST = 160
_NAMED = 3  # other callers that are named; more of them are counted


@dataclass(frozen=True)
class Writer:
    """Fills the templates of one language. ``clean`` makes a text of a log harmless where it is shown."""

    language: Language = "en"
    clean: Clean = str
    zone: ZoneInfo = UTC_ZONE

    @property
    def texts(self) -> Texts:
        """The texts of the language."""
        return TEXTS[self.language]

    def phrase(self, name: str, /, **fields: str) -> str:
        """Return a filled phrase."""
        return self.texts.phrases[name].format(**fields)

    def count(self, singular: str, plural: str, count: int) -> str:
        """Return a number with its noun, by the names of two phrases."""
        return self.phrase(singular if count == 1 else plural, n=f"{count:,}")

    def word(self, text: str) -> Word:
        """Return a text of a log, not longer than a sentence can bear; a format spec adds a Korean particle."""
        return Word(clipped(self.clean(clipped(text))))

    def resource(self, resource_arn: str | None) -> Word:
        """Return the name of a resource, or words for several."""
        return self.word(short_resource(resource_arn)) if resource_arn else Word(self.phrase("several"))

    def callers(self, callers: Sequence[str | None], rule: str | None = None) -> str:
        """Return the leading caller, and the others by name or number."""
        leading, *others = (self.caller(caller, rule) for caller in callers)
        if not others:
            return leading
        if len(others) > _NAMED:
            return self.phrase("others", caller=leading, n=str(len(others)))
        last = others.pop()
        return self.phrase("and", caller=", ".join([leading, *others]), last=last)

    def caller(self, caller: str | None, rule: str | None = None) -> str:
        """Return the name of a caller; None is any without an ARN, in a lake of format version 1."""
        if caller is None:
            return self.phrase("foreign" if rule == "foreign-account" else "anonymous")
        if caller in (ANONYMOUS, NONE):
            return self.phrase("anonymous" if caller == ANONYMOUS else "nobody")
        if (network := network_of(caller)) is not None:
            return self.phrase("anonymous of", network=self.word(network))
        if is_arn(caller) or not has_no_arn(caller):
            return self.word(short_caller(caller))
        form, _, rest = caller.partition(":")
        if form == "account":
            account, _, name = rest.partition("/")
            kind = "of account" if name else "account"
            return self.phrase(kind, name=self.word(name), account=self.word(account))
        name = self.word(_last(rest) or rest)
        return self.phrase(form, name=name) if form in self.texts.phrases else name

    def when(self, first_time: int, last_time: int) -> str:
        """Return a span of time to the minute."""
        first, last = (moment(time).astimezone(self.zone) for time in (first_time, last_time))
        days = [f"{time:%Y-%m-%d}" for time in (first, last)]
        clock = [f"{time:%H:%M}" for time in (first, last)]
        form = "days" if days[0] != days[1] else "at" if clock[0] == clock[1] else "same day"
        return self.phrase(form, first_day=days[0], last_day=days[1], first=clock[0], last=clock[1])


def clipped(text: str, most: int = LONGEST) -> str:
    """Return a text of at most ``most`` characters: a longer one loses its middle."""
    return text if len(text) <= most else f"{text[: most - most // 3 - 3]}...{text[-(most // 3) :]}"


#: What IAM Identity Center calls the roles that people of a permission set use: AWSReservedSSO_NAME_16HEXDIGITS.
SSO_ROLE = "AWSReservedSSO_"


def short_caller(caller: str) -> str:
    """Return the last part of an ARN: a role's or user's name; of root, with its account."""
    name = _last(caller)
    if name.startswith(SSO_ROLE):
        return name.removeprefix(SSO_ROLE).rpartition("_")[0] or name
    if name == caller and name.endswith(":root"):
        return f"root ({account_of(caller)})"
    return name


def short_resource(arn: str) -> str:
    """Return the last part of a resource's ARN."""
    return arn.rpartition(":")[2] or arn


def number(value: float) -> str:
    """Return a number with the digits that matter."""
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def ratio(value: float) -> str:
    """Return how many times as much something is."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def size(count: float) -> str:
    """Return a number of bytes with a unit."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def _last(text: str) -> str:
    return text.rpartition("/")[2] if "/" in text else text
