"""No secret is left in a text, and nothing else is lost from it."""

from __future__ import annotations

import json
import time
import timeit
from collections.abc import Iterable

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from orchestrator.text import REDACTED, Stream, redactor

OURS = 'pa$$"word\\with(all)'
redact = redactor(
    {"ORCH_GITHUB_TOKEN": "a-token-of-ours", "DB_PASSWORD": OURS, "PATH": "/usr/bin:/bin", "X_KEY": "short"}
)

HEX, WORD = "0123456789abcdef" * 5, "aB3xK9mQ2vT7" * 9
KEY = "\n".join((WORD[:64], WORD[3:67], WORD[:30] + "=="))

SECRETS = [
    "ghp_" + WORD[:36],
    "gho_" + WORD[:36],
    "github_pat_" + WORD[:22] + "_" + WORD[:59],
    "glpat-" + WORD[:20],
    "glrt-" + WORD[:20],
    "sk-ant-api03-" + WORD[:93] + "AA",
    "sk-proj-" + WORD[:60],
    "AKIA" + "ABCDEFGH12345678",
    "ASIA" + "ABCDEFGH12345678",
    "xoxb-123456789012-abcdef",
    "xapp-1-A0123-456-" + HEX[:40],
    "AIza" + WORD[:35],
    "ya29." + WORD[:80],
    "GOCSPX-" + WORD[:28],
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "npm_" + WORD[:36],
    "hf_" + WORD[:34],
    "pypi-AgEIcHlwaS5vcmc" + WORD[:100],
    "sk_live_" + WORD[:24],
    "rk_live_" + WORD[:24],
    "whsec_" + WORD[:32],
    "SG." + WORD[:22] + "." + WORD[:43],
    "dop_v1_" + HEX[:64],
    "HRKU-AA" + WORD[:58],
    "SK" + HEX[:32],
    "dapi" + HEX[:32],
    "shpat_" + HEX[:32],
    "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
    "MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs",
    "hvs." + WORD[:90],
    "dckr_pat_" + WORD[:27],
    "lin_api_" + WORD[:40],
    "glsa_" + WORD[:32] + "_" + HEX[:8],
    "gsk_" + WORD[:52],
    "abc8Q~" + WORD[:34],
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    f"-----BEGIN OPENSSH PRIVATE KEY-----\n{KEY}\n-----END OPENSSH PRIVATE KEY-----",
    "a-token-of-ours",
]

