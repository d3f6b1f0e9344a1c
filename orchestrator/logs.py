"""The form of log lines: one event, one line, `key=value` for people or JSON for machines, always on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

import structlog


class _Unfailing:
    """A stream that drops what cannot be written.

    The reader of our log may be gone, or the disk full: neither may stop a session, or the thread that keeps its lease.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure(level: str, form: str, *, redact: Callable[[str], str] = str) -> None:
    """Set structlog up for this process; `form` is text, json or auto. Calling it again changes nothing.

    Every text of a line passes through `redact`.
    """
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text),
            structlog.processors.format_exc_info,
            lambda _logger, _method, event: {name: _redacted(value, redact) for name, value in event.items()},
            structlog.dev.ConsoleRenderer(colors=False, pad_event_to=18, pad_level=False)
            if text
            else structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(_Unfailing(sys.stderr)),  # type: ignore[arg-type] # all it needs
    )


def adopt(logger: logging.Logger, *, brief: type[Exception]) -> None:
    """Give the lines of a library that uses `logging` the form of ours; an error that is `brief` has no traceback."""

    def one_line(record: logging.LogRecord) -> bool:
        error = record.exc_info and record.exc_info[1]
        if isinstance(error, brief):
            record.msg, record.args, record.exc_info = f"{record.getMessage()}: {error}", (), None
        return True

    *told, render = structlog.get_config()["processors"]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *told],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
    )
    for handler in logger.handlers:
        handler.setFormatter(formatter)
        handler.addFilter(one_line)


def _redacted(value: object, redact: Callable[[str], str]) -> object:
    match value:
        case str():
            return redact(value)
        case list() | tuple():
            return [_redacted(item, redact) for item in value]
        case _:
            return value


class OncePerMinute(logging.Filter):
    """Let each message of a logger through once a minute, without its traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._silent_until: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a record through unless one with the same text, before its arguments, was let through within a minute."""
        record.exc_info = None
        due = self._silent_until.get(record.msg, 0) <= time.monotonic()
        if due:
            self._silent_until[record.msg] = time.monotonic() + 60
        return due


class Once:
    """Log a repeated condition once per subject. Keep one instance from one look to the next."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def is_new(self, subject: str, condition: str) -> bool:
        """True when the subject's condition is another than at the last call."""
        before = self._last.get(subject)
        self._last[subject] = condition
        return condition != before

    def forget(self, subject: str) -> None:
        """Forget a subject that is well again: its next condition is new, whatever it is."""
        self._last.pop(subject, None)
