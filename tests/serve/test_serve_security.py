"""Who may read, who may change, and what a browser is forbidden."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from support.dashboards import Dashboard, running  # noqa: E402
from trailsift.errors import UsageError  # noqa: E402
from trailsift.serve import assets, server  # noqa: E402
from trailsift.serve.options import ServeOptions, check, is_loopback  # noqa: E402
from trailsift.serve.security import COOKIE, CSRF_HEADER, Guard  # noqa: E402

TOKEN = "correct horse battery staple"


@pytest.fixture(scope="module")
def open_one(small_lake: Path) -> Iterator[Dashboard]:
    with running(ServeOptions(lake=small_lake)) as found:
        yield found


@pytest.fixture(scope="module")
def closed_one(small_lake: Path) -> Iterator[Dashboard]:
    with running(ServeOptions(lake=small_lake, token=TOKEN)) as found:
        yield found


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.0.2.1", "", "[::2]"]
)
def test_another_name_is_refused(open_one: Dashboard, host: str) -> None:
    """A site that points its own name here reads nothing."""
    for path in ("/", "/api/v1/status", "/static/app.js", "/metrics"):
        answer = httpx.get(open_one.url + path, headers={"host": host})
        assert answer.status_code in (400, 421)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "[::1]:99", "127.9.9.9"])
def test_own_names(open_one: Dashboard, host: str) -> None:
    assert httpx.get(open_one.url + "/healthz", headers={"host": host}).status_code == 200


def test_names_of_a_proxy() -> None:
    guard = Guard(ServeOptions(lake="x", host="0.0.0.0", token=TOKEN, allowed_hosts=("Logs.example",)))
    assert guard.is_own_host("logs.example:443") and guard.is_own_host("192.0.2.7:80")
    assert not guard.is_own_host("other.example") and not guard.is_own_host("localhost")


@pytest.mark.parametrize(
    "path", ["/api/v1/status", "/api/v1/live", "/metrics", "/openapi.json", "/api/v1/query?sql=SELECT+1"]
)
def test_data_needs_the_token(closed_one: Dashboard, path: str) -> None:
    answer = httpx.get(closed_one.url + path)
    assert answer.status_code == 401 and answer.json()["error"]["code"] == "token_needed"
    sign = "&" if "?" in path else "?"
    assert httpx.get(f"{closed_one.url}{path}{sign}token={TOKEN}").status_code == 401
    assert httpx.get(closed_one.url + path, headers={"authorization": "Bearer wrong"}).status_code == 401
    assert httpx.get(closed_one.url + path, headers={"cookie": f"{COOKIE}={TOKEN}"}).status_code == 401
    if path != "/api/v1/live":
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert httpx.get(closed_one.url + path, headers=headers, timeout=30).status_code == 200


def test_the_page_itself_is_open(closed_one: Dashboard) -> None:
    """It holds nothing of the lake, and asks for the token."""
    for path in ("/", "/findings", "/static/app.js", "/healthz", "/api/v1/texts"):
        assert httpx.get(closed_one.url + path).status_code == 200
    assert httpx.get(closed_one.url + "/api/v1/session").json() == {
        "version": "0.1.0",
        "known": False,
        "languages": ["en", "ko"],
    }


def test_the_cookie(closed_one: Dashboard) -> None:
    with httpx.Client(base_url=closed_one.url, timeout=30) as client:
        assert client.post("/api/v1/session", json={"token": "wrong"}).status_code == 401
        for wrong in (b"[]", b"{", b"null", b'{"token": 1}'):
            assert client.post("/api/v1/session", content=wrong).status_code == 401
        answer = client.post("/api/v1/session", json={"token": TOKEN})
        assert answer.status_code == 200
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie and "Secure" not in cookie
        assert client.get("/api/v1/status").status_code == 200
        assert client.get("/api/v1/session").json()["known"] is True
    with httpx.Client(base_url=closed_one.url) as other:
        assert other.get("/api/v1/status", headers={"cookie": f"{COOKIE}=0"}).status_code == 401


def test_the_cookie_is_secure_over_tls(tmp_path: Path) -> None:
    options = ServeOptions(lake="x", token=TOKEN, tls_cert=tmp_path / "c", tls_key=tmp_path / "k")
    assert Guard(options).cookie().endswith("; Secure")
    # The same after a restart, another for another token.
    assert Guard(options).cookie() == Guard(options).cookie()
    assert (
        Guard(ServeOptions(lake="x", token=TOKEN + "2")).cookie().split(";")[0] != Guard(options).cookie().split(";")[0]
    )


def test_without_the_page(small_lake: Path) -> None:
    with running(ServeOptions(lake=small_lake, page=False)) as dashboard:
        assert httpx.get(dashboard.url + "/").status_code == 404
        assert httpx.get(dashboard.url + "/api/v1/status", timeout=60).status_code == 200


def test_other_sites_ask_for_nothing(open_one: Dashboard, closed_one: Dashboard) -> None:
    """A picture of another site's page may have any address, such as that of an expensive statement."""
    for site in ("cross-site", "same-site"):
        headers = {"sec-fetch-site": site}
        for path in ("/api/v1/query?sql=SELECT+1", "/api/v1/session", "/metrics", "/openapi.json", "/api/v1/live"):
            assert httpx.get(open_one.url + path, headers=headers).status_code == 403, path
        # A link to the page may come from anywhere.
        assert httpx.get(open_one.url + "/findings", headers=headers).status_code == 200
        with_token = {**headers, "authorization": f"Bearer {TOKEN}"}
        assert httpx.get(closed_one.url + "/openapi.json", headers=with_token).status_code == 200
    for site in ("same-origin", "none"):
        assert httpx.get(open_one.url + "/openapi.json", headers={"sec-fetch-site": site}).status_code == 200


