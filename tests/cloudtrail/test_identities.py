"""Callers are told apart: cases as data, identities of any shape, and columns without a ``userIdentity``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.paths import TESTS
from trailsift.cloudtrail.callers import ANONYMOUS, NONE, caller_of_columns, identity_of

CASES: list[dict[str, Any]] = json.loads((TESTS / "cases/callers.json").read_text(encoding="utf-8"))

_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=6),
    st.sampled_from(["ANONYMOUS_PRINCIPAL", "anonymous", "none", "arn:aws:iam::1:role/a", "AROAX:s", "AWSService"]),
    st.just("\ud800"),
)  # fmt: skip
_users = st.dictionaries(
    st.sampled_from(
        ["type", "arn", "accountId", "principalId", "userName", "invokedBy", "accessKeyId", "identityProvider"]
    ),
    _values,
) | st.fixed_dictionaries({"onBehalfOf": st.dictionaries(st.sampled_from(["userId", "identityStoreArn"]), _values)})


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_case(case: dict[str, Any]) -> None:
    identity = identity_of(case["user"])
    assert (identity.caller, identity.role_arn, identity.session_name) == (
        case["caller"],
        case["role_arn"],
        case.get("session"),
    )


@given(_users | _values)
def test_any_identity_has_one_caller(user: object) -> None:
    identity = identity_of(user)
    assert identity.caller
    identity.caller.encode()
    is_anonymous = isinstance(user, dict) and "ANONYMOUS_PRINCIPAL" in (user.get("accountId"), user.get("principalId"))
    if identity.caller == ANONYMOUS:
        assert is_anonymous
    if identity.role_arn is not None and identity.role_arn.startswith("arn:"):
        assert identity.caller == identity.role_arn
    elif is_anonymous:
        assert identity.caller == ANONYMOUS


@given(_users)
def test_columns_without_an_identity_give_a_caller(user: dict[str, Any]) -> None:
    identity = identity_of(user)
    # The caller that our own writer has left is kept, whatever else is known.
    assert caller_of_columns(identity._asdict()) == identity.caller
    older = identity._asdict() | {"caller": None, "principal_id": None}
    found = caller_of_columns(older)
    assert found and (found != ANONYMOUS or identity.caller == ANONYMOUS)


@pytest.mark.parametrize(
    ("columns", "caller"),
    [
        ({"role_arn": "arn:aws:iam::1:role/a", "caller": "anonymous"}, "arn:aws:iam::1:role/a"),
        ({"role_arn": None, "caller": "arn:aws:iam::1:role/a"}, NONE),
        ({"role_arn": None, "caller": "whatever", "principal_account": "444455556666"}, "account:444455556666"),
        ({"role_arn": "athena.amazonaws.com", "caller": None}, "service:athena.amazonaws.com"),
        ({"principal_account": "ANONYMOUS_PRINCIPAL"}, ANONYMOUS),
        ({"principal_account": "ANONYMOUS_PRINCIPAL", "caller": "none"}, ANONYMOUS),
        ({"principal_account": "444455556666", "caller": "anonymous"}, "account:444455556666"),
        ({"principal_account": "444455556666", "caller": "account:999999999999/AIDAX"}, "account:444455556666"),
        ({"principal_account": "444455556666", "caller": "account:444455556666/AIDAX"}, "account:444455556666/AIDAX"),
        ({"caller": "anonymous"}, NONE),
    ],
)
def test_a_caller_does_not_contradict_the_role(columns: dict[str, Any], caller: str) -> None:
    assert caller_of_columns(columns) == caller
