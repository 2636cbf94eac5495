"""Findings: planted incidents are found, little else is, and each leads down to the records."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from trailsift.analysis.time_range import Period
from trailsift.cli import main
from trailsift.detect import detection_examples, detection_rules, notify
from trailsift.detect.baseline import BASELINE_LIMITS, FIRSTS, Baseline, BaselineLimits, Cells, Day, FirstSeen
from trailsift.detect.correlate import correlate_signals, finding_id
from trailsift.detect.describe import describe
from trailsift.detect.evaluation import judge, read_truth
from trailsift.detect.experiment import ABLATIONS, judge_ablations
from trailsift.detect.finding import KINDS, LEVELS, Finding, Signal
from trailsift.detect.novelty import find_firsts
from trailsift.detect.pipeline import DetectOptions, detect, find, over_threshold
from trailsift.detect.triage import Verdict, marks, without_muted
from trailsift.detect.volume import find_off_hours, find_surges
from trailsift.errors import LakeError, SourceError, UsageError
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.times import DAY, HOUR

FIELDS = {
    "id",
    "title",
    "caller",
    "callers",
    "role_arn",
    "role_arns",
    "event_names",
    "resource_arn",
    "first_time",
    "last_time",
    "score",
    "severity",
}
MONDAY = 20_514 * DAY  # 2026-03-02 in microseconds


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve days of 13 roles with one incident of each kind."""
    folder = tmp_path_factory.mktemp("detect") / "logs"
    generate(folder, Options(events=25_000, days=12, seed=77, roles=13))
    return folder


@pytest.fixture(scope="module")
def lake(logs: Path) -> Path:
    """A lake of them."""
    ingest([str(logs / "AWSLogs")], logs.parent / "lake", workers=1)
    return logs.parent / "lake"


@pytest.fixture(scope="module")
def engine(lake: Path) -> Iterator[DuckDBEngine]:
    """An engine over that lake."""
    with DuckDBEngine(open_snapshot(lake)) as engine:
        yield engine


def test_planted_incidents_are_found(engine: DuckDBEngine, logs: Path) -> None:
    """Nearly all kinds, each among the first ten of its day, with few other findings."""
    result = judge(detect(engine).findings, read_truth(logs / "truth.json"))
    missed = [one.kind for one in result.outcomes if not one.found]
    assert len(result.outcomes) == 8
    assert len(missed) <= 1, missed
    assert all(one.rank is not None and one.rank <= 10 for one in result.outcomes if one.found)
    assert result.false_per_day <= 2


def test_each_level_adds_something(engine: DuckDBEngine, logs: Path) -> None:
    """Without firsts, incidents are missed: the level is really left out."""
    truth = read_truth(logs / "truth.json")
    found = {name: sum(o.found for o in result.outcomes) for name, result in judge_ablations(engine, truth).items()}
    assert set(found) == set(ABLATIONS)
    assert found["all"] == max(found.values())
    assert found["novel"] < found["all"]


