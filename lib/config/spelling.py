"""Suggests the nearest known word in messages about an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest known word, or an empty text if none is near."""
    known = list(known)
    same = [name for name in known if name.lower() == word.lower()]
    nearest = same or difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
