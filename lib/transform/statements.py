"""Splits a SQL script into its statements, so that an error can name file and line."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice


@dataclass(frozen=True)
class Statement:
    """One statement of a script, without its semicolon. `line` is the line of its first word, counted from 1."""

    text: str
    line: int
    #: its keywords and names, in lower case
    words: tuple[str, ...] = field(default=(), compare=False)


# PostgreSQL: "Lexical Structure". Every non-ASCII character may be part of a name. The character classes are negated,
# because the pattern then compiles twenty times faster. A string or comment without an end extends to the end of file.
_LETTER = r"[^\x00-@\[-^`{-\x7f]"
_LETTER_OR_DIGIT = r"[^\x00-/:-@\[-^`{-\x7f]"
TOKEN = re.compile(
    rf"""
      (?P<space>[ \t\n\r\f\v]+)
    | (?P<comment>--[^\r\n]*)
    | (?P<block>/\*)
    | (?P<escapes>[eE]'(?:[^'\\]+|\\.|'')*+\\?(?:'|\Z))
    | (?P<string>'(?:[^']+|'')*+(?:'|\Z))
    | (?P<name>"(?:[^"]+|"")*+(?:"|\Z))
    | (?P<dollar>\$(?P<tag>(?:{_LETTER}{_LETTER_OR_DIGIT}*)?)\$(?:.*?\$(?P=tag)\$|.*))
    | (?P<word>{_LETTER}(?:{_LETTER_OR_DIGIT}+|\$)*+)
    | (?P<meta>\\[^\r\n]*)
    | (?P<other>[0-9.,=<>:*+]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)


def line_counter(text: str) -> Callable[[int], int]:
    """A function from a position in the text to its line, counted from 1. It does not read the text again each time."""
    newlines = [found.start() for found in re.finditer("\n", text)]
    return lambda position: bisect_left(newlines, position) + 1


COMMENT_MARK = re.compile(r"/\*|\*/")


def tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Kind, text and position of each token; block comments nest."""
    position = 0
    while position < len(text):
        # the last alternative matches any character, so only a block comment ends this loop before the end of the text
        for found in TOKEN.finditer(text, position):
            kind, position = found.lastgroup or "", found.start()
            if kind == "block":
                end = _end_of_comment(text, position)
                yield kind, text[position:end], position
                position = end
                break
            yield kind, found[0], position
        else:
            return


def without_comments(text: str) -> Iterator[tuple[str, str]]:
    """Kind and text of each token, without comments and white space."""
    return ((kind, token) for kind, token, _ in tokens(text) if kind not in ("space", "comment", "block"))


def _end_of_comment(text: str, start: int) -> int:
    depth = 0
    for mark in COMMENT_MARK.finditer(text, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(text)


@cache
def statements(text: str) -> tuple[Statement, ...]:
    """The statements of a script, split like in psql: at each semicolon outside parentheses and routine bodies."""
    found: list[Statement] = []
    line_of = line_counter(text)
    start: int | None = None
    words: list[str] = []
    parentheses = bodies = 0
    for kind, token, position in tokens(text):
        if kind in ("space", "comment", "block", "meta"):
            continue
        if token == ";" and not parentheses and not bodies:
            if start is not None:
                found.append(Statement(text[start:position], line_of(start), tuple(words)))
            start, words = None, []
            continue
        if start is None:
            start, parentheses, bodies = position, 0, 0
        if token in ("(", ")"):
            parentheses = max(0, parentheses + (1 if token == "(" else -1))
        if kind == "word":
            words.append(token.lower())
            if not parentheses and _makes_routine(words):
                bodies = max(0, bodies + _nesting(words[-1], bodies))
    if start is not None:
        found.append(Statement(text[start:].rstrip(), line_of(start), tuple(words)))
    return tuple(found)


def _makes_routine(words: list[str]) -> bool:
    kind = words[3:4] if words[1:3] == ["or", "replace"] else words[1:2]
    return words[0] == "create" and kind in (["function"], ["procedure"])


def _nesting(word: str, depth: int) -> int:
    """How a word changes the nesting depth in a body BEGIN ATOMIC .. END. CASE counts, because it has an END too."""
    return {"begin": 1, "case": 1 if depth else 0, "end": -1}.get(word, 0)


def unquoted(kind: str, token: str) -> str:
    """A word or a quoted name as PostgreSQL stores it; an empty text for any other token."""
    return token.lower() if kind == "word" else token[1:-1].replace('""', '"') if kind == "name" else ""


#: words that may stand between CREATE and the kind of object, such as OR REPLACE
_BEFORE_KIND = {"or", "replace", "global", "local", "temp", "temporary", "unlogged", "recursive", "foreign"}
#: the most tokens from CREATE to the end of the name
_LONGEST_HEAD = 16


@dataclass(frozen=True)
class Created:
    """What a CREATE statement makes."""

    #: in lower case, such as "table", "view" or "materialized view"
    kind: str
    #: as it is written, with its schema if it has one, without quotes
    name: str


def created_by(statement: Statement) -> Created | None:
    """What the statement creates; None for any statement but CREATE."""
    if statement.words[:1] != ("create",):
        return None
    parts = [
        unquoted(kind, token) or token for kind, token in islice(without_comments(statement.text), 1, _LONGEST_HEAD)
    ]
    while parts and parts[0] in _BEFORE_KIND:
        del parts[0]
    kind, parts = " ".join(parts[:1]), parts[1:]
    if kind == "materialized":
        kind, parts = "materialized view", parts[1:]
    if parts[:3] == ["if", "not", "exists"]:
        del parts[:3]
    name = ".".join([*parts[:1], *(parts[2:3] if parts[1:2] == ["."] else [])])
    return Created(kind, name) if kind else None
