"""Text that leaves for a forge: it mentions nobody, closes nothing, skips no check and forges no trailer.

A forge acts on what is written in commits, titles and descriptions, and most of that was written by agents and users.
Each sign that it acts on gets a space behind it: `@ name`, `# 12`. Quoting it would not do: a commit message is no
Markdown, and a squash makes one of a pull request's description.
"""

from __future__ import annotations

import re

_SIGNS = (
    # As entities they would become signs again where Markdown is shown.
    (re.compile(r"&(?=#|(?:commat|num|sol|hyphen|dash|colon|lsqb|lbrack|period);)"), "& "),
    # An underscore before them is one of Markdown's, which does not show.
    (re.compile(r"(?<![A-Za-z0-9])@(?=\w)"), "@ "),
    (re.compile(r"#(?=\d)"), "# "),
    (re.compile(r"(?<![A-Za-z0-9])(GH)\\*-(?=\d)", re.IGNORECASE), r"\1 "),
    (re.compile(r"(/(?:issues|pull|pulls|merge_requests|discussions|work_items)\\*/)(?=\d)", re.IGNORECASE), r"\1 "),
    (re.compile(r"\[(?=(?:skip|ci|no|actions)[ -](?:ci|skip|actions)\])", re.IGNORECASE), "[ "),
)
# In one line: what goes on over many would be slow.
_KEY = re.compile(
    r"^((?:[^\S\n]|[>*_`#+-])*)([A-Za-z][A-Za-z0-9]*(?:-[A-Za-z][A-Za-z0-9]*)+)(?=(?:[^\S\n]|[*_`])*:)", re.MULTILINE
)


def inert(text: str) -> str:
    """The text, with a space in all that a forge acts on: `@name`, `#12`, `GH-12`, addresses of issues, `[skip ci]`.

    The keys of trailers lose their hyphens: `Signed off by: X` is none. E-mail addresses stay. Take out what does not
    show first: it may stand within a sign. Doing it again changes nothing.
    """
    for sign, instead in _SIGNS:
        text = sign.sub(instead, text)
    return _KEY.sub(lambda key: key[1] + key[2].replace("-", " "), text)
