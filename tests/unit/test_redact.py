"""No secret is left in a text, and nothing else is lost from it."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.text import REDACTED, redactor

OURS = 'pa$$"word\\with(all)'
redact = redactor(
    {"ORCH_GITHUB_TOKEN": "a-token-of-ours", "DB_PASSWORD": OURS, "PATH": "/usr/bin:/bin", "X_KEY": "short"}
)

SECRETS = [
    "ghp_" + "a1" * 18,
    "github_pat_" + "11A" * 9,
    "glpat-" + "x" * 20,
    "sk-ant-api03-" + "abc123" * 6,
    "AKIA" + "ABCDEFGH12345678",
    "xoxb-123456789012-abcdef",
    "AIza" + "a" * 35,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    "a-token-of-ours",
]

words = st.text(st.characters(codec="utf-8"), max_size=40)


@given(words, st.sampled_from(SECRETS), words)
def test_a_secret_is_found_in_any_text(before: str, secret: str, after: str) -> None:
    """Wherever it stands as a word of its own."""
    assert secret not in redact(f"{before} {secret} {after}")


@given(words, st.sampled_from([*SECRETS, OURS]), words)
def test_json_stays_json(before: str, secret: str, after: str) -> None:
    """An agent's answer can still be read, and the secret is not in what is read."""
    read = json.loads(redact(json.dumps({"notes": f"{before} {secret} {after}", "passed": True})))

    assert read["passed"] is True
    assert secret not in read["notes"]


@given(st.text())
def test_again_changes_nothing(text: str) -> None:
    """What is redacted twice, on its way in and on its way out, reads as if it were once."""
    assert redact(text) == redact(redact(text))


@pytest.mark.parametrize("piece", ["token:", "-eyJaaaaaaaaaaa", "-----BEGIN ", "://a:", "password  "])
def test_no_text_takes_long(piece: str) -> None:
    """Not even one that was made for it, as an agent's answer may be: its time grows with its length, no faster."""
    started = time.process_time()
    redact(piece * (100_000 // len(piece)))

    assert time.process_time() - started < 0.6


def test_what_opens_flower_is_a_secret() -> None:
    """Its user and password are one variable."""
    assert REDACTED == redactor({"FLOWER_BASIC_AUTH": "anna:tea-at-five"})("anna:tea-at-five")


@given(st.text(st.sampled_from("abc xyz.,\n")))
def test_plain_text_is_left_alone(text: str) -> None:
    """Words are no secrets."""
    assert text == redact(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://user:hunter22@host:6379/0", f"redis://{REDACTED}@host:6379/0"),
        ("Authorization: Bearer abcdef123456789", f"Authorization: Bearer {REDACTED}"),
        ("API_TOKEN=0123456789abcdef make test", f"API_TOKEN={REDACTED} make test"),
        ('{"client_secret": "0123456789abcdef"}', f'{{"client_secret": "{REDACTED}"}}'),
    ],
)
def test_what_stands_around_a_secret_stays(text: str, expected: str) -> None:
    """Who reads it sees what was there, and where."""
    assert expected == redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "token = settings.github_token",
        "password=validate(password)",
        "https://github.com/me/my-repo/pull/7",
        "make test exited with 1: short, /usr/bin:/bin",
        "commit 0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_code_and_prose_are_left_alone(text: str) -> None:
    """A review that quotes code keeps it, and so does a commit's name."""
    assert text == redact(text)


@given(st.text(min_size=8), st.text())
def test_a_variable_with_a_secret_name_is_a_secret(value: str, around: str) -> None:
    """Whatever it looks like."""
    assume(value not in REDACTED)

    assert value not in redactor({"SERVICE_API_KEY": value})(f"{around} {value} {around}").replace(REDACTED, "")
