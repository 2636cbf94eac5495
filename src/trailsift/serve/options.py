"""How a server was asked to run."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from trailsift.errors import UsageError
from trailsift.query.limits import size_of

LANGUAGES = ("en", "ko")
#: The least characters of a token that a user chooses: it stands between a network and the logs.
LEAST_TOKEN = 16
#: Where Firehose delivers: behind a key of its own, and nothing else than that.
FIREHOSE = "/firehose"
#: The most characters of an access key: Firehose takes no longer one.
MOST_KEY = 4096


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options of a server.

    ``token``: what a reader must know; None only on a loopback address. ``allowed_hosts``: names, beside the address
    itself, that a request's Host header may have. ``timeout``: seconds for which one answer may take; ``max_rows`` of
    one answer; ``memory_limit`` of queries. ``redact``: mask access keys, addresses and object keys.
    ``watch``: places that are watched meanwhile; ``firehose_keys``: access keys of streams, one of which a request to
    the Firehose endpoint has to have (none: there is no endpoint); ``rules``: what of all that is stored; ``every``:
    seconds for which arrivals are gathered for one commit. ``page``: answer with the page, too, not only with data.
    """

    lake: str | Path
    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    timezone: str = "UTC"
    timeout: float = 30.0
    max_rows: int = 10_000
    memory_limit: str = "1GB"
    redact: bool = False
    watch: tuple[str, ...] = ()
    firehose_keys: tuple[str, ...] = ()
    rules: str | None = None
    every: float = 1.0
    page: bool = True

    @property
    def is_secure(self) -> bool:
        """True if the server speaks TLS."""
        return self.tls_cert is not None

    @property
    def url(self) -> str:
        """The address of the page, without a token."""
        host = "localhost" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.is_secure else 'http'}://{shown}:{self.port}/"


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check(options: ServeOptions) -> None:
    """Raise UsageError if a server must not, or cannot, run so."""
    if not is_loopback(options.host) and options.token is None:
        raise UsageError(
            f"{options.host} can be reached by others: name a token with TRAILSIFT_SERVE_TOKEN, or serve 127.0.0.1"
        )
    if options.token is not None and len(options.token) < LEAST_TOKEN:
        raise UsageError(f"the token has {len(options.token)} characters: use {LEAST_TOKEN} or more")
    _check_keys(options)
    size_of(options.memory_limit, "memory")
    if not 0 <= options.every <= 60:
        raise UsageError(f"--every {options.every:g}: use 0 to 60 seconds")
    if (options.tls_cert is None) != (options.tls_key is None):
        raise UsageError("TLS needs both --tls-cert and --tls-key")
    for path in (options.tls_cert, options.tls_key):
        if path is not None and not path.is_file():
            raise UsageError(f"there is no file {path}")
    if not 0 < options.port < 65536:
        raise UsageError(f"--port {options.port}: use 1 to 65535")
    if not 1 <= options.max_rows <= 1_000_000:
        raise UsageError(f"--max-rows {options.max_rows}: use 1 to 1,000,000")


def _check_keys(options: ServeOptions) -> None:
    for key in options.firehose_keys:
        if not LEAST_TOKEN <= len(key) <= MOST_KEY or not key.isascii() or not key.isprintable():
            raise UsageError(
                f"an access key of Firehose has {len(key):,} characters: use {LEAST_TOKEN} to {MOST_KEY:,} of ASCII"
            )
        if key == options.token:
            raise UsageError("the access key of Firehose is the dashboard's token: use two different secrets")
