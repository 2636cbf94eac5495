"""What a terminal shows: tables that fit, harmless text, shades that follow the median, plain progress."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from trailsift.analysis.caller_names import account_of, short_caller, told_apart
from trailsift.analysis.summary import Hour
from trailsift.analysis.time_range import Period
from trailsift.ingest import Progress, ingest
from trailsift.safe_text import safe
from trailsift.terminal import heatmap
from trailsift.terminal.console import cell, duration, grid, middle, short_resource, size
from trailsift.terminal.progress import CountProgress, IngestProgress, progress_line
from trailsift.times import HOUR


def printed(width: int, make: Callable[[Console], object], encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    out = Console(file=io.TextIOWrapper(raw, encoding), width=width, highlight=False, markup=False, color_system=None)
    out.print(make(out))
    out.file.flush()
    return raw.getvalue().decode(encoding)


COLUMNS = [("role", "id"), ("events", "number"), ("seen", "?faint"), ("first", "??faint")]
ROWS = [("role/" + "x" * 60, 1_234_567, "2026-03-02 10:00", "2026-03-01 10:00"), ("role/y", 0, None, None)]


@pytest.mark.parametrize(
    ("width", "headings"),
    [(120, "role events seen first"), (70, "role events seen"), (45, "role events"), (20, "role events")],
)
def test_a_table_leaves_out_what_does_not_fit(width: int, headings: str) -> None:
    text = printed(width, lambda out: grid(out, "", COLUMNS, ROWS))
    assert text.splitlines()[0].split() == headings.split()
    assert max(map(len, text.splitlines())) <= width
    assert "1,234,567" in text, "a number is never cut while an id can be"


def test_text_of_a_log_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2J\u202egnp.exe\x07\x9b"
    shown = safe(evil)
    assert shown.isprintable()
    assert "gnp.exe" in shown
    assert "\x1b" not in str(cell(evil, "text"))


def test_short_names() -> None:
    assert short_caller("arn:aws:iam::111111111111:role/team/etl") == "role/etl"
    assert short_caller("arn:aws:iam::111111111111:root") == "root"
    assert short_caller("lambda.amazonaws.com") == "lambda.amazonaws.com"
    assert short_caller(None) == short_caller("anonymous") == "(anonymous)"
    assert short_caller("none") == "(no identity)"
    assert short_caller("unknown") == "(unknown)"
    assert short_caller("account:444455556666/AIDAEXAMPLE") == "account 444455556666, AIDAEXAMPLE"
    assert short_caller("account:cloudfront") == "account cloudfront"
    assert short_caller("service:delivery.logs.amazonaws.com") == "delivery.logs.amazonaws.com"
    assert short_caller("identity-center:d-1234567890/94482488-3041") == "Identity Center user 94482488-3041"
    assert short_caller("federated:token.example.com/repo:org/x") == "federated token.example.com/repo:org/x"
    assert short_caller("user:alice") == "user alice"
    assert short_caller("access-key:AKIAEXAMPLE") == "access key AKIAEXAMPLE"
    assert short_caller("principal:AIDAEXAMPLE") == "principal AIDAEXAMPLE"
    assert short_resource("arn:aws:s3:::bucket") == "s3:bucket"
    assert short_resource("arn:aws:dynamodb:eu-west-1:111111111111:table/t") == "dynamodb:table/t"


def test_accounts_of_callers() -> None:
    assert account_of("arn:aws:iam::111111111111:role/etl") == "111111111111"
    assert account_of("account:444455556666/AIDAEXAMPLE") == "444455556666"
    for caller in (None, "anonymous", "none", "service:x.amazonaws.com", "federated:arn:a:b:c:d:e"):
        assert account_of(caller) is None


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (10**15, "1000.0 TB")])
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0012, "1.2 ms"), (0.25, "250 ms"), (12.34, "12.3 s"), (600, "10.0 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_hour_out_of_the_ordinary_stands_out() -> None:
    bounds = heatmap.limits([100] * 20 + [30, 900])
    assert [heatmap.level(count, bounds) for count in (0, 30, 100, 150, 900)] == [0, 1, 2, 3, 4]
    assert [heatmap.level(1, heatmap.limits([1]))] == [2]


def test_heat_by_day_in_the_zone_and_without_unicode() -> None:
    hours = [Hour(23 * HOUR, 5, 0), Hour(26 * HOUR, 7, 0)]
    text = printed(80, lambda out: "\n".join(map(str, heatmap.strip(out, hours, Period()))), "ascii")
    assert "Thu 01-01" in text and "Fri 01-02" in text
    assert text.isascii()
    many = [Hour(day * 24 * HOUR, 1, 0) for day in range(40)]
    text = printed(80, lambda out: "\n".join(map(str, heatmap.strip(out, many, Period()))))
    assert text.splitlines()[1].startswith("Mon ")
    assert "6 weeks added up by weekday, 1970-01-01 to 1970-02-09, UTC" in text
    assert max(map(len, text.splitlines())) <= 80


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trailsift.terminal.progress.EVERY", 0.0)
    now = Progress(10, 5, 100, 50, 1000, 900, 90, 0, 10, 0.5)
    assert progress_line(now) == "5 of 10 log objects, 1,000 records, 900 stored, 90 duplicates, 10 malformed, 2,000/s"
    with IngestProgress() as live:
        live.update(now)
    with CountProgress("events", 10) as bar:
        bar.update(4)
    with IngestProgress(quiet=True) as silent:
        silent.update(now)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"trailsift: {progress_line(now)}", "trailsift: 4 of 10 events"]


def test_progress_that_nobody_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A reader of standard error that has gone away does not stop an ingest, nor is the lake blamed for it."""
    monkeypatch.setattr("trailsift.terminal.progress.EVERY", 0.0)
    log = tmp_path / "log.json"
    log.write_text(
        '{"eventTime": "2026-03-02T10:00:00Z", "eventName": "GetObject", "eventID": "1", "eventVersion": "1"}'
    )
    end, start = os.pipe()
    os.close(end)
    with os.fdopen(start, "w", buffering=1) as gone, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", gone)
        with pytest.raises(BrokenPipeError):
            print("nobody", file=gone, flush=True)
        with IngestProgress() as live, CountProgress("events", 10) as bar:
            bar.update(4)
            assert ingest([str(log)], tmp_path / "lake", progress=live.update).stored == 1
        patch.undo()
        with suppress(BrokenPipeError):
            gone.close()


