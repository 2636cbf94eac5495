"""The command that serves the dashboard: serve."""

from __future__ import annotations

import os
import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from trailsift.cli.options import LakeOption, ZoneOption
from trailsift.errors import UsageError
from trailsift.terminal.output import say

#: Where the token is read from: a command line can be seen by every user of a machine.
TOKEN = "TRAILSIFT_SERVE_TOKEN"  # noqa: S105
#: Where the access keys of Firehose are read from.
KEYS = "TRAILSIFT_FIREHOSE_KEY"


def serve_command(
    *,
    lake: LakeOption,
    host: Annotated[str, Parameter(help="Address to listen on. Others than this machine's own need a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, Parameter(help="Port to listen on.")] = 8080,
    open_: Annotated[bool, Parameter(name="--open", show_default=False, help="Open the page in a browser.")] = False,
    page: Annotated[
        bool, Parameter(negative="--no-page", show_default=False, help="Serve the page; without it, only the API.")
    ] = True,
    allow_host: Annotated[
        list[str] | None,
        Parameter(help="Another name by which the server may be asked for, as of a proxy. Repeatable."),
    ] = None,
    tls_cert: Annotated[Path | None, Parameter(help="Certificate chain (PEM), to serve https.")] = None,
    tls_key: Annotated[Path | None, Parameter(help="Its private key (PEM).")] = None,
    watch: Annotated[
        list[str] | None,
        Parameter(help="A folder, `s3://bucket/prefix` or SQS queue to store logs from meanwhile. Repeatable."),
    ] = None,
    firehose: Annotated[
        bool,
        Parameter(show_default=False, help="Take what Firehose streams deliver to /firehose."),
    ] = False,
    rules: Annotated[
        str | None, Parameter(help="With --watch, --firehose: rules file or preset that says what to keep.")
    ] = None,
    every: Annotated[
        float, Parameter(help="With --watch, --firehose: seconds for which arrivals are gathered for one commit.")
    ] = 1.0,
    timezone: ZoneOption = "UTC",
    timeout: Annotated[float, Parameter(help="Seconds for which an answer may take.")] = 30.0,
    max_rows: Annotated[int, Parameter(help="Rows of one answer at most.")] = 10_000,
    memory_limit: Annotated[str, Parameter(help="Memory that queries may use.")] = "1GB",
    redact: Annotated[
        bool, Parameter(show_default=False, help="Mask access keys, addresses and object keys in all that is served.")
    ] = False,
) -> None:
    """Serve a dashboard and an HTTP API of a lake, until stopped with Ctrl-C. Takes the extra `serve`.

    Only this machine reaches it, unless `--host` says otherwise. Then a token is needed: that of the environment
    variable TRAILSIFT_SERVE_TOKEN, else a new one, which is printed.

    Examples: `trailsift serve --lake lake --open`, `trailsift serve --lake s3://bucket/lake --host 0.0.0.0`
    """
    run_server(
        lake=str(lake),
        host=host,
        port=port,
        open_page=open_,
        page=page,
        allowed_hosts=tuple(allow_host or ()),
        tls_cert=tls_cert,
        tls_key=tls_key,
        timezone=timezone,
        timeout=timeout,
        max_rows=max_rows,
        memory_limit=memory_limit,
        redact=redact,
        watch=tuple(watch or ()),
        firehose_keys=_keys() if firehose else (),
        rules=rules,
        every=every,
    )


def _keys() -> tuple[str, ...]:
    """Return the access keys of Firehose. Raise UsageError if there is none: one that is drawn here would not last."""
    keys = tuple(os.environ.get(KEYS, "").split())
    if not keys:
        raise UsageError(
            f"--firehose needs the access key of the stream in the environment variable {KEYS}; while it is changed, "
            "two with a space between them"
        )
    return keys


def check_server(*, page: bool = True) -> None:
    """Raise UsageError if the extra `serve`, or what the page needs, is missing."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise UsageError(f"serve needs {' and '.join(missing)}: pip install 'trailsift[serve]'")
    if page:
        from trailsift.serve.assets import check_assets

        check_assets()


def run_server(
    *,
    lake: str,
    host: str = "127.0.0.1",
    port: int = 8080,
    open_page: bool = False,
    page: bool = True,
    allowed_hosts: tuple[str, ...] = (),
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    timezone: str = "UTC",
    timeout: float = 30.0,
    max_rows: int = 10_000,
    memory_limit: str = "1GB",
    redact: bool = False,
    watch: tuple[str, ...] = (),
    firehose_keys: tuple[str, ...] = (),
    rules: str | None = None,
    every: float = 1.0,
) -> None:
    """Serve a lake until interrupted. Raise UsageError if the extra `serve`, or what the page needs, is missing."""
    check_server(page=page)
    from trailsift.serve.options import ServeOptions, is_loopback
    from trailsift.serve.server import serve

    token, given = os.environ.get(TOKEN) or None, True
    if token is None and not is_loopback(host):
        token, given = secrets.token_urlsafe(24), False
    options = ServeOptions(
        lake=lake,
        host=host,
        port=port,
        token=token,
        allowed_hosts=allowed_hosts,
        tls_cert=tls_cert,
        tls_key=tls_key,
        timezone=timezone,
        timeout=timeout,
        max_rows=max_rows,
        memory_limit=memory_limit,
        redact=redact,
        watch=watch,
        firehose_keys=firehose_keys,
        rules=rules,
        every=every,
        page=page,
    )

    def ready() -> None:
        say(f"serving {lake} at {options.url}")
        if not given:
            # Behind the number sign, which browsers keep for themselves.
            say(f"open {options.url}#token={token}, or send the token as a bearer token")
        if not is_loopback(host) and not options.is_secure:
            say("without TLS, everybody on the way can read the token: see --tls-cert, or put a proxy before it")
        for place in watch:
            say(f"watching {place}")
        if firehose_keys:
            say(f"Firehose delivers to {options.url}firehose")
        say("stop it with Ctrl-C")
        if open_page:
            import webbrowser

            webbrowser.open(options.url)

    serve(options, ready)
