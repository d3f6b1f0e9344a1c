"""GitHub's clock, and when it may be asked again: by its own time, whatever the time is here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

QUIET = timedelta(minutes=1)
"""For how long GitHub wants to be left alone when it does not say, or says nonsense."""

MOST_QUIET = timedelta(hours=1)
"""The longest that GitHub's own limits last; a longer wait is not believed, but asked for again."""

_SECONDS = re.compile(r"[0-9]+")
_MOST_DIGITS = 12


def ahead(headers: Mapping[str, str], now: datetime) -> timedelta:
    """How far our clock is ahead of GitHub's; negative when it is behind, nothing when GitHub does not say."""
    there = _date(headers.get("date", ""))
    return now - there if there else timedelta()


def quiet(status: int, headers: Mapping[str, str], message: str, now: datetime) -> timedelta:
    """How long GitHub wants to be left alone; nothing when it does not. Never longer than MOST_QUIET."""
    there = _date(headers.get("date", "")) or now
    if status in {403, 429} and (said := headers.get("retry-after")):
        moment = _date(said)
        return _credible(moment - there if moment else _seconds(said))
    if headers.get("x-ratelimit-remaining") == "0":
        reset = _seconds(headers.get("x-ratelimit-reset", ""))
        return _credible(reset - (there - _EPOCH) if reset else None)
    return QUIET if status == 429 or (status == 403 and "rate limit" in message.lower()) else timedelta()


_EPOCH = datetime.fromtimestamp(0, UTC)


def _credible(wait: timedelta | None) -> timedelta:
    return min(wait, MOST_QUIET) if wait and wait > timedelta() else QUIET


def _seconds(text: str) -> timedelta | None:
    """A number of seconds; one of too many digits is as good as one for ever."""
    return timedelta(seconds=int(text[:_MOST_DIGITS])) if _SECONDS.fullmatch(text) else None


def _date(text: str) -> datetime | None:
    """A date as HTTP writes it, which is always GMT."""
    try:
        return parsedate_to_datetime(text).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