def test_equal_names_are_told_apart_by_their_accounts() -> None:
    roots = [f"arn:aws:iam::{account}:root" for account in ("111111111111", "222222222222")]
    role = "arn:aws:iam::111111111111:role/app"
    assert told_apart([*roots, role, None]) == {
        roots[0]: "root (111111111111)",
        roots[1]: "root (222222222222)",
        role: "role/app",
        None: "(anonymous)",
    }
    assert told_apart([*roots[:1], role]) == {roots[0]: "root", role: "role/app"}
    signed_in = [
        f"arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/{region}/Admin" for region in ("a", "b")
    ]
    assert list(told_apart(signed_in).values()) == ["role/Admin (111122223333, a)", "role/Admin (111122223333, b)"]


def test_a_long_text_keeps_both_ends() -> None:
    assert [middle("abcdefghij", width) for width in (10, 9, 4)] == ["abcdefghij", "abcd…ghij", "ab…j"]


def test_the_scale_of_the_heat_map_is_in_its_characters() -> None:
    """Copied text has no colours."""
    hours = [Hour(hour * HOUR, events, 0) for hour, events in enumerate([1, *[100] * 10, 150, 900])]
    text = printed(80, lambda out: "\n".join(map(str, heatmap.strip(out, hours, Period()))))
    assert "░░" + "▒▒" * 10 + "▓▓██" in text
