"""Short names of callers, as reports show them and as people type them.

The forms of a caller are those of ``cloudtrail.callers``; in lakes of format version 1 it is a role's ARN, a service or
null.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from trailsift.cloudtrail.callers import ANONYMOUS, NONE, PREFIXES, is_arn

#: The names of callers who are nobody in particular: a call without credentials, a record that names nobody, and, in
#: summary lines that a lake kept from format version 1, a caller without an ARN that is not known any more.
NO_CREDENTIALS, NO_IDENTITY, NOT_KNOWN = "(anonymous)", "(no identity)", "(unknown)"
#: The caller in those lines of format version 1.
UNKNOWN = "unknown"
#: Callers with such names.
NOBODY = {ANONYMOUS: NO_CREDENTIALS, NONE: NO_IDENTITY, UNKNOWN: NOT_KNOWN}

#: The beginning of a caller's text -> that of its short name.
_WORDS = {
    "account": "account ",
    "service": "",
    "identity-center": "Identity Center user ",
    "federated": "federated ",
    "user": "user ",
    "access-key": "access key ",
    "principal": "principal ",
}


def short_caller(caller: str | None) -> str:
    """Return a caller in a few words: ``role/name`` without account and path, ``account 444455556666, AIDA...``.

    None stands for what format version 1 has for callers without an ARN.
    """
    if caller is None:
        return NO_CREDENTIALS
    if caller in NOBODY:
        return NOBODY[caller]
    if is_arn(caller):
        return _short_arn(caller)
    form, _, rest = caller.partition(":")
    if form not in _WORDS or not rest:
        return caller
    if form == "account":
        rest = rest.replace("/", ", ", 1)
    elif form == "identity-center":
        rest = rest.partition("/")[2] or rest
    return _WORDS[form] + rest


def told_apart(callers: Iterable[str | None]) -> dict[str | None, str]:
    """Return the short names of callers; of equal ones each has its account, as ``root (111122223333)``.

    Of roles with the same name in one account, as IAM Identity Center makes them, each has the end of its path, too.
    """
    names = {caller: short_caller(caller) for caller in callers}
    for mark in (account_of, _folder):
        several = {name for name, number in Counter(names.values()).items() if number > 1}
        for caller, name in names.items():
            if name in several and (word := mark(caller)):
                names[caller] = (
                    f"{name[:-1]}, {word})" if mark is _folder and name.endswith(")") else f"{name} ({word})"
                )
    return names


def _folder(caller: str | None) -> str | None:
    """Return the last folder of an ARN's path: of a role of IAM Identity Center, the region of that."""
    path = (caller or "").split(":", 5)[-1].split("/")
    return path[-2] if len(path) > 2 and is_arn(caller or "") else None


def _short_arn(arn: str) -> str:
    parts = arn.split(":", 5)
    if len(parts) < 6:
        return arn
    kind, _, path = parts[5].partition("/")
    return f"{kind}/{path.rpartition('/')[2]}" if path else parts[5]


def has_no_arn(caller: str | None) -> bool:
    """Return whether a caller has one of the forms that format version 2 has for those without an ARN."""
    return caller is not None and (caller in (ANONYMOUS, NONE) or caller.startswith(PREFIXES))


def account_of(caller: str | None) -> str | None:
    """Return the account that a caller's text names; None if it names none."""
    if caller is None:
        return None
    if caller.startswith("account:"):
        return caller.removeprefix("account:").partition("/")[0]
    parts = caller.split(":", 5)
    return parts[4] or None if len(parts) == 6 and is_arn(caller) else None
