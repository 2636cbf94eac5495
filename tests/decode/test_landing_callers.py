"""The callers of landing lines: those of earlier versions get theirs, and no line chooses one that it does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.logs import event_number
from support.paths import TESTS
from support.records import sample
from trailsift import Lake
from trailsift.aws.transform.writer import LandingWriter
from trailsift.cloudtrail.callers import identity_of
from trailsift.decode import landing, record
from trailsift.decode.landing import Dropped
from trailsift.ingest import ingest

USERS: list[Any] = [case["user"] for case in json.loads((TESTS / "cases" / "callers.json").read_text("utf-8"))]
#: What lines of earlier versions do not have.
SINCE = {"caller", "principal_id", "source_resource_arn", "source_object_key"}
DROPPED_SINCE = {"caller", "event_category", "source_resource_arn"}
OLD_EACH = 5
ADMIN = "arn:aws:iam::111122223333:role/admin"


def event_line(value: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(LandingWriter().row(record.row(value, "")))
    return line


def dropped_line(value: dict[str, Any]) -> dict[str, Any]:
    dropped = Dropped()
    dropped.add(record.row(value, ""), "heads")
    line: dict[str, Any] = json.loads(dropped.lines()[0][1])
    return line


def older(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line as a stream of format version 1 wrote it."""
    if not landing.is_dropped(line):
        return {name: value for name, value in line.items() if name not in SINCE}
    kept = {name: value for name, value in line.items() if name not in DROPPED_SINCE}
    return kept | {"dropped": [own[:OLD_EACH] for own in line["dropped"]]}


def rows_of(line: dict[str, Any]) -> list[dict[str, Any]]:
    events = landing.events_of(line)
    return [landing.row(each, "x") for each in ([line] if events is None else events)]


@pytest.mark.parametrize("user", USERS, ids=str)
def test_an_older_line_has_the_caller_of_its_identity(user: Any) -> None:
    line = event_line(sample(userIdentity=user))
    assert SINCE & line.keys() and not SINCE & older(line).keys()
    (row,), (new,) = rows_of(older(line)), rows_of(line)
    identity = identity_of(user)
    assert (row["caller"], row["principal_id"]) == (new["caller"], new["principal_id"])
    assert (row["caller"], row["principal_id"]) == (identity.caller, identity.principal_id)


@pytest.mark.parametrize("user", USERS, ids=str)
def test_an_older_dropped_line_has_the_caller_of_its_columns(user: Any) -> None:
    """The role's ARN, else the account, else the service: such a line has nothing else."""
    line = dropped_line(sample(userIdentity=user))
    (row,), (new,) = rows_of(older(line)), rows_of(line)
    identity = identity_of(user)
    assert new["caller"] == identity.caller
    if identity.caller.startswith(("arn:", "service:")) and identity.role_arn is not None:
        assert row["caller"] == identity.caller
    elif identity.principal_account is not None:
        account = identity.principal_account
        assert row["caller"] == ("anonymous" if account == "ANONYMOUS_PRINCIPAL" else f"account:{account}")
    else:
        assert row["caller"] in ("none", f"service:{identity.role_arn}")
    assert row["event_category"] == new["event_category"] == "Data"


def test_lakes_of_older_and_new_lines_have_the_same_callers(tmp_path: Path) -> None:
    answers = {}
    for name, form in (("new", lambda line: line), ("older", older)):
        records = [event_number(number, userIdentity=user) for number, user in enumerate(USERS)]
        heads = [event_number(1000 + number, eventName="HeadObject") for number in range(3)]
        lines = [form(event_line(each)) for each in records] + [form(dropped_line(each)) for each in heads]
        (tmp_path / name).mkdir()
        (tmp_path / name / "lines.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
        counts = ingest([str(tmp_path / name)], tmp_path / f"{name}.lake")
        assert (counts.stored, sum(counts.dropped.values()), counts.malformed) == (len(USERS), 3, 0)
        with Lake(tmp_path / f"{name}.lake") as lake:
            answers[name] = {
                table: lake.query(f"SELECT caller, {count} FROM {table} GROUP BY 1 ORDER BY 1", cache=False).rows()
                for table, count in (
                    ("events", "count(*)"),
                    *((table, "sum(events)") for table in ("hourly", "usage", "profile", "access", "sessions")),
                )
            }
    assert answers["older"] == answers["new"]
    expected = sorted({identity_of(user).caller for user in [*USERS, sample()["userIdentity"]]})
    assert [caller for caller, _ in answers["new"]["hourly"]] == expected


#: Callers that a line may claim.
CLAIMS = (ADMIN, "anonymous", "none", "account:999999999999/AIDAEVIL", "service:s3.amazonaws.com", "whatever", "", None)


@pytest.mark.parametrize("claim", CLAIMS, ids=repr)
@pytest.mark.parametrize("user", USERS, ids=str)
def test_a_line_does_not_choose_another_caller_than_its_identity(user: Any, claim: str | None) -> None:
    identity = identity_of(user)
    line = event_line(sample(userIdentity=user)) | {"caller": claim, "principal_id": "AIDAEVIL"}
    if isinstance(user, dict):
        (row,) = rows_of(line)
        assert (row["caller"], row["principal_id"]) == (identity.caller, identity.principal_id)
    # Not by another role either: the record itself says who it was.
    if isinstance(user, dict):
        (row,) = rows_of(line | {"role_arn": ADMIN})
        assert row["caller"] == identity.caller


@pytest.mark.parametrize("claim", CLAIMS, ids=repr)
@pytest.mark.parametrize("rest", [None, "{}", '{"userIdentity":null}', '{"userIdentity":"root"}', '{"(absent)":["x"]}'])
def test_without_an_identity_the_role_counts(claim: str | None, rest: str | None) -> None:
    line = event_line(sample()) | {"caller": claim, "rest": rest}
    (row,) = rows_of(line)
    assert row["caller"] == row["role_arn"] == "arn:aws:iam::111122223333:role/etl"
    (row,) = rows_of(line | {"role_arn": None, "principal_arn": None})
    # No ARN and no account that no other column has: at most a caller of another form of ours.
    possible = ("none", "service:s3.amazonaws.com")
    assert row["caller"] == (claim if claim in possible else "account:111122223333/AROAEXAMPLE")


@pytest.mark.parametrize("claim", CLAIMS, ids=repr)
def test_a_dropped_line_does_not_choose_another_caller_than_its_role(claim: str | None) -> None:
    line = dropped_line(sample()) | {"caller": claim}
    assert [row["caller"] for row in rows_of(line)] == ["arn:aws:iam::111122223333:role/etl"]
    (row,) = rows_of({name: value for name, value in line.items() if name != "role_arn"})
    assert row["caller"] == (claim if claim in ("none", "service:s3.amazonaws.com") else "account:111122223333")
