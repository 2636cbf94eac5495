"""Rules over columns and in an ingest: the same decisions as row by row, exact summaries, counts that add up."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trailsift import _native
from trailsift.analysis.status import omitted, status
from trailsift.cli import main
from trailsift.cloudtrail.event_ids import event_key
from trailsift.columns.arrow import CHUNK_SCHEMA, identities
from trailsift.columns.summarize import NEEDED
from trailsift.ingest import Counts, Sizes, ingest, sift
from trailsift.ingest.chunk_builder import ChunkBuilder
from trailsift.ingest.counts import SIZES
from trailsift.ingest.exemplars import Exemplars, Settled, new_lines
from trailsift.ingest.sift import LINE, LOOKED_AT, ColumnarRules
from trailsift.lake import settings as lake_settings
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.rules import RowRules, Rules, parse
from trailsift.rules.model import FIELDS
from trailsift.rules.presets import preset_text
from trailsift.rules.sampling import siphash24

HOUR = 3_600_000_000

#: Few values per column, so that rules match them.
POOL: dict[str, list[Any]] = {
    "service": ["s3", "dynamodb", "lambda"],
    "event_name": ["GetObject", "PutObject", "Invoke", None],
    "event_source": ["s3.amazonaws.com", "dynamodb.amazonaws.com", None],
    "event_category": ["Data", "Management"],
    "role_arn": ["arn:aws:iam::111122223333:role/etl-a", "arn:aws:iam::111122223333:role/web", None],
    "principal_type": ["AssumedRole", "AWSService", None],
    "resource_arn": ["arn:aws:s3:::logs", "arn:aws:s3:::data", None],
    "object_key": ["a/1.gz", "a/2.csv", "b/1.gz", "", None, "\N{HANGUL SYLLABLE GA}/1.gz", "b"],
    "source_ip": ["10.1.2.3", "192.0.2.1", "2001:db8::1", "lambda.amazonaws.com", "10.9.9.9, 192.0.2.1", None],
    "user_agent": ["Boto3/1.2", "aws-cli/2.1", None],
    "error_code": [None, None, None, "AccessDenied", "NoSuchKey", ""],
    "read_only": [True, False, None],
    "account_id": ["111122223333", "444455556666"],
    "aws_region": ["us-east-1", "ap-northeast-2"],
}
CONDITIONS: dict[str, list[Any]] = {
    "service": ["s3", "d*", ["lambda", "s3"]],
    "event_name": ["GetObject", "*Object", ["Invoke", ""]],
    "role": ["*:role/etl-*", "arn:aws:iam::111122223333:role/web", ""],
    "resource": ["arn:aws:s3:::*", "*data"],
    "object_key": ["a/*", ["*.gz", "b/*"], "", "*", ["b", "*v"], ["\N{HANGUL SYLLABLE GA}/*", "a/*.gz"]],
    "source_ip": ["10.0.0.0/8", ["2001:db8::/32", "192.0.2.1"], "*.amazonaws.com"],
    "user_agent": ["*oto*", "aws-cli/*"],
    "error_code": ["*", "AccessDenied", "", ["NoSuch*", ""]],
    "read_only": [True, False],
    "region": ["us-*"],
    "hour": ["09-17", "22-03", 5],
    "weekday": ["mon-fri", "sun"],
}
ACTIONS = ['"keep"', '"drop"', '"sample"\nrate = 0.3', '"sample"\nrate = { "09-17" = 0.5, otherwise = 0.05 }']

whens = st.dictionaries(st.sampled_from(sorted(CONDITIONS)), st.integers(0, 5), max_size=3)
files = st.lists(st.tuples(whens, st.sampled_from(ACTIONS)), max_size=8)


def rules_of(given_rules: list[tuple[dict[str, int], str]], zone: str, seed: str) -> Rules:
    """Build rules from the drawn parts; those that could never match, or repeat a sampling hour, are left out."""
    kept: list[str] = []
    rules = parse(f'timezone = "{zone}"\nseed = "{seed}"', "f")
    for number, (when, action) in enumerate(given_rules):
        conditions = {name: CONDITIONS[name][at % len(CONDITIONS[name])] for name, at in when.items()}
        lines = [f"{name} = {json.dumps(value)}" for name, value in conditions.items()]
        part = f'[[rule]]\nname = "r{number}"\naction = {action}\n[rule.when]\n' + "\n".join(lines) + "\n"
        try:
            rules = parse(f'timezone = "{zone}"\nseed = "{seed}"\n' + "".join([*kept, part]), "f")
        except Exception as error:
            assert "never" in str(error)
            continue
        kept.append(part)
    return rules


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows as a chunk."""
    arrays = []
    for field in CHUNK_SCHEMA:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        array = pa.array([row.get(field.name) for row in rows], kind)
        arrays.append(array.dictionary_encode() if pa.types.is_dictionary(field.type) else array)
    return pa.Table.from_arrays(arrays, schema=CHUNK_SCHEMA)


