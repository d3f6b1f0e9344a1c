"""What must not be stored or published: texts that look like secrets, and the secrets that are in the environment."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

REDACTED = "[redacted]"
SHORTEST = 8
"""Shorter values of variables are left alone: they would be found in the middle of words."""

_SECRET_NAME = re.compile(
    r"(.*_)?(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|PAT|KEY|APIKEY|AUTH)", re.IGNORECASE | re.ASCII
)

# None of them takes a quote or a backslash, so that JSON stays JSON. None starts anew within what it has failed to
# match already: what an agent prints may be made to be slow, and a step's worker renews no lease while it matches.
_KNOWN = re.compile(
    "|".join(
        (
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^\"']*?(?:-----END [A-Z ]*PRIVATE KEY-----|(?=[\"'])|\Z)",
            r"\bgh[pousr]_[A-Za-z0-9]{20,}",  # GitHub
            r"\bgithub_pat_\w{20,}",
            r"\bglpat-[\w-]{20,}",  # GitLab
            r"\bsk-[\w-]{20,}",  # Anthropic, OpenAI
            r"\bAKIA[A-Z0-9]{16}\b",  # AWS
            r"\bxox[abprs]-[\w-]{10,}",  # Slack
            r"\bAIza[\w-]{35}",  # Google
            r"(?<![\w-])eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}",  # a JSON web token
            r"(?<=\bBearer )[\w.~+/-]{12,}=*",
            r"(?<=://)[^\s/:@\"'\\]*:[^\s/@\"'\\]+(?=@)",  # user and password in an address
        )
    )
)
# NAME=value and "name": "value", if the value could not be a word or a piece of code.
_NAMED = re.compile(
    r"""(?ix)(\b \w* (?:token|secret|password|passwd|passphrase|api_?key|access_?key) ["']? \s* [=:] \s* ["']?)
    (?=[^\s"'\\=:]*\d) [\w+/.~-]{12,} =*""",
    re.ASCII,
)


def redactor(environ: Mapping[str, str]) -> Callable[[str], str]:
    """A function that gives a text with REDACTED for each secret in it, by its looks or because `environ` has it.

    It keeps JSON valid, and doing it again changes nothing.
    """
    values = {value for name, value in environ.items() if _SECRET_NAME.fullmatch(name) and len(value) >= SHORTEST}
    values |= {json.dumps(value)[1:-1] for value in values}
    # The longest first: one may be a part of another.
    ours = re.compile("|".join(map(re.escape, sorted(values, key=len, reverse=True))) or r"(?!)")

    def redact(text: str) -> str:
        return _NAMED.sub(rf"\1{REDACTED}", _KNOWN.sub(REDACTED, ours.sub(REDACTED, text)))

    return redact
