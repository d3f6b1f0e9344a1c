"""One Redis address, two spellings: redis-py and kombu disagree about sockets, databases and TLS.

| what           | redis-py                | kombu                                        |
|----------------|-------------------------|----------------------------------------------|
| a Unix socket  | `unix:///path?db=1`     | `redis+socket:///path?virtual_host=1`        |
| a database     | `/1` or `?db=1`         | `/1`; `?db=1` is a TypeError                 |
| TLS, no option | certificates checked    | not checked, so we always say what we want   |
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

SCHEMES = ("redis", "rediss", "unix", "redis+socket")
TLS_OPTIONS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")


def client_url(url: str) -> str:
    """The address as redis-py takes it. Raises ValueError, without the password in it, for what we do not accept."""
    address = _parse(url)
    if address.socket:
        return f"unix://{address.place}?db={address.database}"
    return f"{address.scheme}://{address.place}/{address.database}{address.query}"


def celery_broker_url(url: str) -> str:
    """The address as kombu takes it. Raises ValueError as `client_url` does."""
    address = _parse(url)
    if address.socket:
        return f"redis+socket://{address.place}?virtual_host={address.database}"
    return f"{address.scheme}://{address.place}/{address.database}{address.query}"


@dataclass(frozen=True)
class _Address:
    """`place` is what follows `//`: user and password, then host and port or a socket's path, still percent-encoded."""

    scheme: str
    place: str
    database: int
    tls: tuple[tuple[str, str], ...] = ()

    @property
    def socket(self) -> bool:
        return self.scheme == "unix"

    @property
    def query(self) -> str:
        return f"?{urlencode(self.tls)}" if self.tls else ""


def _parse(url: str) -> _Address:
    try:
        parts = urlsplit(url)
    except ValueError:
        # Its own text would quote the password.
        raise ValueError("is not a URL") from None
    if "://" not in url or parts.scheme not in SCHEMES:
        raise ValueError("must start with redis://, rediss://, unix:// or redis+socket://")
    if parts.fragment or ";" in url:
        raise ValueError("has a bare # or ; in it; percent-encode it (%23, %3B)")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    database = options.pop("virtual_host", options.pop("db", ""))
    if parts.scheme in ("unix", "redis+socket"):
        return _socket_address(parts, database, options)
    return _tcp_address(parts, database, options)


def _socket_address(parts: SplitResult, database: str, options: dict[str, str]) -> _Address:
    if parts.hostname or len(parts.path) < 2:
        raise ValueError("must name a socket by its whole path, with three slashes")
    _refuse(options)
    return _Address("unix", f"{parts.netloc}{quote(unquote(parts.path))}", _database(database))


def _tcp_address(parts: SplitResult, database: str, options: dict[str, str]) -> _Address:
    if not parts.hostname:
        raise ValueError("names no host")
    try:
        _ = parts.port
    except ValueError:
        # Its own text would quote a piece of the password when that holds a bare slash.
        raise ValueError("has no valid port; percent-encode / : and @ in the password") from None
    tls = {name: options.pop(name) for name in TLS_OPTIONS if name in options}
    _refuse(options)
    if tls and parts.scheme != "rediss":
        raise ValueError("has TLS options, which need rediss://")
    if parts.scheme == "rediss":
        tls["ssl_cert_reqs"] = _cert_reqs(tls.get("ssl_cert_reqs", "required"))
    return _Address(parts.scheme, parts.netloc, _database(database or parts.path.strip("/")), tuple(tls.items()))


def _refuse(options: dict[str, str]) -> None:
    if options:
        raise ValueError(f"has an option that is not known here: {', '.join(sorted(options))}")


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise ValueError("must name the database by a number")
    return int(text or 0)


def _cert_reqs(text: str) -> str:
    """The spelling that both understand; kombu alone also knows CERT_REQUIRED."""
    wanted = text.lower().removeprefix("cert_")
    if wanted not in ("none", "optional", "required"):
        raise ValueError("has an ssl_cert_reqs that is not none, optional or required")
    return wanted
