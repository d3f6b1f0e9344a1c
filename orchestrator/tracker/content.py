"""Places in an issue's text: where feedback is anchored, and where a reference goes."""

from __future__ import annotations

import hashlib

from orchestrator.tracker import jsonl
from orchestrator.tracker.arguments import Arguments, failed, number, optional, required


def anchor(text: str, arguments: Arguments, now: str) -> str | None:
    """The anchor of feedback with a `line` or a `text`, as a JSON string; None without. Raises `ToolError`."""
    if arguments.get("line") is None and not arguments.get("text"):
        return None
    index = _line_index(text, arguments)
    lines = text.split("\n")
    place = {"line_number": index + 1, "text_snippet": lines[index].strip()}
    if index > 0:
        place["context_before"] = lines[index - 1]
    if index + 1 < len(lines):
        place["context_after"] = lines[index + 1]
    place["content_hash"] = hashlib.sha256(lines[index].strip().encode()).hexdigest()[:16]
    place |= {"anchor_status": "valid", "last_verified_at": now, "original_location": {"line_number": index + 1}}
    return jsonl.render(place)


def with_reference(text: str, arguments: Arguments) -> str:
    """The text with `[[id]]` or `[[id|display]]` after a `line` or a `text`. Raises `ToolError`."""
    if arguments.get("line") is None and not arguments.get("text"):
        raise failed("✗ Either --line or --text must be specified")
    display = optional(arguments, "display_text")
    relation = optional(arguments, "relationship_type")
    reference = f"[[{required(arguments, 'reference_id')}{f'|{display}' if display else ''}]]"
    reference += f"{{ {relation} }}" if relation else ""
    gap = "\n" if optional(arguments, "format") == "newline" else " "
    index = _line_index(text, arguments)
    if snippet := optional(arguments, "text"):
        end = text.index(snippet) + len(snippet)
    else:
        end = len("\n".join(text.split("\n")[: index + 1]))
    return f"{text[:end]}{gap}{reference}{text[end:]}"


def _line_index(text: str, arguments: Arguments) -> int:
    if snippet := optional(arguments, "text"):
        start = text.find(snippet)
        if start < 0:
            raise failed(f'✗ Text not found in target: "{snippet}"')
        return text.count("\n", 0, start)
    line = number(arguments, "line")
    if line is None or not 1 <= line <= text.count("\n") + 1:
        raise failed(f"✗ Line number out of range: {required(arguments, 'line')}")
    return line - 1
