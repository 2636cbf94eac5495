"""The caller of an event: the columns that ``userIdentity`` gives, and one text that tells callers apart.

The text is ``caller`` in every table:

- the ARN of the role, else of the user, of root, of a federated user;
- ``account:444455556666/AIDA...``: a principal that CloudTrail names by account and id only, as it does for the callers
  of other accounts; a role's session counts as its role;
- ``service:delivery.logs.amazonaws.com``: a service of AWS that acts for itself;
- ``identity-center:d-1234567890/USER``, ``federated:PROVIDER/USER``: people who sign in elsewhere;
- ``user:NAME``, ``access-key:ID``, ``principal:ID``: all that the record says, as in exports without most members;
- ``anonymous``: a call without credentials (ANONYMOUS_PRINCIPAL), and nothing else;
- ``none``: the record names nobody.

Source: https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

#: The caller of requests without credentials.
ANONYMOUS = "anonymous"
#: The caller of records that name nobody.
NONE = "none"
#: What CloudTrail writes in place of an account for requests without credentials.
ANONYMOUS_ACCOUNT = "ANONYMOUS_PRINCIPAL"


class Identity(NamedTuple):
    """The columns that are derived from ``userIdentity``."""

    principal_type: str | None
    principal_id: str | None
    principal_arn: str | None
    principal_account: str | None
    caller: str
    role_arn: str | None
    session_name: str | None
    access_key_id: str | None
    invoked_by: str | None

    @property
    def account(self) -> str | None:
        """The account of the caller; None for an anonymous one, in whose place CloudTrail writes a word."""
        return None if self.principal_account == ANONYMOUS_ACCOUNT else self.principal_account


NOBODY = Identity(None, None, None, None, NONE, None, None, None, None)


def identity_of(user: object) -> Identity:
    """Return the columns of a ``userIdentity`` of any shape."""
    if not isinstance(user, dict):
        return NOBODY
    arn = text_of(user.get("arn"))
    invoked_by = text_of(user.get("invokedBy"))
    principal_id = text_of(user.get("principalId"))
    context = user.get("sessionContext")
    issuer = context.get("sessionIssuer") if isinstance(context, dict) else None
    issuer_arn = text_of(issuer.get("arn")) if isinstance(issuer, dict) else None
    role_arn = issuer_arn or role_of_session(arn) or arn or invoked_by
    return Identity(
        text_of(user.get("type")),
        principal_id,
        arn,
        # So that the account alone says it, where a line has no principal id.
        text_of(user.get("accountId")) or (principal_id if principal_id == ANONYMOUS_ACCOUNT else None),
        _caller(user, role_arn),
        role_arn,
        _session(arn, principal_id),
        text_of(user.get("accessKeyId")),
        invoked_by,
    )


def _caller(user: Mapping[str, Any], role_arn: str | None) -> str:
    if is_arn(role_arn):
        return role_arn
    name, principal_id = text_of(user.get("userName")), text_of(user.get("principalId"))
    account, invoked_by = text_of(user.get("accountId")), text_of(user.get("invokedBy"))
    kind = text_of(user.get("type"))
    if ANONYMOUS_ACCOUNT in (account, principal_id):
        return ANONYMOUS
    behalf = user.get("onBehalfOf")
    person = text_of(behalf.get("userId")) if isinstance(behalf, dict) else None
    if isinstance(behalf, dict) and person:
        store = text_of(behalf.get("identityStoreArn")) or ""
        return f"identity-center:{store.rpartition('/')[2]}/{person}"
    if kind == "AWSService" and (invoked_by or principal_id):
        return f"service:{invoked_by or principal_id}"
    provider = text_of(user.get("identityProvider"))
    if provider is not None or kind in _FEDERATED:
        return _federated(provider, name, principal_id)
    if account is not None:
        who = _role_id(principal_id) or name
        return f"account:{account}" if who is None or who == account else f"account:{account}/{who}"
    access_key = text_of(user.get("accessKeyId"))
    for prefix, value in (("user", name), ("principal", _role_id(principal_id)), ("access-key", access_key)):
        if value is not None:
            return f"{prefix}:{value}"
    if invoked_by is not None:
        return f"service:{invoked_by}"
    arn = text_of(user.get("arn")) or role_arn
    return NONE if arn is None else f"principal:{arn}"


_FEDERATED = frozenset({"SAMLUser", "WebIdentityUser"})


def _federated(provider: str | None, name: str | None, principal_id: str | None) -> str:
    """Return the caller of somebody whom an identity provider vouches for."""
    provider = "" if provider is None else re.sub(r"^arn:.*?:(?:oidc|saml)-provider/", "", provider)
    who = name or principal_id or ""
    return f"federated:{provider}/{who}" if provider else f"federated:{who}"


def _role_id(principal_id: str | None) -> str | None:
    """Return a principal id without the session of a role."""
    if principal_id is not None and principal_id.startswith("AROA"):
        return principal_id.partition(":")[0]
    return principal_id


def _session(arn: str | None, principal_id: str | None) -> str | None:
    """Return the name of a session, by its ARN or, where there is none, by the principal id."""
    if arn and (":assumed-role/" in arn or ":federated-user/" in arn):
        return arn.rpartition("/")[2]
    if arn is None and principal_id is not None and principal_id.startswith("AROA"):
        return principal_id.partition(":")[2] or None
    return None


def is_arn(text: str | None) -> TypeGuard[str]:
    """Return whether a text is an ARN by its beginning."""
    return text is not None and text.startswith("arn:")


def role_of_session(arn: str | None) -> str | None:
    """Return the ARN of the role whose session has this ARN, without the role's path, which it does not say."""
    if arn is None or ":assumed-role/" not in arn:
        return None
    match = _SESSION.fullmatch(arn)
    return f"arn:{match[1]}:iam::{match[2]}:role/{match[3]}" if match else None


