"""Redis addresses: what redis-py and kombu make of ours."""

from __future__ import annotations

import ssl

import pytest
import redis
from kombu.connection import Connection

from orchestrator.settings.redis_url import celery_broker_url, client_url

ACCEPTED = {
    # given: (for redis-py, for kombu)
    "redis://localhost": ("redis://localhost/0", "redis://localhost/0"),
    "redis://:p%40w@h:6380/2": ("redis://:p%40w@h:6380/2", "redis://:p%40w@h:6380/2"),
    "redis://h?db=5": ("redis://h/5", "redis://h/5"),
    "redis://[::1]:6380/1": ("redis://[::1]:6380/1", "redis://[::1]:6380/1"),
    "unix:///a/r.sock?db=1": ("unix:///a/r.sock?db=1", "redis+socket:///a/r.sock?virtual_host=1"),
    "unix:///a%3Bb/r.sock": ("unix:///a%3Bb/r.sock?db=0", "redis+socket:///a%3Bb/r.sock?virtual_host=0"),
    "redis+socket:///a/r.sock?virtual_host=3": ("unix:///a/r.sock?db=3", "redis+socket:///a/r.sock?virtual_host=3"),
    "redis+socket://u:p@/a/r.sock": ("unix://u:p@/a/r.sock?db=0", "redis+socket://u:p@/a/r.sock?virtual_host=0"),
    "rediss://h/1": ("rediss://h/1?ssl_cert_reqs=required", "rediss://h/1?ssl_cert_reqs=required"),
    "rediss://h?ssl_cert_reqs=CERT_NONE": ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
}

REFUSED = [
    "",
    "localhost:6379",
    "http://h",
    "sentinel://h:26379/0",
    "redis://",
    "redis:///0",
    "redis://h:port/0",
    "redis://:secret/x@h:6379/0",
    "redis://:secret#x@h/0",
    "redis://:secret@[::1/0",
    "redis://:secret@h/zero",
    "redis://h;redis://:secret@i",
    "redis://:secret@h?socket_timeout=5",
    "redis://:secret@h?ssl_cert_reqs=none",
    "rediss://:secret@h?ssl_cert_reqs=maybe",
    "unix://relative/r.sock",
    "unix://",
]


@pytest.mark.parametrize(("given", "expected"), ACCEPTED.items())
def test_both_spellings(given: str, expected: tuple[str, str]) -> None:
    """Every accepted address has one spelling for redis-py and one for kombu."""
    assert expected == (client_url(given), celery_broker_url(given))


@pytest.mark.parametrize("given", ACCEPTED)
def test_spellings_are_stable(given: str) -> None:
    """A spelling that we gave out may be handed in again, in place of the other."""
    assert client_url(given) == client_url(celery_broker_url(given))
    assert celery_broker_url(given) == celery_broker_url(client_url(given))


@pytest.mark.parametrize("given", [given for given in ACCEPTED if given.startswith("redis") and "+" not in given])
def test_libraries_agree(given: str) -> None:
    """redis-py and kombu go to the same host, port and database, with the same password."""
    ours = redis.ConnectionPool.from_url(client_url(given)).connection_kwargs
    theirs = Connection(celery_broker_url(given))  # type: ignore[no-untyped-call] # kombu has no types

    assert ours["host"] == theirs.hostname
    assert ours.get("port") == theirs.port
    assert ours["db"] == int(theirs.virtual_host)
    assert ours.get("password") == theirs.password


def test_certificates_are_checked() -> None:
    """TLS without further options checks certificates, which kombu by itself would not."""
    broker = Connection(celery_broker_url("rediss://h/1"))  # type: ignore[no-untyped-call] # kombu has no types

    assert {"ssl_cert_reqs": ssl.CERT_REQUIRED} == broker.ssl


@pytest.mark.parametrize("given", REFUSED)
def test_refused_without_the_password(given: str) -> None:
    """An address that one of the libraries would misread is refused, and the refusal does not show its password."""
    with pytest.raises(ValueError) as refusal:
        client_url(given)

    assert "secret" not in str(refusal.value)
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None
