"""The file that names one's own networks, accounts, partners and scanners, and findings that respect it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.records import sample
from trailsift.cli import main
from trailsift.detect.detection_rules import SEVERITY_RARITY
from trailsift.detect.finding import Link, Signal
from trailsift.detect.own import Own, keep_own, own_of, parse_own, respect
from trailsift.errors import LakeError, UsageError
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.times import DAY, HOUR

AUDIT = "arn:aws:iam::111122223333:role/audit"
WEB = "arn:aws:iam::111122223333:role/web"
PARTNER = "account:444455556666/AIDAPARTNER"
#: 2 March 2026, 9:00.
AT = 20_514 * DAY + 9 * HOUR


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scanner that calls from one network with one client, and a role that does so only in part."""
    folder = tmp_path_factory.mktemp("own")
    records = []
    for number, (arn, address, agent) in enumerate(
        [(AUDIT, "198.51.100.7", "prowler/5"), (WEB, "198.51.100.7", "prowler/5"), (WEB, "203.0.113.9", "Boto3/1.37")]
    ):
        name = arn.rpartition("/")[2]
        issuer = {"type": "Role", "arn": arn, "accountId": "111122223333"}
        who = {
            "type": "AssumedRole",
            "arn": f"arn:aws:sts::111122223333:assumed-role/{name}/run",
            "accountId": "111122223333",
            "sessionContext": {"sessionIssuer": issuer},
        }
        records.append(
            sample(
                eventID=f"o-{number}",
                eventTime="2026-03-02T09:00:00Z",
                userIdentity=who,
                sourceIPAddress=address,
                userAgent=agent,
            )
        )
    (folder / "log.json").write_text(json.dumps({"Records": records}))
    ingest([str(folder / "log.json")], folder / "lake")
    return folder / "lake"


def signal(kind: str, caller: str = WEB, value: str = "x", **more: Any) -> Signal:
    return Signal(kind, caller, more.pop("rarity", 3.0), AT, AT + 1, value, 1, **more)


def left(lake: Path, text: str, *signals: Signal, links: Sequence[Link] = ()) -> tuple[list[Signal], list[Link]]:
    """The signals and links that a file leaves."""
    with DuckDBEngine(open_snapshot(lake)) as engine:
        return respect(engine, parse_own("own.toml", text), signals, links)


def test_own_networks_are_no_news(lake: Path) -> None:
    places = (("203.0.113.0/24, boto3", 9.0, 0.0, 0.0), ("198.51.100.0/24, aws-cli/2", 2.0, 0.0, 0.0))
    news = [
        signal("first_network", value="198.51.100.0/24"),
        signal("split_session", value="i-0abc", parts=places),
        signal("burst", "anonymous@198.51.100.0/24"),
    ]
    others = [signal("first_network", value="192.0.2.0/24"), signal("split_session", parts=places[::-1])]
    links = [Link(WEB, "198.51.100.0/24", AT, AT), Link(WEB, "192.0.2.0/24", AT, AT)]
    text = 'networks = ["198.51.100.7/32"]'
    assert left(lake, text, *news, *others, links=links) == (others, links[1:])
    assert left(lake, "", *news, links=links) == (news, links), "an empty file changes nothing"


@pytest.mark.parametrize("key", ["accounts", "partners"])
def test_own_accounts_and_partners_are_not_foreign(lake: Path, key: str) -> None:
    part = ("keys", 200.0, 60.0, 0.0)
    explained = [
        signal("first_account", value="444455556666"),
        signal("detection", PARTNER, rule="foreign-account"),
        signal("burst", PARTNER, basis="prior", parts=(part,)),
    ]
    others = [
        signal("first_account", value="555566667777"),
        signal("detection", PARTNER, rule="copied-to-foreign-account"),
        signal("burst", PARTNER, basis="prior", parts=(("keys", 9_000.0, 60.0, 0.0),)),
        signal("detection", WEB, rule="copied-to-foreign-account"),
    ]
    assert left(lake, f'{key} = ["444455556666"]', *explained, *others)[0] == others


@pytest.mark.parametrize(
    ("entry", "callers"),
    [
        ('caller = "arn:aws:iam::*:role/aud*"', {AUDIT}),
        ('network = "198.51.100.0/24"', {AUDIT}),
        ('agent = "prowler"', {AUDIT}),
        ('network = "198.51.100.0/24"\nagent = "other"', set()),
        (f'caller = "{WEB}"\nagent = "prowler"', set()),
        ('caller = "arn:aws:iam::*"', {AUDIT, WEB}),
    ],
)
def test_only_high_detections_of_scanners_are_left(lake: Path, entry: str, callers: set[str]) -> None:
    signals = [
        signal(kind, caller, rarity=rarity)
        for caller in (AUDIT, WEB)
        for kind, rarity in (
            ("more_denied", 4.0),
            ("detection", SEVERITY_RARITY["medium"]),
            ("detection", SEVERITY_RARITY["high"]),
        )
    ]
    kept = left(lake, f"[[scanners]]\n{entry}", *signals)[0]
    gone = [one for one in signals if one not in kept]
    assert {one.caller for one in gone} == callers and len(gone) == 2 * len(callers)
    assert all(one.rarity < SEVERITY_RARITY["high"] for one in gone)


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("networks = [", 1, "not valid TOML"),
        ('x = 1\nnetwork = ["192.0.2.0/24"]', 1, "unknown key 'x'"),
        ('networks = [\n  "192.0.2.0/24",\n  "192.0.2.1/24",\n]', 3, "not a network"),
        ("accounts = [111122223333]", 1, "strings in quotes"),
        ('partners = [\n"12"]', 2, "not an account"),
        ("[[scanners]]\n", 1, "a scanner needs one of"),
        ('[[scanners]]\nname = "x"', 2, "unknown key 'name'"),
        ('[[scanners]]\ncaller = "*"', 2, "would fit everything"),
        ('[[scanners]]\nagent = "a*b*c*d*e*f*g"', 2, "5 asterisks"),
        ("networks = [" + '"192.0.2.0/24",' * 5_001 + "]", 1, "at most 5,000"),
    ],
)
def test_mistakes_are_said_with_their_line(text: str, line: int, part: str) -> None:
    with pytest.raises(UsageError, match=part) as caught:
        parse_own("own.toml", text)
    assert str(caught.value).startswith(f"own.toml:{line}: ")


def test_the_lake_keeps_the_file(lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.toml"
    path.write_text('partners = ["444455556666"]')
    assert main(["detect", "--lake", str(lake), "--own", str(path)]) == 0
    assert own_of(lake) == Own(partners=frozenset({"444455556666"}))
    path.write_text("networks = 3")
    assert main(["detect", "--lake", str(lake), "--own", str(path)]) == 2
    assert f"{path}:1: networks is a list" in capsys.readouterr().err
    assert own_of(lake).partners, "a file with a mistake is not kept"
    path.write_text("")
    assert main(["detect", "--lake", str(lake), "--own", str(path)]) == 0
    assert not own_of(lake)


def test_a_damaged_file_in_the_lake_is_said(lake: Path) -> None:
    keep_own(lake, "networks = 3")
    try:
        with pytest.raises(LakeError, match=r"own\.toml:1: .*detect --own FILE"):
            own_of(lake)
    finally:
        keep_own(lake, "")