#: The ARN of an assumed role's session.
_SESSION = re.compile(r"arn:([^:]*):sts::([^:]*):assumed-role/([^/]+)/[^/]+")

#: Beginnings of all callers without ARN.
PREFIXES = (
    "account:", "service:", "identity-center:", "federated:", "user:", "access-key:", "principal:"
)  # fmt: skip


def _is_possible(caller: str, account: object, principal_id: object) -> bool:
    """Return whether a text is a caller without ARN that a record with these columns can have."""
    if ANONYMOUS_ACCOUNT in (account, principal_id) or caller == ANONYMOUS:
        return ANONYMOUS_ACCOUNT in (account, principal_id) and caller == ANONYMOUS
    if caller.startswith("account:"):
        return caller == f"account:{account}" or caller.startswith(f"account:{account}/")
    return caller == NONE or caller.startswith(PREFIXES)


def caller_of_columns(columns: Mapping[str, Any]) -> str:
    """Return the caller by the columns of an event whose ``userIdentity`` is not known any more.

    ``caller``, if there is one, counts as long as it has the form of one and contradicts no other column.
    """
    role_arn, caller, account = columns.get("role_arn"), columns.get("caller"), columns.get("principal_account")
    if is_arn(role_arn):
        return role_arn
    if isinstance(caller, str) and _is_possible(caller, account, columns.get("principal_id")):
        return caller
    user = {
        "type": columns.get("principal_type"),
        "principalId": columns.get("principal_id"),
        "arn": columns.get("principal_arn"),
        "accountId": account,
        # A role that is not an ARN is the service that made the call.
        "invokedBy": columns.get("invoked_by") or (None if columns.get("principal_arn") else role_arn),
        "accessKeyId": columns.get("access_key_id"),
    }
    return _caller(user, role_arn)


def text_of(value: object) -> str | None:
    """Return a non-empty string that UTF-8 can encode, else None."""
    if not isinstance(value, str) or not value:
        return None
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return value
