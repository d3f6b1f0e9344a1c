"""Secrets taken out of a text: those we were given, by their values, and those of others, by their looks.

The shapes are the ones that the makers of the tokens publish, as gitleaks collects them; docs/adr/0018 says why no
library does it. What an agent prints may be made to be slow, and a step's worker renews no lease while it matches, so
no pattern starts anew within what it has failed to match already. None takes a quote or half an escape, so that JSON
stays JSON; none takes REDACTED, so that doing it again changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from urllib.parse import quote

REDACTED = "[redacted]"

SHORTEST = 8
"""Shorter values of variables are left alone: they would be found in the middle of words."""

_LONGEST_LINE = 64_000
_LONGEST_KEY = 8_000
"""Characters of a stream that are held back at most: for the end of a line, and for that of a key in several lines."""

_SECRET_NAME = re.compile(
    r"(.*_)?(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|PAT|KEY|APIKEY|AUTH|PASS|PWD|COOKIE|DSN)", re.I | re.A
)
_NO_SECRETS = frozenset({"PWD", "OLDPWD"})

# Words that are long enough to be a secret; the shapes are looked for in nothing else, which makes all of it fast.
# None begins within an escape, of JSON, of an address or of a terminal's colour.
_ESCAPE = r"\\(?:[bfnrt]|u[0-9A-Fa-f]{4})|%[0-9A-Fa-f]{2}|\[[0-9;]{1,20}m"
_WORD = re.compile(rf"({_ESCAPE})?([\w.:~+/=-]{{15,}})", re.ASCII)

_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    + "|".join(
        (
            r"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}",
            r"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|oas|ffct|soat)-[\w.-]{20,}|GR1348941[\w-]{20,}",  # GitLab
            r"sk-(?=[\w-]{0,60}\d)[\w-]{20,}",  # Anthropic, OpenAI and those who took after them
            r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
            r"xox[a-z]-[\w.-]{10,}|xapp-\d-[\w-]{10,}",  # Slack
            r"AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}|1//0[\w-]{40,}",  # Google
            r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{5,}(?:\.[\w-]+){0,2}",  # a JSON web token
            r"npm_[A-Za-z0-9]{30,}|pypi-[\w-]{50,}|rubygems_[a-f0-9]{40,}|cio[A-Za-z0-9]{32}(?![A-Za-z0-9])",
            r"hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}|gsk_[A-Za-z0-9]{40,}|r8_[A-Za-z0-9]{30,}",
            r"xai-[A-Za-z0-9]{40,}|pplx-[A-Za-z0-9]{40,}",
            r"[rs]k_(?:live|test|prod)_[A-Za-z0-9]{10,}|whsec_[\w+/]{20,}=*",  # Stripe
            r"SG\.[\w-]{16,}\.[\w-]{16,}|key-[a-f0-9]{32}(?![a-f0-9])|[a-f0-9]{32}-us\d\d?(?!\w)",  # SendGrid, Mail*
            r"do[opr]_v1_[a-f0-9]{40,}|HRKU-[\w-]{30,}|dapi[a-f0-9]{32}|shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}",
            r"SK[a-f0-9]{32}(?![A-Za-z0-9])|sq0[a-z]{3}-[\w-]{20,}",  # Twilio, Square
            r"[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,40}(?![\w-])|\d{8,10}:AA[\w-]{32,34}(?![\w-])",  # Discord, Telegram
            r"hv[bsr]\.[\w-]{20,}|dp\.[a-z]{2,5}\.[\w.-]{20,}|dckr_[a-z]{3}_[\w-]{20,}",  # Vault, Doppler, Docker
            r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{50,}|AT(?:ATT|CTT)3[\w=-]{50,}|ATBB[A-Za-z0-9]{24,}",
            r"lin_(?:api|oauth)_[A-Za-z0-9]{30,}|(?:ntn|secret)_[A-Za-z0-9]{40,}|PMAK-[a-f0-9-]{40,}",
            r"gl(?:sa|c)_[\w+/=]{30,}|sntry[su]_[\w+/=]{40,}|NRAK-[A-Z0-9]{20,}|pul-[a-f0-9]{40}",
            r"pscale_[a-z]+_[\w.-]{30,}|sb[pv]_[a-f0-9]{40}|sb_secret_[\w-]{20,}|fm[12]_[\w+/=]{40,}",
            r"[A-Za-z0-9]{3}\dQ~[\w.~-]{31,34}",  # Azure's client secrets
            r"LTAI[A-Za-z0-9]{16,24}(?![A-Za-z0-9])|AGE-SECRET-KEY-1[A-Z0-9]{50,}|ops_eyJ[\w-]{40,}",
        )
    )
    + ")[A-Za-z0-9]*",  # to the end of the word: what follows would be a word of its own the next time
    re.ASCII,
)

_SLASHES = r"""(?:\\{0,8}["'])?"""
_IS = rf"""{_SLASHES}[ \t]{{0,4}}(?:=>|=(?![=>])|:)[ \t]{{0,4}}{_SLASHES}"""
# No call, no attribute, no variable: code that speaks of a password is no password.
_NO_CODE = (
    r"(?![A-Za-z_]\w{0,60}(?:\.[A-Za-z_]\w{0,60}){0,6}(?:[(\[]|\.[A-Za-z_]))"
    r"(?![A-Za-z_]\w{0,60}(?:\.[A-Za-z_]\w{0,60}){1,6}(?!\w))"
)
_EDGE = r"(?:\b|(?<=\\[nrt]))"

_WORDS_OF_LOGINS = rf"passw(?:or)?d|passphrase|pwd(?!{_IS}[~.]{{0,2}}/)"
# The words without which there is nothing to look for, in lower case, and the look: what is kept stands in its first
# group, what goes follows it.
_NAMED = tuple(
    (words, re.compile(pattern, re.IGNORECASE | re.ASCII))
    for words, pattern in (
        (
            # A quoted text is a value, whatever it looks like; one without quotes may be a variable.
            ("pass", "pwd"),
            rf"""((?:{_WORDS_OF_LOGINS}|(?:db|user|smtp|ftp|mail|admin|root|sql|redis|pg)[_-]?pass){_IS})"""
            r"""(?:(?<=["'])[^\s"'\\$<{%\[(][^"'\\\s]{3,}(?:(?:[ ][^"'\\\s\[]{1,40}){1,9}(?=\\{0,8}["']))?"""
            rf"""|{_NO_CODE}(?=[^\s"'\\]{{0,60}}[\d!@#$%^&*~])[^\s"'\\$<{{%\[(][^\s"'\\,;&)}}\]]{{5,}})""",
        ),
        (
            # Words alone only where no call has them: of a keyword argument, a comma or a bracket follows.
            ("pass", "pwd"),
            rf"""((?:{_WORDS_OF_LOGINS})=)(?!\w{{0,20}}passw)[A-Za-z_]{{8,64}}(?=[\s&;"'\\]|\Z)""",
        ),
        (
            ("token", "secret", "credential", "key", "authorization"),
            r"""((?:token|secret|credentials?|(?:api|access|account|private|signing|encryption|shared|client|master|auth"""
            rf"""|app|service|secret)[_-]?(?:access[_-]?)?key|authorization){_IS}){_NO_CODE}"""
            r"""(?=[\w+/.~-]{0,60}\d)[\w+/.~-]{12,}=*""",
        ),
        (
            ("--",),
            r"""((?<!-)--[\w-]{0,40}(?:token|secret|passw(?:or)?d|passphrase|key)[ \t]+["']?)"""
            r"""(?=[\w+/.~!@#%^*-]{0,60}\d)[\w+/.~!@#%^*-]{6,}=*""",
        ),
        (
            ("-u", "--user"),
            r"""([ \t](?:-u|--user)[ =]["']?[\w.@-]{1,64}:)(?=[^\s"'\\]{0,60}[A-Za-z])[^\s"'\\$(]{4,}""",
        ),
        (("login",), rf"""({_EDGE}login[ \t]+[^\s\[]{{1,64}}\s{{1,9}}password[ \t]+)[^\s"'\\]+"""),  # .netrc
        (
            ("authorization",),
            # In a header, whatever it looks like; elsewhere a name in code or the version of a package may follow.
            rf"""(authorization{_IS}(?:basic|bearer|digest|token|apikey)[ \t]{{1,4}})"""
            r"""(?-i:(?=[\w.~+/-]{0,60}(?:\d|[a-z][A-Z]|[A-Z]{2})))[\w.~+/-]{12,}=*""",
        ),
        (
            ("basic", "bearer", "digest", "token", "apikey"),
            rf"""({_EDGE}(?:basic|bearer|digest|token|apikey)[ \t]{{1,4}})(?!v?\d+\.\d+\.)"""
            r"""(?=[\w.~+/-]{0,60}(?:\d|={1,2}(?![\w.=])))[\w.~+/-]{12,}=*""",
        ),
        (("cookie",), rf"""({_EDGE}cookie:[ \t]{{0,4}})[^\s"'\\;=\[]{{1,64}}=[^\r\n"'\\]{{4,}}"""),
        (
            ("hooks.slack.com", "webhook", "chat.googleapis.com"),
            r"""(hooks\.slack\.com/[a-z]{5,12}/|discord(?:app)?\.com/api/webhooks/|webhook\.office\.com/webhookb2/"""
            r"""|chat\.googleapis\.com/v1/spaces/)[\w/@+-]{20,}""",
        ),
        (
            ("sig",),
            r"""([?&;](?:sig|signature|x-amz-signature|x-goog-signature)=)[\w%+/.~-]{16,}=*""",
        ),
    )
)
_ADDRESS = re.compile(
    r"""(?<=://)(?:[^\s/:@"'\\\[\]]*:[^\s/"'\\\[]+|(?=[^\s/:@"'\\]{0,60}\d)[^\s/:@"'\\\[]{12,}|[^\s/:@"'\\\[]{24,})(?=@)"""
)

_KIND = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_BREAK = r"(?:\s|\\{1,8}[nrt])"
_BLOCK = re.compile(
    rf"""-----BEGIN {_KIND}(?:[^"'\[-]*(?:-(?!----)[^"'\[-]*)*-----END {_KIND}"""
    rf"""|(?:{_BREAK}+[A-Za-z-]{{3,20}}: [^\r\n"'\\\[]{{1,100}}){{0,4}}(?:{_BREAK}+[A-Za-z0-9+/]{{16,}}={{0,2}})+)"""
)
_LOGIN = re.compile(
    r"(?<![^\n])[ \t>+-]{0,9}(?:machine[ \t]+\S{1,99}[ \t]+)?login[ \t]+\S{1,64}\s{1,9}\Z", re.IGNORECASE
)
_BEGIN = re.compile(rf"-----BEGIN {_KIND}")
_END = re.compile(rf"-----END {_KIND}")
_BREAKS = re.compile(rf"{_BREAK}+")
_SEPARATOR = re.compile(r"[\s\"',;]")
_LINE_OF_KEY = re.compile(r"[A-Za-z0-9+/]{16,100}={0,2}")
_MORE_OF_KEY = re.compile(rb"[A-Za-z0-9+/=\s]*")
_FIRST_OF_KEY = re.compile(r"(?<![A-Za-z0-9+/\\])[A-Za-z0-9+/]{16,100}={0,2}\Z")
_LAST_LINE_OF_KEY = re.compile(r"[A-Za-z0-9+/]{0,100}={0,2}")


def redactor(environ: Mapping[str, str], *values: str | None) -> Callable[[str], str]:
    """A function that gives a text with REDACTED for each secret in it, by its looks or because it is known.

    Known are `values`, and those of variables with a secret's name. It keeps JSON valid, and doing it again changes
    nothing. Redact before you cut: half a secret is not recognised.
    """
    known = {value for name, value in environ.items() if _SECRET_NAME.fullmatch(name) and name not in _NO_SECRETS}
    known |= set(filter(None, values))
    # Of a text in lines, as a key in a file is, the long words: streams are read line by line.
    known |= {word for value in known if "\n" in value for word in value.split() if len(word) >= 3 * SHORTEST}
    spelt = {form for value in known for form in (value, json.dumps(value)[1:-1], quote(value, safe=""))}
    # The longest first: one may be a part of another.
    ours = sorted((form for form in spelt if len(form) >= SHORTEST), key=len, reverse=True)

    def redact(text: str) -> str:
        for value in ours:
            text = text.replace(value, REDACTED)
        return redacted(text)

    return redact


def redacted(text: str) -> str:
    """The text with REDACTED for what looks like a secret, whosever it is."""
    if "PRIVATE KEY" in text:
        text = _without_tails(_BLOCK.sub(REDACTED, text))
    if "://" in text:
        text = _ADDRESS.sub(REDACTED, text)
    text = _WORD.sub(lambda word: (word[1] or "") + _SHAPES.sub(REDACTED, word[2]), text)
    there = text.lower()
    for words, look in _NAMED:
        if any(word in there for word in words):
            text = look.sub(rf"\1{REDACTED}", text)
    return text


class Stream:
    """A stream of bytes, redacted piece by piece as if it were one text; `redact` is what `redactor` gives.

    Each line comes out once it is whole, lines that may be part of a key once it is known where that ends, and one
    of .netrc with a login together with the next, which may have its password.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._held = b""
        self._in_key = False

    def feed(self, piece: bytes) -> bytes:
        """What of the stream so far can be shown and was not yet."""
        # Bytes that are no text go through unchanged, and no character is cut where a line is.
        self._held += piece
        if b"\n" not in piece and len(self._held) < _LONGEST_LINE:
            return b""
        if self._in_key and len(self._held) < _LONGEST_KEY and _MORE_OF_KEY.fullmatch(piece):
            return b""
        text = self._held.decode("utf-8", "surrogateescape")
        cut = _showable(text)
        self._held = _bytes(text[cut:])
        self._in_key = b"\n" in self._held
        return _bytes(self._redact(text[:cut]))

    def end(self) -> bytes:
        """The rest."""
        held, self._held = self._held, b""
        return _bytes(self._redact(held.decode("utf-8", "surrogateescape")))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _showable(text: str) -> int:
    """Up to where a text can be redacted without knowing what follows."""
    whole = text.rfind("\n") + 1
    if not whole:
        # The end of a word, if there is one: half a secret is not recognised.
        return next((end.start() for end in [*_SEPARATOR.finditer(text)][-1:]), len(text))
    began = text.rfind("-----BEGIN ", 0, whole)
    if began >= 0 and _BEGIN.match(text, began) and not _END.search(text, began, whole):
        start = began
    elif login := _LOGIN.search(text, max(0, whole - 250), whole):
        start = login.start()
    else:
        # From the beginning of its line: what stands before may say what it is.
        start = _start_of_line(text, _start_of_key(text, 0, whole))
        if end := _END.search(text, start, whole):  # of another key, which may begin in an earlier line
            start = began if began >= 0 else _start_of_line(text, _start_of_key(text, 0, end.start()))
    return start if len(text) - start < _LONGEST_KEY else whole


def _start_of_line(text: str, place: int) -> int:
    return text.rfind("\n", 0, place) + 1


def _without_tails(text: str) -> str:
    """The text without the lines of keys whose beginning was cut off: those before an end that is left."""
    parts, done, before = [], 0, 0
    for end in _END.finditer(text):
        start = _start_of_key(text, before, end.start())
        before = end.end()
        if start < end.start():
            parts += [text[done:start], REDACTED]
            done = before
    return "".join((*parts, text[done:]))


def _start_of_key(text: str, after: int, end: int) -> int:
    """The place where the lines begin that look like a key's and lead up to `end`; `end` where there are none."""
    window = max(after, end - 2 * _LONGEST_KEY)
    start = line_end = end
    breaks = [(found.start(), found.end()) for found in _BREAKS.finditer(text, window, end)]
    for before, line in reversed([(window, window), *breaks]):
        if _LINE_OF_KEY.fullmatch(text, line, line_end):
            start = line
        elif first := _FIRST_OF_KEY.search(text, max(line, line_end - 103), line_end):
            return first.start()  # a command or a string may begin its line
        elif start < end or not _LAST_LINE_OF_KEY.fullmatch(text, line, line_end):
            break
        line_end = before
    return start