NAMED = [
    ("https://{}@github.com/me/my-repo", WORD[:40]),
    ("https://x-access-token:{}@github.com/me/my-repo.git", WORD[:40]),
    ("postgres://app:{}@db:5432/app", "p@ss-word"),
    ("Authorization: Basic {}", "YWxhZGRpbjpvcGVuc2VzYW1l"),
    ("authorization: Bearer {}", WORD[:30]),
    ("Proxy-Authorization: Basic {}", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
    ('"Basic {}"', "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
    ("curl -H 'X-Api-Key: {}'", HEX[:32]),
    ("curl -u anna:{} https://box", "hunter2"),
    ("Cookie: session={}", WORD[:30]),
    ("https://hooks.slack.com/services/{}", "T00000000/B00000000/" + WORD[:24]),
    ("https://discord.com/api/webhooks/{}", "123456789012345678/" + WORD[:60]),
    ("https://box.blob.core.windows.net/c?sv=1&sig={}", WORD[:43] + "%3D"),
    ("password={}", "hunter2"),
    ("password={}", "correcthorse"),
    ("DB_PASSWORD={}", "Tr0ub4dor&3"),
    ('{{"password": "{}"}}', "only letters".replace(" ", "-")),
    ("password: '{}'", "opensesame"),
    ('{{"passphrase": "{}"}}', "correct horse battery staple"),
    ("mysql --password {} -u root", "hunter22"),
    ("machine box login anna password {}", "opensesame"),
    ("aws_secret_access_key = {}", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY7"),
    ("AccountKey={}", WORD[:86] + "=="),
    ("DD_API_KEY={}", HEX[:32]),
    ("HEROKU_API_KEY={}", "01234567-89ab-cdef-0123-456789abcdef"),
    ("//registry.test/:_authToken={}", "01234567-89ab-cdef-0123-456789abcdef"),
    ("export CLIENT_SECRET={}", WORD[:20]),
    ('{{\\"api_key\\": \\"{}\\"}}', WORD[:32]),
]
"""What is a secret because of what stands around it."""

words = st.text(st.characters(codec="utf-8"), max_size=40)


@given(words, st.sampled_from(SECRETS), words)
def test_a_secret_is_found_in_any_text(before: str, secret: str, after: str) -> None:
    """Wherever it stands as a word of its own."""
    assert secret not in redact(f"{before} {secret} {after}")


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("escape", ["\\n", "\\\\t", "\\u003d", "%3D", "\x1b[1;31m", "\\u001b[31m"])
def test_a_secret_is_found_behind_an_escape(escape: str, secret: str) -> None:
    """Its last letter is no part of the word: of JSON, of an address, of a terminal's colour."""
    assert f"a{escape}{REDACTED}" == redact(f"a{escape}{secret}")


@pytest.mark.parametrize("name", ["Bearer ", "Cookie: session="])
def test_a_name_is_found_behind_an_escape(name: str) -> None:
    """As in a request that stands in JSON."""
    assert HEX[:32] not in redact(json.dumps(f"GET /\n{name}{HEX[:32]}"))


def test_no_escape_is_cut() -> None:
    """Its letter would do as the beginning of a token."""
    once = json.dumps({"notes": "\tab8Q~" + WORD[:34]})

    assert "\t" == json.loads(redact(once))["notes"][0]


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


@pytest.mark.parametrize(("around", "secret"), NAMED)
def test_a_secret_is_known_by_what_stands_around_it(around: str, secret: str) -> None:
    """A password has no looks of its own; a header, an address or a name gives it away, and stays."""
    shown = redact(around.format(secret))

    assert secret not in shown
    assert REDACTED in shown
    assert shown.startswith(around.format("").partition("{")[0][:4])
    assert shown == redact(shown)


def test_the_end_of_a_key_is_a_secret() -> None:
    """Its beginning was cut off, as the last lines of a file are shown; what stood before is left."""
    for line_break in ("\n", "\r\n", "\\n", "\\\\n"):
        text = f"$ tail key.pem\n{KEY}\n-----END EC PRIVATE KEY-----\nok".replace("\n", line_break)

        assert f"$ tail key.pem{line_break}{REDACTED}{line_break}ok" == redact(text)


def test_the_beginning_of_a_key_is_a_secret() -> None:
    """Its end was cut off; what follows is left, and so is one who only speaks of keys."""
    begins = "-----BEGIN EC PRIVATE KEY-----"

    assert f"{REDACTED}\n$ echo ok" == redact(f"{begins}\n{KEY.splitlines()[0]}\n$ echo ok")
    assert f"it begins with {begins}, and so on" == redact(f"it begins with {begins}, and so on")
    headers = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B2C3D4E5F"
    for line_break in ("\n", "\\n"):
        text = f"{begins}\n{headers}\n\n{KEY}\n$ echo ok".replace("\n", line_break)
        assert f"{REDACTED}{line_break}$ echo ok" == redact(text)


ENDS = ["-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"]


@given(
    st.lists(
        st.sampled_from(
            [*SECRETS, *ENDS, KEY, *(around.format(it) for around, it in NAMED), *"\\\"'{}=:@/ \n", "token", "x"]
        )
    )
)
@example([ENDS[0], *ENDS, "a@", ENDS[1]])
def test_pieces_of_secrets_again_change_nothing(pieces: list[str]) -> None:
    """However they stand together."""
    assert redact("".join(pieces)) == redact(redact("".join(pieces)))


@pytest.mark.parametrize(
    "text",
    [
        f"password=>{HEX[:30]},1",
        f"password==?sig={HEX[:70]},1",
        f"--key hooks.slack.com/services/{WORD[:60]}=a1",
        f"cookie:https://hooks.slack.com/services/{WORD[:60]}?a=bcdef",
        f"login https://hooks.slack.com/services/{WORD[:60]} password hunter2",
    ],
)
def test_what_is_redacted_is_not_taken_for_a_part_of_more(text: str) -> None:
    """A text becomes shorter, and what looked too long before may not any more."""
    assert redact(text) == redact(redact(text))


@given(st.lists(st.sampled_from([*SECRETS, *ENDS, KEY, "password=", "://a:b@", "\\", '"', "\n", "\t", "é", "x"])))
@example(["é", KEY.splitlines()[0], "\n", ENDS[1]])
def test_json_of_pieces_stays_json(pieces: list[str]) -> None:
    """However they stand together, and however deep in JSON that is in JSON."""
    text = "".join(pieces)
    once = json.dumps({"notes": text, "passed": True})

    assert json.loads(redact(once))["passed"] is True
    assert json.loads(json.loads(redact(json.dumps({"inner": once})))["inner"])["passed"] is True


HOSTILE = [
    *(
        "token:",
        "-eyJaaaaaaaaaaa",
        "_eyJaaaaaaaaaaa",
        "ghp_eyJ",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
    ),
    *("://a:", "://a:b@", "password  ", "password='", "password=a.b.", "sk-", "sk-a", "SG.", "--key ", "-", "=", "x"),
    *("login a password ", "\\n", "basic ", "cookie: a", "AAAA\n", "AAAAAAAAAAAAAAAAAAAAAAAAAA\n"),
    *("-----BEGIN A PRIVATE KEY-----\\n",),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_no_text_takes_long(piece: str) -> None:
    """Not even one that was made for it, as an agent's answer may be: ten times the length, ten times the time."""

    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        return min(timeit.repeat(lambda: redact(text), timer=time.process_time, number=1, repeat=3))

    assert seconds(200_000) < 40 * max(seconds(20_000), 0.001)


class TestStream:
    """What a program prints is redacted on its way into the file."""

    @staticmethod
    def streamed(text: bytes, sizes: Iterable[int]) -> bytes:
        """The text, fed in pieces of these sizes."""
        stream, out = Stream(redact), b""
        for size in sizes:
            piece, text = text[:size], text[size:]
            out += stream.feed(piece)
        return out + stream.feed(text) + stream.end()

    @given(
        st.lists(st.sampled_from([*SECRETS, KEY, "-----END PRIVATE KEY-----", " ", "\n", "plain words\n", "ä"])),
        st.lists(st.integers(1, 200)),
    )
    @example(["machine box\n  login anna\n  password opensesame\n"], [12, 13])
    @example([SECRETS[-3], "/", KEY.splitlines()[0], "\n"], [])
    @example(["machine box login anna\npassword opensesame\n"], [1] * 50)
    def test_pieces_are_as_good_as_the_whole(self, parts: list[str], sizes: list[int]) -> None:
        """Wherever a secret is cut, also one in several lines."""
        text = "".join(parts)

        assert redact(text) == self.streamed(text.encode(), sizes).decode()

    @given(st.binary(), st.lists(st.integers(1, 20)))
    def test_bytes_that_are_no_text_are_left_alone(self, text: bytes, sizes: list[int]) -> None:
        """A log may have any bytes."""
        assume(redact(text.decode("utf-8", "surrogateescape")) == text.decode("utf-8", "surrogateescape"))

        assert text == self.streamed(text, sizes)

    def test_a_whole_line_is_shown_at_once(self) -> None:
        """Who follows a log sees it as it is printed."""
        assert b"one\n" == Stream(redact).feed(b"one\ntw")

    def test_little_is_held_back(self) -> None:
        """Neither a line without an end nor a key without one fills the memory."""
        stream = Stream(redact)
        for _ in range(100):
            stream.feed(b"x" * 10_000)

        assert 100_000 > len(stream.end())
        for _ in range(10_000):
            stream.feed(WORD[:64].encode() + b"\n")

        assert 100_000 > len(stream.end())


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
        ('{"passphrase": "correct horse battery"}', f'{{"passphrase": "{REDACTED}"}}'),
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
        "password = get_password()",
        "login(user=user, password=password)",
        "    password=form.password2,",
        "token: str",
        "password: Optional[str] = None",
        "secret = os.environ['SECRET_2']",
        "PASSWORD=$DB_PASSWORD1",
        "password: <your password 1>",
        "next_token = tokens[0]",
        "https://github.com/me/my-repo/pull/7",
        "ssh://git@github.com/me/my-repo",
        "docker run -u 1000:1000 image",
        "make test exited with 1: short, /usr/bin:/bin",
        "commit 0123456789abcdef0123456789abcdef01234567",
        "index 0123456..89abcde 100644",
        "i-a1b2c3d4 i-0f9e8d7c-20260101T000000Z",
        "01234567-89ab-cdef-0123-456789abcdef",
        "sha256:" + HEX[:64],
        'integrity "sha512-' + WORD[:86] + '=="',
        'resolved "https://registry.test/a/-/a-1.2.3.tgz#' + HEX[:40] + '"',
        "Bearer authentication, and basic authentication",
        "github.com/opencontainers/go-digest v1.0.0/go.mod h1:" + WORD[:43] + "=",
        "private Token currentTokenHolder; a basic HttpServletRequest, the token TOKEN_REFRESH_INTERVAL",
        "PWD=/home/u1/src",
        'const pwd = "./src/app"',
        "tests/unit/test_redact.py::test_a_secret_is_found_in_any_text",
        "pre-commit: 4.0.1, task-runner-with-a-long-name-1",
    ],
)
def test_code_and_prose_are_left_alone(text: str) -> None:
    """A review that quotes code keeps it, and so do the names of commits, files and issues."""
    assert text == redact(text)


@pytest.mark.parametrize("form", ["https://u:{}@box", "value {} here", '"{}"'])
def test_a_known_value_is_found_however_it_is_spelt(form: str) -> None:
    """As it is, in JSON, and in an address."""
    known = redactor({}, "swörd fish/1")
    for spelt in ("swörd fish/1", json.dumps("swörd fish/1")[1:-1], "sw%C3%B6rd%20fish%2F1"):
        assert spelt not in known(form.format(spelt))


@given(st.text(min_size=8), st.text())
def test_a_variable_with_a_secret_name_is_a_secret(value: str, around: str) -> None:
    """Whatever it looks like."""
    assume(value not in REDACTED)

    assert value not in redactor({"SERVICE_API_KEY": value})(f"{around} {value} {around}").replace(REDACTED, "")
