"""The page in a real browser: every view opened, the main paths clicked through, hostile values shown harmlessly.

`make test-browser` sets up what this needs: Playwright, what npm brings, and Chromium, which has to be there.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn")

import trailsift
from support import hostile
from support.dashboards import Dashboard, running
from support.paths import ROOT
from trailsift.serve.assets import STATIC, VENDOR
from trailsift.serve.options import ServeOptions

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: `make test-browser`")

AXE = ROOT / "build" / "assets" / "node_modules" / "axe-core" / "axe.min.js"
SHOTS = ROOT / "build" / "screenshots"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><b>bold</b>\u202egnp.exe\u2066\u200b=1+1"
VIEWS = {
    "overview": "/",
    "findings": "/findings",
    "finding": "/findings?id=1",
    "callers": "/caller",
    "caller": "/caller?name=orders-etl-batch",
    "resources": "/resource",
    "resource": "/resource?name=kelp-orders-lake",
    "cost": "/cost",
    "pipeline": "/pipeline",
    "sql": "/sql?sql=SELECT+*+FROM+events+LIMIT+50",
    "explain": "/explain?since=2026-03-03T02:00:00Z&until=2026-03-03T05:00:00Z",
}

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"),
    pytest.mark.skipif(
        not all((STATIC / "vendor" / name).is_file() for name in VENDOR), reason="no assets: run `make assets`"
    ),
]


class Page:
    """A page in the browser, and what went wrong on it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        page.on("console", lambda message: self._said(message))
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self._asked(request.url))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text}")

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.wrong.append(f"another host: {url}")

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is loading."""
        ready = (
            "!document.querySelector('[aria-busy], .loading') && "
            "(document.querySelector('main')?.childElementCount ?? 0) > 0"
        )
        end = time.monotonic() + 30
        quiet = 0
        while quiet < 3:
            assert time.monotonic() < end, f"{self.page.url} did not settle"
            quiet = quiet + 1 if self.page.evaluate(ready) else 0
            self.page.wait_for_timeout(40)

    def text(self) -> str:
        return str(self.page.inner_text("main"))


@pytest.fixture(scope="module")
def lake(small_lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated events, and some whose every value is markup, directions and formulas."""
    home = tmp_path_factory.mktemp("browser")
    shutil.copytree(small_lake, home / "lake")
    handle = trailsift.Lake(home / "lake")
    handle.relocate()
    records = [*hostile.records(MARKUP), *hostile.records(MARKUP + "x" * 10_000)]
    for number, record in enumerate(records):
        record |= {"eventTime": f"2026-03-04T10:{number % 60:02d}:00Z", "eventID": f"markup-{number}"}
    (home / "log.json").write_text(json.dumps({"Records": records}), "utf-8")
    assert handle.ingest(home / "log.json", workers=1).stored > 0
    return home / "lake"


@pytest.fixture(scope="module")
def dashboard(lake: Path) -> Iterator[Dashboard]:
    with running(ServeOptions(lake=lake)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, dashboard: Dashboard, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of 1440 pixels, or of what the test asks for, on which nothing may go wrong."""
    options = {"viewport": {"width": 1440, "height": 900}, "locale": "en-US", **getattr(request, "param", {})}
    context = browser.new_context(**options)
    found = Page(context.new_page(), dashboard.url)
    yield found
    context.close()
    assert found.wrong == []


@pytest.mark.parametrize("page", [
    {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"},
    {"viewport": {"width": 1024, "height": 800}, "color_scheme": "dark", "locale": "ko-KR"},
    {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
], indirect=True, ids=["1440", "1024-dark-korean", "390"])  # fmt: skip
def test_every_view(page: Page) -> None:
    """Nothing fails, nothing is wider than the screen, and a picture is kept."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    width = page.page.viewport_size["width"]
    for name, path in VIEWS.items():
        page.open(path)
        assert page.page.locator(".failed").count() == 0, page.text()
        assert page.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        assert "undefined" not in page.text() and "NaN" not in page.text() and "[object" not in page.text(), name
        page.page.screenshot(path=SHOTS / f"{name}-{width}.png", full_page=True)


def test_no_text_is_missing(page: Page) -> None:
    """A name that the catalogue lacks would stand there as it is."""
    for path in VIEWS.values():
        for lang in ("en", "ko"):
            page.open(f"{path}{'&' if '?' in path else '?'}lang={lang}")
            assert page.page.evaluate("document.documentElement.lang") == lang
            shown = page.page.locator("h1, h2, dt, th, label, button, nav a, .kind, .severity, .empty")
            known = set(page.page.locator("table.rows th, .columns button").all_inner_texts())
            names = r"[a-z_]+(\.[a-z_-]+)+|[a-z]+_[a-z_]+"
            assert not [one for one in shown.all_inner_texts() if re.fullmatch(names, one) and one not in known], path


def test_brush_and_explain(page: Page) -> None:
    page.open("/")
    box = page.page.locator(".chart .u-over").bounding_box()
    page.page.mouse.move(box["x"] + box["width"] * 0.30, box["y"] + 80)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + 90, steps=5)
    page.page.mouse.up()
    page.page.locator(".brush a.primary").click()
    page.settle()
    assert "/explain?" in page.page.url and "since=" in page.page.url
    assert page.page.locator(".difference").count() > 0
    # From a value to its view.
    page.page.locator(".difference .what a").first.click()
    page.settle()
    assert "/explain?" not in page.page.url or "event=" in page.page.url
    page.page.go_back()
    page.settle()
    assert page.page.locator(".difference").count() > 0