def test_changes_come_from_the_page(open_one: Dashboard, closed_one: Dashboard) -> None:
    url = open_one.url + "/api/v1/finding/mute"
    # Without a reason: who may change is told what is missing, and the findings need not be looked for.
    body = {"id": "nosuch"}
    csrf = httpx.get(open_one.url + "/api/v1/session").json()["csrf"]
    origin = open_one.url
    refused = [
        {},
        {CSRF_HEADER: "wrong"},
        {CSRF_HEADER: csrf, "origin": "https://evil.example"},
        {CSRF_HEADER: csrf, "sec-fetch-site": "cross-site"},
        {CSRF_HEADER: csrf, "origin": "null"},
    ]
    for headers in refused:
        assert httpx.post(url, json=body, headers=headers).status_code == 403, headers
    for headers in ({CSRF_HEADER: csrf}, {CSRF_HEADER: csrf, "origin": origin, "sec-fetch-site": "same-origin"}):
        assert httpx.post(url, json=body, headers=headers, timeout=60).status_code == 400, headers
    assert httpx.get(url, params=body).status_code == 405
    # A program that knows the token needs no header.
    headers = {"authorization": f"Bearer {TOKEN}"}
    url = closed_one.url + "/api/v1/finding/mute"
    assert httpx.post(url, json=body, headers=headers, timeout=60).status_code == 400


@pytest.mark.parametrize(
    "path", ["/", "/static/app.js", "/api/v1/status", "/nothing.txt", "/api/v1/query?sql=x", "/metrics"]
)
def test_headers(open_one: Dashboard, path: str) -> None:
    headers = httpx.get(open_one.url + path, timeout=30).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY" and "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path", ["/static/../options.py", "/static/%2e%2e/options.py", "/static//etc/passwd", "/static/x", "/../x.py"]
)
def test_no_other_file(open_one: Dashboard, path: str) -> None:
    assert httpx.get(open_one.url + path).status_code in (404, 200)
    assert b"import" not in httpx.get(open_one.url + path).content or path.endswith("index.html")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"host": "0.0.0.0"}, "token"),
        ({"host": "192.0.2.1"}, "token"),
        ({"token": "short"}, "16 or more"),
        ({"tls_cert": Path("/nosuch")}, "--tls-key"),
        ({"tls_cert": Path("/nosuch"), "tls_key": Path("/nosuch")}, "/nosuch"),
        ({"port": 70_000}, "65535"),
        ({"max_rows": 0}, "max-rows"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        check(ServeOptions(lake="x", **options))  # type: ignore[arg-type]


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.1", "example.org")))


def test_a_page_without_its_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="make assets"):
        assets.check_assets(tmp_path)


def test_a_port_in_use(open_one: Dashboard, small_lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "check_assets", lambda: None)
    port = int(open_one.url.rpartition(":")[2])
    with pytest.raises(UsageError, match=f"--port {port + 1}"):
        server.serve(ServeOptions(lake=small_lake, port=port))


def test_tls(small_lake: Path, tmp_path: Path) -> None:
    """A certificate and its key are all that https takes."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("no openssl here")
    import socket
    import threading
    import time

    import uvicorn

    from trailsift.serve.app import Server

    options = ServeOptions(lake=small_lake, token=TOKEN, tls_cert=cert, tls_key=key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        run = uvicorn.Server(
            uvicorn.Config(Server(options).application(), log_config=None, ssl_certfile=cert, ssl_keyfile=key)
        )
        thread = threading.Thread(target=run.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not run.started and thread.is_alive():
            time.sleep(0.01)
        context = ssl.create_default_context(cafile=str(cert))
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        answer = httpx.post(f"{url}/api/v1/session", json={"token": TOKEN}, verify=context)
        assert answer.status_code == 200 and "Secure" in answer.headers["set-cookie"]
        run.should_exit = True
        thread.join(10)
