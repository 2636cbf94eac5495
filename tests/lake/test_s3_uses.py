"""What people do with a lake in S3: rules, findings, copies; and where nothing in a lake may lead."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from test_format_1 import unpacked

from s3_proxy import Proxy
from s3_server import Server, s3, s3_server
from s3_server import proxy as proxy
from support.s3_lakes import EVENTS, Inputs, Machine, filled, inputs, lake_image, new_lake, own_cache
from trailsift import Lake
from trailsift.cli import main
from trailsift.errors import LakeError, UsageError
from trailsift.lake.packing import pack, unpack
from trailsift.rules.presets import open_rules

__all__ = ["filled", "inputs", "lake_image", "new_lake", "own_cache", "s3", "s3_server"]

pytest.importorskip("obstore", reason="the extra aws is not installed")

RULES = """
seed = "two writers"

[[rule]]
name = "reads"
when = { read_only = true }
action = "sample"
rate = 0.2

[[rule]]
name = "tables"
when = { service = "dynamodb" }
action = "drop"
"""


def test_rules_of_two_writers(new_lake: str, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropped and sampled events of both add up, and each line keeps an event."""
    (tmp_path / "rules.toml").write_text(RULES)
    rules = open_rules(str(tmp_path / "rules.toml"))
    a, b = Machine(new_lake, tmp_path / "a", monkeypatch), Machine(new_lake, tmp_path / "b", monkeypatch)
    a.ingest(inputs[2], rules=rules)
    done = []

    def meanwhile(_: object) -> None:
        if not done:
            done.append(None)
            done.append(b.ingest(inputs[1], rules=rules))

    mine = a.ingest(inputs[0], rules=rules, progress=meanwhile)
    assert mine.records == done[1].records == EVENTS
    for counts in (mine, done[1]):
        assert counts.records == counts.stored + sum(counts.dropped.values())
        assert counts.dropped["reads"] and counts.dropped["tables"]
    lake = Lake(new_lake)
    assert lake.status().reconciled
    assert lake.query("SELECT sum(events) FROM hourly", cache=False).value() == 3 * EVENTS
    tables = "SELECT sum(events) FROM hourly WHERE service = 'dynamodb' AND NOT read_only"
    dropped = lake.query(tables, cache=False).value() or 0
    weight = lake.query("SELECT sum(weight) FROM events", cache=False).value()
    assert abs(weight + dropped - 3 * EVENTS) < 0.25 * EVENTS
    # Each line of the summary has an event to look at, whichever of the two has sampled the others away.
    without = "SELECT hour, caller, event_name, resource_arn FROM hourly WHERE read_only AND error_code IS NULL EXCEPT"
    without += " SELECT date_trunc('hour', event_time), caller, event_name, resource_arn FROM events"
    assert lake.query(f"SELECT count(*) FROM ({without})", cache=False).value() == 0
    assert lake.verify().is_sound