def test_brush_by_keyboard_and_zoom(page: Page) -> None:
    page.open("/")
    before = page.page.locator(".stat dd").first.inner_text()
    page.page.locator(".chart").focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight"):
        page.page.keyboard.press(key)
    assert page.page.locator(".chart + .legend + p[role=status]").inner_text().strip()
    page.page.get_by_role("link", name="Zoom in").click()
    page.settle()
    assert "since=" in page.page.url and page.page.locator(".stat dd").first.inner_text() != before
    page.page.get_by_role("button", name="As a table").click()
    assert page.page.locator("main table").count() == 1


def test_filter_and_drill_down(page: Page) -> None:
    page.open("/")
    page.page.locator(".panel", has_text="Top events").locator("a.name").first.click()
    page.settle()
    assert page.page.locator(".chips li").count() == 1 and "event=" in page.page.url
    assert "Remove the filter" in page.text()
    page.page.locator(".panel", has_text="Top callers").locator("a.name").first.click()
    page.settle()
    assert "/caller?" in page.page.url and "event=" in page.page.url
    page.page.locator(".stat dd a").first.click()
    page.settle()
    assert "/sql?" in page.page.url and page.page.locator("table.rows tbody tr").count() > 0
    page.open("/?event=GetObject&caller=nosuch")
    assert "No events match" in page.text()
    page.page.locator(".chips a").first.click()
    page.settle()
    assert page.page.locator(".chips li").count() == 1


def test_language_colours_and_zone_stay(page: Page) -> None:
    page.open("/")
    page.page.get_by_role("link", name="한국어").click()
    page.settle()
    assert page.page.locator("nav a").first.inner_text() == "개요"
    page.page.get_by_label("시간대").select_option("Asia/Seoul")
    page.settle()
    page.page.locator(".theme").click()
    assert page.page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.page.locator("nav a").nth(1).click()
    page.settle()
    assert "lang=ko" in page.page.url and "timezone=Asia%2FSeoul" in page.page.url
    page.page.reload()
    page.settle()
    assert page.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.page.locator("h1").inner_text() == "탐지 결과"


def test_mute(page: Page) -> None:
    page.open("/findings")
    titles = page.page.locator(".finding .what > a").all_inner_texts()
    page.page.locator(".finding .what > a").last.click()
    page.settle()
    page.page.get_by_role("button", name="Mute").click()
    page.page.locator("dialog button.primary").click()
    assert "Say why" in page.page.locator("dialog").inner_text()
    page.page.locator("dialog textarea").fill("a test <b>of it</b>")
    page.page.locator("dialog button.primary").click()
    page.page.wait_for_selector("dialog", state="detached")
    page.settle()
    assert len(page.page.locator(".finding .what > a").all_inner_texts()) == len(titles) - 1


def test_sql(page: Page) -> None:
    page.open("/sql")
    page.page.locator("#sql").fill("SELECT evnt_name FROM events")
    page.page.locator("#run").click()
    page.page.wait_for_selector(".failed")
    assert "event_name" in page.text()
    # The browser itself reports the refused request.
    page.wrong.clear()
    page.page.locator("#sql").fill("SELECT event_name, '=1+1' AS f FROM events ORDER BY event_id LIMIT 3")
    page.page.keyboard.press("Control+Enter")
    page.page.wait_for_selector("table.rows tbody tr")
    assert page.page.locator("table.rows tbody tr").count() == 3 and "sql=" in page.page.url
    with page.page.expect_download() as waiting:
        page.page.get_by_role("link", name="CSV").click()
    assert Path(waiting.value.path()).read_text().splitlines()[0] == "event_name,f"