def test_json_and_drill_down(lake: Path, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the list to one finding, its summary rows and events, and the original records of a planted incident."""
    assert main(["detect", "--lake", str(lake), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert found and all(set(one) >= FIELDS | {"reasons", "query", "techniques"} for one in found)
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    incident = next(i for i in read_truth(logs / "truth.json")["incidents"] if i["kind"] == "mass_delete")
    one = next(
        f for f in found if f["role_arn"] == incident["role_arn"] and f["first_time"] <= incident["last_time"]
        and "DeleteObject" in f["event_names"]
    )  # fmt: skip
    assert main(["finding", one["id"], "--lake", str(lake), "--json"]) == 0
    drilled = json.loads(capsys.readouterr().out)
    assert drilled["summary"] and drilled["events"] and drilled["id"] == one["id"]
    assert main(["finding", one["id"], "--lake", str(lake), "--records"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ids = {record["eventID"] for record in records}
    assert len(ids & set(incident["event_ids"])) >= 0.9 * len(incident["event_ids"])
    assert main(["query", one["query"], "--lake", str(lake), "--format", "json"]) == 0
    assert {row["event_id"] for row in json.loads(capsys.readouterr().out)} == ids


def test_views(lake: Path, engine: DuckDBEngine, capsys: pytest.CaptureFixture[str]) -> None:
    """Terminal output, in both languages."""
    best = detect(engine).findings[0]
    chosen, _ = detection_rules.builtin_rules()
    assert best.id in {one.id for one in detect(engine, detections=chosen).findings}
    assert main(["detect", "--lake", str(lake)]) == 0
    out = capsys.readouterr().out
    assert best.id in out and "UTC" in out
    assert main(["detect", "--lake", str(lake), "--lang", "ko", "--timezone", "Asia/Seoul"]) == 0
    assert "Asia/Seoul" in (text := capsys.readouterr().out) and any("가" <= c <= "힣" for c in text)
    assert main(["finding", best.id, "--lake", str(lake)]) == 0
    assert best.event_names[0] in capsys.readouterr().out
    assert main(["detect", "--lake", str(lake), "--since", "2031-01-01"]) == 0
    assert "no findings" in capsys.readouterr().err


def test_threshold_is_what_it_says(engine: DuckDBEngine) -> None:
    """Exactly the hours and events above the threshold."""
    wanted = engine.query(
        "SELECT count(*) FROM (SELECT hour, event_name FROM hourly GROUP BY ALL HAVING sum(events) > 100)"
    ).value()
    found = over_threshold(engine, 100)
    assert len(found) == wanted > 0
    assert len({one.id for one in found}) == wanted
    assert over_threshold(engine, 10**9) == []
    with pytest.raises(UsageError, match="--threshold 0"):
        over_threshold(engine, 0)


def test_period_and_budget(engine: DuckDBEngine) -> None:
    """A period selects from all findings; a budget limits each day."""
    everything = detect(engine, DetectOptions(budget=0)).findings
    middle = sorted(one.first_time for one in everything)[len(everything) // 2]
    late = detect(engine, DetectOptions(Period(since=middle), budget=0)).findings
    assert {one.id for one in late} == {one.id for one in everything if one.last_time >= middle}
    one_a_day = detect(engine, DetectOptions(budget=1)).findings
    assert len(one_a_day) == len({one.first_time // DAY for one in everything})


def test_mute_and_confirm(engine: DuckDBEngine, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Verdicts stay in the lake; muted findings are hidden unless requested."""
    chosen, _ = detection_rules.builtin_rules()
    first, second = detect(engine, detections=chosen).findings[:2]
    try:
        assert main(["mute", first.id[:7], "--lake", str(lake), "--reason", "a drill"]) == 0
        assert main(["confirm", second.id, "--lake", str(lake), "--reason", "stolen keys"]) == 0
        assert main(["confirm", second.id, "--lake", str(lake), "--reason", " "]) == 2
        capsys.readouterr()
        assert {key: said.word for key, said in marks(lake).items()} == {first.id: "mute", second.id: "confirm"}
        left = [one.id for one in detect(engine, detections=chosen).findings]
        assert first.id not in left and second.id in left
        assert first.id in [one.id for one in detect(engine, DetectOptions(muted=True), chosen).findings]
        for name, message in (("", "several|no muted"), ("nope", f"no muted finding .*: {first.id}")):
            code = main(["unmute", name, "--lake", str(lake)])
            assert (code, bool(re.search(message, capsys.readouterr().err))) == (2, True), name
        assert main(["unmute", first.id[:7], "--lake", str(lake)]) == 0
        assert first.id in [one.id for one in detect(engine, detections=chosen).findings]
        assert main(["unmute", first.id, "--lake", str(lake)]) == 2
        assert "nothing is muted" in capsys.readouterr().err
        with (lake / "findings" / "marks.jsonl").open("a") as handle:
            handle.write("{broken\n")
        with pytest.raises(LakeError, match=r"marks\.jsonl, line 4"):
            marks(lake)
    finally:
        (lake / "findings" / "marks.jsonl").unlink()


def test_unknown_finding(engine: DuckDBEngine) -> None:
    """An error message, not a traceback."""
    with pytest.raises(UsageError, match="no finding 'nope'"):
        find(engine, "nope")


def test_empty_lake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No events, no findings, and why."""
    (tmp_path / "a.json").write_text('{"Records": []}')
    main(["ingest", str(tmp_path / "a.json"), "--lake", str(tmp_path / "lake"), "--quiet"])
    capsys.readouterr()
    assert main(["detect", "--lake", str(tmp_path / "lake")]) == 0
    assert "no findings" in capsys.readouterr().err


def signal(kind: str = "first_network", hour: int = 0, rarity: float = 3.0, **more: Any) -> Signal:
    """One signal at an hour of the Monday."""
    given = {"caller": "arn:aws:iam::1:role/a", "value": "192.0.2.0/24", "events": 9} | more
    begin = MONDAY + hour * HOUR
    return Signal(kind, given.pop("caller"), rarity, begin, begin + HOUR - 1, **given)


def test_related_signals_are_one_finding() -> None:
    """Near in time and of one role: one finding; otherwise two. More signals score higher."""
    together = correlate_signals([signal(), signal("more_reads", 2)], least=0)
    assert len(together) == 1
    assert len(correlate_signals([signal(), signal(hour=9)], least=0)) == 2
    assert len(correlate_signals([signal(), signal(caller="arn:aws:iam::1:role/b")], least=0)) == 2
    assert together[0].score > correlate_signals([signal()], least=0)[0].score
    assert 0 < together[0].score < 1


def test_finding_keeps_its_id_as_it_grows() -> None:
    """More hours, events and signals change its score, never its id."""
    small = correlate_signals([signal("first_pattern", rarity=1.5)], least=0)[0]
    grown = correlate_signals([signal("first_pattern", rarity=2.5, events=900), signal("more_reads", 1, 6.0)], least=0)[
        0
    ]
    assert small.id == grown.id == finding_id(small.caller, small.first_time)
    assert grown.score > small.score


def test_muting_covers_similar_signals() -> None:
    """The same again stays muted, far more of it does not; other roles are not affected."""
    said = [Verdict("f1", "mute", "why", "now", (("more_reads", "a", "GetObject", 100),))]
    make = lambda events, role="a": signal("more_reads", caller=role, value="GetObject", events=events)  # noqa: E731
    assert without_muted([make(140)], said) == []
    assert len(without_muted([make(160), make(10, "b")], said)) == 2


def first(day: int, kind: str = "first_network", value: str = "n", role: str = "a", events: int = 50) -> Any:
    """A first of a role on a day."""
    return day, role, kind, value, events


def firsts_of(baseline: Baseline, of_day: list[Any]) -> FirstSeen:
    """The values that are new to the baseline, as they are read from a lake."""
    key = lambda *texts: int.from_bytes(hashlib.sha256(repr(texts).encode()).digest()[:8], "big")  # noqa: E731
    rows = [(baseline.caller(r), FIRSTS.index(k), key(r, k, v), key(k, v), n, 0, 1) for _, r, k, v, n in of_day]
    kinds = (np.int64, np.int64, np.uint64, np.uint64, np.int64, np.int64, np.int64)
    columns = [np.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)]
    texts = [one[3] for one in of_day], ["GetObject"] * len(rows), [None] * len(rows)
    new = np.flatnonzero(baseline.is_new(columns[2]))
    return FirstSeen(*(column[new] for column in columns), *([text[i] for i in new.tolist()] for text in texts))


def run_days(
    firsts: list[Any], days: int = 30, roles: str = "ab", limits: BaselineLimits = BASELINE_LIMITS
) -> tuple[list[Signal], Baseline]:
    """Signals of days on which all roles are active and these firsts occur, and the baseline afterwards."""
    baseline, found = Baseline(limits), []
    for number in range(days):
        of_day = [one for one in firsts if one[0] == number]
        active = np.array([baseline.caller(role) for role in roles])
        new = firsts_of(baseline, of_day)
        nothing = Cells(*(np.zeros(0, np.int64) for _ in range(3)))
        today = Day(number, active, nothing, np.zeros(0, np.int64), new)
        found += find_firsts(baseline, today)
        baseline.learn(today, [])
    return found, baseline


def test_rare_firsts_weigh_more_than_common_ones() -> None:
    """A role that never changed its network, against one that does so every day."""
    firsts = [first(day, value=f"n{day}", role="b") for day in range(26)] + [first(25, value="new")]
    found, _ = run_days(firsts)
    assert [one.caller for one in found if one.rarity > 1.5] == ["a"]
    late = next(one for one in found if one.caller == "a")
    early, _ = run_days([first(4, value="new")])
    assert all(one.rarity < late.rarity for one in early), "certainty grows with experience"
    assert run_days([first(0), first(0, role="b")])[0] == [], "all is new on the first day"
    assert run_days([first(9), first(20)])[0] == run_days([first(9)])[0], "a first is a first once"


def test_baseline_is_bounded() -> None:
    """However many roles, series and values appear, the baseline stays within its limits."""
    limits = BaselineLimits(callers=20, series=40, values=200, per_kind=50)
    firsts = [first(day, value=f"{day}-{i}", role=f"r{day % 60}") for day in range(60) for i in range(20)]
    _, baseline = run_days(firsts, 60, limits=limits)
    assert len(baseline.keys) <= 200 and len(baseline.shared) <= 200
    for number in range(60, 200):
        place = baseline.caller(f"role-{number}")
        series = np.array([baseline.series_of(place, f"Get{i}") for i in range(5)])
        cells = Cells(series, np.full(5, 3), np.full(5, 7.0))
        empty = firsts_of(baseline, [])
        baseline.learn(Day(number, np.array([place]), cells, np.zeros(0, np.int64), empty), [])
        assert len(baseline.names) <= 20 and len(baseline.event_names) <= 40
    assert "role-199" in baseline.callers and "role-60" not in baseline.callers
    newest = baseline.series[baseline.callers["role-199"], ":Get0"]
    assert baseline.peaks[newest, 3] == 7 and baseline.of[newest] == baseline.callers["role-199"]


def series(days: int, rate_: float = 5) -> Any:
    """Calls of a series that is active from 9 to 17 o'clock, by day and hour."""
    values = np.zeros((days, 24))
    values[:, 9:17] = np.random.default_rng(4).poisson(rate_, (days, 8))
    return values


def series_signals(values: Any, name: str = "GetObject") -> list[Signal]:
    """Signals of a series that is its role's only one; days without any call are skipped."""
    baseline, found = Baseline(), []
    for number in np.flatnonzero(values.sum(axis=1)).tolist():
        hour = np.flatnonzero(values[number])
        places = [
            baseline.series_of(baseline.caller("r"), name),
            baseline.series_of(baseline.caller("r"), "calls", measure=True),
        ]
        cells = Cells(np.repeat(places, len(hour)), np.tile(hour, 2), np.tile(values[number, hour], 2))
        active = np.array([baseline.caller("r")])
        today = Day(MONDAY // DAY + number, active, cells, np.zeros(0, np.int64), firsts_of(baseline, []))
        off_hours = find_off_hours(baseline, today)
        found += [*find_surges(baseline, today), *off_hours]
        baseline.learn(today, [baseline.caller(one.caller) for one in off_hours])
    return found


def test_surge_off_hours_and_nothing() -> None:
    """An hour far above all earlier ones, activity at night, and neither in an ordinary month."""
    assert series_signals(series(30)) == []
    busy = series(30)
    busy[20, 12] = 900
    (burst,) = series_signals(busy)
    assert burst.events == 900 and burst.rarity > 2.5 and burst.usual is not None and burst.usual < 30
    night = series(30)
    night[20, 2] = 29
    (off_hours,) = series_signals(night)
    assert off_hours.kind == "first_hour" and off_hours.first_time == MONDAY + (20 * 24 + 2) * HOUR


def test_gap_in_delivery_is_not_a_finding() -> None:
    """Days without any event, and the days after them, are ordinary."""
    gone = series(30)
    gone[10:14] = 0
    assert series_signals(gone) == []


def test_lasting_step_is_reported_once() -> None:
    """A new level is reported for a day, then it is the baseline."""
    step = series(30)
    step[15:, 9:17] *= 30
    assert {(one.first_time - MONDAY) // DAY for one in series_signals(step)} == {15}


@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_kind_has_a_sentence(language: Any) -> None:
    """Each kind of signal has a sentence without open placeholders, and belongs to a level."""
    for kind in KINDS:
        one = signal(kind, event_name="GetObject", resource_arn="arn:aws:s3:::b", usual=3.0)
        described = describe(Finding("f", None, 0.5, one.first_time, one.last_time, (one,)), language)
        assert described.title and described.reasons and "{" not in described.title and LEVELS[kind]


def test_text_of_a_log_is_harmless(engine: DuckDBEngine) -> None:
    """Text of a caller is sanitized for display and escaped in SQL."""
    bad = signal("first_agent", value="\x1b[31m", caller="arn:aws:iam::1:role/o'brien\x07")
    described = describe(
        Finding("f", bad.caller, 0.5, bad.first_time, bad.last_time, (bad,)), clean=lambda text: "clean"
    )
    assert "\x1b" not in described.title and "\x07" not in described.title
    assert engine.query(described.query).rows() == []


def test_file_that_is_not_a_truth(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "truth.json").write_text("[]")
    with pytest.raises(SourceError, match=r"truth\.json is not a truth"):
        read_truth(tmp_path / "truth.json")


def test_builtin_detections_pass_their_examples() -> None:
    """Each finds its matching example and ignores the harmless one, in one lake of all examples."""
    detections, wrong = detection_rules.builtin_rules()
    assert len(detections) >= 12 and not wrong
    assert detection_examples.run_examples(detections) == []
    assert all(one.mitre and one.title_ko != one.title for one in detections)


GOOD = """title = "Reads of plans"
severity = "low"
description = "Plans are secret."
sql = '''
SELECT account_id, role_arn, event_name, resource_arn, event_time AS first_time, event_time AS last_time, 1 AS events
FROM events WHERE object_key = 'plans'
'''
[[matches]]
event = "s3:GetObject"
parameters = { bucketName = "b", key = "plans" }
[[ignores]]
event = "s3:GetObject"
parameters = { bucketName = "b", key = "other" }
"""


def test_own_detections_and_their_mistakes(
    tmp_path: Path, lake: Path, engine: DuckDBEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong file is reported with its line, and the rest run; examples that fail are reported as well."""
    (tmp_path / "good.toml").write_text(GOOD)
    (tmp_path / "not-toml.toml").write_text("title = 'x'\nsql = = 3\n")
    (tmp_path / "no-example.toml").write_text(GOOD.partition("[[ignores]]")[0])
    (tmp_path / "severe.toml").write_text(GOOD.replace('"low"', '"very"'))
    (tmp_path / "sql.toml").write_text(GOOD.replace("object_key =", "object_kex ="))
    (tmp_path / "column.toml").write_text(GOOD.replace("1 AS events", "1 AS n"))
    (tmp_path / "write.toml").write_text(GOOD.replace("SELECT account_id", "DELETE FROM events; SELECT account_id"))
    chosen, wrong = detection_rules.load_rules(tmp_path)
    assert {(Path(one.path).stem, one.line) for one in wrong} == {("not-toml", 2), ("no-example", 1), ("severe", 2)}
    _, failed = detection_rules.run_detections(engine, chosen)
    assert set(detect(engine, detections=chosen).problems) == set(failed)
    assert {(Path(one.path).stem, one.line) for one in failed} == {("sql", 4), ("column", 4), ("write", 4)}
    assert main(["detect", "--lake", str(lake), "--detections", str(tmp_path), "--json"]) == 3
    out = capsys.readouterr()
    assert json.loads(out.out)["findings"] and "severe.toml:2: severity is one of" in out.err
    (tmp_path / "swapped.toml").write_text(
        GOOD.replace("matches", "m").replace("ignores", "matches").replace("[m]", "[ignores]")
    )
    assert main(["detect", "--lake", str(lake), "--detections", str(tmp_path), "--check"]) == 1
    err = capsys.readouterr().err
    assert "does not find its example" in err and "finds its example [[ignores]]" in err
    with pytest.raises(UsageError, match="is not a folder"):
        detection_rules.load_rules(tmp_path / "none")


def test_recurring_detection_is_one_finding(engine: DuckDBEngine) -> None:
    """Recurring matches are reported once, with the technique of the file, among the other findings."""
    signals, wrong = detection_rules.run_detections(engine, detection_rules.builtin_rules()[0])
    assert not wrong
    public = [one for one in signals if one.rule == "anonymous-reads"]
    found = detect(engine, DetectOptions(budget=0), detection_rules.builtin_rules()[0]).findings
    reported = [one for one in found if any(signal.rule == "anonymous-reads" for signal in one.signals)]
    assert public and len(reported) == 1 and "T1530" in reported[0].techniques
    assert reported[0].last_time == max(one.goes_on or 0 for one in public)


def test_rows_of_one_match() -> None:
    """One role over many resources is one match, after a quiet week another; without a role, one per resource."""
    row = lambda role, resource, at, events=1: detection_rules.RuleMatch(  # noqa: E731
        "1", role, "GetObject", resource, at * DAY, at * DAY, events, at * DAY, events
    )
    rows = [row("a", "x", 0), row("a", "y", 1, 5), row("a", "x", 20), row(None, "x", 0), row(None, "y", 0)]
    found = detection_rules.group_matches(rows)
    assert [(one.caller, one.resource_arn, one.events, one.near) for one in found if one.caller] == [
        ("a", "y", 6, 0),
        ("a", "x", 1, 20 * DAY),
    ]
    assert len([one for one in found if one.caller is None]) == 2
    for cut in range(21):
        before = detection_rules.group_matches([one for one in rows if one.first_time < cut * DAY])
        assert detection_rules.group_matches([one for one in rows if one.first_time >= cut * DAY], before) == found


class Receiver(BaseHTTPRequestHandler):
    """A real server with scripted answers that keeps what it gets."""

    answers: ClassVar[list[int]] = []
    got: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        """Receive one alert."""
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        code = self.answers.pop(0) if self.answers else 200
        if code == 200:
            self.got.append(content)
        self.send_response(code)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def receiver() -> Iterator[str]:
    """The server's URL."""
    Receiver.answers, Receiver.got = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    server.server_close()


def test_alerts_are_sent_once_and_again_when_grown(receiver: str, tmp_path: Path) -> None:
    """Once each; again after growth by half; a failure is reported and retried later."""
    small = describe(correlate_signals([signal(events=100)], least=0)[0])
    grown = describe(correlate_signals([signal(events=151)], least=0)[0])
    waited: list[float] = []
    Receiver.answers = [503, 200]
    assert notify.alert(tmp_path, [small], receiver, wait=waited.append) == (1, [])
    assert waited == [2.0] and Receiver.got[0]["finding"]["id"] == small.id
    assert notify.alert(tmp_path, [small], receiver, wait=waited.append) == (0, [])
    Receiver.answers = [404]
    taken, wrong = notify.alert(tmp_path, [grown], receiver, "slack", waited.append)
    assert taken == 0 and "HTTP 404" in wrong[0] and len(waited) == 1
    assert notify.alert(tmp_path, [grown], receiver, "slack", waited.append) == (1, [])
    assert grown.id in Receiver.got[-1]["text"] and len(Receiver.got) == 2


def test_alerts_from_the_command(receiver: str, lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All findings are posted once; then there is no news; an invalid URL is a usage error."""
    try:
        assert main(["detect", "--lake", str(lake), "--webhook", receiver, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["findings"]
        assert [one["finding"]["id"] for one in Receiver.got] == [one["id"] for one in found]
        assert main(["detect", "--lake", str(lake), "--webhook", receiver, "--json"]) == 0
        assert len(Receiver.got) == len(found) and json.loads(capsys.readouterr().out)["findings"] == found
        # What a webhook has been sent is still new to whoever asks on a terminal, once.
        for shown in (found, []):
            assert main(["detect", "--lake", str(lake), "--new", "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["findings"] == shown
        assert main(["detect", "--lake", str(lake), "--webhook", "file:///etc/hosts"]) == 2
        (lake / "findings" / "told.json").write_text("[")
        with pytest.raises(LakeError, match="is damaged"):
            notify.news(lake, [])
    finally:
        (lake / "findings" / "told.json").unlink()