def some_rows(seed: int, count: int = 80) -> list[dict[str, Any]]:
    """Draw rows of the pool, over three weeks, with ids that are UUIDs or not."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        row = {name: values[random.integers(len(values))] for name, values in POOL.items()}
        row["event_time"] = int(random.integers(1_772_000_000, 1_774_000_000)) * 1_000_000
        tail = random.bytes(16).hex()
        uuid = f"{tail[:8]}-{tail[8:12]}-{tail[12:16]}-{tail[16:20]}-{tail[20:]}"
        row["event_id"] = uuid if number % 5 else f"content-{tail}"
        rows.append(row | {"bytes_in": 0, "bytes_out": 0, "weight": 1.0})
    return rows


@settings(max_examples=60)
@given(files, st.integers(0, 1000), st.sampled_from(["UTC", "Asia/Seoul", "Asia/Kathmandu", "America/New_York"]))
def test_columns_decide_as_rows_do(given_rules: list[tuple[dict[str, int], str]], seed: int, zone: str) -> None:
    """For any rules and rows: the same rule and weight, and each line's exemplar has the smallest hash."""
    rules = rules_of(given_rules, zone, str(seed))
    rows = some_rows(seed)
    one, many = RowRules(rules), ColumnarRules(rules)
    ids = identities([row["event_id"] for row in rows])
    table = table_of(rows)
    decided = many.decide(table, ids)
    by_row = [one.decide(row) for row in rows]
    names = [None if number < 0 else many.names[number] for number in decided.rule.tolist()]
    assert names == [decision.rule for decision in by_row]
    assert decided.weight.tolist() == [decision.weight for decision in by_row]
    best: dict[Any, tuple[int, int]] = {}
    for at in np.flatnonzero(decided.sampled).tolist():
        row = rows[at]
        line = (row["event_time"] // HOUR, *(row[name] for name in POOL if name in LINE_KEYS))
        rank = siphash24(one.exemplar_key, *event_key(row["event_id"]))
        best[line] = min(best.get(line, (1 << 64, -1)), (rank, at))
    first, ranks = many.exemplars(table, ids, decided)
    assert sorted(zip(ranks.tolist(), first.tolist(), strict=True)) == sorted(best.values())


#: Columns that records of one ``CallTemplate`` share.
KIND = (
    *("service", "event_name", "event_source", "event_category", "resource_arn", "error_code", "read_only"),
    *("account_id", "aws_region"),
)


@settings(max_examples=60)
@given(files, st.integers(0, 1000))
@example([({"event_name": 0, "service": 0}, '"drop"')], 0)
@example([({"role": 0}, '"keep"'), ({"service": 0}, '"drop"')], 0)
@example([({"service": 0}, '"drop"'), ({"role": 0}, '"keep"')], 0)
def test_what_is_dropped_in_any_case(given_rules: list[tuple[dict[str, int], str]], seed: int) -> None:
    """A template is dropped for every caller, origin and time exactly if none of these can save an event."""
    sifter = RowRules(rules_of(given_rules, "UTC", "s"))
    rows = some_rows(seed)
    for row in rows[:20]:
        kind = {name: row[name] for name in KIND}
        if sifter.drops_all(kind):
            assert {sifter.decide(other | kind).action for other in rows} == {"drop"}
        elif all(name in KIND for rule in sifter.rules.rules for name in map(FIELDS.__getitem__, rule.when)):
            assert sifter.decide(row).action != "drop"


@pytest.mark.skipif(not _native.available(), reason="no C compiler")
def test_events_that_are_dropped_in_any_case_have_no_texts(small_logs: Path) -> None:
    """Only those; the columns that summaries and rules need are the same."""
    many, plain = ColumnarRules(parse(MIXED, "mixed.toml")), ChunkBuilder()
    projecting = ChunkBuilder(project=many.drops_all)
    for path in sorted((small_logs / "AWSLogs").rglob("*.json.gz"))[:40]:
        for builder in (projecting, plain):
            builder.add(path.name, path.read_bytes())
    size, rows = projecting.size, projecting.rows
    chunk, whole = projecting.finish(), plain.finish()
    names = [*dict.fromkeys((*NEEDED, *LOOKED_AT, "weight", "log_object"))]
    assert chunk.columns(names).equals(whole.columns(names))
    assert chunk.ids.tolist() == whole.ids.tolist() and chunk.crc32.tolist() == whole.crc32.tolist()
    everything = np.arange(len(chunk))
    without = chunk.projected(everything)
    dropped = np.isin(many.decide(whole.columns(names), whole.ids).rule, (0, 1))
    assert 0.05 * rows < without.sum() < rows and not (without & ~dropped).any()
    # The others are slow-path records.
    assert without.sum() >= 0.99 * dropped.sum()
    assert size == rows - 3 * without.sum() // 4 and not whole.projected(everything).any()
    kept = np.flatnonzero(~without)
    assert chunk.columns(CHUNK_SCHEMA.names, kept).equals(whole.columns(CHUNK_SCHEMA.names, kept))


@pytest.mark.skipif(not _native.available(), reason="no C compiler")
def test_a_chunk_of_which_little_is_stored_stays_as_it_was_read(small_logs: Path) -> None:
    """The stored part is sorted by itself."""
    rules = parse('[[rule]]\nname = "data"\nwhen = {event_category = "Data"}\naction = "drop"\n', "f")
    projecting, plain = ChunkBuilder(project=ColumnarRules(rules).drops_all), ChunkBuilder()
    for path in sorted((small_logs / "AWSLogs").rglob("*.json.gz"))[:40]:
        for builder in (projecting, plain):
            builder.add(path.name, path.read_bytes())
    chunk, whole = projecting.finish(), plain.finish()
    assert chunk.as_read and not whole.as_read and sorted(chunk.times()) == sorted(whole.times())
    names = [*dict.fromkeys((*NEEDED, *LOOKED_AT, "weight", "log_object"))]
    by_id = [np.argsort(each.ids.view("S16")) for each in (chunk, whole)]
    every, other = (each.columns(names, rows) for each, rows in zip((chunk, whole), by_id, strict=True))
    assert every.equals(other) and every.equals(chunk.columns(names).take(pa.array(by_id[0])))
    kept = by_id[0][~chunk.projected(by_id[0])]
    same = by_id[1][~chunk.projected(by_id[0])]
    assert 0 < len(kept) < len(chunk) / 2
    assert chunk.columns(CHUNK_SCHEMA.names, kept).equals(whole.columns(CHUNK_SCHEMA.names, same))


LINE_KEYS = (
    *("account_id", "aws_region", "service", "event_name", "role_arn", "resource_arn", "error_code", "read_only"),
)

#: A bit of everything, for what the generator makes.
MIXED = """
timezone = "Asia/Seoul"
[[rule]]
name = "listing"
when = { event_name = ["ListObjects", "HeadObject", "Query"] }
action = "drop"
[[rule]]
name = "missing keys"
when = { error_code = "NoSuchKey" }
action = "drop"
[[rule]]
name = "deletes"
when = { event_name = "Delete*" }
action = "keep"
[[rule]]
name = "everything else"
when = { event_category = "Data" }
action = "sample"
rate = { "09-17" = 0.2, otherwise = 0.05 }
[fields]
omit = ["request_parameters", "rest"]
"""


class Made:
    """One sifted lake, its counts, its events by id, and the row-by-row decision on each event of the full lake."""

    def __init__(self, lake: Path, counts: Counts, whole: Path) -> None:
        self.lake, self.counts = lake, counts
        self.weights = {row[0]: row[1] for row in ask(lake, "SELECT event_id, weight FROM events")}
        rules = parse(MIXED, "mixed.toml")
        self.sifter = RowRules(rules)
        names = [*POOL, "event_id"]
        rows = ask(whole, f"SELECT {', '.join(names)}, epoch_us(event_time) AS event_time FROM events")
        self.rows = [dict(zip((*names, "event_time"), row, strict=True)) for row in rows]
        self.decided = {row["event_id"]: self.sifter.decide(row) for row in self.rows}


def ask(lake: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with DuckDBEngine(open_snapshot(lake)) as engine:
        return list(engine.sql(sql).rows())


@pytest.fixture(scope="module", params=["one chunk", "many chunks and commits"])
def made(request: pytest.FixtureRequest, small_logs: Path, small_lake: Path, tmp_path_factory: Any) -> Made:
    """The small logs, sifted: at once, and in small chunks by two workers in several commits."""
    workers, sizes = 1, SIZES
    if request.param != "one chunk":
        workers, sizes = 2, Sizes(chunk_rows=1500, batch_rows=6000, task_bytes=1 << 16)
    lake = tmp_path_factory.mktemp("sifted") / "lake"
    rules = parse(MIXED, "mixed.toml")
    counts = ingest([str(small_logs / "AWSLogs")], lake, workers=workers, rules=rules, sizes=sizes)
    return Made(lake, counts, small_lake)


@pytest.mark.parametrize("table", ["hourly", "usage", "profile", "access", "sessions"])
def test_summaries_are_those_of_the_whole(made: Made, small_lake: Path, table: str) -> None:
    """Row for row, whatever was dropped or sampled."""
    # One row per key, as readers see them.
    sql = f"SELECT * FROM {table}"
    if table == "hourly":
        sql = f"SELECT hour, {', '.join(LINE_KEYS)}, sum(events), sum(bytes_in), sum(bytes_out), min(first_time), "
        sql += "distinct_count(merge_sketches(list(source_ips))), distinct_count(merge_sketches(list(object_keys))) "
        sql += "FROM hourly GROUP BY ALL"
    assert Counter(map(str, ask(made.lake, sql))) == Counter(map(str, ask(small_lake, sql)))


def test_books_balance(made: Made) -> None:
    """records = stored + duplicates + dropped by rule + malformed, in the counts and in the lake."""
    counts, found = made.counts, status(made.lake)
    assert counts.stored == len(made.weights) == found.events.rows
    assert counts.records == counts.stored + counts.duplicates + sum(counts.dropped.values()) + counts.malformed
    assert found.reconciled and found.dropped == counts.dropped
    dropped = Counter(one.rule for name, one in made.decided.items() if name not in made.weights)
    assert counts.dropped == dropped and set(dropped) >= {"listing", "everything else"}
    assert found.rules[0]["file"] == "mixed.toml" and len(found.rules[0]["digest"]) == 64


def test_events_are_stored_as_decided(made: Made) -> None:
    """Kept and sampled events are stored with their weight; any other is its line's exemplar, with weight 1."""
    lines: dict[Any, list[str]] = {}
    for row in made.rows:
        if made.decided[row["event_id"]].action == "sample":
            lines.setdefault((row["event_time"] // HOUR, *(row[name] for name in LINE_KEYS)), []).append(
                row["event_id"]
            )
    many = status(made.lake).commits > 1
    firsts = 0
    for ids in lines.values():
        drawn = {name: made.decided[name].weight for name in ids}
        ones = [name for name in ids if made.weights.get(name) == 1]
        assert len(ones) == 1, "one event of each line, outside the lottery"
        smallest = min(ids, key=lambda name: siphash24(made.sifter.exemplar_key, *event_key(name)))
        firsts += ones == [smallest]
        for name in ids:
            if name not in ones:
                assert made.weights.get(name, 0.0) == drawn[name]
    # Of several commits, the first with the line decides.
    assert firsts == len(lines) or (many and firsts > len(lines) * 0.6)
    for name, decision in made.decided.items():
        if decision.action != "sample":
            assert made.weights.get(name, 0.0) == decision.weight


def test_failed_calls_stay(made: Made) -> None:
    """Unless a rule names their error."""
    for row in made.rows:
        if row["error_code"] and row["error_code"] != "NoSuchKey":
            assert made.weights[row["event_id"]] == 1


def test_again_gives_nothing_new(made: Made, small_logs: Path) -> None:
    """Dropped events are remembered: with other rules, or none, they are duplicates."""
    if status(made.lake).commits == 1:
        pytest.skip("the lake of several commits says it")
    counts = ingest([str(small_logs / "AWSLogs")], made.lake, workers=1, again=True)
    assert counts.stored == 0 and counts.duplicates == counts.records == 20_000
    assert status(made.lake).reconciled


def test_fields_left_out(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """They are null, and export says so."""
    assert omitted(made.lake) == ("request_parameters", "rest")
    assert ask(made.lake, "SELECT count(request_parameters), count(rest), count(access_key_id) > 0 FROM events") == [
        (0, 0, True)
    ]
    assert main(["export", "--lake", str(made.lake), "--where", "event_name = 'DeleteObject'"]) == 0
    output = capsys.readouterr()
    assert "not lossless" in output.err and "request_parameters" in output.err and output.out


def test_shipped_schedule_on_the_command_line(
    small_logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A preset by its name; with an invalid file nothing is stored."""
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(preset_text("time-of-day").replace("otherwise = 0.01", "otherwise = 7"))
    lake = tmp_path / "lake"
    logs = str(small_logs / "AWSLogs")
    assert main(["ingest", logs, "--lake", str(lake), "--rules", str(wrong), "-q"]) == 2
    assert "line" in capsys.readouterr().err and not lake.exists()
    assert main(["ingest", logs, "--lake", str(lake), "--rules", "time-of-day", "-q", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["dropped"]["by time of day"] + counts["stored"] == 20_000


def test_a_lake_may_hold_nothing_but_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rule that drops everything keeps the summaries, in a lake with any partitioning."""
    record = {"eventTime": "2026-03-02T10:00:00Z", "eventSource": "s3.amazonaws.com", "eventName": "GetObject"}
    records = [{**record, "eventVersion": "1.11", "eventID": f"id-{number}"} for number in range(3)]
    (tmp_path / "log.json").write_text(json.dumps({"Records": records}))
    everything = parse('[[rule]]\nname = "all"\naction = "drop"', "f")
    counts = ingest([str(tmp_path / "log.json")], tmp_path / "lake", rules=everything)
    assert counts.dropped == {"all": 3} and counts.stored == 0
    assert ask(tmp_path / "lake", "SELECT sum(events)::BIGINT FROM hourly") == [(3,)]
    assert main(["estimate", "--lake", str(tmp_path / "lake"), "--by", "event_id", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dropped_by_rules"] == {"all": 3}
    assert main(["estimate", "--lake", str(tmp_path / "lake"), "--by", "event_name"]) == 0
    assert "Exact" in capsys.readouterr().out


def test_another_engine_commits_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that holds the lock and finds the index stale continues: it must not wait for itself."""
    from pyiceberg.catalog.sql import SqlCatalog

    lake = tmp_path / "lake"
    rules = parse('[[rule]]\nname = "all"\naction = "sample"\nrate = 0.01', "f")
    record = {"eventTime": "2026-03-02T10:00:00Z", "eventSource": "s3.amazonaws.com", "eventName": "GetObject"}

    def log(name: str) -> str:
        records = [{**record, "eventVersion": "1.11", "eventID": f"{name}-{number}"} for number in range(50)]
        (tmp_path / name).write_text(json.dumps({"Records": records}))
        return str(tmp_path / name)

    assert ingest([log("a.json")], lake, rules=rules).stored >= 1
    settle = Exemplars.settle

    def after_another(firsts: Exemplars) -> Settled:
        other = SqlCatalog(
            "trailsift", uri=f"sqlite:///{lake / lake_settings.CATALOG_FILE}", warehouse=f"file://{lake}"
        )
        with other.load_table((lake_settings.NAMESPACE, "hourly")).transaction() as transaction:
            transaction.set_properties(seen="by another engine")
        return settle(firsts)

    monkeypatch.setattr(Exemplars, "settle", after_another)
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits for itself"))
    signal.alarm(30)
    try:
        counts = ingest([log("b.json")], lake, rules=rules)
    finally:
        signal.alarm(0)
    # The line exists since the first ingest: of the second, only sampled events are stored.
    assert counts.records == 50 and counts.stored < 50
    assert ask(lake, "SELECT sum(events)::BIGINT FROM hourly") == [(100,)]


@pytest.mark.parametrize("number", range(1, len(LINE) + 1))
def test_lines_of_many_different_values_are_told_apart(number: int) -> None:
    """Pairs of rows with the same line, and far more combinations of values than the table has room for."""
    size = 2_000
    hour = np.repeat(np.arange(size // 2), 2)
    column = pa.chunked_array([pa.array([f"value {row // 2}" for row in range(size)])])
    group, count = sift.group_rows([column] * number, hour)
    assert count < 1 << 22 and int(group.max()) < count
    assert (group[::2] == group[1::2]).all() and len(set(group.tolist())) == size // 2
    columns: dict[str, Any] = {name: column for name in LINE if name != "read_only"}
    columns["read_only"] = pa.array([row % 4 < 2 for row in range(size)])
    columns["event_time"] = pa.array(hour * HOUR, pa.timestamp("us", tz="UTC"))
    found = new_lines(pa.table(columns), np.arange(size, dtype=np.uint64)[::-1].copy())
    assert sorted(found.tolist()) == list(range(1, size, 2))