def test_hostile_values(page: Page) -> None:
    """Markup is text, directions are escaped, and a long value is cut."""
    page.open("/sql?sql=" + "SELECT+*+FROM+events+WHERE+event_id+LIKE+'markup%25'+LIMIT+40")
    assert "<script>alert(1)</script>" in page.text()
    paths = ["/", "/findings", "/caller", "/resource", "/cost", "/pipeline",
             "/explain?since=2026-03-04T09:00:00Z&until=2026-03-04T12:00:00Z"]  # fmt: skip
    for path in paths:
        page.open(path)
        shown = page.page.evaluate("document.getElementById('app').textContent")
        assert "\u202e" not in shown and "\u2066" not in shown and "\u200b" not in shown
        assert page.page.locator("main script, main b > b, main img, main svg image").count() == 0
    # A caller of that name has a view of its own.
    page.open("/caller")
    page.page.locator("tbody a", has_text="<script>").first.click()
    page.settle()
    assert page.page.locator(".failed").count() == 0 and "<script>" in page.page.locator("h1").inner_text()


def test_commits_appear(page: Page, lake: Path, tmp_path: Path) -> None:
    page.open("/")
    page.page.wait_for_selector(".connection[data-state=open]")
    page.page.wait_for_selector(".tail li time")
    records = [
        {**record, "eventID": f"live-{number}", "eventName": "GetLiveThing"}
        for number, record in enumerate(hostile.records("plain"))
    ]
    (tmp_path / "log.json").write_text(json.dumps({"Records": records}), "utf-8")
    before = page.page.locator(".tail").get_attribute("data-commit")
    trailsift.Lake(lake).ingest(tmp_path / "log.json", workers=1)
    begun = time.monotonic()
    while page.page.locator(".tail").get_attribute("data-commit") == before:
        assert time.monotonic() - begun < 5
        page.page.wait_for_timeout(20)
    assert "GetLiveThing" in page.page.locator(".tail").inner_text()


def test_it_reconnects(browser: Any, lake: Path) -> None:
    context = browser.new_context()
    with running(ServeOptions(lake=lake)) as dashboard:
        found = Page(context.new_page(), dashboard.url)
        found.open("/")
        found.page.wait_for_selector(".connection[data-state=open]")
    found.page.wait_for_selector(".connection[data-state=lost]", timeout=10_000)
    assert "connection lost" in found.text()
    context.close()


def test_the_token(browser: Any, lake: Path) -> None:
    token = "a token of the tests"
    with running(ServeOptions(lake=lake, token=token)) as dashboard:
        context = browser.new_context()
        page = Page(context.new_page(), dashboard.url)
        page.page.goto(f"{dashboard.url}/findings")
        page.page.wait_for_selector("dialog.token")
        page.page.locator("dialog input").fill("wrong")
        page.page.locator("dialog button.primary").click()
        page.page.wait_for_selector("dialog .problem:not(:empty)")
        assert "not the token" in page.page.locator("dialog").inner_text()
        page.page.locator("dialog input").fill(token)
        page.page.locator("dialog button.primary").click()
        page.page.wait_for_selector("dialog", state="detached")
        page.settle()
        assert page.page.locator(".finding").count() > 0 and "token" not in page.page.url
        assert page.page.evaluate("document.cookie") == ""
        other = browser.new_context()
        linked = Page(other.new_page(), dashboard.url)
        linked.open(f"/#token={token.replace(' ', '%20')}")
        assert "#" not in linked.page.url and linked.page.locator(".stat dd").count() > 3
        other.close()
        context.close()


@pytest.mark.parametrize(
    "page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True, ids=["light", "dark"]
)
def test_nobody_is_left_out(page: Page) -> None:
    """axe-core finds nothing serious on any view."""
    if not AXE.is_file():
        pytest.skip("no axe-core: `make test-browser`")
    for name, path in VIEWS.items():
        page.open(path)
        page.page.evaluate(AXE.read_text("utf-8"))
        found = page.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        serious = [
            (one["id"], [node["html"][:120] for node in one["nodes"][:3]])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert not serious, name
