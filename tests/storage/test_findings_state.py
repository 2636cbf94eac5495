"""What detection keeps, in any storage: the same bytes in a folder and in memory, and nothing lost in a race."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from trailsift.detect import checkpoint, finding_ids, notify
from trailsift.detect.finding import Finding, Link, Signal
from trailsift.detect.triage import mark, marks
from trailsift.errors import LakeError
from trailsift.storage import LocalStorage, Location, Storage, open_storage
from trailsift.storage.memory import MemoryStorage

SIGNAL = Signal("more_calls", "a", 2.0, 0, 5, "GetObject", 5)


@pytest.fixture(params=["path", "local", "memory"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    places: dict[str, Location] = {
        "path": tmp_path,
        "local": LocalStorage(tmp_path),
        "memory": MemoryStorage(),
    }
    return places[request.param]


def finding(id_: str, role: str = "a", first: int = 0) -> Finding:
    return Finding(id_, role, 0.7, first, first + 5, (SIGNAL,), callers=(role,), span=(first, first + 5))


def test_verdicts(lake: Location) -> None:
    assert marks(lake) == {}
    mark(lake, finding("f1"), "mute", "backup")
    mark(lake, finding("f2"), "confirm", "é")
    mark(lake, finding("f1"), "confirm", "not the backup")
    assert {name: (verdict.word, verdict.reason) for name, verdict in marks(lake).items()} == {
        "f1": ("confirm", "not the backup"),
        "f2": ("confirm", "é"),
    }
    lines = open_storage(lake).read("findings/marks.jsonl").decode().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["f1", "f2", "f1"]
    open_storage(lake).write("findings/marks.jsonl", b"{\n")
    with pytest.raises(LakeError, match=r"marks\.jsonl, line 1"):
        marks(lake)


def test_verdicts_given_at_the_same_time(lake: Location) -> None:
    threads = [threading.Thread(target=mark, args=(lake, finding(f"f{n}"), "mute", "same")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(marks(lake)) == {f"f{n}" for n in range(8)}


def test_ids_given_at_the_same_time(lake: Location) -> None:
    """Runs that meet the same findings under other names agree on one id for each."""
    ids: list[list[str]] = []

    def run(number: int) -> None:
        found = [finding(f"n{number}-{place}", f"role{place}", 100 * place) for place in range(5)]
        ids.append([one.id for one in finding_ids.named(lake, found)])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 6 and len(set(map(tuple, ids))) == 1
    assert len(json.loads(open_storage(lake).read("findings/ids.json"))) == 5


def test_ids_that_are_not_to_be_remembered(lake: Location) -> None:
    assert [one.id for one in finding_ids.named(lake, [finding("f1")], remember=False)] == ["f1"]
    assert not open_storage(lake).exists("findings/ids.json")


def test_what_was_reported(lake: Location) -> None:
    assert notify.news(lake, [finding("f1")])
    notify.remember(lake, [finding("f1")])
    notify.remember(lake, [finding("f2")])
    assert notify.news(lake, [finding("f1"), finding("f2")]) == []
    assert json.loads(open_storage(lake).read("findings/told.json")) == {
        "destinations": {"new": {"f1": 5.0, "f2": 5.0}}
    }


def test_last_run_and_states(lake: Location) -> None:
    assert checkpoint.last(lake, "x") is None
    checkpoint.save_last(lake, "x", [SIGNAL], [Link("a", "203.0.113.0/24", 1, 2)])
    kept = checkpoint.last(lake, "x")
    assert kept is not None and kept[0] == [SIGNAL] and checkpoint.last(lake, "y") is None
    for before in (10, 12, 20):
        checkpoint.save(lake, checkpoint.State(before=before, seq=before))
    storage: Storage = open_storage(lake)
    assert set(storage.paths("findings")) >= {"findings/habits.npz", "findings/habits-before.npz"}
    newest, older = checkpoint.load(lake, lambda state: True), checkpoint.load(lake, lambda state: state.before < 20)
    assert newest is not None and older is not None and (newest.before, older.before) == (20, 10)
    assert not storage.exists("findings/habits.npz"), "a state that does not fit is removed"
