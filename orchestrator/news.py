"""What is news: whoever looks every few seconds finds the same again, and says it once."""

from __future__ import annotations


class News:
    """What was said of whom last. Kept from one look to the next, it keeps the log free of what has not changed."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def __call__(self, about: str, what: str) -> bool:
        """Whether this is not what was said of it before; from now on it is."""
        before = self._said.get(about)
        self._said[about] = what
        return what != before

    def forget(self, about: str) -> None:
        """All is well with it: the next time is news again."""
        self._said.pop(about, None)
