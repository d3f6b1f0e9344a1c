"""A tracker that speaks like sudocode, so that everything runs where no sudocode is installed.

`python -m orchestrator.tracker -w DIR` is an MCP server over stdin and stdout with the ten tools of
`sudocode-mcp` 0.2.0. Answers, error texts, side effects of links, order and limits are those of the real server.
Different on purpose:

- the truth is `.sudocode/orch-tracker.db`; `cache.db` belongs to sudocode. Both keep the same `issues.jsonl`, so a repo
  can change over in either direction: delete the database of the tracker you change to, and it reads the files;
- no Markdown copies under `.sudocode/issues/`, and the JSONL files keep the time of their last write;
- a write and its JSONL copy are one transaction: no failed call has been applied, and the files never go backwards;
- a JSONL line that cannot be read on a fresh clone refuses every call instead of losing that issue with the next write;
- no argument is mistaken for an option of a command line, except a new issue's title that starts with a dash;
- feedback given within the same millisecond keeps its order.
"""

from orchestrator.tracker.jsonl import init

__all__ = ["init"]
