"""Suggests the nearest known word in messages about an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Suggestions:
    """did_you_mean for the first words only: to compare 1,500 mistakes with 1,500 names would take half a minute."""

    def __init__(self, most: int = 50) -> None:
        self._left = most

    def did_you_mean(self, word: str, known: Iterable[str]) -> str:
        self._left -= 1
        return did_you_mean(word, known) if self._left >= 0 else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest known word, or an empty text if none is near."""
    known = list(known)
    same = [name for name in known if name.lower() == word.lower()]
    nearest = same or difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
