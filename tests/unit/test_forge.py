"""What leaves for a forge mentions nobody, closes nothing, skips no check and forges no trailer."""

from __future__ import annotations

import html
import re
import subprocess
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.text import commit_message, inert

# As GitHub documents them: "Linking a pull request to an issue", "Basic writing and formatting syntax: mentioning
# people and teams", "Skipping workflow runs"; and its cross-references in any form.
# Markdown takes away a backslash and the underscores around a word.
MENTION = re.compile(r"(?:^|[^A-Za-z0-9])@[A-Za-z0-9]", re.MULTILINE)
REFERENCE = r"_*(?:(?:[\w.-]+/[\w.-]+)?#\d+|GH\\?-\d+|https?://\S+/(?:issues|pull)\\?/\d+)"
CLOSES = re.compile(rf"\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?):?\s+(?:{REFERENCE})", re.IGNORECASE)
SKIPS = re.compile(r"\[(?:skip ci|ci skip|no ci|skip actions|actions skip)\]", re.IGNORECASE)

SIGNS = (
    "@",
    "octocat",
    "acme/team",
    "#",
    "12",
    "Fixes ",
    "closes: ",
    "GH-",
    "gh-",
    "GH\\-",
    "_",
    "owner/repo",
    "[skip ci]",
    "[ci skip]",
)
ADDRESSES = ("https://github.com/a/b/issues/", "https://box/a/b/pull/")
ENTITIES = ("&#64;", "&commat;", "&num;", "&#x23;", "\\")
TRAILERS = (
    "Co-authored-by: A <a@b.c>",
    "Signed-off-by: A",
    "Sudocode-Issue: i-other",
    "\n",
    "\n\n",
    " ",
    "\u200b",
    "`",
)

pieces = st.lists(st.sampled_from([*SIGNS, *ADDRESSES, *ENTITIES, *TRAILERS])).map("".join)


def acts(text: str) -> bool:
    """Whether a forge would act on it."""
    shown = html.unescape(text)
    return any(pattern.search(it) for pattern in (MENTION, CLOSES, SKIPS) for it in (text, shown))


@given(pieces | st.text())
@example("Fixes #12")
def test_a_forge_does_not_act_on_it(text: str) -> None:
    """Neither as it stands, in a commit, nor as Markdown shows it; and once is enough."""
    assert not acts(inert(text))
    assert inert(text) == inert(inert(text))


@given(pieces, pieces)
def test_a_commit_has_no_trailers_but_ours(subject: str, body: str) -> None:
    """Whatever an agent says; git itself reads them, and nothing invisible stands within a sign."""
    message = commit_message(subject=subject, body=body, trailers={"Sudocode-Issue": "i-ours"})
    text = message.removesuffix("Sudocode-Issue: i-ours\n")

    assert not acts(message)
    assert not re.search(r"^\s*(?:[A-Za-z]+-)+[A-Za-z]+\s*:", text, re.MULTILINE)


def test_a_secret_that_was_split_is_in_no_commit() -> None:
    """By a character that does not show, and that is taken out."""
    split = "g\u200bhp_" + "aB3xK9mQ2vT7" * 3

    assert "[redacted]\n\n[redacted]\n" == commit_message(subject=split, body=split, trailers={})


def test_git_reads_our_trailers_only() -> None:
    """The last block is ours, and nothing in another one looks like it."""
    body = "Done.\n\nCo-authored-by: X <x@y.z>\nSigned-off-by: X <x@y.z>\nSudocode-Issue: i-other"
    message = commit_message(subject="Add x", body=body, trailers={"Sudocode-Issue": "i-ours"})
    said = subprocess.run(
        ["git", "interpret-trailers", "--parse"], input=message, capture_output=True, text=True, check=True
    )

    assert "Sudocode-Issue: i-ours\n" == said.stdout
    assert "Co authored by: X <x@y.z>\nSigned off by: X <x@y.z>\nSudocode Issue: i-other" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("thanks @octocat and @acme/team", "thanks @ octocat and @ acme/team"),
        ("Fixes #12, closes acme/shop#3, resolves GH-4", "Fixes # 12, closes acme/shop# 3, resolves GH 4"),
        ("closes https://github.com/a/b/issues/5", "closes https://github.com/a/b/issues/ 5"),
        ("the @property of @scope/pkg", "the @ property of @ scope/pkg"),
        ("_@octocat_, __@octocat__", "_@ octocat_, __@ octocat__"),
        (r"fixes _GH-4_ and GH\-5", "fixes _GH 4_ and GH 5"),
        (r"[it](https://box/a/b/pull\/5)", r"[it](https://box/a/b/pull\/ 5)"),
        ("Add x [skip ci]", "Add x [ skip ci]"),
        ("mail anna@example.org", "mail anna@example.org"),
        ("# Title\n\n- [ ] a box, colour #fff, C# and F#", "# Title\n\n- [ ] a box, colour #fff, C# and F#"),
        ("DEV-001: parse; pre-commit runs", "DEV-001: parse; pre-commit runs"),
        ("https://docs.python.org/3/library/re.html", "https://docs.python.org/3/library/re.html"),
    ],
)
def test_it_stays_readable(text: str, expected: str) -> None:
    """A space is all that is added, and only where a forge would act."""
    assert expected == inert(text)


@pytest.mark.parametrize("piece", ["\n", "> \n", "\n-", " ", "-", "a-", "a-b\n", "a-b ", "#", "GH", "\\"])
def test_no_text_takes_long(piece: str) -> None:
    """A worker renews no lease meanwhile."""
    began = time.process_time()
    inert("a-b" + piece * (200_000 // len(piece)))

    assert time.process_time() - began < 1