def test_rules_are_tried_on_it(filled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named by its URL, and not by the copy on the disk."""
    (tmp_path / "rules.toml").write_text(RULES)
    assert main(["rules", "try", str(tmp_path / "rules.toml"), "--lake", filled]) == 0
    out, err = capsys.readouterr()
    assert filled in out and "cache" not in out + err


def test_findings_of_a_lake_that_is_followed(
    filled: str, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`detect --follow` sees the commits of another machine."""
    from trailsift.detect import follow

    other = Machine(filled, tmp_path / "other", monkeypatch)
    seen: list[str] = []

    def wait(_: float) -> None:
        seen.append(capsys.readouterr().out)
        if len(seen) == 2:
            raise KeyboardInterrupt
        other.ingest(inputs[1], compact=False)

    monkeypatch.setattr(follow.follow, "__defaults__", (wait, *(follow.follow.__defaults__ or ())[1:]))
    assert main(["detect", "--lake", filled, "--follow", "--json"]) == 130
    assert len(seen) == 2 and seen[0] != seen[1]
    assert Lake(filled).findings() == Lake(filled).findings()


def copy_down(s3: Server, url: str, folder: Path) -> None:
    """Copy a lake from S3 to a folder, as `aws s3 sync` does."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    for key in s3.keys(bucket, f"{prefix}/"):
        target = folder / key.removeprefix(f"{prefix}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(s3.read(bucket, key))


def test_a_lake_of_format_1_moves_to_s3_and_back(new_lake: str, s3: Server, tmp_path: Path) -> None:
    """It is read there as it is, upgraded there, and read on a disk again."""
    here = unpacked(tmp_path)
    Lake(here).relocate()
    sql = "SELECT event_id, event_name, resource_arn, object_key FROM events ORDER BY ALL"
    count = "SELECT count(*), sum(events) FROM hourly"
    want = Lake(here).query("SELECT event_id, event_name FROM events ORDER BY ALL", cache=False).rows()
    sums = Lake(here).query("SELECT sum(events) FROM hourly", cache=False).value()
    bucket, _, prefix = new_lake.removeprefix("s3://").partition("/")
    s3.upload(bucket, here, f"{prefix}/")
    there = Lake(new_lake)
    there.relocate()
    assert there.status().format_version == 1
    assert there.query("SELECT event_id, event_name FROM events ORDER BY ALL", cache=False).rows() == want
    upgraded = there.compact().upgraded
    assert upgraded is not None and there.status().format_version == 2
    after = {text: there.query(text, cache=False).rows() for text in (sql, count)}
    assert there.query("SELECT sum(events) FROM hourly", cache=False).value() == sums
    assert there.verify().is_sound
    copy_down(s3, new_lake, tmp_path / "back")
    back = Lake(tmp_path / "back")
    assert back.relocate().moved_from == new_lake
    assert {text: back.query(text, cache=False).rows() for text in (sql, count)} == after
    assert len(after[sql]) == len(want)
    assert back.verify().is_sound


def edit_catalog(s3: Server, url: str, sql: str, tmp_path: Path) -> None:
    """Run a statement on the catalog of a lake, as somebody who may write into the bucket can."""
    bucket, _, key = f"{url}/catalog.db".removeprefix("s3://").partition("/")
    place = tmp_path / "edited.db"
    place.write_bytes(unpack(s3.read(bucket, key), url))
    with closing(sqlite3.connect(place)) as db:
        assert db.execute(sql).rowcount
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    s3.put(bucket, {key: pack(place.read_bytes())})


#: Where the metadata of a strange lake leads: another bucket, another prefix of the same, out of the lake by its parts.
PLACES = ("s3://another-bucket/team/lake", "s3://BUCKET/team/lake2", "s3://BUCKET/team/lake/../other", "file:///etc")
WORK: list[Callable[[Lake, Path], object]] = [
    lambda lake, logs: lake.ingest(logs),
    lambda lake, _: lake.compact(everything=True),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", ["pointer", "manifests", "location"])
def test_metadata_that_leads_out_of_the_lake(
    proxy: Proxy, filled: str, s3: Server, inputs: Inputs, tmp_path: Path, place: str, what: str
) -> None:
    """It is refused, by readers and writers, before anything is asked for at that place."""
    bucket, _, prefix = filled.removeprefix("s3://").partition("/")
    place = place.replace("BUCKET", bucket)
    if what == "pointer":
        text = f"UPDATE iceberg_tables SET metadata_location = replace(metadata_location, '{filled}/', '{place}/')"
        edit_catalog(s3, filled, f"{text} WHERE table_name = 'events'", tmp_path)
    else:
        member = f'"manifest-list":"{filled}/' if what == "manifests" else f'"location":"{filled}/'
        for key in s3.keys(bucket, f"{prefix}/events/metadata/"):
            data = s3.read(bucket, key).decode("latin-1")
            if key.endswith(".metadata.json") and member in data:
                s3.put(bucket, {key: data.replace(member, member.replace(filled, place)).encode("latin-1")})
    for work in WORK:
        with pytest.raises(LakeError) as raised:
            work(Lake(filled), inputs[1])
        assert "Traceback" not in str(raised.value)
    if what == "pointer":
        with pytest.raises(LakeError):
            Lake(filled).status()
    assert not Lake(filled).verify().is_sound if what != "pointer" else True
    asked = {request.path.split("?")[0] for request in proxy.requests}
    assert asked and all(path.startswith((f"/{bucket}/{prefix}/", f"/{bucket}")) for path in asked)
    assert not [path for path in asked if "lake2" in path or "other" in path or "etc" in path]


def test_queries_that_another_machine_saved(filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved in S3, found by everybody; a name is given once."""
    assert main(["queries", "save", "calls", "SELECT sum(events) AS calls FROM hourly", "--lake", filled]) == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    other = Lake(filled)
    assert [saved.name for saved in other.saved_queries()] == ["calls"]
    assert other.query("@calls", cache=False).value() == EVENTS
    with pytest.raises(UsageError, match="there is a query @calls already"):
        other.save_query("calls", "SELECT 1")
    other.delete_query("calls")
    assert Lake(filled).saved_queries() == []
    assert other.verify().is_sound


def test_questions_have_the_answers_of_a_lake_on_a_disk(
    filled: str, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command, by its JSON; next steps name the lake in S3, and the shell runs on it."""
    here = str(tmp_path / "here")
    Lake(here).ingest(inputs[0])
    keys = "SELECT resource_arn, object_key FROM events WHERE service = 's3' AND object_key IS NOT NULL ORDER BY ALL"
    resource, key = Lake(here).query(f"{keys} LIMIT 1").rows()[0]
    address, day = Lake(here).query("SELECT max(source_ip), max(event_time)::DATE::VARCHAR FROM events").rows()[0]
    bucket = resource.removeprefix("arn:aws:s3:::")
    for words in (
        ["resource", bucket], ["object", f"{bucket}/{key}"], ["search", address], ["search", bucket], ["cost"],
        ["compare", "--since", day],
    ):  # fmt: skip
        answers = []
        for lake in (here, filled):
            assert main([*words, "--lake", lake, "--json"]) == 0
            answers.append(capsys.readouterr().out)
        assert answers[0] == answers[1] and len(answers[0]) > 200, words
        assert main([*words, "--lake", filled]) == 0
        assert "cache" not in "".join(capsys.readouterr())
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT count(*) AS n FROM events;"))
    assert main(["shell", filled]) == 0
    assert str(EVENTS) in capsys.readouterr().out
